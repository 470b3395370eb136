//! Rules by path inside json and jsonb. Only the values at the paths are replaced; the rest of the text stays byte for byte.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::json_path::{JsonPath, Step};
use crate::transform::{Fault, Masked, Transform};

/// Values below this depth become null rather than be visited: the text may be nested without limit.
const MAX_DEPTH: usize = 128;
const NOT_JSON: Fault = "not JSON that can be read";

/// What is done with the values at a path. Objects and arrays there are masked value by value, except where a longer path
/// says something else.
pub(crate) enum JsonLeaf {
    Keep,
    Null,
    /// A constant, as a JSON string and, if it is one, as a number.
    Set {
        string: Vec<u8>,
        number: Option<Vec<u8>>,
    },
    /// A rule for strings and one for numbers; without it, a number is masked as its text. true and false become null.
    Rule {
        string: Box<dyn Transform>,
        number: Option<Box<dyn Transform>>,
    },
}

pub(crate) struct JsonRules(pub(crate) Vec<(JsonPath, JsonLeaf)>);

impl Transform for JsonRules {
    fn apply(
        &self,
        value: &[u8],
        entity: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Masked, Fault> {
        let text = std::str::from_utf8(value).map_err(|_| NOT_JSON)?;
        let root: &RawValue = serde_json::from_str(text).map_err(|_| NOT_JSON)?;
        let mut edit = Edit {
            text,
            copied: 0,
            entity,
            out,
        };
        let open: Vec<usize> = (0..self.0.len()).collect();
        self.visit(root, &open, &JsonLeaf::Keep, 0, &mut edit)?;
        edit.finish();
        Ok(Masked::Value)
    }
}

impl JsonRules {
    /// Visits a value to which the paths of the `open` rules lead. `outer`: what is done with the value around it, unless one of
    /// them ends here: the longest path decides, and of two equally long ones that with more keys.
    fn visit(
        &self,
        node: &RawValue,
        open: &[usize],
        outer: &JsonLeaf,
        depth: usize,
        edit: &mut Edit<'_>,
    ) -> Result<(), Fault> {
        let reached = open
            .iter()
            .filter_map(|rule| self.0.get(*rule))
            .filter(|(path, _)| path.len() == depth)
            .max_by_key(|(path, _)| path.keys());
        let leaf = reached.map_or(outer, |(_, leaf)| leaf);
        match leaf {
            JsonLeaf::Keep => {}
            JsonLeaf::Null => {
                edit.replace(node, b"null");
                return Ok(());
            }
            JsonLeaf::Set { string, number } => {
                let is_number = matches!(kind(node), Kind::Number);
                let constant = number.as_ref().filter(|_| is_number).unwrap_or(string);
                edit.replace(node, constant);
                return Ok(());
            }
            JsonLeaf::Rule { .. } if depth > MAX_DEPTH => {
                edit.replace(node, b"null");
                return Ok(());
            }
            JsonLeaf::Rule { .. } => {}
        }
        match kind(node) {
            Kind::Object => {
                for (key, member) in members(node)? {
                    let leads_to = |step: &Step| match step {
                        Step::Key(wanted) => key.0 == *wanted,
                        Step::AnyKey => true,
                        Step::AnyElement => false,
                    };
                    let open = self.going_on(open, depth, leads_to);
                    self.descend(member, &open, leaf, depth, edit)?;
                }
                Ok(())
            }
            Kind::Array => {
                let open = self.going_on(open, depth, |step| *step == Step::AnyElement);
                for element in elements(node)? {
                    self.descend(element, &open, leaf, depth, edit)?;
                }
                Ok(())
            }
            scalar => {
                mask_scalar(leaf, node, &scalar, edit);
                Ok(())
            }
        }
    }

    /// The rules whose next step leads to a member or an element.
    fn going_on(
        &self,
        open: &[usize],
        depth: usize,
        leads_to: impl Fn(&Step) -> bool,
    ) -> Vec<usize> {
        let goes_on = |rule: &usize| {
            let path = self.0.get(*rule).map(|(path, _)| path);
            path.and_then(|p| p.step(depth)).is_some_and(&leads_to)
        };
        open.iter().copied().filter(goes_on).collect()
    }

    /// Visits a member or an element, unless nothing in it is to be changed.
    fn descend(
        &self,
        child: &RawValue,
        open: &[usize],
        outer: &JsonLeaf,
        depth: usize,
        edit: &mut Edit<'_>,
    ) -> Result<(), Fault> {
        if open.is_empty() && matches!(outer, JsonLeaf::Keep) {
            return Ok(());
        }
        self.visit(child, open, outer, depth + 1, edit)
    }
}

/// Masks a value that is no object and no array.
fn mask_scalar(leaf: &JsonLeaf, node: &RawValue, kind: &Kind, edit: &mut Edit<'_>) {
    let JsonLeaf::Rule { string, number } = leaf else {
        return;
    };
    match (kind, number) {
        (Kind::String, _) => {
            let text: Result<Text<'_>, _> = serde_json::from_str(node.get());
            let masked = text
                .ok()
                .and_then(|t| edit.masked(string.as_ref(), t.0.as_bytes()));
            edit.replace_with_string(node, masked.as_deref());
        }
        (Kind::Number, Some(rule)) => {
            let masked = edit.masked(rule.as_ref(), node.get().as_bytes());
            edit.replace(node, masked.as_deref().unwrap_or(b"null"));
        }
        (Kind::Number, None) => {
            let masked = edit.masked(string.as_ref(), node.get().as_bytes());
            edit.replace_with_string(node, masked.as_deref());
        }
        (Kind::Boolean, _) => edit.replace(node, b"null"),
        (Kind::Null | Kind::Object | Kind::Array, _) => {}
    }
}

enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

fn kind(node: &RawValue) -> Kind {
    match node.get().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Boolean,
        Some(b'n') | None => Kind::Null,
        Some(_) => Kind::Number,
    }
}

/// Copies a text with some of its values replaced, in the order of the text.
struct Edit<'a> {
    text: &'a str,
    copied: usize,
    entity: Option<&'a [u8]>,
    out: &'a mut Vec<u8>,
}

impl Edit<'_> {
    /// Replaces a value of the text. Its place is where its bytes are: raw values borrow from the text.
    fn replace(&mut self, node: &RawValue, with: &[u8]) {
        let start = node.get().as_ptr().addr() - self.text.as_ptr().addr();
        self.out
            .extend_from_slice(&self.text.as_bytes()[self.copied..start]);
        self.out.extend_from_slice(with);
        self.copied = start + node.get().len();
    }

    /// Replaces a value by a string, or by null if there is none or it is not UTF-8.
    fn replace_with_string(&mut self, node: &RawValue, masked: Option<&[u8]>) {
        let text = masked.and_then(|m| std::str::from_utf8(m).ok());
        let json = text.and_then(|t| serde_json::to_vec(t).ok());
        self.replace(node, json.as_deref().unwrap_or(b"null"));
    }

    /// What a rule makes of a value; a value that it cannot change is NULL.
    fn masked(&self, rule: &dyn Transform, value: &[u8]) -> Option<Vec<u8>> {
        let mut masked = Vec::new();
        match rule.apply(value, self.entity, &mut masked) {
            Ok(Masked::Value) => Some(masked),
            Ok(Masked::Null) | Err(_) => None,
        }
    }

    fn finish(self) {
        self.out
            .extend_from_slice(&self.text.as_bytes()[self.copied..]);
    }
}

/// The members of an object in their order, also of keys that occur twice.
fn members(node: &RawValue) -> Result<Vec<(Text<'_>, &RawValue)>, Fault> {
    let members: Members<'_> = serde_json::from_str(node.get()).map_err(|_| NOT_JSON)?;
    Ok(members.0)
}

fn elements(node: &RawValue) -> Result<Vec<&RawValue>, Fault> {
    serde_json::from_str(node.get()).map_err(|_| NOT_JSON)
}

/// A string or a key, which is part of the text unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

struct Members<'a>(Vec<(Text<'a>, &'a RawValue)>);

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::plain::{Constant, Truncate};

    fn masked(rules: Vec<(&str, JsonLeaf)>, text: &str) -> Result<String, Fault> {
        let rules = rules
            .into_iter()
            .map(|(path, leaf)| (JsonPath::parse(path).unwrap(), leaf));
        let mut out = Vec::new();
        JsonRules(rules.collect()).apply(text.as_bytes(), None, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn first() -> JsonLeaf {
        JsonLeaf::Rule {
            string: Box::new(Truncate { characters: 1 }),
            number: Some(Box::new(Constant(b"7".to_vec()))),
        }
    }

    #[test]
    fn values_at_the_path_are_replaced_and_the_rest_stays() {
        for (path, text, expected) in [
            (
                "$.a.b",
                r#"{"z": 1.50, "a":{"c": 1e2,"b": "xyz" }, "b":"xyz"}"#,
                r#"{"z": 1.50, "a":{"c": 1e2,"b": "x" }, "b":"xyz"}"#,
            ),
            (
                "$[*].x",
                r#"[{"x": 12}, {"y": 3}, 4]"#,
                r#"[{"x": 7}, {"y": 3}, 4]"#,
            ),
            (
                "$.a[*].b",
                r#"{"a":[{"b":"uv"},{"b":"\u00fcx"},{"b":null}]}"#,
                r#"{"a":[{"b":"u"},{"b":"ü"},{"b":null}]}"#,
            ),
            // An object or array at the path is masked in every value.
            (
                "$.a",
                r#"{"a":{"b":"uv","c":[true,"wx",5]}}"#,
                r#"{"a":{"b":"u","c":[null,"w",7]}}"#,
            ),
            ("$", r#" "abc" "#, r#" "a" "#),
            ("$.*", r#"{"k":"ab","l":"cd"}"#, r#"{"k":"a","l":"c"}"#),
            // A key that occurs twice is masked twice.
            ("$.a", r#"{"a":"uv","a":"wx"}"#, r#"{"a":"u","a":"w"}"#),
            ("$.none", r#"{"a" : 1}"#, r#"{"a" : 1}"#),
        ] {
            assert_eq!(
                masked(vec![(path, first())], text).unwrap(),
                expected,
                "{path}"
            );
        }
    }

    #[test]
    fn the_longest_path_decides_and_then_the_one_with_more_keys() {
        let text = r#"{"email":"xy","address":{"street":"uv","city":"st"}}"#;
        for (rules, expected) in [
            (
                vec![("$.*", JsonLeaf::Keep), ("$.email", JsonLeaf::Null)],
                r#"{"email":null,"address":{"street":"uv","city":"st"}}"#,
            ),
            (
                vec![("$.email", JsonLeaf::Keep), ("$.*", JsonLeaf::Null)],
                r#"{"email":"xy","address":null}"#,
            ),
            (
                vec![
                    ("$.address", JsonLeaf::Keep),
                    ("$.address.street", JsonLeaf::Null),
                ],
                r#"{"email":"xy","address":{"street":null,"city":"st"}}"#,
            ),
            (
                vec![("$", first()), ("$.address.street", JsonLeaf::Null)],
                r#"{"email":"x","address":{"street":null,"city":"s"}}"#,
            ),
            (
                vec![("$.address", first()), ("$.address.city", JsonLeaf::Keep)],
                r#"{"email":"xy","address":{"street":"u","city":"st"}}"#,
            ),
            // What is replaced as a whole has no values for longer paths.
            (
                vec![
                    ("$.address", JsonLeaf::Null),
                    ("$.address.city", JsonLeaf::Keep),
                ],
                r#"{"email":"xy","address":null}"#,
            ),
        ] {
            assert_eq!(masked(rules, text).unwrap(), expected);
        }
    }

    #[test]
    fn deep_values_are_not_visited_and_not_kept() {
        let text = format!("{}\"secret\"{}", "[".repeat(5000), "]".repeat(5000));
        match masked(vec![("$", first())], &text) {
            Ok(result) => assert!(!result.contains("secret")),
            Err(fault) => assert_eq!(fault, NOT_JSON),
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        assert_eq!(masked(vec![("$", first())], "{"), Err(NOT_JSON));
    }
}

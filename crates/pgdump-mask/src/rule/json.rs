//! Rules by path inside json and jsonb. Only the values at the paths are replaced; the rest of the text stays byte for byte.

use std::ops::Range;

use smallvec::SmallVec;

use super::json_path::{JsonPath, Step};
use super::json_text::{JsonText, NOT_JSON, Raw};
use crate::transform::{Fault, Masked, Transform};

/// Values below this depth become null rather than be visited: the text may be nested without limit.
const MAX_DEPTH: usize = 128;
/// Enough for the usual rules without an allocation.
const ROOM_FOR_OPEN: usize = 32;

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
        let start = out.len();
        let mut edit = Edit {
            text,
            rest: JsonText::new(text),
            copied: 0,
            entity,
            open: (0..self.0.len()).collect(),
            out,
        };
        let visited = self.visit(0..self.0.len(), &JsonLeaf::Keep, 0, &mut edit);
        let result = visited.and_then(|()| edit.finish());
        if result.is_err() {
            out.truncate(start);
        }
        result.map(|()| Masked::Value)
    }
}

impl JsonRules {
    /// Visits the next value of the text, to which the paths of the `open` rules lead. `outer`: what is done with the value around
    /// it, unless one of them ends here: the longest path decides, and of two equally long ones that with more keys.
    fn visit(
        &self,
        open: Range<usize>,
        outer: &JsonLeaf,
        depth: usize,
        edit: &mut Edit<'_>,
    ) -> Result<(), Fault> {
        let reached = edit.open[open.clone()]
            .iter()
            .filter_map(|rule| self.0.get(*rule))
            .filter(|(path, _)| path.len() == depth)
            .max_by_key(|(path, _)| path.keys());
        let leaf = reached.map_or(outer, |(_, leaf)| leaf);
        match leaf {
            JsonLeaf::Null => {
                let node = edit.rest.value()?;
                edit.replace(node, b"null");
                return Ok(());
            }
            JsonLeaf::Set { string, number } => {
                let node = edit.rest.value()?;
                let constant = number.as_ref().filter(|_| node.is_number());
                edit.replace(node, constant.unwrap_or(string));
                return Ok(());
            }
            JsonLeaf::Rule { .. } if depth > MAX_DEPTH => {
                let node = edit.rest.value()?;
                edit.replace(node, b"null");
                return Ok(());
            }
            JsonLeaf::Keep | JsonLeaf::Rule { .. } => {}
        }
        match edit.rest.peek() {
            Some(b'{') => self.visit_object(open, leaf, depth, edit),
            Some(b'[') => self.visit_array(open, leaf, depth, edit),
            _ => mask_scalar(leaf, edit),
        }
    }

    /// Visits the members in their order, also those of keys that occur twice.
    fn visit_object(
        &self,
        open: Range<usize>,
        leaf: &JsonLeaf,
        depth: usize,
        edit: &mut Edit<'_>,
    ) -> Result<(), Fault> {
        let mut goes_on = edit.rest.enter();
        while goes_on {
            // Half a surrogate pair is no text: no path names such a key.
            let key = edit.rest.key()?.string();
            let leads_to = |step: &Step| match step {
                Step::Key(wanted) => key.as_deref() == Some(wanted),
                Step::AnyKey => true,
                Step::AnyElement => false,
            };
            self.descend(open.clone(), leads_to, leaf, depth, edit)?;
            goes_on = edit.rest.next(b'}')?;
        }
        edit.rest.skip_space();
        Ok(())
    }

    fn visit_array(
        &self,
        open: Range<usize>,
        leaf: &JsonLeaf,
        depth: usize,
        edit: &mut Edit<'_>,
    ) -> Result<(), Fault> {
        let mut goes_on = edit.rest.enter();
        while goes_on {
            let leads_to = |step: &Step| *step == Step::AnyElement;
            self.descend(open.clone(), leads_to, leaf, depth, edit)?;
            goes_on = edit.rest.next(b']')?;
        }
        edit.rest.skip_space();
        Ok(())
    }

    /// Visits a member or an element with those of the open rules whose next step leads to it, or passes it if nothing in it is to
    /// be changed.
    fn descend(
        &self,
        open: Range<usize>,
        leads_to: impl Fn(&Step) -> bool,
        outer: &JsonLeaf,
        depth: usize,
        edit: &mut Edit<'_>,
    ) -> Result<(), Fault> {
        let start = edit.open.len();
        for at in open {
            let rule = edit.open[at];
            let path = self.0.get(rule).map(|(path, _)| path);
            if path.and_then(|p| p.step(depth)).is_some_and(&leads_to) {
                edit.open.push(rule);
            }
        }
        let end = edit.open.len();
        if start == end && matches!(outer, JsonLeaf::Keep) {
            edit.rest.value()?;
            return Ok(());
        }
        self.visit(start..end, outer, depth + 1, edit)?;
        edit.open.truncate(start);
        Ok(())
    }
}

/// Masks the next value of the text, which is no object and no array.
fn mask_scalar(leaf: &JsonLeaf, edit: &mut Edit<'_>) -> Result<(), Fault> {
    let node = edit.rest.value()?;
    let JsonLeaf::Rule { string, number } = leaf else {
        return Ok(());
    };
    match node.text.as_bytes().first() {
        None | Some(b'n') => {}
        Some(b't' | b'f') => edit.replace(node, b"null"),
        Some(b'"') => match node.string() {
            Some(text) => edit.mask(node, string.as_ref(), text.as_bytes(), true),
            None => edit.replace(node, b"null"),
        },
        Some(_) => {
            let is_string = number.is_none();
            let rule = number.as_ref().unwrap_or(string);
            edit.mask(node, rule.as_ref(), node.text.as_bytes(), is_string);
        }
    }
    Ok(())
}

/// Copies a text with some of its values replaced, in the order of the text.
struct Edit<'a> {
    text: &'a str,
    /// The text from the next value on.
    rest: JsonText<'a>,
    copied: usize,
    entity: Option<&'a [u8]>,
    /// The rules whose paths lead to the value that is visited, and before them those of the values around it.
    open: SmallVec<[usize; ROOM_FOR_OPEN]>,
    out: &'a mut Vec<u8>,
}

impl Edit<'_> {
    fn replace(&mut self, node: Raw<'_>, with: &[u8]) {
        self.copy_up_to(node);
        self.out.extend_from_slice(with);
    }

    /// Copies what is before a value, which is left out.
    fn copy_up_to(&mut self, node: Raw<'_>) {
        let before = &self.text.as_bytes()[self.copied..node.start];
        self.out.extend_from_slice(before);
        self.copied = node.start + node.text.len();
    }

    /// Replaces a value by what a rule makes of it, as a string or as it is. It becomes null if the rule cannot change it, or the
    /// string is not UTF-8.
    fn mask(&mut self, node: Raw<'_>, rule: &dyn Transform, value: &[u8], is_string: bool) {
        self.copy_up_to(node);
        let start = self.out.len();
        if is_string {
            self.out.push(b'"');
        }
        let result = rule.apply(value, self.entity, self.out);
        let is_written = result == Ok(Masked::Value) && (!is_string || self.end_string(start));
        if !is_written {
            self.out.truncate(start);
            self.out.extend_from_slice(b"null");
        }
    }

    /// Makes a string of what is written after the quote at `start`; false if it is not UTF-8.
    fn end_string(&mut self, start: usize) -> bool {
        let Ok(text) = std::str::from_utf8(&self.out[start + 1..]) else {
            return false;
        };
        let needs_escape = |b: u8| b < b' ' || b == b'"' || b == b'\\';
        if !text.bytes().any(needs_escape) {
            self.out.push(b'"');
            return true;
        }
        let text = text.to_owned();
        self.out.truncate(start);
        serde_json::to_writer(&mut *self.out, &text).is_ok()
    }

    /// Copies what is left, if nothing follows the value.
    fn finish(self) -> Result<(), Fault> {
        self.rest.end()?;
        let left = &self.text.as_bytes()[self.copied..];
        self.out.extend_from_slice(left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::plain::{ConstantRule, Truncate};

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
            number: Some(Box::new(ConstantRule(b"7".to_vec()))),
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
    fn keys_are_compared_as_what_they_stand_for() {
        for (path, text, expected) in [
            (
                "$.email",
                r#"{"\u0065mail":"uv","e\u006Dail":["wx"],"E\u006dail":"yz"}"#,
                r#"{"\u0065mail":"u","e\u006Dail":["w"],"E\u006dail":"yz"}"#,
            ),
            // Half a surrogate pair, which json may have.
            (
                "$.a",
                r#"{"\ud800":"uv","a":"\udc00","a":"wx"}"#,
                r#"{"\ud800":"uv","a":null,"a":"w"}"#,
            ),
            ("$.*", r#"{"\ud800":"uv"}"#, r#"{"\ud800":"u"}"#),
            (
                "$",
                r#"{"\ud800":{"\udfff":"uv"}}"#,
                r#"{"\ud800":{"\udfff":"u"}}"#,
            ),
            ("$['a\"b']", r#"{"a\"b":"uv"}"#, r#"{"a\"b":"u"}"#),
            ("$.a\\b", r#"{"a\\b":"uv"}"#, r#"{"a\\b":"u"}"#),
            (
                "$.a",
                r#"{"a":"\u0075\u0000","b":1e999999}"#,
                r#"{"a":"u","b":1e999999}"#,
            ),
        ] {
            assert_eq!(
                masked(vec![(path, first())], text).unwrap(),
                expected,
                "{path}"
            );
        }
    }

    /// In time that grows with the text, and without a stack that does.
    #[test]
    fn a_hundred_thousand_levels_are_passed() {
        let deep = |open: &str, value: &str, close: &str| {
            format!("{}{value}{}", open.repeat(100_000), close.repeat(100_000))
        };
        for text in [
            deep("[", "\"secret\"", "]"),
            deep(r#"{"a":"#, "\"secret\"", "}"),
        ] {
            for path in ["$", "$.*", "$[*]", "$.a.a.a"] {
                let result = masked(vec![(path, first())], &text).unwrap();
                assert_eq!(result.contains("secret"), result == text, "{path}");
            }
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

    /// Whether values are passed or visited, and also of texts with one mistake: a byte that is inserted, replaced or missing, or an
    /// early end.
    #[test]
    fn json_is_what_the_library_reads_as_json() {
        let texts = [
            r#"{"a": [1, -0.5e+3, 0, "b\u00fc\"\\/", {}], "\ud800" : {"c":[] , "d": null},"e":true}"#,
            r#" [[], [[false]], {"x":{"y":"0123456789\n\t12345"}} , 10E-2,1.25 ] "#,
            r#""a text that is longer than a word of eight bytes \u12AF""#,
            "-0",
            "\ttrue\r\n",
        ];
        let rules = [JsonLeaf::Null, JsonLeaf::Keep, first()]
            .map(|leaf| JsonRules(vec![(JsonPath::parse("$").unwrap(), leaf)]));
        let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let check = |text: &str| {
            for rules in &rules {
                let mut out = Vec::new();
                let result = rules.apply(text.as_bytes(), None, &mut out);
                assert_eq!(result.is_ok(), is_json(text), "{text}");
                let masked = std::str::from_utf8(&out).unwrap();
                assert_eq!(result.is_ok(), is_json(masked), "{text}: {masked}");
                assert!(result.is_ok() || out.is_empty(), "{text}");
            }
        };
        for text in texts {
            assert!(is_json(text), "{text}");
            check(text);
            for at in 0..text.len() {
                for with in [
                    "", "\"", "\\", "{", "[", "]", "}", ",", ":", "0", ".", "e", "-", " ",
                    "\u{1f}", "\u{7f}", "u", "ü",
                ] {
                    let (before, after) = text.split_at(at);
                    check(&format!("{before}{with}{after}"));
                    check(&format!("{before}{with}{}", &after[1..]));
                }
                check(&text[..at]);
            }
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let rules = || JsonRules(vec![(JsonPath::parse("$.a").unwrap(), first())]);
        for text in [
            "",
            "{",
            r#"{"a":"uv""#,
            r#"{"a":"uv",}"#,
            r#"{"a":"uv"} x"#,
            r#"{"a":"uv","b":01}"#,
            r#"{"a":"uv","b":[{"c":"\x"}]}"#,
        ] {
            // Nothing stays of the values that were masked before the mistake.
            let mut out = b"before".to_vec();
            let result = rules().apply(text.as_bytes(), None, &mut out);
            assert_eq!(
                (result, &out[..]),
                (Err(NOT_JSON), &b"before"[..]),
                "{text}"
            );
        }
    }
}

//! Paths into JSON: `$.a.b`, `$.a[*].b`, `$[*].x`, `$["a b"]`, `$.*`.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    AnyKey,
    AnyElement,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonPath(Vec<Step>);

/// The deepest path that is accepted.
const MAX_STEPS: usize = 64;

impl JsonPath {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.strip_prefix('$')?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest)?;
            steps.push(step);
            rest = after;
        }
        (steps.len() <= MAX_STEPS).then_some(Self(steps))
    }

    pub(crate) fn step(&self, depth: usize) -> Option<&Step> {
        self.0.get(depth)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many of its steps are keys, and not wildcards.
    pub(crate) fn keys(&self) -> usize {
        let keys = self.0.iter().filter(|s| matches!(s, Step::Key(_)));
        keys.count()
    }

    /// Whether both lead to the same values, and neither is the more specific one.
    pub(crate) fn conflicts_with(&self, other: &Self) -> bool {
        let steps = || self.0.iter().zip(&other.0);
        let is_common = |(a, b): (&Step, &Step)| match (a, b) {
            (Step::AnyKey, Step::Key(_)) | (Step::Key(_), Step::AnyKey) => true,
            (a, b) => a == b,
        };
        let differ = |(a, b): (&Step, &Step)| a != b;
        let is_wider = |(a, b): (&Step, &Step)| *a == Step::AnyKey && a != b;
        let is_narrower = |(a, b): (&Step, &Step)| *b == Step::AnyKey && a != b;
        self.0.len() == other.0.len()
            && steps().all(is_common)
            && (!steps().any(differ) || (steps().any(is_wider) && steps().any(is_narrower)))
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix("[*]") {
        return Some((Step::AnyElement, rest));
    }
    if let Some(rest) = text.strip_prefix(".*") {
        return Some((Step::AnyKey, rest));
    }
    for quote in ['"', '\''] {
        let quoted = text.strip_prefix('[').and_then(|t| t.strip_prefix(quote));
        if let Some(quoted) = quoted {
            let (key, rest) = quoted.split_once(quote)?;
            // Elsewhere, paths have escapes in quotes. Taken for itself, it would lead to no value, which then stays.
            if key.contains('\\') {
                return None;
            }
            return Some((Step::Key(key.to_owned()), rest.strip_prefix(']')?));
        }
    }
    let name = text.strip_prefix('.')?;
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (key, rest) = name.split_at(end);
    // A pattern of keys, which paths do not have.
    let is_key = !key.is_empty() && !key.contains('*');
    is_key.then(|| (Step::Key(key.to_owned()), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let key = |k: &str| Step::Key(k.to_owned());
        for (text, expected) in [
            ("$", Some(vec![])),
            ("$.a.b", Some(vec![key("a"), key("b")])),
            ("$.a[*].b", Some(vec![key("a"), Step::AnyElement, key("b")])),
            ("$[*].x", Some(vec![Step::AnyElement, key("x")])),
            ("$[\"a b\"].c", Some(vec![key("a b"), key("c")])),
            ("$.*", Some(vec![Step::AnyKey])),
            ("a.b", None),
            ("$.", None),
            ("$..a", None),
            ("$[0]", None),
            ("$.e*", None),
            ("$.*mail", None),
            ("$[\"e*\"]", Some(vec![key("e*")])),
            ("$['a\"b']", Some(vec![key("a\"b")])),
            ("$.a\\b", Some(vec![key("a\\b")])),
            ("$[\"\\u0065mail\"]", None),
            ("$[\"a\\\"b\"]", None),
        ] {
            assert_eq!(JsonPath::parse(text), expected.map(JsonPath), "{text}");
        }
    }

    #[test]
    fn paths_conflict_if_neither_is_more_specific() {
        for (a, b, expected) in [
            ("$.a.*", "$.*.b", true),
            ("$.a", "$[\"a\"]", true),
            ("$.*", "$.a", false),
            ("$.a.*", "$.c.b", false),
            ("$.a", "$.a.b", false),
            ("$[*].a", "$.*.a", false),
        ] {
            let path = |text| JsonPath::parse(text).unwrap();
            assert_eq!(path(a).conflicts_with(&path(b)), expected, "{a} {b}");
            assert_eq!(path(b).conflicts_with(&path(a)), expected, "{b} {a}");
        }
    }
}

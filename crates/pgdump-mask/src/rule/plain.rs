//! Rules that need no key.

use regex::bytes::Regex;

use crate::transform::{Fault, Masked, Transform, first_characters};

pub(crate) struct Null;

impl Transform for Null {
    fn apply(&self, _: &[u8], _: Option<&[u8]>, _: &mut Vec<u8>) -> Result<Masked, Fault> {
        Ok(Masked::Null)
    }
}

pub(crate) struct ConstantRule(pub(crate) Vec<u8>);

impl Transform for ConstantRule {
    fn apply(&self, _: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        out.extend_from_slice(&self.0);
        Ok(Masked::Value)
    }

    fn replaces_null(&self) -> bool {
        true
    }
}

pub(crate) struct Truncate {
    pub(crate) characters: usize,
}

impl Transform for Truncate {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        out.extend_from_slice(first_characters(value, self.characters));
        Ok(Masked::Value)
    }
}

pub(crate) struct Replace {
    pub(crate) regex: Regex,
    pub(crate) with: Vec<u8>,
    /// What is longer is cut off.
    pub(crate) max: Option<usize>,
}

impl Transform for Replace {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        let start = out.len();
        if self.with.contains(&b'$') {
            out.extend_from_slice(&self.regex.replace_all(value, self.with.as_slice()));
        } else {
            // Without groups, the result needs no buffer of its own.
            let mut copied = 0;
            for found in self.regex.find_iter(value) {
                out.extend_from_slice(&value[copied..found.start()]);
                out.extend_from_slice(&self.with);
                copied = found.end();
            }
            out.extend_from_slice(&value[copied..]);
        }
        if let Some(max) = self.max {
            let fitting = first_characters(&out[start..], max).len();
            out.truncate(start + fitting);
        }
        Ok(Masked::Value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rule: &dyn Transform, value: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(
            rule.apply(value.as_bytes(), None, &mut out),
            Ok(Masked::Value)
        );
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_are_cut_at_characters() {
        let cut = Truncate { characters: 3 };
        assert_eq!(text(&cut, "Zürich"), "Zür");
        assert_eq!(text(&cut, "Zü"), "Zü");
    }

    #[test]
    fn matches_are_replaced_everywhere_and_fit() {
        let replace = |max| Replace {
            regex: Regex::new(r"(\d)\d+").unwrap(),
            with: b"${1}XX".to_vec(),
            max,
        };
        assert_eq!(text(&replace(None), "a12 b345"), "a1XX b3XX");
        assert_eq!(text(&replace(Some(6)), "a12 b345"), "a1XX b");
        let literal = |max| Replace {
            regex: Regex::new(r"\d*").unwrap(),
            with: "ü".into(),
            max,
        };
        assert_eq!(text(&literal(None), "a12 b3"), "üaü übü");
        assert_eq!(text(&literal(Some(4)), "a12 b3"), "üaü ");
    }
}

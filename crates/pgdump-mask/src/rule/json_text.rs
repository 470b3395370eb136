//! Steps through a text that has been found to be JSON, without reading any part of it twice.

use std::borrow::Cow;

use memchr::memchr2;

/// A place in the text. No other text makes it panic or loop, but where it stops is then of no meaning.
pub(super) struct JsonText<'t> {
    text: &'t str,
    at: usize,
}

/// A value or key as it is in the text.
#[derive(Clone, Copy)]
pub(super) struct Raw<'t> {
    pub(super) text: &'t str,
    pub(super) start: usize,
    /// Of a string.
    has_escapes: bool,
}

impl<'t> JsonText<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut json = Self { text, at: 0 };
        json.skip_space();
        json
    }

    /// The next byte that is no white space, if the place is not inside a value.
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes past a byte, and the white space behind it.
    pub(super) fn step(&mut self) {
        self.at += 1;
        self.skip_space();
    }

    /// Goes past a value or key, and the white space behind it.
    pub(super) fn value(&mut self) -> Raw<'t> {
        let start = self.at;
        let mut has_escapes = false;
        match self.peek() {
            Some(b'"') => has_escapes = self.skip_string(),
            Some(b'{' | b'[') => self.skip_nested(),
            _ => self.skip_word(),
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        self.skip_space();
        Raw {
            text,
            start,
            has_escapes,
        }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Numbers, true, false and null: one byte at least, so that no loop stands still.
    fn skip_word(&mut self) {
        let is_end = |b: &u8| b",]} \n\t\r".contains(b);
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(is_end).unwrap_or(rest.len()).max(1);
    }

    /// Returns whether the string has escapes.
    fn skip_string(&mut self) -> bool {
        self.at += 1;
        let mut has_escapes = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let Some(found) = memchr2(b'"', b'\\', rest) else {
                self.at = self.text.len();
                return has_escapes;
            };
            if rest[found] == b'"' {
                self.at += found + 1;
                return has_escapes;
            }
            has_escapes = true;
            self.at = self.text.len().min(self.at + found + 2);
        }
    }

    fn skip_nested(&mut self) {
        let mut depth = 0_usize;
        while let Some(b) = self.peek() {
            match b {
                b'"' => {
                    self.skip_string();
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.at += 1;
            if depth == 0 && matches!(b, b'}' | b']') {
                return;
            }
        }
    }
}

impl<'t> Raw<'t> {
    /// The text of a string or key; `None` if it has escapes that stand for no text.
    pub(super) fn string(self) -> Option<Cow<'t, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        if self.has_escapes {
            serde_json::from_str(self.text).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(inner))
        }
    }

    pub(super) fn is_number(self) -> bool {
        matches!(self.text.as_bytes().first(), Some(b'-' | b'0'..=b'9'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_passed_as_a_whole() {
        let text = r#" [ {"a]": ["}", 1e2 ]} , "x\"y\\" ,true,-1.5 , "\u00fc", "\ud800" ] "#;
        let mut json = JsonText::new(text);
        let mut values = Vec::new();
        while json.peek() != Some(b']') {
            json.step();
            values.push(json.value());
        }
        json.step();
        assert_eq!(json.peek(), None);
        let texts: Vec<&str> = values.iter().map(|v| v.text).collect();
        let [object, escaped, word, number, letter, half] = texts[..] else {
            panic!("{texts:?}");
        };
        assert_eq!(object, r#"{"a]": ["}", 1e2 ]}"#);
        assert_eq!([escaped, word, number], [r#""x\"y\\""#, "true", "-1.5"]);
        assert_eq!([letter, half], [r#""\u00fc""#, r#""\ud800""#]);
        let in_place = |v: &Raw<'_>| text[v.start..].starts_with(v.text);
        assert!(values.iter().all(in_place));
        let strings = values.iter().map(|v| v.string());
        let strings: Vec<Option<String>> = strings.map(|s| s.map(Cow::into_owned)).collect();
        let read = |t: &str| Some(t.to_owned());
        assert_eq!(strings, [None, read("x\"y\\"), None, None, read("ü"), None]);
        assert!(values[3].is_number() && !values[2].is_number());
    }

    #[test]
    fn a_text_that_ends_early_ends_the_value() {
        for text in ["\"a", "\"a\\", "{\"a\": [", "", "[\"\\\"", "1"] {
            let mut json = JsonText::new(text);
            assert_eq!(json.value().text, text, "{text}");
            assert_eq!(json.peek(), None);
        }
    }
}

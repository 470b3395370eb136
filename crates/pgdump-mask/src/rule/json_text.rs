//! Steps through a text, and finds on the way whether it is JSON (RFC 8259): no part of it is read twice.

use std::borrow::Cow;

use crate::transform::Fault;
use crate::words::{equal_to, less_than, word};

pub(super) const NOT_JSON: Fault = "not JSON that can be read";

/// A place in the text: at a value or key, or behind one and the white space that follows it.
pub(super) struct JsonText<'t> {
    text: &'t str,
    at: usize,
}

/// A value or key as it is in the text.
#[derive(Clone, Copy)]
pub(super) struct Raw<'t> {
    pub(super) text: &'t str,
    pub(super) start: usize,
    /// How many escapes a string has.
    escapes: usize,
}

impl<'t> JsonText<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let mut json = Self { text, at: 0 };
        json.skip_space();
        json
    }

    /// The next byte.
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes past a value.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn value(&mut self) -> Result<Raw<'t>, Fault> {
        let start = self.at;
        let mut escapes = 0;
        match self.peek() {
            Some(b'"') => escapes = self.skip_string()?,
            Some(b'{' | b'[') => self.skip_nested()?,
            _ => self.skip_word()?,
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        self.skip_space();
        Ok(Raw {
            text,
            start,
            escapes,
        })
    }

    /// Goes past the key of a member, and its colon.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn key(&mut self) -> Result<Raw<'t>, Fault> {
        if self.peek() != Some(b'"') {
            return Err(NOT_JSON);
        }
        let key = self.value()?;
        if self.peek() != Some(b':') {
            return Err(NOT_JSON);
        }
        self.step();
        Ok(key)
    }

    /// Goes to the first element of the array, or member of the object, that begins here, and says whether there is one. If there
    /// is none, the place is behind the bracket that closes it.
    pub(super) fn enter(&mut self) -> bool {
        let close = self.peek().map(closing);
        self.step();
        let is_empty = self.peek() == close;
        self.at += usize::from(is_empty);
        !is_empty
    }

    /// Goes from behind an element or member to the next one, and says whether there is one. If there is none, the place is behind
    /// the bracket.
    ///
    /// # Errors
    /// There is neither a comma nor this bracket.
    pub(super) fn next(&mut self, close: u8) -> Result<bool, Fault> {
        match self.peek() {
            Some(b',') => {
                self.step();
                Ok(true)
            }
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(NOT_JSON),
        }
    }

    pub(super) fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// # Errors
    /// Something follows.
    pub(super) fn end(&self) -> Result<(), Fault> {
        self.peek().map_or(Ok(()), |_| Err(NOT_JSON))
    }

    /// Goes past a byte, and the white space behind it.
    fn step(&mut self) {
        self.at += 1;
        self.skip_space();
    }

    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Numbers, true, false and null.
    fn skip_word(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let word: &[u8] = match rest.first() {
            Some(b't') => b"true",
            Some(b'f') => b"false",
            Some(b'n') => b"null",
            _ => {
                self.at += number_length(rest).ok_or(NOT_JSON)?;
                return Ok(());
            }
        };
        self.at += word.len();
        rest.starts_with(word).then_some(()).ok_or(NOT_JSON)
    }

    /// Returns how many escapes the string has.
    fn skip_string(&mut self) -> Result<usize, Fault> {
        self.at += 1;
        let mut escapes = 0;
        loop {
            let rest = self.rest();
            let found = end_of_plain(rest).ok_or(NOT_JSON)?;
            self.at += found + 1;
            match rest[found] {
                b'"' => return Ok(escapes),
                b'\\' => {
                    escapes += 1;
                    self.at += escape_length(&rest[found + 1..]).ok_or(NOT_JSON)?;
                }
                _ => return Err(NOT_JSON),
            }
        }
    }

    /// Arrays and objects of any depth.
    fn skip_nested(&mut self) -> Result<(), Fault> {
        let mut open = Vec::new();
        loop {
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if self.enter() {
                        open.push(closing(bracket));
                        self.skip_key(closing(bracket))?;
                        continue;
                    }
                }
                Some(b'"') => {
                    self.skip_string()?;
                }
                _ => self.skip_word()?,
            }
            loop {
                let Some(close) = open.last().copied() else {
                    return Ok(());
                };
                self.skip_space();
                if self.next(close)? {
                    self.skip_key(close)?;
                    break;
                }
                open.pop();
            }
        }
    }

    /// Goes past the key if this bracket closes an object.
    fn skip_key(&mut self, close: u8) -> Result<(), Fault> {
        if close == b'}' {
            self.key()?;
        }
        Ok(())
    }
}

fn closing(bracket: u8) -> u8 {
    if bracket == b'{' { b'}' } else { b']' }
}

/// How far a string goes without a quote, a backslash and control characters; `None`: to the end of the text.
fn end_of_plain(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks();
    for (number, bytes) in words.iter().enumerate() {
        let word = word(*bytes);
        let found = less_than(word, b' ') | equal_to(word, b'"') | equal_to(word, b'\\');
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let is_end = |b: &u8| *b < b' ' || *b == b'"' || *b == b'\\';
    let in_tail = tail.iter().position(is_end)?;
    Some(8 * words.len() + in_tail)
}

/// The length of an escape without its backslash. Half a surrogate pair is one: json may have it.
fn escape_length(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(1),
        b'u' => {
            let digits = text.get(1..5)?;
            digits.iter().all(u8::is_ascii_hexdigit).then_some(5)
        }
        _ => None,
    }
}

/// The length of the number that a text begins with.
fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        (count > 0).then_some(count)
    };
    let start = usize::from(text.first() == Some(&b'-'));
    let whole = digits(start)?;
    if whole > 1 && text.get(start) == Some(&b'0') {
        return None;
    }
    let mut end = start + whole;
    if text.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        end += 1 + usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        end += digits(end)?;
    }
    Some(end)
}

impl<'t> Raw<'t> {
    /// The text of a string or key; `None` if it has escapes that stand for no text.
    pub(super) fn string(self) -> Option<Cow<'t, str>> {
        let inner = self.text.strip_prefix('"')?.strip_suffix('"')?;
        if self.escapes > 0 {
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_passed_as_a_whole() {
        let text = r#" [ {"a]": ["}", 1e2 ]} , "x\"y\\" ,true,-1.5 , "\u00fc", "\ud800" ] "#;
        let mut json = JsonText::new(text);
        let mut values = Vec::new();
        let mut goes_on = json.enter();
        while goes_on {
            values.push(json.value().unwrap());
            goes_on = json.next(b']').unwrap();
        }
        json.skip_space();
        assert_eq!(json.end(), Ok(()));
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

    fn is_json(text: &str) -> bool {
        let mut json = JsonText::new(text);
        json.value().is_ok() && json.end().is_ok()
    }

    fn is_json_of_library(text: &str) -> bool {
        serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
    }

    /// Of texts with one mistake, too: a byte that is missing, twice, or another one.
    #[test]
    fn json_is_what_the_library_reads_as_json() {
        let texts = [
            r#"{"a": [1, -0.5e+3, 0, "b\u00fc\"\\/", {}], "\ud800" : {"c":[] , "d": null},"e":true}"#,
            r#" [[], [[false]], {"x":{"y":"0123456789\n\t12345"}} , 10E-2,1.25 ] "#,
            r#""a text that is longer than a word of eight bytes \u12AF""#,
            "-0",
            "\ttrue\r\n",
        ];
        for text in texts {
            assert!(is_json(text) && is_json_of_library(text), "{text}");
            for at in 0..text.len() {
                for with in [
                    "", "\"", "\\", "{", "]", "}", ",", ":", "0", ".", "e", "-", " ", "\u{1f}",
                    "\u{7f}", "u", "ü",
                ] {
                    let Some((before, after)) = text.split_at_checked(at) else {
                        continue;
                    };
                    let inserted = format!("{before}{with}{after}");
                    let replaced = format!("{before}{with}{}", &after[1..]);
                    for changed in [inserted, replaced, before.to_owned()] {
                        assert_eq!(is_json(&changed), is_json_of_library(&changed), "{changed}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_json_for_both_or_neither(text in r#"[\[\]{}:,"\\0-9eE.+\-tfn\x00-\x20ua]{0,12}"#) {
            prop_assert_eq!(is_json(&text), is_json_of_library(&text));
        }
    }
}

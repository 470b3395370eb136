//! A cursor over JSON text that validates it (RFC 8259) as it goes, so that no part is read twice. Text that it has passed from
//! the first value to [`JsonText::end`] without an error is valid.

use std::borrow::Cow;

use crate::transform::Fault;
use crate::words::{bytes_below, bytes_equal, word};

pub(super) const NOT_JSON: Fault = "not JSON that can be read";

/// The cursor: at a value or key, or behind one and the white space that follows it.
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

    /// The next byte.
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes a value, of any depth.
    ///
    /// # Errors
    /// No valid value begins here.
    pub(super) fn value(&mut self) -> Result<Raw<'t>, Fault> {
        let start = self.at;
        let mut has_escapes = false;
        match self.peek() {
            Some(b'"') => has_escapes = self.skip_string()?,
            Some(b'{' | b'[') => self.skip_nested()?,
            _ => self.skip_literal()?,
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        self.skip_space();
        Ok(Raw {
            text,
            start,
            has_escapes,
        })
    }

    /// Passes the key of a member, and its colon.
    ///
    /// # Errors
    /// No string begins here, or no colon follows it.
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

    /// Enters the array or object that begins here: moves to its first element or member and returns true, or, if it is empty, moves
    /// behind its closing bracket and returns false.
    pub(super) fn enter(&mut self) -> bool {
        let close = self.peek().map(closing);
        self.step();
        let is_empty = self.peek() == close;
        self.at += usize::from(is_empty);
        !is_empty
    }

    /// Moves from behind an element or member to the next one and returns true, or behind the closing bracket and returns false.
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

    /// Checks that the text ends here.
    ///
    /// # Errors
    /// Something else follows.
    pub(super) fn end(&self) -> Result<(), Fault> {
        self.peek().map_or(Ok(()), |_| Err(NOT_JSON))
    }

    /// Passes a byte, and the white space behind it.
    fn step(&mut self) {
        self.at += 1;
        self.skip_space();
    }

    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    /// Numbers, true, false and null.
    fn skip_literal(&mut self) -> Result<(), Fault> {
        let rest = self.rest();
        let literal: &[u8] = match rest.first() {
            Some(b't') => b"true",
            Some(b'f') => b"false",
            Some(b'n') => b"null",
            _ => {
                self.at += number_length(rest).ok_or(NOT_JSON)?;
                return Ok(());
            }
        };
        self.at += literal.len();
        rest.starts_with(literal).then_some(()).ok_or(NOT_JSON)
    }

    /// Returns whether the string has escapes.
    fn skip_string(&mut self) -> Result<bool, Fault> {
        self.at += 1;
        let mut has_escapes = false;
        loop {
            let rest = self.rest();
            let found = end_of_plain(rest).ok_or(NOT_JSON)?;
            self.at += found + 1;
            match rest[found] {
                b'"' => return Ok(has_escapes),
                b'\\' => {
                    has_escapes = true;
                    self.at += escape_length(&rest[found + 1..]).ok_or(NOT_JSON)?;
                }
                _ => return Err(NOT_JSON),
            }
        }
    }

    /// Passes an array or object of any depth, without recursion.
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
                _ => self.skip_literal()?,
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

    /// Passes a key if this bracket closes an object.
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

/// Where the first quote, backslash or control character is.
fn end_of_plain(text: &[u8]) -> Option<usize> {
    let (words, tail) = text.as_chunks();
    for (number, bytes) in words.iter().enumerate() {
        let word = word(*bytes);
        let found = bytes_below(word, b' ') | bytes_equal(word, b'"') | bytes_equal(word, b'\\');
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let is_end = |b: &u8| *b < b' ' || *b == b'"' || *b == b'\\';
    let in_tail = tail.iter().position(is_end)?;
    Some(8 * words.len() + in_tail)
}

/// The length of an escape, without its backslash. Half a surrogate pair is accepted, because PostgreSQL's json accepts it.
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

    proptest! {
        #[test]
        fn any_text_is_json_for_both_or_neither(text in r#"[\[\]{}:,"\\0-9eE.+\-tfn\x00-\x20ua]{0,12}"#) {
            prop_assert_eq!(is_json(&text), is_json_of_library(&text));
        }
    }
}

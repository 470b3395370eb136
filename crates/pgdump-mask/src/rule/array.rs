//! Elements of arrays, in PostgreSQL's text form: `{a,"b c",NULL,{…}}`, perhaps after its bounds (`[0:1]=`).

use crate::transform::{Fault, Masked, Transform};

const NOT_AN_ARRAY: Fault = "not an array that can be read";

pub(crate) struct EachElement(pub(crate) Box<dyn Transform>);

impl Transform for EachElement {
    fn apply(
        &self,
        value: &[u8],
        entity: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Masked, Fault> {
        let body = match value.first() {
            Some(b'[') => 1 + value.iter().position(|b| *b == b'=').ok_or(NOT_AN_ARRAY)?,
            _ => 0,
        };
        out.extend_from_slice(&value[..body]);
        let mut rest = &value[body..];
        if rest.first() != Some(&b'{') {
            return Err(NOT_AN_ARRAY);
        }
        let (mut depth, mut element) = (0_usize, Vec::new());
        while let Some(b) = rest.first() {
            match b {
                b'{' => depth += 1,
                b'}' => depth = depth.checked_sub(1).ok_or(NOT_AN_ARRAY)?,
                b',' => {}
                _ => {
                    element.clear();
                    let is_null = read_element(&mut rest, &mut element)?;
                    self.write(is_null, &element, entity, out)?;
                    continue;
                }
            }
            out.push(*b);
            rest = &rest[1..];
        }
        if depth == 0 {
            Ok(Masked::Value)
        } else {
            Err(NOT_AN_ARRAY)
        }
    }
}

impl EachElement {
    fn write(
        &self,
        is_null: bool,
        element: &[u8],
        entity: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut masked = Vec::new();
        let result = if is_null && !self.0.replaces_null() {
            Masked::Null
        } else {
            self.0.apply(element, entity, &mut masked)?
        };
        match result {
            Masked::Null => out.extend_from_slice(b"NULL"),
            Masked::Value => push_element(&masked, out),
        }
        Ok(())
    }
}

/// Reads an element off the front, without its quotes and escapes; returns whether it is NULL.
fn read_element(rest: &mut &[u8], element: &mut Vec<u8>) -> Result<bool, Fault> {
    let is_quoted = rest.first() == Some(&b'"');
    if is_quoted {
        *rest = &rest[1..];
    }
    loop {
        let b = *rest.first().ok_or(NOT_AN_ARRAY)?;
        match b {
            b'"' if is_quoted => {
                *rest = &rest[1..];
                return Ok(false);
            }
            b',' | b'}' if !is_quoted => return Ok(element.eq_ignore_ascii_case(b"NULL")),
            b'\\' => {
                element.push(*rest.get(1).ok_or(NOT_AN_ARRAY)?);
                *rest = &rest[2..];
            }
            _ => {
                element.push(b);
                *rest = &rest[1..];
            }
        }
    }
}

/// Writes an element as PostgreSQL does: in quotes only if it needs them.
fn push_element(element: &[u8], out: &mut Vec<u8>) {
    let is_special = |b: &u8| b"{},\"\\".contains(b) || b.is_ascii_whitespace() || *b == 0x0b;
    let needs_quotes = element.is_empty()
        || element.eq_ignore_ascii_case(b"NULL")
        || element.iter().any(is_special);
    if !needs_quotes {
        out.extend_from_slice(element);
        return;
    }
    out.push(b'"');
    for b in element {
        if [b'"', b'\\'].contains(b) {
            out.push(b'\\');
        }
        out.push(*b);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::plain::{ConstantRule, Null, Truncate};

    fn masked(rule: impl Transform + 'static, text: &str) -> Result<String, Fault> {
        let mut out = Vec::new();
        EachElement(Box::new(rule)).apply(text.as_bytes(), None, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn elements_are_masked_one_by_one() {
        for (text, expected) in [
            ("{}", "{}"),
            ("{abc,def}", "{ab,de}"),
            (r#"{"a b c",NULL,""}"#, r#"{"a ",NULL,""}"#),
            (r#"{{ab,cd},{ef,"g\"h"}}"#, r#"{{ab,cd},{ef,"g\""}}"#),
            (r#"{"NULL"}"#, "{NU}"),
            ("[0:1]={abc,def}", "[0:1]={ab,de}"),
            (r#"{"a,b","{}"}"#, r#"{"a,","{}"}"#),
        ] {
            assert_eq!(masked(Truncate { characters: 2 }, text).unwrap(), expected);
        }
    }

    #[test]
    fn null_follows_the_rule() {
        assert_eq!(masked(Null, "{a,NULL}").unwrap(), "{NULL,NULL}");
        assert_eq!(
            masked(ConstantRule(b"null".to_vec()), "{a,NULL}").unwrap(),
            r#"{"null","null"}"#
        );
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "a", "{", "{a", "{a}}", "{\"a}", "[0:1]{a}"] {
            assert_eq!(masked(Null, text), Err(NOT_AN_ARRAY), "{text}");
        }
    }
}

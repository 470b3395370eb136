//! The values of an INSERT as COPY writes them.

use super::lexer::{Token, TokenKind};

/// A value of an INSERT as COPY writes it; `None` for what `pg_dump` does not write, such as an expression.
pub(super) fn copy_field(t: &[Token<'_>], standard_strings: bool) -> Option<String> {
    let escaped = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\u{b}' => out.push_str("\\v"),
                c => out.push(c),
            }
        }
        out
    };
    match t {
        [] => None,
        [one] if one.kind == TokenKind::Word && one.is("null") => Some("\\N".into()),
        [one] if one.kind == TokenKind::Word && one.is("true") => Some("t".into()),
        [one] if one.kind == TokenKind::Word && one.is("false") => Some("f".into()),
        [one] => match (one.string(), one.text.strip_prefix(['B', 'b'])) {
            (Some(text), _) if !standard_strings || one.text.starts_with(['E', 'e']) => {
                Some(escaped(&unescaped(&text)?))
            }
            (Some(text), _) => Some(escaped(&text)),
            (None, Some(bits)) if bits.starts_with('\'') => {
                Some(bits.trim_matches('\'').to_owned())
            }
            (None, _) => Some(one.text.to_owned()),
        },
        several => {
            let text: String = several.iter().map(|w| w.text).collect();
            is_number(&text).then_some(text)
        }
    }
}

/// Whether this is a number as PostgreSQL writes it, possibly with a sign.
fn is_number(text: &str) -> bool {
    let only_digits = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"-+.eE".contains(&b));
    only_digits && !text.starts_with('+') && text.parse::<f64>().is_ok()
}

/// The value of a string with backslash escapes; `None` for a byte of a longer character, which `pg_dump` does not
/// write so.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                'x' => ascii(number(&mut chars, 0, 16, 2)?)?,
                'u' => char::from_u32(number(&mut chars, 0, 16, 4)?)?,
                'U' => char::from_u32(number(&mut chars, 0, 16, 8)?)?,
                digit @ '0'..='7' => ascii(number(&mut chars, digit.to_digit(8)?, 8, 2)?)?,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            },
            c => c,
        });
    }
    Some(out)
}

/// Continues the number `n` by at most `most` digits.
fn number(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    mut n: u32,
    radix: u32,
    most: usize,
) -> Option<u32> {
    for _ in 0..most {
        let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else {
            break;
        };
        chars.next();
        n = n.checked_mul(radix)?.checked_add(digit)?;
    }
    Some(n)
}

fn ascii(n: u32) -> Option<char> {
    (n < 0x80).then(|| char::from_u32(n))?
}

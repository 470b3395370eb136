//! The values of an INSERT as COPY writes them.

use super::lexer::{Token, TokenKind};

/// A value of an INSERT as COPY writes what the server makes of it; `None` for what `pg_dump` does not write, such as an
/// expression: only the server knows its value.
pub(super) fn copy_field(t: &[Token<'_>], standard_strings: bool) -> Option<String> {
    let value = value(t, standard_strings)?;
    Some(value.map_or_else(|| "\\N".to_owned(), |text| escaped(&text)))
}

/// The same value as text, `None` for NULL.
pub(super) fn value(t: &[Token<'_>], standard_strings: bool) -> Option<Option<String>> {
    match t {
        [one] if one.is("null") => Some(None),
        [one] if one.is("true") => Some(Some("t".into())),
        [one] if one.is("false") => Some(Some("f".into())),
        [one] if one.kind == TokenKind::StringConstant => constant(one, standard_strings).map(Some),
        other => plain_number(other.iter().map(|w| w.text).collect()).map(Some),
    }
}

fn constant(token: &Token<'_>, standard_strings: bool) -> Option<String> {
    match (token.string(), token.text.split_at_checked(1)?) {
        (Some(text), (prefix, _)) if !standard_strings || matches!(prefix, "E" | "e") => {
            unescaped(&text)
        }
        (Some(text), _) => Some(text),
        (None, ("B" | "b", bits)) => Some(unquoted(bits)?.to_owned()),
        (None, ("X" | "x", hex)) => unquoted(hex)?.chars().map(four_bits).collect(),
        (None, _) => None,
    }
}

fn unquoted(text: &str) -> Option<&str> {
    text.strip_prefix('\'')?.strip_suffix('\'')
}

fn four_bits(digit: char) -> Option<String> {
    digit.to_digit(16).map(|n| format!("{n:04b}"))
}

fn escaped(text: &str) -> String {
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
}

/// A number outside quotes, if it has the form in which PostgreSQL writes integers, numerics and floating-point numbers.
/// The server reads it as an integer or a numeric, of which none is a negative zero: it loses the sign of the
/// floating-point number that `pg_dump` has written.
fn plain_number(mut text: String) -> Option<String> {
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    if !is_written_by_postgresql(unsigned) {
        return None;
    }
    if unsigned.bytes().all(|b| matches!(b, b'0' | b'.')) {
        text = unsigned.to_owned();
    }
    Some(text)
}

/// `12`, `0.50` or `1.5e-07`: a number that is spelled differently is written in another way when it is read back.
fn is_written_by_postgresql(unsigned: &str) -> bool {
    let is_digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_exponent = |e: &str| {
        let digits = e.strip_prefix(['+', '-']);
        digits.is_some_and(|d| d.len() >= 2 && is_digits(d))
    };
    let may_begin = !whole.starts_with('0') || (whole == "0" && exponent.is_none());
    may_begin
        && is_digits(whole)
        && fraction.is_none_or(is_digits)
        && exponent.is_none_or(is_exponent)
}

/// The value of a string with backslash escapes; `None` for a byte of a longer character, which `pg_dump` does not
/// write so.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next()? {
                // Without digits, it is the letter.
                'x' if chars.peek().is_some_and(char::is_ascii_hexdigit) => {
                    ascii(number(&mut chars, 0, 16, 2)?)?
                }
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

#[cfg(test)]
mod tests {
    use super::super::lexer::{Dialect, tokens};
    use super::*;

    #[test]
    fn a_value_is_what_the_server_makes_of_it_or_unknown() {
        for (sql, written) in [
            ("-0", Some("0")),
            ("-0.00", Some("0.00")),
            ("'-0'", Some("-0")),
            ("-10", Some("-10")),
            ("-9223372036854775808", Some("-9223372036854775808")),
            ("0.50", Some("0.50")),
            ("-1.5e-07", Some("-1.5e-07")),
            ("1e+100", Some("1e+100")),
            ("'NaN'", Some("NaN")),
            ("B'0101'", Some("0101")),
            ("B''", Some("")),
            ("X'1f'", Some("00011111")),
            ("X'1g'", None),
            ("NULL", Some("\\N")),
            ("TRUE", Some("t")),
            ("'it''s\ta \\'", Some("it's\\ta \\\\")),
            ("E'a\\tb'", Some("a\\tb")),
            ("E'\\x41\\xyz'", Some("Axyz")),
            // pg_dump writes none of these.
            ("+5", None),
            ("007", None),
            (".5", None),
            ("5.", None),
            ("1e5", None),
            ("1E+20", None),
            ("-0e+00", None),
            ("0x1F", None),
            ("0b1", None),
            ("1_000", None),
            ("01e+20", None),
            ("now()", None),
            ("current_date", None),
            ("'1'::int", None),
            ("date '2026-01-01'", None),
            ("1 + 1", None),
            ("U&'\\0061'", None),
            ("$$a$$", None),
            ("", None),
        ] {
            let t = tokens(sql, Dialect::default());
            assert_eq!(copy_field(&t, true).as_deref(), written, "{sql}");
        }
    }
}

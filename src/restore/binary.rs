//! Rows of COPY's text format as tuples of its binary format, which the server reads with less work.
//! Exact or not at all: what is not in the one spelling that the server itself writes is not converted,
//! and goes to the server as it is in the backup.

use std::net::IpAddr;

use memchr::memchr;
use tokio_postgres::types::{Kind, Type};

/// Before the first tuple of a COPY: signature, flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// After the last one.
pub(super) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

const NULL: i32 = -1;
/// Digits of a `numeric` that is converted.
const MAX_DIGITS: usize = 400;
const MICROSECONDS: i64 = 1_000_000;
const DAY: i64 = 86_400 * MICROSECONDS;
/// 2000-01-01, in days since 1970-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// The columns of a table's rows, each of a type whose binary form is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<Form>);

/// The binary form of a type: that of its `…send` function.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    /// Text of any length, and labels of enums.
    Text,
    Jsonb,
    Bytea,
    Uuid,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Inet,
    Cidr,
    Array(Box<Form>, u32),
}

impl Form {
    fn of(of: &Type) -> Option<Self> {
        Some(match *of {
            Type::BOOL => Form::Bool,
            Type::INT2 => Form::Int2,
            Type::INT4 => Form::Int4,
            Type::INT8 => Form::Int8,
            Type::OID => Form::Oid,
            Type::FLOAT4 => Form::Float4,
            Type::FLOAT8 => Form::Float8,
            Type::NUMERIC => Form::Numeric,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::JSON => Form::Text,
            Type::JSONB => Form::Jsonb,
            Type::BYTEA => Form::Bytea,
            Type::UUID => Form::Uuid,
            Type::DATE => Form::Date,
            Type::TIME => Form::Time,
            Type::TIMESTAMP => Form::Timestamp,
            Type::TIMESTAMPTZ => Form::TimestampTz,
            Type::INET => Form::Inet,
            Type::CIDR => Form::Cidr,
            _ => match of.kind() {
                Kind::Enum(_) => Form::Text,
                Kind::Array(element) => match Form::of(element)? {
                    Form::Array(..) => return None,
                    form => Form::Array(Box::new(form), element.oid()),
                },
                _ => return None,
            },
        })
    }
}

impl Columns {
    /// `None` where there is a type whose binary form is not known here.
    pub fn of<'a>(types: impl IntoIterator<Item = &'a Type>) -> Option<Self> {
        let forms: Option<Vec<Form>> = types.into_iter().map(Form::of).collect();
        // A tuple says in 16 bits how many there are.
        forms.filter(|f| (1..=1600).contains(&f.len())).map(Columns)
    }

    /// Tuples of whole rows of text in UTF-8, each with its line's end; `None` where one of them has a value
    /// that cannot be converted.
    pub fn tuples(&self, rows: &[u8]) -> Option<Vec<u8>> {
        // The server takes one for the end of a line, or refuses it.
        if memchr(b'\r', rows).is_some() {
            return None;
        }
        let mut out = Vec::with_capacity(rows.len() + rows.len() / 2);
        let mut plain = Vec::new();
        let count = u16::try_from(self.0.len()).ok()?.to_be_bytes();
        let mut rest = rows;
        while !rest.is_empty() {
            let end = memchr(b'\n', rest)?;
            let mut line = Some(&rest[..end]);
            rest = &rest[end + 1..];
            out.extend_from_slice(&count);
            for form in &self.0 {
                let this = line?;
                let field = match memchr(b'\t', this) {
                    Some(tab) => {
                        line = Some(&this[tab + 1..]);
                        &this[..tab]
                    }
                    None => {
                        line = None;
                        this
                    }
                };
                match memchr(b'\\', field) {
                    None => sized(&mut out, |out| value(form, field, out))?,
                    Some(_) if field == br"\N" => out.extend_from_slice(&NULL.to_be_bytes()),
                    Some(first) => {
                        unescape(field, first, &mut plain)?;
                        sized(&mut out, |out| value(form, &plain, out))?;
                    }
                }
            }
            if line.is_some() {
                return None;
            }
        }
        Some(out)
    }
}

/// What `write` appends, after its length.
fn sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<()> {
    let start = out.len() + 4;
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = i32::try_from(out.len() - start).ok()?;
    out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    Some(())
}

/// The value of a field whose first backslash is at `first`.
fn unescape(field: &[u8], first: usize, plain: &mut Vec<u8>) -> Option<()> {
    plain.clear();
    let (mut rest, mut backslash) = (field, Some(first));
    while let Some(at) = backslash {
        plain.extend_from_slice(&rest[..at]);
        plain.push(match rest.get(at + 1)? {
            b'\\' => b'\\',
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            _ => return None,
        });
        rest = &rest[at + 2..];
        backslash = memchr(b'\\', rest);
    }
    plain.extend_from_slice(rest);
    Some(())
}

fn value(form: &Form, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match form {
        Form::Text => out.extend_from_slice(text),
        Form::Jsonb => {
            // The version of its form.
            out.push(1);
            out.extend_from_slice(text);
        }
        Form::Bool => out.push(match text {
            b"t" => 1,
            b"f" => 0,
            _ => return None,
        }),
        Form::Int2 => out.extend_from_slice(&i16::try_from(integer(text)?).ok()?.to_be_bytes()),
        Form::Int4 => out.extend_from_slice(&i32::try_from(integer(text)?).ok()?.to_be_bytes()),
        Form::Int8 => out.extend_from_slice(&integer(text)?.to_be_bytes()),
        Form::Oid => out.extend_from_slice(&u32::try_from(integer(text)?).ok()?.to_be_bytes()),
        Form::Float4 => {
            let number: f32 = float(text, f32::NAN, f32::INFINITY)?;
            let exact = number.is_finite() && (number != 0.0 || is_zero(text)) || !is_number(text);
            out.extend_from_slice(&exact.then_some(number)?.to_be_bytes());
        }
        Form::Float8 => {
            let number: f64 = float(text, f64::NAN, f64::INFINITY)?;
            let exact = number.is_finite() && (number != 0.0 || is_zero(text)) || !is_number(text);
            out.extend_from_slice(&exact.then_some(number)?.to_be_bytes());
        }
        Form::Numeric => numeric(text, out)?,
        Form::Bytea => hex(text.strip_prefix(br"\x")?, out)?,
        Form::Uuid => {
            let (a, rest) = text.split_at_checked(8)?;
            hex(a, out)?;
            let mut rest = rest;
            for length in [4, 4, 4, 12] {
                let (part, after) = rest.strip_prefix(b"-")?.split_at_checked(length)?;
                hex(part, out)?;
                rest = after;
            }
            rest.is_empty().then_some(())?;
        }
        Form::Date => {
            let days = i32::try_from(date(text)?).ok()?;
            out.extend_from_slice(&days.to_be_bytes());
        }
        Form::Time => match time(text)? {
            (time, []) => out.extend_from_slice(&time.to_be_bytes()),
            _ => return None,
        },
        Form::Timestamp => match moment(text)? {
            (moment, []) => out.extend_from_slice(&moment.to_be_bytes()),
            _ => return None,
        },
        Form::TimestampTz => {
            let (moment, zone) = moment(text)?;
            out.extend_from_slice(&(moment - offset(zone)?).to_be_bytes());
        }
        Form::Inet => network(text, false, out)?,
        Form::Cidr => network(text, true, out)?,
        Form::Array(element, oid) => array(text, element, *oid, out)?,
    }
    Some(())
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

/// Digits alone, as few as fit.
fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0, |n, b| Some(n * 10 + digit(*b)?))
}

fn integer(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(rest) if rest.len() <= 18 => digits(rest).map(|n| -n),
        None if text.len() <= 18 => digits(text),
        _ if text.iter().all(|b| b.is_ascii_digit() || *b == b'-') => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

fn is_number(text: &[u8]) -> bool {
    text.iter().all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e'))
}

/// Whether no digit before an exponent is another than zero.
fn is_zero(text: &[u8]) -> bool {
    text.iter().take_while(|b| **b != b'e').all(|b| matches!(b, b'0' | b'.' | b'-'))
}

fn float<F: std::str::FromStr + std::ops::Neg<Output = F>>(text: &[u8], nan: F, infinity: F) -> Option<F> {
    match text {
        b"NaN" => Some(nan),
        b"Infinity" => Some(infinity),
        b"-Infinity" => Some(-infinity),
        _ if is_number(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Digits to the base of 10,000, after their number, the weight of the first, the sign, and how many
/// decimal places are shown.
fn numeric(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let head = |out: &mut Vec<u8>, at: usize, fields: [u16; 4]| {
        for (i, field) in fields.into_iter().enumerate() {
            out[at + 2 * i..at + 2 * i + 2].copy_from_slice(&field.to_be_bytes());
        }
    };
    let at = out.len();
    out.extend_from_slice(&[0; 8]);
    if text == b"NaN" {
        head(out, at, [0, 0, 0xC000, 0]);
        return Some(());
    }
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(rest) => (0x4000, rest),
        None => (0, text),
    };
    let (whole, fraction) = match memchr(b'.', text) {
        Some(point) if point + 1 < text.len() => (&text[..point], &text[point + 1..]),
        Some(_) => return None,
        None => (text, &[][..]),
    };
    if whole.is_empty() || text.len() > MAX_DIGITS {
        return None;
    }
    let zeros = whole.iter().take_while(|b| **b == b'0').count();
    let whole = &whole[zeros..];
    let mut weight = i16::try_from(whole.len().div_ceil(4)).ok()? - 1;
    let (first, rest) = whole.split_at(whole.len() % 4);
    let groups = std::iter::once(first).filter(|g| !g.is_empty()).chain(rest.chunks(4));
    let groups = groups.map(digits).chain(fraction.chunks(4).map(|g| {
        let places = u32::try_from(4 - g.len()).ok()?;
        Some(digits(g)? * 10_i64.pow(places))
    }));
    let (mut written, mut significant) = (at + 8, at + 8);
    for group in groups {
        let group = u16::try_from(group?).ok()?;
        if group == 0 && written == at + 8 {
            weight -= 1;
            continue;
        }
        out.extend_from_slice(&group.to_be_bytes());
        written += 2;
        if group != 0 {
            significant = written;
        }
    }
    out.truncate(significant);
    let count = u16::try_from((significant - at - 8) / 2).ok()?;
    let scale = u16::try_from(fraction.len()).ok()?;
    match count {
        0 => head(out, at, [0, 0, 0, scale]),
        _ => head(out, at, [count, weight.cast_unsigned(), sign, scale]),
    }
    Some(())
}

fn hex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let at = out.len();
    out.resize(at + text.len() / 2, 0);
    let mut wrong = 0;
    for (to, pair) in out[at..].iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (HEX[usize::from(pair[0])], HEX[usize::from(pair[1])]);
        wrong |= high | low;
        *to = high << 4 | low & 15;
    }
    (wrong & 0xF0 == 0).then_some(())
}

/// What each byte is as a hexadecimal digit; 255: none.
static HEX: [u8; 256] = {
    let mut table = [255; 256];
    let mut n = 0;
    while n < 16 {
        let digit = b"0123456789abcdef"[n as usize];
        table[digit as usize] = n;
        n += 1;
    }
    table
};

/// Days since 2000-01-01 of `2000-01-01`, in the Gregorian calendar.
fn date(text: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let (year, month, day) = (digits(&[*y1, *y2, *y3, *y4])?, digits(&[*m1, *m2])?, digits(&[*d1, *d2])?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || !(1..=last).contains(&day) {
        return None;
    }
    // Years that begin in March; 719,468 days from year 0 to 1970.
    let shifted = year - i64::from(month <= 2);
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468 - EPOCH_DAYS)
}

/// Microseconds of `12:34:56.789`, and what follows it.
fn time(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else { return None };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (mut parts, mut rest) = (0, rest);
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        let places = u32::try_from(6_usize.checked_sub(length)?).ok()?;
        parts = digits(&fraction[..length])? * 10_i64.pow(places);
        rest = &fraction[length..];
    }
    Some(((hour * 3600 + minute * 60 + second) * MICROSECONDS + parts, rest))
}

/// Microseconds since 2000-01-01 of `2000-01-01 12:34:56.789`, and what follows it.
fn moment(text: &[u8]) -> Option<(i64, &[u8])> {
    let (day, rest) = text.split_at_checked(10)?;
    let (time, rest) = time(rest.strip_prefix(b" ")?)?;
    Some((date(day)? * DAY + time, rest))
}

/// Microseconds of `+01`, `-03:30` or `+00:53:28`.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, rest) = zone.split_first()?;
    let seconds = match rest {
        [h1, h2] => digits(&[*h1, *h2])? * 3600,
        [h1, h2, b':', m1, m2] => digits(&[*h1, *h2])? * 3600 + minutes(*m1, *m2)? * 60,
        [h1, h2, b':', m1, m2, b':', s1, s2] => {
            digits(&[*h1, *h2])? * 3600 + minutes(*m1, *m2)? * 60 + minutes(*s1, *s2)?
        }
        _ => return None,
    };
    // The server refuses more, and says so.
    let seconds = Some(seconds).filter(|s| *s < 15 * 3600)?;
    match sign {
        b'+' => Some(seconds * MICROSECONDS),
        b'-' => Some(-seconds * MICROSECONDS),
        _ => None,
    }
}

fn minutes(a: u8, b: u8) -> Option<i64> {
    digits(&[a, b]).filter(|n| *n < 60)
}

fn network(text: &[u8], is_cidr: bool, out: &mut Vec<u8>) -> Option<()> {
    let (address, bits) = match memchr(b'/', text) {
        Some(slash) => (&text[..slash], Some(digits(&text[slash + 1..])?)),
        None => (text, None),
    };
    let address: IpAddr = std::str::from_utf8(address).ok()?.parse().ok()?;
    let (family, length) = if address.is_ipv4() { (2, 4) } else { (3, 16) };
    let bits = bits.unwrap_or(8 * i64::from(length));
    if bits > 8 * i64::from(length) {
        return None;
    }
    out.extend_from_slice(&[family, u8::try_from(bits).ok()?, u8::from(is_cidr), length]);
    match address {
        IpAddr::V4(a) => out.extend_from_slice(&a.octets()),
        IpAddr::V6(a) => out.extend_from_slice(&a.octets()),
    }
    Some(())
}

/// One dimension that begins at 1.
fn array(text: &[u8], element: &Form, oid: u32, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.strip_prefix(b"{")?;
    let at = out.len();
    for field in [1, 0, oid, 0, 1] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    if rest == b"}" {
        // No dimension.
        out[at..at + 4].fill(0);
        out.truncate(at + 12);
        return Some(());
    }
    let (mut count, mut has_null, mut plain) = (0_u32, 0, Vec::new());
    loop {
        count += 1;
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = quoted_element(quoted, &mut plain)?;
            sized(out, |out| value(element, &plain, out))?;
        } else {
            let length = rest.iter().position(|b| matches!(b, b',' | b'}'))?;
            let (bare, after) = rest.split_at(length);
            if bare.is_empty() || bare.iter().any(|b| b.is_ascii_whitespace() || b"{\"\\\x0b".contains(b)) {
                return None;
            }
            if bare.eq_ignore_ascii_case(b"NULL") {
                out.extend_from_slice(&NULL.to_be_bytes());
                has_null = 1;
            } else {
                sized(out, |out| value(element, bare, out))?;
            }
            rest = after;
        }
        match rest {
            [b','] => return None,
            [b'}'] => break,
            [b',', more @ ..] => rest = more,
            _ => return None,
        }
    }
    out[at + 4..at + 8].copy_from_slice(&u32::to_be_bytes(has_null));
    out[at + 12..at + 16].copy_from_slice(&count.to_be_bytes());
    Some(())
}

/// Reads an element up to its closing quote; returns what follows.
fn quoted_element<'a>(mut text: &'a [u8], plain: &mut Vec<u8>) -> Option<&'a [u8]> {
    plain.clear();
    loop {
        let at = memchr::memchr2(b'"', b'\\', text)?;
        plain.extend_from_slice(&text[..at]);
        if text[at] == b'"' {
            return Some(&text[at + 1..]);
        }
        plain.push(*text.get(at + 1)?);
        text = &text[at + 2..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(types: &[Type]) -> Columns {
        Columns::of(types).unwrap()
    }

    /// The one value of the one tuple; `None` where it is not converted.
    fn one(of: Type, text: &str) -> Option<Vec<u8>> {
        let tuple = columns(&[of]).tuples(format!("{text}\n").as_bytes())?;
        assert_eq!(tuple[..2], [0, 1]);
        let length = i32::from_be_bytes(tuple[2..6].try_into().unwrap());
        assert_eq!(length as usize, tuple.len() - 6);
        Some(tuple[6..].to_vec())
    }

    #[test]
    fn rows_become_tuples() {
        let of = columns(&[Type::INT4, Type::TEXT, Type::BOOL]);
        let tuples = of.tuples(b"7\ta\\tb\tt\n-1\t\\N\tf\n").unwrap();
        let first = [&[0, 3, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 3][..], b"a\tb", &[0, 0, 0, 1, 1]].concat();
        let second = [0, 3, 0, 0, 0, 4, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0].to_vec();
        assert_eq!(tuples, [first, second].concat());
        assert_eq!(of.tuples(b""), Some(vec![]));
    }

    #[test]
    fn what_is_not_a_whole_row_is_not_converted() {
        let of = columns(&[Type::INT4, Type::TEXT]);
        for rows in [&b"1\ta"[..], b"1\n", b"1\ta\tb\n", b"\n", b"1\ta\r\n", b"1\ta\\\n", b"1\t\\.\n"] {
            assert_eq!(of.tuples(rows), None, "{}", rows.escape_ascii());
        }
    }

    #[test]
    fn only_the_servers_own_spelling_is_converted() {
        let refused: &[(Type, &[&str])] = &[
            (Type::BOOL, &["true", "T", "", "1"]),
            (Type::INT2, &["32768", "-32769", "+1", " 1", "1 ", "", "-", "0x1", "1_0", "1.0", "1-2", "--1"]),
            (Type::INT4, &["2147483648", "99999999999999999999"]),
            (Type::INT8, &["9223372036854775808", "-9223372036854775809"]),
            (Type::OID, &["-1", "4294967296"]),
            (Type::FLOAT4, &["1e39", "1e-60", "inf", "nan", "-NaN", "", "1e", "0x1p3", " 1"]),
            (Type::FLOAT8, &["1e309", "1e-400", "infinity", "+Infinity", "1d3"]),
            (
                Type::NUMERIC,
                &["", "-", ".", ".5", "5.", "1e3", "+1", "1 ", "nan", "Infinity", "1.2.3", "--1"],
            ),
            (Type::BYTEA, &["", "x00", r"\\x0", r"\\x0g", r"\\X00", r"\\xAB", r"\\000"]),
            (
                Type::UUID,
                &[
                    "",
                    "{00000000-0000-0000-0000-000000000000}",
                    "00000000000000000000000000000000",
                    "00000000-0000-0000-0000-00000000000",
                    "00000000-0000-0000-0000-000000000000 ",
                    "A0000000-0000-0000-0000-000000000000",
                ],
            ),
            (
                Type::DATE,
                &[
                    "infinity",
                    "2024-02-30",
                    "2023-02-29",
                    "1900-02-29",
                    "2024-13-01",
                    "2024-00-01",
                    "2024-01-00",
                    "0000-01-01",
                    "2024-1-1",
                    "10000-01-01",
                    "2024-01-01 BC",
                    "01/02/2024",
                ],
            ),
            (
                Type::TIME,
                &[
                    "24:00:00",
                    "12:60:00",
                    "12:00:60",
                    "12:00",
                    "12:00:00.",
                    "12:00:00.1234567",
                    "12:00:00+01",
                ],
            ),
            (
                Type::TIMESTAMP,
                &[
                    "infinity",
                    "2024-01-01",
                    "2024-01-01T00:00:00",
                    "2024-01-01 00:00:00+00",
                    "2024-01-01 00:00:00 BC",
                ],
            ),
            (
                Type::TIMESTAMPTZ,
                &[
                    "-infinity",
                    "2024-01-01 00:00:00",
                    "2024-01-01 00:00:00 UTC",
                    "2024-01-01 00:00:00+1",
                    "2024-01-01 00:00:00+15:00",
                    "2024-01-01 00:00:00+01:60",
                    "2024-01-01 00:00:00+01 BC",
                ],
            ),
            (Type::INET, &["10.1", "10.0.0.1/33", "010.0.0.1", "::1/129", "10.0.0.1/", "fe80::1%eth0"]),
            (
                Type::INT4_ARRAY,
                &[
                    "",
                    "{",
                    "}",
                    "{1",
                    "1",
                    "{1,}",
                    "{,1}",
                    "{1,2}x",
                    "{{1},{2}}",
                    "[0:1]={1,2}",
                    "{ 1}",
                    "{1 }",
                    "{1}{2}",
                ],
            ),
            (Type::TEXT_ARRAY, &["{a b}", r#"{"a}"#, r#"{"a"b}"#, r#"{a"b"}"#, r"{\\a}", r#"{"a\\"}"#]),
            (Type::TEXT, &[r"\.", r"\101", r"\x41", r"\Na", r"\q", "a\\"]),
        ];
        for (of, texts) in refused {
            for text in *texts {
                assert_eq!(one(of.clone(), text), None, "{of}: {text:?}");
            }
        }
    }

    #[test]
    fn types_that_are_not_known_are_left_as_text() {
        for of in
            [Type::INTERVAL, Type::TS_VECTOR, Type::POINT, Type::INT4_RANGE, Type::XML, Type::POINT_ARRAY]
        {
            assert_eq!(Columns::of(&[Type::INT4, of]), None);
        }
        assert_eq!(Columns::of(&[]), None);
    }

    proptest! {
        #[test]
        fn integers_are_themselves(n: i64, m: i16) {
            prop_assert_eq!(one(Type::INT8, &n.to_string()).unwrap(), n.to_be_bytes());
            prop_assert_eq!(one(Type::INT2, &m.to_string()).unwrap(), m.to_be_bytes());
        }

        #[test]
        fn nothing_ends_it(rows: Vec<u8>, which in 0..12_usize) {
            let all = [Type::BOOL, Type::INT4, Type::FLOAT8, Type::NUMERIC, Type::TEXT, Type::BYTEA, Type::UUID,
                Type::TIMESTAMPTZ, Type::INET, Type::TEXT_ARRAY, Type::NUMERIC_ARRAY, Type::DATE];
            let _ = columns(&[all[which].clone()]).tuples(&[&rows[..], b"\n"].concat());
        }
    }
}

//! Converts one value of a row from the server's text form to the bytes of its type's `…send` function.

use std::net::IpAddr;

use memchr::memchr;
use tokio_postgres::types::{Kind, Type};

use super::sized::{NULL, put, put_length, sized};

/// Most digits of a `numeric` that is converted.
const MAX_DIGITS: usize = 400;
const MICROSECONDS: i64 = 1_000_000;
const DAY: i64 = 86_400 * MICROSECONDS;
/// 2000-01-01 in days since 1970-01-01.
const EPOCH_DAYS: i64 = 10_957;

/// The binary form of a type, as its `…send` function writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ValueForm {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    /// Strings of any length, and enum labels.
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
    Array(Box<ValueForm>, u32),
}

impl ValueForm {
    /// `None` if the type is not supported.
    pub(super) fn of(of: &Type) -> Option<Self> {
        Some(match *of {
            Type::BOOL => ValueForm::Bool,
            Type::INT2 => ValueForm::Int2,
            Type::INT4 => ValueForm::Int4,
            Type::INT8 => ValueForm::Int8,
            Type::OID => ValueForm::Oid,
            Type::FLOAT4 => ValueForm::Float4,
            Type::FLOAT8 => ValueForm::Float8,
            Type::NUMERIC => ValueForm::Numeric,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::JSON => ValueForm::Text,
            Type::JSONB => ValueForm::Jsonb,
            Type::BYTEA => ValueForm::Bytea,
            Type::UUID => ValueForm::Uuid,
            Type::DATE => ValueForm::Date,
            Type::TIME => ValueForm::Time,
            Type::TIMESTAMP => ValueForm::Timestamp,
            Type::TIMESTAMPTZ => ValueForm::TimestampTz,
            Type::INET => ValueForm::Inet,
            Type::CIDR => ValueForm::Cidr,
            _ => match of.kind() {
                Kind::Enum(_) => ValueForm::Text,
                Kind::Array(element) => match ValueForm::of(element)? {
                    ValueForm::Array(..) => return None,
                    form => ValueForm::Array(Box::new(form), element.oid()),
                },
                _ => return None,
            },
        })
    }
}

/// Appends the value that `text` spells, preceded by its length; `None` if it is not in the server's own spelling.
pub(super) fn value(form: &ValueForm, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match form {
        ValueForm::Text => {
            put_length(text.len(), out)?;
            out.extend_from_slice(text);
        }
        ValueForm::Jsonb => {
            put_length(text.len() + 1, out)?;
            // Version of the jsonb format.
            out.push(1);
            out.extend_from_slice(text);
        }
        ValueForm::Bool => match text {
            b"t" => put([1], out),
            b"f" => put([0], out),
            _ => return None,
        },
        ValueForm::Int2 => put(i16::try_from(integer(text)?).ok()?.to_be_bytes(), out),
        ValueForm::Int4 => put(i32::try_from(integer(text)?).ok()?.to_be_bytes(), out),
        ValueForm::Int8 => put(integer(text)?.to_be_bytes(), out),
        ValueForm::Oid => put(u32::try_from(integer(text)?).ok()?.to_be_bytes(), out),
        ValueForm::Float4 => {
            let number: f32 = float(text, f32::NAN, f32::INFINITY)?;
            let exact = number.is_finite() && (number != 0.0 || is_zero(text)) || !is_number(text);
            put(exact.then_some(number)?.to_be_bytes(), out);
        }
        ValueForm::Float8 => {
            let number: f64 = float(text, f64::NAN, f64::INFINITY)?;
            let exact = number.is_finite() && (number != 0.0 || is_zero(text)) || !is_number(text);
            put(exact.then_some(number)?.to_be_bytes(), out);
        }
        ValueForm::Numeric => sized(out, |out| numeric(text, out))?,
        ValueForm::Bytea => {
            let digits = text.strip_prefix(br"\x")?;
            sized(out, |out| hex(digits, out))?;
        }
        ValueForm::Uuid => put(uuid(text.try_into().ok()?)?, out),
        ValueForm::Date => put(i32::try_from(date(text)?).ok()?.to_be_bytes(), out),
        ValueForm::Time => match time(text)? {
            (time, []) => put(time.to_be_bytes(), out),
            _ => return None,
        },
        ValueForm::Timestamp => match moment(text)? {
            (moment, []) => put(moment.to_be_bytes(), out),
            _ => return None,
        },
        ValueForm::TimestampTz => {
            let (moment, zone) = moment(text)?;
            put((moment - offset(zone)?).to_be_bytes(), out);
        }
        ValueForm::Inet => sized(out, |out| network(text, false, out))?,
        ValueForm::Cidr => sized(out, |out| network(text, true, out))?,
        ValueForm::Array(element, oid) => sized(out, |out| array(text, element, *oid, out))?,
    }
    Some(())
}

fn digit(byte: u8) -> Option<i64> {
    byte.is_ascii_digit().then(|| i64::from(byte - b'0'))
}

/// The number that these digits spell; `None` unless there are 1 to 18 digits and nothing else.
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
    text.iter()
        .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e'))
}

/// Whether every digit before the exponent is zero.
fn is_zero(text: &[u8]) -> bool {
    text.iter()
        .take_while(|b| **b != b'e')
        .all(|b| matches!(b, b'0' | b'.' | b'-'))
}

fn float<F: std::str::FromStr + std::ops::Neg<Output = F>>(
    text: &[u8],
    nan: F,
    infinity: F,
) -> Option<F> {
    match text {
        b"NaN" => Some(nan),
        b"Infinity" => Some(infinity),
        b"-Infinity" => Some(-infinity),
        _ if is_number(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

/// Base-10,000 digits, preceded by their number, the weight of the first, the sign, and the display scale.
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
    // A number is shorter than what a call of `memchr` pays for.
    let (whole, fraction) = match text.iter().position(|b| *b == b'.') {
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
    let groups = std::iter::once(first)
        .filter(|g| !g.is_empty())
        .chain(rest.chunks(4));
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

/// The bytes of `00000000-0000-0000-0000-000000000000`.
fn uuid(text: &[u8; 36]) -> Option<[u8; 16]> {
    /// Where the digits of each byte are.
    const PAIRS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    if [8, 13, 18, 23].iter().any(|dash| text[*dash] != b'-') {
        return None;
    }
    let mut wrong = 0;
    let bytes = PAIRS.map(|at| {
        let (high, low) = (HEX[usize::from(text[at])], HEX[usize::from(text[at + 1])]);
        wrong |= high | low;
        high << 4 | low & 15
    });
    (wrong & 0xF0 == 0).then_some(bytes)
}

/// Value of each byte as a hexadecimal digit; 255: not a digit.
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
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else {
        return None;
    };
    let (year, month, day) = (
        digits(&[*y1, *y2, *y3, *y4])?,
        digits(&[*m1, *m2])?,
        digits(&[*d1, *d2])?,
    );
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

/// Microseconds of `12:34:56.789`, and the rest of the text.
fn time(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else {
        return None;
    };
    let (hour, minute, second) = (
        digits(&[*h1, *h2])?,
        digits(&[*m1, *m2])?,
        digits(&[*s1, *s2])?,
    );
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
    Some((
        (hour * 3600 + minute * 60 + second) * MICROSECONDS + parts,
        rest,
    ))
}

/// Microseconds since 2000-01-01 of `2000-01-01 12:34:56.789`, and the rest of the text.
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
    // The server rejects larger values with its own error.
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

/// An array of one dimension with lower bound 1.
fn array(text: &[u8], element: &ValueForm, oid: u32, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text.strip_prefix(b"{")?;
    let at = out.len();
    for field in [1, 0, oid, 0, 1] {
        out.extend_from_slice(&field.to_be_bytes());
    }
    if rest == b"}" {
        // An empty array has no dimension.
        out[at..at + 4].fill(0);
        out.truncate(at + 12);
        return Some(());
    }
    let (mut count, mut has_null, mut plain) = (0_u32, 0, Vec::new());
    loop {
        count += 1;
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = quoted_element(quoted, &mut plain)?;
            value(element, &plain, out)?;
        } else {
            let length = rest.iter().position(|b| matches!(b, b',' | b'}'))?;
            let (bare, after) = rest.split_at(length);
            if bare.is_empty()
                || bare
                    .iter()
                    .any(|b| b.is_ascii_whitespace() || b"{\"\\\x0b".contains(b))
            {
                return None;
            }
            if bare.eq_ignore_ascii_case(b"NULL") {
                out.extend_from_slice(&NULL.to_be_bytes());
                has_null = 1;
            } else {
                value(element, bare, out)?;
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

/// Reads an element up to its closing quote; returns the rest of the text.
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

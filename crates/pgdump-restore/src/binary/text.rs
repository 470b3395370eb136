//! Writes a value of COPY's binary format as the server writes it in COPY's text format, with dates in ISO style and timestamps
//! in UTC.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::floats::{float4, float8};
use super::sized::next_sized;
use super::values::ValueForm;

const MICROSECONDS: i64 = 1_000_000;
const DAY: i64 = 86_400 * MICROSECONDS;
/// 2000-01-01 in days since 0000-03-01.
const EPOCH_DAYS: i64 = 730_425;

/// Most digits of a `numeric`, before its point and behind it: more of them are usually zeros.
const MAX_DIGITS: u16 = 2000;

/// Most bytes of the text of a tuple that is read back. Longer rows are read as text, which takes their memory only once.
pub(super) const MAX_ROW_TEXT: usize = 8 << 20;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends a field of a row; `None` if the value is invalid, or its text not certain.
pub(super) fn field(form: &ValueForm, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match form {
        ValueForm::Text => escaped(value, out),
        ValueForm::Jsonb => escaped(json(value)?, out),
        ValueForm::Bytea => {
            // The backslash in front of the digits.
            out.push(b'\\');
            text(form, value, out)?;
        }
        ValueForm::Array(..) => {
            let start = out.len();
            text(form, value, out)?;
            if out[start..].iter().any(|b| is_escaped(*b)) {
                let plain = out.split_off(start);
                escaped(&plain, out);
            }
        }
        _ => text(form, value, out)?,
    }
    Some(())
}

/// Whether COPY writes this byte with a backslash.
fn is_escaped(byte: u8) -> bool {
    matches!(byte, 8..=13 | b'\\')
}

fn escaped(value: &[u8], out: &mut Vec<u8>) {
    // Without an end at the first one, many bytes are compared at once.
    if !value.iter().fold(false, |any, b| any | is_escaped(*b)) {
        out.extend_from_slice(value);
        return;
    }
    let mut rest = value;
    while let Some(at) = rest.iter().position(|b| is_escaped(*b)) {
        out.extend_from_slice(&rest[..at]);
        let letter = match rest[at] {
            8 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            11 => b'v',
            12 => b'f',
            b'\r' => b'r',
            other => other,
        };
        out.extend_from_slice(&[b'\\', letter]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

/// Appends what the output function of the type writes.
fn text(form: &ValueForm, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match form {
        ValueForm::Text => out.extend_from_slice(value),
        ValueForm::Jsonb => out.extend_from_slice(json(value)?),
        ValueForm::Bool => out.push(match value {
            [1] => b't',
            [0] => b'f',
            _ => return None,
        }),
        ValueForm::Int2 => integer(i16::from_be_bytes(value.try_into().ok()?), out),
        ValueForm::Int4 => integer(i32::from_be_bytes(value.try_into().ok()?), out),
        ValueForm::Int8 => integer(i64::from_be_bytes(value.try_into().ok()?), out),
        ValueForm::Oid => integer(u32::from_be_bytes(value.try_into().ok()?), out),
        ValueForm::Float4 => float4(f32::from_be_bytes(value.try_into().ok()?), out)?,
        ValueForm::Float8 => float8(f64::from_be_bytes(value.try_into().ok()?), out)?,
        ValueForm::Numeric => numeric(value, out)?,
        ValueForm::Bytea => {
            out.extend_from_slice(br"\x");
            hex(value, out);
        }
        ValueForm::Uuid => uuid(value.try_into().ok()?, out),
        ValueForm::Date => date(i32::from_be_bytes(value.try_into().ok()?), out),
        ValueForm::Time => match i64::from_be_bytes(value.try_into().ok()?) {
            time @ 0..=DAY => time_of_day(time, out),
            _ => return None,
        },
        ValueForm::Timestamp => timestamp(value, b"", out)?,
        ValueForm::TimestampTz => timestamp(value, b"+00", out)?,
        ValueForm::Inet => network(value, false, out)?,
        ValueForm::Cidr => network(value, true, out)?,
        ValueForm::Array(element, oid) => array(value, element, *oid, out)?,
    }
    Some(())
}

/// The text of a `jsonb`, behind the version of its format.
fn json(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(&[1])
}

fn integer(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The last two digits of a number.
fn two(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[digit(number / 10), digit(number)]);
}

/// The last four digits of a number.
fn four(number: i64, out: &mut Vec<u8>) {
    two(number / 100, out);
    two(number, out);
}

fn digit(number: i64) -> u8 {
    b'0' + number.rem_euclid(10).to_le_bytes()[0]
}

fn hex(value: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + 2 * value.len(), 0);
    for (pair, byte) in out[at..].chunks_exact_mut(2).zip(value) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

fn uuid(value: &[u8; 16], out: &mut Vec<u8>) {
    for (i, part) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if i > 0 {
            out.push(b'-');
        }
        hex(&value[part], out);
    }
}

/// Base-10,000 digits behind their number, the weight of the first, the sign, and the display scale.
fn numeric(value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (head, groups) = value.split_at_checked(8)?;
    let head = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (count, weight, sign, scale) = (head(0), head(2).cast_signed(), head(4), head(6));
    let special: Option<&[u8]> = match sign {
        0 | 0x4000 => None,
        0xC000 => Some(b"NaN"),
        0xD000 => Some(b"Infinity"),
        0xF000 => Some(b"-Infinity"),
        _ => return None,
    };
    let is_long = weight > (MAX_DIGITS / 4).cast_signed() || scale > MAX_DIGITS;
    if groups.len() != 2 * usize::from(count) || is_long {
        return None;
    }
    if let Some(special) = special {
        out.extend_from_slice(special);
        return Some(());
    }
    let group = |at: i32| {
        let at = 2 * usize::try_from(at).ok()?;
        let pair = groups.get(at..at + 2)?;
        Some(i64::from(u16::from_be_bytes([pair[0], pair[1]])))
    };
    // Digits that are not there are zeros.
    let group = |at: i32| group(at).unwrap_or(0);
    if (0..i32::from(count)).any(|at| group(at) > 9999) {
        return None;
    }
    if sign == 0x4000 {
        out.push(b'-');
    }
    let weight = i32::from(weight);
    if weight < 0 {
        out.push(b'0');
    } else {
        integer(group(0), out);
        (1..=weight).for_each(|at| four(group(at), out));
    }
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + usize::from(scale);
        let mut at = weight + 1;
        while out.len() < end {
            four(group(at), out);
            at += 1;
        }
        out.truncate(end);
    }
    Some(())
}

/// Days since 2000-01-01.
fn date(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MIN => out.extend_from_slice(b"-infinity"),
        i32::MAX => out.extend_from_slice(b"infinity"),
        _ => {
            let era = day(days.into(), out);
            out.extend_from_slice(era);
        }
    }
}

/// Appends a day of the Gregorian calendar; returns what follows the time on it.
fn day(days: i64, out: &mut Vec<u8>) -> &'static [u8] {
    // Years that begin in March.
    let days = days + EPOCH_DAYS;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let of_cycle = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_cycle + of_cycle / 4 - of_cycle / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = of_cycle + era * 400 + i64::from(month <= 2);
    let (shown, era): (i64, &[u8]) = if year > 0 {
        (year, b"")
    } else {
        (1 - year, b" BC")
    };
    if shown < 10_000 {
        four(shown, out);
    } else {
        integer(shown, out);
    }
    out.push(b'-');
    two(month, out);
    out.push(b'-');
    two(of_month, out);
    era
}

/// Microseconds since midnight.
fn time_of_day(time: i64, out: &mut Vec<u8>) {
    let seconds = time / MICROSECONDS;
    two(seconds / 3600, out);
    out.push(b':');
    two(seconds / 60 % 60, out);
    out.push(b':');
    two(seconds % 60, out);
    let fraction = time % MICROSECONDS;
    if fraction != 0 {
        out.push(b'.');
        two(fraction / 10_000, out);
        four(fraction, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// Microseconds since 2000-01-01.
fn timestamp(value: &[u8], zone: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match i64::from_be_bytes(value.try_into().ok()?) {
        i64::MIN => out.extend_from_slice(b"-infinity"),
        i64::MAX => out.extend_from_slice(b"infinity"),
        moment => {
            let era = day(moment.div_euclid(DAY), out);
            out.push(b' ');
            time_of_day(moment.rem_euclid(DAY), out);
            out.extend_from_slice(zone);
            out.extend_from_slice(era);
        }
    }
    Some(())
}

/// Family, bits, whether it is a `cidr`, length, and the address.
fn network(value: &[u8], is_cidr: bool, out: &mut Vec<u8>) -> Option<()> {
    let [family, bits, cidr, _, address @ ..] = value else {
        return None;
    };
    if (*cidr != 0) != is_cidr || usize::from(value[3]) != address.len() {
        return None;
    }
    match family {
        2 => ipv4(address.try_into().ok()?, out),
        3 => ipv6(address.try_into().ok()?, out)?,
        _ => return None,
    }
    if is_cidr || usize::from(*bits) != 8 * address.len() {
        out.push(b'/');
        integer(*bits, out);
    }
    Some(())
}

fn ipv4(address: [u8; 4], out: &mut Vec<u8>) {
    for (i, part) in address.into_iter().enumerate() {
        if i > 0 {
            out.push(b'.');
        }
        integer(part, out);
    }
}

fn ipv6(address: [u8; 16], out: &mut Vec<u8>) -> Option<()> {
    let groups = Ipv6Addr::from(address).segments();
    if groups[..6] == [0; 6] && groups[6] != 0 {
        // Unlike the standard library, the server takes it for an IPv4 address.
        let [.., a, b, c, d] = address;
        return write!(out, "::{}", Ipv4Addr::new(a, b, c, d)).ok();
    }
    write!(out, "{}", Ipv6Addr::from(address)).ok()
}

/// An array of at most one dimension, with lower bound 1.
fn array(value: &[u8], element: &ValueForm, oid: u32, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = value;
    let mut number = || {
        let (number, after) = rest.split_first_chunk()?;
        rest = after;
        Some(u32::from_be_bytes(*number))
    };
    let (dimensions, _, of) = (number()?, number()?, number()?);
    if of != oid {
        return None;
    }
    let count = match dimensions {
        0 => 0,
        1 => {
            let (count, lower) = (number()?, number()?);
            (lower == 1 && count > 0).then_some(count)?
        }
        _ => return None,
    };
    let start = out.len();
    out.push(b'{');
    for i in 0..count {
        if out.len() - start > MAX_ROW_TEXT {
            return None;
        }
        if i > 0 {
            out.push(b',');
        }
        match next_sized(&mut rest)? {
            None => out.extend_from_slice(b"NULL"),
            Some(value) => array_element(element, value, out)?,
        }
    }
    out.push(b'}');
    rest.is_empty().then_some(())
}

fn array_element(form: &ValueForm, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    text(form, value, out)?;
    let plain = &out[start..];
    let is_quoted = plain.is_empty()
        || plain.eq_ignore_ascii_case(b"NULL")
        || plain
            .iter()
            .any(|b| matches!(b, b'"' | b'\\' | b'{' | b'}' | b',' | b' ' | 9..=13));
    if is_quoted {
        let plain = out.split_off(start);
        out.push(b'"');
        for byte in plain {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_postgres::types::Type;

    use super::super::Columns;
    use super::super::sized::sized;
    use super::*;

    /// A tuple of one value; `None`: NULL.
    fn tuple(value: Option<&[u8]>) -> Vec<u8> {
        let mut tuple = vec![0, 1];
        match value {
            None => tuple.extend_from_slice(&[255; 4]),
            Some(value) => sized(&mut tuple, |out| {
                out.extend_from_slice(value);
                Some(())
            })
            .unwrap(),
        }
        tuple
    }

    fn row(of: &Type, tuple: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let columns = Columns::of([of]).unwrap();
        columns.row(tuple, &mut out, |_, _| ())?;
        Some(out)
    }

    /// The text of a value.
    fn one(of: &Type, value: &[u8]) -> Option<String> {
        row(of, &tuple(Some(value))).map(|row| String::from_utf8(row).unwrap())
    }

    #[test]
    fn values_are_written_as_the_server_does() {
        let moment = |days: i64, time: i64| (days * DAY + time).to_be_bytes();
        let numeric = |fields: &[u16]| fields.iter().flat_map(|f| f.to_be_bytes()).collect();
        let of_vec: Vec<(Type, Vec<u8>, &str)> = vec![
            (Type::BOOL, vec![1], "t"),
            (Type::INT2, (-5_i16).to_be_bytes().into(), "-5"),
            (
                Type::INT8,
                i64::MIN.to_be_bytes().into(),
                "-9223372036854775808",
            ),
            (Type::OID, u32::MAX.to_be_bytes().into(), "4294967295"),
            (
                Type::TEXT,
                b"a\\\t\r\n\x08\x0b\x0c\x01\x7f".into(),
                "a\\\\\\t\\r\\n\\b\\v\\f\x01\x7f",
            ),
            (Type::TEXT, vec![], ""),
            (
                Type::JSONB,
                b"\x01{\"a\": \"\\n\"}".into(),
                r#"{"a": "\\n"}"#,
            ),
            (Type::BYTEA, vec![0, 0xFF, b'\\'], r"\\x00ff5c"),
            (
                Type::UUID,
                (0..16).collect(),
                "00010203-0405-0607-0809-0a0b0c0d0e0f",
            ),
            (Type::NUMERIC, numeric(&[0, 0, 0, 2]), "0.00"),
            (
                Type::NUMERIC,
                numeric(&[2, 1, 0x4000, 0, 12, 34]),
                "-120034",
            ),
            (Type::NUMERIC, numeric(&[1, 1, 0, 3, 12]), "120000.000"),
            (
                Type::NUMERIC,
                numeric(&[1, 0xFFFE, 0, 9, 5000]),
                "0.000050000",
            ),
            (Type::NUMERIC, numeric(&[2, 0, 0, 2, 7, 8900]), "7.89"),
            (Type::NUMERIC, numeric(&[0, 0, 0xC000, 0]), "NaN"),
            (Type::NUMERIC, numeric(&[0, 0, 0xF000, 0]), "-Infinity"),
            (Type::DATE, 59_i32.to_be_bytes().into(), "2000-02-29"),
            (
                Type::DATE,
                (-730_120_i32).to_be_bytes().into(),
                "0001-12-31 BC",
            ),
            (
                Type::DATE,
                2_921_940_i32.to_be_bytes().into(),
                "10000-01-01",
            ),
            (Type::DATE, i32::MAX.to_be_bytes().into(), "infinity"),
            (
                Type::TIME,
                (DAY - 1).to_be_bytes().into(),
                "23:59:59.999999",
            ),
            (Type::TIME, DAY.to_be_bytes().into(), "24:00:00"),
            (Type::TIME, 100_i64.to_be_bytes().into(), "00:00:00.0001"),
            (
                Type::TIMESTAMP,
                moment(-1, DAY - 500_000).into(),
                "1999-12-31 23:59:59.5",
            ),
            (
                Type::TIMESTAMPTZ,
                moment(0, 3_723_000_000).into(),
                "2000-01-01 01:02:03+00",
            ),
            (
                Type::TIMESTAMPTZ,
                moment(-730_120, 0).into(),
                "0001-12-31 00:00:00+00 BC",
            ),
            (
                Type::TIMESTAMPTZ,
                i64::MIN.to_be_bytes().into(),
                "-infinity",
            ),
            (Type::INET, vec![2, 32, 0, 4, 10, 0, 0, 255], "10.0.0.255"),
            (Type::INET, vec![2, 8, 0, 4, 10, 0, 0, 1], "10.0.0.1/8"),
            (Type::CIDR, vec![2, 32, 1, 4, 10, 0, 0, 1], "10.0.0.1/32"),
        ];
        for (of, value, text) in &of_vec {
            assert_eq!(one(of, value).as_deref(), Some(*text), "{of}");
        }
        for (groups, text) in [
            ([0, 0, 0, 0, 0, 0, 0, 5], "::5"),
            ([0, 0, 0, 0, 0, 0, 0x102, 0x304], "::1.2.3.4"),
            ([0, 0, 0, 0, 0, 0xFFFF, 0x102, 0x304], "::ffff:1.2.3.4"),
            ([0xFE80, 0, 0, 1, 0, 0, 0, 0xAB], "fe80:0:0:1::ab"),
        ] {
            let address = Ipv6Addr::from(groups).octets();
            let value = [&[3, 128, 0, 16][..], &address].concat();
            assert_eq!(one(&Type::INET, &value).as_deref(), Some(text));
        }
    }

    #[test]
    fn invalid_values_have_no_text() {
        for (of, value) in [
            (Type::BOOL, &[2][..]),
            (Type::INT4, &[0, 0, 1]),
            (Type::JSONB, b"\x02{}"),
            (Type::UUID, &[0; 15]),
            (Type::TIME, &[255; 8]),
            (Type::NUMERIC, &[0, 1, 0, 0, 0, 0, 0, 0]),
            (Type::NUMERIC, &[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10]),
            (Type::INET, &[2, 32, 1, 4, 10, 0, 0, 1]),
            (Type::CIDR, &[2, 32, 1, 3, 10, 0, 0]),
            // Of another type, of two dimensions, with another lower bound, and cut off.
            (Type::INT4_ARRAY, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20]),
            (Type::INT4_ARRAY, &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 23]),
            (
                Type::INT4_ARRAY,
                &[
                    0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 0, 255, 255, 255, 255,
                ],
            ),
            (
                Type::INT4_ARRAY,
                &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 1, 0, 0, 0, 1],
            ),
        ] {
            assert_eq!(one(&of, value), None, "{of} {value:?}");
        }
    }

    /// Days of the years 1 to 9999.
    const DAYS: std::ops::RangeInclusive<i64> = -730_119..=2_921_939;

    fn moment() -> impl Strategy<Value = i64> {
        (DAYS, 0..DAY).prop_map(|(day, time)| day * DAY + time)
    }

    /// A type that is not an array, and a value of it.
    fn value() -> impl Strategy<Value = (Type, Vec<u8>)> {
        let fixed = |of: Type, bytes: &[u8]| (of, bytes.to_vec());
        prop_oneof![
            any::<bool>().prop_map(move |b| fixed(Type::BOOL, &[b.into()])),
            any::<i16>().prop_map(move |n| fixed(Type::INT2, &n.to_be_bytes())),
            any::<i32>().prop_map(move |n| fixed(Type::INT4, &n.to_be_bytes())),
            any::<i64>().prop_map(move |n| fixed(Type::INT8, &n.to_be_bytes())),
            any::<f32>().prop_map(move |n| fixed(Type::FLOAT4, &n.to_be_bytes())),
            any::<f64>().prop_map(move |n| fixed(Type::FLOAT8, &n.to_be_bytes())),
            any::<[u8; 16]>().prop_map(move |b| fixed(Type::UUID, &b)),
            any::<Vec<u8>>().prop_map(|bytes| (Type::BYTEA, bytes)),
            "\\PC*|[\x01-\x20\\\\{},\"NULnul]*".prop_map(|t| (Type::TEXT, t.into_bytes())),
            DAYS.prop_map(move |n| fixed(Type::DATE, &i32::try_from(n).unwrap().to_be_bytes())),
            (0..DAY).prop_map(move |n| fixed(Type::TIME, &n.to_be_bytes())),
            moment().prop_map(move |n| fixed(Type::TIMESTAMP, &n.to_be_bytes())),
            moment().prop_map(move |n| fixed(Type::TIMESTAMPTZ, &n.to_be_bytes())),
            (0..=32_u8, any::<[u8; 4]>())
                .prop_map(|(bits, a)| (Type::INET, [&[2, bits, 0, 4][..], &a].concat())),
            (0..=128_u8, any::<[u8; 16]>(), 0..=16_usize).prop_map(|(bits, mut a, zeros)| {
                a[..zeros].fill(0);
                (Type::INET, [&[3, bits, 0, 16][..], &a].concat())
            }),
            "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?".prop_filter_map("negative zero", |text| {
                let is_zero = !text.bytes().any(|b| matches!(b, b'1'..=b'9'));
                if is_zero && text.starts_with('-') {
                    return None;
                }
                Some((Type::NUMERIC, numeric_of(&text)?))
            }),
        ]
    }

    /// The binary form of a number.
    fn numeric_of(text: &str) -> Option<Vec<u8>> {
        let tuple = Columns::of([&Type::NUMERIC])?.tuples(format!("{text}\n").as_bytes())?;
        let value = tuple[6..].to_vec();
        assert_eq!(one(&Type::NUMERIC, &value).as_deref(), Some(text));
        Some(value)
    }

    fn array_of(of: &Type) -> Option<Type> {
        match *of {
            Type::TEXT => Some(Type::TEXT_ARRAY),
            Type::BYTEA => Some(Type::BYTEA_ARRAY),
            Type::NUMERIC => Some(Type::NUMERIC_ARRAY),
            Type::TIMESTAMPTZ => Some(Type::TIMESTAMPTZ_ARRAY),
            Type::INT8 => Some(Type::INT8_ARRAY),
            _ => None,
        }
    }

    /// The binary form of an array of this value and NULL.
    fn array_with(of: &Type, value: &[u8]) -> Vec<u8> {
        let mut array = Vec::new();
        for field in [1, 1, of.oid(), 2, 1] {
            array.extend_from_slice(&field.to_be_bytes());
        }
        array.extend_from_slice(&tuple(Some(value))[2..]);
        array.extend_from_slice(&tuple(None)[2..]);
        array
    }

    fn check(of: &Type, value: &[u8]) -> Result<(), TestCaseError> {
        let tuple = tuple(Some(value));
        let Some(mut text) = row(of, &tuple) else {
            // A floating-point number of which the server's digits are not certain.
            prop_assert!(
                matches!(*of, Type::FLOAT4 | Type::FLOAT8),
                "{} {:?}",
                of,
                value
            );
            return Ok(());
        };
        text.push(b'\n');
        let converted = Columns::of([of]).unwrap().tuples(&text);
        prop_assert_eq!(converted, Some(tuple), "{} {}", of, text.escape_ascii());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]
        /// Two tuples have the same text only if they are equal: their text is what they are made of, and of nothing else.
        #[test]
        fn tuples_are_equal_if_their_rows_are((of, value) in value()) {
            check(&of, &value)?;
            if let Some(array) = array_of(&of) {
                check(&array, &array_with(&of, &value))?;
            }
        }

        /// What is read back may be anything.
        #[test]
        fn any_value_ends_with_text_or_without((of, value) in (value(), any::<Vec<u8>>()).prop_map(|((of, _), v)| (of, v))) {
            let _ = row(&of, &tuple(Some(&value)));
            let _ = row(&of, &value);
        }
    }
}

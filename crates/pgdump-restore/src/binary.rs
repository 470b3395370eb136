//! Converts rows of COPY's text format to tuples of its binary format, which the server reads with less work.
//! The conversion is exact or not done: values that are not in the one spelling that the server itself writes
//! are not converted, and are sent as they are in the backup.

mod marks;
mod sized;
mod values;

use memchr::memchr;
use tokio_postgres::types::Type;

use marks::Marks;
use sized::NULL;
use values::{ValueForm, value};

/// Header of a binary COPY: signature, flags, no extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Trailer of a binary COPY.
pub(super) const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// The columns of a table's rows, each of a type whose binary form is supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Vec<ValueForm>);

impl Columns {
    /// `None` if the binary form of a type is not supported.
    pub fn of<'a>(types: impl IntoIterator<Item = &'a Type>) -> Option<Self> {
        let forms: Option<Vec<ValueForm>> = types.into_iter().map(ValueForm::of).collect();
        // A tuple has its number of fields in 16 bits.
        forms.filter(|f| (1..=1600).contains(&f.len())).map(Columns)
    }

    /// Tuples for whole rows of UTF-8 text, each with its newline; `None` if one of them has a value that cannot
    /// be converted.
    pub fn tuples(&self, rows: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(rows.len() + rows.len() / 2);
        let mut plain = Vec::new();
        let count = u16::try_from(self.0.len()).ok()?.to_be_bytes();
        let (last, others) = self.0.split_last()?;
        let mut fields = Fields::of(rows);
        while fields.begin < rows.len() {
            out.extend_from_slice(&count);
            for form in others {
                fields.next(b'\t')?.convert(form, &mut plain, &mut out)?;
            }
            fields.next(b'\n')?.convert(last, &mut plain, &mut out)?;
        }
        Some(out)
    }
}

/// The fields of rows, one after another.
struct Fields<'a> {
    rows: &'a [u8],
    marks: Marks<'a>,
    /// Where the next field begins.
    begin: usize,
}

impl<'a> Fields<'a> {
    fn of(rows: &'a [u8]) -> Self {
        Fields {
            rows,
            marks: Marks::of(rows),
            begin: 0,
        }
    }

    /// The next field, if `end` is what ends it.
    #[inline]
    fn next(&mut self, end: u8) -> Option<RawField<'a>> {
        let mut backslash = None;
        loop {
            let at = self.marks.next()?;
            match self.rows[at] {
                b'\\' => {
                    backslash.get_or_insert(at - self.begin);
                }
                byte if byte == end => {
                    let text = &self.rows[self.begin..at];
                    self.begin = at + 1;
                    return Some(RawField { text, backslash });
                }
                // The server takes a carriage return for the end of a line, or rejects it.
                b'\t' | b'\n' | b'\r' => return None,
                _ => {}
            }
        }
    }
}

/// A field of a row.
struct RawField<'a> {
    text: &'a [u8],
    /// Where its first backslash is.
    backslash: Option<usize>,
}

impl RawField<'_> {
    /// Appends its value, with its length. `plain`: room for a text without escapes.
    #[inline]
    fn convert(self, form: &ValueForm, plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Option<()> {
        match self.backslash {
            None => value(form, self.text, out),
            Some(_) if self.text == br"\N" => {
                out.extend_from_slice(&NULL.to_be_bytes());
                Some(())
            }
            Some(first) => {
                unescape(self.text, first, plain)?;
                value(form, plain, out)
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(types: &[Type]) -> Columns {
        Columns::of(types).unwrap()
    }

    /// The only value of the only tuple; `None` if it is not converted.
    fn one(of: Type, text: &str) -> Option<Vec<u8>> {
        let tuple = columns(&[of]).tuples(format!("{text}\n").as_bytes())?;
        assert_eq!(tuple[..2], [0, 1]);
        let length = i32::from_be_bytes(tuple[2..6].try_into().unwrap());
        assert_eq!(length as usize, tuple.len() - 6);
        Some(tuple[6..].to_vec())
    }

    #[test]
    fn rows_are_converted_to_tuples() {
        let of = columns(&[Type::INT4, Type::TEXT, Type::BOOL]);
        let tuples = of.tuples(b"7\ta\\tb\tt\n-1\t\\N\tf\n").unwrap();
        let first = [
            &[0, 3, 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 3][..],
            b"a\tb",
            &[0, 0, 0, 1, 1],
        ]
        .concat();
        let second = [
            0, 3, 0, 0, 0, 4, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0,
        ]
        .to_vec();
        assert_eq!(tuples, [first, second].concat());
        assert_eq!(of.tuples(b""), Some(vec![]));
    }

    #[test]
    fn partial_rows_are_not_converted() {
        let of = columns(&[Type::INT4, Type::TEXT]);
        for rows in [
            &b"1\ta"[..],
            b"1\n",
            b"1\ta\tb\n",
            b"\n",
            b"1\ta\r\n",
            b"1\ta\\\n",
            b"1\t\\.\n",
        ] {
            assert_eq!(of.tuples(rows), None, "{}", rows.escape_ascii());
        }
    }

    #[test]
    fn only_the_servers_own_spelling_is_converted() {
        let refused: &[(Type, &[&str])] = &[
            (Type::BOOL, &["true", "T", "", "1"]),
            (
                Type::INT2,
                &[
                    "32768", "-32769", "+1", " 1", "1 ", "", "-", "0x1", "1_0", "1.0", "1-2", "--1",
                ],
            ),
            (Type::INT4, &["2147483648", "99999999999999999999"]),
            (Type::INT8, &["9223372036854775808", "-9223372036854775809"]),
            (Type::OID, &["-1", "4294967296"]),
            (
                Type::FLOAT4,
                &[
                    "1e39", "1e-60", "inf", "nan", "-NaN", "", "1e", "0x1p3", " 1",
                ],
            ),
            (
                Type::FLOAT8,
                &["1e309", "1e-400", "infinity", "+Infinity", "1d3"],
            ),
            (
                Type::NUMERIC,
                &[
                    "", "-", ".", ".5", "5.", "1e3", "+1", "1 ", "nan", "Infinity", "1.2.3", "--1",
                ],
            ),
            (
                Type::BYTEA,
                &["", "x00", r"\\x0", r"\\x0g", r"\\X00", r"\\xAB", r"\\000"],
            ),
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
            (
                Type::INET,
                &[
                    "10.1",
                    "10.0.0.1/33",
                    "010.0.0.1",
                    "::1/129",
                    "10.0.0.1/",
                    "fe80::1%eth0",
                ],
            ),
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
            (
                Type::TEXT_ARRAY,
                &[
                    "{a b}",
                    r#"{"a}"#,
                    r#"{"a"b}"#,
                    r#"{a"b"}"#,
                    r"{\\a}",
                    r#"{"a\\"}"#,
                ],
            ),
            (Type::TEXT, &[r"\.", r"\101", r"\x41", r"\Na", r"\q", "a\\"]),
        ];
        for (of, texts) in refused {
            for text in *texts {
                assert_eq!(one(of.clone(), text), None, "{of}: {text:?}");
            }
        }
    }

    #[test]
    fn unsupported_types_stay_text() {
        for of in [
            Type::INTERVAL,
            Type::TS_VECTOR,
            Type::POINT,
            Type::INT4_RANGE,
            Type::XML,
            Type::POINT_ARRAY,
        ] {
            assert_eq!(Columns::of(&[Type::INT4, of]), None);
        }
        assert_eq!(Columns::of(&[]), None);
    }

    /// The tuple of these fields of text.
    fn slow_tuple(fields: &[String]) -> Option<Vec<u8>> {
        let mut tuple = vec![0, fields.len() as u8];
        for field in fields {
            let plain = match &field[..] {
                r"\N" => {
                    tuple.extend([0xff; 4]);
                    continue;
                }
                r"\n" => "\n",
                r"\t" => "\t",
                other if other.contains(['\\', '\r']) => return None,
                other => other,
            };
            tuple.extend((plain.len() as u32).to_be_bytes());
            tuple.extend(plain.as_bytes());
        }
        Some(tuple)
    }

    proptest! {
        #[test]
        fn integers_round_trip(n: i64, m: i16) {
            prop_assert_eq!(one(Type::INT8, &n.to_string()).unwrap(), n.to_be_bytes());
            prop_assert_eq!(one(Type::INT2, &m.to_string()).unwrap(), m.to_be_bytes());
        }

        /// Compares with a conversion that is slow and obvious.
        #[test]
        fn rows_are_split_into_fields(
            rows in proptest::collection::vec(proptest::collection::vec(r"[a-c]{0,70}|\\[Nnt]|\\[Nq]c?|c\r?", 2..=3), 0..6),
            width in 2..=3_usize,
        ) {
            let text: String = rows.iter().map(|fields| fields.join("\t") + "\n").collect();
            let mut wanted = Some(vec![]);
            for fields in &rows {
                let tuple = slow_tuple(fields).filter(|_| fields.len() == width);
                wanted = wanted.zip(tuple).map(|(before, tuple)| [before, tuple].concat());
            }
            let of = columns(&vec![Type::TEXT; width]);
            prop_assert_eq!(of.tuples(text.as_bytes()), wanted, "{:?}", text);
        }

        #[test]
        fn arbitrary_input_does_not_panic(rows: Vec<u8>, which in 0..12_usize) {
            let all = [Type::BOOL, Type::INT4, Type::FLOAT8, Type::NUMERIC, Type::TEXT, Type::BYTEA, Type::UUID,
                Type::TIMESTAMPTZ, Type::INET, Type::TEXT_ARRAY, Type::NUMERIC_ARRAY, Type::DATE];
            let _ = columns(&[all[which].clone()]).tuples(&[&rows[..], b"\n"].concat());
        }
    }
}

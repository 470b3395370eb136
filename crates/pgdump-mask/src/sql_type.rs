//! Column types, as far as rules tell them apart.

use std::borrow::Cow;

/// Widths of PostgreSQL's integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntegerWidth {
    Small,
    Normal,
    Big,
}

impl IntegerWidth {
    pub(crate) fn min(self) -> i64 {
        match self {
            Self::Small => i64::from(i16::MIN),
            Self::Normal => i64::from(i32::MIN),
            Self::Big => i64::MIN,
        }
    }

    pub(crate) fn max(self) -> i64 {
        match self {
            Self::Small => i64::from(i16::MAX),
            Self::Normal => i64::from(i32::MAX),
            Self::Big => i64::MAX,
        }
    }
}

/// Precision and scale of `numeric(p,s)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumericLimits {
    pub(crate) precision: u32,
    pub(crate) scale: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SqlType {
    /// Text of at most `max` characters; `padded` with spaces by `character(n)`.
    Text {
        max: Option<usize>,
        padded: bool,
    },
    /// citext, whose values are equal in any case.
    CaseInsensitive,
    Integer(IntegerWidth),
    Numeric(Option<NumericLimits>),
    Float {
        double: bool,
    },
    Boolean,
    Uuid,
    Date,
    Timestamp,
    Json,
    Array(Box<SqlType>),
    /// An enum: rules that make one of its labels of another one are for it, those that make any text are not.
    Enum,
    /// Another type of PostgreSQL, a range or a composite type, which no rule but constants and NULL can fill.
    Other(String),
    /// An extension's type, or not known. Rules treat it as text; the server checks the result.
    UserDefined,
}

/// Built-in types that are no text, and what defined types are based on.
const OTHER: [&str; 61] = [
    "interval",
    "time without time zone",
    "time with time zone",
    "time",
    "timetz",
    "money",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "bit",
    "bit varying",
    "varbit",
    "bytea",
    "xml",
    "tsvector",
    "tsquery",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "oid",
    "xid",
    "xid8",
    "cid",
    "tid",
    "pg_lsn",
    "pg_snapshot",
    "txid_snapshot",
    "regclass",
    "regproc",
    "regprocedure",
    "regoper",
    "regoperator",
    "regtype",
    "regrole",
    "regnamespace",
    "regconfig",
    "regdictionary",
    "regcollation",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "int4multirange",
    "int8multirange",
    "nummultirange",
    "tsmultirange",
    "tstzmultirange",
    "datemultirange",
    "jsonpath",
    "aclitem",
    "int2vector",
    "oidvector",
    "range",
    "composite type",
];

impl SqlType {
    pub(crate) fn parse(text: &str) -> Self {
        let text = without_quotes(text.trim());
        let text = text.strip_prefix("pg_catalog.").unwrap_or(&text);
        if let Some(element) = array_element(text) {
            return Self::Array(Box::new(Self::parse(element)));
        }
        let (name, limits) = split_limits(text);
        let first = limits.first().and_then(|l| usize::try_from(*l).ok());
        match name.as_str() {
            "text" => Self::text(None),
            "citext" => Self::CaseInsensitive,
            "name" => Self::text(Some(63)),
            "\"char\"" => Self::text(Some(1)),
            "character varying" | "varchar" => Self::text(first),
            "character" | "char" => Self::Text {
                max: Some(first.unwrap_or(1)),
                padded: true,
            },
            "bpchar" => Self::Text {
                max: first,
                padded: true,
            },
            "smallint" | "int2" | "smallserial" => Self::Integer(IntegerWidth::Small),
            "integer" | "int" | "int4" | "serial" => Self::Integer(IntegerWidth::Normal),
            "bigint" | "int8" | "bigserial" => Self::Integer(IntegerWidth::Big),
            "numeric" | "decimal" => Self::Numeric(numeric_limits(&limits)),
            "real" | "float4" => Self::Float { double: false },
            "double precision" | "float8" => Self::Float { double: true },
            "boolean" | "bool" => Self::Boolean,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "timestamp"
            | "timestamptz"
            | "timestamp without time zone"
            | "timestamp with time zone" => Self::Timestamp,
            "json" | "jsonb" => Self::Json,
            "enum" => Self::Enum,
            other if other.ends_with(".citext") => Self::CaseInsensitive,
            other if OTHER.contains(&other) => Self::Other(other.to_owned()),
            other if other.starts_with("interval") => Self::Other(other.to_owned()),
            _ => Self::UserDefined,
        }
    }

    fn text(max: Option<usize>) -> Self {
        Self::Text { max, padded: false }
    }

    /// The greatest number of characters, if the type has one.
    pub(crate) fn max_characters(&self) -> Option<usize> {
        match self {
            Self::Text { max, .. } => *max,
            _ => None,
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(
            self,
            Self::Text { .. } | Self::CaseInsensitive | Self::UserDefined
        )
    }

    /// The kind of the type, for messages.
    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::Text { max: Some(n), .. } => format!("text of at most {n} characters"),
            Self::Text { max: None, .. } | Self::CaseInsensitive => "text".to_owned(),
            Self::Integer(_) => "an integer".to_owned(),
            Self::Numeric(_) => "numeric".to_owned(),
            Self::Float { .. } => "a floating-point number".to_owned(),
            Self::Boolean => "boolean".to_owned(),
            Self::Uuid => "uuid".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Timestamp => "timestamp".to_owned(),
            Self::Json => "json".to_owned(),
            Self::Array(_) => "an array".to_owned(),
            Self::Enum => "an enum".to_owned(),
            Self::Other(name) => name.clone(),
            Self::UserDefined => "a user-defined type".to_owned(),
        }
    }

    /// The text of a value that is the same for equal values: without the padding of `character(n)` and the zeros at the end
    /// of a fraction, and in lower case if case does not matter. Hashes and shares are computed from it.
    pub(crate) fn canonical<'v>(&self, value: &'v [u8]) -> Cow<'v, [u8]> {
        match self {
            Self::Text { padded: true, .. } => value.trim_suffix_of(b' ').into(),
            Self::Numeric(_) if value.contains(&b'.') => {
                value.trim_suffix_of(b'0').trim_suffix_of(b'.').into()
            }
            Self::CaseInsensitive => match std::str::from_utf8(value) {
                Ok(text) => text.to_lowercase().into_bytes().into(),
                Err(_) => value.to_ascii_lowercase().into(),
            },
            _ => value.into(),
        }
    }
}

trait TrimSuffix {
    fn trim_suffix_of(&self, byte: u8) -> &[u8];
}

impl TrimSuffix for [u8] {
    fn trim_suffix_of(&self, byte: u8) -> &[u8] {
        let kept = self
            .iter()
            .rposition(|b| *b != byte)
            .map_or(0, |last| last + 1);
        &self[..kept]
    }
}

/// A type as `pg_dump` writes it without `--quote-all-identifiers`. `"char"` is another type than `char`, and a name that needs
/// its quotes is none of PostgreSQL's.
fn without_quotes(text: &str) -> Cow<'_, str> {
    let needs_them = || text.contains("\"char\"") || text.bytes().any(|b| b.is_ascii_uppercase());
    if text.contains('"') && !needs_them() {
        text.replace('"', "").into()
    } else {
        text.into()
    }
}

/// The type before the brackets of an array type.
fn array_element(text: &str) -> Option<&str> {
    // Brackets of several dimensions are one array.
    let (mut element, mut rest) = (None, text);
    while let Some(inner) = rest.strip_suffix(']')
        && let Some(open) = inner.rfind('[')
    {
        rest = inner[..open].trim_end();
        element = Some(rest);
    }
    element
}

/// A type's name in lower case without its limits, and the limits.
fn split_limits(text: &str) -> (String, Vec<i64>) {
    let lower = text.to_ascii_lowercase();
    let Some((before, rest)) = lower.split_once('(') else {
        return (lower, Vec::new());
    };
    let (inside, after) = rest.split_once(')').unwrap_or((rest, ""));
    let name = match after.trim() {
        "" => before.trim().to_owned(),
        after => format!("{} {after}", before.trim()),
    };
    let limits = inside.split(',').filter_map(|l| l.trim().parse().ok());
    (name, limits.collect())
}

fn numeric_limits(limits: &[i64]) -> Option<NumericLimits> {
    let precision = u32::try_from(*limits.first()?).ok()?;
    let scale = limits.get(1).copied().unwrap_or(0);
    Some(NumericLimits {
        precision,
        scale: i32::try_from(scale).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_pg_dump_writes_them() {
        let text = |max, padded| SqlType::Text { max, padded };
        for (written, expected) in [
            ("text", text(None, false)),
            ("character varying(40)", text(Some(40), false)),
            ("character(5)", text(Some(5), true)),
            ("bpchar", text(None, true)),
            ("extensions.citext", SqlType::CaseInsensitive),
            ("\"char\"", text(Some(1), false)),
            ("integer", SqlType::Integer(IntegerWidth::Normal)),
            ("pg_catalog.int8", SqlType::Integer(IntegerWidth::Big)),
            ("numeric", SqlType::Numeric(None)),
            (
                "numeric(8,2)",
                SqlType::Numeric(Some(NumericLimits {
                    precision: 8,
                    scale: 2,
                })),
            ),
            ("timestamp(3) with time zone", SqlType::Timestamp),
            (
                "time(3) without time zone",
                SqlType::Other("time without time zone".into()),
            ),
            (
                "interval day to second",
                SqlType::Other("interval day to second".into()),
            ),
            ("public.mood", SqlType::UserDefined),
            ("\"date\"", SqlType::Date),
            ("\"public\".\"mood\"", SqlType::UserDefined),
            ("\"Date\"", SqlType::UserDefined),
            ("\"public\".\"citext\"", SqlType::CaseInsensitive),
            ("\"uuid\"[]", SqlType::Array(Box::new(SqlType::Uuid))),
            ("enum", SqlType::Enum),
            ("tstzmultirange", SqlType::Other("tstzmultirange".into())),
            ("bit varying(9)", SqlType::Other("bit varying".into())),
            ("", SqlType::UserDefined),
            ("text[]", SqlType::Array(Box::new(text(None, false)))),
            (
                "character varying(9)[][]",
                SqlType::Array(Box::new(text(Some(9), false))),
            ),
        ] {
            assert_eq!(SqlType::parse(written), expected, "{written}");
        }
    }

    #[test]
    fn many_dimensions_need_no_stack() {
        let written = format!("integer{}", "[] ".repeat(1_000_000));
        let integer = SqlType::Integer(IntegerWidth::Normal);
        assert_eq!(SqlType::parse(&written), SqlType::Array(Box::new(integer)));
    }

    #[test]
    fn equal_values_have_one_canonical_text() {
        let canonical = |ty: &str, v: &'static str| {
            String::from_utf8(SqlType::parse(ty).canonical(v.as_bytes()).to_vec()).unwrap()
        };
        assert_eq!(canonical("character(5)", "ab   "), "ab");
        assert_eq!(canonical("text", "ab   "), "ab   ");
        assert_eq!(canonical("numeric(8,2)", "5.00"), "5");
        assert_eq!(canonical("numeric", "100"), "100");
        assert_eq!(canonical("numeric", "1.50"), "1.5");
        assert_eq!(canonical("public.citext", "Ä@Example.ORG"), "ä@example.org");
    }
}

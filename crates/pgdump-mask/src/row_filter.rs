//! Which rows are kept.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::decimal::Decimal;
use crate::key::Keyed;
use crate::rule::moment;
use crate::sql_type::SqlType;
use crate::transform::RowValues;

/// What must hold of a row; all of it applies.
#[derive(Default)]
pub(crate) struct RowFilter(pub(crate) Vec<RowTest>);

/// A test of the value in a slot.
pub(crate) struct RowTest {
    pub(crate) slot: usize,
    pub(crate) ty: SqlType,
    pub(crate) predicate: Predicate,
}

pub(crate) enum Predicate {
    /// The keyed hash of the value is in the share. Rows without a value are left out.
    Share(Share),
    /// One of these; `None` is NULL.
    OneOf(Vec<Option<Vec<u8>>>),
    /// Between these, inclusive. NULL is not.
    Range {
        from: Option<Vec<u8>>,
        to: Option<Vec<u8>>,
    },
}

/// A share of the values of a key. A greater share contains a smaller one.
pub(crate) struct Share {
    key: Arc<Keyed>,
    below: u128,
}

impl Share {
    pub(crate) fn new(key: Arc<Keyed>, per_cent: f64) -> Self {
        // Billionths, so that no share depends on how a float is rounded.
        let billionths = (per_cent.clamp(0.0, 100.0) * 1e7).round() as u128;
        Self {
            key,
            below: (billionths << 64) / 1_000_000_000,
        }
    }

    fn contains(&self, value: &[u8]) -> bool {
        u128::from(self.key.prf.draws(b"share", value).number()) < self.below
    }
}

impl RowFilter {
    pub(crate) fn keeps(&self, row: &impl RowValues) -> bool {
        self.0.iter().all(|test| test.holds(row.value(test.slot)))
    }
}

impl RowTest {
    fn holds(&self, value: Option<&[u8]>) -> bool {
        let value = value.map(|v| self.ty.canonical(v));
        let value = value.as_deref();
        match &self.predicate {
            Predicate::Share(share) => value.is_some_and(|v| share.contains(v)),
            Predicate::OneOf(values) => values.iter().any(|wanted| match (wanted, value) {
                (Some(wanted), Some(value)) => {
                    compare(&self.ty, value, wanted) == Some(Ordering::Equal)
                        && (self.ty != SqlType::Timestamp || fraction(value) == fraction(wanted))
                }
                (wanted, value) => wanted.is_none() && value.is_none(),
            }),
            Predicate::Range { from, to } => value.is_some_and(|v| {
                let is = |bound: &Option<Vec<u8>>, out: Ordering| {
                    bound
                        .as_deref()
                        .is_none_or(|b| compare(&self.ty, v, b).is_some_and(|o| o != out))
                };
                is(from, Ordering::Less) && is(to, Ordering::Greater)
            }),
        }
    }

    /// A bound or value of the file in the spelling of rows; `None` if the type has no such value.
    pub(crate) fn spelled(ty: &SqlType, text: &str) -> Option<Vec<u8>> {
        let text = match ty {
            SqlType::Boolean => match text {
                "true" | "t" => "t",
                "false" | "f" => "f",
                _ => return None,
            },
            _ => text,
        };
        let bytes = ty.canonical(text.as_bytes()).into_owned();
        (compare(ty, &bytes, &bytes) == Some(Ordering::Equal)).then_some(bytes)
    }
}

/// Compares by the type's order: numbers by size, dates by time, everything else by bytes.
fn compare(ty: &SqlType, one: &[u8], other: &[u8]) -> Option<Ordering> {
    match ty {
        SqlType::Integer(_) | SqlType::Numeric(_) | SqlType::Float { .. } => {
            compare_numbers(one, other)
        }
        SqlType::Date | SqlType::Timestamp => Some(moment(one)?.cmp(&moment(other)?)),
        SqlType::Uuid => Some(one.to_ascii_lowercase().cmp(&other.to_ascii_lowercase())),
        _ => Some(one.cmp(other)),
    }
}

/// The fraction of a timestamp's second, without zeros at its end.
fn fraction(timestamp: &[u8]) -> &[u8] {
    let Some(point) = timestamp.iter().position(|b| *b == b'.') else {
        return b"";
    };
    let digits = &timestamp[point + 1..];
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    let last = digits[..count].iter().rposition(|b| *b != b'0');
    &digits[..last.map_or(0, |last| last + 1)]
}

fn compare_numbers(one: &[u8], other: &[u8]) -> Option<Ordering> {
    let exact = |text| Decimal::parse(text);
    if let (Some(a), Some(b)) = (exact(one), exact(other)) {
        let scale = a.scale.max(b.scale);
        if let (Some(a), Some(b)) = (a.at_scale(scale), b.at_scale(scale)) {
            return Some(a.cmp(&b));
        }
    }
    let float = |text| std::str::from_utf8(text).ok()?.parse::<f64>().ok();
    Some(float(one)?.total_cmp(&float(other)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::test_key;

    fn holds(ty: &str, predicate: Predicate, value: Option<&str>) -> bool {
        let test = RowTest {
            slot: 0,
            ty: SqlType::parse(ty),
            predicate,
        };
        test.holds(value.map(str::as_bytes))
    }

    fn range(ty: &str, from: Option<&str>, to: Option<&str>) -> Predicate {
        let ty = SqlType::parse(ty);
        let bound = |b: Option<&str>| b.map(|b| RowTest::spelled(&ty, b).unwrap());
        Predicate::Range {
            from: bound(from),
            to: bound(to),
        }
    }

    #[test]
    fn a_value_is_wanted_in_any_spelling_of_its_type() {
        for (ty, wanted, value, expected) in [
            ("double precision", "1", "1.0", true),
            ("double precision", "100", "1e2", true),
            ("numeric", "5", "5.00", true),
            (
                "timestamp without time zone",
                "2024-01-02",
                "2024-01-02 00:00:00",
                true,
            ),
            (
                "timestamp without time zone",
                "2024-01-02",
                "2024-01-02 00:00:01",
                false,
            ),
            (
                "timestamp with time zone",
                "2024-01-02 00:00:00.5",
                "2024-01-02 00:00:00.50+01",
                true,
            ),
            (
                "timestamp with time zone",
                "2024-01-02 00:00:00.5",
                "2024-01-02 00:00:00.25+01",
                false,
            ),
            (
                "uuid",
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                true,
            ),
            ("citext", "EU", "eu", true),
            ("text", "EU", "eu", false),
        ] {
            let spelled = RowTest::spelled(&SqlType::parse(ty), wanted);
            let one_of = Predicate::OneOf(vec![Some(spelled.unwrap())]);
            assert_eq!(holds(ty, one_of, Some(value)), expected, "{ty} {wanted}");
        }
        assert!(holds("integer", Predicate::OneOf(vec![None]), None));
        assert!(!holds("integer", Predicate::OneOf(vec![None]), Some("1")));
    }

    #[test]
    fn ranges_follow_the_order_of_the_type() {
        for (ty, from, to, value, expected) in [
            ("integer", Some("9"), Some("100"), "10", true),
            ("integer", Some("9"), Some("100"), "101", false),
            ("numeric", Some("1.5"), None, "1.50", true),
            ("numeric", Some("1.5"), None, "1.49", false),
            ("double precision", None, Some("1e3"), "999.5", true),
            (
                "date",
                Some("2024-01-01"),
                Some("2024-12-31"),
                "2024-12-31",
                true,
            ),
            ("date", Some("2024-01-01"), None, "0044-03-15 BC", false),
            (
                "timestamp with time zone",
                Some("2024-01-01"),
                None,
                "infinity",
                true,
            ),
            ("text", Some("b"), Some("d"), "c", true),
            ("text", Some("b"), Some("d"), "a", false),
        ] {
            assert_eq!(
                holds(ty, range(ty, from, to), Some(value)),
                expected,
                "{ty} {value}"
            );
        }
        assert!(!holds("integer", range("integer", Some("1"), None), None));
        assert_eq!(RowTest::spelled(&SqlType::Date, "soon"), None);
    }

    #[test]
    fn values_and_null_are_listed() {
        let list = || Predicate::OneOf(vec![Some(b"eu".to_vec()), None]);
        assert!(holds("text", list(), Some("eu")));
        assert!(holds("character(4)", list(), Some("eu  ")));
        assert!(holds("text", list(), None));
        assert!(!holds("text", list(), Some("us")));
    }

    #[test]
    fn a_share_is_about_so_large_and_the_same_for_key_and_reference() {
        let key = test_key("a").keyed().clone();
        let chosen = |per_cent: f64, ty: &str| -> Vec<u32> {
            let share = || Predicate::Share(Share::new(key.clone(), per_cent));
            (0..10_000)
                .filter(|v| holds(ty, share(), Some(&v.to_string())))
                .collect()
        };
        let five = chosen(5.0, "integer");
        assert!((400..600).contains(&five.len()), "{}", five.len());
        assert_eq!(five, chosen(5.0, "bigint"));
        let ten = chosen(10.0, "integer");
        assert!(five.iter().all(|v| ten.contains(v)));
        assert_eq!(chosen(100.0, "integer").len(), 10_000);
        assert!(chosen(0.0, "integer").is_empty());
        assert!(!holds(
            "integer",
            Predicate::Share(Share::new(key.clone(), 100.0)),
            None
        ));
    }
}

//! Dates and numbers in the names of tables, by which partitions come and go. Pure.

use std::ops::Range;

/// What may stand between a number and the next one of a date, after `_` or `-` or alone: `2026m11d08`, `2026_w45`.
const LETTERS: &str = "dhmpqtw";

/// A number, however long: its length without zeros before it, and its digits.
type Number = (usize, String);

/// A name that has a number.
pub(super) struct NumberedName {
    /// The name without its date and what is counted behind that, or without its last number.
    pub pattern: String,
    /// Those numbers, to compare them by their values, one after the other: of a date, the year first.
    pub numbers: Vec<Number>,
    pub is_date: bool,
}

/// Where a date is among the groups of digits of a name.
#[derive(Clone, Copy)]
struct DatePlace {
    first: usize,
    /// The day or the month comes first.
    is_year_last: bool,
}

impl NumberedName {
    /// Splits off the date and all numbers behind it, otherwise the last number: `s3_2026_11_08` is `s3_\0_\0_\0` and 2026, 11, 8;
    /// `ev_20261108_0` is `ev_\0\0\0_\0` and 2026, 11, 8, 0; `_hyper_2_11_chunk` is `_hyper_2_\0_chunk` and 11. The schema stays
    /// as it is: with one for each tenant, the next tenant does not make up for another one.
    pub(super) fn of(name: &str) -> Option<Self> {
        let schema = name.rfind('.').map_or(0, |dot| dot + 1);
        let mut groups = last_groups(&name[schema..]);
        for group in &mut groups {
            *group = group.start + schema..group.end + schema;
        }
        let date = date_in(name, &groups);
        let last = || groups.len().checked_sub(1);
        let first = date.map(|date| date.first).or_else(last)?;
        let (mut pattern, mut numbers, mut end) = (String::new(), Vec::new(), 0);
        for group in groups.into_iter().skip(first) {
            pattern.push_str(&name[end..group.start]);
            for digits in parts_of(&name[group.clone()]) {
                pattern.push('\0');
                numbers.push(number(digits));
            }
            end = group.end;
        }
        pattern.push_str(&name[end..]);
        if date.is_some_and(|date| date.is_year_last) {
            numbers.reverse();
        }
        Some(NumberedName {
            pattern,
            numbers,
            is_date: date.is_some(),
        })
    }
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

/// Where the groups of digits are that end with the last digit of a name, with nothing between them but what dates have there.
fn last_groups(name: &str) -> Vec<Range<usize>> {
    let is_separator = |c: char| matches!(c, '_' | '-');
    let is_letter = |c: char| LETTERS.contains(c.to_ascii_lowercase());
    let (mut groups, mut rest) = (Vec::new(), name.trim_end_matches(|c: char| !is_digit(c)));
    while rest.ends_with(is_digit) {
        let before = rest.trim_end_matches(is_digit);
        groups.push(before.len()..rest.len());
        rest = before.strip_suffix(is_letter).unwrap_or(before);
        rest = rest.strip_suffix(is_separator).unwrap_or(rest);
    }
    groups.reverse();
    groups
}

/// The place of a date: a group of six or eight digits, or a year before a month, a week or a quarter. If there is none, the
/// last year: as the last group, with the month, or the day and the month, before it.
fn date_in(name: &str, groups: &[Range<usize>]) -> Option<DatePlace> {
    let digits: Vec<&str> = groups.iter().map(|g| &name[g.clone()]).collect();
    let is_short = |place: usize| digits.get(place).is_some_and(|d| d.len() <= 2);
    let begins_date = |(place, digits): (usize, &&str)| {
        is_compact_date(digits) || (is_year(digits) && is_short(place + 1))
    };
    if let Some(first) = digits.iter().enumerate().position(begins_date) {
        return Some(DatePlace {
            first,
            is_year_last: false,
        });
    }
    let year = digits.iter().rposition(|digits| is_year(digits))?;
    let is_within = |place: Option<usize>, most: u8| {
        let digits = place.and_then(|place| digits.get(place));
        let short = digits.filter(|d| d.len() <= 2);
        let number = short.and_then(|d| d.parse::<u8>().ok());
        number.is_some_and(|n| (1..=most).contains(&n))
    };
    let has_month = year + 1 == digits.len() && is_within(year.checked_sub(1), 12);
    let has_day = has_month && is_within(year.checked_sub(2), 31);
    Some(DatePlace {
        first: year - usize::from(has_month) - usize::from(has_day),
        is_year_last: has_month,
    })
}

fn has_century(digits: &str) -> bool {
    digits.starts_with("19") || digits.starts_with("20")
}

fn is_year(digits: &str) -> bool {
    digits.len() == 4 && has_century(digits)
}

/// 202611 or 20261108.
fn is_compact_date(digits: &str) -> bool {
    let is_month = digits.get(4..6).is_some_and(|m| ("01"..="12").contains(&m));
    matches!(digits.len(), 6 | 8) && has_century(digits) && is_month
}

/// The year, month and day of a date that is written as one number; otherwise that number.
fn parts_of(digits: &str) -> Vec<&str> {
    if !is_compact_date(digits) {
        return vec![digits];
    }
    let parts = [&digits[..4], &digits[4..6], &digits[6..]];
    parts.into_iter().filter(|p| !p.is_empty()).collect()
}

fn number(digits: &str) -> Number {
    let digits = digits.trim_start_matches('0');
    (digits.len(), digits.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_their_date_or_last_number() {
        for (name, pattern, numbers, is_date) in [
            (
                "s3_2026_11_08",
                "s3_\0_\0_\0",
                &["2026", "11", "8"][..],
                true,
            ),
            (
                "ev_20261108_0",
                "ev_\0\0\0_\0",
                &["2026", "11", "8", ""],
                true,
            ),
            ("ev_y2026m11d08", "ev_y\0m\0d\0", &["2026", "11", "8"], true),
            ("ev_p2026w45", "ev_p\0w\0", &["2026", "45"], true),
            ("ev_2026_w45", "ev_\0_w\0", &["2026", "45"], true),
            ("ev_202611", "ev_\0\0", &["2026", "11"], true),
            ("ev_202613", "ev_\0", &["202613"], false),
            (
                "ev_2026_11_08_2000",
                "ev_\0_\0_\0_\0",
                &["2026", "11", "8", "2000"],
                true,
            ),
            (
                "tenant_2001_2026_11",
                "tenant_2001_\0_\0",
                &["2026", "11"],
                true,
            ),
            ("t_2026", "t_\0", &["2026"], true),
            ("t_2101", "t_\0", &["2101"], false),
            ("_hyper_2_11_chunk", "_hyper_2_\0_chunk", &["11"], false),
            ("tenant1.log_007", "tenant1.log_\0", &["7"], false),
            ("cust_2001.ev_11", "cust_2001.ev_\0", &["11"], false),
            // The year may be the last, and the day comes before the month.
            ("log_08_11_2026", "log_\0_\0_\0", &["2026", "11", "8"], true),
            ("s3_8_11_2026", "s3_\0_\0_\0", &["2026", "11", "8"], true),
            ("log_11_2026", "log_\0_\0", &["2026", "11"], true),
            ("log_11-2026_p", "log_\0-\0_p", &["2026", "11"], true),
            ("log_45_11_2026", "log_45_\0_\0", &["2026", "11"], true),
            ("log_11_30_2026", "log_11_30_\0", &["2026"], true),
            ("log_0_2026", "log_0_\0", &["2026"], true),
            ("tenant_57_2026", "tenant_57_\0", &["2026"], true),
            ("log_26_11_08", "log_26_11_\0", &["8"], false),
            ("ö1ß", "ö\0ß", &["1"], false),
        ] {
            let split = NumberedName::of(name).unwrap();
            let found: Vec<&str> = split.numbers.iter().map(|(_, n)| n.as_str()).collect();
            assert_eq!(
                (split.pattern.as_str(), found.as_slice(), split.is_date),
                (pattern, numbers, is_date),
                "{name}"
            );
        }
        for name in ["orders", "tenant1.log", "cust_2001.orders", "t_1."] {
            assert!(NumberedName::of(name).is_none(), "{name}");
        }
        assert!(NumberedName::of("").is_none());
    }
}

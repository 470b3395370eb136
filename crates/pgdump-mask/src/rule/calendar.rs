//! Dates as PostgreSQL writes them (ISO), over its whole range: 4714 BC to 5874897 AD, which is more than date libraries hold.

/// A date, perhaps with a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment<'t> {
    /// Days since 1970-01-01.
    pub(crate) days: i64,
    pub(crate) time: Option<Time<'t>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time<'t> {
    /// A space, or `T` inside JSON.
    separator: u8,
    pub(crate) seconds: i64,
    /// Fraction of a second and offset from UTC.
    rest: &'t [u8],
    /// The offset in seconds.
    ahead: i64,
}

/// 24 November 4714 BC, day 0 of the Julian period.
const FIRST_DAY: i64 = -2_440_588;
const LAST_YEAR_OF_DATES: i64 = 5_874_897;
const LAST_YEAR_OF_TIMESTAMPS: i64 = 294_276;

impl<'t> Moment<'t> {
    pub(crate) fn parse(text: &'t [u8]) -> Option<Self> {
        let (text, is_bc) = match text.strip_suffix(b" BC") {
            Some(text) => (text, true),
            None => (text, false),
        };
        let end = text
            .iter()
            .position(|b| [b' ', b'T'].contains(b))
            .unwrap_or(text.len());
        let mut parts = text[..end].split(|b| *b == b'-');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || year.len() < 4 {
            return None;
        }
        let (year, month, day) = (number(year)?, number(month)?, number(day)?);
        // 1 BC comes before 1 AD.
        if year == 0 {
            return None;
        }
        let year = if is_bc { 1 - year } else { year };
        if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
            return None;
        }
        let time = match text.get(end) {
            Some(separator) => Some(Time::parse(*separator, &text[end + 1..])?),
            None => None,
        };
        Some(Self {
            days: days_from_civil(year, month, day),
            time,
        })
    }

    /// Whether PostgreSQL has a value for it.
    pub(crate) fn is_in_range(&self) -> bool {
        let (days, last_year) = match self.time {
            Some(time) => {
                let of_utc = time.seconds - time.ahead;
                let days = self.days + of_utc.div_euclid(86_400);
                (days, LAST_YEAR_OF_TIMESTAMPS)
            }
            None => (self.days, LAST_YEAR_OF_DATES),
        };
        days >= FIRST_DAY && days < days_from_civil(last_year + 1, 1, 1)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (year, month, day) = civil_from_days(self.days);
        let (shown, is_bc) = if year > 0 {
            (year, false)
        } else {
            (1 - year, true)
        };
        push_number(shown, 4, out);
        for part in [month, day] {
            out.push(b'-');
            push_number(part, 2, out);
        }
        if let Some(time) = self.time {
            let (hours, minutes) = (time.seconds / 3600, time.seconds / 60 % 60);
            let seconds = time.seconds % 60;
            for (separator, part) in [(time.separator, hours), (b':', minutes), (b':', seconds)] {
                out.push(separator);
                push_number(part, 2, out);
            }
            out.extend_from_slice(time.rest);
        }
        if is_bc {
            out.extend_from_slice(b" BC");
        }
    }
}

impl<'t> Time<'t> {
    fn parse(separator: u8, text: &'t [u8]) -> Option<Self> {
        let clock = text.get(..8)?;
        let (hours, minutes) = (number(&clock[..2])?, number(&clock[3..5])?);
        let seconds = number(&clock[6..])?;
        let is_clock = clock[2] == b':' && clock[5] == b':';
        let ahead = offset(&text[8..])?;
        (is_clock && hours < 24 && minutes < 60 && seconds < 60).then_some(Self {
            separator,
            seconds: hours * 3600 + minutes * 60 + seconds,
            rest: &text[8..],
            ahead,
        })
    }

    pub(crate) fn at(self, seconds: i64) -> Self {
        Self { seconds, ..self }
    }
}

/// The seconds of the offset from UTC after a fraction, such as `.25+05:30`; `None` if there is anything else, which no shift
/// would mask.
fn offset(text: &[u8]) -> Option<i64> {
    let zone = match text.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if !(1..=9).contains(&digits) {
                return None;
            }
            &fraction[digits..]
        }
        None => text,
    };
    let (sign, places) = match zone.split_first() {
        None | Some((b'Z', [])) => return Some(0),
        Some((b'+', places)) => (1, places),
        Some((b'-', places)) => (-1, places),
        Some(_) => return None,
    };
    let parts: Vec<&[u8]> = if places.contains(&b':') {
        places.split(|b| *b == b':').collect()
    } else {
        places.chunks(2).collect()
    };
    if !(1..=3).contains(&parts.len()) || parts.iter().any(|part| part.len() != 2) {
        return None;
    }
    let units = parts.iter().zip([3600, 60, 1]);
    let seconds: Option<i64> = units.map(|(part, unit)| Some(number(part)? * unit)).sum();
    seconds.map(|seconds| sign * seconds)
}

/// `infinity` and `-infinity`, which no shift moves.
pub(crate) fn is_infinite(text: &[u8]) -> bool {
    text.strip_prefix(b"-").unwrap_or(text) == b"infinity"
}

pub(crate) fn is_date(text: &[u8]) -> bool {
    is_infinite(text) || Moment::parse(text).is_some_and(|m| m.time.is_none() && m.is_in_range())
}

pub(crate) fn is_timestamp(text: &[u8]) -> bool {
    is_infinite(text) || Moment::parse(text).is_some_and(|m| m.is_in_range())
}

/// Seconds since 1970 in the text's own time zone, to compare moments of one column: with its infinities.
pub(crate) fn moment(text: &[u8]) -> Option<i64> {
    if is_infinite(text) {
        let is_negative = text.starts_with(b"-");
        return Some(if is_negative { i64::MIN } else { i64::MAX });
    }
    let moment = Moment::parse(text)?;
    let seconds = moment.time.map_or(0, |t| t.seconds);
    moment.days.checked_mul(86_400)?.checked_add(seconds)
}

/// Appends a number that is not negative, with zeros before it up to the width.
pub(super) fn push_number(number: i64, width: usize, out: &mut Vec<u8>) {
    let mut digits = [b'0'; 20];
    let (mut rest, mut start) = (number.unsigned_abs(), digits.len());
    while rest > 0 || digits.len() - start < width {
        start -= 1;
        digits[start] += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

fn number(digits: &[u8]) -> Option<i64> {
    let all = !digits.is_empty() && digits.len() <= 7 && digits.iter().all(u8::is_ascii_digit);
    all.then(|| digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar; year 0 is 1 BC. Years begin in March here, so that the
/// leap day is the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_a_date_library() {
        let first = jiff::civil::date(-4713, 1, 1);
        let last = jiff::civil::date(9999, 12, 31);
        let mut day = first;
        while day < last {
            let (year, month, day_of_month) = (
                i64::from(day.year()),
                i64::from(day.month()),
                i64::from(day.day()),
            );
            let days = days_from_civil(year, month, day_of_month);
            assert_eq!(civil_from_days(days), (year, month, day_of_month));
            let of_month = i64::from(day.days_in_month());
            assert_eq!(days_of_month(year, month), of_month, "{day}");
            let epoch = jiff::civil::date(1970, 1, 1);
            assert_eq!(
                days,
                i64::from(epoch.until(day).unwrap().get_days()),
                "{day}"
            );
            day = day.saturating_add(jiff::Span::new().days(97));
        }
    }

    #[test]
    fn the_spelling_of_the_server_is_kept() {
        for text in [
            "2024-02-29",
            "0044-03-15 BC",
            "4714-11-24 BC",
            "5874897-12-31",
            "2024-01-31 23:59:59.123456+05:30",
            "0001-01-01 00:00:00 BC",
            "2024-01-31T12:00:00Z",
        ] {
            let moment = Moment::parse(text.as_bytes()).unwrap();
            assert!(moment.is_in_range(), "{text}");
            let mut out = Vec::new();
            moment.write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        for text in [
            "2023-02-29",
            "2024-13-01",
            "24-01-01",
            "2024-01-01 25:00:00",
            "2024-01-31 12:00:00 Ada Lovelace",
            "2024-01-31 12:00:00.5x",
            "2024-01-31 12:00:00+5",
            "2024-01-31 12:00:00+",
            "0000-01-01",
            "soon",
            "",
        ] {
            assert_eq!(Moment::parse(text.as_bytes()), None, "{text}");
        }
        assert!(!is_date(b"5874898-01-01"));
        assert!(!is_timestamp(b"294277-01-01 00:00:00"));
        assert!(!is_date(b"4714-11-23 BC"));
        assert!(is_timestamp(b"294277-01-01 05:29:59+05:30"));
        assert!(!is_timestamp(b"294276-12-31 20:00:00-0400"));
        assert!(!is_timestamp(b"4714-11-24 00:00:00+00:00:01 BC"));
    }

    #[test]
    fn moments_compare() {
        assert!(moment(b"2024-01-01") < moment(b"2024-01-01 00:00:01"));
        assert!(moment(b"0001-01-01 BC") < moment(b"0001-01-01"));
        assert!(moment(b"-infinity") < moment(b"4714-11-24 BC"));
        assert_eq!(moment(b"now"), None);
    }
}

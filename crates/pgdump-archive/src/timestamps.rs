//! Timestamps with an offset in COPY text. PostgreSQL writes them in the session's time zone; here they are
//! rewritten as PostgreSQL writes them in UTC, so that equal timestamps have equal text.

/// Bytes after a position that decide whether it has a time: the longest fraction and offset.
const LOOKAHEAD: usize = 32;
/// Bytes of a date before its time: `294276-12-31 23`.
const LOOKBEHIND: usize = 16;

/// Whether `text` has a time with an offset other than `+00`.
pub(super) fn has_non_utc(text: &[u8]) -> bool {
    memchr::memchr_iter(b':', text).any(|colon| timestamp_at(text, colon, 0).is_some())
}

/// Copies `text` with each timestamp converted to UTC. Unless `at_end`, stops where bytes that follow could change
/// the result. Returns how much of `text` was processed.
pub(super) fn normalize_to_utc(text: &[u8], at_end: bool, out: &mut Vec<u8>) -> usize {
    let limit = if at_end {
        text.len()
    } else {
        text.len().saturating_sub(LOOKAHEAD + LOOKBEHIND)
    };
    let mut done = 0;
    for colon in memchr::memchr_iter(b':', text) {
        if !at_end && colon + LOOKAHEAD > text.len() {
            break;
        }
        let Some(time) = timestamp_at(text, colon, done) else {
            continue;
        };
        out.extend_from_slice(&text[done..time.start]);
        time.write(text, out);
        done = time.end;
    }
    let rest = limit.max(done);
    out.extend_from_slice(&text[done..rest]);
    rest
}

fn number(digits: &[u8]) -> Option<i64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all.then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
}

/// A timestamp that is not in UTC.
struct OffsetTimestamp {
    start: usize,
    end: usize,
    /// Seconds since 1970-01-01 in UTC, without the fraction.
    seconds: i64,
    fraction: std::ops::Range<usize>,
}

impl OffsetTimestamp {
    fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(86_400));
        let of_day = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let (year, era) = if year > 0 {
            (year, "")
        } else {
            (1 - year, " BC")
        };
        let fraction = String::from_utf8_lossy(&text[self.fraction.clone()]);
        let utc = format!(
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}+00{era}"
        );
        out.extend_from_slice(utc.as_bytes());
    }
}

/// The time with an offset other than `+00` whose first colon is at `colon`.
fn timestamp_at(text: &[u8], colon: usize, from: usize) -> Option<OffsetTimestamp> {
    let at = |i: usize| text.get(i).copied();
    // `YYYY-MM-DD HH` before, `MM:SS` after.
    if at(colon + 3)? != b':' || colon < 13 || at(colon - 3)? != b' ' {
        return None;
    }
    let (hour, minute) = (
        number(&text[colon - 2..colon])?,
        number(text.get(colon + 1..colon + 3)?)?,
    );
    let second = number(text.get(colon + 4..colon + 6)?)?;
    let day = number(&text[colon - 5..colon - 3])?;
    let month = number(&text[colon - 8..colon - 6])?;
    if at(colon - 6)? != b'-' || at(colon - 9)? != b'-' {
        return None;
    }
    let year_end = colon - 9;
    // At most six, whatever precedes: a row that arrives in chunks must give the same result.
    let digits = text
        .get(from..year_end)?
        .iter()
        .rev()
        .take(6)
        .take_while(|b| b.is_ascii_digit())
        .count();
    let start = year_end - digits;
    let year = number(&text[start..year_end]).filter(|_| digits >= 4)?;
    let mut end = colon + 6;
    let mut fraction = end..end;
    if at(end) == Some(b'.') {
        let n = text[end + 1..]
            .iter()
            .take(6)
            .take_while(|b| b.is_ascii_digit())
            .count();
        fraction = end..end + 1 + n;
        end += 1 + n;
    }
    let sign = match at(end)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let mut offset = number(text.get(end + 1..end + 3)?)? * 3600;
    end += 3;
    for unit in [60, 1] {
        let more = text
            .get(end + 1..end + 3)
            .and_then(number)
            .filter(|_| at(end) == Some(b':'));
        let Some(n) = more else { break };
        offset += n * unit;
        end += 3;
    }
    if offset == 0 {
        return None;
    }
    let bc = text.get(end..end + 3) == Some(b" BC");
    let year = if bc { 1 - year } else { year };
    end += if bc { 3 } else { 0 };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        - sign * offset;
    Some(OffsetTimestamp {
        start,
        end,
        seconds,
        fraction,
    })
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let of_era = y.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01; the year before 1 is 0.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let of_cycle = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_cycle + of_cycle / 4 - of_cycle / 100);
    let m = (5 * of_year + 2) / 153;
    let month = if m < 10 { m + 3 } else { m - 9 };
    let year = of_cycle + era * 400 + i64::from(month <= 2);
    (year, month, of_year - (153 * m + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_written_as_postgresql_does_in_utc() {
        for (elsewhere, utc) in [
            ("2026-11-24 13:00:00.25+01", "2026-11-24 12:00:00.25+00"),
            ("2024-02-29 23:30:00-01:30", "2024-03-01 01:00:00+00"),
            ("0001-01-01 00:30:00+01", "0001-12-31 23:30:00+00 BC"),
            ("0044-03-15 01:00:00+01 BC", "0044-03-15 00:00:00+00 BC"),
            ("12026-01-01 00:00:00+05:53:28", "12025-12-31 18:06:32+00"),
        ] {
            let mut out = Vec::new();
            normalize_to_utc(elsewhere.as_bytes(), true, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), utc, "{elsewhere}");
        }
        // And every day of four hundred years, in both directions.
        assert!((-200_000..200_000).step_by(17).all(|d| {
            let (y, m, day) = civil_from_days(d);
            days_from_civil(y, m, day) == d
        }));
    }
}

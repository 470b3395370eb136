//! Dates that move by a keyed time: the same time for every date of an entity, so that the order and the distances of its dates
//! stay.

use std::sync::Arc;

use super::calendar::{Moment, is_infinite};
use crate::key::Keyed;
use crate::rule_spec::ShiftSpan;
use crate::transform::{Fault, Masked, Transform};

const SECONDS_OF_DAY: i64 = 86_400;

pub(crate) struct Shift {
    pub(crate) key: Arc<Keyed>,
    pub(crate) most: ShiftSpan,
}

impl Shift {
    /// Seconds to move by: whole units, forward or back, and never none.
    fn seconds(&self, entity: &[u8]) -> i64 {
        let mut draws = self.key.prf.draws(b"shift", entity);
        let count = 1 + draws.below(u64::from(self.most.count));
        let count = i64::try_from(count).unwrap_or(1);
        let seconds = count * i64::from(self.most.unit_seconds);
        if draws.below(2) == 0 {
            seconds
        } else {
            -seconds
        }
    }
}

impl Transform for Shift {
    fn apply(
        &self,
        value: &[u8],
        entity: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Masked, Fault> {
        if is_infinite(value) {
            out.extend_from_slice(value);
            return Ok(Masked::Value);
        }
        let moment = Moment::parse(value).ok_or("not a date in ISO form")?;
        let seconds = self.seconds(entity.unwrap_or(value));
        let there = moved(moment, seconds);
        // At the ends of the range, the other direction is left.
        let there = if there.is_in_range() {
            there
        } else {
            moved(moment, -seconds)
        };
        if !there.is_in_range() {
            return Err("the date cannot be moved within PostgreSQL's range");
        }
        there.write(out);
        Ok(Masked::Value)
    }
}

fn moved(moment: Moment<'_>, seconds: i64) -> Moment<'_> {
    match moment.time {
        Some(time) => {
            let total = time.seconds + seconds;
            Moment {
                days: moment.days + total.div_euclid(SECONDS_OF_DAY),
                time: Some(time.at(total.rem_euclid(SECONDS_OF_DAY))),
            }
        }
        None => Moment {
            days: moment.days + seconds / SECONDS_OF_DAY,
            time: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::test_key;
    use crate::rule::{is_date, is_timestamp, moment};

    fn shifted(most: &str, key: &str, entity: Option<&str>, value: &str) -> String {
        let rule = Shift {
            key: test_key(key).keyed().clone(),
            most: ShiftSpan::parse(most).unwrap(),
        };
        let mut out = Vec::new();
        rule.apply(value.as_bytes(), entity.map(str::as_bytes), &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_of_an_entity_move_together() {
        let days = |text: &str| moment(text.as_bytes()).unwrap() / SECONDS_OF_DAY;
        for entity in ["1", "2", "3"] {
            let born = shifted("30d", "a", Some(entity), "1990-05-17");
            let hired = shifted("30d", "a", Some(entity), "2020-01-01");
            assert_eq!(
                days(&hired) - days(&born),
                days("2020-01-01") - days("1990-05-17")
            );
            let distance = days(&born) - days("1990-05-17");
            assert!(distance != 0 && distance.abs() <= 30);
        }
        let all = |key: &str| {
            let entities = (0..20).map(|e| shifted("30d", key, Some(&e.to_string()), "1990-05-17"));
            entities.collect::<Vec<_>>()
        };
        assert_eq!(all("a"), all("a"));
        assert_ne!(all("a"), all("b"));
    }

    #[test]
    fn times_and_offsets_keep_their_form() {
        for value in [
            "2024-02-29 23:59:59.5+05:30",
            "0001-01-01 00:00:00 BC",
            "294276-12-31 23:59:59.999999",
            "4714-11-24 00:00:00+00 BC",
            "4714-11-24 05:30:00+05:30 BC",
            "294276-12-31 19:03:57.5-04:56:02",
        ] {
            for unit in ["30d", "36h", "90m", "10s"] {
                let result = shifted(unit, "a", Some("7"), value);
                assert!(is_timestamp(result.as_bytes()), "{value} {unit}: {result}");
                assert_ne!(result, value);
            }
        }
        assert!(
            shifted("30d", "a", None, "2024-02-29 23:59:59.5+05:30").ends_with(" 23:59:59.5+05:30")
        );
        assert!(is_date(
            shifted("4w", "a", None, "5874897-12-31").as_bytes()
        ));
    }

    #[test]
    fn infinity_stays() {
        assert_eq!(shifted("30d", "a", None, "infinity"), "infinity");
        assert_eq!(shifted("30d", "a", None, "-infinity"), "-infinity");
    }

    #[test]
    fn what_follows_a_date_is_not_copied() {
        let rule = Shift {
            key: test_key("a").keyed().clone(),
            most: ShiftSpan::parse("30d").unwrap(),
        };
        let mut out = Vec::new();
        for value in [
            "2024-02-29T23:59:59 Ada Lovelace",
            "2024-02-29 23:59:59.123, Ada",
            "2024-02-29 23:59:59.1234567890123456",
            "2024-02-29 23:59:59+Ada",
            "2024-02-29 23:59:59 4111111111111111",
        ] {
            let result = rule.apply(value.as_bytes(), None, &mut out);
            assert!(result.is_err() && out.is_empty(), "{value}");
        }
        for value in [
            "2024-02-29T23:59:59Z",
            "2024-02-29T23:59:59.123456789+0530",
            "2024-02-29 23:59:59-00:01:15",
        ] {
            rule.apply(value.as_bytes(), None, &mut out).unwrap();
        }
    }
}

//! When orders run by the clock: cron patterns and windows, both in the time of a zone. Patterns are searched on the wall
//! clock, and what is found there becomes an instant afterwards, so each match of a pattern is one run: what a change of
//! the clock skips runs as much later as the clock went forward, and what it repeats runs the first time only.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// More than a clock ever went forward: what it skips is run later by at most this.
const MAX_SKIPPED: SignedDuration = SignedDuration::from_hours(25);

/// A cron pattern of five fields in a time zone.
#[derive(Debug, Clone)]
pub struct CronSchedule {
    cron: Cron,
    zone: TimeZone,
}

/// A time zone by its name in the IANA database.
fn zone_of(name: &str) -> Result<TimeZone, String> {
    let found = TimeZone::get(name);
    found.map_err(|_| "time_zone: must be a name such as Europe/Berlin or UTC".to_owned())
}

impl CronSchedule {
    /// # Errors
    /// What is wrong.
    pub fn parse(pattern: &str, zone: &str) -> Result<Self, String> {
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed);
        let wrong = || {
            "schedule: must be a cron pattern of five fields (minute, hour, day, month, day of the week), such as \"0 3 * * *\""
                .to_owned()
        };
        let cron = parser.build().parse(pattern).map_err(|_| wrong())?;
        let schedule = CronSchedule {
            cron,
            zone: zone_of(zone)?,
        };
        match schedule.next(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err("schedule: no day matches it".to_owned()),
        }
    }

    /// The instant of a time on the wall clock. One that is skipped is as much later as the clock goes forward; of one that
    /// is repeated, it is the first.
    fn instant(&self, at: DateTime) -> Option<Timestamp> {
        self.zone.to_ambiguous_timestamp(at).compatible().ok()
    }

    /// The last run that was due by `now`.
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let here = self.zone.to_datetime(now);
        let (mut at, mut is_first) = (here.saturating_add(MAX_SKIPPED), true);
        let mut last: Option<Timestamp> = None;
        // An earlier match may still be the later instant, if it was skipped.
        while last.is_none() || at.saturating_add(MAX_SKIPPED) >= here {
            let Ok(found) = self.cron.find_previous_occurrence(&at, is_first) else {
                break;
            };
            (at, is_first) = (found, false);
            last = last.max(self.instant(at).filter(|t| *t <= now));
        }
        last
    }

    /// The first run that is due after `now`.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let here = self.zone.to_datetime(now);
        let (mut at, mut is_first) = (here.saturating_sub(MAX_SKIPPED), true);
        let mut next: Option<Timestamp> = None;
        // No match is earlier as an instant than on the wall clock.
        while next.is_none_or(|next| at <= self.zone.to_datetime(next)) {
            let Ok(found) = self.cron.find_next_occurrence(&at, is_first) else {
                break;
            };
            (at, is_first) = (found, false);
            let found = self.instant(at).filter(|t| *t > now);
            next = next.into_iter().chain(found).min();
        }
        next
    }
}

/// A time of the day in which runs may begin.
#[derive(Debug, Clone)]
pub struct Window {
    from: Time,
    to: Time,
    zone: TimeZone,
}

/// A time of the day as people write it, such as `22:00`.
fn time_of(field: &str, text: &str) -> Result<Time, String> {
    let number = |digits: &str| {
        let is_plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<i8>().ok().filter(|_| is_plain)
    };
    let parts = text.split_once(':');
    let parts = parts.and_then(|(hour, minute)| Some((number(hour)?, number(minute)?)));
    let time = parts.and_then(|(hour, minute)| Time::new(hour, minute, 0, 0).ok());
    time.ok_or_else(|| format!("window.{field}: must be a time of the day such as \"22:00\""))
}

impl Window {
    /// # Errors
    /// What is wrong.
    pub fn parse(from: &str, to: &str, zone: &str) -> Result<Self, String> {
        let (from, to) = (time_of("from", from)?, time_of("to", to)?);
        if from == to {
            return Err("window: from and to are the same time".to_owned());
        }
        let zone = zone_of(zone).map_err(|what| format!("window.{what}"))?;
        Ok(Window { from, to, zone })
    }

    /// When the window opens that begins on a day, and when it closes. One that a change of the clock skips as a whole comes
    /// after it, and is as long: a run that is skipped does, too.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        let last = if self.from < self.to {
            day
        } else {
            day.tomorrow().ok()?
        };
        let (from, to) = (day.to_datetime(self.from), last.to_datetime(self.to));
        let instant = |at: DateTime| self.zone.to_ambiguous_timestamp(at).compatible().ok();
        let (opens, closes) = (instant(from)?, instant(to)?);
        if opens < closes {
            return Some((opens, closes));
        }
        Some((opens, opens.checked_add(to.duration_since(from)).ok()?))
    }

    /// Whether a run may begin now. It may end later.
    pub fn is_open(&self, now: Timestamp) -> bool {
        let today = self.zone.to_datetime(now).date();
        let days = [today.yesterday().ok(), Some(today)];
        let mut windows = days.into_iter().flatten().filter_map(|day| self.on(day));
        windows.any(|(opens, closes)| opens <= now && now < closes)
    }

    /// When a run may begin that is due at `now`.
    pub fn opens(&self, now: Timestamp) -> Timestamp {
        if self.is_open(now) {
            return now;
        }
        let today = self.zone.to_datetime(now).date();
        let days = [Some(today), today.tomorrow().ok()];
        let windows = days.into_iter().flatten().filter_map(|day| self.on(day));
        let openings = windows.map(|(opens, _)| opens);
        openings.filter(|t| *t > now).min().unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The runs from a time on.
    fn runs(pattern: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = CronSchedule::parse(pattern, zone).unwrap();
        let mut at = t(from);
        let next = std::iter::from_fn(|| {
            at = schedule.next(at)?;
            // The last run that was due is the same, seen from there.
            assert_eq!(schedule.last(at), Some(at), "{pattern}");
            Some(at.to_string())
        });
        next.take(count).collect()
    }

    #[test]
    fn a_pattern_is_in_the_time_of_its_zone() {
        assert_eq!(
            runs("0 3 * * *", "Europe/Berlin", "2026-11-30T03:00:00Z", 2),
            ["2026-12-01T02:00:00Z", "2026-12-02T02:00:00Z"]
        );
        assert_eq!(
            runs("30 22 * * MON-FRI", "UTC", "2026-12-04T12:00:00Z", 2),
            ["2026-12-04T22:30:00Z", "2026-12-07T22:30:00Z"]
        );
        let daily = CronSchedule::parse("0 3 * * *", "Europe/Berlin").unwrap();
        assert_eq!(
            daily.last(t("2026-11-30T01:59:59Z")),
            Some(t("2026-11-29T02:00:00Z"))
        );
    }

    /// In Berlin, 02:00 to 03:00 was skipped on 29 March 2026.
    #[test]
    fn what_the_clock_skips_runs_after_the_gap() {
        let zone = "Europe/Berlin";
        assert_eq!(
            runs("30 2 * * *", zone, "2026-03-28T01:30:00Z", 2),
            // 03:30 summer time, then 02:30 as always.
            ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        // The match at 02:30 becomes the instant of the one at 03:30: one run.
        assert_eq!(
            runs("30 * * * *", zone, "2026-03-28T23:45:00Z", 3),
            [
                "2026-03-29T00:30:00Z",
                "2026-03-29T01:30:00Z",
                "2026-03-29T02:30:00Z"
            ]
        );
        // A later match may be the earlier instant: 03:10 comes before the skipped 02:30.
        assert_eq!(
            runs("10,30 2,3 * * *", zone, "2026-03-29T00:00:00Z", 2),
            ["2026-03-29T01:10:00Z", "2026-03-29T01:30:00Z"]
        );
    }

    /// In Berlin, 02:00 to 03:00 came twice on 25 October 2026.
    #[test]
    fn what_the_clock_repeats_runs_once() {
        let zone = "Europe/Berlin";
        assert_eq!(
            runs("30 2 * * *", zone, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        // From within the repeated hour, too.
        let schedule = CronSchedule::parse("30 2 * * *", zone).unwrap();
        let repeated = t("2026-10-25T01:10:00Z");
        assert_eq!(schedule.last(repeated), Some(t("2026-10-25T00:30:00Z")));
        assert_eq!(schedule.next(repeated), Some(t("2026-10-26T01:30:00Z")));
    }

    #[test]
    fn what_cannot_be_a_schedule_is_refused() {
        for (pattern, zone, part) in [
            ("", "UTC", "five fields"),
            ("0 3 * *", "UTC", "five fields"),
            ("0 0 3 * * *", "UTC", "five fields"),
            ("61 3 * * *", "UTC", "five fields"),
            ("0 3 30 2 *", "UTC", "no day"),
            ("0 3 * * *", "Europe/Nowhere", "time_zone"),
        ] {
            let said = CronSchedule::parse(pattern, zone).unwrap_err();
            assert!(said.contains(part), "{pattern}: {said}");
        }
    }

    #[test]
    fn a_window_may_reach_over_midnight() {
        let window = Window::parse("22:00", "06:00", "Europe/Berlin").unwrap();
        for (now, opens) in [
            ("2026-11-30T20:59:59Z", "2026-11-30T21:00:00Z"),
            ("2026-11-30T21:00:00Z", "2026-11-30T21:00:00Z"),
            ("2026-12-01T04:59:59Z", "2026-12-01T04:59:59Z"),
            ("2026-12-01T05:00:00Z", "2026-12-01T21:00:00Z"),
        ] {
            assert_eq!(window.opens(t(now)), t(opens), "{now}");
            assert_eq!(window.is_open(t(now)), now == opens, "{now}");
        }
        let day = Window::parse("09:30", "17:00", "UTC").unwrap();
        assert!(day.is_open(t("2026-11-30T09:30:00Z")));
        assert_eq!(
            day.opens(t("2026-11-30T17:00:00Z")),
            t("2026-12-01T09:30:00Z")
        );
        for (from, to) in [("22", "06:00"), ("24:00", "06:00"), ("22:00", "6:0")] {
            assert!(Window::parse(from, to, "UTC").is_err(), "{from} {to}");
        }
        assert!(Window::parse("22:00", "22:00", "UTC").is_err());
    }

    /// In Berlin, 02:00 to 03:00 was skipped on 29 March 2026. No night is without a window.
    #[test]
    fn a_window_that_the_clock_skips_comes_after_the_gap() {
        for (from, to, now, opens) in [
            ("02:00", "03:00", "29T00:59:59", "29T01:00:00"),
            ("02:00", "03:00", "29T01:30:00", "29T01:30:00"),
            ("02:00", "03:00", "29T02:00:00", "30T00:00:00"),
            // A part of it is there.
            ("01:30", "02:30", "29T00:45:00", "29T00:45:00"),
            ("01:30", "02:30", "29T01:30:00", "29T23:30:00"),
            ("02:30", "04:00", "29T01:00:00", "29T01:30:00"),
            ("02:30", "04:00", "29T01:59:59", "29T01:59:59"),
        ] {
            let window = Window::parse(from, to, "Europe/Berlin").unwrap();
            let (now, opens) = (t_of_march(now), t_of_march(opens));
            assert_eq!(window.opens(now), opens, "{from} {to} {now}");
        }
    }

    fn t_of_march(time: &str) -> Timestamp {
        t(&format!("2026-03-{time}Z"))
    }
}

//! What is due of an order. Pure: the time, the newest backup and what is known of earlier runs are given.

use jiff::Timestamp;

use super::orders::{Candidate, OrderTrigger, StandingOrder};
use crate::job::{Generation, LatestBackup};

impl StandingOrder {
    /// The backups of which the newest is to be restored now; `None` if no run was due yet. A scheduled run takes what was
    /// there when it was due, however late it begins: all workers choose the same, and what arrives later waits for the
    /// next run.
    pub fn wanted_at(&self, now: Timestamp) -> Option<LatestBackup> {
        match &self.trigger {
            OrderTrigger::NewBackup => Some(self.wanted.clone()),
            OrderTrigger::Schedule(schedule) => Some(LatestBackup {
                at: Some(schedule.last(now)?),
                ..self.wanted.clone()
            }),
        }
    }

    /// When the next run is due, as far as the clock decides that.
    pub fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.trigger {
            OrderTrigger::NewBackup => None,
            OrderTrigger::Schedule(schedule) => schedule.next(now).map(|due| self.opens(due)),
        }
    }

    /// When a run may begin that is due now.
    pub fn opens(&self, now: Timestamp) -> Timestamp {
        self.window.as_ref().map_or(now, |w| w.opens(now))
    }

    /// The next time at which the clock alone changes what is due.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let opens = Some(self.opens(now)).filter(|t| *t > now);
        let fires = match &self.trigger {
            OrderTrigger::NewBackup => None,
            OrderTrigger::Schedule(schedule) => schedule.next(now),
        };
        opens.into_iter().chain(fires).min()
    }
}

/// What a worker does about an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing: it is paused, there is no backup, the newest one had its run, the target has a newer one, or a masked one.
    Nothing,
    /// The window opens later.
    Later(Timestamp),
    Now,
}

/// What is known of an order when it is decided what is due.
#[derive(Debug, Default, Clone, Copy)]
pub struct OrderSnapshot<'a> {
    pub newest: Option<&'a Candidate>,
    /// The run of the newest backup has ended.
    pub had_run: bool,
    pub is_paused: bool,
    /// When the backup was made that the target has, if its copy is masked by the order's rules.
    pub restored: Option<Timestamp>,
    /// The target has a masked copy, and the order has no rules.
    pub would_unmask: bool,
}

/// What is due. A backup that is older than the one in the target is never restored: the newest one may be older, because
/// the newer one was deleted or found bad, or because a person has restored what came after a scheduled run was due.
pub fn due(order: &StandingOrder, known: OrderSnapshot<'_>, now: Timestamp) -> Due {
    let Some(newest) = known.newest else {
        return Due::Nothing;
    };
    let is_older = known.restored.is_some_and(|t| newest.created <= t);
    if known.had_run || known.is_paused || known.would_unmask || is_older {
        return Due::Nothing;
    }
    match order.opens(now) {
        opens if opens > now => Due::Later(opens),
        _ => Due::Now,
    }
}

/// The backups of an order that one worker knows of: at most one that is being restored and one that waits.
#[derive(Debug, Default)]
pub struct PendingBackups {
    waits: Option<Candidate>,
    running: Option<Candidate>,
}

impl PendingBackups {
    /// A backup whose run is due, or will be when the window opens. Returns the older one that it supersedes.
    pub fn put(&mut self, newest: Candidate) -> Option<Candidate> {
        if self.is_running(newest.generation) {
            return None;
        }
        let before = self.waits.replace(newest);
        let now = self.waits.as_ref()?;
        // If the newest backup is an older one now, the one that waited is gone, and nothing takes its place.
        before.filter(|b| (b.created, b.generation) < (now.created, now.generation))
    }

    /// Takes the one that waits, to restore it.
    pub fn begin(&mut self) -> Option<Candidate> {
        self.running = self.waits.take();
        self.running.clone()
    }

    /// The run has ended. If another attempt is needed, its backup waits again, unless a newer one does: returns it if it
    /// is superseded.
    pub fn end(&mut self, again: bool) -> Option<Candidate> {
        let ended = self.running.take().filter(|_| again)?;
        match &self.waits {
            Some(newer) if newer.created >= ended.created => Some(ended),
            _ => {
                self.waits = Some(ended);
                None
            }
        }
    }

    /// Nothing waits any more.
    pub fn clear(&mut self) {
        self.waits = None;
    }

    /// The one that waits.
    pub fn waits(&self) -> Option<&Candidate> {
        self.waits.as_ref()
    }

    pub fn is_running(&self, generation: Generation) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|c| c.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{CronSchedule, Window};
    use super::*;
    use crate::admission::Admission;
    use crate::config::{Config, Document, RawConfig};

    fn order(when: &str) -> StandingOrder {
        let raw = RawConfig::from_flags(&[("db-host", "db")]).unwrap();
        let mut config = Config::new(&raw).unwrap();
        config.standing_restores = Some(Document {
            path: "standing.yaml".to_owned(),
            text: format!("version: 1\norders:\n  - {{ name: a, when: {when}, target: t }}"),
        });
        let admission = Admission::new(&config, "restore-requests").unwrap();
        let mut orders = super::super::orders::orders(&config, &admission).unwrap();
        orders.remove(0)
    }

    fn t(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn backup(generation: i64) -> Candidate {
        Candidate {
            name: format!("{generation}.dump"),
            generation: Generation(generation),
            created: Timestamp::from_second(generation).unwrap(),
        }
    }

    #[test]
    fn a_scheduled_run_takes_what_was_there_when_it_was_due() {
        let daily = order("{ schedule: '0 3 * * *', time_zone: Europe/Berlin }");
        let now = t("2026-11-30T09:00:00Z");
        let wanted = daily.wanted_at(now).unwrap();
        assert_eq!(wanted.at, Some(t("2026-11-30T02:00:00Z")));
        assert!(wanted.is_proven);
        assert_eq!(daily.next_due(now), Some(t("2026-12-01T02:00:00Z")));
        let proven = order("proven");
        assert_eq!(proven.wanted_at(now).unwrap().at, None);
        assert_eq!(
            (proven.next_due(now), proven.next_change(now)),
            (None, None)
        );
    }

    #[test]
    fn a_run_that_is_due_waits_for_the_window() {
        let mut order = order("proven");
        let (newest, noon) = (backup(7), t("2026-11-30T12:00:00Z"));
        let ask = |order: &StandingOrder, had_run, is_paused, now| {
            let known = OrderSnapshot {
                newest: Some(&newest),
                had_run,
                is_paused,
                ..OrderSnapshot::default()
            };
            due(order, known, now)
        };
        assert_eq!(ask(&order, false, false, noon), Due::Now);
        order.window = Some(Window::parse("22:00", "06:00", "UTC").unwrap());
        let opens = t("2026-11-30T22:00:00Z");
        assert_eq!(ask(&order, false, false, noon), Due::Later(opens));
        assert_eq!(order.next_change(noon), Some(opens));
        assert_eq!(ask(&order, false, false, opens), Due::Now);
        assert_eq!(order.next_change(opens), None);
        assert_eq!(ask(&order, true, false, opens), Due::Nothing);
        assert_eq!(ask(&order, false, true, opens), Due::Nothing);
        assert_eq!(due(&order, OrderSnapshot::default(), opens), Due::Nothing);
    }

    /// A person has restored a newer backup, or the newer one was deleted or found bad since.
    #[test]
    fn no_older_backup_replaces_a_newer_copy() {
        let order = order("proven");
        let now = t("2026-11-30T22:00:00Z");
        for (newest, restored, is_due) in [
            (7, None, true),
            (7, Some(6), true),
            (7, Some(7), false),
            (7, Some(8), false),
        ] {
            let newest = backup(newest);
            let known = OrderSnapshot {
                newest: Some(&newest),
                restored: restored.map(|s| Timestamp::from_second(s).unwrap()),
                ..OrderSnapshot::default()
            };
            let wanted = if is_due { Due::Now } else { Due::Nothing };
            assert_eq!(due(&order, known, now), wanted, "{restored:?}");
            // A worker that has another file than the one that made the copy.
            let known = OrderSnapshot {
                would_unmask: true,
                ..known
            };
            assert_eq!(due(&order, known, now), Due::Nothing);
        }
    }

    #[test]
    fn a_scheduled_run_outside_the_window_is_due_when_it_opens() {
        let mut order = order("{ schedule: '0 12 * * *' }");
        let schedule = CronSchedule::parse("0 12 * * *", "UTC").unwrap();
        order.window = Some(Window::parse("22:00", "06:00", "UTC").unwrap());
        let now = t("2026-11-30T11:00:00Z");
        assert_eq!(schedule.next(now), Some(t("2026-11-30T12:00:00Z")));
        assert_eq!(order.next_due(now), Some(t("2026-11-30T22:00:00Z")));
    }

    #[test]
    fn only_the_newest_backup_waits() {
        let mut waiting = PendingBackups::default();
        assert_eq!(waiting.put(backup(1)), None);
        // Seen again.
        assert_eq!(waiting.put(backup(1)), None);
        assert_eq!(waiting.put(backup(2)), Some(backup(1)));
        assert_eq!(waiting.begin(), Some(backup(2)));
        // While it runs, newer ones wait; it is not among them.
        assert_eq!(waiting.put(backup(2)), None);
        assert_eq!(waiting.waits(), None);
        assert_eq!(waiting.put(backup(3)), None);
        assert_eq!(waiting.put(backup(4)), Some(backup(3)));
        assert_eq!(waiting.end(false), None);
        assert_eq!(waiting.begin(), Some(backup(4)));
        // It has to be tried again, and nothing is newer.
        assert_eq!(waiting.end(true), None);
        assert_eq!(waiting.begin(), Some(backup(4)));
        assert_eq!(waiting.put(backup(5)), None);
        assert_eq!(waiting.end(true), Some(backup(4)));
        assert_eq!(waiting.waits(), Some(&backup(5)));
        // It was deleted: the one before is the newest again, and supersedes nothing.
        assert_eq!(waiting.put(backup(4)), None);
        waiting.clear();
        assert_eq!(waiting.begin(), None);
    }
}

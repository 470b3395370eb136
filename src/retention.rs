//! Decides which backups may be deleted. Pure. The whole rule:
//! - A backup may go once it is neither young nor among the newest `floor` of its database, a newer whole one of that database is
//!   proven, and newer proven ones have every table of which it has rows. If its database cannot be determined, it stays.
//! - Only what is proven replaces rows; an empty table of a proven one does, too. A whole backup that was ever restored is compared
//!   with whole ones alone, anything else also with parts. Its tables are those of its last restore, whatever later
//!   verifications say; if there was none, those of its table of contents, or none if it was read to its end and has no rows; if
//!   that cannot be had, it may have any rows.
//! - If newer ones define a table and leave its rows out, or may do so, a restored backup that has them stays without a limit. If it
//!   is not known whether they were meant to go (dropped, `-T`, nobody restored it), it stays for `LEFT_OUT_DAYS`. That time begins
//!   when the first newer whole backup was both made and proven, and that one stays as long.
//! - Tables in `drift.ignore` do not count, nor do partitions that went in turn, the lowest first. If newer ones
//!   leave out more tables than are listed, those partitions may be among them, and count for `LEFT_OUT_DAYS`.

use std::collections::{HashMap, HashSet};

mod numbered_names;
mod parts;
mod retained_set;
mod tables;

use crate::proof::BackupOrigin;
use crate::store::StoredObject;

/// Why a backup is kept whose archive names no database, if its tables are not known either. One without rows lists none.
const UNNAMED: &str = "it names no database, and no verification has listed tables of it: it may be of any database; dump with pg_dump -C or -Fc";

/// How long a backup is kept because of rows that newer ones lack, or may lack, by mistake: so many days, or so many times
/// those that backups are kept anyway.
const LEFT_OUT_DAYS: u32 = 35;
const LEFT_OUT_FACTOR: u32 = 4;

/// Why everything is kept that is not young.
const NONE_PROVEN: &str = "no backup of the set is proven: nothing is deleted";

pub use parts::decide_with_parts;
pub use retained_set::RetainedSet;
pub use tables::{SoleRows, UnnamedSeries};

/// The decision about one backup, and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub object: StoredObject,
    pub proven: bool,
    pub delete: bool,
    pub why: String,
}

/// The retention rules of a backup set.
#[derive(Debug, Clone, Copy)]
pub struct RetentionRules {
    /// Backups younger than this many days are kept.
    pub days: u32,
    /// This many of the newest backups of each database are kept, however old they are.
    pub floor: usize,
}

/// A backup and what is known about it.
#[derive(Debug, Clone)]
pub struct RetentionCandidate {
    pub object: StoredObject,
    /// When it was made and a restore had proven it, if no later verification has found a fault.
    pub proven_since: Option<jiff::Timestamp>,
    /// The database that it is of, or why that is not known. Determined only if it may matter.
    pub origin: Result<BackupOrigin, String>,
    /// The database that it is of if it names none, and a verification has listed its tables.
    pub unnamed: Option<UnnamedSeries>,
    /// How its tables are known.
    pub rows: KnownRows,
    /// Its last verification that had an answer found it bad.
    pub is_bad: bool,
    /// Rows that no newer proven backup has with which it is compared.
    pub sole_rows: Option<SoleRows>,
}

/// How it is known of which tables a backup has rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownRows {
    /// It was restored once, whatever a later verification says.
    Restored,
    /// It never was, and its table of contents lists them.
    Listed,
    /// It never was, and nothing lists them; why.
    Unlisted(String),
    /// It never was, and its last verification could not read it: it has none that anybody could want.
    Unreadable,
}

/// A database, as certainly as a deletion requires. Backups that name none are of the same one only if their objects
/// are called alike and have most tables in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RetainedSeries {
    origin: BackupOrigin,
    /// Of backups that name no database.
    unnamed: Option<UnnamedSeries>,
}

/// What is newer than a backup in its series.
#[derive(Debug, Default)]
struct NewerInSeries {
    backups: usize,
    first_proof: Option<FirstProof>,
}

/// The backup among the newer ones that was made and proven first.
#[derive(Debug, Clone, Copy)]
struct FirstProof {
    since: jiff::Timestamp,
    /// Its place among all backups.
    place: usize,
}

impl NewerInSeries {
    fn add(&mut self, place: usize, c: &RetentionCandidate) {
        self.backups += 1;
        if let Some(since) = c.proven_since
            && self.first_proof.is_none_or(|first| since < first.since)
        {
            self.first_proof = Some(FirstProof { since, place });
        }
    }
}

/// That a backup is kept for rows that no newer one has, or may not have.
struct RowsKept {
    why: String,
    /// For a time only.
    is_limited: bool,
}

impl RetentionCandidate {
    pub fn is_proven(&self) -> bool {
        self.proven_since.is_some()
    }

    /// The database that it is of, or why that is not known.
    ///
    /// # Errors
    /// Why that is not known.
    pub fn series(&self) -> Result<RetainedSeries, String> {
        let origin = self.origin.clone()?;
        let is_named = matches!(origin, BackupOrigin::Named(_));
        match self.unnamed.filter(|_| !is_named) {
            None if !is_named => Err(UNNAMED.to_owned()),
            unnamed => Ok(RetainedSeries { origin, unnamed }),
        }
    }
}

impl RetentionRules {
    /// Why the backup is kept regardless of proofs and of other backups, if it is.
    pub fn keeps_young(&self, object: &StoredObject, now: jiff::Timestamp) -> Option<String> {
        let limit = jiff::SignedDuration::from_hours(24 * i64::from(self.days));
        let is_young = now.duration_since(object.created) < limit;
        is_young.then(|| format!("younger than {}", days(self.days)))
    }

    /// Why it is kept because of the number of newer backups of its database, if it is.
    fn keeps_few(&self, newer: usize) -> Option<String> {
        (newer < self.floor).then(|| format!("one of the newest {} of its database", self.floor))
    }

    /// Why a backup is kept for rows that no newer one has, or may not have, if it is. `since` then, their loss could be noticed.
    fn keeps_rows(
        &self,
        c: &RetentionCandidate,
        since: jiff::Timestamp,
        now: jiff::Timestamp,
    ) -> Option<RowsKept> {
        let limited = |why: String| {
            let limit = self.keeps_long(since, now)?;
            Some(RowsKept {
                why: format!("{why}; {limit}"),
                is_limited: true,
            })
        };
        let unlimited = |why: String| {
            Some(RowsKept {
                why,
                is_limited: false,
            })
        };
        match &c.rows {
            KnownRows::Unreadable => return None,
            KnownRows::Unlisted(why) => {
                let may = "it may have rows that no newer proven backup has";
                return limited(format!("{may} ({why}): verify it"));
            }
            KnownRows::Listed | KnownRows::Restored => {}
        }
        let bad = if c.is_bad {
            " (its last verification found it bad)"
        } else {
            ""
        };
        match c.sole_rows.as_ref()? {
            SoleRows::Unlisted => limited(format!(
                "it may have rows that no newer proven backup has: evidence lists only the largest of so many tables{bad}"
            )),
            SoleRows::LeftOut(of) | SoleRows::MaybeLeftOut(of) | SoleRows::Gone(of)
                if c.rows == KnownRows::Listed =>
            {
                limited(format!(
                    "nobody restored it, and it has rows of {of}, which no newer proven backup has: verify it"
                ))
            }
            SoleRows::LeftOut(of) => unlimited(format!(
                "it has rows of {of}, which newer proven backups leave out{bad}; if that is meant, add the tables to `drift.ignore` in the checks file"
            )),
            SoleRows::MaybeLeftOut(of) => unlimited(format!(
                "it has rows of {of}, which newer proven backups may leave out{bad}: evidence names only the first of so many tables without data; if that is meant, add the tables to `drift.ignore` in the checks file"
            )),
            // That most tables are the same does not say for certain that the database is.
            SoleRows::Gone(of) if c.unnamed.is_some() => unlimited(format!(
                "it has rows of {of}, which no newer proven backup has{bad}; it names no database, and may be of another one: if it is not, delete it yourself, or add the tables to `drift.ignore` in the checks file"
            )),
            SoleRows::Gone(of) => limited(format!(
                "it has rows of {of}, which no newer proven backup has{bad}"
            )),
        }
    }

    /// That it is kept longer than others, from `since` on, and how long, unless that is over.
    fn keeps_long(&self, since: jiff::Timestamp, now: jiff::Timestamp) -> Option<String> {
        let limit = self.left_out_days();
        let time = jiff::SignedDuration::from_hours(24 * i64::from(limit));
        (now.duration_since(since) < time).then(|| format!("kept for {}", days(limit)))
    }

    fn left_out_days(&self) -> u32 {
        self.days.saturating_mul(LEFT_OUT_FACTOR).max(LEFT_OUT_DAYS)
    }

    /// Why one is kept with whose proof the time begins for which older ones are kept: without it, a later one would begin that
    /// time anew, again and again.
    fn begins_time(&self) -> String {
        let limit = days(self.left_out_days());
        format!("older ones are kept until {limit} after its proof")
    }

    /// Why one is deleted of which a newer one is proven.
    fn expired(&self, is_proven: bool) -> String {
        let never = if is_proven { "" } else { ", and never proven" };
        format!("older than {}{never}", days(self.days))
    }
}

/// A number of days in words.
fn days(n: u32) -> String {
    format!("{n} {}", if n == 1 { "day" } else { "days" })
}

/// Decides about all backups of a set, given newest first.
pub fn decide(
    backups: Vec<RetentionCandidate>,
    now: jiff::Timestamp,
    rules: RetentionRules,
) -> Vec<Decision> {
    let series: Vec<Result<RetainedSeries, String>> =
        backups.iter().map(RetentionCandidate::series).collect();
    let any_proven = backups.iter().any(RetentionCandidate::is_proven);
    let of_proven = backups.iter().zip(&series).filter(|(c, _)| c.is_proven());
    let all_proven: HashSet<&RetainedSeries> =
        of_proven.filter_map(|(_, s)| s.as_ref().ok()).collect();
    let mut newer: HashMap<&RetainedSeries, NewerInSeries> = HashMap::new();
    let mut decisions: Vec<Decision> = Vec::with_capacity(backups.len());
    let mut begin_time: HashSet<usize> = HashSet::new();
    for (place, (c, series)) in backups.into_iter().zip(&series).enumerate() {
        let keep = |why: &str| (false, why.to_owned());
        let young = rules.keeps_young(&c.object, now);
        let (delete, why) = match series {
            Err(why) => match young {
                Some(young) => (false, young),
                None if any_proven => keep(why),
                None => keep(NONE_PROVEN),
            },
            Ok(series) => {
                let newer = newer.entry(series).or_default();
                let keeps_rows = || {
                    let first = newer.first_proof?;
                    let rows = rules.keeps_rows(&c, first.since, now)?;
                    begin_time.extend(rows.is_limited.then_some(first.place));
                    Some(rows.why)
                };
                let kept = young
                    .or_else(|| rules.keeps_few(newer.backups))
                    .or_else(keeps_rows);
                let decided = match kept {
                    Some(why) => (false, why),
                    None if !any_proven => keep(NONE_PROVEN),
                    None if newer.first_proof.is_some() => (true, rules.expired(c.is_proven())),
                    None => keep(match (c.is_proven(), all_proven.contains(series)) {
                        (true, _) => "the newest proven backup of its database",
                        (false, true) => "newer than the newest proven backup of its database",
                        (false, false) => "no backup of its database is proven",
                    }),
                };
                newer.add(place, &c);
                decided
            }
        };
        decisions.push(Decision {
            proven: c.is_proven(),
            object: c.object,
            delete,
            why,
        });
    }
    for (place, decision) in decisions.iter_mut().enumerate() {
        if decision.delete && begin_time.contains(&place) {
            decision.delete = false;
            decision.why = rules.begins_time();
        }
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Generation;
    use crate::proof::BackupContents;

    const DAY: i64 = 86_400;

    /// So many days ago.
    fn day(age: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second((1_000 - age) * DAY).unwrap()
    }

    fn made(i: usize, age: i64) -> StoredObject {
        StoredObject {
            created: day(age),
            generation: Generation(i as i64),
            ..StoredObject::named(&format!("b{i}"))
        }
    }

    /// Decisions about backups of these ages in days and databases; `-` is an unknown database, and `~1` are the tables
    /// of a backup that names none, `~` of one that no verification has listed.
    fn decided(backups: &[(i64, &str)], proven: &[usize], floor: usize) -> Vec<Decision> {
        let now = jiff::Timestamp::from_second(1_000 * DAY).unwrap();
        let candidate = |(i, (age, database)): (usize, &(i64, &str))| RetentionCandidate {
            object: made(i, *age),
            proven_since: proven.contains(&i).then(|| day(*age)),
            origin: match *database {
                "-" => Err("cannot be read".into()),
                name if name.starts_with('~') => Ok(BackupOrigin::new(None, "backup-2026-11-01")),
                name => Ok(BackupOrigin::new(
                    Some(name.to_owned()),
                    "backup-2026-11-01",
                )),
            },
            unnamed: database
                .strip_prefix('~')
                .and_then(|n| n.parse().ok())
                .map(UnnamedSeries::of_test),
            rows: KnownRows::Restored,
            is_bad: false,
            sole_rows: None,
        };
        let all = backups.iter().enumerate().map(candidate).collect();
        decide(all, now, RetentionRules { days: 7, floor })
    }

    fn decisions(ages: &[i64], proven: &[usize], floor: usize) -> Vec<bool> {
        let backups: Vec<_> = ages.iter().map(|age| (*age, "a")).collect();
        decided(&backups, proven, floor)
            .into_iter()
            .map(|d| d.delete)
            .collect()
    }

    #[test]
    fn old_backups_are_deleted_but_never_the_newest_proven_one() {
        assert_eq!(
            decisions(&[1, 6, 7, 9], &[0], 0),
            [false, false, true, true]
        );
        assert_eq!(
            decisions(&[10, 11, 12, 13], &[1, 3], 0),
            [false, false, true, true]
        );
        // Nothing is proven, so nothing is deleted.
        assert_eq!(decisions(&[10, 11, 12], &[], 0), [false; 3]);
        assert_eq!(decisions(&[10, 11, 12], &[0], 3), [false; 3]);
        assert_eq!(decisions(&[10, 11, 12], &[0], 2), [false, false, true]);
        // A creation time in the future counts as young.
        assert_eq!(decisions(&[-30_000, 10, 11], &[1], 0), [false, false, true]);
    }

    #[test]
    fn each_database_of_a_set_keeps_its_newest_proven_backup() {
        let mixed = [
            (8, "a"),
            (9, "b"),
            (10, "a"),
            (11, "b"),
            (12, "c"),
            (13, "-"),
            (14, "a"),
        ];
        let all = decided(&mixed, &[0, 2, 3], 0);
        let gone: Vec<usize> = (0..mixed.len()).filter(|i| all[*i].delete).collect();
        assert_eq!(gone, [2, 6]);
        let why = |i: usize| all[i].why.as_str();
        assert_eq!(
            why(1),
            "newer than the newest proven backup of its database"
        );
        assert_eq!(why(3), "the newest proven backup of its database");
        assert_eq!(
            (why(4), why(5)),
            ("no backup of its database is proven", "cannot be read")
        );
    }

    #[test]
    fn the_newest_of_each_database_stay() {
        let mixed = [
            (8, "a"),
            (9, "a"),
            (10, "b"),
            (11, "a"),
            (12, "b"),
            (13, "b"),
        ];
        let all = decided(&mixed, &[0, 2], 2);
        let gone: Vec<usize> = (0..mixed.len()).filter(|i| all[*i].delete).collect();
        assert_eq!(gone, [3, 5]);
        assert_eq!(all[4].why, "one of the newest 2 of its database");
    }

    /// Which of them are deleted.
    fn gone(backups: &[(i64, &str)], proven: &[usize], floor: usize) -> Vec<usize> {
        let all = decided(backups, proven, floor);
        (0..all.len()).filter(|i| all[*i].delete).collect()
    }

    /// All objects are called alike.
    #[test]
    fn a_backup_that_names_no_database_deletes_none_of_another() {
        let none: [usize; 0] = [];
        let mixed = [(20, "~1"), (30, "blog"), (40, "shop")];
        assert_eq!(gone(&mixed, &[0, 1, 2], 0), none);
        assert_eq!(gone(&mixed, &[0, 1, 2], 1), none);
        // Nor does it count among the newest of a database that is named.
        let newest = [
            (8, "~"),
            (9, "~"),
            (10, "~"),
            (20, "shop"),
            (30, "shop"),
            (40, "shop"),
        ];
        assert_eq!(gone(&newest, &[3], 2), [5]);
        assert_eq!(gone(&newest, &[0, 1, 2, 5], 2), none);
    }

    #[test]
    fn of_backups_without_a_name_only_those_with_the_same_tables_are_of_one_database() {
        let plain = [
            (20, "~1"),
            (30, "~2"),
            (40, "~1"),
            (50, "~"),
            (60, "~2"),
            (70, "~3"),
        ];
        assert_eq!(gone(&plain, &[0, 1, 2, 4, 5], 1), [2, 4]);
        let all = decided(&plain, &[0, 1, 2, 4, 5], 1);
        assert_eq!(all[3].why, UNNAMED);
        assert_eq!(gone(&plain, &[0, 1, 2, 4, 5], 2), [0; 0]);
    }

    /// When a whole backup without the rows was made, and proven.
    #[test]
    fn the_time_counts_from_the_first_proof_of_the_loss() {
        for (since, is_deleted) in [(34, false), (35, true)] {
            let all = decided_with(&[10, 60, 90], &[0, 1, 2], |i, c| {
                match i {
                    // Made long before it was verified.
                    1 => c.proven_since = Some(day(since)),
                    2 => c.sole_rows = Some(SoleRows::Gone("public.orders".into())),
                    _ => {}
                }
            });
            assert_eq!(all[2].0, is_deleted, "{since}: {all:?}");
        }
    }

    /// Decisions about backups of one database of these ages in days.
    fn decided_with(
        ages: &[i64],
        proven: &[usize],
        change: impl Fn(usize, &mut RetentionCandidate),
    ) -> Vec<(bool, String)> {
        let now = jiff::Timestamp::from_second(1_000 * DAY).unwrap();
        let candidate = |(i, age): (usize, &i64)| {
            let mut c = RetentionCandidate {
                object: made(i, *age),
                proven_since: proven.contains(&i).then(|| day(*age)),
                origin: Ok(BackupOrigin::Named("a".into())),
                unnamed: None,
                rows: KnownRows::Restored,
                is_bad: false,
                sole_rows: None,
            };
            change(i, &mut c);
            c
        };
        let all = ages.iter().enumerate().map(candidate).collect();
        let rules = RetentionRules { days: 7, floor: 0 };
        let decided = decide(all, now, rules).into_iter();
        decided.map(|d| (d.delete, d.why)).collect()
    }

    #[test]
    fn rows_that_newer_backups_lack_are_kept() {
        let gone = || SoleRows::Gone("public.log".into());
        let left_out = || SoleRows::LeftOut("public.log".into());
        let unlisted = || SoleRows::Unlisted;
        for (since, sole, is_deleted) in [
            (34, gone(), false),
            (35, gone(), true),
            (34, unlisted(), false),
            (35, unlisted(), true),
            (35, left_out(), false),
            (900, left_out(), false),
        ] {
            for is_bad in [false, true] {
                let all = decided_with(&[since, 940, 950], &[0, 1, 2], |i, c| {
                    if i == 1 {
                        c.sole_rows = Some(sole.clone());
                        c.is_bad = is_bad;
                        // Whatever it was last found to be.
                        c.proven_since = c.proven_since.filter(|_| !is_bad);
                    }
                });
                let gone: Vec<bool> = all.iter().map(|(gone, _)| *gone).collect();
                assert_eq!(gone, [false, is_deleted, true], "{since} {sole:?}");
                let why = all[1].1.as_str();
                let says_bad = why.contains("(its last verification found it bad)");
                assert!(is_deleted || (why.contains("rows") && says_bad == is_bad));
            }
        }
    }

    /// Their tables may be listed, or not be known.
    #[test]
    fn backups_that_nobody_restored_are_kept_for_a_time_for_rows_that_they_may_have() {
        let gone = || SoleRows::Gone("public.orders".into());
        let left_out = || SoleRows::LeftOut("public.orders".into());
        let unlisted = || KnownRows::Unlisted("it is SQL text".into());
        for (rows, sole, is_kept) in [
            (unlisted(), None, true),
            (KnownRows::Listed, None, false),
            (KnownRows::Listed, Some(gone()), true),
            (KnownRows::Listed, Some(left_out()), true),
            (KnownRows::Unreadable, Some(left_out()), false),
        ] {
            // The newest one is proven, and so is the oldest one; the limit counts from the proof.
            for (since, is_over) in [(34, false), (35, true)] {
                let all = decided_with(&[since, 90, 95], &[0, 2], |i, c| {
                    if i == 1 {
                        c.rows = rows.clone();
                        c.sole_rows = sole.clone();
                    }
                });
                let gone: Vec<bool> = all.iter().map(|(gone, _)| *gone).collect();
                let wanted = [false, !is_kept || is_over, true];
                assert_eq!(gone, wanted, "{rows:?} {sole:?} {since}");
                let why = all[1].1.as_str();
                assert_eq!(
                    why.contains("verify it; kept for 35 days"),
                    !gone[1],
                    "{why}"
                );
            }
            // Without a newer proof, nothing replaces it, and it replaces nothing.
            let all = decided_with(&[10, 11, 12], &[1], |i, c| {
                if i != 1 {
                    c.rows = rows.clone();
                    c.sole_rows = sole.clone();
                }
            });
            let gone: Vec<bool> = all.iter().map(|(gone, _)| *gone).collect();
            assert_eq!(gone, [false, false, !is_kept], "{rows:?} {sole:?}");
        }
    }

    /// A verified part with rows that the whole ones leave out, and one that was never proven. Its time begins with a whole one.
    #[test]
    fn a_part_that_alone_has_rows_stays() {
        let rules = RetentionRules { days: 7, floor: 0 };
        let left_out = || Some(SoleRows::LeftOut("public.orders".into()));
        let gone = || Some(SoleRows::Gone("public.orders".into()));
        let of = |age: i64, is_proven: bool, sole: Option<SoleRows>, is_part: bool| {
            let candidate = RetentionCandidate {
                object: made(usize::try_from(age).unwrap(), age),
                proven_since: is_proven.then(|| day(age)),
                origin: Ok(BackupOrigin::Named("a".into())),
                unnamed: None,
                rows: KnownRows::Restored,
                is_bad: false,
                sole_rows: sole,
            };
            (candidate, is_part.then_some(BackupContents::Partial))
        };
        for (since, deleted) in [(34, &[4, 5][..]), (35, &[3, 4, 5])] {
            let backups = vec![
                of(since, true, None, false),
                of(41, true, left_out(), true),
                of(42, false, left_out(), true),
                of(43, true, gone(), true),
                of(44, true, None, true),
                of(45, false, None, true),
            ];
            let all = decide_with_parts(backups, day(0), rules);
            let gone: Vec<usize> = (0..all.len()).filter(|i| all[*i].delete).collect();
            assert_eq!(gone, deleted, "{all:?}");
            let why = all[1].why.as_str();
            assert!(why.contains("rows of public.orders"), "{why}");
            assert!(why.ends_with("replaces no whole backup"), "{why}");
        }
    }

    /// Otherwise, the time would begin anew with a later proof. So it is if the older one is a part.
    #[test]
    fn the_backup_that_begins_the_time_stays_as_long() {
        let rules = RetentionRules { days: 7, floor: 0 };
        for part in [None, Some(BackupContents::Partial)] {
            for (since, deleted) in [(34, &[1, 2, 5][..]), (35, &[1, 2, 3, 4, 5])] {
                let of = |place: usize, age: i64| RetentionCandidate {
                    object: made(place, age),
                    proven_since: Some(day(age)),
                    origin: Ok(BackupOrigin::Named("a".into())),
                    unnamed: None,
                    rows: KnownRows::Restored,
                    is_bad: false,
                    sole_rows: None,
                };
                let older = RetentionCandidate {
                    proven_since: None,
                    sole_rows: Some(SoleRows::Gone("public.orders".into())),
                    ..of(4, 90)
                };
                // It was verified late.
                let first = RetentionCandidate {
                    proven_since: Some(day(since)),
                    ..of(3, 80)
                };
                let backups = vec![
                    (of(0, 1), None),
                    (of(1, 20), None),
                    (of(2, 21), None),
                    (first, None),
                    (older, part),
                    (of(5, 95), None),
                ];
                let all = decide_with_parts(backups, day(0), rules);
                let gone: Vec<usize> = (0..all.len()).filter(|i| all[*i].delete).collect();
                assert_eq!(gone, deleted, "{part:?} {since}: {all:?}");
                let why = all[3].why.as_str();
                let begins = "older ones are kept until 35 days after its proof";
                assert_eq!(why == begins, since == 34, "{why}");
            }
        }
    }

    /// Databases with most tables in common may be two.
    #[test]
    fn rows_of_a_backup_that_names_no_database_are_kept_without_a_limit() {
        for (unnamed, is_deleted) in [(None, true), (Some(UnnamedSeries::of_test(1)), false)] {
            let all = decided_with(&[35, 900], &[0, 1], |i, c| {
                if unnamed.is_some() {
                    c.origin = Ok(BackupOrigin::new(None, "backup-2026-11-01"));
                }
                c.unnamed = unnamed;
                c.sole_rows = (i == 1).then(|| SoleRows::Gone("public.log".into()));
            });
            assert_eq!(all[1].0, is_deleted, "{all:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_newest_proven_backups_and_the_floor_always_stay(
            mut backups in proptest::collection::vec((0i64..100, 0usize..6), 0..20),
            proven in proptest::collection::hash_set(0usize..20, 0..20),
            floor in 0usize..6,
        ) {
            backups.sort_unstable();
            let backups: Vec<(i64, &str)> = backups.into_iter().map(|(age, d)| (age, ["a", "b", "~1", "~2", "~", "-"][d])).collect();
            let mut proven: Vec<usize> = proven.into_iter().filter(|i| *i < backups.len()).collect();
            proven.sort_unstable();
            let gone: Vec<bool> = decided(&backups, &proven, floor).into_iter().map(|d| d.delete).collect();
            for database in ["a", "b", "~1", "~2"] {
                let of = |i: &&usize| backups[**i].1 == database;
                let newest = proven.iter().find(of);
                proptest::prop_assert!(newest.is_none_or(|n| !gone[*n]));
                let all: Vec<usize> = (0..backups.len()).filter(|i| of(&i)).collect();
                proptest::prop_assert!(newest.is_some() || all.iter().all(|i| !gone[*i]));
                proptest::prop_assert!(all.iter().take(floor).all(|i| !gone[*i]));
            }
            proptest::prop_assert!(gone.iter().filter(|g| !**g).count() >= floor.min(backups.len()));
            proptest::prop_assert!(gone.iter().zip(&backups).all(|(g, (age, d))| !*g || (*age >= 7 && *d != "-" && *d != "~")));
        }
    }
}

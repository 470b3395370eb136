//! Compares the backups of a set by their tables: whose rows no newer one has, and on which of them deletions depend. Pure.

use std::collections::{HashMap, HashSet};

use super::tables::{NewerTables, UnnamedDatabases};
use super::{Candidate, Decision, KnownRows, RetainedSeries};
use crate::proof::{BackupContents, BackupOrigin, ListedTables};
use crate::store::StoredObject;

/// What is known of the backups of a set so far, newest first.
#[derive(Debug, Default)]
pub struct RetainedSet {
    unnamed: UnnamedDatabases,
    of_series: HashMap<RetainedSeries, NewerProven>,
}

/// The proven backups of a series so far.
#[derive(Debug, Default)]
struct NewerProven {
    whole: NewerTables,
    /// Also parts.
    all: NewerTables,
    has_whole: bool,
    /// The newest whole one, and those that have rows which newer ones lack: because of them, older ones are deleted.
    relied_on: Vec<StoredObject>,
}

impl RetainedSet {
    /// Finds the database of the next backup by its tables, if it names none.
    pub fn find_series(&mut self, candidate: &mut Candidate, tables: Option<&ListedTables>) {
        if let (Ok(origin), Some(tables)) = (&candidate.origin, tables)
            && !matches!(origin, BackupOrigin::Named(_))
        {
            candidate.unnamed = Some(self.unnamed.series_of(origin, tables));
        }
    }

    /// Whether a newer proven backup of its database makes this one dispensable, if that has the same rows.
    pub fn replaces(&self, candidate: &Candidate) -> bool {
        let series = candidate.series().ok();
        let newer = series.and_then(|series| self.of_series.get(&series));
        newer.is_some_and(|newer| newer.has_whole)
    }

    /// Compares the next backup with the newer proven ones, by its tables; one that is known to be whole with whole ones alone,
    /// because no part replaces it.
    pub fn compare(
        &mut self,
        candidate: &mut Candidate,
        part: Option<BackupContents>,
        tables: Option<&ListedTables>,
        is_ignored: impl Fn(&str) -> bool,
    ) {
        let Ok(series) = candidate.series() else {
            return;
        };
        let newer = self.of_series.entry(series).or_default();
        let is_whole = part.is_none();
        if let Some(tables) = tables {
            let compared = if is_whole && candidate.rows == KnownRows::Restored {
                &newer.whole
            } else {
                &newer.all
            };
            candidate.sole_rows = compared.sole_rows(tables, is_ignored);
        }
        if !candidate.is_proven() {
            return;
        }
        let is_newest = is_whole && !newer.has_whole;
        if is_newest || candidate.sole_rows.is_some() {
            newer.relied_on.push(candidate.object.clone());
        }
        // One whose report lists no tables has none, and lacks those of older ones.
        let none = ListedTables::default();
        let tables = tables.unwrap_or(&none);
        newer.all.add(tables);
        if is_whole {
            newer.whole.add(tables);
            newer.has_whole = true;
        }
    }

    /// The proven backups on which the deletions in these series depend, unless they are deleted as well.
    pub fn relied_on_in<'a>(
        &'a self,
        series: &HashSet<&RetainedSeries>,
        decisions: &[Decision],
    ) -> Vec<&'a StoredObject> {
        let of = self
            .of_series
            .iter()
            .filter(|(known, _)| series.contains(known));
        let is_kept = |o: &&StoredObject| !decisions.iter().any(|d| d.delete && d.object == **o);
        let all = of.flat_map(|(_, proven)| &proven.relied_on);
        all.filter(is_kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RetentionRules, decide_with_parts};
    use super::*;
    use crate::job::Generation;

    const DAY: i64 = 86_400;
    /// Days for which rows are kept that may have been meant to go.
    const LIMIT: i64 = 35;
    /// The last one is in `drift.ignore`.
    const TABLES: [&str; 4] = ["orders", "users", "log", "tmp"];

    /// What a backup has of a table.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Has {
        Nothing,
        Definition,
        NoRows,
        Rows,
    }

    /// How a backup was verified.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Look {
        Proven,
        /// It was restored, and a check failed, or its last verification had no answer.
        Restored,
        /// It was restored, and found damaged later.
        FoundBad,
        /// Its table of contents was read.
        Listed,
    }

    #[derive(Debug, Clone)]
    struct Backup {
        age: i64,
        proven: i64,
        look: Look,
        is_part: bool,
        has: [Has; 4],
    }

    fn day(age: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second((1_000 - age) * DAY).unwrap()
    }

    impl Backup {
        /// Made so many days ago, verified so many days later.
        fn drawn((age, later, look, is_part, has): (i64, i64, usize, bool, [usize; 4])) -> Self {
            use Has::{Definition, NoRows, Nothing, Rows};
            use Look::{FoundBad, Listed, Proven, Restored};
            Backup {
                age,
                proven: (age - later).max(0),
                look: [Proven, Proven, Restored, FoundBad, Listed][look],
                is_part,
                has: has.map(|i| [Nothing, Definition, NoRows, Rows][i]),
            }
        }

        fn part(&self) -> Option<BackupContents> {
            (self.is_part && self.look != Look::Listed).then_some(BackupContents::Partial)
        }

        fn tables(&self) -> ListedTables {
            let mut tables = ListedTables::default();
            for (name, has) in TABLES.iter().zip(self.has) {
                let name = (*name).to_owned();
                match has {
                    Has::Nothing => {}
                    Has::Definition => {
                        tables.bare.insert(name);
                    }
                    Has::NoRows | Has::Rows => {
                        tables.filled.insert(name, has == Has::Rows);
                    }
                }
            }
            tables
        }

        fn candidate(&self, place: usize) -> Candidate {
            Candidate {
                object: StoredObject {
                    created: day(self.age),
                    generation: Generation(place as i64),
                    ..StoredObject::named(&format!("{place}.dump"))
                },
                proven_since: (self.look == Look::Proven).then(|| day(self.proven)),
                origin: Ok(BackupOrigin::Named("app".into())),
                unnamed: None,
                rows: match self.look {
                    Look::Listed => KnownRows::Listed,
                    _ => KnownRows::Restored,
                },
                is_bad: self.look == Look::FoundBad,
                sole_rows: None,
            }
        }

        /// Whether it can replace another one.
        fn replaces(&self, older: &Backup) -> bool {
            self.look == Look::Proven && (!self.is_part || older.part().is_some())
        }
    }

    fn decide_all(backups: &[Backup], floor: usize) -> (Vec<Decision>, RetainedSet) {
        let mut set = RetainedSet::default();
        let compared = |(place, backup): (usize, &Backup)| {
            let mut candidate = backup.candidate(place);
            let tables = backup.tables();
            set.compare(&mut candidate, backup.part(), Some(&tables), |name| {
                name == "tmp"
            });
            (candidate, backup.part())
        };
        let all = backups.iter().enumerate().map(compared).collect();
        let rules = RetentionRules { days: 7, floor };
        (decide_with_parts(all, day(0), rules), set)
    }

    /// The newer backups that can replace one.
    fn newer_than(backups: &[Backup], place: usize) -> impl Iterator<Item = usize> {
        (0..place).filter(move |n| backups[*n].replaces(&backups[place]))
    }

    /// Whether rows of a restored backup may be gone: the newest backup that has them, as far as one of its kind replaces it, was
    /// kept, or newer ones have the table empty, or none defines it and the time is over.
    fn may_lose(backups: &[Backup], decisions: &[Decision], place: usize, table: usize) -> bool {
        let has = |i: usize| backups[i].has[table];
        let holder = newer_than(backups, place).find(|i| has(*i) == Has::Rows);
        let holder = holder.unwrap_or(place);
        if !decisions[holder].delete {
            return true;
        }
        let newer: Vec<usize> = newer_than(backups, holder).collect();
        if newer.iter().any(|i| has(*i) == Has::NoRows) {
            return true;
        }
        let of_whole = (0..holder).filter(|i| backups[*i].look == Look::Proven);
        let of_whole = of_whole.filter(|i| !backups[*i].is_part);
        let first_proof = of_whole.map(|i| backups[i].proven).max();
        newer.iter().all(|i| has(*i) == Has::Nothing) && first_proof >= Some(LIMIT)
    }

    proptest::proptest! {
        #[test]
        fn no_rows_are_lost_unless_they_were_meant_to_go(
            drawn in proptest::collection::vec(
                (
                    0i64..120,
                    0i64..90,
                    0usize..5,
                    proptest::bool::weighted(0.3),
                    proptest::array::uniform4(0usize..4),
                ),
                0..12,
            ),
            floor in 0usize..3,
        ) {
            let mut backups: Vec<Backup> = drawn.into_iter().map(Backup::drawn).collect();
            backups.sort_by_key(|b| b.age);
            let (decisions, set) = decide_all(&backups, floor);
            for (place, backup) in backups.iter().enumerate() {
                let is_whole_proof = |b: &Backup| b.look == Look::Proven && !b.is_part;
                proptest::prop_assert!(!decisions[place].delete || backups[..place].iter().any(is_whole_proof));
                if !decisions[place].delete || backup.look == Look::Listed {
                    continue;
                }
                // All but the last table, which is ignored.
                for table in (0..3).filter(|t| backup.has[*t] == Has::Rows) {
                    proptest::prop_assert!(
                        may_lose(&backups, &decisions, place, table),
                        "{} of {place}: {backups:?} {decisions:?}",
                        TABLES[table]
                    );
                }
            }
            // What is read again before anything is deleted has all that is kept because of it.
            let series = backups.first().and_then(|b| b.candidate(0).series().ok());
            let series: HashSet<&RetainedSeries> = series.iter().collect();
            let relied_on = set.relied_on_in(&series, &decisions);
            let is_deleted = |b: &StoredObject| decisions.iter().any(|d| d.delete && d.object == *b);
            proptest::prop_assert!(relied_on.iter().all(|o| !is_deleted(o)));
            let newest = backups.iter().position(|b| b.look == Look::Proven && !b.is_part);
            let newest = newest.map(|place| backups[place].candidate(place).object);
            proptest::prop_assert!(newest.is_none_or(|o| relied_on.contains(&&o)));
        }
    }

    /// What the property seldom draws.
    #[test]
    fn a_whole_backup_is_replaced_by_proven_whole_ones_alone() {
        use Has::{Definition, NoRows, Nothing, Rows};
        let backup = |age: i64, look: Look, is_part: bool, orders: Has| Backup {
            age,
            proven: age,
            look,
            is_part,
            has: [orders, Rows, Nothing, Nothing],
        };
        for look in [Look::Proven, Look::Restored, Look::FoundBad] {
            for newest in [Definition, Nothing] {
                let between = [
                    backup(20, Look::Proven, true, Rows),
                    backup(21, Look::Restored, false, Rows),
                    backup(22, Look::Restored, false, NoRows),
                ];
                for between in between {
                    let all = [
                        backup(10, Look::Proven, false, newest),
                        between.clone(),
                        backup(30, look, false, Rows),
                    ];
                    let (decisions, _) = decide_all(&all, 0);
                    assert!(!decisions[2].delete, "{look:?} {newest:?} {between:?}");
                    let why = decisions[2].why.as_str();
                    assert!(why.contains("rows of orders"), "{why}");
                }
            }
            // A proven one in which the table is empty says that its rows were deleted before.
            let emptied = [
                backup(10, Look::Proven, false, NoRows),
                backup(30, look, false, Rows),
            ];
            assert!(decide_all(&emptied, 0).0[1].delete, "{look:?}");
        }
    }
}

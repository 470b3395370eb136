//! Compares the backups of a set by their tables: whose rows no newer one has, and on which of them deletions depend. Pure.

use std::collections::{HashMap, HashSet};

use super::tables::{NewerTables, UnnamedDatabases};
use super::{Decision, KnownRows, RetainedSeries, RetentionCandidate};
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
    pub fn find_series(
        &mut self,
        candidate: &mut RetentionCandidate,
        tables: Option<&ListedTables>,
    ) {
        if let (Ok(origin), Some(tables)) = (&candidate.origin, tables)
            && !matches!(origin, BackupOrigin::Named(_))
        {
            candidate.unnamed = Some(self.unnamed.series_of(origin, tables));
        }
    }

    /// Whether a newer proven backup of its database makes this one dispensable, if that has the same rows.
    pub fn replaces(&self, candidate: &RetentionCandidate) -> bool {
        let series = candidate.series().ok();
        let newer = series.and_then(|series| self.of_series.get(&series));
        newer.is_some_and(|newer| newer.has_whole)
    }

    /// Compares the next backup with the newer proven ones, by its tables; one that is known to be whole with whole ones alone,
    /// because no part replaces it.
    pub fn compare(
        &mut self,
        candidate: &mut RetentionCandidate,
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
    use std::ops::Range;

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
    enum VerificationState {
        Proven,
        /// It was restored, and a check failed, or its last verification had no answer.
        Restored,
        /// It was restored, and found damaged later.
        FoundBad,
        /// Its table of contents was read.
        Listed,
        /// Nor could that be read.
        Unlisted,
    }

    #[derive(Debug, Clone)]
    struct GeneratedBackup {
        age: i64,
        proven: i64,
        state: VerificationState,
        is_part: bool,
        has: [Has; 4],
        /// Only the first of its tables are listed.
        is_cut: bool,
        /// The numbers of its partitions.
        partitions: Range<usize>,
        large_objects: u64,
    }

    /// Days since it was made, days from then to its proof, what is known of it, whether it is a part, and its tables.
    type Drawn = (i64, i64, usize, bool, [usize; 4]);
    /// Whether its list is cut, its first partition and how many it has, and its large objects.
    type DrawnMore = (bool, usize, usize, u64);

    fn day(age: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second((1_000 - age) * DAY).unwrap()
    }

    impl GeneratedBackup {
        fn drawn(((age, later, state, is_part, has), more): (Drawn, DrawnMore)) -> Self {
            use Has::{Definition, NoRows, Nothing, Rows};
            use VerificationState::{FoundBad, Listed, Proven, Restored, Unlisted};
            let (is_cut, first, count, large_objects) = more;
            GeneratedBackup {
                proven: (age - later).max(0),
                is_part,
                is_cut,
                partitions: first..first + count,
                large_objects,
                ..GeneratedBackup::of(
                    age,
                    [Proven, Proven, Proven, Restored, FoundBad, Listed, Unlisted][state],
                    has.map(|i| [Nothing, Definition, NoRows, Rows][i]),
                )
            }
        }

        /// Proven on the same day, if it is.
        fn of(age: i64, state: VerificationState, has: [Has; 4]) -> Self {
            GeneratedBackup {
                age,
                proven: age,
                state,
                is_part: false,
                has,
                is_cut: false,
                partitions: 0..0,
                large_objects: 0,
            }
        }

        fn is_restored(&self) -> bool {
            !matches!(
                self.state,
                VerificationState::Listed | VerificationState::Unlisted
            )
        }

        fn is_whole_proof(&self) -> bool {
            self.state == VerificationState::Proven && !self.is_part
        }

        fn part(&self) -> Option<BackupContents> {
            (self.is_part && self.is_restored()).then_some(BackupContents::Partial)
        }

        /// Whether the list lacks a table with data.
        fn hides(&self, table: usize) -> bool {
            self.is_cut && table > 0
        }

        fn tables(&self) -> ListedTables {
            let mut tables = ListedTables {
                large_objects: self.large_objects,
                is_cut: self.is_cut,
                ..ListedTables::default()
            };
            if !self.is_cut {
                let names = self.partitions.clone().map(|n| format!("ev_{n}"));
                tables.filled.extend(names.map(|name| (name, true)));
            }
            for (table, has) in self.has.into_iter().enumerate() {
                let name = TABLES[table].to_owned();
                match has {
                    Has::Nothing => {}
                    Has::NoRows | Has::Rows if self.hides(table) => {}
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

        fn candidate(&self, place: usize) -> RetentionCandidate {
            RetentionCandidate {
                object: StoredObject {
                    created: day(self.age),
                    generation: Generation(place as i64),
                    ..StoredObject::named(&format!("{place}.dump"))
                },
                proven_since: (self.state == VerificationState::Proven).then(|| day(self.proven)),
                origin: Ok(BackupOrigin::Named("app".into())),
                unnamed: None,
                rows: match self.state {
                    VerificationState::Listed => KnownRows::Listed,
                    VerificationState::Unlisted => KnownRows::Unlisted("it is SQL text".into()),
                    _ => KnownRows::Restored,
                },
                is_bad: self.state == VerificationState::FoundBad,
                sole_rows: None,
            }
        }

        /// Whether it can replace another one.
        fn replaces(&self, older: &GeneratedBackup) -> bool {
            let is_comparable = !self.is_part || older.part().is_some() || !older.is_restored();
            self.state == VerificationState::Proven && is_comparable
        }

        /// Whether it has all that an older one has, and lists it.
        fn covers(&self, older: &GeneratedBackup) -> bool {
            let has_table = |t: usize| {
                older.has[t] != Has::Rows || matches!(self.has[t], Has::NoRows | Has::Rows)
            };
            let mut partitions = older.partitions.clone();
            !self.is_cut
                && (0..3).all(has_table)
                && partitions.all(|n| self.partitions.contains(&n))
                && self.large_objects * 2 >= older.large_objects
        }
    }

    /// What is decided, and which backups have rows alone.
    fn decide_all(
        backups: &[GeneratedBackup],
        floor: usize,
    ) -> (Vec<Decision>, Vec<bool>, RetainedSet) {
        let mut set = RetainedSet::default();
        let compared = |(place, backup): (usize, &GeneratedBackup)| {
            let mut candidate = backup.candidate(place);
            let tables = (backup.state != VerificationState::Unlisted).then(|| backup.tables());
            set.compare(&mut candidate, backup.part(), tables.as_ref(), |name| {
                name == "tmp"
            });
            (candidate, backup.part())
        };
        let all: Vec<_> = backups.iter().enumerate().map(compared).collect();
        let have_sole_rows = all.iter().map(|(c, _)| c.sole_rows.is_some());
        let have_sole_rows: Vec<bool> = have_sole_rows.collect();
        let rules = RetentionRules { days: 7, floor };
        (decide_with_parts(all, day(0), rules), have_sole_rows, set)
    }

    /// The newer backups that can replace one.
    fn newer_than(backups: &[GeneratedBackup], place: usize) -> impl Iterator<Item = usize> {
        (0..place).filter(move |n| backups[*n].replaces(&backups[place]))
    }

    /// Whether the time is over for which rows are kept that newer backups lack.
    fn is_over(backups: &[GeneratedBackup], place: usize) -> bool {
        let whole = backups[..place].iter().filter(|b| b.is_whole_proof());
        whole.map(|b| b.proven).max() >= Some(LIMIT)
    }

    /// Whether rows of a table may be gone: the newest backup that has them, as far as one of its kind replaces it, was kept, or
    /// newer ones have the table empty, or the time is over and none defines it, or nobody knew that they were there.
    fn may_lose(
        backups: &[GeneratedBackup],
        decisions: &[Decision],
        place: usize,
        table: usize,
    ) -> bool {
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
        let is_unknown = !backups[holder].is_restored() || backups[holder].hides(table);
        let is_limited = is_unknown || newer.iter().all(|i| has(*i) == Has::Nothing);
        is_limited && is_over(backups, holder)
    }

    /// Whether a partition may be gone: the newest backup that has it was kept, or there are as many with higher numbers, or the
    /// time is over.
    fn may_lose_partition(
        backups: &[GeneratedBackup],
        decisions: &[Decision],
        (place, number): (usize, usize),
    ) -> bool {
        let has = |i: &usize| backups[*i].partitions.contains(&number);
        let holder = newer_than(backups, place).find(has).unwrap_or(place);
        let newer = newer_than(backups, holder).map(|i| &backups[i].partitions);
        let newer: Vec<&Range<usize>> = newer.filter(|p| !p.is_empty()).collect();
        let most = newer.iter().map(|p| p.len()).max().unwrap_or_default();
        let is_rotated = most > 1
            && most >= backups[holder].partitions.len()
            && newer.iter().all(|p| number < p.start);
        !decisions[holder].delete || is_rotated || is_over(backups, holder)
    }

    fn may_lose_large_objects(backups: &[GeneratedBackup], place: usize) -> bool {
        let newer = newer_than(backups, place).map(|i| backups[i].large_objects);
        let most = newer.max().unwrap_or_default();
        backups[place].large_objects <= most * 2 || is_over(backups, place)
    }

    /// Whether a backup has to go: a newer whole one has all that it has, and it is neither young nor among the newest.
    fn has_to_go(backups: &[GeneratedBackup], floor: usize, place: usize) -> bool {
        let (backup, newer) = (&backups[place], &backups[..place]);
        let is_counted = |b: &&GeneratedBackup| b.part().is_none() || backup.part().is_some();
        let is_known = !backup.is_cut && backup.state != VerificationState::Unlisted;
        backup.age >= 7
            && newer.iter().filter(is_counted).count() >= floor
            && is_known
            && newer.iter().any(|b| b.is_whole_proof() && b.covers(backup))
    }

    proptest::proptest! {
        #[test]
        fn no_rows_are_lost_unless_they_were_meant_to_go(
            drawn in proptest::collection::vec(
                (
                    (
                        0i64..120,
                        0i64..90,
                        0usize..7,
                        proptest::bool::weighted(0.3),
                        proptest::array::uniform4(0usize..4),
                    ),
                    (proptest::bool::weighted(0.2), 0usize..4, 0usize..4, 0u64..6),
                ),
                0..12,
            ),
            floor in 0usize..3,
        ) {
            let mut backups: Vec<GeneratedBackup> = drawn.into_iter().map(GeneratedBackup::drawn).collect();
            backups.sort_by_key(|b| b.age);
            let (decisions, have_sole_rows, set) = decide_all(&backups, floor);
            for (place, backup) in backups.iter().enumerate() {
                let decision = &decisions[place];
                if !decision.delete {
                    let begins_time = decision.why.contains("after its proof");
                    proptest::prop_assert!(
                        begins_time || !has_to_go(&backups, floor, place),
                        "{place} is kept: {backups:?} {decisions:?}"
                    );
                    // It is the proof of a whole one that begins it, and an older one is kept for that time.
                    let mut older = decisions[place + 1..].iter();
                    let is_needed = older.any(|d| d.why.contains("kept for 35 days"));
                    proptest::prop_assert!(!begins_time || (is_needed && backup.is_whole_proof()));
                    continue;
                }
                proptest::prop_assert!(backups[..place].iter().any(GeneratedBackup::is_whole_proof));
                proptest::prop_assert!(backup.state != VerificationState::Unlisted || is_over(&backups, place));
                // All but the last table, which is ignored.
                for table in (0..3).filter(|t| backup.has[*t] == Has::Rows) {
                    proptest::prop_assert!(
                        may_lose(&backups, &decisions, place, table),
                        "{} of {place}: {backups:?} {decisions:?}",
                        TABLES[table]
                    );
                }
                for number in backup.partitions.clone() {
                    proptest::prop_assert!(
                        may_lose_partition(&backups, &decisions, (place, number)),
                        "partition {number} of {place}: {backups:?} {decisions:?}"
                    );
                }
                proptest::prop_assert!(
                    may_lose_large_objects(&backups, place),
                    "large objects of {place}: {backups:?} {decisions:?}"
                );
            }
            // What is read again before anything is deleted has all that is kept because of it.
            let series = backups.first().and_then(|b| b.candidate(0).series().ok());
            let series: HashSet<&RetainedSeries> = series.iter().collect();
            let relied_on = set.relied_on_in(&series, &decisions);
            let newest = backups.iter().position(GeneratedBackup::is_whole_proof);
            for (place, backup) in backups.iter().enumerate() {
                let has_sole_rows = backup.state == VerificationState::Proven && have_sole_rows[place];
                let is_wanted = Some(place) == newest || has_sole_rows;
                let wanted = is_wanted && !decisions[place].delete;
                let object = backup.candidate(place).object;
                proptest::prop_assert_eq!(relied_on.contains(&&object), wanted, "{}", place);
            }
        }
    }

    /// What the property seldom draws.
    #[test]
    fn a_whole_backup_is_replaced_by_proven_whole_ones_alone() {
        use Has::{Definition, NoRows, Nothing, Rows};
        let backup =
            |age: i64, state: VerificationState, is_part: bool, orders: Has| GeneratedBackup {
                is_part,
                ..GeneratedBackup::of(age, state, [orders, Rows, Nothing, Nothing])
            };
        for state in [
            VerificationState::Proven,
            VerificationState::Restored,
            VerificationState::FoundBad,
        ] {
            for newest in [Definition, Nothing] {
                let between = [
                    backup(20, VerificationState::Proven, true, Rows),
                    backup(21, VerificationState::Restored, false, Rows),
                    backup(22, VerificationState::Restored, false, NoRows),
                ];
                for between in between {
                    let all = [
                        backup(10, VerificationState::Proven, false, newest),
                        between.clone(),
                        backup(30, state, false, Rows),
                    ];
                    let (decisions, ..) = decide_all(&all, 0);
                    assert!(!decisions[2].delete, "{state:?} {newest:?} {between:?}");
                    let why = decisions[2].why.as_str();
                    assert!(why.contains("rows of orders"), "{why}");
                }
            }
            // A proven one in which the table is empty says that its rows were deleted before.
            let emptied = [
                backup(10, VerificationState::Proven, false, NoRows),
                backup(30, state, false, Rows),
            ];
            assert!(decide_all(&emptied, 0).0[1].delete, "{state:?}");
        }
    }

    /// The nights whose backups are there on each day, if one is made in each of 200 nights, with these tables, and what may go
    /// is deleted every day.
    fn kept_on_each_day(made: impl Fn(i64) -> (VerificationState, [Has; 4])) -> Vec<Vec<i64>> {
        let mut kept: Vec<i64> = Vec::new();
        let days = (0..=200).map(|day| {
            kept.insert(0, day);
            let backup = |night: &i64| {
                let (state, has) = made(*night);
                GeneratedBackup::of(day - night, state, has)
            };
            let backups: Vec<GeneratedBackup> = kept.iter().map(backup).collect();
            let (decisions, ..) = decide_all(&backups, 3);
            let left = kept.iter().zip(&decisions).filter(|(_, d)| !d.delete);
            kept = left.map(|(night, _)| *night).collect();
            kept.clone()
        });
        days.collect()
    }

    /// Their time begins with the next proof, and not with that of a later backup again and again.
    #[test]
    fn backups_that_nobody_restored_do_not_pile_up() {
        use Has::{Nothing, Rows};
        let proven = [Nothing, Rows, Nothing, Nothing];
        let with_orders = [Rows, Rows, Nothing, Nothing];
        for (state, has) in [
            (VerificationState::Unlisted, proven),
            (VerificationState::Listed, with_orders),
            (VerificationState::Restored, with_orders),
        ] {
            // One in seven is proven.
            let days = kept_on_each_day(|night| {
                if night % 7 == 0 {
                    (VerificationState::Proven, proven)
                } else {
                    (state, has)
                }
            });
            for (day, kept) in (0..).zip(&days) {
                assert!(kept.len() <= 42, "{state:?} {day}: {kept:?}");
                for night in (0..=day).filter(|night| night % 7 != 0) {
                    let next_proof = night + 7 - night % 7;
                    let wanted = day < next_proof + LIMIT;
                    assert_eq!(kept.contains(&night), wanted, "{state:?} {day}: {night}");
                }
            }
        }
    }

    #[test]
    fn the_last_backup_of_a_dropped_table_goes_when_the_time_is_over() {
        use Has::{Nothing, Rows};
        let days = kept_on_each_day(|night| {
            let orders = if night < 20 { Rows } else { Nothing };
            (VerificationState::Proven, [orders, Rows, Nothing, Nothing])
        });
        for (day, kept) in (0..).zip(&days) {
            // The first one without the table begins the time.
            for last in [19, 20] {
                let wanted = (last..20 + LIMIT).contains(&day);
                assert_eq!(kept.contains(&last), wanted, "{day}: {kept:?}");
            }
            assert!(kept.len() <= 9, "{day}: {kept:?}");
        }
        assert_eq!(days[200], [200, 199, 198, 197, 196, 195, 194]);
    }
}

//! Decides which backups may be deleted. Pure. Never deleted are the newest proven backup of each database
//! of a set, any backup of a database without a proven one, the newest `floor` backups of each database, and
//! backups whose database cannot be determined. The latter also cause no other backup to be deleted.

use std::collections::{HashMap, HashSet};

mod parts;

use crate::proof::BackupOrigin;
use crate::store::StoredObject;

/// Why a backup is kept whose archive names no database, if its tables are not known either.
const UNNAMED: &str = "it names no database, as pg_dump -C would, and no verification has listed its tables: it may be of any database";

/// Why everything is kept that is not young.
const NONE_PROVEN: &str = "no backup of the set is proven: nothing is deleted";

pub use parts::decide_with_parts;

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
pub struct Candidate {
    pub object: StoredObject,
    /// A restore has proven it, and no later verification has found a fault.
    pub proven: bool,
    /// The database that it is of, or why that is not known. Determined only if it may matter.
    pub origin: Result<BackupOrigin, String>,
    /// A digest of the names of its tables, if a verification has listed them.
    pub tables: Option<u64>,
}

/// A database, as certainly as a deletion requires. Backups that name none are of the same one only if their objects
/// are called alike and have the same tables.
#[derive(Debug, PartialEq, Eq, Hash)]
struct RetainedSeries {
    origin: BackupOrigin,
    /// Of backups that name no database.
    tables: Option<u64>,
}

/// What is newer than a backup in its series.
#[derive(Debug, Default)]
struct NewerInSeries {
    backups: usize,
    is_proven: bool,
}

impl Candidate {
    /// The database that it is of, or why that is not known.
    fn series(&self) -> Result<RetainedSeries, String> {
        let origin = self.origin.clone()?;
        match (&origin, self.tables) {
            (BackupOrigin::Named(_), _) => Ok(RetainedSeries {
                origin,
                tables: None,
            }),
            (_, Some(_)) => Ok(RetainedSeries {
                origin,
                tables: self.tables,
            }),
            (_, None) => Err(UNNAMED.to_owned()),
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
    backups: Vec<Candidate>,
    now: jiff::Timestamp,
    rules: RetentionRules,
) -> Vec<Decision> {
    let series: Vec<Result<RetainedSeries, String>> =
        backups.iter().map(Candidate::series).collect();
    let any_proven = backups.iter().any(|c| c.proven);
    let proven = backups.iter().zip(&series).filter(|(c, _)| c.proven);
    let all_proven: HashSet<&RetainedSeries> =
        proven.filter_map(|(_, s)| s.as_ref().ok()).collect();
    let mut newer: HashMap<&RetainedSeries, NewerInSeries> = HashMap::new();
    let mut decisions = Vec::with_capacity(backups.len());
    for (c, series) in backups.into_iter().zip(&series) {
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
                let decided = match young.or(rules.keeps_few(newer.backups)) {
                    Some(why) => (false, why),
                    None if !any_proven => keep(NONE_PROVEN),
                    None if newer.is_proven => (true, rules.expired(c.proven)),
                    None => keep(match (c.proven, all_proven.contains(series)) {
                        (true, _) => "the newest proven backup of its database",
                        (false, true) => "newer than the newest proven backup of its database",
                        (false, false) => "no backup of its database is proven",
                    }),
                };
                newer.backups += 1;
                newer.is_proven |= c.proven;
                decided
            }
        };
        decisions.push(Decision {
            object: c.object,
            proven: c.proven,
            delete,
            why,
        });
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Generation;

    const DAY: i64 = 86_400;

    /// Decisions about backups of these ages in days and databases; `-` is an unknown database, and `~1` are the tables
    /// of a backup that names none, `~` of one that no verification has listed.
    fn decided(backups: &[(i64, &str)], proven: &[usize], floor: usize) -> Vec<Decision> {
        let now = jiff::Timestamp::from_second(1_000 * DAY).unwrap();
        let candidate = |(i, (age, database)): (usize, &(i64, &str))| Candidate {
            object: StoredObject {
                created: jiff::Timestamp::from_second((1_000 - age) * DAY).unwrap(),
                generation: Generation(i as i64),
                ..StoredObject::named(&format!("b{i}"))
            },
            proven: proven.contains(&i),
            origin: match *database {
                "-" => Err("cannot be read".into()),
                name if name.starts_with('~') => Ok(BackupOrigin::new(None, "backup-2026-11-01")),
                name => Ok(BackupOrigin::new(
                    Some(name.to_owned()),
                    "backup-2026-11-01",
                )),
            },
            tables: database.strip_prefix('~').and_then(|n| n.parse().ok()),
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

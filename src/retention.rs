//! Decides which backups may be deleted. Pure. Never deleted are the newest proven backup of each database
//! of a set, any backup of a database without a proven one, the newest `floor` backups of each database, and
//! backups whose database cannot be determined.

mod parts;

use crate::proof::BackupOrigin;
use crate::store::StoredObject;

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
    let proven = backups.iter().filter(|c| c.proven);
    let all_proven: Vec<BackupOrigin> = proven.filter_map(|c| c.origin.clone().ok()).collect();
    let any_proven = backups.iter().any(|c| c.proven);
    // Databases with a proven backup that is newer than the current one.
    let mut newer: Vec<BackupOrigin> = Vec::new();
    let mut decisions = Vec::with_capacity(backups.len());
    // The databases of those that are kept as some of the newest.
    let mut newest: Vec<BackupOrigin> = Vec::new();
    for c in backups {
        let before = |o: &BackupOrigin| newest.iter().filter(|n| n.is_same(o)).count();
        let few = c
            .origin
            .as_ref()
            .ok()
            .and_then(|o| rules.keeps_few(before(o)));
        let is_few = few.is_some();
        let has = |known: &[BackupOrigin], o: &BackupOrigin| known.iter().any(|n| n.is_same(o));
        let keep = |why: &str| (false, why.to_owned());
        let (delete, why) = match (rules.keeps_young(&c.object, now).or(few), &c.origin) {
            (Some(why), _) => (false, why),
            (None, _) if !any_proven => keep("no backup of the set is proven: nothing is deleted"),
            (None, Err(why)) => keep(why),
            (None, Ok(o)) if !has(&newer, o) => keep(match (c.proven, has(&all_proven, o)) {
                (true, _) => "the newest proven backup of its database",
                (false, true) => "newer than the newest proven backup of its database",
                (false, false) => "no backup of its database is proven",
            }),
            _ if c.proven => (true, format!("older than {}", days(rules.days))),
            _ => (
                true,
                format!("older than {}, and never proven", days(rules.days)),
            ),
        };
        if let (true, Ok(o)) = (c.proven, &c.origin)
            && !newer.contains(o)
        {
            newer.push(o.clone());
        }
        newest.extend(c.origin.ok().filter(|_| is_few));
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

    /// Decisions about backups of these ages in days and databases; `-` is an unknown database.
    fn decided(backups: &[(i64, &str)], proven: &[usize], floor: usize) -> Vec<Decision> {
        let now = jiff::Timestamp::from_second(1_000 * DAY).unwrap();
        let candidate = |(i, (age, database)): (usize, &(i64, &str))| Candidate {
            object: StoredObject {
                name: format!("b{i}"),
                size: 1,
                created: jiff::Timestamp::from_second((1_000 - age) * DAY).unwrap(),
                crc32c: None,
                generation: Generation(i as i64),
                is_unlisted: false,
            },
            proven: proven.contains(&i),
            origin: match *database {
                "-" => Err("cannot be read".into()),
                name => Ok(BackupOrigin::new(Some(name.to_owned()), &format!("b{i}"))),
            },
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

    proptest::proptest! {
        #[test]
        fn the_newest_proven_backups_and_the_floor_always_stay(
            mut backups in proptest::collection::vec((0i64..100, 0usize..3), 0..20),
            proven in proptest::collection::hash_set(0usize..20, 0..20),
            floor in 0usize..6,
        ) {
            backups.sort_unstable();
            let backups: Vec<(i64, &str)> = backups.into_iter().map(|(age, d)| (age, ["a", "b", "-"][d])).collect();
            let mut proven: Vec<usize> = proven.into_iter().filter(|i| *i < backups.len()).collect();
            proven.sort_unstable();
            let gone: Vec<bool> = decided(&backups, &proven, floor).into_iter().map(|d| d.delete).collect();
            for database in ["a", "b"] {
                let of = |i: &&usize| backups[**i].1 == database;
                let newest = proven.iter().find(of);
                proptest::prop_assert!(newest.is_none_or(|n| !gone[*n]));
                let all: Vec<usize> = (0..backups.len()).filter(|i| of(&i)).collect();
                proptest::prop_assert!(newest.is_some() || all.iter().all(|i| !gone[*i]));
                proptest::prop_assert!(all.iter().take(floor).all(|i| !gone[*i]));
            }
            proptest::prop_assert!(gone.iter().filter(|g| !**g).count() >= floor.min(backups.len()));
            proptest::prop_assert!(gone.iter().zip(&backups).all(|(g, (age, d))| !*g || (*age >= 7 && *d != "-")));
        }
    }
}

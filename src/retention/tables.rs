//! What tables say about retention: which backups that name no database are of the same one, and whose rows no newer backup
//! has. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::proof::{BackupOrigin, ListedTables};

/// Number of the database that a backup is of which names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnnamedSeries(usize);

#[cfg(test)]
impl UnnamedSeries {
    pub(crate) fn of_test(number: usize) -> Self {
        UnnamedSeries(number)
    }
}

/// The databases of backups that name none, each with the tables of the oldest of its backups so far.
#[derive(Debug, Default)]
pub struct UnnamedDatabases(Vec<(BackupOrigin, BTreeSet<String>)>);

impl UnnamedDatabases {
    /// The database of the next backup, given newest first: the first one whose objects are called alike and whose last
    /// backup has more than half of its tables in common with this one, of whichever has more. Tables are created and
    /// dropped from one backup to the next, but seldom most of them.
    pub fn series_of(&mut self, origin: &BackupOrigin, tables: &ListedTables) -> UnnamedSeries {
        let names: BTreeSet<String> = tables.names().cloned().collect();
        let is_it = |(other, known): &(BackupOrigin, BTreeSet<String>)| {
            let (fewer, more) = if known.len() < names.len() {
                (known, &names)
            } else {
                (&names, known)
            };
            let common = fewer.iter().filter(|name| more.contains(*name)).count();
            other == origin && common * 2 > more.len()
        };
        let place = self.0.iter().position(is_it).unwrap_or(self.0.len());
        match self.0.get_mut(place) {
            Some((_, known)) => *known = names,
            None => self.0.push((origin.clone(), names)),
        }
        UnnamedSeries(place)
    }
}

/// Rows that a backup has and no newer one of its database with which it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoleRows {
    /// What has them, in words.
    pub of: String,
    /// A newer one defines the table without data: it was left out. Otherwise it may have been dropped.
    pub is_left_out: bool,
}

/// What the backups of a database hold that are newer than one: the proven ones or, for a backup that is not proven, all that
/// were restored.
#[derive(Debug, Default)]
pub struct NewerTables {
    is_any: bool,
    filled: HashSet<String>,
    bare: HashSet<String>,
    /// Of tables whose names differ in their last numbers only, by the names without those.
    alike: HashMap<String, AlikeTables>,
    /// Most of one backup.
    large_objects: u64,
}

/// Tables with data whose names differ in their last numbers only, such as partitions.
#[derive(Debug)]
struct AlikeTables {
    /// How many there are, at most, in one backup.
    most: usize,
    /// The lowest number of any.
    lowest: Number,
}

/// A number in a name, however long: its length without zeros before it, and its digits.
type Number = (usize, String);

/// A name that has a number.
struct Numbered {
    /// The name without its last number or date.
    pattern: String,
    /// That number, to compare it by its value.
    number: Number,
    is_date: bool,
}

impl NewerTables {
    /// The rows that an older backup has alone. Of partitions that come and go, it is enough that there are as many, if those
    /// that went have the lowest numbers; a single one needs a date, because a single number may be anything's. Of large
    /// objects, half is enough.
    pub fn sole_rows(
        &self,
        older: &ListedTables,
        is_ignored: impl Fn(&str) -> bool,
    ) -> Option<SoleRows> {
        if !self.is_any {
            return None;
        }
        let with_rows = older.filled.iter().filter(|(_, has_rows)| **has_rows);
        let sole = with_rows.map(|(name, _)| name.as_str());
        let sole = sole.filter(|name| !self.filled.contains(*name) && !is_ignored(name));
        let (left_out, gone): (Vec<&str>, Vec<&str>) =
            sole.partition(|name| self.bare.contains(*name));
        if let Some(of) = named(&left_out) {
            return Some(SoleRows {
                of,
                is_left_out: true,
            });
        }
        let alike = alike(older);
        let is_rotated = |name: &&str| {
            let Some(it) = numbered(name) else {
                return false;
            };
            let (newer, count) = (self.alike.get(&it.pattern), alike.get(&it.pattern));
            newer.is_some_and(|newer| {
                let are_partitions = it.is_date || newer.most > 1;
                are_partitions && it.number < newer.lowest && Some(&newer.most) >= count
            })
        };
        let gone: Vec<&str> = gone.into_iter().filter(|name| !is_rotated(name)).collect();
        let lacks_objects = older.large_objects > self.large_objects.saturating_mul(2);
        let objects = if self.large_objects == 0 {
            "large objects"
        } else {
            "most of its large objects"
        };
        let of = named(&gone).or(lacks_objects.then(|| objects.to_owned()))?;
        Some(SoleRows {
            of,
            is_left_out: false,
        })
    }

    /// Adds the next older backup.
    pub fn add(&mut self, tables: &ListedTables) {
        self.is_any = true;
        self.filled.extend(tables.filled.keys().cloned());
        self.bare.extend(tables.bare.iter().cloned());
        self.large_objects = self.large_objects.max(tables.large_objects);
        let counts = alike(tables);
        for Numbered {
            pattern, number, ..
        } in tables.filled.keys().filter_map(|name| numbered(name))
        {
            let most = counts.get(&pattern).copied().unwrap_or_default();
            let first = || AlikeTables {
                most,
                lowest: number.clone(),
            };
            let known = self.alike.entry(pattern).or_insert_with(first);
            known.most = most.max(known.most);
            if number < known.lowest {
                known.lowest = number;
            }
        }
    }
}

/// How many tables with data have names that differ in their last numbers only, by the name without those.
fn alike(tables: &ListedTables) -> HashMap<String, usize> {
    let mut alike = HashMap::new();
    for name in tables.filled.keys().filter_map(|name| numbered(name)) {
        *alike.entry(name.pattern).or_default() += 1;
    }
    alike
}

/// Splits the date or number off a name that ends its numbers: `_hyper_2_11_chunk` is `_hyper_2_\0_chunk` and 11,
/// `log_2026_11_08` is `log_\0` and 20261108.
fn numbered(name: &str) -> Option<Numbered> {
    let is_digit = |c: char| c.is_ascii_digit();
    let end = name.rfind(is_digit)? + 1;
    let last = name[..end].trim_end_matches(is_digit).len();
    // A year before it makes it a date.
    let rest = name[..end].trim_end_matches(|c| is_digit(c) || c == '_' || c == '-');
    let run = name[rest.len()..end].trim_start_matches(['_', '-']);
    let year = run.split(['_', '-']).next().unwrap_or_default();
    let has_century = |number: &str| number.starts_with("19") || number.starts_with("20");
    let is_written_apart = year.len() == 4 && has_century(year);
    let begin = if is_written_apart {
        end - run.len()
    } else {
        last
    };
    // 202611 or 20261108.
    let digits = &name[last..end];
    let is_month = digits.get(4..6).is_some_and(|m| ("01"..="12").contains(&m));
    let is_date =
        is_written_apart || (matches!(digits.len(), 6 | 8) && has_century(digits) && is_month);
    let number: String = name[begin..end].chars().filter(|c| is_digit(*c)).collect();
    let number = number.trim_start_matches('0').to_owned();
    let pattern = format!("{}\0{}", &name[..begin], &name[end..]);
    Some(Numbered {
        pattern,
        number: (number.len(), number),
        is_date,
    })
}

/// The first name, and how many more there are.
fn named(tables: &[&str]) -> Option<String> {
    let (first, others) = tables.split_first()?;
    Some(match others.len() {
        0 => (*first).to_owned(),
        1 => format!("{first} and another table"),
        n => format!("{first} and {n} other tables"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables with rows, and some without data.
    fn tables(filled: &[&str], bare: &[&str]) -> ListedTables {
        ListedTables {
            filled: filled.iter().map(|n| ((*n).to_owned(), true)).collect(),
            bare: bare.iter().map(|n| (*n).to_owned()).collect(),
            large_objects: 0,
        }
    }

    #[test]
    fn backups_without_a_name_are_of_one_database_if_they_have_most_tables_in_common() {
        let mut all = UnnamedDatabases::default();
        let alike = BackupOrigin::new(None, "backup-2026-11-01");
        let mut series = |names: &[&str]| all.series_of(&alike, &tables(names, &[])).0;
        assert_eq!(series(&["orders_s1"]), 0);
        assert_eq!(
            series(&["orders_s2"]),
            1,
            "another database of the same kind"
        );
        // Partitions come and go, one at a time.
        assert_eq!(series(&["u", "log_11", "log_12", "log_13"]), 2);
        assert_eq!(series(&["u", "log_10", "log_11", "log_12"]), 2);
        assert_eq!(series(&["u", "log_09", "log_10", "log_11"]), 2);
        assert_eq!(series(&["orders_s1"]), 0);
        // A small database may have a table of a large one.
        assert_eq!(series(&["u"]), 3);
        let other = BackupOrigin::new(None, "nightly-2026-11-01");
        assert_eq!(all.series_of(&other, &tables(&["orders_s1"], &[])).0, 4);
    }

    #[test]
    fn rows_that_no_newer_backup_has_are_named() {
        let sole = |newer: &[ListedTables], older: &ListedTables| {
            let mut known = NewerTables::default();
            newer.iter().for_each(|n| known.add(n));
            let sole = known.sole_rows(older, |name| name == "tmp")?;
            Some((sole.of, sole.is_left_out))
        };
        let full = tables(&["log", "orders", "tmp", "users"], &[]);
        assert_eq!(sole(&[], &full), None, "it is the newest");
        let left_out = |of: &str| Some((of.to_owned(), true));
        let gone = |of: &str| Some((of.to_owned(), false));
        let without_log = tables(&["orders", "users"], &["log"]);
        assert_eq!(
            sole(std::slice::from_ref(&without_log), &full),
            left_out("log")
        );
        let without_both = tables(&["users"], &["log", "orders"]);
        let newer = [without_both, without_log];
        assert_eq!(sole(&newer, &full), left_out("log"));
        assert_eq!(sole(&newer[..1], &full), left_out("log and another table"));
        assert_eq!(
            sole(&[tables(&["users"], &[])], &full),
            gone("log and another table")
        );
        // An empty table has its data.
        let mut emptied = tables(&["orders", "users"], &[]);
        emptied.filled.insert("log".into(), false);
        assert_eq!(sole(&[emptied], &full), None);
        // As many partitions as before are there, or fewer.
        let weeks = tables(&["ev_45", "ev_46", "users"], &[]);
        assert_eq!(
            sole(&[tables(&["ev_46", "ev_47", "users"], &[])], &weeks),
            None
        );
        assert_eq!(
            sole(&[tables(&["ev_46", "users"], &[])], &weeks),
            gone("ev_45")
        );
        let objects = |large_objects| ListedTables {
            large_objects,
            ..tables(&["users"], &[])
        };
        for (newer, wanted) in [
            (0, gone("large objects")),
            (4, gone("most of its large objects")),
            (5, None),
        ] {
            assert_eq!(sole(&[objects(newer)], &objects(9)), wanted, "{newer}");
        }
        assert_eq!(sole(&[objects(0)], &objects(1)), gone("large objects"));
    }

    /// A new table does not make up for another one that was left out meanwhile.
    #[test]
    fn partitions_go_from_the_lowest_number() {
        for (older, newer, is_rotated) in [
            (&["t_9", "t_10"][..], &["t_10", "t_11"][..], true),
            (&["t_9", "t_10"], &["t_9", "t_11"], false),
            (&["t_2024", "t_2025"], &["t_2024", "t_2026"], false),
            (&["t_1", "t_2", "t_3"], &["t_1", "t_3", "t_4"], false),
            (&["t_1", "t_2", "t_3"], &["t_3", "t_4", "t_5"], true),
            (&["t_2025_12"], &["t_2026_01"], true),
            (&["t_2026_01"], &["t_2025_12"], false),
            // Each kind by itself, and only by its last number.
            (
                &["ev1_20261101", "ev2_20261101"],
                &["ev1_20261102", "ev2_20261102"],
                true,
            ),
            (&["_hyper_2_1_chunk"], &["_hyper_1_9_chunk"], false),
            (
                &["_hyper_2_1_chunk", "_hyper_2_2_chunk"],
                &["_hyper_2_8_chunk", "_hyper_2_9_chunk"],
                true,
            ),
            // A single one is no row of partitions.
            (&["tenant1.log"], &["tenant4.log"], false),
            (&["tenant1.log"], &["tenant4.log", "tenant5.log"], true),
            (&["log_20261101"], &["log_20261102"], true),
            (&["tenant1.log_1"], &["tenant4.log_4"], false),
            (&["orders"], &["orders2"], false),
            (&["t_099", "t_100"], &["t_100", "t_0101"], true),
            (
                &[
                    "t_99999999999999999999999998",
                    "t_99999999999999999999999999",
                ],
                &[
                    "t_100000000000000000000000000",
                    "t_100000000000000000000000001",
                ],
                true,
            ),
        ] {
            let mut known = NewerTables::default();
            known.add(&tables(newer, &[]));
            let sole = known.sole_rows(&tables(older, &[]), |_| false);
            assert_eq!(sole.is_none(), is_rotated, "{older:?} {newer:?}");
        }
    }
}

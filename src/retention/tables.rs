//! What tables say about retention: which backups that name no database are of the same one, and whose rows no newer backup
//! has. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::numbered_names::NumberedName;
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
pub(super) struct UnnamedDatabases(Vec<(BackupOrigin, BTreeSet<String>)>);

impl UnnamedDatabases {
    /// The database of the next backup, given newest first: the first one whose objects are called alike and whose last
    /// backup has more than half of its tables in common with this one, of whichever has more. Tables are created and
    /// dropped from one backup to the next, but seldom most of them.
    pub(super) fn series_of(
        &mut self,
        origin: &BackupOrigin,
        tables: &ListedTables,
    ) -> UnnamedSeries {
        let names: BTreeSet<String> = tables.names().cloned().collect();
        let is_it = |(other, known): &(BackupOrigin, BTreeSet<String>)| {
            if other != origin {
                return false;
            }
            let (fewer, more) = if known.len() < names.len() {
                (known, &names)
            } else {
                (&names, known)
            };
            let common = fewer.iter().filter(|name| more.contains(*name)).count();
            common * 2 > more.len()
        };
        let place = self.0.iter().position(is_it).unwrap_or(self.0.len());
        match self.0.get_mut(place) {
            Some((_, known)) => *known = names,
            None => self.0.push((origin.clone(), names)),
        }
        UnnamedSeries(place)
    }
}

/// Rows that a backup has, and none of the newer ones with which it is compared; of what, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SoleRows {
    /// A newer one defines the table without data: it was left out.
    LeftOut(String),
    /// None lists the table, and not all are listed that newer ones define without data.
    MaybeLeftOut(String),
    /// None even defines it: it may have been dropped, or left out by mistake.
    Gone(String),
    /// There may be some: not all tables are known.
    Unlisted,
}

/// What the newer backups of a database hold with which one is compared.
#[derive(Debug, Default)]
pub(super) struct NewerTables {
    filled: HashSet<String>,
    bare: HashSet<String>,
    /// Of tables whose names differ in their dates or last numbers only, by the names without those.
    alike: HashMap<String, AlikeTables>,
    /// Most of one backup.
    large_objects: u64,
    /// Not all tables of each backup are known.
    is_cut: bool,
    /// Nor those without data.
    is_bare_cut: bool,
}

/// Tables with data whose names differ in their dates or last numbers only, such as partitions.
#[derive(Debug)]
struct AlikeTables {
    /// How many there are, at most, in one backup.
    most: usize,
    /// The lowest numbers of any.
    lowest: Vec<(usize, String)>,
}

impl NewerTables {
    /// The rows that an older backup has alone. Of partitions that come and go, it is enough that there are as many, if those
    /// that went have the lowest numbers; a single one needs a date, because a single number may be anything's. Of large
    /// objects, half is enough.
    pub(super) fn sole_rows(
        &self,
        older: &ListedTables,
        is_ignored: impl Fn(&str) -> bool,
    ) -> Option<SoleRows> {
        let with_rows = older.filled.iter().filter(|(_, has_rows)| **has_rows);
        let sole = with_rows.map(|(name, _)| name.as_str());
        let sole = sole.filter(|name| !self.filled.contains(*name) && !is_ignored(name));
        let (left_out, gone): (Vec<&str>, Vec<&str>) =
            sole.partition(|name| self.bare.contains(*name));
        if let Some(of) = named(&left_out) {
            return Some(SoleRows::LeftOut(of));
        }
        let all_gone = named(&gone).filter(|_| self.is_bare_cut);
        let gone = self.without_rotated(gone, older);
        if let Some(of) = named(&gone).filter(|_| self.is_bare_cut) {
            return Some(SoleRows::MaybeLeftOut(of));
        }
        // A partition that is not listed may have been left out, too; those that are dropped in turn do not stay for ever.
        if let Some(of) = all_gone {
            return Some(SoleRows::Gone(of));
        }
        let lacks_objects = older.large_objects > self.large_objects.saturating_mul(2);
        let objects = if self.large_objects == 0 {
            "large objects"
        } else {
            "most of its large objects"
        };
        let certain = if self.is_cut { None } else { named(&gone) };
        if let Some(of) = certain.or(lacks_objects.then(|| objects.to_owned())) {
            return Some(SoleRows::Gone(of));
        }
        let may_have = older.is_cut || !gone.is_empty();
        may_have.then_some(SoleRows::Unlisted)
    }

    /// Those of the missing tables that are no partitions which were dropped in turn.
    fn without_rotated<'a>(&self, gone: Vec<&'a str>, older: &ListedTables) -> Vec<&'a str> {
        // The lowest ones may not be listed.
        if self.is_cut {
            return gone;
        }
        let alike = alike(older);
        let is_rotated = |name: &&str| {
            let Some(it) = NumberedName::of(name) else {
                return false;
            };
            let (newer, count) = (self.alike.get(&it.pattern), alike.get(&it.pattern));
            newer.is_some_and(|newer| {
                let are_partitions = it.is_date || newer.most > 1;
                are_partitions && it.numbers < newer.lowest && Some(&newer.most) >= count
            })
        };
        gone.into_iter().filter(|name| !is_rotated(name)).collect()
    }

    /// Adds the next older backup.
    pub(super) fn add(&mut self, tables: &ListedTables) {
        self.filled.extend(tables.filled.keys().cloned());
        self.bare.extend(tables.bare.iter().cloned());
        self.large_objects = self.large_objects.max(tables.large_objects);
        self.is_cut |= tables.is_cut;
        self.is_bare_cut |= tables.is_bare_cut;
        let counts = alike(tables);
        let names = tables.filled.keys().filter_map(|n| NumberedName::of(n));
        for NumberedName {
            pattern, numbers, ..
        } in names
        {
            let most = counts.get(&pattern).copied().unwrap_or_default();
            let first = || AlikeTables {
                most,
                lowest: numbers.clone(),
            };
            let known = self.alike.entry(pattern).or_insert_with(first);
            known.most = most.max(known.most);
            if numbers < known.lowest {
                known.lowest = numbers;
            }
        }
    }
}

/// How many tables with data have names that differ in their dates or last numbers only, by the names without those.
fn alike(tables: &ListedTables) -> HashMap<String, usize> {
    let mut alike = HashMap::new();
    for name in tables.filled.keys().filter_map(|n| NumberedName::of(n)) {
        *alike.entry(name.pattern).or_default() += 1;
    }
    alike
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
            ..ListedTables::default()
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
        // Half of them are not most.
        assert_eq!(series(&["a", "b"]), 4);
        assert_eq!(series(&["a", "c"]), 5);
        assert_eq!(series(&["a", "c", "d"]), 5);
        let other = BackupOrigin::new(None, "nightly-2026-11-01");
        assert_eq!(all.series_of(&other, &tables(&["orders_s1"], &[])).0, 6);
    }

    #[test]
    fn rows_that_no_newer_backup_has_are_named() {
        let sole = |newer: &[ListedTables], older: &ListedTables| {
            let mut known = NewerTables::default();
            newer.iter().for_each(|n| known.add(n));
            known.sole_rows(older, |name| name == "tmp")
        };
        let full = tables(&["log", "orders", "tmp", "users"], &[]);
        let left_out = |of: &str| Some(SoleRows::LeftOut(of.to_owned()));
        let gone = |of: &str| Some(SoleRows::Gone(of.to_owned()));
        // The newest ones may have no tables at all.
        let none = ListedTables::default();
        let newest = std::slice::from_ref(&none);
        assert_eq!(sole(newest, &full), gone("log and 2 other tables"));
        assert_eq!(sole(newest, &none), None);
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

    /// Of very many tables, evidence lists only the largest.
    #[test]
    fn what_is_not_listed_may_have_rows() {
        let cut = |names: &[&str], bare: &[&str]| ListedTables {
            is_cut: true,
            ..tables(names, bare)
        };
        let whole = |names: &[&str]| tables(names, &[]);
        let gone = |of: &str| Some(SoleRows::Gone(of.to_owned()));
        for (newer, older, wanted) in [
            (whole(&["a"]), whole(&["a"]), None),
            // It may have had others.
            (whole(&["a"]), cut(&["a"], &[]), Some(SoleRows::Unlisted)),
            (whole(&["a"]), cut(&["a", "b"], &[]), gone("b")),
            // It may be among those that are not listed, as may lower partitions.
            (cut(&["a"], &[]), whole(&["a"]), None),
            (
                cut(&["a"], &[]),
                whole(&["a", "b"]),
                Some(SoleRows::Unlisted),
            ),
            (
                cut(&["t_2026_12"], &[]),
                whole(&["t_2026_11"]),
                Some(SoleRows::Unlisted),
            ),
            (
                cut(&["a"], &["b"]),
                whole(&["a", "b"]),
                Some(SoleRows::LeftOut("b".into())),
            ),
        ] {
            let mut known = NewerTables::default();
            known.add(&newer);
            let sole = known.sole_rows(&older, |_| false);
            assert_eq!(sole, wanted, "{newer:?} {older:?}");
        }
    }

    /// Of very many tables without data, evidence names only the first: any other one may be among the rest.
    #[test]
    fn what_is_not_listed_may_have_been_left_out() {
        let cut = ListedTables {
            is_bare_cut: true,
            ..tables(&["a", "t_2026_12"], &["b"])
        };
        let maybe = |of: &str| Some(SoleRows::MaybeLeftOut(of.to_owned()));
        for (older, wanted) in [
            (&["a"][..], None),
            (&["a", "b", "c"], Some(SoleRows::LeftOut("b".into()))),
            (&["a", "c"], maybe("c")),
            // A partition was dropped in turn, or left out.
            (
                &["a", "t_2026_11"],
                Some(SoleRows::Gone("t_2026_11".into())),
            ),
            (&["a", "t_2027_01"], maybe("t_2027_01")),
            (&["a", "ignored"], None),
        ] {
            let mut known = NewerTables::default();
            known.add(&tables(&["a"], &[]));
            known.add(&cut);
            let sole = known.sole_rows(&tables(older, &[]), |name| name == "ignored");
            assert_eq!(sole, wanted, "{older:?}");
        }
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
            (&["tenant_1"], &["tenant_4"], false),
            // A tenant is no partition, whatever its schema is called.
            (&["tenant1.log"], &["tenant4.log", "tenant5.log"], false),
            (
                &["tenant1.log", "tenant2.log"],
                &["tenant2.log", "tenant3.log"],
                false,
            ),
            (&["cust_2001.orders"], &["cust_2002.orders"], false),
            (&["shop.log_2026_11"], &["shop.log_2026_12"], true),
            (&["log_20261101"], &["log_20261102"], true),
            (&["tenant1.log_1"], &["tenant4.log_4"], false),
            (&["orders"], &["orders2"], false),
            (&["t_099", "t_100"], &["t_100", "t_0101"], true),
            (&["t_0098", "t_0099"], &["t_0099", "t_100"], true),
            // Unpadded months are later in the next year all the same.
            (
                &["log_2026_12", "log_2027_1"],
                &["log_2026_11", "log_2026_12"],
                false,
            ),
            (&["log_2026_12"], &["log_2027_1"], true),
            (&["ev_2026_11_08_10"], &["ev_2026_11_09_1"], true),
            // Digits before the year, letters within the date, a number behind it.
            (&["s3_2026_11_08"], &["s3_2026_11_09"], true),
            (&["oauth2_2026_11_08"], &["oauth2_2026_11_09"], true),
            (&["oauth1_2026_11_08"], &["oauth2_2026_11_09"], false),
            (&["ev_y2026m11d08"], &["ev_y2026m11d09"], true),
            (&["ev_p2026w45"], &["ev_p2026w46"], true),
            (&["ev_p2026_11_08_1900"], &["ev_p2026_11_08_2000"], true),
            (
                &["ev_20261108_0", "ev_20261108_1"],
                &["ev_20261109_0", "ev_20261109_1"],
                true,
            ),
            (
                &["ev_20261108_0", "ev_20261108_1"],
                &["ev_20261108_0", "ev_20261109_0"],
                false,
            ),
            (&["t_2026_11_2026_12"], &["t_2026_12_2027_1"], true),
            (&["tenant_2001_2026_11"], &["tenant_2002_2026_12"], false),
            // The year may be the last.
            (&["log_30_11_2026"], &["log_01_12_2026"], true),
            (&["log_01_12_2026"], &["log_30_11_2026"], false),
            (&["log_12_2026"], &["log_1_2027"], true),
            (&["log_1_2027"], &["log_12_2026"], false),
            // A year is no day.
            (&["log_2026"], &["log_20261108"], false),
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

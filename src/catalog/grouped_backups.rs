//! The backups of a set, database by database. Pure.

use std::collections::{HashMap, HashSet};

use super::archived_database::ArchivedDatabase;
use crate::backup::newer_first;
use crate::proof::{BackupOrigin, pattern_of};
use crate::store::StoredObject;

/// Most names without a date that are each taken for a database of their own, whose dump is overwritten every night. More
/// of them are more likely the dumps of one database under random names.
const UNDATED: usize = 20;

/// The backups of one database, newest first; behind them those that are only taken for backups of it. There is at
/// least one.
#[derive(Debug, Clone)]
pub(super) struct DatabaseBackups {
    pub origin: BackupOrigin,
    pub backups: Vec<StoredObject>,
    /// The name patterns of those that do not say of which database they are.
    unknown: HashSet<String>,
}

impl DatabaseBackups {
    fn new(origin: BackupOrigin) -> Self {
        DatabaseBackups {
            origin,
            backups: vec![],
            unknown: HashSet::new(),
        }
    }

    /// Whether one of them is of this origin, or may be: one that does not say it, and is called like its backups.
    pub(super) fn may_hold(&self, origin: &BackupOrigin, pattern: &str) -> bool {
        self.origin == *origin || self.unknown.contains(pattern)
    }
}

/// The named databases that have backups of one name pattern.
struct PatternDatabases {
    /// The place of the first one.
    first: usize,
    /// When the newest backup of each was made; of these times, the earliest.
    stalest: jiff::Timestamp,
}

/// Groups that are being made.
#[derive(Default)]
struct OpenGroups {
    groups: Vec<DatabaseBackups>,
    places: HashMap<BackupOrigin, usize>,
}

impl OpenGroups {
    fn add(&mut self, origin: BackupOrigin, object: StoredObject) {
        let place = *self
            .places
            .entry(origin.clone())
            .or_insert(self.groups.len());
        if place == self.groups.len() {
            self.groups.push(DatabaseBackups::new(origin.clone()));
        }
        let group = &mut self.groups[place];
        if let BackupOrigin::CalledLike(pattern) = origin {
            group.unknown.insert(pattern);
        }
        group.backups.push(object);
    }

    /// The databases so far, by the patterns of their backups' names.
    fn by_pattern(&self) -> HashMap<String, PatternDatabases> {
        let mut patterns: HashMap<String, PatternDatabases> = HashMap::new();
        for (place, group) in self.groups.iter().enumerate() {
            let Some(newest) = group.backups.iter().map(|o| o.created).max() else {
                continue;
            };
            let names: HashSet<String> =
                group.backups.iter().map(|o| pattern_of(&o.name)).collect();
            for pattern in names {
                let first = PatternDatabases {
                    first: place,
                    stalest: newest,
                };
                let databases = patterns.entry(pattern).or_insert(first);
                databases.stalest = databases.stalest.min(newest);
            }
        }
        patterns
    }
}

/// Groups backups by the database that they name. Those that name none, and those that cannot be read, are of one database
/// if they are called alike, and of none that others name. Only an unreadable backup that is older than the newest ones of
/// all databases that it may be of is put behind one of these. What is no dump, or has roles alone, is left out, unless it
/// is called like a backup or there is nothing else.
pub(super) fn group(backups: Vec<(StoredObject, ArchivedDatabase)>) -> Vec<DatabaseBackups> {
    use ArchivedDatabase as D;
    let mut open = OpenGroups::default();
    let mut others = Vec::new();
    for (object, database) in backups {
        if let D::Named(name) = database {
            open.add(BackupOrigin::Named(name), object);
        } else {
            let pattern = pattern_of(&object.name);
            others.push((object, pattern, database));
        }
    }
    let named = open.by_pattern();
    let dumps = others.iter().filter(|(_, _, d)| d.may_be_backup());
    let called: HashSet<String> = dumps.map(|(_, pattern, _)| pattern.clone()).collect();
    let undated: HashSet<&String> = others
        .iter()
        .filter(|(_, pattern, d)| *d == D::Unnamed && !pattern.contains('#'))
        .map(|(_, pattern, _)| pattern)
        .collect();
    let is_each_its_own = undated.len() <= UNDATED;
    let (mut older, mut together, mut no_dumps) = (Vec::new(), Vec::new(), Vec::new());
    for (object, pattern, database) in others {
        let like = named.get(&pattern);
        let is_older = |like: &&PatternDatabases| match database {
            // Its verification would tell only what a look at it tells, too.
            D::NotLookedInto => true,
            D::Unreadable(_) | D::NoDump(_) | D::Globals => object.created < like.stalest,
            D::Named(_) | D::Unnamed | D::Cluster => false,
        };
        if let Some(like) = like.filter(is_older) {
            older.push((like.first, pattern, object));
        } else if !database.may_be_backup() && like.is_none() && !called.contains(&pattern) {
            no_dumps.push(object);
        } else if pattern.contains('#') || (database == D::Unnamed && is_each_its_own) {
            open.add(database.origin(&object.name), object);
        } else {
            together.push((object, database));
        }
    }
    for group in &mut open.groups {
        group.backups.sort_by(newer_first);
    }
    // Behind the ones that are known, so that none of them is the newest.
    for (place, pattern, object) in older {
        let group = &mut open.groups[place];
        group.unknown.insert(pattern);
        group.backups.push(object);
    }
    let mut groups = open.groups;
    if groups.is_empty() && together.is_empty() {
        together = no_dumps.into_iter().map(|o| (o, D::Unnamed)).collect();
    }
    groups.extend(as_one(together));
    groups
}

/// What cannot be told apart, as one group.
fn as_one(mut backups: Vec<(StoredObject, ArchivedDatabase)>) -> Option<DatabaseBackups> {
    backups.sort_by(|(a, _), (b, _)| newer_first(a, b));
    let (newest, database) = backups.first()?;
    let mut group = DatabaseBackups::new(database.origin(&newest.name));
    group.unknown = backups.iter().map(|(o, _)| pattern_of(&o.name)).collect();
    group.backups = backups.into_iter().map(|(o, _)| o).collect();
    Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(backups: &[(&str, ArchivedDatabase)]) -> Vec<Vec<String>> {
        let object = |(age, (name, database)): (usize, &(&str, ArchivedDatabase))| {
            let object = StoredObject {
                created: jiff::Timestamp::from_second(1_000 - age as i64).unwrap(),
                ..StoredObject::named(name)
            };
            (object, database.clone())
        };
        let groups = group(backups.iter().enumerate().map(object).collect());
        let names = |g: DatabaseBackups| g.backups.into_iter().map(|o| o.name).collect();
        groups.into_iter().map(names).collect()
    }

    #[test]
    fn backups_without_a_name_may_be_of_several_databases() {
        let unnamed = |name: &str| (StoredObject::named(name), ArchivedDatabase::Unnamed);
        let app = (
            StoredObject::named("app-2026-11-01.dump"),
            ArchivedDatabase::Named("app".into()),
        );
        let groups = group(vec![unnamed("blog.sql"), unnamed("shop.sql"), app.clone()]);
        assert_eq!(groups.len(), 3);
        let holds = |groups: &[DatabaseBackups], database: Option<&str>, name: &str| {
            let origin = BackupOrigin::new(database.map(str::to_owned), name);
            groups
                .iter()
                .any(|g| g.may_hold(&origin, &pattern_of(name)))
        };
        assert!(holds(&groups, None, "blog.sql") && holds(&groups, None, "shop.sql"));
        assert!(holds(&groups, Some("app"), "other.dump"));
        assert!(!holds(&groups, Some("test"), "app-2026-11-01.dump"));
        assert!(!holds(&groups, None, "gone.sql"));
        // One that is called like it may be of the database that is sought.
        let unread = (
            StoredObject::named("app-2026-10-01.dump"),
            ArchivedDatabase::NotLookedInto,
        );
        let groups = group(vec![app, unread]);
        assert_eq!((groups.len(), groups[0].backups.len()), (1, 2));
        assert!(holds(&groups, Some("test"), "app-2026-11-01.dump"));
        // Random names.
        let names: Vec<String> = (0..=UNDATED).map(|i| format!("{i}.sql")).collect();
        let groups = group(names.iter().map(|n| unnamed(n)).collect());
        assert_eq!(groups.len(), 1);
        assert!(holds(&groups, None, "0.sql") && holds(&groups, None, "20.sql"));
    }

    /// All of them are called alike.
    #[test]
    fn what_names_no_database_hides_no_backup_of_one() {
        use ArchivedDatabase as D;
        let named = |name: &str| D::Named(name.to_owned());
        let damaged = || D::Unreadable("cut".to_owned());
        let all = [
            ("backup-2026-11-09", D::NotLookedInto),
            ("backup-2026-11-08", D::Unnamed),
            ("backup-2026-11-07", damaged()),
            ("backup-2026-11-06", named("blog")),
            ("backup-2026-11-05", damaged()),
            ("backup-2026-11-04", named("shop")),
            ("backup-2026-11-03", damaged()),
            ("backup-2026-11-02", D::Cluster),
            ("backup-2026-11-01", D::NoDump("text".to_owned())),
        ];
        let days = |days: &[u8]| -> Vec<String> {
            days.iter()
                .map(|d| format!("backup-2026-11-0{d}"))
                .collect()
        };
        assert_eq!(
            grouped(&all),
            [
                // Behind its newest, what may be of it or of another.
                days(&[6, 9, 3, 1]),
                days(&[4]),
                days(&[8, 7, 5]),
                days(&[2]),
            ]
        );
    }

    #[test]
    fn backups_are_grouped_by_database_and_then_by_name() {
        use ArchivedDatabase as D;
        let named = |name: &str| D::Named(name.to_owned());
        let damaged = || D::Unreadable("cut".to_owned());
        let readme = ("README", D::NoDump("text".to_owned()));
        let all = [
            ("app-2026-11-03.dump", damaged()),
            ("x.dump", named("shop")),
            ("app-2026-11-02.dump", named("app")),
            ("roles.sql", D::Globals),
            ("blog-2026-11-02.sql", D::Unnamed),
            ("y.dump", named("shop")),
            ("a.sql", D::Unnamed),
            readme.clone(),
            ("blog-2026-11-01.sql", D::Unnamed),
            ("b.dump", damaged()),
        ];
        assert_eq!(
            grouped(&all),
            [
                vec!["x.dump", "y.dump"],
                vec!["app-2026-11-02.dump"],
                vec!["app-2026-11-03.dump"],
                vec!["blog-2026-11-02.sql", "blog-2026-11-01.sql"],
                vec!["a.sql"],
                vec!["b.dump"],
            ]
        );
        assert_eq!(grouped(&[readme]), [["README"]]);
        assert_eq!(grouped(&[]), Vec::<Vec<String>>::new());
    }
}

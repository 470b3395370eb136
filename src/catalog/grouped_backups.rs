//! The backups of a set, database by database. Pure.

use std::collections::HashMap;

use super::archived_database::ArchivedDatabase;
use crate::backup::newer_first;
use crate::proof::{BackupOrigin, pattern_of};
use crate::store::StoredObject;

/// The backups of one database, newest first. There is at least one.
#[derive(Debug, Clone)]
pub(super) struct DatabaseBackups {
    pub origin: BackupOrigin,
    pub backups: Vec<StoredObject>,
    /// Whether their archives name the database.
    is_named: bool,
}

impl DatabaseBackups {
    /// Whether one of them is of this origin. Those without a name may be of several.
    pub(super) fn holds(&self, origin: &BackupOrigin) -> bool {
        let is_it = |o: &StoredObject| BackupOrigin::new(None, &o.name).is_same(origin);
        self.origin.is_same(origin) || (!self.is_named && self.backups.iter().any(is_it))
    }
}

/// Groups backups by the database that they name. One that names none, or that cannot be read, is of the database whose
/// backups are called like it; without one it stands for itself if its name has a date, and otherwise they are one group. What
/// is no dump, or has roles alone, is left out, unless there is nothing else.
pub(super) fn group(backups: Vec<(StoredObject, ArchivedDatabase)>) -> Vec<DatabaseBackups> {
    let mut groups: Vec<(ArchivedDatabase, Vec<StoredObject>)> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut by_pattern: HashMap<String, usize> = HashMap::new();
    let (mut others, mut no_dumps) = (Vec::new(), Vec::new());
    for (object, database) in backups {
        let Some(name) = database.name() else {
            others.push((object, database));
            continue;
        };
        let place = *by_name.entry(name.to_owned()).or_insert(groups.len());
        if place == groups.len() {
            groups.push((database, vec![]));
        }
        by_pattern.entry(pattern_of(&object.name)).or_insert(place);
        groups[place].1.push(object);
    }
    for (object, database) in others {
        let pattern = pattern_of(&object.name);
        let is_dump = !matches!(
            database,
            ArchivedDatabase::NoDump(_) | ArchivedDatabase::Globals
        );
        let place = match by_pattern.get(&pattern) {
            Some(place) => *place,
            None if is_dump => {
                let key = if pattern.contains('#') {
                    pattern
                } else {
                    String::new()
                };
                *by_pattern.entry(key).or_insert(groups.len())
            }
            None => {
                no_dumps.push(object);
                continue;
            }
        };
        if place == groups.len() {
            groups.push((database, vec![]));
        }
        groups[place].1.push(object);
    }
    if groups.is_empty() && !no_dumps.is_empty() {
        groups.push((ArchivedDatabase::Unnamed, no_dumps));
    }
    groups.into_iter().filter_map(of_group).collect()
}

fn of_group(
    (database, mut backups): (ArchivedDatabase, Vec<StoredObject>),
) -> Option<DatabaseBackups> {
    backups.sort_by(newer_first);
    let origin = database.origin(&backups.first()?.name);
    Some(DatabaseBackups {
        origin,
        backups,
        is_named: database.name().is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Generation;

    fn grouped(backups: &[(&str, ArchivedDatabase)]) -> Vec<Vec<String>> {
        let object = |(age, (name, database)): (usize, &(&str, ArchivedDatabase))| {
            let object = StoredObject {
                name: (*name).to_owned(),
                size: 1,
                created: jiff::Timestamp::from_second(1_000 - age as i64).unwrap(),
                crc32c: None,
                generation: Generation(1),
                members: None,
                is_unlisted: false,
                obstacle: None,
            };
            (object, database.clone())
        };
        let groups = group(backups.iter().enumerate().map(object).collect());
        let names = |g: DatabaseBackups| g.backups.into_iter().map(|o| o.name).collect();
        groups.into_iter().map(names).collect()
    }

    #[test]
    fn backups_without_a_name_may_be_of_several_databases() {
        let object = |name: &str| StoredObject {
            name: name.to_owned(),
            size: 1,
            created: jiff::Timestamp::UNIX_EPOCH,
            crc32c: None,
            generation: Generation(1),
            members: None,
            is_unlisted: false,
            obstacle: None,
        };
        let unnamed = |name| (object(name), ArchivedDatabase::Unnamed);
        let app = (object("app.dump"), ArchivedDatabase::Named("app".into()));
        let groups = group(vec![unnamed("blog.sql"), unnamed("shop.sql"), app]);
        let holds = |database: Option<&str>, name: &str| {
            let origin = BackupOrigin::new(database.map(str::to_owned), name);
            groups.iter().any(|g| g.holds(&origin))
        };
        assert!(holds(None, "blog.sql") && holds(None, "shop.sql"));
        assert!(holds(Some("app"), "other.dump"));
        assert!(!holds(Some("test"), "app.dump") && !holds(None, "gone.sql"));
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
                vec!["app-2026-11-03.dump", "app-2026-11-02.dump"],
                vec!["blog-2026-11-02.sql", "blog-2026-11-01.sql"],
                vec!["a.sql", "b.dump"],
            ]
        );
        assert_eq!(grouped(&[readme]), [["README"]]);
        assert_eq!(grouped(&[]), Vec::<Vec<String>>::new());
    }
}

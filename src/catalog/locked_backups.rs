//! Backups that a hold or a retention of the bucket keeps from being deleted.

use std::collections::{BTreeMap, HashMap};

use super::backup_catalog::BackupCatalog;
use crate::backup::whole_of;
use crate::error::RestoreError;
use crate::job::Generation;
use crate::store::{Hold, ObjectLock, StoredObject};

/// What keeps a backup from being deleted, or one of its objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupLock {
    /// The object that is held, and how.
    Held { object: String, hold: Hold },
    /// Until then; and whether the policy of the bucket is locked, if that is known.
    Retained {
        until: jiff::Timestamp,
        is_locked: Option<bool>,
    },
}

impl BackupLock {
    /// Such as `held (temporary hold): …` or `retention policy until …`.
    pub fn phrase(&self, bucket: &str) -> String {
        match self {
            BackupLock::Held { object, hold } => {
                let (kind, flag) = match hold {
                    Hold::Temporary => ("temporary", "--no-temporary-hold"),
                    Hold::EventBased => ("event-based", "--no-event-based-hold"),
                };
                format!(
                    "held ({kind} hold): gcloud storage objects update '{bucket}{object}' {flag}"
                )
            }
            BackupLock::Retained { until, is_locked } => {
                let locked = match is_locked {
                    Some(true) => " (the policy is locked: nobody can end it earlier)",
                    Some(false) | None => "",
                };
                format!("retention policy until {until}{locked}")
            }
        }
    }
}

/// The locks of the objects of a set.
#[derive(Debug, Default)]
pub struct BackupLocks {
    by_object: HashMap<(String, Generation), ObjectLock>,
    /// The same by name, for backups of several objects.
    by_name: BTreeMap<String, ObjectLock>,
    is_policy_locked: Option<bool>,
}

impl BackupLocks {
    fn new(locks: Vec<ObjectLock>, is_policy_locked: Option<bool>) -> Self {
        let key = |l: &ObjectLock| (l.name.clone(), l.generation);
        BackupLocks {
            by_name: locks.iter().map(|l| (l.name.clone(), l.clone())).collect(),
            by_object: locks.into_iter().map(|l| (key(&l), l)).collect(),
            is_policy_locked,
        }
    }

    /// What keeps a backup: a hold, or the retention that ends last.
    pub fn of(&self, backup: &StoredObject) -> Option<BackupLock> {
        let own = self
            .by_object
            .get(&(backup.name.clone(), backup.generation));
        let is_of_several = backup.members.is_some() || backup.name.ends_with('/');
        let parts = self.parts_of(backup).filter(|_| is_of_several);
        let all: Vec<&ObjectLock> = own.into_iter().chain(parts).collect();
        let held = all.iter().find_map(|l| Some((l, l.hold?)));
        if let Some((lock, hold)) = held {
            return Some(BackupLock::Held {
                object: lock.name.clone(),
                hold,
            });
        }
        let until = all.iter().filter_map(|l| l.until).max()?;
        Some(BackupLock::Retained {
            until,
            is_locked: self.is_policy_locked,
        })
    }

    /// The locks of the members of a directory dump, or of the pieces of a split file.
    fn parts_of<'a>(&'a self, backup: &'a StoredObject) -> impl Iterator<Item = &'a ObjectLock> {
        let own = backup.name.as_str();
        let is_part = move |name: &str| match name.strip_prefix(own) {
            Some(file) if own.ends_with('/') => !file.contains('/'),
            _ => whole_of(name) == Some(own),
        };
        let below = self.by_name.range(own.to_owned()..);
        below
            .take_while(move |(name, _)| name.starts_with(own))
            .filter(move |(name, _)| is_part(name))
            .map(|(_, lock)| lock)
    }
}

impl BackupCatalog {
    /// What keeps the backups of a set from being deleted. Folders keep nothing.
    ///
    /// # Errors
    /// The store's own.
    pub async fn locks(
        &self,
        set: &str,
        now: jiff::Timestamp,
    ) -> Result<BackupLocks, RestoreError> {
        let store = self.store().await?;
        let locks = store.locks(self.config.verify.prefix_of(set), now).await?;
        let is_retained = locks.iter().any(|l| l.until.is_some());
        let is_policy_locked = if is_retained {
            store.is_retention_locked().await
        } else {
            None
        };
        Ok(BackupLocks::new(locks, is_policy_locked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::MembersProof;

    fn lock(name: &str, hold: Option<Hold>, until: Option<i64>) -> ObjectLock {
        ObjectLock {
            name: name.to_owned(),
            generation: Generation(1),
            hold,
            until: until.map(|s| jiff::Timestamp::from_second(s).unwrap()),
        }
    }

    #[test]
    fn a_hold_or_the_latest_retention_of_any_object_keeps_a_backup() {
        let locks = BackupLocks::new(
            vec![
                lock("a.dump", Some(Hold::Temporary), Some(86_400)),
                lock("b.dump", None, Some(86_400)),
                lock("c/1.dat", None, Some(86_400)),
                lock("c/toc.dat", None, Some(172_800)),
                lock("c/other/x.dump", Some(Hold::Temporary), None),
                lock("d/2.dat", Some(Hold::EventBased), None),
                lock("e.dump.ab", None, Some(86_400)),
                lock("f.dump.pgrestored/1/x.dsse.json", None, Some(86_400)),
            ],
            Some(true),
        );
        let object = |name: &str| {
            let is_pieces = name == "e.dump";
            StoredObject {
                members: is_pieces.then(|| Box::new(MembersProof::of([]))),
                ..StoredObject::named(name)
            }
        };
        let phrase = |name: &str| locks.of(&object(name)).map(|l| l.phrase("gs://b/"));
        let locked = "(the policy is locked: nobody can end it earlier)";
        for (name, wanted) in [
            (
                "a.dump",
                Some("held (temporary hold): gcloud storage objects update 'gs://b/a.dump' --no-temporary-hold".to_owned()),
            ),
            ("b.dump", Some(format!("retention policy until 1970-01-02T00:00:00Z {locked}"))),
            ("c/", Some(format!("retention policy until 1970-01-03T00:00:00Z {locked}"))),
            (
                "d/",
                Some("held (event-based hold): gcloud storage objects update 'gs://b/d/2.dat' --no-event-based-hold".to_owned()),
            ),
            ("e.dump", Some(format!("retention policy until 1970-01-02T00:00:00Z {locked}"))),
            ("f.dump", None),
            ("b", None),
        ] {
            assert_eq!(phrase(name), wanted, "{name}");
        }
        let other = StoredObject {
            generation: Generation(2),
            ..StoredObject::named("a.dump")
        };
        assert_eq!(locks.of(&other), None);
    }
}

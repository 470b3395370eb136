//! Whether a store denies one object or everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::backup_store::{BackupStore, StoredObject};
use super::read_range;
use crate::error::{StorageError, StorageKind, report};

/// How many of the oldest and of the newest other objects are tried. Nobody can add an object that is older than others.
const SAMPLES: usize = 5;
/// How many of the first objects are enough if there are more than a listing holds: others that can be read show that the
/// worker may read, whoever made them.
const SOME: usize = 1_000;
/// How long it may take to find out.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether this worker can read another object of the store than `name`, among those whose name is `like` it, first of the
/// same folder, where that can be listed. False if that cannot be found out.
pub(crate) async fn can_read_another(
    store: &dyn BackupStore,
    name: &str,
    like: fn(&str) -> bool,
) -> bool {
    match tokio::time::timeout(LIMIT, read_another(store, name, like)).await {
        Ok(Ok(can_read)) => can_read,
        Ok(Err(e)) => {
            tracing::warn!(name, error = report(&e), "no other object can be looked up");
            false
        }
        Err(_) => false,
    }
}

async fn read_another(
    store: &dyn BackupStore,
    name: &str,
    like: fn(&str) -> bool,
) -> Result<bool, StorageError> {
    let folder = &name[..name.rfind('/').map_or(0, |n| n + 1)];
    for prefix in [folder, ""] {
        let mut others = match list_some(store, prefix, like).await {
            // What is denied may be the folder.
            Err(_) if !prefix.is_empty() => continue,
            others => others?,
        };
        // An object without bytes is read without asking.
        others.retain(|o| o.name != name && o.size > 0);
        others.sort_by_key(|o| o.created);
        let newest = others.iter().skip(SAMPLES).rev().take(SAMPLES);
        for other in others.iter().take(SAMPLES).chain(newest) {
            if read_range(store, other, 0..1).await.is_ok() {
                return Ok(true);
            }
        }
        if prefix.is_empty() {
            break;
        }
    }
    Ok(false)
}

/// All objects whose name is `like` another one's; if they are too many, some of them.
async fn list_some(
    store: &dyn BackupStore,
    prefix: &str,
    like: fn(&str) -> bool,
) -> Result<Vec<StoredObject>, StorageError> {
    match store.members_where(prefix, like).await {
        Err(e) if e.kind() == StorageKind::ListingTooLong => {
            let kept = AtomicUsize::new(0);
            let is_kept =
                move |name: &str| like(name) && kept.fetch_add(1, Ordering::Relaxed) < SOME;
            store.members_named(prefix, Arc::new(is_kept)).await
        }
        listed => listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

    /// What is another kind of object says nothing of this one.
    #[tokio::test]
    async fn only_objects_of_the_same_kind_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.dump", "r.json", "s.json"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        let store = FaultyStore::at(folder.path());
        let denied = StoreFault::Error(StorageKind::AccessDenied);
        store.fail(Call::Read, "s.json", denied, 1);
        assert!(!can_read_another(&store, "r.json", |n| n.ends_with(".json")).await);
        assert!(can_read_another(&store, "r.json", |n| n.ends_with(".json")).await);
        store.fail(Call::Read, "s.json", denied, 1);
        assert!(can_read_another(&store, "r.json", |_| true).await);
    }

    /// More objects than a listing holds do not make a denied object a fault of the worker's credentials.
    #[tokio::test]
    async fn a_flood_hides_no_other_object() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..SOME + 10 {
            std::fs::write(folder.path().join(format!("{i}.dump")), "x").unwrap();
        }
        let store = FaultyStore::at(folder.path());
        store.hold(SOME);
        assert!(can_read_another(&store, "a.dump", |_| true).await);
        let denied = StoreFault::Error(StorageKind::AccessDenied);
        store.fail(Call::Read, "", denied, 99);
        assert!(!can_read_another(&store, "a.dump", |_| true).await);
    }
}

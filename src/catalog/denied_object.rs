//! An object or folder that nobody may read, although others can be read: another key, an access list of its own. Whoever
//! may add objects can cause that, so it is an answer about this object, and no fault of the worker's credentials.

use super::backup_catalog::BackupCatalog;
use crate::backup::PinnedBackup;
use crate::error::{RestoreError, StorageKind};
use crate::job::BackupRef;
use crate::store::can_read_another;

impl BackupCatalog {
    /// Whether `e` says that the backup is denied to this worker, while another object beside it can be read. False if
    /// that cannot be found out: then it may be the worker's credentials.
    pub(crate) async fn is_denied_alone(
        &self,
        (wanted, pinned): (&BackupRef, Option<&PinnedBackup>),
        e: &RestoreError,
    ) -> bool {
        let is_denied =
            matches!(e, RestoreError::Storage(e) if e.kind() == StorageKind::ObjectDenied);
        let name = match (pinned, wanted) {
            (Some(pinned), _) => &pinned.object.name,
            (None, BackupRef::Named { name, .. }) => name,
            // Something below the prefix was denied.
            (None, BackupRef::Latest(latest)) => &latest.prefix,
            (None, BackupRef::Stdin) => return false,
        };
        let Some(place) = self.place_of(wanted).filter(|_| is_denied) else {
            return false;
        };
        match self.stores.at(place).await {
            Ok(store) => can_read_another(store.as_ref(), name, |_| true).await,
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::folder_catalog::catalog_of;
    use crate::config::{Config, Location, RawConfig};
    use crate::error::StorageError;
    use crate::metrics::RestoreMetricsManager;
    use crate::store::Stores;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

    /// Whether `n/a.dump` is denied alone in a folder with these files, where these reads are denied.
    async fn is_alone(files: &[&str], denied: &[(Call, &str)], kind: StorageKind) -> bool {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("n")).unwrap();
        for name in files {
            std::fs::write(folder.path().join(name), "PGDMP").unwrap();
        }
        let bucket = format!("file://{}", folder.path().display());
        let flags = [("backup-bucket", bucket.as_str()), ("db-host", "/nowhere")];
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let (store, stores) = (FaultyStore::at(folder.path()), Stores::new(None));
        for (call, name) in denied {
            let fault = StoreFault::Error(StorageKind::AccessDenied);
            store.fail(*call, name, fault, 99);
        }
        stores.replace(Location::Folder(folder.path().to_owned()), Arc::new(store));
        let metrics = RestoreMetricsManager::new(0.0);
        let catalog = BackupCatalog::new(config.into(), stores.into(), metrics);
        let wanted = BackupRef::parse("n/a.dump", "").unwrap();
        let e = StorageError::new(kind, "x").into();
        catalog.is_denied_alone((&wanted, None), &e).await
    }

    #[tokio::test]
    async fn an_object_is_denied_alone_if_another_one_can_be_read() {
        use StorageKind::{AccessDenied, NotFound, ObjectDenied};
        let denied = [(Call::Read, "n/a.dump")];
        for files in [["n/a.dump", "n/b.dump"], ["n/a.dump", "c.dump"]] {
            assert!(is_alone(&files, &denied, ObjectDenied).await, "{files:?}");
            // The store itself, or nothing, was denied.
            for kind in [AccessDenied, NotFound] {
                assert!(!is_alone(&files, &denied, kind).await, "{files:?}");
            }
        }
        let files = ["n/a.dump", "n/b.dump", "c.dump"];
        let some = [(Call::Read, "n/")];
        assert!(is_alone(&files, &some, ObjectDenied).await);
        // Its folder cannot be listed either.
        let folder = [(Call::List, "n/"), (Call::Read, "n/")];
        assert!(is_alone(&files, &folder, ObjectDenied).await);
        // Nothing can be read, nothing can be listed, and there is nothing else.
        assert!(!is_alone(&files, &[(Call::Read, "")], ObjectDenied).await);
        assert!(!is_alone(&files, &[(Call::List, "")], ObjectDenied).await);
        assert!(!is_alone(&["n/a.dump"], &denied, ObjectDenied).await);
    }

    /// A folder below the prefix of `latest`, or that prefix itself.
    #[tokio::test]
    async fn a_folder_that_cannot_be_listed_is_denied_alone_to_latest() {
        let files: &[(&str, &[u8])] = &[("a.dump", b"PGDMP"), ("n/b.dump", b"PGDMP")];
        for (prefix, is_other_read) in [("", true), ("n/", true), ("n", true), ("", false)] {
            let (_folder, store, catalog) = catalog_of(files, &[]).await;
            store.hide("n/", jiff::Timestamp::now());
            if !is_other_read {
                let fault = StoreFault::Error(StorageKind::AccessDenied);
                store.fail(Call::Read, "", fault, 99);
            }
            let latest = BackupRef::parse("latest", prefix).unwrap();
            let e = catalog.pin(&latest, None, None).await.err().unwrap();
            let is_alone = catalog.is_denied_alone((&latest, None), &e).await;
            assert_eq!(is_alone, is_other_read, "{prefix:?} {e}");
        }
    }

    /// The directory of another user is denied as a whole.
    #[tokio::test]
    async fn a_directory_dump_that_cannot_be_listed_is_denied_alone() {
        let files: &[(&str, &[u8])] = &[("a.dump", b"PGDMP"), ("secret/toc.dat", b"PGDMP")];
        let (_folder, store, catalog) = catalog_of(files, &[]).await;
        store.hide("secret/", jiff::Timestamp::now());
        for name in ["secret/", "secret"] {
            let wanted = BackupRef::parse(name, "").unwrap();
            let e = catalog.pin(&wanted, None, None).await.err().unwrap();
            assert!(catalog.is_denied_alone((&wanted, None), &e).await, "{e}");
        }
    }
}

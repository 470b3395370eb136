//! The newest backup of an order.

use super::orders::Candidate;
use crate::catalog::BackupCatalog;
use crate::error::{FailureReason as R, RestoreError};
use crate::job::{BackupRef, LatestBackup};

/// What there is of the backups that are wanted.
#[derive(Debug)]
pub enum NewestBackup {
    Found(Candidate),
    /// There are no objects below the prefix.
    Nothing,
    /// There are some, and none of them can be taken.
    NoneOfThem(RestoreError),
}

/// The newest backup that is wanted.
///
/// # Errors
/// As `latest`, if it cannot be told which one is the newest.
pub async fn newest(
    catalog: &BackupCatalog,
    wanted: LatestBackup,
) -> Result<NewestBackup, RestoreError> {
    let prefix = wanted.prefix.clone();
    match catalog.pin(&BackupRef::Latest(wanted), None, None).await {
        Ok(None) => Ok(NewestBackup::Nothing),
        Ok(Some(pinned)) => Ok(NewestBackup::Found(Candidate {
            name: pinned.object.name,
            generation: pinned.object.generation,
            created: pinned.object.created,
        })),
        // Also where a soft-deleted object was the newest one: an older one in its place is what nobody asked for.
        Err(e) if e.reason() == R::BackupNotFound => {
            if catalog.has_objects(&prefix).await.unwrap_or(true) {
                Ok(NewestBackup::NoneOfThem(e))
            } else {
                Ok(NewestBackup::Nothing)
            }
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RawConfig};
    use crate::error::report;
    use crate::metrics::RestoreMetricsManager;
    use crate::store::Stores;

    /// That a schedule finds nothing where one name is overwritten must not look like an empty bucket.
    #[tokio::test]
    async fn only_an_empty_listing_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let bucket = format!("file://{}", folder.path().display());
        let raw = RawConfig::from_flags(&[("backup-bucket", bucket.as_str())]).unwrap();
        let config = Config::new(&raw).unwrap();
        let metrics = RestoreMetricsManager::new(0.0);
        let catalog = BackupCatalog::new(config.into(), Stores::new(None).into(), metrics);
        let due = |at| LatestBackup {
            at: Some(at),
            ..LatestBackup::default()
        };
        let before = jiff::Timestamp::UNIX_EPOCH;
        let found = newest(&catalog, due(before)).await.unwrap();
        assert!(matches!(found, NewestBackup::Nothing), "{found:?}");
        std::fs::write(folder.path().join("app.dump"), b"PGDMP\x01").unwrap();
        match newest(&catalog, due(before)).await.unwrap() {
            NewestBackup::NoneOfThem(e) => {
                let said = report(&e);
                assert!(said.contains("no backup not after 1970"), "{said}");
            }
            found => panic!("{found:?}"),
        }
    }
}

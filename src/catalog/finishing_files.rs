//! Files of SQL that requests and orders name to finish a restore: they are in RESTORE_FINISH_FROM, and nowhere else.

use std::sync::Arc;

use pgdump_restore::{FinishingSql, MAX_FINISHING_BYTES};

use super::backup_catalog::BackupCatalog;
use crate::error::{RestoreError, StorageKind, ValidationError, ValidationKind};
use crate::job::{FinishingFile, check_finish_names};
use crate::store::read_small;

impl BackupCatalog {
    /// Reads and checks the files of these names.
    ///
    /// # Errors
    /// `invalid_request` without RESTORE_FINISH_FROM, for a file that is not there, and as [`FinishingSql::parse`];
    /// `access_denied`, `download_failed`.
    pub(crate) async fn finishing_files(
        &self,
        names: &[String],
    ) -> Result<Vec<Arc<FinishingFile>>, RestoreError> {
        if names.is_empty() {
            return Ok(vec![]);
        }
        check_finish_names(names)?;
        let invalid = |what: String| ValidationError::new(ValidationKind::InvalidRequest, what);
        let Some(place) = &self.config.finish_from else {
            let what = "finish: no folder or prefix has files for it: set RESTORE_FINISH_FROM";
            return Err(invalid(what.to_owned()).into());
        };
        let store = self.stores.at(place).await?;
        let mut files = Vec::new();
        for name in names {
            let object = store.stat(name, None).await.map_err(|e| match e.kind() {
                StorageKind::NotFound => RestoreError::from(invalid(format!(
                    "finish: {} does not exist",
                    store.uri(name)
                ))),
                _ => e.into(),
            })?;
            if object.size > MAX_FINISHING_BYTES {
                return Err(FinishingSql::too_large(name).into());
            }
            let bytes = read_small(store.as_ref(), &object, MAX_FINISHING_BYTES).await?;
            files.push(Arc::new(FinishingFile::parse(name, &bytes)?));
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RawConfig};
    use crate::error::FailureReason as R;
    use crate::metrics::RestoreMetricsManager;
    use crate::store::Stores;

    fn catalog(flags: &[(&str, &str)]) -> BackupCatalog {
        let config = Config::new(&RawConfig::from_flags(flags).unwrap()).unwrap();
        let stores = Arc::new(Stores::new(None));
        BackupCatalog::new(Arc::new(config), stores, RestoreMetricsManager::new(0.0))
    }

    #[tokio::test]
    async fn only_files_of_the_configured_folder_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let (link, large) = (own.join("link.sql"), " ".repeat(2 << 20));
        for (path, text) in [
            (own.join("a.sql"), "SELECT 1"),
            (own.join("bad.sql"), "SELECT 1; COMMIT"),
            (own.join("large.sql"), large.as_str()),
            (folder.path().join("outside.sql"), "SELECT 1"),
        ] {
            std::fs::write(path, text).unwrap();
        }
        std::os::unix::fs::symlink(folder.path().join("outside.sql"), link).unwrap();
        let place = format!("file://{}", own.display());
        let with = catalog(&[("restore-finish-from", &place)]);
        let names = |name: &str| [name.to_owned()];
        let files = with.finishing_files(&names("a.sql")).await.unwrap();
        assert_eq!(files[0].sql.name(), "a.sql");
        for (name, reason, said) in [
            ("missing.sql", R::InvalidRequest, "does not exist"),
            (
                "bad.sql",
                R::InvalidRequest,
                "statement 2 at line 1: COMMIT",
            ),
            ("large.sql", R::InvalidRequest, "more than 1 MiB"),
            ("../outside.sql", R::InvalidRequest, "without .."),
            ("link.sql", R::SourceNotAllowed, "link.sql"),
        ] {
            let e = with.finishing_files(&names(name)).await.unwrap_err();
            assert_eq!(e.reason(), reason, "{name}: {e}");
            assert!(e.to_string().contains(said), "{name}: {e}");
        }
        let without = catalog(&[]);
        let e = without.finishing_files(&names("a.sql")).await.unwrap_err();
        assert!(e.to_string().contains("RESTORE_FINISH_FROM"), "{e}");
        assert!(without.finishing_files(&[]).await.unwrap().is_empty());
    }
}

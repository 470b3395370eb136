//! Files of SQL, and of checks, that requests and orders name to finish a restore: they are in RESTORE_FINISH_FROM, and nowhere
//! else.

use std::sync::Arc;

use pgdump_restore::{FinishingSql, MAX_FINISHING_BYTES};

use super::backup_catalog::BackupCatalog;
use crate::config::Document;
use crate::error::{RestoreError, StorageKind, ValidationError, ValidationKind};
use crate::job::{FinishingFile, check_finish_checks, check_finish_names};
use crate::store::read_small;

fn invalid(what: String) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

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
        check_finish_names(names)?;
        let mut files = Vec::new();
        for name in names {
            let bytes = self.finishing_bytes("finish", name).await?;
            files.push(Arc::new(FinishingFile::parse(name, &bytes)?));
        }
        Ok(files)
    }

    /// Reads the checks file of this name; what it says is not checked.
    ///
    /// # Errors
    /// `invalid_request` without RESTORE_FINISH_FROM, and for a file that is not there, is too large or is not UTF-8;
    /// `access_denied`, `download_failed`.
    pub(crate) async fn finishing_checks(&self, name: &str) -> Result<Document, RestoreError> {
        check_finish_checks(Some(name))?;
        let bytes = self.finishing_bytes("finish_checks", name).await?;
        let text = String::from_utf8(bytes);
        let text = text.map_err(|_| invalid(format!("finish_checks: {name}: is not UTF-8")))?;
        Ok(Document {
            path: name.to_owned(),
            text,
        })
    }

    /// Whether RESTORE_FINISH_FROM, if it is set, exists and may be listed.
    ///
    /// # Errors
    /// `backup_not_found`, `access_denied`, `download_failed`.
    pub(crate) async fn check_finishing_place(&self) -> Result<(), RestoreError> {
        if let Some(place) = &self.config.finish_from {
            self.stores.at(place).await?.check_exists().await?;
        }
        Ok(())
    }

    /// Reads a file of RESTORE_FINISH_FROM that `field` of a request or an order names.
    async fn finishing_bytes(&self, field: &str, name: &str) -> Result<Vec<u8>, RestoreError> {
        let Some(place) = &self.config.finish_from else {
            return Err(invalid(format!(
                "{field}: the location of such files is not configured: set RESTORE_FINISH_FROM"
            )));
        };
        let store = self.stores.at(place).await?;
        let object = store.stat(name, None).await.map_err(|e| match e.kind() {
            StorageKind::NotFound => {
                invalid(format!("{field}: {} does not exist", store.uri(name)))
            }
            _ => e.into(),
        })?;
        if object.size > MAX_FINISHING_BYTES {
            return Err(match field {
                "finish" => FinishingSql::too_large(name).into(),
                _ => invalid(format!(
                    "{field}: {name} has more than {} MiB",
                    MAX_FINISHING_BYTES >> 20
                )),
            });
        }
        Ok(read_small(store.as_ref(), &object, MAX_FINISHING_BYTES).await?)
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
        std::fs::write(own.join("checks.yaml"), "assertions: []").unwrap();
        let checks = with.finishing_checks("checks.yaml").await.unwrap();
        let read = (checks.path.as_str(), checks.text.as_str());
        assert_eq!(read, ("checks.yaml", "assertions: []"));
        for (catalog, name, said) in [
            (&with, "missing.yaml", "does not exist"),
            (&with, "a.sql", "ends in .yaml"),
            (&without, "checks.yaml", "RESTORE_FINISH_FROM"),
        ] {
            let e = catalog.finishing_checks(name).await.unwrap_err();
            assert_eq!(e.reason(), R::InvalidRequest, "{name}: {e}");
            let begins = e.to_string().starts_with("finish_checks: ");
            assert!(begins && e.to_string().contains(said), "{name}: {e}");
        }
    }
}

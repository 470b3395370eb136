//! What standing restores ask of the catalogue: where their state is kept, and whether there are backups at all.

use std::sync::Arc;

use super::backup_catalog::BackupCatalog;
use crate::backup;
use crate::config::EvidencePlace;
use crate::error::RestoreError;
use crate::store::BackupStore;

impl BackupCatalog {
    /// The store with the state of standing restores: where outcomes are recorded, otherwise where evidence is kept.
    ///
    /// # Errors
    /// `access_denied` where there is no client for it.
    pub(crate) async fn standing_store(&self) -> Result<Arc<dyn BackupStore>, RestoreError> {
        let place = match (&self.config.records, &self.config.verify.evidence) {
            (Some(records), _) => records,
            (None, EvidencePlace::At(place)) => place,
            (None, EvidencePlace::BesideBackup | EvidencePlace::Nowhere) => &self.config.bucket,
        };
        Ok(self.stores.at(place).await?)
    }

    /// Whether outcomes are recorded, so that a repeated request gets its outcome.
    pub(crate) fn records_outcomes(&self) -> bool {
        self.config.records.is_some()
    }

    /// Whether there are objects below `prefix`, or have been and are kept as former or soft-deleted ones.
    ///
    /// # Errors
    /// The store's own.
    pub(crate) async fn has_objects(&self, prefix: &str) -> Result<bool, RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        if store.has_generations() {
            let (all, _) = self.generations(prefix).await?;
            return Ok(!all.is_empty());
        }
        let listed = backup::list_objects(store.as_ref(), prefix, false).await;
        Ok(!listed.map_err(backup::of_bucket)?.is_empty())
    }
}

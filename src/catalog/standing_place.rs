//! Where the state of standing restores is kept.

use std::sync::Arc;

use super::backup_catalog::BackupCatalog;
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
}

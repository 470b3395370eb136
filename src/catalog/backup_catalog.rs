//! What the catalogue works with.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Config;
use crate::metrics::RestoreMetricsManager;
use crate::store::Stores;
use crate::verification::OwnEvidence;

/// The backups of BACKUP_BUCKET and of the other places that requests may name.
#[derive(Clone)]
pub struct BackupCatalog {
    pub(super) config: Arc<Config>,
    pub(super) stores: Arc<Stores>,
    pub(super) metrics: RestoreMetricsManager,
    pub(super) own_evidence: Arc<OwnEvidence>,
    /// When the newest proven backup of each set was created.
    pub(super) newest_proven: Arc<Mutex<HashMap<String, jiff::Timestamp>>>,
}

impl BackupCatalog {
    pub fn new(config: Arc<Config>, stores: Arc<Stores>, metrics: RestoreMetricsManager) -> Self {
        let (own_evidence, newest_proven) = Default::default();
        BackupCatalog {
            config,
            stores,
            metrics,
            own_evidence,
            newest_proven,
        }
    }
}

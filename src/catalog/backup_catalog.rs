//! What the catalogue works with.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::archived_database::KnownDatabases;
use super::set_status::BackupSetStatus;
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
    /// The status of each set, as far as it is known.
    pub(super) standing: Arc<Mutex<HashMap<String, BackupSetStatus>>>,
    /// What backups that were looked into said about their databases.
    pub(super) known_databases: Arc<KnownDatabases>,
}

impl BackupCatalog {
    pub fn new(config: Arc<Config>, stores: Arc<Stores>, metrics: RestoreMetricsManager) -> Self {
        let (own_evidence, standing, known_databases) = Default::default();
        BackupCatalog {
            config,
            stores,
            metrics,
            own_evidence,
            standing,
            known_databases,
        }
    }
}

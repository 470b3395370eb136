//! [`BackupCatalog`]: the backups of a bucket and everything that is known about them. It lists, selects,
//! pins and opens backups, keeps evidence, outcomes and restore indexes, and decides which backups are due
//! for a verification and which may be deleted.

mod archived_database;
mod backup_catalog;
mod backup_sets;
mod companions;
mod data_offsets;
mod database_names;
mod denied_object;
mod due_verifications;
mod evidence;
mod finishing_files;
#[cfg(test)]
mod folder_catalog;
mod former_generations;
mod grouped_backups;
mod idempotency_records;
mod latest;
mod listed_rows;
mod locked_backups;
mod past_outcomes;
mod proofs;
mod prune;
mod reader;
mod set_status;
mod settled_verdict;
mod standing_place;
mod stored_indexes;
mod trusted_sources;
mod whole_backups;

pub(crate) use archived_database::ArchivedDatabase;
pub use backup_catalog::BackupCatalog;
#[cfg(test)]
pub(crate) use folder_catalog::archive_of;
pub use former_generations::RestoredGeneration;
pub use locked_backups::{BackupLock, BackupLocks};
pub use proofs::{
    BackupProof, ClusterDatabaseProof, GenerationListing, ProvenBackup, ProvenGeneration,
    ProvenListing,
};
pub(crate) use reader::{WantedBackup, describe};
pub use set_status::{BackupSetStatus, DatabaseStatus};
pub(crate) use settled_verdict::settle_without_evidence;
pub(crate) use trusted_sources::Restriction;

//! [`BackupCatalog`]: the backups of a bucket and everything that is known about them. It lists, selects,
//! pins and opens backups, keeps evidence, outcomes and restore indexes, and decides which backups are due
//! for a verification and which may be deleted.

mod backup_catalog;
mod denial;
mod evidence;
mod index;
mod outcomes;
mod reader;
mod retention;
mod schedule;
mod sources;
mod status;

pub use backup_catalog::BackupCatalog;
pub(crate) use reader::{WantedBackup, describe};
pub use status::BackupSetStatus;

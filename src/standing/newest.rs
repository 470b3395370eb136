//! The newest backup of an order.

use super::orders::Candidate;
use crate::catalog::BackupCatalog;
use crate::error::{FailureReason as R, RestoreError, report};
use crate::job::{BackupRef, LatestBackup};

/// The newest backup that is wanted; `None` if there is none.
///
/// # Errors
/// As `latest`, if it cannot be told which one is the newest.
pub async fn newest(
    catalog: &BackupCatalog,
    wanted: LatestBackup,
) -> Result<Option<Candidate>, RestoreError> {
    match catalog.pin(&BackupRef::Latest(wanted), None, None).await {
        Ok(pinned) => Ok(pinned.map(|pinned| Candidate {
            name: pinned.object.name,
            generation: pinned.object.generation,
            created: pinned.object.created,
        })),
        Err(e) if e.reason() == R::BackupNotFound => {
            tracing::debug!(why = report(&e), "a standing restore has no backup");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

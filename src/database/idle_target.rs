//! A target on which nobody works, held for a moment so that nobody begins.

use super::advisory_locks::take_locks;
use super::journal::{Journal, RequestStatus};
use crate::error::RestoreError;
use crate::postgres::{Server, Session};

/// The locks of a target and of a request, which end with this value.
pub struct IdleTarget {
    _lock: Session,
    has_outcome: bool,
}

impl IdleTarget {
    /// Whether the journal has an outcome of the request.
    pub fn has_outcome(&self) -> bool {
        self.has_outcome
    }
}

/// Holds a target and a request on which no restore works.
///
/// # Errors
/// `target_busy` if a restore works on one of them; `target_unavailable`, `access_denied`.
pub async fn hold_idle(
    server: &Server,
    target: &str,
    request_id: &str,
) -> Result<IdleTarget, RestoreError> {
    let lock = server.without_retry().maintenance("lock").await?;
    take_locks(&lock, target, request_id).await?;
    let journal = Journal::find(&lock).await?;
    let status = journal.look_up(&lock, request_id).await?;
    Ok(IdleTarget {
        _lock: lock,
        has_outcome: matches!(status, RequestStatus::Done { .. }),
    })
}

//! Work that waits for its next attempt under the name of its target, when another request is for the same target. The order
//! of the requests decides: an older one waits until the newer one has been answered; a newer one goes first, and drops what
//! the older one has loaded once it needs the name. The journal keeps that for the next attempt of the older one.

use super::target_lock::TargetLock;
use super::waiting::is_continuable;
use super::work_rows::KeptWorkRow;
use super::{in_place, names::staging_name};
use crate::config::Resume;
use crate::error::{DatabaseError, DatabaseKind, RestoreError};

impl TargetLock {
    /// What another request has loaded, and waits to go on with, under the target's own name.
    pub(super) async fn waiting_in_place(&self) -> Result<Option<KeptWorkRow>, DatabaseError> {
        let terms = self.policy.resume;
        if terms.mode == Resume::Never {
            return Ok(None);
        }
        let works = self.journal.kept_work(&self.lock, terms.within).await?;
        let is_it = |work: &KeptWorkRow| {
            work.name == self.target && work.request_id != self.request_id && is_continuable(work)
        };
        Ok(works.into_iter().find(is_it))
    }

    /// Whether such work of an older request is there, which is then left alone until [`TargetLock::displace_waiting`].
    ///
    /// # Errors
    /// `target_busy` if it is that of a newer request; `target_unavailable`.
    pub(super) async fn goes_before_waiting(&self) -> Result<bool, RestoreError> {
        let Some(work) = self.waiting_in_place().await? else {
            return Ok(false);
        };
        if work.published_us > self.published_us {
            let what = format!(
                "the newer request {} has loaded a part of database {}, and waits for its next attempt",
                work.request_id, self.target
            );
            return Err(DatabaseError::new(DatabaseKind::Busy, what).into());
        }
        Ok(true)
    }

    /// Drops what an older request has loaded under the target's own name, which is needed now; a note for the result says
    /// so. Nothing if there is no such work.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn displace_waiting(&self) -> Result<Option<String>, RestoreError> {
        let Some(work) = self.waiting_in_place().await? else {
            return Ok(None);
        };
        let note = format!(
            "request {}, which is older and waited for its next attempt, has lost what it had loaded under the name {}: {} rows, {} bytes",
            work.request_id, self.target, work.rows, work.bytes
        );
        tracing::warn!(
            why = note.as_str(),
            "the work of another request is dropped"
        );
        // First, because the other request must not find that nothing says what became of its work.
        let lost = staging_name(&work.request_id);
        self.journal
            .displace_work(&self.lock, (&work.name, &lost), &self.request_id)
            .await?;
        in_place::remove(&self.server, &self.lock, self.journal, &self.target).await?;
        Ok(Some(note))
    }
}

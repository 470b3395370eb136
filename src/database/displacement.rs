//! Work that waits for its next attempt under the name of its target, when another request is for the same target. The order
//! of the requests decides: an older one waits until the newer one has been answered; a newer one goes first, and drops what
//! the older one has loaded once it needs the name. The journal keeps that for the next attempt of the older one. Nobody waits
//! for a person, who may never come back: what a command has left is passed by every request.

use super::staging::Staging;
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

    /// Whether such work is there that this request goes before: it is then left alone until [`TargetLock::displace_waiting`].
    ///
    /// # Errors
    /// `target_busy` if it is that of a newer request, which is delivered again; `target_unavailable`.
    pub(super) async fn goes_before_waiting(&self) -> Result<bool, RestoreError> {
        let Some(work) = self.waiting_in_place().await? else {
            return Ok(false);
        };
        if is_waited_for(&work, self.published_us) {
            let what = format!(
                "the newer request {} has loaded a part of database {}, and waits for its next attempt",
                work.request_id, self.target
            );
            return Err(DatabaseError::new(DatabaseKind::Busy, what).into());
        }
        Ok(true)
    }

    /// Drops what another request has loaded under the target's own name, which is needed now for `staging`; a note for the
    /// result says so. What has waited there when this attempt began, and cannot be continued any more, is dropped, too.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn displace_waiting(
        &self,
        staging: &Staging,
    ) -> Result<Option<String>, RestoreError> {
        if staging.is_in_place {
            return Ok(None);
        }
        let Some(work) = self.waiting_in_place().await? else {
            if self.existing.is_none() {
                in_place::remove(&self.server, &self.lock, self.journal, &self.target).await?;
            }
            return Ok(None);
        };
        let note = format!(
            "request {}, which waited for its next attempt, has lost what it had loaded under the name {}: {} rows, {} bytes",
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

/// Whether a request that was published at this time waits until this work is continued.
fn is_waited_for(work: &KeptWorkRow, published_us: i64) -> bool {
    !work.by_command && work.published_us > published_us
}

#[cfg(test)]
mod tests {
    use super::super::waiting::kept_row;
    use super::*;

    #[test]
    fn only_older_requests_wait_and_not_for_a_person() {
        let of = |by_command, published_us| {
            let work = KeptWorkRow {
                published_us,
                ..kept_row(by_command)
            };
            is_waited_for(&work, 5)
        };
        assert!(of(false, 6));
        assert!(!of(false, 4) && !of(false, 5));
        assert!(!of(true, 6) && !of(true, 4));
    }
}

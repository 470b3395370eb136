//! Backups of several objects whose upload may still be going on when they are announced.

use std::time::Duration;

use super::RestoreManager;
use crate::backup::{self, PinnedBackup};
use crate::error::{FailureReason as R, RestoreError};
use crate::job::VerifyJob;
use crate::policy::Trigger;

/// How often a folder is looked at until all of its members are there.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);

impl RestoreManager {
    /// Pins the backup. Pieces may arrive in any order: those that are missing after a notification are
    /// given the time of an upload.
    pub(super) async fn pin_whole(
        &self,
        job: &VerifyJob,
        crc32c: Option<u32>,
    ) -> Result<Option<PinnedBackup>, RestoreError> {
        let deadline = tokio::time::Instant::now() + self.config.verify.settle;
        loop {
            match self.pin_job(job, crc32c).await {
                Err(e)
                    if e.reason() == R::ArchiveCorrupt
                        && job.trigger == Trigger::Notification
                        && tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(SETTLE_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// A folder, or pieces of a file, whose upload may still be going on: waits until there are other
    /// members than before. `None` for what has none, or where nothing came for the time that uploads are
    /// given.
    pub(super) async fn wait_for_upload(
        &self,
        pinned: &PinnedBackup,
        job: &VerifyJob,
    ) -> Result<Option<PinnedBackup>, RestoreError> {
        let object = &pinned.object;
        // The first piece looks like a file of its own until the second one is there.
        let may_be_piece = pinned.members.is_empty() && backup::is_first_piece(&object.name);
        if pinned.members.is_empty() && !may_be_piece {
            return Ok(None);
        }
        let newest = pinned
            .members
            .iter()
            .map(|m| m.created)
            .max()
            .unwrap_or(object.created);
        let age =
            Duration::try_from(jiff::Timestamp::now().duration_since(newest)).unwrap_or_default();
        let deadline = tokio::time::Instant::now() + self.config.verify.settle.saturating_sub(age);
        while tokio::time::Instant::now() < deadline {
            tokio::time::sleep(SETTLE_PAUSE).await;
            let now = if pinned.is_folder() {
                let generation = Some(object.generation);
                backup::pin(pinned.store.clone(), &object.name, generation, None)
                    .await
                    .map(Some)
            } else {
                self.pin_job(job, None).await
            };
            match now {
                Ok(Some(now)) if now.members != pinned.members => return Ok(Some(now)),
                Ok(_) => {}
                // A piece between others, which is still to come.
                Err(e) if e.reason() == R::ArchiveCorrupt => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

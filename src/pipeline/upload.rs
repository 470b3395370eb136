//! Backups of several objects whose upload may still be running when they are announced.

use pgdump_archive::Crc32c;
use std::time::Duration;

use super::job_context::JobContext;
use crate::backup::{self, PinnedBackup};
use crate::error::{FailureReason as R, RestoreError};
use crate::job::VerifyJob;
use crate::policy::Trigger;

/// How often a directory is listed until all of its members have arrived.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);

/// Pins the backup. Pieces may arrive in any order: pieces that are missing after a notification are
/// given the time of an upload.
pub(super) async fn pin_whole(
    context: &JobContext<'_, VerifyJob>,
    crc32c: Option<Crc32c>,
) -> Result<Option<PinnedBackup>, RestoreError> {
    let job = context.job;
    let deadline = tokio::time::Instant::now() + context.config().verify.settle;
    loop {
        let pinned = context.catalog().pin_job(job, crc32c);
        match pinned.await {
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

/// Waits until a directory, or the pieces of a file, have other members than before. `None` for a backup
/// that has no members, or if nothing arrived within the time that an upload is given.
pub(super) async fn wait_for_upload(
    context: &JobContext<'_, VerifyJob>,
    pinned: &PinnedBackup,
) -> Result<Option<PinnedBackup>, RestoreError> {
    let (job, object) = (context.job, &pinned.object);
    // The first piece looks like a file of its own until the second one arrives.
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
    let age = Duration::try_from(jiff::Timestamp::now().duration_since(newest)).unwrap_or_default();
    let left = context.config().verify.settle.saturating_sub(age);
    let deadline = tokio::time::Instant::now() + left;
    while tokio::time::Instant::now() < deadline {
        tokio::time::sleep(SETTLE_PAUSE).await;
        let now = if pinned.is_folder() {
            let generation = Some(object.generation);
            backup::pin(pinned.store.clone(), &object.name, generation, None)
                .await
                .map(Some)
        } else {
            context.catalog().pin_job(job, None).await
        };
        match now {
            Ok(Some(now)) if now.members != pinned.members => return Ok(Some(now)),
            Ok(_) => {}
            // A piece between others that is still to come.
            Err(e) if e.reason() == R::ArchiveCorrupt => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

//! How a restore reads its backup: in order, or by blocks with several readers, if it is known where they are.

use pgdump_archive::BlockIndex;
use pgdump_restore::Stage;

use super::job_context::JobContext;
use super::states::{Opened, Pinned};
use crate::error::{Blame, FailureReason as R, RestoreError, report as said};
use crate::job::RestoreJob;

type RestoreContext<'a> = JobContext<'a, RestoreJob>;

/// How the data of a backup is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMethod {
    /// As its format says, which is the reading that counts.
    Plain,
    /// By a restore index.
    ByIndex,
    /// By the offsets of its own table of contents.
    ByOffsets,
}

impl ReadMethod {
    /// Whether what says where the blocks are may be the cause of an error, if it is wrong.
    pub(super) fn may_be_the_cause(self, context: &RestoreContext<'_>, e: &RestoreError) -> bool {
        let is_suspect = match self {
            ReadMethod::Plain => false,
            // It may be anybody's, and looks like a fault of the backup.
            ReadMethod::ByIndex => {
                e.reason().blame() == Blame::Backup && e.blame() != Blame::Target
            }
            // What reached the server began with its own entry: only the reader and the checksum can contradict an offset.
            ReadMethod::ByOffsets => {
                matches!(e.reason(), R::ArchiveCorrupt | R::ChecksumMismatch)
            }
        };
        // A check of the requester has failed: the database is loaded.
        let is_loaded = context.progress.stage() == Stage::Finish;
        is_suspect && !is_loaded && !context.cancel.is_cancelled()
    }
}

/// Opens the backup, to be read by blocks if `index` or its own table of contents says where they are.
///
/// # Errors
/// As [`Pinned::open`].
pub(super) async fn open(
    context: &RestoreContext<'_>,
    pinned: &Pinned,
    index: Option<BlockIndex>,
) -> Result<(Opened, ReadMethod), RestoreError> {
    let (Some(index), Some(backup)) = (index, pinned.backup().cloned()) else {
        let database = context.job.database.as_deref();
        let opened = pinned.open_by_offsets(context, database).await?;
        let reading = if opened.archive.is_read_by_offsets() {
            ReadMethod::ByOffsets
        } else {
            ReadMethod::Plain
        };
        return Ok((opened, reading));
    };
    match Pinned::open_by_index(backup, index, context).await {
        Err(e) if ReadMethod::ByIndex.may_be_the_cause(context, &e) => {
            let opened = open_in_order(context, pinned, &e).await?;
            Ok((opened, ReadMethod::Plain))
        }
        opened => Ok((opened?, ReadMethod::ByIndex)),
    }
}

/// Opens the backup once more, to read it from front to back.
///
/// # Errors
/// As [`Pinned::open`].
pub(super) async fn open_in_order(
    context: &RestoreContext<'_>,
    pinned: &Pinned,
    e: &RestoreError,
) -> Result<Opened, RestoreError> {
    tracing::warn!(
        error = said(e),
        "reading by blocks failed: the backup is read from front to back instead"
    );
    context.progress.begin_again();
    let database = context.job.database.as_deref();
    pinned.open(context, database).await
}

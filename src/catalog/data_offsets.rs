//! Custom archives whose table of contents says where their data is: several readers read a large one, also for the first
//! time, when there is no restore index.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::backup_catalog::BackupCatalog;
use crate::backup::{self, IntegrityCheck, PinnedBackup};
use crate::error::{RestoreError, report as said};
use crate::progress::Progress;
use pgdump_archive::Archive;

impl BackupCatalog {
    /// Has an archive that was just opened read by the offsets of its table of contents, if it is large, is stored as it
    /// is, and has them. Otherwise it is read as one stream, as it was opened. If it is read by offsets, only the check that
    /// is returned proves it, and nothing of it was read but the table of contents.
    ///
    /// # Errors
    /// `internal`. Offsets that cannot be true are not errors: the stream shows what the archive is.
    pub(crate) async fn read_by_offsets(
        &self,
        (mut archive, integrity): (Archive, IntegrityCheck),
        pinned: &PinnedBackup,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<(Archive, IntegrityCheck), RestoreError> {
        let size = pinned.object.size;
        if !pinned.members.is_empty() || size < self.config.offsets_from {
            return Ok((archive, integrity));
        }
        if archive.trailer_bytes().is_some() {
            // They may be in a table of contents behind the data.
            self.look_at_end(&mut archive, Some(pinned)).await;
        }
        let options = self.download_options();
        let (ranges, check) = backup::open_by_offsets(pinned.clone(), options, progress, stop);
        let located = tokio::task::spawn_blocking(move || {
            let located = archive.read_by_offsets(size, ranges);
            (archive, located)
        });
        let (archive, located) = located
            .await
            .map_err(|e| RestoreError::internal(format!("the archive reader panicked: {e}")))?;
        match located {
            Ok(()) => {
                tracing::info!(
                    backup = pinned.uri(),
                    "reading by the offsets of the table of contents"
                );
                Ok((archive, check))
            }
            Err(e) => {
                tracing::debug!(error = said(&e), "reading from front to back");
                Ok((archive, integrity))
            }
        }
    }
}

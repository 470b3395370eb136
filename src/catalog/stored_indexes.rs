//! The restore index: written by a verification, used by a restore of the same generation.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::backup_catalog::BackupCatalog;
use crate::backup::{self, IntegrityCheck, PinnedBackup, encode_crc32c};
use crate::error::{RestoreError, report as said};
use crate::progress::Progress;
use crate::proof::VerificationReport;
use crate::verification::RestoreIndex;
use pgdump_archive::{Archive, BlockIndex, ContentDigest};

impl BackupCatalog {
    /// Writes where the blocks of a custom archive are. Without it, a restore reads from front to back.
    pub(crate) async fn keep_index(
        &self,
        pinned: Option<&PinnedBackup>,
        report: &VerificationReport,
        content_digest: &ContentDigest,
    ) {
        let index = content_digest.index();
        let pinned = pinned.filter(|p| p.members.is_empty());
        let (Some(p), Some((size, crc32c))) = (pinned, index.whole()) else {
            return;
        };
        if index.blocks.is_empty()
            || size != p.object.size
            || report.backup.crc32c != Some(encode_crc32c(crc32c))
        {
            // Compressed as a whole: blocks have no position in the object.
            return;
        }
        let generation = p.object.generation.to_string();
        let document = RestoreIndex {
            generation,
            size: size.to_string(),
            crc32c: encode_crc32c(crc32c),
            index,
        };
        let kept = async {
            match self.evidence(Some(p)).await? {
                Some(evidence) => evidence.write_index(&p.object.name, &document).await,
                None => Ok(()),
            }
        };
        if let Err(e) = kept.await {
            tracing::warn!(error = said(&e), "the restore index was not written");
        }
    }

    /// The index of a backup, if there is one for exactly these bytes.
    pub(crate) async fn index_of(&self, pinned: &PinnedBackup) -> Option<BlockIndex> {
        if !pinned.members.is_empty() {
            return None;
        }
        let generation = pinned.object.generation.to_string();
        let found = async {
            match self.evidence(Some(pinned)).await? {
                Some(evidence) => evidence.index(&pinned.object.name, &generation).await,
                None => Ok(None),
            }
        };
        let document = match found.await {
            Ok(document) => document?,
            Err(e) => {
                tracing::warn!(error = said(&e), "the restore index cannot be used");
                return None;
            }
        };
        let (size, crc32c) = document.index.whole()?;
        let same = document.generation == generation
            && size == pinned.object.size
            && document.crc32c == encode_crc32c(crc32c)
            && pinned.expected_crc32c.is_none_or(|wanted| wanted == crc32c);
        if !same {
            tracing::warn!(
                backup = pinned.uri(),
                "the restore index belongs to other bytes and is not used"
            );
        }
        same.then_some(document.index)
    }

    /// Opens an archive to be read by blocks.
    pub(crate) async fn read_by_blocks(
        &self,
        pinned: PinnedBackup,
        index: BlockIndex,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<(Archive, IntegrityCheck), RestoreError> {
        let expected = index
            .blocks
            .iter()
            .fold(0u64, |n, b| n.saturating_add(b.bytes));
        progress
            .data_expected
            .store(expected, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(
            backup = pinned.uri(),
            blocks = index.blocks.len(),
            "reading by the restore index"
        );
        let (origin, ranges, expected) =
            backup::open_by_blocks(pinned, &index, self.download_options(), progress, stop);
        let (keys, bounds) = (self.keys()?, self.archive_limits());
        let opened = tokio::task::spawn_blocking(move || {
            let mut archive = Archive::open(origin, bounds, &keys)?;
            archive.read_by_blocks(&index, ranges)?;
            Ok::<_, RestoreError>(archive)
        });
        let archive = opened
            .await
            .map_err(|e| RestoreError::internal(format!("the archive reader panicked: {e}")))??;
        Ok((archive, expected))
    }
}

//! The restore index: kept by a verification, used by the restore of the same generation.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::context::{JobContext, LoadProof};
use super::source::WantedBackup;
use super::{RestoreManager, RunState};
use crate::backup::{self, IntegrityCheck, PinnedBackup, ReadHint, Source, encode_crc32c};
use crate::database::{Staging, TargetLock};
use crate::error::{Blame, RestoreError, report as said};
use crate::job::RestoreJob;
use crate::progress::Progress;
use crate::proof::VerificationReport;
use crate::verification::RestoreIndex;
use pgdump_archive::{Archive, BlockIndex, ContentDigest};

impl RestoreManager {
    /// Everything up to a loaded and proven staging database. A restore index says only where things are: what
    /// fails by it is read once more from front to back, and that counts.
    pub(super) async fn load(
        &self,
        context: &JobContext<'_, RestoreJob>,
        claimed: &TargetLock,
        staging: &mut Option<Staging>,
        facts: &mut RunState,
    ) -> Result<LoadProof, RestoreError> {
        let JobContext {
            job,
            progress,
            cancel: stop,
            ..
        } = *context;
        let source = self.source(job, facts).await?;
        let pinned = if let Source::Object(b) = &source {
            Some(b.clone())
        } else {
            None
        };
        facts.pinned.clone_from(&pinned);
        let index = match &pinned {
            // With a database to look for, the archive is read as it is.
            Some(p) if job.database.is_none() => self.index_of(p).await,
            _ => None,
        };
        let (Some(index), Some(p)) = (index, pinned) else {
            let wanted = WantedBackup {
                source,
                database: job.database.clone(),
            };
            let mut opened = self
                .read_database(wanted, ReadHint::Whole, progress.clone(), stop.clone())
                .await?;
            if job.database.is_none() {
                self.look_ahead(&mut opened.0, facts.pinned.as_ref()).await;
            }
            return self
                .load_from(context, opened, claimed, staging, facts)
                .await;
        };
        let notes = facts.notes.len();
        let by_index = async {
            let opened = self
                .read_by_blocks(p, index, progress.clone(), stop.clone())
                .await?;
            self.load_from(context, opened, claimed, staging, facts)
                .await
        };
        match by_index.await {
            Err(e) if e.reason().blame() == Blame::Backup && !stop.is_cancelled() => {
                tracing::warn!(
                    error = said(&e),
                    "reading by the restore index failed: the backup is read from front to back instead"
                );
                *staging = None;
                facts.notes.truncate(notes);
                progress.begin_again();
                let opened = self
                    .read(source, ReadHint::Whole, progress.clone(), stop.clone())
                    .await?;
                self.load_from(context, opened, claimed, staging, facts)
                    .await
            }
            other => other,
        }
    }

    /// Keeps what was learned of a custom archive. Without it, a restore reads from front to back.
    pub(super) async fn keep_index(
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
            // Wrapped as a whole: blocks cannot be found from outside.
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

    /// The index of a backup, where there is one and it is of these bytes.
    pub(super) async fn index_of(&self, pinned: &PinnedBackup) -> Option<BlockIndex> {
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
                "the restore index is of other bytes and is not used"
            );
        }
        same.then_some(document.index)
    }

    /// Opens an archive to be read by blocks.
    pub(super) async fn read_by_blocks(
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
            backup::open_by_blocks(pinned, &index, self.limits(), progress, stop);
        let (keys, bounds) = (self.keys()?, self.archive_limits());
        let opened = tokio::task::spawn_blocking(move || {
            let mut archive = Archive::open(origin, bounds, &keys)?;
            archive.read_by_blocks(&index, ranges)?;
            Ok::<_, RestoreError>(archive)
        });
        let archive = opened
            .await
            .map_err(|e| RestoreError::internal(format!("the archive reader died: {e}")))??;
        Ok((archive, expected))
    }
}

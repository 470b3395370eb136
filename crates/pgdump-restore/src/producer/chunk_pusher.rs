//! Puts chunks on the work queue as memory allows.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::copy_lines::ChunkLines;
use crate::error::{JobError, JobKind, RestoreError};
use crate::ids::NodeId;
use crate::load_context::LoadContext;
use crate::work_queue::{MemoryPermit, QueuedChunk, WorkQueue};
use pgdump_archive::{Chunk, DigestBuilder, EntryKind, TocEntry};

pub(super) struct ChunkPusher {
    pub work_queue: Arc<WorkQueue>,
    pub job: Arc<LoadContext>,
    runtime: Handle,
    /// Counts the data of the current entry.
    tally: Option<DigestBuilder>,
    /// Lines of the current entry's rows so far.
    lines: u64,
}

impl ChunkPusher {
    pub(super) fn new(work_queue: Arc<WorkQueue>, job: Arc<LoadContext>) -> Self {
        ChunkPusher {
            work_queue,
            job,
            runtime: Handle::current(),
            tally: None,
            lines: 0,
        }
    }

    pub(super) fn begin(&mut self, node: NodeId, entry: &TocEntry) -> Result<(), RestoreError> {
        if let Some(content_digest) = &self.job.content_digest {
            self.tally = Some(content_digest.next(self.tally.take(), entry)?);
        }
        self.lines = 0;
        if entry.kind == EntryKind::TableData {
            self.job.observer.table_begun(&entry.qualified_name());
        }
        self.work_queue.change(|s| s.begin(node));
        Ok(())
    }

    pub(super) fn push(&mut self, node: NodeId, chunk: Chunk) -> Result<(), RestoreError> {
        let bytes = chunk.len() as u64;
        if let Some(tally) = &mut self.tally {
            tally.chunk(&chunk, &self.job.encoding)?;
        }
        let permit = self.reserve(bytes, Some(node))?;
        let splittable = ends_row(&chunk);
        let lines = self.lines_of(&chunk);
        let queued = QueuedChunk::new(chunk, permit, lines);
        self.work_queue
            .change(|s| s.push(node, queued, bytes, splittable));
        self.check_size(self.job.bytes_read(bytes))
    }

    fn lines_of(&mut self, chunk: &Chunk) -> ChunkLines {
        let count = match chunk {
            Chunk::Rows { text, .. } => memchr::memchr_iter(b'\n', text).count() as u64,
            Chunk::Statements { .. } | Chunk::LargeObject { .. } => 0,
        };
        let before = self.lines;
        self.lines += count;
        ChunkLines { before, count }
    }

    /// Waits for memory; see [`WorkQueue::reserve`].
    pub(super) fn reserve(
        &self,
        bytes: u64,
        node: Option<NodeId>,
    ) -> Result<Option<MemoryPermit>, RestoreError> {
        self.wait(self.work_queue.reserve(bytes, node))
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn check_size(&self, so_far: u64) -> Result<(), RestoreError> {
        if so_far <= self.job.max_bytes {
            return Ok(());
        }
        let what = format!(
            "the backup has more than {} GiB of data (RESTORE_MAX_GIB)",
            self.job.max_bytes >> 30
        );
        // This worker's own limit, so the backup is not to blame.
        Err(JobError::new(JobKind::TooMuchData, what).into())
    }

    pub(super) fn end(&mut self, node: NodeId, entry: &TocEntry) -> Result<(), RestoreError> {
        if let (Some(content_digest), Some(tally)) = (&self.job.content_digest, self.tally.take()) {
            content_digest.finish(tally)?;
        }
        self.work_queue.change(|s| s.end(node));
        if entry.kind == EntryKind::TableData {
            self.job.table_read(&entry.qualified_name());
        }
        Ok(())
    }
}

/// Whether another session may send the next chunk.
fn ends_row(chunk: &Chunk) -> bool {
    match chunk {
        Chunk::Rows { ends_row, .. } => *ends_row,
        Chunk::Statements { .. } | Chunk::LargeObject { .. } => true,
    }
}

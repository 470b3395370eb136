//! Puts chunks on the work queue as memory allows, without what an earlier attempt has loaded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::pieces::{Piece, lines_of};
use super::span_check::{RecordDiffers, SpanCheck};
use crate::copy_lines::ChunkLines;
use crate::error::{JobError, JobKind, RestoreError};
use crate::ids::NodeId;
use crate::load_context::LoadContext;
use crate::work_queue::{MemoryPermit, QueuedChunk, WorkQueue};
use crate::work_record::{DataEnd, UnitId};
use pgdump_archive::{Chunk, DigestBuilder, EntryKind, TocEntry};

pub(super) struct ChunkPusher {
    pub work_queue: Arc<WorkQueue>,
    pub job: Arc<LoadContext>,
    runtime: Handle,
    /// Counts the data of the current entry.
    tally: Option<DigestBuilder>,
    /// The entries that have begun and not ended. Large objects of one may lie between the data of others.
    begun: HashMap<NodeId, UnitData>,
}

/// How much of an entry's data has been read.
struct UnitData {
    unit: UnitId,
    /// For errors.
    name: String,
    bytes: u64,
    lines: u64,
    /// An earlier attempt has loaded the end of the last chunk.
    is_skipping: bool,
    /// Compares what earlier attempts have loaded.
    check: SpanCheck,
}

/// What places in an entry's data are counted in.
const BYTES: &str = "bytes";

impl UnitData {
    /// All of it was read: an earlier attempt that read all of it found its end in the same place.
    fn check_end(&self, known: Option<u64>) -> Result<(), RestoreError> {
        match known {
            Some(end) if end != self.bytes => {
                let (from, to) = (end.min(self.bytes), end.max(self.bytes));
                Err(RecordDiffers { from, to }.of(&self.name, BYTES))
            }
            _ => Ok(()),
        }
    }

    /// Adds a chunk; returns where it is in the data.
    fn pass(&mut self, chunk: Chunk) -> Result<Piece, RestoreError> {
        let bytes = chunk.bytes();
        let compared = self.check.pass(self.bytes, bytes);
        compared.map_err(|differs| differs.of(&self.name, BYTES))?;
        let range = self.bytes..self.bytes + bytes.len() as u64;
        let lines = ChunkLines {
            before: self.lines,
            count: lines_of(&chunk),
        };
        self.bytes = range.end;
        self.lines += lines.count;
        Ok(Piece {
            chunk,
            bytes: range,
            lines,
        })
    }

    /// The parts of a chunk that are not loaded, if these ranges of it are not.
    fn pieces(&mut self, chunk: Piece, missing: &[Range<u64>]) -> Vec<Piece> {
        if chunk.bytes.is_empty() {
            // It only ends the row that the last chunk has begun.
            return if self.is_skipping {
                vec![]
            } else {
                vec![chunk]
            };
        }
        let end = chunk.bytes.end;
        self.is_skipping = missing.last().is_none_or(|last| last.end < end);
        chunk.missing(missing)
    }
}

impl ChunkPusher {
    pub(super) fn new(work_queue: Arc<WorkQueue>, job: Arc<LoadContext>) -> Self {
        ChunkPusher {
            work_queue,
            job,
            runtime: Handle::current(),
            tally: None,
            begun: HashMap::new(),
        }
    }

    pub(super) fn begin(&mut self, node: NodeId, entry: &TocEntry) -> Result<(), RestoreError> {
        if let Some(content_digest) = &self.job.content_digest {
            self.tally = Some(content_digest.next(self.tally.take(), entry)?);
        }
        if entry.kind == EntryKind::TableData {
            self.job.observer.table_begun(&entry.qualified_name());
        }
        self.work_queue.change(|s| s.begin(node));
        if !self.begun.contains_key(&node) {
            self.begin_unit(node, entry);
        }
        Ok(())
    }

    fn begin_unit(&mut self, node: NodeId, entry: &TocEntry) {
        let unit = self.job.content.unit(self.work_queue.entry_of(node));
        let resumed = self.job.record.resumed();
        let data = UnitData {
            unit,
            name: entry.name(),
            bytes: 0,
            lines: 0,
            is_skipping: false,
            check: SpanCheck::of(resumed.spans_of(unit)),
        };
        let rows = resumed.rows_of(unit);
        if rows > 0 {
            self.work_queue.change(|s| s.preset(node, 0, rows));
        }
        self.begun.insert(node, data);
    }

    pub(super) fn push(&mut self, node: NodeId, chunk: Chunk) -> Result<(), RestoreError> {
        let bytes = chunk.len() as u64;
        if let Some(tally) = &mut self.tally {
            tally.chunk(&chunk, &self.job.encoding)?;
        }
        let (unit, pieces) = self.pieces(node, chunk)?;
        let queued: u64 = pieces.iter().map(|piece| piece.chunk.len() as u64).sum();
        self.skipped(node, bytes - queued);
        for piece in pieces {
            self.queue(node, unit, piece)?;
        }
        self.check_size(self.job.bytes_read(bytes))
    }

    /// The parts of a chunk that no earlier attempt has loaded.
    fn pieces(&mut self, node: NodeId, chunk: Chunk) -> Result<(UnitId, Vec<Piece>), RestoreError> {
        let Some(data) = self.begun.get_mut(&node) else {
            return Err(RestoreError::internal(
                "data of an entry that has not begun",
            ));
        };
        let (unit, chunk) = (data.unit, data.pass(chunk)?);
        // What was loaded stays loaded, also if nothing more is recorded.
        let resumed = self.job.record.resumed();
        let missing = resumed.missing(unit, chunk.bytes.clone());
        Ok((unit, data.pieces(chunk, &missing)))
    }

    /// An earlier attempt has loaded bytes that were read.
    fn skipped(&self, node: NodeId, bytes: u64) {
        if bytes > 0 {
            self.work_queue.change(|s| s.skip(node, bytes));
        }
    }

    fn queue(&self, node: NodeId, unit: UnitId, piece: Piece) -> Result<(), RestoreError> {
        let Piece {
            chunk,
            bytes: range,
            lines,
        } = piece;
        let bytes = chunk.len() as u64;
        let permit = self.reserve(bytes, Some(node))?;
        let splittable = ends_row(&chunk);
        let queued = QueuedChunk {
            chunk,
            permit,
            lines,
            unit,
            from: range.start,
        };
        self.work_queue
            .change(|s| s.push(node, queued, bytes, splittable));
        Ok(())
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
        if let Some(data) = self.begun.remove(&node) {
            self.end_unit(&data)?;
        }
        self.work_queue.change(|s| s.end(node));
        if entry.kind == EntryKind::TableData {
            self.job.table_read(&entry.qualified_name());
        }
        Ok(())
    }

    /// All data of an entry has been read, and what earlier attempts have loaded of it is the same.
    fn end_unit(&self, data: &UnitData) -> Result<(), RestoreError> {
        let compared = data.check.end();
        compared.map_err(|differs| differs.of(&data.name, BYTES))?;
        let record = &self.job.record;
        let known = record.resumed().end_of(data.unit);
        data.check_end(known.map(|end| end.bytes))?;
        if record.is_on() && known.is_none() {
            let end = DataEnd {
                unit: data.unit,
                bytes: data.bytes,
                lines: data.lines,
            };
            record.later(|body| body.ends.push(end));
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

#[cfg(test)]
mod tests {
    use pgdump_archive::Crc32c;

    use super::*;
    use crate::work_record::DataSpan;

    fn data(spans: &[DataSpan]) -> UnitData {
        UnitData {
            unit: UnitId(1),
            name: "TABLE DATA t".to_owned(),
            bytes: 0,
            lines: 0,
            is_skipping: false,
            check: SpanCheck::of(spans),
        }
    }

    fn rows(text: &str, ends_row: bool) -> Chunk {
        Chunk::Rows {
            text: text.as_bytes().to_vec(),
            ends_row,
        }
    }

    #[test]
    fn chunks_follow_each_other() {
        let mut data = data(&[]);
        let first = data.pass(rows("a\nb\n", true)).unwrap();
        let second = data.pass(rows("c\n", true)).unwrap();
        assert_eq!((first.bytes, second.bytes), (0..4, 4..6));
        let lines = ChunkLines {
            before: 2,
            count: 1,
        };
        assert_eq!(second.lines, lines);
    }

    /// The empty chunk at the end of a long row goes where the row goes.
    #[test]
    fn the_end_of_a_row_follows_the_row() {
        for is_loaded in [false, true] {
            let mut data = data(&[]);
            let long = data.pass(rows("long", false)).unwrap();
            let all = 0..4;
            let missing: &[Range<u64>] = if is_loaded {
                &[]
            } else {
                std::slice::from_ref(&all)
            };
            let queued = data.pieces(long, missing).len();
            let end = data.pass(rows("", true)).unwrap();
            assert_eq!(data.pieces(end, &[]).len(), queued, "{is_loaded}");
            assert_eq!(queued, usize::from(!is_loaded));
        }
    }

    /// An attempt that took the data to be shorter would otherwise make a later one take it as complete.
    #[test]
    fn data_of_another_length_ends_the_load() {
        let mut data = data(&[]);
        data.pass(rows("a\nb\n", true)).unwrap();
        assert!(data.check_end(None).is_ok() && data.check_end(Some(4)).is_ok());
        for known in [2, 6] {
            let e = data.check_end(Some(known)).unwrap_err();
            assert!(matches!(&e, RestoreError::Job(e) if e.kind() == JobKind::RecordDiffers));
        }
    }

    #[test]
    fn other_bytes_than_those_of_an_earlier_attempt_end_the_load() {
        let span = DataSpan {
            from: 0,
            to: 4,
            crc32c: Crc32c::of(b"a\nb\n"),
        };
        for (text, is_same) in [("a\nb\n", true), ("a\nc\n", false)] {
            let passed = data(&[span]).pass(rows(text, true));
            assert_eq!(passed.is_ok(), is_same, "{text:?}");
        }
    }
}

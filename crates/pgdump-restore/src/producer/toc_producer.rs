//! Data of an archive with a table of contents.

use std::collections::HashMap;

use super::chunk_pusher::ChunkPusher;
use crate::ids::NodeId;
use pgdump_archive::{ArchiveError, Chunk, DataSink, DumpId, Extent, TocEntry};

pub(super) struct TocProducer {
    chunks: ChunkPusher,
    node_of: HashMap<DumpId, NodeId>,
    /// `None` while the data of a skipped entry passes.
    current: Option<NodeId>,
}

impl TocProducer {
    pub(super) fn new(chunks: ChunkPusher, entries: &[TocEntry]) -> Self {
        let nodes = chunks.work_queue.data_nodes().into_iter();
        TocProducer {
            node_of: nodes
                .map(|(node, e)| (entries[e.0].dump_id, node))
                .collect(),
            chunks,
            current: None,
        }
    }

    fn node_of(&self, entry: &TocEntry) -> Option<NodeId> {
        self.node_of.get(&entry.dump_id).copied()
    }
}

impl DataSink for TocProducer {
    fn should_read(&self, entry: &TocEntry) -> bool {
        self.node_of(entry).is_some()
    }

    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.current = self.node_of(entry);
        let Some(node) = self.current else {
            return Ok(());
        };
        self.wait_for_turn(entry)?;
        Ok(self.chunks.begin(node, entry)?)
    }

    fn wait_for_turn(&self, entry: &TocEntry) -> Result<(), ArchiveError> {
        let Some(node) = self.node_of(entry) else {
            return Ok(());
        };
        match self.chunks.wait(self.chunks.work_queue.is_turn_of(node)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(comes_too_early(entry)),
            Err(e) => Err(e.into()),
        }
    }

    fn is_ready(&self, entry: &TocEntry) -> bool {
        let node = self.node_of(entry);
        node.is_none_or(|node| self.chunks.work_queue.is_ready(node))
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        match self.current {
            Some(node) => Ok(self.chunks.push(node, chunk)?),
            None => Ok(()),
        }
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        match self.current {
            Some(node) => Ok(self.chunks.end(node, entry)?),
            None => Ok(()),
        }
    }

    fn tail(&mut self, extent: Extent) {
        if let Some(content_digest) = &self.chunks.job.content_digest {
            content_digest.tail(extent);
        }
    }

    fn extent(&mut self, entry: Option<&TocEntry>, extent: Extent) {
        if let Some(content_digest) = &self.chunks.job.content_digest {
            content_digest.extent(entry, extent);
        }
    }
}

fn comes_too_early(entry: &TocEntry) -> ArchiveError {
    let name = entry.name();
    ArchiveError::limit(format!(
        "{name}: its table calls functions that may read other tables, so it must be restored after the data that the \
         table of contents lists before it, but this archive has some of that data later: write the backup \
         again with pg_dump"
    ))
}

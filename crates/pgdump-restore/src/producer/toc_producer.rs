//! Data of an archive with a table of contents.

use std::collections::HashMap;

use super::chunk_pusher::ChunkPusher;
use crate::ids::NodeId;
use crate::work_record::{ProvenPart, UnitId};
use pgdump_archive::{ArchiveError, BytesProven, Chunk, DataSink, DumpId, Extent, TocEntry};

pub(super) struct TocProducer {
    chunks: ChunkPusher,
    /// The nodes whose data is to be read.
    node_of: HashMap<DumpId, NodeId>,
    /// Blocks that an earlier attempt has read and that nobody needs.
    known: HashMap<DumpId, Extent>,
    /// `None` while the data of a skipped entry passes.
    current: Option<NodeId>,
}

fn unit_of(entry: DumpId) -> UnitId {
    UnitId(i64::from(entry.0))
}

impl TocProducer {
    pub(super) fn new(chunks: ChunkPusher, entries: &[TocEntry]) -> Self {
        let job = &chunks.job;
        let nodes = chunks.work_queue.data_nodes().into_iter();
        let nodes = nodes.map(|(node, e)| (entries[e.0].dump_id, node));
        let node_of = nodes.filter(|(entry, _)| !job.is_settled(unit_of(*entry)));
        let settled = |e: &&TocEntry| job.is_settled(unit_of(e.dump_id));
        let entry_of: HashMap<UnitId, DumpId> = entries
            .iter()
            .filter(settled)
            .map(|e| (unit_of(e.dump_id), e.dump_id))
            .collect();
        let blocks = job.record.resumed().blocks().iter();
        let known = blocks.filter_map(|(unit, block)| Some((*entry_of.get(unit)?, *block)));
        TocProducer {
            node_of: node_of.collect(),
            known: known.collect(),
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

    fn proven(&mut self, entry: &TocEntry, bytes: BytesProven) {
        let record = &self.chunks.job.record;
        if self.current.is_none() || !record.is_on() {
            return;
        }
        let unit = unit_of(entry.dump_id);
        let part = match bytes {
            BytesProven::Block(extent) => ProvenPart::Block { unit, extent },
            BytesProven::BlockRead(extent) => ProvenPart::BlockRead { unit, extent },
            BytesProven::Member { name, crc32c } => ProvenPart::Member { unit, name, crc32c },
        };
        record.later(|body| body.parts.push(part));
    }

    fn known_block(&self, entry: &TocEntry) -> Option<Extent> {
        self.known.get(&entry.dump_id).copied()
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

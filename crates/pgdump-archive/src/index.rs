//! The locations of a custom archive's data blocks, with which several readers can read it concurrently. Its table of
//! contents has their offsets if `pg_dump` could seek in it; of one that was written through a pipe, they are learned by
//! reading it once. In that index, each block has its CRC32C, so that reading by blocks proves as much as reading the
//! whole; by offsets, all bytes are read, and the checksums of the parts combine to that of the whole.

use crate::Crc32c;
use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{ByteStream, DumpId};
use crate::error::ArchiveError;

/// A range of bytes in an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Extent {
    /// Offset of the first byte from the beginning of the archive, after all filters.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// CRC32C of these bytes.
    #[cfg_attr(feature = "schema", schemars(with = "u32"))]
    pub crc32c: Crc32c,
}

/// One entry's data block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IndexedBlock {
    /// Dump id of the entry.
    #[cfg_attr(feature = "schema", schemars(with = "i32"))]
    pub dump_id: DumpId,
    /// The block's bytes, from its type byte to its end mark.
    #[serde(flatten)]
    pub extent: Extent,
    /// Rows in the block; 0 for large objects.
    pub rows: u64,
    /// Uncompressed bytes of its data.
    pub bytes: u64,
}

/// Reads the fields one by one: what serde derives for `flatten` would keep every unknown value.
impl<'de> serde::Deserialize<'de> for IndexedBlock {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct StoredBlock {
            dump_id: DumpId,
            offset: u64,
            length: u64,
            crc32c: Crc32c,
            rows: u64,
            bytes: u64,
        }
        let f = StoredBlock::deserialize(input)?;
        let extent = Extent {
            offset: f.offset,
            length: f.length,
            crc32c: f.crc32c,
        };
        Ok(IndexedBlock {
            dump_id: f.dump_id,
            extent,
            rows: f.rows,
            bytes: f.bytes,
        })
    }
}

/// The locations of the head and of every block, in the order of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BlockIndex {
    /// The header with the table of contents.
    pub head: Extent,
    /// Every data block.
    pub blocks: Vec<IndexedBlock>,
    /// The repeated table of contents, if `pg_dump` wrote one after the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Extent>,
}

impl BlockIndex {
    /// Size and CRC32C of the whole archive; `None` if the parts leave gaps or overlap.
    pub fn whole(&self) -> Option<(u64, Crc32c)> {
        let (mut end, mut crc) = (0u64, Crc32c::default());
        let blocks = self.blocks.iter().map(|b| &b.extent);
        for part in std::iter::once(&self.head).chain(blocks).chain(&self.tail) {
            if part.offset != end {
                return None;
            }
            crc = crc.combine(part.crc32c, usize::try_from(part.length).ok()?);
            end = end.checked_add(part.length)?;
        }
        Some((end, crc))
    }
}

/// Opens ranges of an archive.
pub trait RangeSource: Send + Sync {
    /// The bytes of `extent`. Its checksum is that of the restore index; by the offsets of a table of contents, it is not
    /// known, and 0.
    ///
    /// # Errors
    /// Errors of the store.
    fn open(&self, extent: Extent) -> Result<ByteStream, ArchiveError>;

    /// These bytes are not opened, because they were read otherwise. Their checksum is part of the whole's.
    fn know(&self, _extent: Extent) {}
}

/// How the bytes of blocks are proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockProof {
    /// Each by its checksum in the index.
    Each {
        /// The archive itself has the offsets of its blocks, and the index has the same ones. Otherwise blocks cannot be
        /// skipped: only reading all of them proves that each begins where the preceding one ends.
        can_skip: bool,
    },
    /// All together, by the checksum of the whole: every block is read, or its checksum is known.
    Together,
}

/// Approximate bytes of adjacent blocks that are requested together: smaller requests are not worthwhile.
const RUN_BYTES: u64 = 4 << 20;
/// Of a large archive, up to this many, so that the time to the first byte of a request hardly counts.
const MAX_RUN_BYTES: u64 = 32 << 20;
/// Then there are about this many requests, enough for all readers to end together.
const RUNS: u64 = 64;

/// The blocks that remain to be read, largest first, shared by several readers. Small adjacent blocks are read
/// together.
#[derive(Clone)]
pub(super) struct BlockQueue {
    runs: Arc<Mutex<VecDeque<Vec<IndexedBlock>>>>,
    ranges: Arc<dyn RangeSource>,
    proof: BlockProof,
}

impl BlockQueue {
    /// A queue of adjacent blocks, in the order of the archive.
    pub(crate) fn new(
        blocks: &[IndexedBlock],
        ranges: Arc<dyn RangeSource>,
        proof: BlockProof,
    ) -> Self {
        let total = |n: u64, b: &IndexedBlock| n.saturating_add(b.extent.length);
        let run_bytes = blocks.iter().fold(0, total) / RUNS;
        let run_bytes = run_bytes.clamp(RUN_BYTES, MAX_RUN_BYTES);
        let mut runs: Vec<Vec<IndexedBlock>> = vec![];
        let mut length = 0;
        for block in blocks {
            match runs.last_mut() {
                Some(run) if length + block.extent.length <= run_bytes => run.push(*block),
                _ => {
                    runs.push(vec![*block]);
                    length = 0;
                }
            }
            length += block.extent.length;
        }
        let bytes =
            |run: &Vec<IndexedBlock>| run.iter().fold(0u64, |n, b| n.saturating_add(b.bytes));
        runs.sort_by_cached_key(|run| std::cmp::Reverse(bytes(run)));
        BlockQueue {
            runs: Arc::new(Mutex::new(runs.into())),
            ranges,
            proof,
        }
    }

    /// Moves blocks of lower turns to the front; within a turn, the order stays.
    pub(crate) fn sort_by_turn(&self, turn: impl Fn(&IndexedBlock) -> usize) {
        let mut runs = self.runs.lock();
        let of_one_turn = |run: Vec<IndexedBlock>| -> Vec<Vec<IndexedBlock>> {
            run.chunk_by(|a, b| turn(a) == turn(b))
                .map(<[IndexedBlock]>::to_vec)
                .collect()
        };
        let mut sorted: Vec<_> = std::mem::take(&mut *runs)
            .into_iter()
            .flat_map(of_one_turn)
            .collect();
        sorted.sort_by_key(|run| run.first().map_or(0, &turn));
        *runs = sorted.into();
    }

    /// The next adjacent blocks to read. Unneeded blocks are left out if they can be skipped, or if they are known to have
    /// been read before.
    pub(crate) fn next(
        &self,
        wants: impl Fn(&IndexedBlock) -> bool,
        known: impl Fn(&IndexedBlock) -> Option<Extent>,
    ) -> Option<Vec<IndexedBlock>> {
        let is_left_out = |b: &IndexedBlock| !wants(b) && self.can_leave_out(b, known(b));
        let mut runs = self.runs.lock();
        loop {
            let mut run = runs.pop_front()?;
            let unneeded = run.iter().take_while(|b| is_left_out(b)).count();
            for block in run.drain(..unneeded) {
                if let Some(extent) = known(&block).filter(|_| self.proof == BlockProof::Together) {
                    self.ranges.know(extent);
                }
            }
            let read = run.iter().take_while(|b| !is_left_out(b)).count();
            let rest = run.split_off(read);
            if !rest.is_empty() {
                runs.push_front(rest);
            }
            if !run.is_empty() {
                return Some(run);
            }
        }
    }

    /// Whether a block that nobody needs need not be read. `known`: what an earlier reading has found.
    fn can_leave_out(&self, block: &IndexedBlock, known: Option<Extent>) -> bool {
        match self.proof {
            BlockProof::Each { can_skip } => can_skip || known == Some(block.extent),
            BlockProof::Together => known.is_some_and(|known| is_same_place(known, block.extent)),
        }
    }

    /// The block as it was read, at its place; `None` if it cannot have these bytes.
    pub(crate) fn accept(&self, block: &IndexedBlock, read: Extent) -> Option<Extent> {
        let read = Extent {
            offset: block.extent.offset,
            ..read
        };
        let is_accepted = match self.proof {
            BlockProof::Each { .. } => read == block.extent,
            BlockProof::Together => is_same_place(read, block.extent),
        };
        is_accepted.then_some(read)
    }

    /// Whether blocks are read by the offsets of the table of contents, and so proven together.
    pub(crate) fn is_by_offsets(&self) -> bool {
        self.proof == BlockProof::Together
    }

    /// What says where the blocks are, for errors.
    pub(crate) fn origin(&self) -> &'static str {
        match self.proof {
            BlockProof::Each { .. } => "the index",
            BlockProof::Together => "the table of contents",
        }
    }

    /// Opens adjacent blocks.
    pub(crate) fn open(&self, run: &[IndexedBlock]) -> Result<ByteStream, ArchiveError> {
        let mut whole = Extent {
            offset: run.first().map_or(0, |b| b.extent.offset),
            ..Extent::default()
        };
        for block in run {
            let length = usize::try_from(block.extent.length).unwrap_or(usize::MAX);
            whole.crc32c = whole.crc32c.combine(block.extent.crc32c, length);
            whole.length += block.extent.length;
        }
        self.ranges.open(whole)
    }
}

fn is_same_place(a: Extent, b: Extent) -> bool {
    (a.offset, a.length) == (b.offset, b.length)
}

/// Measures the parts of its input as they are read.
pub(super) struct CountingReader<R> {
    input: R,
    current: Extent,
}

impl<R> CountingReader<R> {
    pub(crate) fn new(input: R) -> Self {
        CountingReader {
            input,
            current: Extent::default(),
        }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> u64 {
        self.current.offset + self.current.length
    }

    /// The extent read since the last call.
    pub(crate) fn take_extent(&mut self) -> Extent {
        let offset = self.current.offset + self.current.length;
        std::mem::replace(
            &mut self.current,
            Extent {
                offset,
                ..Extent::default()
            },
        )
    }
}

impl<R: BufRead> BufRead for CountingReader<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        if n == 0 {
            // An empty buffer would be filled, with bytes that nobody asked for.
            return;
        }
        // The bytes are in the buffer already, so nothing is read here.
        if let Ok(buf) = self.input.fill_buf() {
            let part = &buf[..n.min(buf.len())];
            self.current.crc32c = self.current.crc32c.append(part);
            self.current.length += part.len() as u64;
        }
        self.input.consume(n);
    }
}

impl<R: BufRead> Read for CountingReader<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let buf = self.fill_buf()?;
        let n = buf.len().min(out.len());
        out[..n].copy_from_slice(&buf[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks are read unless they can be skipped, or an earlier reading has found the same at their place. What is left out
    /// counts where all bytes are proven together.
    #[test]
    fn blocks_that_were_read_before_are_left_out() {
        #[derive(Default)]
        struct Closed(Mutex<Vec<Extent>>);
        impl RangeSource for Closed {
            fn open(&self, _: Extent) -> Result<ByteStream, ArchiveError> {
                Err(ArchiveError::corrupt("nobody opens it"))
            }
            fn know(&self, extent: Extent) {
                self.0.lock().push(extent);
            }
        }
        let at = |id: i32, crc: u32| Extent {
            offset: id as u64,
            length: 1,
            crc32c: Crc32c(crc),
        };
        let block = |id: i32| IndexedBlock {
            dump_id: DumpId(id),
            extent: at(id, 0),
            rows: 0,
            bytes: 0,
        };
        let blocks: Vec<IndexedBlock> = (0..5).map(block).collect();
        let runs = |proof, known: &[(i32, Extent)], wanted: &[i32]| {
            let source = Arc::new(Closed::default());
            let queue = BlockQueue::new(&blocks, source.clone(), proof);
            let known_of = |b: &IndexedBlock| {
                let found = known.iter().find(|(id, _)| *id == b.dump_id.0);
                found.map(|(_, extent)| *extent)
            };
            let next = || queue.next(|b| wanted.contains(&b.dump_id.0), known_of);
            let ids =
                |run: Vec<IndexedBlock>| run.iter().map(|b| b.dump_id.0).collect::<Vec<i32>>();
            let read: Vec<Vec<i32>> = std::iter::from_fn(next).map(ids).collect();
            let counted = source.0.lock().clone();
            (read, counted)
        };
        let before =
            |ids: &[i32], crc| ids.iter().map(|id| (*id, at(*id, crc))).collect::<Vec<_>>();
        let all = || vec![vec![0, 1, 2, 3, 4]];
        let each = |can_skip| BlockProof::Each { can_skip };
        assert_eq!(runs(each(false), &[], &[1]).0, all());
        let (read, counted) = runs(each(false), &before(&[0, 1, 3], 0), &[1]);
        assert_eq!((read, counted), (vec![vec![1, 2], vec![4]], vec![]));
        // Other bytes than those of the index.
        assert_eq!(runs(each(false), &before(&[0], 7), &[1]).0, all());
        let none = runs(each(false), &before(&[0, 1, 2, 3, 4], 0), &[]).0;
        assert_eq!(none, Vec::<Vec<i32>>::new());
        assert_eq!(runs(each(true), &[], &[1, 2, 4]).0, [vec![1, 2], vec![4]]);
        let (read, counted) = runs(BlockProof::Together, &before(&[0, 1, 3], 7), &[1]);
        assert_eq!(read, [vec![1, 2], vec![4]]);
        assert_eq!(counted, [at(0, 7), at(3, 7)]);
        // Elsewhere.
        assert_eq!(
            runs(BlockProof::Together, &[(0, at(9, 7))], &[1]),
            (all(), vec![])
        );
    }

    #[cfg(feature = "schema")]
    #[test]
    fn dump_ids_are_plain_numbers_in_the_schema() {
        let schema = schemars::schema_for!(IndexedBlock);
        let dump_id = &schema.as_value()["properties"]["dump_id"];
        assert_eq!(dump_id["type"], "integer", "{dump_id}");
        assert_eq!(dump_id["description"], "Dump id of the entry.", "{dump_id}");
        assert_eq!(schema.get("$defs"), None);
    }

    /// What follows may be in another file, or come out of a decompressor that has to read on.
    #[test]
    fn consuming_nothing_reads_nothing() {
        struct Unread;
        impl Read for Unread {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("nobody asked for bytes")
            }
        }
        CountingReader::new(std::io::BufReader::new(Unread)).consume(0);
    }

    #[test]
    fn extents_add_up_to_the_whole() {
        let data: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let mut input = CountingReader::new(&data[..]);
        let mut index = BlockIndex::default();
        for (i, n) in [100usize, 1, 399, 500].into_iter().enumerate() {
            let mut part = vec![0; n];
            input.read_exact(&mut part).unwrap();
            match i {
                0 => index.head = input.take_extent(),
                _ => index.blocks.push(IndexedBlock {
                    dump_id: DumpId(1),
                    extent: input.take_extent(),
                    rows: 0,
                    bytes: 0,
                }),
            }
        }
        assert_eq!(index.whole(), Some((1000, Crc32c::of(&data))));
        index.blocks.remove(1);
        assert_eq!(index.whole(), None);
    }
}

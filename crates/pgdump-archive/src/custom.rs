//! The custom format: header, table of contents, then data blocks until the file ends.
//!
//! A block is a type byte, the dump id and chunks (length, bytes) up to a chunk of length 0; the
//! chunks hold one compressed stream. A block of large objects repeats (oid, chunks) up to oid 0.

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::sync::Arc;

use super::chunks::{DataSink, ObjectSplitter};
use super::filters::{PeekReader, buffered};
use super::header::read_header;
use super::index::{BlockQueue, CountingReader, IndexedBlock};
use super::input_files::InputFiles;
use super::members::split_table_data;
use super::tail::{SHOWN_BYTES, no_block, other_bytes, peek, read_tail};
use super::toc::{EntrySum, Toc, TocReader, corrupt, read_int, read_toc};
use super::{
    Archive, ArchiveBody, BlockIndex, Codec, DataOffset, DumpId, Format, Limits, RangeSource,
    ReadContext, TocEntry, dialect_of,
};
use crate::error::ArchiveError;

const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// The data blocks, next in `input`, or at the locations of an index.
pub(super) struct CustomBlocks {
    input: CountingReader<PeekReader<'static>>,
    form: BlockForm,
    queue: Option<BlockQueue>,
    pub files: InputFiles,
}

/// How the blocks of one archive are encoded.
#[derive(Clone)]
pub(super) struct BlockForm {
    pub codec: Codec,
    pub int_size: u8,
    pub off_size: u8,
    /// Minor version of the archive.
    pub minor: u8,
    pub context: ReadContext,
    /// The entries, for comparison with a table of contents that follows the data.
    pub sums: Arc<[EntrySum]>,
}

/// The blocks that one reader reads.
pub(super) enum BlockStream {
    /// All blocks, in order.
    Whole(CustomBlocks),
    /// Blocks of the index, shared with other readers.
    Shared(BlockQueue, BlockForm, Arc<Positions>),
}

/// Position of each entry in the table of contents, by its dump id.
pub(super) type Positions = HashMap<DumpId, usize>;

fn positions(entries: &[TocEntry]) -> Positions {
    entries
        .iter()
        .enumerate()
        .map(|(i, e)| (e.dump_id, i))
        .collect()
}

/// Reads the header and the table of contents.
pub(super) fn open(input: PeekReader<'static>, limits: Limits) -> Result<Archive, ArchiveError> {
    let mut input = CountingReader::new(input);
    let mut f = TocReader::new(&mut input, limits);
    let header = read_header(&mut f, Format::Custom)?;
    let minor = header.version.map_or(0, |v| v.1);
    let Toc {
        entries,
        encoding,
        sums,
    } = read_toc(&mut f, minor)?;
    let (int_size, off_size) = (f.int_size, f.off_size);
    let context = ReadContext {
        limits,
        dialect: dialect_of(&entries, &encoding),
    };
    let form = BlockForm {
        codec: header.codec,
        int_size,
        off_size,
        minor,
        context,
        sums: sums.into(),
    };
    let blocks = CustomBlocks {
        input,
        form,
        queue: None,
        files: InputFiles::default(),
    };
    Ok(Archive {
        header,
        entries,
        encoding,
        body: ArchiveBody::Custom(blocks),
        files: InputFiles::default(),
    })
}

/// Bytes from each data block to the next one; the size of the last block is unknown.
pub(super) fn sizes(entries: &[TocEntry]) -> HashMap<DumpId, u64> {
    let at = |e: &TocEntry| {
        if let DataOffset::At(n) = e.offset {
            Some((n, e.dump_id))
        } else {
            None
        }
    };
    let mut starts: Vec<(u64, DumpId)> = entries.iter().filter_map(at).collect();
    starts.sort_unstable();
    starts
        .windows(2)
        .map(|w| (w[0].1, w[1].0 - w[0].0))
        .collect()
}

impl CustomBlocks {
    /// Reads by the index from here on; the input itself ends after the head.
    ///
    /// # Errors
    /// `ArchiveError::Corrupt` if the index does not match the archive.
    pub(crate) fn by_index(
        &mut self,
        entries: &[TocEntry],
        index: &BlockIndex,
        ranges: Arc<dyn RangeSource>,
    ) -> Result<(), ArchiveError> {
        let wrong = |what: &str| {
            corrupt(format!(
                "the restore index does not match the archive: {what}"
            ))
        };
        let mut unread: HashMap<DumpId, &TocEntry> = entries
            .iter()
            .filter(|e| e.has_data)
            .map(|e| (e.dump_id, e))
            .collect();
        if !index
            .blocks
            .iter()
            .all(|b| unread.remove(&b.dump_id).is_some())
            || !unread.is_empty()
        {
            return Err(wrong("the blocks differ"));
        }
        if !self
            .input
            .fill_buf()
            .map_err(|e| ArchiveError::from_io(e, "head"))?
            .is_empty()
        {
            return Err(wrong("the length of the table of contents differs"));
        }
        let mut offsets: Vec<DataOffset> = entries
            .iter()
            .filter(|e| e.has_data)
            .map(|e| e.offset.clone())
            .collect();
        if let Some(tail) = index.tail {
            let mut input = CountingReader::new(buffered(ranges.open(tail)?));
            offsets = read_tail(&mut input, &self.form, entries, &InputFiles::default())?
                .ok_or_else(|| wrong("nothing behind it"))?;
        }
        let starts: HashMap<DumpId, u64> = index
            .blocks
            .iter()
            .map(|b| (b.dump_id, b.extent.offset))
            .collect();
        let of_data = entries.iter().filter(|e| e.has_data).zip(&offsets);
        let said = of_data.map(|(e, o)| match o {
            DataOffset::At(n) => Some(starts.get(&e.dump_id) == Some(n)),
            _ => None,
        });
        let said: Vec<Option<bool>> = said.collect();
        if said.contains(&Some(false)) {
            return Err(wrong("the blocks begin at other offsets"));
        }
        self.queue = Some(BlockQueue::new(index, ranges, !said.contains(&None)));
        Ok(())
    }

    /// With an index, blocks of a lower turn are read first; within a turn, the largest first.
    pub(crate) fn set_read_order(&mut self, turns: &HashMap<DumpId, usize>) {
        if let Some(queue) = &self.queue {
            queue.sort_by_turn(|block| turns.get(&block.dump_id).copied().unwrap_or_default());
        }
    }

    /// One reader, or (with an index) up to `most`.
    pub(crate) fn into_streams(mut self, entries: &[TocEntry], most: usize) -> Vec<BlockStream> {
        match self.queue.take() {
            None => vec![BlockStream::Whole(self)],
            Some(queue) => {
                let positions = Arc::new(positions(entries));
                let stream =
                    || BlockStream::Shared(queue.clone(), self.form.clone(), positions.clone());
                (0..most.max(1)).map(|_| stream()).collect()
            }
        }
    }

    /// Hands all data to `sink`, in the order of the file, and reads to the end of the input.
    fn read(mut self, entries: &[TocEntry], sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        sink.extent(None, self.input.take_extent());
        let positions = positions(entries);
        let mut unread: Vec<bool> = entries.iter().map(|e| e.has_data).collect();
        let mut left = unread.iter().filter(|u| **u).count();
        loop {
            if left == 0 {
                self.files.mark_end();
            }
            let begin = self.input.position();
            let start = self
                .input
                .fill_buf()
                .map_err(|e| ArchiveError::from_io(e, "block header"))?;
            let start = start[..start.len().min(SHOWN_BYTES)].to_vec();
            if !start.is_empty() {
                self.files.mark_more();
            }
            let Some(kind) = next_kind(&mut self.input)? else {
                break;
            };
            let id = int(&mut self.input, &self.form, "block header");
            let at = id
                .as_ref()
                .ok()
                .and_then(|id| positions.get(&DumpId(i32::try_from(*id).ok()?)))
                .copied();
            let Some(at) = at.filter(|at| entries[*at].has_data) else {
                return Err(match (left, id) {
                    // The number is incomplete: the read error says more than the bytes that follow.
                    (1.., Err(e)) => e,
                    (1.., Ok(id)) => {
                        corrupt(format!("a data block belongs to the unknown entry {id}"))
                    }
                    _ => other_bytes(begin, &start),
                });
            };
            if !std::mem::replace(&mut unread[at], false) {
                return Err(corrupt(format!(
                    "the data of {} occurs twice",
                    entries[at].name()
                )));
            }
            left -= 1;
            read_block(&mut self.input, &self.form, kind, &entries[at], sink)?;
            sink.extent(Some(&entries[at]), self.input.take_extent());
        }
        if let Some((missing, _)) = entries.iter().zip(&unread).find(|(_, unread)| **unread) {
            let at = self.input.position();
            let start = peek(&mut self.input)?;
            return Err(if start.is_empty() {
                corrupt(format!(
                    "the archive ends early: the data of {} {} is missing",
                    missing.kind, missing.tag
                ))
            } else {
                no_block(at, &start, missing)
            });
        }
        if read_tail(&mut self.input, &self.form, entries, &self.files)?.is_some() {
            sink.tail(self.input.take_extent());
        }
        Ok(())
    }
}

impl BlockStream {
    /// Hands the data to `sink`.
    pub(crate) fn read(
        self,
        entries: &[TocEntry],
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let (queue, form, positions) = match self {
            BlockStream::Whole(blocks) => return blocks.read(entries, sink),
            BlockStream::Shared(queue, form, positions) => (queue, form, positions),
        };
        let entry_of = |block: &IndexedBlock| {
            let at = positions.get(&block.dump_id).copied();
            at.map(|at| &entries[at])
                .ok_or_else(|| corrupt("the restore index does not match the archive"))
        };
        while let Some(run) = queue.next(|block| entry_of(block).is_ok_and(|e| sink.should_read(e)))
        {
            if let Some(block) = run.first() {
                // All blocks of a run belong to one turn.
                sink.wait_for_turn(entry_of(block)?)?;
            }
            let mut input = CountingReader::new(buffered(queue.open(&run)?));
            for block in &run {
                let entry = entry_of(block)?;
                let elsewhere = || {
                    corrupt(format!(
                        "the block of {} is not at its offset in the index",
                        entry.name()
                    ))
                };
                let kind = next_kind(&mut input)?.ok_or_else(elsewhere)?;
                if int(&mut input, &form, "block header")? != i64::from(block.dump_id.0) {
                    return Err(elsewhere());
                }
                if sink.should_read(entry) {
                    read_block(&mut input, &form, kind, entry, sink)?
                } else {
                    skip_block(&mut input, &form, kind)?
                }
                let read = input.take_extent();
                if (read.length, read.crc32c) != (block.extent.length, block.extent.crc32c) {
                    return Err(corrupt(format!(
                        "the block of {} has another checksum than in the index",
                        entry.name()
                    )));
                }
            }
            // Read to the end, so that the checksum covers all of it.
            if next_kind(&mut input)?.is_some() {
                return Err(corrupt("a block has another length than in the index"));
            }
        }
        Ok(())
    }
}

/// Type of the next block; `None` if no block begins here.
fn next_kind(input: &mut impl BufRead) -> Result<Option<u8>, ArchiveError> {
    let next = input
        .fill_buf()
        .map_err(|e| ArchiveError::from_io(e, "block header"))?;
    let kind = next
        .first()
        .copied()
        .filter(|k| [BLOCK_DATA, BLOCK_LARGE_OBJECTS].contains(k));
    input.consume(usize::from(kind.is_some()));
    Ok(kind)
}

fn int(input: &mut impl Read, form: &BlockForm, what: &str) -> Result<i64, ArchiveError> {
    read_int(input, form.int_size).map_err(|e| ArchiveError::from_io(e, what))
}

fn read_block(
    input: &mut impl BufRead,
    form: &BlockForm,
    kind: u8,
    entry: &TocEntry,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    sink.begin(entry)?;
    match kind {
        BLOCK_DATA => read_table(input, form, entry, sink)?,
        BLOCK_LARGE_OBJECTS => read_large_objects(input, form, sink)?,
        other => {
            return Err(corrupt(format!(
                "{other} is not a valid type of a data block"
            )));
        }
    }
    sink.end(entry)
}

fn read_table(
    input: &mut impl BufRead,
    form: &BlockForm,
    entry: &TocEntry,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    let what = format!("data of {}", entry.tag);
    let mut body = BlockBody::new(input, form.int_size);
    {
        let data = form.codec.decoder(&mut body, &form.context.limits);
        let data = data.map_err(|e| ArchiveError::from_io(e, &what))?;
        split_table_data(data, &form.context, entry, sink)?;
    }
    body.finish(&what)
}

fn read_large_objects(
    input: &mut impl BufRead,
    form: &BlockForm,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    let what = "large objects";
    let mut splitter = ObjectSplitter::default();
    loop {
        let oid = int(input, form, what)?;
        let oid = u32::try_from(oid)
            .map_err(|_| corrupt(format!("{oid} is not a valid OID of a large object")))?;
        if oid == 0 {
            return Ok(());
        }
        let mut body = BlockBody::new(input, form.int_size);
        {
            let data = form.codec.decoder(&mut body, &form.context.limits);
            let mut data = data.map_err(|e| ArchiveError::from_io(e, what))?;
            splitter.split(&mut data, oid, sink)?;
        }
        body.finish(what)?;
    }
}

/// Skips a block that nobody needs.
fn skip_block(input: &mut impl BufRead, form: &BlockForm, kind: u8) -> Result<(), ArchiveError> {
    let what = "a skipped block";
    loop {
        if kind == BLOCK_LARGE_OBJECTS && int(input, form, what)? == 0 {
            return Ok(());
        }
        let body = BlockBody::new(input, form.int_size);
        std::io::copy(&mut { body }, &mut std::io::sink())
            .map_err(|e| ArchiveError::from_io(e, what))?;
        if kind == BLOCK_DATA {
            return Ok(());
        }
    }
}

/// The chunks of one block as one stream of bytes.
struct BlockBody<'a, R> {
    input: &'a mut R,
    int_size: u8,
    /// Bytes left in the current chunk.
    left: usize,
    ended: bool,
}

impl<'a, R: BufRead> BlockBody<'a, R> {
    fn new(input: &'a mut R, int_size: u8) -> Self {
        BlockBody {
            input,
            int_size,
            left: 0,
            ended: false,
        }
    }

    /// The compressed stream must end where the chunks end.
    fn finish(mut self, what: &str) -> Result<(), ArchiveError> {
        let rest = self
            .fill_buf()
            .map_err(|e| ArchiveError::from_io(e, what))?;
        if rest.is_empty() {
            Ok(())
        } else {
            Err(corrupt(format!(
                "{what}: there are bytes after the end of the compressed data"
            )))
        }
    }
}

impl<R: BufRead> BufRead for BlockBody<'_, R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.left == 0 && !self.ended {
            let len = read_int(self.input, self.int_size)?;
            self.left = usize::try_from(len)
                .map_err(|_| corrupt(format!("a chunk has the invalid length {len}")))?;
            self.ended = self.left == 0;
        }
        if self.ended {
            return Ok(&[]);
        }
        let buf = self.input.fill_buf()?;
        if buf.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&buf[..buf.len().min(self.left)])
    }

    fn consume(&mut self, n: usize) {
        self.left -= n;
        self.input.consume(n);
    }
}

impl<R: BufRead> Read for BlockBody<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let buf = self.fill_buf()?;
        let n = buf.len().min(out.len());
        out[..n].copy_from_slice(&buf[..n]);
        self.consume(n);
        Ok(n)
    }
}

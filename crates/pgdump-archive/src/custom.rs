//! The custom format: header, table of contents, then data blocks until the file ends.
//!
//! A block is a type byte, the dump id and chunks (length, bytes) up to a chunk of length 0; the
//! chunks hold one compressed stream. A block of large objects repeats (oid, chunks) up to oid 0.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Read};
use std::sync::Arc;

use super::block_form::BlockForm;
use super::chunks::{BytesProven, DataSink, ObjectSplitter};
use super::cut_off::{CutOff, of_custom};
use super::data_offsets::blocks_at_offsets;
use super::header::read_header;
use super::index::{BlockProof, BlockQueue, CountingReader, IndexedBlock};
use super::input_files::InputFiles;
use super::members::split_table_data;
use super::peek_reader::{PeekReader, buffered};
use super::tail::{SHOWN_BYTES, no_block, offsets_at_end, other_bytes, peek, read_tail};
use super::toc::{Toc, TocReader, corrupt, read_int, read_toc};
use super::{
    Archive, ArchiveBody, BlockIndex, ByteStream, DataOffset, DumpId, Extent, Format, Limits,
    RangeSource, ReadContext, TocEntry, dialect_of,
};
use crate::error::ArchiveError;

pub(super) const BLOCK_DATA: u8 = 1;
pub(super) const BLOCK_LARGE_OBJECTS: u8 = 3;

/// The data blocks, next in `input`, or at the locations of an index or of the table of contents.
pub(super) struct CustomBlocks {
    input: CountingReader<PeekReader<'static>>,
    form: BlockForm,
    queue: Option<BlockQueue>,
    /// Bytes of the table of contents before the data, and of the one behind it, if that has been read.
    contents: u64,
    trailer: u64,
    pub files: InputFiles,
}

/// The blocks that one reader reads.
pub(super) enum BlockStream {
    /// All blocks, in order.
    Whole(CustomBlocks),
    /// Blocks at known locations, shared with other readers.
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
    let begin = f.input.position();
    let Toc {
        entries,
        encoding,
        sums,
    } = read_toc(&mut f, minor)?;
    let (int_size, off_size) = (f.int_size, f.off_size);
    let contents = f.input.position() - begin;
    let context = ReadContext {
        limits,
        dialect: dialect_of(&entries, &encoding),
        origin: None,
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
        contents,
        trailer: 0,
        files: InputFiles::default(),
    };
    Ok(Archive {
        header,
        entries,
        encoding,
        body: ArchiveBody::Custom(blocks),
        files: InputFiles::default(),
        limits,
    })
}

/// Bytes from each data block to the next one, and from the last one to the end of the archive, if that is known.
fn sizes(entries: &[TocEntry], end: Option<u64>) -> HashMap<DumpId, u64> {
    let at = |e: &TocEntry| {
        if let DataOffset::At(n) = e.offset {
            Some((n, e.dump_id))
        } else {
            None
        }
    };
    let mut starts: Vec<(u64, DumpId)> = entries.iter().filter_map(at).collect();
    starts.sort_unstable();
    let last = starts.last().map_or(0, |(at, _)| *at);
    let end = end.filter(|end| *end > last);
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain(end);
    let sizes = starts.iter().zip(ends);
    sizes.map(|((at, id), end)| (*id, end - at)).collect()
}

impl CustomBlocks {
    /// Stored bytes of each entry's data, in an archive of `stored` bytes.
    pub(crate) fn sizes(&self, entries: &[TocEntry], stored: Option<u64>) -> HashMap<DumpId, u64> {
        sizes(entries, stored.map(|n| n.saturating_sub(self.trailer)))
    }

    /// Whether the last bytes of the archive show that it is cut off.
    pub(crate) fn cut_off(&self, entries: &[TocEntry], size: u64, tail: &[u8]) -> Option<CutOff> {
        if self.trailer > 0 {
            return None;
        }
        of_custom(entries, self.form.int_size, size, tail)
    }

    /// At most how many bytes a table of contents behind the data has.
    pub(crate) fn most_trailer(&self) -> u64 {
        self.contents
    }

    /// Takes the offsets from the table of contents behind the data, if `tail` ends with it.
    pub(crate) fn read_trailer(&mut self, entries: &mut [TocEntry], tail: &[u8]) {
        if let Some((offsets, length)) = offsets_at_end(tail, &self.form, entries) {
            let with_data = entries.iter_mut().filter(|e| e.has_data);
            with_data.zip(offsets).for_each(|(e, at)| e.offset = at);
            self.trailer = length;
        }
    }

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
        if !has_same_blocks(entries, index) {
            return Err(wrong_index("the blocks differ"));
        }
        let rest = self.input.fill_buf();
        if !rest
            .map_err(|e| ArchiveError::from_io(e, "head"))?
            .is_empty()
        {
            return Err(wrong_index("the length of the table of contents differs"));
        }
        let offsets = self.offsets(entries, index, ranges.as_ref())?;
        let are_known = are_offsets_known(entries, index, &offsets)?;
        let proof = BlockProof::Each {
            can_skip: are_known,
        };
        self.queue = Some(BlockQueue::new(&index.blocks, ranges, proof));
        Ok(())
    }

    /// Reads by the offsets of the table of contents from here on, in an archive of `size` bytes; the input is closed.
    ///
    /// # Errors
    /// Why it cannot be read like this. Then nothing has changed.
    pub(crate) fn by_offsets(
        &mut self,
        entries: &[TocEntry],
        size: u64,
        ranges: Arc<dyn RangeSource>,
    ) -> Result<(), ArchiveError> {
        let end = size.saturating_sub(self.trailer);
        let blocks = blocks_at_offsets(entries, self.input.position()..end)?;
        if self.trailer > 0 {
            self.check_trailer(entries, end, ranges.as_ref())?;
        }
        ranges.know(self.input.take_extent());
        self.input = CountingReader::new(buffered(Box::new(std::io::empty())));
        self.queue = Some(BlockQueue::new(&blocks, ranges, BlockProof::Together));
        Ok(())
    }

    /// Reads the table of contents behind the data, which is a part of the archive.
    fn check_trailer(
        &self,
        entries: &[TocEntry],
        offset: u64,
        ranges: &dyn RangeSource,
    ) -> Result<(), ArchiveError> {
        let tail = Extent {
            offset,
            length: self.trailer,
            ..Extent::default()
        };
        let mut input = CountingReader::new(buffered(ranges.open(tail)?));
        let offsets = read_tail(&mut input, &self.form, entries, &InputFiles::default())?;
        let with_data = entries.iter().filter(|e| e.has_data).map(|e| &e.offset);
        if offsets.is_some_and(|offsets| offsets.iter().eq(with_data)) {
            Ok(())
        } else {
            Err(corrupt(
                "the offsets in the table of contents after the data differ from those read before",
            ))
        }
    }

    /// The offsets that the last table of contents says for entries with data.
    fn offsets(
        &self,
        entries: &[TocEntry],
        index: &BlockIndex,
        ranges: &dyn RangeSource,
    ) -> Result<Vec<DataOffset>, ArchiveError> {
        let Some(tail) = index.tail else {
            let with_data = entries.iter().filter(|e| e.has_data);
            return Ok(with_data.map(|e| e.offset.clone()).collect());
        };
        let mut input = CountingReader::new(buffered(ranges.open(tail)?));
        let offsets = read_tail(&mut input, &self.form, entries, &InputFiles::default())?;
        offsets.ok_or_else(|| wrong_index("the archive ends after the table of contents"))
    }

    /// Hands the block of one entry to `sink`; it begins where `bytes` do.
    pub(crate) fn read_entry(
        &self,
        entry: &TocEntry,
        bytes: ByteStream,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let mut input = buffered(bytes);
        let elsewhere = || corrupt(format!("the data of {} is not at its offset", entry.name()));
        let kind = next_kind(&mut input)?.ok_or_else(elsewhere)?;
        if int(&mut input, &self.form, "block header")? != i64::from(entry.dump_id.0) {
            return Err(elsewhere());
        }
        read_block(&mut input, &self.form, kind, entry, sink)
    }

    /// By blocks, those of a lower turn are read first; within a turn, the largest first.
    pub(crate) fn set_read_order(&mut self, turns: &HashMap<DumpId, usize>) {
        if let Some(queue) = &self.queue {
            queue.sort_by_turn(|block| turns.get(&block.dump_id).copied().unwrap_or_default());
        }
    }

    /// Whether the data is read by the offsets of the table of contents.
    pub(crate) fn is_by_offsets(&self) -> bool {
        self.queue.as_ref().is_some_and(BlockQueue::is_by_offsets)
    }

    /// One reader, or (by blocks) up to `most`.
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
        while let Some((kind, at)) = self.next_block(entries, &positions, left)? {
            let entry = &entries[at];
            if !std::mem::replace(&mut unread[at], false) {
                let name = entry.name();
                return Err(corrupt(format!("the data of {name} occurs twice")));
            }
            left -= 1;
            read_block(&mut self.input, &self.form, kind, entry, sink)?;
            sink.extent(Some(entry), self.input.take_extent());
        }
        if let Some((missing, _)) = entries.iter().zip(&unread).find(|(_, unread)| **unread) {
            return Err(self.missing_block(missing)?);
        }
        if read_tail(&mut self.input, &self.form, entries, &self.files)?.is_some() {
            sink.tail(self.input.take_extent());
        }
        Ok(())
    }

    /// Type of the next block and the position of its entry; `None` if no block follows. `left`: blocks that are
    /// still to come.
    fn next_block(
        &mut self,
        entries: &[TocEntry],
        positions: &Positions,
        left: usize,
    ) -> Result<Option<(u8, usize)>, ArchiveError> {
        let begin = self.input.position();
        if left == 0 {
            self.files.mark_end_at(begin);
        }
        let start = self.input.fill_buf();
        let start = start.map_err(|e| ArchiveError::from_io(e, "block header"))?;
        let start = start[..start.len().min(SHOWN_BYTES)].to_vec();
        if !start.is_empty() {
            self.files.mark_more_at(begin);
        }
        let Some(kind) = next_kind(&mut self.input)? else {
            return Ok(None);
        };
        let id = int(&mut self.input, &self.form, "block header");
        let at = id.as_ref().ok().and_then(|id| position_of(*id, positions));
        if let Some(at) = at.filter(|at| entries[*at].has_data) {
            return Ok(Some((kind, at)));
        }
        Err(match id {
            // All data was read, so these are other bytes.
            _ if left == 0 => other_bytes(begin, &start),
            // The number is incomplete: the read error says more than the bytes that follow.
            Err(e) => e,
            Ok(id) => corrupt(format!("a data block belongs to the unknown entry {id}")),
        })
    }

    fn missing_block(&mut self, missing: &TocEntry) -> Result<ArchiveError, ArchiveError> {
        let at = self.input.position();
        let start = peek(&mut self.input)?;
        if !start.is_empty() {
            return Ok(no_block(at, &start, missing));
        }
        let (kind, tag) = (&missing.kind, &missing.tag);
        Ok(corrupt(format!(
            "the archive ends early: the data of {kind} {tag} is missing"
        )))
    }
}

fn position_of(id: i64, positions: &Positions) -> Option<usize> {
    let id = DumpId(i32::try_from(id).ok()?);
    positions.get(&id).copied()
}

fn wrong_index(what: &str) -> ArchiveError {
    corrupt(format!(
        "the restore index does not match the archive: {what}"
    ))
}

/// Whether an index has exactly one block for each entry with data.
fn has_same_blocks(entries: &[TocEntry], index: &BlockIndex) -> bool {
    let with_data = entries.iter().filter(|e| e.has_data);
    let mut unread: HashSet<DumpId> = with_data.map(|e| e.dump_id).collect();
    let mut blocks = index.blocks.iter();
    blocks.all(|b| unread.remove(&b.dump_id)) && unread.is_empty()
}

/// Whether the archive has every block's offset; those that it has must be those of the index.
fn are_offsets_known(
    entries: &[TocEntry],
    index: &BlockIndex,
    offsets: &[DataOffset],
) -> Result<bool, ArchiveError> {
    let starts = index.blocks.iter().map(|b| (b.dump_id, b.extent.offset));
    let starts: HashMap<DumpId, u64> = starts.collect();
    let mut are_known = true;
    for (e, offset) in entries.iter().filter(|e| e.has_data).zip(offsets) {
        match offset {
            DataOffset::At(n) if starts.get(&e.dump_id) != Some(n) => {
                return Err(wrong_index("the blocks begin at different offsets"));
            }
            DataOffset::At(_) => {}
            _ => are_known = false,
        }
    }
    Ok(are_known)
}

impl BlockStream {
    /// Hands the data to `sink`.
    pub(crate) fn read(
        self,
        entries: &[TocEntry],
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        match self {
            BlockStream::Whole(blocks) => blocks.read(entries, sink),
            BlockStream::Shared(queue, form, positions) => {
                let reader = LocatedBlocks {
                    entries,
                    queue,
                    form,
                    positions,
                };
                reader.read(sink)
            }
        }
    }
}

/// Reads blocks at their locations.
struct LocatedBlocks<'a> {
    entries: &'a [TocEntry],
    queue: BlockQueue,
    form: BlockForm,
    positions: Arc<Positions>,
}

impl LocatedBlocks<'_> {
    fn read(&self, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        while let Some(run) = self.next(sink) {
            if let Some(block) = run.first() {
                // All blocks of a run belong to one turn.
                sink.wait_for_turn(self.entry_of(block)?)?;
            }
            let mut input = CountingReader::new(buffered(self.queue.open(&run)?));
            for block in &run {
                self.read_block(&mut input, block, sink)?;
            }
            // Read to the end, so that the checksum covers all of it.
            if next_kind(&mut input)?.is_some() {
                let origin = self.queue.origin();
                return Err(corrupt(format!(
                    "a block has a different length than in {origin}"
                )));
            }
        }
        Ok(())
    }

    fn next(&self, sink: &dyn DataSink) -> Option<Vec<IndexedBlock>> {
        let is_wanted = |block: &IndexedBlock| {
            let entry = self.entry_of(block);
            entry.is_ok_and(|e| sink.should_read(e))
        };
        let known = |block: &IndexedBlock| {
            let entry = self.entry_of(block).ok()?;
            sink.known_block(entry)
        };
        self.queue.next(is_wanted, known)
    }

    fn entry_of(&self, block: &IndexedBlock) -> Result<&TocEntry, ArchiveError> {
        let at = self.positions.get(&block.dump_id).copied();
        at.map(|at| &self.entries[at])
            .ok_or_else(|| corrupt("the restore index does not match the archive"))
    }

    fn read_block<R: BufRead>(
        &self,
        input: &mut CountingReader<R>,
        block: &IndexedBlock,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let entry = self.entry_of(block)?;
        let differs = |what: &str| {
            let (name, origin) = (entry.name(), self.queue.origin());
            corrupt(format!("the block of {name} {what} in {origin}"))
        };
        let elsewhere = || differs("is not at its offset");
        let kind = next_kind(input)?.ok_or_else(elsewhere)?;
        if int(input, &self.form, "block header")? != i64::from(block.dump_id.0) {
            return Err(elsewhere());
        }
        let is_wanted = sink.should_read(entry);
        if is_wanted {
            read_block(input, &self.form, kind, entry, sink)?
        } else {
            skip_block(input, &self.form, kind)?
        }
        let read = self.queue.accept(block, input.take_extent());
        let read = read.ok_or_else(|| differs("has a different length or checksum than"))?;
        let is_by_offsets = self.queue.is_by_offsets();
        if is_wanted {
            let proven = if is_by_offsets {
                BytesProven::BlockRead(read)
            } else {
                BytesProven::Block(read)
            };
            sink.proven(entry, proven);
        } else if is_by_offsets && sink.known_block(entry).is_some_and(|known| known != read) {
            // What an earlier attempt has loaded of it was read elsewhere.
            let name = entry.name();
            return Err(corrupt(format!(
                "the block of {name} is not where an earlier attempt read it"
            )));
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
        let oid = object_oid(oid)
            .ok_or_else(|| corrupt(format!("{oid} is not a valid OID of a large object")))?;
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

/// The OID of a large object. `pg_dump` writes it as an `int`, of which the upper half of all OIDs are negative.
fn object_oid(written: i64) -> Option<u32> {
    let negative = i32::try_from(written).ok().map(i32::cast_unsigned);
    negative.or_else(|| u32::try_from(written).ok())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oids_of_large_objects_have_32_bits() {
        for (written, oid) in [
            (16_385, Some(16_385)),
            (-1, Some(u32::MAX)),
            (i64::from(i32::MIN), Some(1 << 31)),
            (1 << 31, Some(1 << 31)),
            (1 << 32, None),
            (-(1 << 32), None),
        ] {
            assert_eq!(object_oid(written), oid, "{written}");
        }
    }
}

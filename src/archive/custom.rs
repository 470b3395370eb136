//! The custom format: header, table of contents, then data blocks until the file ends.
//!
//! A block is a type byte, the dump id and chunks (length, bytes) up to a chunk of length 0; the
//! chunks hold one compressed stream. A block of large objects repeats (oid, chunks) up to oid 0.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use super::header::read_header;
use super::index::{Metered, Todo};
use super::layers::{Head, buffered};
use super::members::cut_table;
use super::pieces::{DataSink, ObjectCutter};
use super::toc::{Fields, corrupt, read_int, read_toc};
use super::{Archive, Body, Codec, Context, DataOffset, Format, Limits, TocEntry, dialect_of};
use crate::error::RestoreError;

const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// The data blocks, next in `input`; with an index, wherever it says.
pub(super) struct Blocks {
    input: Metered<Head<'static>>,
    form: Form,
    todo: Option<Todo>,
}

/// How the blocks of one archive are written.
#[derive(Clone)]
pub(super) struct Form {
    codec: Codec,
    int_size: u8,
    context: Context,
}

/// What one reader reads.
pub(super) enum Stream {
    /// All blocks, in order.
    Whole(Blocks),
    /// Blocks by the index, among other readers.
    Shared(Todo, Form),
}

/// Reads the header and the table of contents.
pub(super) fn open(input: Head<'static>, limits: Limits) -> Result<Archive, RestoreError> {
    let mut input = Metered::new(input);
    let mut f = Fields {
        members: false,
        input: &mut input,
        int_size: 4,
        off_size: 8,
        limits,
        budget: limits.max_toc,
    };
    let header = read_header(&mut f, Format::Custom)?;
    let (entries, encoding) = read_toc(&mut f, header.version.map_or(0, |v| v.1))?;
    let int_size = f.int_size;
    let context = Context { limits, dialect: dialect_of(&entries, &encoding) };
    let form = Form { codec: header.codec, int_size, context };
    let blocks = Blocks { input, form, todo: None };
    Ok(Archive { header, entries, encoding, body: Body::Custom(blocks) })
}

/// Bytes from each data block to the next one; of the last block, nothing is known.
pub(super) fn sizes(entries: &[TocEntry]) -> HashMap<i32, u64> {
    let at = |e: &TocEntry| if let DataOffset::At(n) = e.offset { Some((n, e.dump_id)) } else { None };
    let mut starts: Vec<(u64, i32)> = entries.iter().filter_map(at).collect();
    starts.sort_unstable();
    starts.windows(2).map(|w| (w[0].1, w[1].0 - w[0].0)).collect()
}

impl Blocks {
    /// The head's own input ends here.
    pub fn by_index(&mut self, todo: Todo) -> Result<(), RestoreError> {
        self.todo = Some(todo);
        match next_block(&mut self.input, &self.form)? {
            None => Ok(()),
            Some(_) => Err(corrupt("the table of contents is not as long as it was")),
        }
    }

    /// One reader, or (with an index) up to `most`.
    pub fn into_streams(mut self, most: usize) -> Vec<Stream> {
        match self.todo.take() {
            None => vec![Stream::Whole(self)],
            Some(todo) => (0..most.max(1)).map(|_| Stream::Shared(todo.clone(), self.form.clone())).collect(),
        }
    }

    /// Hands all data to `sink`, in the order of the file, and reads to the end of the input.
    fn read(mut self, entries: &[TocEntry], sink: &mut dyn DataSink) -> Result<(), RestoreError> {
        sink.extent(None, self.input.cut());
        let index: HashMap<i32, usize> = entries.iter().enumerate().map(|(i, e)| (e.dump_id, i)).collect();
        let mut seen = vec![false; entries.len()];
        while let Some((kind, id)) = next_block(&mut self.input, &self.form)? {
            let at = i32::try_from(id).ok().and_then(|id| index.get(&id)).copied();
            let at = at.ok_or_else(|| corrupt(format!("a data block of the unknown entry {id}")))?;
            let entry = &entries[at];
            if !entry.has_data || std::mem::replace(&mut seen[at], true) {
                return Err(corrupt(format!("an unexpected data block of entry {id}")));
            }
            read_block(&mut self.input, &self.form, kind, entry, sink)?;
            sink.extent(Some(entry), self.input.cut());
        }
        let missing = entries.iter().zip(&seen).find(|(e, seen)| e.has_data && !**seen);
        match missing {
            Some((e, _)) => Err(corrupt(format!("the archive ends early: no data of {} {}", e.desc, e.tag))),
            None => Ok(()),
        }
    }
}

impl Stream {
    /// Hands the data to `sink`.
    pub fn read(self, entries: &[TocEntry], sink: &mut dyn DataSink) -> Result<(), RestoreError> {
        let (todo, form) = match self {
            Stream::Whole(blocks) => return blocks.read(entries, sink),
            Stream::Shared(todo, form) => (todo, form),
        };
        while let Some(block) = todo.next() {
            let entry = entries.iter().find(|e| e.dump_id == block.dump_id);
            let entry = entry.ok_or_else(|| corrupt("the restore index is another archive's"))?;
            if !sink.wants(entry) {
                continue;
            }
            let mut input = buffered(todo.open(&block)?);
            match next_block(&mut input, &form)? {
                Some((kind, id)) if id == i64::from(block.dump_id) => {
                    read_block(&mut input, &form, kind, entry, sink)?;
                }
                _ => {
                    return Err(corrupt(format!("the block of entry {} is not where it was", block.dump_id)));
                }
            }
            // To the end, so that the checksum is of all of it.
            if next_block(&mut input, &form)?.is_some() {
                return Err(corrupt(format!(
                    "the block of entry {} is not as long as it was",
                    block.dump_id
                )));
            }
        }
        Ok(())
    }
}

/// Type of the next block and the number of its entry; `None` at the end.
fn next_block(input: &mut impl Read, form: &Form) -> Result<Option<(u8, i64)>, RestoreError> {
    let mut byte = [0u8; 1];
    match input.read(&mut byte) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some((byte[0], int(input, form, "block header")?))),
        Err(e) => Err(RestoreError::from_archive_io(e, "block header")),
    }
}

fn int(input: &mut impl Read, form: &Form, what: &str) -> Result<i64, RestoreError> {
    read_int(input, form.int_size).map_err(|e| RestoreError::from_archive_io(e, what))
}

fn read_block(
    input: &mut impl BufRead,
    form: &Form,
    kind: u8,
    entry: &TocEntry,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    sink.begin(entry)?;
    match kind {
        BLOCK_DATA => read_table(input, form, entry, sink)?,
        BLOCK_LARGE_OBJECTS => read_large_objects(input, form, sink)?,
        other => return Err(corrupt(format!("{other} is no type of a data block"))),
    }
    sink.end(entry)
}

fn read_table(
    input: &mut impl BufRead,
    form: &Form,
    entry: &TocEntry,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    let what = format!("data of {}", entry.tag);
    let mut body = BlockBody::new(input, form.int_size);
    {
        let data = form.codec.decoder(&mut body, &form.context.limits);
        let data = data.map_err(|e| RestoreError::from_archive_io(e, &what))?;
        cut_table(data, &form.context, entry, sink)?;
    }
    body.finish(&what)
}

fn read_large_objects(
    input: &mut impl BufRead,
    form: &Form,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    let what = "large objects";
    let mut cutter = ObjectCutter::default();
    loop {
        let oid = int(input, form, what)?;
        let oid = u32::try_from(oid).map_err(|_| corrupt(format!("{oid} is no large object")))?;
        if oid == 0 {
            return Ok(());
        }
        let mut body = BlockBody::new(input, form.int_size);
        {
            let data = form.codec.decoder(&mut body, &form.context.limits);
            let mut data = data.map_err(|e| RestoreError::from_archive_io(e, what))?;
            cutter.cut(&mut data, oid, sink)?;
        }
        body.finish(what)?;
    }
}

/// The chunks of one block as one stream of bytes.
struct BlockBody<'a, R> {
    input: &'a mut R,
    int_size: u8,
    /// Bytes left of the current chunk.
    left: usize,
    ended: bool,
}

impl<'a, R: BufRead> BlockBody<'a, R> {
    fn new(input: &'a mut R, int_size: u8) -> Self {
        BlockBody { input, int_size, left: 0, ended: false }
    }

    /// The compressed stream must end where the chunks end.
    fn finish(mut self, what: &str) -> Result<(), RestoreError> {
        let rest = self.fill_buf().map_err(|e| RestoreError::from_archive_io(e, what))?;
        match rest.is_empty() {
            true => Ok(()),
            false => Err(corrupt(format!("{what}: bytes after the end of the compressed data"))),
        }
    }
}

impl<R: BufRead> BufRead for BlockBody<'_, R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.left == 0 && !self.ended {
            let len = read_int(self.input, self.int_size)?;
            self.left = usize::try_from(len).map_err(|_| corrupt(format!("a chunk of {len} bytes")))?;
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

//! Writes a custom archive: header, table of contents, then one data block after another, to an output that need not be
//! seekable. `pg_restore` finds the blocks of such an archive by reading it, as those of a `pg_dump` into a pipe.

use std::collections::HashMap;
use std::io::Write;

use super::block_encoder::BlockEncoder;
use super::custom::{BLOCK_DATA, BLOCK_LARGE_OBJECTS};
use super::toc::corrupt;
use super::toc_writer::{TocEncoder, length_of, put_int, version_to_write};
use super::{Codec, DumpId, EntryKind, Header, TextEncoding, TocEntry};
use crate::error::ArchiveError;

/// Compressed bytes of a block that are written at once, approximately.
const CHUNK: usize = 64 << 10;

/// What ends the rows of a table: COPY's end marker, and two blank lines.
const END_OF_COPY: &[u8] = b"\\.\n\n\n";
/// What ends INSERT statements.
const END_OF_INSERTS: &[u8] = b"\n\n";

/// Writes an archive in the custom format, of the entries of another archive: [`begin`](ArchiveWriter::begin), data and
/// [`end`](ArchiveWriter::end) for each entry with data, in any order, then [`finish`](ArchiveWriter::finish). Memory is
/// bounded: nothing is kept of the data but a few compressed chunks. An archive that is not finished cannot be read to its
/// end.
pub struct ArchiveWriter<W> {
    out: W,
    codec: Codec,
    /// The entries whose data is still to come, with their names.
    unwritten: HashMap<DumpId, String>,
    open: Option<OpenBlock>,
}

/// The block that is being written.
struct OpenBlock {
    dump_id: DumpId,
    name: String,
    content: BlockContent,
}

enum BlockContent {
    /// Rows or statements, and what ends them.
    Table(BlockEncoder, &'static [u8]),
    /// Large objects; the OID of the one that is being written.
    LargeObjects(Option<(u32, BlockEncoder)>),
}

/// Whether an archive with these contents and this compression can be written at all.
///
/// # Errors
/// [`ArchiveError::Unsupported`] if the header is that of SQL text, or of an archive whose version does not know the
/// compression.
pub fn check_writable(header: &Header, codec: Codec) -> Result<(), ArchiveError> {
    version_to_write(header, codec).map(drop)
}

impl<W: Write> ArchiveWriter<W> {
    /// Writes the header, with the version of `header`, and the entries, whose texts are those that `encoding` has decoded.
    /// Every entry whose [`has_data`](TocEntry::has_data) is set needs a block.
    ///
    /// # Errors
    /// As [`check_writable`]; [`ArchiveError::Source`] where the output fails.
    pub fn new(
        mut out: W,
        header: &Header,
        entries: &[&TocEntry],
        encoding: &TextEncoding,
        codec: Codec,
    ) -> Result<Self, ArchiveError> {
        let mut encoder = TocEncoder {
            bytes: Vec::new(),
            encoding,
            minor: version_to_write(header, codec)?.1,
        };
        encoder.header(header, codec, entries.len())?;
        let mut unwritten = HashMap::new();
        for entry in entries {
            encoder.entry(entry)?;
            if entry.has_data {
                unwritten.insert(entry.dump_id, entry.name());
            }
            if encoder.bytes.len() >= CHUNK {
                out.write_all(&encoder.bytes).map_err(failed)?;
                encoder.bytes.clear();
            }
        }
        out.write_all(&encoder.bytes).map_err(failed)?;
        Ok(ArchiveWriter {
            out,
            codec,
            unwritten,
            open: None,
        })
    }

    /// Whether the block of this entry may begin or go on here: for [`DataSink::is_ready`](crate::DataSink::is_ready), because
    /// a packed directory may have other members between the large objects of an entry.
    pub fn is_ready(&self, entry: &TocEntry) -> bool {
        let open = self.open.as_ref();
        open.is_none_or(|open| open.dump_id == entry.dump_id)
    }

    /// Begins the block of an entry. Large objects may arrive one by one, each with a call of its own.
    ///
    /// # Errors
    /// [`ArchiveError::Corrupt`] for an entry that is not among those of the archive, has no data or has its block already,
    /// and for data inside of that of another entry; [`ArchiveError::Source`] where the output fails.
    pub fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        if let Some(open) = &self.open {
            return if open.dump_id == entry.dump_id {
                Ok(())
            } else {
                let (inner, outer) = (entry.name(), &open.name);
                Err(corrupt(format!(
                    "the data of {inner} begins inside that of {outer}"
                )))
            };
        }
        let Some(name) = self.unwritten.remove(&entry.dump_id) else {
            let name = entry.name();
            return Err(corrupt(format!("the data of {name} is not expected here")));
        };
        let (kind, content) = if entry.kind == EntryKind::Blobs {
            (BLOCK_LARGE_OBJECTS, BlockContent::LargeObjects(None))
        } else {
            let end = if entry.copy_stmt.is_empty() {
                END_OF_INSERTS
            } else {
                END_OF_COPY
            };
            let encoder = BlockEncoder::new(self.codec).map_err(failed)?;
            (BLOCK_DATA, BlockContent::Table(encoder, end))
        };
        self.out.write_all(&[kind]).map_err(failed)?;
        put_int_to(&mut self.out, entry.dump_id.0)?;
        self.open = Some(OpenBlock {
            dump_id: entry.dump_id,
            name,
            content,
        });
        Ok(())
    }

    /// Adds rows in COPY's text format, without an end marker, or whole INSERT statements.
    ///
    /// # Errors
    /// [`ArchiveError::Source`] where the output fails.
    pub fn table_data(&mut self, text: &[u8]) -> Result<(), ArchiveError> {
        match self.open.as_mut().map(|open| &mut open.content) {
            Some(BlockContent::Table(encoder, _)) => {
                encoder.write(text).map_err(failed)?;
                put_chunk(&mut self.out, encoder.compressed(), CHUNK)
            }
            _ => Err(corrupt("there are rows outside of a table's data")),
        }
    }

    /// Adds a part of a large object. The parts of one follow each other; an empty object needs none.
    ///
    /// # Errors
    /// [`ArchiveError::Source`] where the output fails.
    pub fn large_object(&mut self, oid: u32, bytes: &[u8]) -> Result<(), ArchiveError> {
        let Some(BlockContent::LargeObjects(object)) =
            self.open.as_mut().map(|open| &mut open.content)
        else {
            return Err(corrupt("there is a large object outside of their data"));
        };
        if let Some((_, encoder)) = object.take_if(|(written, _)| *written != oid) {
            end_body(&mut self.out, encoder)?;
        }
        let (_, encoder) = match object {
            Some(same) => same,
            None => {
                // `pg_dump` writes it as an `int`, too.
                put_int_to(&mut self.out, oid.cast_signed())?;
                object.insert((oid, BlockEncoder::new(self.codec).map_err(failed)?))
            }
        };
        encoder.write(bytes).map_err(failed)?;
        put_chunk(&mut self.out, encoder.compressed(), CHUNK)
    }

    /// Ends the block of the entry that was begun.
    ///
    /// # Errors
    /// [`ArchiveError::Source`] where the output fails.
    pub fn end(&mut self) -> Result<(), ArchiveError> {
        match self.open.take().map(|open| open.content) {
            None => Ok(()),
            Some(BlockContent::Table(mut encoder, end)) => {
                encoder.write(end).map_err(failed)?;
                end_body(&mut self.out, encoder)
            }
            Some(BlockContent::LargeObjects(object)) => {
                if let Some((_, encoder)) = object {
                    end_body(&mut self.out, encoder)?;
                }
                put_int_to(&mut self.out, 0)
            }
        }
    }

    /// Ends the archive and returns the output, which was flushed.
    ///
    /// # Errors
    /// [`ArchiveError::Corrupt`] if the data of an entry is missing; [`ArchiveError::Source`] where the output fails.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        let missing = self.open.map(|open| open.name);
        let missing = missing.or_else(|| self.unwritten.into_values().min());
        if let Some(name) = missing {
            return Err(corrupt(format!("the data of {name} is missing")));
        }
        self.out.flush().map_err(failed)?;
        Ok(self.out)
    }
}

fn put_int_to(out: &mut impl Write, n: i32) -> Result<(), ArchiveError> {
    let mut bytes = Vec::new();
    put_int(&mut bytes, n);
    out.write_all(&bytes).map_err(failed)
}

/// Writes what was compressed as one chunk, if there is at least this much.
fn put_chunk(
    out: &mut impl Write,
    compressed: &mut Vec<u8>,
    least: usize,
) -> Result<(), ArchiveError> {
    if compressed.len() < least {
        return Ok(());
    }
    put_int_to(out, length_of(compressed)?)?;
    out.write_all(compressed).map_err(failed)?;
    compressed.clear();
    Ok(())
}

/// Ends the compressed stream and the chunks that have it.
fn end_body(out: &mut impl Write, encoder: BlockEncoder) -> Result<(), ArchiveError> {
    let mut rest = encoder.finish().map_err(failed)?;
    put_chunk(out, &mut rest, 1)?;
    // A chunk of length 0 is the end.
    put_int_to(out, 0)
}

/// The error of an output; one of our own that it carries is returned as it is.
fn failed(e: std::io::Error) -> ArchiveError {
    e.downcast::<ArchiveError>()
        .unwrap_or_else(ArchiveError::source)
}

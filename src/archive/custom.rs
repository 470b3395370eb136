//! The custom format: header, table of contents, then data blocks until the file ends.
//!
//! A block is a type byte, the dump id and chunks (length, bytes) up to a chunk of length 0; the
//! chunks hold one compressed stream. A block of large objects repeats (oid, chunks) up to oid 0.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

use super::pieces::{DataSink, cut_large_object, cut_rows, cut_statements};
use super::toc::{Fields, corrupt, read_int, read_toc};
use super::{Codec, Limits, TextEncoding, TocEntry};
use crate::error::{FailureReason, RestoreError, ValidationError};

const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// What the first bytes of the archive say.
#[derive(Debug, Clone)]
pub struct Header {
    /// Archive version: major, minor, revision.
    pub version: (u8, u8, u8),
    pub codec: Codec,
    /// When the dump began, in the dumping machine's local time.
    pub created: Option<jiff::civil::DateTime>,
    pub database: String,
    /// Version of the server that was dumped.
    pub server_version: String,
    pub pg_dump_version: String,
    int_size: u8,
}

/// An archive whose header and table of contents are read and whose data comes next in `input`.
pub struct CustomArchive<R> {
    input: BufReader<R>,
    header: Header,
    entries: Vec<TocEntry>,
    encoding: TextEncoding,
    limits: Limits,
}

fn unsupported(what: impl Into<String>) -> RestoreError {
    ValidationError::new(FailureReason::ArchiveUnsupported, what).into()
}

impl<R: Read> CustomArchive<R> {
    /// Reads the header and the table of contents.
    ///
    /// # Errors
    /// `archive_unsupported` for another format or version, `archive_corrupt` for damaged bytes,
    /// or the reader's own [`RestoreError`].
    pub fn open(input: R, limits: Limits) -> Result<Self, RestoreError> {
        let mut input = BufReader::with_capacity(256 << 10, input);
        let mut magic = Vec::new();
        (&mut input)
            .take(5)
            .read_to_end(&mut magic)
            .map_err(|e| RestoreError::from_archive_io(e, "first bytes"))?;
        if magic != b"PGDMP" {
            return Err(not_an_archive(&magic));
        }
        let mut f = Fields { input: &mut input, int_size: 4, off_size: 8, limits, budget: limits.max_toc };
        let header = read_header(&mut f)?;
        let (entries, encoding) = read_toc(&mut f, header.version.1)?;
        Ok(CustomArchive { input, header, entries, encoding, limits })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn entries(&self) -> &[TocEntry] {
        &self.entries
    }

    /// The dump's text encoding: of `--inserts` statements and of COPY data.
    pub fn encoding(&self) -> &TextEncoding {
        &self.encoding
    }

    /// Whether a backslash in `'…'` is an ordinary character in this dump's statements.
    pub fn standard_strings(&self) -> bool {
        let setting = self.entries.iter().find(|e| e.desc == "STDSTRINGS");
        setting.is_none_or(|e| e.defn.contains("'on'"))
    }

    /// Hands all data to `sink`, in the order of the file, and reads to the end of the input.
    ///
    /// # Errors
    /// `archive_corrupt` where a block is damaged, unknown, there twice or missing; the errors of
    /// the reader and of the sink.
    pub fn read_data(mut self, sink: &mut dyn DataSink) -> Result<(), RestoreError> {
        let standard_strings = self.standard_strings();
        let index: HashMap<i32, usize> =
            self.entries.iter().enumerate().map(|(i, e)| (e.dump_id, i)).collect();
        let mut seen = vec![false; self.entries.len()];
        while let Some(kind) = self.next_block_type()? {
            let id = self.int("block header")?;
            let at = i32::try_from(id).ok().and_then(|id| index.get(&id)).copied();
            let at = at.ok_or_else(|| corrupt(format!("a data block of the unknown entry {id}")))?;
            let entry = &self.entries[at];
            if !entry.has_data || std::mem::replace(&mut seen[at], true) {
                return Err(corrupt(format!("an unexpected data block of entry {id}")));
            }
            let codec = (self.header.codec, self.header.int_size, &self.limits);
            sink.begin(entry)?;
            match kind {
                BLOCK_DATA => read_table(&mut self.input, codec, entry, standard_strings, sink)?,
                BLOCK_LARGE_OBJECTS => read_large_objects(&mut self.input, codec, sink)?,
                other => return Err(corrupt(format!("{other} is no type of a data block"))),
            }
            sink.end(entry)?;
        }
        let missing = self.entries.iter().zip(&seen).find(|(e, seen)| e.has_data && !**seen);
        match missing {
            Some((e, _)) => Err(corrupt(format!("the archive ends early: no data of {} {}", e.desc, e.tag))),
            None => Ok(()),
        }
    }

    fn next_block_type(&mut self) -> Result<Option<u8>, RestoreError> {
        let mut byte = [0u8; 1];
        match self.input.read(&mut byte) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(byte[0])),
            Err(e) => Err(RestoreError::from_archive_io(e, "block header")),
        }
    }

    fn int(&mut self, what: &str) -> Result<i64, RestoreError> {
        read_int(&mut self.input, self.header.int_size).map_err(|e| RestoreError::from_archive_io(e, what))
    }
}

fn not_an_archive(magic: &[u8]) -> RestoreError {
    if magic.is_empty() {
        return corrupt("the backup is empty");
    }
    if b"PGDMP".starts_with(magic) {
        return corrupt("the archive ends early: first bytes");
    }
    unsupported("the backup is not an archive of pg_dump's custom format (pg_dump -Fc)")
}

fn read_header<R: Read>(f: &mut Fields<'_, R>) -> Result<Header, RestoreError> {
    let version = (f.byte("version")?, f.byte("version")?, f.byte("version")?);
    if version.0 != 1 || !(12..=16).contains(&version.1) {
        return Err(unsupported(format!(
            "archive version {}.{}: versions 1.12 to 1.16 (PostgreSQL 9.0 to 18) are read",
            version.0, version.1
        )));
    }
    let int_size = f.byte("integer size")?;
    let off_size = f.byte("offset size")?;
    if !(1..=8).contains(&int_size) || !(1..=32).contains(&off_size) {
        return Err(corrupt(format!("integers of {int_size} and offsets of {off_size} bytes")));
    }
    (f.int_size, f.off_size) = (int_size, off_size);
    match f.byte("format")? {
        1 => {}
        3 => return Err(unsupported("the table of contents of a tar archive")),
        5 => return Err(unsupported("the table of contents of a directory archive")),
        n => return Err(corrupt(format!("{n} is no archive format"))),
    }
    let codec = read_codec(f, version.1)?;
    let created = read_created(f)?;
    let mut text = |what| {
        Ok::<_, RestoreError>(String::from_utf8_lossy(&f.bytes(what)?.unwrap_or_default()).into_owned())
    };
    let (database, server_version, pg_dump_version) =
        (text("database name")?, text("server version")?, text("pg_dump version")?);
    Ok(Header { version, codec, created, database, server_version, pg_dump_version, int_size })
}

fn read_codec<R: Read>(f: &mut Fields<'_, R>, minor: u8) -> Result<Codec, RestoreError> {
    if minor < 15 {
        return Ok(if f.int("compression level")? == 0 { Codec::None } else { Codec::Gzip });
    }
    match f.byte("compression")? {
        0 => Ok(Codec::None),
        1 => Ok(Codec::Gzip),
        2 => Ok(Codec::Lz4),
        3 => Ok(Codec::Zstd),
        n => Err(corrupt(format!("{n} is no compression"))),
    }
}

/// Seconds, minutes, hours, day, month (from 0), year (from 1900), daylight-saving flag.
fn read_created<R: Read>(f: &mut Fields<'_, R>) -> Result<Option<jiff::civil::DateTime>, RestoreError> {
    let mut tm = [0i64; 7];
    for field in &mut tm {
        *field = f.int("creation date")?;
    }
    let narrow = |v: i64| i8::try_from(v).ok();
    let made = (|| {
        let year = i16::try_from(tm[5].checked_add(1900)?).ok()?;
        let (month, day) = (narrow(tm[4].checked_add(1)?)?, narrow(tm[3])?);
        jiff::civil::DateTime::new(
            year,
            month,
            day,
            narrow(tm[2])?,
            narrow(tm[1])?,
            narrow(tm[0])?.min(59),
            0,
        )
        .ok()
    })();
    Ok(made)
}

type BlockCodec<'a> = (Codec, u8, &'a Limits);

fn read_table<R: BufRead>(
    input: &mut R,
    (codec, int_size, limits): BlockCodec<'_>,
    entry: &TocEntry,
    standard_strings: bool,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    let what = format!("data of {}", entry.tag);
    let mut body = BlockBody::new(input, int_size);
    {
        let mut data =
            codec.decoder(&mut body, limits).map_err(|e| RestoreError::from_archive_io(e, &what))?;
        match entry.copy_stmt.is_empty() {
            false => cut_rows(&mut data, &what, sink)?,
            true => cut_statements(&mut data, standard_strings, &what, sink)?,
        }
    }
    body.finish(&what)
}

fn read_large_objects<R: BufRead>(
    input: &mut R,
    (codec, int_size, limits): BlockCodec<'_>,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    let what = "large objects";
    loop {
        let oid = read_int(input, int_size).map_err(|e| RestoreError::from_archive_io(e, what))?;
        let oid = u32::try_from(oid).map_err(|_| corrupt(format!("{oid} is no large object")))?;
        if oid == 0 {
            return Ok(());
        }
        let mut body = BlockBody::new(input, int_size);
        {
            let mut data =
                codec.decoder(&mut body, limits).map_err(|e| RestoreError::from_archive_io(e, what))?;
            cut_large_object(&mut data, oid, sink)?;
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

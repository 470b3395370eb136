//! The chunks that data is handed over in, each of which can be sent on any connection: whole rows of COPY text, whole
//! INSERT statements, parts of large objects. Here, statements and large objects are split into chunks; rows are in
//! `row_splitter`.

use std::io::{BufRead, ErrorKind};

use bytes::{Bytes, BytesMut};

use super::lexer::StatementEnd;
use super::toc::{corrupt, limit_error};
use super::{Crc32c, Extent, ReadContext, TocEntry};
use crate::error::ArchiveError;

/// Approximate size of a chunk in bytes: large enough for a negligible cost per chunk, small enough to distribute.
pub(super) const CHUNK: usize = 256 << 10;
/// Size of the buffer that chunks of small large objects share.
const SHARED_BUFFER: usize = 1 << 20;

/// A part of an entry's data, in the order of the archive.
#[derive(Debug)]
pub enum Chunk {
    /// Rows in COPY text format.
    Rows {
        /// The rows, in the dump's encoding.
        text: Vec<u8>,
        /// Whether the last row is complete, so that another connection may take the next chunk. Only a row longer
        /// than a chunk is split.
        ends_row: bool,
    },
    /// Whole INSERT statements.
    Statements {
        /// The statements, in the dump's encoding.
        text: Vec<u8>,
        /// The `standard_conforming_strings` that they are written for; `None` for the archive's own.
        standard_strings: Option<bool>,
    },
    /// A part of one large object; the parts of an object come in order and do not overlap.
    LargeObject {
        /// OID of the large object.
        oid: u32,
        /// Offset of the part in the object, in bytes: a multiple of PostgreSQL's large-object page (2 KiB).
        offset: u64,
        /// The part's bytes.
        bytes: Bytes,
    },
}

impl Chunk {
    /// Bytes of table data or large object in the chunk.
    pub fn len(&self) -> usize {
        match self {
            Chunk::Rows { text, .. } | Chunk::Statements { text, .. } => text.len(),
            Chunk::LargeObject { bytes, .. } => bytes.len(),
        }
    }

    /// These bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Rows { text, .. } | Chunk::Statements { text, .. } => text,
            Chunk::LargeObject { bytes, .. } => bytes,
        }
    }

    /// Whether the chunk has no bytes: such a chunk of rows only completes a row that was split.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Stored bytes of an entry's data that were read to their end and have the checksum that they are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BytesProven {
    /// The entry's block, at its location in a restore index.
    Block(Extent),
    /// The entry's block, at its offset in the table of contents. Nothing says which checksum it is to have: it is proven
    /// once the checksums of all parts combine to that of the whole archive.
    BlockRead(Extent),
    /// The entry's member of a directory; of large objects, their list and the member of each of them.
    Member {
        /// The full name.
        name: String,
        /// CRC32C of its stored bytes.
        crc32c: Crc32c,
    },
}

/// Receives the data of an archive in its order. It slows the reader down by blocking.
pub trait DataSink {
    /// Whether the data of `entry` is needed; if not, the reader skips it if it can.
    fn should_read(&self, _entry: &TocEntry) -> bool {
        true
    }
    /// Whether all data that must be read before that of `entry` has been read.
    fn is_ready(&self, _entry: &TocEntry) -> bool {
        true
    }
    /// Waits until it has been, if other readers read it.
    fn wait_for_turn(&self, _entry: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }
    /// The data of `entry` starts here.
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError>;
    /// Takes the next chunk of the entry that [`begin`](DataSink::begin) was last called with.
    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError>;
    /// The entry's data is complete: its own end marker has been read.
    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError>;
    /// The stored bytes of the entry that [`end`](DataSink::end) was last called with were read to their end and have their
    /// checksum. Not every format shows that of single entries.
    fn proven(&mut self, _entry: &TocEntry, _bytes: BytesProven) {}
    /// The entry's block as an earlier reading has found it, if its data is not needed for this reason.
    fn known_block(&self, _entry: &TocEntry) -> Option<Extent> {
        None
    }
    /// The location of what was just read: the head of the archive (no entry), or an entry's block.
    fn extent(&mut self, _entry: Option<&TocEntry>, _extent: Extent) {}
    /// The location of a table of contents that follows the data.
    fn tail(&mut self, _extent: Extent) {}
    /// A statement of SQL text, at its position between the rows; other formats have their statements in the
    /// table of contents.
    fn statement(&mut self, _statement: Statement) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// A statement of SQL text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The text with its semicolon, in UTF-8.
    pub text: String,
    /// Line of the text where it begins, from 1.
    pub line: u64,
    /// The `standard_conforming_strings` that it is written for.
    pub standard_strings: bool,
}

/// Reads until `buf` has `want` bytes; returns whether the input ended. `Read::read_to_end` would first fill what it reads
/// into with zeros.
pub(super) fn fill(
    input: &mut impl BufRead,
    buf: &mut Vec<u8>,
    want: usize,
) -> std::io::Result<bool> {
    while buf.len() < want {
        let more = match input.fill_buf() {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            more => more?,
        };
        if more.is_empty() {
            return Ok(true);
        }
        let taken = more.len().min(want - buf.len());
        buf.extend_from_slice(&more[..taken]);
        input.consume(taken);
    }
    Ok(false)
}

/// Splits INSERT statements, several per chunk; the data ends with blank lines.
pub(super) fn split_statements(
    input: &mut impl BufRead,
    context: &ReadContext,
    what: &str,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    let mut buf = Vec::with_capacity(CHUNK);
    let mut scan = StatementEnd::default();
    loop {
        let want = buf.len() + CHUNK.max(buf.len());
        if buf.len() > context.limits.max_statement {
            return Err(limit_error(format!(
                "{what}: a statement of more than {} bytes",
                buf.len()
            )));
        }
        context
            .limits
            .check_memory(&format!("{what}: a statement"), 2 * buf.len() as u64)?;
        let ended = fill(input, &mut buf, want).map_err(|e| ArchiveError::from_io(e, what))?;
        let unfinished = || corrupt(format!("{what}: a statement is incomplete"));
        let mut cut = 0;
        while let Some(n) = scan
            .find(&buf[cut..], context.dialect, ended)
            .map_err(|_| unfinished())?
        {
            cut += n;
            if !scan.is(&["insert", "into"]) {
                return Err(limit_error(format!(
                    "{what}: a statement among its rows is not an INSERT"
                )));
            }
            scan = StatementEnd::default();
        }
        if cut > 0 {
            let rest = buf.split_off(cut);
            sink.chunk(Chunk::Statements {
                text: std::mem::replace(&mut buf, rest),
                standard_strings: None,
            })?;
        }
        if ended {
            return if buf.trim_ascii().is_empty() {
                Ok(())
            } else {
                Err(unfinished())
            };
        }
    }
}

/// Splits large objects into chunks. Small ones share a buffer: thousands of separate allocations would fragment
/// the heap and take twice the memory.
#[derive(Debug, Default)]
pub(super) struct ObjectSplitter {
    read: Vec<u8>,
    shared: BytesMut,
}

impl ObjectSplitter {
    /// Splits one large object into chunks that end at PostgreSQL's large-object page boundaries (2 KiB).
    pub(crate) fn split(
        &mut self,
        input: &mut impl BufRead,
        oid: u32,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let mut offset = 0;
        loop {
            self.read.clear();
            let ended = fill(input, &mut self.read, CHUNK)
                .map_err(|e| ArchiveError::from_io(e, &format!("large object {oid}")))?;
            let read = self.read.len();
            if read > 0 {
                if self.shared.capacity() < read {
                    self.shared = BytesMut::with_capacity(SHARED_BUFFER);
                }
                self.shared.extend_from_slice(&self.read);
                sink.chunk(Chunk::LargeObject {
                    oid,
                    offset,
                    bytes: self.shared.split().freeze(),
                })?;
            }
            if ended {
                return Ok(());
            }
            offset += read as u64;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Keeps every chunk.
    #[derive(Default)]
    pub(crate) struct CollectedChunks(pub(crate) Vec<Chunk>);

    impl DataSink for CollectedChunks {
        fn begin(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
            Ok(())
        }
        fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
            self.0.push(chunk);
            Ok(())
        }
        fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
            Ok(())
        }
    }

    #[test]
    fn large_objects_are_split_and_small_ones_share_a_buffer() {
        let (mut splitter, mut sink) = (ObjectSplitter::default(), CollectedChunks::default());
        let sizes = [
            0,
            1,
            5_000,
            7_000,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            5 * CHUNK + 17,
            9,
            SHARED_BUFFER,
            3,
        ];
        let content =
            |oid: usize| -> Vec<u8> { (0..sizes[oid]).map(|i| (i * 7 + oid) as u8).collect() };
        for oid in 0..sizes.len() {
            splitter
                .split(&mut content(oid).as_slice(), oid as u32, &mut sink)
                .unwrap();
        }
        let mut found = vec![vec![]; sizes.len()];
        let mut places = vec![];
        for chunk in &sink.0 {
            let Chunk::LargeObject { oid, offset, bytes } = chunk else {
                panic!("{chunk:?}")
            };
            let object = &mut found[*oid as usize];
            assert_eq!((object.len() as u64, offset % 2048), (*offset, 0));
            object.extend_from_slice(bytes);
            places.push((*oid, bytes.as_ptr() as usize));
        }
        assert_eq!(found, (0..sizes.len()).map(content).collect::<Vec<_>>());
        assert_eq!(places[..2], [(1, places[0].1), (2, places[0].1 + 1)]);
        assert_eq!(places[2], (3, places[1].1 + 5_000));
    }

    fn statements(data: &[u8], standard_strings: bool) -> Result<Vec<u8>, ArchiveError> {
        let mut sink = CollectedChunks::default();
        let dialect = crate::Dialect {
            standard_strings,
            ..Default::default()
        };
        let context = ReadContext {
            limits: crate::Limits::default(),
            dialect,
            origin: None,
        };
        split_statements(&mut &data[..], &context, "t", &mut sink)?;
        Ok(sink
            .0
            .into_iter()
            .flat_map(|p| match p {
                Chunk::Statements { text, .. } => text,
                other => panic!("{other:?}"),
            })
            .collect())
    }

    #[test]
    fn statements_end_at_semicolons_outside_quotes() {
        let one = b"INSERT INTO \"a;b\" VALUES ('x;''y\n;', 1);\n";
        let data = one.repeat(3 * CHUNK / one.len());
        let sent = statements(&[&data[..], b"\n\n"].concat(), true).unwrap();
        assert_eq!(sent.trim_ascii_end(), data.trim_ascii_end());
        assert!(statements(b"INSERT INTO t VALUES (1)", true).is_err());
        assert!(statements(b"INSERT INTO t VALUES ('1);\n", true).is_err());
        assert!(statements(b"INSERT INTO t VALUES ('\\');\n", true).is_ok());
        assert!(statements(b"INSERT INTO t VALUES ('\\');\n", false).is_err());
        assert!(statements(b"INSERT INTO t VALUES ('\\'');\n", false).is_ok());
    }
}

//! Splits decompressed data into chunks that can be sent on any connection: whole rows of COPY text,
//! whole INSERT statements, parts of large objects. Rows of SQL text are cut in `rows`.

use std::io::Read;

use bytes::{Bytes, BytesMut};

use super::lexer::StatementEnd;
use super::toc::{corrupt, limit_error};
use super::{ReadContext, TocEntry};
use crate::error::ArchiveError;

/// Approximate size of a chunk in bytes: large enough for a negligible cost per chunk, small enough to distribute.
pub(super) const CHUNK: usize = 256 << 10;
/// Size of the buffer that chunks of small large objects share.
const SHARED_BUFFER: usize = 1 << 20;
/// `\.` and the blank lines that end the COPY data of every table.
const END_OF_COPY: &[u8] = b"\\.\n\n\n";

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

    /// Whether the chunk has no bytes: such a chunk of rows only completes a row that was split.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
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
    /// The location of what was just read: the head of the archive (no entry), or an entry's block.
    fn extent(&mut self, _entry: Option<&TocEntry>, _extent: super::Extent) {}
    /// The location of a table of contents that follows the data.
    fn tail(&mut self, _extent: super::Extent) {}
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
}

/// Reads until `buf` has `want` bytes; returns whether the input ended.
fn fill(input: &mut impl Read, buf: &mut Vec<u8>, want: usize) -> std::io::Result<bool> {
    let start = buf.len();
    let missing = want.saturating_sub(start) as u64;
    let read = input.take(missing).read_to_end(buf)?;
    Ok((read as u64) < missing)
}

/// Splits COPY text, up to and without the end marker.
pub(super) fn split_rows(
    input: &mut impl Read,
    what: &str,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    let mut buf = Vec::with_capacity(CHUNK);
    let mut at_row_start = true;
    loop {
        let ended = fill(input, &mut buf, CHUNK).map_err(|e| ArchiveError::from_io(e, what))?;
        if ended {
            break;
        }
        // The end marker stays in the buffer as a whole, so that it is recognized at the end of the input.
        let movable = buf.len() - END_OF_COPY.len() - 1;
        let (cut, ends_row) = match memchr::memrchr(b'\n', &buf[..movable]) {
            Some(newline) => (newline + 1, true),
            None => (movable, false),
        };
        let mut rest = Vec::with_capacity(CHUNK);
        rest.extend_from_slice(&buf[cut..]);
        buf.truncate(cut);
        sink.chunk(Chunk::Rows {
            text: std::mem::replace(&mut buf, rest),
            ends_row,
        })?;
        at_row_start = ends_row;
    }
    let rows = rows_before_end_marker(&buf, at_row_start)
        .ok_or_else(|| corrupt(format!("{what}: the rows have no end marker")))?;
    buf.truncate(rows);
    // Thousands of small tables may be queued at once, so they must not keep large buffers.
    buf.shrink_to_fit();
    if !buf.is_empty() || !at_row_start {
        sink.chunk(Chunk::Rows {
            text: buf,
            ends_row: true,
        })?;
    }
    Ok(())
}

/// Length of the rows before the end marker, or `None` if no line consists of the marker.
fn rows_before_end_marker(tail: &[u8], at_row_start: bool) -> Option<usize> {
    let text = tail.trim_ascii_end();
    let rows = text.strip_suffix(b"\\.")?.len();
    let own_line = match rows {
        0 => at_row_start,
        n => text[n - 1] == b'\n',
    };
    (own_line && tail.get(rows + 2) == Some(&b'\n')).then_some(rows)
}

/// Splits INSERT statements, several per chunk; the data ends with blank lines.
pub(super) fn split_statements(
    input: &mut impl Read,
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

/// COPY text of a dump `WITH OIDS`, without the first column.
pub(super) struct WithoutOids<R> {
    input: R,
    state: OidState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OidState {
    RowStart,
    Oid,
    Row,
}

impl<R: Read> WithoutOids<R> {
    pub(crate) fn new(input: R) -> Self {
        WithoutOids {
            input,
            state: OidState::RowStart,
        }
    }

    /// The rows with their OIDs.
    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }
}

impl<R: Read> Read for WithoutOids<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let n = self.input.read(out)?;
            if n == 0 {
                return Ok(0);
            }
            let mut kept = 0;
            for i in 0..n {
                let b = out[i];
                let is_oid = match self.state {
                    // The end marker has no OID.
                    OidState::RowStart => b.is_ascii_digit(),
                    OidState::Oid => true,
                    OidState::Row => false,
                };
                self.state = match b {
                    b'\n' => OidState::RowStart,
                    b'\t' if is_oid => OidState::Row,
                    _ if is_oid => OidState::Oid,
                    _ => OidState::Row,
                };
                if !is_oid || b == b'\n' {
                    out[kept] = b;
                    kept += 1;
                }
            }
            if kept > 0 {
                return Ok(kept);
            }
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
        input: &mut impl Read,
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
mod tests {
    use super::*;

    #[derive(Default)]
    struct Collect(Vec<Chunk>);

    impl DataSink for Collect {
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

    fn rows(data: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, ArchiveError> {
        let mut sink = Collect::default();
        split_rows(&mut &data[..], "t", &mut sink)?;
        Ok(sink
            .0
            .into_iter()
            .map(|p| match p {
                Chunk::Rows { text, ends_row } => (text, ends_row),
                other => panic!("{other:?}"),
            })
            .collect())
    }

    #[test]
    fn rows_are_split_at_row_ends_without_loss() {
        for total in [
            0usize,
            1,
            7,
            CHUNK - 6,
            CHUNK - 5,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            3 * CHUNK + 17,
        ] {
            let mut text: Vec<u8> = (0..total)
                .map(|i| {
                    if i % 97 == 96 {
                        b'\n'
                    } else {
                        b'a' + (i % 23) as u8
                    }
                })
                .collect();
            if total > 0 {
                text.push(b'\n');
            }
            let chunks = rows(&[&text[..], END_OF_COPY].concat()).unwrap();
            assert!(
                chunks.iter().all(|(t, ends)| *ends && t.ends_with(b"\n")),
                "{total}"
            );
            assert_eq!(chunks.concat_text(), text, "{total}");
        }
    }

    #[test]
    fn large_objects_are_split_and_small_ones_share_a_buffer() {
        let (mut splitter, mut sink) = (ObjectSplitter::default(), Collect::default());
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

    trait ConcatText {
        fn concat_text(&self) -> Vec<u8>;
    }
    impl ConcatText for Vec<(Vec<u8>, bool)> {
        fn concat_text(&self) -> Vec<u8> {
            self.iter().flat_map(|(t, _)| t.clone()).collect()
        }
    }

    #[test]
    fn a_row_longer_than_a_chunk_is_marked_as_incomplete() {
        let mut text = vec![b'x'; 2 * CHUNK + 9];
        text.push(b'\n');
        let chunks = rows(&[&text[..], END_OF_COPY].concat()).unwrap();
        assert!(chunks.len() > 2);
        assert!(chunks[..chunks.len() - 1].iter().all(|(_, ends)| !ends));
        assert!(chunks.last().unwrap().1);
        assert_eq!(chunks.concat_text(), text);
    }

    #[test]
    fn rows_without_an_end_marker_are_refused() {
        for data in [
            &b""[..],
            b"1\n2\n",
            b"1\n2\\.\n\n\n",
            b"1\n\\.",
            b"1\n\\\n\n",
        ] {
            let e = rows(data).unwrap_err();
            assert!(matches!(e, ArchiveError::Corrupt(_)), "{data:?}");
        }
    }

    fn statements(data: &[u8], standard_strings: bool) -> Result<Vec<u8>, ArchiveError> {
        let mut sink = Collect::default();
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

    #[test]
    fn oids_of_rows_are_removed() {
        let data = b"16385\t1\ta\n16386\t2\tb\n\\.\n\n\n";
        for chunk in 1..data.len() {
            let chunks = WithoutOids::new(Chunked(data, chunk));
            let mut sink = Collect::default();
            split_rows(&mut { chunks }, "t", &mut sink).unwrap();
            let text: Vec<u8> = sink
                .0
                .iter()
                .flat_map(|p| {
                    if let Chunk::Rows { text, .. } = p {
                        text.clone()
                    } else {
                        vec![]
                    }
                })
                .collect();
            assert_eq!(text, b"1\ta\n2\tb\n");
        }
    }

    struct Chunked<'a>(&'a [u8], usize);

    impl Read for Chunked<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = self.1.min(self.0.len()).min(out.len());
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
}

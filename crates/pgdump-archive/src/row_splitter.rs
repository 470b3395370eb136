//! Splits rows off COPY text, into chunks that end at row ends: off a COPY block of SQL text (`split_copy_block`) and off a
//! table's data in the other formats (`split_table_rows`).

use std::io::{BufRead, BufReader, Read};

use super::TocEntry;
use super::chunks::{CHUNK, Chunk, DataSink, fill};
use super::text::SqlReader;
use super::toc::corrupt;
use crate::error::ArchiveError;

/// `\.` and the blank lines that end the COPY data of every table.
const END_OF_COPY: &[u8] = b"\\.\n\n\n";

impl SqlReader {
    /// Skips the rows of a COPY block, up to the line `\.`.
    pub(crate) fn skip_copy_block(&mut self) -> Result<(), ArchiveError> {
        let what = format!("rows from line {}", self.line);
        let mut rows = RowReader::new(self);
        let passed = std::io::copy(&mut rows, &mut std::io::sink());
        passed
            .map(drop)
            .map_err(|e| ArchiveError::from_io(e, &what))
    }

    /// Hands the rows of a COPY block to `sink`, up to the line `\.`.
    pub(crate) fn split_copy_block(
        &mut self,
        entry: &TocEntry,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let first_line = self.line;
        let mut rows = RowReader::new(self);
        let what = format!("rows of {} (from line {first_line})", entry.tag);
        let failed = |e| ArchiveError::from_io(e, &what);
        let mut oids = BufReader::new(WithoutOids::new(&mut rows));
        let (mut buf, mut fresh): (Vec<u8>, bool) = (Vec::with_capacity(CHUNK), true);
        loop {
            let ended = if entry.oids_in_data {
                fill(&mut oids, &mut buf, CHUNK).map_err(failed)?
            } else {
                fill(oids.get_mut().get_mut(), &mut buf, CHUNK).map_err(failed)?
            };
            let (cut, ends_row) = match (ended, memchr::memrchr(b'\n', &buf)) {
                (true, _) => (buf.len(), true),
                (false, Some(newline)) => (newline + 1, true),
                (false, None) => (buf.len(), false),
            };
            let mut chunk = take_front(&mut buf, cut);
            if ended {
                // As below.
                chunk.shrink_to_fit();
            }
            if !chunk.is_empty() || !fresh {
                sink.chunk(Chunk::Rows {
                    text: chunk,
                    ends_row,
                })?;
            }
            fresh = ends_row;
            if ended {
                return Ok(());
            }
        }
    }
}

/// The rows of one COPY block as a stream that ends at its end marker.
struct RowReader<'a> {
    text: &'a mut SqlReader,
    at_row_start: bool,
    done: bool,
    /// Bytes at the beginning of the text that are known to be rows.
    rows: usize,
}

impl<'a> RowReader<'a> {
    fn new(text: &'a mut SqlReader) -> Self {
        RowReader {
            text,
            at_row_start: true,
            done: false,
            rows: 0,
        }
    }

    /// Bytes of rows that can be returned now; 0 if more must be read first.
    fn ready(&mut self) -> usize {
        let buf = self.text.rest();
        if self.at_row_start && buf.first() == Some(&b'\\') && buf.get(1).is_none_or(|b| *b == b'.')
        {
            return 0;
        }
        match memchr::memmem::find(buf, b"\n\\.") {
            Some(n) => n + 1,
            // The last bytes may be the beginning of an end marker.
            None => match buf {
                [head @ .., b'\n', b'\\'] => head.len() + 1,
                all => all.len(),
            },
        }
    }

    /// Skips the end marker if it is next.
    fn skip_end_marker(&mut self) -> bool {
        let buf = self.text.rest();
        let n = match buf {
            [b'\\', b'.', b'\n', ..] => 3,
            [b'\\', b'.', b'\r', b'\n', ..] => 4,
            [b'\\', b'.'] if self.text.at_end => 2,
            _ => return false,
        };
        self.text.skip(n);
        true
    }
}

impl BufRead for RowReader<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.rows == 0 && !self.done {
            self.rows = self.ready();
            if self.rows > 0 {
                break;
            }
            if self.skip_end_marker() {
                self.done = true;
                break;
            }
            let too_long = self.text.rest().len() > 4;
            if too_long {
                let what = format!("line {}: \\. is not alone on its line", self.text.line);
                return Err(corrupt(what).into());
            }
            if !self.text.fill()? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(&self.text.rest()[..self.rows])
    }

    fn consume(&mut self, n: usize) {
        if let Some(last) = self.text.rest()[..n].last() {
            self.at_row_start = *last == b'\n';
        }
        self.text.skip(n);
        self.rows -= n;
    }
}

impl Read for RowReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

/// Hands a table's rows in a format with a table of contents to `sink`, up to and without the end marker.
pub(super) fn split_table_rows(
    input: &mut impl BufRead,
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
        sink.chunk(Chunk::Rows {
            text: take_front(&mut buf, cut),
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

/// Takes the first `n` bytes; the rest is moved into a buffer that has room for a whole chunk.
fn take_front(buf: &mut Vec<u8>, n: usize) -> Vec<u8> {
    let mut rest = Vec::with_capacity(CHUNK);
    rest.extend_from_slice(&buf[n..]);
    buf.truncate(n);
    std::mem::replace(buf, rest)
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

#[cfg(test)]
mod tests {
    use super::super::chunks::tests::CollectedChunks;
    use super::*;

    fn rows(data: &[u8]) -> Result<Vec<(Vec<u8>, bool)>, ArchiveError> {
        let mut sink = CollectedChunks::default();
        split_table_rows(&mut &data[..], "t", &mut sink)?;
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

    #[test]
    fn oids_of_rows_are_removed() {
        let data = b"16385\t1\ta\n16386\t2\tb\n\\.\n\n\n";
        for chunk in 1..data.len() {
            let chunks = WithoutOids::new(Chunked(data, chunk));
            let mut sink = CollectedChunks::default();
            split_table_rows(&mut BufReader::new(chunks), "t", &mut sink).unwrap();
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

//! The rows of a COPY block in SQL text, cut into chunks at row ends (for the other formats: `chunks::split_rows`).

use std::io::Read;

use super::TocEntry;
use super::chunks::{CHUNK, Chunk, DataSink};
use super::text::SqlReader;
use super::toc::corrupt;
use crate::error::ArchiveError;

impl SqlReader {
    /// Skips rows up to the line `\.`.
    pub(crate) fn skip_rows(&mut self) -> Result<(), ArchiveError> {
        let what = format!("rows from line {}", self.line);
        let mut rows = RowReader {
            text: self,
            at_row_start: true,
            done: false,
        };
        let passed = std::io::copy(&mut rows, &mut std::io::sink());
        passed
            .map(drop)
            .map_err(|e| ArchiveError::from_io(e, &what))
    }

    /// Reads rows up to the line `\.`.
    pub(crate) fn copy_rows(
        &mut self,
        entry: &TocEntry,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let first_line = self.line;
        let mut rows = RowReader {
            text: self,
            at_row_start: true,
            done: false,
        };
        let what = format!("rows of {} (from line {first_line})", entry.tag);
        let failed = |e| ArchiveError::from_io(e, &what);
        let mut oids = super::chunks::WithoutOids::new(&mut rows);
        let (mut buf, mut fresh): (Vec<u8>, bool) = (Vec::with_capacity(CHUNK), true);
        loop {
            let want = (CHUNK - buf.len()) as u64;
            let read = if entry.oids_in_data {
                (&mut oids)
                    .take(want)
                    .read_to_end(&mut buf)
                    .map_err(failed)?
            } else {
                oids.get_mut()
                    .take(want)
                    .read_to_end(&mut buf)
                    .map_err(failed)?
            };
            let ended = (read as u64) < want;
            let (cut, ends_row) = match (ended, memchr::memrchr(b'\n', &buf)) {
                (true, _) => (buf.len(), true),
                (false, Some(newline)) => (newline + 1, true),
                (false, None) => (buf.len(), false),
            };
            let rest = buf.split_off(cut);
            let chunk = std::mem::replace(&mut buf, rest);
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
}

impl RowReader<'_> {
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

impl Read for RowReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.done || out.is_empty() {
            return Ok(0);
        }
        loop {
            let n = self.ready().min(out.len());
            if n > 0 {
                out[..n].copy_from_slice(&self.text.rest()[..n]);
                self.text.skip(n);
                self.at_row_start = out[n - 1] == b'\n';
                return Ok(n);
            }
            if self.skip_end_marker() {
                self.done = true;
                return Ok(0);
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
    }
}

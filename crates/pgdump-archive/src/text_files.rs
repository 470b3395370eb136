//! SQL text in several files: in which of them a place of the text is, and what begins behind the end of a dump in a
//! file of its own.

use std::collections::VecDeque;
use std::io::Read;

use super::input_files::InputFiles;
use super::peek_reader::PeekReader;
use crate::error::ArchiveError;

/// Bytes that are read at once.
const READ: usize = 256 << 10;

/// The files that a text is in.
pub(super) struct TextFiles {
    input: InputFiles,
    /// Where each begins in the text, as far as it was read, and how many it makes.
    begins: VecDeque<(u64, usize)>,
    /// How many were used up to this place.
    used: usize,
    /// How many hold the complete dump; 0 before its end.
    end: usize,
    /// What came behind the bytes that were read last.
    failed: Option<ArchiveError>,
}

impl TextFiles {
    pub(crate) fn new(input: InputFiles) -> Option<Self> {
        input.are_several().then(|| TextFiles {
            input,
            begins: VecDeque::from([(0, 1)]),
            used: 1,
            end: 0,
            failed: None,
        })
    }

    /// Appends up to `READ` bytes to `buf`, which begins at `at` in the text; how many, and whether they are the last.
    pub(crate) fn read(
        &mut self,
        from: &mut PeekReader<'static>,
        buf: &mut Vec<u8>,
        at: u64,
    ) -> Result<(usize, bool), ArchiveError> {
        if let Some(e) = self.failed.take() {
            // A decompressor that meets another file stops there.
            self.input.set_end(self.end);
            return Err(e);
        }
        let begin = buf.len();
        let at = at + begin as u64;
        buf.resize(begin + READ, 0);
        let mut read = 0;
        while read < READ {
            match from.read(&mut buf[begin + read..]) {
                Ok(0) => break,
                Ok(n) => {
                    let used = self.input.used();
                    let last = self.begins.back().map_or(self.used, |(_, last)| *last);
                    if last < used {
                        self.begins.push_back((at + read as u64, used));
                    }
                    read += n;
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.failed = Some(ArchiveError::from_io(e, "SQL text"));
                    break;
                }
            }
        }
        buf.truncate(begin + read);
        match self.failed.take_if(|_| read == 0) {
            Some(e) => {
                self.input.set_end(self.end);
                Err(e)
            }
            None => Ok((read, read < READ && self.failed.is_none())),
        }
    }

    /// How many files are used up to the byte at `at`; it never goes back.
    fn used_at(&mut self, at: u64) -> usize {
        while let Some((_, used)) = self.begins.front().filter(|(begin, _)| *begin <= at) {
            self.used = *used;
            self.begins.pop_front();
        }
        self.used
    }

    /// Something begins at this place.
    ///
    /// # Errors
    /// [`ArchiveError::Foreign`] where the dump is complete, and ended in a file before.
    pub(crate) fn begin(&mut self, at: u64, is_complete: bool) -> Result<(), ArchiveError> {
        if !is_complete {
            return Ok(());
        }
        let used = self.used_at(at);
        match self.input.surplus(self.end) {
            Some(surplus) if self.end > 0 && used > self.end => Err(surplus),
            _ => Ok(()),
        }
    }

    /// What ends before this place is of the dump, which may be complete with it.
    pub(crate) fn end_before(&mut self, at: u64, is_complete: bool) {
        let used = self.used_at(at.saturating_sub(1));
        self.end = if is_complete { used } else { 0 };
    }
}

//! The part of a custom archive that follows its last data block.
//!
//! If `pg_dump` can seek, it finally overwrites the table of contents with one that has the offsets of the data.
//! If its output was opened for appending (by the shell's `>>`, or since PostgreSQL 16 for any standard output, so
//! also by `pg_dump -Fc db > file`), that write is appended to the file instead: the first table of contents has no
//! offsets, and a second one follows the data.

use std::io::{BufRead, Read};

use super::block_form::BlockForm;
use super::index::CountingReader;
use super::input_files::InputFiles;
use super::toc::{TocReader, compare_toc, corrupt};
use super::{DataOffset, TocEntry};
use crate::error::ArchiveError;

/// Approximate number of bytes that an error quotes.
pub(super) const SHOWN_BYTES: usize = 32;

/// Reads to the end of the input after the archive's data: there is nothing, or the table of contents again.
/// Returns the offsets of the entries with data, if it has them.
///
/// # Errors
/// `archive_corrupt` for a table of contents that is another one or ends early, and for any other bytes.
pub(super) fn read_tail<R: BufRead>(
    input: &mut CountingReader<R>,
    form: &BlockForm,
    entries: &[TocEntry],
    files: &InputFiles,
) -> Result<Option<Vec<DataOffset>>, ArchiveError> {
    let begin = input.position();
    let start = peek(input)?;
    if start.is_empty() {
        return Ok(None);
    }
    if !counts(&start, form, entries.len()) {
        return Err(other_bytes(begin, &start));
    }
    let mut input = start.as_slice().chain(input);
    let mut fields = TocReader::new(&mut input, form.context.limits);
    (fields.int_size, fields.off_size) = (form.int_size, form.off_size);
    let offsets = compare_toc(&mut fields, form.minor, entries, &form.sums)?;
    let (unread, behind) = input.get_mut();
    let end = behind.position() - unread.len() as u64;
    files.mark_end_at(end);
    let failed = |e| ArchiveError::from_io(e, "bytes after the data");
    if !unread.is_empty() || !behind.fill_buf().map_err(failed)?.is_empty() {
        files.mark_more_at(end);
    }
    let rest = peek(&mut input)?;
    if rest.is_empty() {
        Ok(Some(offsets))
    } else {
        Err(other_bytes(end, &rest))
    }
}

/// Places at which a table of contents may begin that are tried.
const TRIED: usize = 100;

/// The offsets of the table of contents that `tail`, the last bytes of the archive, ends with, and its length.
pub(super) fn offsets_at_end(
    tail: &[u8],
    form: &BlockForm,
    entries: &[TocEntry],
) -> Option<(Vec<DataOffset>, u64)> {
    let number = number_of(entries.len(), form);
    let mut begins = memchr::memmem::find_iter(tail, &number).take(TRIED);
    begins.find_map(|begin| {
        let mut input = &tail[begin..];
        let mut fields = TocReader::new(&mut input, form.context.limits);
        (fields.int_size, fields.off_size) = (form.int_size, form.off_size);
        let offsets = compare_toc(&mut fields, form.minor, entries, &form.sums).ok()?;
        let length = (tail.len() - begin) as u64;
        input.is_empty().then_some((offsets, length))
    })
}

/// The next bytes, for an error message.
pub(super) fn peek(input: &mut impl Read) -> Result<Vec<u8>, ArchiveError> {
    let mut start = Vec::new();
    let read = input.take(SHOWN_BYTES as u64).read_to_end(&mut start);
    read.map_err(|e| ArchiveError::from_io(e, "bytes after the data"))?;
    Ok(start)
}

/// Whether these bytes begin with that number (the number of entries begins a table of contents), or are the
/// beginning of it.
fn counts(start: &[u8], form: &BlockForm, entries: usize) -> bool {
    let wanted = number_of(entries, form);
    if start.len() < wanted.len() {
        wanted.starts_with(start)
    } else {
        start.starts_with(&wanted)
    }
}

/// A number of entries, as the archive writes it.
fn number_of(entries: usize, form: &BlockForm) -> Vec<u8> {
    let number = (entries as u64).to_le_bytes();
    let bytes = [0].into_iter().chain(number);
    bytes.take(1 + usize::from(form.int_size)).collect()
}

/// The error for bytes where the archive must end.
pub(super) fn other_bytes(at: u64, start: &[u8]) -> ArchiveError {
    let what = if start.starts_with(b"PGDMP") {
        "another archive begins".to_owned()
    } else {
        format!("there are other bytes (\"{}\")", start.escape_ascii())
    };
    corrupt(format!(
        "after the end of the archive, at byte {at}, {what}: the file is not what pg_dump wrote; its first \
         {at} bytes are the whole archive (head -c {at})"
    ))
}

/// The error for bytes where the next data block must be.
pub(super) fn no_block(at: u64, start: &[u8], missing: &TocEntry) -> ArchiveError {
    let missing = missing.name();
    if start.starts_with(b"PGDMP") {
        return corrupt(format!(
            "at byte {at} another archive begins, before the data of {missing}: two runs of pg_dump wrote \
             into one file"
        ));
    }
    corrupt(format!(
        "the archive is damaged: no data block begins at byte {at} (\"{}\"), and the data of {missing} is missing",
        start.escape_ascii()
    ))
}

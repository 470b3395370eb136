//! An input of several files, one after the other: which of them the archive ends in. Whoever may add files can put one
//! behind the last, so what follows the end in a file of its own says nothing about the archive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::ReopenableSource;
use crate::error::ArchiveError;

/// The most bytes that a reader of several files gives when it begins one of them. A decompressor looks for more input
/// before it says that its own is complete; as long as no more than this was taken, nothing of the file was used.
pub const FIRST_TAKE: usize = 4;
/// The most bytes that are taken ahead so: from files that are smaller, and from the next one. Compressed data of no
/// kind gives anything for so few.
const AHEAD: usize = 2 * FIRST_TAKE;

/// The files of an input, and where the archive in them ends.
#[derive(Clone, Default)]
pub(super) struct InputFiles {
    source: Option<Arc<dyn ReopenableSource>>,
    /// Something between the files and the archive's reader reads ahead.
    is_filtered: bool,
    /// How many files the complete archive is in; 0 before its end.
    end: Arc<AtomicUsize>,
}

impl InputFiles {
    pub(crate) fn new(source: Option<Arc<dyn ReopenableSource>>, is_filtered: bool) -> Self {
        InputFiles {
            source,
            is_filtered,
            end: Arc::default(),
        }
    }

    /// How many files begin before the last `ahead` of the bytes that were taken.
    fn begun(&self, ahead: usize) -> usize {
        self.source.as_ref().map_or(1, |s| {
            s.files_before(s.taken().saturating_sub(ahead as u64))
        })
    }

    fn name(&self, file: usize) -> Option<String> {
        self.source.as_ref()?.file_name(file)
    }

    /// Whether there is more than one.
    pub(crate) fn are_several(&self) -> bool {
        self.name(1).is_some()
    }

    /// How many of them were used so far.
    pub(crate) fn used(&self) -> usize {
        self.begun(if self.is_filtered { AHEAD } else { 0 }).max(1)
    }

    /// How many files begin before this byte of the archive; `None` where a filter hides that.
    fn before(&self, at: u64) -> Option<usize> {
        let source = self.source.as_ref().filter(|_| !self.is_filtered)?;
        Some(source.files_before(at))
    }

    /// The archive is complete with what was read so far.
    pub(crate) fn mark_end(&self) {
        self.set_end(self.used());
    }

    /// The archive is complete with its first `at` bytes. More may have been read ahead, also of the next file.
    pub(crate) fn mark_end_at(&self, at: u64) {
        let files = self.before(at).unwrap_or_else(|| self.used());
        self.set_end(files.max(1));
    }

    /// There is more behind the first `at` bytes, the end that was marked: in a file of its own, or the archive may have
    /// another end.
    pub(crate) fn mark_more_at(&self, at: u64) {
        let next = self.before(at.saturating_add(1));
        if next.unwrap_or_else(|| self.begun(0)) <= self.end.load(Relaxed) {
            self.set_end(0);
        }
    }

    /// The archive is complete with so many files; with 0, its end is still to come.
    pub(crate) fn set_end(&self, files: usize) {
        self.end.store(files, Relaxed);
    }

    /// [`ArchiveError::Foreign`] for the first file behind the `files` that the archive is in.
    pub(crate) fn surplus(&self, files: usize) -> Option<ArchiveError> {
        let foreign = self.name(files)?;
        let alone = self.name(0).filter(|_| files == 1);
        let alone = alone.map(|name| format!(", or name {name}, which is whole"));
        Some(ArchiveError::foreign(format!(
            "the archive ends before {foreign}, which is not part of it: move that file away{}",
            alone.unwrap_or_default()
        )))
    }

    /// The same error, or what is behind it: a file that is not the archive's; and what the source knows of it.
    pub(crate) fn explain(&self, e: ArchiveError) -> ArchiveError {
        if matches!(
            e,
            ArchiveError::Source(_) | ArchiveError::Foreign(_) | ArchiveError::NotFound(_)
        ) {
            return e;
        }
        let end = self.end.load(Relaxed);
        if end > 0
            && self.begun(0) > end
            && let Some(surplus) = self.surplus(end)
        {
            return surplus;
        }
        let advice = match &e {
            ArchiveError::Corrupt(_) | ArchiveError::Unsupported(_) => {
                self.source.as_ref().and_then(|s| s.advice())
            }
            _ => None,
        };
        match advice {
            Some(advice) => e.map_message(|m| format!("{m} ({advice})")),
            None => e,
        }
    }
}

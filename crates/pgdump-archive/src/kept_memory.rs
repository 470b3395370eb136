//! Counts the memory for what is kept of an archive until all of it has been read, and whose amount the archive
//! decides.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Limits;
use crate::error::ArchiveError;

/// Memory that is kept for one purpose.
#[derive(Debug)]
pub(super) struct KeptMemory {
    /// What it is kept for, as the subject of an error.
    what: &'static str,
    limits: Limits,
    bytes: AtomicU64,
}

impl KeptMemory {
    pub(super) fn new(what: &'static str, limits: Limits) -> Self {
        KeptMemory {
            what,
            limits,
            bytes: AtomicU64::new(0),
        }
    }

    /// Counts `bytes` that are kept from now on.
    ///
    /// # Errors
    /// `ArchiveError::Limit` if all of them together are more than the budget.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), ArchiveError> {
        let before = self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.limits
            .check_memory(self.what, before.saturating_add(bytes as u64))
    }

    /// Checks these bytes in addition to what is kept, without counting them.
    ///
    /// # Errors
    /// As [`KeptMemory::charge`].
    pub(super) fn check(&self, bytes: usize) -> Result<(), ArchiveError> {
        let kept = self.bytes.load(Ordering::Relaxed);
        self.limits
            .check_memory(self.what, kept.saturating_add(bytes as u64))
    }
}

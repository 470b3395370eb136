//! What checks examine.

use std::sync::Arc;

use crate::postgres::Server;
use crate::progress::Progress;
use pgdump_archive::{ContentDigest, DataCoverage, TocEntry};
use pgdump_mask::Masking;

/// A restored database, and what is known about its archive.
pub struct RestoredDatabase<'a> {
    pub server: &'a Server,
    pub database: &'a str,
    /// The restored entries of the table of contents; empty for SQL text.
    pub entries: &'a [TocEntry],
    pub content_digest: &'a ContentDigest,
    /// What the archive defines and has data of, if that is known.
    pub coverage: Option<&'a DataCoverage>,
    pub encoding: &'a str,
    /// Major version of the server that was dumped, if known.
    pub dumped_major: Option<u32>,
    /// When the backup was created.
    pub backup_created: jiff::Timestamp,
    /// The rules of masked copies: what they mask is not reported.
    pub masking: Option<Masking>,
    /// How many connections the checks may use.
    pub sessions: usize,
    /// Counts the rows that are read back.
    pub progress: &'a Arc<Progress>,
}

/// A count with its noun, such as `1 row` and `2,000 rows`.
pub(super) fn counted(n: impl TryInto<u64>, noun: &str) -> String {
    match n.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {noun}"),
        n => format!("{} {noun}s", indicatif::HumanCount(n)),
    }
}

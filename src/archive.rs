//! What a backup is: the header, the table of contents and, after them, the table data and large
//! objects as one forward pass. Synchronous over [`std::io::Read`], so that it can run on a thread
//! of its own beside the decompressor; it never seeks.
//!
//! Read today: the custom format of `pg_dump -Fc`, archive versions 1.12 to 1.16
//! (PostgreSQL 9.0 to 18), compression none, gzip, lz4 and zstd, with data offsets or without.
//! The format's definition is PostgreSQL's `pg_backup_archiver.c` and `pg_backup_custom.c`.

mod codec;
mod custom;
mod encoding;
mod pieces;
mod toc;

pub use codec::Codec;
pub use custom::{CustomArchive, Header};
pub use encoding::TextEncoding;
pub use pieces::{DataSink, Piece};
pub use toc::{DataOffset, Section, TocEntry};

/// Bounds on what an archive may make the reader allocate.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in the table of contents.
    pub max_entries: usize,
    /// Bytes of one string in the table of contents.
    pub max_string: usize,
    /// Bytes of the whole table of contents.
    pub max_toc: u64,
    /// Base-2 logarithm of the largest zstd window.
    pub zstd_window_log: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_entries: 2_000_000, max_string: 64 << 20, max_toc: 1 << 30, zstd_window_log: 27 }
    }
}

#![no_main]
//! Any bytes as an archive of any format with any filters: a result or an error, never a panic or a hang.

use libfuzzer_sys::fuzz_target;
use pgdump_archive::{Archive, DataSink, DecryptionKeys, ArchiveSource};

mod shared;

/// Bytes that a small input may decompress to.
const MOST: usize = 8 << 20;

struct BoundedSink(shared::Seen, usize);

impl DataSink for BoundedSink {
    fn begin(&mut self, e: &pgdump_archive::TocEntry) -> Result<(), pgdump_archive::ArchiveError> {
        self.0.begin(e)
    }
    fn chunk(&mut self, p: pgdump_archive::Chunk) -> Result<(), pgdump_archive::ArchiveError> {
        self.1 += p.len();
        if self.1 > MOST { Err(pgdump_archive::ArchiveError::source("enough")) } else { Ok(()) }
    }
    fn end(&mut self, e: &pgdump_archive::TocEntry) -> Result<(), pgdump_archive::ArchiveError> {
        self.0.end(e)
    }
    fn statement(&mut self, s: pgdump_archive::Statement) -> Result<(), pgdump_archive::ArchiveError> {
        self.0.statement(s)
    }
}

fuzz_target!(|data: &[u8]| {
    let origin = ArchiveSource::once(std::io::Cursor::new(data.to_vec()));
    if let Ok(mut archive) = Archive::open(origin, shared::limits(), &DecryptionKeys::default()) {
        archive.read_trailer(data);
        let _ = archive.sizes(Some(data.len() as u64));
        let _ = archive.cut_off(data.len() as u64, data);
        let _ = archive.read_data(&mut BoundedSink(shared::Seen::default(), 0));
    }
});

#![no_main]
//! SQL text after `pg_dump`'s header gives the same result at once and in small chunks.

use libfuzzer_sys::fuzz_target;
use pgdump_archive::{Archive, DecryptionKeys, ArchiveSource};

mod shared;
#[path = "../../tests/reader/short_reader.rs"]
mod short_reader;

use short_reader::ShortReader;

fn read(origin: ArchiveSource) -> Result<shared::Seen, String> {
    let mut seen = shared::Seen::default();
    let archive = Archive::open(origin, shared::limits(), &DecryptionKeys::default()).map_err(|e| e.to_string())?;
    archive.read_data(&mut seen).map_err(|e| e.to_string())?;
    Ok(seen)
}

fuzz_target!(|data: (u8, &[u8])| {
    let mut text = b"--\n-- PostgreSQL database dump\n--\n".to_vec();
    text.extend_from_slice(data.1);
    text.extend_from_slice(b"\n--\n-- PostgreSQL database dump complete\n--\n");
    let whole = read(ArchiveSource::once(std::io::Cursor::new(text.clone())));
    let chunks = read(ArchiveSource::once(ShortReader(std::io::Cursor::new(text), usize::from(data.0) * 16 + 1)));
    assert_eq!(whole, chunks);
});

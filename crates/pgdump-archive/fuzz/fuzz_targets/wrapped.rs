#![no_main]
//! Any bytes after the magic of each filter: decompression is bounded, and never hangs.

use libfuzzer_sys::fuzz_target;
use pgdump_archive::{DecryptionKeys, ArchiveSource, read_text};

/// Bytes that may be decompressed.
const MOST: u64 = 4 << 20;

const BEGINNINGS: [&[u8]; 6] = [
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
    b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
    b"BZh9",
    b"\xfd7zXZ\x00",
    b"age-encryption.org/v1\n",
];

fuzz_target!(|data: (u8, Vec<u8>)| {
    let beginning = BEGINNINGS[usize::from(data.0) % BEGINNINGS.len()];
    let bytes = [beginning, &data.1].concat();
    if let Ok(text) = read_text(ArchiveSource::once(std::io::Cursor::new(bytes)), MOST, &DecryptionKeys::default()) {
        assert!(text.len() as u64 <= MOST);
    }
});

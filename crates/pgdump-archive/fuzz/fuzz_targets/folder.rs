#![no_main]
//! Any bytes as the members of a directory dump.

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pgdump_archive::{Archive, ByteStream, DirectorySource, DecryptionKeys, ArchiveSource};

mod shared;

struct Members(Vec<(String, Vec<u8>)>);

impl DirectorySource for Members {
    fn members(&self) -> Vec<(String, u64)> {
        self.0.iter().map(|(n, b)| (n.clone(), b.len() as u64)).collect()
    }

    fn open(&self, name: &str) -> Result<ByteStream, pgdump_archive::ArchiveError> {
        let found = self.0.iter().find(|(n, _)| n == name);
        Ok(Box::new(std::io::Cursor::new(found.map(|(_, b)| b.clone()).unwrap_or_default())))
    }
}

fuzz_target!(|data: (Vec<u8>, Vec<u8>, Vec<u8>)| {
    let members = vec![
        ("toc.dat".to_owned(), data.0),
        ("1.dat".to_owned(), data.1),
        ("blobs.toc".to_owned(), data.2.clone()),
        ("blob_7.dat".to_owned(), data.2),
    ];
    let origin = ArchiveSource::Directory(Arc::new(Members(members)));
    if let Ok(archive) = Archive::open(origin, shared::limits(), &DecryptionKeys::default()) {
        let _ = archive.read_data(&mut shared::Seen::default());
    }
});

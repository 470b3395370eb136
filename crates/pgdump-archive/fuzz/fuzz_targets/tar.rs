#![no_main]
//! Members of any name and content as a tar, complete and truncated.

use libfuzzer_sys::fuzz_target;
use pgdump_archive::{Archive, DecryptionKeys, ArchiveSource};

mod shared;

fn header(name: &str, size: usize, kind: u8) -> Vec<u8> {
    let mut h = vec![0u8; 512];
    let name = &name.as_bytes()[..name.len().min(99)];
    h[..name.len()].copy_from_slice(name);
    h[100..107].copy_from_slice(b"0000644");
    h[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    h[156] = kind;
    h[257..262].copy_from_slice(b"ustar");
    h[148..156].copy_from_slice(b"        ");
    let sum: u32 = h.iter().map(|b| u32::from(*b)).sum();
    h[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    h
}

fuzz_target!(|data: (Vec<(u8, u8, Vec<u8>)>, u16)| {
    let mut tar = Vec::new();
    for (name, kind, content) in data.0.iter().take(20) {
        let names = ["toc.dat", "restore.sql", "1.dat", "2.dat", "blobs.toc", "blob_7.dat", "x/toc.dat", "../toc.dat"];
        let kind = if *kind < 200 { b'0' } else { *kind };
        tar.extend(header(names[usize::from(*name) % names.len()], content.len(), kind));
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    tar.extend_from_slice(&[0; 1024]);
    tar.truncate(tar.len().saturating_sub(usize::from(data.1)));
    let origin = ArchiveSource::once(std::io::Cursor::new(tar));
    if let Ok(archive) = Archive::open(origin, shared::limits(), &DecryptionKeys::default()) {
        let _ = archive.read_data(&mut shared::Seen::default());
    }
});

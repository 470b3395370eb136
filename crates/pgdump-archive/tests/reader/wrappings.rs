//! Compression and encryption of dumps, as the tools themselves write them (`scripts/wrapped.sh`).

use pgdump_archive::ArchiveError;
use pgdump_archive::{Archive, ArchiveSource, DecryptionKeys, Filter, Limits};

use crate::{ArchiveErrorKind, kind, sample};

use crate::formats::CollectedContent;

/// Every file that can be read, and its filters.
const READ: [(&str, Filter); 17] = [
    ("dictionary.xz", Filter::Xz),
    ("known.lzma", Filter::Lzma),
    ("legacy.lz4", Filter::Lz4),
    ("long31.zst", Filter::Zstd),
    ("mixed.lz4", Filter::Lz4),
    ("pzstd.zst", Filter::Zstd),
    ("skippable.lz4", Filter::Lz4),
    ("skippable.zst", Filter::Zstd),
    ("two.bz2", Filter::Bzip2),
    ("two.gz", Filter::Gzip),
    ("two.lz", Filter::Lzip),
    ("two.lz4", Filter::Lz4),
    ("two.xz", Filter::Xz),
    ("two.zst", Filter::Zstd),
    ("zeros.bz2", Filter::Bzip2),
    ("zeros.gz", Filter::Gzip),
    ("zeros.lz", Filter::Lzip),
];

/// Every file that cannot be read, and what the error contains.
const NAMED: [(&str, &str); 4] = [
    ("in.7z", "`7z x`"),
    ("in.Z", "`uncompress`"),
    ("in.lzo", "`lzop -d`"),
    ("in.zip", "`unzip`"),
];

/// More memory than any of the tools requires.
const LARGE: u64 = 8 << 30;

fn bytes_of(name: &str) -> Vec<u8> {
    let folder = crate::fixtures().join("wrapped");
    std::fs::read(folder.join(name)).unwrap()
}

fn read(bytes: &[u8], memory: u64) -> Result<(Vec<Filter>, CollectedContent), ArchiveError> {
    let origin = ArchiveSource::once(std::io::Cursor::new(bytes.to_vec()));
    let archive = Archive::open(
        origin,
        Limits::default().with_memory(memory),
        &DecryptionKeys::default(),
    )?;
    let (filters, mut sink) = (
        archive.header().filters.clone(),
        CollectedContent::default(),
    );
    archive.read_data(&mut sink)?;
    Ok((filters, sink))
}

#[test]
fn every_wrapped_file_is_listed() {
    let folder = crate::fixtures().join("wrapped");
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let known = READ.iter().any(|f| f.0 == name) || NAMED.iter().any(|f| f.0 == name);
        assert!(known || name == "in.sql", "{name} is not in the corpus");
    }
}

#[test]
fn output_of_the_tools_is_read_completely() {
    let (_, plain) = read(&bytes_of("in.sql"), LARGE).unwrap();
    assert!(plain.data[0].1.len() > 1000);
    for (name, layer) in READ {
        let (filters, inside) =
            read(&bytes_of(name), LARGE).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(filters, [layer], "{name}");
        assert_eq!(
            (&inside.data, &inside.statements),
            (&plain.data, &plain.statements),
            "{name}"
        );
    }
}

#[test]
fn truncation_and_trailing_bytes_are_detected() {
    for (name, _) in READ {
        let whole = bytes_of(name);
        let end = whole.iter().rposition(|b| *b != 0).unwrap();
        // Shorter files have no known format. Padding may be cut, and so may a trailing skippable lz4 or zstd
        // frame.
        let end = if name.starts_with("skippable") {
            end - 20
        } else {
            end
        };
        for cut in sample((16..end).step_by(5), 6) {
            let e = read(&whole[..cut], LARGE)
                .err()
                .unwrap_or_else(|| panic!("{name}: a cut at {cut}"));
            assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{name}, {cut}: {e}");
        }
        for behind in [&b"psql: warning\n"[..], b"\0\0\0\0x", b"PGDMP"] {
            let e = read(&[&whole[..], behind].concat(), LARGE).err();
            let e = e.unwrap_or_else(|| panic!("{name} and {behind:?}"));
            assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{name}: {e}");
            assert!(
                e.to_string().contains("has ended and other bytes follow"),
                "{name}: {e}"
            );
        }
    }
}

/// Such a file may be a good backup.
#[test]
fn a_limit_of_this_program_is_not_blamed_on_the_backup() {
    for (name, needed) in [
        ("long31.zst", "2048 MiB"),
        ("dictionary.xz", "768 MiB"),
        ("two.gz", ""),
    ] {
        match read(&bytes_of(name), 256 << 20) {
            Ok(_) => assert!(needed.is_empty(), "{name}"),
            Err(e) => {
                assert_eq!(kind(&e), ArchiveErrorKind::Limit, "{e}");
                assert!(
                    e.to_string().contains(needed) && e.to_string().contains("256 MiB"),
                    "{name}: {e}"
                );
            }
        }
    }
    for (name, how) in NAMED {
        let e = read(&bytes_of(name), LARGE).err().unwrap();
        assert_eq!(kind(&e), ArchiveErrorKind::Limit, "{e}");
        assert!(e.to_string().contains(how), "{name}: {e}");
    }
    // The second frame needs more memory than the first.
    for (first, second) in [("two.zst", "long31.zst"), ("two.xz", "dictionary.xz")] {
        let both = [bytes_of(first), bytes_of(second)].concat();
        let e = read(&both, 256 << 20).err().unwrap();
        assert_eq!(kind(&e), ArchiveErrorKind::Limit, "{first}: {e}");
    }
}

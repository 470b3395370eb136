//! The corpus of archives: real archives of every codec, compared with an independent reader; damaged headers;
//! every archive version.

use std::io::Read;
use std::path::PathBuf;

use pgdump_archive::ArchiveError;
use pgdump_archive::{
    Archive, ArchiveSource, ByteStream, Chunk, Codec, CutOff, DataOffset, DataSink, DecryptionKeys,
    DumpId, Filter, Format, Limits, ReopenableSource, Statement, TocEntry,
};

use crate::{ArchiveErrorKind, fixtures, is_full_campaign, kind, sample};

use crate::short_reader::ShortReader;
use crate::synthetic::synthetic;

/// Every fixture: file, codec, whether it has offsets.
pub const CORPUS: [(&str, Codec, bool); 6] = [
    ("shop18.gzip.dump", Codec::Gzip, true),
    ("shop18.lz4.dump", Codec::Lz4, true),
    ("shop18.lz4.piped.dump", Codec::Lz4, false),
    ("shop18.none.dump.gz", Codec::None, true),
    ("shop18.zstd.dump", Codec::Zstd, true),
    ("shop18.zstd.piped.dump", Codec::Zstd, false),
];

pub fn bytes_of(name: &str) -> Vec<u8> {
    let raw = std::fs::read(fixtures().join(name)).unwrap();
    if !name.ends_with(".gz") {
        return raw;
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(&raw[..])
        .read_to_end(&mut out)
        .unwrap();
    out
}

pub fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    let origin = ArchiveSource::once(std::io::Cursor::new(bytes.to_vec()));
    Archive::open(origin, Limits::default(), &DecryptionKeys::default())
}

/// Collects what an archive has, without the boundaries of chunks.
#[derive(Default)]
pub struct CollectedContent {
    pub data: Vec<(String, Vec<u8>)>,
    pub objects: std::collections::BTreeMap<u32, Vec<u8>>,
    pub statements: Vec<Statement>,
}

impl DataSink for CollectedContent {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.data.push((entry.tag.clone(), vec![]));
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        match chunk {
            Chunk::Rows { text, .. } | Chunk::Statements { text, .. } => {
                self.data.last_mut().unwrap().1.extend(text)
            }
            Chunk::LargeObject { oid, offset, bytes } => {
                let object = self.objects.entry(oid).or_default();
                assert_eq!(object.len() as u64, offset);
                object.extend(bytes);
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn statement(&mut self, statement: Statement) -> Result<(), ArchiveError> {
        self.statements.push(statement);
        Ok(())
    }
}

pub fn read_all(bytes: &[u8]) -> Result<CollectedContent, ArchiveError> {
    let mut sink = CollectedContent::default();
    open(bytes)?.read_data(&mut sink)?;
    Ok(sink)
}

/// Every other fixture: file, format, filters. `tests/pg/servers.rs` restores them.
pub const FORMATS: [(&str, Format, &[Filter]); 16] = [
    ("shop18.zstd.dir.tar", Format::DirectoryTar, &[]),
    ("v15.custom.dump", Format::Custom, &[]),
    (
        "v15.directory.tar.gz",
        Format::DirectoryTar,
        &[Filter::Gzip],
    ),
    ("v15.inserts.sql", Format::Plain, &[]),
    ("v15.plain.sql", Format::Plain, &[]),
    ("v15.tar.gz", Format::Tar, &[Filter::Gzip]),
    ("v16.custom.dump", Format::Custom, &[]),
    (
        "v16.directory.tar.gz",
        Format::DirectoryTar,
        &[Filter::Gzip],
    ),
    ("v16.inserts.sql", Format::Plain, &[]),
    ("v16.plain.sql", Format::Plain, &[]),
    ("v16.tar.gz", Format::Tar, &[Filter::Gzip]),
    ("v18.custom.dump", Format::Custom, &[]),
    (
        "v18.directory.tar.gz",
        Format::DirectoryTar,
        &[Filter::Gzip],
    ),
    ("v18.inserts.sql", Format::Plain, &[]),
    ("v18.plain.sql", Format::Plain, &[]),
    ("v18.tar.gz", Format::Tar, &[Filter::Gzip]),
];

/// A file that can be read again.
pub struct File(pub PathBuf);

impl ReopenableSource for File {
    fn open(&self, offset: u64) -> Result<ByteStream, ArchiveError> {
        use std::io::Seek;
        let mut file = std::fs::File::open(&self.0).unwrap();
        file.seek(std::io::SeekFrom::Start(offset)).unwrap();
        Ok(Box::new(file))
    }
}

fn read_fixture(name: &str, chunk: usize) -> (Format, Vec<Filter>, CollectedContent) {
    let path = fixtures().join(name);
    let whole = std::io::Cursor::new(std::fs::read(&path).unwrap());
    let bytes = Box::new(ShortReader(whole, chunk));
    let origin = ArchiveSource::Stream {
        bytes,
        reopen: Some(std::sync::Arc::new(File(path))),
    };
    let archive = Archive::open(origin, Limits::default(), &DecryptionKeys::default()).unwrap();
    let header = archive.header().clone();
    let mut sink = CollectedContent::default();
    archive
        .read_data(&mut sink)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    (header.format, header.filters, sink)
}

#[test]
fn every_format_is_recognized_and_read_completely() {
    for (name, format, filters) in FORMATS {
        let (is, wrapped, read) = read_fixture(name, usize::MAX);
        assert_eq!((is, wrapped.as_slice()), (format, filters), "{name}");
        assert!(
            read.data.iter().map(|(_, d)| d.len()).sum::<usize>() > 10_000,
            "{name}"
        );
        if name.starts_with('v') {
            assert_eq!(read.objects[&9001].len(), 4500, "{name}");
        }
    }
}

/// The result does not depend on how the bytes arrive. `make test` reads each file in two of four ways, and each format in
/// all of them.
#[test]
fn any_chunking_gives_the_same_result() {
    let all = FORMATS
        .iter()
        .map(|f| f.0)
        .chain(CORPUS.iter().map(|c| c.0).filter(|n| !n.ends_with(".gz")));
    for (n, name) in all.enumerate() {
        let whole = read_fixture(name, usize::MAX).2;
        for (way, chunk) in [1, 7, 511, 4096].into_iter().enumerate() {
            if (n + way) % 2 == 1 && !is_full_campaign() {
                continue;
            }
            let chunks = read_fixture(name, chunk).2;
            assert_eq!(
                (chunks.data, chunks.objects, chunks.statements),
                (
                    whole.data.clone(),
                    whole.objects.clone(),
                    whole.statements.clone()
                ),
                "{name}, {chunk}"
            );
        }
    }
}

#[test]
fn every_fixture_is_listed() {
    for entry in std::fs::read_dir(fixtures()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The files of this directory are listed in `wrappings.rs`.
        let known = ["README.md", "small.sql", "wrapped"].contains(&name.as_str())
            || FORMATS.iter().any(|f| f.0 == name)
            || CORPUS.iter().any(|(f, _, _)| *f == name);
        assert!(known, "{name} is not in the corpus");
    }
}

#[test]
fn every_codec_gives_the_same_data() {
    let reference = read_all(&bytes_of("shop18.none.dump.gz")).unwrap();
    assert!(reference.data.iter().map(|(_, d)| d.len()).sum::<usize>() > 100_000);
    for (name, codec, has_offsets) in CORPUS {
        let bytes = bytes_of(name);
        let archive = open(&bytes).unwrap();
        assert_eq!(archive.header().codec, codec, "{name}");
        assert_eq!(archive.header().version.unwrap().1, 16, "{name}");
        let offsets = archive
            .entries()
            .iter()
            .any(|e| matches!(e.offset, DataOffset::At(_)));
        assert_eq!(offsets, has_offsets, "{name}");
        let read = read_all(&bytes).unwrap();
        let sorted = |c: &CollectedContent| {
            let mut d = c.data.clone();
            d.sort();
            d
        };
        assert_eq!(sorted(&read), sorted(&reference), "{name}");
        assert_eq!(read.objects, reference.objects, "{name}");
    }
}

/// Compares with an independent reader.
#[test]
fn the_table_of_contents_matches_an_independent_reader() {
    for (name, _, _) in CORPUS {
        let bytes = bytes_of(name);
        let ours = open(&bytes).unwrap();
        let theirs = libpgdump::CustomReader::open(std::io::Cursor::new(&bytes)).unwrap();
        assert_eq!(ours.entries().len(), theirs.entries().len(), "{name}");
        for (a, b) in ours.entries().iter().zip(theirs.entries()) {
            assert_eq!(a.dump_id, DumpId(b.dump_id));
            assert_eq!(a.has_data, b.had_dumper);
            assert_eq!(a.defn, b.defn.clone().unwrap_or_default());
            assert_eq!(a.drop_stmt, b.drop_stmt.clone().unwrap_or_default());
            assert_eq!(a.copy_stmt, b.copy_stmt.clone().unwrap_or_default());
            assert_eq!(a.namespace, b.namespace.clone().filter(|n| !n.is_empty()));
            assert!(a.dependencies.iter().map(|id| &id.0).eq(&b.dependencies));
        }
    }
}

#[test]
fn every_archive_version_is_read() {
    for minor in 12..=16 {
        for int_size in [4, 8] {
            let bytes = synthetic(minor, int_size);
            let archive = open(&bytes).unwrap_or_else(|e| panic!("1.{minor}: {e}"));
            assert_eq!(archive.header().version, Some((1, minor, 0)));
            assert_eq!(
                archive.header().created.unwrap().to_string(),
                "2026-11-04T03:02:01"
            );
            assert_eq!(archive.entries()[1].dependencies, [DumpId(1)]);
            assert_eq!(
                archive.entries()[0].table_am.as_deref(),
                (minor >= 14).then_some("heap")
            );
            let read = read_all(&bytes).unwrap();
            assert_eq!(read.data, [("t".to_owned(), b"1\n2\n".to_vec())]);
        }
    }
    for (minor, wanted) in [
        (11, ArchiveErrorKind::Limit),
        (17, ArchiveErrorKind::Limit),
        (255, ArchiveErrorKind::Limit),
    ] {
        assert_eq!(
            open(&synthetic(minor, 4)).err().map(|e| kind(&e)),
            Some(wanted),
            "1.{minor}"
        );
    }
}

/// Truncation of an archive is detected at every byte. What precedes a cut is read anew for each, so `make test` cuts the
/// real archive at some of its bytes.
#[test]
fn every_truncation_is_detected() {
    let whole = synthetic(16, 4);
    // The beginning of a real archive: wherever it is cut, data is missing.
    let real: Vec<u8> = bytes_of("shop18.zstd.dump")
        .into_iter()
        .take(20_000)
        .collect();
    for (bytes, step) in [(whole, 1), (real, 23)] {
        for cut in sample(0..bytes.len(), step) {
            let e = read_all(&bytes[..cut])
                .err()
                .unwrap_or_else(|| panic!("truncation at {cut} was not detected"));
            assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{cut}: {e}");
        }
    }
}

/// Text of PostgreSQL never has a NUL byte, so no server could accept it.
#[test]
fn a_statement_with_a_nul_byte_is_damage() {
    let whole = bytes_of("v18.plain.sql");
    assert!(read_all(&whole).is_ok());
    // The text before is what identifies a dump.
    let begin = whole.windows(4).position(|w| w == b"SET ").unwrap();
    let mut in_statements = 0;
    for at in (begin..whole.len())
        .filter(|at| whole[*at] == b' ')
        .step_by(3)
    {
        let mut bad = whole.clone();
        bad[at] = 0;
        match read_all(&bad) {
            Err(e) => {
                assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{at}: {e}");
                in_statements += 1;
            }
            Ok(read) => assert!(
                read.statements.iter().all(|s| !s.text.contains('\0')),
                "{at}"
            ),
        }
    }
    assert!(in_statements > 100, "{in_statements}");
}

/// Whatever value one byte takes, reading ends soon, with a result or an error, in little memory. `make test` gives every
/// second byte one of the values, in turn.
#[test]
fn no_byte_causes_a_panic_or_a_hang() {
    let whole = bytes_of("shop18.gzip.dump");
    let toc = &whole[..whole.len().min(24_000)];
    for at in sample(0..3000, 2) {
        let values = [0, 1, 0x7f, 0x80, 0xff];
        for value in sample(values.into_iter().cycle().skip(at).take(5), values.len()) {
            let mut bad = toc.to_vec();
            bad[at] = value;
            // Any result will do; a panic, a hang or an allocation of gigabytes would not.
            let _ = read_all(&bad);
        }
    }
}

/// Each block ends where the next one begins, and the last one with the archive.
#[test]
fn sizes_of_data_reach_to_the_end_of_the_archive() {
    for (name, _, has_offsets) in CORPUS {
        let bytes = bytes_of(name);
        let archive = open(&bytes).unwrap();
        let with_data = archive.entries().iter().filter(|e| e.has_data);
        let starts = with_data.filter_map(|e| match e.offset {
            DataOffset::At(at) => Some(at),
            _ => None,
        });
        let starts: Vec<u64> = starts.collect();
        assert_eq!(!starts.is_empty(), has_offsets, "{name}");
        let whole = bytes.len() as u64;
        let sizes = archive.sizes(Some(whole));
        assert_eq!(sizes.len(), starts.len(), "{name}");
        let first = starts.iter().min().copied().unwrap_or(whole);
        assert_eq!(sizes.values().sum::<u64>(), whole - first, "{name}");
        let without_end = archive.sizes(None).len();
        assert_eq!(without_end, starts.len().saturating_sub(1), "{name}");
    }
}

/// Whether the end of a file with these bytes shows that it is cut off.
fn cut_off(bytes: &[u8]) -> Option<CutOff> {
    open(bytes).unwrap().cut_off(bytes.len() as u64, bytes)
}

#[test]
fn the_end_of_an_archive_shows_that_it_is_cut_off() {
    for (name, _, has_offsets) in CORPUS {
        let bytes = bytes_of(name);
        assert_eq!(cut_off(&bytes), None, "{name}");
        for cut in [bytes.len() - 12, bytes.len() - bytes.len() / 4] {
            let found = cut_off(&bytes[..cut]).map(|c| c.is_certain);
            assert_eq!(found, has_offsets.then_some(true), "{name}, {cut} bytes");
        }
    }
    // Something else may explain these: statements after the dump, a tar that another program wrote.
    for name in ["v15.plain.sql", "v18.plain.sql", "v15.tar.gz"] {
        let bytes = bytes_of(name);
        assert_eq!(cut_off(&bytes), None, "{name}");
        let found = cut_off(&bytes[..bytes.len() - 2000]);
        assert_eq!(found.map(|c| c.is_certain), Some(false), "{name}");
    }
    // Compressed as a whole: its end says nothing about the archive's.
    let wrapped = std::fs::read(fixtures().join("shop18.none.dump.gz")).unwrap();
    assert_eq!(cut_off(&wrapped), None);
}

//! Archives that are written: what was read of one archive is read of the one that was written of it, too, by this crate
//! and by an independent reader.

use std::sync::Arc;

use pgdump_archive::{
    Archive, ArchiveError, ArchiveSource, ArchiveWriter, Chunk, Codec, DataOffset, DataSink,
    DecryptionKeys, DumpId, Format, Limits, TextEncoding, TocEntry, check_writable,
};

use crate::formats::{CORPUS, CollectedContent, FORMATS, File, bytes_of, open, read_all};
use crate::synthetic::synthetic;
use crate::{ArchiveErrorKind, fixtures, is_full_campaign, kind};

/// Writes what it is handed.
struct Copy(ArchiveWriter<Vec<u8>>);

impl DataSink for Copy {
    fn is_ready(&self, entry: &TocEntry) -> bool {
        self.0.is_ready(entry)
    }

    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.0.begin(entry)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        match chunk {
            Chunk::Rows { text, .. } | Chunk::Statements { text, .. } => self.0.table_data(&text),
            Chunk::LargeObject { oid, bytes, .. } => self.0.large_object(oid, &bytes),
        }
    }

    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        self.0.end()
    }
}

fn written(archive: Archive, codec: Codec) -> Result<Vec<u8>, ArchiveError> {
    let entries: Vec<&TocEntry> = archive.entries().iter().collect();
    let (header, encoding) = (archive.header(), archive.encoding());
    let writer = ArchiveWriter::new(Vec::new(), header, &entries, encoding, codec)?;
    let mut copy = Copy(writer);
    archive.read_data(&mut copy)?;
    copy.0.finish()
}

fn open_fixture(name: &str) -> Archive {
    let path = fixtures().join(name);
    let origin = ArchiveSource::Stream {
        bytes: Box::new(std::fs::File::open(&path).unwrap()),
        reopen: Some(Arc::new(File(path))),
    };
    Archive::open(origin, Limits::default(), &DecryptionKeys::default()).unwrap()
}

/// All of an entry but where its data is.
fn definition(e: &TocEntry) -> String {
    let offset = DataOffset::NoData;
    let e = TocEntry {
        offset,
        ..e.clone()
    };
    format!("{e:?}")
}

/// The data of every table that has some, by name.
fn tables(read: &CollectedContent) -> Vec<&(String, Vec<u8>)> {
    let mut all: Vec<_> = read.data.iter().filter(|(_, d)| !d.is_empty()).collect();
    all.sort();
    all
}

fn assert_same(name: &str, source: Archive, codec: Codec) {
    let (header, encoding) = (source.header().clone(), source.encoding().clone());
    let entries: Vec<String> = source.entries().iter().map(definition).collect();
    let mut before = CollectedContent::default();
    open_fixture(name).read_data(&mut before).unwrap();
    let bytes = written(source, codec).unwrap_or_else(|e| panic!("{name}: {e}"));
    let copy = open(&bytes).unwrap();
    let again = copy.header();
    assert_eq!(
        (again.format, again.codec, again.version, again.created),
        (Format::Custom, codec, header.version, header.created),
        "{name}"
    );
    assert_eq!(
        (&again.database, &again.server_version, copy.encoding()),
        (&header.database, &header.server_version, &encoding),
        "{name}"
    );
    assert!(copy.entries().iter().map(definition).eq(entries), "{name}");
    let unset = |e: &TocEntry| (e.offset == DataOffset::NotSet) == e.has_data;
    assert!(copy.entries().iter().all(unset), "{name}");
    let after = read_all(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(tables(&after), tables(&before), "{name}");
    assert_eq!(after.objects, before.objects, "{name}");
    let theirs = libpgdump::CustomReader::open(std::io::Cursor::new(&bytes)).unwrap();
    assert_eq!(theirs.entries().len(), copy.entries().len(), "{name}");
}

/// `make test` writes each archive with every second codec.
#[test]
fn what_is_written_is_what_was_read() {
    let corpus = CORPUS.iter().map(|(name, ..)| *name);
    let others = FORMATS.iter().filter(|f| f.1 != Format::Plain);
    for (n, name) in corpus.chain(others.map(|f| f.0)).enumerate() {
        let version = open_fixture(name).header().version.unwrap();
        let newer: &[Codec] = if version.1 < 15 {
            &[]
        } else {
            &[Codec::Lz4, Codec::Zstd]
        };
        for (c, codec) in [Codec::None, Codec::Gzip].iter().chain(newer).enumerate() {
            if (n + c) % 2 == 1 && !is_full_campaign() {
                continue;
            }
            assert_same(name, open_fixture(name), *codec);
        }
    }
}

#[test]
fn every_archive_version_is_written() {
    for minor in 12..=16 {
        let bytes = written(open(&synthetic(minor, 4)).unwrap(), Codec::Gzip).unwrap();
        let archive = open(&bytes).unwrap();
        assert_eq!(archive.header().version, Some((1, minor, 0)));
        let read = read_all(&bytes).unwrap();
        assert_eq!(read.data, [("t".to_owned(), b"1\n2\n".to_vec())]);
    }
}

#[test]
fn only_what_pg_restore_can_read_is_written() {
    let old = open(&synthetic(14, 4)).unwrap();
    for (codec, is_known) in [
        (Codec::None, true),
        (Codec::Gzip, true),
        (Codec::Lz4, false),
        (Codec::Zstd, false),
    ] {
        let checked = check_writable(old.header(), codec);
        assert_eq!(checked.is_ok(), is_known, "{codec:?}");
    }
    let text = open(&bytes_of("v18.plain.sql")).unwrap();
    let e = check_writable(text.header(), Codec::Gzip).unwrap_err();
    assert_eq!(kind(&e), ArchiveErrorKind::Unsupported);
    assert!(e.to_string().contains("no table of contents"), "{e}");
}

fn table(id: i32) -> TocEntry {
    TocEntry {
        has_data: true,
        copy_stmt: "COPY t FROM stdin;\n".into(),
        ..TocEntry::bare(id, "TABLE DATA", "t")
    }
}

fn writer(entries: &[&TocEntry]) -> ArchiveWriter<Vec<u8>> {
    let header = open(&synthetic(16, 4)).unwrap().header().clone();
    let utf8 = TextEncoding::new("UTF8");
    ArchiveWriter::new(Vec::new(), &header, entries, &utf8, Codec::Gzip).unwrap()
}

#[test]
fn an_archive_without_all_of_its_data_is_not_finished() {
    let (one, two) = (table(1), table(2));
    let mut w = writer(&[&one, &two]);
    w.begin(&one).unwrap();
    let e = w.begin(&two).unwrap_err();
    assert!(e.to_string().contains("begins inside"), "{e}");
    w.table_data(b"1\n").unwrap();
    w.end().unwrap();
    let e = w.begin(&one).unwrap_err();
    assert!(e.to_string().contains("is not expected here"), "{e}");
    let e = w.finish().unwrap_err();
    assert!(e.to_string().contains("TABLE DATA t is missing"), "{e}");
}

/// The data of an entry may be left out with the entry, and dependencies on it stay.
#[test]
fn entries_may_be_left_out() {
    let mut later = table(3);
    later.dependencies = vec![DumpId(1), DumpId(2)];
    let mut w = writer(&[&later]);
    w.begin(&later).unwrap();
    w.end().unwrap();
    let bytes = w.finish().unwrap();
    let archive = open(&bytes).unwrap();
    assert_eq!(archive.entries()[0].dependencies, later.dependencies);
    assert_eq!(read_all(&bytes).unwrap().data, [("t".to_owned(), vec![])]);
}

#[test]
fn large_objects_of_any_oid_and_size_are_written() {
    let blobs = TocEntry {
        has_data: true,
        ..TocEntry::bare(1, "BLOBS", "BLOBS")
    };
    let mut w = writer(&[&blobs]);
    let long: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    w.begin(&blobs).unwrap();
    w.large_object(9, b"nine").unwrap();
    w.begin(&blobs).unwrap();
    for part in long.chunks(2048 * 100) {
        w.large_object(u32::MAX, part).unwrap();
    }
    w.large_object(1 << 31, b"x").unwrap();
    w.end().unwrap();
    let read = read_all(&w.finish().unwrap()).unwrap();
    let wanted = [
        (9, b"nine".to_vec()),
        (1 << 31, b"x".to_vec()),
        (u32::MAX, long),
    ];
    assert_eq!(read.objects, wanted.into_iter().collect());
}

/// Text that is not in UTF-8 is written as the bytes that were read.
#[test]
fn names_keep_their_encoding() {
    let encoding = TocEntry {
        defn: "SET client_encoding = 'LATIN1';\n".into(),
        ..TocEntry::bare(1, "ENCODING", "ENCODING")
    };
    let latin1 = TextEncoding::new("LATIN1");
    let mut name = table(2);
    name.tag = latin1.decode(b"caf\xe9".to_vec()).unwrap();
    name.has_data = false;
    let header = open(&synthetic(15, 4)).unwrap().header().clone();
    let entries = [&encoding, &name];
    let w = ArchiveWriter::new(Vec::new(), &header, &entries, &latin1, Codec::None).unwrap();
    let bytes = w.finish().unwrap();
    assert!(bytes.windows(4).any(|w| w == b"caf\xe9"));
    assert_eq!(open(&bytes).unwrap().entries()[1].tag, name.tag);
}

/// The data of an entry that has an offset can be read by itself.
#[test]
fn one_entry_is_read_at_its_offset() {
    let bytes = bytes_of("shop18.zstd.dump");
    let archive = open(&bytes).unwrap();
    let all = read_all(&bytes).unwrap();
    let with_rows = |e: &&TocEntry| e.has_data && !e.copy_stmt.is_empty();
    let mut read = 0;
    for entry in archive.entries().iter().filter(with_rows) {
        let DataOffset::At(at) = entry.offset else {
            panic!("{}", entry.name());
        };
        let at_offset = |at: usize| Box::new(std::io::Cursor::new(bytes[at..].to_vec()));
        let mut one = CollectedContent::default();
        let at = usize::try_from(at).unwrap();
        archive.read_entry(entry, at_offset(at), &mut one).unwrap();
        assert!(all.data.contains(&one.data[0]), "{}", entry.name());
        let e = archive.read_entry(entry, at_offset(at + 1), &mut one);
        assert_eq!(e.err().map(|e| kind(&e)), Some(ArchiveErrorKind::Corrupt));
        read += 1;
    }
    assert!(read > 2, "{read}");
}

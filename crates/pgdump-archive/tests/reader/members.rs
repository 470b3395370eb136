//! Dumps with members, as a directory, packed, and as `pg_dump -Ft`: every member that may hold data is read, and
//! every listed one must exist.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgdump_archive::ArchiveError;
use pgdump_archive::{
    Archive, ArchiveSource, ByteStream, BytesProven, Chunk, Crc32c, DataSink, DecryptionKeys,
    DirectorySource, EntryKind, Limits, ReopenableSource, TocEntry,
};

use crate::{ArchiveErrorKind, kind};

type Files = BTreeMap<String, Vec<u8>>;

/// The files of a fixture.
fn unpacked(name: &str) -> Files {
    let file = std::fs::File::open(crate::fixtures().join(name));
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file.unwrap()));
    let mut files = Files::new();
    for entry in tar
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .filter(|e| e.header().entry_type().is_file())
    {
        let (mut entry, mut bytes) = (entry, Vec::new());
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(
            entry
                .path()
                .unwrap()
                .to_str()
                .unwrap()
                .trim_start_matches("./")
                .to_owned(),
            bytes,
        );
    }
    files
}

#[derive(Clone)]
struct MemoryDirectory(Files);

impl DirectorySource for MemoryDirectory {
    fn members(&self) -> Vec<(String, u64)> {
        self.0
            .iter()
            .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
            .collect()
    }

    fn open(&self, name: &str) -> Result<ByteStream, ArchiveError> {
        Ok(Box::new(Cursor::new(self.0[name].clone())))
    }
}

#[derive(Clone)]
struct Twice(Vec<u8>);

impl ReopenableSource for Twice {
    fn open(&self, offset: u64) -> Result<ByteStream, ArchiveError> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| self.0.get(at..))
            .unwrap_or_default();
        Ok(Box::new(Cursor::new(rest.to_vec())))
    }
}

/// How the files are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
enum MemberForm {
    Folder,
    /// Each member compressed once more, as when they are copied to a bucket.
    Gzipped,
    Packed,
    /// `pg_dump -Ft`.
    Tar,
}

const FORMS: [MemberForm; 4] = [
    MemberForm::Folder,
    MemberForm::Gzipped,
    MemberForm::Packed,
    MemberForm::Tar,
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    w.write_all(bytes).unwrap();
    w.finish().unwrap()
}

fn pack(files: &Files, prefix: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    // The table of contents comes first, as pg_dump writes it.
    let (toc, others): (Vec<_>, Vec<_>) = files.iter().partition(|f| f.0 == "toc.dat");
    for (name, bytes) in toc.into_iter().chain(others) {
        let mut header = tar::Header::new_ustar();
        header.set_path(format!("{prefix}{name}")).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn origin(files: &Files, form: MemberForm) -> ArchiveSource {
    let stream = |bytes: Vec<u8>| ArchiveSource::Stream {
        bytes: Box::new(Cursor::new(bytes.clone())),
        reopen: Some(Arc::new(Twice(bytes))),
    };
    match form {
        MemberForm::Folder => ArchiveSource::Directory(Arc::new(MemoryDirectory(files.clone()))),
        MemberForm::Gzipped => {
            let files = files
                .iter()
                .map(|(name, bytes)| (format!("{name}.gz"), gzip(bytes)));
            ArchiveSource::Directory(Arc::new(MemoryDirectory(files.collect())))
        }
        MemberForm::Packed => stream(pack(files, "./")),
        MemberForm::Tar => stream(pack(files, "")),
    }
}

/// Collects the large objects, and ignores everything else.
#[derive(Default)]
struct Objects {
    seen: BTreeMap<u32, usize>,
    only_tables: bool,
}

impl DataSink for Objects {
    fn begin(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        if let Chunk::LargeObject { oid, bytes, .. } = chunk {
            *self.seen.entry(oid).or_default() += bytes.len();
        }
        Ok(())
    }

    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn should_read(&self, entry: &TocEntry) -> bool {
        !self.only_tables || entry.kind != EntryKind::Blobs
    }
}

fn read(files: &Files, form: MemberForm, only_tables: bool) -> Result<Objects, ArchiveError> {
    let mut sink = Objects {
        only_tables,
        ..Objects::default()
    };
    Archive::open(
        origin(files, form),
        Limits::default(),
        &DecryptionKeys::default(),
    )?
    .read_data(&mut sink)?;
    Ok(sink)
}

/// Both fixtures of a version, and the name of their list.
fn dumps(version: u32) -> [(Files, Vec<MemberForm>); 2] {
    let forms = |tar: bool| {
        FORMS
            .into_iter()
            .filter(|f| (*f == MemberForm::Tar) == tar)
            .collect()
    };
    [
        (
            unpacked(&format!("v{version}.directory.tar.gz")),
            forms(false),
        ),
        (unpacked(&format!("v{version}.tar.gz")), forms(true)),
    ]
}

fn list_of(files: &Files) -> String {
    files
        .keys()
        .find(|n| n.starts_with("blobs") && n.ends_with(".toc"))
        .unwrap()
        .clone()
}

/// A file of this name, whatever compression suffix it has.
fn member_of(files: &Files, plain: &str) -> String {
    files
        .keys()
        .find(|n| n.trim_end_matches(".gz") == plain)
        .unwrap()
        .clone()
}

fn for_each_form(mut f: impl FnMut(u32, &Files, MemberForm)) {
    for version in [15, 16, 18] {
        for (files, forms) in dumps(version) {
            forms.into_iter().for_each(|form| f(version, &files, form));
        }
    }
}

#[test]
fn every_form_is_read_completely() {
    for_each_form(|version, files, form| {
        let objects =
            read(files, form, false).unwrap_or_else(|e| panic!("{version} {form:?}: {e}"));
        // The list of the other fixture is empty.
        assert_eq!(
            objects.seen.keys().copied().collect::<Vec<_>>(),
            [9001],
            "{version} {form:?}"
        );
        assert!(read(files, form, true).is_ok(), "{version} {form:?}");
    });
}

/// The list of large objects must match the existing ones.
#[test]
fn a_list_that_does_not_match_the_members_is_damage() {
    let whole = "9001 blob_9001.dat\n9002 blob_9002.dat\n";
    let lists: [(&str, String, &str); 16] = [
        (
            "cut behind a line",
            "9001 blob_9001.dat\n".into(),
            "blob_9002.dat is not listed",
        ),
        (
            "cut before it",
            "9002 blob_9002.dat\n".into(),
            "blob_9001.dat is not listed",
        ),
        ("empty", String::new(), "blob_9001.dat is not listed"),
        (
            "cut in a number",
            "9001 blob_9001.dat\n90".into(),
            "does not name a large object",
        ),
        (
            "cut in a name",
            "9001 blob_9001.dat\n9002 blob_9".into(),
            "does not name a large object",
        ),
        (
            "one too many",
            format!("{whole}9003 blob_9003.dat\n"),
            "blob_9003.dat is missing",
        ),
        (
            "an empty line",
            "9001 blob_9001.dat\n\n9002 blob_9002.dat\n".into(),
            "does not name a large object",
        ),
        ("twice", whole.repeat(2), "listed twice"),
        (
            "another's name",
            "9001 blob_9002.dat\n9002 blob_9001.dat\n".into(),
            "does not name a large object",
        ),
        (
            "elsewhere",
            "9001 ../secret.dat\n9002 blob_9002.dat\n".into(),
            "does not name a large object",
        ),
        (
            "absolute",
            "9001 /etc/passwd\n9002 blob_9002.dat\n".into(),
            "does not name a large object",
        ),
        (
            "too large",
            format!("{whole}99999999999 blob_99999999999.dat\n"),
            "does not name a large object",
        ),
        (
            "other digits",
            "+9001 blob_+9001.dat\n9002 blob_9002.dat\n".into(),
            "does not name a large object",
        ),
        (
            "zeros",
            "09001 blob_09001.dat\n9002 blob_9002.dat\n".into(),
            "does not name a large object",
        ),
        (
            "no end of line",
            "x".repeat(1 << 20),
            "does not name a large object",
        ),
        (
            "zero bytes",
            "\0".repeat(4096),
            "does not name a large object",
        ),
    ];
    for_each_form(|version, files, form| {
        for (what, list, word) in &lists {
            let mut files = files.clone();
            files.insert(list_of(&files), list.clone().into_bytes());
            let e = read(&files, form, false)
                .err()
                .unwrap_or_else(|| panic!("{version} {form:?} {what}"));
            assert_eq!(
                kind(&e),
                ArchiveErrorKind::Corrupt,
                "{version} {form:?} {what}: {e}"
            );
            assert!(
                e.to_string().contains(word),
                "{version} {form:?} {what}: {e}"
            );
        }
    });
}

/// The same for the members themselves, also if only tables are read. Whoever may add files to a directory cannot
/// turn its backup into a damaged one.
#[test]
fn missing_members_are_damage_and_others_are_foreign() {
    for_each_form(|version, files, form| {
        let refused_as =
            |wanted: ArchiveErrorKind, files: &Files, only_tables: bool, word: &str| {
                let e = read(files, form, only_tables).err();
                let e = e.unwrap_or_else(|| panic!("{version} {form:?}: {word}"));
                assert_eq!(kind(&e), wanted, "{version} {form:?}: {e}");
                assert!(
                    e.to_string().contains(word),
                    "{version} {form:?}: {e}, not {word}"
                );
            };
        let refused = |files: &Files, only_tables, word: &str| {
            refused_as(ArchiveErrorKind::Corrupt, files, only_tables, word)
        };
        let of_others = if matches!(form, MemberForm::Folder | MemberForm::Gzipped) {
            ArchiveErrorKind::Foreign
        } else {
            ArchiveErrorKind::Corrupt
        };
        let mut gone = files.clone();
        gone.remove(&member_of(files, "blob_9002.dat"));
        refused(&gone, false, "blob_9002.dat");
        refused(&gone, true, "9002");
        // The list and the members agree, but the table of contents has another object.
        gone.insert(list_of(files), b"9001 blob_9001.dat\n".to_vec());
        refused(&gone, false, "9002");
        let mut gone = files.clone();
        gone.remove(&list_of(files));
        refused(&gone, false, "BLOBS");
        for name in [
            "blob_7.dat",
            "blob_9001.dat.lz4",
            "77.dat",
            "blobs_3.toc",
            "blob_x.dat",
            "blob_09001.dat",
        ] {
            let mut more = files.clone();
            more.insert(name.into(), b"x".to_vec());
            refused_as(of_others, &more, false, name.trim_end_matches(".lz4"));
        }
        let mut notes = files.clone();
        for name in [
            "README",
            "_SUCCESS",
            "SHA256SUMS",
            "globals.sql",
            "._toc.dat",
            ".DS_Store",
        ] {
            notes.insert(name.into(), b"not of the dump".to_vec());
        }
        assert!(read(&notes, form, false).is_ok(), "{version} {form:?}");
    });
}

/// A handmade member of a tar, with any size in its header.
fn tar_member(name: &str, kind: u8, size: u64, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    if size >= 1 << 33 {
        let field = &mut header.as_mut_bytes()[124..136];
        field.fill(0);
        field[0] = 0x80;
        field[4..].copy_from_slice(&size.to_be_bytes());
    }
    header.set_cksum();
    let mut out = [header.as_bytes(), bytes].concat();
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// Whatever the headers of a tar claim, reading ends at once with an error.
#[test]
fn a_tar_with_false_headers_is_refused_at_once() {
    let files = unpacked("v15.tar.gz");
    let toc = tar_member(
        "toc.dat",
        b'0',
        files["toc.dat"].len() as u64,
        &files["toc.dat"],
    );
    let packed = tar_member("./3387.dat.gz", b'0', 3, b"abc");
    let pax = |text: &str| tar_member("x", b'x', text.len() as u64, text.as_bytes());
    let sizes = [
        1 << 33,
        i64::MAX as u64 - 1,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 600,
        u64::MAX - 1,
        u64::MAX,
    ];
    let mut cases: Vec<(String, Vec<u8>, ArchiveErrorKind)> = Vec::new();
    for size in sizes {
        for first in [&toc, &packed] {
            for kind in [b'0', b'5', b'L', b'x', b'g', b'K', b'2'] {
                let lying = tar_member("3389.dat", kind, size, b"rows");
                let what = format!("{size} bytes of {}", char::from(kind));
                cases.push((
                    what,
                    [&first[..], &lying].concat(),
                    ArchiveErrorKind::Corrupt,
                ));
            }
        }
        let lying = [
            &toc[..],
            &pax(&format!("{} size={size}\n", 7 + size.to_string().len() + 2)),
            &packed,
        ];
        cases.push((
            format!("pax size {size}"),
            lying.concat(),
            ArchiveErrorKind::Corrupt,
        ));
    }
    for text in [
        "30 size=18446744073709551616\n",
        "11 size=-1\n",
        "12 size=abc\n",
        "9999999 size=1\n",
    ] {
        cases.push((
            text.to_owned(),
            [&toc[..], &pax(text), &packed].concat(),
            ArchiveErrorKind::Corrupt,
        ));
    }
    let sparse = tar_member("3389.dat", b'S', 4, b"rows");
    cases.push((
        "sparse".into(),
        [&toc[..], &sparse].concat(),
        ArchiveErrorKind::Limit,
    ));
    let sparse = [&toc[..], &pax("22 GNU.sparse.major=1\n"), &packed].concat();
    cases.push(("sparse by pax".into(), sparse, ArchiveErrorKind::Limit));
    for (what, bytes, reason) in cases {
        let reopen = Some(Arc::new(Twice(bytes.clone())) as Arc<dyn ReopenableSource>);
        let origin = ArchiveSource::Stream {
            bytes: Box::new(Cursor::new(bytes)),
            reopen,
        };
        let read = Archive::open(origin, Limits::default(), &DecryptionKeys::default())
            .and_then(|a| a.read_data(&mut Objects::default()));
        assert_eq!(kind(&read.unwrap_err()), reason, "{what}");
    }
}

/// A source that is wanted as long as its flag is set.
struct CancellableSource<S>(S, Arc<AtomicBool>);

impl<S> CancellableSource<S> {
    fn check(&self) -> Result<(), ArchiveError> {
        if self.1.load(Relaxed) {
            return Ok(());
        }
        Err(ArchiveError::source("stopped"))
    }
}

impl DirectorySource for CancellableSource<MemoryDirectory> {
    fn members(&self) -> Vec<(String, u64)> {
        self.0.members()
    }

    fn open(&self, name: &str) -> Result<ByteStream, ArchiveError> {
        self.0.open(name)
    }

    fn check_wanted(&self) -> Result<(), ArchiveError> {
        self.check()
    }
}

impl ReopenableSource for CancellableSource<Twice> {
    fn open(&self, offset: u64) -> Result<ByteStream, ArchiveError> {
        self.0.open(offset)
    }

    fn check_wanted(&self) -> Result<(), ArchiveError> {
        self.check()
    }
}

/// What is compressed inside an archive is decompressed as long as it is wanted, although all of its bytes are there.
#[test]
fn members_are_decompressed_as_long_as_they_are_wanted() {
    let files = unpacked("v15.directory.tar.gz");
    let zipped = files
        .iter()
        .map(|(name, bytes)| (format!("{name}.gz"), gzip(bytes)));
    let zipped: Files = zipped.collect();
    for (is_packed, is_wanted) in [(false, false), (false, true), (true, false), (true, true)] {
        let wanted = Arc::new(AtomicBool::new(is_wanted));
        let origin = if is_packed {
            let bytes = pack(&zipped, "./");
            ArchiveSource::Stream {
                bytes: Box::new(Cursor::new(bytes.clone())),
                reopen: Some(Arc::new(CancellableSource(Twice(bytes), wanted.clone()))),
            }
        } else {
            let members = CancellableSource(MemoryDirectory(zipped.clone()), wanted.clone());
            ArchiveSource::Directory(Arc::new(members))
        };
        let opened = Archive::open(origin, Limits::default(), &DecryptionKeys::default());
        let e = if is_wanted {
            let archive = opened.unwrap();
            wanted.store(false, Relaxed);
            archive.read_data(&mut Objects::default()).unwrap_err()
        } else {
            opened.err().unwrap()
        };
        let is_stopped = matches!(&e, ArchiveError::Source(e) if e.to_string() == "stopped");
        assert!(is_stopped, "{is_packed} {is_wanted}: {e}");
    }
}

/// A directory whose store has a checksum of every member but one.
struct Checked(MemoryDirectory, String);

impl DirectorySource for Checked {
    fn members(&self) -> Vec<(String, u64)> {
        self.0.members()
    }

    fn open(&self, name: &str) -> Result<ByteStream, ArchiveError> {
        self.0.open(name)
    }

    fn proven(&self, name: &str) -> Option<Crc32c> {
        (name != self.1).then(|| Crc32c::of(&self.0.0[name]))
    }
}

/// The names of what was proven, each after the end of its entry.
#[derive(Default)]
struct ProvenNames {
    ended: Option<String>,
    names: Vec<String>,
}

impl DataSink for ProvenNames {
    fn begin(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        self.ended = None;
        Ok(())
    }

    fn chunk(&mut self, _: Chunk) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.ended = Some(entry.name());
        Ok(())
    }

    fn proven(&mut self, entry: &TocEntry, bytes: BytesProven) {
        assert_eq!(self.ended, Some(entry.name()));
        match bytes {
            BytesProven::Member { name, .. } => self.names.push(name),
            BytesProven::Block(_) | BytesProven::BlockRead(_) => panic!("{bytes:?}"),
        }
    }
}

#[test]
fn a_member_is_proven_by_its_checksum_and_large_objects_by_all_of_theirs() {
    let files = unpacked("v15.directory.tar.gz");
    let list = list_of(&files);
    let object = files.keys().find(|n| n.starts_with("blob_")).unwrap();
    let table = files.keys().find(|n| n.as_bytes()[0].is_ascii_digit());
    let table = table.unwrap();
    let proven = |without: &str| {
        let members = Checked(MemoryDirectory(files.clone()), without.to_owned());
        let origin = ArchiveSource::Directory(Arc::new(members));
        let archive = Archive::open(origin, Limits::default(), &DecryptionKeys::default());
        let mut sink = ProvenNames::default();
        archive.unwrap().read_data(&mut sink).unwrap();
        sink.names
    };
    let all = proven("");
    assert!(all.contains(&list) && all.contains(table), "{all:?}");
    for (without, unproven) in [(object, &list), (&list, &list), (table, table)] {
        let found = proven(without);
        let wanted: Vec<_> = all.iter().filter(|n| *n != unproven).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{without}");
    }
}

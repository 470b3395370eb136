//! An archive in several files, one after the other: wherever it is cut it is read, and what lies in a file behind its
//! end is named and says nothing about the archive.

use std::collections::VecDeque;
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use pgdump_archive::{
    Archive, ArchiveError, ArchiveSource, ByteStream, DecryptionKeys, FIRST_TAKE, Limits,
    ReopenableSource,
};

use crate::formats::CollectedContent;
use crate::synthetic::{synthetic, synthetic_parts};
use crate::{ArchiveErrorKind, is_full_campaign, kind, sample};

#[derive(Clone)]
struct Pieces {
    files: Vec<Vec<u8>>,
    taken: Arc<AtomicU64>,
}

/// Gives the bytes of one file at a time, and few of them where it begins.
struct FileByFileReader {
    todo: VecDeque<Cursor<Vec<u8>>>,
    is_first: bool,
    taken: Arc<AtomicU64>,
}

impl Read for FileByFileReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while let Some(file) = self.todo.front_mut() {
            let begins = !self.is_first && file.position() == 0;
            let most = out.len().min(if begins { FIRST_TAKE } else { 64 << 10 });
            let n = file.read(&mut out[..most])?;
            if n > 0 || out.is_empty() {
                self.taken.fetch_add(n as u64, Relaxed);
                return Ok(n);
            }
            self.todo.pop_front();
            self.is_first = false;
        }
        Ok(0)
    }
}

impl ReopenableSource for Pieces {
    fn open(&self, offset: u64) -> Result<ByteStream, ArchiveError> {
        let rest = self.files.concat().split_off(offset as usize);
        Ok(Box::new(Cursor::new(rest)))
    }

    fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    fn files_before(&self, offset: u64) -> usize {
        let mut at = 0;
        let begins = self.files.iter().map(|f| {
            let begin = at;
            at += f.len() as u64;
            begin
        });
        begins.take_while(|begin| *begin < offset).count()
    }

    fn file_name(&self, file: usize) -> Option<String> {
        self.files.get(file).map(|_| format!("file {file}"))
    }

    fn advice(&self) -> Option<String> {
        Some("advice".into())
    }
}

fn read(files: &[&[u8]]) -> Result<CollectedContent, ArchiveError> {
    let files: Vec<Vec<u8>> = files.iter().map(|f| f.to_vec()).collect();
    let taken = Arc::new(AtomicU64::new(0));
    let bytes = FileByFileReader {
        todo: files.iter().cloned().map(Cursor::new).collect(),
        is_first: true,
        taken: taken.clone(),
    };
    let origin = ArchiveSource::Stream {
        bytes: Box::new(bytes),
        reopen: Some(Arc::new(Pieces { files, taken })),
    };
    let archive = Archive::open(
        origin,
        Limits::default().with_memory(8 << 30),
        &DecryptionKeys::default(),
    )?;
    let mut sink = CollectedContent::default();
    archive.read_data(&mut sink)?;
    Ok(sink)
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .read_to_end(&mut out)
        .unwrap();
    out
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    let mut out = Vec::new();
    gzip.read_to_end(&mut out).unwrap();
    out
}

/// A few bytes that decompress to very many, of which none names a database.
fn bomb() -> Vec<u8> {
    let begin = b"--\n-- PostgreSQL database dump\n--\n\n";
    let comment = format!("-- {}\n", "x".repeat(1_000));
    let comments = comment.as_bytes().repeat(20_000);
    gzip(&gzip(&[&begin[..], &comments].concat()))
}

/// Reading ends at the limit, and does not blame the backup.
#[test]
fn no_more_is_decompressed_than_is_allowed() {
    let open = |max_decompressed| {
        let limits = Limits {
            max_decompressed,
            ..Limits::default()
        };
        let origin = ArchiveSource::once(Cursor::new(bomb()));
        Archive::open(origin, limits, &DecryptionKeys::default()).err()
    };
    let e = open(8 << 20).unwrap();
    assert!(matches!(e, ArchiveError::Limit(_)), "{e}");
    assert!(e.to_string().contains("8 MiB"), "{e}");
    let e = open(u64::MAX);
    assert!(!matches!(e, Some(ArchiveError::Limit(_))), "{e:?}");
}

/// Is no longer wanted after it was asked this often.
struct Unwanted(AtomicU64);

impl ReopenableSource for Unwanted {
    fn open(&self, _: u64) -> Result<ByteStream, ArchiveError> {
        Err(ArchiveError::source("it is opened once"))
    }

    fn check_wanted(&self) -> Result<(), ArchiveError> {
        match self.0.load(Relaxed) {
            0 => Err(ArchiveError::source("stopped")),
            left => {
                self.0.store(left - 1, Relaxed);
                Ok(())
            }
        }
    }
}

/// Reading stops although all bytes of the source were read before.
#[test]
fn decompression_ends_when_nobody_wants_it() {
    let source = Arc::new(Unwanted(AtomicU64::new(9)));
    let origin = ArchiveSource::Stream {
        bytes: Box::new(Cursor::new(bomb())),
        reopen: Some(source.clone()),
    };
    let opened = Archive::open(origin, Limits::default(), &DecryptionKeys::default());
    let e = opened.err().unwrap();
    assert!(
        matches!(&e, ArchiveError::Source(e) if e.to_string() == "stopped"),
        "{e}"
    );
    assert_eq!(source.0.load(Relaxed), 0);
}

/// Every format, and every wrapping.
fn archives() -> Vec<(String, Vec<u8>)> {
    let file = |name: &str| std::fs::read(crate::fixtures().join(name)).unwrap();
    let mut all = vec![
        ("custom.gz".to_owned(), gzip(&file("v15.custom.dump"))),
        ("text.gz".to_owned(), gzip(&file("v15.plain.sql"))),
        ("tar".to_owned(), gunzip(&file("v15.tar.gz"))),
        ("uncompressed.dump".to_owned(), synthetic(16, 4)),
    ];
    for name in [
        "v15.custom.dump",
        "shop18.zstd.piped.dump",
        "v15.plain.sql",
        "v18.inserts.sql",
        "v15.tar.gz",
        "v15.directory.tar.gz",
        "wrapped/pzstd.zst",
        "wrapped/two.bz2",
        "wrapped/two.gz",
        "wrapped/two.lz",
        "wrapped/two.lz4",
        "wrapped/legacy.lz4",
        "wrapped/two.xz",
        "wrapped/two.zst",
        "wrapped/in.sql",
    ] {
        all.push((name.to_owned(), file(name)));
    }
    all
}

#[test]
fn an_archive_is_read_wherever_it_is_cut() {
    for (name, bytes) in archives() {
        let whole = read(&[&bytes]).unwrap();
        let near_its_end = bytes.len() - bytes.len().min(60)..bytes.len();
        let near_its_end = sample(near_its_end, 15).chain([bytes.len() - 1]);
        for cut in near_its_end.chain([1, 20, bytes.len() / 2]) {
            let (first, second) = bytes.split_at(cut);
            let cut_there = read(&[first, second]).unwrap_or_else(|e| panic!("{name}, {cut}: {e}"));
            assert_eq!(cut_there.data, whole.data, "{name}, {cut}");
        }
        let chunks: Vec<&[u8]> = bytes.chunks(bytes.len().div_ceil(50)).collect();
        assert_eq!(read(&chunks).unwrap().data, whole.data, "{name}");
    }
}

#[test]
fn a_file_behind_the_end_is_named_and_nothing_is_said_of_the_archive() {
    for (n, (name, bytes)) in archives().into_iter().enumerate() {
        let statement = b"DROP TABLE public.t;\n";
        let (own, member) = (bytes.clone(), gzip(statement));
        let surplus: [&[u8]; 6] = [
            b"x",
            statement,
            b"psql: notes that somebody kept beside the backup\n",
            b"\x01\x00\x03\x04\x05\x06\x07\x08",
            &own,
            &member,
        ];
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for (m, more) in surplus.into_iter().enumerate() {
            let arrangements = [
                (vec![&bytes[..], more], 1),
                (vec![first, second, more], 2),
                (vec![first, second, more, b"y", b"notes"], 2),
                (vec![first, second, more, b"notes"], 2),
            ];
            for (a, (files, place)) in arrangements.into_iter().enumerate() {
                // In `make test`, every two of archive, surplus and arrangement meet.
                if a != (n + m) % 4 && !is_full_campaign() {
                    continue;
                }
                let what = format!("{name} and {}", more[..more.len().min(20)].escape_ascii());
                let e = read(&files).err().unwrap_or_else(|| panic!("{what}"));
                assert_eq!(kind(&e), ArchiveErrorKind::Foreign, "{what}: {e}");
                let e = e.to_string();
                assert!(e.contains(&format!("before file {place}, ")), "{what}: {e}");
                assert_eq!(e.contains("or name file 0"), place == 1, "{e}");
            }
        }
    }
}

/// Uncompressed data is read up to its end exactly, and the next file may have been begun by then.
#[test]
fn a_file_behind_uncompressed_data_is_not_blamed_on_the_archive() {
    let [head, contents, data] = synthetic_parts(16, 4);
    let plain = [&head[..], &contents, &data].concat();
    // As `pg_dump -Fc >> file` leaves it.
    let appended = [&plain[..], &contents].concat();
    // The same with no entries: the first look at the second table of contents goes beyond its end.
    let of_nothing = [&head[..], &[0; 5], &[0; 5]].concat();
    for whole in [&plain, &appended, &of_nothing] {
        let parts: Vec<&[u8]> = whole.chunks(whole.len().div_ceil(3)).collect();
        let large = b"notes".repeat(160_000);
        let surplus: [&[u8]; 6] = [b"notes", &large, parts[1], whole, &data, &contents[..20]];
        for more in surplus {
            let e = read(&[&parts[..], &[more]].concat()).err().unwrap();
            assert_eq!(kind(&e), ArchiveErrorKind::Foreign, "{e}");
            assert!(e.to_string().contains("before file 3, "), "{e}");
            // Not in a file of its own.
            let last = [parts[2], more].concat();
            let e = read(&[parts[0], parts[1], &last]).err().unwrap();
            assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{e}");
            let e = read(&[parts[0], parts[1], &last, b"x"]).err().unwrap();
            assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{e}");
        }
    }
}

/// What is in one file with the end of the archive is the archive's.
#[test]
fn bytes_behind_the_end_in_the_last_piece_are_damage() {
    for (name, bytes) in archives() {
        if name.ends_with(".sql") || name == "text.gz" {
            continue;
        }
        let longer = [&bytes[..], b"psql: warning\n"].concat();
        let (first, second) = longer.split_at(bytes.len() / 2);
        // A decompressor may have looked into the next file before it says so.
        let is_bare = name == "tar" || name.ends_with(".dump");
        for files in [vec![first, second], vec![first, second, b"x"]] {
            if files.len() > 2 && !is_bare {
                continue;
            }
            let e = read(&files).err().unwrap_or_else(|| panic!("{name}"));
            assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{name}: {e}");
            assert!(e.to_string().ends_with("(advice)"), "{name}: {e}");
        }
        let cut = &second[..bytes.len() - first.len() - 40];
        let e = read(&[first, cut])
            .err()
            .unwrap_or_else(|| panic!("{name}"));
        assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{name}: {e}");
    }
}

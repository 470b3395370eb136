//! Files whose names are counted (`db.00`, `db.01`): the pieces of one backup, or whole backups. Only their bytes tell.

use std::collections::HashSet;
use std::time::Duration;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use pgdump_archive::{
    Continuation, HEAD_BYTES, TAIL_BYTES, continuation, is_own_backup, is_recognized, shows_its_end,
};
use tokio::time::Instant;

use super::pieces::{Series, has_extension};
use crate::error::{RetryClass, StorageError, StorageKind, report};
use crate::store::{BackupStore, StoredObject, read_range};

/// Series that are looked into at the same time, and files of each.
const SERIES_AT_ONCE: usize = 4;
const FILES_AT_ONCE: usize = 16;
/// How long all files of one listing may take. Those left then count as files that cannot be read.
const LISTING_LIMIT: Duration = Duration::from_secs(300);
/// Files that are read to see whether the store returns any.
const WITNESSES: usize = 4;
/// Files that cannot be read and that one listing names in the log.
const MAX_LOGGED: usize = 5;
/// Bytes that begin nothing, in place of those that cannot be read.
const NOTHING: &[u8] = b"\0";

/// Series that certainly are pieces of one backup, and the objects that are not, or may not be.
#[derive(Default)]
pub(super) struct Sorted {
    pub series: Vec<Series>,
    pub others: Vec<StoredObject>,
    pub unclear: Vec<UnclearSeries>,
}

/// Files that are not taken for pieces, and may be pieces nevertheless: one of them cannot be read.
pub(super) struct UnclearSeries {
    pub name: String,
    pub files: Vec<String>,
    pub unread: String,
}

/// How many of some files are pieces.
enum PieceCount<'a> {
    /// So many certainly are pieces of one backup, 2 or more.
    Certain(usize),
    /// It is not certain that there are two.
    None,
    /// Nor is it certain that there are none among these, because one of them cannot be read.
    Unclear {
        files: &'a [StoredObject],
        unread: &'a StoredObject,
    },
}

/// What a file is to the files before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileKind {
    /// As its bytes say.
    Known(Continuation),
    /// It has no bytes: what follows it decides.
    Empty,
    /// The store does not return its bytes, or they have changed since the listing.
    Unreadable,
}

/// Takes those series apart that are not certain: whose first file does not begin like a backup, or behind which no
/// file goes on with it. What goes on ends where a file is a whole backup, or with the last file that is not empty.
///
/// A file that nobody can read makes no listing fail: anybody who may add files could add one. `others` are what else is
/// in the listing.
///
/// # Errors
/// The store's own, where another attempt may help and the store returns no other file either.
pub(super) async fn sort_by_content(
    store: &dyn BackupStore,
    candidates: Vec<Series>,
    others: &[StoredObject],
) -> Result<Sorted, StorageError> {
    let files = &Files {
        store,
        deadline: Instant::now() + LISTING_LIMIT,
        unreadable: Mutex::default(),
    };
    let looked_at = futures::stream::iter(candidates).map(|series| async move {
        let (count, unclear) = match files.count_pieces(&series.pieces).await {
            PieceCount::Certain(count) => (count, None),
            PieceCount::None => (0, None),
            PieceCount::Unclear { files, unread } => {
                (0, Some(UnclearSeries::new(&series.name, files, unread)))
            }
        };
        (series.split_at(count), unclear)
    });
    let mut looked_at = std::pin::pin!(looked_at.buffered(SERIES_AT_ONCE));
    let mut sorted = Sorted::default();
    while let Some(((series, apart), unclear)) = looked_at.next().await {
        if !series.pieces.is_empty() {
            sorted.series.push(series);
        }
        sorted.others.extend(apart);
        sorted.unclear.extend(unclear);
    }
    let pieces = sorted.series.iter().flat_map(|s| &s.pieces);
    // First what is not called like a piece: whoever adds files that cannot be read adds whole series of them.
    let first = others.iter().filter(|o| o.size > 0).take(WITNESSES / 2);
    let all = first.chain(pieces).chain(&sorted.others).chain(others);
    files.check_store(all).await?;
    Ok(sorted)
}

impl UnclearSeries {
    fn new(name: &str, files: &[StoredObject], unread: &StoredObject) -> Self {
        UnclearSeries {
            name: name.to_owned(),
            files: files.iter().map(|f| f.name.clone()).collect(),
            unread: unread.name.clone(),
        }
    }
}

/// The files of one listing.
struct Files<'a> {
    store: &'a dyn BackupStore,
    deadline: Instant,
    unreadable: Mutex<UnreadFiles>,
}

/// Files that could not be read; of any number of errors, one is kept.
#[derive(Default)]
struct UnreadFiles {
    names: HashSet<String>,
    /// The first error where another attempt may help.
    may_pass: Option<StorageError>,
}

impl UnreadFiles {
    fn add(&mut self, name: &str, error: StorageError) {
        if self.names.insert(name.to_owned()) && self.names.len() <= MAX_LOGGED {
            tracing::warn!(
                name,
                error = report(&error),
                "a file that is named like a piece of a backup cannot be read"
            );
        }
        if error.reason().retry_class() == RetryClass::Transient {
            self.may_pass.get_or_insert(error);
        }
    }
}

impl Files<'_> {
    async fn count_pieces<'a>(&self, files: &'a [StoredObject]) -> PieceCount<'a> {
        let Some((first, [_, ..])) = files.split_first() else {
            return PieceCount::None;
        };
        let Some(head) = self.head_of(first).await else {
            return PieceCount::Unclear {
                files,
                unread: first,
            };
        };
        if !is_recognized(&head) {
            return PieceCount::None;
        }
        let mut kinds = std::pin::pin!(self.file_kinds(files, &head).enumerate());
        let (mut count, mut unread, mut end) = (1, None, files.len());
        while let Some((before, kind)) = kinds.next().await {
            match kind {
                FileKind::Empty => {}
                // Where a piece follows, it is one.
                FileKind::Unreadable if count == 1 => unread = unread.or(files.get(before + 1)),
                // Behind a piece it is taken for one: nothing that may be a part of the backup is cut off in silence.
                FileKind::Unreadable | FileKind::Known(Continuation::Piece) => count = before + 2,
                // Neither it nor what is behind it is a piece.
                FileKind::Known(Continuation::Whole) => {
                    end = before + 1;
                    break;
                }
                FileKind::Known(Continuation::Unclear) => {
                    count = 1;
                    break;
                }
            }
        }
        match unread {
            _ if count > 1 => PieceCount::Certain(count),
            Some(unread) => PieceCount::Unclear {
                files: &files[..end],
                unread,
            },
            None => PieceCount::None,
        }
    }

    /// Checks that the store returns any of `all` files, if another attempt might have read one that it did not return.
    async fn check_store(
        &self,
        all: impl Iterator<Item = &StoredObject>,
    ) -> Result<(), StorageError> {
        let UnreadFiles { names, may_pass } = std::mem::take(&mut *self.unreadable.lock());
        let Some(error) = may_pass else {
            return Ok(());
        };
        let is_witness = |o: &&StoredObject| o.size > 0 && !names.contains(&o.name);
        let witnesses: Vec<StoredObject> =
            all.filter(is_witness).take(WITNESSES).cloned().collect();
        let mut read = futures::stream::iter(witnesses)
            .map(|o| async move { head_of(self.store, &o).await.is_ok() })
            .buffer_unordered(WITNESSES);
        while let Some(is_read) = read.next().await {
            if is_read {
                return Ok(());
            }
        }
        Err(error)
    }

    /// What each file but the first one is.
    fn file_kinds<'a>(
        &'a self,
        files: &'a [StoredObject],
        first: &'a [u8],
    ) -> impl Stream<Item = FileKind> + 'a {
        futures::stream::iter(1..files.len())
            .map(move |at| self.file_kind(files, at, first))
            .buffered(FILES_AT_ONCE)
    }

    async fn file_kind(&self, files: &[StoredObject], at: usize, first: &[u8]) -> FileKind {
        let (before, file) = (&files[..at], &files[at]);
        if file.size == 0 {
            return FileKind::Empty;
        }
        let head = self.head_of(file).await;
        if let Some(head) = &head
            && has_extension(&file.name)
            && is_own_backup(first, head)
        {
            return FileKind::Known(Continuation::Whole);
        }
        let before = before.iter().rfind(|f| f.size > 0);
        let tail = match before.filter(|_| shows_its_end(first)) {
            Some(before) => self.tail_of(before).await.unwrap_or_default(),
            None => vec![],
        };
        match head {
            Some(head) => FileKind::Known(continuation(first, &tail, &head)),
            // What is before it may be complete.
            None if continuation(first, &tail, NOTHING) == Continuation::Whole => {
                FileKind::Known(Continuation::Whole)
            }
            None => FileKind::Unreadable,
        }
    }

    async fn head_of(&self, file: &StoredObject) -> Option<Vec<u8>> {
        self.or_unreadable(file, head_of(self.store, file)).await
    }

    async fn tail_of(&self, file: &StoredObject) -> Option<Vec<u8>> {
        let begin = file.size.saturating_sub(TAIL_BYTES as u64);
        self.or_unreadable(file, read_range(self.store, file, begin..file.size))
            .await
    }

    /// `None` for a file that the store does not return in time, also after several attempts.
    async fn or_unreadable(
        &self,
        file: &StoredObject,
        read: impl Future<Output = Result<Vec<u8>, StorageError>>,
    ) -> Option<Vec<u8>> {
        let late = |_| {
            let name = self.store.uri(&file.name);
            let what = format!(
                "{name}: not read, because the files that are named like pieces take more than {LISTING_LIMIT:?}"
            );
            Err(StorageError::new(StorageKind::DownloadFailed, what))
        };
        let read = tokio::time::timeout_at(self.deadline, read).await;
        match read.unwrap_or_else(late) {
            Ok(bytes) => return Some(bytes),
            Err(e) if matches!(e.kind(), StorageKind::NotFound | StorageKind::Changed) => {}
            Err(e) => self.unreadable.lock().add(&file.name, e),
        }
        None
    }
}

/// The first bytes of a file, which are enough to tell what it is.
pub(crate) async fn head_of(
    store: &dyn BackupStore,
    file: &StoredObject,
) -> Result<Vec<u8>, StorageError> {
    read_range(store, file, 0..HEAD_BYTES as u64).await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LISTING_LIMIT, UnreadFiles};
    use crate::backup::backups_of;
    use crate::error::{StorageError, StorageKind as S};
    use crate::store::BackupStore;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

    /// Very many files whose reads stall do not hold a listing for hours.
    #[tokio::test(start_paused = true)]
    async fn the_files_of_a_listing_are_read_within_a_time_limit() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..60 {
            for count in ["aa", "ab"] {
                let name = format!("x{n:02}.dump.{count}");
                std::fs::write(folder.path().join(name), b"PGDMP\x01").unwrap();
            }
        }
        std::fs::write(folder.path().join("good.dump"), b"PGDMP\x01").unwrap();
        let store = FaultyStore::at(folder.path());
        store.fail(Call::Read, "x", StoreFault::Stall, 99_999);
        let objects = store.list("").await.unwrap();
        let begin = tokio::time::Instant::now();
        let all = backups_of(&store, objects, None).await.unwrap();
        let took = begin.elapsed();
        assert!(took <= LISTING_LIMIT + Duration::from_secs(1), "{took:?}");
        // None is left out.
        assert_eq!(all.len(), 121);
    }

    /// The names and sizes of the backups in a folder with these files.
    async fn backups(files: &[(&str, &[u8])]) -> Vec<(String, u64)> {
        backups_where(files, &[]).await.unwrap()
    }

    /// The same, where reads of some files always fail.
    async fn backups_where(
        files: &[(&str, &[u8])],
        unreadable: &[(&str, S)],
    ) -> Result<Vec<(String, u64)>, S> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let store = FaultyStore::at(folder.path());
        for (name, kind) in unreadable {
            store.fail(Call::Read, name, StoreFault::Error(*kind), 99);
        }
        let objects = store.list("").await.unwrap();
        let all = backups_of(&store, objects, None).await;
        let all = all.map_err(|e| e.kind())?.into_iter();
        Ok(all.map(|o| (o.name, o.size)).collect())
    }

    fn names(found: &[(String, u64)]) -> Vec<&str> {
        found.iter().map(|(name, _)| name.as_str()).collect()
    }

    const TEXT: &str = "--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t (a int);\n\n\
         --\n-- PostgreSQL database dump complete\n--\n\n";

    fn tar(path: &str, size: usize) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(size as u64);
        header.set_mode(0o600);
        builder
            .append_data(&mut header, path, &vec![b'x'; size][..])
            .unwrap();
        builder.into_inner().unwrap()
    }

    /// Whatever kind they are of, and whatever stands before their first statement.
    #[tokio::test]
    async fn rotated_dumps_are_backups_of_their_own() {
        let crlf = TEXT.replace('\n', "\r\n");
        let bom = format!("\u{feff}{TEXT}");
        let warned =
            format!("pg_dump: warning: there are circular foreign-key constraints\n{TEXT}");
        let set = format!("SET session_replication_role = replica;\n{TEXT}");
        let without_comments = "SET statement_timeout = 0;\n\nCREATE TABLE public.t (a int);\n";
        let cluster = TEXT.replace("database dump", "database cluster dump");
        let (tar, packed) = (tar("toc.dat", 600), tar("n/3001.dat.gz", 600));
        for whole in [
            &b"PGDMP\x01\x0e\0"[..],
            b"PGDMP\x01\x0e\0\x04\x08\x01\0",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
            b"\x28\xb5\x2f\xfd",
            b"BZh91AY&SY",
            b"age-encryption.org/v1\n",
            TEXT.as_bytes(),
            crlf.as_bytes(),
            bom.as_bytes(),
            warned.as_bytes(),
            set.as_bytes(),
            without_comments.as_bytes(),
            cluster.as_bytes(),
            &tar,
            &packed,
        ] {
            let size = whole.len() as u64;
            let found = backups(&[("db.001", whole), ("db.002", whole), ("db.003", whole)]).await;
            assert_eq!(
                found,
                ["db.001", "db.002", "db.003"].map(|n| (n.to_owned(), size)),
                "{}",
                whole[..whole.len().min(40)].escape_ascii()
            );
        }
        // Of different kinds, as after a change of the job.
        let mixed: &[(&str, &[u8])] = &[
            ("db.001", b"PGDMP\x01"),
            ("db.002", TEXT.as_bytes()),
            ("db.003", &tar),
        ];
        assert_eq!(names(&backups(mixed).await), ["db.001", "db.002", "db.003"]);
    }

    /// What begins in the middle of something is a piece, whatever its size.
    #[tokio::test]
    async fn what_goes_on_is_a_piece() {
        let (head, rest) = TEXT.split_at(60);
        let (lines, row) = ("INSERT INTO t VALUES (1);\n", "1\t2\n");
        let (tar, gzip) = (tar("toc.dat", 5000), b"\x1f\x8b\x08\0\0\0\0\0\0\x03xyz");
        // A member of a tar begins on a boundary of blocks, as a piece may.
        let aligned = tar[..1024].to_vec();
        for (first, piece) in [
            (&b"PGDMP\x01"[..], &b"\x01\x02\x03\x04"[..]),
            (b"PGDMP\x01", b"PGDMP\x01\x0e\0\x04\x08\x03"),
            (head.as_bytes(), rest.as_bytes()),
            (head.as_bytes(), lines.as_bytes()),
            (head.as_bytes(), row.as_bytes()),
            (lines.as_bytes(), b"x', 2);\n"),
            // Text is complete, and only its last lines follow.
            (TEXT.as_bytes(), b"\\unrestrict abc\n\n"),
            (gzip, b"xyz"),
            // Three bytes that begin like gzip's, and cannot be its header.
            (gzip, b"\x1f\x8b\x08\xff"),
            (&aligned, &self::tar("3001.dat", 10)),
        ] {
            let found = backups(&[("db.00", first), ("db.01", piece)]).await;
            let size = (first.len() + piece.len()) as u64;
            assert_eq!(
                found,
                [("db".to_owned(), size)],
                "{}",
                piece[..piece.len().min(40)].escape_ascii()
            );
        }
        // `split -n` makes the first pieces longer, `split -l` makes them of any size.
        let all: &[(&str, &[u8])] = &[
            ("x.aa", b"PGDMP\x01__"),
            ("x.ab", b"________"),
            ("x.ac", b"___"),
            ("x.ad", b"_______"),
            ("x.ae", b"_"),
        ];
        assert_eq!(backups(all).await, [("x".to_owned(), 27)]);
    }

    /// A piece may end with the zeros of a large object, where the next one begins with a member.
    #[tokio::test]
    async fn zeros_before_a_member_end_no_tar() {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in [
            ("toc.dat", vec![b'x'; 600]),
            ("blob_16385.dat", vec![0; 4096]),
            ("blob_16386.dat", vec![b'y'; 10]),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, &bytes[..]).unwrap();
        }
        let whole = builder.into_inner().unwrap();
        // Behind two headers, the table of contents and the zeros.
        let (first, last) = whole.split_at(2 * 512 + 1024 + 4096);
        let files: &[(&str, &[u8])] = &[("x.tar.aa", first), ("x.tar.ab", last)];
        let found = backups(files).await;
        assert_eq!(found, [("x.tar".to_owned(), whole.len() as u64)]);
    }

    /// Somebody who may add files makes none disappear.
    #[tokio::test]
    async fn a_file_with_a_name_of_its_own_stays() {
        let gzip: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03_";
        let letters = |n: usize| {
            let of = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
            format!("nightly.{}{}", of(n / 26), of(n))
        };
        for (step, first) in [
            (1, gzip),
            (1, &b"PGDMP\x01"[..]),
            (4, b"x"),
            (4, b"PGDMP\x01"),
            (1, b""),
        ] {
            let names: Vec<String> = (0..=200).step_by(step).map(letters).collect();
            let mut files: Vec<(&str, &[u8])> = names
                .iter()
                .filter(|n| *n != "nightly.gz")
                .map(|n| (n.as_str(), if n == "nightly.aa" { first } else { b"x" }))
                .collect();
            files.push(("nightly.gz", gzip));
            let found = backups(&files).await;
            assert!(
                found.contains(&("nightly.gz".to_owned(), gzip.len() as u64)),
                "{step}"
            );
        }
        // A complete text or tar that is called like a first piece, and what is empty.
        for (whole, more) in [
            (TEXT.as_bytes(), &b"DROP TABLE t;"[..]),
            (&tar("toc.dat", 10), &tar("x", 1)),
            (gzip, b""),
        ] {
            let found = backups(&[("x.00", whole), ("x.01", more)]).await;
            assert_eq!(names(&found), ["x.00", "x.01"]);
        }
        // What is behind the pieces and is not one of them leaves them what they are.
        for more in [&b"PGDMP\x01"[..], TEXT.as_bytes(), b""] {
            let files: &[(&str, &[u8])] = &[("x.aa", b"PGDMP\x01"), ("x.ab", b"_"), ("x.ac", more)];
            assert_eq!(names(&backups(files).await), ["x", "x.ac"]);
        }
    }

    /// `split -n l/N` makes an empty piece where a line is longer than a piece.
    #[tokio::test]
    async fn an_empty_piece_between_others_cuts_nothing_off() {
        let (head, rest) = TEXT.split_at(60);
        let bare = b"SET statement_timeout = 0;\nINSERT INTO t VALUES (1, '".as_slice();
        for (first, last) in [
            (b"PGDMP\x01".as_slice(), b"_".as_slice()),
            (head.as_bytes(), rest.as_bytes()),
            (bare, b"x');\n"),
        ] {
            let files: &[(&str, &[u8])] = &[
                ("x.aa", first),
                ("x.ab", b""),
                ("x.ac", last),
                ("x.ad", b""),
                ("x.ae", b""),
            ];
            let size = (first.len() + last.len()) as u64;
            let found = backups(files).await;
            assert_eq!(names(&found), ["x", "x.ad", "x.ae"]);
            assert_eq!(found[0].1, size);
        }
        // What is complete stays so, whatever follows behind an empty file.
        let files: &[(&str, &[u8])] = &[
            ("x.aa", head.as_bytes()),
            ("x.ab", rest.as_bytes()),
            ("x.ac", b""),
            ("x.ad", b"DROP TABLE t;"),
        ];
        assert_eq!(names(&backups(files).await), ["x", "x.ac", "x.ad"]);
    }

    /// Whoever may add a file that nobody can read hides no backup and stops no listing.
    #[tokio::test]
    async fn an_unreadable_file_is_left_apart() {
        let gzip: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03_";
        let custom: &[u8] = b"PGDMP\x01";
        let (head, rest) = TEXT.split_at(60);
        for kind in [S::CallRejected, S::AccessDenied, S::OutsideFolder] {
            // Alone, and the second of what may be backups of their own.
            for (unreadable, files) in [
                ("zz.aa", ["a.gz", "zz.aa", "zz.ab"]),
                ("zz.ab", ["a.gz", "zz.aa", "zz.ab"]),
            ] {
                let files = files.map(|name| (name, gzip));
                let found = backups_where(&files, &[(unreadable, kind)]).await.unwrap();
                assert_eq!(names(&found), ["a.gz", "zz.aa", "zz.ab"], "{kind:?}");
            }
            // Behind the pieces it is counted, and found when they are read.
            let files = [
                ("x.aa", custom),
                ("x.ab", b"__".as_slice()),
                ("x.ac", b"___"),
                ("x.ad", b"____"),
            ];
            let found = backups_where(&files, &[("x.ac", kind)]).await.unwrap();
            assert_eq!(found, [("x".to_owned(), 15)]);
            // Not behind a text that is complete.
            let files = [
                ("x.aa", head.as_bytes()),
                ("x.ab", rest.as_bytes()),
                ("x.ac", b"x".as_slice()),
            ];
            let found = backups_where(&files, &[("x.ac", kind)]).await.unwrap();
            assert_eq!(names(&found), ["x", "x.ac"]);
        }
    }

    /// A store that is not available says nothing about any file; one that returns others does.
    #[tokio::test(start_paused = true)]
    async fn a_listing_fails_where_no_file_can_be_read() {
        let files: &[(&str, &[u8])] = &[("x.aa", b"PGDMP\x01"), ("x.ab", b"_")];
        let fault = S::DownloadFailed;
        for name in ["x.aa", "x.ab"] {
            let listed = backups_where(files, &[(name, fault)]).await.unwrap();
            assert_eq!(names(&listed), ["x.aa", "x.ab"], "{name}");
        }
        let both = [("x.aa", fault), ("x.ab", fault)];
        assert_eq!(backups_where(files, &both).await, Err(fault));
        // Another one may be anything that is not empty.
        for (other, bytes, is_listed) in [("a.txt", &b"notes"[..], true), ("a.txt", b"", false)] {
            let files = [files, &[(other, bytes)]].concat();
            let listed = backups_where(&files, &both).await;
            let listed = listed.map(|found| names(&found).join(" "));
            let all = "a.txt x.aa x.ab".to_owned();
            assert_eq!(listed, if is_listed { Ok(all) } else { Err(fault) });
        }
    }

    /// Whoever may add files decides how many cannot be read.
    #[test]
    fn of_many_unreadable_files_one_error_is_kept() {
        let mut unread = UnreadFiles::default();
        for (name, kind) in [
            ("a", S::AccessDenied),
            ("b", S::DownloadFailed),
            ("b", S::DownloadFailed),
            ("c", S::DownloadFailed),
        ] {
            unread.add(name, StorageError::new(kind, name));
        }
        assert_eq!(unread.names.len(), 3);
        assert_eq!(unread.may_pass.unwrap().to_string(), "b");
    }

    /// The second one cannot be read: what follows it decides.
    #[tokio::test(start_paused = true)]
    async fn an_unreadable_file_before_a_piece_is_a_piece() {
        let whole: &[u8] = b"PGDMP\x01";
        for kind in [S::AccessDenied, S::CallRejected, S::DownloadFailed] {
            for (third, backups) in [
                (&b"_"[..], &[("x", 13)][..]),
                (b"", &[("x.aa", 6), ("x.ab", 6), ("x.ac", 0)]),
                (whole, &[("x.aa", 6), ("x.ab", 6), ("x.ac", 6)]),
            ] {
                let files = [("x.aa", whole), ("x.ab", b"______"), ("x.ac", third)];
                let found = backups_where(&files, &[("x.ab", kind)]).await.unwrap();
                let found: Vec<_> = found.iter().map(|(n, size)| (n.as_str(), *size)).collect();
                assert_eq!(found, backups, "{kind:?}");
            }
        }
        // An empty one and another unreadable one between them are pieces, too.
        let files = [
            ("x.aa", whole),
            ("x.ab", b"_".as_slice()),
            ("x.ac", b""),
            ("x.ad", b"_"),
            ("x.ae", b"_"),
        ];
        let unreadable = ["x.ab", "x.ad"].map(|name| (name, S::AccessDenied));
        let found = backups_where(&files, &unreadable).await.unwrap();
        assert_eq!(found, [("x".to_owned(), 9)]);
    }

    /// A piece that is overwritten or deleted during the listing ends no series: reading it says that it has changed.
    #[tokio::test]
    async fn a_piece_that_changes_meanwhile_cuts_nothing_off() {
        let bare = b"SET statement_timeout = 0;\nINSERT INTO t VALUES (1, '".as_slice();
        let files = [
            ("x.aa", bare),
            ("x.ab", b"a', 2), (2, '".as_slice()),
            ("x.ac", b"b', 2), (2, '"),
            ("x.ad", b"x');\n"),
        ];
        let all = backups(&files).await;
        for kind in [S::Changed, S::NotFound] {
            for gone in ["x.ab", "x.ac", "x.ad"] {
                let found = backups_where(&files, &[(gone, kind)]).await.unwrap();
                assert_eq!(found, all, "{gone}");
            }
            // It is not certain any more that there are pieces.
            let found = backups_where(&files, &[("x.aa", kind)]).await.unwrap();
            assert_eq!(names(&found), ["x.aa", "x.ab", "x.ac", "x.ad"]);
        }
    }

    /// More than 181 pieces: one of them is called like a compressed file.
    #[tokio::test]
    async fn a_count_may_look_like_an_extension() {
        let letters = |n: u8| {
            format!(
                "x.{}{}",
                char::from(b'a' + n / 26),
                char::from(b'a' + n % 26)
            )
        };
        let names: Vec<String> = (0..190).map(letters).collect();
        let files: Vec<(&str, &[u8])> = names
            .iter()
            .map(|n| {
                (
                    n.as_str(),
                    if n == "x.aa" { b"PGDMP\x01" } else { &b"_"[..] },
                )
            })
            .collect();
        assert_eq!(backups(&files).await, [("x".to_owned(), 195)]);
    }

    /// Nothing is a series whose first file is no backup, or where it may be one of statements alone.
    #[tokio::test]
    async fn what_is_not_certain_is_left_apart() {
        for (first, second) in [
            (&b"notes"[..], &b"more notes"[..]),
            (
                b"INSERT INTO t VALUES (1);\n",
                b"INSERT INTO t VALUES (2);\n",
            ),
            (b"CREATE TABLE t (a int);\n", b"INSERT INTO t VALUES (2);\n"),
        ] {
            let found = backups(&[("x.aa", first), ("x.ab", second)]).await;
            assert_eq!(names(&found), ["x.aa", "x.ab"]);
        }
    }
}

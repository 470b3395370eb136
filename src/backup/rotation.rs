//! Files whose names are counted (`db.00`, `db.01`): the pieces of one backup, or whole backups. Only their bytes tell.

use futures::{Stream, StreamExt, TryStreamExt};
use pgdump_archive::{
    Continuation, HEAD_BYTES, TAIL_BYTES, continuation, is_own_backup, is_recognized, shows_its_end,
};

use super::pieces::{Series, has_extension};
use crate::error::{FailureReason as R, StorageError};
use crate::store::{BackupStore, StoredObject};

/// Series that are looked into at the same time, and files of each.
const SERIES_AT_ONCE: usize = 4;
const FILES_AT_ONCE: usize = 16;

/// Series that certainly are pieces of one backup, and the objects that are not, or may not be.
#[derive(Default)]
pub(super) struct Sorted {
    pub series: Vec<Series>,
    pub others: Vec<StoredObject>,
}

/// Takes those series apart that are not certain: whose first file does not begin like a backup, or behind which no
/// file goes on with it. What goes on ends where a file is a whole backup, or where one is empty.
///
/// # Errors
/// The store's own.
pub(super) async fn sort_by_content(
    store: &dyn BackupStore,
    candidates: Vec<Series>,
) -> Result<Sorted, StorageError> {
    let looked_at = futures::stream::iter(candidates).map(|series| async move {
        let certain = count_pieces(store, &series.pieces).await?;
        Ok::<_, StorageError>(series.split_at(certain))
    });
    let looked_at = looked_at.buffered(SERIES_AT_ONCE);
    looked_at
        .try_fold(Sorted::default(), |mut sorted, (series, others)| async {
            if series.pieces.is_empty() {
                sorted.others.extend(others);
                return Ok(sorted);
            }
            sorted.series.push(series);
            sorted.others.extend(others);
            Ok(sorted)
        })
        .await
}

/// How many of these files are certainly the pieces of one backup; 0 where it is not certain that there are two.
async fn count_pieces(
    store: &dyn BackupStore,
    files: &[StoredObject],
) -> Result<usize, StorageError> {
    let Some((first, [_, ..])) = files.split_first() else {
        return Ok(0);
    };
    let head = head_of(store, first).await?;
    if !is_recognized(&head) {
        return Ok(0);
    }
    let mut kinds = std::pin::pin!(kinds_of(store, files, &head));
    let mut count = 1;
    while let Some(kind) = kinds.try_next().await? {
        match kind {
            Continuation::Piece => count += 1,
            Continuation::Whole => break,
            Continuation::Unclear => return Ok(0),
        }
    }
    Ok(if count < 2 { 0 } else { count })
}

/// What each file but the first one is.
fn kinds_of<'a>(
    store: &'a dyn BackupStore,
    files: &'a [StoredObject],
    first: &'a [u8],
) -> impl Stream<Item = Result<Continuation, StorageError>> + 'a {
    let kind = move |pair: &'a [StoredObject]| async move {
        let [before, file] = pair else {
            return Ok(Continuation::Unclear);
        };
        let head = head_of(store, file).await?;
        if has_extension(&file.name) && is_own_backup(first, &head) {
            return Ok(Continuation::Whole);
        }
        let tail = if shows_its_end(first) {
            tail_of(store, before).await?
        } else {
            vec![]
        };
        Ok(continuation(first, &tail, &head))
    };
    futures::stream::iter(files.windows(2))
        .map(kind)
        .buffered(FILES_AT_ONCE)
}

pub(super) async fn head_of(
    store: &dyn BackupStore,
    object: &StoredObject,
) -> Result<Vec<u8>, StorageError> {
    read(store, object, 0, HEAD_BYTES as u64).await
}

async fn tail_of(store: &dyn BackupStore, object: &StoredObject) -> Result<Vec<u8>, StorageError> {
    let begin = object.size.saturating_sub(TAIL_BYTES as u64);
    read(store, object, begin, TAIL_BYTES as u64).await
}

/// Bytes of an object; none of one that has gone since it was listed.
async fn read(
    store: &dyn BackupStore,
    object: &StoredObject,
    offset: u64,
    most: u64,
) -> Result<Vec<u8>, StorageError> {
    if object.size == 0 {
        return Ok(vec![]);
    }
    let read = async {
        let mut stream = store.read(object, offset, Some(most)).await?;
        let mut bytes = Vec::new();
        while let Some(more) = stream.try_next().await? {
            bytes.extend_from_slice(&more);
        }
        Ok::<_, StorageError>(bytes)
    };
    match read.await {
        Err(e) if matches!(e.reason(), R::BackupNotFound | R::BackupChanged) => Ok(vec![]),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use crate::backup::backups_of;
    use crate::config::Location;
    use crate::store::Stores;

    /// The names and sizes of the backups in a folder with these files.
    async fn backups(files: &[(&str, &[u8])]) -> Vec<(String, u64)> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let store = Stores::new(None)
            .at(&Location::Folder(folder.path().to_owned()))
            .await
            .unwrap();
        let all = backups_of(store.as_ref(), store.list("").await.unwrap())
            .await
            .unwrap();
        all.into_iter().map(|o| (o.name, o.size)).collect()
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

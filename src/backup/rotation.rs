//! Detects rotated backups whose names are numbered like the pieces of a split file (`db.00`, `db.01`). Only their
//! first bytes show the difference.

use futures::{StreamExt, TryStreamExt};
use pgdump_archive::begins_whole_file;

use super::FoundBackup;
use crate::error::StorageError;
use crate::store::{BackupStore, StoredObject};

/// How many bytes of a file are enough to recognise its format.
const HEAD_BYTES: u64 = 512;
/// How many files are read at once.
const CONCURRENT_READS: usize = 16;

/// Splits series whose second piece begins a file of its own: each of their pieces is a backup.
///
/// # Errors
/// Errors of the store.
pub(super) async fn separate_whole_files(
    store: &dyn BackupStore,
    found: Vec<FoundBackup>,
) -> Result<Vec<FoundBackup>, StorageError> {
    let separated = futures::stream::iter(found).map(|found| async move {
        let Some(second) = found.series.as_ref().and_then(|s| s.pieces.get(1)) else {
            return Ok(vec![found]);
        };
        if !begins_whole_file(&head_of(store, second).await?) {
            return Ok(vec![found]);
        }
        let pieces = found.series.into_iter().flat_map(|s| s.pieces);
        Ok(pieces
            .map(|object| FoundBackup {
                object,
                series: None,
            })
            .collect())
    });
    let all: Vec<Vec<FoundBackup>> = separated.buffered(CONCURRENT_READS).try_collect().await?;
    Ok(all.into_iter().flatten().collect())
}

async fn head_of(store: &dyn BackupStore, object: &StoredObject) -> Result<Vec<u8>, StorageError> {
    let mut stream = store.read(object, 0, Some(HEAD_BYTES)).await?;
    let mut head = Vec::new();
    while let Some(bytes) = stream.try_next().await? {
        head.extend_from_slice(&bytes);
    }
    Ok(head)
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

    #[tokio::test]
    async fn rotated_dumps_are_separate_backups() {
        let text = b"--\n-- PostgreSQL database dump\n--\n";
        for whole in [
            &b"PGDMP\x01\x0e\0"[..],
            b"\x1f\x8b\x08\0",
            b"\x28\xb5\x2f\xfd",
            text,
        ] {
            let size = whole.len() as u64;
            let found = backups(&[("db.00", whole), ("db.01", whole), ("db.02", whole)]).await;
            assert_eq!(
                found,
                ["db.00", "db.01", "db.02"].map(|n| (n.to_owned(), size))
            );
        }
        // A file that begins in the middle of something is a piece.
        for piece in [
            &b"\x01\x02\x03\x04"[..],
            b"INSERT INTO t VALUES (1);\n",
            b"1\t2\n",
            b"",
        ] {
            let found = backups(&[("db.00", b"PGDMP"), ("db.01", piece)]).await;
            assert_eq!(found, [("db".to_owned(), 5 + piece.len() as u64)]);
        }
    }
}

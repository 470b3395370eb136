//! Free disk space of a server whose data directory is on this machine. PostgreSQL does not report it, and stops every
//! session when its WAL does not fit any more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{DatabaseError, DatabaseKind, FailureReason, RestoreError};
use crate::postgres::Session;

/// How often the free space is looked at during a restore.
const LOOK: Duration = Duration::from_millis(250);

/// Whether the server may be on this machine, and says where its files are: to superusers, for example.
const MAY_ASK: &str = "SELECT coalesce(inet_server_addr() = inet_client_addr(), true)
    AND has_function_privilege('pg_stat_file(text)', 'EXECUTE') AND pg_has_role('pg_read_all_settings', 'USAGE')";

/// The data directory, and when it was changed last, in seconds since 1970.
const DATA_DIRECTORY: &str = "SELECT current_setting('data_directory'),
    extract(epoch FROM (pg_stat_file('.')).modification)::int8";

/// The file systems that a server of this machine writes to.
#[derive(Debug, Clone)]
pub struct ServerDisk {
    data_directory: PathBuf,
}

impl ServerDisk {
    /// `None` if the data directory is on another machine, or this role may not ask where it is.
    pub async fn of(session: &Session) -> Option<Self> {
        let ask = async |sql| session.client().query_one(sql, &[]).await.ok();
        if !ask(MAY_ASK).await?.get::<_, bool>(0) {
            return None;
        }
        let row = ask(DATA_DIRECTORY).await?;
        let data_directory = PathBuf::from(row.get::<_, String>(0));
        // The server of a container may have a directory of the same name.
        let is_same = std::fs::metadata(&data_directory).ok()?.mtime() == row.get::<_, i64>(1);
        is_same.then_some(ServerDisk { data_directory })
    }

    /// Free bytes where rows or where WAL is written, whichever are fewer.
    pub fn free(&self) -> Option<u64> {
        let of_rows = free_bytes(&self.data_directory)?;
        let of_wal = free_bytes(&self.data_directory.join("pg_wal"));
        Some(of_wal.map_or(of_rows, |of_wal| of_wal.min(of_rows)))
    }

    /// The error for less free space than `reserve`, in bytes; `None` if there is more.
    pub fn shortage(&self, reserve: u64) -> Option<DatabaseError> {
        let free = self.free().filter(|free| *free < reserve)?;
        let what = format!(
            "the target server's disk is almost full: {} MiB are free in {}, and {} MiB must stay free \
             (RESTORE_MIN_FREE_MIB): free disk space, or give the server more",
            free >> 20,
            self.data_directory.display(),
            reserve >> 20
        );
        Some(DatabaseError::new(DatabaseKind::InsufficientSpace, what))
    }
}

/// Returns when less than `reserve` bytes are free. Pending for ever if that is not known.
pub async fn out_of_space(disk: Option<&ServerDisk>, reserve: u64) -> RestoreError {
    let Some(disk) = disk else {
        return std::future::pending().await;
    };
    loop {
        if let Some(e) = disk.shortage(reserve) {
            return e.into();
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `e`, or the shortage of space that explains why the server is not available any more.
pub fn unless_full(disk: Option<&ServerDisk>, reserve: u64, e: RestoreError) -> RestoreError {
    if e.reason() != FailureReason::TargetUnavailable {
        return e;
    }
    match disk.and_then(|d| d.shortage(reserve)) {
        Some(shortage) => shortage.with_source(e).into(),
        None => e,
    }
}

/// Free bytes for programs without privileges on the file system that contains a folder.
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let s = rustix::fs::statvfs(folder).ok()?;
    Some(s.f_bavail * s.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost() -> RestoreError {
        DatabaseError::new(DatabaseKind::Unavailable, "the connection was closed").into()
    }

    #[tokio::test]
    async fn a_full_disk_explains_a_lost_server() {
        let folder = tempfile::tempdir().unwrap();
        let disk = ServerDisk {
            data_directory: folder.path().to_owned(),
        };
        let reason = |disk, reserve| unless_full(disk, reserve, lost()).reason();
        assert_eq!(
            reason(Some(&disk), u64::MAX),
            FailureReason::InsufficientSpace
        );
        assert_eq!(reason(Some(&disk), 0), FailureReason::TargetUnavailable);
        assert_eq!(reason(None, u64::MAX), FailureReason::TargetUnavailable);
        let rejected = DatabaseError::new(DatabaseKind::DataRejected, "a key").into();
        let kept = unless_full(Some(&disk), u64::MAX, rejected);
        assert_eq!(kept.reason(), FailureReason::DataRejected);
        let ended = out_of_space(Some(&disk), u64::MAX).await;
        assert!(
            ended.to_string().contains("RESTORE_MIN_FREE_MIB"),
            "{ended}"
        );
    }
}

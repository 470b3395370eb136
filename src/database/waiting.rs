//! Restores that wait for their next attempt: their databases are kept, and nobody works on them.

use std::time::Duration;

use super::advisory_locks::{try_lock, unlock};
use super::journal::Journal;
use super::work_rows::KeptWorkRow;
use crate::error::RestoreError;
use crate::postgres::Server;

/// A restore whose work is kept for its next attempt.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct WaitingRestore {
    /// The database that holds what is loaded.
    pub database: String,
    pub target: String,
    pub request_id: String,
    /// A person kept it (`--keep-progress`) and continues it; otherwise it continues when its request is delivered again.
    pub by_command: bool,
    /// Uncompressed bytes that are loaded.
    pub bytes: u64,
    pub rows: u64,
    /// The share of the whole, from 0 to 1.
    pub share: f64,
    /// The last attempt, from 1.
    pub attempt: u32,
    /// When the last attempt was last heard of.
    pub since: jiff::Timestamp,
    /// Until when it is kept.
    pub until: jiff::Timestamp,
}

impl From<&KeptWorkRow> for WaitingRestore {
    fn from(row: &KeptWorkRow) -> Self {
        WaitingRestore {
            database: row.name.clone(),
            target: row.target.clone(),
            request_id: row.request_id.clone(),
            by_command: row.by_command,
            bytes: row.bytes,
            rows: row.rows,
            share: row.share,
            attempt: row.attempt,
            since: row.since,
            until: row.until,
        }
    }
}

/// Whether work can still be continued by a next attempt, if there is one.
pub(super) fn is_continuable(row: &KeptWorkRow) -> bool {
    row.is_there && row.is_running && row.is_young && !row.is_superseded
}

/// The restores on `server` that can be continued, and on which nobody works. What stops is kept for `within`.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub async fn waiting(
    server: &Server,
    within: Duration,
) -> Result<Vec<WaitingRestore>, RestoreError> {
    let session = server.without_retry().maintenance("status").await?;
    let journal = Journal::find(&session).await?;
    let mut found = Vec::new();
    for row in journal.kept_work(&session, within).await? {
        // A worker that is running holds the lock.
        if is_continuable(&row) && try_lock(&session, &row.name).await? {
            unlock(&session, &row.name).await?;
            found.push(WaitingRestore::from(&row));
        }
    }
    Ok(found)
}

/// The request whose restore into `target` could be continued if nobody worked on it: it runs, or the server has not noticed
/// yet that the connection of its worker is lost.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub async fn occupied(
    server: &Server,
    within: Duration,
    target: &str,
) -> Result<Option<String>, RestoreError> {
    let session = server.without_retry().maintenance("status").await?;
    let journal = Journal::find(&session).await?;
    for row in journal.kept_work(&session, within).await? {
        if row.target != target || !is_continuable(&row) {
            continue;
        }
        if !try_lock(&session, &row.name).await? {
            return Ok(Some(row.request_id));
        }
        unlock(&session, &row.name).await?;
    }
    Ok(None)
}

/// Recorded work that can be continued, for tests.
#[cfg(test)]
pub(super) fn kept_row(by_command: bool) -> KeptWorkRow {
    let since = jiff::Timestamp::UNIX_EPOCH;
    KeptWorkRow {
        name: "pgrestored_s_1".into(),
        target: "app".into(),
        request_id: "r".into(),
        by_command,
        bytes: 5,
        rows: 1,
        share: 0.5,
        attempt: 2,
        published_us: 0,
        since,
        until: since,
        is_young: true,
        is_running: true,
        is_superseded: false,
        is_there: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_waits_until_its_request_is_answered_or_it_is_too_old() {
        assert!(is_continuable(&kept_row(false)));
        let changes: [fn(&mut KeptWorkRow); 4] = [
            |row| row.is_there = false,
            |row| row.is_running = false,
            |row| row.is_young = false,
            |row| row.is_superseded = true,
        ];
        for change in changes {
            let mut row = kept_row(false);
            change(&mut row);
            assert!(!is_continuable(&row), "{row:?}");
        }
    }
}

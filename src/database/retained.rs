//! Replaced databases that are kept for a rollback.

use std::time::Duration;

use super::journal::Journal;
use super::names::{named_like_ours, previous_prefix};
use crate::error::RestoreError;
use crate::postgres::{Server, Session};

/// A database that a restore has replaced.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[schemars(rename = "Kept")]
pub struct RetainedDatabase {
    pub name: String,
    pub replaced: jiff::Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_until: Option<jiff::Timestamp>,
}

/// The databases retained for `target`, newest first. Without a journal, `keep` determines how long each is
/// kept.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub async fn kept(
    server: &Server,
    target: &str,
    keep: Duration,
) -> Result<Vec<RetainedDatabase>, RestoreError> {
    let session = server.maintenance("rollback").await?;
    let journal = Journal::find(&session).await?;
    find_kept(&session, journal, target, keep).await
}

/// As [`kept`], on an open session. The time of replacement is part of a database's name; how long it is kept
/// is in the journal.
pub(super) async fn find_kept(
    session: &Session,
    journal: Journal,
    target: &str,
    keep: Duration,
) -> Result<Vec<RetainedDatabase>, RestoreError> {
    let prefix = previous_prefix(target);
    let recorded = journal.owned(session, Some(target)).await?;
    let mut kept = Vec::new();
    for name in named_like_ours(session).await? {
        let micros = name
            .strip_prefix(&prefix)
            .and_then(|hex| i64::from_str_radix(hex, 16).ok());
        let Some(replaced) = micros.and_then(|m| jiff::Timestamp::from_microsecond(m).ok()) else {
            continue;
        };
        let keep_until = match recorded.iter().find(|o| o.name == name) {
            Some(owned) => owned.keep_until,
            // Not recorded, so not ours, whatever its name.
            None if journal.is_on() => continue,
            None => replaced.checked_add(keep).ok(),
        };
        kept.push(RetainedDatabase {
            name,
            replaced,
            keep_until,
        });
    }
    kept.sort_by_key(|k| std::cmp::Reverse(k.replaced));
    Ok(kept)
}

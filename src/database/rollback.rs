//! The way back: the database that a restore replaced, exchanged with the one that took its place, by
//! the same lock, journal and transaction.

use std::time::Duration;

use super::journal::Journal;
use super::staging::Staging;
use super::{Claim, ClaimPolicy, TargetLock, claim, previous_prefix, reaper, swap};
use crate::error::{FailureReason as R, RestoreError, ValidationError, report};
use crate::job::RestoreJob;
use crate::postgres::{Server, Session, map_pg_error};
use crate::steps::reached;

/// What a rollback did.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct RolledBack {
    pub request_id: String,
    pub target_db: String,
    /// Name that the database had while it was kept.
    pub restored_database: String,
    /// Name under which the one is kept that it replaced: a second rollback brings it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_database: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

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

/// The databases that are kept for `target`, the newest first. Without a journal, `keep` says how long.
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

/// Names say when a database was replaced; the journal says how long it is kept.
pub(super) async fn find_kept(
    session: &Session,
    journal: Journal,
    target: &str,
    keep: Duration,
) -> Result<Vec<RetainedDatabase>, RestoreError> {
    let prefix = previous_prefix(target);
    let recorded = journal.owned(session, Some(target)).await?;
    let mut kept = Vec::new();
    for name in reaper::named_like_ours(session).await? {
        let micros = name
            .strip_prefix(&prefix)
            .and_then(|hex| i64::from_str_radix(hex, 16).ok());
        let Some(replaced) = micros.and_then(|m| jiff::Timestamp::from_microsecond(m).ok()) else {
            continue;
        };
        let keep_until = match recorded.iter().find(|o| o.name == name) {
            Some(owned) => owned.keep_until,
            // Somebody else's, whatever it is called.
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

/// Exchanges the target of `job` with the database that it replaced last, or with `wanted`.
///
/// # Errors
/// `target_not_allowed` where none is kept or the exchange would destroy something, `target_busy`,
/// `insufficient_privilege`, `target_unavailable`: then everything is as it was.
pub async fn rollback(
    server: &Server,
    job: &RestoreJob,
    wanted: Option<&str>,
    terms: ClaimPolicy,
) -> Result<RolledBack, RestoreError> {
    let mut claimed = match claim(server, job, terms).await? {
        Claim::Granted(claimed) => claimed,
        Claim::Done(outcome) => {
            return serde_json::from_value(outcome).map_err(|e| {
                RestoreError::internal(format!("the recorded outcome cannot be read: {e}"))
            });
        }
    };
    match exchange(&mut claimed, wanted).await {
        Ok(done) => Ok(done),
        Err(e) => {
            if let Err(e) = claimed.release().await {
                tracing::warn!(
                    error = report(&e),
                    "the end of the attempt could not be recorded"
                );
            }
            Err(e)
        }
    }
}

async fn exchange(
    claimed: &mut TargetLock,
    wanted: Option<&str>,
) -> Result<RolledBack, RestoreError> {
    let mut notes = claimed.check(1).await?;
    if !claimed.has_journal() {
        notes.push("no bookkeeping schema: found by its name".into());
    }
    let kept = find_kept(
        &claimed.lock,
        claimed.journal,
        &claimed.target,
        claimed.terms.keep,
    )
    .await?;
    let kept: Vec<String> = kept.into_iter().map(|k| k.name).collect();
    let none = |what: String| RestoreError::from(ValidationError::new(R::TargetNotAllowed, what));
    let name = match wanted {
        Some(name) => kept.iter().find(|k| *k == name).ok_or_else(|| {
            none(format!(
                "{name} is not kept for {} (kept: {})",
                claimed.target,
                kept.join(", ")
            ))
        })?,
        None => kept.first().ok_or_else(|| {
            none(format!(
                "no database is kept that {} has replaced (RESTORE_KEEP_PREVIOUS)",
                claimed.target
            ))
        })?,
    };
    let client = claimed.lock.client();
    let row = client
        .query_opt(
            "SELECT oid, pg_has_role(datdba, 'USAGE') FROM pg_database WHERE datname = $1",
            &[name],
        )
        .await
        .map_err(|e| map_pg_error(&e, "looking at the kept database"))?;
    let row = row.ok_or_else(|| none(format!("the kept database {name} is gone")))?;
    let oid: u32 = row.get(0);
    if let Some(why) = swap::swap_blocker(client, oid, name).await? {
        return Err(none(format!(
            "the kept database {name} cannot come back: {why}"
        )));
    }
    let done = RolledBack {
        request_id: claimed.request_id.clone(),
        target_db: claimed.target.clone(),
        restored_database: name.clone(),
        previous_database: claimed.previous_name().map(str::to_owned),
        notes,
    };
    let outcome = serde_json::to_value(&done).map_err(|e| RestoreError::internal(e.to_string()))?;
    let incoming = Staging {
        oid,
        is_new: false,
        ..Staging::named(name)
    }
    .proven_before();
    reached("rollback");
    claimed.swap(&incoming, &outcome).await?;
    Ok(done)
}

//! Rollback: exchanges the target with the database that a restore replaced, with the same lock, journal and
//! transaction as a swap.

use super::claim::{Claim, claim, recorded};
use super::retained::find_kept;
use super::staging::Staging;
use super::swap;
use super::target_lock::{ClaimPolicy, TargetLock};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::job::RestoreJob;
use crate::postgres::{Server, map_pg_error};
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
    /// Name under which the database that it replaced is kept. Another rollback brings it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_database: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Exchanges the target of `job` with the database that it replaced last, or with `wanted`.
///
/// # Errors
/// `target_not_allowed` if none is retained or the exchange would destroy something, `target_busy`,
/// `insufficient_privilege`, `target_unavailable`. In all cases nothing has changed.
pub async fn rollback(
    server: &Server,
    job: &RestoreJob,
    wanted: Option<&str>,
    policy: ClaimPolicy,
) -> Result<RolledBack, RestoreError> {
    let mut claimed = match claim(server, job, policy).await? {
        Claim::Granted(claimed) => claimed,
        Claim::Done(outcome) => return recorded(outcome),
    };
    let done = exchange(&mut claimed, wanted).await;
    claimed.forget_on_failure(done).await
}

async fn exchange(
    claimed: &mut TargetLock,
    wanted: Option<&str>,
) -> Result<RolledBack, RestoreError> {
    let mut notes = claimed.check(1).await?;
    if !claimed.has_journal() {
        notes.push("no bookkeeping schema: the retained database was found by its name".into());
    }
    let kept = find_kept(
        &claimed.lock,
        claimed.journal,
        &claimed.target,
        claimed.policy.keep,
    )
    .await?;
    let kept: Vec<String> = kept.into_iter().map(|k| k.name).collect();
    let not_allowed = |what: String| {
        RestoreError::from(ValidationError::new(ValidationKind::TargetNotAllowed, what))
    };
    let name = match wanted {
        Some(name) => kept.iter().find(|k| *k == name).ok_or_else(|| {
            let others = if kept.is_empty() {
                "none".to_owned()
            } else {
                kept.join(", ")
            };
            not_allowed(format!(
                "{name} is not a retained database of {} (retained: {others})",
                claimed.target,
            ))
        })?,
        None => kept.first().ok_or_else(|| {
            not_allowed(format!(
                "no replaced database is retained for {} (RESTORE_KEEP_PREVIOUS)",
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
        .map_err(|e| map_pg_error(&e, "looking up the retained database"))?;
    let row =
        row.ok_or_else(|| not_allowed(format!("the retained database {name} no longer exists")))?;
    let oid: u32 = row.get(0);
    if let Some(why) = swap::swap_blocker(client, oid, name).await? {
        return Err(not_allowed(format!(
            "the retained database {name} cannot be swapped in: {why}"
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
    claimed.wait_until_idle().await?;
    claimed.swap(&incoming, &outcome).await?;
    Ok(done)
}

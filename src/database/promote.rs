//! Promotion: swaps a database that a restore made under another name into the target's place, with the same locks,
//! journal and transaction as a swap.

use super::advisory_locks::lock_name;
use super::claim::{Claim, claim, recorded};
use super::copy_properties::CopyProperties;
use super::names::labels_of;
use super::recorded_restore::RecordedRestore;
use super::staging::Staging;
use super::swap;
use super::target_lock::{ClaimPolicy, TargetLock};
use crate::error::{DatabaseError, DatabaseKind, RestoreError, ValidationError, ValidationKind};
use crate::job::{OnExisting, RestoreJob, digest_of};
use crate::postgres::{Server, ident, map_pg_error};
use crate::steps::reached;

/// Whether the journal must show that a restore made the copy, and that it is whole or a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    Required,
    /// A person vouches for the copy.
    Waived,
}

/// What to promote, and to what.
#[derive(Debug, Clone)]
pub struct Promotion<'a> {
    pub request_id: &'a str,
    /// The database that becomes the target; its name is free afterwards.
    pub copy: &'a str,
    pub target_db: &'a str,
    pub on_existing: OnExisting,
    pub provenance: Provenance,
}

impl Promotion<'_> {
    fn job(&self) -> RestoreJob {
        let digest = digest_of(&serde_json::json!({
            "promote": self.copy, "target_db": self.target_db, "on_existing": self.on_existing,
            "unproven": self.provenance == Provenance::Waived,
        }));
        RestoreJob {
            on_existing: self.on_existing,
            ..RestoreJob::replacing(self.request_id, self.target_db, digest)
        }
    }
}

/// What a promotion did.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Promoted {
    pub request_id: String,
    pub target_db: String,
    /// Name that the database had before.
    pub promoted_database: String,
    /// Request of the restore that made the database; absent if none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_by: Option<String>,
    /// Name under which the database that it replaced is kept. A rollback brings it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_database: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Swaps the copy into the target's place.
///
/// # Errors
/// `target_exists`; `target_not_allowed` if no restore is known to have made the copy, if nothing shows that it is complete,
/// or if the exchange would destroy something; `target_busy`, `insufficient_privilege`, `target_unavailable`. In all cases nothing has changed.
pub async fn promote(
    server: &Server,
    promotion: &Promotion<'_>,
    policy: ClaimPolicy,
) -> Result<Promoted, RestoreError> {
    if promotion.copy == promotion.target_db {
        let what = format!("COPY: {} is the target itself", promotion.copy);
        return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
    }
    let mut claimed = match claim(server, &promotion.job(), policy).await? {
        Claim::Granted(claimed) => claimed,
        Claim::Done(outcome) => return recorded(outcome),
    };
    let done = exchange(&mut claimed, promotion).await;
    claimed.forget_on_failure(done).await
}

async fn exchange(
    claimed: &mut TargetLock,
    promotion: &Promotion<'_>,
) -> Result<Promoted, RestoreError> {
    let copy = promotion.copy;
    // No restore into the copy, and no other promotion of it, begins until this session ends.
    lock_name(&claimed.lock, copy).await?;
    let oid = check_copy(claimed, copy).await?;
    let restore = claimed.journal.restore_of(&claimed.lock, copy, oid).await?;
    let doubt = why_unproven(claimed, restore.as_ref());
    if let (Some(why), Provenance::Required) = (doubt, promotion.provenance) {
        return Err(not_allowed(format!(
            "database {copy} may be incomplete: {why}; restore it again or, if you know that it is right, add --unproven"
        )));
    }
    let mut notes = claimed.check(1).await?;
    claimed.check_owner_of_replaced().await?;
    let replaces = claimed.existing.is_some();
    if replaces && restore.as_ref().is_some_and(|r| r.is_partial()) {
        return Err(not_allowed(format!(
            "database {copy} holds a part of a backup, which does not replace a whole database: the rest of {} would be gone",
            claimed.target
        )));
    }
    let vouches = promotion.provenance == Provenance::Waived;
    if replaces && !vouches && restore.as_ref().is_some_and(|r| r.has_no_rows()) {
        return Err(not_allowed(format!(
            "database {copy} was restored from a backup with tables and no rows, and {} would lose its own: if that is meant, add --unproven",
            claimed.target
        )));
    }
    notes.extend(doubt.map(|why| format!("nothing shows that {copy} is complete: {why}")));
    let own = CopyProperties::read(claimed.lock.client(), oid).await?;
    notes.extend(if replaces {
        own.note_left(&claimed.target)
    } else {
        own.note_kept(&claimed.target)
    });
    let done = Promoted {
        request_id: claimed.request_id.clone(),
        target_db: claimed.target.clone(),
        promoted_database: copy.to_owned(),
        restored_by: restore.as_ref().map(|r| r.request_id().to_owned()),
        previous_database: claimed.previous_name().map(str::to_owned),
        notes,
    };
    let outcome = serde_json::to_value(&done).map_err(|e| RestoreError::internal(e.to_string()))?;
    let incoming = Staging {
        oid,
        // It takes over the properties of the database that it replaces, and keeps its own if there is none.
        is_new: replaces,
        at_end: if replaces { own.reset(copy) } else { vec![] },
        ..Staging::named(copy)
    };
    reached("promotion");
    claimed.wait_until_idle().await?;
    match restore.as_ref().filter(|_| doubt.is_none()) {
        Some(restore) => claimed.swap(&incoming.proven_by(restore), &outcome).await?,
        None => {
            let vouched = incoming.vouched_for();
            claimed.swap_vouched(&vouched, &outcome).await?;
        }
    }
    Ok(done)
}

fn not_allowed(what: String) -> RestoreError {
    ValidationError::new(ValidationKind::TargetNotAllowed, what).into()
}

/// Why a copy may not be promoted without a person who vouches for it, unless its record shows what it is.
fn why_unproven(claimed: &TargetLock, restore: Option<&RecordedRestore>) -> Option<&'static str> {
    match restore {
        Some(restore) => restore.doubt(),
        None if claimed.has_journal() => Some("the journal knows no restore that made it"),
        None => Some(
            "there is no journal to show that a restore made it (pgrestored doctor says what to grant)",
        ),
    }
}

/// Checks everything about the copy that would destroy something or make the swap fail. Returns its OID.
async fn check_copy(claimed: &TargetLock, copy: &str) -> Result<u32, RestoreError> {
    let client = claimed.lock.client();
    let [first, end] = labels_of(copy);
    let found = client
        .query_opt(
            "SELECT oid, datistemplate, datallowconn, pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba)::text,
               coalesce(shobj_description(oid, 'pg_database') COLLATE \"C\" >= $2
                 AND shobj_description(oid, 'pg_database') COLLATE \"C\" < $3, false)
             FROM pg_database WHERE datname = $1",
            &[&copy, &first, &end],
        )
        .await
        .map_err(|e| map_pg_error(&e, "looking up the copy"))?;
    let row = found.ok_or_else(|| not_allowed(format!("database {copy} does not exist")))?;
    let (oid, is_template, is_open, is_ours): (u32, bool, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    if is_template {
        return Err(not_allowed(format!("database {copy} is a template")));
    }
    if row.get(5) {
        return Err(not_allowed(format!(
            "database {copy} is unfinished: its restore has not ended"
        )));
    }
    if !is_open {
        return Err(not_allowed(format!(
            "database {copy} accepts no connections: ALTER DATABASE {} ALLOW_CONNECTIONS true",
            ident(copy)
        )));
    }
    if !is_ours {
        let (me, owner): (&str, &str) = (claimed.server.user(), row.get(4));
        let what = format!(
            "role {me} is not a member of the role that owns {copy}: GRANT {} TO {}",
            ident(owner),
            ident(me)
        );
        return Err(DatabaseError::new(DatabaseKind::InsufficientPrivilege, what).into());
    }
    if let Some(why) = swap::swap_blocker(client, oid, copy).await? {
        return Err(not_allowed(format!(
            "database {copy} cannot be renamed: {why}"
        )));
    }
    Ok(oid)
}

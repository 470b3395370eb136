//! The swap: two renames and the journal's row in one transaction, on the session that holds the target's
//! lock. A crash cannot leave a state in between. An ambiguous COMMIT is resolved by the staging database's
//! OID, which survives renames; for a database made in place, by the journal or its comment.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::advisory_locks::take_locks;
use super::copy_properties::comment_of;
use super::journal::RequestStatus;
use super::names::LABEL;
use super::staging::{ProvenStaging, Staging, VouchedStaging};
use super::target_lock::{Existing, TargetLock};
use super::{in_place, reaper};
use crate::error::{
    DatabaseError, DatabaseKind, FailureReason as R, RestoreError, ValidationError, ValidationKind,
    report,
};
use crate::job::OnExisting;
use crate::postgres::{Session, ident, literal, map_pg_error};
use crate::retry::Backoff;
use crate::steps::reached;
use pgdump_restore::says_restoring;

/// How long the transaction is retried if it collides with a concurrent `GRANT` or `ALTER DATABASE`, or with
/// sessions that it may not terminate.
const COLLISION_LIMIT: Duration = Duration::from_secs(30);
/// How long a rename may take before the sessions that block it are terminated. The server looks for them again a tenth of a
/// second after it has found one, so that this delays no rename.
const EVICTION_GRACE: Duration = Duration::from_millis(20);
const EVICTION_PAUSE: Duration = Duration::from_millis(20);
const EVICTION_LIMIT: Duration = Duration::from_secs(10);
/// Longest pause between two looks at sessions that may not be terminated.
const IDLE_PAUSE: Duration = Duration::from_secs(2);
/// How long to wait for a lost session to end on the server.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

fn map_lookup_error(e: tokio_postgres::Error) -> DatabaseError {
    map_pg_error(&e, "looking up the target")
}

/// Why a database must not be renamed: something would be destroyed by it or prevents it.
pub(super) async fn swap_blocker(
    client: &Client,
    oid: u32,
    name: &str,
) -> Result<Option<&'static str>, DatabaseError> {
    let checks = [
        (
            "SELECT 1 FROM pg_replication_slots WHERE database = $1",
            "it has a logical replication slot",
        ),
        (
            "SELECT 1 FROM pg_prepared_xacts WHERE database = $1",
            "it has a prepared transaction",
        ),
    ];
    for (sql, why) in checks {
        if client
            .query_opt(&format!("{sql} LIMIT 1"), &[&name])
            .await
            .map_err(map_lookup_error)?
            .is_some()
        {
            return Ok(Some(why));
        }
    }
    let subscription = client
        .query_opt(
            "SELECT 1 FROM pg_subscription WHERE subdbid = $1 LIMIT 1",
            &[&oid],
        )
        .await
        .map_err(map_lookup_error)?;
    Ok(subscription.map(|_| "it has a subscription"))
}

impl TargetLock {
    /// With `RESTORE_SWAP_WHEN_IDLE`: waits for the sessions on the target that may not be terminated, before the swap ends
    /// any other session or keeps new ones away. That may take hours, so it comes before the swap, which is not interrupted.
    ///
    /// # Errors
    /// `target_unavailable` if there still are some at the end of that time.
    pub async fn wait_until_idle(&self) -> Result<(), RestoreError> {
        let (Some(limit), Some(existing)) = (self.policy.swap_when_idle, &self.existing) else {
            return Ok(());
        };
        let mut backoff = Backoff::new(Duration::from_millis(50), IDLE_PAUSE);
        let deadline = tokio::time::Instant::now() + limit;
        let mut named = String::new();
        loop {
            let who = staying_sessions(&self.lock, existing.oid).await?;
            if who.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                let what = format!(
                    "database {} is still in use by {who}, whose sessions {} may not terminate, after {limit:?} \
                     (RESTORE_SWAP_WHEN_IDLE)",
                    self.target,
                    self.server.user()
                );
                return Err(DatabaseError::new(DatabaseKind::Unavailable, what).into());
            }
            if who != named {
                tracing::warn!(
                    database = self.target.as_str(),
                    role = who.as_str(),
                    "the swap waits for sessions that may not be terminated"
                );
                named = who;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Swaps the proven staging database into place and records `outcome` in the same transaction.
    ///
    /// # Errors
    /// `target_exists` if a database of that name appeared meanwhile, `target_unavailable`,
    /// `restore_error`. In all cases the target is unchanged.
    pub async fn swap(
        &mut self,
        staging: &ProvenStaging,
        outcome: &serde_json::Value,
    ) -> Result<(), RestoreError> {
        exchange_and_record(self, staging, outcome).await
    }

    /// As [`TargetLock::swap`], for a database that a person vouches for.
    ///
    /// # Errors
    /// As [`TargetLock::swap`].
    pub(super) async fn swap_vouched(
        &mut self,
        staging: &VouchedStaging,
        outcome: &serde_json::Value,
    ) -> Result<(), RestoreError> {
        exchange_and_record(self, staging, outcome).await
    }
}

async fn exchange_and_record(
    claimed: &mut TargetLock,
    staging: &Staging,
    outcome: &serde_json::Value,
) -> Result<(), RestoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    let deadline = tokio::time::Instant::now() + COLLISION_LIMIT;
    loop {
        match transaction(claimed, staging, outcome).await {
            Ok(()) => break,
            Err(e) => {
                let broken = e.sqlstate().is_none_or(|code| code.starts_with("57P0"));
                if broken || claimed.lock.run("ROLLBACK").await.is_err() {
                    // The connection broke, so the COMMIT may have succeeded. The OID shows whether it did.
                    if resolve_ambiguous_commit(claimed, staging).await? {
                        break;
                    }
                    return Err(e.context("swapping the database into place").into());
                }
                if !is_collision(&e) || tokio::time::Instant::now() >= deadline {
                    return Err(final_error(e, claimed, staging).await);
                }
                tracing::debug!(error = %e, "the swap collided with another session: retrying");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
    reached("swapped");
    // The swap is committed: the restore has succeeded, whatever happens from here on.
    let claimed = &*claimed;
    tokio::join!(reach(claimed, staging), reaper::drop_expired(claimed));
    Ok(())
}

/// Reaches the target once, and starts what extensions run in it.
async fn reach(claimed: &TargetLock, staging: &Staging) {
    match confirm_reachable(claimed, staging).await {
        Ok(target) => resume_extensions(&target).await,
        Err(e) => tracing::warn!(
            error = report(&e),
            "the swap succeeded, but the target could not be reached afterwards"
        ),
    }
}

/// The roles whose sessions on a database this role may not terminate; empty if there are none.
async fn staying_sessions(lock: &Session, oid: u32) -> Result<String, DatabaseError> {
    let sql = "SELECT coalesce(string_agg(DISTINCT format('%s%s', usename, CASE WHEN r.rolsuper THEN ' (a superuser)' END), ', '), '')
        FROM pg_stat_activity JOIN pg_roles r ON r.oid = usesysid
        WHERE datid = $1 AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
          AND (r.rolsuper OR NOT (pg_has_role(usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')))";
    let row = lock.client().query_one(sql, &[&oid]).await;
    Ok(row.map_err(map_lookup_error)?.get(0))
}

/// Whether a retry may help: `tuple concurrently updated`, sessions that have not ended yet, lock timeouts,
/// deadlocks.
fn is_collision(e: &DatabaseError) -> bool {
    matches!(
        e.sqlstate(),
        Some("XX000" | "55006" | "55P03" | "40P01" | "40001" | "57014")
    )
}

async fn final_error(e: DatabaseError, claimed: &TargetLock, staging: &Staging) -> RestoreError {
    let target = &claimed.target;
    match e.sqlstate() {
        Some("42P04" | "23505") => ValidationError::new(
            ValidationKind::TargetExists,
            format!("database {target} appeared during the restore"),
        )
        .into(),
        Some("55006" | "55P03") => {
            let (used, who) = match blocking_sessions(claimed, &staging.name).await {
                // A copy that is promoted may be in use, too.
                Ok(who) if !who.is_empty() => (&staging.name, who),
                _ => (
                    target,
                    blocking_sessions(claimed, target).await.unwrap_or_default(),
                ),
            };
            DatabaseError::new(
                DatabaseKind::Unavailable,
                format!("database {used} is still in use{who}: {e}"),
            )
            .into()
        }
        _ => e.context("swapping the database into place").into(),
    }
}

/// The roles whose sessions on a database could not be terminated, as part of a sentence; empty if there are none.
async fn blocking_sessions(claimed: &TargetLock, database: &str) -> Result<String, DatabaseError> {
    let sql = "SELECT coalesce(string_agg(DISTINCT format('%s%s', usename, CASE WHEN rolsuper THEN ' (a superuser)' END), ', '), '')
        FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid WHERE datname = $1";
    let row = claimed
        .lock
        .client()
        .query_one(sql, &[&database])
        .await
        .map_err(map_lookup_error)?;
    let names: String = row.get(0);
    Ok(if names.is_empty() {
        String::new()
    } else {
        format!(
            " by {names}, whose sessions {} may not terminate",
            claimed.server.user()
        )
    })
}

async fn transaction(
    claimed: &TargetLock,
    staging: &Staging,
    outcome: &serde_json::Value,
) -> Result<(), DatabaseError> {
    let lock = &claimed.lock;
    lock.run(
        "BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '15s'; \
         SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL synchronous_commit = on",
    )
    .await?;
    recheck(claimed, staging).await?;
    reached("swap.begun");
    if staging.is_new {
        // Remove the staging comment and give PUBLIC its default privileges of a new database. If a database
        // is replaced, its own privileges follow below.
        let name = ident(&staging.name);
        lock.run(&format!(
            "COMMENT ON DATABASE {name} IS NULL; GRANT CONNECT, TEMPORARY ON DATABASE {name} TO PUBLIC"
        ))
        .await?;
    }
    for statement in &staging.at_end {
        lock.run(statement)
            .await
            .map_err(|e| e.context("setting privileges and properties of the new database"))?;
    }
    if let Some(Existing { oid, kept_as }) = &claimed.existing {
        let oid = *oid;
        let properties_of_target = if staging.is_new {
            properties(lock.client(), oid, staging).await?
        } else {
            vec![]
        };
        for statement in properties_of_target {
            lock.run(&statement)
                .await
                .map_err(|e| e.context("copying the replaced database's properties"))?;
        }
        rename(claimed, oid, &claimed.target, kept_as).await?;
        reached("swap.old_renamed");
        claimed
            .journal
            .own(lock, &claimed.previous_record(kept_as))
            .await?;
    }
    if !staging.is_in_place {
        rename(claimed, staging.oid, &staging.name, &claimed.target).await?;
        recheck_renamed(claimed, staging).await?;
    }
    reached("swap.new_renamed");
    claimed.journal.forget_database(lock, &staging.name).await?;
    if staging.is_in_place {
        claimed
            .journal
            .forget_database(lock, &claimed.staging_name())
            .await?;
    }
    claimed
        .journal
        .finish(
            lock,
            &claimed.request_id,
            claimed.attempt,
            outcome,
            Some(staging.oid),
        )
        .await?;
    reached("swap.journaled");
    lock.run("COMMIT").await
}

/// Checks that this session still holds the lock, and that the target's name still refers to the same database.
async fn recheck(claimed: &TargetLock, staging: &Staging) -> Result<(), DatabaseError> {
    let client = claimed.lock.client();
    let held = client
        .query_opt("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted LIMIT 1", &[])
        .await
        .map_err(map_lookup_error)?;
    if held.is_none() {
        return Err(DatabaseError::new(
            DatabaseKind::Unavailable,
            "the target's lock was lost",
        ));
    }
    let now = client
        .query_opt(
            "SELECT oid FROM pg_database WHERE datname = $1",
            &[&claimed.target],
        )
        .await
        .map_err(map_lookup_error)?;
    let in_place = staging.is_in_place.then_some(staging.oid);
    let before = claimed.existing.as_ref().map(|e| e.oid).or(in_place);
    match (now.map(|r| r.get::<_, u32>(0)), before, claimed.on_existing) {
        (now, before, _) if now == before => Ok(()),
        (Some(_), None, OnExisting::Fail | OnExisting::Replace) => {
            let what = format!("database {} appeared during the restore", claimed.target);
            Err(DatabaseError::new(DatabaseKind::NameTaken, what).with_sqlstate("42P04"))
        }
        // object_not_in_prerequisite_state: the request is retried with the new database.
        _ => Err(DatabaseError::new(
            DatabaseKind::Unavailable,
            "the target was replaced by someone else",
        )
        .with_sqlstate("55000")),
    }
}

/// Checks that the database that was renamed is the one to swap in: its name may have come to mean another one.
async fn recheck_renamed(claimed: &TargetLock, staging: &Staging) -> Result<(), DatabaseError> {
    if name_of(&claimed.lock, staging.oid).await?.as_ref() == Some(&claimed.target) {
        return Ok(());
    }
    let what = format!(
        "database {} was replaced by someone else meanwhile",
        staging.name
    );
    Err(DatabaseError::new(DatabaseKind::Unavailable, what).with_sqlstate("55000"))
}

/// Renames a database while another session terminates the connections that block the rename. The rename
/// locks the database first, so no new connections are made until the transaction ends. The transaction
/// ends only after the last terminating statement has returned, because that could hit new connections.
async fn rename(claimed: &TargetLock, oid: u32, from: &str, to: &str) -> Result<(), DatabaseError> {
    let sql = format!("ALTER DATABASE {} RENAME TO {}", ident(from), ident(to));
    let renamed = CancellationToken::new();
    let rename = async {
        let done = claimed.lock.run(&sql).await;
        renamed.cancel();
        done
    };
    let (done, evicted) = tokio::join!(rename, terminate_backends(claimed, oid, &renamed));
    match (done, evicted) {
        // Sessions that may not be terminated can still end by themselves within the lock timeout.
        (done, Err(e)) if e.sqlstate().is_some() => {
            tracing::warn!(error = %e, "failed to terminate sessions on the target");
            done
        }
        (Ok(()), Err(e)) => Err(e),
        (done, _) => done,
    }
}

/// Terminates the sessions on a database, repeatedly, until it is `renamed`.
async fn terminate_backends(
    claimed: &TargetLock,
    oid: u32,
    renamed: &CancellationToken,
) -> Result<(), DatabaseError> {
    // Most renames are done by then, and need no other session.
    let admin_session = async {
        tokio::time::sleep(EVICTION_GRACE).await;
        claimed.server.maintenance("eviction").await
    };
    let Some(admin_session) = renamed.run_until_cancelled(admin_session).await else {
        return Ok(());
    };
    let admin_session = admin_session?;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = $1 AND pid <> pg_backend_pid()";
    while !renamed.is_cancelled() {
        let sent =
            tokio::time::timeout(EVICTION_LIMIT, admin_session.client().execute(sql, &[&oid]))
                .await;
        let lost = "terminating sessions on the target took too long";
        sent.map_err(|_| DatabaseError::new(DatabaseKind::Unavailable, lost))?
            .map_err(|e| map_pg_error(&e, "terminating sessions on the target"))?;
        let _ = renamed
            .run_until_cancelled(tokio::time::sleep(EVICTION_PAUSE))
            .await;
    }
    Ok(())
}

/// Statements that copy properties of the target that are not part of a dump to the staging database: owner,
/// connection limit, comment, privileges, settings, security labels.
async fn properties(
    client: &Client,
    oid: u32,
    staging: &Staging,
) -> Result<Vec<String>, DatabaseError> {
    let name = ident(&staging.name);
    let row = client
        .query_one(
            "SELECT pg_get_userbyid(datdba)::text, datconnlimit, shobj_description(oid, 'pg_database'), datacl IS NOT NULL
             FROM pg_database WHERE oid = $1",
            &[&oid],
        )
        .await
        .map_err(map_lookup_error)?;
    let (owner, limit, has_acl): (String, i32, bool) = (row.get(0), row.get(1), row.get(3));
    let comment = comment_of(&row, 2);
    let mut sql = vec![format!("ALTER DATABASE {name} OWNER TO {}", ident(&owner))];
    if limit != -1 {
        sql.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}"));
    }
    // Never copy a staging comment: it marks a database as unfinished.
    if let Some(c) = comment.filter(|c| !c.starts_with(LABEL)) {
        sql.push(format!("COMMENT ON DATABASE {name} IS {}", literal(&c)));
    }
    if has_acl {
        sql.extend(privileges(client, oid, &name, &owner).await?);
    }
    sql.extend(settings(client, oid, &name).await?);
    let labels = client
        .query("SELECT provider, label FROM pg_shseclabel WHERE objoid = $1 AND classoid = 'pg_database'::regclass", &[&oid])
        .await
        .map_err(map_lookup_error)?;
    sql.extend(labels.iter().map(|r| {
        format!(
            "SECURITY LABEL FOR {} ON DATABASE {name} IS {}",
            ident(r.get(0)),
            literal(r.get(1))
        )
    }));
    Ok(sql)
}

async fn privileges(
    client: &Client,
    oid: u32,
    name: &str,
    owner: &str,
) -> Result<Vec<String>, DatabaseError> {
    let rows = client
        .query(
            "SELECT CASE WHEN grantee = 0 THEN NULL ELSE pg_get_userbyid(grantee)::text END, privilege_type, is_grantable
             FROM pg_database, aclexplode(datacl) WHERE oid = $1",
            &[&oid],
        )
        .await
        .map_err(map_lookup_error)?;
    let mut sql = vec![
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!("REVOKE ALL ON DATABASE {name} FROM {}", ident(owner)),
    ];
    for r in rows {
        let grantee: Option<String> = r.get(0);
        let grantee = grantee.map_or("PUBLIC".to_owned(), |g| ident(&g));
        let option = if r.get(2) { " WITH GRANT OPTION" } else { "" };
        sql.push(format!(
            "GRANT {} ON DATABASE {name} TO {grantee}{option}",
            r.get::<_, &str>(1)
        ));
    }
    Ok(sql)
}

async fn settings(client: &Client, oid: u32, name: &str) -> Result<Vec<String>, DatabaseError> {
    let rows = client
        .query(
            "SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole)::text END, unnest(setconfig)
             FROM pg_db_role_setting WHERE setdatabase = $1 AND (setrole = 0 OR pg_get_userbyid(setrole) = current_user
               OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))",
            &[&oid],
        )
        .await
        .map_err(map_lookup_error)?;
    let statement = |role: Option<String>, setting: &str| {
        let (key, value) = setting.split_once('=')?;
        // An earlier restore into the target, by other means, was not finished.
        if says_restoring(key) {
            return None;
        }
        let value = match is_list(key).then(|| list(value)).flatten() {
            Some(elements) => elements
                .iter()
                .map(|e| literal(e))
                .collect::<Vec<_>>()
                .join(", "),
            None => literal(value),
        };
        let key: Vec<String> = key.split('.').map(ident).collect();
        let what = match role {
            Some(role) => format!("ROLE {} IN DATABASE {name}", ident(&role)),
            None => format!("DATABASE {name}"),
        };
        Some(format!("ALTER {what} SET {} = {value}", key.join(".")))
    };
    Ok(rows
        .iter()
        .filter_map(|r| statement(r.get(0), r.get(1)))
        .collect())
}

/// Notes about other roles' settings in this database, which only a superuser can copy.
pub(super) async fn settings_of_others(
    client: &Client,
    oid: u32,
    name: &str,
) -> Result<Vec<String>, DatabaseError> {
    let rows = client
        .query(
            "SELECT pg_get_userbyid(setrole)::text FROM pg_db_role_setting
             WHERE setdatabase = $1 AND setrole <> 0 AND pg_get_userbyid(setrole) <> current_user ORDER BY 1",
            &[&oid],
        )
        .await
        .map_err(map_lookup_error)?;
    let note = |r: &tokio_postgres::Row| {
        let role: &str = r.get(0);
        format!(
            "settings of role {role} in database {name} (ALTER ROLE … IN DATABASE) are not copied: only a superuser can copy them"
        )
    };
    Ok(rows.iter().map(note).collect())
}

/// Splits the stored value of a list setting by the rules of `SplitGUCList`; `None` if it is empty or not a list.
/// Any role may write such a value, so it is never put into a statement unquoted.
fn list(value: &str) -> Option<Vec<String>> {
    let (mut elements, mut rest) = (Vec::new(), value.trim_ascii_start());
    loop {
        let (element, behind) = match rest.strip_prefix('"') {
            Some(mut quoted) => {
                let mut element = String::new();
                loop {
                    let (part, behind) = quoted.split_once('"')?;
                    element.push_str(part);
                    let Some(more) = behind.strip_prefix('"') else {
                        break (element, behind);
                    };
                    element.push('"');
                    quoted = more;
                }
            }
            None => {
                let end = rest
                    .find(|c: char| c == ',' || c.is_ascii_whitespace())
                    .unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        if element.is_empty() && !rest.starts_with('"') {
            return None;
        }
        elements.push(element);
        rest = behind.trim_ascii_start();
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_ascii_start(),
            None => return rest.is_empty().then_some(elements),
        }
    }
}

/// Whether a setting's stored value is a list of quoted names.
fn is_list(setting: &str) -> bool {
    matches!(
        setting,
        "search_path"
            | "temp_tablespaces"
            | "local_preload_libraries"
            | "session_preload_libraries"
            | "shared_preload_libraries"
            | "unix_socket_directories"
    )
}

/// After a broken connection: takes the locks again and looks up the staging database's current name. Returns
/// whether the swap was committed.
async fn resolve_ambiguous_commit(
    claimed: &mut TargetLock,
    staging: &Staging,
) -> Result<bool, RestoreError> {
    let session = claimed.server.maintenance("lock").await?;
    let deadline = tokio::time::Instant::now() + SETTLE_LIMIT;
    // The lost session may still be executing its COMMIT and holding the locks.
    while let Err(e) = take_locks(&session, &claimed.target, &claimed.request_id).await {
        if e.reason() != R::TargetBusy || tokio::time::Instant::now() >= deadline {
            return Err(e.context("locking the target again").into());
        }
    }
    claimed.lock = session;
    if staging.is_in_place {
        return is_recorded(claimed, staging).await;
    }
    let name = name_of(&claimed.lock, staging.oid).await?;
    Ok(name.as_deref() == Some(claimed.target.as_str()))
}

/// Whether the transaction that opens a database already under the target's name was committed, according to the
/// journal or, without one, to the database's comment.
async fn is_recorded(claimed: &TargetLock, staging: &Staging) -> Result<bool, RestoreError> {
    if claimed.journal.is_on() {
        let status = claimed
            .journal
            .look_up(&claimed.lock, &claimed.request_id)
            .await?;
        return Ok(matches!(status, RequestStatus::Done { .. }));
    }
    Ok(in_place::is_open(&claimed.lock, &claimed.target, staging.oid).await?)
}

async fn name_of(session: &Session, oid: u32) -> Result<Option<String>, DatabaseError> {
    let row = session
        .client()
        .query_opt(
            "SELECT datname::text FROM pg_database WHERE oid = $1",
            &[&oid],
        )
        .await;
    Ok(row.map_err(map_lookup_error)?.map(|r| r.get(0)))
}

/// Starts what extensions run by themselves, which the load has stopped, or renaming the database has ended.
pub(super) async fn resume_extensions(target: &Session) {
    if let Err(e) = pgdump_restore::resume_extensions(target).await {
        tracing::warn!(
            error = report(&e),
            "the restore succeeded, but background jobs of an extension could not be started"
        );
    }
}

/// Checks that a new session under the target's name reaches the restored database, and returns it.
async fn confirm_reachable(
    claimed: &TargetLock,
    staging: &Staging,
) -> Result<Session, RestoreError> {
    let session = claimed
        .server
        .connect(&claimed.target, "confirmation")
        .await?;
    let row = session
        .client()
        .query_one(
            "SELECT oid FROM pg_database WHERE datname = current_database()",
            &[],
        )
        .await
        .map_err(|e| map_pg_error(&e, "confirming the swap"))?;
    if row.get::<_, u32>(0) == staging.oid {
        Ok(session)
    } else {
        Err(DatabaseError::new(
            DatabaseKind::Unavailable,
            "the target's name refers to another database",
        )
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_settings_are_split_as_the_server_does() {
        let of = |value: &str| list(value).map(|l| l.join("|"));
        for (value, elements) in [
            ("\"$user\", public", Some("$user|public")),
            ("\"\"", Some("")),
            ("\"a, \"\"b\"\"\",c", Some("a, \"b\"|c")),
            (
                "x;alter/**/role/**/a/**/superuser",
                Some("x;alter/**/role/**/a/**/superuser"),
            ),
            ("", None),
            ("a b", None),
            ("a,,b", None),
            ("\"open", None),
        ] {
            assert_eq!(of(value).as_deref(), elements, "{value}");
        }
    }
}

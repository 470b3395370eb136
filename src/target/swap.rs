//! The swap: two renames and the journal's row in one transaction, on the session that holds the
//! target's lock. There is no state between the two names that a crash could leave behind; an
//! ambiguous COMMIT is settled by the staging database's OID, which survives renames.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::staging::{Staging, force_drop};
use super::{Claimed, Existing};
use crate::error::{DatabaseError, FailureReason as R, RestoreError, ValidationError};
use crate::job::OnExisting;
use crate::postgres::{Session, fault, ident, literal};
use crate::retry::Backoff;

/// Hours that a replaced database is kept for a rollback.
const KEEP_PREVIOUS_HOURS: f64 = 24.0;
/// Tries of the transaction against concurrent `GRANT` or `ALTER DATABASE`, which collide with it.
const TRIES: u32 = 20;
const EVICTION_PAUSE: Duration = Duration::from_millis(20);
const EVICTION_LIMIT: Duration = Duration::from_secs(10);

fn looking(e: tokio_postgres::Error) -> DatabaseError {
    fault(&e, "looking at the target")
}

/// Why a database may not be renamed away: what would be destroyed with it or stops the rename.
pub(super) async fn not_swappable(
    client: &Client,
    oid: u32,
    name: &str,
) -> Result<Option<&'static str>, DatabaseError> {
    let checks = [
        ("SELECT 1 FROM pg_replication_slots WHERE database = $1", "it has a logical replication slot"),
        ("SELECT 1 FROM pg_prepared_xacts WHERE database = $1", "it has a prepared transaction"),
    ];
    for (sql, why) in checks {
        if client.query_opt(&format!("{sql} LIMIT 1"), &[&name]).await.map_err(looking)?.is_some() {
            return Ok(Some(why));
        }
    }
    let subscription = client
        .query_opt("SELECT 1 FROM pg_subscription WHERE subdbid = $1 LIMIT 1", &[&oid])
        .await
        .map_err(looking)?;
    Ok(subscription.map(|_| "it has a subscription"))
}

pub(super) async fn swap(
    claimed: &mut Claimed,
    staging: &Staging,
    outcome: &serde_json::Value,
) -> Result<(), RestoreError> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    for tries_left in (0..TRIES).rev() {
        match transaction(claimed, staging, outcome).await {
            Ok(()) => break,
            Err(e) if e.sqlstate().is_none_or(|code| code.starts_with("57P0")) => {
                // The connection broke: the COMMIT may have been done. The OID knows.
                if settle(claimed, staging).await? {
                    break;
                }
                return Err(e.context("swapping the database into place").into());
            }
            Err(e) => {
                claimed.lock.run("ROLLBACK").await?;
                if tries_left == 0 || !is_collision(&e) {
                    return Err(final_error(e, &claimed.target));
                }
                tracing::debug!(error = %e, "the swap collided, trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
    confirm(claimed, staging).await?;
    drop_expired(claimed).await;
    Ok(())
}

/// `tuple concurrently updated`, sessions that have not ended yet, locks, deadlocks.
fn is_collision(e: &DatabaseError) -> bool {
    matches!(e.sqlstate(), Some("XX000" | "55006" | "55P03" | "40P01" | "40001" | "57014"))
}

fn final_error(e: DatabaseError, target: &str) -> RestoreError {
    match e.sqlstate() {
        Some("42P04" | "23505") => {
            ValidationError::new(R::TargetExists, format!("database {target} appeared during the restore"))
                .into()
        }
        Some("55006" | "55P03") => {
            DatabaseError::new(R::TargetUnavailable, format!("database {target} stays in use: {e}")).into()
        }
        _ => e.context("swapping the database into place").into(),
    }
}

async fn transaction(
    claimed: &Claimed,
    staging: &Staging,
    outcome: &serde_json::Value,
) -> Result<(), DatabaseError> {
    let lock = &claimed.lock;
    lock.run(
        "BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL statement_timeout = '15s'; \
         SET LOCAL idle_in_transaction_session_timeout = '10s'; SET LOCAL synchronous_commit = on",
    )
    .await?;
    check_again(claimed).await?;
    if let Some(Existing { oid, kept_as }) = &claimed.existing {
        let oid = *oid;
        for statement in properties(lock.client(), oid, staging).await? {
            lock.run(&statement).await.map_err(|e| e.context("carrying the database's properties over"))?;
        }
        rename(claimed, oid, &claimed.target, kept_as).await?;
        claimed
            .journal
            .own_previous(lock, kept_as, &claimed.request_id, &claimed.target, KEEP_PREVIOUS_HOURS)
            .await?;
    }
    rename(claimed, staging.oid, &staging.name, &claimed.target).await?;
    claimed.journal.forget_database(lock, &staging.name).await?;
    claimed.journal.finish(lock, &claimed.request_id, claimed.attempt, outcome).await?;
    lock.run("COMMIT").await
}

/// The lock is still held by this session, and the name still means what it meant.
async fn check_again(claimed: &Claimed) -> Result<(), DatabaseError> {
    let client = claimed.lock.client();
    let held = client
        .query_opt("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted LIMIT 1", &[])
        .await
        .map_err(looking)?;
    if held.is_none() {
        return Err(DatabaseError::new(R::TargetUnavailable, "the target's lock is lost"));
    }
    let now = client
        .query_opt("SELECT oid FROM pg_database WHERE datname = $1", &[&claimed.target])
        .await
        .map_err(looking)?;
    match (now.map(|r| r.get::<_, u32>(0)), claimed.existing.as_ref().map(|e| e.oid), claimed.on_existing) {
        (now, before, _) if now == before => Ok(()),
        (Some(_), None, OnExisting::Fail | OnExisting::Replace) => {
            let what = format!("database {} appeared during the restore", claimed.target);
            Err(DatabaseError::new(R::TargetExists, what).with_sqlstate("42P04"))
        }
        _ => Err(DatabaseError::new(R::TargetUnavailable, "the target was replaced by someone else")
            .with_sqlstate("42P04")),
    }
}

/// Renames while another session ends the connections that are in the way. The rename locks the
/// database first, so no new ones get in until the transaction ends; and the transaction ends only
/// when no statement that ends connections is on its way any more: it would hit those who come next.
async fn rename(claimed: &Claimed, oid: u32, from: &str, to: &str) -> Result<(), DatabaseError> {
    let sql = format!("ALTER DATABASE {} RENAME TO {}", ident(from), ident(to));
    let renamed = CancellationToken::new();
    let rename = async {
        let done = claimed.lock.run(&sql).await;
        renamed.cancel();
        done
    };
    let (done, evicted) = tokio::join!(rename, evict(claimed, oid, &renamed));
    match (done, evicted) {
        // Sessions that we may not end can still end by themselves within the lock's timeout.
        (done, Err(e)) if e.sqlstate().is_some() => {
            tracing::warn!(error = %e, "sessions on the target cannot be ended");
            done
        }
        (Ok(()), Err(e)) => Err(e),
        (done, _) => done,
    }
}

/// Ends the sessions on a database, again and again, until it is `renamed`.
async fn evict(claimed: &Claimed, oid: u32, renamed: &CancellationToken) -> Result<(), DatabaseError> {
    let killer = claimed.server.maintenance("eviction");
    let Some(killer) = renamed.run_until_cancelled(killer).await else { return Ok(()) };
    let killer = killer?;
    let sql =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = $1 AND pid <> pg_backend_pid()";
    while !renamed.is_cancelled() {
        let sent = tokio::time::timeout(EVICTION_LIMIT, killer.client().execute(sql, &[&oid])).await;
        let lost =
            |_| DatabaseError::new(R::TargetUnavailable, "ending sessions on the target takes too long");
        sent.map_err(lost)?.map_err(|e| fault(&e, "ending sessions on the target"))?;
        let _ = renamed.run_until_cancelled(tokio::time::sleep(EVICTION_PAUSE)).await;
    }
    Ok(())
}

/// Statements that give the staging database what belongs to the target and not to the dump: owner,
/// connection limit, comment, privileges, settings, security labels.
async fn properties(client: &Client, oid: u32, staging: &Staging) -> Result<Vec<String>, DatabaseError> {
    let name = ident(&staging.name);
    let row = client
        .query_one(
            "SELECT pg_get_userbyid(datdba)::text, datconnlimit, shobj_description(oid, 'pg_database'), datacl IS NOT NULL
             FROM pg_database WHERE oid = $1",
            &[&oid],
        )
        .await
        .map_err(looking)?;
    let (owner, limit, comment, has_acl): (String, i32, Option<String>, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let mut sql = vec![format!("ALTER DATABASE {name} OWNER TO {}", ident(&owner))];
    if limit != -1 {
        sql.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}"));
    }
    if let Some(c) = comment {
        sql.push(format!("COMMENT ON DATABASE {name} IS {}", literal(&c)));
    }
    if has_acl {
        sql.extend(privileges(client, oid, &name, &owner).await?);
    }
    sql.extend(settings(client, oid, &name).await?);
    let labels = client
        .query("SELECT provider, label FROM pg_shseclabel WHERE objoid = $1 AND classoid = 'pg_database'::regclass", &[&oid])
        .await
        .map_err(looking)?;
    sql.extend(labels.iter().map(|r| {
        format!("SECURITY LABEL FOR {} ON DATABASE {name} IS {}", ident(r.get(0)), literal(r.get(1)))
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
        .map_err(looking)?;
    let mut sql = vec![
        format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"),
        format!("REVOKE ALL ON DATABASE {name} FROM {}", ident(owner)),
    ];
    for r in rows {
        let grantee: Option<String> = r.get(0);
        let grantee = grantee.map_or("PUBLIC".to_owned(), |g| ident(&g));
        let option = if r.get(2) { " WITH GRANT OPTION" } else { "" };
        sql.push(format!("GRANT {} ON DATABASE {name} TO {grantee}{option}", r.get::<_, &str>(1)));
    }
    Ok(sql)
}

async fn settings(client: &Client, oid: u32, name: &str) -> Result<Vec<String>, DatabaseError> {
    let rows = client
        .query(
            "SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole)::text END, unnest(setconfig)
             FROM pg_db_role_setting WHERE setdatabase = $1",
            &[&oid],
        )
        .await
        .map_err(looking)?;
    let statement = |role: Option<String>, setting: &str| {
        let (key, value) = setting.split_once('=')?;
        let value = if is_list(key) && !value.is_empty() { value.to_owned() } else { literal(value) };
        let key: Vec<String> = key.split('.').map(ident).collect();
        let what = match role {
            Some(role) => format!("ROLE {} IN DATABASE {name}", ident(&role)),
            None => format!("DATABASE {name}"),
        };
        Some(format!("ALTER {what} SET {} = {value}", key.join(".")))
    };
    Ok(rows.iter().filter_map(|r| statement(r.get(0), r.get(1))).collect())
}

/// Settings whose stored value is a list of quoted names already.
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

/// After a broken connection: takes the lock again and asks which name the staging database bears.
async fn settle(claimed: &mut Claimed, staging: &Staging) -> Result<bool, RestoreError> {
    let session = claimed.server.maintenance("lock").await?;
    session.run("SET lock_timeout = '60s'").await?;
    session
        .client()
        .execute("SELECT pg_advisory_lock(hashtextextended('pgrestored:' || $1, 7))", &[&claimed.target])
        .await
        .map_err(|e| fault(&e, "locking the target again"))?;
    let name = name_of(&session, staging.oid).await?;
    claimed.lock = session;
    Ok(name.as_deref() == Some(claimed.target.as_str()))
}

async fn name_of(session: &Session, oid: u32) -> Result<Option<String>, DatabaseError> {
    let row =
        session.client().query_opt("SELECT datname::text FROM pg_database WHERE oid = $1", &[&oid]).await;
    Ok(row.map_err(looking)?.map(|r| r.get(0)))
}

/// A new session under the target's name must reach the restored database.
async fn confirm(claimed: &Claimed, staging: &Staging) -> Result<(), RestoreError> {
    let session = claimed.server.connect(&claimed.target, "confirmation").await?;
    let row = session
        .client()
        .query_one("SELECT oid FROM pg_database WHERE datname = current_database()", &[])
        .await
        .map_err(|e| fault(&e, "confirming the swap"))?;
    match row.get::<_, u32>(0) == staging.oid {
        true => Ok(()),
        false => {
            Err(DatabaseError::new(R::TargetUnavailable, "the target's name leads to another database")
                .into())
        }
    }
}

/// Best effort: what is not dropped now is dropped after the next restore.
async fn drop_expired(claimed: &Claimed) {
    let expired = claimed.journal.expired(&claimed.lock, &claimed.target).await.unwrap_or_default();
    for name in expired {
        let dropped = force_drop(&claimed.server, &claimed.lock, &name).await;
        match dropped {
            Ok(()) => drop(claimed.journal.forget_database(&claimed.lock, &name).await),
            Err(e) => tracing::warn!(database = name, error = %e, "an expired database was not dropped"),
        }
    }
}

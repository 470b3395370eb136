//! The swap: two renames and the journal's row in one transaction, on the session that holds the
//! target's lock. There is no state between the two names that a crash could leave behind; an
//! ambiguous COMMIT is settled by the staging database's OID, which survives renames.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::journal::Known;
use super::staging::{LABEL, Staging};
use super::{Existing, TargetLock, in_place, reaper};
use crate::error::{DatabaseError, FailureReason as R, RestoreError, ValidationError, report};
use crate::job::OnExisting;
use crate::postgres::{Session, ident, literal, map_pg_error};
use crate::retry::Backoff;
use crate::steps::reached;

/// How long the transaction is tried against concurrent `GRANT` or `ALTER DATABASE`, which collide with
/// it, and against sessions that may not be ended.
const COLLISION_LIMIT: Duration = Duration::from_secs(30);
const EVICTION_PAUSE: Duration = Duration::from_millis(20);
const EVICTION_LIMIT: Duration = Duration::from_secs(10);
/// How long a lost session may take to end.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

fn looking(e: tokio_postgres::Error) -> DatabaseError {
    map_pg_error(&e, "looking at the target")
}

/// Why a database may not be renamed away: what would be destroyed with it or stops the rename.
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
            .map_err(looking)?
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
        .map_err(looking)?;
    Ok(subscription.map(|_| "it has a subscription"))
}

pub(super) async fn swap(
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
                    // The connection broke: the COMMIT may have been done. The OID knows.
                    if settle(claimed, staging).await? {
                        break;
                    }
                    return Err(e.context("swapping the database into place").into());
                }
                if !is_collision(&e) || tokio::time::Instant::now() >= deadline {
                    return Err(final_error(e, claimed).await);
                }
                tracing::debug!(error = %e, "the swap collided, trying again");
                tokio::time::sleep(backoff.next_delay()).await;
            }
        }
    }
    reached("swapped");
    // The target is what it should be: whatever happens from here on, the restore is done.
    if let Err(e) = confirm(claimed, staging).await {
        tracing::warn!(
            error = report(&e),
            "the swap is done, and the target could not be reached since"
        );
    }
    reaper::drop_expired(claimed).await;
    Ok(())
}

/// `tuple concurrently updated`, sessions that have not ended yet, locks, deadlocks.
fn is_collision(e: &DatabaseError) -> bool {
    matches!(
        e.sqlstate(),
        Some("XX000" | "55006" | "55P03" | "40P01" | "40001" | "57014")
    )
}

async fn final_error(e: DatabaseError, claimed: &TargetLock) -> RestoreError {
    let target = &claimed.target;
    match e.sqlstate() {
        Some("42P04" | "23505") => ValidationError::new(
            R::TargetExists,
            format!("database {target} appeared during the restore"),
        )
        .into(),
        Some("55006" | "55P03") => {
            let who = blocking_sessions(claimed).await.unwrap_or_default();
            DatabaseError::new(
                R::TargetUnavailable,
                format!("database {target} stays in use{who}: {e}"),
            )
            .into()
        }
        _ => e.context("swapping the database into place").into(),
    }
}

/// Who is on the target that could not be sent away, in words.
async fn blocking_sessions(claimed: &TargetLock) -> Result<String, DatabaseError> {
    let sql = "SELECT coalesce(string_agg(DISTINCT format('%s%s', usename, CASE WHEN rolsuper THEN ' (a superuser)' END), ', '), '')
        FROM pg_stat_activity JOIN pg_roles ON pg_roles.oid = usesysid WHERE datname = $1";
    let row = claimed
        .lock
        .client()
        .query_one(sql, &[&claimed.target])
        .await
        .map_err(looking)?;
    let names: String = row.get(0);
    Ok(if names.is_empty() {
        String::new()
    } else {
        format!(
            " by {names}, whose sessions {} may not end",
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
    check_again(claimed, staging).await?;
    reached("swap.begun");
    if staging.is_new {
        // It bears a label of ours, and nobody could connect. PUBLIC gets what it has in every new database;
        // what it has in one that is replaced comes below.
        let name = ident(&staging.name);
        lock.run(&format!(
            "COMMENT ON DATABASE {name} IS NULL; GRANT CONNECT, TEMPORARY ON DATABASE {name} TO PUBLIC"
        ))
        .await?;
    }
    for statement in &staging.at_end {
        lock.run(statement)
            .await
            .map_err(|e| e.context("giving the new database to others"))?;
    }
    if let Some(Existing { oid, kept_as }) = &claimed.existing {
        let oid = *oid;
        let carried = if staging.is_new {
            properties(lock.client(), oid, staging).await?
        } else {
            vec![]
        };
        for statement in carried {
            lock.run(&statement)
                .await
                .map_err(|e| e.context("carrying the database's properties over"))?;
        }
        rename(claimed, oid, &claimed.target, kept_as).await?;
        reached("swap.old_renamed");
        let keep = claimed.terms.keep.as_secs_f64() / 3600.0;
        claimed
            .journal
            .own_previous(lock, kept_as, &claimed.request_id, &claimed.target, keep)
            .await?;
    }
    if !staging.is_in_place {
        rename(claimed, staging.oid, &staging.name, &claimed.target).await?;
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
        .finish(lock, &claimed.request_id, claimed.attempt, outcome, true)
        .await?;
    reached("swap.journaled");
    lock.run("COMMIT").await
}

/// The lock is still held by this session, and the name still means what it meant.
async fn check_again(claimed: &TargetLock, staging: &Staging) -> Result<(), DatabaseError> {
    let client = claimed.lock.client();
    let held = client
        .query_opt("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted LIMIT 1", &[])
        .await
        .map_err(looking)?;
    if held.is_none() {
        return Err(DatabaseError::new(
            R::TargetUnavailable,
            "the target's lock is lost",
        ));
    }
    let now = client
        .query_opt(
            "SELECT oid FROM pg_database WHERE datname = $1",
            &[&claimed.target],
        )
        .await
        .map_err(looking)?;
    let in_place = staging.is_in_place.then_some(staging.oid);
    let before = claimed.existing.as_ref().map(|e| e.oid).or(in_place);
    match (now.map(|r| r.get::<_, u32>(0)), before, claimed.on_existing) {
        (now, before, _) if now == before => Ok(()),
        (Some(_), None, OnExisting::Fail | OnExisting::Replace) => {
            let what = format!("database {} appeared during the restore", claimed.target);
            Err(DatabaseError::new(R::TargetExists, what).with_sqlstate("42P04"))
        }
        // object_not_in_prerequisite_state: it is tried again with the new one.
        _ => Err(DatabaseError::new(
            R::TargetUnavailable,
            "the target was replaced by someone else",
        )
        .with_sqlstate("55000")),
    }
}

/// Renames while another session ends the connections that are in the way. The rename locks the
/// database first, so no new ones get in until the transaction ends; and the transaction ends only
/// when no statement that ends connections is on its way any more: it would hit those who come next.
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
async fn terminate_backends(
    claimed: &TargetLock,
    oid: u32,
    renamed: &CancellationToken,
) -> Result<(), DatabaseError> {
    let admin_session = claimed.server.maintenance("eviction");
    let Some(admin_session) = renamed.run_until_cancelled(admin_session).await else {
        return Ok(());
    };
    let admin_session = admin_session?;
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid = $1 AND pid <> pg_backend_pid()";
    while !renamed.is_cancelled() {
        let sent =
            tokio::time::timeout(EVICTION_LIMIT, admin_session.client().execute(sql, &[&oid]))
                .await;
        let lost = |_| {
            DatabaseError::new(
                R::TargetUnavailable,
                "ending sessions on the target takes too long",
            )
        };
        sent.map_err(lost)?
            .map_err(|e| map_pg_error(&e, "ending sessions on the target"))?;
        let _ = renamed
            .run_until_cancelled(tokio::time::sleep(EVICTION_PAUSE))
            .await;
    }
    Ok(())
}

/// Statements that give the staging database what belongs to the target and not to the dump: owner,
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
        .map_err(looking)?;
    let (owner, limit, comment, has_acl): (String, i32, Option<String>, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let mut sql = vec![format!("ALTER DATABASE {name} OWNER TO {}", ident(&owner))];
    if limit != -1 {
        sql.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {limit}"));
    }
    // A label of ours says that a database is half made.
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
        .map_err(looking)?;
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
        .map_err(looking)?;
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
        .map_err(looking)?;
    let statement = |role: Option<String>, setting: &str| {
        let (key, value) = setting.split_once('=')?;
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

/// Settings of other roles in this database: only a superuser can carry them over.
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
        .map_err(looking)?;
    let note = |r: &tokio_postgres::Row| {
        let role: &str = r.get(0);
        format!(
            "settings of role {role} in database {name} (ALTER ROLE … IN DATABASE) are not carried over: only a superuser may"
        )
    };
    Ok(rows.iter().map(note).collect())
}

/// The elements of a list as a setting keeps it, by the rules of `SplitGUCList`; `None` for what is no list, or
/// an empty one. Any role may write such a value, so it never goes into a statement as it is.
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

/// After a broken connection: takes the locks again and asks which name the staging database bears.
async fn settle(claimed: &mut TargetLock, staging: &Staging) -> Result<bool, RestoreError> {
    let session = claimed.server.maintenance("lock").await?;
    let deadline = tokio::time::Instant::now() + SETTLE_LIMIT;
    // The lost session may still be at its COMMIT, with the locks.
    while let Err(e) = super::take_locks(&session, &claimed.target, &claimed.request_id).await {
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

/// Whether a database that had its name before was opened and recorded: the journal knows, or the
/// database itself.
async fn is_recorded(claimed: &TargetLock, staging: &Staging) -> Result<bool, RestoreError> {
    if claimed.journal.is_on() {
        let known = claimed
            .journal
            .look_up(&claimed.lock, &claimed.request_id)
            .await?;
        return Ok(matches!(known, Known::Done { .. }));
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
    Ok(row.map_err(looking)?.map(|r| r.get(0)))
}

/// A new session under the target's name must reach the restored database.
async fn confirm(claimed: &TargetLock, staging: &Staging) -> Result<(), RestoreError> {
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
        Ok(())
    } else {
        Err(DatabaseError::new(
            R::TargetUnavailable,
            "the target's name leads to another database",
        )
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_a_setting_is_split_as_the_server_does() {
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

//! Advisory locks on the names of databases, held by a session.

use std::time::Duration;

use super::names::staging_name;
use crate::error::{DatabaseError, DatabaseKind, RestoreError};
use crate::postgres::{Session, map_pg_error};

/// How often the session that holds the lock is checked.
pub(super) const PING: Duration = Duration::from_secs(5);

/// After how many of these checks, each time, the journal records that the worker is alive: once a minute.
pub(super) const PINGS_PER_SIGN: u32 = 12;

/// How long a claim waits for a lock that is being released, and how often it tries.
pub(super) const LOCK_GRACE: Duration = Duration::from_secs(2);
pub(super) const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How long cleaning up waits for room in the server's table of locks.
const ROOM_LIMIT: Duration = Duration::from_secs(20);

/// Microseconds since 1970 by the server's clock, which all workers share.
pub(super) async fn server_clock(session: &Session) -> Result<i64, DatabaseError> {
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = session.client().query_one(now, &[]).await;
    Ok(row
        .map_err(|e| map_pg_error(&e, "reading the server's clock"))?
        .get(0))
}

/// Locks a request's target and its staging database; the latter keeps the reaper away from it.
pub(super) async fn take_locks(
    session: &Session,
    target: &str,
    request_id: &str,
) -> Result<(), DatabaseError> {
    lock_name(session, target).await?;
    lock_name(session, &staging_name(request_id)).await
}

/// Takes the lock of a database's name on `session`. Retries for a moment, because the session of a restore
/// that has just ended may still be closing.
pub(super) async fn lock_name(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let deadline = tokio::time::Instant::now() + LOCK_GRACE;
    while !try_lock(session, name).await? {
        if tokio::time::Instant::now() >= deadline {
            let what = format!("another session of pgrestored is working on {name}");
            return Err(DatabaseError::new(DatabaseKind::Busy, what));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(())
}

/// Tries to take the lock of a database's name; returns whether `session` holds it now.
pub(super) async fn try_lock(session: &Session, name: &str) -> Result<bool, DatabaseError> {
    let locked = session
        .client()
        .query_one(
            "SELECT pg_try_advisory_lock(hashtextextended('pgrestored:' || $1, 7))",
            &[&name],
        )
        .await;
    Ok(locked
        .map_err(|e| map_pg_error(&e, "locking the target"))?
        .get(0))
}

/// `e`, or an error that the session that holds the lock was lost, of which `e` is then a consequence.
pub(super) async fn unless_lost(lock: &Session, e: RestoreError) -> RestoreError {
    if !matches!(e, RestoreError::Database(_)) {
        return e;
    }
    match tokio::time::timeout(PING, lock.run("SELECT 1")).await {
        Ok(Ok(())) => e,
        _ => DatabaseError::new(
            DatabaseKind::Unavailable,
            "the session that holds the lock was lost",
        )
        .with_source(e)
        .into(),
    }
}

/// Waits for a moment until the server has room for locks. Right after a restore that needed too many, its sessions
/// have not ended yet and still hold them.
pub(super) async fn wait_for_room(session: &Session) {
    let deadline = tokio::time::Instant::now() + ROOM_LIMIT;
    // Reading a catalog that all databases share needs a place in the table that is full.
    while let Err(e) = session.run("SELECT FROM pg_database LIMIT 1").await {
        if e.kind() != DatabaseKind::LocksExhausted || tokio::time::Instant::now() >= deadline {
            return;
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

pub(super) async fn unlock(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let unlocked = session
        .client()
        .execute(
            "SELECT pg_advisory_unlock(hashtextextended('pgrestored:' || $1, 7))",
            &[&name],
        )
        .await;
    unlocked
        .map(drop)
        .map_err(|e| map_pg_error(&e, "unlocking the target"))
}

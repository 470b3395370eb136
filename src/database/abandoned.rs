//! Requests that started but have no outcome: their worker was killed and the message was never redelivered,
//! or the outcome could not be recorded. Once the message is older than the maximum age, no worker will
//! answer them, so they are recorded as failed.

use pgdump_restore::Stage;
use std::time::Duration;

use super::advisory_locks::{try_lock, unlock};
use super::journal::{Journal, RunningRequest};
use super::names::staging_name;
use crate::error::{FailureReason as R, RestoreError, report};
use crate::event::RestoreResult;
use crate::postgres::{Server, Session};

/// How many requests one pass settles.
const BATCH: i64 = 1000;

/// Records a failure for each request that started longer than `max_age` ago and that no worker holds.
/// Returns their ids, and the errors.
pub(super) async fn settle(
    session: &Session,
    journal: Journal,
    max_age: Duration,
) -> Result<(Vec<String>, Vec<String>), RestoreError> {
    let (mut settled, mut failed) = (Vec::new(), Vec::new());
    for row in journal.running(session, max_age, BATCH).await? {
        match settle_one(session, journal, &row).await {
            Ok(true) => settled.push(row.request_id),
            Ok(false) => {}
            Err(e) if session.client().is_closed() => return Err(e),
            Err(e) => failed.push(format!("request {}: {}", row.request_id, report(&e))),
        }
    }
    Ok((settled, failed))
}

async fn settle_one(
    session: &Session,
    journal: Journal,
    row: &RunningRequest,
) -> Result<bool, RestoreError> {
    // A running attempt holds this lock.
    let lock = staging_name(&row.request_id);
    if !try_lock(session, &lock).await? {
        return Ok(false);
    }
    let recorded = match serde_json::to_value(outcome(row)) {
        Ok(outcome) => {
            let done = journal.finish(session, &row.request_id, row.attempt, &outcome, None);
            done.await.map_err(RestoreError::from)
        }
        Err(e) => Err(RestoreError::internal(format!(
            "the outcome cannot be recorded: {e}"
        ))),
    };
    if !session.client().is_closed() {
        unlock(session, &lock).await?;
    }
    match recorded {
        Ok(()) => Ok(true),
        // Another attempt has started meanwhile: the request is not abandoned.
        Err(e) if e.reason() == R::TargetUnavailable && !session.client().is_closed() => Ok(false),
        Err(e) => Err(e),
    }
}

fn outcome(row: &RunningRequest) -> RestoreResult {
    let what = format!(
        "abandoned: the last attempt started at {} and never finished; the restore into {} was not applied",
        row.updated, row.target
    );
    let e = RestoreError::internal(what);
    let mut result = RestoreResult::failure(
        &row.request_id,
        &e,
        Stage::Abandoned,
        (row.created, row.now),
    );
    result.target_db = Some(row.target.clone());
    result
}

/// The ids of requests that started longer than `age` ago, have no outcome, and are held by no worker.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub async fn unended(server: &Server, age: Duration) -> Result<Vec<String>, RestoreError> {
    let session = server
        .without_retry()
        .maintenance("unended requests")
        .await?;
    let journal = Journal::find(&session).await?;
    let mut ids = Vec::new();
    for row in journal.running(&session, age, BATCH).await? {
        let lock = staging_name(&row.request_id);
        if try_lock(&session, &lock).await? {
            unlock(&session, &lock).await?;
            ids.push(row.request_id);
        }
    }
    Ok(ids)
}

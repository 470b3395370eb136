//! Filling a database that exists and is empty, for roles that may not create one. It is loaded in place, so a failure
//! empties it again, and so does whoever comes next after a crash.

use std::time::Duration;

use super::advisory_locks::{LOCK_PAUSE, server_clock};
use super::fill_record::{FillTarget, Marker, Recovered, not_empty, recover};
use super::held_objects::first_objects;
use super::journal::{Journal, RecordKind};
use super::staging::{ProvenStaging, Staging};
use super::target_lock::TargetLock;
use crate::error::{
    DatabaseError, DatabaseKind, RestoreError, ValidationError, ValidationKind, report,
};
use crate::job::{OnExisting, RestoreJob};
use crate::postgres::{NO_DATABASE, Server, Session, ident, map_pg_error};
use crate::steps::reached;

/// How long to wait for a lost session to end on the server.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);

/// A note for the result of a fill.
const NOTE: &str = "filled in place: the database kept its encoding, locale, settings and privileges; nothing was replaced, so `pgrestored rollback` \
    has nothing to bring back";

fn failed(e: tokio_postgres::Error) -> DatabaseError {
    map_pg_error(&e, "looking up the target")
}

fn missing(target: &str) -> RestoreError {
    let what = format!(
        "database {target} does not exist, and --into-empty (in a request, on_existing: fill) fills one that does: create it, \
         or leave that out"
    );
    ValidationError::new(ValidationKind::TargetNotAllowed, what).into()
}

/// The session that holds the locks of a claim. It is on the maintenance database, or on the target where a role that
/// fills it may not connect to any other.
///
/// # Errors
/// `target_not_allowed` if the target does not exist; errors of the connection.
pub(super) async fn lock_session(
    server: &Server,
    target: &str,
    on_existing: OnExisting,
) -> Result<Session, RestoreError> {
    use DatabaseKind as D;
    let is_closed = |e: &DatabaseError| {
        matches!(
            e.kind(),
            D::InsufficientPrivilege | D::AccessDenied | D::MaintenanceMissing
        )
    };
    match server.maintenance("lock").await {
        Err(e) if on_existing == OnExisting::Fill && is_closed(&e) => {
            match server.connect(target, "lock").await {
                Err(e) if e.sqlstate() == Some(NO_DATABASE) => Err(missing(target)),
                other => Ok(other?),
            }
        }
        other => Ok(other?),
    }
}

/// Whether a session is on this database.
async fn is_on(session: &Session, database: &str) -> Result<bool, DatabaseError> {
    let sql = "SELECT current_database() = $1";
    let row = session.client().query_one(sql, &[&database]).await;
    Ok(row.map_err(failed)?.get(0))
}

/// The journal of a claim. A database that is to be filled does not get one.
pub(super) async fn journal_of(lock: &Session, job: &RestoreJob) -> Result<Journal, DatabaseError> {
    if job.on_existing == OnExisting::Fill && is_on(lock, &job.target_db).await? {
        return Ok(Journal::off());
    }
    Journal::open(lock).await
}

/// The database that a job fills, locked, and the outcome of the job if an earlier attempt passed its commit point.
/// What such an attempt of any job left is finished. Nothing for jobs that fill none, or one that does not exist.
pub(super) async fn open_target(
    server: &Server,
    journal: (&Session, Journal),
    job: &RestoreJob,
) -> Result<(Option<FillTarget>, Option<serde_json::Value>), RestoreError> {
    if job.on_existing != OnExisting::Fill {
        return Ok((None, None));
    }
    let Some(filling) = FillTarget::open(server, &job.target_db).await? else {
        return Ok((None, None));
    };
    let marker = filling.marker().await?;
    let Some(marker) = marker.filter(|m| m.outcome.is_some()) else {
        return Ok((Some(filling), None));
    };
    filling.finish(&marker, journal).await?;
    let ours = |o: &serde_json::Value| o["request_id"].as_str() == Some(job.request_id.as_str());
    Ok((Some(filling), marker.outcome.filter(ours)))
}

impl TargetLock {
    /// Whether the target is filled, and not exchanged.
    pub fn is_fill(&self) -> bool {
        self.on_existing == OnExisting::Fill
    }

    /// What the result of a restore into the target says of a fill that has succeeded.
    pub fn note_of_fill(&self) -> Option<String> {
        self.is_fill().then(|| NOTE.to_owned())
    }

    fn fill_target(&self) -> Result<&FillTarget, RestoreError> {
        self.fill_target
            .as_ref()
            .ok_or_else(|| missing(&self.target))
    }

    /// What an attempt that was killed has put into the database is removed; then the database must be empty. Returns
    /// notes for the result.
    ///
    /// # Errors
    /// `target_not_allowed` if the database does not exist, `target_exists` if it is not empty,
    /// `insufficient_privilege`, `target_unavailable`.
    pub(super) async fn check_fill(&self) -> Result<Vec<String>, RestoreError> {
        let filling = self.fill_target()?;
        if let Some(marker) = filling.marker().await? {
            filling.empty(&marker).await?;
        }
        let sql = "SELECT has_database_privilege(oid, 'CREATE'), pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba)::text
            FROM pg_database WHERE datname = current_database()";
        let row = filling.session.client().query_one(sql, &[]).await;
        let row = row.map_err(failed)?;
        let (may_create, is_owner, owner): (bool, bool, &str) =
            (row.get(0), row.get(1), row.get(2));
        let (me, target) = (self.server.user(), &self.target);
        if !may_create {
            let what = format!(
                "role {me} may not create schemas in database {target}: GRANT CREATE ON DATABASE {} TO {}",
                ident(target),
                ident(me)
            );
            return Err(DatabaseError::new(DatabaseKind::InsufficientPrivilege, what).into());
        }
        let found = first_objects(&filling.session).await?;
        if !found.is_empty() {
            return Err(not_empty(target, &found));
        }
        let mut notes = vec![];
        if !is_owner {
            notes.push(format!(
                "others could connect to database {target} while it was filled: only its owner {owner} can close it, and role {me} is not a member of {owner}"
            ));
        }
        if is_on(&self.lock, target).await? {
            notes.push(format!(
                "locked in database {target} alone, because role {me} may not use another (DB_MAINTENANCE_NAME): workers that would replace the \
                 database do not see this lock"
            ));
        }
        Ok(notes)
    }

    /// Records in the database that it is filled. What an earlier try under this claim has left is removed before.
    ///
    /// # Errors
    /// `target_exists` if it is not empty any more, `insufficient_privilege`, `target_unavailable`.
    pub async fn begin_fill(&self) -> Result<Staging, RestoreError> {
        let filling = self.fill_target()?;
        if let Some(marker) = filling.marker().await? {
            filling.empty(&marker).await?;
        }
        let attempt = self.attempt.to_string();
        filling.begin(&self.staging_name(), &attempt).await?;
        reached("fill.marked");
        Ok(Staging {
            oid: filling.oid,
            is_new: false,
            is_in_place: true,
            ..Staging::named(&self.target)
        })
    }

    /// Declares the filled database complete, in one statement, and opens it. After that statement nothing fails.
    ///
    /// # Errors
    /// `target_unavailable`. The database is then emptied by [`TargetLock::discard`].
    pub async fn finish_fill(
        &mut self,
        filled: &ProvenStaging,
        outcome: &serde_json::Value,
    ) -> Result<(), RestoreError> {
        // Whoever has lost the lock of the name may no longer be the only one.
        server_clock(&self.lock).await?;
        reached("fill.checked");
        let (staging, attempt) = (self.staging_name(), self.attempt.to_string());
        let committed = self
            .fill_target()?
            .commit((&staging, &attempt), outcome)
            .await;
        if let Err(e) = committed {
            let is_broken = e.sqlstate().is_none_or(|code| code.starts_with("57P0"));
            if !is_broken || !self.is_committed(&staging, &attempt).await? {
                return Err(e.context("completing the filled database").into());
            }
        }
        reached("fill.committed");
        let (journal, lock) = (self.journal, &self.lock);
        let done = journal
            .finish(
                lock,
                &self.request_id,
                self.attempt,
                outcome,
                Some(filled.oid),
            )
            .await;
        if let Err(e) = done {
            tracing::warn!(
                error = report(&e),
                "the database is filled, but that could not be recorded in the journal"
            );
        }
        reached("fill.journaled");
        if let Err(e) = self.open_filled(&staging).await {
            tracing::warn!(
                error = report(&e),
                "the database is filled, but the record of that in it was not removed: the next restore into it does that"
            );
        }
        reached("fill.opened");
        Ok(())
    }

    async fn open_filled(&self, staging: &str) -> Result<(), RestoreError> {
        let filling = self.fill_target()?;
        if let Some(marker) = filling.marker().await? {
            filling.open_again(&marker).await?;
        }
        Ok(self.journal.forget_database(&self.lock, staging).await?)
    }

    /// After a broken connection: locks the contents again and looks whether the commit point has passed.
    async fn is_committed(&mut self, staging: &str, attempt: &str) -> Result<bool, RestoreError> {
        let filling = self.reopened().await?;
        let marker = filling.marker().await?;
        let is_ours = |m: &Marker| m.staging == staging && m.attempt == attempt;
        Ok(marker.is_some_and(|m| is_ours(&m) && m.outcome.is_some()))
    }

    /// The database with a session that is alive. The server takes a while to notice that the lost one is gone.
    async fn reopened(&mut self) -> Result<&FillTarget, RestoreError> {
        let is_lost = |f: &FillTarget| f.session.client().is_closed();
        if self.fill_target.as_ref().is_some_and(is_lost) {
            let deadline = tokio::time::Instant::now() + SETTLE_LIMIT;
            self.fill_target = loop {
                match FillTarget::open(&self.server, &self.target).await {
                    Err(e)
                        if e.kind() == DatabaseKind::Busy
                            && tokio::time::Instant::now() < deadline =>
                    {
                        tokio::time::sleep(LOCK_PAUSE).await;
                    }
                    other => break other?,
                }
            };
        }
        self.fill_target()
    }

    /// Empties the database if this attempt was filling it.
    ///
    /// # Errors
    /// Why it could not be emptied; the next attempt does that.
    pub(super) async fn empty_again(&mut self) -> Result<(), RestoreError> {
        if self.fill_target.is_none() {
            return Ok(());
        }
        let (staging, attempt) = (self.staging_name(), self.attempt.to_string());
        let filling = self.reopened().await?;
        match filling.marker().await? {
            // Another attempt may have taken over meanwhile, and a fill that is complete stays.
            Some(m) if m.staging == staging && m.attempt == attempt && m.outcome.is_none() => {
                Ok(filling.empty(&m).await?)
            }
            _ => Ok(()),
        }
    }

    /// Empties the target if a restore that was to fill it was killed, as far as the journal knows of it. For claims that
    /// do something else with it.
    pub(super) async fn recover_fill(&self) -> Result<(), DatabaseError> {
        let recorded = self.journal.owned(&self.lock, Some(&self.target)).await?;
        let staging = recorded.iter().filter(|o| o.kind == RecordKind::Staging);
        for database in staging.filter(|o| !o.is_in_place()) {
            let names = (self.target.as_str(), database.name.as_str());
            let journal = (&self.lock, self.journal);
            match recover(&self.server, journal, names).await? {
                Recovered::Nothing | Recovered::Emptied | Recovered::Finished => {}
                Recovered::InUse => {
                    let what = format!("another restore is filling database {}", self.target);
                    return Err(DatabaseError::new(DatabaseKind::Busy, what));
                }
            }
        }
        Ok(())
    }
}

/// Finishes a fill whose outcome is recorded already, as far as it can be reached: its worker was killed right after.
pub(super) async fn finish_recorded(
    server: &Server,
    journal: (&Session, Journal),
    job: &RestoreJob,
) {
    if let Err(e) = open_target(server, journal, job).await {
        tracing::warn!(
            error = report(&e),
            "the record of a completed fill was not removed from its database: the next restore into it does that"
        );
    }
}

//! Claiming a target: lock it, record the attempt, and check everything that can be checked before a byte is read.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;

use super::advisory_locks::{server_clock, take_locks};
use super::fill::{finish_recorded, journal_of, lock_session, open_target};
use super::journal::RequestStatus;
use super::names::previous_name;
use super::powers::{may_act_as, membership_options};
use super::swap;
use super::target_lock::{ClaimPolicy, Existing, TargetLock};
use super::work::ClaimedWork;
use crate::config::format_duration;
use crate::error::{DatabaseError, DatabaseKind, RestoreError, ValidationError, ValidationKind};
use crate::job::{OnExisting, RestoreJob};
use crate::postgres::{Server, ident, map_pg_error};
use crate::steps::reached;

/// The result of a claim.
pub enum Claim {
    /// The target is locked until the value is dropped.
    Granted(Box<TargetLock>),
    /// The request already has an outcome: the body of its result event.
    Done(serde_json::Value),
}

/// Reads the outcome that an earlier attempt of a command recorded.
///
/// # Errors
/// `internal` if it has another form.
pub(super) fn recorded<T: serde::de::DeserializeOwned>(
    outcome: serde_json::Value,
) -> Result<T, RestoreError> {
    serde_json::from_value(outcome)
        .map_err(|e| RestoreError::internal(format!("the recorded outcome cannot be read: {e}")))
}

/// Locks the target of `job` and records that this attempt works on it.
///
/// # Errors
/// `target_busy` if another restore holds the target, `invalid_request` if the id was used for another
/// request, `target_unavailable`.
pub async fn claim(
    server: &Server,
    job: &RestoreJob,
    policy: ClaimPolicy,
) -> Result<Claim, RestoreError> {
    let lock = lock_session(server, &job.target_db, job.on_existing).await?;
    take_locks(&lock, &job.target_db, &job.request_id).await?;
    let journal = journal_of(&lock, job).await?;
    let reused = || {
        let what = format!(
            "request_id {} was already used for another request: use a new one",
            job.request_id
        );
        Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
    };
    let (crashed_attempts, failed_attempts) = match journal.look_up(&lock, &job.request_id).await? {
        RequestStatus::Done { digest, outcome } if digest == job.digest => {
            finish_recorded(server, (&lock, journal), job).await;
            return Ok(Claim::Done(outcome));
        }
        RequestStatus::Unfinished {
            digest,
            starts,
            failures,
        } if digest == job.digest => (starts.unsigned_abs(), failures.unsigned_abs()),
        RequestStatus::Done { .. } | RequestStatus::Unfinished { .. } => return reused(),
        RequestStatus::New => (0, 0),
    };
    let (fill_target, outcome) = open_target(server, (&lock, journal), job).await?;
    if let Some(outcome) = outcome {
        return Ok(Claim::Done(outcome));
    }
    let published_us = match job.published_us {
        Some(published) => published,
        None => server_clock(&lock).await?,
    };
    let work = if journal.works() && job.on_existing != OnExisting::Fill {
        ClaimedWork::Unknown
    } else {
        ClaimedWork::Nothing
    };
    let claimed = TargetLock {
        server: server.clone(),
        lock,
        journal,
        request_id: job.request_id.clone(),
        target: job.target_db.clone(),
        on_existing: job.on_existing,
        published_us,
        attempt: uuid::Uuid::new_v4(),
        crashed_attempts: crashed_attempts.into(),
        failed_attempts,
        policy,
        existing: None,
        fill_target,
        pooled: OnceLock::new(),
        work: work.into(),
        work_begun: tokio::sync::Notify::new(),
    };
    claimed
        .journal
        .begin(&claimed.lock, &claimed.row(&job.digest))
        .await?;
    reached("claimed");
    Ok(Claim::Granted(Box::new(claimed)))
}

impl TargetLock {
    /// Checks everything that can be checked before a byte is read: the order of requests, privileges, and
    /// the existing database. `delivery` counts from 1. Returns notes for the result.
    ///
    /// # Errors
    /// `target_not_allowed` if a newer request has been applied or the database must not be replaced,
    /// `target_exists`, `insufficient_privilege`, `internal` for a quarantined request,
    /// `target_unavailable`.
    pub async fn check(&mut self, delivery: u32) -> Result<Vec<String>, RestoreError> {
        if self.is_quarantined(delivery) {
            let crashed = if self.journal.is_on() {
                self.crashed_attempts.load(Relaxed)
            } else {
                delivery.saturating_sub(1)
            };
            let what = match crashed {
                1 => "quarantined: one earlier attempt crashed without reporting".to_owned(),
                n => format!("quarantined: {n} earlier attempts crashed without reporting"),
            };
            return Err(RestoreError::internal(what));
        }
        let age = server_clock(&self.lock)
            .await?
            .saturating_sub(self.published_us);
        if age > i64::try_from(self.policy.max_age.as_micros()).unwrap_or(i64::MAX) {
            let what = format!(
                "superseded: the request was published longer ago than {} (REQUEST_MAX_AGE)",
                format_duration(self.policy.max_age)
            );
            return Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into());
        }
        if let Some(newer) = self
            .journal
            .newer(&self.lock, &self.target, self.published_us)
            .await?
        {
            let lost = self.lost_work().await?;
            let what = format!(
                "superseded: the newer request {newer} has already been restored into {}{lost}",
                self.target
            );
            return Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into());
        }
        self.check_target().await
    }

    /// Checks that the new database can get the owner of the one that it replaces. Renaming that one needs less.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn check_owner_of_replaced(&self) -> Result<(), RestoreError> {
        let Some(existing) = &self.existing else {
            return Ok(());
        };
        let sql = format!(
            "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE oid = $1 AND NOT {}",
            may_act_as(self.lock.version(), "datdba")
        );
        let found = self.lock.client().query_opt(&sql, &[&existing.oid]).await;
        match found.map_err(|e| map_pg_error(&e, "looking up the target"))? {
            Some(row) => Err(self.not_a_member(row.get(0))),
            None => Ok(()),
        }
    }

    fn not_a_member(&self, owner: &str) -> RestoreError {
        let me = self.server.user();
        let what = format!(
            "role {me} is not a member of the role that owns {}: GRANT {} TO {}{}",
            self.target,
            ident(owner),
            ident(me),
            membership_options(self.lock.version())
        );
        DatabaseError::new(DatabaseKind::InsufficientPrivilege, what).into()
    }

    /// What an earlier attempt had loaded and a newer request has dropped, as the end of a sentence that names that one.
    async fn lost_work(&self) -> Result<String, RestoreError> {
        let found = self.find_work().await?;
        let Some(lost) = found.filter(|work| work.displaced_by.is_some()) else {
            return Ok(String::new());
        };
        // Nobody asks for it again.
        self.journal.forget_work(&self.lock, &lost.name).await?;
        let rows = lost.rows;
        Ok(format!(
            ", and the {rows} rows that this one had loaded under that name were dropped for it"
        ))
    }

    /// Whether attempts of this request have crashed so often that no further one is made. Without a journal,
    /// every earlier delivery counts as a crash.
    pub fn is_quarantined(&self, delivery: u32) -> bool {
        if self.journal.is_on() {
            self.crashed_attempts.load(Relaxed) >= self.policy.deaths
        } else {
            delivery > self.policy.deaths
        }
    }

    async fn check_target(&mut self) -> Result<Vec<String>, RestoreError> {
        if self.is_fill() {
            return self.check_fill().await;
        }
        self.recover_fill().await?;
        // Whatever is unfinished was left by a dead attempt, because this session holds the lock of its name. What this
        // request can continue is dropped only once that is refused.
        let found = self.find_work().await?;
        let is_continued = found.is_some_and(|w| w.name == self.target && w.is_there(&self.target));
        let is_unfinished = is_continued || self.goes_before_waiting().await?;
        if !is_unfinished {
            self.drop_unfinished().await?;
        }
        let e = |e: tokio_postgres::Error| map_pg_error(&e, "looking up the target");
        let client = self.lock.client();
        let me = client
            .query_one(
                "SELECT rolsuper OR rolcreatedb, rolsuper FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .await
            .map_err(e)?;
        let (may_create, is_superuser): (bool, bool) = (me.get(0), me.get(1));
        if !may_create {
            let what = format!(
                "role {0} may not create databases: ALTER ROLE {1} CREATEDB, or fill a database that exists and is empty (--into-empty, in a request on_existing: fill)",
                self.server.user(),
                ident(self.server.user())
            );
            return Err(DatabaseError::new(DatabaseKind::InsufficientPrivilege, what).into());
        }
        let found = client
            .query_opt(
                "SELECT oid, datistemplate, pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba)::text
                 FROM pg_database WHERE datname = $1",
                &[&self.target],
            )
            .await
            .map_err(e)?;
        // An unfinished database is not one that is there.
        let Some(row) = found.filter(|_| !is_unfinished) else {
            return Ok(vec![]);
        };
        let (oid, is_template, mine): (u32, bool, bool) = (row.get(0), row.get(1), row.get(2));
        let refuse = |kind, what: String| Err(RestoreError::from(ValidationError::new(kind, what)));
        if self.on_existing == OnExisting::Fail {
            return refuse(
                ValidationKind::TargetExists,
                format!(
                    "database {0} already exists: to replace it, use --on-existing replace (in a request, on_existing: replace); \
                     `pgrestored rollback {0}` then brings it back",
                    self.target
                ),
            );
        }
        if is_template {
            return refuse(
                ValidationKind::TargetNotAllowed,
                format!("database {} is a template", self.target),
            );
        }
        if !mine {
            return Err(self.not_a_member(row.get(3)));
        }
        if let Some(why) = swap::swap_blocker(client, oid, &self.target).await? {
            return refuse(
                ValidationKind::TargetNotAllowed,
                format!("database {} cannot be replaced: {why}", self.target),
            );
        }
        let notes = if is_superuser {
            vec![]
        } else {
            swap::settings_of_others(client, oid, &self.target).await?
        };
        let kept_as = previous_name(&self.target, server_clock(&self.lock).await?);
        self.existing = Some(Existing { oid, kept_as });
        Ok(notes)
    }
}

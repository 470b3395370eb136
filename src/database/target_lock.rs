//! The locked target of one job: the session that holds the lock, the journal, and what they record.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::advisory_locks;
use super::fill_record::FillTarget;
use super::journal::{DatabaseRecord, Journal, JournalRow, RecordKind, RequestStatus};
use super::names::staging_name;
use super::pooled::Pooled;
use super::work::{ClaimedWork, ResumeTerms};
use crate::error::{RestoreError, report};
use crate::job::OnExisting;
use crate::postgres::{Server, Session};

/// Settings that apply to every claim of a worker.
#[derive(Debug, Clone, Copy)]
pub struct ClaimPolicy {
    /// How long a replaced database is kept for a rollback.
    pub keep: Duration,
    /// How long a swap waits for sessions that may not be terminated; `None`: it does not wait, and tries for a while.
    pub swap_when_idle: Option<Duration>,
    /// Number of crashed attempts after which a request is quarantined, because it may be what kills workers.
    pub deaths: u32,
    /// Requests that were published longer ago are rejected.
    pub max_age: Duration,
    /// Under which conditions what waits for its next attempt is left alone.
    pub resume: ResumeTerms,
}

/// The locked target of one job.
pub struct TargetLock {
    pub(super) server: Server,
    /// The session that holds the locks, writes the journal and performs the swap.
    pub(super) lock: Session,
    pub(super) journal: Journal,
    pub(super) request_id: String,
    pub(super) target: String,
    pub(super) on_existing: OnExisting,
    /// When the request was published, or, of a command, when it was claimed: microseconds since 1970. Orders the requests
    /// for a target.
    pub(super) published_us: i64,
    pub(super) attempt: uuid::Uuid,
    /// Earlier attempts that crashed without reporting, and without getting further than those before them.
    pub(super) crashed_attempts: AtomicU32,
    /// Earlier attempts that failed.
    pub(super) failed_attempts: u32,
    pub(super) policy: ClaimPolicy,
    /// The database that currently has the target's name.
    pub(super) existing: Option<Existing>,
    /// The target, if it exists and is to be filled.
    pub(super) fill_target: Option<FillTarget>,
    /// The role of `DB_RESTRICTED_USER` that loads; its name is locked.
    pub(super) pooled: OnceLock<Pooled>,
    /// Work that can be continued: of an earlier attempt, or of this one.
    pub(super) work: Mutex<ClaimedWork>,
    /// This attempt has work of its own.
    pub(super) work_begun: Notify,
}

pub(super) struct Existing {
    pub(super) oid: u32,
    /// The name under which it is kept after it has been replaced.
    pub(super) kept_as: String,
}

impl TargetLock {
    pub(super) fn row<'a>(&'a self, digest: &'a str) -> JournalRow<'a> {
        JournalRow {
            request_id: &self.request_id,
            digest,
            target: &self.target,
            published_us: self.published_us,
            attempt: self.attempt,
        }
    }

    /// The journal's record of the staging database of this request, which is called `name`.
    pub(super) fn staging_record<'a>(&'a self, name: &'a str) -> DatabaseRecord<'a> {
        DatabaseRecord {
            kind: RecordKind::Staging,
            name,
            request_id: &self.request_id,
            target: &self.target,
            keep_hours: None,
        }
    }

    /// The journal's record of the database that this request replaces, which is kept as `name`.
    pub(super) fn previous_record<'a>(&'a self, name: &'a str) -> DatabaseRecord<'a> {
        DatabaseRecord {
            kind: RecordKind::Previous,
            keep_hours: Some(self.policy.keep.as_secs_f64() / 3600.0),
            ..self.staging_record(name)
        }
    }

    /// Whether the journal is available. Without it, recovery from a crash is less precise.
    pub fn has_journal(&self) -> bool {
        self.journal.is_on()
    }

    /// The name under which the replaced database will be kept.
    pub fn previous_name(&self) -> Option<&str> {
        self.existing.as_ref().map(|e| e.kept_as.as_str())
    }

    /// Returns `e`, or an error that the lock was lost. In that case other workers may already have cleaned
    /// up after this attempt, and `e` is merely a consequence.
    pub async fn unless_lost(&self, e: RestoreError) -> RestoreError {
        advisory_locks::unless_lost(&self.lock, e).await
    }

    /// Returns when the session that holds the lock is lost. `share`: how much of the restore is done, from 0 to 1.
    pub async fn lost(&self, share: &(dyn Fn() -> f64 + Sync)) -> RestoreError {
        let mut pings = 0_u32;
        loop {
            tokio::time::sleep(advisory_locks::PING).await;
            if let Err(e) = self.lock.run("SELECT 1").await {
                return e.context("the session that holds the target's lock").into();
            }
            if let Some(filling) = &self.fill_target
                && let Err(e) = filling.session.run("SELECT 1").await
            {
                let what = "the session that holds the lock of the target's contents";
                return e.context(what).into();
            }
            // So that work whose worker is killed is known to be young.
            pings = pings.wrapping_add(1);
            if pings.is_multiple_of(advisory_locks::PINGS_PER_SIGN) {
                self.sign(share()).await;
            }
        }
    }

    async fn sign(&self, share: f64) {
        let done = self.work_done(share).unwrap_or_default();
        let touched = self.journal.touch_work(&self.lock, &self.request_id, &done);
        if let Err(e) = touched.await {
            tracing::debug!(error = %e, "the age of the work was not recorded");
        }
    }

    /// The name of the staging database, the same for every attempt of a request.
    pub fn staging_name(&self) -> String {
        staging_name(&self.request_id)
    }

    /// The session that holds the target's lock, for queries.
    pub fn session(&self) -> &Session {
        &self.lock
    }

    /// Records the outcome of a failed request. If the request was applied after all, by a swap whose result
    /// did not reach the worker, the recorded outcome stays and is returned.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn record_failure(
        &self,
        outcome: &serde_json::Value,
    ) -> Result<Option<serde_json::Value>, RestoreError> {
        if let RequestStatus::Done { outcome, .. } =
            self.journal.look_up(&self.lock, &self.request_id).await?
        {
            return Ok(Some(outcome));
        }
        self.journal
            .finish(&self.lock, &self.request_id, self.attempt, outcome, None)
            .await?;
        Ok(None)
    }

    /// Records that this attempt ended in an orderly way, without an outcome. `has_failed`: it counts among the attempts that
    /// a request has.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn release(&self, has_failed: bool) -> Result<(), RestoreError> {
        let this = (self.request_id.as_str(), self.attempt);
        Ok(self.journal.release(&self.lock, this, has_failed).await?)
    }

    /// Records that this attempt ended before it began anything, because the target, or a role, is busy: it is no crash, and
    /// does not show that the request kills no workers.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn withdraw(&self) -> Result<(), RestoreError> {
        let this = (self.request_id.as_str(), self.attempt);
        Ok(self.journal.withdraw(&self.lock, this).await?)
    }

    /// Whether earlier attempts have failed, or have died before they got further: they count.
    pub fn has_past(&self) -> bool {
        self.failed_attempts > 0 || self.crashed_attempts.load(Relaxed) > 0
    }

    /// The number of this attempt among those that count, from 1: attempts that failed, and those that died before they got
    /// further than the ones before them. Nobody's failure is an attempt that was stopped, or that lost its worker or its lock
    /// in the middle of its work. Without a journal, all deliveries count.
    pub fn counted_attempt(&self, delivery: u32) -> u32 {
        if !self.journal.works() {
            return delivery;
        }
        let crashed = self.crashed_attempts.load(Relaxed);
        let earlier = self.failed_attempts.saturating_add(crashed);
        earlier.saturating_add(1).min(delivery)
    }

    /// Removes the record of this attempt, which changed nothing. For a person's command: nobody repeats it by itself,
    /// so its record would say for ever that it runs.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn forget(&self) -> Result<(), RestoreError> {
        Ok(self
            .journal
            .forget(&self.lock, &self.request_id, self.attempt)
            .await?)
    }

    /// Returns `done`. A failed attempt of a person's command is forgotten, so that the command can be repeated.
    pub(super) async fn forget_on_failure<T>(
        &self,
        done: Result<T, RestoreError>,
    ) -> Result<T, RestoreError> {
        if done.is_err()
            && let Err(e) = self.forget().await
        {
            tracing::warn!(
                error = report(&e),
                "failed to record the end of the attempt"
            );
        }
        done
    }
}

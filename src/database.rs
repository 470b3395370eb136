//! Databases on the target server. A restore claims its target with an advisory lock on one session, loads
//! into its own staging database and, once that is proven, swaps it into place in one transaction on the
//! same session. That is the fencing: a worker that loses the session loses the lock, and can no longer
//! swap.

mod abandoned;
mod confinement;
mod in_place;
mod journal;
mod pooled;
mod powers;
mod reaper;
mod rollback;
mod staging;
mod swap;

use std::sync::OnceLock;
use std::time::Duration;

use crate::error::{DatabaseError, FailureReason as R, RestoreError, ValidationError};
use crate::job::{OnExisting, RestoreJob};
use crate::postgres::{Server, ServerFacts, Session, ident, map_pg_error};
use crate::steps::reached;
use journal::{Journal, Known, RecordKind};
use pooled::Pooled;

pub use abandoned::unended;
pub use confinement::{Loader, check_restricted};
pub use reaper::{Reaped, reap};
pub use rollback::{RetainedDatabase, RolledBack, kept, rollback};
pub use staging::{CreateOptions, OTHER_LOCALE, ProvenStaging, Staging};

/// How often the session that holds the lock is checked.
const PING: Duration = Duration::from_secs(5);

/// How long a claim waits for a lock that is being released, and how often it tries.
const LOCK_GRACE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The result of a claim.
pub enum Claim {
    /// The target is locked until the value is dropped.
    Granted(Box<TargetLock>),
    /// The request already has an outcome: the body of its result event.
    Done(serde_json::Value),
}

/// Settings that apply to every claim of a worker.
#[derive(Debug, Clone, Copy)]
pub struct ClaimPolicy {
    /// How long a replaced database is kept for a rollback.
    pub keep: Duration,
    /// Number of crashed attempts after which a request is quarantined, because it may be what kills workers.
    pub deaths: u32,
    /// Requests that were published longer ago are rejected.
    pub max_age: Duration,
}

/// The locked target of one job.
pub struct TargetLock {
    server: Server,
    /// The session that holds the locks, writes the journal and performs the swap.
    lock: Session,
    journal: Journal,
    request_id: String,
    target: String,
    on_existing: OnExisting,
    sequence: i64,
    attempt: uuid::Uuid,
    /// Earlier attempts that crashed without reporting.
    crashed_attempts: u32,
    policy: ClaimPolicy,
    /// The database that currently has the target's name.
    existing: Option<Existing>,
    /// The role of `DB_RESTRICTED_USER` that loads; its name is locked.
    pooled: OnceLock<Pooled>,
}

struct Existing {
    oid: u32,
    /// The name under which it is kept after it has been replaced.
    kept_as: String,
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
    let lock = server.maintenance("lock").await?;
    take_locks(&lock, &job.target_db, &job.request_id).await?;
    let journal = Journal::open(&lock).await?;
    let reused = || {
        let what = format!(
            "request_id {} was already used for another request: use a new one",
            job.request_id
        );
        Err(ValidationError::new(R::InvalidRequest, what).into())
    };
    let crashed_attempts = match journal.look_up(&lock, &job.request_id).await? {
        Known::Done { digest, outcome } if digest == job.digest => return Ok(Claim::Done(outcome)),
        Known::Unfinished { digest, starts } if digest == job.digest => starts.unsigned_abs(),
        Known::Done { .. } | Known::Unfinished { .. } => return reused(),
        Known::New => 0,
    };
    let sequence = match job.sequence {
        Some(published) => published,
        None => server_clock(&lock).await?,
    };
    let claimed = TargetLock {
        server: server.clone(),
        lock,
        journal,
        request_id: job.request_id.clone(),
        target: job.target_db.clone(),
        on_existing: job.on_existing,
        sequence,
        attempt: uuid::Uuid::new_v4(),
        crashed_attempts,
        policy,
        existing: None,
        pooled: OnceLock::new(),
    };
    claimed
        .journal
        .begin(&claimed.lock, &claimed.row(&job.digest))
        .await?;
    reached("claimed");
    Ok(Claim::Granted(Box::new(claimed)))
}

/// Microseconds since 1970 by the server's clock, which all workers share.
async fn server_clock(session: &Session) -> Result<i64, DatabaseError> {
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = session.client().query_one(now, &[]).await;
    Ok(row
        .map_err(|e| map_pg_error(&e, "reading the server's clock"))?
        .get(0))
}

/// Locks a request's target and its staging database; the latter keeps the reaper away from it.
async fn take_locks(
    session: &Session,
    target: &str,
    request_id: &str,
) -> Result<(), DatabaseError> {
    lock_name(session, target).await?;
    lock_name(session, &staging::name_for(request_id)).await
}

/// Takes the lock of a database's name on `session`. Retries for a moment, because the session of a restore
/// that has just ended may still be closing.
async fn lock_name(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let deadline = tokio::time::Instant::now() + LOCK_GRACE;
    while !try_lock(session, name).await? {
        if tokio::time::Instant::now() >= deadline {
            let what = format!("another session of pgrestored is working on {name}");
            return Err(DatabaseError::new(R::TargetBusy, what));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(())
}

/// Tries to take the lock of a database's name; returns whether `session` holds it now.
async fn try_lock(session: &Session, name: &str) -> Result<bool, DatabaseError> {
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

async fn unless_lost(lock: &Session, e: RestoreError) -> RestoreError {
    if !matches!(e, RestoreError::Database(_)) {
        return e;
    }
    match tokio::time::timeout(PING, lock.run("SELECT 1")).await {
        Ok(Ok(())) => e,
        _ => DatabaseError::new(
            R::TargetUnavailable,
            "the session that holds the lock was lost",
        )
        .with_source(e)
        .into(),
    }
}

async fn unlock(session: &Session, name: &str) -> Result<(), DatabaseError> {
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

impl TargetLock {
    fn row<'a>(&'a self, digest: &'a str) -> journal::Row<'a> {
        journal::Row {
            request_id: &self.request_id,
            digest,
            target: &self.target,
            sequence: self.sequence,
            attempt: self.attempt,
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

    /// Checks everything that can be checked before a byte is read: the order of requests, privileges, and
    /// the existing database. `delivery` counts from 1. Returns notes for the result.
    ///
    /// # Errors
    /// `target_not_allowed` if a newer request has been applied or the database must not be replaced,
    /// `target_exists`, `insufficient_privilege`, `internal` for a quarantined request,
    /// `target_unavailable`.
    pub async fn check(&mut self, delivery: u32) -> Result<Vec<String>, RestoreError> {
        if self.is_quarantined(delivery) {
            let what = match self.crashed_attempts.max(delivery - 1) {
                1 => "quarantined: one earlier attempt crashed without reporting".to_owned(),
                n => format!("quarantined: {n} earlier attempts crashed without reporting"),
            };
            return Err(RestoreError::internal(what));
        }
        let age = server_clock(&self.lock)
            .await?
            .saturating_sub(self.sequence);
        if age > i64::try_from(self.policy.max_age.as_micros()).unwrap_or(i64::MAX) {
            let what = format!(
                "superseded: the request was published longer ago than {:?} (REQUEST_MAX_AGE)",
                self.policy.max_age
            );
            return Err(ValidationError::new(R::TargetNotAllowed, what).into());
        }
        if let Some(newer) = self
            .journal
            .newer(&self.lock, &self.target, self.sequence)
            .await?
        {
            let what = format!(
                "superseded: the newer request {newer} has already been restored into {}",
                self.target
            );
            return Err(ValidationError::new(R::TargetNotAllowed, what).into());
        }
        self.check_target().await
    }

    /// Whether attempts of this request have crashed so often that no further one is made. Without a journal,
    /// every earlier delivery counts as a crash.
    pub fn is_quarantined(&self, delivery: u32) -> bool {
        if self.journal.is_on() {
            self.crashed_attempts >= self.policy.deaths
        } else {
            delivery > self.policy.deaths
        }
    }

    async fn check_target(&mut self) -> Result<Vec<String>, RestoreError> {
        // Whatever is unfinished was left by a dead attempt, because this session holds the lock of its name.
        self.drop_unfinished().await?;
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
                "role {0} may not create databases: ALTER ROLE {1} CREATEDB",
                self.server.user(),
                ident(self.server.user())
            );
            return Err(DatabaseError::new(R::InsufficientPrivilege, what).into());
        }
        let found = client
            .query_opt(
                "SELECT oid, datistemplate, pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba)::text
                 FROM pg_database WHERE datname = $1",
                &[&self.target],
            )
            .await
            .map_err(e)?;
        let Some(row) = found else { return Ok(vec![]) };
        let (oid, is_template, mine): (u32, bool, bool) = (row.get(0), row.get(1), row.get(2));
        let refuse =
            |reason, what: String| Err(RestoreError::from(ValidationError::new(reason, what)));
        if self.on_existing == OnExisting::Fail {
            return refuse(
                R::TargetExists,
                format!(
                    "database {} already exists (on_existing is fail; use replace to replace it)",
                    self.target
                ),
            );
        }
        if is_template {
            return refuse(
                R::TargetNotAllowed,
                format!("database {} is a template", self.target),
            );
        }
        if !mine {
            let (me, owner): (&str, &str) = (self.server.user(), row.get(3));
            let what = format!(
                "role {me} is not a member of the role that owns {}: GRANT {} TO {}",
                self.target,
                ident(owner),
                ident(me)
            );
            return Err(DatabaseError::new(R::InsufficientPrivilege, what).into());
        }
        if let Some(why) = swap::swap_blocker(client, oid, &self.target).await? {
            return refuse(
                R::TargetNotAllowed,
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

    /// Returns `e`, or an error that the lock was lost. In that case other workers may already have cleaned
    /// up after this attempt, and `e` is merely a consequence.
    pub async fn unless_lost(&self, e: RestoreError) -> RestoreError {
        unless_lost(&self.lock, e).await
    }

    /// Returns when the session that holds the lock is lost.
    pub async fn lost(&self) -> RestoreError {
        loop {
            tokio::time::sleep(PING).await;
            if let Err(e) = self.lock.run("SELECT 1").await {
                return e.context("the session that holds the target's lock").into();
            }
        }
    }

    /// Creates the empty staging database, which must have been announced before.
    ///
    /// # Errors
    /// `insufficient_privilege`, `insufficient_space`, `target_unavailable`, `restore_error`.
    pub async fn create_staging(&self, options: &CreateOptions) -> Result<Staging, RestoreError> {
        staging::create(self, options).await
    }

    /// Records the staging database in the journal before it, or any role for it, is created.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn announce_staging(&self) -> Result<(), RestoreError> {
        let name = staging::name_for(&self.request_id);
        // A crashed attempt, or an earlier one under this claim, may have left something behind.
        self.drop_unfinished().await?;
        reaper::remove(&self.server, &self.lock, self.journal, &name).await?;
        self.journal
            .own(
                &self.lock,
                RecordKind::Staging,
                &name,
                &self.request_id,
                &self.target,
            )
            .await?;
        reached("announced");
        Ok(())
    }

    /// The name of the staging database, the same for every attempt of a request.
    pub fn staging_name(&self) -> String {
        staging::name_for(&self.request_id)
    }

    /// The session that holds the target's lock, for queries.
    pub fn session(&self) -> &Session {
        &self.lock
    }

    /// Roles, extensions, tablespaces and other properties of the server.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn server_facts(&self) -> Result<ServerFacts, RestoreError> {
        Ok(self.lock.facts().await?)
    }

    /// Creates roles that the dump needs.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn make_roles(&self, statements: &[String]) -> Result<(), RestoreError> {
        for sql in statements {
            self.lock
                .run(sql)
                .await
                .map_err(|e| e.context("creating a role"))?;
        }
        Ok(())
    }

    /// Drops the staging database, whatever its state, and the roles that were created for it, unless
    /// something else uses them by now.
    ///
    /// # Errors
    /// Why it could not be dropped; it stays in the journal, for the reaper.
    pub async fn discard(&mut self) -> Result<(), RestoreError> {
        let mut has_role = true;
        if self.lock.client().is_closed() {
            // Without the lock, the database of this name may already belong to the next attempt.
            let session = self.server.maintenance("lock").await?;
            take_locks(&session, &self.target, &self.request_id).await?;
            self.lock = session;
            has_role = match self.pooled.get() {
                Some(pooled) => try_lock(&self.lock, &pooled.lock_name()).await?,
                None => false,
            };
        }
        self.drop_unfinished().await?;
        let staging = staging::name_for(&self.request_id);
        reaper::remove(&self.server, &self.lock, self.journal, &staging).await?;
        // If another restore uses the role by now, that one has already reset it.
        if let Some(pooled) = self.pooled.get().filter(|_| has_role) {
            pooled.undo(&self.lock).await;
        }
        Ok(())
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
        swap::swap(self, staging, outcome).await
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
        if let Known::Done { outcome, .. } =
            self.journal.look_up(&self.lock, &self.request_id).await?
        {
            return Ok(Some(outcome));
        }
        self.journal
            .finish(&self.lock, &self.request_id, self.attempt, outcome, false)
            .await?;
        Ok(None)
    }

    /// Records that this attempt ended in an orderly way, without an outcome.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn release(&self) -> Result<(), RestoreError> {
        Ok(self
            .journal
            .release(&self.lock, &self.request_id, self.attempt)
            .await?)
    }
}

/// A database on a scratch server, for a verification; locked and recorded in the journal while in use.
pub struct VerificationDatabase {
    server: Server,
    session: Session,
    journal: Journal,
    pub name: String,
}

impl VerificationDatabase {
    /// The name of the database of a verification, the same for every attempt.
    pub fn name_for(request_id: &str) -> String {
        format!("{}v_{}", crate::job::OWN_PREFIX, short_hash(request_id))
    }

    /// Locks the name and drops what an earlier attempt left. `recorded`: whether to use the journal.
    ///
    /// # Errors
    /// `target_busy` if another worker runs the same verification, `target_unavailable`.
    pub async fn claim(
        server: &Server,
        request_id: &str,
        name: String,
        recorded: bool,
    ) -> Result<Self, RestoreError> {
        let session = server.maintenance("verification").await?;
        lock_name(&session, &name).await?;
        let journal = if recorded {
            Journal::open(&session).await?
        } else {
            Journal::off()
        };
        // A crashed verification may have left something behind.
        reaper::remove(server, &session, journal, &name).await?;
        journal
            .own(&session, RecordKind::Verification, &name, request_id, &name)
            .await?;
        Ok(VerificationDatabase {
            server: server.clone(),
            session,
            journal,
            name,
        })
    }

    /// The session that holds the lock, connected to the maintenance database.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Creates the database.
    ///
    /// # Errors
    /// `insufficient_privilege`, `insufficient_space`, `target_unavailable`, `restore_error`.
    pub async fn create(&self, options: &CreateOptions) -> Result<Staging, RestoreError> {
        Ok(staging::make(&self.session, &self.name, options).await?)
    }

    /// As [`TargetLock::unless_lost`].
    pub async fn unless_lost(&self, e: RestoreError) -> RestoreError {
        unless_lost(&self.session, e).await
    }

    /// Drops the database and the roles that were created for it.
    ///
    /// # Errors
    /// Why it could not be dropped.
    pub async fn discard(&self) -> Result<(), RestoreError> {
        reaper::remove(&self.server, &self.session, self.journal, &self.name).await?;
        Ok(())
    }
}

/// The name under which the database that was `target` until `now` is kept. `now` is in microseconds.
fn previous_name(target: &str, now: i64) -> String {
    format!("{}{now:x}", previous_prefix(target))
}

fn previous_prefix(target: &str) -> String {
    format!("{}o_{}_", crate::job::OWN_PREFIX, short_hash(target))
}

/// 16 hexadecimal digits of the hash of `text`, for use in names.
fn short_hash(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect()
}

//! Databases on the target server. A restore claims its target (a lock on one session, L), loads
//! into a staging database of its own and, once that is proven, swaps it into place in one
//! transaction on L. Losing L loses the lock and with it the power to swap: that is the fence.

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

/// How often the lock's session is asked whether it is still there.
const PING: Duration = Duration::from_secs(5);

/// How long a claim waits for a lock that is being given up, and how often it looks.
const LOCK_GRACE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What a claim found.
pub enum Claim {
    /// The target is ours until the claim is dropped.
    Granted(Box<TargetLock>),
    /// This request has its outcome already: the body of its result event.
    Done(serde_json::Value),
}

/// What is the same for every claim of a worker.
#[derive(Debug, Clone, Copy)]
pub struct ClaimPolicy {
    /// How long a replaced database is kept for a rollback.
    pub keep: Duration,
    /// Attempts of one request that may die before it is taken for what killed them.
    pub deaths: u32,
    /// Requests that were published longer ago are refused.
    pub max_age: Duration,
}

/// The target of one job, locked.
pub struct TargetLock {
    server: Server,
    /// Holds the locks; swaps and keeps the journal.
    lock: Session,
    journal: Journal,
    request_id: String,
    target: String,
    on_existing: OnExisting,
    sequence: i64,
    attempt: uuid::Uuid,
    /// Attempts before this one that were never heard of again.
    died: u32,
    terms: ClaimPolicy,
    /// The database that bears the target's name.
    existing: Option<Existing>,
    /// The role of `DB_RESTRICTED_USER` that loads, its name locked.
    pooled: OnceLock<Pooled>,
}

struct Existing {
    oid: u32,
    /// Name under which it is kept once it is replaced.
    kept_as: String,
}

/// Locks the target of `job` and records that this attempt works on it.
///
/// # Errors
/// `target_busy` where another restore has it, `invalid_request` where the id was used for another
/// request, `target_unavailable`.
pub async fn claim(
    server: &Server,
    job: &RestoreJob,
    terms: ClaimPolicy,
) -> Result<Claim, RestoreError> {
    let lock = server.maintenance("lock").await?;
    take_locks(&lock, &job.target_db, &job.request_id).await?;
    let journal = Journal::open(&lock).await?;
    let reused = || {
        let what = format!("request_id {} was used for another request", job.request_id);
        Err(ValidationError::new(R::InvalidRequest, what).into())
    };
    let died = match journal.look_up(&lock, &job.request_id).await? {
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
        died,
        terms,
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

/// Microseconds since 1970 by the clock of the server, which every worker shares.
async fn server_clock(session: &Session) -> Result<i64, DatabaseError> {
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let row = session.client().query_one(now, &[]).await;
    Ok(row
        .map_err(|e| map_pg_error(&e, "reading the server's clock"))?
        .get(0))
}

/// Locks a request's target, and with it the request's staging database against the reaper.
async fn take_locks(
    session: &Session,
    target: &str,
    request_id: &str,
) -> Result<(), DatabaseError> {
    lock_name(session, target).await?;
    lock_name(session, &staging::name_for(request_id)).await
}

/// Takes the lock of a database's name on `session`. A moment is waited: the session of a restore that
/// has just ended may still be closing.
async fn lock_name(session: &Session, name: &str) -> Result<(), DatabaseError> {
    let deadline = tokio::time::Instant::now() + LOCK_GRACE;
    while !try_lock(session, name).await? {
        if tokio::time::Instant::now() >= deadline {
            let what = format!("another session of pgrestored works on {name}");
            return Err(DatabaseError::new(R::TargetBusy, what));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(())
}

/// Whether the lock of a database's name is ours now.
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

    /// Whether the bookkeeping tables could be used; without them a crash leaves more to settle.
    pub fn has_journal(&self) -> bool {
        self.journal.is_on()
    }

    /// Name under which the database that is replaced will be kept.
    pub fn previous_name(&self) -> Option<&str> {
        self.existing.as_ref().map(|e| e.kept_as.as_str())
    }

    /// Checks what can be checked before a byte is read: the order of requests, rights, the database that
    /// is there. `delivery` counts from 1. Returns what a person should know of it.
    ///
    /// # Errors
    /// `target_not_allowed` where a newer request has been applied or the database may not be replaced,
    /// `target_exists`, `insufficient_privilege`, `internal` for a request that kills workers,
    /// `target_unavailable`.
    pub async fn check(&mut self, delivery: u32) -> Result<Vec<String>, RestoreError> {
        if self.is_quarantined(delivery) {
            let what = format!(
                "quarantined: {} attempts died without a word",
                self.died.max(delivery - 1)
            );
            return Err(RestoreError::internal(what));
        }
        let age = server_clock(&self.lock)
            .await?
            .saturating_sub(self.sequence);
        if age > i64::try_from(self.terms.max_age.as_micros()).unwrap_or(i64::MAX) {
            let what = format!(
                "superseded: published longer ago than {:?} (REQUEST_MAX_AGE)",
                self.terms.max_age
            );
            return Err(ValidationError::new(R::TargetNotAllowed, what).into());
        }
        if let Some(newer) = self
            .journal
            .newer(&self.lock, &self.target, self.sequence)
            .await?
        {
            let what = format!(
                "superseded: the newer request {newer} has been restored into {}",
                self.target
            );
            return Err(ValidationError::new(R::TargetNotAllowed, what).into());
        }
        self.check_target().await
    }

    /// Whether attempts of this request have died so often that no further one is made. Without a
    /// journal, every delivery before this one is taken for a death.
    pub fn is_quarantined(&self, delivery: u32) -> bool {
        if self.journal.is_on() {
            self.died >= self.terms.deaths
        } else {
            delivery > self.terms.deaths
        }
    }

    async fn check_target(&mut self) -> Result<Vec<String>, RestoreError> {
        // Whoever made it is dead: the lock of its name is ours.
        self.drop_half_made().await?;
        let e = |e: tokio_postgres::Error| map_pg_error(&e, "looking at the target");
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
                "role {} may not create databases (CREATEDB)",
                self.server.user()
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
                format!("database {} exists (on_existing is fail)", self.target),
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
                "role {me} is no member of the owner of {}: GRANT {} TO {}",
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

    /// The same error, or that the lock was lost: then others have cleaned up behind this attempt, and
    /// what the server says comes from that.
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

    /// Makes the empty staging database, recorded as ours before it exists.
    ///
    /// # Errors
    /// `insufficient_privilege`, `insufficient_space`, `target_unavailable`, `restore_error`.
    pub async fn create_staging(&self, options: &CreateOptions) -> Result<Staging, RestoreError> {
        staging::create(self, options).await
    }

    /// Records the staging database as ours, before it or anything for it is made.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn announce_staging(&self) -> Result<(), RestoreError> {
        let name = staging::name_for(&self.request_id);
        // An attempt that died, or a first one of this claim, may have left something.
        self.drop_half_made().await?;
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

    /// Name of the staging database: every attempt of a request has the same.
    pub fn staging_name(&self) -> String {
        staging::name_for(&self.request_id)
    }

    /// The session that holds the target's lock, to ask the server.
    pub fn session(&self) -> &Session {
        &self.lock
    }

    /// What the server has.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn server_facts(&self) -> Result<ServerFacts, RestoreError> {
        Ok(self.lock.facts().await?)
    }

    /// Makes roles that the dump needs.
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

    /// Drops the staging database, however far it came and whatever is in it, and roles that were made
    /// for it, as far as nothing else has come to use them.
    ///
    /// # Errors
    /// Why it could not be dropped; it stays recorded as ours.
    pub async fn discard(&mut self) -> Result<(), RestoreError> {
        let mut has_role = true;
        if self.lock.client().is_closed() {
            // Without the lock the next owner of the request has a database of the same name.
            let session = self.server.maintenance("lock").await?;
            take_locks(&session, &self.target, &self.request_id).await?;
            self.lock = session;
            has_role = match self.pooled.get() {
                Some(pooled) => try_lock(&self.lock, &pooled.lock_name()).await?,
                None => false,
            };
        }
        self.drop_half_made().await?;
        let staging = staging::name_for(&self.request_id);
        reaper::remove(&self.server, &self.lock, self.journal, &staging).await?;
        // Where another restore loads with it by now, that one has set it right.
        if let Some(pooled) = self.pooled.get().filter(|_| has_role) {
            pooled.undo(&self.lock).await;
        }
        Ok(())
    }

    /// Puts the proven staging database in the target's place and records `outcome` with it.
    ///
    /// # Errors
    /// `target_exists` where one appeared meanwhile, `target_unavailable`, `restore_error`: then the
    /// target is as it was.
    pub async fn swap(
        &mut self,
        staging: &ProvenStaging,
        outcome: &serde_json::Value,
    ) -> Result<(), RestoreError> {
        swap::swap(self, staging, outcome).await
    }

    /// Records the outcome of a request that changed nothing. Where it has been applied after all, by a
    /// swap whose end could not be seen, that outcome is returned and stays.
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

    /// Records that this attempt ends in order, and without an outcome.
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

/// A database on a scratch server, for a verification: locked and recorded as ours while it is in use.
pub struct VerificationDatabase {
    server: Server,
    session: Session,
    journal: Journal,
    pub name: String,
}

impl VerificationDatabase {
    /// Name of the database of a verification; every attempt has the same.
    pub fn name_for(request_id: &str) -> String {
        format!("{}v_{}", crate::job::OWN_PREFIX, short_hash(request_id))
    }

    /// # Errors
    /// `target_busy` where another worker does the same verification, `target_unavailable`.
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
        // A proof that died may have left something.
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

    /// The session that holds the lock, on the maintenance database.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Makes the database.
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

    /// Drops it, and roles that were made for it.
    ///
    /// # Errors
    /// Why it could not be dropped.
    pub async fn discard(&self) -> Result<(), RestoreError> {
        reaper::remove(&self.server, &self.session, self.journal, &self.name).await?;
        Ok(())
    }
}

/// The name under which a database is kept that was `target` until `now`, in microseconds.
fn previous_name(target: &str, now: i64) -> String {
    format!("{}{now:x}", previous_prefix(target))
}

fn previous_prefix(target: &str) -> String {
    format!("{}o_{}_", crate::job::OWN_PREFIX, short_hash(target))
}

/// 16 hexadecimal digits that stand for `text` in names.
fn short_hash(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect()
}

//! Databases on the target server. A restore claims its target (a lock on one session, L), loads
//! into a staging database of its own and, once that is proven, swaps it into place in one
//! transaction on L. Losing L loses the lock and with it the power to swap: that is the fence.

mod journal;
mod staging;
mod swap;

use std::time::Duration;

use crate::error::{DatabaseError, FailureReason as R, RestoreError, ValidationError};
use crate::job::{OnExisting, RestoreJob};
use crate::postgres::{Server, ServerFacts, Session, fault, ident};
use journal::{Journal, Known};

pub use staging::{CreateOptions, Staging};

/// How often the lock's session is asked whether it is still there.
const PING: Duration = Duration::from_secs(5);

/// How long a claim waits for a lock that is being given up, and how often it looks.
const LOCK_GRACE: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// What a claim found.
pub enum Claim {
    /// The target is ours until the claim is dropped.
    Granted(Box<Claimed>),
    /// This request has its outcome already: the body of its result event.
    Done(serde_json::Value),
}

/// The target of one job, locked.
pub struct Claimed {
    server: Server,
    /// Holds the lock; swaps and keeps the journal.
    lock: Session,
    journal: Journal,
    request_id: String,
    target: String,
    on_existing: OnExisting,
    sequence: i64,
    attempt: uuid::Uuid,
    /// The database that bears the target's name.
    existing: Option<Existing>,
}

struct Existing {
    oid: u32,
    /// Name under which it is kept once it is replaced.
    kept_as: String,
}

/// Locks the target of `job` and checks what can be checked before a byte is read.
///
/// # Errors
/// `target_busy` where another restore has it, `target_exists`, `target_not_allowed`,
/// `insufficient_privilege`, `invalid_request` where the id was used for another request,
/// `target_unavailable`.
pub async fn claim(server: &Server, job: &RestoreJob) -> Result<Claim, RestoreError> {
    let lock = server.maintenance("lock").await?;
    lock_target(&lock, &job.target_db).await?;
    let journal = Journal::open(&lock).await?;
    match journal.look_up(&lock, &job.request_id).await? {
        Known::Done { digest, outcome } if digest == job.digest => return Ok(Claim::Done(outcome)),
        Known::Done { .. } => {
            let what = format!("request_id {} was used for another request", job.request_id);
            return Err(ValidationError::new(R::InvalidRequest, what).into());
        }
        Known::Unfinished | Known::New => {}
    }
    let mut claimed = Claimed {
        server: server.clone(),
        lock,
        journal,
        request_id: job.request_id.clone(),
        target: job.target_db.clone(),
        on_existing: job.on_existing,
        sequence: job.sequence,
        attempt: uuid::Uuid::new_v4(),
        existing: None,
    };
    claimed.check_target().await?;
    claimed.journal.begin(&claimed.lock, &claimed.row(&job.digest)).await?;
    Ok(Claim::Granted(Box::new(claimed)))
}

/// Takes the target's lock on `session`. A moment is waited: the session of a restore that has just
/// ended may still be closing.
async fn lock_target(session: &Session, target: &str) -> Result<(), DatabaseError> {
    let deadline = tokio::time::Instant::now() + LOCK_GRACE;
    loop {
        let locked = session
            .client()
            .query_one("SELECT pg_try_advisory_lock(hashtextextended('pgrestored:' || $1, 7))", &[&target])
            .await
            .map_err(|e| fault(&e, "locking the target"))?;
        if locked.get(0) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(DatabaseError::new(
                R::TargetBusy,
                format!("another restore into {target} is running"),
            ));
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

impl Claimed {
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

    async fn check_target(&mut self) -> Result<(), RestoreError> {
        let e = |e: tokio_postgres::Error| fault(&e, "looking at the target");
        let client = self.lock.client();
        let me = client
            .query_one("SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user", &[])
            .await
            .map_err(e)?;
        if !me.get::<_, bool>(0) {
            let what = format!("role {} may not create databases (CREATEDB)", self.server.user());
            return Err(DatabaseError::new(R::InsufficientPrivilege, what).into());
        }
        let found = client
            .query_opt(
                "SELECT oid, datistemplate, pg_has_role(datdba, 'MEMBER') FROM pg_database WHERE datname = $1",
                &[&self.target],
            )
            .await
            .map_err(e)?;
        let Some(row) = found else { return Ok(()) };
        let (oid, is_template, mine): (u32, bool, bool) = (row.get(0), row.get(1), row.get(2));
        let refuse = |reason, what: String| Err(RestoreError::from(ValidationError::new(reason, what)));
        if self.on_existing == OnExisting::Fail {
            return refuse(R::TargetExists, format!("database {} exists (on_existing is fail)", self.target));
        }
        if is_template {
            return refuse(R::TargetNotAllowed, format!("database {} is a template", self.target));
        }
        if !mine {
            let what = format!("role {} is no member of the owner of {}", self.server.user(), self.target);
            return Err(DatabaseError::new(R::InsufficientPrivilege, what).into());
        }
        if let Some(why) = swap::not_swappable(client, oid, &self.target).await? {
            return refuse(
                R::TargetNotAllowed,
                format!("database {} cannot be replaced: {why}", self.target),
            );
        }
        let stamp = jiff::Timestamp::now().as_microsecond();
        let kept_as = format!("{}o_{}_{stamp:x}", crate::job::OWN_PREFIX, short_hash(&self.target));
        self.existing = Some(Existing { oid, kept_as });
        Ok(())
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
            self.lock.run(sql).await.map_err(|e| e.context("creating a role"))?;
        }
        Ok(())
    }

    /// Drops the staging database, however far it came and whatever is in it, and roles that were made
    /// for it, as far as nothing else has come to use them.
    ///
    /// # Errors
    /// Why it could not be dropped; it stays recorded as ours.
    pub async fn discard(&mut self, roles: &[String]) -> Result<(), RestoreError> {
        if self.lock.client().is_closed() {
            // Without the lock the next owner of the request has a database of the same name.
            let session = self.server.maintenance("lock").await?;
            lock_target(&session, &self.target).await?;
            self.lock = session;
        }
        let staging = staging::name_for(&self.request_id);
        staging::force_drop(&self.server, &self.lock, &staging).await?;
        self.journal.forget_database(&self.lock, &staging).await?;
        for role in roles {
            if let Err(e) = self.lock.run(&format!("DROP ROLE IF EXISTS {}", ident(role))).await {
                tracing::warn!(role, error = %e, "a role that was made for the failed restore is still there");
            }
        }
        Ok(())
    }

    /// Puts the proven staging database in the target's place and records `outcome` with it.
    ///
    /// # Errors
    /// `target_exists` where one appeared meanwhile, `target_unavailable`, `restore_error`: then the
    /// target is as it was.
    pub async fn swap(&mut self, staging: &Staging, outcome: &serde_json::Value) -> Result<(), RestoreError> {
        swap::swap(self, staging, outcome).await
    }

    /// Records the outcome of a request that changed nothing.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn record_failure(&self, outcome: &serde_json::Value) -> Result<(), RestoreError> {
        Ok(self.journal.finish(&self.lock, &self.request_id, self.attempt, outcome).await?)
    }
}

/// Makes a database of our own on `session`'s server, outside of any claim, for a verification. What
/// bears its name is dropped first. Returns what had to be done otherwise than the dump says.
///
/// # Errors
/// `insufficient_privilege`, `insufficient_space`, `target_unavailable`, `restore_error`.
pub async fn create_apart(
    server: &Server,
    session: &Session,
    name: &str,
    options: &CreateOptions,
) -> Result<Vec<String>, RestoreError> {
    staging::force_drop(server, session, name).await?;
    let note = staging::create_with_fallbacks(session, name, options).await?;
    Ok(note.map(str::to_owned).into_iter().collect())
}

/// Drops such a database, and roles that were made for it.
///
/// # Errors
/// Why it could not be dropped.
pub async fn drop_apart(
    server: &Server,
    session: &Session,
    name: &str,
    roles: &[String],
) -> Result<(), RestoreError> {
    staging::force_drop(server, session, name).await?;
    for role in roles {
        session.run(&format!("DROP ROLE IF EXISTS {}", ident(role))).await?;
    }
    Ok(())
}

/// The name of a verification's database.
pub fn apart_name(request_id: &str) -> String {
    format!("{}v_{}", crate::job::OWN_PREFIX, short_hash(request_id))
}

/// 16 hexadecimal digits that stand for `text` in names.
fn short_hash(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

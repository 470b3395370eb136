//! A database of one verification or rehearsal, dropped at its end.

use super::advisory_locks::{lock_name, unless_lost, wait_for_room};
use super::journal::{DatabaseRecord, Journal, RecordKind};
use super::names::short_hash;
use super::reaper;
use super::staging::{self, CreateOptions, Staging};
use crate::error::RestoreError;
use crate::postgres::{Server, Session};

/// A database of one verification, on a scratch server or in a sandbox, or of one rehearsal, on the target server. Locked
/// while in use, and recorded in the journal if there is one.
pub struct TemporaryDatabase {
    pub(super) server: Server,
    pub(super) session: Session,
    pub(super) journal: Journal,
    pub name: String,
}

impl TemporaryDatabase {
    /// The name of the database of a verification or rehearsal, the same for every attempt.
    pub fn name_for(request_id: &str) -> String {
        format!("{}v_{}", crate::job::OWN_PREFIX, short_hash(request_id))
    }

    /// Locks the name and drops what an earlier attempt left. `recorded`: whether to use the journal.
    ///
    /// # Errors
    /// `target_busy` if another worker runs the same job, `target_unavailable`.
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
        // A crashed attempt may have left something behind.
        reaper::remove(server, &session, journal, &name).await?;
        let record = DatabaseRecord {
            kind: RecordKind::Verification,
            name: &name,
            request_id,
            target: &name,
            keep_hours: None,
        };
        journal.own(&session, &record).await?;
        Ok(TemporaryDatabase {
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
        staging::make(&self.session, &self.name, options).await
    }

    /// The same on a server that is not only for verifications: without a journal, its reaper knows databases by their
    /// comments.
    ///
    /// # Errors
    /// As [`TemporaryDatabase::create`].
    pub async fn create_marked(
        &self,
        options: &CreateOptions,
        request_id: &str,
    ) -> Result<Staging, RestoreError> {
        let staging = self.create(options).await?;
        staging::mark(&self.session, &self.name, (&self.name, request_id)).await?;
        Ok(staging)
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
        wait_for_room(&self.session).await;
        let dropped = reaper::remove(&self.server, &self.session, self.journal, &self.name).await;
        match dropped {
            Err(_) if self.session.client().is_closed() => self.discard_anew().await,
            dropped => Ok(dropped.map(drop)?),
        }
    }

    /// The same on a new session, if the one with the lock was lost.
    async fn discard_anew(&self) -> Result<(), RestoreError> {
        let server = self.server.without_retry();
        let session = server.maintenance("verification").await?;
        lock_name(&session, &self.name).await?;
        reaper::remove(&server, &session, self.journal, &self.name).await?;
        Ok(())
    }
}

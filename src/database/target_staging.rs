//! The staging database of a locked target: announced in the journal, created, and dropped again if its restore fails.

use super::advisory_locks::{take_locks, try_lock, wait_for_room};
use super::fill::lock_session;
use super::names::staging_name;
use super::reaper;
use super::staging::{self, CreateOptions, Staging};
use super::target_lock::TargetLock;
use super::work::ClaimedWork;
use crate::error::RestoreError;
use crate::steps::reached;

impl TargetLock {
    /// Records the staging database in the journal before it, or any role for it, is created.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn announce_staging(&self) -> Result<(), RestoreError> {
        let name = staging_name(&self.request_id);
        // A crashed attempt, or an earlier one under this claim, may have left something behind.
        self.drop_unfinished().await?;
        reaper::remove(&self.server, &self.lock, self.journal, &name).await?;
        *self.work.lock() = ClaimedWork::Nothing;
        self.record_staging().await?;
        reached("announced");
        Ok(())
    }

    /// Records the staging database, which an earlier attempt may have left: a worker that knows nothing of work that can be
    /// continued has perhaps dropped it, with its record.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn record_staging(&self) -> Result<(), RestoreError> {
        let name = staging_name(&self.request_id);
        let record = self.staging_record(&name);
        Ok(self.journal.own(&self.lock, &record).await?)
    }

    /// Creates the empty staging database, which must have been announced before.
    ///
    /// # Errors
    /// `insufficient_privilege`, `insufficient_space`, `target_unavailable`, `restore_error`.
    pub async fn create_staging(&self, options: &CreateOptions) -> Result<Staging, RestoreError> {
        staging::create(self, options).await
    }

    /// Drops the staging database, whatever its state, and the roles that were created for it, unless
    /// something else uses them by now. A database that was being filled is emptied again.
    ///
    /// # Errors
    /// Why it could not be dropped; it stays in the journal, for the reaper.
    pub async fn discard(&mut self) -> Result<(), RestoreError> {
        let mut has_role = true;
        if self.lock.client().is_closed() {
            // Without the lock, the database of this name may already belong to the next attempt.
            let session = lock_session(&self.server, &self.target, self.on_existing).await?;
            take_locks(&session, &self.target, &self.request_id).await?;
            self.lock = session;
            // Or to one that has ended since, and whose work waits.
            if self.is_taken_by_another().await? {
                return Ok(());
            }
            has_role = match self.pooled.get() {
                Some(pooled) => try_lock(&self.lock, &pooled.lock_name()).await?,
                None => false,
            };
        }
        // What was stopped may have left a transaction open, in which no database can be dropped.
        self.lock.run("ROLLBACK").await?;
        wait_for_room(&self.lock).await;
        self.empty_again().await?;
        self.drop_unfinished().await?;
        let staging = staging_name(&self.request_id);
        reaper::remove(&self.server, &self.lock, self.journal, &staging).await?;
        // If another restore uses the role by now, that one has already reset it.
        if let Some(pooled) = self.pooled.get().filter(|_| has_role) {
            pooled.undo(&self.lock).await;
        }
        Ok(())
    }
}

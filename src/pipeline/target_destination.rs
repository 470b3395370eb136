//! The target server as a destination: a staging database beside the target, a new database that has
//! the target's name from the beginning, or an empty database that is filled.

use super::destination::Destination;
use super::job_context::JobContext;
use super::placement::Placement;
use crate::config::Trust;
use crate::database::{CreateOptions, Loader, Staging, TargetLock};
use crate::error::RestoreError;
use crate::job::RestoreJob;
use crate::policy::InPlace;
use crate::postgres::{Server, Session};
use pgdump_archive::{TextEncoding, TocEntry};

/// The locked target of a restore.
pub(super) struct TargetDestination<'a> {
    lock: &'a TargetLock,
    server: &'a Server,
    job: &'a RestoreJob,
    in_place: InPlace,
    loader: Option<Loader>,
    placement: Placement,
}

impl<'a> TargetDestination<'a> {
    /// Records the staging database before it exists. With restricted trust, finds or creates the role
    /// that loads.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_busy` while every loading role is in use, `target_unavailable`.
    pub(super) async fn announce(
        context: &JobContext<'a, RestoreJob>,
        lock: &'a TargetLock,
        trust: Trust,
    ) -> Result<Self, RestoreError> {
        let config = context.config();
        lock.announce_staging().await?;
        let loader = match trust {
            Trust::Full => None,
            Trust::Restricted => Some(lock.confine(&config.restricted).await?),
        };
        Ok(TargetDestination {
            lock,
            server: &context.services.server,
            job: context.job,
            in_place: context.job.in_place.unwrap_or(config.in_place),
            loader,
            placement: Placement::in_staging(lock.staging_name()),
        })
    }
}

impl TargetDestination<'_> {
    /// The role that loaded, if it is not our own.
    pub(super) fn into_loader(self) -> Option<Loader> {
        self.loader
    }
}

impl Destination for TargetDestination<'_> {
    fn session(&self) -> &Session {
        self.lock.session()
    }

    fn server(&self) -> &Server {
        self.server
    }

    fn loader(&self) -> Option<&Loader> {
        self.loader.as_ref()
    }

    fn database(&self) -> &str {
        &self.placement.database
    }

    fn final_name(&self) -> &str {
        &self.job.target_db
    }

    fn recorded_name(&self) -> String {
        self.lock.staging_name()
    }

    fn place(&mut self, entries: &[TocEntry]) -> Vec<String> {
        if self.lock.is_fill() {
            self.placement = Placement::in_target(&self.job.target_db);
            return vec![];
        }
        let exists = self.lock.previous_name().is_some();
        let (placement, notes) = Placement::choose(
            entries,
            self.in_place,
            (&self.job.target_db, exists),
            self.lock.staging_name(),
        );
        self.placement = placement;
        notes
    }

    async fn create_options(
        &self,
        entries: &[TocEntry],
        encoding: &TextEncoding,
    ) -> Result<CreateOptions, RestoreError> {
        // A database that is filled keeps its encoding, too.
        if self.job.selection.data_only || self.lock.is_fill() {
            return Ok(CreateOptions::copy_of(&self.job.target_db));
        }
        Ok(CreateOptions::of_dump(self.session(), entries, encoding).await?)
    }

    async fn create(&self, options: &CreateOptions) -> Result<Staging, RestoreError> {
        if self.lock.is_fill() {
            return self.lock.begin_fill().await;
        }
        let mut staging = self.lock.create_staging(options).await?;
        if self.placement.in_place {
            self.lock.put_in_place(&mut staging).await?;
        }
        if let Some(loader) = &self.loader {
            self.lock.admit(loader, &staging).await?;
        }
        Ok(staging)
    }
}

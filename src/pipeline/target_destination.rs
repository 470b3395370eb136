//! The target server as a destination: a staging database beside the target, a new database that has
//! the target's name from the beginning, or an empty database that is filled.

use std::sync::Arc;

use super::destination::Destination;
use super::job_context::JobContext;
use super::placement::Placement;
use crate::config::Trust;
use crate::database::{
    BeginWork, Continuing, CreateOptions, FoundWork, Loader, NotContinued, ProvenStaging,
    ResumeTerms, Staging, TakenOver, TargetLock,
};
use crate::error::RestoreError;
use crate::event::ResumedFrom;
use crate::job::RestoreJob;
use crate::policy::InPlace;
use crate::postgres::{Server, Session};
use pgdump_archive::{TextEncoding, TocEntry};
use pgdump_restore::{ResumedTotals, WorkRecord};

/// How the note begins of a restore that does not go on with what there is.
pub(super) const FROM_THE_START: &str = "begun from the start: ";

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
    /// Records the staging database before it exists; `found`: what an earlier attempt has left, and which is therefore not
    /// dropped yet. With restricted trust, finds or creates the role that loads.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_busy` while every loading role is in use, `target_unavailable`.
    pub(super) async fn announce(
        context: &JobContext<'a, RestoreJob>,
        lock: &'a TargetLock,
        (trust, found): (Trust, Option<&FoundWork>),
    ) -> Result<Self, RestoreError> {
        let config = context.config();
        match found {
            None => lock.announce_staging().await?,
            Some(_) => lock.record_staging().await?,
        }
        let loader = match trust {
            Trust::Full => None,
            Trust::Restricted => Some(lock.confine(&config.restricted, found).await?),
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

/// The work that a restore wants to record, and that it may find.
pub(super) struct WantedWork<'a> {
    /// What its work belongs to, in canonical form; `None` if nothing is recorded.
    pub(super) pins: Option<&'a str>,
    /// What an earlier attempt has left.
    pub(super) found: Option<&'a FoundWork>,
    /// Why that belongs to something else.
    pub(super) differs: Option<NotContinued>,
    pub(super) terms: ResumeTerms,
    /// It is kept for a person, not for a redelivery.
    pub(super) by_command: bool,
    /// How many connections may read.
    pub(super) sessions: usize,
    /// Whether what the server refuses is left out.
    pub(super) skips: bool,
    /// Receives what is continued.
    pub(super) resumed: &'a mut Option<Resumption>,
}

/// What this attempt continues.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resumption {
    pub(super) from: ResumedFrom,
    /// The share of the whole that was done.
    pub(super) share: f64,
}

/// A database to load into, or one that lacks only the swap.
pub(super) enum CreatedWork {
    Staging(Staging, Arc<WorkRecord>),
    Sealed(ProvenStaging, serde_json::Value),
}

impl TargetDestination<'_> {
    /// Goes on with what an earlier attempt has left, if that belongs to the same restore and is as it was left; otherwise
    /// creates the database. `entries`: those that are restored.
    ///
    /// # Errors
    /// As [`Destination::create`].
    pub(super) async fn create_or_continue(
        &self,
        options: &CreateOptions,
        entries: &[TocEntry],
        work: WantedWork<'_>,
    ) -> Result<CreatedWork, RestoreError> {
        let mut notes = vec![];
        if let Some(found) = work.found {
            match self.take_over(found, entries, &work).await? {
                TakenOver::Continued {
                    mut staging,
                    record,
                    totals,
                    check_seconds,
                    notes,
                } => {
                    staging.notes.extend(notes);
                    *work.resumed = Some(Resumption::of(found, &totals, check_seconds));
                    return Ok(CreatedWork::Staging(staging, record));
                }
                TakenOver::Sealed { staging, draft } => {
                    *work.resumed = Some(Resumption::of_sealed(found, &draft));
                    return Ok(CreatedWork::Sealed(staging, draft));
                }
                TakenOver::Not(why) => {
                    let why = why.to_string();
                    tracing::warn!(why = why.as_str(), "begun from the start");
                    self.lock.refuse_work(found).await?;
                    notes.push(format!("{FROM_THE_START}{why}"));
                }
            }
        }
        let mut staging = self.create(options).await?;
        staging.notes.extend(notes);
        let Some(pins) = work.pins else {
            return Ok(CreatedWork::Staging(staging, WorkRecord::off()));
        };
        let begin = BeginWork {
            pins,
            terms: work.terms,
            by_command: work.by_command,
            loader: self.loader.as_ref(),
        };
        let record = self.lock.begin_work(&mut staging, begin).await?;
        Ok(CreatedWork::Staging(staging, record))
    }

    async fn take_over(
        &self,
        found: &FoundWork,
        entries: &[TocEntry],
        work: &WantedWork<'_>,
    ) -> Result<TakenOver, RestoreError> {
        if let Some(why) = found.obstacle(&self.job.target_db, work.terms) {
            return Ok(TakenOver::Not(why));
        }
        if let Some(why) = work.differs.clone() {
            return Ok(TakenOver::Not(why));
        }
        let with = Continuing {
            entries,
            sessions: work.sessions,
            loader: self.loader.as_ref(),
            skips: work.skips,
        };
        self.lock.take_over(found, work.terms, with).await
    }

    /// The role that loaded, if it is not our own.
    pub(super) fn into_loader(self) -> Option<Loader> {
        self.loader
    }
}

impl Resumption {
    fn of(found: &FoundWork, totals: &ResumedTotals, check_seconds: f64) -> Self {
        Resumption {
            from: ResumedFrom {
                attempt: totals.attempt,
                bytes: totals.bytes,
                rows: totals.rows,
                seconds_saved: (totals.seconds - check_seconds).max(0.0),
            },
            share: found.share,
        }
    }

    /// Everything was done; `draft`: the result of that.
    fn of_sealed(found: &FoundWork, draft: &serde_json::Value) -> Self {
        let number = |field: &str| draft.get(field).and_then(serde_json::Value::as_u64);
        let seconds = draft.get("duration_seconds");
        Resumption {
            from: ResumedFrom {
                attempt: found.attempt,
                bytes: number("bytes").unwrap_or(found.bytes),
                rows: number("rows").unwrap_or(found.rows),
                seconds_saved: seconds
                    .and_then(serde_json::Value::as_f64)
                    .unwrap_or_default(),
            },
            share: 1.0,
        }
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
            let displaced = self.lock.displace_waiting(&staging).await?;
            staging.notes.extend(displaced);
            self.lock.put_in_place(&mut staging).await?;
        }
        if let Some(loader) = &self.loader {
            self.lock.admit(loader, &staging).await?;
        }
        Ok(staging)
    }
}

//! What every part of a job works with, and the one place where a job is cut short.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use pgdump_mask::Masking;
use tokio_util::sync::CancellationToken;

use super::limits;
use super::unclaimed::UnclaimedAttempts;
use crate::backup::PinnedBackup;
use crate::catalog::BackupCatalog;
use crate::config::{Config, format_duration};
use crate::error::{JobError, JobKind, RestoreError};
use crate::job::{BackupRef, RestoreJob};
use crate::metrics::RestoreMetricsManager;
use crate::postgres::Server;
use crate::progress::Progress;

/// How long the evidence of a job may take to read, and to write.
const END_LIMIT: Duration = Duration::from_secs(600);

/// The configuration and the clients that all jobs of a worker share.
#[derive(Clone)]
pub struct Services {
    pub config: Arc<Config>,
    pub catalog: BackupCatalog,
    /// The target server.
    pub server: Server,
    pub metrics: RestoreMetricsManager,
    pub(crate) unclaimed: UnclaimedAttempts,
}

/// One job, its progress, its cancellation and its clock.
pub(super) struct JobContext<'a, J> {
    pub(super) services: &'a Services,
    pub(super) job: &'a J,
    pub(super) progress: &'a Arc<Progress>,
    /// Cancelled when the job must end early.
    pub(super) cancel: &'a CancellationToken,
    pub(super) clock: JobClock,
}

impl<'a, J> JobContext<'a, J> {
    pub(super) fn config(&self) -> &'a Config {
        &self.services.config
    }

    pub(super) fn catalog(&self) -> &'a BackupCatalog {
        &self.services.catalog
    }

    /// The bounds of this job: cancellation, `deadline` and RESTORE_TIMEOUT, the time limit of each
    /// stage, and the time without progress. `name` is what a cancelled job is called.
    pub(super) fn bounds(&self, name: &str, deadline: Option<jiff::Timestamp>) -> Bounds<'a> {
        let (cancel, progress, config) = (self.cancel, self.progress, self.config());
        let left = deadline.map(|d| {
            Duration::try_from(d.duration_since(self.clock.started())).unwrap_or_default()
        });
        let limit = left.map_or(config.timeout, |left| left.min(config.timeout));
        let of_time = timed(name, cancel, limit);
        let exceeded = async move {
            tokio::select! {
                e = of_time => e,
                e = limits::exceeded(config, progress) => e,
            }
        };
        Bounds {
            exceeded: Box::pin(exceeded.fuse()),
        }
    }

    /// The bounds of what follows the job itself, the reading and writing of evidence: cancellation and
    /// [`END_LIMIT`].
    pub(super) fn end_bounds(&self, name: &str) -> Bounds<'a> {
        Bounds {
            exceeded: Box::pin(timed(name, self.cancel, END_LIMIT).fuse()),
        }
    }

    /// Whether `e` says that the backup is denied, while others can be read; false if that cannot be found out.
    pub(super) async fn is_denied_alone(
        &self,
        asked: (&BackupRef, Option<&PinnedBackup>),
        e: &RestoreError,
    ) -> bool {
        let look = async { Ok(self.catalog().is_denied_alone(asked, e).await) };
        let looked = self.end_bounds("job").within(look).await;
        looked.unwrap_or(false)
    }
}

impl JobContext<'_, RestoreJob> {
    /// The rules by which rows are masked.
    pub(super) fn masking(&self) -> Option<Masking> {
        let configured = self.config().masking.as_ref();
        let rules = self.job.masking.as_ref().or(configured);
        rules.map(|rules| rules.0.clone())
    }

    /// How much of the restore is done, from 0 to 1.
    pub(super) fn share(&self) -> f64 {
        self.progress.snapshot().fraction.unwrap_or_default()
    }

    /// Whether a person waits for the answer, which a wrong file is to give before a wrong server. An id that was chosen may
    /// have been used before, and a recorded outcome needs no file.
    pub(super) fn is_for_person_and_new(&self) -> bool {
        let is_generated = uuid::Uuid::parse_str(&self.job.request_id).is_ok();
        self.config().first_contact.is_some() && is_generated
    }
}

/// Waits until the job is cancelled or `limit` has passed.
fn timed<'a>(
    name: &str,
    cancel: &'a CancellationToken,
    limit: Duration,
) -> impl Future<Output = RestoreError> + Send + use<'a> {
    let cancelled = format!("the {name} was interrupted");
    async move {
        tokio::select! {
            () = cancel.cancelled() => RestoreError::cancelled(&cancelled),
            () = tokio::time::sleep(limit) => {
                let what = format!("not finished within {}", format_duration(limit));
                JobError::new(JobKind::Timeout, what).into()
            }
        }
    }
}

/// What ends a job before its time.
pub(super) struct Bounds<'a> {
    /// Pending forever once it has ended the job.
    exceeded: Pin<Box<dyn Future<Output = RestoreError> + Send + 'a>>,
}

impl Bounds<'_> {
    /// Runs `work` unless the job must end first; `work` is then dropped where it waits.
    pub(super) async fn within<T>(
        &mut self,
        work: impl Future<Output = Result<T, RestoreError>>,
    ) -> Result<T, RestoreError> {
        tokio::select! {
            done = work => done,
            e = &mut self.exceeded => Err(e),
        }
    }
}

/// When a job started, by the wall clock and by a clock that never jumps.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobClock {
    started: jiff::Timestamp,
    begun: tokio::time::Instant,
}

impl JobClock {
    /// A clock that starts now.
    pub(super) fn start() -> Self {
        JobClock {
            started: jiff::Timestamp::now(),
            begun: tokio::time::Instant::now(),
        }
    }

    pub(super) fn started(&self) -> jiff::Timestamp {
        self.started
    }

    /// Seconds since the job started.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// The time of day now, as the start plus the time elapsed since.
    pub(super) fn now(&self) -> jiff::Timestamp {
        let elapsed = self.begun.elapsed();
        self.started.checked_add(elapsed).unwrap_or(self.started)
    }
}

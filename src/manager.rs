//! [`RestoreManager`]: the story of one job, stage by stage. Pin the backup, claim the target, read
//! the table of contents, load into staging, prove the bytes, swap. A failure at any point leaves the
//! target as it was and nothing behind. A verification goes the same way into a server of its own.

mod bisection;
mod diagnosis;
mod completeness;
mod completion;
mod context;
mod evidence;
mod verification_server;
mod indexed;
mod limits;
mod placement;
mod record;
mod source;
mod set_status;
mod targets;
mod upload;
mod verification;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

use crate::backup::{self, IntegrityCheck, PinnedBackup, ProvenBytes};
use crate::config::{Config, Trust};
use crate::database::{self, Claim, CreateOptions, ProvenStaging, Staging, TargetLock};
use crate::error::{FailureReason as R, JobError, RestoreError, ValidationError, report};
use crate::event::{RestoreResult, ResultBackup};
use crate::job::{BackupRef, Completeness, OnExisting, RestoreJob, made_for};
use crate::metrics::RestoreMetricsManager;
use crate::outcome::disposition;
use crate::policy::{Owners, Policy};
use crate::postgres::Server;
use crate::progress::Progress;
use crate::proof::VerificationReport;
use crate::steps::reached;
use crate::store::Stores;
use crate::verification::OwnEvidence;
use pgdump_archive::Archive;
use pgdump_restore::{LoadOptions, Loaded, Rewriter};

use context::{JobClock, JobContext, LoadProof};

pub use set_status::BackupSetStatus;

const NO_JOURNAL: &str = "no bookkeeping schema: a repeated request is not recognised, an older one not told from a newer";

/// How long cleaning up after a failure may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// Core component responsible for database restore operations.
#[derive(Clone)]
pub struct RestoreManager {
    config: Arc<Config>,
    stores: Arc<Stores>,
    server: Server,
    metrics: RestoreMetricsManager,
    own_evidence: Arc<OwnEvidence>,
    /// Of each set, when its newest proven backup was made.
    newest_proven: Arc<Mutex<HashMap<String, jiff::Timestamp>>>,
}

/// How a job ended: the body of its result event, and the reason if it failed.
#[derive(Debug, Clone)]
pub struct JobOutcome {
    pub result: RestoreResult,
    pub failure: Option<R>,
    /// The outcome was recorded earlier: this request had been done before.
    pub repeated: bool,
    /// Whatever the reason says of further attempts, there is to be none.
    pub is_final: bool,
    /// Of a verification: all that was found.
    pub proof: Option<Box<VerificationReport>>,
}

impl JobOutcome {
    /// A request that had its outcome already.
    pub fn recorded(result: RestoreResult) -> Self {
        let failure = result.error.as_ref().map(|e| e.reason);
        JobOutcome {
            result,
            failure,
            repeated: true,
            is_final: true,
            proof: None,
        }
    }

    /// A request that failed before or beside its work.
    pub fn refused(result: RestoreResult, reason: R) -> Self {
        JobOutcome {
            result,
            failure: Some(reason),
            repeated: false,
            is_final: false,
            proof: None,
        }
    }
}

/// What a job knows of itself as it goes, for its result.
#[derive(Default)]
struct RunState {
    backup: ResultBackup,
    size: u64,
    loaded: Option<Loaded>,
    pinned: Option<PinnedBackup>,
    /// The request is taken for one that kills workers.
    is_quarantined: bool,
    notes: Vec<String>,
    completeness: Option<Completeness>,
    /// How the dump was fitted to the target.
    rewriter: Option<Arc<Rewriter>>,
}

impl RestoreManager {
    pub fn new(
        config: Arc<Config>,
        stores: Arc<Stores>,
        server: Server,
        metrics: RestoreMetricsManager,
    ) -> Self {
        let (own_evidence, newest_proven) = Default::default();
        RestoreManager {
            config,
            stores,
            server,
            metrics,
            own_evidence,
            newest_proven,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Restore the backup `backup_name` into a new database `target_db`. True when it is there.
    ///
    /// # Errors
    /// `RestoreError` if the restore fails, as `ValidationError` if the backup or request is wrong.
    pub async fn restore_backup(
        &self,
        backup_name: &str,
        target_db: &str,
    ) -> Result<bool, RestoreError> {
        let job = RestoreJob {
            request_id: uuid::Uuid::new_v4().to_string(),
            backup: BackupRef::from_name(backup_name, "")?,
            generation: None,
            crc32c: None,
            target_db: target_db.to_owned(),
            on_existing: OnExisting::Fail,
            jobs: None,
            deadline: None,
            labels: Default::default(),
            sequence: None,
            attempt: 1,
            policy: None,
            database: None,
            selection: Default::default(),
            in_place: None,
            digest: String::new(),
        };
        let done = self
            .run(&job, Arc::default(), CancellationToken::new())
            .await;
        match done.result.error {
            None => Ok(true),
            Some(e) => Err(JobError::new(e.reason, e.message).into()),
        }
    }

    /// Runs one job to its end: always a result, whatever happens.
    pub async fn run(
        &self,
        job: &RestoreJob,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> JobOutcome {
        let span = tracing::info_span!(
            "restore",
            request_id = job.request_id,
            target_db = job.target_db,
            attempt = job.attempt,
            failure_reason = Empty,
            otel.status_code = Empty
        );
        self.run_in_span(job, progress, stop).instrument(span).await
    }

    async fn run_in_span(
        &self,
        job: &RestoreJob,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> JobOutcome {
        let clock = JobClock::start();
        let watched = progress.clone();
        let _in_progress = self
            .metrics
            .start_restore(move || completion::work_of(&watched));
        let mut facts = RunState::default();
        let limit = self.time_limit(job, clock.started());
        // The download and the loading end with this job, however it ends.
        let stop = stop.child_token();
        let _guard = stop.clone().drop_guard();
        let context = JobContext {
            job,
            progress: &progress,
            cancel: &stop,
            clock,
        };
        let done = self.stages(&context, limit, &mut facts).await;
        let (result, failure, repeated) = match done {
            Ok(RestoreEnd::Restored(result)) => (*result, None, false),
            Ok(RestoreEnd::Failed(result)) => {
                let failure = result.error.as_ref().map(|e| e.reason);
                (*result, failure, false)
            }
            Ok(RestoreEnd::Recorded(result)) => {
                let failure = result.error.as_ref().map(|e| e.reason);
                (*result, failure, true)
            }
            Err(e) if e.reason() == R::TargetBusy => {
                tracing::info!("the target is busy with another restore");
                let result = self.describe(&context, &facts, Some(&e));
                return JobOutcome::refused(result, R::TargetBusy);
            }
            Err(e) => {
                log_failure(&progress, &e);
                (
                    self.describe(&context, &facts, Some(&e)),
                    Some(e.reason()),
                    false,
                )
            }
        };
        if !repeated {
            self.count(&progress, &facts, &result, failure);
        }
        end_spans(&progress, failure);
        let is_final = repeated || facts.is_quarantined;
        JobOutcome {
            result,
            failure,
            repeated,
            is_final,
            proof: None,
        }
    }

    fn time_limit(&self, job: &RestoreJob, now: jiff::Timestamp) -> Duration {
        let left = job
            .deadline
            .map(|d| Duration::try_from(d.duration_since(now)).unwrap_or_default());
        left.map_or(self.config.timeout, |l| l.min(self.config.timeout))
    }

    async fn stages(
        &self,
        context: &JobContext<'_, RestoreJob>,
        limit: Duration,
        facts: &mut RunState,
    ) -> Result<RestoreEnd, RestoreError> {
        let JobContext {
            job,
            progress,
            cancel: stop,
            ..
        } = context;
        progress.enter("prepare");
        self.check_target(&job.target_db)?;
        targets::check_part(job)?;
        let end = async {
            tokio::select! {
                () = stop.cancelled() => RestoreError::cancelled("the restore was interrupted"),
                () = tokio::time::sleep(limit) => {
                    JobError::new(R::Timeout, format!("not finished within {limit:?}")).into()
                }
                e = limits::exceeded(&self.config, progress) => e,
            }
        };
        tokio::pin!(end);
        self.open_ahead(&job.backup);
        let claim = tokio::select! {
            claim = database::claim(&self.server, job, self.terms()) => claim?,
            e = &mut end => return Err(e),
        };
        let mut claimed = match claim {
            Claim::Granted(claimed) => claimed,
            Claim::Done(outcome) => return recorded(outcome),
        };
        if !claimed.has_journal() {
            facts.notes.push(NO_JOURNAL.into());
        }
        let checked = tokio::select! {
            checked = claimed.check(job.attempt) => checked.map(|notes| facts.notes.extend(notes)),
            e = &mut end => Err(e),
        };
        facts.is_quarantined = claimed.is_quarantined(job.attempt);
        let mut staging = None;
        let loaded = match checked {
            Err(e) => Err(e),
            Ok(()) => tokio::select! {
                loaded = self.load(context, &claimed, &mut staging, facts) => loaded,
                e = claimed.lost() => Err(e),
                e = &mut end => Err(e),
            },
        };
        // The last look: from here on the job is not interrupted. The swap is short and is whole or not at all.
        let loaded = if stop.is_cancelled() {
            loaded.and(Err(RestoreError::cancelled("the restore was interrupted")))
        } else {
            loaded
        };
        let swapped = match (loaded, staging) {
            (Ok(proof), Some(staging)) => {
                let proven = staging.proven(proof.loaded, proof.bytes);
                self.swap(context, &mut claimed, &proven, facts).await
            }
            (Ok(_), None) => Err(RestoreError::internal("nothing was loaded")),
            (Err(e), _) => Err(claimed.unless_lost(e).await),
        };
        match swapped {
            Ok(result) => Ok(RestoreEnd::Restored(Box::new(result))),
            Err(e) => {
                let (e, _) = self.diagnose(e, facts.pinned.as_ref(), stop).await;
                log_failure(progress, &e);
                let result = self.describe(context, facts, Some(&e));
                self.clean_up(&mut claimed).await;
                let attempt = if facts.is_quarantined {
                    u32::MAX
                } else {
                    job.attempt
                };
                match self
                    .record_end(&claimed, &result, e.reason(), attempt)
                    .await
                {
                    Some(outcome) => recorded(outcome),
                    None => Ok(RestoreEnd::Failed(Box::new(result))),
                }
            }
        }
    }

    /// Everything from an archive that was opened up to a loaded staging database, and the proof of it.
    async fn load_from(
        &self,
        context: &JobContext<'_, RestoreJob>,
        (mut archive, expected): (Archive, IntegrityCheck),
        claimed: &TargetLock,
        staging: &mut Option<Staging>,
        facts: &mut RunState,
    ) -> Result<LoadProof, RestoreError> {
        let JobContext {
            job,
            progress,
            cancel: stop,
            ..
        } = context;
        let pinned = facts.pinned.clone();
        let completeness = self.completeness_of(&archive)?;
        let mut policy = job
            .policy
            .clone()
            .unwrap_or_else(|| self.config.policy.clone());
        claimed.announce_staging().await?;
        let loader = match self.trust_of(&job.backup) {
            Trust::Full => None,
            Trust::Restricted => {
                policy = restricted(policy);
                Some(claimed.confine(&self.config.restricted).await?)
            }
        };
        let globals = self.globals(&policy, pinned.as_ref(), stop).await?;
        let analyze = policy.analyze;
        let data_only = job.selection.data_only;
        let asked = claimed.session();
        let options = if data_only {
            CreateOptions::copy_of(&job.target_db)
        } else {
            CreateOptions::of_dump(asked, archive.entries(), archive.encoding()).await?
        };
        pgdump_restore::convert_texts(asked, &mut archive, &options.encoding(asked).await?).await?;
        let placement = self.placement(job, claimed, archive.entries());
        facts.notes.extend(placement.notes);
        let facts_of_server = claimed.server_facts().await?;
        let facts_of_server =
            placement::facts_for(facts_of_server, &placement.database, &job.target_db);
        let facts_of_server = match &loader {
            Some(loader) => loader.facts(facts_of_server),
            None => facts_of_server,
        };
        let rewriter = Rewriter::new(facts_of_server, policy, globals);
        let rewriter = Arc::new(rewriter.with_role_comment(made_for(&claimed.staging_name())));
        facts.rewriter = Some(rewriter.clone());
        let stored = pinned.map(|b| b.object.size);
        let prepared = pgdump_restore::prepare(&archive, &job.selection, stored, &rewriter)?;
        facts.notes.extend(prepared.notes);
        if data_only && loader.is_some() {
            let what = "rows alone go into a copy of the target, where a restricted role owns nothing: restore the whole";
            return Err(ValidationError::new(R::InvalidRequest, what).into());
        }
        if data_only && claimed.previous_name().is_none() {
            let what = format!(
                "target_db: {} does not exist, and rows alone need its tables",
                job.target_db
            );
            return Err(ValidationError::new(R::InvalidRequest, what).into());
        }
        claimed.make_roles(&prepared.roles).await?;
        let made = staging.insert(claimed.create_staging(&options).await?);
        facts.notes.append(&mut made.notes);
        if placement.in_place {
            claimed.put_in_place(made).await?;
        }
        if let Some(loader) = &loader {
            claimed.admit(loader, made).await?;
        }
        let own = made.on(&self.server);
        let server = &made.on(loader.as_ref().map_or(&self.server, |l| &l.server));
        let opened = if data_only {
            Some(pgdump_restore::open_tables(&own, &made.name).await?)
        } else {
            None
        };
        let sessions = self.config.jobs_for(job.jobs, rewriter.facts.cores);
        let options = LoadOptions {
            sessions,
            queue_bytes: self.config.queue_bytes,
            binary_from: self.config.binary_from,
            max_bytes: self.config.max_bytes,
            content_digest: None,
            in_order_into: opened.as_ref().map(|o| o.dependent.clone()),
        };
        let entries = prepared.entries;
        let shown = Arc::clone(progress);
        let loaded = pgdump_restore::load(
            server,
            &made.name,
            archive,
            entries,
            options,
            rewriter.clone(),
            shown,
        )
        .await?;
        claimed.set_loader_right().await;
        let bytes = prove(loaded, &expected, facts)?;
        self.note_end(Completeness::of(completeness.get()), facts)?;
        reached("loaded");
        if let Some(opened) = opened {
            opened.close(&own, &made.name).await?;
        }
        if !job.selection.rename_schemas.is_empty() {
            pgdump_restore::rename_schemas(server, &made.name, &job.selection.rename_schemas)
                .await?;
        }
        if analyze && !rewriter.has_statistics() {
            progress.enter("analyze");
            facts
                .notes
                .extend(pgdump_restore::analyze(server, &made.name, sessions).await?);
        }
        progress.enter("check");
        facts
            .notes
            .extend(pgdump_restore::check(server, &made.name, sessions).await?);
        reached("checked");
        if let Some(loader) = &loader {
            facts
                .notes
                .extend(claimed.reassign_owned(loader, made).await?);
        }
        Ok(LoadProof { loaded, bytes })
    }

    async fn swap(
        &self,
        context: &JobContext<'_, RestoreJob>,
        claimed: &mut TargetLock,
        staging: &ProvenStaging,
        facts: &RunState,
    ) -> Result<RestoreResult, RestoreError> {
        let mut result = self.describe(context, facts, None);
        result.previous_database = claimed.previous_name().map(str::to_owned);
        let outcome =
            serde_json::to_value(&result).map_err(|e| RestoreError::internal(e.to_string()))?;
        context.progress.enter("swap");
        claimed.swap(staging, &outcome).await?;
        Ok(result)
    }

    async fn clean_up(&self, claimed: &mut TargetLock) {
        match tokio::time::timeout(CLEANUP, claimed.discard()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                tracing::error!(error = report(&e), "the staging database was not dropped")
            }
            Err(_) => tracing::error!("dropping the staging database took too long"),
        }
    }

    /// A failure that is final is recorded, so that a redelivery gets the same answer; any other attempt
    /// is given back. Returns the outcome of a request that has been applied all the same.
    async fn record_end(
        &self,
        claimed: &TargetLock,
        result: &RestoreResult,
        reason: R,
        attempt: u32,
    ) -> Option<serde_json::Value> {
        let done = if disposition(Some(reason), attempt, self.config.max_attempts).publish {
            claimed
                .record_failure(&serde_json::to_value(result).ok()?)
                .await
        } else {
            claimed.release().await.map(|()| None)
        };
        done.unwrap_or_else(|e| {
            tracing::warn!(
                error = report(&e),
                "the end of the attempt could not be recorded"
            );
            None
        })
    }

    fn describe(
        &self,
        context: &JobContext<'_, RestoreJob>,
        facts: &RunState,
        error: Option<&RestoreError>,
    ) -> RestoreResult {
        let JobContext {
            job,
            progress,
            clock,
            ..
        } = context;
        let seconds = clock.seconds();
        let mut r = RestoreResult::new(&job.request_id, (clock.started(), clock.now()));
        if let Some(e) = error {
            r.fail(e, progress.stage());
        }
        r.duration_seconds = seconds;
        r.backup = facts.backup.clone();
        // What was not found was asked for by a name.
        if let (None, BackupRef::Named { name, .. }) = (&r.backup.name, &job.backup) {
            r.backup.name = Some(name.clone());
        }
        r.target_db = Some(job.target_db.clone());
        r.attempt = job.attempt;
        r.stages = progress
            .stages()
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect();
        if let Some(l) = facts.loaded {
            (r.tables, r.rows, r.bytes) = (l.tables, l.rows, l.bytes);
        }
        r.notes = facts.notes.clone();
        r.rewrites = facts
            .rewriter
            .as_ref()
            .map(|f| f.report())
            .unwrap_or_default();
        r.labels = job.labels.clone();
        r.completeness = facts.completeness.filter(|_| error.is_none());
        r.bound();
        r
    }
}

/// Ends what a trace shows of a job: its last stage, and how the current span, the job's, came out.
fn end_spans(progress: &Progress, failure: Option<R>) {
    progress.end();
    if let Some(reason) = failure {
        let job = tracing::Span::current();
        job.record("failure_reason", reason.as_str());
        job.record("otel.status_code", "ERROR");
    }
}

fn log_failure(progress: &Progress, e: &RestoreError) {
    tracing::error!(
        stage = progress.stage(), failure_reason = %e.reason(), error = report(e),
        "the restore failed"
    );
}

/// A restricted restore keeps nothing of the dump's roles: everything belongs to one role without powers.
fn restricted(policy: Policy) -> Policy {
    Policy {
        owners: Owners::None,
        privileges: false,
        create_roles: false,
        globals: None,
        ..policy
    }
}

enum RestoreEnd {
    Restored(Box<RestoreResult>),
    Failed(Box<RestoreResult>),
    Recorded(Box<RestoreResult>),
}

fn recorded(outcome: serde_json::Value) -> Result<RestoreEnd, RestoreError> {
    let result = serde_json::from_value(outcome)
        .map_err(|e| RestoreError::internal(format!("the recorded outcome cannot be read: {e}")))?;
    Ok(RestoreEnd::Recorded(Box::new(result)))
}

/// The loaded data is the backup's only if every byte was the object's.
fn prove(
    loaded: Loaded,
    expected: &IntegrityCheck,
    facts: &mut RunState,
) -> Result<ProvenBytes, RestoreError> {
    let bytes = expected.check()?;
    facts.backup.crc32c = bytes.crc32c().map(backup::encode_crc32c);
    facts.backup.size = Some(bytes.size().to_string());
    facts.size = bytes.size();
    facts.loaded = Some(loaded);
    Ok(bytes)
}

//! A restore: claim the target, pin the backup, open and prepare it, create a staging database, load and prove it, then
//! swap it into place. A failure at any point before the swap leaves the target as it was and nothing behind. A target
//! that is empty may be filled instead; a failure empties it again.

use std::sync::Arc;

use pgdump_restore::{Body, Mark, Stage, contradicts_record};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

use super::failed_restore::{fail, log_failure, recorded, stand_back};
use super::finish::FinishingSteps;
use super::handover;
use super::job_context::{JobClock, JobContext, Services};
use super::job_outcome::{JobOutcome, NO_JOURNAL, end_spans};
use super::pins::Pins;
use super::result_draft::ResultDraft;
use super::states::{
    LoadRequest, LoadStyle, LoadSummary, Opened, Pinned, Prepared, Proven, Started, policy_under,
};
use super::target_destination::{FROM_THE_START, Resumption, TargetDestination, WantedWork};
use super::tuning_watch::TuningWatch;
use super::{completeness, completion, reading, rehearsal, replacement, targets};
use crate::backup;
use crate::catalog;
use crate::config::{Config, Trust};
use crate::database::{
    self, Claim, FoundWork, Loader, NotContinued, ProvenStaging, ResumeTerms, ServerDisk,
    TargetLock, out_of_space, unless_full,
};
use crate::error::{
    FailureReason as R, RestoreError, ValidationError, ValidationKind, report as said,
};
use crate::event::RestoreResult;
use crate::job::{BackupRef, Completeness, KeepProgress, OnExisting, RestoreJob};
use crate::policy::{OnError, Policy};
use crate::progress::Progress;
use crate::steps::reached;

const WITHOUT_STATISTICS: &str = "planner statistics of the backup were left out where they may hold values of masked rows: run ANALYZE";

/// Why the work of a restore is not kept.
const NOT_READ_AGAIN: &str = "standard input cannot be read again";

const FILLS_BEGIN_AGAIN: &str =
    "a database that is filled is emptied again after an attempt that did not finish";

type RestoreContext<'a> = JobContext<'a, RestoreJob>;

/// Runs one restore to its end: there is always a result.
pub(crate) async fn run(
    services: &Services,
    job: &RestoreJob,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> JobOutcome {
    if job.is_rehearsal {
        return Box::pin(rehearsal::answer(services, job, progress, stop)).await;
    }
    let span = tracing::info_span!(
        "restore",
        request_id = job.request_id,
        target_db = job.target_db,
        attempt = job.attempt,
        failure_reason = Empty,
        otel.status_code = Empty
    );
    run_in_span(services, job, progress, stop)
        .instrument(span)
        .await
}

async fn run_in_span(
    services: &Services,
    job: &RestoreJob,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> JobOutcome {
    let clock = JobClock::start();
    let watched = progress.clone();
    let _in_progress = services
        .metrics
        .start_restore(move || completion::work_of(&watched));
    // The download and the load end with this job, however it ends.
    let cancel = stop.child_token();
    let _guard = cancel.clone().drop_guard();
    let context = JobContext {
        services,
        job,
        progress: &progress,
        cancel: &cancel,
        clock,
    };
    let mut draft = ResultDraft::default();
    let outcome = match claim_and_restore(&context, &mut draft).await {
        Ok(outcome) => outcome,
        Err(e) if e.reason() == R::TargetBusy => {
            tracing::info!("the target is busy with another restore");
            return JobOutcome::failed(draft.result(&context, Some(&e)), R::TargetBusy);
        }
        Err(e) => {
            log_failure(&context, &draft, &e, e.reason().retry_class());
            draft.outcome(draft.result(&context, Some(&e)), Some(e.reason()))
        }
    };
    if !outcome.repeated {
        completion::record_restore(services, &progress, draft.size, &outcome);
    }
    end_spans(&progress, outcome.failure);
    outcome
}

async fn claim_and_restore(
    context: &RestoreContext<'_>,
    draft: &mut ResultDraft,
) -> Result<JobOutcome, RestoreError> {
    let (job, config) = (context.job, context.config());
    context.progress.enter(Stage::Prepare);
    let is_fill = job.on_existing == OnExisting::Fill;
    targets::check_restore(config, &job.target_db, is_fill)?;
    targets::check_trust(job.on_existing, context.catalog().trust_of(&job.backup))?;
    targets::check_part(job)?;
    let mut bounds = context.bounds("restore", job.deadline);
    if context.is_for_person_and_new() {
        let stop = context.cancel.child_token();
        let looked = context
            .catalog()
            .look_at_file(&job.backup, job.generation, stop);
        bounds.within(looked).await?;
    }
    context.catalog().open_ahead(&job.backup);
    let terms = targets::claim_policy_of(config, job);
    let claim = bounds.within(database::claim(&context.services.server, job, terms));
    let claim = claim.await;
    let counted = (job, config.resume.mode, config.max_attempts);
    let unclaimed = &context.services.unclaimed;
    draft.counted = unclaimed.count(counted, claim.as_ref().err());
    let mut claimed = match claim? {
        Claim::Granted(claimed) => claimed,
        Claim::Done(outcome) => return recorded(outcome),
    };
    if !claimed.has_journal() {
        draft.summary.notes.push(NO_JOURNAL.into());
    }
    let check = async {
        let notes = claimed.check(job.deliveries()).await?;
        claimed.check_owner_of_replaced().await?;
        Ok((notes, ServerDisk::of(claimed.session()).await))
    };
    let (checked, disk) = match bounds.within(check).await {
        Ok((notes, disk)) => (Ok(notes), disk),
        Err(e) => (Err(e), None),
    };
    let checked = match checked {
        Err(e) if e.reason() == R::TargetBusy => {
            stand_back(&claimed, job).await;
            return Err(e);
        }
        other => other,
    };
    draft.is_quarantined = claimed.is_quarantined(job.deliveries());
    draft.counted = Some(claimed.counted_attempt(job.attempt));
    let proven = match checked {
        Err(e) => Err(e),
        Ok(notes) => {
            draft.summary.notes.extend(notes);
            let share = || context.share();
            let work = async {
                tokio::select! {
                    proven = Box::pin(restore_until_swap(context, &claimed, draft)) => proven,
                    e = claimed.lost(&share) => Err(e),
                    e = claimed.store_when_due() => Err(e),
                    e = out_of_space(disk.as_ref(), config.min_free) => Err(e),
                }
            };
            bounds.within(work).await
        }
    };
    // The last look: from here on the job is not interrupted. The swap is short, and whole or not at all.
    let proven = if context.cancel.is_cancelled() {
        proven.and(Err(RestoreError::cancelled("the restore was interrupted")))
    } else {
        proven
    };
    let swapped = match proven {
        Ok(staging) => swap(context, &mut claimed, staging, draft).await,
        Err(e) => {
            let e = claimed.unless_lost(e).await;
            Err(unless_full(disk.as_ref(), config.min_free, e))
        }
    };
    match swapped {
        Ok(result) => Ok(draft.outcome(result, None)),
        Err(e) => fail(context, &mut claimed, (e, &mut bounds), draft).await,
    }
}

/// Everything that may be interrupted: a proven staging database, and a target that may be exchanged.
async fn restore_until_swap(
    context: &RestoreContext<'_>,
    claimed: &TargetLock,
    draft: &mut ResultDraft,
) -> Result<ProvenStaging, RestoreError> {
    let proven = restore_into_staging(context, claimed, draft).await?;
    if context.config().swap_when_idle.is_some() {
        context.progress.enter(Stage::Swap);
        let _step = context.progress.long_step();
        claimed.wait_until_idle().await?;
    }
    Ok(proven)
}

/// Everything up to a proven staging database.
async fn restore_into_staging(
    context: &RestoreContext<'_>,
    claimed: &TargetLock,
    draft: &mut ResultDraft,
) -> Result<ProvenStaging, RestoreError> {
    draft.finishing = FinishingSteps::of(context).await?;
    let pinned = pin(context, draft).await?;
    match Box::pin(restore_pinned(context, claimed, &pinned, draft)).await {
        Ok(proven) => Ok(proven),
        Err(e) => Err(rehearsal::with_refusals(context, &pinned, e).await),
    }
}

/// Goes on with what an earlier attempt has left. If that turns out not to be what its record says, it is dropped, and the
/// restore begins from the start: another attempt would have no reason to do otherwise.
async fn restore_pinned(
    context: &RestoreContext<'_>,
    claimed: &TargetLock,
    pinned: &Pinned,
    draft: &mut ResultDraft,
) -> Result<ProvenStaging, RestoreError> {
    let notes = draft.summary.notes.len();
    let e = match Box::pin(restore_opened(context, claimed, pinned, draft)).await {
        Err(e) if is_of_record(draft, &e) => e,
        other => return other,
    };
    let why = NotContinued::Contradicted(said(&e)).to_string();
    tracing::warn!(why = why.as_str(), "begun from the start");
    draft.summary.notes.truncate(notes);
    let note = format!("{FROM_THE_START}{why}");
    draft.summary.notes.push(note);
    draft.resumption = None;
    context.progress.begin_again();
    let database = context.job.database.as_deref();
    let opened = pinned.open(context, database).await?;
    Box::pin(load_and_prove(context, opened, claimed, draft)).await
}

/// Whether what was continued, and not the backup, is what a load has failed with.
fn is_of_record(draft: &ResultDraft, e: &RestoreError) -> bool {
    // A new name of a schema, or the requester's own SQL, may be of something that exists, too.
    let is_loaded = draft.loaded.is_some();
    draft.resumption.is_some() && !is_loaded && contradicts_record(e)
}

/// A restore index, or an archive's own table of contents, only says where blocks are: a backup that fails with it is read
/// once more from front to back, and that attempt counts.
async fn restore_opened(
    context: &RestoreContext<'_>,
    claimed: &TargetLock,
    pinned: &Pinned,
    draft: &mut ResultDraft,
) -> Result<ProvenStaging, RestoreError> {
    let (job, catalog) = (context.job, context.catalog());
    // The attempt that is continued was rehearsed before it loaded anything.
    let terms = ResumeTerms::of(context.config());
    let is_wanted = |w: Arc<FoundWork>| w.obstacle(&job.target_db, terms).is_none();
    let is_continued = claimed.find_work().await?.is_some_and(is_wanted);
    let index = match pinned.backup() {
        // With a database to look for, the archive is read as it is; `latest` has looked already.
        Some(backup) if job.database.is_none() || matches!(job.backup, BackupRef::Latest(_)) => {
            catalog.index_of(backup).await
        }
        _ => None,
    };
    let notes = draft.summary.notes.len();
    let open = reading::open(context, pinned, index);
    let open = rehearsal::open_and_rehearse(context, (pinned, is_continued), open);
    let (opened, reading) = open.await?;
    match Box::pin(load_and_prove(context, opened, claimed, draft)).await {
        Err(e) if reading.may_be_the_cause(context, &e) => {
            draft.summary.notes.truncate(notes);
            // What was loaded by blocks is not continued.
            if draft.resumption.take().is_some() {
                let why = NotContinued::Incomplete(said(&e));
                draft.summary.notes.push(format!("{FROM_THE_START}{why}"));
            }
            let opened = reading::open_in_order(context, pinned, &e).await?;
            Box::pin(load_and_prove(context, opened, claimed, draft)).await
        }
        other => other,
    }
}

async fn pin(
    context: &RestoreContext<'_>,
    draft: &mut ResultDraft,
) -> Result<Pinned, RestoreError> {
    let job = context.job;
    let crc32c = job
        .crc32c
        .as_deref()
        .map(backup::decode_crc32c)
        .transpose()?;
    let pinned = context
        .catalog()
        .pin(&job.backup, job.generation, crc32c)
        .await?;
    if let Some(pinned) = &pinned {
        draft.size = pinned.object.size;
        draft.backup = catalog::describe(pinned);
        draft.summary.notes.extend(pinned.notes.iter().cloned());
    }
    draft.pinned.clone_from(&pinned);
    Ok(Pinned::new(pinned))
}

/// `Opened` → `Prepared` → `CreatedStaging` → `LoadedStaging` → `Proven`.
async fn load_and_prove(
    context: &RestoreContext<'_>,
    opened: Opened,
    claimed: &TargetLock,
    draft: &mut ResultDraft,
) -> Result<ProvenStaging, RestoreError> {
    let (job, config) = (context.job, context.config());
    let trust = context.catalog().trust_of(&job.backup);
    let restriction = context.catalog().restriction_of(&job.backup);
    draft.summary.notes.extend(restriction.map(|r| r.note()));
    let completeness = completeness::completeness_of(config, &opened.archive)?;
    let coverage = opened.archive.coverage();
    replacement::check_archive(context, claimed, coverage.get()).await?;
    let request = LoadRequest {
        policy: policy_under(trust, policy_of(job, config)),
        selection: &job.selection,
        backup: draft.pinned.as_ref(),
        masking: context.masking(),
    };
    let found = claimed.find_work().await?;
    let place = (trust, found.as_deref());
    let mut destination = TargetDestination::announce(context, claimed, place).await?;
    let prepared = opened
        .prepare(context, &mut destination, request, &mut draft.summary)
        .await?;
    check_data_only(job, claimed, trust)?;
    let started = start(context, prepared, (&destination, claimed), place, draft).await?;
    let created = match started {
        Started::Staging(created) => *created,
        Started::Sealed(staging, result) => {
            let sealed: Option<RestoreResult> = serde_json::from_value(result).ok();
            replacement::check_sealed(context, claimed, (sealed.as_ref(), coverage.get())).await?;
            draft.sealed = sealed.map(Box::new);
            draft.summary.notes.extend(staging.notes.iter().cloned());
            return Ok(staging);
        }
    };
    let own_server = created.staging.on(&context.services.server);
    let suspended = if job.selection.data_only {
        Some(pgdump_restore::open_tables(&own_server, &created.staging.name).await?)
    } else {
        None
    };
    let style = LoadStyle {
        in_order_into: suspended.as_ref().map(|s| s.dependent.clone()),
        copy_of: job.selection.data_only.then(|| job.target_db.clone()),
        ..LoadStyle::default()
    };
    let watch = TuningWatch::begin(claimed.session()).await;
    let loaded = created
        .load(context, job.jobs, style, &mut draft.summary)
        .await?;
    draft.advice = watch.end(claimed.session(), &loaded).await;
    // A row that says nothing new would look like progress.
    if !loaded.record.resumed().has(Mark::Loaded) {
        let is_loaded = Body::of_mark(Mark::Loaded);
        claimed.mark_work(&loaded.staging, is_loaded).await?;
    }
    warn_of_refusals(&draft.summary);
    claimed.set_loader_right().await;
    let proven = loaded.prove()?;
    draft.take_proof(&proven);
    let found = Completeness::of(completeness.get());
    completeness::check_complete(config, found)?;
    draft.completeness = Some(found);
    draft.summary.notes.extend(completeness::note_of(found));
    let loaded = (&proven, coverage.get());
    draft.contents = replacement::check_loaded(context, claimed, loaded).await?;
    let note = replacement::note_of(draft.contents, coverage.get());
    draft
        .summary
        .notes
        .extend(note.filter(|_| !job.selection.data_only));
    reached("loaded");
    if let Some(suspended) = suspended {
        suspended.close(&own_server, &proven.staging.name).await?;
    }
    let loader = destination.into_loader();
    complete(context, (claimed, loader), proven, draft).await
}

/// What follows the load: what the job asks for, and the final owner.
async fn complete(
    context: &RestoreContext<'_>,
    (claimed, loader): (&TargetLock, Option<Loader>),
    mut proven: Proven,
    draft: &mut ResultDraft,
) -> Result<ProvenStaging, RestoreError> {
    run_post_load(context, claimed, &proven, &mut draft.summary).await?;
    let restored = (claimed, &proven, draft.pinned.as_ref());
    let finishing = draft.finishing.run(context, restored);
    draft.finished = finishing.await?;
    // A swap that fails, or waits for long, does not lose the load. Before anything gets its final owner: the role that loads
    // could not go on then.
    let result = serde_json::to_value(draft.result(context, None));
    let result = result.map_err(|e| RestoreError::internal(e.to_string()))?;
    let sealing = claimed.seal(&proven.staging, loader.as_ref(), &result);
    sealing.await?;
    if let Some(loader) = loader {
        let notes = claimed.reassign_owned(&loader, &mut proven.staging).await?;
        draft.summary.notes.extend(notes);
    }
    Ok(proven.into_staging())
}

/// Goes on with the work of an earlier attempt, or creates the database and begins to record.
async fn start(
    context: &RestoreContext<'_>,
    prepared: Prepared,
    (destination, claimed): (&TargetDestination<'_>, &TargetLock),
    (trust, found): (Trust, Option<&FoundWork>),
    draft: &mut ResultDraft,
) -> Result<Started, RestoreError> {
    let (job, config) = (context.job, context.config());
    let pinned = (draft.pinned.as_ref(), trust);
    let pins = match handover::not_recorded(context, claimed, &prepared) {
        Some(why) => Err(why),
        None => Pins::of(context, pinned, &prepared, destination, &draft.finishing)
            .map(|pins| pins.text())
            .ok_or_else(|| NOT_READ_AGAIN.to_owned()),
    };
    let differs = found.and_then(|found| match &pins {
        Ok(pins) => Pins::difference(&found.pins, pins),
        Err(why) => Some(NotContinued::NotRecorded(why.clone())),
    });
    draft.not_recorded = pins.as_ref().err().cloned();
    if claimed.is_fill() && job.deliveries() > 1 {
        let note = format!("{FROM_THE_START}{FILLS_BEGIN_AGAIN}");
        draft.summary.notes.push(note);
    }
    let mut resumed = None;
    let work = WantedWork {
        pins: pins.as_deref().ok(),
        found,
        differs,
        terms: ResumeTerms::of(config),
        by_command: job.keep == KeepProgress::ForPerson,
        sessions: config.jobs_for(job.jobs, prepared.cores()),
        skips: prepared.policy().on_error == OnError::Skip,
        resumed: &mut resumed,
    };
    let started = prepared
        .create_or_continue(destination, work, context.progress, &mut draft.summary)
        .await?;
    draft.resumption = resumed;
    if let Some(Resumption { from, share }) = resumed {
        context.progress.continue_from(share);
        context.services.metrics.record_resumed(from.seconds_saved);
        tracing::info!(
            attempt = from.attempt,
            bytes = from.bytes,
            rows = from.rows,
            seconds_saved = from.seconds_saved,
            "restore continues"
        );
    }
    Ok(started)
}

/// The policy of a job: the configured one, unless the job has its own.
fn policy_of(job: &RestoreJob, config: &Config) -> Policy {
    let policy = job.policy.clone().unwrap_or_else(|| config.policy.clone());
    Policy {
        on_error: job.on_error.unwrap_or(policy.on_error),
        ..policy
    }
}

/// Logs once that something is left out of a database that otherwise is the backup's.
fn warn_of_refusals(summary: &LoadSummary) {
    let left_out = summary.refusals.as_ref().map_or(0, |r| r.found().len());
    if left_out > 0 {
        tracing::warn!(
            left_out,
            "the server refused definitions, which the restored database lacks"
        );
    }
}

/// What follows the load before the database is used: renamed schemas, statistics, checks.
async fn run_post_load(
    context: &RestoreContext<'_>,
    claimed: &TargetLock,
    proven: &Proven,
    summary: &mut LoadSummary,
) -> Result<(), RestoreError> {
    let (server, database) = (&proven.server, proven.staging.name.as_str());
    let (record, renames) = (
        proven.record.as_ref(),
        &context.job.selection.rename_schemas,
    );
    let resumed = record.resumed();
    if !renames.is_empty() && !resumed.has(Mark::Renamed) {
        pgdump_restore::rename_schemas(server, database, renames, Some(record)).await?;
    }
    let has_statistics = proven.rewriter.has_statistics() && !summary.lacks_statistics();
    if proven.rewriter.policy.analyze && !has_statistics {
        context.progress.enter(Stage::Analyze);
        let _step = context.progress.long_step();
        if !resumed.has(Mark::Analyzed) {
            let notes = pgdump_restore::analyze(server, database, proven.sessions).await?;
            summary.notes.extend(notes);
            let is_analyzed = Body::of_mark(Mark::Analyzed);
            claimed.mark_work(&proven.staging, is_analyzed).await?;
        }
    } else if summary.lacks_statistics() {
        summary.notes.push(WITHOUT_STATISTICS.to_owned());
    }
    context.progress.enter(Stage::Check);
    let notes = pgdump_restore::check(server, database, proven.sessions).await?;
    summary.notes.extend(notes);
    reached("checked");
    Ok(())
}

/// Rows alone need a target with their tables, and a role that owns those.
fn check_data_only(
    job: &RestoreJob,
    claimed: &TargetLock,
    trust: Trust,
) -> Result<(), RestoreError> {
    if !job.selection.data_only {
        return Ok(());
    }
    let what = if trust == Trust::Restricted {
        "a data-only restore loads into a copy of the target, where a restricted role owns nothing: restore the whole".to_owned()
    } else if claimed.previous_name().is_none() {
        format!(
            "target_db: {} does not exist, and a data-only restore needs its tables",
            job.target_db
        )
    } else {
        return Ok(());
    };
    Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
}

/// Proven → swapped: the database takes the target's place, and the outcome is recorded with it.
async fn swap(
    context: &RestoreContext<'_>,
    claimed: &mut TargetLock,
    staging: ProvenStaging,
    draft: &ResultDraft,
) -> Result<RestoreResult, RestoreError> {
    let mut result = draft.result(context, None);
    result.previous_database = claimed.previous_name().map(str::to_owned);
    result.partial = targets::is_part(&context.job.selection);
    result.notes.extend(claimed.note_of_fill());
    if !claimed.is_fill() {
        result
            .notes
            .extend(claimed.displace_waiting(&staging).await?);
    }
    let outcome = database::outcome_of(&result)?;
    // Unless it has waited for sessions on the target.
    context.progress.advance(Stage::Check, Stage::Swap);
    context.progress.advance(Stage::Finish, Stage::Swap);
    if claimed.is_fill() {
        claimed.finish_fill(&staging, &outcome).await?;
    } else {
        claimed.swap(&staging, &outcome).await?;
    }
    Ok(result)
}

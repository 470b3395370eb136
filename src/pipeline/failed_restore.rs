//! The end of an attempt at a restore that has failed: what it has made is kept or dropped, and what becomes of the request
//! is recorded.

use super::diagnosis::diagnose;
use super::handover::{self, Ending};
use super::job_context::{Bounds, JobContext};
use super::job_outcome::JobOutcome;
use super::result_draft::ResultDraft;
use crate::database::{KeptWork, TargetLock};
use crate::error::{RestoreError, RetryClass, report as said};
use crate::event::RestoreResult;
use crate::job::{KeepProgress, RestoreJob};
use crate::outcome::disposition;

type RestoreContext<'a> = JobContext<'a, RestoreJob>;

/// Cleans up after a failure and records it.
pub(super) async fn fail(
    context: &RestoreContext<'_>,
    claimed: &mut TargetLock,
    (e, bounds): (RestoreError, &mut Bounds<'_>),
    draft: &mut ResultDraft,
) -> Result<JobOutcome, RestoreError> {
    // What earlier attempts have done may have been found since.
    draft.counted = Some(claimed.counted_attempt(context.job.attempt));
    let attempt = draft.counted_attempt(context.job);
    let max_attempts = context.config().max_attempts;
    let counted = (attempt, draft.resumption.is_some());
    let mut ending = handover::ending_of(context, claimed, counted, &e);
    // First, because the diagnosis may read the whole backup again.
    if ending == Ending::Keep {
        handover::keep(context, claimed).await;
        if claimed.kept_work() == KeptWork::Nothing {
            // Its record was in memory, and could not be stored.
            ending = Ending::Discard;
        }
    }
    if ending == Ending::Discard {
        drop_work(context, claimed, &e, draft).await;
    }
    let (e, _) = diagnose(context, e, draft.pinned.as_ref(), Some(bounds)).await;
    if ending == Ending::Keep && !handover::comes_again_after(context, attempt, &e) {
        ending = Ending::Discard;
        drop_work(context, claimed, &e, draft).await;
    }
    let result = draft.result(context, Some(&e));
    let asked = (&context.job.backup, draft.pinned.as_ref());
    let outcome = JobOutcome {
        is_denied_alone: context.is_denied_alone(asked, &e).await,
        ..draft.outcome(result, Some(e.reason()))
    };
    let class = outcome.retry_class();
    log_failure(context, draft, &e, class.unwrap_or(RetryClass::Permanent));
    let is_answered = disposition(class, attempt, max_attempts).publish;
    // Nobody delivers what is answered again, for whatever reason it is. What is kept for a person is not answered.
    if ending == Ending::Keep && is_answered && context.job.keep == KeepProgress::ForRedelivery {
        ending = Ending::Discard;
        drop_work(context, claimed, &e, draft).await;
    }
    let end = End {
        ending,
        is_final: ending == Ending::Discard && is_answered,
        class,
    };
    match record_end(claimed, context.job, end, &outcome.result).await {
        Some(recorded_before) => recorded(recorded_before),
        None => Ok(outcome),
    }
}

/// Drops what the attempt has made; notes say what could not be dropped, and why nothing could be kept.
async fn drop_work(
    context: &RestoreContext<'_>,
    claimed: &mut TargetLock,
    e: &RestoreError,
    draft: &mut ResultDraft,
) {
    let not_kept = claimed.why_not_kept();
    let left = handover::clean_up(claimed).await;
    let left = left.filter(|_| claimed.is_fill());
    draft.summary.notes.extend(left);
    let attempt = draft.counted_attempt(context.job);
    if handover::comes_again_after(context, attempt, e) {
        let why = draft.not_recorded.take().or(not_kept);
        let note = why.map(|why| format!("the next attempt begins from the start: {why}"));
        draft.summary.notes.extend(note);
    }
}

/// How an attempt has ended.
struct End {
    ending: Ending,
    /// There will be no other attempt.
    is_final: bool,
    class: Option<RetryClass>,
}

/// Whether further attempts are made without anybody asking for them: at a message, or at the run of a standing restore.
fn comes_by_itself(job: &RestoreJob) -> bool {
    job.published_us.is_some() || job.keep == KeepProgress::ForRedelivery
}

/// Records a final failure, so that a redelivery gets the same answer. Any other attempt at a message, one whose work is kept, and
/// one at the run of a standing restore that counts, is given back, and that of a command is forgotten.
/// Returns the outcome of a request that has been applied after all.
async fn record_end(
    claimed: &TargetLock,
    job: &RestoreJob,
    end: End,
    result: &RestoreResult,
) -> Option<serde_json::Value> {
    let has_failed = end.class == Some(RetryClass::Transient);
    // It counts, or others before it do.
    let has_past = comes_by_itself(job) && (has_failed || claimed.has_past());
    let done = if end.is_final {
        claimed
            .record_failure(&serde_json::to_value(result).ok()?)
            .await
    } else if job.published_us.is_some() || has_past || end.ending == Ending::Keep {
        let released = match end.class {
            Some(RetryClass::Busy) => claimed.withdraw().await,
            _ => claimed.release(has_failed).await,
        };
        released.map(|()| None)
    } else {
        claimed.forget().await.map(|()| None)
    };
    done.unwrap_or_else(|e| {
        tracing::warn!(
            error = said(&e),
            "the end of the attempt could not be recorded"
        );
        None
    })
}

/// Gives a target back that another request has to have first. Nothing was begun, and what an earlier attempt has left stays.
pub(super) async fn stand_back(claimed: &TargetLock, job: &RestoreJob) {
    // Without its request, nobody would go on with what a person has kept; and a request that comes again by itself has a past.
    let has_work = !matches!(claimed.find_work().await, Ok(None));
    let has_past = comes_by_itself(job) && claimed.has_past();
    let done = if job.published_us.is_some() || has_work || has_past {
        claimed.withdraw().await
    } else {
        claimed.forget().await
    };
    if let Err(e) = done {
        tracing::warn!(
            error = said(&e),
            "the end of the attempt could not be recorded"
        );
    }
}

pub(super) fn recorded(outcome: serde_json::Value) -> Result<JobOutcome, RestoreError> {
    let result = serde_json::from_value(outcome)
        .map_err(|e| RestoreError::internal(format!("the recorded outcome cannot be read: {e}")))?;
    Ok(JobOutcome::recorded(result))
}

/// Whether another attempt is made at a request that failed so. A command has one.
fn is_redelivered(job: &RestoreJob, attempt: u32, class: RetryClass, max_attempts: u32) -> bool {
    comes_by_itself(job) && !disposition(Some(class), attempt, max_attempts).publish
}

/// Logs the failure of an attempt: a warning if there will be another one.
pub(super) fn log_failure(
    context: &RestoreContext<'_>,
    draft: &ResultDraft,
    e: &RestoreError,
    class: RetryClass,
) {
    let (job, reason, error) = (context.job, e.reason(), said(e));
    let stage = context.progress.stage().as_str();
    let attempt = draft.counted_attempt(job);
    if is_redelivered(job, attempt, class, context.config().max_attempts) {
        tracing::warn!(stage, failure_reason = %reason, error, "the restore failed");
    } else {
        tracing::error!(stage, failure_reason = %reason, error, "the restore failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason as R;

    /// If the journal forgot what it counts of a run of a standing restore, none would be the last.
    #[test]
    fn attempts_are_counted_of_all_that_comes_again() {
        let mut job = RestoreJob::replacing("r", "app", String::new());
        for (published_us, keep, wanted) in [
            (Some(1), KeepProgress::ForRedelivery, true),
            (None, KeepProgress::ForRedelivery, true),
            (None, KeepProgress::ForPerson, false),
            (None, KeepProgress::Never, false),
        ] {
            (job.published_us, job.keep) = (published_us, keep);
            assert_eq!(comes_by_itself(&job), wanted, "{published_us:?} {keep:?}");
        }
    }

    #[test]
    fn only_messages_with_attempts_left_are_redelivered() {
        let mut job = RestoreJob::replacing("r", "app", String::new());
        for (published_us, attempt, reason, wanted) in [
            (Some(1), 1, R::DownloadFailed, true),
            (Some(1), 4, R::DownloadFailed, false),
            (Some(1), 1, R::DataRejected, false),
            (Some(1), 9, R::AccessDenied, true),
            (Some(1), 9, R::Cancelled, true),
            // A command has one attempt.
            (None, 1, R::DownloadFailed, false),
            (None, 1, R::Cancelled, false),
            (None, 9, R::AccessDenied, false),
        ] {
            job.published_us = published_us;
            let is = is_redelivered(&job, attempt, reason.retry_class(), 4);
            assert_eq!(is, wanted, "{published_us:?} {attempt} {reason}");
            // What no message asks for is never taken for what crashes, however often it is tried.
            let deliveries = if published_us.is_some() { attempt } else { 1 };
            job.attempt = attempt;
            assert_eq!(job.deliveries(), deliveries);
        }
    }
}

//! What becomes of the work of a restore that fails: it is kept for the next attempt, or dropped.

use std::time::Duration;

use super::job_context::JobContext;
use super::states::Prepared;
use crate::config::Resume;
use crate::database::{KeptWork, ResumeTerms, TargetLock};
use crate::error::{FailureReason, JobKind, RestoreError, RetryClass, report as said};
use crate::event::NOT_EMPTIED;
use crate::job::{KeepProgress, RestoreJob};
use crate::outcome::disposition;
use pgdump_restore::not_recordable;

/// How long cleaning up after a failure may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// How long emptying a database again may take: it is not dropped in one piece.
const EMPTYING: Duration = Duration::from_secs(600);

/// What becomes of the work of an attempt that has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is kept for the next attempt.
    Keep,
    /// It is dropped.
    Discard,
}

/// What that depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct EndFacts {
    pub(super) work: KeptWork,
    pub(super) mode: Resume,
    /// Whether, and when, another attempt can help.
    pub(super) class: RetryClass,
    /// Whether another attempt will be made.
    pub(super) comes_again: bool,
    /// Whether the record is known to be wrong.
    pub(super) is_void: bool,
    /// For how long this attempt has recorded work, and how long that must be at least.
    pub(super) loaded_for: Duration,
    pub(super) worth_from: Duration,
    /// This attempt has continued another one, or lacks only the swap.
    pub(super) is_worth_it: bool,
}

/// Whether the work of a failed attempt is kept.
pub(super) fn ending(facts: &EndFacts) -> Ending {
    let can_help = match facts.class {
        RetryClass::Interrupted
        | RetryClass::Transient
        | RetryClass::Environment
        | RetryClass::Busy => true,
        RetryClass::Permanent => false,
    };
    let is_enough = match facts.work {
        KeptWork::Nothing => false,
        // Whether it is continued is up to the attempt that can.
        KeptWork::OfEarlierAttempt => true,
        KeptWork::OfThisAttempt => facts.is_worth_it || facts.loaded_for >= facts.worth_from,
    };
    let is_kept =
        can_help && is_enough && facts.comes_again && facts.mode == Resume::Auto && !facts.is_void;
    if is_kept {
        Ending::Keep
    } else {
        Ending::Discard
    }
}

/// Whether another attempt will be made at a job that failed so.
pub(super) fn comes_again(job: &RestoreJob, class: RetryClass, attempt: u32, most: u32) -> bool {
    match job.keep {
        KeepProgress::Never => false,
        KeepProgress::ForPerson => true,
        KeepProgress::ForRedelivery => !disposition(Some(class), attempt, most).publish,
    }
}

/// Whether another attempt will be made after this error, which it can help.
pub(super) fn comes_again_after(
    context: &JobContext<'_, RestoreJob>,
    attempt: u32,
    e: &RestoreError,
) -> bool {
    let class = class_of(context.job, e);
    let most = context.config().max_attempts;
    class != RetryClass::Permanent && comes_again(context.job, class, attempt, most)
}

/// Whether, and when, another attempt at this job can help after this error.
fn class_of(job: &RestoreJob, e: &RestoreError) -> RetryClass {
    match (e.reason(), job.keep) {
        // It was not done in the time that it had, and a person may give it more.
        (FailureReason::Timeout, KeepProgress::ForPerson) => RetryClass::Transient,
        (reason, _) => reason.retry_class(),
    }
}

/// Why nothing is recorded that another attempt could continue; `None` if it is recorded.
pub(super) fn not_recorded(
    context: &JobContext<'_, RestoreJob>,
    claimed: &TargetLock,
    prepared: &Prepared,
) -> Option<String> {
    let job = context.job;
    let reasons = [
        (
            context.config().resume.mode == Resume::Never,
            "RESTORE_RESUME is never",
        ),
        (
            job.keep == KeepProgress::Never,
            "nobody asked to keep its progress (--keep-progress)",
        ),
        (
            claimed.is_fill(),
            "a database that is filled is emptied again",
        ),
        (
            job.selection.data_only,
            "a data-only restore loads into a copy of the target",
        ),
        (
            !claimed.can_keep_work(),
            "the journal has no table pgrestored.work, or this role may not use it",
        ),
        (
            prepared.archive().is_generic_sql(),
            "pg_dump did not write this SQL text",
        ),
    ];
    let mut reasons = reasons.into_iter();
    match reasons.find(|(applies, _)| *applies) {
        Some((_, why)) => Some(why.to_owned()),
        None => not_recordable(prepared.planned()),
    }
}

/// What becomes of the work of the attempt that has failed with `e`; `attempt` counts deliveries.
pub(super) fn ending_of(
    context: &JobContext<'_, RestoreJob>,
    claimed: &TargetLock,
    (attempt, has_resumed): (u32, bool),
    e: &RestoreError,
) -> Ending {
    let (config, class) = (context.config(), class_of(context.job, e));
    let terms = ResumeTerms::of(config);
    ending(&EndFacts {
        work: claimed.kept_work(),
        mode: terms.mode,
        class,
        comes_again: comes_again(context.job, class, attempt, config.max_attempts),
        is_void: is_void(e),
        loaded_for: Duration::try_from_secs_f64(claimed.seconds_of_work()).unwrap_or_default(),
        worth_from: terms.from,
        is_worth_it: has_resumed || claimed.is_sealed(),
    })
}

/// Whether an error says that what is recorded is not what the backup has.
fn is_void(e: &RestoreError) -> bool {
    match e {
        RestoreError::Job(e) => e.kind() == JobKind::RecordDiffers,
        RestoreError::Validation(_) | RestoreError::Database(_) | RestoreError::Storage(_) => false,
    }
}

/// Leaves the work to the next attempt. A failure changes nothing of that: the next attempt finds it as after a crash.
pub(super) async fn keep(context: &JobContext<'_, RestoreJob>, claimed: &TargetLock) {
    let share = context.progress.snapshot().fraction.unwrap_or_default();
    match tokio::time::timeout(CLEANUP, claimed.hand_over(share)).await {
        Ok(Ok(Some(done))) => {
            tracing::info!(
                bytes = done.bytes,
                rows = done.rows,
                "progress is kept for the next attempt"
            );
        }
        // Without the lock, or before anything was taken over, there is nothing to do.
        Ok(Ok(None)) => {}
        Ok(Err(e)) => tracing::warn!(
            error = said(&e),
            "the work of this attempt was not closed for the next one"
        ),
        Err(_) => tracing::warn!("closing the work of this attempt took too long"),
    }
}

/// Drops what the attempt has made. Returns a note if a target that was filled could not be emptied again.
pub(super) async fn clean_up(claimed: &mut TargetLock) -> Option<String> {
    let limit = if claimed.is_fill() { EMPTYING } else { CLEANUP };
    let why = match tokio::time::timeout(limit, claimed.discard()).await {
        Ok(Ok(())) => return None,
        Ok(Err(e)) => {
            tracing::error!(error = said(&e), "the staging database was not dropped");
            said(&e)
        }
        Err(_) => {
            tracing::error!("dropping the staging database took too long");
            format!("that took longer than {limit:?}")
        }
    };
    Some(format!(
        "{NOT_EMPTIED}{why}; the next restore into it begins with that"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOPPED: EndFacts = EndFacts {
        work: KeptWork::OfThisAttempt,
        mode: Resume::Auto,
        class: RetryClass::Interrupted,
        comes_again: true,
        is_void: false,
        loaded_for: Duration::from_secs(61),
        worth_from: Duration::from_secs(60),
        is_worth_it: false,
    };

    #[test]
    fn work_is_kept_only_for_an_attempt_that_comes() {
        assert_eq!(ending(&STOPPED), Ending::Keep);
        type Change = fn(&mut EndFacts);
        let changes: [(Change, Ending); 13] = [
            (|f| f.class = RetryClass::Transient, Ending::Keep),
            (|f| f.class = RetryClass::Environment, Ending::Keep),
            (|f| f.class = RetryClass::Busy, Ending::Keep),
            (|f| f.class = RetryClass::Permanent, Ending::Discard),
            (|f| f.comes_again = false, Ending::Discard),
            (|f| f.mode = Resume::Never, Ending::Discard),
            (|f| f.is_void = true, Ending::Discard),
            (|f| f.work = KeptWork::Nothing, Ending::Discard),
            (|f| f.work = KeptWork::OfEarlierAttempt, Ending::Keep),
            (|f| f.loaded_for = Duration::from_secs(59), Ending::Discard),
            (|f| f.worth_from = Duration::ZERO, Ending::Keep),
            (
                |f| (f.loaded_for, f.is_worth_it) = (Duration::ZERO, true),
                Ending::Keep,
            ),
            (
                |f| (f.loaded_for, f.work) = (Duration::ZERO, KeptWork::OfEarlierAttempt),
                Ending::Keep,
            ),
        ];
        for (number, (change, wanted)) in changes.into_iter().enumerate() {
            let mut facts = STOPPED;
            change(&mut facts);
            assert_eq!(ending(&facts), wanted, "change {number}");
        }
    }

    #[test]
    fn a_message_comes_again_and_a_command_only_by_hand() {
        let mut job = RestoreJob::replacing("r", "app", String::new());
        for (keep, class, attempt, wanted) in [
            (KeepProgress::Never, RetryClass::Interrupted, 1, false),
            (KeepProgress::ForPerson, RetryClass::Transient, 9, true),
            (KeepProgress::ForRedelivery, RetryClass::Transient, 3, true),
            (KeepProgress::ForRedelivery, RetryClass::Transient, 4, false),
            (
                KeepProgress::ForRedelivery,
                RetryClass::Interrupted,
                9,
                true,
            ),
            (KeepProgress::ForRedelivery, RetryClass::Permanent, 1, false),
        ] {
            job.keep = keep;
            let comes = comes_again(&job, class, attempt, 4);
            assert_eq!(comes, wanted, "{keep:?} {class:?} {attempt}");
        }
    }

    #[test]
    fn what_took_too_long_is_kept_for_a_person() {
        let mut job = RestoreJob::replacing("r", "app", String::new());
        let e = |kind| RestoreError::from(crate::error::JobError::new(kind, "no"));
        for (keep, kind, wanted) in [
            (
                KeepProgress::ForPerson,
                JobKind::Timeout,
                RetryClass::Transient,
            ),
            (
                KeepProgress::ForRedelivery,
                JobKind::Timeout,
                RetryClass::Permanent,
            ),
            (KeepProgress::Never, JobKind::Timeout, RetryClass::Permanent),
            (
                KeepProgress::ForPerson,
                JobKind::Internal,
                RetryClass::Transient,
            ),
        ] {
            job.keep = keep;
            assert_eq!(class_of(&job, &e(kind)), wanted, "{keep:?} {kind:?}");
        }
    }

    #[test]
    fn a_record_that_differs_from_the_backup_is_not_kept() {
        let e = |kind| RestoreError::from(crate::error::JobError::new(kind, "no"));
        assert!(is_void(&e(JobKind::RecordDiffers)));
        assert!(!is_void(&e(JobKind::Internal)));
    }
}

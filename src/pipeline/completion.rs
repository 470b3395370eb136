//! What metrics and log report when a job has ended.

use super::job_context::Services;
use super::job_outcome::JobOutcome;
use crate::error::FailureReason as R;
use crate::event::Kind;
use crate::metrics::{VerificationStatus, Work};
use crate::policy::Trigger;
use crate::progress::Progress;
use crate::proof::{Verdict, VerificationReport};

/// Records the stages of a restore and logs its summary. Completions are counted by whoever settles the
/// request.
pub(super) fn record_restore(
    services: &Services,
    progress: &Progress,
    size: u64,
    outcome: &JobOutcome,
) {
    for (stage, seconds) in progress.stages() {
        services.metrics.record_stage(stage, seconds);
    }
    tracing::info!(
        duration_s = outcome.result.duration_seconds,
        rows = outcome.result.rows,
        size_bytes = size,
        failure_reason = outcome.failure.map_or("", R::as_str),
        "restore ended"
    );
}

/// Counts a verification that has its final answer.
fn record_verification(services: &Services, report: &VerificationReport) {
    let status = match report.verdict {
        Verdict::Verified => VerificationStatus::Success,
        Verdict::Failed => VerificationStatus::Failure,
        Verdict::Inconclusive => VerificationStatus::Inconclusive,
    };
    services.metrics.record_verification(status, None);
    // A proof of an older backup, as a sample, proves nothing about the newest one, and neither does a
    // look at its bytes alone.
    if report.is_proof() && report.trigger != Trigger::Sample {
        services.catalog.add_proof(report);
    }
}

/// Counts a request that has its final outcome.
pub(crate) fn record_completion(services: &Services, outcome: &JobOutcome) {
    if let Some(proof) = &outcome.proof {
        return record_verification(services, proof);
    }
    // Nothing was restored, and nothing failed to be.
    if outcome.result.kind == Kind::Rehearsal {
        return;
    }
    let size = outcome
        .result
        .backup
        .size
        .as_deref()
        .and_then(|s| s.parse().ok())
        .unwrap_or_default();
    services.metrics.record_restore_completion(
        outcome.result.duration_seconds,
        size,
        outcome.failure.is_none(),
        outcome.failure,
    );
}

/// The progress of a running job, for the counters of work done.
pub(super) fn work_of(progress: &Progress) -> Work {
    use std::sync::atomic::Ordering::Relaxed;
    Work {
        downloaded_bytes: progress.object_bytes.load(Relaxed),
        rows: progress.rows.load(Relaxed),
        objects: progress.tables_done.load(Relaxed) + progress.tasks_done.load(Relaxed),
        download_retries: progress.download_retries.load(Relaxed),
    }
}

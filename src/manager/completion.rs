//! What the metrics and the log are told when a job has ended.

use super::{JobOutcome, RestoreManager, RunState};
use crate::error::FailureReason as R;
use crate::event::RestoreResult;
use crate::metrics::{VerificationStatus, Work};
use crate::policy::Trigger;
use crate::progress::Progress;
use crate::proof::{Verdict, VerificationReport};

impl RestoreManager {
    /// Stages and the summary line; completions are counted by whoever ends the request.
    pub(super) fn count(
        &self,
        progress: &Progress,
        facts: &RunState,
        result: &RestoreResult,
        failure: Option<R>,
    ) {
        for (stage, seconds) in progress.stages() {
            self.metrics.record_stage(stage, seconds);
        }
        tracing::info!(
            duration_s = result.duration_seconds,
            rows = result.rows,
            size_bytes = facts.size,
            failure_reason = failure.map_or("", R::as_str),
            "restore ended"
        );
    }

    /// Counts a verification that has its final answer.
    fn record_verification(&self, report: &VerificationReport) {
        let status = match report.verdict {
            Verdict::Verified => VerificationStatus::Success,
            Verdict::Failed => VerificationStatus::Failure,
            Verdict::Inconclusive => VerificationStatus::Inconclusive,
        };
        // An older backup, proven as a sample, makes the newest one no better proven; nor does a look at
        // its bytes alone.
        let created = report
            .backup_created
            .filter(|_| report.is_proof() && report.trigger != Trigger::Sample);
        let is_proof = created.is_some_and(|t| self.is_newest_proof(&report.backup_set, t));
        self.metrics
            .record_verification(status, is_proof.then_some(report.backup_set.as_str()));
        if let (true, Some(rto)) = (report.is_proof(), &report.rto) {
            self.metrics.record_rto(
                &report.backup_set,
                rto.measured_seconds,
                rto.forecast_seconds,
            );
        }
    }

    /// Counts a request that has its final outcome.
    pub fn record_completion(&self, finished: &JobOutcome) {
        if let Some(proof) = &finished.proof {
            return self.record_verification(proof);
        }
        let size = finished
            .result
            .backup
            .size
            .as_deref()
            .and_then(|s| s.parse().ok())
            .unwrap_or_default();
        self.metrics.record_restore_completion(
            finished.result.duration_seconds,
            size,
            finished.failure.is_none(),
            finished.failure,
        );
    }
}

/// How far a running job is, for the counters of work.
pub(super) fn work_of(progress: &Progress) -> Work {
    use std::sync::atomic::Ordering::Relaxed;
    Work {
        downloaded_bytes: progress.object_bytes.load(Relaxed),
        rows: progress.rows.load(Relaxed),
        objects: progress.tables_done.load(Relaxed) + progress.tasks_done.load(Relaxed),
        download_retries: progress.download_retries.load(Relaxed),
    }
}

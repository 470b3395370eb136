//! How a job ended.

use crate::error::{FailureReason as R, RetryClass};
use crate::event::RestoreResult;
use crate::progress::Progress;
use crate::proof::VerificationReport;

/// The note of a restore on a server without a journal.
pub(super) const NO_JOURNAL: &str = "no bookkeeping schema: a repeated request is not recognized, and an older request is not distinguished from a newer one (pgrestored doctor says what to grant)";

/// How a job ended: the body of its result event, and the reason if it failed.
#[derive(Debug, Clone)]
pub struct JobOutcome {
    pub result: RestoreResult,
    pub failure: Option<R>,
    /// The outcome was recorded earlier: this request had been done before.
    pub repeated: bool,
    /// There is to be no further attempt, whatever the reason says.
    pub is_final: bool,
    /// The number of the attempt among those that count towards the last one, if that is known.
    pub counted: Option<u32>,
    /// The store denies the backup to this worker, which can read others: an answer about this backup, and no fault of
    /// the worker's environment.
    pub is_denied_alone: bool,
    /// Everything that a verification found.
    pub proof: Option<Box<VerificationReport>>,
}

impl JobOutcome {
    /// Whether the target server keeps no outcome of this restore, so that a repeated request restores again.
    pub(crate) fn lacks_journal(&self) -> bool {
        self.result.notes.iter().any(|note| note == NO_JOURNAL)
    }

    /// The number of the attempt among those that count; `delivery`: its number among all.
    pub fn counted_attempt(&self, delivery: u32) -> u32 {
        if self.is_final {
            u32::MAX
        } else {
            self.counted.unwrap_or(delivery)
        }
    }

    /// Whether, and when, another attempt can help; `None` after a success. What was answered before stays the answer.
    pub fn retry_class(&self) -> Option<RetryClass> {
        let has_answer = self.repeated || self.is_denied_alone;
        self.failure.map(|reason| {
            if has_answer {
                RetryClass::Permanent
            } else {
                reason.retry_class()
            }
        })
    }

    /// A request that had its outcome already.
    pub fn recorded(result: RestoreResult) -> Self {
        let failure = result.error.as_ref().map(|e| e.reason);
        JobOutcome {
            result,
            failure,
            repeated: true,
            is_final: true,
            counted: None,
            is_denied_alone: false,
            proof: None,
        }
    }

    /// A request that failed before or beside its work.
    pub fn failed(result: RestoreResult, reason: R) -> Self {
        JobOutcome {
            result,
            failure: Some(reason),
            repeated: false,
            is_final: false,
            counted: None,
            is_denied_alone: false,
            proof: None,
        }
    }
}

/// Closes a job's trace: ends its last stage and records the failure in the job's own span, which is the
/// current one.
pub(super) fn end_spans(progress: &Progress, failure: Option<R>) {
    progress.end();
    if let Some(reason) = failure {
        let job = tracing::Span::current();
        job.record("failure_reason", reason.as_str());
        job.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_without_a_journal_is_told_from_others() {
        let t = jiff::Timestamp::UNIX_EPOCH;
        let mut result = RestoreResult::new("r", (t, t));
        result.notes = vec!["another note".to_owned()];
        assert!(!JobOutcome::recorded(result.clone()).lacks_journal());
        result.notes.push(NO_JOURNAL.to_owned());
        assert!(JobOutcome::recorded(result).lacks_journal());
    }
}

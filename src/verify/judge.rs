//! From what was found to a verdict with its blame, and on to the result event. Pure.

use super::History;
use crate::error::{Blame, ErrorBody, FailureReason as R, RestoreError, RetryClass};
use crate::event::{Kind, RestoreResult, Status};
use crate::job::VerifyJob;
use crate::proof::{CheckStatus, ProofReport, Rto, Verdict, advice};

/// The verdict of a verification that came to its end: what failed, else what could not be checked.
pub fn judge(report: &mut ProofReport, stage: &str) {
    let failed = report.checks.iter().find(|c| c.status == CheckStatus::Failed);
    let open = report.checks.iter().find(|c| c.status == CheckStatus::NotChecked && c.required);
    let (reason, blame, verdict, check) = match (failed, open) {
        (Some(c), _) => (R::VerificationFailed, Blame::Backup, Verdict::Failed, c),
        (None, Some(c)) => {
            let reason = c.reason.unwrap_or(R::Internal);
            (reason, blame_of(reason), Verdict::Inconclusive, c)
        }
        (None, None) => {
            report.verdict = Verdict::Verified;
            report.depth = Some(report.depth_requested);
            return;
        }
    };
    report.verdict = verdict;
    report.fix = check.fix.clone().or_else(|| advice(reason).map(str::to_owned));
    report.error = Some(ErrorBody {
        reason,
        blame,
        stage: stage.to_owned(),
        message: format!("{}: {}", check.title(), check.message),
        sqlstate: None,
        retryable: reason.retry_class() != RetryClass::Permanent,
    });
}

/// In a verification the target is a clean server of a fitting version: what it refuses is the backup's.
fn blame_of(reason: R) -> Blame {
    match reason {
        R::RestoreError => Blame::Backup,
        // Nothing is wrong with what was overwritten.
        R::BackupChanged => Blame::Request,
        other => other.blame(),
    }
}

/// The verdict of a verification that could not go on.
pub fn fail(report: &mut ProofReport, e: &RestoreError, stage: &str) {
    let mut body = ErrorBody::new(e, stage);
    body.blame = match e {
        // A key that is missing, or an archive newer than this program.
        RestoreError::Job(_) if e.reason() == R::ArchiveUnsupported => Blame::Infrastructure,
        _ => blame_of(e.reason()),
    };
    report.verdict = if body.blame == Blame::Backup { Verdict::Failed } else { Verdict::Inconclusive };
    report.fix = match body.blame {
        Blame::Infrastructure if body.reason == R::ArchiveUnsupported => Some(
            "do as the message says (a key, more memory, another wrapping), or use a newer pgrestored; the backup may be good".into(),
        ),
        _ => advice(e.reason()).map(str::to_owned),
    };
    report.error = Some(body);
}

/// The result event of a verification.
pub fn result_of(job: &VerifyJob, report: &ProofReport, evidence: Option<String>) -> RestoreResult {
    let mut r = RestoreResult::new(&job.request_id, (report.started_at, report.finished_at));
    r.kind = Kind::Verification;
    r.status = if report.is_verified() { Status::Success } else { Status::Failure };
    r.verdict = Some(report.verdict);
    r.duration_seconds = report.duration_seconds;
    r.backup = report.backup.clone();
    r.attempt = job.attempt;
    r.stages = report.stages.clone();
    r.tables = report.tables.len() as u64;
    (r.rows, r.bytes) = (report.rows, report.bytes);
    r.notes = report.notes.clone();
    r.rewrites = report.rewrites.clone();
    r.labels = job.labels.clone();
    r.verification = Some(Box::new(report.summary(evidence)));
    r.error = report.error.clone();
    r
}

/// What the next restore of the set takes: the usual time for a byte, as much data as is to be
/// expected after the usual growth.
pub fn forecast(seconds: f64, bytes: u64, history: &History) -> Rto {
    let past = history.0.iter().filter_map(|r| Some((r.rto?.measured_seconds, r.bytes)));
    let all: Vec<(f64, u64)> = std::iter::once((seconds, bytes)).chain(past).collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let pace = median(all.iter().filter(|(_, b)| *b > 0).map(|(s, b)| s / *b as f64).collect());
    let growth =
        median(all.windows(2).filter(|w| w[1].1 > 0).map(|w| w[0].1 as f64 / w[1].1 as f64).collect());
    let forecast = match pace.filter(|_| bytes > 0) {
        Some(pace) => pace * bytes as f64 * growth.unwrap_or(1.0),
        None => seconds,
    };
    Rto { measured_seconds: seconds, forecast_seconds: forecast, samples: all.len() as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DatabaseError, StorageError};
    use crate::proof::Check;
    use crate::verify::evidence::tests::report;

    #[test]
    fn what_could_not_be_checked_is_never_a_pass() {
        let of = |checks: Vec<Check>| {
            let mut r = report("r");
            r.checks = checks;
            judge(&mut r, "check");
            (r.verdict, r.error.map(|e| (e.reason, e.blame)))
        };
        let passed = || Check::new("rows", CheckStatus::Passed, "");
        let failed = || Check::new("entries", CheckStatus::Failed, "");
        let open = || Check::new("assertion", CheckStatus::NotChecked, "").because(R::Timeout);
        assert_eq!(of(vec![passed()]), (Verdict::Verified, None));
        assert_eq!(of(vec![passed(), open().optional()]), (Verdict::Verified, None));
        assert_eq!(
            of(vec![passed(), open()]),
            (Verdict::Inconclusive, Some((R::Timeout, Blame::Infrastructure)))
        );
        // What is known to be wrong comes first.
        let both = of(vec![open(), failed()]);
        assert_eq!(both, (Verdict::Failed, Some((R::VerificationFailed, Blame::Backup))));
    }

    #[test]
    fn only_the_backups_own_faults_are_failures() {
        let of = |e: RestoreError| {
            let mut r = report("r");
            fail(&mut r, &e, "data");
            r.verdict
        };
        for reason in R::ALL {
            let backups = matches!(
                reason,
                R::ChecksumMismatch
                    | R::ArchiveCorrupt
                    | R::ArchiveUnsupported
                    | R::DataRejected
                    | R::RestoreError
                    | R::VerificationFailed
            );
            let wanted = if backups { Verdict::Failed } else { Verdict::Inconclusive };
            assert_eq!(of(StorageError::new(reason, "x").into()), wanted, "{reason}");
        }
        assert_eq!(of(DatabaseError::new(R::ExtensionMissing, "x").into()), Verdict::Inconclusive);
    }

    #[test]
    fn a_forecast_follows_pace_and_growth() {
        let past = |rto: f64, bytes: u64| {
            let mut r = report("r");
            r.rto = Some(Rto { measured_seconds: rto, forecast_seconds: 0.0, samples: 1 });
            r.bytes = bytes;
            r
        };
        assert_eq!(forecast(10.0, 1000, &History::default()).forecast_seconds, 10.0);
        assert_eq!(forecast(3.0, 0, &History::default()).forecast_seconds, 3.0);
        let grown = forecast(12.0, 1200, &History(vec![past(10.0, 1000)]));
        assert!((grown.forecast_seconds - 14.4).abs() < 1e-9, "{grown:?}");
        assert_eq!(grown.samples, 2);
    }
}

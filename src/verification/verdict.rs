//! Maps findings to a verdict with its blame, and to the result event. Pure.

use super::History;
use crate::database::OTHER_LOCALE;
use crate::error::{
    Blame, DatabaseKind, ErrorBody, FailureReason as R, RestoreError, RetryClass, one_line,
};
use crate::event::{Kind, RestoreResult, Status};
use crate::job::VerifyJob;
use crate::policy::Depth;
use crate::proof::{Check, CheckStatus, EvidenceRef, Rto, Verdict, VerificationReport, advice};
use pgdump_restore::Stage;

/// Sets the verdict of a verification that ran to its end: `failed` if a check failed, else `inconclusive` if a
/// required check could not run, else `verified`.
pub fn judge(report: &mut VerificationReport, stage: Stage) {
    let failed = report
        .checks
        .iter()
        .find(|c| c.status == CheckStatus::Failed);
    let open = report
        .checks
        .iter()
        .find(|c| c.status == CheckStatus::NotChecked && c.required);
    let (reason, blame, verdict, check) = match (failed, open) {
        (Some(c), _) => (R::VerificationFailed, Blame::Backup, Verdict::Failed, c),
        (None, Some(c)) => {
            let reason = c.reason.unwrap_or(R::Internal);
            (reason, blame_of_unchecked(reason), Verdict::Inconclusive, c)
        }
        (None, None) => {
            report.verdict = Verdict::Verified;
            report.depth = Some(reached_depth(report));
            return;
        }
    };
    report.verdict = verdict;
    report.fix = check
        .fix
        .clone()
        .or_else(|| fix_of(blame, reason).map(str::to_owned));
    report.error = Some(ErrorBody {
        reason,
        blame,
        stage: stage.to_string(),
        message: one_line(&format!("{}: {}", check.title(), check.message)),
        sqlstate: None,
        refusals: vec![],
        refusals_total: 0,
        misfits: vec![],
        retryable: reason.retry_class() != RetryClass::Permanent,
    });
}

/// The depth that a verification without failures reached: what was not compared row for row is restored, no more.
fn reached_depth(report: &VerificationReport) -> Depth {
    let is_open = |c: &Check| c.name == "rows" && c.status == CheckStatus::NotChecked;
    if report.checks.iter().any(is_open) {
        report.depth_requested.min(Depth::Restore)
    } else {
        report.depth_requested
    }
}

/// The blame for a failure in a verification. The target is a clean server of a suitable version, so what it
/// rejects is the backup's fault.
fn blame_of(reason: R) -> Blame {
    match reason {
        R::RestoreError => Blame::Backup,
        // An overwritten object says nothing about the backup.
        R::BackupChanged => Blame::Request,
        other => other.blame(),
    }
}

/// The blame for a check that could not run, which is never the backup: for example a query of the checks file
/// about a table that does not exist, or with a syntax error.
fn blame_of_unchecked(reason: R) -> Blame {
    match reason {
        R::DataRejected | R::RestoreError => Blame::Request,
        other => Some(blame_of(other))
            .filter(|b| *b != Blame::Backup)
            .unwrap_or(Blame::Infrastructure),
    }
}

/// Whether an error is due to the verifying server and not to the backup: a limit of its configuration, its disk,
/// its memory, an internal error.
fn is_server_fault(e: &RestoreError) -> bool {
    if matches!(e, RestoreError::Database(e) if e.kind() == DatabaseKind::LocksExhausted) {
        return true;
    }
    let Some(code) = e.sqlstate() else {
        return false;
    };
    // 54001: the stack depth is a setting (max_stack_depth), whereas 54000 is a limit of PostgreSQL itself.
    matches!(code, "54001")
        || matches!(code.get(..2), Some("08" | "53" | "57" | "58" | "XX" | "F0"))
}

/// The advice to the operator, which depends on the blame.
fn fix_of(blame: Blame, reason: R) -> Option<&'static str> {
    match (blame, reason) {
        (Blame::Infrastructure, R::ArchiveCorrupt) => Some(
            "upload the piece that the message says is missing, let the worker read the file that it names, or move that file away; the backup may be good",
        ),
        (Blame::Infrastructure, R::ArchiveUnsupported | R::DataRejected) => Some(
            "do what the message says (provide a key, more memory, a higher limit, or another compression), or use a newer pgrestored; the backup may be good",
        ),
        (Blame::Target, R::RestoreError | R::DataRejected) => {
            Some("check the verifying server (its log, limits and disk); the backup may be good")
        }
        _ => advice(reason),
    }
}

/// The blame that an error has of its own, whatever its reason suggests: a limit of this program, a missing key,
/// a foreign file. The backup may be good.
fn own_blame(e: &RestoreError) -> Option<Blame> {
    Some(e.blame()).filter(|blame| *blame != e.reason().blame())
}

/// Sets the verdict of a verification that ended with an error.
pub fn fail(report: &mut VerificationReport, e: &RestoreError, stage: Stage) {
    let mut body = ErrorBody::new(e, stage);
    body.blame = match (own_blame(e), blame_of(e.reason())) {
        (Some(own), _) => own,
        (None, Blame::Backup) if is_server_fault(e) => Blame::Target,
        (None, usual) => usual,
    };
    report.verdict = if body.blame == Blame::Backup {
        Verdict::Failed
    } else {
        Verdict::Inconclusive
    };
    let fix = e.fix().or_else(|| fix_of(body.blame, body.reason));
    report.fix = fix.map(str::to_owned);
    report.error = Some(body);
}

/// Turns a failure into `inconclusive` if the backup was restored with another locale than its own, because the
/// verifying server lacks that one: with the right locale, the data might be accepted.
pub fn mind_the_locale(report: &mut VerificationReport) {
    let is_other = report.notes.iter().any(|n| n.starts_with(OTHER_LOCALE));
    let Some(error) = report
        .error
        .as_mut()
        .filter(|_| is_other && report.verdict == Verdict::Failed)
    else {
        return;
    };
    if matches!(error.reason, R::DataRejected | R::RestoreError) {
        (error.blame, report.verdict) = (Blame::Target, Verdict::Inconclusive);
        error.message = format!("{} ({OTHER_LOCALE})", error.message);
        report.fix = Some(
            "install the dump's locale on the machine that runs the sandbox; the backup may be good"
                .into(),
        );
    }
}

/// Checks whose result depends only on the backup and the restored database. The others also depend on other
/// backups or on the checks file, which may have changed since.
const BACKUP_CHECKS: [&str; 5] = [
    "rows",
    "large objects",
    "entries",
    "sequence values",
    "indexes",
];

/// Whether an earlier report about the same bytes contradicts the failure in `failed`.
pub fn contradicts(earlier: &VerificationReport, failed: &VerificationReport) -> bool {
    let needed = match failed.error.as_ref().map(|e| e.reason) {
        Some(R::ArchiveCorrupt | R::ArchiveUnsupported) => Depth::Archive,
        Some(R::DataRejected | R::RestoreError) => Depth::Restore,
        Some(R::VerificationFailed) => {
            let mut wrong = failed
                .checks
                .iter()
                .filter(|c| c.status == CheckStatus::Failed);
            if wrong.all(|c| BACKUP_CHECKS.contains(&c.name.as_str())) {
                Depth::Data
            } else {
                return false;
            }
        }
        // The bytes differ from those that were verified.
        _ => return false,
    };
    earlier.is_verified() && earlier.depth >= Some(needed)
}

/// Makes a verdict `inconclusive` because an earlier one, from time `at`, contradicts it.
pub fn doubt(report: &mut VerificationReport, at: jiff::Timestamp) {
    report.verdict = Verdict::Inconclusive;
    let why = "one of the two verdicts is wrong, because of a fault in pgrestored or in the verifying server";
    if let Some(error) = &mut report.error {
        error.blame = Blame::Infrastructure;
        error.message = format!(
            "{}; the same backup was verified at {at}: {why}",
            error.message
        );
    }
    report.fix = Some(
        "verify the backup again, run `pgrestored selftest`, and report the difference".into(),
    );
}

/// Makes a `failed` verdict `inconclusive` because earlier evidence, which may contradict it, was not read. `reason` is
/// that of the store, if another attempt may read it.
pub fn withhold(report: &mut VerificationReport, why: &str, reason: Option<R>) {
    report.verdict = Verdict::Inconclusive;
    if let Some(error) = &mut report.error {
        error.blame = Blame::Infrastructure;
        error.message = one_line(&format!(
            "{}; earlier evidence, which may contradict this, was not read: {why}",
            error.message
        ));
        if let Some(reason) = reason {
            (error.reason, error.retryable) = (reason, true);
        }
    }
    report.fix =
        Some("see that the worker can read the evidence, and verify the backup again".into());
}

/// The result event of a verification.
pub fn result_of(
    job: &VerifyJob,
    report: &VerificationReport,
    evidence: Option<EvidenceRef>,
) -> RestoreResult {
    let mut r = RestoreResult::new(&job.request_id, (report.started_at, report.finished_at));
    r.kind = Kind::Verification;
    r.status = if report.is_verified() {
        Status::Success
    } else {
        Status::Failure
    };
    r.verdict = Some(report.verdict);
    r.duration_seconds = report.duration_seconds;
    r.backup = report.backup.clone();
    r.attempt = job.attempt;
    r.stages = report.stages.clone();
    r.tables = report.tables.len() as u64;
    (r.rows, r.bytes) = (report.rows, report.bytes);
    r.notes = report.notes.clone();
    r.rewrites = report.rewrites.clone();
    r.completeness = report.completeness;
    r.labels = job.labels.clone();
    r.verification = Some(Box::new(report.summary(evidence)));
    r.error = report.error.clone();
    r.bound();
    r
}

/// Backups whose size differs by more than this factor are not used for a forecast: in a small restore, most of
/// the time does not depend on the size.
const COMPARABLE_RATIO: f64 = 4.0;
/// A forecast differs from the measured time by at most this factor.
const MAX_FORECAST_RATIO: f64 = 2.0;

/// Forecasts how many seconds the next restore of the database will take: the median time per byte of backups of
/// similar size, times the size expected after the median growth; between half and twice the measured time.
pub fn forecast(seconds: f64, bytes: u64, history: &History) -> Rto {
    let past = history
        .reports
        .iter()
        .filter_map(|r| Some((r.rto?.measured_seconds, r.bytes)));
    let is_comparable = |(s, b): &(f64, u64)| {
        let ratio = *b as f64 / bytes as f64;
        *s > 0.0 && (1.0 / COMPARABLE_RATIO..=COMPARABLE_RATIO).contains(&ratio)
    };
    let all: Vec<(f64, u64)> = std::iter::once((seconds, bytes))
        .chain(past.filter(is_comparable))
        .collect();
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let pace = median(
        all.iter()
            .filter(|(_, b)| *b > 0)
            .map(|(s, b)| s / *b as f64)
            .collect(),
    );
    let growth = median(
        all.windows(2)
            .filter(|w| w[1].1 > 0)
            .map(|w| w[0].1 as f64 / w[1].1 as f64)
            .collect(),
    );
    let forecast = match pace.filter(|_| bytes > 0) {
        Some(pace) => pace * bytes as f64 * growth.unwrap_or(1.0),
        None => seconds,
    };
    let forecast = forecast.clamp(seconds / MAX_FORECAST_RATIO, seconds * MAX_FORECAST_RATIO);
    Rto {
        measured_seconds: seconds,
        forecast_seconds: forecast,
        samples: all.len() as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{
        DatabaseError, JobError, JobKind, StorageError, StorageKind, ValidationError,
        ValidationKind,
    };
    use crate::verification::evidence::tests::report;

    #[test]
    fn a_check_that_could_not_run_never_passes() {
        let of = |checks: Vec<Check>| {
            let mut r = report("r");
            r.checks = checks;
            judge(&mut r, Stage::Check);
            (r.verdict, r.error.map(|e| (e.reason, e.blame)))
        };
        let passed = || Check::new("rows", CheckStatus::Passed, "");
        let failed = || Check::new("entries", CheckStatus::Failed, "");
        let open = || Check::new("assertion", CheckStatus::NotChecked, "").because(R::Timeout);
        assert_eq!(of(vec![passed()]), (Verdict::Verified, None));
        assert_eq!(
            of(vec![passed(), open().optional()]),
            (Verdict::Verified, None)
        );
        assert_eq!(
            of(vec![passed(), open()]),
            (
                Verdict::Inconclusive,
                Some((R::Timeout, Blame::Infrastructure))
            )
        );
        // A failure takes precedence.
        let both = of(vec![open(), failed()]);
        assert_eq!(
            both,
            (
                Verdict::Failed,
                Some((R::VerificationFailed, Blame::Backup))
            )
        );
    }

    #[test]
    fn rows_that_were_not_compared_leave_the_depth_at_restore() {
        let of = |name: &str, requested: Depth| {
            let mut r = report("r");
            r.depth_requested = requested;
            r.checks = vec![
                Check::new("rows", CheckStatus::Passed, ""),
                Check::new(name, CheckStatus::NotChecked, "").optional(),
            ];
            judge(&mut r, Stage::Check);
            (r.verdict, r.depth)
        };
        for (name, requested, reached) in [
            ("rows", Depth::Data, Depth::Restore),
            ("amcheck", Depth::Data, Depth::Data),
            ("rows", Depth::Archive, Depth::Archive),
        ] {
            let wanted = (Verdict::Verified, Some(reached));
            assert_eq!(of(name, requested), wanted, "{name}");
        }
    }

    #[test]
    fn only_faults_of_the_backup_fail_it() {
        let of = |e: RestoreError| {
            let mut r = report("r");
            fail(&mut r, &e, Stage::Data);
            r.verdict
        };
        let verdict_if = |is_backups| {
            if is_backups {
                Verdict::Failed
            } else {
                Verdict::Inconclusive
            }
        };
        for kind in ValidationKind::ALL {
            use ValidationKind as V;
            let backups = [
                V::ChecksumMismatch,
                V::ArchiveCorrupt,
                V::ArchiveUnsupported,
                V::VerificationFailed,
            ];
            let found = of(ValidationError::new(*kind, "x").into());
            assert_eq!(found, verdict_if(backups.contains(kind)), "{kind:?}");
        }
        for kind in DatabaseKind::ALL {
            let backups = [DatabaseKind::DataRejected, DatabaseKind::StatementRejected];
            let found = of(DatabaseError::new(*kind, "x").into());
            assert_eq!(found, verdict_if(backups.contains(kind)), "{kind:?}");
        }
        for kind in StorageKind::ALL {
            let found = of(StorageError::new(*kind, "x").into());
            let is_backups = *kind == StorageKind::WrongLength;
            assert_eq!(found, verdict_if(is_backups), "{kind:?}");
        }
        for kind in JobKind::ALL {
            let found = of(JobError::new(*kind, "x").into());
            assert_eq!(found, Verdict::Inconclusive, "{kind:?}");
        }
    }

    #[test]
    fn a_forecast_follows_pace_and_growth() {
        let past = |rto: f64, bytes: u64| {
            let mut r = report("r");
            r.rto = Some(Rto {
                measured_seconds: rto,
                forecast_seconds: 0.0,
                samples: 1,
            });
            r.bytes = bytes;
            r
        };
        assert_eq!(
            forecast(10.0, 1000, &History::default()).forecast_seconds,
            10.0
        );
        assert_eq!(forecast(3.0, 0, &History::default()).forecast_seconds, 3.0);
        let of = |seconds: f64, bytes: u64, reports: Vec<VerificationReport>| {
            forecast(
                seconds,
                bytes,
                &History {
                    reports,
                    ..History::default()
                },
            )
        };
        let grown = of(12.0, 1200, vec![past(10.0, 1000)]);
        assert!((grown.forecast_seconds - 14.4).abs() < 1e-9, "{grown:?}");
        assert_eq!(grown.samples, 2);
        // A tiny backup takes the minimum time of any restore, which says nothing about the time per byte.
        let big = of(30.0, 1 << 30, vec![past(0.4, 8_000), past(0.4, 10)]);
        assert_eq!((big.forecast_seconds, big.samples), (30.0, 1));
        let tiny = of(0.4, 10, vec![past(30.0, 1 << 30)]);
        assert_eq!((tiny.forecast_seconds, tiny.samples), (0.4, 1));
        // A forecast is at most twice the measured time.
        let odd = of(
            10.0,
            1000,
            vec![past(900.0, 900), past(800.0, 250), past(700.0, 250)],
        );
        assert_eq!(odd.forecast_seconds, 20.0);
        let quick = of(
            10.0,
            1000,
            vec![past(1e-9, 3900), past(1e-9, 3900), past(1e-9, 3900)],
        );
        assert_eq!(quick.forecast_seconds, 5.0);
    }

    /// A limit or fault of the verifying server, or of this program, is not the backup's fault.
    #[test]
    fn limits_of_the_server_are_never_blamed_on_the_backup() {
        let of = |e: RestoreError| {
            let mut r = report("r");
            fail(&mut r, &e, Stage::Data);
            (r.verdict, r.error.unwrap().blame)
        };
        for code in [
            "54001", "58030", "XX000", "XX001", "53400", "57P02", "08006",
        ] {
            let e = DatabaseError::new(DatabaseKind::StatementRejected, "x").with_sqlstate(code);
            assert_eq!(
                of(e.into()),
                (Verdict::Inconclusive, Blame::Target),
                "{code}"
            );
        }
        for (kind, code) in [
            (DatabaseKind::StatementRejected, "42883"),
            (DatabaseKind::DataRejected, "23505"),
            (DatabaseKind::StatementRejected, "54000"),
        ] {
            let e = DatabaseError::new(kind, "x").with_sqlstate(code);
            assert_eq!(of(e.into()), (Verdict::Failed, Blame::Backup), "{code}");
        }
        for limit in [
            JobError::new(JobKind::LimitExceeded, "needs 9 GiB").into(),
            JobError::new(JobKind::TooMuchData, "has 9 TiB").into(),
            JobError::new(JobKind::ForeignFile, "notes.txt").into(),
            DatabaseError::new(DatabaseKind::AnswerTooLarge, "9 GiB").into(),
        ] {
            let said = format!("{limit}");
            let wanted = (Verdict::Inconclusive, Blame::Infrastructure);
            assert_eq!(of(limit), wanted, "{said}");
        }
        // No limit keeps a backup from being told from a piece.
        let mut r = report("r");
        let piece = JobError::new(JobKind::PieceMissing, "x.01 cannot be read");
        fail(&mut r, &piece.into(), Stage::Data);
        let fix = r.fix.unwrap();
        assert!(
            fix.contains("read the file") && !fix.contains("memory"),
            "{fix}"
        );
        let refused = ValidationError::new(ValidationKind::ArchiveUnsupported, "no dump");
        assert_eq!(of(refused.into()), (Verdict::Failed, Blame::Backup));
        // A check that cannot run.
        for reason in R::ALL {
            let mut r = report("r");
            r.checks = vec![Check::new("assertion", CheckStatus::NotChecked, "").because(reason)];
            judge(&mut r, Stage::Check);
            assert_eq!(r.verdict, Verdict::Inconclusive);
            assert_ne!(r.error.unwrap().blame, Blame::Backup, "{reason}");
        }
    }

    #[test]
    fn a_missing_locale_is_blamed_on_the_server() {
        for (e, wanted) in [
            (
                DatabaseError::new(DatabaseKind::DataRejected, "x").into(),
                Verdict::Inconclusive,
            ),
            (
                ValidationError::new(ValidationKind::ArchiveCorrupt, "x").into(),
                Verdict::Failed,
            ),
        ] {
            let e: RestoreError = e;
            let mut r = report("r");
            r.notes = vec![format!("{OTHER_LOCALE}: C was used")];
            fail(&mut r, &e, Stage::Indexes);
            mind_the_locale(&mut r);
            assert_eq!(r.verdict, wanted, "{e:?}");
        }
    }

    #[test]
    fn a_verdict_that_an_earlier_one_contradicts_is_inconclusive() {
        let failed = |e: &RestoreError, check: &str| {
            let mut r = report("now");
            fail(&mut r, e, Stage::Data);
            r.checks = vec![Check::new(check, CheckStatus::Failed, "")];
            r
        };
        let earlier = |depth| VerificationReport {
            depth: Some(depth),
            ..report("then")
        };
        use ValidationKind as V;
        let invalid = |kind| RestoreError::from(ValidationError::new(kind, "x"));
        let rejected = DatabaseError::new(DatabaseKind::DataRejected, "x");
        for (e, check, shallowest) in [
            (invalid(V::ArchiveCorrupt), "-", Some(Depth::Archive)),
            (rejected.into(), "-", Some(Depth::Restore)),
            (invalid(V::VerificationFailed), "rows", Some(Depth::Data)),
            (invalid(V::VerificationFailed), "drift", None),
            (invalid(V::VerificationFailed), "assertion", None),
            (invalid(V::ChecksumMismatch), "-", None),
        ] {
            let mut now = failed(&e, check);
            for depth in [Depth::Object, Depth::Archive, Depth::Restore, Depth::Data] {
                let wanted = shallowest.is_some_and(|s| depth >= s);
                assert_eq!(
                    contradicts(&earlier(depth), &now),
                    wanted,
                    "{e:?} {check} {depth:?}"
                );
            }
            doubt(&mut now, jiff::Timestamp::UNIX_EPOCH);
            assert_eq!(now.verdict, Verdict::Inconclusive);
            assert_eq!(now.error.unwrap().blame, Blame::Infrastructure);
        }
    }
}

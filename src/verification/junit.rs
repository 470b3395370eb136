//! The checks of a verification as JUnit XML, for CI.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::event::Verdict;
use crate::proof::{CheckStatus, VerificationReport};

/// The report as JUnit XML: a test case for each check, and one for the verdict.
///
/// # Errors
/// The report cannot be written as XML.
pub fn junit(report: &VerificationReport) -> Result<String, String> {
    let mut all = Report::new("pgrestored");
    let mut suite = TestSuite::new(report.about());
    for check in &report.checks {
        let failed = |kind| {
            let mut s = TestCaseStatus::non_success(kind);
            s.set_message(check.message.clone());
            s
        };
        let status = match check.status {
            CheckStatus::Passed | CheckStatus::Warned => TestCaseStatus::success(),
            CheckStatus::Failed => failed(NonSuccessKind::Failure),
            CheckStatus::NotChecked if check.required => failed(NonSuccessKind::Error),
            CheckStatus::NotChecked => {
                let mut s = TestCaseStatus::skipped();
                s.set_message(check.message.clone());
                s
            }
        };
        let mut case = TestCase::new(check.title(), status);
        case.set_classname("restore")
            .set_time(Duration::from_secs_f64(check.seconds.max(0.0)));
        if check.status == CheckStatus::Warned {
            case.set_system_out(&check.message);
        }
        suite.add_test_case(case);
    }
    // The verdict is a case too, so that a restore that failed before its checks is not an empty suite.
    let depth = report.depth.map_or("nothing", |d| d.as_str());
    let mut verdict = match (report.verdict, &report.error) {
        (Verdict::Verified, _) => TestCase::new("verdict", TestCaseStatus::success()),
        (verdict, error) => {
            let kind = if verdict == Verdict::Failed {
                NonSuccessKind::Failure
            } else {
                NonSuccessKind::Error
            };
            let mut s = TestCaseStatus::non_success(kind);
            s.set_message(
                error
                    .as_ref()
                    .map_or(verdict.as_str(), |e| e.message.as_str()),
            );
            TestCase::new("verdict", s)
        }
    };
    verdict
        .set_classname("restore")
        .set_time(Duration::from_secs_f64(report.duration_seconds.max(0.0)));
    verdict.set_system_out(format!(
        "depth reached: {depth}. {}.",
        report.verdict_sentence()
    ));
    suite.add_test_case(verdict);
    all.add_test_suite(suite);
    all.to_string().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use crate::event::Verdict;
    use crate::proof::{Check, CheckStatus};
    use crate::verification::evidence::tests::report;

    #[test]
    fn failures_errors_and_skipped_checks_are_distinguished() {
        let mut r = report("r");
        r.verdict = Verdict::Failed;
        r.checks = vec![
            Check::new("rows", CheckStatus::Passed, "ok"),
            Check::new("entries", CheckStatus::Failed, "1 < 2 \"missing\""),
            Check::new("assertion", CheckStatus::NotChecked, "late"),
            Check::new("amcheck", CheckStatus::NotChecked, "not there").optional(),
        ];
        let xml = super::junit(&r).unwrap();
        assert!(
            xml.contains("depth reached: data. Failed: this backup cannot be relied on."),
            "{xml}"
        );
        r.verdict = Verdict::Verified;
        r.depth = Some(crate::policy::Depth::Object);
        assert!(
            super::junit(&r)
                .unwrap()
                .contains("neither opened nor restored")
        );
        for part in [
            "tests=\"5\"",
            "failures=\"2\"",
            "errors=\"1\"",
            "<skipped",
            "1 &lt; 2",
        ] {
            assert!(xml.contains(part), "{part} in {xml}");
        }
    }
}

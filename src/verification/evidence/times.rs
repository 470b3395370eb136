//! The times in a document of evidence: none may be in the future.

use crate::error::RestoreError;
use crate::error::{ValidationError, ValidationKind};
use crate::proof::VerificationReport;
use crate::store::StoredObject;

/// How far the clocks of workers and stores may differ.
const MAX_CLOCK_SKEW: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

pub(super) fn rejected_document(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::VerificationFailed, what).into()
}

/// The times of a report that must not be in the future.
fn times_of(report: &VerificationReport) -> impl Iterator<Item = jiff::Timestamp> {
    let times = [
        Some(report.started_at),
        Some(report.finished_at),
        report.backup_created,
    ];
    times.into_iter().flatten()
}

fn is_after(time: jiff::Timestamp, now: jiff::Timestamp) -> bool {
    time > now.saturating_add(MAX_CLOCK_SKEW).unwrap_or(now)
}

/// Checks that the times in the report are in order, and that none was in the future when it was stored.
pub(super) fn check_times(
    report: &VerificationReport,
    document: &StoredObject,
) -> Result<(), RestoreError> {
    let is_late = times_of(report).any(|t| is_after(t, document.created));
    if is_late || report.started_at > report.finished_at {
        return Err(rejected_document(
            "the document contains times that are in the future or in the wrong order",
        ));
    }
    Ok(())
}

/// Checks that no time in the report is in the future by this machine's clock, which may be wrong.
pub(super) fn check_clock(
    report: &VerificationReport,
    now: jiff::Timestamp,
) -> Result<(), RestoreError> {
    if times_of(report).any(|t| is_after(t, now)) {
        return Err(rejected_document(
            "the document contains times that are in the future by this machine's clock",
        ));
    }
    Ok(())
}

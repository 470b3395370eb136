//! Whether a backup showed that it is complete, and what follows if it did not.

use std::sync::{Arc, OnceLock};

use crate::config::Config;
use crate::error::{FailureReason as R, JobError, JobKind, RestoreError};
use crate::job::Completeness;
use crate::proof::{Check, CheckStatus, VerificationReport};
use pgdump_archive::Archive;

const NO_END_MARK: &str = "nothing shows that the SQL text is complete: not all of it is between pg_dump's header and end mark";

/// Where the archive will report that it is complete. Where completeness is demanded, an archive that
/// can never report it is refused at once.
pub(super) fn completeness_of(
    config: &Config,
    archive: &Archive,
) -> Result<Arc<OnceLock<bool>>, RestoreError> {
    if archive.is_generic_sql() {
        check_complete(config, Completeness::Unknown)?;
    }
    Ok(archive.completeness())
}

/// Refuses a backup that may have been cut off if RESTORE_REQUIRE_COMPLETE demands proof.
pub(super) fn check_complete(
    config: &Config,
    completeness: Completeness,
) -> Result<(), RestoreError> {
    if completeness == Completeness::Proven || config.require_complete != Some(true) {
        return Ok(());
    }
    let what =
        format!("{NO_END_MARK}, and RESTORE_REQUIRE_COMPLETE (--require-complete) demands it");
    Err(JobError::new(JobKind::CompletenessUnproven, what).into())
}

/// The note of a result about a backup that may have been cut off.
pub(super) fn note_of(found: Completeness) -> Option<String> {
    (found == Completeness::Unknown).then(|| NO_END_MARK.to_owned())
}

/// Records what the end of the backup says about its completeness, with a check if that is not enough.
pub(super) fn note_completeness(
    config: &Config,
    report: &mut VerificationReport,
    found: Option<Completeness>,
) {
    report.completeness = found;
    if found == Some(Completeness::Unknown) && config.require_complete.unwrap_or(true) {
        let check = Check::new("completeness", CheckStatus::NotChecked, NO_END_MARK);
        let fix = "back up with pg_dump, which ends with a mark, and keep its comments; or accept such text with \
                   RESTORE_REQUIRE_COMPLETE=false";
        report
            .checks
            .push(check.fix(fix).because(R::ArchiveUnsupported));
    }
}

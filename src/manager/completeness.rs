//! Whether a backup showed that it is complete, and what follows where it did not.

use std::sync::{Arc, OnceLock};

use super::{RestoreManager, RunState};
use crate::error::{FailureReason as R, JobError, RestoreError};
use crate::job::Completeness;
use crate::proof::{Check, CheckStatus, VerificationReport};
use pgdump_archive::Archive;

const NO_END_MARK: &str = "nothing shows that the SQL text is complete: not all of it stands between pg_dump's head and end mark";

impl RestoreManager {
    /// Where the archive will say it; refuses at once what never will, where that is demanded.
    pub(super) fn completeness_of(
        &self,
        archive: &Archive,
    ) -> Result<Arc<OnceLock<bool>>, RestoreError> {
        if archive.is_generic_sql() {
            self.check_complete(Completeness::Unknown)?;
        }
        Ok(archive.completeness())
    }

    /// Refuses what may be cut where RESTORE_REQUIRE_COMPLETE says so.
    fn check_complete(&self, completeness: Completeness) -> Result<(), RestoreError> {
        if completeness == Completeness::Proven || self.config.require_complete != Some(true) {
            return Ok(());
        }
        let what =
            format!("{NO_END_MARK}, and RESTORE_REQUIRE_COMPLETE (--require-complete) demands it");
        Err(JobError::new(R::ArchiveUnsupported, what).into())
    }

    /// Takes what the end of the backup says into the result.
    pub(super) fn note_end(
        &self,
        found: Completeness,
        facts: &mut RunState,
    ) -> Result<(), RestoreError> {
        self.check_complete(found)?;
        facts.completeness = Some(found);
        facts
            .notes
            .extend((found == Completeness::Unknown).then(|| NO_END_MARK.to_owned()));
        Ok(())
    }

    /// What the end of the backup says of its completeness; a check where that is not enough.
    pub(super) fn note_completeness(
        &self,
        report: &mut VerificationReport,
        found: Option<Completeness>,
    ) {
        report.completeness = found;
        if found == Some(Completeness::Unknown) && self.config.require_complete.unwrap_or(true) {
            let check = Check::new("completeness", CheckStatus::NotChecked, NO_END_MARK);
            let fix = "back up with pg_dump, which ends with a mark, and keep its comments; or accept such text with \
                       RESTORE_REQUIRE_COMPLETE=false";
            report
                .checks
                .push(check.fix(fix).because(R::ArchiveUnsupported));
        }
    }
}

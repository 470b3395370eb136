//! Errors of a continued restore that say that its record is not of this database. Pure.

use crate::error::{DatabaseError, JobKind, RestoreError};
use crate::refusals::is_duplicate;

/// Whether an error of a load that goes on with recorded work says that something is done that the record does not have:
/// an object exists, or rows are there that are not those of the backup.
pub fn contradicts_record(e: &RestoreError) -> bool {
    match e {
        RestoreError::Job(e) => e.kind() == JobKind::RecordDiffers,
        RestoreError::Database(e) => says_done(e),
        RestoreError::Validation(_) | RestoreError::Storage(_) => false,
    }
}

/// Whether the server says that what a statement would make is there.
pub(crate) fn says_done(e: &DatabaseError) -> bool {
    e.is_done_already() || e.sqlstate().is_some_and(is_duplicate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DatabaseKind as D, JobError};

    #[test]
    fn what_exists_without_a_record_contradicts_it() {
        for (code, is_done, wanted) in [
            ("42710", false, true),
            ("42P07", false, true),
            ("42P16", true, true),
            // What the message says does not matter.
            ("42P16", false, false),
            ("23505", false, false),
            ("42704", false, false),
        ] {
            let e = DatabaseError::new(D::StatementRejected, "multiple primary keys");
            let e = e.with_sqlstate(code).of_done(is_done);
            assert_eq!(contradicts_record(&e.into()), wanted, "{code}");
        }
        let of = |kind| RestoreError::from(JobError::new(kind, "no"));
        assert!(contradicts_record(&of(JobKind::RecordDiffers)));
        assert!(!contradicts_record(&of(JobKind::Internal)));
        let lost = DatabaseError::new(D::Unavailable, "lost");
        assert!(!contradicts_record(&lost.into()));
    }
}

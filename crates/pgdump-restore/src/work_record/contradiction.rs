//! Errors of a continued restore that say that its record is not of this database. Pure.

use crate::error::{DatabaseError, JobKind, RestoreError};
use crate::refusals::is_duplicate;

/// What says that something is there without a SQLSTATE of its own: a second primary key, a second parent of a partition, an
/// identity column, a large object.
const WITHOUT_CODE: [(&str, &str); 4] = [
    ("42P16", "multiple primary keys"),
    ("42809", "is already a partition"),
    ("55000", "is already an identity column"),
    ("23505", "pg_largeobject_metadata_oid_index"),
];

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
    let code = e.sqlstate().unwrap_or_default();
    let text = e.to_string();
    let is_said = |(of, what): &(&str, &str)| code == *of && text.contains(what);
    is_duplicate(code) || WITHOUT_CODE.iter().any(is_said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DatabaseKind as D, JobError};

    #[test]
    fn what_exists_without_a_record_contradicts_it() {
        for (code, message, wanted) in [
            (
                "42710",
                "constraint \"c\" for relation \"t\" already exists",
                true,
            ),
            ("42P07", "relation \"i\" already exists", true),
            (
                "42P16",
                "multiple primary keys for table \"t\" are not allowed",
                true,
            ),
            ("42P16", "column \"a\" is in a primary key", false),
            ("42809", "\"p\" is already a partition", true),
            ("42809", "\"v\" is not a table", false),
            (
                "55000",
                "column \"a\" of relation \"t\" is already an identity column",
                true,
            ),
            ("55000", "\"v\" has not been populated", false),
            (
                "23505",
                "duplicate key value violates unique constraint \"pg_largeobject_metadata_oid_index\"",
                true,
            ),
            (
                "23505",
                "duplicate key value violates unique constraint",
                false,
            ),
            ("42704", "role \"r\" does not exist", false),
        ] {
            let e = DatabaseError::new(D::StatementRejected, message).with_sqlstate(code);
            assert_eq!(contradicts_record(&e.into()), wanted, "{code} {message}");
        }
        let of = |kind| RestoreError::from(JobError::new(kind, "no"));
        assert!(contradicts_record(&of(JobKind::RecordDiffers)));
        assert!(!contradicts_record(&of(JobKind::Internal)));
        let lost = DatabaseError::new(D::Unavailable, "lost");
        assert!(!contradicts_record(&lost.into()));
    }
}

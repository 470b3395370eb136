//! What the comparison of rows says, as checks.

use super::restored_database::counted;
use crate::proof::{Check, CheckStatus};

/// Most tables that a note names.
const MAX_NAMED: usize = 10;

/// The rows of text that `pg_dump` did not write.
pub(super) fn not_compared() -> Check {
    let what = "rows and large objects were restored but not compared, because pg_dump did not write this SQL text";
    let fix = "back up with pg_dump";
    Check::new("rows", CheckStatus::NotChecked, what)
        .fix(fix)
        .optional()
}

/// Number of tables, and of their restored rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub tables: usize,
    pub rows: u64,
}

impl Tally {
    pub fn add(&mut self, rows: u64) {
        self.tables += 1;
        self.rows += rows;
    }

    fn said(self) -> String {
        let tables = counted(self.tables, "table");
        format!("{tables} with {}", counted(self.rows, "row"))
    }
}

/// One check for all tables that do not differ: how many were `compared` row for row, of how many rows were only
/// `counted`, and how many statements that `pg_dump` did not write may have `changed`.
pub(super) fn summary_of(compared: Tally, only_counted: Tally, changed: Tally) -> Check {
    if compared.tables + only_counted.tables + changed.tables == 0 {
        return Check::new(
            "rows",
            CheckStatus::Passed,
            "the archive has no data of tables",
        );
    }
    let verb = if compared.tables == 1 {
        "matches"
    } else {
        "match"
    };
    let mut what = format!("{} {verb} the archive row for row", compared.said());
    if only_counted.tables + changed.tables == 0 {
        return Check::new("rows", CheckStatus::Passed, what);
    }
    if only_counted.tables > 0 {
        let counted = only_counted.said();
        what = format!("{what}; of {counted}, only the number of rows was compared");
    }
    if changed.tables > 0 {
        let tables = changed.said();
        what = format!(
            "{what}; {tables} cannot be compared, because the text has statements that pg_dump did not write"
        );
    }
    Check::new("rows", CheckStatus::NotChecked, what).optional()
}

/// A difference that says nothing of the backup: a statement that `pg_dump` did not write may have made it.
pub(super) fn excused(check: Check, line: u64) -> Check {
    let what = format!(
        "{}: this cannot be compared, because the statement in line {line} of the text, which pg_dump did not write, may have changed it",
        check.message
    );
    let fix = "back up with pg_dump alone, and run other statements after the restore";
    Check {
        subject: check.subject,
        ..Check::new(&check.name, CheckStatus::NotChecked, what)
            .fix(fix)
            .optional()
    }
}

pub(super) fn summary_of_differences(failed: usize, tables: usize) -> Check {
    let what = format!(
        "{} of {} {} from the archive",
        indicatif::HumanCount(failed as u64),
        counted(tables, "table"),
        if failed == 1 { "differs" } else { "differ" }
    );
    Check::new("rows", CheckStatus::Failed, what)
}

/// That these tables match only as `pg_dump` writes them with fewer digits than the source may have had; `None` of none.
pub(super) fn rounded(tables: &[&str]) -> Option<Check> {
    let named = tables.iter().take(MAX_NAMED).copied();
    let named = named.collect::<Vec<_>>().join(", ");
    let more = if tables.len() > MAX_NAMED {
        ", …"
    } else {
        ""
    };
    let what = format!(
        "the backup has rounded floating-point numbers, as pg_dump --extra-float-digits writes them with a negative number: in {} ({named}{more})",
        counted(tables.len(), "table")
    );
    let check = Check::new("rows", CheckStatus::Warned, what);
    (!tables.is_empty()).then(|| check.fix("back up without --extra-float-digits"))
}

pub(super) fn differs(table: &str, what: &str) -> Check {
    let fix = "check the table for triggers, rules and row filters, then restore the backup again";
    Check::new("rows", CheckStatus::Failed, what)
        .of(table)
        .fix(fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_claims_no_table_whose_rows_were_only_counted() {
        let tally = |tables, rows| Tally { tables, rows };
        let of = |compared, only_counted| {
            let summary = summary_of(compared, only_counted, Tally::default());
            (summary.status, summary.message)
        };
        let all = "2 tables with 1,201 rows match the archive row for row";
        assert_eq!(
            of(tally(2, 1201), Tally::default()),
            (CheckStatus::Passed, all.to_owned())
        );
        let some = "1 table with 1 row matches the archive row for row; of 1 table with 1,200 rows, only the number of rows was compared";
        assert_eq!(
            of(tally(1, 1), tally(1, 1200)),
            (CheckStatus::NotChecked, some.to_owned())
        );
        let empty = of(Tally::default(), Tally::default());
        assert_eq!(empty.1, "the archive has no data of tables");
        let none = "0 tables with 0 rows match the archive row for row; of 2 tables with 9 rows, only the number of rows was compared";
        assert_eq!(
            of(Tally::default(), tally(2, 9)),
            (CheckStatus::NotChecked, none.to_owned())
        );
    }

    /// What somebody added to the text of `pg_dump` is neither proven nor held against it.
    #[test]
    fn a_difference_beside_foreign_statements_is_no_damage() {
        let tally = |tables, rows| Tally { tables, rows };
        let summary = summary_of(tally(2, 9), Tally::default(), tally(1, 4));
        let what = "2 tables with 9 rows match the archive row for row; 1 table with 4 rows cannot be compared, because the text has statements that pg_dump did not write";
        assert_eq!(
            (summary.status, summary.message.as_str(), summary.required),
            (CheckStatus::NotChecked, what, false)
        );
        let check = excused(
            differs("s.t", "3 rows in the archive, 4 in the restored table"),
            7,
        );
        assert_eq!(check.status, CheckStatus::NotChecked);
        assert_eq!(check.subject.as_deref(), Some("s.t"));
        assert!(
            !check.required && check.message.contains("line 7"),
            "{check:?}"
        );
    }
}

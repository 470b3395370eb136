//! The numbers of the statements of SQL text, and of the data between them: the same in every reading. Pure.

use super::span_check::{RecordDiffers, SpanCheck};
use crate::error::RestoreError;
use crate::script::{StatementClass, classify};
use crate::work_record::{DataSpan, Resumed};
use pgdump_archive::Statement;

/// What differs from what an earlier attempt has run, in errors.
const WHAT: &str = "SQL text";
const MEASURE: &str = "statements";

/// A statement and its place among those of the text, as it was read; `None` if the text does not have it.
pub(super) struct Numbered {
    pub statement: Statement,
    pub place: Option<DataSpan>,
}

impl Numbered {
    /// A statement that the text does not have, or that is not to be recorded.
    pub(super) fn unnumbered(statement: Statement) -> Self {
        let place = None;
        Numbered { statement, place }
    }

    /// The statement if it is left to be run. `repeats_values`: that includes values of sequences that an earlier attempt has
    /// set, which are not recorded once more.
    pub(super) fn left(self, resumed: &Resumed, repeats_values: bool) -> Option<Self> {
        let place = self.place.as_ref();
        if place.is_none_or(|place| !resumed.statement_done(place.from)) {
            return Some(self);
        }
        let is_value = || classify(&self.statement.text) == StatementClass::Sequence;
        (repeats_values && is_value()).then(|| Self::unnumbered(self.statement))
    }
}

/// Counts, and compares the statements that earlier attempts have run.
pub(super) struct StatementNumbers {
    /// Statements and data so far.
    read: u64,
    check: SpanCheck,
}

impl StatementNumbers {
    /// `done`: the statements that earlier attempts have run.
    pub(super) fn new(done: &[DataSpan]) -> Self {
        StatementNumbers {
            read: 0,
            check: SpanCheck::of(done),
        }
    }

    /// The number of the statement or data that comes next.
    pub(super) fn next_number(&mut self) -> u64 {
        let number = self.read;
        self.read += 1;
        number
    }

    /// The statement that comes next.
    pub(super) fn numbered(&mut self, statement: Statement) -> Result<Numbered, RestoreError> {
        let number = self.next_number();
        let place = DataSpan::of_statement(number, statement.text.as_bytes());
        let compared = self.check.pass_statement(number, place.crc32c);
        compared.map_err(|differs| differs.of(WHAT, MEASURE))?;
        let place = Some(place);
        Ok(Numbered { statement, place })
    }

    /// The rows with this number go to another table than those that an earlier attempt has loaded.
    pub(super) fn rows_differ(number: u64) -> RestoreError {
        let (from, to) = (number, number + 1);
        RecordDiffers { from, to }.of(WHAT, MEASURE)
    }

    /// All of the text has been read: it must have had all statements that earlier attempts have run.
    pub(super) fn end(&self) -> Result<(), RestoreError> {
        let compared = self.check.end();
        compared.map_err(|differs| differs.of(WHAT, MEASURE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work_record::{Body, Spans};

    fn statement(text: &str) -> Statement {
        Statement {
            text: text.to_owned(),
            line: 1,
            standard_strings: true,
        }
    }

    #[test]
    fn a_statement_that_has_run_is_left_only_if_it_sets_an_unlogged_sequence() {
        let texts = [
            "SELECT pg_catalog.setval('s.q', 5, true);",
            "CREATE TABLE t ();",
            "CREATE TABLE u ();",
        ];
        let mut done = Spans::default();
        for (number, text) in (0..).zip(&texts[..2]) {
            done.push(DataSpan::of_statement(number, text.as_bytes()));
        }
        let resumed = Resumed::of(Body {
            statements: done,
            ..Body::default()
        });
        let left = |repeats_values| {
            let mut numbers = StatementNumbers::new(resumed.statement_spans());
            let all = texts.map(|text| numbers.numbered(statement(text)).unwrap());
            let left = all
                .into_iter()
                .filter_map(|one| one.left(&resumed, repeats_values));
            left.map(|one| (one.statement.text, one.place.map(|place| place.from)))
                .collect::<Vec<_>>()
        };
        let new = (texts[2].to_owned(), Some(2));
        let again = (texts[0].to_owned(), None);
        assert_eq!(left(false), std::slice::from_ref(&new));
        assert_eq!(left(true), [again, new]);
    }

    #[test]
    fn statements_and_data_are_numbered_together() {
        let done = [
            DataSpan::of_statement(0, b"CREATE TABLE t ();"),
            DataSpan::of_statement(2, b"CREATE INDEX i ON t (a);"),
        ];
        let read = |texts: [&str; 2]| {
            let mut numbers = StatementNumbers::new(&done);
            let first = numbers.numbered(statement(texts[0]))?;
            assert_eq!((first.place, numbers.next_number()), (Some(done[0]), 1));
            numbers.numbered(statement(texts[1]))?;
            numbers.end()
        };
        assert!(read(["CREATE TABLE t ();", "CREATE INDEX i ON t (a);"]).is_ok());
        let e = read(["CREATE TABLE t ();", "CREATE INDEX i ON t (b);"]).unwrap_err();
        assert!(e.to_string().starts_with("SQL text: statements 2 to 3 "));
        assert!(read(["CREATE TABLE u ();", ""]).is_err());
        assert!(StatementNumbers::new(&done).end().is_err());
    }
}

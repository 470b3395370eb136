//! The numbers of the statements of SQL text, and of the data between them: the same in every reading. Pure.

use super::span_check::SpanCheck;
use crate::error::RestoreError;
use crate::work_record::{Resumed, Span};
use pgdump_archive::Statement;

/// What differs from what an earlier attempt has run, in errors.
const WHAT: &str = "SQL text";
const MEASURE: &str = "statements";

/// A statement and its place among those of the text, as it was read; `None` if the text does not have it.
pub(super) struct Numbered {
    pub statement: Statement,
    pub place: Option<Span>,
}

impl Numbered {
    /// A statement that the text does not have, or that is not to be recorded.
    pub(super) fn unnumbered(statement: Statement) -> Self {
        let place = None;
        Numbered { statement, place }
    }

    /// Whether an earlier attempt has run it.
    pub(super) fn is_done(&self, resumed: &Resumed) -> bool {
        let place = self.place.as_ref();
        place.is_some_and(|place| resumed.statement_done(place.from))
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
    pub(super) fn new(done: &[Span]) -> Self {
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
        let place = Span::of_statement(number, statement.text.as_bytes());
        let compared = self.check.pass_statement(number, place.crc32c);
        compared.map_err(|differs| differs.of(WHAT, MEASURE))?;
        let place = Some(place);
        Ok(Numbered { statement, place })
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

    fn statement(text: &str) -> Statement {
        Statement {
            text: text.to_owned(),
            line: 1,
            standard_strings: true,
        }
    }

    #[test]
    fn statements_and_data_are_numbered_together() {
        let done = [
            Span::of_statement(0, b"CREATE TABLE t ();"),
            Span::of_statement(2, b"CREATE INDEX i ON t (a);"),
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

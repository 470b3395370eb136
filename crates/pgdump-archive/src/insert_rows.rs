//! The rows of INSERT statements, as `pg_dump --inserts` writes them: their table and the values of each tuple.

use super::Dialect;
use super::insert_values::copy_field;
use super::lexer::{Token, tokens};
use super::toc::corrupt;
use crate::error::ArchiveError;

/// Takes what INSERT statements consist of.
pub(super) trait InsertSink {
    /// A statement begins.
    ///
    /// # Errors
    /// The sink's own, which end the reading.
    fn target(&mut self, target: InsertTarget<'_>) -> Result<(), ArchiveError>;
    /// A row of this statement, each value as COPY writes it; `None` if a value is none that `pg_dump` writes.
    fn row(&mut self, fields: Option<&[String]>);
}

/// `INSERT INTO s.t (a, b) OVERRIDING SYSTEM VALUE`
#[derive(Clone, Copy)]
pub(super) struct InsertTarget<'a> {
    sql: &'a str,
    tokens: &'a [Token<'a>],
}

impl InsertTarget<'_> {
    /// The table as written.
    pub(super) fn relation(&self) -> Option<&str> {
        let (sql, t) = (self.sql, self.tokens);
        let first = t.get(2)?;
        let words = ["overriding", "default"];
        let after = t
            .iter()
            .skip(3)
            .find(|w| w.is_symbol(b'(') || words.iter().any(|x| w.is(x)));
        let end = after.map_or_else(
            || t.last().map_or(first.at, |l| l.at + l.text.len()),
            |w| w.at,
        );
        Some(sql[first.at..end].trim())
    }

    /// The list of columns as written, in parentheses.
    pub(super) fn columns(&self) -> Option<&str> {
        let t = self.tokens;
        let open = t.iter().position(|w| w.is_symbol(b'('))?;
        let close = t.iter().position(|w| w.is_symbol(b')'))?;
        (open < close).then(|| &self.sql[t[open].at..=t[close].at])
    }
}

/// Hands each statement and each of its tuples to `sink`.
///
/// # Errors
/// `ArchiveError::Corrupt` for an INSERT that cannot be parsed, and those of the sink.
pub(super) fn read_inserts(
    sql: &str,
    dialect: Dialect,
    sink: &mut dyn InsertSink,
) -> Result<(), ArchiveError> {
    let t = tokens(sql, dialect);
    let mut i = 0;
    while i < t.len() {
        if t[i].is_symbol(b';') {
            i += 1;
            continue;
        }
        let values = t[i..].iter().position(|w| w.is("values")).map(|n| i + n);
        let values = values.ok_or_else(|| corrupt("an INSERT has no VALUES"))?;
        if values == i {
            return Err(corrupt("an INSERT names no table"));
        }
        let target = &t[i..values];
        sink.target(InsertTarget {
            sql,
            tokens: target,
        })?;
        i = values + 1;
        if t[values - 1].is("default") {
            // `DEFAULT VALUES`: a table without columns.
            sink.row(Some(&[]));
            continue;
        }
        loop {
            let (fields, end) = tuple(&t, i, dialect)?;
            sink.row(fields.as_deref());
            i = end;
            if !t.get(i).is_some_and(|w| w.is_symbol(b',')) {
                break;
            }
            i += 1;
        }
        // `ON CONFLICT DO NOTHING`
        while t.get(i).is_some_and(|w| !w.is_symbol(b';')) {
            i += 1;
        }
    }
    Ok(())
}

/// The tuple that begins at `i`, unless a value is none that `pg_dump` writes; and where it ends.
fn tuple(
    t: &[Token<'_>],
    mut i: usize,
    dialect: Dialect,
) -> Result<(Option<Vec<String>>, usize), ArchiveError> {
    let wrong = || corrupt("the values of an INSERT cannot be parsed");
    if !t.get(i).is_some_and(|w| w.is_symbol(b'(')) {
        return Err(wrong());
    }
    let mut fields: Option<Vec<String>> = Some(Vec::new());
    i += 1;
    loop {
        let start = i;
        while t
            .get(i)
            .is_some_and(|w| !w.is_symbol(b',') && !w.is_symbol(b')'))
        {
            i += 1;
        }
        let end = t.get(i).ok_or_else(wrong)?;
        // A generated column has no value of its own.
        if !(i == start + 1 && t[start].is("default")) {
            let field = copy_field(&t[start..i], dialect.standard_strings);
            fields = fields.zip(field).map(|(mut fields, field)| {
                fields.push(field);
                fields
            });
        }
        i += 1;
        if end.is_symbol(b')') {
            return Ok((fields, i));
        }
    }
}

//! What goes wrong: a file that is not understood, a rule that does not fit a table, a row that a rule cannot change.
//! No message contains a value of a row.

use std::fmt;

/// The mask file or its key is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MaskFileError(pub(crate) String);

/// A rule that does not fit the table that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Schema and name of the table.
    pub table: String,
    /// The column, if it is about one.
    pub column: Option<String>,
    /// What does not fit, and what to write instead.
    pub why: String,
}

/// A row that cannot be masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskError {
    /// Schema and name of the table.
    pub table: String,
    /// The column, if it is about one.
    pub column: Option<String>,
    /// Number of the row among those of the call, from 1.
    pub row: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = place(&self.table, self.column.as_deref());
        write!(f, "{place}: {}", self.why)
    }
}

impl std::error::Error for Misfit {}

impl fmt::Display for MaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = place(&self.table, self.column.as_deref());
        write!(
            f,
            "row {} of {place} cannot be masked: {}",
            self.row, self.why
        )
    }
}

impl std::error::Error for MaskError {}

fn place(table: &str, column: Option<&str>) -> String {
    match column {
        Some(column) => format!("{table}, column {column}"),
        None => table.to_owned(),
    }
}

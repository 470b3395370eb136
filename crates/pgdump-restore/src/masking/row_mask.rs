//! Masks the rows of one table, as COPY text or as INSERT statements.

use std::sync::Arc;

use pgdump_archive::{ArchiveError, Dialect, InsertValue, RowEditor, Token, edit_inserts, tokens};
use pgdump_mask::{MaskCounts, TableMask};

use super::misfits::do_not_fit;
use crate::error::RestoreError;
use crate::table_shapes::RowColumn;

/// How the rows of one table are masked.
#[derive(Clone)]
pub(crate) struct RowMask {
    pub(crate) table: TableMask,
    name: Arc<str>,
    /// The columns of the mask, in its order.
    columns: Arc<[String]>,
    /// The columns that the values of an INSERT without a list are for.
    row_columns: Arc<[RowColumn]>,
}

impl RowMask {
    /// `columns`: those of the shape that `table` was made for.
    pub(super) fn new(
        table: TableMask,
        name: String,
        columns: Vec<String>,
        row_columns: Vec<RowColumn>,
    ) -> Self {
        RowMask {
            table,
            name: name.into(),
            columns: columns.into(),
            row_columns: row_columns.into(),
        }
    }

    /// Schema and name of the table.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whole rows of COPY text, masked. `before`: lines of the table's data before them.
    ///
    /// # Errors
    /// A value that its rule cannot be applied to.
    pub(crate) fn rows(
        &self,
        rows: &[u8],
        before: u64,
        counts: &mut MaskCounts,
    ) -> Result<Vec<u8>, RestoreError> {
        let mut out = Vec::with_capacity(rows.len() + rows.len() / 8);
        let masked = self.table.mask_rows(rows, &mut out, counts);
        masked.map_err(|mut e| {
            e.row += before;
            do_not_fit(vec![e.to_string()])
        })?;
        Ok(out)
    }

    /// INSERT statements with their rows masked.
    ///
    /// # Errors
    /// The same, and statements that `pg_dump` does not write.
    pub(crate) fn inserts(
        &self,
        sql: &str,
        standard_strings: bool,
        counts: &mut MaskCounts,
    ) -> Result<String, RestoreError> {
        let dialect = Dialect {
            standard_strings,
            ..Dialect::default()
        };
        let mut editor = Editor {
            mask: self,
            counts,
            positions: vec![],
        };
        edit_inserts(sql, dialect, &mut editor).map_err(|e| match RestoreError::from(e) {
            RestoreError::Job(e) => self.misfit(&e.to_string()),
            other => other,
        })
    }

    fn misfit(&self, what: &str) -> RestoreError {
        do_not_fit(vec![format!("{}: {what}", self.name)])
    }
}

/// Masks rows of INSERT statements.
struct Editor<'a> {
    mask: &'a RowMask,
    counts: &'a mut MaskCounts,
    /// For each value of a row, its column among those of the mask; `None` for a generated column.
    positions: Vec<Option<usize>>,
}

impl Editor<'_> {
    fn position(&self, column: &str) -> Result<usize, RestoreError> {
        let found = self.mask.columns.iter().position(|c| c == column);
        found.ok_or_else(|| {
            let what = format!("an INSERT has the column {column}, which its table does not have");
            self.mask.misfit(&what)
        })
    }

    /// Whether the name as written is that of the mask's table.
    fn is_of_table(&self, relation: &str) -> bool {
        let t = tokens(relation, Dialect::default());
        let written = t.last().and_then(Token::name);
        written.is_some_and(|name| {
            let rest = self.mask.name.strip_suffix(name.as_str());
            rest.is_some_and(|schema| schema.ends_with('.'))
        })
    }

    fn masked(&mut self, values: &mut [InsertValue]) -> Result<bool, RestoreError> {
        if values.len() > self.positions.len() {
            return Err(self.mask.misfit("an INSERT has more values than columns"));
        }
        let mut all: Vec<Option<Vec<u8>>> = vec![None; self.mask.columns.len()];
        for (value, position) in values.iter().zip(&self.positions) {
            match (value, position) {
                (InsertValue::Text(text), Some(at)) => all[*at] = Some(text.clone().into_bytes()),
                (InsertValue::Null | InsertValue::Default, Some(_)) => {}
                (InsertValue::Default, None) => {}
                (InsertValue::Text(_) | InsertValue::Null, None) => {
                    let what = "an INSERT has a value for a generated column";
                    return Err(self.mask.misfit(what));
                }
            }
        }
        let first = self.counts.rows;
        let kept = self.mask.table.mask_values(&mut all, self.counts);
        let kept = kept.map_err(|mut e| {
            e.row += first;
            do_not_fit(vec![e.to_string()])
        })?;
        if kept {
            self.write_back(values, all)?;
        }
        Ok(kept)
    }

    /// A column that takes its default keeps it: that is no value of the row.
    fn write_back(
        &self,
        values: &mut [InsertValue],
        mut all: Vec<Option<Vec<u8>>>,
    ) -> Result<(), RestoreError> {
        for (value, position) in values.iter_mut().zip(&self.positions) {
            let (Some(at), false) = (position, *value == InsertValue::Default) else {
                continue;
            };
            *value = match all[*at].take() {
                None => InsertValue::Null,
                Some(bytes) => {
                    let text = String::from_utf8(bytes);
                    let broken = |_| RestoreError::internal("a masked value is not UTF-8");
                    InsertValue::Text(text.map_err(broken)?)
                }
            };
        }
        Ok(())
    }
}

impl RowEditor for Editor<'_> {
    fn target(&mut self, relation: &str, columns: Option<Vec<String>>) -> Result<(), ArchiveError> {
        if !self.is_of_table(relation) {
            let what = "an INSERT among its rows is one of another table";
            return Err(self.mask.misfit(what).into());
        }
        let positions: Result<Vec<Option<usize>>, RestoreError> = match columns {
            Some(names) => {
                let names = names.iter();
                names.map(|name| Ok(Some(self.position(name)?))).collect()
            }
            None => {
                let columns = self.mask.row_columns.iter();
                let position = |c: &RowColumn| {
                    let of_mask = (!c.is_generated).then(|| self.position(&c.name));
                    of_mask.transpose()
                };
                columns.map(position).collect()
            }
        };
        self.positions = positions?;
        Ok(())
    }

    fn row(&mut self, values: &mut [InsertValue]) -> Result<bool, ArchiveError> {
        Ok(self.masked(values)?)
    }
}

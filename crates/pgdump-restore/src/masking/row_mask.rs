//! Masks the rows of one table, as COPY text or as INSERT statements.

use std::sync::Arc;

use pgdump_archive::{ArchiveError, Dialect, InsertValue, RowEditor, edit_inserts, tokens};
use pgdump_mask::{MaskCounts, TableMask};

use super::misfits::do_not_fit;
use crate::error::RestoreError;
use crate::table_shapes::RowColumn;

/// Schema and name, as the catalog has them.
pub(super) type Name = (String, String);

/// How the rows of one table are masked.
#[derive(Clone)]
pub(crate) struct RowMask {
    pub(crate) table: TableMask,
    name: Arc<str>,
    /// Those of the table, and of the tables that its rows may be written to instead: `--load-via-partition-root`.
    names: Arc<[Name]>,
    /// The columns of the mask, in its order.
    columns: Arc<[String]>,
    /// The columns that the values of an INSERT without a list are for.
    row_columns: Arc<[RowColumn]>,
}

impl RowMask {
    /// `names`: the table and its parents. `columns`: those of the shape that `table` was made for.
    pub(crate) fn new(
        table: TableMask,
        names: Vec<Name>,
        columns: Vec<String>,
        row_columns: Vec<RowColumn>,
    ) -> Self {
        let name = names
            .first()
            .map(|(schema, table)| format!("{schema}.{table}"));
        RowMask {
            table,
            name: name.unwrap_or_default().into(),
            names: names.into(),
            columns: columns.into(),
            row_columns: row_columns.into(),
        }
    }

    /// Schema and name of the table.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The same in two parts: names may have dots.
    pub(super) fn key(&self) -> Name {
        self.names.first().cloned().unwrap_or_default()
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

    /// Whether the name as written is that of the mask's table, or of one that its rows are written to.
    fn is_of_table(&self, relation: &str) -> bool {
        let t = tokens(relation, Dialect::default());
        let (schema, table) = match t.as_slice() {
            [table] => (None, table.name()),
            [schema, dot, table] if dot.is_symbol(b'.') => (Some(schema.name()), table.name()),
            _ => return false,
        };
        let mut names = self.mask.names.iter();
        names.any(|(in_schema, name)| {
            let fits = |schema: &Option<String>| schema.as_ref() == Some(in_schema);
            table.as_ref() == Some(name) && schema.as_ref().is_none_or(fits)
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
                names.map(|name| self.position(name).map(Some)).collect()
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

#[cfg(test)]
mod tests {
    use pgdump_mask::{MaskFile, Masking, TableShape};

    use super::*;
    use crate::table_shapes::in_order_of;

    const RULES: &str = "version: 1\ntables:\n  s.t:\n    columns:\n      b: { set: \"it's\" }\n      c: { null: true }\n    \
         rows: { where: { a: [1, 2] } }\n";

    fn row_mask(columns: &[&str], row_columns: &[(&str, bool)]) -> RowMask {
        let masking = Masking::new(MaskFile::parse(RULES).unwrap(), None).unwrap();
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        let mut shape = TableShape {
            schema: "s".into(),
            table: "t".into(),
            columns: in_order_of(&[], &columns),
            ..TableShape::default()
        };
        for column in &mut shape.columns {
            let is_number = column.name == "a";
            column.sql_type = if is_number { "integer" } else { "text" }.to_owned();
        }
        let table = masking.table(&shape).map_err(|m| m[0].to_string());
        let row_columns = row_columns.iter().map(|(name, is_generated)| RowColumn {
            name: (*name).to_owned(),
            is_generated: *is_generated,
        });
        let table = table.unwrap().unwrap();
        let names = [("s", "t"), ("s", "root")];
        let names = names.map(|(schema, table)| (schema.to_owned(), table.to_owned()));
        RowMask::new(table, names.into(), columns, row_columns.collect())
    }

    fn inserts(mask: &RowMask, sql: &str) -> Result<(String, MaskCounts), RestoreError> {
        let mut counts = MaskCounts::default();
        Ok((mask.inserts(sql, true, &mut counts)?, counts))
    }

    #[test]
    fn copy_rows_and_inserts_give_the_same() {
        let row_columns = [("a", false), ("g", true), ("b", false), ("c", false)];
        let mask = row_mask(&["a", "b", "c"], &row_columns);
        let mut counts = MaskCounts::default();
        let rows = mask.rows(b"1\told\tx\n3\told\tx\n2\told\t\\N\n", 0, &mut counts);
        assert_eq!(rows.unwrap(), b"1\tit's\t\\N\n2\tit's\t\\N\n");
        let sql = "INSERT INTO s.t VALUES (1, DEFAULT, 'old', 'x'), (3, DEFAULT, 'old', 'x');\n\
             INSERT INTO s.root (c, a, b) VALUES (NULL, 2, 'old');\nINSERT INTO t VALUES (4, DEFAULT, 'old', 'x');\n";
        let (written, of_inserts) = inserts(&mask, sql).unwrap();
        assert_eq!(
            written,
            "INSERT INTO s.t VALUES (1, DEFAULT, 'it''s', NULL);\n\
             INSERT INTO s.root (c, a, b) VALUES (NULL, 2, 'it''s');\n"
        );
        assert_eq!((counts.rows, counts.rows_kept), (3, 2));
        assert_eq!((of_inserts.rows, of_inserts.rows_kept), (4, 2));
        assert_eq!(counts.changed, of_inserts.changed);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let mask = row_mask(
            &["a", "b", "c"],
            &[("a", false), ("b", false), ("c", false)],
        );
        for sql in [
            "INSERT INTO s.other VALUES (1, 'secret', NULL);",
            "INSERT INTO other.t VALUES (1, 'secret', NULL);",
            "INSERT INTO s.t VALUES (1, 'secret', NULL, 'secret');",
            "INSERT INTO s.t (a, b, d) VALUES (1, 'secret', 'secret');",
            "INSERT INTO s.t VALUES (1, lower('secret'), NULL);",
        ] {
            let e = inserts(&mask, sql).unwrap_err();
            let [misfit] = e.misfits() else {
                panic!("{sql}: {e}");
            };
            assert!(misfit.starts_with("s.t: an INSERT"), "{misfit}");
            assert!(!e.to_string().contains("secret"), "{e}");
        }
    }
}

//! Tables as their definitions describe them.

/// A table whose rows are masked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableShape {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Its columns, in the order of the rows' values.
    pub columns: Vec<ColumnShape>,
    /// Schema and name of the tables that it is a partition or a child of. Their rules apply if no pattern matches the table.
    pub parents: Vec<(String, String)>,
}

/// A column of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type as in CREATE TABLE, such as `character varying(40)`; empty if it is not known.
    pub sql_type: String,
    /// Whether it rejects NULL.
    pub not_null: bool,
    /// Whether it is alone under a unique index or key.
    pub unique: bool,
    /// Whether a unique index or key is over the column itself, in all rows: not over an expression of it, nor over some rows.
    pub is_key: bool,
    /// Whether such an index takes NULLs for equal (`NULLS NOT DISTINCT`), so that only one row may have one.
    pub one_null: bool,
    /// `SECURITY LABEL FOR anon` on it.
    pub label: Option<String>,
}

impl TableShape {
    /// Schema and name, as messages name it.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

//! Rows that depend on other rows. A check, a generated column, a domain, a partition key, … that calls a
//! function of the dump may read any table, and the earlier rows of its own. `pg_restore` and `psql` load
//! one table after another; such tables are loaded as if this program did, too: after all data before
//! them, before all data after them, in one COPY.
//!
//! `contents` learns it from a table of contents, `text` from the statements of SQL text, `catalog` from
//! the database where rows alone are restored. In doubt, rows depend on others: that costs time only.

mod catalog;
mod contents;
mod definition;
mod expressions;
mod text;

pub(super) use catalog::dependent_tables;
pub(super) use contents::Dependence;
pub(super) use text::Definitions;

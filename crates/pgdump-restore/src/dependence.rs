//! Rows that depend on other rows. A check, a generated column, a domain, a partition key, … that calls a
//! function of the dump may read any table, and the earlier rows of its own. `pg_restore` and `psql` load
//! one table after another. Tables with such code are loaded in that order here, too: after all data before
//! them, before all data after them, in one COPY.
//!
//! `toc` finds them in a table of contents, `text` in the statements of SQL text, `catalog` in the
//! database if only data is restored. In doubt, rows are treated as dependent: that only costs time.

mod catalog;
mod definition;
mod expressions;
mod text;
mod toc;

pub(super) use catalog::dependent_tables;
pub(super) use definition::{at_commas, outer, parenthesized};
pub(super) use text::Definitions;
pub(super) use toc::Dependence;

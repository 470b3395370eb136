#![doc = include_str!("../README.md")]
//! # Map
//!
//! ```text
//! MaskFile (YAML) ─┐
//! MaskKey ─────────┼─► Masking ── table(shape) ─► TableMask ── mask_rows(COPY text) ─► masked rows, MaskCounts
//! TableShape ──────┘                  └─► Misfit: a rule does not fit the table; found before rows move
//! ```
//!
//! A rule is compiled for its column once; rows are then changed in one pass over their text. Nothing here reads a file, a
//! variable or the clock, and no error contains a value.

mod error;
mod shape;
mod sql_type;
mod prf;
mod cipher;
mod numerals;
mod permutation;
mod key;
mod decimal;
mod pattern;
mod file;
mod rule_spec;
mod rows_spec;
mod ordered;
mod label;
mod transform;
mod words;
mod rule;
mod compile;
mod template;
mod row_filter;
mod copy_text;
mod counts;
mod table_mask;
mod rule_book;
mod masking;
mod suggest;

pub use counts::MaskCounts;
pub use error::{MaskError, MaskFileError, Misfit};
pub use file::{LargeObjects, MaskFile};
pub use key::MaskKey;
pub use masking::Masking;
pub use shape::{ColumnShape, TableShape};
pub use suggest::{Suggestion, suggest};
pub use table_mask::TableMask;

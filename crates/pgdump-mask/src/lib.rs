//! Masks and cuts down rows of `pg_dump` in the stream.
//!
//! ```text
//! MaskFile (YAML) ─┐
//! MaskKey ─────────┼─► Masking ── table(shape) ─► TableMask ── mask_rows(COPY text) ─► masked rows, MaskCounts
//! TableShape ──────┘                  └─► Misfit: a rule does not fit the table; found before rows move
//! ```
//!
//! A rule is compiled for its column once; rows are then changed in one pass over their text. Nothing here reads a file, a
//! variable or the clock, and no error contains a value.
//!
//! ```
//! use pgdump_mask::{ColumnShape, MaskCounts, MaskFile, MaskKey, Masking, TableShape};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = MaskFile::parse(
//!     "version: 1\ntables:\n  shop.customer:\n    columns:\n      note: { set: \"x\" }\n      name: { fake: name }\n",
//! )?;
//! let key = MaskKey::new("a secret of 16 bytes or more".to_owned().into())?;
//! let masking = Masking::new(file, Some(key))?;
//! let column = |name: &str, sql_type: &str| ColumnShape {
//!     name: name.to_owned(),
//!     sql_type: sql_type.to_owned(),
//!     ..ColumnShape::default()
//! };
//! let shape = TableShape {
//!     schema: "shop".to_owned(),
//!     table: "customer".to_owned(),
//!     columns: vec![column("id", "integer"), column("name", "text"), column("note", "text")],
//!     parents: Vec::new(),
//! };
//! let mask = masking.table(&shape).map_err(|misfits| misfits[0].to_string())?.ok_or("nothing to change")?;
//! let (mut rows, mut counts) = (Vec::new(), MaskCounts::default());
//! mask.mask_rows(b"1\tAda Lovelace\tcall back\n", &mut rows, &mut counts)?;
//! assert!(rows.starts_with(b"1\t") && rows.ends_with(b"\tx\n"));
//! assert_eq!(counts.changed, [1, 1]);
//! # Ok(())
//! # }
//! ```

mod error;
mod shape;
mod sql_type;
mod prf;
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
pub use file::MaskFile;
pub use key::MaskKey;
pub use masking::Masking;
pub use shape::{ColumnShape, TableShape};
pub use suggest::{Suggestion, suggest};
pub use table_mask::TableMask;

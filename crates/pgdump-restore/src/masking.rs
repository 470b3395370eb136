//! Masks rows before they leave this process, and leaves out those that a copy is not to have. Every table with rows is
//! checked before the first row moves; of SQL text, whose tables come with the stream, before the first row of the table.
//!
//! What may hold values of rows besides the rows is left out, too: planner statistics, and large objects if asked.

mod load_masking;
mod masked_table;
mod misfits;
mod report;
mod row_mask;
mod text;
mod text_statements;
mod toc;

pub use self::load_masking::LoadMasking;
pub(crate) use self::misfits::do_not_fit;
pub use self::report::{MaskedColumn, MaskedTable, MaskingReport};
pub(crate) use self::row_mask::RowMask;
pub(crate) use self::text::TextMasking;
pub use self::toc::check_masking;

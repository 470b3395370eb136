//! The items that SQL text consists of.

use super::TocEntry;
use super::chunks::Statement;

/// An item of the text.
pub(super) enum TextItem {
    Statement(Statement),
    /// `COPY … FROM stdin`: its rows come next in the text.
    Copy(Statement),
    Insert {
        bytes: Vec<u8>,
        line: u64,
    },
    /// A comment line that announces an entry: kind, name, schema, owner.
    Entry(Box<TocEntry>),
    /// The end, and whether the text shows that it is complete.
    End(bool),
}

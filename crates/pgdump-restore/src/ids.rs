//! Numbers that stand for different things, each with a type of its own.

use pgdump_archive::DumpId;

/// What a task locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TableId {
    /// A table of the table of contents.
    Entry(DumpId),
    /// A table of SQL text: the number of its name.
    Named(usize),
    /// Not a table: serializes index attachments. Two concurrent ones under the same root may miss each other and
    /// leave the root's index invalid (fixed in 15.20 and its sibling releases).
    IndexAttachments,
}

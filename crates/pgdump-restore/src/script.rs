//! The order of SQL text: which statements are barriers between what precedes and what follows them, and
//! which may run concurrently. Pure. `pg_dump` writes all statements that create tables first, then the
//! data, then indexes, keys and the rest.

mod classify;
mod defined;
mod order;
mod settings;

pub(super) use self::classify::{
    OrderGroup, StatementClass, classify, has_own_transaction, may_be_unlogged, table_named,
};
pub(super) use self::defined::{
    Defined, alone, can_be_left_out, creates_large_object, defined_by, defines, first_words,
    is_needed, lacking, sequence_set_by, sets_owner,
};
pub(super) use self::order::StatementOrder;
pub(super) use self::settings::Settings;
use super::masking::RowMask;
use super::work_queue::MemoryPermit;
use super::work_record::DataSpan;
use pgdump_archive::{Statement, TocEntry};

/// The work of one node.
pub(super) enum ScriptStep {
    /// The rows of one table, or large objects.
    Data {
        entry: Box<TocEntry>,
        /// Its number among the statements of the text and the data between them.
        number: u64,
        settings: std::sync::Arc<Settings>,
        /// How the rows are masked, if they are.
        mask: Option<RowMask>,
    },
    Statements(Statements),
    /// No work; other nodes wait for it.
    Nothing,
}

/// Statements that one session runs.
pub(super) struct Statements {
    pub list: Vec<Statement>,
    /// For each statement, its number in the text as a span of one, with the CRC32C of its text; `None` if the text does not
    /// have it, such as one that creates a missing role.
    pub places: Vec<Option<DataSpan>>,
    pub settings: std::sync::Arc<Settings>,
    /// Do not wrap them in a transaction: they begin or end one, are within one that the text has begun, or must
    /// run outside of any.
    pub bare: bool,
    pub permit: Option<MemoryPermit>,
}

//! Progress reports of a running load.

use crate::stage::Stage;

/// Observes a load. Called often, from its sessions and readers: implementations must not block.
pub trait LoadObserver: Send + Sync {
    /// `stage` begins.
    fn enter(&self, stage: Stage);
    /// `stage` begins if the current one is `from`.
    fn advance(&self, from: Stage, stage: Stage);
    /// The span of the current stage, parent of the spans of entries.
    fn span(&self) -> tracing::Span;
    /// Number of tables with data and of other tasks in the table of contents.
    fn planned(&self, tables: u64, tasks: u64);
    /// SQL text: one more table has been found.
    fn found_table(&self);
    /// SQL text: one more task has been found.
    fn found_task(&self);
    /// Uncompressed bytes of data that are being sent to the server.
    fn bytes_read(&self, bytes: u64);
    /// The data of this table is being read from here on.
    fn table_begun(&self, table: &str);
    /// The data of this table has been read completely.
    fn table_read(&self, table: &str);
    /// Rows of this table that the server has confirmed.
    fn rows_loaded(&self, table: &str, rows: u64);
    /// An index, a key or another entry is being created from here on.
    fn task_begun(&self);
    /// Indexes, keys and other entries that have been created.
    fn tasks_done(&self, tasks: u64);
}

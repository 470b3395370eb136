//! What is told of a load while it runs.

/// Hears what a load does. Called from its sessions and readers, often: it must not block.
pub trait LoadObserver: Send + Sync {
    /// The stage `name` begins.
    fn enter(&self, name: &'static str);
    /// The stage `name` begins, if the current one is `from`.
    fn advance(&self, from: &'static str, name: &'static str);
    /// The span of the current stage, which spans of entries belong to.
    fn span(&self) -> tracing::Span;
    /// How many tables with data and how many other tasks there are, as far as the table of contents says.
    fn planned(&self, tables: u64, tasks: u64);
    /// A further table, of SQL text, where tables are known only as they come.
    fn found_table(&self);
    /// A further task, of SQL text.
    fn found_task(&self);
    /// Uncompressed bytes of data that are on their way to the server.
    fn bytes_read(&self, bytes: u64);
    /// The data of one more table has been read to its end.
    fn table_read(&self);
    /// Rows that the server has confirmed.
    fn rows_loaded(&self, rows: u64);
    /// Indexes, keys and other entries that have been made.
    fn tasks_done(&self, tasks: u64);
}

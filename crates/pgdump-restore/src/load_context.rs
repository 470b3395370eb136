//! State that all sessions of one load share.

use crate::stage::Stage;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use tokio_postgres::error::SqlState;

use pgdump_archive::{
    ContentDigest, Dialect, DumpId, EntryKind, TextEncoding, TocEntry, first_tokens,
};

use crate::binary::Columns;
use crate::ddl::{DumpSettings, columns_sql};
use crate::error::{DatabaseError, RestoreError};
use crate::ids::{EntryIndex, NodeId};
use crate::left_out::{LeftOut, RefusedPart, error_of};
use crate::masking::{LoadMasking, RowMask};
use crate::observer::LoadObserver;
use crate::postgres::{Server, Session, ident};
use crate::rewrite::Rewriter;
use crate::script::{ScriptStep, Settings};
use crate::work_queue::WorkQueue;
use crate::work_record::{UnitId, WorkRecord, says_done};

/// What to restore: entries of a table of contents, or steps of SQL text as they arrive.
pub(crate) enum LoadContent {
    Toc(Vec<TocEntry>),
    Script(Mutex<Vec<Option<Arc<ScriptStep>>>>),
}

impl LoadContent {
    /// Adds a step and returns its number.
    pub(crate) fn push(&self, step: ScriptStep) -> Result<EntryIndex, RestoreError> {
        let LoadContent::Script(steps) = self else {
            return Err(RestoreError::internal(
                "a step was added to a restore with a table of contents",
            ));
        };
        let mut steps = steps.lock();
        steps.push(Some(Arc::new(step)));
        Ok(EntryIndex(steps.len() - 1))
    }

    /// The entry of this number, unless this is SQL text.
    pub(crate) fn entry(&self, index: EntryIndex) -> Option<&TocEntry> {
        match self {
            LoadContent::Toc(entries) => entries.get(index.0),
            LoadContent::Script(_) => None,
        }
    }

    /// The step of this number; with `last`, it is removed, because nobody asks for it again.
    pub(crate) fn step(&self, index: EntryIndex, last: bool) -> Option<Arc<ScriptStep>> {
        let LoadContent::Script(steps) = self else {
            return None;
        };
        let mut steps = steps.lock();
        let step = steps.get_mut(index.0)?;
        if last { step.take() } else { step.clone() }
    }

    /// All entries; none of SQL text.
    pub(crate) fn entries(&self) -> &[TocEntry] {
        match self {
            LoadContent::Toc(entries) => entries,
            LoadContent::Script(_) => &[],
        }
    }

    /// What the work of an entry is counted for.
    pub(crate) fn unit(&self, index: EntryIndex) -> UnitId {
        match self {
            LoadContent::Toc(entries) => entries.get(index.0).map_or(UnitId(-1), UnitId::of),
            LoadContent::Script(_) => match self.step(index, false).as_deref() {
                Some(ScriptStep::Data { number, .. }) => {
                    UnitId(i64::try_from(*number).unwrap_or(i64::MAX))
                }
                _ => UnitId(-1),
            },
        }
    }

    /// Human-readable name. Steps of SQL text have none: statements may contain data.
    pub(crate) fn name(&self, index: EntryIndex) -> String {
        match self {
            LoadContent::Toc(entries) => entries[index.0].name(),
            LoadContent::Script(_) => match self.step(index, false).as_deref() {
                Some(ScriptStep::Data { entry, .. }) => entry.name(),
                _ => "statements".to_owned(),
            },
        }
    }
}

/// Amount loaded so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) tables: AtomicU64,
    pub(crate) rows: AtomicU64,
    /// Uncompressed bytes of table data and large objects.
    pub(crate) bytes: AtomicU64,
    /// Whether rows have been sent to the server.
    pub(crate) has_begun: AtomicBool,
}

/// What a rehearsal has tried of SQL text.
#[derive(Debug, Default)]
pub(crate) struct TriedText {
    /// Number of definitions.
    pub(crate) definitions: AtomicU64,
    /// The rows that were passed over, by the search path and the name of their table, and its columns.
    pub(crate) rows: Mutex<BTreeMap<(String, String), RowsOfText>>,
    /// The rows before which it ended; `None` if it has tried all of the text.
    pub(crate) ended_before: Mutex<Option<String>>,
}

/// Rows of SQL text that a rehearsal has passed over.
#[derive(Debug)]
pub(crate) struct RowsOfText {
    pub(crate) entry: TocEntry,
    pub(crate) settings: Arc<Settings>,
}

/// State that all sessions of one load share.
pub(crate) struct LoadContext {
    pub(crate) server: Server,
    pub(crate) database: String,
    pub(crate) content: LoadContent,
    pub(crate) encoding: TextEncoding,
    pub(crate) settings: DumpSettings,
    pub(crate) observer: Arc<dyn LoadObserver>,
    pub(crate) totals: Totals,
    pub(crate) rewriter: Arc<Rewriter>,
    pub(crate) content_digest: Option<Arc<ContentDigest>>,
    pub(crate) max_bytes: u64,
    pub(crate) binary_from: Option<usize>,
    /// Column types of nodes with rows, once queried: `None` if the rows are sent as text.
    pub(crate) columns: Mutex<HashMap<NodeId, Option<Arc<Columns>>>>,
    /// Whether there are as many sessions as the server has cores.
    pub(crate) fills_server: bool,
    /// Whether the text was not written by `pg_dump`: one session runs it in its own order.
    pub(crate) is_generic_sql: bool,
    /// Tables for which autovacuum is disabled until [`RestoreSession::reenable_autovacuum`].
    pub(crate) autovacuum_off: Mutex<Vec<String>>,
    /// Existing tables whose rows depend on others.
    pub(crate) in_order_into: Option<Arc<HashSet<String>>>,
    /// The database that this one is a copy of.
    pub(crate) copy_of: Option<String>,
    /// What the server refused, and what is left out with it.
    pub(crate) left_out: LeftOut,
    /// Whether no rows are loaded.
    pub(crate) definitions_only: bool,
    /// What of SQL text was tried then.
    pub(crate) tried: TriedText,
    /// How often an extension has changed settings of the database, which only new sessions have.
    pub(crate) settings_changed: AtomicU64,
    pub(crate) masking: Option<Arc<LoadMasking>>,
    /// How the rows of an archive's entries are masked; `None` if nothing in them is to be changed.
    pub(crate) masks: HashMap<DumpId, Option<RowMask>>,
    /// What is written down for a later attempt, and what earlier ones have done.
    pub(crate) record: Arc<WorkRecord>,
    /// Values of sequences that earlier attempts have set are set again: some are unlogged, and a crash of the server resets
    /// those without a sign.
    pub(crate) sets_sequences_again: bool,
    /// Whether the archive is read by the offsets of its table of contents, so that all its blocks are proven together.
    pub(crate) is_by_offsets: bool,
}

/// The name of an entry's table, as SQL writes it. Entries of SQL text have no schema of their own, and their tag is the
/// name.
fn table_of(entry: &TocEntry) -> String {
    match &entry.namespace {
        Some(schema) => format!("{}.{}", ident(schema), ident(&entry.tag)),
        None => entry.tag.clone(),
    }
}

/// Whether the name of a table in SQL text has a schema. Without one, the search path of the text says which table it is.
fn names_schema(table: &str) -> bool {
    let name = first_tokens(table, Dialect::default(), 2);
    name.get(1).is_some_and(|dot| dot.is_symbol(b'.'))
}

/// Whether the database of a session does not have the table of an entry. The settings of SQL text must be in force.
async fn has_no_table_of(session: &Session, entry: &TocEntry) -> bool {
    let sql = "SELECT pg_catalog.to_regclass($1::text) IS NULL";
    let asked = session.client().query_one(sql, &[&table_of(entry)]).await;
    // Whatever is wrong, loading the rows shows it.
    asked.is_ok_and(|row| row.get(0))
}

/// Whether what has the name of an entry's table takes no rows: it is no table, such as a view, or the role may not insert.
async fn takes_no_rows_of(session: &Session, entry: &TocEntry) -> bool {
    // Tables, also with partitions, and foreign ones.
    let sql = "SELECT relkind NOT IN ('r', 'p', 'f') OR NOT pg_catalog.has_table_privilege(oid, 'INSERT') \
        FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1::text)::pg_catalog.oid";
    let asked = session.client().query_one(sql, &[&table_of(entry)]).await;
    asked.is_ok_and(|row| row.get(0))
}

/// Whether the table of an entry may not have the columns of its rows. Rows that do not name theirs might go into others.
async fn lacks_columns_of(session: &Session, entry: &TocEntry) -> bool {
    let Some(sql) = columns_sql(entry) else {
        return true;
    };
    let asked = session.client().prepare(&sql).await;
    asked.is_err_and(|e| e.code() == Some(&SqlState::UNDEFINED_COLUMN))
}

impl LoadContext {
    /// Whether earlier attempts have loaded all data of a unit, and nobody needs to read it again: its bytes are proven, or
    /// their checksum counts in the proof of all of them.
    pub(crate) fn is_settled(&self, unit: UnitId) -> bool {
        let resumed = self.record.resumed();
        let is_known = if self.is_by_offsets {
            resumed.is_read(unit)
        } else {
            resumed.is_proven(unit)
        };
        is_known && resumed.is_complete(unit)
    }

    /// Counts bytes of data that are sent to the server; returns their sum.
    pub(crate) fn bytes_read(&self, bytes: u64) -> u64 {
        self.observer.bytes_read(bytes);
        self.totals
            .bytes
            .fetch_add(bytes, Relaxed)
            .saturating_add(bytes)
    }

    pub(crate) fn table_read(&self, table: &str) {
        self.observer.table_read(table);
        self.totals.tables.fetch_add(1, Relaxed);
    }

    /// Whether the table of an entry had rows before, in the database that this one is a copy of.
    pub(crate) async fn had_rows(&self, entry: &TocEntry) -> bool {
        let Some(original) = &self.copy_of else {
            return false;
        };
        let sql = format!("SELECT EXISTS (SELECT FROM {})", table_of(entry));
        let asked = async {
            let server = self.server.without_retry();
            let session = server.connect(original, "preflight").await.ok()?;
            session.client().query_one(sql.as_str(), &[]).await.ok()
        };
        asked.await.is_some_and(|row| row.get(0))
    }

    /// Decides whether the rows of a node are left out because their table does not exist. The first session that comes
    /// to the node decides that, and names them.
    pub(crate) fn decide_rows(
        &self,
        (node, index): (NodeId, EntryIndex),
        data: &TocEntry,
        lacks_table: bool,
    ) -> bool {
        let (is_left_out, is_new) = self.left_out.decide(node, lacks_table);
        if is_left_out && is_new {
            match self.content.step(index, false).as_deref() {
                Some(ScriptStep::Data { settings, .. }) => self.leave_out_rows(data, settings),
                _ => self.leave_out_rows(data, &Settings::default()),
            }
        }
        is_left_out
    }

    /// Leaves out rows that have no table to go to. `settings`: those that they have in SQL text.
    pub(crate) fn leave_out_rows(&self, data: &TocEntry, settings: &Settings) {
        match &self.content {
            // Named with its table.
            LoadContent::Toc(_) if self.left_out.has(data) => {}
            LoadContent::Toc(_) => self.left_out.leave_out_data(data),
            LoadContent::Script(_) if names_schema(&data.tag) => {
                self.left_out.leave_out_rows_of_text(data, "");
            }
            LoadContent::Script(_) => {
                let path = settings.get("search_path").unwrap_or_default();
                self.left_out.leave_out_rows_of_text(data, path);
            }
        }
    }

    /// The extension that created the table of an entry, and whose configuration is in it.
    pub(crate) async fn extension_of(&self, entry: &TocEntry) -> Option<String> {
        const CONFIGURED: &str = "SELECT extname::text FROM pg_catalog.pg_extension \
            WHERE pg_catalog.to_regclass($1::text)::pg_catalog.oid = ANY (extconfig)";
        let server = self.server.without_retry();
        let session = server.connect(&self.database, "preflight").await.ok()?;
        let table = table_of(entry);
        let asked = session.client().query_opt(CONFIGURED, &[&table]).await;
        Some(asked.ok()??.get(0))
    }

    pub(crate) fn rows_loaded(&self, table: &str, rows: u64) {
        self.observer.rows_loaded(table, rows);
        self.totals.rows.fetch_add(rows, Relaxed);
    }

    /// Called when all pre-data exists, and again when all data has been read.
    pub(crate) fn enter_stage(&self, work_queue: &WorkQueue) {
        let (pre_data_done, is_read) =
            work_queue.change(|s| (s.pre_data_done(), !s.is_stream_open()));
        if pre_data_done && matches!(self.content, LoadContent::Toc(_)) {
            self.observer.advance(Stage::Schema, Stage::Data);
        }
        if pre_data_done && is_read {
            self.observer.advance(Stage::Data, Stage::Indexes);
        }
    }

    /// Whether the definitions before the first rows of SQL text are being restored. All of them are tried before a load
    /// fails.
    pub(crate) fn is_before_rows_of_text(&self) -> bool {
        matches!(self.content, LoadContent::Script(_)) && !self.totals.has_begun.load(Relaxed)
    }

    /// The statement of SQL text that sets the search path of a step's rows, or nothing.
    pub(crate) fn search_path_of(&self, index: EntryIndex) -> String {
        match self.content.step(index, false).as_deref() {
            Some(ScriptStep::Data { settings, .. }) => {
                settings.get("search_path").unwrap_or_default().to_owned()
            }
            _ => String::new(),
        }
    }

    /// Whether rows have no table to go to, because the server refused it, or the extension that it is of; `None` if only
    /// the server knows, as of a table that was refused because there was one of its name. `path`: the statement of SQL text
    /// that sets the search path of the rows, or nothing.
    pub(crate) fn lacks_table(&self, data: &TocEntry, path: &str) -> Option<bool> {
        let left_out = &self.left_out;
        let (is_refused, is_known) = match &self.content {
            LoadContent::Toc(_) => (left_out.has(data), true),
            // A later statement may have created it. Without a schema, it may be another table of the name.
            LoadContent::Script(_) => (
                left_out.may_have_rows_of(data),
                !names_schema(&data.tag) && left_out.is_refused_under(data, path),
            ),
        };
        let is_doubtful = is_refused && !is_known
            || left_out.are_for_existing(data)
            || left_out.may_lack_object_of(data);
        (!is_doubtful || is_refused && is_known).then_some(is_refused)
    }

    /// Whether rows have no table to go to, as the server knows it. What has the name of a table that was refused may be
    /// something else, or have other columns. The settings of SQL text must be in force.
    pub(crate) async fn lacks_table_in(&self, session: &Session, data: &TocEntry) -> bool {
        has_no_table_of(session, data).await
            || self.left_out.are_for_existing(data)
                && (takes_no_rows_of(session, data).await || lacks_columns_of(session, data).await)
    }

    /// The server refused this part of an entry.
    pub(crate) fn refuse(&self, refused: (&TocEntry, RefusedPart), e: DatabaseError) {
        self.note_refused(UnitId::of(refused.0), refused.1, &e);
        self.left_out.refuse(self.content.entries(), refused, e);
    }

    /// Writes down, with the next transaction, that the server refused this.
    pub(crate) fn note_refused(&self, unit: UnitId, part: RefusedPart, e: &DatabaseError) {
        let refused = self.left_out.to_record(unit, part, e);
        self.record.later(|body| body.refused.push(refused));
    }

    /// What the server refused of a statement of SQL text in an earlier attempt.
    pub(crate) fn refused_before(&self, number: u64) -> Option<DatabaseError> {
        let unit = UnitId(i64::try_from(number).unwrap_or(i64::MAX));
        let mut refused = self.record.resumed().refused().iter();
        refused.find(|one| one.unit == unit).map(error_of)
    }

    /// Whether the server says of something that no earlier attempt is recorded to have made that it exists, so that the
    /// record is not all that was done. A restore that leaves out what is refused would take it for the backup's.
    pub(crate) fn is_unexplained(&self, e: &DatabaseError) -> bool {
        self.record.resumed().is_continued() && says_done(e)
    }

    pub(crate) fn autovacuum_off(&self) -> MutexGuard<'_, Vec<String>> {
        self.autovacuum_off.lock()
    }

    pub(crate) fn columns(&self) -> MutexGuard<'_, HashMap<NodeId, Option<Arc<Columns>>>> {
        self.columns.lock()
    }

    /// How the data of an entry is masked.
    ///
    /// # Errors
    /// `internal` if rows are masked, and nobody has decided it for these.
    pub(crate) fn mask_of(
        &self,
        index: EntryIndex,
        entry: &TocEntry,
    ) -> Result<Option<RowMask>, RestoreError> {
        if self.masking.is_none() || entry.kind == EntryKind::Blobs {
            return Ok(None);
        }
        let decided = match self.content.step(index, false).as_deref() {
            Some(ScriptStep::Data { mask, .. }) => Some(mask.clone()),
            _ => self.masks.get(&entry.dump_id).cloned(),
        };
        decided.ok_or_else(|| {
            RestoreError::internal(format!(
                "{}: it is not decided how to mask it",
                entry.name()
            ))
        })
    }

    /// Tells the record which table the rows of SQL text go to.
    pub(crate) fn name_table_of(&self, index: EntryIndex, entry: &TocEntry) {
        if matches!(self.content, LoadContent::Script(_)) {
            let (unit, path) = (self.content.unit(index), self.search_path_of(index));
            self.record.name_table(unit, &entry.tag, &path);
        }
    }

    /// The entry whose data a copier loads.
    pub(crate) fn data_entry(&self, index: EntryIndex) -> Result<TocEntry, RestoreError> {
        if let LoadContent::Toc(entries) = &self.content {
            return Ok(entries[index.0].clone());
        }
        match self.content.step(index, false).as_deref() {
            Some(ScriptStep::Data { entry, .. }) => Ok((**entry).clone()),
            _ => Err(RestoreError::internal("data for a step that has no data")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_sql_text_may_have_no_schema() {
        for (table, wanted) in [
            ("shop.orders", true),
            ("\"S.s\".\"T\"", true),
            ("orders", false),
            ("\"shop.orders\"", false),
            ("", false),
        ] {
            assert_eq!(names_schema(table), wanted, "{table}");
        }
    }
}

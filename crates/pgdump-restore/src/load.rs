//! Loads an archive into an empty staging database, with readers, sessions and a work queue between them.

use crate::stage::Stage;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use pgdump_archive::{Archive, ContentDigest, DumpId, EntryKind, TocEntry};
use tokio::task::JoinSet;

use crate::ddl::{DumpSettings, qualified};
use crate::dependence::Dependence;
use crate::error::{DatabaseError, RestoreError};
use crate::ids::{EntryIndex, NodeId, SessionId};
use crate::left_out::LeftOut;
use crate::load_context::{LoadContent, LoadContext, Totals, TriedText};
use crate::masking::{LoadMasking, RowMask};
use crate::observer::LoadObserver;
use crate::plan::{Plan, PlanNode};
use crate::postgres::Server;
use crate::refusals::Refusals;
use crate::rewrite::Rewriter;
use crate::script::{Settings, may_be_unlogged};
use crate::work_queue::WorkQueue;
use crate::work_record::{EntryPart, Mark, Resumed, UnitId, WorkRecord};
use crate::{extension_calls, producer, session_loop};

/// Most threads that read members of a directory, or blocks, concurrently.
const MAX_STREAMS: usize = 16;

/// How to load one archive.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Number of connections that load.
    pub sessions: usize,
    /// Limit in bytes of data that waits in memory between readers and connections.
    pub queue_bytes: usize,
    /// Tables from about this many bytes on are sent in COPY's binary format, if their rows can be converted
    /// exactly.
    pub binary_from: Option<usize>,
    /// Limit of the backup's uncompressed data in bytes.
    pub max_bytes: Option<u64>,
    /// Receives the counts of the data as it passes, for a later comparison.
    pub content_digest: Option<Arc<ContentDigest>>,
    /// Rows go into existing tables: those of them whose rows depend on others
    /// ([`SuspendedConstraints::dependent`]).
    pub in_order_into: Option<Arc<HashSet<String>>>,
    /// The database that this one is a copy of, and whose rows it had before.
    pub copy_of: Option<String>,
    /// Receives what the server refuses, and says whether that ends the load.
    pub refusals: Arc<Refusals>,
    /// Masks rows, and receives what that has changed.
    pub masking: Option<Arc<LoadMasking>>,
    /// Receives what is done, for a later attempt, and knows what earlier ones have done.
    pub record: Arc<WorkRecord>,
}

/// Proof that everything in the archive is in the staging database, except what [`Refusals`] names.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Loaded {
    /// Tables whose rows are loaded.
    pub tables: u64,
    /// Rows that the server has confirmed.
    pub rows: u64,
    /// Uncompressed bytes of table data and large objects.
    pub bytes: u64,
}

/// Restores the `entries` of `archive` (all of SQL text) into `database`, which must be empty and owned by this
/// restore, or have what earlier attempts have done by [`LoadOptions::record`].
///
/// # Errors
/// The first failure, with its entry: `data_rejected`, `role_missing`, `restore_error`, …; errors of the
/// archive and the download. If the server refused definitions, the error has all of that stage, unless they are to be
/// left out ([`OnError::Skip`](crate::policy::OnError::Skip)). The database is then partly filled: drop it. Masking rules
/// that do not fit are an error before the first row of their table is sent, and before anything if there is a table of
/// contents.
pub async fn load(
    server: &Server,
    database: &str,
    archive: Archive,
    entries: Vec<TocEntry>,
    options: LoadOptions,
    rewriter: Arc<Rewriter>,
    observer: Arc<dyn LoadObserver>,
) -> Result<Loaded, RestoreError> {
    let mut entries = if archive.is_script() { vec![] } else { entries };
    let masks = match &options.masking {
        Some(masking) => masking.begin(&archive, &mut entries)?,
        None => HashMap::new(),
    };
    let place = (server, database);
    let (mut job, plan) = begin(place, &archive, entries, &options, rewriter, observer);
    match Arc::get_mut(&mut job) {
        Some(job) => take_masks(job, masks),
        None => return Err(RestoreError::internal("a load has begun without its masks")),
    }
    run(job.clone(), Some(archive), plan, &options).await?;
    leave_out_undefined(&job).await?;
    let called = job.rewriter.called_extensions();
    extension_calls::after_load(server, database, &called).await?;
    Ok(loaded(&job))
}

/// What a rehearsal has tried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rehearsed {
    /// Number of definitions of SQL text; `None` if the backup has a table of contents, which lists them.
    pub definitions: Option<u64>,
    /// The rows of SQL text before which the rehearsal ended; `None` if all definitions were tried.
    pub ended_before: Option<String>,
}

/// Creates the definitions of `entries` in `database`, as [`load`] would, but no rows: what the server refuses is then in
/// [`LoadOptions::refusals`], which must not stop the load. Materialized views are not filled. Definitions in SQL text are
/// known as far as it is read: to its end, unless more than 16 MiB of rows precede that, or `pg_dump` did not write it.
///
/// # Errors
/// Everything but refusals: errors of the archive, the download and the connection.
pub async fn rehearse(
    server: &Server,
    database: &str,
    archive: Archive,
    entries: Vec<TocEntry>,
    options: LoadOptions,
    rewriter: Arc<Rewriter>,
    observer: Arc<dyn LoadObserver>,
) -> Result<Rehearsed, RestoreError> {
    let is_script = archive.is_script();
    let entries = if is_script {
        vec![]
    } else {
        entries.into_iter().map(without_rows).collect()
    };
    let place = (server, database);
    // Whatever is done is dropped again.
    let options = LoadOptions {
        record: WorkRecord::off(),
        ..options
    };
    let (mut job, plan) = begin(place, &archive, entries, &options, rewriter, observer);
    if let Some(job) = Arc::get_mut(&mut job) {
        job.definitions_only = true;
    }
    // The rows of an archive are not read.
    let text = is_script.then_some(archive);
    run(job.clone(), text, plan, &options).await?;
    leave_out_undefined(&job).await?;
    let ended_before = job.tried.ended_before.lock().take();
    Ok(Rehearsed {
        definitions: is_script.then(|| job.tried.definitions.load(Relaxed)),
        ended_before,
    })
}

/// Names the rows whose table was left out: those that SQL text has, and those of an archive whose table is of an extension,
/// also where there are none to load.
async fn leave_out_undefined(job: &LoadContext) -> Result<(), DatabaseError> {
    let in_text = std::mem::take(&mut *job.tried.rows.lock());
    let none = Settings::default();
    let in_toc = job.content.entries().iter().map(|entry| (entry, &none));
    let in_text = in_text.values().map(|rows| (&rows.entry, &*rows.settings));
    let mut undefined = vec![];
    for (data, settings) in in_toc.chain(in_text) {
        let path = settings.get("search_path").unwrap_or_default();
        match job.lacks_table(data, path) {
            _ if data.kind != EntryKind::TableData => {}
            Some(true) => job.leave_out_rows(data, settings),
            Some(false) => {}
            None => undefined.push((data, settings)),
        }
    }
    if undefined.is_empty() {
        return Ok(());
    }
    let session = job
        .server
        .without_retry()
        .connect(&job.database, "restore")
        .await?;
    if job.is_generic_sql {
        // Rows without a path of their own come first.
        session.run("RESET search_path").await?;
    }
    for (data, settings) in undefined {
        if let Some(path) = settings.get("search_path") {
            session.run(path).await?;
        }
        if job.lacks_table_in(&session, data).await {
            job.leave_out_rows(data, settings);
        }
    }
    Ok(())
}

/// The entry as one that has nothing to load. It stays in the table of contents, so that it is known what is left out
/// with its table.
fn without_rows(mut entry: TocEntry) -> TocEntry {
    entry.has_data = false;
    if entry.kind == EntryKind::MaterializedViewData {
        entry.defn.clear();
    }
    entry
}

/// The state of a load, and its plan.
fn begin(
    (server, database): (&Server, &str),
    archive: &Archive,
    entries: Vec<TocEntry>,
    options: &LoadOptions,
    rewriter: Arc<Rewriter>,
    observer: Arc<dyn LoadObserver>,
) -> (Arc<LoadContext>, Plan) {
    let resumed = options.record.resumed();
    let mut plan = plan_of(archive, &entries, options, rewriter.facts.version);
    plan.went_on(|index| {
        entries
            .get(index.0)
            .is_some_and(|e| resumed.has_rows(UnitId::of(e)))
    });
    let frozen = still_off(&entries, resumed);
    report_plan(&plan, &entries, observer.as_ref());
    // Once everything is loaded, they may have other names and owners.
    let sets_sequences_again =
        entries.iter().any(|e| may_be_unlogged(&e.defn)) && !resumed.has(Mark::Loaded);
    let job = LoadContext {
        left_out: LeftOut::new(options.refusals.clone(), database),
        server: server.clone(),
        database: database.to_owned(),
        settings: DumpSettings::of(&entries, rewriter.facts.version),
        encoding: archive.encoding().clone(),
        content: content_of(archive, entries),
        observer,
        totals: Totals::default(),
        fills_server: fills_server(&rewriter, options.sessions),
        rewriter,
        content_digest: options.content_digest.clone(),
        max_bytes: options.max_bytes.unwrap_or(u64::MAX),
        binary_from: options.binary_from,
        columns: Mutex::default(),
        is_generic_sql: archive.is_generic_sql(),
        autovacuum_off: Mutex::new(frozen),
        in_order_into: options.in_order_into.clone(),
        copy_of: options.copy_of.clone(),
        definitions_only: false,
        tried: TriedText::default(),
        settings_changed: AtomicU64::new(0),
        masking: options.masking.clone(),
        masks: HashMap::new(),
        record: options.record.clone(),
        sets_sequences_again,
        is_by_offsets: archive.is_read_by_offsets(),
    };
    // Of SQL text, when its statements come.
    job.left_out
        .remember(job.content.entries(), job.record.resumed());
    (Arc::new(job), plan)
}

/// Tables for which the attempt that turned autovacuum off may not have turned it on again. That precedes event triggers,
/// which would fire for it.
fn still_off(entries: &[TocEntry], resumed: &Resumed) -> Vec<String> {
    let is_fired = |e: &TocEntry| {
        e.kind == EntryKind::EventTrigger && resumed.is_done(UnitId::of(e), EntryPart::Whole)
    };
    if resumed.has(Mark::Loaded) || entries.iter().any(is_fired) {
        return vec![];
    }
    let is_off = |e: &&TocEntry| resumed.is_frozen(UnitId::of(e));
    entries.iter().filter(is_off).map(qualified).collect()
}

/// Counts what earlier attempts have loaded of the entries with these masks, and takes the masks.
fn take_masks(job: &mut LoadContext, masks: HashMap<DumpId, Option<RowMask>>) {
    let resumed = job.record.resumed();
    let before = resumed.totals();
    job.totals.rows.store(before.rows, Relaxed);
    // What is left of SQL text follows rows.
    let has_begun = before.rows > 0 || before.bytes > 0;
    job.totals.has_begun.store(has_begun, Relaxed);
    for (id, mask) in &masks {
        let counts = resumed.mask_of(UnitId(i64::from(id.0)));
        if let (Some(masking), Some(mask), Some(counts)) = (&job.masking, mask, counts) {
            masking.count(mask, counts);
        }
    }
    job.masks = masks;
}

/// Nodes of which earlier attempts have read and loaded everything, so that nobody reads them again.
fn done_before(job: &LoadContext, work_queue: &WorkQueue) -> Vec<NodeId> {
    let nodes: Vec<(NodeId, EntryIndex)> = work_queue.change(|s| s.data_nodes().collect());
    let is_done = |index: EntryIndex| job.is_settled(job.content.unit(index));
    let done = nodes.into_iter().filter(|(_, index)| is_done(*index));
    done.map(|(node, _)| node).collect()
}

/// Takes what is not read again as loaded.
fn skip_done(job: &LoadContext, work_queue: &WorkQueue) {
    let resumed = job.record.resumed();
    for node in done_before(job, work_queue) {
        let index = work_queue.entry_of(node);
        let unit = job.content.unit(index);
        let (bytes, rows) = (resumed.bytes_of(unit), resumed.rows_of(unit));
        work_queue.change(|s| {
            s.begin(node);
            s.preset(node, bytes, rows);
            s.end(node);
        });
        job.totals.bytes.fetch_add(bytes, Relaxed);
        if let Some(entry) = job.content.entry(index)
            && entry.kind == EntryKind::TableData
        {
            job.table_read(&entry.qualified_name());
        }
    }
}

fn plan_of(archive: &Archive, entries: &[TocEntry], options: &LoadOptions, version: u32) -> Plan {
    let dependence = match &options.in_order_into {
        Some(tables) => Dependence::of_rows_into(entries, tables),
        None if archive.is_script() => Dependence::of(&[]),
        // The selection may lack functions that its entries depend on.
        None => Dependence::of(archive.entries()),
    };
    Plan::new(entries, &dependence, version)
}

fn report_plan(plan: &Plan, entries: &[TocEntry], observer: &dyn LoadObserver) {
    let is_table = |n: &&PlanNode| entries[n.entry.0].kind == EntryKind::TableData;
    let tables = plan.nodes.values().filter(is_table).count();
    let tasks = plan.nodes.values().filter(|n| !n.is_data).count();
    observer.planned(tables as u64, tasks as u64);
}

fn fills_server(rewriter: &Rewriter, sessions: usize) -> bool {
    let cores = rewriter.facts.cores;
    cores.is_some_and(|cores| sessions >= cores)
}

fn content_of(archive: &Archive, entries: Vec<TocEntry>) -> LoadContent {
    if archive.is_script() {
        LoadContent::Script(Mutex::default())
    } else {
        LoadContent::Toc(entries)
    }
}

/// The load turn of each entry with data.
fn read_order(plan: &Plan, content: &LoadContent) -> HashMap<DumpId, usize> {
    let data = plan.nodes.values().filter(|n| n.is_data);
    data.filter_map(|n| Some((content.entry(n.entry)?.dump_id, n.turn)))
        .collect()
}

/// Restores everything that the plan has; without an archive, there are no rows to read.
async fn run(
    job: Arc<LoadContext>,
    archive: Option<Archive>,
    plan: Plan,
    options: &LoadOptions,
) -> Result<(), RestoreError> {
    let sessions = if job.is_generic_sql {
        1
    } else {
        options.sessions
    };
    let growing = archive.as_ref().is_some_and(Archive::is_script);
    let streams = archive.map_or(vec![], |mut archive| {
        archive.set_read_order(&read_order(&plan, &job.content));
        archive.into_streams(sessions.min(MAX_STREAMS))
    });
    let queue_bytes = options.queue_bytes;
    let work_queue = WorkQueue::new(plan, sessions, queue_bytes, streams.len(), growing);
    let work_queue = Arc::new(work_queue);
    skip_done(&job, &work_queue);
    // Ending this function, for whatever reason, also ends the readers and the sessions.
    let _stop = work_queue.stop_on_drop();
    let mut running = JoinSet::new();
    job.observer.enter(Stage::Schema);
    for stream in streams {
        let (work_queue, job) = (work_queue.clone(), job.clone());
        running.spawn_blocking(move || producer::run(work_queue, job, stream));
    }
    for id in (0..sessions).map(SessionId) {
        running.spawn(session_loop::run(job.clone(), work_queue.clone(), id));
    }
    join(running).await
}

/// Waits for all tasks, or for the first failure.
async fn join(mut running: JoinSet<Result<(), RestoreError>>) -> Result<(), RestoreError> {
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| RestoreError::internal(format!("a load task panicked: {e}")))??;
    }
    Ok(())
}

fn loaded(job: &LoadContext) -> Loaded {
    let totals = &job.totals;
    // The rows of tables that are left out were read, too.
    let left_out = job.left_out.tables(job.content.entries());
    Loaded {
        tables: totals.tables.load(Relaxed).saturating_sub(left_out),
        rows: totals.rows.load(Relaxed),
        bytes: totals.bytes.load(Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work_record::{Body, RowsDone, Spans};

    fn after(body: Body) -> Vec<String> {
        let mut rows = TocEntry::bare(1, "TABLE DATA", "t");
        rows.namespace = Some("s".to_owned());
        let entries = [rows, TocEntry::bare(2, "EVENT TRIGGER", "e")];
        let frozen = RowsDone {
            unit: UnitId(1),
            spans: Spans::default(),
            rows: 1,
            is_frozen: true,
            mask: None,
        };
        let resumed = Resumed::of(Body {
            rows: vec![frozen],
            ..body
        });
        still_off(&entries, &resumed)
    }

    /// A statement of ours must not fire an event trigger of the backup.
    #[test]
    fn autovacuum_is_turned_on_again_before_event_triggers() {
        assert_eq!(after(Body::default()).len(), 1);
        let trigger = vec![(UnitId(2), EntryPart::Whole)];
        assert!(after(Body::of_entries(trigger)).is_empty());
        assert!(after(Body::of_mark(Mark::Loaded)).is_empty());
    }
}

//! Loads an archive into an empty staging database.
//!
//! One thread (of a directory, several) reads the archive forward (`archive`), decompresses it and
//! queues pieces of whole rows; `sessions` connections take pieces as COPY, and indexes and keys as
//! their tables complete. With a table of contents, the order comes from `plan`; of SQL text, from
//! `script`, statement by statement; `schedule` keeps both. `ddl` says what is sent for an entry,
//! `fit` what is sent otherwise than the dump says.

mod advice;
mod append;
mod binary;
mod board;
mod conversion;
mod database_name;
mod ddl;
mod dependence;
mod families;
mod feeder;
mod fit;
mod globals;
mod holds;
mod lane;
mod making;
mod plan;
mod preflight;
mod refusals;
mod roles;
mod schedule;
mod script;
mod select;
mod settle;
mod sorting;
mod spread;
mod tail;
mod turns;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use tracing::Instrument;

use crate::error::{DatabaseError, FailureReason, RestoreError, ValidationError, report};
use crate::policy::Selection;
use crate::postgres::{Server, Session};
use crate::progress::Progress;
use crate::steps::reached;
use board::Board;
use ddl::{DumpSettings, OutputState};
use dependence::Dependence;
use holds::Part;
use making::Batch;
use pgdump_archive::{Archive, Ledger, TextEncoding, TocEntry};
use plan::Plan;
use schedule::Work;
use script::Step;
use spread::{Size, Spread};

pub use append::{Opened, open_tables};
pub use binary::Columns;
pub use conversion::convert_texts;
pub use database_name::that_name_their_database;
pub use fit::{Fit, RULES, Rule};
pub use globals::roles_of;
pub use preflight::{Finding, Level, Needs, preflight};
pub use settle::{Survey, analyze, check, rename_schemas, survey};
pub use tail::{TAIL, roles_at_end};

/// Pre-data entries in one transaction.
const PRE_DATA_BATCH: usize = 200;
/// Threads that read members of a directory at the same time.
const MAX_STREAMS: usize = 16;
/// Names that a note lists.
const LISTED: usize = 50;

/// How one archive is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Connections that load.
    pub sessions: usize,
    /// Bytes of data that may wait in memory between the reader and the connections.
    pub queue_bytes: usize,
    /// Rows of tables of about so many bytes are sent in COPY's binary format, where they can be converted
    /// exactly.
    pub binary_from: Option<usize>,
    /// Uncompressed bytes that the backup may bring.
    pub max_bytes: Option<u64>,
    /// Where the data that passes by is counted, for a comparison afterwards.
    pub ledger: Option<Arc<Ledger>>,
    /// Where rows go into tables that are there already: those whose rows depend on others
    /// ([`Opened::dependent`]).
    pub in_order_into: Option<Arc<HashSet<String>>>,
}

/// Proof that everything in the archive is in the staging database.
#[derive(Debug, Clone, Copy)]
pub struct Loaded {
    pub tables: u64,
    pub rows: u64,
    /// Bytes of table data and large objects, uncompressed.
    pub bytes: u64,
}

/// What is to be restored: entries of a table of contents, or the steps of SQL text as they come.
enum Content {
    Toc(Vec<TocEntry>),
    Script(Mutex<Vec<Option<Arc<Step>>>>),
}

impl Content {
    /// Adds a step and gives its number.
    fn push(&self, step: Step) -> Result<usize, RestoreError> {
        let Content::Script(steps) = self else {
            return Err(RestoreError::internal("a step beside a table of contents"));
        };
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(Some(Arc::new(step)));
        Ok(steps.len() - 1)
    }

    fn dump_id(&self, index: usize) -> Option<i32> {
        let Content::Toc(entries) = self else { return None };
        entries.get(index).map(|e| e.dump_id)
    }

    /// The step of this number; with `last`, nobody asks for it again.
    fn step(&self, index: usize, last: bool) -> Option<Arc<Step>> {
        let Content::Script(steps) = self else { return None };
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        let step = steps.get_mut(index)?;
        if last { step.take() } else { step.clone() }
    }

    /// For people. Statements of SQL text may hold data, so they have no names.
    fn name(&self, index: usize) -> String {
        match self {
            Content::Toc(entries) => entries[index].name(),
            Content::Script(_) => match self.step(index, false).as_deref() {
                Some(Step::Data { entry, .. }) => entry.name(),
                _ => "statements".to_owned(),
            },
        }
    }
}

/// What all sessions of one load share.
struct Job {
    server: Server,
    database: String,
    content: Content,
    encoding: TextEncoding,
    settings: DumpSettings,
    progress: Arc<Progress>,
    fit: Arc<Fit>,
    ledger: Option<Arc<Ledger>>,
    max_bytes: u64,
    binary_from: Option<usize>,
    /// Of nodes with rows, once asked: `None` where they are sent as text.
    columns: Mutex<HashMap<usize, Option<Arc<Columns>>>>,
    /// There are as many sessions as the server has cores.
    fills_server: bool,
    /// SQL text that `pg_dump` did not write: one session runs it in its order.
    is_foreign: bool,
    /// Tables that the server's own vacuum leaves alone until [`Worker::wake`].
    quiet: Mutex<Vec<String>>,
    /// Tables that are there already whose rows depend on others.
    in_order_into: Option<Arc<HashSet<String>>>,
}

/// A session that restores: its output settings are tracked.
struct Worker {
    session: Session,
    output: OutputState,
    script: Arc<script::Settings>,
}

/// What is done before the first statement of the dump.
#[derive(Debug, Default)]
pub struct Prepared {
    /// What is restored of the table of contents, fitted to the server.
    pub entries: Vec<TocEntry>,
    /// What the selection brought along or left out, and what the preflight warns of.
    pub notes: Vec<String>,
    /// Statements that make missing roles.
    pub roles: Vec<String>,
}

/// Takes what `selection` leaves out of the table of contents, compares the rest with the server and
/// fits it. `stored`: bytes of the whole backup.
///
/// # Errors
/// `invalid_request` for a selection that cannot be restored by itself; where the preflight finds
/// that the restore cannot succeed, its reason: `version_incompatible`, `extension_missing`,
/// `role_missing`, `insufficient_privilege`.
pub fn prepare(
    archive: &Archive,
    selection: &Selection,
    stored: Option<u64>,
    fit: &Fit,
) -> Result<Prepared, RestoreError> {
    let mut prepared = Prepared { entries: archive.entries().to_vec(), ..Prepared::default() };
    if !archive.is_script() {
        prepared.notes = select::select(&mut prepared.entries, selection)?;
    } else {
        refusals::check_part_of_text(archive, selection)?;
    }
    refusals::refuse_prepared(&prepared.entries)?;
    let needs = Needs::of(archive, &prepared.entries, stored);
    let findings = preflight(archive, &prepared.entries, &needs, fit);
    let blocking: Vec<&Finding> = findings.iter().filter(|f| f.level == Level::Blocks).collect();
    if let Some(reason) = blocking.iter().find_map(|f| f.reason) {
        let all: Vec<String> =
            blocking.iter().map(|f| format!("{}: {} ({})", f.what, f.consequence, f.fix)).collect();
        return Err(DatabaseError::new(reason, all.join("; ")).into());
    }
    let warned = findings.iter().filter(|f| f.level == Level::Warns);
    prepared.notes.extend(warned.map(|f| format!("{}: {}", f.what, f.consequence)));
    if archive.is_script() {
        // Its statements are fitted one by one, as they come.
        return Ok(prepared);
    }
    // Made before the first statement: an owner may come before a privilege that names the same role.
    let roles = needs.roles_under(fit).into_iter().filter(|r| !fit.has_role(r));
    prepared.roles = roles.map(|r| fit.make_role(r)).collect::<Result<_, _>>()?;
    fit.entries(&mut prepared.entries)?;
    Ok(prepared)
}

/// Restores the `entries` of `archive` into `database`, which must be empty and ours; of SQL text,
/// everything.
///
/// # Errors
/// The first failure, with its entry: `data_rejected`, `role_missing`, `restore_error`, …; the
/// archive's and the download's own errors. The database is then half filled: drop it.
pub async fn load(
    server: &Server,
    database: &str,
    mut archive: Archive,
    entries: Vec<TocEntry>,
    options: LoadOptions,
    fit: Arc<Fit>,
    progress: Arc<Progress>,
) -> Result<Loaded, RestoreError> {
    let is_script = archive.is_script();
    let entries = if is_script { vec![] } else { entries };
    let dependence = match &options.in_order_into {
        Some(tables) => Dependence::of_rows_into(&entries, tables),
        // What is selected may lack functions that it depends on.
        None => Dependence::of(if is_script { &[] } else { archive.entries() }),
    };
    let plan = Plan::new(&entries, &dependence);
    let tables = plan.nodes.iter().filter(|n| entries[n.entry].desc == "TABLE DATA").count() as u64;
    progress.tables.store(tables, Relaxed);
    progress.tasks.store(plan.nodes.iter().filter(|n| !n.is_data).count() as u64, Relaxed);
    let job = Arc::new(Job {
        server: server.clone(),
        database: database.to_owned(),
        settings: DumpSettings::of(&entries),
        encoding: archive.encoding().clone(),
        content: if is_script { Content::Script(Mutex::default()) } else { Content::Toc(entries) },
        progress,
        fills_server: fit.facts.cores.is_some_and(|cores| options.sessions >= cores),
        fit,
        ledger: options.ledger.clone(),
        max_bytes: options.max_bytes.unwrap_or(u64::MAX),
        binary_from: options.binary_from,
        columns: Mutex::default(),
        is_foreign: archive.is_foreign(),
        quiet: Mutex::default(),
        in_order_into: options.in_order_into,
    });

    let turns: HashMap<i32, usize> = plan
        .nodes
        .iter()
        .filter(|n| n.is_data)
        .filter_map(|n| Some((job.content.dump_id(n.entry)?, n.turn)))
        .collect();
    archive.read_in_turns(&turns);
    let sessions = if job.is_foreign { 1 } else { options.sessions };
    let streams = archive.into_streams(sessions.min(MAX_STREAMS));
    let board = Board::new(plan, sessions, options.queue_bytes, streams.len(), is_script);
    let board = Arc::new(board);
    // Whatever ends this function ends the readers and the sessions too.
    let _stop = board.stop_on_drop();
    let mut running = JoinSet::new();
    job.progress.enter("schema");
    for stream in streams {
        let (board, job) = (board.clone(), job.clone());
        running.spawn_blocking(move || feeder::run(board, job, stream));
    }

    for id in 0..sessions {
        running.spawn(run_session(job.clone(), board.clone(), id));
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| RestoreError::internal(format!("a restoring task died: {e}")))??;
    }
    let p = &job.progress;
    Ok(Loaded {
        tables: p.tables_done.load(Relaxed),
        rows: p.rows.load(Relaxed),
        bytes: p.data_bytes.load(Relaxed),
    })
}

impl Job {
    async fn worker(&self) -> Result<Worker, DatabaseError> {
        let session = self.server.connect(&self.database, "restore").await?;
        session.run(&self.settings.session_sql()).await?;
        if self.is_foreign {
            // What pg_dump writes names schemas or sets the path itself; other text counts on the default.
            session.run("RESET search_path; RESET check_function_bodies; RESET row_security").await?;
        }
        if self.fills_server {
            // One core each: helpers would take time from the other sessions.
            session.run("SET max_parallel_maintenance_workers = 0").await?;
        }
        Ok(Worker { session, output: OutputState::new(&self.settings), script: Arc::default() })
    }

    /// Called when everything before the data is there, and when all data has been read.
    fn enter_stage(&self, board: &Board) {
        let (is_made, is_read) = board.change(|s| (s.is_made(), !s.is_stream_open()));
        if is_made && matches!(self.content, Content::Toc(_)) {
            self.progress.advance("schema", "data");
        }
        if is_made && is_read {
            self.progress.advance("data", "indexes");
        }
    }

    fn quiet(&self) -> MutexGuard<'_, Vec<String>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn columns(&self) -> MutexGuard<'_, HashMap<usize, Option<Arc<Columns>>>> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry whose data a lane loads.
    fn data_entry(&self, index: usize) -> Result<TocEntry, RestoreError> {
        if let Content::Toc(entries) = &self.content {
            return Ok(entries[index].clone());
        }
        match self.content.step(index, false).as_deref() {
            Some(Step::Data { entry, .. }) => Ok((**entry).clone()),
            _ => Err(RestoreError::internal("data of a step that has none")),
        }
    }
}

/// Entries that are each made at once.
fn whole(indices: &[usize]) -> Vec<(usize, Part)> {
    indices.iter().map(|i| (*i, Part::Whole)).collect()
}

impl Worker {
    /// Brings the session's settings to what the data of `index` needs.
    async fn before_data(&mut self, job: &Job, index: usize, entry: &TocEntry) -> Result<(), RestoreError> {
        let settings = match job.content.step(index, false).as_deref() {
            Some(Step::Data { settings, .. }) => self.script_settings(settings),
            _ => self.output.sql_before_data(entry),
        };
        if !settings.is_empty() {
            self.session.run(&conversion::sendable(settings, &job.encoding)).await?;
        }
        Ok(())
    }

    fn script_settings(&mut self, wanted: &Arc<script::Settings>) -> String {
        let sql = wanted.after(&self.script);
        self.script = wanted.clone();
        sql
    }

    /// Gives tables that were left alone back to the server's own vacuum.
    async fn wake(&mut self, job: &Job) -> Result<(), DatabaseError> {
        let quiet = std::mem::take(&mut *job.quiet());
        for batch in quiet.chunks(PRE_DATA_BATCH) {
            let mut sql = vec!["BEGIN".to_owned()];
            sql.extend(batch.iter().map(|t| format!("ALTER TABLE ONLY {t} RESET (autovacuum_enabled)")));
            sql.push("COMMIT".to_owned());
            self.session.pipeline(&sql).await.map_err(|(_, e)| e.context("settings of tables"))?;
        }
        Ok(())
    }

    /// Makes a batch of what comes before the data; returns the entries that are left of it.
    async fn make(&mut self, job: &Job, batch: &Batch) -> Result<Vec<usize>, RestoreError> {
        let mut left = batch.entries.as_slice();
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(PRE_DATA_BATCH));
            let before = self.output.clone();
            if let Err(e) = self.tasks(job, &whole(now), Size::default()).await {
                if !batch.may_fail {
                    return Err(e);
                }
                tracing::debug!(error = report(&e), "made in the archive's order instead");
                self.session.run("ROLLBACK").await.map_err(|_| e)?;
                self.output = before;
                break;
            }
            left = later;
        }
        Ok(left.to_vec())
    }

    /// Runs what these are made by, in one transaction.
    async fn tasks(&mut self, job: &Job, tasks: &[(usize, Part)], size: Size) -> Result<(), RestoreError> {
        let (mut sql, mut names): (Vec<String>, Vec<String>) = Default::default();
        let mut steps = vec![];
        for (index, part) in tasks.iter().copied() {
            if let Content::Toc(entries) = &job.content {
                sql.push(self.output.sql_for_part(&entries[index], part, entries));
                names.push(entries[index].name());
            } else {
                steps.extend(job.content.step(index, true));
            }
        }
        let (mut bare, mut rooms) = (false, vec![]);
        for step in steps {
            // Nobody else asks for it any more: what may be large is not copied.
            let Ok(Step::Statements(step)) = Arc::try_unwrap(step) else { continue };
            sql.push(self.script_settings(&step.settings));
            names.push("settings".to_owned());
            let words = |sql: &str| job.encoding.for_people(&first_words(sql));
            names.extend(step.list.iter().map(|s| format!("line {}: {}", s.line, words(&s.text))));
            sql.extend(step.list.into_iter().map(|s| conversion::sendable(s.text, &job.encoding)));
            bare |= step.bare;
            rooms.push(step.room);
        }
        if bare {
            let failed = |(at, e)| of_statement(advice::with_advice(e, None), &names, at);
            return self.session.pipeline_of(sql).await.map_err(failed);
        }
        let mut begin = vec!["BEGIN".to_owned()];
        if size.spread != Spread::No {
            begin.push("SET LOCAL max_parallel_maintenance_workers TO DEFAULT".to_owned());
        }
        if job.fills_server && size.spread != Spread::Now {
            // With so little, the server takes no helpers.
            begin.extend(sql.iter().find_map(|sql| sorting::memory_for(sql, size.rows)));
        }
        let mut sql: Vec<String> =
            sql.into_iter().map(|sql| conversion::sendable(sql, &job.encoding)).collect();
        sql.insert(0, begin.join("; "));
        names.insert(0, "begin of a transaction".to_owned());
        sql.push("COMMIT".to_owned());
        self.session.pipeline_of(sql).await.map_err(|(at, e)| {
            let entry = match (&job.content, at.checked_sub(1).and_then(|i| tasks.get(i))) {
                (Content::Toc(entries), Some((index, _))) => Some(&entries[*index]),
                _ => None,
            };
            of_statement(advice::with_advice(e, entry), &names, at)
        })
    }
}

/// A note that names things; `None` for none.
pub fn listed(what: &str, names: &[String]) -> Option<String> {
    let more = names.len().saturating_sub(LISTED);
    let first = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("{what}: {first}{rest}"))
}

/// The error of one of several statements.
fn of_statement(e: DatabaseError, names: &[String], at: usize) -> RestoreError {
    e.context(names.get(at).map_or("end of a transaction", String::as_str)).into()
}

/// What a statement begins with, without any value.
fn first_words(sql: &str) -> String {
    let line = sql.lines().next().unwrap_or_default();
    line.split('\'').next().unwrap_or_default().chars().take(80).collect()
}

async fn run_session(job: Arc<Job>, board: Arc<Board>, id: usize) -> Result<(), RestoreError> {
    let mut worker = job.worker().await?;
    loop {
        match board.next_work(id).await? {
            Work::Make { batch, what } => {
                let made = worker.make(&job, &what).await;
                let left = made.map_err(|e| of_stage(e, "schema"))?;
                reached("schema");
                if board.change(|s| s.made(batch, left)) {
                    job.enter_stage(&board);
                }
            }
            Work::Lane { node, first } => {
                job.progress.advance("schema", "data");
                reached("lane");
                let index = board.entry_of(node);
                let entry = job.data_entry(index)?;
                let name = entry.name();
                let span = span_of(&job, &name);
                let load = async {
                    worker.before_data(&job, index, &entry).await?;
                    lane::run(&job, &board, &worker.session, &entry, (node, id), first).await
                };
                let rows = load.instrument(span.clone()).await.map_err(|e| said_of(e, &name))?;
                span.record("rows", rows);
                job.progress.rows.fetch_add(rows, Relaxed);
                board.change(|s| s.lane_done(node, rows));
            }
            Work::Tasks { nodes, size } => {
                reached("task");
                let (tasks, sees_all) = board.change(|s| {
                    let tasks: Vec<(usize, Part)> =
                        nodes.iter().map(|n| (s.node(*n).entry, s.part(*n))).collect();
                    (tasks, s.node(nodes[0]).pass.sees_all())
                });
                if sees_all {
                    worker.wake(&job).await?;
                }
                let first = job.content.name(tasks[0].0);
                let name = match tasks.len() - 1 {
                    0 => first,
                    more => format!("{first} and {more} more"),
                };
                worker.tasks(&job, &tasks, size).instrument(span_of(&job, &name)).await?;
                let done = tasks.iter().filter(|(_, part)| *part != Part::Index).count();
                job.progress.tasks_done.fetch_add(done as u64, Relaxed);
                board.change(|s| s.tasks_done(&nodes));
            }
            Work::Finished => return Ok(worker.wake(&job).await?),
            Work::Stuck(node) => {
                let index = board.entry_of(node);
                let what = format!("entries wait for each other: {}", job.content.name(index));
                return Err(ValidationError::new(FailureReason::ArchiveCorrupt, what).into());
            }
            Work::Wait => {}
        }
    }
}

/// What one session does for one entry, in the trace.
fn span_of(job: &Job, name: &str) -> tracing::Span {
    tracing::info_span!(parent: job.progress.span(), "entry", otel.name = name, rows = tracing::field::Empty)
}

fn said_of(e: RestoreError, what: &str) -> RestoreError {
    match e {
        RestoreError::Database(e) => advice::with_advice(e, None).context(what).in_stage("data").into(),
        other => other,
    }
}

/// A refusal of the server, in a stage that other sessions may have left already.
fn of_stage(e: RestoreError, stage: &'static str) -> RestoreError {
    match e {
        RestoreError::Database(e) => e.in_stage(stage).into(),
        other => other,
    }
}

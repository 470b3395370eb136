//! Loads an archive into an empty staging database.
//!
//! One thread (of a directory, several) reads the archive forward (`archive`), decompresses it and
//! queues pieces of whole rows; `sessions` connections take pieces as COPY, and indexes and keys as
//! their tables complete. With a table of contents, the order comes from `plan`; of SQL text, from
//! `script`, statement by statement; `schedule` keeps both. `ddl` says what is sent for an entry,
//! `fit` what is sent otherwise than the dump says.

mod append;
mod board;
mod ddl;
mod feeder;
mod fit;
mod globals;
mod lane;
mod plan;
mod preflight;
mod roles;
mod schedule;
mod script;
mod select;
mod settle;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use tracing::Instrument;

use crate::archive::{Archive, Ledger, TextEncoding, TocEntry};
use crate::error::{DatabaseError, FailureReason, RestoreError, ValidationError};
use crate::policy::Selection;
use crate::postgres::{Server, Session};
use crate::progress::Progress;
use crate::steps::reached;
use board::Board;
use ddl::{DumpSettings, OutputState};
use plan::Plan;
use schedule::Work;
use script::Step;

pub use append::{Opened, open_tables};
pub use fit::{Fit, RULES, Rule};
pub use globals::roles_of;
pub use preflight::{Finding, Level, Needs, preflight};
pub use settle::{Survey, analyze, check, rename_schemas, survey};

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
    /// Uncompressed bytes that the backup may bring.
    pub max_bytes: Option<u64>,
    /// Where the data that passes by is counted, for a comparison afterwards.
    pub ledger: Option<Arc<Ledger>>,
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
    } else if !selection.is_everything() {
        let what = "a part can be restored only of an archive with a table of contents (pg_dump -Fc, -Fd, -Ft), \
                    not of SQL text";
        return Err(ValidationError::new(FailureReason::InvalidRequest, what).into());
    }
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
    archive: Archive,
    entries: Vec<TocEntry>,
    options: LoadOptions,
    fit: Arc<Fit>,
    progress: Arc<Progress>,
) -> Result<Loaded, RestoreError> {
    let is_script = archive.is_script();
    let entries = if is_script { vec![] } else { entries };
    let mut plan = Plan::new(&entries);
    let pre_data = std::mem::take(&mut plan.pre_data);
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
        fit,
        ledger: options.ledger.clone(),
        max_bytes: options.max_bytes.unwrap_or(u64::MAX),
    });

    let streams = archive.into_streams(options.sessions.min(MAX_STREAMS));
    let board = Board::new(plan, options.sessions, options.queue_bytes, streams.len(), is_script);
    let board = Arc::new(board);
    // Whatever ends this function ends the readers and the sessions too.
    let _stop = board.stop_on_drop();
    let mut running = JoinSet::new();
    for stream in streams {
        let (board, job) = (board.clone(), job.clone());
        running.spawn_blocking(move || feeder::run(board, job, stream));
    }

    job.progress.enter("schema");
    let mut ready = None;
    if !is_script {
        let first = job.worker().await?;
        ready = Some(run_pre_data(&job, first, &pre_data).await?);
        reached("schema");
        job.progress.enter("data");
        if !board.change(|s| s.is_stream_open()) {
            // A small archive was read to its end while its schema was made.
            job.progress.enter("indexes");
        }
    }
    for id in 0..options.sessions {
        running.spawn(run_session(job.clone(), board.clone(), id, ready.take()));
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
        Ok(Worker { session, output: OutputState::new(&self.settings), script: Arc::default() })
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

async fn run_pre_data(job: &Job, mut worker: Worker, pre_data: &[usize]) -> Result<Worker, RestoreError> {
    let Content::Toc(entries) = &job.content else { return Ok(worker) };
    for batch in pre_data.chunks(PRE_DATA_BATCH) {
        let mut sql = vec!["BEGIN".to_owned()];
        sql.extend(batch.iter().map(|i| worker.output.sql_for(&entries[*i], entries)));
        sql.push("COMMIT".to_owned());
        worker.session.pipeline(&sql).await.map_err(|(at, e)| {
            let entry = at.checked_sub(1).and_then(|i| batch.get(i));
            e.context(&entry.map_or_else(|| "end of a transaction".to_owned(), |i| entries[*i].name()))
        })?;
    }
    Ok(worker)
}

impl Worker {
    /// Brings the session's settings to what the data of `index` needs.
    async fn before_data(&mut self, job: &Job, index: usize, entry: &TocEntry) -> Result<(), RestoreError> {
        let settings = match job.content.step(index, false).as_deref() {
            Some(Step::Data { settings, .. }) => self.script_settings(settings),
            _ => self.output.sql_before_data(entry),
        };
        if !settings.is_empty() {
            self.session.run(&settings).await?;
        }
        Ok(())
    }

    fn script_settings(&mut self, wanted: &Arc<script::Settings>) -> String {
        let sql = wanted.after(&self.script);
        self.script = wanted.clone();
        sql
    }

    async fn task(&mut self, job: &Job, index: usize) -> Result<(), RestoreError> {
        if let Content::Toc(entries) = &job.content {
            let sql = self.output.sql_for(&entries[index], entries);
            return Ok(self.session.run(&sql).await.map_err(|e| e.context(&entries[index].name()))?);
        }
        let step = job.content.step(index, true);
        let Some(Step::Statements { list, settings, .. }) = step.as_deref() else { return Ok(()) };
        let mut sql = vec![format!("{}BEGIN", self.script_settings(settings))];
        sql.extend(list.iter().map(|s| s.text.clone()));
        sql.push("COMMIT".to_owned());
        let sent = self.session.pipeline(&sql).await;
        sent.map_err(|(at, e)| match at.checked_sub(1).and_then(|i| list.get(i)) {
            Some(s) => e.context(&format!("line {}: {}", s.line, first_words(&s.text))).into(),
            None => RestoreError::from(e),
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

/// What a statement begins with, without any value.
fn first_words(sql: &str) -> String {
    let line = sql.lines().next().unwrap_or_default();
    line.split('\'').next().unwrap_or_default().chars().take(80).collect()
}

async fn run_session(
    job: Arc<Job>,
    board: Arc<Board>,
    id: usize,
    worker: Option<Worker>,
) -> Result<(), RestoreError> {
    let mut worker = match worker {
        Some(w) => w,
        None => job.worker().await?,
    };
    loop {
        match board.next_work(id).await? {
            Work::Lane(node) => {
                reached("lane");
                let index = board.entry_of(node);
                let entry = job.data_entry(index)?;
                let name = entry.name();
                let span = span_of(&job, &name);
                let load = async {
                    worker.before_data(&job, index, &entry).await?;
                    lane::run(&job, &board, &worker.session, &entry, (node, id)).await
                };
                let rows = load.instrument(span.clone()).await.map_err(|e| said_of(e, &name))?;
                span.record("rows", rows);
                job.progress.rows.fetch_add(rows, Relaxed);
                board.change(|s| s.lane_done(node));
            }
            Work::Task(node) => {
                reached("task");
                let index = board.entry_of(node);
                worker.task(&job, index).instrument(span_of(&job, &job.content.name(index))).await?;
                job.progress.tasks_done.fetch_add(1, Relaxed);
                board.change(|s| s.task_done(node));
            }
            Work::Finished => return Ok(()),
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
        RestoreError::Database(e) => e.context(what).into(),
        other => other,
    }
}

//! Loads an archive into an empty staging database.
//!
//! One thread reads the archive forward (`archive`), decompresses it and queues pieces of whole
//! rows; `sessions` connections take pieces as COPY, and indexes and keys as their tables complete.
//! The order comes from `plan` and `schedule`, both pure; `ddl` says what is sent for an entry.

mod board;
mod ddl;
mod lane;
mod plan;
mod schedule;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::JoinSet;

use crate::archive::{CustomArchive, TextEncoding, TocEntry};
use crate::error::{DatabaseError, FailureReason, RestoreError, ValidationError};
use crate::postgres::{Server, Session};
use crate::progress::Progress;
use board::{Board, Feeder};
use ddl::{DumpSettings, OutputState};
use plan::Plan;
use schedule::Work;

/// Pre-data entries in one transaction.
const PRE_DATA_BATCH: usize = 200;

/// How one archive is loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Connections that load.
    pub sessions: usize,
    /// Bytes of data that may wait in memory between the reader and the connections.
    pub queue_bytes: usize,
}

/// Proof that everything in the archive is in the staging database.
#[derive(Debug, Clone, Copy)]
pub struct Loaded {
    pub tables: u64,
    pub rows: u64,
    /// Bytes of table data and large objects, uncompressed.
    pub bytes: u64,
}

/// What all sessions of one load share.
struct Job {
    server: Server,
    database: String,
    entries: Vec<TocEntry>,
    encoding: TextEncoding,
    settings: DumpSettings,
    progress: Arc<Progress>,
}

/// A session that restores: its output settings are tracked.
struct Worker {
    session: Session,
    output: OutputState,
}

/// Restores everything in `archive` into `database`, which must be empty and ours.
///
/// # Errors
/// The first failure, with its entry: `data_rejected`, `role_missing`, `restore_error`, …; the
/// archive's and the download's own errors. The database is then half filled: drop it.
pub async fn load<R: Read + Send + 'static>(
    server: &Server,
    database: &str,
    archive: CustomArchive<R>,
    options: LoadOptions,
    progress: Arc<Progress>,
) -> Result<Loaded, RestoreError> {
    let entries = archive.entries().to_vec();
    let plan = Plan::new(&entries);
    let tables = plan.nodes.iter().filter(|n| entries[n.entry].desc == "TABLE DATA").count() as u64;
    progress.tables.store(tables, Relaxed);
    progress.tasks.store(plan.nodes.iter().filter(|n| !n.is_data).count() as u64, Relaxed);
    let job = Arc::new(Job {
        server: server.clone(),
        database: database.to_owned(),
        settings: DumpSettings::of(&entries),
        encoding: archive.encoding().clone(),
        entries,
        progress,
    });

    let pre_data = plan.pre_data.clone();
    let board = Arc::new(Board::new(plan, options));
    // Whatever ends this function ends the reader and the sessions too.
    let _stop = board.stop_on_drop();
    let feeder = Feeder::new(board.clone(), job.clone());
    let mut running = JoinSet::new();
    running.spawn_blocking(move || feeder.run(archive));

    job.progress.enter("schema");
    let first = job.worker().await?;
    let first = run_pre_data(&job, first, &pre_data).await?;
    job.progress.enter("data");
    if !board.change(|s| s.is_stream_open()) {
        // A small archive was read to its end while its schema was made.
        job.progress.enter("indexes");
    }
    let mut ready = Some(first);
    for id in 0..options.sessions {
        running.spawn(run_session(job.clone(), board.clone(), id, ready.take()));
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| RestoreError::internal(format!("a restoring task died: {e}")))??;
    }
    let p = &job.progress;
    Ok(Loaded { tables, rows: p.rows.load(Relaxed), bytes: p.data_bytes.load(Relaxed) })
}

impl Job {
    async fn worker(&self) -> Result<Worker, DatabaseError> {
        let session = self.server.connect(&self.database, "restore").await?;
        session.run(&self.settings.session_sql()).await?;
        Ok(Worker { session, output: OutputState::new(&self.settings) })
    }

    fn name_of(&self, entry: usize) -> String {
        let e = &self.entries[entry];
        match &e.namespace {
            Some(schema) => format!("{} {schema}.{}", e.desc, e.tag),
            None => format!("{} {}", e.desc, e.tag),
        }
    }
}

async fn run_pre_data(job: &Job, mut worker: Worker, pre_data: &[usize]) -> Result<Worker, RestoreError> {
    for batch in pre_data.chunks(PRE_DATA_BATCH) {
        let mut statements = vec!["BEGIN".to_owned()];
        statements.extend(batch.iter().map(|i| worker.output.sql_for(&job.entries[*i], &job.entries)));
        statements.push("COMMIT".to_owned());
        worker.session.pipeline(&statements).await.map_err(|(at, e)| {
            let entry = at.checked_sub(1).and_then(|i| batch.get(i));
            e.context(&entry.map_or_else(|| "end of a transaction".to_owned(), |i| job.name_of(*i)))
        })?;
    }
    Ok(worker)
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
                let entry = board.entry_of(node);
                let settings = worker.output.sql_before_data(&job.entries[entry]);
                if !settings.is_empty() {
                    worker.session.run(&settings).await?;
                }
                let rows = lane::run(&job, &board, &worker.session, node, id)
                    .await
                    .map_err(|e| said_of(e, &job.name_of(entry)))?;
                job.progress.rows.fetch_add(rows, Relaxed);
                board.change(|s| s.lane_done(node));
            }
            Work::Task(node) => {
                let entry = board.entry_of(node);
                let sql = worker.output.sql_for(&job.entries[entry], &job.entries);
                worker.session.run(&sql).await.map_err(|e| e.context(&job.name_of(entry)))?;
                job.progress.tasks_done.fetch_add(1, Relaxed);
                board.change(|s| s.task_done(node));
            }
            Work::Finished => return Ok(()),
            Work::Stuck(node) => {
                let what = format!("entries wait for each other: {}", job.name_of(board.entry_of(node)));
                return Err(ValidationError::new(FailureReason::ArchiveCorrupt, what).into());
            }
            Work::Wait => {}
        }
    }
}

fn said_of(e: RestoreError, what: &str) -> RestoreError {
    match e {
        RestoreError::Database(e) => e.context(what).into(),
        other => other,
    }
}

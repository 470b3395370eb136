//! Loads an archive into an empty staging database, with readers, sessions and a work queue between them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use pgdump_archive::{Archive, ContentDigest, TocEntry};
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::context::{LoadContent, LoadContext, Totals};
use crate::ddl::DumpSettings;
use crate::dependence::Dependence;
use crate::error::{FailureReason, RestoreError, ValidationError};
use crate::locks::ConstraintStep;
use crate::observer::LoadObserver;
use crate::plan::Plan;
use crate::postgres::Server;
use crate::rewrite::Rewriter;
use crate::schedule::SessionWork;
use crate::session::RestoreSession;
use crate::steps::reached;
use crate::work_queue::WorkQueue;
use crate::{copy, hints, producer};

/// Most threads that read members of a directory concurrently.
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
}

/// Proof that everything in the archive is in the staging database.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Loaded {
    pub tables: u64,
    pub rows: u64,
    /// Uncompressed bytes of table data and large objects.
    pub bytes: u64,
}

/// Restores the `entries` of `archive` (all of SQL text) into `database`, which must be empty and owned by this
/// restore.
///
/// # Errors
/// The first failure, with its entry: `data_rejected`, `role_missing`, `restore_error`, …; errors of the
/// archive and the download. The database is then partly filled: drop it.
pub async fn load(
    server: &Server,
    database: &str,
    mut archive: Archive,
    entries: Vec<TocEntry>,
    options: LoadOptions,
    rewriter: Arc<Rewriter>,
    observer: Arc<dyn LoadObserver>,
) -> Result<Loaded, RestoreError> {
    let is_script = archive.is_script();
    let entries = if is_script { vec![] } else { entries };
    let dependence = match &options.in_order_into {
        Some(tables) => Dependence::of_rows_into(&entries, tables),
        // The selection may lack functions that its entries depend on.
        None => Dependence::of(if is_script { &[] } else { archive.entries() }),
    };
    let plan = Plan::new(&entries, &dependence);
    let tables = plan
        .nodes
        .iter()
        .filter(|n| entries[n.entry].desc == "TABLE DATA")
        .count() as u64;
    observer.planned(
        tables,
        plan.nodes.iter().filter(|n| !n.is_data).count() as u64,
    );
    let job = Arc::new(LoadContext {
        server: server.clone(),
        database: database.to_owned(),
        settings: DumpSettings::of(&entries),
        encoding: archive.encoding().clone(),
        content: if is_script {
            LoadContent::Script(Mutex::default())
        } else {
            LoadContent::Toc(entries)
        },
        observer,
        totals: Totals::default(),
        fills_server: rewriter
            .facts
            .cores
            .is_some_and(|cores| options.sessions >= cores),
        rewriter,
        content_digest: options.content_digest.clone(),
        max_bytes: options.max_bytes.unwrap_or(u64::MAX),
        binary_from: options.binary_from,
        columns: Mutex::default(),
        is_generic_sql: archive.is_generic_sql(),
        autovacuum_off: Mutex::default(),
        in_order_into: options.in_order_into,
    });

    let turns: HashMap<i32, usize> = plan
        .nodes
        .iter()
        .filter(|n| n.is_data)
        .filter_map(|n| Some((job.content.dump_id(n.entry)?, n.turn)))
        .collect();
    archive.set_read_order(&turns);
    let sessions = if job.is_generic_sql {
        1
    } else {
        options.sessions
    };
    let streams = archive.into_streams(sessions.min(MAX_STREAMS));
    let work_queue = WorkQueue::new(
        plan,
        sessions,
        options.queue_bytes,
        streams.len(),
        is_script,
    );
    let work_queue = Arc::new(work_queue);
    // Ending this function, for whatever reason, also ends the readers and the sessions.
    let _stop = work_queue.stop_on_drop();
    let mut running = JoinSet::new();
    job.observer.enter("schema");
    for stream in streams {
        let (work_queue, job) = (work_queue.clone(), job.clone());
        running.spawn_blocking(move || producer::run(work_queue, job, stream));
    }

    for id in 0..sessions {
        running.spawn(run_session(job.clone(), work_queue.clone(), id));
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| RestoreError::internal(format!("a load task panicked: {e}")))??;
    }
    let totals = &job.totals;
    Ok(Loaded {
        tables: totals.tables.load(Relaxed),
        rows: totals.rows.load(Relaxed),
        bytes: totals.bytes.load(Relaxed),
    })
}

async fn run_session(
    job: Arc<LoadContext>,
    work_queue: Arc<WorkQueue>,
    id: usize,
) -> Result<(), RestoreError> {
    let mut session = RestoreSession::open(&job).await?;
    loop {
        match work_queue.next_work(id).await? {
            SessionWork::Make { batch, what } => {
                let made = session.make(&job, &what).await;
                let left = made.map_err(|e| of_stage(e, "schema"))?;
                reached("schema");
                if work_queue.change(|s| s.batch_done(batch, left)) {
                    job.enter_stage(&work_queue);
                }
            }
            SessionWork::Copy { node, first } => {
                job.observer.advance("schema", "data");
                reached("lane");
                let index = work_queue.entry_of(node);
                let entry = job.data_entry(index)?;
                let name = entry.name();
                let span = span_of(&job, &name);
                let load = async {
                    session.before_data(&job, index, &entry).await?;
                    copy::run(
                        &job,
                        &work_queue,
                        &session.session,
                        &entry,
                        (node, id),
                        first,
                    )
                    .await
                };
                let rows = load
                    .instrument(span.clone())
                    .await
                    .map_err(|e| with_context(e, &name))?;
                span.record("rows", rows);
                job.rows_loaded(rows);
                work_queue.change(|s| s.copier_done(node, rows));
            }
            SessionWork::Tasks { nodes, size } => {
                reached("task");
                let (tasks, affects_later_entries) = work_queue.change(|s| {
                    let tasks: Vec<(usize, ConstraintStep)> = nodes
                        .iter()
                        .map(|n| (s.node(*n).entry, s.part(*n)))
                        .collect();
                    (tasks, s.node(nodes[0]).pass.affects_later_entries())
                });
                if affects_later_entries {
                    session.reenable_autovacuum(&job).await?;
                }
                let first = job.content.name(tasks[0].0);
                let name = match tasks.len() - 1 {
                    0 => first,
                    more => format!("{first} and {more} more"),
                };
                session
                    .tasks(&job, &tasks, size)
                    .instrument(span_of(&job, &name))
                    .await?;
                let done = tasks
                    .iter()
                    .filter(|(_, part)| *part != ConstraintStep::Index)
                    .count();
                job.observer.tasks_done(done as u64);
                work_queue.change(|s| s.tasks_done(&nodes));
            }
            SessionWork::Finished => return Ok(session.reenable_autovacuum(&job).await?),
            SessionWork::Stuck(node) => {
                let index = work_queue.entry_of(node);
                let what = format!("entries wait for each other: {}", job.content.name(index));
                return Err(ValidationError::new(FailureReason::ArchiveCorrupt, what).into());
            }
            SessionWork::Wait => {}
        }
    }
}

/// The trace span of one session's work on one entry.
fn span_of(job: &LoadContext, name: &str) -> tracing::Span {
    tracing::info_span!(parent: job.observer.span(), "entry", otel.name = name, rows = tracing::field::Empty)
}

fn with_context(e: RestoreError, what: &str) -> RestoreError {
    match e {
        RestoreError::Database(e) => hints::with_hint(e, None)
            .context(what)
            .in_stage("data")
            .into(),
        other => other,
    }
}

/// A server error of a stage that other sessions may have left already.
fn of_stage(e: RestoreError, stage: &'static str) -> RestoreError {
    match e {
        RestoreError::Database(e) => e.in_stage(stage).into(),
        other => other,
    }
}

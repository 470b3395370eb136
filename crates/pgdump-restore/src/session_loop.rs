//! What each session of a load does: takes work from the queue until everything is restored.

use crate::stage::Stage;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tracing::Instrument;

use crate::copy::CopyTask;
use crate::error::{DatabaseError, DatabaseKind, RestoreError, ValidationError, ValidationKind};
use crate::fixes::shell_quoted;
use crate::hints;
use crate::ids::{BatchId, EntryIndex, NodeId, SessionId};
use crate::load_context::LoadContext;
use crate::parallelism::TaskCost;
use crate::plan::RestorePass;
use crate::pre_data::PreDataBatch;
use crate::refusals::is_refusal;
use crate::schedule::{CopyStart, Schedule, SessionWork};
use crate::session::{RestoreSession, Task};
use crate::steps::reached;
use crate::table_locks::ConstraintStep;
use crate::work_queue::WorkQueue;
use pgdump_archive::TocEntry;

struct SessionLoop {
    job: Arc<LoadContext>,
    work_queue: Arc<WorkQueue>,
    id: SessionId,
    session: RestoreSession,
}

/// Connects, and works until everything is restored.
pub(crate) async fn run(
    job: Arc<LoadContext>,
    work_queue: Arc<WorkQueue>,
    id: SessionId,
) -> Result<(), RestoreError> {
    reached("session");
    let session = RestoreSession::open(&job, id).await?;
    let this = SessionLoop {
        job,
        work_queue,
        id,
        session,
    };
    this.run().await
}

impl SessionLoop {
    async fn run(mut self) -> Result<(), RestoreError> {
        loop {
            let work = self.work_queue.next_work(self.id).await?;
            self.session.renew(&self.job).await?;
            match work {
                SessionWork::Make { batch, what } => self.create(batch, &what).await?,
                SessionWork::Copy { node, start } => self.copy(node, start).await?,
                SessionWork::Tasks { nodes, size } => self.run_tasks(&nodes, size).await?,
                SessionWork::Finished => {
                    self.session.reenable_autovacuum(&self.job).await?;
                    return self.stop_if_refused();
                }
                SessionWork::Stuck(node) => return Err(self.dependency_cycle(node)),
                SessionWork::Wait => {}
            }
        }
    }

    async fn create(&mut self, batch: BatchId, what: &PreDataBatch) -> Result<(), RestoreError> {
        let made = self.session.make(&self.job, what).await;
        let left = made.map_err(|e| of_stage(e, Stage::Schema))?;
        reached("schema");
        if self.work_queue.change(|s| s.batch_done(batch, left)) {
            if let Some(e) = self.job.left_out.take_error() {
                return Err(e.in_stage(Stage::Schema).into());
            }
            self.job.enter_stage(&self.work_queue);
        }
        Ok(())
    }

    async fn copy(&mut self, node: NodeId, start: CopyStart) -> Result<(), RestoreError> {
        self.job.observer.advance(Stage::Schema, Stage::Data);
        reached("copy");
        let index = self.work_queue.entry_of(node);
        let entry = self.job.data_entry(index)?;
        if self.job.is_before_rows_of_text() {
            self.stop_if_refused()?;
        }
        if self.job.left_out.is_stopping() || self.leaves_out((node, index), &entry).await? {
            self.discard(node);
            return Ok(());
        }
        self.job.totals.has_begun.store(true, Relaxed);
        self.job.name_table_of(index, &entry);
        let name = entry.name();
        let span = span_of(&self.job, &name);
        let load = self.load(node, index, &entry, start);
        let rows = match load.instrument(span.clone()).await {
            Ok(rows) => rows,
            Err(e) => return Err(with_context(self.explained(e, &entry).await, &name)),
        };
        span.record("rows", rows);
        self.job.rows_loaded(&entry.qualified_name(), rows);
        self.work_queue.change(|s| s.copier_done(node, rows));
        Ok(())
    }

    /// Whether the rows of a node are left out, because they have no table to go to.
    async fn leaves_out(
        &mut self,
        (node, index): (NodeId, EntryIndex),
        entry: &TocEntry,
    ) -> Result<bool, RestoreError> {
        if let Some(decided) = self.job.left_out.decided(node) {
            return Ok(decided);
        }
        let path = self.job.search_path_of(index);
        let lacks = match self.job.lacks_table(entry, &path) {
            Some(known) => known,
            None => {
                // A name of SQL text may have no schema.
                self.session.before_data(&self.job, index, entry).await?;
                self.job.lacks_table_in(&self.session.session, entry).await
            }
        };
        Ok(self.job.decide_rows((node, index), entry, lacks))
    }

    /// Drops the rows that have arrived for a table that is left out. It does not wait for more, because the session may
    /// have other work.
    fn discard(&self, node: NodeId) {
        while self.work_queue.take_queued(node, self.id).is_some() {}
        self.work_queue.change(|s| s.copier_done(node, 0));
    }

    /// The same error. Keys that are taken may be those of rows that the target had before, or that an extension creates.
    async fn explained(&self, e: RestoreError, entry: &TocEntry) -> RestoreError {
        let e = match e {
            RestoreError::Database(e) if is_conflict(&e) => e,
            other => return other,
        };
        if self.job.had_rows(entry).await {
            return rows_exist(&e, WERE_THERE).into();
        }
        match self.job.extension_of(entry).await {
            Some(extension) => rows_exist(&e, &are_of_extension(&extension, entry)).into(),
            None if self.job.left_out.are_for_existing(entry) => {
                e.followed_by(&are_for_existing(entry)).into()
            }
            None => e.into(),
        }
    }

    /// Loads a share of the node's data; returns the number of rows.
    async fn load(
        &mut self,
        node: NodeId,
        index: EntryIndex,
        entry: &TocEntry,
        start: CopyStart,
    ) -> Result<u64, RestoreError> {
        self.session.before_data(&self.job, index, entry).await?;
        let task = CopyTask {
            job: &self.job,
            work_queue: &self.work_queue,
            session: &self.session.session,
            entry,
            node,
            id: self.id,
            // A table that was there may have rows.
            start: if self.job.left_out.are_for_existing(entry) {
                CopyStart::Shared
            } else {
                start
            },
            in_order: self.work_queue.is_in_order(node),
            mask: self.job.mask_of(index, entry)?,
        };
        task.run().await
    }

    async fn run_tasks(&mut self, nodes: &[NodeId], size: TaskCost) -> Result<(), RestoreError> {
        reached("task");
        let find = |s: &mut Schedule<_>| (tasks_of(s, nodes), s.node(nodes[0]).pass);
        let (tasks, pass) = self.work_queue.change(find);
        let size = TaskCost {
            // The cost of queries is unknown.
            is_long: size.is_long || pass == RestorePass::Refresh,
            ..size
        };
        if pass.affects_later_entries() {
            self.session.reenable_autovacuum(&self.job).await?;
        }
        self.job.observer.task_begun();
        let span = span_of(&self.job, &self.name_of(&tasks));
        let work = self.session.tasks(&self.job, &tasks, size);
        let ran = work.instrument(span).await;
        if self.job.is_before_rows_of_text() {
            // It may be a consequence of what was refused before.
            if matches!(&ran, Err(RestoreError::Database(e)) if is_refusal(e)) {
                self.stop_if_refused()?;
            }
            ran.map_err(|e| of_stage(e, Stage::Schema))?;
        } else {
            ran?;
            if self.job.left_out.is_stopping() {
                return self.stop().await;
            }
        }
        let done = tasks.iter().filter(|t| t.step != ConstraintStep::Index);
        self.job.observer.tasks_done(done.count() as u64);
        self.work_queue.change(|s| s.tasks_done(nodes));
        Ok(())
    }

    /// Fails with everything that the server refused of SQL text before its first rows.
    fn stop_if_refused(&self) -> Result<(), RestoreError> {
        match self.job.left_out.take_error() {
            Some(e) if self.job.is_before_rows_of_text() => Err(e.in_stage(Stage::Schema).into()),
            Some(e) => Err(e.into()),
            None => Ok(()),
        }
    }

    /// Fails with everything that the server refused. Definitions that cost nothing are tried first, so that one answer
    /// names all that would be refused; indexes and keys of loaded tables are not.
    async fn stop(&mut self) -> Result<(), RestoreError> {
        let left = self.work_queue.change(|s| s.unfinished_tasks());
        self.session.try_each(&self.job, &left).await;
        match self.job.left_out.take_error() {
            Some(e) => Err(e.into()),
            // Another session has it.
            None => Ok(()),
        }
    }

    fn name_of(&self, tasks: &[Task]) -> String {
        let first = self.job.content.name(tasks[0].entry);
        match tasks.len() - 1 {
            0 => first,
            more => format!("{first} and {more} more"),
        }
    }

    fn dependency_cycle(&self, node: NodeId) -> RestoreError {
        let index = self.work_queue.entry_of(node);
        let name = self.job.content.name(index);
        let what = format!("entries wait for each other: {name}");
        ValidationError::new(ValidationKind::ArchiveCorrupt, what).into()
    }
}

fn tasks_of<P>(schedule: &Schedule<P>, nodes: &[NodeId]) -> Vec<Task> {
    let task = |node: &NodeId| Task {
        entry: schedule.node(*node).entry,
        step: schedule.step(*node),
    };
    nodes.iter().map(task).collect()
}

/// The trace span of one session's work on one entry.
fn span_of(job: &LoadContext, name: &str) -> tracing::Span {
    // Held, because the stage may end at any moment: nothing can begin in a span that has ended.
    let stage = job.observer.span();
    tracing::info_span!(parent: &stage, "entry", otel.name = name, rows = tracing::field::Empty)
}

/// Whether a row has a key, or excludes a value, that another row has.
fn is_conflict(e: &DatabaseError) -> bool {
    matches!(e.sqlstate(), Some("23505" | "23P01"))
}

const WERE_THERE: &str = "; the table of the target was not empty, and --data-only adds rows to those that are there: empty \
    it first, or restore the table into a new database";

/// Such as a spatial reference system that a later version of PostGIS brings itself.
fn are_of_extension(extension: &str, entry: &TocEntry) -> String {
    format!(
        "; the extension {extension} of the server has created rows of its own in this table, which the backup's version of it \
         does not have: install that version, or leave out the backup's rows with --skip {}",
        shell_quoted(&entry.name())
    )
}

/// Such as a table that two joined texts have.
fn are_for_existing(entry: &TocEntry) -> String {
    format!(
        "; the table was there before the backup's statement that creates it, which the server refused, and has rows: restore \
         texts that were joined one by one, or leave out the rows of this table with --skip {}",
        shell_quoted(&entry.name())
    )
}

/// The same error, blamed on the rows that the table had before.
fn rows_exist(e: &DatabaseError, why: &str) -> DatabaseError {
    let error = DatabaseError::new(DatabaseKind::RowsExist, e.to_string()).followed_by(why);
    match e.sqlstate() {
        Some(code) => error.with_sqlstate(code),
        None => error,
    }
}

fn with_context(e: RestoreError, what: &str) -> RestoreError {
    match e {
        RestoreError::Database(e) => hints::with_hint(e, None)
            .context(what)
            .in_stage(Stage::Data)
            .into(),
        other => other,
    }
}

/// A server error of a stage that other sessions may have left already.
fn of_stage(e: RestoreError, stage: Stage) -> RestoreError {
    match e {
        RestoreError::Database(e) => e.in_stage(stage).into(),
        other => other,
    }
}

//! A restoring session: runs statements and settings in the transactions that they need.

mod after_refusal;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pgdump_archive::{EntryKind, TextEncoding, TocEntry};

use crate::ddl::{self, OutputState};
use crate::error::{DatabaseError, RestoreError, report};
use crate::ids::{EntryIndex, SessionId};
use crate::load_context::{LoadContent, LoadContext};
use crate::parallelism::{MaintenanceWorkers, TaskCost};
use crate::postgres::Session;
use crate::pre_data::PreDataBatch;
use crate::refusals::is_refusal;
use crate::script::{self, ScriptStep};
use crate::table_locks::ConstraintStep;
use crate::work_queue::MemoryPermit;
use crate::work_record::{Body, DataSpan, EntryPart, Resumed, Spans, UnitId};
use crate::{conversion, extension_calls, hints, sort_memory};

/// Most pre-data entries in one transaction.
const PRE_DATA_BATCH: usize = 200;

/// A transaction of another level sees no table that was created after its first statement.
const SEES_THE_RECORD: &str = "SET default_transaction_isolation = 'read committed'";

/// What settings are called where statements are named.
const SETTINGS: &str = "settings";

/// A restoring session, which keeps track of its output settings.
pub(crate) struct RestoreSession {
    pub(crate) session: Session,
    id: SessionId,
    output: OutputState,
    script: Arc<script::Settings>,
    /// The changes of the database's settings that it has.
    settings_changed: u64,
}

/// What a session runs of an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    pub entry: EntryIndex,
    pub step: ConstraintStep,
}

impl Task {
    fn whole(entry: EntryIndex) -> Self {
        let step = ConstraintStep::Whole;
        Task { entry, step }
    }

    /// What its record says.
    fn part(self, job: &LoadContext) -> (UnitId, EntryPart) {
        let part = match self.step {
            ConstraintStep::Whole => EntryPart::Whole,
            ConstraintStep::Index => EntryPart::Index,
            ConstraintStep::Key => EntryPart::Key,
        };
        (job.content.unit(self.entry), part)
    }
}

/// Whether a task is run once more although an earlier attempt has run it.
fn is_repeated(job: &LoadContext, task: Task) -> bool {
    let entry = job.content.entry(task.entry);
    job.sets_sequences_again && entry.is_some_and(|e| e.kind == EntryKind::SequenceSet)
}

/// The step of an entry that is left to do after what earlier attempts have done; `None` if there is none.
fn step_left(resumed: &Resumed, unit: UnitId, step: ConstraintStep) -> Option<ConstraintStep> {
    let is_done = |part| resumed.is_done(unit, part);
    if is_done(EntryPart::Whole) || is_done(EntryPart::Key) {
        return None;
    }
    match step {
        ConstraintStep::Whole if is_done(EntryPart::Index) => Some(ConstraintStep::Key),
        ConstraintStep::Index if is_done(EntryPart::Index) => None,
        step => Some(step),
    }
}

impl RestoreSession {
    /// Connects and applies the settings that the dump expects.
    pub(crate) async fn open(
        job: &LoadContext,
        id: SessionId,
    ) -> Result<RestoreSession, DatabaseError> {
        let settings_changed = job.settings_changed.load(Relaxed);
        let session = job
            .server
            .discarding_rows()
            .connect(&job.database, "restore")
            .await?;
        let is_held = job.record.is_held();
        let mut settings = vec![job.settings.session_sql()];
        if job.is_generic_sql {
            // pg_dump's text qualifies names or sets the path itself; other text relies on the default.
            let reset = "RESET search_path; RESET check_function_bodies; RESET row_security";
            settings.push(reset.to_owned());
        }
        if job.fills_server {
            // One core each: parallel workers would take time from the other sessions.
            settings.push("SET max_parallel_maintenance_workers = 0".to_owned());
        }
        if is_held {
            // The record may begin within any transaction, which then has to see it.
            settings.push(SEES_THE_RECORD.to_owned());
        }
        session.run(&settings.join("; ")).await?;
        if !is_held && job.record.is_on() {
            session.prepare_note().await?;
        }
        Ok(RestoreSession {
            session,
            id,
            output: OutputState::new(&job.settings),
            script: Arc::default(),
            settings_changed,
        })
    }

    /// Connects again if an extension has changed settings of the database meanwhile.
    pub(crate) async fn renew(&mut self, job: &LoadContext) -> Result<(), DatabaseError> {
        if self.settings_changed != job.settings_changed.load(Relaxed) {
            *self = Self::open(job, self.id).await?;
        }
        Ok(())
    }

    /// Runs statements one after another, with a row of the record in front of the last one, which is COMMIT then. What an
    /// extension has changed by being called in them, this session has, too. `is_long`: they may take longer than one COPY.
    async fn pipeline(
        &mut self,
        job: &LoadContext,
        sql: Vec<String>,
        (record, is_long): (Option<Body>, bool),
    ) -> Result<(), (usize, DatabaseError)> {
        let is_called = !job.rewriter.called_extensions().is_empty()
            && sql.iter().any(|s| extension_calls::has_calls(s));
        match record {
            // What an extension does may take any time.
            Some(body) if (is_long || is_called) && job.record.is_held() => {
                self.pipeline_held(job, sql, body).await?;
            }
            Some(body) => {
                let note = job.record.note_to_begin(self.id, body).await;
                let ran = self.session.pipeline_noted(sql, note.as_ref()).await;
                job.record.ended(note, ran.is_ok());
                ran?;
            }
            None => self.session.pipeline_of(sql).await?,
        }
        if is_called {
            self.settings_changed = job.settings_changed.fetch_add(1, Relaxed) + 1;
        }
        Ok(())
    }

    /// The same for what may take long while the record is in memory. It does not keep the record from beginning: only COMMIT
    /// takes a turn.
    async fn pipeline_held(
        &self,
        job: &LoadContext,
        mut sql: Vec<String>,
        record: Body,
    ) -> Result<(), (usize, DatabaseError)> {
        let end = sql.len().saturating_sub(1);
        sql.truncate(end);
        self.session.pipeline_of(sql).await?;
        let note = job.record.note(self.id, record).await;
        let committed = self.session.commit_tasks(note.as_ref()).await;
        job.record.ended(note, committed.is_ok());
        committed.map_err(|e| (end, e))
    }

    /// Applies the settings that the data of `index` needs.
    pub(crate) async fn before_data(
        &mut self,
        job: &LoadContext,
        index: EntryIndex,
        entry: &TocEntry,
    ) -> Result<(), RestoreError> {
        let settings = match job.content.step(index, false).as_deref() {
            Some(ScriptStep::Data { settings, .. }) => self.script_settings(job, settings),
            _ => self.output.sql_before_data(entry),
        };
        if !settings.is_empty() {
            self.session
                .run(&conversion::sendable(settings, &job.encoding))
                .await?;
        }
        Ok(())
    }

    fn script_settings(&mut self, job: &LoadContext, wanted: &Arc<script::Settings>) -> String {
        let accepted = job.left_out.accepted(wanted).map(Arc::new);
        let wanted = accepted.unwrap_or_else(|| wanted.clone());
        let sql = wanted.after(&self.script);
        self.script = wanted;
        sql
    }

    /// Re-enables autovacuum on the tables where it was disabled.
    pub(crate) async fn reenable_autovacuum(
        &mut self,
        job: &LoadContext,
    ) -> Result<(), DatabaseError> {
        let tables = std::mem::take(&mut *job.autovacuum_off());
        for batch in tables.chunks(PRE_DATA_BATCH) {
            let mut sql = vec!["BEGIN".to_owned()];
            sql.extend(
                batch
                    .iter()
                    .map(|t| format!("ALTER TABLE ONLY {t} RESET (autovacuum_enabled)")),
            );
            sql.push("COMMIT".to_owned());
            // It says nothing, but that this transaction was one of ours. It may wait for index builds of these tables.
            self.pipeline(job, sql, (Some(Body::default()), true))
                .await
                .map_err(|(_, e)| e.context("re-enabling autovacuum"))?;
        }
        Ok(())
    }

    /// Creates a batch of pre-data; returns the entries that failed.
    pub(crate) async fn make(
        &mut self,
        job: &LoadContext,
        batch: &PreDataBatch,
    ) -> Result<Vec<EntryIndex>, RestoreError> {
        let mut left = batch.entries.as_slice();
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(PRE_DATA_BATCH));
            let before = self.output.clone();
            let tasks: Vec<Task> = now.iter().copied().map(Task::whole).collect();
            if !batch.may_fail {
                self.tasks(job, &tasks, TaskCost::default()).await?;
            } else if let Err(e) = self.all_tasks(job, &tasks, TaskCost::default()).await {
                tracing::debug!(
                    error = report(&e),
                    "batch failed, creating its entries in the archive's order"
                );
                self.session.run("ROLLBACK").await.map_err(|_| e)?;
                self.output = before;
                break;
            }
            left = later;
        }
        Ok(left.to_vec())
    }

    /// Runs the statements of these entries, each part of them in one transaction, without the entries that the server
    /// refuses and those that depend on them.
    pub(crate) async fn tasks(
        &mut self,
        job: &LoadContext,
        tasks: &[Task],
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        if matches!(job.content, LoadContent::Script(_)) {
            return self.steps(job, tasks, size).await;
        }
        for part in parts(job, &wanted(job, tasks)) {
            // A long index build is not repeated to find out which entry failed.
            if let [task] = part {
                self.alone(job, *task, size).await?;
                continue;
            }
            let before = self.output.clone();
            match self.transaction(job, part, size).await {
                Err(RestoreError::Database(e)) if is_refusal(&e) => {
                    self.roll_back(before).await?;
                    for task in part {
                        self.alone(job, *task, size).await?;
                    }
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// The same, but the first entry that the server refuses is an error.
    async fn all_tasks(
        &mut self,
        job: &LoadContext,
        tasks: &[Task],
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        for part in parts(job, &wanted(job, tasks)) {
            self.transaction(job, part, size).await?;
        }
        Ok(())
    }

    async fn transaction(
        &mut self,
        job: &LoadContext,
        tasks: &[Task],
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        let LoadContent::Toc(entries) = &job.content else {
            return Err(RestoreError::internal("entries of SQL text"));
        };
        let mut work = self.statements_of(entries, tasks);
        let parts = tasks.iter().map(|task| task.part(job)).collect();
        work.record = Some(Body::of_entries(parts));
        work.wrap_in_transaction(job, size);
        self.send(job, tasks, work).await
    }

    /// Runs statements that are ready to be sent.
    async fn send(
        &mut self,
        job: &LoadContext,
        tasks: &[Task],
        work: TaskStatements,
    ) -> Result<(), RestoreError> {
        let ran = self
            .pipeline(job, work.sql, (work.record, work.is_long))
            .await;
        ran.map_err(|(at, e)| {
            let task = at.checked_sub(1).and_then(|i| tasks.get(i));
            let entry = task.and_then(|task| job.content.entry(task.entry));
            let name = work.names.get(at);
            hints::with_hint(e, entry)
                .context(name.map_or("end of a transaction", String::as_str))
                .into()
        })
    }

    async fn roll_back(&mut self, before: OutputState) -> Result<(), DatabaseError> {
        self.session.run("ROLLBACK").await?;
        self.output = before;
        Ok(())
    }

    fn statements_of(&mut self, entries: &[TocEntry], tasks: &[Task]) -> TaskStatements {
        let mut work = TaskStatements::default();
        for task in tasks {
            let entry = &entries[task.entry.0];
            work.sql.push(self.output.sql_for_part(entry, task.step));
            work.names.push(entry.name());
        }
        work
    }

    fn statements_of_steps(&mut self, job: &LoadContext, tasks: &[Task]) -> TaskStatements {
        let mut work = TaskStatements::default();
        for step in tasks
            .iter()
            .filter_map(|task| job.content.step(task.entry, true))
        {
            // Nobody else needs this step, so its text, which may be large, is not copied.
            if let Ok(ScriptStep::Statements(step)) = Arc::try_unwrap(step) {
                let settings = self.script_settings(job, &step.settings);
                work.add_step(step, settings, &job.encoding);
            }
        }
        work.record = work.statements_done();
        work
    }
}

/// The tasks whose entries are not left out, and that no earlier attempt has done.
fn wanted(job: &LoadContext, tasks: &[Task]) -> Vec<Task> {
    let is_left_out = |task: &Task| {
        let entry = job.content.entry(task.entry);
        entry.is_some_and(|e| job.left_out.has(e))
    };
    let resumed = job.record.resumed();
    let left = |task: Task| {
        if is_repeated(job, task) {
            return Some(task);
        }
        let step = step_left(resumed, job.content.unit(task.entry), task.step)?;
        Some(Task { step, ..task })
    };
    let tasks = tasks.iter().copied().filter(|task| !is_left_out(task));
    tasks.filter_map(left).collect()
}

/// What runs in one transaction: everything, but each entry that may take many locks in its own.
fn parts<'a>(job: &LoadContext, tasks: &'a [Task]) -> Vec<&'a [Task]> {
    let locks_many = |task: &Task| {
        let entry = job.content.entry(task.entry);
        entry.is_some_and(ddl::grants_on_group)
    };
    let parts = tasks.chunk_by(|a, b| !locks_many(a) && !locks_many(b));
    parts.collect()
}

/// Statements that run together.
#[derive(Default)]
struct TaskStatements {
    sql: Vec<String>,
    /// What each statement is, for errors.
    names: Vec<String>,
    /// The settings that each statement of SQL text has in the text.
    under: Vec<Arc<script::Settings>>,
    /// Where each statement of SQL text is in the text.
    places: Vec<Option<DataSpan>>,
    /// What the record says of them; `None` if nothing.
    record: Option<Body>,
    /// Do not wrap them in a transaction.
    bare: bool,
    /// They may take longer than one COPY.
    is_long: bool,
    /// Memory that the statements take.
    permits: Vec<Option<MemoryPermit>>,
}

impl TaskStatements {
    fn add_step(&mut self, step: script::Statements, settings: String, encoding: &TextEncoding) {
        self.sql.push(settings);
        self.names.push(SETTINGS.to_owned());
        self.under.push(step.settings.clone());
        self.places.push(None);
        self.places.extend(step.places);
        for statement in step.list {
            let words = encoding.for_display(&script::first_words(&statement.text));
            self.names.push(format!("line {}: {words}", statement.line));
            self.under.push(step.settings.clone());
            self.sql
                .push(conversion::sendable(statement.text, encoding));
        }
        self.bare |= step.bare;
        self.permits.push(step.permit);
    }

    /// What the record says of statements of SQL text.
    fn statements_done(&self) -> Option<Body> {
        let mut statements = Spans::default();
        let places = self.places.iter().flatten();
        places.for_each(|place| statements.push(*place));
        (!statements.is_empty()).then(|| Body {
            statements,
            ..Body::default()
        })
    }

    fn wrap_in_transaction(&mut self, job: &LoadContext, size: TaskCost) {
        self.is_long = size.is_long;
        let begin = self.begin(job.fills_server, size);
        for sql in &mut self.sql {
            *sql = conversion::sendable(std::mem::take(sql), &job.encoding);
        }
        self.sql.insert(0, begin);
        self.names.insert(0, "begin of a transaction".to_owned());
        self.sql.push("COMMIT".to_owned());
    }

    fn begin(&self, fills_server: bool, size: TaskCost) -> String {
        let mut begin = vec!["BEGIN".to_owned()];
        if size.workers != MaintenanceWorkers::No {
            begin.push("SET LOCAL max_parallel_maintenance_workers TO DEFAULT".to_owned());
        }
        if fills_server && size.workers != MaintenanceWorkers::Now {
            // With so little memory, the server starts no parallel workers.
            let memory = |sql: &String| sort_memory::memory_for(sql, size.rows);
            begin.extend(self.sql.iter().find_map(memory));
        }
        begin.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_of_a_key_is_not_done_again() {
        use ConstraintStep::{Index, Key, Whole};
        let unit = UnitId(7);
        for (done, left) in [
            (vec![], [Some(Whole), Some(Index), Some(Key)]),
            (vec![EntryPart::Whole], [None; 3]),
            (vec![EntryPart::Index], [Some(Key), None, Some(Key)]),
            (vec![EntryPart::Index, EntryPart::Key], [None; 3]),
        ] {
            let done: Vec<_> = done.into_iter().map(|part| (unit, part)).collect();
            let resumed = Resumed::of(Body::of_entries(done.clone()));
            let now = [Whole, Index, Key].map(|step| step_left(&resumed, unit, step));
            assert_eq!(now, left, "{done:?}");
        }
    }
}

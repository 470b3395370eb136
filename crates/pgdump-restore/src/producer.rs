//! Reads the archive and puts chunks on the work queue for the sessions; for SQL text, it also adds the
//! steps of the restore.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::context::{LoadContent, LoadContext};
use super::conversion::Converter;
use super::dependence::{Definitions, Dependence};
use super::plan::{PlanNode, RestorePass};
use super::script::{
    OrderGroup, ScriptStep, StatementClass, StatementOrder, Statements, classify, table_named,
};
use super::work_queue::{QueuedChunk, WorkQueue};
use crate::error::{FailureReason, JobError, RestoreError, ValidationError};
use pgdump_archive::{
    ArchiveError, Chunk, DataSink, DataStream, Dialect, DigestBuilder, Extent, Statement, TocEntry,
    first_tokens,
};

/// Most statements in one transaction.
const STEP_STATEMENTS: usize = 200;
const STEP_BYTES: usize = 1 << 20;
/// Most statements that are deferred until others are done.
const MAX_DEFERRED: usize = 10_000;

/// Reads one stream of an archive to its end. Runs on a thread that may block.
pub(super) fn run(
    work_queue: Arc<WorkQueue>,
    job: Arc<LoadContext>,
    stream: DataStream,
) -> Result<(), RestoreError> {
    let runtime = tokio::runtime::Handle::current();
    let chunks = ChunkPusher {
        work_queue: work_queue.clone(),
        job: job.clone(),
        runtime,
        tally: None,
    };
    match &job.content {
        LoadContent::Toc(entries) => {
            let nodes = work_queue.data_nodes();
            let node_of = nodes
                .into_iter()
                .map(|(node, e)| (entries[e].dump_id, node))
                .collect();
            stream.read(&mut TocProducer {
                chunks,
                node_of,
                current: None,
            })?;
        }
        LoadContent::Script(_) => {
            let order = StatementOrder::default();
            let mut feeder = ScriptProducer {
                chunks,
                order,
                definitions: Definitions::default(),
                settings: Arc::default(),
                serial: vec![],
                deferred: vec![],
                current: 0,
                rows_of: HashMap::new(),
                clean: true,
                converter: Converter::new(&job.server, &job.database, &job.encoding),
                in_transaction: false,
                has_post_data: false,
            };
            stream.read(&mut feeder)?;
            feeder.flush()?;
        }
    }
    work_queue.change(|s| s.stream_ended());
    job.enter_stage(&work_queue);
    Ok(())
}

/// Puts chunks on the work queue as memory allows.
struct ChunkPusher {
    work_queue: Arc<WorkQueue>,
    job: Arc<LoadContext>,
    runtime: tokio::runtime::Handle,
    /// Counts the data of the current entry.
    tally: Option<DigestBuilder>,
}

impl ChunkPusher {
    fn begin(&mut self, node: usize, entry: &TocEntry) -> Result<(), RestoreError> {
        if let Some(content_digest) = &self.job.content_digest {
            self.tally = Some(content_digest.next(self.tally.take(), entry)?);
        }
        self.work_queue.change(|s| s.begin(node));
        Ok(())
    }

    fn push(&mut self, node: usize, chunk: Chunk) -> Result<(), RestoreError> {
        let bytes = chunk.len() as u64;
        if let Some(tally) = &mut self.tally {
            tally.chunk(&chunk, &self.job.encoding)?;
        }
        let permit = self
            .runtime
            .block_on(self.work_queue.reserve(bytes, Some(node)))?;
        let splittable = !matches!(
            chunk,
            Chunk::Rows {
                ends_row: false,
                ..
            }
        );
        self.work_queue
            .change(|s| s.push(node, QueuedChunk::new(chunk, permit), bytes, splittable));
        let so_far = self.job.bytes_read(bytes);
        if so_far > self.job.max_bytes {
            let what = format!(
                "the backup has more than {} GiB of data (RESTORE_MAX_GIB)",
                self.job.max_bytes >> 30
            );
            // This worker's own limit, so the backup is not to blame.
            return Err(JobError::new(FailureReason::DataRejected, what).into());
        }
        Ok(())
    }

    fn end(&mut self, node: usize, entry: &TocEntry) -> Result<(), RestoreError> {
        if let (Some(content_digest), Some(tally)) = (&self.job.content_digest, self.tally.take()) {
            content_digest.finish(tally)?;
        }
        self.work_queue.change(|s| s.end(node));
        if entry.desc == "TABLE DATA" {
            self.job.table_read();
        }
        Ok(())
    }
}

/// Data of an archive with a table of contents.
struct TocProducer {
    chunks: ChunkPusher,
    node_of: HashMap<i32, usize>,
    /// `None` while the data of a skipped entry passes.
    current: Option<usize>,
}

impl DataSink for TocProducer {
    fn should_read(&self, entry: &TocEntry) -> bool {
        self.node_of.contains_key(&entry.dump_id)
    }

    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.current = self.node_of.get(&entry.dump_id).copied();
        let Some(node) = self.current else {
            return Ok(());
        };
        self.wait_for_turn(entry)?;
        Ok(self.chunks.begin(node, entry)?)
    }

    fn wait_for_turn(&self, entry: &TocEntry) -> Result<(), ArchiveError> {
        let Some(node) = self.node_of.get(&entry.dump_id).copied() else {
            return Ok(());
        };
        if !self
            .chunks
            .runtime
            .block_on(self.chunks.work_queue.is_turn_of(node))?
        {
            let what = format!(
                "{}: its table calls functions that may read other tables, so it must be restored after the data that the \
                 table of contents lists before it, but this archive has some of that data later: write the backup \
                 again with pg_dump",
                entry.name()
            );
            return Err(ArchiveError::limit(what));
        }
        Ok(())
    }

    fn is_ready(&self, entry: &TocEntry) -> bool {
        self.node_of
            .get(&entry.dump_id)
            .is_none_or(|node| self.chunks.work_queue.is_ready(*node))
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        Ok(self
            .current
            .map_or(Ok(()), |node| self.chunks.push(node, chunk))?)
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        Ok(self
            .current
            .map_or(Ok(()), |node| self.chunks.end(node, entry))?)
    }

    fn tail(&mut self, extent: Extent) {
        if let Some(content_digest) = &self.chunks.job.content_digest {
            content_digest.tail(extent);
        }
    }

    fn extent(&mut self, entry: Option<&TocEntry>, extent: Extent) {
        if let Some(content_digest) = &self.chunks.job.content_digest {
            content_digest.extent(entry, extent);
        }
    }
}

/// SQL text: each statement, and the rows of each table, become a node as they arrive.
struct ScriptProducer {
    chunks: ChunkPusher,
    order: StatementOrder,
    /// What the statements so far have created, to find rows that depend on others.
    definitions: Definitions,
    settings: Arc<super::script::Settings>,
    /// Consecutive statements that are not a node yet.
    serial: Vec<Statement>,
    /// Statements that may be deferred (comments) or that nothing depends on (sequence values).
    deferred: Vec<Statement>,
    current: usize,
    /// The nodes with each table's rows, which determine the cost of what is built on them.
    rows_of: HashMap<i32, usize>,
    /// Nothing has been created yet, so the objects that `--clean` drops do not exist.
    clean: bool,
    converter: Converter,
    /// Text that `pg_dump` did not write has begun a transaction.
    in_transaction: bool,
    /// Keys or triggers exist, so rows must be loaded in the order of the text.
    has_post_data: bool,
}

impl ScriptProducer {
    fn add(
        &mut self,
        step: ScriptStep,
        group: OrderGroup,
        tables: (Vec<i32>, Vec<i32>),
    ) -> Result<usize, RestoreError> {
        let is_data = matches!(step, ScriptStep::Data { .. });
        let entry = self.chunks.job.content.push(step)?;
        let (exclusive, shared) = tables;
        let rows: Vec<usize> = exclusive
            .iter()
            .chain(&shared)
            .filter_map(|t| self.rows_of.get(t).copied())
            .collect();
        let node = |after: Vec<usize>| {
            let mut after = [after, rows].concat();
            after.sort_unstable();
            after.dedup();
            let in_order = is_data && group == OrderGroup::Serial;
            PlanNode {
                is_data,
                in_order,
                after,
                exclusive,
                shared,
                ..PlanNode::of(entry, RestorePass::Main)
            }
        };
        let job = &self.chunks.job;
        let barrier = || job.content.push(ScriptStep::Nothing);
        let (order, work_queue) = (&mut self.order, &self.chunks.work_queue);
        if !is_data {
            job.observer.found_task();
        }
        // An empty step between two groups keeps the number of edges small.
        if let Some(after) = order.barrier_before(group) {
            let entry = barrier()?;
            let empty = PlanNode {
                after,
                ..PlanNode::of(entry, RestorePass::Main)
            };
            let added = work_queue.change(|s| s.add(empty));
            job.observer.found_task();
            order.passed(added);
        }
        let added = work_queue.change(|s| s.add(node(order.after())));
        order.added(added, group);
        Ok(added)
    }

    fn statements(
        &mut self,
        list: Vec<Statement>,
        group: OrderGroup,
        tables: (Vec<i32>, Vec<i32>),
    ) -> Result<(), RestoreError> {
        if list.is_empty() {
            return Ok(());
        }
        let bytes = list.iter().map(|s| s.text.len() as u64).sum();
        let permit = self
            .chunks
            .runtime
            .block_on(self.chunks.work_queue.reserve(bytes, None))?;
        let (settings, bare) = (self.settings.clone(), self.in_transaction);
        let step = ScriptStep::Statements(Statements {
            list,
            settings,
            bare,
            permit,
        });
        self.add(step, group, tables).map(drop)
    }

    /// Turns all collected statements into nodes.
    fn flush(&mut self) -> Result<(), RestoreError> {
        let serial = std::mem::take(&mut self.serial);
        self.statements(serial, OrderGroup::Serial, Default::default())?;
        let deferred = std::mem::take(&mut self.deferred);
        self.statements(deferred, OrderGroup::Serial, Default::default())
    }

    /// Creates roles as the restoring role, whatever session authorization the text has set.
    fn make_roles(&mut self, roles: Vec<String>, line: u64) -> Result<(), RestoreError> {
        self.flush()?;
        let of_text = self.settings.clone();
        self.settings = Arc::new(of_text.without("session_authorization"));
        self.serial = roles
            .into_iter()
            .map(|text| Statement { text, line })
            .collect();
        self.flush()?;
        self.settings = of_text;
        Ok(())
    }

    /// BEGIN, COMMIT or a statement between them in a text that `pg_dump` did not write. One session runs all
    /// of such a text, so its transactions are kept.
    fn transaction(&mut self, statement: Statement) -> Result<(), RestoreError> {
        self.flush()?;
        let first = first_tokens(&statement.text, Dialect::default(), 4);
        let ends = first.first().is_some_and(|t| t.is("commit") || t.is("end"));
        let goes_on =
            first.get(1).is_some_and(|t| t.is("and")) && !first.get(2).is_some_and(|t| t.is("no"));
        self.in_transaction = true;
        self.statements(vec![statement], OrderGroup::Serial, Default::default())?;
        self.in_transaction = !ends || goes_on;
        Ok(())
    }

    fn set(&mut self, name: String, sql: String) -> Result<(), RestoreError> {
        if self.settings.get(&name) != Some(sql.as_str()) {
            self.flush()?;
            self.settings = Arc::new(self.settings.with(name, sql));
        }
        Ok(())
    }
}

/// Whether later rows must satisfy what a statement creates: keys, triggers and rules.
fn constrains_rows(class: &StatementClass, sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), 5);
    let makes = t.first().is_some_and(|w| w.is("create"));
    matches!(
        class,
        StatementClass::Build {
            group: OrderGroup::Keys,
            ..
        }
    ) || (makes && t.iter().any(|w| w.is("trigger") || w.is("rule")))
}

/// The class of a statement in text that runs strictly in order.
fn in_order(class: StatementClass) -> StatementClass {
    match class {
        StatementClass::Build { .. } | StatementClass::Sequence | StatementClass::Late => {
            StatementClass::Serial
        }
        other => other,
    }
}

impl DataSink for ScriptProducer {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        Ok(self.begin_rows(entry)?)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        Ok(self.chunks.push(self.current, chunk)?)
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        Ok(self.chunks.end(self.current, entry)?)
    }

    fn statement(&mut self, statement: Statement) -> Result<(), ArchiveError> {
        Ok(self.add_statement(statement)?)
    }
}

impl ScriptProducer {
    fn begin_rows(&mut self, entry: &TocEntry) -> Result<(), RestoreError> {
        self.flush()?;
        let mut entry = entry.clone();
        self.chunks
            .runtime
            .block_on(self.converter.entry(&mut entry))?;
        self.clean = false;
        let observer = &self.chunks.job.observer;
        observer.advance("schema", "data");
        if entry.desc == "TABLE DATA" {
            observer.found_table();
        }
        let in_order = match &self.chunks.job.in_order_into {
            Some(tables) => {
                Dependence::of_rows_into(std::slice::from_ref(&entry), tables).has_rows()
            }
            None => self
                .definitions
                .rows_depend(&entry, !self.chunks.job.is_generic_sql),
        };
        let in_order = in_order || self.chunks.job.is_generic_sql || self.has_post_data;
        let group = if in_order {
            OrderGroup::Serial
        } else {
            OrderGroup::Data
        };
        let step = ScriptStep::Data {
            entry: Box::new(entry.clone()),
            settings: self.settings.clone(),
        };
        self.current = self.add(step, group, Default::default())?;
        if let Some(table) = table_named(&entry.tag) {
            self.rows_of.insert(self.order.table(&table), self.current);
        }
        self.chunks.begin(self.current, &entry)
    }

    fn add_statement(&mut self, mut statement: Statement) -> Result<(), RestoreError> {
        self.chunks
            .runtime
            .block_on(self.converter.statement(&mut statement))?;
        let Some(fitted) = self
            .chunks
            .job
            .rewriter
            .statement(&statement.text, self.clean)?
        else {
            return Ok(());
        };
        if !fitted.roles.is_empty() {
            self.make_roles(fitted.roles, statement.line)?;
        }
        let statement = match fitted.text {
            Cow::Owned(text) => Statement { text, ..statement },
            Cow::Borrowed(_) => statement,
        };
        let class = classify(&statement.text);
        self.definitions.learn(&statement.text);
        self.has_post_data |= constrains_rows(&class, &statement.text);
        let class = if self.chunks.job.is_generic_sql {
            in_order(class)
        } else {
            class
        };
        if !matches!(
            class,
            StatementClass::Setting { .. } | StatementClass::Transaction
        ) {
            self.clean = false;
        }
        match class {
            StatementClass::Setting { name, sql } => self.set(name, sql)?,
            StatementClass::ResetAll => {
                self.flush()?;
                self.settings = Arc::new(self.settings.reset());
            }
            StatementClass::Transaction if self.chunks.job.is_generic_sql => {
                self.transaction(statement)?
            }
            StatementClass::Transaction => {}
            StatementClass::Alone => {
                self.flush()?;
                let within = std::mem::replace(&mut self.in_transaction, true);
                self.statements(vec![statement], OrderGroup::Serial, Default::default())?;
                self.in_transaction = within;
            }
            StatementClass::Rollback => {
                let what = format!(
                    "line {}: ROLLBACK, which pg_dump never writes",
                    statement.line
                );
                return Err(ValidationError::new(FailureReason::ArchiveUnsupported, what).into());
            }
            StatementClass::Sequence if self.order.group() == OrderGroup::Data => {
                self.deferred.push(statement)
            }
            StatementClass::Late
                if matches!(self.order.group(), OrderGroup::Build | OrderGroup::Keys) =>
            {
                self.deferred.push(statement)
            }
            StatementClass::Build {
                exclusive,
                shared,
                group,
            } => {
                if self.order.group() != group || !self.serial.is_empty() {
                    self.flush()?;
                    self.chunks.job.observer.advance("data", "indexes");
                }
                let exclusive = exclusive.iter().map(|t| self.order.table(t)).collect();
                let shared = shared.iter().map(|t| self.order.table(t)).collect();
                self.statements(vec![statement], group, (exclusive, shared))?;
            }
            StatementClass::Sequence | StatementClass::Late | StatementClass::Serial => {
                if !self.deferred.is_empty() {
                    self.flush()?;
                }
                self.serial.push(statement);
                let bytes: usize = self.serial.iter().map(|s| s.text.len()).sum();
                if self.serial.len() >= STEP_STATEMENTS || bytes >= STEP_BYTES {
                    self.flush()?;
                }
            }
        }
        if self.deferred.len() >= MAX_DEFERRED {
            self.flush()?;
        }
        Ok(())
    }
}

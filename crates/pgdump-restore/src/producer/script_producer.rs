//! SQL text: each statement, and the rows of each table, become a node as they arrive.

use crate::stage::Stage;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::chunk_pusher::ChunkPusher;
use super::statement_numbers::{Numbered, StatementNumbers};
use crate::conversion::Converter;
use crate::dependence::{Definitions, Dependence};
use crate::error::{JobError, JobKind, RestoreError};
use crate::ids::{NodeId, TableId, sorted};
use crate::load_context::RowsOfText;
use crate::masking::{RowMask, TextMasking};
use crate::plan::{PlanNode, RestorePass};
use crate::script::{
    OrderGroup, ScriptStep, Settings, StatementClass, StatementOrder, Statements, classify,
    creates_large_object, defines, may_be_unlogged, sets_owner, table_named,
};
use crate::work_record::{Mark, UnitId};
use pgdump_archive::{
    ArchiveError, Chunk, DataSink, Dialect, EntryKind, Statement, TocEntry, first_tokens,
};

/// Most statements in one transaction.
const STEP_STATEMENTS: usize = 200;
const STEP_BYTES: usize = 1 << 20;
/// Most statements that are deferred until others are done.
const MAX_DEFERRED: usize = 10_000;
/// Bytes of rows that a rehearsal reads for the sake of the definitions after them.
const MAX_PASSED: u64 = 16 << 20;

/// Tables that a node locks.
#[derive(Default)]
struct Locked {
    exclusive: Vec<TableId>,
    shared: Vec<TableId>,
}

/// Rows that a rehearsal reads and does not load.
#[derive(Default)]
struct PassedRows {
    bytes: u64,
    /// The name of the last rows that have begun.
    last: Option<String>,
}

pub(super) struct ScriptProducer {
    chunks: ChunkPusher,
    numbers: StatementNumbers,
    order: StatementOrder,
    /// What the statements so far have created, to find rows that depend on others.
    definitions: Definitions,
    settings: Arc<Settings>,
    /// Consecutive statements that are not a node yet.
    serial: Vec<Numbered>,
    /// Statements that may be deferred (comments) or that nothing depends on (sequence values).
    deferred: Vec<Numbered>,
    /// `None` while rows that are left out pass.
    current: Option<NodeId>,
    /// The nodes with each table's rows, which determine the cost of what is built on them.
    rows_of: HashMap<TableId, NodeId>,
    /// Nothing has been created yet, so the objects that `--clean` drops do not exist.
    clean: bool,
    converter: Converter,
    /// Text that `pg_dump` did not write has begun a transaction.
    in_transaction: bool,
    /// A relation may not be logged.
    has_unlogged: bool,
    /// Keys or triggers exist, so rows must be loaded in the order of the text.
    has_post_data: bool,
    passed: PassedRows,
    has_ended_early: bool,
    /// Decides how rows are masked, and what is not understood.
    masking: Option<TextMasking>,
}

impl ScriptProducer {
    pub(super) fn new(chunks: ChunkPusher) -> Self {
        let job = &chunks.job;
        let masking = job.masking.clone().map(TextMasking::new);
        ScriptProducer {
            converter: Converter::new(&job.server, &job.database, &job.encoding),
            numbers: StatementNumbers::new(job.record.resumed().statement_spans()),
            chunks,
            order: StatementOrder::default(),
            definitions: Definitions::default(),
            settings: Arc::default(),
            serial: vec![],
            deferred: vec![],
            current: None,
            rows_of: HashMap::new(),
            clean: true,
            in_transaction: false,
            has_unlogged: false,
            has_post_data: false,
            passed: PassedRows::default(),
            has_ended_early: false,
            masking,
        }
    }

    /// All of the text has been read: now it is known which tables it has.
    pub(super) fn check_masked(&self) -> Result<(), RestoreError> {
        self.masking.as_ref().map_or(Ok(()), TextMasking::end)
    }

    /// All of the text has been read: it must have had all statements that earlier attempts have run.
    pub(super) fn check_recorded(&self) -> Result<(), RestoreError> {
        self.numbers.end()
    }

    /// Whether reading ended at rows, because only definitions are wanted.
    pub(super) fn has_ended_early(&self) -> bool {
        self.has_ended_early
    }

    fn add(
        &mut self,
        step: ScriptStep,
        group: OrderGroup,
        locked: Locked,
    ) -> Result<NodeId, RestoreError> {
        let is_data = matches!(step, ScriptStep::Data { .. });
        let entry = self.chunks.job.content.push(step)?;
        if !is_data {
            self.chunks.job.observer.found_task();
        }
        self.add_barrier(group)?;
        let rows = self.rows_behind(&locked);
        let node = PlanNode {
            is_data,
            in_order: is_data && group == OrderGroup::Serial,
            after: sorted(self.order.after().into_iter().chain(rows)),
            exclusive: locked.exclusive,
            shared: locked.shared,
            ..PlanNode::of(entry, RestorePass::Main)
        };
        let added = self.chunks.work_queue.change(|s| s.add(node));
        self.order.added(added, group);
        Ok(added)
    }

    /// The nodes with the rows of these tables.
    fn rows_behind(&self, locked: &Locked) -> Vec<NodeId> {
        let tables = locked.exclusive.iter().chain(&locked.shared);
        tables
            .filter_map(|t| self.rows_of.get(t).copied())
            .collect()
    }

    /// An empty step between two groups keeps the number of edges small.
    fn add_barrier(&mut self, group: OrderGroup) -> Result<(), RestoreError> {
        let Some(after) = self.order.barrier_before(group) else {
            return Ok(());
        };
        let job = &self.chunks.job;
        let entry = job.content.push(ScriptStep::Nothing)?;
        let barrier = PlanNode {
            after,
            ..PlanNode::of(entry, RestorePass::Main)
        };
        let added = self.chunks.work_queue.change(|s| s.add(barrier));
        job.observer.found_task();
        self.order.passed(added);
        Ok(())
    }

    fn statements(
        &mut self,
        list: Vec<Numbered>,
        group: OrderGroup,
        locked: Locked,
    ) -> Result<(), RestoreError> {
        if list.is_empty() {
            return Ok(());
        }
        let resumed = self.chunks.job.record.resumed();
        // Once everything is loaded, sequences may have other names and owners.
        let repeats_values = self.has_unlogged && !resumed.has(Mark::Loaded);
        let left = list.into_iter();
        let list: Vec<Numbered> = left
            .filter_map(|one| one.left(resumed, repeats_values))
            .collect();
        if list.is_empty() {
            // Others may wait for it.
            self.add(ScriptStep::Nothing, group, locked)?;
            return Ok(());
        }
        let bytes = list.iter().map(|s| s.statement.text.len() as u64).sum();
        let places = list.iter().map(|one| one.place).collect();
        let step = Statements {
            list: list.into_iter().map(|one| one.statement).collect(),
            places,
            settings: self.settings.clone(),
            bare: self.in_transaction,
            permit: self.chunks.reserve(bytes, None)?,
        };
        self.add(ScriptStep::Statements(step), group, locked)?;
        Ok(())
    }

    /// Turns all collected statements into nodes.
    pub(super) fn flush(&mut self) -> Result<(), RestoreError> {
        let serial = std::mem::take(&mut self.serial);
        self.statements(serial, OrderGroup::Serial, Locked::default())?;
        // Each is a lock until the end of its transaction: of a sequence, an index, or what a comment is about.
        let mut deferred = std::mem::take(&mut self.deferred);
        while !deferred.is_empty() {
            let later = deferred.split_off(deferred.len().min(STEP_STATEMENTS));
            let now = std::mem::replace(&mut deferred, later);
            self.statements(now, OrderGroup::Serial, Locked::default())?;
        }
        Ok(())
    }

    /// Creates roles as the restoring role, whatever session authorization the text has set.
    fn make_roles(&mut self, roles: Vec<String>, line: u64) -> Result<(), RestoreError> {
        self.flush()?;
        let of_text = self.settings.clone();
        self.settings = Arc::new(of_text.without("session_authorization"));
        let role = |text| Statement {
            text,
            line,
            standard_strings: true,
        };
        let roles = roles.into_iter().map(role);
        self.serial = roles.map(Numbered::unnumbered).collect();
        self.flush()?;
        self.settings = of_text;
        Ok(())
    }

    /// BEGIN, COMMIT or a statement between them in a text that `pg_dump` did not write. One session runs all
    /// of such a text, so its transactions are kept.
    fn transaction(&mut self, statement: Numbered) -> Result<(), RestoreError> {
        self.flush()?;
        let ends = ends_transaction(&statement.statement.text);
        self.in_transaction = true;
        self.statements(vec![statement], OrderGroup::Serial, Locked::default())?;
        self.in_transaction = !ends;
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

/// Whether a statement is a COMMIT that no other transaction follows at once (AND CHAIN).
fn ends_transaction(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), 4);
    let commits = t.first().is_some_and(|t| t.is("commit") || t.is("end"));
    commits && !t.windows(2).any(|w| w[0].is("and") && w[1].is("chain"))
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
        let number = self.numbers.next_number();
        Ok(self.begin_rows(entry, number)?)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        match self.current {
            Some(node) => Ok(self.chunks.push(node, chunk)?),
            None => Ok(self.pass_over(chunk.len() as u64)?),
        }
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        match self.current {
            Some(node) => Ok(self.chunks.end(node, entry)?),
            None => Ok(()),
        }
    }

    fn statement(&mut self, statement: Statement) -> Result<(), ArchiveError> {
        let numbered = self.numbers.numbered(statement)?;
        Ok(self.add_statement(numbered)?)
    }
}

/// Rows.
impl ScriptProducer {
    fn begin_rows(&mut self, entry: &TocEntry, number: u64) -> Result<(), RestoreError> {
        let mut entry = entry.clone();
        self.chunks.wait(self.converter.entry(&mut entry))?;
        self.current = None;
        if self.chunks.job.definitions_only {
            return self.begin_passing(&entry);
        }
        self.flush()?;
        if self.chunks.job.rewriter.leaves_out_rows(&entry) || self.leaves_out_objects(&entry) {
            return Ok(());
        }
        let mask = self.mask_of(&entry)?;
        self.clean = false;
        self.report_rows(&entry);
        let group = if self.must_load_in_order(&entry) {
            OrderGroup::Serial
        } else {
            OrderGroup::Data
        };
        self.check_table(&entry, number)?;
        self.count_masked(mask.as_ref(), number);
        let step = ScriptStep::Data {
            entry: Box::new(entry.clone()),
            number,
            settings: self.settings.clone(),
            mask,
        };
        let node = self.add(step, group, Locked::default())?;
        self.current = Some(node);
        if let Some(table) = table_named(&entry.tag) {
            self.rows_of.insert(self.order.table(&table), node);
        }
        self.chunks.begin(node, &entry)
    }

    /// How the rows are masked.
    fn mask_of(&mut self, entry: &TocEntry) -> Result<Option<RowMask>, RestoreError> {
        let Some(masking) = &mut self.masking else {
            return Ok(None);
        };
        let path = self.settings.get("search_path").unwrap_or_default();
        masking.rows(entry, path, &self.chunks.job.encoding)
    }

    /// The bytes of rows are compared with what an earlier attempt has loaded, and their table is not among them.
    fn check_table(&self, entry: &TocEntry, number: u64) -> Result<(), RestoreError> {
        let unit = UnitId(i64::try_from(number).unwrap_or(i64::MAX));
        let path = self.settings.get("search_path").unwrap_or_default();
        match self.chunks.job.record.resumed().table_of(unit) {
            Some(loaded) if loaded != (entry.tag.as_str(), path) => {
                Err(StatementNumbers::rows_differ(number))
            }
            _ => Ok(()),
        }
    }

    /// Counts what earlier attempts have masked of the rows with this number.
    fn count_masked(&self, mask: Option<&RowMask>, number: u64) {
        let job = &self.chunks.job;
        let unit = UnitId(i64::try_from(number).unwrap_or(i64::MAX));
        let counts = job.record.resumed().mask_of(unit);
        if let (Some(masking), Some(mask), Some(counts)) = (&job.masking, mask, counts) {
            masking.count(mask, counts);
        }
    }

    /// Whether these are large objects whose contents the copy is not to have.
    fn leaves_out_objects(&self, entry: &TocEntry) -> bool {
        let masking = self.chunks.job.masking.as_ref();
        entry.kind == EntryKind::Blobs && masking.is_some_and(|m| !m.keeps_large_objects())
    }

    /// Rows begin that are not loaded. Of a text that `pg_dump` did not write, what follows them may need them.
    fn begin_passing(&mut self, entry: &TocEntry) -> Result<(), RestoreError> {
        let is_wanted = !self.chunks.job.rewriter.leaves_out_rows(entry);
        if is_wanted {
            self.mask_of(entry)?;
        }
        self.clean = false;
        self.passed.last = Some(entry.name());
        if is_wanted && entry.kind == EntryKind::TableData {
            let path = self.settings.get("search_path").unwrap_or_default();
            let mut rows = self.chunks.job.tried.rows.lock();
            let table = format!("{} {}", entry.tag, entry.copy_stmt);
            rows.entry((path.to_owned(), table))
                .or_insert_with(|| RowsOfText {
                    entry: entry.clone(),
                    settings: self.settings.clone(),
                });
        }
        if self.chunks.job.is_generic_sql {
            return Err(self.end_early());
        }
        Ok(())
    }

    /// Drops rows. A rehearsal ends where there are too many of them to be read for what follows.
    fn pass_over(&mut self, bytes: u64) -> Result<(), RestoreError> {
        self.passed.bytes += bytes;
        if self.chunks.job.definitions_only && self.passed.bytes > MAX_PASSED {
            return Err(self.end_early());
        }
        Ok(())
    }

    /// The error that ends the reading; it is none of the rehearsal's.
    fn end_early(&mut self) -> RestoreError {
        self.has_ended_early = true;
        *self.chunks.job.tried.ended_before.lock() = self.passed.last.clone();
        RestoreError::cancelled("only definitions are wanted")
    }

    fn report_rows(&self, entry: &TocEntry) {
        let observer = &self.chunks.job.observer;
        observer.advance(Stage::Schema, Stage::Data);
        if entry.kind == EntryKind::TableData {
            observer.found_table();
        }
    }

    fn must_load_in_order(&mut self, entry: &TocEntry) -> bool {
        let job = &self.chunks.job;
        let depends = match &job.in_order_into {
            Some(tables) => {
                Dependence::of_rows_into(std::slice::from_ref(entry), tables).has_rows()
            }
            None => self.definitions.rows_depend(entry, !job.is_generic_sql),
        };
        depends || job.is_generic_sql || self.has_post_data
    }
}

/// Statements.
impl ScriptProducer {
    fn add_statement(&mut self, of_text: Numbered) -> Result<(), RestoreError> {
        let Numbered { statement, place } = of_text;
        let Some(statement) = self.rewritten(statement)? else {
            return Ok(());
        };
        let class = self.class_of(&statement.text);
        self.has_unlogged |= may_be_unlogged(&statement.text);
        if self.chunks.job.definitions_only && !self.is_tried(&class, &statement.text) {
            return Ok(());
        }
        let creates_nothing = matches!(
            class,
            StatementClass::Setting { .. } | StatementClass::Transaction
        );
        self.clean &= creates_nothing;
        self.add_classified(class, Numbered { statement, place })?;
        if self.deferred.len() >= MAX_DEFERRED {
            self.flush()?;
        }
        Ok(())
    }

    /// Whether a rehearsal runs a statement: after rows that it has not loaded, only what needs none of them. It counts
    /// the definitions.
    fn is_tried(&self, class: &StatementClass, sql: &str) -> bool {
        if defines(sql) {
            let counter = &self.chunks.job.tried.definitions;
            counter.fetch_add(u64::from(!sets_owner(sql)), Relaxed);
            return true;
        }
        let needs_no_rows = matches!(
            class,
            StatementClass::Setting { .. }
                | StatementClass::ResetAll
                | StatementClass::DiscardAll
                | StatementClass::Transaction
                | StatementClass::Rollback
                | StatementClass::Sequence
        );
        self.passed.last.is_none() || needs_no_rows || creates_large_object(sql)
    }

    /// The statement as this server can run it, unless it is skipped.
    fn rewritten(&mut self, mut statement: Statement) -> Result<Option<Statement>, RestoreError> {
        self.chunks.wait(self.converter.statement(&mut statement))?;
        let rewriter = &self.chunks.job.rewriter;
        rewriter.respell(&mut statement);
        let is_left_out = rewriter.leaves_out(&statement.text);
        if let Some(masking) = &mut self.masking {
            let path = self.settings.get("search_path").unwrap_or_default();
            masking.learn(&statement, path)?;
            if !is_left_out && !masking.keeps(&statement)? {
                return Ok(None);
            }
        }
        if is_left_out {
            return Ok(None);
        }
        let Some(rewritten) = rewriter.statement(&statement.text, self.clean)? else {
            return Ok(None);
        };
        if !rewritten.roles.is_empty() {
            self.make_roles(rewritten.roles, statement.line)?;
        }
        Ok(Some(match rewritten.text {
            Cow::Owned(text) => Statement { text, ..statement },
            Cow::Borrowed(_) => statement,
        }))
    }

    fn class_of(&mut self, sql: &str) -> StatementClass {
        let class = classify(sql);
        self.definitions.learn(sql);
        self.has_post_data |= constrains_rows(&class, sql);
        if self.chunks.job.is_generic_sql {
            in_order(class)
        } else {
            class
        }
    }

    fn add_classified(
        &mut self,
        class: StatementClass,
        statement: Numbered,
    ) -> Result<(), RestoreError> {
        use StatementClass as Class;
        let group = self.order.group();
        match class {
            Class::Setting { name, sql } => self.set(name, sql)?,
            Class::ResetAll => self.reset_all()?,
            Class::DiscardAll => self.discard_all(&statement.statement)?,
            Class::Transaction if self.chunks.job.is_generic_sql => self.transaction(statement)?,
            Class::Transaction => {}
            Class::Alone => self.add_alone(statement)?,
            Class::Rollback => return Err(rollback(&statement.statement)),
            Class::Sequence if group == OrderGroup::Data => self.deferred.push(statement),
            Class::Late if matches!(group, OrderGroup::Build | OrderGroup::Keys) => {
                self.deferred.push(statement);
            }
            Class::Build {
                exclusive,
                shared,
                group,
            } => {
                let (exclusive, shared) = (self.tables(&exclusive), self.tables(&shared));
                self.add_build(statement, group, Locked { exclusive, shared })?;
            }
            Class::Sequence | Class::Late | Class::Serial => self.add_serial(statement)?,
        }
        Ok(())
    }

    fn reset_all(&mut self) -> Result<(), RestoreError> {
        self.flush()?;
        self.settings = Arc::new(self.settings.reset());
        Ok(())
    }

    /// Without the statements that this program has prepared.
    fn discard_all(&mut self, statement: &Statement) -> Result<(), RestoreError> {
        self.flush()?;
        self.settings = Arc::default();
        for text in ["DISCARD TEMP;", "DISCARD SEQUENCES;"] {
            self.add_serial(Numbered::unnumbered(Statement {
                text: text.to_owned(),
                line: statement.line,
                standard_strings: statement.standard_strings,
            }))?;
        }
        Ok(())
    }

    fn add_alone(&mut self, statement: Numbered) -> Result<(), RestoreError> {
        self.flush()?;
        let within = std::mem::replace(&mut self.in_transaction, true);
        self.statements(vec![statement], OrderGroup::Serial, Locked::default())?;
        self.in_transaction = within;
        Ok(())
    }

    fn tables(&mut self, names: &[String]) -> Vec<TableId> {
        names.iter().map(|name| self.order.table(name)).collect()
    }

    fn add_build(
        &mut self,
        statement: Numbered,
        group: OrderGroup,
        locked: Locked,
    ) -> Result<(), RestoreError> {
        if self.order.group() != group || !self.serial.is_empty() {
            self.flush()?;
            self.chunks
                .job
                .observer
                .advance(Stage::Data, Stage::Indexes);
        }
        self.statements(vec![statement], group, locked)
    }

    fn add_serial(&mut self, statement: Numbered) -> Result<(), RestoreError> {
        if !self.deferred.is_empty() {
            self.flush()?;
        }
        self.serial.push(statement);
        let bytes: usize = self.serial.iter().map(|s| s.statement.text.len()).sum();
        if self.serial.len() >= STEP_STATEMENTS || bytes >= STEP_BYTES {
            self.flush()?;
        }
        Ok(())
    }
}

/// A limit of this program: `psql` follows the text's own transactions and savepoints.
fn rollback(statement: &Statement) -> RestoreError {
    let line = statement.line;
    let what =
        format!("line {line}: ROLLBACK, which pg_dump never writes and a restore cannot follow");
    JobError::new(JobKind::LimitExceeded, what).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_ends_the_transaction_unless_another_one_follows() {
        for sql in [
            "COMMIT;",
            "END TRANSACTION;",
            "commit and no chain;",
            "COMMIT WORK AND NO CHAIN;",
        ] {
            assert!(ends_transaction(sql), "{sql}");
        }
        for sql in [
            "BEGIN;",
            "SAVEPOINT a;",
            "COMMIT AND CHAIN;",
            "COMMIT WORK AND CHAIN;",
            "end transaction and chain;",
        ] {
            assert!(!ends_transaction(sql), "{sql}");
        }
    }
}

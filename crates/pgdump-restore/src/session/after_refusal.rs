//! What a session does about definitions that the server refuses: it restores the rest of their transaction.

use std::collections::HashSet;
use std::sync::Arc;

use super::{RestoreSession, SETTINGS, Task, TaskStatements};
use crate::error::{DatabaseError, DatabaseKind, RestoreError};
use crate::ids::EntryIndex;
use crate::left_out::{RefusedPart, is_absent, is_stored, owner_of};
use crate::load_context::LoadContext;
use crate::parallelism::TaskCost;
use crate::postgres::kind_of_sqlstate;
use crate::refusal::Refusal;
use crate::refusals::{Named, is_duplicate, is_refusal, refusal_error};
use crate::script::{
    self, Defined, StatementClass, alone, can_be_left_out, defined_by, has_own_transaction,
    lacking, sequence_set_by,
};
use crate::work_record::{
    Body, DataSpan, EntryPart, RefusedDone, Spans, UnitId, names_record, reads_the_catalog,
    refreshes,
};
use crate::{conversion, ddl, extension_calls, hints};
use pgdump_archive::{Dialect, DumpId, EntryKind, TocEntry, TocSection, first_tokens, statements};

/// What the server refuses.
impl RestoreSession {
    /// Restores one entry by itself, without what the server refuses of it.
    pub(super) async fn alone(
        &mut self,
        job: &LoadContext,
        task: Task,
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        // One before it may have been refused.
        let Some(entry) = job
            .content
            .entry(task.entry)
            .filter(|e| !job.left_out.has(e))
        else {
            return Ok(());
        };
        let before = self.output.clone();
        let sql = self.output.sql_for_part(entry, task.step);
        let done = Body::of_entries(vec![task.part(job)]);
        let Err(e) = self.run_alone(job, sql, size, Some(done)).await else {
            return Ok(());
        };
        if !is_refusal(&e) || job.is_unexplained(&e) {
            return Err(explained(e, entry));
        }
        self.roll_back(before).await?;
        let e = of_set_role(e, entry);
        let unit = UnitId::of(entry);
        let owner = job.left_out.to_record(unit, RefusedPart::Owner, &e);
        if may_be_about_owner(&e, entry)
            && self.without_owner(job, (entry, vec![owner]), size).await?
        {
            job.refuse((entry, RefusedPart::Owner), e);
            return Ok(());
        }
        let e = of_method(e, entry);
        let method = job.left_out.to_record(unit, RefusedPart::Method, &e);
        if is_stored(entry) && self.as_heap(job, (entry, method), size).await? {
            job.refuse((entry, RefusedPart::Method), e);
        } else if has_independent_statements(entry) {
            self.each_statement(job, entry).await?;
        } else if says_absent(&e) && job.left_out.may_lack_object_of(entry) {
            job.left_out.leave_out_data(entry);
        } else if is_data(entry) && !job.definitions_only {
            return Err(explained(e, entry));
        } else {
            job.refuse((entry, RefusedPart::Whole), e);
        }
        Ok(())
    }

    /// Runs one statement, or those of one entry, in a transaction. `record`: what its record says.
    async fn run_alone(
        &mut self,
        job: &LoadContext,
        sql: String,
        size: TaskCost,
        record: Option<Body>,
    ) -> Result<(), DatabaseError> {
        let mut work = TaskStatements {
            sql: vec![sql],
            ..TaskStatements::default()
        };
        work.wrap_in_transaction(job, size);
        let ran = self.pipeline(job, work.sql, (record, work.is_long)).await;
        ran.map_err(|(_, e)| e)
    }

    /// Restores an entry for the restoring role instead of its owner; false if the server refuses that, too. `refused`: the
    /// parts that it then lacks.
    async fn without_owner(
        &mut self,
        job: &LoadContext,
        (entry, refused): (&TocEntry, Vec<RefusedDone>),
        size: TaskCost,
    ) -> Result<bool, RestoreError> {
        let ours = TocEntry {
            owner: String::new(),
            ..entry.clone()
        };
        let before = self.output.clone();
        let sql = self.output.sql_for(&ours);
        let done = partly_done(entry, refused);
        match self.run_alone(job, sql, size, Some(done)).await {
            Ok(()) => Ok(true),
            Err(e) if is_refusal(&e) => {
                self.roll_back(before).await?;
                Ok(false)
            }
            Err(e) => Err(explained(e, entry)),
        }
    }

    /// Restores a table as a heap, and without its owner if the server refuses that, too; false if it is not the access
    /// method that the server refuses, as `refused` says.
    async fn as_heap(
        &mut self,
        job: &LoadContext,
        (entry, refused): (&TocEntry, RefusedDone),
        size: TaskCost,
    ) -> Result<bool, RestoreError> {
        let heap = TocEntry {
            table_am: Some("heap".to_owned()),
            ..entry.clone()
        };
        let before = self.output.clone();
        let sql = self.output.sql_for(&heap);
        let done = partly_done(entry, vec![refused.clone()]);
        let Err(e) = self.run_alone(job, sql, size, Some(done)).await else {
            return Ok(true);
        };
        if !is_refusal(&e) {
            return Err(explained(e, entry));
        }
        self.roll_back(before).await?;
        let owner = job
            .left_out
            .to_record(UnitId::of(entry), RefusedPart::Owner, &e);
        let is_owner = may_be_about_owner(&e, &heap)
            && self
                .without_owner(job, (&heap, vec![owner, refused]), size)
                .await?;
        if is_owner {
            job.refuse((entry, RefusedPart::Owner), e);
        }
        Ok(is_owner)
    }

    /// Runs the statements of an entry one by one, without those that the server refuses.
    async fn each_statement(
        &mut self,
        job: &LoadContext,
        entry: &TocEntry,
    ) -> Result<(), RestoreError> {
        let settings = self.output.sql_before_data(entry);
        let settings = conversion::sendable(settings, &job.encoding);
        self.session.run(&settings).await?;
        for sql in statements(&entry.defn, Dialect::default()) {
            let ran = self
                .run_alone(job, sql.to_owned(), TaskCost::default(), None)
                .await;
            let Err(e) = ran else { continue };
            if !is_refusal(&e) || job.is_unexplained(&e) {
                return Err(explained(e, entry));
            }
            self.session.run("ROLLBACK").await?;
            job.refuse((entry, RefusedPart::Statement), e);
        }
        // Before that, privileges are granted and revoked again, which changes nothing.
        let done = partly_done(entry, vec![]);
        Ok(job.record.mark(&self.session, done).await?)
    }
}

/// An entry of which the server refused these parts.
fn partly_done(entry: &TocEntry, refused: Vec<RefusedDone>) -> Body {
    Body {
        refused,
        ..Body::of_entries(vec![(UnitId::of(entry), EntryPart::Whole)])
    }
}

/// Statements of fewer bytes are kept for being run one by one.
const KEPT: usize = 1 << 20;

/// A statement of SQL text, or its settings.
struct OfText {
    name: String,
    sql: String,
    under: Arc<script::Settings>,
    /// Where it is in the text.
    place: Option<DataSpan>,
}

impl OfText {
    /// What the record says once it has run.
    fn done(&self) -> Option<Body> {
        let mut statements = Spans::default();
        statements.push(self.place?);
        Some(Body {
            statements,
            ..Body::default()
        })
    }

    /// Writes down that the server refused it. What is left out with something else follows from that.
    fn refused(&self, job: &LoadContext, e: &DatabaseError) {
        if let Some(place) = self.place {
            let unit = UnitId(i64::try_from(place.from).unwrap_or(i64::MAX));
            job.note_refused(unit, RefusedPart::Whole, e);
        }
    }

    /// What the server said of it in an earlier attempt that it refused.
    fn refused_before(&self, job: &LoadContext) -> Option<DatabaseError> {
        job.refused_before(self.place?.from)
    }
}

impl TaskStatements {
    /// Whether what need not be in a transaction can be in one, with the record of it.
    fn can_be_recorded(&self) -> bool {
        let mut all = self.sql.iter().zip(&self.places);
        all.all(|(sql, place)| place.is_none() || has_own_transaction(sql))
    }

    /// What these statements take. The rows behind those of SQL text are known by the tables that they name: not those that fill
    /// a materialized view, nor those of the partitions that a foreign key is for.
    fn cost(&self, size: TaskCost) -> TaskCost {
        let may_be_long = |sql: &String| sql.contains("FOREIGN KEY") || refreshes(sql);
        let is_long = size.is_long || self.sql.iter().any(may_be_long);
        TaskCost { is_long, ..size }
    }

    fn each(&self) -> Vec<OfText> {
        let all = self.names.iter().zip(&self.sql).zip(&self.under);
        let all = all.zip(&self.places);
        let one = all.map(|(((name, sql), under), place)| OfText {
            name: name.clone(),
            sql: sql.clone(),
            under: under.clone(),
            place: *place,
        });
        one.collect()
    }
}

/// SQL text.
impl RestoreSession {
    /// Runs steps of SQL text in one transaction. If the server refuses one, and the text has no transactions of its own,
    /// the other statements are run one by one: those that precede the rows also if the load is to fail, which then names
    /// all that is refused.
    pub(super) async fn steps(
        &mut self,
        job: &LoadContext,
        tasks: &[Task],
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        let mut work = self.statements_of_steps(job, tasks);
        // What is as large as this defines nothing.
        let is_small = work.sql.iter().map(String::len).sum::<usize>() < KEPT;
        let is_wanted = job.left_out.skips() || job.is_before_rows_of_text() && is_small;
        let goes_on = is_wanted && !work.bare;
        let again = if goes_on { work.each() } else { vec![] };
        let is_left_out = |one: &OfText| {
            job.left_out.refused_setting(&one.under).is_some() || one.refused_before(job).is_some()
        };
        self.mind_the_record(job, &mut work).await?;
        let size = work.cost(size);
        if again.iter().any(is_left_out) {
            return self.each_of(job, again, size).await;
        }
        if !work.bare {
            work.wrap_in_transaction(job, size);
        }
        match self.send(job, tasks, work).await {
            Err(RestoreError::Database(e)) if goes_on && is_refusal(&e) => {
                self.session.run("ROLLBACK").await?;
                self.each_of(job, again, size).await
            }
            done => done,
        }
    }

    /// Ends the record before statements that it cannot be kept with.
    async fn mind_the_record(
        &mut self,
        job: &LoadContext,
        work: &mut TaskStatements,
    ) -> Result<(), DatabaseError> {
        if !job.record.is_on() {
            return Ok(());
        }
        if work.can_be_recorded() {
            work.bare = false;
        }
        if work.bare {
            work.record = None;
            let why = "statements of the text have a transaction of their own";
            return job.record.give_up(&self.session, why).await;
        }
        // Settings have no place.
        let all = || work.sql.iter().zip(&work.places);
        let has = |is: fn(&str) -> bool| all().any(|(sql, place)| place.is_some() && is(sql));
        if has(defines_reader) {
            job.record.reads_catalog();
        }
        let why = if has(may_have_record_schema) {
            "the text has a schema of its name"
        } else if job.record.may_be_read() && has(refreshes) {
            "a materialized view reads the catalog"
        } else {
            return Ok(());
        };
        job.record.leave(&self.session, why).await
    }

    async fn each_of(
        &mut self,
        job: &LoadContext,
        all: Vec<OfText>,
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        for one in all {
            if one.name == SETTINGS {
                self.settings(job, &one).await?;
            } else {
                self.statement(job, one, size).await?;
            }
        }
        Ok(())
    }

    /// Applies settings of SQL text. Some may be refused: what needs them is left out.
    async fn settings(&mut self, job: &LoadContext, all: &OfText) -> Result<(), RestoreError> {
        let set = self.session.run(&all.sql).await;
        if set.as_ref().err().is_none_or(|e| !is_refusal(e)) {
            return Ok(set.map_err(|e| e.context(SETTINGS))?);
        }
        for sql in statements(&all.sql, Dialect::default()) {
            let Err(e) = self.session.run(sql).await else {
                continue;
            };
            let is_this = |setting: &(&str, &str)| {
                let same = alone(setting.1) == alone(sql);
                same && can_be_left_out(setting.0)
            };
            let setting = all.under.iter().find(is_this);
            let Some((name, text)) = setting.filter(|_| is_refusal(&e)) else {
                return Err(e.context(SETTINGS).into());
            };
            job.left_out.refuse_setting(text, of_setting(e, name, text));
        }
        Ok(())
    }

    /// Runs one statement of SQL text, unless the server refuses it.
    async fn statement(
        &mut self,
        job: &LoadContext,
        one: OfText,
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        let OfText {
            name, sql, under, ..
        } = &one;
        let path = under.get("search_path").unwrap_or_default();
        if let Some(cause) = job.left_out.refused_setting(under) {
            let Some(defined) = defined_by(sql).or_else(|| sequence_set_by(sql)) else {
                return Err(refusal_error(vec![cause]).context(name).into());
            };
            job.left_out.leave_out_statement((&defined, path), &cause);
            return Ok(());
        }
        // What is no definition may be data.
        let of_definition = || extension_in_place_of(sql).or_else(|| defined_by(sql));
        if let Some(e) = one.refused_before(job)
            && let Some(defined) = of_definition().or_else(|| sequence_set_by(sql))
        {
            job.left_out.refuse_statement((&defined, path), (name, e));
            return Ok(());
        }
        let ran = self.run_alone(job, sql.clone(), size, one.done()).await;
        let Err(e) = ran else { return Ok(()) };
        let failed = |e| RestoreError::from(hints::with_hint(e, None).context(name));
        if let Some((defined, refusal)) = value_of_missing_sequence(job, sql, &e) {
            self.session.run("ROLLBACK").await?;
            job.left_out.leave_out_value(&defined, refusal);
            return Ok(());
        }
        let sequence = || sequence_set_by(sql).filter(|_| job.left_out.is_consequence(&e));
        let defined = of_definition().or_else(sequence);
        let is_refused = is_refusal(&e) && !job.is_unexplained(&e);
        let Some(defined) = defined.filter(|_| is_refused) else {
            return Err(failed(e));
        };
        self.session.run("ROLLBACK").await?;
        one.refused(job, &e);
        job.left_out.refuse_statement((&defined, path), (name, e));
        Ok(())
    }
}

/// What a load that is about to fail still finds out.
impl RestoreSession {
    /// Tries definitions that cost nothing, without keeping them, and notes those that the server refuses. Whatever else
    /// goes wrong is not the load's error.
    pub(crate) async fn try_each(&mut self, job: &LoadContext, left: &[EntryIndex]) {
        let entries = job.content.entries();
        let made: HashSet<DumpId> = entries
            .iter()
            .filter(|e| e.section == TocSection::PreData)
            .map(|e| e.dump_id)
            .collect();
        let left = left.iter().filter_map(|i| entries.get(i.0));
        let tried: Vec<&TocEntry> = left.filter(|e| can_be_tried(e, &made)).collect();
        // The one that stops the load is not finished, either.
        let named = job.left_out.named();
        let is_named = |e: &TocEntry| {
            let name = e.name();
            named.contains(&owner_of(&name)) || named.contains(&name)
        };
        for entry in tried {
            if !job.left_out.has(entry)
                && !is_named(entry)
                && self.try_alone(job, entry).await.is_err()
            {
                return;
            }
        }
    }

    async fn try_alone(
        &mut self,
        job: &LoadContext,
        entry: &TocEntry,
    ) -> Result<(), DatabaseError> {
        let Some(e) = self.try_and_undo(job, entry).await? else {
            return Ok(());
        };
        let e = of_set_role(e, entry);
        if !is_refusal(&e) || is_there(&e) {
            return Ok(());
        }
        let ours = TocEntry {
            owner: String::new(),
            ..entry.clone()
        };
        let is_about_owner =
            may_be_about_owner(&e, entry) && self.try_and_undo(job, &ours).await?.is_none();
        let part = if is_about_owner {
            RefusedPart::Owner
        } else {
            RefusedPart::Whole
        };
        job.refuse((entry, part), e);
        Ok(())
    }

    /// Returns what the server says against an entry, which does not stay.
    async fn try_and_undo(
        &mut self,
        job: &LoadContext,
        entry: &TocEntry,
    ) -> Result<Option<DatabaseError>, DatabaseError> {
        let before = self.output.clone();
        let sql = conversion::sendable(self.output.sql_for(entry), &job.encoding);
        // Another session may be loading the table.
        self.session
            .run("BEGIN; SET LOCAL lock_timeout = '200ms'")
            .await?;
        let ran = self.session.run(&sql).await;
        self.roll_back(before).await?;
        Ok(ran.err())
    }
}

/// Whether SQL text may have, from this statement on, a schema of the record's name. Indexes and keys, which other sessions build
/// at the same time, create none: the record cannot be dropped while those sessions write to it.
fn may_have_record_schema(sql: &str) -> bool {
    names_record(sql) && !matches!(script::classify(sql), StatementClass::Build { .. })
}

/// Whether a statement of SQL text creates something that may read the catalog when a materialized view is filled.
fn defines_reader(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), 4);
    let creates = t.first().is_some_and(|w| w.is("create"));
    let kinds = ["function", "materialized", "procedure", "rule", "view"];
    let is_kind = t.iter().any(|w| kinds.iter().any(|kind| w.is(kind)));
    creates && is_kind && reads_the_catalog(sql)
}

/// Whether the server says that something does not exist.
fn says_absent(e: &DatabaseError) -> bool {
    e.sqlstate().is_some_and(is_absent)
}

/// The value of a sequence in SQL text whose sequence is of an extension that was refused, and its own refusal.
fn value_of_missing_sequence(
    job: &LoadContext,
    sql: &str,
    e: &DatabaseError,
) -> Option<(Defined, Refusal)> {
    if !says_absent(e) || job.left_out.is_consequence(e) {
        return None;
    }
    let defined = sequence_set_by(sql)?;
    let name = defined.entry.strip_prefix("SEQUENCE SET ")?;
    let refusal = job
        .left_out
        .of_missing_extension(name, defined.entry.clone())?;
    Some((defined, refusal))
}

/// The extension that a statement refuses in the server's place.
fn extension_in_place_of(sql: &str) -> Option<Defined> {
    let extension = extension_calls::refused_extension(sql)?;
    Some(Defined {
        entry: format!("EXTENSION {extension}"),
        named: Some(Named {
            kind: "EXTENSION".to_owned(),
            schema: None,
            name: extension.to_owned(),
        }),
        table: None,
    })
}

/// Whether another session has restored an entry meanwhile.
fn is_there(e: &DatabaseError) -> bool {
    e.sqlstate().is_some_and(is_duplicate)
}

/// Whether an entry costs nothing and needs only what exists.
fn can_be_tried(entry: &TocEntry, made: &HashSet<DumpId>) -> bool {
    let is_cheap = matches!(
        entry.kind,
        EntryKind::Acl
            | EntryKind::AclLanguage
            | EntryKind::DefaultAcl
            | EntryKind::EventTrigger
            | EntryKind::Policy
            | EntryKind::Publication
            | EntryKind::PublicationTable
            | EntryKind::RowSecurity
            | EntryKind::Rule
            | EntryKind::Subscription
            | EntryKind::Trigger
    );
    is_cheap && entry.dependencies.iter().all(|id| made.contains(id))
}

fn explained(e: DatabaseError, entry: &TocEntry) -> RestoreError {
    hints::with_hint(e, Some(entry))
        .context(&entry.name())
        .into()
}

/// SET ROLE, which a group of large objects begins with, calls a missing role a wrong value, and messages about values are
/// dropped.
fn of_set_role(e: DatabaseError, entry: &TocEntry) -> DatabaseError {
    const WRONG_VALUE: &str = "22023";
    if entry.kind != EntryKind::BlobMetadata || e.sqlstate() != Some(WRONG_VALUE) {
        return e;
    }
    let what = format!("role \"{}\" does not exist", entry.owner);
    DatabaseError::new(DatabaseKind::RoleMissing, what).with_sqlstate("42704")
}

/// The server calls a missing access method a wrong value of a setting, and messages about values are dropped.
fn of_method(e: DatabaseError, entry: &TocEntry) -> DatabaseError {
    const WRONG_VALUE: &str = "22023";
    let is_of_value = e.sqlstate() == Some(WRONG_VALUE) && e.kind() == DatabaseKind::DataRejected;
    if !is_of_value || !is_stored(entry) {
        return e;
    }
    let method = entry.table_am.as_deref().unwrap_or_default();
    let what = format!("access method \"{method}\" does not exist");
    DatabaseError::new(kind_of_sqlstate("42704", &what), what.as_str()).with_sqlstate("42704")
}

/// The error of a setting, with what the server lacks.
fn of_setting(e: DatabaseError, name: &str, sql: &str) -> DatabaseError {
    const WRONG_VALUE: &str = "22023";
    let what = lacking(name, sql).filter(|_| e.sqlstate() == Some(WRONG_VALUE));
    match what {
        Some(what) => DatabaseError::new(kind_of_sqlstate("42704", &what), what.as_str())
            .with_sqlstate("42704"),
        None => e,
    }
}

/// Whether the server may have refused the owner of an entry, and not the entry.
fn may_be_about_owner(e: &DatabaseError, entry: &TocEntry) -> bool {
    matches!(e.sqlstate(), Some("42501" | "42704")) && ddl::names_owner(entry)
}

/// Whether an entry consists of privileges that can be granted without each other. Those that another role grants set the
/// session's role first.
fn has_independent_statements(entry: &TocEntry) -> bool {
    let is_acl = matches!(
        entry.kind,
        EntryKind::Acl | EntryKind::AclLanguage | EntryKind::DefaultAcl
    );
    is_acl && !ddl::grants_on_group(entry) && !entry.defn.contains("SESSION AUTHORIZATION")
}

/// Whether an entry has data of its own: leaving it out would lose what no definition brings back.
fn is_data(entry: &TocEntry) -> bool {
    matches!(
        entry.kind,
        EntryKind::SequenceSet | EntryKind::Blob | EntryKind::BlobMetadata
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_create_readers_of_the_catalog_are_known() {
        for (sql, is) in [
            ("CREATE VIEW v AS SELECT * FROM pg_class;", true),
            ("CREATE OR REPLACE FUNCTION f() … pg_tables …", true),
            (
                "CREATE MATERIALIZED VIEW m AS SELECT 1 FROM information_schema.tables",
                true,
            ),
            ("CREATE MATERIALIZED VIEW m AS SELECT 1 FROM t", false),
            ("CREATE TABLE t (a text DEFAULT 'pg_class')", false),
            ("COMMENT ON VIEW v IS 'reads pg_class'", false),
        ] {
            assert_eq!(defines_reader(sql), is, "{sql}");
        }
    }

    /// What the server refuses in a transaction is not recorded, and neither is what the text begins one with.
    #[test]
    fn statements_by_themselves_are_recorded_if_a_transaction_can_have_them() {
        let work = |sql: &str| TaskStatements {
            sql: vec!["SET a = 1;".into(), sql.into()],
            places: vec![None, Some(DataSpan::of_statement(3, sql.as_bytes()))],
            bare: true,
            ..TaskStatements::default()
        };
        for (sql, can) in [
            ("ALTER TABLE s.t ADD CONSTRAINT k PRIMARY KEY (a);", true),
            ("ALTER TYPE s.e ADD VALUE 'x';", true),
            ("CREATE INDEX CONCURRENTLY i ON s.t (a);", false),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY s.m;", false),
            ("BEGIN;", false),
            ("VACUUM;", false),
        ] {
            assert_eq!(work(sql).can_be_recorded(), can, "{sql}");
        }
    }

    #[test]
    fn the_record_is_not_dropped_beside_other_sessions() {
        for (sql, may) in [
            ("CREATE SCHEMA pgrestored_work;", true),
            ("CREATE TABLE pgrestored_work.t ();", true),
            ("CREATE INDEX pgrestored_work ON s.t (a);", false),
            ("CREATE SCHEMA s;", false),
        ] {
            assert_eq!(may_have_record_schema(sql), may, "{sql}");
        }
    }

    /// Otherwise a record that is to begin would wait for it.
    #[test]
    fn what_reads_rows_of_unknown_tables_may_take_long() {
        let cost_of = |sql: &str, size| {
            let work = TaskStatements {
                sql: vec!["SET a = 1;".into(), sql.into()],
                ..TaskStatements::default()
            };
            work.cost(size).is_long
        };
        for (sql, is_of_much, is_long) in [
            ("REFRESH MATERIALIZED VIEW s.m;", false, true),
            (
                "ALTER TABLE s.p ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.t(a);",
                false,
                true,
            ),
            ("CREATE INDEX i ON s.t (a);", false, false),
            ("CREATE INDEX i ON s.t (a);", true, true),
        ] {
            let size = TaskCost {
                is_long: is_of_much,
                ..TaskCost::default()
            };
            assert_eq!(cost_of(sql, size), is_long, "{sql}");
        }
    }

    #[test]
    fn a_missing_access_method_is_named_and_nothing_else_is_called_so() {
        let stored = TocEntry {
            table_am: Some("columnar".to_owned()),
            ..TocEntry::bare(1, "TABLE", "t")
        };
        let error = |kind: DatabaseKind, code: &str| {
            DatabaseError::new(kind, "statement: no").with_sqlstate(code)
        };
        let missing = of_method(error(DatabaseKind::DataRejected, "22023"), &stored);
        assert_eq!(
            (missing.sqlstate(), missing.to_string().as_str()),
            (Some("42704"), "access method \"columnar\" does not exist")
        );
        for (kind, code) in [
            (DatabaseKind::VersionIncompatible, "22023"),
            (DatabaseKind::VersionIncompatible, "0A000"),
            (DatabaseKind::StatementRejected, "XX000"),
        ] {
            let e = of_method(error(kind, code), &stored);
            assert_eq!(
                (e.sqlstate(), e.to_string().as_str()),
                (Some(code), "statement: no")
            );
        }
        let heap = TocEntry::bare(1, "TABLE", "t");
        let e = of_method(error(DatabaseKind::DataRejected, "22023"), &heap);
        assert_eq!(e.sqlstate(), Some("22023"));
    }
}

//! A restoring session: runs statements and settings in the transactions that they need.

use std::sync::Arc;

use pgdump_archive::TocEntry;

use crate::context::{LoadContent, LoadContext};
use crate::ddl::OutputState;
use crate::error::{DatabaseError, RestoreError, report};
use crate::locks::ConstraintStep;
use crate::parallelism::{MaintenanceWorkers, TaskCost};
use crate::postgres::Session;
use crate::pre_data::PreDataBatch;
use crate::script::{self, ScriptStep};
use crate::{conversion, hints, sort_memory};

/// Most pre-data entries in one transaction.
const PRE_DATA_BATCH: usize = 200;

/// A restoring session, which keeps track of its output settings.
pub(crate) struct RestoreSession {
    pub(crate) session: Session,
    output: OutputState,
    script: Arc<script::Settings>,
}

/// Entries that are created at once.
fn whole(indices: &[usize]) -> Vec<(usize, ConstraintStep)> {
    indices
        .iter()
        .map(|i| (*i, ConstraintStep::Whole))
        .collect()
}

impl RestoreSession {
    /// Connects and applies the settings that the dump expects.
    pub(crate) async fn open(job: &LoadContext) -> Result<RestoreSession, DatabaseError> {
        let session = job
            .server
            .discarding_rows()
            .connect(&job.database, "restore")
            .await?;
        session.run(&job.settings.session_sql()).await?;
        if job.is_generic_sql {
            // pg_dump's text qualifies names or sets the path itself; other text relies on the default.
            session
                .run("RESET search_path; RESET check_function_bodies; RESET row_security")
                .await?;
        }
        if job.fills_server {
            // One core each: parallel workers would take time from the other sessions.
            session
                .run("SET max_parallel_maintenance_workers = 0")
                .await?;
        }
        Ok(RestoreSession {
            session,
            output: OutputState::new(&job.settings),
            script: Arc::default(),
        })
    }

    /// Applies the settings that the data of `index` needs.
    pub(crate) async fn before_data(
        &mut self,
        job: &LoadContext,
        index: usize,
        entry: &TocEntry,
    ) -> Result<(), RestoreError> {
        let settings = match job.content.step(index, false).as_deref() {
            Some(ScriptStep::Data { settings, .. }) => self.script_settings(settings),
            _ => self.output.sql_before_data(entry),
        };
        if !settings.is_empty() {
            self.session
                .run(&conversion::sendable(settings, &job.encoding))
                .await?;
        }
        Ok(())
    }

    fn script_settings(&mut self, wanted: &Arc<script::Settings>) -> String {
        let sql = wanted.after(&self.script);
        self.script = wanted.clone();
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
            self.session
                .pipeline(&sql)
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
    ) -> Result<Vec<usize>, RestoreError> {
        let mut left = batch.entries.as_slice();
        while !left.is_empty() {
            let (now, later) = left.split_at(left.len().min(PRE_DATA_BATCH));
            let before = self.output.clone();
            if let Err(e) = self.tasks(job, &whole(now), TaskCost::default()).await {
                if !batch.may_fail {
                    return Err(e);
                }
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

    /// Runs the statements of these entries in one transaction.
    pub(crate) async fn tasks(
        &mut self,
        job: &LoadContext,
        tasks: &[(usize, ConstraintStep)],
        size: TaskCost,
    ) -> Result<(), RestoreError> {
        let (mut sql, mut names): (Vec<String>, Vec<String>) = Default::default();
        let mut steps = vec![];
        for (index, part) in tasks.iter().copied() {
            if let LoadContent::Toc(entries) = &job.content {
                sql.push(self.output.sql_for_part(&entries[index], part));
                names.push(entries[index].name());
            } else {
                steps.extend(job.content.step(index, true));
            }
        }
        let (mut bare, mut permits) = (false, vec![]);
        for step in steps {
            // Nobody else needs this step, so its text, which may be large, is not copied.
            let Ok(ScriptStep::Statements(step)) = Arc::try_unwrap(step) else {
                continue;
            };
            sql.push(self.script_settings(&step.settings));
            names.push("settings".to_owned());
            let words = |sql: &str| job.encoding.for_display(&first_words(sql));
            names.extend(
                step.list
                    .iter()
                    .map(|s| format!("line {}: {}", s.line, words(&s.text))),
            );
            sql.extend(
                step.list
                    .into_iter()
                    .map(|s| conversion::sendable(s.text, &job.encoding)),
            );
            bare |= step.bare;
            permits.push(step.permit);
        }
        if bare {
            let failed = |(at, e)| of_statement(hints::with_hint(e, None), &names, at);
            return self.session.pipeline_of(sql).await.map_err(failed);
        }
        let mut begin = vec!["BEGIN".to_owned()];
        if size.workers != MaintenanceWorkers::No {
            begin.push("SET LOCAL max_parallel_maintenance_workers TO DEFAULT".to_owned());
        }
        if job.fills_server && size.workers != MaintenanceWorkers::Now {
            // With so little memory, the server starts no parallel workers.
            begin.extend(
                sql.iter()
                    .find_map(|sql| sort_memory::memory_for(sql, size.rows)),
            );
        }
        let mut sql: Vec<String> = sql
            .into_iter()
            .map(|sql| conversion::sendable(sql, &job.encoding))
            .collect();
        sql.insert(0, begin.join("; "));
        names.insert(0, "begin of a transaction".to_owned());
        sql.push("COMMIT".to_owned());
        self.session.pipeline_of(sql).await.map_err(|(at, e)| {
            let entry = match (&job.content, at.checked_sub(1).and_then(|i| tasks.get(i))) {
                (LoadContent::Toc(entries), Some((index, _))) => Some(&entries[*index]),
                _ => None,
            };
            of_statement(hints::with_hint(e, entry), &names, at)
        })
    }
}

/// The error of one of several statements.
fn of_statement(e: DatabaseError, names: &[String], at: usize) -> RestoreError {
    e.context(names.get(at).map_or("end of a transaction", String::as_str))
        .into()
}

/// The first words of a statement, without any value.
fn first_words(sql: &str) -> String {
    let line = sql.lines().next().unwrap_or_default();
    line.split('\'')
        .next()
        .unwrap_or_default()
        .chars()
        .take(80)
        .collect()
}

//! The end of the work on a restored database that nobody else sees yet: the requester's own SQL, and then checks.

use std::sync::Arc;

use pgdump_restore::{Mark, Stage};

use super::job_context::JobContext;
use super::states::Proven;
use crate::backup::PinnedBackup;
use crate::database::{Staging, TargetLock};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::job::{FinishedSql, FinishingFile, RestoreJob};
use crate::proof::CheckStatus;
use crate::verification::{self, AskedDatabase, ChecksFile};

/// Most checks that an error names.
const NAMED: usize = 5;

/// What finishes a restore, read and checked before anything is loaded.
#[derive(Default)]
pub(super) struct FinishingSteps {
    files: Vec<Arc<FinishingFile>>,
    checks: Option<ChecksFile>,
}

/// What was done.
#[derive(Default)]
pub(super) struct Finished {
    pub(super) sql: Vec<FinishedSql>,
    pub(super) notes: Vec<String>,
}

impl FinishingSteps {
    /// Reads what the job names.
    ///
    /// # Errors
    /// `invalid_request` for what does not exist or cannot be run; the errors of the store.
    pub(super) async fn of(context: &JobContext<'_, RestoreJob>) -> Result<Self, RestoreError> {
        let finishing = &context.job.finish;
        let mut files = finishing.files.clone();
        files.extend(context.catalog().finishing_files(&finishing.names).await?);
        let checks = match (&finishing.checks, &finishing.checks_name) {
            (Some(document), _) => Some(ChecksFile::parse_as("--finish-checks", document)?),
            (None, Some(name)) => {
                let document = context.catalog().finishing_checks(name).await?;
                Some(ChecksFile::parse_as("finish_checks", &document)?)
            }
            (None, None) => None,
        };
        Ok(FinishingSteps { files, checks })
    }

    /// SHA-256 of each file of SQL, in hexadecimal.
    pub(super) fn digests(&self) -> Vec<String> {
        self.files.iter().map(|f| f.sha256.clone()).collect()
    }

    /// Ends the record of the work if something of this may list objects of the database, and would find it among them.
    async fn hide_record(
        &self,
        claimed: &TargetLock,
        staging: &Staging,
    ) -> Result<(), RestoreError> {
        let may_see = self.checks.is_some() || self.files.iter().any(|f| f.sql.reads_catalog());
        if may_see {
            let has_sql = !self.files.is_empty();
            claimed.end_record(staging, has_sql).await?;
        }
        Ok(())
    }

    /// Runs everything as the role that has loaded the database. SQL that an earlier attempt has run is not run again.
    ///
    /// # Errors
    /// As [`TargetLock::end_record`] and [`pgdump_restore::finish`]; `verification_failed` if a check does not pass.
    pub(super) async fn run(
        &self,
        context: &JobContext<'_, RestoreJob>,
        (claimed, proven, backup): (&TargetLock, &Proven, Option<&PinnedBackup>),
    ) -> Result<Finished, RestoreError> {
        let mut finished = Finished::default();
        if self.files.is_empty() && self.checks.is_none() {
            return Ok(finished);
        }
        context.progress.enter(Stage::Finish);
        let _step = context.progress.long_step();
        self.hide_record(claimed, &proven.staging).await?;
        // What a file has done must not be done again, and its savepoints are only known from its row.
        claimed.store_now().await?;
        let (server, database) = (&proven.server, proven.staging.name.as_str());
        let record = proven.record.as_ref();
        for (number, file) in (0_u32..).zip(&self.files) {
            let begun = tokio::time::Instant::now();
            let limit = context.config().finish_timeout;
            if !record.resumed().has(Mark::Finished(number)) {
                let run = pgdump_restore::finish(
                    server,
                    database,
                    &file.sql,
                    limit,
                    Some(record),
                    number,
                );
                run.await?;
            }
            finished.sql.push(FinishedSql {
                name: file.sql.name().to_owned(),
                sha256: file.sha256.clone(),
                seconds: begun.elapsed().as_secs_f64(),
            });
        }
        let Some(file) = &self.checks else {
            return Ok(finished);
        };
        let config = &context.config().verify;
        let set = backup.map_or("", |b| config.set_of(&b.object.name));
        let asked = AskedDatabase {
            server,
            database,
            backup_created: backup.map_or_else(jiff::Timestamp::now, |b| b.object.created),
        };
        let answers = verification::ask_all(&asked, &file.of_set(set)).await?;
        let open: Vec<String> = answers
            .iter()
            .filter(|c| c.status != CheckStatus::Passed)
            .map(|c| format!("{}: {}", c.title(), c.message))
            .collect();
        let all = answers.len();
        if open.is_empty() {
            let note = format!("checks of {}: {all} passed", file.path);
            finished.notes.push(note);
            return Ok(finished);
        }
        let what = format!(
            "checks of {}: {} of {all} did not pass: {}",
            file.path,
            open.len(),
            open.iter()
                .take(NAMED)
                .cloned()
                .collect::<Vec<_>>()
                .join("; ")
        );
        Err(ValidationError::new(ValidationKind::VerificationFailed, what).into())
    }
}

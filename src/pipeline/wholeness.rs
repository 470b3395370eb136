//! Whether a backup holds a whole database, and what one without rows may replace.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::context::JobContext;
use super::stages::{LoadedStaging, Proven};
use super::targets;
use crate::database::TargetLock;
use crate::error::{RestoreError, ValidationError, ValidationKind, report as said};
use crate::job::RestoreJob;
use crate::postgres::{Server, map_pg_error};
use crate::proof::{BackupContents, VerificationReport};
use crate::verification::{self, Checks, DriftPolicy, History, SeenData};
use pgdump_archive::{ContentDigest, DataCoverage};

/// How long it may take to look for rows in a database: its tables may be locked.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Whether a database has tables of its own, and whether anything has been stored in them or in large objects.
const STORED_ROWS: &str = "SELECT count(*) > 0,
    coalesce(bool_or(pg_catalog.pg_relation_size(c.oid) > 0), false)
      OR EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
  FROM pg_catalog.pg_class c
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND c.oid >= 16384
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')";

/// What a verification sees of an archive.
pub(super) struct SeenArchive {
    /// Empty while SQL text was not read to its end.
    pub(super) coverage: Arc<OnceLock<DataCoverage>>,
    pub(super) content_digest: Arc<ContentDigest>,
    pub(super) checks: Checks,
}

/// What a database holds.
struct StoredRows {
    has_tables: bool,
    has_rows: bool,
}

impl SeenArchive {
    /// What of a database the archive holds, as far as it has been read.
    pub(super) fn contents(&self) -> Option<BackupContents> {
        let coverage = self.coverage.get()?;
        Some(verification::contents_of(coverage, &self.checks.drift))
    }

    /// The same once it was restored; where the archive does not say it, the database may.
    pub(super) async fn restored_contents(&self, loaded: &LoadedStaging) -> Option<BackupContents> {
        match self.contents() {
            Some(contents) => Some(contents),
            None => contents_in(&loaded.server, &loaded.staging.name).await,
        }
    }

    /// The same beside the last proven backup.
    pub(super) fn contents_beside(
        &self,
        report: &VerificationReport,
        history: &History,
    ) -> Option<BackupContents> {
        if !self.content_digest.counts_rows() {
            return report.contents;
        }
        let seen = SeenData {
            tables: &report.tables,
            large_objects: report.large_objects,
            coverage: self.coverage.get(),
        };
        verification::contents_beside(report.contents, &seen, history, &self.checks.drift)
    }

    /// The names of what has no data in it, if it lacks that of some.
    pub(super) fn without_data(&self, contents: Option<BackupContents>) -> Vec<String> {
        let lacks = matches!(
            contents,
            Some(BackupContents::Partial | BackupContents::UsualPart)
        );
        let coverage = self.coverage.get().filter(|_| lacks);
        coverage.map_or(vec![], |c| {
            verification::without_data(c, &self.checks.drift)
        })
    }

    /// What the backup lacks, and what follows.
    pub(super) fn note(&self, report: &VerificationReport) -> Option<String> {
        let contents = report.contents;
        let note = verification::note_of(contents, self.coverage.get(), &self.checks.drift)?;
        if report.part().is_none() && contents == Some(BackupContents::Partial) {
            return Some(format!(
                "{note}: whether that is usual is compared once it is restored (depth `restore` or `data`)"
            ));
        }
        if contents == Some(BackupContents::UsualPart) {
            return Some(format!(
                "{note}: so it was in an earlier proven backup, or none is known; if they should have data, see which options the backup job gives pg_dump"
            ));
        }
        Some(format!(
            "{note}: it replaces no whole backup (`latest-proven`, prune, freshness)"
        ))
    }
}

/// Before anything is restored: refuses an archive without rows in the place of rows, and definitions alone where the
/// archive has more. Nothing is known of SQL text here.
///
/// # Errors
/// `target_not_allowed`.
pub(super) async fn check_archive(
    context: &JobContext<'_, RestoreJob>,
    claimed: &TargetLock,
    coverage: Option<&DataCoverage>,
) -> Result<(), RestoreError> {
    let Some(coverage) = coverage else {
        return Ok(());
    };
    let contents = verification::contents_of(coverage, &DriftPolicy::default());
    check_replacement(context, claimed, (Some(contents), coverage.data > 0)).await
}

/// The same once it was loaded, of SQL text, too. Returns what of a database the backup holds.
///
/// # Errors
/// `target_not_allowed`, and `invalid_request` for rows of SQL text that were to be left out.
pub(super) async fn check_loaded(
    context: &JobContext<'_, RestoreJob>,
    claimed: &TargetLock,
    (proven, coverage): (&Proven, Option<&DataCoverage>),
) -> Result<Option<BackupContents>, RestoreError> {
    let selection = &context.job.selection;
    let archived = coverage.map(|c| verification::contents_of(c, &DriftPolicy::default()));
    if selection.data_only {
        return Ok(archived);
    }
    let has_rows = proven.loaded.rows > 0;
    if selection.schema_only && has_rows {
        let what = "the SQL text has rows, and --schema-only leaves out rows of an archive with a table of contents only (pg_dump -Fc, -Fd, -Ft)";
        return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
    }
    let contents = match archived {
        Some(contents) => Some(contents),
        None if has_rows => None,
        None => contents_in(&proven.server, &proven.staging.name).await,
    };
    let has_data = coverage.map_or(has_rows, |c| c.data > 0);
    check_replacement(context, claimed, (contents, has_data)).await?;
    Ok(contents)
}

/// What a backup that was restored lacks.
pub(super) fn note_of(
    contents: Option<BackupContents>,
    coverage: Option<&DataCoverage>,
) -> Option<String> {
    verification::note_of(contents, coverage, &DriftPolicy::default())
}

async fn check_replacement(
    context: &JobContext<'_, RestoreJob>,
    claimed: &TargetLock,
    (contents, has_data): (Option<BackupContents>, bool),
) -> Result<(), RestoreError> {
    let (job, server) = (context.job, &context.services.server);
    if job.selection.data_only || claimed.previous_name().is_none() {
        return Ok(());
    }
    let has_no_rows = contents == Some(BackupContents::SchemaOnly);
    if job.selection.schema_only {
        return if has_data && !has_no_rows {
            Err(targets::replaces_nothing())
        } else {
            Ok(())
        };
    }
    if !has_no_rows || !may_have_rows(server, &job.target_db).await {
        return Ok(());
    }
    let what = format!(
        "the backup has tables and no rows (pg_dump --schema-only), and would replace the rows of {}: choose another backup; if an empty database is meant, add --schema-only (in a request, select.schema_only)",
        job.target_db
    );
    Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into())
}

/// Whether a database has rows, or that cannot be found out.
async fn may_have_rows(server: &Server, database: &str) -> bool {
    let found = stored_rows(server, database).await;
    found.is_none_or(|found| found.has_rows)
}

/// What a restored database shows of its backup: only that it has tables, and rows in none.
async fn contents_in(server: &Server, database: &str) -> Option<BackupContents> {
    let found = stored_rows(server, database).await?;
    (found.has_tables && !found.has_rows).then_some(BackupContents::SchemaOnly)
}

/// What a database holds; `None` if that cannot be found out.
async fn stored_rows(server: &Server, database: &str) -> Option<StoredRows> {
    let look = async {
        let session = server.connect(database, "contents").await?;
        let row = session.client().query_one(STORED_ROWS, &[]).await;
        let row = row.map_err(|e| map_pg_error(&e, "looking for rows"))?;
        Ok::<_, RestoreError>(StoredRows {
            has_tables: row.get(0),
            has_rows: row.get(1),
        })
    };
    match tokio::time::timeout(LOOK_LIMIT, look).await {
        Ok(Ok(found)) => Some(found),
        Ok(Err(e)) => {
            tracing::debug!(error = said(&e), "whether a database has rows is not known");
            None
        }
        Err(_) => {
            tracing::debug!("whether a database has rows was not found out in time");
            None
        }
    }
}

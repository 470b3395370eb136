//! What a restore may replace: a backup without rows replaces no rows, unless the request asks for that.

use super::job_context::JobContext;
use super::states::Proven;
use super::stored_rows::{contents_in, may_have_rows};
use super::targets;
use crate::database::TargetLock;
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::event::RestoreResult;
use crate::job::RestoreJob;
use crate::proof::BackupContents;
use crate::verification::{self, DriftPolicy};
use pgdump_archive::DataCoverage;

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

/// The same of a load that an earlier attempt has completed: the target may be another one by now. What has a table of contents
/// was checked with it.
///
/// # Errors
/// `target_not_allowed`.
pub(super) async fn check_sealed(
    context: &JobContext<'_, RestoreJob>,
    claimed: &TargetLock,
    (sealed, coverage): (Option<&RestoreResult>, Option<&DataCoverage>),
) -> Result<(), RestoreError> {
    let Some(sealed) = sealed.filter(|_| coverage.is_none()) else {
        return Ok(());
    };
    let loaded = (sealed.contents, sealed.rows > 0);
    check_replacement(context, claimed, loaded).await
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
        "the backup has tables and no rows (pg_dump --schema-only), and would replace the rows of {}: choose another backup; if you want an empty database, add --schema-only (in a request, select.schema_only)",
        job.target_db
    );
    Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into())
}

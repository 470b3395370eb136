//! Compares a backup with the target server before anything is restored.

use tokio_util::sync::CancellationToken;

use super::context::Services;
use super::placement::facts_for_database;
use crate::backup::PinnedBackup;
use crate::error::RestoreError;
use pgdump_archive::Archive;
use pgdump_restore::{Finding, Requirements, Rewriter};

/// What would keep the backup from being restored under the configured policy, and what is worth knowing.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub(crate) async fn preflight(
    services: &Services,
    archive: &Archive,
    pinned: Option<&PinnedBackup>,
) -> Result<Vec<Finding>, RestoreError> {
    let session = services.server.maintenance("preflight").await?;
    let policy = services.config.policy.clone();
    let globals = services
        .catalog
        .globals(&policy, pinned, &CancellationToken::new())
        .await?;
    let facts = session.facts().await?;
    // The target database is not known here.
    let any = facts.cron_database.clone().unwrap_or_default();
    let facts = facts_for_database(facts, &any, &any);
    let rewriter = Rewriter::new(facts, policy, globals);
    let entries = archive.entries();
    let needs = Requirements::of(archive, entries, pinned.map(|b| b.object.size));
    Ok(pgdump_restore::preflight(
        archive, entries, &needs, &rewriter,
    ))
}

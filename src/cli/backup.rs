//! The backup that a command line names.

use std::path::Path;

use crate::config::Config;
use crate::error::{FailureReason, RestoreError, ValidationError, ValidationKind};
use crate::job::BackupRef;

/// Whether `backup` is neither a URI, nor a path, nor standard input.
fn is_name(backup: &str) -> bool {
    !backup.contains("://") && !backup.starts_with(['/', '.', '-'])
}

/// The backup named `backup`; `latest` and `latest-proven` are of `database`, if it is given. If BACKUP_BUCKET is not set, a
/// file of this name in the current folder is meant, and the user is told so.
///
/// # Errors
/// `invalid_request`.
pub(super) fn backup_of(
    config: &Config,
    backup: &str,
    (prefix, database): (&str, Option<&str>),
) -> Result<BackupRef, RestoreError> {
    let wanted = if !config.is_bucket_set && is_name(backup) && Path::new(backup).exists() {
        err!("BACKUP_BUCKET is not set: taking the file ./{backup}");
        BackupRef::parse(&format!("./{backup}"), prefix)?
    } else {
        BackupRef::parse(backup, prefix)?.of_database(database)
    };
    if !prefix.is_empty() && !matches!(wanted, BackupRef::Latest(_)) {
        let what = "--prefix is only for latest and latest-proven: a name has its prefix already";
        return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
    }
    Ok(wanted)
}

/// Checks that a backup set exists, if one is named.
///
/// # Errors
/// `invalid_request`.
pub(super) fn check_set(config: &Config, wanted: Option<&str>) -> Result<(), RestoreError> {
    let mut names = config.verify.sets.iter().map(|set| set.name.as_str());
    let Some(wanted) = wanted.filter(|wanted| !names.any(|name| name == *wanted)) else {
        return Ok(());
    };
    let all: Vec<&str> = config.verify.sets.iter().map(|s| s.name.as_str()).collect();
    let what = format!(
        "--set: there is no backup set {wanted}: name one of BACKUP_SETS ({})",
        all.join(", ")
    );
    Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
}

/// A hint for a backup that was not found in BACKUP_BUCKET but exists as a local file.
pub(super) fn hint_of(backup: &str, reason: FailureReason) -> Option<String> {
    let is_here = is_name(backup) && Path::new(backup).exists();
    (reason == FailureReason::BackupNotFound && is_here)
        .then(|| format!("to use the file {backup} in the current folder, write ./{backup}"))
}

//! The backup that a command line names.

use std::path::Path;

use crate::config::Config;
use crate::error::{FailureReason, RestoreError, ValidationError, ValidationKind};
use crate::job::BackupRef;

/// Whether `backup` is neither a URI, nor a path, nor standard input.
fn is_name(backup: &str) -> bool {
    !backup.contains("://") && !backup.starts_with(['/', '.', '-'])
}

/// The backup named `backup`; `latest` and `latest-proven` are below `prefix` and of `database`, if that is given. If
/// BACKUP_BUCKET is not set, a file of this name in the current folder is meant, and the user is told so.
///
/// # Errors
/// `invalid_request`, also for a prefix of a backup that is named.
pub(super) fn backup_of(
    config: &Config,
    backup: &str,
    (prefix, database): (&str, Option<&str>),
) -> Result<BackupRef, RestoreError> {
    let found = if is_local(config, backup) {
        err!("BACKUP_BUCKET is not set: taking the file ./{backup}");
        BackupRef::parse(&format!("./{backup}"), prefix)?
    } else {
        BackupRef::parse(backup, prefix)?.of_database(database)
    };
    if !prefix.is_empty() && !matches!(found, BackupRef::Latest(_)) {
        let what = format!(
            "--prefix: it is where latest and latest-proven search, and {backup} names a backup: leave it out, or write the whole name"
        );
        return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
    }
    Ok(found)
}

/// Whether `backup` names a file of the current folder, because BACKUP_BUCKET is not set.
pub(super) fn is_local(config: &Config, backup: &str) -> bool {
    !config.is_bucket_set && is_name(backup) && Path::new(backup).exists()
}

/// Whether `backup` is a path or standard input: of this machine, wherever that is.
pub(super) fn is_of_this_machine(backup: &str) -> bool {
    let is_path = ["/", "./", "../"].iter().any(|p| backup.starts_with(p));
    is_path || backup == "-"
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn a_prefix_belongs_to_latest_alone() {
        let flags = [("backup-bucket", "gs://backups")];
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let of = |backup: &str, prefix: &str| backup_of(&config, backup, (prefix, None));
        for backup in ["latest", "latest-proven", "latest@2026-11-20"] {
            assert!(of(backup, "orders/").is_ok(), "{backup}");
        }
        for backup in ["a.dump", "./a.dump", "gs://backups/a.dump", "-"] {
            assert!(of(backup, "").is_ok(), "{backup}");
            let e = of(backup, "orders/").unwrap_err();
            assert_eq!(e.reason(), FailureReason::InvalidRequest);
            assert!(
                e.to_string().contains(&format!("{backup} names a backup")),
                "{e}"
            );
        }
    }

    #[test]
    fn paths_and_standard_input_are_of_this_machine() {
        for (backup, is) in [
            ("-", true),
            ("/a.dump", true),
            ("./a.dump", true),
            ("../a.dump", true),
            ("a.dump", false),
            (".a.dump", false),
            ("gs://b/a.dump", false),
            ("latest", false),
        ] {
            assert_eq!(is_of_this_machine(backup), is, "{backup}");
        }
    }
}

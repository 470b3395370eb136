//! The backup that a command line names.

use std::path::Path;

use crate::config::{Config, Location};
use crate::error::{FailureReason, RestoreError, ValidationError, ValidationKind};
use crate::job::{BackupRef, Generation, LatestBackup};

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

/// Fewest digits of a generation behind a name: Cloud Storage numbers them by microseconds.
const GENERATION_DIGITS: usize = 12;

/// The name and the generation in NAME#GENERATION, as gcloud writes it; otherwise, the generation that is given. The names of
/// files on this machine are taken as they are.
///
/// # Errors
/// `invalid_request` if both are given.
pub(super) fn with_generation<'a>(
    config: &Config,
    backup: &'a str,
    given: Option<Generation>,
) -> Result<(&'a str, Option<Generation>), RestoreError> {
    let is_in_folder = matches!(config.bucket, Location::Folder(_)) && is_name(backup);
    let is_local = is_in_folder || is_local(config, backup) || is_of_this_machine(backup);
    if is_local || backup.starts_with("file://") {
        return Ok((backup, given));
    }
    let named = backup.rsplit_once('#').filter(|(_, digits)| {
        digits.len() >= GENERATION_DIGITS && digits.bytes().all(|b| b.is_ascii_digit())
    });
    let named = named.and_then(|(name, digits)| Some((name, digits.parse::<Generation>().ok()?)));
    match (named, given) {
        (None, given) => Ok((backup, given)),
        (Some((name, generation)), None) => Ok((name, Some(generation))),
        (Some(_), Some(_)) => {
            let what = format!("--generation: {backup} names a generation already: leave one out");
            Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
        }
    }
}

/// The same backup; `latest-proven` may then also be a former generation of an object.
///
/// # Errors
/// `invalid_request` with another backup.
pub(super) fn of_generations(backup: BackupRef, versions: bool) -> Result<BackupRef, RestoreError> {
    match backup {
        backup if !versions => Ok(backup),
        BackupRef::Latest(wanted) if wanted.is_proven => Ok(BackupRef::Latest(LatestBackup {
            of_all_generations: true,
            ..wanted
        })),
        _ => {
            let what = "--versions: it belongs to latest-proven; latest@TIME chooses among former generations without it, and NAME#GENERATION is one of them";
            Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
        }
    }
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
    fn a_generation_may_follow_the_name_of_an_object() {
        let flags = [("backup-bucket", "gs://backups")];
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let generation = Some(Generation(1_795_312_800_000_000));
        for (backup, wanted) in [
            ("a.dump#1795312800000000", ("a.dump", generation)),
            ("gs://b/a#1#1795312800000000", ("gs://b/a#1", generation)),
            ("a.dump#1", ("a.dump#1", None)),
            ("a.dump", ("a.dump", None)),
            ("./a#1795312800000000", ("./a#1795312800000000", None)),
            (
                "file:///a#1795312800000000",
                ("file:///a#1795312800000000", None),
            ),
        ] {
            let found = with_generation(&config, backup, None).unwrap();
            assert_eq!(found, wanted, "{backup}");
        }
        let given = with_generation(&config, "a.dump", generation).unwrap();
        assert_eq!(given, ("a.dump", generation));
        let e = with_generation(&config, "a.dump#1795312800000000", generation).unwrap_err();
        assert_eq!(e.reason(), FailureReason::InvalidRequest);
    }

    #[test]
    fn former_generations_belong_to_latest_proven() {
        let parse = |text: &str| BackupRef::parse(text, "").unwrap();
        let BackupRef::Latest(wanted) = of_generations(parse("latest-proven"), true).unwrap()
        else {
            panic!("not the latest");
        };
        assert!(wanted.of_all_generations);
        for text in ["latest", "latest@2d", "a.dump"] {
            assert!(of_generations(parse(text), false).is_ok());
            assert!(of_generations(parse(text), true).is_err(), "{text}");
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

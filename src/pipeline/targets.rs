//! Which databases a restore may replace, and under which conditions.

use crate::admission::fits;
use crate::config::{Config, Trust};
use crate::database::{ClaimPolicy, ResumeTerms};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::job::{self, OnExisting, RestoreJob};
use crate::policy::Selection;

/// Whether a database may be restored into at all.
///
/// # Errors
/// `target_not_allowed`; `invalid_request` for what cannot be a name.
pub(crate) fn check_target(config: &Config, name: &str) -> Result<(), RestoreError> {
    check_database(config, "target_db", name)
}

/// The same for a database that is filled or not: filling one touches nothing that is in it.
///
/// # Errors
/// As [`check_target`].
pub(crate) fn check_restore(
    config: &Config,
    name: &str,
    is_fill: bool,
) -> Result<(), RestoreError> {
    if !is_fill {
        return check_target(config, name);
    }
    job::check_fill_target(name)?;
    check_limits(config, "target_db", name)
}

/// Whether a restore under this trust may fill a database. Code of an untrusted backup runs as a role of its own, in a
/// database that nobody else can connect to, and everything gets its final owner at the end. None of that is possible
/// in a database that may have another owner and was open before.
///
/// # Errors
/// `target_not_allowed`.
pub(super) fn check_trust(on_existing: OnExisting, trust: Trust) -> Result<(), RestoreError> {
    if on_existing != OnExisting::Fill || trust == Trust::Full {
        return Ok(());
    }
    let what = "a restricted restore cannot fill an existing database (--into-empty, in a request on_existing: fill): it needs a database of \
        its own; restore into a new database, or with BACKUP_TRUST=full (TRUSTED_SOURCES for other buckets) if you trust the backup";
    Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into())
}

/// Whether a worker has a target server.
///
/// # Errors
/// `target_not_allowed`.
pub(crate) fn check_served(config: &Config) -> Result<(), RestoreError> {
    if !config.only_verifies {
        return Ok(());
    }
    let what = "this worker only verifies: to let it restore, set DB_HOST";
    Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into())
}

/// Whether a database may be promoted, which takes its name away.
///
/// # Errors
/// As [`check_target`].
pub(crate) fn check_copy(config: &Config, name: &str) -> Result<(), RestoreError> {
    check_database(config, "COPY", name)
}

/// `field` is what the caller calls the database.
fn check_database(config: &Config, field: &str, name: &str) -> Result<(), RestoreError> {
    job::check_database(field, name, &config.db.maintenance)?;
    check_limits(config, field, name)
}

/// What the configuration says of a database.
fn check_limits(config: &Config, field: &str, name: &str) -> Result<(), RestoreError> {
    let refuse = |why: &str| {
        Err(
            ValidationError::new(ValidationKind::TargetNotAllowed, format!("{field}: {why}"))
                .into(),
        )
    };
    if config.protected_databases.iter().any(|p| p == name) {
        return refuse(&format!(
            "database {name} is protected (PROTECTED_DATABASES)"
        ));
    }
    if fits(&config.allowed_targets, name) {
        Ok(())
    } else {
        refuse(&format!("database {name} is not in ALLOWED_TARGETS"))
    }
}

/// The conditions under which the target of a job is claimed.
pub(super) fn claim_policy_of(config: &Config, job: &RestoreJob) -> ClaimPolicy {
    let configured = claim_policy(config);
    ClaimPolicy {
        keep: job.keep_previous.unwrap_or(configured.keep),
        ..configured
    }
}

/// The conditions under which a target is claimed.
pub(crate) fn claim_policy(config: &Config) -> ClaimPolicy {
    ClaimPolicy {
        keep: config.keep_previous,
        swap_when_idle: config.swap_when_idle,
        deaths: config.quarantine_after,
        max_age: config.request_max_age,
        resume: ResumeTerms::of(config),
    }
}

/// Whether a restore of this selection takes less than its backup. Rows alone are a part, too: the database that they go
/// into may itself be a part of something, or anything.
pub(super) fn is_part(selection: &Selection) -> bool {
    !selection.is_everything()
}

/// Whether a restore takes all definitions and no rows. That is all of a backup that has no rows.
fn is_definitions(selection: &Selection) -> bool {
    let definitions = Selection {
        schema_only: true,
        rename_schemas: selection.rename_schemas.clone(),
        ..Selection::default()
    };
    *selection == definitions
}

/// The error for a part in the place of a whole database.
pub(super) fn replaces_nothing() -> RestoreError {
    let what = "a part of a backup does not replace a whole database: the rest of it would be gone";
    ValidationError::new(ValidationKind::TargetNotAllowed, what).into()
}

/// A part of a backup becomes a new database; rows alone go into a copy of an existing one. Anything else
/// would lose what the part does not contain, unless that is nothing but kinds that no table needs. Whether definitions are only a part is known once the backup is open.
pub(crate) fn check_part(job: &RestoreJob) -> Result<(), RestoreError> {
    let replaces = job.on_existing == OnExisting::Replace;
    let invalid = |what| ValidationError::new(ValidationKind::InvalidRequest, what);
    job.selection.check().map_err(invalid)?;
    match (is_part(&job.selection), job.selection.data_only) {
        (true, false)
            if replaces && !is_definitions(&job.selection) && !job.selection.takes_all_tables() =>
        {
            Err(replaces_nothing())
        }
        (_, true) if !replaces => {
            let what = "--data-only loads rows into a copy of an existing database, which then takes its place: use --on-existing replace (in a request, on_existing: replace)";
            Err(invalid(what.to_owned()).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pair that contradicts itself is named first, whatever else is missing.
    #[test]
    fn options_that_exclude_each_other_are_refused_together() {
        use crate::policy::Section;
        let rows = || Selection {
            data_only: true,
            ..Selection::default()
        };
        let definitions = || Selection {
            schema_only: true,
            ..Selection::default()
        };
        let pair = Some(("a".to_owned(), "b".to_owned()));
        for (selection, named) in [
            (
                Selection {
                    schema_only: true,
                    ..rows()
                },
                "--schema-only and --data-only exclude each other",
            ),
            (
                Selection {
                    sections: vec![Section::Data],
                    ..definitions()
                },
                "--schema-only and --section data exclude each other",
            ),
            (
                Selection {
                    sections: vec![Section::Data, Section::PostData],
                    ..rows()
                },
                "--data-only and --section pre-data and post-data exclude each other",
            ),
            (
                Selection {
                    rename_schemas: pair.into_iter().collect(),
                    ..rows()
                },
                "--data-only and --rename-schema exclude each other",
            ),
            (rows(), "use --on-existing replace"),
        ] {
            let job = RestoreJob {
                selection,
                on_existing: OnExisting::Fail,
                ..RestoreJob::replacing("r", "app", String::new())
            };
            let e = check_part(&job).unwrap_err();
            assert!(e.to_string().contains(named), "{e}");
        }
        let job = |selection| RestoreJob {
            selection,
            ..RestoreJob::replacing("r", "app", String::new())
        };
        let same = Selection {
            sections: vec![Section::Data],
            ..rows()
        };
        assert!(check_part(&job(same)).is_ok());
    }

    #[test]
    fn only_trusted_backups_fill_a_database() {
        for (on_existing, trust, may) in [
            (OnExisting::Fill, Trust::Full, true),
            (OnExisting::Fill, Trust::Restricted, false),
            (OnExisting::Replace, Trust::Restricted, true),
            (OnExisting::Fail, Trust::Restricted, true),
        ] {
            let checked = check_trust(on_existing, trust);
            assert_eq!(checked.is_ok(), may, "{on_existing:?} {trust:?}");
        }
    }

    /// Nothing is lost by a part that fills a database; rows alone need the tables of one.
    #[test]
    fn a_database_is_filled_with_a_part_but_not_with_rows_alone() {
        for (data_only, may) in [(false, true), (true, false)] {
            let selection = Selection {
                data_only,
                tables: vec!["public.s".into()],
                ..Selection::default()
            };
            let job = RestoreJob {
                selection,
                on_existing: OnExisting::Fill,
                ..RestoreJob::replacing("r", "app", String::new())
            };
            assert_eq!(check_part(&job).is_ok(), may, "{data_only}");
        }
    }

    #[test]
    fn definitions_may_be_all_that_a_backup_has() {
        let definitions = Selection {
            schema_only: true,
            ..Selection::default()
        };
        let renamed = Selection {
            rename_schemas: vec![("a".into(), "b".into())],
            ..definitions.clone()
        };
        let of_one_table = Selection {
            tables: vec!["public.s".into()],
            ..definitions.clone()
        };
        let skipping = |pattern: &str| Selection {
            skip: vec![pattern.to_owned()],
            ..Selection::default()
        };
        for (selection, may_replace) in [
            (definitions, true),
            (renamed, true),
            (of_one_table, false),
            (skipping("EVENT TRIGGER *"), true),
            (skipping("TABLE DATA public.log"), false),
        ] {
            let job = RestoreJob {
                selection,
                ..RestoreJob::replacing("r", "app", String::new())
            };
            assert_eq!(check_part(&job).is_ok(), may_replace, "{:?}", job.selection);
            assert!(is_part(&job.selection));
        }
    }

    /// A promotion replaces a database by what is no part.
    #[test]
    fn rows_alone_are_a_part_and_new_names_are_none() {
        let rows = Selection {
            data_only: true,
            ..Selection::default()
        };
        let of_one_table = Selection {
            tables: vec!["public.s".into()],
            ..rows.clone()
        };
        let renamed = Selection {
            rename_schemas: vec![("a".into(), "b".into())],
            ..Selection::default()
        };
        for (selection, is_one) in [
            (rows, true),
            (of_one_table, true),
            (renamed, false),
            (Selection::default(), false),
        ] {
            assert_eq!(is_part(&selection), is_one, "{selection:?}");
            // Rows alone may still replace the database that they were added to.
            let job = RestoreJob {
                selection,
                ..RestoreJob::replacing("r", "app", String::new())
            };
            assert!(check_part(&job).is_ok(), "{:?}", job.selection);
        }
    }
}

//! `restore`: restores one backup and shows the progress.

use crate::job::Generation;
use std::collections::BTreeMap;
use std::sync::Arc;

use pgdump_restore::Stage;
use tokio_util::sync::CancellationToken;

use super::backup::{backup_of, hint_of};
use super::display;
use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, count, duration, human_bytes, print_json};
use super::signals::until_signal;
use crate::app::App;
use crate::error::{ErrorBody, FailureReason, RestoreError, ValidationError, ValidationKind};
use crate::event::{RestoreResult, check_texts};
use crate::job::{OnExisting, RestoreJob, check_request_id, digest_of, parse_jobs};
use crate::progress::Progress;

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven
    ///
    /// latest@TIME and latest-proven@TIME leave out what was made after that time.
    backup: String,
    /// Database to restore into [default: DB_NAME]
    #[arg(long, value_name = "DB", help_heading = help::TARGET)]
    target: Option<String>,
    /// What to do if the database exists
    #[arg(long, value_enum, default_value_t = OnExisting::Fail, value_name = "POLICY", help_heading = help::TARGET)]
    on_existing: OnExisting,
    /// Number of connections that load, 1 to 256 [default: RESTORE_JOBS]
    #[arg(long, value_name = "N", value_parser = parse_jobs, allow_negative_numbers = true, help_heading = help::TARGET)]
    jobs: Option<usize>,
    /// Prefix under which `latest` and `latest-proven` search
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
    /// Only this generation of the object
    #[arg(long, hide_short_help = true, help_heading = help::SELECTION)]
    generation: Option<Generation>,
    /// Only this database: of latest, or of a whole cluster's dump
    ///
    /// latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken.
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
    /// Id of this restore in the journal [default: generated]
    #[arg(long, value_name = "ID", hide_short_help = true, help_heading = help::TARGET)]
    request_id: Option<String>,
    #[command(flatten)]
    select: crate::policy::Selection,
}

pub(super) async fn run(app: App, args: RestoreArgs, output: OutputFormat) -> CommandResult {
    let backup = args.backup.clone();
    let job = job_of(&app, args)?;
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let display = tokio::spawn(display::show(progress.clone()));
    let (mut finished, signalled) =
        until_signal(app.manager.run(&job, progress.clone(), stop.clone()), &stop).await?;
    display.abort();
    let _ = display.await;
    app.manager.record_completion(&finished);
    add_hint(&backup, finished.result.error.as_mut());
    match output {
        OutputFormat::Json => {
            print_json(&finished.result)?;
        }
        OutputFormat::Text => print_result(&finished.result),
    }
    Ok(match (finished.failure, signalled) {
        (None, _) => Exit::Ok,
        (Some(FailureReason::Cancelled), Some(signal)) => signal,
        (Some(reason), _) => {
            let error = finished.result.error.as_ref();
            Exit::of_failure(reason, error.and_then(|e| e.sqlstate.as_deref()))
        }
    })
}

pub(super) fn add_hint(backup: &str, error: Option<&mut ErrorBody>) {
    let Some(e) = error else { return };
    if let Some(hint) = hint_of(backup, e.reason) {
        e.message = format!("{}; {hint}", e.message);
    }
}

fn job_of(app: &App, args: RestoreArgs) -> Result<RestoreJob, RestoreError> {
    let invalid =
        |what: &str| RestoreError::from(ValidationError::new(ValidationKind::InvalidRequest, what));
    let target = args.target.or_else(|| app.config.db_name.clone());
    check_texts(
        &serde_json::json!({ "--target": target, "--request-id": args.request_id, "part": args.select }),
    )?;
    let request_id = args
        .request_id
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    check_request_id(&request_id)?;
    let target = target.ok_or_else(|| invalid("no target database: set --target or DB_NAME"))?;
    let digest = digest_of(&serde_json::json!({
        "backup": args.backup, "prefix": args.prefix, "generation": args.generation.map(|g| g.0),
        "database": args.database, "target_db": target, "on_existing": args.on_existing, "part": args.select,
    }));
    Ok(RestoreJob {
        request_id,
        backup: backup_of(
            &app.config,
            &args.backup,
            (&args.prefix, args.database.as_deref()),
        )?,
        generation: args.generation,
        crc32c: None,
        target_db: target,
        on_existing: args.on_existing,
        jobs: args.jobs,
        deadline: None,
        labels: Default::default(),
        sequence: None,
        attempt: 1,
        policy: None,
        digest,
        database: args.database,
        selection: args.select,
        in_place: None,
    })
}

/// Each stage with its duration, in the order in which they run.
fn stages_of(stages: &BTreeMap<String, f64>) -> String {
    let ran = Stage::ALL.iter().filter_map(|stage| {
        let seconds = stages.get(stage.as_str())?;
        Some(format!("{stage} {}", duration(*seconds)))
    });
    ran.collect::<Vec<_>>().join(", ")
}

fn print_result(r: &RestoreResult) {
    let what = r.backup.uri.as_deref().unwrap_or("standard input");
    let target = r.target_db.as_deref().unwrap_or("-");
    match &r.error {
        None => {
            out!(
                "restored {what} into {target} in {}",
                duration(r.duration_seconds)
            );
            out!(
                "  {}, {}, {}",
                count(r.tables, "table"),
                count(r.rows, "row"),
                human_bytes(r.bytes)
            );
            out!("  {}", stages_of(&r.stages));
            if let Some(old) = &r.previous_database {
                out!("  the replaced database is kept as {old}");
            }
        }
        Some(e) => {
            out!(
                "not restored: {} ({}, blame: {}, stage {})",
                e.message,
                e.reason,
                super::output::blame_name(e.blame),
                e.stage
            );
            out!("  nothing was changed");
        }
    }
    for w in &r.rewrites {
        let examples = if w.examples.is_empty() {
            String::new()
        } else {
            format!(" ({})", w.examples.join(", "))
        };
        out!("  {} × {}: {}{examples}", w.count, w.rule, w.what);
    }
    r.notes.iter().for_each(|n| out!("  note: {n}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_shown_in_the_order_in_which_they_run() {
        let stages = [
            ("analyze", 0.5),
            ("data", 61.0),
            ("prepare", 0.04),
            ("swap", 1.0),
        ];
        let stages = stages.map(|(name, seconds)| (name.to_owned(), seconds));
        assert_eq!(
            stages_of(&stages.into()),
            "prepare 0.0 s, data 1 min 1 s, analyze 0.5 s, swap 1.0 s"
        );
    }
}

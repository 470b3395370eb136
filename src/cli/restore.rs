//! `restore`: restores one backup and shows the progress.

use crate::job::Generation;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::backup::{backup_of, hint_of};
use super::exit::{CommandResult, Exit};
use super::output::{OutputFormat, noun, print_json};
use super::signals::until_signal;
use crate::app::App;
use crate::error::{ErrorBody, FailureReason, RestoreError, ValidationError, ValidationKind};
use crate::event::{RestoreResult, check_texts};
use crate::job::{OnExisting, RestoreJob, check_jobs, check_request_id, digest_of};
use crate::progress::{Progress, Snapshot};

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven, also with @TIME
    backup: String,
    /// Database to restore into [default: DB_NAME]
    #[arg(long)]
    target: Option<String>,
    /// What to do if the database exists
    #[arg(long, value_enum, default_value_t = OnExisting::Fail)]
    on_existing: OnExisting,
    /// Number of connections that load [default: RESTORE_JOBS]
    #[arg(long)]
    jobs: Option<usize>,
    /// Prefix under which `latest` and `latest-proven` search
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only this generation of the object
    #[arg(long)]
    generation: Option<Generation>,
    /// The database: latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Id of this restore in the journal [default: generated]
    #[arg(long)]
    request_id: Option<String>,
    #[command(flatten)]
    select: crate::policy::Selection,
}

pub(super) async fn run(app: App, args: RestoreArgs, output: OutputFormat) -> CommandResult {
    let backup = args.backup.clone();
    let job = job_of(&app, args)?;
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let display = tokio::spawn(show(progress.clone()));
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
        (Some(reason), _) => Exit::of(reason),
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
    check_jobs("--jobs", args.jobs)?;
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

/// Shows the progress until the task is aborted: a bar on a terminal, otherwise a line every 10 s.
pub(super) async fn show(progress: Arc<Progress>) {
    if std::io::stderr().is_terminal() {
        show_bar(progress).await
    } else {
        let mut every = tokio::time::interval(Duration::from_secs(10));
        every.tick().await;
        loop {
            every.tick().await;
            err!("{}", line(&progress.snapshot()));
        }
    }
}

fn line(s: &Snapshot) -> String {
    let size = if s.object_size > 0 {
        format!(" of {}", HumanBytes(s.object_size))
    } else {
        String::new()
    };
    format!(
        "{}: {}{size} read, {} {}, tables {}/{}, indexes and keys {}/{}",
        s.stage,
        HumanBytes(s.object_bytes),
        HumanCount(s.rows),
        noun(s.rows, "row"),
        s.tables_done,
        s.tables,
        s.tasks_done,
        s.tasks
    )
}

/// A progress bar that is cleared on drop.
struct ProgressLine(ProgressBar);

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[allow(
    clippy::literal_string_with_formatting_args,
    reason = "a template of indicatif"
)]
async fn show_bar(progress: Arc<Progress>) {
    let template = "{elapsed_precise} [{bar:30}] {percent:>3} % ETA {eta}  {msg}";
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressLine(ProgressBar::new(1000).with_style(style.progress_chars("=> ")));
    let mut every = tokio::time::interval(Duration::from_millis(200));
    loop {
        every.tick().await;
        let s = progress.snapshot();
        bar.0
            .set_position((s.fraction.unwrap_or(0.0) * 1000.0) as u64);
        bar.0
            .set_message(super::terminal::escaped(&line(&s)).into_owned());
    }
}

fn print_result(r: &RestoreResult) {
    let what = r.backup.uri.as_deref().unwrap_or("standard input");
    let target = r.target_db.as_deref().unwrap_or("-");
    match &r.error {
        None => {
            out!(
                "restored {what} into {target} in {:.1} s",
                r.duration_seconds
            );
            out!(
                "  {} {}, {} {}, {}",
                r.tables,
                noun(r.tables, "table"),
                HumanCount(r.rows),
                noun(r.rows, "row"),
                HumanBytes(r.bytes)
            );
            let stages: Vec<_> = r
                .stages
                .iter()
                .map(|(k, v)| format!("{k} {v:.1} s"))
                .collect();
            out!("  {}", stages.join(", "));
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

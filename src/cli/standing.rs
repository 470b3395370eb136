//! `standing`: the standing restores of STANDING_RESTORES: how they stand, a run now, pauses.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::display;
use super::exit::{CommandResult, Exit, usage};
use super::output::{OutputFormat, print_json};
use super::restore::print_result;
use super::signals::until_signal;
use crate::admission::Admission;
use crate::app::App;
use crate::config::ConfigErrors;
use crate::error::{FailureReason, RestoreError, StorageError, StorageKind, report};
use crate::job::RestoreJob;
use crate::progress::Progress;
use crate::standing::{
    Candidate, NewestBackup, StandingOrder, StandingRun, StandingStates, StandingStatus, newest,
    orders,
};

#[derive(Debug, clap::Subcommand)]
pub(super) enum StandingArgs {
    /// List the orders: target, last success and failure, when the next run is due
    List,
    /// Restore the newest backup of an order now
    ///
    /// It runs here, and not in a worker, whatever the window and the schedule say, and also if the order is paused. Its
    /// success counts for the order.
    Run {
        /// Name of the order
        name: String,
    },
    /// Pause an order, or resume it with --resume
    ///
    /// A run that has begun is not stopped.
    Pause {
        /// Name of the order
        name: String,
        /// Let a paused order go on
        #[arg(long)]
        resume: bool,
    },
}

impl StandingArgs {
    pub(super) fn connects_to_target(&self) -> bool {
        matches!(self, StandingArgs::Run { .. })
    }
}

pub(super) async fn run(app: App, args: StandingArgs, output: OutputFormat) -> CommandResult {
    if app.config.standing_restores.is_none() {
        let what = "STANDING_RESTORES: required: the file with the orders";
        return Err(ConfigErrors(vec![what.to_owned()]).into());
    }
    let orders = orders_of(&app).map_err(ConfigErrors)?;
    let named = |name: &str| {
        let found = orders.iter().find(|o| o.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = orders.iter().map(|o| o.name.as_str()).collect();
            usage(format!(
                "no order is called {name}; known are {}",
                names.join(", ")
            ))
        })
    };
    match &args {
        StandingArgs::List => list(&app, &orders, output).await,
        StandingArgs::Run { name } => run_now(&app, named(name)?, output).await,
        StandingArgs::Pause { name, resume } => pause(&app, named(name)?, (!resume, output)).await,
    }
}

/// The orders of the configuration.
///
/// # Errors
/// Everything that is wrong with them.
pub(super) fn orders_of(app: &App) -> Result<Vec<StandingOrder>, Vec<String>> {
    let admission = Admission::new(&app.config, &app.config.request_subscription)?;
    orders(&app.config, &admission)
}

async fn list(app: &App, orders: &[StandingOrder], output: OutputFormat) -> CommandResult {
    let states = StandingStates::open(app.manager.catalog()).await?;
    let now = jiff::Timestamp::now();
    let mut all = Vec::new();
    for order in orders {
        let history = states.history(&order.name).await?;
        all.push(StandingStatus::of(order, &history, now));
    }
    if output == OutputFormat::Json {
        return print_json(&all);
    }
    if all.is_empty() {
        out!("STANDING_RESTORES has no orders");
    }
    table_of(&all).iter().for_each(|line| out!("{line}"));
    Ok(Exit::Ok)
}

/// A header, and a line for each order.
fn table_of(all: &[StandingStatus]) -> Vec<String> {
    if all.is_empty() {
        return vec![];
    }
    let header = ["ORDER", "TARGET", "LAST SUCCESS", "LAST FAILURE", "NEXT"].map(str::to_owned);
    let rows: Vec<[String; 5]> = std::iter::once(header)
        .chain(all.iter().map(cells_of))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths = [0, 1, 2, 3].map(width);
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}  "));
        format!("{}{}", cells.collect::<String>(), row[4])
    };
    rows.iter().map(line).collect()
}

fn cells_of(status: &StandingStatus) -> [String; 5] {
    let time = |t: jiff::Timestamp| t.strftime("%Y-%m-%d %H:%MZ").to_string();
    let ended = |run: &Option<StandingRun>| match run {
        None => "never".to_owned(),
        Some(run) => {
            let finished = time(run.finished_at);
            match run.reason {
                None => finished,
                Some(reason) => format!("{finished} {reason}"),
            }
        }
    };
    let next = match (status.paused_since, status.next_due) {
        (Some(since), _) => format!("paused since {}", time(since)),
        (None, Some(due)) => time(due),
        (None, None) => format!("with the next backup ({})", status.when),
    };
    [
        status.order.clone(),
        status.target_db.clone(),
        ended(&status.last_success),
        ended(&status.last_failure),
        next,
    ]
}

/// The restore of the newest backup, under an id of its own: a run of the same backup may have ended before.
async fn job_of(
    app: &App,
    order: &StandingOrder,
    id: &str,
) -> Result<(Candidate, Box<RestoreJob>), RestoreError> {
    let wanted = order.wanted.clone();
    let found = newest(app.manager.catalog(), wanted).await?;
    let backup = match found {
        NewestBackup::Found(backup) => Some(backup),
        NewestBackup::Nothing => None,
        NewestBackup::NoneOfThem(e) => return Err(e),
    };
    let Some(backup) = backup else {
        let proven = if order.wanted.is_proven {
            " that is proven"
        } else {
            ""
        };
        let at = app.config.bucket.uri(&order.wanted.prefix);
        let what = format!(
            "{at}: order {} has no backup{proven}: `pgrestored list` shows what there is",
            order.name
        );
        return Err(StorageError::new(StorageKind::NotFound, what).into());
    };
    let request_id = format!("{}/{id}", order.request_id(&backup));
    let job = order.job(&backup, request_id)?;
    Ok((backup, job))
}

async fn run_now(app: &App, order: &StandingOrder, output: OutputFormat) -> CommandResult {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let (backup, job) = job_of(app, order, &id).await?;
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let display = tokio::spawn(display::show(progress.clone()));
    let (finished, signalled) =
        until_signal(app.manager.run(&job, progress.clone(), stop.clone()), &stop).await?;
    display.abort();
    let _ = display.await;
    app.manager.record_completion(&finished);
    // Otherwise it did not run.
    let has_run = !matches!(
        finished.failure,
        Some(FailureReason::Cancelled | FailureReason::TargetBusy)
    );
    if has_run {
        remember(app, order, (&backup, &id), &finished.result).await;
    }
    match output {
        OutputFormat::Json => {
            print_json(&finished.result)?;
        }
        OutputFormat::Text => print_result(&finished.result),
    }
    Ok(match (finished.failure, signalled) {
        (None, _) => Exit::of_success(&finished.result),
        (Some(FailureReason::Cancelled), Some(signal)) => signal,
        (Some(reason), _) => Exit::of_error(reason, finished.result.error.as_ref()),
    })
}

/// The restore itself has ended, so that this cannot be written down is only said.
async fn remember(
    app: &App,
    order: &StandingOrder,
    (backup, id): (&Candidate, &str),
    result: &crate::event::RestoreResult,
) {
    let run = StandingRun::of(order, backup, result);
    let remembered = async {
        let states = StandingStates::open(app.manager.catalog()).await?;
        states.record(run, Some(id)).await
    };
    if let Err(e) = remembered.await {
        err!(
            "pgrestored: workers do not learn of this run of order {}: {}",
            order.name,
            report(&e)
        );
    }
}

async fn pause(
    app: &App,
    order: &StandingOrder,
    (is_paused, output): (bool, OutputFormat),
) -> CommandResult {
    let states = StandingStates::open(app.manager.catalog()).await?;
    let was_paused = states.history(&order.name).await?.paused_since.is_some();
    let now = jiff::Timestamp::now();
    if was_paused != is_paused {
        states.pause(&order.name, is_paused, now).await?;
    }
    if output == OutputFormat::Json {
        let history = states.history(&order.name).await?;
        return print_json(&StandingStatus::of(order, &history, now));
    }
    match (is_paused, was_paused) {
        (true, true) => out!("order {} was paused already", order.name),
        (true, false) => out!(
            "order {} is paused; `pgrestored standing pause {} --resume` lets it go on",
            order.name,
            order.name
        ),
        (false, true) => out!("order {} goes on", order.name),
        (false, false) => out!("order {} was not paused", order.name),
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standing::RunOutcome;

    #[test]
    fn every_order_has_a_line() {
        let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let run = |outcome, at: &str, reason| StandingRun {
            order: "staging".into(),
            outcome,
            request_id: "standing/staging/7".into(),
            target_db: None,
            server: None,
            backup: Some("a.dump".into()),
            generation: "7".into(),
            rules: None,
            mask_key: None,
            finish: vec![],
            backup_created: None,
            finished_at: time(at),
            reason,
            superseded_by: None,
        };
        let status = |order: &str| StandingStatus {
            order: order.into(),
            target_db: "staging".into(),
            when: "proven".into(),
            last_success: None,
            last_failure: None,
            last_superseded: None,
            next_due: None,
            paused_since: None,
            waiting: None,
            waiting_generation: None,
            problem: None,
        };
        let all = [
            StandingStatus {
                last_success: Some(run(RunOutcome::Success, "2026-11-29T03:10:00Z", None)),
                last_failure: Some(run(
                    RunOutcome::Failure,
                    "2026-11-30T03:10:00Z",
                    Some(FailureReason::ArchiveCorrupt),
                )),
                next_due: Some(time("2026-12-01T02:00:00Z")),
                ..status("staging")
            },
            status("reports"),
            StandingStatus {
                paused_since: Some(time("2026-11-30T08:00:00Z")),
                ..status("bi")
            },
        ];
        assert_eq!(
            table_of(&all),
            [
                "ORDER    TARGET   LAST SUCCESS       LAST FAILURE                       NEXT",
                "staging  staging  2026-11-29 03:10Z  2026-11-30 03:10Z archive_corrupt  2026-12-01 02:00Z",
                "reports  staging  never              never                              with the next backup (proven)",
                "bi       staging  never              never                              paused since 2026-11-30 08:00Z",
            ]
        );
        assert!(table_of(&[]).is_empty());
    }
}

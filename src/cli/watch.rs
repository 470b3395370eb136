//! `watch`: shows the progress of a request and waits for its result. The result comes from the
//! completion subscription or from the status page of the worker that processes the request; the
//! progress comes from that page.

use std::cell::Cell;
use std::time::Duration;

use super::display::{Bar, LINE};
use super::exit::{CommandError, CommandResult, Exit, usage};
use super::failure;
use super::help;
use super::output::{OutputFormat, print_json};
use super::signals::until_signal;
use super::status;
use crate::app::App;
use crate::event::RestoreResult;
use crate::queue::{Delivery, QueueError, RequestQueue, Resource};
use crate::worker::WorkerStatus;

/// Pause between requests for the worker's status.
const LOOK: Duration = Duration::from_secs(1);
/// How long no worker may show anything before that is said.
const SILENCE: Duration = Duration::from_millis(4500);

#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// `request_id` of the request
    id: String,
    /// URL of a worker's admin port [default: http://ADMIN_ADDR]
    #[arg(long, help_heading = help::REQUEST)]
    url: Option<String>,
    /// Stop waiting after this time, such as 15m [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = time_limit, help_heading = help::REQUEST)]
    timeout: Option<Duration>,
}

/// What a worker's status page has said of a request so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PageAnswer {
    /// No page has responded.
    None,
    Unknown,
    Running,
}

/// Where to look for progress, and how long to wait.
pub(super) struct Wait {
    /// URL of a worker's admin port.
    pub url: String,
    pub limit: Option<Duration>,
}

/// The parser of `--timeout`.
pub(super) fn time_limit(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok();
    let parsed = parsed.and_then(|d| Duration::try_from(d).ok());
    let limit = parsed.filter(|d| !d.is_zero());
    limit.ok_or_else(|| "must be a duration such as 30s, 15m or 12h".to_owned())
}

/// Fails within seconds if a topic or subscription does not exist or does not respond. `setting` is the variable of
/// its name.
pub(super) async fn reach(
    app: &App,
    kind: Resource,
    name: &str,
    setting: &str,
) -> Result<(), CommandError> {
    if let Some(within) = app.config.first_contact {
        let pubsub = app.pubsub()?;
        pubsub.reach(kind, name, setting, within).await?;
    }
    Ok(())
}

/// The same of the subscription with results.
pub(super) async fn reach_results(app: &App) -> Result<(), CommandError> {
    let name = &app.config.completion_subscription;
    let setting = "RESTORE_COMPLETION_SUBSCRIPTION";
    reach(app, Resource::Subscription, name, setting).await
}

pub(super) async fn run(app: App, args: WatchArgs, output: OutputFormat) -> CommandResult {
    if args.id.trim().is_empty() {
        return Err(usage("ID: must be the request_id of a request"));
    }
    let wait = Wait {
        url: status::url(&app.config, args.url)?,
        limit: args.timeout,
    };
    if app.config.project.is_some() {
        reach_results(&app).await?;
    }
    answer(&app, &args.id, &wait, output).await
}

/// Waits for the result of request `id` and prints it; the exit code is that of the job.
pub(super) async fn answer(
    app: &App,
    id: &str,
    wait: &Wait,
    output: OutputFormat,
) -> CommandResult {
    let url = wait.url.as_str();
    let mut results = match &app.config.project {
        Some(_) => Some(
            app.pubsub()?
                .subscribe(&app.config.completion_subscription)
                .await?,
        ),
        // The result can then come only from the worker's status page.
        None => None,
    };
    if results.is_none() {
        let reached = status::status_at(url).await;
        reached.map_err(|e| {
            CommandError::Unavailable(format!(
                "{url}: {e}; set GOOGLE_CLOUD_PROJECT to wait on the completion subscription"
            ))
        })?;
    }
    let mut others = Vec::new();
    let stop = tokio_util::sync::CancellationToken::new();
    let page = Cell::new(PageAnswer::None);
    let waited = async {
        let by_subscription = async {
            match &mut results {
                Some(queue) => result_of(queue, id, &mut others).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = by_subscription => Some(result),
            result = by_page(url, id, &page) => Some(Ok(result)),
            () = say_silence(app, (id, url), &page) => None,
            () = over(wait.limit) => Some(Err(too_late(id, wait.limit))),
            () = stop.cancelled() => None,
        }
    };
    let (result, signalled) = until_signal(waited, &stop).await?;
    // Dropping the results of other requests returns them to the subscription.
    drop(others);
    if let Some(mut queue) = results {
        queue.close().await;
        queue.flush().await;
    }
    let Some(result) = result.transpose()? else {
        let exit = signalled.unwrap_or(Exit::Interrupted);
        if output == OutputFormat::Json {
            failure::print_interrupted(exit);
        }
        return Ok(exit);
    };
    match output {
        OutputFormat::Json => {
            print_json(&result)?;
        }
        // A verdict is an answer; standard output has no failures.
        OutputFormat::Text if result.error.is_some() && result.verdict.is_none() => {
            err!("{}", status::result_line(&result));
        }
        OutputFormat::Text => out!("{}", status::result_line(&result)),
    }
    Ok(match (result.verdict, &result.error) {
        (None, None) => Exit::of_success(&result),
        (verdict, error) => super::verify::exit_of(verdict, error.as_ref().map(|e| e.reason)),
    })
}

async fn result_of(
    queue: &mut impl RequestQueue,
    id: &str,
    others: &mut Vec<Delivery>,
) -> Result<RestoreResult, CommandError> {
    loop {
        let delivery = queue.next().await?;
        let result: Option<RestoreResult> = serde_json::from_slice(&delivery.data).ok();
        match result.filter(|r| r.request_id == id) {
            Some(result) => {
                delivery.lease.ack().await?;
                return Ok(result);
            }
            None => others.push(delivery),
        }
    }
}

/// Ends after the limit, if there is one.
async fn over(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn too_late(id: &str, limit: Option<Duration>) -> CommandError {
    let limit = limit.unwrap_or_default();
    CommandError::Unavailable(format!(
        "no result of request {id} within {limit:?}; the request stays published: pgrestored watch {id} waits again"
    ))
}

/// Says after a few seconds that no worker has shown any progress, and what should be there; never ends.
async fn say_silence(app: &App, (id, url): (&str, &str), page: &Cell<PageAnswer>) {
    let name = &app.config.request_subscription;
    let setting = "RESTORE_REQUEST_SUBSCRIPTION";
    let missing = async {
        app.config.project.as_ref()?;
        let found = reach(app, Resource::Subscription, name, setting).await;
        match found {
            Err(CommandError::Queue(QueueError::Missing(what))) => Some(what),
            _ => None,
        }
    };
    let (missing, ()) = tokio::join!(missing, tokio::time::sleep(SILENCE));
    if page.get() == PageAnswer::Running {
        std::future::pending::<()>().await;
    }
    let waits = "(Ctrl-C ends the wait, not the request)";
    if page.get() == PageAnswer::Unknown {
        err!(
            "nothing is known of request {id}: the worker at {url} neither processes it nor has its result; still waiting {waits}"
        );
        err!("  check the id");
    } else {
        err!("no worker has answered yet; still waiting for the result of request {id} {waits}");
    }
    match missing {
        Some(what) => err!("  {what}"),
        None => err!("  a worker must process the subscription {name} ({setting})"),
    }
    if page.get() == PageAnswer::None {
        err!("  {url} does not respond: --url with a worker's address shows its progress");
    }
    std::future::pending().await
}

/// Polls the worker's status page for the result, and shows the progress meanwhile.
async fn by_page(url: &str, id: &str, page: &Cell<PageAnswer>) -> RestoreResult {
    let bar = Bar::new();
    let mut last_line: Option<tokio::time::Instant> = None;
    let mut every = tokio::time::interval(LOOK);
    loop {
        every.tick().await;
        let Ok(WorkerStatus {
            running, recent, ..
        }) = status::status_at(url).await
        else {
            continue;
        };
        let mut results = recent.into_iter().map(|r| r.result);
        if let Some(result) = results.find(|r| r.request_id == id) {
            return result;
        }
        let Some(job) = running.into_iter().find(|j| j.request_id == id) else {
            if page.get() == PageAnswer::None {
                page.set(PageAnswer::Unknown);
            }
            continue;
        };
        page.set(PageAnswer::Running);
        match &bar {
            Some(bar) => {
                let elapsed = jiff::Timestamp::now().duration_since(job.started_at);
                bar.show(&job.progress, elapsed.try_into().unwrap_or_default());
            }
            None if last_line.is_none_or(|at| at.elapsed() >= LINE) => {
                last_line = Some(tokio::time::Instant::now());
                err!("{}", status::line(&job));
            }
            None => {}
        }
    }
}

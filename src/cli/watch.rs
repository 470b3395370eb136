//! `watch`: shows the progress of a request and waits for its result. The result comes from the
//! completion subscription or from the status page of the worker that processes the request; the
//! progress comes from that page.

use std::time::Duration;

use super::display::{Bar, LINE};
use super::exit::{CommandError, CommandResult, Exit};
use super::output::{OutputFormat, print_json};
use super::signals::until_signal;
use super::status;
use crate::app::App;
use crate::event::RestoreResult;
use crate::queue::{Delivery, RequestQueue};
use crate::worker::WorkerStatus;

/// Pause between requests for the worker's status.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// `request_id` of the request
    id: String,
    /// URL of a worker's admin port [default: http://ADMIN_ADDR]
    #[arg(long)]
    url: Option<String>,
}

pub(super) async fn run(app: App, args: WatchArgs, output: OutputFormat) -> CommandResult {
    let url = status::url(&app.config, args.url);
    answer(&app, &args.id, &url, output).await
}

/// Waits for the result of request `id` and prints it; the exit code is that of the job.
pub(super) async fn answer(app: &App, id: &str, url: &str, output: OutputFormat) -> CommandResult {
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
    let waited = async {
        let by_subscription = async {
            match &mut results {
                Some(queue) => result_of(queue, id, &mut others).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = by_subscription => Some(result),
            result = by_page(url, id) => Some(Ok(result)),
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
        return Ok(signalled.unwrap_or(Exit::Interrupted));
    };
    match output {
        OutputFormat::Json => {
            print_json(&result)?;
        }
        OutputFormat::Text => out!("{}", status::result_line(&result)),
    }
    Ok(super::verify::exit_of(
        result.verdict,
        result.error.map(|e| e.reason),
    ))
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

/// Polls the worker's status page for the result, and shows the progress meanwhile.
async fn by_page(url: &str, id: &str) -> RestoreResult {
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
            continue;
        };
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

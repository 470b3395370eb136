//! `request`: publishes a request for a restore or a proof and, with `--wait`, waits for its result.

use super::{CommandError, CommandResult, Exit, Output, print_json, until_signal};
use crate::app::App;
use crate::event::{BackupSpec, Mode, RestoreRequest, RestoreResult};
use crate::job::OnExisting;
use crate::queue::{RequestQueue, ResultSink};
use crate::telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Object name in the bucket, gs:// URI, latest or latest@TIME
    backup: String,
    /// Database to restore into [default: the worker's DB_NAME]
    #[arg(long)]
    target: Option<String>,
    /// When the database exists
    #[arg(long, value_enum, default_value_t = OnExisting::Fail)]
    on_existing: OnExisting,
    /// Connections that load
    #[arg(long)]
    jobs: Option<u32>,
    /// [default: made up]
    #[arg(long)]
    request_id: Option<String>,
    /// Ask for a proof instead of a restore
    #[arg(long)]
    verify: bool,
    /// With --verify: how far
    #[arg(long, value_enum, requires = "verify")]
    depth: Option<crate::policy::Depth>,
    /// Wait for the result on RESTORE_COMPLETION_SUBSCRIPTION
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    select: crate::policy::Selection,
}

pub(super) async fn run(app: App, args: Args, output: Output) -> CommandResult {
    let is_uri = args.backup.contains("://");
    let (uri, name) = if is_uri { (Some(args.backup), None) } else { (None, Some(args.backup)) };
    let request = RestoreRequest {
        request_id: args.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        backup: BackupSpec { name, uri, ..BackupSpec::default() },
        target_db: args.target,
        on_existing: args.on_existing,
        mode: if args.verify { Mode::Verify } else { Mode::Restore },
        depth: args.depth,
        jobs: args.jobs,
        deadline: None,
        labels: Default::default(),
        select: args.select,
    };
    // What the worker would refuse is refused here.
    request.clone().into_job(app.config.db_name.as_deref().or(Some("any")))?;
    let pubsub = app.pubsub()?;
    let mut message = request.to_message(jiff::Timestamp::now())?;
    telemetry::inject(&mut message.attributes);
    let message_id = pubsub.topic(&app.config.request_topic).await?.publish(message).await?;
    if !args.wait {
        return match output {
            Output::Json => {
                print_json(&serde_json::json!({ "request_id": request.request_id, "message_id": message_id }))
            }
            Output::Text => {
                out!("request {} published as message {message_id}", request.request_id);
                Ok(Exit::Ok)
            }
        };
    }
    let mut results = pubsub.subscribe(&app.config.completion_subscription).await?;
    let stop = tokio_util::sync::CancellationToken::new();
    let waited = async {
        tokio::select! {
            result = result_of(&mut results, &request.request_id) => Some(result),
            () = stop.cancelled() => None,
        }
    };
    let (result, signalled) = until_signal(waited, &stop).await?;
    results.close().await;
    results.flush().await;
    let Some(result) = result.transpose()? else { return Ok(signalled.unwrap_or(Exit::Interrupted)) };
    match output {
        Output::Json => print_json(&result)?,
        Output::Text => {
            let how =
                result.verdict.map_or_else(|| format!("{:?}", result.status), |v| v.as_str().to_owned());
            out!("request {} ended: {how} after {:.1} s", result.request_id, result.duration_seconds);
            Exit::Ok
        }
    };
    Ok(super::verify::exit_of(result.verdict, result.error.map(|e| e.reason)))
}

/// Results of other requests stay with the subscription: they are given back at the end.
async fn result_of(queue: &mut impl RequestQueue, request_id: &str) -> Result<RestoreResult, CommandError> {
    let mut others = Vec::new();
    loop {
        let delivery = queue.next().await?;
        let result: Option<RestoreResult> = serde_json::from_slice(&delivery.data).ok();
        match result.filter(|r| r.request_id == request_id) {
            Some(result) => {
                delivery.lease.ack().await?;
                return Ok(result);
            }
            None => others.push(delivery),
        }
    }
}

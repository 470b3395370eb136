//! `request`: publishes a request for a restore or a proof and, with `--wait`, waits for its result.

use super::{CommandError, CommandResult, Exit, Output, print_json, status, watch};
use crate::app::App;
use crate::event::{BackupSpec, Mode, RestoreRequest};
use crate::job::OnExisting;
use crate::policy::InPlace;
use crate::queue::ResultSink;
use crate::telemetry;

/// How long a signature is good for publishing.
const SIGNED_FOR: std::time::Duration = std::time::Duration::from_secs(600);

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
    /// Of a dump of a whole cluster (pg_dumpall), this database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// [default: made up]
    #[arg(long)]
    request_id: Option<String>,
    /// Ask for a proof instead of a restore
    #[arg(long)]
    verify: bool,
    /// With --verify: how far
    #[arg(long, value_enum, requires = "verify")]
    depth: Option<crate::policy::Depth>,
    /// Wait for the result on RESTORE_COMPLETION_SUBSCRIPTION, and show how far it is
    #[arg(long)]
    wait: bool,
    /// With --wait: where a worker answers [default: http://ADMIN_ADDR]
    #[arg(long, requires = "wait")]
    url: Option<String>,
    #[command(flatten)]
    select: crate::policy::Selection,
}

pub(super) async fn run(app: App, args: Args, output: Output) -> CommandResult {
    let is_uri = args.backup.contains("://");
    let (uri, name) = if is_uri {
        (Some(args.backup), None)
    } else {
        (None, Some(args.backup))
    };
    let request = RestoreRequest {
        request_id: args
            .request_id
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        backup: BackupSpec {
            name,
            uri,
            database: args.database,
            ..BackupSpec::default()
        },
        target_db: args.target,
        on_existing: args.on_existing,
        mode: if args.verify {
            Mode::Verify
        } else {
            Mode::Restore
        },
        depth: args.depth,
        jobs: args.jobs,
        deadline: None,
        labels: Default::default(),
        select: args.select,
        in_place: Some(app.config.in_place).filter(|p| !args.verify && *p != InPlace::Auto),
    };
    // What the worker would refuse is refused here.
    request
        .clone()
        .into_job(app.config.db_name.as_deref().or(Some("any")))?;
    let pubsub = app.pubsub()?;
    let mut message = request.to_message(jiff::Timestamp::now())?;
    telemetry::inject(&mut message.attributes);
    if let Some((id, key)) = &app.config.signing_key {
        use secrecy::ExposeSecret;
        let expires = jiff::Timestamp::now() + SIGNED_FOR;
        let signed = crate::admission::sign(key.expose_secret(), id, expires, &message.data);
        let signed = signed.map_err(CommandError::Other)?;
        message
            .attributes
            .extend(signed.map(|(name, value)| (name.to_owned(), value)));
    }
    let message_id = pubsub
        .topic(&app.config.request_topic)
        .await?
        .publish(message)
        .await?;
    if !args.wait {
        return match output {
            Output::Json => print_json(
                &serde_json::json!({ "request_id": request.request_id, "message_id": message_id }),
            ),
            Output::Text => {
                out!(
                    "request {} published as message {message_id}",
                    request.request_id
                );
                Ok(Exit::Ok)
            }
        };
    }
    watch::answer(
        &app,
        &request.request_id,
        &status::url(&app.config, args.url),
        output,
    )
    .await
}

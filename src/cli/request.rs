//! `request`: publishes a request for a restore or a verification and, with `--wait`, waits for its
//! result.

use super::exit::{CommandError, CommandResult, Exit};
use super::output::{OutputFormat, print_json};
use super::status;
use super::watch::{self, Wait};
use crate::app::App;
use crate::event::{BackupSpec, Mode, RestoreRequest};
use crate::job::OnExisting;
use crate::policy::InPlace;
use crate::queue::{Resource, ResultSink};
use crate::telemetry;

/// Validity of a request's signature: it must be published within this time.
const SIGNED_FOR: std::time::Duration = std::time::Duration::from_secs(600);

#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// Object name in the bucket, gs:// URI, latest or latest@TIME
    backup: String,
    /// Database to restore into [default: the worker's DB_NAME]
    #[arg(long)]
    target: Option<String>,
    /// What to do if the database exists
    #[arg(long, value_enum, default_value_t = OnExisting::Fail)]
    on_existing: OnExisting,
    /// Number of connections that load
    #[arg(long)]
    jobs: Option<u32>,
    /// Database to take from a dump of a whole cluster (pg_dumpall)
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Id of the request [default: generated]
    #[arg(long)]
    request_id: Option<String>,
    /// Request a verification instead of a restore
    #[arg(long)]
    verify: bool,
    /// With --verify: depth of the verification
    #[arg(long, value_enum, requires = "verify")]
    depth: Option<crate::policy::Depth>,
    /// Show the progress, and wait for the result on RESTORE_COMPLETION_SUBSCRIPTION
    #[arg(long)]
    wait: bool,
    /// With --wait: URL of a worker's admin port [default: http://ADMIN_ADDR]
    #[arg(long, requires = "wait")]
    url: Option<String>,
    /// With --wait: stop waiting after this time, such as 15m; the request stays published [default: no limit]
    #[arg(long, requires = "wait", value_name = "TIME", value_parser = watch::time_limit)]
    timeout: Option<std::time::Duration>,
    #[command(flatten)]
    select: crate::policy::Selection,
}

pub(super) async fn run(app: App, args: RequestArgs, output: OutputFormat) -> CommandResult {
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
    // Refuse here what the worker would refuse.
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
    // Before anything is published.
    let topic = watch::reach(
        &app,
        Resource::Topic,
        &app.config.request_topic,
        "RESTORE_REQUEST_TOPIC",
    );
    let results = async {
        if args.wait {
            watch::reach_results(&app).await?;
        }
        Ok(())
    };
    tokio::try_join!(topic, results)?;
    let message_id = pubsub
        .topic(&app.config.request_topic)
        .await?
        .publish(message)
        .await?;
    if !args.wait {
        return match output {
            OutputFormat::Json => print_json(
                &serde_json::json!({ "request_id": request.request_id, "message_id": message_id }),
            ),
            OutputFormat::Text => {
                out!(
                    "request {} published as message {message_id}",
                    request.request_id
                );
                Ok(Exit::Ok)
            }
        };
    }
    let wait = Wait {
        url: status::url(&app.config, args.url),
        limit: args.timeout,
    };
    watch::answer(&app, &request.request_id, &wait, output).await
}

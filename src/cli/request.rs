//! `request`: publishes a request for a restore or a verification and, with `--wait`, waits for its
//! result.

use super::backup::{is_local, is_of_this_machine, with_generation};
use super::exit::{CommandError, CommandResult, Exit, usage};
use super::help;
use super::output::{OutputFormat, print_json};
use super::status;
use super::watch::{self, Wait};
use crate::app::App;
use crate::error::RestoreError;
use crate::event::{BackupSpec, Mode, RestoreRequest};
use crate::job::{BackupRef, OnExisting, parse_jobs};
use crate::policy::{InPlace, OnError};
use crate::queue::{Resource, ResultSink};
use crate::telemetry;

/// Validity of a request's signature: it must be published within this time.
const SIGNED_FOR: std::time::Duration = std::time::Duration::from_secs(600);

/// Options that a verification does not have.
const ONLY_RESTORES: [&str; 16] = [
    "target",
    "on_existing",
    "into_empty",
    "finish",
    "finish_checks",
    "schemas",
    "exclude_schemas",
    "tables",
    "exclude_tables",
    "exclude_table_data",
    "skip",
    "only_kinds",
    "sections",
    "schema_only",
    "data_only",
    "rename_schemas",
];

#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// Object name in the bucket, gs:// URI, latest or latest-proven, also with @TIME
    backup: String,
    /// Database to restore into [default: the worker's DB_NAME]
    #[arg(long, value_name = "DB", help_heading = help::TARGET)]
    target: Option<String>,
    /// What to do if the database exists
    #[arg(long, value_enum, default_value_t = OnExisting::Fail, value_name = "POLICY", help_heading = help::TARGET)]
    on_existing: OnExisting,
    /// Load into the database, which must exist and be empty
    ///
    /// For roles that may not create databases. It is loaded in place, closed to others if the role owns it; a failure empties it
    /// again. It cannot be undone by a rollback.
    #[arg(long, conflicts_with = "on_existing", hide_short_help = true, help_heading = help::TARGET)]
    into_empty: bool,
    /// SQL file in the worker's RESTORE_FINISH_FROM to run in the restored database before it is swapped in; repeatable
    #[arg(long, value_name = "NAME", hide_short_help = true, help_heading = help::TARGET)]
    finish: Vec<String>,
    /// Checks file in the worker's RESTORE_FINISH_FROM; all its checks must pass in the restored database before it is swapped in
    #[arg(long, value_name = "NAME", hide_short_help = true, help_heading = help::TARGET)]
    finish_checks: Option<String>,
    /// Number of connections that load, 1 to 256
    #[arg(long, value_name = "N", value_parser = parse_jobs, allow_negative_numbers = true, hide_short_help = true, help_heading = help::TARGET)]
    jobs: Option<usize>,
    /// Only this database: of latest, or of a whole cluster's dump
    ///
    /// latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken.
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
    /// Id of the request [default: generated]
    #[arg(long, value_name = "ID", hide_short_help = true, help_heading = help::REQUEST)]
    request_id: Option<String>,
    /// Request a verification instead of a restore
    #[arg(long, conflicts_with_all = ONLY_RESTORES, help_heading = help::REQUEST)]
    verify: bool,
    /// Request a rehearsal: all definitions on the target's server, without rows
    #[arg(long, conflicts_with_all = ["verify", "target", "on_existing", "into_empty", "finish", "finish_checks", "data_only"], hide_short_help = true, help_heading = help::REQUEST)]
    rehearse: bool,
    /// With --verify: depth of the verification
    #[arg(long, value_enum, requires = "verify", help_heading = help::REQUEST)]
    depth: Option<crate::policy::Depth>,
    /// Show the progress, and wait for the result
    ///
    /// The result comes on RESTORE_COMPLETION_SUBSCRIPTION.
    #[arg(long, help_heading = help::REQUEST)]
    wait: bool,
    /// With --wait: URL of a worker's admin port [default: http://ADMIN_ADDR]
    #[arg(long, requires = "wait", hide_short_help = true, help_heading = help::REQUEST)]
    url: Option<String>,
    /// With --wait: stop waiting after this time, such as 15m [default: no limit]
    ///
    /// The request stays published.
    #[arg(long, requires = "wait", value_name = "TIME", value_parser = watch::time_limit, help_heading = help::REQUEST)]
    timeout: Option<std::time::Duration>,
    #[command(flatten)]
    select: crate::policy::Selection,
}

impl RequestArgs {
    fn mode(&self) -> Mode {
        match (self.verify, self.rehearse) {
            (true, _) => Mode::Verify,
            (false, true) => Mode::Rehearse,
            (false, false) => Mode::Restore,
        }
    }
}

/// Refuses what only this machine has: no worker would ever find it. A folder that is a source of requests is one of the
/// workers, too.
fn check_place(app: &App, args: &RequestArgs) -> Result<(), CommandError> {
    let backup = &args.backup;
    let is_foreign = || {
        let source = BackupRef::from_uri(backup)?;
        Ok::<_, RestoreError>(app.manager.catalog().check_source(&source).is_err())
    };
    let is_own = if backup.starts_with("file://") {
        is_foreign()?
    } else {
        is_of_this_machine(backup)
    };
    if !is_own {
        if is_local(&app.config, backup) {
            err!(
                "note: the worker looks for {backup} in its BACKUP_BUCKET; the file ./{backup} of this machine is not sent"
            );
        }
        return Ok(());
    }
    let command = match args.mode() {
        Mode::Verify => "verify",
        Mode::Rehearse => "rehearse",
        Mode::Restore => "restore",
    };
    Err(usage(format!(
        "{backup}: a worker cannot read what is on this machine: run pgrestored {command} {backup}, or upload it and request gs://BUCKET/NAME"
    )))
}

pub(super) async fn run(app: App, args: RequestArgs, output: OutputFormat) -> CommandResult {
    check_place(&app, &args)?;
    let mode = args.mode();
    let is_restore = mode == Mode::Restore;
    let wait = Wait {
        url: status::url(&app.config, args.url)?,
        limit: args.timeout,
    };
    let (backup, generation) = with_generation(&app.config, &args.backup, None)?;
    let backup = backup.to_owned();
    let (uri, name) = if backup.contains("://") {
        (Some(backup), None)
    } else {
        (None, Some(backup))
    };
    let request = RestoreRequest {
        request_id: args
            .request_id
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        backup: BackupSpec {
            name,
            uri,
            generation: generation.map(|g| g.to_string()),
            database: args.database,
            ..BackupSpec::default()
        },
        target_db: args.target,
        on_existing: if args.into_empty {
            OnExisting::Fill
        } else {
            args.on_existing
        },
        mode,
        depth: args.depth,
        jobs: args.jobs.and_then(|n| u32::try_from(n).ok()),
        deadline: None,
        labels: Default::default(),
        select: args.select,
        in_place: Some(app.config.in_place).filter(|p| is_restore && *p != InPlace::Auto),
        on_error: Some(app.config.policy.on_error).filter(|p| is_restore && *p != OnError::Stop),
        finish: args.finish,
        finish_checks: args.finish_checks,
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
    watch::answer(&app, &request.request_id, &wait, output).await
}

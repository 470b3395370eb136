//! `rollback DB`: swaps a database that a restore replaced back into place.

use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, print_json};
use crate::app::App;
use crate::error::FailureReason;
use crate::event::check_texts;

#[derive(Debug, clap::Args)]
pub(super) struct RollbackArgs {
    /// Database to roll back
    #[arg(value_name = "DB")]
    target: String,
    /// Kept database to bring back [default: the newest]
    #[arg(long, value_name = "NAME", help_heading = help::TARGET)]
    to: Option<String>,
    /// List the kept databases and change nothing
    #[arg(long, conflicts_with = "to", help_heading = help::TARGET)]
    list: bool,
    /// Id of this rollback; repeating the command with the same id does not roll back twice [default: generated]
    #[arg(long, value_name = "ID", help_heading = help::TARGET)]
    request_id: Option<String>,
}

pub(super) async fn run(app: App, args: RollbackArgs, output: OutputFormat) -> CommandResult {
    check_texts(
        &serde_json::json!({ "DB": args.target, "--to": args.to, "--request-id": args.request_id }),
    )?;
    if args.list {
        let kept = app.manager.kept(&args.target).await?;
        return match output {
            OutputFormat::Json => print_json(&kept),
            OutputFormat::Text => {
                for k in &kept {
                    let until = k
                        .keep_until
                        .map(|t| format!(", kept until {t}"))
                        .unwrap_or_default();
                    out!("{}  replaced {}{until}", k.name, k.replaced);
                }
                if kept.is_empty() {
                    out!("no database is kept for {}", args.target);
                }
                Ok(Exit::Ok)
            }
        };
    }
    let id = args
        .request_id
        .unwrap_or_else(|| format!("rollback-{}", uuid::Uuid::new_v4()));
    crate::job::check_request_id(&id)?;
    let done = app
        .manager
        .rollback(&args.target, args.to.as_deref(), &id)
        .await;
    if matches!(&done, Err(e) if e.reason() == FailureReason::TargetUnavailable)
        && app.manager.has_reached_target()
    {
        // The rollback may have happened; a second one would undo it.
        err!(
            "the rollback may have succeeded; to find out or to retry, run: pgrestored rollback {} --request-id {id}",
            args.target
        );
    }
    let done = done?;
    match output {
        OutputFormat::Json => print_json(&done),
        OutputFormat::Text => {
            done.notes.iter().for_each(|n| out!("note: {n}"));
            out!(
                "{} is back: it was kept as {}",
                done.target_db,
                done.restored_database
            );
            if let Some(previous) = &done.previous_database {
                out!(
                    "the database that it replaced is kept as {previous}; `pgrestored rollback {}` brings it back",
                    done.target_db
                );
            }
            Ok(Exit::Ok)
        }
    }
}

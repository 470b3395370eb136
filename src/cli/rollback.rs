//! `rollback DB`: the database that a restore has replaced takes its place again.

use super::{CommandResult, Exit, Output, print_json};
use crate::app::App;
use crate::error::FailureReason;
use crate::event::check_texts;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Database whose previous state comes back
    #[arg(value_name = "DB")]
    target: String,
    /// One of the databases that are kept for it; by default the newest
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Show what is kept, and change nothing
    #[arg(long, conflicts_with = "to")]
    list: bool,
    /// A repetition with the same id is the same rollback [default: a new one]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

pub(super) async fn run(app: App, args: Args, output: Output) -> CommandResult {
    check_texts(
        &serde_json::json!({ "DB": args.target, "--to": args.to, "--request-id": args.request_id }),
    )?;
    if args.list {
        let kept = app.manager.kept(&args.target).await?;
        return match output {
            Output::Json => print_json(&kept),
            Output::Text => {
                for k in &kept {
                    let until = k
                        .keep_until
                        .map(|t| format!(", kept until {t}"))
                        .unwrap_or_default();
                    out!("{}  replaced {}{until}", k.name, k.replaced);
                }
                if kept.is_empty() {
                    out!("nothing is kept for {}", args.target);
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
    if matches!(&done, Err(e) if e.reason() == FailureReason::TargetUnavailable) {
        // It may have been done all the same; another one would undo it.
        err!(
            "to find out or try again: pgrestored rollback {} --request-id {id}",
            args.target
        );
    }
    let done = done?;
    match output {
        Output::Json => print_json(&done),
        Output::Text => {
            done.notes.iter().for_each(|n| out!("note: {n}"));
            out!("{} is what {} was", done.target_db, done.restored_database);
            if let Some(previous) = &done.previous_database {
                out!(
                    "what it replaced is kept as {previous}: `pgrestored rollback` brings it back"
                );
            }
            Ok(Exit::Ok)
        }
    }
}

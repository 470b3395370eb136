//! `promote COPY --to DB`: swaps a restored copy into the place of another database.

use super::exit::{CommandResult, Exit};
use super::output::{OutputFormat, print_json};
use crate::app::App;
use crate::database::{Promotion, Provenance};
use crate::error::FailureReason;
use crate::event::check_texts;
use crate::job::OnExisting;

#[derive(Debug, clap::Args)]
pub(super) struct PromoteArgs {
    /// Restored database to swap in; sessions on it are terminated
    copy: String,
    /// Name that it gets
    #[arg(long, value_name = "DB")]
    to: String,
    /// What to do if a database of that name exists
    #[arg(long, value_enum, default_value_t = OnExisting::Fail)]
    on_existing: OnExisting,
    /// Also promote a database that no record shows to be complete
    #[arg(long)]
    unproven: bool,
    /// Id of this promotion; repeating the command with the same id does not promote twice [default: generated]
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
}

impl PromoteArgs {
    /// The command that repeats this promotion.
    fn repeated(&self, id: &str) -> String {
        let mut command = format!("pgrestored promote {} --to {}", self.copy, self.to);
        if self.on_existing == OnExisting::Replace {
            command.push_str(" --on-existing replace");
        }
        if self.unproven {
            command.push_str(" --unproven");
        }
        format!("{command} --request-id {id}")
    }
}

pub(super) async fn run(app: App, args: PromoteArgs, output: OutputFormat) -> CommandResult {
    check_texts(
        &serde_json::json!({ "COPY": args.copy, "--to": args.to, "--request-id": args.request_id }),
    )?;
    let id = args
        .request_id
        .clone()
        .unwrap_or_else(|| format!("promote-{}", uuid::Uuid::new_v4()));
    crate::job::check_request_id(&id)?;
    let promotion = Promotion {
        request_id: &id,
        copy: &args.copy,
        target_db: &args.to,
        on_existing: args.on_existing,
        provenance: if args.unproven {
            Provenance::Waived
        } else {
            Provenance::Required
        },
    };
    let done = app.manager.promote(&promotion).await;
    if matches!(&done, Err(e) if e.reason() == FailureReason::TargetUnavailable)
        && app.manager.has_reached_target()
    {
        err!(
            "the promotion may have succeeded; to find out or to retry, run: {}",
            args.repeated(&id)
        );
    }
    let done = done?;
    match output {
        OutputFormat::Json => print_json(&done),
        OutputFormat::Text => {
            done.notes.iter().for_each(|n| out!("note: {n}"));
            out!("{} is now {}", done.promoted_database, done.target_db);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repeated_command_is_the_same_promotion() {
        let args = PromoteArgs {
            copy: "app_restored".into(),
            to: "app".into(),
            on_existing: OnExisting::Replace,
            unproven: true,
            request_id: None,
        };
        assert_eq!(
            args.repeated("x"),
            "pgrestored promote app_restored --to app --on-existing replace --unproven --request-id x"
        );
        let plain = PromoteArgs {
            on_existing: OnExisting::Fail,
            unproven: false,
            ..args
        };
        assert_eq!(
            plain.repeated("x"),
            "pgrestored promote app_restored --to app --request-id x"
        );
    }
}

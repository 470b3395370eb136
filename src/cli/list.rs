//! `list`: lists the backups at the configured location.

use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, human_bytes, print_json};
use crate::app::App;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only backups whose names start with this
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
}

pub(super) async fn run(app: App, args: ListArgs, output: OutputFormat) -> CommandResult {
    let backups = app.manager.catalog().list_backups(&args.prefix).await?;
    if output == OutputFormat::Json {
        return print_json(&backups);
    }
    if backups.is_empty() {
        out!("No backups in {}", app.config.bucket.uri(&args.prefix));
    }
    for b in backups {
        out!(
            "{:<20} {:>12}  {}  {}",
            b.created.strftime("%Y-%m-%d %H:%M:%SZ"),
            human_bytes(b.size),
            b.checksum.as_deref().unwrap_or("-"),
            b.name
        );
    }
    Ok(Exit::Ok)
}

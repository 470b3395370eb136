//! `list`: lists the backups at the configured location.

use super::exit::{CommandResult, Exit};
use super::output::{OutputFormat, human_bytes, print_json};
use crate::app::App;
use crate::backup::Backup;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only backups whose names start with this
    #[arg(long, default_value = "")]
    prefix: String,
    /// Only backups of this database, as their archives name it
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

pub(super) async fn run(app: App, args: ListArgs, output: OutputFormat) -> CommandResult {
    let backups = backups(&app, &args).await?;
    if output == OutputFormat::Json {
        return print_json(&backups);
    }
    if backups.is_empty() {
        let of = args.database.map(|d| format!(" of database {d}"));
        let at = app.config.bucket.uri(&args.prefix);
        out!("No backups{} in {at}", of.unwrap_or_default());
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

async fn backups(app: &App, args: &ListArgs) -> Result<Vec<Backup>, crate::error::RestoreError> {
    let catalog = app.manager.catalog();
    let Some(database) = &args.database else {
        return catalog.list_backups(&args.prefix).await;
    };
    let (backups, left_out) = catalog.list_backups_of(&args.prefix, database).await?;
    if left_out > 0 {
        err!(
            "{} older {} not looked into: narrow the list with --prefix",
            indicatif::HumanCount(left_out as u64),
            if left_out == 1 {
                "backup was"
            } else {
                "backups were"
            }
        );
    }
    Ok(backups)
}

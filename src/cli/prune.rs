//! `prune`: shows which backups are older than BACKUP_RETENTION_DAYS and can be deleted; with `--apply`,
//! deletes them.

use super::backup::check_set;
use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, count, human_bytes, print_json};
use crate::app::App;
use crate::backup::Backup;
use crate::error::report;

#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Delete the backups; without this flag, only show them
    #[arg(long, help_heading = help::POLICY)]
    apply: bool,
    /// Only this set of backups
    #[arg(long, help_heading = help::SELECTION)]
    set: Option<String>,
    /// Accept evidence that is not signed; then anyone who may create objects there decides what is deleted
    #[arg(long, help_heading = help::POLICY)]
    trust_unsigned: bool,
}

/// What `prune` decided about one backup.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct Pruned {
    set: String,
    #[serde(flatten)]
    backup: Backup,
    proven: bool,
    /// keep, delete (would be), deleted or failed
    action: &'static str,
    why: String,
}

pub(super) async fn run(app: App, args: PruneArgs, output: OutputFormat) -> CommandResult {
    check_set(&app.config, args.set.as_deref())?;
    let (mut all, mut exit) = (Vec::new(), Exit::Ok);
    for set in &app.config.verify.sets {
        if args.set.as_ref().is_some_and(|wanted| *wanted != set.name) {
            continue;
        }
        for decision in app
            .manager
            .catalog()
            .retention(&set.name, args.trust_unsigned)
            .await?
        {
            let mut why = decision.why.clone();
            let action = match (decision.delete, args.apply) {
                (false, _) => "keep",
                (true, false) => "delete",
                (true, true) => match app.manager.catalog().delete_backup(&decision.object).await {
                    Ok(()) => "deleted",
                    Err(e) => {
                        exit = Exit::of(e.reason());
                        why = format!("{why}; not deleted: {}", report(&e));
                        "failed"
                    }
                },
            };
            let (set, backup) = (set.name.clone(), Backup::from(decision.object));
            all.push(Pruned {
                set,
                backup,
                proven: decision.proven,
                action,
                why,
            });
        }
    }
    if output == OutputFormat::Json {
        print_json(&all)?;
        return Ok(exit);
    }
    for p in &all {
        let proven = if p.proven { "proven  " } else { "unproven" };
        let created = p.backup.created.strftime("%Y-%m-%d %H:%M");
        out!(
            "{:<8} {proven} {created} {:>12}  {}: {}",
            p.action,
            human_bytes(p.backup.size),
            p.backup.name,
            p.why
        );
    }
    let selected = all.iter().filter(|p| p.action != "keep");
    let bytes: u64 = selected.clone().map(|p| p.backup.size).sum();
    let done = if args.apply {
        "selected for deletion"
    } else {
        "would be deleted with --apply"
    };
    out!(
        "{} of {} ({}) {done}",
        indicatif::HumanCount(selected.count() as u64),
        count(all.len() as u64, "backup"),
        human_bytes(bytes)
    );
    Ok(exit)
}

//! `prune`: shows which backups are older than BACKUP_RETENTION_DAYS and can be deleted; with `--apply`,
//! deletes them.

use super::backup::check_set;
use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, count, human_bytes, print_json};
use crate::app::App;
use crate::backup::Backup;
use crate::catalog::{BackupLock, BackupLocks};
use crate::error::{RestoreError, StorageKind, report};
use crate::retention::Decision;

#[derive(Debug, clap::Args)]
pub(super) struct PruneArgs {
    /// Delete the backups; without this flag, only show them
    ///
    /// What a hold or a retention policy of the bucket keeps is shown as held or retained, and left as it is.
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
    /// keep, delete (would be), deleted, held (by a hold), retained (by a retention policy) or failed
    action: &'static str,
    why: String,
}

impl Pruned {
    /// Whether it is deleted, or would be, or should have been.
    fn is_selected(&self) -> bool {
        !["keep", HELD, RETAINED].contains(&self.action)
    }
}

/// The actions for what the bucket keeps.
const HELD: &str = "held";
const RETAINED: &str = "retained";

/// What becomes of a backup that is to be deleted, and why it is not if it is not; the exit code is `exit` then.
async fn delete(
    app: &App,
    decision: &Decision,
    apply: bool,
    (lock, exit): (Option<BackupLock>, &mut Exit),
) -> (&'static str, Option<String>) {
    if let Some(lock) = lock {
        let action = match lock {
            BackupLock::Held { .. } => HELD,
            BackupLock::Retained { .. } => RETAINED,
        };
        return (action, Some(lock.phrase(&app.config.bucket.uri(""))));
    }
    if !apply {
        return ("delete", None);
    }
    match app.manager.catalog().delete_backup(&decision.object).await {
        Ok(()) => ("deleted", None),
        // The listing did not say so yet.
        Err(RestoreError::Storage(e)) if e.kind() == StorageKind::Retained => {
            (RETAINED, Some(format!("not deleted: {}", report(&e))))
        }
        Err(e) => {
            *exit = Exit::of(e.reason());
            ("failed", Some(format!("not deleted: {}", report(&e))))
        }
    }
}

pub(super) async fn run(app: App, args: PruneArgs, output: OutputFormat) -> CommandResult {
    check_set(&app.config, args.set.as_deref())?;
    let (mut all, mut exit) = (Vec::new(), Exit::Ok);
    for set in &app.config.verify.sets {
        if args.set.as_ref().is_some_and(|wanted| *wanted != set.name) {
            continue;
        }
        let catalog = app.manager.catalog();
        let decisions = catalog.retention(&set.name, args.trust_unsigned).await?;
        let is_any_deleted = decisions.iter().any(|d| d.delete);
        let locks = if is_any_deleted {
            catalog.locks(&set.name, jiff::Timestamp::now()).await?
        } else {
            BackupLocks::default()
        };
        for decision in decisions {
            let (action, but) = if decision.delete {
                let lock = locks.of(&decision.object);
                delete(&app, &decision, args.apply, (lock, &mut exit)).await
            } else {
                ("keep", None)
            };
            let why = match but {
                Some(but) => format!("{}; {but}", decision.why),
                None => decision.why.clone(),
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
    let selected = all.iter().filter(|p| p.is_selected());
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

//! `rehearse`: tries all definitions of a backup on the target server, without rows, and shows what it refuses.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::backup::{backup_of, hint_of, with_generation};
use super::exit::{CommandError, CommandResult, Exit};
use super::failure;
use super::help;
use super::output::{OutputFormat, count, duration, print_json};
use super::signals::until_signal;
use crate::app::App;
use crate::error::{RestoreError, StorageError, StorageKind};
use crate::event::check_texts;
use crate::job::{
    BackupRef, Generation, OnExisting, Rehearsal, RehearsedRefusal, RestoreJob, parse_jobs,
};
use crate::policy::Selection;
use crate::progress::Progress;

/// Most entries that are shown of one root cause.
const SHOWN: usize = 5;

#[derive(Debug, clap::Args)]
pub(super) struct RehearseArgs {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven
    ///
    /// latest@TIME and latest-proven@TIME choose what was the newest at that time, also an age such as 2d; NAME#GENERATION is one
    /// generation of an object.
    backup: String,
    /// Number of connections that try definitions, 1 to 256 [default: RESTORE_JOBS]
    #[arg(long, value_name = "N", value_parser = parse_jobs, allow_negative_numbers = true, help_heading = help::TARGET)]
    jobs: Option<usize>,
    /// Prefix under which `latest` and `latest-proven` search
    ///
    /// It is an error with a backup that is named.
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
    /// Only this generation of the object
    #[arg(long, hide_short_help = true, help_heading = help::SELECTION)]
    generation: Option<Generation>,
    /// Only this database: of latest, or of a whole cluster's dump
    ///
    /// latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken.
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
    #[command(flatten)]
    select: Selection,
}

pub(super) async fn run(app: App, args: RehearseArgs, output: OutputFormat) -> CommandResult {
    check_texts(&serde_json::json!({ "part": args.select }))?;
    let named = (args.prefix.as_str(), args.database.as_deref());
    let (backup, generation) = with_generation(&app.config, &args.backup, args.generation)?;
    let wanted = backup_of(&app.config, backup, named)?;
    let job = RestoreJob {
        generation,
        jobs: args.jobs,
        selection: args.select,
        ..job_of(wanted, args.database)
    };
    let rehearsal = match rehearse(&app, &job, (&args.backup, output)).await? {
        Ok(rehearsal) => rehearsal,
        Err(signalled) => return Ok(signalled),
    };
    match output {
        OutputFormat::Json => {
            print_json(&rehearsal)?;
        }
        OutputFormat::Text => print(&rehearsal),
    }
    Ok(exit_of(&rehearsal))
}

/// The rehearsal of a backup of this database.
pub(super) fn job_of(backup: BackupRef, database: Option<String>) -> RestoreJob {
    let id = uuid::Uuid::new_v4().to_string();
    RestoreJob {
        backup,
        database,
        on_existing: OnExisting::Fail,
        ..RestoreJob::replacing(&id, "", String::new())
    }
}

/// Rehearses; the exit code after a signal.
pub(super) async fn rehearse(
    app: &App,
    job: &RestoreJob,
    (named, output): (&str, OutputFormat),
) -> Result<Result<Rehearsal, Exit>, CommandError> {
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let work = app.manager.rehearse(job, &progress, stop.clone());
    let (done, signalled) = until_signal(work, &stop).await?;
    if let Some(exit) = signalled {
        if output == OutputFormat::Json {
            failure::print_interrupted(exit);
        }
        return Ok(Err(exit));
    }
    Ok(Ok(done.map_err(|e| with_hint(e, named))?))
}

/// The same error; for a backup that was not found, with the file that may be meant.
pub(super) fn with_hint(e: RestoreError, named: &str) -> RestoreError {
    match hint_of(named, e.reason()) {
        Some(hint) => StorageError::new(StorageKind::NotFound, format!("{e}; {hint}")).into(),
        None => e,
    }
}

pub(super) fn exit_of(rehearsal: &Rehearsal) -> Exit {
    if rehearsal.restorable {
        Exit::Ok
    } else {
        Exit::Failed
    }
}

/// What is refused, by its root cause.
pub(super) fn print(r: &Rehearsal) {
    let (tried, time) = (count(r.entries, "definition"), duration(r.duration_seconds));
    if r.restorable {
        // What was not read may still be refused.
        let place = if r.note.starts_with("SQL text") {
            " before rows that it did not read; nothing after those was tried"
        } else {
            ""
        };
        out!("the server accepts all of {tried}{place}, tried in {time}");
    } else {
        let what = lost(r);
        out!("of {tried}, {what}; tried in {time}");
    }
    for (root, refusals) in by_root(&r.refusals) {
        out!("{root}");
        for refused in refusals.iter().take(SHOWN) {
            let refusal = &refused.refusal;
            let code = refusal.sqlstate.as_deref().unwrap_or("-");
            out!("  {}: {} [{code}]", refusal.entry, refusal.message);
        }
        if let Some(more) = refusals.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            out!("  and {more} more");
        }
        if let Some(first) = refusals.first() {
            out!("  fix: {}", first.fix);
        }
    }
    out!("note: {}", r.note);
}

/// How many definitions would not be restored. Rows are none, and an object without its owner is restored.
fn lost(r: &Rehearsal) -> String {
    const NO_DEFINITIONS: [&str; 4] = [
        "TABLE DATA ",
        "MATERIALIZED VIEW DATA ",
        "SEQUENCE SET ",
        "BLOBS ",
    ];
    let names = r.refusals.iter().map(|r| r.refusal.entry.as_str());
    let names: HashSet<&str> = names.collect();
    let (owners, others): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|n| n.starts_with("OWNER OF "));
    let is_one = |n: &&str| !NO_DEFINITIONS.iter().any(|kind| n.starts_with(kind));
    let refused = others.into_iter().filter(is_one).count() as u64;
    let refused = format!("{} would not be restored", refused.min(r.entries));
    match owners.len() {
        0 => refused,
        lost => format!("{refused}, and {lost} would not have their owner"),
    }
}

/// The refusals of each root cause, in the order in which they were found.
fn by_root(refusals: &[RehearsedRefusal]) -> Vec<(&str, Vec<&RehearsedRefusal>)> {
    let mut places = std::collections::HashMap::new();
    let mut roots: Vec<(&str, Vec<&RehearsedRefusal>)> = vec![];
    for refused in refusals {
        let root = refused.refusal.root.as_str();
        let place = *places.entry(root).or_insert(roots.len());
        if place == roots.len() {
            roots.push((root, vec![]));
        }
        roots[place].1.push(refused);
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_restore::Refusal;

    #[test]
    fn consequences_are_shown_under_their_root() {
        let refused = |entry: &str, root: &str| RehearsedRefusal {
            refusal: Refusal {
                entry: entry.to_owned(),
                sqlstate: None,
                message: "no".to_owned(),
                root: root.to_owned(),
                caused_by: None,
            },
            fix: String::new(),
        };
        let all = [
            refused("EXTENSION a", "EXTENSION a"),
            refused("OWNER OF TABLE t", "ROLE app"),
            refused("TABLE u", "EXTENSION a"),
        ];
        let groups = by_root(&all);
        let groups: Vec<(&str, usize)> = groups.iter().map(|(r, all)| (*r, all.len())).collect();
        assert_eq!(groups, [("EXTENSION a", 2), ("ROLE app", 1)]);
    }

    #[test]
    fn no_more_definitions_are_lost_than_there_are() {
        let refused = |entry: &str| RehearsedRefusal {
            refusal: Refusal {
                entry: entry.to_owned(),
                sqlstate: None,
                message: "no".to_owned(),
                root: "ROLE app".to_owned(),
                caused_by: None,
            },
            fix: String::new(),
        };
        let of = |entries: &[&str]| {
            lost(&Rehearsal {
                backup: Default::default(),
                restorable: false,
                entries: 2,
                refusals: entries.iter().map(|e| refused(e)).collect(),
                refusals_total: entries.len() as u64,
                note: String::new(),
                duration_seconds: 1.0,
            })
        };
        assert_eq!(
            of(&["TABLE t", "TABLE DATA t", "ACL t", "ACL t"]),
            "2 would not be restored"
        );
        assert_eq!(
            of(&["OWNER OF TABLE t", "OWNER OF TABLE u"]),
            "0 would not be restored, and 2 would not have their owner"
        );
        assert_eq!(
            of(&["ALTER a", "ALTER b", "ALTER c"]),
            "2 would not be restored"
        );
    }
}

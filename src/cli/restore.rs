//! `restore`: restores one backup and shows the progress.

use crate::job::Generation;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgdump_restore::{FinishingSql, MAX_FINISHING_BYTES, MaskingReport, Stage, UseList};
use tokio_util::sync::CancellationToken;

use super::advice;
use super::backup::{backup_of, hint_of, of_generations, with_generation};
use super::continuable;
use super::display;
use super::exit::{CommandError, CommandResult, Exit, usage};
use super::files;
use super::help;
use super::output::{OutputFormat, count, duration, human_bytes, print_json};
use super::signals::until_signal;
use super::terminal;
use crate::app::App;
use crate::config::Document;
use crate::error::{ErrorBody, FailureReason, RestoreError, ValidationError, ValidationKind};
use crate::event::{NOT_EMPTIED, RestoreResult, ResumedFrom, check_texts};
use crate::job::{
    Finishing, FinishingFile, KeepProgress, MAX_FINISHING_FILES, OnExisting, RestoreJob,
    check_request_id, digest_of, parse_jobs,
};
use crate::progress::Progress;
use crate::verification::ChecksFile;

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven
    ///
    /// latest@TIME and latest-proven@TIME choose what was the newest at that time, also an age such as 2d; NAME#GENERATION is one
    /// generation of an object.
    backup: String,
    /// Database to restore into [default: DB_NAME]
    #[arg(long, value_name = "DB", help_heading = help::TARGET)]
    target: Option<String>,
    /// What to do if the database exists
    #[arg(long, value_enum, default_value_t = OnExisting::Fail, value_name = "POLICY", help_heading = help::TARGET)]
    on_existing: OnExisting,
    /// Load into the database, which must exist and be empty
    ///
    /// For roles that may not create databases. It is loaded in place, closed to others if the role owns it; a failure empties it
    /// again. It cannot be undone by a rollback. In a request, this is on_existing: fill.
    #[arg(long, conflicts_with = "on_existing", hide_short_help = true, help_heading = help::TARGET)]
    into_empty: bool,
    /// Number of connections that load, 1 to 256 [default: RESTORE_JOBS]
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
    /// Let latest-proven also choose a former generation of an object
    #[arg(long, hide_short_help = true, help_heading = help::SELECTION)]
    versions: bool,
    /// If the object is soft-deleted, make it live again first
    ///
    /// It gets a new generation. list --versions shows which objects are soft-deleted, and until when they can be restored.
    #[arg(long, hide_short_help = true, help_heading = help::SELECTION)]
    restore_soft_deleted: bool,
    /// With --restore-soft-deleted, also if another generation is live
    ///
    /// With Object Versioning, that one becomes non-current, otherwise soft-deleted.
    #[arg(long, requires = "restore_soft_deleted", hide_short_help = true, help_heading = help::SELECTION)]
    replace_live: bool,
    /// Only this database: of latest, or of a whole cluster's dump
    ///
    /// latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken.
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
    /// Id of this restore in the journal [default: generated]
    #[arg(long, value_name = "ID", hide_short_help = true, help_heading = help::TARGET)]
    request_id: Option<String>,
    /// Only the entries that this file lists, as inspect --list and pg_restore --list print them
    ///
    /// A line that begins with a semicolon is a comment. What a listed entry needs has to be listed, too; the order is
    /// that of this program.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = help::SELECTION)]
    use_list: Option<PathBuf>,
    /// SQL file to run in the restored database before it is swapped in; repeatable
    ///
    /// Each file is one transaction of at most RESTORE_FINISH_TIMEOUT, run as DB_USER or, if the restore is restricted, as
    /// the role that loads it. If one fails, nothing is changed. In a request, these are names of files in
    /// RESTORE_FINISH_FROM.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = help::TARGET)]
    finish: Vec<PathBuf>,
    /// File with checks that must pass in the restored database before it is swapped in, after --finish
    ///
    /// It has the form of VERIFY_CHECKS.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = help::TARGET)]
    finish_checks: Option<PathBuf>,
    /// If the restore is interrupted, keep what it has loaded
    ///
    /// Then --resume goes on there, for RESTORE_RESUME_FOR; status lists it, and reap drops it. It is kept if it had loaded for
    /// RESTORE_RESUME_FROM.
    #[arg(long, conflicts_with_all = ["into_empty", "data_only"], hide_short_help = true, help_heading = help::TARGET)]
    keep_progress: bool,
    /// Continue the restore into this database that --keep-progress kept
    ///
    /// The backup and the options must be the same. If anything that it depends on has changed, it begins from the start, and a note
    /// of the result says why. If it is interrupted again, what it has loaded is kept again.
    #[arg(long, conflicts_with_all = ["into_empty", "data_only"], hide_short_help = true, help_heading = help::TARGET)]
    resume: bool,
    #[command(flatten)]
    select: crate::policy::Selection,
}

impl RestoreArgs {
    fn on_existing(&self) -> OnExisting {
        if self.into_empty {
            OnExisting::Fill
        } else {
            self.on_existing
        }
    }

    fn keep(&self) -> KeepProgress {
        if self.keep_progress || self.resume {
            KeepProgress::ForPerson
        } else {
            KeepProgress::Never
        }
    }

    /// Checks the options that keep and continue work, and finds the restore that is continued.
    async fn prepare_to_resume(&mut self, app: &App) -> Result<(), CommandError> {
        let mode = app.config.resume.mode;
        if self.keep_progress {
            continuable::check("--keep-progress", mode, &self.backup)?;
        }
        if !self.resume {
            return Ok(());
        }
        continuable::check("--resume", mode, &self.backup)?;
        let target = self.target.as_ref().or(app.config.db_name.as_ref());
        // Without a target, the job cannot be made either, and says so.
        if let Some(target) = target {
            let id = continuable::find(app, target, self.request_id.as_deref()).await?;
            self.request_id = Some(id);
        }
        Ok(())
    }

    /// The result of a restore that cannot begin, without its error.
    pub(super) fn draft(&self) -> RestoreResult {
        let (id, now) = (self.request_id.clone(), jiff::Timestamp::now());
        let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        RestoreResult {
            target_db: self.target.clone(),
            ..RestoreResult::new(&id, (now, now))
        }
    }
}

/// The entries that the file lists. Names in it may have any encoding.
fn read_list(file: &Path) -> Result<UseList, CommandError> {
    let text = files::read(file)?;
    let name = file.display().to_string();
    Ok(UseList::parse(&name, &String::from_utf8_lossy(&text))?)
}

fn read_sql(file: &Path) -> Result<Arc<FinishingFile>, CommandError> {
    let name = file.display().to_string();
    let about = std::fs::metadata(file).map_err(|e| files::fault(file, "read", &e))?;
    if about.len() > MAX_FINISHING_BYTES {
        return Err(RestoreError::from(FinishingSql::too_large(&name)).into());
    }
    Ok(Arc::new(FinishingFile::parse(&name, &files::read(file)?)?))
}

/// The files of SQL, and the checks, that finish the restore.
fn read_finishing(args: &RestoreArgs) -> Result<Finishing, CommandError> {
    if args.finish.len() > MAX_FINISHING_FILES {
        let what = format!("--finish: must be given at most {MAX_FINISHING_FILES} times");
        return Err(usage(what));
    }
    let sql: Result<Vec<_>, CommandError> = args.finish.iter().map(|file| read_sql(file)).collect();
    let checks = args.finish_checks.as_ref().map(|file| {
        let document = Document {
            path: file.display().to_string(),
            text: files::read_text(file)?,
        };
        ChecksFile::parse_as("--finish-checks", &document)?;
        Ok::<_, CommandError>(document)
    });
    Ok(Finishing {
        files: sql?,
        checks: checks.transpose()?,
        ..Finishing::default()
    })
}

pub(super) async fn run(app: App, mut args: RestoreArgs, output: OutputFormat) -> CommandResult {
    let list = args.use_list.as_deref().map(read_list).transpose()?;
    args.select.use_list = list.map(Arc::new);
    let finishing = read_finishing(&args)?;
    args.prepare_to_resume(&app).await?;
    let (backup, is_resumed) = (args.backup.clone(), args.resume);
    let undelete = args.restore_soft_deleted.then_some(args.replace_live);
    let mut job = job_of(&app, args, finishing)?;
    if let Some(may_replace) = undelete {
        restore_soft_deleted(&app, &mut job, may_replace).await?;
    }
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let display = tokio::spawn(display::show(progress.clone()));
    let (mut finished, signalled) =
        until_signal(app.manager.run(&job, progress.clone(), stop.clone()), &stop).await?;
    display.abort();
    let _ = display.await;
    app.manager.record_completion(&finished);
    add_hint(&backup, finished.result.error.as_mut());
    let hint = continuable::hint_after_failure(&app, &job, &backup, &finished.result).await;
    if let Some(e) = finished.result.error.as_mut() {
        if is_resumed {
            continuable::explain_other_options(e, &job.target_db);
        }
        if let Some(hint) = hint {
            e.message = format!("{}; {hint}", e.message);
        }
    }
    match output {
        OutputFormat::Json => {
            print_json(&finished.result)?;
        }
        OutputFormat::Text => print_result(&finished.result),
    }
    Ok(match (finished.failure, signalled) {
        (None, _) => Exit::of_success(&finished.result),
        (Some(FailureReason::Cancelled), Some(signal)) => signal,
        (Some(reason), _) => Exit::of_error(reason, finished.result.error.as_ref()),
    })
}

pub(super) fn add_hint(backup: &str, error: Option<&mut ErrorBody>) {
    let Some(e) = error else { return };
    if let Some(hint) = hint_of(backup, e.reason) {
        e.message = format!("{}; {hint}", e.message);
    }
}

/// Tells what finishes a restore from other SQL and checks under the same names.
fn digests_of(finish: &Finishing) -> Vec<String> {
    let checks = finish.checks.iter().map(|c| digest_of(&c.text));
    let files = finish.files.iter().map(|f| f.sha256.clone());
    files.chain(checks).collect()
}

/// Makes the backup of a job live again if it is soft-deleted; the job is then about the generation that it has now.
async fn restore_soft_deleted(
    app: &App,
    job: &mut RestoreJob,
    may_replace: bool,
) -> Result<(), RestoreError> {
    let catalog = app.manager.catalog();
    let undeleted = catalog.undelete(&job.backup, job.generation, may_replace);
    let Some(restored) = undeleted.await? else {
        return Ok(());
    };
    let (uri, generation) = (&restored.uri, restored.generation);
    err!(
        "{uri}#{} was soft-deleted: it is live again, as generation {generation}",
        restored.former
    );
    if let Some(replaced) = restored.replaced {
        err!("{uri}#{replaced} was live before: list --versions shows what became of it");
    }
    job.generation = Some(generation);
    Ok(())
}

fn job_of(app: &App, args: RestoreArgs, finish: Finishing) -> Result<RestoreJob, RestoreError> {
    let invalid =
        |what: &str| RestoreError::from(ValidationError::new(ValidationKind::InvalidRequest, what));
    let (on_existing, keep) = (args.on_existing(), args.keep());
    let target = args.target.or_else(|| app.config.db_name.clone());
    let files: Vec<&str> = finish.files.iter().map(|f| f.sql.name()).collect();
    check_texts(
        &serde_json::json!({ "--target": target, "--request-id": args.request_id, "--finish": files, "part": args.select }),
    )?;
    let request_id = args
        .request_id
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    check_request_id(&request_id)?;
    let target = target.ok_or_else(|| invalid("no target database: set --target or DB_NAME"))?;
    let (backup, generation) = with_generation(&app.config, &args.backup, args.generation)?;
    let wanted = (args.prefix.as_str(), args.database.as_deref());
    let wanted = of_generations(backup_of(&app.config, backup, wanted)?, args.versions)?;
    let mut asked = serde_json::json!({
        "backup": args.backup, "prefix": args.prefix, "generation": args.generation.map(|g| g.0),
        "database": args.database, "target_db": target, "on_existing": on_existing, "part": args.select,
    });
    if let Some(list) = &args.select.use_list {
        asked["use_list"] = list.ids().map(|id| id.0).collect();
    }
    let finishing = digests_of(&finish);
    if !finishing.is_empty() {
        asked["finish"] = finishing.into();
    }
    if let Some(rules) = &app.config.masking {
        asked["mask"] = rules.0.digest().into();
    }
    if args.versions {
        asked["versions"] = true.into();
    }
    let digest = digest_of(&asked);
    Ok(RestoreJob {
        request_id,
        backup: wanted,
        generation,
        crc32c: None,
        target_db: target,
        on_existing,
        jobs: args.jobs,
        deadline: None,
        labels: Default::default(),
        published_us: None,
        attempt: 1,
        policy: None,
        keep_previous: None,
        masking: None,
        digest,
        database: args.database,
        selection: args.select,
        in_place: None,
        on_error: None,
        finish,
        is_rehearsal: false,
        keep,
    })
}

/// Rounding of durations, in seconds: a smaller difference says nothing.
const ROUNDING: f64 = 0.1;

/// Each stage with its duration, in the order in which they run. A stage of the result ends when the next one begins; for a
/// person, those that overlap last from their first to their last activity.
fn stages_of(r: &RestoreResult) -> String {
    let ran = Stage::ALL.iter().filter_map(|stage| {
        let name = stage.as_str();
        let seconds = r.stages_active.get(name).or(r.stages.get(name))?;
        Some(format!("{stage} {}", duration(*seconds)))
    });
    let active: f64 = r.stages_active.values().sum();
    let passed = r.stages_active.keys().filter_map(|name| r.stages.get(name));
    let overlap = if active > passed.sum::<f64>() + ROUNDING {
        " (data and indexes overlap)"
    } else {
        ""
    };
    ran.collect::<Vec<_>>().join(", ") + overlap
}

/// What earlier attempts had done, in one line.
fn resumed(earlier: &ResumedFrom) -> String {
    format!(
        "resumed from attempt {}: {}, {} saved",
        earlier.attempt,
        human_bytes(earlier.bytes),
        duration(earlier.seconds_saved)
    )
}

/// What was masked, in one line.
fn masked(masking: &MaskingReport) -> String {
    let tables = &masking.tables;
    let columns = tables.iter().map(|t| t.columns.len() as u64).sum();
    let all_columns = tables.iter().flat_map(|t| &t.columns);
    let values = all_columns.map(|c| c.changed).sum();
    let (rows, kept) = tables.iter().fold((0, 0), |(rows, kept), t| {
        (rows + t.rows, kept + t.rows_kept)
    });
    let mut line = format!(
        "masked: {}, {}, {}",
        count(masking.tables_total, "table"),
        count(columns, "column"),
        count(values, "value")
    );
    if kept < rows {
        line.push_str(&format!("; {kept} of {} kept", count(rows, "row")));
    }
    let rules = masking.digest.get(..8).unwrap_or_default();
    line.push_str(&format!(" (rules {rules}"));
    if let Some(key) = &masking.key_id {
        line.push_str(&format!(", key {key}"));
    }
    line.push(')');
    line
}

/// What is refused, each with what depends on it; after a failure, that of the stage that failed.
fn print_refusals(r: &RestoreResult, say: fn(&str)) {
    let of_error = r.error.as_ref();
    let (refusals, total) = match of_error {
        None => (&r.skipped, r.skipped_total),
        Some(e) if e.refusals_total > 1 => (&e.refusals, e.refusals_total),
        Some(_) => return,
    };
    if refusals.is_empty() {
        return;
    }
    say(&format!("  refused by the server: {total}"));
    for refusal in refusals {
        let code = refusal.sqlstate.as_deref().unwrap_or("-");
        match &refusal.caused_by {
            None => say(&format!(
                "    {}: {} [{code}]",
                refusal.entry, refusal.message
            )),
            Some(_) => say(&format!("      and with it {}", refusal.entry)),
        }
    }
}

/// A failure goes to standard error: standard output has results only.
pub(super) fn print_result(r: &RestoreResult) {
    let what = r.backup.uri.as_deref().unwrap_or("standard input");
    let target = r.target_db.as_deref().unwrap_or("-");
    let say: fn(&str) = match r.error {
        None => terminal::print,
        Some(_) => terminal::complain,
    };
    match &r.error {
        None => {
            out!(
                "restored {what} into {target} in {}",
                duration(r.duration_seconds)
            );
            out!(
                "  {}, {}, {}",
                count(r.tables, "table"),
                count(r.rows, "row"),
                human_bytes(r.bytes)
            );
            out!("  {}", stages_of(r));
            if let Some(earlier) = &r.resumed_from {
                out!("  {}", resumed(earlier));
            }
            for file in &r.finish {
                out!("  {} ran in {}", file.name, duration(file.seconds));
            }
            if let Some(masking) = &r.masking {
                out!("  {}", masked(masking));
            }
            if let Some(old) = &r.previous_database {
                out!("  the replaced database is kept as {old}");
            }
        }
        Some(e) => {
            err!(
                "not restored: {} ({}, blame: {}, stage {})",
                e.message,
                e.reason,
                e.blame.as_str(),
                e.stage
            );
            if r.notes.iter().all(|n| !n.starts_with(NOT_EMPTIED)) {
                err!("  nothing was changed");
            }
        }
    }
    print_refusals(r, say);
    for w in &r.rewrites {
        let examples = if w.examples.is_empty() {
            String::new()
        } else {
            format!(" ({})", w.examples.join(", "))
        };
        say(&format!("  {} × {}: {}{examples}", w.count, w.rule, w.what));
    }
    r.notes.iter().for_each(|n| say(&format!("  note: {n}")));
    let advice = advice::lines(&r.advice);
    advice
        .iter()
        .for_each(|line| say(&format!("  server: {line}")));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn result(stages: &[(&str, f64)], active: &[(&str, f64)]) -> RestoreResult {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let all = |stages: &[(&str, f64)]| -> BTreeMap<String, f64> {
            let named = stages.iter().map(|(name, s)| ((*name).to_owned(), *s));
            named.collect()
        };
        let mut result = RestoreResult::new("r", (now, now));
        (result.stages, result.stages_active) = (all(stages), all(active));
        result
    }

    #[test]
    fn stages_are_shown_in_the_order_in_which_they_run() {
        let stages = [
            ("analyze", 0.5),
            ("data", 61.0),
            ("prepare", 0.04),
            ("swap", 1.0),
        ];
        assert_eq!(
            stages_of(&result(&stages, &[])),
            "prepare 0.0 s, data 1 min 1 s, analyze 0.5 s, swap 1.0 s"
        );
    }

    #[test]
    fn a_restore_says_what_it_continued() {
        let earlier = ResumedFrom {
            attempt: 2,
            bytes: 5 << 30,
            rows: 7,
            seconds_saved: 2_160.0,
        };
        assert_eq!(
            resumed(&earlier),
            "resumed from attempt 2: 5.00 GiB, 36 min 0 s saved"
        );
    }

    /// What is not kept for long, or cannot be, is not asked to be kept.
    #[test]
    fn work_is_kept_for_a_person_who_asks_for_it() {
        use clap::Parser;
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: RestoreArgs,
        }
        let parse = |more: &[&str]| {
            let all = ["restore", "latest", "--target", "app"].iter().chain(more);
            Line::try_parse_from(all).map(|line| line.args)
        };
        for (flags, keep) in [
            (&[][..], KeepProgress::Never),
            (&["--keep-progress"], KeepProgress::ForPerson),
            (&["--resume"], KeepProgress::ForPerson),
            (&["--resume", "--keep-progress"], KeepProgress::ForPerson),
        ] {
            assert_eq!(parse(flags).unwrap().keep(), keep, "{flags:?}");
        }
        for flag in ["--keep-progress", "--resume"] {
            for other in ["--into-empty", "--data-only"] {
                assert!(parse(&[flag, other]).is_err(), "{flag} {other}");
            }
        }
    }

    #[test]
    fn a_masked_restore_says_so_in_one_line() {
        let column = |name: &str, changed| pgdump_restore::MaskedColumn {
            name: name.to_owned(),
            rule: "fake email".to_owned(),
            changed,
        };
        let table = |rows, rows_kept| pgdump_restore::MaskedTable {
            table: "shop.customer".to_owned(),
            columns: vec![column("email", 5), column("name", 3)],
            rows,
            rows_kept,
        };
        let mut report = MaskingReport {
            digest: "0123456789abcdef".to_owned(),
            key_id: Some("89abcdef".to_owned()),
            tables: vec![table(100, 5)],
            tables_total: 1,
        };
        assert_eq!(
            masked(&report),
            "masked: 1 table, 2 columns, 8 values; 5 of 100 rows kept (rules 01234567, key 89abcdef)"
        );
        (report.tables, report.key_id) = (vec![table(7, 7)], None);
        assert_eq!(
            masked(&report),
            "masked: 1 table, 2 columns, 8 values (rules 01234567)"
        );
    }

    /// Rows that were read in no time are loaded while indexes are built.
    #[test]
    fn stages_that_overlap_last_as_long_as_they_are_active() {
        let stages = [("data", 0.0), ("indexes", 4.0), ("check", 0.1)];
        let shown = |active: &[(&str, f64)]| stages_of(&result(&stages, active));
        assert_eq!(
            shown(&[("data", 1.5), ("indexes", 3.0)]),
            "data 1.5 s, indexes 3.0 s, check 0.1 s (data and indexes overlap)"
        );
        assert_eq!(
            shown(&[("data", 1.0), ("indexes", 3.0)]),
            "data 1.0 s, indexes 3.0 s, check 0.1 s"
        );
    }
}

//! `verify`: proves that one backup can be restored.

use crate::job::Generation;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::backup::{backup_of, of_generations, with_generation};
use super::display;
use super::exit::{CommandError, CommandResult, Exit};
use super::files;
use super::help;
use super::output::{OutputFormat, count, duration, human_bytes, print_json};
use super::signals::until_signal;
use crate::app::App;
use crate::config::{Config, EvidencePlace};
use crate::error::FailureReason;
use crate::event::{Kind, RestoreResult, check_texts};
use crate::job::{VerifyJob, check_request_id, parse_jobs};
use crate::policy::{Depth, Trigger};
use crate::progress::Progress;
use crate::proof::{
    CheckStatus, EVIDENCE_NOT_WRITTEN, Verdict, VerificationReport, VerificationSummary,
};
use crate::verification::{DocumentLink, junit, page};

#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven
    ///
    /// latest@TIME and latest-proven@TIME choose what was the newest at that time, also an age such as 2d; NAME#GENERATION is one
    /// generation of an object.
    backup: String,
    /// Depth of the verification [default: VERIFY_DEPTH]
    #[arg(long, value_enum, help_heading = help::POLICY)]
    depth: Option<Depth>,
    /// Number of connections that load and check, 1 to 256 [default: RESTORE_JOBS]
    #[arg(long, value_name = "N", value_parser = parse_jobs, allow_negative_numbers = true, help_heading = help::POLICY)]
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
    /// Only this database: of latest, or of a whole cluster's dump
    ///
    /// latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken.
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
    /// Id of this verification [default: generated]
    #[arg(long, value_name = "ID", hide_short_help = true, help_heading = help::POLICY)]
    request_id: Option<String>,
    /// Also write an HTML report to this file
    #[arg(long, value_name = "FILE", help_heading = help::OUTPUT)]
    html: Option<PathBuf>,
    /// Also write the checks as JUnit XML to this file
    #[arg(long, value_name = "FILE", help_heading = help::OUTPUT)]
    junit: Option<PathBuf>,
    /// Also write the whole report as JSON to this file
    #[arg(long, value_name = "FILE", help_heading = help::OUTPUT)]
    report: Option<PathBuf>,
}

impl VerifyArgs {
    /// The result of a verification that cannot begin, without its error.
    pub(super) fn draft(&self) -> RestoreResult {
        let (id, now) = (self.request_id.clone(), jiff::Timestamp::now());
        let id = id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        RestoreResult {
            kind: Kind::Verification,
            verdict: Some(Verdict::Inconclusive),
            ..RestoreResult::new(&id, (now, now))
        }
    }
}

/// Files for the report of a verification.
struct Reports {
    html: Option<PathBuf>,
    junit: Option<PathBuf>,
    json: Option<PathBuf>,
}

/// The evidence of a verification, as a page in a local file names it.
fn document_of(summary: Option<&VerificationSummary>) -> Option<DocumentLink<'_>> {
    let summary = summary?;
    let name = summary.evidence.as_deref()?;
    Some(DocumentLink {
        name,
        is_link: name.starts_with("file://"),
        signed_by: summary.signed_by.as_deref(),
    })
}

fn write_reports(
    proof: &VerificationReport,
    summary: Option<&VerificationSummary>,
    reports: &Reports,
) -> Result<(), CommandError> {
    if let Some(file) = &reports.html {
        files::write(file, page(proof, document_of(summary)))?;
    }
    if let Some(file) = &reports.junit {
        files::write(file, junit(proof).map_err(CommandError::Other)?)?;
    }
    if let Some(file) = &reports.json {
        let text =
            serde_json::to_string_pretty(proof).map_err(|e| CommandError::Other(e.to_string()))?;
        files::write(file, text + "\n")?;
    }
    Ok(())
}

pub(super) async fn run(app: App, args: VerifyArgs, output: OutputFormat) -> CommandResult {
    check_texts(&serde_json::json!({ "--request-id": args.request_id }))?;
    let id = args
        .request_id
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    check_request_id(&id)?;
    let database = args.database.as_deref();
    let (named, generation) = with_generation(&app.config, &args.backup, args.generation)?;
    let backup = backup_of(&app.config, named, (&args.prefix, database))?;
    let backup = of_generations(backup, args.versions)?;
    let job = VerifyJob {
        generation,
        depth: args.depth,
        database: args.database,
        jobs: args.jobs,
        ..VerifyJob::new(id, backup, Trigger::Command)
    };
    let reports = Reports {
        html: args.html,
        junit: args.junit,
        json: args.report,
    };
    for file in [&reports.html, &reports.junit, &reports.json]
        .into_iter()
        .flatten()
    {
        files::check_writable(file)?;
    }
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let display = tokio::spawn(display::show(progress.clone()));
    let (mut finished, signalled) = until_signal(
        app.manager
            .verify_backup(&job, progress.clone(), stop.clone()),
        &stop,
    )
    .await?;
    display.abort();
    let _ = display.await;
    app.manager.record_completion(&finished);
    super::restore::add_hint(&args.backup, finished.result.error.as_mut());
    super::restore::add_hint(
        &args.backup,
        finished.proof.as_mut().and_then(|p| p.error.as_mut()),
    );
    match (output, &finished.proof) {
        (OutputFormat::Json, _) => {
            print_json(&finished.result)?;
        }
        (OutputFormat::Text, Some(proof)) => print(
            proof,
            finished
                .result
                .verification
                .as_deref()
                .and_then(|v| v.evidence.as_deref()),
        ),
        (OutputFormat::Text, None) => {}
    }
    // After the verdict, which no file that cannot be written may hide.
    if let Some(proof) = &finished.proof {
        write_reports(proof, finished.result.verification.as_deref(), &reports)?;
    }
    let exit = match (finished.failure, signalled) {
        (Some(FailureReason::Cancelled), Some(signal)) => signal,
        (failure, _) => exit_of(finished.result.verdict, failure),
    };
    if !is_unrecorded(&finished.result) {
        return Ok(exit);
    }
    err!(
        "pgrestored: the verdict stands, but nothing records it: make the location of the evidence writable, or set \
         EVIDENCE_LOCATION to another one (or to none)"
    );
    Ok(exit_unrecorded(exit, &app.config))
}

/// Whether the evidence of a verification was lost.
fn is_unrecorded(result: &RestoreResult) -> bool {
    let mut notes = result.notes.iter();
    notes.any(|n| n.starts_with(EVIDENCE_NOT_WRITTEN))
}

/// Evidence that the configuration asks for is a part of the work; beside a local file, nobody asked for it.
fn exit_unrecorded(exit: Exit, config: &Config) -> Exit {
    let is_asked_for =
        config.is_bucket_set || matches!(config.verify.evidence, EvidencePlace::At(_));
    match exit {
        Exit::Ok if is_asked_for => Exit::Unavailable,
        other => other,
    }
}

/// A bad backup is a result of the verification, not an error of the command.
pub(super) fn exit_of(verdict: Option<Verdict>, failure: Option<FailureReason>) -> Exit {
    match (failure, verdict) {
        (None, _) => Exit::Ok,
        (Some(_), Some(Verdict::Failed)) => Exit::Failed,
        (Some(reason), _) => Exit::of(reason),
    }
}

fn print(r: &VerificationReport, evidence: Option<&str>) {
    let what = r.about();
    let depth = r.depth.map_or("nothing", Depth::as_str);
    out!(
        "{}: {what} in {}, depth {depth}",
        r.verdict.as_str(),
        duration(r.duration_seconds)
    );
    if r.is_verified() && !r.proves_whole() {
        out!("  {}", r.verdict_sentence());
    }
    if let Some(e) = &r.error {
        out!(
            "  {} ({}, blame: {}, stage {})",
            e.message,
            e.reason,
            e.blame.as_str(),
            e.stage
        );
    }
    if let Some(fix) = &r.fix {
        out!("  fix: {fix}");
    }
    // Known once all of it was read.
    if r.depth >= Some(Depth::Archive) {
        out!(
            "  {}, {}, {}, {}",
            count(r.tables.len() as u64, "table"),
            count(r.rows, "row"),
            count(r.large_objects, "large object"),
            human_bytes(r.bytes)
        );
    }
    if let Some(s) = &r.server {
        let isolation = s
            .isolation
            .as_ref()
            .map(|i| format!(", {}", i.brief()))
            .unwrap_or_default();
        let done = if r.depth >= Some(Depth::Restore) {
            "restored into"
        } else {
            "tried in"
        };
        out!(
            "  {done} a {} with PostgreSQL {}{isolation}",
            s.kind,
            s.version
        );
    }
    if let Some(t) = &r.rto {
        out!(
            "  the restore took {}, the next is expected to take {}",
            duration(t.measured_seconds),
            duration(t.forecast_seconds)
        );
    }
    for c in &r.checks {
        let mark = match c.status {
            CheckStatus::Passed => "ok",
            CheckStatus::Failed => "FAILED",
            CheckStatus::Warned => "note",
            CheckStatus::NotChecked => "not checked",
        };
        out!("  {mark:<11} {}: {}", c.title(), c.message);
    }
    if let Some(b) = &r.bisection {
        let (last_good, first_bad) = b.names();
        out!("  last good: {last_good}; first bad: {first_bad}");
        if let Some(left_out) = b.left_out_note() {
            out!("  {left_out}");
        }
    }
    r.notes.iter().for_each(|n| out!("  note: {n}"));
    if let Some(uri) = evidence {
        out!("  evidence: {uri}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn evidence_that_was_asked_for_and_not_written_is_no_success() {
        for (bucket, evidence, exit) in [
            ("gs://my-backups", "", Exit::Unavailable),
            ("", "file:///evidence", Exit::Unavailable),
            ("", "", Exit::Ok),
        ] {
            let flags = [("backup-bucket", bucket), ("evidence-location", evidence)];
            let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
            assert_eq!(
                exit_unrecorded(Exit::Ok, &config),
                exit,
                "{bucket} {evidence}"
            );
            // The verdict comes first.
            assert_eq!(exit_unrecorded(Exit::Failed, &config), Exit::Failed);
        }
    }
}

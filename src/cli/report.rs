//! `report`: lists past verifications, from their evidence.

use std::path::PathBuf;

use super::backup::check_set;
use super::exit::{CommandError, CommandResult, Exit};
use super::files;
use super::help;
use super::ledger::{CUT, Ledger, ignored};
use super::output::{OutputFormat, count, duration, print_json};
use crate::app::App;
use crate::manager::BackupSetStatus;
use crate::verification::SearchLimit;

/// Most reports to read per backup set.
const MOST: SearchLimit = SearchLimit {
    reports: 10_000,
    bytes: 1 << 30,
};

#[derive(Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// How far back to look, such as 30d or 12h
    #[arg(long, default_value = "30d", value_name = "TIME", help_heading = help::SELECTION)]
    since: String,
    /// Only this backup set
    #[arg(long, help_heading = help::SELECTION)]
    set: Option<String>,
    /// Also write an HTML page to this file
    #[arg(long, value_name = "FILE", help_heading = help::OUTPUT)]
    html: Option<PathBuf>,
}

pub(super) async fn run(app: App, args: ReportArgs, output: OutputFormat) -> CommandResult {
    let span = args.since.parse::<jiff::Span>().ok();
    let until = jiff::Timestamp::now();
    let utc = until.to_zoned(jiff::tz::TimeZone::UTC);
    let since = span
        .and_then(|s| utc.checked_sub(s).ok())
        .map(|z| z.timestamp());
    let since = since.ok_or_else(|| {
        CommandError::Other("--since: must be a duration such as 30d or 12h".into())
    })?;
    check_set(&app.config, args.set.as_deref())?;
    let standing = app.manager.catalog().standing().await?;
    let sets: Vec<BackupSetStatus> = standing
        .into_iter()
        .filter(|s| args.set.as_ref().is_none_or(|w| *w == s.name))
        .collect();
    let (mut all, mut left_out, mut is_cut) = (Vec::new(), 0, false);
    for set in &sets {
        let found = app
            .manager
            .catalog()
            .reports_of(&set.name, since, MOST)
            .await?;
        all.extend(found.reports);
        left_out += found.refused;
        is_cut |= found.is_cut;
    }
    all.sort_by_key(|r| std::cmp::Reverse(r.finished_at));
    let of = |v| all.iter().filter(|r| r.verdict == v).count();
    use crate::proof::Verdict as V;
    let (verified, failed, inconclusive) = (of(V::Verified), of(V::Failed), of(V::Inconclusive));
    let restored = all.iter().filter(|r| r.is_proof()).count();
    let is_signed = !app.manager.catalog().keyring()?.is_empty();
    let ledger = Ledger {
        since,
        until,
        verified,
        failed,
        inconclusive,
        restored,
        is_signed,
        left_out,
        is_cut,
        sets,
        verifications: all,
    };
    if let Some(file) = &args.html {
        files::write(file, ledger.page())?;
    }
    match output {
        OutputFormat::Json => print_json(&ledger),
        OutputFormat::Text => {
            print(&ledger);
            Ok(Exit::Ok)
        }
    }
}

fn grouped(n: usize) -> indicatif::HumanCount {
    indicatif::HumanCount(n as u64)
}

fn print(l: &Ledger) {
    out!(
        "{} verified ({} of them restored), {} failed, {} inconclusive since {}",
        grouped(l.verified),
        grouped(l.restored),
        grouped(l.failed),
        grouped(l.inconclusive),
        l.since.strftime("%Y-%m-%d %H:%M")
    );
    if !l.is_signed {
        out!(
            "no trusted key is set (EVIDENCE_TRUSTED_KEYS_FILE): anyone who may create objects there can forge evidence"
        );
    }
    if l.left_out > 0 {
        out!("{}; see the warnings in the log", ignored(l.left_out));
    }
    if l.is_cut {
        out!("{CUT}");
    }
    for s in &l.sets {
        let proven = s.last_proof.map_or("never proven".into(), |t| {
            format!(
                "last proven {t}, depth {}",
                s.proven_depth.map_or("restore", |d| d.as_str())
            )
        });
        let rto = s.rto.map(|r| {
            format!(
                ", last restore took {}, the next is expected to take {}",
                duration(r.measured_seconds),
                duration(r.forecast_seconds)
            )
        });
        out!("set {}: {proven}{}", s.name, rto.unwrap_or_default());
        for d in &s.databases {
            let at = d.last_proof.map(|t| t.to_string()).unwrap_or_default();
            out!("  database {}: last proven {at}", d.label());
        }
    }
    for r in &l.verifications {
        let rto = r.rto.map_or("-".into(), |t| duration(t.measured_seconds));
        out!(
            "{}  {:<12} {:<8} {:>12} {:>17}  {rto:>10}  {}",
            r.finished_at.strftime("%Y-%m-%d %H:%M:%SZ"),
            r.verdict.as_str(),
            r.depth.map_or("-", |d| d.as_str()),
            count(r.tables.len() as u64, "table"),
            count(r.rows, "row"),
            r.backup.name.as_deref().unwrap_or("-")
        );
        if let Some(e) = &r.error {
            out!("                      {}: {}", e.reason, e.message);
        }
    }
}

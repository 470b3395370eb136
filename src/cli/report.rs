//! `report`: lists past verifications, from their evidence.

use std::path::PathBuf;

use super::exit::{CommandError, CommandResult, Exit};
use super::files;
use super::output::{OutputFormat, print_json};
use crate::app::App;
use crate::manager::BackupSetStatus;
use crate::proof::VerificationReport;
use crate::verification::{SearchLimit, ledger_page};

/// Most reports to read per backup set.
const MOST: SearchLimit = SearchLimit {
    reports: 10_000,
    bytes: 1 << 30,
};

#[derive(Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// How far back to look, such as 30d or 12h
    #[arg(long, default_value = "30d")]
    since: String,
    /// Only this backup set
    #[arg(long)]
    set: Option<String>,
    /// Also write an HTML page to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What `report` prints as JSON.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct Ledger {
    pub since: jiff::Timestamp,
    pub until: jiff::Timestamp,
    pub verified: usize,
    pub failed: usize,
    pub inconclusive: usize,
    /// Number of verified backups that were restored; the others were only read.
    pub restored: usize,
    /// Whether only evidence that a trusted key signed counts.
    pub is_signed: bool,
    /// Number of ignored documents: not signed by a trusted key, in the wrong location, or unreadable.
    pub left_out: usize,
    /// Number of verifications that count and are not listed, because all of them would take more than 1 GiB of memory.
    pub not_listed: usize,
    pub sets: Vec<BackupSetStatus>,
    /// Newest first.
    pub verifications: Vec<VerificationReport>,
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
    let standing = app.manager.catalog().standing().await?;
    let sets: Vec<BackupSetStatus> = standing
        .into_iter()
        .filter(|s| args.set.as_ref().is_none_or(|w| *w == s.name))
        .collect();
    let (mut all, mut left_out, mut not_listed) = (Vec::new(), 0, 0);
    for set in &sets {
        let found = app
            .manager
            .catalog()
            .reports_of(&set.name, since, MOST)
            .await?;
        all.extend(found.reports);
        left_out += found.refused;
        not_listed += found.left_out;
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
        not_listed,
        sets,
        verifications: all,
    };
    if let Some(file) = &args.html {
        let signed = if is_signed {
            "signed evidence"
        } else {
            "evidence whose signatures were not checked"
        };
        let (from, to) = (since.strftime("%Y-%m-%d"), until.strftime("%Y-%m-%d"));
        let mut title = format!("{from} to {to}, from {signed}; {}", ignored(left_out));
        if not_listed > 0 {
            title = format!("{title}; {}", unlisted(not_listed));
        }
        files::write(file, ledger_page(&ledger.verifications, &title))?;
    }
    match output {
        OutputFormat::Json => print_json(&ledger),
        OutputFormat::Text => {
            print(&ledger);
            Ok(Exit::Ok)
        }
    }
}

fn ignored(documents: usize) -> String {
    match documents {
        1 => "1 evidence document was ignored".into(),
        n => format!("{n} evidence documents were ignored"),
    }
}

fn unlisted(verifications: usize) -> String {
    let (n, are) = match verifications {
        1 => ("1 verification".to_owned(), "is"),
        n => (
            format!("{} verifications", indicatif::HumanCount(n as u64)),
            "are",
        ),
    };
    format!(
        "{n} of this time {are} not listed, because all of them do not fit into memory: choose a shorter --since, or one --set"
    )
}

fn print(l: &Ledger) {
    out!(
        "{} verified ({} of them restored), {} failed, {} inconclusive since {}",
        l.verified,
        l.restored,
        l.failed,
        l.inconclusive,
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
    if l.not_listed > 0 {
        out!("{}", unlisted(l.not_listed));
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
                ", last restore took {:.1} s, the next is expected to take {:.1} s",
                r.measured_seconds, r.forecast_seconds
            )
        });
        out!("set {}: {proven}{}", s.name, rto.unwrap_or_default());
        for d in &s.databases {
            let at = d.last_proof.map(|t| t.to_string()).unwrap_or_default();
            out!("  database {}: last proven {at}", d.label());
        }
    }
    for r in &l.verifications {
        let rto = r
            .rto
            .map_or("-".into(), |t| format!("{:.1} s", t.measured_seconds));
        out!(
            "{}  {:<12} {:<8} {:>5} tables {:>12} rows  {rto:>9}  {}",
            r.finished_at.strftime("%Y-%m-%d %H:%M:%SZ"),
            r.verdict.as_str(),
            r.depth.map_or("-", |d| d.as_str()),
            r.tables.len(),
            indicatif::HumanCount(r.rows).to_string(),
            r.backup.name.as_deref().unwrap_or("-")
        );
        if let Some(e) = &r.error {
            out!("                      {}: {}", e.reason, e.message);
        }
    }
}

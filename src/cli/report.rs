//! `report`: lists past verifications, from their evidence.

use std::path::PathBuf;

use super::backup::check_set;
use super::exit::{CommandError, CommandResult, Exit, usage};
use super::files;
use super::help;
use super::ledger::{CUT, Ledger, database_of, ignored};
use super::output::{OutputFormat, count, duration, print_json};
use crate::app::App;
use crate::manager::{BackupSetStatus, DatabaseStatus};
use crate::proof::VerificationReport;
use crate::verification::SearchLimit;

/// Most reports to read per backup set.
const MOST: SearchLimit = SearchLimit {
    reports: 10_000,
    bytes: 1 << 30,
};

/// Widest column of the names of databases.
const WIDEST: usize = 30;

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

/// When the period of `--since` begins that ends at `until`.
fn start_of(since: &str, until: jiff::Timestamp) -> Result<jiff::Timestamp, CommandError> {
    let span = since.parse::<jiff::Span>().ok();
    let utc = until.to_zoned(jiff::tz::TimeZone::UTC);
    let start = span
        .filter(|s| s.is_positive())
        .and_then(|s| utc.checked_sub(s).ok());
    start
        .map(|start| start.timestamp())
        .ok_or_else(|| usage("--since: must be a duration such as 30d or 12h"))
}

pub(super) async fn run(app: App, args: ReportArgs, output: OutputFormat) -> CommandResult {
    let until = jiff::Timestamp::now();
    let since = start_of(&args.since, until)?;
    check_set(&app.config, args.set.as_deref())?;
    if let Some(file) = &args.html {
        files::check_writable(file)?;
    }
    let catalog = app.manager.catalog();
    // No evidence is found either in a bucket that does not exist.
    catalog.check_bucket().await?;
    if let Some(why) = catalog.why_no_evidence().await? {
        err!("note: {why}");
    }
    let standing = catalog.standing().await?;
    let sets: Vec<BackupSetStatus> = standing
        .into_iter()
        .filter(|s| args.set.as_ref().is_none_or(|w| *w == s.name))
        .collect();
    let (mut all, mut left_out, mut is_cut, mut unread) = (Vec::new(), 0, false, Vec::new());
    for set in &sets {
        let found = catalog.reports_of(&set.name, since, MOST).await?;
        unread.extend(found.incomplete());
        all.extend(found.reports);
        left_out += found.rejected;
        is_cut |= found.is_cut;
    }
    all.sort_by_key(|r| std::cmp::Reverse(r.finished_at));
    let of = |v| all.iter().filter(|r| r.verdict == v).count();
    use crate::proof::Verdict as V;
    let (verified, failed, inconclusive) = (of(V::Verified), of(V::Failed), of(V::Inconclusive));
    let restored = all.iter().filter(|r| r.is_proof()).count();
    let is_signed = !catalog.keyring()?.is_empty();
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
        unread,
        sets,
        verifications: all,
    };
    if let Some(file) = &args.html {
        files::write(file, ledger.page())?;
    }
    match output {
        OutputFormat::Json => print_json(&ledger),
        OutputFormat::Text => {
            text_of(&ledger).iter().for_each(|line| out!("{line}"));
            Ok(Exit::Ok)
        }
    }
}

fn grouped(n: usize) -> indicatif::HumanCount {
    indicatif::HumanCount(n as u64)
}

/// As the rows and the headings of the report write it.
fn time(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// The lines of the report.
fn text_of(l: &Ledger) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{} from {} to {}",
            count(l.verifications.len() as u64, "verification"),
            time(l.since),
            time(l.until)
        ),
        format!(
            "{} verified ({} restored, {} only read), {} failed, {} inconclusive",
            grouped(l.verified),
            grouped(l.restored),
            grouped(l.verified.saturating_sub(l.restored)),
            grouped(l.failed),
            grouped(l.inconclusive),
        ),
    ];
    if !l.is_signed {
        lines.push(
            "no trusted key is set (EVIDENCE_TRUSTED_KEYS_FILE): anyone who may create objects there can forge evidence".into()
        );
    }
    if l.left_out > 0 {
        lines.push(format!(
            "{}; see the warnings in the log",
            ignored(l.left_out)
        ));
    }
    if l.is_cut {
        lines.push(CUT.into());
    }
    lines.extend(l.unread.iter().cloned());
    l.sets
        .iter()
        .for_each(|set| add_set(&mut lines, set, l.since));
    add_verifications(&mut lines, &l.verifications);
    lines
}

/// The state of a set at the end of the period. Of several databases, each has a line: the set as a whole is as fresh as
/// the stalest one, which the rows would contradict.
fn add_set(lines: &mut Vec<String>, set: &BackupSetStatus, since: jiff::Timestamp) {
    let name = &set.name;
    match set.databases.as_slice() {
        [] => lines.push(format!("set {name}: never proven")),
        [one] => lines.push(format!(
            "set {name} (database {}): {}",
            one.label(),
            state_of(one, since)
        )),
        several => {
            lines.push(format!("set {name}:"));
            let line =
                |d: &DatabaseStatus| format!("  database {}: {}", d.label(), state_of(d, since));
            lines.extend(several.iter().map(line));
        }
    }
}

/// When a database was last proven, also before the period, and what a restore takes.
fn state_of(d: &DatabaseStatus, since: jiff::Timestamp) -> String {
    let Some(at) = d.last_proof else {
        return "never proven".to_owned();
    };
    let before = if at < since {
        ", before this period"
    } else {
        ""
    };
    let rto = d.rto.map(|r| {
        format!(
            "; the restore took {}, the next is expected to take {}",
            duration(r.measured_seconds),
            duration(r.forecast_seconds)
        )
    });
    format!(
        "last proven {}{before} (depth {}, {}){}",
        time(at),
        d.proven_depth.map_or("restore", |d| d.as_str()),
        d.proven_backup.as_deref().unwrap_or("-"),
        rto.unwrap_or_default()
    )
}

fn add_verifications(lines: &mut Vec<String>, all: &[VerificationReport]) {
    if all.is_empty() {
        return;
    }
    let databases: Vec<String> = all.iter().map(database_of).collect();
    let width = databases.iter().map(|d| d.chars().count()).max();
    let width = width.unwrap_or_default().clamp(8, WIDEST);
    lines.push(format!(
        "{:<20}  {:<12} {:<8} {:>12} {:>17}  {:>10}  {:<width$}  BACKUP",
        "FINISHED", "VERDICT", "DEPTH", "TABLES", "ROWS", "RESTORE", "DATABASE"
    ));
    for (r, database) in all.iter().zip(&databases) {
        let rto = r.rto.map_or("-".into(), |t| duration(t.measured_seconds));
        lines.push(format!(
            "{:<20}  {:<12} {:<8} {:>12} {:>17}  {rto:>10}  {database:<width$}  {}",
            time(r.finished_at),
            r.verdict.as_str(),
            r.depth.map_or("-", |d| d.as_str()),
            count(r.tables.len() as u64, "table"),
            count(r.rows, "row"),
            r.backup.name.as_deref().unwrap_or("-")
        ));
        if let Some(e) = &r.error {
            lines.push(format!("                      {}: {}", e.reason, e.message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Depth, Trigger};
    use crate::proof::Verdict;

    fn at(day: i64) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(24 * day)
    }

    #[test]
    fn a_period_is_a_time_that_has_passed() {
        let hour = jiff::SignedDuration::from_hours(1);
        assert_eq!(start_of("1h", at(2)).unwrap(), at(2) - hour);
        assert_eq!(start_of("2d", at(2)).unwrap(), at(0));
        for wrong in ["", "1x", "0s", "-5d", "soon"] {
            assert_eq!(
                start_of(wrong, at(2)).unwrap_err().exit(),
                Exit::Usage,
                "{wrong}"
            );
        }
    }

    /// The head says nothing that the rows contradict, and every row names its database.
    #[test]
    fn the_head_agrees_with_the_rows() {
        let proof = |day, database: &str, depth| {
            let mut r = VerificationReport::new("r", Trigger::Command, Depth::Data, at(day));
            (r.verdict, r.depth) = (Verdict::Verified, Some(depth));
            r.database = Some(database.into());
            r.backup.name = Some(format!("{database}-{day}.dump"));
            r
        };
        let verifications = vec![
            proof(29, "shop", Depth::Data),
            proof(28, "app", Depth::Archive),
        ];
        let status = |database: &str, day| DatabaseStatus {
            database: Some(database.into()),
            last_proof: Some(at(day)),
            proven_backup: Some(format!("{database}-{day}.dump")),
            proven_depth: Some(Depth::Data),
            ..DatabaseStatus::default()
        };
        let mut set = BackupSetStatus {
            name: "default".into(),
            last_proof: Some(at(1)),
            proven_backup: None,
            proven_created: None,
            proven_depth: Some(Depth::Data),
            last_verdict: None,
            rto: None,
            trend: vec![],
            is_signed: true,
            databases: vec![status("shop", 29), status("app", 1)],
            is_limited: false,
        };
        let ledger = |sets| Ledger {
            since: at(20),
            until: at(30),
            verified: 2,
            failed: 0,
            inconclusive: 0,
            restored: 1,
            is_signed: true,
            left_out: 0,
            is_cut: false,
            unread: vec![],
            sets,
            verifications: verifications.clone(),
        };
        let shown = text_of(&ledger(vec![set.clone()])).join("\n");
        for line in [
            "2 verifications from 1970-01-21 00:00:00Z to 1970-01-31 00:00:00Z\n",
            "\n2 verified (1 restored, 1 only read), 0 failed, 0 inconclusive\n",
            "\nset default:\n  database shop: last proven 1970-01-30 00:00:00Z (depth data, shop-29.dump)\n",
            "\n  database app: last proven 1970-01-02 00:00:00Z, before this period (depth data, app-1.dump)\n",
            "  RESTORE  DATABASE  BACKUP\n",
            "  -  shop      shop-29.dump\n",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        set.databases.truncate(1);
        (set.last_proof, set.proven_backup) = (Some(at(29)), Some("shop-29.dump".into()));
        let shown = text_of(&ledger(vec![set])).join("\n");
        let line = "\nset default (database shop): last proven 1970-01-30 00:00:00Z (depth data, shop-29.dump)\n";
        assert!(shown.contains(line), "{shown}");
    }
}

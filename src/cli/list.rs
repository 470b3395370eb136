//! `list`: lists the backups at the configured location.

use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, count, human_bytes, print_json};
use crate::app::App;
use crate::backup::Backup;
use crate::manager::BackupProof;
use crate::policy::Depth;
use crate::proof::Verdict;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only backups whose names start with this
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
    /// Only backups of this database, as their archives name it
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
}

/// A backup as `list` prints it.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct ListedBackup {
    #[serde(flatten)]
    backup: Backup,
    /// What the evidence says about it, if it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<BackupProof>,
}

pub(super) async fn run(app: App, args: ListArgs, output: OutputFormat) -> CommandResult {
    let (catalog, database) = (app.manager.catalog(), args.database.as_deref());
    let listing = catalog.list_proven(&args.prefix, database).await?;
    if let n @ 1.. = listing.not_looked_into {
        let were = if n == 1 { "was" } else { "were" };
        let older = count(n as u64, "older backup");
        err!("{older} {were} not looked into: narrow the list with --prefix");
    }
    if let Some(why) = &listing.incomplete {
        err!("proofs may be missing from this list: {why}");
    }
    let backups = listing.backups.into_iter();
    let backups: Vec<ListedBackup> = backups
        .map(|(backup, proof)| ListedBackup { backup, proof })
        .collect();
    if output == OutputFormat::Json {
        return print_json(&backups);
    }
    if backups.is_empty() {
        let of = database.map(|d| format!(" of database {d}"));
        let at = app.config.bucket.uri(&args.prefix);
        out!("No backups{} in {at}", of.unwrap_or_default());
        return Ok(Exit::Ok);
    }
    let line = |created: &str, size: &str, checksum: &str, proof: &str, name: &str| {
        out!("{created:<20} {size:>12}  {checksum:<8}  {proof:<30}  {name}");
    };
    line("CREATED", "SIZE", "CRC32C", "PROOF", "NAME");
    for ListedBackup { backup: b, proof } in &backups {
        line(
            &b.created.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            &human_bytes(b.size),
            b.checksum.as_deref().unwrap_or("-"),
            &proof.as_ref().map_or("none".into(), proof_text),
            &b.name,
        );
    }
    Ok(Exit::Ok)
}

/// Such as `verified (data) 2026-11-28`.
fn proof_text(p: &BackupProof) -> String {
    let depth = p.depth.filter(|_| p.verdict == Verdict::Verified);
    let depth = depth.map(|d| format!(" ({})", Depth::as_str(d)));
    format!(
        "{}{} {}{}",
        p.verdict.as_str(),
        depth.unwrap_or_default(),
        p.finished_at.strftime("%Y-%m-%d"),
        if p.is_signed { "" } else { " unsigned" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_named_with_its_depth_and_its_signature() {
        let mut proof = BackupProof {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            finished_at: jiff::Timestamp::UNIX_EPOCH,
            is_signed: true,
        };
        assert_eq!(proof_text(&proof), "verified (data) 1970-01-01");
        (proof.verdict, proof.is_signed) = (Verdict::Failed, false);
        assert_eq!(proof_text(&proof), "failed 1970-01-01 unsigned");
    }
}

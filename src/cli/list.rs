//! `list`: lists the backups at the configured location.

pub(super) mod generations;
mod proof_text;

use indicatif::HumanCount;

use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, count, human_bytes, print_json};
use crate::app::App;
use crate::backup::Backup;
use crate::manager::{BackupProof, ProvenBackup};
use proof_text::proof_text;

/// Widest column of the names of databases.
const WIDEST: usize = 30;
/// Most entries that cannot be used and are named.
const MAX_UNUSABLE: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only backups whose names start with this
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
    /// Only backups of this database, as their archives name it
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
    /// List all generations of each object: live, non-current and soft-deleted ones
    ///
    /// Only buckets have former generations, with Object Versioning or soft deletion.
    #[arg(long, conflicts_with = "database", help_heading = help::SELECTION)]
    versions: bool,
}

/// A backup as `list` prints it.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct ListedBackup {
    #[serde(flatten)]
    backup: Backup,
    /// Its database, if its archive names one and was looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    /// What the evidence says about it, if it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<BackupProof>,
}

impl From<ProvenBackup> for ListedBackup {
    fn from(found: ProvenBackup) -> Self {
        ListedBackup {
            backup: found.backup,
            database: found.database,
            proof: found.proof,
        }
    }
}

pub(super) async fn run(app: App, args: ListArgs, output: OutputFormat) -> CommandResult {
    if args.versions {
        return generations::run(&app, &args.prefix, output).await;
    }
    let (catalog, database) = (app.manager.catalog(), args.database.as_deref());
    let listing = catalog.list_proven(&args.prefix, database).await?;
    if let n @ 1.. = listing.not_looked_into {
        let were = if n == 1 { "was" } else { "were" };
        let backups = count(n as u64, "backup");
        err!(
            "{backups} {were} not read for the name of the database: narrow the list with --prefix"
        );
    }
    if let Some(why) = &listing.incomplete {
        err!("proofs may be missing from this list: {why}");
    }
    let (unusable, more) = listing.unlisted.problems(MAX_UNUSABLE);
    unusable.iter().for_each(|u| err!("not listed: {u}"));
    if more > 0 {
        err!("not listed: {} more", HumanCount(more as u64));
    }
    let backups = listing.backups.into_iter();
    let backups: Vec<ListedBackup> = backups.map(ListedBackup::from).collect();
    if output == OutputFormat::Json {
        return print_json(&backups);
    }
    if backups.is_empty() {
        let of = database.map(|d| format!(" of database {d}"));
        let at = app.config.bucket.uri(&args.prefix);
        out!("No backups{} in {at}", of.unwrap_or_default());
        return Ok(Exit::Ok);
    }
    table_of(&backups).for_each(|line| out!("{line}"));
    Ok(Exit::Ok)
}

/// A header, and a line for each backup. There may be very many: the cells of one line at a time are kept.
fn table_of(backups: &[ListedBackup]) -> impl Iterator<Item = String> {
    let header = ["CREATED", "SIZE", "CRC32C", "DATABASE", "PROOF", "NAME"].map(str::to_owned);
    let rows = move || std::iter::once(header.clone()).chain(backups.iter().map(cells_of));
    let (mut of_database, mut of_proof) = (0, 0);
    for [_, _, _, database, proof, _] in rows() {
        // The names of databases come from archives: a long one does not widen all lines.
        of_database = of_database.max(database.chars().count().min(WIDEST));
        of_proof = of_proof.max(proof.chars().count());
    }
    let line = move |[created, size, checksum, database, proof, name]: [String; 6]| {
        format!(
            "{created:<20} {size:>12}  {checksum:<8}  {database:<of_database$}  {proof:<of_proof$}  {name}"
        )
    };
    rows().map(line)
}

fn cells_of(b: &ListedBackup) -> [String; 6] {
    [
        b.backup.created.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        human_bytes(b.backup.size),
        b.backup.checksum.clone().unwrap_or_else(|| "-".into()),
        b.database.clone().unwrap_or_else(|| "-".into()),
        b.proof.as_ref().map_or("none".into(), proof_text),
        b.backup.name.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backup_has_a_line_with_its_database() {
        let listed = |name: &str, database: Option<&str>| ListedBackup {
            backup: Backup {
                name: name.into(),
                size: 1,
                created: jiff::Timestamp::UNIX_EPOCH,
                checksum: None,
                generation: "1".into(),
            },
            database: database.map(str::to_owned),
            proof: None,
        };
        let long = "d".repeat(63);
        let all = [
            listed("a.dump", Some("shop")),
            listed("roles.sql", None),
            listed("b.dump", Some(&long)),
        ];
        let lines: Vec<String> = table_of(&all).collect();
        assert!(lines[0].ends_with(&format!("  DATABASE{}  PROOF  NAME", " ".repeat(22))));
        assert!(lines[1].ends_with(&format!(
            "  -         shop{}  none   a.dump",
            " ".repeat(26)
        )));
        assert!(lines[2].ends_with(&format!(
            "  -         -{}  none   roles.sql",
            " ".repeat(29)
        )));
        assert!(lines[3].ends_with(&format!("  {long}  none   b.dump")));
    }
}

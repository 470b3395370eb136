//! `mask`: writes a masked copy of a backup as an archive, without a database. `mask suggest` writes rules to start from,
//! and `mask check` compares rules with a backup.

pub(super) mod check;
mod source;
mod suggest;

use std::io::IsTerminal;
use std::sync::Arc;

use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use super::backup::backup_of;
use super::display;
use super::exit::{CommandError, CommandResult, Exit, usage};
use super::failure;
use super::help;
use super::output::{OutputFormat, count, human_bytes, print_json};
use super::rehearse::with_hint;
use super::signals::until_signal;
use super::terminal;
use crate::app::App;
use crate::job::BackupRef;
use crate::manager::{MaskDestination, MaskJob, MaskedArchive};
use crate::progress::Progress;
use pgdump_archive::Codec;
use source::{MaskSource, rules};

#[derive(Debug, clap::Args)]
#[command(subcommand_negates_reqs = true)]
pub(super) struct MaskArgs {
    #[command(subcommand)]
    action: Option<MaskAction>,
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven
    ///
    /// latest@TIME and latest-proven@TIME leave out what was made after that time. A file called check or suggest is
    /// ./check or ./suggest.
    #[arg(required = true)]
    backup: Option<String>,
    /// Where the archive goes: gs://BUCKET/NAME, file:///PATH, a path, or - for standard output
    ///
    /// What exists is never overwritten.
    #[arg(long, value_name = "DEST", required = true, help_heading = help::OUTPUT)]
    to: Option<String>,
    /// Compression of the archive: gzip, zstd, lz4 or none
    ///
    /// zstd and lz4 need a backup by pg_dump 16 or later, because pg_restore reads them in its archives only.
    #[arg(long, value_enum, default_value_t = Compression::Gzip, value_name = "CODEC", hide_possible_values = true, help_heading = help::OUTPUT)]
    compress: Compression,
    /// Prefix under which `latest` and `latest-proven` search
    ///
    /// It is an error with a backup that is named.
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
    /// Only this database of latest
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum MaskAction {
    /// Suggest rules to start from, by the names and types of columns and the first rows of each table
    #[command(
        after_help = "Example:\n  pgrestored mask suggest latest > mask.yaml",
        long_about = "Suggest rules to start from, by the names and types of columns and the first rows of each table. The rows that it \
                      reads stay in this process: they are neither shown nor logged."
    )]
    Suggest(MaskSource),
    /// Compare the rules of --mask with the table of contents of a backup
    #[command(
        after_help = "Example:\n  pgrestored mask check latest --mask mask.yaml",
        long_about = "Compare the rules of --mask with the table of contents of a backup: list the rules that do not fit, and the \
                      columns that no rule names. It needs no key and reads no rows."
    )]
    Check(MaskSource),
}

/// Compression of the new archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    Gzip,
    Zstd,
    Lz4,
    None,
}

impl From<Compression> for Codec {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Gzip => Codec::Gzip,
            Compression::Zstd => Codec::Zstd,
            Compression::Lz4 => Codec::Lz4,
            Compression::None => Codec::None,
        }
    }
}

impl MaskArgs {
    /// Whether no row is changed, so that any key will do.
    pub(super) fn needs_no_key(&self) -> bool {
        self.action.is_some()
    }
}

pub(super) async fn run(app: App, args: MaskArgs, output: OutputFormat) -> CommandResult {
    let is_given = args.backup.is_some() || args.to.is_some();
    match (args.action, args.backup, args.to) {
        (Some(_), ..) if is_given => Err(usage(
            "mask suggest and mask check come right after mask, and their backup after them",
        )),
        (Some(MaskAction::Suggest(source)), ..) => suggest::run(app, source, output).await,
        (Some(MaskAction::Check(source)), ..) => check::run(app, source, output).await,
        (None, Some(backup), Some(to)) => {
            let place = (args.prefix.as_str(), args.database.as_deref());
            let job = MaskJob {
                masking: rules(&app)?.0,
                to: destination(&to, output)?,
                backup: backup_of(&app.config, &backup, place)?,
                database: args.database,
                codec: args.compress.into(),
            };
            write(app, job, (&backup, output)).await
        }
        (None, ..) => Err(usage("mask needs a backup and --to")),
    }
}

fn destination(to: &str, output: OutputFormat) -> Result<MaskDestination, CommandError> {
    if to == "-" {
        if output == OutputFormat::Json {
            let what = "--to -: the archive goes to standard output, where --output json would write too: write the archive to a file";
            return Err(usage(what));
        }
        if std::io::stdout().is_terminal() {
            let what = "--to -: an archive is not written to a terminal: redirect standard output";
            return Err(usage(what));
        }
        return Ok(MaskDestination::Stream(terminal::raw_output()));
    }
    match BackupRef::parse(to, "")? {
        BackupRef::Named {
            place: Some(place),
            name,
        } if !name.ends_with('/') => Ok(MaskDestination::Object { place, name }),
        _ => Err(usage(
            "--to: write gs://BUCKET/NAME, file:///PATH, a path that begins with / or ./, or -",
        )),
    }
}

async fn write(app: App, job: MaskJob, (named, output): (&str, OutputFormat)) -> CommandResult {
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    let display = tokio::spawn(display::show(progress.clone()));
    let work = app.manager.mask(job, progress, stop.clone());
    let (done, signalled) = until_signal(work, &stop).await?;
    display.abort();
    let _ = display.await;
    match (done, signalled) {
        (Ok(archive), _) => {
            match output {
                OutputFormat::Json => {
                    print_json(&archive)?;
                }
                OutputFormat::Text => print(&archive),
            }
            Ok(Exit::Ok)
        }
        (Err(_), Some(exit)) => {
            if output == OutputFormat::Json {
                failure::print_interrupted(exit);
            }
            Ok(exit)
        }
        (Err(e), None) => Err(with_hint(e, named).into()),
    }
}

/// On standard error: standard output may be the archive.
fn print(archive: &MaskedArchive) {
    let from = archive.backup.uri.as_deref().unwrap_or("standard input");
    let to = match archive.to.as_str() {
        "-" => "standard output",
        uri => uri,
    };
    let size = human_bytes(archive.size.parse().unwrap_or_default());
    err!("masked {from} into {to}: {size}");
    let rules = archive.masking.digest.get(..8).unwrap_or_default();
    let key = archive.masking.key_id.as_ref();
    let key = key.map(|key| format!(", key {key}")).unwrap_or_default();
    let tables = count(archive.masking.tables_total, "table");
    err!("  {tables} by rules {rules}{key}");
    for table in &archive.masking.tables {
        let rows = if table.rows_kept == table.rows {
            count(table.rows, "row")
        } else {
            format!("{} of {}", table.rows_kept, count(table.rows, "row"))
        };
        err!("  {}: {rows}", table.table);
        for column in &table.columns {
            let changed = count(column.changed, "value");
            err!("    {}: {changed} ({})", column.name, column.rule);
        }
    }
    for name in &archive.left_out {
        err!("  left out, because it may hold original values: {name}");
    }
    archive.notes.iter().for_each(|note| err!("note: {note}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_goes_to_one_place() {
        let to = |to: &str, output| match destination(to, output) {
            Ok(MaskDestination::Object { place, name }) => Ok(place.uri(&name)),
            Ok(MaskDestination::Stream(_)) => Ok("-".to_owned()),
            Err(e) => Err(e.to_string()),
        };
        for uri in ["gs://vendor/copies/app.dump", "file:///tmp/app.dump"] {
            assert_eq!(to(uri, OutputFormat::Json).as_deref(), Ok(uri));
        }
        let path = to("/tmp/app.dump", OutputFormat::Text);
        assert_eq!(path.as_deref(), Ok("file:///tmp/app.dump"));
        let e = to("-", OutputFormat::Json).unwrap_err();
        assert!(e.contains("--output json"), "{e}");
        for wrong in ["app.dump", "latest", "gs://vendor/copies/", "s3://b/x"] {
            let e = to(wrong, OutputFormat::Text).unwrap_err();
            assert!(!e.is_empty(), "{wrong}");
        }
    }
}

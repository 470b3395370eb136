//! `mask check`: whether masking rules fit a backup, by its table of contents.

use tokio_util::sync::CancellationToken;

use super::source::{MaskSource, rules};
use crate::app::App;
use crate::cli::exit::{CommandResult, Exit};
use crate::cli::output::{OutputFormat, count, print_json};
use crate::cli::rehearse::with_hint;
use crate::error::{RestoreError, ValidationError, ValidationKind};
use pgdump_archive::Archive;
use pgdump_mask::Masking;
use pgdump_restore::{check_masking, columns_without_rule};

/// What `mask check` prints as JSON.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct MaskCheck {
    /// Whether the rules can be applied to this backup.
    fits: bool,
    /// Everything that does not fit, with its table and column.
    misfits: Vec<String>,
    /// Columns that no rule names: they are copied as they are, unless the file refuses them.
    without_rule: Vec<TableWithoutRules>,
    notes: Vec<String>,
}

/// Columns of a table that no rule names.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
struct TableWithoutRules {
    /// Schema and name.
    table: String,
    columns: Vec<String>,
}

pub(super) async fn run(app: App, source: MaskSource, output: OutputFormat) -> CommandResult {
    let masking = rules(&app)?.0;
    let stop = CancellationToken::new();
    // Ends the download of what is not read.
    let _stop = stop.clone().drop_guard();
    let (wanted, database) = (source.backup(&app)?, source.database.as_deref());
    let catalog = app.manager.catalog();
    let opened = catalog.open_database(&wanted, database, stop.clone()).await;
    let (pinned, archive) = opened.map_err(|e| with_hint(e, &source.backup))?;
    let mut check = compare(&archive, &masking)?;
    check.notes.extend(pinned.into_iter().flat_map(|p| p.notes));
    match output {
        OutputFormat::Json => {
            print_json(&check)?;
        }
        OutputFormat::Text => print(&check),
    }
    Ok(if check.fits { Exit::Ok } else { Exit::BadData })
}

fn compare(archive: &Archive, masking: &Masking) -> Result<MaskCheck, RestoreError> {
    if archive.is_script() {
        let what = "SQL text has no table of contents to compare the rules with: restore --mask compares them with each table \
                    before its first row";
        return Err(ValidationError::new(ValidationKind::ArchiveUnsupported, what).into());
    }
    let (misfits, notes) = match check_masking(archive, archive.entries(), masking) {
        Ok(notes) => (vec![], notes),
        Err(e) if !e.misfits().is_empty() => (e.misfits().to_vec(), vec![]),
        Err(e) => return Err(e),
    };
    let without = columns_without_rule(archive.entries(), masking).into_iter();
    // They are among the misfits.
    let without = without.filter(|_| !masking.refuses_unlisted());
    let without = without.map(|(table, columns)| TableWithoutRules { table, columns });
    Ok(MaskCheck {
        fits: misfits.is_empty(),
        misfits,
        without_rule: without.collect(),
        notes,
    })
}

fn print(check: &MaskCheck) {
    if check.fits {
        out!("the rules fit the backup");
    } else {
        let misfits = count(check.misfits.len() as u64, "rule");
        out!("the rules do not fit the backup: {misfits}");
    }
    check.misfits.iter().for_each(|what| out!("  {what}"));
    if !check.without_rule.is_empty() {
        out!("columns that no rule names:");
    }
    for table in &check.without_rule {
        out!("  {}: {}", table.table, table.columns.join(", "));
    }
    check.notes.iter().for_each(|note| out!("note: {note}"));
}

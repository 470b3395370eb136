//! `schema`: prints the JSON Schema (2020-12) of a document, generated from its type.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};

use super::exit::{CommandError, CommandResult, Exit, usage};
use super::files;
use crate::admission::PolicyFile;
use crate::database::{Promoted, Reaped, RetainedDatabase, RolledBack};
use crate::event::{GcsNotification, RestoreRequest, RestoreResult};
use crate::manager::{MaskSuggestion, MaskedArchive};
use crate::proof::VerificationReport;
use crate::standing::{StandingFile, StandingStatus};
use crate::verification::{ChecksFile, Envelope};
use pgdump_mask::MaskFile;

#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// restore-request, restore-result, gcs-notification, backup-list, generation-list, inspection, rehearsal, proof-report, evidence,
    /// request-policy, checks, mask, masked-archive, mask-suggestion, mask-check, standing-restores, standing-list, pruned, reaped, kept,
    /// rolled-back, promoted, selftest, ledger, worker-status, diagnosis or
    /// command-failure
    #[arg(required_unless_present = "write")]
    name: Option<String>,
    /// Write all schemas to this folder
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

fn generator(for_reading: bool) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12();
    if for_reading {
        settings.into_generator()
    } else {
        settings.for_serialize().into_generator()
    }
}

fn schema_of<T: JsonSchema>(name: &str, for_reading: bool) -> Schema {
    let mut schema = generator(for_reading).into_root_schema_for::<T>();
    schema.insert(
        "$id".into(),
        format!("https://pgrestored.io/schemas/{name}.v1.json").into(),
    );
    schema
}

pub(super) fn all() -> Vec<(&'static str, Schema)> {
    vec![
        (
            "restore-request",
            schema_of::<RestoreRequest>("restore-request", true),
        ),
        (
            "restore-result",
            schema_of::<RestoreResult>("restore-result", false),
        ),
        (
            "gcs-notification",
            schema_of::<GcsNotification>("gcs-notification", true),
        ),
        (
            "backup-list",
            schema_of::<Vec<super::list::ListedBackup>>("backup-list", false),
        ),
        (
            "generation-list",
            schema_of::<Vec<super::list::generations::ListedGeneration>>("generation-list", false),
        ),
        (
            "inspection",
            schema_of::<super::inspect::Inspection>("inspection", false),
        ),
        (
            "rehearsal",
            schema_of::<crate::job::Rehearsal>("rehearsal", false),
        ),
        (
            "proof-report",
            schema_of::<VerificationReport>("proof-report", false),
        ),
        ("evidence", schema_of::<Envelope>("evidence", false)),
        (
            "request-policy",
            schema_of::<PolicyFile>("request-policy", true),
        ),
        ("checks", schema_of::<ChecksFile>("checks", true)),
        ("mask", schema_of::<MaskFile>("mask", true)),
        (
            "masked-archive",
            schema_of::<MaskedArchive>("masked-archive", false),
        ),
        (
            "mask-suggestion",
            schema_of::<MaskSuggestion>("mask-suggestion", false),
        ),
        (
            "mask-check",
            schema_of::<super::mask::check::MaskCheck>("mask-check", false),
        ),
        (
            "standing-restores",
            schema_of::<StandingFile>("standing-restores", true),
        ),
        (
            "standing-list",
            schema_of::<Vec<StandingStatus>>("standing-list", false),
        ),
        (
            "pruned",
            schema_of::<Vec<super::prune::Pruned>>("pruned", false),
        ),
        ("reaped", schema_of::<Reaped>("reaped", false)),
        ("kept", schema_of::<Vec<RetainedDatabase>>("kept", false)),
        ("rolled-back", schema_of::<RolledBack>("rolled-back", false)),
        ("promoted", schema_of::<Promoted>("promoted", false)),
        (
            "selftest",
            schema_of::<Vec<super::selftest::CaseResult>>("selftest", false),
        ),
        (
            "ledger",
            schema_of::<super::ledger::Ledger>("ledger", false),
        ),
        (
            "worker-status",
            schema_of::<crate::worker::WorkerStatus>("worker-status", false),
        ),
        (
            "diagnosis",
            schema_of::<Vec<super::doctor::diagnostic_result::DiagnosticResult>>(
                "diagnosis",
                false,
            ),
        ),
        (
            "command-failure",
            schema_of::<super::failure::CommandFailure>("command-failure", false),
        ),
    ]
}

fn text(schema: &Schema) -> Result<String, CommandError> {
    let text =
        serde_json::to_string_pretty(schema).map_err(|e| CommandError::Other(e.to_string()))?;
    Ok(text + "\n")
}

pub(super) fn run(args: &SchemaArgs) -> CommandResult {
    if let Some(folder) = &args.write {
        for (name, schema) in all() {
            let file = folder.join(format!("{name}.v1.json"));
            files::write(&file, text(&schema)?)?;
        }
        return Ok(Exit::Ok);
    }
    let wanted = args
        .name
        .as_deref()
        .unwrap_or_default()
        .trim_end_matches(".v1")
        .to_owned();
    match all().into_iter().find(|(name, _)| *name == wanted) {
        Some((_, schema)) => {
            super::terminal::print_document(text(&schema)?.trim_end());
            Ok(Exit::Ok)
        }
        None => {
            let names: Vec<_> = all().into_iter().map(|(n, _)| n).collect();
            Err(usage(format!(
                "unknown schema {wanted}; known are {}",
                names.join(", ")
            )))
        }
    }
}

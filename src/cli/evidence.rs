//! `evidence verify`: checks an evidence document offline.

use pgdump_archive::Crc32c;
use std::path::PathBuf;

use super::exit::{CommandResult, Exit};
use super::files;
use super::output::{OutputFormat, print_json};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::verification::{Envelope, verify_envelope};

#[derive(Debug, clap::Subcommand)]
pub(super) enum EvidenceArgs {
    /// Check the signature of an evidence document, and that it describes a given backup
    Verify {
        /// The evidence document (….dsse.json)
        file: PathBuf,
        /// File with the Ed25519 public key (PEM); without it, the signature is not checked
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Local file with the backup; its size and CRC32C must match the evidence
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
    },
}

fn failed(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::VerificationFailed, what).into()
}

pub(super) fn run(args: EvidenceArgs, output: OutputFormat) -> CommandResult {
    let EvidenceArgs::Verify { file, key, backup } = args;
    let envelope: Envelope = serde_json::from_slice(&files::read(&file)?).map_err(|e| {
        let what = format!("{}: not an evidence document: {e}", file.display());
        RestoreError::from(ValidationError::new(
            ValidationKind::ArchiveUnsupported,
            what,
        ))
    })?;
    let report = match &key {
        Some(key) => verify_envelope(&envelope, &files::read_text(key)?)?,
        None => envelope.open()?,
    };
    if let Some(path) = &backup {
        let (size, crc32c) = measure(path).map_err(|e| files::fault(path, "read", &e))?;
        if report.backup.size.as_deref() != Some(&size.to_string()) {
            return Err(failed(format!(
                "{}: the evidence is about another backup: the size of this one, {size} bytes, differs",
                path.display()
            ))
            .into());
        }
        if report.backup.crc32c.as_ref() != Some(&crate::backup::encode_crc32c(crc32c)) {
            return Err(failed(format!(
                "{}: the evidence is about another backup: the CRC32C of this one differs",
                path.display()
            ))
            .into());
        }
    }
    if output == OutputFormat::Json {
        return print_json(&report);
    }
    let signed = match (&key, envelope.signatures.is_empty()) {
        (Some(_), _) => "signature valid",
        (None, false) => "signed; signature not checked, see --key",
        (None, true) => "not signed",
    };
    let what = report.backup.uri.as_deref().unwrap_or("standard input");
    out!(
        "{}: {what} on {} ({signed})",
        report.verdict.as_str(),
        report.finished_at
    );
    out!(
        "  generation {}, CRC32C {}, depth {}",
        report.backup.generation.as_deref().unwrap_or("-"),
        report.backup.crc32c.as_deref().unwrap_or("-"),
        report.depth.map_or("nothing", |d| d.as_str())
    );
    if backup.is_some() {
        out!("  the given backup matches the evidence");
    }
    Ok(Exit::Ok)
}

/// Size in bytes and CRC32C of a file.
fn measure(path: &std::path::Path) -> std::io::Result<(u64, Crc32c)> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let (mut size, mut crc, mut buf) = (0, Crc32c::default(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buf)? {
            0 => return Ok((size, crc)),
            n => {
                size += n as u64;
                crc = crc.append(&buf[..n]);
            }
        }
    }
}

//! `evidence verify`: checks a document of evidence, offline.

use std::path::PathBuf;

use super::{CommandResult, Exit, Output, print_json};
use crate::error::{FailureReason, RestoreError, ValidationError};
use crate::verification::{Envelope, verify_envelope};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Check the signature of a document of evidence, and that it speaks of this backup
    Verify {
        /// The envelope (….dsse.json)
        file: PathBuf,
        /// Ed25519 public key in PEM; without it, only the form is checked
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// The backup itself, a local file: its size and CRC32C must be those of the evidence
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
    },
}

fn failed(what: impl Into<String>) -> RestoreError {
    ValidationError::new(FailureReason::VerificationFailed, what).into()
}

pub(super) fn run(args: Args, output: Output) -> CommandResult {
    let Args::Verify { file, key, backup } = args;
    let envelope: Envelope = serde_json::from_slice(&std::fs::read(&file)?).map_err(|e| {
        let what = format!("{}: no evidence: {e}", file.display());
        RestoreError::from(ValidationError::new(
            FailureReason::ArchiveUnsupported,
            what,
        ))
    })?;
    let report = match &key {
        Some(key) => verify_envelope(&envelope, &std::fs::read_to_string(key)?)?,
        None => envelope.open()?,
    };
    if let Some(path) = &backup {
        let (size, crc32c) = measure(path)?;
        if report.backup.size.as_deref() != Some(&size.to_string()) {
            return Err(failed(format!(
                "{} has {size} bytes: another backup",
                path.display()
            ))
            .into());
        }
        if report.backup.crc32c.as_ref() != Some(&crate::backup::encode_crc32c(crc32c)) {
            return Err(failed(format!(
                "{} has another CRC32C: another backup",
                path.display()
            ))
            .into());
        }
    }
    if output == Output::Json {
        return print_json(&report);
    }
    let signed = match (&key, envelope.signatures.is_empty()) {
        (Some(_), _) => "signature good",
        (None, false) => "signed; the signature was not checked (--key)",
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
        out!("  the backup at hand is the one that the evidence speaks of");
    }
    Ok(Exit::Ok)
}

fn measure(path: &std::path::Path) -> std::io::Result<(u64, u32)> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let (mut size, mut crc, mut buf) = (0, 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buf)? {
            0 => return Ok((size, crc)),
            n => {
                size += n as u64;
                crc = crc32c::crc32c_append(crc, &buf[..n]);
            }
        }
    }
}

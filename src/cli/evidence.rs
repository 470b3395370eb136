//! `evidence verify`: checks an evidence document offline.

use pgdump_archive::{Crc32c, member_name};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::exit::{CommandError, CommandResult, Exit};
use super::files;
use super::output::{OutputFormat, count, print_json};
use crate::backup::encode_crc32c;
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::policy::Depth;
use crate::proof::{BackupMember, MembersProof, VerificationReport};
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
        /// Local file with the backup, or folder with a directory dump; its bytes must match the evidence
        #[arg(long, value_name = "PATH")]
        backup: Option<PathBuf>,
    },
}

/// The error for bytes that are not those of the evidence.
fn other(path: &Path, what: &str) -> CommandError {
    let what = format!(
        "{}: the evidence is about another backup: {what}",
        path.display()
    );
    RestoreError::from(ValidationError::new(
        ValidationKind::VerificationFailed,
        what,
    ))
    .into()
}

/// The error for bytes of which the evidence does not say enough.
fn not_checked(path: &Path, what: &str) -> CommandError {
    let what = format!("{}: cannot be checked: {what}", path.display());
    RestoreError::from(ValidationError::new(
        ValidationKind::ArchiveUnsupported,
        what,
    ))
    .into()
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
        check_backup(&report, path)?;
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

/// Checks that a local file or folder has the bytes that the evidence is about.
fn check_backup(report: &VerificationReport, path: &Path) -> Result<(), CommandError> {
    let name = report.backup.name.as_deref().unwrap_or_default();
    match (path.is_dir(), name.ends_with('/')) {
        (false, false) => check_file(report, path),
        (true, true) => check_folder(report, path),
        (false, true) => Err(other(path, "it is about a directory dump: give its folder")),
        (true, false) => Err(other(path, "it is about a single file: give that file")),
    }
}

fn check_file(report: &VerificationReport, path: &Path) -> Result<(), CommandError> {
    let file = measure(path)?;
    if report.backup.size != Some(file.size.to_string()) {
        let what = format!("the size of this one, {} bytes, differs", file.size);
        return Err(other(path, &what));
    }
    let sums = [
        ("SHA-256", &report.sha256, &file.sha256),
        ("CRC32C", &report.backup.crc32c, &file.crc32c),
    ];
    let known = sums.iter().filter(|(_, then, _)| then.is_some());
    if known.clone().count() == 0 {
        return Err(not_checked(path, "the evidence has no checksum of it"));
    }
    match known.clone().find(|(_, then, now)| then != now) {
        Some((sum, ..)) => Err(other(path, &format!("the {sum} of this one differs"))),
        None => Ok(()),
    }
}

fn check_folder(report: &VerificationReport, path: &Path) -> Result<(), CommandError> {
    let members = members_in(path)?;
    let Some(then) = &report.members else {
        return Err(check_toc(report, path, &members));
    };
    let now = MembersProof::of(members);
    let what = match then.has_same_bytes(&now) {
        Some(true) => return Ok(()),
        None => {
            let what = "the evidence does not have the checksums of all its files";
            return Err(not_checked(path, what));
        }
        Some(false) if then.count != now.count => format!(
            "it has {}, and this one {}",
            count(then.count, "file"),
            now.count
        ),
        Some(false) if then.listing != now.listing => {
            "the names or sizes of the files of this one differ".to_owned()
        }
        Some(false) => "the checksum of a file of this one differs".to_owned(),
    };
    Err(other(path, &what))
}

/// Why a folder is not the one that older evidence is about, or cannot be shown to be.
fn check_toc(report: &VerificationReport, path: &Path, members: &[BackupMember]) -> CommandError {
    let toc = members.iter().find(|m| member_name::is_toc(&m.name));
    let Some(toc) = toc else {
        return other(path, "this one has no toc.dat");
    };
    let is_known = report.sha256.is_some() && report.depth > Some(Depth::Object);
    if is_known && toc.sha256 != report.sha256 {
        return other(path, "the SHA-256 of the toc.dat of this one differs");
    }
    let what = if is_known {
        "an older version wrote this evidence, which covers toc.dat alone; that one matches. Verify the backup again to have evidence of all its files"
    } else {
        "the evidence has no checksum of its files: verify the backup again"
    };
    not_checked(path, what)
}

/// The files of a directory dump.
fn members_in(folder: &Path) -> Result<Vec<BackupMember>, CommandError> {
    let mut members = Vec::new();
    for path in files::in_folder(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if member_name::may_hold_data(&name) && path.is_file() {
            members.push(measure(&path)?);
        }
    }
    Ok(members)
}

/// Name, size and checksums of a file.
fn measure(path: &Path) -> Result<BackupMember, CommandError> {
    let fault = |e: std::io::Error| files::fault(path, "read", &e);
    let mut file = std::fs::File::open(path).map_err(fault)?;
    let (mut size, mut crc, mut sha256) = (0, Crc32c::default(), Sha256::new());
    let mut buf = vec![0; 256 << 10];
    loop {
        let n = file.read(&mut buf).map_err(fault)?;
        if n == 0 {
            break;
        }
        size += n as u64;
        crc = crc.append(&buf[..n]);
        sha256.update(&buf[..n]);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let sha256 = sha256.finalize();
    Ok(BackupMember {
        name: name.into_owned(),
        size,
        crc32c: Some(encode_crc32c(crc)),
        sha256: Some(sha256.iter().map(|b| format!("{b:02x}")).collect()),
    })
}

//! The cause of a failure that damaged bytes may explain. A damaged archive may be a damaged object, or
//! bytes may have been damaged in transit. The object is read once more, for its checksum alone.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::job_context::{Bounds, JobContext};
use crate::backup::{self, DownloadOptions, IntegrityCheck, PinnedBackup, ReadHint, Source};
use crate::error::{
    Blame, DatabaseKind, FailureReason as R, JobKind, RestoreError, StorageError, StorageKind,
    ValidationError, ValidationKind,
};
use crate::progress::Progress;
use crate::store::read_range;
use pgdump_archive::ArchiveSource;

/// Largest backup, in bytes, that is read again after a statement was refused, or for a limit of this program.
const SMALL: u64 = 1 << 30;

/// First bytes in which translated line ends are looked for.
const HEAD: Range<u64> = 0..64 << 10;
/// Line ends that are no coincidence.
const ENOUGH: usize = 8;
/// First bytes of what is not text: archives of pg_dump, gzip, zstd.
const BINARY: [&[u8]; 3] = [b"PGDMP", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"];

/// Reads every byte, for its checksum alone.
pub(super) async fn drain(
    source: Source,
    options: DownloadOptions,
    progress: &Arc<Progress>,
    cancel: &CancellationToken,
) -> Result<IntegrityCheck, RestoreError> {
    let options = DownloadOptions {
        sha256: true,
        ..options
    };
    let (origin, expected) = backup::open(
        source,
        ReadHint::Whole,
        options,
        progress.clone(),
        cancel.clone(),
    );
    let read = tokio::task::spawn_blocking(move || match origin {
        ArchiveSource::Stream { bytes, .. } => read_to_end(bytes),
        ArchiveSource::Directory(folder) => folder
            .members()
            .iter()
            .try_for_each(|(name, _)| read_to_end(folder.open(name)?)),
    });
    read.await
        .map_err(|e| RestoreError::internal(format!("the reader died: {e}")))??;
    expected.check()?;
    Ok(expected)
}

/// Whether damaged bytes may explain an error about a backup of `size` bytes.
fn may_be_bytes(e: &RestoreError, size: u64) -> bool {
    use {DatabaseKind as D, ValidationKind as V};
    match e {
        RestoreError::Validation(e) => matches!(
            e.kind(),
            V::ArchiveCorrupt | V::ArchiveUnsupported | V::ChecksumMismatch
        ),
        RestoreError::Database(e) => match e.kind() {
            D::DataRejected | D::AnswerTooLarge => true,
            // A flipped bit in a name. In a large backup that is too rare to read all of it again.
            D::StatementRejected => size <= SMALL,
            _ => false,
        },
        RestoreError::Storage(e) => e.kind() == StorageKind::WrongLength,
        // A flipped bit may look like what this program does not support, or like a huge length.
        RestoreError::Job(e) => e.kind() == JobKind::LimitExceeded && size <= SMALL,
    }
}

/// The same error, or its cause; and the check of the object, if its bytes are what the store says. `bounds` end the
/// reading with the job, unless the caller runs within them already.
pub(super) async fn diagnose<J>(
    context: &JobContext<'_, J>,
    e: RestoreError,
    pinned: Option<&PinnedBackup>,
    mut bounds: Option<&mut Bounds<'_>>,
) -> (RestoreError, Option<IntegrityCheck>) {
    let Some(pinned) = pinned.filter(|p| may_be_bytes(&e, p.object.size)) else {
        return (e, None);
    };
    let (source, options) = (
        Source::Object(pinned.clone()),
        context.catalog().download_options(),
    );
    let read = drain(source, options, context.progress, context.cancel);
    let read = match &mut bounds {
        Some(bounds) => bounds.within(read).await,
        None => read.await,
    };
    match read {
        Ok(expected) if e.reason() == R::ChecksumMismatch => {
            let what = "the bytes were damaged in transit: read again, they match the object";
            let damaged = StorageError::new(StorageKind::DownloadFailed, what).with_source(e);
            (damaged.into(), Some(expected))
        }
        Ok(expected) if e.blame() == Blame::Backup => {
            let look = async { Ok(backup::unclear_piece(pinned).await) };
            let unclear = match bounds {
                Some(bounds) => bounds.within(look).await,
                None => look.await,
            };
            let e = match unclear {
                Ok(Some(unclear)) => unclear.with_source(e).into(),
                Ok(None) | Err(_) => name_text_mode(e, pinned).await,
            };
            (e, Some(expected))
        }
        Ok(expected) => (e, Some(expected)),
        Err(cause) if cause.reason() == R::ChecksumMismatch => (cause, None),
        Err(_) => (e, None),
    }
}

/// The same error, or that line ends were translated, where the first bytes show it.
async fn name_text_mode(e: RestoreError, pinned: &PinnedBackup) -> RestoreError {
    if e.reason() != R::ArchiveCorrupt {
        return e;
    }
    let first = pinned.members.first().unwrap_or(&pinned.object);
    match read_range(pinned.store.as_ref(), first, HEAD).await {
        Ok(head) if was_translated(&head) => {
            let what = "every line feed in it follows a carriage return, so a terminal or a transfer in text mode changed its bytes (`docker exec -t`, FTP in ASCII mode): dump again without that";
            let translated = ValidationError::new(ValidationKind::ArchiveCorrupt, what);
            translated.with_source(e).into()
        }
        _ => e,
    }
}

/// Whether the first bytes of an archive or compressed file show that each LF became CR LF.
fn was_translated(head: &[u8]) -> bool {
    let is_binary = BINARY.iter().any(|magic| head.starts_with(magic));
    let feeds = head.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut preceding = feeds.map(|(at, _)| at.checked_sub(1).and_then(|i| head.get(i)));
    let mut count = 0;
    is_binary
        && preceding.all(|byte| {
            count += 1;
            byte == Some(&b'\r')
        })
        && count >= ENOUGH
}

/// The check of a backup that the server refused, if the store tells no checksum: only its bytes show whether it has changed
/// since an earlier proof. What the server seems to lack may only be called so by a flipped bit.
pub(super) async fn read_to_compare<J>(
    context: &JobContext<'_, J>,
    e: &RestoreError,
    pinned: Option<&PinnedBackup>,
) -> Option<IntegrityCheck> {
    let pinned = pinned.filter(|p| !p.has_checksums() && is_refused(e, p.object.size))?;
    let (source, options) = (
        Source::Object(pinned.clone()),
        context.catalog().download_options(),
    );
    let read = drain(source, options, context.progress, context.cancel).await;
    read.ok()
}

/// Whether the server refused a backup of `size` bytes that was not read again for the diagnosis.
fn is_refused(e: &RestoreError, size: u64) -> bool {
    use DatabaseKind as D;
    let RestoreError::Database(e) = e else {
        return false;
    };
    match e.kind() {
        D::StatementRejected => size > SMALL,
        D::VersionIncompatible
        | D::ExtensionMissing
        | D::RoleMissing
        | D::InsufficientPrivilege => true,
        _ => false,
    }
}

fn read_to_end(mut bytes: Box<dyn Read + Send>) -> Result<(), RestoreError> {
    let mut buf = vec![0; 256 << 10];
    loop {
        match bytes.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(RestoreError::from_archive_io(e, "the object")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translated_line_ends_are_recognized() {
        let bytes: Vec<u8> = (0..=255).cycle().take(4096).collect();
        for magic in BINARY {
            let sound = [magic, &bytes].concat();
            assert!(!was_translated(&sound));
            let mut translated = Vec::new();
            for byte in sound {
                if byte == b'\n' {
                    translated.push(b'\r');
                }
                translated.push(byte);
            }
            assert!(was_translated(&translated));
            assert!(!was_translated(&translated[..100]), "too few");
        }
        assert!(!was_translated("--\r\n".repeat(20).as_bytes()), "text");
    }
    use crate::error::JobError;

    #[test]
    fn a_limit_may_be_a_flipped_bit_in_a_small_backup() {
        let of = |kind, size| may_be_bytes(&JobError::new(kind, "x").into(), size);
        assert!(of(JobKind::LimitExceeded, SMALL));
        assert!(!of(JobKind::LimitExceeded, SMALL + 1));
        assert!(!of(JobKind::ForeignFile, 1) && !of(JobKind::Timeout, 1));
    }
}

//! What is behind a failure that bytes may have caused: a damaged archive may be a damaged object, and
//! bytes may be damaged on their way. The object is read once more, for its checksum alone.

use std::io::Read;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::RestoreManager;
use crate::backup::{self, DownloadOptions, IntegrityCheck, PinnedBackup, ReadHint, Source};
use crate::error::{FailureReason as R, RestoreError, StorageError};
use crate::progress::Progress;
use pgdump_archive::ArchiveSource;

impl RestoreManager {
    /// Reads every byte, for its checksum alone.
    pub(super) async fn drain(
        &self,
        source: Source,
        progress: &Arc<Progress>,
        stop: &CancellationToken,
    ) -> Result<IntegrityCheck, RestoreError> {
        progress.enter("download");
        let options = DownloadOptions {
            sha256: true,
            ..self.limits()
        };
        let (origin, expected) = backup::open(
            source,
            ReadHint::Whole,
            options,
            progress.clone(),
            stop.clone(),
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

    /// The same error, or the one behind it; and the object, where it is what the store says.
    pub(super) async fn diagnose(
        &self,
        e: RestoreError,
        pinned: Option<&PinnedBackup>,
        stop: &CancellationToken,
    ) -> (RestoreError, Option<IntegrityCheck>) {
        use R::{
            ArchiveCorrupt, ArchiveUnsupported, ChecksumMismatch, DataRejected,
            RestoreError as Refused,
        };
        let may_be_bytes = match e.reason() {
            // The worker's own limit, whatever the bytes are.
            _ if matches!(e, RestoreError::Job(_)) => false,
            ArchiveCorrupt | ArchiveUnsupported | ChecksumMismatch | DataRejected => true,
            // A flipped bit in a name. Of a large backup, that is too seldom to read all of it again.
            Refused => pinned.is_some_and(|p| p.object.size <= SMALL),
            _ => false,
        };
        let Some(pinned) = pinned.filter(|_| may_be_bytes) else {
            return (e, None);
        };
        match self
            .drain(Source::Object(pinned.clone()), &Arc::default(), stop)
            .await
        {
            Ok(expected) if e.reason() == ChecksumMismatch => {
                let what = "the bytes were damaged on their way: read again, they are the object's";
                let damaged = StorageError::new(R::DownloadFailed, what).with_source(e);
                (damaged.into(), Some(expected))
            }
            Ok(expected) => (e, Some(expected)),
            Err(cause) if cause.reason() == ChecksumMismatch => (cause, None),
            Err(_) => (e, None),
        }
    }
}

/// Bytes of a backup that is read again for any refusal.
const SMALL: u64 = 1 << 30;

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

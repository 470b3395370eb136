//! Reads one object as one ordered stream, whose bytes the reader counts and checksums. Nothing is written to disk.

use pgdump_archive::Crc32c;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use bytes::{Buf, Bytes};
use sha2::Digest;
use tokio_util::sync::CancellationToken;

use super::PinnedBackup;
use super::ordered_parts::{SHORTEST, pump_parts};
use super::read_ahead::{DownloadReceiver, DownloadSender, read_ahead, stopped};
use super::resuming_range::{PIECE, RangeContext, RangeEnd, ResumingRange};
use crate::error::{RestoreError, StorageError, StorageKind};
use crate::progress::Progress;

pub use super::resuming_range::DownloadOptions;

/// How many chunks (of at most 256 KiB) may wait between the network and the archive reader.
const READ_AHEAD: usize = 32;

/// How much of an object is likely to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadHint {
    Whole,
    /// Only the beginning: requested in growing ranges, each once the previous one has been consumed.
    Beginning,
    /// Everything before this byte.
    Until(u64),
}

/// Size of the first range of [`ReadHint::Beginning`], in bytes.
const FIRST_RANGE: u64 = 128 << 10;

/// Where the bytes come from.
pub enum Source {
    Object(PinnedBackup),
    Stdin,
}

/// Size and checksums of what has been read so far.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct StreamStats {
    pub bytes: u64,
    pub crc32c: Crc32c,
    pub ended: bool,
    /// Set at the end, if requested.
    pub sha256: Option<[u8; 32]>,
}

/// The same error; where access is denied, it is to an object of a backup.
pub(crate) fn of_object(e: StorageError) -> StorageError {
    if e.kind() != StorageKind::AccessDenied {
        return e;
    }
    StorageError::new(StorageKind::ObjectDenied, "the backup cannot be read").with_source(e)
}

/// Fails once a download is to stop.
///
/// # Errors
/// `cancelled`
pub(super) fn check_not_stopped(stop: &CancellationToken) -> Result<(), RestoreError> {
    if stop.is_cancelled() {
        return Err(stopped().into());
    }
    Ok(())
}

/// The reading end of a download, for a thread that may block. It counts and checksums what it returns.
pub struct Download {
    incoming: DownloadReceiver,
    current: Bytes,
    stats: Arc<Mutex<StreamStats>>,
    sha256: Option<sha2::Sha256>,
    stop: CancellationToken,
}

impl Download {
    /// Starts downloading; stops when `stop` is cancelled or the reader is dropped.
    pub(super) fn start(
        source: Source,
        (offset, reach): (u64, ReadHint),
        limits: DownloadOptions,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> (Self, Arc<Mutex<StreamStats>>) {
        let capacity = match reach {
            ReadHint::Beginning => 1,
            ReadHint::Whole | ReadHint::Until(_) => READ_AHEAD,
        };
        let stats = Arc::new(Mutex::new(StreamStats::default()));
        let (outlet, incoming) = read_ahead(capacity, stop.clone());
        tokio::spawn(async move {
            let work = async {
                match source {
                    Source::Object(b) => {
                        pump_object(&b, (offset, reach), limits, &progress, &outlet).await
                    }
                    Source::Stdin => pump_stdin(&progress, &outlet).await,
                }
            };
            match outlet.stop.run_until_cancelled(work).await {
                Some(Ok(())) => {}
                Some(Err(e)) => outlet.fail(of_object(e)).await,
                None => outlet.try_fail(stopped()),
            }
        });
        let download = Download {
            incoming,
            current: Bytes::new(),
            stats: stats.clone(),
            sha256: limits.sha256.then(sha2::Sha256::default),
            stop,
        };
        (download, stats)
    }
}

impl Read for Download {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            let next = self.incoming.next();
            // The end of what is sent is not the end of the object if the sender was stopped.
            check_not_stopped(&self.stop)?;
            match next {
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(e)) => return Err(RestoreError::from(e).into()),
                None => {
                    let mut stats = self.stats.lock();
                    stats.ended = true;
                    if let Some(sha256) = self.sha256.take() {
                        stats.sha256 = Some(sha256.finalize().into());
                    }
                    return Ok(0);
                }
            }
        }
        let n = self.current.len().min(out.len());
        out[..n].copy_from_slice(&self.current[..n]);
        self.current.advance(n);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(&out[..n]);
        }
        let mut stats = self.stats.lock();
        stats.crc32c = stats.crc32c.append(&out[..n]);
        stats.bytes += n as u64;
        Ok(n)
    }
}

async fn pump_object(
    backup: &PinnedBackup,
    (offset, reach): (u64, ReadHint),
    limits: DownloadOptions,
    progress: &Progress,
    outlet: &DownloadSender,
) -> Result<(), StorageError> {
    let context = RangeContext {
        backup,
        limits,
        progress,
        outlet,
    };
    let end = match reach {
        ReadHint::Beginning => return pump_growing(context, offset).await,
        ReadHint::Whole => backup.object.size,
        ReadHint::Until(end) => end,
    };
    match backup.store.spare_streams() {
        Some(spare) if end.saturating_sub(offset) >= SHORTEST => {
            pump_parts(context, (offset, end), spare).await
        }
        _ => pump_range(context, offset, end).await,
    }
}

/// Requests ranges of growing size, each once the one before it has been consumed.
async fn pump_growing(context: RangeContext<'_>, mut offset: u64) -> Result<(), StorageError> {
    let size = context.backup.object.size;
    let mut range = FIRST_RANGE;
    loop {
        let end = size.min(offset + range);
        pump_range(context, offset, end).await?;
        if end == size {
            return Ok(());
        }
        (offset, range) = (end, range * 2);
        // A free slot in the channel of capacity 1 means that the reader has consumed everything.
        drop(context.outlet.reserve().await?);
    }
}

/// Sends the bytes from `begin` to `end` as one stream; `Ok` only if all of them arrived.
async fn pump_range(context: RangeContext<'_>, begin: u64, end: u64) -> Result<(), StorageError> {
    let mut range = ResumingRange::new(context, begin, RangeEnd::at(end));
    while let Some(piece) = range.next().await? {
        context.outlet.send(piece).await?;
    }
    Ok(())
}

async fn pump_stdin(progress: &Progress, outlet: &DownloadSender) -> Result<(), StorageError> {
    use tokio::io::AsyncReadExt;
    let mut stdin = tokio::io::stdin();
    loop {
        let mut buf = bytes::BytesMut::with_capacity(PIECE);
        let read = stdin.read_buf(&mut buf).await.map_err(|e| {
            StorageError::new(StorageKind::DownloadFailed, "failed to read standard input")
                .with_source(e)
        })?;
        if read == 0 {
            return Ok(());
        }
        progress.object_bytes.fetch_add(read as u64, Relaxed);
        if outlet.send(buf.freeze()).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};
    use std::time::Duration;

    /// A read that fails because the command is over is no broken connection.
    #[tokio::test]
    async fn a_download_that_nobody_wants_is_not_resumed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.dump"), "PGDMP").unwrap();
        let store = Arc::new(FaultyStore::at(folder.path()));
        let pinned = crate::backup::pin(store.clone(), "a.dump", None, None).await;
        let pinned = pinned.unwrap();
        let limits = DownloadOptions {
            stall: Duration::from_secs(30),
            budget: Duration::from_secs(60),
            sha256: false,
        };
        for (is_stopped, is_read) in [(true, true), (false, false)] {
            let fault = StoreFault::Error(StorageKind::DownloadFailed);
            store.fail(Call::Read, "a.dump", fault, 1);
            let stop = CancellationToken::new();
            if is_stopped {
                stop.cancel();
            }
            let (outlet, incoming) = read_ahead(READ_AHEAD, stop);
            let incoming = is_read.then_some(incoming);
            let progress = Progress::default();
            let whole = (0, ReadHint::Whole);
            let ended = pump_object(&pinned, whole, limits, &progress, &outlet).await;
            assert_eq!(ended.unwrap_err().kind(), StorageKind::Stopped);
            assert_eq!(progress.download_retries.load(Relaxed), 0);
            drop(incoming);
        }
    }
}

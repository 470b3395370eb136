//! Reads one object as one ordered stream. After a broken connection it resumes at the last good byte of
//! the same generation, after a stall it reopens the object, and at the end it is checked. Nothing is
//! written to disk.

use pgdump_archive::Crc32c;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use sha2::Digest;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::PinnedBackup;
use crate::error::{RestoreError, StorageError, StorageKind};
use crate::progress::Progress;
use crate::retry::Backoff;
use crate::store::ObjectBytes;

/// How many chunks (of at most 256 KiB) may wait between the network and the archive reader.
const READ_AHEAD: usize = 32;
const PIECE: usize = 256 << 10;

/// Time limits and options of a download.
#[derive(Debug, Clone, Copy)]
pub struct DownloadOptions {
    /// The object is reopened after this long without a byte.
    pub stall: Duration,
    /// The download fails after this long without progress.
    pub budget: Duration,
    /// Whether to compute the SHA-256 in addition to the CRC32C.
    pub sha256: bool,
}

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

fn stopped() -> StorageError {
    StorageError::new(StorageKind::Stopped, "the download was stopped")
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
    incoming: mpsc::Receiver<Result<Bytes, StorageError>>,
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
        let (tx, incoming) = mpsc::channel(if reach == ReadHint::Beginning {
            1
        } else {
            READ_AHEAD
        });
        let stats = Arc::new(Mutex::new(StreamStats::default()));
        let stopped_by = stop.clone();
        tokio::spawn(async move {
            let outlet = Outlet { tx, stop };
            let work = async {
                match source {
                    Source::Object(b) => {
                        pump_object(&b, (offset, reach), limits, &progress, &outlet).await
                    }
                    Source::Stdin => pump_stdin(&progress, &outlet.tx).await,
                }
            };
            let ended = outlet.stop.run_until_cancelled(work).await;
            if let Some(Err(e)) = ended {
                // If the reader is gone, nobody needs the error.
                let _ = outlet.tx.send(Err(of_object(e))).await;
            } else if ended.is_none() {
                let _ = outlet.tx.try_send(Err(stopped()));
            }
        });
        let download = Download {
            incoming,
            current: Bytes::new(),
            stats: stats.clone(),
            sha256: limits.sha256.then(sha2::Sha256::default),
            stop: stopped_by,
        };
        (download, stats)
    }
}

impl Read for Download {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            let next = self.incoming.blocking_recv();
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

type Sender = mpsc::Sender<Result<Bytes, StorageError>>;

/// Where the bytes of an object go.
struct Outlet {
    tx: Sender,
    stop: CancellationToken,
}

impl Outlet {
    /// Whether nobody wants more bytes: the download was stopped, or its reader is gone.
    fn is_closed(&self) -> bool {
        self.stop.is_cancelled() || self.tx.is_closed()
    }
}

async fn pump_object(
    backup: &PinnedBackup,
    (mut offset, reach): (u64, ReadHint),
    limits: DownloadOptions,
    progress: &Progress,
    outlet: &Outlet,
) -> Result<(), StorageError> {
    let tx = &outlet.tx;
    let size = if let ReadHint::Until(end) = reach {
        end
    } else {
        backup.object.size
    };
    let mut range = FIRST_RANGE;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut last_progress = tokio::time::Instant::now();
    loop {
        let before = offset;
        let end = if reach == ReadHint::Beginning {
            size.min(offset + range)
        } else {
            size
        };
        let part = (end < backup.object.size).then_some(end - offset);
        let cut = match open(backup, offset, part, limits.stall).await {
            Ok(stream) => forward(stream, &mut offset, end, limits.stall, progress, tx).await,
            Err(e) => Err(e),
        };
        let e = match cut {
            Ok(()) if offset == size => return Ok(()),
            Ok(()) => {
                range *= 2;
                // A free slot in the channel of capacity 1 means that the reader has consumed everything.
                let _ = tx.reserve().await;
                continue;
            }
            Err(e) if e.kind() != StorageKind::DownloadFailed => return Err(e),
            // At the end of a command, reads that are under way fail.
            Err(_) if outlet.is_closed() => return Err(stopped()),
            Err(e) => e,
        };
        if offset > before {
            last_progress = tokio::time::Instant::now();
            backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        }
        if last_progress.elapsed() >= limits.budget {
            return Err(e);
        }
        tracing::warn!(offset, error = %crate::error::report(&e), "resuming the download");
        progress.download_retries.fetch_add(1, Relaxed);
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn open(
    backup: &PinnedBackup,
    offset: u64,
    length: Option<u64>,
    stall: Duration,
) -> Result<ObjectBytes, StorageError> {
    let opened =
        tokio::time::timeout(stall, backup.store.read(&backup.object, offset, length)).await;
    opened.unwrap_or_else(|_| Err(stalled(backup, stall)))
}

fn stalled(backup: &PinnedBackup, stall: Duration) -> StorageError {
    StorageError::new(
        StorageKind::DownloadFailed,
        format!("{}: no byte received for {stall:?}", backup.uri()),
    )
}

/// Forwards the stream up to byte `size`; `Ok` only if all bytes arrived.
async fn forward(
    mut stream: ObjectBytes,
    offset: &mut u64,
    size: u64,
    stall: Duration,
    progress: &Progress,
    tx: &Sender,
) -> Result<(), StorageError> {
    let failed = |what: String| StorageError::new(StorageKind::DownloadFailed, what);
    loop {
        let next = tokio::time::timeout(stall, stream.next()).await;
        match next.map_err(|_| failed(format!("no byte received for {stall:?}")))? {
            Some(Ok(mut chunk)) => {
                if *offset + chunk.len() as u64 > size {
                    let what = "the store sent more bytes than the object has: it may have been overwritten";
                    return Err(StorageError::new(StorageKind::Changed, what));
                }
                while !chunk.is_empty() {
                    let piece = chunk.split_to(chunk.len().min(PIECE));
                    let n = piece.len() as u64;
                    if tx.send(Ok(piece)).await.is_err() {
                        return Err(StorageError::new(
                            StorageKind::Stopped,
                            "the reader of the download has stopped",
                        ));
                    }
                    *offset += n;
                    progress.object_bytes.fetch_add(n, Relaxed);
                }
            }
            Some(Err(e)) => return Err(e),
            None if *offset == size => return Ok(()),
            None => {
                return Err(failed(format!(
                    "the connection ended at byte {offset} of {size}"
                )));
            }
        }
    }
}

async fn pump_stdin(progress: &Progress, tx: &Sender) -> Result<(), StorageError> {
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
        if tx.send(Ok(buf.freeze())).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

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
            let (tx, incoming) = mpsc::channel(READ_AHEAD);
            let incoming = is_read.then_some(incoming);
            let stop = CancellationToken::new();
            if is_stopped {
                stop.cancel();
            }
            let (progress, outlet) = (Progress::default(), Outlet { tx, stop });
            let whole = (0, ReadHint::Whole);
            let ended = pump_object(&pinned, whole, limits, &progress, &outlet).await;
            assert_eq!(ended.unwrap_err().kind(), StorageKind::Stopped);
            assert_eq!(progress.download_retries.load(Relaxed), 0);
            drop(incoming);
        }
    }
}

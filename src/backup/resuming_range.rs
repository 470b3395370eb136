//! One range of an object, read to its end through any number of requests: after a broken connection it goes on at the
//! last good byte of the same generation, after a stall it is requested again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use super::PinnedBackup;
use super::read_ahead::{DownloadSender, stopped};
use crate::error::{StorageError, StorageKind, report};
use crate::progress::Progress;
use crate::retry::Backoff;
use crate::store::ObjectBytes;

/// Most bytes that are handed over at once.
pub(super) const PIECE: usize = 256 << 10;

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

/// Where a range ends. It can be brought forward while the range is read, but not to before what was read.
#[derive(Debug, Clone)]
pub(super) struct RangeEnd(Arc<AtomicU64>);

impl RangeEnd {
    pub(super) fn at(end: u64) -> Self {
        RangeEnd(Arc::new(AtomicU64::new(end)))
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn bring_forward(&self, end: u64) {
        self.0.fetch_min(end, Relaxed);
    }
}

/// What the ranges of one download share.
#[derive(Clone, Copy)]
pub(super) struct RangeContext<'a> {
    pub backup: &'a PinnedBackup,
    pub limits: DownloadOptions,
    pub progress: &'a Progress,
    pub outlet: &'a DownloadSender,
}

struct Request {
    bytes: ObjectBytes,
    /// The end of what was requested.
    end: u64,
}

/// A range that is being read.
pub(super) struct ResumingRange<'a> {
    context: RangeContext<'a>,
    begin: u64,
    offset: u64,
    end: RangeEnd,
    request: Option<Request>,
    /// What was received and not handed over yet.
    chunk: Bytes,
    backoff: Backoff,
    last_progress: Instant,
    /// Whether bytes came since the last failure.
    has_progressed: bool,
}

fn first_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(30))
}

fn failed(what: String) -> StorageError {
    StorageError::new(StorageKind::DownloadFailed, what)
}

impl<'a> ResumingRange<'a> {
    pub(super) fn new(context: RangeContext<'a>, begin: u64, end: RangeEnd) -> Self {
        ResumingRange {
            context,
            begin,
            offset: begin,
            end,
            request: None,
            chunk: Bytes::new(),
            backoff: first_backoff(),
            last_progress: Instant::now(),
            has_progressed: false,
        }
    }

    /// Where its next byte is.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether all bytes of it have been handed over.
    pub(super) fn has_all(&self) -> bool {
        self.offset >= self.end.get()
    }

    /// Its next bytes, at most [`PIECE`]; `None` once all of them arrived and the answer ended as it should.
    ///
    /// # Errors
    /// As [`BackupStore::read`](crate::store::BackupStore::read); `download_failed` after the budget without progress,
    /// `backup_changed` for more bytes than there should be, `cancelled` if nobody wants them.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        // Until now, the reader was the one to wait for.
        self.last_progress = Instant::now();
        loop {
            match self.next_of_request().await {
                Err(e) if e.kind() == StorageKind::DownloadFailed => self.recover(e).await?,
                other => return other,
            }
        }
    }

    /// Waits before the next request.
    async fn recover(&mut self, e: StorageError) -> Result<(), StorageError> {
        self.request = None;
        // At the end of a command, reads that are under way fail.
        if self.context.outlet.is_closed() {
            return Err(stopped());
        }
        if std::mem::take(&mut self.has_progressed) {
            self.last_progress = Instant::now();
            self.backoff = first_backoff();
        }
        if self.last_progress.elapsed() >= self.context.limits.budget {
            return Err(e);
        }
        tracing::warn!(offset = self.offset, error = %report(&e), "resuming the download");
        let retries = &self.context.progress.download_retries;
        retries.fetch_add(1, Relaxed);
        tokio::time::sleep(self.backoff.next_delay()).await;
        Ok(())
    }

    async fn next_of_request(&mut self) -> Result<Option<Bytes>, StorageError> {
        loop {
            let end = self.end.get();
            if let Some(piece) = self.take_piece(end) {
                return Ok(Some(piece));
            }
            if self.is_cut_short(end) {
                self.request = None;
                return Ok(None);
            }
            let Some(request) = &mut self.request else {
                self.open(end).await?;
                continue;
            };
            let stall = self.context.limits.stall;
            let next = tokio::time::timeout(stall, request.bytes.next()).await;
            match next.map_err(|_| failed(format!("no byte received for {stall:?}")))? {
                Some(chunk) => self.chunk = self.checked(chunk?)?,
                None if self.offset == end => return Ok(None),
                None => {
                    let at = self.offset;
                    return Err(failed(format!(
                        "the connection ended at byte {at} of {end}"
                    )));
                }
            }
        }
    }

    fn take_piece(&mut self, end: u64) -> Option<Bytes> {
        let left = usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let n = self.chunk.len().min(PIECE).min(left);
        if n == 0 {
            return None;
        }
        self.offset += n as u64;
        self.has_progressed = true;
        let received = &self.context.progress.object_bytes;
        received.fetch_add(n as u64, Relaxed);
        Some(self.chunk.split_to(n))
    }

    /// Whether all bytes are there and nothing else is to come: more was requested than is wanted now, or the connection
    /// broke after the last byte.
    fn is_cut_short(&self, end: u64) -> bool {
        let is_answered = match &self.request {
            Some(request) => request.end > end,
            None => self.offset > self.begin,
        };
        self.offset == end && is_answered
    }

    async fn open(&mut self, end: u64) -> Result<(), StorageError> {
        let RangeContext { backup, limits, .. } = self.context;
        let length = (end < backup.object.size).then_some(end - self.offset);
        let reading = backup.store.read(&backup.object, self.offset, length);
        let opened = tokio::time::timeout(limits.stall, reading).await;
        let stall = limits.stall;
        let stalled = |_| {
            Err(failed(format!(
                "{}: no byte received for {stall:?}",
                backup.uri()
            )))
        };
        let bytes = opened.unwrap_or_else(stalled)?;
        self.request = Some(Request { bytes, end });
        Ok(())
    }

    /// Bytes that were received, unless there are more than were requested.
    fn checked(&self, chunk: Bytes) -> Result<Bytes, StorageError> {
        let wanted = self.request.as_ref().map_or(0, |request| request.end);
        if self.offset + chunk.len() as u64 > wanted {
            let what =
                "the store sent more bytes than the object has: it may have been overwritten";
            return Err(StorageError::new(StorageKind::Changed, what));
        }
        Ok(chunk)
    }
}

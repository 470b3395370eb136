//! What passes between a download and its reader: the bytes one way; the other way, how far the reader is and how long
//! it has waited.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::{StorageError, StorageKind};

type Chunk = Result<Bytes, StorageError>;

/// The error of a download that is not wanted any more.
pub(super) fn stopped() -> StorageError {
    StorageError::new(StorageKind::Stopped, "the download was stopped")
}

fn reader_is_gone() -> StorageError {
    let what = "the reader of the download has stopped";
    StorageError::new(StorageKind::Stopped, what)
}

/// What the reader has done.
#[derive(Debug, Default, Clone, Copy)]
struct Demand {
    /// Bytes that it took.
    taken: u64,
    /// How long it has waited for bytes, without the wait that is under way.
    waited: Duration,
    waiting_since: Option<Instant>,
}

/// Where a download puts its bytes.
pub(super) struct DownloadSender {
    tx: mpsc::Sender<Chunk>,
    pub(super) stop: CancellationToken,
    demand: watch::Receiver<Demand>,
}

/// Where its reader takes them, on a thread that may block.
pub(super) struct DownloadReceiver {
    incoming: mpsc::Receiver<Chunk>,
    demand: watch::Sender<Demand>,
}

/// Both ends; at most `capacity` chunks wait between them.
pub(super) fn read_ahead(
    capacity: usize,
    stop: CancellationToken,
) -> (DownloadSender, DownloadReceiver) {
    let (tx, incoming) = mpsc::channel(capacity);
    let (sender, demand) = watch::channel(Demand::default());
    let inlet = DownloadReceiver {
        incoming,
        demand: sender,
    };
    (DownloadSender { tx, stop, demand }, inlet)
}

impl DownloadSender {
    /// Whether nobody wants more bytes: the download was stopped, or its reader is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.stop.is_cancelled() || self.tx.is_closed()
    }

    /// Waits for a free place among the chunks that wait.
    ///
    /// # Errors
    /// `cancelled` if the reader is gone.
    pub(super) async fn reserve(&self) -> Result<mpsc::Permit<'_, Chunk>, StorageError> {
        self.tx.reserve().await.map_err(|_| reader_is_gone())
    }

    /// Hands over bytes, once there is room for them.
    ///
    /// # Errors
    /// `cancelled` if the reader is gone.
    pub(super) async fn send(&self, bytes: Bytes) -> Result<(), StorageError> {
        self.reserve().await?.send(Ok(bytes));
        Ok(())
    }

    /// Hands over why there are no more bytes.
    pub(super) async fn fail(&self, e: StorageError) {
        // If the reader is gone, nobody needs the error.
        let _ = self.tx.send(Err(e)).await;
    }

    /// The same, unless too many chunks wait.
    pub(super) fn try_fail(&self, e: StorageError) {
        let _ = self.tx.try_send(Err(e));
    }

    /// Waits until the reader has taken more than `bytes` bytes, less `ahead`.
    ///
    /// # Errors
    /// `cancelled` if the reader is gone.
    pub(super) async fn wait_for_reader(&self, bytes: u64, ahead: u64) -> Result<(), StorageError> {
        let is_near = |d: &Demand| bytes < d.taken + ahead;
        if is_near(&self.demand.borrow()) {
            return Ok(());
        }
        let mut demand = self.demand.clone();
        let near = demand.wait_for(is_near).await.map(drop);
        near.map_err(|_| reader_is_gone())
    }

    /// How long the reader has waited for bytes so far.
    pub(super) fn waited(&self) -> Duration {
        let demand = *self.demand.borrow();
        let now = demand.waiting_since.map(|since| since.elapsed());
        demand.waited + now.unwrap_or_default()
    }
}

impl DownloadReceiver {
    /// The next bytes, or why there are none; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Chunk> {
        let next = match self.incoming.try_recv() {
            Ok(next) => Some(next),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                self.begin_wait();
                let next = self.incoming.blocking_recv();
                self.end_wait();
                next
            }
        };
        self.count(next.as_ref());
        next
    }

    // Nobody waits for these changes.
    fn begin_wait(&self) {
        self.demand.send_if_modified(|d| {
            d.waiting_since = Some(Instant::now());
            false
        });
    }

    fn end_wait(&self) {
        self.demand.send_if_modified(|d| {
            let since = d.waiting_since.take();
            d.waited += since.map(|since| since.elapsed()).unwrap_or_default();
            false
        });
    }

    fn count(&self, next: Option<&Chunk>) {
        if let Some(Ok(bytes)) = next {
            self.demand.send_modify(|d| d.taken += bytes.len() as u64);
        }
    }

    /// As [`DownloadReceiver::next`], for tests on one thread.
    #[cfg(test)]
    pub(super) async fn next_async(&mut self) -> Option<Chunk> {
        self.begin_wait();
        let next = self.incoming.recv().await;
        self.end_wait();
        self.count(next.as_ref());
        next
    }
}

//! The schedule behind a lock, with waiting, between the archive reader (a blocking thread) and the
//! sessions (async tasks). It bounds memory: a chunk is queued only when the budget has room for it,
//! and its memory is released once it is on its way to the server.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::copy_lines::ChunkLines;
use super::ids::{EntryIndex, NodeId, SessionId};
use super::plan::Plan;
use super::schedule::{CopyNext, Schedule, SessionWork};
use super::work_record::UnitId;
use crate::error::RestoreError;
use pgdump_archive::Chunk;

/// A queued chunk and the memory reserved for it.
pub(super) struct QueuedChunk {
    pub chunk: Chunk,
    /// Drop this when the chunk has been sent, before waiting for the next one.
    pub permit: Option<MemoryPermit>,
    /// Where its rows are in the data of their table.
    pub lines: ChunkLines,
    /// What the data belongs to in the record of the work.
    pub unit: UnitId,
    /// Where its bytes begin in that data.
    pub from: u64,
}

/// Reserved memory, released on drop.
pub(super) type MemoryPermit = OwnedSemaphorePermit;

pub(super) struct WorkQueue {
    schedule: Mutex<Schedule<QueuedChunk>>,
    changed: Notify,
    /// Notified when the last chunk of a node has been taken.
    drained: Notify,
    /// One permit per KiB.
    permit: Arc<Semaphore>,
    budget_kib: u32,
    stopped: CancellationToken,
}

impl WorkQueue {
    /// `growing`: the plan is extended while the data arrives.
    pub(crate) fn new(
        plan: Plan,
        sessions: usize,
        queue_bytes: usize,
        streams: usize,
        growing: bool,
    ) -> Self {
        let budget_kib = u32::try_from(queue_bytes >> 10)
            .unwrap_or(u32::MAX >> 4)
            .max(1);
        WorkQueue {
            schedule: Mutex::new(Schedule::new(plan, sessions, streams, growing)),
            changed: Notify::new(),
            drained: Notify::new(),
            permit: Arc::new(Semaphore::new(budget_kib as usize)),
            budget_kib,
            stopped: CancellationToken::new(),
        }
    }

    pub(crate) fn stop_on_drop(self: &Arc<Self>) -> (DropGuard, CloseOnDrop) {
        (
            self.stopped.clone().drop_guard(),
            CloseOnDrop(self.permit.clone()),
        )
    }

    /// Reserves `bytes` for `node`'s data. A node whose chunks have all been taken may always reserve
    /// memory for one more chunk: whoever waits for that chunk may hold what would free the memory.
    pub(crate) async fn reserve(
        &self,
        bytes: u64,
        node: Option<NodeId>,
    ) -> Result<Option<MemoryPermit>, RestoreError> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let kib = kib.clamp(1, self.budget_kib);
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            match self.permit.clone().try_acquire_many_owned(kib) {
                Ok(permit) => return Ok(Some(permit)),
                Err(TryAcquireError::Closed) => return Err(stopped()),
                Err(TryAcquireError::NoPermits) => {}
            }
            if node.is_some_and(|n| self.lock().is_drained(n)) {
                return Ok(None);
            }
            tokio::select! {
                permit = self.permit.clone().acquire_many_owned(kib) => return permit.map(Some).map_err(|_| stopped()),
                () = drained => {}
            }
        }
    }

    /// Waits until all data that must be loaded before `node`'s has arrived; false if no other reader
    /// delivers it. Reading `node` earlier could take the memory that the earlier data needs.
    pub(crate) async fn is_turn_of(&self, node: NodeId) -> Result<bool, RestoreError> {
        self.until(|s| (s.is_ready(node) || !s.has_readers()).then(|| s.is_ready(node)))
            .await
    }

    /// Whether all data that must be loaded before `node`'s has arrived.
    pub(crate) fn is_ready(&self, node: NodeId) -> bool {
        self.lock().is_ready(node)
    }

    /// Nodes whose data comes from the archive, each with its entry.
    pub(crate) fn data_nodes(&self) -> Vec<(NodeId, EntryIndex)> {
        self.lock().data_nodes().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<QueuedChunk>> {
        self.schedule.lock()
    }

    /// Changes the schedule and wakes everything that waits for a change.
    pub(crate) fn change<T>(&self, f: impl FnOnce(&mut Schedule<QueuedChunk>) -> T) -> T {
        let out = f(&mut self.lock());
        self.changed.notify_waiters();
        out
    }

    pub(crate) fn is_in_order(&self, node: NodeId) -> bool {
        self.lock().node(node).in_order
    }

    pub(crate) fn entry_of(&self, node: NodeId) -> EntryIndex {
        self.lock().node(node).entry
    }

    /// Waits until `ask` returns an answer.
    async fn until<T>(
        &self,
        mut ask: impl FnMut(&mut Schedule<QueuedChunk>) -> Option<T>,
    ) -> Result<T, RestoreError> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(answer) = ask(&mut self.lock()) {
                return Ok(answer);
            }
            tokio::select! {
                () = changed => {}
                () = self.stopped.cancelled() => return Err(stopped()),
            }
        }
    }

    /// What a session does next; never [`SessionWork::Wait`].
    pub(crate) async fn next_work(&self, session: SessionId) -> Result<SessionWork, RestoreError> {
        self.until(|s| Some(s.next(session)).filter(|w| *w != SessionWork::Wait))
            .await
    }

    /// The next chunk for a copier, or `None` if the copier ends.
    pub(crate) async fn take(
        &self,
        node: NodeId,
        session: SessionId,
    ) -> Result<Option<QueuedChunk>, RestoreError> {
        self.until(|s| match s.take(node, session) {
            CopyNext::Chunk(p) => {
                if s.is_drained(node) {
                    self.drained.notify_waiters();
                }
                Some(Some(p))
            }
            CopyNext::Wait => None,
            CopyNext::Leave | CopyNext::End => Some(None),
        })
        .await
    }

    /// A chunk that is already queued.
    pub(crate) fn take_queued(&self, node: NodeId, session: SessionId) -> Option<QueuedChunk> {
        match self.lock().take(node, session) {
            CopyNext::Chunk(p) => {
                self.drained.notify_waiters();
                Some(p)
            }
            _ => None,
        }
    }
}

fn stopped() -> RestoreError {
    RestoreError::cancelled("the load was stopped")
}

/// Wakes readers that wait for memory: none will be released any more.
pub(super) struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

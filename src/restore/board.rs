//! The schedule behind a lock, with waiting: between the archive reader (a thread that blocks) and
//! the sessions (tasks that await). Memory is bounded here: a piece is queued only when the budget
//! has room for it, and gives its room back when it is on its way to the server.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::plan::Plan;
use super::schedule::{Next, Schedule, Work};
use super::{Job, LoadOptions};
use crate::archive::{CustomArchive, DataSink, Piece, TocEntry};
use crate::error::RestoreError;

/// A queued piece and its room in memory.
pub(super) struct Queued {
    pub piece: Piece,
    _room: OwnedSemaphorePermit,
}

pub(super) struct Board {
    schedule: Mutex<Schedule<Queued>>,
    changed: Notify,
    /// One permit a KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
    stopped: CancellationToken,
}

impl Board {
    pub fn new(plan: Plan, options: LoadOptions) -> Self {
        let room_kib = u32::try_from(options.queue_bytes >> 10).unwrap_or(u32::MAX >> 4).max(1);
        Board {
            schedule: Mutex::new(Schedule::new(plan, options.sessions)),
            changed: Notify::new(),
            room: Arc::new(Semaphore::new(room_kib as usize)),
            room_kib,
            stopped: CancellationToken::new(),
        }
    }

    pub fn stop_on_drop(self: &Arc<Self>) -> (DropGuard, CloseOnDrop) {
        (self.stopped.clone().drop_guard(), CloseOnDrop(self.room.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Schedule<Queued>> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the schedule and wakes whoever waits for a change.
    pub fn change<T>(&self, f: impl FnOnce(&mut Schedule<Queued>) -> T) -> T {
        let out = f(&mut self.lock());
        self.changed.notify_waiters();
        out
    }

    pub fn entry_of(&self, node: usize) -> usize {
        self.lock().node(node).entry
    }

    /// Waits until `ask` has an answer.
    async fn until<T>(
        &self,
        mut ask: impl FnMut(&mut Schedule<Queued>) -> Option<T>,
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
                () = self.stopped.cancelled() => return Err(RestoreError::cancelled("the load was stopped")),
            }
        }
    }

    /// What session `id` does next; never [`Work::Wait`].
    pub async fn next_work(&self, id: usize) -> Result<Work, RestoreError> {
        self.until(|s| Some(s.next(id)).filter(|w| *w != Work::Wait)).await
    }

    /// The next piece for a lane, or `None` where the lane ends.
    pub async fn take(&self, node: usize, id: usize) -> Result<Option<Queued>, RestoreError> {
        self.until(|s| match s.take(node, id) {
            Next::Piece(p) => Some(Some(p)),
            Next::Wait => None,
            Next::Leave | Next::End => Some(None),
        })
        .await
    }

    /// A piece that is queued already.
    pub fn take_queued(&self, node: usize, id: usize) -> Option<Queued> {
        match self.lock().take(node, id) {
            Next::Piece(p) => Some(p),
            _ => None,
        }
    }
}

/// Wakes a reader that waits for room: there will be none.
pub(super) struct CloseOnDrop(Arc<Semaphore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The archive reader's end of the board.
pub(super) struct Feeder {
    board: Arc<Board>,
    job: Arc<Job>,
    node_of: HashMap<i32, usize>,
    current: usize,
    runtime: tokio::runtime::Handle,
}

impl Feeder {
    pub fn new(board: Arc<Board>, job: Arc<Job>) -> Self {
        let node_of = board.lock().data_nodes().map(|(node, e)| (job.entries[e].dump_id, node)).collect();
        Feeder { board, job, node_of, current: 0, runtime: tokio::runtime::Handle::current() }
    }

    /// Reads the archive's data to its end. Runs on a thread that may block.
    pub fn run<R: Read>(mut self, archive: CustomArchive<R>) -> Result<(), RestoreError> {
        archive.read_data(&mut self)?;
        self.board.change(Schedule::stream_ended);
        if self.job.progress.stage() == "data" {
            self.job.progress.enter("indexes");
        }
        Ok(())
    }
}

impl DataSink for Feeder {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), RestoreError> {
        let node = self.node_of.get(&entry.dump_id).copied();
        self.current = node.ok_or_else(|| RestoreError::internal("data of an entry that is not planned"))?;
        self.board.change(|s| s.begin(self.current));
        Ok(())
    }

    fn piece(&mut self, piece: Piece) -> Result<(), RestoreError> {
        let bytes = piece.len() as u64;
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, self.board.room_kib);
        let room = self.runtime.block_on(self.board.room.clone().acquire_many_owned(kib));
        let room = room.map_err(|_| RestoreError::cancelled("the load was stopped"))?;
        let splittable = !matches!(piece, Piece::Rows { ends_row: false, .. });
        let queued = Queued { piece, _room: room };
        self.board.change(|s| s.push(self.current, queued, bytes, splittable));
        self.job.progress.data_bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), RestoreError> {
        self.board.change(|s| s.end(self.current));
        if entry.desc == "TABLE DATA" {
            self.job.progress.tables_done.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

//! The queued data of one node, and the copiers that load it.

use std::collections::VecDeque;

use super::work::{CopyNext, CopyStart};
use crate::ids::SessionId;

/// From this many bytes on, a table's first copier has the table to itself; for less data that does not pay.
pub(super) const FIRST_BYTES: u64 = 192 << 10;
/// From this many bytes on, its rows are frozen. For less data, that saves less than the TRUNCATE costs without which the
/// server does not freeze: new files, and a COMMIT that waits for the disk.
pub(super) const FREEZE_BYTES: u64 = 4 << 20;
/// Up to this many bytes it stays alone even if other sessions wait.
pub(super) const ALONE_BYTES: u64 = 32 << 20;

/// Other work for the session of a copier.
#[derive(Debug, Clone, Copy)]
pub(super) struct OtherWork {
    /// Data of another node is queued.
    pub data: bool,
    /// There is such data, pre-data or a task.
    pub any: bool,
    /// Another session waits for work.
    pub has_idle_session: bool,
}

/// A chunk, and whether any copier may take the next one.
#[derive(Debug)]
struct ScheduledChunk<P> {
    chunk: P,
    splittable: bool,
}

#[derive(Debug)]
pub(super) struct DataQueue<P> {
    chunks: VecDeque<ScheduledChunk<P>>,
    /// Whether one copier loads all of the data.
    in_order: bool,
    copiers: usize,
    /// Whether one copier has the table to itself.
    alone: bool,
    /// Whether no copier has started yet.
    untouched: bool,
    /// Session that is in the middle of a row and must take the next chunk.
    holder: Option<SessionId>,
    ended: bool,
    /// Bytes queued so far: the weight of the tasks that wait for this table.
    bytes: u64,
    /// Rows that the server has counted.
    rows: u64,
}

impl<P> DataQueue<P> {
    pub(super) fn new(in_order: bool) -> Self {
        DataQueue {
            chunks: VecDeque::new(),
            in_order,
            copiers: 0,
            alone: false,
            untouched: true,
            holder: None,
            ended: false,
            bytes: 0,
            rows: 0,
        }
    }

    pub(super) fn push(&mut self, chunk: P, weight: u64, splittable: bool) {
        self.bytes += weight;
        self.chunks.push_back(ScheduledChunk { chunk, splittable });
    }

    /// Counts data that an earlier attempt has loaded, so that no copier finds an empty table.
    pub(super) fn preset(&mut self, bytes: u64, rows: u64) {
        self.bytes += bytes;
        self.rows += rows;
        self.untouched &= bytes == 0 && rows == 0;
    }

    /// All data has arrived; false if that was known.
    pub(super) fn end(&mut self) -> bool {
        !std::mem::replace(&mut self.ended, true)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.ended && self.copiers == 0 && self.chunks.is_empty()
    }

    /// Whether a session can take chunks that no copier is about to take.
    pub(super) fn can_join(&self, session: SessionId) -> bool {
        let may_share = self.chunks.len() >= 2 && !self.in_order;
        let is_free = !self.alone && self.is_free_for(session);
        is_free && !self.chunks.is_empty() && (self.copiers == 0 || may_share)
    }

    fn is_free_for(&self, session: SessionId) -> bool {
        self.holder.is_none_or(|holder| holder == session)
    }

    /// Adds a copier. Only of a table where it may use FREEZE can it have the table to itself.
    pub(super) fn join(&mut self, can_freeze: bool) -> CopyStart {
        self.copiers += 1;
        let is_first = std::mem::take(&mut self.untouched);
        self.alone = is_first && can_freeze && self.bytes >= FIRST_BYTES;
        // While data arrives, there may be any amount of it.
        let is_small = self.ended && self.bytes < FREEZE_BYTES;
        match (self.alone, is_small) {
            (false, _) => CopyStart::Shared,
            (true, true) => CopyStart::Alone,
            (true, false) => CopyStart::Freezing,
        }
    }

    /// A copier's COPY is complete on the server, with this many rows.
    pub(super) fn leave(&mut self, rows: u64) {
        self.rows += rows;
        self.copiers -= 1;
        self.alone = false;
    }

    /// The next chunk for the copier of `session`.
    pub(super) fn take(&mut self, session: SessionId, other: OtherWork) -> CopyNext<P> {
        if !self.is_free_for(session) {
            return CopyNext::leave_or_wait(other.any);
        }
        if other.has_idle_session && self.should_share() {
            return CopyNext::Leave;
        }
        match self.chunks.pop_front() {
            Some(ScheduledChunk { chunk, splittable }) => {
                self.holder = (!splittable).then_some(session);
                CopyNext::Chunk(chunk)
            }
            None if self.ended => CopyNext::End,
            None => CopyNext::leave_or_wait(self.may_leave(other)),
        }
    }

    /// Whether a copier that has the table to itself should let others in.
    fn should_share(&self) -> bool {
        self.alone && self.holder.is_none() && self.bytes >= ALONE_BYTES
    }

    /// The last copier waits for more chunks, unless data is queued elsewhere.
    fn may_leave(&self, other: OtherWork) -> bool {
        let is_needed_elsewhere = other.data || (self.copiers > 1 && other.any);
        !self.in_order && self.holder.is_none() && is_needed_elsewhere
    }
}

//! The rows of a record that has not begun: while an attempt has not run for as long as makes its work worth keeping, they are
//! in memory, and its database has no trace of them.
//!
//! Each transaction commits within a turn: it asks for its number in the same flight as COMMIT, and once that is answered,
//! its row is kept with this number. Beginning the record takes all turns, so that no transaction is between the two: each
//! one is among the rows that are then written together, or writes its own row itself. A COMMIT whose answer was lost
//! leaves open which of them it is, and then nothing is written: the next attempt begins from the start. What ends soon is done
//! within a turn, so that its statements and COMMIT are one flight: the end of a COPY, and tasks over little data. What may
//! take long, such as the index of a large table, takes its turn when it is done: the record does not wait for it.
//!
//! While somebody waits for all turns, those with an open transaction are let through from time to time, because others may wait
//! for its locks. Those that have not begun one are not: if many tasks took seconds each, all turns would never be free.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, sleep, timeout};

/// Bytes of rows from which on the record begins early. A row says what a transaction did, and not with which values.
const MOST: usize = 8 << 20;
/// What a row takes beside its text.
const ROW: usize = 96;
/// How long commits are kept from beginning at first, until those that have begun are over, and at most.
const PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_secs(16);

/// Ends a transaction, and returns its number before that.
pub(crate) const COMMIT_WITH_NUMBER: &str = "SELECT pg_catalog.txid_current(); COMMIT";

/// A row that is in memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HeldRow {
    pub(crate) lane: i32,
    pub(crate) n: i32,
    pub(crate) xid: i64,
    pub(crate) body: String,
    at: Instant,
}

impl HeldRow {
    /// How long ago it was committed.
    pub(crate) fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

#[derive(Default)]
struct Rows {
    all: Vec<HeldRow>,
    bytes: usize,
}

/// The rows of a record that has not begun.
#[derive(Default)]
pub(crate) struct HeldRows {
    turns: Arc<RwLock<()>>,
    /// Whoever has not begun its transaction waits for its turn with this. While somebody waits for all turns, nobody has it.
    beginning: RwLock<()>,
    /// Rows go here. It changes only while somebody has all turns.
    is_active: AtomicBool,
    is_lost: AtomicBool,
    rows: Mutex<Rows>,
    full: Notify,
}

impl HeldRows {
    /// For a record that begins later.
    pub(crate) fn active() -> Arc<Self> {
        Arc::new(HeldRows {
            is_active: AtomicBool::new(true),
            ..HeldRows::default()
        })
    }

    /// Whether rows are kept here. Without a turn, this may change at any time, but only to false.
    pub(crate) fn is_active(&self) -> bool {
        self.is_active.load(Acquire)
    }

    /// A turn to begin a transaction in and to commit it; `None` if rows are not kept here. Whoever asks has no locks on the
    /// server: it waits until nobody wants all turns.
    pub(crate) async fn turn_to_begin(self: &Arc<Self>) -> Option<HeldCommit> {
        if !self.is_active() {
            return None;
        }
        let _beginning = self.beginning.read().await;
        self.turn().await
    }

    /// A turn to commit in; `None` if rows are not kept here.
    pub(crate) async fn turn(self: &Arc<Self>) -> Option<HeldCommit> {
        if !self.is_active() {
            return None;
        }
        let turn = self.turns.clone().read_owned().await;
        // Whoever had all of them may have begun the record.
        self.is_active().then(|| HeldCommit {
            held: self.clone(),
            _turn: turn,
            answer: Mutex::new(CommitAnswer::NotAsked),
        })
    }

    /// All turns: nobody commits until this is dropped. Whoever has a turn may wait on the server for locks of somebody who
    /// waits for a turn to commit, and goes first: now and then, those who do are let through.
    pub(crate) async fn all_turns(&self) -> OwnedRwLockWriteGuard<()> {
        if let Ok(all) = self.turns.clone().try_write_owned() {
            return all;
        }
        let _nobody_begins = self.beginning.write().await;
        let mut patience = PATIENCE;
        loop {
            let all = timeout(patience, self.turns.clone().write_owned()).await;
            if let Ok(all) = all {
                return all;
            }
            sleep(PATIENCE).await;
            patience = (patience * 2).min(MOST_PATIENCE);
        }
    }

    /// From here on, no rows are kept here. Whoever sees that also sees what was stored before.
    pub(crate) fn end(&self, _all: &OwnedRwLockWriteGuard<()>) {
        *self.rows.lock() = Rows::default();
        self.is_active.store(false, Release);
    }

    /// The rows so far.
    pub(crate) fn rows(&self, _all: &OwnedRwLockWriteGuard<()>) -> Vec<HeldRow> {
        self.rows.lock().all.clone()
    }

    /// Whether some transaction is perhaps committed, and not among the rows.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Relaxed)
    }

    /// Returns when there are as many rows as may be in memory.
    pub(crate) async fn filled(&self) {
        self.full.notified().await;
    }

    /// Adds the row of a transaction that was committed in this turn.
    pub(crate) fn add(&self, turn: &HeldCommit, (lane, n): (i32, i32), body: &str) {
        let Some(xid) = turn.take() else {
            self.is_lost.store(true, Relaxed);
            return;
        };
        let mut rows = self.rows.lock();
        rows.bytes += body.len() + ROW;
        rows.all.push(HeldRow {
            lane,
            n,
            xid,
            body: body.to_owned(),
            at: Instant::now(),
        });
        if rows.bytes >= MOST {
            self.full.notify_one();
        }
        // Tests begin a record as if that were so.
        fail::fail_point!("work.filled", |_| self.full.notify_one());
    }
}

/// What is known of a COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommitAnswer {
    NotAsked,
    /// It was perhaps sent.
    Unknown,
    /// With this number.
    Committed(i64),
    /// The server has said that the transaction has failed.
    Undone,
    /// Its row is in memory.
    Kept,
}

/// A turn to commit one transaction whose row is kept in memory.
pub(crate) struct HeldCommit {
    held: Arc<HeldRows>,
    _turn: OwnedRwLockReadGuard<()>,
    answer: Mutex<CommitAnswer>,
}

impl HeldCommit {
    /// COMMIT is about to be sent.
    pub(crate) fn asked(&self) {
        *self.answer.lock() = CommitAnswer::Unknown;
    }

    /// The server has committed the transaction with this number; `None`: it has not said which.
    pub(crate) fn committed(&self, xid: Option<i64>) {
        if let Some(xid) = xid {
            *self.answer.lock() = CommitAnswer::Committed(xid);
        }
    }

    /// The number with which it was committed, for its row.
    fn take(&self) -> Option<i64> {
        let mut answer = self.answer.lock();
        let CommitAnswer::Committed(xid) = *answer else {
            return None;
        };
        *answer = CommitAnswer::Kept;
        Some(xid)
    }

    /// The server has refused to commit it, and goes on with the session.
    pub(crate) fn undone(&self) {
        *self.answer.lock() = CommitAnswer::Undone;
    }
}

impl Drop for HeldCommit {
    fn drop(&mut self) {
        // Also if whoever was waiting for the answer has been stopped. The turn ends only after this.
        match *self.answer.lock() {
            CommitAnswer::Unknown | CommitAnswer::Committed(_) => {
                self.held.is_lost.store(true, Relaxed)
            }
            CommitAnswer::NotAsked | CommitAnswer::Undone | CommitAnswer::Kept => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn turn(held: &Arc<HeldRows>) -> HeldCommit {
        held.turn().now_or_never().unwrap().unwrap()
    }

    fn rows(held: &Arc<HeldRows>) -> Vec<(i32, i32, i64)> {
        let all = held.all_turns().now_or_never().unwrap();
        let rows = held.rows(&all);
        rows.iter().map(|row| (row.lane, row.n, row.xid)).collect()
    }

    /// A transaction that is between COMMIT and its answer when the record begins would be in no row.
    #[tokio::test(start_paused = true)]
    async fn the_record_begins_when_nobody_commits() {
        let held = HeldRows::active();
        let (first, second) = (turn(&held), turn(&held));
        let mut all = Box::pin(held.all_turns());
        assert!(all.as_mut().now_or_never().is_none());
        first.asked();
        first.committed(Some(7));
        held.add(&first, (0, 1), "{}");
        drop(first);
        assert!(all.as_mut().now_or_never().is_none());
        // Whoever comes now waits, and then writes its own row.
        let mut late = Box::pin(held.turn());
        assert!(late.as_mut().now_or_never().is_none());
        drop(second);
        let all = all.now_or_never().unwrap();
        assert_eq!(held.rows(&all).len(), 1);
        held.end(&all);
        assert!(late.as_mut().now_or_never().is_none());
        drop(all);
        assert!(late.now_or_never().unwrap().is_none());
        assert!(!held.is_lost() && !held.is_active());
    }

    /// The server does not know that one session waits for another one's turn.
    #[tokio::test(start_paused = true)]
    async fn a_turn_that_waits_for_another_one_does_not_stop_everything() {
        let held = HeldRows::active();
        let first = turn(&held);
        let ends = async {
            // It is asked for after all of them.
            drop(held.turn().await);
            drop(first);
        };
        let both = async { futures::join!(held.all_turns(), ends) };
        assert!(timeout(PATIENCE * 10, both).await.is_ok());
    }

    /// If tasks took turns one after another, the record would never begin, and all work would be lost with the worker.
    #[tokio::test(start_paused = true)]
    async fn nobody_begins_before_the_record_does() {
        let held = HeldRows::active();
        let first = turn(&held);
        let mut all = Box::pin(held.all_turns());
        assert!(all.as_mut().now_or_never().is_none());
        let mut task = Box::pin(held.turn_to_begin());
        // Whoever has locks is let through.
        let commit = held.turn();
        tokio::select! {
            biased;
            _ = &mut all => panic!("somebody has a turn"),
            _ = &mut task => panic!("it waits for the record"),
            turn = commit => assert!(turn.is_some()),
        }
        drop(first);
        let all = all.await;
        held.end(&all);
        drop(all);
        assert!(task.await.is_none());
    }

    #[test]
    fn only_a_commit_without_an_answer_is_lost() {
        type End = fn(&HeldRows, &HeldCommit);
        let cases: [(&str, End, bool, usize); 6] = [
            ("nothing was sent", |_, _| {}, false, 0),
            (
                "committed",
                |held, turn| {
                    turn.asked();
                    turn.committed(Some(9));
                    held.add(turn, (3, 1), "{}");
                },
                false,
                1,
            ),
            (
                "refused",
                |_, turn| {
                    turn.asked();
                    turn.undone();
                },
                false,
                0,
            ),
            ("no answer", |_, turn| turn.asked(), true, 0),
            (
                "stopped behind the answer",
                |_, turn| {
                    turn.asked();
                    turn.committed(Some(9));
                },
                true,
                0,
            ),
            (
                "no number",
                |held, turn| {
                    turn.asked();
                    turn.committed(None);
                    held.add(turn, (3, 1), "{}");
                },
                true,
                0,
            ),
        ];
        for (what, end, is_lost, count) in cases {
            let held = HeldRows::active();
            let turn = turn(&held);
            end(&held, &turn);
            drop(turn);
            assert_eq!(held.is_lost(), is_lost, "{what}");
            assert_eq!(rows(&held).len(), count, "{what}");
        }
    }

    #[test]
    fn rows_are_in_memory_as_they_were_committed() {
        let held = HeldRows::active();
        for (place, xid) in [((1, 1), 100), ((0, 1), 101), ((1, 2), 105)] {
            let turn = turn(&held);
            turn.asked();
            turn.committed(Some(xid));
            held.add(&turn, place, "{}");
        }
        assert_eq!(rows(&held), [(1, 1, 100), (0, 1, 101), (1, 2, 105)]);
        assert!(held.filled().now_or_never().is_none());
    }

    #[test]
    fn a_record_that_fills_the_memory_begins() {
        let held = HeldRows::active();
        let turn = turn(&held);
        turn.asked();
        turn.committed(Some(1));
        held.add(&turn, (0, 1), &"x".repeat(MOST));
        assert!(held.filled().now_or_never().is_some());
    }

    #[test]
    fn a_record_that_has_begun_keeps_nothing() {
        let held = Arc::new(HeldRows::default());
        assert!(held.turn().now_or_never().unwrap().is_none());
    }
}

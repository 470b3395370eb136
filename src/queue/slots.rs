//! How many messages of one subscription are worked on. The server counts messages by stream, and what
//! a stream may hand out is fixed when it is opened: so a new one is opened whenever more could come than
//! the present one is good for.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::Notify;

#[derive(Default)]
struct SlotState {
    /// Messages in work, of all streams.
    in_flight: usize,
    /// The newest stream, and what it may still hand out beyond what it has handed out.
    stream: u64,
    /// Slots that became free and that the newest stream knows nothing of.
    regained: usize,
}

struct SharedSlots {
    total: usize,
    state: Mutex<SlotState>,
    changed: Notify,
}

/// The slots of a subscription.
#[derive(Clone)]
pub(super) struct Slots(Arc<SharedSlots>);

/// A message in work, until it is dropped or rests.
pub(super) struct Slot {
    slots: Slots,
    stream: u64,
    rests: bool,
}

impl Slots {
    pub fn new(total: usize) -> Self {
        Slots(Arc::new(SharedSlots {
            total,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.0.state.lock()
    }

    async fn until<T>(&self, ask: impl Fn(&mut SlotState) -> Option<T>) -> T {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(answer) = ask(&mut self.lock()) {
                return answer;
            }
            changed.await;
        }
    }

    /// Waits until a message could be worked on. A new stream, and how many it may hand out at once.
    pub async fn open(&self) -> (u64, usize) {
        let total = self.0.total;
        self.until(|s| {
            let free = total.saturating_sub(s.in_flight);
            (free > 0).then(|| {
                s.stream += 1;
                s.regained = 0;
                (s.stream, free)
            })
        })
        .await
    }

    /// Waits until more could come than the newest stream hands out.
    pub async fn regained(&self) {
        self.until(|s| (s.regained > 0).then_some(())).await;
    }

    /// A message of `stream` is in work from now on.
    pub fn take(&self, stream: u64) -> Slot {
        self.lock().in_flight += 1;
        Slot {
            slots: self.clone(),
            stream,
            rests: false,
        }
    }

    fn free(&self, told: bool) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        if !told {
            state.regained += 1;
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl Slot {
    /// The message is held, and not in work any more.
    pub fn rest(&mut self) {
        if !std::mem::replace(&mut self.rests, true) {
            self.slots.free(false);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.rests {
            // The stream that handed it out counts it down by itself.
            let is_newest = self.slots.lock().stream == self.stream;
            self.slots.free(is_newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_message_that_rests_makes_way_for_another() {
        let slots = Slots::new(2);
        let (first, free) = slots.open().await;
        assert_eq!(free, 2);
        let (mut a, b) = (slots.take(first), slots.take(first));
        assert!(slots.open().now_or_never().is_none() && slots.regained().now_or_never().is_none());
        a.rest();
        a.rest();
        slots.regained().now_or_never().expect("a slot");
        let (second, free) = slots.open().now_or_never().expect("a stream");
        assert_eq!(free, 1);
        let c = slots.take(second);
        // What an older stream had comes back to the newest only by another one.
        drop(b);
        slots.regained().now_or_never().expect("a slot");
        let (third, free) = slots.open().now_or_never().expect("a stream");
        assert_eq!(free, 1);
        // The newest stream knows of its own.
        let d = slots.take(third);
        drop(d);
        assert!(slots.regained().now_or_never().is_none());
        drop((a, c));
        assert_eq!(slots.open().now_or_never().expect("a stream").1, 2);
    }
}

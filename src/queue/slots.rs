//! Limits how many messages of one subscription are processed at once. The server counts messages per
//! stream, and a stream's limit is fixed when it is opened. Therefore a new stream is opened whenever the
//! current one's limit is lower than what the worker could take.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::Notify;

#[derive(Default)]
struct SlotState {
    /// Messages being processed, of all streams.
    in_flight: usize,
    /// Number of the newest stream.
    stream: u64,
    /// Slots that became free and that the newest stream's limit does not include.
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

/// The slot of one message; freed when it is dropped or by [`MessageSlot::rest`].
pub(super) struct MessageSlot {
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

    /// Waits until a slot is free. Returns the number of a new stream and its limit of messages.
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

    /// Waits until slots are free that the newest stream's limit does not include.
    pub async fn regained(&self) {
        self.until(|s| (s.regained > 0).then_some(())).await;
    }

    /// Takes a slot for a message of `stream`.
    pub fn take(&self, stream: u64) -> MessageSlot {
        self.lock().in_flight += 1;
        MessageSlot {
            slots: self.clone(),
            stream,
            rests: false,
        }
    }

    fn free(&self, stream_knows: bool) {
        let mut state = self.lock();
        state.in_flight = state.in_flight.saturating_sub(1);
        if !stream_knows {
            state.regained += 1;
        }
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl MessageSlot {
    /// Frees the slot while the message is still held.
    pub fn rest(&mut self) {
        if !std::mem::replace(&mut self.rests, true) {
            self.slots.free(false);
        }
    }
}

impl Drop for MessageSlot {
    fn drop(&mut self) {
        if !self.rests {
            // The server itself frees the message's place in the stream that delivered it.
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
    async fn a_resting_message_frees_its_slot() {
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
        // The slot of an older stream's message becomes usable only through another new stream.
        drop(b);
        slots.regained().now_or_never().expect("a slot");
        let (third, free) = slots.open().now_or_never().expect("a stream");
        assert_eq!(free, 1);
        // Slots of the newest stream's own messages need no new stream.
        let d = slots.take(third);
        drop(d);
        assert!(slots.regained().now_or_never().is_none());
        drop((a, c));
        assert_eq!(slots.open().now_or_never().expect("a stream").1, 2);
    }
}

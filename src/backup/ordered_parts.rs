//! Downloads a long range by several streams, each reading a part of it, and puts the parts back in order. How many
//! streams there are, [`StreamTuner`] decides while it runs. One stream reads all that is left in one request.
//!
//! Nothing is read further ahead of the reader than the window, so what waits here and in the channel takes no more
//! memory than that, whichever part is late; and the part that the reader needs next is always within it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, MissedTickBehavior};

use super::resuming_range::{RangeContext, RangeEnd, ResumingRange};
use super::stream_tuner::{Counters, MAX_STREAMS, StreamTuner};
use crate::error::StorageError;

/// Shorter ranges are read by one stream: it would be done before the second one has brought anything.
pub(super) const SHORTEST: u64 = 16 << 20;

/// How far one stream reads ahead of the reader, in bytes, and each further one more.
const WINDOW: u64 = 8 << 20;
const WINDOW_OF_EACH: u64 = 1 << 20;

/// How often the tuner is asked.
const TICK: Duration = Duration::from_millis(50);

/// How far so many streams read ahead of the reader, in bytes.
fn window(streams: usize) -> u64 {
    WINDOW + (streams as u64 - 1) * WINDOW_OF_EACH
}

/// How long the parts of so many streams are, in bytes. All of them fit into the window together, so that no stream
/// waits for another one.
fn part_length(streams: usize) -> u64 {
    match streams {
        1 => u64::MAX,
        n => window(n) / n as u64,
    }
}

/// Identifies a part: its place in the order.
type PartId = usize;

/// A part that was begun.
struct Part {
    /// Where its next byte is.
    received: u64,
    end: RangeEnd,
    /// What was received and not handed over yet.
    pieces: VecDeque<Bytes>,
}

impl Part {
    fn is_used_up(&self) -> bool {
        self.pieces.is_empty() && self.received == self.end.get()
    }
}

/// The parts of a range, in order.
struct PartQueue {
    parts: VecDeque<Part>,
    /// The part at the front.
    first: PartId,
    /// Where the next part begins, and where the range ends.
    next: u64,
    end: u64,
    /// Bytes received, of all parts.
    received: u64,
}

impl PartQueue {
    fn new((begin, end): (u64, u64)) -> Self {
        PartQueue {
            parts: VecDeque::new(),
            first: 0,
            next: begin,
            end,
            received: 0,
        }
    }

    /// The next part, of at most `length` bytes, and where it begins; `None` once all have begun.
    fn begin(&mut self, length: u64) -> Option<(PartId, u64, RangeEnd)> {
        if self.next == self.end {
            return None;
        }
        let (id, begin) = (self.first + self.parts.len(), self.next);
        self.next = self.end.min(begin.saturating_add(length));
        let end = RangeEnd::at(self.next);
        self.parts.push_back(Part {
            received: begin,
            end: end.clone(),
            pieces: VecDeque::new(),
        });
        Some((id, begin, end))
    }

    /// Leaves to other streams what the last part, if it was begun as all that is left, has to read after the next
    /// `length` bytes.
    fn shorten_last(&mut self, length: u64) {
        let Some(last) = self.parts.back_mut() else {
            return;
        };
        let end = last.received.saturating_add(length);
        if end < last.end.get() {
            last.end.bring_forward(end);
            self.next = end;
        }
    }

    fn receive(&mut self, id: PartId, piece: Bytes) {
        let part = id.checked_sub(self.first);
        if let Some(part) = part.and_then(|at| self.parts.get_mut(at)) {
            part.received += piece.len() as u64;
            self.received += piece.len() as u64;
            part.pieces.push_back(piece);
        }
    }

    fn is_ready(&self) -> bool {
        self.parts.front().is_some_and(|p| !p.pieces.is_empty())
    }

    /// The next bytes in order, if they are there.
    fn pop(&mut self) -> Option<Bytes> {
        let first = self.parts.front_mut()?;
        let piece = first.pieces.pop_front();
        if first.is_used_up() {
            self.parts.pop_front();
            self.first += 1;
        }
        piece
    }

    /// Whether every byte was received and handed over.
    fn is_complete(&self) -> bool {
        self.next == self.end && self.parts.is_empty()
    }

    /// Whether so few bytes are missing that a further stream would not help any more.
    fn is_nearly_received(&self, begin: u64) -> bool {
        self.end - begin - self.received < 2 * window(MAX_STREAMS)
    }
}

/// What a stream says: bytes of its part; `None`, as the last, when the part is complete.
type PartEvent = (PartId, Result<Option<Bytes>, StorageError>);

/// The next bytes of a part, once they are within `ahead` bytes of the reader, which began at `origin`.
async fn next_within(
    range: &mut ResumingRange<'_>,
    context: RangeContext<'_>,
    (origin, ahead): (u64, u64),
) -> Result<Option<Bytes>, StorageError> {
    if !range.has_all() {
        let position = range.offset() - origin;
        context.outlet.wait_for_reader(position, ahead).await?;
    }
    range.next().await
}

/// What the stream of a part says, which ends after an error.
fn read_part<'a>(
    id: PartId,
    range: ResumingRange<'a>,
    context: RangeContext<'a>,
    within: (u64, u64),
) -> BoxStream<'a, PartEvent> {
    let events = futures::stream::unfold(Some(range), move |range| async move {
        let mut range = range?;
        let event = next_within(&mut range, context, within).await;
        let rest = matches!(event, Ok(Some(_))).then_some(range);
        Some(((id, event), rest))
    });
    events.boxed()
}

/// The streams of one download.
struct Streams<'a> {
    context: RangeContext<'a>,
    begin: u64,
    queue: PartQueue,
    reading: SelectAll<BoxStream<'a, PartEvent>>,
    /// How many parts are being read.
    active: usize,
    tuner: StreamTuner,
    begun: Instant,
    /// The further streams that may be opened by all downloads of the store, and those that this one took.
    spare: &'a Semaphore,
    taken: Vec<SemaphorePermit<'a>>,
}

impl<'a> Streams<'a> {
    fn wanted(&self) -> usize {
        1 + self.taken.len()
    }

    /// Begins parts until there are as many streams as are wanted.
    fn begin_parts(&mut self) {
        let wanted = self.wanted();
        self.queue.shorten_last(part_length(wanted));
        while self.active < wanted
            && let Some((id, begin, end)) = self.queue.begin(part_length(wanted))
        {
            let range = ResumingRange::new(self.context, begin, end);
            let within = (self.begin, window(wanted));
            let part = read_part(id, range, self.context, within);
            self.reading.push(part);
            self.active += 1;
        }
    }

    fn receive(&mut self, (id, event): PartEvent) -> Result<(), StorageError> {
        match event? {
            Some(piece) => self.queue.receive(id, piece),
            None => self.active -= 1,
        }
        Ok(())
    }

    /// Takes or gives back streams as the tuner says.
    fn tune(&mut self) {
        let now = Counters {
            at: self.begun.elapsed(),
            received: self.queue.received,
            waited: self.context.outlet.waited(),
        };
        let before = self.wanted();
        let most = if self.queue.is_nearly_received(self.begin) {
            before
        } else {
            before + self.spare.available_permits()
        };
        let streams = self.tuner.observe(now, most);
        self.taken.truncate(streams - 1);
        while self.wanted() < streams
            && let Ok(permit) = self.spare.try_acquire()
        {
            self.taken.push(permit);
        }
        if self.wanted() != before {
            tracing::debug!(streams = self.wanted(), "streams of the download");
        }
    }
}

/// Sends the bytes from `begin` to `end`, in order; `Ok` only if all of them arrived.
///
/// # Errors
/// As [`ResumingRange::next`], of whichever stream fails first.
pub(super) async fn pump_parts(
    context: RangeContext<'_>,
    (begin, end): (u64, u64),
    spare: &Semaphore,
) -> Result<(), StorageError> {
    let mut streams = Streams {
        context,
        begin,
        queue: PartQueue::new((begin, end)),
        reading: SelectAll::new(),
        active: 0,
        tuner: StreamTuner::default(),
        begun: Instant::now(),
        spare,
        taken: vec![],
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        streams.begin_parts();
        if streams.active == 0 && streams.queue.is_complete() {
            return Ok(());
        }
        tokio::select! {
            place = context.outlet.reserve(), if streams.queue.is_ready() => {
                let place = place?;
                if let Some(piece) = streams.queue.pop() {
                    place.send(Ok(piece));
                }
            }
            Some(event) = streams.reading.next(), if streams.active > 0 => {
                streams.receive(event)?;
            }
            _ = ticks.tick() => streams.tune(),
        }
    }
}

#[cfg(test)]
mod tests;

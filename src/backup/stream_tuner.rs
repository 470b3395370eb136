//! Decides how many streams download one object, by what they deliver. Pure: it is told the time and the counters.
//!
//! It begins with one stream. Where the reader waits for bytes, it adds one and keeps it if the rate grows by a clear
//! margin, or if the reader no longer waits. Otherwise it takes the stream back and tries again later, because a link
//! may change. Where the reader does not wait, more streams would help nobody, and nothing changes.

use std::time::Duration;

/// Most streams of one download.
pub(super) const MAX_STREAMS: usize = 8;

/// How long a stream that was added is not measured: it connects, and waits for its first byte.
const SETTLE: Duration = Duration::from_millis(200);
/// How long the rate is measured before each decision.
const MEASURE: Duration = Duration::from_millis(300);
/// How long to wait before the next try after a stream did not help; doubled each time up to the longest.
const FIRST_REST: Duration = Duration::from_secs(5);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// A reader that waits for at most this share of the time is itself the limit.
const NEGLIGIBLE_WAIT: f64 = 0.05;
/// A stream is kept if it brings this share of what the others give on average.
const SHARE_OF_OTHERS: f64 = 0.4;

/// What a download has done until a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// Time since its beginning.
    pub at: Duration,
    /// Bytes received, by all streams.
    pub received: u64,
    /// How long its reader has waited for bytes.
    pub waited: Duration,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is measured before this time.
    Settling(Duration),
    /// The rate is measured from here.
    Measuring(Counters),
}

/// See the module.
#[derive(Debug)]
pub(super) struct StreamTuner {
    streams: usize,
    phase: Phase,
    /// Bytes per second before a stream was added of which it is not known yet whether it helps.
    before: Option<f64>,
    rest: Duration,
}

impl Default for StreamTuner {
    fn default() -> Self {
        StreamTuner {
            streams: 1,
            phase: Phase::Settling(SETTLE),
            before: None,
            rest: FIRST_REST,
        }
    }
}

impl StreamTuner {
    /// The number of streams from now on: at least 1, and not more than before if that is `most` or more already.
    pub(super) fn observe(&mut self, now: Counters, most: usize) -> usize {
        match self.phase {
            // Before the first byte, more streams would only wait, too.
            Phase::Settling(until) if now.at >= until && now.received > 0 => {
                self.phase = Phase::Measuring(now);
            }
            Phase::Measuring(from) if now.at >= from.at + MEASURE => self.decide(from, now, most),
            Phase::Settling(_) | Phase::Measuring(_) => {}
        }
        self.streams
    }

    fn decide(&mut self, from: Counters, now: Counters, most: usize) {
        let seconds = (now.at - from.at).as_secs_f64();
        let rate = (now.received - from.received) as f64 / seconds;
        let waited = now.waited.saturating_sub(from.waited).as_secs_f64() / seconds;
        let is_waiting = waited > NEGLIGIBLE_WAIT;
        self.phase = Phase::Measuring(now);
        if let Some(before) = self.before.take() {
            let others = (self.streams - 1) as f64;
            if is_waiting && rate <= before * (1.0 + SHARE_OF_OTHERS / others) {
                self.streams -= 1;
                self.phase = Phase::Settling(now.at + self.rest);
                self.rest = (self.rest * 2).min(LONGEST_REST);
                return;
            }
            self.rest = FIRST_REST;
        }
        // Where nothing comes at all, there is no rate to compare with.
        if is_waiting && rate > 0.0 && self.streams < most.min(MAX_STREAMS) {
            self.streams += 1;
            self.before = Some(rate);
            self.phase = Phase::Settling(now.at + SETTLE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);
    const MB: f64 = 1e6;

    /// A link and a reader, in MB/s.
    #[derive(Clone, Copy)]
    struct SimulatedLink {
        per_stream: f64,
        together: f64,
        reader: f64,
    }

    struct TunerSimulation {
        tuner: StreamTuner,
        now: Counters,
        streams: usize,
        most_seen: usize,
        added: usize,
    }

    impl TunerSimulation {
        fn new() -> Self {
            TunerSimulation {
                tuner: StreamTuner::default(),
                now: Counters::default(),
                streams: 1,
                most_seen: 1,
                added: 0,
            }
        }

        fn run(&mut self, seconds: u64, link: SimulatedLink) -> usize {
            for _ in 0..seconds * 20 {
                let offered = (self.streams as f64 * link.per_stream).min(link.together);
                let rate = offered.min(link.reader);
                self.now.at += TICK;
                self.now.received += (rate * MB * TICK.as_secs_f64()) as u64;
                self.now.waited += TICK.mul_f64(1.0 - rate / link.reader);
                let streams = self.tuner.observe(self.now, usize::MAX);
                self.added += usize::from(streams > self.streams);
                self.streams = streams;
                self.most_seen = self.most_seen.max(self.streams);
            }
            self.streams
        }
    }

    const FAST: f64 = 10_000.0;

    #[test]
    fn streams_are_added_while_they_help() {
        for (per_stream, together, reader, wanted) in [
            // As many as the link carries.
            (50.0, 200.0, FAST, 4),
            (50.0, 100.0, FAST, 2),
            (50.0, FAST, FAST, MAX_STREAMS),
            // As many as the reader takes.
            (50.0, FAST, 190.0, 4),
            (50.0, FAST, 60.0, 2),
            // One, if the link or the reader is the limit.
            (50.0, 50.0, FAST, 1),
            (50.0, FAST, 40.0, 1),
        ] {
            let link = SimulatedLink {
                per_stream,
                together,
                reader,
            };
            let mut download = TunerSimulation::new();
            download.run(6, link);
            // While it tries another one, it may have one more.
            let steady = (0..4).map(|_| download.run(1, link)).min();
            assert_eq!(steady, Some(wanted), "{per_stream} {together} {reader}");
        }
    }

    #[test]
    fn the_second_stream_comes_within_a_second() {
        let link = SimulatedLink {
            per_stream: 50.0,
            together: FAST,
            reader: FAST,
        };
        assert!(TunerSimulation::new().run(1, link) >= 2);
    }

    #[test]
    fn nothing_is_tried_while_the_reader_is_the_limit() {
        let link = SimulatedLink {
            per_stream: 50.0,
            together: FAST,
            reader: 49.0,
        };
        let mut download = TunerSimulation::new();
        download.run(120, link);
        assert_eq!(download.most_seen, 1);
        // Once it is not any more, it goes on.
        let faster = SimulatedLink {
            reader: 140.0,
            ..link
        };
        assert_eq!(download.run(3, faster), 3);
    }

    /// Streams that do not help are tried ever more rarely.
    #[test]
    fn a_link_that_is_full_is_rarely_tried() {
        let link = SimulatedLink {
            per_stream: 50.0,
            together: 50.0,
            reader: FAST,
        };
        let mut download = TunerSimulation::new();
        assert_eq!(download.run(600, link), 1);
        assert_eq!(download.most_seen, 2);
        assert!((10..=14).contains(&download.added), "{}", download.added);
        // A link that has become wider is found.
        let wider = SimulatedLink {
            together: 100.0,
            ..link
        };
        download.run(70, wider);
        let steady = (0..3).map(|_| download.run(1, wider)).min();
        assert_eq!(steady, Some(2));
    }

    #[test]
    fn no_stream_is_added_while_nothing_comes_or_there_is_no_room() {
        let mut tuner = StreamTuner::default();
        for i in 1..100 {
            let now = Counters {
                at: TICK * i,
                received: 0,
                waited: TICK * i,
            };
            assert_eq!(tuner.observe(now, usize::MAX), 1);
        }
        for i in 100..300 {
            let now = Counters {
                at: TICK * i,
                received: u64::from(i) << 20,
                waited: TICK * i,
            };
            assert_eq!(tuner.observe(now, 1), 1);
        }
        // In an outage of the link, no rate says what one more would bring.
        let link = SimulatedLink {
            per_stream: 50.0,
            together: 50.0,
            reader: 50.0,
        };
        let outage = SimulatedLink {
            per_stream: 0.0,
            ..link
        };
        let mut download = TunerSimulation::new();
        download.run(1, link);
        assert_eq!(download.run(60, outage), 1);
        assert!(download.added <= 1);
    }
}

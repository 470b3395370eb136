//! Exponential backoff with full jitter: each delay is random between zero and a bound that doubles.

use std::time::Duration;

/// The delays between the attempts of one operation.
#[derive(Debug, Clone)]
pub struct Backoff {
    bound: Duration,
    max: Duration,
}

impl Backoff {
    /// The first delay is at most `first`; none is longer than `max`.
    pub fn new(first: Duration, max: Duration) -> Self {
        Backoff {
            bound: first.min(max),
            max,
        }
    }

    /// The delay before the next attempt; its bound doubles with every call.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.bound.mul_f64(fastrand::f64());
        self.bound = (self.bound * 2).min(self.max);
        delay
    }

    /// The delay after `failures` consecutive failures, for callers that keep no state.
    pub fn after(failures: u32, first: Duration, max: Duration) -> Duration {
        let factor = 1u32 << failures.saturating_sub(1).min(20);
        Backoff::new(first.saturating_mul(factor), max).next_delay()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_bounded_and_the_bound_doubles() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..200 {
            let mut b = Backoff::new(first, max);
            for bound in [100, 200, 400, 800, 1000, 1000] {
                assert!(b.next_delay() <= Duration::from_millis(bound));
            }
            assert!(Backoff::after(3, first, max) <= Duration::from_millis(400));
            assert!(Backoff::after(u32::MAX, first, max) <= max);
        }
    }
}

//! What every stage of a job works with.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::backup::ProvenBytes;
use crate::progress::Progress;
use pgdump_restore::Loaded;

/// A job, how far it is, what ends it, and since when it runs.
pub(super) struct JobContext<'a, J> {
    pub(super) job: &'a J,
    pub(super) progress: &'a Arc<Progress>,
    /// Cancelled where the job is to end before its time.
    pub(super) cancel: &'a CancellationToken,
    pub(super) clock: JobClock,
}

/// When a job began, by the wall and by a clock that does not jump.
#[derive(Debug, Clone, Copy)]
pub(super) struct JobClock {
    started: jiff::Timestamp,
    begun: tokio::time::Instant,
}

impl JobClock {
    /// A clock that begins now.
    pub(super) fn start() -> Self {
        JobClock {
            started: jiff::Timestamp::now(),
            begun: tokio::time::Instant::now(),
        }
    }

    pub(super) fn started(&self) -> jiff::Timestamp {
        self.started
    }

    /// Seconds since the job began.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// The wall time now, free of jumps since the job began.
    pub(super) fn now(&self) -> jiff::Timestamp {
        let elapsed = self.begun.elapsed();
        self.started.checked_add(elapsed).unwrap_or(self.started)
    }
}

/// Proof that all of a backup was loaded, and that every byte of it was the store's.
pub(super) struct LoadProof {
    pub(super) loaded: Loaded,
    pub(super) bytes: ProvenBytes,
}

//! How many attempts at a request have failed because its target could not be claimed. The journal, which counts the others,
//! could not be asked then, and the number of deliveries says too much: a restore that was interrupted may have had many,
//! which do not count, and hours of work wait for the next one.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Resume;
use crate::error::{RestoreError, RetryClass};
use crate::job::{KeepProgress, RestoreJob};

/// Most requests that are counted. If there are more, all of them are counted from here on.
const MOST: usize = 10_000;

/// How many deliveries of a request may have been interruptions, as a multiple of RESTORE_MAX_ATTEMPTS: with several workers,
/// none of them sees all attempts at a server that never comes back, and the request is to be answered all the same.
const INTERRUPTED: u32 = 2;

/// Attempts that failed to claim their target, one after another, in this process.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnclaimedAttempts(Arc<Mutex<HashMap<String, u32>>>);

impl UnclaimedAttempts {
    /// Counts an attempt at a job of which at most `most` may fail; `failed`: what kept it from its claim. Returns the number
    /// of this attempt among those that count, from 1; `None` if it has claimed its target, or if deliveries count.
    pub(super) fn count(
        &self,
        (job, mode, most): (&RestoreJob, Resume, u32),
        failed: Option<&RestoreError>,
    ) -> Option<u32> {
        let mut counted = self.0.lock();
        let Some(e) = failed else {
            counted.remove(&job.request_id);
            return None;
        };
        let is_counted = e.reason().retry_class() == RetryClass::Transient
            && job.keep == KeepProgress::ForRedelivery
            && mode == Resume::Auto;
        if !is_counted {
            return None;
        }
        if counted.len() >= MOST {
            counted.clear();
        }
        let here = counted.entry(job.request_id.clone()).or_default();
        *here += 1;
        let elsewhere = job.attempt.saturating_sub(most.saturating_mul(INTERRUPTED));
        Some((*here).max(elsewhere).min(job.attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DatabaseError, DatabaseKind};

    fn e(kind: DatabaseKind) -> RestoreError {
        DatabaseError::new(kind, "no").into()
    }

    #[test]
    fn interruptions_do_not_count_while_the_server_cannot_be_asked() {
        let (counted, gone) = (UnclaimedAttempts::default(), e(DatabaseKind::Unavailable));
        let mut job = RestoreJob::replacing("r", "app", String::new());
        job.keep = KeepProgress::ForRedelivery;
        let mut count = |attempt, mode, failed: Option<&RestoreError>| {
            job.attempt = attempt;
            counted.count((&job, mode, 4), failed)
        };
        // After three interruptions, the server is away for the first time.
        assert_eq!(count(4, Resume::Auto, Some(&gone)), Some(1));
        assert_eq!(count(5, Resume::Auto, Some(&gone)), Some(2));
        assert_eq!(count(6, Resume::Auto, None), None);
        assert_eq!(count(7, Resume::Auto, Some(&gone)), Some(1));
        // Others have seen what this worker has not.
        assert_eq!(count(12, Resume::Auto, Some(&gone)), Some(4));
        assert_eq!(count(13, Resume::Never, Some(&gone)), None);
        let busy = e(DatabaseKind::Busy);
        assert_eq!(count(13, Resume::Auto, Some(&busy)), None);
    }

    #[test]
    fn a_command_has_one_attempt() {
        let (counted, gone) = (UnclaimedAttempts::default(), e(DatabaseKind::Unavailable));
        let job = RestoreJob::replacing("r", "app", String::new());
        let of_command = counted.count((&job, Resume::Auto, 4), Some(&gone));
        assert_eq!(of_command, None);
    }
}

//! Limits how many jobs run at once. A requested restore takes precedence over verifications: if no
//! permit is free, it preempts one of them.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct PermitState {
    free: usize,
    waiting_restores: usize,
    /// Running verifications, oldest first; cancelling its token preempts one.
    verifications: Vec<(u64, CancellationToken)>,
    /// Preempted verifications that still hold their permit.
    stopping: usize,
    next: u64,
}

struct SharedPermits {
    state: Mutex<PermitState>,
    changed: Notify,
}

/// The permits of one worker.
#[derive(Clone)]
pub(super) struct Permits(Arc<SharedPermits>);

/// The right to run one job; returned when it is dropped.
pub(super) struct Permit {
    inner: Arc<SharedPermits>,
    verification: Option<(u64, CancellationToken)>,
}

impl Permit {
    /// Cancelled when a restore needs the permit. A restore's own permit is never preempted.
    pub fn preempted(&self) -> CancellationToken {
        self.verification
            .as_ref()
            .map(|(_, t)| t.clone())
            .unwrap_or_default()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.free += 1;
        if let Some((id, token)) = &self.verification {
            if token.is_cancelled() {
                state.stopping = state.stopping.saturating_sub(1);
            }
            state.verifications.retain(|(other, _)| other != id);
        }
        drop(state);
        self.inner.changed.notify_waiters();
    }
}

/// Counts a waiting restore until it is dropped.
struct Waiting(Arc<SharedPermits>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state.lock().waiting_restores -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Permits {
    pub fn new(count: usize) -> Self {
        let state = PermitState {
            free: count,
            ..PermitState::default()
        };
        Permits(Arc::new(SharedPermits {
            state: Mutex::new(state),
            changed: Notify::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, PermitState> {
        self.0.state.lock()
    }

    async fn until<T>(&self, mut ask: impl FnMut(&mut PermitState) -> Option<T>) -> T {
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

    /// Waits until a restore could start, so that no message is pulled that nobody can work on.
    pub async fn restore_possible(&self) {
        self.until(|s| (s.free > 0 || s.verifications.len() > s.stopping).then_some(()))
            .await;
    }

    /// Waits for a permit for a restore, preempting a verification if none is free.
    pub async fn restore(&self) -> Permit {
        self.lock().waiting_restores += 1;
        let _waiting = Waiting(self.0.clone());
        self.until(|s| {
            if s.free > 0 {
                s.free -= 1;
                return Some(());
            }
            // Preempt the youngest: it has done the least.
            let running = s
                .verifications
                .iter()
                .rev()
                .find(|(_, token)| !token.is_cancelled());
            if let Some((_, token)) = running.filter(|_| s.stopping < s.waiting_restores) {
                token.cancel();
                s.stopping += 1;
            }
            None
        })
        .await;
        Permit {
            inner: self.0.clone(),
            verification: None,
        }
    }

    /// Waits until a verification could start.
    pub async fn verification_possible(&self) {
        self.until(|s| (s.free > 0 && s.waiting_restores == 0).then_some(()))
            .await;
    }

    /// Waits for a permit for a verification, which may be preempted.
    pub async fn verification(&self) -> Permit {
        let entry = self
            .until(|s| {
                if s.free == 0 || s.waiting_restores > 0 {
                    return None;
                }
                s.free -= 1;
                s.next += 1;
                let entry = (s.next, CancellationToken::new());
                s.verifications.push(entry.clone());
                Some(entry)
            })
            .await;
        self.0.changed.notify_waiters();
        Permit {
            inner: self.0.clone(),
            verification: Some(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_restore_preempts_the_youngest_verification() {
        let permits = Permits::new(2);
        let (old, young) = (permits.verification().await, permits.verification().await);
        assert!(permits.verification_possible().now_or_never().is_none());
        assert!(permits.restore_possible().now_or_never().is_some());
        let restore = permits.restore();
        tokio::pin!(restore);
        assert!(restore.as_mut().now_or_never().is_none());
        assert!(young.preempted().is_cancelled() && !old.preempted().is_cancelled());
        // One restore preempts only one verification.
        assert!(restore.as_mut().now_or_never().is_none());
        assert!(!old.preempted().is_cancelled());
        // The returned permit goes to the restore, not to another verification.
        let third = permits.verification();
        tokio::pin!(third);
        drop(young);
        assert!(third.as_mut().now_or_never().is_none());
        let restore = restore.as_mut().now_or_never().expect("the permit");
        assert!(third.as_mut().now_or_never().is_none());
        assert!(!restore.preempted().is_cancelled());
        drop(restore);
        assert!(third.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_restore_does_not_preempt_another_restore() {
        let permits = Permits::new(1);
        let first = permits.restore().await;
        assert!(permits.restore_possible().now_or_never().is_none());
        // A restore that has stopped waiting no longer blocks verifications.
        assert!(permits.restore().now_or_never().is_none());
        drop(first);
        assert!(permits.verification().now_or_never().is_some());
    }
}

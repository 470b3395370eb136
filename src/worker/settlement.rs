//! The end of a delivery: its outcome is recorded and published, and only then is the message settled.

use std::time::Duration;

use super::permits::Permit;
use super::state::WaitReason;
use super::{Received, Shutdown, Worker};
use crate::error::report;
use crate::event::RestoreResult;
use crate::manager::JobOutcome;
use crate::outcome::{Settle, disposition};
use crate::queue::QueueError;
use crate::retry::Backoff;
use crate::steps::reached;
use crate::telemetry;

/// How long to wait for a stopping worker's subscriptions to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

const CLOSE_PAUSE: Duration = Duration::from_millis(200);

/// Nacks a message. A stopping worker waits until its subscriptions are closed: otherwise it could receive the message
/// again itself and keep it until the lease expires.
async fn give_back(received: Received, shutdown: &Shutdown) {
    if shutdown.soft.is_cancelled() {
        let _ = tokio::time::timeout(CLOSE_LIMIT, shutdown.closed.cancelled()).await;
        // The server learns of the closed stream a moment later.
        tokio::time::sleep(CLOSE_PAUSE).await;
    }
    received.delivery.lease.nack();
}

impl Worker {
    /// Records, publishes, then settles, always in this order. The tuple holds the delivery attempt, the digest of the
    /// request and the job's permit. Without a digest, the outcome is only published.
    pub(super) async fn end(
        &self,
        received: Received,
        mut finished: JobOutcome,
        (attempt, digest, permit): (u32, Option<&str>, Option<Permit>),
        shutdown: &Shutdown,
    ) {
        let attempts = finished.counted_attempt(attempt);
        let d = disposition(finished.retry_class(), attempts, self.settings.max_attempts);
        self.state.set_ready(d.ready);
        let mut settle = d.settle;
        if d.publish {
            reached("ended");
            match self.record_and_publish(&mut finished, digest).await {
                Ok(()) => self.completed(&finished),
                Err(e) => {
                    tracing::error!(error = e, "failed to publish the result");
                    self.metrics.record_publish_failure();
                    settle = Settle::NackAfterBackoff;
                }
            }
        }
        self.settle(received, settle, (attempt, permit), shutdown)
            .await;
    }

    pub(super) async fn record_and_publish(
        &self,
        finished: &mut JobOutcome,
        digest: Option<&str>,
    ) -> Result<(), String> {
        self.record(finished, digest).await?;
        self.publish(&finished.result).await?;
        Ok(())
    }

    /// Records an outcome; if another worker has recorded one before, it becomes that one.
    pub(super) async fn record(
        &self,
        finished: &mut JobOutcome,
        digest: Option<&str>,
    ) -> Result<(), String> {
        finished.result.bound();
        let counts = match digest {
            Some(digest) => {
                let catalog = self.manager.catalog();
                let recorded = catalog.record(digest, &finished.result).await;
                recorded.map_err(|e| report(&e))?
            }
            None => finished.result.clone(),
        };
        reached("recorded");
        if counts != finished.result {
            // Another worker recorded its outcome first: publish that one.
            *finished = JobOutcome::recorded(counts);
        }
        Ok(())
    }

    pub(super) async fn settle(
        &self,
        mut received: Received,
        settle: Settle,
        (attempt, permit): (u32, Option<Permit>),
        shutdown: &Shutdown,
    ) {
        match settle {
            Settle::Ack => {
                if let Err(e) = received.delivery.lease.ack().await {
                    self.metrics.record_lease_lost();
                    tracing::warn!(error = %e, "failed to acknowledge the message: it will be redelivered");
                }
                reached("acked");
            }
            Settle::NackAfterBackoff => {
                let (first, max) = self.settings.nack_backoff;
                // Release the permit during the backoff, unless too many messages already wait without one.
                let waits = self.waiting.try_acquire();
                let permit = permit.filter(|_| waits.is_err());
                if waits.is_ok() {
                    received.delivery.lease.rest();
                }
                let pause = tokio::time::sleep(Backoff::after(attempt, first, max));
                let shown = received.held.waits_for(WaitReason::Retry);
                shutdown.soft.run_until_cancelled(pause).await;
                drop(shown);
                give_back(received, shutdown).await;
                drop(permit);
            }
            // `run_deduplicated` waits for busy targets; a request that still gets here is nacked.
            Settle::Nack | Settle::Hold => give_back(received, shutdown).await,
        }
    }

    pub(super) fn completed(&self, finished: &JobOutcome) {
        if !finished.repeated {
            self.manager.record_completion(finished);
        }
        self.forget(&finished.result.request_id);
        self.state.finished(finished);
        if finished.proof.is_some() {
            self.backup_news.send_replace(());
        }
    }

    pub(super) fn forget(&self, request_id: &str) {
        self.deliveries.lock().remove(request_id);
    }

    /// Publishes the result or, if Pub/Sub rejects its content, a reduced one without that content.
    pub(super) async fn publish(&self, result: &RestoreResult) -> Result<(), String> {
        let mut message = result.to_message().map_err(|e| report(&e))?;
        telemetry::inject(&mut message.attributes);
        let id = match self.results.publish(message).await {
            Err(QueueError::Refused(why)) => {
                tracing::error!(
                    error = why,
                    "Pub/Sub rejected the result: publishing a reduced one"
                );
                let reduced = result.reduced(&why).to_message().map_err(|e| report(&e))?;
                self.results.publish(reduced).await
            }
            published => published,
        };
        let id = id.map_err(|e| e.to_string())?;
        tracing::info!(event_message_id = id, "result published");
        reached("published");
        Ok(())
    }
}

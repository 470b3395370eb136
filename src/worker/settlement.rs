//! How a delivery ends: its outcome is recorded and published, and only then is the message settled.

use std::time::Duration;

use super::permits::Permit;
use super::{Shutdown, Worker};
use crate::error::report;
use crate::event::RestoreResult;
use crate::manager::JobOutcome;
use crate::outcome::{Settle, disposition};
use crate::queue::{Delivery, QueueError};
use crate::retry::Backoff;
use crate::steps::reached;
use crate::telemetry;

/// How long a worker that stops may take to close its subscriptions.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

const CLOSE_PAUSE: Duration = Duration::from_millis(200);

/// Gives a message back. Where the worker stops, only once it pulls nothing: it would get the message again itself, and
/// keep it until its lease ends.
async fn give_back(delivery: Delivery, shutdown: &Shutdown) {
    if shutdown.soft.is_cancelled() {
        let _ = tokio::time::timeout(CLOSE_LIMIT, shutdown.closed.cancelled()).await;
        // The server hears of it a moment later.
        tokio::time::sleep(CLOSE_PAUSE).await;
    }
    delivery.lease.nack();
}

impl Worker {
    /// Records, publishes, then settles: never another way round. `attempt` is the delivery's and goes
    /// with the digest of what was asked and the permit that was worked with.
    pub(super) async fn end(
        &self,
        delivery: Delivery,
        mut finished: JobOutcome,
        (attempt, digest, permit): (u32, &str, Option<Permit>),
        shutdown: &Shutdown,
    ) {
        let attempts = if finished.is_final { u32::MAX } else { attempt };
        let d = disposition(finished.failure, attempts, self.settings.max_attempts);
        self.state.set_ready(d.ready);
        let mut settle = d.settle;
        if d.publish {
            reached("ended");
            match self.record_and_publish(&mut finished, digest).await {
                Ok(()) => self.completed(&finished),
                Err(e) => {
                    tracing::error!(error = e, "the result could not be published");
                    self.metrics.record_publish_failure();
                    settle = Settle::NackAfterBackoff;
                }
            }
        }
        self.settle(delivery, settle, (attempt, permit), shutdown)
            .await;
    }

    pub(super) async fn record_and_publish(
        &self,
        finished: &mut JobOutcome,
        digest: &str,
    ) -> Result<(), String> {
        finished.result.bound();
        let counts = self
            .manager
            .catalog()
            .record(digest, &finished.result)
            .await
            .map_err(|e| report(&e))?;
        reached("recorded");
        if counts != finished.result {
            // Another worker was faster: its outcome is the one.
            *finished = JobOutcome::recorded(counts);
        }
        self.publish(&finished.result).await?;
        reached("published");
        Ok(())
    }

    pub(super) async fn settle(
        &self,
        mut delivery: Delivery,
        settle: Settle,
        (attempt, permit): (u32, Option<Permit>),
        shutdown: &Shutdown,
    ) {
        match settle {
            Settle::Ack => {
                if let Err(e) = delivery.lease.ack().await {
                    self.metrics.record_lease_lost();
                    tracing::warn!(error = %e, "the message could not be acknowledged and will come again");
                }
                reached("acked");
            }
            Settle::NackAfterBackoff => {
                let (first, max) = self.settings.nack_backoff;
                // Who waits does not work: others may, as long as not too many wait.
                let waits = self.waiting.try_acquire();
                let permit = permit.filter(|_| waits.is_err());
                if waits.is_ok() {
                    delivery.lease.rest();
                }
                let pause = tokio::time::sleep(Backoff::after(attempt, first, max));
                shutdown.soft.run_until_cancelled(pause).await;
                give_back(delivery, shutdown).await;
                drop(permit);
            }
            // `run_deduplicated` holds busy requests; one that gets here is given back.
            Settle::Nack | Settle::Hold => give_back(delivery, shutdown).await,
        }
    }

    pub(super) fn completed(&self, finished: &JobOutcome) {
        if !finished.repeated {
            self.manager.record_completion(finished);
        }
        self.forget(&finished.result.request_id);
        self.state.finished(finished);
    }

    pub(super) fn forget(&self, request_id: &str) {
        self.deliveries.lock().remove(request_id);
    }

    /// Publishes the whole answer or, where its content is refused, what is left without that.
    async fn publish(&self, result: &RestoreResult) -> Result<(), String> {
        let mut message = result.to_message().map_err(|e| report(&e))?;
        telemetry::inject(&mut message.attributes);
        let id = match self.results.publish(message).await {
            Err(QueueError::Refused(why)) => {
                tracing::error!(
                    error = why,
                    "the result cannot be published as it is: it is reduced"
                );
                let reduced = result.reduced(&why).to_message().map_err(|e| report(&e))?;
                self.results.publish(reduced).await
            }
            published => published,
        };
        let id = id.map_err(|e| e.to_string())?;
        tracing::info!(event_message_id = id, "the result is published");
        Ok(())
    }
}

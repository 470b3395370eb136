//! What a worker does unasked: verifications that are due, and the reaper.

use std::collections::HashSet;

use super::{Worker, WorkerContext};
use crate::error::report;
use crate::job::Job;
use crate::manager::JobOutcome;
use crate::outcome::disposition;

impl Worker {
    /// Proves what is due. Its answers are published like any others.
    pub(super) async fn run_scheduler(&self, lanes: &WorkerContext) {
        match lanes.until_soft(self.manager.catalog().standing()).await {
            Some(Ok(sets)) => self.state.set_standing(sets),
            Some(Err(e)) => {
                tracing::warn!(
                    error = report(&e),
                    "the evidence of earlier verifications cannot be read"
                );
            }
            None => return,
        }
        let Some(pause) = self.settings.schedule_pause else {
            return;
        };
        // What has its answer is not asked again in the same turn, though it may still be due.
        let mut answered = HashSet::new();
        loop {
            let due = match lanes
                .until_soft(self.manager.catalog().due(jiff::Timestamp::now()))
                .await
            {
                Some(Ok(due)) => due,
                Some(Err(e)) => {
                    tracing::warn!(error = report(&e), "what is due cannot be told");
                    vec![]
                }
                None => return,
            };
            for job in due
                .into_iter()
                .filter(|j| !answered.contains(&j.request_id))
                .collect::<Vec<_>>()
            {
                let id = job.request_id.clone();
                let Some(permit) = lanes.until_soft(lanes.permits.verification()).await else {
                    return;
                };
                let (worker, shared) = (self.clone(), lanes.clone());
                // Tracked, so that a stop waits for it no longer than for any other.
                let proof = lanes.tasks.spawn(async move {
                    let (finished, _permit) = worker
                        .verify_unless_taken(Job::Verify(job), permit, &shared)
                        .await;
                    worker.publish_scheduled(&finished).await
                });
                match lanes.until_soft(proof).await {
                    Some(Ok(true)) => drop(answered.insert(id)),
                    Some(_) => {}
                    None => return,
                }
            }
            if lanes.until_soft(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Drops, now and again, what workers left that were killed.
    pub(super) async fn run_reaper(&self, lanes: &WorkerContext) {
        let Some(pause) = self.manager.config().reap_every else {
            return;
        };
        loop {
            match lanes.until_soft(self.manager.reap()).await {
                Some(Ok(reaped)) => {
                    for name in &reaped.dropped {
                        tracing::info!(name, "dropped what a worker left that was killed");
                    }
                    for name in &reaped.unknown {
                        tracing::warn!(name, "named like one of ours and not recorded: left alone");
                    }
                    for request_id in &reaped.abandoned {
                        tracing::warn!(
                            request_id,
                            "began and was never heard of again: recorded as failed"
                        );
                    }
                    reaped
                        .failed
                        .iter()
                        .for_each(|why| tracing::error!(why, "the reaper failed"));
                }
                // A worker that only proves has no target server.
                Some(Err(e)) => tracing::info!(error = report(&e), "the reaper could not look"),
                None => return,
            }
            // Not all workers at once.
            let pause = pause.mul_f64(0.5 + fastrand::f64());
            if lanes.until_soft(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Whether there is an answer and it is published. There is no message to give back: what has no
    /// final answer is due again.
    async fn publish_scheduled(&self, finished: &JobOutcome) -> bool {
        let attempts = if finished.is_final { u32::MAX } else { 1 };
        let d = disposition(finished.failure, attempts, self.settings.max_attempts);
        if !d.publish {
            return false;
        }
        let mut finished = finished.clone();
        let published = self.record_and_publish(&mut finished, "").await;
        match &published {
            Ok(()) => self.completed(&finished),
            Err(e) => {
                tracing::error!(error = e, "the result could not be published");
                self.metrics.record_publish_failure();
            }
        }
        published.is_ok()
    }
}

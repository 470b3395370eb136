//! Background work of a worker: scheduled verifications and the reaper.

use std::collections::HashSet;
use std::time::Duration;

use super::state::MAX_RECENT;
use super::{Worker, WorkerContext};
use crate::database::ReapScope;
use crate::error::report;
use crate::job::{BackupRef, Job, VerifyJob};
use crate::manager::JobOutcome;
use crate::outcome::disposition;
use crate::proof::VerificationReport;
use crate::verification::verdict;

/// How often the evidence of the sets is read again.
const STANDING_PAUSE: Duration = Duration::from_secs(3600);

impl Worker {
    /// Reads how the sets stand, and runs verifications that are due.
    pub(super) async fn run_scheduler(&self, context: &WorkerContext) {
        let past = |r: &VerificationReport| {
            let job = VerifyJob::new(r.request_id.clone(), BackupRef::Stdin, r.trigger);
            self.state.add_past(vec![verdict::result_of(&job, r, None)]);
        };
        self.read_standing(context, past).await;
        tokio::join!(self.follow_standing(context), self.run_due(context));
    }

    /// Reads how the sets stand; `seen` gets every report that this rests on.
    async fn read_standing(
        &self,
        context: &WorkerContext,
        seen: impl FnMut(&VerificationReport) + Send,
    ) {
        let standing = self.manager.catalog().standing_of(seen);
        match context.until_soft(standing).await {
            Some(Ok(sets)) => self.state.set_standing(sets),
            Some(Err(e)) => {
                tracing::warn!(
                    error = report(&e),
                    "failed to read the evidence of earlier verifications"
                );
            }
            None => {}
        }
    }

    /// Reads it again from time to time: a set is as fresh as its stalest database, and a worker that proves one of
    /// them does not see that another worker proves the others.
    async fn follow_standing(&self, context: &WorkerContext) {
        loop {
            let pause = STANDING_PAUSE.mul_f64(0.5 + fastrand::f64());
            let slept = context.until_soft(tokio::time::sleep(pause)).await;
            if slept.is_none() {
                return;
            }
            self.read_standing(context, |_| {}).await;
        }
    }

    /// Runs verifications that are due. Their results are published like those of requests.
    async fn run_due(&self, context: &WorkerContext) {
        let Some(pause) = self.settings.schedule_pause else {
            return;
        };
        // A verification that has been answered is not repeated, even if it is still listed as due.
        let mut answered: HashSet<String> = HashSet::new();
        loop {
            let due = self.manager.catalog().due(jiff::Timestamp::now());
            let Some(due) = context.until_soft(due).await else {
                return;
            };
            answered.retain(|id| due.iter().any(|job| job.request_id == *id));
            for job in due
                .into_iter()
                .filter(|j| !answered.contains(&j.request_id))
                .collect::<Vec<_>>()
            {
                let id = job.request_id.clone();
                let Some(permit) = context.until_soft(context.permits.verification()).await else {
                    return;
                };
                let (worker, shared) = (self.clone(), context.clone());
                // Tracked, so that the drain timeout applies to it too.
                let proof = context.tasks.spawn(async move {
                    let (finished, _permit) = worker
                        .verify_preemptible(Job::Verify(job), (permit, None), &shared)
                        .await;
                    worker.publish_scheduled(&finished).await
                });
                match context.until_soft(proof).await {
                    Some(Ok(true)) => drop(answered.insert(id)),
                    Some(_) => {}
                    None => return,
                }
            }
            if context
                .until_soft(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Reads the results of jobs that ended before this worker started, for its status.
    pub(super) async fn load_history(&self, context: &WorkerContext) {
        match context
            .until_soft(self.manager.past_results(MAX_RECENT))
            .await
        {
            Some(Ok(results)) => self.state.add_past(results),
            // Expected for a worker that only verifies: it has no target server.
            Some(Err(e)) => {
                tracing::info!(
                    error = report(&e),
                    "the results of earlier jobs cannot be read"
                );
            }
            None => {}
        }
    }

    /// Periodically drops what killed workers left behind.
    pub(super) async fn run_reaper(&self, context: &WorkerContext) {
        let Some(pause) = self.manager.config().reap_every else {
            return;
        };
        loop {
            match context
                .until_soft(self.manager.reap(ReapScope::Worker))
                .await
            {
                Some(Ok(reaped)) => {
                    for name in &reaped.dropped {
                        tracing::info!(name, "dropped what a killed worker left behind");
                    }
                    for name in &reaped.unknown {
                        tracing::warn!(
                            name,
                            "left in place: the name is of pgrestored's form, but nothing records it"
                        );
                    }
                    for request_id in &reaped.abandoned {
                        tracing::warn!(
                            request_id,
                            "the attempt never finished: recorded as failed"
                        );
                    }
                    reaped
                        .failed
                        .iter()
                        .for_each(|why| tracing::error!(why, "the reaper failed"));
                    self.state.set_continuable(reaped.waiting);
                }
                // Expected for a worker that only verifies: it has no target server.
                Some(Err(e)) => {
                    tracing::info!(error = report(&e), "the reaper could not reach the server");
                }
                None => return,
            }
            // Jitter, so that workers do not run it all at once.
            let pause = pause.mul_f64(0.5 + fastrand::f64());
            if context
                .until_soft(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Publishes the result, if there is one, and returns whether that succeeded. There is no message to
    /// nack: a verification without a final result becomes due again.
    async fn publish_scheduled(&self, finished: &JobOutcome) -> bool {
        let attempts = finished.counted_attempt(1);
        let d = disposition(finished.retry_class(), attempts, self.settings.max_attempts);
        if !d.publish {
            return false;
        }
        let mut finished = finished.clone();
        let published = self.record_and_publish(&mut finished, Some("")).await;
        match &published {
            Ok(()) => self.completed(&finished),
            Err(e) => {
                tracing::error!(error = e, "failed to publish the result");
                self.metrics.record_publish_failure();
            }
        }
        published.is_ok()
    }
}

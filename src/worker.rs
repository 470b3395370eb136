//! The loop: takes requests, one permit a restore, keeps each message until its outcome is published,
//! settles it by the table in `outcome`, and stops in two steps: soft (take nothing more, finish),
//! then hard (cancel, clean up, give the messages back).

mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::{FailureReason as R, RestoreError, report};
use crate::event::{RestoreRequest, RestoreResult};
use crate::job::RestoreJob;
use crate::manager::{Finished, RestoreManager};
use crate::metrics::RestoreMetricsManager;
use crate::outcome::{Settle, disposition};
use crate::progress::Progress;
use crate::queue::{Delivery, QueueError, RequestQueue, ResultSink};
use crate::retry::Backoff;
use crate::telemetry;

pub use state::{JobStatus, WorkerState, WorkerStatus};

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    pub max_concurrent: usize,
    /// Deliveries of one request before a passing failure is final.
    pub max_attempts: u32,
    /// Target of requests that name none.
    pub default_db: Option<String>,
    /// Bounds of the pause before a message is given back.
    pub nack_backoff: (Duration, Duration),
    /// Pause between looks at a target that another restore holds.
    pub busy_pause: Duration,
    /// How long a soft stop lets restores finish.
    pub drain_timeout: Duration,
}

impl WorkerSettings {
    pub fn new(config: &crate::config::Config) -> Self {
        WorkerSettings {
            max_concurrent: config.max_concurrent,
            max_attempts: config.max_attempts,
            default_db: config.db_name.clone(),
            nack_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
            busy_pause: Duration::from_secs(5),
            drain_timeout: config.drain_timeout,
        }
    }
}

/// The two steps of a stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Take nothing more; finish what runs.
    pub soft: CancellationToken,
    /// Cancel what runs, clean up, give the messages back.
    pub hard: CancellationToken,
}

/// Takes requests and sees each to its end.
#[derive(Clone)]
pub struct Worker {
    manager: RestoreManager,
    results: Arc<dyn ResultSink>,
    metrics: RestoreMetricsManager,
    settings: Arc<WorkerSettings>,
    state: Arc<WorkerState>,
    /// Requests in work in this process: a second delivery of one waits for the first.
    in_work: Arc<Mutex<HashMap<String, CancellationToken>>>,
    /// Deliveries so far, where the subscription does not count them.
    deliveries: Arc<Mutex<HashMap<String, u32>>>,
}

impl Worker {
    pub fn new(
        manager: RestoreManager,
        results: Arc<dyn ResultSink>,
        metrics: RestoreMetricsManager,
        settings: WorkerSettings,
    ) -> Self {
        Worker {
            manager,
            results,
            metrics,
            settings: Arc::new(settings),
            state: Arc::default(),
            in_work: Arc::default(),
            deliveries: Arc::default(),
        }
    }

    pub fn state(&self) -> Arc<WorkerState> {
        self.state.clone()
    }

    /// Works until `shutdown`, then drains.
    ///
    /// # Errors
    /// The subscription refuses this worker.
    pub async fn run(&self, mut queue: impl RequestQueue, shutdown: Shutdown) -> Result<(), QueueError> {
        let permits = Arc::new(Semaphore::new(self.settings.max_concurrent));
        let tasks = TaskTracker::new();
        let ended = loop {
            // A permit first: a message is not taken that nobody can work on.
            let permit = tokio::select! {
                biased;
                () = shutdown.soft.cancelled() => break Ok(()),
                permit = permits.clone().acquire_owned() => permit,
            };
            let Ok(permit) = permit else { break Ok(()) };
            let delivery = tokio::select! {
                biased;
                () = shutdown.soft.cancelled() => break Ok(()),
                next = queue.next() => match next {
                    Ok(delivery) => delivery,
                    Err(e) => break Err(e),
                },
            };
            let (worker, stop) = (self.clone(), shutdown.clone());
            tasks.spawn(async move {
                worker.handle(delivery, &stop).await;
                drop(permit);
            });
        };
        self.state.stopping();
        queue.close().await;
        self.drain(&tasks, &shutdown).await;
        queue.flush().await;
        ended
    }

    async fn drain(&self, tasks: &TaskTracker, shutdown: &Shutdown) {
        tasks.close();
        let finished = tokio::select! {
            () = tasks.wait() => true,
            () = shutdown.hard.cancelled() => false,
            () = tokio::time::sleep(self.settings.drain_timeout) => false,
        };
        if !finished {
            tracing::warn!(
                running = tasks.len(),
                "the time to finish is over: running restores are cancelled"
            );
            shutdown.hard.cancel();
            tasks.wait().await;
        }
        tracing::info!(in_time = finished, "drained");
    }

    /// One delivery, from its arrival to its settlement.
    async fn handle(&self, delivery: Delivery, shutdown: &Shutdown) {
        let span = tracing::info_span!(
            "delivery",
            message_id = delivery.message_id,
            request_id = tracing::field::Empty,
            otel.kind = "consumer"
        );
        telemetry::follow(&span, &delivery.attributes);
        self.handle_in_span(delivery, shutdown).instrument(span).await;
    }

    async fn handle_in_span(&self, delivery: Delivery, shutdown: &Shutdown) {
        let received = jiff::Timestamp::now();
        let request = RestoreRequest::from_message(&delivery.data, &delivery.attributes);
        let request_id = match &request {
            Ok(r) if !r.request_id.is_empty() => r.request_id.clone(),
            _ => request_id_of(&delivery),
        };
        tracing::Span::current().record("request_id", request_id.as_str());
        let attempt = self.count_delivery(&delivery, &request_id, received);
        let job =
            request.and_then(|r| r.into_job(self.settings.default_db.as_deref())).and_then(|mut job| {
                self.manager.check_source(&job.backup)?;
                (job.sequence, job.attempt) = (delivery.published, attempt);
                Ok(job)
            });
        let finished = match job {
            Ok(job) => self.run_alone(&job, shutdown).await,
            Err(e) => {
                tracing::warn!(error = report(&e), "the request is refused");
                let mut result =
                    RestoreResult::failure(&request_id, &e, "request", (received, jiff::Timestamp::now()));
                result.attempt = attempt;
                Finished { result, failure: Some(e.reason()), repeated: false }
            }
        };
        self.end(delivery, finished, attempt, shutdown).await;
    }

    fn count_delivery(&self, delivery: &Delivery, request_id: &str, now: jiff::Timestamp) -> u32 {
        let attempt = delivery.attempt.unwrap_or_else(|| {
            let mut seen = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry(request_id.to_owned()).or_insert(0);
            *count += 1;
            *count
        });
        match attempt {
            1 => self.metrics.record_queue_delay((now.as_microsecond() - delivery.published) as f64 / 1e6),
            _ => self.metrics.record_redelivery(),
        }
        attempt
    }

    /// Runs a job when no other delivery of it is in work here, and waits while its target is busy.
    async fn run_alone(&self, job: &RestoreJob, shutdown: &Shutdown) -> Finished {
        let done = loop {
            let earlier = {
                let mut in_work = self.in_work.lock().unwrap_or_else(PoisonError::into_inner);
                match in_work.get(&job.request_id) {
                    Some(other) => other.clone(),
                    None => {
                        let done = CancellationToken::new();
                        in_work.insert(job.request_id.clone(), done.clone());
                        break done;
                    }
                }
            };
            earlier.cancelled().await;
        };
        let finished = loop {
            let finished = self.run_guarded(job, shutdown).await;
            if finished.failure != Some(R::TargetBusy) {
                break finished;
            }
            let pause = self.settings.busy_pause.mul_f64(0.5 + fastrand::f64());
            // A waiting request is given back as soon as the worker is to stop.
            if shutdown.soft.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break Finished { failure: Some(R::Cancelled), ..finished };
            }
        };
        self.in_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.request_id);
        done.cancel();
        finished
    }

    /// The panic boundary: a defect ends one job, not the worker.
    async fn run_guarded(&self, job: &RestoreJob, shutdown: &Shutdown) -> Finished {
        let progress = Arc::new(Progress::default());
        let _listed = self.state.enter(job, progress.clone());
        let (manager, stop, running) = (self.manager.clone(), shutdown.hard.clone(), job.clone());
        let started = jiff::Timestamp::now();
        let watched = progress.clone();
        let task = async move { manager.run(&running, watched, stop).await };
        match tokio::spawn(task.in_current_span()).await {
            Ok(finished) => finished,
            Err(e) => {
                let e = RestoreError::internal(format!("the restore died: {e}"));
                tracing::error!(error = report(&e), "a defect");
                let times = (started, jiff::Timestamp::now());
                let result = RestoreResult::failure(&job.request_id, &e, progress.stage(), times);
                Finished { result, failure: Some(e.reason()), repeated: false }
            }
        }
    }

    /// Publishes, then settles: never the other way round.
    async fn end(&self, delivery: Delivery, finished: Finished, attempt: u32, shutdown: &Shutdown) {
        let d = disposition(finished.failure, attempt, self.settings.max_attempts);
        self.state.set_ready(d.ready);
        let mut settle = d.settle;
        if d.publish {
            match self.publish(&finished.result).await {
                Ok(()) => self.completed(&finished),
                Err(e) => {
                    tracing::error!(error = e, "the result could not be published");
                    self.metrics.record_publish_failure();
                    settle = Settle::NackAfterBackoff;
                }
            }
        }
        match settle {
            Settle::Ack => {
                if let Err(e) = delivery.lease.ack().await {
                    self.metrics.record_lease_lost();
                    tracing::warn!(error = %e, "the message could not be acknowledged and will come again");
                }
            }
            Settle::NackAfterBackoff => {
                let (first, max) = self.settings.nack_backoff;
                let pause = tokio::time::sleep(Backoff::after(attempt, first, max));
                shutdown.soft.run_until_cancelled(pause).await;
                delivery.lease.nack();
            }
            // `run_alone` holds busy requests; one that gets here is given back.
            Settle::Nack | Settle::Hold => delivery.lease.nack(),
        }
    }

    fn completed(&self, finished: &Finished) {
        if !finished.repeated {
            self.manager.record_completion(finished);
        }
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).remove(&finished.result.request_id);
        self.state.finished(&finished.result);
    }

    async fn publish(&self, result: &RestoreResult) -> Result<(), String> {
        let mut message = result.to_message().map_err(|e| report(&e))?;
        telemetry::inject(&mut message.attributes);
        let id = self.results.publish(message).await.map_err(|e| e.to_string())?;
        tracing::info!(event_message_id = id, "the result is published");
        Ok(())
    }
}

/// The id of a request that cannot be read: its attribute, what its body has, or the message's own.
fn request_id_of(delivery: &Delivery) -> String {
    let body: Option<serde_json::Value> = serde_json::from_slice(&delivery.data).ok();
    let in_body = body.as_ref().and_then(|b| b.get("request_id")?.as_str());
    let named = in_body.or(delivery.attributes.get("request_id").map(String::as_str));
    let named = named.filter(|id| !id.is_empty() && id.len() <= 200);
    named.map_or_else(|| format!("message:{}", delivery.message_id), str::to_owned)
}

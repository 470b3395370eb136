//! The loop: takes requests, one permit a job, keeps each message until its outcome is published,
//! settles it by the table in `outcome`, and stops in two steps: soft (take nothing more, finish),
//! then hard (cancel, clean up, give the messages back).
//!
//! Three lanes: requests, notifications of new backups, and the schedule. A backlog in one delays none
//! of the others, and a person's request goes before every verification of the other two (`permits`).

mod settlement;
mod notification;
mod permits;
mod state;
mod maintenance;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::admission::Admission;
use crate::error::{FailureReason as R, RestoreError, report};
use crate::event::{RestoreRequest, RestoreResult};
use crate::job::{Job, VerifyJob, check_request_id, is_own_id};
use crate::manager::{JobOutcome, RestoreManager};
use crate::metrics::RestoreMetricsManager;
use crate::outcome::Settle;
use crate::progress::Progress;
use crate::queue::{Delivery, Lease, QueueError, RequestQueue, ResultSink};
use crate::telemetry;
use permits::{Permit, Permits};

pub use state::{JobStatus, WorkerState, WorkerStatus};

/// Messages that wait to be given back, beyond those that are worked on.
const MAX_WAITING: usize = 100;

/// Bounds of the pause between looks at the schedule.
const SCHEDULE_MIN: Duration = Duration::from_secs(1);
const SCHEDULE_MAX: Duration = Duration::from_secs(3600);

/// How a worker works.
#[derive(Clone)]
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
    /// What requests may ask for.
    pub admission: Arc<Admission>,
    /// How often is looked for verifications that are due; `None` without a schedule.
    pub schedule_pause: Option<Duration>,
}

impl WorkerSettings {
    pub fn new(config: &crate::config::Config, admission: Admission) -> Self {
        WorkerSettings {
            admission: Arc::new(admission),
            max_concurrent: config.max_concurrent,
            max_attempts: config.max_attempts,
            default_db: config.db_name.clone(),
            nack_backoff: (Duration::from_secs(1), Duration::from_secs(60)),
            busy_pause: Duration::from_secs(5),
            drain_timeout: config.drain_timeout,
            schedule_pause: config
                .verify
                .schedule
                .map(|every| (every / 10).clamp(SCHEDULE_MIN, SCHEDULE_MAX)),
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
    /// Nothing is pulled any more: a message that is given back goes to another worker.
    pub(crate) closed: CancellationToken,
}

/// What the lanes of a running worker share.
#[derive(Clone)]
struct WorkerContext {
    permits: Permits,
    tasks: TaskTracker,
    /// Take nothing more.
    soft: CancellationToken,
    shutdown: Shutdown,
}

impl WorkerContext {
    /// `None` where nothing more is to be taken.
    async fn until_soft<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.soft.cancelled() => None,
            done = work => Some(done),
        }
    }
}

/// What a job holds of the worker while it is in work.
struct WorkPlace<'a> {
    /// Of a request: it may rest while nothing is done for it.
    lease: Option<&'a mut (dyn Lease + 'static)>,
    permit: Option<Permit>,
    lanes: &'a WorkerContext,
}

impl WorkPlace<'_> {
    /// Waits for `event`, without the permit where as many may wait; false where the worker is to stop.
    async fn wait(&mut self, waiting: &Semaphore, event: impl Future<Output = ()>) -> bool {
        let slot = waiting.try_acquire();
        if let (Ok(_), Some(lease)) = (&slot, &mut self.lease) {
            lease.rest();
            self.permit = None;
        }
        if self.lanes.until_soft(event).await.is_none() {
            return false;
        }
        drop(slot);
        if self.lease.is_some() && self.permit.is_none() {
            self.permit = self.lanes.until_soft(self.lanes.permits.restore()).await;
            return self.permit.is_some();
        }
        true
    }
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
    in_flight: Arc<parking_lot::Mutex<HashMap<String, CancellationToken>>>,
    /// Deliveries so far, where the subscription does not count them.
    deliveries: Arc<Mutex<HashMap<String, u32>>>,
    /// Messages that may wait to be given back without a permit.
    waiting: Arc<Semaphore>,
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
            in_flight: Arc::default(),
            deliveries: Arc::default(),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    pub fn state(&self) -> Arc<WorkerState> {
        self.state.clone()
    }

    /// Works until `shutdown`, then drains. `requests` are a person's, `notifications` the bucket's.
    ///
    /// # Errors
    /// A subscription refuses this worker.
    pub async fn run(
        &self,
        mut requests: Box<dyn RequestQueue>,
        mut notifications: Option<Box<dyn RequestQueue>>,
        shutdown: Shutdown,
    ) -> Result<(), QueueError> {
        let permits = Permits::new(self.settings.max_concurrent);
        let tasks = TaskTracker::new();
        // A lane that cannot go on ends the others.
        let lanes = WorkerContext {
            permits,
            tasks: tasks.clone(),
            soft: shutdown.soft.child_token(),
            shutdown,
        };
        let end = |ended: Result<(), QueueError>| {
            lanes.soft.cancel();
            ended
        };
        let (requested, notified, (), ()) = tokio::join!(
            async { end(self.take_requests(requests.as_mut(), &lanes).await) },
            async {
                match notifications.as_deref_mut() {
                    Some(queue) => end(self.take_notifications(queue, &lanes).await),
                    None => Ok(()),
                }
            },
            self.run_scheduler(&lanes),
            self.run_reaper(&lanes),
        );
        self.state.stopping();
        requests.close().await;
        if let Some(queue) = &mut notifications {
            queue.close().await;
        }
        lanes.shutdown.closed.cancel();
        self.drain(&tasks, &lanes.shutdown).await;
        requests.flush().await;
        if let Some(queue) = &mut notifications {
            queue.flush().await;
        }
        requested.and(notified)
    }

    /// A person's requests: restores and verifications.
    async fn take_requests(
        &self,
        queue: &mut dyn RequestQueue,
        lanes: &WorkerContext,
    ) -> Result<(), QueueError> {
        loop {
            // A message is not taken that nobody can work on.
            if lanes
                .until_soft(lanes.permits.restore_possible())
                .await
                .is_none()
            {
                return Ok(());
            }
            let Some(delivery) = lanes.until_soft(queue.next()).await else {
                return Ok(());
            };
            let delivery = delivery?;
            let request = RestoreRequest::from_message(&delivery.data, &delivery.attributes);
            let permit = match request {
                // Its answer needs no permit.
                Err(_) => None,
                Ok(_) => match lanes.until_soft(lanes.permits.restore()).await {
                    Some(permit) => Some(permit),
                    None => return Ok(()),
                },
            };
            let (worker, lanes) = (self.clone(), lanes.clone());
            lanes
                .tasks
                .clone()
                .spawn(async move { worker.handle(delivery, request, permit, &lanes).await });
        }
    }

    /// New backups, each to be proven.
    async fn take_notifications(
        &self,
        queue: &mut dyn RequestQueue,
        lanes: &WorkerContext,
    ) -> Result<(), QueueError> {
        loop {
            if lanes
                .until_soft(lanes.permits.verification_possible())
                .await
                .is_none()
            {
                return Ok(());
            }
            let Some(delivery) = lanes.until_soft(queue.next()).await else {
                return Ok(());
            };
            let delivery = delivery?;
            let manager = &self.manager;
            let job = notification::job_of(&delivery.attributes, manager.config(), |n| {
                manager.catalog().is_backup(n)
            });
            let job = match job {
                Ok(job) => job,
                Err(why) => {
                    tracing::info!(
                        message_id = delivery.message_id,
                        why,
                        "a notification asks for nothing"
                    );
                    self.settle(delivery, Settle::Ack, (1, None), &lanes.shutdown)
                        .await;
                    continue;
                }
            };
            let Some(permit) = lanes.until_soft(lanes.permits.verification()).await else {
                return Ok(());
            };
            let (worker, lanes) = (self.clone(), lanes.clone());
            lanes.tasks.clone().spawn(async move {
                worker
                    .verify_new_backup(delivery, job, permit, &lanes)
                    .await
            });
        }
    }

    /// One new backup, from its notification to its proof.
    async fn verify_new_backup(
        &self,
        delivery: Delivery,
        mut job: VerifyJob,
        permit: Permit,
        lanes: &WorkerContext,
    ) {
        let span = tracing::info_span!(
            "delivery",
            message_id = delivery.message_id,
            request_id = job.request_id,
            otel.kind = "consumer"
        );
        telemetry::follow(&span, &delivery.attributes);
        let work = async {
            job.attempt = self.count_delivery(&delivery, &job.request_id, jiff::Timestamp::now());
            match self.manager.catalog().is_outdated(&job).await {
                Ok(true) => {
                    tracing::info!(
                        "older than the newest proven backup, or than another piece of it: skipped"
                    );
                    self.forget(&job.request_id);
                    let settled = (job.attempt, Some(permit));
                    return self
                        .settle(delivery, Settle::Ack, settled, &lanes.shutdown)
                        .await;
                }
                Ok(false) => {}
                // The verification meets it again, and says it.
                Err(e) => tracing::debug!(error = report(&e), "the newest proof cannot be told"),
            }
            let attempt = job.attempt;
            let (finished, permit) = self
                .verify_unless_taken(Job::Verify(job), permit, lanes)
                .await;
            self.end(delivery, finished, (attempt, "", permit), &lanes.shutdown)
                .await;
        };
        work.instrument(span).await;
    }

    /// Verifies; where a restore takes the permit away, waits for another one and begins again.
    async fn verify_unless_taken(
        &self,
        job: Job,
        permit: Permit,
        lanes: &WorkerContext,
    ) -> (JobOutcome, Option<Permit>) {
        let mut permit = permit;
        loop {
            let taken = permit.preempted();
            let stop = lanes.shutdown.hard.child_token();
            let given_up = async {
                taken.cancelled().await;
                stop.cancel();
                std::future::pending::<JobOutcome>().await
            };
            let mut place = WorkPlace {
                lease: None,
                permit: None,
                lanes,
            };
            let finished = tokio::select! {
                finished = self.run_deduplicated(&job, &mut place, &stop) => finished,
                finished = given_up => finished,
            };
            let is_taken = taken.is_cancelled() && finished.failure == Some(R::Cancelled);
            if !is_taken || lanes.shutdown.hard.is_cancelled() {
                return (finished, Some(permit));
            }
            tracing::info!("a restore goes before this verification");
            drop(permit);
            permit = match lanes.until_soft(lanes.permits.verification()).await {
                Some(permit) => permit,
                // Given back, for another worker.
                None => return (finished, None),
            };
        }
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
    async fn handle(
        &self,
        delivery: Delivery,
        request: Result<RestoreRequest, RestoreError>,
        permit: Option<Permit>,
        lanes: &WorkerContext,
    ) {
        let span = tracing::info_span!(
            "delivery",
            message_id = delivery.message_id,
            request_id = tracing::field::Empty,
            otel.kind = "consumer"
        );
        telemetry::follow(&span, &delivery.attributes);
        self.handle_in_span(delivery, request, permit, lanes)
            .instrument(span)
            .await;
    }

    async fn handle_in_span(
        &self,
        mut delivery: Delivery,
        request: Result<RestoreRequest, RestoreError>,
        mut permit: Option<Permit>,
        lanes: &WorkerContext,
    ) {
        let received = jiff::Timestamp::now();
        let request_id = match &request {
            Ok(r) if !r.request_id.is_empty() && !is_own_id(&r.request_id) => r.request_id.clone(),
            _ => request_id_of(&delivery),
        };
        tracing::Span::current().record("request_id", request_id.as_str());
        let attempt = self.count_delivery(&delivery, &request_id, received);
        let digest = request
            .as_ref()
            .map(RestoreRequest::digest)
            .unwrap_or_default();
        let job = self.admit(&delivery, request).map(|mut job| {
            job.delivered(delivery.published, attempt);
            job
        });
        let recorded = match &job {
            Ok(_) => self.manager.catalog().recorded(&request_id, &digest).await,
            Err(_) => Ok(None),
        };
        let finished = match job.and_then(|job| Ok((job, recorded?))) {
            Ok((_, Some(result))) => JobOutcome::recorded(result),
            Ok((job, None)) => {
                let mut place = WorkPlace {
                    lease: Some(delivery.lease.as_mut()),
                    permit: permit.take(),
                    lanes,
                };
                let finished = self
                    .run_deduplicated(&job, &mut place, &lanes.shutdown.hard)
                    .await;
                permit = place.permit;
                finished
            }
            Err(e) => {
                tracing::warn!(error = report(&e), "the request is refused");
                // Of every delivery the same, so that a repetition says the same.
                let at = jiff::Timestamp::from_microsecond(delivery.published).unwrap_or(received);
                let mut result = RestoreResult::failure(&request_id, &e, "request", (at, at));
                result.attempt = attempt;
                JobOutcome::refused(result, e.reason())
            }
        };
        self.end(
            delivery,
            finished,
            (attempt, &digest, permit),
            &lanes.shutdown,
        )
        .await;
    }

    /// What a message asks for, if it may ask for it. Nothing has been read or connected to by then.
    fn admit(
        &self,
        delivery: &Delivery,
        request: Result<RestoreRequest, RestoreError>,
    ) -> Result<Job, RestoreError> {
        let admission = &self.settings.admission;
        admission.check_signature(&delivery.data, &delivery.attributes, delivery.published)?;
        let job = request?.into_job(self.settings.default_db.as_deref())?;
        admission.check(&job)?;
        self.manager.catalog().check_source(job.backup())?;
        if let Some(target) = job.target_db() {
            self.manager.check_target(target)?;
        }
        Ok(job)
    }

    fn count_delivery(&self, delivery: &Delivery, request_id: &str, now: jiff::Timestamp) -> u32 {
        let attempt = delivery.attempt.unwrap_or_else(|| {
            let mut seen = self.deliveries.lock();
            let count = seen.entry(request_id.to_owned()).or_insert(0);
            *count += 1;
            *count
        });
        match attempt {
            1 => self
                .metrics
                .record_queue_delay((now.as_microsecond() - delivery.published) as f64 / 1e6),
            _ => self.metrics.record_redelivery(),
        }
        attempt
    }

    /// Runs a job when no other delivery of it is in work here, and waits while its target is busy. Who waits does
    /// not work: the permit goes to others meanwhile.
    async fn run_deduplicated(
        &self,
        job: &Job,
        place: &mut WorkPlace<'_>,
        stop: &CancellationToken,
    ) -> JobOutcome {
        let done = loop {
            let earlier = match self.in_flight.lock().entry(job.request_id().to_owned()) {
                Entry::Occupied(other) => other.get().clone(),
                Entry::Vacant(free) => break free.insert(CancellationToken::new()).clone(),
            };
            if !place.wait(&self.waiting, earlier.cancelled()).await {
                return self.given_back(job);
            }
        };
        let finished = loop {
            let finished = self.run_guarded(job, stop).await;
            if finished.failure != Some(R::TargetBusy) {
                break finished;
            }
            let pause = self.settings.busy_pause.mul_f64(0.5 + fastrand::f64());
            // A waiting request is given back as soon as the worker is to stop.
            if !place.wait(&self.waiting, tokio::time::sleep(pause)).await {
                break JobOutcome {
                    failure: Some(R::Cancelled),
                    ..finished
                };
            }
        };
        self.in_flight.lock().remove(job.request_id());
        done.cancel();
        finished
    }

    /// A job that has not begun when the worker is to stop.
    fn given_back(&self, job: &Job) -> JobOutcome {
        let e = RestoreError::cancelled("the worker stops");
        let now = jiff::Timestamp::now();
        let result = RestoreResult::failure(job.request_id(), &e, "request", (now, now));
        JobOutcome::refused(result, e.reason())
    }

    /// The panic boundary: a defect ends one job, not the worker.
    async fn run_guarded(&self, job: &Job, stop: &CancellationToken) -> JobOutcome {
        let progress = Arc::new(Progress::default());
        let _listed = self.state.enter(job, progress.clone());
        let (manager, stop, running) = (self.manager.clone(), stop.clone(), job.clone());
        let started = jiff::Timestamp::now();
        let watched = progress.clone();
        let task = async move {
            match running {
                Job::Restore(job) => manager.run(&job, watched, stop).await,
                Job::Verify(job) => manager.verify_backup(&job, watched, stop).await,
            }
        };
        match tokio::spawn(task.in_current_span()).await {
            Ok(finished) => finished,
            Err(e) => {
                let e = RestoreError::internal(format!("the job died: {e}"));
                tracing::error!(error = report(&e), "a defect");
                let times = (started, jiff::Timestamp::now());
                let result = RestoreResult::failure(job.request_id(), &e, progress.stage(), times);
                JobOutcome::refused(result, e.reason())
            }
        }
    }
}

/// The id of a request that cannot be read: its attribute, what its body has, or the message's own.
fn request_id_of(delivery: &Delivery) -> String {
    let body: Option<serde_json::Value> = serde_json::from_slice(&delivery.data).ok();
    let in_body = body.as_ref().and_then(|b| b.get("request_id")?.as_str());
    let named = in_body.or(delivery.attributes.get("request_id").map(String::as_str));
    // Nor is it answered under an id of our own: its event would be taken for that of another job.
    let named = named.filter(|id| check_request_id(id).is_ok());
    named.map_or_else(|| format!("message:{}", delivery.message_id), str::to_owned)
}

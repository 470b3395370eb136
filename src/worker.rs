//! The worker loop. It takes requests, one permit per job, holds each message until its outcome is
//! published, and settles it by the table in `outcome`. It stops in two steps: graceful (`soft`: take
//! nothing new, finish running jobs), then immediate (`hard`: cancel, clean up, nack).
//!
//! Requests, notifications of new backups, the schedule and standing restores are handled independently, so that a backlog
//! in one does not delay the others. Requests take precedence over verifications that notifications or
//! the schedule started (`permits`).

mod maintenance;
mod notification;
mod permits;
mod request_ids;
mod settings;
mod settlement;
mod standing;
mod state;

use pgdump_restore::Stage;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::{FailureReason as R, RestoreError, report};
use crate::event::{Kind, RestoreRequest, RestoreResult};
use crate::job::{Job, VerifyJob};
use crate::manager::{JobOutcome, RestoreManager};
use crate::metrics::RestoreMetricsManager;
use crate::outcome::Settle;
use crate::progress::Progress;
use crate::queue::{Delivery, Lease, QueueError, RequestQueue, ResultSink};
use crate::standing::check_masked;
use crate::telemetry;
use permits::{Permit, Permits};
use request_ids::id_of;
use state::HeldMessage;

pub use settings::WorkerSettings;
pub use state::{
    JobLinks, JobStatus, QueueStatus, RecentResult, WaitReason, WaitingMessages, WorkerState,
    WorkerStatus,
};

/// Messages that may be held without a permit, until they are nacked or retried.
const MAX_WAITING: usize = 100;
/// How long cancelled jobs may take to end, before the worker ends without them.
const CANCEL_LIMIT: Duration = Duration::from_secs(60);

/// Requests whose deliveries are counted.
const MAX_COUNTED: usize = 10_000;

/// The two steps of a shutdown.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Graceful: take no new jobs, finish running ones.
    pub soft: CancellationToken,
    /// Immediate: cancel running jobs, clean up, nack their messages.
    pub hard: CancellationToken,
    /// Cancelled once the subscriptions are closed: from then on, a nacked message goes to another worker.
    pub(crate) closed: CancellationToken,
}

/// State that the tasks of a running worker share.
#[derive(Clone)]
struct WorkerContext {
    permits: Permits,
    tasks: TaskTracker,
    /// Cancelled when no new jobs may be taken.
    soft: CancellationToken,
    shutdown: Shutdown,
}

impl WorkerContext {
    /// Runs `work` until a graceful stop begins; `None` if that happens first.
    async fn until_soft<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.soft.cancelled() => None,
            done = work => Some(done),
        }
    }

    /// The next delivery, once it is `possible` to get a permit for it: until then, messages are left to other
    /// workers. `None` once a graceful stop begins.
    async fn next(
        &self,
        queue: &mut dyn RequestQueue,
        possible: impl Future<Output = ()>,
    ) -> Result<Option<Delivery>, QueueError> {
        if self.until_soft(possible).await.is_none() {
            return Ok(None);
        }
        self.until_soft(queue.next()).await.transpose()
    }
}

/// A message that this worker holds until it is settled.
struct Received {
    delivery: Delivery,
    held: HeldMessage,
}

/// The lease and the permit that a job holds while it runs.
struct JobResources<'a> {
    /// Only for requests: released to the queue's flow control (`rest`) while the job waits.
    lease: Option<&'a mut (dyn Lease + 'static)>,
    /// The job's message; scheduled verifications have none.
    held: Option<&'a HeldMessage>,
    permit: Option<Permit>,
    context: &'a WorkerContext,
}

impl JobResources<'_> {
    /// Waits for `event`, releasing the permit meanwhile unless too many jobs already wait. Returns false
    /// if the worker is stopping.
    async fn wait(
        &mut self,
        waiting: &Semaphore,
        (reason, event): (WaitReason, impl Future<Output = ()>),
    ) -> bool {
        let slot = waiting.try_acquire();
        if let (Ok(_), Some(lease)) = (&slot, &mut self.lease) {
            lease.rest();
            self.permit = None;
        }
        let shown = self.held.map(|held| held.waits_for(reason));
        if self.context.until_soft(event).await.is_none() {
            return false;
        }
        drop((shown, slot));
        if self.lease.is_some() && self.permit.is_none() {
            let _shown = self.held.map(|held| held.waits_for(WaitReason::Permit));
            self.permit = self
                .context
                .until_soft(self.context.permits.restore())
                .await;
            return self.permit.is_some();
        }
        true
    }
}

/// Takes requests and notifications, runs their jobs and settles their messages.
#[derive(Clone)]
pub struct Worker {
    manager: RestoreManager,
    results: Arc<dyn ResultSink>,
    metrics: RestoreMetricsManager,
    settings: Arc<WorkerSettings>,
    state: Arc<WorkerState>,
    /// Requests that run in this process: a second delivery of one waits for the first.
    in_flight: Arc<parking_lot::Mutex<HashMap<String, CancellationToken>>>,
    /// Deliveries per request, for subscriptions that do not count them.
    deliveries: Arc<Mutex<HashMap<String, u32>>>,
    /// Limits how many messages are held without a permit.
    waiting: Arc<Semaphore>,
    /// Tells of new backups, and of new proofs, for standing restores.
    backup_news: Arc<watch::Sender<()>>,
}

impl Worker {
    pub fn new(
        manager: RestoreManager,
        results: Arc<dyn ResultSink>,
        metrics: RestoreMetricsManager,
        settings: WorkerSettings,
    ) -> Self {
        let state = Arc::new(WorkerState::new(manager.config()));
        Worker {
            manager,
            results,
            metrics,
            settings: Arc::new(settings),
            state,
            in_flight: Arc::default(),
            deliveries: Arc::default(),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            backup_news: Arc::default(),
        }
    }

    /// The same worker, whose state is shown by `state`.
    pub fn with_state(self, state: Arc<WorkerState>) -> Self {
        Worker { state, ..self }
    }

    /// Runs until `shutdown`, then drains. `requests` carries restore and verification requests,
    /// `notifications` the bucket's notifications.
    ///
    /// # Errors
    /// A subscription rejects this worker permanently.
    pub async fn run(
        &self,
        mut requests: Box<dyn RequestQueue>,
        mut notifications: Option<Box<dyn RequestQueue>>,
        shutdown: Shutdown,
    ) -> Result<(), QueueError> {
        let permits = Permits::new(self.settings.max_concurrent);
        let tasks = TaskTracker::new();
        // If one queue fails permanently, the other tasks stop too.
        let context = WorkerContext {
            permits,
            tasks: tasks.clone(),
            soft: shutdown.soft.child_token(),
            shutdown,
        };
        let end = |ended: Result<(), QueueError>| {
            context.soft.cancel();
            ended
        };
        let (requested, notified, (), (), (), ()) = tokio::join!(
            async { end(self.take_requests(requests.as_mut(), &context).await) },
            async {
                match notifications.as_deref_mut() {
                    Some(queue) => end(self.take_notifications(queue, &context).await),
                    None => Ok(()),
                }
            },
            self.run_scheduler(&context),
            self.run_standing(&context),
            self.run_reaper(&context),
            self.load_history(&context),
        );
        self.state.stopping();
        requests.close().await;
        if let Some(queue) = &mut notifications {
            queue.close().await;
        }
        context.shutdown.closed.cancel();
        self.drain(&tasks, &context.shutdown).await;
        requests.flush().await;
        if let Some(queue) = &mut notifications {
            queue.flush().await;
        }
        requested.and(notified)
    }

    /// Takes requests for restores and verifications until a graceful stop.
    async fn take_requests(
        &self,
        queue: &mut dyn RequestQueue,
        context: &WorkerContext,
    ) -> Result<(), QueueError> {
        loop {
            let possible = context.permits.restore_possible();
            let Some(delivery) = context.next(queue, possible).await? else {
                return Ok(());
            };
            let request = RestoreRequest::from_message(&delivery.data, &delivery.attributes);
            let received = self.receive(delivery);
            let permit = match request {
                // Rejecting it needs no permit.
                Err(_) => None,
                Ok(_) => {
                    let _shown = received.held.waits_for(WaitReason::Permit);
                    match context.until_soft(context.permits.restore()).await {
                        Some(permit) => Some(permit),
                        None => return Ok(()),
                    }
                }
            };
            let (worker, context) = (self.clone(), context.clone());
            context
                .tasks
                .clone()
                .spawn(async move { worker.handle(received, request, permit, &context).await });
        }
    }

    /// Takes notifications of new backups and starts a verification of each.
    async fn take_notifications(
        &self,
        queue: &mut dyn RequestQueue,
        context: &WorkerContext,
    ) -> Result<(), QueueError> {
        loop {
            let possible = context.permits.verification_possible();
            let Some(delivery) = context.next(queue, possible).await? else {
                return Ok(());
            };
            let manager = &self.manager;
            let job = notification::job_of(&delivery.attributes, manager.config(), |n| {
                manager.catalog().is_backup(n)
            });
            let received = self.receive(delivery);
            let job = match job {
                Ok(job) => job,
                Err(why) => {
                    tracing::info!(
                        message_id = received.delivery.message_id,
                        why,
                        "the notification is ignored"
                    );
                    self.settle(received, Settle::Ack, (1, None), &context.shutdown)
                        .await;
                    continue;
                }
            };
            self.backup_news.send_replace(());
            let shown = received.held.waits_for(WaitReason::Permit);
            let Some(permit) = context.until_soft(context.permits.verification()).await else {
                return Ok(());
            };
            drop(shown);
            let (worker, context) = (self.clone(), context.clone());
            context.tasks.clone().spawn(async move {
                worker
                    .verify_new_backup(received, job, permit, &context)
                    .await
            });
        }
    }

    fn receive(&self, delivery: Delivery) -> Received {
        let held = self.state.hold(delivery.published);
        Received { delivery, held }
    }

    /// Verifies one new backup and settles its notification.
    async fn verify_new_backup(
        &self,
        received: Received,
        mut job: VerifyJob,
        permit: Permit,
        context: &WorkerContext,
    ) {
        let span = tracing::info_span!(
            "delivery",
            message_id = received.delivery.message_id,
            request_id = job.request_id,
            otel.kind = "consumer"
        );
        telemetry::follow(&span, &received.delivery.attributes);
        let work = async {
            let now = jiff::Timestamp::now();
            job.attempt = self.count_delivery(&received.delivery, &job.request_id, now);
            let catalog = self.manager.catalog();
            let hard = &context.shutdown.hard;
            match hard.run_until_cancelled(catalog.is_outdated(&job)).await {
                Some(Ok(true)) => {
                    tracing::info!(
                        "skipped: the backup is older than the newest proven one, a newer piece of it exists, or the object is not a backup"
                    );
                    self.forget(&job.request_id);
                    let settled = (job.attempt, Some(permit));
                    return self
                        .settle(received, Settle::Ack, settled, &context.shutdown)
                        .await;
                }
                // An immediate stop ends the verification, too.
                Some(Ok(false)) | None => {}
                // The verification runs into the same error and reports it.
                Some(Err(e)) => {
                    tracing::debug!(error = report(&e), "failed to determine the newest proof");
                }
            }
            let attempt = job.attempt;
            let (finished, permit) = self
                .verify_preemptible(Job::Verify(job), (permit, Some(&received.held)), context)
                .await;
            self.end(
                received,
                finished,
                (attempt, Some(""), permit),
                &context.shutdown,
            )
            .await;
        };
        work.instrument(span).await;
    }

    /// Runs a verification. If a restore preempts its permit, waits for another one and starts over. Scheduled
    /// verifications have no message.
    async fn verify_preemptible(
        &self,
        job: Job,
        (mut permit, held): (Permit, Option<&HeldMessage>),
        context: &WorkerContext,
    ) -> (JobOutcome, Option<Permit>) {
        loop {
            let preempted = permit.preempted();
            let stop = context.shutdown.hard.child_token();
            let cancel_if_preempted = async {
                preempted.cancelled().await;
                stop.cancel();
                std::future::pending::<JobOutcome>().await
            };
            let mut resources = JobResources {
                lease: None,
                held,
                permit: None,
                context,
            };
            let finished = tokio::select! {
                finished = self.run_deduplicated(&job, &mut resources, &stop) => finished,
                finished = cancel_if_preempted => finished,
            };
            let was_preempted = preempted.is_cancelled() && finished.failure == Some(R::Cancelled);
            if !was_preempted || context.shutdown.hard.is_cancelled() {
                return (finished, Some(permit));
            }
            tracing::info!("a restore preempts this verification, which will start over");
            drop(permit);
            let _shown = held.map(|held| held.waits_for(WaitReason::Permit));
            permit = match context.until_soft(context.permits.verification()).await {
                Some(permit) => permit,
                // The message is nacked, for another worker.
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
                "drain timeout reached or immediate stop requested: running jobs are cancelled"
            );
            shutdown.hard.cancel();
            if tokio::time::timeout(CANCEL_LIMIT, tasks.wait())
                .await
                .is_err()
            {
                // Their messages are delivered again, and the next attempt goes on or cleans up.
                tracing::error!(
                    running = tasks.len(),
                    "cancelled jobs did not end within {CANCEL_LIMIT:?}: the worker ends without them"
                );
            }
        }
        tracing::info!(in_time = finished, "drained");
    }

    /// Handles one delivery from arrival to settlement.
    async fn handle(
        &self,
        received: Received,
        request: Result<RestoreRequest, RestoreError>,
        permit: Option<Permit>,
        context: &WorkerContext,
    ) {
        let span = tracing::info_span!(
            "delivery",
            message_id = received.delivery.message_id,
            request_id = tracing::field::Empty,
            otel.kind = "consumer"
        );
        telemetry::follow(&span, &received.delivery.attributes);
        self.handle_in_span(received, request, permit, context)
            .instrument(span)
            .await;
    }

    async fn handle_in_span(
        &self,
        mut received: Received,
        request: Result<RestoreRequest, RestoreError>,
        mut permit: Option<Permit>,
        context: &WorkerContext,
    ) {
        let now = jiff::Timestamp::now();
        let request_id = id_of(&request, &received.delivery);
        tracing::Span::current().record("request_id", request_id.as_str());
        let attempt = self.count_delivery(&received.delivery, &request_id, now);
        let digest = request
            .as_ref()
            .map(RestoreRequest::digest)
            .unwrap_or_default();
        let published = received.delivery.published;
        let job = self.admit(&received.delivery, request).map(|mut job| {
            job.delivered(published, attempt);
            job
        });
        let recorded = match &job {
            Ok(job) => {
                let catalog = self.manager.catalog();
                catalog
                    .recorded((&request_id, Kind::of(job)), &digest)
                    .await
            }
            Err(_) => Ok(None),
        };
        // Whoever may publish can send a request that is refused, under any id: its answer is no outcome of that id.
        let mut to_record = None;
        let finished = match job.and_then(|job| Ok((job, recorded?))) {
            Ok((_, Some(result))) => JobOutcome::recorded(result),
            Ok((job, None)) => {
                to_record = Some(digest.as_str());
                let mut resources = JobResources {
                    lease: Some(received.delivery.lease.as_mut()),
                    held: Some(&received.held),
                    permit: permit.take(),
                    context,
                };
                let finished = self
                    .run_deduplicated(&job, &mut resources, &context.shutdown.hard)
                    .await;
                permit = resources.permit;
                finished
            }
            Err(e) => {
                tracing::warn!(error = report(&e), "the request is rejected");
                // The publish time is the same for every delivery, so a redelivery gets the same event.
                let at = jiff::Timestamp::from_microsecond(published).unwrap_or(now);
                let mut result = RestoreResult::failure(&request_id, &e, Stage::Request, (at, at));
                result.attempt = attempt;
                JobOutcome::failed(result, e.reason())
            }
        };
        self.end(
            received,
            finished,
            (attempt, to_record, permit),
            &context.shutdown,
        )
        .await;
    }

    /// The job that a message asks for, if it is allowed. Reads no backup and connects to no server.
    fn admit(
        &self,
        delivery: &Delivery,
        request: Result<RestoreRequest, RestoreError>,
    ) -> Result<Job, RestoreError> {
        let admission = &self.settings.admission;
        admission.check_signature(&delivery.data, &delivery.attributes, delivery.published)?;
        let (request, default_db) = (request?, self.settings.default_db.as_deref());
        let job = if request.request_id.is_empty() {
            admission.check_may_lack_id()?;
            request.into_job_of_message(&delivery.message_id, default_db)?
        } else {
            request.into_job(default_db)?
        };
        admission.check(&job)?;
        let configured = self.manager.config().masking.as_ref();
        check_masked(&self.settings.standing, &job, configured)?;
        self.manager.catalog().check_source(job.backup())?;
        if let Some(target) = job.target_db() {
            self.manager.check_served(target, job.is_fill())?;
        } else if job.is_rehearsal() {
            self.manager.check_has_target()?;
        }
        Ok(job)
    }

    fn count_delivery(&self, delivery: &Delivery, request_id: &str, now: jiff::Timestamp) -> u32 {
        let attempt = delivery.attempt.unwrap_or_else(|| {
            let mut seen = self.deliveries.lock();
            if seen.len() >= MAX_COUNTED {
                // As after a restart. Redeliveries of these are counted from here on.
                seen.clear();
            }
            let count = seen.entry(request_id.to_owned()).or_insert(0);
            *count += 1;
            *count
        });
        match attempt {
            1 => {
                let delay = (now.as_microsecond() - delivery.published) as f64 / 1e6;
                self.metrics.record_queue_delay(delay);
                self.state.waited(delay);
            }
            _ => self.metrics.record_redelivery(),
        }
        attempt
    }

    /// Runs a job once no other delivery of it runs in this process, and retries while its target is busy. A job
    /// that waits releases its permit.
    async fn run_deduplicated(
        &self,
        job: &Job,
        resources: &mut JobResources<'_>,
        stop: &CancellationToken,
    ) -> JobOutcome {
        let done = loop {
            let earlier = match self.in_flight.lock().entry(job.request_id().to_owned()) {
                Entry::Occupied(other) => other.get().clone(),
                Entry::Vacant(free) => break free.insert(CancellationToken::new()).clone(),
            };
            let earlier_or_stop = async {
                tokio::select! {
                    () = earlier.cancelled() => {}
                    () = stop.cancelled() => {}
                }
            };
            let wait = (WaitReason::SameRequest, earlier_or_stop);
            let may_go_on = resources.wait(&self.waiting, wait).await;
            if !may_go_on || stop.is_cancelled() {
                return self.cancelled_outcome(job);
            }
        };
        let finished = loop {
            let finished = self.run_guarded(job, stop).await;
            if finished.failure != Some(R::TargetBusy) {
                break finished;
            }
            let pause = self.settings.busy_pause.mul_f64(0.5 + fastrand::f64());
            // A waiting request is nacked as soon as the worker stops.
            let wait = (WaitReason::TargetBusy, tokio::time::sleep(pause));
            if !resources.wait(&self.waiting, wait).await {
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

    /// The outcome of a job that had not started when the worker stopped.
    fn cancelled_outcome(&self, job: &Job) -> JobOutcome {
        let e = RestoreError::cancelled("the worker is stopping");
        let now = jiff::Timestamp::now();
        let result = RestoreResult::failure(job.request_id(), &e, Stage::Request, (now, now));
        JobOutcome::failed(result, e.reason())
    }

    /// Runs the job in a task of its own, so that a panic ends one job and not the worker.
    async fn run_guarded(&self, job: &Job, stop: &CancellationToken) -> JobOutcome {
        let progress = Arc::new(Progress::default());
        let _running = self.state.enter(job, progress.clone());
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
                let e = RestoreError::internal(format!("the job's task failed: {e}"));
                tracing::error!(error = report(&e), "internal error");
                let times = (started, jiff::Timestamp::now());
                let result = RestoreResult::failure(job.request_id(), &e, progress.stage(), times);
                JobOutcome::failed(result, e.reason())
            }
        }
    }
}

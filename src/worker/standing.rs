//! Standing restores: each order is followed by a loop of its own, which finds the newest backup and begins its run
//! when it is due. Nothing depends on a message or on one worker: every check starts from what the bucket has. If two workers
//! begin the same run, the lock of the target lets one of them work, and the other one finds the outcome.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use pgdump_restore::Stage;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use super::{Worker, WorkerContext};
use crate::error::{FailureReason as R, RestoreError, ValidationError, ValidationKind, report};
use crate::event::{Kind, RestoreResult};
use crate::job::{Generation, Job};
use crate::manager::JobOutcome;
use crate::outcome::disposition;
use crate::retry::Backoff;
use crate::standing::{
    Candidate, Due, NewestBackup, OrderHistory, OrderSnapshot, PendingBackups, RunOutcome,
    StandingOrder, StandingRun, StandingStates, StandingStatus, due, newest,
};

/// The shortest and the longest pause before an order is checked again if something of it could not be read.
const UNREAD_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The shortest pause between two checks.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// How many times longer than for a message the target of an order is left alone while it is busy: most of the time,
/// another worker restores the same backup into it.
const BUSY_FACTOR: u32 = 4;
/// Most runs of an order that are superseded and not answered.
const MAX_SUPERSEDED: usize = 100;

/// A backup whose run will not begin, and the newer one in its place.
type SupersededRun = (Candidate, Candidate);

/// What one worker remembers about an order, in addition to what the bucket says.
#[derive(Default)]
struct OrderProgress {
    backups: PendingBackups,
    /// Runs that are superseded, unless another worker has begun them; nothing is published of them yet.
    superseded: Vec<SupersededRun>,
    /// The last backup that was tried, and how often.
    tried: Option<(Generation, u32)>,
    /// The last backup of which this worker has published an outcome.
    answered: Option<Generation>,
    /// Why the last attempt has to be made again.
    problem: Option<String>,
}

impl OrderProgress {
    /// A backup whose run is due, or will be when the window opens.
    fn put(&mut self, newest: Candidate) {
        // It may be the newest one again.
        self.superseded
            .retain(|(older, _)| older.generation != newest.generation);
        if let Some(older) = self.backups.put(newest.clone()) {
            self.supersede(older, newest);
        }
    }

    /// Of runs that could not be answered for long, the oldest are forgotten.
    fn supersede(&mut self, older: Candidate, newer: Candidate) {
        self.superseded.push((older, newer));
        let too_many = self.superseded.len().saturating_sub(MAX_SUPERSEDED);
        self.superseded.drain(..too_many);
    }

    /// The backup whose run begins, and the number of this attempt.
    fn begin(&mut self) -> Option<(Candidate, u32)> {
        let backup = self.backups.begin()?;
        let before = self.tried.filter(|(tried, _)| *tried == backup.generation);
        let attempt = before.map_or(1, |(_, attempts)| attempts + 1);
        self.tried = Some((backup.generation, attempt));
        Some((backup, attempt))
    }

    /// Nothing is due any more, as if the order was paused. Returns whether an attempt was to be made again.
    fn give_up(&mut self) -> bool {
        self.backups.clear();
        self.problem.take().is_some()
    }

    /// The attempt has ended. Its backup need not be tried again if a newer one waits.
    fn end(&mut self, generation: Generation, end: AttemptEnd) {
        let again = match end {
            AttemptEnd::Answered => {
                self.answered = Some(generation);
                false
            }
            AttemptEnd::Busy => {
                // It was not tried.
                self.tried = None;
                true
            }
            AttemptEnd::Again(_) => true,
        };
        let older = self.backups.end(again);
        if let (Some(older), Some(newer)) = (older, self.backups.waits().cloned()) {
            self.supersede(older, newer);
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptEnd {
    /// Its outcome was published, or there was nothing to do any more.
    Answered,
    /// The target is in use.
    Busy,
    /// Another attempt can help; the number of this one.
    Again(u32),
}

/// An order that is followed.
struct FollowedOrder<'a> {
    order: &'a StandingOrder,
    progress: Arc<Mutex<OrderProgress>>,
    attempt: Option<JoinHandle<AttemptEnd>>,
    /// No attempt begins before this.
    not_before: Option<Instant>,
    /// Checks in a row at which something could not be read.
    unread: u32,
    /// The problem that was logged last.
    logged_problem: Option<String>,
    /// Its metrics have values.
    is_measured: bool,
}

impl FollowedOrder<'_> {
    /// Logs what keeps the order from making a copy, if that is new.
    fn log_problem(&mut self, problem: Option<&str>) {
        if self.logged_problem.as_deref() == problem {
            return;
        }
        if let Some(why) = problem {
            tracing::warn!(
                order = self.order.name,
                why,
                "a standing restore makes no copy"
            );
        }
        self.logged_problem = problem.map(str::to_owned);
    }

    /// Waits until the attempt that runs has ended.
    async fn attempt_ended(&mut self) -> AttemptEnd {
        match &mut self.attempt {
            None => std::future::pending().await,
            Some(attempt) => {
                let ended = attempt.await;
                self.attempt = None;
                ended.unwrap_or_else(|e| {
                    tracing::error!(
                        order = self.order.name,
                        error = %e,
                        "internal error: an attempt at a standing restore ended without an outcome"
                    );
                    self.progress.lock().backups.end(true);
                    AttemptEnd::Again(1)
                })
            }
        }
    }
}

/// What a check of an order found.
struct ObservedOrder {
    history: OrderHistory,
    newest: Option<Candidate>,
    had_run: bool,
    /// Why there is none, although there are backups, or what is wrong with the copy in the target.
    problem: Option<String>,
}

impl ObservedOrder {
    fn due(&self, order: &StandingOrder, now: jiff::Timestamp) -> Due {
        let last = self.history.last_by(order.rules());
        let snapshot = OrderSnapshot {
            newest: self.newest.as_ref(),
            had_run: self.had_run,
            is_paused: self.history.paused_since.is_some(),
            restored: last.and_then(|run| run.backup_created),
            would_unmask: self.history.would_unmask(order.rules()),
        };
        due(order, snapshot, now)
    }
}

impl Worker {
    /// Follows all orders until a graceful stop begins.
    pub(super) async fn run_standing(&self, context: &WorkerContext) {
        let orders = &self.settings.standing;
        let now = (self.settings.clock)();
        for order in orders {
            // Not in the metrics: what they said last counts until the bucket has been read.
            let unknown = StandingStatus::of(order, &OrderHistory::default(), now);
            self.state.set_order(unknown);
        }
        let followed = orders.iter().map(|o| self.follow_order(o, context).boxed());
        join_all(followed.collect::<Vec<_>>()).await;
    }

    async fn follow_order(&self, order: &StandingOrder, context: &WorkerContext) {
        let mut news = self.backup_news.subscribe();
        let mut followed = FollowedOrder {
            order,
            progress: Arc::default(),
            attempt: None,
            not_before: None,
            unread: 0,
            logged_problem: None,
            is_measured: false,
        };
        loop {
            news.mark_unchanged();
            let checked = context.until_soft(self.check_order(&mut followed, context));
            let Some(pause) = checked.await else { return };
            let next = async {
                tokio::select! {
                    _ = news.changed() => None,
                    () = tokio::time::sleep(pause) => None,
                    end = followed.attempt_ended() => Some(end),
                }
            };
            let Some(ended) = context.until_soft(next).await else {
                return;
            };
            followed.not_before = match ended {
                None => followed.not_before,
                Some(end) => self.pause_after(end).map(|pause| Instant::now() + pause),
            };
        }
    }

    /// How long no further attempt begins.
    fn pause_after(&self, end: AttemptEnd) -> Option<Duration> {
        match end {
            AttemptEnd::Answered => None,
            AttemptEnd::Busy => {
                let pause = self.settings.busy_pause * BUSY_FACTOR;
                Some(pause.mul_f64(0.5 + fastrand::f64()))
            }
            AttemptEnd::Again(attempt) => {
                let (first, longest) = self.settings.nack_backoff;
                Some(Backoff::after(attempt, first, longest))
            }
        }
    }

    /// Checks an order, begins its run if that is due, and returns how long nothing else will be due.
    async fn check_order(
        &self,
        followed: &mut FollowedOrder<'_>,
        context: &WorkerContext,
    ) -> Duration {
        let (order, now) = (followed.order, (self.settings.clock)());
        let observed = match self.observe(order, &followed.progress, now).await {
            Ok(observed) => observed,
            Err(e) => {
                self.log_unobserved(order, &e);
                if !followed.is_measured {
                    // Otherwise an order whose state can never be read would raise no alert.
                    self.metrics.record_standing(&order.name, 0.0, 0.0);
                }
                followed.unread += 1;
                return Backoff::after(followed.unread, UNREAD_PAUSE.0, UNREAD_PAUSE.1);
            }
        };
        followed.unread = 0;
        let is_paused = observed.history.paused_since.is_some();
        let due = observed.due(order, now);
        let (waits, failed) = {
            let mut progress = followed.progress.lock();
            if let Some(newest) = observed.newest.clone().filter(|_| !is_paused) {
                progress.put(newest);
            }
            if due == Due::Nothing {
                let was_tried = progress.give_up();
                if was_tried {
                    // No attempt follows that could show that the worker lacks nothing any more.
                    self.state.set_ready(true);
                }
            }
            (progress.backups.waits().cloned(), progress.problem.clone())
        };
        followed.log_problem(observed.problem.as_deref());
        let shown = (waits.as_ref(), failed.or(observed.problem));
        self.show_order(order, &observed.history, shown, now);
        followed.is_measured = true;
        self.answer_superseded(order, &followed.progress, context);
        let is_held_back = followed.not_before.is_some_and(|t| t > Instant::now());
        if due == Due::Now && waits.is_some() && followed.attempt.is_none() && !is_held_back {
            followed.not_before = None;
            let attempt =
                self.clone()
                    .attempt(order.clone(), followed.progress.clone(), context.clone());
            // Tracked, so that the drain timeout applies to it too.
            followed.attempt = Some(context.tasks.spawn(attempt));
        }
        self.pause_of(followed, now)
    }

    fn log_unobserved(&self, order: &StandingOrder, e: &RestoreError) {
        let error = report(e);
        self.state.set_problem(&order.name, &error);
        tracing::warn!(
            order = order.name,
            error,
            "failed to look for the backups of a standing restore"
        );
    }

    fn pause_of(&self, followed: &FollowedOrder<'_>, now: jiff::Timestamp) -> Duration {
        let usual = self.settings.standing_pause.mul_f64(0.5 + fastrand::f64());
        let until = |t: jiff::Timestamp| Duration::try_from(t.duration_since(now)).ok();
        let change = followed.order.next_change(now).and_then(until);
        let held_back = followed.not_before.filter(|_| followed.attempt.is_none());
        let held_back = held_back.map(|t| t.saturating_duration_since(Instant::now()));
        // What is over holds nothing back.
        let held_back = held_back.filter(|pause| !pause.is_zero());
        let pauses = [Some(usual), change, held_back];
        let pause = pauses.into_iter().flatten().min().unwrap_or(usual);
        pause.max(MIN_PAUSE)
    }

    /// Reads what is known of an order, and its newest backup, unless it is paused.
    async fn observe(
        &self,
        order: &StandingOrder,
        progress: &Mutex<OrderProgress>,
        now: jiff::Timestamp,
    ) -> Result<ObservedOrder, RestoreError> {
        let catalog = self.manager.catalog();
        let states = StandingStates::open(catalog).await?;
        let history = states.history(&order.name).await?;
        let wanted = order.wanted_at(now);
        let found = match wanted.filter(|_| history.paused_since.is_none()) {
            Some(wanted) => newest(catalog, wanted).await?,
            None => NewestBackup::Nothing,
        };
        let (newest, problem) = match found {
            NewestBackup::Found(backup) => (Some(backup), None),
            NewestBackup::Nothing => (None, None),
            NewestBackup::NoneOfThem(e) => (None, Some(order.why_none(&report(&e)))),
        };
        let answered = progress.lock().answered;
        let had_run = match &newest {
            Some(backup) if answered == Some(backup.generation) => true,
            Some(backup) => states.had_run(&history, &order.run_of(backup)).await?,
            None => false,
        };
        let too_old = newest.as_ref().filter(|_| !had_run);
        let problem = problem
            .or_else(|| history.copy_problem(order))
            .or_else(|| history.older_problem(order, too_old?));
        Ok(ObservedOrder {
            history,
            newest,
            had_run,
            problem,
        })
    }

    /// Shows how an order stands, in the status and in the metrics.
    fn show_order(
        &self,
        order: &StandingOrder,
        history: &OrderHistory,
        (waits, problem): (Option<&Candidate>, Option<String>),
        now: jiff::Timestamp,
    ) {
        let at = |run: &Option<StandingRun>| {
            let finished = run.as_ref().map(|run| run.finished_at.as_microsecond());
            finished.unwrap_or_default() as f64 / 1e6
        };
        let (success, failure) = (at(&history.last_success), at(&history.last_failure));
        self.metrics.record_standing(&order.name, success, failure);
        self.state.set_order(StandingStatus {
            waiting: waits.map(|backup| backup.name.clone()),
            waiting_generation: waits.map(|backup| backup.generation.to_string()),
            problem,
            ..StandingStatus::of(order, history, now)
        });
    }

    /// One attempt at the newest backup that waits, once there is a permit.
    async fn attempt(
        self,
        order: StandingOrder,
        progress: Arc<Mutex<OrderProgress>>,
        context: WorkerContext,
    ) -> AttemptEnd {
        let Some(permit) = context.until_soft(context.permits.restore()).await else {
            return AttemptEnd::Again(1);
        };
        // Meanwhile the window may have closed, the order may be paused, or another worker may have restored the backup.
        let now = (self.settings.clock)();
        let observed = match context
            .until_soft(self.observe(&order, &progress, now))
            .await
        {
            Some(Ok(observed)) => observed,
            Some(Err(e)) => {
                self.log_unobserved(&order, &e);
                return AttemptEnd::Again(1);
            }
            None => return AttemptEnd::Again(1),
        };
        let is_due = observed.due(&order, now) == Due::Now;
        let begun = observed.newest.filter(|_| is_due).and_then(|newest| {
            let mut progress = progress.lock();
            progress.put(newest);
            progress.begin()
        });
        let Some((backup, attempt)) = begun else {
            return AttemptEnd::Answered;
        };
        let span = tracing::info_span!(
            "standing_restore",
            order = order.name,
            request_id = order.request_id(&backup)
        );
        let (end, problem) = self
            .restore_backup(&order, (&backup, attempt), &context)
            .instrument(span)
            .await;
        drop(permit);
        {
            let mut progress = progress.lock();
            progress.end(backup.generation, end);
            progress.problem = problem;
        }
        // The target is free now.
        self.answer_superseded(&order, &progress, &context);
        end
    }

    /// Restores a backup for an order. The outcome is recorded and published like that of a request. Returns also why
    /// another attempt is needed.
    async fn restore_backup(
        &self,
        order: &StandingOrder,
        (backup, attempt): (&Candidate, u32),
        context: &WorkerContext,
    ) -> (AttemptEnd, Option<String>) {
        let (id, digest) = (order.request_id(backup), order.digest(backup));
        let catalog = self.manager.catalog();
        let recorded = catalog.recorded((&id, Kind::Restore), &digest).await;
        let job = order.admitted_job(backup, id.clone(), &self.settings.admission);
        let finished = match job.and_then(|job| Ok((job, recorded?))) {
            Ok((_, Some(result))) => JobOutcome::recorded(result),
            Ok((mut job, None)) => {
                job.attempt = attempt;
                self.run_guarded(&Job::Restore(job), &context.shutdown.hard)
                    .await
            }
            Err(e) => {
                tracing::warn!(error = report(&e), "the standing restore cannot begin");
                JobOutcome::failed(failure(order, backup, &e), e.reason())
            }
        };
        if finished.failure == Some(R::TargetBusy) {
            return (AttemptEnd::Busy, None);
        }
        let attempts = finished.counted_attempt(attempt);
        let d = disposition(finished.retry_class(), attempts, self.settings.max_attempts);
        // Somebody has to act: the same that a request says.
        self.state.set_ready(d.ready);
        if !d.publish {
            return (AttemptEnd::Again(attempt), why_again(&finished));
        }
        match self
            .answer(order, backup, (finished, &digest), context)
            .await
        {
            Ok(()) => (AttemptEnd::Answered, None),
            Err(e) => {
                tracing::error!(error = e, "failed to publish the result");
                self.metrics.record_publish_failure();
                let why = format!("the result is not published: {e}");
                (AttemptEnd::Again(attempt), Some(why))
            }
        }
    }

    /// Records, publishes and remembers how a run ended.
    async fn answer(
        &self,
        order: &StandingOrder,
        backup: &Candidate,
        (mut finished, digest): (JobOutcome, &str),
        context: &WorkerContext,
    ) -> Result<(), String> {
        let may_repeat = finished.lacks_journal() && !self.manager.catalog().records_outcomes();
        self.record(&mut finished, Some(digest)).await?;
        let run = StandingRun::of(order, backup, &finished.result);
        if !may_repeat {
            // Whoever begins it again finds its outcome, and publishes that.
            self.publish(&finished.result).await?;
            self.completed(&finished);
            self.remember(run).await;
        } else {
            // Otherwise another worker would restore the backup once more, over a copy that people use already.
            self.remember(run).await;
            self.publish_remembered(&finished, context).await;
            self.completed(&finished);
        }
        Ok(())
    }

    /// Publishes the outcome of a run that will not begin again.
    async fn publish_remembered(&self, finished: &JobOutcome, context: &WorkerContext) {
        let (first, longest) = self.settings.nack_backoff;
        for attempt in 1..=self.settings.max_attempts {
            let Err(e) = self.publish(&finished.result).await else {
                return;
            };
            tracing::error!(error = e, "failed to publish the result");
            self.metrics.record_publish_failure();
            let pause = tokio::time::sleep(Backoff::after(attempt, first, longest));
            if context.until_soft(pause).await.is_none() {
                return;
            }
        }
    }

    /// Answers the runs that are superseded, in a task of its own. What cannot be answered now is tried at the next check.
    fn answer_superseded(
        &self,
        order: &StandingOrder,
        progress: &Arc<Mutex<OrderProgress>>,
        context: &WorkerContext,
    ) {
        let superseded = std::mem::take(&mut progress.lock().superseded);
        if superseded.is_empty() {
            return;
        }
        let (worker, order, progress) = (self.clone(), order.clone(), progress.clone());
        // Whole, also if the worker stops meanwhile.
        context.tasks.spawn(async move {
            for run in superseded {
                if !worker.supersede(&order, &run).await {
                    progress.lock().supersede(run.0, run.1);
                }
            }
        });
    }

    /// Publishes that a run will not begin, because a newer backup is there. Returns whether it is answered. That nobody
    /// works on the target, and that the run has no outcome, is certain only while its locks are held: another worker may
    /// have begun it. Nothing is recorded under its id, as it can begin after all if the newer backup does not stay.
    async fn supersede(&self, order: &StandingOrder, (older, newer): &SupersededRun) -> bool {
        let id = order.request_id(older);
        let held = match self.manager.hold_idle(&order.target_db, &id).await {
            Ok(held) => held,
            Err(e) => {
                tracing::debug!(
                    order = order.name,
                    error = report(&e),
                    "a run that is superseded is not answered yet"
                );
                return false;
            }
        };
        match self.is_answered(order, older).await {
            Ok(is_answered) if is_answered || held.has_outcome() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
        let by = order.request_id(newer);
        let what = format!(
            "superseded: the newer run {by} restores {} into {}",
            newer.name, order.target_db
        );
        let e: RestoreError = ValidationError::new(ValidationKind::TargetNotAllowed, what).into();
        let result = failure(order, older, &e);
        tracing::info!(
            order = order.name,
            request_id = result.request_id,
            superseded_by = by,
            "the run of a standing restore is superseded by a newer one"
        );
        let mut finished = JobOutcome::failed(result, e.reason());
        if let Err(e) = self.record_and_publish(&mut finished, None).await {
            tracing::error!(error = e, "failed to publish the result");
            self.metrics.record_publish_failure();
            return false;
        }
        self.state.finished(&finished);
        let run = StandingRun {
            outcome: RunOutcome::Superseded,
            superseded_by: Some(by),
            ..StandingRun::of(order, older, &finished.result)
        };
        self.state.set_superseded(&run);
        self.remember(run).await;
        drop(held);
        true
    }

    /// Whether the run of a backup has ended, or was superseded before.
    async fn is_answered(
        &self,
        order: &StandingOrder,
        backup: &Candidate,
    ) -> Result<bool, RestoreError> {
        let states = StandingStates::open(self.manager.catalog()).await?;
        let history = states.history(&order.name).await?;
        states.is_answered(&history, &order.run_of(backup)).await
    }

    /// Writes down how a run ended. If that fails, the run is begun again later, and its recorded outcome is found.
    async fn remember(&self, run: StandingRun) {
        let order = run.order.clone();
        let remembered = async {
            let states = StandingStates::open(self.manager.catalog()).await?;
            states.record(run, None).await
        };
        if let Err(e) = remembered.await {
            tracing::warn!(
                order,
                error = report(&e),
                "failed to record how a run of a standing restore ended"
            );
        }
    }
}

/// Why another attempt is needed. One that was cancelled has no reason of its own.
fn why_again(finished: &JobOutcome) -> Option<String> {
    let error = finished.result.error.as_ref();
    let error = error.filter(|_| finished.failure != Some(R::Cancelled))?;
    Some(format!("{}: {}", error.reason, error.message))
}

/// The result of a run that did not begin.
fn failure(order: &StandingOrder, backup: &Candidate, e: &RestoreError) -> RestoreResult {
    let (id, now) = (order.request_id(backup), jiff::Timestamp::now());
    let mut result = RestoreResult::failure(&id, e, Stage::Request, (now, now));
    result.target_db = Some(order.target_db.clone());
    result.labels = order.labels();
    result.backup.name = Some(backup.name.clone());
    result.backup.generation = Some(backup.generation.to_string());
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{StorageError, StorageKind};

    fn backup(generation: i64) -> Candidate {
        Candidate {
            name: format!("{generation}.dump"),
            generation: Generation(generation),
            created: jiff::Timestamp::from_second(generation).unwrap(),
        }
    }

    fn superseded(progress: &OrderProgress) -> Vec<(i64, i64)> {
        let runs = progress.superseded.iter();
        runs.map(|(older, newer)| (older.generation.0, newer.generation.0))
            .collect()
    }

    /// Another worker may have begun it: whether it is answered is decided later, under the target's lock.
    #[test]
    fn a_run_that_found_its_target_busy_waits_for_its_answer() {
        let mut progress = OrderProgress::default();
        progress.put(backup(1));
        let (running, attempt) = progress.begin().unwrap();
        assert_eq!((running, attempt), (backup(1), 1));
        progress.put(backup(2));
        progress.end(Generation(1), AttemptEnd::Busy);
        assert_eq!(superseded(&progress), [(1, 2)]);
        // The newer one was deleted: the older one is not superseded any more.
        progress.backups.clear();
        progress.put(backup(1));
        assert!(superseded(&progress).is_empty());
    }

    /// The worker must not stay unready because of a run that nobody waits for.
    #[test]
    fn a_run_that_is_given_up_is_no_problem_any_more() {
        let mut progress = OrderProgress::default();
        progress.put(backup(1));
        assert!(!progress.give_up());
        progress.put(backup(1));
        progress.begin();
        progress.end(Generation(1), AttemptEnd::Again(1));
        progress.problem = Some("access_denied: gs://b/x: no".to_owned());
        assert!(progress.give_up());
        assert!(progress.backups.waits().is_none() && progress.problem.is_none());
        assert!(!progress.give_up());
    }

    #[test]
    fn the_oldest_runs_without_an_answer_are_forgotten() {
        let mut progress = OrderProgress::default();
        for generation in 0..=i64::try_from(MAX_SUPERSEDED).unwrap() + 1 {
            progress.put(backup(generation));
        }
        assert_eq!(progress.superseded.len(), MAX_SUPERSEDED);
        assert_eq!(superseded(&progress)[0], (1, 2));
    }

    #[test]
    fn what_makes_another_attempt_necessary_is_shown() {
        let failed = |e: RestoreError| {
            let t = jiff::Timestamp::UNIX_EPOCH;
            let result = RestoreResult::failure("r", &e, Stage::Request, (t, t));
            JobOutcome::failed(result, e.reason())
        };
        let denied = StorageError::new(StorageKind::AccessDenied, "gs://b/x: no");
        let shown = why_again(&failed(denied.into())).unwrap();
        assert!(
            shown.starts_with("access_denied: ") && shown.contains("gs://b/x"),
            "{shown}"
        );
        let stopped = RestoreError::cancelled("the worker is stopping");
        assert_eq!(why_again(&failed(stopped)), None);
    }
}

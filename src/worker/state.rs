//! The worker's state as `/status.json` and readiness show it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::config::Config;
use crate::database::{TargetHealth, WaitingRestore};
use crate::event::{Kind, RestoreResult};
use crate::job::{BackupRef, Job, LATEST, LATEST_PROVEN};
use crate::manager::{BackupSetStatus, JobOutcome};
use crate::progress::{Progress, Snapshot};
use crate::queue::Health;
use crate::standing::{StandingRun, StandingStatus};
use crate::telemetry;

/// How many recent results are kept.
pub(super) const MAX_RECENT: usize = 100;

/// The state of one worker, shared with its admin server.
#[derive(Default)]
pub struct WorkerState {
    running: Mutex<Vec<Running>>,
    /// Newest first.
    recent: Mutex<VecDeque<RecentResult>>,
    sets: Mutex<Vec<BackupSetStatus>>,
    /// In the order of the configuration.
    orders: Mutex<Vec<StandingStatus>>,
    /// As of the last pass of the reaper.
    continuable: Mutex<Vec<WaitingRestore>>,
    next: AtomicU64,
    broken: AtomicBool,
    stopping: AtomicBool,
    /// Health of the worker's topics and subscriptions.
    health: Mutex<Health>,
    target: Mutex<TargetHealth>,
    links: JobLinks,
    held: Mutex<Vec<HeldDelivery>>,
    /// How long the last new message waited in the queue, in seconds.
    last_delay: Mutex<Option<f64>>,
}

/// URL templates of a job's log and trace, which the status page fills in: `{request_id}`, `{trace_id}`.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct JobLinks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl JobLinks {
    fn of(config: &Config) -> Self {
        JobLinks {
            log: config.log_url.clone(),
            trace: config.trace_url.clone(),
        }
    }
}

/// The messages that this worker has received and not yet settled. The backlog of a subscription, with the messages that
/// no worker has received yet, is known to Cloud Monitoring only, as
/// `pubsub.googleapis.com/subscription/num_undelivered_messages` and
/// `pubsub.googleapis.com/subscription/oldest_unacked_message_age`.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct QueueStatus {
    /// Number of messages that are held, running jobs included.
    pub held: u64,
    /// When the oldest of them was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<jiff::Timestamp>,
    /// Those of them that wait, by what they wait for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingMessages>,
    /// How long the last new message waited from its publication to its arrival, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delay_seconds: Option<f64>,
}

/// What a held message waits for.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// Another restore or rollback works on its target. While a worker tries again to get the target, the job is listed
    /// as running.
    TargetBusy,
    /// Another delivery of the same request is being processed.
    SameRequest,
    /// As many jobs run as may run at once (RESTORE_MAX_CONCURRENT).
    Permit,
    /// Its attempt failed, or its result could not be published: it is returned to the subscription after a pause.
    Retry,
}

/// HeldDelivery messages that wait for the same thing.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct WaitingMessages {
    pub reason: WaitReason,
    /// Number of messages.
    pub messages: u64,
    /// When the oldest of them was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<jiff::Timestamp>,
}

/// A result, and the trace of its job.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct RecentResult {
    #[serde(flatten)]
    pub result: RestoreResult,
    /// `None` for jobs that ended before this worker started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl RecentResult {
    fn is_same(&self, other: &RestoreResult) -> bool {
        self.result.request_id == other.request_id && self.result.kind == other.kind
    }
}

fn names_evidence(result: &RestoreResult) -> bool {
    let verification = result.verification.as_ref();
    verification.is_some_and(|v| v.evidence.is_some())
}

struct HeldDelivery {
    id: u64,
    /// When it was published, in microseconds since 1970.
    published: i64,
    waits_for: Option<WaitReason>,
}

/// When the oldest of these messages was published.
fn oldest<'a>(held: impl Iterator<Item = &'a HeldDelivery>) -> Option<jiff::Timestamp> {
    let published = held.map(|h| h.published).min()?;
    jiff::Timestamp::from_microsecond(published).ok()
}

/// Counts a message as held until it is dropped.
pub(super) struct HeldMessage {
    state: Arc<WorkerState>,
    id: u64,
}

impl HeldMessage {
    /// Shows the message as waiting until the returned value is dropped.
    #[must_use]
    pub fn waits_for(&self, reason: WaitReason) -> ShownWait<'_> {
        self.set(Some(reason));
        ShownWait(self)
    }

    fn set(&self, reason: Option<WaitReason>) {
        let mut held = lock(&self.state.held);
        if let Some(message) = held.iter_mut().find(|h| h.id == self.id) {
            message.waits_for = reason;
        }
    }
}

impl Drop for HeldMessage {
    fn drop(&mut self) {
        lock(&self.state.held).retain(|h| h.id != self.id);
    }
}

/// Shows a message as waiting until it is dropped.
pub(super) struct ShownWait<'a>(&'a HeldMessage);

impl Drop for ShownWait<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

struct Running {
    id: u64,
    request_id: String,
    kind: Kind,
    backup: String,
    target_db: Option<String>,
    started_at: jiff::Timestamp,
    attempt: u32,
    trace_id: Option<String>,
    progress: Arc<Progress>,
}

/// A running restore or verification.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct JobStatus {
    pub request_id: String,
    pub kind: Kind,
    pub backup: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_db: Option<String>,
    pub started_at: jiff::Timestamp,
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    pub progress: Snapshot,
}

/// `/status.json`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct WorkerStatus {
    pub version: String,
    pub ready: bool,
    pub stopping: bool,
    pub running: Vec<JobStatus>,
    /// Newest first; also of jobs that ended before this worker started, as far as they are recorded.
    pub recent: Vec<RecentResult>,
    /// The status of each backup set.
    pub sets: Vec<BackupSetStatus>,
    /// The status of each standing restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standing: Vec<StandingStatus>,
    /// Restores that stopped, and whose work is kept for their next attempt, as of the worker's last look (REAP_EVERY).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continuable: Vec<WaitingRestore>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    #[serde(default)]
    pub queue: QueueStatus,
    #[serde(default)]
    pub links: JobLinks,
}

/// Lists a job as running until it is dropped.
pub(super) struct ListedJob {
    state: Arc<WorkerState>,
    id: u64,
}

impl Drop for ListedJob {
    fn drop(&mut self) {
        lock(&self.state.running).retain(|r| r.id != self.id);
    }
}

fn lock<T>(m: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    m.lock()
}

impl WorkerStatus {
    /// What is known without a worker: what can be continued, and why no worker tells more.
    pub fn without_worker(continuable: Vec<WaitingRestore>, problem: String) -> Self {
        WorkerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: false,
            stopping: false,
            running: vec![],
            recent: vec![],
            sets: vec![],
            standing: vec![],
            continuable,
            problems: vec![problem],
            queue: QueueStatus::default(),
            links: JobLinks::default(),
        }
    }
}

impl WorkerState {
    pub fn new(config: &Config) -> Self {
        WorkerState {
            links: JobLinks::of(config),
            ..WorkerState::default()
        }
    }

    /// Counts a message that was published then, in microseconds since 1970, as held.
    pub(super) fn hold(self: &Arc<Self>, published: i64) -> HeldMessage {
        let id = self.next.fetch_add(1, Relaxed);
        lock(&self.held).push(HeldDelivery {
            id,
            published,
            waits_for: None,
        });
        HeldMessage {
            state: self.clone(),
            id,
        }
    }

    /// A new message waited this long in the queue.
    pub(super) fn waited(&self, seconds: f64) {
        *lock(&self.last_delay) = Some(seconds.max(0.0));
    }

    pub(super) fn enter(self: &Arc<Self>, job: &Job, progress: Arc<Progress>) -> ListedJob {
        let id = self.next.fetch_add(1, Relaxed);
        lock(&self.running).push(Running {
            id,
            request_id: job.request_id().to_owned(),
            kind: Kind::of(job),
            backup: match job.backup() {
                BackupRef::Named { name, .. } => name.clone(),
                BackupRef::Latest(wanted) if wanted.is_proven => LATEST_PROVEN.to_owned(),
                BackupRef::Latest(_) => LATEST.to_owned(),
                BackupRef::Stdin => "-".to_owned(),
            },
            target_db: job.target_db().map(str::to_owned),
            started_at: jiff::Timestamp::now(),
            attempt: job.attempt(),
            trace_id: telemetry::trace_id(),
            progress,
        });
        ListedJob {
            state: self.clone(),
            id,
        }
    }

    pub(super) fn finished(&self, finished: &JobOutcome) {
        if let Some(proof) = &finished.proof
            && let Some(set) = lock(&self.sets)
                .iter_mut()
                .find(|s| s.name == proof.backup_set)
        {
            set.add(proof);
        }
        let mut recent = lock(&self.recent);
        recent.retain(|r| !r.is_same(&finished.result));
        recent.push_front(RecentResult {
            result: finished.result.clone().shortened(),
            trace_id: telemetry::trace_id(),
        });
        recent.truncate(MAX_RECENT);
    }

    /// Adds results of jobs that ended before this worker started. Of two about the same job, one that names its
    /// evidence stays.
    pub(super) fn add_past(&self, results: Vec<RestoreResult>) {
        let mut recent = lock(&self.recent);
        for result in results.into_iter().map(RestoreResult::shortened) {
            let there = recent.iter_mut().find(|r| r.is_same(&result));
            match there {
                Some(there) if names_evidence(&result) && !names_evidence(&there.result) => {
                    there.result = result;
                }
                Some(_) => {}
                None => recent.push_back(RecentResult {
                    result,
                    trace_id: None,
                }),
            }
        }
        let newest_first = |r: &RecentResult| std::cmp::Reverse(r.result.finished_at);
        recent.make_contiguous().sort_by_key(newest_first);
        recent.truncate(MAX_RECENT);
    }

    pub(super) fn set_standing(&self, sets: Vec<BackupSetStatus>) {
        *lock(&self.sets) = sets;
    }

    /// Shows the restores that can be continued.
    pub(super) fn set_continuable(&self, waiting: Vec<WaitingRestore>) {
        *lock(&self.continuable) = waiting;
    }

    /// Shows how a standing restore stands.
    pub(super) fn set_order(&self, mut status: StandingStatus) {
        let mut orders = lock(&self.orders);
        match orders.iter_mut().find(|o| o.order == status.order) {
            Some(there) => {
                // It was read from the bucket perhaps before this worker wrote there.
                let known = [there.last_superseded.take(), status.last_superseded.take()];
                let newest = known
                    .into_iter()
                    .flatten()
                    .max_by_key(|run| run.finished_at);
                status.last_superseded = newest;
                *there = status;
            }
            None => orders.push(status),
        }
    }

    /// Shows the last run of a standing restore that did not begin.
    pub(super) fn set_superseded(&self, run: &StandingRun) {
        let mut orders = lock(&self.orders);
        if let Some(there) = orders.iter_mut().find(|o| o.order == run.order) {
            there.last_superseded = Some(run.clone());
        }
    }

    /// Shows what keeps a standing restore from making a copy.
    pub(super) fn set_problem(&self, order: &str, what: &str) {
        let mut orders = lock(&self.orders);
        if let Some(there) = orders.iter_mut().find(|o| o.order == order) {
            there.problem = Some(what.to_owned());
        }
    }

    pub(super) fn set_ready(&self, ready: bool) {
        self.broken.store(!ready, Relaxed);
    }

    pub(super) fn stopping(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// Makes readiness depend on the health of the queues.
    pub fn follow(&self, health: Health) {
        *lock(&self.health) = health;
    }

    /// Makes readiness depend on the target server.
    pub fn follow_target(&self, target: TargetHealth) {
        *lock(&self.target) = target;
    }

    /// Why this worker is not ready; empty if it is ready.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = lock(&self.health).problems();
        problems.extend(lock(&self.target).problem());
        if self.broken.load(Relaxed) {
            problems.push(
                "the worker lacks credentials or permissions: see its log, or run pgrestored doctor".into(),
            );
        }
        if self.stopping.load(Relaxed) {
            problems.push("the worker is stopping".into());
        }
        problems
    }

    /// Whether this worker is ready for requests.
    pub fn is_ready(&self) -> bool {
        self.problems().is_empty()
    }

    pub fn status(&self) -> WorkerStatus {
        let describe = |r: &Running| JobStatus {
            request_id: r.request_id.clone(),
            kind: r.kind,
            backup: r.backup.clone(),
            target_db: r.target_db.clone(),
            started_at: r.started_at,
            attempt: r.attempt,
            trace_id: r.trace_id.clone(),
            progress: r.progress.snapshot(),
        };
        WorkerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.is_ready(),
            stopping: self.stopping.load(Relaxed),
            running: lock(&self.running).iter().map(describe).collect(),
            recent: lock(&self.recent).iter().cloned().collect(),
            sets: lock(&self.sets).clone(),
            standing: lock(&self.orders).clone(),
            continuable: lock(&self.continuable).clone(),
            problems: self.problems(),
            queue: self.queue(),
            links: self.links.clone(),
        }
    }

    fn queue(&self) -> QueueStatus {
        let held = lock(&self.held);
        let mut by_reason: BTreeMap<WaitReason, Vec<&HeldDelivery>> = BTreeMap::new();
        for message in held.iter() {
            if let Some(reason) = message.waits_for {
                by_reason.entry(reason).or_default().push(message);
            }
        }
        let waiting = by_reason
            .into_iter()
            .map(|(reason, messages)| WaitingMessages {
                reason,
                messages: messages.len() as u64,
                oldest: oldest(messages.into_iter()),
            });
        QueueStatus {
            held: held.len() as u64,
            oldest: oldest(held.iter()),
            waiting: waiting.collect(),
            last_delay_seconds: *lock(&self.last_delay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(id: &str, second: i64) -> RestoreResult {
        let at = jiff::Timestamp::from_second(second).unwrap();
        RestoreResult::new(id, (at, at))
    }

    #[test]
    fn past_results_are_added_once_and_in_order() {
        let state = WorkerState::default();
        let past = (0..MAX_RECENT as i64 + 5).map(|i| result(&i.to_string(), i));
        state.add_past(past.collect());
        let mut changed = result("104", 104);
        changed.rows = 9;
        state.add_past(vec![changed, result("new", 1000)]);
        let recent = state.status().recent;
        assert_eq!(recent.len(), MAX_RECENT);
        let ids: Vec<&str> = recent
            .iter()
            .map(|r| r.result.request_id.as_str())
            .collect();
        assert_eq!(ids[..3], ["new", "104", "103"]);
        assert_eq!(recent[1].result.rows, 0, "the first one stays");
    }

    #[test]
    fn what_can_be_continued_is_shown_until_the_next_look() {
        let state = WorkerState::default();
        assert!(state.status().continuable.is_empty());
        let at = jiff::Timestamp::UNIX_EPOCH;
        state.set_continuable(vec![WaitingRestore {
            database: "pgrestored_s_1".to_owned(),
            target: "app".to_owned(),
            request_id: "r".to_owned(),
            by_command: false,
            bytes: 5,
            rows: 1,
            share: 0.5,
            attempt: 1,
            since: at,
            until: at,
        }]);
        let shown = serde_json::to_value(state.status()).unwrap();
        assert_eq!(shown["continuable"][0]["target"], "app");
        let again: WorkerStatus = serde_json::from_value(shown).unwrap();
        assert_eq!(again.continuable.len(), 1);
        state.set_continuable(vec![]);
        let shown = serde_json::to_value(state.status()).unwrap();
        assert!(shown.get("continuable").is_none());
    }

    #[test]
    fn the_oldest_held_message_is_known() {
        let state = Arc::new(WorkerState::default());
        let (first, second) = (state.hold(5_000_000), state.hold(9_000_000));
        let queue = state.status().queue;
        assert_eq!(queue.held, 2);
        assert_eq!(queue.oldest.unwrap().as_second(), 5);
        drop(first);
        assert_eq!(state.status().queue.oldest.unwrap().as_second(), 9);
        drop(second);
        assert_eq!(state.status().queue.oldest, None);
    }

    #[test]
    fn waiting_messages_are_counted_by_what_they_wait_for() {
        let state = Arc::new(WorkerState::default());
        // Two were published at the same moment.
        let held = [5, 5, 9, 7].map(|second| state.hold(second * 1_000_000));
        assert!(state.status().queue.waiting.is_empty());
        let busy = [&held[2], &held[1]].map(|m| m.waits_for(WaitReason::TargetBusy));
        let retry = held[3].waits_for(WaitReason::Retry);
        let waiting = |reason, messages, second| WaitingMessages {
            reason,
            messages,
            oldest: jiff::Timestamp::from_second(second).ok(),
        };
        let expected = [
            waiting(WaitReason::TargetBusy, 2, 5),
            waiting(WaitReason::Retry, 1, 7),
        ];
        let queue = state.status().queue;
        assert_eq!((queue.held, queue.waiting.as_slice()), (4, &expected[..]));
        drop((busy, retry));
        let queue = state.status().queue;
        assert_eq!((queue.held, queue.waiting.len()), (4, 0));
    }
}

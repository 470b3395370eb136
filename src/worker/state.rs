//! The worker's state as `/status.json` and readiness show it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::database::TargetHealth;
use crate::event::{Kind, RestoreResult};
use crate::job::{BackupRef, Job};
use crate::manager::{BackupSetStatus, JobOutcome};
use crate::progress::{Progress, Snapshot};
use crate::queue::Health;

/// How many recent results are kept.
const MAX_RECENT: usize = 50;

/// The state of one worker, shared with its admin server.
#[derive(Default)]
pub struct WorkerState {
    running: Mutex<Vec<Running>>,
    recent: Mutex<VecDeque<RestoreResult>>,
    sets: Mutex<Vec<BackupSetStatus>>,
    next: AtomicU64,
    broken: AtomicBool,
    stopping: AtomicBool,
    /// Health of the worker's topics and subscriptions.
    health: Mutex<Health>,
    target: Mutex<TargetHealth>,
}

struct Running {
    id: u64,
    request_id: String,
    kind: Kind,
    backup: String,
    target_db: Option<String>,
    started_at: jiff::Timestamp,
    attempt: u32,
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
    pub progress: Snapshot,
}

/// `/status.json`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct WorkerStatus {
    pub version: String,
    pub ready: bool,
    pub stopping: bool,
    pub running: Vec<JobStatus>,
    /// Newest first.
    pub recent: Vec<RestoreResult>,
    /// The status of each backup set.
    pub sets: Vec<BackupSetStatus>,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Lists a job as running until it is dropped.
pub(super) struct Listed {
    state: Arc<WorkerState>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.state.running).retain(|r| r.id != self.id);
    }
}

fn lock<T>(m: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    m.lock()
}

impl WorkerState {
    pub(super) fn enter(self: &Arc<Self>, job: &Job, progress: Arc<Progress>) -> Listed {
        let id = self.next.fetch_add(1, Relaxed);
        lock(&self.running).push(Running {
            id,
            request_id: job.request_id().to_owned(),
            kind: if matches!(job, Job::Restore(_)) {
                Kind::Restore
            } else {
                Kind::Verification
            },
            backup: match job.backup() {
                BackupRef::Named { name, .. } => name.clone(),
                BackupRef::Latest { .. } => "latest".to_owned(),
                BackupRef::Stdin => "-".to_owned(),
            },
            target_db: job.target_db().map(str::to_owned),
            started_at: jiff::Timestamp::now(),
            attempt: job.attempt(),
            progress,
        });
        Listed {
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
        recent.push_front(finished.result.clone());
        recent.truncate(MAX_RECENT);
    }

    pub(super) fn set_standing(&self, sets: Vec<BackupSetStatus>) {
        *lock(&self.sets) = sets;
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
            progress: r.progress.snapshot(),
        };
        WorkerStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: self.is_ready(),
            stopping: self.stopping.load(Relaxed),
            running: lock(&self.running).iter().map(describe).collect(),
            recent: lock(&self.recent).iter().cloned().collect(),
            sets: lock(&self.sets).clone(),
            problems: self.problems(),
        }
    }
}

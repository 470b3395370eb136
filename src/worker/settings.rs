//! The settings of a worker.

use std::sync::Arc;
use std::time::Duration;

use crate::admission::Admission;
use crate::config::Config;
use crate::standing::StandingOrder;

/// How often each order of a standing restore is looked at, if nothing else says that its backups have changed.
const STANDING_PAUSE: Duration = Duration::from_secs(600);

/// Bounds of the interval at which the schedule is checked.
const SCHEDULE_MIN: Duration = Duration::from_secs(1);
const SCHEDULE_MAX: Duration = Duration::from_secs(3600);

/// Settings of a worker.
#[derive(Clone)]
pub struct WorkerSettings {
    pub max_concurrent: usize,
    /// Deliveries of one request before a transient failure becomes final.
    pub max_attempts: u32,
    /// Target database of requests that do not name one.
    pub default_db: Option<String>,
    /// Bounds of the backoff before a message is nacked.
    pub nack_backoff: (Duration, Duration),
    /// Pause between attempts while another restore holds the target.
    pub busy_pause: Duration,
    /// How long running jobs may take to finish after a graceful stop begins.
    pub drain_timeout: Duration,
    /// What requests are allowed to ask for.
    pub admission: Arc<Admission>,
    /// How often to check for due verifications; `None` without a schedule.
    pub schedule_pause: Option<Duration>,
    /// The standing restores that this worker runs.
    pub standing: Vec<StandingOrder>,
    /// How often to look for backups that are new for a standing restore and that no notification told of.
    pub standing_pause: Duration,
    /// What time it is for the schedules and windows of standing restores.
    pub clock: fn() -> jiff::Timestamp,
}

impl WorkerSettings {
    pub fn new(config: &Config, admission: Admission) -> Self {
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
            standing: vec![],
            standing_pause: STANDING_PAUSE,
            clock: jiff::Timestamp::now,
        }
    }
}

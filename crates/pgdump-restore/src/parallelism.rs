//! How many of the server's cores a task may use: one, as long as every session has work.

/// Most bytes of data behind tasks that are taken together; a task with more is heavy.
pub(crate) const LIGHT_BYTES: u64 = 1 << 20;

/// Most bytes of data behind tasks that are not long: as many as one COPY brings.
pub(crate) const SHORT_BYTES: u64 = 64 << 20;

/// If the other sessions have at least this many times the task's weight ahead of them, the task is limited to
/// one core. More than 1, because the duration of an index build is known only roughly.
const TAIL: u64 = 3;

/// Amount of work in tasks that run together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TaskCost {
    pub workers: MaintenanceWorkers,
    /// Rows of the largest table.
    pub rows: u64,
    /// Whether they may take longer than one COPY.
    pub is_long: bool,
}

/// Whether tasks may use as many cores as the server's own settings allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MaintenanceWorkers {
    /// One core each.
    #[default]
    No,
    /// Unlimited, because other sessions will soon run out of work.
    Soon,
    /// Unlimited, because a session is idle.
    Now,
}

impl MaintenanceWorkers {
    /// For a task of this weight: unlimited if the other ready tasks (`others`, by weight) would soon leave
    /// the other sessions without work. `heavy` tasks are running, including this one.
    pub(crate) fn of(
        weight: u64,
        others: impl Iterator<Item = u64> + Clone,
        heavy: usize,
        sessions: usize,
    ) -> Self {
        let most = weight.saturating_mul(TAIL * (sessions as u64 - 1));
        if weight <= LIGHT_BYTES || others.clone().fold(0, u64::saturating_add) >= most.max(1) {
            return MaintenanceWorkers::No;
        }
        if heavy + others.filter(|other| *other > LIGHT_BYTES).count() < sessions {
            MaintenanceWorkers::Now
        } else {
            MaintenanceWorkers::Soon
        }
    }
}

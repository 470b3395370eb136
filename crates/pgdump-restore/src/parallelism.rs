//! How many of the server's cores a task may take: one, as long as every session has work.

use super::schedule::LIGHT_BYTES;

/// Work ahead for each session, in the weight of a task, from which on the task keeps to one core: how long
/// an index takes is known only roughly.
const TAIL: u64 = 3;

/// How much there is to do in tasks that are run together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TaskCost {
    pub spread: MaintenanceWorkers,
    /// Rows of the largest.
    pub rows: u64,
}

/// Whether tasks may take as many cores as the server's own settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MaintenanceWorkers {
    /// One core each.
    #[default]
    No,
    /// Other sessions will have less to do.
    Soon,
    /// A session has nothing to do.
    Now,
}

impl MaintenanceWorkers {
    /// Of a task of this weight, where what is ready besides (`others`, by weight) would soon leave the other
    /// sessions without work; `heavy` tasks run, this one among them.
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

//! Tables that running tasks work on, and thus which tasks may run concurrently.

use std::collections::HashMap;

use super::plan::PlanNode;

/// The step of a constraint that a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ConstraintStep {
    Whole,
    /// The index of a key, concurrently with other indexes of the table.
    Index,
    /// The key, created from its existing index.
    Key,
}

/// Tables that tasks work on: number of exclusive and of shared users.
#[derive(Debug, Default)]
pub(crate) struct TableLocks(HashMap<i32, (usize, usize)>);

impl TableLocks {
    pub(crate) fn add(&mut self, exclusive: &[i32], shared: &[i32]) {
        exclusive
            .iter()
            .for_each(|t| self.0.entry(*t).or_default().0 += 1);
        shared
            .iter()
            .for_each(|t| self.0.entry(*t).or_default().1 += 1);
    }

    pub(crate) fn remove(&mut self, exclusive: &[i32], shared: &[i32]) {
        exclusive
            .iter()
            .for_each(|t| self.0.entry(*t).or_default().0 -= 1);
        shared
            .iter()
            .for_each(|t| self.0.entry(*t).or_default().1 -= 1);
        self.0.retain(|_, count| *count != (0, 0));
    }

    pub(crate) fn count(&self, table: i32) -> (usize, usize) {
        self.0.get(&table).copied().unwrap_or_default()
    }

    pub(crate) fn exclusive(&self, table: i32) -> usize {
        self.count(table).0
    }
}

/// Tables that a task needs exclusively, and those that it shares.
pub(crate) fn locks(n: &PlanNode, part: ConstraintStep) -> (&[i32], &[i32]) {
    match part {
        ConstraintStep::Index => (&[], &n.exclusive),
        ConstraintStep::Whole | ConstraintStep::Key => (&n.exclusive, &n.shared),
    }
}

//! Tables that running tasks work on, and thus which tasks may run concurrently.

use std::collections::HashMap;

use super::ids::TableId;

/// The step of a constraint that a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ConstraintStep {
    Whole,
    /// The index of a key, concurrently with other indexes of the table.
    Index,
    /// The key, created from its existing index.
    Key,
}

/// Tables that a task needs exclusively, and those that it shares.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockSet<'a> {
    pub exclusive: &'a [TableId],
    pub shared: &'a [TableId],
}

/// Number of tasks that use a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Users {
    exclusive: usize,
    shared: usize,
}

/// Tables that tasks work on.
#[derive(Debug, Default)]
pub(crate) struct TableLocks(HashMap<TableId, Users>);

impl TableLocks {
    pub(crate) fn add(&mut self, locks: LockSet<'_>) {
        for table in locks.exclusive {
            self.0.entry(*table).or_default().exclusive += 1;
        }
        for table in locks.shared {
            self.0.entry(*table).or_default().shared += 1;
        }
    }

    pub(crate) fn remove(&mut self, locks: LockSet<'_>) {
        for table in locks.exclusive {
            self.0.entry(*table).or_default().exclusive -= 1;
        }
        for table in locks.shared {
            self.0.entry(*table).or_default().shared -= 1;
        }
        self.0.retain(|_, users| *users != Users::default());
    }

    /// Whether no task other than those of `ours` keeps a task with these locks from running.
    pub(crate) fn allow(&self, locks: LockSet<'_>, ours: &TableLocks) -> bool {
        let is_unused = |table: &TableId| self.users(*table) == ours.users(*table);
        let is_shared =
            |table: &TableId| self.users(*table).exclusive == ours.users(*table).exclusive;
        locks.exclusive.iter().all(is_unused) && locks.shared.iter().all(is_shared)
    }

    fn users(&self, table: TableId) -> Users {
        self.0.get(&table).copied().unwrap_or_default()
    }
}

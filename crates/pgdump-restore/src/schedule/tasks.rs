//! Tasks whose prerequisites are done: which of them a session takes together, and what running ones lock.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::ids::{NodeId, NodeMap, TableId};
use crate::parallelism::{LIGHT_BYTES, MaintenanceWorkers};
use crate::plan::{PlanNode, RestorePass};
use crate::table_locks::{ConstraintStep, TableLocks};

/// Most tasks that a session takes at once: for small tables, the transaction is the main cost.
const MAX_TASKS: usize = 50;
/// Most bytes of data behind tasks that are taken together, of whatever size the restore is: they hold their locks until all of
/// them are done, and if the server refuses one of them, the others are repeated.
const MAX_BATCH_BYTES: u64 = 8 << 20;
/// Of the work that is ready, each session gets at least this many parts, so that all of them end at about the same time.
const PARTS: u64 = 8;
/// Most tables that tasks taken together lock. What is done to a partitioned table locks all its partitions, and the
/// server has a limited number of locks for all sessions.
const MAX_TABLES: usize = 100;

/// A task that can run: heaviest first, then in the archive's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadyTask {
    /// Bytes of data behind it.
    weight: Reverse<u64>,
    node: NodeId,
}

impl ReadyTask {
    fn new(node: NodeId, weight: u64) -> Self {
        ReadyTask {
            weight: Reverse(weight),
            node,
        }
    }

    fn is_light(&self) -> bool {
        self.weight.0 <= LIGHT_BYTES
    }
}

/// What a session may take at once.
#[derive(Debug, Clone, Copy)]
struct BatchLimits {
    tasks: usize,
    /// Bytes of data behind them.
    bytes: u64,
}

/// Tasks that one session takes together.
#[derive(Debug, Default)]
pub(super) struct TakenTasks {
    pub nodes: Vec<NodeId>,
    /// Bytes of data behind them.
    pub weight: u64,
    locks: TableLocks,
    /// Number of tables that each locks, in total.
    tables: usize,
    /// The indexes that they attach to each other.
    index_tree: Option<TableId>,
}

impl TakenTasks {
    /// Attachments to other indexes are left to other sessions, which may run them concurrently.
    fn suits(&self, node: &PlanNode) -> bool {
        let (ours, other) = (self.index_tree, node.index_tree());
        ours.is_none() || other.is_none() || ours == other
    }

    fn fits(&self, weight: u64, tables: usize, limits: BatchLimits) -> bool {
        let is_light = self.weight + weight <= limits.bytes && self.tables + tables <= MAX_TABLES;
        self.nodes.is_empty() || (is_light && self.nodes.len() < limits.tasks)
    }
}

#[derive(Debug)]
pub(super) struct Tasks {
    ready: [BTreeSet<ReadyTask>; RestorePass::COUNT],
    /// Bytes of data behind these, without keys whose index exists.
    ready_bytes: [u64; RestorePass::COUNT],
    locks: TableLocks,
    /// Number of sessions that load.
    sessions: usize,
    /// Sessions that run tasks.
    running: usize,
    /// Long-running tasks among these.
    heavy: HashSet<NodeId>,
    /// Keys whose index exists or is being built.
    steps: HashMap<NodeId, ConstraintStep>,
}

impl Tasks {
    pub(super) fn new(sessions: usize) -> Self {
        Tasks {
            ready: Default::default(),
            ready_bytes: Default::default(),
            locks: TableLocks::default(),
            sessions,
            running: 0,
            heavy: HashSet::new(),
            steps: HashMap::new(),
        }
    }

    /// Number of sessions that run tasks.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    /// Adds a task that can run from now on.
    pub(super) fn add(&mut self, node: NodeId, pass: RestorePass, weight: u64) {
        let weight = if pass.is_serial() { 0 } else { weight };
        self.ready[pass as usize].insert(ReadyTask::new(node, weight));
        let bytes = &mut self.ready_bytes[pass as usize];
        *bytes = bytes.saturating_add(weight);
    }

    /// The step of a node that is running or runs next.
    pub(super) fn step(&self, node: NodeId) -> ConstraintStep {
        let step = self.steps.get(&node).copied();
        step.unwrap_or(ConstraintStep::Whole)
    }

    /// The heaviest task that no session other than that of `taken` keeps from running, and that may run with these.
    pub(super) fn heaviest(
        &self,
        nodes: &NodeMap<PlanNode>,
        pass: RestorePass,
        taken: &TakenTasks,
    ) -> Option<ReadyTask> {
        if pass.is_serial() && self.running > 0 {
            return None;
        }
        let mut ready = self.ready[pass as usize].iter().copied();
        ready.find(|task| {
            let node = &nodes[task.node];
            taken.suits(node) && self.is_runnable(task, node, &taken.locks)
        })
    }

    fn is_runnable(&self, task: &ReadyTask, node: &PlanNode, ours: &TableLocks) -> bool {
        let locks = node.locks(self.next_step(task, node));
        self.locks.allow(locks, ours)
    }

    /// The index of a large table's key is built first, concurrently with others. If there is enough else to do, sessions do not
    /// wait for the table, and the second step only costs another transaction.
    fn next_step(&self, task: &ReadyTask, node: &PlanNode) -> ConstraintStep {
        let is_small = || task.weight.0 <= self.batch_bytes(node.pass);
        match self.step(task.node) {
            ConstraintStep::Whole if node.is_key && !is_small() => ConstraintStep::Index,
            step => step,
        }
    }

    /// The heaviest task, or several light ones, up to a fair share of the work.
    pub(super) fn take(&mut self, nodes: &NodeMap<PlanNode>, pass: RestorePass) -> TakenTasks {
        let limits = self.batch_limits(pass);
        let mut taken = TakenTasks::default();
        while let Some(task) = self.heaviest(nodes, pass, &taken) {
            let node = &nodes[task.node];
            let step = self.next_step(&task, node);
            let weight = match step {
                // Creating a key from its existing index takes no time.
                ConstraintStep::Key => 0,
                ConstraintStep::Whole | ConstraintStep::Index => task.weight.0,
            };
            let tables = node.locked_tables();
            if !taken.fits(weight, tables, limits) {
                break;
            }
            self.start(task, node, step);
            taken.locks.add(node.locks(step));
            taken.nodes.push(task.node);
            taken.weight += weight;
            taken.tables += tables;
            taken.index_tree = taken.index_tree.or(node.index_tree());
        }
        self.running += usize::from(!taken.nodes.is_empty());
        taken
    }

    fn batch_limits(&self, pass: RestorePass) -> BatchLimits {
        let sharing = match pass {
            RestorePass::Acl | RestorePass::EventTriggers => 1,
            // The cost of their queries is unknown.
            RestorePass::Refresh => usize::MAX,
            RestorePass::Main => self.sessions,
        };
        let ready = self.ready[pass as usize].len();
        BatchLimits {
            tasks: ready.div_ceil(sharing).min(MAX_TASKS),
            bytes: self.batch_bytes(pass),
        }
    }

    /// Most bytes of data behind tasks that are taken together: more while much work is ready.
    fn batch_bytes(&self, pass: RestorePass) -> u64 {
        let part = self.ready_bytes[pass as usize] / (PARTS * self.sessions.max(1) as u64);
        part.clamp(LIGHT_BYTES, MAX_BATCH_BYTES)
    }

    fn start(&mut self, task: ReadyTask, node: &PlanNode, step: ConstraintStep) {
        self.ready[node.pass as usize].remove(&task);
        if step != ConstraintStep::Key {
            let bytes = &mut self.ready_bytes[node.pass as usize];
            *bytes = bytes.saturating_sub(task.weight.0);
        }
        if step == ConstraintStep::Index {
            self.steps.insert(task.node, step);
        }
        if step != ConstraintStep::Key && !task.is_light() {
            self.heavy.insert(task.node);
        }
        self.locks.add(node.locks(step));
    }

    /// Tasks that were taken together are complete. Returns the nodes that have no further step.
    pub(super) fn done(&mut self, taken: &[NodeId], nodes: &NodeMap<PlanNode>) -> Vec<NodeId> {
        self.running -= 1;
        let mut finished = taken.to_vec();
        finished.retain(|id| self.is_last_step(*id, &nodes[*id]));
        finished
    }

    fn is_last_step(&mut self, id: NodeId, node: &PlanNode) -> bool {
        self.locks.remove(node.locks(self.step(id)));
        self.heavy.remove(&id);
        let is_last = self.step(id) != ConstraintStep::Index;
        if !is_last {
            self.steps.insert(id, ConstraintStep::Key);
            // Tasks that wait for the key should not wait longer than necessary.
            self.ready[node.pass as usize].insert(ReadyTask::new(id, u64::MAX));
        }
        is_last
    }

    /// How many cores a task of this weight may use while no more data arrives.
    pub(super) fn workers_for(&self, weight: u64, pass: RestorePass) -> MaintenanceWorkers {
        let others = self.ready[pass as usize].iter().take(MAX_TASKS);
        let others = others.filter(|other| self.step(other.node) != ConstraintStep::Key);
        let others = others.map(|other| other.weight.0);
        MaintenanceWorkers::of(weight, others, self.heavy.len(), self.sessions)
    }
}

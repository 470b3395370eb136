//! Decides what each session does next: a pure state machine over the plan, the chunks that the archive
//! reader has queued, and the finished nodes. Nothing waits here.
//!
//! All sessions are alike. A session takes a *copier* of a table (it copies chunks of it, concurrently with
//! other copiers of the same table) or a *task* (an index, a key, …). While data is still arriving, one
//! session is reserved for it, so that a long index build cannot stall the stream.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::arrivals::Arrivals;
use super::load_turns::LoadTurns;
use super::locks::{ConstraintStep, TableLocks, locks};
use super::parallelism::{MaintenanceWorkers, TaskCost};
use super::plan::{Plan, PlanNode, RestorePass};
use super::pre_data::PreDataBatch;

/// Most tasks that a session takes at once: for small tables, the transaction is the main cost.
const MAX_TASKS: usize = 50;
/// Most bytes of data behind tasks that are taken together.
pub(super) const LIGHT_BYTES: u64 = 1 << 20;
/// From this many bytes on, a table's first copier has the table to itself; for less data that does not pay.
const FIRST_BYTES: u64 = 192 << 10;
/// Up to this many bytes it stays alone even if other sessions wait.
const ALONE_BYTES: u64 = 32 << 20;

/// What a session may do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SessionWork {
    /// Create this batch of pre-data.
    Make { batch: usize, what: PreDataBatch },
    /// Load chunks of this data node until [`CopyNext::Leave`] or [`CopyNext::End`]. `first`: the table is still
    /// empty, and nobody else loads it until this copier is done.
    Copy { node: usize, first: bool },
    /// Run the statements of these nodes, in this order.
    Tasks { nodes: Vec<usize>, size: TaskCost },
    /// Nothing is available; ask again after a change.
    Wait,
    /// Everything is restored.
    Finished,
    /// Nothing runs and nothing can start: entries wait for each other.
    Stuck(usize),
}

/// What a copier does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CopyNext<P> {
    Chunk(P),
    Wait,
    /// Finish this COPY: other work needs the session more.
    Leave,
    /// All data of the table has been taken.
    End,
}

#[derive(Debug)]
struct Queue<P> {
    chunks: VecDeque<(P, bool)>,
    copiers: usize,
    /// Whether one copier has the table to itself.
    alone: bool,
    /// Whether no copier has started yet.
    untouched: bool,
    /// Session that is in the middle of a row and must take the next chunk.
    holder: Option<usize>,
    ended: bool,
    /// Bytes queued so far: the weight of the tasks that wait for this table.
    bytes: u64,
    /// Rows that the server has counted.
    rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeState {
    Waiting,
    Running,
    Done,
}

/// The work queue that sessions and the archive reader share. `P` is a chunk of data.
#[derive(Debug)]
pub(crate) struct Schedule<P> {
    plan: Plan,
    state: Vec<NodeState>,
    missing: Vec<usize>,
    dependents: Vec<Vec<usize>>,
    /// Nodes whose prerequisites are done, by pass: heaviest first, then in the archive's order.
    ready: [BTreeSet<(Reverse<u64>, usize)>; RestorePass::COUNT],
    queues: HashMap<usize, Queue<P>>,
    /// Nodes with queued data that may be loaded and have no copier.
    arrival: Arrivals,
    /// Number of copiers of all nodes.
    copiers: usize,
    table_locks: TableLocks,
    sessions: usize,
    /// Sessions that run tasks.
    running: usize,
    /// Long-running tasks among these.
    heavy: HashSet<usize>,
    /// Sessions that wait for work.
    idle: HashSet<usize>,
    /// Keys whose index exists or is being built.
    parts: HashMap<usize, ConstraintStep>,
    /// Archive readers that may still deliver data.
    streams: usize,
    /// Nodes are added while the stream is read: there is no table of contents.
    growing: bool,
    pass: RestorePass,
    /// Unfinished nodes, by pass.
    left: [usize; RestorePass::COUNT],
    /// Data nodes that wait for a pre-data batch, or (`None`) for all of them.
    awaiting_pre_data: HashMap<Option<usize>, Vec<usize>>,
    /// Data that has not arrived, and data that is not loaded.
    unread: LoadTurns,
    unloaded: LoadTurns,
    /// Nodes that wait for data of a lower turn, by their own turn.
    waiting: BTreeMap<usize, Vec<usize>>,
}

impl<P> Schedule<P> {
    /// `sessions` is the number of sessions that ask for work, `streams` the number of archive readers. With
    /// `growing`, nodes may be added as long as a stream is open.
    pub(crate) fn new(plan: Plan, sessions: usize, streams: usize, growing: bool) -> Self {
        let n = plan.nodes.len();
        let mut dependents = vec![Vec::new(); n];
        let mut missing: Vec<usize> = plan.nodes.iter().map(|n| n.after.len()).collect();
        let (mut left, mut awaiting_pre_data) =
            ([0; RestorePass::COUNT], HashMap::<_, Vec<usize>>::new());
        for (i, node) in plan.nodes.iter().enumerate() {
            node.after.iter().for_each(|d| dependents[*d].push(i));
            left[node.pass as usize] += 1;
            if node.is_data && !plan.pre_data.is_done() {
                let all = || vec![None];
                let batches = node
                    .pre_data_batches
                    .as_ref()
                    .map_or_else(all, |m| m.iter().copied().map(Some).collect());
                missing[i] += batches.len();
                batches
                    .into_iter()
                    .for_each(|batch| awaiting_pre_data.entry(batch).or_default().push(i));
            }
        }
        let (mut unread, mut unloaded) = (LoadTurns::default(), LoadTurns::default());
        for node in plan.nodes.iter().filter(|n| n.is_data) {
            unread.add(node.turn);
            unloaded.add(node.turn);
        }
        let mut waiting = BTreeMap::<usize, Vec<usize>>::new();
        for (i, node) in plan
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, n)| !unloaded.is_due(n.turn))
        {
            missing[i] += 1;
            waiting.entry(node.turn).or_default().push(i);
        }
        let mut s = Schedule {
            missing,
            state: vec![NodeState::Waiting; n],
            dependents,
            ready: Default::default(),
            queues: HashMap::new(),
            copiers: 0,
            arrival: Arrivals::default(),
            table_locks: TableLocks::default(),
            sessions,
            running: 0,
            heavy: HashSet::new(),
            idle: HashSet::new(),
            parts: HashMap::new(),
            streams,
            growing,
            pass: RestorePass::Main,
            left,
            awaiting_pre_data,
            unread,
            unloaded,
            waiting,
            plan,
        };
        (0..n)
            .filter(|i| s.missing[*i] == 0)
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|i| s.make_ready(i));
        s.advance_pass();
        s
    }

    pub(crate) fn node(&self, node: usize) -> &super::plan::PlanNode {
        &self.plan.nodes[node]
    }

    /// The step of a node that the next task runs.
    pub(crate) fn part(&self, node: usize) -> ConstraintStep {
        self.parts
            .get(&node)
            .copied()
            .unwrap_or(ConstraintStep::Whole)
    }

    /// Nodes whose data comes from the archive, each with its entry.
    pub(crate) fn data_nodes(&self) -> impl Iterator<Item = (usize, usize)> {
        let nodes = self.plan.nodes.iter().enumerate();
        nodes.filter(|(_, n)| n.is_data).map(|(i, n)| (i, n.entry))
    }

    // --- called by the archive reader ---

    /// Adds a node that runs after all nodes that it names.
    pub(crate) fn add(&mut self, node: super::plan::PlanNode) -> usize {
        let index = self.plan.nodes.len();
        let missing: Vec<usize> = node
            .after
            .iter()
            .copied()
            .filter(|d| self.state[*d] != NodeState::Done)
            .collect();
        missing.iter().for_each(|d| self.dependents[*d].push(index));
        self.left[node.pass as usize] += 1;
        self.missing.push(missing.len());
        self.state.push(NodeState::Waiting);
        self.dependents.push(vec![]);
        self.plan.nodes.push(node);
        if missing.is_empty() {
            self.make_ready(index);
        }
        index
    }

    /// The data of `node` starts to arrive, or continues after other data.
    pub(crate) fn begin(&mut self, node: usize) {
        if self.queues.contains_key(&node) {
            return;
        }
        let queue = Queue {
            chunks: VecDeque::new(),
            copiers: 0,
            alone: false,
            untouched: true,
            holder: None,
            ended: false,
            bytes: 0,
            rows: 0,
        };
        self.queues.insert(node, queue);
        if self.missing[node] == 0 {
            self.arrival.push(node);
        }
        self.state[node] = NodeState::Running;
    }

    /// Queues a chunk of `weight` bytes; with `splittable`, any copier may take the next one.
    pub(crate) fn push(&mut self, node: usize, chunk: P, weight: u64, splittable: bool) {
        if let Some(q) = self.queues.get_mut(&node) {
            q.bytes += weight;
            q.chunks.push_back((chunk, splittable));
        }
    }

    /// All data of `node` has arrived.
    pub(crate) fn end(&mut self, node: usize) {
        if let Some(q) = self.queues.get_mut(&node) {
            q.ended = true;
        }
        self.unread.done(self.plan.nodes[node].turn);
        self.finish_if_loaded(node);
    }

    /// Whether all data that must be loaded before this node's has arrived.
    pub(crate) fn is_ready(&self, node: usize) -> bool {
        self.unread.is_due(self.plan.nodes[node].turn)
    }

    /// Whether there is more than one archive reader.
    pub(crate) fn has_readers(&self) -> bool {
        self.streams > 1
    }

    /// An archive reader has finished; after the last one, all data of every node has arrived.
    pub(crate) fn stream_ended(&mut self) {
        self.streams = self.streams.saturating_sub(1);
        if self.streams == 0 {
            self.growing = false;
            self.advance_pass();
        }
    }

    /// Whether data may still arrive.
    pub(crate) fn is_stream_open(&self) -> bool {
        self.streams > 0
    }

    /// Whether every chunk of `node` has been taken.
    pub(crate) fn is_drained(&self, node: usize) -> bool {
        self.queues.get(&node).is_none_or(|q| q.chunks.is_empty())
    }

    // --- called by sessions ---

    pub(crate) fn next(&mut self, session: usize) -> SessionWork {
        self.idle.remove(&session);
        let table = self.table_to_join(session);
        // The first session that can load does; the others create remaining pre-data.
        if (table.is_none() || self.copiers > 0)
            && let Some(batch) = self.plan.pre_data.next()
        {
            return SessionWork::Make {
                batch,
                what: self.plan.pre_data.batch(batch).clone(),
            };
        }
        if let Some(node) = table {
            self.copiers += 1;
            let (mut first, fresh) = (false, self.plan.nodes[node].can_copy_freeze);
            if let Some(q) = self.queues.get_mut(&node) {
                q.copiers += 1;
                q.alone = std::mem::take(&mut q.untouched) && fresh && q.bytes >= FIRST_BYTES;
                first = q.alone;
            }
            return SessionWork::Copy { node, first };
        }
        if self.may_run_task() {
            let (nodes, weight) = self.take_tasks();
            if !nodes.is_empty() {
                let size = TaskCost {
                    workers: self.maintenance_workers(weight),
                    rows: self.rows_behind(nodes[0]),
                };
                return SessionWork::Tasks { nodes, size };
            }
        }
        self.idle.insert(session);
        match self.left.iter().sum::<usize>() {
            0 if self.pre_data_done() && !self.is_stream_open() => SessionWork::Finished,
            1.. if self.stalled() => SessionWork::Stuck(self.first_waiting()),
            _ => SessionWork::Wait,
        }
    }

    /// The next chunk for a copier of `node`.
    pub(crate) fn take(&mut self, node: usize, session: usize) -> CopyNext<P> {
        let other_data = self.table_to_join(session).is_some_and(|n| n != node);
        let in_order = self.plan.nodes[node].in_order;
        let others_need_us = other_data
            || self.plan.pre_data.has_next()
            || (self.may_run_task() && self.heaviest_runnable(&TableLocks::default()).is_some());
        let Some(q) = self.queues.get_mut(&node) else {
            return CopyNext::End;
        };
        if in_order {
            return match q.chunks.pop_front() {
                Some((chunk, _)) => CopyNext::Chunk(chunk),
                None if q.ended => CopyNext::End,
                None => CopyNext::Wait,
            };
        }
        if q.holder.is_some_and(|h| h != session) {
            return if others_need_us {
                CopyNext::Leave
            } else {
                CopyNext::Wait
            };
        }
        if q.alone && q.holder.is_none() && q.bytes >= ALONE_BYTES && !self.idle.is_empty() {
            return CopyNext::Leave;
        }
        match q.chunks.pop_front() {
            Some((chunk, splittable)) => {
                q.holder = (!splittable).then_some(session);
                CopyNext::Chunk(chunk)
            }
            None if q.ended => CopyNext::End,
            // The last copier waits for more chunks, unless data is queued elsewhere.
            None if q.holder.is_none() && (other_data || (q.copiers > 1 && others_need_us)) => {
                CopyNext::Leave
            }
            None => CopyNext::Wait,
        }
    }

    /// A copier's COPY is complete on the server, with this many rows.
    pub(crate) fn copier_done(&mut self, node: usize, rows: u64) {
        self.copiers -= 1;
        if let Some(q) = self.queues.get_mut(&node) {
            q.rows += rows;
            q.copiers -= 1;
            q.alone = false;
        }
        self.finish_if_loaded(node);
    }

    /// The statements of tasks that were taken together are complete on the server.
    pub(crate) fn tasks_done(&mut self, nodes: &[usize]) {
        self.running -= 1;
        for node in nodes {
            self.heavy.remove(node);
            let (exclusive, shared) = locks(&self.plan.nodes[*node], self.part(*node));
            self.table_locks.remove(exclusive, shared);
        }
        for node in nodes {
            match self.parts.get_mut(node) {
                Some(part @ ConstraintStep::Index) => {
                    *part = ConstraintStep::Key;
                    self.state[*node] = NodeState::Waiting;
                    // Tasks that wait for the key should not wait longer than necessary.
                    self.ready[self.plan.nodes[*node].pass as usize]
                        .insert((Reverse(u64::MAX), *node));
                }
                _ => self.finish(*node),
            }
        }
    }

    /// A session has finished a batch except for the entries `left`. True when all pre-data exists.
    pub(crate) fn batch_done(&mut self, batch: usize, left: Vec<usize>) -> bool {
        let complete = self.plan.pre_data.batch_done(batch, left);
        let is_done = self.plan.pre_data.is_done();
        for key in complete
            .into_iter()
            .map(Some)
            .chain(is_done.then_some(None))
        {
            for node in self.awaiting_pre_data.remove(&key).unwrap_or_default() {
                self.missing[node] -= 1;
                if self.missing[node] == 0 {
                    self.make_ready(node);
                }
            }
        }
        is_done
    }

    pub(crate) fn pre_data_done(&self) -> bool {
        self.plan.pre_data.is_done()
    }

    // --- internal ---

    fn finish_if_loaded(&mut self, node: usize) {
        let loaded = self
            .queues
            .get(&node)
            .is_some_and(|q| q.ended && q.copiers == 0 && q.chunks.is_empty());
        if loaded && self.missing[node] == 0 && self.state[node] != NodeState::Done {
            self.arrival.remove(node);
            self.finish(node);
        }
    }

    fn finish(&mut self, node: usize) {
        self.state[node] = NodeState::Done;
        self.left[self.plan.nodes[node].pass as usize] -= 1;
        let mut released = std::mem::take(&mut self.dependents[node]);
        if self.plan.nodes[node].is_data {
            self.unloaded.done(self.plan.nodes[node].turn);
            while let Some(turn) = self
                .waiting
                .first_entry()
                .filter(|w| self.unloaded.is_due(*w.key()))
            {
                released.extend(turn.remove());
            }
        }
        for d in released {
            self.missing[d] -= 1;
            if self.missing[d] == 0 {
                self.make_ready(d);
            }
        }
        self.advance_pass();
    }

    fn make_ready(&mut self, node: usize) {
        let n = &self.plan.nodes[node];
        if n.is_data {
            if self.queues.contains_key(&node) {
                self.arrival.push(node);
            }
            self.finish_if_loaded(node);
        } else {
            // Everything it waits for is loaded, so its weight is final.
            let weight = if n.pass.is_serial() {
                0
            } else {
                n.after
                    .iter()
                    .filter_map(|d| self.queues.get(d))
                    .map(|q| q.bytes)
                    .sum()
            };
            self.ready[n.pass as usize].insert((Reverse(weight), node));
        }
    }

    fn advance_pass(&mut self) {
        while !self.growing && self.left[self.pass as usize] == 0 {
            match self.pass.next() {
                Some(next) => self.pass = next,
                None => return,
            }
        }
    }

    /// The oldest table with chunks that no copier is about to take.
    fn table_to_join(&self, session: usize) -> Option<usize> {
        self.arrival.iter().find(|n| {
            let Some(q) = self.queues.get(n) else {
                return false;
            };
            let free = !q.alone && q.holder.is_none_or(|h| h == session);
            let may_share = q.chunks.len() >= 2 && !self.plan.nodes[*n].in_order;
            free && !q.chunks.is_empty() && (q.copiers == 0 || may_share)
        })
    }

    fn may_run_task(&self) -> bool {
        // If nodes are added while reading, ready tasks precede data that arrives later.
        !self.is_stream_open() || self.growing || self.running + 1 < self.sessions
    }

    /// Whether no session other than the holder of `ours` works on the node's tables.
    fn runnable(&self, (Reverse(weight), node): (Reverse<u64>, usize), ours: &TableLocks) -> bool {
        let n = &self.plan.nodes[node];
        let (exclusive, shared) = locks(n, self.next_part(n, weight, node));
        exclusive
            .iter()
            .all(|t| self.table_locks.count(*t) == ours.count(*t))
            && shared
                .iter()
                .all(|t| self.table_locks.exclusive(*t) == ours.exclusive(*t))
    }

    /// The index of a large table's key is built first, concurrently with others.
    fn next_part(&self, n: &PlanNode, weight: u64, node: usize) -> ConstraintStep {
        match self.part(node) {
            ConstraintStep::Whole if n.is_key && weight > LIGHT_BYTES => ConstraintStep::Index,
            part => part,
        }
    }

    fn heaviest_runnable(&self, ours: &TableLocks) -> Option<(Reverse<u64>, usize)> {
        if !self.pre_data_done() || (self.pass.is_serial() && self.running > 0) {
            return None;
        }
        self.ready[self.pass as usize]
            .iter()
            .find(|key| self.runnable(**key, ours))
            .copied()
    }

    /// The heaviest task, or several light ones, up to a fair share of the work. Also returns the bytes of data
    /// behind them.
    fn take_tasks(&mut self) -> (Vec<usize>, u64) {
        let sharing = match self.pass {
            RestorePass::Acl | RestorePass::EventTriggers => 1,
            // The cost of their queries is unknown.
            RestorePass::Refresh => usize::MAX,
            RestorePass::Main => self.sessions,
        };
        let share = self.ready[self.pass as usize]
            .len()
            .div_ceil(sharing)
            .min(MAX_TASKS);
        let (mut nodes, mut ours, mut bytes) = (vec![], TableLocks::default(), 0);
        while let Some(key) = self.heaviest_runnable(&ours) {
            let (Reverse(weight), node) = key;
            let part = self.next_part(&self.plan.nodes[node], weight, node);
            // Creating a key from its existing index takes no time.
            let weight = if part == ConstraintStep::Key {
                0
            } else {
                weight
            };
            if !nodes.is_empty() && (bytes + weight > LIGHT_BYTES || nodes.len() >= share) {
                break;
            }
            bytes += weight;
            if weight > LIGHT_BYTES {
                self.heavy.insert(node);
            }
            self.ready[self.pass as usize].remove(&key);
            self.state[node] = NodeState::Running;
            if part == ConstraintStep::Index {
                self.parts.insert(node, part);
            }
            let (exclusive, shared) = locks(&self.plan.nodes[node], part);
            self.table_locks.add(exclusive, shared);
            ours.add(exclusive, shared);
            nodes.push(node);
        }
        self.running += usize::from(!nodes.is_empty());
        (nodes, bytes)
    }

    fn rows_behind(&self, node: usize) -> u64 {
        self.plan.nodes[node]
            .after
            .iter()
            .filter_map(|d| self.queues.get(d))
            .map(|q| q.rows)
            .sum()
    }

    fn maintenance_workers(&self, weight: u64) -> MaintenanceWorkers {
        let others = self.ready[self.pass as usize].iter().take(MAX_TASKS);
        let others = others
            .filter(|(_, node)| self.part(*node) != ConstraintStep::Key)
            .map(|(Reverse(other), _)| *other);
        if self.is_stream_open() {
            MaintenanceWorkers::No
        } else {
            MaintenanceWorkers::of(weight, others, self.heavy.len(), self.sessions)
        }
    }

    /// Nothing runs, nothing is queued and the stream has ended, but a node still waits.
    fn stalled(&self) -> bool {
        !self.is_stream_open()
            && self.pre_data_done()
            && self.running == 0
            && self.arrival.is_empty()
            && self.heaviest_runnable(&TableLocks::default()).is_none()
    }

    fn first_waiting(&self) -> usize {
        self.state
            .iter()
            .position(|s| *s == NodeState::Waiting)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::pre_data::PreDataPlan;
    use super::*;

    fn node(
        entry: usize,
        pass: RestorePass,
        is_data: bool,
        after: &[usize],
        exclusive: &[i32],
    ) -> PlanNode {
        PlanNode {
            is_data,
            after: after.to_vec(),
            exclusive: exclusive.to_vec(),
            ..PlanNode::of(entry, pass)
        }
    }

    fn copier(node: usize) -> SessionWork {
        SessionWork::Copy { node, first: false }
    }

    fn tasks(nodes: &[usize]) -> SessionWork {
        SessionWork::Tasks {
            nodes: nodes.to_vec(),
            size: TaskCost::default(),
        }
    }

    fn task_with(workers: MaintenanceWorkers, node: usize) -> SessionWork {
        SessionWork::Tasks {
            nodes: vec![node],
            size: TaskCost { workers, rows: 0 },
        }
    }

    /// Random plans, random order of events: no node starts before its prerequisites, none runs concurrently with
    /// another that locks its table, every node finishes, every chunk is taken once and in order.
    #[test]
    fn every_schedule_is_complete_and_in_order() {
        for seed in 0..400 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let n = rng.usize(0..40);
            let mut turn = 0;
            let nodes: Vec<PlanNode> = (0..n)
                .map(|i| {
                    let is_data = i < n / 3;
                    let pass = match (is_data, rng.u8(0..10)) {
                        (true, _) | (_, 0..8) => RestorePass::Main,
                        (_, 8) => RestorePass::Acl,
                        _ => [RestorePass::Refresh, RestorePass::EventTriggers][rng.usize(0..2)],
                    };
                    let after: Vec<usize> = if is_data {
                        vec![]
                    } else {
                        (0..i).filter(|_| rng.u8(0..6) == 0).collect()
                    };
                    let mut table = || {
                        if rng.bool() && !is_data {
                            vec![rng.i32(0..3)]
                        } else {
                            vec![]
                        }
                    };
                    let (exclusive, shared) = (table(), table());
                    let in_order = is_data && rng.u8(0..4) == 0;
                    turn += usize::from(in_order);
                    let of_all = if rng.u8(0..5) == 0 { usize::MAX } else { turn };
                    let node = PlanNode {
                        shared,
                        can_copy_freeze: rng.bool() && !in_order,
                        is_key: rng.bool(),
                        turn: if is_data { turn } else { of_all },
                        in_order,
                        ..node(i, pass, is_data, &after, &exclusive)
                    };
                    turn += usize::from(in_order);
                    node
                })
                .collect();
            // A node of an earlier pass must not wait for one of a later pass.
            let passes: Vec<RestorePass> = nodes.iter().map(|n| n.pass).collect();
            let nodes: Vec<PlanNode> = nodes
                .into_iter()
                .map(|mut n| {
                    n.after.retain(|d| passes[*d] <= n.pass);
                    n
                })
                .collect();
            run(&mut rng, nodes);
        }
    }

    /// Stages of batches, some of which fail, and the batches that each data node needs.
    fn random_pre_data(rng: &mut fastrand::Rng, nodes: &mut [PlanNode]) -> PreDataPlan {
        let stages: Vec<Vec<Vec<usize>>> = (0..rng.usize(0..3))
            .map(|_| vec![vec![0; 50]; rng.usize(1..5)])
            .collect();
        let batches = stages.iter().map(Vec::len).sum::<usize>();
        for node in nodes.iter_mut().filter(|n| n.is_data) {
            node.pre_data_batches = rng
                .bool()
                .then(|| (0..batches).filter(|_| rng.u8(0..3) == 0).collect());
        }
        PreDataPlan::new(&stages)
    }

    fn run(rng: &mut fastrand::Rng, mut nodes: Vec<PlanNode>) {
        let sessions = rng.usize(1..5);
        let pre_data = random_pre_data(rng, &mut nodes);
        let (mut whole, mut failed) = (HashSet::new(), vec![]);
        let plan = Plan {
            nodes: nodes.clone(),
            pre_data,
        };
        let mut s: Schedule<u32> = Schedule::new(plan, sessions, 1, false);
        let mut feed: VecDeque<(usize, u32)> = (0..nodes.len())
            .filter(|i| nodes[*i].is_data)
            .map(|i| (i, rng.u32(0..6)))
            .collect();
        let mut sent: HashMap<usize, u32> = HashMap::new();
        let mut taken: HashMap<usize, Vec<u32>> = HashMap::new();
        let mut doing: Vec<Option<SessionWork>> = (0..sessions).map(|_| None).collect();
        let mut done = HashSet::new();
        let mut open: Option<(usize, u32)> = None;
        for _ in 0..100_000 {
            if rng.u8(0..3) == 0 {
                match (open, feed.front().copied()) {
                    (None, None) => s.stream_ended(),
                    (None, Some((node, count))) => {
                        feed.pop_front();
                        s.begin(node);
                        open = Some((node, count));
                    }
                    (Some((node, 0)), _) => {
                        s.end(node);
                        open = None;
                    }
                    (Some((node, left)), _) => {
                        let number = sent.entry(node).or_insert(0);
                        let weight = [1, FIRST_BYTES, ALONE_BYTES][rng.usize(0..3)];
                        s.push(node, *number, weight, left == 1 || rng.bool());
                        *number += 1;
                        open = Some((node, left - 1));
                    }
                }
            }
            let who = rng.usize(0..sessions);
            match doing[who].take() {
                None => match s.next(who) {
                    SessionWork::Finished => {
                        assert_eq!(s.left, [0; RestorePass::COUNT]);
                        assert!(s.pre_data_done());
                        for (node, count) in sent {
                            let mut got = taken.remove(&node).unwrap_or_default();
                            if !nodes[node].in_order {
                                got.sort_unstable();
                            }
                            assert_eq!(got, (0..count).collect::<Vec<_>>());
                        }
                        return;
                    }
                    SessionWork::Wait => {}
                    SessionWork::Stuck(n) => panic!("stuck at {n}"),
                    make @ SessionWork::Make { .. } => doing[who] = Some(make),
                    SessionWork::Tasks { nodes: tasks, size } => {
                        assert!(s.pre_data_done());
                        let others = doing.iter().flatten().filter_map(|w| match w {
                            SessionWork::Tasks { nodes: others, .. } => Some(others),
                            _ => None,
                        });
                        let others: Vec<usize> = others.flatten().copied().collect();
                        for t in &tasks {
                            let before =
                                |n: usize| nodes[n].is_data && nodes[n].turn < nodes[*t].turn;
                            assert!(
                                (0..nodes.len())
                                    .all(|n| !before(n) || s.state[n] == NodeState::Done)
                            );
                            assert!(
                                nodes[*t]
                                    .after
                                    .iter()
                                    .all(|d| s.state[*d] == NodeState::Done)
                            );
                            for o in &others {
                                let table_locks = |node: usize| locks(&nodes[node], s.part(node));
                                let compatible = |a, b| {
                                    let ((alone, _), (other, shared)) =
                                        (table_locks(a), table_locks(b));
                                    alone
                                        .iter()
                                        .all(|x| !other.contains(x) && !shared.contains(x))
                                };
                                assert!(compatible(*t, *o) && compatible(*o, *t));
                                assert_eq!(nodes[*t].pass, nodes[*o].pass);
                                assert!(!nodes[*t].pass.is_serial());
                            }
                            let part = s.part(*t);
                            assert!(done.insert((*t, part)), "node {t} twice");
                            let whole = done.contains(&(*t, ConstraintStep::Whole));
                            assert!(
                                part != ConstraintStep::Key
                                    || (!whole && done.contains(&(*t, ConstraintStep::Index)))
                            );
                        }
                        doing[who] = Some(SessionWork::Tasks { nodes: tasks, size });
                    }
                    work => {
                        let SessionWork::Copy { node, first } = work else {
                            unreachable!("{work:?}")
                        };
                        for other in doing.iter().flatten() {
                            if let SessionWork::Copy {
                                node: o,
                                first: alone,
                            } = other
                            {
                                assert!(*o != node || !(first || *alone), "not alone on {node}");
                            }
                        }
                        assert!(
                            !first || (nodes[node].can_copy_freeze && !taken.contains_key(&node))
                        );
                        let before =
                            |n: usize| nodes[n].is_data && nodes[n].turn < nodes[node].turn;
                        assert!(
                            (0..nodes.len()).all(|n| !before(n) || s.state[n] == NodeState::Done)
                        );
                        assert!(
                            !nodes[node].in_order || !taken.contains_key(&node),
                            "a second copier of the in-order node {node}"
                        );
                        let needs = &nodes[node].pre_data_batches;
                        let is_there =
                            |needs: &Vec<usize>| needs.iter().all(|batch| whole.contains(batch));
                        assert!(needs.as_ref().map_or(s.pre_data_done(), is_there));
                        doing[who] = Some(work);
                    }
                },
                Some(SessionWork::Make { batch, what }) => {
                    if what.may_fail && rng.u8(0..4) == 0 {
                        failed.push(batch);
                        s.batch_done(batch, vec![0]);
                    } else {
                        whole.insert(batch);
                        // With one session, these are the remaining entries.
                        whole.extend(failed.drain(..if what.may_fail { 0 } else { failed.len() }));
                        s.batch_done(batch, vec![]);
                    }
                }
                Some(SessionWork::Tasks { nodes: tasks, .. }) => s.tasks_done(&tasks),
                Some(SessionWork::Copy { node, first }) => match s.take(node, who) {
                    CopyNext::Chunk(p) => {
                        taken.entry(node).or_default().push(p);
                        doing[who] = Some(SessionWork::Copy { node, first });
                    }
                    CopyNext::Wait => doing[who] = Some(SessionWork::Copy { node, first }),
                    CopyNext::Leave | CopyNext::End => s.copier_done(node, 0),
                },
                Some(_) => {}
            }
        }
        panic!("not finished");
    }

    #[test]
    fn one_table_is_shared_and_one_session_stays_free_for_data() {
        let nodes = vec![
            node(0, RestorePass::Main, true, &[], &[]),
            node(1, RestorePass::Main, false, &[], &[]),
            node(2, RestorePass::Main, false, &[], &[]),
        ];
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            2,
            1,
            false,
        );
        assert_eq!(s.next(0), tasks(&[1]));
        assert_eq!(s.next(1), SessionWork::Wait, "reserved for data");
        s.begin(0);
        for i in 0..4 {
            s.push(0, i, 1, true);
        }
        s.tasks_done(&[1]);
        assert_eq!((s.next(0), s.next(1)), (copier(0), copier(0)));
        assert_eq!(
            (s.take(0, 0), s.take(0, 1)),
            (CopyNext::Chunk(0), CopyNext::Chunk(1))
        );
    }

    /// A session takes a share of the tasks; those on one table in order, and a heavy one by itself.
    #[test]
    fn light_tasks_are_taken_together() {
        let mut nodes = vec![node(0, RestorePass::Main, true, &[], &[])];
        nodes.push(node(1, RestorePass::Main, false, &[0], &[]));
        nodes.extend((2..8).map(|i| node(i, RestorePass::Main, false, &[], &[i as i32 / 4])));
        nodes.push(node(8, RestorePass::Acl, false, &[], &[]));
        nodes.push(node(9, RestorePass::Acl, false, &[], &[]));
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            2,
            1,
            false,
        );
        s.begin(0);
        s.push(0, 7, LIGHT_BYTES + 1, true);
        s.end(0);
        s.stream_ended();
        assert_eq!((s.next(0), s.take(0, 0)), (copier(0), CopyNext::Chunk(7)));
        s.copier_done(0, 0);
        assert_eq!(
            s.next(0),
            task_with(MaintenanceWorkers::Now, 1),
            "its table is large"
        );
        assert_eq!(s.next(1), tasks(&[2, 3, 4]));
        s.tasks_done(&[1]);
        assert_eq!(
            s.next(0),
            SessionWork::Wait,
            "the remaining tasks need a table that the other session has locked"
        );
        s.tasks_done(&[2, 3, 4]);
        assert_eq!(s.next(0), tasks(&[5, 6]));
        assert_eq!(s.next(1), SessionWork::Wait);
        s.tasks_done(&[5, 6]);
        assert_eq!(s.next(0), tasks(&[7]));
        s.tasks_done(&[7]);
        assert_eq!((s.next(0), s.next(1)), (tasks(&[8, 9]), SessionWork::Wait));
    }

    /// Also if its rows were loaded before it was known: the heavier one first, and by itself.
    #[test]
    fn tasks_added_later_weigh_as_much_as_their_rows() {
        let rows = |i| node(i, RestorePass::Main, true, &[], &[]);
        let plan = Plan::default();
        let mut s: Schedule<u32> = Schedule::new(plan, 2, 1, true);
        for (i, bytes) in [(0, 1), (1, 3 * LIGHT_BYTES), (2, 2 * LIGHT_BYTES)] {
            assert_eq!(s.add(rows(i)), i);
            s.begin(i);
            s.push(i, 0, bytes, true);
            s.end(i);
            assert_eq!((s.next(0), s.take(i, 0)), (copier(i), CopyNext::Chunk(0)));
            s.copier_done(i, i as u64);
        }
        (3..6).for_each(|i| assert_eq!(s.add(node(i, RestorePass::Main, false, &[i - 3], &[])), i));
        let alone = |i, rows| SessionWork::Tasks {
            nodes: vec![i],
            size: TaskCost {
                rows,
                ..TaskCost::default()
            },
        };
        assert_eq!((s.next(0), s.next(1)), (alone(4, 1), alone(5, 2)));
        s.tasks_done(&[4]);
        assert_eq!(s.next(0), tasks(&[3]));
    }

    /// The first copier of a table that the restore has created has it to itself, until the table is large and
    /// other sessions are idle.
    #[test]
    fn the_first_copier_of_a_new_table_is_alone() {
        let nodes = vec![PlanNode {
            can_copy_freeze: true,
            ..node(0, RestorePass::Main, true, &[], &[])
        }];
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            2,
            1,
            false,
        );
        s.begin(0);
        (0..3).for_each(|i| s.push(0, i, FIRST_BYTES, true));
        assert_eq!(
            s.next(0),
            SessionWork::Copy {
                node: 0,
                first: true
            }
        );
        assert_eq!(
            (s.take(0, 0), s.next(1)),
            (CopyNext::Chunk(0), SessionWork::Wait)
        );
        assert_eq!(s.take(0, 0), CopyNext::Chunk(1), "the table is not large");
        s.push(0, 3, ALONE_BYTES, true);
        assert_eq!(s.take(0, 0), CopyNext::Leave);
        s.copier_done(0, 0);
        assert_eq!((s.next(0), s.next(1)), (copier(0), copier(0)));
    }

    /// A task that outweighs all others together may use the idle cores.
    #[test]
    fn a_task_heavier_than_the_rest_may_run_in_parallel() {
        let mut nodes = vec![
            node(0, RestorePass::Main, true, &[], &[]),
            node(1, RestorePass::Main, true, &[], &[]),
        ];
        nodes
            .extend((2..7).map(|i| node(i, RestorePass::Main, false, &[usize::from(i == 6)], &[])));
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            2,
            1,
            false,
        );
        for (i, bytes) in [(0, 4 * LIGHT_BYTES), (1, 2 * LIGHT_BYTES)] {
            s.begin(i);
            s.push(i, 0, bytes, true);
            s.end(i);
            assert_eq!((s.next(0), s.take(i, 0)), (copier(i), CopyNext::Chunk(0)));
            s.copier_done(i, 0);
        }
        s.stream_ended();
        assert_eq!(
            s.next(0),
            tasks(&[2]),
            "three equally large tasks and a smaller one remain"
        );
        assert_eq!(s.next(1), task_with(MaintenanceWorkers::Soon, 3));
        s.tasks_done(&[2]);
        assert_eq!(s.next(0), task_with(MaintenanceWorkers::Soon, 4));
        s.tasks_done(&[4]);
        assert_eq!(
            s.next(0),
            task_with(MaintenanceWorkers::Soon, 5),
            "one task would remain for the other session"
        );
        s.tasks_done(&[3]);
        assert_eq!(s.next(1), task_with(MaintenanceWorkers::Soon, 6));
    }

    #[test]
    fn the_last_task_uses_idle_cores() {
        let mut nodes = vec![
            node(0, RestorePass::Main, true, &[], &[]),
            node(1, RestorePass::Main, false, &[0], &[]),
        ];
        nodes.extend((2..5).map(|i| node(i, RestorePass::Main, false, &[], &[])));
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            2,
            1,
            false,
        );
        s.begin(0);
        s.push(0, 0, LIGHT_BYTES + 1, true);
        s.end(0);
        s.stream_ended();
        assert_eq!((s.next(0), s.take(0, 0)), (copier(0), CopyNext::Chunk(0)));
        assert_eq!(s.next(1), tasks(&[2, 3]));
        s.copier_done(0, 0);
        assert_eq!(
            s.next(0),
            task_with(MaintenanceWorkers::Now, 1),
            "the remaining tasks take no time"
        );
    }

    /// The index of a large table's key is built concurrently with others; tasks that need the key wait for both
    /// steps.
    #[test]
    fn a_large_key_is_created_in_two_steps() {
        let key = PlanNode {
            is_key: true,
            ..node(1, RestorePass::Main, false, &[0], &[7])
        };
        let index = PlanNode {
            shared: vec![7],
            ..node(2, RestorePass::Main, false, &[0], &[])
        };
        let nodes = vec![
            node(0, RestorePass::Main, true, &[], &[]),
            key,
            index,
            node(3, RestorePass::Main, false, &[1], &[]),
        ];
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            2,
            1,
            false,
        );
        s.begin(0);
        s.push(0, 0, LIGHT_BYTES + 1, true);
        s.end(0);
        assert_eq!((s.next(0), s.take(0, 0)), (copier(0), CopyNext::Chunk(0)));
        s.copier_done(0, 0);
        s.stream_ended();
        assert_eq!(
            (s.next(0), s.next(1)),
            (
                task_with(MaintenanceWorkers::Soon, 1),
                task_with(MaintenanceWorkers::Soon, 2)
            )
        );
        assert_eq!(
            (s.part(1), s.part(2)),
            (ConstraintStep::Index, ConstraintStep::Whole)
        );
        s.tasks_done(&[1]);
        assert_eq!(
            s.next(0),
            SessionWork::Wait,
            "the other index locks the table"
        );
        s.tasks_done(&[2]);
        assert_eq!((s.next(0), s.part(1)), (tasks(&[1]), ConstraintStep::Key));
        assert_eq!(s.next(1), SessionWork::Wait, "it waits for the key");
        s.tasks_done(&[1]);
        assert_eq!(s.next(1), tasks(&[3]));
    }

    #[test]
    fn a_row_in_several_chunks_stays_on_one_session() {
        let nodes = vec![node(0, RestorePass::Main, true, &[], &[])];
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            2,
            1,
            false,
        );
        s.begin(0);
        s.push(0, 0, 1, false);
        s.push(0, 1, 1, true);
        s.push(0, 2, 1, true);
        assert_eq!((s.next(0), s.next(1)), (copier(0), copier(0)));
        assert_eq!(s.take(0, 1), CopyNext::Chunk(0));
        assert_eq!(s.take(0, 0), CopyNext::Wait);
        assert_eq!(s.take(0, 1), CopyNext::Chunk(1));
        assert_eq!(s.take(0, 0), CopyNext::Chunk(2));
    }

    #[test]
    fn entries_that_wait_for_each_other_are_reported() {
        let nodes = vec![
            node(0, RestorePass::Main, false, &[1], &[]),
            node(1, RestorePass::Main, false, &[0], &[]),
        ];
        let mut s: Schedule<u32> = Schedule::new(
            Plan {
                nodes,
                ..Plan::default()
            },
            1,
            1,
            false,
        );
        s.stream_ended();
        assert_eq!(s.next(0), SessionWork::Stuck(0));
    }
}

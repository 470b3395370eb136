//! Decides what each session does next: a pure state machine over the plan, the chunks that the archive
//! reader has queued, and the finished nodes. Nothing waits here.
//!
//! All sessions are alike. A session takes a *copier* of a table (it copies chunks of it, concurrently with
//! other copiers of the same table) or a *task* (an index, a key, …). While data is still arriving, one
//! session is reserved for it, so that a long index build cannot stall the stream.

mod data_queue;
mod loading;
mod passes;
mod prerequisites;
mod tasks;
mod work;

#[cfg(test)]
mod continued_tests;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use self::data_queue::OtherWork;
use self::loading::Loading;
use self::passes::Passes;
use self::prerequisites::Prerequisites;
use self::tasks::{ReadyTask, TakenTasks, Tasks};
pub(crate) use self::work::{CopyNext, CopyStart, SessionWork};
use crate::ids::{BatchId, EntryIndex, NodeId, SessionId};
use crate::load_turns::LoadTurns;
use crate::parallelism::{MaintenanceWorkers, SHORT_BYTES, TaskCost};
use crate::plan::{Plan, PlanNode};
use crate::table_locks::ConstraintStep;

/// The work queue that sessions and the archive reader share. `P` is a chunk of data.
#[derive(Debug)]
pub(crate) struct Schedule<P> {
    plan: Plan,
    prerequisites: Prerequisites,
    passes: Passes,
    loading: Loading<P>,
    tasks: Tasks,
    sessions: usize,
    /// Sessions that wait for work.
    idle: HashSet<SessionId>,
    /// Archive readers that may still deliver data.
    streams: usize,
    /// Data that has not arrived.
    unread: LoadTurns,
}

impl<P> Schedule<P> {
    /// `sessions` is the number of sessions that ask for work, `streams` the number of archive readers. With
    /// `growing`, nodes may be added as long as a stream is open.
    pub(crate) fn new(plan: Plan, sessions: usize, streams: usize, growing: bool) -> Self {
        let passes = plan.nodes.iter().map(|(_, node)| node.pass);
        let mut unread = LoadTurns::default();
        let data = plan.nodes.iter().filter(|(_, node)| node.is_data);
        data.for_each(|(_, node)| unread.add(node.turn));
        let mut schedule = Schedule {
            prerequisites: Prerequisites::new(&plan),
            passes: Passes::new(passes, growing),
            loading: Loading::default(),
            tasks: Tasks::new(sessions),
            sessions,
            idle: HashSet::new(),
            streams,
            unread,
            plan,
        };
        let ready = schedule.prerequisites.ready();
        schedule.make_ready(ready);
        schedule
    }

    pub(crate) fn node(&self, node: NodeId) -> &PlanNode {
        &self.plan.nodes[node]
    }

    /// The step of a node that the next task runs.
    pub(crate) fn step(&self, node: NodeId) -> ConstraintStep {
        self.tasks.step(node)
    }

    /// What the tasks restore that are not complete.
    pub(crate) fn unfinished_tasks(&self) -> Vec<EntryIndex> {
        let nodes = self.plan.nodes.iter();
        let left = nodes.filter(|(id, node)| !node.is_data && !self.prerequisites.is_done(*id));
        left.map(|(_, node)| node.entry).collect()
    }

    /// Nodes whose data comes from the archive, each with its entry.
    pub(crate) fn data_nodes(&self) -> impl Iterator<Item = (NodeId, EntryIndex)> {
        let data = self.plan.nodes.iter().filter(|(_, node)| node.is_data);
        data.map(|(id, node)| (id, node.entry))
    }
}

/// Called by the archive reader.
impl<P> Schedule<P> {
    /// Adds a node that runs after all nodes that it names.
    pub(crate) fn add(&mut self, node: PlanNode) -> NodeId {
        self.passes.add(node.pass);
        let is_ready = self.prerequisites.add(&node.after);
        let id = self.plan.nodes.push(node);
        if is_ready {
            self.make_ready(vec![id]);
        }
        id
    }

    /// The data of `node` starts to arrive, or continues after other data.
    pub(crate) fn begin(&mut self, node: NodeId) {
        if !self.loading.begin(node, self.plan.nodes[node].in_order) {
            return;
        }
        if self.prerequisites.are_met(node) {
            self.loading.allow(node);
        }
        self.prerequisites.start(node);
    }

    /// Queues a chunk of `weight` bytes; with `splittable`, any copier may take the next one.
    pub(crate) fn push(&mut self, node: NodeId, chunk: P, weight: u64, splittable: bool) {
        self.loading.push(node, chunk, weight, splittable);
    }

    /// Bytes of the node's data have arrived that an earlier attempt has loaded.
    pub(crate) fn skip(&mut self, node: NodeId, bytes: u64) {
        self.preset(node, bytes, 0);
    }

    /// Counts what an earlier attempt has loaded of the node, of which nothing need arrive again.
    pub(crate) fn preset(&mut self, node: NodeId, bytes: u64, rows: u64) {
        self.loading.preset(node, bytes, rows);
    }

    /// All data of `node` has arrived. It may arrive once more, for nobody.
    pub(crate) fn end(&mut self, node: NodeId) {
        if self.loading.end(node) {
            self.unread.done(self.plan.nodes[node].turn);
        }
        self.finish_if_loaded(node);
    }

    /// Whether all data that must be loaded before this node's has arrived.
    pub(crate) fn is_ready(&self, node: NodeId) -> bool {
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
            self.passes.stop_growing();
        }
    }

    /// Whether data may still arrive.
    pub(crate) fn is_stream_open(&self) -> bool {
        self.streams > 0
    }

    /// Whether every chunk of `node` has been taken.
    pub(crate) fn is_drained(&self, node: NodeId) -> bool {
        self.loading.is_drained(node)
    }
}

/// Called by sessions.
impl<P> Schedule<P> {
    pub(crate) fn next(&mut self, session: SessionId) -> SessionWork {
        self.idle.remove(&session);
        let data = self.loading.node_for(session);
        // The first session that can load does; the others create remaining pre-data.
        let may_create = data.is_none() || self.loading.has_copiers();
        let pre_data = may_create.then(|| self.next_batch()).flatten();
        pre_data
            .or_else(|| data.map(|node| self.copy(node)))
            .or_else(|| self.next_tasks())
            .unwrap_or_else(|| self.wait(session))
    }

    fn next_batch(&mut self) -> Option<SessionWork> {
        let batch = self.plan.pre_data.next()?;
        let what = self.plan.pre_data.batch(batch).clone();
        Some(SessionWork::Make { batch, what })
    }

    fn copy(&mut self, node: NodeId) -> SessionWork {
        let can_freeze = self.plan.nodes[node].can_copy_freeze;
        let start = self.loading.join(node, can_freeze);
        SessionWork::Copy { node, start }
    }

    fn next_tasks(&mut self) -> Option<SessionWork> {
        if !self.may_run_task() || !self.pre_data_done() {
            return None;
        }
        let taken = self.tasks.take(&self.plan.nodes, self.passes.current());
        let heaviest = *taken.nodes.first()?;
        let size = TaskCost {
            workers: self.maintenance_workers(taken.weight),
            rows: self.loading.rows_of(&self.plan.nodes[heaviest].after),
            is_long: taken.weight > SHORT_BYTES,
        };
        Some(SessionWork::Tasks {
            nodes: taken.nodes,
            size,
        })
    }

    fn wait(&mut self, session: SessionId) -> SessionWork {
        self.idle.insert(session);
        let is_complete = self.pre_data_done() && !self.is_stream_open();
        if self.passes.are_done() && is_complete {
            SessionWork::Finished
        } else if !self.passes.are_done() && self.stalled() {
            SessionWork::Stuck(self.prerequisites.first_waiting())
        } else {
            SessionWork::Wait
        }
    }

    /// The next chunk for a copier of `node`.
    pub(crate) fn take(&mut self, node: NodeId, session: SessionId) -> CopyNext<P> {
        let other = self.work_besides(node, session);
        self.loading.take(node, session, other)
    }

    fn work_besides(&self, node: NodeId, session: SessionId) -> OtherWork {
        let data = self.loading.node_for(session).is_some_and(|n| n != node);
        let has_task = || self.may_run_task() && self.heaviest_task().is_some();
        OtherWork {
            data,
            any: data || self.plan.pre_data.has_next() || has_task(),
            has_idle_session: !self.idle.is_empty(),
        }
    }

    /// A copier's COPY is complete on the server, with this many rows.
    pub(crate) fn copier_done(&mut self, node: NodeId, rows: u64) {
        self.loading.leave(node, rows);
        self.finish_if_loaded(node);
    }

    /// The statements of tasks that were taken together are complete on the server.
    pub(crate) fn tasks_done(&mut self, nodes: &[NodeId]) {
        for node in self.tasks.done(nodes, &self.plan.nodes) {
            self.finish(node);
        }
    }

    /// A session has finished a batch except for the entries `left`. True when all pre-data exists.
    pub(crate) fn batch_done(&mut self, batch: BatchId, left: Vec<EntryIndex>) -> bool {
        let complete = self.plan.pre_data.batch_done(batch, left);
        let is_done = self.pre_data_done();
        let ready = self.prerequisites.batches_done(complete, is_done);
        self.make_ready(ready);
        is_done
    }

    pub(crate) fn pre_data_done(&self) -> bool {
        self.plan.pre_data.is_done()
    }
}

impl<P> Schedule<P> {
    fn finish_if_loaded(&mut self, node: NodeId) {
        let may_finish = self.prerequisites.are_met(node) && !self.prerequisites.is_done(node);
        if may_finish && self.loading.is_loaded(node) {
            self.loading.finish(node);
            self.finish(node);
        }
    }

    fn finish(&mut self, id: NodeId) {
        let node = &self.plan.nodes[id];
        self.passes.done(node.pass);
        let ready = self.prerequisites.finish(id, node);
        self.make_ready(ready);
    }

    fn make_ready(&mut self, nodes: Vec<NodeId>) {
        for id in nodes {
            let node = &self.plan.nodes[id];
            if node.is_data {
                self.loading.allow(id);
                self.finish_if_loaded(id);
            } else {
                // Everything it waits for is loaded, so its weight is final.
                let weight = if node.is_instant {
                    0
                } else {
                    self.loading.bytes_of(&node.after)
                };
                self.tasks.add(id, node.pass, weight);
            }
        }
    }

    fn may_run_task(&self) -> bool {
        // If nodes are added while reading, ready tasks precede data that arrives later.
        let is_free = self.tasks.running() + 1 < self.sessions;
        !self.is_stream_open() || self.passes.is_growing() || is_free
    }

    fn heaviest_task(&self) -> Option<ReadyTask> {
        let (nodes, pass) = (&self.plan.nodes, self.passes.current());
        let heaviest = || self.tasks.heaviest(nodes, pass, &TakenTasks::default());
        self.pre_data_done().then(heaviest).flatten()
    }

    fn maintenance_workers(&self, weight: u64) -> MaintenanceWorkers {
        if self.is_stream_open() {
            MaintenanceWorkers::No
        } else {
            self.tasks.workers_for(weight, self.passes.current())
        }
    }

    /// Nothing runs, nothing is queued and the stream has ended, but a node still waits.
    fn stalled(&self) -> bool {
        !self.is_stream_open()
            && self.pre_data_done()
            && self.tasks.running() == 0
            && self.loading.is_idle()
            && self.heaviest_task().is_none()
    }
}

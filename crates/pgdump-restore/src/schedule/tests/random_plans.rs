//! Random plans, random order of events: no node starts before its prerequisites, none runs concurrently with
//! another that locks its table, every node finishes, every chunk is taken once and in order.

use std::collections::{HashMap, HashSet, VecDeque};

use super::super::data_queue::{ALONE_BYTES, FIRST_BYTES};
use super::super::*;
use crate::ids::{NodeMap, TableId};
use crate::plan::RestorePass;
use crate::pre_data::{PreDataBatch, PreDataPlan};
use crate::table_locks::LockSet;
use pgdump_archive::DumpId;

#[test]
fn every_schedule_is_complete_and_in_order() {
    for seed in 0..400 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = random_nodes(&mut rng);
        Simulation::new(rng, nodes).run();
    }
}

fn random_nodes(rng: &mut fastrand::Rng) -> Vec<PlanNode> {
    let (count, mut turn) = (rng.usize(0..40), 0);
    let mut nodes: Vec<PlanNode> = vec![];
    for i in 0..count {
        let is_data = i < count / 3;
        let mut node = random_node(rng, i, is_data);
        turn += usize::from(node.in_order);
        let of_all = if rng.u8(0..5) == 0 { usize::MAX } else { turn };
        node.turn = if is_data { turn } else { of_all };
        turn += usize::from(node.in_order);
        // A node of an earlier pass must not wait for one of a later pass.
        node.after
            .retain(|before| nodes[before.0].pass <= node.pass);
        nodes.push(node);
    }
    nodes
}

fn random_node(rng: &mut fastrand::Rng, i: usize, is_data: bool) -> PlanNode {
    let pass = match (is_data, rng.u8(0..10)) {
        (true, _) | (_, 0..8) => RestorePass::Main,
        (_, 8) => RestorePass::Acl,
        _ => [RestorePass::Refresh, RestorePass::EventTriggers][rng.usize(0..2)],
    };
    let mut after = vec![];
    let (mut exclusive, mut shared) = (vec![], vec![]);
    if !is_data {
        after.extend((0..i).filter(|_| rng.u8(0..6) == 0).map(NodeId));
        exclusive.extend(rng.bool().then(|| TableId::Named(rng.usize(0..3))));
        shared.extend(rng.bool().then(|| TableId::Named(rng.usize(0..3))));
        let tree = DumpId(rng.i32(0..2));
        exclusive.extend((rng.u8(0..4) == 0).then_some(TableId::IndexTree(tree)));
    }
    let in_order = is_data && rng.u8(0..4) == 0;
    PlanNode {
        is_data,
        after,
        exclusive,
        shared,
        in_order,
        can_copy_freeze: rng.bool() && !in_order,
        is_key: rng.bool(),
        is_instant: rng.bool(),
        ..PlanNode::of(EntryIndex(i), pass)
    }
}

/// Phases of batches, some of which fail, and the batches that each data node needs.
fn random_pre_data(rng: &mut fastrand::Rng, nodes: &mut [PlanNode]) -> PreDataPlan {
    let group = || vec![EntryIndex(0); 50];
    let phases: Vec<Vec<_>> = (0..rng.usize(0..3))
        .map(|_| (0..rng.usize(1..5)).map(|_| group()).collect())
        .collect();
    let batches = phases.iter().map(Vec::len).sum::<usize>();
    for node in nodes.iter_mut().filter(|n| n.is_data) {
        let needs_all = rng.bool();
        let needed = (0..batches).map(BatchId).filter(|_| rng.u8(0..3) == 0);
        let needed = needed.collect();
        node.pre_data_batches = (!needs_all).then_some(needed);
    }
    PreDataPlan::new(&phases)
}

/// A schedule, its archive reader and its sessions.
struct Simulation {
    rng: fastrand::Rng,
    nodes: Vec<PlanNode>,
    schedule: Schedule<u32>,
    /// Data that has not begun to arrive: nodes and numbers of chunks.
    feed: VecDeque<(NodeId, u32)>,
    /// Data that is arriving, and the number of chunks left.
    open: Option<(NodeId, u32)>,
    sent: HashMap<NodeId, u32>,
    taken: HashMap<NodeId, Vec<u32>>,
    /// What each session does.
    doing: Vec<Option<SessionWork>>,
    done: HashSet<(NodeId, ConstraintStep)>,
    complete: HashSet<BatchId>,
    failed: Vec<BatchId>,
}

impl Simulation {
    fn new(mut rng: fastrand::Rng, mut nodes: Vec<PlanNode>) -> Self {
        let sessions = rng.usize(1..5);
        let plan = Plan {
            pre_data: random_pre_data(&mut rng, &mut nodes),
            nodes: nodes.iter().cloned().collect::<NodeMap<_>>(),
        };
        let data = (0..nodes.len()).filter(|i| nodes[*i].is_data);
        Simulation {
            schedule: Schedule::new(plan, sessions, 1, false),
            feed: data.map(|i| (NodeId(i), rng.u32(0..6))).collect(),
            open: None,
            sent: HashMap::new(),
            taken: HashMap::new(),
            doing: (0..sessions).map(|_| None).collect(),
            done: HashSet::new(),
            complete: HashSet::new(),
            failed: vec![],
            rng,
            nodes,
        }
    }

    fn run(mut self) {
        for _ in 0..100_000 {
            if self.rng.u8(0..3) == 0 {
                self.read();
            }
            let session = SessionId(self.rng.usize(0..self.doing.len()));
            match self.doing[session.0].take() {
                Some(work) => self.work(session, work),
                None => match self.schedule.next(session) {
                    SessionWork::Finished => return self.assert_finished(),
                    SessionWork::Stuck(node) => panic!("stuck at {node:?}"),
                    SessionWork::Wait => {}
                    work => {
                        self.assert_may_start(&work);
                        self.doing[session.0] = Some(work);
                    }
                },
            }
        }
        panic!("not finished");
    }

    fn node(&self, node: NodeId) -> &PlanNode {
        &self.nodes[node.0]
    }

    fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The archive reader takes one step.
    fn read(&mut self) {
        match self.open {
            Some((node, 0)) => {
                self.schedule.end(node);
                self.open = None;
            }
            Some((node, left)) => {
                self.push(node, left == 1);
                self.open = Some((node, left - 1));
            }
            None => {
                self.open = self.feed.pop_front();
                match self.open {
                    Some((node, _)) => self.schedule.begin(node),
                    None => self.schedule.stream_ended(),
                }
            }
        }
    }

    fn push(&mut self, node: NodeId, is_last: bool) {
        let number = self.sent.entry(node).or_insert(0);
        let weight = [1, FIRST_BYTES, ALONE_BYTES][self.rng.usize(0..3)];
        let splittable = is_last || self.rng.bool();
        self.schedule.push(node, *number, weight, splittable);
        *number += 1;
    }

    /// A session takes one step of its work.
    fn work(&mut self, session: SessionId, work: SessionWork) {
        match work {
            SessionWork::Make { batch, what } => self.create(batch, &what),
            SessionWork::Tasks { nodes, .. } => self.schedule.tasks_done(&nodes),
            SessionWork::Copy { node, .. } => match self.schedule.take(node, session) {
                CopyNext::Chunk(number) => {
                    self.taken.entry(node).or_default().push(number);
                    self.doing[session.0] = Some(work);
                }
                CopyNext::Wait => self.doing[session.0] = Some(work),
                CopyNext::Leave | CopyNext::End => self.schedule.copier_done(node, 0),
            },
            SessionWork::Wait | SessionWork::Finished | SessionWork::Stuck(_) => {}
        }
    }

    fn create(&mut self, batch: BatchId, what: &PreDataBatch) {
        if what.may_fail && self.rng.u8(0..4) == 0 {
            self.failed.push(batch);
            self.schedule.batch_done(batch, vec![EntryIndex(0)]);
            return;
        }
        self.complete.insert(batch);
        if !what.may_fail {
            // With one session, these are the remaining entries.
            self.complete.extend(self.failed.drain(..));
        }
        self.schedule.batch_done(batch, vec![]);
    }

    fn assert_may_start(&mut self, work: &SessionWork) {
        match work {
            SessionWork::Tasks { nodes, .. } => {
                assert!(self.schedule.pre_data_done());
                nodes.iter().for_each(|task| self.assert_may_run(*task));
            }
            SessionWork::Copy { node, start } => {
                self.assert_may_copy(*node, *start != CopyStart::Shared);
            }
            _ => {}
        }
    }

    fn assert_lower_turns_done(&self, node: NodeId) {
        let turn = self.node(node).turn;
        let is_before = |id: &NodeId| self.node(*id).is_data && self.node(*id).turn < turn;
        assert!(self.ids().filter(is_before).all(|id| self.is_done(id)));
    }

    fn is_done(&self, node: NodeId) -> bool {
        self.schedule.prerequisites.is_done(node)
    }

    fn assert_may_run(&mut self, task: NodeId) {
        self.assert_lower_turns_done(task);
        assert!(
            self.node(task)
                .after
                .iter()
                .all(|before| self.is_done(*before))
        );
        for other in self.running_tasks() {
            assert!(self.are_compatible(task, other) && self.are_compatible(other, task));
            assert_eq!(self.node(task).pass, self.node(other).pass);
            assert!(!self.node(task).pass.is_serial());
        }
        let step = self.schedule.step(task);
        assert!(self.done.insert((task, step)), "node {task:?} twice");
        let is_done = |step| self.done.contains(&(task, step));
        let only_index = !is_done(ConstraintStep::Whole) && is_done(ConstraintStep::Index);
        assert!(step != ConstraintStep::Key || only_index);
    }

    fn running_tasks(&self) -> Vec<NodeId> {
        let nodes = self.doing.iter().flatten().filter_map(|work| match work {
            SessionWork::Tasks { nodes, .. } => Some(nodes),
            _ => None,
        });
        nodes.flatten().copied().collect()
    }

    fn are_compatible(&self, task: NodeId, other: NodeId) -> bool {
        let locks = |id: NodeId| self.node(id).locks(self.schedule.step(id));
        let LockSet { exclusive, shared } = locks(other);
        let is_free = |table: &TableId| !exclusive.contains(table) && !shared.contains(table);
        locks(task).exclusive.iter().all(is_free)
    }

    fn assert_may_copy(&self, node: NodeId, first: bool) {
        for other in self.doing.iter().flatten() {
            if let SessionWork::Copy { node: o, start } = other {
                let is_shared = !first && *start == CopyStart::Shared;
                assert!(*o != node || is_shared, "not alone on {node:?}");
            }
        }
        let (of, is_taken) = (self.node(node), self.taken.contains_key(&node));
        assert!(!first || (of.can_copy_freeze && !is_taken));
        assert!(!of.in_order || !is_taken, "a second copier of {node:?}");
        self.assert_lower_turns_done(node);
        let is_complete = |batch| self.complete.contains(batch);
        let batches = of.pre_data_batches.as_ref();
        let all_done = || self.schedule.pre_data_done();
        assert!(batches.map_or_else(all_done, |needed| needed.iter().all(is_complete)));
    }

    fn assert_finished(mut self) {
        assert!(self.ids().all(|id| self.is_done(id)));
        assert!(self.schedule.pre_data_done());
        for (node, count) in std::mem::take(&mut self.sent) {
            let mut taken = self.taken.remove(&node).unwrap_or_default();
            if !self.node(node).in_order {
                taken.sort_unstable();
            }
            assert_eq!(taken, (0..count).collect::<Vec<_>>());
        }
    }
}

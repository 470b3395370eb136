//! What each node waits for: other nodes, pre-data, and data of lower load turns.

use std::collections::{BTreeMap, HashMap};

use crate::ids::{BatchId, NodeId, NodeMap};
use crate::load_turns::LoadTurns;
use crate::plan::{Plan, PlanNode};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum NodeState {
    #[default]
    Waiting,
    Running,
    Done,
}

#[derive(Debug, Default)]
pub(super) struct Prerequisites {
    state: NodeMap<NodeState>,
    /// Number of prerequisites that are not done.
    missing: NodeMap<usize>,
    dependents: NodeMap<Vec<NodeId>>,
    /// Data nodes that wait for a pre-data batch, or (`None`) for all of them.
    awaiting_pre_data: HashMap<Option<BatchId>, Vec<NodeId>>,
    /// Data that is not loaded.
    unloaded: LoadTurns,
    /// Nodes that wait for data of a lower turn, by their own turn.
    awaiting_turn: BTreeMap<usize, Vec<NodeId>>,
}

impl Prerequisites {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut prerequisites = Prerequisites::default();
        for (_, node) in plan.nodes.iter() {
            prerequisites.push();
            if node.is_data {
                prerequisites.unloaded.add(node.turn);
            }
        }
        for (id, node) in plan.nodes.iter() {
            prerequisites.wait_for_nodes(id, &node.after);
            prerequisites.wait_for_turn(id, node.turn);
            if node.is_data && !plan.pre_data.is_done() {
                prerequisites.wait_for_pre_data(id, node);
            }
        }
        prerequisites
    }

    /// Adds a node that waits for other nodes only; true if these are done.
    pub(super) fn add(&mut self, after: &[NodeId]) -> bool {
        let id = self.push();
        self.wait_for_nodes(id, after);
        self.are_met(id)
    }

    fn push(&mut self) -> NodeId {
        self.state.push(NodeState::Waiting);
        self.dependents.push(vec![]);
        self.missing.push(0)
    }

    fn wait_for_nodes(&mut self, id: NodeId, after: &[NodeId]) {
        for before in after.iter().copied() {
            if !self.is_done(before) {
                self.dependents[before].push(id);
                self.missing[id] += 1;
            }
        }
    }

    fn wait_for_pre_data(&mut self, id: NodeId, node: &PlanNode) {
        let batches = match &node.pre_data_batches {
            Some(batches) => batches.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        self.missing[id] += batches.len();
        for batch in batches {
            self.awaiting_pre_data.entry(batch).or_default().push(id);
        }
    }

    fn wait_for_turn(&mut self, id: NodeId, turn: usize) {
        if !self.unloaded.is_due(turn) {
            self.missing[id] += 1;
            self.awaiting_turn.entry(turn).or_default().push(id);
        }
    }

    /// Whether a node waits for nothing more.
    pub(super) fn are_met(&self, node: NodeId) -> bool {
        self.missing[node] == 0
    }

    /// Nodes that wait for nothing.
    pub(super) fn ready(&self) -> Vec<NodeId> {
        let ready = self.missing.iter().filter(|(_, missing)| **missing == 0);
        ready.map(|(id, _)| id).collect()
    }

    pub(super) fn start(&mut self, node: NodeId) {
        self.state[node] = NodeState::Running;
    }

    pub(super) fn is_done(&self, node: NodeId) -> bool {
        self.state[node] == NodeState::Done
    }

    /// The first node that has not been started.
    pub(super) fn first_waiting(&self) -> NodeId {
        let mut states = self.state.iter();
        states
            .find_map(|(id, state)| (*state == NodeState::Waiting).then_some(id))
            .unwrap_or_default()
    }

    /// A node is done. Returns the nodes that now wait for nothing more.
    pub(super) fn finish(&mut self, id: NodeId, node: &PlanNode) -> Vec<NodeId> {
        self.state[id] = NodeState::Done;
        let mut released = std::mem::take(&mut self.dependents[id]);
        if node.is_data {
            self.unloaded.done(node.turn);
            released.extend(self.take_due_turns());
        }
        self.release(released)
    }

    fn take_due_turns(&mut self) -> Vec<NodeId> {
        let mut due = vec![];
        while let Some(turn) = self.awaiting_turn.first_entry()
            && self.unloaded.is_due(*turn.key())
        {
            due.extend(turn.remove());
        }
        due
    }

    /// These batches of pre-data are complete, and with `all` every batch. Returns the nodes that now wait for
    /// nothing more.
    pub(super) fn batches_done(&mut self, batches: Vec<BatchId>, all: bool) -> Vec<NodeId> {
        let keys = batches.into_iter().map(Some).chain(all.then_some(None));
        let released = keys.filter_map(|key| self.awaiting_pre_data.remove(&key));
        let released = released.flatten().collect();
        self.release(released)
    }

    fn release(&mut self, mut nodes: Vec<NodeId>) -> Vec<NodeId> {
        nodes.retain(|node| {
            self.missing[*node] -= 1;
            self.missing[*node] == 0
        });
        nodes
    }
}

//! Data that has arrived, and the copiers that load it.

use std::collections::HashMap;

use super::data_queue::{DataQueue, OtherWork};
use super::work::{CopyNext, CopyStart};
use crate::arrivals::Arrivals;
use crate::ids::{NodeId, SessionId};

#[derive(Debug)]
pub(super) struct Loading<P> {
    queues: HashMap<NodeId, DataQueue<P>>,
    /// Nodes with a queue that may be loaded and are not complete.
    arrivals: Arrivals,
    /// Number of copiers of all nodes.
    copiers: usize,
}

impl<P> Default for Loading<P> {
    fn default() -> Self {
        Loading {
            queues: HashMap::new(),
            arrivals: Arrivals::default(),
            copiers: 0,
        }
    }
}

impl<P> Loading<P> {
    /// Adds a queue for the node's data; false if it has one.
    pub(super) fn begin(&mut self, node: NodeId, in_order: bool) -> bool {
        let is_new = !self.queues.contains_key(&node);
        if is_new {
            self.queues.insert(node, DataQueue::new(in_order));
        }
        is_new
    }

    /// The node's data may be loaded from now on.
    pub(super) fn allow(&mut self, node: NodeId) {
        if self.queues.contains_key(&node) {
            self.arrivals.push(node);
        }
    }

    pub(super) fn push(&mut self, node: NodeId, chunk: P, weight: u64, splittable: bool) {
        if let Some(queue) = self.queues.get_mut(&node) {
            queue.push(chunk, weight, splittable);
        }
    }

    /// Counts data of the node that is on the server already.
    pub(super) fn preset(&mut self, node: NodeId, bytes: u64, rows: u64) {
        if let Some(queue) = self.queues.get_mut(&node) {
            queue.preset(bytes, rows);
        }
    }

    /// All of the node's data has arrived; false if that was known.
    pub(super) fn end(&mut self, node: NodeId) -> bool {
        let queue = self.queues.get_mut(&node);
        queue.is_none_or(DataQueue::end)
    }

    /// All of the node's data is on the server.
    pub(super) fn is_loaded(&self, node: NodeId) -> bool {
        self.queues.get(&node).is_some_and(DataQueue::is_loaded)
    }

    /// The node is complete.
    pub(super) fn finish(&mut self, node: NodeId) {
        self.arrivals.remove(node);
    }

    /// Whether every chunk of `node` has been taken.
    pub(super) fn is_drained(&self, node: NodeId) -> bool {
        self.queues.get(&node).is_none_or(DataQueue::is_empty)
    }

    /// Whether no node has data that may be loaded.
    pub(super) fn is_idle(&self) -> bool {
        self.arrivals.is_empty()
    }

    pub(super) fn has_copiers(&self) -> bool {
        self.copiers > 0
    }

    /// The oldest node with chunks that no copier is about to take.
    pub(super) fn node_for(&self, session: SessionId) -> Option<NodeId> {
        let can_join = |node: &NodeId| self.queues.get(node).is_some_and(|q| q.can_join(session));
        self.arrivals.iter().find(can_join)
    }

    /// Adds a copier of the node.
    pub(super) fn join(&mut self, node: NodeId, can_freeze: bool) -> CopyStart {
        self.copiers += 1;
        let queue = self.queues.get_mut(&node);
        queue.map_or(CopyStart::Shared, |queue| queue.join(can_freeze))
    }

    pub(super) fn take(
        &mut self,
        node: NodeId,
        session: SessionId,
        other: OtherWork,
    ) -> CopyNext<P> {
        match self.queues.get_mut(&node) {
            Some(queue) => queue.take(session, other),
            None => CopyNext::End,
        }
    }

    /// A copier's COPY is complete on the server, with this many rows.
    pub(super) fn leave(&mut self, node: NodeId, rows: u64) {
        self.copiers -= 1;
        if let Some(queue) = self.queues.get_mut(&node) {
            queue.leave(rows);
        }
    }

    /// Bytes of these nodes' data that have been queued.
    pub(super) fn bytes_of(&self, nodes: &[NodeId]) -> u64 {
        self.queues_of(nodes).map(DataQueue::bytes).sum()
    }

    /// Rows of these nodes that the server has counted.
    pub(super) fn rows_of(&self, nodes: &[NodeId]) -> u64 {
        self.queues_of(nodes).map(DataQueue::rows).sum()
    }

    fn queues_of(&self, nodes: &[NodeId]) -> impl Iterator<Item = &DataQueue<P>> {
        nodes.iter().filter_map(|node| self.queues.get(node))
    }
}

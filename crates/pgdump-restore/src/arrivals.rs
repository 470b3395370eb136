//! A queue of nodes in order of arrival that removes any of them without a search.

use std::collections::{BTreeMap, HashMap};

use super::ids::NodeId;

/// Nodes whose data may be loaded, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    next: u64,
    by_order: BTreeMap<u64, NodeId>,
    order_of: HashMap<NodeId, u64>,
}

impl Arrivals {
    /// Adds a node at the end; a node that is already queued keeps its place.
    pub(crate) fn push(&mut self, node: NodeId) {
        if let std::collections::hash_map::Entry::Vacant(place) = self.order_of.entry(node) {
            place.insert(self.next);
            self.by_order.insert(self.next, node);
            self.next += 1;
        }
    }

    pub(crate) fn remove(&mut self, node: NodeId) {
        if let Some(order) = self.order_of.remove(&node) {
            self.by_order.remove(&order);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.by_order.values().copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_keep_their_order_of_arrival() {
        let mut arrivals = Arrivals::default();
        [5, 3, 9, 3]
            .map(NodeId)
            .into_iter()
            .for_each(|n| arrivals.push(n));
        assert_eq!(arrivals.iter().collect::<Vec<_>>(), [5, 3, 9].map(NodeId));
        arrivals.remove(NodeId(3));
        arrivals.remove(NodeId(3));
        arrivals.push(NodeId(3));
        assert_eq!(arrivals.iter().collect::<Vec<_>>(), [5, 9, 3].map(NodeId));
        [5, 9, 3]
            .map(NodeId)
            .into_iter()
            .for_each(|n| arrivals.remove(n));
        assert!(arrivals.is_empty());
    }
}

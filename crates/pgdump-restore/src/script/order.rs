//! What each node of a text waits for.

use std::collections::HashMap;

use super::classify::OrderGroup;
use crate::ids::{NodeId, TableId};

/// Keeps the order: determines what the next node waits for.
#[derive(Debug, Default)]
pub(crate) struct StatementOrder {
    group: OrderGroup,
    /// Nodes of the current group.
    members: Vec<NodeId>,
    /// The node that everything in the group waits for.
    barrier: Option<NodeId>,
    tables: HashMap<String, TableId>,
}

impl StatementOrder {
    pub(crate) fn group(&self) -> OrderGroup {
        self.group
    }

    /// The nodes that a barrier must wait for before a node of `group` is added; `None` if no barrier is needed.
    pub(crate) fn barrier_before(&mut self, group: OrderGroup) -> Option<Vec<NodeId>> {
        if group == self.group && group != OrderGroup::Serial {
            return None;
        }
        match self.members.as_slice() {
            [] => None,
            [one] => {
                self.barrier = Some(*one);
                self.members.clear();
                None
            }
            _ => Some(std::mem::take(&mut self.members)),
        }
    }

    /// Sets the barrier that [`barrier_before`](Self::barrier_before) asked for.
    pub(crate) fn passed(&mut self, node: NodeId) {
        self.barrier = Some(node);
    }

    pub(crate) fn after(&self) -> Vec<NodeId> {
        self.barrier.into_iter().collect()
    }

    pub(crate) fn added(&mut self, node: NodeId, group: OrderGroup) {
        self.group = group;
        self.members.push(node);
    }

    /// The table of this name, for locks.
    pub(crate) fn table(&mut self, name: &str) -> TableId {
        let next = TableId::Named(self.tables.len());
        *self.tables.entry(name.to_owned()).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_for_the_group_before_it() {
        let mut o = StatementOrder::default();
        let mut next = 0;
        let mut add = |o: &mut StatementOrder, group| {
            if let Some(after) = o.barrier_before(group) {
                assert!(after.len() > 1);
                o.passed(NodeId(next));
                next += 1;
            }
            let after: Vec<usize> = o.after().iter().map(|node| node.0).collect();
            o.added(NodeId(next), group);
            next += 1;
            (next - 1, after)
        };
        assert_eq!(add(&mut o, OrderGroup::Serial), (0, vec![]));
        assert_eq!(add(&mut o, OrderGroup::Serial), (1, vec![0]));
        assert_eq!(add(&mut o, OrderGroup::Data), (2, vec![1]));
        assert_eq!(add(&mut o, OrderGroup::Data), (3, vec![1]));
        assert_eq!(
            add(&mut o, OrderGroup::Build),
            (5, vec![4]),
            "after a barrier for both"
        );
        assert_eq!(add(&mut o, OrderGroup::Keys), (6, vec![5]));
    }
}

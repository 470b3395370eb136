//! Numbers that stand for different things, each with a type of its own.

use std::ops::{Index, IndexMut};

use pgdump_archive::DumpId;

macro_rules! index_types {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(pub(crate) usize);
    )*};
}

index_types! {
    /// A node of the plan.
    NodeId,
    /// What a node restores: an entry of the table of contents, or a step of SQL text.
    EntryIndex,
    /// A batch of pre-data.
    BatchId,
    /// A session that loads.
    SessionId,
}

/// What a task locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TableId {
    /// A table of the table of contents.
    Entry(DumpId),
    /// A table of SQL text: the number of its name.
    Named(usize),
    /// Not a table: an index of a partitioned table with those of its partitions, by the first of them. Serializes their
    /// attachments: two concurrent ones under the same root may miss each other and leave the root's index invalid (fixed
    /// in 15.20 and its sibling releases).
    IndexTree(DumpId),
}

/// Numbers in order, each once.
pub(crate) fn sorted<T: Ord>(numbers: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut numbers: Vec<T> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// A value for every node.
#[derive(Debug, Clone)]
pub(crate) struct NodeMap<T>(Vec<T>);

impl<T> NodeMap<T> {
    /// Adds the value of the next node.
    pub(crate) fn push(&mut self, value: T) -> NodeId {
        self.0.push(value);
        NodeId(self.0.len() - 1)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &T)> {
        let values = self.0.iter().enumerate();
        values.map(|(i, value)| (NodeId(i), value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (NodeId, &mut T)> {
        let values = self.0.iter_mut().enumerate();
        values.map(|(i, value)| (NodeId(i), value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Default for NodeMap<T> {
    fn default() -> Self {
        NodeMap(vec![])
    }
}

impl<T> FromIterator<T> for NodeMap<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        NodeMap(values.into_iter().collect())
    }
}

impl<T> Index<NodeId> for NodeMap<T> {
    type Output = T;

    fn index(&self, node: NodeId) -> &T {
        &self.0[node.0]
    }
}

impl<T> IndexMut<NodeId> for NodeMap<T> {
    fn index_mut(&mut self, node: NodeId) -> &mut T {
        &mut self.0[node.0]
    }
}

//! The answers of the schedule to a session.

use crate::ids::{BatchId, NodeId};
use crate::parallelism::TaskCost;
use crate::pre_data::PreDataBatch;

/// What a session may do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SessionWork {
    /// Create this batch of pre-data.
    Make { batch: BatchId, what: PreDataBatch },
    /// Load chunks of this data node until [`CopyNext::Leave`] or [`CopyNext::End`].
    Copy { node: NodeId, start: CopyStart },
    /// Run the statements of these nodes, in this order.
    Tasks { nodes: Vec<NodeId>, size: TaskCost },
    /// Nothing is available; ask again after a change.
    Wait,
    /// Everything is restored.
    Finished,
    /// Nothing runs and nothing can start: entries wait for each other.
    Stuck(NodeId),
}

/// How a copier begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyStart {
    /// The table may have rows, and other sessions may load it, too.
    Shared,
    /// The table is empty, and nobody else loads it until this copier is done.
    Alone,
    /// The same, and the rows are worth freezing.
    Freezing,
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

impl<P> CopyNext<P> {
    pub(super) fn leave_or_wait(leave: bool) -> Self {
        if leave {
            CopyNext::Leave
        } else {
            CopyNext::Wait
        }
    }
}

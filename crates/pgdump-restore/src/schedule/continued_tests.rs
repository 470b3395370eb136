//! What sessions get of a restore that an earlier attempt began.

use super::data_queue::FIRST_BYTES;
use super::*;
use crate::plan::RestorePass;

/// Two tables, the rows of the second one after those of the first, and an index of the first one.
fn schedule() -> Schedule<u32> {
    let data = |entry: usize| PlanNode {
        is_data: true,
        can_copy_freeze: true,
        turn: entry,
        ..PlanNode::of(EntryIndex(entry), RestorePass::Main)
    };
    let index = PlanNode {
        after: vec![NodeId(0)],
        ..PlanNode::of(EntryIndex(2), RestorePass::Main)
    };
    let plan = Plan {
        nodes: [data(0), data(1), index].into_iter().collect(),
        ..Plan::default()
    };
    Schedule::new(plan, 2, 1, false)
}

#[test]
fn data_that_nobody_reads_is_loaded() {
    let mut s = schedule();
    s.begin(NodeId(0));
    s.preset(NodeId(0), 7, 1000);
    s.end(NodeId(0));
    assert!(s.is_ready(NodeId(1)));
    let SessionWork::Tasks { nodes, size } = s.next(SessionId(0)) else {
        panic!("the index can be built");
    };
    assert_eq!((nodes, size.rows), (vec![NodeId(2)], 1000));
    // It passes nevertheless, because the stream has it.
    s.begin(NodeId(0));
    s.skip(NodeId(0), 7);
    s.end(NodeId(0));
    s.begin(NodeId(1));
    s.push(NodeId(1), 5, 1, true);
    s.end(NodeId(1));
    s.stream_ended();
    let copy = s.next(SessionId(1));
    assert!(matches!(
        copy,
        SessionWork::Copy {
            node: NodeId(1),
            ..
        }
    ));
    assert_eq!(s.take(NodeId(1), SessionId(1)), CopyNext::Chunk(5));
    s.copier_done(NodeId(1), 1);
    s.tasks_done(&[NodeId(2)]);
    assert_eq!(s.next(SessionId(0)), SessionWork::Finished);
}

#[test]
fn a_table_of_which_rows_were_skipped_is_not_empty() {
    for is_skipped in [false, true] {
        let mut s = schedule();
        s.begin(NodeId(0));
        s.skip(NodeId(0), u64::from(is_skipped));
        s.push(NodeId(0), 5, FIRST_BYTES, true);
        let start = if is_skipped {
            CopyStart::Shared
        } else {
            CopyStart::Freezing
        };
        let wanted = SessionWork::Copy {
            node: NodeId(0),
            start,
        };
        assert_eq!(s.next(SessionId(0)), wanted);
    }
}

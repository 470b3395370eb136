//! What sessions get, step by step.

mod random_plans;

use super::data_queue::{ALONE_BYTES, FIRST_BYTES, FREEZE_BYTES};
use super::*;
use crate::ids::TableId;
use crate::parallelism::LIGHT_BYTES;
use crate::plan::RestorePass;
use pgdump_archive::DumpId;

fn node(
    entry: usize,
    pass: RestorePass,
    is_data: bool,
    after: &[usize],
    exclusive: &[usize],
) -> PlanNode {
    PlanNode {
        is_data,
        after: after.iter().copied().map(NodeId).collect(),
        exclusive: exclusive.iter().copied().map(TableId::Named).collect(),
        ..PlanNode::of(EntryIndex(entry), pass)
    }
}

fn schedule(nodes: Vec<PlanNode>, sessions: usize) -> Schedule<u32> {
    let plan = Plan {
        nodes: nodes.into_iter().collect(),
        ..Plan::default()
    };
    Schedule::new(plan, sessions, 1, false)
}

fn copier(node: usize) -> SessionWork {
    SessionWork::Copy {
        node: NodeId(node),
        start: CopyStart::Shared,
    }
}

fn tasks(nodes: &[usize]) -> SessionWork {
    SessionWork::Tasks {
        nodes: nodes.iter().copied().map(NodeId).collect(),
        size: TaskCost::default(),
    }
}

fn task_with(workers: MaintenanceWorkers, node: usize) -> SessionWork {
    SessionWork::Tasks {
        nodes: vec![NodeId(node)],
        size: TaskCost {
            workers,
            ..TaskCost::default()
        },
    }
}

#[test]
fn one_table_is_shared_and_one_session_stays_free_for_data() {
    let nodes = vec![
        node(0, RestorePass::Main, true, &[], &[]),
        node(1, RestorePass::Main, false, &[], &[]),
        node(2, RestorePass::Main, false, &[], &[]),
    ];
    let mut s = schedule(nodes, 2);
    assert_eq!(s.next(SessionId(0)), tasks(&[1]));
    assert_eq!(s.next(SessionId(1)), SessionWork::Wait, "reserved for data");
    s.begin(NodeId(0));
    for i in 0..4 {
        s.push(NodeId(0), i, 1, true);
    }
    s.tasks_done(&[1].map(NodeId));
    assert_eq!(
        (s.next(SessionId(0)), s.next(SessionId(1))),
        (copier(0), copier(0))
    );
    assert_eq!(
        (
            s.take(NodeId(0), SessionId(0)),
            s.take(NodeId(0), SessionId(1))
        ),
        (CopyNext::Chunk(0), CopyNext::Chunk(1))
    );
}

/// A session takes a share of the tasks; those on one table in order, and a heavy one by itself.
#[test]
fn light_tasks_are_taken_together() {
    let mut nodes = vec![node(0, RestorePass::Main, true, &[], &[])];
    nodes.push(node(1, RestorePass::Main, false, &[0], &[]));
    nodes.extend((2..8).map(|i| node(i, RestorePass::Main, false, &[], &[i / 4])));
    nodes.push(node(8, RestorePass::Acl, false, &[], &[]));
    nodes.push(node(9, RestorePass::Acl, false, &[], &[]));
    let mut s = schedule(nodes, 2);
    s.begin(NodeId(0));
    s.push(NodeId(0), 7, LIGHT_BYTES + 1, true);
    s.end(NodeId(0));
    s.stream_ended();
    assert_eq!(
        (s.next(SessionId(0)), s.take(NodeId(0), SessionId(0))),
        (copier(0), CopyNext::Chunk(7))
    );
    s.copier_done(NodeId(0), 0);
    assert_eq!(
        s.next(SessionId(0)),
        task_with(MaintenanceWorkers::Now, 1),
        "its table is large"
    );
    assert_eq!(s.next(SessionId(1)), tasks(&[2, 3, 4]));
    s.tasks_done(&[1].map(NodeId));
    assert_eq!(
        s.next(SessionId(0)),
        SessionWork::Wait,
        "the remaining tasks need a table that the other session has locked"
    );
    s.tasks_done(&[2, 3, 4].map(NodeId));
    assert_eq!(s.next(SessionId(0)), tasks(&[5, 6]));
    assert_eq!(s.next(SessionId(1)), SessionWork::Wait);
    s.tasks_done(&[5, 6].map(NodeId));
    assert_eq!(s.next(SessionId(0)), tasks(&[7]));
    s.tasks_done(&[7].map(NodeId));
    assert_eq!(
        (s.next(SessionId(0)), s.next(SessionId(1))),
        (tasks(&[8, 9]), SessionWork::Wait)
    );
}

/// The server has a limited number of locks for all sessions.
#[test]
fn tasks_that_lock_many_tables_are_not_taken_together() {
    let partitions: Vec<usize> = (100..170).collect();
    let more: Vec<usize> = (200..270).collect();
    let mut nodes = vec![
        node(0, RestorePass::Main, false, &[], &partitions),
        node(1, RestorePass::Main, false, &[], &more),
        node(2, RestorePass::Main, false, &[], &[1, 2]),
    ];
    // It only keeps tasks on the other partitions from running.
    nodes.extend((3..5).map(|i| node(i, RestorePass::Main, false, &[2], &partitions)));
    for node in &mut nodes[3..] {
        node.exclusive.push(TableId::IndexTree(DumpId(1)));
    }
    let mut s = schedule(nodes, 1);
    s.stream_ended();
    assert_eq!(s.next(SessionId(0)), tasks(&[0]));
    s.tasks_done(&[NodeId(0)]);
    assert_eq!(s.next(SessionId(0)), tasks(&[1, 2]));
    s.tasks_done(&[1, 2].map(NodeId));
    assert_eq!(s.next(SessionId(0)), tasks(&[3, 4]));
}

/// Sessions attach indexes to different ones at the same time, so a batch is of one tree.
#[test]
fn attachments_of_one_tree_are_taken_together() {
    let attachment = |i: usize| {
        let mut node = node(i, RestorePass::Main, false, &[], &[i]);
        let tree = DumpId(i32::try_from(i % 2).unwrap());
        node.exclusive.push(TableId::IndexTree(tree));
        node
    };
    let mut s = schedule((0..6).map(attachment).collect(), 2);
    s.stream_ended();
    assert_eq!(s.next(SessionId(0)), tasks(&[0, 2, 4]));
    assert_eq!(s.next(SessionId(1)), tasks(&[1, 3]));
    s.tasks_done(&[0, 2, 4].map(NodeId));
    assert_eq!(
        s.next(SessionId(0)),
        SessionWork::Wait,
        "the other session changes this tree"
    );
}

/// However many rows its table has: it is not run by itself, and not before the indexes.
#[test]
fn what_changes_the_catalog_only_weighs_nothing() {
    let mut nodes = vec![node(0, RestorePass::Main, true, &[], &[])];
    nodes.extend((1..6).map(|i| PlanNode {
        is_instant: i < 5,
        ..node(i, RestorePass::Main, false, &[0], &[])
    }));
    let mut s = schedule(nodes, 2);
    s.begin(NodeId(0));
    s.push(NodeId(0), 7, LIGHT_BYTES + 1, true);
    s.end(NodeId(0));
    s.stream_ended();
    assert_eq!(
        (s.next(SessionId(0)), s.take(NodeId(0), SessionId(0))),
        (copier(0), CopyNext::Chunk(7))
    );
    s.copier_done(NodeId(0), 0);
    assert_eq!(s.next(SessionId(0)), task_with(MaintenanceWorkers::Now, 5));
    assert_eq!(s.next(SessionId(1)), tasks(&[1, 2]));
}

/// A record that is to begin waits for tasks that are not.
#[test]
fn tasks_over_more_data_than_a_copy_brings_are_long() {
    for (bytes, is_long) in [(SHORT_BYTES, false), (SHORT_BYTES + 1, true)] {
        let rows = node(0, RestorePass::Main, true, &[], &[]);
        let index = node(1, RestorePass::Main, false, &[0], &[]);
        let mut s = schedule(vec![rows, index], 2);
        s.begin(NodeId(0));
        s.push(NodeId(0), 7, bytes, true);
        s.end(NodeId(0));
        s.stream_ended();
        assert_eq!(
            (s.next(SessionId(0)), s.take(NodeId(0), SessionId(0))),
            (copier(0), CopyNext::Chunk(7))
        );
        s.copier_done(NodeId(0), 0);
        let SessionWork::Tasks { size, .. } = s.next(SessionId(0)) else {
            panic!("there is an index to be built");
        };
        assert_eq!(size.is_long, is_long, "{bytes}");
    }
}

/// Also if its rows were loaded before it was known: the heavier one first, and by itself.
#[test]
fn tasks_added_later_weigh_as_much_as_their_rows() {
    let rows = |i| node(i, RestorePass::Main, true, &[], &[]);
    let plan = Plan::default();
    let mut s: Schedule<u32> = Schedule::new(plan, 2, 1, true);
    for (i, bytes) in [(0, 1), (1, 3 * LIGHT_BYTES), (2, 2 * LIGHT_BYTES)] {
        assert_eq!(s.add(rows(i)), NodeId(i));
        s.begin(NodeId(i));
        s.push(NodeId(i), 0, bytes, true);
        s.end(NodeId(i));
        assert_eq!(
            (s.next(SessionId(0)), s.take(NodeId(i), SessionId(0))),
            (copier(i), CopyNext::Chunk(0))
        );
        s.copier_done(NodeId(i), i as u64);
    }
    (3..6).for_each(|i| {
        assert_eq!(
            s.add(node(i, RestorePass::Main, false, &[i - 3], &[])),
            NodeId(i)
        )
    });
    let alone = |i, rows| SessionWork::Tasks {
        nodes: vec![NodeId(i)],
        size: TaskCost {
            rows,
            ..TaskCost::default()
        },
    };
    assert_eq!(
        (s.next(SessionId(0)), s.next(SessionId(1))),
        (alone(4, 1), alone(5, 2))
    );
    s.tasks_done(&[4].map(NodeId));
    assert_eq!(s.next(SessionId(0)), tasks(&[3]));
}

/// The first copier of a table that the restore has created has it to itself, until the table is large and
/// other sessions are idle.
#[test]
fn the_first_copier_of_a_new_table_is_alone() {
    let nodes = vec![PlanNode {
        can_copy_freeze: true,
        ..node(0, RestorePass::Main, true, &[], &[])
    }];
    let mut s = schedule(nodes, 2);
    s.begin(NodeId(0));
    (0..3).for_each(|i| s.push(NodeId(0), i, FIRST_BYTES, true));
    assert_eq!(
        s.next(SessionId(0)),
        SessionWork::Copy {
            node: NodeId(0),
            start: CopyStart::Freezing
        }
    );
    assert_eq!(
        (s.take(NodeId(0), SessionId(0)), s.next(SessionId(1))),
        (CopyNext::Chunk(0), SessionWork::Wait)
    );
    assert_eq!(
        s.take(NodeId(0), SessionId(0)),
        CopyNext::Chunk(1),
        "the table is not large"
    );
    s.push(NodeId(0), 3, ALONE_BYTES, true);
    assert_eq!(s.take(NodeId(0), SessionId(0)), CopyNext::Leave);
    s.copier_done(NodeId(0), 0);
    assert_eq!(
        (s.next(SessionId(0)), s.next(SessionId(1))),
        (copier(0), copier(0))
    );
}

/// A TRUNCATE costs more than freezing the rows of a small table saves, and whether a table is small is known once all of
/// its data has arrived.
#[test]
fn rows_of_small_tables_are_not_frozen() {
    for (bytes, ended, start) in [
        (FIRST_BYTES - 1, true, CopyStart::Shared),
        (FIRST_BYTES, true, CopyStart::Alone),
        (FIRST_BYTES, false, CopyStart::Freezing),
        (FREEZE_BYTES, true, CopyStart::Freezing),
    ] {
        let data = |i| PlanNode {
            can_copy_freeze: true,
            ..node(i, RestorePass::Main, true, &[], &[])
        };
        let mut s = schedule(vec![data(0), data(1)], 2);
        s.begin(NodeId(0));
        s.push(NodeId(0), 0, bytes - 1, true);
        s.push(NodeId(0), 1, 1, true);
        if ended {
            s.end(NodeId(0));
        }
        let wanted = SessionWork::Copy {
            node: NodeId(0),
            start,
        };
        assert_eq!(s.next(SessionId(0)), wanted, "{bytes} {ended}");
        // Even so, one session loads it, and the other one loads the next table.
        s.begin(NodeId(1));
        s.push(NodeId(1), 2, 1, true);
        let joined = if start == CopyStart::Shared { 0 } else { 1 };
        assert_eq!(s.next(SessionId(1)), copier(joined), "{bytes} {ended}");
    }
}

/// A task that outweighs all others together may use the idle cores.
#[test]
fn a_task_heavier_than_the_rest_may_run_in_parallel() {
    let mut nodes = vec![
        node(0, RestorePass::Main, true, &[], &[]),
        node(1, RestorePass::Main, true, &[], &[]),
    ];
    nodes.extend((2..7).map(|i| node(i, RestorePass::Main, false, &[usize::from(i == 6)], &[])));
    let mut s = schedule(nodes, 2);
    for (i, bytes) in [(0, 4 * LIGHT_BYTES), (1, 2 * LIGHT_BYTES)] {
        s.begin(NodeId(i));
        s.push(NodeId(i), 0, bytes, true);
        s.end(NodeId(i));
        assert_eq!(
            (s.next(SessionId(0)), s.take(NodeId(i), SessionId(0))),
            (copier(i), CopyNext::Chunk(0))
        );
        s.copier_done(NodeId(i), 0);
    }
    s.stream_ended();
    assert_eq!(
        s.next(SessionId(0)),
        tasks(&[2]),
        "three equally large tasks and a smaller one remain"
    );
    assert_eq!(s.next(SessionId(1)), task_with(MaintenanceWorkers::Soon, 3));
    s.tasks_done(&[2].map(NodeId));
    assert_eq!(s.next(SessionId(0)), task_with(MaintenanceWorkers::Soon, 4));
    s.tasks_done(&[4].map(NodeId));
    assert_eq!(
        s.next(SessionId(0)),
        task_with(MaintenanceWorkers::Soon, 5),
        "one task would remain for the other session"
    );
    s.tasks_done(&[3].map(NodeId));
    assert_eq!(s.next(SessionId(1)), task_with(MaintenanceWorkers::Soon, 6));
}

#[test]
fn the_last_task_uses_idle_cores() {
    let mut nodes = vec![
        node(0, RestorePass::Main, true, &[], &[]),
        node(1, RestorePass::Main, false, &[0], &[]),
    ];
    nodes.extend((2..5).map(|i| node(i, RestorePass::Main, false, &[], &[])));
    let mut s = schedule(nodes, 2);
    s.begin(NodeId(0));
    s.push(NodeId(0), 0, LIGHT_BYTES + 1, true);
    s.end(NodeId(0));
    s.stream_ended();
    assert_eq!(
        (s.next(SessionId(0)), s.take(NodeId(0), SessionId(0))),
        (copier(0), CopyNext::Chunk(0))
    );
    assert_eq!(s.next(SessionId(1)), tasks(&[2, 3]));
    s.copier_done(NodeId(0), 0);
    assert_eq!(
        s.next(SessionId(0)),
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
        shared: vec![TableId::Named(7)],
        ..node(2, RestorePass::Main, false, &[0], &[])
    };
    let nodes = vec![
        node(0, RestorePass::Main, true, &[], &[]),
        key,
        index,
        node(3, RestorePass::Main, false, &[1], &[]),
    ];
    let mut s = schedule(nodes, 2);
    s.begin(NodeId(0));
    s.push(NodeId(0), 0, LIGHT_BYTES + 1, true);
    s.end(NodeId(0));
    assert_eq!(
        (s.next(SessionId(0)), s.take(NodeId(0), SessionId(0))),
        (copier(0), CopyNext::Chunk(0))
    );
    s.copier_done(NodeId(0), 0);
    s.stream_ended();
    assert_eq!(
        (s.next(SessionId(0)), s.next(SessionId(1))),
        (
            task_with(MaintenanceWorkers::Soon, 1),
            task_with(MaintenanceWorkers::Soon, 2)
        )
    );
    assert_eq!(
        (s.step(NodeId(1)), s.step(NodeId(2))),
        (ConstraintStep::Index, ConstraintStep::Whole)
    );
    s.tasks_done(&[1].map(NodeId));
    assert_eq!(
        s.next(SessionId(0)),
        SessionWork::Wait,
        "the other index locks the table"
    );
    s.tasks_done(&[2].map(NodeId));
    assert_eq!(
        (s.next(SessionId(0)), s.step(NodeId(1))),
        (tasks(&[1]), ConstraintStep::Key)
    );
    assert_eq!(
        s.next(SessionId(1)),
        SessionWork::Wait,
        "it waits for the key"
    );
    s.tasks_done(&[1].map(NodeId));
    assert_eq!(s.next(SessionId(1)), tasks(&[3]));
}

/// Their transactions would be a large part of the time. No session waits for a table then, so that its key needs one step.
#[test]
fn tasks_of_middle_size_are_taken_together_while_there_are_many() {
    for (tables, taken, step) in [
        (40, 2, ConstraintStep::Whole),
        (15, 1, ConstraintStep::Index),
    ] {
        let mut nodes: Vec<PlanNode> = (0..tables)
            .map(|i| node(i, RestorePass::Main, true, &[], &[]))
            .collect();
        nodes.extend((0..tables).map(|i| PlanNode {
            is_key: true,
            ..node(tables + i, RestorePass::Main, false, &[i], &[i])
        }));
        let mut s = schedule(nodes, 2);
        for i in 0..tables {
            s.begin(NodeId(i));
            s.push(NodeId(i), 0, 2 * LIGHT_BYTES, true);
            s.end(NodeId(i));
            assert_eq!(
                (s.next(SessionId(0)), s.take(NodeId(i), SessionId(0))),
                (copier(i), CopyNext::Chunk(0))
            );
            s.copier_done(NodeId(i), 0);
        }
        s.stream_ended();
        let keys: Vec<usize> = (tables..tables + 2 * taken).collect();
        for (session, keys) in keys.chunks(taken).enumerate() {
            assert_eq!(s.next(SessionId(session)), tasks(keys), "{tables}");
            assert_eq!(s.step(NodeId(keys[0])), step, "{tables}");
        }
    }
}

#[test]
fn a_row_in_several_chunks_stays_on_one_session() {
    let nodes = vec![node(0, RestorePass::Main, true, &[], &[])];
    let mut s = schedule(nodes, 2);
    s.begin(NodeId(0));
    s.push(NodeId(0), 0, 1, false);
    s.push(NodeId(0), 1, 1, true);
    s.push(NodeId(0), 2, 1, true);
    assert_eq!(
        (s.next(SessionId(0)), s.next(SessionId(1))),
        (copier(0), copier(0))
    );
    assert_eq!(s.take(NodeId(0), SessionId(1)), CopyNext::Chunk(0));
    assert_eq!(s.take(NodeId(0), SessionId(0)), CopyNext::Wait);
    assert_eq!(s.take(NodeId(0), SessionId(1)), CopyNext::Chunk(1));
    assert_eq!(s.take(NodeId(0), SessionId(0)), CopyNext::Chunk(2));
}

#[test]
fn entries_that_wait_for_each_other_are_reported() {
    let nodes = vec![
        node(0, RestorePass::Main, false, &[1], &[]),
        node(1, RestorePass::Main, false, &[0], &[]),
    ];
    let mut s = schedule(nodes, 1);
    s.stream_ended();
    assert_eq!(s.next(SessionId(0)), SessionWork::Stuck(NodeId(0)));
}

//! Pre-data as sessions create it: phase by phase, the batches of a phase concurrently; and which tables
//! can be loaded while others do not exist yet.

use std::collections::{HashMap, HashSet, VecDeque};

use super::ddl;
use super::dependency_groups::PreDataPhase;
use super::dependents::Dependents;
use super::ids::{BatchId, EntryIndex, sorted};
use pgdump_archive::{DumpId, EntryKind, TocEntry};

/// Most entries in one transaction, because several sessions hold their locks.
const BATCH: usize = 50;
/// The same for a phase's first batch, so that rows can be loaded early.
const FIRST_BATCH: usize = 10;
/// Most sessions that create pre-data concurrently.
const MAX_SESSIONS: usize = 8;

/// Entries that one session creates, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PreDataBatch {
    pub entries: Vec<EntryIndex>,
    /// Entries that fail are created after the others of their phase, in the archive's order: an old archive
    /// does not list everything that an entry depends on.
    pub may_fail: bool,
}

/// Which batches are done, and which remain.
#[derive(Debug, Clone, Default)]
pub(crate) struct PreDataPlan {
    batches: Vec<PreDataBatch>,
    /// Batches that have not been started, by phase; finished phases are removed.
    phases: VecDeque<VecDeque<BatchId>>,
    running: usize,
    /// Batches of this phase that failed in part, and the entries they left.
    failed: Vec<BatchId>,
    left: Vec<EntryIndex>,
}

impl PreDataPlan {
    pub(crate) fn new(phases: &[PreDataPhase]) -> Self {
        let mut pre_data = PreDataPlan::default();
        for phase in phases {
            let from = pre_data.batches.len();
            for group in phase {
                let most = if pre_data.batches.len() == from + 1 {
                    FIRST_BATCH
                } else {
                    BATCH
                };
                match pre_data.batches[from..].last_mut() {
                    Some(batch) if batch.entries.len() + group.len() <= most => {
                        batch.entries.extend(group)
                    }
                    _ => {
                        let batch = PreDataBatch {
                            entries: group.clone(),
                            may_fail: phase.len() > 1,
                        };
                        pre_data.batches.push(batch);
                    }
                }
            }
            pre_data
                .phases
                .push_back((from..pre_data.batches.len()).map(BatchId).collect());
        }
        pre_data
    }

    pub(crate) fn batch(&self, batch: BatchId) -> &PreDataBatch {
        &self.batches[batch.0]
    }

    /// Whether all pre-data exists.
    pub(crate) fn is_done(&self) -> bool {
        self.phases.is_empty()
    }

    /// Whether a batch can be started now.
    pub(crate) fn has_next(&self) -> bool {
        self.running < MAX_SESSIONS && self.phases.front().is_some_and(|phase| !phase.is_empty())
    }

    /// The next batch for a session; report it with [`PreDataPlan::batch_done`].
    pub(crate) fn next(&mut self) -> Option<BatchId> {
        let next = self
            .has_next()
            .then(|| self.phases.front_mut()?.pop_front())
            .flatten()?;
        self.running += 1;
        Some(next)
    }

    /// A session has finished a batch except for the entries `left`. Returns the batches that are now complete.
    pub(crate) fn batch_done(&mut self, batch: BatchId, left: Vec<EntryIndex>) -> Vec<BatchId> {
        self.running -= 1;
        let mut complete = vec![];
        if left.is_empty() {
            complete.push(batch)
        } else {
            self.failed.push(batch)
        }
        self.left.extend(left);
        if self.running == 0 && self.phases.front().is_some_and(VecDeque::is_empty) {
            complete.append(&mut self.end_phase());
        }
        complete
    }

    /// Every batch of the phase has run. Returns those that failed and are now complete; if entries are left, they
    /// become another batch of the phase instead.
    fn end_phase(&mut self) -> Vec<BatchId> {
        if self.left.is_empty() {
            self.phases.pop_front();
            return std::mem::take(&mut self.failed);
        }
        let mut entries = std::mem::take(&mut self.left);
        entries.sort_unstable();
        let batch = BatchId(self.batches.len());
        self.phases[0].push_back(batch);
        self.batches.push(PreDataBatch {
            entries,
            may_fail: false,
        });
        vec![]
    }

    /// For each entry with data, the batches that must be complete before it is loaded; entries that are not in the
    /// map wait for all of them.
    pub(crate) fn needs(&self, entries: &[TocEntry]) -> HashMap<EntryIndex, Vec<BatchId>> {
        let needs = BatchPrerequisites::new(self, entries);
        let of = entries.iter().enumerate().filter(|(_, e)| e.has_data);
        let mut tables = HashSet::new();
        of.filter_map(|(i, e)| {
            let [table] = e.dependencies.as_slice() else {
                return None;
            };
            // `pg_dump` writes the rows of a table once.
            if !tables.insert(*table) {
                return None;
            }
            Some((EntryIndex(i), needs.of(e, *table)?))
        })
        .collect()
    }
}

/// What rows wait for. A table's checks, generated columns and types may call functions of the dump, which
/// may read any other table, so such rows wait for everything.
struct BatchPrerequisites<'a> {
    by_id: HashMap<DumpId, &'a TocEntry>,
    batch_of: HashMap<DumpId, BatchId>,
    /// Pre-data that depends on an entry.
    dependents: HashMap<DumpId, Vec<&'a TocEntry>>,
    /// Entries that run a function, or depend on one or on something unknown.
    running: HashSet<DumpId>,
}

impl<'a> BatchPrerequisites<'a> {
    fn new(pre_data: &PreDataPlan, entries: &'a [TocEntry]) -> Self {
        let mut needs = BatchPrerequisites {
            by_id: entries.iter().map(|e| (e.dump_id, e)).collect(),
            batch_of: HashMap::new(),
            dependents: HashMap::new(),
            running: HashSet::new(),
        };
        needs.running = needs.running();
        for (at, batch) in pre_data.batches.iter().enumerate() {
            for e in batch.entries.iter().map(|i| &entries[i.0]) {
                needs.batch_of.insert(e.dump_id, BatchId(at));
                e.dependencies
                    .iter()
                    .for_each(|id| needs.dependents.entry(*id).or_default().push(e));
            }
        }
        needs
    }

    fn of(&self, data: &TocEntry, table: DumpId) -> Option<Vec<BatchId>> {
        let is_table = self.by_id.get(&table)?.kind == EntryKind::Table;
        let alterations = self.alterations(table).into_iter();
        let alters_rows = alterations.clone().filter(|e| !is_relation(e));
        let mut reached = alters_rows.map(|e| e.dump_id).chain([table]);
        if !is_table
            || !ddl::copies_into_own_table(data)
            || !reached.all(|id| self.runs_no_function(id))
        {
            return None;
        }
        let needed = alterations.map(|e| e.dump_id).chain([table]);
        let batches = needed.filter_map(|id| self.batch_of.get(&id).copied());
        Some(sorted(batches))
    }

    /// Pre-data that depends on a table, except functions.
    fn alterations(&self, table: DumpId) -> Vec<&'a TocEntry> {
        let dependents = self.dependents.get(&table).into_iter().flatten().copied();
        let is_function = |e: &&TocEntry| e.kind == EntryKind::Function;
        dependents.filter(|e| !is_function(e)).collect()
    }

    /// Whether everything that an entry depends on is known and nothing of it is a function.
    fn runs_no_function(&self, id: DumpId) -> bool {
        self.by_id.contains_key(&id) && !self.running.contains(&id)
    }

    fn running(&self) -> HashSet<DumpId> {
        let runs = |e: &TocEntry| {
            let is_known = |id: &DumpId| self.by_id.contains_key(id);
            matches!(
                e.kind,
                EntryKind::Function | EntryKind::Procedure | EntryKind::Aggregate
            ) || e.has_data
                || !e.dependencies.iter().all(is_known)
        };
        let entries = || self.by_id.values().copied();
        let mut running = entries().filter(|e| runs(e)).map(|e| e.dump_id).collect();
        Dependents::of(entries()).add_to(&mut running);
        running
    }
}

fn is_relation(e: &TocEntry) -> bool {
    matches!(
        e.kind,
        EntryKind::Table | EntryKind::View | EntryKind::MaterializedView
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(entries: impl IntoIterator<Item = usize>) -> Vec<EntryIndex> {
        entries.into_iter().map(EntryIndex).collect()
    }

    fn batches<const N: usize>(numbers: [usize; N]) -> Vec<BatchId> {
        numbers.map(BatchId).to_vec()
    }

    #[test]
    fn batches_of_a_phase_run_concurrently() {
        let phases = [
            vec![group(0..300)],
            (300..380).map(|i| group([i])).collect(),
            vec![group([380])],
        ];
        let mut m = PreDataPlan::new(&phases);
        let sizes: Vec<usize> = m.batches.iter().map(|b| b.entries.len()).collect();
        assert_eq!(sizes, [300, FIRST_BATCH, BATCH, 20, 1]);
        assert_eq!((m.next(), m.next()), (Some(BatchId(0)), None));
        assert_eq!(m.batch_done(BatchId(0), vec![]), batches([0]));
        assert_eq!(
            (m.next(), m.next(), m.next(), m.next()),
            (Some(BatchId(1)), Some(BatchId(2)), Some(BatchId(3)), None)
        );
        assert_eq!(
            (
                m.batch_done(BatchId(2), vec![]),
                m.batch_done(BatchId(3), vec![]),
                m.has_next()
            ),
            (batches([2]), batches([3]), false)
        );
        assert_eq!(m.batch_done(BatchId(1), vec![]), batches([1]));
        assert_eq!((m.next(), m.is_done()), (Some(BatchId(4)), false));
        assert_eq!(
            (m.batch_done(BatchId(4), vec![]), m.is_done()),
            (batches([4]), true)
        );
    }

    #[test]
    fn remaining_entries_run_in_order_before_the_next_phase() {
        let phases = [
            (0..FIRST_BATCH + 2 * BATCH)
                .rev()
                .map(|i| group([i]))
                .collect(),
            vec![group([500])],
        ];
        let mut m = PreDataPlan::new(&phases);
        assert_eq!(
            (m.next(), m.next(), m.next()),
            (Some(BatchId(0)), Some(BatchId(1)), Some(BatchId(2)))
        );
        assert_eq!(m.batch_done(BatchId(0), group([101, 100])), batches([]));
        assert_eq!(
            (m.batch_done(BatchId(1), vec![]), m.next()),
            (batches([1]), None)
        );
        assert_eq!(
            (m.batch_done(BatchId(2), group([3])), m.next(), m.next()),
            (batches([]), Some(BatchId(4)), None)
        );
        assert_eq!(
            *m.batch(BatchId(4)),
            PreDataBatch {
                entries: group([3, 100, 101]),
                may_fail: false
            }
        );
        assert_eq!(
            (m.batch_done(BatchId(4), vec![]), m.next()),
            (batches([4, 0, 2]), Some(BatchId(3)))
        );
    }

    fn entry(id: i32, desc: &str, dependencies: &[i32]) -> TocEntry {
        TocEntry {
            dependencies: dependencies.iter().copied().map(DumpId).collect(),
            ..TocEntry::bare(id, desc, "x")
        }
    }

    fn rows(id: i32, dependencies: &[i32]) -> TocEntry {
        let copy_stmt = "COPY s.x (a) FROM stdin;".to_owned();
        let namespace = Some("s".to_owned());
        TocEntry {
            has_data: true,
            copy_stmt,
            namespace,
            ..entry(id, "TABLE DATA", dependencies)
        }
    }

    /// Creates each entry in a batch of its own, then the rows; for each of these, what they wait for.
    fn needs(made: &[TocEntry], rows: &[TocEntry]) -> Vec<Option<Vec<BatchId>>> {
        let phases: Vec<PreDataPhase> = (0..made.len()).map(|i| vec![group([i])]).collect();
        let mut needs = PreDataPlan::new(&phases).needs(&[made, rows].concat());
        (0..rows.len())
            .map(|i| needs.remove(&EntryIndex(made.len() + i)))
            .collect()
    }

    #[test]
    fn rows_wait_for_their_table_and_its_alterations() {
        let made = [
            entry(1, "TYPE", &[]),
            entry(2, "TABLE", &[1]),
            entry(3, "TABLE", &[]),
            entry(4, "VIEW", &[2, 3]),
            entry(5, "DEFAULT", &[3]),
            entry(6, "FUNCTION", &[3]),
        ];
        assert_eq!(
            needs(&made, &[rows(12, &[2]), rows(13, &[3])]),
            [Some(batches([1, 3])), Some(batches([2, 3, 4]))]
        );
    }

    /// A function may read any table by its name.
    #[test]
    fn rows_wait_for_everything_if_a_function_may_read_them() {
        let made = [
            entry(1, "FUNCTION", &[]),
            entry(2, "DOMAIN", &[1]),
            entry(3, "TABLE", &[2]),
            entry(4, "TABLE", &[]),
            entry(5, "TABLE", &[1]),
            entry(6, "TABLE ATTACH", &[4, 5]),
            entry(7, "TABLE", &[99]),
            entry(8, "TABLE", &[]),
            entry(9, "VIEW", &[8, 1]),
        ];
        let of = [
            rows(13, &[3]),
            rows(14, &[4]),
            rows(15, &[5]),
            rows(17, &[7]),
            rows(18, &[8]),
        ];
        assert_eq!(
            needs(&made, &of),
            [None, None, None, None, Some(batches([7, 8]))]
        );
    }

    #[test]
    fn other_data_waits_for_everything() {
        let made = [entry(1, "TABLE", &[]), entry(2, "BLOB METADATA", &[])];
        let elsewhere = TocEntry {
            copy_stmt: "COPY s.root (a) FROM stdin;".into(),
            ..rows(11, &[1])
        };
        let objects = TocEntry {
            has_data: true,
            ..entry(12, "BLOBS", &[2])
        };
        assert_eq!(
            needs(&made, &[elsewhere, objects, rows(13, &[])]),
            [None, None, None]
        );
    }
}

//! Pre-data as sessions create it: stage by stage, the batches of a stage concurrently; and which tables
//! can be loaded while others do not exist yet.

use std::collections::{HashMap, HashSet, VecDeque};

use super::ddl;
use super::dependency_groups::PreDataStage;
use pgdump_archive::TocEntry;

/// Most entries in one transaction, because several sessions hold their locks.
const BATCH: usize = 50;
/// The same for a stage's first batch, so that rows can be loaded early.
const FIRST_BATCH: usize = 10;
/// Most sessions that create pre-data concurrently.
const MAX_SESSIONS: usize = 8;

/// Entries that one session creates, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PreDataBatch {
    pub entries: Vec<usize>,
    /// Entries that fail are created after the others of their stage, in the archive's order: an old archive
    /// does not list everything that an entry depends on.
    pub may_fail: bool,
}

/// Which batches are done, and which remain.
#[derive(Debug, Clone, Default)]
pub(crate) struct PreDataPlan {
    batches: Vec<PreDataBatch>,
    /// Batches that have not been started, by stage; finished stages are removed.
    stages: VecDeque<VecDeque<usize>>,
    running: usize,
    /// Batches of this stage that failed in part, and the entries they left.
    failed: Vec<usize>,
    left: Vec<usize>,
}

impl PreDataPlan {
    pub(crate) fn new(stages: &[PreDataStage]) -> Self {
        let mut pre_data = PreDataPlan::default();
        for stage in stages {
            let from = pre_data.batches.len();
            for group in stage {
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
                            may_fail: stage.len() > 1,
                        };
                        pre_data.batches.push(batch);
                    }
                }
            }
            pre_data
                .stages
                .push_back((from..pre_data.batches.len()).collect());
        }
        pre_data
    }

    pub(crate) fn batch(&self, batch: usize) -> &PreDataBatch {
        &self.batches[batch]
    }

    /// Whether all pre-data exists.
    pub(crate) fn is_done(&self) -> bool {
        self.stages.is_empty()
    }

    /// Whether a batch can be started now.
    pub(crate) fn has_next(&self) -> bool {
        self.running < MAX_SESSIONS && self.stages.front().is_some_and(|stage| !stage.is_empty())
    }

    /// The next batch for a session; report it with [`PreDataPlan::batch_done`].
    pub(crate) fn next(&mut self) -> Option<usize> {
        let next = self
            .has_next()
            .then(|| self.stages.front_mut()?.pop_front())
            .flatten()?;
        self.running += 1;
        Some(next)
    }

    /// A session has finished a batch except for the entries `left`. Returns the batches that are now complete.
    pub(crate) fn batch_done(&mut self, batch: usize, left: Vec<usize>) -> Vec<usize> {
        self.running -= 1;
        let mut complete = vec![];
        if left.is_empty() {
            complete.push(batch)
        } else {
            self.failed.push(batch)
        }
        self.left.extend(left);
        let Some(stage) = self
            .stages
            .front_mut()
            .filter(|stage| self.running == 0 && stage.is_empty())
        else {
            return complete;
        };
        if self.left.is_empty() {
            complete.append(&mut self.failed);
            self.stages.pop_front();
        } else {
            let mut entries = std::mem::take(&mut self.left);
            entries.sort_unstable();
            stage.push_back(self.batches.len());
            self.batches.push(PreDataBatch {
                entries,
                may_fail: false,
            });
        }
        complete
    }

    /// For each entry with data, the batches that must be complete before it is loaded; entries that are not in the
    /// map wait for all of them.
    pub(crate) fn needs(&self, entries: &[TocEntry]) -> HashMap<usize, Vec<usize>> {
        let needs = BatchPrerequisites::new(self, entries);
        let of = entries.iter().enumerate().filter(|(_, e)| e.has_data);
        of.filter_map(|(i, e)| Some((i, needs.of(e)?))).collect()
    }
}

/// What rows wait for. A table's checks, generated columns and types may call functions of the dump, which
/// may read any other table, so such rows wait for everything.
struct BatchPrerequisites<'a> {
    by_id: HashMap<i32, &'a TocEntry>,
    batch_of: HashMap<i32, usize>,
    /// Pre-data that depends on an entry.
    dependents: HashMap<i32, Vec<&'a TocEntry>>,
}

impl<'a> BatchPrerequisites<'a> {
    fn new(pre_data: &PreDataPlan, entries: &'a [TocEntry]) -> Self {
        let mut needs = BatchPrerequisites {
            by_id: entries.iter().map(|e| (e.dump_id, e)).collect(),
            batch_of: HashMap::new(),
            dependents: HashMap::new(),
        };
        for (at, batch) in pre_data.batches.iter().enumerate() {
            for e in batch.entries.iter().map(|i| &entries[*i]) {
                needs.batch_of.insert(e.dump_id, at);
                e.dependencies
                    .iter()
                    .for_each(|id| needs.dependents.entry(*id).or_default().push(e));
            }
        }
        needs
    }

    fn of(&self, data: &TocEntry) -> Option<Vec<usize>> {
        let [table] = data.dependencies.as_slice() else {
            return None;
        };
        let is_its = self.by_id.get(table)?.desc == "TABLE" && ddl::copies_into_own_table(data);
        let dependents = self.dependents.get(table).into_iter().flatten();
        let of_it: Vec<&TocEntry> = dependents
            .copied()
            .filter(|e| e.desc != "FUNCTION")
            .collect();
        let alters = of_it
            .iter()
            .filter(|e| !matches!(e.desc.as_str(), "TABLE" | "VIEW" | "MATERIALIZED VIEW"));
        let is_known =
            is_its && self.runs_no_function([*table].into_iter().chain(alters.map(|e| e.dump_id)));
        is_known.then(|| {
            let all = std::iter::once(*table).chain(of_it.iter().map(|e| e.dump_id));
            let mut batches: Vec<usize> = all
                .filter_map(|id| self.batch_of.get(&id).copied())
                .collect();
            batches.sort_unstable();
            batches.dedup();
            batches
        })
    }

    /// Whether all of these dependencies are known and none is a function.
    fn runs_no_function(&self, ids: impl Iterator<Item = i32>) -> bool {
        let mut next: Vec<i32> = ids.collect();
        let mut seen: HashSet<i32> = next.iter().copied().collect();
        while let Some(id) = next.pop() {
            match self.by_id.get(&id) {
                Some(e)
                    if !matches!(e.desc.as_str(), "FUNCTION" | "PROCEDURE" | "AGGREGATE")
                        && !e.has_data =>
                {
                    next.extend(e.dependencies.iter().filter(|id| seen.insert(**id)));
                }
                _ => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(entries: impl IntoIterator<Item = usize>) -> Vec<usize> {
        entries.into_iter().collect()
    }

    #[test]
    fn batches_of_a_stage_run_concurrently() {
        let stages = [
            vec![group(0..300)],
            (300..380).map(|i| group([i])).collect(),
            vec![group([380])],
        ];
        let mut m = PreDataPlan::new(&stages);
        let sizes: Vec<usize> = m.batches.iter().map(|b| b.entries.len()).collect();
        assert_eq!(sizes, [300, FIRST_BATCH, BATCH, 20, 1]);
        assert_eq!((m.next(), m.next()), (Some(0), None));
        assert_eq!(m.batch_done(0, vec![]), [0]);
        assert_eq!(
            (m.next(), m.next(), m.next(), m.next()),
            (Some(1), Some(2), Some(3), None)
        );
        assert_eq!(
            (
                m.batch_done(2, vec![]),
                m.batch_done(3, vec![]),
                m.has_next()
            ),
            (vec![2], vec![3], false)
        );
        assert_eq!(m.batch_done(1, vec![]), [1]);
        assert_eq!((m.next(), m.is_done()), (Some(4), false));
        assert_eq!((m.batch_done(4, vec![]), m.is_done()), (vec![4], true));
    }

    #[test]
    fn remaining_entries_run_in_order_before_the_next_stage() {
        let stages = [
            (0..FIRST_BATCH + 2 * BATCH)
                .rev()
                .map(|i| group([i]))
                .collect(),
            vec![group([500])],
        ];
        let mut m = PreDataPlan::new(&stages);
        assert_eq!((m.next(), m.next(), m.next()), (Some(0), Some(1), Some(2)));
        assert_eq!(m.batch_done(0, vec![101, 100]), [0; 0]);
        assert_eq!((m.batch_done(1, vec![]), m.next()), (vec![1], None));
        assert_eq!(
            (m.batch_done(2, vec![3]), m.next(), m.next()),
            (vec![], Some(4), None)
        );
        assert_eq!(
            *m.batch(4),
            PreDataBatch {
                entries: vec![3, 100, 101],
                may_fail: false
            }
        );
        assert_eq!(
            (m.batch_done(4, vec![]), m.next()),
            (vec![4, 0, 2], Some(3))
        );
    }

    fn entry(id: i32, desc: &str, dependencies: &[i32]) -> TocEntry {
        TocEntry {
            dependencies: dependencies.to_vec(),
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
    fn needs(made: &[TocEntry], rows: &[TocEntry]) -> Vec<Option<Vec<usize>>> {
        let stages: Vec<PreDataStage> = (0..made.len()).map(|i| vec![vec![i]]).collect();
        let mut needs = PreDataPlan::new(&stages).needs(&[made, rows].concat());
        (0..rows.len())
            .map(|i| needs.remove(&(made.len() + i)))
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
            [Some(vec![1, 3]), Some(vec![2, 3, 4])]
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
            [None, None, None, None, Some(vec![7, 8])]
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

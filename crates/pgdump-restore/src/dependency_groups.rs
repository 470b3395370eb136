//! Pre-data in phases: entries that create tables, sequences and views are grouped by what they depend on, and
//! the dependency groups of one phase are created concurrently. Everything else keeps the archive's order, in
//! phases of its own.

use std::collections::HashMap;

use super::ids::EntryIndex;
use pgdump_archive::{DumpId, EntryKind, TocEntry};

/// Consecutive entries.
pub(crate) type DependencyGroup = Vec<EntryIndex>;
/// Independent dependency groups, in the order of their first entries.
pub(crate) type PreDataPhase = Vec<DependencyGroup>;

/// Fewer entries do not justify more than one session.
const MIN_PARALLEL_ENTRIES: usize = 50;

/// The phases of `pre_data`, which is in the archive's order.
pub(crate) fn phases(entries: &[TocEntry], pre_data: &[EntryIndex]) -> Vec<PreDataPhase> {
    let mut phases: Vec<PreDataPhase> = vec![];
    let mut in_order: DependencyGroup = vec![];
    for run in pre_data.chunk_by(|a, b| {
        lists_all_dependencies(&entries[a.0]) && lists_all_dependencies(&entries[b.0])
    }) {
        if run.len() < MIN_PARALLEL_ENTRIES {
            in_order.extend(run);
            continue;
        }
        phases.extend((!in_order.is_empty()).then(|| vec![std::mem::take(&mut in_order)]));
        phases.push(independent_groups(entries, run));
    }
    phases.extend((!in_order.is_empty()).then_some(vec![in_order]));
    phases
}

/// Kinds whose entries list everything that they depend on.
fn lists_all_dependencies(e: &TocEntry) -> bool {
    matches!(
        e.kind,
        EntryKind::Table
            | EntryKind::Sequence
            | EntryKind::SequenceOwnedBy
            | EntryKind::Default
            | EntryKind::View
            | EntryKind::TableAttach
            | EntryKind::Comment
            | EntryKind::SecurityLabel
            | EntryKind::Blob
            | EntryKind::BlobMetadata
    )
}

fn independent_groups(entries: &[TocEntry], run: &[EntryIndex]) -> PreDataPhase {
    let mut leaders = leaders(entries, run);
    let mut phase: Vec<DependencyGroup> = vec![];
    let mut group_of: HashMap<usize, usize> = HashMap::new();
    for (at, entry) in run.iter().enumerate() {
        let leader = leaders.find(at);
        let group = *group_of.entry(leader).or_insert(phase.len());
        if group == phase.len() {
            phase.push(vec![]);
        }
        phase[group].push(*entry);
    }
    phase
}

/// Unites the entries of `run` that depend on each other.
fn leaders(entries: &[TocEntry], run: &[EntryIndex]) -> Leaders {
    let ids = run.iter().map(|entry| entries[entry.0].dump_id);
    let place: HashMap<DumpId, usize> = ids.enumerate().map(|(at, id)| (id, at)).collect();
    let mut leaders = Leaders((0..run.len()).collect());
    for (at, entry) in run.iter().enumerate() {
        let needed = entries[entry.0].dependencies.iter();
        for other in needed.filter_map(|id| place.get(id)) {
            leaders.unite(at, *other);
        }
    }
    leaders
}

/// Sets of positions (union-find): each points to an earlier one of its set; the first points to itself.
struct Leaders(Vec<usize>);

impl Leaders {
    fn find(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i32, desc: &str, dependencies: &[i32]) -> TocEntry {
        TocEntry {
            dependencies: dependencies.iter().copied().map(DumpId).collect(),
            ..TocEntry::bare(id, desc, "x")
        }
    }

    #[test]
    fn tables_are_independent_and_grouped_with_their_dependents() {
        let n = i32::try_from(MIN_PARALLEL_ENTRIES).unwrap();
        let mut entries = vec![entry(1, "SCHEMA", &[]), entry(2, "TYPE", &[1])];
        entries.extend((0..n).map(|i| entry(100 + i, "TABLE", &[1, 2])));
        entries.push(entry(200, "VIEW", &[100, 102]));
        entries.push(entry(201, "DEFAULT", &[101]));
        entries.push(entry(202, "COMMENT", &[200]));
        entries.push(entry(203, "FUNCTION", &[101]));
        entries.push(entry(204, "TABLE", &[203]));
        let all: Vec<EntryIndex> = (0..entries.len()).map(EntryIndex).collect();
        let phases = phases(&entries, &all);
        let last = entries.len();
        assert_eq!(phases.len(), 3);
        assert_eq!(phases[0], [[0, 1].map(EntryIndex)]);
        assert_eq!(phases[1].len(), MIN_PARALLEL_ENTRIES - 1);
        assert_eq!(phases[1][0], [2, 4, last - 5, last - 3].map(EntryIndex));
        assert_eq!(phases[1][1], [3, last - 4].map(EntryIndex));
        assert_eq!(phases[2], [[last - 2, last - 1].map(EntryIndex)]);
    }

    #[test]
    fn few_entries_keep_the_archives_order() {
        let entries: Vec<TocEntry> = (0..9).map(|i| entry(i, "TABLE", &[])).collect();
        let all: Vec<EntryIndex> = (0..9).map(EntryIndex).collect();
        assert_eq!(phases(&entries, &all), [vec![all]]);
        assert_eq!(phases(&entries, &[]), Vec::<PreDataPhase>::new());
    }
}

//! Pre-data in phases: entries that create tables, sequences and views are grouped by what they depend on, and
//! the dependency groups of one phase are created concurrently. Everything else keeps the archive's order, in
//! phases of its own.

use std::collections::{HashMap, HashSet};

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
        phases.extend(in_waves(entries, independent_groups(entries, run)));
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
    by_leader(&mut leaders, run)
}

fn by_leader(leaders: &mut Leaders, run: &[EntryIndex]) -> PreDataPhase {
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

/// Most waves of a group; what depends on more follows in the archive's order.
const MAX_WAVES: usize = 4;

/// The same groups, but large ones with partitions in waves: first what depends on nothing, then what depends on that, …
/// Partitions depend on their table and so are one group, which one session would create while the others wait. Only versions
/// of `pg_dump` that list all dependencies attach partitions by entries of their own.
fn in_waves(entries: &[TocEntry], groups: PreDataPhase) -> Vec<PreDataPhase> {
    let attaches = |entry: &EntryIndex| entries[entry.0].kind == EntryKind::TableAttach;
    let is_split =
        |group: &DependencyGroup| group.len() > MIN_PARALLEL_ENTRIES && group.iter().any(attaches);
    let (split, mut first): (Vec<_>, PreDataPhase) = groups.into_iter().partition(is_split);
    let mut waves = vec![vec![]; MAX_WAVES];
    waves[0].append(&mut first);
    for group in split {
        for (wave, run) in waves_of(entries, &group).into_iter().enumerate() {
            let is_last = wave + 1 == MAX_WAVES;
            if is_last {
                // They may depend on each other in any way.
                waves[wave].extend((!run.is_empty()).then_some(run));
            } else {
                waves[wave].extend(concurrent_groups(entries, &group, &run));
            }
        }
    }
    waves.retain(|phase| !phase.is_empty());
    waves
}

/// The entries of a group by how many others of it precede them one after another.
fn waves_of(entries: &[TocEntry], group: &[EntryIndex]) -> Vec<DependencyGroup> {
    let mut wave_of: HashMap<DumpId, usize> = HashMap::new();
    let mut waves = vec![vec![]; MAX_WAVES];
    for entry in group {
        let e = &entries[entry.0];
        // The archive has them in an order in which they can be created.
        let before = e.dependencies.iter().filter_map(|id| wave_of.get(id));
        let wave = before
            .max()
            .map_or(0, |before| before + 1)
            .min(MAX_WAVES - 1);
        wave_of.insert(e.dump_id, wave);
        waves[wave].push(*entry);
    }
    waves
}

/// Entries of one wave of `group` that sessions may create concurrently. Those that change the same table would wait for each
/// other's locks.
fn concurrent_groups(
    entries: &[TocEntry],
    group: &[EntryIndex],
    wave: &[EntryIndex],
) -> PreDataPhase {
    let ids: HashSet<DumpId> = group.iter().map(|entry| entries[entry.0].dump_id).collect();
    let mut leaders = Leaders((0..wave.len()).collect());
    let mut first_of: HashMap<DumpId, usize> = HashMap::new();
    for (at, entry) in wave.iter().enumerate() {
        let e = &entries[entry.0];
        let needed = e.dependencies.iter().filter(|id| ids.contains(*id));
        for id in needed.filter(|_| !is_separate_table(e)) {
            let other = *first_of.entry(*id).or_insert(at);
            leaders.unite(at, other);
        }
    }
    by_leader(&mut leaders, wave)
}

/// Whether this creates a table without a lock on another one: also a partition that is attached later.
fn is_separate_table(e: &TocEntry) -> bool {
    let names_parent = e.defn.contains("INHERITS") || e.defn.contains("PARTITION OF");
    e.kind == EntryKind::Table && !names_parent
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

    /// The table, its partitions concurrently, then what attaches them, which waits for locks of the table.
    #[test]
    fn partitions_are_created_concurrently() {
        let n = i32::try_from(MIN_PARALLEL_ENTRIES).unwrap();
        let mut entries = vec![entry(1, "TABLE", &[])];
        entries.extend((0..n).map(|i| entry(100 + i, "TABLE", &[1])));
        entries.push(entry(2, "TABLE", &[]));
        entries.extend((0..n).map(|i| entry(200 + i, "TABLE ATTACH", &[1, 100 + i])));
        entries.push(entry(300, "DEFAULT", &[100]));
        entries.push(entry(301, "VIEW", &[1]));
        entries.push(entry(302, "VIEW", &[301]));
        entries.push(entry(303, "VIEW", &[302]));
        entries.push(entry(304, "VIEW", &[303]));
        let all: Vec<EntryIndex> = (0..entries.len()).map(EntryIndex).collect();
        let phases = phases(&entries, &all);
        let ids = |phase: &PreDataPhase| -> Vec<Vec<i32>> {
            let of =
                |group: &DependencyGroup| group.iter().map(|e| entries[e.0].dump_id.0).collect();
            phase.iter().map(of).collect()
        };
        assert_eq!(phases.len(), MAX_WAVES);
        assert_eq!(ids(&phases[0]), [[2], [1]]);
        let mut second: Vec<Vec<i32>> = (0..n).map(|i| vec![100 + i]).collect();
        second.push(vec![301]);
        assert_eq!(ids(&phases[1]), second);
        let mut attachments: Vec<i32> = (0..n).map(|i| 200 + i).collect();
        attachments.push(300);
        assert_eq!(ids(&phases[2]), [attachments, vec![302]]);
        assert_eq!(ids(&phases[3]), [[303, 304]]);
    }

    /// They lock their parent, and each other.
    #[test]
    fn inheriting_tables_are_created_by_one_session() {
        let n = i32::try_from(MIN_PARALLEL_ENTRIES).unwrap();
        let mut entries = vec![entry(1, "TABLE", &[])];
        entries.extend((0..n).map(|i| TocEntry {
            defn: "CREATE TABLE x () INHERITS (y);".into(),
            ..entry(100 + i, "TABLE", &[1])
        }));
        entries.push(entry(200, "TABLE ATTACH", &[1, 100]));
        let all: Vec<EntryIndex> = (0..entries.len()).map(EntryIndex).collect();
        let sizes = |phase: &PreDataPhase| phase.iter().map(Vec::len).collect::<Vec<_>>();
        let sizes: Vec<Vec<usize>> = phases(&entries, &all).iter().map(sizes).collect();
        assert_eq!(sizes, [[1], [MIN_PARALLEL_ENTRIES], [1]]);
    }

    #[test]
    fn few_entries_keep_the_archives_order() {
        let entries: Vec<TocEntry> = (0..9).map(|i| entry(i, "TABLE", &[])).collect();
        let all: Vec<EntryIndex> = (0..9).map(EntryIndex).collect();
        assert_eq!(phases(&entries, &all), [vec![all]]);
        assert_eq!(phases(&entries, &[]), Vec::<PreDataPhase>::new());
    }
}

//! Pre-data in stages: entries that create tables, sequences and views are grouped by what they depend on, and
//! the dependency groups of one stage are created concurrently. Everything else keeps the archive's order, in
//! stages of its own.

use std::collections::HashMap;

use pgdump_archive::TocEntry;

/// Consecutive entries (indices in the table of contents).
pub(crate) type DependencyGroup = Vec<usize>;
/// Independent dependency groups, in the order of their first entries.
pub(crate) type PreDataStage = Vec<DependencyGroup>;

/// Fewer entries do not justify more than one session.
const MIN_PARALLEL_ENTRIES: usize = 50;

/// The stages of `pre_data`, which is in the archive's order.
pub(crate) fn stages(entries: &[TocEntry], pre_data: &[usize]) -> Vec<PreDataStage> {
    let mut stages: Vec<PreDataStage> = vec![];
    let mut in_order: DependencyGroup = vec![];
    for run in pre_data.chunk_by(|a, b| {
        lists_all_dependencies(&entries[*a]) && lists_all_dependencies(&entries[*b])
    }) {
        if run.len() < MIN_PARALLEL_ENTRIES {
            in_order.extend(run);
            continue;
        }
        stages.extend((!in_order.is_empty()).then(|| vec![std::mem::take(&mut in_order)]));
        stages.push(independent_groups(entries, run));
    }
    stages.extend((!in_order.is_empty()).then_some(vec![in_order]));
    stages
}

/// Kinds whose entries list everything that they depend on.
fn lists_all_dependencies(e: &TocEntry) -> bool {
    matches!(
        e.desc.as_str(),
        "TABLE"
            | "SEQUENCE"
            | "SEQUENCE OWNED BY"
            | "DEFAULT"
            | "VIEW"
            | "TABLE ATTACH"
            | "COMMENT"
            | "SECURITY LABEL"
            | "BLOB"
            | "BLOB METADATA"
    )
}

fn independent_groups(entries: &[TocEntry], run: &[usize]) -> PreDataStage {
    let place: HashMap<i32, usize> = run
        .iter()
        .enumerate()
        .map(|(at, i)| (entries[*i].dump_id, at))
        .collect();
    // Each entry points to an earlier one of its group; the first points to itself.
    let mut leads_to: Vec<usize> = (0..run.len()).collect();
    for (at, i) in run.iter().enumerate() {
        for other in entries[*i]
            .dependencies
            .iter()
            .filter_map(|id| place.get(id))
        {
            let (a, b) = (first_of(&mut leads_to, at), first_of(&mut leads_to, *other));
            leads_to[a.max(b)] = a.min(b);
        }
    }
    let mut stage: Vec<DependencyGroup> = vec![];
    let mut family_of: HashMap<usize, usize> = HashMap::new();
    for (at, i) in run.iter().enumerate() {
        let family = *family_of
            .entry(first_of(&mut leads_to, at))
            .or_insert_with(|| {
                stage.push(vec![]);
                stage.len() - 1
            });
        stage[family].push(*i);
    }
    stage
}

fn first_of(leads_to: &mut [usize], mut at: usize) -> usize {
    while leads_to[at] != at {
        leads_to[at] = leads_to[leads_to[at]];
        at = leads_to[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i32, desc: &str, dependencies: &[i32]) -> TocEntry {
        TocEntry {
            dependencies: dependencies.to_vec(),
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
        let all: Vec<usize> = (0..entries.len()).collect();
        let stages = stages(&entries, &all);
        let last = entries.len();
        assert_eq!(stages.len(), 3);
        assert_eq!(stages[0], [vec![0, 1]]);
        assert_eq!(stages[1].len(), MIN_PARALLEL_ENTRIES - 1);
        assert_eq!(stages[1][0], [2, 4, last - 5, last - 3]);
        assert_eq!(stages[1][1], [3, last - 4]);
        assert_eq!(stages[2], [vec![last - 2, last - 1]]);
    }

    #[test]
    fn few_entries_keep_the_archives_order() {
        let entries: Vec<TocEntry> = (0..9).map(|i| entry(i, "TABLE", &[])).collect();
        let all: Vec<usize> = (0..9).collect();
        assert_eq!(stages(&entries, &all), [vec![all]]);
        assert_eq!(stages(&entries, &[]), Vec::<PreDataStage>::new());
    }
}

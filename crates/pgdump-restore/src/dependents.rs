//! Which entries depend on others, directly or through entries between them. Everything is visited once, whatever the
//! table of contents lists: it may be made to be slow.

use std::collections::{HashMap, HashSet};

use pgdump_archive::{DumpId, TocEntry};

/// The entries that depend on each entry.
#[derive(Debug, Default)]
pub(crate) struct Dependents(HashMap<DumpId, Vec<DumpId>>);

impl Dependents {
    /// By the dependencies of these entries.
    pub(crate) fn of<'a>(entries: impl IntoIterator<Item = &'a TocEntry>) -> Self {
        let mut dependents = Dependents::default();
        for e in entries {
            dependents.add(e.dump_id, &e.dependencies);
        }
        dependents
    }

    /// `entry` depends on these.
    pub(crate) fn add(&mut self, entry: DumpId, needed: &[DumpId]) {
        for id in needed {
            let of_it = self.0.entry(*id).or_default();
            // A dependency may be listed again.
            if of_it.last() != Some(&entry) {
                of_it.push(entry);
            }
        }
    }

    /// Everything that depends on an entry and is new, each once. What is not new is not followed.
    pub(crate) fn of_entry(
        &self,
        entry: DumpId,
        mut is_new: impl FnMut(DumpId) -> bool,
    ) -> Vec<DumpId> {
        let (mut all, mut next) = (vec![], vec![entry]);
        while let Some(id) = next.pop() {
            for dependent in self.0.get(&id).into_iter().flatten().copied() {
                if is_new(dependent) {
                    all.push(dependent);
                    next.push(dependent);
                }
            }
        }
        all
    }

    /// Adds everything that depends on `found`; returns the number of steps.
    pub(crate) fn add_to(&self, found: &mut HashSet<DumpId>) -> usize {
        let mut next: Vec<DumpId> = found.iter().copied().collect();
        let mut steps = 0;
        while let Some(id) = next.pop() {
            let of_it = self.0.get(&id).into_iter().flatten().copied();
            for dependent in of_it {
                steps += 1;
                if found.insert(dependent) {
                    next.push(dependent);
                }
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i32, dependencies: impl IntoIterator<Item = i32>) -> TocEntry {
        TocEntry {
            dependencies: dependencies.into_iter().map(DumpId).collect(),
            ..TocEntry::bare(id, "TABLE", "t")
        }
    }

    #[test]
    fn everything_that_depends_on_an_entry_is_found_in_steps_that_grow_with_the_entries_only() {
        for n in [10, 100, 1000, 10_000] {
            // The worst order for a search that goes through the entries again and again; a circle; repetitions.
            let chain = (1..n).map(|i| entry(i, [i + 1, i + 1, (i + 2) % n]));
            let entries: Vec<TocEntry> = chain.chain([entry(n, []), entry(n + 1, [])]).collect();
            let mut found = HashSet::from([DumpId(n)]);
            let steps = Dependents::of(&entries).add_to(&mut found);
            assert_eq!(found.len(), n as usize);
            assert!(steps < 3 * n as usize, "{steps} steps for {n} entries");
        }
    }
}

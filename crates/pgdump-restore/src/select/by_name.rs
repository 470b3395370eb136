//! Selection by name: the entries that are named, what belongs to them and what they need.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::names::{FRAME, any, any_schema, is_expected, is_relation};
use crate::dependents::Dependents;
use crate::notes::listed;
use crate::policy::Selection;
use pgdump_archive::{DumpId, EntryKind, TocEntry};

/// The dump ids of the entries to keep.
pub(super) fn by_name(
    entries: &[TocEntry],
    selection: &Selection,
    notes: &mut Vec<String>,
) -> HashSet<DumpId> {
    let mut kept = Kept::named(entries, selection);
    if !selection.tables.is_empty() {
        while kept.add_dependents() {}
    }
    let needed = kept.add_requirements();
    let gone = kept.drop_unsatisfied();
    notes.extend(listed(
        "restored because something selected needs it",
        &needed,
    ));
    notes.extend(listed(
        "skipped because something it needs is not selected",
        &gone,
    ));
    kept.ids
}

struct Kept<'a> {
    entries: &'a [TocEntry],
    by_id: HashMap<DumpId, &'a TocEntry>,
    selection: &'a Selection,
    ids: HashSet<DumpId>,
}

impl<'a> Kept<'a> {
    /// The entries that the selection names.
    fn named(entries: &'a [TocEntry], selection: &'a Selection) -> Self {
        let named = |e: &&TocEntry| is_wanted(e, selection) && !is_excluded(e, selection);
        Kept {
            entries,
            by_id: entries.iter().map(|e| (e.dump_id, e)).collect(),
            selection,
            ids: entries.iter().filter(named).map(|e| e.dump_id).collect(),
        }
    }

    fn has(&self, id: &DumpId) -> bool {
        self.ids.contains(id)
    }

    fn needed_by(&self, e: &TocEntry) -> Vec<&'a TocEntry> {
        let ids = e.dependencies.iter();
        ids.filter_map(|id| self.by_id.get(id).copied()).collect()
    }

    /// Adds what belongs to kept tables: indexes, keys, rows, privileges, …; false if there was no more.
    fn add_dependents(&mut self) -> bool {
        let before = self.ids.len();
        for e in self.entries {
            if !self.has(&e.dump_id) && self.is_part_of_kept_table(e) {
                self.ids.insert(e.dump_id);
                if uses_sequence(e) {
                    let needed = self.needed_by(e).into_iter();
                    let sequences = needed.filter(|d| d.kind == EntryKind::Sequence);
                    self.ids.extend(sequences.map(|d| d.dump_id));
                }
            }
        }
        self.ids.len() > before
    }

    fn is_part_of_kept_table(&self, e: &TocEntry) -> bool {
        if !is_part_of_table(e) {
            return false;
        }
        let is_table = |id: &&DumpId| self.by_id.get(*id).is_some_and(|e| is_relation(e));
        let mut tables = e.dependencies.iter().filter(is_table).peekable();
        if tables.peek().is_none() {
            // An index or a key of such a table.
            return !e.dependencies.is_empty() && e.dependencies.iter().all(|id| self.has(id));
        }
        let may_need_others = e.kind == EntryKind::FkConstraint || uses_sequence(e);
        tables.clone().any(|id| self.has(id)) && (may_need_others || tables.all(|id| self.has(id)))
    }

    /// Adds the types, functions, schemas, extensions, … that kept entries need, but never another table. Returns
    /// the names of what may surprise.
    fn add_requirements(&mut self) -> Vec<String> {
        let mut todo: Vec<DumpId> = self.ids.iter().copied().collect();
        let mut added = BTreeSet::new();
        while let Some(id) = todo.pop() {
            let of_it = self.by_id.get(&id).map(|e| self.needed_by(e));
            for needed in of_it.into_iter().flatten() {
                if self.may_add(needed) && self.ids.insert(needed.dump_id) {
                    todo.push(needed.dump_id);
                    added.extend((!is_expected(needed)).then(|| needed.name()));
                }
            }
        }
        added.into_iter().collect()
    }

    fn may_add(&self, e: &TocEntry) -> bool {
        let is_table = is_relation(e) || e.has_data;
        !is_table && !is_excluded(e, self.selection)
    }

    /// Drops entries whose requirements were dropped, and then those that need them. Returns their names.
    fn drop_unsatisfied(&mut self) -> Vec<String> {
        let kept = || self.entries.iter().filter(|e| self.has(&e.dump_id));
        let lacking = kept().filter(|e| self.lacks_something(e));
        let mut gone = lacking.map(|e| e.dump_id).collect();
        Dependents::of(kept()).add_to(&mut gone);
        let dropped = kept().filter(|e| gone.contains(&e.dump_id));
        let names: BTreeSet<String> = dropped.map(TocEntry::name).collect();
        self.ids.retain(|id| !gone.contains(id));
        names.into_iter().collect()
    }

    fn lacks_something(&self, e: &TocEntry) -> bool {
        let is_missing = |id: &DumpId| self.by_id.contains_key(id) && !self.has(id);
        e.dependencies.iter().any(is_missing)
    }
}

fn is_excluded(e: &TocEntry, selection: &Selection) -> bool {
    let schema = match &e.kind {
        EntryKind::Schema => Some(e.tag.as_str()),
        _ => e.namespace.as_deref(),
    };
    schema.is_some_and(|schema| any_schema(&selection.exclude_schemas, schema))
        || (is_relation(e) && any(&selection.exclude_tables, e))
}

fn is_wanted(e: &TocEntry, selection: &Selection) -> bool {
    if FRAME.contains(&e.kind) {
        return true;
    }
    if !selection.tables.is_empty() {
        return is_relation(e) && any(&selection.tables, e);
    }
    match &e.namespace {
        _ if selection.schemas.is_empty() => true,
        Some(schema) => any_schema(&selection.schemas, schema),
        None => e.kind == EntryKind::Schema && any_schema(&selection.schemas, &e.tag),
    }
}

/// Whether an entry of this kind belongs to the table that it depends on.
fn is_part_of_table(e: &TocEntry) -> bool {
    matches!(
        e.kind,
        EntryKind::TableData
            | EntryKind::Index
            | EntryKind::Constraint
            | EntryKind::CheckConstraint
            | EntryKind::FkConstraint
            | EntryKind::Trigger
            | EntryKind::Rule
            | EntryKind::Policy
            | EntryKind::RowSecurity
            | EntryKind::Default
            | EntryKind::Comment
            | EntryKind::Acl
            | EntryKind::SequenceSet
            | EntryKind::SequenceOwnedBy
            | EntryKind::Statistics
            | EntryKind::StatisticsData
            | EntryKind::MaterializedViewData
            | EntryKind::SecurityLabel
            | EntryKind::IndexAttach
            | EntryKind::TableAttach
    )
}

/// Whether an entry depends on a table and a sequence.
fn uses_sequence(e: &TocEntry) -> bool {
    matches!(e.kind, EntryKind::Default | EntryKind::SequenceOwnedBy)
}

//! Which entries are relations, which have their data, and which are their partitions or inheriting tables.

use std::collections::{HashMap, HashSet};

use crate::ddl;
use crate::ids::{TableId, sorted};
use pgdump_archive::{DumpId, EntryKind, TocEntry};

#[derive(Default)]
pub(super) struct Tables<'a> {
    /// Of the server.
    version: u32,
    by_id: HashMap<DumpId, &'a TocEntry>,
    relations: HashSet<DumpId>,
    /// Materialized views and their data, which is loaded in a later pass.
    refreshed: HashSet<DumpId>,
    data_of: HashMap<DumpId, Vec<DumpId>>,
    children: HashMap<DumpId, Vec<DumpId>>,
    /// The same, the other way round.
    parents: HashMap<DumpId, Vec<DumpId>>,
    /// Rows of partitions are copied into the root.
    loads_through_roots: bool,
    /// Indexes that are attached to each other, by another index of their tree; its first one is not in the map.
    index_trees: HashMap<DumpId, DumpId>,
    /// The entries that attach others to an index.
    attached_to: HashMap<DumpId, Vec<DumpId>>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(entries: &'a [TocEntry], version: u32) -> Self {
        let mut tables = Tables {
            version,
            ..Tables::default()
        };
        entries.iter().for_each(|e| tables.learn_kind(e));
        entries.iter().for_each(|e| tables.learn_relations(e));
        let attachments = || entries.iter().filter(|e| e.kind == EntryKind::IndexAttach);
        attachments().for_each(|e| tables.learn_index_tree(e));
        tables.shorten_index_trees();
        attachments().for_each(|e| tables.learn_attached_index(e));
        tables
    }

    fn learn_kind(&mut self, e: &'a TocEntry) {
        use EntryKind::{ForeignTable, MaterializedView, MaterializedViewData, Table};
        self.by_id.insert(e.dump_id, e);
        if matches!(e.kind, Table | MaterializedView | ForeignTable) {
            self.relations.insert(e.dump_id);
        }
        if matches!(e.kind, MaterializedView | MaterializedViewData) {
            self.refreshed.insert(e.dump_id);
        }
    }

    fn learn_relations(&mut self, e: &TocEntry) {
        match &e.kind {
            EntryKind::TableData => {
                self.loads_through_roots |= !ddl::copies_into_own_table(e);
                for table in self.relations_of(e) {
                    self.data_of.entry(table).or_default().push(e.dump_id);
                }
            }
            EntryKind::Table => {
                for parent in self.relations_of(e) {
                    self.learn_child(e.dump_id, parent);
                }
            }
            EntryKind::TableAttach => self.learn_attachment(e),
            _ => {}
        }
    }

    /// A partition is attached after it was created: the entry depends on both tables and has the name of the
    /// partition.
    fn learn_attachment(&mut self, e: &TocEntry) {
        let tables = self.relations_of(e);
        let child = tables
            .iter()
            .copied()
            .find(|id| has_name_of(self.by_id[id], e));
        let Some(child) = child else { return };
        for parent in tables.into_iter().filter(|parent| *parent != child) {
            self.learn_child(child, parent);
        }
    }

    fn learn_child(&mut self, child: DumpId, parent: DumpId) {
        self.children.entry(parent).or_default().push(child);
        self.parents.entry(child).or_default().push(parent);
    }

    fn learn_index_tree(&mut self, e: &TocEntry) {
        let mut indexes = self.indexes_of(e).into_iter();
        let Some(first) = indexes.next() else { return };
        for other in indexes {
            let (a, b) = (self.find_first(first), self.find_first(other));
            if a != b {
                self.index_trees.insert(a.max(b), a.min(b));
            }
        }
    }

    /// As [`Tables::first_of_tree`]; shortens the way there, which could become as long as there are indexes.
    fn find_first(&mut self, index: DumpId) -> DumpId {
        let first = self.first_of_tree(index);
        let mut at = index;
        while let Some(earlier) = self.index_trees.get_mut(&at) {
            at = std::mem::replace(earlier, first);
        }
        first
    }

    /// Lets every index name the first one of its tree. The map leads to lower ids.
    fn shorten_index_trees(&mut self) {
        for index in sorted(self.index_trees.keys().copied()) {
            self.find_first(index);
        }
    }

    fn learn_attached_index(&mut self, e: &TocEntry) {
        let parent = self.attached_by(e).map(|(_, parent)| parent);
        if let Some(index) = parent.and_then(|parent| self.index_of(e, parent)) {
            self.attached_to.entry(index).or_default().push(e.dump_id);
        }
    }

    /// Which of the indexes that an attachment depends on is one of this table.
    fn index_of(&self, e: &TocEntry, table: DumpId) -> Option<DumpId> {
        let is_of_table = |index: &DumpId| self.locked_by(*index).contains(&table);
        self.indexes_of(e).into_iter().find(is_of_table)
    }

    /// What has to be attached to an index before an entry attaches the index itself. The server then never validates the
    /// index of a table above, for which it would lock that table against everybody: the rows of its other partitions may
    /// still be loading, and sessions that attach other indexes hold it.
    fn attached_before(&self, e: &TocEntry) -> &[DumpId] {
        if e.kind != EntryKind::IndexAttach {
            return &[];
        }
        let attached = self.attached_by(e);
        let index = attached.and_then(|(partition, _)| self.index_of(e, partition));
        let before = index.and_then(|index| self.attached_to.get(&index));
        before.map_or(&[], Vec::as_slice)
    }

    /// The indexes that an attachment depends on: everything but tables.
    fn indexes_of(&self, e: &TocEntry) -> Vec<DumpId> {
        let below = e.dependencies.iter().copied();
        sorted(below.filter(|id| !self.relations.contains(id)))
    }

    fn first_of_tree(&self, index: DumpId) -> DumpId {
        let mut first = index;
        while let Some(earlier) = self.index_trees.get(&first) {
            first = *earlier;
        }
        first
    }

    /// The tree of indexes that an attachment changes.
    pub(super) fn index_tree_of(&self, e: &TocEntry) -> TableId {
        let indexes = self.indexes_of(e);
        let first = indexes
            .first()
            .map_or(DumpId(0), |id| self.first_of_tree(*id));
        TableId::IndexTree(first)
    }

    /// The partition whose index an entry attaches, and the table that it belongs to, if both are known.
    pub(super) fn attached_by(&self, e: &TocEntry) -> Option<(DumpId, DumpId)> {
        let below = e.dependencies.iter().copied();
        let tables = sorted(below.flat_map(|id| self.locked_by(id)));
        let [a, b] = *tables.as_slice() else {
            return None;
        };
        let is_child = |child, parent| {
            let parents = self.parents.get(&child);
            parents.is_some_and(|parents| parents.contains(&parent))
        };
        match (is_child(a, b), is_child(b, a)) {
            (true, false) => Some((a, b)),
            (false, true) => Some((b, a)),
            _ => None,
        }
    }

    /// The relations that an entry depends on, each once.
    pub(super) fn relations_of(&self, e: &TocEntry) -> Vec<DumpId> {
        let below = e.dependencies.iter().copied();
        sorted(below.filter(|id| self.relations.contains(id)))
    }

    /// The tables of the indexes, constraints, triggers, … that a comment or label describes.
    pub(super) fn tables_of_described(&self, e: &TocEntry) -> Vec<DumpId> {
        let below = e.dependencies.iter().filter_map(|id| self.by_id.get(id));
        let of_tables = below.filter(|e| {
            matches!(
                e.kind,
                EntryKind::CheckConstraint
                    | EntryKind::Constraint
                    | EntryKind::FkConstraint
                    | EntryKind::Index
                    | EntryKind::Policy
                    | EntryKind::Rule
                    | EntryKind::Trigger
            )
        });
        sorted(of_tables.flat_map(|e| self.relations_of(e)))
    }

    /// Whether an entry depends on a materialized view or its data.
    pub(super) fn depends_on_refreshed(&self, e: &TocEntry) -> bool {
        e.dependencies.iter().any(|id| self.refreshed.contains(id))
    }

    /// Whether these are the rows of a table that the archive creates, copied into that very table.
    pub(super) fn can_copy_freeze(&self, e: &TocEntry) -> bool {
        let is_plain =
            |table: &TocEntry| has_name_of(table, e) && !table.defn.contains("autovacuum_enabled");
        e.kind == EntryKind::TableData
            && ddl::copies_into_own_table(e)
            && self.heap_of(e).is_some_and(is_plain)
    }

    pub(super) fn is_key(&self, e: &TocEntry) -> bool {
        e.kind == EntryKind::Constraint
            && ddl::key_as_index(e).is_some()
            && self.heap_of(e).is_some()
    }

    /// The ordinary table that an entry depends on, if the archive creates it.
    fn heap_of(&self, e: &TocEntry) -> Option<&'a TocEntry> {
        let below = e.dependencies.iter();
        let mut below = below.filter_map(|id| self.by_id.get(id).copied());
        let table = below.find(|t| t.kind == EntryKind::Table)?;
        is_heap(table).then_some(table)
    }

    /// The tables, with their partitions, that are locked while this entry runs.
    pub(super) fn touched_by(&self, e: &TocEntry) -> Vec<DumpId> {
        if is_of_table_alone(e) || self.is_key_of_table_alone(e) {
            return self.relations_of(e);
        }
        let below = sorted(e.dependencies.iter().copied()).into_iter();
        let tables = below.flat_map(|id| match e.kind {
            // The index of a partition depends on that of its parent, which it does not use.
            EntryKind::Index | EntryKind::Constraint if !self.relations.contains(&id) => vec![],
            _ => self.locked_by(id),
        });
        sorted(self.with_descendants(tables))
    }

    /// The tables that are locked for the use of an entry: itself, or the table of an index or key.
    fn locked_by(&self, id: DumpId) -> Vec<DumpId> {
        match self.by_id.get(&id) {
            _ if self.relations.contains(&id) => vec![id],
            Some(e) if matches!(e.kind, EntryKind::Index | EntryKind::Constraint) => {
                self.relations_of(e)
            }
            _ => vec![],
        }
    }

    fn with_descendants(&self, tables: impl Iterator<Item = DumpId>) -> Vec<DumpId> {
        let (mut found, mut next) = (sorted(tables), 0);
        let mut known: HashSet<DumpId> = found.iter().copied().collect();
        while let Some(id) = found.get(next) {
            let below = self.children.get(id).into_iter().flatten().copied();
            let new: Vec<DumpId> = below.filter(|child| known.insert(*child)).collect();
            found.extend(new);
            next += 1;
        }
        found
    }

    /// Entries that precede `e`: its own dependencies and, unless it is data itself, the data of every table
    /// that it depends on.
    pub(super) fn prerequisites(&self, e: &TocEntry) -> impl Iterator<Item = DumpId> {
        let direct = e.dependencies.iter().copied().filter(|_| !e.has_data);
        let tables = direct.clone().filter(|id| self.relations.contains(id));
        let tables: Vec<DumpId> = if self.needs_no_rows(e) {
            vec![]
        } else {
            self.with_descendants(tables)
        };
        let data = tables
            .into_iter()
            .flat_map(|table| self.data_of.get(&table).into_iter().flatten().copied());
        direct
            .chain(data)
            .chain(self.attached_before(e).iter().copied())
    }

    /// Whether this is a key of a partitioned table that locks none of its partitions, which have keys of their own.
    fn is_key_of_table_alone(&self, e: &TocEntry) -> bool {
        let of = |id: &DumpId| self.by_id[id].defn.contains("PARTITION BY");
        // From version 18 on, the server looks for NOT NULL in all partitions.
        let is_known = self.version < 180000 || !e.defn.contains("PRIMARY KEY");
        e.kind == EntryKind::Constraint
            && is_known
            && e.defn.trim_start().starts_with("ALTER TABLE ONLY ")
            && self.relations_of(e).iter().all(of)
    }

    /// Whether an entry may run while the tables that it depends on are loaded.
    fn needs_no_rows(&self, e: &TocEntry) -> bool {
        // The indexes that are attached have waited for them.
        let is_of_loaded = e.kind == EntryKind::IndexAttach || is_of_table_alone(e);
        // COPY through the root of partitions locks it, and any of them with its indexes.
        is_of_loaded && !self.loads_through_roots
    }
}

/// Whether this is an index of a partitioned table without those of its partitions, which are attached later: it is empty.
pub(super) fn is_of_table_alone(e: &TocEntry) -> bool {
    // Names in quotes may contain anything.
    let words = || e.defn.split('"').step_by(2);
    let before_method = words().map(|words| words.split(" USING ").next().unwrap_or_default());
    let ends = words().position(|words| words.contains(" USING "));
    let count = ends.map_or(usize::MAX, |last| last + 1);
    e.kind == EntryKind::Index
        && before_method
            .take(count)
            .any(|words| words.contains(" ON ONLY "))
}

fn has_name_of(table: &TocEntry, e: &TocEntry) -> bool {
    table.tag == e.tag && table.namespace == e.namespace
}

fn is_heap(table: &TocEntry) -> bool {
    // Other access methods need not support COPY's FREEZE.
    let access_method = table.table_am.as_deref();
    access_method.is_none_or(|am| matches!(am, "" | "heap"))
        && table.relkind.is_none_or(|kind| kind == 'r')
        && !table.defn.contains("PARTITION BY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_partitioned_tables_are_recognized_by_words_outside_names() {
        let is = |defn: &str| {
            let entry = TocEntry {
                defn: defn.into(),
                ..TocEntry::bare(1, "INDEX", "x")
            };
            is_of_table_alone(&entry)
        };
        for defn in [
            "CREATE INDEX x ON ONLY s.t USING btree (a);",
            r#"CREATE UNIQUE INDEX "a USING b" ON ONLY s."t" USING btree (a);"#,
        ] {
            assert!(is(defn), "{defn}");
        }
        for defn in [
            "CREATE INDEX x ON s.t USING btree (a);",
            r#"CREATE INDEX "a ON ONLY b" ON s.t USING btree (a);"#,
            r#"CREATE INDEX x ON s."t "" ON ONLY u" USING btree (a);"#,
            "CREATE INDEX x ON s.t USING btree (a) WHERE (a = ' ON ONLY '::text);",
        ] {
            assert!(!is(defn), "{defn}");
        }
    }
}

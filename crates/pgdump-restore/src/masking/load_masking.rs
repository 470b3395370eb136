//! What one load masks, and what that has changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use pgdump_archive::{Archive, DumpId, EntryKind, TocEntry};
use pgdump_mask::{LargeObjects, MaskCounts, Masking};

use super::report::{MaskedTable, MaskingReport};
use super::row_mask::{Name, RowMask};
use super::toc::{Masks, is_statistics};
use crate::error::RestoreError;
use crate::notes::listed;

/// The masking of one load, and what it has changed so far.
pub struct LoadMasking {
    masking: Masking,
    tables: Mutex<BTreeMap<Name, TableMasking>>,
    left_out_statistics: AtomicBool,
    notes: Mutex<Vec<String>>,
}

impl std::fmt::Debug for LoadMasking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadMasking").finish_non_exhaustive()
    }
}

/// The mask of a table and what it has changed.
struct TableMasking {
    mask: RowMask,
    counts: MaskCounts,
}

impl TableMasking {
    /// Columns of which a rule has changed nothing, although it is to find something in them. A column that is NULL in all rows
    /// cannot be told apart.
    fn idle(&self) -> Vec<String> {
        let rules = self.mask.table.rule_names().into_iter().enumerate();
        let seeks = |rule: &str| rule.starts_with("json: ") || rule == "regular expression";
        let is_idle = |at: usize| {
            self.counts
                .changed
                .get(at)
                .is_none_or(|changed| *changed == 0)
        };
        let idle = rules.filter(|(at, (_, rule))| seeks(rule) && is_idle(*at));
        let name = self.mask.name();
        let columns = idle.map(|(_, (column, _))| format!("{name}.{column}"));
        columns.filter(|_| self.counts.rows_kept > 0).collect()
    }
}

impl LoadMasking {
    /// A masking that has changed nothing yet.
    pub fn new(masking: Masking) -> Self {
        LoadMasking {
            masking,
            tables: Mutex::default(),
            left_out_statistics: AtomicBool::new(false),
            notes: Mutex::default(),
        }
    }

    /// Whether planner statistics of the backup were left out, so that tables need ANALYZE.
    pub fn left_out_statistics(&self) -> bool {
        self.left_out_statistics.load(Relaxed)
    }

    /// What of the rules has had no effect, as far as that is known.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().clone();
        let tables = self.tables.lock();
        let idle: Vec<String> = tables.values().flat_map(TableMasking::idle).collect();
        let what =
            "mask file: rules that changed nothing; check their paths and regular expressions";
        notes.extend(listed(what, &idle));
        notes
    }

    pub(super) fn note(&self, what: Option<String>) {
        self.notes.lock().extend(what);
    }

    /// What was masked, by which rules, and how much of it.
    pub fn report(&self) -> MaskingReport {
        let tables = self.tables.lock();
        let all = tables.iter();
        let all =
            all.map(|(_, rows)| MaskedTable::of(rows.mask.name(), &rows.mask.table, &rows.counts));
        MaskingReport::new(self.masking.digest(), self.masking.key_id(), all.collect())
    }

    /// The masks of all entries with rows. Entries that may hold values of masked rows are taken out of `entries`.
    pub(crate) fn begin(
        &self,
        archive: &Archive,
        entries: &mut Vec<TocEntry>,
    ) -> Result<HashMap<DumpId, Option<RowMask>>, RestoreError> {
        if archive.is_script() {
            return Ok(HashMap::new());
        }
        let masks = Masks::of(archive, entries, &self.masking)?;
        masks.of_entry.values().flatten().for_each(|m| self.add(m));
        if !self.keeps_large_objects() {
            entries.retain(|e| e.kind != EntryKind::Blobs);
        }
        let all = entries.len();
        entries.retain(|e| !is_statistics(&e.kind) || masks.keeps_statistics(e, &self.masking));
        self.leave_out_statistics(entries.len() < all);
        Ok(masks.of_entry)
    }

    pub(crate) fn keeps_large_objects(&self) -> bool {
        !matches!(self.masking.large_objects(), Some(LargeObjects::None))
    }

    pub(super) fn rules(&self) -> &Masking {
        &self.masking
    }

    pub(super) fn leave_out_statistics(&self, are: bool) {
        self.left_out_statistics.fetch_or(are, Relaxed);
    }

    /// A table whose rows will be masked; it is reported also if it has none.
    pub(super) fn add(&self, mask: &RowMask) {
        let mut tables = self.tables.lock();
        let rows = || TableMasking {
            mask: mask.clone(),
            counts: MaskCounts::default(),
        };
        tables.entry(mask.key()).or_insert_with(rows);
    }

    /// Counts rows that were masked.
    pub(crate) fn count(&self, mask: &RowMask, counts: &MaskCounts) {
        self.add(mask);
        if let Some(rows) = self.tables.lock().get_mut(&mask.key()) {
            rows.counts.add(counts);
        }
    }
}

#[cfg(test)]
mod tests {
    use pgdump_mask::{ColumnShape, MaskFile, TableShape};

    use super::*;

    #[test]
    fn rules_that_find_nothing_are_noted() {
        let rules = "version: 1\ntables: { s.t: { columns: { a: { json: { $.x: { null: true } } }, \
             b: { replace: { regex: x, with: y } }, c: { truncate: 3 } } } }\n";
        let masking = Masking::new(MaskFile::parse(rules).unwrap(), None).unwrap();
        let columns = [("a", "jsonb"), ("b", "text"), ("c", "text")];
        let columns = columns.map(|(name, sql_type)| ColumnShape {
            name: name.into(),
            sql_type: sql_type.into(),
            ..ColumnShape::default()
        });
        let shape = TableShape {
            schema: "s".into(),
            table: "t".into(),
            columns: columns.into(),
            parents: vec![],
        };
        let table = masking.table(&shape).map_err(|m| m[0].to_string());
        let (table, names) = (table.unwrap().unwrap(), vec![("s".into(), "t".into())]);
        let columns = ["a", "b", "c"].map(str::to_owned);
        let mask = RowMask::new(table, names, columns.into(), vec![]);
        let load = LoadMasking::new(masking);
        load.add(&mask);
        assert_eq!(load.notes(), Vec::<String>::new());
        let mut counts = MaskCounts::default();
        mask.rows(b"{}\tx\tabc\n", 0, &mut counts).unwrap();
        load.count(&mask, &counts);
        let notes = load.notes();
        assert!(
            matches!(&notes[..], [note] if note.ends_with("regular expressions: s.t.a")),
            "{notes:?}"
        );
    }
}

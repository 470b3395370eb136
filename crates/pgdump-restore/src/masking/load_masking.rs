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

/// The masking of one load, and what it has changed so far.
pub struct LoadMasking {
    masking: Masking,
    tables: Mutex<BTreeMap<Name, MaskedRows>>,
    left_out_statistics: AtomicBool,
    notes: Mutex<Vec<String>>,
}

impl std::fmt::Debug for LoadMasking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadMasking").finish_non_exhaustive()
    }
}

/// The mask of a table and what it has changed.
struct MaskedRows {
    mask: RowMask,
    counts: MaskCounts,
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
        self.notes.lock().clone()
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
        let rows = || MaskedRows {
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

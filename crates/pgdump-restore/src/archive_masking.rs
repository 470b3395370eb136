//! The masking of an archive that is written again as another one, instead of being loaded.

use std::collections::{HashMap, HashSet};

use pgdump_archive::{
    Archive, Dialect, DumpId, EntryKind, TextEncoding, TocEntry, Token, copy_target, tokens,
};
use pgdump_mask::{MaskCounts, Masking, TableShape};

use crate::error::RestoreError;
use crate::masking::{LoadMasking, MaskingReport, RowMask};
use crate::table_shapes::{shape_for_copy, table_shapes};

/// The names of the columns that a COPY lists.
pub fn copied_columns(copy: &str) -> Option<Vec<String>> {
    let (_, columns) = copy_target(copy)?;
    let columns = columns?;
    let t = tokens(&columns, Dialect::default());
    Some(t.iter().filter_map(Token::name).collect())
}

/// The columns that neither a rule nor a label names, by the schema and name of their table, of the tables with rows in a table
/// of contents.
pub fn columns_without_rule(entries: &[TocEntry], masking: &Masking) -> Vec<(String, Vec<String>)> {
    let shapes = table_shapes(entries);
    let mut found = vec![];
    let with_rows = |e: &&TocEntry| e.has_data && e.kind == EntryKind::TableData;
    for entry in entries.iter().filter(with_rows) {
        let schema = entry.namespace.as_deref().unwrap_or_default();
        let copied = copied_columns(&entry.copy_stmt);
        let shape = shape_for_copy(&shapes, schema, &entry.tag, copied.as_deref());
        let columns = without_rule(&shape, masking);
        if !columns.is_empty() {
            found.push((format!("{schema}.{}", entry.tag), columns));
        }
    }
    found
}

/// The columns of a table that neither a rule nor a label names. A label that nobody knows counts where no rule does, and is
/// refused there.
fn without_rule(shape: &TableShape, masking: &Masking) -> Vec<String> {
    let refused = |shape: &TableShape| -> HashSet<String> {
        let misfits = masking.table(shape).err().unwrap_or_default();
        misfits.into_iter().filter_map(|m| m.column).collect()
    };
    let mut labelled = shape.clone();
    for column in labelled.columns.iter_mut().filter(|c| c.label.is_none()) {
        column.label = Some("no such label".to_owned());
    }
    let (before, after) = (refused(shape), refused(&labelled));
    let columns = shape.columns.iter().map(|c| &c.name);
    let without = columns.filter(|name| after.contains(*name) && !before.contains(*name));
    without.cloned().collect()
}

/// How the data of an archive is masked, and what that has changed so far.
pub struct ArchiveMasking {
    masking: LoadMasking,
    /// What the new archive has.
    entries: Vec<TocEntry>,
    left_out: Vec<String>,
    masks: HashMap<DumpId, RowMask>,
    /// Lines of each entry's data that were masked.
    lines: HashMap<DumpId, u64>,
    encoding: TextEncoding,
    standard_strings: bool,
}

impl ArchiveMasking {
    /// Finds the masks of all entries with rows. SQL text, whose tables are known with its rows only, has none.
    ///
    /// # Errors
    /// Everything in the rules that does not fit the archive.
    pub fn new(archive: &Archive, masking: Masking) -> Result<Self, RestoreError> {
        let masking = LoadMasking::new(masking);
        let mut entries = archive.entries().to_vec();
        let masks = masking.begin(archive, &mut entries)?;
        let masks = masks.into_iter().filter_map(|(id, mask)| Some((id, mask?)));
        let kept: HashSet<DumpId> = entries.iter().map(|e| e.dump_id).collect();
        let all = archive.entries().iter();
        let left_out = all.filter(|e| !kept.contains(&e.dump_id));
        let mut strings = entries.iter().filter(|e| e.kind == EntryKind::StdStrings);
        Ok(ArchiveMasking {
            masking,
            left_out: left_out.map(TocEntry::name).collect(),
            masks: masks.collect(),
            lines: HashMap::new(),
            encoding: archive.encoding().clone(),
            standard_strings: strings.next().is_none_or(|e| e.defn.contains("'on'")),
            entries,
        })
    }

    /// The entries that the new archive has.
    pub fn entries(&self) -> &[TocEntry] {
        &self.entries
    }

    /// The names of those that it does not have, because they may hold values of masked rows.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Whether rows of this entry may change.
    pub fn changes(&self, entry: DumpId) -> bool {
        self.masks.contains_key(&entry)
    }

    /// Whether no row of this entry is kept, so that parts of rows may be given to [`Self::rows`], too.
    pub fn leaves_out_all_rows(&self, entry: DumpId) -> bool {
        let mask = self.masks.get(&entry);
        mask.is_some_and(|mask| mask.table.leaves_out_all_rows())
    }

    /// Whole rows of an entry in COPY's text format, masked.
    ///
    /// # Errors
    /// A value that its rule cannot be applied to.
    pub fn rows(&mut self, entry: DumpId, rows: Vec<u8>) -> Result<Vec<u8>, RestoreError> {
        let Some(mask) = self.masks.get(&entry) else {
            return Ok(rows);
        };
        let (mut counts, lines) = (MaskCounts::default(), self.lines.entry(entry).or_default());
        let masked = mask.rows(&rows, *lines, &mut counts)?;
        *lines += counts.rows;
        self.masking.count(mask, &counts);
        Ok(masked)
    }

    /// INSERT statements of an entry with their rows masked.
    ///
    /// # Errors
    /// The same, and statements that `pg_dump` does not write.
    pub fn statements(&self, entry: DumpId, text: Vec<u8>) -> Result<Vec<u8>, RestoreError> {
        let Some(mask) = self.masks.get(&entry) else {
            return Ok(text);
        };
        let mut counts = MaskCounts::default();
        let sql = self.encoding.view(&text);
        let masked = mask.inserts(&sql, self.standard_strings, &mut counts)?;
        self.masking.count(mask, &counts);
        Ok(masked.into_bytes())
    }

    /// What of the rules has had no effect, as far as that is known.
    pub fn notes(&self) -> Vec<String> {
        self.masking.notes()
    }

    /// What was masked, by which rules, and how much of it.
    pub fn report(&self) -> MaskingReport {
        self.masking.report()
    }
}

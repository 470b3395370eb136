//! How the rules are applied to an archive with a table of contents.

use std::collections::HashMap;

use pgdump_archive::{Archive, DumpId, EntryKind, TextEncoding, TocEntry};
use pgdump_mask::Masking;

use super::masked_table::{MaskedTarget, copied_columns, keeps_statistics};
use super::misfits::{do_not_fit, misfit_of_large_objects, unmatched};
use super::row_mask::{Name, RowMask};
use crate::error::RestoreError;
use crate::table_shapes::TableDefinitions;

/// Checks that the rules fit every table of these entries that has rows, before any data moves. Returns notes. Of SQL text,
/// tables are known as far as it has been read, so [`load()`](crate::load()) checks it.
///
/// # Errors
/// `invalid_request` with everything that does not fit.
pub fn check_masking(
    archive: &Archive,
    entries: &[TocEntry],
    masking: &Masking,
) -> Result<Vec<String>, RestoreError> {
    if archive.is_script() {
        return Ok(vec![]);
    }
    Ok(Masks::of(archive, entries, masking)?.notes)
}

/// The masks of an archive with a table of contents.
pub(super) struct Masks {
    definitions: TableDefinitions,
    /// `None` if nothing is to be changed.
    pub(super) of_entry: HashMap<DumpId, Option<RowMask>>,
    notes: Vec<String>,
}

impl Masks {
    pub(super) fn of(
        archive: &Archive,
        entries: &[TocEntry],
        masking: &Masking,
    ) -> Result<Self, RestoreError> {
        let mut masks = Masks {
            definitions: TableDefinitions::of(archive.entries()),
            of_entry: HashMap::new(),
            notes: vec![],
        };
        let mut misfits = vec![];
        for entry in entries.iter().filter(|e| brings_rows(e)) {
            match mask_of_entry(&masks.definitions, entry, masking, archive.encoding()) {
                Ok(mask) => {
                    masks.of_entry.insert(entry.dump_id, mask);
                }
                Err(found) => misfits.extend(found),
            }
        }
        if entries.iter().any(|e| e.kind == EntryKind::Blobs) {
            misfits.extend(misfit_of_large_objects(masking));
        }
        let tables = archive.entries().iter().filter(|e| is_table(e));
        let mut names: Vec<Name> = tables.map(name_of).collect();
        names.extend(masks.definitions.names().cloned());
        let (unmatched, notes) = unmatched(masking, &names);
        misfits.extend(unmatched);
        masks.notes.extend(notes);
        if misfits.is_empty() {
            Ok(masks)
        } else {
            Err(do_not_fit(misfits))
        }
    }

    /// Whether planner statistics hold no value of a masked row. Those of an index or a materialized view may.
    pub(super) fn keeps_statistics(&self, entry: &TocEntry, masking: &Masking) -> bool {
        // Extended statistics have names of their own, which may be those of other tables.
        entry.kind == EntryKind::StatisticsData
            && keeps_statistics(&self.definitions, &name_of(entry), masking)
    }
}

/// Whether an entry is the planner statistics of a relation.
pub(super) fn is_statistics(kind: &EntryKind) -> bool {
    kind.as_str().ends_with("STATISTICS DATA")
}

fn brings_rows(entry: &TocEntry) -> bool {
    entry.has_data && entry.kind != EntryKind::Blobs && !is_statistics(&entry.kind)
}

fn is_table(entry: &TocEntry) -> bool {
    matches!(
        entry.kind,
        EntryKind::Table | EntryKind::ForeignTable | EntryKind::TableData
    )
}

fn name_of(entry: &TocEntry) -> Name {
    let schema = entry.namespace.clone().unwrap_or_default();
    (schema, entry.tag.clone())
}

fn mask_of_entry(
    definitions: &TableDefinitions,
    entry: &TocEntry,
    masking: &Masking,
    encoding: &TextEncoding,
) -> Result<Option<RowMask>, Vec<String>> {
    if entry.kind != EntryKind::TableData {
        let what = "this kind of data cannot be masked: leave it out with --skip";
        return Err(vec![format!("{}: {what}", entry.name())]);
    }
    let target = MaskedTarget {
        definitions,
        name: &name_of(entry),
        copied: copied_columns(&entry.copy_stmt),
        encoding,
    };
    target.mask(masking)
}

#[cfg(test)]
mod tests {
    use pgdump_mask::MaskFile;

    use super::*;

    #[test]
    fn statistics_are_kept_of_unmasked_tables_by_their_name_only() {
        let file = "version: 1\ntables: { s.t: { columns: { a: { set: x } } } }\n";
        let masking = Masking::new(MaskFile::parse(file).unwrap(), None).unwrap();
        let mut definitions = TableDefinitions::default();
        for sql in ["CREATE TABLE s.t (a text);", "CREATE TABLE s.u (a text);"] {
            definitions.learn(sql, "s");
        }
        let masks = Masks {
            definitions,
            of_entry: HashMap::new(),
            notes: vec![],
        };
        for (kind, name, is_kept) in [
            ("STATISTICS DATA", "u", true),
            ("STATISTICS DATA", "t", false),
            ("STATISTICS DATA", "index_of_t", false),
            // It may be about s.t.
            ("EXTENDED STATISTICS DATA", "u", false),
        ] {
            let mut entry = TocEntry::bare(1, kind, name);
            entry.namespace = Some("s".to_owned());
            assert!(is_statistics(&entry.kind));
            let kept = masks.keeps_statistics(&entry, &masking);
            assert_eq!(kept, is_kept, "{kind} {name}");
        }
    }
}

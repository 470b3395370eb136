//! Of which tables a backup has rows that nobody restored, by its own table of contents.

use std::time::Duration;

use tokio::time::Instant;

use super::backup_catalog::BackupCatalog;
use super::database_names::LOOK_LIMIT;
use super::whole_backups::begins_with_contents;
use crate::backup::{self, PinnedBackup};
use crate::error::{FailureReason as R, RestoreError, report as said};
use crate::policy::Depth;
use crate::proof::{BackupContents, ListedTables, VerificationReport, plain_name};
use crate::retention::KnownRows;
use crate::store::StoredObject;
use pgdump_archive::{Archive, EntryKind, TextEncoding, TocEntry, copy_target};

impl BackupCatalog {
    /// The tables of a backup by its table of contents; otherwise, why they are not known. Text has no table of contents: it
    /// would have to be read to its end. What this takes is subtracted from the time that is left for all backups. Nobody
    /// verified what is read: if it looks damaged, it may have been read badly.
    pub(super) async fn rows_listed_in(
        &self,
        object: &StoredObject,
        left: &mut Duration,
    ) -> (KnownRows, Option<ListedTables>) {
        let begin = Instant::now();
        let looked_at = if left.is_zero() {
            None
        } else {
            let look = tokio::time::timeout(*left, self.list_rows(object));
            look.await.ok()
        };
        *left = left.saturating_sub(begin.elapsed());
        let why = match looked_at {
            Some(Ok(Some(tables))) => return (KnownRows::Listed, Some(tables)),
            Some(Ok(None)) => {
                "it is SQL text or compressed as a whole, and lists no tables at its beginning"
                    .to_owned()
            }
            Some(Err(e)) if e.reason() == R::ArchiveCorrupt => {
                format!("its table of contents cannot be read: {}", said(&e))
            }
            Some(Err(e)) => format!("its table of contents was not read: {}", said(&e)),
            None => format!(
                "prune reads backups that nobody restored for at most {} minutes: run it with --apply again, or verify a newer one",
                LOOK_LIMIT.as_secs() / 60
            ),
        };
        (KnownRows::Unlisted(why), None)
    }

    async fn list_rows(&self, object: &StoredObject) -> Result<Option<ListedTables>, RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        let is_one_object = !object.name.ends_with('/') && object.members.is_none();
        // The first bytes answer for most text; they are those of this generation or none.
        let pinned = if is_one_object {
            PinnedBackup::single(store, object.clone())
        } else {
            backup::pin(store, &object.name, Some(object.generation), None).await?
        };
        if !begins_with_contents(&pinned).await? {
            return Ok(None);
        }
        self.open_within_budget(&pinned, tables_in).await
    }
}

/// What a backup has that has rows of no table, as verifications say that read it to its end.
pub(super) fn without_rows(reports: &[VerificationReport]) -> Option<ListedTables> {
    let has_none = |r: &&VerificationReport| {
        let is_read = r.depth >= Some(Depth::Archive) && !r.is_of_several();
        // An extension's tables are not defined, and may have some.
        is_read && r.rows == 0 && r.known_contents() == Some(BackupContents::SchemaOnly)
    };
    let large_objects = reports.iter().filter(has_none).map(|r| r.large_objects);
    Some(ListedTables {
        large_objects: large_objects.max()?,
        ..ListedTables::default()
    })
}

/// The tables of an archive; `None` of SQL text. A table with data may have no rows.
fn tables_in(archive: &Archive) -> Option<ListedTables> {
    if archive.is_script() {
        return None;
    }
    let rows = archive.entries().iter();
    let rows = rows.filter(|e| e.kind == EntryKind::TableData && e.has_data);
    let names = rows.map(|e| (table_of(e, archive.encoding()), true));
    Some(ListedTables {
        filled: names.collect(),
        large_objects: pgdump_restore::large_objects_in(archive.entries()),
        ..ListedTables::default()
    })
}

/// The name of the table whose rows an entry has, as reports have it: the one into which they are copied. That of a partition
/// may be its root (`--load-via-partition-root`).
fn table_of(entry: &TocEntry, encoding: &TextEncoding) -> String {
    let target = copy_target(&encoding.for_display(&entry.copy_stmt));
    if let Some((relation, _)) = target {
        return plain_name(&relation);
    }
    match entry.namespace.as_deref() {
        None | Some("") => encoding.for_display(&entry.tag),
        Some(schema) => encoding.for_display(&format!("{schema}.{}", entry.tag)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Trigger;

    /// A row of a report and one of a table of contents have the same name.
    #[test]
    fn a_table_is_called_as_in_reports() {
        let encoding = TextEncoding::new("UTF8");
        for (copy, schema, wanted) in [
            (
                "COPY shop.orders (id, at) FROM stdin;\n",
                "shop",
                "shop.orders",
            ),
            // The entry has the name of a partition, and the rows are copied into its root.
            (
                "COPY shop.\"Orders\" (id) FROM stdin;\n",
                "shop",
                "shop.Orders",
            ),
            ("COPY leaf (id) FROM stdin;\n", "", "leaf"),
            ("COPY public.leaf (id) FROM stdin;\n", "", "public.leaf"),
            // With --inserts.
            ("", "shop", "shop.Leaf"),
            ("", "", "Leaf"),
        ] {
            let mut entry = TocEntry::bare(1, "TABLE DATA", "Leaf");
            copy.clone_into(&mut entry.copy_stmt);
            entry.namespace = Some(schema.to_owned());
            assert_eq!(table_of(&entry, &encoding), wanted, "{copy:?} {schema:?}");
        }
        let mut entry = TocEntry::bare(1, "TABLE DATA", "Leaf");
        entry.namespace = None;
        assert_eq!(table_of(&entry, &encoding), "Leaf");
    }

    #[test]
    fn what_was_read_to_its_end_and_has_no_rows_has_large_objects_at_most() {
        use BackupContents::{Partial, SchemaOnly};
        let report = |depth: Option<Depth>, contents: BackupContents, large_objects: u64| {
            let at = jiff::Timestamp::UNIX_EPOCH;
            VerificationReport {
                depth,
                contents: Some(contents),
                large_objects,
                ..VerificationReport::new("r", Trigger::Command, Depth::Archive, at)
            }
        };
        let archive = Some(Depth::Archive);
        for (reports, wanted) in [
            (vec![], None),
            // It was not read to its end: what else it has was not counted.
            (vec![report(None, SchemaOnly, 0)], None),
            (vec![report(Some(Depth::Object), SchemaOnly, 0)], None),
            (vec![report(archive, Partial, 0)], None),
            (vec![report(archive, SchemaOnly, 0)], Some(0)),
            (
                vec![report(archive, SchemaOnly, 7), report(None, SchemaOnly, 0)],
                Some(7),
            ),
        ] {
            let found = without_rows(&reports);
            assert_eq!(
                found.as_ref().map(|t| t.large_objects),
                wanted,
                "{reports:?}"
            );
            assert!(found.is_none_or(|t| t.filled.is_empty() && !t.is_cut));
        }
        // Rows of an extension's tables, which the backup does not define.
        let mut has_rows = report(archive, SchemaOnly, 0);
        has_rows.rows = 1;
        assert_eq!(without_rows(&[has_rows]), None);
    }
}

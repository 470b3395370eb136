//! Of which tables a backup has rows that nobody restored, by its own table of contents.

use tokio::time::Instant;

use super::backup_catalog::BackupCatalog;
use super::database_names::LOOK_LIMIT;
use crate::backup::{self, PinnedBackup};
use crate::error::{FailureReason as R, RestoreError, report as said};
use crate::proof::ListedTables;
use crate::retention::KnownRows;
use crate::store::StoredObject;
use pgdump_archive::{Archive, EntryKind, Limits};

impl BackupCatalog {
    /// The tables of a backup by its table of contents, read before the deadline; otherwise, why they are not known. Text has
    /// no table of contents: it would have to be read to its end.
    pub(super) async fn rows_listed_in(
        &self,
        object: &StoredObject,
        deadline: Instant,
    ) -> (KnownRows, Option<ListedTables>) {
        let unlisted = |why: String| (KnownRows::Unlisted(why), None);
        match tokio::time::timeout_at(deadline, self.list_rows(object)).await {
            Ok(Ok(Some(tables))) => (KnownRows::Listed, Some(tables)),
            Ok(Ok(None)) => {
                unlisted("it is SQL text, which lists no tables at its beginning".into())
            }
            Ok(Err(e)) if e.reason() == R::ArchiveCorrupt => (KnownRows::Unreadable, None),
            Ok(Err(e)) => unlisted(format!("its table of contents was not read: {}", said(&e))),
            Err(_) => unlisted(format!(
                "looking into older ones took more than {LOOK_LIMIT:?}: run it again"
            )),
        }
    }

    async fn list_rows(&self, object: &StoredObject) -> Result<Option<ListedTables>, RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        let pinned: PinnedBackup =
            backup::pin(store, &object.name, Some(object.generation), None).await?;
        self.open_within_budget(&pinned, Limits::default(), tables_in)
            .await
    }
}

/// The tables of an archive; `None` of SQL text. A table with data may have no rows.
fn tables_in(archive: &Archive) -> Option<ListedTables> {
    if archive.is_script() {
        return None;
    }
    let mut tables = ListedTables::default();
    for entry in archive.entries() {
        match entry.kind {
            EntryKind::TableData if entry.has_data => {
                let namespace = entry.namespace.as_deref().unwrap_or_default();
                let name = format!("{namespace}.{}", entry.tag);
                tables
                    .filled
                    .insert(archive.encoding().for_display(&name), true);
            }
            EntryKind::Blob => tables.large_objects += 1,
            // Each line is one.
            EntryKind::BlobMetadata => tables.large_objects += entry.defn.lines().count() as u64,
            _ => {}
        }
    }
    Some(tables)
}

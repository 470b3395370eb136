//! Which database each backup is of, by the archives' own first bytes.

use std::collections::HashMap;
use std::ops::Range;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::archived_database::ArchivedDatabase;
use super::backup_catalog::BackupCatalog;
use super::grouped_backups::{DatabaseBackups, group};
use crate::backup::{self, PinnedBackup, ReadHint, Source};
use crate::error::{
    FailureReason as R, JobError, JobKind, RestoreError, RetryClass, ValidationKind, report as said,
};
use crate::proof::{BackupOrigin, VerificationReport};
use crate::store::{StoredObject, read_range};
use pgdump_archive::{Format, database_in, member_name};

/// Backups that are looked into at the same time.
const AT_ONCE: usize = 16;
/// Most backups of a set that are looked into because no evidence names their database.
const UNKNOWN: usize = 500;
/// Most backups that are looked into to find those of one database.
pub(super) const SEARCHED: usize = 2_000;
/// Bytes that hold the header of an archive.
const HEADER: Range<u64> = 0..4 << 10;
/// How long it may take to open one archive as far as its database's name.
const OPEN_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
/// What the error for a cluster's roles alone says.
const GLOBALS_ONLY: &str = "--globals-only";

impl BackupCatalog {
    /// The database of each of these backups, in their order. Nobody can make this fail by an object that cannot be
    /// read: only an error that may pass is one.
    ///
    /// # Errors
    /// `download_failed`.
    pub(super) async fn databases_in(
        &self,
        backups: &[StoredObject],
    ) -> Result<Vec<ArchivedDatabase>, RestoreError> {
        // Boxed here: the compiler cannot tell that a stream of borrowing closures may change threads.
        let looks: Vec<BoxFuture<'_, _>> = backups
            .iter()
            .map(|b| self.database_in(b).boxed())
            .collect();
        let looked_at = futures::stream::iter(looks).buffered(AT_ONCE);
        looked_at.try_collect().await
    }

    /// The same of one backup; the answer is kept as long as this process runs.
    pub(super) async fn database_in(
        &self,
        backup: &StoredObject,
    ) -> Result<ArchivedDatabase, RestoreError> {
        if let Some(known) = self.known_databases.of(backup) {
            return Ok(known);
        }
        let database = match self.look_into(backup).await {
            Ok(database) => database,
            Err(e) => match (e.reason(), e.reason().retry_class()) {
                (R::InvalidRequest, _) if said(&e).contains(GLOBALS_ONLY) => {
                    ArchivedDatabase::Globals
                }
                (R::InvalidRequest, _) => ArchivedDatabase::Cluster,
                (R::ArchiveUnsupported, _) if is_no_dump(&e) => ArchivedDatabase::NoDump(said(&e)),
                (R::ArchiveCorrupt | R::ArchiveUnsupported, _) => {
                    ArchivedDatabase::Unreadable(said(&e))
                }
                (_, RetryClass::Transient) => return Err(e),
                // Another key, or a grant, may help the next one who asks.
                _ => return Ok(ArchivedDatabase::Unreadable(said(&e))),
            },
        };
        self.known_databases.keep(backup, database.clone());
        Ok(database)
    }

    /// The origin of a backup, or why it cannot be told.
    pub(super) async fn origin_in(&self, backup: &StoredObject) -> Result<BackupOrigin, String> {
        let database = self.database_in(backup).await.map_err(|e| said(&e))?;
        database.one_origin(&backup.name)
    }

    /// The name of a backup's database, if that can be read.
    pub(crate) async fn database_named_in(&self, backup: &StoredObject) -> Option<String> {
        let database = self.database_in(backup).await.ok()?;
        database.name().map(str::to_owned)
    }

    /// Backups of a set by database: by the evidence about them and, where that names none, by their first bytes.
    pub(super) async fn by_database(
        &self,
        backups: Vec<StoredObject>,
        reports: &[VerificationReport],
    ) -> Vec<DatabaseBackups> {
        let named = |r: &VerificationReport| {
            let (name, generation) = r.subject()?;
            let database = if r.is_of_several() {
                ArchivedDatabase::Cluster
            } else {
                ArchivedDatabase::Named(r.database.clone()?)
            };
            Some(((name.to_owned(), generation.to_owned()), database))
        };
        let known: HashMap<(String, String), ArchivedDatabase> =
            reports.iter().filter_map(named).collect();
        // A single one need not be told from others.
        let mut left = if backups.len() < 2 { 0 } else { UNKNOWN };
        let mut all = Vec::with_capacity(backups.len());
        for backup in backups {
            let key = (backup.name.clone(), backup.generation.to_string());
            let database = match known.get(&key) {
                Some(database) => database.clone(),
                None if left > 0 => {
                    left -= 1;
                    let read = self.database_in(&backup).await;
                    read.unwrap_or_else(|e| ArchivedDatabase::Unreadable(said(&e)))
                }
                None => ArchivedDatabase::Unreadable("not looked into".into()),
            };
            all.push((backup, database));
        }
        group(all)
    }

    async fn look_into(&self, backup: &StoredObject) -> Result<ArchivedDatabase, RestoreError> {
        let store = self.store().await?;
        let named = |head: &[u8], format| database_in(head, format).map(ArchivedDatabase::Named);
        // One read answers for most backups.
        if !backup.name.ends_with('/') {
            match read_range(store.as_ref(), backup, HEADER).await {
                Ok(head) => {
                    if let Some(named) = named(&head, Format::Custom) {
                        return Ok(named);
                    }
                }
                // The common name of pieces.
                Err(e) if e.reason() == R::BackupNotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        let generation = Some(backup.generation);
        let pinned = backup::pin(store, &backup.name, generation, None).await?;
        if let Some((first, format)) = begin_of(&pinned) {
            let head = read_range(pinned.store.as_ref(), first, HEADER).await?;
            if let Some(named) = named(&head, format) {
                return Ok(named);
            }
        }
        let late = |_| {
            let what = format!("{}: not opened within {OPEN_LIMIT:?}", pinned.uri());
            Err(JobError::new(JobKind::Timeout, what).into())
        };
        let opened = tokio::time::timeout(OPEN_LIMIT, self.open_for_name(&pinned)).await;
        let name = opened.unwrap_or_else(late)?;
        Ok(name.map_or(ArchivedDatabase::Unnamed, ArchivedDatabase::Named))
    }

    /// The name of the database, from the archive opened as far as it has to be.
    async fn open_for_name(&self, pinned: &PinnedBackup) -> Result<Option<String>, RestoreError> {
        let _permit = self.known_databases.opening.acquire().await;
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let source = Source::Object(pinned.clone());
        let (archive, _) = self
            .read(source, ReadHint::Beginning, Default::default(), stop)
            .await?;
        Ok(archive.header().database.clone().filter(|d| !d.is_empty()))
    }

    /// The backups below `prefix` that are of this database, by name, and how many older ones were not looked into.
    ///
    /// # Errors
    /// As [`BackupCatalog::list_backups`], and `download_failed` if backups cannot be looked into.
    pub(super) async fn backups_of_database(
        &self,
        prefix: &str,
        database: &str,
    ) -> Result<(Vec<StoredObject>, usize), RestoreError> {
        let store = self.store().await?;
        let objects = backup::list_objects(store.as_ref(), prefix, true).await?;
        let mut all = backup::backups_of(store.as_ref(), objects, self.manifest()).await?;
        all.sort_by(backup::newer_first);
        let older = all.split_off(all.len().min(SEARCHED));
        let databases = self.databases_in(&all).await?;
        let mut found: Vec<StoredObject> = all
            .into_iter()
            .zip(databases)
            .filter(|(_, d)| d.name() == Some(database))
            .map(|(object, _)| object)
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((found, older.len()))
    }
}

/// Whether it is not a limit of this worker.
fn is_no_dump(e: &RestoreError) -> bool {
    matches!(e, RestoreError::Validation(e) if e.kind() == ValidationKind::ArchiveUnsupported)
}

/// The object with which the archive begins, and its format, where that is not the backup itself.
fn begin_of(pinned: &PinnedBackup) -> Option<(&StoredObject, Format)> {
    if pinned.is_folder() {
        let file = |o: &StoredObject| o.name.rsplit('/').next().map(str::to_owned);
        let is_toc = |o: &&StoredObject| file(o).is_some_and(|f| member_name::is_toc(&f));
        let toc = pinned.members.iter().find(is_toc);
        return toc.map(|toc| (toc, Format::Directory));
    }
    let first = pinned.members.first();
    first.map(|first| (first, Format::Custom))
}

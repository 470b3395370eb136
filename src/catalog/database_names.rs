//! Which database each backup is of, by the archives' own first bytes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archived_database::ArchivedDatabase;
use super::backup_catalog::BackupCatalog;
use super::companions::without_companions;
use super::grouped_backups::{DatabaseBackups, group};
use crate::backup::{self, PinnedBackup, ReadHint, Source, UnlistedPlaces};
use crate::config::NAME_BUDGET;
use crate::error::{
    FailureReason as R, JobError, JobKind, RestoreError, RetryClass, StorageError, ValidationKind,
    report as said,
};
use crate::proof::{BackupOrigin, VerificationReport};
use crate::store::{BackupStore, StoredObject, read_range};
use crate::verification::is_of;
use pgdump_archive::{Archive, Format, Limits, database_in, member_name};

/// Backups that are looked into at the same time.
const AT_ONCE: usize = 16;
/// Most backups of a set that are looked into because no evidence names their database.
const UNKNOWN: usize = 500;
/// Most backups that are looked into to find those of one database.
pub(super) const SEARCHED: usize = 2_000;
/// Bytes that hold the header of an archive.
const HEADER: Range<u64> = 0..4 << 10;
/// How long backups may be looked into for one question: the schedule of a set, or somebody, waits for it.
pub(super) const LOOK_LIMIT: Duration = Duration::from_secs(120);
/// Most backups that a message names.
const MAX_NAMED: usize = 5;
/// Least and most bytes that are decompressed for a look into a backup.
const DECOMPRESSED: (u64, u64) = (64 << 20, 4 << 30);
/// As many times its size may be decompressed of a backup between these: in a compressed tar, the table of contents may be
/// the last member.
const EXPANSION: u64 = 8;
/// What the error for a cluster's roles alone says.
const GLOBALS_ONLY: &str = "--globals-only";

/// How far a listing looks into backups for the names of their databases: nobody waits long for a list.
const LISTING: LookLimit = LookLimit {
    backups: UNKNOWN,
    time: Duration::from_secs(10),
};

/// Most backups without evidence that are looked into, and how long that may take.
#[derive(Clone, Copy)]
struct LookLimit {
    backups: usize,
    time: Duration,
}

/// The result of looking up the database of a backup.
enum DatabaseLookup {
    Answered(ArchivedDatabase),
    /// It took too long.
    Late,
    /// Enough others were looked into.
    LeftOut,
}

impl DatabaseLookup {
    fn of(looked_at: Result<Option<ArchivedDatabase>, RestoreError>) -> Self {
        match looked_at {
            Ok(Some(database)) => DatabaseLookup::Answered(database),
            Ok(None) => DatabaseLookup::Late,
            // Only what may pass is an error.
            Err(_) => DatabaseLookup::Answered(ArchivedDatabase::NotLookedInto),
        }
    }
}

/// The names of the databases of backups, in their order.
pub(super) struct DatabaseNames {
    pub names: Vec<Option<String>>,
    /// Number of backups of which that is not known, because they were not looked into.
    pub not_looked_into: usize,
}

impl BackupCatalog {
    /// The database of each of these backups, in their order; `None` for those that were not looked into before the
    /// deadline. Nobody can make this fail by an object that cannot be read: only an error that may pass is one.
    ///
    /// # Errors
    /// `download_failed`.
    pub(super) async fn databases_before(
        &self,
        deadline: Instant,
        backups: &[StoredObject],
    ) -> Result<Vec<Option<ArchivedDatabase>>, RestoreError> {
        // Boxed here: the compiler cannot tell that a stream of borrowing closures may change threads.
        let looks: Vec<BoxFuture<'_, _>> = backups
            .iter()
            .map(|b| self.database_before(deadline, b).boxed())
            .collect();
        let looked_at = futures::stream::iter(looks).buffered(AT_ONCE);
        looked_at.try_collect().await
    }

    /// The error for backups, newest first, that were not looked into in time, although one of them may be the wanted one.
    pub(super) fn not_looked_into(&self, backups: &[StoredObject]) -> RestoreError {
        let named = backups.iter().take(MAX_NAMED);
        let named: Vec<String> = named.map(|b| self.config.bucket.uri(&b.name)).collect();
        let more = if backups.len() > MAX_NAMED {
            ", …"
        } else {
            ""
        };
        let what = format!(
            "reading the databases of the newest backups took more than {LOOK_LIMIT:?}, and {} of them were not read ({}{more}): choose a backup by its name, or choose among fewer with --prefix",
            backups.len(),
            named.join(", ")
        );
        JobError::new(JobKind::Timeout, what).into()
    }

    /// The database of one backup; the answer is kept as long as this process runs.
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
                // The store rejects calls as invalid for reasons of its own.
                (R::InvalidRequest, _) if matches!(e, RestoreError::Validation(_)) => {
                    ArchivedDatabase::Cluster
                }
                (R::ArchiveUnsupported, _) if is_no_dump(&e) => ArchivedDatabase::NoDump(said(&e)),
                // What took too long once is not tried again and again.
                (R::ArchiveCorrupt | R::ArchiveUnsupported | R::Timeout, _) => {
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

    /// The database of a backup: by those of the reports that are about it or, where these name none, by its first bytes.
    /// What cannot be read now counts as not looked into.
    pub(crate) async fn database_of(
        &self,
        object: &StoredObject,
        reports: &[VerificationReport],
    ) -> ArchivedDatabase {
        match named_by_any(reports, object) {
            Some(named) => named,
            None => self
                .database_in(object)
                .await
                .unwrap_or(ArchivedDatabase::NotLookedInto),
        }
    }

    /// Backups of a set by database: by the evidence about them and, where that names none, by their first bytes. What
    /// cannot be looked into in time has no name.
    pub(super) async fn by_database(
        &self,
        backups: Vec<StoredObject>,
        reports: &[VerificationReport],
    ) -> Vec<DatabaseBackups> {
        let backups = without_companions(backups, |o| o);
        let limit = LookLimit {
            // A single one need not be told from others, unless its database may have been proven before.
            backups: if backups.len() < 2 && reports.is_empty() {
                0
            } else {
                UNKNOWN
            },
            time: LOOK_LIMIT,
        };
        let all: Vec<&StoredObject> = backups.iter().collect();
        let databases = self.known_or_read(&all, reports, limit).await;
        let is_late = |d: &&DatabaseLookup| matches!(d, DatabaseLookup::Late);
        let late = databases.iter().filter(is_late).count();
        if late > 0 {
            tracing::warn!(
                "reading the backups of a set took more than {LOOK_LIMIT:?}: the database of {late} of them is unknown"
            );
        }
        let databases = databases.into_iter().map(|d| match d {
            DatabaseLookup::Answered(database) => database,
            DatabaseLookup::Late | DatabaseLookup::LeftOut => ArchivedDatabase::NotLookedInto,
        });
        group(backups.into_iter().zip(databases).collect())
    }

    /// The name of each backup's database, in their order, as far as its evidence or its first bytes have one. The newest
    /// without evidence are looked into, for a short time.
    pub(super) async fn database_names(
        &self,
        backups: &[StoredObject],
        reports: &[VerificationReport],
    ) -> DatabaseNames {
        let mut places: Vec<usize> = (0..backups.len()).collect();
        places.sort_by(|a, b| backup::newer_first(&backups[*a], &backups[*b]));
        let newest: Vec<&StoredObject> = places.iter().map(|place| &backups[*place]).collect();
        let databases = self.known_or_read(&newest, reports, LISTING).await;
        let mut named = DatabaseNames {
            names: vec![None; backups.len()],
            not_looked_into: 0,
        };
        for (place, database) in places.into_iter().zip(databases) {
            match database {
                DatabaseLookup::Answered(database) => {
                    named.names[place] = database.name().map(str::to_owned);
                }
                DatabaseLookup::Late | DatabaseLookup::LeftOut => named.not_looked_into += 1,
            }
        }
        named
    }

    /// The database of each of these backups, in their order: as the evidence about it says or, of the first ones without
    /// any, as its own first bytes do.
    async fn known_or_read(
        &self,
        backups: &[&StoredObject],
        reports: &[VerificationReport],
        limit: LookLimit,
    ) -> Vec<DatabaseLookup> {
        let named = |r: &VerificationReport| {
            let (name, generation) = r.subject()?;
            Some(((name.to_owned(), generation.to_owned()), named_by(r)?))
        };
        let known: HashMap<(String, String), ArchivedDatabase> =
            reports.iter().filter_map(named).collect();
        let mut answers: Vec<DatabaseLookup> = Vec::with_capacity(backups.len());
        // There may be very many backups: only those that are looked into get a future.
        let mut unknown: Vec<usize> = vec![];
        for backup in backups {
            let key = (backup.name.clone(), backup.generation.to_string());
            let named = known.get(&key).cloned();
            if named.is_none() && unknown.len() < limit.backups {
                unknown.push(answers.len());
            }
            answers.push(named.map_or(DatabaseLookup::LeftOut, DatabaseLookup::Answered));
        }
        let deadline = Instant::now() + limit.time;
        let look = |place: &usize| {
            let read = self.database_before(deadline, backups[*place]);
            read.map(DatabaseLookup::of).boxed()
        };
        let looks: Vec<BoxFuture<'_, DatabaseLookup>> = unknown.iter().map(look).collect();
        let looked_at = futures::stream::iter(looks).buffered(AT_ONCE);
        let looked_at: Vec<DatabaseLookup> = looked_at.collect().await;
        for (place, answer) in unknown.into_iter().zip(looked_at) {
            answers[place] = answer;
        }
        answers
    }

    /// The database of a backup; `None` if it takes longer than to the deadline.
    ///
    /// # Errors
    /// `download_failed`.
    pub(super) async fn database_before(
        &self,
        deadline: Instant,
        backup: &StoredObject,
    ) -> Result<Option<ArchivedDatabase>, RestoreError> {
        let read = tokio::time::timeout_at(deadline, self.database_in(backup)).await;
        read.ok().transpose()
    }

    async fn look_into(&self, backup: &StoredObject) -> Result<ArchivedDatabase, RestoreError> {
        let store = self.store().await?;
        let named = |head: &[u8], format| database_in(head, format).map(ArchivedDatabase::Named);
        let pinned = match first_bytes(store.as_ref(), backup).await? {
            Some(head) => {
                // This one read answers for most backups.
                if let Some(named) = named(&head, Format::Custom) {
                    return Ok(named);
                }
                PinnedBackup::single(store, backup.clone())
            }
            None => backup::pin(store, &backup.name, Some(backup.generation), None).await?,
        };
        if let Some((first, format)) = begin_of(&pinned) {
            let head = read_range(pinned.store.as_ref(), first, HEADER).await?;
            if let Some(named) = named(&head, format) {
                return Ok(named);
            }
        }
        let name = self.open_for_name(&pinned).await?;
        Ok(name.map_or(ArchivedDatabase::Unnamed, ArchivedDatabase::Named))
    }

    /// The name of the database, from the archive opened as far as it has to be.
    async fn open_for_name(&self, pinned: &PinnedBackup) -> Result<Option<String>, RestoreError> {
        let name = |archive: &Archive| archive.header().database.clone();
        let name = self.open_within_budget(pinned, name).await?;
        Ok(name.filter(|d| !d.is_empty()))
    }

    /// What an archive says that is opened within the memory reserved for looks, one at a time. Little of it is decompressed.
    ///
    /// # Errors
    /// Those of opening it; `timeout`.
    pub(super) async fn open_within_budget<T: Send + 'static>(
        &self,
        pinned: &PinnedBackup,
        look: impl FnOnce(&Archive) -> T + Send + 'static,
    ) -> Result<T, RestoreError> {
        let opening = self.known_databases.opening.clone();
        let permit = opening.acquire_owned().await;
        let permit = permit.map_err(|e| RestoreError::internal(e.to_string()))?;
        let keys = self.keys()?;
        let limits = Limits {
            max_decompressed: most_decompressed(pinned.object.size),
            ..Limits::default()
        };
        let limits = limits.with_memory(self.config.archive_memory.min(NAME_BUDGET));
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let (source, options) = (Source::Object(pinned.clone()), self.download_options());
        let (origin, _) = backup::open(source, ReadHint::Beginning, options, Arc::default(), stop);
        // The thread holds the permit: it may end later than the wait for it.
        let open = move || {
            let _permit = permit;
            Ok::<_, RestoreError>(look(&Archive::open(origin, limits, &keys)?))
        };
        let limit = self.known_databases.open_limit;
        let late = |_| {
            let what = format!("{}: not opened within {limit:?}", pinned.uri());
            RestoreError::from(JobError::new(JobKind::Timeout, what))
        };
        let opened = tokio::time::timeout(limit, tokio::task::spawn_blocking(open)).await;
        let died = |e: tokio::task::JoinError| {
            RestoreError::internal(format!("the archive reader panicked: {e}"))
        };
        opened.map_err(late)?.map_err(died)?
    }

    /// The backups below `prefix` that are of this database, by name, what cannot be used there, and how many were not
    /// looked into: older ones, and those for which the time did not suffice.
    ///
    /// # Errors
    /// As [`BackupCatalog::list_backups`], and `download_failed` if backups cannot be looked into.
    pub(super) async fn backups_of_database(
        &self,
        prefix: &str,
        database: &str,
    ) -> Result<(Vec<StoredObject>, UnlistedPlaces, usize), RestoreError> {
        let (mut all, unlisted) = self.backups_below(prefix).await?;
        all.sort_by(backup::newer_first);
        let older = all.split_off(all.len().min(SEARCHED));
        let deadline = Instant::now() + LOOK_LIMIT;
        let databases = self.databases_before(deadline, &all).await?;
        let late = databases.iter().filter(|d| d.is_none()).count();
        let is_of = |d: &Option<ArchivedDatabase>| {
            d.as_ref().and_then(ArchivedDatabase::name) == Some(database)
        };
        let mut found: Vec<StoredObject> = all
            .into_iter()
            .zip(databases)
            .filter(|(_, d)| is_of(d))
            .map(|(object, _)| object)
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((found, unlisted, older.len() + late))
    }
}

/// The database that a report names, if it names one.
pub(super) fn named_by(report: &VerificationReport) -> Option<ArchivedDatabase> {
    if report.is_of_several() {
        return Some(ArchivedDatabase::Cluster);
    }
    report.database.clone().map(ArchivedDatabase::Named)
}

/// The database that the reports about this backup name, if one of them does.
fn named_by_any(reports: &[VerificationReport], object: &StoredObject) -> Option<ArchivedDatabase> {
    let mut of_it = reports.iter().filter(|r| is_of(r, object));
    of_it.find_map(named_by)
}

/// Bytes that may be decompressed of a backup of this size for a look into it.
fn most_decompressed(size: u64) -> u64 {
    let (least, most) = DECOMPRESSED;
    size.saturating_mul(EXPANSION).clamp(least, most)
}

/// Whether it is not a limit of this worker.
fn is_no_dump(e: &RestoreError) -> bool {
    matches!(e, RestoreError::Validation(e) if e.kind() == ValidationKind::ArchiveUnsupported)
}

/// The first bytes of a backup that is one object; `None` of a directory dump and of pieces.
async fn first_bytes(
    store: &dyn BackupStore,
    backup: &StoredObject,
) -> Result<Option<Vec<u8>>, StorageError> {
    if backup.name.ends_with('/') || backup.members.is_some() {
        return Ok(None);
    }
    match read_range(store, backup, HEADER).await {
        // The common name of pieces.
        Err(e) if e.reason() == R::BackupNotFound => Ok(None),
        head => head.map(Some),
    }
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::archived_database::KnownDatabases;
    use super::*;
    use crate::catalog::folder_catalog::{archive_of, catalog_of};
    use crate::store::faulty::{Call, StoreFault};

    /// Text of so many bytes of comments.
    fn comments(bytes: usize) -> Vec<u8> {
        let begin = b"--\n-- PostgreSQL database dump\n--\n\n";
        let line = format!("-- {}\n", "x".repeat(1_000));
        [&begin[..], &line.as_bytes().repeat(bytes / 1_000)].concat()
    }

    /// The same, compressed twice: it is small.
    fn bomb(bytes: usize) -> Vec<u8> {
        let gzip = |bytes: &[u8]| {
            let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            w.write_all(bytes).unwrap();
            w.finish().unwrap()
        };
        gzip(&gzip(&comments(bytes)))
    }

    async fn object(catalog: &BackupCatalog, name: &str) -> StoredObject {
        catalog
            .store()
            .await
            .unwrap()
            .stat(name, None)
            .await
            .unwrap()
    }

    /// Nobody can make a worker decompress for hours to learn what a file is.
    #[tokio::test]
    async fn little_is_decompressed_for_a_name() {
        let bomb = bomb(72 << 20);
        let (_folder, _store, catalog) = catalog_of(&[("x.sql.gz", &bomb)], &[]).await;
        let object = object(&catalog, "x.sql.gz").await;
        let database = catalog.database_in(&object).await.unwrap();
        let ArchivedDatabase::Unreadable(why) = &database else {
            panic!("{database:?}");
        };
        assert!(why.contains("decompresses to more than"), "{why}");
        assert_eq!(catalog.known_databases.of(&object), Some(database));
        // What is stored is not limited in the same way.
        assert_eq!(most_decompressed(1 << 30), 4 << 30);
        assert_eq!(most_decompressed(100 << 20), 800 << 20);
    }

    /// A bucket may hold very many objects, and a listing looks into hundreds of them.
    #[tokio::test]
    async fn a_look_into_one_object_lists_nothing() {
        let text = comments(1 << 10);
        let files = [("x-aab.sql", text.as_slice()), ("x-aaa.dump", b"")];
        let (_folder, store, catalog) = catalog_of(&files, &[]).await;
        for (name, _) in files {
            let object = object(&catalog, name).await;
            catalog.database_in(&object).await.unwrap();
        }
        assert_eq!(store.longest_listing(), 0);
    }

    /// A file that takes too long costs that time once, and its thread ends, whether it has to be decompressed or not.
    #[tokio::test]
    async fn a_timeout_is_remembered_and_ends_the_reader() {
        let (packed, plain) = (bomb(32 << 20), comments(32 << 20));
        for (name, bytes) in [("x.sql.gz", &packed), ("x.sql", &plain)] {
            let (_folder, _store, mut catalog) = catalog_of(&[(name, bytes)], &[]).await;
            catalog.known_databases = Arc::new(KnownDatabases::new(Duration::ZERO));
            let opening = catalog.known_databases.opening.clone();
            let all = u32::try_from(opening.available_permits()).unwrap();
            let object = object(&catalog, name).await;
            let database = catalog.database_in(&object).await.unwrap();
            let ArchivedDatabase::Unreadable(why) = &database else {
                panic!("{database:?}");
            };
            assert!(why.contains("not opened within"), "{why}");
            assert_eq!(catalog.known_databases.of(&object), Some(database));
            let ended = tokio::time::timeout(Duration::from_secs(30), opening.acquire_many(all));
            assert!(ended.await.is_ok(), "the thread goes on");
        }
    }

    /// A thread that nobody waits for any more keeps its permit until it ends: it takes memory as long as it runs.
    #[tokio::test]
    async fn a_reader_keeps_its_permit_until_it_ends() {
        let text = comments(1 << 10);
        let (_folder, store, catalog) = catalog_of(&[("x.sql", &text)], &[]).await;
        let opened = backup::pin(catalog.store().await.unwrap(), "x.sql", None, None);
        let pinned = opened.await.unwrap();
        store.fail(Call::Read, "x.sql", StoreFault::Stall, 9);
        let opening = catalog.known_databases.opening.clone();
        let all = opening.available_permits();
        let look = catalog.open_for_name(&pinned);
        let looked_at = tokio::time::timeout(Duration::from_millis(10), look).await;
        assert!(looked_at.is_err());
        assert_eq!(opening.available_permits(), all - 1);
        let wanted = u32::try_from(all).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), opening.acquire_many(wanted));
        assert!(ended.await.is_ok(), "the thread goes on");
    }

    /// A set with many backups that cannot be looked into does not keep the schedule waiting.
    #[tokio::test(start_paused = true)]
    async fn the_backups_of_a_set_are_looked_into_within_a_time_limit() {
        let app = archive_of("app");
        let names: Vec<String> = (0..80).map(|n| format!("x{n}.dump")).collect();
        let mut files: Vec<(&str, &[u8])> =
            names.iter().map(|n| (n.as_str(), app.as_slice())).collect();
        files.push(("good.dump", &app));
        let (_folder, store, catalog) = catalog_of(&files, &[]).await;
        let mut backups = Vec::new();
        for (name, _) in &files {
            backups.push(object(&catalog, name).await);
        }
        catalog.database_in(&backups[80]).await.unwrap();
        store.fail(Call::Read, "x", StoreFault::Stall, 9_999);
        let begin = Instant::now();
        let groups = catalog.by_database(backups, &[]).await;
        let took = begin.elapsed();
        assert!(took <= LOOK_LIMIT + Duration::from_secs(1), "{took:?}");
        // What is known is still named, and nothing is left out.
        let app = BackupOrigin::new(Some("app".into()), "good.dump");
        assert!(groups.iter().any(|g| g.origin == app));
        let all: usize = groups.iter().map(|g| g.backups.len()).sum();
        assert_eq!(all, 81);
    }
}

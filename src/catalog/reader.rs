//! Opens backups: pins one generation, starts the download and reads as far as the table of contents.

use crate::job::Generation;
use pgdump_archive::Crc32c;
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::backup_catalog::BackupCatalog;
use crate::backup::{
    self, Backup, DownloadOptions, IntegrityCheck, PinnedBackup, ReadHint, Source, UnlistedPlaces,
};
use crate::config::Location;
use crate::error::{
    JobError, JobKind, RestoreError, StorageError, StorageKind, ValidationError, ValidationKind,
};
use crate::job::{BackupRef, LATEST, LATEST_PROVEN, ResultBackup, VerifyJob};
use crate::policy::{Policy, Trigger};
use crate::progress::Progress;
use crate::store::{BackupStore, StoredObject, read_range};
use pgdump_archive::{
    self, Archive, ArchiveSource, CutOff, DecryptionKeys, Limits, ReopenableSource,
};

/// Largest globals file that is read, in bytes.
const MAX_GLOBALS: u64 = 16 << 20;

/// Bytes at the end of a backup that show whether it is cut off: what somebody may have added to SQL text, too.
const END_BYTES: u64 = 64 << 10;
/// Largest table of contents that is looked for there, in bytes.
const MAX_TRAILER: u64 = 4 << 20;

/// A backup to read. Of a dump of a whole cluster, `database` is the one to read.
pub(crate) struct WantedBackup {
    pub source: Source,
    pub database: Option<String>,
}

/// What a result says of a backup.
pub(crate) fn describe(pinned: &PinnedBackup) -> ResultBackup {
    ResultBackup {
        name: Some(pinned.object.name.clone()),
        uri: Some(pinned.uri()),
        generation: Some(pinned.object.generation.to_string()),
        size: Some(pinned.object.size.to_string()),
        crc32c: pinned.expected_crc32c.map(backup::encode_crc32c),
    }
}

/// The same error of a store as one about the named object.
fn denied_as_object(e: RestoreError) -> RestoreError {
    match e {
        RestoreError::Storage(e) => backup::of_object(e).into(),
        other => other,
    }
}

/// The same error; if there is no such backup, with how to bring it back where the store still keeps it.
async fn or_deleted(
    store: &dyn BackupStore,
    (name, generation): (&str, Option<Generation>),
    e: RestoreError,
) -> RestoreError {
    match e {
        RestoreError::Storage(e) if e.kind() == StorageKind::NotFound => {
            match store.find_deleted(name, generation).await {
                Some(how) => e.followed_by(&format!("; {how}")).into(),
                None => e.into(),
            }
        }
        other => other,
    }
}

impl BackupCatalog {
    /// The store of the configured bucket.
    ///
    /// # Errors
    /// `access_denied` where there is no client for it.
    pub async fn store(&self) -> Result<Arc<dyn BackupStore>, RestoreError> {
        Ok(self.stores.at(&self.config.bucket).await?)
    }

    /// The store at a location.
    ///
    /// # Errors
    /// As [`BackupCatalog::store`].
    pub(crate) async fn store_at(
        &self,
        place: &Location,
    ) -> Result<Arc<dyn BackupStore>, RestoreError> {
        Ok(self.stores.at(place).await?)
    }

    /// The same below `prefix`.
    ///
    /// # Errors
    /// `StorageError` if the listing fails.
    pub async fn list_backups(&self, prefix: &str) -> Result<Vec<Backup>, RestoreError> {
        let (backups, _) = self.backups_below(prefix).await?;
        Ok(backups.into_iter().map(Backup::from).collect())
    }

    /// The same as objects, and what cannot be used there.
    pub(super) async fn backups_below(
        &self,
        prefix: &str,
    ) -> Result<(Vec<StoredObject>, UnlistedPlaces), RestoreError> {
        let store = self.store().await?;
        let objects = backup::list_objects(store.as_ref(), prefix, true).await;
        let mut objects = objects.map_err(backup::of_bucket)?;
        let unlisted = UnlistedPlaces::take_from(store.as_ref(), &mut objects);
        let backups = backup::backups_of(store.as_ref(), objects, self.manifest()).await?;
        Ok((backups, unlisted))
    }

    /// Checks that BACKUP_BUCKET exists and that this account may list it.
    ///
    /// # Errors
    /// `backup_not_found` if it does not exist, and errors of the store.
    pub async fn check_bucket(&self) -> Result<(), RestoreError> {
        let store = self.store().await?;
        Ok(store.check_exists().await.map_err(backup::of_bucket)?)
    }

    /// Statements that make the roles of the globals file beside the backup, if there is to be one.
    pub(crate) async fn globals(
        &self,
        policy: &Policy,
        backup: Option<&PinnedBackup>,
        stop: &CancellationToken,
    ) -> Result<BTreeMap<String, String>, RestoreError> {
        let (Some(name), Some(backup)) = (&policy.globals, backup) else {
            return Ok(BTreeMap::new());
        };
        let own = backup.object.name.trim_end_matches('/');
        let folder = own.rfind('/').map_or("", |n| &own[..=n]);
        let pinned =
            backup::pin(backup.store.clone(), &format!("{folder}{name}"), None, None).await?;
        let (origin, expected) = backup::open(
            Source::Object(pinned),
            ReadHint::Whole,
            self.download_options(),
            Arc::default(),
            stop.clone(),
        );
        let keys = self.keys()?;
        let text = tokio::task::spawn_blocking(move || {
            pgdump_archive::read_text(origin, MAX_GLOBALS, &keys)
        });
        let text = text
            .await
            .map_err(|e| RestoreError::internal(format!("the reader died: {e}")))??;
        expected.check()?;
        Ok(pgdump_restore::roles_of(&text, policy.role_passwords))
    }

    /// The object whose arrival announces a directory dump, and which is no backup itself.
    pub(super) fn manifest(&self) -> Option<&str> {
        Some(self.config.verify.manifest.as_str())
    }

    pub(crate) fn download_options(&self) -> DownloadOptions {
        DownloadOptions {
            stall: self.config.stall_timeout,
            budget: self.config.retry_budget,
            sha256: false,
        }
    }

    /// Bounds on what an archive may make this worker allocate.
    pub(crate) fn archive_limits(&self) -> Limits {
        Limits::default().with_memory(self.config.archive_memory)
    }

    pub(crate) fn keys(&self) -> Result<DecryptionKeys, RestoreError> {
        use secrecy::ExposeSecret;
        let Some(text) = &self.config.age_identity else {
            return Ok(DecryptionKeys::default());
        };
        let wrong =
            |what| JobError::new(JobKind::KeyInvalid, format!("BACKUP_AGE_IDENTITY: {what}"));
        DecryptionKeys::parse(text.expose_secret()).map_err(|what| wrong(what).into())
    }

    /// Where a backup is kept; `None` for standard input.
    pub(super) fn place_of<'a>(&'a self, wanted: &'a BackupRef) -> Option<&'a Location> {
        match wanted {
            BackupRef::Stdin => None,
            BackupRef::Named { place, .. } => Some(place.as_ref().unwrap_or(&self.config.bucket)),
            BackupRef::Latest(_) => Some(&self.config.bucket),
        }
    }

    /// What is asked for, for people; `None` for standard input.
    pub(crate) fn asked(&self, wanted: &BackupRef) -> Option<String> {
        let place = self.place_of(wanted)?;
        match wanted {
            BackupRef::Stdin => None,
            BackupRef::Named { name, .. } => Some(place.uri(name)),
            BackupRef::Latest(latest) => {
                let word = if latest.is_proven {
                    LATEST_PROVEN
                } else {
                    LATEST
                };
                Some(format!("{word} in {}", place.uri(&latest.prefix)))
            }
        }
    }

    /// Opens the store of a backup while the target is claimed.
    pub(crate) fn open_ahead(&self, wanted: &BackupRef) {
        if let Some(place) = self.place_of(wanted) {
            self.stores.open_ahead(place.clone());
        }
    }

    /// Finds and pins a backup; `None` for standard input.
    ///
    /// # Errors
    /// `backup_not_found`, `access_denied`, `download_failed`, `checksum_mismatch`; `invalid_request` for a generation or
    /// checksum of what is not named, and for `latest` among backups of several databases.
    pub async fn pin(
        &self,
        wanted: &BackupRef,
        generation: Option<Generation>,
        crc32c: Option<Crc32c>,
    ) -> Result<Option<PinnedBackup>, RestoreError> {
        if !matches!(wanted, BackupRef::Named { .. }) && (generation.is_some() || crc32c.is_some())
        {
            let what = "generation and crc32c belong to one object: name it, instead of latest, latest-proven or standard input";
            return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
        }
        let Some(place) = self.place_of(wanted) else {
            return Ok(None);
        };
        let store = self.stores.at(place).await?;
        let pinned = match wanted {
            BackupRef::Stdin => return Ok(None),
            BackupRef::Named { name, .. } => {
                match backup::pin(store.clone(), name, generation, crc32c).await {
                    Ok(pinned) => pinned,
                    Err(e) => {
                        let e = or_deleted(store.as_ref(), (name.as_str(), generation), e).await;
                        return Err(denied_as_object(e));
                    }
                }
            }
            BackupRef::Latest(wanted) => self.pin_latest_whole(wanted).await?,
        };
        Ok(Some(pinned))
    }

    /// Pins the backup of a verification. A notification announces one object, which may be a piece of the backup.
    pub(crate) async fn pin_job(
        &self,
        job: &VerifyJob,
        crc32c: Option<Crc32c>,
    ) -> Result<Option<PinnedBackup>, RestoreError> {
        let pinned = self.pin_unchecked(job, crc32c).await?;
        if let Some(pinned) = &pinned {
            if job.trigger == Trigger::Notification && self.is_excluded(pinned) {
                let what = format!(
                    "{}: VERIFY_PREFIX or VERIFY_SUFFIX excludes it, and it is not a piece of a backup",
                    pinned.uri()
                );
                return Err(StorageError::new(StorageKind::NotFound, what).into());
            }
            pinned.check_pieces()?;
        }
        Ok(pinned)
    }

    /// The same of an object that may turn out to be none, or a piece of which others are missing.
    pub(super) async fn pin_unchecked(
        &self,
        job: &VerifyJob,
        crc32c: Option<Crc32c>,
    ) -> Result<Option<PinnedBackup>, RestoreError> {
        match (&job.backup, job.trigger, self.place_of(&job.backup)) {
            (BackupRef::Named { name, .. }, Trigger::Notification, Some(place)) => {
                let store = self.stores.at(place).await?;
                let pinned = backup::pin_announced(store, name, job.generation, crc32c).await;
                Ok(Some(pinned.map_err(denied_as_object)?))
            }
            _ => self.pin(&job.backup, job.generation, crc32c).await,
        }
    }

    /// Whether an object is not looked after: it might have been a piece of a backup that is.
    pub(super) fn is_excluded(&self, pinned: &PinnedBackup) -> bool {
        let name = &pinned.object.name;
        pinned.members.is_empty() && backup::has_extension(name) && !self.is_backup(name)
    }

    /// Looks at a file of this machine before a server is asked for anything: whether it can be read, and begins like a
    /// backup.
    ///
    /// # Errors
    /// As [`BackupCatalog::open`].
    pub(crate) async fn look_at_file(
        &self,
        wanted: &BackupRef,
        generation: Option<Generation>,
        stop: CancellationToken,
    ) -> Result<(), RestoreError> {
        let is_named = matches!(wanted, BackupRef::Named { .. });
        let is_file = matches!(self.place_of(wanted), Some(Location::Folder(_)));
        if !is_named || !is_file {
            return Ok(());
        }
        let Some(pinned) = self.pin(wanted, generation, None).await? else {
            return Ok(());
        };
        // Of several files, the first one says little.
        if !pinned.members.is_empty() {
            return Ok(());
        }
        let head = backup::head_of(pinned.store.as_ref(), &pinned.object).await;
        if pgdump_archive::is_recognized(&head.map_err(backup::of_object)?) {
            return Ok(());
        }
        // The reader says what else it is.
        let source = Source::Object(pinned);
        let opened = self.read(source, ReadHint::Beginning, Arc::default(), stop);
        opened.await.map(drop)
    }

    /// Opens a backup as far as its table of contents; stops reading when `stop` is cancelled.
    ///
    /// # Errors
    /// As [`RestoreManager::pin`], `archive_unsupported`, `archive_corrupt`.
    pub async fn open(
        &self,
        wanted: &BackupRef,
        stop: CancellationToken,
    ) -> Result<(Option<PinnedBackup>, Archive), RestoreError> {
        self.open_database(wanted, None, stop).await
    }

    /// The same of one database of a cluster's dump.
    ///
    /// # Errors
    /// As [`RestoreManager::open`], `invalid_request` where the backup is of another database.
    pub async fn open_database(
        &self,
        wanted: &BackupRef,
        database: Option<&str>,
        stop: CancellationToken,
    ) -> Result<(Option<PinnedBackup>, Archive), RestoreError> {
        self.open_generation(wanted, None, database, stop).await
    }

    /// The same of one generation of the object.
    ///
    /// # Errors
    /// As [`RestoreManager::open_database`].
    pub async fn open_generation(
        &self,
        wanted: &BackupRef,
        generation: Option<Generation>,
        database: Option<&str>,
        stop: CancellationToken,
    ) -> Result<(Option<PinnedBackup>, Archive), RestoreError> {
        let pinned = self.pin(wanted, generation, None).await?;
        let source = pinned.clone().map_or(Source::Stdin, Source::Object);
        let from = WantedBackup {
            source,
            database: database.map(str::to_owned),
        };
        let (mut archive, _) = self
            .read_database(from, ReadHint::Beginning, Arc::default(), stop)
            .await?;
        // The end of a cluster's dump is another database's.
        if database.is_none() {
            self.look_ahead(&mut archive, pinned.as_ref()).await;
        }
        archive.decode_texts_for_display();
        Ok((pinned, archive))
    }

    /// What stands at the end of SQL text that is as it was written, and in UTF-8: a small part, read by
    /// itself. It only helps to fail early, so nothing is said where it cannot be had.
    pub(crate) async fn look_ahead(&self, archive: &mut Archive, pinned: Option<&PinnedBackup>) {
        let Some(p) = pinned.filter(|p| p.members.is_empty()) else {
            return;
        };
        if !archive.is_script()
            || !archive.header().filters.is_empty()
            || !archive.encoding().is_utf8()
        {
            return;
        }
        let size = p.object.size;
        let range = size.saturating_sub(pgdump_restore::TAIL)..size;
        let read = read_range(p.store.as_ref(), &p.object, range);
        match tokio::time::timeout(self.config.stall_timeout, read).await {
            Ok(Ok(tail)) => archive.add_expected_entries(pgdump_restore::roles_at_end(&tail)),
            Ok(Err(e)) => {
                tracing::debug!(
                    error = crate::error::report(&e),
                    "the end of the text was not read"
                )
            }
            Err(_) => tracing::debug!("the end of the text was not read in time"),
        }
    }

    /// Reads the end of a backup that is one object, a small part, by itself: whether it shows that the backup is cut off.
    /// The offsets of the data may be there, too. `None` also where it cannot be had.
    pub(crate) async fn look_at_end(
        &self,
        archive: &mut Archive,
        pinned: Option<&PinnedBackup>,
    ) -> Option<CutOff> {
        let p = pinned.filter(|p| p.members.is_empty())?;
        let size = p.object.size;
        let trailer = archive.trailer_bytes().filter(|n| *n <= MAX_TRAILER);
        let length = trailer.map_or(END_BYTES, |n| n.max(END_BYTES));
        let range = size.saturating_sub(length)..size;
        let read = read_range(p.store.as_ref(), &p.object, range);
        let tail = tokio::time::timeout(self.config.stall_timeout, read).await;
        let tail = tail.ok()?.ok()?;
        if let Some(n) = trailer {
            let begin = tail.len().saturating_sub(usize::try_from(n).unwrap_or(0));
            archive.read_trailer(&tail[begin..]);
        }
        archive.cut_off(size, &tail)
    }

    /// Starts the download and reads it as far as the table of contents.
    pub(crate) async fn read(
        &self,
        source: Source,
        reach: ReadHint,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<(Archive, IntegrityCheck), RestoreError> {
        self.read_database(
            WantedBackup {
                source,
                database: None,
            },
            reach,
            progress,
            stop,
        )
        .await
    }

    pub(crate) async fn read_database(
        &self,
        WantedBackup { source, database }: WantedBackup,
        reach: ReadHint,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<(Archive, IntegrityCheck), RestoreError> {
        let (origin, expected) =
            backup::open(source, reach, self.download_options(), progress, stop);
        Ok((self.open_origin(origin, database).await?, expected))
    }

    /// The same for samples: nothing is checked in the end. Also how to open the bytes at another place, if they are those of
    /// one stream that can be read again.
    pub(crate) async fn read_reopenable(
        &self,
        WantedBackup { source, database }: WantedBackup,
        reach: ReadHint,
        stop: CancellationToken,
    ) -> Result<(Archive, Option<Arc<dyn ReopenableSource>>), RestoreError> {
        let (origin, _) =
            backup::open(source, reach, self.download_options(), Arc::default(), stop);
        let reopen = match &origin {
            ArchiveSource::Stream { reopen, .. } => reopen.clone(),
            ArchiveSource::Directory(_) => None,
        };
        Ok((self.open_origin(origin, database).await?, reopen))
    }

    async fn open_origin(
        &self,
        origin: ArchiveSource,
        database: Option<String>,
    ) -> Result<Archive, RestoreError> {
        let (keys, bounds) = (self.keys()?, self.archive_limits());
        let open = move || Archive::open_database(origin, bounds, &keys, database.as_deref());
        let archive = tokio::task::spawn_blocking(open)
            .await
            .map_err(|e| RestoreError::internal(format!("the archive reader panicked: {e}")))??;
        Ok(archive)
    }
}

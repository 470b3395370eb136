//! Backups: listing, selection, pinning, and the download as one ordered stream of bytes whose CRC32C is
//! computed as it is read.

mod checked_read;
mod download;
mod generations;
mod members;
mod ordered_parts;
mod pieces;
mod ranges;
mod read_ahead;
mod resuming_range;
mod rotation;
mod stream_tuner;
mod unlisted;

use crate::job::Generation;
use pgdump_archive::Crc32c;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use base64::Engine;

use crate::error::{
    FailureReason as R, JobError, JobKind, RestoreError, StorageError, StorageKind,
    ValidationError, ValidationKind,
};
use crate::store::{BackupStore, StoredObject};
use pgdump_archive::member_name;

use members::members_listed;
use pieces::Series;
use rotation::{UnclearSeries, sort_by_content};

pub use checked_read::{IntegrityCheck, ProvenBytes, open};
pub(crate) use download::of_object;
pub use download::{Download, DownloadOptions, ReadHint, Source};
pub(crate) use generations::{FormerBackups, formers_below, newest_former_first};
pub use members::encode_crc32c;
pub(crate) use members::with_checksums;
pub use pieces::{has_extension, is_first_piece, whole_of};
pub use ranges::{open_by_blocks, open_by_offsets};
pub(crate) use rotation::head_of;
pub use unlisted::UnlistedPlaces;

/// A backup as `list_available_backups` gives it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Backup {
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub created: jiff::Timestamp,
    /// Base64 of the big-endian CRC32C of the object.
    pub checksum: Option<String>,
    /// An int64 as a string.
    pub generation: String,
}

impl From<StoredObject> for Backup {
    fn from(o: StoredObject) -> Self {
        Backup {
            name: o.name,
            size: o.size,
            created: o.created,
            checksum: o.crc32c.map(encode_crc32c),
            generation: o.generation.to_string(),
        }
    }
}

/// A backup with a fixed generation: only the bytes of that generation are ever read.
#[derive(Clone)]
pub struct PinnedBackup {
    pub store: Arc<dyn BackupStore>,
    /// For a directory dump: its name with the slash, the total size, the generation of `toc.dat`. For
    /// pieces: their common name, the total size, the newest generation.
    pub object: StoredObject,
    /// The objects of a directory dump, or the pieces of a split file in order; empty for a single object.
    pub members: Vec<StoredObject>,
    /// The expected CRC32C, from the store or from the request.
    pub expected_crc32c: Option<Crc32c>,
    /// What to know about how it was chosen.
    pub notes: Vec<String>,
    /// What is known of it that may explain why it cannot be read.
    advice: Option<String>,
    /// The file of which it looks like a piece, where the pieces before it are missing.
    lacks_pieces_of: Option<String>,
}

impl PinnedBackup {
    /// One object, as it is.
    pub(crate) fn single(store: Arc<dyn BackupStore>, object: StoredObject) -> Self {
        let expected_crc32c = object.crc32c;
        PinnedBackup {
            store,
            object,
            members: vec![],
            expected_crc32c,
            notes: vec![],
            advice: None,
            lacks_pieces_of: None,
        }
    }

    pub fn uri(&self) -> String {
        self.store.uri(&self.object.name)
    }

    pub fn is_folder(&self) -> bool {
        self.object.name.ends_with('/')
    }

    /// Whether a checksum of every byte is known before any is read.
    pub fn has_checksums(&self) -> bool {
        let members = self.object.members.as_ref();
        self.expected_crc32c.is_some() || members.is_some_and(|m| m.crc32c.is_some())
    }

    fn is_generation(&self, wanted: Option<Generation>) -> bool {
        wanted.is_none_or(|g| g == self.object.generation)
    }

    /// Of a directory dump of which another generation was asked.
    fn generation_is_gone(&self) -> RestoreError {
        let what = "the requested generation of its toc.dat no longer exists";
        not_found(self.store.as_ref(), &self.object.name, what)
    }

    /// Refuses an object that looks like a piece of something, as one whose other pieces are still to come.
    ///
    /// # Errors
    /// `archive_corrupt`.
    pub fn check_pieces(&self) -> Result<(), RestoreError> {
        let Some(whole) = &self.lacks_pieces_of else {
            return Ok(());
        };
        let what = format!(
            "{}: it looks like a piece of {whole}, and pieces before it are missing",
            self.uri()
        );
        Err(JobError::new(JobKind::PieceMissing, what).into())
    }

    /// One of its objects as a pinned backup.
    fn member(&self, object: &StoredObject) -> PinnedBackup {
        Self::single(self.store.clone(), object.clone())
    }
}

/// Decodes a CRC32C from base64 of its four big-endian bytes.
///
/// # Errors
/// `invalid_request` for anything else.
pub fn decode_crc32c(text: &str) -> Result<Crc32c, RestoreError> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
    let bytes = bytes.and_then(|b| <[u8; 4]>::try_from(b).ok());
    bytes.map(|b| Crc32c(u32::from_be_bytes(b))).ok_or_else(|| {
        ValidationError::new(
            ValidationKind::InvalidRequest,
            "crc32c: must be base64 of four bytes",
        )
        .into()
    })
}

/// A backup found in a listing.
#[derive(Clone)]
pub(crate) struct FoundBackup {
    pub(crate) object: StoredObject,
    /// The pieces, if it is a split file.
    series: Option<Series>,
    /// The members of a directory dump that may not be live any more.
    members: Vec<StoredObject>,
}

impl FoundBackup {
    /// One object, or a directory dump as it is now.
    fn single(object: StoredObject) -> Self {
        FoundBackup {
            object,
            series: None,
            members: vec![],
        }
    }
}

/// The backups of a listing.
struct FoundBackups {
    /// Objects and directory dumps.
    single: Vec<StoredObject>,
    /// Split files.
    series: Vec<Series>,
    /// What may be a split file, while each of its files counts as one of its own.
    unclear: Vec<UnclearSeries>,
}

/// The objects below `prefix` that may be backups: without evidence, of which there is several times as much.
/// `with_checksums`: also where the store would have to compute them.
///
/// # Errors
/// As [`BackupStore::list`].
pub(crate) async fn list_objects(
    store: &dyn BackupStore,
    prefix: &str,
    with_checksums: bool,
) -> Result<Vec<StoredObject>, StorageError> {
    let is_wanted = |name: &str| !crate::proof::is_ours(name);
    if with_checksums {
        store.list_where(prefix, is_wanted).await
    } else {
        store.members_where(prefix, is_wanted).await
    }
}

/// An error of a listing at BACKUP_BUCKET, with what to check if there is no such place.
pub(crate) fn of_bucket(e: StorageError) -> StorageError {
    match e.kind() {
        StorageKind::NotFound => e.followed_by("; check BACKUP_BUCKET"),
        _ => e,
    }
}

/// Objects as backups: those of one directory dump are one, with the directory's name, and so are those that certainly
/// are the pieces of one file. Evidence of ours is none, nor is the `manifest` that announces a directory dump.
///
/// # Errors
/// Errors of the store: files that are numbered like pieces are read to see whether they are.
pub async fn backups_of(
    store: &dyn BackupStore,
    objects: Vec<StoredObject>,
    manifest: Option<&str>,
) -> Result<Vec<StoredObject>, StorageError> {
    let found = find_backups(store, objects, manifest).await?;
    let mut all = found.single;
    all.extend(found.series.iter().map(Series::whole));
    all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

async fn find_backups(
    store: &dyn BackupStore,
    objects: Vec<StoredObject>,
    manifest: Option<&str>,
) -> Result<FoundBackups, StorageError> {
    let names = pieces::names_in_use(&objects);
    let (folders, files) = split_folders(objects, manifest);
    let (candidates, mut single) = pieces::candidates(files);
    let sorted = sort_by_content(store, candidates, &single).await?;
    let (series, nameless) = pieces::named(sorted.series, names);
    single.extend(folders.into_iter().chain(sorted.others).chain(nameless));
    Ok(FoundBackups {
        single,
        series,
        unclear: sorted.unclear,
    })
}

/// Directory dumps, each as one object, and the files that belong to none. A manifest is neither, also where it announces a
/// dump that is not there.
fn split_folders(
    mut objects: Vec<StoredObject>,
    manifest: Option<&str>,
) -> (Vec<StoredObject>, Vec<StoredObject>) {
    // Consoles make an object with a folder's name, to show the folder.
    objects.retain(|o| !crate::proof::is_ours(&o.name) && !o.name.ends_with('/') && !o.is_unlisted);
    let is_toc =
        |o: &StoredObject| !folder_of(&o.name).is_empty() && member_name::is_toc(file_of(&o.name));
    let folders: HashSet<String> = objects
        .iter()
        .filter(|o| is_toc(o))
        .map(|o| folder_of(&o.name).to_owned())
        .collect();
    // The table of contents is the dump itself.
    let manifest = manifest.filter(|m| !member_name::is_toc(m));
    let mut of_folder: BTreeMap<String, Vec<StoredObject>> = BTreeMap::new();
    let others = objects.into_iter().filter_map(|o| {
        let (folder, file) = (folder_of(&o.name), file_of(&o.name));
        let is_in_dump = folders.contains(folder);
        if is_in_dump && member_name::may_hold_data(file) {
            of_folder.entry(folder.to_owned()).or_default().push(o);
            return None;
        }
        (manifest != Some(file)).then_some(o)
    });
    let others = others.collect();
    let folders = of_folder
        .into_iter()
        .filter_map(|(name, members)| whole(name, &members));
    (folders.collect(), others)
}

/// The folder of an object, with its slash.
fn folder_of(name: &str) -> &str {
    &name[..name.rfind('/').map_or(0, |n| n + 1)]
}

fn file_of(name: &str) -> &str {
    &name[folder_of(name).len()..]
}

/// A directory dump as one object; `None` without its table of contents.
fn whole(name: String, members: &[StoredObject]) -> Option<StoredObject> {
    let toc = members
        .iter()
        .find(|m| member_name::is_toc(file_of(&m.name)))?;
    let created = members.iter().map(|m| m.created).max()?;
    let size = members.iter().map(|m| m.size).sum();
    Some(StoredObject {
        name,
        size,
        created,
        crc32c: None,
        generation: toc.generation,
        members: Some(Box::new(members_listed(members))),
        is_unlisted: false,
        obstacle: None,
    })
}

/// The objects directly in a folder, without subfolders.
///
/// # Errors
/// Errors of the store; `access_denied` also for a file of which only the name can be read, `source_not_allowed` for a link
/// that leads outside, and `invalid_request` for a name that is not UTF-8.
pub async fn files_of(
    store: &dyn BackupStore,
    folder: &str,
) -> Result<Vec<StoredObject>, StorageError> {
    files_where(store, folder, |_| true).await
}

/// Those whose own name is `wanted`: of the others, there may be more than a listing holds.
async fn files_where(
    store: &dyn BackupStore,
    folder: &str,
    wanted: fn(&str) -> bool,
) -> Result<Vec<StoredObject>, StorageError> {
    let own = folder.to_owned();
    let is_wanted = move |name: &str| {
        let file = file_of(name);
        folder_of(name) == own && !file.is_empty() && wanted(file)
    };
    let is_kept = is_wanted.clone();
    let mut files = store.members_named(folder, Arc::new(is_kept)).await?;
    files.retain(|m| is_wanted(&m.name));
    match files.iter().find(|m| m.is_unlisted) {
        Some(file) => Err(unlisted::unusable(store, file)),
        None => Ok(files),
    }
}

fn not_found(store: &dyn BackupStore, name: &str, what: &str) -> RestoreError {
    StorageError::new(
        StorageKind::NotFound,
        format!("{}: {what}", store.uri(name)),
    )
    .into()
}

/// Pins one named backup: the object of that name alone, whatever lies beside it. Where there is none, a name that ends
/// in `/` (or would) is a directory dump, and the common name of pieces is the file that they are of.
///
/// # Errors
/// `backup_not_found`, `archive_corrupt` if a piece is missing, `checksum_mismatch` if the store's CRC32C
/// differs from the request's, `invalid_request` for a CRC32C of a directory dump, and errors of the store.
pub async fn pin(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
    crc32c: Option<Crc32c>,
) -> Result<PinnedBackup, RestoreError> {
    if name.ends_with('/') {
        return without_crc32c(pin_folder(store, name, generation).await?, crc32c);
    }
    let object = match store.stat(name, generation).await {
        Err(e) if e.reason() == R::BackupNotFound => {
            // It may be the name of a directory without its slash, or of a split file.
            let folder = find_folder(&store, &format!("{name}/")).await?;
            let (folder, other) = match folder {
                Some(f) if f.is_generation(generation) => (Some(f), None),
                other => (None, other),
            };
            if let Some(folder) = folder {
                return without_crc32c(folder, crc32c);
            }
            let pieces = find_series(&store, name, generation).await?;
            let pieces = pieces
                .map(|s| pinned_series(store.clone(), s))
                .transpose()?;
            return pieces
                .map(|p| PinnedBackup {
                    expected_crc32c: crc32c,
                    ..p
                })
                .ok_or_else(|| other.map_or_else(|| e.into(), |f| f.generation_is_gone()));
        }
        other => other?,
    };
    if let (Some(wanted), Some(is)) = (crc32c, object.crc32c)
        && wanted != is
    {
        let what = format!(
            "{}: its CRC32C differs from the one in the request",
            store.uri(name)
        );
        return Err(ValidationError::new(ValidationKind::ChecksumMismatch, what).into());
    }
    let expected_crc32c = object.crc32c.or(crc32c);
    let advice = advice_for(store.as_ref(), name).await;
    Ok(PinnedBackup {
        expected_crc32c,
        advice,
        ..PinnedBackup::single(store, object)
    })
}

/// Refuses a checksum for a directory dump, which has one for each of its objects.
fn without_crc32c(
    folder: PinnedBackup,
    crc32c: Option<Crc32c>,
) -> Result<PinnedBackup, RestoreError> {
    if crc32c.is_none() {
        return Ok(folder);
    }
    let what = format!(
        "crc32c: {} is a directory dump, which has no checksum as a whole: leave it out, or give the generation",
        folder.uri()
    );
    Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
}

/// The objects that may be pieces of the same file as this one, by their names; `None` if it is not named like a piece.
/// A name that also says what the file is (`x.dump.gz`) only is where a first piece is there.
async fn named_like_pieces(
    store: &dyn BackupStore,
    name: &str,
) -> Result<Option<Vec<StoredObject>>, StorageError> {
    let (Some(whole), Some(prefix)) = (whole_of(name), pieces::before_count(name)) else {
        return Ok(None);
    };
    if has_extension(name)
        && !pieces::begins_series_of(&list_objects(store, prefix, false).await?, name)
    {
        return Ok(None);
    }
    let mut objects = list_objects(store, whole, false).await?;
    objects.retain(|o| pieces::is_of_stem(whole, &o.name));
    Ok(Some(objects))
}

/// That an object is one of several pieces, where it is called so; it only helps where it cannot be read.
async fn advice_for(store: &dyn BackupStore, name: &str) -> Option<String> {
    let objects = named_like_pieces(store, name).await.ok()??;
    pieces::advice_for(name, objects)
}

/// Why an object that is bad as a backup may be none: it may be a piece of a split file, which cannot be told while
/// another piece cannot be read.
pub async fn unclear_piece(pinned: &PinnedBackup) -> Option<JobError> {
    let (store, name) = (pinned.store.as_ref(), &pinned.object.name);
    if !pinned.members.is_empty() {
        return None;
    }
    let objects = named_like_pieces(store, name).await.ok()??;
    let unclear = find_backups(store, objects, None).await.ok()?.unclear;
    let unclear = unclear.into_iter().find(|u| u.files.contains(name))?;
    let what = format!(
        "{}: it may be a piece of {}, which is unknown because {} cannot be read: let this account read that file, or move it away",
        pinned.uri(),
        unclear.name,
        unclear.unread
    );
    Some(JobError::new(JobKind::PieceMissing, what))
}

/// Pins the backup that an object which has just arrived is of: of a piece, all of them. One that looks like a piece of
/// something while those before it are missing fails [`PinnedBackup::check_pieces`].
///
/// # Errors
/// As [`pin`].
pub async fn pin_announced(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
    crc32c: Option<Crc32c>,
) -> Result<PinnedBackup, RestoreError> {
    let pinned = pin(store.clone(), name, generation, crc32c).await?;
    if crc32c.is_some() || !pinned.members.is_empty() {
        return Ok(pinned);
    }
    let (Some(whole), Some(objects)) = (
        whole_of(name),
        named_like_pieces(store.as_ref(), name).await?,
    ) else {
        return Ok(pinned);
    };
    let is_it = |o: &StoredObject| {
        (&o.name, o.generation) == (&pinned.object.name, pinned.object.generation)
    };
    let found = find_backups(store.as_ref(), objects, None).await?;
    let mut series = found.series.into_iter();
    let series = series.find(|s| s.pieces.iter().any(is_it));
    if let Some(series) = series {
        return pinned_series(store, series);
    }
    if is_first_piece(name) {
        return Ok(pinned);
    }
    let head = rotation::head_of(store.as_ref(), &pinned.object).await?;
    let is_piece = !pgdump_archive::is_recognized(&head);
    Ok(PinnedBackup {
        lacks_pieces_of: is_piece.then(|| whole.to_owned()),
        ..pinned
    })
}

/// What is there of a file in pieces of which one is missing before others. It cannot be read as a backup.
///
/// # Errors
/// Errors of the store.
pub(crate) async fn pin_remains(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
) -> Result<Option<PinnedBackup>, RestoreError> {
    let series = find_series(&store, name, generation).await?;
    let series = series.filter(|s| s.gap.is_some());
    Ok(series.map(|s| PinnedBackup {
        members: s.pieces.clone(),
        expected_crc32c: None,
        ..PinnedBackup::single(store, s.whole())
    }))
}

/// The pieces of the file that is called so.
async fn find_series(
    store: &Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
) -> Result<Option<Series>, RestoreError> {
    let Some(prefix) = pieces::prefix_of(name) else {
        return Ok(None);
    };
    let mut objects = list_objects(store.as_ref(), prefix, false).await?;
    objects.retain(|o| pieces::is_of_stem(prefix, &o.name));
    let found = find_backups(store.as_ref(), objects.clone(), None).await?;
    let mut certain = found.series;
    certain.retain(|s| s.is_meant_by(name));
    certain.sort_by_key(|s| s.name != name);
    // Somebody says that they are pieces.
    let meant = certain.into_iter().chain(pieces::meant_by(name, objects));
    let as_asked = |s: Series| match generation {
        Some(generation) => s.pinned_at(generation),
        None => Some(s),
    };
    Ok(meant.filter_map(as_asked).next())
}

fn pinned_series(
    store: Arc<dyn BackupStore>,
    series: Series,
) -> Result<PinnedBackup, RestoreError> {
    if let Some(gap) = &series.gap {
        // Whoever may add files can put one behind a gap.
        let behind = series.pieces.get(gap.at).map_or("", |p| p.name.as_str());
        let what = format!(
            "{}: the piece {} is missing; if {behind} is not a piece of it, move that file away",
            store.uri(&series.name),
            gap.name
        );
        return Err(JobError::new(JobKind::PieceMissing, what).into());
    }
    let advice = series.behind.as_ref().map(|name| {
        format!("{name} was not treated as a piece of it: that file is a backup of its own")
    });
    Ok(PinnedBackup {
        members: series.pieces.clone(),
        expected_crc32c: None,
        advice,
        ..PinnedBackup::single(store, series.whole())
    })
}

async fn pin_folder(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
) -> Result<PinnedBackup, RestoreError> {
    match find_folder(&store, name).await? {
        Some(folder) if folder.is_generation(generation) => Ok(folder),
        Some(folder) => Err(folder.generation_is_gone()),
        None => Err(not_found(
            store.as_ref(),
            name,
            "not a directory dump: it has no toc.dat",
        )),
    }
}

/// The directory dump of this name, if there is one.
async fn find_folder(
    store: &Arc<dyn BackupStore>,
    name: &str,
) -> Result<Option<PinnedBackup>, RestoreError> {
    let files = files_where(store.as_ref(), name, member_name::may_hold_data);
    let members = match files.await {
        Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
        other => other?,
    };
    Ok(whole(name.to_owned(), &members).map(|object| PinnedBackup {
        members,
        expected_crc32c: None,
        ..PinnedBackup::single(store.clone(), object)
    }))
}

/// The backups under `prefix` that were made not after `at`, newest first; of two with the same time, the one whose name
/// sorts last. Names that end in `excluded_suffix` are ignored, and so is the `manifest` of a directory dump. What is not
/// listed may hide others. `with_checksums` as for [`list_objects`].
///
/// # Errors
/// `backup_not_found` if there is none, `access_denied` if there may be some where this account may not look, and errors of
/// the store.
pub(crate) async fn newest_first(
    store: &dyn BackupStore,
    (prefix, at): (&str, Option<jiff::Timestamp>),
    excluded_suffix: Option<&str>,
    manifest: Option<&str>,
    with_checksums: bool,
) -> Result<(Vec<FoundBackup>, UnlistedPlaces), RestoreError> {
    let listed = list_objects(store, prefix, with_checksums).await;
    let mut objects = listed.map_err(of_bucket).map_err(of_object)?;
    let unlisted = UnlistedPlaces::take_from(store, &mut objects);
    let is_excluded = |name: &str| excluded_suffix.is_some_and(|s| name.ends_with(s));
    let mut all = found_in(store, objects, manifest).await?;
    all.retain(|f| !is_excluded(&f.object.name) && at.is_none_or(|t| f.object.created <= t));
    check_any(store, prefix, at, (&all, &unlisted))?;
    all.sort_by(|a, b| newer_first(&a.object, &b.object));
    Ok((all, unlisted))
}

/// The backups of a listing.
async fn found_in(
    store: &dyn BackupStore,
    objects: Vec<StoredObject>,
    manifest: Option<&str>,
) -> Result<Vec<FoundBackup>, StorageError> {
    let FoundBackups { single, series, .. } = find_backups(store, objects, manifest).await?;
    let single = single.into_iter().map(FoundBackup::single);
    let series = series.into_iter().map(|series| FoundBackup {
        series: Some(series.clone()),
        ..FoundBackup::single(series.whole())
    });
    Ok(single.chain(series).collect())
}

/// # Errors
/// `backup_not_found` if there is none, `access_denied` if there may be some where this account may not look.
fn check_any(
    store: &dyn BackupStore,
    prefix: &str,
    at: Option<jiff::Timestamp>,
    (found, unlisted): (&[FoundBackup], &UnlistedPlaces),
) -> Result<(), RestoreError> {
    if !found.is_empty() {
        return Ok(());
    }
    unlisted.check_newest(None)?;
    let what = format!("no backup{}", not_after(at));
    Err(not_found(store, prefix, &what))
}

/// The order of backups from the newest to the oldest; of two with the same time, the one whose name sorts last is first.
pub(crate) fn newer_first(a: &StoredObject, b: &StoredObject) -> std::cmp::Ordering {
    b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name))
}

/// ` not after T` for a message, if there is such a time.
pub(crate) fn not_after(at: Option<jiff::Timestamp>) -> String {
    at.map(|t| format!(" not after {t}")).unwrap_or_default()
}

/// Pins a backup of a listing that is the newest of those that are wanted.
///
/// # Errors
/// `backup_not_found`, `archive_corrupt` if a piece is missing, `access_denied` if a newer one may be where this account
/// may not look, and errors of the store.
pub(crate) async fn pin_found(
    store: Arc<dyn BackupStore>,
    found: FoundBackup,
    unlisted: &UnlistedPlaces,
) -> Result<PinnedBackup, RestoreError> {
    unlisted.check_newest(Some(&found.object))?;
    let FoundBackup {
        object,
        series,
        members,
    } = found;
    if !members.is_empty() {
        return Ok(PinnedBackup {
            members,
            expected_crc32c: None,
            ..PinnedBackup::single(store, object)
        });
    }
    if object.name.ends_with('/') {
        return pin_folder(store, &object.name, Some(object.generation)).await;
    }
    match series {
        Some(series) => pinned_series(store, series),
        None => {
            let advice = advice_for(store.as_ref(), &object.name).await;
            Ok(PinnedBackup {
                advice,
                ..PinnedBackup::single(store, object)
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

    /// A folder with these files, as a store that can be made to fail.
    fn folder_with(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Arc<FaultyStore>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let store = Arc::new(FaultyStore::at(folder.path()));
        (folder, store)
    }

    /// The names of piece `n` and of all those before it.
    fn pieces_to(n: u8) -> Vec<String> {
        let letter = |n: u8| char::from(b'a' + n);
        (0..=n)
            .map(|n| format!("x.dump.{}{}", letter(n / 26), letter(n % 26)))
            .collect()
    }

    /// A piece whose count is also a word (`br` is the 44th) is not taken for a file of its own.
    #[tokio::test]
    async fn a_notification_of_any_piece_means_the_whole() {
        for (n, word) in [(43, "br"), (51, "bz"), (79, "db"), (181, "gz")] {
            let names = pieces_to(n);
            let last = names.last().unwrap();
            assert!(last.ends_with(word), "{last}");
            let mut files: Vec<(&str, &[u8])> =
                names.iter().map(|n| (n.as_str(), &b"_"[..])).collect();
            files[0].1 = b"PGDMP\x01";
            // Neither signatures nor notes beside them are pieces, nor is a backup that ends in a word.
            files.push(("x.dump.asc", b"-----BEGIN PGP SIGNATURE-----"));
            files.push(("y.dump", b"PGDMP\x01"));
            let (_folder, store) = folder_with(&files);
            for piece in [last, &names[0]] {
                let pinned = pin_announced(store.clone(), piece, None, None)
                    .await
                    .unwrap();
                assert_eq!(pinned.object.name, "x.dump", "{piece}");
                assert_eq!(pinned.members.len(), names.len());
            }
            for single in ["x.dump.asc", "y.dump"] {
                let pinned = pin_announced(store.clone(), single, None, None)
                    .await
                    .unwrap();
                assert_eq!(pinned.object.name, single);
                pinned.check_pieces().unwrap();
            }
            // One that is named alone is told apart, too.
            let pinned = pin(store.clone(), last, None, None).await.unwrap();
            assert!(pinned.advice.unwrap().ends_with("restore x.dump"));
        }
    }

    /// Files that are none of a dump's do not keep it from being found, however many they are.
    #[tokio::test]
    async fn a_directory_is_found_among_many_other_files() {
        let notes: Vec<String> = (0..30).map(|n| format!("night/sub/{n}.dat")).collect();
        let mut files: Vec<(&str, &[u8])> = notes.iter().map(|n| (n.as_str(), &b"_"[..])).collect();
        files.extend([
            ("night/toc.dat", &b"PGDMP"[..]),
            ("night/1.dat", &b"1\n"[..]),
        ]);
        files.push(("night/note.txt", b"_"));
        let (_folder, store) = folder_with(&files);
        store.hold(2);
        let pinned = pin(store, "night/", None, None).await.unwrap();
        assert_eq!(pinned.members.len(), 2);
    }

    /// While pieces before it are on their way, it is not a damaged backup.
    #[tokio::test]
    async fn a_piece_waits_for_those_before_it_whatever_its_name() {
        for late in ["x.dump.ac", "x.dump.az", "x.dump.br"] {
            let (_folder, store) = folder_with(&[("x.dump.aa", b"PGDMP\x01"), (late, b"_")]);
            let pinned = pin_announced(store, late, None, None).await;
            let e = pinned.and_then(|p| p.check_pieces()).unwrap_err();
            assert_eq!(e.reason(), R::ArchiveCorrupt, "{late}");
            assert!(matches!(e, RestoreError::Job(_)), "not the backup's fault");
        }
        // What begins like a backup is one.
        let gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\x03_";
        let (_folder, store) = folder_with(&[("x.dump.aa", b"PGDMP\x01"), ("x.dump.gz", gzip)]);
        let pinned = pin_announced(store, "x.dump.gz", None, None).await.unwrap();
        pinned.check_pieces().unwrap();
    }

    /// No file is blamed while another one cannot be read that may be its piece.
    #[tokio::test]
    async fn a_file_beside_an_unreadable_one_may_be_its_piece() {
        let files: [(&str, &[u8]); 4] = [
            ("x.aa", b"PGDMP\x01"),
            ("x.ab", b"_"),
            ("y.aa", b"PGDMP\x01"),
            ("y.ab", b"PGDMP\x01"),
        ];
        for (unread, name, is_unclear) in [
            ("x.ab", "x.aa", true),
            ("x.aa", "x.ab", true),
            ("x.aa", "y.aa", false),
            ("y.ab", "y.aa", true),
            ("x.ab", "y.ab", false),
        ] {
            let (_folder, store) = folder_with(&files);
            let denied = StoreFault::Error(StorageKind::AccessDenied);
            store.fail(Call::Read, unread, denied, 99);
            let pinned = pin(store, name, None, None).await.unwrap();
            let e = unclear_piece(&pinned).await;
            assert_eq!(e.is_some(), is_unclear, "{unread} {name}");
            if let Some(e) = e {
                assert_eq!(e.kind(), JobKind::PieceMissing);
                assert!(
                    e.to_string().contains(&format!("because {unread} cannot")),
                    "{e}"
                );
            }
        }
    }

    /// Behind a whole backup nothing is a piece of what is before it: one that is cut off there is bad.
    #[tokio::test]
    async fn a_file_behind_a_whole_backup_is_blamed_although_another_cannot_be_read() {
        let names = ["db.00", "db.01", "db.02", "db.03", "db.04"];
        let (_folder, store) = folder_with(&names.map(|name| (name, &b"PGDMP\x01"[..])));
        let denied = StoreFault::Error(StorageKind::AccessDenied);
        store.fail(Call::Read, "db.01", denied, 99);
        for (name, is_unclear) in names.into_iter().zip([true, true, false, false, false]) {
            let pinned = pin(store.clone(), name, None, None).await.unwrap();
            let e = unclear_piece(&pinned).await;
            assert_eq!(e.is_some(), is_unclear, "{name}");
        }
    }

    /// The object that says that a directory dump is complete is the newest one beside it, and no backup, whatever lies
    /// beside it.
    #[tokio::test]
    async fn the_manifest_of_a_directory_is_no_backup() {
        let (folder, store) = folder_with(&[
            ("a.dump", b"PGDMP\x01"),
            ("night/toc.dat", b"PGDMP\x03"),
            ("night/1.dat.gz", b"_"),
            ("night/_SUCCESS", b""),
            ("other/_SUCCESS", b""),
            ("_SUCCESS", b""),
        ]);
        for (name, seconds) in [
            ("night/toc.dat", 2),
            ("night/_SUCCESS", 3),
            ("other/_SUCCESS", 4),
            ("_SUCCESS", 5),
        ] {
            let file = std::fs::File::options()
                .write(true)
                .open(folder.path().join(name))
                .unwrap();
            let then = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
            file.set_modified(then).unwrap();
        }
        let listed = |manifest: Option<&'static str>| {
            let store = store.clone();
            async move {
                let objects = store.list("").await.unwrap();
                let all = backups_of(store.as_ref(), objects, manifest).await.unwrap();
                all.into_iter().map(|o| o.name).collect::<Vec<_>>()
            }
        };
        assert_eq!(listed(Some("_SUCCESS")).await, ["a.dump", "night/"]);
        // The table of contents is the default, and part of the dump.
        assert_eq!(
            listed(Some("toc.dat")).await,
            [
                "_SUCCESS",
                "a.dump",
                "night/",
                "night/_SUCCESS",
                "other/_SUCCESS"
            ]
        );
        let latest = pin_latest(&store, "", None, Some("_SUCCESS"));
        assert_eq!(latest.await.unwrap().object.name, "night/");
    }

    async fn pin_latest(
        store: &Arc<FaultyStore>,
        prefix: &str,
        at: Option<jiff::Timestamp>,
        manifest: Option<&str>,
    ) -> Result<PinnedBackup, RestoreError> {
        let all = newest_first(store.as_ref(), (prefix, at), None, manifest, false).await;
        let (mut all, unlisted) = all?;
        pin_found(store.clone(), all.remove(0), &unlisted).await
    }

    /// What this account may not look into is not passed over where the newest backup may be there.
    #[tokio::test]
    async fn the_newest_backup_may_be_in_a_folder_that_cannot_be_listed() {
        let (_folder, store) = folder_with(&[
            ("a.dump", b"PGDMP\x01"),
            ("today/toc.dat", b"PGDMP\x03"),
            ("junk/x", b"_"),
        ]);
        let created = store.stat("a.dump", None).await.unwrap().created;
        let second = jiff::SignedDuration::from_secs(1);
        let latest = |at| pin_latest(&store, "", at, None);
        store.hide("junk/", created - second);
        store.hide("a.dump.pgrestored/", created + second);
        assert_eq!(latest(None).await.unwrap().object.name, "today/");
        store.hide("today/", created + second);
        // What is in it may be older than the folder.
        for at in [None, Some(created)] {
            let e = latest(at).await.err().unwrap();
            assert_eq!(e.reason(), R::AccessDenied);
            assert!(e.to_string().contains("/today/: this account"), "{e}");
        }
        for prefix in ["today", "today/", "junk"] {
            let e = pin_latest(&store, prefix, None, None).await;
            assert_eq!(e.err().unwrap().reason(), R::AccessDenied, "{prefix}");
        }
        let only = pin_latest(&store, "a.", None, None).await;
        assert_eq!(only.unwrap().object.name, "a.dump");
        // Nor is it said that there is no such directory.
        let e = pin(store, "today", None, None).await.err().unwrap();
        assert_eq!(e.reason(), R::AccessDenied);
    }

    /// A checksum or generation that was asked for is never left out of account.
    #[tokio::test]
    async fn a_directory_is_restored_only_as_it_was_asked_for() {
        let (_folder, store) = folder_with(&[("night/toc.dat", b"PGDMP\x03")]);
        for name in ["night", "night/"] {
            let pinned = pin(store.clone(), name, None, None).await.unwrap();
            let wanted = (Some(pinned.object.generation), Some(Crc32c(1)));
            let e = pin(store.clone(), name, wanted.0, wanted.1).await.err();
            assert_eq!(e.unwrap().reason(), R::InvalidRequest, "{name}");
            let e = pin(store.clone(), name, Some(Generation(1)), None).await;
            let e = e.err().unwrap();
            assert_eq!(e.reason(), R::BackupNotFound);
            assert!(e.to_string().contains("generation of its toc.dat"), "{e}");
        }
    }

    /// Only where there is none, a name means something else.
    #[tokio::test]
    async fn an_error_of_the_store_is_not_a_missing_backup() {
        for kind in [StorageKind::DownloadFailed, StorageKind::AccessDenied] {
            let (_folder, store) = folder_with(&[("night/toc.dat", b"PGDMP\x03")]);
            store.fail(Call::List, "night/", StoreFault::Error(kind), 1);
            let e = pin(store.clone(), "night", None, None).await.err().unwrap();
            assert_eq!(e.reason(), kind.reason());
            assert!(pin(store, "night", None, None).await.is_ok());
        }
        let (_folder, store) = folder_with(&[]);
        let e = pin(store, "night", None, None).await.err().unwrap();
        assert_eq!(e.reason(), R::BackupNotFound);
    }

    fn files_in(objects: Vec<StoredObject>) -> Vec<StoredObject> {
        let (mut all, files) = split_folders(objects, None);
        all.extend(files);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    #[test]
    fn crc32c_is_written_as_cloud_storage_does() {
        assert_eq!(encode_crc32c(Crc32c::of(b"hello world")), "yZRlqg==");
        assert_eq!(
            decode_crc32c("yZRlqg==").unwrap(),
            Crc32c::of(b"hello world")
        );
        assert!(decode_crc32c("yZRlqg").is_err());
        assert!(decode_crc32c("AAAA").is_err());
    }

    #[test]
    fn backups_are_ordered_by_time_then_name() {
        let object = |(name, second): (&str, i64)| StoredObject {
            created: jiff::Timestamp::from_second(second).unwrap(),
            ..StoredObject::named(name)
        };
        let mut all: Vec<StoredObject> =
            [("c", 1), ("a", 5), ("b", 5), ("d", 9)].map(object).into();
        all.sort_by(newer_first);
        let names: Vec<&str> = all.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["d", "b", "a", "c"]);
    }

    #[test]
    fn a_directory_dump_is_one_backup() {
        let object = |name: &str, size: u64, generation: i64| StoredObject {
            size,
            created: jiff::Timestamp::from_second(generation).unwrap(),
            crc32c: Some(Crc32c(1)),
            generation: Generation(generation),
            ..StoredObject::named(name)
        };
        let all = files_in(vec![
            object("a.dump", 1, 1),
            object("night/1.dat.gz", 10, 5),
            object("night/toc.dat", 2, 7),
            object("night/deeper/x.dump", 1, 8),
            object("toc.dat", 3, 9),
            object("night/", 0, 10),
        ]);
        let seen: Vec<_> = all
            .iter()
            .map(|o| (o.name.as_str(), o.size, o.generation.0))
            .collect();
        assert_eq!(
            seen,
            [
                ("a.dump", 1, 1),
                ("night/", 12, 7),
                ("night/deeper/x.dump", 1, 8),
                ("toc.dat", 3, 9)
            ]
        );
    }

    /// A file whose name merely resembles `toc.dat` does not turn its folder into a directory dump.
    #[test]
    fn only_toc_dat_itself_marks_a_directory_dump() {
        let object = |name: &str| StoredObject {
            crc32c: Some(Crc32c(1)),
            ..StoredObject::named(name)
        };
        let names = |all: &[&str]| -> Vec<String> {
            files_in(all.iter().map(|n| object(n)).collect())
                .into_iter()
                .map(|o| o.name)
                .collect()
        };
        for other in [
            "my_toc.dat",
            "toc.dat.bak",
            "toc.dat.gz.old",
            "xtoc.dat.gz",
            "toc.data",
        ] {
            let other = format!("n/{other}");
            assert_eq!(
                names(&["n/a.dump", "n/b.dump", &other]),
                ["n/a.dump", "n/b.dump", &other]
            );
        }
        for toc in [
            "n/toc.dat",
            "n/toc.dat.gz",
            "n/toc.dat.zst",
            "n/toc.dat.lz4",
        ] {
            // Files that no dump has stay backups of their own.
            assert_eq!(
                names(&["n/a.dump", "n/3.dat.gz", "n/blobs.toc", toc]),
                ["n/", "n/a.dump"]
            );
        }
        assert_eq!(
            names(&["a/b/toc.dat", "a/toc.dat", "a/b/1.dat", "a/1.dat"]),
            ["a/", "a/b/"]
        );
    }
}

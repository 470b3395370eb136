//! Backups: listing, selection, pinning, and the download as one ordered stream of bytes whose CRC32C is
//! computed as it is read.

mod download;
mod origin;
mod pieces;
mod rotation;

use crate::job::Generation;
use pgdump_archive::Crc32c;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use base64::Engine;

use crate::error::{FailureReason as R, JobError, RestoreError, StorageError, ValidationError};
use crate::store::{BackupStore, StoredObject};
use pgdump_archive::member_name;

use pieces::Series;
use rotation::{Sorted, sort_by_content};

pub use download::{Download, DownloadOptions, ReadHint, Source};
pub use origin::{IntegrityCheck, ProvenBytes, open, open_by_blocks};
pub use pieces::{is_first_piece, whole_of};

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
    /// What is known of it that may explain why it cannot be read.
    advice: Option<String>,
}

impl PinnedBackup {
    /// One object, as it is.
    fn single(store: Arc<dyn BackupStore>, object: StoredObject) -> Self {
        let expected_crc32c = object.crc32c;
        PinnedBackup {
            store,
            object,
            members: vec![],
            expected_crc32c,
            advice: None,
        }
    }

    pub fn uri(&self) -> String {
        self.store.uri(&self.object.name)
    }

    pub fn is_folder(&self) -> bool {
        self.object.name.ends_with('/')
    }

    /// One of its objects as a pinned backup.
    fn member(&self, object: &StoredObject) -> PinnedBackup {
        Self::single(self.store.clone(), object.clone())
    }
}

/// Base64 of the big-endian bytes, as Cloud Storage writes a CRC32C.
pub fn encode_crc32c(crc: Crc32c) -> String {
    base64::engine::general_purpose::STANDARD.encode(crc.0.to_be_bytes())
}

/// Decodes a CRC32C from base64 of its four big-endian bytes.
///
/// # Errors
/// `invalid_request` for anything else.
pub fn decode_crc32c(text: &str) -> Result<Crc32c, RestoreError> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
    let bytes = bytes.and_then(|b| <[u8; 4]>::try_from(b).ok());
    bytes.map(|b| Crc32c(u32::from_be_bytes(b))).ok_or_else(|| {
        ValidationError::new(R::InvalidRequest, "crc32c: must be base64 of four bytes").into()
    })
}

/// The newest of `objects` not after `at`; of two with the same time, the one whose name sorts last.
pub fn newest(objects: Vec<StoredObject>, at: Option<jiff::Timestamp>) -> Option<StoredObject> {
    let candidates = objects
        .into_iter()
        .filter(|o| at.is_none_or(|t| o.created <= t));
    candidates.max_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)))
}

/// A backup found in a listing.
struct FoundBackup {
    object: StoredObject,
    /// The pieces, if it is a split file.
    series: Option<Series>,
}

/// Objects as backups: those of one directory dump are one, with the directory's name, and so are those that certainly
/// are the pieces of one file. Evidence of ours is none.
///
/// # Errors
/// Errors of the store: files that are numbered like pieces are read to see whether they are.
pub async fn backups_of(
    store: &dyn BackupStore,
    objects: Vec<StoredObject>,
) -> Result<Vec<StoredObject>, StorageError> {
    let found = find_backups(store, objects).await?;
    Ok(found.into_iter().map(|f| f.object).collect())
}

async fn find_backups(
    store: &dyn BackupStore,
    objects: Vec<StoredObject>,
) -> Result<Vec<FoundBackup>, StorageError> {
    let names: HashSet<String> = objects.iter().map(|o| o.name.clone()).collect();
    let (folders, files) = split_folders(objects);
    let (candidates, mut others) = pieces::candidates(files);
    let Sorted {
        series,
        others: apart,
    } = sort_by_content(store, candidates).await?;
    let (series, nameless) = pieces::named(series, names);
    others.extend(folders.into_iter().chain(apart).chain(nameless));
    let mut all: Vec<FoundBackup> = others
        .into_iter()
        .map(|object| FoundBackup {
            object,
            series: None,
        })
        .collect();
    all.extend(series.into_iter().map(|s| FoundBackup {
        object: s.whole(),
        series: Some(s),
    }));
    all.sort_by(|a, b| a.object.name.cmp(&b.object.name));
    Ok(all)
}

/// Directory dumps, each as one object, and the files that belong to none.
fn split_folders(mut objects: Vec<StoredObject>) -> (Vec<StoredObject>, Vec<StoredObject>) {
    // Consoles make an object with a folder's name, to show the folder.
    objects.retain(|o| !crate::proof::is_ours(&o.name) && !o.name.ends_with('/'));
    let is_toc =
        |o: &StoredObject| !folder_of(&o.name).is_empty() && member_name::is_toc(file_of(&o.name));
    let folders: HashSet<String> = objects
        .iter()
        .filter(|o| is_toc(o))
        .map(|o| folder_of(&o.name).to_owned())
        .collect();
    let (mut of_folder, mut others): (BTreeMap<String, Vec<StoredObject>>, Vec<StoredObject>) =
        Default::default();
    for o in objects {
        let folder = folder_of(&o.name);
        if folders.contains(folder) && member_name::may_hold_data(file_of(&o.name)) {
            of_folder.entry(folder.to_owned()).or_default().push(o)
        } else {
            others.push(o)
        }
    }
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
    })
}

/// The objects directly in a folder, without subfolders.
///
/// # Errors
/// Errors of the store.
pub async fn files_of(
    store: &dyn BackupStore,
    folder: &str,
) -> Result<Vec<StoredObject>, StorageError> {
    let mut files = store.members(folder).await?;
    files.retain(|m| folder_of(&m.name) == folder && !file_of(&m.name).is_empty());
    Ok(files)
}

fn not_found(store: &dyn BackupStore, name: &str, what: &str) -> RestoreError {
    StorageError::new(R::BackupNotFound, format!("{}: {what}", store.uri(name))).into()
}

/// Pins one named backup: the object of that name alone, whatever lies beside it. Where there is none, a name that ends
/// in `/` (or would) is a directory dump, and the common name of pieces is the file that they are of.
///
/// # Errors
/// `backup_not_found`, `archive_corrupt` if a piece is missing, `checksum_mismatch` if the store's CRC32C
/// differs from the request's, and errors of the store.
pub async fn pin(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
    crc32c: Option<Crc32c>,
) -> Result<PinnedBackup, RestoreError> {
    if name.ends_with('/') {
        return pin_folder(store, name, generation).await;
    }
    let object = match store.stat(name, generation).await {
        Err(e) if e.reason() == R::BackupNotFound => {
            // It may be the name of a directory without its slash, or of a split file.
            if let Ok(folder) = pin_folder(store.clone(), &format!("{name}/"), generation).await {
                return Ok(folder);
            }
            let pieces = pin_pieces(&store, name, generation).await?;
            return pieces
                .map(|p| PinnedBackup {
                    expected_crc32c: crc32c,
                    ..p
                })
                .ok_or_else(|| e.into());
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
        return Err(ValidationError::new(R::ChecksumMismatch, what).into());
    }
    let expected_crc32c = object.crc32c.or(crc32c);
    let advice = advice_for(store.as_ref(), name).await;
    Ok(PinnedBackup {
        expected_crc32c,
        advice,
        ..PinnedBackup::single(store, object)
    })
}

/// That an object is one of several pieces, where it is called so; it only helps where it cannot be read.
async fn advice_for(store: &dyn BackupStore, name: &str) -> Option<String> {
    let objects = store.members(whole_of(name)?).await.ok()?;
    pieces::advice_for(name, objects)
}

/// Pins the backup that an object which has just arrived is of: of a piece, all of them.
///
/// # Errors
/// As [`pin`]; `archive_corrupt` for a piece while those before it are missing.
pub async fn pin_announced(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
    crc32c: Option<Crc32c>,
) -> Result<PinnedBackup, RestoreError> {
    let pinned = pin(store.clone(), name, generation, crc32c).await?;
    let Some(whole) = whole_of(name).filter(|_| crc32c.is_none() && pinned.members.is_empty())
    else {
        return Ok(pinned);
    };
    let is_it = |o: &StoredObject| {
        (&o.name, o.generation) == (&pinned.object.name, pinned.object.generation)
    };
    let found = find_backups(store.as_ref(), store.members(whole).await?).await?;
    let series = found
        .into_iter()
        .filter_map(|f| f.series)
        .find(|s| s.pieces.iter().any(is_it));
    if let Some(series) = series {
        return pinned_series(store, series);
    }
    if !is_first_piece(name)
        && !pgdump_archive::is_recognized(&rotation::head_of(store.as_ref(), &pinned.object).await?)
    {
        let what = format!(
            "{}: it looks like a piece of {whole}, and pieces before it are missing",
            store.uri(name)
        );
        return Err(JobError::new(R::ArchiveCorrupt, what).into());
    }
    Ok(pinned)
}

/// The file that was cut into pieces and is called so.
async fn pin_pieces(
    store: &Arc<dyn BackupStore>,
    name: &str,
    generation: Option<Generation>,
) -> Result<Option<PinnedBackup>, RestoreError> {
    let Some(prefix) = pieces::prefix_of(name) else {
        return Ok(None);
    };
    let objects = store.members(prefix).await?;
    let certain = find_backups(store.as_ref(), objects.clone()).await?;
    let mut certain: Vec<Series> = certain
        .into_iter()
        .filter_map(|f| f.series)
        .filter(|s| s.is_meant_by(name))
        .collect();
    certain.sort_by_key(|s| s.name != name);
    let (_, files) = split_folders(objects);
    // Somebody says that they are pieces.
    let meant = certain.into_iter().chain(pieces::meant_by(name, files));
    let as_asked = |s: Series| match generation {
        Some(generation) => s.pinned_at(generation),
        None => Some(s),
    };
    let series = meant.filter_map(as_asked).next();
    series.map(|s| pinned_series(store.clone(), s)).transpose()
}

fn pinned_series(
    store: Arc<dyn BackupStore>,
    series: Series,
) -> Result<PinnedBackup, RestoreError> {
    if let Some(gap) = &series.gap {
        // Whoever may add files can put one behind a gap.
        let behind = series.pieces.get(gap.at).map_or("", |p| p.name.as_str());
        let what = format!(
            "{}: the piece {} is missing; if {behind} is no piece of it, move that file away",
            store.uri(&series.name),
            gap.name
        );
        return Err(JobError::new(R::ArchiveCorrupt, what).into());
    }
    let advice = series
        .behind
        .as_ref()
        .map(|name| format!("{name} was not taken for a piece of it: that file is one of its own"));
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
    let mut members = files_of(store.as_ref(), name).await?;
    members.retain(|m| member_name::may_hold_data(file_of(&m.name)));
    let what = "not a directory dump: it has no toc.dat";
    let object =
        whole(name.to_owned(), &members).ok_or_else(|| not_found(store.as_ref(), name, what))?;
    if generation.is_some_and(|g| g != object.generation) {
        return Err(not_found(
            store.as_ref(),
            name,
            "the requested generation of its toc.dat no longer exists",
        ));
    }
    Ok(PinnedBackup {
        members,
        expected_crc32c: None,
        ..PinnedBackup::single(store, object)
    })
}

/// Pins the newest backup under `prefix`, not after `at`; names that end in `excluded_suffix` are ignored.
///
/// # Errors
/// `backup_not_found`, and errors of the store.
pub async fn pin_latest(
    store: Arc<dyn BackupStore>,
    prefix: &str,
    at: Option<jiff::Timestamp>,
    excluded_suffix: Option<&str>,
) -> Result<PinnedBackup, RestoreError> {
    let mut all = find_backups(store.as_ref(), store.list(prefix).await?).await?;
    all.retain(|f| excluded_suffix.is_none_or(|s| !f.object.name.ends_with(s)));
    let object = newest(all.iter().map(|f| f.object.clone()).collect(), at).ok_or_else(|| {
        let when = at.map(|t| format!(" not after {t}")).unwrap_or_default();
        not_found(store.as_ref(), prefix, &format!("no backup{when}"))
    })?;
    if object.name.ends_with('/') {
        return pin_folder(store, &object.name, Some(object.generation)).await;
    }
    match all
        .into_iter()
        .find(|f| f.object == object)
        .and_then(|f| f.series)
    {
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

    fn files_in(objects: Vec<StoredObject>) -> Vec<StoredObject> {
        let (mut all, files) = split_folders(objects);
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
    fn the_newest_is_chosen_by_time_then_name() {
        let object = |name: &str, second: i64| StoredObject {
            name: name.into(),
            size: 1,
            created: jiff::Timestamp::from_second(second).unwrap(),
            crc32c: None,
            generation: Generation(1),
        };
        let all = || {
            vec![
                object("c", 1),
                object("a", 5),
                object("b", 5),
                object("d", 9),
            ]
        };
        let at = |s| Some(jiff::Timestamp::from_second(s).unwrap());
        assert_eq!(newest(all(), None).unwrap().name, "d");
        assert_eq!(newest(all(), at(8)).unwrap().name, "b");
        assert_eq!(newest(all(), at(1)).unwrap().name, "c");
        assert!(newest(all(), at(0)).is_none());
    }

    #[test]
    fn a_directory_dump_is_one_backup() {
        let object = |name: &str, size: u64, generation: i64| StoredObject {
            name: name.into(),
            size,
            created: jiff::Timestamp::from_second(generation).unwrap(),
            crc32c: Some(Crc32c(1)),
            generation: Generation(generation),
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
            name: name.into(),
            size: 1,
            created: jiff::Timestamp::UNIX_EPOCH,
            crc32c: Some(Crc32c(1)),
            generation: Generation(1),
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

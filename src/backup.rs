//! Backups: listing, selection, pinning, and the download as one ordered stream of bytes whose
//! CRC32C is computed on the way.

mod download;
mod origin;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;

use crate::error::{FailureReason as R, RestoreError, StorageError, ValidationError};
use crate::store::{BackupStore, StoredObject};

pub use download::{Download, DownloadOptions, Reach, Source};
pub use origin::{Expected, open, open_by_blocks};

/// The member that makes a folder of objects a backup.
const TOC: &str = "toc.dat";

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

/// A backup whose generation is fixed: whatever happens to the object, only these bytes are read.
#[derive(Clone)]
pub struct PinnedBackup {
    pub store: Arc<dyn BackupStore>,
    /// Of a directory dump: its name with the slash, all bytes together, the generation of `toc.dat`.
    pub object: StoredObject,
    /// The objects of a directory dump.
    pub members: Vec<StoredObject>,
    /// CRC32C that the bytes must have, from the store or from the request.
    pub expected_crc32c: Option<u32>,
}

impl PinnedBackup {
    pub fn uri(&self) -> String {
        self.store.uri(&self.object.name)
    }
}

/// Base64 of the big-endian bytes, as Cloud Storage writes a CRC32C.
pub fn encode_crc32c(crc: u32) -> String {
    base64::engine::general_purpose::STANDARD.encode(crc.to_be_bytes())
}

/// # Errors
/// `invalid_request` for what is not base64 of four bytes.
pub fn decode_crc32c(text: &str) -> Result<u32, RestoreError> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
    let bytes = bytes.and_then(|b| <[u8; 4]>::try_from(b).ok());
    bytes
        .map(u32::from_be_bytes)
        .ok_or_else(|| ValidationError::new(R::InvalidRequest, "crc32c: must be base64 of four bytes").into())
}

/// The newest of `objects` not after `at`; of two made at the same time, the later name.
pub fn newest(objects: Vec<StoredObject>, at: Option<jiff::Timestamp>) -> Option<StoredObject> {
    let candidates = objects.into_iter().filter(|o| at.is_none_or(|t| o.created <= t));
    candidates.max_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)))
}

/// Objects as backups: those of one directory dump are one, with the directory's name.
/// Evidence of ours is none.
pub fn backups_of(mut objects: Vec<StoredObject>) -> Vec<StoredObject> {
    objects.retain(|o| !crate::proof::is_ours(&o.name));
    let folder_of = |name: &str| name.rfind('/').map_or(0, |n| n + 1);
    let is_toc = |name: &str| name.trim_end_matches(".gz").ends_with(TOC);
    let folders: Vec<String> = objects
        .iter()
        .filter(|o| is_toc(&o.name) && folder_of(&o.name) > 0)
        .map(|o| o.name[..folder_of(&o.name)].to_owned())
        .collect();
    let (mut of_folder, mut others): (BTreeMap<String, Vec<StoredObject>>, Vec<StoredObject>) =
        Default::default();
    for o in objects {
        let folder = &o.name[..folder_of(&o.name)];
        match folders.iter().any(|f| f == folder) {
            true => of_folder.entry(folder.to_owned()).or_default().push(o),
            false => others.push(o),
        }
    }
    others.extend(of_folder.into_iter().filter_map(|(name, members)| whole(name, &members)));
    others.sort_by(|a, b| a.name.cmp(&b.name));
    others
}

/// A directory dump as one object; `None` without its table of contents.
fn whole(name: String, members: &[StoredObject]) -> Option<StoredObject> {
    let toc = members.iter().find(|m| m.name.trim_end_matches(".gz").ends_with(TOC))?;
    let created = members.iter().map(|m| m.created).max()?;
    let size = members.iter().map(|m| m.size).sum();
    Some(StoredObject { name, size, created, crc32c: None, generation: toc.generation })
}

fn not_found(store: &dyn BackupStore, name: &str, what: &str) -> RestoreError {
    StorageError::new(R::BackupNotFound, format!("{}: {what}", store.uri(name))).into()
}

/// Pins one named backup; a name that ends in `/` is a directory dump.
///
/// # Errors
/// `backup_not_found`, `checksum_mismatch` where the store's CRC32C is not the request's, and the
/// store's own.
pub async fn pin(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<i64>,
    crc32c: Option<u32>,
) -> Result<PinnedBackup, RestoreError> {
    if name.ends_with('/') {
        return pin_folder(store, name, generation).await;
    }
    let object = match store.stat(name, generation).await {
        Err(e) if e.reason() == R::BackupNotFound => {
            // The name of a directory without its slash.
            return pin_folder(store, &format!("{name}/"), generation).await.map_err(|_| e.into());
        }
        other => other?,
    };
    if let (Some(wanted), Some(is)) = (crc32c, object.crc32c)
        && wanted != is
    {
        let what = format!("{}: its CRC32C is not the one in the request", store.uri(name));
        return Err(ValidationError::new(R::ChecksumMismatch, what).into());
    }
    let expected_crc32c = object.crc32c.or(crc32c);
    Ok(PinnedBackup { store, object, members: vec![], expected_crc32c })
}

async fn pin_folder(
    store: Arc<dyn BackupStore>,
    name: &str,
    generation: Option<i64>,
) -> Result<PinnedBackup, RestoreError> {
    let mut members = store.members(name).await?;
    // What lies deeper is no member.
    members.retain(|m| m.name.strip_prefix(name).is_some_and(|n| !n.is_empty() && !n.contains('/')));
    let what = "no directory dump: there is no toc.dat";
    let object = whole(name.to_owned(), &members).ok_or_else(|| not_found(store.as_ref(), name, what))?;
    if generation.is_some_and(|g| g != object.generation) {
        return Err(not_found(store.as_ref(), name, "that generation of its toc.dat is gone"));
    }
    Ok(PinnedBackup { store, object, members, expected_crc32c: None })
}

/// Pins the newest backup below `prefix`, not after `at`; objects called `apart` are none.
///
/// # Errors
/// `backup_not_found`, and the store's own.
pub async fn pin_latest(
    store: Arc<dyn BackupStore>,
    prefix: &str,
    at: Option<jiff::Timestamp>,
    apart: Option<&str>,
) -> Result<PinnedBackup, RestoreError> {
    let mut all = backups_of(store.list(prefix).await?);
    all.retain(|o| apart.is_none_or(|a| !o.name.ends_with(a)));
    let object = newest(all, at).ok_or_else(|| {
        let when = at.map(|t| format!(" not after {t}")).unwrap_or_default();
        not_found(store.as_ref(), prefix, &format!("no backup{when}"))
    })?;
    if object.name.ends_with('/') {
        return pin_folder(store, &object.name, Some(object.generation)).await;
    }
    let expected_crc32c = object.crc32c;
    Ok(PinnedBackup { store, object, members: vec![], expected_crc32c })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_written_as_cloud_storage_does() {
        assert_eq!(encode_crc32c(crc32c::crc32c(b"hello world")), "yZRlqg==");
        assert_eq!(decode_crc32c("yZRlqg==").unwrap(), crc32c::crc32c(b"hello world"));
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
            generation: 1,
        };
        let all = || vec![object("c", 1), object("a", 5), object("b", 5), object("d", 9)];
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
            crc32c: Some(1),
            generation,
        };
        let all = backups_of(vec![
            object("a.dump", 1, 1),
            object("night/1.dat.gz", 10, 5),
            object("night/toc.dat", 2, 7),
            object("night/deeper/x.dump", 1, 8),
            object("toc.dat", 3, 9),
        ]);
        let seen: Vec<_> = all.iter().map(|o| (o.name.as_str(), o.size, o.generation)).collect();
        assert_eq!(
            seen,
            [("a.dump", 1, 1), ("night/", 12, 7), ("night/deeper/x.dump", 1, 8), ("toc.dat", 3, 9)]
        );
    }
}

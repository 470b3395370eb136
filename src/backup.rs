//! Backups: listing, selection, pinning, and the download as one ordered stream of bytes whose
//! CRC32C is computed on the way.

mod download;

use std::sync::Arc;

use base64::Engine;

use crate::error::{FailureReason as R, RestoreError, StorageError, ValidationError};
use crate::store::{BackupStore, StoredObject};

pub use download::{Download, DownloadLimits, Expected, Source};

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
    pub object: StoredObject,
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

/// Pins one named backup.
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
    let object = store.stat(name, generation).await?;
    if let (Some(wanted), Some(is)) = (crc32c, object.crc32c)
        && wanted != is
    {
        let what = format!("{}: its CRC32C is not the one in the request", store.uri(name));
        return Err(ValidationError::new(R::ChecksumMismatch, what).into());
    }
    let expected_crc32c = object.crc32c.or(crc32c);
    Ok(PinnedBackup { store, object, expected_crc32c })
}

/// Pins the newest backup below `prefix`, not after `at`.
///
/// # Errors
/// `backup_not_found`, and the store's own.
pub async fn pin_latest(
    store: Arc<dyn BackupStore>,
    prefix: &str,
    at: Option<jiff::Timestamp>,
) -> Result<PinnedBackup, RestoreError> {
    let object = newest(store.list(prefix).await?, at).ok_or_else(|| {
        let when = at.map(|t| format!(" not after {t}")).unwrap_or_default();
        StorageError::new(R::BackupNotFound, format!("{}: no backup{when}", store.uri(prefix)))
    })?;
    let expected_crc32c = object.crc32c;
    Ok(PinnedBackup { store, object, expected_crc32c })
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
}

//! Stores of backups: the port [`BackupStore`] and its adapters for Cloud Storage and for a folder.

mod gcs;
mod local;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::Mutex;

use crate::config::{Location, StorageEmulator};
use crate::error::{FailureReason, StorageError};
use crate::retry::Backoff;

/// One backup as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Name relative to the store's location.
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub created: jiff::Timestamp,
    /// CRC32C of the whole object, if the store knows it.
    pub crc32c: Option<u32>,
    pub generation: i64,
}

/// The bytes of one object from some offset on.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// A store of backups. Every read names the generation, so that reading an overwritten object is an error
/// and never yields a mixture.
pub trait BackupStore: Send + Sync {
    /// All objects whose name starts with `prefix`.
    ///
    /// # Errors
    /// `backup_not_found` for a missing bucket or folder, `access_denied`, `download_failed`.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>>;

    /// The metadata of one object, of exactly `generation` if that is given.
    ///
    /// # Errors
    /// `backup_not_found`, `access_denied`, `download_failed`.
    fn stat<'a>(
        &'a self,
        name: &'a str,
        generation: Option<i64>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>>;

    /// As [`BackupStore::list`], but without checksums that would have to be computed.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn members<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        self.list(prefix)
    }

    /// The bytes of `object` from `offset` on, at most `length` of them.
    ///
    /// # Errors
    /// `backup_changed` if that generation no longer exists, `access_denied`, `download_failed`.
    fn read<'a>(
        &'a self,
        object: &'a StoredObject,
        offset: u64,
        length: Option<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, StorageError>>;

    /// Creates an object; `None` if one of that name exists, which is left unchanged.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    fn create<'a>(
        &'a self,
        name: &'a str,
        content: Bytes,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>>;

    /// Deletes exactly this generation.
    ///
    /// # Errors
    /// `backup_changed` if the object has been replaced, `backup_not_found`, `access_denied`,
    /// `download_failed`.
    fn delete<'a>(&'a self, object: &'a StoredObject) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Which of these permissions (`storage.objects.get`, …) this account has; `None` if the store cannot
    /// tell.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn permissions<'a>(
        &'a self,
        _wanted: &'a [&'a str],
    ) -> BoxFuture<'a, Result<Option<Vec<String>>, StorageError>> {
        Box::pin(async { Ok(None) })
    }

    /// `gs://…` or `file://…`.
    fn uri(&self, name: &str) -> String;
}

/// Reads a small object whole, checks its size and checksum, and retries failed reads.
///
/// # Errors
/// As [`BackupStore::read`]; `download_failed` for more than `max_bytes` bytes.
pub async fn read_small(
    store: &dyn BackupStore,
    object: &StoredObject,
    max_bytes: u64,
) -> Result<Vec<u8>, StorageError> {
    use futures::TryStreamExt;
    if object.size > max_bytes {
        let what = format!("{}: more than {max_bytes} bytes", store.uri(&object.name));
        return Err(StorageError::new(FailureReason::DownloadFailed, what));
    }
    let read_once = || async {
        let chunks = store.read(object, 0, None).await?;
        let add = |mut all: Vec<u8>, c: Bytes| async move {
            all.extend_from_slice(&c);
            Ok(all)
        };
        let all = chunks.try_fold(Vec::new(), add).await?;
        let is_whole = all.len() as u64 == object.size;
        if is_whole && object.crc32c.is_none_or(|crc| crc == crc32c::crc32c(&all)) {
            Ok(all)
        } else {
            let what = format!(
                "{}: the bytes received do not match the store's size and CRC32C",
                store.uri(&object.name)
            );
            Err(StorageError::new(FailureReason::DownloadFailed, what))
        }
    };
    let attempt = || async {
        let late = |_| {
            let what = format!(
                "{}: not read within {SMALL_LIMIT:?}",
                store.uri(&object.name)
            );
            Err(StorageError::new(FailureReason::DownloadFailed, what))
        };
        tokio::time::timeout(SMALL_LIMIT, read_once())
            .await
            .unwrap_or_else(late)
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(e) if e.reason() == FailureReason::DownloadFailed => {
                tokio::time::sleep(backoff.next_delay()).await;
            }
            other => return other,
        }
    }
    attempt().await
}

/// How long one attempt to read a small object may take: nothing else detects a stalled connection.
const SMALL_LIMIT: Duration = Duration::from_secs(10);

/// How many attempts are made to read a small object.
const ATTEMPTS: u32 = 5;

/// Opens stores by their location and caches them, so that clients are built once.
pub struct Stores {
    emulator: Option<StorageEmulator>,
    open: Mutex<HashMap<Location, Arc<dyn BackupStore>>>,
}

impl Stores {
    pub fn new(emulator: Option<StorageEmulator>) -> Self {
        Stores {
            emulator,
            open: Mutex::new(HashMap::new()),
        }
    }

    /// The store at a location.
    ///
    /// # Errors
    /// `access_denied` if the clients cannot be built, usually because credentials are missing.
    pub async fn at(&self, place: &Location) -> Result<Arc<dyn BackupStore>, StorageError> {
        let mut open = self.open.lock().await;
        if let Some(store) = open.get(place) {
            return Ok(store.clone());
        }
        let store: Arc<dyn BackupStore> = match place {
            Location::Folder(folder) => Arc::new(local::LocalStore::new(folder.clone())),
            Location::Bucket { bucket, prefix } => {
                Arc::new(gcs::GcsStore::connect(bucket, prefix, self.emulator.as_ref()).await?)
            }
        };
        open.insert(place.clone(), store.clone());
        Ok(store)
    }

    /// Opens a store in the background: building its clients takes tens of milliseconds, most of them to
    /// load this machine's certificates. Errors are reported by [`Stores::at`].
    pub fn open_ahead(self: &Arc<Self>, place: Location) {
        let stores = self.clone();
        tokio::spawn(async move { stores.at(&place).await.is_ok() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_was_opened_ahead_is_reused() {
        let stores = Arc::new(Stores::new(None));
        let place = Location::Folder("/tmp".into());
        stores.open_ahead(place.clone());
        tokio::task::yield_now().await;
        let open = stores.open.lock().await.get(&place).cloned().unwrap();
        assert!(Arc::ptr_eq(&open, &stores.at(&place).await.unwrap()));
    }
}

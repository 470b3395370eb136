//! Stores of backups: the port [`BackupStore`] and its adapters for Cloud Storage and for a folder.

mod backup_store;
mod gcs;
mod local;

use pgdump_archive::Crc32c;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::{Location, StorageEmulator};
use crate::error::{FailureReason, StorageError};
use crate::retry::Backoff;

pub use backup_store::{BackupStore, ByteStream, StoredObject};

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
        if is_whole && object.crc32c.is_none_or(|crc| crc == Crc32c::of(&all)) {
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
    /// A cell for each location, so that one that connects slowly does not delay the others.
    open: Mutex<HashMap<Location, Arc<OnceCell<Arc<dyn BackupStore>>>>>,
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
        let cell = self.open.lock().entry(place.clone()).or_default().clone();
        let store = cell.get_or_try_init(|| self.connect(place)).await?;
        Ok(store.clone())
    }

    async fn connect(&self, place: &Location) -> Result<Arc<dyn BackupStore>, StorageError> {
        Ok(match place {
            Location::Folder(folder) => Arc::new(local::LocalStore::new(folder.clone())),
            Location::Bucket { bucket, prefix } => {
                Arc::new(gcs::GcsStore::connect(bucket, prefix, self.emulator.as_ref()).await?)
            }
        })
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
        let cell = stores.open.lock().get(&place).cloned().unwrap();
        let open = cell.get().unwrap();
        assert!(Arc::ptr_eq(open, &stores.at(&place).await.unwrap()));
    }
}

//! Where backups are kept: the port [`BackupStore`] and its adapters, Cloud Storage and a folder.

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
    /// Name below the store's place.
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub created: jiff::Timestamp,
    /// CRC32C of the whole object, where the store knows it.
    pub crc32c: Option<u32>,
    pub generation: i64,
}

/// Bytes of one object from some offset on.
pub type ByteStream = BoxStream<'static, Result<Bytes, StorageError>>;

/// A place with backups. Every read names the generation, so that an overwritten object is an error
/// and never a mixture.
pub trait BackupStore: Send + Sync {
    /// All objects whose name starts with `prefix`.
    ///
    /// # Errors
    /// `backup_not_found` for a missing bucket or folder, `access_denied`, `download_failed`.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>>;

    /// One object; with `generation`, that one.
    ///
    /// # Errors
    /// `backup_not_found`, `access_denied`, `download_failed`.
    fn stat<'a>(
        &'a self,
        name: &'a str,
        generation: Option<i64>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>>;

    /// The same without checksums where they would have to be computed.
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
    /// `backup_changed` where that generation is gone, `access_denied`, `download_failed`.
    fn read<'a>(
        &'a self,
        object: &'a StoredObject,
        offset: u64,
        length: Option<u64>,
    ) -> BoxFuture<'a, Result<ByteStream, StorageError>>;

    /// Makes an object; `None` where there is one of that name already, which is left as it is.
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
    /// `backup_changed` where the object is another one by now, `backup_not_found`, `access_denied`,
    /// `download_failed`.
    fn delete<'a>(&'a self, object: &'a StoredObject) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Which of these permissions (`storage.objects.get`, …) we have; `None` where the store does not
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

/// The whole of a small object, checked.
///
/// # Errors
/// As [`BackupStore::read`]; `download_failed` for more than `most` bytes.
pub async fn read_small(
    store: &dyn BackupStore,
    object: &StoredObject,
    most: u64,
) -> Result<Vec<u8>, StorageError> {
    use futures::TryStreamExt;
    if object.size > most {
        let what = format!("{}: more than {most} bytes", store.uri(&object.name));
        return Err(StorageError::new(FailureReason::DownloadFailed, what));
    }
    let once = || async {
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
                "{}: other bytes came than the store has",
                store.uri(&object.name)
            );
            Err(StorageError::new(FailureReason::DownloadFailed, what))
        }
    };
    let in_time = || async {
        let late = |_| {
            let what = format!(
                "{}: not read within {SMALL_LIMIT:?}",
                store.uri(&object.name)
            );
            Err(StorageError::new(FailureReason::DownloadFailed, what))
        };
        tokio::time::timeout(SMALL_LIMIT, once())
            .await
            .unwrap_or_else(late)
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for _ in 1..ATTEMPTS {
        match in_time().await {
            Err(e) if e.reason() == FailureReason::DownloadFailed => {
                tokio::time::sleep(backoff.next_delay()).await;
            }
            other => return other,
        }
    }
    in_time().await
}

/// How long one try at a small object may take: nothing else notices a connection that stands still.
const SMALL_LIMIT: Duration = Duration::from_secs(10);

/// Times that a small object is read before it cannot be read.
const ATTEMPTS: u32 = 5;

/// Opens stores by their place; clients are built once.
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

    /// # Errors
    /// `access_denied` where the clients cannot be built (no credentials).
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

    /// Opens a store beside other work: building its clients takes tens of milliseconds, most of it for
    /// the certificates of this machine. What goes wrong is told by [`Stores::at`].
    pub fn open_ahead(self: &Arc<Self>, place: Location) {
        let stores = self.clone();
        tokio::spawn(async move { stores.at(&place).await.is_ok() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_that_was_opened_ahead_is_there() {
        let stores = Arc::new(Stores::new(None));
        let place = Location::Folder("/tmp".into());
        stores.open_ahead(place.clone());
        tokio::task::yield_now().await;
        let open = stores.open.lock().await.get(&place).cloned().unwrap();
        assert!(Arc::ptr_eq(&open, &stores.at(&place).await.unwrap()));
    }
}

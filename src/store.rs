//! Stores of backups: the port [`BackupStore`] and its adapters for Cloud Storage and for a folder.

mod backup_store;
mod denial;
#[cfg(test)]
pub(crate) mod faulty;
mod gcs;
mod local;

use pgdump_archive::Crc32c;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::{Location, StorageEmulator};
use crate::error::{StorageError, StorageKind};
use crate::retry::Backoff;

pub use backup_store::{BackupStore, ObjectBytes, StoredObject};
pub(crate) use denial::can_read_another;

/// Reads a small object whole, checks its size and checksum, and retries failed reads.
///
/// # Errors
/// As [`BackupStore::read`]; `download_failed` for more than `max_bytes` bytes.
pub async fn read_small(
    store: &dyn BackupStore,
    object: &StoredObject,
    max_bytes: u64,
) -> Result<Vec<u8>, StorageError> {
    if object.size > max_bytes {
        let what = format!("{}: more than {max_bytes} bytes", store.uri(&object.name));
        return Err(StorageError::new(StorageKind::DownloadFailed, what));
    }
    let read_once = || async {
        let all = collect(store.read(object, 0, None).await?, object.size).await?;
        let is_whole = all.len() as u64 == object.size;
        if is_whole && object.crc32c.is_none_or(|crc| crc == Crc32c::of(&all)) {
            Ok(all)
        } else {
            let what = format!(
                "{}: the bytes received do not match the store's size and CRC32C",
                store.uri(&object.name)
            );
            Err(StorageError::new(StorageKind::DownloadFailed, what))
        }
    };
    retried(store, object, read_once).await
}

/// Reads a few bytes of an object, as far as it has them. Every attempt has a time limit, and failed ones are
/// repeated: the stores themselves do neither.
///
/// # Errors
/// As [`BackupStore::read`]; `checksum_mismatch` if the store keeps sending fewer bytes than it says there are.
pub async fn read_range(
    store: &dyn BackupStore,
    object: &StoredObject,
    range: Range<u64>,
) -> Result<Vec<u8>, StorageError> {
    let length = range.end.min(object.size).saturating_sub(range.start);
    if length == 0 {
        return Ok(vec![]);
    }
    let read_once = || async {
        let chunks = store.read(object, range.start, Some(length)).await?;
        let mut bytes = collect(chunks, length).await?;
        // A store that ignores the range sends more.
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        if bytes.len() as u64 == length {
            return Ok(bytes);
        }
        let what = format!(
            "{}: {} bytes were received instead of {length}",
            store.uri(&object.name),
            bytes.len()
        );
        Err(StorageError::new(StorageKind::WrongLength, what))
    };
    retried(store, object, read_once).await
}

/// The bytes of a stream to its end. More than `length` of them are not kept: the stream is longer than it should be.
async fn collect(mut chunks: ObjectBytes, length: u64) -> Result<Vec<u8>, StorageError> {
    let mut all = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        all.extend_from_slice(&chunk);
        if all.len() as u64 > length {
            break;
        }
    }
    Ok(all)
}

/// Makes up to [`ATTEMPTS`] attempts to read an object.
async fn retried<T, F: Future<Output = Result<T, StorageError>>>(
    store: &dyn BackupStore,
    object: &StoredObject,
    read_once: impl Fn() -> F,
) -> Result<T, StorageError> {
    let attempt = || async {
        let late = |_| {
            let what = format!(
                "{}: not read within {SMALL_LIMIT:?}",
                store.uri(&object.name)
            );
            Err(StorageError::new(StorageKind::DownloadFailed, what))
        };
        tokio::time::timeout(SMALL_LIMIT, read_once())
            .await
            .unwrap_or_else(late)
    };
    let may_pass = |e: &StorageError| {
        matches!(
            e.kind(),
            StorageKind::DownloadFailed | StorageKind::WrongLength
        )
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(e) if may_pass(&e) => tokio::time::sleep(backoff.next_delay()).await,
            other => return other,
        }
    }
    attempt().await
}

/// How long one attempt to read a few bytes may take: nothing else detects a stalled connection.
const SMALL_LIMIT: Duration = Duration::from_secs(10);

/// How many attempts are made to read a few bytes.
const ATTEMPTS: u32 = 5;

/// A store, once it has been connected.
type StoreCell = Arc<OnceCell<Arc<dyn BackupStore>>>;

/// Opens stores by their location and caches them, so that clients are built once.
pub struct Stores {
    emulator: Option<StorageEmulator>,
    /// A cell for each location, so that one that connects slowly does not delay the others.
    open: Mutex<HashMap<Location, StoreCell>>,
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

    /// Puts a store in the place of the one at a location.
    #[cfg(test)]
    pub(crate) fn replace(&self, place: Location, store: Arc<dyn BackupStore>) {
        let cell = OnceCell::new_with(Some(store));
        self.open.lock().insert(place, Arc::new(cell));
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
    use super::faulty::{Call, FaultyStore, StoreFault};
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

    /// A file of ten bytes in a store with faults.
    async fn ten_bytes(folder: &tempfile::TempDir) -> (FaultyStore, StoredObject) {
        std::fs::write(folder.path().join("x"), "0123456789").unwrap();
        let store = FaultyStore::at(folder.path());
        let object = store.stat("x", None).await.unwrap();
        (store, object)
    }

    /// A connection that is half open, and a server that is unavailable, end one attempt.
    #[tokio::test(start_paused = true)]
    async fn a_range_is_read_again_after_a_stall_and_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (store, object) = ten_bytes(&folder).await;
        store.fail(Call::Read, "x", StoreFault::Stall, 2);
        store.fail(
            Call::Read,
            "x",
            StoreFault::Error(StorageKind::DownloadFailed),
            2,
        );
        let read = read_range(&store, &object, 2..5).await.unwrap();
        assert_eq!(read, b"234");
        assert_eq!(read_range(&store, &object, 8..99).await.unwrap(), b"89");
        assert_eq!(read_range(&store, &object, 10..99).await.unwrap(), b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_that_cannot_be_read_is_an_error_in_the_end() {
        use StorageKind as S;
        for (fault, kind, reads) in [
            (StoreFault::Stall, S::DownloadFailed, 5),
            (StoreFault::Error(S::DownloadFailed), S::DownloadFailed, 5),
            (StoreFault::Short, S::WrongLength, 5),
            (StoreFault::Error(S::AccessDenied), S::AccessDenied, 1),
            (StoreFault::Error(S::Changed), S::Changed, 1),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (store, object) = ten_bytes(&folder).await;
            store.fail(Call::Read, "x", fault, 99);
            let e = read_range(&store, &object, 0..4).await.unwrap_err();
            assert_eq!(e.kind(), kind);
            assert_eq!(store.left("x"), 99 - reads);
        }
    }
}

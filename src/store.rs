//! Stores of backups: the port [`BackupStore`] and its adapters for Cloud Storage and for a folder.

mod backup_store;
mod denial;
#[cfg(test)]
pub(crate) mod faulty;
mod gcs;
mod gcs_errors;
mod gcs_lifecycle;
mod kept_bytes;
mod local;
mod object_body;
#[cfg(test)]
pub(crate) mod scripted;

use pgdump_archive::Crc32c;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::{Location, StorageEmulator};
use crate::credentials;
use crate::error::{StorageError, StorageKind};
use crate::retry::Backoff;

pub use backup_store::{
    BackupStore, GenerationState, Hold, NameFilter, NewestObjects, ObjectBytes, ObjectGeneration,
    ObjectLock, Obstacle, StoredObject,
};
pub(crate) use denial::can_read_another;
use gcs_errors::Billing;
pub(crate) use kept_bytes::bytes_of;
pub use object_body::{BodyWriter, IncompleteBody, ObjectBody, object_body};

/// Reads a small object whole, checks its size and checksum, and retries reads that fail or stall. It takes as long as the
/// bytes take that keep arriving.
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
        let chunks = in_time(store, object, store.read(object, 0, None)).await?;
        let all = collect(store, object, chunks, object.size).await?;
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
    retried(read_once).await
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
    let read_all = || async {
        let chunks = store.read(object, range.start, Some(length)).await?;
        collect(store, object, chunks, length).await
    };
    let read_once = || async {
        let mut bytes = in_time(store, object, read_all()).await?;
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
    retried(read_once).await
}

/// The bytes of a stream to its end. More than `length` of them are not kept: the stream is longer than it should be.
async fn collect(
    store: &dyn BackupStore,
    object: &StoredObject,
    mut chunks: ObjectBytes,
    length: u64,
) -> Result<Vec<u8>, StorageError> {
    let mut all = Vec::new();
    while let Some(chunk) = in_time(store, object, chunks.try_next()).await? {
        all.extend_from_slice(&chunk);
        if all.len() as u64 > length {
            break;
        }
    }
    Ok(all)
}

/// Creates a small object as [`BackupStore::create`] does. Every attempt has a time limit, and failed ones are repeated:
/// the clients of the stores do not limit uploads.
///
/// # Errors
/// As [`BackupStore::create`].
pub async fn create_small(
    store: &dyn BackupStore,
    name: &str,
    content: Bytes,
    content_type: &str,
) -> Result<Option<StoredObject>, StorageError> {
    let late = |_| {
        let what = format!("{}: not written within {UPLOAD_LIMIT:?}", store.uri(name));
        Err(StorageError::new(StorageKind::DownloadFailed, what))
    };
    let create_once = || async {
        let create = store.create(name, content.clone(), content_type);
        tokio::time::timeout(UPLOAD_LIMIT, create)
            .await
            .unwrap_or_else(late)
    };
    retried(create_once).await
}

/// As [`create_small`], but also `None` if an object of that name exists and may not be overwritten: some stores say only
/// that. Whoever may add objects can cause it under a name that can be predicted.
///
/// # Errors
/// As [`BackupStore::create`].
pub async fn create_unless_taken(
    store: &dyn BackupStore,
    name: &str,
    content: Bytes,
    content_type: &str,
) -> Result<Option<StoredObject>, StorageError> {
    match create_small(store, name, content, content_type).await {
        Err(e) if e.kind() == StorageKind::AccessDenied && is_taken(store, name).await => Ok(None),
        created => created,
    }
}

/// Whether an object of this name exists, also if it may not be described.
async fn is_taken(store: &dyn BackupStore, name: &str) -> bool {
    match retried(|| store.stat(name, None)).await {
        Ok(_) => true,
        Err(e) => matches!(
            e.kind(),
            StorageKind::AccessDenied | StorageKind::OutsideFolder
        ),
    }
}

/// Makes up to [`ATTEMPTS`] attempts.
async fn retried<T, F: Future<Output = Result<T, StorageError>>>(
    once: impl Fn() -> F,
) -> Result<T, StorageError> {
    let may_pass = |e: &StorageError| {
        matches!(
            e.kind(),
            StorageKind::DownloadFailed | StorageKind::WrongLength
        )
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    for _ in 1..ATTEMPTS {
        match once().await {
            Err(e) if may_pass(&e) => tokio::time::sleep(backoff.next_delay()).await,
            other => return other,
        }
    }
    once().await
}

/// What the store returns of an object within [`SMALL_LIMIT`].
async fn in_time<T>(
    store: &dyn BackupStore,
    object: &StoredObject,
    read: impl Future<Output = Result<T, StorageError>>,
) -> Result<T, StorageError> {
    let late = |_| {
        let what = format!(
            "{}: not read within {SMALL_LIMIT:?}",
            store.uri(&object.name)
        );
        Err(StorageError::new(StorageKind::DownloadFailed, what))
    };
    tokio::time::timeout(SMALL_LIMIT, read)
        .await
        .unwrap_or_else(late)
}

/// How long a few bytes, or the next ones of more, may take: nothing else detects a stalled connection.
const SMALL_LIMIT: Duration = Duration::from_secs(10);

/// How long one attempt to write an object may take. The largest one, a restore index, has 32 MiB.
const UPLOAD_LIMIT: Duration = Duration::from_secs(60);

/// How many attempts are made to read or write a few bytes.
const ATTEMPTS: u32 = 5;

/// The store at one location.
#[derive(Default)]
struct StoreSlot {
    client: OnceCell<Arc<dyn BackupStore>>,
    /// Set once it has answered.
    reached: OnceCell<()>,
}

/// Opens stores by their location and caches them, so that clients are built once.
pub struct Stores {
    emulator: Option<StorageEmulator>,
    /// How long a bucket may take to answer for the first time; `None`: as long as every call.
    first_contact: Option<Duration>,
    /// The bucket of BACKUP_BUCKET, and the project that requests to it are billed to.
    backup_bucket: Option<(String, Option<String>)>,
    /// A slot for each location, so that one that connects slowly does not delay the others.
    open: Mutex<HashMap<Location, Arc<StoreSlot>>>,
}

impl Stores {
    pub fn new(emulator: Option<StorageEmulator>) -> Self {
        Stores {
            emulator,
            first_contact: None,
            backup_bucket: None,
            open: Mutex::new(HashMap::new()),
        }
    }

    /// The same stores, where requests to the bucket of `backups`, wherever in it, are billed to a project (Requester Pays).
    /// Other buckets have other owners, and are not billed to it.
    pub fn with_user_project(self, backups: &Location, project: Option<&str>) -> Self {
        let backup_bucket = match backups {
            Location::Bucket { bucket, .. } => Some((bucket.clone(), project.map(str::to_owned))),
            Location::Folder(_) => None,
        };
        Stores {
            backup_bucket,
            ..self
        }
    }

    /// Who pays for requests to a bucket.
    fn billing_of(&self, bucket: &str) -> Billing {
        match &self.backup_bucket {
            Some((own, project)) if own == bucket => Billing::BackupBucket(project.clone()),
            _ => Billing::OtherBucket,
        }
    }

    /// The same stores, with a time limit for the first answer of each bucket.
    pub fn with_first_contact(self, within: Option<Duration>) -> Self {
        Stores {
            first_contact: within,
            ..self
        }
    }

    /// The store at a location.
    ///
    /// # Errors
    /// `access_denied` if there are no usable credentials; `download_failed` if it does not answer within the time
    /// for the first contact.
    pub async fn at(&self, place: &Location) -> Result<Arc<dyn BackupStore>, StorageError> {
        let slot = self.slot(place);
        if let (Some(within), Location::Bucket { .. }) = (self.first_contact, place) {
            // Boxed: the type of its future would be too deep for the compiler.
            let reach = || self.reach(&slot, place, within).boxed();
            slot.reached.get_or_try_init(reach).await?;
        }
        self.client(&slot, place).await
    }

    fn slot(&self, place: &Location) -> Arc<StoreSlot> {
        self.open.lock().entry(place.clone()).or_default().clone()
    }

    async fn client(
        &self,
        slot: &StoreSlot,
        place: &Location,
    ) -> Result<Arc<dyn BackupStore>, StorageError> {
        let connect = || self.connect(place).boxed();
        let client = slot.client.get_or_try_init(connect).await?;
        Ok(client.clone())
    }

    /// Checks within a time that there are credentials for a bucket, and that it answers. Without an answer, wrong
    /// settings are likelier than a service that is about to come back.
    async fn reach(
        &self,
        slot: &StoreSlot,
        place: &Location,
        within: Duration,
    ) -> Result<(), StorageError> {
        let (uri, is_emulated) = (place.uri(""), self.emulator.is_some());
        let has_credentials = async {
            if is_emulated {
                return Ok(());
            }
            // A little earlier, because the call then fails for the same reason.
            let checked = credentials::check(within.mul_f64(0.9)).await;
            checked.map_err(|what| {
                let what = format!("{uri}: {what}; {}", credentials::ADVICE);
                StorageError::new(StorageKind::AccessDenied, what)
            })
        };
        let answer = async { self.client(slot, place).await?.greet(within).await };
        let in_time = async {
            let silent = |_| {
                let what = format!("{uri}: no answer within {within:?}");
                Err(StorageError::new(StorageKind::DownloadFailed, what))
            };
            let answered = tokio::time::timeout(within, answer).await;
            answered.unwrap_or_else(silent)
        };
        let setting = if is_emulated {
            "STORAGE_EMULATOR_HOST, where Cloud Storage should respond"
        } else {
            "whether this machine can reach Cloud Storage (network, proxy, firewall)"
        };
        let explain = |e: StorageError| match e.kind() {
            StorageKind::DownloadFailed => {
                // The cause is said before what to do.
                let said = crate::error::report(&e);
                StorageError::new(e.kind(), format!("{said}; check {setting}"))
            }
            _ => e,
        };
        let reached = tokio::try_join!(has_credentials, in_time);
        reached.map(drop).map_err(explain)
    }

    async fn connect(&self, place: &Location) -> Result<Arc<dyn BackupStore>, StorageError> {
        Ok(match place {
            Location::Folder(folder) => Arc::new(local::LocalStore::new(folder.clone())),
            Location::Bucket { bucket, prefix } => {
                let place = (bucket.as_str(), prefix.as_str());
                let billing = self.billing_of(bucket);
                Arc::new(gcs::GcsStore::connect(place, billing, self.emulator.as_ref()).await?)
            }
        })
    }

    /// Puts a store in the place of the one at a location.
    #[cfg(test)]
    pub(crate) fn replace(&self, place: Location, store: Arc<dyn BackupStore>) {
        let client = OnceCell::new_with(Some(store));
        let slot = StoreSlot {
            client,
            ..StoreSlot::default()
        };
        self.open.lock().insert(place, Arc::new(slot));
    }

    /// Opens a store in the background: building its clients takes tens of milliseconds, most of them to
    /// load this machine's certificates. Errors are reported by [`Stores::at`].
    pub fn open_ahead(self: &Arc<Self>, place: Location) {
        let stores = self.clone();
        tokio::spawn(async move {
            let slot = stores.slot(&place);
            stores.client(&slot, &place).await.is_ok()
        });
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
        let slot = stores.open.lock().get(&place).cloned().unwrap();
        let open = slot.client.get().unwrap();
        assert!(Arc::ptr_eq(open, &stores.at(&place).await.unwrap()));
    }

    /// The other buckets of a configuration (records, evidence, sources) belong to others.
    #[test]
    fn only_the_bucket_of_the_backups_is_billed_to_the_user_project() {
        let place = |uri: &str| Location::parse(uri).unwrap();
        let stores =
            |bucket: &str, project| Stores::new(None).with_user_project(&place(bucket), project);
        let ours = stores("gs://ours/nightly", Some("payer"));
        let billed = Billing::BackupBucket(Some("payer".to_owned()));
        assert_eq!(ours.billing_of("ours"), billed);
        assert_eq!(ours.billing_of("theirs"), Billing::OtherBucket);
        let unset = stores("gs://ours", None);
        assert_eq!(unset.billing_of("ours"), Billing::BackupBucket(None));
        let folder = stores("file:///backups", Some("payer"));
        assert_eq!(folder.billing_of("ours"), Billing::OtherBucket);
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

    /// Many bytes may take their time, as long as they keep arriving; a few may not.
    #[tokio::test(start_paused = true)]
    async fn only_a_stall_ends_the_read_of_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let (store, object) = ten_bytes(&folder).await;
        store.fail(Call::Read, "x", StoreFault::Slow, 1);
        let read = read_small(&store, &object, 10).await.unwrap();
        assert_eq!((read.as_slice(), store.left("x")), (&b"0123456789"[..], 0));
        store.fail(Call::Read, "x", StoreFault::Slow, 99);
        let e = read_range(&store, &object, 0..10).await.unwrap_err();
        assert_eq!(e.kind(), StorageKind::DownloadFailed);
        store.fail(Call::Read, "y", StoreFault::Stall, 99);
        std::fs::write(folder.path().join("y"), "01").unwrap();
        let stalled = store.stat("y", None).await.unwrap();
        let e = read_small(&store, &stalled, 10).await.unwrap_err();
        assert_eq!(
            (e.kind(), store.left("y")),
            (StorageKind::DownloadFailed, 94)
        );
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

    /// An upload over a half-open connection, and a server that is unavailable, end one attempt.
    #[tokio::test(start_paused = true)]
    async fn an_object_is_written_again_after_a_stall_and_an_error() {
        use StorageKind as S;
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ten_bytes(&folder).await;
        let write = async |name: &str| {
            create_small(&store, name, Bytes::from_static(b"z"), "text/plain").await
        };
        store.fail(Call::Create, "y", StoreFault::Stall, 2);
        store.fail(Call::Create, "y", StoreFault::Error(S::DownloadFailed), 2);
        assert!(write("y").await.unwrap().is_some());
        assert_eq!(std::fs::read(folder.path().join("y")).unwrap(), b"z");
        assert_eq!(write("y").await.unwrap(), None, "it exists");
        for (fault, kind, writes) in [
            (StoreFault::Stall, S::DownloadFailed, 5),
            (StoreFault::Error(S::AccessDenied), S::AccessDenied, 1),
        ] {
            let name = format!("{kind:?}");
            store.fail(Call::Create, &name, fault, 99);
            assert_eq!(write(&name).await.unwrap_err().kind(), kind);
            assert_eq!(store.left(&name), 99 - writes);
        }
    }

    /// An object that may not be overwritten has taken its name; where nothing may be created, nothing has.
    #[tokio::test]
    async fn a_name_is_taken_by_what_may_not_be_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = ten_bytes(&folder).await;
        store.fail(
            Call::Create,
            "",
            StoreFault::Error(StorageKind::AccessDenied),
            99,
        );
        let create = async |name: &str| {
            create_unless_taken(&store, name, Bytes::from_static(b"z"), "text/plain").await
        };
        assert_eq!(create("x").await.unwrap(), None);
        let e = create("y").await.unwrap_err();
        assert_eq!(e.kind(), StorageKind::AccessDenied);
    }
}

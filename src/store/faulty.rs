//! A folder whose store fails as it is told to, for tests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::backup_store::{BackupStore, NameFilter, NewestObjects, ObjectBytes, StoredObject};
use super::local::LocalStore;
use super::object_body::ObjectBody;
use crate::error::{StorageError, StorageKind};
use crate::job::Generation;

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    List,
    Create,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreFault {
    /// No answer comes.
    Stall,
    /// The answer ends too early, and claims to be complete.
    Short,
    /// Every byte takes four seconds.
    Slow,
    /// The object is made, and the answer to that is an error.
    LostAnswer,
    Error(StorageKind),
}

/// A fault of the next calls that name this object or prefix; `left` says how many.
struct CallFault {
    call: Call,
    name: String,
    fault: StoreFault,
    left: usize,
}

pub(crate) struct FaultyStore {
    folder: Arc<LocalStore>,
    faults: Mutex<Vec<CallFault>>,
    unlisted: Mutex<Vec<StoredObject>>,
    longest: AtomicUsize,
    /// The objects that listings read for their checksums.
    summed: Mutex<Vec<String>>,
    /// How many objects fit into a listing of members.
    most: Mutex<usize>,
}

impl FaultyStore {
    pub(crate) fn at(folder: &Path) -> Self {
        FaultyStore {
            folder: Arc::new(LocalStore::new(folder.to_owned())),
            faults: Mutex::default(),
            unlisted: Mutex::default(),
            longest: AtomicUsize::default(),
            summed: Mutex::default(),
            most: Mutex::new(usize::MAX),
        }
    }

    /// Lets the next `times` calls fail that name an object or prefix which begins with `name`.
    pub(crate) fn fail(&self, call: Call, name: &str, fault: StoreFault, times: usize) {
        self.faults.lock().push(CallFault {
            call,
            name: name.to_owned(),
            fault,
            left: times,
        });
    }

    /// Lets nobody look into a folder, with a slash, in which something may have been made at `created`.
    pub(crate) fn hide(&self, folder: &str, created: jiff::Timestamp) {
        self.unlisted.lock().push(StoredObject {
            name: folder.to_owned(),
            size: 0,
            created,
            crc32c: None,
            generation: Generation::default(),
            members: None,
            is_unlisted: true,
            obstacle: None,
        });
    }

    /// Lets no listing of members hold more objects than these.
    pub(crate) fn hold(&self, most: usize) {
        *self.most.lock() = most;
    }

    /// What is listed of `objects`, which begin with `prefix`.
    fn without_hidden(
        &self,
        prefix: &str,
        mut objects: Vec<StoredObject>,
    ) -> Result<Vec<StoredObject>, StorageError> {
        self.longest.fetch_max(objects.len(), Ordering::Relaxed);
        for folder in self.unlisted.lock().iter() {
            if prefix.starts_with(&folder.name) {
                return Err(StorageError::new(
                    StorageKind::AccessDenied,
                    self.uri(prefix),
                ));
            }
            if folder.name.starts_with(prefix) {
                objects.retain(|o| !o.name.starts_with(&folder.name));
                objects.push(folder.clone());
            }
        }
        Ok(objects)
    }

    /// How many objects the longest listing so far had.
    pub(crate) fn longest_listing(&self) -> usize {
        self.longest.load(Ordering::Relaxed)
    }

    /// The names of the objects that listings have read for their checksums since the last call.
    pub(crate) fn take_summed(&self) -> Vec<String> {
        std::mem::take(&mut *self.summed.lock())
    }

    /// How many faults of an object no call has met.
    pub(crate) fn left(&self, name: &str) -> usize {
        let faults = self.faults.lock();
        let of_name = faults.iter().filter(|f| f.name == name);
        of_name.map(|f| f.left).sum()
    }

    fn fault(&self, call: Call, name: &str) -> Option<StoreFault> {
        let mut faults = self.faults.lock();
        let next = faults
            .iter_mut()
            .find(|f| f.call == call && f.left > 0 && name.starts_with(&f.name))?;
        next.left -= 1;
        Some(next.fault)
    }

    /// Fails, if this call is to fail without any answer or with an error.
    async fn meet(&self, call: Call, name: &str) -> Result<Option<StoreFault>, StorageError> {
        match self.fault(call, name) {
            Some(StoreFault::Stall) => std::future::pending().await,
            Some(StoreFault::Error(kind)) => Err(StorageError::new(kind, self.uri(name))),
            other => Ok(other),
        }
    }
}

impl BackupStore for FaultyStore {
    fn list_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        Box::pin(async move {
            self.meet(Call::List, prefix).await?;
            let objects = self.folder.list_named(prefix, wanted).await?;
            let names = objects.iter().map(|o| o.name.clone());
            self.summed.lock().extend(names);
            self.without_hidden(prefix, objects)
        })
    }

    fn members_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        Box::pin(async move {
            self.meet(Call::List, prefix).await?;
            let objects = self.folder.members_named(prefix, wanted).await?;
            if objects.len() > *self.most.lock() {
                return Err(StorageError::new(
                    StorageKind::ListingTooLong,
                    self.uri(prefix),
                ));
            }
            self.without_hidden(prefix, objects)
        })
    }

    fn newest_members<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
        most: usize,
    ) -> BoxFuture<'a, Result<NewestObjects, StorageError>> {
        Box::pin(async move {
            self.meet(Call::List, prefix).await?;
            let NewestObjects { objects, all } =
                self.folder.newest_members(prefix, wanted, most).await?;
            let objects = self.without_hidden(prefix, objects)?;
            Ok(NewestObjects { objects, all })
        })
    }

    fn stat<'a>(
        &'a self,
        name: &'a str,
        generation: Option<Generation>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>> {
        self.folder.stat(name, generation)
    }

    fn read<'a>(
        &'a self,
        object: &'a StoredObject,
        offset: u64,
        length: Option<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes, StorageError>> {
        Box::pin(async move {
            let fault = self.meet(Call::Read, &object.name).await?;
            if fault == Some(StoreFault::Short) {
                return Ok(futures::stream::empty().boxed());
            }
            let chunks = self.folder.read(object, offset, length).await?;
            if fault != Some(StoreFault::Slow) {
                return Ok(chunks);
            }
            let all: Vec<Bytes> = chunks.try_collect().await?;
            let slowly = futures::stream::iter(all.concat()).then(|byte| async move {
                tokio::time::sleep(Duration::from_secs(4)).await;
                Ok(Bytes::from(vec![byte]))
            });
            Ok(slowly.boxed())
        })
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        content: Bytes,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        Box::pin(async move {
            let fault = self.meet(Call::Create, name).await?;
            let made = self.folder.create(name, content, content_type).await;
            if fault == Some(StoreFault::LostAnswer) {
                return Err(StorageError::new(
                    StorageKind::DownloadFailed,
                    self.uri(name),
                ));
            }
            made
        })
    }

    fn create_of<'a>(
        &'a self,
        name: &'a str,
        body: ObjectBody,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        Box::pin(async move {
            self.meet(Call::Create, name).await?;
            self.folder.create_of(name, body, content_type).await
        })
    }

    fn delete<'a>(&'a self, object: &'a StoredObject) -> BoxFuture<'a, Result<(), StorageError>> {
        self.folder.delete(object)
    }

    fn uri(&self, name: &str) -> String {
        self.folder.uri(name)
    }
}

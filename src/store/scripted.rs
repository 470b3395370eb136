//! A store with one large object, whose streams and link are limited and fail where they are told to, for tests with a
//! paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use parking_lot::Mutex;
use pgdump_archive::Crc32c;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::backup_store::{BackupStore, NameFilter, NewestObjects, ObjectBytes, StoredObject};
use super::object_body::ObjectBody;
use crate::error::{StorageError, StorageKind};
use crate::job::Generation;

/// Bytes that a stream sends at once; all of them are the same.
const BLOCK: u64 = 64 << 10;

/// What happens to the next stream that would send a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamFault {
    /// The connection breaks.
    Cut,
    /// Nothing more comes.
    Stall,
    /// The answer ends, and claims to be complete.
    Short,
    Error(StorageKind),
}

struct ScriptedFault {
    offset: u64,
    fault: StreamFault,
    left: usize,
}

struct ScriptedObject {
    size: u64,
    /// Bytes per second.
    per_stream: u64,
    link: u64,
    /// When the link is free for the next bytes.
    next_slot: Mutex<Option<Instant>>,
    faults: Mutex<Vec<ScriptedFault>>,
    /// The ranges that were requested.
    reads: Mutex<Vec<(u64, Option<u64>)>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

pub(crate) struct ScriptedStore {
    inner: Arc<ScriptedObject>,
    spare: Semaphore,
}

/// A stream that is open until it is dropped.
struct OpenStream {
    inner: Arc<ScriptedObject>,
    offset: u64,
    end: u64,
    sent: u64,
    begun: Instant,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.inner.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn block(number: u64) -> u8 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

impl ScriptedStore {
    /// An object of `size` bytes, with rates in bytes per second.
    pub(crate) fn new(size: u64, per_stream: u64, link: u64) -> Self {
        let inner = ScriptedObject {
            size,
            per_stream,
            link,
            next_slot: Mutex::default(),
            faults: Mutex::default(),
            reads: Mutex::default(),
            open: AtomicUsize::default(),
            most_open: AtomicUsize::default(),
        };
        ScriptedStore {
            inner: Arc::new(inner),
            spare: Semaphore::new(14),
        }
    }

    pub(crate) fn object(&self) -> StoredObject {
        let blocks = (0..self.inner.size.div_ceil(BLOCK)).map(|number| {
            let length = BLOCK.min(self.inner.size - number * BLOCK);
            vec![block(number); length as usize]
        });
        let crc = blocks.fold(Crc32c::default(), |crc, bytes| crc.append(&bytes));
        StoredObject {
            size: self.inner.size,
            crc32c: Some(crc),
            ..StoredObject::named("large.dump")
        }
    }

    /// Lets the next `times` streams fail that come to this byte.
    pub(crate) fn fail(&self, offset: u64, fault: StreamFault, times: usize) {
        self.inner.faults.lock().push(ScriptedFault {
            offset,
            fault,
            left: times,
        });
    }

    pub(crate) fn faults_left(&self) -> usize {
        self.inner.faults.lock().iter().map(|f| f.left).sum()
    }

    pub(crate) fn reads(&self) -> Vec<(u64, Option<u64>)> {
        self.inner.reads.lock().clone()
    }

    /// How many streams are open, and how many were at most.
    pub(crate) fn streams(&self) -> (usize, usize) {
        let inner = &self.inner;
        (
            inner.open.load(Ordering::Relaxed),
            inner.most_open.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn spare_left(&self) -> usize {
        self.spare.available_permits()
    }
}

impl OpenStream {
    fn open(inner: Arc<ScriptedObject>, offset: u64, length: Option<u64>) -> Self {
        inner.reads.lock().push((offset, length));
        let open = inner.open.fetch_add(1, Ordering::Relaxed) + 1;
        inner.most_open.fetch_max(open, Ordering::Relaxed);
        let end = length.map_or(inner.size, |length| offset + length);
        OpenStream {
            inner,
            offset,
            end,
            sent: 0,
            begun: Instant::now(),
        }
    }

    /// The fault at the next byte, and where the next one is.
    fn fault(&self) -> (Option<StreamFault>, u64) {
        let mut faults = self.inner.faults.lock();
        let due = faults.iter_mut().filter(|f| f.left > 0);
        let mut next = u64::MAX;
        for f in due {
            if f.offset == self.offset {
                f.left -= 1;
                return (Some(f.fault), next);
            }
            if f.offset > self.offset {
                next = next.min(f.offset);
            }
        }
        (None, next)
    }

    /// Waits until so many bytes may be sent.
    async fn pace(&self, bytes: u64) {
        let due = (self.sent + bytes) as f64 / self.inner.per_stream as f64;
        tokio::time::sleep_until(self.begun + Duration::from_secs_f64(due)).await;
        let slot = {
            let mut next = self.inner.next_slot.lock();
            let now = Instant::now();
            let from = next.unwrap_or(now).max(now);
            let end = from + Duration::from_secs_f64(bytes as f64 / self.inner.link as f64);
            *next = Some(end);
            end
        };
        tokio::time::sleep_until(slot).await;
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        if self.offset == self.end {
            return Ok(None);
        }
        let (fault, limit) = self.fault();
        match fault {
            Some(StreamFault::Cut) => {
                return Err(StorageError::new(StorageKind::DownloadFailed, "cut"));
            }
            Some(StreamFault::Error(kind)) => return Err(StorageError::new(kind, "scripted")),
            Some(StreamFault::Stall) => std::future::pending().await,
            Some(StreamFault::Short) => return Ok(None),
            None => {}
        }
        let number = self.offset / BLOCK;
        let to = ((number + 1) * BLOCK).min(self.end).min(limit);
        let n = to - self.offset;
        self.pace(n).await;
        self.offset = to;
        self.sent += n;
        Ok(Some(vec![block(number); n as usize].into()))
    }
}

impl BackupStore for ScriptedStore {
    fn read<'a>(
        &'a self,
        _object: &'a StoredObject,
        offset: u64,
        length: Option<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes, StorageError>> {
        let stream = OpenStream::open(self.inner.clone(), offset, length);
        Box::pin(async move {
            let bytes = futures::stream::try_unfold(stream, |mut stream| async move {
                Ok(stream.next().await?.map(|bytes| (bytes, stream)))
            });
            Ok(bytes.boxed())
        })
    }

    fn spare_streams(&self) -> Option<&Semaphore> {
        Some(&self.spare)
    }

    fn uri(&self, name: &str) -> String {
        format!("scripted://{name}")
    }

    fn list_named<'a>(
        &'a self,
        _prefix: &'a str,
        _wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        unimplemented!("it has one object")
    }

    fn members_named<'a>(
        &'a self,
        _prefix: &'a str,
        _wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        unimplemented!("it has one object")
    }

    fn newest_members<'a>(
        &'a self,
        _prefix: &'a str,
        _wanted: NameFilter,
        _most: usize,
    ) -> BoxFuture<'a, Result<NewestObjects, StorageError>> {
        unimplemented!("it has one object")
    }

    fn stat<'a>(
        &'a self,
        _name: &'a str,
        _generation: Option<Generation>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>> {
        unimplemented!("its object is known")
    }

    fn create<'a>(
        &'a self,
        _name: &'a str,
        _content: Bytes,
        _content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        unimplemented!("it is only read")
    }

    fn create_of<'a>(
        &'a self,
        _name: &'a str,
        _body: ObjectBody,
        _content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>> {
        unimplemented!("it is only read")
    }

    fn delete<'a>(&'a self, _object: &'a StoredObject) -> BoxFuture<'a, Result<(), StorageError>> {
        unimplemented!("it is only read")
    }
}

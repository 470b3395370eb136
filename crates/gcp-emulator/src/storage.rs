//! Cloud Storage: objects with generations and checksums. Metadata over gRPC; bytes over JSON/HTTP with ranges and
//! preconditions; simple and resumable uploads.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use base64::Engine;
use bytes::Bytes;
use futures::StreamExt;
use googleapis_tonic_google_storage_v2::google::storage::v2 as pb;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tonic::Status;

use super::grpc::unary;
use super::object_versions::{
    BucketOptions, Object, ObjectContent, ObjectHolds, ObjectVersions, bucket_of,
};
use super::resumable::ResumableUploads;

const CHUNK: u64 = 256 << 10;

/// A fault of one read of an object's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageFault {
    /// The connection ends after this many bytes.
    CutAfter(u64),
    /// No byte follows after this many.
    StallAfter(u64),
    /// The byte at this offset of the object has a bit flipped.
    Flip(u64),
    /// The read fails as unavailable.
    Unavailable,
    /// The read fails with too many requests.
    TooManyRequests,
    /// The range is ignored: the whole object is sent.
    WholeObject,
    /// The response ends regularly after this many bytes and claims to be complete.
    ShortAfter(u64),
    /// The object is overwritten after this many bytes, and the connection ends.
    OverwrittenAfter(u64),
}

/// An object that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalizedObject {
    pub bucket: String,
    pub name: String,
    pub generation: i64,
}

#[derive(Debug, Default)]
pub(super) struct StorageState {
    pub(super) versions: ObjectVersions,
    /// Faults of the next reads, in order.
    faults: std::collections::VecDeque<StorageFault>,
    /// Chooses the fault of each further read.
    disturbance: Option<fn() -> Option<StorageFault>>,
    reads: u64,
    /// Bytes of objects that were sent.
    sent: u64,
    /// Bytes per second over all reads; 0 for unlimited.
    rate: u64,
    /// Bytes per second of each read.
    rate_each: u64,
    /// When the next byte may be sent.
    next_slot: Option<tokio::time::Instant>,
    /// Who is told of objects that are stored.
    listener: Option<mpsc::UnboundedSender<FinalizedObject>>,
}

impl StorageState {
    /// Makes an object the live one of its name, and tells the listener.
    fn store(&mut self, bucket: &str, name: &str, object: Object) {
        let generation = object.generation;
        self.versions.insert(bucket, name, object);
        if let Some(listener) = &self.listener {
            // A listener that has gone wants nothing.
            let _ = listener.send(FinalizedObject {
                bucket: bucket.to_owned(),
                name: name.to_owned(),
                generation,
            });
        }
    }
}

/// The Cloud Storage side of an emulator.
#[derive(Debug, Clone, Default)]
pub struct StorageService {
    inner: Arc<Mutex<StorageState>>,
    pub(super) uploads: ResumableUploads,
}

impl StorageService {
    pub(super) fn lock(&self) -> MutexGuard<'_, StorageState> {
        self.inner.lock()
    }

    /// Stores an object and returns its generation.
    pub fn put(&self, bucket: &str, name: &str, data: impl Into<Bytes>) -> i64 {
        self.put_bytes((bucket, name), data.into(), None)
    }

    /// The same as if it had been stored at `time`, when the generation before it ended.
    pub fn put_at(
        &self,
        bucket: &str,
        name: &str,
        data: impl Into<Bytes>,
        time: SystemTime,
    ) -> i64 {
        self.put_bytes((bucket, name), data.into(), Some(time))
    }

    fn put_bytes(&self, key: (&str, &str), data: Bytes, time: Option<SystemTime>) -> i64 {
        let (size, crc32c) = (data.len() as u64, crc32c::crc32c(&data));
        self.insert(key, ObjectContent::Memory(data), (size, crc32c), time)
    }

    /// Stores an object whose bytes stay in a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn put_file(&self, bucket: &str, name: &str, path: PathBuf) -> std::io::Result<i64> {
        use std::io::Read;
        let mut file = std::fs::File::open(&path)?;
        let (mut crc, mut size, mut buf) = (0, 0, vec![0; CHUNK as usize]);
        loop {
            match file.read(&mut buf)? {
                0 => break,
                n => {
                    crc = crc32c::crc32c_append(crc, &buf[..n]);
                    size += n as u64;
                }
            }
        }
        Ok(self.insert((bucket, name), ObjectContent::File(path), (size, crc), None))
    }

    /// Stores an object as if at a time; without one, now.
    fn insert(
        &self,
        (bucket, name): (&str, &str),
        content: ObjectContent,
        (size, crc32c): (u64, u32),
        time: Option<SystemTime>,
    ) -> i64 {
        let mut inner = self.lock();
        let generation = inner.versions.next_generation();
        let object = Object {
            content,
            size,
            crc32c,
            generation,
            created: time.unwrap_or_else(SystemTime::now),
            is_gzip: false,
            holds: ObjectHolds::default(),
        };
        inner.store(bucket, name, object);
        generation
    }

    /// How many resumable uploads have begun and not ended.
    pub fn open_uploads(&self) -> usize {
        self.uploads.open()
    }

    /// Every object that is stored from now on, in place of an earlier listener.
    pub fn finalized(&self) -> mpsc::UnboundedReceiver<FinalizedObject> {
        let (listener, finalized) = mpsc::unbounded_channel();
        self.lock().listener = Some(listener);
        finalized
    }

    /// Makes the metadata of an object claim another CRC32C than its bytes have.
    pub fn set_crc32c(&self, bucket: &str, name: &str, crc32c: u32) {
        if let Some(o) = self.lock().versions.live_mut(bucket, name) {
            o.crc32c = crc32c;
        }
    }

    /// Sets `Content-Encoding: gzip` in the metadata of an object.
    pub fn set_gzip_encoding(&self, bucket: &str, name: &str) {
        if let Some(o) = self.lock().versions.live_mut(bucket, name) {
            o.is_gzip = true;
        }
    }

    pub fn delete(&self, bucket: &str, name: &str) {
        self.lock()
            .versions
            .live
            .remove(&(bucket.to_owned(), name.to_owned()));
    }

    /// Deletes an object, and keeps it for a week.
    pub fn soft_delete(&self, bucket: &str, name: &str) {
        self.lock().versions.soft_delete(bucket, name);
    }

    /// Sets what a bucket does with its objects.
    pub fn set_bucket(&self, bucket: &str, options: BucketOptions) {
        self.lock().versions.set_bucket(bucket, options);
    }

    /// Sets what keeps the live object of a name.
    pub fn set_holds(&self, bucket: &str, name: &str, holds: ObjectHolds) {
        if let Some(o) = self.lock().versions.live_mut(bucket, name) {
            o.holds = holds;
        }
    }

    /// Sets when a generation was made and, if it is not live any more, when it ended.
    pub fn set_times(&self, object: (&str, &str, i64), created: SystemTime, ended: SystemTime) {
        self.lock().versions.set_times(object, created, ended);
    }

    /// Stores the same bytes as a new generation.
    fn overwrite(&self, bucket: &str, name: &str) {
        let mut inner = self.lock();
        let generation = inner.versions.next_generation();
        if let Some(object) = inner.versions.live_mut(bucket, name) {
            object.generation = generation;
        }
    }

    /// Sets the faults of all further reads, which `fault` chooses.
    pub fn disturb_reads(&self, fault: fn() -> Option<StorageFault>) {
        self.lock().disturbance = Some(fault);
    }

    /// Sets the faults of the next reads, one each.
    pub fn fail_next_reads(&self, faults: impl IntoIterator<Item = StorageFault>) {
        self.lock().faults.extend(faults);
    }

    /// Removes faults that no read has met.
    pub fn clear_faults(&self) {
        self.lock().disturbance = None;
        self.lock().faults.clear();
    }

    /// Limits all reads together to this many bytes per second; 0 for no limit.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        self.lock().rate = bytes_per_second;
    }

    /// Limits each read by itself, as a bucket does; 0 for no limit.
    pub fn limit_rate_each(&self, bytes_per_second: u64) {
        self.lock().rate_each = bytes_per_second;
    }

    /// Number of reads of object bytes so far.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Bytes of objects that were sent so far.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    /// Names and generations of a bucket's objects.
    pub fn objects(&self, bucket: &str) -> Vec<(String, i64)> {
        let inner = self.lock();
        let live = inner.versions.live.iter();
        let own = live.filter(|((b, _), _)| b == bucket);
        own.map(|((_, name), o)| (name.clone(), o.generation))
            .collect()
    }

    /// The bytes of an object.
    pub fn get(&self, bucket: &str, name: &str) -> Option<Bytes> {
        match self.find(bucket, name, 0)?.content {
            ObjectContent::Memory(data) => Some(data),
            ObjectContent::File(path) => std::fs::read(path).ok().map(Bytes::from),
        }
    }

    /// Sets the creation time of an object.
    pub fn set_created(&self, bucket: &str, name: &str, created: SystemTime) {
        if let Some(o) = self.lock().versions.live_mut(bucket, name) {
            o.created = created;
        }
    }

    /// Makes a soft-deleted object live again.
    fn restore_object(&self, r: &pb::RestoreObjectRequest) -> Result<pb::Object, Status> {
        let mut inner = self.lock();
        let object = inner.versions.restored(r)?;
        let bucket = bucket_of(&r.bucket);
        let described = inner.versions.described(bucket, &r.object, &object);
        inner.store(bucket, &r.object, object);
        Ok(described)
    }

    fn get_object(&self, r: &pb::GetObjectRequest) -> Result<pb::Object, Status> {
        let (inner, bucket) = (self.lock(), bucket_of(&r.bucket));
        let found = inner.versions.find(bucket, &r.object, r.generation);
        let found = found.map(|o| inner.versions.described(bucket, &r.object, o));
        found.ok_or_else(|| Status::not_found("No such object"))
    }

    pub(super) fn find(&self, bucket: &str, name: &str, generation: i64) -> Option<Object> {
        let inner = self.lock();
        inner.versions.find(bucket, name, generation).cloned()
    }

    /// How many bytes to send at once: those of a read that is limited are due within a twentieth of a second, so that it
    /// never seems to stall, and goes on soon after its limit is lifted.
    fn piece(&self) -> u64 {
        let inner = self.lock();
        let limits = [inner.rate, inner.rate_each].into_iter();
        let lowest = limits.filter(|rate| *rate > 0).min();
        lowest.map_or(CHUNK, |rate| (rate / 20).clamp(1, CHUNK))
    }

    /// Waits until this many bytes may be sent, for a read that has sent `sent` since `begun`.
    async fn pace(&self, bytes: u64, sent: u64, begun: tokio::time::Instant) {
        let each = self.lock().rate_each;
        if each > 0 {
            let due = Duration::from_secs_f64((sent + bytes) as f64 / each as f64);
            tokio::time::sleep_until(begun + due).await;
        }
        let turn = {
            let mut inner = self.lock();
            if inner.rate == 0 {
                return;
            }
            let now = tokio::time::Instant::now();
            let slot = inner
                .next_slot
                .unwrap_or(now)
                .max(now - Duration::from_millis(50));
            let end = slot + Duration::from_secs_f64(bytes as f64 / inner.rate as f64);
            inner.next_slot = Some(end);
            end
        };
        tokio::time::sleep_until(turn).await;
    }

    /// A method that is answered at once.
    fn unary<Q, R>(
        &self,
        answer: impl Fn(&Self, Q) -> Result<R, Status> + Clone + Send + Sync + 'static,
    ) -> MethodRouter
    where
        Q: prost::Message + Default + Send + 'static,
        R: prost::Message + Default + Send + 'static,
    {
        let service = self.clone();
        unary(move |r: Q| std::future::ready(answer(&service, r)))
    }

    pub(super) fn router(&self) -> Router {
        let rest = Router::new()
            .route("/storage/v1/b/{bucket}/o/{object}", get(read))
            .with_state(self.clone());
        Router::new()
            .route(
                "/google.storage.v2.Storage/ListObjects",
                self.unary(|s, r: pb::ListObjectsRequest| Ok(s.lock().versions.list(&r))),
            )
            .route(
                "/google.storage.v2.Storage/GetObject",
                self.unary(|s, r: pb::GetObjectRequest| s.get_object(&r)),
            )
            .route(
                "/google.storage.v2.Storage/DeleteObject",
                self.unary(|s, r: pb::DeleteObjectRequest| s.lock().versions.delete(&r)),
            )
            .route(
                "/google.storage.v2.Storage/RestoreObject",
                self.unary(|s, r: pb::RestoreObjectRequest| s.restore_object(&r)),
            )
            .route(
                "/google.storage.v2.Storage/GetBucket",
                self.unary(|s, r: pb::GetBucketRequest| {
                    Ok(s.lock().versions.describe_bucket(&r.name))
                }),
            )
            .merge(rest)
    }
}

/// First and last byte of a `Range` header, or `None` if it lies outside the object.
fn range_of(headers: &HeaderMap, size: u64) -> Option<(u64, u64, bool)> {
    let range = headers
        .get(header::RANGE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("bytes="));
    let Some((from, to)) = range.and_then(|r| r.split_once('-')) else {
        return Some((0, size.saturating_sub(1), false));
    };
    let (first, last) = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(a), Ok(b)) => (a, b.min(size.saturating_sub(1))),
        (Ok(a), Err(_)) => (a, size.saturating_sub(1)),
        (Err(_), Ok(tail)) => (size.saturating_sub(tail), size.saturating_sub(1)),
        (Err(_), Err(_)) => return None,
    };
    (first < size && first <= last).then_some((first, last, true))
}

async fn read(
    State(s): State<StorageService>,
    Path((bucket, name)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let number = |key: &str| query.get(key).and_then(|v| v.parse::<i64>().ok());
    let Some(object) = s.find(&bucket, &name, number("generation").unwrap_or(0)) else {
        return (StatusCode::NOT_FOUND, "No such object").into_response();
    };
    if number("ifGenerationMatch").is_some_and(|g| g != object.generation) {
        return (StatusCode::PRECONDITION_FAILED, "conditionNotMet").into_response();
    }
    let fault = {
        let mut inner = s.lock();
        inner.reads += 1;
        inner.faults.pop_front().or_else(|| inner.disturbance?())
    };
    match fault {
        Some(StorageFault::Unavailable) => {
            return (StatusCode::SERVICE_UNAVAILABLE, "backendError").into_response();
        }
        Some(StorageFault::TooManyRequests) => {
            return (StatusCode::TOO_MANY_REQUESTS, "rateLimitExceeded").into_response();
        }
        _ => {}
    }
    if object.is_gzip {
        let accepts = headers
            .get(header::ACCEPT_ENCODING)
            .and_then(|v| v.to_str().ok());
        if !accepts.is_some_and(|a| a.contains("gzip")) {
            // The service would send it decompressed; the client under test always accepts gzip.
            return (StatusCode::NOT_IMPLEMENTED, "decompressive transcoding").into_response();
        }
    }
    let range = match fault {
        Some(StorageFault::WholeObject) => Some((0, object.size.saturating_sub(1), false)),
        _ => range_of(&headers, object.size),
    };
    let Some((first, last, partial)) = range else {
        return (StatusCode::RANGE_NOT_SATISFIABLE, "range").into_response();
    };
    let length = if object.size == 0 {
        0
    } else {
        last - first + 1
    };
    let length = match fault {
        Some(StorageFault::ShortAfter(at)) => length.min(at),
        _ => length,
    };
    let overwrite = (bucket, name);
    let crc = base64::engine::general_purpose::STANDARD.encode(object.crc32c.to_be_bytes());
    let mut response = Response::builder()
        .status(if partial {
            StatusCode::PARTIAL_CONTENT
        } else {
            StatusCode::OK
        })
        .header("x-goog-generation", object.generation)
        .header("x-goog-metageneration", 1)
        .header("x-goog-hash", format!("crc32c={crc}"))
        .header("x-goog-stored-content-length", object.size)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_LENGTH, length);
    if object.is_gzip {
        response = response.header(header::CONTENT_ENCODING, "gzip");
    }
    if partial {
        response = response.header(
            header::CONTENT_RANGE,
            format!("bytes {first}-{last}/{}", object.size),
        );
    }
    let body = body_of(s, object.content, (first, length), fault, overwrite);
    response
        .body(body)
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The bytes from `first` on, in pieces, at the configured rate, with the fault applied.
fn body_of(
    s: StorageService,
    content: ObjectContent,
    (first, length): (u64, u64),
    fault: Option<StorageFault>,
    (bucket, name): (String, String),
) -> Body {
    let start = (s, content, None::<tokio::fs::File>, 0u64);
    let begun = tokio::time::Instant::now();
    let stream = futures::stream::try_unfold(start, move |(s, content, mut file, sent)| {
        let (bucket, name) = (bucket.clone(), name.clone());
        async move {
            let mut n = s.piece().min(length - sent);
            use StorageFault as F;
            match fault {
                Some(F::OverwrittenAfter(at)) if sent >= at => {
                    s.overwrite(&bucket, &name);
                    return Err(std::io::Error::other("cut"));
                }
                Some(StorageFault::CutAfter(at)) if sent >= at => {
                    return Err(std::io::Error::other("cut"));
                }
                Some(StorageFault::StallAfter(at)) if sent >= at => std::future::pending().await,
                Some(F::CutAfter(at) | F::StallAfter(at) | F::OverwrittenAfter(at)) => {
                    n = n.min(at - sent)
                }
                _ => {}
            }
            if n == 0 {
                return Ok(None);
            }
            let from = first + sent;
            let mut chunk = match &content {
                ObjectContent::Memory(data) => data.slice(from as usize..(from + n) as usize),
                ObjectContent::File(path) => {
                    if file.is_none() {
                        let mut f = tokio::fs::File::open(path).await?;
                        f.seek(std::io::SeekFrom::Start(from)).await?;
                        file = Some(f);
                    }
                    let mut buf = vec![0; n as usize];
                    if let Some(f) = &mut file {
                        f.read_exact(&mut buf).await?;
                    }
                    buf.into()
                }
            };
            if let Some(StorageFault::Flip(at)) = fault
                && (from..from + n).contains(&at)
            {
                let mut damaged = chunk.to_vec();
                damaged[(at - from) as usize] ^= 0x10;
                chunk = damaged.into();
            }
            s.pace(n, sent, begun).await;
            s.lock().sent += n;
            Ok(Some((chunk, (s, content, file, sent + n))))
        }
    });
    Body::from_stream(stream.boxed())
}

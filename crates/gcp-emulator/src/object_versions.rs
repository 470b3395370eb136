//! The objects of all buckets: live ones, non-current generations, soft-deleted ones, and what keeps an object from being
//! deleted or overwritten.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use googleapis_tonic_google_storage_v2::google::storage::v2 as pb;
use pb::object::retention::Mode;
use tonic::Status;

/// How long a soft-deleted object is kept, as buckets do by default.
const SOFT_DELETION: Duration = Duration::from_secs(7 * 24 * 3600);

/// Objects of one page of a listing, if the client does not say.
const PAGE: usize = 1000;

#[derive(Debug, Clone)]
pub(super) enum ObjectContent {
    Memory(Bytes),
    File(PathBuf),
}

#[derive(Debug, Clone)]
pub(super) struct Object {
    pub content: ObjectContent,
    pub size: u64,
    pub crc32c: u32,
    pub generation: i64,
    pub created: SystemTime,
    /// `Content-Encoding: gzip`: clients that do not accept gzip get the object decompressed.
    pub is_gzip: bool,
    pub holds: ObjectHolds,
}

/// What keeps one object, beside the retention policy of its bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectHolds {
    pub temporary: bool,
    pub event_based: bool,
    /// The end of the object's own retention.
    pub retain_until: Option<SystemTime>,
}

/// What a bucket does with its objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BucketOptions {
    /// What is overwritten or deleted becomes non-current.
    pub versioning: bool,
    /// What is overwritten or deleted for good is soft-deleted.
    pub soft_delete: bool,
    /// How long each object is kept by the retention policy.
    pub retention: Option<Duration>,
    /// The retention policy is locked.
    pub is_retention_locked: bool,
}

/// The bucket and name of an object.
type Key = (String, String);
/// An object that is not live any more, and since when.
type Former = (Object, SystemTime);

#[derive(Debug, Default)]
pub(super) struct ObjectVersions {
    pub live: BTreeMap<Key, Object>,
    noncurrent: BTreeMap<(Key, i64), Former>,
    deleted: BTreeMap<(Key, i64), Former>,
    buckets: BTreeMap<String, BucketOptions>,
    last_generation: i64,
}

fn key_of(bucket: &str, name: &str) -> Key {
    (bucket.to_owned(), name.to_owned())
}

pub(super) fn bucket_of(resource: &str) -> &str {
    resource
        .strip_prefix("projects/_/buckets/")
        .unwrap_or(resource)
}

fn no_such_object() -> Status {
    Status::not_found("No such object")
}

fn condition_not_met() -> Status {
    Status::failed_precondition("conditionNotMet")
}

impl ObjectVersions {
    pub(super) fn set_bucket(&mut self, bucket: &str, options: BucketOptions) {
        self.buckets.insert(bucket.to_owned(), options);
    }

    fn options(&self, bucket: &str) -> BucketOptions {
        self.buckets.get(bucket).copied().unwrap_or_default()
    }

    pub(super) fn live_mut(&mut self, bucket: &str, name: &str) -> Option<&mut Object> {
        self.live.get_mut(&key_of(bucket, name))
    }

    /// A live or non-current object; of generation 0, the live one.
    pub(super) fn find(&self, bucket: &str, name: &str, generation: i64) -> Option<&Object> {
        let key = key_of(bucket, name);
        let live = self.live.get(&key);
        if let Some(live) = live.filter(|o| generation == 0 || o.generation == generation) {
            return Some(live);
        }
        self.noncurrent.get(&(key, generation)).map(|(o, _)| o)
    }

    pub(super) fn next_generation(&mut self) -> i64 {
        let micros = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_micros();
        let generation = i64::try_from(micros)
            .unwrap_or(i64::MAX)
            .max(self.last_generation + 1);
        self.last_generation = generation;
        generation
    }

    /// Makes an object the live one of its name. The one before it ends when it begins.
    pub(super) fn insert(&mut self, bucket: &str, name: &str, object: Object) {
        self.retire(bucket, name, object.created);
        self.live.insert(key_of(bucket, name), object);
    }

    /// Ends the life of the live object of a name, as the bucket's options say.
    fn retire(&mut self, bucket: &str, name: &str, now: SystemTime) {
        let key = key_of(bucket, name);
        let Some(object) = self.live.remove(&key) else {
            return;
        };
        let options = self.options(bucket);
        let generation = object.generation;
        if options.versioning {
            self.noncurrent.insert((key, generation), (object, now));
        } else if options.soft_delete {
            self.deleted.insert((key, generation), (object, now));
        }
    }

    /// Soft-deletes the live object of a name, whatever the bucket's options are.
    pub(super) fn soft_delete(&mut self, bucket: &str, name: &str) {
        let key = key_of(bucket, name);
        if let Some(object) = self.live.remove(&key) {
            let generation = object.generation;
            self.deleted
                .insert((key, generation), (object, SystemTime::now()));
        }
    }

    /// Says that a generation was made at `created` and, if it is not live any more, ended at `ended`.
    pub(super) fn set_times(
        &mut self,
        (bucket, name, generation): (&str, &str, i64),
        created: SystemTime,
        ended: SystemTime,
    ) {
        let key = key_of(bucket, name);
        if let Some(live) = self.live.get_mut(&key)
            && live.generation == generation
        {
            live.created = created;
        }
        let former = (key, generation);
        for all in [&mut self.noncurrent, &mut self.deleted] {
            if let Some((object, end)) = all.get_mut(&former) {
                (object.created, *end) = (created, ended);
            }
        }
    }

    /// When the retention of an object ends, by its own and by the policy of its bucket.
    fn retained_until(&self, bucket: &str, object: &Object) -> Option<SystemTime> {
        let by_policy = self.options(bucket).retention;
        let by_policy = by_policy.map(|retention| object.created + retention);
        by_policy.max(object.holds.retain_until)
    }

    /// Refuses to delete or overwrite what is kept, in the words of the service.
    pub(super) fn check_not_kept(
        &self,
        bucket: &str,
        name: &str,
        object: &Object,
    ) -> Result<(), Status> {
        let hold = match object.holds {
            ObjectHolds {
                temporary: true, ..
            } => Some("Temporary"),
            ObjectHolds {
                event_based: true, ..
            } => Some("Event-Based"),
            ObjectHolds { .. } => None,
        };
        if let Some(hold) = hold {
            return Err(Status::permission_denied(format!(
                "Object '{bucket}/{name}' is under active {hold} hold and cannot be deleted, overwritten or archived until \
                 hold is removed."
            )));
        }
        let until = self.retained_until(bucket, object);
        match until.filter(|until| *until > SystemTime::now()) {
            None => Ok(()),
            Some(until) => Err(Status::permission_denied(format!(
                "Object '{bucket}/{name}' is subject to bucket's retention policy or object retention and cannot be deleted \
                 or overwritten until {}",
                prost_types::Timestamp::from(until)
            ))),
        }
    }

    pub(super) fn delete(&mut self, r: &pb::DeleteObjectRequest) -> Result<(), Status> {
        let (bucket, name) = (bucket_of(&r.bucket), r.object.as_str());
        let found = self.find(bucket, name, r.generation);
        let object = found.ok_or_else(no_such_object)?.clone();
        if r.if_generation_match
            .is_some_and(|g| g != object.generation)
        {
            return Err(condition_not_met());
        }
        self.check_not_kept(bucket, name, &object)?;
        let now = SystemTime::now();
        if r.generation == 0 {
            self.retire(bucket, name, now);
            return Ok(());
        }
        // A generation that is named is deleted for good.
        let key = key_of(bucket, name);
        let generation = object.generation;
        if self.noncurrent.remove(&(key.clone(), generation)).is_none() {
            self.live.remove(&key);
        }
        if self.options(bucket).soft_delete {
            self.deleted.insert((key, generation), (object, now));
        }
        Ok(())
    }

    /// A copy of a soft-deleted object, to be made the live one.
    pub(super) fn restored(&mut self, r: &pb::RestoreObjectRequest) -> Result<Object, Status> {
        let (bucket, name) = (bucket_of(&r.bucket), r.object.as_str());
        let key = key_of(bucket, name);
        let found = self.deleted.get(&(key.clone(), r.generation));
        let (object, _) = found.ok_or_else(no_such_object)?;
        let copy = object.clone();
        let live = self.live.get(&key);
        let is_other = |g: i64| g != live.map_or(0, |o| o.generation);
        if r.if_generation_match.is_some_and(is_other) {
            return Err(condition_not_met());
        }
        if let Some(live) = live {
            self.check_not_kept(bucket, name, live)?;
        }
        Ok(Object {
            generation: self.next_generation(),
            created: SystemTime::now(),
            holds: ObjectHolds::default(),
            ..copy
        })
    }

    pub(super) fn described(&self, bucket: &str, name: &str, o: &Object) -> pb::Object {
        let retention = o.holds.retain_until.map(|until| pb::object::Retention {
            mode: Mode::Unlocked.into(),
            retain_until_time: Some(until.into()),
        });
        pb::Object {
            name: name.to_owned(),
            bucket: format!("projects/_/buckets/{bucket}"),
            generation: o.generation,
            metageneration: 1,
            size: i64::try_from(o.size).unwrap_or(i64::MAX),
            create_time: Some(o.created.into()),
            update_time: Some(o.created.into()),
            checksums: Some(pb::ObjectChecksums {
                crc32c: Some(o.crc32c),
                ..Default::default()
            }),
            temporary_hold: o.holds.temporary,
            event_based_hold: o.holds.event_based.then_some(true),
            retention_expire_time: self.retained_until(bucket, o).map(Into::into),
            retention,
            ..Default::default()
        }
    }

    pub(super) fn describe_bucket(&self, resource: &str) -> pb::Bucket {
        let options = self.options(bucket_of(resource));
        let seconds = |d: Duration| prost_types::Duration {
            seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        };
        pb::Bucket {
            name: resource.to_owned(),
            bucket_id: bucket_of(resource).to_owned(),
            versioning: options
                .versioning
                .then_some(pb::bucket::Versioning { enabled: true }),
            retention_policy: options.retention.map(|d| pb::bucket::RetentionPolicy {
                is_locked: options.is_retention_locked,
                retention_duration: Some(seconds(d)),
                ..Default::default()
            }),
            soft_delete_policy: options.soft_delete.then(|| pb::bucket::SoftDeletePolicy {
                retention_duration: Some(seconds(SOFT_DELETION)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// One page of live objects, of all generations, or of soft-deleted ones.
    pub(super) fn list(&self, r: &pb::ListObjectsRequest) -> pb::ListObjectsResponse {
        let page = usize::try_from(r.page_size).ok().filter(|n| *n > 0);
        let page = page.unwrap_or(PAGE);
        // A token is the last object's name and generation.
        let after = r.page_token.rsplit_once('\n');
        let after = after.and_then(|(name, g)| Some((name, g.parse::<i64>().ok()?)));
        let bucket = bucket_of(&r.parent);
        let begin = key_of(bucket, after.map_or(r.prefix.as_str(), |(name, _)| name));
        let is_wanted = |(_, name): &Key, generation: i64| {
            after.is_none_or(|after| (name.as_str(), generation) > after)
        };
        let mut objects: Vec<pb::Object> = if r.soft_deleted {
            let deleted = former_of(&self.deleted, &begin, &r.prefix, is_wanted, page);
            let described = deleted.into_iter().map(|((b, name), o, at)| pb::Object {
                soft_delete_time: Some(at.into()),
                hard_delete_time: Some((at + SOFT_DELETION).into()),
                ..self.described(b, name, o)
            });
            described.collect()
        } else {
            let live = self.live.range(begin.clone()..);
            live.take_while(|((b, name), _)| b == bucket && name.starts_with(&r.prefix))
                .filter(|(key, o)| is_wanted(key, o.generation))
                .take(page + 1)
                .map(|((b, name), o)| self.described(b, name, o))
                .collect()
        };
        if r.versions {
            let noncurrent = former_of(&self.noncurrent, &begin, &r.prefix, is_wanted, page);
            objects.extend(noncurrent.into_iter().map(|((b, name), o, at)| pb::Object {
                delete_time: Some(at.into()),
                ..self.described(b, name, o)
            }));
            objects.sort_by(|a, b| (&a.name, a.generation).cmp(&(&b.name, b.generation)));
        }
        let more = objects.len() > page;
        objects.truncate(page);
        let last = objects.last().filter(|_| more);
        pb::ListObjectsResponse {
            next_page_token: last
                .map(|o| format!("{}\n{}", o.name, o.generation))
                .unwrap_or_default(),
            objects,
            ..Default::default()
        }
    }
}

/// Former objects of `begin`'s bucket from its name on, at most one more than a page has.
fn former_of<'a>(
    all: &'a BTreeMap<(Key, i64), Former>,
    begin: &Key,
    prefix: &str,
    is_wanted: impl Fn(&Key, i64) -> bool,
    page: usize,
) -> Vec<(&'a Key, &'a Object, SystemTime)> {
    all.range((begin.clone(), i64::MIN)..)
        .take_while(|(((b, name), _), _)| *b == begin.0 && name.starts_with(prefix))
        .filter(|((key, generation), _)| is_wanted(key, *generation))
        .take(page + 1)
        .map(|((key, _), (object, at))| (key, object, *at))
        .collect()
}

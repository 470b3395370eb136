//! The port [`BackupStore`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;

use super::object_body::ObjectBody;
use crate::error::{StorageError, StorageKind};
use crate::job::Generation;
use crate::proof::MembersProof;
use pgdump_archive::Crc32c;

/// Why an entry of a folder cannot be used, whatever this account may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Its name is not UTF-8. In the name that is given, the other bytes are written as `\xE9`.
    NotUtf8,
    /// It is a link that leads out of the location, or out of its own folder to where the listing does not look.
    LeadsOutside,
}

/// One backup as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    /// Name relative to the store's location.
    pub name: String,
    /// Bytes.
    pub size: u64,
    pub created: jiff::Timestamp,
    /// CRC32C of the whole object, if the store knows it.
    pub crc32c: Option<Crc32c>,
    pub generation: Generation,
    /// The objects of a directory dump, or the pieces of a split file, with the checksums that the store knows.
    pub members: Option<Box<MembersProof>>,
    /// Only the name is known: it is a folder that this account may not list (its name ends in `/`), or a file that it
    /// may not even describe, or it has an `obstacle`. `created` is then the latest time from which anything in it is
    /// expected to be.
    pub is_unlisted: bool,
    /// What keeps it from being used, if not that this account may not list it.
    pub obstacle: Option<Obstacle>,
}

#[cfg(test)]
impl StoredObject {
    /// An object of this name, for tests.
    pub(crate) fn named(name: &str) -> Self {
        StoredObject {
            name: name.to_owned(),
            size: 1,
            created: jiff::Timestamp::UNIX_EPOCH,
            crc32c: None,
            generation: Generation(1),
            members: None,
            is_unlisted: false,
            obstacle: None,
        }
    }
}

/// What became of a generation of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationState {
    Live,
    /// It was overwritten or deleted in a bucket with Object Versioning, and can still be read.
    NonCurrent {
        since: jiff::Timestamp,
    },
    /// It was overwritten or deleted, and can be read only after it has been restored, until that time.
    SoftDeleted {
        since: jiff::Timestamp,
        until: Option<jiff::Timestamp>,
    },
}

/// One generation of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectGeneration {
    pub object: StoredObject,
    pub state: GenerationState,
}

impl ObjectGeneration {
    /// Whether its name meant this generation at that time.
    pub fn was_live_at(&self, at: jiff::Timestamp) -> bool {
        self.object.created <= at
            && match self.state {
                GenerationState::Live => true,
                GenerationState::NonCurrent { since }
                | GenerationState::SoftDeleted { since, .. } => at < since,
            }
    }
}

/// A hold on an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Temporary,
    EventBased,
}

/// What keeps one generation of an object from being deleted: a hold, a retention, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectLock {
    /// Name relative to the store's location.
    pub name: String,
    pub generation: Generation,
    pub hold: Option<Hold>,
    /// The end of its retention, by the policy of the bucket or its own.
    pub until: Option<jiff::Timestamp>,
}

/// The newest objects of a listing.
#[derive(Debug, Default)]
pub struct NewestObjects {
    /// Newest first.
    pub objects: Vec<StoredObject>,
    /// How many there are, older ones included.
    pub all: usize,
}

/// The objects of a listing, in bounded memory.
#[derive(Debug)]
pub struct Listing {
    /// What is listed, for messages.
    uri: String,
    objects: Vec<StoredObject>,
    bytes: usize,
    /// How many were listed.
    all: usize,
    /// How many of the newest are kept, if not all are.
    most: Option<usize>,
}

impl Listing {
    /// Memory for one listing and what is made of it, in bytes: some 400,000 objects with names of 100 bytes.
    pub const MAX_BYTES: usize = 128 << 20;
    /// Bytes beside an object and its name: what the allocator adds, and the object as a backup or a piece.
    const BESIDE: usize = 160;

    pub fn of(uri: &str) -> Self {
        Listing {
            uri: uri.to_owned(),
            objects: vec![],
            bytes: 0,
            all: 0,
            most: None,
        }
    }

    /// A listing that keeps only the newest objects, so that there may be any number.
    pub fn of_newest(uri: &str, most: usize) -> Self {
        Listing {
            most: Some(most),
            ..Self::of(uri)
        }
    }

    /// # Errors
    /// `archive_unsupported`, not blamed on the backup, if there are too many.
    pub fn push(&mut self, object: StoredObject) -> Result<(), StorageError> {
        self.all += 1;
        if let Some(most) = self.most {
            self.objects.push(object);
            if self.objects.len() > most.saturating_mul(2) {
                self.keep_newest(most);
            }
            return Ok(());
        }
        self.charge(&object)?;
        self.objects.push(object);
        Ok(())
    }

    /// Reserves memory for an object that is kept elsewhere.
    ///
    /// # Errors
    /// As [`Listing::push`].
    pub fn reserve(&mut self, object: &StoredObject) -> Result<(), StorageError> {
        self.all += 1;
        self.charge(object)
    }

    fn charge(&mut self, object: &StoredObject) -> Result<(), StorageError> {
        self.bytes += size_of::<StoredObject>() + object.name.len() + Self::BESIDE;
        if self.bytes > Self::MAX_BYTES {
            let what = format!(
                "{}: more than {} objects, whose names do not fit into {} MiB: choose a longer prefix (BACKUP_BUCKET, BACKUP_SETS)",
                self.uri,
                indicatif::HumanCount(self.all.saturating_sub(1) as u64),
                Self::MAX_BYTES >> 20
            );
            return Err(StorageError::new(StorageKind::ListingTooLong, what));
        }
        Ok(())
    }

    fn keep_newest(&mut self, most: usize) {
        let newer_first =
            |a: &StoredObject, b: &StoredObject| (b.created, &b.name).cmp(&(a.created, &a.name));
        self.objects.sort_unstable_by(newer_first);
        self.objects.truncate(most);
    }

    pub fn into_objects(self) -> Vec<StoredObject> {
        self.objects
    }

    pub fn into_newest(mut self) -> NewestObjects {
        self.keep_newest(self.most.unwrap_or(usize::MAX));
        NewestObjects {
            objects: self.objects,
            all: self.all,
        }
    }
}

/// Which names a listing keeps.
pub type NameFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The bytes of one object from some offset on.
pub type ObjectBytes = BoxStream<'static, Result<Bytes, StorageError>>;

/// A store of backups. Every read names the generation, so that reading an overwritten object is an error
/// and never yields a mixture.
pub trait BackupStore: Send + Sync {
    /// Waits until the service answers at all, whatever it says.
    ///
    /// # Errors
    /// `download_failed` or `access_denied` if it does not, for about the time `within`.
    fn greet(&self, _within: Duration) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async { Ok(()) })
    }

    /// Checks that the bucket or folder exists and that this account may list it.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn check_exists(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(async move { self.members_where("", |_| false).await.map(drop) })
    }

    /// All objects whose name starts with `prefix`, and what is there and cannot be used, such as a folder that this
    /// account may not list.
    ///
    /// # Errors
    /// `backup_not_found` for a missing bucket or folder, `access_denied` also if the account may not list the folder
    /// that `prefix` names, `download_failed`; `archive_unsupported`
    /// if they are more than a [`Listing`] holds.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        self.list_where(prefix, |_| true)
    }

    /// As [`BackupStore::list`], but only of those whose name is `wanted`. A folder that cannot be listed is there whatever
    /// its name.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn list_where<'a>(
        &'a self,
        prefix: &'a str,
        wanted: fn(&str) -> bool,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        self.list_named(prefix, Arc::new(wanted))
    }

    /// As [`BackupStore::list_where`], with a filter that knows more than the name.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn list_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>>;

    /// The metadata of one object, of exactly `generation` if that is given.
    ///
    /// # Errors
    /// `backup_not_found`, `access_denied`, `download_failed`.
    fn stat<'a>(
        &'a self,
        name: &'a str,
        generation: Option<Generation>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>>;

    /// As [`BackupStore::list`], but without checksums that would have to be computed.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn members<'a>(
        &'a self,
        prefix: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        self.members_where(prefix, |_| true)
    }

    /// As [`BackupStore::list_where`], but without checksums that would have to be computed.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn members_where<'a>(
        &'a self,
        prefix: &'a str,
        wanted: fn(&str) -> bool,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>> {
        self.members_named(prefix, Arc::new(wanted))
    }

    /// As [`BackupStore::members_where`], with a filter that knows more than the name.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn members_named<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<StoredObject>, StorageError>>;

    /// The newest `most` of the objects that [`BackupStore::members_named`] lists: however many there are, it takes no more
    /// memory than for these.
    ///
    /// # Errors
    /// As [`BackupStore::list`], but for too many objects.
    fn newest_members<'a>(
        &'a self,
        prefix: &'a str,
        wanted: NameFilter,
        most: usize,
    ) -> BoxFuture<'a, Result<NewestObjects, StorageError>>;

    /// The bytes of `object` from `offset` on, at most `length` of them.
    ///
    /// # Errors
    /// `backup_changed` if that generation no longer exists, `access_denied`, `download_failed`; `archive_unsupported`, not
    /// blamed on the backup, if it is encrypted with a key that requests would have to bring along.
    fn read<'a>(
        &'a self,
        object: &'a StoredObject,
        offset: u64,
        length: Option<u64>,
    ) -> BoxFuture<'a, Result<ObjectBytes, StorageError>>;

    /// The streams that downloads may open beside their first ones, all of them together; `None` if several streams of one
    /// object are no faster than one.
    fn spare_streams(&self) -> Option<&Semaphore> {
        None
    }

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

    /// Creates an object of bytes that are still being made; `None` if one of that name exists, which is left unchanged. If
    /// they end early, there is no object.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`; `cancelled` if the bytes end early.
    fn create_of<'a>(
        &'a self,
        name: &'a str,
        body: ObjectBody,
        content_type: &'a str,
    ) -> BoxFuture<'a, Result<Option<StoredObject>, StorageError>>;

    /// Deletes exactly this generation.
    ///
    /// # Errors
    /// `backup_changed` if the object has been replaced, `backup_not_found`, `access_denied` also where a retention policy
    /// or a hold keeps it, `download_failed`.
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

    /// How to bring back an object that does not exist any more, in words: of exactly `generation` if that is given. `None`
    /// if the store does not keep it, or does not tell.
    fn find_deleted<'a>(
        &'a self,
        _name: &'a str,
        _generation: Option<Generation>,
    ) -> BoxFuture<'a, Option<String>> {
        Box::pin(async { None })
    }

    /// Whether objects that are overwritten or deleted may be kept as former generations of their names.
    fn has_generations(&self) -> bool {
        false
    }

    /// All live and non-current generations of the objects whose name starts with `prefix` and is `wanted`.
    ///
    /// # Errors
    /// As [`BackupStore::list`]; `invalid_request` if the store has no generations.
    fn generations<'a>(
        &'a self,
        _prefix: &'a str,
        _wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<ObjectGeneration>, StorageError>> {
        Box::pin(async { Err(no_generations(self.uri(""))) })
    }

    /// The soft-deleted ones.
    ///
    /// # Errors
    /// As [`BackupStore::list`]; `access_denied` also if this account may list only the others.
    fn soft_deleted<'a>(
        &'a self,
        _prefix: &'a str,
        _wanted: NameFilter,
    ) -> BoxFuture<'a, Result<Vec<ObjectGeneration>, StorageError>> {
        Box::pin(async { Ok(vec![]) })
    }

    /// Makes a copy of a soft-deleted generation the live one of its name, in the place of the generation `live`, if there is
    /// one. Returns the copy, which has a generation of its own.
    ///
    /// # Errors
    /// `backup_changed` if another generation is live, `backup_not_found`, `access_denied`, `download_failed`;
    /// `invalid_request` if the store has no generations.
    fn undelete<'a>(
        &'a self,
        _name: &'a str,
        _generation: Generation,
        _live: Option<Generation>,
    ) -> BoxFuture<'a, Result<StoredObject, StorageError>> {
        Box::pin(async { Err(no_generations(self.uri(""))) })
    }

    /// The objects whose name starts with `prefix` and that a hold or, at the time `now`, a retention keeps from being
    /// deleted.
    ///
    /// # Errors
    /// As [`BackupStore::list`].
    fn locks<'a>(
        &'a self,
        _prefix: &'a str,
        _now: jiff::Timestamp,
    ) -> BoxFuture<'a, Result<Vec<ObjectLock>, StorageError>> {
        Box::pin(async { Ok(vec![]) })
    }

    /// Whether the retention policy of the bucket is locked, so that nobody can end it early; `None` if there is none, or
    /// this account may not look.
    fn is_retention_locked(&self) -> BoxFuture<'_, Option<bool>> {
        Box::pin(async { None })
    }

    /// `gs://…` or `file://…`.
    fn uri(&self, name: &str) -> String;
}

fn no_generations(uri: String) -> StorageError {
    let what = format!("{uri}: a folder keeps no former generations of a file");
    StorageError::new(StorageKind::CallRejected, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_ends_before_it_takes_all_memory() {
        let object = |i: usize| StoredObject::named(&format!("{i:01000}"));
        let mut listing = Listing::of("gs://bucket/nightly/");
        let pushed = (0..200_000)
            .map(|i| listing.push(object(i)))
            .position(|r| r.is_err());
        let most = Listing::MAX_BYTES / 1000;
        assert!(
            pushed.is_some_and(|n| n > most * 8 / 10 && n <= most),
            "{pushed:?}"
        );
        let e = listing.push(object(0)).unwrap_err();
        assert!(
            e.to_string()
                .starts_with("gs://bucket/nightly/: more than 1"),
            "{e}"
        );
        assert_eq!(e.kind().blame(), crate::error::Blame::Infrastructure);
    }

    #[test]
    fn a_listing_of_the_newest_takes_any_number() {
        let object = |second: i64| StoredObject {
            created: jiff::Timestamp::from_second(second).unwrap(),
            ..StoredObject::named(&second.to_string())
        };
        let mut listing = Listing::of_newest("gs://bucket/x/", 2);
        for second in [3, 9, 1, 2, 8, 5, 4, 7, 6] {
            listing.push(object(second)).unwrap();
            assert!(listing.objects.len() <= 4);
        }
        let newest = listing.into_newest();
        let names: Vec<&str> = newest.objects.iter().map(|o| o.name.as_str()).collect();
        assert_eq!((names, newest.all), (vec!["9", "8"], 9));
    }
}

//! The port [`BackupStore`].

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::StorageError;
use crate::job::Generation;
use pgdump_archive::Crc32c;

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
}

/// The bytes of one object from some offset on.
pub type ObjectBytes = BoxStream<'static, Result<Bytes, StorageError>>;

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
    ) -> BoxFuture<'a, Result<ObjectBytes, StorageError>>;

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

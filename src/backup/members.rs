//! The objects of a backup that has several, as the store lists them and as they were read.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use base64::Engine;

use crate::error::{StorageError, StorageKind};
use crate::proof::{BackupMember, MembersProof};
use crate::store::{BackupStore, StoredObject};
use pgdump_archive::Crc32c;

/// Checksums of an object that was read to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadChecksums {
    pub crc32c: Crc32c,
    /// `None` if it was not asked for.
    pub sha256: Option<[u8; 32]>,
}

/// Base64 of the big-endian bytes, as Cloud Storage writes a CRC32C.
pub fn encode_crc32c(crc: Crc32c) -> String {
    base64::engine::general_purpose::STANDARD.encode(crc.0.to_be_bytes())
}

/// A SHA-256 in hexadecimal.
pub(super) fn encode_sha256(digest: [u8; 32]) -> String {
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

fn member(object: &StoredObject, crc32c: Option<Crc32c>, sha256: Option<[u8; 32]>) -> BackupMember {
    let file = object.name.rsplit('/').next().unwrap_or_default();
    BackupMember {
        name: file.to_owned(),
        size: object.size,
        crc32c: crc32c.map(encode_crc32c),
        sha256: sha256.map(encode_sha256),
    }
}

/// The objects of a backup, with the checksums that the store knows.
pub(super) fn members_listed(objects: &[StoredObject]) -> MembersProof {
    MembersProof::of(objects.iter().map(|o| member(o, o.crc32c, None)))
}

/// The objects of a backup, with the checksums of those that were read, and otherwise those that the store knows.
pub(super) fn members_read(
    objects: &[StoredObject],
    read: impl Fn(&str) -> Option<ReadChecksums>,
) -> MembersProof {
    MembersProof::of(objects.iter().map(|o| {
        let read = read(&o.name);
        let crc32c = read.map(|r| r.crc32c).or(o.crc32c);
        member(o, crc32c, read.and_then(|r| r.sha256))
    }))
}

/// A backup with the checksums of its objects: of its `members` or, without any, of itself. Those that the store does not
/// know are computed, and nothing else is read that only is called alike.
///
/// # Errors
/// `backup_changed` if one of them is another one by now, or gone, and errors of the store.
pub(crate) async fn with_checksums(
    store: &dyn BackupStore,
    backup: &StoredObject,
    members: &[StoredObject],
) -> Result<StoredObject, StorageError> {
    let is_single = members.is_empty();
    let own = if is_single {
        std::slice::from_ref(backup)
    } else {
        members
    };
    let names: HashSet<String> = own.iter().map(|o| o.name.clone()).collect();
    let is_own = move |name: &str| names.contains(name);
    let listed = store.list_named(&backup.name, Arc::new(is_own)).await?;
    let mut listed: HashMap<String, StoredObject> =
        listed.into_iter().map(|o| (o.name.clone(), o)).collect();
    let mut read = Vec::with_capacity(own.len());
    for object in own {
        let now = listed.remove(&object.name);
        let Some(now) = now.filter(|now| now.generation == object.generation) else {
            let what = format!("{}: it was changed or deleted", store.uri(&object.name));
            return Err(StorageError::new(StorageKind::Changed, what));
        };
        read.push(now);
    }
    let crc32c = read.first().and_then(|o| o.crc32c);
    Ok(StoredObject {
        crc32c: crc32c.filter(|_| is_single),
        members: (!is_single).then(|| Box::new(members_listed(&read))),
        ..backup.clone()
    })
}

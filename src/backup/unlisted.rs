//! What a listing does not show: folders and files that this account may not look into. The newest backup may be there.

use crate::error::{StorageError, StorageKind};
use crate::store::{BackupStore, StoredObject};

/// What this account may not look into at a location.
#[derive(Debug, Default)]
pub struct Unlisted(Vec<UnlistedPlace>);

#[derive(Debug)]
struct UnlistedPlace {
    name: String,
    uri: String,
    /// Nothing in it is expected to be newer.
    newest: jiff::Timestamp,
}

impl Unlisted {
    /// Takes these places out of a listing of backups. Folders of evidence are none of them.
    pub fn take_from(store: &dyn BackupStore, objects: &mut Vec<StoredObject>) -> Self {
        let taken = objects.extract_if(.., |o| o.is_unlisted);
        let backups = taken.filter(|o| !crate::proof::is_ours(&o.name));
        let place = |o: StoredObject| UnlistedPlace {
            uri: store.uri(&o.name),
            newest: o.created,
            name: o.name,
        };
        Unlisted(backups.map(place).collect())
    }

    /// Only those whose name is `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|place| wanted(&place.name));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks that `newest` is the newest backup, although not everything is listed. Whoever may add folders can prevent
    /// that, so the error is one about objects, and not about the worker's credentials.
    ///
    /// # Errors
    /// `access_denied` if a newer one may be where this account may not look.
    pub fn check_newest(&self, newest: Option<&StoredObject>) -> Result<(), StorageError> {
        let may_be_newer = |p: &&UnlistedPlace| newest.is_none_or(|n| n.created <= p.newest);
        let Some(place) = self.0.iter().find(may_be_newer) else {
            return Ok(());
        };
        let what = format!(
            "{}: this account may not look into it, and the newest backup may be there: let the account read it, move it away, choose a longer prefix (BACKUP_BUCKET, --prefix), or name a backup",
            place.uri
        );
        Err(StorageError::new(StorageKind::ObjectDenied, what))
    }
}

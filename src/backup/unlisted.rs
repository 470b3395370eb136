//! What a listing does not offer: folders and files that this account may not look into, names that are not UTF-8, and
//! links that lead outside. The newest backup may be there.

use crate::error::{StorageError, StorageKind};
use crate::store::{BackupStore, Obstacle, StoredObject};

/// Most of these that a note names.
const MAX_NAMED: usize = 5;

/// What cannot be used at a location.
#[derive(Debug, Default)]
pub struct UnlistedPlaces(Vec<UnlistedPlace>);

#[derive(Debug)]
struct UnlistedPlace {
    name: String,
    uri: String,
    obstacle: Option<Obstacle>,
    /// Nothing in it is expected to be newer.
    newest: jiff::Timestamp,
}

const NOT_UTF8: &str = "its name is not UTF-8 (\\xHH stands for a byte of it)";
const LEADS_OUTSIDE: &str = "it is a link that points outside its folder";

impl UnlistedPlace {
    /// What is wrong with it.
    fn problem(&self) -> &'static str {
        match self.obstacle {
            None => "this account may not list it",
            Some(Obstacle::NotUtf8) => NOT_UTF8,
            Some(Obstacle::LeadsOutside) => LEADS_OUTSIDE,
        }
    }

    /// What follows from that, and what can be done.
    fn consequence(&self) -> &'static str {
        match self.obstacle {
            None => "the newest backup may be there: let the account read it, move it away",
            Some(Obstacle::NotUtf8) => "it may be the newest backup: rename it, move it away",
            Some(Obstacle::LeadsOutside) => {
                "the newest backup may be there: replace the link with what it points to, remove it"
            }
        }
    }
}

/// The error for a file of a directory dump that cannot be used.
pub(super) fn unusable(store: &dyn BackupStore, file: &StoredObject) -> StorageError {
    let (kind, problem) = match file.obstacle {
        None => (StorageKind::AccessDenied, "this account may not read it"),
        Some(Obstacle::NotUtf8) => (StorageKind::CallRejected, NOT_UTF8),
        Some(Obstacle::LeadsOutside) => (StorageKind::OutsideFolder, LEADS_OUTSIDE),
    };
    StorageError::new(kind, format!("{}: {problem}", store.uri(&file.name)))
}

impl UnlistedPlaces {
    /// Takes these places out of a listing of backups. Folders of evidence are none of them.
    pub fn take_from(store: &dyn BackupStore, objects: &mut Vec<StoredObject>) -> Self {
        let taken = objects.extract_if(.., |o| o.is_unlisted);
        let backups = taken.filter(|o| !crate::proof::is_ours(&o.name));
        let place = |o: StoredObject| UnlistedPlace {
            uri: store.uri(&o.name),
            obstacle: o.obstacle,
            newest: o.created,
            name: o.name,
        };
        UnlistedPlaces(backups.map(place).collect())
    }

    /// Only those whose name is `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|place| wanted(&place.name));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Which of these there are and why they cannot be used, at most so many; and the number of the others.
    pub fn problems(&self, most: usize) -> (Vec<String>, usize) {
        let named = self.0.iter().take(most);
        let named = named.map(|p| format!("{}: {}", p.uri, p.problem()));
        (named.collect(), self.0.len().saturating_sub(most))
    }

    /// Takes out what has no usable name, or leads outside.
    pub fn take_unusable(&mut self) -> Self {
        UnlistedPlaces(self.0.extract_if(.., |p| p.obstacle.is_some()).collect())
    }

    /// What to know about a backup that was chosen although there are these, if there are any.
    pub fn note(&self) -> Option<String> {
        let (named, more) = self.problems(MAX_NAMED);
        let more = match more {
            0 => String::new(),
            n => format!("; and {n} more"),
        };
        let named = Some(named.join("; ")).filter(|named| !named.is_empty());
        named.map(|named| format!("left out, because it cannot be used: {named}{more}"))
    }

    /// Checks that `newest` is the newest backup, although not everything is listed. Whoever may add files can prevent
    /// that, so the error is one about objects, and not about the worker's credentials.
    ///
    /// # Errors
    /// `access_denied` if a newer one may be among what cannot be used.
    pub fn check_newest(&self, newest: Option<&StoredObject>) -> Result<(), StorageError> {
        let may_be_newer = |p: &&UnlistedPlace| newest.is_none_or(|n| n.created <= p.newest);
        let Some(place) = self.0.iter().find(may_be_newer) else {
            return Ok(());
        };
        let what = format!(
            "{}: {}, and {}, choose a longer prefix (BACKUP_BUCKET, --prefix), or name a backup",
            place.uri,
            place.problem(),
            place.consequence()
        );
        Err(StorageError::new(StorageKind::ObjectDenied, what))
    }
}

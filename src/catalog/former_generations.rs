//! Former generations of names: which of them `latest` chooses from, their list, and soft-deleted ones that are restored.

use std::sync::Arc;

use super::backup_catalog::BackupCatalog;
use super::companions::without_companions;
use crate::backup::{self, FormerBackups, of_bucket};
use crate::error::{RestoreError, StorageError, StorageKind, ValidationError, ValidationKind};
use crate::job::{BackupRef, Generation, LatestBackup};
use crate::proof::{is_ours, pattern_of};
use crate::store::{BackupStore, GenerationState, ObjectGeneration, StoredObject};

/// A soft-deleted generation that was restored.
#[derive(Debug)]
pub struct RestoredGeneration {
    /// `gs://…`
    pub uri: String,
    /// The one that was soft-deleted.
    pub former: Generation,
    /// The live one that it is now.
    pub generation: Generation,
    /// The one that was live before.
    pub replaced: Option<Generation>,
}

fn invalid(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

/// What has to be done before a soft-deleted generation can be read.
pub(super) fn how_to_restore(store: &dyn BackupStore, deleted: &ObjectGeneration) -> String {
    let ObjectGeneration { object, state } = deleted;
    let until = match state {
        GenerationState::SoftDeleted { until, .. } => *until,
        GenerationState::Live | GenerationState::NonCurrent { .. } => None,
    };
    let until = until.map_or_else(String::new, |t| format!(" until {t}"));
    let uri = format!("{}#{}", store.uri(&object.name), object.generation);
    format!(
        "{uri} is soft-deleted, and Cloud Storage keeps it{until}: pgrestored restore '{uri}' --restore-soft-deleted"
    )
}

/// Checks that no soft-deleted object was newer than the chosen one at the time that was asked for and is called like it:
/// an older one in its place would be data that nobody asked for. Returns a note if one is called otherwise.
///
/// # Errors
/// `backup_not_found`.
pub(super) fn check_deleted(
    store: &dyn BackupStore,
    deleted: &[ObjectGeneration],
    chosen: &StoredObject,
) -> Result<Option<String>, RestoreError> {
    let is_newer = |g: &&ObjectGeneration| g.object.created > chosen.created;
    let pattern = pattern_of(&chosen.name);
    let newer: Vec<&ObjectGeneration> = deleted.iter().filter(is_newer).collect();
    let mut alike = newer
        .iter()
        .filter(|g| pattern_of(&g.object.name) == pattern);
    if let Some(newest) = alike.next() {
        let what = format!(
            "{}; it was the newest backup then, so no older one is chosen: restore it, or name another one",
            how_to_restore(store, newest)
        );
        return Err(StorageError::new(StorageKind::NotFound, what).into());
    }
    Ok(newer.first().map(|newest| {
        format!(
            "a newer file of then was not chosen: {}",
            how_to_restore(store, newest)
        )
    }))
}

/// The same error; if there is no backup, with the newest soft-deleted object that could be it.
pub(super) fn or_soft_deleted(
    store: &dyn BackupStore,
    deleted: &[ObjectGeneration],
    e: RestoreError,
) -> RestoreError {
    match (e, deleted.first()) {
        (RestoreError::Storage(e), Some(newest)) if e.kind() == StorageKind::NotFound => {
            let how = how_to_restore(store, newest);
            e.followed_by(&format!("; {how}")).into()
        }
        (e, _) => e,
    }
}

impl BackupCatalog {
    /// The backups that `latest` chooses from: those that are there or, at a time in a bucket, those that their names meant
    /// then; if that is asked for, also former generations of each name.
    ///
    /// # Errors
    /// `invalid_request` for former generations in a folder, and as [`backup::newest_first`].
    pub(super) async fn candidates(
        &self,
        store: &dyn BackupStore,
        wanted: &LatestBackup,
    ) -> Result<FormerBackups, RestoreError> {
        let globals = self.config.policy.globals.as_deref();
        let (place, manifest) = ((wanted.prefix.as_str(), wanted.at), self.manifest());
        let all_of_each = wanted.of_all_generations;
        let mut listed = if store.has_generations() && (all_of_each || wanted.at.is_some()) {
            backup::newest_former_first(store, place, globals, manifest, all_of_each).await?
        } else if all_of_each {
            return Err(self.without_generations(store, "--versions"));
        } else {
            // Evidence is about bytes: it counts only with the checksum of the backup.
            let with_checksums = wanted.is_proven;
            let found = backup::newest_first(store, place, globals, manifest, with_checksums);
            let (found, unlisted) = found.await?;
            FormerBackups {
                found,
                unlisted,
                deleted: vec![],
            }
        };
        listed.found = without_companions(listed.found, |f| &f.object);
        if listed.found.is_empty() && !listed.deleted.is_empty() {
            let what = format!(
                "{}: no backup{}",
                store.uri(&wanted.prefix),
                backup::not_after(wanted.at)
            );
            let e = StorageError::new(StorageKind::NotFound, what).into();
            return Err(or_soft_deleted(store, &listed.deleted, e));
        }
        Ok(listed)
    }

    fn without_generations(&self, store: &dyn BackupStore, flag: &str) -> RestoreError {
        invalid(format!(
            "{flag}: {} is a folder, which keeps no former generations of a file; only buckets do, with Object Versioning or soft deletion",
            store.uri("")
        ))
    }

    /// All generations of the objects below `prefix`, but those of evidence: by name, newest first; and why soft-deleted ones
    /// may be missing.
    ///
    /// # Errors
    /// `invalid_request` for a folder, and errors of the store.
    pub async fn generations(
        &self,
        prefix: &str,
    ) -> Result<(Vec<ObjectGeneration>, Option<StorageError>), RestoreError> {
        let store = self.store().await?;
        if !store.has_generations() {
            return Err(self.without_generations(store.as_ref(), "--versions"));
        }
        let is_wanted = || Arc::new(|name: &str| !is_ours(name));
        let all = store.generations(prefix, is_wanted()).await;
        let mut all = all.map_err(of_bucket)?;
        let missing = match store.soft_deleted(prefix, is_wanted()).await {
            Ok(deleted) => {
                all.extend(deleted);
                None
            }
            Err(e) => Some(e),
        };
        all.sort_by(|a, b| {
            let newest_first = || b.object.generation.cmp(&a.object.generation);
            a.object.name.cmp(&b.object.name).then_with(newest_first)
        });
        Ok((all, missing))
    }

    /// The non-current generations of a set that are backups by themselves, newest first. Folders have none.
    ///
    /// # Errors
    /// The store's own.
    pub(super) async fn former_backups_of_set(
        &self,
        set: &str,
    ) -> Result<Vec<StoredObject>, RestoreError> {
        let store = self.store().await?;
        if !store.has_generations() {
            return Ok(vec![]);
        }
        let prefix = self.config.verify.prefix_of(set);
        let former = backup::formers_below(store.as_ref(), prefix).await;
        let mut former = former.map_err(of_bucket)?;
        former.retain(|o| self.is_backup(&o.name) && self.config.verify.set_of(&o.name) == set);
        former.sort_by(backup::newer_first);
        Ok(former)
    }

    /// Makes a soft-deleted generation the live one of its name, if it cannot be read as it is.
    ///
    /// # Errors
    /// `invalid_request` if no object in a bucket is named, or if another generation is live and may not be replaced;
    /// `backup_not_found` if there is no such soft-deleted one; `backup_changed`, and errors of the store.
    pub async fn undelete(
        &self,
        wanted: &BackupRef,
        generation: Option<Generation>,
        may_replace: bool,
    ) -> Result<Option<RestoredGeneration>, RestoreError> {
        let (BackupRef::Named { name, .. }, Some(place)) = (wanted, self.place_of(wanted)) else {
            return Err(invalid(
                "--restore-soft-deleted: name one object, as NAME#GENERATION: list --versions shows those that are soft-deleted",
            ));
        };
        let store = self.stores.at(place).await?;
        if !store.has_generations() {
            return Err(self.without_generations(store.as_ref(), "--restore-soft-deleted"));
        }
        if name.ends_with('/') {
            return Err(invalid(format!(
                "--restore-soft-deleted: {uri} is a directory dump, of many objects: gcloud storage restore '{uri}**'",
                uri = store.uri(name)
            )));
        }
        if is_there(store.as_ref(), name, generation).await?.is_some() {
            return Ok(None);
        }
        let live = is_there(store.as_ref(), name, None).await?;
        let deleted = soft_deleted_as(store.as_ref(), name, generation).await?;
        let former = deleted.generation;
        if let Some(live) = live.filter(|_| !may_replace) {
            let uri = store.uri(name);
            return Err(invalid(format!(
                "{uri}#{former}: it is soft-deleted, and {uri}#{live} is live. Restored, it becomes the live one, and the other one becomes non-current (with Object Versioning) or soft-deleted: add --replace-live if that is meant, or copy the live one to another name first"
            )));
        }
        let restored = store.undelete(name, former, live).await?;
        Ok(Some(RestoredGeneration {
            uri: store.uri(name),
            former,
            generation: restored.generation,
            replaced: live,
        }))
    }
}

/// The generation of an object that can be read, if there is one.
async fn is_there(
    store: &dyn BackupStore,
    name: &str,
    generation: Option<Generation>,
) -> Result<Option<Generation>, StorageError> {
    match store.stat(name, generation).await {
        Ok(object) => Ok(Some(object.generation)),
        Err(e) if e.kind() == StorageKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The soft-deleted generation of a name; of none in particular, the newest one.
async fn soft_deleted_as(
    store: &dyn BackupStore,
    name: &str,
    generation: Option<Generation>,
) -> Result<StoredObject, StorageError> {
    let own = name.to_owned();
    let is_it = Arc::new(move |name: &str| name == own);
    let deleted = store.soft_deleted(name, is_it).await?;
    let deleted = deleted.into_iter().map(|g| g.object);
    let found = deleted
        .filter(|o| generation.is_none_or(|g| g == o.generation))
        .max_by_key(|o| o.generation);
    found.ok_or_else(|| {
        let which = generation.map_or_else(String::new, |g| format!("#{g}"));
        let what = format!(
            "{}{which}: no such soft-deleted object: list --versions shows those that there are",
            store.uri(name)
        );
        StorageError::new(StorageKind::NotFound, what)
    })
}

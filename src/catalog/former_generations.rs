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
            "a newer file of that time was not chosen: {}",
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
                notes: vec![],
            }
        };
        listed.found.retain(|f| wanted.includes(&f.object.name));
        listed.deleted.retain(|g| wanted.includes(&g.object.name));
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

#[cfg(feature = "emulator")]
#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::catalog::folder_catalog::{archive_of, catalog_of, verified};
    use crate::config::{Config, RawConfig};
    use crate::emulator::{BucketOptions, Emulator, ObjectHolds};
    use crate::error::{FailureReason as R, report};
    use crate::metrics::RestoreMetricsManager;
    use crate::policy::{Depth, Trigger};
    use crate::proof::{Verdict, VerificationReport};
    use crate::store::Stores;

    const BUCKET: &str = "backups";
    const NAME: &str = "app.dump";
    const VERSIONED: BucketOptions = BucketOptions {
        versioning: true,
        soft_delete: false,
        retention: None,
        is_retention_locked: false,
    };
    const SOFT_DELETING: BucketOptions = BucketOptions {
        versioning: false,
        soft_delete: true,
        ..VERSIONED
    };

    /// A catalogue of a bucket in an emulator.
    async fn bucket_of(
        options: BucketOptions,
        flags: &[(&str, &str)],
    ) -> (Emulator, BackupCatalog) {
        let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        emulator.storage.set_bucket(BUCKET, options);
        let (bucket, host) = (format!("gs://{BUCKET}"), emulator.host());
        let own = [
            ("backup-bucket", bucket.as_str()),
            ("storage-emulator-host", host.as_str()),
        ];
        let raw = RawConfig::from_flags(&[&own, flags].concat()).unwrap();
        let config = Config::new(&raw).unwrap();
        let stores = Stores::new(config.storage_emulator.clone());
        let metrics = RestoreMetricsManager::new(0.0);
        let catalog = BackupCatalog::new(Arc::new(config), Arc::new(stores), metrics);
        (emulator, catalog)
    }

    fn days_ago(days: u64) -> SystemTime {
        SystemTime::now() - Duration::from_secs(days * 24 * 3600)
    }

    /// Overwrites one name every night, the last time a day ago; returns the generations, oldest first.
    fn overwrite_nightly(emulator: &Emulator, name: &str, nights: u64) -> Vec<Generation> {
        let storage = &emulator.storage;
        let mut all = Vec::new();
        for night in 0..nights {
            let dump = [archive_of("app"), vec![u8::try_from(night).unwrap()]].concat();
            all.push(storage.put(BUCKET, name, dump));
            storage.set_created(BUCKET, name, days_ago(nights - night));
        }
        for (generation, age) in all.iter().zip((1..=nights).rev()) {
            storage.set_times(
                (BUCKET, name, *generation),
                days_ago(age),
                days_ago(age - 1),
            );
        }
        all.into_iter().map(Generation).collect()
    }

    async fn chosen(
        catalog: &BackupCatalog,
        text: &str,
        of_all_generations: bool,
    ) -> Result<(Generation, Vec<String>), RestoreError> {
        let wanted = match BackupRef::parse(text, "").unwrap() {
            BackupRef::Latest(wanted) => BackupRef::Latest(LatestBackup {
                of_all_generations,
                ..wanted
            }),
            other => other,
        };
        let pinned = catalog.pin(&wanted, None, None).await?.unwrap();
        Ok((pinned.object.generation, pinned.notes))
    }

    fn named(name: &str) -> BackupRef {
        BackupRef::from_name(name, "").unwrap()
    }

    /// Says of the live generation that it was verified, with this verdict.
    async fn judge(catalog: &BackupCatalog, id: &str, verdict: Verdict) {
        verified(catalog, id, NAME, |r| r.verdict = verdict).await;
    }

    #[tokio::test]
    async fn latest_at_a_time_is_the_generation_of_that_time() {
        let flags = [("restore-globals", "globals.sql")];
        let (emulator, catalog) = bucket_of(VERSIONED, &flags).await;
        let nights = overwrite_nightly(&emulator, NAME, 3);
        for (text, wanted) in [
            ("latest@60h", nights[0]),
            ("latest@36h", nights[1]),
            ("latest@12h", nights[2]),
            ("latest", nights[2]),
        ] {
            let (generation, notes) = chosen(&catalog, text, false).await.unwrap();
            assert_eq!(generation, wanted, "{text}");
            let is_noted = notes.iter().any(|n| n.starts_with("globals.sql "));
            assert_eq!(is_noted, text.contains('@'), "{text}: {notes:?}");
        }
        let e = chosen(&catalog, "latest@90h", false).await.unwrap_err();
        assert_eq!(e.reason(), R::BackupNotFound);
        // A generation is pinned by its number, whether or not it is live.
        let pinned = catalog.pin(&named(NAME), Some(nights[0]), None).await;
        assert_eq!(pinned.unwrap().unwrap().object.generation, nights[0]);
    }

    /// Each generation has evidence of its own, and only with all of them one that is not live is chosen.
    #[tokio::test]
    async fn a_proof_is_of_one_generation() {
        let (emulator, catalog) = bucket_of(VERSIONED, &[]).await;
        let storage = &emulator.storage;
        let mut nights = Vec::new();
        for (night, verdict) in [Some(Verdict::Verified), Some(Verdict::Failed), None]
            .into_iter()
            .enumerate()
        {
            let dump = [archive_of("app"), vec![u8::try_from(night).unwrap()]].concat();
            nights.push(Generation(storage.put(BUCKET, NAME, dump)));
            if let Some(verdict) = verdict {
                judge(&catalog, &night.to_string(), verdict).await;
            }
        }
        let e = chosen(&catalog, "latest-proven", false).await.unwrap_err();
        assert_eq!(e.reason(), R::BackupNotFound);
        let (generation, notes) = chosen(&catalog, "latest-proven", true).await.unwrap();
        assert_eq!(generation, nights[0]);
        let refuted = format!("{NAME}#{} (its verification failed", nights[1]);
        assert!(notes.iter().any(|n| n.contains(&refuted)), "{notes:?}");
        let listed = catalog.list_generations("").await.unwrap();
        let listed: Vec<_> = listed
            .generations
            .into_iter()
            .map(|g| (g.backup.generation, g.proof.map(|p| p.verdict)))
            .collect();
        let of = |night: usize, verdict| (nights[night].to_string(), verdict);
        assert_eq!(
            listed,
            [
                of(2, None),
                of(1, Some(Verdict::Failed)),
                of(0, Some(Verdict::Verified))
            ]
        );
    }

    /// What was live then and can only be restored is named, and no older backup is taken in its place.
    #[tokio::test]
    async fn a_soft_deleted_generation_is_restored_only_on_demand() {
        let (emulator, catalog) = bucket_of(SOFT_DELETING, &[]).await;
        let nights = overwrite_nightly(&emulator, NAME, 2);
        let (former, live) = (nights[0], nights[1]);
        let storage = &emulator.storage;
        storage.put(BUCKET, "other.dump", archive_of("app"));
        storage.set_created(BUCKET, "other.dump", days_ago(9));
        let how =
            format!("pgrestored restore 'gs://{BUCKET}/{NAME}#{former}' --restore-soft-deleted");
        let by_number = catalog.pin(&named(NAME), Some(former), None).await;
        let said = report(&by_number.err().unwrap());
        assert!(
            said.contains(&how) && said.contains(" keeps it until "),
            "{said}"
        );
        // Another name may be that of another database: it is a note there.
        let (_, notes) = chosen(&catalog, "latest@36h", false).await.unwrap();
        assert!(notes.iter().any(|n| n.contains(&how)), "{notes:?}");
        storage.delete(BUCKET, "other.dump");
        let e = chosen(&catalog, "latest@36h", false).await.unwrap_err();
        let said = report(&e);
        assert_eq!(e.reason(), R::BackupNotFound);
        assert!(
            said.contains(&how) && said.contains(" keeps it until "),
            "{said}"
        );
        let e = catalog.undelete(&named(NAME), Some(former), false).await;
        let said = report(&e.unwrap_err());
        assert!(said.contains(&format!("#{live} is live")), "{said}");
        assert!(said.contains("--replace-live"), "{said}");
        let restored = catalog.undelete(&named(NAME), Some(former), true).await;
        let restored = restored.unwrap().unwrap();
        assert_eq!((restored.former, restored.replaced), (former, Some(live)));
        let by_name = named(NAME);
        let pinned = catalog.pin(&by_name, Some(restored.generation), None);
        assert!(pinned.await.unwrap().is_some());
        let bytes = storage.get(BUCKET, NAME).unwrap();
        assert_eq!(bytes.last(), Some(&0));
        // What can be read needs no restoring.
        let again = catalog.undelete(&named(NAME), None, false).await.unwrap();
        assert!(again.is_none());
        for wanted in ["latest", "latest@2d", "night/"] {
            let wanted = BackupRef::parse(wanted, "").unwrap();
            let e = catalog.undelete(&wanted, None, false).await.unwrap_err();
            assert_eq!(e.reason(), R::InvalidRequest);
        }
        let e = catalog.undelete(&named("never.dump"), None, false).await;
        assert_eq!(e.unwrap_err().reason(), R::BackupNotFound);
    }

    /// Where one name is overwritten every night, its generations are the older backups.
    #[tokio::test]
    async fn bisections_and_samples_have_former_generations() {
        let flags = [("verify-schedule", "24h"), ("verify-sample", "5")];
        let (emulator, catalog) = bucket_of(VERSIONED, &flags).await;
        let nights = overwrite_nightly(&emulator, NAME, 3);
        let pinned = catalog.pin(&named(NAME), None, None).await.unwrap();
        let pinned = pinned.unwrap();
        let now = jiff::Timestamp::now();
        let failed = VerificationReport {
            verdict: Verdict::Failed,
            backup: crate::catalog::describe(&pinned),
            backup_created: Some(pinned.object.created),
            backup_set: "default".into(),
            ..VerificationReport::new("r", Trigger::Command, Depth::Data, now)
        };
        let (itself, older) = catalog.older_backups(&failed).await.unwrap();
        assert_eq!(itself.unwrap().generation, nights[2]);
        let older: Vec<Generation> = older.iter().map(|o| o.generation).collect();
        assert_eq!(older, [nights[1], nights[0]]);
        let due = catalog.due(now).await;
        let of = |trigger: Trigger| {
            let jobs = due.iter().filter(|j| j.trigger == trigger);
            let mut found: Vec<Generation> = jobs.filter_map(|j| j.generation).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(of(Trigger::Schedule), [nights[2]]);
        assert_eq!(of(Trigger::Sample), nights[..2]);
        // One that was deleted since is the newest of none.
        emulator.storage.delete(BUCKET, NAME);
        assert!(catalog.due(now).await.is_empty());
    }

    #[tokio::test]
    async fn what_the_bucket_keeps_is_known_before_it_is_deleted() {
        let retained = BucketOptions {
            retention: Some(Duration::from_secs(30 * 24 * 3600)),
            is_retention_locked: true,
            ..VERSIONED
        };
        let (emulator, catalog) = bucket_of(retained, &[]).await;
        let storage = &emulator.storage;
        for (name, age) in [
            ("a.dump", 1),
            ("b.dump", 40),
            ("c.dump", 40),
            ("d.dump", 40),
        ] {
            storage.put(BUCKET, name, archive_of("app"));
            storage.set_created(BUCKET, name, days_ago(age));
        }
        let hold = ObjectHolds {
            temporary: true,
            ..ObjectHolds::default()
        };
        storage.set_holds(BUCKET, "b.dump", hold);
        let own = ObjectHolds {
            retain_until: Some(SystemTime::now() + Duration::from_secs(3600)),
            ..ObjectHolds::default()
        };
        storage.set_holds(BUCKET, "c.dump", own);
        let locks = catalog.locks("default", jiff::Timestamp::now()).await;
        let locks = locks.unwrap();
        let backups = catalog.backups_of_set("default").await.unwrap();
        for (name, said) in [
            ("a.dump", Some("retention policy until ")),
            ("b.dump", Some("held (temporary hold)")),
            ("c.dump", Some("retention policy until ")),
            ("d.dump", None),
        ] {
            let object = backups.iter().find(|o| o.name == name).unwrap();
            let phrase = locks.of(object).map(|l| l.phrase("gs://backups/"));
            match said {
                Some(said) => assert!(phrase.unwrap().starts_with(said), "{name}"),
                None => assert_eq!(phrase, None),
            }
            let store = catalog.store().await.unwrap();
            let deleted = store.delete(object).await;
            let is_kept = deleted.is_err_and(|e| e.kind() == StorageKind::Retained);
            assert_eq!(is_kept, said.is_some(), "{name}");
        }
        let a = backups.iter().find(|o| o.name == "a.dump").unwrap();
        let phrase = locks.of(a).unwrap().phrase("gs://backups/");
        assert!(phrase.ends_with("(the policy is locked: nobody can end it earlier)"));
    }

    #[tokio::test]
    async fn a_folder_has_no_former_generations() {
        let app = archive_of("app");
        let files: &[(&str, &[u8])] = &[(NAME, &app)];
        let (_folder, _store, catalog) = catalog_of(files, &[]).await;
        let e = catalog.list_generations("").await.unwrap_err();
        assert_eq!(e.reason(), R::InvalidRequest);
        assert!(report(&e).contains("is a folder"), "{}", report(&e));
        let e = chosen(&catalog, "latest-proven", true).await.unwrap_err();
        assert_eq!(e.reason(), R::InvalidRequest);
        let e = catalog.undelete(&named(NAME), None, false).await;
        assert_eq!(e.unwrap_err().reason(), R::InvalidRequest);
    }
}

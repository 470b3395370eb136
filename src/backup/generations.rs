//! Backups of buckets that keep former generations of a name: as the bucket was at a time, and all generations of each name.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::unlisted::UnlistedPlaces;
use super::{
    FoundBackup, check_any, file_of, folder_of, found_in, is_first_piece, newer_first, not_after,
    not_found, of_bucket, of_object, whole_of,
};
use crate::error::{RestoreError, StorageError, StorageKind};
use crate::proof::is_ours;
use crate::store::{BackupStore, GenerationState, ObjectGeneration, StoredObject};
use pgdump_archive::member_name;

/// Backups of which some may not be live any more.
pub(crate) struct FormerBackups {
    /// Newest first.
    pub(crate) found: Vec<FoundBackup>,
    pub(crate) unlisted: UnlistedPlaces,
    /// Soft-deleted objects that would be among them, newest first. None where this account may not list such objects.
    pub(crate) deleted: Vec<ObjectGeneration>,
    /// What to know about them.
    pub(crate) notes: Vec<String>,
}

/// All live and non-current generations below `prefix`, but those of evidence.
///
/// # Errors
/// As [`BackupStore::generations`].
pub(super) async fn generations_below(
    store: &dyn BackupStore,
    prefix: &str,
) -> Result<Vec<ObjectGeneration>, StorageError> {
    let is_wanted = Arc::new(|name: &str| !is_ours(name));
    store.generations(prefix, is_wanted).await
}

/// The non-current generations below `prefix` that are backups by themselves. Former members of a directory dump and former
/// pieces of a split file are none: which of them were one backup is not known.
///
/// # Errors
/// As [`BackupStore::generations`].
pub(crate) async fn formers_below(
    store: &dyn BackupStore,
    prefix: &str,
) -> Result<Vec<StoredObject>, StorageError> {
    let all = generations_below(store, prefix).await?;
    Ok(former_singles(all))
}

/// The former generations that may be backups by themselves: no members of directories, and no pieces of files that were split.
fn former_singles(all: Vec<ObjectGeneration>) -> Vec<StoredObject> {
    let names = all.iter().map(|g| g.object.name.as_str());
    let first_pieces = names.filter(|name| is_first_piece(name));
    let split: HashSet<String> = first_pieces
        .filter_map(whole_of)
        .map(str::to_owned)
        .collect();
    let is_single = |name: &str| {
        let is_member = !folder_of(name).is_empty() && member_name::may_hold_data(file_of(name));
        let is_piece = whole_of(name).is_some_and(|whole| split.contains(whole));
        !is_member && !is_piece && !name.ends_with('/')
    };
    all.into_iter()
        .filter(|g| matches!(g.state, GenerationState::NonCurrent { .. }))
        .map(|g| g.object)
        .filter(|o| is_single(&o.name))
        .collect()
}

/// The backups under `prefix` as [`super::newest_first`] finds them: at the time `at`, those that their names meant then; with
/// `all_of_each`, also former generations of each name, if they were made not after `at`.
///
/// # Errors
/// As [`super::newest_first`].
pub(crate) async fn newest_former_first(
    store: &dyn BackupStore,
    (prefix, at): (&str, Option<jiff::Timestamp>),
    excluded_suffix: Option<&str>,
    manifest: Option<&str>,
    all_of_each: bool,
) -> Result<FormerBackups, RestoreError> {
    let listed = generations_below(store, prefix).await;
    let mut all = listed.map_err(of_bucket).map_err(of_object)?;
    all.retain(|g| excluded_suffix.is_none_or(|s| !g.object.name.ends_with(s)));
    let mut snapshot = match at {
        Some(at) => live_at(&all, at),
        None => live_now(&all),
    };
    let unlisted = UnlistedPlaces::take_from(store, &mut snapshot);
    let mut found = found_in(store, snapshot.clone(), manifest).await?;
    let mut passed = Vec::new();
    if let Some(at) = at {
        found.retain(|f| !has_later_parts(f, &all, at));
        found.retain(|f| {
            let has_former = has_former_parts(f, &all, at);
            if has_former {
                passed.push(f.object.name.clone());
            }
            !has_former
        });
    }
    let passed = note_of_passed(&passed);
    for folder in found.iter_mut().filter(|f| f.object.name.ends_with('/')) {
        let name = &folder.object.name;
        let is_member = |o: &&StoredObject| {
            folder_of(&o.name) == name && member_name::may_hold_data(file_of(&o.name))
        };
        folder.members = snapshot.iter().filter(is_member).cloned().collect();
    }
    if all_of_each {
        let is_there = |o: &StoredObject| {
            let is_it =
                |f: &FoundBackup| f.object.name == o.name && f.object.generation == o.generation;
            found.iter().any(is_it)
        };
        let mut former = former_singles(all);
        former.retain(|o| at.is_none_or(|t| o.created <= t) && !is_there(o));
        found.extend(former.into_iter().map(FoundBackup::single));
    }
    let (deleted, unknown) = deleted_at((store, prefix), at, excluded_suffix).await?;
    if let Some(note) = passed.as_ref().filter(|_| found.is_empty()) {
        let what = format!("no backup{}; {note}", not_after(at));
        return Err(not_found(store, prefix, &what));
    }
    if deleted.is_empty() {
        check_any(store, prefix, at, (&found, &unlisted))?;
    }
    found.sort_by(|a, b| newer_first(&a.object, &b.object));
    Ok(FormerBackups {
        found,
        unlisted,
        deleted,
        notes: unknown.into_iter().chain(passed).collect(),
    })
}

/// The soft-deleted objects that were live at a time, newest first, and a note if they are not known; without a time, none.
///
/// # Errors
/// The store's own: what is not known because a call failed could be the newest backup of then.
async fn deleted_at(
    (store, prefix): (&dyn BackupStore, &str),
    at: Option<jiff::Timestamp>,
    excluded_suffix: Option<&str>,
) -> Result<(Vec<ObjectGeneration>, Option<String>), RestoreError> {
    let Some(at) = at else {
        return Ok((vec![], None));
    };
    let is_wanted = Arc::new(|name: &str| !is_ours(name) && !name.ends_with('/'));
    let mut deleted = match store.soft_deleted(prefix, is_wanted).await {
        Ok(deleted) => deleted,
        Err(e) => return Ok((vec![], Some(not_known(e)?))),
    };
    deleted.retain(|g| {
        g.was_live_at(at) && excluded_suffix.is_none_or(|s| !g.object.name.ends_with(s))
    });
    deleted.sort_by(|a, b| newer_first(&a.object, &b.object));
    Ok((deleted, None))
}

/// That soft-deleted objects are not known to this account, or in a bucket without them.
///
/// # Errors
/// The error, if another attempt could tell.
fn not_known(e: StorageError) -> Result<String, StorageError> {
    match e.kind() {
        StorageKind::AccessDenied | StorageKind::CallRejected => Ok(format!(
            "soft-deleted objects of that time were not examined ({e}): a newer backup may be among them"
        )),
        _ => Err(e),
    }
}

/// Whether an object of this name is part of a directory dump or a split file.
fn is_part(found: &FoundBackup, name: &str) -> bool {
    let own = found.object.name.as_str();
    match &found.series {
        Some(series) => name.starts_with(&series.prefix),
        None => {
            own.ends_with('/')
                && folder_of(name) == own
                && member_name::may_hold_data(file_of(name))
        }
    }
}

/// Whether objects of a directory dump or a split file came after a time: it was being uploaded then, or was overwritten since.
/// Which of its generations were one backup is not known, and those of two would be a mixture.
fn has_later_parts(found: &FoundBackup, all: &[ObjectGeneration], at: jiff::Timestamp) -> bool {
    let mut later = all.iter().filter(|g| g.object.created > at);
    later.any(|g| is_part(found, &g.object.name))
}

/// Whether objects of a directory dump or a split file are not live any more. Such a backup is read by its name, and what is
/// live of it is not what it was.
fn has_former_parts(found: &FoundBackup, all: &[ObjectGeneration], at: jiff::Timestamp) -> bool {
    let of_then = all.iter().filter(|g| g.was_live_at(at));
    let mut former = of_then.filter(|g| g.state != GenerationState::Live);
    former.any(|g| is_part(found, &g.object.name))
}

/// That backups of several objects were not chosen from, of which some are not live any more.
fn note_of_passed(passed: &[String]) -> Option<String> {
    let first = passed.first()?;
    let others = match passed.len() - 1 {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    Some(format!(
        "not chosen: {first}{others}, some of whose objects of that time are no longer live"
    ))
}

fn live_now(all: &[ObjectGeneration]) -> Vec<StoredObject> {
    let live = all.iter().filter(|g| g.state == GenerationState::Live);
    live.map(|g| g.object.clone()).collect()
}

/// The objects of a bucket as they were at a time: one generation of each name.
fn live_at(all: &[ObjectGeneration], at: jiff::Timestamp) -> Vec<StoredObject> {
    let mut by_name: HashMap<&str, &StoredObject> = HashMap::new();
    for ObjectGeneration { object, .. } in all.iter().filter(|g| g.was_live_at(at)) {
        let newest = by_name.entry(object.name.as_str()).or_insert(object);
        if (object.created, object.generation) > (newest.created, newest.generation) {
            *newest = object;
        }
    }
    let mut objects: Vec<StoredObject> = by_name.into_values().cloned().collect();
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    objects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Generation;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    /// A generation that was made at a second and, if it is not live any more, became non-current at another.
    fn generation(name: &str, created: i64, ended: Option<i64>) -> ObjectGeneration {
        let since = ended.map(at);
        ObjectGeneration {
            object: StoredObject {
                created: at(created),
                generation: Generation(created),
                ..StoredObject::named(name)
            },
            state: since.map_or(GenerationState::Live, |since| GenerationState::NonCurrent {
                since,
            }),
        }
    }

    #[test]
    fn a_name_means_the_generation_that_was_live_then() {
        let all = [
            generation("app.dump", 10, Some(20)),
            generation("app.dump", 20, Some(30)),
            generation("app.dump", 30, None),
            // Deleted, and not overwritten.
            generation("shop.dump", 5, Some(25)),
        ];
        for (second, wanted) in [
            (4, vec![]),
            (9, vec![("shop.dump", 5)]),
            (10, vec![("app.dump", 10), ("shop.dump", 5)]),
            (19, vec![("app.dump", 10), ("shop.dump", 5)]),
            (20, vec![("app.dump", 20), ("shop.dump", 5)]),
            (25, vec![("app.dump", 20)]),
            (99, vec![("app.dump", 30)]),
        ] {
            let found = live_at(&all, at(second));
            let found: Vec<_> = found
                .iter()
                .map(|o| (o.name.as_str(), o.generation.0))
                .collect();
            assert_eq!(found, wanted, "{second}");
        }
    }

    #[test]
    fn a_directory_that_was_overwritten_since_is_no_backup() {
        let all = [
            generation("night/toc.dat", 10, Some(40)),
            generation("night/1.dat", 12, Some(41)),
            generation("night/toc.dat", 40, None),
            generation("night/1.dat", 41, None),
            generation("other/x.dump", 50, None),
        ];
        let folder = FoundBackup::single(StoredObject::named("night/"));
        for (second, is) in [(11, true), (39, true), (40, true), (41, false)] {
            assert_eq!(has_later_parts(&folder, &all, at(second)), is, "{second}");
        }
        // One that was only deleted is as it was, and cannot be read by its name.
        assert!(!has_later_parts(&folder, &all[..2], at(12)));
        assert!(has_former_parts(&folder, &all[..2], at(12)));
        assert!(!has_former_parts(&folder, &all[2..], at(42)));
        let single = FoundBackup::single(StoredObject::named("other/x.dump"));
        assert!(!has_later_parts(&single, &all, at(1)));
        // A single object is read by its generation.
        let former = [generation("app.dump", 10, Some(20))];
        let single = FoundBackup::single(StoredObject::named("app.dump"));
        assert!(!has_former_parts(&single, &former, at(12)));
        let note = note_of_passed(&["night/".into(), "noon/".into()]).unwrap();
        assert!(note.contains("night/ and 1 more"), "{note}");
    }

    /// An older backup is never chosen because a call failed.
    #[test]
    fn only_what_stays_unknown_is_a_note() {
        for (kind, is_note) in [
            (StorageKind::AccessDenied, true),
            (StorageKind::CallRejected, true),
            (StorageKind::DownloadFailed, false),
            (StorageKind::NotFound, false),
        ] {
            let said = not_known(StorageError::new(kind, "gs://b/: no"));
            assert_eq!(said.is_ok(), is_note, "{kind:?}");
        }
    }

    #[test]
    fn former_parts_of_a_backup_are_no_backups() {
        for (name, is_single) in [
            ("app.dump", true),
            ("night/app.dump", true),
            ("night/toc.dat", false),
            ("night/3001.dat.gz", false),
            ("app.dump.aa", false),
        ] {
            let former = former_singles(vec![generation(name, 1, Some(2))]);
            assert_eq!(!former.is_empty(), is_single, "{name}");
            assert!(former_singles(vec![generation(name, 1, None)]).is_empty());
        }
    }
}

//! Files that lie beside a backup and are about it: checksums, signatures, logs, markers that it is complete. Pure.

use std::collections::HashSet;

use crate::proof::pattern_of;
use crate::store::StoredObject;

/// How their names end.
const ENDINGS: [&str; 23] = [
    ".asc",
    ".complete",
    ".completed",
    ".crc",
    ".crc32c",
    ".done",
    ".err",
    ".finished",
    ".json",
    ".lock",
    ".log",
    ".manifest",
    ".md5",
    ".meta",
    ".metadata",
    ".ok",
    ".sha1",
    ".sha256",
    ".sha512",
    ".sig",
    ".stderr",
    ".success",
    "_success",
];

/// Bytes that one has at most.
const MAX_SIZE: u64 = 4 << 10;

/// The others, unless there are none. An empty file that is not called like a companion is a backup that went wrong.
pub(super) fn without_companions<T>(
    mut all: Vec<T>,
    object: impl Fn(&T) -> &StoredObject,
) -> Vec<T> {
    let is_backup = are_backups(all.iter().map(object));
    if is_backup.contains(&true) {
        let mut is_backup = is_backup.into_iter();
        all.retain(|_| is_backup.next() == Some(true));
    }
    all
}

/// Whether each of these is more than a companion.
fn are_backups<'a>(all: impl Iterator<Item = &'a StoredObject>) -> Vec<bool> {
    let all: Vec<&StoredObject> = all.collect();
    let backups = BackupNames::among(&all);
    let is_backup = |o: &&StoredObject| !backups.have_companion(o);
    all.iter().map(is_backup).collect()
}

/// What is known of the names of backups.
struct BackupNames<'a> {
    /// The beginnings of the names of those that are certainly no companions.
    beginnings: HashSet<&'a str>,
    /// The patterns of those that are called like companions and are too long for one.
    patterns: HashSet<String>,
}

impl<'a> BackupNames<'a> {
    fn among(all: &[&'a StoredObject]) -> Self {
        let is_long = |o: &StoredObject| o.size > MAX_SIZE;
        let is_called_so = |o: &StoredObject| subject_of(&o.name).is_some();
        let backups = all.iter().filter(|o| is_long(o) || !is_called_so(o));
        let called_so = all.iter().filter(|o| is_long(o) && is_called_so(o));
        BackupNames {
            beginnings: backups.flat_map(|o| beginnings(&o.name)).collect(),
            patterns: called_so.map(|o| pattern_of(&o.name)).collect(),
        }
    }

    /// Whether it is called like a companion, and no backup is called so, and it is empty, or has few bytes and lies beside a
    /// backup with its name.
    fn have_companion(&self, object: &StoredObject) -> bool {
        let Some(subject) = subject_of(&object.name) else {
            return false;
        };
        let is_beside = || beginnings(subject).any(|name| self.beginnings.contains(name));
        let may_be = object.size == 0 || (object.size <= MAX_SIZE && is_beside());
        may_be && !self.patterns.contains(&pattern_of(&object.name))
    }
}

/// The names of files.
pub(super) fn names_of<'a>(
    objects: impl IntoIterator<Item = &'a StoredObject>,
) -> HashSet<&'a str> {
    objects.into_iter().map(|o| o.name.as_str()).collect()
}

/// Whether a file is called like one of these with an ending more: `x.dump.sha256` beside `x.dump`.
pub(super) fn is_beside(object: &StoredObject, names: &HashSet<&str>) -> bool {
    let name = object.name.as_str();
    let mut dots = name.match_indices('.');
    dots.any(|(dot, _)| names.contains(&name[..dot]))
}

/// What a companion is about, by its name: `x.dump` for `x.dump.sha256`.
fn subject_of(name: &str) -> Option<&str> {
    let lower = name.to_ascii_lowercase();
    let ending = ENDINGS.iter().find(|ending| lower.ends_with(**ending))?;
    Some(&name[..name.len() - ending.len()])
}

/// A name, and what it is without one or more of its endings: `x` and `x.sql` for `x.sql.gz`. Of a folder without its slash.
fn beginnings(name: &str) -> impl Iterator<Item = &str> {
    let name = name.strip_suffix('/').unwrap_or(name);
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dots = name.match_indices('.').map(|(dot, _)| dot);
    let ends = dots.filter(move |dot| *dot > file).chain([name.len()]);
    ends.map(move |end| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{archive_of, catalog_of, set_age};
    use crate::job::BackupRef;

    /// Those of these names with their sizes that are left.
    fn left(files: &[(&str, u64)]) -> Vec<String> {
        let object = |(name, size): &(&str, u64)| StoredObject {
            size: *size,
            ..StoredObject::named(name)
        };
        let all: Vec<StoredObject> = files.iter().map(object).collect();
        let left = without_companions(all, |o| o);
        left.into_iter().map(|o| o.name).collect()
    }

    #[test]
    fn only_files_about_a_backup_are_left_out() {
        for (name, size, is_companion) in [
            ("d/x.sql.gz.sha256", 90, true),
            ("d/x.sql.gz.sha256.asc", 900, true),
            ("d/x.sql.gz.ok", 3, true),
            ("d/x.sql.gz.log", 0, true),
            ("d/x.sql.md5", 60, true),
            ("d/x.SHA512", 150, true),
            ("d/x.json", 400, true),
            ("d/x.sql.gz_SUCCESS", 0, true),
            ("d/n.ok", 3, true),
            ("d/n/_SUCCESS", 0, true),
            ("d/_SUCCESS", 0, true),
            ("all.ok", 0, true),
            // An upload that was interrupted, and files of other names.
            ("d/y.sql.gz", 0, false),
            ("d/x.sql.gz.dump", 3, false),
            ("d/x.sql.gz.2026-11-30", 0, false),
            ("d/y.json", 400, false),
            ("x.sha256", 90, false),
            // More than a companion says.
            ("d/x.sql.gz.json", 1 << 20, false),
        ] {
            let all = [("d/x.sql.gz", 9), ("d/n/", 9), (name, size)];
            let is_left = left(&all).len() == 3;
            assert_eq!(is_left, !is_companion, "{name}");
        }
        // Where backups are called so, it is one whose upload was interrupted.
        let backups = [("x-2026-11-29.json", 1 << 20), ("x-2026-11-30.json", 0)];
        assert_eq!(left(&backups).len(), 2);
        // Nothing else is there, and none is about the other.
        assert_eq!(left(&[("x.ok", 0)]), ["x.ok"]);
        assert_eq!(left(&[("x.ok", 3), ("x.md5", 60)]).len(), 2);
    }

    /// Whatever was written after the newest backup, and whichever name or size it has.
    #[tokio::test]
    async fn latest_is_no_companion() {
        let dump = archive_of("app");
        let text: &[u8] = b"CREATE TABLE t ();\n";
        let files: &[(&str, &[u8])] = &[
            ("all.ok", b""),
            ("hab-2026-11-29.sql.ok", b"done\n"),
            (
                "hab-2026-11-29.sql.sha256",
                b"9f86d081  hab-2026-11-29.sql\n",
            ),
            ("hab-2026-11-29.sql", text),
            ("app-2026-11-28.dump", &dump),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, (name, _)) in files.iter().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        let latest = BackupRef::from_name("latest", "").unwrap();
        let pinned = async || catalog.pin(&latest, None, None).await.unwrap().unwrap();
        let newest = pinned().await;
        assert_eq!(newest.object.name, "hab-2026-11-29.sql");
        let [note] = &newest.notes[..] else {
            panic!("{:?}", newest.notes);
        };
        assert!(note.contains("there are backups of others (app)"), "{note}");
        // An upload of a backup that was interrupted is not passed over.
        std::fs::write(folder.path().join("hab-2026-11-30.sql"), "").unwrap();
        assert_eq!(pinned().await.object.name, "hab-2026-11-30.sql");
        // Nor does the schedule verify a companion.
        let (all, _) = catalog.backups_below("").await.unwrap();
        let groups = catalog.by_database(all, &[]).await;
        let names: Vec<&str> = groups
            .iter()
            .flat_map(|g| g.backups.iter().map(|o| o.name.as_str()))
            .collect();
        assert!(!names.iter().any(|n| n.ends_with(".ok")), "{names:?}");
    }
}

//! A catalogue of a folder whose store fails as it is told to, for tests.

use std::sync::Arc;

use super::backup_catalog::BackupCatalog;
use crate::config::{Config, Location, RawConfig};
use crate::job::{BackupRef, VerifyJob};
use crate::metrics::RestoreMetricsManager;
use crate::policy::{Depth, Trigger};
use crate::proof::{Verdict, VerificationReport};
use crate::store::Stores;
use crate::store::faulty::FaultyStore;

/// A catalogue of a folder with these files.
pub(super) async fn catalog_of(
    files: &[(&str, &[u8])],
    flags: &[(&str, &str)],
) -> (tempfile::TempDir, Arc<FaultyStore>, BackupCatalog) {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let bucket = format!("file://{}", folder.path().display());
    let flags = [&[("backup-bucket", bucket.as_str())], flags].concat();
    let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
    let (store, stores) = (FaultyStore::at(folder.path()), Stores::new(None));
    let (store, stores) = (Arc::new(store), Arc::new(stores));
    let place = Location::Folder(folder.path().to_owned());
    stores.replace(place, store.clone());
    let metrics = RestoreMetricsManager::new(0.0);
    let catalog = BackupCatalog::new(Arc::new(config), stores, metrics);
    (folder, store, catalog)
}

/// Writes evidence beside a backup: that it was verified to depth `data` now, changed by `change`. Returns the URI of the
/// document.
pub(super) async fn verified(
    catalog: &BackupCatalog,
    id: &str,
    backup: &str,
    change: impl FnOnce(&mut VerificationReport),
) -> String {
    let wanted = BackupRef::from_name(backup, "").unwrap();
    let pinned = catalog.pin(&wanted, None, None).await.unwrap();
    let now = jiff::Timestamp::now();
    let mut report = VerificationReport {
        verdict: Verdict::Verified,
        depth: Some(Depth::Data),
        backup: super::describe(pinned.as_ref().unwrap()),
        backup_created: Some(pinned.as_ref().unwrap().object.created),
        backup_set: "default".into(),
        ..VerificationReport::new(id, Trigger::Command, Depth::Data, now)
    };
    change(&mut report);
    let job = VerifyJob::new(id, wanted, Trigger::Command);
    let kept = catalog.write_evidence(&job, &report, pinned.as_ref()).await;
    kept.unwrap().unwrap().document.uri
}

/// Says that a file was made so many seconds ago.
pub(super) fn set_age(folder: &tempfile::TempDir, name: &str, seconds: u64) {
    let file = std::fs::File::options()
        .write(true)
        .open(folder.path().join(name))
        .unwrap();
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
    file.set_modified(then).unwrap();
}

/// The header of an archive in the custom format whose database has this name.
pub(crate) fn archive_of(database: &str) -> Vec<u8> {
    header_of(database, CUSTOM)
}

/// The marks of the formats in a header. A directory's `toc.dat` says that it is a tar's.
const CUSTOM: u8 = 1;
const TAR: u8 = 3;

fn header_of(database: &str, format: u8) -> Vec<u8> {
    let int = |n: usize| [&[0u8][..], &(n as u32).to_le_bytes()].concat();
    let mut bytes = b"PGDMP\x01\x0e\x00\x04\x08".to_vec();
    bytes.push(format);
    for n in [6, 1, 2, 3, 22, 10, 126, 0] {
        bytes.extend(int(n));
    }
    for text in [database, "15.4", "15.4"] {
        bytes.extend(int(text.len()));
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The table of contents of a database: tables, and whether the archive has their rows.
pub(super) fn archive_with(database: &str, tables: &[(&str, bool)]) -> Vec<u8> {
    contents_of(database, tables, CUSTOM)
}

/// The same as a directory's `toc.dat`: of N tables, the rows of the first one that has any are in the member `N+1.dat`.
pub(super) fn toc_with(database: &str, tables: &[(&str, bool)]) -> Vec<u8> {
    contents_of(database, tables, TAR)
}

fn contents_of(database: &str, tables: &[(&str, bool)], format: u8) -> Vec<u8> {
    let int = |n: i64| {
        let bytes = n.unsigned_abs().to_le_bytes();
        [&[u8::from(n < 0)], &bytes[..4]].concat()
    };
    let text = |text: &str| [int(text.len() as i64).as_slice(), text.as_bytes()].concat();
    let entry = |id: i64, kind: &str, tag: &str| {
        let has_data = kind == "TABLE DATA";
        let section = if has_data { 3 } else { 2 };
        let fields = [
            int(id),
            int(i64::from(has_data)),
            text("0"),
            text("0"),
            text(tag),
            text(kind),
            int(section),
            text(&format!("CREATE TABLE public.{tag} ();\n")),
            text(""),
            text(&format!("COPY public.{tag} FROM stdin;\n")),
            text("public"),
            text(""),
            text("heap"),
            text("me"),
            text("false"),
            int(-1),
            match (format, has_data) {
                (CUSTOM, _) => [vec![if has_data { 1 } else { 3 }], vec![0; 8]].concat(),
                (_, true) => text(&format!("{id}.dat")),
                (_, false) => text(""),
            },
        ];
        fields.concat()
    };
    let rows = tables.iter().filter(|(_, has_rows)| *has_rows);
    let definitions = tables.iter().map(|(tag, _)| ("TABLE", *tag));
    let all: Vec<(&str, &str)> = definitions
        .chain(rows.map(|(tag, _)| ("TABLE DATA", *tag)))
        .collect();
    let mut bytes = header_of(database, format);
    bytes.extend(int(all.len() as i64));
    for (id, (kind, tag)) in (1..).zip(all) {
        bytes.extend(entry(id, kind, tag));
    }
    bytes
}

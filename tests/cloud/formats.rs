//! Backups in a bucket that consist of several objects, or whose `Content-Encoding` the store interprets.

use std::io::Write;
use std::path::PathBuf;

use futures::FutureExt;

use pgrestored::emulator::StorageFault as F;
use pgrestored::error::FailureReason as R;
use pgrestored::job::BackupRef;
use tokio_util::sync::CancellationToken;

use crate::cases;
use crate::support::Cluster;
use crate::test_env::{BUCKET, PubSubKind, SourceCluster, TestEnv, restore};

const SOURCE: &str = "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, md5(i::text) FROM generate_series(1, 2000) i;
    CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT i, md5((-i)::text) FROM generate_series(1, 2000) i;
    CREATE TABLE c (id int REFERENCES a); INSERT INTO c SELECT i FROM generate_series(1, 500) i;
    SELECT lo_from_bytea(100 + i, decode(repeat(md5(i::text), 100), 'hex')) FROM generate_series(1, 20) i";

/// What the cases share.
struct SourceDumps {
    source: SourceCluster,
    /// A directory dump.
    folder: PathBuf,
}

/// The same with a bucket of its own.
struct Setup<'a> {
    env: TestEnv,
    c: &'a Cluster,
    dumps: &'a SourceDumps,
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_of_several_objects_or_encodings_are_read() {
    let source = SourceCluster::of(SOURCE);
    let folder = source.c.dump_to_file("src", &["-Fd"]);
    let dumps = SourceDumps { source, folder };
    cases::each([
        (
            "a directory is a prefix of the bucket",
            a_directory_is_a_prefix_of_the_bucket(&dumps).boxed_local(),
        ),
        (
            "members that are compressed twice",
            members_that_are_compressed_twice(&dumps).boxed_local(),
        ),
        (
            "objects with a content encoding",
            objects_with_a_content_encoding(&dumps).boxed_local(),
        ),
        (
            "only the beginning of a large object is inspected",
            only_the_beginning_of_a_large_object_is_inspected(&dumps).boxed_local(),
        ),
    ])
    .await;
}

async fn setup(dumps: &SourceDumps) -> Setup<'_> {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = &dumps.source.c;
    Setup { env, c, dumps }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    w.write_all(bytes).unwrap();
    w.finish().unwrap()
}

impl Setup<'_> {
    /// Uploads the directory dump under `prefix`, with each member transformed by `change`.
    fn upload(&self, prefix: &str, change: impl Fn(&str, Vec<u8>) -> (String, Vec<u8>)) -> u64 {
        let mut total = 0;
        for member in std::fs::read_dir(&self.dumps.folder).unwrap() {
            let member = member.unwrap();
            let name = member.file_name().into_string().unwrap();
            let (name, bytes) = change(&name, std::fs::read(member.path()).unwrap());
            total += bytes.len() as u64;
            self.env
                .emulator
                .storage
                .put(BUCKET, &format!("{prefix}{name}"), bytes);
        }
        total
    }

    fn same(&self, target: &str) {
        self.dumps.source.assert_restored(target);
    }
}

async fn a_directory_is_a_prefix_of_the_bucket(dumps: &SourceDumps) {
    let s = setup(dumps).await;
    let total = s.upload("night/2026-11-22/", |name, bytes| (name.to_owned(), bytes));
    s.env
        .emulator
        .storage
        .put(BUCKET, "night/2026-11-22/deeper/note.txt", "not a member");
    let app = s.env.app(s.c, &[]);
    let storage = &s.env.emulator.storage;
    storage.fail_next_reads([
        F::CutAfter(10),
        F::Unavailable,
        F::CutAfter(1000),
        F::CutAfter(0),
    ]);
    let done = restore(&app, "night/2026-11-22/", "ours").await;
    assert_eq!(done.result.error, None);
    s.same("ours");
    let b = &done.result.backup;
    assert_eq!(
        (b.name.as_deref(), b.size.clone()),
        (Some("night/2026-11-22/"), Some(total.to_string()))
    );
    assert!(b.crc32c.is_none() && b.generation.is_some());
    // The listing shows it as one backup, which is the newest.
    let listed = app.manager.list_available_backups().await.unwrap();
    assert!(
        listed
            .iter()
            .any(|l| l.name == "night/2026-11-22/" && l.size == total),
        "{listed:?}"
    );
    // One bit is flipped in one member, while the member's checksum is that of the intact bytes.
    storage.fail_next_reads([F::CutAfter(0), F::CutAfter(0), F::Flip(60)]);
    let done = restore(&app, "night/2026-11-22/", "never").await;
    let reason = done.failure.unwrap();
    assert!(
        matches!(reason, R::ArchiveCorrupt | R::ChecksumMismatch),
        "{:?}",
        done.result.error
    );
    assert!(!s.c.databases().contains(&"never".to_owned()));
    assert_eq!(s.c.leftovers(), Vec::<String>::new());
}

/// A parallel export of Cloud SQL: every member is compressed twice.
async fn members_that_are_compressed_twice(dumps: &SourceDumps) {
    let s = setup(dumps).await;
    s.upload("twice/", |name, bytes| (name.to_owned(), gzip(&bytes)));
    s.upload("renamed/", |name, bytes| {
        (format!("{name}.gz"), gzip(&bytes))
    });
    let app = s.env.app(s.c, &[]);
    // Its name is that of the folder, with a slash or without one.
    for (folder, target) in [("twice", "twice"), ("renamed/", "renamed")] {
        let done = restore(&app, folder, target).await;
        assert_eq!(done.result.error, None);
        s.same(target);
    }
}

/// With `Content-Encoding: gzip`, the bytes are downloaded as stored and decompressed by pgrestored.
async fn objects_with_a_content_encoding(dumps: &SourceDumps) {
    let s = setup(dumps).await;
    let storage = &s.env.emulator.storage;
    let (text, custom) = (s.c.dump("src", &[]), &dumps.source.dump);
    for (name, bytes) in [("plain.sql", &text), ("custom.dump", custom)] {
        storage.put(BUCKET, name, gzip(bytes));
        storage.set_gzip_encoding(BUCKET, name);
        let app = s.env.app(s.c, &[]);
        let target = name.replace('.', "_");
        let done = restore(&app, name, &target).await;
        assert_eq!(done.result.error, None);
        s.same(&target);
    }
}

/// `inspect` of a 1 GB object reads only its first bytes.
async fn only_the_beginning_of_a_large_object_is_inspected(dumps: &SourceDumps) {
    let s = setup(dumps).await;
    let storage = &s.env.emulator.storage;
    let path = s.c.dump_to_file("src", &[]);
    // A sparse file: 1 GB for the store.
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    storage.put_file(BUCKET, "large.dump", path).unwrap();
    let app = s.env.app(s.c, &[]);
    let stop = CancellationToken::new();
    let wanted = BackupRef::parse("large.dump", "").unwrap();
    let (pinned, archive) = app
        .manager
        .catalog()
        .open(&wanted, stop.clone())
        .await
        .unwrap();
    let mut findings = app
        .manager
        .preflight(&archive, &wanted, pinned.as_ref())
        .await
        .unwrap();
    assert_eq!(
        (
            pinned.unwrap().object.size,
            archive.sizes(Some(1 << 30)).len()
        ),
        (1 << 30, 4)
    );
    // It is larger than the disk of some machines.
    findings.retain(|f| !f.what.contains("disk space"));
    assert_eq!(findings, []);
    stop.cancel();
    assert!(
        storage.sent() < 1 << 20,
        "{} bytes were sent",
        storage.sent()
    );
}

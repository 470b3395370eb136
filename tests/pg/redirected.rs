//! Archives written with `-f`, `>`, `>>`, through pipes and compressors. If the output was opened for
//! appending (`>>`, and since PostgreSQL 16 also `>`), `pg_dump` writes its table of contents once more after
//! the data.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgdump_archive::{Archive, ArchiveSource, ContentDigest, DecryptionKeys, DigestSink, Limits};
use pgrestored::app::App;
use pgrestored::event::Verdict;
use pgrestored::job::OnExisting;
use pgrestored::policy::Depth;
use pgrestored::progress::Progress;
use pgrestored::sandbox::find_bindir;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign, job};
use crate::verify::verify_as;

const SQL: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 3000) g; \
    CREATE TABLE u (x int REFERENCES t (id)); INSERT INTO u SELECT g FROM generate_series(1, 50) g; CREATE TABLE empty (a int); \
    SELECT lo_from_bytea(9001, 'one'), lo_from_bytea(9002, 'two'); ANALYZE;";

/// How a dump is written: a name, and what follows `pg_dump`.
const WAYS: [(&str, &str); 6] = [
    ("f", "-f F"),
    ("redirected", "> F"),
    ("appended", ">> F"),
    ("piped", "| cat > F"),
    ("zipped", "| gzip > F"),
    ("plain", "-Z0 > F"),
];

fn dump(c: &Cluster, bindir: &Path, options: &str, way: &str, file: &Path) {
    let way = way.replace('F', file.to_str().unwrap());
    let line = format!(
        "{}/pg_dump -Fc -h {} -U postgres {options} {way}",
        bindir.display(),
        c.sandbox.host()
    );
    let made = Command::new("sh").args(["-c", &line]).status().unwrap();
    assert!(made.success(), "{line}");
}

fn bindirs() -> Vec<(u32, PathBuf)> {
    let others = [16, 18]
        .into_iter()
        .filter_map(|v| bindir_of(v).map(|b| (v, b)));
    std::iter::once((15, find_bindir(&[]).unwrap()))
        .chain(others)
        .collect()
}

/// Restores with pgrestored; returns whether the restore index was used.
async fn restore_by(app: &App, file: &Path, target: &str) -> bool {
    let progress = Arc::new(Progress::default());
    let done = app
        .manager
        .run(
            &job(file, target, OnExisting::Fail),
            progress.clone(),
            CancellationToken::new(),
        )
        .await;
    assert!(
        done.failure.is_none(),
        "{}: {:?}",
        file.display(),
        done.result.error
    );
    progress.data_expected.load(Ordering::Relaxed) > 0
}

/// With 16, `make test` tries the ways that this version changed; the others are the same with 15 and 18.
fn is_tried(version: u32, way: &str) -> bool {
    version != 16 || ["redirected", "appended"].contains(&way) || is_full_campaign()
}

/// However a dump is written, it is restored and verified, and once more by the resulting restore index, with
/// the same result as by `pg_restore`.
#[tokio::test(flavor = "multi_thread")]
async fn dumps_are_restored_and_verified_however_they_were_written() {
    let c = Cluster::start();
    c.create("src", SQL);
    let evidence = format!("file://{}", c.scratch("evidence").display());
    let app = c.app(&[("evidence-location", &evidence)]);
    let source = c.content("src", &[]);
    for (version, bindir) in bindirs() {
        c.psql("postgres", "CREATE DATABASE theirs TEMPLATE template0");
        for (name, way) in WAYS {
            if !is_tried(version, name) {
                continue;
            }
            let what = format!("{name}.{version}.dump");
            let file = c.scratch(&what);
            dump(&c, &bindir, "-d src", way, &file);
            if name == "redirected" {
                // If its server does not know a setting, pg_restore continues and ends with an error.
                let mut theirs = Command::new(bindir.join("pg_restore"));
                let _ = c.sandbox.run(
                    theirs
                        .args(["-h", c.sandbox.host(), "-U", "postgres", "-d", "theirs"])
                        .arg(&file),
                );
            }
            assert!(!restore_by(&app, &file, "ours").await, "{what}");
            let deepest = if name == "redirected" {
                Depth::Data
            } else {
                Depth::Archive
            };
            for depth in [Depth::Object, deepest] {
                let proof = verify_as(
                    &app,
                    &format!("{what} {depth:?}"),
                    file.to_str().unwrap(),
                    depth,
                )
                .await;
                assert_eq!(
                    proof.verdict,
                    Verdict::Verified,
                    "{what}: {:?}",
                    proof.error
                );
            }
            assert_eq!(
                restore_by(&app, &file, "by_index").await,
                name != "zipped",
                "{what}"
            );
            for database in ["ours", "by_index"] {
                assert_same(&c.content(database, &[]), &source, &what);
                c.psql("postgres", &format!("DROP DATABASE {database}"));
            }
            let seen = Command::new(env!("CARGO_BIN_EXE_pgrestored"))
                .arg("inspect")
                .arg(&file)
                .output()
                .unwrap();
            assert!(seen.status.success(), "{what}");
        }
        assert_same(&c.content("theirs", &[]), &source, "pg_restore");
        c.psql("postgres", "DROP DATABASE theirs");
        let more: &[&str] = if version >= 18 {
            &["-s", "-a", "--statistics", "--statistics-only"]
        } else {
            &["-s", "-a"]
        };
        for options in more {
            for way in ["> F", ">> F"] {
                let file = c.scratch(&uuid::Uuid::new_v4().to_string());
                dump(&c, &bindir, &format!("-d src {options}"), way, &file);
                let origin = ArchiveSource::once(std::fs::File::open(&file).unwrap());
                let archive =
                    Archive::open(origin, Limits::default(), &DecryptionKeys::default()).unwrap();
                let ledger = ContentDigest::of(&archive);
                let read = archive.read_data(&mut DigestSink::new(&ledger, &|_| {}));
                read.unwrap_or_else(|e| panic!("{options} {way} of {version}: {e}"));
            }
        }
    }
    two_archives_in_one_file(&c);
}

/// A file that `pg_dump` wrote to twice is not one backup, and the message says where the second archive begins.
fn two_archives_in_one_file(c: &Cluster) {
    for (version, bindir) in bindirs() {
        let (file, first) = (c.scratch("two.dump"), c.scratch("first.dump"));
        dump(c, &bindir, "-d src", "> F", &first);
        std::fs::copy(&first, &file).unwrap();
        dump(c, &bindir, "-d src", ">> F", &file);
        let origin = ArchiveSource::once(std::fs::File::open(&file).unwrap());
        let archive = Archive::open(origin, Limits::default(), &DecryptionKeys::default()).unwrap();
        let ledger = ContentDigest::of(&archive);
        let e = archive
            .read_data(&mut DigestSink::new(&ledger, &|_| {}))
            .unwrap_err()
            .to_string();
        let size = std::fs::metadata(&first).unwrap().len();
        assert!(
            e.contains(&format!("at byte {size}, another archive begins")),
            "{version}: {e}"
        );
    }
}

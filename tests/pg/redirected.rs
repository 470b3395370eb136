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

/// The ways that `make test` tries with a version: those that 16 changed with each, of the others two with 15 and two with 18.
fn is_tried(version: u32, way: &str) -> bool {
    let others = match version {
        15 => ["f", "piped"],
        18 => ["zipped", "plain"],
        _ => [""; 2],
    };
    ["redirected", "appended"].contains(&way) || others.contains(&way) || is_full_campaign()
}

/// Whether an archive is restored before its verification in depth, and whether after it, by the resulting restore index.
/// `make soak` does both with each, `make test` the latter with what is redirected and with every other way.
fn turns(way: &str) -> [bool; 2] {
    let is_by_index = ["redirected", "piped", "plain", "zipped"].contains(&way);
    [
        !is_by_index || is_full_campaign(),
        is_by_index || is_full_campaign(),
    ]
}

/// Each way, those that differ by version with each of them, and both restores with each version.
#[test]
fn every_way_occurs_and_every_version_meets_both_restores() {
    let versions = [15, 16, 18];
    for (way, _) in WAYS {
        let tried = versions.into_iter().filter(|v| is_tried(*v, way)).count();
        let is_changed = ["redirected", "appended"].contains(&way);
        assert!(tried >= if is_changed { 3 } else { 1 }, "{way}");
    }
    for version in versions {
        let ways = WAYS.iter().filter(|(way, _)| is_tried(version, way));
        let both = ways.fold([false; 2], |met, (way, _)| {
            let [before, after] = turns(way);
            [met[0] || before, met[1] || after]
        });
        assert_eq!(both, [true; 2], "{version}");
    }
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
        let has_theirs = version == 15 || is_full_campaign();
        if has_theirs {
            c.psql("postgres", "CREATE DATABASE theirs TEMPLATE template0");
        }
        for (name, way) in WAYS {
            if !is_tried(version, name) {
                continue;
            }
            let what = format!("{name}.{version}.dump");
            let file = c.scratch(&what);
            dump(&c, &bindir, "-d src", way, &file);
            if name == "redirected" && has_theirs {
                // If its server does not know a setting, pg_restore continues and ends with an error.
                let mut theirs = Command::new(bindir.join("pg_restore"));
                let _ = c.sandbox.run(
                    theirs
                        .args(["-h", c.sandbox.host(), "-U", "postgres", "-d", "theirs"])
                        .arg(&file),
                );
            }
            let [before, after] = turns(name);
            if before {
                assert!(!restore_by(&app, &file, "ours").await, "{what}");
                assert_restored(&c, "ours", &source, &what);
                assert_verified(&app, &file, Depth::Object, &what).await;
            }
            if after {
                // Both read the archive in the same way, which `make test` shows with one version.
                let is_deepest = version == 18 || is_full_campaign();
                let deepest = if name == "redirected" && is_deepest {
                    Depth::Data
                } else {
                    Depth::Archive
                };
                assert_verified(&app, &file, deepest, &what).await;
                let is_by_index = restore_by(&app, &file, "by_index").await;
                assert_eq!(is_by_index, name != "zipped", "{what}");
                assert_restored(&c, "by_index", &source, &what);
            }
            // What is redirected, of each version: the rest was read above as `inspect` reads it.
            if name == "redirected" || is_full_campaign() {
                let seen = Command::new(env!("CARGO_BIN_EXE_pgrestored"))
                    .arg("inspect")
                    .arg(&file)
                    .output()
                    .unwrap();
                assert!(seen.status.success(), "{what}");
            }
        }
        if has_theirs {
            assert_restored(&c, "theirs", &source, "pg_restore");
        }
        parts_are_read(&c, version, &bindir);
    }
    two_archives_in_one_file(&c);
}

/// Compares a restored database with its source, and drops it.
fn assert_restored(c: &Cluster, database: &str, source: &str, what: &str) {
    assert_same(&c.content(database, &[]), source, what);
    c.psql("postgres", &format!("DROP DATABASE {database}"));
}

async fn assert_verified(app: &App, file: &Path, depth: Depth, what: &str) {
    let id = format!("{what} {depth:?}");
    let proof = verify_as(app, &id, file.to_str().unwrap(), depth).await;
    let error = &proof.error;
    assert_eq!(proof.verdict, Verdict::Verified, "{what}: {error:?}");
}

/// Archives of a part of the database, written in both ways: by `make test`, the schema and the data of one version in one
/// of them each, the other way around with 16.
fn parts_are_read(c: &Cluster, version: u32, bindir: &Path) {
    let ways = ["> F", ">> F"];
    let mut parts = vec![];
    for (n, options) in ["-s", "-a"].into_iter().enumerate() {
        let turn = (n + usize::from(version == 16)) % 2;
        let of_turn = |w: &usize| *w == turn || is_full_campaign();
        parts.extend((0..2).filter(of_turn).map(|w| (options, ways[w])));
    }
    if version >= 18 {
        let both = |options| ways.map(|way| (options, way));
        parts.extend(
            ["--statistics", "--statistics-only"]
                .into_iter()
                .flat_map(both),
        );
    }
    for (options, way) in parts {
        let file = c.scratch(&uuid::Uuid::new_v4().to_string());
        dump(c, bindir, &format!("-d src {options}"), way, &file);
        let origin = ArchiveSource::once(std::fs::File::open(&file).unwrap());
        let archive = Archive::open(origin, Limits::default(), &DecryptionKeys::default()).unwrap();
        let ledger = ContentDigest::of(&archive);
        let read = archive.read_data(&mut DigestSink::new(&ledger, &|_| {}));
        read.unwrap_or_else(|e| panic!("{options} {way} of {version}: {e}"));
    }
}

/// A file that `pg_dump` wrote to twice is not one backup, and the message says where the second archive begins.
fn two_archives_in_one_file(c: &Cluster) {
    for (version, bindir) in bindirs() {
        let file = c.scratch("two.dump");
        // The one that was restored.
        let first = c.scratch(&format!("redirected.{version}.dump"));
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

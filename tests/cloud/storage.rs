//! Backups in Cloud Storage: listing, selection, and faults of downloads.

use std::sync::Arc;

use pgrestored::emulator::StorageFault as F;
use pgrestored::error::FailureReason as R;
use pgrestored::job::{BackupRef, OnExisting, RestoreJob};
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, assert_same, is_full_campaign, job};
use crate::test_env::{BUCKET, Kind, TestEnv, restore};

/// About 1.5 MB of poorly compressible data.
const SOURCE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) || md5((-i)::text) FROM generate_series(1, 30000) i";

struct Setup {
    env: TestEnv,
    c: Cluster,
    dump: Vec<u8>,
}

async fn setup() -> Setup {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create("src", SOURCE);
    let dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    env.emulator.storage.put(BUCKET, "src.dump", dump.clone());
    Setup { env, c, dump }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_resumes_at_the_last_good_byte() {
    let Setup { env, c, dump } = setup().await;
    let (app, size) = (
        env.app(&c, &[("download-stall-timeout", "1s")]),
        dump.len() as u64,
    );
    let faults = [
        F::CutAfter(0),
        F::CutAfter(1),
        F::CutAfter(size / 3),
        F::Unavailable,
        F::StallAfter(size / 4),
        F::CutAfter(100),
        F::CutAfter(size / 4),
    ];
    env.emulator.storage.fail_next_reads(faults);
    let done = restore(&app, "src.dump", "app").await;
    assert_eq!(done.result.error, None);
    assert_eq!(done.result.backup.size, Some(size.to_string()));
    assert_same(
        &c.content("app", &[]),
        &c.content("src", &[]),
        "restored and source",
    );
    // Each fault ended one read, and one retry followed each.
    assert_eq!(env.emulator.storage.reads(), faults.len() as u64 + 1);
    let metrics = app.metrics.exposition();
    let retries = metrics
        .lines()
        .find(|l| l.starts_with("restore_download_retries_total "))
        .unwrap();
    let retries: usize = retries.rsplit(" ").next().unwrap().parse().unwrap();
    assert_eq!(retries, faults.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_without_progress_fails() {
    let Setup { env, c, .. } = setup().await;
    let app = env.app(&c, &[("retry-budget", "2s")]);
    env.emulator
        .storage
        .fail_next_reads(vec![F::CutAfter(0); 500]);
    let done = restore(&app, "src.dump", "app").await;
    assert_eq!(
        done.failure,
        Some(R::DownloadFailed),
        "{:?}",
        done.result.error
    );
    assert!(c.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_flipped_bit_is_never_swapped_in() {
    let Setup { env, c, .. } = setup().await;
    // Uncompressed, so that only the checksum can detect it.
    let plain = std::fs::read(c.dump_to_file("src", &["-Z0"])).unwrap();
    env.emulator
        .storage
        .put(BUCKET, "plain.dump", plain.clone());
    let digit = plain.len() / 2
        + plain[plain.len() / 2..]
            .iter()
            .position(u8::is_ascii_digit)
            .unwrap();
    env.emulator
        .storage
        .fail_next_reads([F::Flip(digit as u64)]);
    let app = env.app(&c, &[]);
    let done = restore(&app, "plain.dump", "app").await;
    assert_eq!(
        done.failure,
        Some(R::DownloadFailed),
        "{:?}",
        done.result.error
    );
    assert!(!c.databases().contains(&"app".to_owned()));
    assert!(c.leftovers().is_empty());
    assert_eq!(restore(&app, "plain.dump", "app").await.result.error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwritten_object_is_never_mixed() {
    let Setup { env, c, dump } = setup().await;
    let app = env.app(&c, &[]);
    env.emulator.storage.limit_rate(dump.len() as u64 / 3);
    env.emulator
        .storage
        .fail_next_reads([F::CutAfter(dump.len() as u64 / 2)]);
    let running = tokio::spawn({
        let manager = app.manager.clone();
        let job = RestoreJob {
            backup: BackupRef::parse("src.dump", "").unwrap(),
            ..job("/x".as_ref(), "app", OnExisting::Fail)
        };
        async move {
            manager
                .run(&job, Arc::default(), CancellationToken::new())
                .await
        }
    });
    while env.emulator.storage.reads() == 0 {
        crate::support::pause().await;
    }
    env.emulator.storage.put(BUCKET, "src.dump", dump);
    let done = running.await.unwrap();
    assert_eq!(
        done.failure,
        Some(R::BackupChanged),
        "{:?}",
        done.result.error
    );
    assert!(c.leftovers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_are_listed_and_selected() {
    let Setup { env, c, dump } = setup().await;
    let storage = &env.emulator.storage;
    let app = env.app(&c, &[("backup-bucket", "gs://test-backups/team")]);
    assert_eq!(app.manager.list_available_backups().await.unwrap(), vec![]);
    for name in ["team/a.dump", "team/b/c.dump", "team/b/d.dump"] {
        storage.put(BUCKET, name, dump.clone());
    }
    let middle = jiff::Timestamp::now();
    let generation = storage.put(BUCKET, "team/b/e.dump", dump.clone());
    let listed = app.manager.list_available_backups().await.unwrap();
    let names: Vec<_> = listed.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["a.dump", "b/c.dump", "b/d.dump", "b/e.dump"]);
    let last = &listed[3];
    assert_eq!(
        (last.size, last.generation.clone()),
        (dump.len() as u64, generation.to_string())
    );
    let crc = pgrestored::backup::encode_crc32c(pgdump_archive::Crc32c::of(&dump));
    assert_eq!(last.checksum.as_deref(), Some(crc.as_str()));
    assert_eq!(
        app.manager
            .catalog()
            .list_backups("b/")
            .await
            .unwrap()
            .len(),
        3
    );
    let newest = async |text: &str, prefix: &str| {
        let wanted = BackupRef::parse(text, prefix).unwrap();
        app.manager
            .catalog()
            .pin(&wanted, None, None)
            .await
            .map(|p| p.unwrap().object.name)
    };
    assert_eq!(newest("latest", "").await.unwrap(), "b/e.dump");
    assert_eq!(
        newest(&format!("latest@{middle}"), "").await.unwrap(),
        "b/d.dump"
    );
    assert_eq!(newest("latest", "a").await.unwrap(), "a.dump");
    assert_eq!(
        newest("latest", "none/").await.unwrap_err().reason(),
        R::BackupNotFound
    );
    assert_eq!(
        newest("latest@2020-01-01", "").await.unwrap_err().reason(),
        R::BackupNotFound
    );
    assert!(app.manager.restore_backup("b/c.dump", "app").await.unwrap());
    let e = app
        .manager
        .restore_backup("b/c.dump", "app")
        .await
        .unwrap_err();
    assert_eq!(e.reason(), R::TargetExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_exceeds_its_timeout_is_cancelled() {
    let Setup { env, c, dump } = setup().await;
    env.emulator.storage.limit_rate(dump.len() as u64 / 20);
    let done = restore(
        &env.app(&c, &[("restore-timeout", "2s")]),
        "src.dump",
        "app",
    )
    .await;
    assert_eq!(done.failure, Some(R::Timeout));
    assert!((2.0..15.0).contains(&done.result.duration_seconds));
    assert!(c.leftovers().is_empty());
    let job = RestoreJob {
        backup: BackupRef::parse("src.dump", "").unwrap(),
        deadline: Some(jiff::Timestamp::now()),
        ..job("/x".as_ref(), "app", OnExisting::Fail)
    };
    let late = env
        .app(&c, &[])
        .manager
        .run(&job, Arc::default(), CancellationToken::new())
        .await;
    assert_eq!(late.failure, Some(R::Timeout));
}

/// A listing of several pages.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_listing_is_complete() {
    let Setup { env, c, .. } = setup().await;
    for i in 0..2500 {
        env.emulator
            .storage
            .put(BUCKET, &format!("many/{i:05}"), "x");
    }
    assert_eq!(
        env.app(&c, &[])
            .manager
            .catalog()
            .list_backups("many/")
            .await
            .unwrap()
            .len(),
        2500
    );
}

/// Every fault at every chunk of a small object yields the exact bytes or a clean error. Without `CAMPAIGN=full`, each
/// fault at two of four chunks, and half of the faults at each chunk.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_every_chunk() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = Cluster::start_with("-c fsync=off");
    c.create(
        "src",
        "CREATE TABLE t (v text); INSERT INTO t SELECT md5(i::text) FROM generate_series(1, 900) i",
    );
    let dump = std::fs::read(c.dump_to_file("src", &["-Z0"])).unwrap();
    let wanted = c.content("src", &[]);
    let storage = &env.emulator.storage;
    let flags = [
        ("download-stall-timeout", "1s"),
        ("restore-no-analyze", "true"),
        ("restore-jobs", "1"),
        ("retry-budget", "3s"),
    ];
    let app = env.app(&c, &flags);
    let size = dump.len() as u64;
    let chunks = if is_full_campaign() { 64 } else { 4 };
    let (mut exact, mut refused) = (0, 0);
    for chunk in 0..chunks {
        let at = chunk * size / chunks;
        // The first read ends at this chunk; the next one, a range read, has the fault.
        let scripts: [(&str, Vec<F>); 9] = [
            ("cut", vec![F::CutAfter(at), F::CutAfter(0)]),
            ("stall", vec![F::StallAfter(at)]),
            (
                "429",
                vec![F::CutAfter(at), F::TooManyRequests, F::TooManyRequests],
            ),
            ("503", vec![F::CutAfter(at), F::Unavailable, F::Unavailable]),
            ("corrupt", vec![F::Flip(at)]),
            ("overwritten", vec![F::OverwrittenAfter(at)]),
            (
                "whole instead of range",
                vec![F::CutAfter(at), F::WholeObject],
            ),
            ("short", vec![F::ShortAfter(at)]),
            ("short range", vec![F::CutAfter(at), F::ShortAfter(1)]),
        ];
        for ((name, script), nth) in scripts.into_iter().zip(chunk..) {
            if !is_full_campaign() && nth % 2 == 1 {
                continue;
            }
            storage.put(BUCKET, "src.dump", dump.clone());
            storage.clear_faults();
            storage.fail_next_reads(script);
            let done = restore(&app, "src.dump", "app").await;
            let what = format!("{name} at {at}: {:?}", done.result.error);
            match done.failure {
                None => {
                    assert_same(&c.content("app", &[]), &wanted, &what);
                    c.psql("postgres", "DROP DATABASE app");
                    assert!(name != "corrupt", "{what}");
                    exact += 1;
                }
                Some(reason) => {
                    let named = match name {
                        // Damaged in transit; the object itself is intact.
                        "corrupt" => matches!(
                            reason,
                            R::DownloadFailed
                                | R::ArchiveCorrupt
                                | R::ArchiveUnsupported
                                | R::RestoreError
                                | R::DataRejected
                        ),
                        "overwritten" => reason == R::BackupChanged,
                        _ => false,
                    };
                    assert!(named, "{what}");
                    assert!(!c.databases().contains(&"app".to_owned()), "{what}");
                    refused += 1;
                }
            }
            assert_eq!(c.leftovers(), Vec::<String>::new(), "{what}");
        }
    }
    eprintln!("CAMPAIGN storage faults: {exact} byte-exact, {refused} clean errors");
}

/// A small object is read whole, and checked against the store's metadata.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_object_is_read_whole_and_checked() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let text = b"{\"some\": \"document\"}".to_vec();
    env.emulator.storage.put(BUCKET, "small.json", text.clone());
    let c = Cluster::start();
    let store = env.app(&c, &[]).manager.catalog().store().await.unwrap();
    let object = store.stat("small.json", None).await.unwrap();
    env.emulator.storage.fail_next_reads([
        F::ShortAfter(5),
        F::Flip(3),
        F::CutAfter(2),
        F::StallAfter(2),
    ]);
    let read = pgrestored::store::read_small(store.as_ref(), &object, 1000)
        .await
        .unwrap();
    assert_eq!(read, text);
    env.emulator
        .storage
        .fail_next_reads(vec![F::ShortAfter(5); 20]);
    let e = pgrestored::store::read_small(store.as_ref(), &object, 1000)
        .await
        .unwrap_err();
    assert_eq!(e.reason(), R::DownloadFailed);
}

/// A stall that no other timeout detects.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_without_any_progress_fails() {
    let Setup { env, c, .. } = setup().await;
    let app = env.app(
        &c,
        &[
            ("download-stall-timeout", "1h"),
            ("restore-stall-timeout", "2s"),
        ],
    );
    env.emulator.storage.fail_next_reads([F::StallAfter(0)]);
    let done = restore(&app, "src.dump", "app").await;
    let error = done.result.error.unwrap();
    assert!(
        error.reason == R::Timeout && error.message.contains("no progress"),
        "{error:?}"
    );
    assert!(c.leftovers().is_empty());
}

//! Backups in Cloud Storage: listing, selection, and faults of downloads.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use pgrestored::emulator::{BucketOptions, StorageFault as F};
use pgrestored::error::FailureReason as R;
use pgrestored::job::{BackupRef, OnExisting, RestoreJob};
use tokio_util::sync::CancellationToken;

use crate::cases;
use crate::support::{Cluster, assert_same, is_full_campaign, job};
use crate::test_env::{BUCKET, PubSubKind, SourceCluster, TIMEOUT, TestEnv, http, restore};

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn backups_are_selected_and_downloaded() {
    let mut s = SourceCluster::new();
    // With data offsets.
    s.dump = std::fs::read(s.c.dump_to_file("src", &[])).unwrap();
    cases::each([
        (
            "a cut download resumes at the last good byte",
            a_cut_download_resumes_at_the_last_good_byte(&s).boxed_local(),
        ),
        (
            "a backup with a flipped bit is never swapped in",
            a_backup_with_a_flipped_bit_is_never_swapped_in(&s).boxed_local(),
        ),
        (
            "an overwritten object is never mixed",
            an_overwritten_object_is_never_mixed(&s).boxed_local(),
        ),
        (
            "backups are listed and selected",
            backups_are_listed_and_selected(&s).boxed_local(),
        ),
        (
            "a long listing is complete",
            a_long_listing_is_complete(&s).boxed_local(),
        ),
        ("a limited read moves", a_limited_read_moves().boxed_local()),
        (
            "a former generation of a name is restored",
            a_former_generation_of_a_name_is_restored(&s).boxed_local(),
        ),
    ])
    .await;
    cases::at_once([
        (
            "a download without progress fails",
            a_download_without_progress_fails(&s).boxed_local(),
        ),
        (
            "a restore without any progress fails",
            a_restore_without_any_progress_fails(&s).boxed_local(),
        ),
        (
            "a restore that exceeds its timeout is cancelled",
            a_restore_that_exceeds_its_timeout_is_cancelled(&s).boxed_local(),
        ),
        (
            "a small object is read whole and checked",
            a_small_object_is_read_whole_and_checked(&s).boxed_local(),
        ),
    ])
    .await;
    assert!(s.c.leftovers().is_empty());
}

async fn a_cut_download_resumes_at_the_last_good_byte(s: &SourceCluster) {
    let env = s.env().await;
    let app = env.app(&s.c, &[("download-stall-timeout", "1s")]);
    let size = s.dump.len() as u64;
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
    let done = restore(&app, "src.dump", "resumed").await;
    assert_eq!(done.result.error, None);
    assert_eq!(done.result.backup.size, Some(size.to_string()));
    s.assert_restored("resumed");
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

/// A job overwrites one name every night, and the last night went wrong.
async fn a_former_generation_of_a_name_is_restored(s: &SourceCluster) {
    let env = s.env().await;
    let (app, storage) = (env.app(&s.c, &[]), &env.emulator.storage);
    let versioned = BucketOptions {
        versioning: true,
        ..BucketOptions::default()
    };
    storage.set_bucket(BUCKET, versioned);
    let good = storage.put(BUCKET, "nightly.dump", s.dump.clone());
    let cut = s.dump[..s.dump.len() / 2].to_vec();
    let bad = storage.put(BUCKET, "nightly.dump", cut);
    let hours_ago = |h: u64| SystemTime::now() - Duration::from_secs(h * 3600);
    storage.set_times((BUCKET, "nightly.dump", good), hours_ago(48), hours_ago(24));
    storage.set_times((BUCKET, "nightly.dump", bad), hours_ago(24), hours_ago(0));
    for (text, target) in [
        ("latest@36h".to_owned(), "former"),
        (format!("nightly.dump#{good}"), "by_number"),
    ] {
        let (name, generation) = match text.split_once('#') {
            Some((name, generation)) => (name, Some(generation.parse().unwrap())),
            None => (text.as_str(), None),
        };
        let job = RestoreJob {
            backup: BackupRef::parse(name, "").unwrap(),
            generation,
            ..job("/x".as_ref(), target, OnExisting::Fail)
        };
        let run = app
            .manager
            .run(&job, Arc::default(), CancellationToken::new());
        let done = run.await;
        assert_eq!(done.result.error, None, "{text}");
        assert_eq!(done.result.backup.generation, Some(good.to_string()));
        s.assert_table(target);
    }
}

async fn a_download_without_progress_fails(s: &SourceCluster) {
    let env = s.env().await;
    let app = env.app(&s.c, &[("retry-budget", "2s")]);
    env.emulator
        .storage
        .fail_next_reads(vec![F::CutAfter(0); 500]);
    let done = restore(&app, "src.dump", "cut").await;
    assert_eq!(
        done.failure,
        Some(R::DownloadFailed),
        "{:?}",
        done.result.error
    );
}

async fn a_backup_with_a_flipped_bit_is_never_swapped_in(s: &SourceCluster) {
    let (env, c) = (s.env().await, &s.c);
    // Uncompressed, so that only the checksum can detect it.
    let plain = std::fs::read(c.dump_to_file("src", &["-Z0"])).unwrap();
    env.emulator
        .storage
        .put(BUCKET, "plain.dump", plain.clone());
    // In the text of a row in the middle.
    let row = plain.windows(5).position(|w| w == b"2500\t").unwrap() + 5;
    let digit = plain[row..].iter().position(u8::is_ascii_digit).unwrap() + row;
    env.emulator
        .storage
        .fail_next_reads([F::Flip(digit as u64)]);
    let app = env.app(c, &[]);
    let done = restore(&app, "plain.dump", "flipped").await;
    assert_eq!(
        done.failure,
        Some(R::DownloadFailed),
        "{:?}",
        done.result.error
    );
    assert!(!c.databases().contains(&"flipped".to_owned()));
    assert!(c.leftovers().is_empty());
    let again = restore(&app, "plain.dump", "flipped").await;
    assert_eq!(again.result.error, None);
}

async fn an_overwritten_object_is_never_mixed(s: &SourceCluster) {
    let (env, dump) = (s.slow_env(3).await, &s.dump);
    let app = env.app(&s.c, &[]);
    env.emulator
        .storage
        .fail_next_reads([F::CutAfter(dump.len() as u64 / 2)]);
    let running = tokio::spawn({
        let manager = app.manager.clone();
        let job = RestoreJob {
            backup: BackupRef::parse("src.dump", "").unwrap(),
            ..job("/x".as_ref(), "overwritten", OnExisting::Fail)
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
    env.emulator.storage.put(BUCKET, "src.dump", dump.clone());
    let done = running.await.unwrap();
    assert_eq!(
        done.failure,
        Some(R::BackupChanged),
        "{:?}",
        done.result.error
    );
    assert!(s.c.leftovers().is_empty());
}

async fn backups_are_listed_and_selected(s: &SourceCluster) {
    let (env, dump) = (s.env().await, &s.dump);
    let storage = &env.emulator.storage;
    let app = env.app(&s.c, &[("backup-bucket", "gs://test-backups/team")]);
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
    let crc = pgrestored::backup::encode_crc32c(pgdump_archive::Crc32c::of(dump));
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
    let restored = async || app.manager.restore_backup("b/c.dump", "selected").await;
    assert!(restored().await.unwrap());
    let e = restored().await.unwrap_err();
    assert_eq!(e.reason(), R::TargetExists);
}

async fn a_restore_that_exceeds_its_timeout_is_cancelled(s: &SourceCluster) {
    let env = s.slow_env(20).await;
    let app = env.app(&s.c, &[("restore-timeout", "2s")]);
    let done = restore(&app, "src.dump", "late").await;
    assert_eq!(done.failure, Some(R::Timeout));
    assert!((2.0..15.0).contains(&done.result.duration_seconds));
    let job = RestoreJob {
        backup: BackupRef::parse("src.dump", "").unwrap(),
        deadline: Some(jiff::Timestamp::now()),
        ..job("/x".as_ref(), "late", OnExisting::Fail)
    };
    let late = env
        .app(&s.c, &[])
        .manager
        .run(&job, Arc::default(), CancellationToken::new())
        .await;
    assert_eq!(late.failure, Some(R::Timeout));
}

/// A listing of several pages.
async fn a_long_listing_is_complete(s: &SourceCluster) {
    let env = s.env().await;
    for i in 0..2500 {
        env.emulator
            .storage
            .put(BUCKET, &format!("many/{i:05}"), "x");
    }
    assert_eq!(
        env.app(&s.c, &[])
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
/// fault at one of four chunks, two or three of the faults at each chunk, and the rows are compared instead of dumps.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_at_every_chunk() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = Cluster::start_with("-c fsync=off");
    c.create(
        "src",
        "CREATE TABLE t (v text); INSERT INTO t SELECT md5(i::text) FROM generate_series(1, 900) i",
    );
    let dump = std::fs::read(c.dump_to_file("src", &["-Z0"])).unwrap();
    let content = |database: &str| {
        if is_full_campaign() {
            return c.content(database, &[]);
        }
        let rows = "SELECT count(*), md5(string_agg(v, ',' ORDER BY v)) FROM t";
        c.psql(database, rows)
    };
    let wanted = content("src");
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
            if !is_full_campaign() && nth % chunks != 0 {
                continue;
            }
            storage.put(BUCKET, "src.dump", dump.clone());
            storage.clear_faults();
            storage.fail_next_reads(script);
            let done = restore(&app, "src.dump", "app").await;
            let what = format!("{name} at {at}: {:?}", done.result.error);
            match done.failure {
                None => {
                    assert_same(&content("app"), &wanted, &what);
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
async fn a_small_object_is_read_whole_and_checked(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let text = b"{\"some\": \"document\"}".to_vec();
    env.emulator.storage.put(BUCKET, "small.json", text.clone());
    let app = env.app(&s.c, &[]);
    let store = app.manager.catalog().store().await.unwrap();
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
async fn a_restore_without_any_progress_fails(s: &SourceCluster) {
    let env = s.env().await;
    let app = env.app(
        &s.c,
        &[
            ("download-stall-timeout", "1h"),
            ("restore-stall-timeout", "2s"),
        ],
    );
    env.emulator.storage.fail_next_reads([F::StallAfter(0)]);
    let done = restore(&app, "src.dump", "stalled").await;
    let error = done.result.error.unwrap();
    assert!(
        error.reason == R::Timeout && error.message.contains("no progress"),
        "{error:?}"
    );
}

/// The emulator sends a little of a limited read at a time, and goes on once the limit is lifted.
async fn a_limited_read_moves() {
    const SIZE: usize = 1 << 20;
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let storage = &env.emulator.storage;
    storage.put(BUCKET, "large", vec![7_u8; SIZE]);
    // A day for all of it.
    storage.limit_rate(12);
    let host = env.emulator.host();
    let url = format!("http://{host}/storage/v1/b/{BUCKET}/o/large");
    let read = async {
        let mut answer = http().get(url).send().await.unwrap();
        let first = answer.chunk().await.unwrap().unwrap().len();
        storage.limit_rate(0);
        let mut all = first;
        while let Some(more) = answer.chunk().await.unwrap() {
            all += more.len();
        }
        (first, all)
    };
    let (first, all) = tokio::time::timeout(TIMEOUT, read)
        .await
        .expect("the read does not move");
    assert!(first < 1000, "{first}");
    assert_eq!(all, SIZE);
}

//! Verification of new backups as they arrive, from the bucket's notification to the result event.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use pgrestored::emulator::StorageFault;
use pgrestored::error::FailureReason as R;
use pgrestored::event::{Kind as EventKind, Message, Status, Verdict};
use pgrestored::queue::ResultSink;

use crate::support::{Cluster, assert_same, is_full_campaign, job};
use crate::test_env::{BUCKET, Kind, Running, TIMEOUT, TestEnv, restore};

const SOURCE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i; CREATE INDEX ON t (v)";
const NOTIFICATIONS: &str = "backup-notifications";

/// The worker's configuration, in addition to the emulators.
const NOTIFIED: [(&str, &str); 2] = [
    ("backup-notification-subscription", NOTIFICATIONS),
    ("sandbox-isolation", "require"),
];

async fn start(kind: Kind) -> Option<TestEnv> {
    let env = TestEnv::start(kind).await?;
    env.subscription(NOTIFICATIONS).await;
    Some(env)
}

/// The emulators, and a cluster with the database `src`.
async fn with_source() -> (TestEnv, Cluster) {
    let env = start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create("src", SOURCE);
    (env, c)
}

fn attributes(name: &str, generation: i64, changes: &[(&str, &str)]) -> HashMap<String, String> {
    let generation = generation.to_string();
    let config = format!("projects/_/buckets/{BUCKET}/notificationConfigs/1");
    let all = [
        ("notificationConfig", config.as_str()),
        ("eventType", "OBJECT_FINALIZE"),
        ("payloadFormat", "NONE"),
        ("bucketId", BUCKET),
        ("objectId", name),
        ("objectGeneration", &generation),
    ];
    all.into_iter()
        .chain(changes.iter().copied())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

async fn notify(env: &TestEnv, name: &str, generation: i64, changes: &[(&str, &str)]) {
    let attributes = attributes(name, generation, changes).into_iter().collect();
    let message = Message {
        data: vec![],
        attributes,
    };
    env.pubsub()
        .topic(NOTIFICATIONS)
        .await
        .unwrap()
        .publish(message)
        .await
        .unwrap();
}

/// Dumps `src` into the bucket and returns the object's generation.
fn upload(env: &TestEnv, c: &Cluster, name: &str) -> i64 {
    env.emulator.storage.put(
        BUCKET,
        name,
        std::fs::read(c.dump_through_pipe("src", &[])).unwrap(),
    )
}

fn evidence(env: &TestEnv, ending: &str) -> Vec<String> {
    let all = env
        .emulator
        .storage
        .objects(BUCKET)
        .into_iter()
        .map(|(n, _)| n);
    all.filter(|n| n.contains(".pgrestored/") && n.ends_with(ending))
        .collect()
}

pub async fn a_new_backup_is_proven(kind: Kind) {
    let Some(env) = start(kind).await else {
        return;
    };
    let c = Cluster::start();
    c.create("src", SOURCE);
    let generation = upload(&env, &c, "nightly/a.dump");
    let running = env.worker(&c, &NOTIFIED).await;
    // Messages to ignore: other events, other objects, our own evidence, and garbage.
    for (name, changes) in [
        ("nightly/a.dump", ("eventType", "OBJECT_DELETE")),
        ("nightly/a.dump", ("eventType", "OBJECT_METADATA_UPDATE")),
        ("nightly/a.dump", ("bucketId", "other-bucket")),
        (
            "nightly/a.dump.pgrestored/1/0123456789abcdef.dsse.json",
            ("payloadFormat", "NONE"),
        ),
        ("folder/3312.dat.gz", ("payloadFormat", "NONE")),
    ] {
        notify(&env, name, generation, &[changes]).await;
    }
    let garbage = Message {
        data: b"garbage".to_vec(),
        attributes: Default::default(),
    };
    env.pubsub()
        .topic(NOTIFICATIONS)
        .await
        .unwrap()
        .publish(garbage)
        .await
        .unwrap();
    // The same notification three times, as at-least-once delivery allows.
    for _ in 0..3 {
        notify(&env, "nightly/a.dump", generation, &[]).await;
    }
    let events = env.results(3).await;
    let id = format!("gcs:{BUCKET}/nightly/a.dump#{generation}");
    for (result, event) in &events {
        assert_eq!(
            (result.kind, result.status, result.verdict),
            (
                EventKind::Verification,
                Status::Success,
                Some(Verdict::Verified)
            )
        );
        assert_eq!(
            (result.request_id.as_str(), result.rows),
            (id.as_str(), 5000)
        );
        assert_eq!(event.attributes["kind"], "verification");
        assert_eq!(event.attributes["ce-id"], events[0].1.attributes["ce-id"]);
        assert_eq!(result.verification, events[0].0.verification);
    }
    let summary = events[0].0.verification.clone().unwrap();
    let isolation = summary.isolation.unwrap();
    assert!(isolation.network && isolation.pids && isolation.files);
    // Restored only once: one document of evidence, with its page and the index.
    let written = evidence(&env, ".dsse.json");
    assert_eq!(
        summary.evidence.unwrap(),
        format!("gs://{BUCKET}/{}", written[0])
    );
    assert_eq!(
        (
            written.len(),
            evidence(&env, ".html").len(),
            evidence(&env, "index.json").len()
        ),
        (1, 1, 1)
    );
    assert!(written[0].starts_with(&format!("nightly/a.dump.pgrestored/{generation}/")));
    running
        .until_metric("restore_verification_total{status=\"success\"} 1")
        .await;
    running.until_metric("restore_success_total 0").await;
    let status: serde_json::Value =
        serde_json::from_str(&running.get("/status.json").await.1).unwrap();
    assert_eq!(status["sets"][0]["proven_backup"], "nightly/a.dump");
    assert!(running.get("/").await.1.contains("status.js"));
    // Nothing is left on the target.
    assert_eq!(c.databases(), ["postgres", "src", "template0", "template1"]);
    running.stop().await;
    if kind == Kind::Emulator {
        // Each message was acknowledged, none was redelivered.
        let name = format!("projects/test/subscriptions/{NOTIFICATIONS}");
        assert_eq!(env.emulator.pubsub.delivered(&name), (9, 9));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_backup_is_proven_on_the_emulator() {
    a_new_backup_is_proven(Kind::Emulator).await;
}

/// A generation that has been overwritten no longer exists; its successor has its own notification.
#[tokio::test(flavor = "multi_thread")]
async fn every_generation_is_proven_separately() {
    let (env, c) = with_source().await;
    let first = upload(&env, &c, "a.dump");
    let second = upload(&env, &c, "a.dump");
    let running = env.worker(&c, &NOTIFIED).await;
    notify(&env, "a.dump", first, &[]).await;
    notify(
        &env,
        "a.dump",
        second,
        &[("overwroteGeneration", &first.to_string())],
    )
    .await;
    let results = env.results(2).await;
    let of = |g: i64| {
        &results
            .iter()
            .find(|(r, _)| r.request_id.ends_with(&format!("#{g}")))
            .unwrap()
            .0
    };
    let gone = of(first);
    assert_eq!(
        (gone.verdict, gone.error.as_ref().unwrap().reason),
        (Some(Verdict::Inconclusive), R::BackupNotFound)
    );
    assert_eq!(of(second).verdict, Some(Verdict::Verified));
    running
        .until_metric("restore_verification_total{status=\"inconclusive\"} 1")
        .await;
    running
        .until_metric("restore_failure_total{failure_reason=\"backup_not_found\"} 0")
        .await;
    running.stop().await;
}

/// A bad backup is a result, not a failure of the worker: the message is acknowledged, and the event has reason, blame
/// and fix.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_backup_is_reported_with_the_last_good_one() {
    let (env, c) = with_source().await;
    let dump = std::fs::read(c.dump_through_pipe("src", &[])).unwrap();
    let storage = &env.emulator.storage;
    let hours_ago = |h: u64| SystemTime::now() - Duration::from_secs(h * 3600);
    for (name, bytes, age) in [
        ("1.dump", &dump[..], 3),
        ("2.dump", &dump[..], 2),
        ("3.dump", &dump[..dump.len() / 2], 1),
    ] {
        storage.put(BUCKET, name, bytes.to_vec());
        storage.set_created(BUCKET, name, hours_ago(age));
    }
    let running = env.worker(&c, &NOTIFIED).await;
    let generation = storage.objects(BUCKET)[2].1;
    notify(&env, "3.dump", generation, &[]).await;
    let result = env.result().await;
    let error = result.error.unwrap();
    assert_eq!(
        (result.verdict, error.reason, error.retryable),
        (Some(Verdict::Failed), R::ArchiveCorrupt, false)
    );
    let v = result.verification.unwrap();
    assert!(v.fix.unwrap().contains("pipefail"));
    let found = v.bisection.unwrap();
    assert_eq!(found.last_good.unwrap().name.as_deref(), Some("2.dump"));
    assert_eq!(found.first_bad.unwrap().name.as_deref(), Some("3.dump"));
    running
        .until_metric("restore_verification_total{status=\"failure\"} 1")
        .await;
    running.stop().await;
}

/// A backup older than the newest proven one is skipped, unless it is requested.
#[tokio::test(flavor = "multi_thread")]
async fn older_backups_are_skipped_by_policy() {
    let (env, c) = with_source().await;
    let old = upload(&env, &c, "old.dump");
    env.emulator.storage.set_created(
        BUCKET,
        "old.dump",
        SystemTime::now() - Duration::from_secs(3600),
    );
    let new = upload(&env, &c, "new.dump");
    let running = env.worker(&c, &NOTIFIED).await;
    notify(&env, "new.dump", new, &[]).await;
    assert_eq!(env.result().await.verdict, Some(Verdict::Verified));
    notify(&env, "old.dump", old, &[]).await;
    let name = format!("projects/test/subscriptions/{NOTIFICATIONS}");
    let skipped = env.emulator.pubsub.until(|p| p.delivered(&name) == (2, 2));
    tokio::time::timeout(TIMEOUT, skipped)
        .await
        .expect("the older one was not settled in time");
    // A request is always answered. A result of the older backup would have come before it.
    env.publish(
        r#"{"request_id":"asked","backup":{"name":"old.dump"},"mode":"verify","depth":"archive"}"#,
    )
    .await;
    let asked = env.result().await;
    assert_eq!(
        (asked.request_id.as_str(), asked.verdict),
        ("asked", Some(Verdict::Verified))
    );
    running.stop().await;
    assert_eq!(env.emulator.pubsub.delivered(&name), (2, 2));
    let eager = env
        .worker(&c, &[NOTIFIED[0], NOTIFIED[1], ("verify-older", "verify")])
        .await;
    notify(&env, "old.dump", old, &[]).await;
    assert!(
        env.result()
            .await
            .request_id
            .ends_with(&format!("old.dump#{old}"))
    );
    eager.stop().await;
}

/// The objects of a directory arrive in any order; the table of contents triggers the verification.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_proven_when_it_is_complete() {
    let (env, c) = with_source().await;
    let folder = c.scratch("night");
    c.sandbox
        .run(
            c.sandbox
                .command("pg_dump")
                .args(["-Fd", "-d", "src", "-f"])
                .arg(&folder),
        )
        .unwrap();
    let mut members: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    members.sort_by_key(|p| !p.ends_with("toc.dat"));
    let running = env.worker(&c, &NOTIFIED).await;
    let storage = &env.emulator.storage;
    let put = |path: &std::path::Path| {
        let name = format!("night/{}", path.file_name().unwrap().to_str().unwrap());
        (
            storage.put(BUCKET, &name, std::fs::read(path).unwrap()),
            name,
        )
    };
    // The table of contents arrives first: the verification waits for the missing members.
    let (generation, toc) = put(&members[0]);
    notify(&env, &toc, generation, &[]).await;
    let begun = async {
        while !running
            .get("/status.json")
            .await
            .1
            .contains("\"backup\":\"night/\"")
        {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun)
        .await
        .expect("the verification did not start in time");
    for member in &members[1..] {
        let (generation, name) = put(member);
        notify(&env, &name, generation, &[]).await;
    }
    let result = env.result().await;
    assert_eq!(
        result.verdict,
        Some(Verdict::Verified),
        "{:?}",
        result.error
    );
    assert_eq!(
        (result.rows, result.backup.name.as_deref()),
        (5000, Some("night/"))
    );
    assert_eq!(evidence(&env, ".dsse.json").len(), 1);
    assert!(evidence(&env, ".dsse.json")[0].starts_with("night.pgrestored/"));
    running.stop().await;
    // A member that never arrives is the backup's fault.
    storage.delete(
        BUCKET,
        &format!(
            "night/{}",
            members[1].file_name().unwrap().to_str().unwrap()
        ),
    );
    let without_retry = env
        .worker(
            &c,
            &[
                NOTIFIED[0],
                NOTIFIED[1],
                ("verify-settle", "1ms"),
                ("verify-bisect", "0"),
            ],
        )
        .await;
    let (generation, toc) = put(&members[0]);
    notify(&env, &toc, generation, &[]).await;
    let result = env.result().await;
    assert_eq!(result.error.unwrap().reason, R::ArchiveCorrupt);
    without_retry.stop().await;
}

/// The pieces of a split file arrive in any order, each with a notification: the backup is proven once it is
/// complete.
#[tokio::test(flavor = "multi_thread")]
async fn pieces_are_proven_when_they_are_complete() {
    let (env, c) = with_source().await;
    let dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    let pieces: Vec<&[u8]> = dump.chunks(dump.len().div_ceil(3)).collect();
    let flags = [NOTIFIED[0], NOTIFIED[1], ("verify-suffix", ".dump")];
    let running = env.worker(&c, &flags).await;
    let put = |at: usize| {
        let name = format!("x.dump.a{}", ["a", "b", "c"][at]);
        (
            env.emulator.storage.put(BUCKET, &name, pieces[at].to_vec()),
            name,
        )
    };
    let (generation, first) = put(0);
    notify(&env, &first, generation, &[]).await;
    let begun = async {
        while !running
            .get("/status.json")
            .await
            .1
            .contains("\"backup\":\"x.dump.aa\"")
        {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun)
        .await
        .expect("the verification did not start in time");
    for at in [2, 1] {
        let (generation, name) = put(at);
        notify(&env, &name, generation, &[]).await;
    }
    let result = env.result().await;
    assert_eq!(
        result.verdict,
        Some(Verdict::Verified),
        "{:?}",
        result.error
    );
    assert_eq!(
        (result.rows, result.backup.name.as_deref()),
        (5000, Some("x.dump"))
    );
    assert_eq!(result.backup.size, Some(dump.len().to_string()));
    let crc32c = pgrestored::backup::encode_crc32c(pgdump_archive::Crc32c::of(&dump));
    assert_eq!(result.backup.crc32c, Some(crc32c));
    // They are restored by their common name, unless a piece has been replaced.
    let generation = result.backup.generation.unwrap();
    let request = |id: &str, target: &str| {
        format!(
            r#"{{"request_id":"{id}","backup":{{"name":"x.dump","generation":"{generation}"}},"target_db":"{target}"}}"#
        )
    };
    env.publish(&request("whole", "app")).await;
    let restored = env.result().await;
    assert_eq!(restored.status, Status::Success, "{:?}", restored.error);
    assert_same(&c.content("app", &[]), &c.content("src", &[]), "pieces");
    put(1);
    env.publish(&request("replaced", "app2")).await;
    assert_eq!(env.result().await.error.unwrap().reason, R::BackupNotFound);
    running.stop().await;
}

/// The newest piece may be one whose count is also a word (`br` is the 44th): it asks for the whole like any other.
#[tokio::test(flavor = "multi_thread")]
async fn a_piece_whose_count_is_a_word_is_proven_with_the_others() {
    let env = start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create("src", SOURCE);
    let dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    let letter = |n: usize| char::from(b'a' + u8::try_from(n).unwrap());
    let mut newest = (0, String::new());
    for n in 0..44 {
        let piece = dump[n * dump.len() / 44..(n + 1) * dump.len() / 44].to_vec();
        let name = format!("x.dump.{}{}", letter(n / 26), letter(n % 26));
        newest = (env.emulator.storage.put(BUCKET, &name, piece), name);
    }
    assert_eq!(newest.1, "x.dump.br");
    // A signature beside it is no backup.
    let signature = env
        .emulator
        .storage
        .put(BUCKET, "x.dump.asc", b"-".to_vec());
    let flags = [NOTIFIED[0], NOTIFIED[1], ("verify-suffix", ".dump")];
    let running = env.worker(&c, &flags).await;
    notify(&env, "x.dump.asc", signature, &[]).await;
    notify(&env, &newest.1, newest.0, &[]).await;
    let result = env.result().await;
    assert_eq!(
        result.verdict,
        Some(Verdict::Verified),
        "{:?}",
        result.error
    );
    assert_eq!(
        (result.rows, result.backup.name.as_deref()),
        (5000, Some("x.dump"))
    );
    running.stop().await;
}

/// Neither does a stop wait for a read that decides whether a new backup needs a verification.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_look_at_a_new_backup() {
    let env = start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    let storage = &env.emulator.storage;
    storage.put(BUCKET, "x.dump.aa", b"PGDMP\x01".to_vec());
    let generation = storage.put(BUCKET, "x.dump.ab", b"_".to_vec());
    storage.disturb_reads(|| Some(StorageFault::StallAfter(0)));
    let flags = [NOTIFIED[0], NOTIFIED[1], ("drain-timeout", "1ms")];
    let running = env.worker(&c, &flags).await;
    notify(&env, "x.dump.ab", generation, &[]).await;
    let reads = async {
        while storage.reads() == 0 {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reads)
        .await
        .expect("nothing was read in time");
    // Well before the stalled read would be given up.
    tokio::time::timeout(Duration::from_secs(15), running.stop())
        .await
        .expect("the worker did not stop in time");
}

/// Waits until the verification whose download stalls after 100 bytes has read them.
async fn until_stalled(running: &Running) {
    let at_work = async {
        while !running
            .get("/status.json")
            .await
            .1
            .contains("\"object_bytes\":100,")
        {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), at_work)
        .await
        .expect("the verification did not start in time");
}

/// With one permit, a requested restore preempts a running verification, which starts over afterwards on the same
/// delivery.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_preempts_a_running_verification() {
    let (env, c) = with_source().await;
    let generation = upload(&env, &c, "a.dump");
    // The verification stalls here.
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let running = env.worker(&c, &NOTIFIED).await;
    notify(&env, "a.dump", generation, &[]).await;
    until_stalled(&running).await;
    env.publish(r#"{"request_id":"urgent","backup":{"name":"a.dump"},"target_db":"app"}"#)
        .await;
    let results = env.results(2).await;
    assert_eq!(
        (results[0].0.request_id.as_str(), results[0].0.status),
        ("urgent", Status::Success)
    );
    let proof = &results[1].0;
    assert_eq!((proof.verdict, proof.attempt), (Some(Verdict::Verified), 1));
    running.until_metric("restore_redeliveries_total 0").await;
    running.stop().await;
}

/// A second delivery of a running verification waits for the first, and gives its permit to a requested restore.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_preempts_a_verification_that_waits_for_its_duplicate() {
    let (env, c) = with_source().await;
    let generation = upload(&env, &c, "a.dump");
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let two = [&NOTIFIED[..], &[("restore-max-concurrent", "2")]].concat();
    let running = env.worker(&c, &two).await;
    notify(&env, "a.dump", generation, &[]).await;
    until_stalled(&running).await;
    notify(&env, "a.dump", generation, &[]).await;
    env.emulator
        .pubsub
        .until(|p| p.unacked(&format!("projects/test/subscriptions/{NOTIFICATIONS}")) == (0, 2))
        .await;
    env.publish(r#"{"request_id":"urgent","backup":{"name":"a.dump"},"target_db":"app"}"#)
        .await;
    let first = env.results(1).await.remove(0).0;
    assert_eq!(
        (first.request_id.as_str(), first.status),
        ("urgent", Status::Success)
    );
    running.shutdown.hard.cancel();
    running.stop().await;
}

/// The schedule alone makes the worker prove the newest backup and one of the older ones.
#[tokio::test(flavor = "multi_thread")]
async fn due_backups_are_proven_by_the_schedule() {
    let (env, c) = with_source().await;
    for (name, age) in [("old.dump", 50), ("older.dump", 60), ("new.dump", 1)] {
        upload(&env, &c, name);
        env.emulator.storage.set_created(
            BUCKET,
            name,
            SystemTime::now() - Duration::from_secs(age * 3600),
        );
    }
    let flags = [
        ("verify-schedule", "12h"),
        ("verify-sample", "1"),
        ("sandbox-isolation", "require"),
    ];
    let running = env.worker(&c, &flags).await;
    let results = env.results(2).await;
    assert_eq!(results[0].0.backup.name.as_deref(), Some("new.dump"));
    assert!(
        results[1]
            .0
            .backup
            .name
            .as_deref()
            .unwrap()
            .starts_with("old")
    );
    assert!(
        results
            .iter()
            .all(|(r, _)| r.verdict == Some(Verdict::Verified))
    );
    running.stop().await;
    // A new worker finds the proof, does not repeat it, and shows it in its metrics.
    let next = env.worker(&c, &flags).await;
    let known = async {
        while !next
            .get("/status.json")
            .await
            .1
            .contains("\"proven_backup\":\"new.dump\"")
        {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), known)
        .await
        .expect("the proof was not found in time");
    let metrics = next.get("/metrics").await.1;
    let last = metrics
        .lines()
        .find(|l| l.starts_with("restore_verification_last_success_timestamp_seconds{"))
        .unwrap();
    assert!(
        last.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 1e9,
        "{last}"
    );
    assert_eq!(evidence(&env, ".dsse.json").len(), 2);
    next.stop().await;
}

/// A scheduled verification is stopped like any other job: in time, and without a result.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_scheduled_verification() {
    let (env, c) = with_source().await;
    upload(&env, &c, "a.dump");
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let running = env
        .worker(&c, &[("verify-schedule", "12h"), ("drain-timeout", "1ms")])
        .await;
    let at_work = async {
        while !running
            .get("/status.json")
            .await
            .1
            .contains("\"object_bytes\":100,")
        {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), at_work)
        .await
        .expect("the verification did not start in time");
    // Well before the stalled download would be reopened.
    tokio::time::timeout(Duration::from_secs(15), running.stop())
        .await
        .expect("the worker did not stop in time");
    assert!(evidence(&env, ".dsse.json").is_empty());
    let next = env.worker(&c, &[("verify-schedule", "12h")]).await;
    assert_eq!(env.result().await.verdict, Some(Verdict::Verified));
    next.stop().await;
}

/// A verified backup is restored by blocks although it has no data offsets, with the same integrity check. Without
/// `CAMPAIGN=full`, only every other forgery of the index is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_verified_backup_is_restored_through_its_index() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create(
        "src",
        &format!(
            "{SOURCE}; CREATE TABLE u AS SELECT * FROM t; SELECT lo_from_bytea(0, repeat('x', 5000)::bytea)"
        ),
    );
    upload(&env, &c, "a.dump");
    let app = env.app(&c, &[]);
    let storage = &env.emulator.storage;
    let before = storage.reads();
    assert_eq!(restore(&app, "a.dump", "forward").await.failure, None);
    assert_eq!(storage.reads() - before, 1, "one sequential read");
    let request = pgrestored::job::VerifyJob::new(
        "v",
        pgrestored::job::BackupRef::parse("a.dump", "").unwrap(),
        pgrestored::policy::Trigger::Command,
    );
    let verified = app
        .manager
        .verify_backup(&request, Default::default(), Default::default())
        .await;
    assert_eq!(verified.result.verdict, Some(Verdict::Verified));
    let before = storage.reads();
    let done = restore(&app, "a.dump", "by_blocks").await;
    assert_eq!(done.result.error, None);
    // One read each for the index, the head, and all small blocks together.
    assert_eq!(storage.reads() - before, 3);
    assert_same(
        &c.content("by_blocks", &[]),
        &c.content("src", &[]),
        "restored and source",
    );
    assert_eq!(done.result.backup.crc32c, verified.result.backup.crc32c);
    // A byte that is damaged in transit is detected, whichever block it is in.
    let size: u64 = done.result.backup.size.unwrap().parse().unwrap();
    for at in [10, size / 3, size / 2, size - 1500] {
        storage.fail_next_reads((0..20).map(|_| StorageFault::Flip(at)));
        let target = format!("damaged_{at}");
        let failed = restore(&app, "a.dump", &target).await.failure;
        storage.clear_faults();
        assert!(failed.is_some(), "byte {at}");
        assert!(!c.databases().contains(&target));
    }
    // An index about other bytes is not used; a database that was created with it under the target's name is dropped.
    let app = env.app(&c, &[("restore-in-place", "always")]);
    let name = evidence(&env, "index.json").remove(0);
    let index = String::from_utf8(storage.get(BUCKET, &name).unwrap().to_vec()).unwrap();
    storage.put(
        BUCKET,
        &name,
        index.replacen("\"crc32c\":", "\"crc32c\":1", 2),
    );
    assert_eq!(restore(&app, "a.dump", "without").await.failure, None);
    storage.put(BUCKET, &name, "garbage");
    assert_eq!(
        restore(&app, "a.dump", "without_garbage").await.failure,
        None
    );
    // A forged index with correct checksums only costs time.
    let whole = storage.get(BUCKET, "a.dump").unwrap().to_vec();
    let every = if is_full_campaign() { 1 } else { 2 };
    for (nth, forge) in FORGERIES.into_iter().enumerate().step_by(every) {
        let mut forged: serde_json::Value = serde_json::from_str(&index).unwrap();
        forge(&mut forged);
        sign_again(&mut forged, &whole);
        storage.put(BUCKET, &name, forged.to_string());
        let target = format!("forged_{nth}");
        let done = restore(&app, "a.dump", &target).await;
        assert_eq!(done.result.error, None, "{forged}");
        assert_same(
            &c.content(&target, &[]),
            &c.content("src", &[]),
            &forged.to_string(),
        );
        c.psql("postgres", &format!("DROP DATABASE {target}"));
    }
}

/// A forged index cannot make a selective restore lose data, neither if blocks can be skipped, because the archive has
/// offsets, nor if all are read. Without `CAMPAIGN=full`, each forgery is tried once, in turn with each table and form.
#[tokio::test(flavor = "multi_thread")]
async fn a_selection_is_restored_completely_despite_a_forged_index() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    let more =
        "CREATE TABLE u AS SELECT * FROM t; SELECT lo_from_bytea(0, repeat('x', 5000)::bytea)";
    c.create("src", &format!("{SOURCE}; {more}"));
    let app = env.app(&c, &[]);
    let storage = &env.emulator.storage;
    let part = async |backup: &str, table: &str| {
        c.psql("postgres", "DROP DATABASE IF EXISTS part");
        let job = pgrestored::job::RestoreJob {
            backup: pgrestored::job::BackupRef::parse(backup, "").unwrap(),
            selection: pgrestored::policy::Selection {
                tables: vec![table.into()],
                ..Default::default()
            },
            ..job("/x".as_ref(), "part", pgrestored::job::OnExisting::Fail)
        };
        let done = app
            .manager
            .run(&job, Default::default(), Default::default())
            .await;
        assert_eq!(done.result.error, None, "{backup} {table}");
        c.content("part", &[])
    };
    let forms = [
        ("piped.dump", c.dump_through_pipe("src", &[])),
        ("offsets.dump", c.dump_to_file("src", &[])),
    ];
    for (form, (backup, dump)) in forms.into_iter().enumerate() {
        let whole = std::fs::read(dump).unwrap();
        storage.put(BUCKET, backup, whole.clone());
        let tables = ["public.t", "public.u"];
        let honest = [part(backup, tables[0]).await, part(backup, tables[1]).await];
        assert!(honest.iter().all(|h| h.matches('\n').count() > 5000));
        let backup_ref = pgrestored::job::BackupRef::parse(backup, "").unwrap();
        let request = pgrestored::job::VerifyJob::new(
            backup,
            backup_ref,
            pgrestored::policy::Trigger::Command,
        );
        let verified = app
            .manager
            .verify_backup(&request, Default::default(), Default::default())
            .await;
        assert_eq!(verified.result.verdict, Some(Verdict::Verified));
        let name = evidence(&env, "index.json")
            .into_iter()
            .find(|n| n.contains(backup))
            .unwrap();
        let index: serde_json::Value =
            serde_json::from_slice(&storage.get(BUCKET, &name).unwrap()).unwrap();
        assert_eq!(index["blocks"].as_array().unwrap().len(), 3, "{index}");
        for (table, honest) in tables.iter().zip(&honest) {
            assert_same(
                &part(backup, table).await,
                honest,
                &format!("{backup} {table} by its index"),
            );
        }
        for (i, forge) in FORGERIES.into_iter().enumerate() {
            let mut forged = index.clone();
            forge(&mut forged);
            sign_again(&mut forged, &whole);
            storage.put(BUCKET, &name, forged.to_string());
            for (t, (table, honest)) in tables.iter().zip(&honest).enumerate() {
                if !is_full_campaign() && i % 4 != 2 * form + t {
                    continue;
                }
                assert_same(
                    &part(backup, table).await,
                    honest,
                    &format!("{backup} {table} {forged}"),
                );
            }
        }
    }
}

/// What an attacker who may write objects can do to an index.
const FORGERIES: [fn(&mut serde_json::Value); 11] = [
    |i| (0..3).for_each(|b| i["blocks"][b]["bytes"] = u64::MAX.into()),
    |i| (0..3).for_each(|b| i["blocks"][b]["rows"] = 0.into()),
    |i| move_bound(i, "/blocks/0", "/blocks/1", -10),
    |i| move_bound(i, "/blocks/0", "/blocks/1", 10),
    |i| move_bound(i, "/head", "/blocks/0", -20),
    |i| {
        let first = i["blocks"][0]["dump_id"].take();
        i["blocks"][0]["dump_id"] = std::mem::replace(&mut i["blocks"][1]["dump_id"], first);
    },
    |i| i["blocks"][1]["dump_id"] = i["blocks"][0]["dump_id"].clone(),
    |i| i["blocks"][1]["dump_id"] = (-7).into(),
    |i| i["blocks"][0]["length"] = u64::MAX.into(),
    |i| swallow(i, 0),
    |i| swallow(i, 1),
];

/// Extends a block over the next one, which is removed from the index.
fn swallow(index: &mut serde_json::Value, nth: usize) {
    let gone = index["blocks"].as_array_mut().unwrap().remove(nth + 1);
    let length = &mut index["blocks"][nth]["length"];
    *length = (length.as_u64().unwrap() + gone["length"].as_u64().unwrap()).into();
}

/// Moves the boundary between two consecutive parts.
fn move_bound(index: &mut serde_json::Value, before: &str, after: &str, by: i64) {
    let mut add = |part: &str, field: &str, by: i64| {
        let value = index.pointer_mut(part).unwrap().get_mut(field).unwrap();
        *value = (value.as_i64().unwrap() + by).into();
    };
    add(before, "length", by);
    add(after, "offset", by);
    add(after, "length", -by);
}

/// Recomputes the checksum of each part.
fn sign_again(index: &mut serde_json::Value, whole: &[u8]) {
    let parts = 1 + index["blocks"].as_array().unwrap().len();
    for n in 0..parts {
        let part = if n == 0 {
            &mut index["head"]
        } else {
            &mut index["blocks"][n - 1]
        };
        let (offset, length) = (
            part["offset"].as_u64().unwrap(),
            part["length"].as_u64().unwrap(),
        );
        let bytes = whole
            .get(offset as usize..)
            .and_then(|b| b.get(..length as usize));
        if let Some(bytes) = bytes {
            part["crc32c"] = crc32c::crc32c(bytes).into();
        }
    }
}

/// Neither a request with the id of a bucket notification nor an object under the name of its evidence replaces the
/// proof.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_cannot_be_replaced_by_a_forged_answer() {
    let (env, c) = with_source().await;
    let generation = upload(&env, &c, "a.dump");
    let id = format!("gcs:{BUCKET}/a.dump#{generation}");
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDbVgGGVPP41q8bSdZVvrHEcxLMJgHhQfjK1NcvNr7gF\n-----END PRIVATE KEY-----\n";
    let running = env
        .worker(
            &c,
            &[&NOTIFIED[..], &[("evidence-signing-key", key)]].concat(),
        )
        .await;
    // The event of the rejection is different from that of the proof.
    env.publish(&format!(
        r#"{{"request_id":"{id}","backup":{{"name":"a.dump"}},"mode":"verify","depth":"object"}}"#
    ))
    .await;
    let (refused, event) = env.results(1).await.remove(0);
    assert_eq!(refused.error.map(|e| e.reason), Some(R::InvalidRequest));
    assert!(
        refused.request_id.starts_with("message:"),
        "{}",
        refused.request_id
    );
    // A forged document in the place of the evidence: it says verified, without the key's signature.
    let now = jiff::Timestamp::now();
    let mut forged = pgrestored::proof::VerificationReport {
        verdict: Verdict::Verified,
        depth: Some(pgrestored::policy::Depth::Data),
        backup_set: "default".into(),
        ..pgrestored::proof::VerificationReport::new(
            &id,
            pgrestored::policy::Trigger::Notification,
            Default::default(),
            now,
        )
    };
    let size = env.emulator.storage.get(BUCKET, "a.dump").unwrap().len();
    forged.backup.name = Some("a.dump".into());
    forged.backup.uri = Some(format!("gs://{BUCKET}/a.dump"));
    forged.backup.generation = Some(generation.to_string());
    forged.backup.size = Some(size.to_string());
    let name = pgrestored::verification::evidence_name("a.dump", &generation.to_string(), &id);
    let envelope = pgrestored::verification::Envelope::seal(&forged, None).unwrap();
    let forged_name = format!("{name}.dsse.json");
    let json = serde_json::to_vec(&envelope).unwrap();
    env.emulator.storage.put(BUCKET, &forged_name, json.clone());
    notify(&env, "a.dump", generation, &[]).await;
    let (proof, proven) = env.results(1).await.remove(0);
    assert_eq!(
        (proof.verdict, proof.rows, proof.request_id.as_str()),
        (Some(Verdict::Verified), 5000, id.as_str())
    );
    assert_ne!(event.attributes["ce-id"], proven.attributes["ce-id"]);
    // The worker's own evidence has another name, and any worker finds it there on a redelivery.
    assert_eq!(
        env.emulator
            .storage
            .get(BUCKET, &forged_name)
            .unwrap()
            .to_vec(),
        json
    );
    let at = proof
        .verification
        .as_ref()
        .unwrap()
        .evidence
        .clone()
        .unwrap();
    assert!(at.starts_with(&format!("gs://{BUCKET}/{name}-")), "{at}");
    running.stop().await;
    let next = env
        .worker(
            &c,
            &[&NOTIFIED[..], &[("evidence-signing-key", key)]].concat(),
        )
        .await;
    notify(&env, "a.dump", generation, &[]).await;
    assert_eq!(env.result().await, proof);
    assert_eq!(evidence(&env, ".dsse.json").len(), 2);
    next.stop().await;
}

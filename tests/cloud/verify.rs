//! Verification of new backups as they arrive, from the bucket's notification to the result event.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use pgrestored::emulator::StorageFault;
use pgrestored::error::FailureReason as R;
use pgrestored::event::{Kind as EventKind, Message, Status, Verdict};
use pgrestored::queue::ResultSink;

use crate::cases;
use crate::test_env::{BUCKET, PubSubKind, ROWS, SourceCluster, TIMEOUT, TestEnv};

const NOTIFICATIONS: &str = "backup-notifications";
const NOTIFIED_SUBSCRIPTION: &str = "projects/test/subscriptions/backup-notifications";

/// The worker's configuration, in addition to the emulators.
const NOTIFIED: [(&str, &str); 2] = [
    ("backup-notification-subscription", NOTIFICATIONS),
    ("sandbox-isolation", "require"),
];

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn new_backups_are_proven() {
    let s = SourceCluster::new();
    cases::each([
        (
            "a new backup is proven",
            a_new_backup_is_proven(&s, PubSubKind::Emulator).boxed_local(),
        ),
        (
            "every generation is proven separately",
            every_generation_is_proven_separately(&s).boxed_local(),
        ),
        (
            "a bad backup is reported with the last good one",
            a_bad_backup_is_reported_with_the_last_good_one(&s).boxed_local(),
        ),
        (
            "older backups are skipped by policy",
            older_backups_are_skipped_by_policy(&s).boxed_local(),
        ),
        (
            "a directory is proven when it is complete",
            a_directory_is_proven_when_it_is_complete(&s).boxed_local(),
        ),
        (
            "pieces are proven when they are complete",
            pieces_are_proven_when_they_are_complete(&s).boxed_local(),
        ),
        (
            "a piece whose count is a word is proven with the others",
            a_piece_whose_count_is_a_word_is_proven_with_the_others(&s).boxed_local(),
        ),
        (
            "due backups are proven by the schedule",
            due_backups_are_proven_by_the_schedule(&s).boxed_local(),
        ),
        (
            "a proof cannot be replaced by a forged answer",
            a_proof_cannot_be_replaced_by_a_forged_answer(&s).boxed_local(),
        ),
    ])
    .await;
}

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_verification_gives_way() {
    let s = SourceCluster::new();
    cases::each([
        (
            "a stop does not wait for a look at a new backup",
            a_stop_does_not_wait_for_a_look_at_a_new_backup(&s).boxed_local(),
        ),
        (
            "a restore preempts a running verification",
            a_restore_preempts_a_running_verification(&s).boxed_local(),
        ),
        (
            "a restore preempts a verification that waits for its duplicate",
            a_restore_preempts_a_verification_that_waits_for_its_duplicate(&s).boxed_local(),
        ),
        (
            "a stop does not wait for a scheduled verification",
            a_stop_does_not_wait_for_a_scheduled_verification(&s).boxed_local(),
        ),
    ])
    .await;
}

/// Either Pub/Sub, with a subscription to notifications; `None` if it is not installed.
async fn start(kind: PubSubKind) -> Option<TestEnv> {
    let env = TestEnv::start(kind).await?;
    env.subscription(NOTIFICATIONS).await;
    Some(env)
}

/// The same on our emulator.
async fn notified() -> TestEnv {
    start(PubSubKind::Emulator).await.unwrap()
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

/// Where a sandbox is not the subject.
const QUICK: (&str, &str) = ("verify-depth", "archive");

/// Puts the dump of `src` into the bucket and returns the object's generation.
fn upload(env: &TestEnv, s: &SourceCluster, name: &str) -> i64 {
    env.emulator.storage.put(BUCKET, name, s.dump.clone())
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

pub async fn a_new_backup_is_proven(s: &SourceCluster, kind: PubSubKind) {
    let Some(env) = start(kind).await else {
        return;
    };
    let databases = s.c.databases();
    let generation = upload(&env, s, "nightly/a.dump");
    let running = env.worker(&s.c, &NOTIFIED).await;
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
            ),
            "{:?}",
            result.error
        );
        assert_eq!(
            (result.request_id.as_str(), result.rows),
            (id.as_str(), ROWS)
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
    assert_eq!(s.c.databases(), databases);
    running.stop().await;
    if kind == PubSubKind::Emulator {
        // Each message was acknowledged, none was redelivered.
        let delivered = env.emulator.pubsub.delivered(NOTIFIED_SUBSCRIPTION);
        assert_eq!(delivered, (9, 9));
    }
}

/// A generation that has been overwritten no longer exists; its successor has its own notification.
async fn every_generation_is_proven_separately(s: &SourceCluster) {
    let env = notified().await;
    let first = upload(&env, s, "a.dump");
    let second = upload(&env, s, "a.dump");
    let flags = [NOTIFIED[0], NOTIFIED[1], QUICK];
    let running = env.worker(&s.c, &flags).await;
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
async fn a_bad_backup_is_reported_with_the_last_good_one(s: &SourceCluster) {
    let env = notified().await;
    let dump = &s.dump;
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
    let running = env.worker(&s.c, &NOTIFIED).await;
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
async fn older_backups_are_skipped_by_policy(s: &SourceCluster) {
    let env = notified().await;
    let old = upload(&env, s, "old.dump");
    env.emulator.storage.set_created(
        BUCKET,
        "old.dump",
        SystemTime::now() - Duration::from_secs(3600),
    );
    let new = upload(&env, s, "new.dump");
    let running = env.worker(&s.c, &NOTIFIED).await;
    notify(&env, "new.dump", new, &[]).await;
    assert_eq!(env.result().await.verdict, Some(Verdict::Verified));
    notify(&env, "old.dump", old, &[]).await;
    let skipped = env
        .emulator
        .pubsub
        .until(|p| p.delivered(NOTIFIED_SUBSCRIPTION) == (2, 2));
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
    let delivered = env.emulator.pubsub.delivered(NOTIFIED_SUBSCRIPTION);
    assert_eq!(delivered, (2, 2));
    let eager = env
        .worker(
            &s.c,
            &[NOTIFIED[0], NOTIFIED[1], QUICK, ("verify-older", "verify")],
        )
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
async fn a_directory_is_proven_when_it_is_complete(s: &SourceCluster) {
    let env = notified().await;
    let folder = s.c.scratch("night");
    s.c.sandbox
        .run(
            s.c.sandbox
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
    let running = env.worker(&s.c, &NOTIFIED).await;
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
    running.until_status("\"backup\":\"night/\"").await;
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
        (ROWS, Some("night/"))
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
            &s.c,
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
async fn pieces_are_proven_when_they_are_complete(s: &SourceCluster) {
    let env = notified().await;
    let dump = std::fs::read(s.c.dump_to_file("src", &[])).unwrap();
    let pieces: Vec<&[u8]> = dump.chunks(dump.len().div_ceil(3)).collect();
    let flags = [NOTIFIED[0], NOTIFIED[1], ("verify-suffix", ".dump")];
    let running = env.worker(&s.c, &flags).await;
    let put = |at: usize| {
        let name = format!("x.dump.a{}", ["a", "b", "c"][at]);
        (
            env.emulator.storage.put(BUCKET, &name, pieces[at].to_vec()),
            name,
        )
    };
    let (generation, first) = put(0);
    notify(&env, &first, generation, &[]).await;
    running.until_status("\"backup\":\"x.dump.aa\"").await;
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
        (ROWS, Some("x.dump"))
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
    env.publish(&request("whole", "pieces")).await;
    let restored = env.result().await;
    assert_eq!(restored.status, Status::Success, "{:?}", restored.error);
    s.assert_table("pieces");
    put(1);
    env.publish(&request("replaced", "replaced")).await;
    assert_eq!(env.result().await.error.unwrap().reason, R::BackupNotFound);
    running.stop().await;
}

/// The newest piece may be one whose count is also a word (`br` is the 44th): it asks for the whole like any other.
async fn a_piece_whose_count_is_a_word_is_proven_with_the_others(s: &SourceCluster) {
    let env = notified().await;
    let dump = std::fs::read(s.c.dump_to_file("src", &[])).unwrap();
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
    let flags = [NOTIFIED[0], NOTIFIED[1], QUICK, ("verify-suffix", ".dump")];
    let running = env.worker(&s.c, &flags).await;
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
        (ROWS, Some("x.dump"))
    );
    running.stop().await;
}

/// Neither does a stop wait for a read that decides whether a new backup needs a verification.
async fn a_stop_does_not_wait_for_a_look_at_a_new_backup(s: &SourceCluster) {
    let env = notified().await;
    let storage = &env.emulator.storage;
    storage.put(BUCKET, "x.dump.aa", b"PGDMP\x01".to_vec());
    let generation = storage.put(BUCKET, "x.dump.ab", b"_".to_vec());
    storage.disturb_reads(|| Some(StorageFault::StallAfter(0)));
    let flags = [NOTIFIED[0], NOTIFIED[1], ("drain-timeout", "1ms")];
    let running = env.worker(&s.c, &flags).await;
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

/// Of the status of a worker whose download stalls after 100 bytes, once it has read them.
const STALLED: &str = "\"object_bytes\":100,";

/// With one permit, a requested restore preempts a running verification, which starts over afterwards on the same
/// delivery.
async fn a_restore_preempts_a_running_verification(s: &SourceCluster) {
    let env = notified().await;
    let generation = upload(&env, s, "a.dump");
    // The verification stalls here.
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let running = env.worker(&s.c, &NOTIFIED).await;
    notify(&env, "a.dump", generation, &[]).await;
    running.until_status(STALLED).await;
    env.publish(r#"{"request_id":"urgent","backup":{"name":"a.dump"},"target_db":"urgent"}"#)
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
async fn a_restore_preempts_a_verification_that_waits_for_its_duplicate(s: &SourceCluster) {
    let env = notified().await;
    let generation = upload(&env, s, "a.dump");
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let two = [&NOTIFIED[..], &[("restore-max-concurrent", "2")]].concat();
    let running = env.worker(&s.c, &two).await;
    notify(&env, "a.dump", generation, &[]).await;
    running.until_status(STALLED).await;
    notify(&env, "a.dump", generation, &[]).await;
    env.emulator
        .pubsub
        .until(|p| p.unacked(NOTIFIED_SUBSCRIPTION) == (0, 2))
        .await;
    env.publish(r#"{"request_id":"pressing","backup":{"name":"a.dump"},"target_db":"pressing"}"#)
        .await;
    let first = env.results(1).await.remove(0).0;
    assert_eq!(
        (first.request_id.as_str(), first.status),
        ("pressing", Status::Success)
    );
    running.shutdown.hard.cancel();
    running.stop().await;
}

/// The schedule alone makes the worker prove the newest backup and one of the older ones.
async fn due_backups_are_proven_by_the_schedule(s: &SourceCluster) {
    let env = notified().await;
    for (name, age) in [("old.dump", 50), ("older.dump", 60), ("new.dump", 1)] {
        upload(&env, s, name);
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
    let running = env.worker(&s.c, &flags).await;
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
    let next = env.worker(&s.c, &flags).await;
    next.until_status("\"proven_backup\":\"new.dump\"").await;
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
async fn a_stop_does_not_wait_for_a_scheduled_verification(s: &SourceCluster) {
    let env = notified().await;
    upload(&env, s, "a.dump");
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let running = env
        .worker(
            &s.c,
            &[("verify-schedule", "12h"), ("drain-timeout", "1ms")],
        )
        .await;
    running.until_status(STALLED).await;
    // Well before the stalled download would be reopened.
    tokio::time::timeout(Duration::from_secs(15), running.stop())
        .await
        .expect("the worker did not stop in time");
    assert!(evidence(&env, ".dsse.json").is_empty());
    let next = env.worker(&s.c, &[("verify-schedule", "12h"), QUICK]).await;
    assert_eq!(env.result().await.verdict, Some(Verdict::Verified));
    next.stop().await;
}

/// Neither a request with the id of a bucket notification nor an object under the name of its evidence replaces the
/// proof.
async fn a_proof_cannot_be_replaced_by_a_forged_answer(s: &SourceCluster) {
    let env = notified().await;
    let generation = upload(&env, s, "a.dump");
    let id = format!("gcs:{BUCKET}/a.dump#{generation}");
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDbVgGGVPP41q8bSdZVvrHEcxLMJgHhQfjK1NcvNr7gF\n-----END PRIVATE KEY-----\n";
    let running = env
        .worker(
            &s.c,
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
        (Some(Verdict::Verified), ROWS, id.as_str())
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
            &s.c,
            &[&NOTIFIED[..], &[("evidence-signing-key", key)]].concat(),
        )
        .await;
    notify(&env, "a.dump", generation, &[]).await;
    assert_eq!(env.result().await, proof);
    assert_eq!(evidence(&env, ".dsse.json").len(), 2);
    next.stop().await;
}

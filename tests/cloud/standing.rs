//! Standing restores, from a new backup in the bucket to the copy in its place.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use pgrestored::error::FailureReason as R;
use pgrestored::event::{Kind as EventKind, Message, RestoreResult, Status};
use pgrestored::queue::ResultSink;

use crate::cases;
use crate::test_env::{BUCKET, PubSubKind, ROWS, SourceCluster, TestEnv};

const NOTIFICATIONS: &str = "backup-notifications";

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn copies_are_as_fresh_as_the_backups() {
    let s = SourceCluster::new();
    cases::each([
        (
            "a proven backup is restored once",
            a_proven_backup_is_restored_once(&s).boxed_local(),
        ),
        (
            "a bad backup leaves the copy of the day before",
            a_bad_backup_leaves_the_copy_of_the_day_before(&s).boxed_local(),
        ),
        (
            "a paused order waits, and a person can run it",
            a_paused_order_waits_and_a_person_can_run_it(&s).boxed_local(),
        ),
        (
            "only the newest backup waits for the window",
            only_the_newest_backup_waits_for_the_window(&s).boxed_local(),
        ),
        (
            "a run of another worker is not superseded",
            a_run_of_another_worker_is_not_superseded(&s).boxed_local(),
        ),
        (
            "a copy is masked and finished before anybody sees it",
            a_copy_is_masked_and_finished_before_anybody_sees_it(&s).boxed_local(),
        ),
        (
            "two workers restore a backup once",
            two_workers_restore_a_backup_once(&s).boxed_local(),
        ),
    ])
    .await;
}

/// The path of a file with one order, called like its target.
fn order(s: &SourceCluster, target: &str, more: &str) -> String {
    let file = s.c.scratch(&format!("{target}.yaml"));
    let text = format!("version: 1\norders:\n  - {{ name: {target}, target: {target}, {more} }}\n");
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn hours_ago(hours: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(hours * 3600)
}

/// Puts a backup into the bucket that was made some hours ago; returns its generation.
fn upload(env: &TestEnv, name: &str, bytes: &[u8], age: u64) -> i64 {
    let storage = &env.emulator.storage;
    let generation = storage.put(BUCKET, name, bytes.to_vec());
    storage.set_created(BUCKET, name, hours_ago(age));
    generation
}

async fn notify(env: &TestEnv, name: &str, generation: i64) {
    let attributes = [
        (
            "notificationConfig",
            format!("projects/_/buckets/{BUCKET}/notificationConfigs/1"),
        ),
        ("eventType", "OBJECT_FINALIZE".to_owned()),
        ("payloadFormat", "NONE".to_owned()),
        ("bucketId", BUCKET.to_owned()),
        ("objectId", name.to_owned()),
        ("objectGeneration", generation.to_string()),
    ];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
    let message = Message {
        data: vec![],
        attributes: attributes.into(),
    };
    let topic = env.pubsub().topic(NOTIFICATIONS).await.unwrap();
    topic.publish(message).await.unwrap();
}

/// The names of the objects that tell of the runs of an order.
fn told(env: &TestEnv, order: &str) -> Vec<String> {
    let objects = env.emulator.storage.objects(BUCKET);
    let folder = format!("standing.pgrestored/{order}/");
    let own = objects.into_iter().filter_map(|(name, _)| {
        let own = name.strip_prefix(&folder)?;
        Some(own.to_owned())
    });
    own.collect()
}

/// What the command `standing` prints as JSON.
async fn standing(
    env: &TestEnv,
    s: &SourceCluster,
    file: &str,
    args: &[&str],
) -> serde_json::Value {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .arg("standing")
        .args(args)
        .args(["--output", "json", "--standing-restores", file])
        .arg(format!("--db-host={}", s.c.sandbox.host()))
        .args(env.flags().iter().map(|(k, v)| format!("--{k}={v}")))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::null());
    let out = command.output().await.unwrap();
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{args:?}: {}", printed(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", printed(&out.stdout)))
}

/// Each notification of a backup comes three times, and the worker is started twice.
async fn a_proven_backup_is_restored_once(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    env.subscription(NOTIFICATIONS).await;
    let file = order(s, "proven", "prefix: nightly/, when: proven");
    let flags = [
        ("backup-notification-subscription", NOTIFICATIONS),
        ("standing-restores", file.as_str()),
    ];
    let running = env.worker(&s.c, &flags).await;
    running
        .until_metric("restore_standing_last_success_timestamp_seconds{order=\"proven\"} 0")
        .await;
    let generation = upload(&env, "nightly/a.dump", &s.dump, 1);
    for _ in 0..3 {
        notify(&env, "nightly/a.dump", generation).await;
    }
    let mut restores: Vec<RestoreResult> = Vec::new();
    for (result, _) in env.results(4).await {
        if result.kind == EventKind::Restore {
            restores.push(result);
        }
    }
    let [restored] = restores.as_slice() else {
        panic!("{restores:?}")
    };
    assert_eq!(restored.status, Status::Success, "{:?}", restored.error);
    assert_eq!(restored.request_id, format!("standing/proven/{generation}"));
    assert_eq!(restored.labels["standing_order"], "proven");
    assert_eq!(restored.backup.name.as_deref(), Some("nightly/a.dump"));
    s.assert_restored("proven");
    running.until_status("\"outcome\":\"success\"").await;
    running.stop().await;
    assert_eq!(told(&env, "proven"), [format!("success-{generation}.json")]);
    // A worker that starts later finds what the first one has done.
    let running = env.worker(&s.c, &flags).await;
    running.until_status("\"outcome\":\"success\"").await;
    running.until_metric("restore_success_total 0").await;
    running.stop().await;
    let listed = standing(&env, s, &file, &["list"]).await;
    assert_eq!(
        listed[0]["last_success"]["generation"],
        generation.to_string()
    );
}

async fn a_bad_backup_leaves_the_copy_of_the_day_before(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let file = order(s, "after_bad", "when: finalized, keep_previous: '0'");
    let flags = [("standing-restores", file.as_str())];
    upload(&env, "1.dump", &s.dump, 3);
    let running = env.worker(&s.c, &flags).await;
    assert_eq!(env.result().await.error, None);
    running.stop().await;
    let bad = upload(&env, "2.dump", &s.dump[..s.dump.len() / 2], 2);
    let running = env.worker(&s.c, &flags).await;
    let result = env.result().await;
    let error = result.error.unwrap();
    assert_eq!(
        (result.request_id.as_str(), error.reason),
        (
            format!("standing/after_bad/{bad}").as_str(),
            R::ArchiveCorrupt
        )
    );
    running.until_status("archive_corrupt").await;
    let never = "restore_standing_last_failure_timestamp_seconds{order=\"after_bad\"} 0";
    running.until_other_metric(never).await;
    running.stop().await;
    s.assert_table("after_bad");
    assert!(s.c.leftovers().is_empty());
    // The night after that, all is well, and no older copy is kept.
    let good = upload(&env, "3.dump", &s.dump, 1);
    let running = env.worker(&s.c, &flags).await;
    let result = env.result().await;
    assert_eq!(result.error, None);
    assert_eq!(result.request_id, format!("standing/after_bad/{good}"));
    running.stop().await;
    s.assert_table("after_bad");
}

async fn a_paused_order_waits_and_a_person_can_run_it(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let file = order(s, "paused", "when: finalized");
    let flags = [("standing-restores", file.as_str())];
    let generation = upload(&env, "a.dump", &s.dump, 1);
    let paused = standing(&env, s, &file, &["pause", "paused"]).await;
    assert!(paused["paused_since"].is_string(), "{paused}");
    let running = env.worker(&s.c, &flags).await;
    running.until_status("\"paused_since\"").await;
    running.stop().await;
    assert!(!s.c.databases().contains(&"paused".to_owned()));
    // A person restores it all the same.
    let result = standing(&env, s, &file, &["run", "paused"]).await;
    assert_eq!(result["status"], "success", "{result}");
    let id = result["request_id"].as_str().unwrap();
    let begin = format!("standing/paused/{generation}/");
    assert!(id.starts_with(&begin), "{id}");
    s.assert_table("paused");
    let resumed = standing(&env, s, &file, &["pause", "paused", "--resume"]).await;
    assert!(resumed["paused_since"].is_null(), "{resumed}");
    // That backup is restored; the next one is due.
    let next = upload(&env, "b.dump", &s.dump, 0);
    let running = env.worker(&s.c, &flags).await;
    let result = env.result().await;
    assert_eq!(result.error, None);
    assert_eq!(result.request_id, format!("standing/paused/{next}"));
    running.stop().await;
}

async fn only_the_newest_backup_waits_for_the_window(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    env.subscription(NOTIFICATIONS).await;
    // It opens in two hours.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let at = |hours: i64| {
        let then = now.saturating_add(jiff::SignedDuration::from_hours(hours));
        then.strftime("%H:%M").to_string()
    };
    let window = format!("window: {{ from: '{}', to: '{}' }}", at(2), at(3));
    let file = order(s, "window", &format!("when: finalized, {window}"));
    let flags = [
        ("backup-notification-subscription", NOTIFICATIONS),
        ("standing-restores", file.as_str()),
        ("verify-depth", "object"),
    ];
    let older = upload(&env, "a.dump", &s.dump, 2);
    let running = env.worker(&s.c, &flags).await;
    running.until_status("\"waiting\":\"a.dump\"").await;
    let newer = upload(&env, "b.dump", &s.dump, 1);
    notify(&env, "b.dump", newer).await;
    // The verification of the newer one, and the end of the older one's run.
    let results = env.results(2).await;
    let mut ended = results.iter().filter(|(r, _)| r.kind == EventKind::Restore);
    let (superseded, _) = ended.next().unwrap();
    assert_eq!(superseded.request_id, format!("standing/window/{older}"));
    let error = superseded.error.as_ref().unwrap();
    assert_eq!(error.reason, R::TargetNotAllowed);
    let by = format!("superseded: the newer run standing/window/{newer} ");
    assert!(error.message.starts_with(&by), "{}", error.message);
    let shown = format!("\"waiting\":\"b.dump\",\"waiting_generation\":\"{newer}\"");
    running.until_status(&shown).await;
    let shown = format!("\"superseded_by\":\"standing/window/{newer}\"");
    running.until_status(&shown).await;
    running.stop().await;
    assert!(!s.c.databases().contains(&"window".to_owned()));
    assert_eq!(told(&env, "window"), [format!("superseded-{older}.json")]);
}

/// The other worker has the lock of the target, and its run has ended when it lets go of it.
async fn a_run_of_another_worker_is_not_superseded(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    env.subscription(NOTIFICATIONS).await;
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let at = |hours: i64| {
        let then = now.saturating_add(jiff::SignedDuration::from_hours(hours));
        then.strftime("%H:%M").to_string()
    };
    let window = format!("window: {{ from: '{}', to: '{}' }}", at(2), at(3));
    let file = order(s, "held", &format!("when: finalized, {window}"));
    let flags = [
        ("backup-notification-subscription", NOTIFICATIONS),
        ("standing-restores", file.as_str()),
        ("verify-depth", "object"),
    ];
    let older = upload(&env, "a.dump", &s.dump, 2);
    let running = env.worker(&s.c, &flags).await;
    running.until_status("\"waiting\":\"a.dump\"").await;
    let config = format!("host={} user=postgres dbname=postgres", s.c.sandbox.host());
    let connected = tokio_postgres::connect(&config, tokio_postgres::NoTls).await;
    let (other, connection) = connected.unwrap();
    let driver = tokio::spawn(connection);
    let lock = "SELECT pg_advisory_lock(hashtextextended('pgrestored:held', 7))";
    other.batch_execute(lock).await.unwrap();
    let newer = upload(&env, "b.dump", &s.dump, 1);
    notify(&env, "b.dump", newer).await;
    running.until_status("\"waiting\":\"b.dump\"").await;
    let run = serde_json::json!({ "run": {
        "order": "held",
        "outcome": "success",
        "request_id": format!("standing/held/{older}"),
        "backup": "a.dump",
        "generation": older.to_string(),
        "finished_at": jiff::Timestamp::now(),
    }});
    let ended = format!("success-{older}.json");
    let name = format!("standing.pgrestored/held/{ended}");
    env.emulator
        .storage
        .put(BUCKET, &name, run.to_string().into_bytes());
    drop(other);
    driver.await.unwrap().unwrap();
    running.stop().await;
    assert_eq!(told(&env, "held"), [ended]);
}

async fn a_copy_is_masked_and_finished_before_anybody_sees_it(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let rules = "version: 1\nunlisted: refuse\ntables:\n  public.t:\n    columns: { id: keep, v: { set: masked } }\n";
    std::fs::write(s.c.scratch("rules.yaml"), rules).unwrap();
    let finishing = s.c.scratch("finishing");
    std::fs::create_dir(&finishing).unwrap();
    let sql = "CREATE VIEW team AS SELECT DISTINCT v FROM t;\n";
    std::fs::write(finishing.join("team.sql"), sql).unwrap();
    let checks = |masked: usize| {
        let sql = "SELECT count(*) FROM public.team WHERE v = 'masked'";
        let text =
            format!("assertions: [{{ name: only masked, sql: \"{sql}\", expect: {masked} }}]");
        std::fs::write(finishing.join("team.yaml"), text).unwrap();
    };
    checks(1);
    let what = "when: finalized, mask: rules.yaml, finish: [team.sql], finish_checks: team.yaml";
    let file = order(s, "masked", what);
    let place = format!("file://{}", finishing.display());
    let flags = [
        ("standing-restores", file.as_str()),
        ("restore-finish-from", place.as_str()),
    ];
    upload(&env, "a.dump", &s.dump, 1);
    let running = env.worker(&s.c, &flags).await;
    let result = env.result().await;
    assert_eq!(result.error, None);
    running.stop().await;
    assert_eq!(result.finish[0].name, "team.sql");
    let note = "checks of team.yaml: 1 passed".to_owned();
    assert!(result.notes.contains(&note), "{:?}", result.notes);
    let assert_there = || {
        assert_eq!(s.c.psql("masked", "SELECT v FROM team"), "masked");
        let rows = s.c.psql("masked", "SELECT count(*) FROM t");
        assert_eq!(rows, ROWS.to_string());
    };
    assert_there();
    // What is kept of the run says how the copy was made.
    let name = format!("standing.pgrestored/masked/{}", told(&env, "masked")[0]);
    let kept = env.emulator.storage.get(BUCKET, &name).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    let run = &kept["run"];
    assert_eq!(run["finish"][0]["name"], "team.sql", "{run}");
    assert_eq!(run["finish"][0]["sha256"], result.finish[0].sha256);
    assert_eq!(run["rules"], result.masking.unwrap().digest);
    // A copy that does not pass the team's checks takes nobody's place.
    checks(2);
    upload(&env, "b.dump", &s.dump, 0);
    let running = env.worker(&s.c, &flags).await;
    let error = env.result().await.error.unwrap();
    assert_eq!(error.reason, R::VerificationFailed, "{}", error.message);
    running.stop().await;
    assert_there();
}

async fn two_workers_restore_a_backup_once(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let file = order(s, "shared", "when: finalized");
    let flags = [("standing-restores", file.as_str())];
    upload(&env, "a.dump", &s.dump, 1);
    let (one, two) = tokio::join!(env.worker(&s.c, &flags), env.worker(&s.c, &flags));
    assert_eq!(env.result().await.error, None);
    one.stop().await;
    two.stop().await;
    s.assert_table("shared");
    // A second restore would have kept the first one.
    let kept = env.app(&s.c, &[]).manager.kept("shared").await.unwrap();
    assert!(kept.is_empty(), "{kept:?}");
    assert_eq!(told(&env, "shared").len(), 1);
}

//! From request to result, on our emulator and on Google's emulator.

use std::time::Duration;

use pgrestored::error::FailureReason as R;
use pgrestored::event::Status;

use pgrestored::emulator::StorageFault;

use crate::support::{Cluster, assert_same, is_full_campaign};
use crate::test_env::{BUCKET, Kind, TIMEOUT, TestEnv};

const SOURCE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i; CREATE INDEX ON t (v)";

fn request(id: &str, target: &str) -> String {
    format!(r#"{{"request_id":"{id}","backup":{{"name":"src.dump"}},"target_db":"{target}"}}"#)
}

/// A cluster with a database `src` whose dump is in the bucket.
fn with_backup(env: &TestEnv, sql: &str) -> Cluster {
    let c = Cluster::start();
    c.create("src", sql);
    env.emulator.storage.put(
        BUCKET,
        "src.dump",
        std::fs::read(c.dump_through_pipe("src", &[])).unwrap(),
    );
    c
}

pub async fn a_request_is_served(kind: Kind) {
    let Some(env) = TestEnv::start(kind).await else {
        return;
    };
    let c = with_backup(&env, SOURCE);
    let running = env.worker(&c, &[]).await;
    assert_eq!(running.get("/livez").await.0, 200);
    assert_eq!(running.get("/readyz").await.0, 200);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    env.publish_with(&request("r1", "app"), &[("googclient_traceparent", trace)])
        .await;
    let (result, event) = env.results(1).await.remove(0);
    assert_eq!((result.status, result.error), (Status::Success, None));
    assert_eq!((result.tables, result.rows), (1, 5000));
    for (key, value) in [
        ("kind", "restore"),
        ("status", "success"),
        ("request_id", "r1"),
        ("ce-specversion", "1.0"),
    ] {
        assert_eq!(event.attributes[key], value);
    }
    assert!(event.attributes["ce-type"].ends_with("restore.completed.v1"));
    assert_same(
        &c.content("app", &[]),
        &c.content("src", &[]),
        "restored and source",
    );
    for line in [
        "restore_success_total 1",
        "restore_in_progress 0",
        "restore_rows_total 5000",
        "restore_duration_seconds_count 1",
    ] {
        running.until_metric(line).await;
    }
    let status: serde_json::Value =
        serde_json::from_str(&running.get("/status.json").await.1).unwrap();
    assert_eq!(status["recent"][0]["request_id"], "r1");
    running.stop().await;
    // The message was acknowledged: another worker does not get it, so the only new result is the next request's.
    let next = env.worker(&c, &[]).await;
    env.publish(&request("r2", "app2")).await;
    assert_eq!(env.result().await.request_id, "r2");
    next.stop().await;
    if kind == Kind::Emulator {
        assert_eq!(
            env.emulator
                .pubsub
                .delivered("projects/test/subscriptions/restore-requests"),
            (2, 2)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_served_on_the_emulator() {
    a_request_is_served(Kind::Emulator).await;
}

pub async fn duplicates_restore_once(kind: Kind) {
    let Some(env) = TestEnv::start(kind).await else {
        return;
    };
    let c = with_backup(&env, SOURCE);
    let running = env.worker(&c, &[("restore-max-concurrent", "3")]).await;
    for _ in 0..3 {
        env.publish(&request("same", "app")).await;
    }
    let events = env.results(3).await;
    assert!(
        events
            .iter()
            .all(|(r, e)| r.status == Status::Success && e.data == events[0].1.data)
    );
    assert!(
        events
            .iter()
            .all(|(_, e)| e.attributes["ce-id"] == events[0].1.attributes["ce-id"])
    );
    running.until_metric("restore_rows_total 5000").await;
    running.until_metric("restore_success_total 1").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_restore_once_on_the_emulator() {
    duplicates_restore_once(Kind::Emulator).await;
}

pub async fn bad_messages_are_answered(kind: Kind) {
    let Some(env) = TestEnv::start(kind).await else {
        return;
    };
    let c = with_backup(&env, SOURCE);
    let running = env
        .worker(&c, &[("trusted-sources", "gs://other-bucket/ok")])
        .await;
    let cases = [
        ("not json".to_owned(), R::InvalidRequest),
        (
            r#"{"request_id":"b1","backup":{"name":"src.dump"},"target_db":"app","surprise":1}"#.to_owned(),
            R::InvalidRequest,
        ),
        (
            r#"{"request_id":"b2","backup":{"name":"none.dump"},"target_db":"app"}"#.to_owned(),
            R::BackupNotFound,
        ),
        (
            r#"{"request_id":"b3","backup":{"uri":"gs://elsewhere/src.dump"},"target_db":"app"}"#.to_owned(),
            R::SourceNotAllowed,
        ),
        (
            r#"{"request_id":"b4","backup":{"uri":"gs://other-bucket/ok/x"},"target_db":"app"}"#.to_owned(),
            R::BackupNotFound,
        ),
        (request("b5", "postgres"), R::TargetNotAllowed),
        (request("b6", "src"), R::TargetExists),
        (
            r#"{"request_id":"b7","backup":{"name":"src.dump","generation":"1"},"target_db":"app"}"#
                .to_owned(),
            R::BackupNotFound,
        ),
        (
            r#"{"request_id":"b8","backup":{"name":"src.dump","crc32c":"AAAAAA=="},"target_db":"app"}"#
                .to_owned(),
            R::ChecksumMismatch,
        ),
    ];
    for (body, _) in &cases {
        env.publish(body).await;
    }
    let events = env.results(cases.len()).await;
    for (body, reason) in &cases {
        let id = serde_json::from_str::<serde_json::Value>(body)
            .ok()
            .and_then(|v| Some(v["request_id"].as_str()?.to_owned()));
        let (result, event) = events
            .iter()
            .find(|(r, _)| {
                id.as_ref()
                    .map_or(r.request_id.starts_with("message:"), |id| {
                        r.request_id == *id
                    })
            })
            .unwrap_or_else(|| panic!("no error in the result for {body}"));
        let error = result.error.as_ref().unwrap();
        assert_eq!(
            (error.reason, error.retryable),
            (*reason, false),
            "{body}: {error:?}"
        );
        assert_eq!(event.attributes["failure_reason"], reason.as_str());
    }
    running
        .until_metric("restore_failure_total{failure_reason=\"invalid_request\"} 2")
        .await;
    running
        .until_metric("restore_failure_total{failure_reason=\"backup_not_found\"} 3")
        .await;
    assert!(c.leftovers().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_are_answered_on_the_emulator() {
    bad_messages_are_answered(Kind::Emulator).await;
}

/// A lease extension is 10 s; the download alone takes more than two of them on our emulator, and more than three on
/// Google's emulator or with `CAMPAIGN=full`.
pub async fn a_long_restore_is_delivered_once(kind: Kind) {
    let Some(env) = TestEnv::start(kind).await else {
        return;
    };
    let c = with_backup(
        &env,
        "CREATE TABLE t (v text); INSERT INTO t SELECT md5(i::text) || md5((i + 1)::text) FROM generate_series(1, 90000) i",
    );
    let size = env
        .app(&c, &[])
        .manager
        .list_available_backups()
        .await
        .unwrap()[0]
        .size;
    let is_long = kind == Kind::Google || is_full_campaign();
    let (rate, least) = if is_long {
        (size / 34, 30.0)
    } else {
        (size / 24, 20.0)
    };
    env.emulator.storage.limit_rate(rate);
    let running = env.worker(&c, &[]).await;
    env.publish(&request("long", "app")).await;
    let result = env.result().await;
    assert_eq!((result.status, result.attempt), (Status::Success, 1));
    assert!(
        result.duration_seconds > least,
        "{}",
        result.duration_seconds
    );
    assert!(
        running
            .get("/metrics")
            .await
            .1
            .contains("restore_redeliveries_total 0\n")
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_restore_is_delivered_once_on_the_emulator() {
    a_long_restore_is_delivered_once(Kind::Emulator).await;
}

/// Two workers, two requests, one target: one waits for the other, and both succeed or are superseded.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_waits_for_a_busy_target() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = with_backup(&env, SOURCE);
    let running = [env.worker(&c, &[]).await, env.worker(&c, &[]).await];
    for id in ["one", "two"] {
        let body = format!(
            r#"{{"request_id":"{id}","backup":{{"name":"latest"}},"target_db":"app","on_existing":"replace"}}"#
        );
        env.publish(&body).await;
    }
    let results: Vec<_> = env.results(2).await.into_iter().map(|(r, _)| r).collect();
    let of = |id: &str| results.iter().find(|r| r.request_id == id).unwrap();
    // Whichever ran first, the target is in the end the result of the later request.
    assert_eq!(of("two").error, None);
    match &of("one").error {
        None => assert_eq!(
            results
                .iter()
                .filter(|r| r.previous_database.is_some())
                .count(),
            1
        ),
        Some(e) => assert!(e.message.contains("superseded"), "{e:?}"),
    }
    for r in running {
        r.stop().await;
    }
    assert!(c.leftovers().is_empty());
}

/// A request that waits for a busy target releases its permit, which a request for another target gets meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_target_holds_no_permit() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = with_backup(&env, SOURCE);
    let one = [
        ("restore-max-concurrent", "1"),
        ("download-stall-timeout", "600s"),
        ("drain-timeout", "100ms"),
    ];
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let holder = env.worker(&c, &one).await;
    env.publish(&request("holds", "app")).await;
    let holds = async {
        while !holder
            .get("/status.json")
            .await
            .1
            .contains("\"object_bytes\":100,")
        {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(TIMEOUT, holds)
        .await
        .expect("the first restore did not start in time");
    let other = env.worker(&c, &one).await;
    env.publish(&request("waits", "app")).await;
    // The target must be found busy before the next request arrives.
    let waits = async {
        loop {
            let status: serde_json::Value =
                serde_json::from_str(&other.get("/status.json").await.1).unwrap();
            if status["queue"]["waiting"][0]["reason"] == "target_busy" {
                return status["queue"].clone();
            }
            crate::support::pause().await;
        }
    };
    let queue = tokio::time::timeout(TIMEOUT, waits)
        .await
        .expect("the second restore did not find its target busy in time");
    assert_eq!(queue["held"], 1);
    assert_eq!(queue["waiting"][0]["messages"], 1);
    assert_eq!(queue["waiting"][0]["oldest"], queue["oldest"]);
    env.publish(&request("works", "elsewhere")).await;
    let result = env.result().await;
    assert_eq!(
        (result.request_id.as_str(), result.status),
        ("works", Status::Success)
    );
    holder.stop().await;
    other.stop().await;
}

/// If a result cannot be published, the message is redelivered, and the rerun publishes the recorded outcome.
#[tokio::test(flavor = "multi_thread")]
async fn an_unpublished_result_is_published_by_a_rerun() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = with_backup(&env, SOURCE);
    let running = env
        .worker(&c, &[("restore-completion-topic", "missing-topic")])
        .await;
    env.publish(&request("r1", "app")).await;
    running
        .until_metric("restore_result_publish_failure_total 1")
        .await;
    let oid = c.psql(
        "postgres",
        "SELECT oid FROM pg_database WHERE datname = 'app'",
    );
    assert!(
        !running
            .get("/metrics")
            .await
            .1
            .contains("restore_success_total 1\n")
    );
    running.stop().await;
    let next = env.worker(&c, &[]).await;
    assert_eq!(env.result().await.status, Status::Success);
    assert_eq!(
        c.psql(
            "postgres",
            "SELECT oid FROM pg_database WHERE datname = 'app'"
        ),
        oid
    );
    next.stop().await;
}

/// If the server is unavailable, the message is nacked, and the request succeeds once the server is back.
#[tokio::test(flavor = "multi_thread")]
async fn an_unavailable_server_is_retried() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = with_backup(&env, SOURCE);
    let app = [("retry-budget", "1s"), ("restore-max-attempts", "2")];
    let nowhere = env
        .worker(&c, &[("db-host", "/nowhere"), app[0], app[1]])
        .await;
    env.publish(&request("r1", "app")).await;
    let result = env.result().await;
    let error = result.error.unwrap();
    assert_eq!(
        (error.reason, error.retryable, result.attempt),
        (R::TargetUnavailable, true, 2)
    );
    assert!(
        nowhere
            .get("/metrics")
            .await
            .1
            .contains("restore_redeliveries_total 1\n")
    );
    nowhere.stop().await;
}

/// If the worker's own role cannot log in, no event is published, the message stays, and the worker is not ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_environment_makes_the_worker_not_ready() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = with_backup(&env, SOURCE);
    let broken = env.worker(&c, &[("db-user", "nobody_at_all")]).await;
    env.publish(&request("r1", "app")).await;
    let not_ready = async {
        while broken.get("/readyz").await.0 != 503 {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), not_ready)
        .await
        .unwrap();
    assert!(
        env.emulator
            .pubsub
            .published("projects/test/topics/restore-completions")
            .is_empty()
    );
    broken.stop().await;
    let sound = env.worker(&c, &[]).await;
    assert_eq!(env.result().await.status, Status::Success);
    sound.stop().await;
}

/// A message whose attempts keep crashing is answered and acknowledged, whatever it asks for.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_attempts_keep_crashing_is_quarantined() {
    use pgrestored::emulator::SubscriptionOptions;
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = with_backup(&env, SOURCE);
    // Without a journal, only the number of deliveries shows it.
    c.psql("postgres", "CREATE ROLE plain LOGIN CREATEDB");
    let (topic, subscription) = (
        "projects/test/topics/restore-requests",
        "projects/test/subscriptions/counted",
    );
    let dead = Some(("projects/test/topics/dead".to_owned(), 100));
    let options = SubscriptionOptions {
        dead_letter: dead,
        ..SubscriptionOptions::default()
    };
    env.emulator
        .pubsub
        .create_subscription(topic, subscription, options);
    env.publish(&request("deadly", "app")).await;
    env.publish(
        r#"{"request_id":"proof","backup":{"name":"src.dump"},"mode":"verify","depth":"object"}"#,
    )
    .await;
    // As if workers had crashed while they held the messages.
    let mut queue = env.pubsub().subscribe("counted").await.unwrap();
    for _ in 0..20 {
        pgrestored::queue::RequestQueue::next(&mut queue)
            .await
            .unwrap()
            .lease
            .nack();
    }
    pgrestored::queue::RequestQueue::close(&mut queue).await;
    pgrestored::queue::RequestQueue::flush(&mut queue).await;
    let flags = [
        ("restore-request-subscription", "counted"),
        ("db-user", "plain"),
        ("restore-owners", "none"),
    ];
    let running = env.worker(&c, &flags).await;
    for _ in 0..2 {
        let result = env.result().await;
        let error = result
            .error
            .unwrap_or_else(|| panic!("{} was not quarantined", result.request_id));
        assert!(
            error.message.contains("quarantined"),
            "{}: {error:?}",
            result.request_id
        );
    }
    env.emulator
        .pubsub
        .until(|p| p.unacked(subscription) == (0, 0))
        .await;
    // Other requests are not affected.
    env.publish(&request("harmless", "app")).await;
    assert_eq!(env.result().await.status, Status::Success);
    running.stop().await;
}

/// The idempotency record is created once, is not listed as a backup, and answers redeliveries without a journal.
#[tokio::test(flavor = "multi_thread")]
async fn the_idempotency_record_answers_without_a_journal() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = with_backup(&env, SOURCE);
    let place = format!("gs://{BUCKET}/kept");
    let running = env.worker(&c, &[("restore-records", &place)]).await;
    env.publish(&request("ops/1", "app")).await;
    let first = env.results(1).await.remove(0);
    assert_eq!(first.0.status, Status::Success);
    let record = "kept/outcomes.pgrestored/ops%2F1.json";
    let text = env.emulator.storage.get(BUCKET, record).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        body["result"],
        serde_json::from_slice::<serde_json::Value>(&first.1.data).unwrap()
    );
    let listed = env
        .app(&c, &[])
        .manager
        .list_available_backups()
        .await
        .unwrap();
    assert_eq!(
        listed.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["src.dump"]
    );
    // As if the server had been restored from a backup of its own, without the journal and the database.
    c.psql(
        "postgres",
        "DROP SCHEMA pgrestored CASCADE; DROP DATABASE app",
    );
    env.publish(&request("ops/1", "app")).await;
    let again = env.results(1).await.remove(0);
    assert_eq!(again.1.data, first.1.data);
    assert!(!c.databases().contains(&"app".to_owned()), "restored twice");
    assert_eq!(env.emulator.storage.get(BUCKET, record).unwrap(), text);
    // A request that is refused does not use up its id.
    env.publish(&request("ops/2", "template1")).await;
    assert_eq!(
        env.result().await.error.unwrap().reason,
        R::TargetNotAllowed
    );
    env.publish(&request("ops/2", "app")).await;
    let accepted = env.result().await;
    assert_eq!(accepted.status, Status::Success, "{:?}", accepted.error);
    // The record does not answer another request with the same id.
    env.publish(&request("ops/1", "other")).await;
    assert_eq!(env.result().await.error.unwrap().reason, R::InvalidRequest);
    assert_eq!(env.emulator.storage.get(BUCKET, record).unwrap(), text);
    running.stop().await;
}

//! From request to result, on our emulator and on Google's emulator.

use std::time::Duration;

use futures::FutureExt;

use pgrestored::error::FailureReason as R;
use pgrestored::event::Status;

use pgrestored::emulator::StorageFault;

use crate::cases;
use crate::support::is_full_campaign;
use crate::test_env::{BUCKET, PubSubKind, ROWS, SourceCluster, TIMEOUT};

fn request(id: &str, target: &str) -> String {
    format!(r#"{{"request_id":"{id}","backup":{{"name":"src.dump"}},"target_db":"{target}"}}"#)
}

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_and_a_long_restore_is_delivered_once() {
    let s = SourceCluster::new();
    // The first needs a server without a journal, and the last but one of the others takes the journal away.
    cases::each([
        (
            "a message whose attempts keep crashing is quarantined",
            a_message_whose_attempts_keep_crashing_is_quarantined(&s).boxed_local(),
        ),
        (
            "a request is served",
            a_request_is_served(&s, PubSubKind::Emulator).boxed_local(),
        ),
        (
            "duplicates restore once",
            duplicates_restore_once(&s, PubSubKind::Emulator).boxed_local(),
        ),
        (
            "bad messages are answered",
            bad_messages_are_answered(&s, PubSubKind::Emulator).boxed_local(),
        ),
        (
            "a request waits for a busy target",
            a_request_waits_for_a_busy_target(&s).boxed_local(),
        ),
        (
            "a request that waits for its target holds no permit",
            a_request_that_waits_for_its_target_holds_no_permit(&s).boxed_local(),
        ),
        (
            "an unpublished result is published by a rerun of its message",
            an_unpublished_result_is_published_by_a_rerun_of_its_message(&s).boxed_local(),
        ),
        (
            "the idempotency record answers without a journal",
            the_idempotency_record_answers_without_a_journal(&s).boxed_local(),
        ),
    ])
    .await;
    cases::at_once([
        (
            "a long restore is delivered once",
            a_long_restore_is_delivered_once(&s, PubSubKind::Emulator).boxed_local(),
        ),
        (
            "an unavailable server is retried",
            an_unavailable_server_is_retried(&s).boxed_local(),
        ),
        (
            "a broken environment makes the worker not ready",
            a_broken_environment_makes_the_worker_not_ready(&s).boxed_local(),
        ),
    ])
    .await;
}

pub async fn a_request_is_served(s: &SourceCluster, kind: PubSubKind) {
    let Some(env) = s.env_of(kind).await else {
        return;
    };
    let running = env.worker(&s.c, &[]).await;
    assert_eq!(running.get("/livez").await.0, 200);
    assert_eq!(running.get("/readyz").await.0, 200);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let body = request("served", "served");
    env.publish_with(&body, &[("googclient_traceparent", trace)])
        .await;
    let (result, event) = env.results(1).await.remove(0);
    assert_eq!((result.status, result.error), (Status::Success, None));
    assert_eq!((result.tables, result.rows), (1, ROWS));
    for (key, value) in [
        ("kind", "restore"),
        ("status", "success"),
        ("request_id", "served"),
        ("ce-specversion", "1.0"),
    ] {
        assert_eq!(event.attributes[key], value);
    }
    assert!(event.attributes["ce-type"].ends_with("restore.completed.v1"));
    match kind {
        PubSubKind::Emulator => s.assert_restored("served"),
        PubSubKind::Google => s.assert_table("served"),
    }
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
    assert_eq!(status["recent"][0]["request_id"], "served");
    running.stop().await;
    // The message was acknowledged: another worker does not get it, so the only new result is the next request's.
    let next = env.worker(&s.c, &[]).await;
    env.publish(
        r#"{"request_id":"served-next","backup":{"name":"none.dump"},"target_db":"served_next"}"#,
    )
    .await;
    assert_eq!(env.result().await.request_id, "served-next");
    next.stop().await;
    if kind == PubSubKind::Emulator {
        assert_eq!(
            env.emulator
                .pubsub
                .delivered("projects/test/subscriptions/restore-requests"),
            (2, 2)
        );
    }
}

pub async fn duplicates_restore_once(s: &SourceCluster, kind: PubSubKind) {
    let Some(env) = s.env_of(kind).await else {
        return;
    };
    let three = [("restore-max-concurrent", "3")];
    let running = env.worker(&s.c, &three).await;
    for _ in 0..3 {
        env.publish(&request("same", "same")).await;
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

pub async fn bad_messages_are_answered(s: &SourceCluster, kind: PubSubKind) {
    let Some(env) = s.env_of(kind).await else {
        return;
    };
    let running = env
        .worker(&s.c, &[("trusted-sources", "gs://other-bucket/ok")])
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
    assert!(s.c.leftovers().is_empty());
    running.stop().await;
}

/// A lease extension is 10 s; the download alone takes more than two of them, and more than three with `CAMPAIGN=full`.
pub async fn a_long_restore_is_delivered_once(s: &SourceCluster, kind: PubSubKind) {
    let Some(env) = s.env_of(kind).await else {
        return;
    };
    let (seconds, least) = if is_full_campaign() {
        (34, 30.0)
    } else {
        (24, 20.0)
    };
    let rate = s.dump.len() as u64 / seconds;
    env.emulator.storage.limit_rate(rate);
    let running = env.worker(&s.c, &[]).await;
    env.publish(&request("long", "long")).await;
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

/// Two workers, two requests, one target: one waits for the other, and both succeed or are superseded.
async fn a_request_waits_for_a_busy_target(s: &SourceCluster) {
    let env = s.env().await;
    let running = [env.worker(&s.c, &[]).await, env.worker(&s.c, &[]).await];
    for id in ["one", "two"] {
        let body = format!(
            r#"{{"request_id":"{id}","backup":{{"name":"latest"}},"target_db":"busy","on_existing":"replace"}}"#
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
    assert!(s.c.leftovers().is_empty());
}

/// A request that waits for a busy target releases its permit, which a request for another target gets meanwhile.
async fn a_request_that_waits_for_its_target_holds_no_permit(s: &SourceCluster) {
    let env = s.env().await;
    let one = [
        ("restore-max-concurrent", "1"),
        ("download-stall-timeout", "600s"),
        ("drain-timeout", "100ms"),
    ];
    env.emulator
        .storage
        .fail_next_reads([StorageFault::StallAfter(100)]);
    let holder = env.worker(&s.c, &one).await;
    env.publish(&request("holds", "held")).await;
    holder.until_status("\"object_bytes\":100,").await;
    let other = env.worker(&s.c, &one).await;
    env.publish(&request("waits", "held")).await;
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

/// If a result cannot be published, the message is redelivered, and the rerun publishes the recorded outcome. A scheduler
/// publishes the same body every night: each message is a request of its own, and its redelivery is not.
async fn an_unpublished_result_is_published_by_a_rerun_of_its_message(s: &SourceCluster) {
    let env = s.env().await;
    let body = r#"{"backup":{"name":"src.dump"},"target_db":"nightly","on_existing":"replace"}"#;
    let oid = || {
        let query = "SELECT oid FROM pg_database WHERE datname = 'nightly'";
        s.c.psql("postgres", query)
    };
    // The first delivery restores; its result cannot be published, so that there is a second one.
    let running = env
        .worker(&s.c, &[("restore-completion-topic", "missing-topic")])
        .await;
    env.publish(body).await;
    running
        .until_metric("restore_result_publish_failure_total 1")
        .await;
    let first_night = oid();
    let metrics = running.get("/metrics").await.1;
    assert!(!metrics.contains("restore_success_total 1\n"), "{metrics}");
    running.stop().await;
    let next = env.worker(&s.c, &[]).await;
    let first = env.result().await;
    assert_eq!(
        (first.status, oid()),
        (Status::Success, first_night.clone())
    );
    // Neither is an attribute of the message an id: the publisher would repeat it with the body.
    env.publish_with(body, &[("request_id", "nightly")]).await;
    let second = env.result().await;
    assert_eq!((second.status, second.error), (Status::Success, None));
    assert_ne!(oid(), first_night, "not restored again");
    for id in [&first.request_id, &second.request_id] {
        assert!(id.starts_with("message:"), "{id}");
    }
    assert_ne!(first.request_id, second.request_id);
    next.stop().await;
}

/// If the server is unavailable, the message is nacked, and the request succeeds once the server is back.
async fn an_unavailable_server_is_retried(s: &SourceCluster) {
    let env = s.env().await;
    let app = [("retry-budget", "1s"), ("restore-max-attempts", "2")];
    let nowhere = env
        .worker(&s.c, &[("db-host", "/nowhere"), app[0], app[1]])
        .await;
    env.publish(&request("unavailable", "unavailable")).await;
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
async fn a_broken_environment_makes_the_worker_not_ready(s: &SourceCluster) {
    let env = s.env().await;
    let broken = env.worker(&s.c, &[("db-user", "nobody_at_all")]).await;
    env.publish(&request("broken", "broken")).await;
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
    let sound = env.worker(&s.c, &[]).await;
    assert_eq!(env.result().await.status, Status::Success);
    sound.stop().await;
}

/// A message whose attempts keep crashing is answered and acknowledged, whatever it asks for.
async fn a_message_whose_attempts_keep_crashing_is_quarantined(s: &SourceCluster) {
    use pgrestored::emulator::SubscriptionOptions;
    let env = s.env().await;
    // Without a journal, only the number of deliveries shows it.
    s.c.psql("postgres", "CREATE ROLE plain LOGIN CREATEDB");
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
    env.publish(&request("deadly", "crashing")).await;
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
    let running = env.worker(&s.c, &flags).await;
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
    env.publish(&request("harmless", "crashing")).await;
    assert_eq!(env.result().await.status, Status::Success);
    running.stop().await;
}

/// The idempotency record is created once, is not listed as a backup, and answers redeliveries without a journal.
async fn the_idempotency_record_answers_without_a_journal(s: &SourceCluster) {
    let env = s.env().await;
    let place = format!("gs://{BUCKET}/kept");
    let running = env.worker(&s.c, &[("restore-records", &place)]).await;
    env.publish(&request("ops/1", "recorded")).await;
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
        .app(&s.c, &[])
        .manager
        .list_available_backups()
        .await
        .unwrap();
    assert_eq!(
        listed.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["src.dump"]
    );
    // As if the server had been restored from a backup of its own, without the journal and the database.
    s.c.psql(
        "postgres",
        "DROP SCHEMA pgrestored CASCADE; DROP DATABASE recorded",
    );
    env.publish(&request("ops/1", "recorded")).await;
    let again = env.results(1).await.remove(0);
    assert_eq!(again.1.data, first.1.data);
    let is_there = s.c.databases().contains(&"recorded".to_owned());
    assert!(!is_there, "restored twice");
    assert_eq!(env.emulator.storage.get(BUCKET, record).unwrap(), text);
    // A request that is refused does not use up its id.
    env.publish(&request("ops/2", "template1")).await;
    assert_eq!(
        env.result().await.error.unwrap().reason,
        R::TargetNotAllowed
    );
    env.publish(&request("ops/2", "recorded")).await;
    let accepted = env.result().await;
    assert_eq!(accepted.status, Status::Success, "{:?}", accepted.error);
    // The record does not answer another request with the same id.
    env.publish(&request("ops/1", "other")).await;
    assert_eq!(env.result().await.error.unwrap().reason, R::InvalidRequest);
    assert_eq!(env.emulator.storage.get(BUCKET, record).unwrap(), text);
    running.stop().await;
}

//! Robustness of a worker: messages that wait, results that Pub/Sub rejects, queues that do not exist.

use std::sync::Arc;
use std::time::Duration;

use pgrestored::admission::Admission;
use pgrestored::app::App;
use pgrestored::config::{Config, RawConfig};
use pgrestored::event::{Message, RestoreResult, Status};
use pgrestored::queue::{PubSub, QueueError, RequestQueue, ResultSink};
use pgrestored::worker::{Shutdown, Worker, WorkerSettings};

use crate::support::Cluster;
use crate::test_env::{BUCKET, PubSubKind, TIMEOUT, TestEnv, get};

const SUBSCRIPTION: &str = "projects/test/subscriptions/restore-requests";

/// A worker's configuration; the target server is not used.
fn app(env: &TestEnv, more: &[(&str, &str)]) -> App {
    let flags = env.flags();
    let mut all: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
    all.extend([("db-host", "/nowhere"), ("admin-addr", "127.0.0.1:0")]);
    all.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
    all.extend(more);
    App::new(Config::with_queue(&RawConfig::from_flags(&all).unwrap()).unwrap()).unwrap()
}

async fn within<T>(work: impl Future<Output = T>, what: &str) -> T {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// With one permit, a request in its backoff before the nack does not block the next one, however long the backoff
/// is.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_in_its_nack_backoff_holds_no_permit() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    env.emulator
        .storage
        .put(BUCKET, "good.dump", b"PGDMP".to_vec());
    let app = app(
        &env,
        &[("restore-max-concurrent", "1"), ("retry-budget", "10ms")],
    );
    let pubsub = app.pubsub().unwrap();
    let admission = Admission::new(&app.config, "restore-requests").unwrap();
    let hour = Duration::from_secs(3600);
    let settings = WorkerSettings {
        nack_backoff: (hour, hour),
        ..WorkerSettings::new(&app.config, admission)
    };
    let results = Arc::new(pubsub.topic("restore-completions").await.unwrap());
    let worker = Worker::new(app.manager.clone(), results, app.metrics.clone(), settings);
    let requests = Box::new(pubsub.subscribe("restore-requests").await.unwrap());
    let shutdown = Shutdown::default();
    let (run, stop) = (worker.clone(), shutdown.clone());
    let running = tokio::spawn(async move { run.run(requests, None, stop).await });

    // No server answers, so the message is nacked after an hour.
    let waits = |id: &str| {
        format!(r#"{{"request_id":"{id}","backup":{{"name":"good.dump"}},"target_db":"app"}}"#)
    };
    let answered =
        r#"{"request_id":"next","mode":"verify","depth":"object","backup":{"name":"none.dump"}}"#;
    env.publish(&waits("w1")).await;
    env.publish(&waits("w2")).await;
    env.publish(answered).await;
    assert_eq!(
        within(env.result(), "the next request's answer")
            .await
            .request_id,
        "next"
    );
    within(
        env.emulator
            .pubsub
            .until(|p| p.unacked(SUBSCRIPTION) == (0, 2)),
        "two messages wait",
    )
    .await;
    shutdown.soft.cancel();
    within(running, "the end").await.unwrap().unwrap();
    // A stopping worker nacks them at once.
    within(
        env.emulator
            .pubsub
            .until(|p| p.unacked(SUBSCRIPTION) == (2, 0)),
        "both are nacked",
    )
    .await;
}

/// If Pub/Sub rejects the content of a result, a reduced result is published instead of retrying forever.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_pubsub_rejects_is_reduced() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let running = app(&env, &[])
        .start_worker(Shutdown::default())
        .await
        .unwrap();
    let labels = serde_json::json!({ "long": "x".repeat(1000), "team": "a" });
    let body = serde_json::json!({ "request_id": "r1", "mode": "verify", "depth": "object", "labels": labels,
        "backup": { "name": "none.dump" } });
    env.publish(&body.to_string()).await;
    let whole = within(env.result(), "the whole answer").await;
    assert_eq!((whole.labels["team"].as_str(), whole.notes.len()), ("a", 0));
    env.emulator.pubsub.limit_messages(1500);
    env.publish(&body.to_string().replace("r1", "r2")).await;
    let reduced: RestoreResult = within(env.result(), "the reduced answer").await;
    assert_eq!(
        (reduced.request_id.as_str(), reduced.status),
        ("r2", Status::Failure)
    );
    assert_eq!(
        reduced.error.map(|e| e.reason),
        whole.error.map(|e| e.reason)
    );
    assert!(
        reduced.labels.is_empty() && reduced.notes[0].contains("could not be published"),
        "{:?}",
        reduced.notes
    );
    within(
        env.emulator
            .pubsub
            .until(|p| p.delivered(SUBSCRIPTION) == (2, 2)),
        "acknowledged",
    )
    .await;
    drop(running);
}

fn message(data: Vec<u8>, attributes: Vec<(String, String)>) -> Message {
    Message {
        data,
        attributes: attributes.into_iter().collect(),
    }
}

/// Our emulator enforces the limits of Pub/Sub. A message beyond them is rejected without failing others.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_message_beyond_the_limits_is_rejected() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let topic = env.pubsub().topic("restore-completions").await.unwrap();
    let some = |n: usize| {
        (0..n)
            .map(|i| (format!("k{i}"), "v".to_owned()))
            .collect::<Vec<_>>()
    };
    let one = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
    let good = [
        message(b"x".to_vec(), some(100)),
        message(b"x".to_vec(), one(&"k".repeat(256), &"v".repeat(1024))),
        message(vec![b'x'; 9_999_000], vec![]),
    ];
    let refused = [
        message(b"x".to_vec(), some(101)),
        message(b"x".to_vec(), one(&"k".repeat(257), "v")),
        message(b"x".to_vec(), one("k", &"v".repeat(1025))),
        message(b"x".to_vec(), one("googly", "v")),
        message(vec![], vec![]),
        message(vec![b'x'; 10_000_001], vec![]),
    ];
    let sent = good
        .into_iter()
        .map(|m| (m, true))
        .chain(refused.into_iter().map(|m| (m, false)));
    // All at once: none makes another one fail.
    let topic = &topic;
    let answers = sent.map(|(m, is_good)| async move { (topic.publish(m).await, is_good) });
    for (i, (answer, is_good)) in futures::future::join_all(answers)
        .await
        .into_iter()
        .enumerate()
    {
        if is_good {
            assert!(answer.is_ok(), "{i}: {answer:?}")
        } else {
            assert!(
                matches!(answer, Err(QueueError::Refused(_))),
                "{i}: {answer:?}"
            )
        }
    }
}

/// A missing topic or subscription is reported at once, by name and with a fix; once it exists, it is used.
pub async fn a_missing_queue_is_reported(kind: PubSubKind) {
    let Some(env) = TestEnv::start(kind).await else {
        return;
    };
    for (flag, name, what) in [
        (
            "restore-request-subscription",
            "late-requests",
            "subscriptions create late-requests",
        ),
        (
            "restore-completion-topic",
            "late-results",
            "topics create late-results",
        ),
    ] {
        let started = tokio::time::Instant::now();
        // Without a target server, which would keep the worker from being ready.
        let running = app(&env, &[(flag, name), ("db-host", "")])
            .start_worker(Shutdown::default())
            .await
            .unwrap();
        let ready = format!("http://{}/readyz", running.admin);
        let (code, said) = get(&ready).await;
        assert!(
            code == 503 && said.contains(&format!("/{name} does not exist")) && said.contains(what),
            "{said}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{:?}",
            started.elapsed()
        );
        let status: serde_json::Value =
            serde_json::from_str(&get(&ready.replace("readyz", "status.json")).await.1).unwrap();
        assert!(
            status["problems"][0].as_str().unwrap().contains(name),
            "{status}"
        );
        assert_eq!(get(&ready.replace("readyz", "livez")).await.0, 200);
        env.subscription(name).await;
        let is_ready = async {
            while get(&ready).await.0 != 200 {
                crate::support::pause().await;
            }
        };
        within(is_ready, name).await;
        drop(running);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_reported_on_the_emulator() {
    a_missing_queue_is_reported(PubSubKind::Emulator).await;
}

/// The port is closed, or the connection is accepted and never answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_pubsub_that_does_not_answer_is_reported() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for host in [nobody, silent.local_addr().unwrap().to_string()] {
        let running = app(&env, &[("pubsub-emulator-host", &host)])
            .start_worker(Shutdown::default())
            .await
            .unwrap();
        let (code, said) = get(&format!("http://{}/readyz", running.admin)).await;
        assert!(
            code == 503 && said.contains("restore-requests cannot be reached"),
            "{said}"
        );
        assert!(
            said.contains("restore-completions cannot be reached"),
            "{said}"
        );
        assert_eq!(get(&format!("http://{}/livez", running.admin)).await.0, 200);
        drop(running);
    }
}

/// A target server that does not respond is named in readiness and keeps the worker alive; one that comes back makes it
/// ready again.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_server_that_does_not_respond_is_reported() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let host = folder.path().to_str().unwrap();
    let running = app(&env, &[("db-host", host)])
        .start_worker(Shutdown::default())
        .await
        .unwrap();
    let url = format!("http://{}", running.admin);
    let ready = format!("{url}/readyz");
    let becomes = async |expected: u16| {
        while get(&ready).await.0 != expected {
            crate::support::pause().await;
        }
    };
    within(becomes(503), "not ready").await;
    let said = get(&ready).await.1;
    assert!(
        said.contains(&format!("target server {host}:5432 cannot be reached")),
        "{said}"
    );
    assert!(said.contains("DB_HOST and DB_PORT (not set)"), "{said}");
    assert_eq!(get(&format!("{url}/livez")).await.0, 200);
    let socket = ".s.PGSQL.5432";
    let of_cluster = std::path::Path::new(c.sandbox.host()).join(socket);
    std::os::unix::fs::symlink(of_cluster, folder.path().join(socket)).unwrap();
    within(becomes(200), "ready").await;
    drop(running);
}

/// If a subscription is deleted while a worker runs, its stream reports that, even if lookups are not allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reports_a_missing_subscription_too() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let pubsub: PubSub = env.pubsub();
    let health = pubsub.health();
    let mut queue = pubsub.subscribe("nowhere").await.unwrap();
    let said = async {
        while health.problems().is_empty() {
            crate::support::pause().await;
        }
    };
    within(said, "a word").await;
    assert!(health.problems()[0].contains("projects/test/subscriptions/nowhere does not exist"));
    env.subscription("nowhere").await;
    env.pubsub()
        .topic("nowhere")
        .await
        .unwrap()
        .publish(message(b"x".to_vec(), vec![]))
        .await
        .unwrap();
    within(queue.next(), "a message")
        .await
        .unwrap()
        .lease
        .ack()
        .await
        .unwrap();
    assert_eq!(health.problems(), Vec::<String>::new());
}

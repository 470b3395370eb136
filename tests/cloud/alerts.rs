//! The whole alerting chain: worker → Prometheus → Alertmanager → webhook, with the deployed rules, routes and
//! dashboard; only their intervals are shortened.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgrestored::event::Status;
use serde_json::Value;

use crate::support::Cluster;
use crate::test_env::{BUCKET, PubSubKind, TestEnv, get, http};

const TIMEOUT: Duration = Duration::from_secs(60);

/// A daemon that is stopped when dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Starts the first of these programs that is installed; `None`, with a message, if none is.
fn daemon(names: &[&str], args: &[String]) -> Option<Daemon> {
    for name in names {
        let mut command = Command::new(name);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Ok(child) = command.spawn() {
            return Some(Daemon(child));
        }
    }
    crate::support::tools::skip(&names.join(" or "));
    None
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(TIMEOUT, found)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {TIMEOUT:?}"))
}

/// What the webhook received: path, Authorization, alert.
#[derive(Clone, Default)]
struct Webhook(Arc<Mutex<Vec<(String, String, Value)>>>);

impl Webhook {
    async fn start(&self) -> String {
        let received = self.0.clone();
        let routes = axum::Router::new().fallback(
            move |uri: axum::http::Uri, headers: axum::http::HeaderMap, body: String| async move {
                let body: Value = serde_json::from_str(&body).unwrap();
                let by = headers["authorization"].to_str().unwrap().to_owned();
                let alerts = body["alerts"].as_array().unwrap().clone();
                let mut received = received.lock().unwrap();
                received.extend(
                    alerts
                        .into_iter()
                        .map(|a| (uri.path().to_owned(), by.clone(), a)),
                );
            },
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }

    async fn alert(&self, path: &str, name: &str, status: &str) -> Value {
        let look = async || {
            let received = self.0.lock().unwrap();
            let fits = |a: &Value| a["labels"]["alertname"] == name && a["status"] == status;
            let found = received.iter().find(|(to, _, a)| to == path && fits(a));
            found.map(|(_, by, alert)| {
                assert_eq!(by, "Bearer secret");
                alert.clone()
            })
        };
        until(&format!("{name} {status} at {path}"), look).await
    }
}

struct Stack {
    prometheus: String,
    alertmanager: String,
    webhook: Webhook,
    _daemons: [Daemon; 2],
    _folder: tempfile::TempDir,
}

impl Stack {
    /// Starts Prometheus and Alertmanager with the deployed configuration, scraping a worker at `admin`.
    async fn start(admin: std::net::SocketAddr) -> Option<Self> {
        let (folder, webhook) = (tempfile::tempdir().unwrap(), Webhook::default());
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let place = |from: PathBuf, edits: &[(&str, &str)]| {
            let mut text = std::fs::read_to_string(&from).unwrap();
            for (old, new) in edits {
                assert!(text.contains(old), "{}: no {old}", from.display());
                text = text.replace(old, new);
            }
            let to = folder.path().join(from.file_name().unwrap());
            std::fs::write(&to, text).unwrap();
            to.display().to_string()
        };
        let (hook, token) = (
            webhook.start().await,
            folder.path().join("token").display().to_string(),
        );
        std::fs::write(&token, "secret").unwrap();
        let routes = place(
            deploy.join("alertmanager/alertmanager.yml"),
            &[
                ("http://alerts.internal", &hook),
                ("/etc/alertmanager/secrets/pager-token", &token),
                ("/etc/alertmanager/secrets/chat-token", &token),
                ("group_wait: 30s", "group_wait: 1s"),
                ("group_wait: 5s", "group_wait: 1s"),
                ("group_interval: 5m", "group_interval: 1s"),
            ],
        );
        let (ours, theirs) = (free_port(), free_port());
        let alertmanager = daemon(
            &["prometheus-alertmanager", "alertmanager"],
            &[
                format!("--config.file={routes}"),
                format!(
                    "--storage.path={}",
                    folder.path().join("alertmanager").display()
                ),
                format!("--web.listen-address=127.0.0.1:{theirs}"),
                "--cluster.listen-address=".to_owned(),
            ],
        )?;
        place(
            deploy.join("prometheus/restore.rules.yml"),
            &[("[1h]", "[15s]"), ("- 3600", "- 15")],
        );
        place(
            deploy.join("prometheus/restore.alerts.yml"),
            &[("seconds > 3600", "seconds > 2"), ("for: 5m", "for: 0s")],
        );
        for name in [
            "proof.alerts.yml",
            "worker.alerts.yml",
            "standing.alerts.yml",
        ] {
            place(deploy.join("prometheus").join(name), &[]);
        }
        let config = place(
            deploy.join("prometheus/prometheus.yml"),
            &[
                ("_interval: 15s", "_interval: 1s"),
                ("worker:9464", &admin.to_string()),
                ("alertmanager:9093", &format!("127.0.0.1:{theirs}")),
            ],
        );
        let prometheus = daemon(
            &["prometheus"],
            &[
                format!("--config.file={config}"),
                format!(
                    "--storage.tsdb.path={}",
                    folder.path().join("tsdb").display()
                ),
                format!("--web.listen-address=127.0.0.1:{ours}"),
            ],
        )?;
        let stack = Stack {
            prometheus: format!("http://127.0.0.1:{ours}"),
            alertmanager: format!("http://127.0.0.1:{theirs}"),
            webhook,
            _daemons: [alertmanager, prometheus],
            _folder: folder,
        };
        let scraped = async || (!stack.query("up == 1").await?.is_empty()).then_some(());
        until("the worker is scraped", scraped).await;
        Some(stack)
    }

    /// Waits until Alertmanager inhibits an alert because of another one.
    async fn until_inhibited(&self, name: &str) {
        let inhibited = async || {
            let answer = http()
                .get(format!("{}/api/v2/alerts", self.alertmanager))
                .send()
                .await
                .ok()?;
            let alerts: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
            let found = alerts
                .as_array()?
                .iter()
                .find(|a| a["labels"]["alertname"] == name)?;
            (!found["status"]["inhibitedBy"].as_array()?.is_empty()).then_some(())
        };
        until(&format!("{name} is inhibited"), inhibited).await;
    }

    /// The current result of a query; `None` while Prometheus does not answer.
    async fn query(&self, expr: &str) -> Option<Vec<Value>> {
        let encoded: String = expr.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = http()
            .get(format!("{}/api/v1/query?query={encoded}", self.prometheus))
            .send()
            .await
            .ok()?;
        let body: Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
        assert!(
            body["status"] == "success" || body["errorType"] == "unavailable",
            "{expr}: {body}"
        );
        body["data"]["result"].as_array().cloned()
    }
}

/// Checks that every query of the dashboard finds series among those that this worker has exported.
async fn check_dashboard_queries(stack: &Stack) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/pgrestored.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    // Metrics of Pub/Sub, which the worker does not export.
    let pubsub_metrics = [
        "restore:oldest_request:seconds",
        "restore:dead_lettered:count",
    ];
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let mut expr = target["expr"].as_str().unwrap().to_owned();
            if pubsub_metrics.contains(&expr.as_str()) {
                continue;
            }
            for (variable, value) in [
                ("$job", ".*"),
                ("$namespace", ".*"),
                ("$__range", "1m"),
                ("$__rate_interval", "10s"),
            ] {
                expr = expr.replace(variable, value);
            }
            // The events happened seconds ago, so a shorter window is enough.
            let expr = expr.replace("[1h]", "[1m]");
            let look = async || (!stack.query(&expr).await?.is_empty()).then_some(());
            until(&format!("{}: {expr}", panel["title"]), look).await;
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
}

/// A file with an order that restores nothing here, and had a run that failed before one that did not.
fn order_without_backups(env: &TestEnv, c: &Cluster) -> String {
    let now = jiff::Timestamp::now();
    for (outcome, seconds) in [("failure", 60), ("success", 30)] {
        let run = serde_json::json!({ "run": {
            "order": "fresh",
            "outcome": outcome,
            "request_id": "standing/fresh/1",
            "generation": "1",
            "finished_at": now - jiff::SignedDuration::from_secs(seconds),
        }});
        let name = format!("standing.pgrestored/fresh/{outcome}-1.json");
        env.emulator
            .storage
            .put(BUCKET, &name, run.to_string().into_bytes());
    }
    let file = c.scratch("standing.yaml");
    let order = "{ name: fresh, prefix: nothing/, when: finalized, target: fresh }";
    std::fs::write(&file, format!("version: 1\norders: [{order}]\n")).unwrap();
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_pages_a_long_restore_warns_and_both_alerts_resolve() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE TABLE t (v text); INSERT INTO t SELECT md5(i::text) FROM generate_series(1, 5000) i",
    );
    let dump = std::fs::read(c.dump_through_pipe("src", &[])).unwrap();
    let size = dump.len() as u64;
    env.emulator.storage.put(BUCKET, "src.dump", dump);
    let orders = order_without_backups(&env, &c);
    let running = env
        .worker(&c, &[("standing-restores", orders.as_str())])
        .await;
    let Some(stack) = Stack::start(running.worker.admin).await else {
        return;
    };

    // The first failure of this worker: the alert must fire although the counter's series is new.
    let asked = tokio::time::Instant::now();
    env.publish(r#"{"request_id":"none","backup":{"name":"none.dump"},"target_db":"app"}"#)
        .await;
    let alert = stack
        .webhook
        .alert("/pager", "RestoreFailure", "firing")
        .await;
    eprintln!(
        "the pager was alerted {:.1} s after the request",
        asked.elapsed().as_secs_f64()
    );
    assert_eq!(alert["labels"]["failure_reason"], "backup_not_found");
    assert!(
        alert["annotations"]["runbook_url"]
            .as_str()
            .unwrap()
            .ends_with("/RestoreFailure.md")
    );
    assert_eq!(env.result().await.status, Status::Failure);
    // One of one restores failed, so the rate alert fires too, but RestoreFailure inhibits it.
    stack.until_inhibited("HighRestoreFailureRate").await;

    for (id, more) in [
        ("proof", r#""mode":"verify""#),
        ("quick", r#""target_db":"app""#),
    ] {
        env.publish(&format!(
            r#"{{"request_id":"{id}","backup":{{"name":"src.dump"}},{more}}}"#
        ))
        .await;
        assert_eq!(env.result().await.status, Status::Success, "{id}");
    }

    // At this rate the restore would take a day.
    env.emulator.storage.limit_rate(size / 86_400 + 1);
    env.publish(r#"{"request_id":"slow","backup":{"name":"src.dump"},"target_db":"slow"}"#)
        .await;
    stack
        .webhook
        .alert("/chat", "LongRunningRestore", "firing")
        .await;
    let status: Value = serde_json::from_str(
        &get(&format!("http://{}/status.json", running.worker.admin))
            .await
            .1,
    )
    .unwrap();
    assert_eq!(status["running"][0]["request_id"], "slow");
    check_dashboard_queries(&stack).await;

    env.emulator.storage.limit_rate(0);
    assert_eq!(env.result().await.status, Status::Success);
    stack
        .webhook
        .alert("/chat", "LongRunningRestore", "resolved")
        .await;
    stack
        .webhook
        .alert("/pager", "RestoreFailure", "resolved")
        .await;
    running.stop().await;
}

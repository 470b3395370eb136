//! The test environment: our emulator, Google's Pub/Sub emulator, and a worker connected to them and a cluster.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use pgrestored::app::{App, RunningWorker};
use pgrestored::emulator::Emulator;
use pgrestored::event::RestoreResult;
use pgrestored::job::{BackupRef, OnExisting, RestoreJob};
use pgrestored::manager::JobOutcome;
use pgrestored::queue::{Delivery, PubSub, PubSubConfig, RequestQueue, ResultSink};
use pgrestored::worker::Shutdown;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, assert_same, job};

pub const BUCKET: &str = "test-backups";
pub const TIMEOUT: Duration = Duration::from_secs(100);

/// Google's emulator; stopped when dropped. Its start takes seconds of processor time.
pub struct GoogleEmulator {
    child: Child,
    host: String,
}

impl Drop for GoogleEmulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl GoogleEmulator {
    /// The one that this process runs now, or a new one. Environments that share it have different projects.
    pub async fn shared() -> Option<Arc<Self>> {
        static RUNNING: tokio::sync::Mutex<Weak<GoogleEmulator>> =
            tokio::sync::Mutex::const_new(Weak::new());
        let mut running = RUNNING.lock().await;
        if let Some(emulator) = running.upgrade() {
            return Some(emulator);
        }
        let emulator = Arc::new(GoogleEmulator::start().await?);
        *running = Arc::downgrade(&emulator);
        Some(emulator)
    }

    async fn start() -> Option<Self> {
        let launcher = crate::support::tools::installed("pubsub-emulator")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        // It runs for less than a minute, which the optimizing compiler and the parallel collector do not repay.
        let options = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC";
        let child = Command::new(launcher)
            .args(["--host=127.0.0.1", &format!("--port={port}")])
            .env("JAVA_OPTS", options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let emulator = GoogleEmulator {
            child,
            host: format!("127.0.0.1:{port}"),
        };
        let url = format!("http://{}/", emulator.host);
        let up = async {
            while http().get(&url).send().await.is_err() {
                crate::support::pause().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), up)
            .await
            .expect("Google's emulator did not start in time");
        Some(emulator)
    }
}

/// A cluster with a database `src`, and its dump. Cases that share them have emulators of their own, and request ids and
/// targets that no other case has, because the server's journal knows both.
pub struct SourceCluster {
    pub c: Cluster,
    /// Written through a pipe: without data offsets.
    pub dump: Vec<u8>,
    content: OnceLock<String>,
    table: OnceLock<String>,
}

/// The number of rows of [`SourceCluster::new`].
pub const ROWS: u64 = 5000;

impl SourceCluster {
    pub fn new() -> Self {
        Self::of(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, v text);
             INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, {ROWS}) i;
             CREATE INDEX ON t (v)"
        ))
    }

    pub fn of(sql: &str) -> Self {
        let c = Cluster::start();
        c.create("src", sql);
        let dump = c.dump("src", &["-Fc"]);
        SourceCluster {
            c,
            dump,
            content: OnceLock::new(),
            table: OnceLock::new(),
        }
    }

    /// Our emulator, with the dump in the bucket as `src.dump`.
    pub async fn env(&self) -> TestEnv {
        self.env_of(PubSubKind::Emulator).await.unwrap()
    }

    /// The same with either Pub/Sub; `None` if it is not installed.
    pub async fn env_of(&self, kind: PubSubKind) -> Option<TestEnv> {
        let env = TestEnv::start(kind).await?;
        let storage = &env.emulator.storage;
        storage.put(BUCKET, "src.dump", self.dump.clone());
        Some(env)
    }

    /// Our emulator, from which the dump takes this long to download.
    pub async fn slow_env(&self, seconds: u64) -> TestEnv {
        let env = self.env().await;
        let rate = self.dump.len() as u64 / seconds;
        env.emulator.storage.limit_rate(rate);
        env
    }

    /// The whole source, as `Cluster::content` gives it.
    pub fn content(&self) -> &str {
        self.content.get_or_init(|| self.c.content("src", &[]))
    }

    /// Checks that a database has everything that the source has.
    pub fn assert_restored(&self, database: &str) {
        assert_same(&self.c.content(database, &[]), self.content(), database);
    }

    /// Checks that a database has the rows and the indexes of [`SourceCluster::new`]. To compare all that `pg_dump` writes, which
    /// one test of each kind of restore does, takes ten times as long.
    pub fn assert_table(&self, database: &str) {
        const TABLE: &str = "SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)),
            (SELECT string_agg(indexdef, ',' ORDER BY indexdef) FROM pg_indexes WHERE tablename = 't') FROM t";
        let wanted = self.table.get_or_init(|| self.c.psql("src", TABLE));
        assert_eq!(self.c.psql(database, TABLE), *wanted, "{database}");
    }
}

/// Which Pub/Sub implementation to test against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PubSubKind {
    Emulator,
    Google,
}

pub struct TestEnv {
    pub emulator: Emulator,
    google: Option<Arc<GoogleEmulator>>,
    pub project: String,
}

impl TestEnv {
    /// `None`, with a message, if Google's emulator is requested but not installed.
    pub async fn start(kind: PubSubKind) -> Option<Self> {
        let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (google, project) = match kind {
            PubSubKind::Emulator => (None, "test".to_owned()),
            PubSubKind::Google => {
                static PROJECTS: AtomicU32 = AtomicU32::new(1);
                let nth = PROJECTS.fetch_add(1, Ordering::Relaxed);
                (Some(GoogleEmulator::shared().await?), format!("test-{nth}"))
            }
        };
        let env = TestEnv {
            emulator,
            google,
            project,
        };
        for name in ["restore-requests", "restore-completions"] {
            env.subscription(name).await;
        }
        Some(env)
    }

    /// A topic with a subscription of the same name.
    pub async fn subscription(&self, name: &str) {
        self.put(&format!("topics/{name}"), serde_json::json!({}))
            .await;
        let topic = format!("projects/{}/topics/{name}", self.project);
        let body = serde_json::json!({ "topic": topic, "ackDeadlineSeconds": 10 });
        self.put(&format!("subscriptions/{name}"), body).await;
    }

    pub fn pubsub_host(&self) -> String {
        self.google
            .as_ref()
            .map_or_else(|| self.emulator.host(), |g| g.host.clone())
    }

    async fn put(&self, resource: &str, body: serde_json::Value) {
        let (host, project) = (self.pubsub_host(), &self.project);
        let url = format!("http://{host}/v1/projects/{project}/{resource}");
        let request = http()
            .put(url)
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = request.send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{resource}: {}",
            answer.text().await.unwrap()
        );
    }

    pub fn flags(&self) -> Vec<(&'static str, String)> {
        vec![
            ("backup-bucket", BUCKET.to_owned()),
            ("google-cloud-project", self.project.clone()),
            ("pubsub-emulator-host", self.pubsub_host()),
            ("storage-emulator-host", self.emulator.host()),
            ("restore-lease-extension", "10s".to_owned()),
        ]
    }

    pub fn app(&self, c: &Cluster, more: &[(&str, &str)]) -> App {
        let flags = self.flags();
        let mut all: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
        all.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        all.extend(more);
        c.app(&all)
    }

    pub async fn worker(&self, c: &Cluster, more: &[(&str, &str)]) -> TestWorker {
        let (app, shutdown) = (self.app(c, more), Shutdown::default());
        let worker = app.start_worker(shutdown.clone()).await.unwrap();
        TestWorker { shutdown, worker }
    }

    pub fn pubsub(&self) -> PubSub {
        PubSub::new(PubSubConfig {
            project: self.project.clone(),
            emulator: Some(format!("http://{}", self.pubsub_host())),
            max_lease: Duration::from_secs(600),
            concurrency: 10,
            lease_extension: Duration::from_secs(10),
            idle_recycle: Duration::from_secs(300),
        })
    }

    pub async fn publish(&self, body: &str) {
        self.publish_with(body, &[]).await;
    }

    pub async fn publish_with(&self, body: &str, attributes: &[(&str, &str)]) {
        let attributes = attributes
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        let message = pgrestored::event::Message {
            data: body.as_bytes().to_vec(),
            attributes,
        };
        self.pubsub()
            .topic("restore-requests")
            .await
            .unwrap()
            .publish(message)
            .await
            .unwrap();
    }

    /// The next `count` result events, acknowledged.
    pub async fn results(&self, count: usize) -> Vec<(RestoreResult, Event)> {
        let mut queue = self
            .pubsub()
            .subscribe("restore-completions")
            .await
            .unwrap();
        let mut out = Vec::new();
        let all = async {
            while out.len() < count {
                let Delivery {
                    data,
                    attributes,
                    lease,
                    ..
                } = queue.next().await.unwrap();
                out.push((
                    serde_json::from_slice(&data).unwrap(),
                    Event { attributes, data },
                ));
                lease.ack().await.unwrap();
            }
        };
        tokio::time::timeout(TIMEOUT, all)
            .await
            .expect("the results did not arrive in time");
        queue.close().await;
        queue.flush().await;
        out
    }

    pub async fn result(&self) -> RestoreResult {
        self.results(1).await.remove(0).0
    }
}

/// The raw message of a result event.
pub struct Event {
    pub attributes: std::collections::HashMap<String, String>,
    pub data: Vec<u8>,
}

/// A worker in this process, and what stops it.
pub struct TestWorker {
    pub shutdown: Shutdown,
    pub worker: RunningWorker,
}

impl TestWorker {
    pub async fn get(&self, path: &str) -> (u16, String) {
        get(&format!("http://{}{path}", self.worker.admin)).await
    }

    /// Waits until `/metrics` contains this line.
    pub async fn until_metric(&self, line: &str) {
        let has_line = |text: &str| text.lines().any(|l| l == line);
        self.until_page("/metrics", line, has_line).await;
    }

    /// Waits until `/metrics` has another value than this line's.
    pub async fn until_other_metric(&self, line: &str) {
        let has_other = |text: &str| text.lines().all(|l| l != line);
        let what = format!("other value than {line}");
        self.until_page("/metrics", &what, has_other).await;
    }

    /// Waits until `/status.json` contains this text.
    pub async fn until_status(&self, part: &str) {
        let has_part = |text: &str| text.contains(part);
        self.until_page("/status.json", part, has_part).await;
    }

    async fn until_page(&self, path: &str, what: &str, is_there: impl Fn(&str) -> bool) {
        let mut last = self.get(path).await.1;
        let there = async {
            while !is_there(&last) {
                crate::support::pause().await;
                last = self.get(path).await.1;
            }
        };
        if tokio::time::timeout(TIMEOUT, there).await.is_err() {
            panic!("{path} has no {what}:\n{last}");
        }
    }

    /// Stops the worker gracefully and waits for its end.
    pub async fn stop(self) {
        self.shutdown.soft.cancel();
        tokio::time::timeout(TIMEOUT, self.worker.ended())
            .await
            .expect("the worker did not stop in time")
            .unwrap();
    }
}

/// One client for all requests of a test: each new one parses the certificates of this machine, which takes longer
/// than a request. It keeps no connections, since the servers of a test come and go.
pub fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0);
        client.build().unwrap()
    })
}

pub async fn get(url: &str) -> (u16, String) {
    let answer = http().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Restores a backup of the bucket into a new database.
pub async fn restore(app: &App, backup: &str, target: &str) -> JobOutcome {
    let job = RestoreJob {
        backup: BackupRef::parse(backup, "").unwrap(),
        ..job("/x".as_ref(), target, OnExisting::Fail)
    };
    app.manager
        .run(&job, Arc::default(), CancellationToken::new())
        .await
}

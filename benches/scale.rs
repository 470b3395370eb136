//! `make bench`, third part: several workers on one subscription. Measured are the throughput by number of workers,
//! with reads as slow as a bucket's; that no restore runs twice; how long until another worker takes over a killed
//! worker's job; and how K restores into K targets share one server that is the bottleneck.
//!
//! `BENCH_WORKERS` (1,2,4,8,16,32), `BENCH_REQUESTS` (6 per worker). Results: `target/bench/scale.json`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgrestored::emulator::{Emulator, SubscriptionOptions};
use pgrestored::sandbox::{Sandbox, find_bindir};
use serde_json::Value;
use shared::{OURS, env_or, make_dump, median, open_to_all};

mod shared;

const BUCKET: &str = "bench";
/// The shortest lease that Pub/Sub allows.
const LEASE: Duration = Duration::from_secs(10);
/// How long one read of the object takes at least, so that each restore mostly waits.
const READ_SECONDS: f64 = 4.0;
const TAKEOVERS: usize = 5;
/// Number of rows of the backup that keeps a server busy.
const SHARED_ROWS: u64 = 200_000;
const SHARED_ROUNDS: usize = 3;

#[derive(Debug, serde::Serialize)]
struct ScaleRow {
    workers: usize,
    requests: usize,
    seconds: f64,
    restores_a_minute: f64,
    /// Relative to one worker.
    speedup: f64,
    /// Restores that the workers counted; must equal the number of requests.
    restored: u64,
    redeliveries: u64,
    cpu_busy: f64,
}

/// Restores that start together on one server, which is the only bottleneck.
#[derive(Debug, serde::Serialize)]
struct SharedServerRow {
    workers: usize,
    restores_a_minute: f64,
    /// Relative to one worker.
    speedup: f64,
    slowest_of_fastest: f64,
    /// Jain's index of the rates: 1 if all have the same share.
    fairness: f64,
}

struct WorkerProcess {
    child: Child,
    admin: String,
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The environment that all measurements share.
struct BenchEnv {
    emulator: Emulator,
    server: Sandbox,
    runtime: tokio::runtime::Runtime,
}

fn main() {
    // Under `cargo test --benches` nothing is measured.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let counts: Vec<usize> = env_or("BENCH_WORKERS", "1,2,4,8,16,32")
        .split(',')
        .map(|n| n.parse().expect("BENCH_WORKERS"))
        .collect();
    let requests: usize = env_or("BENCH_REQUESTS", "6")
        .parse()
        .expect("BENCH_REQUESTS");
    let bindir = find_bindir(&[]).expect("a PostgreSQL server: make setup");
    let scratch = std::env::temp_dir().join(format!("pgrestored-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("failed to create the folder for the dump");
    open_to_all(&scratch);
    let dump = make_dump(
        &bindir,
        &scratch,
        "events",
        include_str!("events.sql"),
        60_000,
    );
    let size = std::fs::metadata(&dump).expect("the dump").len();

    let runtime = tokio::runtime::Runtime::new().expect("failed to start a runtime");
    let emulator = runtime
        .block_on(Emulator::start(([127, 0, 0, 1], 0).into()))
        .expect("the emulator");
    for name in ["restore-requests", "restore-completions"] {
        let options = SubscriptionOptions {
            exactly_once: true,
            ..SubscriptionOptions::default()
        };
        let full = |kind: &str| format!("projects/bench/{kind}/{name}");
        emulator
            .pubsub
            .create_subscription(&full("topics"), &full("subscriptions"), options);
    }
    emulator
        .storage
        .put_file(BUCKET, "events.dump", dump)
        .expect("the object");
    let large = make_dump(
        &bindir,
        &scratch,
        "large",
        include_str!("events.sql"),
        SHARED_ROWS,
    );
    emulator
        .storage
        .put_file(BUCKET, "large.dump", large)
        .expect("the object");
    let options = "-c autovacuum=off -c jit=off -c max_connections=200";
    let server = Sandbox::start(&bindir, &std::env::temp_dir(), false, options)
        .expect("failed to start the target cluster");
    let env = BenchEnv {
        emulator,
        server,
        runtime,
    };

    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    println!(
        "machine: {cores} cores; object of {:.1} MB, read in {READ_SECONDS} s at least",
        size as f64 / 1e6
    );
    let rate = (size as f64 / READ_SECONDS) as u64;
    env.emulator.storage.limit_rate_each(rate);
    let mut rows: Vec<ScaleRow> = Vec::new();
    for workers in counts {
        let mut row = env.throughput(workers, workers * requests);
        row.speedup = row.restores_a_minute
            / rows
                .first()
                .map_or(row.restores_a_minute, |r| r.restores_a_minute);
        println!(
            "{} workers: {} requests in {:.1} s, {:.0} a minute ({:.2} times one worker); {} restored, {} redelivered; cores {:.0} % busy",
            row.workers,
            row.requests,
            row.seconds,
            row.restores_a_minute,
            row.speedup,
            row.restored,
            row.redeliveries,
            row.cpu_busy * 100.0
        );
        assert_eq!(
            row.restored, row.requests as u64,
            "a restore ran twice, or not at all"
        );
        rows.push(row);
    }
    env.emulator.storage.limit_rate_each(0);
    let mut shares: Vec<SharedServerRow> = vec![];
    for workers in [1, 2, 4, 8] {
        let mut row = env.share(workers);
        row.speedup = row.restores_a_minute
            / shares
                .first()
                .map_or(row.restores_a_minute, |r| r.restores_a_minute);
        println!(
            "{} restores at once on one server: {:.1} a minute ({:.2} times one), slowest {:.2} times the fastest, fairness {:.3}",
            row.workers, row.restores_a_minute, row.speedup, row.slowest_of_fastest, row.fairness
        );
        shares.push(row);
    }
    env.emulator.storage.limit_rate_each(rate);
    let takeovers: Vec<f64> = (0..TAKEOVERS).map(|i| env.takeover(i)).collect();
    println!(
        "a killed worker's job is another's after {:.1} s (median of {TAKEOVERS}, longest {:.1} s); lease {} s",
        median(takeovers.clone()),
        takeovers.iter().copied().fold(0.0, f64::max),
        LEASE.as_secs()
    );
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&out).expect("target/bench");
    let json = serde_json::json!({ "cores": cores, "rows": rows, "shared_server": shares, "takeover_seconds": takeovers });
    std::fs::write(out.join("scale.json"), format!("{json:#}\n")).expect("results");
    let _ = std::fs::remove_dir_all(&scratch);
}

/// Jiffies of all cores: busy, and total.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let n: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .flat_map(str::parse)
        .collect();
    let (all, idle): (f64, f64) = (n.iter().take(8).sum(), n.iter().skip(3).take(2).sum());
    (all - idle, all)
}

impl BenchEnv {
    fn worker(&self) -> WorkerProcess {
        let host = self.emulator.host();
        let mut command = Command::new(OURS);
        command.args([
            "worker",
            "--backup-bucket",
            BUCKET,
            "--google-cloud-project",
            "bench",
        ]);
        command.args([
            "--pubsub-emulator-host",
            &host,
            "--storage-emulator-host",
            &host,
        ]);
        command.args([
            "--db-host",
            self.server.host(),
            "--admin-addr",
            "127.0.0.1:0",
            "--restore-jobs",
            "2",
        ]);
        command.args(["--restore-lease-extension", "10s", "--log-format", "json"]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("a worker");
        let mut log = BufReader::new(child.stderr.take().expect("stderr"));
        let admin = loop {
            let mut line = String::new();
            assert!(
                log.read_line(&mut line).expect("the log") > 0,
                "the worker ended"
            );
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(admin) = line["admin"].as_str() {
                break admin.to_owned();
            }
        };
        // Keep reading: a full pipe would block the worker.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        WorkerProcess { child, admin }
    }

    fn ask(&self, backup: &str, id: &str, target: &str) {
        let body = serde_json::json!({ "request_id": id, "backup": { "name": backup }, "target_db": target });
        let topic = "projects/bench/topics/restore-requests";
        self.emulator
            .pubsub
            .publish(topic, body.to_string().as_bytes(), Default::default())
            .expect("the topic");
    }

    /// Result events so far whose request id begins with `of`.
    fn answers(&self, of: &str) -> Vec<Value> {
        let published = self
            .emulator
            .pubsub
            .published("projects/bench/topics/restore-completions");
        let results = published
            .iter()
            .filter_map(|p| serde_json::from_slice::<Value>(&p.data).ok());
        results
            .filter(|r| {
                r["request_id"]
                    .as_str()
                    .is_some_and(|id| id.starts_with(of))
            })
            .collect()
    }

    fn get(&self, url: &str) -> String {
        self.runtime.block_on(async {
            reqwest::get(url)
                .await
                .expect("a worker")
                .text()
                .await
                .expect("its answer")
        })
    }

    fn throughput(&self, count: usize, requests: usize) -> ScaleRow {
        let workers: Vec<WorkerProcess> = (0..count).map(|_| self.worker()).collect();
        let (begun, before) = (Instant::now(), cpu());
        let of = format!("w{count}-");
        (0..requests)
            .for_each(|i| self.ask("events.dump", &format!("{of}{i}"), &format!("w{count}_{i}")));
        self.await_answers(&of, requests);
        let (seconds, after) = (begun.elapsed().as_secs_f64(), cpu());
        let sum = |name: &str| -> u64 {
            let of = |w: &WorkerProcess| {
                let text = self.get(&format!("http://{}/metrics", w.admin));
                let value = text
                    .lines()
                    .find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
                value.expect("the metric")
            };
            workers.iter().map(of).sum()
        };
        let row = ScaleRow {
            workers: count,
            requests,
            seconds,
            restores_a_minute: requests as f64 / seconds * 60.0,
            speedup: 1.0,
            restored: sum("restore_success_total "),
            redeliveries: sum("restore_redeliveries_total "),
            cpu_busy: (after.0 - before.0) / (after.1 - before.1),
        };
        drop(workers);
        (0..requests).for_each(|i| self.drop_database(&format!("w{count}_{i}")));
        row
    }

    fn drop_database(&self, name: &str) {
        let drop = format!("DROP DATABASE {name}");
        self.server
            .run(self.server.command("psql").args(["-X", "-q", "-c", &drop]))
            .expect("dropped");
    }

    /// Waits until this many requests have succeeded.
    fn await_answers(&self, of: &str, requests: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let answers = self.answers(of);
            if answers.len() >= requests {
                assert!(
                    answers.iter().all(|r| r["status"] == "success"),
                    "a restore failed"
                );
                return answers;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(600),
                "not all were answered"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs as many restores as workers, into as many targets, for some rounds.
    fn share(&self, count: usize) -> SharedServerRow {
        let workers: Vec<WorkerProcess> = (0..count).map(|_| self.worker()).collect();
        let (mut seconds, mut spread, mut fairness) = (vec![], vec![], vec![]);
        for round in 0..SHARED_ROUNDS {
            let of = format!("shared{count}-{round}-");
            let begun = Instant::now();
            for i in 0..count {
                self.ask(
                    "large.dump",
                    &format!("{of}{i}"),
                    &format!("shared{count}_{round}_{i}"),
                );
            }
            let answers = self.await_answers(&of, count);
            seconds.push(begun.elapsed().as_secs_f64());
            let rates: Vec<f64> = answers
                .iter()
                .filter_map(|r| r["duration_seconds"].as_f64())
                .map(|s| 1.0 / s)
                .collect();
            let (sum, squares): (f64, f64) =
                (rates.iter().sum(), rates.iter().map(|r| r * r).sum());
            let [least, most] =
                [f64::min, f64::max].map(|f| rates.iter().copied().reduce(f).expect("rates"));
            spread.push(most / least);
            fairness.push(sum * sum / (rates.len() as f64 * squares));
            (0..count).for_each(|i| self.drop_database(&format!("shared{count}_{round}_{i}")));
        }
        drop(workers);
        SharedServerRow {
            workers: count,
            restores_a_minute: count as f64 / median(seconds) * 60.0,
            speedup: 1.0,
            slowest_of_fastest: median(spread),
            fairness: median(fairness),
        }
    }

    fn runs(&self, w: &WorkerProcess, id: &str) -> bool {
        let status: Value =
            serde_json::from_str(&self.get(&format!("http://{}/status.json", w.admin)))
                .unwrap_or_default();
        status["running"].as_array().is_some_and(|all| {
            all.iter()
                .any(|j| j["request_id"] == id && j["progress"]["stage"] == "data")
        })
    }

    /// Seconds from killing a worker in the middle of a restore until another one loads the backup.
    fn takeover(&self, i: usize) -> f64 {
        let (first, id) = (self.worker(), format!("takeover-{i}"));
        self.ask("events.dump", &id, &format!("takeover_{i}"));
        while !self.runs(&first, &id) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = self.worker();
        // Takeover is slowest right after a lease extension; a random moment covers all cases equally.
        std::thread::sleep(Duration::from_millis(500 * i as u64));
        drop(first);
        let killed = Instant::now();
        while !self.runs(&second, &id) {
            assert!(
                killed.elapsed() < Duration::from_secs(120),
                "no worker took over the job in time"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let seconds = killed.elapsed().as_secs_f64();
        while self.answers(&id).is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        seconds
    }
}

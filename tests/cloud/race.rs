//! Four workers race for the same targets, crash at random steps, and lose their leases. The chaos soak does the
//! same for longer, with faults of the store, the queue and the server. `CAMPAIGN=full` runs all of it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use pgrestored::emulator::StorageFault as F;
use pgrestored::event::{RestoreResult, Status};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::process::{Process, worker_with};
use crate::support::kills::FROM_THE_FIRST;
use crate::support::{Cluster, is_full_campaign};
use crate::test_env::{BUCKET, PubSubKind, TestEnv, get};

const REQUESTS: &str = "projects/test/topics/restore-requests";
const RESULTS: &str = "projects/test/topics/restore-completions";
const SUBSCRIPTION: &str = "projects/test/subscriptions/restore-requests";
const WORKERS: usize = 4;
const BACKUPS: usize = 4;
const TARGETS: [&str; 2] = ["app_a", "app_b"];

/// Failpoints at which a worker crashes, each with this probability.
fn crash_points(percent: f64) -> String {
    let steps = [
        "claimed",
        "announced",
        "created",
        "schema",
        "copy",
        "task",
        "work.noted",
        "work.taken",
        "handed_back",
        "loaded",
        "checked",
        "work.sealed",
        "swap.begun",
        "swap.old_renamed",
        "swap.new_renamed",
        "swap.journaled",
        "swapped",
        "ended",
        "recorded",
        "published",
        "acked",
    ];
    steps.map(|s| format!("{s}={percent}%return")).join(";")
}

/// A published request: what it asked for, and its position in the order.
#[derive(Debug, Clone)]
struct PublishedRequest {
    id: String,
    body: String,
    backup: usize,
    /// `None` for a verification.
    target: Option<&'static str>,
    order: i64,
}

/// What each row has in the archive of which the backups are made, and in backup `nth`: as many bytes.
const PLACEHOLDER: &str = "backup_x";

fn value_of(nth: usize) -> String {
    format!("backup_{nth}")
}

/// The same archive with the rows of this backup. It is not compressed.
fn with_rows_of(archive: &[u8], nth: usize) -> Vec<u8> {
    let (mut out, value) = (archive.to_vec(), value_of(nth));
    assert_eq!(value.len(), PLACEHOLDER.len());
    let places = archive.windows(value.len()).enumerate();
    let places = places.filter(|(_, window)| *window == PLACEHOLDER.as_bytes());
    let mut rows = 0;
    for (at, _) in places {
        out[at..at + value.len()].copy_from_slice(value.as_bytes());
        rows += 1;
    }
    assert_eq!(rows, 500);
    out
}

struct Race {
    env: Arc<TestEnv>,
    c: Arc<Cluster>,
    workers: Arc<Mutex<Vec<Option<Process>>>>,
    failpoints: String,
    published: Vec<PublishedRequest>,
    deaths: Arc<AtomicU32>,
    deliveries: usize,
    seed: u64,
}

async fn spawn(env: &TestEnv, c: &Cluster, failpoints: &str) -> Process {
    let folder = c.scratch("records").display().to_string();
    let (records, sandboxes) = (
        format!("file://{folder}"),
        c.scratch("sandboxes").display().to_string(),
    );
    let flags = [
        ("db-user", "postgres"),
        ("restore-records", records.as_str()),
        ("sandbox-dir", sandboxes.as_str()),
        ("restore-jobs", "2"),
        ("retry-budget", "5s"),
        ("download-stall-timeout", "1s"),
        ("restore-keep-previous", "0"),
        ("reap-every", "5s"),
        ("restore-quarantine-after", "100"),
        FROM_THE_FIRST,
    ];
    worker_with(env, c, &flags, &[("FAILPOINTS", failpoints)]).await
}

impl Race {
    async fn start(percent: f64) -> Self {
        let seed = std::env::var("CAMPAIGN_SEED")
            .ok()
            .and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        fastrand::seed(seed);
        let env = Arc::new(TestEnv::start(PubSubKind::Emulator).await.unwrap());
        let c = Arc::new(Cluster::start_with("-c fsync=off -c max_connections=200"));
        c.open_folder("records");
        c.sandboxes();
        let source = format!(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, '{PLACEHOLDER}' FROM generate_series(1, 500) n; CREATE INDEX ON t (v)"
        );
        c.create("src", &source);
        let dump = std::fs::read(c.dump_to_file("src", &["-Z0"])).unwrap();
        for i in 0..BACKUPS {
            let backup = with_rows_of(&dump, i);
            env.emulator
                .storage
                .put(BUCKET, &format!("{i}.dump"), backup);
        }
        let workers = Arc::new(Mutex::new((0..WORKERS).map(|_| None).collect()));
        Race {
            env,
            c,
            workers,
            failpoints: crash_points(percent),
            published: vec![],
            deaths: Arc::default(),
            deliveries: 0,
            seed,
        }
    }

    /// Restarts crashed workers until `stop`; messages that a crashed one held are redelivered.
    fn supervise(&self, stop: CancellationToken) -> tokio::task::JoinHandle<()> {
        let (env, c, workers) = (self.env.clone(), self.c.clone(), self.workers.clone());
        let (failpoints, deaths) = (self.failpoints.clone(), self.deaths.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                for slot in workers.lock().await.iter_mut() {
                    let is_dead = slot
                        .as_mut()
                        .is_some_and(|p| p.child.try_wait().unwrap().is_some());
                    if is_dead {
                        deaths.fetch_add(1, Ordering::SeqCst);
                        env.emulator.pubsub.expire_leases(SUBSCRIPTION);
                        *slot = None;
                    }
                    if slot.is_none() {
                        *slot = Some(spawn(&env, &c, &failpoints).await);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    }

    fn publish(&mut self, body: &str, at: Option<SystemTime>) {
        self.deliveries += 1;
        let pubsub = &self.env.emulator.pubsub;
        let at = at.unwrap_or_else(SystemTime::now);
        pubsub
            .publish_at(REQUESTS, body.as_bytes(), HashMap::new(), at)
            .unwrap();
    }

    fn ask(&mut self) {
        let id = format!("q{}", self.published.len());
        let backup = fastrand::usize(..BACKUPS);
        // Some requests are older, as if they were redelivered from a dead-letter topic.
        let before = if fastrand::u8(..10) == 0 {
            Duration::from_secs(fastrand::u64(1..3600))
        } else {
            Duration::ZERO
        };
        let at = SystemTime::now() - before;
        let order = i64::try_from(
            at.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_micros(),
        )
        .unwrap();
        let target = TARGETS[fastrand::usize(..TARGETS.len())];
        let body = format!(
            r#"{{"request_id":"{id}","backup":{{"name":"{backup}.dump"}},"target_db":"{target}","on_existing":"replace"}}"#
        );
        self.publish(&body, Some(at));
        self.published.push(PublishedRequest {
            id,
            body,
            backup,
            target: Some(target),
            order,
        });
    }

    fn ask_for_a_proof(&mut self) {
        let id = format!("q{}", self.published.len());
        let body = format!(
            r#"{{"request_id":"{id}","backup":{{"name":"0.dump"}},"mode":"verify","depth":"archive"}}"#
        );
        self.publish(&body, None);
        self.published.push(PublishedRequest {
            id,
            body,
            backup: 0,
            target: None,
            order: 0,
        });
    }

    fn repeat(&mut self) {
        if let Some(again) = fastrand::choice(&self.published).cloned() {
            // A request that already has an outcome may arrive in a new message; otherwise repeat its own message.
            let first = SystemTime::UNIX_EPOCH
                + Duration::from_micros(u64::try_from(again.order).unwrap_or(0));
            let is_answered = self.outcomes().contains_key(&again.id);
            let at = if again.order > 0 && !is_answered {
                Some(first)
            } else {
                None
            };
            self.publish(&again.body, at);
        }
    }

    /// The outcomes of every request so far.
    fn outcomes(&self) -> BTreeMap<String, HashSet<Vec<u8>>> {
        let mut all = BTreeMap::<String, HashSet<Vec<u8>>>::new();
        for m in self.env.emulator.pubsub.published(RESULTS) {
            all.entry(m.attributes["request_id"].clone())
                .or_default()
                .insert(m.data);
        }
        all
    }

    async fn settled(&self) {
        let settled = self
            .env
            .emulator
            .pubsub
            .until(|p| p.unacked(SUBSCRIPTION) == (0, 0));
        if tokio::time::timeout(Duration::from_secs(150), settled)
            .await
            .is_err()
        {
            panic!(
                "seed {}: not settled: {:?}",
                self.seed,
                self.env.emulator.pubsub.unacked(SUBSCRIPTION)
            );
        }
    }

    /// Checks that each request has one distinct outcome, and that each target is the result of its newest request.
    fn check(&self) {
        let outcomes = self.outcomes();
        let mut newest = BTreeMap::<&str, (&PublishedRequest, bool)>::new();
        for request in &self.published {
            let bodies = outcomes
                .get(&request.id)
                .unwrap_or_else(|| panic!("seed {}: {} has no outcome", self.seed, request.id));
            let texts: Vec<_> = bodies.iter().map(|b| String::from_utf8_lossy(b)).collect();
            assert_eq!(
                bodies.len(),
                1,
                "seed {}: {}: {texts:#?}",
                self.seed,
                request.id
            );
            let result: RestoreResult =
                serde_json::from_slice(bodies.iter().next().unwrap()).unwrap();
            let is_done = result.status == Status::Success;
            if let Some(e) = result.error.as_ref().filter(|_| request.target.is_some()) {
                // Superseded, or failed after the last attempt.
                let is_due = e.message.contains("superseded") || e.retryable;
                assert!(is_due, "seed {}: {}: {e:?}", self.seed, request.id);
            }
            let Some(target) = request.target.filter(|_| is_done) else {
                continue;
            };
            if newest
                .get(target)
                .is_none_or(|(n, _)| n.order < request.order)
            {
                newest.insert(target, (request, is_done));
            }
        }
        for (target, (request, _)) in newest {
            let there = self.c.psql(
                target,
                "SELECT string_agg(DISTINCT v, ','), count(*) FROM t",
            );
            assert_eq!(
                there,
                format!("{}|500", value_of(request.backup)),
                "seed {}: {target} is not {}",
                self.seed,
                request.id
            );
        }
    }

    async fn stop_workers(&self) {
        for slot in self.workers.lock().await.iter_mut() {
            if let Some(mut process) = slot.take() {
                process.child.kill().await.unwrap();
            }
        }
    }

    /// Checks that after one pass of the reaper only the targets are left.
    async fn check_leaks(&self) {
        let app = self.env.app(&self.c, &[("restore-keep-previous", "0")]);
        let clean = async {
            loop {
                let reaped = app
                    .manager
                    .reap(pgrestored::database::ReapScope::Worker)
                    .await
                    .unwrap();
                assert_eq!(
                    (reaped.failed, reaped.unknown),
                    (vec![], vec![]),
                    "seed {}",
                    self.seed
                );
                let left = self
                    .c
                    .databases()
                    .into_iter()
                    .filter(|d| d.starts_with("pgrestored_"))
                    .count();
                if left == 0 {
                    return;
                }
                // The server has not yet noticed that workers are gone.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), clean)
            .await
            .is_err()
        {
            panic!("seed {}: leaked {:?}", self.seed, self.c.databases());
        }
    }

    fn tally(&self, campaign: &str, length: &str) {
        let deaths = self.deaths.load(Ordering::SeqCst);
        let (requests, deliveries) = (self.published.len(), self.deliveries);
        eprintln!(
            "CAMPAIGN {campaign}: seed {}, {length}, {requests} requests, {deliveries} deliveries, {deaths} crashes, one outcome each, nothing leaked",
            self.seed
        );
    }

    /// Checks that the counters of surviving workers agree with what they published.
    async fn check_metrics(&mut self) {
        let mut admins = Vec::new();
        for slot in self.workers.lock().await.iter_mut() {
            let process = spawn(&self.env, &self.c, "").await;
            admins.push(process.admin().to_owned());
            *slot = Some(process);
        }
        let before = self.outcomes().len();
        let asked = if is_full_campaign() { 8 } else { WORKERS };
        (0..asked).for_each(|_| self.ask());
        self.ask_for_a_proof();
        self.settled().await;
        let (mut counted, mut running) = (0, 0);
        for admin in &admins {
            for line in get(&format!("http://{admin}/metrics")).await.1.lines() {
                let Some((name, value)) = line.rsplit_once(' ') else {
                    continue;
                };
                let is_outcome = name == "restore_success_total"
                    || name.starts_with("restore_failure_total{")
                    || name.starts_with("restore_verification_total{");
                counted += if is_outcome {
                    value.parse::<usize>().unwrap()
                } else {
                    0
                };
                running += if name == "restore_in_progress" {
                    value.parse::<usize>().unwrap()
                } else {
                    0
                };
            }
        }
        assert_eq!(
            (counted, running),
            (self.outcomes().len() - before, 0),
            "seed {}: metrics and published results differ",
            self.seed
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_race_and_crash() {
    let mut race = Race::start(1.5).await;
    let rounds = if is_full_campaign() { 200 } else { 3 };
    let stop = CancellationToken::new();
    let supervisor = race.supervise(stop.clone());
    for _ in 0..rounds {
        for _ in 0..fastrand::usize(1..4) {
            race.ask();
        }
        if fastrand::bool() {
            race.repeat();
        }
        race.settled().await;
        race.check();
    }
    stop.cancel();
    supervisor.await.unwrap();
    race.stop_workers().await;
    race.check_leaks().await;
    race.check_metrics().await;
    race.check();
    let deaths = race.deaths.load(Ordering::SeqCst);
    assert!(
        deaths > 0 || !is_full_campaign(),
        "no worker crashed: was the program built without failpoints?"
    );
    race.tally("race", &format!("{rounds} rounds"));
}

/// 15 % of reads fail in some way.
fn read_fault() -> Option<F> {
    let at = fastrand::u64(..3000);
    match fastrand::u8(..100) {
        0..4 => Some(F::CutAfter(at)),
        4..7 => Some(F::ShortAfter(at)),
        7..10 => Some(F::Unavailable),
        10..13 => Some(F::TooManyRequests),
        13..15 => Some(F::StallAfter(at)),
        _ => None,
    }
}

/// Injects faults into the store, and in turn into the queue and server connections, and counts the latter.
async fn disturb(
    env: Arc<TestEnv>,
    c: Arc<Cluster>,
    workers: Arc<Mutex<Vec<Option<Process>>>>,
    (stop, faults): (CancellationToken, Arc<AtomicU32>),
) {
    env.emulator.storage.disturb_reads(read_fault);
    let mut last_kill = Instant::now();
    let pauses: std::ops::Range<u64> = if is_full_campaign() {
        300..2500
    } else {
        100..900
    };
    while !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(pauses.clone()))).await;
        match faults.fetch_add(1, Ordering::SeqCst) % 4 {
            0 => env.emulator.pubsub.refuse_publish(1),
            1 => env.emulator.pubsub.cut_streams(),
            2 => env.emulator.pubsub.expire_leases(SUBSCRIPTION),
            _ => drop(c.psql(
                "postgres",
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgrestored %' ORDER BY random() LIMIT 1",
            )),
        }
        if last_kill.elapsed() > Duration::from_secs(20) {
            last_kill = Instant::now();
            if let Some(Some(process)) = workers.lock().await.get(fastrand::usize(..WORKERS)) {
                process.signal("KILL");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos() {
    let mut race = Race::start(0.2).await;
    let (deliveries, at_least, least_faults) = if is_full_campaign() {
        (2_000, Duration::from_secs(1_800), 0)
    } else {
        (18, Duration::ZERO, 6)
    };
    let begun = Instant::now();
    let (stop, calm) = (CancellationToken::new(), CancellationToken::new());
    let supervisor = race.supervise(stop.clone());
    let (env, c, workers) = (race.env.clone(), race.c.clone(), race.workers.clone());
    let faults = Arc::new(AtomicU32::new(0));
    let disturber = tokio::spawn(disturb(env, c, workers, (calm.clone(), faults.clone())));
    while race.deliveries < deliveries
        || begun.elapsed() < at_least
        || faults.load(Ordering::SeqCst) < least_faults
    {
        match fastrand::u8(..10) {
            0..3 => race.repeat(),
            3 => race.ask_for_a_proof(),
            _ => race.ask(),
        }
        // Keep somewhat more requests waiting than the workers can hold.
        let waiting = race.env.emulator.pubsub.until(|p| {
            let (waiting, leased) = p.unacked(SUBSCRIPTION);
            waiting + leased < 12
        });
        tokio::time::timeout(Duration::from_secs(300), waiting)
            .await
            .expect("no progress in time");
    }
    calm.cancel();
    disturber.await.unwrap();
    race.env.emulator.storage.clear_faults();
    race.settled().await;
    race.check();
    stop.cancel();
    supervisor.await.unwrap();
    race.stop_workers().await;
    race.check_leaks().await;
    // They count as those of the race do.
    if is_full_campaign() {
        race.check_metrics().await;
    }
    race.tally("chaos", &format!("{:.0} s", begun.elapsed().as_secs_f64()));
}

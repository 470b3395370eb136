//! The nights of a standing restore, on one clock: every night's backup overwrites the one before in a versioned bucket,
//! notifications come several times and too late, workers are killed, backups are bad, and a table gets a new column. Each
//! night ends with a masked copy of its own backup, or with a refusal that leaves the copy of the night before. Thirty
//! nights with `CAMPAIGN=full`, otherwise without most of those in which nothing goes wrong.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pgrestored::admission::Admission;
use pgrestored::app::App;
use pgrestored::emulator::{BucketOptions, Published};
use pgrestored::error::FailureReason as R;
use pgrestored::event::{RestoreResult, Status, Verdict};
use pgrestored::job::Generation;
use pgrestored::queue::{QueueError, RequestQueue};
use pgrestored::standing::{Candidate, StandingOrder, orders};
use pgrestored::worker::{Shutdown, Worker, WorkerSettings};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::process::worker_with;
use crate::support::{Cluster, is_full_campaign};
use crate::test_env::{BUCKET, PubSubKind, TIMEOUT, TestEnv};

/// The name of every backup.
const NAME: &str = "nightly/shop.dump";
/// The name of the order and of its target.
const ORDER: &str = "staging";
const NOTIFICATIONS: &str = "backup-notifications";
const NOTIFICATION_TOPIC: &str = "projects/test/topics/backup-notifications";
const NOTIFICATION_SUBSCRIPTION: &str = "projects/test/subscriptions/backup-notifications";
const REQUEST_SUBSCRIPTION: &str = "projects/test/subscriptions/restore-requests";
const RESULTS: &str = "projects/test/topics/restore-completions";
const KEY: &str = "a key of at least sixteen bytes";

/// What happens in a night.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Night {
    Plain,
    /// The same, only in a full campaign.
    Spare,
    /// The worker is killed while it holds a notification.
    KilledNotified,
    NeverProven,
    /// The program dies at this step.
    KilledAt(&'static str),
    /// The first night whose backup has the new column, and the one in which the rules get it.
    NewColumn,
    RuleForIt,
    Cut,
    /// In Berlin, the clocks skip 02:30.
    SkippedHour,
    OtherChecksum,
    LateWorker,
    KilledInItsRun,
}

/// The nights in which `proven` begins the runs, those in which `finalized` does, and those in which the clock does.
const PROVEN: [Night; 8] = [
    Night::Plain,
    Night::Spare,
    Night::KilledNotified,
    Night::Spare,
    Night::NeverProven,
    Night::Plain,
    Night::Spare,
    Night::Spare,
];
const FINALIZED: [Night; 11] = [
    Night::Plain,
    Night::KilledAt("swap.new_renamed"),
    Night::Spare,
    Night::NewColumn,
    Night::RuleForIt,
    Night::KilledAt("published"),
    Night::Spare,
    Night::Cut,
    Night::Plain,
    Night::Spare,
    Night::Spare,
];
const SCHEDULED: [Night; 11] = [
    Night::SkippedHour,
    Night::Spare,
    Night::Spare,
    Night::OtherChecksum,
    Night::Plain,
    Night::LateWorker,
    Night::Spare,
    Night::KilledInItsRun,
    Night::Spare,
    Night::Spare,
    Night::Spare,
];

/// Those of these nights that there are.
fn nights_of(all: &[Night]) -> Vec<Night> {
    let is_there = |night: &&Night| **night != Night::Spare || is_full_campaign();
    all.iter().filter(is_there).copied().collect()
}

const ROWS: usize = 300;
/// What stands for the number of the night in the archives of which those of all nights are made.
const PLACEHOLDER: &[u8] = b"42424242";

/// Minutes after midnight, UTC: when a backup is made, and when the scheduled run of the night is due, which is at 01:30 on
/// the first night with a schedule, and at 00:30 on the others.
const MADE: i64 = 10;
const AFTER_DUE: i64 = 91;

/// What a copy has: the number of its night in all rows, and nothing of what is masked.
const CONTENT: &str = "SELECT count(*), min(night), max(night), string_agg(DISTINCT name, ','),
    string_agg(DISTINCT coalesce(to_jsonb(p) ->> 'phone', 'none'), ','), bool_or(email LIKE '%secret.test'),
    md5(string_agg(email, ',' ORDER BY id)) FROM person p";

/// The clock of the workers, in seconds, and how often they looked at it.
static NOW: AtomicI64 = AtomicI64::new(0);
static LOOKS: AtomicU64 = AtomicU64::new(0);

fn clock() -> Timestamp {
    LOOKS.fetch_add(1, Ordering::SeqCst);
    Timestamp::from_second(NOW.load(Ordering::SeqCst)).unwrap()
}

fn set_clock(to: Timestamp) {
    NOW.store(to.as_second(), Ordering::SeqCst);
}

/// A time of a night. In Berlin, the clocks skip 02:30 in the first one with a schedule.
fn at(night: u32, minutes: i64) -> Timestamp {
    let skipped: Timestamp = "2025-03-30T00:00:00Z".parse().unwrap();
    let before = nights_of(&PROVEN).len() + nights_of(&FINALIZED).len();
    let days = i64::from(night) - 1 - i64::try_from(before).unwrap();
    skipped + SignedDuration::from_hours(24 * days) + SignedDuration::from_mins(minutes)
}

async fn within<T>(work: impl Future<Output = T>, what: &str) -> T {
    tokio::time::timeout(TIMEOUT, work)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}

/// The same archive with this number in all rows.
fn with_number(archive: &[u8], number: u32) -> Vec<u8> {
    let (mut out, number) = (archive.to_vec(), number.to_string());
    let windows = archive.windows(PLACEHOLDER.len()).enumerate();
    let places: Vec<usize> = windows
        .filter(|(_, window)| *window == PLACEHOLDER)
        .map(|(place, _)| place)
        .collect();
    assert_eq!((places.len(), number.len()), (ROWS, PLACEHOLDER.len()));
    for place in places {
        out[place..place + PLACEHOLDER.len()].copy_from_slice(number.as_bytes());
    }
    out
}

fn cut(mut archive: Vec<u8>) -> Vec<u8> {
    archive.truncate(archive.len() / 2);
    archive
}

/// Gives the messages of killed workers to others, as if their leases had expired.
fn give_back(env: &TestEnv) {
    let pubsub = &env.emulator.pubsub;
    pubsub.cut_streams();
    pubsub.expire_leases(REQUEST_SUBSCRIPTION);
    pubsub.expire_leases(NOTIFICATION_SUBSCRIPTION);
}

/// A worker with threads of its own: if they end, nothing of it goes on.
struct NightWorker {
    runtime: Option<Runtime>,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), QueueError>>,
}

impl NightWorker {
    fn start(app: App, settings: WorkerSettings) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        let shutdown = Shutdown::default();
        let stop = shutdown.clone();
        let task = runtime.spawn(async move {
            let pubsub = app.pubsub().unwrap();
            let results = Arc::new(pubsub.topic("restore-completions").await?);
            let requests = Box::new(pubsub.subscribe("restore-requests").await?);
            let notifications: Box<dyn RequestQueue> =
                Box::new(pubsub.subscribe(NOTIFICATIONS).await?);
            let worker = Worker::new(app.manager.clone(), results, app.metrics.clone(), settings);
            worker.run(requests, Some(notifications), stop).await
        });
        NightWorker {
            runtime: Some(runtime),
            shutdown,
            task,
        }
    }

    async fn stop(mut self) {
        self.shutdown.soft.cancel();
        let ended = within(&mut self.task, "the worker stops").await;
        ended.unwrap().unwrap();
    }

    /// Ends it wherever it is. Its connections are closed, and it cleans up nothing.
    async fn kill(mut self, env: &TestEnv) {
        let runtime = self.runtime.take().unwrap();
        let end = move || runtime.shutdown_timeout(Duration::from_secs(5));
        tokio::task::spawn_blocking(end).await.unwrap();
        give_back(env);
    }
}

impl Drop for NightWorker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Nights {
    worker: Option<NightWorker>,
    env: TestEnv,
    c: Cluster,
    /// Archives without the new column, and with it.
    archives: [Vec<u8>; 2],
    /// The order as the last worker knows it.
    order: Option<StandingOrder>,
    /// `object` makes the verifications of notifications cheap.
    depth: &'static str,
    /// Of all backups, oldest first.
    generations: Vec<i64>,
    /// The runs that have to be known in the end, by their ids, and whether each made a copy.
    runs: BTreeMap<String, bool>,
    /// The run whose worker was killed after it had published the result.
    published_before: Option<String>,
    /// The number of the last night.
    last: u32,
    /// Whether backups have the new column, and the rules name it.
    has_column: bool,
    has_rule: bool,
    /// The backups whose runs waited for their proofs, and what these say.
    proofs: Vec<(i64, Verdict)>,
    /// The night whose copy the target has.
    shown: u32,
    /// The masked addresses of the first night.
    emails: Option<String>,
}

impl Nights {
    async fn new() -> Self {
        let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
        env.subscription(NOTIFICATIONS).await;
        let versioned = BucketOptions {
            versioning: true,
            ..BucketOptions::default()
        };
        env.emulator.storage.set_bucket(BUCKET, versioned);
        let c = Cluster::start();
        let source = format!(
            "CREATE TABLE person (id int PRIMARY KEY, night int, name text, email text);
             INSERT INTO person SELECT i, 42424242, 'person ' || i, 'person' || i || '@secret.test' FROM generate_series(1, {ROWS}) i"
        );
        c.create("src", &source);
        let uncompressed = ["-Fc", "-Z0"];
        let before = c.dump("src", &uncompressed);
        c.psql(
            "src",
            "ALTER TABLE person ADD phone text; UPDATE person SET phone = '555-0' || id",
        );
        let after = c.dump("src", &uncompressed);
        let nights = Nights {
            worker: None,
            env,
            c,
            archives: [before, after],
            order: None,
            depth: "data",
            generations: vec![],
            runs: BTreeMap::new(),
            published_before: None,
            last: 0,
            has_column: false,
            has_rule: false,
            proofs: vec![],
            shown: 0,
            emails: None,
        };
        nights.write_rules("");
        nights
    }

    fn write_rules(&self, more: &str) {
        let rules = format!(
            "version: 1\nunlisted: refuse\ntables:\n  public.person:\n    columns: {{ id: keep, night: keep, name: {{ set: masked }}, email: {{ hash: true }}{more} }}\n"
        );
        std::fs::write(self.c.scratch("rules.yaml"), rules).unwrap();
    }

    fn write_order(&self, when: &str) {
        let order = format!(
            "name: {ORDER}, target: {ORDER}, prefix: nightly/, when: {when}, mask: rules.yaml, keep_previous: '0'"
        );
        let file = format!("version: 1\norders:\n  - {{ {order} }}\n");
        std::fs::write(self.c.scratch("standing.yaml"), file).unwrap();
    }

    fn flags(&self) -> Vec<(&'static str, String)> {
        let file = self.c.scratch("standing.yaml").display().to_string();
        vec![
            ("standing-restores", file),
            ("backup-notification-subscription", NOTIFICATIONS.to_owned()),
            ("verify-depth", self.depth.to_owned()),
            ("verify-bisect", "0".to_owned()),
            ("reap-every", "0".to_owned()),
        ]
    }

    /// Starts a worker that has the clock of these nights.
    fn start(&mut self) {
        let flags = self.flags();
        let mut flags: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
        flags.push(("mask-key", KEY));
        let app = self.env.app(&self.c, &flags);
        let admission = Admission::new(&app.config, "restore-requests").unwrap();
        let standing = orders(&app.config, &admission).unwrap();
        self.order = Some(standing[0].clone());
        let settings = WorkerSettings {
            standing,
            standing_pause: Duration::from_millis(100),
            busy_pause: Duration::from_millis(25),
            nack_backoff: (Duration::from_millis(25), Duration::from_millis(100)),
            clock,
            ..WorkerSettings::new(&app.config, admission)
        };
        self.worker = Some(NightWorker::start(app, settings));
    }

    async fn stop(&mut self) {
        self.worker.take().unwrap().stop().await;
    }

    async fn kill(&mut self) {
        self.worker.take().unwrap().kill(&self.env).await;
    }

    /// Runs the real program until it dies at this step. Its clock is the machine's, which only schedules and windows ask.
    async fn killed_at(&self, step: &str) {
        let flags = self.flags();
        let mut flags: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
        flags.push(("db-user", "postgres"));
        let point = format!("{step}=return");
        let variables = [("FAILPOINTS", point.as_str()), ("MASK_KEY", KEY)];
        let mut process = worker_with(&self.env, &self.c, &flags, &variables).await;
        let ended = within(process.child.wait(), step).await.unwrap();
        assert_eq!(ended.signal(), Some(9), "{step}");
        give_back(&self.env);
    }

    /// A backup of now; `number` is in all of its rows.
    fn backup(&self, number: u32) -> Vec<u8> {
        let archive = &self.archives[usize::from(self.has_column)];
        with_number(archive, 10_000_000 + number)
    }

    /// Overwrites the backup, at a time of a night to which the clock moves.
    fn upload_at(&mut self, (night, minutes): (u32, i64), bytes: Vec<u8>) -> i64 {
        let made = at(night, minutes);
        let storage = &self.env.emulator.storage;
        let generation = storage.put_at(BUCKET, NAME, bytes, made.into());
        set_clock(made);
        self.generations.push(generation);
        generation
    }

    fn upload(&mut self, night: u32) -> i64 {
        let backup = self.backup(night);
        self.upload_at((night, MADE), backup)
    }

    /// Each notification comes twice, and the one of the night before again, both before them and after them.
    fn notify(&self, generation: i64) {
        let before = self.generations.iter().rev().nth(1).copied();
        let all = [before, Some(generation), Some(generation), before];
        for generation in all.into_iter().flatten() {
            let attributes = [
                (
                    "notificationConfig",
                    format!("projects/_/buckets/{BUCKET}/notificationConfigs/1"),
                ),
                ("eventType", "OBJECT_FINALIZE".to_owned()),
                ("payloadFormat", "NONE".to_owned()),
                ("bucketId", BUCKET.to_owned()),
                ("objectId", NAME.to_owned()),
                ("objectGeneration", generation.to_string()),
            ];
            let attributes = attributes.map(|(key, value)| (key.to_owned(), value));
            let pubsub = &self.env.emulator.pubsub;
            let published = pubsub.publish(NOTIFICATION_TOPIC, b"", HashMap::from(attributes));
            assert!(published.is_some());
        }
    }

    /// The id of the run that restores a backup by the rules of now.
    fn id(&self, generation: i64) -> String {
        let backup = Candidate {
            name: NAME.to_owned(),
            generation: Generation(generation),
            created: Timestamp::UNIX_EPOCH,
        };
        self.order.as_ref().unwrap().request_id(&backup)
    }

    /// The first result of this kind that a request has.
    async fn event(&self, kind: &str, id: &str) -> RestoreResult {
        let is_it =
            |m: &Published| m.attributes["kind"] == kind && m.attributes["request_id"] == id;
        let pubsub = &self.env.emulator.pubsub;
        let there = pubsub.until(|p| p.published(RESULTS).iter().any(is_it));
        within(there, id).await;
        let all = pubsub.published(RESULTS);
        let found = all.iter().find(|m| is_it(m)).unwrap();
        serde_json::from_slice(&found.data).unwrap()
    }

    /// Waits until the run of a backup has its result, and is written down.
    async fn ended(&mut self, generation: i64, status: Status) -> RestoreResult {
        let id = self.id(generation);
        let result = self.event("restore", &id).await;
        assert_eq!(result.status, status, "{id}: {:?}", result.error);
        let is_copy = status == Status::Success;
        self.runs.insert(id.clone(), is_copy);
        let file = told_as(&id, is_copy);
        let written = async {
            while self.env.emulator.storage.get(BUCKET, &file).is_none() {
                crate::support::pause().await;
            }
        };
        within(written, &file).await;
        result
    }

    /// The night gives a copy of this backup.
    async fn right(&mut self, night: u32, generation: i64) {
        let result = self.ended(generation, Status::Success).await;
        let masking = result.masking.unwrap();
        assert_eq!(masking.tables[0].rows_kept, ROWS as u64);
        self.shown = night;
        self.check_copy();
    }

    /// The backup is refused, and the copy of the night before stays.
    async fn refused(&mut self, generation: i64, reason: R) -> RestoreResult {
        let result = self.ended(generation, Status::Failure).await;
        let error = result.error.as_ref().unwrap();
        assert_eq!(error.reason, reason, "{}", error.message);
        self.check_copy();
        result
    }

    fn check_copy(&mut self) {
        let night = self.shown;
        let number = 10_000_000 + night;
        let phone = if self.has_rule { "000" } else { "none" };
        let found = self.c.psql(ORDER, CONTENT);
        let (found, emails) = found.rsplit_once('|').unwrap();
        let wanted = format!("{ROWS}|{number}|{number}|masked|{phone}|f");
        assert_eq!(found, wanted, "night {night}");
        // The same key gives the same copy.
        let first = self.emails.get_or_insert_with(|| emails.to_owned());
        assert_eq!(emails, first.as_str(), "night {night}");
    }

    fn begin_night(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    /// Each backup is restored once its proof is there.
    async fn proven_nights(&mut self) {
        self.write_order("proven");
        self.start();
        for what in nights_of(&PROVEN) {
            let night = self.begin_night();
            let verdict = match what {
                Night::KilledNotified => {
                    let generation = self.upload(night);
                    self.notify(generation);
                    let pubsub = &self.env.emulator.pubsub;
                    let held = pubsub.until(|p| p.unacked(NOTIFICATION_SUBSCRIPTION).1 > 0);
                    within(held, "a notification is held").await;
                    self.kill().await;
                    self.start();
                    self.right(night, generation).await;
                    (generation, Verdict::Verified)
                }
                // It is never proven, so that no run of it begins.
                Night::NeverProven => {
                    let bad = cut(self.backup(night));
                    let generation = self.upload_at((night, MADE), bad);
                    self.notify(generation);
                    let id = format!("gcs:{BUCKET}/{NAME}#{generation}");
                    let result = self.event("verification", &id).await;
                    assert_eq!(result.verdict, Some(Verdict::Failed));
                    self.check_copy();
                    (generation, Verdict::Failed)
                }
                _ => {
                    let generation = self.upload(night);
                    self.notify(generation);
                    self.right(night, generation).await;
                    (generation, Verdict::Verified)
                }
            };
            self.proofs.push(verdict);
        }
        self.stop().await;
    }

    /// Each backup is restored as soon as it is there.
    async fn finalized_nights(&mut self) {
        self.write_order("finalized");
        self.depth = "object";
        self.start();
        for what in nights_of(&FINALIZED) {
            let night = self.begin_night();
            match what {
                Night::KilledAt(step) => {
                    let generation = self.night_of_a_killed_program(night, step).await;
                    if step == "published" {
                        self.published_before = Some(self.id(generation));
                    }
                }
                Night::NewColumn => {
                    self.has_column = true;
                    self.night_of_the_new_column(night).await;
                }
                Night::RuleForIt => {
                    let generation = self.night_of_the_new_column(night).await;
                    self.stop().await;
                    self.write_rules(", phone: { set: \"000\" }");
                    // By other rules, it is another run.
                    self.start();
                    self.has_rule = true;
                    self.right(night, generation).await;
                }
                Night::Cut => {
                    let bad = cut(self.backup(night));
                    let generation = self.upload_at((night, MADE), bad);
                    self.notify(generation);
                    self.refused(generation, R::ArchiveCorrupt).await;
                }
                _ => {
                    let generation = self.upload(night);
                    self.notify(generation);
                    self.right(night, generation).await;
                }
            }
        }
        self.stop().await;
    }

    /// The program dies at this step of the run, and a worker takes over.
    async fn night_of_a_killed_program(&mut self, night: u32, step: &str) -> i64 {
        // The program shall die in the run, and not with what is left of a notification.
        let pubsub = &self.env.emulator.pubsub;
        let settled = pubsub.until(|p| p.unacked(NOTIFICATION_SUBSCRIPTION) == (0, 0));
        within(settled, "all notifications are settled").await;
        self.stop().await;
        let generation = self.upload(night);
        self.killed_at(step).await;
        self.start();
        self.notify(generation);
        self.right(night, generation).await;
        generation
    }

    /// The rules do not name the new column.
    async fn night_of_the_new_column(&mut self, night: u32) -> i64 {
        let generation = self.upload(night);
        self.notify(generation);
        let result = self.refused(generation, R::InvalidRequest).await;
        let misfits = result.error.unwrap().misfits;
        assert!(misfits.iter().any(|m| m.contains("phone")), "{misfits:?}");
        generation
    }

    /// Runs begin by the clock. Each takes the generation that was live then.
    async fn scheduled_nights(&mut self) {
        self.write_order("{ schedule: '30 2 * * *', time_zone: Europe/Berlin, backup: finalized }");
        self.start();
        for what in nights_of(&SCHEDULED) {
            let night = self.begin_night();
            match what {
                Night::SkippedHour => self.night_of_the_skipped_hour(night).await,
                Night::OtherChecksum => {
                    let generation = self.upload(night);
                    let storage = &self.env.emulator.storage;
                    storage.set_crc32c(BUCKET, NAME, 1);
                    set_clock(at(night, AFTER_DUE));
                    self.refused(generation, R::ChecksumMismatch).await;
                }
                Night::LateWorker => self.night_of_the_late_worker(night).await,
                Night::KilledInItsRun => self.night_of_the_worker_killed_in_its_run(night).await,
                _ => {
                    let generation = self.upload(night);
                    self.notify(generation);
                    set_clock(at(night, AFTER_DUE));
                    self.right(night, generation).await;
                }
            }
        }
        self.stop().await;
    }

    /// The run is an hour later, and so is what it takes.
    async fn night_of_the_skipped_hour(&mut self, night: u32) {
        // No night has this number.
        let early = self.backup(900 + night);
        self.upload_at((night, MADE), early);
        set_clock(at(night, 89));
        // The second look begins after the first one has found that nothing is due.
        let before = LOOKS.load(Ordering::SeqCst);
        let looked = async {
            while LOOKS.load(Ordering::SeqCst) < before + 2 {
                crate::support::pause().await;
            }
        };
        within(looked, "the worker looks").await;
        let backup = self.backup(night);
        let generation = self.upload_at((night, 89), backup);
        self.notify(generation);
        set_clock(at(night, AFTER_DUE));
        self.right(night, generation).await;
    }

    /// No worker is there when the run is due, and a later backup has overwritten what was there then.
    async fn night_of_the_late_worker(&mut self, night: u32) {
        self.stop().await;
        let generation = self.upload(night);
        let late = self.backup(900 + night);
        let late = self.upload_at((night, 4 * 60), late);
        self.notify(late);
        set_clock(at(night, 5 * 60));
        self.start();
        self.right(night, generation).await;
    }

    async fn night_of_the_worker_killed_in_its_run(&mut self, night: u32) {
        let generation = self.upload(night);
        let storage = &self.env.emulator.storage;
        // Its download takes five seconds.
        storage.limit_rate_each(self.archives[1].len() as u64 / 5);
        set_clock(at(night, AFTER_DUE));
        let staging = "SELECT datname FROM pg_database WHERE datname ~ '^pgrestored_s_'";
        within(self.c.until(staging), "the run has begun").await;
        self.kill().await;
        let id = self.id(generation);
        let all = self.env.emulator.pubsub.published(RESULTS);
        assert!(all.iter().all(|m| m.attributes["request_id"] != id));
        self.check_copy();
        self.env.emulator.storage.limit_rate_each(0);
        self.start();
        self.notify(generation);
        self.right(night, generation).await;
    }

    /// Events, the journal, the bucket and the evidence tell the same, and nothing is left over.
    async fn check_account(&self) {
        self.check_events();
        let folder = format!("standing.pgrestored/{ORDER}/");
        let objects = self.env.emulator.storage.objects(BUCKET).into_iter();
        let told: BTreeSet<String> = objects
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(&folder))
            .collect();
        let runs = self.runs.iter();
        let of_nights: BTreeSet<String> = runs.map(|(id, is_copy)| told_as(id, *is_copy)).collect();
        assert_eq!(told, of_nights);
        let applied = "SELECT request_id FROM pgrestored.request WHERE request_id LIKE 'standing/%' AND applied AND state = 'done'";
        let applied = self.c.psql("postgres", applied);
        let applied: BTreeSet<&str> = applied.lines().collect();
        let copies = self.runs.iter().filter(|(_, is_copy)| **is_copy);
        let copies: BTreeSet<&str> = copies.map(|(id, _)| id.as_str()).collect();
        assert_eq!(applied, copies);
        let running = "SELECT count(*) FROM pgrestored.request WHERE state <> 'done'";
        assert_eq!(self.c.psql("postgres", running), "0");
        let app = self.env.app(&self.c, &[]);
        self.check_evidence(&app).await;
        let reaped = app
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap();
        assert_eq!((reaped.failed, reaped.unknown), (vec![], vec![]));
        let databases = self.c.databases();
        let left = databases.iter().filter(|d| d.starts_with("pgrestored_"));
        assert_eq!(left.count(), 0, "{databases:?}");
    }

    /// Each run has one result, and none has another one than the nights have seen.
    fn check_events(&self) {
        let mut events: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        let mut all = self.env.emulator.pubsub.published(RESULTS);
        all.retain(|m| m.attributes["kind"] == "restore");
        for m in all {
            let id = m.attributes["request_id"].clone();
            events.entry(id).or_default().push(m.data);
        }
        let ids: Vec<&String> = events.keys().collect();
        let of_nights: Vec<&String> = self.runs.keys().collect();
        assert_eq!(ids, of_nights);
        for (id, mut bodies) in events {
            // Whoever takes over from a worker that published it says the same again.
            let most = 1 + usize::from(self.published_before.as_ref() == Some(&id));
            assert!(bodies.len() <= most, "{id}: {} events", bodies.len());
            bodies.dedup();
            assert_eq!(bodies.len(), 1, "{id}");
        }
    }

    /// The evidence about the nights whose runs waited for it.
    async fn check_evidence(&self, app: &App) {
        let listed = app.manager.catalog().list_generations("nightly/").await;
        let listed = listed.unwrap().generations.into_iter();
        let verdicts: HashMap<String, Option<Verdict>> = listed
            .map(|g| (g.backup.generation, g.proof.map(|p| p.verdict)))
            .collect();
        for (generation, wanted) in &self.proofs {
            let found = verdicts[&generation.to_string()];
            assert_eq!(found, Some(*wanted), "{generation}");
        }
    }
}

/// The object that tells of a run.
fn told_as(id: &str, is_copy: bool) -> String {
    let tag = id.rsplit('/').next().unwrap();
    let word = if is_copy { "success" } else { "failure" };
    format!("standing.pgrestored/{ORDER}/{word}-{tag}.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nights_give_right_copies_or_refusals() {
    let mut nights = Nights::new().await;
    nights.proven_nights().await;
    nights.finalized_nights().await;
    nights.scheduled_nights().await;
    nights.check_account().await;
    let copies = nights.runs.values().filter(|is_copy| **is_copy).count();
    // Those of five nights were bad or had a column without a rule, and one of them was restored by the next rules.
    let last = nights.last;
    assert_eq!(
        (nights.shown as usize, copies),
        (last as usize, last as usize - 4)
    );
    eprintln!(
        "CAMPAIGN nights: {last} nights, {copies} masked copies, {} refusals, each once",
        nights.runs.len() - copies
    );
}

//! SIGKILL of the real program at every named step, followed by the redelivery, a duplicate, an older request
//! and one pass of the reaper. `CAMPAIGN=full` covers every step of every mode, otherwise only some of them.

use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use pgrestored::event::{RestoreResult, Status};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use crate::cases;
use crate::process::worker_with;
use crate::support::kills::FROM_THE_FIRST;
use crate::support::{Cluster, is_full_campaign};
use crate::test_env::{BUCKET, PubSubKind, TestEnv};

const REQUESTS: &str = "projects/test/topics/restore-requests";
const RESULTS: &str = "projects/test/topics/restore-completions";
const SUBSCRIPTION: &str = "projects/test/subscriptions/restore-requests";

/// The failpoints of a restore, in order.
const BEFORE: [&str; 10] = [
    "claimed",
    "announced",
    "created",
    "schema",
    "copy",
    "work.noted",
    "task",
    "loaded",
    "checked",
    "work.sealed",
];
const SWAP: [&str; 5] = [
    "swap.begun",
    "swap.old_renamed",
    "swap.new_renamed",
    "swap.journaled",
    "swapped",
];
const AFTER: [&str; 4] = ["ended", "recorded", "published", "acked"];

/// Where `make test` kills each mode: restores before the exchange of databases and since, no two modes at the same step.
/// `make soak` kills each mode at each of its steps.
const SOME_STEPS: [(JobMode, &[&str]); 7] = [
    (JobMode::Create, &["claimed", "swap.begun"]),
    (JobMode::CreateFromText, &["loaded", "published"]),
    (JobMode::Replace, &["created", "swap.new_renamed"]),
    (JobMode::Restricted, &["checked", "ended"]),
    (JobMode::InPlace, &["schema", "swapped"]),
    (JobMode::InPlaceRestricted, &["handed_over", "acked"]),
    (JobMode::Verify, &["recorded"]),
];

#[test]
fn the_modes_have_these_steps_and_share_none() {
    let mut seen = HashSet::new();
    for (mode, some) in SOME_STEPS {
        let all = mode.steps();
        for step in some {
            assert!(all.contains(step), "{mode:?} has no step {step}");
            assert!(seen.insert(step), "{step} is in two modes");
        }
        let is_late = |step: &&str| SWAP.contains(step) || AFTER.contains(step);
        let late = some.iter().filter(|step| is_late(step)).count();
        assert_eq!(late, 1, "{mode:?}");
    }
}

/// Which job is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum JobMode {
    Create,
    CreateFromText,
    Replace,
    Restricted,
    InPlace,
    InPlaceRestricted,
    Verify,
}

impl JobMode {
    fn steps(self) -> Vec<&'static str> {
        let but = |steps: &[&'static str], not: &[&str]| -> Vec<&'static str> {
            steps.iter().copied().filter(|s| !not.contains(s)).collect()
        };
        match self {
            JobMode::Create => [
                but(&BEFORE, &[]),
                but(&SWAP, &["swap.old_renamed"]),
                AFTER.to_vec(),
            ]
            .concat(),
            JobMode::CreateFromText => [
                but(&BEFORE, &["schema"]),
                but(&SWAP, &["swap.old_renamed"]),
                AFTER.to_vec(),
            ]
            .concat(),
            JobMode::Replace => [&BEFORE[..], &SWAP, &AFTER].concat(),
            JobMode::Restricted => [&BEFORE[..], &["role", "handed_over"], &SWAP, &AFTER].concat(),
            JobMode::InPlace => [
                vec!["in_place"],
                but(&BEFORE, &[]),
                but(&SWAP, &["swap.old_renamed"]),
                AFTER.to_vec(),
            ]
            .concat(),
            JobMode::InPlaceRestricted => [
                vec!["in_place", "handed_over", "role"],
                but(&BEFORE, &[]),
                but(&SWAP, &["swap.old_renamed"]),
                AFTER.to_vec(),
            ]
            .concat(),
            JobMode::Verify => [
                &["sandbox", "schema", "copy", "examined", "evidence"][..],
                &AFTER,
            ]
            .concat(),
        }
    }

    /// The beginning of the names of its targets.
    fn database(self) -> String {
        format!("{self:?}_").to_lowercase()
    }

    fn is_restricted(self) -> bool {
        matches!(self, JobMode::Restricted | JobMode::InPlaceRestricted)
    }

    fn is_in_place(self) -> bool {
        matches!(self, JobMode::InPlace | JobMode::InPlaceRestricted)
    }

    fn replaces(self) -> bool {
        matches!(self, JobMode::Replace | JobMode::Restricted)
    }

    fn backup(self) -> &'static str {
        if self == JobMode::CreateFromText {
            "new.sql"
        } else {
            "new.dump"
        }
    }

    fn body(self, id: &str, target: &str) -> String {
        let backup = self.backup();
        match self {
            JobMode::Verify => {
                format!(r#"{{"request_id":"{id}","backup":{{"name":"{backup}"}},"mode":"verify"}}"#)
            }
            _ => {
                let on_existing = if self.replaces() { "replace" } else { "fail" };
                format!(
                    r#"{{"request_id":"{id}","backup":{{"name":"{backup}"}},"target_db":"{target}","on_existing":"{on_existing}"}}"#
                )
            }
        }
    }
}

/// A server and a bucket for workers that are killed, with the folders that the workers use.
struct CrashSetup {
    env: TestEnv,
    c: Arc<Cluster>,
    sandboxes: PathBuf,
    records: PathBuf,
}

fn table(name: &str) -> String {
    format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} SELECT i, md5(i::text) FROM generate_series(1, 300) i; CREATE INDEX ON {name} (v)"
    )
}

impl CrashSetup {
    async fn new() -> Self {
        let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
        let c = Arc::new(Cluster::start());
        c.create("a", &table("old_one"));
        c.create("b", &table("new_one"));
        c.psql("postgres", "CREATE ROLE visitor LOGIN");
        let storage = &env.emulator.storage;
        storage.put(
            BUCKET,
            "old.dump",
            std::fs::read(c.dump_to_file("a", &[])).unwrap(),
        );
        storage.put(
            BUCKET,
            "new.dump",
            std::fs::read(c.dump_to_file("b", &[])).unwrap(),
        );
        storage.put(BUCKET, "new.sql", c.dump("b", &[]));
        let (sandboxes, records) = (c.sandboxes(), c.open_folder("records"));
        CrashSetup {
            env,
            c,
            sandboxes,
            records,
        }
    }

    fn flags(&self, mode: JobMode) -> Vec<(&'static str, String)> {
        vec![
            ("db-user", "postgres".into()),
            ("sandbox-dir", self.sandboxes.display().to_string()),
            (
                "restore-records",
                format!("file://{}", self.records.display()),
            ),
            (
                "backup-trust",
                if mode.is_restricted() {
                    "restricted"
                } else {
                    "full"
                }
                .into(),
            ),
            (
                "restore-in-place",
                if mode.is_in_place() { "always" } else { "auto" }.into(),
            ),
            ("reap-every", "0".into()),
            (FROM_THE_FIRST.0, FROM_THE_FIRST.1.into()),
        ]
    }

    /// The published results of a request: distinct bodies, and the number of events.
    fn outcomes(&self, id: &str) -> (HashSet<Vec<u8>>, usize) {
        let all = self.env.emulator.pubsub.published(RESULTS);
        let ours: Vec<_> = all
            .into_iter()
            .filter(|m| m.attributes["request_id"] == id)
            .collect();
        let count = ours.len();
        (ours.into_iter().map(|m| m.data).collect(), count)
    }

    async fn until_outcomes(&self, id: &str, count: usize) -> RestoreResult {
        let there = self
            .env
            .emulator
            .pubsub
            .until(|_| self.outcomes(id).1 >= count);
        let waited = tokio::time::timeout(Duration::from_secs(90), there).await;
        waited.unwrap_or_else(|_| panic!("{id}: {} of {count} outcomes", self.outcomes(id).1));
        let (bodies, _) = self.outcomes(id);
        assert_eq!(bodies.len(), 1, "{id}: one distinct outcome");
        serde_json::from_slice(bodies.iter().next().unwrap()).unwrap()
    }

    async fn until_settled(&self) {
        let settled = self
            .env
            .emulator
            .pubsub
            .until(|p| p.unacked(SUBSCRIPTION) == (0, 0));
        tokio::time::timeout(Duration::from_secs(60), settled)
            .await
            .expect("settled");
    }

    /// Databases, roles and folders that exist only while a restore or a verification runs.
    fn leaks(&self) -> Vec<String> {
        let mut in_server = self.c.psql(
            "postgres",
            "SELECT 'database ' || datname FROM pg_database WHERE datname ~ '^pgrestored_[sv]_'
             UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'pgrestored\\_r\\_%'
             UNION ALL SELECT 'session ' || application_name FROM pg_stat_activity WHERE application_name LIKE 'pgrestored %'",
        );
        // Verifications in sandboxes leave no journal on the target.
        if self.c.psql(
            "postgres",
            "SELECT to_regclass('pgrestored.owned_database') IS NOT NULL",
        ) == "t"
        {
            let rows =
                "SELECT 'row ' || name FROM pgrestored.owned_database o WHERE kind <> 'previous'
                OR NOT EXISTS (SELECT FROM pg_database WHERE datname = o.name)
                UNION ALL SELECT 'work ' || name FROM pgrestored.work";
            in_server = format!("{in_server}\n{}", self.c.psql("postgres", rows))
                .trim()
                .to_owned();
        }
        let sandboxes = std::fs::read_dir(&self.sandboxes).unwrap();
        let sandboxes = sandboxes.map(|e| e.unwrap().file_name().into_string().unwrap());
        let sandboxes = sandboxes.filter(|n| !n.contains("template"));
        in_server
            .lines()
            .map(str::to_owned)
            .chain(sandboxes)
            .collect()
    }

    async fn case(&self, mode: JobMode, step: &str, number: usize) {
        let what = format!("{mode:?} killed at {step}");
        let (id, target) = (
            format!("{mode:?}{number}"),
            format!("{}{number}", mode.database()),
        );
        if mode.replaces() {
            self.c.create(&target, &table("old_one"));
        }
        // A role without privileges sees a database that is restored in place either not at all or completely.
        let (is_watched, user) = if mode.is_in_place() {
            (true, "visitor")
        } else {
            (mode.replaces(), "postgres")
        };
        let watched = Watched::start(self.c.clone(), user, is_watched.then(|| target.clone()));
        let flags = self.flags(mode);
        let flags: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let point = format!("{step}=return");
        let mut first = worker_with(&self.env, &self.c, &flags, &[("FAILPOINTS", &point)]).await;
        let body = mode.body(&id, &target);
        let publish = |body: &str| {
            self.env
                .emulator
                .pubsub
                .publish(REQUESTS, body.as_bytes(), HashMap::new())
        };
        publish(&body).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), first.child.wait()).await;
        let ended = ended
            .unwrap_or_else(|_| panic!("{what}: the failpoint was never reached"))
            .unwrap();
        assert_eq!(ended.signal(), Some(9), "{what}");
        let open =
            "SELECT count(*) FROM pg_database WHERE datname ~ '^pgrestored_[sv]_' AND datallowconn
            AND has_database_privilege('visitor', oid, 'CONNECT')";
        assert_eq!(
            self.c.psql("postgres", open),
            "0",
            "{what}: the unfinished database is open to others"
        );
        self.env.emulator.pubsub.expire_leases(SUBSCRIPTION);

        let mut second = worker_with(&self.env, &self.c, &flags, &[]).await;
        let result = self.until_outcomes(&id, 1).await;
        assert_eq!(
            (result.status, result.error),
            (Status::Success, None),
            "{what}"
        );
        self.until_settled().await;
        let before = self.outcomes(&id).1;
        publish(&body).unwrap();
        self.until_outcomes(&id, before + 1).await;
        if mode != JobMode::Verify {
            let older = format!(
                r#"{{"request_id":"older-{id}","backup":{{"name":"old.dump"}},"target_db":"{target}","on_existing":"replace"}}"#
            );
            let yesterday = SystemTime::now() - Duration::from_secs(86_400);
            self.env
                .emulator
                .pubsub
                .publish_at(REQUESTS, older.as_bytes(), HashMap::new(), yesterday)
                .unwrap();
            let refused = self.until_outcomes(&format!("older-{id}"), 1).await;
            assert!(
                refused.error.unwrap().message.contains("superseded"),
                "{what}"
            );
            assert_eq!(
                self.c.psql(&target, "SELECT count(*) FROM new_one"),
                "300",
                "{what}"
            );
        }
        self.until_settled().await;
        watched
            .stop(
                &what,
                if mode.replaces() {
                    &["old_one", "new_one"]
                } else {
                    &["new_one"]
                },
            )
            .await;
        second.child.kill().await.unwrap();
        let reaper = self
            .env
            .app(&self.c, &flags)
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap();
        assert_eq!((reaper.failed, reaper.unknown), (vec![], vec![]), "{what}");
        // The server takes a moment to notice that a killed process's sessions are gone.
        let gone = async {
            while !self.leaks().is_empty() {
                crate::support::pause().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .is_err()
        {
            panic!("{what}: leaked {:?}", self.leaks());
        }
        if mode != JobMode::Verify {
            self.c
                .psql("postgres", &format!("DROP DATABASE {target} WITH (FORCE)"));
        }
    }
}

/// A client that reads a target repeatedly. It must see the old database, then the new one, and never the old one again.
struct Watched {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<(Vec<String>, Duration)>,
}

impl Watched {
    /// Between two reads.
    fn pause() -> Duration {
        Duration::from_millis(if is_full_campaign() { 5 } else { 20 })
    }

    /// Between two attempts to connect, each of which starts a process of the server.
    fn pause_of_attempts() -> Duration {
        Duration::from_millis(if is_full_campaign() { 5 } else { 60 })
    }

    fn start(c: Arc<Cluster>, user: &'static str, target: Option<String>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut seen, mut worst) = (Vec::<String>::new(), Duration::ZERO);
            let Some(target) = target else {
                return (seen, worst);
            };
            let mut last: Option<tokio::time::Instant> = None;
            let config = format!("host={} user={user} dbname={target}", c.sandbox.host());
            while !stopped.is_cancelled() {
                let Ok((client, connection)) =
                    tokio_postgres::connect(&config, tokio_postgres::NoTls).await
                else {
                    tokio::time::sleep(Self::pause_of_attempts()).await;
                    continue;
                };
                let driver = tokio::spawn(connection);
                let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
                while let (false, Ok(rows)) = (stopped.is_cancelled(), client.query(sql, &[]).await)
                {
                    worst = worst.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                    last = Some(tokio::time::Instant::now());
                    let name: String = rows.first().expect("a table").get(0);
                    if seen.last() != Some(&name) {
                        seen.push(name);
                    }
                    tokio::time::sleep(Self::pause()).await;
                }
                driver.abort();
            }
            (seen, worst)
        });
        Watched { stop, task }
    }

    async fn stop(self, what: &str, all: &[&str]) {
        self.stop.cancel();
        let (seen, worst) = self.task.await.unwrap();
        assert!(seen.is_empty() || seen == all, "{what}: {seen:?}");
        assert!(
            worst < Duration::from_secs(5),
            "{what}: not readable for {worst:?}"
        );
    }
}

async fn campaign(setup: &CrashSetup, mode: JobMode) {
    let steps = mode.steps();
    let is_wanted = |step: &str| {
        let mut some = SOME_STEPS.iter().filter(|(of, _)| *of == mode);
        is_full_campaign() || some.any(|(_, some)| some.contains(&step))
    };
    let mut done = 0;
    let wanted = steps.iter().enumerate();
    for (number, step) in wanted.filter(|(_, step)| is_wanted(step)) {
        setup.case(mode, step, number).await;
        done += 1;
    }
    eprintln!(
        "CAMPAIGN sigkill {mode:?}: {done} of {} steps, all recovered, 0 leaks",
        steps.len()
    );
}

/// A test of its own, which `scripts/mutants.sh` runs.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_replacing() {
    let setup = CrashSetup::new().await;
    campaign(&setup, JobMode::Replace).await;
}

/// All other modes, which share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn killed_while_creating_verifying_or_exchanging_databases() {
    let setup = CrashSetup::new().await;
    cases::each([
        ("Create", campaign(&setup, JobMode::Create).boxed_local()),
        (
            "CreateFromText",
            campaign(&setup, JobMode::CreateFromText).boxed_local(),
        ),
        ("InPlace", campaign(&setup, JobMode::InPlace).boxed_local()),
        (
            "Restricted",
            campaign(&setup, JobMode::Restricted).boxed_local(),
        ),
        (
            "InPlaceRestricted",
            campaign(&setup, JobMode::InPlaceRestricted).boxed_local(),
        ),
        ("Verify", campaign(&setup, JobMode::Verify).boxed_local()),
        (
            "rolling back",
            killed_while_rolling_back(&setup).boxed_local(),
        ),
        ("promoting", killed_while_promoting(&setup).boxed_local()),
    ])
    .await;
}

async fn killed_while_rolling_back(setup: &CrashSetup) {
    let steps = [&["claimed", "rollback"][..], &SWAP].concat();
    let mut done = 0;
    for (number, step) in steps.iter().enumerate() {
        // `make test` kills it where no database has the target's name.
        if *step != "swap.old_renamed" && !is_full_campaign() {
            continue;
        }
        let (what, target) = (
            format!("rollback killed at {step}"),
            format!("back{number}"),
        );
        setup.c.create(&target, &table("old_one"));
        let mut job =
            crate::support::job("/x".as_ref(), &target, pgrestored::job::OnExisting::Replace);
        job.backup = pgrestored::job::BackupRef::parse("new.dump", "").unwrap();
        let app = setup.env.app(&setup.c, &[]);
        let replaced = app
            .manager
            .run(&job, Arc::default(), CancellationToken::new())
            .await;
        assert_eq!(replaced.failure, None, "{what}");
        let roll = |point: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
            command
                .env_clear()
                .env("FAILPOINTS", point)
                .args(["rollback", &target, "--output", "json"]);
            command.arg(format!("--request-id=rollback-{number}"));
            command.args([
                format!("--db-host={}", setup.c.sandbox.host()),
                "--db-user=postgres".into(),
            ]);
            command
        };
        let killed = roll(&format!("{step}=return")).output().await.unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{what}: {killed:?}");
        let answers = [
            roll("").output().await.unwrap(),
            roll("").output().await.unwrap(),
        ];
        for a in &answers {
            assert!(
                a.status.success(),
                "{what}: {}",
                String::from_utf8_lossy(&a.stderr)
            );
        }
        assert_eq!(answers[0].stdout, answers[1].stdout, "{what}: one outcome");
        assert_eq!(
            setup.c.psql(&target, "SELECT count(*) FROM old_one"),
            "300",
            "{what}"
        );
        app.manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap();
        drop(app);
        done += 1;
    }
    eprintln!(
        "CAMPAIGN sigkill rollback: {done} of {} steps, all recovered",
        steps.len()
    );
}

async fn killed_while_promoting(setup: &CrashSetup) {
    const ROWS: &str = "SELECT count(*), md5(string_agg(n::text, ',' ORDER BY id)) FROM new_one n";
    let steps = [&["claimed", "promotion"][..], &SWAP].concat();
    // Other steps than that of the rollback.
    let (first, every) = if is_full_campaign() { (0, 1) } else { (1, 4) };
    let app = setup.env.app(&setup.c, &[]);
    let mut done = 0;
    for (number, step) in steps.iter().enumerate().skip(first).step_by(every) {
        let what = format!("promotion killed at {step}");
        let (target, copy) = (format!("app{number}"), format!("copy{number}"));
        setup.c.create(&target, &table("old_one"));
        let restored = crate::test_env::restore(&app, "new.dump", &copy).await;
        assert_eq!(restored.failure, None, "{what}");
        let rows = setup.c.psql(&copy, ROWS);
        let promote = |point: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
            command
                .env_clear()
                .env("FAILPOINTS", point)
                .args(["promote", &copy, "--to", &target, "--output", "json"])
                .args(["--on-existing", "replace"])
                .arg(format!("--request-id=promotion-{number}"));
            command.args([
                format!("--db-host={}", setup.c.sandbox.host()),
                "--db-user=postgres".into(),
            ]);
            command
        };
        let killed = promote(&format!("{step}=return")).output().await.unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{what}: {killed:?}");
        let answers = [
            promote("").output().await.unwrap(),
            promote("").output().await.unwrap(),
        ];
        for a in &answers {
            assert!(
                a.status.success(),
                "{what}: {}",
                String::from_utf8_lossy(&a.stderr)
            );
        }
        assert_eq!(answers[0].stdout, answers[1].stdout, "{what}: one outcome");
        assert_eq!(setup.c.psql(&target, ROWS), rows, "{what}");
        assert!(!setup.c.databases().contains(&copy), "{what}");
        done += 1;
    }
    eprintln!(
        "CAMPAIGN sigkill promotion: {done} of {} steps, all recovered",
        steps.len()
    );
}

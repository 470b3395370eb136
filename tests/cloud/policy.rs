//! The failure policy of the user's specification, with a case for each of its items.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;

use pgrestored::emulator::StorageFault as F;
use pgrestored::event::{RestoreResult, Status, Verdict};

use crate::cases;
use crate::process::{Process, worker_with};
use crate::support::Cluster;
use crate::test_env::{BUCKET, PubSubKind, TestEnv, get};

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 2000) i";
const DATABASES: [&str; 5] = ["app", "postgres", "src", "template0", "template1"];

/// A worker and its surroundings, which the failures share.
struct WorkerSetup {
    env: TestEnv,
    c: Cluster,
    worker: Process,
    sandboxes: PathBuf,
    temporary: PathBuf,
}

/// What a failure left.
struct ObservedFailure<'a> {
    setup: &'a WorkerSetup,
    result: RestoreResult,
    metrics: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_is_handled_as_specified() {
    let setup = WorkerSetup::new().await;
    cases::each([
        (
            "backup verification failure",
            verification_failure(&setup).boxed_local(),
        ),
        (
            "database restore failure",
            database_failure(&setup).boxed_local(),
        ),
        (
            "storage operation failure",
            storage_failure(&setup).boxed_local(),
        ),
    ])
    .await;
}

impl WorkerSetup {
    async fn new() -> Self {
        let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
        let c = Cluster::start();
        c.create("src", ROWS);
        c.create(
            "app",
            "CREATE TABLE precious (a int); INSERT INTO precious VALUES (42)",
        );
        let (sandboxes, temporary) = (c.sandboxes(), c.open_folder("tmp"));
        let folder = sandboxes.display().to_string();
        let flags = [
            ("db-user", "postgres"),
            ("sandbox-dir", &folder),
            ("retry-budget", "3s"),
            ("restore-max-attempts", "1"),
        ];
        let variables = [("TMPDIR", temporary.to_str().unwrap())];
        let worker = worker_with(&env, &c, &flags, &variables).await;
        WorkerSetup {
            env,
            c,
            worker,
            sandboxes,
            temporary,
        }
    }

    /// Uploads a backup, sends a request for it that fails, and waits until the message is settled.
    async fn fail(&self, id: &str, dump: Vec<u8>, what: &str) -> ObservedFailure<'_> {
        let emulator = &self.env.emulator;
        emulator.storage.put(BUCKET, "src.dump", dump);
        self.env
            .publish(&format!(
                r#"{{"request_id":"{id}","backup":{{"name":"src.dump"}},{what}}}"#
            ))
            .await;
        let result = self.env.result().await;
        let settled = emulator
            .pubsub
            .until(|p| p.unacked("projects/test/subscriptions/restore-requests") == (0, 0));
        tokio::time::timeout(Duration::from_secs(30), settled)
            .await
            .unwrap();
        let metrics = get(&format!("http://{}/metrics", self.worker.admin())).await;
        ObservedFailure {
            setup: self,
            result,
            metrics: metrics.1,
        }
    }

    fn dump(&self) -> Vec<u8> {
        std::fs::read(self.c.dump_to_file("src", &[])).unwrap()
    }
}

const REPLACES: &str = r#""target_db":"app","on_existing":"replace""#;

impl ObservedFailure<'_> {
    fn metric(&self, line: &str) {
        assert!(
            self.metrics.lines().any(|l| l == line),
            "no {line} in\n{}",
            self.metrics
        );
    }

    /// Checks that the log has a line about the request with this message and these fields.
    fn logged(&self, message: &str, words: &[(&str, &str)]) {
        let all = self.setup.worker.log();
        let line = all.iter().find(|l| {
            l["request_id"] == self.result.request_id.as_str()
                && l["message"].as_str().is_some_and(|m| m.contains(message))
        });
        let line = line.unwrap_or_else(|| panic!("no line {message}: {all:#?}"));
        for (field, value) in words {
            assert!(
                line[field].as_str().is_some_and(|v| v.contains(value)),
                "{field}: {line}"
            );
        }
    }

    /// Checks that no temporary file is left.
    fn left_no_files(&self) {
        assert_eq!(files(&self.setup.temporary), Vec::<String>::new());
    }

    /// Checks that the target is as it was, and the only database that is left.
    fn left_the_target(&self) {
        let c = &self.setup.c;
        assert_eq!(c.psql("app", "SELECT a FROM precious"), "42");
        assert_eq!(c.databases(), DATABASES);
    }
}

fn files(folder: &Path) -> Vec<String> {
    let all = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    all.filter(|n| !n.contains("template")).collect()
}

/// 1. Backup Verification Failure: the backup was damaged before the upload, so its checksum matches the damaged bytes.
async fn verification_failure(setup: &WorkerSetup) {
    let mut dump = setup.dump();
    let at = dump.len() * 2 / 3;
    dump[at] ^= 1;
    let failure = &setup.fail("unproven", dump, r#""mode":"verify""#).await;
    let cleans_up = async {
        let gone = async {
            while !files(&setup.sandboxes).is_empty() {
                crate::support::pause().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone)
            .await
            .expect("the sandbox's folder was not removed in time");
        failure.left_no_files();
    };
    let logs = async {
        failure.logged(
            "verification ended",
            &[
                ("verdict", "failed"),
                ("failure_reason", "archive_corrupt"),
                ("request_id", "unproven"),
            ],
        );
        let error = failure.result.error.as_ref().unwrap();
        assert!(error.message.contains("damaged"), "{error:?}");
    };
    let notifies = async {
        failure.metric("restore_verification_total{status=\"failure\"} 1");
        let pubsub = &setup.env.emulator.pubsub;
        let event = pubsub
            .published("projects/test/topics/restore-completions")
            .remove(0);
        assert_eq!(
            (
                event.attributes["kind"].as_str(),
                event.attributes["status"].as_str()
            ),
            ("verification", "failure")
        );
    };
    let returns = async {
        assert_eq!(failure.result.status, Status::Failure);
        assert_eq!(failure.result.verdict, Some(Verdict::Failed));
    };
    cases::each([
        ("cleans up temporary files", cleans_up.boxed_local()),
        ("logs error details", logs.boxed_local()),
        ("notifies the monitoring system", notifies.boxed_local()),
        ("returns failure status", returns.boxed_local()),
    ])
    .await;
}

/// 2. Database Restore Failure: the server rejects a row.
async fn database_failure(setup: &WorkerSetup) {
    let text = String::from_utf8(setup.c.dump("src", &[])).unwrap();
    let dump = text.replacen("\n17\t", "\n16\t", 1).into_bytes();
    let failure = &setup.fail("rejected", dump, REPLACES).await;
    let rolls_back = async {
        failure.left_the_target();
        let is_absent = "SELECT to_regclass('public.t') IS NULL";
        assert_eq!(setup.c.psql("app", is_absent), "t");
    };
    let cleans_up = async {
        failure.left_the_target();
        let owned = "SELECT count(*) FROM pgrestored.owned_database";
        assert_eq!(setup.c.psql("postgres", owned), "0");
    };
    let logs = async {
        failure.logged(
            "the restore failed",
            &[
                ("severity", "ERROR"),
                ("failure_reason", "data_rejected"),
                ("error", "23505"),
                ("request_id", "rejected"),
            ],
        );
    };
    let counts = async {
        failure.metric("restore_failure_total{failure_reason=\"data_rejected\"} 1");
        failure.metric("restore_success_total 0");
        failure.metric("restore_in_progress 0");
    };
    let returns = async {
        let error = failure.result.error.as_ref().unwrap();
        assert_eq!(failure.result.status, Status::Failure);
        assert_eq!(
            (error.reason.as_str(), error.sqlstate.as_deref()),
            ("data_rejected", Some("23505"))
        );
    };
    cases::each([
        ("rolls back the partial restore", rolls_back.boxed_local()),
        ("cleans up the target database", cleans_up.boxed_local()),
        ("logs error details", logs.boxed_local()),
        ("updates metrics", counts.boxed_local()),
        ("returns failure status", returns.boxed_local()),
    ])
    .await;
}

/// 3. Storage Operation Failure: each read of the object ends early.
async fn storage_failure(setup: &WorkerSetup) {
    let storage = &setup.env.emulator.storage;
    storage.fail_next_reads(vec![F::CutAfter(500); 10_000]);
    let failure = &setup.fail("cut", setup.dump(), REPLACES).await;
    storage.clear_faults();
    let retries = async {
        let log = setup.worker.log().into_iter();
        let resumed: Vec<_> = log
            .filter(|l| l["message"] == "resuming the download")
            .collect();
        assert!(resumed.len() >= 3, "{resumed:?}");
        let at = |i: usize| {
            let time = resumed[i]["time"].as_str().unwrap();
            time.parse::<jiff::Timestamp>().unwrap()
        };
        let (first, last) = (
            at(1).duration_since(at(0)),
            at(resumed.len() - 1).duration_since(at(resumed.len() - 2)),
        );
        // Pauses are random, with a bound that doubles each time: 3 s allow a few attempts, not thousands.
        assert!(
            resumed.len() < 60,
            "{} attempts in 3 s ({first:?} .. {last:?})",
            resumed.len()
        );
    };
    let cleans_up = async {
        failure.left_no_files();
        failure.left_the_target();
    };
    let logs = async {
        failure.logged(
            "the restore failed",
            &[
                ("failure_reason", "download_failed"),
                ("error", "src.dump"),
                ("request_id", "cut"),
            ],
        );
    };
    let counts = async {
        failure.metric("restore_failure_total{failure_reason=\"download_failed\"} 1");
        let mut lines = failure.metrics.lines();
        let retries = lines.find_map(|l| l.strip_prefix("restore_download_retries_total "));
        assert!(retries.unwrap().parse::<u32>().unwrap() > 0);
    };
    let returns = async {
        assert_eq!(failure.result.status, Status::Failure);
        let error = failure.result.error.as_ref().unwrap();
        assert_eq!(error.reason.as_str(), "download_failed");
        failure.left_the_target();
    };
    cases::each([
        ("is retried with exponential backoff", retries.boxed_local()),
        ("cleans up partial downloads", cleans_up.boxed_local()),
        ("logs error details", logs.boxed_local()),
        ("updates metrics", counts.boxed_local()),
        ("returns failure status", returns.boxed_local()),
    ])
    .await;
}

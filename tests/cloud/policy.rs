//! The failure policy of the user's specification, with a test for each of its items.

use std::path::PathBuf;

use pgrestored::emulator::StorageFault as F;
use pgrestored::event::{RestoreResult, Status};

use crate::process::{Process, worker_with};
use crate::support::Cluster;
use crate::test_env::{BUCKET, Kind, TestEnv, get};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Failure {
    Verification,
    Database,
    Storage,
}

/// A worker after a failure, and everything observable about it.
struct Seen {
    env: TestEnv,
    c: Cluster,
    worker: Process,
    result: RestoreResult,
    sandboxes: PathBuf,
    temporary: PathBuf,
    metrics: String,
}

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 2000) i";

async fn see(failure: Failure) -> Seen {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create("src", ROWS);
    c.create(
        "app",
        "CREATE TABLE precious (a int); INSERT INTO precious VALUES (42)",
    );
    let mut dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    match failure {
        // The backup was damaged before the upload, so its checksum matches the damaged bytes.
        Failure::Verification => {
            let at = dump.len() * 2 / 3;
            dump[at] ^= 1;
        }
        // A row that the server rejects.
        Failure::Database => {
            let text = String::from_utf8(c.dump("src", &[])).unwrap();
            dump = text.replacen("\n17\t", "\n16\t", 1).into_bytes();
        }
        Failure::Storage => env
            .emulator
            .storage
            .fail_next_reads(vec![F::CutAfter(500); 10_000]),
    }
    env.emulator.storage.put(BUCKET, "src.dump", dump);
    let (sandboxes, temporary) = (c.scratch("sandboxes"), c.scratch("tmp"));
    for folder in [&sandboxes, &temporary] {
        std::fs::create_dir(folder).unwrap();
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
    }
    let folder = sandboxes.display().to_string();
    let flags = [
        ("db-user", "postgres"),
        ("sandbox-dir", &folder),
        ("retry-budget", "3s"),
        ("restore-max-attempts", "1"),
    ];
    let worker = worker_with(&env, &c, &flags, &[("TMPDIR", temporary.to_str().unwrap())]).await;
    env
        .publish(match failure {
            Failure::Verification => r#"{"request_id":"r1","backup":{"name":"src.dump"},"mode":"verify"}"#,
            _ => r#"{"request_id":"r1","backup":{"name":"src.dump"},"target_db":"app","on_existing":"replace"}"#,
        })
        .await;
    let result = env.result().await;
    let settled = env
        .emulator
        .pubsub
        .until(|p| p.unacked("projects/test/subscriptions/restore-requests") == (0, 0));
    tokio::time::timeout(std::time::Duration::from_secs(30), settled)
        .await
        .unwrap();
    let metrics = get(&format!("http://{}/metrics", worker.admin())).await.1;
    Seen {
        env,
        c,
        worker,
        result,
        sandboxes,
        temporary,
        metrics,
    }
}

impl Seen {
    fn metric(&self, line: &str) {
        assert!(
            self.metrics.lines().any(|l| l == line),
            "no {line} in\n{}",
            self.metrics
        );
    }

    /// Checks that the log has a line with this message and these fields.
    fn logged(&self, message: &str, words: &[(&str, &str)]) {
        let all = self.worker.log();
        let line = all
            .iter()
            .find(|l| l["message"].as_str().is_some_and(|m| m.contains(message)));
        let line = line.unwrap_or_else(|| panic!("no line {message}: {all:#?}"));
        for (field, value) in words {
            assert!(
                line[field].as_str().is_some_and(|v| v.contains(value)),
                "{field}: {line}"
            );
        }
    }

    fn files(folder: &PathBuf) -> Vec<String> {
        let all = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap());
        all.filter(|n| !n.contains("template")).collect()
    }
}

// 1. Backup Verification Failure

#[tokio::test(flavor = "multi_thread")]
async fn verification_failure_cleans_up_temporary_files() {
    let seen = see(Failure::Verification).await;
    let gone = async {
        while !Seen::files(&seen.sandboxes).is_empty() {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .expect("the sandbox's folder was not removed in time");
    assert_eq!(Seen::files(&seen.temporary), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_failure_logs_error_details() {
    let seen = see(Failure::Verification).await;
    seen.logged(
        "verification ended",
        &[
            ("verdict", "failed"),
            ("failure_reason", "archive_corrupt"),
            ("request_id", "r1"),
        ],
    );
    let error = seen.result.error.as_ref().unwrap();
    assert!(error.message.contains("damaged"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_failure_notifies_the_monitoring_system() {
    let seen = see(Failure::Verification).await;
    seen.metric("restore_verification_total{status=\"failure\"} 1");
    let event = seen
        .env
        .emulator
        .pubsub
        .published("projects/test/topics/restore-completions")
        .remove(0);
    assert_eq!(
        (
            event.attributes["kind"].as_str(),
            event.attributes["status"].as_str()
        ),
        ("verification", "failure")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_failure_returns_failure_status() {
    let seen = see(Failure::Verification).await;
    assert_eq!(seen.result.status, Status::Failure);
    assert_eq!(
        seen.result.verdict,
        Some(pgrestored::event::Verdict::Failed)
    );
}

// 2. Database Restore Failure

#[tokio::test(flavor = "multi_thread")]
async fn database_failure_rolls_back_the_partial_restore() {
    let seen = see(Failure::Database).await;
    assert_eq!(seen.c.psql("app", "SELECT a FROM precious"), "42");
    assert_eq!(
        seen.c.psql("app", "SELECT to_regclass('public.t') IS NULL"),
        "t"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn database_failure_cleans_up_the_target_database() {
    let seen = see(Failure::Database).await;
    assert_eq!(
        seen.c.databases(),
        ["app", "postgres", "src", "template0", "template1"]
    );
    assert_eq!(
        seen.c
            .psql("postgres", "SELECT count(*) FROM pgrestored.owned_database"),
        "0"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn database_failure_logs_error_details() {
    let seen = see(Failure::Database).await;
    seen.logged(
        "the restore failed",
        &[
            ("severity", "ERROR"),
            ("failure_reason", "data_rejected"),
            ("error", "23505"),
            ("request_id", "r1"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn database_failure_updates_metrics() {
    let seen = see(Failure::Database).await;
    seen.metric("restore_failure_total{failure_reason=\"data_rejected\"} 1");
    seen.metric("restore_success_total 0");
    seen.metric("restore_in_progress 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn database_failure_returns_failure_status() {
    let seen = see(Failure::Database).await;
    let error = seen.result.error.as_ref().unwrap();
    assert_eq!(seen.result.status, Status::Failure);
    assert_eq!(
        (error.reason.as_str(), error.sqlstate.as_deref()),
        ("data_rejected", Some("23505"))
    );
}

// 3. Storage Operation Failure

#[tokio::test(flavor = "multi_thread")]
async fn storage_failure_is_retried_with_exponential_backoff() {
    let seen = see(Failure::Storage).await;
    let resumed: Vec<_> = seen
        .worker
        .log()
        .into_iter()
        .filter(|l| l["message"] == "resuming the download")
        .collect();
    assert!(resumed.len() >= 3, "{resumed:?}");
    let at = |i: usize| {
        resumed[i]["time"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
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
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_failure_cleans_up_partial_downloads() {
    let seen = see(Failure::Storage).await;
    assert_eq!(Seen::files(&seen.temporary), Vec::<String>::new());
    assert_eq!(
        seen.c.databases(),
        ["app", "postgres", "src", "template0", "template1"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_failure_logs_error_details() {
    let seen = see(Failure::Storage).await;
    seen.logged(
        "the restore failed",
        &[
            ("failure_reason", "download_failed"),
            ("error", "src.dump"),
            ("request_id", "r1"),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_failure_updates_metrics() {
    let seen = see(Failure::Storage).await;
    seen.metric("restore_failure_total{failure_reason=\"download_failed\"} 1");
    let retries = seen
        .metrics
        .lines()
        .find_map(|l| l.strip_prefix("restore_download_retries_total "));
    assert!(retries.unwrap().parse::<u32>().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_failure_returns_failure_status() {
    let seen = see(Failure::Storage).await;
    assert_eq!(seen.result.status, Status::Failure);
    assert_eq!(
        seen.result.error.as_ref().unwrap().reason.as_str(),
        "download_failed"
    );
    assert_eq!(seen.c.psql("app", "SELECT a FROM precious"), "42");
}

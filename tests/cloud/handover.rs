//! A worker that stops hands its work over, and one that only seems to be dead can do no more harm.

use std::time::Duration;

use pgrestored::event::Status;

use crate::process::{Process, worker_with};
use crate::support::kills::{FROM_THE_FIRST, SOURCE, assert_continued, assert_settled, records};
use crate::support::pause;
use crate::test_env::{SourceCluster, TestEnv};

const SUBSCRIPTION: &str = "projects/test/subscriptions/restore-requests";

/// Between two records, after some.
const PAUSED: (&str, &str) = ("FAILPOINTS", "work.noted=5*off->1*return(3000)");

/// Starts a worker, and waits until it has recorded some transactions of a request for this target.
async fn at_work(
    s: &SourceCluster,
    env: &TestEnv,
    target: &str,
    flags: &[(&str, &str)],
) -> Process {
    let first = worker_with(env, &s.c, flags, &[PAUSED]).await;
    let body = serde_json::json!({
        "request_id": target, "target_db": target, "backup": { "name": "src.dump" }, "finish": ["once.sql"],
    });
    env.publish(&body.to_string()).await;
    let begun = "SELECT datname FROM pg_database WHERE datname ~ '^pgrestored_s_' AND datallowconn";
    let staging = s.c.until(begun).await;
    let recorded = async {
        while records(&s.c, &staging) < 4 {
            pause().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), recorded).await;
    waited.expect("nothing was recorded in time");
    first
}

/// With SQL that must run only once.
fn finishing(s: &SourceCluster) -> String {
    let folder = s.c.open_folder("team");
    let once = "INSERT INTO s.log VALUES ('once')";
    std::fs::write(folder.join("once.sql"), once).unwrap();
    format!("file://{}", folder.display())
}

fn has_said(worker: &Process, message: &str) -> bool {
    let log = worker.log();
    log.iter()
        .any(|line| line["message"].as_str() == Some(message))
}

fn assert_restored(s: &SourceCluster, target: &str) {
    assert_eq!(s.c.psql(target, "SELECT count(*) FROM s.log"), "1");
    s.c.psql(target, "DELETE FROM s.log");
    s.assert_restored(target);
    assert_settled(&s.c, target, target);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_or_is_taken_for_dead_loses_no_work() {
    let s = SourceCluster::of(SOURCE);
    let from = finishing(&s);
    let flags = [
        FROM_THE_FIRST,
        ("restore-finish-from", from.as_str()),
        ("drain-timeout", "100ms"),
        ("restore-jobs", "2"),
        ("reap-every", "0"),
    ];
    stopped(&s, &flags).await;
    taken_for_dead(&s, &flags).await;
}

async fn stopped(s: &SourceCluster, flags: &[(&str, &str)]) {
    let (env, c) = (s.env().await, &s.c);
    let first = at_work(s, &env, "stopped", flags).await;
    first.signal("TERM");
    let log = "progress is kept for the next attempt";
    let said = async {
        while !has_said(&first, log) {
            pause().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), said).await;
    waited.expect("the work was not handed over");
    assert_eq!(first.exit_code().await, Some(0));
    let waiting = "SELECT state, by_command, rows > 0 FROM pgrestored.work";
    assert_eq!(c.psql("postgres", waiting), "waiting|f|t");
    let is_open = "SELECT datallowconn FROM pg_database WHERE datname ~ '^pgrestored_s_'";
    assert_eq!(c.psql("postgres", is_open), "f");
    // The reaper leaves it for the next worker.
    let app = env.app(c, flags);
    let reaped = app
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    assert_eq!(reaped.dropped, Vec::<String>::new());
    assert_eq!(c.leftovers().len(), 1);
    drop(app);
    let second = worker_with(&env, c, flags, &[]).await;
    let result = env.result().await;
    assert_eq!(result.status, Status::Success);
    assert_continued(&result, "stopped");
    assert!(has_said(&second, "restore continues"));
    assert_restored(s, "stopped");
    second.signal("TERM");
    assert_eq!(second.exit_code().await, Some(0));
}

/// It stands still while another worker takes its work over, and then goes on.
async fn taken_for_dead(s: &SourceCluster, flags: &[(&str, &str)]) {
    let (env, c) = (s.env().await, &s.c);
    let first = at_work(s, &env, "taken", flags).await;
    first.signal("STOP");
    let lock = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pgrestored lock'";
    c.psql("postgres", lock);
    env.emulator.pubsub.cut_streams();
    env.emulator.pubsub.expire_leases(SUBSCRIPTION);
    let second = worker_with(&env, c, flags, &[]).await;
    let result = env.result().await;
    assert_eq!(result.status, Status::Success);
    assert_continued(&result, "taken");
    assert_restored(s, "taken");
    // It finds that its sessions are gone, and changes nothing.
    first.signal("CONT");
    first.signal("TERM");
    assert_eq!(first.exit_code().await, Some(0));
    assert_eq!(c.psql("taken", "SELECT count(*) FROM s.log"), "0");
    s.assert_restored("taken");
    assert_settled(c, "taken", "after the first worker");
    second.signal("TERM");
    assert_eq!(second.exit_code().await, Some(0));
    let results = "projects/test/topics/restore-completions";
    let all = env.emulator.pubsub.published(results);
    let bodies: std::collections::HashSet<_> = all.into_iter().map(|m| m.data).collect();
    assert_eq!(bodies.len(), 1, "one distinct outcome");
}

//! What a rehearsal leaves behind if it is killed or loses its connection, what it tries of SQL text, and that a restore
//! starts its download meanwhile.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgrestored::error::FailureReason as R;
use pgrestored::job::OnExisting;
use pgrestored::progress::Progress;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, job, pause};

/// Databases and roles that the program made, and those that its journal has.
const OURS: &str = "SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE 'pgrestored\\_%'),
    (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgrestored\\_%')";
const JOURNALED: &str = "SELECT count(*) FROM pgrestored.owned_database";

/// A command of the program as `creator`, killed at `point` if there is one.
fn run(c: &Cluster, point: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgrestored"))
        .args(args)
        .args(["--owners", "none", "--output", "json"])
        .args(["--db-user", "creator", "--db-host", c.sandbox.host()])
        .env_clear()
        .env("FAILPOINTS", point)
        .output()
        .unwrap()
}

fn kill(c: &Cluster, step: &str, args: &[&str]) {
    let killed = run(c, &format!("{step}=return"), args);
    assert_eq!(killed.status.signal(), Some(9), "{step}: {killed:?}");
    let found = c.psql("postgres", OURS);
    assert!(found.starts_with("1|"), "{step}: {found}");
}

/// One pass of the reaper, once the server has noticed that the killed process's sessions are gone.
async fn reap(c: &Cluster) {
    let app = c.app(&[("db-user", "creator")]);
    loop {
        let reaped = app
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap();
        assert_eq!(reaped.failed, Vec::<String>::new());
        if reaped.kept.is_empty() {
            assert!(!reaped.dropped.is_empty(), "{reaped:?}");
            return;
        }
        pause().await;
    }
}

fn started() -> (Cluster, PathBuf) {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB CREATEROLE");
    c.create(
        "src",
        "CREATE TABLE t AS SELECT 1 AS a; CREATE INDEX ON t (a)",
    );
    let dump = c.dump_to_file("src", &[]);
    (c, dump)
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_rehearsals_leave_nothing() {
    let (c, dump) = started();
    // First, while there is no journal.
    a_restore_that_is_killed_while_it_rehearses_is_completed_by_the_next_attempt(&c, &dump);
    a_killed_rehearsal_leaves_nothing_after_the_reaper(&c, &dump).await;
    c.psql("postgres", "DROP SCHEMA pgrestored CASCADE");
    a_rehearsal_that_loses_its_session_drops_its_database(&c, &dump).await;
    a_download_starts_while_the_restore_is_rehearsed(&c, &dump).await;
}

async fn a_killed_rehearsal_leaves_nothing_after_the_reaper(c: &Cluster, dump: &Path) {
    let rehearse = ["rehearse", dump.to_str().unwrap()];
    let restricted = [&rehearse[..], &["--backup-trust", "restricted"]].concat();
    for has_journal in [false, true] {
        if has_journal {
            c.psql("postgres", "GRANT CREATE ON DATABASE postgres TO creator");
        }
        for (step, args) in [("schema", &rehearse[..]), ("task", &restricted[..])] {
            kill(c, step, args);
            reap(c).await;
            let what = format!("{step}, journal: {has_journal}");
            assert_eq!(c.psql("postgres", OURS), "0|0", "{what}");
            if has_journal {
                assert_eq!(c.psql("postgres", JOURNALED), "0", "{what}");
            }
        }
    }
}

/// The next attempt at a restore drops what the rehearsal of the one before has left.
fn a_restore_that_is_killed_while_it_rehearses_is_completed_by_the_next_attempt(
    c: &Cluster,
    dump: &Path,
) {
    let restore = [
        "restore",
        dump.to_str().unwrap(),
        "--target",
        "app",
        "--restore-rehearse=always",
        "--request-id",
        "again",
    ];
    kill(c, "schema", &restore);
    assert!(!c.databases().contains(&"app".to_owned()));
    assert_eq!(c.leftovers(), Vec::<String>::new(), "only the rehearsal");
    let next = run(c, "", &restore);
    assert!(next.status.success(), "{next:?}");
    assert_eq!(c.psql("postgres", OURS), "0|0");
    assert_eq!(c.psql("app", "SELECT a FROM t"), "1");
    c.psql("postgres", "DROP DATABASE app");
}

/// The session of a rehearsal that has created its database and waits.
const WAITS: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COMMENT ON DATABASE%'";

/// Keeps everybody from commenting on a database until the transaction ends.
async fn hold(c: &Cluster) -> tokio_postgres::Client {
    let config = format!("host={} user=postgres dbname=postgres", c.sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let lock = "BEGIN; LOCK TABLE pg_catalog.pg_shdescription IN SHARE MODE";
    client.batch_execute(lock).await.unwrap();
    client
}

async fn a_rehearsal_that_loses_its_session_drops_its_database(c: &Cluster, dump: &Path) {
    let (holder, app) = (hold(c).await, c.app(&[]));
    let (request, progress) = (job(dump, "app", OnExisting::Fail), Arc::default());
    let rehearsing = app
        .manager
        .rehearse(&request, &progress, CancellationToken::new());
    let ending = async {
        let pid = c.until(WAITS).await;
        let end = format!("SELECT pg_terminate_backend({pid}); COMMIT");
        holder.batch_execute(&end).await.unwrap();
    };
    let (done, ()) = tokio::join!(rehearsing, ending);
    assert_eq!(done.unwrap_err().reason(), R::TargetUnavailable);
    assert_eq!(c.psql("postgres", OURS), "0|0");
    assert_eq!(c.psql("postgres", JOURNALED), "0");
}

async fn a_download_starts_while_the_restore_is_rehearsed(c: &Cluster, dump: &Path) {
    let (holder, app) = (hold(c).await, c.app(&[("restore-rehearse", "always")]));
    let (request, progress) = (
        job(dump, "app", OnExisting::Fail),
        Arc::new(Progress::default()),
    );
    let stop = CancellationToken::new();
    let restoring = app.manager.run(&request, progress.clone(), stop);
    let looking = async {
        c.until(WAITS).await;
        let downloads = async {
            while progress.object_bytes.load(Relaxed) == 0 {
                pause().await;
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(20), downloads).await;
        // Nothing of the restore itself moves once the download waits for the rehearsal.
        assert!(progress.is_in_long_step());
        holder.batch_execute("COMMIT").await.unwrap();
        assert!(seen.is_ok(), "nothing was downloaded");
    };
    let (done, ()) = tokio::join!(restoring, looking);
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("app", "SELECT a FROM t"), "1");
}

/// SQL text whose rows and materialized view need rows, with an event trigger after them.
const TEXT: &str = "CREATE TABLE t AS SELECT 'x' AS a; CREATE INDEX ON t (a);
    CREATE MATERIALIZED VIEW m AS SELECT 1 / count(*) AS n FROM t; SELECT lo_from_bytea(7, 'x');
    CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f()";

fn rehearsed(c: &Cluster, dump: &Path, more: &[&str]) -> Value {
    let args = ["rehearse", dump.to_str().unwrap()];
    let out = run(c, "", &[&args[..], more].concat());
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"))
}

#[test]
fn text_is_tried_to_its_end_unless_it_has_many_rows() {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB");
    c.create("src", TEXT);
    let archive = rehearsed(&c, &c.dump_to_file("src", &[]), &[]);
    for format in [&["-Fp"][..], &["-Fp", "--inserts"]] {
        let dump = c.dump_to_file("src", format);
        let text = rehearsed(&c, &dump, &[]);
        assert_eq!(text["refusals"], archive["refusals"], "{text}");
        assert_eq!(text["refusals_total"], 1, "{text}");
        assert_eq!(text["refusals"][0]["entry"], "EVENT TRIGGER e", "{text}");
        assert_eq!(text["note"], archive["note"], "{text}");
        assert!(text["entries"].as_u64() >= Some(5), "{text}");
        // The name is found, although it follows the rows.
        let chosen = rehearsed(&c, &dump, &["--skip", "EVENT TRIGGER e"]);
        assert_eq!(chosen["restorable"], true, "{chosen}");
    }
    let rows = "INSERT INTO t SELECT repeat('x', 1 << 20) FROM generate_series(1, 17)";
    c.psql("src", &format!("DROP INDEX t_a_idx; {rows}"));
    let dump = c.dump_to_file("src", &["-Fp"]);
    let text = rehearsed(&c, &dump, &["--skip", "EVENT TRIGGER e"]);
    assert_eq!(text["restorable"], true, "{text}");
    let note = text["note"].as_str().unwrap();
    let wanted = "SQL text: only the statements before TABLE DATA public.t were tried";
    assert!(note.starts_with(wanted), "{note}");
    // A role that may only fill a database.
    c.psql("postgres", "ALTER ROLE creator NOCREATEDB");
    let denied = rehearsed(&c, &dump, &[]);
    let error = &denied["error"];
    assert_eq!(error["reason"], "insufficient_privilege", "{denied}");
    let message = error["message"].as_str().unwrap();
    for part in ["ALTER ROLE \"creator\" CREATEDB", "--into-empty"] {
        assert!(message.contains(part), "{message}");
    }
}

//! Finishing SQL: it runs in the restored database before anybody sees it, and a failure leaves nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pgrestored::config::Document;
use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::event::RestoreResult;
use pgrestored::job::{Finishing, FinishingFile, OnExisting, RestoreJob};
use pgrestored::policy::Selection;

use crate::support::{Cluster, job};

const SOURCE: &str = "CREATE TABLE t (id int PRIMARY KEY, email text);
    INSERT INTO t SELECT i, 'person-' || i FROM generate_series(1, 100) i";
/// What is in the place of the target before.
const OLD: &str =
    "CREATE TABLE t (id int PRIMARY KEY, email text); INSERT INTO t VALUES (1000, 'old')";
const RESTRICTED: [(&str, &str); 1] = [("backup-trust", "restricted")];

fn sql(files: &[(&str, &str)]) -> Finishing {
    let read = |(name, text): &(&str, &str)| {
        Arc::new(FinishingFile::parse(name, text.as_bytes()).unwrap())
    };
    Finishing {
        files: files.iter().map(read).collect(),
        ..Finishing::default()
    }
}

fn replacing(dump: &Path, finish: Finishing) -> RestoreJob {
    RestoreJob {
        finish,
        ..job(dump, "app", OnExisting::Replace)
    }
}

/// The target with its rows, and what else there is: cheaper than a dump, and a swap changes it.
fn state(c: &Cluster) -> String {
    let state = "SELECT (SELECT oid FROM pg_database WHERE datname = current_database()), (SELECT count(*) FROM pg_class),
        (SELECT string_agg(t::text, ' ' ORDER BY id) FROM t), (SELECT count(*) FROM pg_database WHERE datname LIKE 'pgrestored_s_%'),
        (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgrestored_r_%')";
    c.psql("app", state)
}

/// The cluster and a dump.
struct DumpedCluster {
    c: Cluster,
    dump: PathBuf,
}

impl DumpedCluster {
    fn new() -> Self {
        let c = Cluster::start();
        c.create("src", SOURCE);
        let dump = c.dump_to_file("src", &["--no-owner"]);
        DumpedCluster { c, dump }
    }

    /// With the target and its content.
    fn renewed(&self) -> (&Cluster, &Path, String) {
        let DumpedCluster { c, dump } = self;
        c.psql("postgres", "DROP DATABASE IF EXISTS app");
        c.create("app", OLD);
        (c, dump, state(c))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn finishing_sql_runs_before_the_swap_or_changes_nothing() {
    let source = DumpedCluster::new();
    files_run_in_their_order_before_the_swap(&source).await;
    a_failure_leaves_nothing(&source).await;
    a_file_that_leaves_its_transaction_fails(&source).await;
    checks_are_asked_after_it(&source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_restore_is_finished() {
    let source = DumpedCluster::new();
    a_restricted_restore_is_finished_by_the_loading_role(&source).await;
    nobody_sees_a_half_finished_database(&source).await;
    filled_databases_and_rows_alone_are_finished_too(&source).await;
    // Last: a request that was published before a command does not replace what that has restored.
    the_command_reads_its_files_first(&source);
}

/// The target is what it was, and nothing else is left.
fn assert_untouched(c: &Cluster, old: &str, what: &str) {
    assert_eq!(state(c), old, "{what}");
    assert!(old.ends_with("|0|0"), "{old}");
}

async fn files_run_in_their_order_before_the_swap(source: &DumpedCluster) {
    let (c, dump, _) = source.renewed();
    let folder = c.open_folder("team");
    std::fs::write(
        folder.join("count.sql"),
        "CREATE TABLE done AS SELECT count(*) AS n, min(email) AS e FROM v",
    )
    .unwrap();
    let place = format!("file://{}", folder.display());
    let named = Finishing {
        names: vec!["count.sql".into()],
        ..sql(&[(
            "mask.sql",
            "SET search_path = nowhere; UPDATE public.t SET email = 'x';\nCREATE VIEW public.v AS TABLE public.t",
        )])
    };
    // No setting of one file reaches the next one: `v` is found in the default search path.
    let flags = [("restore-finish-from", place.as_str())];
    let done = c.restore_with(&replacing(dump, named), &flags).await;
    let result = done.result;
    assert_eq!(result.error, None);
    assert_eq!(c.psql("app", "SELECT n, e FROM done"), "100|x");
    let names: Vec<&str> = result.finish.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["mask.sql", "count.sql"]);
    assert!(result.finish.iter().all(|f| f.sha256.len() == 64));
    assert!(result.stages.contains_key("finish"), "{:?}", result.stages);
    let old = state(c);
    for (name, said) in [
        ("none.sql", "does not exist"),
        ("../count.sql", "without .."),
    ] {
        let named = Finishing {
            names: vec![name.into()],
            ..Finishing::default()
        };
        let done = c.restore_with(&replacing(dump, named), &flags).await;
        assert_eq!(done.failure, Some(R::InvalidRequest));
        assert!(done.result.error.unwrap().message.contains(said), "{name}");
        assert_untouched(c, &old, name);
    }
}

fn assert_rejected(result: &RestoreResult, (place, sqlstate): (&str, &str), what: &str) {
    let error = result
        .error
        .as_ref()
        .unwrap_or_else(|| panic!("{what}: it succeeded"));
    assert_eq!(
        (error.reason, error.blame),
        (R::RestoreError, Blame::Request),
        "{what}: {error:?}"
    );
    assert_eq!(
        error.sqlstate.as_deref(),
        Some(sqlstate),
        "{what}: {error:?}"
    );
    assert_eq!(error.stage, "finish", "{what}");
    let begins = format!("finishing SQL f.sql, {place}: ");
    assert!(
        error.message.starts_with(&begins),
        "{what}: {}",
        error.message
    );
    assert!(
        !error.message.contains("person-"),
        "{what}: {}",
        error.message
    );
    assert!(result.finish.is_empty(), "{what}");
}

async fn a_failure_leaves_nothing(source: &DumpedCluster) {
    let (c, dump, old) = source.renewed();
    let first = (
        "a.sql",
        "CREATE TABLE a AS TABLE t; DROP TABLE t CASCADE; ALTER TABLE a RENAME TO t",
    );
    for (text, place, sqlstate) in [
        ("CREATE UNIQUE INDEX ON t ((left(email, 6)))", "statement 1 at line 1", "23505"),
        ("DELETE FROM t;\nSELECT nothing FROM t", "statement 2 at line 2", "42703"),
        (
            "CREATE TABLE p (a int PRIMARY KEY); CREATE TABLE d (a int REFERENCES p DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO d VALUES (1)",
            "COMMIT at its end",
            "23503",
        ),
        ("CREATE INDEX CONCURRENTLY ON t (email)", "statement 1 at line 1", "25001"),
        ("DO $$ BEGIN COMMIT; END $$", "statement 1 at line 1", "2D000"),
    ] {
        let finish = sql(&[first, ("f.sql", text)]);
        let done = c.restore_with(&replacing(dump, finish), &[]).await;
        assert_rejected(&done.result, (place, sqlstate), text);
        assert_untouched(c, &old, text);
    }
    let slow = sql(&[("f.sql", "SELECT 1;\nSELECT pg_sleep(3600)")]);
    let limit = [("restore-finish-timeout", "1s")];
    let done = c.restore_with(&replacing(dump, slow), &limit).await;
    let error = done.result.error.unwrap();
    assert_eq!(error.reason, R::Timeout, "{error:?}");
    assert!(
        error.message.contains("statement 2 at line 2 was running"),
        "{error:?}"
    );
    assert_untouched(c, &old, "timeout");
}

/// What ends the transaction can look like text: here, a setting moves the end of a string.
async fn a_file_that_leaves_its_transaction_fails(source: &DumpedCluster) {
    let (c, dump, old) = source.renewed();
    let hidden =
        "SET standard_conforming_strings = off;\nSELECT 'a\\', '; COMMIT; --';\nDELETE FROM t";
    let done = c
        .restore_with(&replacing(dump, sql(&[("f.sql", hidden)])), &[])
        .await;
    let error = done.result.error.unwrap();
    assert_eq!(
        (error.reason, error.blame),
        (R::RestoreError, Blame::Request)
    );
    let begins = "finishing SQL f.sql: one of its statements ended the transaction";
    assert!(error.message.starts_with(begins), "{}", error.message);
    assert_untouched(c, &old, "a hidden COMMIT");
}

async fn checks_are_asked_after_it(source: &DumpedCluster) {
    let (c, dump, old) = source.renewed();
    let checks = |text: &str| Document {
        path: "checks.yaml".into(),
        text: text.into(),
    };
    let few = "assertions:\n  - {name: few, sql: SELECT count(*) FROM public.t, max: 10}\n  - {name: some, sql: TABLE public.t, rows: 10}\n";
    let deleting = ("f.sql", "DELETE FROM t WHERE id > 10");
    let asked = Finishing {
        checks: Some(checks(few)),
        ..Finishing::default()
    };
    let done = c.restore_with(&replacing(dump, asked.clone()), &[]).await;
    let error = done.result.error.unwrap();
    assert_eq!(error.reason, R::VerificationFailed, "{error:?}");
    assert!(
        error
            .message
            .contains("2 of 2 did not pass: assertion of few: "),
        "{error:?}"
    );
    assert_untouched(c, &old, "checks");
    // What cannot be parsed fails before anything is loaded.
    let broken = Finishing {
        checks: Some(checks("assertions: [{name: x, sql: SELECT 1}]")),
        ..Finishing::default()
    };
    let done = c.restore_with(&replacing(dump, broken), &[]).await;
    assert_eq!(
        (done.failure, done.result.rows),
        (Some(R::InvalidRequest), 0)
    );
    let both = Finishing {
        checks: asked.checks,
        ..sql(&[deleting])
    };
    let done = c.restore_with(&replacing(dump, both), &[]).await;
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("app", "SELECT count(*) FROM t"), "10");
    let note = "checks of checks.yaml: 2 passed".to_owned();
    assert!(done.result.notes.contains(&note), "{:?}", done.result.notes);
}

/// It can do what the backup could have done, and its objects get the final owner, too.
async fn a_restricted_restore_is_finished_by_the_loading_role(source: &DumpedCluster) {
    let (c, dump, old) = source.renewed();
    for (text, sqlstate) in [
        ("CREATE ROLE mine SUPERUSER", "42501"),
        ("SET ROLE postgres", "42501"),
        ("COPY t TO PROGRAM 'true'", "42501"),
        ("TABLE pg_authid", "42501"),
    ] {
        let finish = sql(&[("f.sql", text)]);
        let done = c.restore_with(&replacing(dump, finish), &RESTRICTED).await;
        assert_rejected(&done.result, ("statement 1 at line 1", sqlstate), text);
        assert_untouched(c, &old, text);
    }
    let who =
        "RESET ROLE; CREATE TABLE who AS SELECT session_user::text AS s, current_user::text AS u";
    let finish = sql(&[("f.sql", who)]);
    let done = c.restore_with(&replacing(dump, finish), &RESTRICTED).await;
    assert_eq!(done.result.error, None);
    let is_loader = "SELECT s LIKE 'pgrestored_r_%' AND s = u FROM who";
    assert_eq!(c.psql("app", is_loader), "t");
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'who'";
    assert_eq!(c.psql("app", owner), "pgrestored_owner");
}

/// While it runs, the target is the old database, and nobody but the restore can connect to the new one.
async fn nobody_sees_a_half_finished_database(source: &DumpedCluster) {
    let (c, dump, old) = source.renewed();
    c.psql("postgres", "CREATE ROLE visitor LOGIN");
    let wait = "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'go_on') LOOP PERFORM pg_sleep(0.01); END LOOP; END $$";
    let text = format!("UPDATE t SET email = 'x'; {wait}");
    let job = replacing(dump, sql(&[("f.sql", text.as_str())]));
    let look = async {
        let staging = c
            .until("SELECT datname FROM pg_stat_activity WHERE application_name = 'pgrestored finish' AND query LIKE 'DO %'")
            .await;
        // Without the staging databases and roles.
        let target = |all: &str| all.rsplitn(3, '|').last().map(str::to_owned);
        assert_eq!(target(&state(c)), target(&old));
        let may_connect =
            format!("SELECT has_database_privilege('visitor', '{staging}', 'CONNECT')");
        assert_eq!(c.psql("postgres", &may_connect), "f");
        c.psql("postgres", "CREATE ROLE go_on");
    };
    let (done, ()) = tokio::join!(c.restore_with(&job, &[]), look);
    assert_eq!(done.result.error, None);
    assert_eq!(
        c.psql("app", "SELECT count(*) FROM t WHERE email = 'x'"),
        "100"
    );
}

/// It runs in a database that is filled, before that is opened, and in the copy that takes rows alone.
async fn filled_databases_and_rows_alone_are_finished_too(source: &DumpedCluster) {
    let (c, dump, old) = source.renewed();
    c.create("empty", "");
    let filling = |text| RestoreJob {
        finish: sql(&[("f.sql", text)]),
        ..job(dump, "empty", OnExisting::Fill)
    };
    let objects = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    let done = c
        .restore_with(&filling("CREATE TABLE more (); SELECT 1/0"), &[])
        .await;
    assert_rejected(&done.result, ("statement 2 at line 1", "22012"), "fill");
    assert_eq!(c.psql("empty", objects), "0");
    let done = c
        .restore_with(&filling("DELETE FROM t WHERE id > 5"), &[])
        .await;
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("empty", "SELECT count(*) FROM t"), "5");
    let rows = |text| RestoreJob {
        selection: Selection {
            data_only: true,
            ..Selection::default()
        },
        ..replacing(dump, sql(&[("f.sql", text)]))
    };
    let done = c.restore_with(&rows("TABLE nowhere"), &[]).await;
    assert_rejected(&done.result, ("statement 1 at line 1", "42P01"), "rows");
    assert_untouched(c, &old, "rows");
    let done = c
        .restore_with(&rows("DELETE FROM t WHERE id BETWEEN 2 AND 999"), &[])
        .await;
    assert_eq!(done.result.error, None);
    assert_eq!(
        c.psql("app", "SELECT string_agg(id::text, ' ' ORDER BY id) FROM t"),
        "1 1000"
    );
}

/// What can be known of a file is known before the server is asked for anything.
fn the_command_reads_its_files_first(source: &DumpedCluster) {
    let (c, dump, old) = source.renewed();
    let restore = |host: &str, files: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        command
            .env_clear()
            .args(["restore", dump.to_str().unwrap(), "--target", "app"])
            .args(["--on-existing", "replace", "--output", "json"])
            .args(["--db-user", "postgres", "--db-host", host]);
        for (option, file) in files {
            command.args([*option, c.scratch(file).to_str().unwrap()]);
        }
        let out = command.output().unwrap();
        let result: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        (out.status.code(), result)
    };
    for (name, text) in [
        ("good.sql", "CREATE TABLE done ()"),
        ("control.sql", "SELECT 1;\nCOMMIT;"),
        ("meta.sql", "\\set x 1\n"),
        (
            "checks.yaml",
            "assertions: [{name: x, sql: SELECT 1, rows: 1}]",
        ),
        ("broken.yaml", "assertions: [{name: x, sql: SELECT 1}]"),
    ] {
        std::fs::write(c.scratch(name), text).unwrap();
    }
    for (option, file, said) in [
        ("--finish", "control.sql", "statement 2 at line 2: COMMIT"),
        ("--finish", "meta.sql", "line 1: \\set is a command of psql"),
        ("--finish", "missing.sql", "missing.sql cannot be read"),
        (
            "--finish-checks",
            "broken.yaml",
            "assertion x: needs expect",
        ),
    ] {
        let (code, result) = restore("/nowhere", &[("--finish", "good.sql"), (option, file)]);
        let message = result["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(code, Some(2), "{file}: {result}");
        assert!(message.contains(said), "{file}: {message}");
    }
    std::fs::write(c.scratch("fails.sql"), "TABLE nowhere").unwrap();
    let (code, result) = restore(c.sandbox.host(), &[("--finish", "fails.sql")]);
    assert_eq!(code, Some(1), "{result}");
    assert_untouched(c, &old, "command");
    let both = [("--finish", "good.sql"), ("--finish-checks", "checks.yaml")];
    let (code, result) = restore(c.sandbox.host(), &both);
    assert_eq!(code, Some(0), "{result}");
    let name = result["finish"][0]["name"].as_str().unwrap();
    assert!(name.ends_with("good.sql"), "{result}");
}

//! Filling a database that exists and is empty, by a role that may not create databases: what it is filled with, what is
//! refused, and that every failure and every crash leaves it empty.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use pgrestored::database::Reaped;
use pgrestored::error::FailureReason as R;
use pgrestored::job::{OnExisting, RestoreJob};
use pgrestored::manager::JobOutcome;
use pgrestored::policy::Selection;
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::proxy::CutProxy;
use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign, job, pause, sample};

/// A role as managed services give it: it owns its database, and may create no other one.
const AS_TENANT: [(&str, &str); 1] = [("db-user", "tenant")];

const SOURCE: &str = "SET ROLE tenant; CREATE EXTENSION hstore; CREATE SCHEMA shop;
    CREATE TABLE shop.t (id int PRIMARY KEY, v text); INSERT INTO shop.t SELECT i, md5(i::text) FROM generate_series(1, 300) i;
    CREATE INDEX ON shop.t (v); CREATE VIEW shop.w AS SELECT * FROM shop.t; CREATE TABLE public.o (t int REFERENCES shop.t, h hstore);
    CREATE FUNCTION public.f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'; CREATE TYPE public.e AS ENUM ('a');
    ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO role_a; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    SELECT lo_from_bytea(0, 'large'), lo_from_bytea(77, 'larger')";

/// What a database is, apart from what it holds: privileges, comment, limit.
const PROPERTIES: &str = "SELECT array(SELECT unnest(coalesce(datacl, acldefault('d', datdba)))::text ORDER BY 1),
    shobj_description(oid, 'pg_database'), datconnlimit, pg_get_userbyid(datdba) FROM pg_database WHERE datname = ";

/// What a dump of an empty database would not show.
const CONTENTS: &str = "SELECT (SELECT count(*) FROM pg_largeobject_metadata),
    (SELECT string_agg(format('%s %s %s %s', defaclrole::regrole, defaclnamespace, defaclobjtype, defaclacl), ' ' ORDER BY defaclobjtype, defaclnamespace)
      FROM pg_default_acl),
    (SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname !~ 'temp'), (SELECT string_agg(extname, ' ' ORDER BY extname) FROM pg_extension),
    (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_type), (SELECT count(*) FROM pg_proc),
    (SELECT array(SELECT unnest(coalesce(nspacl, acldefault('n', nspowner)))::text ORDER BY 1) FROM pg_namespace WHERE nspname = 'public')";

fn state(c: &Cluster, database: &str) -> String {
    let properties = c.psql("postgres", &format!("{PROPERTIES}'{database}'"));
    let contents = c.psql(database, CONTENTS);
    format!("{properties}\n{contents}\n{}", c.content(database, &[]))
}

fn start(c: &Cluster) {
    c.psql(
        "postgres",
        "CREATE ROLE tenant LOGIN; CREATE ROLE visitor LOGIN",
    );
    c.psql(
        "postgres",
        "CREATE DATABASE src OWNER tenant TEMPLATE template0",
    );
    let has_contrib = "SELECT count(*) FROM pg_available_extensions WHERE name = 'hstore'";
    let source = if c.psql("postgres", has_contrib) == "1" {
        SOURCE.to_owned()
    } else {
        // PyPI's servers come without contrib.
        let without = SOURCE.replace("CREATE EXTENSION hstore; ", "");
        without.replace("h hstore", "h text")
    };
    c.psql("src", &source);
    renew(c);
}

/// A new empty database of the role.
fn renew(c: &Cluster) {
    c.psql(
        "postgres",
        "DROP DATABASE IF EXISTS app WITH (FORCE);\nCREATE DATABASE app OWNER tenant TEMPLATE template0;",
    );
}

fn filling(dump: &Path, target: &str) -> RestoreJob {
    job(dump, target, OnExisting::Fill)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_filled() {
    let c = Cluster::start();
    start(&c);
    let open = c.psql("postgres", &format!("{PROPERTIES}'app'"));
    let custom = c.dump_as("src", DumpFormat::Custom);
    let source = c.content("src", &[]);
    for format in [DumpFormat::Custom, DumpFormat::Directory, DumpFormat::Plain] {
        renew(&c);
        let dump = match format {
            DumpFormat::Custom => custom.clone(),
            other => c.dump_as("src", other),
        };
        let done = c.restore_with(&filling(&dump, "app"), &AS_TENANT).await;
        assert_eq!(done.result.error, None, "{format:?}");
        assert_same(&c.content("app", &[]), &source, &format!("{format:?}"));
        assert_eq!(c.psql("postgres", &format!("{PROPERTIES}'app'")), open);
        let notes = &done.result.notes;
        let is_noted = notes.iter().any(|n| n.starts_with("filled in place: "));
        assert!(is_noted, "{notes:?}");
        assert_eq!(done.result.previous_database, None);
    }
    // It is not empty any more.
    let again = c.restore_with(&filling(&custom, "app"), &AS_TENANT).await;
    assert_eq!(again.failure, Some(R::TargetExists));
    // A part, into a database that has an extension already, by a role that may use no other database.
    renew(&c);
    c.psql("app", "CREATE EXTENSION pg_trgm");
    let part = RestoreJob {
        selection: Selection {
            tables: vec!["shop.t".into()],
            ..Selection::default()
        },
        ..filling(&custom, "app")
    };
    let alone = [("db-user", "tenant"), ("db-maintenance-name", "nowhere")];
    let done = c.restore_with(&part, &alone).await;
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("app", "SELECT count(*) FROM shop.t"), "300");
    let notes = &done.result.notes;
    let is_noted = notes
        .iter()
        .any(|n| n.starts_with("locked in database app alone"));
    assert!(is_noted, "{notes:?}");
    lose_the_answer_at_the_commit_point(&c, &custom, &source).await;
}

/// Whoever does not get the server's answer looks whether the commit point has passed.
async fn lose_the_answer_at_the_commit_point(c: &Cluster, dump: &Path, source: &str) {
    // The statement is prepared first; the outcome comes when it is executed.
    let prepared: &[u8] = b"UPDATE pgrestored_fill.fill SET outcome";
    let executed: &[u8] = b"success";
    for (trigger, has_passed) in [(prepared, false), (executed, true)] {
        renew(c);
        let before = state(c, "app");
        let proxy = CutProxy::start(c.sandbox.host(), trigger).await;
        proxy.arm_answer();
        let port = proxy.port.to_string();
        let through = [
            AS_TENANT[0],
            ("db-host", "127.0.0.1"),
            ("db-port", port.as_str()),
        ];
        let done = c.restore_with(&filling(dump, "app"), &through).await;
        assert!(proxy.was_cut(), "passed: {has_passed}");
        let error = done.result.error;
        if has_passed {
            assert_eq!(error, None);
            assert_same(&c.content("app", &[]), source, "passed");
            let open = before.lines().next().unwrap();
            assert_eq!(c.psql("postgres", &format!("{PROPERTIES}'app'")), open);
        } else {
            assert_eq!(done.failure, Some(R::TargetUnavailable), "{error:?}");
            assert_same(&state(c, "app"), &before, "not passed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_empty_or_in_use_is_not_filled() {
    let c = Cluster::start();
    start(&c);
    what_cannot_be_filled_is_refused_by_name(&c).await;
    settings_of_the_database_are_reset(&c).await;
    two_restores_never_fill_one_database(&c).await;
    a_record_of_another_role_is_not_followed(&c).await;
}

async fn what_cannot_be_filled_is_refused_by_name(c: &Cluster) {
    renew(c);
    c.psql(
        "postgres",
        "CREATE ROLE stranger LOGIN; CREATE ROLE neon_lights",
    );
    let dump = c.dump_as("src", DumpFormat::Custom);
    c.psql("app", "SET ROLE tenant; CREATE TABLE public.orders (id int); CREATE FUNCTION public.g() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let before = state(c, "app");
    let restricted = [("db-user", "tenant"), ("backup-trust", "restricted")];
    for (target, flags, reason, said) in [
        (
            "app",
            &AS_TENANT[..],
            R::TargetExists,
            "table public.orders",
        ),
        (
            "app",
            &AS_TENANT[..],
            R::TargetExists,
            "function public.g()",
        ),
        (
            "nowhere",
            &AS_TENANT[..],
            R::TargetNotAllowed,
            "does not exist",
        ),
        (
            "app",
            &restricted[..],
            R::TargetNotAllowed,
            "BACKUP_TRUST=full",
        ),
        (
            "template1",
            &AS_TENANT[..],
            R::TargetNotAllowed,
            "protected",
        ),
        (
            "app",
            &[("db-user", "stranger")][..],
            R::InsufficientPrivilege,
            "GRANT CREATE ON DATABASE \"app\" TO \"stranger\"",
        ),
    ] {
        let done = c.restore_with(&filling(&dump, target), flags).await;
        let error = done.result.error.unwrap();
        assert_eq!(error.reason, reason, "{error:?}");
        assert!(error.message.contains(said), "{error:?}");
    }
    assert_same(&state(c, "app"), &before, "nothing is touched");
    // A large object, or only a schema, is something, too; and so is a table of a role that is called like a service.
    for made in [
        "SELECT lo_create(5)",
        "CREATE SCHEMA own AUTHORIZATION tenant",
        "CREATE SCHEMA other AUTHORIZATION neon_lights; CREATE TABLE other.t (a int); ALTER TABLE other.t OWNER TO neon_lights",
    ] {
        renew(c);
        c.psql("app", made);
        let done = c.restore_with(&filling(&dump, "app"), &AS_TENANT).await;
        assert_eq!(done.failure, Some(R::TargetExists), "{made}");
    }
}

/// Rows that only a database of another name has. They come last, after privileges and default privileges.
fn refused_rows(c: &Cluster) {
    c.psql(
        "src",
        "SET ROLE tenant; CREATE MATERIALIZED VIEW public.z AS SELECT 1 / (current_database() = 'src')::int AS a",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_leaves_the_database_empty() {
    let versions = if is_full_campaign() {
        vec![13, 14, 16, 17, 18]
    } else {
        vec![13, 18]
    };
    let others = versions.into_iter().filter_map(bindir_of);
    let mut clusters = vec![Cluster::start()];
    clusters.extend(others.map(|bindir| Cluster::of(&bindir, "")));
    for (n, c) in clusters.into_iter().enumerate() {
        let version = c.psql("postgres", "SHOW server_version");
        start(&c);
        refused_rows(&c);
        if c.psql(
            "postgres",
            "SELECT current_setting('server_version_num')::int >= 150000",
        ) == "t"
        {
            c.psql("src", "SET ROLE tenant; COMMENT ON SCHEMA public IS 'ours'; GRANT CREATE ON SCHEMA public TO role_a");
        }
        // The backup changes the first of these, and has none of the second.
        c.psql(
            "app",
            "SET ROLE tenant; ALTER DEFAULT PRIVILEGES GRANT INSERT ON TABLES TO visitor WITH GRANT OPTION;
             ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO visitor",
        );
        let before = state(&c, "app");
        for (f, format) in [DumpFormat::Custom, DumpFormat::Plain]
            .into_iter()
            .enumerate()
        {
            // Both in the first server, and one in each of the others.
            if n > 0 && f != n % 2 && !is_full_campaign() {
                continue;
            }
            let dump = c.dump_as("src", format);
            // Before 15, the schema public belongs to another role, and a newer pg_dump says so.
            let flags = [AS_TENANT[0], ("restore-owners", "none")];
            let done = c.restore_with(&filling(&dump, "app"), &flags).await;
            let error = done.result.error.unwrap();
            assert_eq!(error.reason, R::DataRejected, "{version}: {error:?}");
            assert_same(&state(&c, "app"), &before, &format!("{version} {format:?}"));
        }
    }
}

/// The fill of a backup that waits, until `meanwhile` has run.
async fn interrupted(c: &Cluster, meanwhile: &str) -> JobOutcome {
    let (waiting, app) = (c.waiting_dump(), c.app(&AS_TENANT));
    let (stop, request) = (CancellationToken::new(), filling(&waiting, "app"));
    let running = app.manager.run(&request, Arc::default(), stop.clone());
    let interrupts = async {
        let waits =
            "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND wait_event = 'PgSleep'";
        c.until(waits).await;
        c.psql("app", meanwhile);
        stop.cancel();
    };
    let (done, ()) = tokio::join!(running, interrupts);
    assert_eq!(done.failure, Some(R::Cancelled));
    done
}

/// What this role may not drop does not keep the rest from being removed.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_made_meanwhile_does_not_keep_the_rest() {
    let c = Cluster::start_with("-c max_prepared_transactions=4");
    start(&c);
    let before = "CREATE ROLE rdsadmin SUPERUSER; SET ROLE rdsadmin;
        CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
        CREATE EVENT TRIGGER watches ON sql_drop EXECUTE FUNCTION public.watch();";
    c.psql("app", before);
    let held = "SELECT to_regclass('public.t'), (SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrestored_fill'),
        has_database_privilege('visitor', current_database(), 'CONNECT')";
    // Such as an extension that belongs to the service that runs the server.
    let meanwhile = "CREATE EXTENSION pg_trgm; GRANT rdsadmin TO tenant";
    let done = interrupted(&c, meanwhile).await;
    assert_eq!(c.psql("app", held), "|0|t", "{:?}", done.result.notes);
    // The role may act for its owner now, and did not make it.
    let triggers =
        "SELECT string_agg(evtname || ' ' || evtenabled::text, ', ') FROM pg_event_trigger";
    assert_eq!(c.psql("app", triggers), "watches O");
    c.psql("app", "REVOKE rdsadmin FROM tenant");
    let theirs = "CREATE SCHEMA theirs; CREATE TABLE theirs.kept (a int);
        BEGIN; LOCK TABLE theirs.kept; PREPARE TRANSACTION 'held';";
    let done = interrupted(&c, theirs).await;
    let notes = &done.result.notes;
    let said = "database app still has table theirs.kept, prepared transaction held";
    assert!(notes.iter().any(|n| n.contains(said)), "{notes:?}");
    let is_filled = notes.iter().any(|n| n.starts_with("filled in place"));
    assert!(!is_filled, "{notes:?}");
    assert_eq!(c.psql("app", held), "|1|f");
    let kept = "SELECT count(*) FROM pg_class WHERE relname = 'kept'";
    assert_eq!(c.psql("app", kept), "1");
    c.psql("app", "ROLLBACK PREPARED 'held'");
    c.psql("app", "DROP SCHEMA theirs CASCADE");
    let dump = c.dump_as("src", DumpFormat::Custom);
    let done = c.restore_with(&filling(&dump, "app"), &AS_TENANT).await;
    assert_eq!(done.result.error, None);
}

/// Settings of the database that a backup makes are reset; others stay.
async fn settings_of_the_database_are_reset(c: &Cluster) {
    renew(c);
    c.psql("postgres", "ALTER DATABASE app SET lock_timeout = '1min'");
    let text = c.scratch("settings.sql");
    let sets = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = %L', current_database(), '7MB'); END $$;";
    std::fs::write(&text, format!("{sets}\nSELECT 1 / 0;\n")).unwrap();
    let done = c.restore_with(&filling(&text, "app"), &AS_TENANT).await;
    assert!(done.failure.is_some());
    let settings = "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase WHERE datname = 'app'";
    assert_eq!(c.psql("postgres", settings), "{lock_timeout=1min}");
}

async fn two_restores_never_fill_one_database(c: &Cluster) {
    renew(c);
    let before = state(c, "app");
    let (waiting, app) = (c.waiting_dump(), c.app(&AS_TENANT));
    let (stop, request) = (CancellationToken::new(), filling(&waiting, "app"));
    let running = app.manager.run(&request, Arc::default(), stop.clone());
    let looked = async {
        let waits =
            "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND wait_event = 'PgSleep'";
        c.until(waits).await;
        let may_connect = "SELECT has_database_privilege('visitor', 'app', 'CONNECT')";
        assert_eq!(c.psql("postgres", may_connect), "f");
        let dump = c.dump_as("src", DumpFormat::Custom);
        // Also if it has the lock of another database.
        let alone = [("db-user", "tenant"), ("db-maintenance-name", "nowhere")];
        for flags in [&AS_TENANT[..], &alone] {
            let second = c.restore_with(&filling(&dump, "app"), flags).await;
            assert_eq!(second.failure, Some(R::TargetBusy));
        }
        stop.cancel();
    };
    let (done, ()) = tokio::join!(running, looked);
    assert_eq!(done.failure, Some(R::Cancelled));
    assert_same(&state(c, "app"), &before, "cancelled");
}

/// Runs the real program, which is killed at `point`.
fn fill(c: &Cluster, dump: &Path, step: (&str, &str)) -> Output {
    fill_as(c, "tenant", dump, step)
}

fn fill_as(c: &Cluster, role: &str, dump: &Path, (id, point): (&str, &str)) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgrestored"))
        .env_clear()
        .env("FAILPOINTS", point)
        .args(["restore", dump.to_str().unwrap(), "--target", "app"])
        .args(["--into-empty", "--output", "json", "--request-id", id])
        .args(["--db-user", role, "--db-host", c.sandbox.host()])
        .output()
        .unwrap()
}

fn kill(c: &Cluster, dump: &Path, (id, step): (&str, &str)) {
    let killed = fill(c, dump, (id, &format!("{step}=return")));
    assert_eq!(killed.status.signal(), Some(9), "{step}: {killed:?}");
}

/// Steps until the database is complete, and those after.
const BEFORE: [&str; 9] = [
    "claimed",
    "announced",
    "fill.marked",
    "schema",
    "copy",
    "task",
    "loaded",
    "checked",
    "fill.checked",
];
const AFTER: [&str; 3] = ["fill.committed", "fill.journaled", "fill.opened"];

/// The next attempt, with the same id, has the outcome of the first one or fills the database itself.
#[test]
fn a_killed_restore_is_completed_by_the_next_attempt() {
    let c = Cluster::start();
    start(&c);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let (source, open) = (
        c.content("src", &[]),
        c.psql("postgres", &format!("{PROPERTIES}'app'")),
    );
    let mut done = 0;
    for has_journal in [true, false] {
        let change = if has_journal {
            "GRANT CREATE ON DATABASE postgres TO tenant"
        } else {
            "DROP SCHEMA pgrestored CASCADE; REVOKE CREATE ON DATABASE postgres FROM tenant"
        };
        c.psql("postgres", change);
        let steps = BEFORE.into_iter().chain(AFTER);
        let steps = steps.skip(usize::from(has_journal && !is_full_campaign()));
        for step in sample(steps, if has_journal { 4 } else { 8 }) {
            let what = format!("killed at {step}, journal: {has_journal}");
            renew(&c);
            let id = format!("{step}-{has_journal}");
            kill(&c, &dump, (&id, step));
            let next = fill(&c, &dump, (&id, ""));
            if has_journal || step != "fill.opened" {
                assert!(next.status.success(), "{what}: {next:?}");
            } else {
                // Nothing remembers the request.
                let said = String::from_utf8_lossy(&next.stdout);
                assert!(said.contains("target_exists"), "{what}: {said}");
            }
            assert_same(&c.content("app", &[]), &source, &what);
            let properties = c.psql("postgres", &format!("{PROPERTIES}'app'"));
            assert_eq!(properties, open, "{what}");
            if has_journal {
                assert_eq!(fill(&c, &dump, (&id, "")).stdout, next.stdout, "{what}");
                let left = "SELECT count(*) FROM pgrestored.owned_database";
                assert_eq!(c.psql("postgres", left), "0", "{what}");
            }
            done += 1;
        }
    }
    eprintln!("CAMPAIGN sigkill fill: {done} steps, all recovered");
}

/// One pass of the reaper, once the server has noticed that the killed process's sessions are gone.
async fn reap(c: &Cluster) -> Reaped {
    let app = c.app(&AS_TENANT);
    loop {
        let reaped = app
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap();
        if reaped.kept.is_empty() {
            return reaped;
        }
        pause().await;
    }
}

/// Whoever holds the lock of the contents works on them, although the locks of the names are free.
async fn contents_in_use_are_left_alone(c: &Cluster, dump: &Path) {
    let free = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name IN ('pgrestored lock', 'pgrestored fill'))";
    c.until(free).await;
    let config = format!("host={} user=postgres dbname=app", c.sandbox.host());
    let (holder, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let lock = "SELECT pg_advisory_lock(hashtextextended('pgrestored:the contents of app', 7))";
    holder.execute(lock, &[]).await.unwrap();
    let app = c.app(&AS_TENANT);
    let request = job(dump, "app", OnExisting::Replace);
    let claims = app
        .manager
        .run(&request, Arc::default(), CancellationToken::new());
    let (done, reaped) = tokio::join!(
        claims,
        app.manager.reap(pgrestored::database::ReapScope::Worker)
    );
    let error = done.result.error.unwrap();
    assert_eq!(error.reason, R::TargetBusy, "{error:?}");
    let said = "another restore is filling database app";
    assert!(error.message.contains(said), "{error:?}");
    let reaped = reaped.unwrap();
    // Also the records of earlier attempts that were killed.
    let is_left = reaped.dropped.is_empty() && !reaped.kept.is_empty();
    assert!(is_left, "{reaped:?}");
}

/// Also if it is killed while it empties the database after a failure. Other requests and the reaper do the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_restore_left_is_removed() {
    let c = Cluster::start();
    start(&c);
    c.psql("postgres", "GRANT CREATE ON DATABASE postgres TO tenant");
    let good = c.dump_as("src", DumpFormat::Custom);
    refused_rows(&c);
    let bad = c.dump_as("src", DumpFormat::Custom);
    let before = state(&c, "app");
    for step in ["fill.emptying", "fill.emptied"] {
        kill(&c, &bad, (step, step));
        let next = fill(&c, &bad, (&format!("after {step}"), ""));
        assert!(!next.status.success(), "{step}: {next:?}");
        assert_same(&state(&c, "app"), &before, step);
    }
    kill(&c, &good, ("reaped", "loaded"));
    contents_in_use_are_left_alone(&c, &good).await;
    let reaped = reap(&c).await;
    let emptied = reaped
        .dropped
        .contains(&"contents of database app".to_owned());
    assert!(emptied && reaped.failed.is_empty(), "{reaped:?}");
    assert_same(&state(&c, "app"), &before, "reaped");
    // A database that was completed is only opened.
    kill(&c, &good, ("completed", "fill.committed"));
    let reaped = reap(&c).await;
    assert_eq!((reaped.dropped, reaped.failed), (vec![], vec![]));
    assert_eq!(c.psql("app", "SELECT count(*) FROM shop.t"), "300");
    let may_connect = "SELECT has_database_privilege('visitor', 'app', 'CONNECT')";
    assert_eq!(c.psql("postgres", may_connect), "t");
    let repeated = fill(&c, &good, ("completed", ""));
    assert!(repeated.status.success(), "{repeated:?}");
}

/// Event triggers of a backup neither refuse the end of a fill, which would leave the database closed, nor record it.
#[test]
fn event_triggers_of_the_backup_do_not_see_the_fill() {
    let c = Cluster::start();
    start(&c);
    c.psql(
        "src",
        "CREATE TABLE public.audit (what text);
         CREATE FUNCTION public.audits() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit VALUES (tg_tag); END $$;
         CREATE FUNCTION public.refuses() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nothing is dropped here'; END $$;
         CREATE EVENT TRIGGER audits ON ddl_command_start EXECUTE FUNCTION public.audits();
         CREATE EVENT TRIGGER refuses ON sql_drop EXECUTE FUNCTION public.refuses();
         CREATE EVENT TRIGGER sleeps ON ddl_command_end EXECUTE FUNCTION public.refuses();
         ALTER EVENT TRIGGER refuses ENABLE ALWAYS; ALTER EVENT TRIGGER sleeps DISABLE",
    );
    let dump = c.dump_as("src", DumpFormat::Custom);
    let killed = fill_as(&c, "postgres", &dump, ("killed", "checked=return"));
    assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
    let next = fill_as(&c, "postgres", &dump, ("next", ""));
    assert!(next.status.success(), "{next:?}");
    let (ours, source) = (c.content("app", &[]), c.content("src", &[]));
    assert_same(&ours, &source, "with event triggers");
    let left = "SELECT (SELECT string_agg(evtname || ' ' || evtenabled::text, ', ' ORDER BY evtname) FROM pg_event_trigger), (SELECT count(*) FROM public.audit),
        to_regnamespace('pgrestored_fill'), has_database_privilege('visitor', current_database(), 'CONNECT')";
    let wanted = "audits O, refuses A, sleeps D|0||t";
    assert_eq!(c.psql("app", left), wanted);
}

/// A copy of a database that was being filled has its record, too, which must not have the copy emptied.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_another_database_is_not_followed() {
    let c = Cluster::start();
    start(&c);
    let dump = c.dump_as("src", DumpFormat::Custom);
    kill(&c, &dump, ("killed", "fill.marked"));
    let of_fill = c.dump_to_file("app", &[]);
    c.pg_restore(&of_fill, "restored", &[]);
    c.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = 'app')")
        .await;
    c.psql(
        "postgres",
        "ALTER DATABASE restored OWNER TO tenant;\nCREATE DATABASE copied OWNER tenant TEMPLATE app;",
    );
    for target in ["restored", "copied"] {
        c.psql(
            target,
            "SET ROLE tenant; CREATE TABLE public.precious (a int)",
        );
        let done = c.restore_with(&filling(&dump, target), &AS_TENANT).await;
        let error = done.result.error.unwrap();
        assert_eq!(error.reason, R::TargetExists, "{target}: {error:?}");
        assert!(
            error.message.contains("schema pgrestored_fill"),
            "{error:?}"
        );
        let kept = c.psql(target, "SELECT count(*) FROM public.precious");
        assert_eq!(kept, "0", "{target}");
    }
    // pg_upgrade keeps the OID and the transaction, but not what the record lists.
    let cluster = "SELECT split_part(home, ' ', 3) = (SELECT system_identifier::text FROM pg_control_system()) FROM pgrestored_fill.fill";
    assert_eq!(c.psql("app", cluster), "t");
    c.psql("app", "UPDATE pgrestored_fill.fill SET home = home || '1'");
    let done = c.restore_with(&filling(&dump, "app"), &AS_TENANT).await;
    assert_eq!(done.failure, Some(R::TargetExists));
    // The database itself is filled by the next attempt.
    let home = "UPDATE pgrestored_fill.fill SET home = left(home, -1)";
    c.psql("app", home);
    let next = fill(&c, &dump, ("killed", ""));
    assert!(next.status.success(), "{next:?}");
}

/// A record that somebody else wrote must not have a database emptied.
async fn a_record_of_another_role_is_not_followed(c: &Cluster) {
    renew(c);
    let dump = c.dump_as("src", DumpFormat::Custom);
    c.psql(
        "app",
        "CREATE TABLE public.precious (a int); GRANT CREATE ON DATABASE app TO visitor; SET ROLE visitor;
         CREATE SCHEMA pgrestored_fill; CREATE TABLE pgrestored_fill.fill (staging text, attempt text, is_closed bool, outcome text);
         INSERT INTO pgrestored_fill.fill VALUES ('x', 'x', false, NULL); CREATE TABLE pgrestored_fill.present (class oid, object oid);
         CREATE TABLE pgrestored_fill.space (object oid, owner oid, acl aclitem[], comment text)",
    );
    let done = c.restore_with(&filling(&dump, "app"), &[]).await;
    let error = done.result.error.unwrap();
    assert_eq!(error.reason, R::InsufficientPrivilege, "{error:?}");
    assert!(error.message.contains("visitor"), "{error:?}");
    assert_eq!(c.psql("app", "SELECT count(*) FROM public.precious"), "0");
}

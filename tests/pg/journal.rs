//! What the journal guarantees: one outcome per request, the order of requests, rollback, and that nothing is left
//! behind.

use std::path::Path;
use std::sync::Arc;

use pgrestored::database::Reaped;
use pgrestored::error::FailureReason as R;
use pgrestored::job::{OnExisting, RestoreJob};
use pgrestored::manager::JobOutcome;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, is_full_campaign, job, published_us};

fn source(word: &str) -> String {
    format!(
        "CREATE TABLE {word} (id int PRIMARY KEY); INSERT INTO {word} SELECT generate_series(1, 500)"
    )
}

/// The names of the tables of a database, which show the backup it came from.
fn marker(c: &Cluster, database: &str) -> String {
    c.psql(
        database,
        "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'",
    )
}

async fn restore(c: &Cluster, job: &RestoreJob) -> JobOutcome {
    c.restore_with(job, &[]).await
}

/// A cluster, and the dumps of two databases with [`source`] of `old` and `new`, which `pg_dump -Fc` of PostgreSQL 15 wrote: to
/// make two for each of these tests takes longer than to restore them.
fn two_backups() -> (Cluster, std::path::PathBuf, std::path::PathBuf) {
    let c = Cluster::start();
    let dumps: [(&str, &[u8]); 2] = [
        ("old.dump", include_bytes!("journal/old.dump")),
        ("new.dump", include_bytes!("journal/new.dump")),
    ];
    let [old, new] = dumps.map(|(name, bytes)| {
        let file = c.scratch(name);
        std::fs::write(&file, bytes).unwrap();
        file
    });
    (c, old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_request_never_replaces_a_newer_result() {
    let (c, old, new) = two_backups();
    let newer = RestoreJob {
        published_us: published_us(200),
        ..job(&new, "app", OnExisting::Replace)
    };
    let older = RestoreJob {
        published_us: published_us(100),
        ..job(&old, "app", OnExisting::Replace)
    };
    assert_eq!(restore(&c, &newer).await.failure, None);
    let late = restore(&c, &older).await;
    assert_eq!(late.failure, Some(R::TargetNotAllowed));
    let message = late.result.error.clone().unwrap().message;
    assert!(
        message.contains("superseded") && message.contains(&newer.request_id),
        "{message}"
    );
    assert_eq!(
        (marker(&c, "app").as_str(), c.leftovers().len()),
        ("new", 0)
    );
    // Its outcome is final, too.
    let again = restore(&c, &older).await;
    assert!(again.repeated);
    assert_eq!(again.result, late.result);
    // A failed newer request changed nothing, so it supersedes nothing.
    let broken = c.scratch("broken");
    std::fs::write(&broken, b"PGDMP broken").unwrap();
    let failed = RestoreJob {
        published_us: published_us(900),
        ..job(&broken, "app", OnExisting::Replace)
    };
    assert!(restore(&c, &failed).await.failure.is_some());
    let between = RestoreJob {
        published_us: published_us(300),
        ..job(&old, "app", OnExisting::Replace)
    };
    assert_eq!(restore(&c, &between).await.failure, None);
    assert_eq!(marker(&c, "app"), "old");
    // Without a publish time, the server's clock decides: after everything before.
    let now = RestoreJob {
        published_us: None,
        ..job(&new, "app", OnExisting::Replace)
    };
    assert_eq!(restore(&c, &now).await.failure, None);
    assert_eq!(
        restore(&c, &job(&old, "app", OnExisting::Replace))
            .await
            .failure,
        Some(R::TargetNotAllowed)
    );
    assert_eq!(marker(&c, "app"), "new");
}

/// Old outcomes are forgotten, but not what orders the requests of a target.
#[tokio::test(flavor = "multi_thread")]
async fn old_outcomes_are_forgotten_except_the_newest_of_a_target() {
    let (c, old, new) = two_backups();
    let mut ids = Vec::new();
    for (target, days) in [("app", 91), ("other", 89)] {
        for (archive, later) in [(&old, 1), (&new, 2)] {
            let job = RestoreJob {
                published_us: published_us(later),
                ..job(archive, target, OnExisting::Replace)
            };
            assert_eq!(restore(&c, &job).await.failure, None);
            ids.push(job.request_id);
        }
        let aged = format!(
            "UPDATE pgrestored.request SET updated = now() - interval '{days} days' WHERE target = '{target}'"
        );
        c.psql("postgres", &aged);
    }
    c.app(&[])
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    let remembered = c.psql(
        "postgres",
        "SELECT request_id FROM pgrestored.request ORDER BY request_id",
    );
    assert_eq!(remembered.lines().collect::<Vec<_>>(), ids[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_outcome_and_its_id_one_meaning() {
    let (c, old, new) = two_backups();
    let first = job(&old, "app", OnExisting::Fail);
    let done = restore(&c, &first).await;
    assert_eq!((done.failure, done.repeated), (None, false));
    c.psql("app", "INSERT INTO old VALUES (-1)");
    let again = restore(&c, &first).await;
    assert!(again.repeated);
    assert_eq!(again.result, done.result);
    assert_eq!(
        c.psql("app", "SELECT count(*) FROM old"),
        "501",
        "not restored twice"
    );
    // A request that was refused because of what existed stays refused when that is gone.
    let refused = job(&new, "app", OnExisting::Fail);
    assert_eq!(restore(&c, &refused).await.failure, Some(R::TargetExists));
    c.psql("postgres", "DROP DATABASE app");
    let again = restore(&c, &refused).await;
    assert_eq!(
        (again.failure, again.repeated),
        (Some(R::TargetExists), true)
    );
    assert!(!c.databases().contains(&"app".to_owned()));
    // The same id for another request.
    let reused = RestoreJob {
        request_id: first.request_id.clone(),
        ..job(&new, "other", OnExisting::Fail)
    };
    assert_eq!(restore(&c, &reused).await.failure, Some(R::InvalidRequest));
    assert!(!c.databases().contains(&"other".to_owned()));
    let c = Arc::new(c);
    an_attempt_that_lost_its_lock_fails_temporarily(&c, &old).await;
    comments_that_are_no_text_are_in_nobodys_way(&c, &old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_crashes_workers_is_quarantined() {
    let (c, old, _) = two_backups();
    let deadly = job(&c.waiting_dump(), "app", OnExisting::Fail);
    restore(&c, &job(&old, "other", OnExisting::Fail)).await;
    let died = |times: u32| {
        c.psql(
            "postgres",
            &format!(
                "INSERT INTO pgrestored.request (request_id, digest, target, sequence, attempt, state, starts)
                 VALUES ('{}', '{}', 'app', 1, gen_random_uuid(), 'running', {times})
                 ON CONFLICT (request_id) DO UPDATE SET starts = {times}, state = 'running'",
                deadly.request_id,
                deadly.digest.replace('\'', "''")
            ),
        )
    };
    died(10);
    // Other deliveries were interrupted, which is no crash.
    let late = RestoreJob {
        attempt: 15,
        ..deadly.clone()
    };
    let done = restore(&c, &late).await;
    assert_eq!(done.failure, Some(R::Internal));
    let error = &done.result.error.as_ref().unwrap().message;
    assert!(
        error.contains("quarantined: 10 earlier attempts crashed"),
        "{error}"
    );
    assert!(done.is_final, "the worker must acknowledge it");
    assert!(restore(&c, &deadly).await.repeated);
    // An orderly stop is not a crash, and resets the count of earlier ones.
    died(9);
    let (app, stop) = (c.app(&[]), CancellationToken::new());
    let stopped = async {
        while c.leftovers().is_empty() {
            crate::support::pause().await;
        }
        stop.cancel();
    };
    let (done, ()) = tokio::join!(
        app.manager.run(&deadly, Arc::default(), stop.clone()),
        stopped
    );
    assert_eq!(done.failure, Some(R::Cancelled));
    let starts = format!(
        "SELECT starts FROM pgrestored.request WHERE request_id = '{}'",
        deadly.request_id
    );
    assert_eq!(c.psql("postgres", &starts), "0");
    died(9);
    c.psql("postgres", "CREATE ROLE go_on");
    assert_eq!(restore(&c, &deadly).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_restores_the_replaced_database_and_can_be_undone() {
    let (c, old, new) = two_backups();
    restore(&c, &job(&old, "app", OnExisting::Fail)).await;
    c.psql(
        "postgres",
        "ALTER DATABASE app SET my.side = 'old'; COMMENT ON DATABASE app IS 'mine'",
    );
    let replaced = restore(&c, &job(&new, "app", OnExisting::Replace)).await;
    c.psql("postgres", "ALTER DATABASE app SET my.side = 'new'");
    let app = c.app(&[]);
    let kept = app.manager.kept("app").await.unwrap();
    assert_eq!(
        kept.iter().map(|k| k.name.clone()).collect::<Vec<_>>(),
        [replaced.result.previous_database.unwrap()]
    );
    let until = kept[0].keep_until.unwrap().duration_since(kept[0].replaced);
    assert!((86_390..86_410).contains(&until.as_secs()), "{until:?}");
    // Newer by its name, but recorded by nobody.
    let newer = format!("{}f", kept[0].name);
    c.psql("postgres", &format!("CREATE DATABASE \"{newer}\""));
    let back = app.manager.rollback("app", None, "rb1").await.unwrap();
    assert_eq!(back.restored_database, kept[0].name);
    assert!(
        !back.notes.iter().any(|n| n.contains("bookkeeping")),
        "{:?}",
        back.notes
    );
    assert_eq!(
        (
            marker(&c, "app").as_str(),
            c.psql("app", "SHOW my.side").as_str()
        ),
        ("old", "old")
    );
    let comment =
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'app'";
    assert_eq!(c.psql("postgres", comment), "mine");
    // The same id is the same rollback.
    assert_eq!(
        app.manager.rollback("app", None, "rb1").await.unwrap(),
        back
    );
    assert_eq!(marker(&c, "app"), "old");
    let forth = app.manager.rollback("app", None, "rb2").await.unwrap();
    assert_eq!(
        Some(&forth.restored_database),
        back.previous_database.as_ref()
    );
    assert_eq!(marker(&c, "app"), "new");
    // A request from before the rollback does not undo it.
    assert_eq!(
        restore(&c, &job(&old, "app", OnExisting::Replace))
            .await
            .failure,
        Some(R::TargetNotAllowed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_would_lose_data_is_refused() {
    let c = Cluster::start_with("-c wal_level=logical -c max_wal_senders=4");
    c.create("a", &source("old"));
    let dump = c.dump_to_file("a", &[]);
    let app = c.app(&[]);
    let reason = async |target: &str, wanted: Option<&str>| {
        app.manager
            .rollback(target, wanted, &uuid::Uuid::new_v4().to_string())
            .await
            .unwrap_err()
    };
    assert!(
        reason("app", None)
            .await
            .to_string()
            .contains("no replaced database is retained")
    );
    assert_eq!(reason("postgres", None).await.reason(), R::TargetNotAllowed);
    c.create("app", "CREATE TABLE precious ()");
    restore(&c, &job(&dump, "app", OnExisting::Replace)).await;
    assert!(
        reason("app", Some("template1"))
            .await
            .to_string()
            .contains("not a retained database")
    );
    c.psql(
        "app",
        "SELECT pg_create_logical_replication_slot('s', 'test_decoding')",
    );
    let e = reason("app", None).await;
    assert!(
        e.reason() == R::TargetNotAllowed && e.to_string().contains("slot"),
        "{e}"
    );
    assert_eq!(
        (
            marker(&c, "app").as_str(),
            c.psql("app", "SELECT count(*) FROM pg_replication_slots")
                .as_str()
        ),
        ("old", "1")
    );
    c.psql("app", "SELECT pg_drop_replication_slot('s')");
    assert!(app.manager.rollback("app", None, "ok").await.is_ok());
    assert_eq!(marker(&c, "app"), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_databases_are_kept_as_long_as_configured() {
    let (c, old, new) = two_backups();
    restore(&c, &job(&old, "app", OnExisting::Fail)).await;
    let at_once = [("restore-keep-previous", "0")];
    let done = c
        .restore_with(&job(&new, "app", OnExisting::Replace), &at_once)
        .await;
    assert_eq!(done.failure, None);
    assert!(
        !c.databases()
            .contains(&done.result.previous_database.unwrap())
    );
    let done = restore(&c, &job(&old, "app", OnExisting::Replace)).await;
    let kept = done.result.previous_database.unwrap();
    assert!(
        c.app(&[])
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .kept
            .contains(&kept)
    );
    c.psql(
        "postgres",
        "UPDATE pgrestored.owned_database SET keep_until = now()",
    );
    // The last copy is kept, whatever its age.
    c.psql("postgres", "ALTER DATABASE app RENAME TO elsewhere");
    assert!(
        c.app(&[])
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .kept
            .contains(&kept)
    );
    c.psql("postgres", "ALTER DATABASE elsewhere RENAME TO app");
    let reaped = c
        .app(&[])
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    assert_eq!(reaped.dropped, [format!("database {kept}")]);
}

/// What a killed worker leaves behind: the intent, the database, a role.
fn leave_behind(c: &Cluster, number: u32, in_it: &str) -> String {
    let name = format!("pgrestored_s_{number:016x}");
    c.psql(
        "postgres",
        &format!("INSERT INTO pgrestored.owned_database (name, kind, request_id, target) VALUES ('{name}', 'staging', 'dead{number}', 'app')"),
    );
    c.psql(
        "postgres",
        &format!("CREATE DATABASE {name} TEMPLATE template0"),
    );
    let (outside, inside): (Vec<&str>, Vec<&str>) =
        in_it.split_inclusive(';').partition(|s| s.contains("SELF"));
    c.psql(&name, &inside.concat());
    c.psql("postgres", &outside.concat().replace("SELF", &name));
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reaper_drops_only_recorded_databases() {
    let c = Cluster::start_with("-c max_prepared_transactions=4 -c wal_level=logical");
    c.create("a", &source("old"));
    let dump = c.dump_to_file("a", &[]);
    restore(&c, &job(&dump, "app", OnExisting::Fail)).await;
    let left = [
        leave_behind(&c, 1, ""),
        leave_behind(&c, 2, "ALTER DATABASE SELF IS_TEMPLATE true"),
        leave_behind(&c, 3, "ALTER DATABASE SELF ALLOW_CONNECTIONS false"),
        leave_behind(&c, 4, "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)"),
        leave_behind(&c, 5, "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE);
            ALTER DATABASE SELF SET session_preload_libraries = 'nothing'; ALTER DATABASE SELF CONNECTION LIMIT 0"),
        leave_behind(&c, 6, "SELECT pg_create_logical_replication_slot('left', 'test_decoding')"),
        // Last, because creating a slot waits for transactions.
        leave_behind(&c, 7, "CREATE TABLE t (); BEGIN; INSERT INTO t DEFAULT VALUES; PREPARE TRANSACTION 'left'"),
    ];
    c.psql(
        "postgres",
        &format!(
            "CREATE ROLE left_role; COMMENT ON ROLE left_role IS 'made by pgrestored for {}'",
            left[0]
        ),
    );
    // An intent without a database, a living worker, databases of others.
    c.psql("postgres", "INSERT INTO pgrestored.owned_database (name, kind, request_id, target) VALUES ('pgrestored_s_00000000000000ff', 'staging', 'never', 'app')");
    let living = leave_behind(&c, 8, "");
    let config = format!("host={} user=postgres dbname=postgres", c.sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let lock = format!("SELECT pg_advisory_lock(hashtextextended('pgrestored:{living}', 7))");
    client.batch_execute(&lock).await.unwrap();
    let strangers = [
        "pgrestored_s_0123456789abcdef",
        "pgrestored_stage",
        "pgrestored_v_1",
        "my_pgrestored_s_0123456789abcdef",
    ];
    strangers.iter().for_each(|s| c.create(s, ""));

    let app = c.app(&[]);
    let reaped = app
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    let mut dropped: Vec<String> = left.iter().map(|n| format!("database {n}")).collect();
    dropped.push("role left_role".into());
    let mut ours = reaped.dropped.clone();
    ours.sort();
    dropped.sort();
    assert_eq!((ours, &reaped.failed), (dropped, &vec![]));
    assert_eq!(
        (reaped.kept, reaped.unknown),
        (
            vec![living.clone()],
            vec!["pgrestored_s_0123456789abcdef".to_owned()]
        )
    );
    let there = c.databases();
    assert!(strangers.iter().all(|s| there.contains(&s.to_string())) && there.contains(&living));
    assert_eq!(
        c.psql("postgres", "SELECT count(*) FROM pgrestored.owned_database"),
        "1"
    );
    driver.abort();
    drop(client);
    // The server notices by itself that the worker is gone.
    let done = async {
        while app
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .dropped
            .is_empty()
        {
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), done)
        .await
        .unwrap();
    let again = app
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    assert_eq!(
        again,
        Reaped {
            unknown: vec!["pgrestored_s_0123456789abcdef".into()],
            ..Reaped::default()
        }
    );
}

/// A role that may not create the schema: everything works, and the result says what is missing. One database that
/// cannot be dropped does not keep the others from being dropped.
#[tokio::test(flavor = "multi_thread")]
async fn databases_that_the_reaper_may_not_drop_are_reported() {
    let c = Cluster::start();
    c.psql(
        "postgres",
        "CREATE ROLE maker LOGIN CREATEDB; GRANT CREATE ON DATABASE postgres TO maker",
    );
    let app = c.app(&[("db-user", "maker")]);
    let waiting = job(&c.waiting_dump(), "app", OnExisting::Fail);
    c.psql("postgres", "CREATE ROLE go_on");
    let done = app
        .manager
        .run(&waiting, Arc::default(), CancellationToken::new())
        .await;
    assert_eq!(done.result.error, None);
    let (theirs, ours) = (
        leave_behind(&c, 1, ""),
        leave_behind(&c, 2, "ALTER DATABASE SELF OWNER TO maker;"),
    );
    let reaped = app
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    assert_eq!(reaped.dropped, [format!("database {ours}")], "{reaped:?}");
    assert_eq!(reaped.failed.len(), 1);
    assert!(
        reaped.failed[0].starts_with(&format!("{theirs}: ")),
        "{reaped:?}"
    );
    assert_eq!(c.leftovers(), [theirs]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restores_work_without_the_journal_schema_and_say_so() {
    let (c, old, new) = two_backups();
    c.psql("postgres", "CREATE ROLE plain LOGIN CREATEDB");
    let as_plain = [
        ("db-user", "plain"),
        ("restore-owners", "none"),
        ("restore-no-privileges", "true"),
    ];
    let done = c
        .restore_with(&job(&old, "app", OnExisting::Fail), &as_plain)
        .await;
    assert_eq!(done.result.error, None);
    assert!(
        done.result.notes.iter().any(|n| n.contains("bookkeeping")),
        "{:?}",
        done.result.notes
    );
    let done = c
        .restore_with(&job(&new, "app", OnExisting::Replace), &as_plain)
        .await;
    assert_eq!((done.failure, marker(&c, "app").as_str()), (None, "new"));
    let app = c.app(&as_plain);
    let kept = app.manager.kept("app").await.unwrap();
    assert_eq!(
        kept.first().map(|k| &k.name),
        done.result.previous_database.as_ref()
    );
    let back = app.manager.rollback("app", None, "back").await.unwrap();
    assert!(
        back.notes.iter().any(|n| n.contains("bookkeeping")),
        "{:?}",
        back.notes
    );
    assert_eq!(marker(&c, "app"), "old");
    // Its own staging databases are recognized by their comments.
    let labelled = "pgrestored_s_00000000000000aa";
    c.psql(
        "postgres",
        &format!("CREATE DATABASE {labelled} OWNER plain"),
    );
    assert_eq!(
        app.manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .dropped,
        Vec::<String>::new()
    );
    c.psql(
        "postgres",
        &format!(
            "COMMENT ON DATABASE {labelled} IS 'pgrestored staging database for app, request x'"
        ),
    );
    assert_eq!(
        app.manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .dropped,
        [format!("database {labelled}")]
    );
    assert_eq!(
        c.psql("postgres", "SELECT to_regnamespace('pgrestored') IS NULL"),
        "t"
    );
}

/// Other workers clean up after an attempt that lost its lock: the errors it gets are transient.
async fn an_attempt_that_lost_its_lock_fails_temporarily(c: &Arc<Cluster>, old: &Path) {
    let lose = |what: &'static str| {
        let c = c.clone();
        move || {
            let staging = c
                .leftovers()
                .into_iter()
                .find(|d| d.starts_with("pgrestored_s_"))
                .unwrap();
            c.psql("postgres", "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'pgrestored lock'");
            c.psql("postgres", &what.replace("STAGING", &staging));
        }
    };
    for (a, at) in ["schema", "loaded", "checked"].into_iter().enumerate() {
        for (w, what) in [
            "DROP DATABASE STAGING WITH (FORCE)",
            "DROP DATABASE STAGING WITH (FORCE);\nCREATE DATABASE STAGING",
        ]
        .into_iter()
        .enumerate()
        {
            // By turns, in `make test`.
            if a % 2 != w && !is_full_campaign() {
                continue;
            }
            fail::cfg_callback(at, lose(what)).unwrap();
            let request = job(old, "app", OnExisting::Fail);
            let first = restore(c, &request).await;
            assert_eq!(
                first.failure,
                Some(R::TargetUnavailable),
                "{at}: {:?}",
                first.result.error
            );
            fail::remove(at);
            let again = restore(c, &request).await;
            assert_eq!(again.failure, None, "{at}: {:?}", again.result.error);
            assert_eq!((marker(c, "app").as_str(), c.leftovers()), ("old", vec![]));
            c.psql("postgres", "DROP DATABASE app");
        }
    }
}

async fn a_database_pinned_by_oid_is_not_confused_with_its_successor(c: &Cluster) {
    c.create("ours", "SELECT 1");
    let server = pgrestored::postgres::Server::new(&c.app(&[]).manager.config().db).unwrap();
    let oid: u32 = c
        .psql(
            "postgres",
            "SELECT oid FROM pg_database WHERE datname = 'ours'",
        )
        .parse()
        .unwrap();
    let bound = server.pinned_to_oid("ours", oid);
    assert!(
        bound.connect("ours", "test").await.is_ok()
            && bound.connect("postgres", "test").await.is_ok()
    );
    for sql in ["DROP DATABASE ours", "CREATE DATABASE ours"] {
        c.psql("postgres", sql);
        let e = bound.connect("ours", "test").await.err().unwrap();
        assert_eq!(e.reason(), R::TargetUnavailable, "{e}");
    }
    assert_eq!(
        server
            .connect("missing", "test")
            .await
            .err()
            .unwrap()
            .reason(),
        R::RestoreError
    );
}

/// A comment has the encoding of whichever database it was written from, and may be anybody's.
async fn comments_that_are_no_text_are_in_nobodys_way(c: &Cluster, old: &Path) {
    c.psql(
        "postgres",
        "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0",
    );
    let replacing = job(old, "app", OnExisting::Replace);
    assert_eq!(
        restore(c, &job(old, "app", OnExisting::Fail)).await.failure,
        None
    );
    for database in ["app", "postgres"] {
        let sql = format!("COMMENT ON DATABASE {database} IS E'caf\\xe9'");
        c.psql("latin", &sql);
    }
    let done = restore(c, &replacing).await.result;
    assert_eq!(done.error, None);
    let comment =
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'app'";
    assert_eq!(c.psql("postgres", comment), "", "it cannot be copied");
}

/// A request whose worker was killed and whose message was never redelivered ends once its message would no longer
/// be accepted. Requests that are running or may still be redelivered are left alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_request_ends() {
    let (c, old, _) = two_backups();
    assert_eq!(
        restore(&c, &job(&old, "app", OnExisting::Fail))
            .await
            .failure,
        None
    );
    let lost = job(&old, "lost_target", OnExisting::Fail);
    for (id, published, touched) in [
        (lost.request_id.as_str(), "8 days", "8 days"),
        ("living", "8 days", "8 days"),
        ("tried again", "8 days", "2 hours"),
        ("young", "6 days", "6 days"),
    ] {
        c.psql("postgres", &format!(
            "INSERT INTO pgrestored.request (request_id, digest, target, sequence, attempt, state, updated)
             VALUES ('{id}', $d${}$d$, 'lost_target', extract(epoch FROM now() - interval '{published}') * 1000000,
               gen_random_uuid(), 'running', now() - interval '{touched}')", lost.digest));
    }
    let config = format!("host={} user=postgres dbname=postgres", c.sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    let driver = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let lock = "SELECT pg_advisory_lock(hashtextextended('pgrestored:pgrestored_s_'
        || left(encode(sha256('living'), 'hex'), 16), 7))";
    client.batch_execute(lock).await.unwrap();

    let app = c.app(&[]);
    let server = pgrestored::postgres::Server::new(&app.config.db).unwrap();
    let mut unended = pgrestored::database::unended(&server, std::time::Duration::from_secs(3600))
        .await
        .unwrap();
    unended.sort();
    assert_eq!(unended, [lost.request_id.as_str(), "tried again", "young"]);
    assert_eq!(
        app.manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .abandoned,
        std::slice::from_ref(&lost.request_id)
    );
    assert_eq!(
        app.manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap(),
        Reaped::default()
    );
    let left = c.psql(
        "postgres",
        "SELECT request_id FROM pgrestored.request WHERE state = 'running' ORDER BY 1",
    );
    assert_eq!(left, "living\ntried again\nyoung");
    // A later delivery gets that outcome.
    let again = restore(&c, &lost).await;
    assert_eq!((again.failure, again.repeated), (Some(R::Internal), true));
    let message = again.result.error.unwrap().message;
    assert!(
        message.starts_with("abandoned: ")
            && message.contains("the restore into lost_target was not applied"),
        "{message}"
    );
    drop(driver);
}

/// A role uses a journal that another role created as far as it may, and works without one otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_role_is_used_or_left_alone() {
    let (c, old, _) = two_backups();
    assert_eq!(
        restore(&c, &job(&old, "first", OnExisting::Fail))
            .await
            .failure,
        None
    );
    c.psql("postgres", "CREATE ROLE worker LOGIN CREATEDB");
    let restore_as = async |role: &str, target: &str| {
        let job = job(&old, target, OnExisting::Fail);
        let flags = [("db-user", role), ("restore-owners", "none")];
        let done = c.restore_with(&job, &flags).await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        let has_journal = !done
            .result
            .notes
            .iter()
            .any(|n| n.starts_with("no bookkeeping"));
        // Only the journal recognizes the request.
        let again = c.restore_with(&job, &flags).await;
        assert_eq!(again.repeated, has_journal, "{:?}", again.result.error);
        assert_eq!(
            again.failure.is_none(),
            has_journal,
            "{:?}",
            again.result.error
        );
        has_journal
    };
    let server = |role: &str| {
        let config = c.app(&[("db-user", role)]).config.db.clone();
        pgrestored::postgres::Server::new(&config).unwrap()
    };
    assert!(!restore_as("worker", "second").await);
    let why = pgrestored::database::check_journal(&server("worker"))
        .await
        .unwrap()
        .unwrap();
    let (_, grants) = why.split_once("; ").unwrap();
    c.psql("postgres", grants);
    assert_eq!(
        pgrestored::database::check_journal(&server("worker"))
            .await
            .unwrap(),
        None
    );
    assert!(restore_as("worker", "third").await);
    // The schema that deploy/postgres creates for the worker, which may not create schemas itself.
    let roles = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/postgres/roles.sql");
    c.psql("postgres", "DROP SCHEMA pgrestored CASCADE");
    c.psql("postgres", &std::fs::read_to_string(roles).unwrap());
    assert_eq!(
        pgrestored::database::check_journal(&server("pgrestored"))
            .await
            .unwrap(),
        None
    );
    assert_eq!(
        c.psql(
            "postgres",
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'pgrestored'"
        ),
        "0"
    );
    assert!(restore_as("pgrestored", "fourth").await);
}

/// An id that was used on the command line answers the same command again, and no other one.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_on_the_command_line_stands_for_one_command() {
    let (c, old, _) = two_backups();
    a_database_pinned_by_oid_is_not_confused_with_its_successor(&c).await;
    an_interrupted_command_leaves_no_running_request(&c);
    let restore = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgrestored"))
            .env_clear()
            .args(["restore", old.to_str().unwrap(), "--request-id", "once"])
            .args(args)
            .args(["--db-host", c.sandbox.host()])
            .output()
            .unwrap();
        let is_done = output.status.success();
        let said = if is_done {
            output.stdout
        } else {
            output.stderr
        };
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let first = restore(&["--target", "first"]);
    assert_eq!(first.0, Some(0), "{}", first.1);
    assert_eq!(restore(&["--target", "first"]), first);
    for other in [
        &["--target", "second"][..],
        &["--target", "first", "--table", "public.old"],
        &["--target", "first", "--on-existing", "replace"],
    ] {
        let (code, text) = restore(other);
        assert_eq!(code, Some(2), "{other:?}: {text}");
        assert!(
            text.contains("was already used for another request"),
            "{text}"
        );
    }
    assert!(!c.databases().contains(&"second".to_owned()));
}

/// Nobody repeats a command by itself: one that was interrupted does not stay in the journal as running.
fn an_interrupted_command_leaves_no_running_request(c: &Cluster) {
    let requests = || {
        let sql = "SELECT CASE WHEN to_regclass('pgrestored.request') IS NULL THEN '' ELSE
            query_to_xml('SELECT state FROM pgrestored.request', false, true, '')::text END";
        c.psql("postgres", sql)
    };
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgrestored"))
        .env_clear()
        .args(["restore", c.waiting_dump().to_str().unwrap()])
        .args(["--target", "stopped", "--db-host", c.sandbox.host()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !requests().contains("running") {
        assert_eq!(command.try_wait().unwrap(), None, "the restore has ended");
    }
    let pid = command.id().to_string();
    let signalled = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(signalled.unwrap().success());
    assert_eq!(command.wait().unwrap().code(), Some(130));
    assert_eq!(requests(), "");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// The server's messages and a request's labels fit into the journal, whatever they contain.
#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_can_be_recorded() {
    let (c, old, _) = two_backups();
    let endless =
        "DO $$ BEGIN RAISE EXCEPTION '%', repeat(E'x\\n\\x1b]0;owned\\x07', 1500000); END $$;";
    let text = std::fs::read_to_string(c.waiting_dump()).unwrap();
    let (before, after) = text.split_once("DO $$").unwrap();
    let (_, after) = after.split_once("END $$;").unwrap();
    let endless = format!("{before}{endless}{after}");
    let file = c.scratch("endless.sql");
    std::fs::write(&file, endless).unwrap();
    let failed = restore(&c, &job(&file, "endless", OnExisting::Fail)).await;
    let message = failed.result.error.unwrap().message;
    assert!(
        message.contains("xx\\u{1b}]0;owned\\u{7}") || message.contains("x \\u{1b}]0;owned\\u{7}"),
        "{message}"
    );
    assert!(message.len() <= pgrestored::error::MAX_TEXT && !message.chars().any(char::is_control));
    let longest = c.psql(
        "postgres",
        "SELECT max(length(outcome::text)) < 5000 FROM pgrestored.request",
    );
    assert_eq!(longest, "t");

    c.psql(
        "postgres",
        "CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    let in_latin = [("db-maintenance-name", "latin")];
    let mut labelled = job(&old, "app", OnExisting::Fail);
    labelled
        .labels
        .insert("team".into(), "Zürich 🐘 \"\\".into());
    let done = c.restore_with(&labelled, &in_latin).await;
    assert_eq!(done.result.error, None);
    let again = c.restore_with(&labelled, &in_latin).await;
    assert!(again.repeated);
    assert_eq!(again.result, done.result);
    let mut foreign = job(&old, "app2", OnExisting::Fail);
    foreign.request_id = "🐘".into();
    let refused = c.restore_with(&foreign, &in_latin).await;
    assert_eq!(
        refused.failure,
        Some(R::InvalidRequest),
        "{:?}",
        refused.result.error
    );
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

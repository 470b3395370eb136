//! Staging and swap: the target is never partly restored, nothing is left behind, and properties that belong to the
//! database and not to the dump are carried over.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgdump_restore::Stage;
use pgrestored::error::FailureReason as R;
use pgrestored::job::OnExisting;
use pgrestored::manager::JobOutcome;
use pgrestored::progress::Progress;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, is_full_campaign, job};

const SOURCE: &str = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i";

fn marker(c: &Cluster, database: &str) -> String {
    c.psql(
        database,
        "SELECT string_agg(tablename, ',' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'",
    )
}

/// A superuser's session.
async fn connect(c: &Cluster, database: &str) -> (tokio_postgres::Client, Connection) {
    let config = format!("host={} user=postgres dbname={database}", c.sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    (client, tokio::spawn(connection))
}

type Connection = tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>;

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_target_is_refused_and_left_alone() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    c.create("app", "CREATE TABLE precious (a int)");
    let archive = c.dump_to_file("src", &[]);
    let done = c.try_restore(&archive, "app", OnExisting::Fail).await;
    assert_eq!(done.failure, Some(R::TargetExists));
    assert_eq!(
        (marker(&c, "app").as_str(), c.leftovers().len()),
        ("precious", 0)
    );
    a_target_has_one_restore_at_a_time(&c, &archive).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_database_is_kept_and_its_properties_are_carried_over() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    c.create("app", "CREATE TABLE precious (a int)");
    c.psql(
        "postgres",
        "ALTER DATABASE app OWNER TO role_a; ALTER DATABASE app CONNECTION LIMIT 1; COMMENT ON DATABASE app IS 'it''s \\ ours';
         REVOKE ALL ON DATABASE app FROM PUBLIC; GRANT CONNECT ON DATABASE app TO role_b WITH GRANT OPTION;
         ALTER DATABASE app SET search_path = \"$user\", public, \"Odd\"; ALTER DATABASE app SET my.setting = 'a''b';
         ALTER ROLE role_b IN DATABASE app SET work_mem = '7MB'",
    );
    let describe = "SELECT pg_get_userbyid(datdba), datconnlimit, shobj_description(d.oid, 'pg_database'), datacl,
        (SELECT string_agg(setrole::regrole || ':' || setconfig::text, ' ' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)
        FROM pg_database d WHERE datname = 'app'";
    let before = c.psql("postgres", describe);
    let (client, connection) = connect(&c, "app").await;
    let archive = c.dump_to_file("src", &[]);
    let done = c.try_restore(&archive, "app", OnExisting::Replace).await;
    assert_eq!(done.result.error, None);
    assert!(
        connection.await.unwrap().is_err() && client.is_closed(),
        "its sessions are terminated"
    );
    assert_eq!(c.psql("postgres", describe), before);
    assert_eq!(marker(&c, "app"), "t");
    let kept = done.result.previous_database.unwrap();
    assert_eq!(marker(&c, &kept), "precious");
    assert_eq!(c.leftovers().len(), 0);
    settings_that_any_role_may_change_are_not_executed(&c, &archive).await;
}

/// Every role may set its own settings in any database: these are carried over, and never executed.
async fn settings_that_any_role_may_change_are_not_executed(c: &Cluster, archive: &Path) {
    c.psql("postgres", "DROP DATABASE app");
    c.create("app", "CREATE TABLE precious (a int)");
    c.psql(
        "postgres",
        "SET ROLE role_a; SELECT set_config('search_path', 'x;alter/**/role/**/role_a/**/superuser', false);
         ALTER ROLE role_a IN DATABASE app SET search_path FROM CURRENT; ALTER ROLE role_a IN DATABASE app SET temp_tablespaces = '';
         RESET ROLE; ALTER DATABASE app SET search_path = ''",
    );
    let done = c.try_restore(archive, "app", OnExisting::Replace).await;
    assert_eq!(done.result.error, None);
    assert_eq!(
        c.psql(
            "postgres",
            "SELECT rolsuper FROM pg_roles WHERE rolname = 'role_a'"
        ),
        "f"
    );
    let carried = "SELECT string_agg(setting, ' ' ORDER BY setting) FROM pg_db_role_setting, unnest(setconfig) AS setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = 'app')";
    assert_eq!(
        c.psql("postgres", carried),
        r#"search_path="" search_path="x;alter/**/role/**/role_a/**/superuser" temp_tablespaces="""#
    );
}

/// Clients that reconnect as fast as they can do not stop the swap. They see only complete databases, never
/// an older one again, and are rejected only briefly.
#[tokio::test(flavor = "multi_thread")]
async fn reconnecting_clients_do_not_stop_the_swap() {
    let (swaps, clients) = if is_full_campaign() {
        (100, 32)
    } else {
        (4, 6)
    };
    let c = Arc::new(Cluster::start_with("-c max_connections=200"));
    c.create("src", SOURCE);
    let archive = c.dump_to_file("src", &[]);
    assert_eq!(
        c.try_restore(&archive, "app", OnExisting::Fail)
            .await
            .failure,
        None
    );
    let stop = CancellationToken::new();
    let readers: Vec<_> = (0..clients)
        .map(|_| {
            let (c, stop) = (c.clone(), stop.clone());
            tokio::spawn(async move {
                let config = format!("host={} user=postgres dbname=app", c.sandbox.host());
                let (mut newest, mut reads, mut wrong, mut worst) = (0u32, 0u64, 0u64, Duration::ZERO);
                let mut last = tokio::time::Instant::now();
                while !stop.is_cancelled() {
                    let Ok((client, connection)) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await
                    else {
                        // Rejected: reconnect at once, but without overloading the server.
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        continue;
                    };
                    let driver = tokio::spawn(connection);
                    let sql = "SELECT d.oid, (SELECT count(*) FROM t) FROM pg_database d WHERE datname = current_database()";
                    while let (false, Ok(row)) = (stop.is_cancelled(), client.query_one(sql, &[]).await) {
                        let (oid, rows): (u32, i64) = (row.get(0), row.get(1));
                        // Databases are numbered upwards: a smaller number is an older one.
                        wrong += u64::from(rows != 5000 || oid < newest);
                        newest = newest.max(oid);
                        (reads, worst) = (reads + 1, worst.max(last.elapsed()));
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        last = tokio::time::Instant::now();
                    }
                    driver.abort();
                }
                (reads, wrong, worst)
            })
        })
        .collect();
    let app = c.app(&[("restore-keep-previous", "0")]);
    for _ in 0..swaps {
        let job = job(&archive, "app", OnExisting::Replace);
        let done = app
            .manager
            .run(&job, Arc::default(), CancellationToken::new())
            .await;
        assert_eq!(done.result.error, None);
    }
    stop.cancel();
    let (mut reads, mut worst) = (0, Duration::ZERO);
    for reader in readers {
        let (more, wrong, longest) = reader.await.unwrap();
        assert_eq!(wrong, 0, "wrong or backward reads");
        (reads, worst) = (reads + more, worst.max(longest));
    }
    eprintln!(
        "CAMPAIGN swaps: {swaps} under {clients} clients, {reads} reads, 0 wrong, longest without an answer {worst:?}"
    );
    assert!(reads > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_would_destroy_something_is_refused() {
    let c = Cluster::start_with(
        "-c wal_level=logical -c max_wal_senders=4 -c max_prepared_transactions=4",
    );
    c.create("src", SOURCE);
    let archive = c.dump_to_file("src", &[]);
    c.create(
        "slot",
        "SELECT pg_create_logical_replication_slot('s', 'test_decoding')",
    );
    c.create(
        "prepared",
        "CREATE TABLE p (); BEGIN; INSERT INTO p DEFAULT VALUES; PREPARE TRANSACTION 'x'",
    );
    c.create("subscribed", "CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)");
    c.create("template", "ALTER DATABASE template IS_TEMPLATE true");
    for target in [
        "slot",
        "prepared",
        "subscribed",
        "template",
        "postgres",
        "template1",
    ] {
        let done = c.try_restore(&archive, target, OnExisting::Replace).await;
        assert_eq!(
            done.failure,
            Some(R::TargetNotAllowed),
            "{target}: {:?}",
            done.result.error
        );
    }
    assert_eq!(
        c.psql("slot", "SELECT slot_name FROM pg_replication_slots"),
        "s"
    );
    assert_eq!(c.leftovers().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_leaves_nothing_behind_and_has_its_reason() {
    let c = Cluster::start();
    rejected_rows_are_not_quoted(&c).await;
    c.create("app", "CREATE TABLE precious (a int)");
    c.create(
        "broken",
        "CREATE EXTENSION hstore; CREATE ROLE gone; CREATE TABLE x (a hstore); ALTER TABLE x OWNER TO gone",
    );
    let archive = c.dump_to_file("broken", &[]);
    c.psql("broken", "DROP OWNED BY gone; DROP ROLE gone");
    // The same archive with an extension that no server has.
    let bytes = std::fs::read(&archive).unwrap();
    let (from, mut renamed) = (b"EXISTS hstore", bytes.clone());
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    renamed[at + from.len() - 1] = b'x';
    let without_extension = c.scratch("renamed.dump");
    std::fs::write(&without_extension, renamed).unwrap();
    for (archive, reason, word) in [
        (archive, R::RoleMissing, "gone"),
        (without_extension, R::ExtensionMissing, "hstorx"),
    ] {
        if reason == R::ExtensionMissing {
            c.psql("postgres", "CREATE ROLE gone");
        }
        let done = c.try_restore(&archive, "app", OnExisting::Replace).await;
        let error = done.result.error.unwrap();
        assert_eq!(error.reason, reason, "{error:?}");
        assert!(error.message.contains(word), "{error:?}");
        assert_eq!(
            (marker(&c, "app").as_str(), c.leftovers().len()),
            ("precious", 0)
        );
    }
}

/// Rows of a dump that violate a constraint are refused without being quoted.
async fn rejected_rows_are_not_quoted(c: &Cluster) {
    c.create(
        "dup",
        "CREATE TABLE t (a text); INSERT INTO t VALUES ('secret-value'), ('secret-value')",
    );
    // The same archive with a key that the rows violate.
    c.psql("dup", "CREATE TABLE u (a text PRIMARY KEY)");
    let archive = c.dump_to_file("dup", &["-Z0"]);
    let bytes = std::fs::read(&archive).unwrap();
    let from = b"COPY public.t (a) FROM stdin;";
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    let mut changed = bytes.clone();
    changed[at + 12] = b'u';
    std::fs::write(&archive, changed).unwrap();
    let done = c.try_restore(&archive, "app", OnExisting::Fail).await;
    let text = serde_json::to_string(&done.result).unwrap();
    assert_eq!(done.failure, Some(R::DataRejected), "{text}");
    assert!(!text.contains("secret-value"), "{text}");
    assert!(text.contains("23505"), "{text}");
    assert_eq!(c.leftovers().len(), 0);
}

/// Of two restores into one target, the second finds it busy.
async fn a_target_has_one_restore_at_a_time(c: &Cluster, archive: &Path) {
    let (holder, driver) = connect(c, "postgres").await;
    holder
        .execute(
            "SELECT pg_advisory_lock(hashtextextended('pgrestored:busy', 7))",
            &[],
        )
        .await
        .unwrap();
    let done = c.try_restore(archive, "busy", OnExisting::Fail).await;
    assert_eq!(done.failure, Some(R::TargetBusy));
    drop(holder);
    driver.await.unwrap().unwrap();
    c.restore(archive, "busy").await;
}

/// A restore that is stopped at a stage, or loses its lock's session, leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_restore_leaves_nothing_behind() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, repeat(md5(i::text), 20) FROM generate_series(1, 30000) i; CREATE INDEX ON t (v); CREATE INDEX ON t (md5(v))");
    c.create("app", "CREATE TABLE precious (a int)");
    let archive = c.dump_to_file("src", &["-Z1"]);
    for stage in [Stage::Prepare, Stage::Schema, Stage::Data, Stage::Indexes] {
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let job = job(&archive, "app", OnExisting::Replace);
        let (app, watched, stopper) = (c.app(&[]), progress.clone(), stop.clone());
        let watcher = tokio::spawn(async move {
            // It may have passed by.
            while watched.stage() < stage {
                crate::support::pause().await;
            }
            stopper.cancel();
        });
        let done = app.manager.run(&job, progress, stop).await;
        watcher.abort();
        assert_eq!(done.failure, Some(R::Cancelled), "{stage}");
        assert_eq!(c.leftovers(), Vec::<String>::new(), "{stage}");
    }
    let (progress, job) = (
        Arc::new(Progress::default()),
        job(&archive, "app", OnExisting::Replace),
    );
    let app = c.app(&[]);
    let running = {
        let (progress, manager, job) = (progress.clone(), app.manager.clone(), job.clone());
        tokio::spawn(async move { manager.run(&job, progress, CancellationToken::new()).await })
    };
    while progress.stage() < Stage::Data {
        crate::support::pause().await;
    }
    c.psql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgrestored lock'",
    );
    let done = tokio::time::timeout(Duration::from_secs(60), running)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        done.failure,
        Some(R::TargetUnavailable),
        "{:?}",
        done.result.error
    );
    assert_eq!(
        (marker(&c, "app").as_str(), c.leftovers().len()),
        ("precious", 0)
    );
}

/// Takes the target's lock when the swap's session loses it, and holds it until the session that determines
/// the outcome has found it taken for longer than its immediate retries of two seconds.
struct Blocker {
    client: Arc<tokio_postgres::Client>,
    watcher: tokio_postgres::Client,
}

impl Blocker {
    async fn start(c: &Cluster) -> Self {
        let (client, watcher) = (
            connect(c, "postgres").await.0,
            connect(c, "postgres").await.0,
        );
        Blocker {
            client: Arc::new(client),
            watcher,
        }
    }

    /// Returns when it waits for the lock.
    async fn block(&self) {
        let client = self.client.clone();
        tokio::spawn(async move {
            let lock = "SELECT pg_advisory_lock(hashtextextended('pgrestored:app', 7))";
            client.batch_execute(lock).await.unwrap();
            let tried = "SELECT count(*) > 0 FROM pg_sleep(0.05), pg_stat_activity
                WHERE application_name = 'pgrestored lock' AND backend_start < clock_timestamp() - interval '4 s'";
            while !client
                .query_one(tried, &[])
                .await
                .unwrap()
                .get::<_, bool>(0)
            {}
            client
                .batch_execute("SELECT pg_advisory_unlock_all()")
                .await
                .unwrap();
        });
        let waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'";
        while !self
            .watcher
            .query_one(waits, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
        {}
    }
}

/// The outcome of a COMMIT whose response is lost is determined by the staging database's OID.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_response_to_the_commit_is_resolved() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let c = Cluster::start();
    c.create("src", SOURCE);
    let archive = c.dump_to_file("src", &[]);
    let socket = format!("{}/.s.PGSQL.5432", c.sandbox.host());
    let blocker = Arc::new(Blocker::start(&c).await);
    // A proxy that cuts the connection when the server responds to a COMMIT of the swap's session.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let cut = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = cut.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (seen, socket, blocker) = (seen.clone(), socket.clone(), blocker.clone());
            tokio::spawn(async move {
                let mut server = tokio::net::UnixStream::connect(socket).await.unwrap();
                let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
                let (mut renamed, mut committing) = (false, false);
                loop {
                    tokio::select! {
                        n = client.read(&mut up) => {
                            let Ok(n @ 1..) = n else { return };
                            let sent = &up[..n];
                            renamed |= sent.windows(9).any(|w| w == b"RENAME TO");
                            committing |= renamed && sent.windows(6).any(|w| w == b"COMMIT");
                            if server.write_all(sent).await.is_err() { return }
                        }
                        n = server.read(&mut down) => {
                            let Ok(n @ 1..) = n else { return };
                            if committing && !seen.swap(true, std::sync::atomic::Ordering::SeqCst) {
                                blocker.block().await;
                                return;
                            }
                            if client.write_all(&down[..n]).await.is_err() { return }
                        }
                    }
                }
            });
        }
    });
    let app = c.app(&[("db-host", "127.0.0.1"), ("db-port", &port)]);
    let job = job(&archive, "app", OnExisting::Fail);
    let done = app
        .manager
        .run(&job, Arc::default(), CancellationToken::new())
        .await;
    assert!(
        cut.load(std::sync::atomic::Ordering::SeqCst),
        "the response was not lost"
    );
    assert_eq!(done.result.error, None);
    let again = app
        .manager
        .run(&job, Arc::default(), CancellationToken::new())
        .await;
    assert!(again.repeated);
}

/// Restores a dump that waits until `meanwhile` is over, which begins once a staging database exists.
async fn restore_around(
    c: &Cluster,
    flags: &[(&str, &str)],
    on_existing: OnExisting,
    meanwhile: impl AsyncFnOnce(),
) -> JobOutcome {
    let (app, job) = (c.app(flags), job(&c.waiting_dump(), "app", on_existing));
    let running = tokio::spawn(async move {
        app.manager
            .run(&job, Arc::default(), CancellationToken::new())
            .await
    });
    while c.leftovers().is_empty() {
        assert!(
            !running.is_finished(),
            "{:?}",
            running.await.unwrap().result.error
        );
        crate::support::pause().await;
    }
    meanwhile().await;
    c.psql("postgres", "CREATE ROLE go_on");
    let done = running.await.unwrap();
    c.psql("postgres", "DROP ROLE go_on");
    // The next attempt goes on with what a passing failure leaves.
    if done.failure != Some(R::TargetUnavailable) {
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_created_meanwhile_is_not_replaced() {
    let c = Cluster::start();
    let appear = async || {
        let recorded = "SELECT name, kind, target FROM pgrestored.owned_database";
        assert_eq!(
            c.psql("postgres", recorded),
            format!("{}|staging|app", c.leftovers()[0])
        );
        c.create("app", "CREATE TABLE theirs ()");
    };
    let done = restore_around(&c, &[], OnExisting::Fail, appear).await;
    assert_eq!(
        done.failure,
        Some(R::TargetExists),
        "{:?}",
        done.result.error
    );
    assert_eq!(marker(&c, "app"), "theirs");
    let exchange = async || {
        c.psql("postgres", "ALTER DATABASE app RENAME TO old");
        c.create("app", "CREATE TABLE newer ()");
    };
    let done = restore_around(&c, &[], OnExisting::Replace, exchange).await;
    assert_eq!(
        done.failure,
        Some(R::TargetUnavailable),
        "{:?}",
        done.result.error
    );
    assert_eq!(
        (marker(&c, "app").as_str(), marker(&c, "old").as_str()),
        ("newer", "theirs")
    );
}

/// The name is free when the swap checks it, and taken by a transaction that commits before the swap's.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_created_at_the_last_moment_is_not_replaced() {
    let c = Cluster::start();
    let making = async || {
        let (client, _) = connect(&c, "postgres").await;
        let columns = c.psql("postgres", "SELECT string_agg(attname, ', ') FROM pg_attribute WHERE attrelid = 'pg_database'::regclass AND attnum > 0 AND attname NOT IN ('oid', 'datname')");
        let row = format!("BEGIN; SET LOCAL allow_system_table_mods = on;
            INSERT INTO pg_database (oid, datname, {columns}) SELECT 9999, 'app', {columns} FROM pg_database WHERE datname = 'template0'");
        client.batch_execute(&row).await.unwrap();
        let waits = "SELECT count(*) > 0 FROM pg_sleep(0.005), pg_locks WHERE NOT granted AND locktype = 'transactionid'";
        tokio::spawn(async move {
            while !client
                .query_one(waits, &[])
                .await
                .unwrap()
                .get::<_, bool>(0)
            {}
            client.batch_execute("COMMIT").await.unwrap();
        });
    };
    let done = restore_around(&c, &[], OnExisting::Fail, making).await;
    assert_eq!(
        done.failure,
        Some(R::TargetExists),
        "{:?}",
        done.result.error
    );
    assert_eq!(
        c.psql(
            "postgres",
            "SELECT oid FROM pg_database WHERE datname = 'app'"
        ),
        "9999"
    );
}

/// A superuser's session that starts during the restore, on the target of a role that may not terminate it.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_may_not_be_terminated_end_or_stop_the_swap() {
    let c = Cluster::start();
    c.psql(
        "postgres",
        "CREATE ROLE maker LOGIN CREATEDB; CREATE DATABASE app OWNER maker",
    );
    let leaving = async || {
        let (client, _) = connect(&c, "app").await;
        let evicting = "SELECT count(*) > 0 FROM pg_sleep(0.005), pg_stat_activity WHERE application_name = 'pgrestored eviction'";
        tokio::spawn(async move {
            for there in [true, false] {
                while client
                    .query_one(evicting, &[])
                    .await
                    .unwrap()
                    .get::<_, bool>(0)
                    != there
                {}
            }
        });
    };
    let maker = [("db-user", "maker")];
    let done = restore_around(&c, &maker, OnExisting::Replace, leaving).await;
    assert_eq!(done.result.error, None);
    let leaving_late = async || {
        let (client, _) = connect(&c, "app").await;
        let collided = "SELECT count(*) > 0 FROM pg_sleep(0.005), pg_stat_activity WHERE state = 'idle' AND query = 'ROLLBACK'";
        tokio::spawn(async move {
            while !client
                .query_one(collided, &[])
                .await
                .unwrap()
                .get::<_, bool>(0)
            {}
        });
    };
    let done = restore_around(&c, &maker, OnExisting::Replace, leaving_late).await;
    assert_eq!(done.result.error, None);
    let mut client = None;
    let staying = async || client = Some(connect(&c, "app").await.0);
    let done = restore_around(&c, &maker, OnExisting::Replace, staying).await;
    assert_eq!(done.failure, Some(R::TargetUnavailable));
    let said = done.result.error.unwrap().message;
    assert!(
        said.contains(
            "is still in use by postgres (a superuser), whose sessions maker may not terminate"
        ),
        "{said}"
    );
    assert!(!client.unwrap().is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_privileges_are_reported_at_once() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    c.psql("postgres", "CREATE ROLE plain LOGIN; CREATE ROLE maker LOGIN CREATEDB; REVOKE CREATE ON DATABASE postgres FROM PUBLIC");
    let archive = c.dump_to_file("src", &["--no-owner"]);
    for (user, expected) in [
        ("plain", Some(R::InsufficientPrivilege)),
        ("maker", Some(R::InsufficientPrivilege)),
    ] {
        let app = c.app(&[("db-user", user)]);
        let done = app
            .manager
            .run(
                &job(&archive, "app", OnExisting::Fail),
                Arc::default(),
                CancellationToken::new(),
            )
            .await;
        // `maker` may create databases but not become the dump's owner, postgres.
        assert_eq!(done.failure, expected, "{user}: {:?}", done.result.error);
        assert_eq!(c.leftovers().len(), 0);
    }
    // Without a journal, a role that owns what it creates can still restore, and the result says so.
    c.psql(
        "postgres",
        "CREATE DATABASE mine OWNER maker TEMPLATE template0",
    );
    c.psql(
        "mine",
        "SET ROLE maker; CREATE TABLE m (a int); INSERT INTO m VALUES (1)",
    );
    let archive = c.dump_to_file("mine", &[]);
    let app = c.app(&[("db-user", "maker")]);
    let done = app
        .manager
        .run(
            &job(&archive, "app", OnExisting::Fail),
            Arc::default(),
            CancellationToken::new(),
        )
        .await;
    assert_eq!(done.result.error, None);
    assert!(
        done.result.notes.iter().any(|n| n.contains("bookkeeping")),
        "{:?}",
        done.result.notes
    );
    // It carries over its own settings, and reports those of others.
    let set = |role: &str| {
        c.psql(
            "postgres",
            &format!("ALTER ROLE {role} IN DATABASE app SET work_mem = '7MB'"),
        );
    };
    set("maker");
    set("role_b");
    let done = app
        .manager
        .run(
            &job(&archive, "app", OnExisting::Replace),
            Arc::default(),
            CancellationToken::new(),
        )
        .await;
    assert_eq!(done.result.error, None);
    let notes = done
        .result
        .notes
        .iter()
        .filter(|n| n.starts_with("settings of role role_b in database app"));
    assert_eq!(notes.count(), 1, "{:?}", done.result.notes);
    let carried = "SELECT setrole::regrole FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = 'app')";
    assert_eq!(c.psql("postgres", carried), "maker");
}

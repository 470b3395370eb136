//! Limits of time and size: exceeding one is an error with its reason, and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pgrestored::app::App;
use pgrestored::config::Config;
use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::job::{OnExisting, RestoreJob};

use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::memory::{FinishedProcess, peak_rss_of};
use crate::support::{Cluster, bindir_of, is_full_campaign, job, published_us};

async fn refused(c: &Cluster, file: &Path, flags: &[(&str, &str)]) -> pgrestored::event::ErrorBody {
    refused_by(c, file, c.config(flags)).await
}

async fn refused_by(c: &Cluster, file: &Path, config: Config) -> pgrestored::event::ErrorBody {
    let (app, job) = (
        App::new(config).unwrap(),
        job(file, "app", OnExisting::Fail),
    );
    let run = app
        .manager
        .run(&job, Arc::default(), CancellationToken::new());
    let done = run.await;
    assert_eq!(c.leftovers(), Vec::<String>::new());
    assert!(!c.databases().contains(&"app".to_owned()));
    done.result.error.expect("the restore must fail")
}

/// SQL text that takes a while.
fn slow(c: &Cluster) -> PathBuf {
    c.create(
        "src",
        "CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 100)",
    );
    let text = std::fs::read_to_string(c.dump_as("src", DumpFormat::Plain)).unwrap();
    let file = c.scratch("slow.sql");
    std::fs::write(
        &file,
        text.replacen("CREATE TABLE", "SELECT pg_sleep(60);\nCREATE TABLE", 1),
    )
    .unwrap();
    file
}

async fn a_stage_has_a_time_limit(c: &Cluster) {
    let file = slow(c);
    let stages = "prepare=30s,schema=1s,data=1s,indexes=1s";
    let e = refused(c, &file, &[("restore-stage-limits", stages)]).await;
    assert!(
        e.reason == R::Timeout && e.message.contains("stage"),
        "{e:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decompression_bomb_is_stopped_at_the_limit() {
    let c = Cluster::start();
    // The server drops the blanks at the end, so that it has little to store.
    c.create("src", "CREATE TABLE t (v varchar(1))");
    let text = std::fs::read_to_string(c.dump_as("src", DumpFormat::Plain)).unwrap();
    let at = text.find("FROM stdin;\n").unwrap() + "FROM stdin;\n".len();
    let file = c.scratch("bomb.sql.zst");
    let row = [vec![b'0'], vec![b' '; (64 << 10) - 2], vec![b'\n']].concat();
    let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    // Each MiB is a frame, which need not be compressed again.
    let limit: usize = if is_full_campaign() {
        1 << 30
    } else {
        64 << 20
    };
    let rows = frame(&row.repeat(16)).repeat((limit >> 20) * 6 / 5);
    let (head, end) = text.as_bytes().split_at(at);
    std::fs::write(&file, [frame(head), rows, frame(end)].concat()).unwrap();
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size < 4 << 20, "{size}");
    // The variable's unit is 1 GiB, which takes seconds; `make soak` reaches it.
    let mut config = c.config(&[("restore-max-gib", "1")]);
    assert_eq!(config.max_bytes, Some(1 << 30));
    config.max_bytes = Some(limit as u64);
    let e = refused_by(&c, &file, config).await;
    assert!(
        e.reason == R::DataRejected && e.message.contains("RESTORE_MAX_GIB"),
        "{e:?}"
    );
}

async fn outdated_requests_are_refused(c: &Cluster, file: &Path) {
    let day = 86_400_000_000;
    let old = RestoreJob {
        published_us: published_us(-8 * day),
        ..job(file, "app", OnExisting::Fail)
    };
    let done = c.restore_with(&old, &[]).await;
    assert_eq!(done.failure, Some(R::TargetNotAllowed));
    assert!(
        done.result
            .error
            .unwrap()
            .message
            .contains("REQUEST_MAX_AGE")
    );
    let newer = RestoreJob {
        published_us: published_us(-6 * day),
        ..job(file, "app", OnExisting::Fail)
    };
    assert_eq!(c.restore_with(&newer, &[]).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_targets_and_recent_requests_are_restored() {
    let c = Cluster::start();
    a_stage_has_a_time_limit(&c).await;
    let file = c.dump_to_file("src", &[]);
    let flags = [
        ("allowed-targets", "app_*,test"),
        ("protected-databases", "app_payroll"),
    ];
    for (target, allowed) in [
        ("app_1", true),
        ("test", true),
        ("app", false),
        ("app_payroll", false),
        ("tests", false),
    ] {
        let done = c
            .restore_with(&job(&file, target, OnExisting::Fail), &flags)
            .await;
        assert_eq!(
            done.failure,
            (!allowed).then_some(R::TargetNotAllowed),
            "{target}"
        );
    }
    outdated_requests_are_refused(&c, &file).await;
}

/// A restore leaves connections to the server's other clients, and does not fail because there are few.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_does_not_take_every_connection() {
    let c = Cluster::start_with("-c max_connections=20");
    c.create("src", "CREATE TABLE t AS SELECT generate_series(1, 1000) i");
    c.hang_up();
    let file = c.dump_to_file("src", &[]);
    let greedy = async |target: &str| {
        let job = RestoreJob {
            jobs: Some(120),
            ..job(&file, target, OnExisting::Fail)
        };
        let done = c.restore_with(&job, &[]).await.result;
        assert_eq!(done.error, None, "{target}");
        let note = |n: &&String| n.contains("of 120 connections loaded");
        done.notes.iter().find(note).cloned().unwrap_or_default()
    };
    let note = greedy("first").await;
    assert!(
        note.contains("of 17 that the server allows") && note.contains("and 3 are left"),
        "{note}"
    );
    let config = format!("host={} user=postgres dbname=postgres", c.sandbox.host());
    let mut others = Vec::new();
    for _ in 0..13 {
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        others.push(client);
    }
    let note = greedy("second").await;
    assert!(note.starts_with("only 1 of 120"), "{note}");
    // No more than asked for, and no note, where there are enough.
    let few = RestoreJob {
        jobs: Some(1),
        ..job(&file, "third", OnExisting::Fail)
    };
    let done = c.restore_with(&few, &[]).await.result;
    assert_eq!(done.error, None);
    let notes = done.notes.concat();
    assert!(!notes.contains("connections loaded"), "{notes}");
}

/// A command of the program on `c`, as a worker with a limit of 512 MiB.
fn run(c: &Cluster, args: &[&str]) -> FinishedProcess {
    run_within(512, c, args)
}

/// A command of the program on `c`, as a worker with a limit of memory. The program itself takes some 50 MiB of it.
fn run_within(mib: u32, c: &Cluster, args: &[&str]) -> FinishedProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(args)
        .env("RESTORE_MEMORY_MIB", mib.to_string())
        .env("EVIDENCE_LOCATION", "none");
    command
        .env("DB_HOST", c.sandbox.host())
        .env("DB_USER", "postgres");
    let run = peak_rss_of(&command);
    println!(
        "{args:?}: {} MiB, {}{}",
        run.peak_mib, run.stdout, run.stderr
    );
    run
}

/// Data that a dump makes the server send takes no memory: what psql would print is dropped, and errors are
/// truncated.
#[tokio::test(flavor = "multi_thread")]
async fn large_server_messages_take_no_memory() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let text = std::fs::read_to_string(c.dump_as("src", DumpFormat::Plain)).unwrap();
    let raise = |level: &str| {
        format!(
            "SET client_min_messages = notice;\nDO $$BEGIN RAISE {level} '%', repeat('x', 40000000); END$$;"
        )
    };
    for (name, statement, code) in [
        ("a row", "SELECT repeat('x', 40000000);".to_owned(), 0),
        ("a notice", raise("NOTICE"), 0),
        ("an exception", raise("EXCEPTION"), 1),
    ] {
        let file = c.scratch("answers.sql");
        std::fs::write(
            &file,
            text.replacen("CREATE TABLE", &format!("{statement}\nCREATE TABLE"), 1),
        )
        .unwrap();
        let run = run(
            &c,
            &[
                "restore",
                file.to_str().unwrap(),
                "--target",
                "app",
                "--on-existing",
                "replace",
            ],
        );
        assert_eq!(run.code == 0, code == 0, "{name}: {run:?}");
        assert!(
            run.peak_mib < 80 && run.stdout.len() + run.stderr.len() < 20_000,
            "{name}: {} MiB",
            run.peak_mib
        );
        if code == 0 {
            assert_eq!(c.psql("app", "TABLE t"), "1", "{name}");
            c.psql("postgres", "DROP DATABASE app");
        }
    }
    an_oversized_row_is_not_blamed_on_the_backup(&c);
}

/// A row that is too large for this worker to read back is reported, and does not count against the backup.
fn an_oversized_row_is_not_blamed_on_the_backup(c: &Cluster) {
    c.create(
        "large",
        "CREATE TABLE t (a text); INSERT INTO t SELECT repeat('x', 20500000)",
    );
    let file = c.dump_to_file("large", &[]);
    let run = run_within(128, c, &["verify", file.to_str().unwrap()]);
    assert!(run.peak_mib < 128, "{} MiB", run.peak_mib);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(
        run.code != 0 && said.contains("a row of 20 MiB") && said.contains("RESTORE_MEMORY_MIB"),
        "{said}"
    );
    assert!(
        said.contains("inconclusive") && !said.contains("blame: backup"),
        "{said}"
    );
}

/// The dump decides how long the expressions of generated columns are.
#[tokio::test(flavor = "multi_thread")]
async fn long_expressions_and_large_catalogs_take_no_memory() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let text = std::fs::read_to_string(c.dump_as("src", DumpFormat::Plain)).unwrap();
    let generated = "DO $$BEGIN FOR i IN 1..4 LOOP EXECUTE pg_catalog.format('CREATE TABLE public.g%s (a int, \
        b text GENERATED ALWAYS AS (a::text || %L::text) STORED)', i, pg_catalog.repeat('x', 6291456)); END LOOP; END$$;";
    let file = c.scratch("expressions.sql");
    std::fs::write(
        &file,
        text.replacen("CREATE TABLE", &format!("{generated}\nCREATE TABLE"), 1),
    )
    .unwrap();
    let run = run(&c, &["verify", file.to_str().unwrap()]);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(run.code == 0, "{said}");
    // Together, the expressions have 24 MiB.
    assert!(run.peak_mib < 70, "{} MiB", run.peak_mib);
    assert!(
        said.contains("public.g1.b (the expressions have more than 4 MiB)"),
        "{said}"
    );
    a_large_catalog_takes_no_memory(&c);
}

/// The dump decides how many objects a database has; only those of its entries are looked up.
fn a_large_catalog_takes_no_memory(c: &Cluster) {
    let columns = "DO $$DECLARE c text; BEGIN \
        SELECT pg_catalog.string_agg('c' || pg_catalog.repeat('x', 55) || g || ' int DEFAULT 1', ',') INTO c \
            FROM pg_catalog.generate_series(1, 1590) g; \
        EXECUTE 'CREATE SCHEMA ' || pg_catalog.repeat('s', 63); \
        FOR i IN 10..59 LOOP EXECUTE 'CREATE TABLE ' || pg_catalog.repeat('s', 63) || '.' || pg_catalog.repeat('t', 61) || i || ' (' || c || ')'; \
        END LOOP; END$$;";
    let file = c.scratch("catalog.dump");
    let archive = std::fs::read(c.dump_as("src", DumpFormat::Custom)).unwrap();
    std::fs::write(&file, with_statement(&archive, columns)).unwrap();
    let run = run(c, &["verify", file.to_str().unwrap()]);
    assert!(run.code == 0, "{run:?}");
    // The names of its 79,500 columns and of their tables have 14 MiB, and take half as much again if they are kept.
    assert!(run.peak_mib < 68, "{} MiB", run.peak_mib);
}

/// A custom archive whose only table is made by this statement, too.
fn with_statement(archive: &[u8], statement: &str) -> Vec<u8> {
    let old = b"CREATE TABLE public.t (";
    let at = archive.windows(old.len()).position(|w| w == old).unwrap();
    // The length before a string: a byte for the sign and four for the number.
    let length = u32::from_le_bytes(archive[at - 4..at].try_into().unwrap());
    let added = format!("{statement}\n");
    let longer = length + u32::try_from(added.len()).unwrap();
    [
        &archive[..at - 4],
        &longer.to_le_bytes(),
        added.as_bytes(),
        &archive[at..],
    ]
    .concat()
}

/// What somebody put beside a backup as its restore index is not kept in memory.
fn a_forged_index_takes_no_memory(c: &Cluster, dump: &Path) {
    let bucket = tempfile::tempdir().unwrap();
    let backup = bucket.path().join("a.dump");
    std::fs::copy(dump, &backup).unwrap();
    let modified = std::fs::metadata(&backup).unwrap().modified().unwrap();
    let generation = modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let folder = bucket
        .path()
        .join(format!("a.dump.pgrestored/{generation}"));
    std::fs::create_dir_all(&folder).unwrap();
    let zeros = "0,".repeat(15 << 20);
    std::fs::write(
        folder.join("index.json"),
        format!("{{\"x\":[{zeros}0],\"blocks\":[{{\"y\":[0]}}]}}"),
    )
    .unwrap();
    let bucket = format!("file://{}", bucket.path().display());
    let run = run(
        c,
        &[
            "restore",
            "a.dump",
            "--target",
            "app",
            "--backup-bucket",
            &bucket,
            "--evidence-location",
            &bucket,
        ],
    );
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.peak_mib < 200, "{} MiB", run.peak_mib);
}

/// Without a key, nobody can tell who wrote the evidence beside other backups; reading it takes little memory.
#[tokio::test(flavor = "multi_thread")]
async fn forged_evidence_and_indexes_take_no_memory() {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let dump = c.dump_as("src", DumpFormat::Custom);
    a_forged_index_takes_no_memory(&c, &dump);
    let bucket = tempfile::tempdir().unwrap();
    std::fs::copy(&dump, bucket.path().join("app.dump")).unwrap();
    let place = format!("file://{}", bucket.path().display());
    let verify = || {
        let flags = [
            "verify",
            "app.dump",
            "--backup-bucket",
            &place,
            "--evidence-location",
            &place,
        ];
        run(&c, &flags)
    };
    let first = verify();
    assert_eq!(first.code, 0, "{first:?}");
    // What an honest worker wrote, about other backups, with a million notes.
    let folder = std::fs::read_dir(bucket.path().join("app.dump.pgrestored")).unwrap();
    let folder = folder.map(|e| e.unwrap().path()).next().unwrap();
    let generation = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let document = std::fs::read_dir(&folder).unwrap();
    let document = document
        .map(|e| e.unwrap().path())
        .find(|p| p.to_str().unwrap().ends_with(".dsse.json"))
        .unwrap();
    let mut envelope: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&document).unwrap()).unwrap();
    let payload = base64
        .decode(envelope["payload"].as_str().unwrap())
        .unwrap();
    let payload = String::from_utf8(payload).unwrap();
    let mut statement: serde_json::Value = serde_json::from_str(&payload).unwrap();
    statement["predicate"]["notes"] = vec![""; 1_000_000].into();
    let payload = statement.to_string();
    for i in 0..12 {
        let name = format!("forged{i}.dump");
        let folder = bucket
            .path()
            .join(format!("{name}.pgrestored/{generation}"));
        std::fs::create_dir_all(&folder).unwrap();
        envelope["payload"] = base64.encode(payload.replace("app.dump", &name)).into();
        std::fs::write(
            folder.join(document.file_name().unwrap()),
            envelope.to_string(),
        )
        .unwrap();
    }
    let second = verify();
    assert_eq!(second.code, 0, "{second:?}");
    let said = format!("{}{}", second.stdout, second.stderr);
    assert!(said.contains("too long to be kept together"), "{said}");
    assert!(second.peak_mib < 200, "{} MiB", second.peak_mib);
}

/// A server whose table of locks has room for about 1,400 of them (18: 2,700).
const FEW_LOCKS: &str = "-c max_locks_per_transaction=32 -c max_connections=20 -c max_worker_processes=2 -c max_wal_senders=0 \
    -c autovacuum_max_workers=1";

/// However many objects a dump has, no transaction of a restore needs a lock for each of them.
#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_locks_are_restored() {
    let c = Cluster::start_with(FEW_LOCKS);
    let mut text = String::from(
        "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n-- Dumped by pg_dump version 15.1\n\n",
    );
    (0..100).for_each(|i| {
        text.push_str(&format!("CREATE TABLE public.t{i} (a serial, b text);\n"));
    });
    (0..1800).for_each(|i| text.push_str(&format!("CREATE SEQUENCE public.s{i};\n")));
    text.push_str("COPY public.t0 (a, b) FROM stdin;\n1\tx\n\\.\n\n");
    (0..1800).for_each(|i| {
        text.push_str(&format!(
            "SELECT pg_catalog.setval('public.s{i}', 5, true);\n"
        ));
    });
    text.push_str("\n--\n-- PostgreSQL database dump complete\n--\n\n");
    let file = c.scratch("many.sql");
    std::fs::write(&file, text).unwrap();
    let done = c
        .restore_with(
            &job(&file, "app", OnExisting::Fail),
            &[("backup-trust", "restricted")],
        )
        .await;
    assert_eq!(done.result.error, None);
    let owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384";
    assert_eq!(c.psql("app", owners), "pgrestored_owner");
    assert_eq!(c.psql("app", "SELECT last_value FROM s1799"), "5");
    // A statement that needs more than that fails every time, and says what to set.
    let file = c.scratch("locks.sql");
    let sql = "SELECT pg_advisory_lock(i) FROM generate_series(1, 100000) i;";
    std::fs::write(&file, sql).unwrap();
    c.psql("postgres", "DROP DATABASE app WITH (FORCE)");
    let e = refused(&c, &file, &[]).await;
    assert_eq!(
        (e.reason, e.blame, e.retryable),
        (R::RestoreError, Blame::Target, false),
        "{e:?}"
    );
    assert!(e.message.contains("set max_locks_per_transaction"), "{e:?}");
}

/// The same for large objects in groups of 1,000, as `pg_dump` writes them from version 17 on. Granting privileges on
/// one locks it from version 18 on.
#[tokio::test(flavor = "multi_thread")]
async fn more_large_objects_than_locks_are_restored() {
    let Some(bindir) = bindir_of(18) else { return };
    let c = Cluster::of(&bindir, FEW_LOCKS);
    c.create(
        "src",
        "SELECT count(lo_create(i)) FROM generate_series(1, 4000) i;
         DO $$ BEGIN FOR i IN 1..4000 LOOP
           EXECUTE format('ALTER LARGE OBJECT %s OWNER TO role_a', i);
           EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO role_b', i);
           IF i % 500 = 0 THEN COMMIT; END IF;
         END LOOP; END $$",
    );
    c.restore(&c.dump_as("src", DumpFormat::Custom), "app")
        .await;
    let whole = "SELECT count(*), count(*) FILTER (WHERE pg_get_userbyid(lomowner) = 'role_a' AND lomacl::text LIKE '%role_b=r/%')
        FROM pg_largeobject_metadata";
    assert_eq!(c.psql("app", whole), "4000|4000");
}

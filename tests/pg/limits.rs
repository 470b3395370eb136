//! Limits of time and size: exceeding one is an error with its reason, and leaves nothing behind.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgrestored::error::FailureReason as R;
use pgrestored::job::{OnExisting, RestoreJob};

use crate::formats::Format;
use crate::support::memory::{Run, peak_rss_of};
use crate::support::{Cluster, assert_same, job, sequence};

async fn refused(c: &Cluster, file: &Path, flags: &[(&str, &str)]) -> pgrestored::event::ErrorBody {
    let done = c
        .restore_with(&job(file, "app", OnExisting::Fail), flags)
        .await;
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
    let text = std::fs::read_to_string(c.dump_as("src", Format::Plain)).unwrap();
    let file = c.scratch("slow.sql");
    std::fs::write(
        &file,
        text.replacen("CREATE TABLE", "SELECT pg_sleep(60);\nCREATE TABLE", 1),
    )
    .unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_has_a_time_limit() {
    let c = Cluster::start();
    let file = slow(&c);
    let stages = "prepare=30s,schema=1s,data=1s,indexes=1s";
    let e = refused(&c, &file, &[("restore-stage-limits", stages)]).await;
    assert!(
        e.reason == R::Timeout && e.message.contains("stage"),
        "{e:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decompression_bomb_is_stopped_at_the_limit() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (v text)");
    let text = std::fs::read_to_string(c.dump_as("src", Format::Plain)).unwrap();
    let at = text.find("FROM stdin;\n").unwrap() + "FROM stdin;\n".len();
    let file = c.scratch("bomb.sql.zst");
    let mut zstd =
        zstd::stream::write::Encoder::new(std::fs::File::create(&file).unwrap(), 1).unwrap();
    zstd.write_all(&text.as_bytes()[..at]).unwrap();
    let row = [vec![b'0'; 1023], vec![b'\n']].concat();
    let rows = row.repeat(1024);
    for _ in 0..1200 {
        zstd.write_all(&rows).unwrap();
    }
    zstd.write_all(&text.as_bytes()[at..]).unwrap();
    zstd.finish().unwrap();
    let size = std::fs::metadata(&file).unwrap().len();
    assert!(size < 4 << 20, "{size}");
    let e = refused(&c, &file, &[("restore-max-gib", "1")]).await;
    assert!(
        e.reason == R::DataRejected && e.message.contains("RESTORE_MAX_GIB"),
        "{e:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outdated_request_is_refused() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t ()");
    let file = c.dump_to_file("src", &[]);
    let day = 86_400_000_000;
    let old = RestoreJob {
        sequence: sequence(-8 * day),
        ..job(&file, "app", OnExisting::Fail)
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
        sequence: sequence(-6 * day),
        ..job(&file, "app", OnExisting::Fail)
    };
    assert_eq!(c.restore_with(&newer, &[]).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_targets_are_restored() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t ()");
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
}

/// A command of the program on `c`, as a worker with a limit of 512 MiB.
fn run(c: &Cluster, args: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(args)
        .env("RESTORE_MEMORY_MIB", "512")
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
    let text = std::fs::read_to_string(c.dump_as("src", Format::Plain)).unwrap();
    let raise = |level: &str| {
        format!(
            "SET client_min_messages = notice;\nDO $$BEGIN RAISE {level} '%', repeat('x', 300000000); END$$;"
        )
    };
    for (name, statement, code) in [
        ("a row", "SELECT repeat('x', 300000000);".to_owned(), 0),
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
            run.peak_mib < 128 && run.stdout.len() + run.stderr.len() < 20_000,
            "{name}: {} MiB",
            run.peak_mib
        );
        if code == 0 {
            assert_same(&c.content("app", &[]), &c.content("src", &[]), name);
        }
    }
}

/// A row that is too large for this worker to read back is reported, and does not count against the backup.
#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_row_is_not_blamed_on_the_backup() {
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE TABLE t (a text); INSERT INTO t SELECT repeat('x', 100000000)",
    );
    let file = c.dump_to_file("src", &[]);
    let run = run(&c, &["verify", file.to_str().unwrap()]);
    assert!(run.peak_mib < 300, "{} MiB", run.peak_mib);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(
        run.code != 0 && said.contains("a row of 96 MiB") && said.contains("RESTORE_MEMORY_MIB"),
        "{said}"
    );
    assert!(
        said.contains("inconclusive") && !said.contains("blame: backup"),
        "{said}"
    );
}

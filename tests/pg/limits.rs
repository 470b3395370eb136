//! Limits in time and size: what goes beyond is an error with its reason, and leaves nothing.

use std::io::Write;
use std::path::{Path, PathBuf};

use pgrestored::error::FailureReason as R;
use pgrestored::job::{OnExisting, RestoreJob};

use crate::formats::Format;
use crate::support::{Cluster, job, sequence};

async fn refused(c: &Cluster, file: &Path, flags: &[(&str, &str)]) -> pgrestored::event::ErrorBody {
    let done = c.restore_with(&job(file, "app", OnExisting::Fail), flags).await;
    assert_eq!(c.leftovers(), Vec::<String>::new());
    assert!(!c.databases().contains(&"app".to_owned()));
    done.result.error.expect("it was restored")
}

/// SQL text that takes its time.
fn slow(c: &Cluster) -> PathBuf {
    c.create("src", "CREATE TABLE t (a int); INSERT INTO t SELECT generate_series(1, 100)");
    let text = std::fs::read_to_string(c.dump_as("src", Format::Plain)).unwrap();
    let file = c.scratch("slow.sql");
    std::fs::write(&file, text.replacen("CREATE TABLE", "SELECT pg_sleep(60);\nCREATE TABLE", 1)).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_has_a_limit() {
    let c = Cluster::start();
    let file = slow(&c);
    let stages = "prepare=30s,schema=1s,data=1s,indexes=1s";
    let e = refused(&c, &file, &[("restore-stage-limits", stages)]).await;
    assert!(e.reason == R::Timeout && e.message.contains("stage"), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_stopped_at_its_limit() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (v text)");
    let text = std::fs::read_to_string(c.dump_as("src", Format::Plain)).unwrap();
    let at = text.find("FROM stdin;\n").unwrap() + "FROM stdin;\n".len();
    let file = c.scratch("bomb.sql.zst");
    let mut zstd = zstd::stream::write::Encoder::new(std::fs::File::create(&file).unwrap(), 1).unwrap();
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
    assert!(e.reason == R::DataRejected && e.message.contains("RESTORE_MAX_GIB"), "{e:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_from_long_ago_is_refused() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t ()");
    let file = c.dump_to_file("src", &[]);
    let day = 86_400_000_000;
    let old = RestoreJob { sequence: sequence(-8 * day), ..job(&file, "app", OnExisting::Fail) };
    let done = c.restore_with(&old, &[]).await;
    assert_eq!(done.failure, Some(R::TargetNotAllowed));
    assert!(done.result.error.unwrap().message.contains("REQUEST_MAX_AGE"));
    let newer = RestoreJob { sequence: sequence(-6 * day), ..job(&file, "app", OnExisting::Fail) };
    assert_eq!(c.restore_with(&newer, &[]).await.failure, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_targets_are_restored_into() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t ()");
    let file = c.dump_to_file("src", &[]);
    let flags = [("allowed-targets", "app_*,test"), ("protected-databases", "app_payroll")];
    for (target, allowed) in
        [("app_1", true), ("test", true), ("app", false), ("app_payroll", false), ("tests", false)]
    {
        let done = c.restore_with(&job(&file, target, OnExisting::Fail), &flags).await;
        assert_eq!(done.failure, (!allowed).then_some(R::TargetNotAllowed), "{target}");
    }
}

//! The Python example, with Google's own client library against Google's emulator.

use std::path::Path;

use tokio::process::Command;

use crate::support::{Cluster, assert_same, tools};
use crate::test_env::{BUCKET, Kind, TestEnv};

pub async fn the_python_example_restores() {
    let Some(python) = tools::installed("python/bin/python") else {
        return;
    };
    let Some(env) = TestEnv::start(Kind::Google).await else {
        return;
    };
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE TABLE t (v text); INSERT INTO t SELECT md5(i::text) FROM generate_series(1, 500) i",
    );
    env.emulator.storage.put(
        BUCKET,
        "src.dump",
        std::fs::read(c.dump_through_pipe("src", &[])).unwrap(),
    );
    let running = env.worker(&c, &[]).await;
    let run = async |backup: &str, target: &str| {
        let mut command = Command::new(&python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/restore.py"));
        command
            .args([backup, target])
            .env("PUBSUB_EMULATOR_HOST", env.pubsub_host());
        command
            .env("GOOGLE_CLOUD_PROJECT", &env.project)
            .kill_on_drop(true);
        let out = tokio::time::timeout(std::time::Duration::from_secs(100), command.output());
        let out = out.await.expect("the example did not end in time").unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let (code, said, trouble) = run("src.dump", "app").await;
    assert_eq!(code, Some(0), "{trouble}");
    assert!(
        said.contains("restored src.dump into app: 500 rows"),
        "{said}"
    );
    assert_same(
        &c.content("app", &[]),
        &c.content("src", &[]),
        "restored and source",
    );
    let (code, _, said) = run("none.dump", "app2").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("backup_not_found (blame: request)"), "{said}");
    running.stop().await;
}

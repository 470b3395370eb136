//! The status page in a real browser while a restore runs.

use std::path::Path;
use std::process::Stdio;

use pgrestored::event::Status;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::{Cluster, tools};
use crate::test_env::{BUCKET, Kind, TestEnv};

/// A browser under its driver; `None`, with a message, if either is not installed.
fn browser(url: &str, shots: &Path) -> Option<Command> {
    let modules = tools::installed("node/node_modules")?;
    let browsers = [
        "/usr/bin/chromium",
        "/usr/bin/google-chrome",
        "/usr/bin/chromium-browser",
    ];
    let Some(chromium) = browsers.iter().map(Path::new).find(|p| p.exists()) else {
        tools::skip("Chromium");
        return None;
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/status.mjs");
    let mut command = Command::new("node");
    command
        .arg(script)
        .arg(url)
        .arg(shots)
        .env("NODE_MODULES", modules)
        .env("CHROMIUM", chromium);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    Some(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_a_running_restore_and_its_result() {
    let env = TestEnv::start(Kind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE TABLE t (v text); INSERT INTO t SELECT md5(i::text) FROM generate_series(1, 200000) i",
    );
    let dump = std::fs::read(c.dump_through_pipe("src", &[])).unwrap();
    // At this rate the restore takes some minutes, until the limit is lifted.
    let rate = dump.len() as u64 / 120;
    env.emulator.storage.put(BUCKET, "src.dump", dump);
    let running = env.worker(&c, &[]).await;
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status-page");
    std::fs::create_dir_all(&shots).unwrap();
    let Some(mut browser) = browser(&format!("http://{}/", running.worker.admin), &shots) else {
        return;
    };

    env.publish(r#"{"request_id":"none","backup":{"name":"none.dump"},"target_db":"app"}"#)
        .await;
    assert_eq!(env.result().await.status, Status::Failure);
    env.emulator.storage.limit_rate(rate);
    env.publish(r#"{"request_id":"slow","backup":{"name":"src.dump"},"target_db":"slow"}"#)
        .await;
    let mut browser = browser.spawn().unwrap();
    let mut said = BufReader::new(browser.stdout.take().unwrap()).lines();
    assert_eq!(said.next_line().await.unwrap().as_deref(), Some("running"));
    // Counters move while the restore runs.
    let metrics = running.get("/metrics").await.1;
    let read = metrics
        .lines()
        .find_map(|l| l.strip_prefix("restore_downloaded_bytes_total "));
    assert!(read.unwrap().parse::<u64>().unwrap() > 0, "{metrics}");
    running.until_metric("restore_in_progress 1").await;
    env.emulator.storage.limit_rate(0);
    assert_eq!(env.result().await.status, Status::Success);
    assert_eq!(said.next_line().await.unwrap().as_deref(), Some("done"));
    assert!(browser.wait().await.unwrap().success());
    running.stop().await;
}

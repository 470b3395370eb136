//! Pages in a real browser: the pages that commands write, and the status page while a restore runs.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use pgrestored::event::Status;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::tools;
use crate::test_env::{SourceCluster, TIMEOUT};

/// A browser under its driver; `None`, with a message, if either is not installed.
fn browser() -> Option<Command> {
    let modules = tools::installed("node/node_modules")?;
    let chromium = tools::installed("chromium")?;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let mut command = Command::new("node");
    command
        .arg(scripts.join("status.mjs"))
        .env("NODE_MODULES", modules)
        .env("CHROMIUM", chromium)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    Some(command)
}

/// A folder for screenshots.
fn shots(name: &str) -> PathBuf {
    let shots = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&shots).unwrap();
    shots
}

/// Pages that commands write, of a backup with tables in several schemas.
async fn written_pages(folder: &Path) -> [String; 3] {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let name = "orders-production-eu-west-1-2026-11-29T03-00-00Z.dump";
    std::fs::copy(fixtures.join("shop18.gzip.dump"), folder.join(name)).unwrap();
    let bucket = format!("file://{}", folder.display());
    let pages = ["proof.html", "report.html", "inspect.html"];
    let [proof, report, inspection] =
        pages.map(|page| folder.join(page).to_str().unwrap().to_owned());
    for args in [
        ["verify", name, "--depth=archive", "--html", &proof],
        ["report", "--since", "1d", "--html", &report],
        ["inspect", name, "--output=text", "--html", &inspection],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        command.args(args).env_clear().env("BACKUP_BUCKET", &bucket);
        let out = command.output().await.unwrap();
        assert!(out.status.success(), "{args:?}: {out:?}");
    }
    [proof, report, inspection]
}

/// One browser for all pages, because its start takes longer than most of what is checked.
#[tokio::test(flavor = "multi_thread")]
async fn written_pages_and_the_page_of_a_running_restore_work_in_a_browser() {
    let Some(mut browser) = browser() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let s = SourceCluster::of(
        "CREATE TABLE t (v text); INSERT INTO t SELECT md5(i::text) FROM generate_series(1, 20000) i",
    );
    let env = s.env().await;
    let running = env.worker(&s.c, &[]).await;
    browser
        .arg(format!("http://{}/", running.worker.admin))
        .arg(shots("status-page"))
        .args(written_pages(folder.path()).await);
    let mut browser = browser.spawn().unwrap();
    let mut said = BufReader::new(browser.stdout.take().unwrap()).lines();
    assert_eq!(said.next_line().await.unwrap().as_deref(), Some("written"));

    env.publish(r#"{"request_id":"none","backup":{"name":"none.dump"},"target_db":"app"}"#)
        .await;
    assert_eq!(env.result().await.status, Status::Failure);
    // At this rate the restore takes some minutes, until the limit is lifted.
    let rate = s.dump.len() as u64 / 120;
    env.emulator.storage.limit_rate(rate);
    env.publish(r#"{"request_id":"slow","backup":{"name":"src.dump"},"target_db":"slow"}"#)
        .await;
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
    // A worker that starts later knows the restore from the journal.
    let later = env.worker(&s.c, &[]).await;
    let known = async {
        loop {
            let status: serde_json::Value =
                serde_json::from_str(&later.get("/status.json").await.1).unwrap();
            let recent = status["recent"].as_array().unwrap().clone();
            match recent.into_iter().find(|r| r["request_id"] == "slow") {
                Some(result) => return result,
                None => crate::support::pause().await,
            }
        }
    };
    let known = tokio::time::timeout(TIMEOUT, known).await.unwrap();
    assert_eq!(known["status"], "success");
    later.stop().await;
}

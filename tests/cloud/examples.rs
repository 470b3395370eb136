//! The Python example, with Google's own client library against Google's emulator.

use std::path::Path;

use tokio::process::Command;

use crate::support::tools;
use crate::test_env::{PubSubKind, SourceCluster};

pub async fn the_python_example_restores(s: &SourceCluster) {
    let Some(python) = tools::installed("python/bin/python") else {
        return;
    };
    let Some(env) = s.env_of(PubSubKind::Google).await else {
        return;
    };
    let running = env.worker(&s.c, &[]).await;
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
    let (code, said, trouble) = run("src.dump", "example").await;
    assert_eq!(code, Some(0), "{trouble}");
    assert!(
        said.contains("restored src.dump into example: 5000 rows"),
        "{said}"
    );
    s.assert_table("example");
    let (code, _, said) = run("none.dump", "example2").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("backup_not_found (blame: request)"), "{said}");
    running.stop().await;
}

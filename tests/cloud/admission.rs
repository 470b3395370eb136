//! A request policy that requires signatures and restricts sources and targets, tested with a worker and the command
//! line.

use std::process::Command;

use pgrestored::error::FailureReason as R;
use pgrestored::event::Status;

use crate::support::Cluster;
use crate::test_env::{BUCKET, PubSubKind, TestEnv};

#[tokio::test(flavor = "multi_thread")]
async fn only_signed_requests_within_the_policy_are_run() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    for name in ["tenant/src.dump", "other/src.dump"] {
        env.emulator.storage.put(BUCKET, name, dump.clone());
    }
    let file = |name: &str| c.scratch(name).display().to_string();
    for args in [
        vec!["genpkey", "-algorithm", "ed25519", "-out", "key.pem"],
        vec!["pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem"],
    ] {
        assert!(
            Command::new("openssl")
                .args(args)
                .current_dir(c.scratch(""))
                .status()
                .unwrap()
                .success()
        );
    }
    std::fs::write(c.scratch("shared"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let public = std::fs::read_to_string(c.scratch("pub.pem"))
        .unwrap()
        .replace('\n', "\n      ");
    let policy = format!(
        "keys:\n  ops:\n    ed25519: |\n      {public}\n  ci:\n    hmac_sha256_file: {}\nsubscriptions:\n  restore-requests:\n    sources: [gs://{BUCKET}/tenant]\n    targets: ['app_*']\n    keys: [ops, ci]\n",
        file("shared")
    );
    std::fs::write(c.scratch("policy.yaml"), policy).unwrap();
    let running = env
        .worker(&c, &[("request-policy", &file("policy.yaml"))])
        .await;

    let request = |key: Option<(&str, &str)>, backup: &str, target: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        command
            .env_clear()
            .args(["request", backup, "--target", target]);
        for (flag, value) in env.flags() {
            command.arg(format!("--{flag}={value}"));
        }
        if let Some((file, id)) = key {
            command
                .arg(format!("--request-signing-key-file={file}"))
                .arg(format!("--request-signing-key-id={id}"));
        }
        let out = command.output().unwrap();
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    let (private, shared) = (file("key.pem"), file("shared"));
    let (ops, ci) = (
        Some((private.as_str(), "ops")),
        Some((shared.as_str(), "ci")),
    );
    for (key, backup, target, reason) in [
        (ops, "tenant/src.dump", "app_1", None),
        (ci, "tenant/src.dump", "app_2", None),
        (None, "tenant/src.dump", "app_3", Some(R::InvalidRequest)),
        (
            Some((shared.as_str(), "ops")),
            "tenant/src.dump",
            "app_3",
            Some(R::InvalidRequest),
        ),
        (ops, "other/src.dump", "app_3", Some(R::SourceNotAllowed)),
        (ops, "latest", "app_3", Some(R::SourceNotAllowed)),
        (ops, "tenant/src.dump", "payroll", Some(R::TargetNotAllowed)),
    ] {
        request(key, backup, target);
        let result = env.result().await;
        let said = result.error.as_ref().map(|e| e.reason);
        assert_eq!(
            said, reason,
            "{key:?} {backup} {target}: {:?}",
            result.error
        );
        assert_eq!(result.status == Status::Success, reason.is_none());
    }
    assert_eq!(
        c.databases()
            .iter()
            .filter(|d| d.starts_with("app_"))
            .count(),
        2
    );
    running.stop().await;
}

//! The real program as a process: signals, takeover by the next worker, secrets.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;

use pgrestored::error::FailureReason;
use pgrestored::event::Status;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::cases::{self, Case};
use crate::support::{Cluster, is_full_campaign};
use crate::test_env::{BUCKET, PubSubKind, SourceCluster, TestEnv, get};

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_and_sigkill_lose_no_request() {
    let s = SourceCluster::new();
    let mut all: Vec<Case<'_>> = vec![
        (
            "sigkill",
            the_next_worker_takes_over(&s, "KILL").boxed_local(),
        ),
        (
            "a graceful stop finishes running restores",
            a_graceful_stop_finishes_running_restores(&s).boxed_local(),
        ),
        (
            "a restore by hand is interrupted cleanly",
            restore_by_hand_is_interrupted_cleanly(&s).boxed_local(),
        ),
        (
            "sigterm at every stage",
            sigterm_at_every_stage(&s).boxed_local(),
        ),
    ];
    // One of the stages is the same with another timeout.
    if is_full_campaign() {
        let case = the_next_worker_takes_over(&s, "TERM").boxed_local();
        all.push(("sigterm", case));
    }
    cases::each(all).await;
}

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_secrets_and_stays_ready() {
    let s = SourceCluster::new();
    cases::each([
        ("secrets do not leak", secrets_do_not_leak(&s).boxed_local()),
        (
            "half-open connections block neither restores nor probes",
            half_open_connections_block_neither_restores_nor_probes(&s).boxed_local(),
        ),
        (
            "a backup that may not be read leaves the worker ready",
            a_backup_that_may_not_be_read_leaves_the_worker_ready(&s).boxed_local(),
        ),
        (
            "no level of the log has secrets",
            no_level_of_the_log_has_secrets(&s).boxed_local(),
        ),
    ])
    .await;
}

pub struct Process {
    pub child: Child,
    admin: String,
    log: Arc<Mutex<Vec<serde_json::Value>>>,
}

async fn worker(env: &TestEnv, c: &Cluster, more: &[(&str, &str)]) -> Process {
    worker_with(env, c, more, &[]).await
}

/// Starts a worker with these flags and environment variables.
pub async fn worker_with(
    env: &TestEnv,
    c: &Cluster,
    more: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> Process {
    let command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    worker_by(command, env, c.sandbox.host(), more, variables).await
}

/// As [`worker_with`]; `command` is the program or a wrapper that starts it.
async fn worker_by(
    mut command: Command,
    env: &TestEnv,
    host: &str,
    more: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> Process {
    command
        .arg("worker")
        .env_clear()
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    // Sandboxes find their programs on PATH, and are in the folder of the tests.
    command
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TMPDIR", std::env::temp_dir())
        .envs(variables.iter().copied());
    for (flag, value) in env.flags() {
        if more.iter().all(|(other, _)| *other != flag) {
            command.arg(format!("--{flag}={value}"));
        }
    }
    for (flag, value) in [("db-host", host), ("admin-addr", "127.0.0.1:0")]
        .iter()
        .chain(more)
    {
        command.arg(format!("--{flag}={value}"));
    }
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let admin = loop {
        let line = log
            .next_line()
            .await
            .unwrap()
            .expect("the worker ended before it logged its address");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        if let Some(admin) = line["admin"].as_str() {
            break admin.to_owned();
        }
    };
    let lines = Arc::<Mutex<Vec<serde_json::Value>>>::default();
    let kept = lines.clone();
    // Keep reading: a full pipe would block the worker.
    tokio::spawn(async move {
        while let Ok(Some(line)) = log.next_line().await {
            eprintln!("{line}");
            kept.lock()
                .unwrap()
                .extend(serde_json::from_str::<serde_json::Value>(&line));
        }
    });
    Process {
        child,
        admin,
        log: lines,
    }
}

impl Process {
    /// The lines of its log so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.log.lock().unwrap().clone()
    }

    pub fn admin(&self) -> &str {
        &self.admin
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    async fn until_stage(&self, stage: &str) {
        let reached = async {
            loop {
                let status: serde_json::Value = serde_json::from_str(
                    &get(&format!("http://{}/status.json", self.admin)).await.1,
                )
                .unwrap();
                if status["running"][0]["progress"]["stage"] == stage {
                    return;
                }
                crate::support::pause().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .unwrap_or_else(|_| panic!("the stage {stage} was not reached in time"));
    }

    pub async fn exit_code(mut self) -> Option<i32> {
        tokio::time::timeout(Duration::from_secs(60), self.child.wait())
            .await
            .expect("the worker did not exit in time")
            .unwrap()
            .code()
    }
}

/// A worker ends while it restores, and the next one does the job: of a killed worker, once its lease has expired, and with
/// the staging database that it left.
async fn the_next_worker_takes_over(s: &SourceCluster, signal: &str) {
    let (env, c) = (s.slow_env(20).await, &s.c);
    let target = format!("taken_over_{}", signal.to_ascii_lowercase());
    let first = worker(&env, c, &[("drain-timeout", "1s")]).await;
    let request = serde_json::json!({
        "request_id": target, "backup": { "name": "src.dump" }, "target_db": target
    });
    env.publish(&request.to_string()).await;
    first.until_stage("data").await;
    assert_eq!(c.leftovers().len(), 1);
    first.signal(signal);
    let code = first.exit_code().await;
    if signal == "TERM" {
        assert_eq!(code, Some(0));
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
    assert!(!c.databases().contains(&target));
    env.emulator.storage.limit_rate(0);
    let second = worker(&env, c, &[]).await;
    let result = env.result().await;
    assert_eq!(
        (result.status, result.request_id.as_str()),
        (Status::Success, target.as_str())
    );
    s.assert_table(&target);
    assert_eq!(c.leftovers(), Vec::<String>::new());
    second.signal("TERM");
    assert_eq!(second.exit_code().await, Some(0));
}

/// A graceful stop lets a running restore finish.
async fn a_graceful_stop_finishes_running_restores(s: &SourceCluster) {
    let env = s.slow_env(3).await;
    let process = worker(&env, &s.c, &[("drain-timeout", "60s")]).await;
    env.publish(r#"{"request_id":"graceful","backup":{"name":"src.dump"},"target_db":"graceful"}"#)
        .await;
    process.until_stage("data").await;
    process.signal("TERM");
    assert_eq!(process.exit_code().await, Some(0));
    assert_eq!(env.result().await.status, Status::Success);
    assert!(s.c.databases().contains(&"graceful".to_owned()));
}

async fn restore_by_hand_is_interrupted_cleanly(s: &SourceCluster) {
    let (env, c) = (s.slow_env(20).await, &s.c);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        command
            .args([
                "restore", "latest", "--target", "by_hand", "--output", "json",
            ])
            .env_clear()
            .kill_on_drop(true);
        command
            .arg(format!("--db-host={}", c.sandbox.host()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        for (flag, value) in env.flags() {
            command.arg(format!("--{flag}={value}"));
        }
        let child = command.spawn().unwrap();
        let begun = "SET statement_timeout = '60s'; DO $$ BEGIN
            WHILE NOT EXISTS (SELECT FROM pg_database WHERE starts_with(datname, 'pgrestored_s_')) LOOP
                PERFORM pg_sleep(0.01);
            END LOOP; END $$";
        c.psql("postgres", begun);
        let pid = child.id().unwrap().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-s", signal, &pid])
                .status()
                .unwrap()
                .success()
        );
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(code));
        let body: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(body["error"]["reason"], "cancelled");
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
}

/// The self-test runs in the worker itself, and a metric shows its result. One that passes takes a minute, because it
/// restores dozens of backups: `make soak` runs it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_tests_its_own_verification() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let outcome = async |more: &[(&str, &str)], wanted: &str| {
        let flags = [more, &[("verify-selftest", "1h")]].concat();
        let command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        let process = worker_by(command, &env, "/nowhere", &flags, &[]).await;
        let url = format!("http://{}/metrics", process.admin);
        let counted = async {
            while !get(&url).await.1.lines().any(|l| l == wanted) {
                crate::support::pause().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(200), counted)
            .await
            .unwrap_or_else(|_| panic!("the metrics have no line {wanted}"));
        // The self-test's broken backups do not count as verifications.
        assert!(
            get(&url)
                .await
                .1
                .contains("restore_verification_total{status=\"failure\"} 0\n")
        );
        process.signal("TERM");
        assert_eq!(process.exit_code().await, Some(0));
    };
    if is_full_campaign() {
        outcome(&[], r#"restore_selftest_total{status="success"} 1"#).await;
    }
    // Without a server the self-test fails.
    outcome(
        &[("pg-bindir", "/nowhere")],
        r#"restore_selftest_total{status="failure"} 1"#,
    )
    .await;
}

/// SIGTERM in each stage: the worker exits in time, leaves nothing behind, and the next worker does the job. Without
/// `CAMPAIGN=full`, in a stage before the staging database exists, in one with it, and in the one that is not
/// interrupted.
async fn sigterm_at_every_stage(s: &SourceCluster) {
    let (env, c) = (s.env().await, &s.c);
    let size = s.dump.len() as u64;
    let stages = [
        ("prepare", "claimed", false),
        ("schema", "schema", false),
        // A slow download, so that the signal arrives in this stage.
        ("data", "", false),
        ("indexes", "copy", false),
        ("check", "checked", false),
        // From this stage on, the job is not interrupted.
        ("swap", "swap.begun", true),
    ];
    for (i, (stage, step, is_done)) in stages.into_iter().enumerate() {
        if !is_full_campaign() && !["prepare", "data", "swap"].contains(&stage) {
            continue;
        }
        // A delayed step, so that the signal arrives in its stage.
        let point = if step.is_empty() {
            String::new()
        } else {
            format!("{step}=1*return(2000)")
        };
        env.emulator
            .storage
            .limit_rate(if step.is_empty() { size / 20 } else { 0 });
        let first = worker_with(
            &env,
            c,
            &[("drain-timeout", "100ms")],
            &[("FAILPOINTS", &point)],
        )
        .await;
        let target = format!("stage{i}");
        env.publish(&format!(
            r#"{{"request_id":"{target}","backup":{{"name":"src.dump"}},"target_db":"{target}"}}"#
        ))
        .await;
        first.until_stage(stage).await;
        let begun = tokio::time::Instant::now();
        first.signal("TERM");
        assert_eq!(first.exit_code().await, Some(0), "{stage}");
        assert!(
            begun.elapsed() < Duration::from_secs(25),
            "{stage}: {:?}",
            begun.elapsed()
        );
        assert_eq!(c.leftovers(), Vec::<String>::new(), "{stage}");
        assert_eq!(c.databases().contains(&target), is_done, "{stage}");
        env.emulator.storage.limit_rate(0);
        let second = worker(&env, c, &[]).await;
        let result = env.result().await;
        assert_eq!(
            (result.status, &result.request_id),
            (Status::Success, &target),
            "{stage}"
        );
        s.assert_table(&target);
        second.signal("TERM");
        assert_eq!(second.exit_code().await, Some(0));
    }
}

/// Secrets appear neither on the command line nor in a core file, the log, an event or a metric.
async fn secrets_do_not_leak(s: &SourceCluster) {
    const CANARY: &str = "c4n4ry-p4ssw0rd";
    let env = s.env().await;
    let process = worker(
        &env,
        &s.c,
        &[("db-password", CANARY), ("db-user", "postgres")],
    )
    .await;
    let of = |file: &str| {
        std::fs::read_to_string(format!("/proc/{}/{file}", process.child.id().unwrap())).unwrap()
    };
    assert!(
        of("cmdline").contains("--db-user") && !of("cmdline").contains(CANARY),
        "{}",
        of("cmdline")
    );
    let core = of("limits")
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap()
        .to_owned();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    for body in [
        r#"{"request_id":"secret","backup":{"name":"src.dump"},"target_db":"secret"}"#,
        r#"{"request_id":"secret2","backup":{"name":"nothing"},"target_db":"secret2"}"#,
        "no request",
    ] {
        env.publish(body).await;
        let (result, event) = env.results(1).await.remove(0);
        assert!(!format!("{result:?} {:?} {:?}", event.attributes, event.data).contains(CANARY));
        assert!(!String::from_utf8_lossy(&event.data).contains(CANARY));
    }
    for page in ["metrics", "status.json", ""] {
        assert!(
            !get(&format!("http://{}/{page}", process.admin))
                .await
                .1
                .contains(CANARY),
            "{page}"
        );
    }
    let log = serde_json::to_string(&process.log()).unwrap();
    assert!(log.contains("the restore failed") && !log.contains(CANARY));
}

/// With more connections than descriptors, none of which sends a whole request, restores and probes still work.
async fn half_open_connections_block_neither_restores_nor_probes(s: &SourceCluster) {
    use tokio::io::AsyncWriteExt;
    let env = s.env().await;
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=160:160", env!("CARGO_BIN_EXE_pgrestored")]);
    let process = worker_by(limited, &env, s.c.sandbox.host(), &[], &[]).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        let mut stream = tokio::net::TcpStream::connect(process.admin())
            .await
            .unwrap();
        let _ = stream
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-a: ")
            .await;
        silent.push(stream);
    }
    assert_eq!(
        get(&format!("http://{}/livez", process.admin())).await.0,
        200
    );
    env.publish(r#"{"request_id":"probed","backup":{"name":"src.dump"},"target_db":"probed"}"#)
        .await;
    assert_eq!(env.result().await.status, Status::Success);
    assert_eq!(
        get(&format!("http://{}/readyz", process.admin())).await.0,
        200
    );
    let held = std::fs::read_dir(format!("/proc/{}/fd", process.child.id().unwrap()))
        .unwrap()
        .count();
    assert!(held < 100, "{held} open descriptors");
    drop(silent);
}

/// What the worker may not read or list in a folder is an answer about that request, and no fault of its credentials.
async fn a_backup_that_may_not_be_read_leaves_the_worker_ready(s: &SourceCluster) {
    use std::os::unix::fs::PermissionsExt;
    let (env, c) = (s.env().await, &s.c);
    let (folder, dump) = (c.scratch("backups"), c.dump_to_file("src", &[]));
    std::fs::create_dir_all(folder.join("private")).unwrap();
    for name in ["good.dump", "denied.dump", "private/newest.dump"] {
        std::fs::copy(&dump, folder.join(name)).unwrap();
    }
    let allow = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder.join(name), mode).unwrap();
    };
    allow("", 0o755);
    allow("good.dump", 0o644);
    for name in ["denied.dump", "private"] {
        allow(name, 0);
    }
    // Root may read everything, so the worker runs as the server's user.
    let command = c.sandbox.command(env!("CARGO_BIN_EXE_pgrestored"));
    let bucket = format!("file://{}", folder.display());
    let flags = [("backup-bucket", bucket.as_str())];
    let process = worker_by(command.into(), &env, c.sandbox.host(), &flags, &[]).await;
    let denied = Some(FailureReason::AccessDenied);
    for (name, reason) in [
        ("denied.dump", denied),
        ("latest", denied),
        ("good.dump", None),
    ] {
        env.publish(&format!(
            r#"{{"request_id":"{name}","backup":{{"name":"{name}"}},"target_db":"readable"}}"#
        ))
        .await;
        let result = env.result().await;
        let found = result.error.as_ref().map(|e| e.reason);
        assert_eq!(found, reason, "{name} {:?}", result.error);
        let ready = get(&format!("http://{}/readyz", process.admin())).await;
        assert_eq!(ready.0, 200, "{name} {}", ready.1);
    }
    allow("private", 0o755);
}

/// A worker that gets no token for its target server keeps running, and says what it lacks.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_login_token_is_not_ready() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let flags = [
        ("db-auth", "gcp-iam"),
        ("db-sslmode", "require"),
        ("db-user", "pgrestored@my-project.iam"),
    ];
    let command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    let variables = [("GCE_METADATA_HOST", closed.as_str())];
    let process = worker_by(command, &env, "127.0.0.1", &flags, &variables).await;
    let ready = format!("http://{}/readyz", process.admin());
    let said = async {
        loop {
            let (code, said) = get(&ready).await;
            if code == 503 && said.contains("no access token") {
                return said;
            }
            crate::support::pause().await;
        }
    };
    let said = tokio::time::timeout(Duration::from_secs(60), said)
        .await
        .expect("the missing token is not reported");
    for part in ["target server 127.0.0.1:5432", "run as a service account"] {
        assert!(said.contains(part), "{said}");
    }
    let live = get(&ready.replace("readyz", "livez")).await;
    assert_eq!(live.0, 200, "{}", live.1);
}

/// Even the most verbose log contains no password and no SCRAM verifier.
/// The last case of a cluster: it changes how one logs in, and drops `src`.
async fn no_level_of_the_log_has_secrets(s: &SourceCluster) {
    const CANARY: &str = "c4n4ry-p4ssw0rd";
    let (env, c) = (s.env().await, &s.c);
    c.psql(
        "postgres",
        &format!("CREATE ROLE app LOGIN SUPERUSER PASSWORD '{CANARY}'"),
    );
    let rules = "local all app scram-sha-256\nlocal all all trust\n";
    c.psql("postgres", &format!("COPY (SELECT rule FROM regexp_split_to_table($r${rules}$r$, E'\\n') rule) TO PROGRAM 'cat > pg_hba.conf'; SELECT pg_reload_conf()"));
    c.psql("src", "CREATE ROLE visitor; ALTER TABLE t OWNER TO visitor");
    let dump = std::fs::read(c.dump_through_pipe("src", &[])).unwrap();
    env.emulator.storage.put(BUCKET, "src.dump", dump);
    c.psql("postgres", "DROP DATABASE src");
    c.psql("postgres", "DROP ROLE visitor");
    let globals = "--\n-- PostgreSQL database cluster dump\n--\n\nCREATE ROLE visitor;\nALTER ROLE visitor WITH LOGIN PASSWORD 'SCRAM-SHA-256$4096:c4n4ry-s4lt$x:y';\n";
    env.emulator
        .storage
        .put(BUCKET, "globals.sql", globals.as_bytes().to_vec());
    let flags = [("db-user", "app"), ("db-password", CANARY)];
    for more in [
        &[("backup-trust", "restricted")][..],
        &[
            ("restore-globals", "globals.sql"),
            ("restore-role-passwords", "true"),
            ("restore-create-roles", "true"),
        ],
    ] {
        let flags = [&flags, more].concat();
        let process = worker_with(&env, c, &flags, &[("RUST_LOG", "trace")]).await;
        let target = format!("logged{}", more.len());
        env.publish(&format!(
            r#"{{"request_id":"{target}","backup":{{"name":"src.dump"}},"target_db":"{target}"}}"#
        ))
        .await;
        let result = env.result().await;
        assert_eq!((result.status, result.error), (Status::Success, None));
        let log = serde_json::to_string(&process.log()).unwrap();
        assert!(
            log.contains("stage started"),
            "pgrestored's own debug lines are missing"
        );
        for secret in [CANARY, "c4n4ry-s4lt", "SCRAM-SHA-256", "PASSWORD '"] {
            assert!(!log.contains(secret), "{secret}");
        }
    }
    assert_eq!(
        c.psql(
            "postgres",
            "SELECT count(*) FROM pg_roles WHERE rolname = 'visitor'"
        ),
        "1"
    );
}

//! Interactive commands: doctor, status, watch, request --wait.

use std::process::{Output, Stdio};

use futures::FutureExt;
use serde_json::Value;
use tokio::process::Command;

use crate::cases;
use crate::support::Cluster;
use crate::test_env::{BUCKET, PubSubKind, ROWS, SourceCluster, TestEnv};

/// The cases share a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn commands_tell_operators_what_they_need() {
    let s = SourceCluster::new();
    cases::each([
        (
            "doctor accepts a good setup",
            doctor_accepts_a_good_setup(&s, PubSubKind::Emulator).boxed_local(),
        ),
        (
            "doctor looks at the newest backup of each database",
            doctor_looks_at_the_newest_backup_of_each_database(&s).boxed_local(),
        ),
        (
            "doctor finds what is missing and says how to fix it",
            doctor_finds_what_is_missing_and_says_how_to_fix_it(&s).boxed_local(),
        ),
        (
            "doctor looks at orders and at what finishes their copies",
            doctor_looks_at_orders_and_at_what_finishes_their_copies(&s).boxed_local(),
        ),
        (
            "a worker without a target only verifies",
            a_worker_without_a_target_only_verifies(&s).boxed_local(),
        ),
        (
            "a missing topic or subscription is an error at once",
            a_missing_topic_or_subscription_is_an_error_at_once(&s).boxed_local(),
        ),
    ])
    .await;
    cases::at_once([
        (
            "waiting commands show progress and the result",
            waiting_commands_show_progress_and_the_result(&s).boxed_local(),
        ),
        (
            "a request that no worker answers is said to wait",
            a_request_that_no_worker_answers_is_said_to_wait(&s).boxed_local(),
        ),
    ])
    .await;
}

fn command(env: &TestEnv, c: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("TMPDIR", std::env::temp_dir())
        .kill_on_drop(true);
    let mut flags = env.flags();
    flags.push(("db-host", c.sandbox.host().to_owned()));
    flags.retain(|(flag, _)| !args.contains(&format!("--{flag}").as_str()));
    command.args(
        flags
            .iter()
            .map(|(flag, value)| format!("--{flag}={value}")),
    );
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

async fn run(env: &TestEnv, c: &Cluster, args: &[&str]) -> Output {
    command(env, c, args).output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The JSON document on standard output, validated against its schema.
fn document(out: &Output, schema: &str) -> Value {
    let found: Value = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", text(&out.stdout), text(&out.stderr)));
    let schemas = pgrestored::cli::schemas();
    let (_, schema) = schemas
        .into_iter()
        .find(|(name, _)| *name == schema)
        .unwrap();
    let validator = jsonschema::validator_for(&serde_json::to_value(schema).unwrap()).unwrap();
    let wrong: Vec<String> = validator
        .iter_errors(&found)
        .map(|e| e.to_string())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    found
}

/// The results of all checks of `doctor`, and its exit code.
async fn diagnosis(
    env: &TestEnv,
    c: &Cluster,
    more: &[&str],
) -> (Vec<(String, String, Value)>, Option<i32>) {
    let args = [&["doctor", "--output", "json"], more].concat();
    let out = run(env, c, &args).await;
    let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let all = document(&out, "diagnosis");
    let all = all.as_array().unwrap().iter();
    (
        all.map(|d| (word(&d["check"]), word(&d["health"]), d.clone()))
            .collect(),
        out.status.code(),
    )
}

fn health<'a>(found: &'a [(String, String, Value)], check: &str) -> &'a str {
    &found
        .iter()
        .find(|(name, ..)| name == check)
        .unwrap_or_else(|| panic!("no {check}: {found:#?}"))
        .1
}

pub async fn doctor_accepts_a_good_setup(s: &SourceCluster, kind: PubSubKind) {
    let Some(env) = s.env_of(kind).await else {
        return;
    };
    let (found, code) = diagnosis(&env, &s.c, &[]).await;
    let failures: Vec<_> = found
        .iter()
        .filter(|(_, health, _)| health == "failure")
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(code, Some(0));
    for check in [
        "bucket",
        "results",
        "target server",
        "target journal",
        "newest backup",
        "sandbox",
    ] {
        assert_eq!(health(&found, check), "ok", "{found:#?}");
    }
    // Restoring backups as a superuser is a warning, and so is a subscription without a dead-letter topic.
    for check in ["target rights", "requests"] {
        assert_eq!(health(&found, check), "warning", "{found:#?}");
    }
}

/// Where the newest backups are of several databases, the newest one of each is looked at.
async fn doctor_looks_at_the_newest_backup_of_each_database(s: &SourceCluster) {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = &s.c;
    c.psql("postgres", "CREATE ROLE gone");
    for (database, sql) in [
        ("app", "CREATE TABLE t (a int)"),
        (
            "shop",
            "CREATE TABLE t (a int); ALTER TABLE t OWNER TO gone",
        ),
    ] {
        c.create(database, sql);
        let dump = std::fs::read(c.dump_through_pipe(database, &[])).unwrap();
        for name in ["older", "newest"] {
            let name = format!("{database}-{name}.dump");
            env.emulator.storage.put(BUCKET, &name, dump.clone());
        }
    }
    c.psql("shop", "DROP TABLE t");
    c.psql("postgres", "DROP ROLE gone");
    let (found, _) = diagnosis(&env, c, &NO_SANDBOX).await;
    let newest = found.iter().filter(|(check, ..)| check == "newest backup");
    let newest: Vec<(&str, &str)> = newest
        .map(|(_, health, d)| (health.as_str(), d["message"].as_str().unwrap()))
        .collect();
    let [(app, of_app), (shop, of_shop)] = newest[..] else {
        panic!("{found:#?}");
    };
    assert!(
        app == "ok" && of_app.starts_with("app-newest.dump: "),
        "{of_app}"
    );
    assert!(
        shop != "ok" && of_shop.starts_with("shop-newest.dump: "),
        "{of_shop}"
    );
    assert!(of_shop.contains("gone"), "{of_shop}");
}

/// Makes `doctor` start no server in a sandbox, which takes longer than all else that it does. The failure is the least
/// severe, so others decide the exit code.
const NO_SANDBOX: [&str; 2] = ["--sandbox-dir", "/proc/nowhere"];

async fn doctor_finds_what_is_missing_and_says_how_to_fix_it(s: &SourceCluster) {
    let (env, c) = (s.env().await, &s.c);
    c.psql("postgres", "CREATE ROLE weak LOGIN");
    c.create("hstore_src", "CREATE EXTENSION hstore; CREATE ROLE owner_of_it; CREATE TABLE h (v hstore); ALTER TABLE h OWNER TO owner_of_it");
    let needs = std::fs::read(c.dump_to_file("hstore_src", &[])).unwrap();
    env.emulator.storage.put("other", "needs.dump", needs);
    c.psql("postgres", "DROP DATABASE hstore_src");
    c.psql("postgres", "DROP ROLE owner_of_it");
    let deny = |permission: &str| env.emulator.access.deny(permission);
    type Setting<'a> = (&'a [&'a str], &'a str, i32, &'a str);
    let cases: [Setting; 7] = [
        (
            &["--restore-request-subscription", "nowhere"],
            "requests",
            78,
            "subscriptions create nowhere",
        ),
        (
            &["--restore-completion-topic", "nowhere"],
            "results",
            78,
            "topics create nowhere",
        ),
        (
            &["--db-host", "/nowhere", "--retry-budget", "10ms"],
            "target server",
            69,
            "DB_HOST",
        ),
        (
            &["--db-user", "weak"],
            "target rights",
            77,
            "ALTER ROLE \"weak\" CREATEDB",
        ),
        (
            &["--backup-bucket", "file:///nowhere/at/all"],
            "bucket",
            1,
            "check that the folder exists",
        ),
        (
            &["--backup-bucket", "other"],
            "newest backup",
            1,
            "create-roles",
        ),
        (&NO_SANDBOX, "sandbox", 1, "SANDBOX_DIR"),
    ];
    for (flags, check, exit, fix) in cases {
        let without: &[&str] = if exit == 1 { &[] } else { &NO_SANDBOX };
        let (found, code) = diagnosis(&env, c, &[flags, without].concat()).await;
        assert_eq!(health(&found, check), "failure", "{flags:?}: {found:#?}");
        let (_, _, said) = found.iter().find(|(name, ..)| name == check).unwrap();
        assert!(
            said["fix"].as_str().unwrap().contains(fix),
            "{flags:?}: {said:#?}"
        );
        assert_eq!(code, Some(exit), "{flags:?}: {found:#?}");
    }
    for (permission, check, role) in [
        (
            "pubsub.subscriptions.consume",
            "requests",
            "roles/pubsub.subscriber",
        ),
        ("pubsub.topics.publish", "results", "roles/pubsub.publisher"),
        (
            "storage.objects.create",
            "bucket rights",
            "roles/storage.objectCreator",
        ),
        (
            "storage.objects.get",
            "bucket rights",
            "roles/storage.objectViewer",
        ),
    ] {
        deny(permission);
        let flags = [&["--verify-schedule", "24h"][..], &NO_SANDBOX].concat();
        let (found, code) = diagnosis(&env, c, &flags).await;
        assert_eq!(health(&found, check), "failure", "{permission}: {found:#?}");
        let (_, _, said) = found.iter().find(|(name, ..)| name == check).unwrap();
        assert!(
            said["fix"].as_str().unwrap().contains(role),
            "{permission}: {said:#?}"
        );
        assert_eq!(code, Some(77), "{permission}: {found:#?}");
    }
    // What the store's own answer says is shown where its advice is, and not twice.
    env.emulator
        .storage_errors
        .set_requester_pays(BUCKET, "payer");
    let (found, code) = diagnosis(&env, c, &NO_SANDBOX).await;
    let (_, _, said) = found.iter().find(|(name, ..)| name == "bucket").unwrap();
    assert_eq!((said["health"].as_str(), code), (Some("failure"), Some(77)));
    let (message, fix) = (said["message"].as_str().unwrap(), said["fix"].as_str());
    assert!(message.ends_with("no user project provided.)"), "{message}");
    assert!(fix.unwrap().starts_with("set BACKUP_USER_PROJECT to "));
    let billed = [&["--backup-user-project", "payer"][..], &NO_SANDBOX].concat();
    let (found, _) = diagnosis(&env, c, &billed).await;
    let (_, health, said) = found.iter().find(|(name, ..)| name == "bucket").unwrap();
    assert_eq!(health, "ok", "{said:#?}");
    let message = said["message"].as_str().unwrap();
    assert!(message.ends_with(", requests billed to payer"), "{message}");
}

async fn doctor_looks_at_orders_and_at_what_finishes_their_copies(s: &SourceCluster) {
    let (env, c) = (s.env().await, &s.c);
    let finishing = c.open_folder("doctor_finishing");
    std::fs::write(finishing.join("team.sql"), "SELECT 1").unwrap();
    std::fs::write(finishing.join("team.yaml"), "assertions: nothing").unwrap();
    let orders = [
        "name: good, target: a, finish: [team.sql]",
        "name: lacking, target: b, finish: [other.sql]",
        "name: wrong, target: c, finish_checks: team.yaml",
        "name: empty, target: d, prefix: nothing/",
    ];
    let orders = orders.map(|order| format!("  - {{ when: finalized, {order} }}\n"));
    let file = c.scratch("doctor_orders.yaml");
    std::fs::write(&file, format!("version: 1\norders:\n{}", orders.concat())).unwrap();
    let (file, place) = (
        file.display().to_string(),
        format!("file://{}", finishing.display()),
    );
    let with_orders = [
        "--standing-restores",
        &file,
        "--restore-finish-from",
        &place,
    ];
    let (found, _) = diagnosis(&env, c, &[&with_orders[..], &NO_SANDBOX].concat()).await;
    assert_eq!(health(&found, "finishing files"), "ok", "{found:#?}");
    for (order, health, said) in [
        ("good", "ok", "src.dump is its newest backup; 1 SQL file"),
        ("lacking", "failure", "other.sql does not exist"),
        ("wrong", "failure", "finish_checks: team.yaml: "),
        ("empty", "warning", "no backups"),
    ] {
        let begin = format!("order {order}: ");
        let all = found.iter().filter(|(name, ..)| name == "standing restore");
        let message = |d: &Value| d["message"].as_str().unwrap().to_owned();
        let mut its = all.filter(|(.., d)| message(d).starts_with(&begin));
        let (_, found, d) = its.next().unwrap_or_else(|| panic!("{order}: {found:#?}"));
        assert_eq!(found, health, "{d:#?}");
        assert!(message(d).contains(said), "{d:#?}");
    }
    let nowhere = ["--restore-finish-from", "file:///nowhere/at/all"];
    let (found, _) = diagnosis(&env, c, &[&nowhere[..], &NO_SANDBOX].concat()).await;
    assert_eq!(health(&found, "finishing files"), "failure", "{found:#?}");
    assert_eq!(health(&found, "standing restore"), "skipped", "{found:#?}");
}

/// A worker without a target server is set up well if it only verifies, and then refuses restores.
async fn a_worker_without_a_target_only_verifies(s: &SourceCluster) {
    let (env, c) = (s.env().await, &s.c);
    env.subscription("backup-notifications").await;
    let notified = "--backup-notification-subscription=backup-notifications";
    let (found, code) = diagnosis(&env, c, &["--db-host", "", notified]).await;
    assert_eq!(health(&found, "target server"), "skipped", "{found:#?}");
    assert!(
        !found.iter().any(|(_, health, _)| health == "failure"),
        "{found:#?}"
    );
    assert_eq!(code, Some(0));
    // Without notifications, a missing target server is a failure.
    let nowhere = ["--db-host", "/nowhere", "--retry-budget", "10ms"];
    let nowhere = [&nowhere[..], &NO_SANDBOX].concat();
    let (found, _) = diagnosis(&env, c, &nowhere).await;
    assert_eq!(health(&found, "target server"), "failure", "{found:#?}");

    let flags = [
        ("db-host", ""),
        ("db-port", ""),
        ("db-user", ""),
        ("db-password", ""),
        ("backup-notification-subscription", "backup-notifications"),
    ];
    let running = env.worker(c, &flags).await;
    env.publish(r#"{"request_id":"r1","backup":{"name":"src.dump"},"target_db":"app"}"#)
        .await;
    let error = env.result().await.error.unwrap();
    assert_eq!(
        error.reason,
        pgrestored::error::FailureReason::TargetNotAllowed
    );
    assert!(error.message.contains("DB_HOST"), "{}", error.message);
    running.stop().await;
}

async fn waiting_commands_show_progress_and_the_result(s: &SourceCluster) {
    // The limit is lifted before the restore has taken so long.
    let (env, c) = (s.slow_env(90).await, &s.c);
    let running = env.worker(c, &[]).await;
    let url = format!("http://{}", running.worker.admin);
    let asked = command(
        &env,
        c,
        &[
            "request",
            "src.dump",
            "--target",
            "waited",
            "--request-id",
            "r1",
            "--wait",
            "--url",
            &url,
            "--output",
            "json",
        ],
    )
    .spawn()
    .unwrap();
    let at_work = async {
        loop {
            let page = running.get("/status.json").await.1;
            let status: Value = serde_json::from_str(&page).unwrap();
            if status["running"][0]["progress"]["stage"] == "data" {
                return;
            }
            crate::support::pause().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), at_work)
        .await
        .expect("the restore did not reach the stage data in time");
    let out = run(&env, c, &["status", "--url", &url, "--output", "json"]).await;
    let status = document(&out, "worker-status");
    assert_eq!(status["running"][0]["progress"]["stage"], "data");
    let shown = text(&run(&env, c, &["status", "--url", &url]).await.stdout);
    assert!(
        shown.contains("is ready") && shown.contains("r1 restoring src.dump into waited: data"),
        "{shown}"
    );
    // Colours only at a terminal, and unless they are disabled.
    let at_a_terminal = async |more: &[(&str, &str)]| {
        let status = format!("{} status --url {url}", env!("CARGO_BIN_EXE_pgrestored"));
        let mut script = Command::new("script");
        script
            .args(["-qec", &status, "/dev/null"])
            .env("TERM", "xterm")
            .envs(more.iter().copied());
        text(&script.stdin(Stdio::null()).output().await.unwrap().stdout)
    };
    assert!(at_a_terminal(&[]).await.contains("is \x1b[32mready\x1b[0m"));
    let plain = at_a_terminal(&[("NO_COLOR", "1")]).await;
    assert!(
        plain.contains("is ready") && !plain.contains('\x1b'),
        "{plain}"
    );
    let other = ["--google-cloud-project", "", "--timeout", "6s"];
    let unknown = [&["watch", "nobody", "--url", &url][..], &other].concat();
    let unknown = command(&env, c, &unknown).spawn().unwrap();
    // Two commands wait, one of them without Pub/Sub: both get the result.
    let without = ["watch", "r1", "--url", &url, "--google-cloud-project", ""];
    let by_page = command(&env, c, &without).spawn().unwrap();
    env.emulator.storage.limit_rate(0);
    let out = asked.wait_with_output().await.unwrap();
    let result = document(&out, "restore-result");
    assert_eq!(
        (result["status"].as_str(), result["rows"].as_u64()),
        (Some("success"), Some(ROWS))
    );
    assert!(
        text(&out.stderr).contains("restoring src.dump into waited"),
        "{}",
        text(&out.stderr)
    );
    let out = by_page.wait_with_output().await.unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(
        text(&out.stdout).contains("r1 restored src.dump into waited"),
        "{}",
        text(&out.stdout)
    );
    assert!(
        !text(&out.stdout).contains('\x1b'),
        "colours without a terminal"
    );
    // A failure is a result too, with its exit code.
    let out = run(
        &env,
        c,
        &[
            "request",
            "none.dump",
            "--target",
            "waited2",
            "--wait",
            "--url",
            &url,
        ],
    )
    .await;
    assert_eq!(out.status.code(), Some(1));
    let said = text(&out.stderr);
    assert!(
        said.contains("failed none.dump into waited2") && said.contains("backup_not_found"),
        "{said}"
    );
    let out = unknown.wait_with_output().await.unwrap();
    assert_eq!(out.status.code(), Some(69));
    let said = text(&out.stderr);
    assert!(
        said.contains("nothing is known of request nobody"),
        "{said}"
    );
    assert_eq!(text(&out.stdout), "");
    assert_eq!(
        run(&env, c, &["status", "--url", &url, "--alive"])
            .await
            .status
            .code(),
        Some(0)
    );
    running.stop().await;
    let out = run(&env, c, &["status", "--url", &url, "--alive"]).await;
    assert_eq!(out.status.code(), Some(69));
}

/// What does not exist is said before anything is published or waited for.
async fn a_missing_topic_or_subscription_is_an_error_at_once(s: &SourceCluster) {
    let (env, c) = (TestEnv::start(PubSubKind::Emulator).await.unwrap(), &s.c);
    let request = ["request", "src.dump", "--target", "app", "--wait"];
    let topic = [&request[..], &["--restore-request-topic", "nowhere"]].concat();
    let results = ["--restore-completion-subscription", "nowhere"];
    let subscription = [&request[..], &results].concat();
    let watch = [&["watch", "r1"][..], &results].concat();
    for (args, what, setting) in [
        (&topic, "topics create nowhere", "RESTORE_REQUEST_TOPIC"),
        (
            &subscription,
            "subscriptions create nowhere",
            "RESTORE_COMPLETION_SUBSCRIPTION",
        ),
        (
            &watch,
            "subscriptions create nowhere",
            "RESTORE_COMPLETION_SUBSCRIPTION",
        ),
    ] {
        let out = run(&env, c, args).await;
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(78), "{args:?}: {said}");
        assert!(said.contains(what) && said.contains(setting), "{said}");
    }
    let published = env
        .emulator
        .pubsub
        .published("projects/test/topics/restore-requests");
    assert!(published.is_empty());
}

/// Without a worker, the command says so, and keeps waiting.
async fn a_request_that_no_worker_answers_is_said_to_wait(s: &SourceCluster) {
    let (env, c) = (TestEnv::start(PubSubKind::Emulator).await.unwrap(), &s.c);
    let request = [
        "request",
        "src.dump",
        "--target",
        "app",
        "--request-id",
        "r1",
        "--wait",
        "--timeout",
        "10s",
        "--url",
        "http://127.0.0.1:1",
    ];
    let with_subscription = run(&env, c, &request);
    let other = ["--restore-request-subscription", "nowhere"];
    let without = [&request[..], &other].concat();
    let without_subscription = run(&env, c, &without);
    let (there, missing) = tokio::join!(with_subscription, without_subscription);
    for (out, why) in [
        (
            there,
            "a worker must process the subscription restore-requests",
        ),
        (missing, "subscriptions/nowhere does not exist"),
    ] {
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(69), "{said}");
        for expected in [
            "no worker has answered yet; still waiting for the result of request r1",
            why,
            "http://127.0.0.1:1 does not respond",
            "no result of request r1 within 10s",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
}

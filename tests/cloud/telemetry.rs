//! Traces as an OTLP receiver gets them, and log lines as docs/logging.md documents them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::Span;
use pgrestored::event::Status;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::Cluster;
use crate::support::otlp::OtlpReceiver;
use crate::test_env::{BUCKET, PubSubKind, TestEnv};

/// Every span, of resources that have the service's name.
fn spans_of(receiver: &OtlpReceiver) -> Vec<Span> {
    let requests = receiver.requests().into_iter();
    let mut spans = vec![];
    for resource in requests.flat_map(|r| r.resource_spans) {
        let attributes = resource.resource.unwrap().attributes;
        assert!(
            attributes.iter().any(|a| a.key == "service.name"),
            "{attributes:?}"
        );
        spans.extend(resource.scope_spans.into_iter().flat_map(|s| s.spans));
    }
    spans
}

/// A worker with its log.
struct Logged {
    child: tokio::process::Child,
    log: tokio::task::JoinHandle<Vec<Value>>,
}

const PASSWORD: &str = "hunter2-the-password";
/// Values of rows, one of which the target rejects.
const SECRET_ROW: &str = "a-row-of-the-backup";

impl Logged {
    fn start(env: &TestEnv, c: &Cluster, otlp: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        command.arg("worker").env_clear().kill_on_drop(true);
        command
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("TMPDIR", std::env::temp_dir())
            .env("DB_PASSWORD", PASSWORD);
        // The exporter's default interval is 5 s.
        command.env("OTEL_BSP_SCHEDULE_DELAY", "100");
        for (flag, value) in env.flags() {
            command.arg(format!("--{flag}={value}"));
        }
        command.args([
            "--db-host",
            c.sandbox.host(),
            "--admin-addr",
            "127.0.0.1:0",
            "--log-level",
            "debug",
        ]);
        command.args(["--otel-exporter-otlp-endpoint", otlp]);
        let mut child = command
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("{line}");
                all.push(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")));
            }
            all
        });
        Logged { child, log }
    }

    /// Stops it gracefully and returns its log lines.
    async fn stop(mut self) -> Vec<Value> {
        let pid = self.child.id().unwrap().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-s", "TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert!(self.child.wait().await.unwrap().success());
        self.log.await.unwrap()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The documented log fields.
fn documented() -> BTreeSet<String> {
    let page =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logging.md"))
            .unwrap();
    let rows = page.lines().filter(|l| l.starts_with("| `"));
    let cells = rows.flat_map(|l| {
        l.split('|')
            .nth(1)
            .unwrap()
            .split('`')
            .filter(|w| !w.trim().is_empty())
    });
    cells
        .map(str::to_owned)
        .chain(["logging.googleapis.com/trace".to_owned()])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_one_trace_and_its_log_fields_are_documented() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create(
        "src",
        &format!(
            "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE INDEX t_v ON t (v); \
             INSERT INTO t SELECT i, '{SECRET_ROW}-' || i FROM generate_series(1, 5000) i"
        ),
    );
    let dump = std::fs::read(c.dump_through_pipe("src", &[])).unwrap();
    env.emulator.storage.put(BUCKET, "src.dump", dump);
    let twice = std::fs::read_to_string(c.dump_to_file("src", &["-Fp"])).unwrap();
    let row = format!("7\t{SECRET_ROW}-7\n");
    let twice = twice.replace(&row, &format!("{row}{row}"));
    env.emulator
        .storage
        .put(BUCKET, "twice.sql", twice.into_bytes());

    let receiver = OtlpReceiver::default();
    let worker = Logged::start(&env, &c, &receiver.start().await);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let ask = async |body: &str| {
        env.publish_with(body, &[("googclient_traceparent", &parent)])
            .await;
        let (result, event) = env.results(1).await.remove(0);
        assert!(
            event.attributes["traceparent"].contains(trace),
            "{:?}",
            event.attributes
        );
        result
    };
    let good = ask(r#"{"request_id":"good","backup":{"name":"src.dump"},"target_db":"app"}"#).await;
    assert_eq!(good.status, Status::Success);
    let bad = ask(r#"{"request_id":"bad","backup":{"name":"twice.sql"},"target_db":"app2"}"#).await;
    assert_eq!(bad.error.unwrap().reason.as_str(), "data_rejected");
    let proof = ask(r#"{"request_id":"proof","backup":{"name":"src.dump"},"mode":"verify"}"#).await;
    assert_eq!(proof.status, Status::Success);
    let refused = ask(r#"{"request_id":"refused","surprise":1}"#).await;
    assert_eq!(refused.status, Status::Failure);
    let log = worker.stop().await;

    // All spans belong to the publisher's trace, and each has a parent in it.
    let spans = spans_of(&receiver);
    assert!(
        spans.iter().all(|s| hex(&s.trace_id) == trace),
        "{spans:#?}"
    );
    let ids: BTreeMap<String, &Span> = spans.iter().map(|s| (hex(&s.span_id), s)).collect();
    let path = |span: &Span| {
        let (mut names, mut at) = (vec![span.name.clone()], hex(&span.parent_span_id));
        while let Some(parent) = ids.get(&at) {
            names.push(parent.name.clone());
            at = hex(&parent.parent_span_id);
        }
        assert_eq!(
            at, "b7ad6b7169203331",
            "{names:?} does not descend from the publisher's span"
        );
        names.reverse();
        names.join("/")
    };
    let paths: BTreeSet<String> = spans.iter().map(path).collect();
    for wanted in [
        "delivery",
        "delivery/restore",
        "delivery/restore/prepare",
        "delivery/restore/swap",
        "delivery/verification",
        "delivery/verification/sandbox",
        "delivery/verification/check",
    ] {
        assert!(paths.contains(wanted), "no {wanted}: {paths:#?}");
    }
    // A small archive may be read completely while its schema is created, so its data may be loaded in either stage.
    let is_load = |path: &str| {
        path.starts_with("delivery/restore/") && path.ends_with("/TABLE DATA public.t")
    };
    for name in [
        "TABLE DATA public.t",
        "INDEX public.t_v",
        "CONSTRAINT public.t t_pkey",
    ] {
        for kind in ["restore", "verification"] {
            let (from, to) = (format!("delivery/{kind}/"), format!("/{name}"));
            assert!(
                paths
                    .iter()
                    .any(|p| p.starts_with(&from) && p.ends_with(&to)),
                "{kind} {name}: {paths:#?}"
            );
        }
    }
    let attribute = |s: &Span, key: &str| {
        let found = s.attributes.iter().find(|a| a.key == key);
        found
            .map(|a| format!("{:?}", a.value.as_ref().unwrap().value))
            .unwrap_or_default()
    };
    let failed = spans
        .iter()
        .find(|s| s.name == "restore" && attribute(s, "request_id").contains("bad"))
        .unwrap();
    assert_eq!(failed.status.as_ref().unwrap().code, 2, "{failed:#?}");
    assert!(attribute(failed, "failure_reason").contains("data_rejected"));
    let loaded: u64 = spans
        .iter()
        .filter(|s| is_load(&path(s)))
        .filter_map(|s| {
            attribute(s, "rows")
                .chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
                .parse::<u64>()
                .ok()
        })
        .sum();
    assert!(loaded >= 5000, "{loaded}");

    // The log has only documented fields, each job's lines have its trace, and no line contains secrets or row data.
    let documented = documented();
    let text = log.iter().map(|l| format!("{l}\n")).collect::<String>();
    for secret in [PASSWORD, SECRET_ROW, "INSERT INTO", "CREATE TABLE"] {
        assert!(!text.contains(secret), "{secret} is in the log");
    }
    for line in &log {
        let fields = line.as_object().unwrap();
        let unknown: Vec<_> = fields.keys().filter(|k| !documented.contains(*k)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {line}");
        for key in ["time", "severity", "message"] {
            assert!(fields[key].is_string(), "{line}");
        }
    }
    for (request, message) in [
        ("good", "restore ended"),
        ("bad", "the restore failed"),
        ("proof", "verification ended"),
        ("refused", "the request is rejected"),
    ] {
        let line = log
            .iter()
            .find(|l| l["request_id"] == request && l["message"] == message);
        let line = line.unwrap_or_else(|| panic!("no {message} of {request}"));
        assert_eq!(line["trace_id"], trace, "{line}");
        assert_eq!(
            line["logging.googleapis.com/trace"],
            format!("projects/test/traces/{trace}")
        );
        assert!(
            ids.contains_key(line["span_id"].as_str().unwrap()),
            "{line}"
        );
    }
    let spans = format!("{spans:?}");
    assert!(!spans.contains(SECRET_ROW) && !spans.contains(PASSWORD));
}

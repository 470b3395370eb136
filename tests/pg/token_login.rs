//! `DB_AUTH=gcp-iam`: a metadata server issues tokens, and a server with TLS accepts only the newest one.

use std::collections::HashMap;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::Cluster;
use crate::tls::{Pki, server};

/// What Cloud SQL calls the database user of a service account.
const USER: &str = "pgrestored@my-project.iam";

/// Every token begins like this, and nothing else does.
const CANARY: &str = "c4n4ry-t0k3n-";

/// Google Cloud's metadata server: it issues the current token to whoever asks.
#[derive(Default)]
struct Google {
    /// Locked while the server is told of another one.
    current: Mutex<u32>,
    /// How long tokens are valid.
    seconds: AtomicU64,
    /// How many times a token was issued.
    issued: AtomicU32,
}

async fn issue(
    State(google): State<Arc<Google>>,
    Query(asked): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Json<Value> {
    assert_eq!(headers["metadata-flavor"], "Google");
    let scopes: Vec<&str> = asked["scopes"].split(',').collect();
    let logins = ["sqlservice.login", "alloydb.login"];
    assert_eq!(
        scopes,
        logins.map(|s| format!("https://www.googleapis.com/auth/{s}"))
    );
    google.issued.fetch_add(1, SeqCst);
    let token = format!("{CANARY}{}", google.current.lock().unwrap());
    let seconds = google.seconds.load(SeqCst);
    Json(json!({ "access_token": token, "expires_in": seconds, "token_type": "Bearer" }))
}

impl Google {
    /// Starts it, and returns its address.
    async fn start(self: &Arc<Self>) -> String {
        let path = "/computeMetadata/v1/instance/service-accounts/default/token";
        let routes = axum::Router::new()
            .route(path, axum::routing::get(issue))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        address.to_string()
    }
}

/// The server, and what a workload has there that may log in to it.
struct Workload {
    c: Cluster,
    pki: Pki,
    address: String,
    google: Arc<Google>,
    metadata: String,
}

impl Workload {
    async fn start() -> Self {
        let rule = format!("hostssl all \"{USER}\" 127.0.0.0/8 password");
        let (c, pki, address) = server(79, &rule);
        let role = format!(
            "CREATE ROLE \"{USER}\" LOGIN CREATEDB; GRANT CREATE ON DATABASE postgres TO \"{USER}\""
        );
        c.psql("postgres", &role);
        let google = Arc::<Google>::default();
        let metadata = google.start().await;
        Workload {
            c,
            pki,
            address,
            google,
            metadata,
        }
    }

    fn set_password(&self, password: &str) {
        let set = format!("ALTER ROLE \"{USER}\" PASSWORD '{password}'");
        self.c.psql("postgres", &set);
    }

    /// From now on the server accepts only the tokens that are issued from now on.
    fn rotate(&self) {
        let mut current = self.google.current.lock().unwrap();
        *current += 1;
        self.set_password(&format!("{CANARY}{current}"));
    }

    fn issued(&self) -> u32 {
        self.google.issued.load(SeqCst)
    }

    fn pgrestored(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        let folder = self.c.scratch("").display().to_string();
        command
            .args(args)
            .env_clear()
            .env("HOME", &folder)
            .env("BACKUP_BUCKET", format!("file://{folder}"))
            .env("DB_AUTH", "gcp-iam")
            .env("DB_HOST", &self.address)
            .env("DB_USER", USER)
            .env("DB_SSLROOTCERT", self.pki.file("ca.crt"))
            .env("GCE_METADATA_HOST", &self.metadata)
            // Of psql, and for another role.
            .env("PGPASSWORD", "hunter2")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Restores a dump on several connections; while its second statement waits, the token changes.
    async fn restore_through_a_rotation(&self, target: &str) -> Output {
        let log = self.c.scratch(&format!("{target}.log"));
        let dump = self.dump();
        let mut restore = self
            .pgrestored(&["restore", &dump, "--target", target, "--jobs", "4"])
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let waits = format!(
            "SELECT 1 FROM pg_stat_activity WHERE usename = '{USER}' AND state = 'active' AND query LIKE '%go_on%'"
        );
        tokio::select! {
            _ = self.c.until(&waits) => {}
            ended = restore.wait() => {
                panic!("{ended:?}: {}", std::fs::read_to_string(&log).unwrap());
            }
        }
        self.rotate();
        self.c.psql("postgres", "CREATE ROLE go_on");
        let mut out = restore.wait_with_output().await.unwrap();
        self.c.psql("postgres", "DROP ROLE go_on");
        out.stderr = std::fs::read(&log).unwrap();
        out
    }

    /// SQL text whose second statement waits for a role `go_on`, with rows after it.
    fn dump(&self) -> String {
        let text = std::fs::read_to_string(self.c.waiting_dump()).unwrap();
        let more = "CREATE TABLE public.u (a int);\nCOPY public.u (a) FROM stdin;\n1\n2\n\\.\n\nCREATE INDEX i ON public.u (a);\n";
        let (before, after) = text.split_once("END $$;\n").unwrap();
        let path = self.c.scratch("rotated.sql");
        std::fs::write(&path, format!("{before}END $$;\n{more}{after}")).unwrap();
        path.display().to_string()
    }
}

fn text(out: &Output) -> String {
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_connection_logs_in_with_the_token_of_the_moment() {
    let w = Workload::start().await;
    for (target, seconds) in [("revoked", 3600), ("expired", 0)] {
        w.google.seconds.store(seconds, SeqCst);
        w.rotate();
        let before = w.issued();
        let out = w.restore_through_a_rotation(target).await;
        let said = text(&out);
        assert_eq!(out.status.code(), Some(0), "{target}: {said}");
        assert_eq!(w.c.psql(target, "SELECT sum(a) FROM public.u"), "3");
        let issued = w.issued() - before;
        if seconds > 0 {
            // A token that is valid serves every connection, until the server rejects it: then all share the next one.
            assert_eq!(issued, 2, "{target}: {said}");
        } else {
            assert!(issued > 2, "{target}: {issued}");
        }
        assert!(!said.contains(CANARY), "{target}: a token in the log");
    }

    w.google.seconds.store(3600, SeqCst);
    let mut doctor = w.pgrestored(&["doctor", "--output", "json"]);
    let out = doctor.output().await.unwrap();
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    let of = |check: &str| {
        let mut all = found.as_array().unwrap().iter();
        all.find(|d| d["check"] == check).unwrap().clone()
    };
    assert_eq!(of("target login")["health"], "ok", "{found}");
    let server = of("target server")["message"].to_string();
    assert!(server.contains(&format!(", as {USER}")), "{server}");

    // If the newest token is rejected, too, that is the answer.
    w.set_password("another");
    let before = w.issued();
    let mut rollback = w.pgrestored(&["rollback", "revoked"]);
    let out = rollback.output().await.unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(77), "{said}");
    assert_eq!(w.issued() - before, 2, "{said}");
    for part in ["[28P01]", "roles/cloudsql.instanceUser", "DB_USER"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains(CANARY), "{said}");
}

/// Without TLS the token is not sent, although this server would take it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_gets_no_token() {
    let google = Arc::<Google>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let asked = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut client, _) = listener.accept().await.unwrap();
        // SSLRequest, which it declines.
        let mut request = [0; 8];
        client.read_exact(&mut request).await.unwrap();
        client.write_all(b"N").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let metadata = google.start().await;
    let mut rollback = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    rollback.args(["rollback", "app"]).env_clear().envs([
        ("DB_AUTH", "gcp-iam"),
        ("DB_HOST", "127.0.0.1"),
        ("DB_PORT", &port),
        ("DB_USER", USER),
        ("DB_SSLMODE", "require"),
        ("GCE_METADATA_HOST", &metadata),
    ]);
    let out = rollback.output().await.unwrap();
    let said = text(&out);
    assert_eq!(out.status.code(), Some(77), "{said}");
    assert!(said.contains("server does not support TLS"), "{said}");
    assert_eq!(asked.await.unwrap(), b"", "{said}");
}

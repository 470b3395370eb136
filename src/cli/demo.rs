//! `demo`: the whole path on this machine. It starts a throwaway PostgreSQL and the emulator, dumps a
//! realistic database with `pg_dump`, sends a request to a real worker, and compares the results.

use std::path::PathBuf;
use std::time::Duration;

use crate::app::{App, RunningWorker};
use crate::backup::Backup;
use crate::config::{Config, RawConfig};
use crate::emulator::{Emulator, SubscriptionOptions};
use crate::event::{BackupSpec, Message, Mode, RestoreRequest, RestoreResult, Status, Verdict};
use crate::job::OnExisting;
use crate::postgres::{Server, Session};
use crate::queue::{RequestQueue, ResultSink};
use crate::sandbox::{Sandbox, find_bindir};
use crate::worker::Shutdown;

use super::exit::{CommandError, CommandResult, Exit};
use super::output::{count, duration, human_bytes};

const SOURCE: &str = include_str!("demo.sql");
const BUCKET: &str = "demo-backups";
const OBJECT: &str = "company/2026-11-22.dump";
const SOURCE_DB: &str = "company";
const TARGET_DB: &str = "company_restored";
const PATIENCE: Duration = Duration::from_secs(120);

/// Prints each check and collects those that failed.
struct DemoChecks(Vec<&'static str>);

impl DemoChecks {
    fn expect(&mut self, holds: bool, what: &'static str) {
        out!("   {} {what}", if holds { "✓" } else { "✗" });
        if !holds {
            self.0.push(what);
        }
    }
}

pub(super) async fn run(bindirs: Vec<PathBuf>) -> CommandResult {
    let bindir = find_bindir(&bindirs)?;
    out!(
        "1. A throwaway PostgreSQL ({}) and the emulator of Pub/Sub and Cloud Storage",
        bindir.display()
    );
    let postgres = {
        let parent = std::env::temp_dir();
        tokio::task::spawn_blocking(move || Sandbox::start(&bindir, &parent, false, ""))
            .await
            .map_err(|e| CommandError::Other(e.to_string()))??
    };
    let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await?;
    create_topics(&emulator);
    let app = App::new(config(&postgres, &emulator)?)?;
    let server = Server::new(&app.config.db).map_err(crate::error::RestoreError::from)?;

    out!("2. A company's database, dumped by pg_dump -Fc and uploaded");
    let dump = make_backup(&server, &postgres).await?;
    let size = dump.len() as u64;
    emulator.storage.put(BUCKET, OBJECT, dump);
    let backups = app.manager.list_available_backups().await?;
    for Backup {
        name,
        size,
        checksum,
        ..
    } in &backups
    {
        out!(
            "   gs://{BUCKET}/{name}  {}  crc32c {}",
            human_bytes(*size),
            checksum.as_deref().unwrap_or("-")
        );
    }

    out!("3. The bucket notifies a worker of the new object, and the worker verifies it");
    let shutdown = Shutdown::default();
    let worker = app.start_worker(shutdown.clone()).await?;
    let generation = backups
        .first()
        .map(|b| b.generation.clone())
        .unwrap_or_default();
    let proof = publish_and_wait(
        &app,
        &worker,
        "backup-notifications",
        notification(&generation),
    )
    .await?;
    print_proof(&proof);

    out!("4. A restore request is published to projects/demo/topics/restore-requests");
    let message = request().to_message(jiff::Timestamp::now())?;
    out!("   {}", String::from_utf8_lossy(&message.data));
    let result = publish_and_wait(&app, &worker, "restore-requests", message).await?;

    out!("5. The result event");
    let text =
        serde_json::to_string_pretty(&result).map_err(|e| CommandError::Other(e.to_string()))?;
    text.lines().for_each(|l| out!("   {l}"));

    out!("6. Rows per table: source, restored");
    let mut checks = DemoChecks(vec![]);
    let same = result.status == Status::Success && compare(&server).await?;

    out!("7. Metrics (http://{}/metrics)", worker.admin);
    let metrics = app.metrics.exposition();
    for line in metrics.lines().filter(|l| is_shown(l)) {
        out!("   {line}");
    }
    shutdown.soft.cancel();
    worker.ended().await?;

    out!("8. Checks");
    let (_, acked) = emulator.pubsub.delivered(&subscription("restore-requests"));
    checks.expect(
        proof.verdict == Some(Verdict::Verified),
        "the new backup was verified row by row in a sandbox",
    );
    let has_evidence = proof
        .verification
        .as_ref()
        .is_some_and(|v| v.evidence.is_some());
    checks.expect(
        has_evidence,
        "its evidence is stored beside it in the bucket",
    );
    checks.expect(
        result.status == Status::Success,
        "the result event reports success",
    );
    checks.expect(
        same,
        "every table and large object has the same content as in the source",
    );
    checks.expect(
        result.backup.size == Some(size.to_string()),
        "every byte of the object was read and checked",
    );
    checks.expect(
        acked == 1,
        "the request was acknowledged after its result was published",
    );
    checks.expect(
        metrics.contains("restore_success_total 1\n"),
        "restore_success_total counts it",
    );
    checks.expect(
        metrics.contains("restore_in_progress 0\n"),
        "nothing is in progress anymore",
    );
    Ok(if checks.0.is_empty() {
        out!("All checks passed.");
        Exit::Ok
    } else {
        out!("Failed checks: {}", checks.0.join("; "));
        Exit::Failed
    })
}

fn is_shown(line: &str) -> bool {
    let names = [
        "restore_success_total",
        "restore_duration_seconds_sum",
        "restore_size_bytes",
        "restore_in_progress",
    ];
    names.iter().any(|n| line.starts_with(n))
        || line.starts_with("restore_rows_total")
        || line.starts_with("restore_failure_total{failure_reason=\"checksum_mismatch\"}")
}

fn topic(name: &str) -> String {
    format!("projects/demo/topics/{name}")
}

fn subscription(name: &str) -> String {
    format!("projects/demo/subscriptions/{name}")
}

fn create_topics(emulator: &Emulator) {
    for name in [
        "restore-requests",
        "restore-completions",
        "backup-notifications",
    ] {
        emulator.pubsub.create_subscription(
            &topic(name),
            &subscription(name),
            SubscriptionOptions::default(),
        );
    }
}

fn config(postgres: &Sandbox, emulator: &Emulator) -> Result<Config, CommandError> {
    let host = emulator.host();
    let raw = RawConfig::from_flags(&[
        ("backup-bucket", BUCKET),
        ("db-host", postgres.host()),
        ("db-port", "5432"),
        ("db-user", "postgres"),
        ("db-auth", "password"),
        ("db-password", ""),
        ("db-password-file", ""),
        ("db-name", TARGET_DB),
        ("google-cloud-project", "demo"),
        ("restore-request-subscription", "restore-requests"),
        ("backup-notification-subscription", "backup-notifications"),
        ("restore-completion-topic", "restore-completions"),
        ("restore-completion-subscription", "restore-completions"),
        ("pubsub-emulator-host", &host),
        ("storage-emulator-host", &host),
        ("storage-emulator-grpc-host", &host),
        ("admin-addr", "127.0.0.1:0"),
    ])
    .map_err(CommandError::Other)?;
    Ok(Config::new(&raw)?)
}

async fn connect(server: &Server, database: &str) -> Result<Session, CommandError> {
    Ok(server
        .connect(database, "demo")
        .await
        .map_err(crate::error::RestoreError::from)?)
}

async fn make_backup(server: &Server, postgres: &Sandbox) -> Result<Vec<u8>, CommandError> {
    let db = |e: crate::error::DatabaseError| CommandError::Restore(e.into());
    let admin = connect(server, "postgres").await?;
    admin
        .run(&format!("CREATE DATABASE {SOURCE_DB}"))
        .await
        .map_err(db)?;
    let session = connect(server, SOURCE_DB).await?;
    session.run("SET search_path = public").await.map_err(db)?;
    session.run(SOURCE).await.map_err(db)?;
    let mut pg_dump = postgres.command("pg_dump");
    pg_dump.args(["--format=custom", SOURCE_DB]);
    let output = tokio::process::Command::from(pg_dump).output().await?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(CommandError::Other(format!(
            "pg_dump: {}",
            String::from_utf8_lossy(&output.stderr)
        )))
    }
}

/// A notification as Cloud Storage sends it.
fn notification(generation: &str) -> Message {
    let attributes = [
        (
            "notificationConfig",
            format!("projects/_/buckets/{BUCKET}/notificationConfigs/1"),
        ),
        ("eventType", "OBJECT_FINALIZE".to_owned()),
        ("payloadFormat", "NONE".to_owned()),
        ("bucketId", BUCKET.to_owned()),
        ("objectId", OBJECT.to_owned()),
        ("objectGeneration", generation.to_owned()),
    ];
    Message {
        data: vec![],
        attributes: attributes
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
    }
}

fn print_proof(r: &RestoreResult) {
    let verdict = r.verdict.map_or("none", Verdict::as_str);
    out!(
        "   {verdict} in {}: {}, {}",
        duration(r.duration_seconds),
        count(r.tables, "table"),
        count(r.rows, "row")
    );
    if let Some(e) = &r.error {
        out!("   because: {}", e.message);
    }
    let Some(v) = &r.verification else { return };
    if let Some(i) = &v.isolation {
        out!("   sandbox: {}", i.summary());
    }
    v.findings
        .iter()
        .for_each(|c| out!("   {}: {}", c.title(), c.message));
    out!("   evidence: {}", v.evidence.as_deref().unwrap_or("-"));
}

fn request() -> RestoreRequest {
    RestoreRequest {
        request_id: "demo-1".into(),
        backup: BackupSpec {
            name: Some("latest".into()),
            ..BackupSpec::default()
        },
        target_db: Some(TARGET_DB.into()),
        on_existing: OnExisting::Fail,
        mode: Mode::Restore,
        depth: None,
        jobs: None,
        deadline: None,
        labels: [("ticket".to_owned(), "OPS-1".to_owned())].into(),
        select: Default::default(),
        in_place: None,
        on_error: None,
        finish: vec![],
        finish_checks: None,
    }
}

async fn publish_and_wait(
    app: &App,
    worker: &RunningWorker,
    topic: &str,
    message: Message,
) -> Result<RestoreResult, CommandError> {
    let pubsub = app.pubsub()?;
    pubsub.topic(topic).await?.publish(message).await?;
    let mut results = pubsub.subscribe("restore-completions").await?;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let deadline = tokio::time::sleep(PATIENCE);
    tokio::pin!(deadline);
    let delivery = loop {
        tokio::select! {
            delivery = results.next() => break delivery?,
            _ = tick.tick() => show_progress(worker),
            () = &mut deadline => {
                let limit = PATIENCE.as_secs();
                return Err(CommandError::Other(format!("no result within {limit} s")));
            }
        }
    };
    let result =
        serde_json::from_slice(&delivery.data).map_err(|e| CommandError::Other(e.to_string()))?;
    delivery.lease.ack().await?;
    results.close().await;
    results.flush().await;
    Ok(result)
}

fn show_progress(worker: &RunningWorker) {
    for job in worker.state.status().running {
        let p = job.progress;
        out!(
            "   {:<8} {:>10} of {} read, {:>7} rows, tables {}/{}, indexes and keys {}/{}",
            p.stage,
            human_bytes(p.object_bytes),
            human_bytes(p.object_size),
            p.rows,
            p.tables_done,
            p.tables,
            p.tasks_done,
            p.tasks
        );
    }
}

/// Name, row count and order-independent content digest of every table, and of all large objects.
async fn contents(
    server: &Server,
    database: &str,
) -> Result<Vec<(String, i64, String)>, CommandError> {
    let session = connect(server, database).await?;
    let query = |e| CommandError::Restore(crate::postgres::map_pg_error(&e, "comparing").into());
    let tables = session
        .client()
        .query(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
            &[],
        )
        .await
        .map_err(query)?;
    let mut found = Vec::new();
    for table in tables.iter().map(|r| r.get::<_, String>(0)) {
        let sql = format!(
            "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {table} t"
        );
        let row = session.client().query_one(&sql, &[]).await.map_err(query)?;
        found.push((table, row.get(0), row.get(1)));
    }
    let objects = "SELECT count(*), coalesce(sum(hashtextextended(encode(lo_get(oid), 'hex'), 0)), 0)::text \
                   FROM pg_largeobject_metadata";
    let row = session
        .client()
        .query_one(objects, &[])
        .await
        .map_err(query)?;
    found.push(("large objects".into(), row.get(0), row.get(1)));
    Ok(found)
}

async fn compare(server: &Server) -> Result<bool, CommandError> {
    let (source, restored) = (
        contents(server, SOURCE_DB).await?,
        contents(server, TARGET_DB).await?,
    );
    for (table, rows, digest) in &source {
        let other = restored.iter().find(|(t, _, _)| t == table);
        let same = other.is_some_and(|(_, r, d)| r == rows && d == digest);
        let there = other.map_or("-".into(), |(_, r, _)| r.to_string());
        out!(
            "   {:<28} {rows:>8} {there:>8}  {}",
            table,
            if same { "✓" } else { "✗" }
        );
    }
    Ok(!source.is_empty() && source == restored)
}

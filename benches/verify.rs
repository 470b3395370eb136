//! `make bench`, second part: the cost of a proof. Compares full depth with the restore that it includes, on servers
//! with the same settings, with the same object over loopback HTTP, interleaved. Also measures the time to start a
//! sandbox, up to the first query.
//!
//! `BENCH_SCALE` (1: about 1 GB of table data), `BENCH_PAIRS` (5). Results: `target/bench/verify.json`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use pgrestored::sandbox::Sandbox;
use shared::{MB, OURS, Stand, fresh, keep, make_dump, median, serve, watch};

mod shared;

/// How many sandbox starts are measured.
const STARTS: usize = 15;

#[derive(Debug, serde::Serialize)]
struct VerifyRow {
    dataset: &'static str,
    object_bytes: u64,
    table_bytes: u64,
    /// As `pgrestored restore` does it, including ANALYZE.
    restore_seconds: Vec<f64>,
    restore_without_analyze_seconds: Vec<f64>,
    /// Including start and stop of the sandbox.
    proof_restore_seconds: Vec<f64>,
    proof_data_seconds: Vec<f64>,
    /// Median of (data / restore) over the pairs, minus 1.
    cost_of_data: f64,
    cost_of_data_without_analyze: f64,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let (bindir, scratch, scale, pairs) = (&stand.bindir, &stand.scratch, stand.scale, stand.pairs);
    let jobs = stand.cores;
    println!(
        "machine: {jobs} cores; PostgreSQL of {}; {pairs} rounds",
        bindir.display()
    );
    let starts = starts(bindir, scratch);
    let rows = |n: f64| (n * scale).max(1000.0) as u64;
    let datasets = [
        ("events", include_str!("events.sql"), rows(3_300_000.0)),
        ("mixed", include_str!("mixed.sql"), rows(260_000.0)),
    ];
    let table: Vec<VerifyRow> = datasets
        .into_iter()
        .map(|(name, sql, rows)| {
            let dump = make_dump(bindir, scratch, name, sql, rows);
            compare(bindir, scratch, name, &dump, pairs, jobs)
        })
        .collect();
    print(&table);
    println!(
        "\nsandbox, from its template to the first query: median {:.0} ms of {STARTS} ({:.0} to {:.0})",
        median(starts.clone()),
        min(&starts),
        max(&starts)
    );
    let json = serde_json::json!({ "cores": jobs, "rounds": pairs, "rows": table, "sandbox_start_ms": starts });
    keep("verify.json", &format!("{json:#}\n"));
}

fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Milliseconds until a sandbox answers `SELECT 1`, with an existing template.
fn starts(bindir: &Path, scratch: &Path) -> Vec<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("failed to start a runtime");
    drop(Sandbox::isolated(bindir, scratch, &[]).expect("the template"));
    let start = || {
        let begun = Instant::now();
        let sandbox = Sandbox::isolated(bindir, scratch, &[]).expect("a sandbox");
        assert!(
            sandbox.isolation().why_not.is_none(),
            "{:?}",
            sandbox.isolation()
        );
        runtime.block_on(async {
            let config = format!("host={} user=postgres dbname=postgres", sandbox.host());
            let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
                .await
                .expect("a connection");
            let driver = tokio::spawn(connection);
            client.query_one("SELECT 1", &[]).await.expect("an answer");
            driver.abort();
        });
        begun.elapsed().as_secs_f64() * 1000.0
    };
    (0..STARTS).map(|_| start()).collect()
}

fn ours(host: &str, more: &[&str]) -> f64 {
    let mut command = Command::new(OURS);
    command.args(more).args([
        "--output",
        "json",
        "--backup-bucket",
        "bench",
        "--storage-emulator-host",
        host,
    ]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    watch(command.spawn().expect("pgrestored"));
    begun.elapsed().as_secs_f64()
}

fn compare(
    bindir: &Path,
    scratch: &Path,
    name: &'static str,
    dump: &Path,
    rounds: usize,
    jobs: usize,
) -> VerifyRow {
    let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
    // The same settings as a sandbox.
    let server = Sandbox::start(
        bindir,
        &std::env::temp_dir(),
        false,
        "-c autovacuum=off -c jit=off",
    )
    .expect("failed to start the target cluster");
    let served = serve(scratch, 0);
    let jobs = jobs.to_string();
    let restore = |analyze: bool| {
        fresh(&server);
        let mut args = vec![
            "restore",
            object,
            "--target",
            "restored",
            "--jobs",
            &jobs,
            "--db-host",
            server.host(),
        ];
        if !analyze {
            args.push("--no-analyze");
        }
        ours(&served.host, &args)
    };
    let verify = |depth: &str| {
        ours(
            &served.host,
            &[
                "verify",
                object,
                "--depth",
                depth,
                "--jobs",
                &jobs,
                "--evidence-location",
                "none",
            ],
        )
    };
    let (mut plain, mut bare, mut shallow, mut full) = (vec![], vec![], vec![], vec![]);
    for i in 0..rounds {
        // Alternate which one goes first.
        if i % 2 == 0 {
            plain.push(restore(true));
            bare.push(restore(false));
            shallow.push(verify("restore"));
            full.push(verify("data"));
        } else {
            full.push(verify("data"));
            shallow.push(verify("restore"));
            bare.push(restore(false));
            plain.push(restore(true));
        }
        println!(
            "{name}, round {}: restore {:.2} s, without ANALYZE {:.2} s, proof to depth restore {:.2} s, data {:.2} s",
            i + 1,
            plain[i],
            bare[i],
            shallow[i],
            full[i]
        );
    }
    let size = "SELECT sum(pg_table_size(oid)) FROM pg_class WHERE relkind = 'r' AND oid >= 16384";
    let psql = ["-X", "-A", "-t", "-d", "restored", "-c", size];
    let table_bytes = server
        .run(server.command("psql").args(psql))
        .expect("the size");
    let cost = |base: &[f64]| median(full.iter().zip(base).map(|(f, b)| f / b - 1.0).collect());
    VerifyRow {
        dataset: name,
        object_bytes: std::fs::metadata(dump).expect("the dump").len(),
        table_bytes: String::from_utf8_lossy(&table_bytes)
            .trim()
            .parse()
            .unwrap_or(0),
        cost_of_data: cost(&plain),
        cost_of_data_without_analyze: cost(&bare),
        restore_seconds: plain,
        restore_without_analyze_seconds: bare,
        proof_restore_seconds: shallow,
        proof_data_seconds: full,
    }
}

fn print(rows: &[VerifyRow]) {
    println!(
        "\n| dataset | object MB | tables MB | restore s | without ANALYZE s | proof, depth restore s | depth data s | cost of data | without ANALYZE |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for r in rows {
        println!(
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {:+.0} % | {:+.0} % |",
            r.dataset,
            r.object_bytes as f64 / MB,
            r.table_bytes as f64 / MB,
            median(r.restore_seconds.clone()),
            median(r.restore_without_analyze_seconds.clone()),
            median(r.proof_restore_seconds.clone()),
            median(r.proof_data_seconds.clone()),
            r.cost_of_data * 100.0,
            r.cost_of_data_without_analyze * 100.0,
        );
    }
}

//! `make bench`: what it costs to keep the work of a restore for its next attempt, and what that saves. Compares restores that
//! record their work from the first transaction with those that never do, interleaved on one server; and the attempt after a kill
//! at 90 % with a restore from the start.
//!
//! `BENCH_SCALE` (1), `BENCH_PAIRS` (5), `BENCH_DATASETS` (mixed, events, pgbench, many, objects). Results:
//! `target/bench/resume.json`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::process::{Command, Stdio};
use std::time::Duration;

use pgrestored::sandbox::Sandbox;
use shared::datasets::ALL;
use shared::{OURS, Stand, env_or, fresh, keep, median, query, restore_ours, serve};

mod shared;

const DATASETS: &str = "mixed,events,pgbench,many,objects";
const NEVER: [&str; 2] = ["--restore-resume", "never"];
/// Begins with the first transaction.
const RECORDED: [&str; 3] = ["--keep-progress", "--restore-resume-from", "0s"];
/// Begins once the restore has loaded for some time.
const BY_DEFAULT: [&str; 1] = ["--keep-progress"];
const CONTINUED: [&str; 3] = ["--resume", "--restore-resume-from", "0s"];
/// When a restore is killed, as a share of its time.
const KILLED_AT: f64 = 0.9;

#[derive(Debug, serde::Serialize)]
struct Row {
    dataset: &'static str,
    never_seconds: Vec<f64>,
    recorded_seconds: Vec<f64>,
    default_seconds: Vec<f64>,
    /// Medians over the rounds of (recorded / never), minus 1; the same of CPU seconds of both sides.
    cost: f64,
    cost_of_cpu: f64,
    cost_by_default: f64,
    /// Of the attempt after a kill at 90 %.
    continued_seconds: Vec<f64>,
    /// Median of (continued / never).
    continued_share: f64,
    /// What it says that it did not load again.
    resumed: Vec<serde_json::Value>,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let (bindir, scratch, scale, pairs) = (&stand.bindir, &stand.scratch, stand.scale, stand.pairs);
    let options = "-c max_locks_per_transaction=1024";
    let server = Sandbox::start(bindir, &std::env::temp_dir(), true, options)
        .expect("failed to start the target cluster");
    let wanted = env_or("BENCH_DATASETS", DATASETS);
    let mut table = Vec::new();
    for dataset in ALL
        .iter()
        .filter(|d| wanted.split(',').any(|w| w == d.name))
    {
        let dump = dataset.dump(bindir, scratch, scale);
        let served = serve(scratch, 0);
        let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
        let row = compare(&server, &served.host, (dataset.name, object), pairs);
        println!(
            "{}: recorded {:+.1} % ({:+.1} % of CPU), by default {:+.1} %; after a kill at 90 %: {:.0} % of a restore",
            row.dataset,
            row.cost * 100.0,
            row.cost_of_cpu * 100.0,
            row.cost_by_default * 100.0,
            row.continued_share * 100.0
        );
        table.push(row);
    }
    let json = serde_json::json!({ "scale": scale, "rounds": pairs, "rows": table });
    keep("resume.json", &format!("{json:#}\n"));
}

fn compare(
    server: &Sandbox,
    host: &str,
    (dataset, object): (&'static str, &str),
    pairs: usize,
) -> Row {
    let ways: [&[&str]; 3] = [&NEVER, &RECORDED, &BY_DEFAULT];
    let (mut seconds, mut cpu) = ([(); 3].map(|()| vec![]), [(); 3].map(|()| vec![]));
    let (mut continued_seconds, mut resumed) = (vec![], vec![]);
    for round in 0..pairs {
        // The ways take turns in going first.
        for i in 0..ways.len() {
            let way = (round + i) % ways.len();
            fresh(server);
            let measured = restore_ours(server, host, object, ways[way]).measured;
            seconds[way].push(measured.seconds);
            cpu[way].push(measured.client_cpu + measured.server_cpu);
        }
        fresh(server);
        kill(server, host, object, KILLED_AT * median(seconds[1].clone()));
        let continued = restore_ours(server, host, object, &CONTINUED);
        continued_seconds.push(continued.measured.seconds);
        resumed.push(continued.result["resumed_from"].clone());
    }
    let [never_seconds, recorded_seconds, default_seconds] = seconds;
    let ratio = |of: &[f64], to: &[f64]| median(of.iter().zip(to).map(|(a, b)| a / b).collect());
    Row {
        dataset,
        cost: ratio(&recorded_seconds, &never_seconds) - 1.0,
        cost_of_cpu: ratio(&cpu[1], &cpu[0]) - 1.0,
        cost_by_default: ratio(&default_seconds, &never_seconds) - 1.0,
        continued_share: ratio(&continued_seconds, &never_seconds),
        never_seconds,
        recorded_seconds,
        default_seconds,
        continued_seconds,
        resumed,
    }
}

/// A restore that is killed after this time, or a little earlier if it was done by then.
fn kill(server: &Sandbox, host: &str, object: &str, seconds: f64) {
    let mut after = seconds;
    loop {
        let mut command = Command::new(OURS);
        command
            .args(["restore", object, "--target", "restored", "--no-analyze"])
            .args(["--backup-bucket", "bench", "--storage-emulator-host", host])
            .args(["--db-host", server.host()])
            .args(RECORDED)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("pgrestored");
        std::thread::sleep(Duration::from_secs_f64(after));
        let is_running = child.try_wait().expect("its state").is_none();
        let _ = child.kill();
        child.wait().expect("its end");
        if is_running {
            break;
        }
        after *= 0.95;
        fresh(server);
    }
    // The server takes a moment to notice that the sessions of a killed process are gone.
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgrestored %'";
    while query(server, "postgres", ours) != "0" {
        std::thread::sleep(Duration::from_millis(20));
    }
}

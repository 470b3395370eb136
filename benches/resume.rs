//! `make bench`: what it costs to keep the work of a restore for its next attempt, and what that saves. Compares restores that
//! record their work with those that never do, interleaved on one server; and the attempt after a kill at 90 % with a restore
//! from the start.
//!
//! `BENCH_SCALE` (1), `BENCH_PAIRS` (5), `BENCH_DATASETS` (mixed, events, pgbench, many, objects), `BENCH_WAYS` (recorded: from
//! the first transaction; default: in memory for a minute; midway: in memory for `BENCH_FROM` (300ms), and then in the database;
//! kill: the attempt after a kill). Results: `target/bench/resume.json`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::process::{Command, Stdio};
use std::time::Duration;

use pgrestored::sandbox::Sandbox;
use shared::datasets::ALL;
use shared::servers::Postgres;
use shared::{OURS, Stand, env_or, fresh, keep, median, query, restore_ours, serve};

mod shared;

const DATASETS: &str = "mixed,events,pgbench,many,objects";
const WAYS: &str = "recorded,default,midway,kill";
const NEVER: [&str; 2] = ["--restore-resume", "never"];
/// Begins with the first transaction.
const RECORDED: [&str; 3] = ["--keep-progress", "--restore-resume-from", "0s"];
/// Begins once the restore has loaded for some time.
const BY_DEFAULT: [&str; 1] = ["--keep-progress"];
const CONTINUED: [&str; 3] = ["--resume", "--restore-resume-from", "0s"];
const KILL: &str = "kill";
/// When a restore is killed, as a share of its time.
const KILLED_AT: f64 = 0.9;

#[derive(Debug, serde::Serialize)]
struct ResumeRow {
    dataset: &'static str,
    never_seconds: Vec<f64>,
    ways: Vec<Cost>,
    /// Of the attempt after a kill at 90 %.
    continued_seconds: Vec<f64>,
    /// Median of (continued / never).
    continued_share: Option<f64>,
    /// What it says that it did not load again.
    resumed: Vec<serde_json::Value>,
}

/// What one way of recording costs.
#[derive(Debug, serde::Serialize)]
struct Cost {
    way: &'static str,
    seconds: Vec<f64>,
    /// Medians over the rounds of (this way / never), minus 1; the same of CPU seconds of both sides, and of the client.
    cost: f64,
    cost_of_cpu: f64,
    cost_of_client_cpu: f64,
}

/// The measurements of one way.
#[derive(Default)]
struct Times {
    seconds: Vec<f64>,
    cpu: Vec<f64>,
    client_cpu: Vec<f64>,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let (bindir, scratch, scale, pairs) = (&stand.bindir, &stand.scratch, stand.scale, stand.pairs);
    let server = Postgres::of(bindir).target(true, "");
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
        for way in &row.ways {
            println!(
                "{}: {} {:+.1} % ({:+.1} % of CPU, {:+.1} % of the client's)",
                row.dataset,
                way.way,
                way.cost * 100.0,
                way.cost_of_cpu * 100.0,
                way.cost_of_client_cpu * 100.0
            );
        }
        if let Some(share) = row.continued_share {
            println!(
                "{}: after a kill at 90 %: {:.0} % of a restore",
                row.dataset,
                share * 100.0
            );
        }
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
) -> ResumeRow {
    let (wanted, from) = (env_or("BENCH_WAYS", WAYS), env_or("BENCH_FROM", "300ms"));
    let is_wanted = |way: &str| wanted.split(',').any(|w| w == way);
    let midway = ["--keep-progress", "--restore-resume-from", from.as_str()];
    let all: [(&'static str, &[&str]); 4] = [
        ("never", &NEVER),
        ("recorded", &RECORDED),
        ("default", &BY_DEFAULT),
        ("midway", &midway),
    ];
    let is_measured = |way: &&(&'static str, &[&str])| way.0 == "never" || is_wanted(way.0);
    let ways: Vec<_> = all.iter().filter(is_measured).collect();
    let mut times: Vec<Times> = ways.iter().map(|_| Times::default()).collect();
    let (mut continued_seconds, mut resumed) = (vec![], vec![]);
    for round in 0..pairs {
        // The ways take turns in going first.
        for i in 0..ways.len() {
            let way = (round + i) % ways.len();
            fresh(server);
            let measured = restore_ours(server, host, object, ways[way].1).measured;
            times[way].seconds.push(measured.seconds);
            let cpu = measured.client_cpu + measured.server_cpu;
            times[way].cpu.push(cpu);
            times[way].client_cpu.push(measured.client_cpu);
        }
        if is_wanted(KILL) {
            fresh(server);
            let after = KILLED_AT * median(times[0].seconds.clone());
            kill(server, host, object, after);
            let continued = restore_ours(server, host, object, &CONTINUED);
            continued_seconds.push(continued.measured.seconds);
            resumed.push(continued.result["resumed_from"].clone());
        }
    }
    let ratio = |of: &[f64], to: &[f64]| median(of.iter().zip(to).map(|(a, b)| a / b).collect());
    let never = times.remove(0);
    let cost = |(way, of): (&&(&'static str, &[&str]), Times)| Cost {
        way: way.0,
        cost: ratio(&of.seconds, &never.seconds) - 1.0,
        cost_of_cpu: ratio(&of.cpu, &never.cpu) - 1.0,
        cost_of_client_cpu: ratio(&of.client_cpu, &never.client_cpu) - 1.0,
        seconds: of.seconds,
    };
    let has_continued = !continued_seconds.is_empty();
    ResumeRow {
        dataset,
        ways: ways[1..].iter().zip(times).map(cost).collect(),
        continued_share: has_continued.then(|| ratio(&continued_seconds, &never.seconds)),
        never_seconds: never.seconds,
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

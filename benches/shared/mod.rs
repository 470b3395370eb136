//! Shared by the benchmarks: datasets as dumps, the emulator that serves them, measured processes.
#![allow(dead_code, reason = "each bench uses its own part")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pgrestored::sandbox::Sandbox;

pub const OURS: &str = env!("CARGO_BIN_EXE_pgrestored");
pub const MB: f64 = 1e6;

pub mod baseline;
pub mod datasets;
pub mod model;
pub mod sections;
pub mod servers;
pub mod shapes;

/// The cost of one restore.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub struct MeasuredCost {
    pub seconds: f64,
    /// CPU seconds of all processes of the restoring side.
    pub client_cpu: f64,
    /// CPU seconds of all processes of the server.
    pub server_cpu: f64,
    pub peak_memory_bytes: u64,
    pub peak_disk_bytes: u64,
}

/// Measures the cost of `work` on `server`. `work` returns the peak memory and the bytes written to disk.
pub fn measure(server: &Sandbox, work: impl FnOnce() -> (u64, u64)) -> MeasuredCost {
    let postmaster = postmaster(server);
    let (client, served) = (
        cpu_of_children(std::process::id()),
        cpu_of_children(postmaster),
    );
    let started = std::time::Instant::now();
    let (peak_memory_bytes, peak_disk_bytes) = work();
    let seconds = started.elapsed().as_secs_f64();
    let client_cpu = cpu_of_children(std::process::id()) - client;
    // The CPU time of backends is counted once they have ended.
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    while backends(server) > 0 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let server_cpu = cpu_of_children(postmaster) - served;
    MeasuredCost {
        seconds,
        client_cpu,
        server_cpu,
        peak_memory_bytes,
        peak_disk_bytes,
    }
}

fn postmaster(server: &Sandbox) -> u32 {
    query(
        server,
        "postgres",
        "SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)",
    )
    .parse()
    .expect("a pid")
}

fn backends(server: &Sandbox) -> u32 {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    query(server, "postgres", others).parse().expect("a number")
}

pub fn query(server: &Sandbox, database: &str, sql: &str) -> String {
    let out = server.run(
        server
            .command("psql")
            .args(["-X", "-A", "-t", "-d", database, "-c", sql]),
    );
    String::from_utf8_lossy(&out.expect("an answer"))
        .trim()
        .to_owned()
}

/// CPU seconds of the children of `pid`, ended and running.
fn cpu_of_children(pid: u32) -> f64 {
    let ticks = |pid: u32, fields: [usize; 2]| -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let all: Vec<&str> = rest.split_whitespace().collect();
        fields
            .iter()
            .filter_map(|f| all.get(*f)?.parse::<u64>().ok())
            .sum()
    };
    // Fields 14 to 17 of `/proc/PID/stat`, see `proc(5)`: own CPU time, and that of reaped children.
    let ended = ticks(pid, [13, 14]);
    let running: u64 = if pid == std::process::id() {
        // Except backends that serve the benchmark itself.
        0
    } else {
        family(pid)
            .iter()
            .filter(|p| **p != pid)
            .map(|p| ticks(*p, [11, 12]))
            .sum()
    };
    (ended + running) as f64 / 100.0
}

/// The setup of a benchmark. Its folder is removed when it is dropped.
pub struct Stand {
    pub bindir: PathBuf,
    pub scratch: PathBuf,
    pub cores: usize,
    pub scale: f64,
    pub pairs: usize,
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

impl Stand {
    /// `None` under `cargo test --benches`, where nothing is measured.
    pub fn new() -> Option<Self> {
        if std::env::args().any(|a| a == "--test") {
            return None;
        }
        let bindir =
            pgrestored::sandbox::find_bindir(&[]).expect("a PostgreSQL server: make setup");
        servers::warn_of_memory();
        let scratch = std::env::temp_dir().join(format!("pgrestored-bench-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).expect("failed to create the folder for the dumps");
        open_to_all(&scratch);
        Some(Stand {
            bindir,
            scratch,
            cores: std::thread::available_parallelism().map_or(2, usize::from),
            scale: env_or("BENCH_SCALE", "1")
                .parse()
                .expect("BENCH_SCALE is a number"),
            pairs: env_or("BENCH_PAIRS", "5")
                .parse()
                .expect("BENCH_PAIRS is a number"),
        })
    }
}

/// A restore by pgrestored: its cost, and the result that it printed.
pub struct Ours {
    pub measured: MeasuredCost,
    pub result: serde_json::Value,
}

/// Stages that neither load data nor build indexes, but make a restore safe.
const SAFETY: [&str; 3] = ["prepare", "check", "swap"];

impl Ours {
    /// The share of staging, checks and swap.
    pub fn safety(&self) -> f64 {
        let stages = self.result["stages"].as_object().expect("stages");
        let safety: f64 = SAFETY.iter().filter_map(|s| stages.get(*s)?.as_f64()).sum();
        safety
            / stages
                .values()
                .filter_map(serde_json::Value::as_f64)
                .sum::<f64>()
    }
}

/// Restores `object` from the emulator at `host` into the database `restored`, which must not exist.
pub fn restore_ours(server: &Sandbox, host: &str, object: &str, more: &[&str]) -> Ours {
    let mut command = Command::new(OURS);
    command
        .args([
            "restore",
            object,
            "--target",
            "restored",
            "--output",
            "json",
            "--backup-bucket",
            "bench",
        ])
        // `pg_restore` does not run ANALYZE either.
        .args([
            "--no-analyze",
            "--db-host",
            server.host(),
            "--storage-emulator-host",
            host,
        ])
        .args(more);
    restoring(server, command)
}

/// Runs a command of ours that restores, and prints its result as JSON.
pub fn restoring(server: &Sandbox, mut command: Command) -> Ours {
    let mut printed = None;
    let measured = measure(server, || {
        command.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().expect("pgrestored");
        let stdout = child.stdout.take().expect("stdout");
        printed = Some(std::thread::spawn(move || {
            std::io::read_to_string(stdout).expect("the result")
        }));
        watch(child)
    });
    let result = printed.expect("a run").join().expect("the result");
    Ours {
        measured,
        result: serde_json::from_str(&result).expect("JSON"),
    }
}

const RESULTS: &str = "target/bench";

/// Writes a result to `target/bench`.
pub fn keep(name: &str, text: &str) {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join(RESULTS);
    std::fs::create_dir_all(&out).expect("target/bench");
    std::fs::write(out.join(name), text).expect("results");
}

/// The result of an earlier run.
pub fn kept(name: &str) -> Option<serde_json::Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(RESULTS)
        .join(name);
    Some(serde_json::from_slice(&std::fs::read(file).ok()?).expect("JSON that a bench wrote"))
}

const MARKS: [&str; 2] = [
    "<!-- figures of make bench -->\n",
    "<!-- end of figures -->\n",
];

/// Writes the figures between a page's marks, unless the scale is below 1.
pub fn renew(page: &str, scale: f64, figures: &str) {
    if scale < 1.0 {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&page).expect("the page");
    let [begin, end] = MARKS.map(|m| text.find(m).expect("the page's marks"));
    let text = format!(
        "{}{}\n{}",
        &text[..begin + MARKS[0].len()],
        figures.trim_end(),
        &text[end..]
    );
    std::fs::write(page, text).expect("the page");
}

/// The machine and the server, so that results of others are not taken for its own.
pub fn machine(bindir: &Path, cores: usize) -> String {
    let version = Command::new(bindir.join("postgres"))
        .arg("--version")
        .output()
        .expect("a version");
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or(": unknown");
    format!(
        "{} cores ({}); {}",
        cores,
        cpu.trim_start_matches([' ', '\t', ':']),
        String::from_utf8_lossy(&version.stdout).trim()
    )
}

pub fn env_or(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Which of these names the variable selects, separated by commas; all of them if it is not set.
///
/// # Panics
/// It has another name: nothing would be measured, and nobody would notice.
pub fn selected<'a>(variable: &str, names: &[&'a str]) -> Vec<&'a str> {
    let wanted = env_or(variable, "");
    let wanted: Vec<&str> = wanted.split(',').filter(|w| !w.is_empty()).collect();
    let unknown = wanted.iter().find(|w| !names.contains(w));
    assert!(
        unknown.is_none(),
        "{variable}: {unknown:?} is none of {names:?}"
    );
    let is_wanted = |name: &&&str| wanted.is_empty() || wanted.contains(name);
    names.iter().filter(is_wanted).copied().collect()
}

pub fn open_to_all(folder: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder, mode).expect("permissions");
}

pub fn make_dump(bindir: &Path, scratch: &Path, name: &str, sql: &str, rows: u64) -> PathBuf {
    let dump = scratch.join(format!("{name}.dump"));
    datasets::make_dump(bindir, scratch, sql, rows, datasets::Form::Custom, &dump);
    dump
}

/// The emulator as a separate process that serves the dumps at a limited rate.
pub struct Served {
    child: Child,
    pub host: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn serve(scratch: &Path, rate_mb_s: u64) -> Served {
    serve_limited(scratch, rate_mb_s, 0)
}

/// The same, with a limit for each stream, as a bucket has; both in MB/s, 0 for none.
pub fn serve_limited(scratch: &Path, rate_mb_s: u64, stream_rate_mb_s: u64) -> Served {
    use std::io::BufRead;
    let mut child = Command::new(OURS)
        .args([
            "emulator",
            "--listen",
            "127.0.0.1:0",
            "--emulated-bucket",
            "bench",
            "--rate",
            &(rate_mb_s * 1_000_000).to_string(),
            "--stream-rate",
            &(stream_rate_mb_s * 1_000_000).to_string(),
        ])
        .arg("--folder")
        .arg(scratch)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the emulator");
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("stdout"))
        .read_line(&mut line)
        .expect("its address");
    let host = line
        .split("STORAGE_EMULATOR_HOST=")
        .nth(1)
        .and_then(|r| r.split(' ').next())
        .expect("its address")
        .to_owned();
    Served { child, host }
}

pub fn fresh(server: &Sandbox) {
    server
        .run(server.command("psql").args([
            "-X",
            "-q",
            "-c",
            "DROP DATABASE IF EXISTS restored WITH (FORCE)",
            "-c",
            "CHECKPOINT",
        ]))
        .expect("a fresh state");
}

/// Waits for a process; returns the peak memory of it and its children, and the bytes that they wrote to files.
pub fn watch(mut child: Child) -> (u64, u64) {
    let (peak, written, done) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let sampler = {
        let (root, peak, written, done) = (child.id(), peak.clone(), written.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let family = family(root);
                peak.fetch_max(
                    family.iter().map(|p| status_kib(*p, "VmRSS:") * 1024).sum(),
                    Ordering::Relaxed,
                );
                written.fetch_max(
                    family.iter().map(|p| bytes_written(*p)).sum(),
                    Ordering::Relaxed,
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let status = child.wait().expect("the restore");
    done.store(true, Ordering::Relaxed);
    sampler.join().expect("the sampler");
    assert!(status.success(), "the restore failed: {status}");
    (
        peak.load(Ordering::Relaxed),
        written.load(Ordering::Relaxed),
    )
}

pub fn family(root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    let children =
        std::fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
        found.extend(family(child));
    }
    found
}

pub fn status_kib(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Bytes written to a disk or its cache, without sockets and pipes.
pub fn bytes_written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines()
        .find_map(|l| l.strip_prefix("write_bytes: ")?.parse().ok())
        .unwrap_or(0)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

//! What the benches share: datasets as dumps, the stand-in that serves them, processes that are watched.
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

/// What one restore took.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Measured {
    pub seconds: f64,
    pub peak_memory_bytes: u64,
    pub peak_disk_bytes: u64,
}

pub fn env_or(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

pub fn open_to_all(folder: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder, mode).expect("permissions");
}

pub fn make_dump(bindir: &Path, scratch: &Path, name: &str, sql: &str, rows: u64) -> PathBuf {
    let source = Sandbox::start(bindir, &std::env::temp_dir(), false, "").expect("a source cluster");
    let (script, dump) = (scratch.join(format!("{name}.sql")), scratch.join(format!("{name}.dump")));
    std::fs::write(&script, sql).expect("the script");
    source
        .run(
            source
                .command("psql")
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v"])
                .arg(format!("rows={rows}"))
                .arg("-o/dev/null")
                .arg("-f")
                .arg(&script),
        )
        .expect("the dataset");
    source.run(source.command("pg_dump").args(["-Fc", "-f"]).arg(&dump)).expect("the dump");
    dump
}

/// The emulator as a process of its own, serving the dumps at a rate.
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
        ])
        .arg("--folder")
        .arg(scratch)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the emulator");
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("its address");
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

/// Waits for a process; the peak of its and its children's memory, and the bytes that it wrote to files.
pub fn watch(mut child: Child) -> (u64, u64) {
    let (peak, written, done) =
        (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sampler = {
        let (root, peak, written, done) = (child.id(), peak.clone(), written.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let family = family(root);
                peak.fetch_max(
                    family.iter().map(|p| status_kib(*p, "VmRSS:") * 1024).sum(),
                    Ordering::Relaxed,
                );
                written.fetch_max(family.iter().map(|p| bytes_written(*p)).sum(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let status = child.wait().expect("the restore");
    done.store(true, Ordering::Relaxed);
    sampler.join().expect("the sampler");
    assert!(status.success(), "the restore failed: {status}");
    (peak.load(Ordering::Relaxed), written.load(Ordering::Relaxed))
}

pub fn family(root: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([root]);
    let children = std::fs::read_to_string(format!("/proc/{root}/task/{root}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|c| c.parse().ok()) {
        found.extend(family(child));
    }
    found
}

pub fn status_kib(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes that went to a disk or its cache: sockets and pipes do not count.
pub fn bytes_written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|l| l.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

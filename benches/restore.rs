//! `make bench`: ours against what a user would do instead, `download + pg_restore -j$(nproc)`, in one
//! run: the same object over loopback HTTP at the same rate, the same server with the same settings,
//! interleaved pairs, medians and ratio, peak memory of all client processes, bytes put on a disk.
//!
//! `BENCH_SCALE` (1) multiplies the datasets, `BENCH_PAIRS` (5) is how often each pair runs,
//! `BENCH_RATES` (0,50) are MB/s, 0 for loopback speed. Results: `target/bench/restore.json`.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "wall time is what is measured")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use pgrestored::sandbox::{Sandbox, find_bindir};
use shared::{MB, Measured, OURS, env_or, fresh, make_dump, median, open_to_all, serve, watch};

mod shared;

#[derive(Debug, serde::Serialize)]
struct Row {
    dataset: &'static str,
    object_bytes: u64,
    rate_mb_s: u64,
    ours: Vec<Measured>,
    baseline: Vec<Measured>,
    ratio_median: f64,
}

fn main() {
    // Under `cargo test --benches` nothing is measured.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let scale: f64 = env_or("BENCH_SCALE", "1").parse().expect("BENCH_SCALE is a number");
    let pairs: usize = env_or("BENCH_PAIRS", "5").parse().expect("BENCH_PAIRS is a number");
    let rates: Vec<u64> = env_or("BENCH_RATES", "0,50")
        .split(',')
        .map(|r| r.parse().expect("BENCH_RATES are numbers"))
        .collect();
    let bindir = find_bindir(&[]).expect("a PostgreSQL server: make setup");
    let scratch = std::env::temp_dir().join(format!("pgrestored-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("a folder for the dumps");
    open_to_all(&scratch);
    let rows = |n: f64| (n * scale).max(1000.0) as u64;
    let datasets = [
        ("events", include_str!("events.sql"), rows(2_000_000.0)),
        ("mixed", include_str!("mixed.sql"), rows(120_000.0)),
    ];
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    println!(
        "machine: {jobs} cores; PostgreSQL of {}; default settings (durable); {pairs} pairs",
        bindir.display()
    );
    println!("baseline: download to a file, then pg_restore -j{jobs} into a new database\n");
    let mut table = Vec::new();
    for (name, sql, rows) in datasets {
        let dump = make_dump(&bindir, &scratch, name, sql, rows);
        for rate in &rates {
            table.push(compare(&bindir, &scratch, name, &dump, *rate, pairs, jobs));
        }
    }
    let flat = memory(&bindir, &scratch, scale, jobs);
    print_table(&table);
    let (bytes, m) = flat;
    println!(
        "\nmemory: {:.0} MB of table data restored with {:.0} MiB at the peak (limit 256 MiB), {} bytes on disk, {:.1} s",
        bytes as f64 / MB,
        m.peak_memory_bytes as f64 / 1048576.0,
        m.peak_disk_bytes,
        m.seconds
    );
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&out).expect("target/bench");
    let json = serde_json::json!({ "cores": jobs, "pairs": pairs, "rows": table, "memory": { "table_data_bytes": bytes, "measured": m } });
    std::fs::write(out.join("restore.json"), format!("{json:#}\n")).expect("results");
    let _ = std::fs::remove_dir_all(&scratch);
    assert!(m.peak_memory_bytes < 256 << 20, "the memory is not bounded");
}

fn compare(
    bindir: &Path,
    scratch: &Path,
    name: &'static str,
    dump: &Path,
    rate: u64,
    pairs: usize,
    jobs: usize,
) -> Row {
    let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
    let server = Sandbox::start(bindir, &std::env::temp_dir(), true, "").expect("a target cluster");
    let served = serve(scratch, rate);
    let (mut ours, mut baseline) = (vec![], vec![]);
    for i in 0..pairs {
        // Each goes first in half of the pairs.
        for first in [i % 2 == 0, i % 2 != 0] {
            fresh(&server);
            if first {
                ours.push(restore_ours(&server, &served.host, object, jobs));
            } else {
                baseline.push(restore_baseline(&server, &served.host, object, scratch, jobs));
            }
        }
        println!(
            "{name} at {rate} MB/s, pair {}: ours {:.2} s, baseline {:.2} s",
            i + 1,
            ours[i].seconds,
            baseline[i].seconds
        );
    }
    let ratios: Vec<f64> = ours.iter().zip(&baseline).map(|(o, b)| b.seconds / o.seconds).collect();
    let object_bytes = std::fs::metadata(dump).expect("the dump").len();
    Row { dataset: name, object_bytes, rate_mb_s: rate, ours, baseline, ratio_median: median(ratios) }
}

fn restore_ours(server: &Sandbox, host: &str, object: &str, jobs: usize) -> Measured {
    let mut command = Command::new(OURS);
    command
        .args(["restore", object, "--target", "restored", "--output", "json", "--backup-bucket", "bench"])
        // `pg_restore` does not analyse what it restores.
        .args([
            "--no-analyze",
            "--jobs",
            &jobs.to_string(),
            "--db-host",
            server.host(),
            "--storage-emulator-host",
            host,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let started = Instant::now();
    let (memory, written) = watch(command.spawn().expect("pgrestored"));
    Measured { seconds: started.elapsed().as_secs_f64(), peak_memory_bytes: memory, peak_disk_bytes: written }
}

fn restore_baseline(server: &Sandbox, host: &str, object: &str, scratch: &Path, jobs: usize) -> Measured {
    let file = scratch.join("downloaded");
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let size =
        runtime.block_on(download(&format!("http://{host}/storage/v1/b/bench/o/{object}?alt=media"), &file));
    server.run(server.command("createdb").args(["-T", "template0", "restored"])).expect("createdb");
    let mut command = server.command("pg_restore");
    command.args(["-d", "restored", "-j", &jobs.to_string()]).arg(&file);
    let (memory, _) = watch(command.spawn().expect("pg_restore"));
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(&file).expect("the download");
    Measured { seconds, peak_memory_bytes: memory, peak_disk_bytes: size }
}

async fn download(url: &str, file: &Path) -> u64 {
    use std::io::Write;
    let mut answer = reqwest::get(url).await.expect("the object");
    assert!(answer.status().is_success());
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(file).expect("a file"));
    let mut size = 0;
    while let Some(chunk) = answer.chunk().await.expect("its bytes") {
        out.write_all(&chunk).expect("room for the download");
        size += chunk.len() as u64;
    }
    out.flush().expect("room for the download");
    open_file(file);
    size
}

fn open_file(file: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file, mode).expect("permissions");
}

/// A dump with 1 GB of table data (at scale 1): the memory must not follow its size.
fn memory(bindir: &Path, scratch: &Path, scale: f64, jobs: usize) -> (u64, Measured) {
    let sql = "CREATE TABLE big (id bigint, a text, b text); INSERT INTO big SELECT g, repeat(md5(g::text), 8), md5((g * 3)::text) FROM generate_series(1, :rows) g;";
    let rows = (3_350_000.0 * scale) as u64;
    let dump = make_dump(bindir, scratch, "big", sql, rows);
    let server = Sandbox::start(bindir, &std::env::temp_dir(), false, "").expect("a target cluster");
    let served = serve(scratch, 0);
    let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
    let measured = restore_ours(&server, &served.host, object, jobs);
    let size = server
        .run(server.command("psql").args([
            "-X",
            "-A",
            "-t",
            "-d",
            "restored",
            "-c",
            "SELECT sum(octet_length(big::text)) FROM big",
        ]))
        .expect("the size");
    (String::from_utf8_lossy(&size).trim().parse().expect("a number"), measured)
}

fn print_table(rows: &[Row]) {
    println!(
        "\n| dataset | object MB | rate MB/s | ours s | baseline s | ratio | ours MiB | baseline MiB | ours disk MB | baseline disk MB |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for r in rows {
        let of = |m: &[Measured], f: fn(&Measured) -> f64| median(m.iter().map(f).collect());
        let seconds = |m: &Measured| m.seconds;
        let mib = |m: &Measured| m.peak_memory_bytes as f64 / 1048576.0;
        let disk = |m: &Measured| m.peak_disk_bytes as f64 / MB;
        println!(
            "| {} | {:.1} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {:.1} | {:.1} |",
            r.dataset,
            r.object_bytes as f64 / MB,
            if r.rate_mb_s == 0 { "loopback".into() } else { r.rate_mb_s.to_string() },
            of(&r.ours, seconds),
            of(&r.baseline, seconds),
            r.ratio_median,
            of(&r.ours, mib),
            of(&r.baseline, mib),
            of(&r.ours, disk),
            of(&r.baseline, disk)
        );
    }
}

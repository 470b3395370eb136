//! `make bench`, fourth part: the cost of a restore as a backup grows in rows, tables or large objects. Each must
//! grow linearly. Also measured: the time until the first byte of COPY reaches the server, and the share of
//! staging, checks and swap. Then in decades, up to 100,000 tables and 1,000,000 large objects: ten times as many must not take
//! more than twelve times as long, or as much memory, and up to 100,000 tables at most 256 MiB; the result must not grow.
//!
//! `BENCH_SCALE` (1) is the largest size, `BENCH_PAIRS` (5) the number of runs per size (of decades: 3, 2 and 1),
//! `BENCH_DATASETS` (all; by decades: `tiny`, `large_objects`) what is measured, `BENCH_SIZES` (all) the numbers of decades at
//! a scale of 1: `BENCH_DATASETS=tiny BENCH_SIZES=1000,10000` leaves out what takes long. Results: `target/bench/growth.json`,
//! which keeps earlier results of what is not measured again, a plot, `growth.svg`, and from a scale of 1 on a table in
//! `docs/scaling.md`. Exits with 1 if growth is not linear.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgrestored::sandbox::Sandbox;
use shared::datasets::ALL;
use shared::sections::renew_section;
use shared::servers::Postgres;
use shared::shapes::shape;
use shared::{Ours, Stand, env_or, fresh, keep, kept, machine, median, restore_ours, serve};

mod shared;

/// Sizes as fractions of the largest one.
const SIZES: [f64; 4] = [0.125, 0.25, 0.5, 1.0];
/// The unit that is counted in each dataset.
const UNITS: [(&str, &str); 5] = [
    ("events", "row"),
    ("many", "table"),
    ("objects", "large object"),
    ("pgbench", "row"),
    ("mixed", "row of the largest table"),
];

/// Shapes by decades: the numbers at a scale of 1.
const DECADES: [(&str, &str, [f64; 3]); 2] = [
    ("tiny", "table", [1_000.0, 10_000.0, 100_000.0]),
    (
        "large_objects",
        "large object",
        [10_000.0, 100_000.0, 1_000_000.0],
    ),
];
/// The most runs of each of the numbers.
const MOST_RUNS: [usize; 3] = [3, 2, 1];
/// How many times the growth of the number that of time and memory may be.
const LINEAR: f64 = 1.2;
/// The most memory, up to this many tables.
const MOST_MEMORY: (f64, u64) = (100_000.0, 256 << 20);
/// The most bytes of a result, whatever the number.
const MOST_RESULT: usize = 64 << 10;

/// One size of a decade.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Decade {
    dataset: String,
    unit: String,
    count: f64,
    runs: usize,
    seconds: f64,
    cpu_seconds: f64,
    peak_memory_bytes: u64,
    result_bytes: usize,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct GrowthRow {
    dataset: String,
    unit: String,
    count: f64,
    seconds: f64,
    cpu_seconds: f64,
    microseconds_each: f64,
    /// Where it was seen.
    first_copy_byte_ms: Option<f64>,
    safety_share: f64,
    peak_memory_bytes: u64,
}

/// One run, with the time of the first byte of COPY.
struct Run {
    ours: Ours,
    first_byte: f64,
}

/// All results of this machine at this scale.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct GrowthResults {
    machine: String,
    scale: f64,
    rows: Vec<GrowthRow>,
    decades: Vec<Decade>,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let wanted = env_or("BENCH_DATASETS", "");
    let is_wanted = |name: &str| wanted.is_empty() || wanted.split(',').any(|w| w == name);
    let sizes = env_or("BENCH_SIZES", "");
    let sizes: Vec<f64> = sizes
        .split(',')
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().expect("BENCH_SIZES are numbers"))
        .collect();
    let is_known = |size: &f64| DECADES.iter().any(|(_, _, counts)| counts.contains(size));
    assert!(
        sizes.iter().all(is_known),
        "BENCH_SIZES are some of {DECADES:?}"
    );
    let server = Postgres::of(&stand.bindir).target(true, "");
    let mut results = GrowthResults::kept(machine(&stand.bindir, stand.cores), stand.scale);
    println!("{}", results.machine);
    for (name, unit) in UNITS.into_iter().filter(|(name, _)| is_wanted(name)) {
        for size in SIZES {
            let row = measure(&stand, &server, (name, unit), size);
            println!("{}", line(&row).trim_end());
            results.add_row(row);
        }
    }
    for (name, unit, counts) in DECADES.into_iter().filter(|(name, _, _)| is_wanted(name)) {
        for (count, most_runs) in counts.into_iter().zip(MOST_RUNS) {
            if sizes.is_empty() || sizes.contains(&count) {
                results.add_decade(grow(&stand, &server, (name, unit), count, most_runs));
            }
        }
    }
    println!("\n{}\n{}", rows_text(&results.rows), results.decades_text());
    let wrong = faults(&results.decades);
    wrong
        .iter()
        .for_each(|fault| println!("NOT LINEAR: {fault}"));
    if !wrong.is_empty() {
        // The server and the dumps are removed first.
        drop((server, stand));
        std::process::exit(1);
    }
}

impl GrowthResults {
    fn kept(machine: String, scale: f64) -> Self {
        let earlier = kept(file_of(scale)).and_then(|json| serde_json::from_value(json).ok());
        let fitting = earlier.filter(|r: &GrowthResults| r.machine == machine && r.scale == scale);
        fitting.unwrap_or(GrowthResults {
            machine,
            scale,
            rows: vec![],
            decades: vec![],
        })
    }

    fn add_row(&mut self, row: GrowthRow) {
        let is_again = |r: &GrowthRow| r.dataset == row.dataset && r.count == row.count;
        self.rows.retain(|r| !is_again(r));
        self.rows.push(row);
        self.rows.sort_by(|a, b| {
            let place = |r: &GrowthRow| UNITS.iter().position(|(name, _)| *name == r.dataset);
            let both = place(a).cmp(&place(b));
            both.then(a.count.total_cmp(&b.count))
        });
        self.write();
    }

    fn add_decade(&mut self, decade: Decade) {
        let is_again = |d: &Decade| d.dataset == decade.dataset && d.count == decade.count;
        self.decades.retain(|d| !is_again(d));
        self.decades.push(decade);
        self.decades.sort_by(|a, b| {
            let place = |d: &Decade| DECADES.iter().position(|(name, ..)| *name == d.dataset);
            let both = place(a).cmp(&place(b));
            both.then(a.count.total_cmp(&b.count))
        });
        self.write();
    }

    /// After each size, because the largest ones take long.
    fn write(&self) {
        keep(
            file_of(self.scale),
            &format!("{:#}\n", serde_json::json!(self)),
        );
        keep("growth.svg", &plot(&self.rows));
        if !self.decades.is_empty() {
            let text = format!("{}.\n\n{}", self.machine, self.decades_text());
            renew_section("docs/scaling.md", "growth", self.scale, &text);
        }
    }
}

/// Small results are not mixed with those that pages show.
fn file_of(scale: f64) -> &'static str {
    if scale < 1.0 {
        "growth-small.json"
    } else {
        "growth.json"
    }
}

fn measure(
    stand: &Stand,
    server: &Sandbox,
    (name, unit): (&'static str, &'static str),
    size: f64,
) -> GrowthRow {
    let dataset = ALL.iter().find(|d| d.name == name).expect("a dataset");
    let dump = dataset.dump(&stand.bindir, &stand.scratch, stand.scale * size);
    // The emulator serves the files that exist when it starts.
    let served = serve(&stand.scratch, 0);
    let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
    let runs: Vec<Run> = (0..stand.pairs)
        .map(|_| run(server, &served.host, object))
        .collect();
    let of = |f: fn(&Run) -> f64| median(runs.iter().map(f).collect());
    let (count, seconds) = (
        (dataset.rows * stand.scale * size).round(),
        of(|r| r.ours.measured.seconds),
    );
    GrowthRow {
        dataset: name.to_owned(),
        unit: unit.to_owned(),
        count,
        seconds,
        cpu_seconds: of(|r| r.ours.measured.client_cpu + r.ours.measured.server_cpu),
        microseconds_each: seconds / count * 1e6,
        first_copy_byte_ms: Some(of(|r| r.first_byte * 1e3)).filter(|ms| ms.is_finite()),
        safety_share: of(|r| r.ours.safety()),
        peak_memory_bytes: of(|r| r.ours.measured.peak_memory_bytes as f64) as u64,
    }
}

fn rows_text(rows: &[GrowthRow]) -> String {
    let head = "| dataset | unit | count | s | CPU s | µs each | first COPY byte ms | staging, checks, swap | MiB |\n|---|---|---|---|---|---|---|---|---|\n";
    head.to_owned() + &rows.iter().map(line).collect::<String>()
}

fn line(r: &GrowthRow) -> String {
    format!(
        "| {} | {} | {:.0} | {:.2} | {:.2} | {:.1} | {} | {:.1} % | {:.0} |\n",
        r.dataset,
        r.unit,
        r.count,
        r.seconds,
        r.cpu_seconds,
        r.microseconds_each,
        r.first_copy_byte_ms
            .map_or("–".to_owned(), |ms| format!("{ms:.0}")),
        r.safety_share * 100.0,
        r.peak_memory_bytes as f64 / 1048576.0
    )
}

/// Restores a shape with this number of units at a scale of 1.
fn grow(
    stand: &Stand,
    server: &Sandbox,
    (name, unit): (&'static str, &'static str),
    count: f64,
    most_runs: usize,
) -> Decade {
    let count = (count * stand.scale).round().max(10.0);
    let dump = shape(name).dump(&stand.bindir, &stand.scratch, count as u64);
    let served = serve(&stand.scratch, 0);
    let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
    let runs: Vec<Ours> = (0..stand.pairs.min(most_runs))
        .map(|_| {
            fresh(server);
            restore_ours(server, &served.host, object, &[])
        })
        .collect();
    let of = |f: fn(&Ours) -> f64| median(runs.iter().map(f).collect());
    let results = runs.iter().map(|r| r.result.to_string().len());
    Decade {
        dataset: name.to_owned(),
        unit: unit.to_owned(),
        count,
        runs: runs.len(),
        seconds: of(|r| r.measured.seconds),
        cpu_seconds: of(|r| r.measured.client_cpu + r.measured.server_cpu),
        peak_memory_bytes: of(|r| r.measured.peak_memory_bytes as f64) as u64,
        result_bytes: results.max().unwrap_or_default(),
    }
}

/// Each size with the one before it of the same shape: how many times the number, the time and the memory is.
fn factors(decades: &[Decade]) -> Vec<(&Decade, Option<[f64; 3]>)> {
    let before = |i: usize| {
        let earlier = decades.get(i.checked_sub(1)?)?;
        let this = &decades[i];
        (earlier.dataset == this.dataset).then(|| {
            [
                this.count / earlier.count,
                this.seconds / earlier.seconds,
                this.peak_memory_bytes as f64 / earlier.peak_memory_bytes as f64,
            ]
        })
    };
    let all = decades.iter().enumerate();
    all.map(|(i, decade)| (decade, before(i))).collect()
}

/// What grows too fast, or is too large.
fn faults(decades: &[Decade]) -> Vec<String> {
    let mut found = Vec::new();
    for (decade, factors) in factors(decades) {
        let what = format!("{:.0} × {}", decade.count, decade.unit);
        if let Some([number, time, memory]) = factors {
            for (name, factor) in [("time", time), ("memory", memory)] {
                if factor > number * LINEAR {
                    found.push(format!(
                        "{what}: {number:.0} times as many take {factor:.1} times the {name}"
                    ));
                }
            }
        }
        let (most, bytes) = MOST_MEMORY;
        if decade.unit == "table" && decade.count <= most && decade.peak_memory_bytes > bytes {
            found.push(format!(
                "{what}: {} MiB of memory",
                decade.peak_memory_bytes >> 20
            ));
        }
        if decade.result_bytes > MOST_RESULT {
            found.push(format!("{what}: a result of {} bytes", decade.result_bytes));
        }
    }
    found
}

impl GrowthResults {
    fn decades_text(&self) -> String {
        let mut out = "| number of | count | runs | s | µs each | MiB | time, times | memory, times | result bytes |\n|---|---|---|---|---|---|---|---|---|\n".to_owned();
        for (d, factors) in factors(&self.decades) {
            let factor = |i: usize| factors.map_or("–".to_owned(), |f| format!("{:.1}", f[i]));
            let _ = writeln!(
                out,
                "| {}s | {:.0} | {} | {:.1} | {:.0} | {:.0} | {} | {} | {} |",
                d.unit,
                d.count,
                d.runs,
                d.seconds,
                d.seconds / d.count * 1e6,
                d.peak_memory_bytes as f64 / 1048576.0,
                factor(1),
                factor(2),
                d.result_bytes
            );
        }
        out
    }
}

fn run(server: &Sandbox, host: &str, object: &str) -> Run {
    fresh(server);
    let done = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (host, done) = (server.host().to_owned(), done.clone());
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || first_copy_byte(&host, &done, &ready));
        is_ready.recv().expect("the watcher");
        thread
    };
    let started = Instant::now();
    let ours = restore_ours(server, host, object, &[]);
    done.store(true, Ordering::Relaxed);
    let first = watcher.join().expect("the watcher");
    Run {
        first_byte: first.map_or(f64::NAN, |at| (at - started).as_secs_f64()),
        ours,
    }
}

/// Waits until the server has received the first byte of a COPY.
fn first_copy_byte(
    host: &str,
    done: &AtomicBool,
    ready: &std::sync::mpsc::Sender<()>,
) -> Option<Instant> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("failed to start a runtime");
    runtime.block_on(async {
        let mut config = tokio_postgres::Config::new();
        let (client, connection) = config
            .host(host)
            .user("postgres")
            .dbname("postgres")
            .connect(tokio_postgres::NoTls)
            .await
            .expect("a session");
        tokio::spawn(connection);
        let sql = "SELECT 1 FROM pg_stat_progress_copy WHERE bytes_processed > 0 LIMIT 1";
        let asked = client.prepare(sql).await.expect("the question");
        ready.send(()).expect("the bench");
        while !done.load(Ordering::Relaxed) {
            if client
                .query_opt(&asked, &[])
                .await
                .expect("an answer")
                .is_some()
            {
                return Some(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        None
    })
}

/// Plots seconds over the count of each unit, both as fractions of the largest. Linear growth is a straight line.
fn plot(rows: &[GrowthRow]) -> String {
    let (width, height, margin) = (640.0, 420.0, 50.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let place = |x: f64, y: f64| {
        (
            margin + x * (width - 2.0 * margin),
            height - margin - y * (height - 2.0 * margin),
        )
    };
    let ((x0, y0), (x1, y1)) = (place(0.0, 0.0), place(1.0, 1.0));
    let _ = writeln!(
        svg,
        "<path d=\"M{x0} {y1}V{y0}H{x1}\" fill=\"none\" stroke=\"black\"/>"
    );
    let _ = writeln!(
        svg,
        "<path d=\"M{x0} {y0}L{x1} {y1}\" stroke=\"#ccc\" stroke-dasharray=\"4\"/>"
    );
    let _ = writeln!(
        svg,
        "<text x=\"{x0}\" y=\"{}\">part of the largest number</text>",
        height - 15.0
    );
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\">part of its seconds</text>",
        x0,
        y1 - 10.0
    );
    let colours = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e6bb0", "#c98a1b"];
    for (i, ((name, unit), colour)) in UNITS.iter().zip(colours).enumerate() {
        let of_unit: Vec<&GrowthRow> = rows.iter().filter(|r| r.dataset == *name).collect();
        let Some(last) = of_unit.last() else { continue };
        let points: Vec<String> = of_unit
            .iter()
            .map(|r| place(r.count / last.count, r.seconds / last.seconds))
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        let y = y1 + 20.0 + 16.0 * i as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{y}\" fill=\"{colour}\">{name} ({unit}): {:.0} in {:.1} s</text>",
            x0 + 20.0,
            last.count,
            last.seconds
        );
    }
    svg.push_str("</svg>\n");
    svg
}

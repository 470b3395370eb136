//! `make bench`: that no shape of database is restored slower than by `pg_restore -j` of the same local file, with one session
//! per core: at least 1.1 times as fast in the median, and no pair below 1 beyond noise. Twelve shapes, each from a local file
//! and over loopback HTTP, into a durable and a throwaway server. All ways are interleaved on one server, after a restore
//! that does not count.
//!
//! `BENCH_SCALE` (1), `BENCH_PAIRS` (5; shapes whose size is given have at most 3), `BENCH_SHAPES` (all), `BENCH_TARGETS`
//! (durable,throwaway), `BENCH_POSTGRES` (the machine's own; major versions such as `15,16`, or `others`) select what is measured;
//! `BENCH_FOLDER` keeps the dumps. Results: `target/bench/never_slower.json`, which keeps earlier results of what is not measured
//! again and has every run and the stages of each cell, and, from a scale of 1 on, the table of `docs/speed.md`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use shared::baseline::{pg_restore, restore_file};
use shared::sections::renew_section;
use shared::servers::{Postgres, oldest, wanted};
use shared::shapes::{SHAPES, Shape};
use shared::{
    MB, MeasuredCost, Ours, Stand, env_or, fresh, keep, kept, machine, median, open_to_all,
    restore_ours, selected, serve,
};

mod shared;

/// What each cell must reach.
const GOAL: f64 = 1.1;
/// A pair counts as slower if it is below 1 by more than this many times the typical deviation of the baseline from its median,
/// and by at least the least noise. A machine with more than the most noise does not excuse a slower pair.
const DEVIATIONS: f64 = 3.0;
const LEAST_NOISE: f64 = 0.03;
const MOST_NOISE: f64 = 0.1;
const WAYS: [&str; 2] = ["local file", "loopback"];
const TARGETS: [&str; 2] = ["durable", "throwaway"];
/// The ways (0 and 1) and the baseline (2), in every order: each goes first as often as the others, and follows each of them.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
    [0, 2, 1],
    [2, 0, 1],
    [1, 0, 2],
];

/// One shape, one way, one target, one version.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Cell {
    shape: String,
    way: String,
    target: String,
    /// The server's version, such as `15.18`.
    postgres: String,
    scale: f64,
    object_bytes: u64,
    ours: Vec<MeasuredCost>,
    baseline: Vec<MeasuredCost>,
    /// Baseline / ours, of each pair.
    ratios: Vec<f64>,
    median: f64,
    slowest: f64,
    /// How far below 1 a pair may be by chance.
    noise: f64,
    /// Median seconds of our stages, first to last activity where they overlap.
    stages: BTreeMap<String, f64>,
}

impl Cell {
    fn is_again(&self, other: &Cell) -> bool {
        let major = |c: &Cell| c.postgres.split('.').next().map(str::to_owned);
        let key = |c: &Cell| (c.shape.clone(), c.way.clone(), c.target.clone(), major(c));
        key(self) == key(other)
    }

    fn verdict(&self) -> &'static str {
        if self.slowest < 1.0 - self.noise {
            "**a pair is slower**"
        } else if self.median < GOAL {
            "**below 1.1**"
        } else {
            "ok"
        }
    }

    fn is_ok(&self) -> bool {
        self.verdict() == "ok"
    }
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct NeverSlowerResults {
    machine: String,
    scale: f64,
    cells: Vec<Cell>,
}

struct NeverSlowerBench {
    stand: Stand,
    /// Whose `pg_dump` makes the dumps.
    source: PathBuf,
    scratch: PathBuf,
    results: NeverSlowerResults,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let scratch = PathBuf::from(env_or("BENCH_FOLDER", &stand.scratch.display().to_string()));
    let results = NeverSlowerResults::kept(machine(&stand.bindir, stand.cores), stand.scale);
    let versions = wanted(&stand.bindir);
    println!(
        "{}\nbaseline: pg_restore -j{} of the same local file into a new database",
        results.machine, stand.cores
    );
    let mut bench = NeverSlowerBench {
        source: oldest(&versions, &stand.bindir),
        stand,
        scratch,
        results,
    };
    let shapes = selected("BENCH_SHAPES", &SHAPES.each_ref().map(|s| s.name));
    let targets = selected("BENCH_TARGETS", &TARGETS);
    for shape in SHAPES.iter().filter(|s| shapes.contains(&s.name)) {
        bench.measure_shape(shape, &targets, &versions);
    }
    println!("\n{}", bench.results.text());
    if bench.results.cells.iter().any(|c| !c.is_ok()) {
        println!("NOT REACHED: target/bench has every run of these cells");
    }
}

impl NeverSlowerBench {
    fn measure_shape(&mut self, shape: &Shape, targets: &[&str], versions: &[Postgres]) {
        // The emulator reads whatever is in its folder.
        let folder = self.scratch.join(shape.name);
        std::fs::create_dir_all(&folder).expect("failed to create the folder for the dump");
        for folder in [&self.scratch, &folder] {
            open_to_all(folder);
        }
        let dump = shape.dump(&self.source, &folder, shape.count(self.stand.scale));
        for postgres in versions {
            for target in targets {
                self.measure(shape, &dump, target, postgres);
            }
        }
        // Dumps of all shapes together are large.
        if self.scratch == self.stand.scratch {
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    fn measure(&mut self, shape: &Shape, dump: &Path, target: &str, postgres: &Postgres) {
        let cores = self.stand.cores;
        let served = serve(dump.parent().expect("a folder"), 0);
        let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
        let server = postgres.target(target == "durable", "");
        // The first restore creates the files of the WAL, and reads the dump and the server's programs from the disk.
        fresh(&server);
        restore_file(&server, dump);
        let mut baseline = Vec::new();
        let mut ours: [Vec<Ours>; 2] = Default::default();
        for round in 0..self.stand.pairs.min(shape.most_pairs) {
            for way in ORDERS[round % ORDERS.len()] {
                fresh(&server);
                match way {
                    0 => ours[0].push(restore_file(&server, dump)),
                    1 => ours[1].push(restore_ours(&server, &served.host, object, &[])),
                    _ => baseline.push(pg_restore(&server, cores, dump)),
                }
            }
        }
        let object_bytes = std::fs::metadata(dump).expect("the dump").len();
        for (way, ours) in WAYS.iter().zip(ours) {
            let cell = Cell::of(
                (shape.name, way, target, &postgres.version),
                (object_bytes, self.stand.scale),
                &ours,
                &baseline,
            );
            println!("{}", line(&cell).trim_end());
            self.results.add(cell);
        }
    }
}

impl Cell {
    fn of(
        (shape, way, target, postgres): (&str, &str, &str, &str),
        (object_bytes, scale): (u64, f64),
        ours: &[Ours],
        baseline: &[MeasuredCost],
    ) -> Self {
        let pairs = ours.iter().zip(baseline);
        let ratios: Vec<f64> = pairs.map(|(o, b)| b.seconds / o.measured.seconds).collect();
        let typical = median(baseline.iter().map(|b| b.seconds).collect());
        let deviations = baseline.iter().map(|b| (b.seconds / typical - 1.0).abs());
        let noise = DEVIATIONS * median(deviations.collect());
        Cell {
            shape: shape.to_owned(),
            way: way.to_owned(),
            target: target.to_owned(),
            postgres: postgres.to_owned(),
            scale,
            object_bytes,
            ours: ours.iter().map(|o| o.measured).collect(),
            baseline: baseline.to_vec(),
            median: median(ratios.clone()),
            slowest: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            noise: noise.clamp(LEAST_NOISE, MOST_NOISE),
            stages: stages_of(ours),
            ratios,
        }
    }
}

fn stages_of(ours: &[Ours]) -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in ours {
        let mut stages = run.result["stages"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        // Where stages overlap, their activity says more.
        let active = run.result["stages_active"].as_object().cloned();
        stages.extend(active.unwrap_or_default());
        for (stage, seconds) in stages {
            all.entry(stage).or_default().extend(seconds.as_f64());
        }
    }
    all.into_iter()
        .filter(|(_, seconds)| !seconds.is_empty())
        .map(|(stage, seconds)| (stage, median(seconds)))
        .collect()
}

impl NeverSlowerResults {
    /// Earlier results, if they are of the same machine and scale.
    fn kept(machine: String, scale: f64) -> Self {
        let earlier = kept(file_of(scale)).map(|json| {
            serde_json::from_value::<NeverSlowerResults>(json).expect("results of this bench")
        });
        let fitting = earlier.filter(|r| r.machine == machine && r.scale == scale);
        fitting.unwrap_or(NeverSlowerResults {
            machine,
            scale,
            cells: vec![],
        })
    }

    fn add(&mut self, cell: Cell) {
        self.cells.retain(|c| !c.is_again(&cell));
        self.cells.push(cell);
        let place = |name: &str| SHAPES.iter().position(|s| s.name == name);
        self.cells.sort_by_key(|c| {
            (
                c.postgres.clone(),
                place(&c.shape),
                c.target.clone(),
                WAYS.iter().position(|w| *w == c.way),
            )
        });
        let json = serde_json::json!(self);
        keep(file_of(self.scale), &format!("{json:#}\n"));
        renew_section("docs/speed.md", "never slower", self.scale, &self.text());
    }

    fn text(&self) -> String {
        let mut out = format!(
            "{}.\n\n| shape | MB | PostgreSQL | target | from | pairs | ours s | pg_restore s | ratio | slowest pair | noise | MiB ours | MiB pg_restore | |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
            self.machine
        );
        self.cells.iter().for_each(|cell| out.push_str(&line(cell)));
        let failed: Vec<&Cell> = self.cells.iter().filter(|c| !c.is_ok()).collect();
        let _ = writeln!(
            out,
            "\n{} of {} cells reach the goal.",
            self.cells.len() - failed.len(),
            self.cells.len()
        );
        if !failed.is_empty() {
            out.push_str("\nWhere the others spend their time (seconds; CPU is the client's + the server's):\n\n");
            out.push_str("| shape | PostgreSQL | target | from | our stages | CPU ours | CPU pg_restore |\n|---|---|---|---|---|---|---|\n");
            failed.iter().for_each(|cell| out.push_str(&profile(cell)));
        }
        out
    }
}

/// Small results are not mixed with those that pages show.
fn file_of(scale: f64) -> &'static str {
    if scale < 1.0 {
        "never_slower-small.json"
    } else {
        "never_slower.json"
    }
}

fn line(cell: &Cell) -> String {
    let of =
        |all: &[MeasuredCost], f: fn(&MeasuredCost) -> f64| median(all.iter().map(f).collect());
    let seconds = |m: &MeasuredCost| m.seconds;
    let memory = |m: &MeasuredCost| m.peak_memory_bytes as f64 / 1048576.0;
    format!(
        "| {} | {:.1} | {} | {} | {} | {} | {:.2} | {:.2} | **{:.2}** | {:.2} | {:.0} % | {:.0} | {:.0} | {} |\n",
        cell.shape,
        cell.object_bytes as f64 / MB,
        cell.postgres,
        cell.target,
        cell.way,
        cell.ratios.len(),
        of(&cell.ours, seconds),
        of(&cell.baseline, seconds),
        cell.median,
        cell.slowest,
        cell.noise * 100.0,
        of(&cell.ours, memory),
        of(&cell.baseline, memory),
        cell.verdict()
    )
}

fn profile(cell: &Cell) -> String {
    let stages = cell.stages.iter().filter(|(_, seconds)| **seconds >= 0.05);
    let stages: Vec<String> = stages
        .map(|(stage, seconds)| format!("{stage} {seconds:.2}"))
        .collect();
    let cpu = |all: &[MeasuredCost]| {
        let of = |f: fn(&MeasuredCost) -> f64| median(all.iter().map(f).collect());
        format!("{:.1} + {:.1}", of(|m| m.client_cpu), of(|m| m.server_cpu))
    };
    format!(
        "| {} | {} | {} | {} | {} | {} | {} |\n",
        cell.shape,
        cell.postgres,
        cell.target,
        cell.way,
        stages.join(", "),
        cpu(&cell.ours),
        cpu(&cell.baseline)
    )
}

//! `make bench`: that no shape of database is restored slower than by `pg_restore -j` of the same local file, with one session
//! per core: at least 1.1 times as fast in the median, and no pair below 1 beyond noise. Twelve shapes, each from a local file
//! and over loopback HTTP, into a durable and a throwaway server. All ways are interleaved on one server.
//!
//! `BENCH_SCALE` (1), `BENCH_PAIRS` (5), `BENCH_DATASETS` (names of shapes), `BENCH_TARGETS` (durable,throwaway), `BENCH_FOLDER`
//! keeps the dumps. Results: `target/bench/never_slower.json`, which keeps earlier results of what is not measured again and has
//! the stages and CPU seconds of cells that fail, and, from a scale of 1 on, the table of `docs/speed.md`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use pgrestored::sandbox::Sandbox;
use shared::baseline::{pg_restore, restore_file};
use shared::sections::renew_section;
use shared::shapes::{SHAPES, Shape};
use shared::{
    MB, MeasuredCost, Ours, Stand, env_or, fresh, keep, kept, machine, median, open_to_all,
    restore_ours, serve,
};

mod shared;

/// What each cell must reach.
const GOAL: f64 = 1.1;
/// A pair counts as slower if it is below 1 by more than this many times the typical deviation of the baseline from its median,
/// and by at least the least noise.
const DEVIATIONS: f64 = 3.0;
const LEAST_NOISE: f64 = 0.03;
const WAYS: [&str; 2] = ["local file", "loopback"];

/// One shape, one way, one target.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Cell {
    shape: String,
    way: String,
    target: String,
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
        let key = |c: &Cell| (c.shape.clone(), c.way.clone(), c.target.clone());
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
    scratch: PathBuf,
    results: NeverSlowerResults,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let scratch = PathBuf::from(env_or("BENCH_FOLDER", &stand.scratch.display().to_string()));
    std::fs::create_dir_all(&scratch).expect("failed to create the folder for the dumps");
    open_to_all(&scratch);
    let results = NeverSlowerResults::kept(machine(&stand.bindir, stand.cores), stand.scale);
    println!(
        "{}\nbaseline: pg_restore -j{} of the same local file into a new database",
        results.machine, stand.cores
    );
    let mut bench = NeverSlowerBench {
        stand,
        scratch,
        results,
    };
    let (wanted, targets) = (
        env_or("BENCH_DATASETS", ""),
        env_or("BENCH_TARGETS", "durable,throwaway"),
    );
    let is_wanted = |name: &str| wanted.is_empty() || wanted.split(',').any(|w| w == name);
    for shape in SHAPES.iter().filter(|s| is_wanted(s.name)) {
        for target in ["durable", "throwaway"]
            .iter()
            .filter(|t| targets.contains(**t))
        {
            bench.measure(shape, target);
        }
    }
    println!("\n{}", bench.results.text());
    if bench.results.cells.iter().any(|c| !c.is_ok()) {
        println!("NOT REACHED: see the stages of these cells in target/bench/never_slower.json");
    }
}

impl NeverSlowerBench {
    fn measure(&mut self, shape: &Shape, target: &str) {
        let Stand {
            bindir,
            cores,
            scale,
            pairs,
            ..
        } = &self.stand;
        let dump = shape.dump(bindir, &self.scratch, shape.count(*scale));
        // The emulator serves the files that exist when it starts.
        let served = serve(&self.scratch, 0);
        let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
        let options = "-c max_locks_per_transaction=1024";
        let server = Sandbox::start(bindir, &std::env::temp_dir(), target == "durable", options)
            .expect("failed to start the target cluster");
        let mut baseline = Vec::new();
        let mut ours: [Vec<Ours>; 2] = Default::default();
        for round in 0..*pairs {
            // The ways take turns in going first.
            for i in 0..3 {
                fresh(&server);
                match (round + i) % 3 {
                    0 => ours[0].push(restore_file(&server, &dump)),
                    1 => ours[1].push(restore_ours(&server, &served.host, object, &[])),
                    _ => baseline.push(pg_restore(&server, bindir, *cores, &dump)),
                }
            }
        }
        let object_bytes = std::fs::metadata(&dump).expect("the dump").len();
        for (way, ours) in WAYS.iter().zip(ours) {
            let cell = Cell::of(
                (shape.name, way, target),
                (object_bytes, *scale),
                &ours,
                &baseline,
            );
            println!("{}", line(&cell).trim_end());
            self.results.add(cell);
        }
        // Dumps of all shapes together are large.
        if self.scratch == self.stand.scratch && target == "throwaway" {
            let _ = std::fs::remove_file(dump);
        }
    }
}

impl Cell {
    fn of(
        (shape, way, target): (&str, &str, &str),
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
            scale,
            object_bytes,
            ours: ours.iter().map(|o| o.measured).collect(),
            baseline: baseline.to_vec(),
            median: median(ratios.clone()),
            slowest: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            noise: noise.max(LEAST_NOISE),
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
            let seconds = seconds.as_f64().unwrap_or(f64::NAN);
            all.entry(stage).or_default().push(seconds);
        }
    }
    all.into_iter()
        .map(|(stage, seconds)| (stage, median(seconds)))
        .collect()
}

impl NeverSlowerResults {
    /// Earlier results, if they are of the same machine and scale.
    fn kept(machine: String, scale: f64) -> Self {
        let earlier = kept("never_slower.json").map(|json| {
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
                place(&c.shape),
                c.target.clone(),
                WAYS.iter().position(|w| *w == c.way),
            )
        });
        let json = serde_json::json!(self);
        keep("never_slower.json", &format!("{json:#}\n"));
        renew_section("docs/speed.md", "never slower", self.scale, &self.text());
    }

    fn text(&self) -> String {
        let mut out = format!(
            "{}.\n\n| shape | MB | target | from | pairs | ours s | pg_restore s | ratio | slowest pair | noise | |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
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
            out.push_str("| shape | target | from | our stages | CPU ours | CPU pg_restore |\n|---|---|---|---|---|---|\n");
            failed.iter().for_each(|cell| out.push_str(&profile(cell)));
        }
        out
    }
}

fn line(cell: &Cell) -> String {
    let seconds = |all: &[MeasuredCost]| median(all.iter().map(|m| m.seconds).collect());
    format!(
        "| {} | {:.0} | {} | {} | {} | {:.2} | {:.2} | **{:.2}** | {:.2} | {:.0} % | {} |\n",
        cell.shape,
        cell.object_bytes as f64 / MB,
        cell.target,
        cell.way,
        cell.ratios.len(),
        seconds(&cell.ours),
        seconds(&cell.baseline),
        cell.median,
        cell.slowest,
        cell.noise * 100.0,
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
        "| {} | {} | {} | {} | {} | {} |\n",
        cell.shape,
        cell.target,
        cell.way,
        stages.join(", "),
        cpu(&cell.ours),
        cpu(&cell.baseline)
    )
}

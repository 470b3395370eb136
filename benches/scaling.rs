//! `make bench`, fifth part: the cost of each part of a restore, measured at four sizes; a model of these costs,
//! checked against whole restores of the same sizes; and its forecast for other machines.
//!
//! `BENCH_SCALE` (1) is the largest size, `BENCH_PAIRS` (5) the number of runs per size. Results:
//! `target/bench/scaling.json` and the figures of `docs/scaling.md`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pgrestored::sandbox::Sandbox;
use shared::datasets::ALL;
use shared::model::{BottleneckTimes, Costs, Machine, ModelTable, simulate};
use shared::servers::Postgres;
use shared::{
    MB, MeasuredCost, OURS, Ours, Stand, fresh, keep, measure, median, renew, restore_ours, serve,
    watch,
};

mod shared;

/// Sizes as fractions of the largest one.
const SIZES: [f64; 4] = [0.125, 0.25, 0.5, 1.0];
/// The datasets, with the input of the model: each table's share of the text and its number of indexes.
const DATASETS: [(&str, usize, usize); 2] = [("events", 1, 4), ("mixed", 28, 7)];
const PAGE: &str = "docs/scaling.md";
/// An archive of one terabyte, in MB.
const TERABYTE: f64 = 1e6;
/// 10 Gbit/s, in MB/s.
const LINK: f64 = 1250.0;

/// Medians for one size of one dataset.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Size {
    archive_mb: f64,
    text_mb: f64,
    seconds: f64,
    client_cpu: f64,
    server_cpu: f64,
    /// The same for a restore without indexes and keys.
    server_cpu_of_data: f64,
    /// Seconds to read the archive without restoring it.
    read_seconds: f64,
    model_seconds: f64,
}

struct ScalingBench {
    stand: Stand,
    server: Sandbox,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let server = Postgres::of(&stand.bindir).target(true, "");
    let bench = ScalingBench { stand, server };
    let mut figures = String::new();
    let mut json = vec![];
    for (name, tables, indexes) in DATASETS {
        let mut sizes: Vec<Size> = SIZES.iter().map(|s| bench.size(name, *s)).collect();
        let costs = costs(&sizes);
        let here = Machine {
            server_cores: bench.stand.cores as f64,
            client_cores: None,
            link: f64::INFINITY,
            readers: 1.0,
        };
        for size in &mut sizes {
            size.model_seconds =
                simulate(&costs, &here, &cut(size.text_mb, tables, indexes)).seconds;
        }
        figures.push_str(&checked(name, &costs, &sizes));
        json.push(serde_json::json!({ "dataset": name, "costs": costs, "sizes": sizes }));
        figures.push_str(&elsewhere(&costs, tables, indexes));
    }
    println!("{figures}");
    keep(
        "scaling.json",
        &format!("{:#}\n", serde_json::Value::from(json)),
    );
    renew(PAGE, bench.stand.scale, &figures);
}

/// Divides this much text into tables of equal size.
fn cut(text: f64, tables: usize, indexes: usize) -> Vec<ModelTable> {
    vec![
        ModelTable {
            text: text / tables as f64,
            indexes
        };
        tables
    ]
}

impl ScalingBench {
    fn size(&self, name: &str, part: f64) -> Size {
        let Stand {
            bindir,
            scratch,
            scale,
            pairs,
            ..
        } = &self.stand;
        let dataset = ALL.iter().find(|d| d.name == name).expect("a dataset");
        let dump = dataset.dump(bindir, scratch, scale * part);
        // The emulator serves the files that exist when it starts.
        let served = serve(scratch, 0);
        let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
        let restore = |more: &[&str]| {
            fresh(&self.server);
            restore_ours(&self.server, &served.host, object, more)
        };
        let whole: Vec<Ours> = (0..*pairs).map(|_| restore(&[])).collect();
        let sections = ["--section", "pre-data", "--section", "data"];
        let data: Vec<Ours> = (0..*pairs).map(|_| restore(&sections)).collect();
        let read: Vec<f64> = (0..*pairs).map(|_| self.read(&dump)).collect();
        let of = |runs: &[Ours], f: fn(&MeasuredCost) -> f64| {
            median(runs.iter().map(|run| f(&run.measured)).collect())
        };
        let size = Size {
            archive_mb: std::fs::metadata(&dump).expect("the dump").len() as f64 / MB,
            text_mb: whole[0].result["bytes"].as_f64().expect("bytes") / MB,
            seconds: of(&whole, |m| m.seconds),
            client_cpu: of(&whole, |m| m.client_cpu),
            server_cpu: of(&whole, |m| m.server_cpu),
            server_cpu_of_data: of(&data, |m| m.server_cpu),
            read_seconds: median(read),
            model_seconds: f64::NAN,
        };
        println!(
            "{name}, {:.0} MB of text: {:.2} s",
            size.text_mb, size.seconds
        );
        size
    }

    /// Seconds to read every block of an archive.
    fn read(&self, dump: &Path) -> f64 {
        let measured = measure(&self.server, || {
            let mut command = Command::new(OURS);
            command
                .arg("verify")
                .arg(dump)
                .args(["--depth", "archive", "--output", "json"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            watch(command.spawn().expect("pgrestored"))
        });
        measured.seconds
    }
}

/// Fits cost over size by least squares; returns the cost per MB and the constant part.
fn slope(sizes: &[Size], of: impl Fn(&Size) -> f64) -> (f64, f64) {
    let n = sizes.len() as f64;
    let (x, y) = (
        sizes.iter().map(|s| s.text_mb).sum::<f64>() / n,
        sizes.iter().map(&of).sum::<f64>() / n,
    );
    let over: f64 = sizes.iter().map(|s| (s.text_mb - x) * (of(s) - y)).sum();
    let under: f64 = sizes.iter().map(|s| (s.text_mb - x).powi(2)).sum();
    (over / under, (y - over / under * x).max(0.0))
}

fn costs(sizes: &[Size]) -> Costs {
    let last = sizes.last().expect("sizes");
    let (copy, _) = slope(sizes, |s| s.server_cpu_of_data);
    Costs {
        fixed: slope(sizes, |s| s.seconds).1,
        expansion: last.text_mb / last.archive_mb,
        reader: 1.0 / slope(sizes, |s| s.read_seconds).0,
        client: slope(sizes, |s| s.client_cpu).0,
        copy,
        build: (slope(sizes, |s| s.server_cpu).0 - copy).max(0.0),
    }
}

fn checked(name: &str, costs: &Costs, sizes: &[Size]) -> String {
    let mut out = format!(
        "### {name}\n\nOne MB of text costs the client {:.1} ms of CPU time, the server {:.1} ms for COPY and {:.1} ms for indexes \
         and keys; one reader delivers {:.0} MB/s of text from an archive; one MB of archive holds {:.1} MB of text.\n\n\
         | text MB | measured s | model s | measured / model |\n|---|---|---|---|\n",
        costs.client * 1e3,
        costs.copy * 1e3,
        costs.build * 1e3,
        costs.reader,
        costs.expansion
    );
    for s in sizes {
        let _ = writeln!(
            out,
            "| {:.0} | {:.2} | {:.2} | {:.2} |",
            s.text_mb,
            s.seconds,
            s.model_seconds,
            s.seconds / s.model_seconds
        );
    }
    out
}

/// The forecast for a terabyte of such data on a server with 32 cores.
fn elsewhere(costs: &Costs, tables: usize, indexes: usize) -> String {
    let machine = Machine {
        server_cores: 32.0,
        client_cores: Some(8.0),
        link: LINK,
        readers: 1.0,
    };
    let text = TERABYTE * costs.expansion;
    let many = cut(text, 1000, indexes);
    let one = cut(text, tables, indexes);
    let like_here = match tables {
        1 => "one table".to_owned(),
        n => format!("{n} tables, one file with data offsets, or a directory"),
    };
    let rows: [(&str, &[ModelTable], Machine); 5] = [
        (
            "1,000 tables, one file without data offsets",
            &many,
            machine,
        ),
        (
            "1,000 tables, one file with data offsets, or a directory (16 readers)",
            &many,
            Machine {
                readers: 16.0,
                ..machine
            },
        ),
        (
            "the same, a link of 1 Gbit/s",
            &many,
            Machine {
                readers: 16.0,
                link: LINK / 10.0,
                ..machine
            },
        ),
        (
            "the same, 64 cores",
            &many,
            Machine {
                readers: 16.0,
                server_cores: 64.0,
                client_cores: Some(16.0),
                ..machine
            },
        ),
        // A table is one block, or one file of a directory.
        (
            like_here.as_str(),
            &one,
            Machine {
                readers: (tables as f64).min(16.0),
                ..machine
            },
        ),
    ];
    let mut out = String::from(
        "\n1 TB of archive, a server with 32 cores, a client with 8, a link of 10 Gbit/s:\n\n\
         | backup | minutes | bottleneck | link | reader | client | loading | tail |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (what, tables, machine) in rows {
        let o: BottleneckTimes = simulate(costs, &machine, tables);
        let part = |s: f64| format!("{:.0} %", s / o.seconds * 100.0);
        let _ = writeln!(
            out,
            "| {what} | {:.0} | {} | {} | {} | {} | {} | {} |",
            o.seconds / 60.0,
            o.bound(),
            part(o.link),
            part(o.reader),
            part(o.client),
            part(o.copy),
            part(o.tail)
        );
    }
    out.push('\n');
    out
}

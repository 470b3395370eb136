//! `make bench`: how much faster a restore is with another setting of the server. Two durable servers that differ in one setting
//! restore the same backup, taking turns, after a restore by each that does not count; the gain is the median of the pairs. The
//! advice of `inspect --against` and of results has these gains and no others.
//!
//! `BENCH_SCALE` (1), `BENCH_PAIRS` (5), `BENCH_SETTINGS` (all). From a scale of 1 on, rewrites `src/tuning/gains.json`, which the
//! program includes, and the table of `docs/sizing.md`. What is not measured again stays. Results: `target/bench/tuning.json`
//! (below a scale of 1 `tuning-small.json`, with nothing but this run).

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::path::{Path, PathBuf};

use shared::datasets::ALL;
use shared::sections::renew_section;
use shared::servers::Postgres;
use shared::shapes::shape;
use shared::{Stand, fresh, keep, median, restore_ours, selected, serve};

mod shared;

/// What the program includes.
const GAINS: &str = "src/tuning/gains.json";
/// What is restored.
#[derive(Clone, Copy)]
enum What {
    Dataset(&'static str),
    Shape(&'static str),
}

/// A setting with two values.
struct Trial {
    setting: &'static str,
    what: What,
    /// How many times the size of the dataset at this scale: the effect of some settings begins at a size.
    times: f64,
    bad: &'static str,
    good: &'static str,
    /// Other settings of both servers, and those that only the good value needs.
    both: &'static str,
    with_good: &'static str,
}

const PLAIN: Trial = Trial {
    setting: "",
    what: What::Dataset("events"),
    times: 1.0,
    bad: "",
    good: "",
    both: "",
    with_good: "",
};

/// The bad value is PostgreSQL's default where that can be bad.
const TRIALS: [Trial; 8] = [
    Trial {
        setting: "max_wal_size",
        times: 4.0,
        bad: "1GB",
        good: "16GB",
        ..PLAIN
    },
    Trial {
        setting: "checkpoint_timeout",
        times: 4.0,
        bad: "30s",
        good: "30min",
        both: "-c max_wal_size=16GB",
        ..PLAIN
    },
    Trial {
        setting: "checkpoint_completion_target",
        times: 4.0,
        bad: "0.5",
        good: "0.9",
        ..PLAIN
    },
    Trial {
        setting: "maintenance_work_mem",
        what: What::Shape("jsonb"),
        bad: "64MB",
        good: "1GB",
        ..PLAIN
    },
    Trial {
        setting: "wal_level",
        bad: "replica",
        good: "minimal",
        with_good: "-c max_wal_senders=0",
        ..PLAIN
    },
    Trial {
        setting: "max_parallel_maintenance_workers",
        what: What::Dataset("pgbench"),
        bad: "0",
        good: "2",
        ..PLAIN
    },
    Trial {
        setting: "wal_compression",
        times: 4.0,
        bad: "off",
        good: "lz4",
        ..PLAIN
    },
    Trial {
        setting: "shared_buffers",
        times: 4.0,
        bad: "128MB",
        good: "1GB",
        ..PLAIN
    },
];

/// A line of the file that the program includes.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct TuningGain {
    setting: String,
    dataset: String,
    bad: String,
    good: String,
    /// Of the time with the bad value, what the good one saved: the median of the pairs.
    share: f64,
    /// The smallest and the largest of the pairs.
    least: f64,
    most: f64,
    pairs: usize,
    bad_seconds: f64,
    good_seconds: f64,
    machine: String,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Gains {
    measured: Vec<TuningGain>,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let postgres = Postgres::of(&stand.bindir);
    let machine = format!("{} cores, PostgreSQL {}", stand.cores, postgres.version);
    let settings = selected("BENCH_SETTINGS", &TRIALS.each_ref().map(|t| t.setting));
    let mut gains = if stand.scale < 1.0 {
        Gains::default()
    } else {
        Gains::kept()
    };
    for trial in TRIALS.iter().filter(|t| settings.contains(&t.setting)) {
        let gain = measure(&stand, &postgres, trial, &machine);
        println!("{}", line(&gain).trim_end());
        gains.add(gain);
        gains.write(stand.scale);
    }
    println!("\n{}", gains.text());
}

fn dump_of(stand: &Stand, trial: &Trial) -> (PathBuf, &'static str) {
    let scale = stand.scale * trial.times;
    match trial.what {
        What::Dataset(name) => {
            let dataset = ALL.iter().find(|d| d.name == name).expect("a dataset");
            (dataset.dump(&stand.bindir, &stand.scratch, scale), name)
        }
        What::Shape(name) => {
            let shape = shape(name);
            let dump = shape.dump(&stand.bindir, &stand.scratch, shape.count(scale));
            (dump, name)
        }
    }
}

fn measure(stand: &Stand, postgres: &Postgres, trial: &Trial, machine: &str) -> TuningGain {
    let (dump, dataset) = dump_of(stand, trial);
    let served = serve(&stand.scratch, 0);
    let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
    let start = |value: &str, more: &str| {
        let options = format!("{} -c {}={value} {more}", trial.both, trial.setting);
        postgres.target(true, &options)
    };
    let servers = [start(trial.bad, ""), start(trial.good, trial.with_good)];
    // The first restore creates the files of the WAL, more of them with some values than with others.
    for server in &servers {
        fresh(server);
        restore_ours(server, &served.host, object, &[]);
        fresh(server);
    }
    let mut seconds = [vec![], vec![]];
    for round in 0..stand.pairs {
        // The values take turns in going first.
        for i in 0..2 {
            let which = (round + i) % 2;
            fresh(&servers[which]);
            let ours = restore_ours(&servers[which], &served.host, object, &[]);
            seconds[which].push(ours.measured.seconds);
            // What one server has left to write shall not be the other one's burden.
            fresh(&servers[which]);
        }
    }
    let [bad, good] = seconds;
    let shares: Vec<f64> = bad.iter().zip(&good).map(|(b, g)| 1.0 - g / b).collect();
    let size = if trial.times == 1.0 {
        dataset.to_owned()
    } else {
        format!("{dataset} × {}", trial.times)
    };
    TuningGain {
        setting: trial.setting.to_owned(),
        dataset: size,
        bad: trial.bad.to_owned(),
        good: trial.good.to_owned(),
        least: shares.iter().copied().fold(f64::INFINITY, f64::min),
        most: shares.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        share: median(shares),
        pairs: stand.pairs,
        bad_seconds: median(bad),
        good_seconds: median(good),
        machine: machine.to_owned(),
    }
}

impl Gains {
    fn file() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(GAINS)
    }

    /// Earlier gains.
    fn kept() -> Self {
        let file = std::fs::read(Self::file()).expect("the file of gains");
        serde_json::from_slice(&file).expect("gains of this bench")
    }

    fn add(&mut self, gain: TuningGain) {
        self.measured.retain(|g| g.setting != gain.setting);
        self.measured.push(gain);
        let place = |name: &str| TRIALS.iter().position(|t| t.setting == name);
        self.measured.sort_by_key(|g| place(&g.setting));
    }

    fn write(&self, scale: f64) {
        let json = format!("{:#}\n", serde_json::json!(self));
        let is_small = scale < 1.0;
        let name = if is_small {
            "tuning-small.json"
        } else {
            "tuning.json"
        };
        keep(name, &json);
        if !is_small {
            std::fs::write(Self::file(), &json).expect("the file of gains");
        }
        renew_section("docs/sizing.md", "tuning", scale, &self.text());
    }

    fn text(&self) -> String {
        let head = "| setting | dataset | value | s | better | s | gain | least, most | pairs | measured on |\n|---|---|---|---|---|---|---|---|---|---|\n";
        let lines = self.measured.iter().map(line);
        head.to_owned() + &lines.collect::<String>()
    }
}

fn line(g: &TuningGain) -> String {
    // Without the sign of a negative zero.
    let percent = |share: f64| (share * 100.0).round() + 0.0;
    format!(
        "| `{}` | {} | {} | {:.2} | {} | {:.2} | **{:.0} %** | {:.0} %, {:.0} % | {} | {} |\n",
        g.setting,
        g.dataset,
        g.bad,
        g.bad_seconds,
        g.good,
        g.good_seconds,
        percent(g.share),
        percent(g.least),
        percent(g.most),
        g.pairs,
        g.machine
    )
}

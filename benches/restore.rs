//! `make bench`, first part: compares pgrestored with what a user would do instead: download the dump, check it, and
//! run `pg_restore -j$(nproc)` (`psql` for SQL text). Both get the same object over loopback HTTP at the same rate
//! and the same server with the same settings in a fresh state, and run interleaved. Measured are medians of the
//! pairs' ratios, CPU seconds of both sides, peak memory of all client processes, and bytes written to disk. Also
//! measured: the baseline with a download in slices, as `gcloud storage cp` does it; `pg_restore -j` from a local
//! file; and `pg_restore` from standard input.
//!
//! `BENCH_SCALE` (1) multiplies the datasets. `BENCH_PAIRS` (5) is the number of runs of each pair, `BENCH_PEERS`
//! (the same) that of the other ways, at the first rate. `BENCH_RATES` (0,50,20) are in MB/s; 0 is loopback speed.
//! `BENCH_STREAM_RATE` (0, no limit) is the rate of each stream of the link, in MB/s: a bucket gives one stream 50 to
//! 100 MB/s, and many of them the whole link. With it, the download in slices is compared in every pair.
//! `BENCH_DATASETS` (all, and `memory`), `BENCH_TARGETS` (durable,throwaway) and `BENCH_POSTGRES` (the machine's own;
//! major versions such as `15,16`, or `others`) select what is measured. All versions restore the same dumps, which the
//! oldest of them made; `pg_restore` has the server's version or, if that has no tools, a newer one. `BENCH_FOLDER` keeps
//! the dumps. Results: `target/bench/restore.json`, which keeps earlier results of what is not measured again, and, from a
//! scale of 1 on, the figures of `docs/speed.md`.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "wall time is what is measured"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pgrestored::sandbox::Sandbox;
use shared::baseline::CREATE;
use shared::datasets::{ALL, Dataset, Form};
use shared::servers::{Postgres, oldest, wanted as wanted_versions};
use shared::{
    MB, MeasuredCost, Stand, env_or, fresh, keep, kept, machine, make_dump, measure, median,
    open_to_all, query, renew, restore_ours, selected, serve, serve_limited, watch,
};

mod shared;

/// A way to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    Ours,
    /// Download, check, restore in parallel.
    Baseline,
    /// The same, downloading by several streams.
    Sliced,
    /// The dump is already on a local disk.
    LocalFile,
    /// `pg_restore` (`psql` for SQL text) reads the download from standard input.
    StandardInput,
}

/// The limits of a link and of each of its streams, in MB/s; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct LinkLimits {
    rate_mb_s: u64,
    stream_rate_mb_s: u64,
}

impl std::fmt::Display for LinkLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.rate_mb_s, self.stream_rate_mb_s) {
            (0, 0) => f.write_str("loopback"),
            (rate, 0) => write!(f, "{rate}"),
            (0, stream) => write!(f, "{stream} per stream"),
            (rate, stream) => write!(f, "{rate}, {stream} per stream"),
        }
    }
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct RestoreRow {
    dataset: String,
    target: String,
    /// The server's version, such as `16.9`; empty for the machine's own.
    #[serde(default)]
    postgres: String,
    scale: f64,
    pairs: usize,
    object_bytes: u64,
    /// In MB/s; 0 for loopback speed.
    rate_mb_s: u64,
    /// Of each stream, in MB/s; 0 for no limit.
    #[serde(default)]
    stream_rate_mb_s: u64,
    runs: Vec<(Way, Vec<MeasuredCost>)>,
    /// Medians over the rounds of (the other way's seconds / ours).
    ratios: Vec<(Way, f64)>,
    /// Our time relative to the theoretical minimum, max(download, CPU seconds / cores).
    of_floor: f64,
    /// The share of staging, checks and swap in our time.
    safety: f64,
}

impl RestoreRow {
    fn is_again(&self, other: &RestoreRow) -> bool {
        let key = |r: &RestoreRow| (r.dataset.clone(), r.section(), r.link(), r.scale.to_bits());
        key(self) == key(other)
    }

    /// The major version unless it is the machine's own, and the target.
    fn section(&self) -> (String, String) {
        let major = self.postgres.split('.').next().unwrap_or_default();
        (major.to_owned(), self.target.clone())
    }

    fn link(&self) -> LinkLimits {
        LinkLimits {
            rate_mb_s: self.rate_mb_s,
            stream_rate_mb_s: self.stream_rate_mb_s,
        }
    }

    fn ratio(&self, way: Way) -> Option<f64> {
        self.ratios
            .iter()
            .find(|(w, _)| *w == way)
            .map(|(_, ratio)| *ratio)
    }
}

/// One restore of one large table: its memory must not depend on the size.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Memory {
    table_data_bytes: u64,
    measured: MeasuredCost,
}

/// All results of this machine.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
struct RestoreResults {
    machine: String,
    scale: f64,
    rows: Vec<RestoreRow>,
    memory: Vec<Memory>,
}

impl RestoreResults {
    /// Earlier results, if they are of the same machine and versions.
    fn kept(machine: String, scale: f64) -> Self {
        let new = RestoreResults {
            machine,
            scale,
            ..RestoreResults::default()
        };
        let kept = kept(new.file());
        let kept = kept.map(|json| {
            serde_json::from_value::<RestoreResults>(json).expect("results of this bench")
        });
        match kept.filter(|k| k.machine == new.machine) {
            Some(kept) => RestoreResults { scale, ..kept },
            None => new,
        }
    }

    fn file(&self) -> &'static str {
        if self.scale < 1.0 {
            "restore-small.json"
        } else {
            "restore.json"
        }
    }

    fn add(&mut self, row: RestoreRow) {
        self.rows.retain(|r| !r.is_again(&row));
        self.rows.push(row);
        self.write();
    }

    fn remember(&mut self, memory: Memory) {
        self.memory
            .retain(|m| m.table_data_bytes != memory.table_data_bytes);
        self.memory.push(memory);
        self.memory.sort_by_key(|m| m.table_data_bytes);
        self.write();
    }

    fn write(&mut self) {
        let place = |name: &str| ALL.iter().position(|d| d.name == name);
        self.rows
            .sort_by_key(|r| (r.section(), place(&r.dataset), r.link()));
        keep(self.file(), &format!("{:#}\n", serde_json::json!(self)));
        renew(PAGE, self.scale, &self.text());
    }
}

const PAGE: &str = "docs/speed.md";
/// Selects the memory measurement in `BENCH_DATASETS`.
const MEMORY: &str = "memory";

const TARGETS: [&str; 2] = ["durable", "throwaway"];

struct RestoreBench {
    /// Of the machine's own PostgreSQL.
    bindir: PathBuf,
    /// Whose `pg_dump` makes the dumps.
    source: PathBuf,
    scratch: PathBuf,
    cores: usize,
    scale: f64,
    pairs: usize,
    peers: usize,
}

fn main() {
    let Some(stand) = Stand::new() else { return };
    let rates = env_or("BENCH_RATES", "0,50,20");
    let rates: Vec<u64> = rates
        .split(',')
        .map(|r| r.parse().expect("BENCH_RATES are numbers"))
        .collect();
    let stream_rate_mb_s = env_or("BENCH_STREAM_RATE", "0")
        .parse()
        .expect("BENCH_STREAM_RATE is a number");
    let wanted = env_or("BENCH_DATASETS", "");
    let targets = selected("BENCH_TARGETS", &TARGETS);
    let versions = wanted_versions(&stand.bindir);
    let scratch = PathBuf::from(env_or("BENCH_FOLDER", &stand.scratch.display().to_string()));
    std::fs::create_dir_all(&scratch).expect("failed to create the folder for the dumps");
    open_to_all(&scratch);
    let (scale, pairs, cores) = (stand.scale, stand.pairs, stand.cores);
    let peers = env_or("BENCH_PEERS", &pairs.to_string())
        .parse()
        .expect("BENCH_PEERS is a number");
    let bench = RestoreBench {
        bindir: stand.bindir.clone(),
        source: oldest(&versions, &stand.bindir),
        scratch,
        cores,
        scale,
        pairs,
        peers,
    };
    println!(
        "{}\nbaseline: download, CRC32C, pg_restore -j{cores} into a new database",
        machine(&bench.bindir, bench.cores)
    );
    let mut results = RestoreResults::kept(machine(&bench.bindir, bench.cores), scale);
    let is_wanted = |name: &str| wanted.is_empty() || wanted.split(',').any(|w| w == name);
    for dataset in ALL.iter().filter(|d| is_wanted(d.name)) {
        let dump = dataset.dump(&bench.source, &bench.scratch, scale);
        for (postgres, target) in versions
            .iter()
            .flat_map(|postgres| targets.iter().map(move |target| (postgres, *target)))
        {
            for (i, rate_mb_s) in rates.iter().copied().enumerate() {
                let link = LinkLimits {
                    rate_mb_s,
                    stream_rate_mb_s,
                };
                let row = bench.compare((dataset, &dump), (postgres, target), link, i == 0);
                results.add(row);
            }
        }
    }
    if is_wanted(MEMORY) && versions.iter().any(|v| v.is_own) {
        results.remember(bench.memory());
    }
    // Of the earlier results that are kept, those at this scale, of what was asked for.
    results
        .rows
        .retain(|r| r.scale == scale && is_wanted(&r.dataset));
    println!("\n{}", results.text());
}

impl RestoreBench {
    /// `with_peers`: all ways, otherwise only those that are compared.
    fn compare(
        &self,
        (dataset, dump): (&Dataset, &Path),
        (postgres, target): (&Postgres, &str),
        link: LinkLimits,
        with_peers: bool,
    ) -> RestoreRow {
        let server = postgres.target(target == "durable", "");
        let served = serve_limited(&self.scratch, link.rate_mb_s, link.stream_rate_mb_s);
        let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
        let url = format!(
            "http://{}/storage/v1/b/bench/o/{object}?alt=media",
            served.host
        );
        let mut ways = vec![Way::Ours, Way::Baseline];
        let are_streams_limited = link.stream_rate_mb_s > 0;
        if with_peers || are_streams_limited {
            ways.push(Way::Sliced);
        }
        if with_peers {
            ways.extend([Way::LocalFile, Way::StandardInput]);
        }
        // The first restore creates the files of the WAL.
        fresh(&server);
        self.restore_theirs(Way::LocalFile, dataset.form, &server, &url, dump);
        let compared = 2 + usize::from(are_streams_limited);
        let mut safety = vec![];
        let mut runs: Vec<(Way, Vec<MeasuredCost>)> =
            ways.into_iter().map(|w| (w, vec![])).collect();
        for round in 0..self.pairs {
            // The ways take turns in going first. Those that are compared come before the others.
            let n = if round < self.peers {
                runs.len()
            } else {
                compared
            };
            for i in 0..n {
                let (way, measured) = &mut runs[(round + i) % n];
                fresh(&server);
                measured.push(match way {
                    Way::Ours => {
                        let ours = restore_ours(&server, &served.host, object, &[]);
                        safety.push(ours.safety());
                        ours.measured
                    }
                    way => self.restore_theirs(*way, dataset.form, &server, &url, dump),
                });
            }
            let all: Vec<String> = runs
                .iter()
                .filter_map(|(w, m)| Some(format!("{w:?} {:.2} s", m.get(round)?.seconds)))
                .collect();
            println!(
                "{} on {target} {}, MB/s: {link}, round {}: {}",
                dataset.name,
                postgres.version,
                round + 1,
                all.join(", ")
            );
        }
        let object_bytes = std::fs::metadata(dump).expect("the dump").len();
        let ours = runs[0].1.clone();
        let ratio = |theirs: &[MeasuredCost]| {
            median(
                ours.iter()
                    .zip(theirs)
                    .map(|(o, t)| t.seconds / o.seconds)
                    .collect(),
            )
        };
        let others = runs[1..].iter().filter(|(_, m)| !m.is_empty());
        let ratios = others.map(|(w, m)| (*w, ratio(m))).collect();
        let download = if link.rate_mb_s == 0 {
            0.0
        } else {
            object_bytes as f64 / (link.rate_mb_s as f64 * MB)
        };
        let floor = |m: &MeasuredCost| {
            download.max((m.client_cpu + m.server_cpu) / self.cores as f64) / m.seconds
        };
        let of_floor = median(ours.iter().map(floor).collect());
        RestoreRow {
            dataset: dataset.name.to_owned(),
            target: target.to_owned(),
            postgres: if postgres.is_own {
                String::new()
            } else {
                postgres.version.clone()
            },
            scale: self.scale,
            pairs: self.pairs,
            object_bytes,
            rate_mb_s: link.rate_mb_s,
            stream_rate_mb_s: link.stream_rate_mb_s,
            runs,
            ratios,
            of_floor,
            safety: median(safety),
        }
    }

    fn restore_theirs(
        &self,
        way: Way,
        form: Form,
        server: &Sandbox,
        url: &str,
        dump: &Path,
    ) -> MeasuredCost {
        let downloaded = self.scratch.join("downloaded");
        // A shell command as a user would write it; `$0` is the file, `$1` the URL.
        let unpack = match form {
            Form::Custom | Form::Piped => None,
            Form::PipedZstd => Some("zstd -dc"),
            Form::PlainGzip => Some("gzip -dc"),
        };
        let into = match form {
            Form::PlainGzip => "psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d restored".to_owned(),
            _ if way == Way::StandardInput => "pg_restore -d restored".to_owned(),
            _ => format!("pg_restore -d restored -j{}", self.cores),
        };
        let from = match (way, form, unpack) {
            (Way::StandardInput, _, None) => format!("curl -sf \"$1\" | {into}"),
            (Way::StandardInput, _, Some(unpack)) => format!("curl -sf \"$1\" | {unpack} | {into}"),
            (_, Form::PlainGzip, Some(unpack)) => format!("{unpack} \"$0\" | {into}"),
            (_, _, Some(unpack)) => {
                format!("{unpack} \"$0\" > \"$0.unpacked\" && {into} \"$0.unpacked\"")
            }
            (_, _, None) => format!("{into} \"$0\""),
        };
        let line = format!("set -o pipefail; {CREATE} && {from}");
        let measured = measure(server, || {
            let (file, mut disk) = match way {
                Way::Baseline => (downloaded.as_path(), download(url, &downloaded)),
                Way::Sliced => (downloaded.as_path(), download_sliced(url, &downloaded)),
                _ => (dump, 0),
            };
            let path = format!(
                "{}:{}",
                server.bindir().display(),
                env_or("PATH", "/usr/bin:/bin")
            );
            let mut command = Command::new("bash");
            command
                .env("PATH", path)
                .env("PGHOST", server.host())
                .env("PGUSER", "postgres");
            command
                .args(["-c", &line])
                .arg(file)
                .arg(url)
                .stdin(Stdio::null());
            let (memory, _) = watch(command.spawn().expect("a shell"));
            let unpacked = PathBuf::from(format!("{}.unpacked", file.display()));
            if let Ok(size) = std::fs::metadata(&unpacked).map(|m| m.len()) {
                disk += size;
                std::fs::remove_file(&unpacked).expect("what was unpacked");
            }
            (memory, disk)
        });
        let _ = std::fs::remove_file(&downloaded);
        measured
    }

    /// Measures a dump with 1 GB of table data, at a scale of 1.
    fn memory(&self) -> Memory {
        let sql = "CREATE TABLE big (id bigint, a text, b text); INSERT INTO big SELECT g, repeat(md5(g::text), 8), md5((g * 3)::text) FROM generate_series(1, :rows) g;";
        let rows = (3_350_000.0 * self.scale) as u64;
        let dump = make_dump(
            &self.bindir,
            &self.scratch,
            &format!("big-{rows}"),
            sql,
            rows,
        );
        let server = Sandbox::start(&self.bindir, &std::env::temp_dir(), false, "")
            .expect("failed to start the target cluster");
        let served = serve(&self.scratch, 0);
        let object = dump.file_name().and_then(|n| n.to_str()).expect("a name");
        let measured = restore_ours(&server, &served.host, object, &[]).measured;
        let size = query(
            &server,
            "restored",
            "SELECT sum(octet_length(big::text)) FROM big",
        );
        Memory {
            table_data_bytes: size.parse().expect("a number"),
            measured,
        }
    }
}

/// Downloads and checks concurrently: the fastest that a user could do.
fn download(url: &str, file: &Path) -> u64 {
    use std::io::Write;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("failed to start a runtime");
    runtime.block_on(async {
        let mut answer = reqwest::get(url).await.expect("the object");
        assert!(answer.status().is_success());
        let hash = header(&answer, "x-goog-hash");
        let mut out = std::io::BufWriter::with_capacity(
            1 << 20,
            std::fs::File::create(file).expect("a file"),
        );
        let (mut size, mut crc) = (0, 0);
        while let Some(chunk) = answer.chunk().await.expect("its bytes") {
            crc = crc32c::crc32c_append(crc, &chunk);
            out.write_all(&chunk).expect("failed to write the download");
            size += chunk.len() as u64;
        }
        out.flush().expect("failed to write the download");
        check_hash(&hash, crc);
        let_all_read(file);
        size
    })
}

/// How many streams download one object in slices.
const SLICES: u64 = 8;

/// The same by several streams, each with a slice of the object, whose checksums are combined.
fn download_sliced(url: &str, file: &Path) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("failed to start a runtime");
    let out = Arc::new(std::fs::File::create(file).expect("a file"));
    runtime.block_on(async {
        let client = reqwest::Client::new();
        let first = slice(&client, url, (0, 0)).await;
        let (size, hash) = (
            header(&first, "x-goog-stored-content-length")
                .parse::<u64>()
                .expect("a size"),
            header(&first, "x-goog-hash"),
        );
        drop(first);
        let length = size.div_ceil(SLICES).max(1);
        let begins = (0..SLICES)
            .map(|i| i * length)
            .filter(|begin| *begin < size);
        let slices: Vec<_> = begins
            .map(|begin| {
                let range = (begin, size.min(begin + length) - 1);
                tokio::spawn(write_slice(
                    client.clone(),
                    url.to_owned(),
                    range,
                    out.clone(),
                ))
            })
            .collect();
        let mut crc = 0;
        for slice in slices {
            let (of_slice, length) = slice.await.expect("a slice");
            crc = crc32c::crc32c_combine(crc, of_slice, length);
        }
        check_hash(&hash, crc);
        let_all_read(file);
        size
    })
}

fn let_all_read(file: &Path) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file, mode).expect("permissions");
}

/// Requests the bytes from the first to the last one.
async fn slice(
    client: &reqwest::Client,
    url: &str,
    (first, last): (u64, u64),
) -> reqwest::Response {
    let answer = client
        .get(url)
        .header("range", format!("bytes={first}-{last}"))
        .send()
        .await
        .expect("the object");
    assert_eq!(answer.status().as_u16(), 206);
    answer
}

/// Writes a slice to its place; returns its CRC32C and length.
async fn write_slice(
    client: reqwest::Client,
    url: String,
    range: (u64, u64),
    out: Arc<std::fs::File>,
) -> (u32, usize) {
    use std::os::unix::fs::FileExt;
    let mut answer = slice(&client, &url, range).await;
    let (mut crc, mut written) = (0, 0);
    while let Some(chunk) = answer.chunk().await.expect("its bytes") {
        crc = crc32c::crc32c_append(crc, &chunk);
        out.write_all_at(&chunk, range.0 + written)
            .expect("failed to write the download");
        written += chunk.len() as u64;
    }
    (crc, written as usize)
}

fn header(answer: &reqwest::Response, name: &str) -> String {
    let value = answer.headers().get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn check_hash(hash: &str, crc: u32) {
    let crc = pgrestored::backup::encode_crc32c(pgdump_archive::Crc32c(crc));
    assert!(
        hash.contains(&crc),
        "{hash}: the CRC32C of the download is wrong"
    );
}

impl RestoreResults {
    fn text(&self) -> String {
        let mut out = format!("{}.\n\n", self.machine);
        let mut sections: Vec<(String, String)> =
            self.rows.iter().map(RestoreRow::section).collect();
        sections.dedup();
        for section in sections {
            let rows: Vec<&RestoreRow> = self
                .rows
                .iter()
                .filter(|r| r.section() == section)
                .collect();
            let (_, target) = &section;
            let _ = match rows[0].postgres.as_str() {
                "" => writeln!(out, "### {target}\n"),
                version => writeln!(out, "### PostgreSQL {version}, {target}\n"),
            };
            out.push_str("| dataset | MB | MB/s | pairs | ours s | baseline s | ratio | sliced | file here | stdin | of minimum | safety | CPU s ours | CPU s baseline | MiB ours | MiB baseline | disk MB baseline |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
            rows.into_iter().for_each(|r| out.push_str(&line(r)));
            out.push('\n');
        }
        for m in &self.memory {
            let _ = writeln!(
                out,
                "Memory: {:.0} MB of table data, {:.0} MiB at the peak, {} bytes on disk, {:.0} s.",
                m.table_data_bytes as f64 / MB,
                m.measured.peak_memory_bytes as f64 / 1048576.0,
                m.measured.peak_disk_bytes,
                m.measured.seconds
            );
        }
        out
    }
}

fn line(r: &RestoreRow) -> String {
    let of = |way: Way, f: fn(&MeasuredCost) -> f64| {
        let runs = r.runs.iter().find(|(w, _)| *w == way);
        runs.map_or(f64::NAN, |(_, m)| median(m.iter().map(f).collect()))
    };
    let ratio = |way: Way| {
        r.ratio(way)
            .map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
    };
    let scale = if r.scale == 1.0 {
        String::new()
    } else {
        format!(" × {}", r.scale)
    };
    let (o, b) = (Way::Ours, Way::Baseline);
    format!(
        "| {}{scale} | {:.0} | {} | {} | {:.2} | {:.2} | **{}** | {} | {} | {} | {:.0} % | {:.1} % | {:.1} + {:.1} | {:.1} + {:.1} | {:.0} | {:.0} | {:.0} |\n",
        r.dataset,
        r.object_bytes as f64 / MB,
        r.link(),
        r.pairs,
        of(o, |m| m.seconds),
        of(b, |m| m.seconds),
        ratio(b),
        ratio(Way::Sliced),
        ratio(Way::LocalFile),
        ratio(Way::StandardInput),
        r.of_floor * 100.0,
        r.safety * 100.0,
        of(o, |m| m.client_cpu),
        of(o, |m| m.server_cpu),
        of(b, |m| m.client_cpu),
        of(b, |m| m.server_cpu),
        of(o, |m| m.peak_memory_bytes as f64 / 1048576.0),
        of(b, |m| m.peak_memory_bytes as f64 / 1048576.0),
        of(b, |m| m.peak_disk_bytes as f64 / MB),
    )
}

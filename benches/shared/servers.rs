//! The servers into which backups are restored: which versions of PostgreSQL, and with which settings.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrestored::sandbox::{Sandbox, found};

use super::env_or;

/// Selects the versions in `BENCH_POSTGRES` that are not the machine's own.
const OTHERS: &str = "others";
const VERSIONS: [u32; 4] = [15, 16, 17, 18];
/// What `initdb` writes with segments of the usual size. Template clusters have small ones, for which it writes a quarter of it.
const DEFAULTS: &str = "-c max_wal_size=1GB -c min_wal_size=80MB";

/// An installed PostgreSQL: a server, and client tools of the same or a newer version.
#[derive(Debug, Clone)]
pub struct Postgres {
    pub major: u32,
    /// Such as `15.18`.
    pub version: String,
    pub bindir: PathBuf,
    /// The one that is used if nothing else is asked for.
    pub is_own: bool,
}

impl Postgres {
    /// # Panics
    /// There is no server in this folder.
    pub fn of(bindir: &Path) -> Self {
        let said = Command::new(bindir.join("postgres"))
            .arg("--version")
            .output()
            .expect("a version");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said.split_whitespace().nth(2).expect("a version");
        let major = version.split(|c: char| !c.is_ascii_digit()).next();
        Postgres {
            major: major.and_then(|m| m.parse().ok()).expect("a number"),
            version: version.to_owned(),
            bindir: bindir.to_owned(),
            is_own: false,
        }
    }

    /// Starts a target: durable with PostgreSQL's defaults, or throwaway.
    pub fn target(&self, is_durable: bool, more: &str) -> Sandbox {
        let defaults = if is_durable { DEFAULTS } else { "" };
        // `pg_restore` and a restore of partitions lock very many tables in one transaction.
        let options = format!("-c max_locks_per_transaction=1024 {defaults} {more}");
        Sandbox::start(&self.bindir, &std::env::temp_dir(), is_durable, &options)
            .expect("failed to start the target cluster")
    }
}

/// The versions of `BENCH_POSTGRES` (such as `15,16`, or `others`), by default the machine's own. What is not installed is left out.
///
/// # Panics
/// None of them is installed.
pub fn wanted(own: &Path) -> Vec<Postgres> {
    let mut own = Postgres::of(own);
    own.is_own = true;
    let list = env_or("BENCH_POSTGRES", &own.major.to_string());
    let majors: Vec<u32> = match list.as_str() {
        OTHERS => VERSIONS.into_iter().filter(|v| *v != own.major).collect(),
        list => list
            .split(',')
            .map(|v| v.trim().parse().expect("BENCH_POSTGRES are major versions"))
            .collect(),
    };
    let installed = majors.into_iter().filter_map(|major| {
        let place = if major == own.major {
            Some(own.clone())
        } else {
            place_of(major)
        };
        if place.is_none() {
            println!("SKIPPED: PostgreSQL {major} is not installed: run make setup");
        }
        place
    });
    let all: Vec<Postgres> = installed.collect();
    assert!(!all.is_empty(), "BENCH_POSTGRES: none of them is installed");
    all
}

/// The distribution's, or the one that `make setup` installed.
fn place_of(major: u32) -> Option<Postgres> {
    let of_distribution = found(&[]).into_iter().find(|b| b.major == major);
    let bindir = of_distribution.map(|b| b.dir).or_else(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tools.sh");
        let said = Command::new("/bin/bash")
            .arg(script)
            .arg(format!("pg{major}"))
            .stderr(std::process::Stdio::null())
            .output()
            .ok()?;
        let place = String::from_utf8(said.stdout).ok()?;
        said.status
            .success()
            .then(|| Path::new(place.trim_end()).join("bin"))
    })?;
    Some(Postgres::of(&bindir))
}

/// The oldest of these and the machine's own, whose dumps all of them can read.
pub fn oldest(all: &[Postgres], own: &Path) -> PathBuf {
    let own = Postgres::of(own);
    let oldest = all.iter().chain([&own]).min_by_key(|p| p.major);
    oldest.map_or(own.bindir.clone(), |p| p.bindir.clone())
}

/// Says so if the clusters are in memory, where a durable one is as fast as any other.
pub fn warn_of_memory() {
    let folder = std::env::temp_dir();
    let kind = Command::new("stat")
        .args(["--file-system", "--format=%T"])
        .arg(&folder)
        .output();
    if kind.is_ok_and(|k| k.stdout.starts_with(b"tmpfs")) {
        println!(
            "WARNING: {} is in memory, so figures of durable servers mean nothing: set TMPDIR to a folder on a disk",
            folder.display()
        );
    }
}

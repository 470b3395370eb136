//! Backups that were reported as broken by a restore: `tests/faults/NN_*.sh` creates each with PostgreSQL's own
//! tools, restores it with them and with pgrestored, and prints both; `NN_*.out` is the expected output.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Cluster, assert_same};

/// Upper bound in seconds for each of these restores.
const LONGEST: f64 = 300.0;
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults");

/// Durations and the scratch directory differ between runs, and what a sandbox is isolated from between machines.
/// A duration above the maximum is kept, so that it fails the comparison.
fn normalised(printed: &str, scratch: &Path) -> String {
    let mut out = String::new();
    let printed = printed
        .replace(&scratch.display().to_string(), "OUT")
        // Whether they do depends on the machine, too.
        .replace(" (data and indexes overlap)", "");
    for line in printed
        .lines()
        .filter(|l| !l.starts_with("  restored into a sandbox"))
        .filter(|l| !l.starts_with("  tried in a sandbox"))
    {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for i in 1..words.len() {
            let is_duration = matches!(words[i].trim_end_matches([',', ')']), "s" | "ms");
            if is_duration && words[i - 1].parse::<f64>().is_ok_and(|n| n < LONGEST) {
                words[i - 1] = "N".to_owned();
            }
        }
        out.push_str(words.join(" ").trim_end());
        out.push('\n');
    }
    out
}

/// A cluster that runs `pg_cron`, if it is installed; in CI it must be.
fn cluster() -> Option<Cluster> {
    let bindir = pgrestored::sandbox::find_bindir(&[]).unwrap();
    let library = Command::new(bindir.join("pg_config"))
        .arg("--pkglibdir")
        .output()
        .unwrap();
    let library = String::from_utf8(library.stdout).unwrap();
    if !Path::new(library.trim()).join("pg_cron.so").exists() {
        crate::support::tools::skip("pg_cron");
        return None;
    }
    let options = "-c shared_preload_libraries=pg_cron -c cron.database_name=cronsrc";
    let cluster = Cluster::start_with(options);
    // A dump in an encoding that cannot express the name of a role fails.
    cluster.psql("postgres", "DROP ROLE \"Röle \"\"C\"\"\"");
    Some(cluster)
}

/// Runs one script; returns its standard output.
fn run(script: &Path, cluster: &Cluster, scratch: &Path) -> String {
    let path = format!(
        "{}:{}",
        cluster.sandbox.bindir().display(),
        std::env::var("PATH").unwrap()
    );
    let mut bash = Command::new("bash");
    bash.arg(script)
        .env("PGHOST", cluster.sandbox.host())
        .env("PGPORT", "5432")
        .env("PGUSER", "postgres");
    bash.env("PR", env!("CARGO_BIN_EXE_pgrestored"))
        .env("OUT", scratch)
        .env("PATH", path);
    // An error for lack of memory says how much there is.
    bash.env("RESTORE_MEMORY_MIB", "512")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null());
    let done = bash.output().unwrap();
    assert!(
        !done.stdout.is_empty(),
        "{}: {}",
        script.display(),
        String::from_utf8_lossy(&done.stderr)
    );
    normalised(&String::from_utf8(done.stdout).unwrap(), scratch)
}

#[test]
fn every_reported_backup_is_handled_as_expected() {
    let Some(cluster) = cluster() else { return };
    let scratch = cluster.scratch("faults");
    std::fs::create_dir(&scratch).unwrap();
    let mut scripts: Vec<_> = std::fs::read_dir(SCRIPTS)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    scripts.retain(|p| p.extension().is_some_and(|e| e == "sh") && !p.ends_with("env.sh"));
    scripts.sort();
    assert!(scripts.len() >= 17, "{scripts:?}");
    for script in scripts {
        let (printed, expected) = (
            run(&script, &cluster, &scratch),
            script.with_extension("out"),
        );
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&expected, &printed).unwrap();
        }
        let wanted = std::fs::read_to_string(&expected);
        let wanted = wanted.unwrap_or_else(|e| panic!("{}: {e}", expected.display()));
        assert_same(&printed, &wanted, &script.display().to_string());
    }
}

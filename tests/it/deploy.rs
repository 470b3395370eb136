//! What is deployed beside the program: alert rules, by their own tools.

use std::path::Path;
use std::process::Command;

use pgrestored::metrics::RestoreMetricsManager;

fn prometheus() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus")
}

/// `None`, loudly, where it is not installed. In CI it must be there.
fn promtool(args: &[&str]) -> Option<std::process::Output> {
    match Command::new("promtool").args(args).current_dir(prometheus()).output() {
        Ok(out) => Some(out),
        Err(e) => {
            assert!(std::env::var("CI").is_err(), "promtool is missing: run make setup ({e})");
            eprintln!("SKIPPED: promtool is not installed: run make setup");
            None
        }
    }
}

#[test]
fn alerts_fire_and_are_silent_as_their_tests_say() {
    let Some(out) = promtool(&["test", "rules", "proof.test.yml"]) else { return };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // A rule that compares with another time fails: the tests can.
    let scratch = tempfile::tempdir().unwrap();
    for file in ["proof.alerts.yml", "proof.test.yml"] {
        let text = std::fs::read_to_string(prometheus().join(file)).unwrap();
        std::fs::write(scratch.path().join(file), text.replace("2 * 86400", "9 * 86400")).unwrap();
    }
    let mut mutant = Command::new("promtool");
    mutant.args(["test", "rules", "proof.test.yml"]).current_dir(scratch.path());
    assert!(!mutant.output().unwrap().status.success());
}

#[test]
fn alerts_name_only_real_series() {
    let m = RestoreMetricsManager::new(1.0);
    m.record_proof("orders", 0.0);
    let exposition = m.exposition();
    let rules = std::fs::read_to_string(prometheus().join("proof.alerts.yml")).unwrap();
    let words = rules.split(|c: char| !c.is_alphanumeric() && c != '_');
    let series: Vec<&str> = words.filter(|w| w.starts_with("restore_")).collect();
    assert!(!series.is_empty());
    for name in series {
        assert!(exposition.contains(&format!("# TYPE {name} ")), "{name}");
    }
}

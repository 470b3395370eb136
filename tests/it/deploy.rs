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

const FILES: [(&str, &str); 3] = [
    ("proof.alerts.yml", "proof.test.yml"),
    ("restore.rules.yml", "restore.test.yml"),
    ("restore.alerts.yml", "restore.test.yml"),
];

#[test]
fn alerts_fire_and_are_silent_as_their_tests_say() {
    for test in ["proof.test.yml", "restore.test.yml"] {
        let Some(out) = promtool(&["test", "rules", test]) else { return };
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// One wrong word in a rule, and a test of the rules fails.
#[test]
fn every_mutant_of_a_rule_is_found() {
    const SWAPS: [(&str, &str); 20] = [
        ("2 * 86400", "9 * 86400"),
        ("for: 15m", "for: 12h"),
        ("max by", "min by"),
        ("min by", "max by"),
        ("sum by", "max by"),
        ("[1h]", "[5m]"),
        (" > ", " < "),
        (" and on", " unless on"),
        (" or\n", " unless\n"),
        ("job, namespace, instance", "job, instance"),
        ("increase(", "last_over_time("),
        ("last_over_time(", "increase("),
        ("- 3600", "- 7200"),
        (" - sum", " + sum"),
        ("for: 1m", "for: 0s"),
        ("for: 5m", "for: 0s"),
        (": critical", ": warning"),
        (": warning", ": info"),
        (r"(\\.0)?", ""),
        (r#""failure""#, r#""inconclusive""#),
    ];
    if promtool(&["--version"]).is_none() {
        return;
    }
    let (mut made, mut survivors) = (0, Vec::new());
    for (file, test) in FILES {
        let text = std::fs::read_to_string(prometheus().join(file)).unwrap();
        for (from, to) in SWAPS {
            for (at, _) in text.match_indices(from) {
                let line = text[..at].rsplit('\n').next().unwrap();
                if line.trim_start().starts_with('#') {
                    continue;
                }
                made += 1;
                let mutant = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
                if passes(file, &mutant, test) {
                    survivors.push(format!("{file}:{}: {from} → {to}", text[..at].lines().count()));
                }
            }
        }
    }
    assert!(made > 60, "{made} mutants");
    assert!(survivors.is_empty(), "{} of {made} survive: {survivors:#?}", survivors.len());
}

fn passes(file: &str, mutant: &str, test: &str) -> bool {
    let scratch = tempfile::tempdir().unwrap();
    for name in FILES.iter().flat_map(|(rules, test)| [rules, test]) {
        std::fs::copy(prometheus().join(name), scratch.path().join(name)).unwrap();
    }
    std::fs::write(scratch.path().join(file), mutant).unwrap();
    let mut promtool = Command::new("promtool");
    promtool.args(["test", "rules", test]).current_dir(scratch.path());
    promtool.output().unwrap().status.success()
}

/// The names and severities of the reference.
#[test]
fn the_five_alerts_are_there() {
    let rules = std::fs::read_to_string(prometheus().join("restore.alerts.yml")).unwrap();
    for (name, severity) in [
        ("RestoreFailure", "critical"),
        ("RestoreVerificationFailure", "critical"),
        ("LongRunningRestore", "warning"),
        ("MultipleRestoresInProgress", "warning"),
        ("HighRestoreFailureRate", "warning"),
    ] {
        let (_, rule) = rules.split_once(&format!("- alert: {name}\n")).unwrap();
        assert_eq!(rule.split("severity: ").nth(1).unwrap().split('\n').next(), Some(severity), "{name}");
    }
}

#[test]
fn rules_name_only_real_series() {
    let m = RestoreMetricsManager::new(1.0);
    m.record_proof("orders", 0.0);
    m.record_restore_completion(1.0, 1, true, None);
    let exposition = m.exposition();
    for (file, _) in FILES {
        let rules = std::fs::read_to_string(prometheus().join(file)).unwrap();
        let words = rules.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let series: Vec<&str> =
            words.filter(|w| w.starts_with("restore_") || w.starts_with("process_")).collect();
        assert!(!series.is_empty(), "{file}");
        for name in series {
            let name = name.trim_end_matches("_bucket").trim_end_matches("_count");
            assert!(exposition.contains(&format!("# TYPE {name} ")), "{file}: {name}");
        }
    }
}

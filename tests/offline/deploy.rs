//! Alert rules and runbooks, checked with Prometheus' own tools.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pgrestored::error::FailureReason;
use pgrestored::metrics::RestoreMetricsManager;

use crate::tools;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn text_of(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn prometheus() -> PathBuf {
    root().join("deploy/prometheus")
}

/// The output of a program; `None` if it is not installed, and the test is skipped.
pub fn installed(command: &mut Command) -> Option<Output> {
    let out = command.output().ok();
    if out.is_none() {
        tools::skip(&command.get_program().display().to_string());
    }
    out
}

fn promtool(args: &[&str]) -> Option<Output> {
    installed(
        Command::new("promtool")
            .args(args)
            .current_dir(prometheus()),
    )
}

/// Name and severity of every alert.
pub fn alerts() -> Vec<(String, String)> {
    let word = |text: &str| text.split('\n').next().unwrap().to_owned();
    let rules = |(file, _): &(&str, &str)| text_of(&format!("deploy/prometheus/{file}"));
    let in_file = |text: String| {
        let alerts = text.split("- alert: ").skip(1);
        alerts
            .map(|a| (word(a), word(a.split("severity: ").nth(1).unwrap())))
            .collect::<Vec<_>>()
    };
    FILES.iter().map(rules).flat_map(in_file).collect()
}

/// Names of our series and of the recorded ones.
pub fn series() -> BTreeSet<String> {
    let exposition = RestoreMetricsManager::sample();
    let ours = exposition
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next());
    let rules: Vec<String> = FILES
        .iter()
        .map(|(file, _)| text_of(&format!("deploy/prometheus/{file}")))
        .collect();
    let recorded = rules
        .iter()
        .flat_map(|text| text.split("- record: ").skip(1));
    ours.chain(recorded.map(|r| r.split('\n').next().unwrap()))
        .map(str::to_owned)
        .collect()
}

/// The series that a text names, ours and recorded ones; parts of histograms without their suffixes.
pub fn names_of_series(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    let is_series = |w: &&str| {
        ["restore_", "restore:", "process_"]
            .iter()
            .any(|p| w.starts_with(p))
            && FailureReason::ALL.iter().all(|r| r.as_str() != *w)
    };
    let whole = |w: &str| {
        let ends = ["_bucket", "_count", "_sum"];
        ends.iter()
            .find_map(|end| w.strip_suffix(end))
            .unwrap_or(w)
            .to_owned()
    };
    // Recorded series, such as `restore:dead_lettered:count`, keep their suffixes.
    words
        .filter(is_series)
        .map(|w| {
            if w.contains(':') {
                w.to_owned()
            } else {
                whole(w)
            }
        })
        .collect()
}

/// Files of rules, and the files that test them.
const FILES: [(&str, &str); 5] = [
    ("proof.alerts.yml", "proof.test.yml"),
    ("worker.alerts.yml", "worker.test.yml"),
    ("standing.alerts.yml", "standing.test.yml"),
    ("restore.rules.yml", "restore.test.yml"),
    ("restore.alerts.yml", "restore.test.yml"),
];

#[test]
fn the_tests_of_the_rules_pass() {
    for test in [
        "proof.test.yml",
        "worker.test.yml",
        "standing.test.yml",
        "restore.test.yml",
    ] {
        // One by one, as they find the mutants.
        for group in groups_of(&text_of(&format!("deploy/prometheus/{test}"))) {
            let folder = copy_of_rules();
            std::fs::write(folder.path().join(RULES_TEST), group).unwrap();
            let Some(out) = installed(&mut test_of_rules(folder.path())) else {
                return;
            };
            assert!(
                out.status.success(),
                "{test}: {}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
    }
    let Some(out) = promtool(&["check", "config", "prometheus.yml"]) else {
        return;
    };
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Of how many mutants `make test` checks one; `make soak` checks all of them.
const MUTANTS_PER_CHECK: usize = 24;

/// Mutates the rules, one change at a time; the tests of the rules must fail for each mutant.
fn every_mutant_is_found(file: &str, at_least: usize) {
    const SWAPS: [(&str, &str); 26] = [
        ("2 * 86400", "9 * 86400"),
        ("for: 15m", "for: 12h"),
        ("max by", "min by"),
        ("min by", "max by"),
        ("sum by", "max by"),
        ("[1h]", "[5m]"),
        ("[1d]", "[1h]"),
        ("[30m]", "[5m]"),
        (" > ", " < "),
        (" == 0", " >= 0"),
        (" and on", " unless on"),
        (" or\n", " unless\n"),
        ("job, namespace, instance", "job, instance"),
        ("increase(", "last_over_time("),
        ("last_over_time(", "increase("),
        ("- 3600", "- 7200"),
        ("- 86400", "- 172800"),
        ("7200", "9000"),
        (" - sum", " + sum"),
        ("for: 1m", "for: 0s"),
        ("for: 5m", "for: 0s"),
        ("for: 10m", "for: 0s"),
        (": critical", ": warning"),
        (": warning", ": info"),
        (r"(\\.0)?", ""),
        (r#""failure""#, r#""success""#),
    ];
    if promtool(&["--version"]).is_none() {
        return;
    }
    let is_full = std::env::var("CAMPAIGN").is_ok_and(|c| c == "full");
    let (mut mutants, mut survivors) = (0, Vec::new());
    let test = FILES
        .iter()
        .find(|(rules, _)| *rules == file)
        .map(|(_, test)| test)
        .unwrap();
    let tests = groups_of(&text_of(&format!("deploy/prometheus/{test}")));
    let text = text_of(&format!("deploy/prometheus/{file}"));
    for (from, to) in SWAPS {
        for (at, _) in text.match_indices(from) {
            let line = text[..at].rsplit('\n').next().unwrap();
            if line.trim_start().starts_with('#') {
                continue;
            }
            mutants += 1;
            if !is_full && mutants % MUTANTS_PER_CHECK != 0 {
                continue;
            }
            let mutant = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
            if passes(file, &mutant, &tests, rule_at(&text, at)) {
                survivors.push(format!(
                    "{file}:{}: {from} → {to}",
                    text[..at].lines().count()
                ));
            }
        }
    }
    assert!(mutants >= at_least, "only {mutants} mutants");
    assert!(
        survivors.is_empty(),
        "{} of {mutants} mutants survive: {survivors:#?}",
        survivors.len()
    );
}

#[test]
fn mutants_of_the_proof_alerts_are_found() {
    every_mutant_is_found("proof.alerts.yml", 15);
}

#[test]
fn mutants_of_the_worker_alerts_are_found() {
    every_mutant_is_found("worker.alerts.yml", 30);
}

#[test]
fn mutants_of_the_standing_alerts_are_found() {
    every_mutant_is_found("standing.alerts.yml", 12);
}

#[test]
fn mutants_of_the_recorded_rules_are_found() {
    every_mutant_is_found("restore.rules.yml", 30);
}

#[test]
fn mutants_of_the_restore_alerts_are_found() {
    every_mutant_is_found("restore.alerts.yml", 15);
}

/// Splits a test of rules into its groups, each a complete test; no group may use another's YAML anchors.
fn groups_of(test: &str) -> Vec<String> {
    const BEGIN: &str = "\n  - name: ";
    let (head, groups) = test.split_at(test.find(BEGIN).unwrap());
    groups
        .split(BEGIN)
        .skip(1)
        .map(|group| format!("{head}{BEGIN}{group}"))
        .collect()
}

/// The name of the rule at byte `at`.
fn rule_at(rules: &str, at: usize) -> &str {
    let name = |key: &str| rules[..at].rfind(key).map(|begin| begin + key.len());
    let begin = name("- alert: ").max(name("- record: ")).unwrap_or(0);
    rules[begin..].lines().next().unwrap()
}

/// A folder with a copy of the rules.
fn copy_of_rules() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (rules, _) in FILES {
        std::fs::copy(prometheus().join(rules), folder.path().join(rules)).unwrap();
    }
    folder
}

/// The file with a test of rules.
pub const RULES_TEST: &str = "test.yml";

/// Runs the test of rules in a folder.
pub fn test_of_rules(folder: &Path) -> Command {
    let mut promtool = Command::new("promtool");
    promtool
        .args(["test", "rules", RULES_TEST])
        .current_dir(folder);
    // Its database is 128 MiB of zeros, which take less time on a disk than in memory; and it needs no collector of garbage
    // for a second.
    promtool
        .env("TMPDIR", "/var/tmp")
        .envs([("GOGC", "off"), ("GOMEMLIMIT", "512MiB")]);
    promtool
}

/// Whether the mutant passes every group; groups that name the changed rule run first. Without a mutation all of them
/// pass: see [`the_tests_of_the_rules_pass`].
fn passes(file: &str, mutant: &str, groups: &[String], rule: &str) -> bool {
    let folder = copy_of_rules();
    std::fs::write(folder.path().join(file), mutant).unwrap();
    let (first, then): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.contains(rule));
    first.into_iter().chain(then).all(|group| {
        std::fs::write(folder.path().join(RULES_TEST), group).unwrap();
        let ran = test_of_rules(folder.path()).output().unwrap();
        ran.status.success()
    })
}

/// The documented alerts exist with their severities, and every alert has a runbook.
#[test]
fn documented_alerts_exist_and_have_runbooks() {
    let alerts = alerts();
    for (name, severity) in [
        ("RestoreFailure", "critical"),
        ("RestoreVerificationFailure", "critical"),
        ("LongRunningRestore", "warning"),
        ("MultipleRestoresInProgress", "warning"),
        ("HighRestoreFailureRate", "warning"),
    ] {
        assert!(
            alerts.contains(&(name.to_owned(), severity.to_owned())),
            "{name}"
        );
    }
    let runbooks = format!("{}/docs/runbooks", env!("CARGO_PKG_REPOSITORY"));
    let rules: String = FILES
        .iter()
        .map(|(file, _)| text_of(&format!("deploy/prometheus/{file}")))
        .collect();
    for (name, severity) in &alerts {
        assert!(
            rules.contains(&format!("runbook_url: {runbooks}/{name}.md\n")),
            "{name}"
        );
        let page = text_of(&format!("docs/runbooks/{name}.md"));
        assert!(
            page.starts_with(&format!("# {name}\n\n{severity} · ")),
            "{name}"
        );
        for part in ["## What it means", "## How to look", "## How to fix"] {
            assert!(page.contains(part), "{name}: {part}");
        }
    }
    let pages = std::fs::read_dir(root().join("docs/runbooks"))
        .unwrap()
        .count();
    assert_eq!(pages, alerts.len(), "a runbook without an alert");
}

#[test]
fn rules_and_runbooks_name_only_existing_series() {
    let known = series();
    let rules = FILES
        .iter()
        .map(|(file, _)| format!("deploy/prometheus/{file}"));
    let runbooks = alerts()
        .into_iter()
        .map(|(name, _)| format!("docs/runbooks/{name}.md"));
    for file in rules.chain(runbooks) {
        for name in names_of_series(&text_of(&file)) {
            assert!(known.contains(&name), "{file}: {name}");
        }
    }
}

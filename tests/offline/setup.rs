//! `make`: what setup says is missing, the summary after the tests, and what is built twice.

use std::process::{Command, Output};

use crate::deploy::{root, text_of};
use crate::tools;

fn script(path: &str) -> Command {
    let mut command = Command::new("/bin/bash");
    command.arg(root().join(path));
    command
}

fn said(out: Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Where no program is found.
#[test]
fn setup_says_at_once_what_is_missing_and_what_goes_untested() {
    let mut setup = script("scripts/setup.sh");
    let said = said(
        setup
            .arg("missing")
            .env("PATH", "/nowhere")
            .output()
            .unwrap(),
    );
    let packages = said.lines().find(|l| l.contains("packages are missing: "));
    for package in [
        "build-essential",
        "prometheus",
        "chromium",
        "python3-venv",
        "npm",
    ] {
        assert!(packages.unwrap().contains(package), "{package}: {said}");
    }
    for tool in ["kubectl", "terraform"] {
        let line = said
            .lines()
            .find(|l| l.contains(&format!("{tool} is missing")));
        assert!(line.unwrap().ends_with("goes untested"), "{said}");
    }
    let setup = text_of("scripts/setup.sh");
    assert!(setup.contains("Google's Pub/Sub emulator is missing"));
}

#[test]
fn the_summary_lists_skipped_tests() {
    let folder = tempfile::tempdir().unwrap();
    let summary = |tests: &str| {
        let report = folder.path().join("nextest/default");
        std::fs::create_dir_all(&report).unwrap();
        std::fs::write(report.join("junit.xml"), tests).unwrap();
        let mut slowest = script("scripts/slowest.sh");
        said(
            slowest
                .env("CARGO_TARGET_DIR", folder.path())
                .output()
                .unwrap(),
        )
    };
    let case = |name: &str, printed: &str| {
        format!(
            "<testcase name=\"{name}\" classname=\"pgrestored::cloud\" time=\"1.500\">\n<system-err>{printed}</system-err>\n</testcase>\n"
        )
    };
    let skipped = "x\nSKIPPED: Google&apos;s emulator is not installed: run make setup\ny";
    let whole = summary(&(case("a::fine", "x") + &case("b::lacking", skipped)));
    assert!(
        whole.contains("slowest of 2 tests, 3 seconds in total:"),
        "{whole}"
    );
    let line = "  b::lacking: Google's emulator is not installed: run make setup\n";
    assert!(whole.ends_with(line), "{whole}");
    assert_eq!(whole.matches("not installed").count(), 1, "{whole}");
    let whole = summary(&case("a::fine", "not SKIPPED: at all"));
    assert!(whole.ends_with("no test was skipped\n"), "{whole}");
    assert!(text_of(".config/nextest.toml").contains("junit.store-success-output = true"));
}

/// The tests need other features of the dependencies than the program alone.
#[test]
fn the_demo_and_the_tests_build_the_same_dependencies() {
    for file in ["Makefile", "scripts/screenshots.sh"] {
        let text = text_of(file);
        assert!(!text.contains("cargo run"), "{file}");
        for line in text.lines().filter(|l| l.contains("cargo build")) {
            assert!(line.contains("--test "), "{file}: {line}");
        }
    }
}

#[test]
fn a_recording_shows_every_line_in_thirty_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("demo.svg");
    let recorded = Command::new("python3")
        .arg(root().join("scripts/recording.py"))
        .arg(&picture)
        .args(["sh", "-c", "echo 'a <b> & c'; seq 500"])
        .output();
    let Ok(recorded) = recorded else {
        return tools::skip("python3");
    };
    said(recorded);
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(
        picture.contains(">$ make demo</tspan>")
            && picture.contains(">a &lt;b&gt; &amp; c</tspan>")
    );
    assert!(picture.contains(">500</tspan>"));
    let (_, after) = picture.split_once("animation:up ").unwrap();
    let seconds: f64 = after.split('s').next().unwrap().parse().unwrap();
    assert!((5.0..=30.0).contains(&seconds), "{seconds}");
}

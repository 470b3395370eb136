//! Addresses and versions of the project: one setting in Cargo.toml, and every other place agrees with it.

use std::path::Path;
use std::process::Command;

use crate::deploy::{root, text_of};

const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// The setting of this name in a Cargo.toml.
fn setting(cargo: &str, name: &str) -> String {
    let prefix = format!("{name} = \"");
    let mut lines = cargo.lines();
    let value = lines.find_map(|line| line.strip_prefix(&prefix)).unwrap();
    value.trim_end_matches('"').to_owned()
}

/// Every file below `path`, or `path` itself, and its text; binary files are left out.
fn texts(path: &Path) -> Vec<(String, String)> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        return entries.flat_map(|e| texts(&e.unwrap().path())).collect();
    }
    let text = std::fs::read_to_string(path).ok();
    text.map(|text| (path.display().to_string(), text))
        .into_iter()
        .collect()
}

#[test]
fn every_link_to_a_runbook_begins_with_the_repository() {
    let mut links = 0;
    for part in ["deploy", "docs", "src", "README.md", "SECURITY.md"] {
        for (file, text) in texts(&root().join(part)) {
            for (before, _) in text.match_indices("/docs/runbooks") {
                let start =
                    text[..before].rfind(|c: char| c.is_whitespace() || "\"'`(<".contains(c));
                let address = &text[start.map_or(0, |s| s + 1)..before];
                if address.starts_with("http") {
                    assert_eq!(address, REPOSITORY, "{file}");
                    links += 1;
                }
            }
        }
    }
    assert!(links > 20, "{links}");
    for part in [
        "crates/pgdump-archive",
        "crates/pgdump-mask",
        "crates/pgdump-restore",
    ] {
        let cargo = text_of(&format!("{part}/Cargo.toml"));
        assert!(cargo.contains("\nrepository.workspace = true\n"), "{part}");
    }
}

#[test]
fn the_security_policy_has_the_address_of_the_setting() {
    let address = setting(&text_of("Cargo.toml"), "security");
    let reporting = text_of("SECURITY.md");
    let (reporting, _) = reporting.split_once("## What is protected").unwrap();
    assert!(reporting.contains(&format!("to {address}. ")), "{address}");
}

/// Before anybody scrolls, README says which Rust is needed.
#[test]
fn readme_begins_with_the_oldest_rust() {
    let readme = text_of("README.md");
    let first_screen: Vec<&str> = readme.lines().take(15).collect();
    let version = format!(
        "[Rust](https://rustup.rs) {} or later",
        env!("CARGO_PKG_RUST_VERSION")
    );
    assert!(first_screen.join(" ").contains(&version), "{version}");
}

/// `scripts/repository.sh` in a copy of what it changes.
#[test]
fn one_command_changes_every_address() {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["-r", "Cargo.toml", "SECURITY.md", "deploy", "scripts"])
        .arg(folder.path())
        .current_dir(root())
        .status();
    assert!(copied.unwrap().success());
    let run = |args: &[&str]| {
        let mut script = Command::new(folder.path().join("scripts/repository.sh"));
        script.args(args).output().unwrap().status.code()
    };
    for wrong in ["", "git.example.org/dba", "https://git.example.org/dba/"] {
        assert_eq!(run(&[wrong]), Some(2), "{wrong}");
    }
    let (url, security) = ("https://git.example.org/dba/restore", "dba@example.org");
    assert_eq!(run(&[url, security]), Some(0));
    let cargo = std::fs::read_to_string(folder.path().join("Cargo.toml")).unwrap();
    assert_eq!(setting(&cargo, "repository"), url);
    assert_eq!(setting(&cargo, "security"), security);
    let old = setting(&text_of("Cargo.toml"), "security");
    let mut links = 0;
    for (file, text) in texts(folder.path()) {
        assert!(!text.contains(&format!("{REPOSITORY}/")), "{file}");
        assert!(!file.ends_with("SECURITY.md") || !text.contains(&old));
        links += text.matches(&format!("{url}/docs/runbooks")).count();
    }
    assert!(links > 20, "{links}");
}

//! Masked archives, and rules for them, from the fixtures: no server, no bucket.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::{run, text};

const KEY: (&str, &str) = ("MASK_KEY", "a key of at least sixteen bytes");

/// Rules that need no key and fit every fixture of `small.sql`.
const RULES: &str =
    "version: 1\nlarge_objects: keep\ntables:\n  s.parent: { columns: { note: { set: \"x\" } } }\n";

/// What every note of `s.parent` has in COPY text.
const NOTE: &[u8] = b"tab 'q' \"d\"";

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    folder.join(name).to_str().unwrap().to_owned()
}

/// Files of one test.
struct TestFiles(tempfile::TempDir);

impl TestFiles {
    fn new() -> Self {
        TestFiles(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn uri(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }
}

fn inspected(archive: &str) -> Value {
    let out = run(&["inspect", archive, "--output", "json"], &[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn every_archive_becomes_a_custom_archive_without_original_values() {
    let files = TestFiles::new();
    let rules = files.write("rules.yaml", RULES);
    for name in [
        "v15.custom.dump",
        "v16.tar.gz",
        "v16.directory.tar.gz",
        "v18.custom.dump",
        "v18.directory.tar.gz",
        "v18.tar.gz",
    ] {
        let (source, to) = (fixture(name), files.uri(name));
        let flags = ["--to", &to, "--compress", "none", "--output", "json"];
        let args = [&["mask", &source, "--mask", &rules][..], &flags].concat();
        let out = run(&args, &[]);
        assert_eq!(out.status.code(), Some(0), "{name}: {}", text(&out.stderr));
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
        let table = &answer["masking"]["tables"][0];
        assert_eq!(table["table"], "s.parent", "{answer}");
        assert_eq!(table["columns"][0]["changed"], 120, "{answer}");
        assert_eq!(answer["masking"].get("key_id"), None, "{answer}");
        let bytes = std::fs::read(files.path(name)).unwrap();
        assert!(bytes.starts_with(b"PGDMP"), "{name}");
        assert!(!bytes.windows(NOTE.len()).any(|w| w == NOTE), "{name}");
        let archive = files.path(name).to_str().unwrap().to_owned();
        let (before, after) = (inspected(&source), inspected(&archive));
        assert_eq!(after["format"], "custom");
        for same in ["entries", "database", "server_version", "archive_version"] {
            assert_eq!(after[same], before[same], "{name}: {same}");
        }
        let again = run(&args, &[]);
        assert_eq!(again.status.code(), Some(2), "{name}");
        assert!(text(&again.stderr).contains("exists"), "{name}");
        assert_eq!(std::fs::read(files.path(name)).unwrap(), bytes, "{name}");
    }
}

#[test]
fn wrong_files_and_flags_are_named() {
    let files = TestFiles::new();
    let rules = files.write("rules.yaml", RULES);
    let keyed = files.write("keyed.yaml", &RULES.replace("set: \"x\"", "hash: true"));
    let page = files.write("page.dump", "<!DOCTYPE html><html><body>404</body></html>");
    let broken = files.write("broken.yaml", "version: 1\ntable: {}\n");
    let (dump, old, sql) = (
        fixture("v16.custom.dump"),
        fixture("v15.custom.dump"),
        fixture("v16.plain.sql"),
    );
    let to = files.uri("copy.dump");
    let to = to.as_str();
    for (args, code, words) in [
        (&["--mask", &rules, "--to", to][..], 2, "<BACKUP>"),
        (&[&dump, "--mask", &rules], 2, "--to"),
        (&[&dump, "--to", to], 2, "there are no masking rules"),
        (&["suggest"], 2, "<BACKUP>"),
        (&["check", &dump], 2, "there are no masking rules"),
        (&[&dump, "--to", to, "check", &dump], 2, "right after mask"),
        (
            &[&dump, "--mask", &rules, "--to", "copy.dump"],
            2,
            "--to: write gs://",
        ),
        (
            &[&dump, "--mask", &rules, "--to", "file:///tmp/"],
            2,
            "--to: write gs://",
        ),
        (
            &[&dump, "--mask", &rules, "--to", "-", "--output", "json"],
            2,
            "would write too",
        ),
        (
            &[&dump, "--mask", &rules, "--to", to, "--compress", "brotli"],
            2,
            "brotli",
        ),
        (
            &[&old, "--mask", &rules, "--to", to, "--compress", "zstd"],
            2,
            "choose gzip or none",
        ),
        (
            &[&dump, "--mask", "/no/such/file", "--to", to],
            78,
            "/no/such/file",
        ),
        (&[&dump, "--mask", &broken, "--to", to], 78, "broken.yaml"),
        (&[&dump, "--mask", &keyed, "--to", to], 78, "MASK_KEY"),
        (
            &["check", &sql, "--mask", &rules],
            65,
            "no table of contents",
        ),
        (
            &[&sql, "--mask", &rules, "--to", to],
            65,
            "restore it with --mask",
        ),
        (&["check", &page, "--mask", &rules], 65, "an HTML page"),
        (&["suggest", &page], 65, "an HTML page"),
        (&["suggest", "/no/such/dump"], 1, "/no/such"),
    ] {
        let out = run(&[&["mask"][..], args].concat(), &[]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {words}: {said}");
        assert!(!files.path("copy.dump").exists(), "{args:?}");
    }
}

#[test]
fn a_check_lists_everything_and_needs_no_key() {
    let files = TestFiles::new();
    let dump = fixture("v18.custom.dump");
    let check = |rules: &str| {
        let rules = files.write("rules.yaml", rules);
        let args = ["mask", "check", &dump, "--mask", &rules, "--output", "json"];
        let out = run(&args, &[]);
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
        (out.status.code(), answer)
    };
    let texts = |list: &Value| -> Vec<String> {
        let all = list.as_array().unwrap().iter();
        all.map(|t| t.as_str().unwrap().to_owned()).collect()
    };
    let (code, answer) = check(&RULES.replace("set: \"x\"", "hash: true"));
    assert_eq!(
        (code, &answer["fits"]),
        (Some(0), &Value::Bool(true)),
        "{answer}"
    );
    let without = answer["without_rule"].as_array().unwrap();
    let parent = without.iter().find(|t| t["table"] == "s.parent").unwrap();
    assert_eq!(texts(&parent["columns"]), ["id", "mood", "at"]);
    let wrong = "version: 1\nunlisted: refuse\ntables:\n  s.parent: { columns: { id: keep, note: { set: \"x\" }, notte: keep } }\n  \
                 s.chlid: { rows: none }\n  x.*: { rows: none }\n";
    let (code, answer) = check(wrong);
    assert_eq!(
        (code, &answer["fits"]),
        (Some(65), &Value::Bool(false)),
        "{answer}"
    );
    let misfits = texts(&answer["misfits"]);
    for (what, why) in [
        ("s.parent, column mood", "no rule"),
        ("s.parent, column at", "no rule"),
        ("s.parent, column notte", "no such column"),
        ("s.child, column v", "no rule"),
        ("s.chlid", "no such table"),
        ("large objects", "large_objects: keep"),
    ] {
        let is_it = |m: &&String| m.starts_with(what) && m.contains(why);
        let found = misfits.iter().filter(is_it).count();
        assert_eq!(found, 1, "{what}: {why}: {misfits:?}");
    }
    assert!(!misfits.iter().any(|m| m.starts_with("s.parent, column id")));
}

#[test]
fn suggestions_do_not_depend_on_the_format_and_can_be_used() {
    let files = TestFiles::new();
    let suggest = |name: &str| {
        let out = run(&["mask", "suggest", &fixture(name)], &[]);
        assert_eq!(out.status.code(), Some(0), "{name}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    let of_custom = suggest("v18.custom.dump");
    for line in [
        "version: 1",
        "unlisted: refuse",
        "large_objects: none",
        "  s.parent:",
        "  s.part:",
    ] {
        let mut lines = of_custom.lines();
        assert!(lines.any(|l| l.starts_with(line)), "{line}: {of_custom}");
    }
    assert!(!of_custom.contains("part_1"), "{of_custom}");
    assert!(!of_custom.contains("tab 'q'"), "{of_custom}");
    let without_database = |file: &str| -> Vec<String> {
        let lines = file.lines().filter(|l| !l.starts_with("# Rules"));
        lines.map(str::to_owned).collect()
    };
    for other in [
        "v18.tar.gz",
        "v18.directory.tar.gz",
        "v18.plain.sql",
        "v18.inserts.sql",
    ] {
        let (ours, theirs) = (suggest(other), &of_custom);
        assert_eq!(without_database(&ours), without_database(theirs), "{other}");
    }
    let rules = files.write("suggested.yaml", &of_custom);
    let dump = fixture("v18.custom.dump");
    let out = run(&["mask", "check", &dump, "--mask", &rules], &[]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stdout));
    let to = files.uri("copy.dump");
    let out = run(&["mask", &dump, "--mask", &rules, "--to", &to], &[KEY]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
}

//! Module layers: imports go only to lower layers, and some names are used only in their modules.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules by layer; a module may import modules of lower layers only.
const LAYERS: [(u8, &[&str]); 12] = [
    (
        0,
        &[
            "config",
            "credentials",
            "job",
            "event",
            "proof",
            "outcome",
            "progress",
            "metrics",
            "telemetry",
        ],
    ),
    (
        1,
        &["admission", "html", "sandbox", "store", "queue", "tuning"],
    ),
    (2, &["backup", "retention"]),
    (3, &["database"]),
    (4, &["verification"]),
    (5, &["catalog"]),
    (6, &["pipeline"]),
    (7, &["manager", "standing"]),
    (8, &["worker"]),
    (9, &["admin"]),
    (10, &["app"]),
    (11, &["cli"]),
];

/// Modules of the crate `pgdump-restore` that this crate re-exports.
const BELOW: [&str; 5] = ["error", "policy", "postgres", "retry", "steps"];

/// Allowed imports among the domain types: (importing module, imported module).
const WITHIN_DOMAIN_TYPES: [(&str, &str); 5] = [
    ("proof", "job"),
    ("event", "proof"),
    ("job", "config"),
    ("event", "job"),
    ("event", "config"),
];

fn layer(module: &str) -> Option<u8> {
    LAYERS
        .iter()
        .find(|(_, modules)| modules.contains(&module))
        .map(|(layer, _)| *layer)
}

pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// Every source file of the library crates: its path relative to the workspace, and its lines outside tests.
fn library_crates() -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = [
        "gcp-emulator",
        "pgdump-archive",
        "pgdump-mask",
        "pgdump-restore",
    ];
    let files = crates
        .iter()
        .flat_map(|name| sources(&root.join("crates").join(name).join("src")));
    files
        .map(|path| {
            (
                path.strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
                code_of(&path),
            )
        })
        .collect()
}

/// The lines of a file outside tests and comments.
fn code_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .map(str::to_owned)
        .collect()
}

/// Every source file in `src`: its path there, its module, and its lines outside tests.
fn source_files() -> Vec<(String, String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root).into_iter().map(|path| {
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let module = name.split(['/', '.']).next().unwrap().to_owned();
        (name, module, code_of(&path))
    });
    files.collect()
}

/// The modules that these lines import.
fn imports(lines: &[String]) -> Vec<String> {
    let mentions = lines.iter().flat_map(|l| l.split("crate::").skip(1));
    let modules = mentions.map(|rest| {
        rest.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    });
    modules.filter(|r: &String| !r.is_empty()).collect()
}

#[test]
fn imports_go_only_to_lower_layers() {
    let mut wrong = Vec::new();
    for (file, module, lines) in source_files() {
        if ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        for other in imports(&lines) {
            if other == module || BELOW.contains(&other.as_str()) {
                continue;
            }
            if other == "emulator" {
                if module != "cli" {
                    wrong.push(format!("{file}: imports the emulator"));
                }
                continue;
            }
            let (Some(from), Some(to)) = (layer(&module), layer(&other)) else {
                wrong.push(format!("{file}: {module} or {other} is not in LAYERS"));
                continue;
            };
            let within =
                from == 0 && WITHIN_DOMAIN_TYPES.contains(&(module.as_str(), other.as_str()));
            if to >= from && !within {
                wrong.push(format!(
                    "{file}: layer {from} imports {other} from layer {to}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn restricted_names_are_used_only_in_their_modules() {
    let rules: [(&str, &[&str]); 7] = [
        (
            "google_cloud_storage",
            &["store/gcs.rs", "store/gcs_lifecycle.rs"],
        ),
        (
            "google_cloud_pubsub",
            &["queue/pubsub.rs", "queue/setup.rs"],
        ),
        (
            "google_cloud_gax",
            &["store/gcs.rs", "queue/pubsub.rs", "queue/setup.rs"],
        ),
        (
            "std::env::",
            &[
                "config.rs",
                "config/argv.rs",
                "config/raw.rs",
                "cli/demo.rs",
                "cli/selftest.rs",
                "main.rs",
                "pipeline/verification_server.rs",
                "sandbox/template.rs",
                "verification/evidence/tests.rs",
            ],
        ),
        ("process::exit", &[]),
        (".nack()", &["worker/settlement.rs", "queue/pubsub.rs"]),
        ("libpgdump", &[]),
    ];
    for (file, _, lines) in source_files() {
        for (name, allowed) in &rules {
            let used = lines.iter().any(|l| l.contains(name));
            assert!(
                !used || allowed.contains(&file.as_str()),
                "{file} uses {name}"
            );
        }
    }
}

#[test]
fn pure_modules_are_not_async() {
    for pure in [
        "backup/stream_tuner.rs",
        "retention.rs",
        "verification/drift.rs",
        "verification/server_version.rs",
        "verification/verdict.rs",
        "worker/notification.rs",
        "standing/due.rs",
        "standing/orders.rs",
        "standing/schedule.rs",
        "tuning/rules.rs",
        "outcome.rs",
    ] {
        let (_, _, lines) = source_files()
            .into_iter()
            .find(|(f, _, _)| f == pure)
            .unwrap_or_else(|| panic!("{pure} does not exist"));
        for word in [".await", "tokio", "async "] {
            assert!(
                !lines.iter().any(|l| l.contains(word)),
                "{pure} contains {word}"
            );
        }
    }
}

/// Commands print only through `cli::terminal`, which escapes control characters.
#[test]
fn commands_print_only_through_the_escaping_module() {
    for (file, module, lines) in source_files() {
        let prints = |l: &String| {
            l.contains("println!") || l.contains("print!(") || l.contains("stdout().write")
        };
        let found: Vec<&String> = lines.iter().filter(|l| prints(l)).collect();
        assert!(module != "cli" || found.is_empty(), "{file}: {found:?}");
    }
}

/// A parent that is given away ends before the span in it begins, if nobody else holds it, and that panics.
#[test]
fn parents_of_spans_are_borrowed() {
    let files = source_files()
        .into_iter()
        .map(|(file, _, lines)| (file, lines))
        .chain(library_crates());
    for (file, lines) in files {
        let given_away =
            |line: &&String| line.contains("span!(parent: ") && !line.contains("span!(parent: &");
        let found: Vec<&String> = lines.iter().filter(given_away).collect();
        assert!(found.is_empty(), "{file}: {found:?}");
    }
}

#[test]
fn files_are_not_too_large() {
    let files = source_files()
        .into_iter()
        .map(|(file, _, lines)| (file, lines))
        .chain(library_crates());
    let sizes: BTreeMap<String, usize> = files.map(|(file, lines)| (file, lines.len())).collect();
    let large: Vec<_> = sizes.iter().filter(|(_, n)| **n > 640).collect();
    assert!(large.is_empty(), "{large:?}");
    for banned in ["util", "common", "helpers", "types", "misc"] {
        assert!(
            !sizes.keys().any(|f| f.contains(banned)),
            "a module called {banned}"
        );
    }
}

/// Builds of tests also enable the features of dev-dependencies, so this checks the program's own ones.
#[test]
fn the_program_enables_the_features_that_it_needs() {
    let tree = [
        "tree",
        "--locked",
        "-e",
        "normal",
        "-i",
        "serde_json",
        "--depth",
        "0",
        "-f",
        "{f}",
    ];
    let cargo = std::process::Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(tree)
        .output()
        .unwrap();
    let features = String::from_utf8(cargo.stdout).unwrap();
    // A recorded result must be published again as exactly the same bytes.
    let has = features.trim().split(',').any(|f| f == "float_roundtrip");
    assert!(
        has,
        "{features:?}: {}",
        String::from_utf8_lossy(&cargo.stderr)
    );
}

/// The name of the type that a line defines.
fn defined_type(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ")?.1,
        None => line.strip_prefix("pub ").unwrap_or(line),
    };
    let name = ["struct ", "enum ", "trait ", "union "]
        .iter()
        .find_map(|keyword| line.strip_prefix(keyword))?;
    let end = name.find(|c: char| !c.is_alphanumeric());
    let name = &name[..end.unwrap_or(name.len())];
    name.starts_with(char::is_uppercase).then_some(name)
}

#[test]
fn no_two_types_have_the_same_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "benches", "crates", "fuzz"];
    let mut defined: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let paths = folders.iter().flat_map(|name| sources(&root.join(name)));
    let is_ours = |path: &PathBuf| !path.components().any(|c| c.as_os_str() == "target");
    for path in paths.filter(is_ours) {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in text.lines().filter_map(defined_type) {
            defined
                .entry(name.to_owned())
                .or_default()
                .push(path.clone());
        }
    }
    assert!(defined.len() > 500, "{}", defined.len());
    defined.retain(|_, paths| paths.len() > 1);
    assert!(
        defined.is_empty(),
        "types with one name, of which each needs its own: {defined:#?}"
    );
}

//! Finds tools that `make setup` installs for the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Says that a test does not check everything because a tool is not installed. `make test` repeats it at its end.
///
/// # Panics
/// In CI, where all of them must be installed.
pub fn skip(tool: &str) {
    let why = format!("{tool} is not installed: run make setup");
    assert!(std::env::var("CI").is_err(), "{why}");
    eprintln!("SKIPPED: {why}");
}

/// A tool of `scripts/tools.sh`, or a path in it (`python/bin/yamllint`); `None` if this user has none that runs, and the
/// test is skipped.
pub fn installed(part: &str) -> Option<PathBuf> {
    let path = match part.split_once('/') {
        Some((tool, within)) => place_of(tool).map(|place| place.join(within)),
        None => place_of(part),
    };
    let path = path.filter(|path| path.exists());
    if path.is_none() {
        skip(part);
    }
    path
}

/// Asks once for each tool, because the script tries whether it runs.
fn place_of(tool: &str) -> Option<PathBuf> {
    static PLACES: Mutex<BTreeMap<String, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut places = PLACES.lock().unwrap();
    let place = places.entry(tool.to_owned());
    place.or_insert_with(|| look_for(tool)).clone()
}

fn look_for(tool: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tools.sh");
    let out = Command::new("/bin/bash")
        .arg(script)
        .arg(tool)
        .output()
        .unwrap();
    let place = String::from_utf8(out.stdout).unwrap();
    out.status.success().then(|| place.trim_end().into())
}

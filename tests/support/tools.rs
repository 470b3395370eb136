//! Finds tools that `make setup` downloads for the tests.

use std::path::{Path, PathBuf};

/// Says that a test does not check everything because a tool is not installed. `make test` repeats it at its end.
///
/// # Panics
/// In CI, where all of them must be installed.
pub fn skip(tool: &str) {
    let why = format!("{tool} is not installed: run make setup");
    assert!(std::env::var("CI").is_err(), "{why}");
    eprintln!("SKIPPED: {why}");
}

/// A path in the folder of tools; `None` if it does not exist, and the test is skipped.
pub fn installed(part: &str) -> Option<PathBuf> {
    let tools = std::env::var("PGRESTORED_TOOLS").unwrap_or("/var/tmp/pgrestored-tools".into());
    let path = Path::new(&tools).join(part);
    if !path.exists() {
        skip(&path.display().to_string());
        return None;
    }
    Some(path)
}

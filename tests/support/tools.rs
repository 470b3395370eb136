//! Finds tools that `make setup` downloads for the tests.

use std::path::{Path, PathBuf};

/// A path in the folder of tools. If it does not exist, prints that the test is skipped and returns `None`; in CI it
/// must exist.
pub fn installed(part: &str) -> Option<PathBuf> {
    let tools = std::env::var("PGRESTORED_TOOLS").unwrap_or("/var/tmp/pgrestored-tools".into());
    let path = Path::new(&tools).join(part);
    if !path.exists() {
        assert!(
            std::env::var("CI").is_err(),
            "{} is missing: run make setup",
            path.display()
        );
        eprintln!(
            "SKIPPED: {} is not installed: run make setup",
            path.display()
        );
        return None;
    }
    Some(path)
}

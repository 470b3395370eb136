//! Libraries that a sandbox loads when it starts, because extensions of the backup need them.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sandbox::has_library;
use pgdump_archive::{EntryKind, TocEntry};
use pgdump_restore::{HOOKS, hooks_of};

/// A library, with the settings that the server starts with if it loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PreloadLibrary {
    name: String,
    settings: Vec<String>,
}

/// Those of the `allowed` libraries that extensions of the backup need, in the order in which they want to be loaded.
pub(super) fn wanted(
    entries: &[TocEntry],
    allowed: &[String],
    database: &str,
) -> Vec<PreloadLibrary> {
    let extensions = entries.iter().filter(|e| e.kind == EntryKind::Extension);
    let extensions: BTreeSet<&str> = extensions.map(|e| e.tag.as_str()).collect();
    let known = HOOKS.iter().filter(|h| extensions.contains(h.extension));
    let known = known.filter_map(|h| {
        Some(PreloadLibrary {
            name: h.preload?.library.to_owned(),
            settings: h.settings_for(database),
        })
    });
    // A library of which nothing is known has the name of its extension.
    let others = extensions.iter().filter(|e| hooks_of(e).is_none());
    let others = others.map(|e| PreloadLibrary {
        name: (*e).to_owned(),
        settings: vec![],
    });
    let all = known.chain(others);
    all.filter(|l| allowed.contains(&l.name)).collect()
}

/// The settings of a sandbox with the programs in `bindir`, which loads those of the libraries that are installed.
pub(super) fn settings(bindir: &Path, libraries: &[PreloadLibrary]) -> Vec<String> {
    let installed = libraries.iter().filter(|l| has_library(bindir, &l.name));
    let installed: Vec<&PreloadLibrary> = installed.collect();
    if installed.is_empty() {
        return vec![];
    }
    let names: Vec<&str> = installed.iter().map(|l| l.name.as_str()).collect();
    let load = format!("shared_preload_libraries={}", names.join(","));
    let others = installed.iter().flat_map(|l| l.settings.iter().cloned());
    std::iter::once(load).chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(names: &[&str]) -> Vec<TocEntry> {
        let entry = |name: &&str| TocEntry::bare(1, "EXTENSION", name);
        names.iter().map(entry).collect()
    }

    #[test]
    fn only_allowed_libraries_of_the_backups_extensions_are_loaded() {
        let backup = extensions(&["pg_cron", "own", "timescaledb", "pgaudit", "hstore"]);
        let allowed = ["own", "pg_cron", "timescaledb", "citus"].map(str::to_owned);
        let wanted = wanted(&backup, &allowed, "shop");
        let names: Vec<&str> = wanted.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["timescaledb", "pg_cron", "own"]);
        assert!(super::wanted(&backup, &[], "shop").is_empty());
    }

    #[test]
    fn a_sandbox_loads_what_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let libraries = folder.path().join("lib");
        std::fs::create_dir(&libraries).unwrap();
        let allowed = ["pg_cron", "timescaledb"].map(str::to_owned);
        let wanted = wanted(&extensions(&["pg_cron", "timescaledb"]), &allowed, "shop");
        let bindir = folder.path().join("bin");
        assert!(settings(&bindir, &wanted).is_empty());
        std::fs::write(libraries.join("pg_cron.so"), "").unwrap();
        let settings = settings(&bindir, &wanted);
        assert_eq!(settings[0], "shared_preload_libraries=pg_cron");
        assert!(
            settings.contains(&"cron.database_name=shop".to_owned()),
            "{settings:?}"
        );
        assert!(
            !settings.iter().any(|s| s.starts_with("timescaledb.")),
            "{settings:?}"
        );
    }
}

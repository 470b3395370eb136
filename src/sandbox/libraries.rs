//! Finds the libraries of an installation.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::commands::run;

/// Where installations without `pg_config` have their libraries, below the folder that has the folder of programs.
const FOLDERS: [&str; 4] = ["lib", "lib/postgresql", "lib64/postgresql", "lib64/pgsql"];

/// Whether the installation with the programs in `bindir` has this library.
pub fn has_library(bindir: &Path, name: &str) -> bool {
    let file = format!("{name}.so");
    let mut folders = folders(bindir).into_iter();
    folders.any(|folder| folder.join(&file).is_file())
}

fn folders(bindir: &Path) -> Vec<PathBuf> {
    let asked = run(Command::new(bindir.join("pg_config")).arg("--pkglibdir"));
    let known = asked.ok().and_then(|out| String::from_utf8(out).ok());
    match known {
        Some(folder) => vec![PathBuf::from(folder.trim_end())],
        None => {
            let prefix = bindir.parent().unwrap_or(bindir);
            FOLDERS.iter().map(|f| prefix.join(f)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_beside_the_programs() {
        let folder = tempfile::tempdir().unwrap();
        let bindir = folder.path().join("bin");
        let libraries = folder.path().join("lib/postgresql");
        std::fs::create_dir_all(&libraries).unwrap();
        std::fs::write(libraries.join("pg_cron.so"), "").unwrap();
        assert!(has_library(&bindir, "pg_cron"));
        assert!(!has_library(&bindir, "timescaledb"));
    }
}

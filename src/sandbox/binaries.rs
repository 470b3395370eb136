//! Finds PostgreSQL servers installed on this machine.

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// The programs of one PostgreSQL installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    /// Major version, such as 15.
    pub major: u32,
}

/// Where distributions install servers, with one folder per version.
const DEFAULT_DIRS: [(&str, &str); 2] =
    [("/usr/lib/postgresql", "bin"), ("/opt/postgresql", "bin")];

fn has_server(dir: &Path) -> bool {
    dir.join("initdb").is_file() && dir.join("postgres").is_file()
}

/// The major version, from output such as `postgres (PostgreSQL) 15.18 (Debian …)`.
fn major_of(dir: &Path) -> Option<u32> {
    let output =
        super::commands::run(std::process::Command::new(dir.join("postgres")).arg("--version"))
            .ok()?;
    let output = String::from_utf8(output).ok()?;
    let version = output
        .split_whitespace()
        .find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// The servers in the `configured` folders or, if there are none, in the distributions' folders and on PATH.
/// One per major version, oldest first.
pub fn found(configured: &[PathBuf]) -> Vec<Binaries> {
    let mut dirs: Vec<PathBuf> = configured.to_vec();
    if configured.is_empty() {
        for (folder, below) in DEFAULT_DIRS {
            let versions = std::fs::read_dir(folder).into_iter().flatten().flatten();
            dirs.extend(versions.map(|v| v.path().join(below)));
        }
        dirs.extend(crate::config::search_path());
    }
    let mut all: Vec<Binaries> = dirs
        .into_iter()
        .filter(|d| has_server(d))
        .filter_map(|dir| {
            Some(Binaries {
                major: major_of(&dir)?,
                dir,
            })
        })
        .collect();
    all.sort_by_key(|b| b.major);
    all.dedup_by_key(|b| b.major);
    all
}

/// The server for a dump of major version `wanted`: the same version, else the next newer, else the newest.
pub fn fitting(all: &[Binaries], wanted: Option<u32>) -> Option<&Binaries> {
    let newest = all.last();
    wanted.map_or(newest, |w| all.iter().find(|b| b.major >= w).or(newest))
}

/// The folder of the newest server of [`found`].
///
/// # Errors
/// No server was found.
pub fn find_bindir(configured: &[PathBuf]) -> Result<PathBuf> {
    let what = if configured.is_empty() {
        "no PostgreSQL server found: install it (make setup) or set PG_BINDIR"
    } else {
        "no PostgreSQL server found in PG_BINDIR: it must contain initdb and postgres"
    };
    found(configured)
        .pop()
        .map(|b| b.dir)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_gets_a_server_of_its_own_version_or_the_next() {
        let all: Vec<Binaries> = [13, 15, 17]
            .map(|major| Binaries {
                dir: PathBuf::new(),
                major,
            })
            .into_iter()
            .collect();
        let of = |wanted| fitting(&all, wanted).map(|b| b.major);
        assert_eq!(
            [of(Some(9)), of(Some(13)), of(Some(14))],
            [Some(13), Some(13), Some(15)]
        );
        assert_eq!(
            [of(Some(17)), of(Some(18)), of(None)],
            [Some(17), Some(17), Some(17)]
        );
        assert_eq!(fitting(&[], Some(15)), None);
    }
}

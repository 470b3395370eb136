//! Files that commands read and write. Every error names its file.

use std::path::{Path, PathBuf};

use super::exit::CommandError;

pub(super) fn fault(path: &Path, what: &str, e: &std::io::Error) -> CommandError {
    CommandError::Unavailable(format!("{} cannot be {what}: {e}", path.display()))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CommandError> {
    std::fs::read(path).map_err(|e| fault(path, "read", &e))
}

pub(super) fn read_text(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|e| fault(path, "read", &e))
}

pub(super) fn create_folder(path: &Path) -> Result<(), CommandError> {
    std::fs::create_dir_all(path).map_err(|e| fault(path, "created", &e))
}

/// The paths of what is in a folder.
pub(super) fn in_folder(path: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let entries = std::fs::read_dir(path).map_err(|e| fault(path, "read", &e))?;
    let paths: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
    paths.map_err(|e: std::io::Error| fault(path, "read", &e))
}

pub(super) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), CommandError> {
    std::fs::write(path, content).map_err(|e| fault(path, "written", &e))
}

/// Checks that a file can be written, before the work whose result goes there. What the file contains stays; a file
/// that did not exist does not exist afterwards.
pub(super) fn check_writable(path: &Path) -> Result<(), CommandError> {
    let is_new = !path.exists();
    let opened = std::fs::File::options()
        .create(true)
        .append(true)
        .open(path);
    opened.map_err(|e| fault(path, "written", &e))?;
    if is_new {
        std::fs::remove_file(path).map_err(|e| fault(path, "written", &e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_a_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        write(&old, "kept").unwrap();
        check_writable(&old).unwrap();
        check_writable(&new).unwrap();
        assert_eq!(read_text(&old).unwrap(), "kept");
        assert!(!new.exists());
        let missing = folder.path().join("no/such");
        let text = |e: CommandError| e.to_string();
        assert!(
            text(check_writable(&missing).unwrap_err()).contains("no/such cannot be written: ")
        );
        assert!(text(read(&missing).unwrap_err()).contains("no/such cannot be read: "));
        assert!(text(in_folder(&missing).unwrap_err()).contains("no/such cannot be read: "));
        assert!(
            text(create_folder(&old.join("x")).unwrap_err()).contains("old/x cannot be created: ")
        );
    }
}

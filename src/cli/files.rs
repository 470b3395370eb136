//! Files that commands read and write. Every error names its file.

use std::path::{Path, PathBuf};

use super::exit::{CommandError, usage};
use crate::error::{RestoreError, StorageError, StorageKind, ValidationError, ValidationKind};

/// Why a file that the command line names cannot be read or written.
pub(super) fn fault(path: &Path, what: &str, e: &std::io::Error) -> CommandError {
    use std::io::ErrorKind as K;
    let what = format!("{} cannot be {what}: {e}", path.display());
    match e.kind() {
        // The wrong file was named.
        K::NotFound | K::NotADirectory | K::IsADirectory | K::InvalidInput | K::InvalidFilename => {
            usage(what)
        }
        // Not UTF-8.
        K::InvalidData => {
            let kind = ValidationKind::ArchiveUnsupported;
            RestoreError::from(ValidationError::new(kind, what)).into()
        }
        K::PermissionDenied | K::ReadOnlyFilesystem => {
            RestoreError::from(StorageError::new(StorageKind::AccessDenied, what)).into()
        }
        _ => CommandError::Unavailable(what),
    }
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
    use crate::cli::exit::Exit;

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

    #[test]
    fn the_exit_code_says_whose_mistake_it_is() {
        use std::io::ErrorKind as K;
        for (kind, exit) in [
            (K::NotFound, Exit::Usage),
            (K::NotADirectory, Exit::Usage),
            (K::IsADirectory, Exit::Usage),
            (K::InvalidData, Exit::BadData),
            (K::PermissionDenied, Exit::Permission),
            (K::ReadOnlyFilesystem, Exit::Permission),
            (K::StorageFull, Exit::Unavailable),
        ] {
            let e = fault(Path::new("x"), "read", &kind.into());
            assert_eq!(e.exit(), exit, "{kind}");
        }
    }
}

//! Which backups may be restored, and how far each is trusted.

use super::backup_catalog::BackupCatalog;
use crate::config::{Location, Trust};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::job::BackupRef;

/// Whether a backup lies inside a location, also where a folder on its way is a symbolic link.
fn is_inside(location: &Location, place: &Location, name: &str) -> bool {
    let leads_inside = match (location, place) {
        (Location::Folder(outer), Location::Folder(inner)) => {
            // What is not there is not read either.
            outer
                .canonicalize()
                .ok()
                .zip(inner.canonicalize().ok())
                .is_none_or(|(o, i)| i.starts_with(o))
        }
        _ => true,
    };
    location.contains(place, name) && leads_inside
}

impl BackupCatalog {
    /// How far a backup is trusted: by its place. A file of the machine on which a command runs, or its
    /// standard input, is the person's own.
    pub fn trust_of(&self, wanted: &BackupRef) -> Trust {
        let BackupRef::Named {
            place: Some(place),
            name,
        } = wanted
        else {
            return self.config.trust;
        };
        let own = matches!(place, Location::Folder(_)) && !self.is_allowed(place, name);
        if self.is_listed(place, name) || own {
            self.config.trust
        } else {
            Trust::Restricted
        }
    }

    /// Whether a place is BACKUP_BUCKET or one of TRUSTED_SOURCES.
    fn is_listed(&self, place: &Location, name: &str) -> bool {
        let contains = |l: &Location| is_inside(l, place, name);
        contains(&self.config.bucket) || self.config.trusted_sources.iter().any(contains)
    }

    fn is_allowed(&self, place: &Location, name: &str) -> bool {
        self.config
            .allowed_sources
            .iter()
            .any(|l| is_inside(l, place, name))
    }

    /// Whether a request may name this backup: inside the bucket, or a trusted or allowed source.
    ///
    /// # Errors
    /// `source_not_allowed`.
    pub fn check_source(&self, wanted: &BackupRef) -> Result<(), RestoreError> {
        let BackupRef::Named {
            place: Some(place),
            name,
        } = wanted
        else {
            return Ok(());
        };
        if self.is_listed(place, name) || self.is_allowed(place, name) {
            return Ok(());
        }
        let what = "the backup is neither in BACKUP_BUCKET nor in one of TRUSTED_SOURCES or ALLOWED_SOURCES";
        Err(ValidationError::new(ValidationKind::SourceNotAllowed, what).into())
    }

    /// Whether an object is a backup that is looked after, by its name.
    pub fn is_backup(&self, name: &str) -> bool {
        let globals = self.config.policy.globals.as_deref();
        !crate::proof::is_ours(name)
            && self.config.verify.watches(name)
            && globals.is_none_or(|g| !name.ends_with(g))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_another_folder_is_not_inside() {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        for folder in ["backups/sub", "elsewhere"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        std::os::unix::fs::symlink(path("elsewhere"), path("backups/out")).unwrap();
        std::os::unix::fs::symlink(path("backups"), path("link")).unwrap();
        for bucket in ["backups", "link"] {
            let inside = |place: &str| {
                is_inside(
                    &Location::Folder(path(bucket)),
                    &Location::Folder(path(place)),
                    "x.dump",
                )
            };
            assert!(
                inside(bucket)
                    && inside(&format!("{bucket}/sub"))
                    && inside(&format!("{bucket}/new"))
            );
            assert!(!inside(&format!("{bucket}/out")) && !inside("elsewhere"));
        }
    }
}

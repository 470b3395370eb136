//! Which sources backups may be restored from, and how far each is trusted.

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

/// Why a backup is restored restricted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Restriction {
    /// What keeps it from being trusted.
    pub(crate) why: String,
    /// What to change in the configuration to trust it.
    pub(crate) change: String,
}

impl Restriction {
    /// The note in the result of a restore.
    pub(crate) fn note(&self) -> String {
        format!(
            "restricted: owners and privileges of the backup are left out, because {}; to restore them, {}",
            self.why, self.change
        )
    }
}

/// The folder or bucket of a backup, as a URI.
fn folder_of(uri: &str) -> &str {
    let file = uri.trim_end_matches('/');
    file.rsplit_once('/').map_or(file, |(folder, _)| folder)
}

impl BackupCatalog {
    /// How far a backup is trusted: by its place.
    pub fn trust_of(&self, wanted: &BackupRef) -> Trust {
        match self.untrusted_uri(wanted) {
            None => self.config.trust,
            Some(_) => Trust::Restricted,
        }
    }

    /// Why a backup is restored restricted; `None` if it is trusted.
    pub(crate) fn restriction_of(&self, wanted: &BackupRef) -> Option<Restriction> {
        let (mut why, mut change) = (vec![], vec![]);
        if let Some(uri) = self.untrusted_uri(wanted) {
            why.push(format!(
                "{uri} is neither in BACKUP_BUCKET nor in one of TRUSTED_SOURCES"
            ));
            change.push(format!("add {} to TRUSTED_SOURCES", folder_of(&uri)));
        }
        if self.config.trust == Trust::Restricted {
            why.push("BACKUP_TRUST is restricted".to_owned());
            change.push("set BACKUP_TRUST=full".to_owned());
        }
        let and = |all: Vec<String>| all.join(" and ");
        (!why.is_empty()).then(|| Restriction {
            why: and(why),
            change: and(change),
        })
    }

    /// The URI of a backup whose place is not trusted, whatever BACKUP_TRUST says. A file of the machine on which a
    /// command runs, or its standard input, is the person's own.
    fn untrusted_uri(&self, wanted: &BackupRef) -> Option<String> {
        let BackupRef::Named {
            place: Some(place),
            name,
        } = wanted
        else {
            return None;
        };
        let own = matches!(place, Location::Folder(_)) && !self.is_allowed(place, name);
        (!self.is_listed(place, name) && !own).then(|| place.uri(name))
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
    use std::sync::Arc;

    use super::*;
    use crate::config::{Config, RawConfig};
    use crate::metrics::RestoreMetricsManager;
    use crate::store::Stores;

    #[test]
    fn a_restriction_names_the_settings_that_lift_it() {
        let restriction = |uri: &str, trust: &str| {
            let flags = [
                ("backup-bucket", "gs://ours/prod"),
                ("trusted-sources", "gs://theirs/good"),
                ("allowed-sources", "file:///allowed"),
                ("backup-trust", trust),
            ];
            let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
            let metrics = RestoreMetricsManager::new(0.0);
            let catalog =
                BackupCatalog::new(Arc::new(config), Arc::new(Stores::new(None)), metrics);
            let wanted = BackupRef::parse(uri, "").unwrap();
            let found = catalog.restriction_of(&wanted);
            let is_restricted = catalog.trust_of(&wanted) == Trust::Restricted;
            assert_eq!(found.is_some(), is_restricted, "{uri} {trust}");
            found.map(|r| r.change)
        };
        for (uri, listed) in [
            ("app.dump", None),
            ("gs://ours/prod/app.dump", None),
            ("gs://theirs/good/app.dump", None),
            ("/mine/app.dump", None),
            ("-", None),
            ("gs://ours/test/app.dump", Some("gs://ours/test")),
            ("gs://theirs/app/", Some("gs://theirs")),
            ("file:///allowed/app.dump", Some("file:///allowed")),
        ] {
            let add = listed.map(|place| format!("add {place} to TRUSTED_SOURCES"));
            let all = add
                .iter()
                .cloned()
                .chain(["set BACKUP_TRUST=full".to_owned()]);
            let all: Vec<String> = all.collect();
            assert_eq!(
                restriction(uri, "restricted"),
                Some(all.join(" and ")),
                "{uri}"
            );
            assert_eq!(restriction(uri, "full"), add, "{uri}");
        }
    }

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

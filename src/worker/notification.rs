//! Turns a Cloud Storage notification into a verification, or into the reason why there is none. Pure.
//! The subscription's filter is applied again here, because not every Pub/Sub implementation honours it.

use std::collections::HashMap;

use crate::backup::whole_of;
use crate::config::{Config, Location};
use crate::event::GcsNotification;
use crate::job::{BackupRef, VerifyJob};
use crate::policy::Trigger;
use crate::proof::is_ours;
use pgdump_archive::member_name;

/// The table of contents of a directory dump. Unless another manifest is configured, its arrival means
/// that the dump is complete.
const TOC: &str = "toc.dat";

/// The verification that a message asks for.
///
/// # Errors
/// Why the message asks for none.
pub(super) fn job_of(
    attributes: &HashMap<String, String>,
    config: &Config,
    is_backup: impl Fn(&str) -> bool + Copy,
) -> Result<VerifyJob, String> {
    let n = GcsNotification::from_attributes(attributes)
        .ok_or("the message is not a Cloud Storage notification")?;
    if n.event_type != "OBJECT_FINALIZE" {
        return Err(format!("event {} is not OBJECT_FINALIZE", n.event_type));
    }
    let Location::Bucket { bucket, prefix } = &config.bucket else {
        return Err("BACKUP_BUCKET is not a bucket".into());
    };
    if n.bucket_id != *bucket {
        return Err(format!("bucket {} is not BACKUP_BUCKET", n.bucket_id));
    }
    let name = n
        .object_id
        .strip_prefix(prefix.as_str())
        .ok_or("the object is not under BACKUP_BUCKET's prefix")?;
    if is_ours(name) {
        return Err("the object is evidence".into());
    }
    let generation = n
        .object_generation
        .parse()
        .map_err(|_| "the generation is not a number")?;
    let (folder, file) = name.rfind('/').map_or(("", name), |i| name.split_at(i + 1));
    let manifest = config.verify.manifest.as_str();
    let (backup, generation) = match file {
        file if !folder.is_empty() && file == manifest && manifest != TOC => (folder, None),
        file if !folder.is_empty() && member_name::is_toc(file) => {
            if manifest == TOC {
                (folder, Some(generation))
            } else {
                return Err(format!("waiting for the folder's {manifest}"));
            }
        }
        file if member_name::is_pg_dump_file(file) && !member_name::is_toc(file) => {
            return Err(format!("waiting for the folder's {manifest}"));
        }
        _ => (name, Some(generation)),
    };
    // VERIFY_PREFIX and VERIFY_SUFFIX apply to the whole file's name, not to that of a piece.
    if !is_backup(backup) && !whole_of(backup).is_some_and(is_backup) {
        return Err("VERIFY_PREFIX or VERIFY_SUFFIX excludes the object".into());
    }
    let backup = BackupRef::Named {
        place: None,
        name: backup.to_owned(),
    };
    Ok(VerifyJob {
        generation,
        ..VerifyJob::new(n.request_id(), backup, Trigger::Notification)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn ask(
        flags: &[(&str, &str)],
        changes: &[(&str, &str)],
    ) -> Result<(String, Option<i64>), String> {
        let flags = [&[("backup-bucket", "gs://bkt/db")], flags].concat();
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let mut attributes: HashMap<String, String> = [
            (
                "notificationConfig",
                "projects/_/buckets/bkt/notificationConfigs/1",
            ),
            ("eventType", "OBJECT_FINALIZE"),
            ("bucketId", "bkt"),
            ("objectId", "db/a.dump"),
            ("objectGeneration", "17"),
        ]
        .into_iter()
        .chain(changes.iter().copied())
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect();
        attributes.retain(|_, v| !v.is_empty());
        let job = job_of(&attributes, &config, |n| config.verify.watches(n))?;
        let BackupRef::Named { name, .. } = job.backup else {
            panic!("the backup is not named")
        };
        assert!(
            job.request_id.starts_with("gcs:bkt/db/"),
            "{}",
            job.request_id
        );
        Ok((name, job.generation.map(|g| g.0)))
    }

    #[test]
    fn only_new_backups_of_the_bucket_are_verified() {
        assert_eq!(ask(&[], &[]), Ok(("a.dump".into(), Some(17))));
        // Copies, compositions and overwrites are finalized too.
        assert_eq!(
            ask(&[], &[("overwroteGeneration", "16")]),
            Ok(("a.dump".into(), Some(17)))
        );
        for changes in [
            ("eventType", "OBJECT_DELETE"),
            ("eventType", "OBJECT_METADATA_UPDATE"),
            ("eventType", "OBJECT_ARCHIVE"),
            ("bucketId", "other"),
            ("objectId", "elsewhere/a.dump"),
            ("objectId", "db/a.dump.pgrestored/17/0123.dsse.json"),
            ("objectGeneration", "x"),
            ("notificationConfig", ""),
        ] {
            assert!(ask(&[], &[changes]).is_err(), "{changes:?}");
        }
    }

    #[test]
    fn prefix_and_suffix_are_applied_again() {
        let only = [
            ("verify-suffix", ".dump,.sql.gz"),
            ("verify-prefix", "nightly/"),
        ];
        assert!(ask(&only, &[]).is_err());
        assert!(ask(&only, &[("objectId", "db/nightly/readme.txt")]).is_err());
        assert!(ask(&only, &[("objectId", "db/nightly/a.dump")]).is_ok());
        assert!(ask(&only, &[("objectId", "db/nightly/x/toc.dat")]).is_ok());
        // Whether it is a piece is decided later, when the other pieces are listed.
        assert_eq!(
            ask(&only, &[("objectId", "db/nightly/a.dump.ab")]),
            Ok(("nightly/a.dump.ab".into(), Some(17)))
        );
        assert!(ask(&only, &[("objectId", "db/nightly/a.zip.ab")]).is_err());
    }

    #[test]
    fn a_directory_is_verified_when_its_last_object_arrives() {
        for member in [
            "1.dat.gz",
            "42.dat",
            "blob_7.dat.zst",
            "blobs.toc",
            "blobs_12.toc",
        ] {
            assert!(
                ask(&[], &[("objectId", &format!("db/night/{member}"))]).is_err(),
                "{member}"
            );
        }
        let toc = [("objectId", "db/night/toc.dat")];
        assert_eq!(ask(&[], &toc), Ok(("night/".into(), Some(17))));
        let with = [("verify-manifest", "_SUCCESS")];
        assert!(ask(&with, &toc).is_err());
        assert_eq!(
            ask(&with, &[("objectId", "db/night/_SUCCESS")]),
            Ok(("night/".into(), None))
        );
    }
}

//! Verifications that are due by the schedule.

use std::collections::HashSet;
use std::time::Duration;

use super::backup_catalog::BackupCatalog;
use super::backup_sets::SetListing;
use super::grouped_backups::DatabaseBackups;
use super::set_status::DatabaseStatus;
use super::whole_backups::leave_out_parts;
use crate::backup::newer_first;
use crate::error::{RestoreError, report as said};
use crate::job::{BackupRef, Generation, VerifyJob};
use crate::policy::Trigger;
use crate::proof::{Verdict, VerificationReport};
use crate::store::StoredObject;
use crate::verification::is_of;

impl BackupCatalog {
    /// Verifications that are due: the newest backup of each database of a set whose last proof is older than the
    /// schedule says, and with it some of the older ones, those that were never proven first. Backups that are known to
    /// hold only a part of a database are left out where there are others. A set that cannot be read,
    /// and a database whose newest backup may be where this account may not look, are logged and keep nothing else from
    /// its verification.
    pub async fn due(&self, now: jiff::Timestamp) -> Vec<VerifyJob> {
        let Some(every) = self.config.verify.schedule else {
            return vec![];
        };
        let mut jobs = Vec::new();
        for set in &self.config.verify.sets {
            match self.due_in_set(&set.name, every, now).await {
                Ok(due) => jobs.extend(due),
                Err(e) => tracing::warn!(
                    set = set.name,
                    error = said(&e),
                    "failed to compute the due verifications of a set"
                ),
            }
        }
        jobs
    }

    async fn due_in_set(
        &self,
        set: &str,
        every: Duration,
        now: jiff::Timestamp,
    ) -> Result<Vec<VerifyJob>, RestoreError> {
        // Workers that come to the same conclusion ask for the same verification. Two objects may have the same
        // generation: in a folder it is the time of the file.
        let turn = now.as_second() / i64::try_from(every.as_secs()).unwrap_or(i64::MAX).max(1);
        let job = |o: &StoredObject, trigger| {
            let id = format!("schedule:{set}:{}#{}:{turn}", o.name, o.generation);
            let backup = BackupRef::Named {
                place: None,
                name: o.name.clone(),
            };
            VerifyJob {
                generation: Some(o.generation),
                ..VerifyJob::new(id, backup, trigger)
            }
        };
        let mut reports = self.brief_reports_of(set).await?;
        reports.sort_by_key(|r| r.finished_at);
        let proven: HashSet<(String, String)> = reports
            .iter()
            .filter(|r| r.is_proof() || r.verdict == Verdict::Failed)
            .filter_map(|r| Some((r.backup.name.clone()?, r.backup.generation.clone()?)))
            .collect();
        let SetListing {
            mut backups,
            unlisted,
        } = self.listing_of_set(set).await?;
        if backups.is_empty() {
            unlisted.check_newest(None)?;
        }
        let live: HashSet<(String, Generation)> = backups
            .iter()
            .map(|o| (o.name.clone(), o.generation))
            .collect();
        let is_live = |o: &StoredObject| live.contains(&(o.name.clone(), o.generation));
        // A sample is also of those that were overwritten, in a bucket that keeps them.
        if self.config.verify.sample > 0 {
            backups.extend(self.former_backups_of_set(set).await?);
            backups.sort_by(newer_first);
        }
        let mut jobs = Vec::new();
        for mut own in self.by_database(backups, &reports).await {
            let former: Vec<StoredObject> = own.backups.extract_if(.., |o| !is_live(o)).collect();
            leave_out_parts(&mut own.backups, &reports);
            if !is_due(&own, &reports, every, now) {
                continue;
            }
            let Some((newest, older)) = own.backups.split_first() else {
                continue;
            };
            if let Err(e) = unlisted.check_newest(Some(newest)) {
                tracing::warn!(
                    set,
                    backup = newest.name,
                    error = said(&e),
                    "not verified by the schedule: a newer backup may be hidden"
                );
                continue;
            }
            jobs.push(job(newest, Trigger::Schedule));
            let mut sample: Vec<&StoredObject> = older.iter().chain(&former).collect();
            // The same in every look of a turn, also of other workers.
            fastrand::Rng::with_seed(turn.unsigned_abs()).shuffle(&mut sample);
            let is_proven =
                |o: &&StoredObject| proven.contains(&(o.name.clone(), o.generation.to_string()));
            sample.sort_by_key(is_proven);
            let sample = sample.into_iter().take(self.config.verify.sample);
            jobs.extend(sample.map(|o| job(o, Trigger::Sample)));
        }
        Ok(jobs)
    }
}

/// Whether the last proof of a database's backups, other than of a sample, is older than the schedule says.
fn is_due(
    own: &DatabaseBackups,
    reports: &[VerificationReport],
    every: Duration,
    now: jiff::Timestamp,
) -> bool {
    let mut status = DatabaseStatus::default();
    // A part is the newest one only where there is nothing else.
    let newest = own.backups.first();
    let counts = |r: &&VerificationReport| {
        r.proves_whole() || (r.is_proof() && newest.is_some_and(|o| is_of(r, o)))
    };
    reports
        .iter()
        .filter(|r| counts(r) && r.trigger != Trigger::Sample)
        .filter(|r| r.origin() == own.origin)
        .for_each(|r| status.add(r));
    let age = status
        .last_proof
        .map(|t| Duration::try_from(now.duration_since(t)).unwrap_or_default());
    age.is_none_or(|age| age >= every)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{archive_of, catalog_of, set_age, verified};
    use crate::error::StorageKind;
    use crate::store::faulty::{Call, StoreFault};

    /// The names of the backups that are due.
    async fn due(catalog: &BackupCatalog) -> Vec<String> {
        let jobs = catalog.due(jiff::Timestamp::now()).await;
        let name = |job: VerifyJob| match job.backup {
            BackupRef::Named { name, .. } => name,
            other => panic!("{other:?}"),
        };
        jobs.into_iter().map(name).collect()
    }

    #[tokio::test]
    async fn a_set_that_cannot_be_read_does_not_stop_the_others() {
        let files: &[(&str, &[u8])] =
            &[("app/a.dump", b"PGDMP\x01"), ("shop/s.dump", b"PGDMP\x01")];
        let flags = [
            ("verify-schedule", "24h"),
            ("backup-sets", "app=app/,shop=shop/"),
        ];
        let (_folder, store, catalog) = catalog_of(files, &flags).await;
        assert_eq!(due(&catalog).await, ["app/a.dump", "shop/s.dump"]);
        let denied = StoreFault::Error(StorageKind::AccessDenied);
        store.fail(Call::List, "app/", denied, 99);
        assert_eq!(due(&catalog).await, ["shop/s.dump"]);
    }

    #[tokio::test]
    async fn a_database_whose_newest_backup_may_be_hidden_does_not_stop_the_others() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[("a.dump", &app), ("s.dump", &shop)];
        let flags = [("verify-schedule", "24h")];
        let (folder, store, catalog) = catalog_of(files, &flags).await;
        set_age(&folder, "a.dump", 120);
        let hidden = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60);
        store.hide("private/", hidden);
        assert_eq!(due(&catalog).await, ["s.dump"]);
    }

    /// All objects are called alike, and the newest one names no database.
    #[tokio::test]
    async fn the_newest_backup_of_each_database_is_due_whatever_others_are_called() {
        const TEXT: &[u8] = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t ();\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
        let (shop, blog) = (archive_of("shop"), archive_of("blog"));
        let files: &[(&str, &[u8])] = &[
            ("backup-2026-11-01", &shop),
            ("backup-2026-11-02", &blog),
            ("backup-2026-11-03", TEXT),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[("verify-schedule", "24h")]).await;
        for (age, (name, _)) in files.iter().rev().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        let all = [
            "backup-2026-11-02",
            "backup-2026-11-01",
            "backup-2026-11-03",
        ];
        assert_eq!(due(&catalog).await, all);
        verified(&catalog, "r", all[2], |_| {}).await;
        // It is proven, and says nothing about the others.
        assert_eq!(due(&catalog).await, all[..2]);
    }

    /// Two objects of one generation are two verifications: in a folder, it is the time of the file.
    #[tokio::test]
    async fn each_object_has_an_id_of_its_own() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[("a.dump", &app), ("s.dump", &shop)];
        let (folder, _store, catalog) = catalog_of(files, &[("verify-schedule", "24h")]).await;
        let then = std::time::SystemTime::now() - Duration::from_secs(3600);
        for (name, _) in files {
            let path = folder.path().join(name);
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(then).unwrap();
        }
        let jobs = catalog.due(jiff::Timestamp::now()).await;
        assert_eq!(jobs.len(), 2);
        assert_eq!(jobs[0].generation, jobs[1].generation);
        assert_ne!(jobs[0].request_id, jobs[1].request_id);
        let generation = jobs[0].generation.unwrap();
        let ids = jobs.iter().map(|j| j.request_id.as_str());
        for (id, name) in ids.zip(["s.dump", "a.dump"]) {
            let begin = format!("schedule:default:{name}#{generation}:");
            assert!(id.starts_with(&begin), "{id}");
        }
    }
}

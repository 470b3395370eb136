//! Backup sets: their status, which is when each was last proven and how long a restore takes, and their reports and backups.

use std::collections::HashMap;
use std::time::Duration;

use super::backup_catalog::BackupCatalog;
use super::set_status::BackupSetStatus;
use crate::backup::{self, UnlistedPlaces};
use crate::error::{Blame, JobError, JobKind, RestoreError};
use crate::job::{BackupRef, VerifyJob};
use crate::policy::Trigger;
use crate::proof::{Verdict, VerificationReport};
use crate::store::StoredObject;
use crate::verification::{Found, SearchLimit, is_of};

/// Reports of a set that are looked at.
const READ: SearchLimit = SearchLimit {
    reports: 1_000,
    bytes: 16 << 20,
};

/// How long it may take to learn whether a backup need not be verified.
const LOOK_LIMIT: Duration = Duration::from_secs(300);

/// The backups of a set, newest first, and what may hide others.
pub(super) struct SetListing {
    pub backups: Vec<StoredObject>,
    pub unlisted: UnlistedPlaces,
}

impl BackupCatalog {
    /// How every set stands, from its evidence; told to the metrics, too, so that a worker that has
    /// just started does not look as if nothing had ever been proven.
    ///
    /// # Errors
    /// The store's own.
    pub async fn standing(&self) -> Result<Vec<BackupSetStatus>, RestoreError> {
        self.standing_of(|_| {}).await
    }

    /// The same; `seen` gets every report that it rests on.
    ///
    /// # Errors
    /// The store's own.
    pub async fn standing_of(
        &self,
        mut seen: impl FnMut(&VerificationReport) + Send,
    ) -> Result<Vec<BackupSetStatus>, RestoreError> {
        let mut all = Vec::new();
        let is_signed = !self.keyring()?.is_empty();
        for set in &self.config.verify.sets {
            let mut standing = BackupSetStatus::new(&set.name, is_signed);
            let of_set = |r: VerificationReport| {
                (r.backup_set == set.name).then(|| {
                    seen(&r);
                    r.brief()
                })
            };
            let Found {
                mut reports,
                is_limited,
                ..
            } = self.reports_in_turns(&set.name, of_set).await?;
            standing.is_limited = is_limited;
            reports.sort_by_key(|r| r.finished_at);
            reports.iter().for_each(|r| standing.add(r));
            if standing.databases.len() > 1 {
                let SetListing { backups, unlisted } = self.listing_of_set(&set.name).await?;
                // A database whose backups may be where this account may not look is not gone.
                if unlisted.is_empty() {
                    let there = self.by_database(backups, &reports).await;
                    standing.leave_out_gone(|d| {
                        let (origin, pattern) = (d.origin(), d.backups.as_str());
                        there.iter().any(|t| t.may_hold(&origin, pattern))
                    });
                }
            }
            self.tell_metrics(&standing);
            self.standing
                .lock()
                .insert(set.name.clone(), standing.clone());
            all.push(standing);
        }
        Ok(all)
    }

    /// Adds a proof to the status of its set, and tells the metrics.
    pub(crate) fn add_proof(&self, proof: &VerificationReport) {
        let mut all = self.standing.lock();
        let standing = all
            .entry(proof.backup_set.clone())
            .or_insert_with(|| BackupSetStatus::new(&proof.backup_set, false));
        standing.add(proof);
        self.tell_metrics(standing);
    }

    fn tell_metrics(&self, standing: &BackupSetStatus) {
        let at = standing
            .last_proof
            .map_or(0.0, |t| t.as_microsecond() as f64 / 1e6);
        self.metrics.record_proof(&standing.name, at);
        if let Some(rto) = &standing.rto {
            self.metrics
                .record_rto(&standing.name, rto.measured_seconds, rto.forecast_seconds);
        }
    }

    /// Reports of a set that count and were finished since then, newest first, at most `most`.
    ///
    /// # Errors
    /// The store's own.
    pub async fn reports_of(
        &self,
        set: &str,
        since: jiff::Timestamp,
        most: SearchLimit,
    ) -> Result<Found, RestoreError> {
        let of_set =
            |r: VerificationReport| (r.backup_set == set && r.finished_at >= since).then_some(r);
        self.take_reports(set, most, of_set).await
    }

    /// The newest of them, those of every name pattern, without what makes them long.
    pub(super) async fn brief_reports_of(
        &self,
        set: &str,
    ) -> Result<Vec<VerificationReport>, RestoreError> {
        let of_set = |r: VerificationReport| (r.backup_set == set).then(|| r.brief());
        Ok(self.reports_in_turns(set, of_set).await?.reports)
    }

    async fn reports_in_turns(
        &self,
        set: &str,
        wanted: impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) -> Result<Found, RestoreError> {
        let Some(evidence) = self.evidence(None).await? else {
            return Ok(Found::default());
        };
        let prefix = self.config.verify.prefix_of(set);
        evidence.reports_of_each(prefix, READ, wanted).await
    }

    async fn take_reports(
        &self,
        set: &str,
        most: SearchLimit,
        wanted: impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) -> Result<Found, RestoreError> {
        match self.evidence(None).await? {
            Some(evidence) => {
                evidence
                    .reports(self.config.verify.prefix_of(set), most, wanted)
                    .await
            }
            None => Ok(Found::default()),
        }
    }

    /// Whether another verification speaks for a backup that has just arrived: it is older than one of its
    /// set and database that is proven already, or a piece that came later will ask for the whole. Where
    /// evidence is not signed, the newer one must at least be there. Nor is an object verified that is none of ours.
    ///
    /// # Errors
    /// The store's own; `timeout` if that is not known within [`LOOK_LIMIT`].
    pub async fn is_outdated(&self, job: &VerifyJob) -> Result<bool, RestoreError> {
        let late = |_| {
            let what = format!("the evidence was not read within {LOOK_LIMIT:?}");
            Err(JobError::new(JobKind::Timeout, what).into())
        };
        tokio::time::timeout(LOOK_LIMIT, self.has_newer(job))
            .await
            .unwrap_or_else(late)
    }

    async fn has_newer(&self, job: &VerifyJob) -> Result<bool, RestoreError> {
        let may_be_piece = matches!(&job.backup, BackupRef::Named { name, .. } if backup::whole_of(name).is_some());
        if !self.config.verify.skip_older && !may_be_piece {
            return Ok(false);
        }
        let Some(pinned) = self.pin_unchecked(job, None).await? else {
            return Ok(false);
        };
        if self.is_excluded(&pinned) {
            return Ok(true);
        }
        pinned.check_pieces()?;
        let is_piece = !pinned.members.is_empty() && !pinned.is_folder();
        if is_piece
            && job
                .generation
                .is_some_and(|announced| announced < pinned.object.generation)
        {
            return Ok(true);
        }
        if !self.config.verify.skip_older {
            return Ok(false);
        }
        let set = self.config.verify.set_of(&pinned.object.name).to_owned();
        let created = Some(pinned.object.created);
        let is_newer = |r: VerificationReport| {
            let is_conclusive = r.proves_whole() || r.verdict == Verdict::Failed;
            let is_newer = is_conclusive && r.backup_set == set && r.backup_created > created;
            (is_newer && !is_of(&r, &pinned.object)).then(|| r.brief())
        };
        let Some(evidence) = self.evidence(None).await? else {
            return Ok(false);
        };
        // Its own database's come first: those of others could be all that is read.
        let place = (
            self.config.verify.prefix_of(&set),
            pinned.object.name.as_str(),
        );
        let newer = evidence.reports_like(place, READ, is_newer).await?;
        let mut newer = still_proven(newer.reports);
        if newer.is_empty() {
            return Ok(false);
        }
        if self.keyring()?.is_empty() {
            let there = self.backups_of_set(&set).await?;
            newer.retain(|r| {
                there
                    .iter()
                    .any(|o| is_of(r, o) && r.backup_created == Some(o.created))
            });
        }
        // One that cannot be opened is not left out: its verification says why.
        let Ok(origin) = self.origin_in(&pinned.object).await else {
            return Ok(false);
        };
        Ok(newer.iter().any(|r| r.origin() == origin))
    }

    /// Backups of a set that are listed, newest first.
    pub(crate) async fn backups_of_set(
        &self,
        set: &str,
    ) -> Result<Vec<StoredObject>, RestoreError> {
        Ok(self.listing_of_set(set).await?.backups)
    }

    pub(super) async fn listing_of_set(&self, set: &str) -> Result<SetListing, RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        let prefix = self.config.verify.prefix_of(set);
        let objects = backup::list_objects(store.as_ref(), prefix, false).await;
        let mut objects = objects.map_err(backup::of_bucket)?;
        let mut unlisted = UnlistedPlaces::take_from(store.as_ref(), &mut objects);
        unlisted.retain(|name| self.config.verify.set_of(name) == set);
        let mut all = backup::backups_of(store.as_ref(), objects, self.manifest()).await?;
        all.retain(|o| self.is_backup(&o.name) && self.config.verify.set_of(&o.name) == set);
        all.sort_by(backup::newer_first);
        Ok(SetListing {
            backups: all,
            unlisted,
        })
    }

    /// The backup that failed, if it is still there, and those of its set that were made before, newest first; also former
    /// generations of their names.
    pub(crate) async fn older_backups(
        &self,
        failed: &VerificationReport,
    ) -> Result<(Option<StoredObject>, Vec<StoredObject>), RestoreError> {
        let mut all = self.backups_of_set(&failed.backup_set).await?;
        all.extend(self.former_backups_of_set(&failed.backup_set).await?);
        let itself = all.iter().find(|o| is_of(failed, o)).cloned();
        let before = failed.backup_created.unwrap_or(failed.started_at);
        let subject = failed.subject();
        all.retain(|o| {
            let generation = o.generation.to_string();
            o.created <= before && subject != Some((o.name.as_str(), generation.as_str()))
        });
        all.sort_by(backup::newer_first);
        Ok((itself, all))
    }

    /// Whether the backups before this one are searched for the first bad one.
    pub(crate) fn is_bisected(&self, job: &VerifyJob, report: &VerificationReport) -> bool {
        self.config.verify.bisect > 0
            && !matches!(job.trigger, Trigger::Bisection | Trigger::SelfTest)
            && report.verdict == Verdict::Failed
            && report.blame() == Some(Blame::Backup)
            && report.backup.name.as_ref().is_some_and(|n| {
                report.backup.uri.as_deref() == Some(self.config.bucket.uri(n).as_str())
            })
    }
}

/// Of each backup the newest of these reports, which are proofs or failures, if it is a proof.
fn still_proven(mut reports: Vec<VerificationReport>) -> Vec<VerificationReport> {
    reports.sort_by_key(|r| r.finished_at);
    let about = reports.into_iter().filter_map(|r| {
        let (name, generation) = r.subject()?;
        Some(((name.to_owned(), generation.to_owned()), r))
    });
    let newest: HashMap<(String, String), VerificationReport> = about.collect();
    newest.into_values().filter(|r| r.is_proof()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{archive_of, catalog_of, set_age, verified};
    use crate::error::FailureReason as R;
    use crate::event::RestoreResult;
    use crate::job::Generation;
    use crate::store::BackupStore;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

    /// The verification that the arrival of an object asks for.
    async fn announced(store: &FaultyStore, name: &str) -> VerifyJob {
        let backup = BackupRef::Named {
            place: None,
            name: name.to_owned(),
        };
        VerifyJob {
            generation: Some(store.stat(name, None).await.unwrap().generation),
            ..VerifyJob::new("r", backup, Trigger::Notification)
        }
    }

    /// Of pieces, the newest one asks for the whole, whatever it is called; what beside them is no piece asks for nothing.
    #[tokio::test]
    async fn the_newest_piece_asks_for_the_whole() {
        let letter = |n: u8| char::from(b'a' + n);
        let names: Vec<String> = (0..44)
            .map(|n| format!("x.dump.{}{}", letter(n / 26), letter(n % 26)))
            .collect();
        let mut files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"_"[..])).collect();
        files[0].1 = b"PGDMP\x01";
        files.push(("x.dump.asc", b"-----BEGIN PGP SIGNATURE-----"));
        files.push(("x.dump.md", b"notes"));
        files.push(("y.dump.sha", b"0123"));
        for flags in [
            &[("verify-suffix", ".dump")][..],
            &[("verify-suffix", ".dump"), ("verify-older", "verify")],
        ] {
            let (folder, store, catalog) = catalog_of(&files, flags).await;
            for name in &names {
                set_age(&folder, name, 60);
            }
            set_age(&folder, "x.dump.br", 1);
            for (name, is_outdated) in [
                ("x.dump.br", false),
                ("x.dump.aa", true),
                ("x.dump.bq", true),
                ("x.dump.asc", true),
                ("x.dump.md", true),
                ("y.dump.sha", true),
            ] {
                let job = announced(&store, name).await;
                let is = catalog.is_outdated(&job).await.unwrap();
                assert_eq!(is, is_outdated, "{name} {flags:?}");
                let pinned = catalog.pin_job(&job, None).await;
                match name
                    .strip_prefix("x.dump.")
                    .filter(|c| c.len() == 2 && *c != "md")
                {
                    Some(_) => assert_eq!(pinned.unwrap().unwrap().object.name, "x.dump"),
                    None => assert_eq!(pinned.err().unwrap().reason(), R::BackupNotFound),
                }
            }
        }
    }

    /// Whose the newer one is cannot be told from what its object is called.
    #[tokio::test]
    async fn a_proof_without_a_database_name_makes_no_backup_of_a_named_one_outdated() {
        let (shop, blog) = (archive_of("shop"), archive_of("blog"));
        let text = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t ();\n";
        let files: &[(&str, &[u8])] = &[
            ("backup-2026-11-01", &shop),
            ("backup-2026-11-02", &blog),
            ("backup-2026-11-03", text),
        ];
        let (folder, store, catalog) = catalog_of(files, &[]).await;
        for (age, (name, _)) in files.iter().rev().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        let is_outdated = async |name| {
            let job = announced(&store, name).await;
            catalog.is_outdated(&job).await.unwrap()
        };
        verified(&catalog, "text", "backup-2026-11-03", |_| {}).await;
        assert!(!is_outdated("backup-2026-11-01").await);
        assert!(!is_outdated("backup-2026-11-02").await);
        let of_shop = |r: &mut VerificationReport| r.database = Some("shop".into());
        verified(&catalog, "shop", "backup-2026-11-03", of_shop).await;
        assert!(is_outdated("backup-2026-11-01").await);
        assert!(!is_outdated("backup-2026-11-02").await);
    }

    /// A connection that is half open does not keep a worker from its next backup.
    #[tokio::test(start_paused = true)]
    async fn a_look_at_earlier_evidence_ends() {
        let (_folder, store, catalog) = catalog_of(&[("a.dump", b"PGDMP\x01")], &[]).await;
        let job = announced(&store, "a.dump").await;
        store.fail(Call::List, "", StoreFault::Stall, 99);
        let e = catalog.is_outdated(&job).await.unwrap_err();
        assert_eq!(e.reason(), R::Timeout);
    }

    /// Nor does one that stalls while files are looked into.
    #[tokio::test(start_paused = true)]
    async fn a_listing_ends_when_a_read_stalls() {
        let files: &[(&str, &[u8])] = &[("x.aa", b"PGDMP\x01"), ("x.ab", b"_")];
        let (_folder, store, catalog) = catalog_of(files, &[]).await;
        store.fail(Call::Read, "x.ab", StoreFault::Stall, 1);
        let all = catalog.backups_of_set("default").await.unwrap();
        assert_eq!(all.len(), 1);
        // One that always stalls does not keep all others from being listed.
        store.fail(Call::Read, "x.ab", StoreFault::Stall, 5);
        let all = catalog.backups_of_set("default").await.unwrap();
        assert_eq!(all.len(), 2);
        store.fail(Call::Read, "x.", StoreFault::Stall, 99);
        let e = catalog.backups_of_set("default").await.unwrap_err();
        assert_eq!(e.reason(), R::DownloadFailed);
    }

    /// Beside each proven backup there are several objects of evidence: no listing of backups takes memory for them.
    #[tokio::test]
    async fn a_listing_of_backups_has_no_evidence() {
        let mut files: Vec<(String, &[u8])> = vec![("a.dump".to_owned(), &b"PGDMP\x01"[..])];
        let evidence = ["dsse.json", "report.json", "index.json", "html"];
        files.extend(evidence.map(|n| (format!("a.dump.pgrestored/17/r.{n}"), &b"{}"[..])));
        let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), *b)).collect();
        let (_folder, store, catalog) = catalog_of(&files, &[]).await;
        assert_eq!(catalog.backups_of_set("default").await.unwrap().len(), 1);
        let all = catalog.list_backups("").await.unwrap();
        assert!(all.len() == 1 && all[0].checksum.is_some());
        let latest = BackupRef::parse("latest", "").unwrap();
        catalog.pin(&latest, None, None).await.unwrap();
        let named = catalog.backups_of_database("", "app").await.unwrap();
        assert_eq!((named.0.len(), store.longest_listing()), (0, 1));
        assert_eq!(store.list("").await.unwrap().len(), 5);
        assert_eq!(store.longest_listing(), 5);
    }

    /// However many objects lie where evidence does, the backups beside them are listed.
    #[tokio::test]
    async fn evidence_takes_no_room_from_backups() {
        let files: &[(&str, &[u8])] = &[
            ("a.dump", b"PGDMP\x01"),
            ("a.dump.pgrestored/1/x.dsse.json", b"{}"),
            ("a.dump.pgrestored/1/y.dsse.json", b"{}"),
        ];
        let (_folder, store, catalog) = catalog_of(files, &[]).await;
        store.hold(1);
        let all = catalog.backups_of_set("default").await.unwrap();
        assert_eq!(all.len(), 1);
    }

    /// The schedule does not verify yesterday's backup because this account may not see today's.
    #[tokio::test]
    async fn nothing_is_due_while_the_newest_backup_is_not_known() {
        let files: &[(&str, &[u8])] = &[("a.dump", b"PGDMP\x01"), ("app/b.dump", b"PGDMP\x01")];
        let flags = [
            ("verify-schedule", "24h"),
            ("backup-sets", "app=app/"),
            ("verify-sample", "0"),
        ];
        let (_folder, store, catalog) = catalog_of(files, &flags).await;
        let now = jiff::Timestamp::now();
        let due = catalog.due(now).await.len();
        let day = jiff::SignedDuration::from_hours(24);
        store.hide("app/old/", now - day);
        assert_eq!(catalog.due(now).await.len(), due);
        assert!(due > 0);
        store.hide("app/today/", now + day);
        let is_of_app = |job: &VerifyJob| matches!(&job.backup, BackupRef::Named { name, .. } if name.starts_with("app/"));
        assert!(!catalog.due(now).await.iter().any(is_of_app));
        // The backups that can be seen are still known.
        assert_eq!(catalog.backups_of_set("app").await.unwrap().len(), 1);
    }

    /// What is asked of an object is not left out of account where none is named.
    #[tokio::test]
    async fn a_generation_is_refused_where_no_object_is_named() {
        let (_folder, _store, catalog) = catalog_of(&[("a.dump", b"PGDMP\x01")], &[]).await;
        let latest = BackupRef::parse("latest", "").unwrap();
        assert!(catalog.pin(&latest, None, None).await.is_ok());
        let crc32c = pgdump_archive::Crc32c(1);
        for wanted in [latest, BackupRef::Stdin] {
            for (generation, crc32c) in [
                (Some(Generation(5)), None),
                (None, Some(crc32c)),
                (Some(Generation(5)), Some(crc32c)),
            ] {
                let e = catalog
                    .pin(&wanted, generation, crc32c)
                    .await
                    .err()
                    .unwrap();
                assert_eq!(e.reason(), R::InvalidRequest);
            }
        }
    }

    /// A worker that starts knows the recorded outcomes, but none under another request's name.
    #[tokio::test]
    async fn recorded_outcomes_are_found_again() {
        let records = tempfile::tempdir().unwrap();
        let place = format!("file://{}", records.path().display());
        let flags = [("restore-records", place.as_str())];
        let (_folder, _store, catalog) = catalog_of(&[], &flags).await;
        assert_eq!(catalog.newest_recorded(5).await.unwrap(), Some(vec![]));
        let t = jiff::Timestamp::UNIX_EPOCH;
        for id in ["a", "b"] {
            let result = RestoreResult::new(id, (t, t));
            catalog.record("digest", &result).await.unwrap();
        }
        assert_eq!(catalog.newest_recorded(1).await.unwrap().unwrap().len(), 1);
        let folder = records.path().join("outcomes.pgrestored");
        std::fs::copy(folder.join("a.json"), folder.join("c.json")).unwrap();
        let found = catalog.newest_recorded(5).await.unwrap().unwrap();
        let mut ids: Vec<&str> = found.iter().map(|r| r.request_id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["a", "b"]);
        let (_folder, _store, without) = catalog_of(&[], &[]).await;
        assert_eq!(without.newest_recorded(5).await.unwrap(), None);
    }

    /// What was decided about a directory is not done to another one, although its table of contents is the same.
    #[tokio::test]
    async fn a_directory_of_which_a_member_was_replaced_is_not_deleted() {
        let files: &[(&str, &[u8])] = &[
            ("night/toc.dat", b"PGDMP\x01\x0e\0\x04\x08\x03"),
            ("night/1.dat", b"1\n"),
        ];
        let (folder, store, catalog) = catalog_of(files, &[]).await;
        set_age(&folder, "night/toc.dat", 60);
        set_age(&folder, "night/1.dat", 61);
        let all = catalog.backups_of_set("default").await.unwrap();
        set_age(&folder, "night/1.dat", 1);
        let e = catalog.delete_backup(&all[0]).await.unwrap_err();
        assert_eq!(e.reason(), R::BackupChanged);
        assert_eq!(store.list("").await.unwrap().len(), 2);
        let all = catalog.backups_of_set("default").await.unwrap();
        catalog.delete_backup(&all[0]).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), vec![]);
    }

    /// The manifest of a directory dump is no backup of the set, and goes with the dump.
    #[tokio::test]
    async fn a_manifest_is_deleted_with_its_directory() {
        let files: &[(&str, &[u8])] = &[
            ("night/toc.dat", b"PGDMP\x01\x0e\0\x04\x08\x03"),
            ("night/_SUCCESS", b""),
        ];
        let flags = [("verify-manifest", "_SUCCESS")];
        let (_folder, store, catalog) = catalog_of(files, &flags).await;
        let all = catalog.backups_of_set("default").await.unwrap();
        let names: Vec<&str> = all.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, ["night/"]);
        catalog.delete_backup(&all[0]).await.unwrap();
        assert_eq!(store.list("").await.unwrap(), vec![]);
    }
}

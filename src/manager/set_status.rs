//! How the sets of backups stand: when each was last proven, how long it takes, what is due.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::RestoreManager;
use crate::backup::{self, PinnedBackup, ReadHint, Source};
use crate::error::{Blame, FailureReason as R, RestoreError, StorageError, report as said};
use crate::job::{BackupRef, VerifyJob};
use crate::policy::{Depth, Trigger};
use crate::proof::{BackupOrigin, Rto, Verdict, VerificationReport};
use crate::retention::{Candidate, Decision, RetentionRules, decide};
use crate::store::StoredObject;
use crate::verification::{Evidence, Found, is_of};
use pgdump_archive::{is_recognized, member_name};

/// Reports of a set that are looked at.
const READ: usize = 200;
/// Bytes that a dump is known by.
const HEAD: u64 = 8 << 10;

/// A set of backups, as its evidence says.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SetStanding")]
pub struct BackupSetStatus {
    pub name: String,
    /// When a backup of it was last proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_proof: Option<jiff::Timestamp>,
    /// The newest backup that was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_backup: Option<String>,
    /// When that backup was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_created: Option<jiff::Timestamp>,
    /// How far it was looked at: `restore` or `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_depth: Option<Depth>,
    /// Of the last verification that restored, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Rto>,
    /// Whether this rests on signed evidence alone.
    #[serde(default)]
    pub is_signed: bool,
}

impl BackupSetStatus {
    fn new(name: &str, is_signed: bool) -> Self {
        BackupSetStatus {
            name: name.to_owned(),
            last_proof: None,
            proven_backup: None,
            proven_created: None,
            proven_depth: None,
            last_verdict: None,
            rto: None,
            is_signed,
        }
    }

    /// What a verification adds to it. An older backup that is proven afterwards, as a sample, makes
    /// the newest one no better proven; one that was not restored says nothing good of the set.
    pub fn add(&mut self, report: &VerificationReport) {
        if report.is_verified() && !report.is_proof() {
            return;
        }
        self.last_verdict = Some(report.verdict);
        if report.is_proof() && report.backup_created >= self.proven_created {
            self.last_proof = Some(report.finished_at);
            self.proven_backup = report.backup.name.clone();
            self.proven_created = report.backup_created;
            self.proven_depth = report.depth;
            self.rto = report.rto.or(self.rto);
        }
    }
}

fn left_alone(name: &str, why: &str) -> RestoreError {
    StorageError::new(
        R::ArchiveUnsupported,
        format!("{name}: nothing was deleted: {why}"),
    )
    .into()
}

impl RestoreManager {
    /// How every set stands, from its evidence; told to the metrics, too, so that a worker that has
    /// just started does not look as if nothing had ever been proven.
    ///
    /// # Errors
    /// The store's own.
    pub async fn standing(&self) -> Result<Vec<BackupSetStatus>, RestoreError> {
        let mut all = Vec::new();
        let is_signed = !self.keyring()?.is_empty();
        for set in &self.config.verify.sets {
            let mut standing = BackupSetStatus::new(&set.name, is_signed);
            let mut reports = self.brief_reports_of(&set.name).await?;
            reports.sort_by_key(|r| r.finished_at);
            reports.iter().for_each(|r| standing.add(r));
            let at = standing
                .last_proof
                .map_or(0.0, |t| t.as_microsecond() as f64 / 1e6);
            self.metrics.record_proof(&set.name, at);
            if let Some(created) = standing.proven_created {
                self.is_newest_proof(&set.name, created);
            }
            if let Some(rto) = &standing.rto {
                self.metrics
                    .record_rto(&set.name, rto.measured_seconds, rto.forecast_seconds);
            }
            all.push(standing);
        }
        Ok(all)
    }

    /// Whether no newer backup of the set than one made at `created` is known to be proven.
    pub(super) fn is_newest_proof(&self, set: &str, created: jiff::Timestamp) -> bool {
        let mut newest = self.newest_proven.lock();
        let known = newest.entry(set.to_owned()).or_insert(created);
        *known = created.max(*known);
        *known == created
    }

    /// Reports of a set that count, newest first, at most `most`.
    ///
    /// # Errors
    /// The store's own.
    pub async fn reports_of(
        &self,
        set: &str,
        most: usize,
    ) -> Result<Found<VerificationReport>, RestoreError> {
        let of_set = |r: VerificationReport| (r.backup_set == set).then_some(r);
        self.take_reports(set, most, of_set).await
    }

    /// The newest of them, without what makes them long.
    async fn brief_reports_of(&self, set: &str) -> Result<Vec<VerificationReport>, RestoreError> {
        let of_set = |r: VerificationReport| (r.backup_set == set).then(|| r.brief());
        Ok(self.take_reports(set, READ, of_set).await?.reports)
    }

    async fn take_reports(
        &self,
        set: &str,
        most: usize,
        wanted: impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) -> Result<Found<VerificationReport>, RestoreError> {
        match self.evidence(None).await? {
            Some(evidence) => {
                evidence
                    .reports(self.config.verify.prefix_of(set), most, wanted)
                    .await
            }
            None => Ok(Found {
                reports: vec![],
                refused: 0,
                is_flooded: false,
            }),
        }
    }

    /// Whether another verification speaks for a backup that has just arrived: it is older than one of its
    /// set and database that is proven already, or a piece that came later will ask for the whole. Where
    /// evidence is not signed, the newer one must at least be there.
    ///
    /// # Errors
    /// The store's own.
    pub async fn is_outdated(&self, job: &VerifyJob) -> Result<bool, RestoreError> {
        let is_piece = matches!(&job.backup, BackupRef::Named { name, .. } if backup::whole_of(name).is_some());
        if !self.config.verify.skip_older && !is_piece {
            return Ok(false);
        }
        let Some(pinned) = self.pin_job(job, None).await? else {
            return Ok(false);
        };
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
            let is_newer = r.is_proof() && r.backup_set == set && r.backup_created > created;
            (is_newer && !is_of(&r, &pinned.object)).then(|| r.brief())
        };
        let mut newer = self.take_reports(&set, READ, is_newer).await?.reports;
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
        let Ok(database) = self.database_of(&pinned).await else {
            return Ok(false);
        };
        let origin = BackupOrigin::new(database, &pinned.object.name);
        Ok(newer.iter().any(|r| r.origin().is_same(&origin)))
    }

    /// The name of the database that a backup says it is of, from its first bytes.
    async fn database_of(&self, pinned: &PinnedBackup) -> Result<Option<String>, RestoreError> {
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let source = Source::Object(pinned.clone());
        let (archive, _) = self
            .read(source, ReadHint::Beginning, Default::default(), stop)
            .await?;
        Ok(archive.header().database.clone())
    }

    /// What is to become of each backup of a set, newest first. Nothing goes on the word of evidence that
    /// anybody could have written, unless `trust_unsigned`.
    ///
    /// # Errors
    /// The store's own.
    pub async fn retention(
        &self,
        set: &str,
        trust_unsigned: bool,
    ) -> Result<Vec<Decision>, RestoreError> {
        let rules = RetentionRules {
            days: self.config.retention_days,
            floor: self.config.verify.retention_min,
        };
        let (now, backups) = (jiff::Timestamp::now(), self.backups_of_set(set).await?);
        let evidence = self.evidence(None).await?;
        let is_unsigned = evidence.as_ref().is_some_and(|e| !e.is_signed()) && !trust_unsigned;
        let mut candidates = Vec::with_capacity(backups.len());
        let mut documents = match evidence.as_ref().filter(|_| !is_unsigned) {
            Some(evidence) => evidence.folders(self.config.verify.prefix_of(set)).await?,
            None => Default::default(),
        };
        for (place, object) in backups.into_iter().enumerate() {
            let beside = documents
                .remove(&Evidence::folder(&object))
                .unwrap_or_default();
            let reports = match &evidence {
                Some(evidence) => evidence.about(&object, beside).await?,
                None => vec![],
            };
            let may_go = rules.keeps(place, &object, now).is_none();
            candidates.push(
                self.candidate(object, &reports, may_go && !is_unsigned)
                    .await,
            );
        }
        let mut decisions = decide(candidates, now, rules);
        if is_unsigned {
            let why = "evidence is not signed: set EVIDENCE_SIGNING_KEY_FILE, or EVIDENCE_TRUSTED_KEYS_FILE where the workers sign";
            let old = decisions.iter_mut().enumerate();
            old.filter(|(i, d)| rules.keeps(*i, &d.object, now).is_none())
                .for_each(|(_, d)| why.clone_into(&mut d.why));
        }
        Ok(decisions)
    }

    /// What is known of a backup: the last answer that restored it or found it bad, and its database; of
    /// one that `may_go` and that no answer names one of, from its own first bytes.
    async fn candidate(
        &self,
        object: StoredObject,
        reports: &[VerificationReport],
        may_go: bool,
    ) -> Candidate {
        let conclusive = reports
            .iter()
            .filter(|r| r.is_proof() || r.verdict == Verdict::Failed);
        let proven = conclusive
            .max_by_key(|r| r.finished_at)
            .is_some_and(VerificationReport::is_proof);
        let database = reports.iter().find_map(|r| r.database.clone());
        let database = match database {
            None if may_go || proven => {
                let read = async {
                    let store = self.stores.at(&self.config.bucket).await?;
                    let pinned =
                        backup::pin(store, &object.name, Some(object.generation), None).await?;
                    self.database_of(&pinned).await
                };
                read.await
            }
            known => Ok(known),
        };
        let origin = match database {
            Ok(database) => Ok(BackupOrigin::new(database, &object.name)),
            Err(e) => Err(format!(
                "which database it is of cannot be told: {}",
                said(&e)
            )),
        };
        Candidate {
            object,
            proven,
            origin,
        }
    }

    /// Deletes a backup, exactly the generation that was decided on; its evidence stays. Of a
    /// directory, the table of contents goes last, and of pieces the first one: what is left of an
    /// interrupted deletion is still seen as a backup, and goes with the next one. What is no dump, and a
    /// folder that holds anything else, is left as it is.
    ///
    /// # Errors
    /// `backup_changed`, `archive_unsupported` for what is no dump and folders with other files,
    /// `access_denied`, `download_failed`.
    pub async fn delete_backup(&self, object: &StoredObject) -> Result<(), RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        let pinned =
            backup::pin(store.clone(), &object.name, Some(object.generation), None).await?;
        if pinned.object != *object
            && (pinned.object.name != object.name || pinned.object.size != object.size)
        {
            let what = format!("{}: it is another backup by now", object.name);
            return Err(StorageError::new(R::BackupChanged, what).into());
        }
        self.check_is_dump(&pinned).await?;
        if pinned.members.is_empty() {
            return Ok(store.delete(object).await?);
        }
        let mut members: Vec<&StoredObject> = pinned.members.iter().rev().collect();
        if pinned.is_folder() {
            let file = |o: &StoredObject| o.name[object.name.len()..].to_owned();
            let manifest = self.config.verify.manifest.as_str();
            let files = backup::files_of(store.as_ref(), &object.name).await?;
            let stranger = files
                .iter()
                .map(file)
                .find(|f| !member_name::is_pg_dump_file(f) && f != manifest);
            if let Some(stranger) = stranger {
                let what =
                    format!("it also holds {stranger:?}, which is of no dump: move that elsewhere");
                return Err(left_alone(&object.name, &what));
            }
            members.sort_by_key(|m| member_name::is_toc(&file(m)));
        }
        for member in members {
            store.delete(member).await?;
        }
        Ok(())
    }

    /// Refuses what does not look like a dump: it is somebody's file that lies among the backups. A damaged
    /// dump, and one that is encrypted with a key that is not here, still looks like one.
    async fn check_is_dump(&self, pinned: &PinnedBackup) -> Result<(), RestoreError> {
        let stop = CancellationToken::new();
        let source = Source::Object(pinned.clone());
        let opened = self
            .read(source, ReadHint::Beginning, Arc::default(), stop.clone())
            .await;
        stop.cancel();
        let e = match opened {
            // Written by hand or by another tool: that it is a backup is not known.
            Ok((archive, _)) if archive.is_generic_sql() => {
                return Err(left_alone(
                    &pinned.object.name,
                    "it is SQL text that pg_dump did not write",
                ));
            }
            Ok(_) => return Ok(()),
            // Of a whole cluster, where no database is named.
            Err(e) if e.reason() == R::InvalidRequest => return Ok(()),
            Err(e) if !matches!(e.reason(), R::ArchiveUnsupported | R::ArchiveCorrupt) => {
                return Err(e);
            }
            Err(e) => e,
        };
        let is_other = e.reason() == R::ArchiveUnsupported && e.blame() == Blame::Backup;
        let first = pinned.members.first().unwrap_or(&pinned.object);
        if !is_other && (pinned.is_folder() || is_recognized(&self.head_of(pinned, first).await?)) {
            return Ok(());
        }
        Err(left_alone(
            &pinned.object.name,
            &format!("it is not known to be a dump ({e})"),
        ))
    }

    /// The first bytes of an object.
    async fn head_of(
        &self,
        pinned: &PinnedBackup,
        object: &StoredObject,
    ) -> Result<Vec<u8>, RestoreError> {
        let chunks = pinned
            .store
            .read(object, 0, Some(object.size.min(HEAD)))
            .await?;
        let add = |mut all: Vec<u8>, c: bytes::Bytes| async move {
            all.extend_from_slice(&c);
            Ok(all)
        };
        Ok(chunks.try_fold(Vec::new(), add).await?)
    }

    /// Verifications that are due: the newest backup of each set whose last proof is older than the
    /// schedule says, and with it some of the older ones, those that were never proven first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn due(&self, now: jiff::Timestamp) -> Result<Vec<VerifyJob>, RestoreError> {
        let Some(every) = self.config.verify.schedule else {
            return Ok(vec![]);
        };
        let mut jobs = Vec::new();
        for set in &self.config.verify.sets {
            let mut reports = self.brief_reports_of(&set.name).await?;
            reports.sort_by_key(|r| r.finished_at);
            let mut standing = BackupSetStatus::new(&set.name, false);
            reports
                .iter()
                .filter(|r| r.trigger != Trigger::Sample)
                .for_each(|r| standing.add(r));
            let age = standing
                .last_proof
                .map(|t| Duration::try_from(now.duration_since(t)).unwrap_or_default());
            if age.is_some_and(|age| age < every) {
                continue;
            }
            let backups = self.backups_of_set(&set.name).await?;
            let Some((newest, older)) = backups.split_first() else {
                continue;
            };
            // Workers that come to the same conclusion ask for the same verification.
            let turn = now.as_second() / i64::try_from(every.as_secs()).unwrap_or(i64::MAX).max(1);
            let job = |o: &StoredObject, trigger| {
                let id = format!("schedule:{}:{}:{turn}", set.name, o.generation);
                let backup = BackupRef::Named {
                    place: None,
                    name: o.name.clone(),
                };
                VerifyJob {
                    generation: Some(o.generation),
                    ..VerifyJob::new(id, backup, trigger)
                }
            };
            jobs.push(job(newest, Trigger::Schedule));
            let proven: HashSet<(String, String)> = reports
                .iter()
                .filter(|r| r.is_proof() || r.verdict == Verdict::Failed)
                .filter_map(|r| Some((r.backup.name.clone()?, r.backup.generation.clone()?)))
                .collect();
            let mut sample: Vec<&StoredObject> = older.iter().collect();
            // The same in every look of a turn, also of other workers.
            fastrand::Rng::with_seed(turn.unsigned_abs()).shuffle(&mut sample);
            sample.sort_by_key(|o| proven.contains(&(o.name.clone(), o.generation.to_string())));
            jobs.extend(
                sample
                    .into_iter()
                    .take(self.config.verify.sample)
                    .map(|o| job(o, Trigger::Sample)),
            );
        }
        Ok(jobs)
    }
}

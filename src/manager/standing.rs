//! How the sets of backups stand: when each was last proven, how long it takes, what is due.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::RestoreManager;
use crate::archive::{is_recognised, member_name};
use crate::backup::{self, PinnedBackup, Reach, Source};
use crate::error::{Blame, FailureReason as R, RestoreError, StorageError};
use crate::job::{BackupRef, VerifyJob};
use crate::policy::{Depth, Trigger};
use crate::proof::{ProofReport, Rto, Verdict};
use crate::retention::{Decision, Rules, decide};
use crate::store::StoredObject;

/// Reports of a set that are looked at.
const READ: usize = 200;
/// Bytes that a dump is known by.
const HEAD: u64 = 8 << 10;

/// A set of backups, as its evidence says.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct SetStanding {
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verdict: Option<Verdict>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Rto>,
}

impl SetStanding {
    /// What a verification adds to it. An older backup that is proven afterwards, as a sample, makes
    /// the newest one no better proven.
    pub fn add(&mut self, report: &ProofReport) {
        self.last_verdict = Some(report.verdict);
        if report.is_verified() && report.backup_created >= self.proven_created {
            self.last_proof = Some(report.finished_at);
            self.proven_backup = report.backup.name.clone();
            self.proven_created = report.backup_created;
            self.rto = report.rto.or(self.rto);
        }
    }
}

fn left_alone(name: &str, why: &str) -> RestoreError {
    StorageError::new(R::ArchiveUnsupported, format!("{name}: nothing was deleted: {why}")).into()
}

impl RestoreManager {
    /// How every set stands, from its evidence; told to the metrics, too, so that a worker that has
    /// just started does not look as if nothing had ever been proven.
    ///
    /// # Errors
    /// The store's own.
    pub async fn standing(&self) -> Result<Vec<SetStanding>, RestoreError> {
        let mut all = Vec::new();
        for set in &self.config.verify.sets {
            let mut standing = SetStanding {
                name: set.name.clone(),
                last_proof: None,
                proven_backup: None,
                proven_created: None,
                last_verdict: None,
                rto: None,
            };
            let mut reports = self.reports_of(&set.name, READ).await?;
            reports.sort_by_key(|r| r.finished_at);
            reports.iter().for_each(|r| standing.add(r));
            let at = standing.last_proof.map_or(0.0, |t| t.as_microsecond() as f64 / 1e6);
            self.metrics.record_proof(&set.name, at);
            if let Some(rto) = &standing.rto {
                self.metrics.record_rto(&set.name, rto.measured_seconds, rto.forecast_seconds);
            }
            all.push(standing);
        }
        Ok(all)
    }

    /// Reports of a set, newest first, at most `most`.
    ///
    /// # Errors
    /// The store's own.
    pub async fn reports_of(&self, set: &str, most: usize) -> Result<Vec<ProofReport>, RestoreError> {
        let Some(evidence) = self.evidence(None).await? else { return Ok(vec![]) };
        evidence.reports(self.config.verify.prefix_of(set), most, |r| r.backup_set == set).await
    }

    /// Whether another verification speaks for a backup that has just arrived: it is older than one of its
    /// set that is proven already, or a piece that came later will ask for the whole.
    ///
    /// # Errors
    /// The store's own.
    pub async fn is_outdated(&self, job: &VerifyJob) -> Result<bool, RestoreError> {
        let is_piece =
            matches!(&job.backup, BackupRef::Named { name, .. } if backup::whole_of(name).is_some());
        if !self.config.verify.skip_older && !is_piece {
            return Ok(false);
        }
        let Some(pinned) = self.pin(&job.backup, job.generation, None).await? else { return Ok(false) };
        if is_piece && job.generation < Some(pinned.object.generation) {
            return Ok(true);
        }
        if !self.config.verify.skip_older {
            return Ok(false);
        }
        let set = self.config.verify.set_of(&pinned.object.name).to_owned();
        let Some(evidence) = self.evidence(None).await? else { return Ok(false) };
        let generation = pinned.object.generation.to_string();
        let newer = evidence
            .reports(self.config.verify.prefix_of(&set), 1, |r| {
                let is_other = r.backup.name.as_ref() != Some(&pinned.object.name)
                    || r.backup.generation.as_ref() != Some(&generation);
                r.is_verified()
                    && r.backup_set == set
                    && is_other
                    && r.backup_created > Some(pinned.object.created)
            })
            .await?;
        Ok(!newer.is_empty())
    }

    /// What is to become of each backup of a set, newest first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn retention(&self, set: &str) -> Result<Vec<Decision>, RestoreError> {
        let reports = self.reports_of(set, usize::MAX).await?;
        let restored = reports.iter().filter(|r| r.is_verified() && r.depth >= Some(Depth::Restore));
        let proven: HashSet<(String, String)> =
            restored.filter_map(|r| Some((r.backup.name.clone()?, r.backup.generation.clone()?))).collect();
        let rules = Rules { days: self.config.retention_days, floor: self.config.verify.retention_min };
        Ok(decide(self.backups_of_set(set).await?, &proven, jiff::Timestamp::now(), rules))
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
        let pinned = backup::pin(store.clone(), &object.name, Some(object.generation), None).await?;
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
            let stranger = files.iter().map(file).find(|f| !member_name::is_known(f) && f != manifest);
            if let Some(stranger) = stranger {
                let what = format!("it also holds {stranger:?}, which is of no dump: move that elsewhere");
                return Err(left_alone(&object.name, &what));
            }
            members.sort_by_key(|m| member_name::is_contents(&file(m)));
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
        let opened = self.read(source, Reach::Beginning, Arc::default(), stop.clone()).await;
        stop.cancel();
        let e = match opened {
            Ok(_) => return Ok(()),
            Err(e) if !matches!(e.reason(), R::ArchiveUnsupported | R::ArchiveCorrupt) => return Err(e),
            Err(e) => e,
        };
        let is_other = e.reason() == R::ArchiveUnsupported && e.blame() == Blame::Backup;
        let first = pinned.members.first().unwrap_or(&pinned.object);
        if !is_other && (pinned.is_folder() || is_recognised(&self.head_of(pinned, first).await?)) {
            return Ok(());
        }
        Err(left_alone(&pinned.object.name, &format!("it is not known to be a dump ({e})")))
    }

    /// The first bytes of an object.
    async fn head_of(&self, pinned: &PinnedBackup, object: &StoredObject) -> Result<Vec<u8>, RestoreError> {
        let chunks = pinned.store.read(object, 0, Some(object.size.min(HEAD))).await?;
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
        let Some(every) = self.config.verify.schedule else { return Ok(vec![]) };
        let mut jobs = Vec::new();
        for set in &self.config.verify.sets {
            let reports = self.reports_of(&set.name, READ).await?;
            let is_fresh = |r: &ProofReport| {
                let age = Duration::try_from(now.duration_since(r.finished_at)).unwrap_or_default();
                r.is_verified() && r.trigger != Trigger::Sample && age < every
            };
            if reports.iter().any(is_fresh) {
                continue;
            }
            let backups = self.backups_of_set(&set.name).await?;
            let Some((newest, older)) = backups.split_first() else { continue };
            // Workers that come to the same conclusion ask for the same verification.
            let turn = now.as_second() / i64::try_from(every.as_secs()).unwrap_or(i64::MAX).max(1);
            let job = |o: &StoredObject, trigger| {
                let id = format!("schedule:{}:{}:{turn}", set.name, o.generation);
                let backup = BackupRef::Named { place: None, name: o.name.clone() };
                VerifyJob { generation: Some(o.generation), ..VerifyJob::new(id, backup, trigger) }
            };
            jobs.push(job(newest, Trigger::Schedule));
            let proven: HashSet<(String, String)> = reports
                .iter()
                .filter_map(|r| Some((r.backup.name.clone()?, r.backup.generation.clone()?)))
                .collect();
            let mut sample: Vec<&StoredObject> = older.iter().collect();
            // The same in every look of a turn, also of other workers.
            fastrand::Rng::with_seed(turn.unsigned_abs()).shuffle(&mut sample);
            sample.sort_by_key(|o| proven.contains(&(o.name.clone(), o.generation.to_string())));
            jobs.extend(sample.into_iter().take(self.config.verify.sample).map(|o| job(o, Trigger::Sample)));
        }
        Ok(jobs)
    }
}

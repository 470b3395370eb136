//! How the sets of backups stand: when each was last proven, how long it takes, what is due.

use std::collections::HashSet;
use std::time::Duration;

use super::RestoreManager;
use crate::backup;
use crate::error::RestoreError;
use crate::job::{BackupRef, VerifyJob};
use crate::policy::{Depth, Trigger};
use crate::proof::{ProofReport, Rto, Verdict};
use crate::retention::{Decision, Rules, decide};
use crate::store::StoredObject;

/// Reports of a set that are looked at.
const READ: usize = 200;

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

    /// Whether a backup that has just arrived is older than one of its set that is proven already.
    ///
    /// # Errors
    /// The store's own.
    pub async fn is_outdated(&self, job: &VerifyJob) -> Result<bool, RestoreError> {
        if !self.config.verify.skip_older {
            return Ok(false);
        }
        let Some(pinned) = self.pin(&job.backup, job.generation, None).await? else { return Ok(false) };
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
    /// directory, the table of contents goes last: what is left of an interrupted deletion is still
    /// seen as a backup, and goes with the next one.
    ///
    /// # Errors
    /// `backup_changed`, `access_denied`, `download_failed`.
    pub async fn delete_backup(&self, object: &StoredObject) -> Result<(), RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        if !object.name.ends_with('/') {
            return Ok(store.delete(object).await?);
        }
        let pinned = backup::pin(store.clone(), &object.name, Some(object.generation), None).await?;
        let (toc, members): (Vec<_>, Vec<_>) =
            pinned.members.iter().partition(|m| m.name.trim_end_matches(".gz").ends_with("/toc.dat"));
        for member in members.into_iter().chain(toc) {
            store.delete(member).await?;
        }
        Ok(())
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

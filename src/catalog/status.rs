//! The status of each set of backups: when it was last proven, and how long a restore takes.

use tokio_util::sync::CancellationToken;

use super::backup_catalog::BackupCatalog;
use crate::backup::{self, PinnedBackup, ReadHint, Source};
use crate::error::{Blame, RestoreError};
use crate::job::{BackupRef, VerifyJob};
use crate::policy::{Depth, Trigger};
use crate::proof::{BackupOrigin, Rto, Verdict, VerificationReport};
use crate::store::StoredObject;
use crate::verification::{Found, is_of};

/// Reports of a set that are looked at.
const READ: usize = 200;

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
    pub(super) fn new(name: &str, is_signed: bool) -> Self {
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

impl BackupCatalog {
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
    pub(crate) fn is_newest_proof(&self, set: &str, created: jiff::Timestamp) -> bool {
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
    pub(super) async fn brief_reports_of(
        &self,
        set: &str,
    ) -> Result<Vec<VerificationReport>, RestoreError> {
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
    pub(super) async fn database_of(
        &self,
        pinned: &PinnedBackup,
    ) -> Result<Option<String>, RestoreError> {
        let stop = CancellationToken::new();
        let _guard = stop.clone().drop_guard();
        let source = Source::Object(pinned.clone());
        let (archive, _) = self
            .read(source, ReadHint::Beginning, Default::default(), stop)
            .await?;
        Ok(archive.header().database.clone())
    }

    /// Backups of a set, newest first.
    pub(crate) async fn backups_of_set(
        &self,
        set: &str,
    ) -> Result<Vec<StoredObject>, RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        let objects = store.members(self.config.verify.prefix_of(set)).await?;
        let mut all = backup::backups_of(store.as_ref(), objects).await?;
        all.retain(|o| self.is_backup(&o.name) && self.config.verify.set_of(&o.name) == set);
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name)));
        Ok(all)
    }

    /// Backups of the same set that were made before, newest first.
    pub(crate) async fn older_backups(
        &self,
        failed: &VerificationReport,
    ) -> Result<Vec<StoredObject>, RestoreError> {
        let mut all = self.backups_of_set(&failed.backup_set).await?;
        let before = failed.backup_created.unwrap_or(failed.started_at);
        all.retain(|o| o.created <= before && Some(&o.name) != failed.backup.name.as_ref());
        Ok(all)
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

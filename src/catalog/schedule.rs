//! Verifications that are due by the schedule.

use std::collections::HashSet;
use std::time::Duration;

use super::backup_catalog::BackupCatalog;
use super::grouped_backups::DatabaseBackups;
use super::set_status::DatabaseStatus;
use super::status::SetListing;
use crate::error::RestoreError;
use crate::job::{BackupRef, VerifyJob};
use crate::policy::Trigger;
use crate::proof::{Verdict, VerificationReport};
use crate::store::StoredObject;

impl BackupCatalog {
    /// Verifications that are due: the newest backup of each database of a set whose last proof is older than the
    /// schedule says, and with it some of the older ones, those that were never proven first.
    ///
    /// # Errors
    /// The store's own; `access_denied` if the newest backup of a database may be where this account may not look.
    pub async fn due(&self, now: jiff::Timestamp) -> Result<Vec<VerifyJob>, RestoreError> {
        let Some(every) = self.config.verify.schedule else {
            return Ok(vec![]);
        };
        // Workers that come to the same conclusion ask for the same verification.
        let turn = now.as_second() / i64::try_from(every.as_secs()).unwrap_or(i64::MAX).max(1);
        let job = |set: &str, o: &StoredObject, trigger| {
            let id = format!("schedule:{set}:{}:{turn}", o.generation);
            let backup = BackupRef::Named {
                place: None,
                name: o.name.clone(),
            };
            VerifyJob {
                generation: Some(o.generation),
                ..VerifyJob::new(id, backup, trigger)
            }
        };
        let mut jobs = Vec::new();
        for set in &self.config.verify.sets {
            let mut reports = self.brief_reports_of(&set.name).await?;
            reports.sort_by_key(|r| r.finished_at);
            let proven: HashSet<(String, String)> = reports
                .iter()
                .filter(|r| r.is_proof() || r.verdict == Verdict::Failed)
                .filter_map(|r| Some((r.backup.name.clone()?, r.backup.generation.clone()?)))
                .collect();
            let SetListing { backups, unlisted } = self.listing_of_set(&set.name).await?;
            if backups.is_empty() {
                unlisted.check_newest(None)?;
            }
            for own in self.by_database(backups, &reports).await {
                if !is_due(&own, &reports, every, now) {
                    continue;
                }
                let Some((newest, older)) = own.backups.split_first() else {
                    continue;
                };
                unlisted.check_newest(Some(newest))?;
                jobs.push(job(&set.name, newest, Trigger::Schedule));
                let mut sample: Vec<&StoredObject> = older.iter().collect();
                // The same in every look of a turn, also of other workers.
                fastrand::Rng::with_seed(turn.unsigned_abs()).shuffle(&mut sample);
                let is_proven = |o: &&StoredObject| {
                    proven.contains(&(o.name.clone(), o.generation.to_string()))
                };
                sample.sort_by_key(is_proven);
                let sample = sample.into_iter().take(self.config.verify.sample);
                jobs.extend(sample.map(|o| job(&set.name, o, Trigger::Sample)));
            }
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
    reports
        .iter()
        .filter(|r| r.is_proof() && r.trigger != Trigger::Sample)
        .filter(|r| r.origin().is_same(&own.origin))
        .for_each(|r| status.add(r));
    let age = status
        .last_proof
        .map(|t| Duration::try_from(now.duration_since(t)).unwrap_or_default());
    age.is_none_or(|age| age >= every)
}

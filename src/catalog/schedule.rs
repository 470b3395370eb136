//! Verifications that are due by the schedule.

use std::collections::HashSet;
use std::time::Duration;

use super::backup_catalog::BackupCatalog;
use super::status::{BackupSetStatus, SetListing};
use crate::error::RestoreError;
use crate::job::{BackupRef, VerifyJob};
use crate::policy::Trigger;
use crate::proof::Verdict;
use crate::store::StoredObject;

impl BackupCatalog {
    /// Verifications that are due: the newest backup of each set whose last proof is older than the
    /// schedule says, and with it some of the older ones, those that were never proven first.
    ///
    /// # Errors
    /// The store's own; `access_denied` if the newest backup of a set may be where this account may not look.
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
            let SetListing { backups, unlisted } = self.listing_of_set(&set.name).await?;
            unlisted.check_newest(backups.first())?;
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

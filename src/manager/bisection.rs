//! Since when? Where a verification blames the backup, the older ones of its set are looked at, by
//! halves, as shallow as shows the fault: the last good one and the first bad one.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::RestoreManager;
use crate::backup;
use crate::error::{Blame, FailureReason as R, RestoreError, report as said};
use crate::job::{BackupRef, OWN_PROBE, ResultBackup, VerifyJob};
use crate::policy::{Depth, Trigger};
use crate::proof::{BackupOrigin, Bisection, Probe, Verdict, VerificationReport};
use crate::store::StoredObject;
use crate::verification::is_of;

/// Reports that are read to find what is proven already.
const READ: usize = 200;

/// The shallowest depth at which a failure for this reason shows.
fn depth_of(reason: R, deepest: Depth) -> Depth {
    let depth = match reason {
        R::ChecksumMismatch => Depth::Object,
        R::ArchiveCorrupt | R::ArchiveUnsupported => Depth::Archive,
        R::DataRejected | R::RestoreError => Depth::Restore,
        _ => Depth::Data,
    };
    depth.min(deepest)
}

impl RestoreManager {
    pub(super) fn is_bisected(&self, job: &VerifyJob, report: &VerificationReport) -> bool {
        self.config.verify.bisect > 0
            && !matches!(job.trigger, Trigger::Bisection | Trigger::SelfTest)
            && report.verdict == Verdict::Failed
            && report.blame() == Some(Blame::Backup)
            && report.backup.name.as_ref().is_some_and(|n| {
                report.backup.uri.as_deref() == Some(self.config.bucket.uri(n).as_str())
            })
    }

    /// Looks for the last good and the first bad backup before this one. What goes wrong meanwhile
    /// ends the search, not the verification.
    pub(super) async fn bisect(
        &self,
        job: &VerifyJob,
        failed: &VerificationReport,
        stop: &CancellationToken,
    ) -> Option<Bisection> {
        let searched = stop
            .run_until_cancelled(self.search(job, failed, stop))
            .await?;
        searched
            .map_err(|e| tracing::warn!(error = said(&e), "the bisection was given up"))
            .ok()
    }

    async fn search(
        &self,
        job: &VerifyJob,
        failed: &VerificationReport,
        stop: &CancellationToken,
    ) -> Result<Bisection, RestoreError> {
        let reason = failed
            .error
            .as_ref()
            .map_or(R::VerificationFailed, |e| e.reason);
        let depth = depth_of(reason, failed.depth_requested);
        let mut older = self.older(failed).await?;
        let prefix = self.config.verify.prefix_of(&failed.backup_set);
        let known = match self.evidence(None).await? {
            Some(e) => e.reports(prefix, READ, |r| Some(r.brief())).await?.reports,
            None => vec![],
        };
        let origin = failed.origin();
        older.retain(|o| {
            !known
                .iter()
                .any(|r| is_of(r, o) && !r.origin().is_same(&origin))
        });
        let proven: Vec<VerificationReport> = known
            .into_iter()
            .filter(|r| r.is_verified() && r.depth >= Some(depth))
            .collect();
        let is_proven = |o: &StoredObject| proven.iter().any(|r| is_of(r, o));
        // Between the one that failed and the newest that is known to be good.
        let mut good = older.iter().position(is_proven).unwrap_or(older.len());
        let mut bad: Option<usize> = None;
        let mut found = Bisection::default();
        while found.probes.len() < self.config.verify.bisect {
            let from = bad.map_or(0, |b| b + 1);
            if from >= good {
                break;
            }
            let middle = (from + good) / 2;
            let (probe, of) = self.probe(job, &older[middle], depth, stop).await;
            let verdict = probe.verdict;
            found.probes.push(probe);
            if of.is_some_and(|of| !of.is_same(&origin)) {
                // Of another database, as it turned out: its verdict is no answer.
                older.remove(middle);
                good -= 1;
                continue;
            }
            match verdict {
                Verdict::Failed => bad = Some(middle),
                Verdict::Verified => good = middle,
                Verdict::Inconclusive => break,
            }
        }
        found.exact = bad.map_or(0, |b| b + 1) == good;
        found.last_good = older.get(good).map(|o| self.named(o));
        found.first_bad =
            Some(bad.map_or_else(|| failed.backup.clone(), |b| self.named(&older[b])));
        Ok(found)
    }

    /// Backups of the same set that were made before, newest first.
    async fn older(&self, failed: &VerificationReport) -> Result<Vec<StoredObject>, RestoreError> {
        let mut all = self.backups_of_set(&failed.backup_set).await?;
        let before = failed.backup_created.unwrap_or(failed.started_at);
        all.retain(|o| o.created <= before && Some(&o.name) != failed.backup.name.as_ref());
        Ok(all)
    }

    /// Backups of a set, newest first.
    pub(super) async fn backups_of_set(
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

    fn named(&self, o: &StoredObject) -> ResultBackup {
        ResultBackup {
            name: Some(o.name.clone()),
            uri: Some(self.config.bucket.uri(&o.name)),
            generation: Some(o.generation.to_string()),
            size: Some(o.size.to_string()),
            crc32c: o.crc32c.map(backup::encode_crc32c),
        }
    }

    async fn probe(
        &self,
        job: &VerifyJob,
        o: &StoredObject,
        depth: Depth,
        stop: &CancellationToken,
    ) -> (Probe, Option<BackupOrigin>) {
        let backup = BackupRef::Named {
            place: None,
            name: o.name.clone(),
        };
        let id = format!("{}{OWN_PROBE}{}", job.request_id, o.generation);
        let probe = VerifyJob {
            generation: Some(o.generation),
            depth: Some(depth),
            jobs: job.jobs,
            deadline: job.deadline,
            ..VerifyJob::new(id, backup, Trigger::Bisection)
        };
        let done = Box::pin(self.verify_backup(&probe, Arc::default(), stop.clone())).await;
        let of = done
            .proof
            .as_ref()
            .filter(|p| p.database.is_some())
            .map(|p| p.origin());
        let verdict = done.proof.map_or(Verdict::Inconclusive, |p| p.verdict);
        (
            Probe {
                backup: self.named(o),
                verdict,
                depth,
            },
            of,
        )
    }
}

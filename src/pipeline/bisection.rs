//! Since when is it broken? If a verification blames the backup, older backups of its set are verified by
//! bisection, to the shallowest depth that shows the fault, to find the last good one and the first bad
//! one.

use futures::future::BoxFuture;

use super::context::JobContext;
use super::job_outcome::JobOutcome;
use crate::backup;
use crate::config::Config;
use crate::error::{FailureReason as R, RestoreError, report as said};
use crate::job::{BackupRef, OWN_PROBE, ResultBackup, VerifyJob};
use crate::policy::{Depth, Trigger};
use crate::proof::{BackupOrigin, Bisection, Probe, Verdict, VerificationReport};
use crate::store::StoredObject;
use crate::verification::{SearchLimit, is_of};

/// Reports that are read to find what is proven already.
const READ: SearchLimit = SearchLimit {
    reports: 200,
    bytes: 16 << 20,
};

/// Backups that are looked into, to see whether they are of the same database.
const LOOKED_INTO: usize = 500;

/// Verifies one backup.
type Verify<'a> = dyn Fn(VerifyJob) -> BoxFuture<'a, JobOutcome> + Sync + 'a;

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

/// Looks for the last good and the first bad backup before this one. An error on the way ends the search,
/// not the verification.
pub(super) async fn bisect(
    context: &JobContext<'_, VerifyJob>,
    failed: &VerificationReport,
    verify: &Verify<'_>,
) -> Option<Bisection> {
    let searched = context
        .cancel
        .run_until_cancelled(search(context, failed, verify))
        .await?;
    searched
        .map_err(|e| tracing::warn!(error = said(&e), "the bisection was given up"))
        .ok()
}

async fn search(
    context: &JobContext<'_, VerifyJob>,
    failed: &VerificationReport,
    verify: &Verify<'_>,
) -> Result<Bisection, RestoreError> {
    let reason = failed
        .error
        .as_ref()
        .map_or(R::VerificationFailed, |e| e.reason);
    let depth = depth_of(reason, failed.depth_requested);
    let (config, catalog) = (context.config(), context.catalog());
    // Of everything but the probes, which have bounds of their own: a store that stalls holds no worker.
    let mut bounds = context.end_bounds("bisection");
    let (mut older, known) = bounds.within(older_and_known(context, failed)).await?;
    let origin = failed.origin();
    older.retain(|o| {
        !known
            .iter()
            .any(|r| is_of(r, o) && !r.origin().is_same(&origin))
    });
    // By the last answer at this depth: a backup may have been damaged since it was proven.
    let is_conclusive = |r: &VerificationReport| {
        r.verdict == Verdict::Failed || (r.is_verified() && r.depth >= Some(depth))
    };
    let is_proven = |o: &StoredObject| {
        let about = known.iter().filter(|r| is_conclusive(r) && is_of(r, o));
        let last = about.max_by_key(|r| r.finished_at);
        last.is_some_and(VerificationReport::is_verified)
    };
    // Between the one that failed and the newest that is known to be good.
    let mut good = older.iter().position(is_proven).unwrap_or(older.len());
    let (mut bad, mut looked_into): (Option<usize>, usize) = (None, 0);
    let mut found = Bisection::default();
    while found.probes.len() < config.verify.bisect {
        let from = bad.map_or(0, |b| b + 1);
        if from >= good {
            break;
        }
        let middle = (from + good) / 2;
        if looked_into < LOOKED_INTO && failed.database.is_some() {
            looked_into += 1;
            let look = async { Ok(catalog.database_named_in(&older[middle]).await) };
            let of = bounds.within(look).await?;
            if of.is_some_and(|of| failed.own_database() != Some(of.as_str())) {
                older.remove(middle);
                good -= 1;
                continue;
            }
        }
        let (probe, of) = probe(context, &older[middle], depth, verify).await;
        // The clock of the last ones ran on during the probe.
        bounds = context.end_bounds("bisection");
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
    found.last_good = older.get(good).map(|o| named(config, o));
    found.first_bad = Some(bad.map_or_else(|| failed.backup.clone(), |b| named(config, &older[b])));
    Ok(found)
}

/// The backups before the one that failed, newest first, and the reports about them and others.
async fn older_and_known(
    context: &JobContext<'_, VerifyJob>,
    failed: &VerificationReport,
) -> Result<(Vec<StoredObject>, Vec<VerificationReport>), RestoreError> {
    let catalog = context.catalog();
    let older = catalog.older_backups(failed).await?;
    let Some(evidence) = catalog.evidence(None).await? else {
        return Ok((older, vec![]));
    };
    let prefix = context.config().verify.prefix_of(&failed.backup_set);
    let name = failed.backup.name.as_deref().unwrap_or_default();
    let found = evidence.reports_like((prefix, name), READ, |r| Some(r.brief()));
    Ok((older, found.await?.reports))
}

fn named(config: &Config, o: &StoredObject) -> ResultBackup {
    ResultBackup {
        name: Some(o.name.clone()),
        uri: Some(config.bucket.uri(&o.name)),
        generation: Some(o.generation.to_string()),
        size: Some(o.size.to_string()),
        crc32c: o.crc32c.map(backup::encode_crc32c),
    }
}

async fn probe(
    context: &JobContext<'_, VerifyJob>,
    o: &StoredObject,
    depth: Depth,
    verify: &Verify<'_>,
) -> (Probe, Option<BackupOrigin>) {
    let job = context.job;
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
    let done = verify(probe).await;
    let of = done
        .proof
        .as_ref()
        .filter(|p| p.database.is_some())
        .map(|p| p.origin());
    let verdict = done.proof.map_or(Verdict::Inconclusive, |p| p.verdict);
    (
        Probe {
            backup: named(context.config(), o),
            verdict,
            depth,
        },
        of,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::catalog::BackupCatalog;
    use crate::config::{Location, RawConfig};
    use crate::event::RestoreResult;
    use crate::metrics::RestoreMetricsManager;
    use crate::pipeline::context::{JobClock, Services};
    use crate::postgres::Server;
    use crate::store::Stores;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

    /// A probe that takes an hour and finds the backup good.
    fn slow_probe(probe: VerifyJob) -> BoxFuture<'static, JobOutcome> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            let (id, t) = (probe.request_id.as_str(), jiff::Timestamp::UNIX_EPOCH);
            let report = VerificationReport {
                verdict: Verdict::Verified,
                ..VerificationReport::new(id, probe.trigger, Depth::Data, t)
            };
            JobOutcome {
                proof: Some(Box::new(report)),
                ..JobOutcome::recorded(RestoreResult::new(id, (t, t)))
            }
        })
    }

    /// The search before `c.dump` in a folder with two older backups, whose listing stalls or not.
    async fn bisected(stalls: bool) -> Option<Bisection> {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.dump", "b.dump", "c.dump"] {
            std::fs::write(folder.path().join(name), "PGDMP").unwrap();
        }
        let bucket = format!("file://{}", folder.path().display());
        let flags = [("backup-bucket", bucket.as_str()), ("db-host", "/nowhere")];
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let (config, stores) = (Arc::new(config), Arc::new(Stores::new(None)));
        let store = Arc::new(FaultyStore::at(folder.path()));
        stores.replace(Location::Folder(folder.path().to_owned()), store.clone());
        let metrics = RestoreMetricsManager::new(0.0);
        let services = Services {
            catalog: BackupCatalog::new(config.clone(), stores, metrics.clone()),
            server: Server::new(&config.db).unwrap(),
            config,
            metrics,
        };
        if stalls {
            store.fail(Call::List, "", StoreFault::Stall, 99);
        }
        let job = VerifyJob::new("r", BackupRef::Stdin, Trigger::Notification);
        let (progress, cancel) = (Arc::default(), CancellationToken::new());
        let context = JobContext {
            services: &services,
            job: &job,
            progress: &progress,
            cancel: &cancel,
            clock: JobClock::start(),
        };
        let now = jiff::Timestamp::now();
        let mut failed = VerificationReport::new("r", Trigger::Notification, Depth::Data, now);
        failed.verdict = Verdict::Failed;
        failed.database = Some("app".into());
        failed.backup.name = Some("c.dump".into());
        failed.backup_created = Some(now);
        failed.backup_set = "default".into();
        let day = Duration::from_secs(24 * 3600);
        let ended = tokio::time::timeout(day, bisect(&context, &failed, &slow_probe)).await;
        ended.unwrap()
    }

    /// A store that stalls ends the search and not the worker; long probes do not end it.
    #[tokio::test(start_paused = true)]
    async fn all_but_the_probes_is_bounded() {
        assert_eq!(bisected(true).await, None);
        let found = bisected(false).await.unwrap();
        assert_eq!((found.probes.len(), found.exact), (2, true));
    }
}

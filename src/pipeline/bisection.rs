//! Since when is it broken? If a verification blames the backup, older backups of its database are verified by
//! bisection, to the shallowest depth that shows the fault, to find the last good one and the first bad
//! one.

use std::collections::HashSet;

use futures::future::BoxFuture;

use super::job_context::JobContext;
use super::job_outcome::JobOutcome;
use crate::backup::{self, newer_first};
use crate::catalog::ArchivedDatabase;
use crate::config::Config;
use crate::error::{FailureReason as R, RestoreError, report as said};
use crate::job::{BackupRef, OWN_PROBE, ResultBackup, VerifyJob};
use crate::policy::{Depth, Trigger};
use crate::proof::{BackupOrigin, Bisection, Probe, Verdict, VerificationReport, pattern_of};
use crate::store::StoredObject;
use crate::verification::{SearchLimit, is_of};

/// Reports that are read to find what is proven already.
const READ: SearchLimit = SearchLimit {
    reports: 200,
    bytes: 16 << 20,
};

/// Backups that are looked into, to see whether they are of the same database.
const LOOKED_INTO: usize = 500;
/// Most backups that are named because their database is not known.
const LEFT_OUT: usize = 100;

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
    let config = context.config();
    // Of everything but the probes, which have bounds of their own: a store that stalls holds no worker.
    let mut bounds = context.end_bounds("bisection");
    let mut series = bounds.within(SearchedSeries::of(context, failed)).await?;
    // Between the one that failed and the newest that is known to be good.
    let proven = series.newest_proven(context, depth);
    let newest = bounds.within(async { Ok(proven.await) }).await?;
    let (mut good, mut bad) = (newest.unwrap_or(series.older.len()), None);
    let mut found = Bisection::default();
    while found.probes.len() < config.verify.bisect {
        let from = bad.map_or(0, |b: usize| b + 1);
        if from >= good {
            break;
        }
        let middle = (from + good) / 2;
        let look = series.is_of_database(context, middle);
        let is_its = bounds.within(async { Ok(look.await) }).await?;
        match is_its {
            Some(true) => {}
            None if series.looked_into >= LOOKED_INTO => break,
            is_other => {
                series.leave_out(middle, is_other.is_none());
                good -= 1;
                continue;
            }
        }
        let (probe, is_of_database) =
            probe(context, &series, &series.older[middle], depth, verify).await;
        // The clock of the last ones ran on during the probe.
        bounds = context.end_bounds("bisection");
        let verdict = probe.verdict;
        found.probes.push(probe);
        if !is_of_database {
            // Of another database, or only a part of one, as it turned out: its verdict is no answer.
            series.leave_out(middle, false);
            good -= 1;
            continue;
        }
        match verdict {
            Verdict::Failed => bad = Some(middle),
            Verdict::Verified => good = middle,
            Verdict::Inconclusive => break,
        }
    }
    let (last_good, first_bad) = (series.older.get(good), bad.map(|b| &series.older[b]));
    let left_out = series.left_out_between(last_good, first_bad);
    found.exact = bad.map_or(0, |b| b + 1) == good && left_out.is_empty();
    let left_out = left_out.into_iter().take(LEFT_OUT);
    found.left_out = left_out.map(|o| named(config, o)).collect();
    found.last_good = last_good.map(|o| named(config, o));
    found.first_bad = Some(first_bad.map_or_else(|| failed.backup.clone(), |b| named(config, b)));
    Ok(found)
}

/// The backups before the one that failed, as far as they may be of its database.
struct SearchedSeries {
    /// The origin of the one that failed.
    origin: BackupOrigin,
    /// What its object is called, without dates.
    pattern: String,
    /// Of a dump of a whole cluster, the database that was looked at.
    cluster_database: Option<String>,
    /// Newest first.
    older: Vec<StoredObject>,
    /// Those of them that were not considered, because it is not known of which database they are.
    left_out: Vec<StoredObject>,
    /// What is known of them and others.
    reports: Vec<VerificationReport>,
    looked_into: usize,
}

impl SearchedSeries {
    async fn of(
        context: &JobContext<'_, VerifyJob>,
        failed: &VerificationReport,
    ) -> Result<Self, RestoreError> {
        let catalog = context.catalog();
        let (itself, older) = catalog.older_backups(failed).await?;
        let name = failed.backup.name.as_deref().unwrap_or_default();
        let reports = match catalog.evidence(None).await? {
            Some(evidence) => {
                let prefix = context.config().verify.prefix_of(&failed.backup_set);
                let found = evidence.reports_like((prefix, name), READ, |r| Some(r.brief()));
                found.await?.reports
            }
            None => vec![],
        };
        let mut series = SearchedSeries {
            origin: failed.origin(),
            pattern: pattern_of(name),
            cluster_database: None,
            older,
            left_out: vec![],
            reports,
            looked_into: 0,
        };
        // What was not opened may still say which database it is of.
        let is_unknown =
            matches!(series.origin, BackupOrigin::CalledLike(_)) && failed.archive.is_none();
        if let Some(itself) = itself.filter(|_| is_unknown) {
            let database = catalog.database_of(&itself, &series.reports).await;
            series.origin = match database {
                ArchivedDatabase::Unreadable(_) | ArchivedDatabase::NoDump(_) => {
                    series.only_one_called_like_it()
                }
                readable => readable.origin(name),
            };
        }
        if let BackupOrigin::Cluster(_) = series.origin {
            let asked = || context.job.database.clone();
            series.cluster_database = failed.database.clone().or_else(asked);
        }
        Ok(series)
    }

    /// The origin of a backup that cannot be read: the database that all proven backups that are called like it name.
    fn only_one_called_like_it(&self) -> BackupOrigin {
        let called_like_it = |r: &&VerificationReport| {
            let name = r.backup.name.as_deref().unwrap_or_default();
            r.is_proof() && pattern_of(name) == self.pattern
        };
        let proofs = self.reports.iter().filter(called_like_it);
        let origins: HashSet<BackupOrigin> = proofs.map(VerificationReport::origin).collect();
        let mut origins = origins.into_iter();
        match (origins.next(), origins.next()) {
            (Some(only), None) => only,
            _ => self.origin.clone(),
        }
    }

    /// The place of the newest backup that is known to be good.
    async fn newest_proven(
        &mut self,
        context: &JobContext<'_, VerifyJob>,
        depth: Depth,
    ) -> Option<usize> {
        for place in 0..self.older.len() {
            let older = &self.older[place];
            // By the last answer at this depth: a backup may have been damaged since it was proven.
            let is_conclusive = |r: &&VerificationReport| {
                // One without rows says nothing of rows.
                let is_verified = r.is_verified() && r.depth >= Some(depth) && r.part().is_none();
                is_of(r, older)
                    && self.may_speak(r)
                    && (is_verified || r.verdict == Verdict::Failed)
            };
            let about = self.reports.iter().filter(is_conclusive);
            let last = about.max_by_key(|r| r.finished_at);
            let is_known_good = last.is_some_and(VerificationReport::is_verified);
            if is_known_good && self.is_of_database(context, place).await == Some(true) {
                return Some(place);
            }
        }
        None
    }

    /// Whether a report may be about the database that is searched for; one that names none may.
    fn may_speak(&self, report: &VerificationReport) -> bool {
        let Some(database) = report.database.as_deref() else {
            return true;
        };
        match &self.origin {
            BackupOrigin::Named(name) => !report.is_of_several() && name == database,
            BackupOrigin::Cluster(_) => {
                report.is_of_several() && self.cluster_database.as_deref() == Some(database)
            }
            BackupOrigin::CalledLike(_) => false,
        }
    }

    /// Whether an older backup is of the same database, if that is known. Dumps of whole clusters are compared with each
    /// other alone.
    async fn is_of_database(
        &mut self,
        context: &JobContext<'_, VerifyJob>,
        place: usize,
    ) -> Option<bool> {
        use ArchivedDatabase as D;
        if self.looked_into >= LOOKED_INTO {
            return None;
        }
        self.looked_into += 1;
        let older = &self.older[place];
        let database = context.catalog().database_of(older, &self.reports).await;
        let is_called_like_it = pattern_of(&older.name) == self.pattern;
        match (&self.origin, &database) {
            (BackupOrigin::Named(name), D::Named(of)) => Some(name == of),
            (BackupOrigin::Cluster(_), D::Cluster) => Some(true),
            (BackupOrigin::CalledLike(_), D::Named(_)) => None,
            (_, D::Named(_) | D::Cluster | D::Globals) => Some(false),
            // Somebody's file among the backups.
            (_, D::NoDump(_)) if !is_called_like_it => Some(false),
            (BackupOrigin::CalledLike(_), _) if is_called_like_it => Some(true),
            (_, D::Unnamed | D::Unreadable(_) | D::NoDump(_) | D::NotLookedInto) => None,
        }
    }

    /// Takes an older backup out of the search.
    fn leave_out(&mut self, place: usize, is_unknown: bool) {
        let object = self.older.remove(place);
        if is_unknown {
            self.left_out.push(object);
        }
    }

    /// Those that were left out and are newer than the last good one and older than the first bad one, newest first.
    fn left_out_between(
        &self,
        last_good: Option<&StoredObject>,
        first_bad: Option<&StoredObject>,
    ) -> Vec<&StoredObject> {
        let is_newer = |a: &StoredObject, b: &StoredObject| newer_first(a, b).is_lt();
        let is_between = |o: &&StoredObject| {
            last_good.is_none_or(|good| is_newer(o, good))
                && first_bad.is_none_or(|bad| is_newer(bad, o))
        };
        let mut between: Vec<&StoredObject> = self.left_out.iter().filter(is_between).collect();
        between.sort_by(|a, b| newer_first(a, b));
        between
    }
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

/// Verifies one older backup; also whether it is of the database that is searched for, as it turned out.
async fn probe(
    context: &JobContext<'_, VerifyJob>,
    series: &SearchedSeries,
    o: &StoredObject,
    depth: Depth,
    verify: &Verify<'_>,
) -> (Probe, bool) {
    let job = context.job;
    let backup = BackupRef::Named {
        place: None,
        name: o.name.clone(),
    };
    let id = format!("{}{OWN_PROBE}{}#{}", job.request_id, o.name, o.generation);
    let probe = VerifyJob {
        generation: Some(o.generation),
        database: series.cluster_database.clone(),
        depth: Some(depth),
        jobs: job.jobs,
        deadline: job.deadline,
        ..VerifyJob::new(id, backup, Trigger::Bisection)
    };
    let done = verify(probe).await;
    // A dump of a whole cluster that does not have the database.
    let is_without = series.cluster_database.is_some() && done.failure == Some(R::InvalidRequest);
    let may_speak = |p: &VerificationReport| {
        series.may_speak(p) && (p.verdict == Verdict::Failed || p.part().is_none())
    };
    let is_of_database = !is_without && done.proof.as_ref().is_none_or(|p| may_speak(p));
    let verdict = done.proof.map_or(Verdict::Inconclusive, |p| p.verdict);
    let probe = Probe {
        backup: named(context.config(), o),
        verdict,
        depth,
    };
    (probe, is_of_database)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::catalog::{BackupCatalog, archive_of, describe};
    use crate::config::{Location, RawConfig};
    use crate::event::RestoreResult;
    use crate::metrics::RestoreMetricsManager;
    use crate::pipeline::job_context::{JobClock, Services};
    use crate::postgres::Server;
    use crate::store::Stores;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};

    const TEXT: &[u8] = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t ();\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
    const CLUSTER: &[u8] = b"--\n-- PostgreSQL database cluster dump\n--\n\n\\connect app\n\n--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t ();\n\n--\n-- PostgreSQL database dump complete\n--\n\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";

    /// What a probe finds.
    fn outcome(probe: &VerifyJob, verdict: Verdict) -> JobOutcome {
        let (id, t) = (probe.request_id.as_str(), jiff::Timestamp::UNIX_EPOCH);
        let report = VerificationReport {
            verdict,
            ..VerificationReport::new(id, probe.trigger, Depth::Data, t)
        };
        JobOutcome {
            proof: Some(Box::new(report)),
            ..JobOutcome::recorded(RestoreResult::new(id, (t, t)))
        }
    }

    /// A probe that takes an hour and finds the backup good.
    fn slow_probe(probe: VerifyJob) -> BoxFuture<'static, JobOutcome> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            outcome(&probe, Verdict::Verified)
        })
    }

    fn good_probe(probe: VerifyJob) -> BoxFuture<'static, JobOutcome> {
        Box::pin(async move { outcome(&probe, Verdict::Verified) })
    }

    /// A failed verification of a backup of this database, or of one that was not opened.
    fn failure(database: Option<&str>) -> VerificationReport {
        let now = jiff::Timestamp::now();
        VerificationReport {
            verdict: Verdict::Failed,
            database: database.map(str::to_owned),
            backup_set: "default".into(),
            ..VerificationReport::new("r", Trigger::Notification, Depth::Data, now)
        }
    }

    /// A folder with backups, the newest last, and the catalogue of it.
    struct Backups {
        folder: tempfile::TempDir,
        store: Arc<FaultyStore>,
        services: Services,
    }

    impl Backups {
        fn of(files: &[(&str, &[u8])]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (age, (name, bytes)) in files.iter().rev().enumerate() {
                let path = folder.path().join(name);
                std::fs::write(&path, bytes).unwrap();
                let file = std::fs::File::options().write(true).open(path).unwrap();
                let age = Duration::from_secs(60 * (age as u64 + 1));
                file.set_modified(SystemTime::now() - age).unwrap();
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
                unclaimed: Default::default(),
            };
            Backups {
                folder,
                store,
                services,
            }
        }

        /// Evidence that a backup is a good one of `app`.
        async fn prove(&self, name: &str) {
            let wanted = BackupRef::from_name(name, "").unwrap();
            let catalog = &self.services.catalog;
            let pinned = catalog.pin(&wanted, None, None).await.unwrap();
            let report = VerificationReport {
                verdict: Verdict::Verified,
                depth: Some(Depth::Data),
                backup: describe(pinned.as_ref().unwrap()),
                backup_created: Some(pinned.as_ref().unwrap().object.created),
                ..failure(Some("app"))
            };
            let job = VerifyJob::new("r", wanted, Trigger::Notification);
            let kept = catalog.write_evidence(&job, &report, pinned.as_ref()).await;
            assert!(kept.unwrap().is_some());
        }

        /// The search after a verification of this file failed.
        async fn bisected(
            &self,
            name: &str,
            mut failed: VerificationReport,
            verify: &Verify<'_>,
        ) -> Option<Bisection> {
            let metadata = std::fs::metadata(self.folder.path().join(name)).unwrap();
            let created = jiff::Timestamp::try_from(metadata.modified().unwrap()).unwrap();
            failed.backup.name = Some(name.into());
            failed.backup.generation = Some(created.as_nanosecond().to_string());
            failed.backup.size = Some(metadata.len().to_string());
            failed.backup_created = Some(created);
            let job = VerifyJob::new("r", BackupRef::Stdin, Trigger::Notification);
            let (progress, cancel) = (Arc::default(), CancellationToken::new());
            let context = JobContext {
                services: &self.services,
                job: &job,
                progress: &progress,
                cancel: &cancel,
                clock: JobClock::start(),
            };
            let day = Duration::from_secs(24 * 3600);
            let ended = tokio::time::timeout(day, bisect(&context, &failed, verify)).await;
            ended.unwrap()
        }
    }

    fn names(backups: impl IntoIterator<Item = ResultBackup>) -> Vec<String> {
        backups.into_iter().filter_map(|b| b.name).collect()
    }

    /// A store that stalls ends the search and not the worker; long probes do not end it.
    #[tokio::test(start_paused = true)]
    async fn all_but_the_probes_is_bounded() {
        let app = archive_of("app");
        let backups = Backups::of(&[("a.dump", &app), ("b.dump", &app), ("c.dump", &app)]);
        let failed = || failure(Some("app"));
        let found = backups.bisected("c.dump", failed(), &slow_probe).await;
        let found = found.unwrap();
        assert_eq!((found.probes.len(), found.exact), (2, true));
        backups.store.fail(Call::List, "", StoreFault::Stall, 99);
        let found = backups.bisected("c.dump", failed(), &slow_probe).await;
        assert_eq!(found, None);
    }

    #[tokio::test]
    async fn a_backup_that_may_be_of_another_database_is_left_out() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let backups = Backups::of(&[
            ("backup-2026-11-01", &app),
            ("backup-2026-11-02", TEXT),
            ("backup-2026-11-03", &shop),
            ("backup-2026-11-04", &app),
        ]);
        let failed = failure(Some("app"));
        let found = backups
            .bisected("backup-2026-11-04", failed, &good_probe)
            .await;
        let found = found.unwrap();
        assert_eq!(names(found.last_good), ["backup-2026-11-01"]);
        assert_eq!(names(found.left_out), ["backup-2026-11-02"]);
        assert_eq!((found.probes.len(), found.exact), (1, false));
    }

    /// Text that names no database is compared with text that is called like it, and with nothing else.
    #[tokio::test]
    async fn text_of_another_database_is_not_the_last_good_backup() {
        let app = archive_of("app");
        let backups = Backups::of(&[
            ("shop-2026-11-19.sql", TEXT),
            ("blog-2026-11-20.sql", TEXT),
            ("blog-2026-11-21.sql", TEXT),
            ("app.dump", &app),
            ("shop-2026-11-22.sql", TEXT),
        ]);
        let search = async |name| {
            let found = backups.bisected(name, failure(None), &good_probe).await;
            found.unwrap()
        };
        let found = search("shop-2026-11-22.sql").await;
        assert_eq!(names(found.last_good), ["shop-2026-11-19.sql"]);
        let others = ["app.dump", "blog-2026-11-21.sql", "blog-2026-11-20.sql"];
        assert_eq!(names(found.left_out), others);
        assert!(!found.exact);
        // The oldest one of its database.
        let found = search("blog-2026-11-20.sql").await;
        assert_eq!((found.last_good, found.probes.len()), (None, 0));
        assert_eq!(names(found.left_out), ["shop-2026-11-19.sql"]);
        assert!(!found.exact);
    }

    #[tokio::test]
    async fn older_dumps_of_a_cluster_are_verified_with_the_database_that_failed() {
        let shop = archive_of("shop");
        let backups = Backups::of(&[
            ("all-19.sql", CLUSTER),
            ("shop-20.dump", &shop),
            ("all-21.sql", CLUSTER),
            ("all-22.sql", CLUSTER),
        ]);
        let failed = VerificationReport {
            one_of_several: true,
            ..failure(Some("shop"))
        };
        let verify = |probe: VerifyJob| -> BoxFuture<'static, JobOutcome> {
            assert_eq!(probe.database.as_deref(), Some("shop"));
            Box::pin(async move {
                if !probe.request_id.contains("all-21.sql") {
                    return outcome(&probe, Verdict::Verified);
                }
                // It does not have that database.
                JobOutcome {
                    failure: Some(R::InvalidRequest),
                    ..outcome(&probe, Verdict::Inconclusive)
                }
            })
        };
        let found = backups
            .bisected("all-22.sql", failed, &verify)
            .await
            .unwrap();
        assert_eq!(names(found.last_good), ["all-19.sql"]);
        assert_eq!(names(found.first_bad), ["all-22.sql"]);
        assert_eq!((found.probes.len(), found.exact), (2, true));
    }

    /// Which database it is of is known only from those that are called like it.
    #[tokio::test]
    async fn a_backup_that_cannot_be_read_is_of_the_database_that_all_called_like_it_name() {
        let app = archive_of("app");
        let backups = Backups::of(&[
            ("app-2026-11-01.dump", &app),
            ("app-2026-11-02.dump", &app[..20]),
            ("app-2026-11-03.dump", &app[..20]),
        ]);
        let newest = "app-2026-11-03.dump";
        let found = backups.bisected(newest, failure(None), &good_probe).await;
        let found = found.unwrap();
        assert_eq!(names(found.last_good), ["app-2026-11-02.dump"]);
        backups.prove("app-2026-11-01.dump").await;
        let found = backups.bisected(newest, failure(None), &good_probe).await;
        let found = found.unwrap();
        assert_eq!(names(found.last_good), ["app-2026-11-01.dump"]);
        assert_eq!(names(found.left_out), ["app-2026-11-02.dump"]);
        assert_eq!((found.probes.len(), found.exact), (0, false));
    }
}

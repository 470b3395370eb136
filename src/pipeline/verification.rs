//! A verification: pin, open, restore into a server of its own, compare, judge, and write the evidence.
//! Every way it ends is an answer: verified, failed, or inconclusive.

use pgdump_restore::Stage;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

use super::bisection::bisect;
use super::diagnosis::{diagnose, drain, read_to_compare};
use super::job_context::{JobClock, JobContext, Services};
use super::job_outcome::{JobOutcome, end_spans};
use super::sandbox_destination::SandboxDestination;
use super::seen_archive::SeenArchive;
use super::states::{LoadRequest, LoadStyle, LoadSummary, Opened, Pinned, restricted};
use super::verification_server::{self, VerificationServer};
use super::{completeness, preload, upload};
use crate::backup::{self, DownloadOptions, IntegrityCheck, PinnedBackup, ReadHint};
use crate::catalog;
use crate::config::{Config, Trust};
use crate::database::TemporaryDatabase;
use crate::error::{
    FailureReason as R, JobError, JobKind, RestoreError, RetryClass, report as said,
};
use crate::job::{Completeness, VerifyJob};
use crate::policy::{Depth, Extensions, OnError, Policy, Selection, Trigger};
use crate::progress::Progress;
use crate::proof::{ArchiveProof, EVIDENCE_NOT_WRITTEN, ONE_OF_SEVERAL, VerificationReport};
use crate::steps::reached as step;
use crate::verification::{
    self, Checks, ChecksFile, History, RestoredDatabase, StoredEvidence, verdict,
};
use pgdump_archive::{
    Archive, ArchiveError, Chunk, ContentDigest, DataSink, DigestSink, Extent, TocEntry,
};

type VerifyContext<'a> = JobContext<'a, VerifyJob>;

/// What a verification collects.
struct VerificationDraft {
    report: VerificationReport,
    pinned: Option<PinnedBackup>,
}

/// Proves that a backup can be restored, to the depth that the job or the configuration asks for. There is
/// always an answer; a final answer is written as evidence beside the backup.
pub(crate) async fn run(
    services: &Services,
    job: &VerifyJob,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> JobOutcome {
    let span = tracing::info_span!(
        "verification",
        request_id = job.request_id,
        attempt = job.attempt,
        failure_reason = Empty,
        otel.status_code = Empty
    );
    let work = async {
        let outcome = run_in_span(services, job, &progress, stop).await;
        end_spans(&progress, outcome.failure);
        outcome
    };
    work.instrument(span).await
}

async fn run_in_span(
    services: &Services,
    job: &VerifyJob,
    progress: &Arc<Progress>,
    stop: CancellationToken,
) -> JobOutcome {
    let cancel = stop.child_token();
    let _guard = cancel.clone().drop_guard();
    let context = JobContext {
        services,
        job,
        progress,
        cancel: &cancel,
        clock: JobClock::start(),
    };
    let verify = &services.config.verify;
    let depth = job.depth.unwrap_or(verify.depth);
    let started = context.clock.started();
    let mut report = VerificationReport::new(&job.request_id, job.trigger, depth, started);
    report.backup_set = verify.set_of("").to_owned();
    let mut draft = VerificationDraft {
        report,
        pinned: None,
    };
    let mut bounds = context.bounds("verification", job.deadline);
    let ended = bounds.within(pin_and_verify(&context, &mut draft)).await;
    let VerificationDraft {
        mut report,
        mut pinned,
    } = draft;
    report.duration_seconds = context.clock.seconds();
    report.finished_at = context.clock.now();
    report.stages = progress
        .stages()
        .into_iter()
        .map(|(stage, seconds)| (stage.to_string(), seconds))
        .collect();
    let mut is_denied_alone = false;
    match ended {
        Ok(Some(kept)) => return answered_before(job, kept),
        Ok(None) => verdict::judge(&mut report, progress.stage()),
        Err(e) => {
            let asked = (&job.backup, pinned.as_ref());
            is_denied_alone = context.is_denied_alone(asked, &e).await;
            verdict::fail(&mut report, &e, progress.stage());
        }
    }
    let catalog = context.catalog();
    if pinned.is_none() {
        report.asked = catalog.asked(&job.backup);
    }
    let settle = async {
        if pinned.is_some() {
            catalog.settle_verdict(&mut report, pinned.as_ref()).await;
        } else {
            pinned = catalog.settle_unpinned(&mut report, job).await;
        }
        Ok(())
    };
    if let Err(e) = context.end_bounds("verification").within(settle).await {
        let reason = match e.reason() {
            R::Cancelled => R::Cancelled,
            _ => R::DownloadFailed,
        };
        catalog::settle_without_evidence(&mut report, &said(&e), Some(reason));
    }
    if catalog.is_bisected(job, &report) {
        progress.enter(Stage::Bisect);
        let verify = |probe| run_probe(services, probe, cancel.clone());
        report.bisection = bisect(&context, &report, &verify).await;
    }
    conclude(&context, (report, is_denied_alone), pinned.as_ref()).await
}

/// Verifies one backup of a bisection.
fn run_probe(
    services: &Services,
    probe: VerifyJob,
    cancel: CancellationToken,
) -> BoxFuture<'_, JobOutcome> {
    Box::pin(async move { run(services, &probe, Arc::default(), cancel).await })
}

/// The outcome of a request that has evidence already.
fn answered_before(job: &VerifyJob, kept: StoredEvidence) -> JobOutcome {
    JobOutcome {
        result: verdict::result_of(job, &kept.report, Some(kept.document)),
        failure: kept.report.error.as_ref().map(|e| e.reason),
        repeated: true,
        is_final: true,
        counted: None,
        is_denied_alone: false,
        proof: Some(Box::new(kept.report)),
    }
}

/// Whether the message was delivered so often that it is taken for one that kills workers.
fn is_quarantined(context: &VerifyContext<'_>) -> bool {
    context.job.attempt > context.config().quarantine_after
}

/// Whether the message is redelivered after this error, and another attempt may succeed. Only messages are: a command
/// and the schedule have one attempt.
fn is_tried_again(context: &VerifyContext<'_>, e: &RestoreError) -> bool {
    let job = context.job;
    let is_message = matches!(job.trigger, Trigger::Notification | Trigger::Request);
    let may_pass = match e.reason().retry_class() {
        RetryClass::Transient | RetryClass::Environment => true,
        RetryClass::Permanent | RetryClass::Busy | RetryClass::Interrupted => false,
    };
    is_message
        && may_pass
        && job.attempt < context.config().max_attempts
        && !is_quarantined(context)
}

/// Everything up to the verdict; `Some` if this request has its answer already.
async fn pin_and_verify(
    context: &VerifyContext<'_>,
    draft: &mut VerificationDraft,
) -> Result<Option<StoredEvidence>, RestoreError> {
    let (job, config) = (context.job, context.config());
    context.progress.enter(Stage::Prepare);
    // Before a byte is read: a wrong checks file is not the fault of a backup.
    checks(config, "")?;
    let crc32c = job
        .crc32c
        .as_deref()
        .map(backup::decode_crc32c)
        .transpose()?;
    draft.pin(config, upload::pin_whole(context, crc32c).await?);
    let depth = draft.report.depth_requested;
    let catalog = context.catalog();
    if let Some(kept) = catalog.answered(job, draft.pinned.as_ref(), depth).await? {
        return Ok(Some(kept));
    }
    if is_quarantined(context) {
        let what = format!("quarantined: {} deliveries did not finish", job.attempt - 1);
        return Err(RestoreError::internal(what));
    }
    if depth == Depth::Object {
        let source = Pinned::new(draft.pinned.clone()).source();
        let options = catalog.download_options();
        context.progress.enter(Stage::Download);
        let integrity = drain(source, options, context.progress, context.cancel).await?;
        reached(&mut draft.report, &integrity, Depth::Object)?;
        return Ok(None);
    }
    loop {
        let Err(e) = Box::pin(verify_archive(context, draft)).await else {
            return Ok(None);
        };
        let more = match &draft.pinned {
            Some(p) if e.reason() == R::ArchiveCorrupt && job.trigger == Trigger::Notification => {
                upload::wait_for_upload(context, p).await?
            }
            _ => None,
        };
        let Some(more) = more else {
            let pinned = draft.pinned.as_ref();
            let (e, integrity) = diagnose(context, e, pinned, None).await;
            let integrity = match integrity {
                None => read_to_compare(context, &e, pinned).await,
                known => known,
            };
            if let Some(integrity) = integrity {
                // Whatever else is wrong, the object is what the store says.
                let _ = reached(&mut draft.report, &integrity, Depth::Object);
            }
            return Err(e);
        };
        draft.pin(config, Some(more));
    }
}

impl VerificationDraft {
    fn pin(&mut self, config: &Config, pinned: Option<PinnedBackup>) {
        if let Some(p) = &pinned {
            self.report.backup = catalog::describe(p);
            self.report.backup_created = Some(p.object.created);
            self.report.members = p.object.members.as_deref().cloned();
            self.report.notes.extend(p.notes.iter().cloned());
            self.report.backup_set = config.verify.set_of(&p.object.name).to_owned();
        }
        self.pinned = pinned;
    }
}

/// Opens the backup, with a checksum of its bytes by SHA-256.
async fn open(
    context: &VerifyContext<'_>,
    pinned: Option<&PinnedBackup>,
) -> Result<Opened, RestoreError> {
    let catalog = context.catalog();
    let options = DownloadOptions {
        sha256: true,
        ..catalog.download_options()
    };
    let (origin, integrity) = backup::open(
        Pinned::new(pinned.cloned()).source(),
        ReadHint::Whole,
        options,
        context.progress.clone(),
        context.cancel.clone(),
    );
    let (keys, bounds) = (catalog.keys()?, catalog.archive_limits());
    let database = context.job.database.clone();
    let open = move || Archive::open_database(origin, bounds, &keys, database.as_deref());
    let archive = tokio::task::spawn_blocking(open)
        .await
        .map_err(|e| RestoreError::internal(format!("the archive reader panicked: {e}")))??;
    Ok(Opened { archive, integrity })
}

/// Depth `archive` and further.
async fn verify_archive(
    context: &VerifyContext<'_>,
    draft: &mut VerificationDraft,
) -> Result<(), RestoreError> {
    let (config, catalog) = (context.config(), context.catalog());
    let (report, pinned) = (&mut draft.report, draft.pinned.as_ref());
    let opened = open(context, pinned).await?;
    let archive = &opened.archive;
    report.archive = Some(archive_proof(archive));
    report.database = archive.header().database.clone().filter(|d| !d.is_empty());
    report.one_of_several = archive.is_of_cluster();
    if let (true, Some(database)) = (report.one_of_several, &report.database) {
        report
            .notes
            .push(format!("{ONE_OF_SEVERAL}{database} was looked at"));
    }
    let completeness = archive.completeness();
    let content_digest = Arc::new(ContentDigest::of(archive));
    let seen = SeenArchive {
        coverage: archive.coverage(),
        content_digest: content_digest.clone(),
        checks: checks(config, &report.backup_set)?,
    };
    report.contents = seen.contents();
    let done = if report.depth_requested == Depth::Archive {
        context.progress.enter(Stage::Data);
        let large_objects = pgdump_restore::large_objects_in(archive.entries());
        let (progress, stop) = (context.progress, context.cancel.clone());
        read_all(opened.archive, content_digest.clone(), progress, stop).await?;
        reached(report, &opened.integrity, Depth::Archive)?;
        sum_up(report, &content_digest, large_objects);
        report.contents = seen.contents();
        Ok(())
    } else {
        let history = catalog.history(pinned, report).await?;
        for note in &history.notes {
            if !report.notes.contains(note) {
                report.notes.push(note.clone());
            }
        }
        Box::pin(restore_and_examine(
            context,
            opened,
            &seen,
            &history,
            (report, pinned),
        ))
        .await
    };
    let deepest = report.depth_requested.min(Depth::Restore);
    if report.depth >= Some(deepest) {
        catalog.keep_index(pinned, report, &content_digest).await;
    }
    let found = completeness.get().map(|c| Completeness::of(Some(c)));
    completeness::note_completeness(config, report, found);
    report.notes.extend(seen.note(report));
    done
}

/// Depth `restore` and further, on a server of its own.
async fn restore_and_examine(
    context: &VerifyContext<'_>,
    opened: Opened,
    seen: &SeenArchive,
    history: &History,
    (report, pinned): (&mut VerificationReport, Option<&PinnedBackup>),
) -> Result<(), RestoreError> {
    let config = context.config();
    context.progress.enter(Stage::Sandbox);
    let header = opened.archive.header();
    let name = verification_server::own_name(header.database.as_deref())
        .unwrap_or_else(|| TemporaryDatabase::name_for(&context.job.request_id));
    let allowed = &config.verify.preload_libraries;
    let libraries = preload::wanted(opened.archive.entries(), allowed, &name);
    let major = header.server_major();
    let server = VerificationServer::start(config, major, libraries).await?;
    report.server = Some(server.proof.clone());
    step("sandbox");
    let database = server.claim(&context.job.request_id, name).await?;
    // A sandbox is isolated as a whole; on a scratch server, the role that loads is confined.
    let confine = !server.is_sandbox() && config.verify.scratch_trust == Trust::Restricted;
    let loader = if confine {
        database.confine().await?
    } else {
        None
    };
    let mut summary = LoadSummary::default();
    if confine && loader.is_none() {
        let note = "the scratch server's role may not create roles, so it loads the backup itself";
        summary.notes.push(note.into());
    }
    let mut destination = SandboxDestination::new(&server.server, &database, loader);
    let run = VerificationRun {
        context,
        seen,
        history,
        pinned,
    };
    let work = run.load_and_examine(opened, &mut destination, (report, &mut summary));
    let done = Box::pin(work).await;
    report.notes.append(&mut summary.notes);
    report.rewrites = summary.rewriter.map(|r| r.report()).unwrap_or_default();
    let done = match done {
        Ok(()) => Ok(()),
        Err(e) => Err(database.unless_lost(e).await),
    };
    server.clean_up(&database).await;
    done
}

/// What the restore of a verification works with.
struct VerificationRun<'a> {
    context: &'a VerifyContext<'a>,
    seen: &'a SeenArchive,
    history: &'a History,
    pinned: Option<&'a PinnedBackup>,
}

impl VerificationRun<'_> {
    /// A restore up to the loaded database, and the comparison of the restored database with the backup.
    async fn load_and_examine(
        &self,
        opened: Opened,
        destination: &mut SandboxDestination<'_>,
        (report, summary): (&mut VerificationReport, &mut LoadSummary),
    ) -> Result<(), RestoreError> {
        let (context, content_digest) = (self.context, &self.seen.content_digest);
        let begun = tokio::time::Instant::now();
        let encoding = opened.archive.encoding().name().to_owned();
        let large_objects = pgdump_restore::large_objects_in(opened.archive.entries());
        let dumped_major = opened.archive.header().server_major();
        let selection = Selection::default();
        let request = LoadRequest {
            policy: verification_policy(context.config(), destination.is_confined()),
            selection: &selection,
            backup: self.pinned,
            masking: None,
        };
        let prepared = opened
            .prepare(context, destination, request, summary)
            .await?;
        let entries = prepared.entries().to_vec();
        let created = prepared
            .create_staging(destination, context.progress, summary)
            .await?;
        let style = LoadStyle {
            content_digest: Some(content_digest.clone()),
            ..LoadStyle::default()
        };
        let loaded = created
            .load(context, context.job.jobs, style, summary)
            .await?;
        reached(report, &loaded.integrity, Depth::Restore)?;
        let seconds = begun.elapsed().as_secs_f64();
        sum_up(report, content_digest, large_objects);
        report.contents = self.seen.restored_contents(&loaded).await;
        let history = verification::comparable(self.history, report.contents);
        report.contents = self.seen.contents_beside(report, &history);
        let without_data = self.seen.without_data(report.contents);
        (report.without_data, report.without_data_left_out) = without_data;
        report.rto = Some(verdict::forecast(seconds, report.bytes, &history));
        report.trend = history.trend();
        if report.depth_requested < Depth::Data {
            return Ok(());
        }
        context.progress.enter(Stage::Check);
        let restored = RestoredDatabase {
            server: &loaded.server,
            database: &loaded.staging.name,
            entries: &entries,
            content_digest,
            coverage: self.seen.coverage.get(),
            encoding: &encoding,
            dumped_major,
            backup_created: report.backup_created.unwrap_or(report.started_at),
            masking: context.config().masking.as_ref().map(|m| m.0.clone()),
            sessions: loaded.sessions,
            progress: context.progress,
        };
        let checks = &self.seen.checks;
        let examined = Box::pin(verification::examine(&restored, checks, &history));
        let found = examined.await?;
        step("examined");
        (report.tables, report.checks, report.drift) = (found.tables, found.checks, found.drift);
        Ok(())
    }
}

/// The policy of a verification: missing roles are created, statistics are not needed, and nothing may be
/// left out but definitions of a managed service's platform.
fn verification_policy(config: &Config, confined: bool) -> Policy {
    let policy = Policy {
        create_roles: true,
        extensions: Extensions::Require,
        on_error: OnError::Stop,
        leave_out_platform_rows: false,
        analyze: false,
        ..config.policy.clone()
    };
    if confined { restricted(policy) } else { policy }
}

fn checks(config: &Config, set: &str) -> Result<Checks, RestoreError> {
    let file = config
        .verify
        .checks
        .as_ref()
        .map(ChecksFile::parse)
        .transpose()?;
    Ok(file.unwrap_or_default().of_set(set))
}

/// Writes the evidence of a final answer and returns the outcome.
async fn conclude(
    context: &VerifyContext<'_>,
    (mut report, mut is_denied_alone): (VerificationReport, bool),
    pinned: Option<&PinnedBackup>,
) -> JobOutcome {
    let job = context.job;
    let reason = |r: &VerificationReport| r.error.as_ref().map(|e| e.reason);
    let is_permanent = |r: R| r.retry_class() == RetryClass::Permanent;
    let is_final = is_denied_alone || reason(&report).is_none_or(is_permanent);
    let mut document = None;
    let why_none = context.catalog().why_not_kept(job, pinned);
    report.notes.extend(why_none.map(str::to_owned));
    report.bound();
    crate::event::bound_rewrites(&mut report.rewrites);
    if is_final && job.trigger != Trigger::Bisection {
        context.progress.enter(Stage::Evidence);
        let written = context.catalog().write_evidence(job, &report, pinned);
        let written = context.end_bounds("verification").within(written).await;
        match written {
            // If another worker was faster, its answer stands.
            Ok(Some(kept)) => (report, document) = (kept.report, Some(kept.document)),
            Ok(None) => {}
            Err(e) => {
                tracing::error!(error = said(&e), "the evidence was not written");
                // An answer that is not written down is not given, as long as another attempt may write it.
                if is_tried_again(context, &e) {
                    verdict::fail(&mut report, &e, Stage::Evidence);
                    is_denied_alone = false;
                }
                report
                    .notes
                    .push(format!("{EVIDENCE_NOT_WRITTEN}: {}", said(&e)));
            }
        }
    }
    let failure = reason(&report);
    tracing::info!(
        verdict = report.verdict.as_str(),
        depth = report.depth.map_or("", Depth::as_str),
        duration_s = report.duration_seconds,
        rows = report.rows,
        failure_reason = failure.map_or("", R::as_str),
        "verification ended"
    );
    JobOutcome {
        result: verdict::result_of(job, &report, document),
        failure,
        repeated: false,
        is_final: is_quarantined(context),
        counted: None,
        is_denied_alone,
        proof: Some(Box::new(report)),
    }
}

/// Records that every byte is the object's and that everything up to `depth` is in order.
fn reached(
    report: &mut VerificationReport,
    integrity: &IntegrityCheck,
    depth: Depth,
) -> Result<(), RestoreError> {
    let bytes = integrity.check()?;
    report.backup.size = Some(bytes.size().to_string());
    report.backup.crc32c = bytes.crc32c().map(backup::encode_crc32c);
    report.sha256 = integrity.sha256();
    report.members = integrity.members();
    report.depth = Some(depth);
    Ok(())
}

/// Reads all data, for its digest alone, until `stop` is cancelled.
async fn read_all(
    mut archive: Archive,
    content_digest: Arc<ContentDigest>,
    progress: &Arc<Progress>,
    stop: CancellationToken,
) -> Result<(), RestoreError> {
    let progress = progress.clone();
    archive.decode_texts_for_display();
    let read = tokio::task::spawn_blocking(move || {
        let seen = |n| {
            progress
                .data_bytes
                .fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        };
        let sink = DigestSink::new(&content_digest, &seen);
        archive.read_data(&mut StoppableSink { sink, stop })
    });
    Ok(read
        .await
        .map_err(|e| RestoreError::internal(format!("the archive reader panicked: {e}")))??)
}

/// Digests data until it is stopped. A few bytes may decompress for hours, so it is not enough that the download ends.
struct StoppableSink<'a> {
    sink: DigestSink<'a>,
    stop: CancellationToken,
}

impl DataSink for StoppableSink<'_> {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.sink.begin(entry)
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        if self.stop.is_cancelled() {
            let stopped = JobError::new(JobKind::Cancelled, "the backup is no longer read");
            return Err(RestoreError::from(stopped).into());
        }
        self.sink.chunk(chunk)
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.sink.end(entry)
    }

    fn extent(&mut self, entry: Option<&TocEntry>, extent: Extent) {
        self.sink.extent(entry, extent);
    }

    fn tail(&mut self, extent: Extent) {
        self.sink.tail(extent);
    }
}

fn archive_proof(archive: &Archive) -> ArchiveProof {
    let h = archive.header();
    ArchiveProof {
        format: h.format.as_str().to_owned(),
        wrapped_in: h.filters.iter().map(|l| l.as_str().to_owned()).collect(),
        server_version: h.server_version.clone(),
        pg_dump_version: h.pg_dump_version.clone(),
        encoding: archive.encoding().name().to_owned(),
        entries: verification::kinds(archive.entries()),
    }
}

/// Fills in what the archive contains; its entries list so many large objects. One without a byte has no data.
fn sum_up(report: &mut VerificationReport, content_digest: &ContentDigest, large_objects: u64) {
    let objects = content_digest.objects();
    report.tables = verification::tables_of(content_digest);
    report.large_objects = large_objects.max(objects.len() as u64);
    report.rows = report.tables.iter().map(|t| t.rows).sum();
    let of_tables: u64 = report.tables.iter().map(|t| t.bytes).sum();
    report.bytes = of_tables + objects.values().map(|o| o.bytes).sum::<u64>();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Location, RawConfig};
    use crate::error::{DatabaseError, DatabaseKind, StorageKind, ValidationError, ValidationKind};
    use crate::job::BackupRef;
    use crate::metrics::RestoreMetricsManager;
    use crate::postgres::Server;
    use crate::proof::{ServerProof, Verdict};
    use crate::store::Stores;
    use crate::store::faulty::{Call, FaultyStore, StoreFault};
    use crate::verification::TEST_SIGNING_KEY as KEY;
    use pgdump_archive::{ArchiveSource, DecryptionKeys, Limits};

    /// What decompresses for hours ends with its job.
    #[tokio::test]
    async fn data_is_read_until_the_job_ends() {
        let fixture = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/v15.custom.dump"
        );
        for is_stopped in [false, true] {
            let origin = ArchiveSource::once(std::fs::File::open(fixture).unwrap());
            let keys = DecryptionKeys::default();
            let archive = Archive::open(origin, Limits::default(), &keys).unwrap();
            let digest = Arc::new(ContentDigest::of(&archive));
            let stop = CancellationToken::new();
            if is_stopped {
                stop.cancel();
            }
            let read = read_all(archive, digest, &Arc::default(), stop).await;
            let reason = read.err().map(|e| e.reason());
            assert_eq!(reason, is_stopped.then_some(R::Cancelled));
        }
    }

    /// One backup in a folder, and the services that verify it.
    struct OneBackup {
        folder: tempfile::TempDir,
        store: Arc<FaultyStore>,
        services: Services,
        pinned: PinnedBackup,
    }

    impl OneBackup {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("a.dump"), "PGDMP").unwrap();
            let bucket = format!("file://{}", folder.path().display());
            let flags = [
                ("backup-bucket", bucket.as_str()),
                ("db-host", "/nowhere"),
                ("evidence-signing-key", KEY),
            ];
            let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
            let (config, stores) = (Arc::new(config), Arc::new(Stores::new(None)));
            let store = Arc::new(FaultyStore::at(folder.path()));
            let place = Location::Folder(folder.path().to_owned());
            stores.replace(place, store.clone());
            let metrics = RestoreMetricsManager::new(0.0);
            let services = Services {
                catalog: catalog::BackupCatalog::new(config.clone(), stores, metrics.clone()),
                server: Server::new(&config.db).unwrap(),
                config,
                metrics,
                unclaimed: Default::default(),
            };
            let pinned = backup::pin(store.clone(), "a.dump", None, None)
                .await
                .unwrap();
            OneBackup {
                folder,
                store,
                services,
                pinned,
            }
        }

        /// How a verification of it ends, with this verdict, on this attempt.
        async fn concluded(
            &self,
            (trigger, attempt): (Trigger, u32),
            report: VerificationReport,
        ) -> JobOutcome {
            let mut job = VerifyJob::new("r", BackupRef::Stdin, trigger);
            job.attempt = attempt;
            let (progress, cancel) = (Arc::default(), CancellationToken::new());
            let context = JobContext {
                services: &self.services,
                job: &job,
                progress: &progress,
                cancel: &cancel,
                clock: JobClock::start(),
            };
            conclude(&context, (report, false), Some(&self.pinned)).await
        }

        fn report(&self, trigger: Trigger) -> VerificationReport {
            let now = jiff::Timestamp::now();
            VerificationReport {
                verdict: Verdict::Verified,
                depth: Some(Depth::Data),
                backup: catalog::describe(&self.pinned),
                backup_created: Some(self.pinned.object.created),
                ..VerificationReport::new("r", trigger, Depth::Data, now)
            }
        }
    }

    /// A message whose answer could not be written comes again; its last attempt, and what has one attempt only, says so.
    #[tokio::test(start_paused = true)]
    async fn an_answer_without_evidence_is_not_given_while_attempts_remain() {
        use Trigger::{Command, Notification, Request, Schedule};
        let one = OneBackup::new().await;
        let last = one.services.config.max_attempts;
        for kind in [StorageKind::DownloadFailed, StorageKind::AccessDenied] {
            for (trigger, attempt, is_given) in [
                (Notification, 1, false),
                (Request, last - 1, false),
                (Notification, last, true),
                (Command, 1, true),
                (Schedule, 1, true),
            ] {
                one.store.fail(
                    Call::Create,
                    "a.dump.pgrestored/",
                    StoreFault::Error(kind),
                    // As often as a failure that may pass is repeated.
                    if kind == StorageKind::DownloadFailed {
                        5
                    } else {
                        1
                    },
                );
                let done = one.concluded((trigger, attempt), one.report(trigger)).await;
                let expected = (!is_given).then_some(kind.reason());
                assert_eq!(done.failure, expected, "{trigger:?} {attempt}");
                let said = done.result.notes.concat();
                assert!(said.starts_with("the evidence was not written"), "{said}");
                let is_verified = done.result.verdict == Some(Verdict::Verified);
                assert_eq!(is_verified, is_given);
            }
        }
        let done = one
            .concluded((Notification, 2), one.report(Notification))
            .await;
        assert_eq!((done.failure, done.result.notes.len()), (None, 0));
        assert!(done.result.verification.unwrap().evidence.is_some());
    }

    /// Earlier evidence that cannot be read may say that the backup is good.
    #[tokio::test]
    async fn a_backup_is_not_called_bad_while_earlier_evidence_cannot_be_read() {
        for (call, name, fault, reason) in [
            (
                Call::List,
                "a.dump.pgrestored/",
                StorageKind::DownloadFailed,
                R::DownloadFailed,
            ),
            (
                Call::List,
                "a.dump.pgrestored/",
                StorageKind::AccessDenied,
                R::AccessDenied,
            ),
            (
                Call::List,
                "a.dump.pgrestored/",
                StorageKind::CallRejected,
                R::ArchiveCorrupt,
            ),
            (
                Call::Read,
                "a.dump.pgrestored/",
                StorageKind::AccessDenied,
                R::ArchiveCorrupt,
            ),
        ] {
            let one = OneBackup::new().await;
            let proven = one.report(Trigger::Notification);
            one.concluded((Trigger::Notification, 1), proven).await;
            let failed = || {
                let mut report = one.report(Trigger::Schedule);
                let e = ValidationError::new(ValidationKind::ArchiveCorrupt, "cut off");
                verdict::fail(&mut report, &e.into(), Stage::Data);
                assert_eq!(report.verdict, Verdict::Failed);
                report
            };
            let mut report = failed();
            one.store.fail(call, name, StoreFault::Error(fault), 9);
            one.services
                .catalog
                .settle_verdict(&mut report, Some(&one.pinned))
                .await;
            assert_eq!(report.verdict, Verdict::Inconclusive, "{call:?} {fault:?}");
            let error = report.error.unwrap();
            assert_eq!(error.reason, reason);
            assert!(
                error.message.contains("cut off; earlier evidence"),
                "{}",
                error.message
            );
            assert_eq!(
                error.retryable,
                reason.retry_class() != RetryClass::Permanent
            );
        }
    }

    /// A refusal by another major version contradicts no proof.
    #[tokio::test]
    async fn only_a_failure_that_stands_is_logged_as_a_defect() {
        let one = OneBackup::new().await;
        let with_bytes = |report| VerificationReport {
            sha256: Some("the same".into()),
            ..report
        };
        let proven = with_bytes(one.report(Trigger::Notification));
        one.concluded((Trigger::Notification, 1), proven).await;
        for (server, reason, is_logged) in [
            ("15.18", R::VersionIncompatible, false),
            ("16.4", R::RestoreError, true),
        ] {
            let mut report = with_bytes(one.report(Trigger::Schedule));
            report.archive = Some(ArchiveProof {
                format: "custom".into(),
                wrapped_in: vec![],
                server_version: "16.4".into(),
                pg_dump_version: "16.4".into(),
                encoding: "UTF8".into(),
                entries: Default::default(),
            });
            report.server = Some(ServerProof {
                kind: "sandbox".into(),
                version: server.into(),
                isolation: None,
            });
            let e = DatabaseError::new(DatabaseKind::StatementRejected, "TABLE s.t: refused");
            verdict::fail(&mut report, &e.with_sqlstate("42601").into(), Stage::Schema);
            let path = one.folder.path().join(format!("log-{server}"));
            let file = std::fs::File::create(&path).unwrap();
            let log = tracing_subscriber::fmt().with_writer(file).finish();
            let logging = tracing::subscriber::set_default(log);
            let catalog = &one.services.catalog;
            catalog.settle_verdict(&mut report, Some(&one.pinned)).await;
            drop(logging);
            let said = std::fs::read_to_string(&path).unwrap();
            assert_eq!(said.contains("ERROR"), is_logged, "{server}: {said}");
            assert_eq!(
                said.contains("a fault in this program"),
                is_logged,
                "{server}: {said}"
            );
            assert_eq!(report.verdict, Verdict::Inconclusive, "{server}");
            assert_eq!(report.error.unwrap().reason, reason, "{server}");
        }
    }

    /// One object that nobody may read is an answer; a worker that can read nothing has none.
    #[tokio::test]
    async fn an_object_that_is_denied_alone_is_inconclusive_and_done() {
        for (denied, class) in [
            ("a.dump", RetryClass::Permanent),
            ("", RetryClass::Environment),
        ] {
            let one = OneBackup::new().await;
            std::fs::write(one.folder.path().join("b.dump"), "PGDMP").unwrap();
            let fault = StoreFault::Error(StorageKind::AccessDenied);
            one.store.fail(Call::Read, denied, fault, 99);
            let job = VerifyJob {
                depth: Some(Depth::Archive),
                ..VerifyJob::new(
                    "r",
                    BackupRef::parse("a.dump", "").unwrap(),
                    Trigger::Request,
                )
            };
            let done = run(
                &one.services,
                &job,
                Arc::default(),
                CancellationToken::new(),
            )
            .await;
            assert_eq!(done.failure, Some(R::AccessDenied), "{denied:?}");
            assert_eq!(done.retry_class(), Some(class), "{denied:?}");
            assert_eq!(done.result.verdict, Some(Verdict::Inconclusive));
        }
    }

    /// Whoever may add folders can add one that nobody may list: `latest` cannot be told then, and the worker stays ready.
    #[tokio::test]
    async fn a_folder_that_hides_the_newest_backup_is_an_answer() {
        for (denied, class) in [
            ("nothing", RetryClass::Permanent),
            ("", RetryClass::Environment),
        ] {
            let one = OneBackup::new().await;
            one.store.hide("secret/", jiff::Timestamp::now());
            let fault = StoreFault::Error(StorageKind::AccessDenied);
            one.store.fail(Call::Read, denied, fault, 99);
            let latest = BackupRef::parse("latest", "").unwrap();
            let job = VerifyJob::new("r", latest, Trigger::Request);
            let stop = CancellationToken::new();
            let done = run(&one.services, &job, Arc::default(), stop).await;
            assert_eq!(done.failure, Some(R::AccessDenied), "{denied:?}");
            assert_eq!(done.retry_class(), Some(class), "{denied:?}");
            let said = done.result.error.unwrap().message;
            assert!(said.contains("/secret/: this account"), "{said}");
        }
    }

    /// Evidence that somebody put there so that nobody may read it keeps no backup from being looked at.
    #[tokio::test]
    async fn evidence_that_is_denied_alone_is_no_answer() {
        let one = OneBackup::new().await;
        let generation = one.pinned.object.generation.to_string();
        let base = verification::evidence_name("a.dump", &generation, "r");
        let path = one.folder.path().join(format!("{base}.dsse.json"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "{}").unwrap();
        let fault = StoreFault::Error(StorageKind::AccessDenied);
        one.store.fail(Call::Read, "a.dump.pgrestored/", fault, 99);
        let job = VerifyJob {
            depth: Some(Depth::Archive),
            ..VerifyJob::new(
                "r",
                BackupRef::parse("a.dump", "").unwrap(),
                Trigger::Request,
            )
        };
        let stop = CancellationToken::new();
        let done = run(&one.services, &job, Arc::default(), stop).await;
        // The file is no archive.
        assert_eq!(done.failure, Some(R::ArchiveCorrupt), "{:?}", done.result);
        assert_eq!(done.retry_class(), Some(RetryClass::Permanent));
    }
}

//! The story of one verification: pin, read, restore into a server of its own, compare, judge, and
//! write the evidence. Every way it ends is an answer: verified, failed, or inconclusive.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

use super::verification_server::{self, VerificationServer};
use super::{JobOutcome, RestoreManager, end_spans, placement, restricted};
use crate::backup::{self, DownloadOptions, IntegrityCheck, PinnedBackup, ReadHint, Source};
use crate::config::Trust;
use crate::database::{CreateOptions, Loader, VerificationDatabase};
use crate::error::{FailureReason as R, JobError, RestoreError};
use crate::job::{Completeness, ResultBackup, VerifyJob, made_for};
use crate::policy::{Depth, Extensions, Policy, Selection, Trigger};
use crate::progress::Progress;
use crate::proof::{ArchiveProof, VerificationReport};
use crate::steps::reached as step;
use crate::verification::{
    self, Checks, ChecksFile, History, RestoredDatabase, StoredEvidence, verdict,
};
use pgdump_archive::{Archive, ContentDigest, DigestSink};
use pgdump_restore::{LoadOptions, Rewriter};

/// What a restore for proof stands on.
struct VerificationEnv<'a> {
    ground: &'a VerificationServer,
    apart: &'a VerificationDatabase,
    /// Who loads, where it is another role than the ground's own.
    loader: Option<&'a Loader>,
    rewriter: &'a Arc<Rewriter>,
    /// What the restored database is compared with.
    history: &'a History,
}

/// What one verification is made of.
struct VerificationRun<'a> {
    job: &'a VerifyJob,
    progress: &'a Arc<Progress>,
    stop: &'a CancellationToken,
}

impl RestoreManager {
    /// Proves that a backup can be restored, as deep as the job or the configuration says. Always an
    /// answer; its evidence is beside the backup where the answer is final.
    pub async fn verify_backup(
        &self,
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
            let finished = self.verify_in_span(job, &progress, stop).await;
            end_spans(&progress, finished.failure);
            finished
        };
        work.instrument(span).await
    }

    async fn verify_in_span(
        &self,
        job: &VerifyJob,
        progress: &Arc<Progress>,
        stop: CancellationToken,
    ) -> JobOutcome {
        let (started, clock) = (jiff::Timestamp::now(), tokio::time::Instant::now());
        let left = job
            .deadline
            .map(|d| Duration::try_from(d.duration_since(started)).unwrap_or_default());
        let limit = left.map_or(self.config.timeout, |l| l.min(self.config.timeout));
        let stop = stop.child_token();
        let _guard = stop.clone().drop_guard();
        let depth = job.depth.unwrap_or(self.config.verify.depth);
        let mut report = VerificationReport::new(&job.request_id, job.trigger, depth, started);
        report.backup_set = self.config.verify.set_of("").to_owned();
        let mut pinned = None;
        let ended = tokio::select! {
            ended = self.verify_stages(job, progress, &stop, &mut report, &mut pinned) => ended,
            () = stop.cancelled() => Err(RestoreError::cancelled("the verification was interrupted")),
            () = tokio::time::sleep(limit) => {
                Err(JobError::new(R::Timeout, format!("not finished within {limit:?}")).into())
            }
            e = super::limits::exceeded(&self.config, progress) => Err(e),
        };
        report.duration_seconds = clock.elapsed().as_secs_f64();
        report.finished_at = started.checked_add(clock.elapsed()).unwrap_or(started);
        report.stages = progress
            .stages()
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect();
        match ended {
            Ok(Some(kept)) => {
                let failure = kept.report.error.as_ref().map(|e| e.reason);
                let result = verdict::result_of(job, &kept.report, Some(kept.uri));
                let proof = Some(Box::new(kept.report));
                return JobOutcome {
                    result,
                    failure,
                    repeated: true,
                    is_final: true,
                    proof,
                };
            }
            Ok(None) => verdict::judge(&mut report, progress.stage()),
            Err(e) => verdict::fail(&mut report, &e, progress.stage()),
        }
        verdict::mind_the_locale(&mut report);
        self.doubt(&mut report, pinned.as_ref()).await;
        if self.is_bisected(job, &report) {
            progress.enter("bisect");
            report.bisection = self.bisect(job, &report, &stop).await;
        }
        self.conclude(job, report, pinned.as_ref(), progress).await
    }

    /// Whether the message has come so often that it is taken for one that kills workers.
    pub(super) fn is_quarantined(&self, job: &VerifyJob) -> bool {
        job.attempt > self.config.quarantine_after
    }

    /// The whole way; `Some` where this request has its answer already.
    async fn verify_stages(
        &self,
        job: &VerifyJob,
        progress: &Arc<Progress>,
        stop: &CancellationToken,
        report: &mut VerificationReport,
        pinned: &mut Option<PinnedBackup>,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        progress.enter("prepare");
        // Before a byte is read: a wrong checks file or key is nobody's backup's fault.
        self.checks("")?;
        let crc32c = job
            .crc32c
            .as_deref()
            .map(backup::decode_crc32c)
            .transpose()?;
        *pinned = self.pin_whole(job, crc32c).await?;
        self.describe_backup(report, pinned.as_ref());
        if let Some(kept) = self
            .answered(job, pinned.as_ref(), report.depth_requested)
            .await?
        {
            return Ok(Some(kept));
        }
        if self.is_quarantined(job) {
            let what = format!("quarantined: {} deliveries came to no end", job.attempt - 1);
            return Err(RestoreError::internal(what));
        }
        if report.depth_requested == Depth::Object {
            let source = pinned.clone().map_or(Source::Stdin, Source::Object);
            let expected = self.drain(source, progress, stop).await?;
            reached(report, &expected, Depth::Object)?;
            return Ok(None);
        }
        let run = VerificationRun {
            job,
            progress,
            stop,
        };
        loop {
            let source = pinned.clone().map_or(Source::Stdin, Source::Object);
            let Err(e) = self.deeper(&run, source, report).await else {
                return Ok(None);
            };
            let more = match &*pinned {
                Some(p)
                    if e.reason() == R::ArchiveCorrupt && job.trigger == Trigger::Notification =>
                {
                    self.wait_for_upload(p, job).await?
                }
                _ => None,
            };
            let Some(more) = more else {
                return Err(self.cause(e, pinned.as_ref(), stop, report).await);
            };
            *pinned = Some(more);
            self.describe_backup(report, pinned.as_ref());
        }
    }

    fn describe_backup(&self, report: &mut VerificationReport, pinned: Option<&PinnedBackup>) {
        let Some(p) = pinned else { return };
        report.backup = ResultBackup {
            name: Some(p.object.name.clone()),
            uri: Some(p.uri()),
            generation: Some(p.object.generation.to_string()),
            size: Some(p.object.size.to_string()),
            crc32c: p.expected_crc32c.map(backup::encode_crc32c),
        };
        report.backup_created = Some(p.object.created);
        report.backup_set = self.config.verify.set_of(&p.object.name).to_owned();
    }

    fn verification_options(&self) -> DownloadOptions {
        DownloadOptions {
            sha256: true,
            ..self.limits()
        }
    }

    /// The same error, or what is behind it; what was learned of the object goes into the report.
    async fn cause(
        &self,
        e: RestoreError,
        pinned: Option<&PinnedBackup>,
        stop: &CancellationToken,
        report: &mut VerificationReport,
    ) -> RestoreError {
        let (e, expected) = self.diagnose(e, pinned, stop).await;
        if let Some(expected) = expected {
            // Whatever else it is, the object is what the store says.
            let _ = reached(report, &expected, Depth::Object);
        }
        e
    }

    /// Depth `archive` and further.
    async fn deeper(
        &self,
        run: &VerificationRun<'_>,
        source: Source,
        report: &mut VerificationReport,
    ) -> Result<(), RestoreError> {
        let pinned = if let Source::Object(b) = &source {
            Some(b.clone())
        } else {
            None
        };
        let options = self.verification_options();
        let (origin, expected) = backup::open(
            source,
            ReadHint::Whole,
            options,
            run.progress.clone(),
            run.stop.clone(),
        );
        let (keys, bounds) = (self.keys()?, self.archive_limits());
        let database = run.job.database.clone();
        let open = move || Archive::open_database(origin, bounds, &keys, database.as_deref());
        let archive = tokio::task::spawn_blocking(open)
            .await
            .map_err(|e| RestoreError::internal(format!("the archive reader died: {e}")))??;
        report.notes.extend(
            run.job
                .database
                .as_ref()
                .map(|d| format!("only database {d} was looked at")),
        );
        report.archive = Some(archive_proof(&archive));
        report.database = archive.header().database.clone().filter(|d| !d.is_empty());
        let completeness = archive.completeness();
        let content_digest = Arc::new(ContentDigest::of(&archive));
        if report.depth_requested == Depth::Archive {
            run.progress.enter("data");
            count_all(archive, content_digest.clone(), run.progress).await?;
            reached(report, &expected, Depth::Archive)?;
            sum_up(report, &content_digest);
            self.keep_index(pinned.as_ref(), report, &content_digest)
                .await;
            self.note_completeness(
                report,
                completeness.get().map(|c| Completeness::of(Some(c))),
            );
            return Ok(());
        }
        let history = self.history(pinned.as_ref(), report).await?;
        run.progress.enter("sandbox");
        let header = archive.header();
        let name = verification_server::own_name(header.database.as_deref());
        let name = name.unwrap_or_else(|| VerificationDatabase::name_for(&run.job.request_id));
        let settings = verification_server::settings_for(archive.entries(), &name);
        let ground = self
            .ground(major_of(&header.server_version), settings)
            .await?;
        report.server = Some(ground.proof.clone());
        step("sandbox");
        let apart = ground.claim(&run.job.request_id, name).await?;
        let mut policy = self.verification_policy();
        // A sandbox is apart as a whole; on a scratch server the role that loads is.
        let confined =
            !ground.is_sandbox() && self.config.verify.scratch_trust == Trust::Restricted;
        let loader = if confined {
            apart.confine().await?
        } else {
            None
        };
        if confined && loader.is_none() {
            report
                .notes
                .push("the scratch server's role may make no roles, and loads itself".into());
        }
        let facts = placement::facts_for(apart.session().facts().await?, &apart.name, &apart.name);
        let facts = match &loader {
            Some(loader) => {
                policy = restricted(policy);
                loader.facts(facts)
            }
            None => facts,
        };
        let globals = self.globals(&policy, pinned.as_ref(), run.stop).await?;
        let rewriter =
            Rewriter::new(facts, policy, globals).with_role_comment(made_for(&apart.name));
        let rewriter = Arc::new(rewriter);
        let place = VerificationEnv {
            ground: &ground,
            apart: &apart,
            loader: loader.as_ref(),
            rewriter: &rewriter,
            history: &history,
        };
        let done = self
            .restore_and_check(
                run,
                archive,
                (expected, content_digest.clone()),
                place,
                report,
            )
            .await;
        if report.depth >= Some(Depth::Restore) {
            self.keep_index(pinned.as_ref(), report, &content_digest)
                .await;
        }
        report.rewrites = rewriter.report();
        self.note_completeness(
            report,
            completeness.get().map(|c| Completeness::of(Some(c))),
        );
        let done = match done {
            Ok(()) => Ok(()),
            Err(e) => Err(apart.unless_lost(e).await),
        };
        ground.clean_up_server(&apart).await;
        done
    }

    /// The policy of the restore that proves: roles are made, statistics are not needed, and nothing
    /// may be left out.
    fn verification_policy(&self) -> Policy {
        let configured = self.config.policy.clone();
        Policy {
            create_roles: true,
            extensions: Extensions::Require,
            analyze: false,
            ..configured
        }
    }

    async fn restore_and_check(
        &self,
        run: &VerificationRun<'_>,
        mut archive: Archive,
        (expected, content_digest): (IntegrityCheck, Arc<ContentDigest>),
        place: VerificationEnv<'_>,
        report: &mut VerificationReport,
    ) -> Result<(), RestoreError> {
        let begun = tokio::time::Instant::now();
        let stored = report.backup.size.as_deref().and_then(|s| s.parse().ok());
        let asked = place.apart.session();
        let options = CreateOptions::of_dump(asked, archive.entries(), archive.encoding())
            .await?
            .by_files();
        pgdump_restore::convert_texts(asked, &mut archive, &options.encoding(asked).await?).await?;
        let prepared =
            pgdump_restore::prepare(&archive, &Selection::default(), stored, place.rewriter)?;
        report.notes.extend(prepared.notes);
        for sql in &prepared.roles {
            place
                .apart
                .session()
                .run(sql)
                .await
                .map_err(|e| e.context("creating a role"))?;
        }
        let mut made = place.apart.create(&options).await?;
        report.notes.append(&mut made.notes);
        if let Some(loader) = place.loader {
            place.apart.admit(loader, &made).await?;
        }
        let server = &made.on(place.loader.map_or(&place.ground.server, |l| &l.server));
        let sessions = self
            .config
            .jobs_for(run.job.jobs, place.rewriter.facts.cores);
        let encoding = archive.encoding().name().to_owned();
        let dumped_major = major_of(&archive.header().server_version);
        let entries = if archive.is_script() {
            vec![]
        } else {
            prepared.entries
        };
        let options = LoadOptions {
            sessions,
            queue_bytes: self.config.queue_bytes,
            binary_from: self.config.binary_from,
            max_bytes: self.config.max_bytes,
            content_digest: Some(content_digest.clone()),
            in_order_into: None,
        };
        let (rewriter, shown) = (place.rewriter.clone(), run.progress.clone());
        pgdump_restore::load(
            server,
            &place.apart.name,
            archive,
            entries.clone(),
            options,
            rewriter,
            shown,
        )
        .await?;
        reached(report, &expected, Depth::Restore)?;
        sum_up(report, &content_digest);
        report.rto = Some(verdict::forecast(
            begun.elapsed().as_secs_f64(),
            report.bytes,
            place.history,
        ));
        if report.depth_requested < Depth::Data {
            return Ok(());
        }
        run.progress.enter("check");
        let subject = RestoredDatabase {
            server,
            database: &place.apart.name,
            entries: &entries,
            content_digest: &content_digest,
            encoding: &encoding,
            dumped_major,
            backup_created: report.backup_created.unwrap_or(report.started_at),
            sessions,
        };
        let checks = self.checks(&report.backup_set)?;
        let found = verification::examine(&subject, &checks, place.history).await?;
        step("examined");
        (report.tables, report.checks, report.drift) = (found.tables, found.checks, found.drift);
        Ok(())
    }

    fn checks(&self, set: &str) -> Result<Checks, RestoreError> {
        let file = self
            .config
            .verify
            .checks
            .as_deref()
            .map(ChecksFile::parse)
            .transpose()?;
        Ok(file.unwrap_or_default().of_set(set))
    }
}

/// Every byte was the object's, and everything up to `depth` was in order.
fn reached(
    report: &mut VerificationReport,
    expected: &IntegrityCheck,
    depth: Depth,
) -> Result<(), RestoreError> {
    let bytes = expected.check()?;
    report.backup.size = Some(bytes.size().to_string());
    report.backup.crc32c = bytes.crc32c().map(backup::encode_crc32c);
    report.sha256 = expected.sha256();
    report.depth = Some(depth);
    Ok(())
}

async fn count_all(
    mut archive: Archive,
    content_digest: Arc<ContentDigest>,
    progress: &Arc<Progress>,
) -> Result<(), RestoreError> {
    let progress = progress.clone();
    archive.decode_texts_for_display();
    let read = tokio::task::spawn_blocking(move || {
        let seen = |n| {
            progress
                .data_bytes
                .fetch_add(n, std::sync::atomic::Ordering::Relaxed);
        };
        archive.read_data(&mut DigestSink::new(&content_digest, &seen))
    });
    Ok(read
        .await
        .map_err(|e| RestoreError::internal(format!("the archive reader died: {e}")))??)
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

/// The archive's side of the report.
fn sum_up(report: &mut VerificationReport, content_digest: &ContentDigest) {
    let objects = content_digest.objects();
    report.tables = verification::tables_of(content_digest);
    report.large_objects = objects.len() as u64;
    report.rows = report.tables.iter().map(|t| t.rows).sum();
    let of_tables: u64 = report.tables.iter().map(|t| t.bytes).sum();
    report.bytes = of_tables + objects.values().map(|o| o.bytes).sum::<u64>();
}

/// `15.18 (Debian …)` → 15; `9.6.24` → 9
fn major_of(version: &str) -> Option<u32> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .find(|p| !p.is_empty())?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_read() {
        assert_eq!(major_of("15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_of("9.6.24"), Some(9));
        assert_eq!(major_of("18beta1"), Some(18));
        assert_eq!(major_of(""), None);
    }
}

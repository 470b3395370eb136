//! What the result of a restore consists of, as it becomes known.

use super::finish::{Finished, FinishingSteps};
use super::job_context::JobContext;
use super::job_outcome::JobOutcome;
use super::states::{LoadSummary, Proven};
use super::target_destination::Resumption;
use crate::backup::{self, PinnedBackup};
use crate::error::{FailureReason as R, RestoreError};
use crate::event::{Advice, RestoreResult, ResultBackup};
use crate::job::{BackupRef, Completeness, RestoreJob};
use crate::proof::BackupContents;
use pgdump_restore::Loaded;

/// What the result of a restore consists of so far, also when it fails.
#[derive(Default)]
pub(super) struct ResultDraft {
    pub(super) backup: ResultBackup,
    pub(super) size: u64,
    pub(super) loaded: Option<Loaded>,
    pub(super) pinned: Option<PinnedBackup>,
    /// The request is taken for one that kills workers.
    pub(super) is_quarantined: bool,
    /// The number of the attempt among those that count; `None` until the target is claimed.
    pub(super) counted: Option<u32>,
    pub(super) summary: LoadSummary,
    pub(super) completeness: Option<Completeness>,
    pub(super) contents: Option<BackupContents>,
    pub(super) finishing: FinishingSteps,
    pub(super) finished: Finished,
    /// What of the server's settings made the load slower.
    pub(super) advice: Vec<Advice>,
    /// What this attempt has continued.
    pub(super) resumption: Option<Resumption>,
    /// The result of a load that an earlier attempt has completed.
    pub(super) sealed: Option<Box<RestoreResult>>,
    /// Why nothing is recorded that a next attempt could continue.
    pub(super) not_recorded: Option<String>,
}

impl ResultDraft {
    /// The number of the attempt among those that count, after which there may be others; a quarantined request has none.
    pub(super) fn counted_attempt(&self, job: &RestoreJob) -> u32 {
        if self.is_quarantined {
            u32::MAX
        } else {
            self.counted.unwrap_or(job.attempt)
        }
    }

    pub(super) fn take_proof(&mut self, proven: &Proven) {
        self.backup.crc32c = proven.bytes.crc32c().map(backup::encode_crc32c);
        self.backup.size = Some(proven.bytes.size().to_string());
        self.size = proven.bytes.size();
        self.loaded = Some(proven.loaded);
    }

    pub(super) fn outcome(&self, result: RestoreResult, failure: Option<R>) -> JobOutcome {
        JobOutcome {
            result,
            failure,
            repeated: false,
            is_final: self.is_quarantined,
            counted: self.counted,
            is_denied_alone: false,
            proof: None,
        }
    }

    pub(super) fn result(
        &self,
        context: &JobContext<'_, RestoreJob>,
        error: Option<&RestoreError>,
    ) -> RestoreResult {
        let JobContext {
            job,
            progress,
            clock,
            ..
        } = context;
        let seconds = clock.seconds();
        let mut r = RestoreResult::new(&job.request_id, (clock.started(), clock.now()));
        if let Some(e) = error {
            r.fail(e, progress.stage());
        }
        r.duration_seconds = seconds;
        r.backup = self.backup.clone();
        // A backup that was not found is named as the request named it.
        if let (None, BackupRef::Named { name, .. }) = (&r.backup.name, &job.backup) {
            r.backup.name = Some(name.clone());
        }
        r.target_db = Some(job.target_db.clone());
        r.attempt = job.attempt;
        r.stages = progress
            .stages()
            .into_iter()
            .map(|(stage, seconds)| (stage.to_string(), seconds))
            .collect();
        r.stages_active = progress
            .active_stages()
            .into_iter()
            .map(|(stage, seconds)| (stage.to_string(), seconds))
            .collect();
        r.notes = self.summary.notes.clone();
        r.resumed_from = self.resumption.map(|resumption| resumption.from);
        self.tell_load(&mut r);
        r.labels = job.labels.clone();
        if error.is_none() {
            self.summary.tell_refusals(&mut r);
            r.finish = self.finished.sql.clone();
            r.advice.clone_from(&self.advice);
            r.notes.extend(self.finished.notes.iter().cloned());
        }
        r.completeness = self.completeness.filter(|_| error.is_none());
        r.contents = self.contents.filter(|_| error.is_none());
        if let (Some(sealed), None) = (&self.sealed, error) {
            tell_sealed(sealed, &mut r);
        }
        r.bound();
        r
    }

    /// What the load has done.
    fn tell_load(&self, r: &mut RestoreResult) {
        if let Some(l) = self.loaded {
            (r.tables, r.rows, r.bytes) = (l.tables, l.rows, l.bytes);
        }
        let rewriter = self.summary.rewriter.as_ref();
        r.rewrites = rewriter.map(|r| r.report()).unwrap_or_default();
        let masking = self.summary.masking.as_ref();
        r.masking = masking.map(|masking| Box::new(masking.report()));
    }
}

/// What the load of an earlier attempt has done, and what it left to say.
fn tell_sealed(sealed: &RestoreResult, r: &mut RestoreResult) {
    r.backup = sealed.backup.clone();
    (r.tables, r.rows, r.bytes) = (sealed.tables, sealed.rows, sealed.bytes);
    r.rewrites = sealed.rewrites.clone();
    r.masking = sealed.masking.clone();
    r.finish = sealed.finish.clone();
    r.advice.clone_from(&sealed.advice);
    r.skipped = sealed.skipped.clone();
    (r.skipped_total, r.complete) = (sealed.skipped_total, sealed.complete);
    (r.completeness, r.contents) = (sealed.completeness, sealed.contents);
    let is_new = |note: &&String| !r.notes.contains(note);
    let notes: Vec<String> = sealed.notes.iter().filter(is_new).cloned().collect();
    r.notes.extend(notes);
}

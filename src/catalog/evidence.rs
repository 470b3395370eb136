//! The evidence of verifications: where it is kept, which earlier answers count, and what the next backup is compared with.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::backup_catalog::BackupCatalog;
use crate::backup::PinnedBackup;
use crate::config::EvidencePlace;
use crate::error::{RestoreError, StorageKind, one_line};
use crate::job::{BackupRef, VerifyJob};
use crate::policy::Depth;
use crate::proof::{Verdict, VerificationReport};
use crate::steps::reached as step;
use crate::verification::{
    Evidence, EvidenceLimits, History, Keyring, Question, SearchLimit, StoredEvidence,
};

/// Proven backups that bands and forecasts are learned from.
const HISTORY: SearchLimit = SearchLimit {
    reports: 10,
    bytes: 24 << 20,
};
/// Most of them that hold only a part of a database: they do not take the room of the whole ones, which show what is
/// missing.
const PARTS: usize = 5;

impl BackupCatalog {
    /// Where the evidence of a backup in `pinned`'s store is kept; of none, that of the bucket.
    pub(crate) async fn evidence(
        &self,
        pinned: Option<&PinnedBackup>,
    ) -> Result<Option<Evidence>, RestoreError> {
        let verify = &self.config.verify;
        if verify.evidence == EvidencePlace::Nowhere {
            return Ok(None);
        }
        let backups = match pinned {
            Some(p) => p.store.clone(),
            None => self.stores.at(&self.config.bucket).await?,
        };
        let store = match &verify.evidence {
            EvidencePlace::At(place) => self.stores.at(place).await?,
            _ => backups.clone(),
        };
        let keys = Arc::new(self.keyring()?);
        Ok(Some(Evidence::new(
            store,
            backups,
            keys,
            self.own_evidence.clone(),
            EvidenceLimits::default(),
        )))
    }

    /// Why there is no evidence at all, where its own place says so.
    ///
    /// # Errors
    /// Errors of the store, but for a place that does not exist.
    pub async fn why_no_evidence(&self) -> Result<Option<String>, RestoreError> {
        let place = match &self.config.verify.evidence {
            EvidencePlace::BesideBackup => return Ok(None),
            EvidencePlace::Nowhere => {
                return Ok(Some("no evidence is kept (EVIDENCE_LOCATION=none)".into()));
            }
            EvidencePlace::At(place) => place,
        };
        match self.stores.at(place).await?.check_exists().await {
            Err(e) if e.kind() == StorageKind::NotFound => Ok(Some(format!(
                "{e}: nothing was verified yet, or EVIDENCE_LOCATION is wrong"
            ))),
            checked => Ok(checked.map(|()| None)?),
        }
    }

    /// The same of a backup that evidence can be about. Standard input is none, and no store is opened for it.
    async fn evidence_about<'a>(
        &self,
        pinned: Option<&'a PinnedBackup>,
    ) -> Result<Option<(&'a PinnedBackup, Evidence)>, RestoreError> {
        match pinned {
            Some(p) => Ok(self.evidence(Some(p)).await?.map(|e| (p, e))),
            None => Ok(None),
        }
    }

    /// Why no evidence of this verification is kept, where a person may expect it.
    pub(crate) fn why_not_kept(
        &self,
        job: &VerifyJob,
        pinned: Option<&PinnedBackup>,
    ) -> Option<&'static str> {
        let is_kept = self.config.verify.evidence != EvidencePlace::Nowhere;
        (is_kept && pinned.is_none() && job.backup == BackupRef::Stdin).then_some(
            "no evidence was written: standard input has no name that evidence could refer to; to get evidence, verify a file",
        )
    }

    /// The key that signs evidence, and those whose evidence counts.
    ///
    /// # Errors
    /// `invalid_request`, without any key.
    pub fn keyring(&self) -> Result<Keyring, RestoreError> {
        use secrecy::ExposeSecret;
        let verify = &self.config.verify;
        let signing = verify.signing_key.as_ref().map(|k| k.expose_secret());
        Keyring::new(signing, verify.trusted_keys.as_deref())
    }

    /// The answer that this job has already, if there is one that can be relied on.
    pub(crate) async fn answered(
        &self,
        job: &VerifyJob,
        pinned: Option<&PinnedBackup>,
        depth: Depth,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        let Some((p, evidence)) = self.evidence_about(pinned).await? else {
            return Ok(None);
        };
        evidence.find(&question(job, p, depth)).await
    }

    /// Writes a report as evidence; `None` where none is kept. Returns the evidence that counts.
    pub(crate) async fn write_evidence(
        &self,
        job: &VerifyJob,
        report: &VerificationReport,
        pinned: Option<&PinnedBackup>,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        let Some((p, evidence)) = self.evidence_about(pinned).await? else {
            return Ok(None);
        };
        let kept = evidence
            .write(&question(job, p, report.depth_requested), report)
            .await
            .map(Some);
        step("evidence");
        kept
    }

    /// Proven backups of the same set and database that are older than this one.
    pub(crate) async fn history(
        &self,
        pinned: Option<&PinnedBackup>,
        report: &VerificationReport,
    ) -> Result<History, RestoreError> {
        let Some((p, evidence)) = self.evidence_about(pinned).await? else {
            return Ok(History::default());
        };
        let (set, origin) = (&report.backup_set, report.looked_at());
        let mut seen: HashSet<(String, String)> = HashSet::new();
        let mut parts = 0;
        let place = (self.config.verify.prefix_of(set), p.object.name.as_str());
        let found = evidence.reports_like(place, HISTORY, |r| {
            let is_wanted = r.is_proof()
                && r.backup_set == *set
                && r.subject() != report.subject()
                && r.backup_created <= report.backup_created
                && r.looked_at() == origin;
            let (name, generation) = r.subject().filter(|_| is_wanted)?;
            let is_new = seen.insert((name.to_owned(), generation.to_owned()));
            parts += usize::from(is_new && r.part().is_some());
            let has_room = r.part().is_none() || parts <= PARTS;
            (is_new && has_room).then_some(r)
        });
        let found = found.await?;
        // Where the names tell, nothing else could count.
        let unread = found.incomplete().filter(|_| !evidence.has_own_names());
        let is_flooded = found.is_flooded && !evidence.has_own_names();
        let mut reports = found.reports;
        reports.sort_by_key(|r| std::cmp::Reverse(r.backup_created));
        Ok(History {
            is_hidden: reports.is_empty() && (is_flooded || unread.is_some()),
            notes: unread.into_iter().collect(),
            reports,
        })
    }
}

/// Whether the newest conclusive report about a backup, one that restored it or found it bad, is a proof. Of a whole
/// cluster, that of each database that was looked at.
pub(super) fn is_proven(reports: &[VerificationReport]) -> bool {
    let all: Vec<&VerificationReport> = reports.iter().collect();
    let last = last_of_each(&all);
    !last.is_empty() && last.iter().all(|(_, r)| r.is_proof())
}

/// Of reports about one backup the last that is conclusive, otherwise the last one. Of a dump of a whole cluster, this for
/// each database that was looked at, with its name: a report that names none is about all of them.
pub(super) fn last_of_each<'a>(
    reports: &[&'a VerificationReport],
) -> Vec<(Option<&'a str>, &'a VerificationReport)> {
    let is_conclusive = |r: &VerificationReport| r.is_proof() || r.verdict == Verdict::Failed;
    let last = |of: Option<&'a str>| {
        let is_about = |r: &&&VerificationReport| {
            of.is_none() || r.database.is_none() || r.database.as_deref() == of
        };
        let last = reports
            .iter()
            .filter(is_about)
            .max_by_key(|r| (is_conclusive(r), r.finished_at));
        last.map(|r| (of, *r))
    };
    let of_several = reports.iter().filter(|r| r.is_of_several());
    let databases: BTreeSet<&'a str> = of_several.filter_map(|r| r.database.as_deref()).collect();
    if databases.is_empty() {
        return last(None).into_iter().collect();
    }
    databases
        .into_iter()
        .filter_map(|d| last(Some(d)))
        .collect()
}

/// Why a report calls its backup bad, if it does.
pub(super) fn why_bad(report: &VerificationReport) -> Option<String> {
    let message = report.error.as_ref().map(|e| e.message.as_str());
    let is_bad = report.verdict == Verdict::Failed;
    is_bad.then(|| one_line(message.unwrap_or("the evidence does not say why")))
}

fn question<'a>(job: &'a VerifyJob, pinned: &'a PinnedBackup, depth: Depth) -> Question<'a> {
    Question {
        backup: &pinned.object,
        request_id: &job.request_id,
        trigger: job.trigger,
        depth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{catalog_of, set_age, verified};
    use crate::job::BackupRef;
    use crate::policy::Trigger;
    use crate::verification::TEST_SIGNING_KEY as KEY;

    /// With the key, a folder that somebody made and that nobody may list ends no proof.
    #[tokio::test]
    async fn a_folder_of_evidence_that_may_not_be_listed_hides_the_history_only_without_a_key() {
        let files: &[(&str, &[u8])] = &[("a.dump", b"PGDMP")];
        let signed: &[(&str, &str)] = &[("evidence-signing-key", KEY)];
        let unsigned: &[(&str, &str)] = &[];
        for (flags, is_hidden) in [(signed, false), (unsigned, true)] {
            let (_folder, store, catalog) = catalog_of(files, flags).await;
            let now = jiff::Timestamp::now();
            let wanted = BackupRef::from_name("a.dump", "").unwrap();
            let pinned = catalog.pin(&wanted, None, None).await.unwrap();
            let report = VerificationReport {
                backup_set: "default".into(),
                ..VerificationReport::new("r", Trigger::Command, Depth::Data, now)
            };
            let hidden = async || {
                let history = catalog.history(pinned.as_ref(), &report).await;
                history.unwrap().is_hidden
            };
            assert!(!hidden().await);
            store.hide("anything.pgrestored/", now);
            assert_eq!(hidden().await, is_hidden);
        }
    }

    /// What may not be listed does not hide the history that is known; what it hides is said.
    #[tokio::test]
    async fn a_history_that_may_lack_something_is_used_and_says_so() {
        let (old, new) = ("a-2026-11-28.dump", "a-2026-11-29.dump");
        let files: &[(&str, &[u8])] = &[(old, b"PGDMP"), (new, b"PGDMP")];
        let (folder, store, catalog) = catalog_of(files, &[]).await;
        set_age(&folder, old, 3600);
        let verified = async |name: &str| {
            let wanted = BackupRef::from_name(name, "").unwrap();
            let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
            let report = VerificationReport {
                verdict: Verdict::Verified,
                depth: Some(Depth::Data),
                backup: crate::catalog::describe(&pinned),
                backup_created: Some(pinned.object.created),
                backup_set: "default".into(),
                ..VerificationReport::new(
                    name,
                    Trigger::Command,
                    Depth::Data,
                    jiff::Timestamp::now(),
                )
            };
            let job = VerifyJob::new(name, wanted, Trigger::Command);
            (pinned, report, job)
        };
        let (pinned, report, job) = verified(old).await;
        let kept = catalog.write_evidence(&job, &report, Some(&pinned)).await;
        kept.unwrap().unwrap();
        store.hide("x.dump.pgrestored/", jiff::Timestamp::now());
        let (pinned, report, _) = verified(new).await;
        let history = catalog.history(Some(&pinned), &report).await.unwrap();
        assert_eq!((history.reports.len(), history.is_hidden), (1, false));
        let [note] = &history.notes[..] else {
            panic!("{:?}", history.notes);
        };
        assert!(note.contains("x.dump.pgrestored/"), "{note}");
    }

    /// All objects are called alike.
    #[tokio::test]
    async fn a_backup_is_compared_with_those_that_are_certainly_of_its_database() {
        let files: &[(&str, &[u8])] = &[
            ("backup-2026-11-01", b"PGDMP"),
            ("backup-2026-11-02", b"PGDMP"),
            ("backup-2026-11-03", b"PGDMP"),
            ("backup-2026-11-04", b"PGDMP"),
        ];
        let (_folder, _store, catalog) = catalog_of(files, &[]).await;
        for ((name, _), database) in files.iter().zip([Some("shop"), Some("blog"), None]) {
            let change = |r: &mut VerificationReport| r.database = database.map(str::to_owned);
            verified(&catalog, name, name, change).await;
        }
        let newest = BackupRef::from_name("backup-2026-11-04", "").unwrap();
        let pinned = catalog.pin(&newest, None, None).await.unwrap();
        let now = jiff::Timestamp::now();
        for (database, expected) in [(Some("shop"), 0), (Some("blog"), 1), (None, 2)] {
            let mut report = VerificationReport::new("r", Trigger::Command, Depth::Data, now);
            report.backup = crate::catalog::describe(pinned.as_ref().unwrap());
            report.backup_created = Some(now);
            report.backup_set = "default".into();
            report.database = database.map(str::to_owned);
            let history = catalog.history(pinned.as_ref(), &report).await.unwrap();
            let names: Vec<_> = history
                .reports
                .iter()
                .map(|r| r.subject().unwrap().0)
                .collect();
            assert_eq!(names, [files[expected].0], "{database:?}");
        }
    }
}

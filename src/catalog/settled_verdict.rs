//! From the raw verdict of a verification to the one that is given: what earlier evidence about the backup, and the limits
//! of the verifying server, make of it.

use super::backup_catalog::BackupCatalog;
use super::reader::describe;
use crate::backup::{self, PinnedBackup};
use crate::error::{Blame, FailureReason as R, RestoreError, RetryClass, report as said};
use crate::job::{BackupRef, VerifyJob};
use crate::proof::{Verdict, VerificationReport};
use crate::verification::{
    Evidence, GenerationEvidence, changed_since, fail_as_damaged, have_same_bytes, lacks_members,
    mind_the_version, note_unknown_change, verdict,
};

/// The note of a verified backup whose earlier evidence was not read.
const NOT_COMPARED: &str =
    "earlier evidence, which may show that the bytes of this backup have changed, was not read";

impl BackupCatalog {
    /// Makes a raw verdict the one that is given, in this order:
    ///
    /// 1. Bytes that are others than those that signed evidence calls proven, under the same name and generation, are
    ///    damage, whatever the verdict was. So are members that are missing.
    /// 2. What the verifying server may have refused for its locale or version is inconclusive.
    /// 3. A failure that signed evidence about the same bytes contradicts is inconclusive, and so is one that evidence may
    ///    contradict which cannot be read.
    ///
    /// Only what then stands is logged.
    pub(crate) async fn settle_verdict(
        &self,
        report: &mut VerificationReport,
        pinned: Option<&PinnedBackup>,
    ) {
        let uri = pinned.map(PinnedBackup::uri).unwrap_or_default();
        match self.signed_evidence(report, pinned).await {
            Ok(earlier) => settle(report, &earlier, &uri),
            Err(e) => {
                tracing::warn!(error = said(&e), "earlier evidence cannot be read");
                let may_pass = e.reason().retry_class() != RetryClass::Permanent;
                settle_without_evidence(report, &said(&e), may_pass.then(|| e.reason()));
            }
        }
    }

    /// The same of a backup that could not be pinned. Where signed evidence knows more pieces of it than there are, the one
    /// that is missing was lost, and the verdict is about what is left, which is returned.
    pub(crate) async fn settle_unpinned(
        &self,
        report: &mut VerificationReport,
        job: &VerifyJob,
    ) -> Option<PinnedBackup> {
        let Some(remains) = self.remains(report, job).await else {
            self.settle_verdict(report, None).await;
            return None;
        };
        let mut of_remains = VerificationReport {
            backup: describe(&remains),
            backup_created: Some(remains.object.created),
            members: remains.object.members.as_deref().cloned(),
            backup_set: self.config.verify.set_of(&remains.object.name).to_owned(),
            ..report.clone()
        };
        self.settle_verdict(&mut of_remains, Some(&remains)).await;
        if of_remains.verdict != Verdict::Failed {
            return None;
        }
        *report = of_remains;
        Some(remains)
    }

    /// What is left of the named backup, if a piece of it is missing.
    async fn remains(&self, report: &VerificationReport, job: &VerifyJob) -> Option<PinnedBackup> {
        let BackupRef::Named { name, .. } = &job.backup else {
            return None;
        };
        let place = self
            .place_of(&job.backup)
            .filter(|_| has_other_members(report))?;
        let store = self.stores.at(place).await.ok()?;
        let remains = backup::pin_remains(store, name, job.generation).await;
        remains.ok().flatten()
    }

    /// What signed evidence says about a backup, where it matters for this verdict. Without a key, anyone could have written
    /// it.
    async fn signed_evidence(
        &self,
        report: &VerificationReport,
        pinned: Option<&PinnedBackup>,
    ) -> Result<GenerationEvidence, RestoreError> {
        let matters = is_about_bytes(report) || has_other_members(report);
        let Some(p) = pinned.filter(|_| matters) else {
            return Ok(GenerationEvidence::default());
        };
        match self.evidence(pinned).await?.filter(Evidence::is_signed) {
            Some(evidence) => evidence.beside(&p.object).await,
            None => Ok(GenerationEvidence::default()),
        }
    }
}

/// Whether a verdict may say something about the bytes of the backup. An interruption does not, nor do objects that were
/// replaced or added while it was read.
fn is_about_bytes(report: &VerificationReport) -> bool {
    let is_other = report
        .error
        .as_ref()
        .is_some_and(|e| matches!(e.reason, R::Cancelled | R::BackupChanged));
    // Otherwise they were not read to their end.
    let were_read = report.verdict == Verdict::Failed || report.depth.is_some();
    were_read && !is_other && !has_other_members(report)
}

/// Whether an object is missing among those of the backup, or does not belong there.
fn has_other_members(report: &VerificationReport) -> bool {
    let error = report.error.as_ref();
    error.is_some_and(|e| e.reason == R::ArchiveCorrupt && e.blame == Blame::Infrastructure)
}

/// The same where earlier evidence was not read, and `why`; `reason` is that of the store, if another attempt may read it.
pub(crate) fn settle_without_evidence(
    report: &mut VerificationReport,
    why: &str,
    reason: Option<R>,
) {
    excuse(report);
    match report.verdict {
        // No failure is announced while earlier evidence may contradict it.
        Verdict::Failed => verdict::withhold(report, why, reason),
        Verdict::Verified => report.notes.push(format!("{NOT_COMPARED}: {why}")),
        Verdict::Inconclusive => {}
    }
}

fn settle(report: &mut VerificationReport, earlier: &GenerationEvidence, uri: &str) {
    // Whoever may add objects can cause other members, but no fewer.
    let proof = changed_since(earlier.all(), report)
        .filter(|proof| !has_other_members(report) || lacks_members(report, proof));
    if let Some(proof) = proof {
        tracing::error!(
            backup = uri,
            "the backup was verified before and has changed since: it is damaged where it is stored"
        );
        fail_as_damaged(report, proof);
        return;
    }
    excuse(report);
    match (report.verdict, &earlier.incomplete) {
        (Verdict::Failed, _) => doubt(report, earlier, uri),
        (Verdict::Verified, Some(why)) => report.notes.push(format!("{NOT_COMPARED}: {why}")),
        _ => {}
    }
}

/// Excuses a failure that the locale or the version of the verifying server may have caused.
fn excuse(report: &mut VerificationReport) {
    verdict::mind_the_locale(report);
    mind_the_version(report);
}

/// The same bytes were proven before, and now they are said to be bad: one of both answers is wrong, and it may be this one.
fn doubt(report: &mut VerificationReport, earlier: &GenerationEvidence, uri: &str) {
    let contradicting = earlier.all().filter(|r| verdict::contradicts(r, report));
    let contradicting: Vec<(Option<bool>, &VerificationReport)> = contradicting
        .map(|r| (have_same_bytes(r, report), r))
        .collect();
    let newest = |same: Option<bool>| {
        let of_bytes = contradicting.iter().filter(|(is, _)| *is == same);
        of_bytes.map(|(_, r)| *r).max_by_key(|r| r.finished_at)
    };
    if let Some(r) = newest(Some(true)) {
        tracing::error!(
            backup = uri,
            "the same backup was verified before and fails now: a fault in this program or its server"
        );
        verdict::doubt(report, r.finished_at);
    } else if let Some(why) = &earlier.incomplete {
        tracing::warn!(why, "earlier evidence was not read completely");
        verdict::withhold(report, why, None);
    } else if let Some(r) = newest(None) {
        note_unknown_change(report, r);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::encode_crc32c;
    use crate::catalog::folder_catalog::{archive_of, catalog_of, set_age, verified};
    use crate::database::OTHER_LOCALE;
    use crate::error::{
        DatabaseError, DatabaseKind as D, JobError, JobKind, StorageError, StorageKind,
        ValidationError, ValidationKind,
    };
    use crate::policy::{Depth, Trigger};
    use crate::proof::{ArchiveProof, BackupMember, MembersProof, ServerProof};
    use crate::verification::TEST_SIGNING_KEY as KEY;
    use pgdump_restore::Stage;

    /// A proof of a backup as it is now.
    fn proof(id: &str, pinned: &PinnedBackup) -> VerificationReport {
        let now = jiff::Timestamp::now();
        VerificationReport {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            backup: crate::catalog::describe(pinned),
            backup_created: Some(pinned.object.created),
            members: pinned.object.members.as_deref().cloned(),
            ..VerificationReport::new(id, Trigger::Command, Depth::Data, now)
        }
    }

    /// The same backup cannot be read to its end.
    fn failure(pinned: &PinnedBackup) -> VerificationReport {
        let mut report = proof("now", pinned);
        let e = ValidationError::new(ValidationKind::ArchiveCorrupt, "cut off");
        verdict::fail(&mut report, &e.into(), Stage::Data);
        report
    }

    /// Only the same bytes show a fault of ours. What has other bytes by now was damaged where it is stored.
    #[tokio::test]
    async fn a_backup_with_other_bytes_was_damaged_since_its_proof() {
        let files: &[(&str, &[u8])] = &[
            ("a.dump", b"PGDMP"),
            ("n/toc.dat", b"PGDMP"),
            ("n/1.dat", b"1\n"),
        ];
        let of = |text: &str| Some(text.to_owned());
        for (name, now, verdict, what) in [
            (
                "a.dump",
                of("then"),
                Verdict::Inconclusive,
                "one of the two verdicts is wrong",
            ),
            (
                "a.dump",
                of("other"),
                Verdict::Failed,
                "damaged since its proof at ",
            ),
            ("a.dump", None, Verdict::Failed, "is not known"),
            ("n/", None, Verdict::Failed, "1 of 2 members is missing"),
        ] {
            let (folder, _store, catalog) =
                catalog_of(files, &[("evidence-signing-key", KEY)]).await;
            // The newest member stays as it is.
            set_age(&folder, "n/1.dat", 60);
            let wanted = BackupRef::from_name(name, "").unwrap();
            let pin = async || catalog.pin(&wanted, None, None).await.unwrap().unwrap();
            let then = pin().await;
            let mut proven = proof("then", &then);
            proven.backup.crc32c = of("then").filter(|_| name == "a.dump");
            let job = VerifyJob::new("then", wanted.clone(), Trigger::Command);
            let kept = catalog.write_evidence(&job, &proven, Some(&then)).await;
            assert!(kept.unwrap().is_some());
            std::fs::remove_file(folder.path().join("n/1.dat")).unwrap();
            let pinned = pin().await;
            let mut failed = failure(&pinned);
            failed.backup.crc32c = now;
            catalog.settle_verdict(&mut failed, Some(&pinned)).await;
            let error = failed.error.unwrap();
            assert_eq!(failed.verdict, verdict, "{error:?}");
            assert!(error.message.contains(what), "{error:?}");
            assert_eq!(error.reason, R::ArchiveCorrupt);
            assert_eq!(error.blame == Blame::Backup, verdict == Verdict::Failed);
        }
    }

    /// Whoever may add objects can make pieces seem to be missing, but not those that were proven.
    #[tokio::test]
    async fn a_piece_that_was_lost_since_the_proof_is_damage() {
        let files: &[(&str, &[u8])] = &[
            ("x.dump.aa", b"PGDMP\x01"),
            ("x.dump.ab", b"_"),
            ("x.dump.ac", b"_"),
        ];
        for (lost, added, is_lost) in [
            (Some("x.dump.ab"), None, true),
            (None, Some("x.dump.ae"), false),
            (Some("x.dump.ab"), Some("x.dump.ad"), false),
        ] {
            let (folder, _store, catalog) =
                catalog_of(files, &[("evidence-signing-key", KEY)]).await;
            let wanted = BackupRef::from_name("x.dump", "").unwrap();
            let then = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
            assert_eq!(then.members.len(), 3);
            let job = VerifyJob::new("then", wanted.clone(), Trigger::Command);
            let proven = proof("then", &then);
            let kept = catalog.write_evidence(&job, &proven, Some(&then)).await;
            assert!(kept.unwrap().is_some());
            if let Some(name) = lost {
                std::fs::remove_file(folder.path().join(name)).unwrap();
            }
            if let Some(name) = added {
                std::fs::write(folder.path().join(name), b"_").unwrap();
                // The newest piece stays as it is.
                set_age(&folder, name, 60);
            }
            let e = catalog.pin(&wanted, None, None).await.err().unwrap();
            let now = jiff::Timestamp::now();
            let mut report = VerificationReport::new("now", Trigger::Command, Depth::Data, now);
            verdict::fail(&mut report, &e, Stage::Prepare);
            assert_eq!(report.verdict, Verdict::Inconclusive, "{:?}", report.error);
            let remains = catalog.settle_unpinned(&mut report, &job).await;
            let error = report.error.unwrap();
            assert_eq!(report.verdict == Verdict::Failed, is_lost, "{error:?}");
            assert_eq!(error.blame == Blame::Backup, is_lost, "{error:?}");
            assert_eq!(error.reason, R::ArchiveCorrupt);
            assert_eq!(
                error.message.ends_with(": 1 of 3 members is missing"),
                is_lost,
                "{error:?}"
            );
            assert!(!error.retryable);
            assert_eq!(remains.is_some(), is_lost);
            assert_eq!(report.backup.name.is_some(), is_lost);
        }
    }

    /// A foreign file among the members explains no missing one.
    #[test]
    fn fewer_members_than_were_proven_are_damage_beside_a_foreign_file() {
        let with = |count: u64| {
            let mut r = of_bytes("then", 1);
            let member = |n: u64| BackupMember {
                name: format!("{n}.dat"),
                size: 1,
                crc32c: None,
                sha256: None,
            };
            r.backup.size = Some(count.to_string());
            r.members = Some(MembersProof::of((0..count).map(member)));
            r
        };
        for (count, is_lost) in [(1, true), (2, true), (4, false)] {
            let mut now = with(count);
            let e = JobError::new(JobKind::PieceMissing, "9.dat is no part of it");
            verdict::fail(&mut now, &e.into(), Stage::Data);
            let r = settled(now, &[with(3)]);
            assert_eq!(r.verdict == Verdict::Failed, is_lost, "{count}");
            let message = r.error.unwrap().message;
            let said = format!("{} of 3 members", 3_u64.saturating_sub(count));
            assert_eq!(message.contains(&said), is_lost, "{message}");
        }
    }

    /// A report about an object with this checksum that ended `hour` hours after the epoch.
    fn of_bytes(crc32c: &str, hour: i64) -> VerificationReport {
        let at = jiff::Timestamp::from_second(hour * 3600).unwrap();
        let mut r = VerificationReport::new("r", Trigger::Command, Depth::Data, at);
        (r.verdict, r.depth, r.finished_at) = (Verdict::Verified, Some(Depth::Data), at);
        r.backup.name = Some("a.dump".into());
        r.backup.generation = Some("1".into());
        r.backup.size = Some("9".into());
        r.backup.crc32c = Some(crc32c.into());
        r
    }

    fn refused(kind: D, code: &str, message: &str) -> RestoreError {
        DatabaseError::new(kind, message).with_sqlstate(code).into()
    }

    /// The raw report of a verification of a dump of version 14 by a server of version 15 that lacks its locale.
    fn ended_with(e: Option<&RestoreError>, crc32c: &str) -> VerificationReport {
        let mut r = of_bytes(crc32c, 9);
        r.archive = Some(ArchiveProof {
            format: "plain".into(),
            wrapped_in: vec![],
            server_version: "14.2".into(),
            pg_dump_version: "14.2".into(),
            encoding: "UTF8".into(),
            entries: Default::default(),
        });
        r.server = Some(ServerProof {
            kind: "sandbox".into(),
            version: "15.4".into(),
            isolation: None,
        });
        r.notes = vec![format!("{OTHER_LOCALE}: C was used")];
        if let Some(e) = e {
            r.depth = Some(Depth::Object);
            verdict::fail(&mut r, e, Stage::Data);
        }
        r
    }

    fn settled(
        mut report: VerificationReport,
        earlier: &[VerificationReport],
    ) -> VerificationReport {
        let earlier = GenerationEvidence {
            reports: earlier.to_vec(),
            ..GenerationEvidence::default()
        };
        settle(&mut report, &earlier, "a.dump");
        report
    }

    /// Neither a locale, a version, an extension or a parameter nor that they restore excuses other bytes.
    #[test]
    fn nothing_excuses_bytes_that_changed_since_their_proof() {
        let value = "COPY: a value was rejected for type inet [22P02]";
        let refusals = [
            refused(D::DataRejected, "22P02", value),
            refused(D::StatementRejected, "42601", "syntax error"),
            refused(D::ExtensionMissing, "0A000", "extension pgcrypzo"),
            refused(D::VersionIncompatible, "42704", "row_securitz"),
            refused(
                D::VersionIncompatible,
                "22P02",
                "a value of type money was rejected",
            ),
            refused(D::RoleMissing, "42704", "role apq"),
            ValidationError::new(ValidationKind::ArchiveCorrupt, "cut off").into(),
        ];
        let refusals = refusals.iter().map(Some).chain([None]);
        for e in refusals {
            let then = of_bytes("then", 1);
            let r = settled(ended_with(e, "now"), std::slice::from_ref(&then));
            let error = r.error.unwrap();
            assert_eq!(
                (r.verdict, error.blame, error.retryable),
                (Verdict::Failed, Blame::Backup, false),
                "{error:?}"
            );
            let is_excuse = matches!(
                error.reason,
                R::VersionIncompatible | R::ExtensionMissing | R::RoleMissing
            );
            assert!(!is_excuse, "{error:?}");
            let what = "damaged since its proof at 1970-01-01T01:00:00Z: its checksum differs";
            assert!(error.message.ends_with(what), "{error:?}");
            // Of the same bytes, the verdict stays what it was.
            let same = settled(ended_with(e, "then"), &[then]);
            assert_eq!(same.verdict == Verdict::Verified, e.is_none());
            assert_ne!(same.verdict, Verdict::Failed);
        }
        let verified = settled(ended_with(None, "now"), &[of_bytes("then", 1)]);
        let message = verified.error.unwrap().message;
        assert!(
            message.starts_with("its bytes have changed without a new generation; damaged"),
            "{message}"
        );
    }

    /// Bytes that were verified first are not those that are damaged.
    #[test]
    fn a_repaired_backup_is_verified_again() {
        let both = [of_bytes("first", 1), of_bytes("rotten", 2)];
        for (now, is_verified) in [("first", true), ("rotten", false)] {
            let r = settled(ended_with(None, now), &both);
            assert_eq!(r.is_verified(), is_verified, "{now}");
        }
        // What was read but not restored may have been the damaged copy.
        let read = VerificationReport {
            depth: Some(Depth::Object),
            ..of_bytes("rotten", 1)
        };
        for earlier in [vec![read.clone()], vec![read, of_bytes("first", 2)]] {
            assert!(settled(ended_with(None, "first"), &earlier).is_verified());
        }
        // Neither is what somebody interrupted, a backup to whose members a file was added, or one that was overwritten meanwhile.
        let interruptions: [RestoreError; 3] = [
            JobError::new(JobKind::Cancelled, "stopped").into(),
            JobError::new(JobKind::PieceMissing, "x.03 is no part of it").into(),
            StorageError::new(StorageKind::Changed, "x was overwritten").into(),
        ];
        for e in interruptions {
            let mut report = ended_with(Some(&e), "now");
            assert!(!is_about_bytes(&report), "{e}");
            report.error = None;
            assert!(is_about_bytes(&report));
        }
    }

    /// Damage that still can be restored deletes no intact backup, and is not what `latest-proven` chooses.
    #[tokio::test]
    async fn a_proven_backup_that_rots_and_restores_replaces_no_other() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[("1.dump", &dump), ("2.dump", &dump)];
        let flags = [
            ("evidence-signing-key", KEY),
            ("backup-retention-days", "1"),
            ("backup-retention-min", "0"),
        ];
        let (folder, _store, catalog) = catalog_of(files, &flags).await;
        let days = |n: u64| n * 86_400;
        set_age(&folder, "1.dump", days(20));
        set_age(&folder, "2.dump", days(10));
        let checksum = |bytes: &[u8]| {
            let crc32c = pgdump_archive::Crc32c(crc32c::crc32c(bytes));
            Some(encode_crc32c(crc32c))
        };
        for name in ["1.dump", "2.dump"] {
            verified(&catalog, name, name, |r| {
                r.backup.crc32c = checksum(&dump);
                r.database = Some("app".into());
            })
            .await;
        }
        let path = folder.path().join("2.dump");
        let made = std::fs::metadata(&path).unwrap().modified().unwrap();
        let rotten: Vec<u8> = dump.iter().rev().copied().collect();
        std::fs::write(&path, &rotten).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(made).unwrap();
        let wanted = BackupRef::from_name("2.dump", "").unwrap();
        let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
        let mut report = proof("now", &pinned);
        report.backup.crc32c = checksum(&rotten);
        report.database = Some("app".into());
        report.backup_set = "default".into();
        catalog.settle_verdict(&mut report, Some(&pinned)).await;
        assert_eq!(report.verdict, Verdict::Failed);
        let job = VerifyJob::new("now", wanted, Trigger::Command);
        let kept = catalog.write_evidence(&job, &report, Some(&pinned)).await;
        kept.unwrap().unwrap();
        let decisions = catalog.retention("default", false).await.unwrap();
        assert!(decisions.iter().all(|d| !d.delete), "{decisions:?}");
        let proven = BackupRef::from_name("latest-proven", "").unwrap();
        let pinned = catalog.pin(&proven, None, None).await.unwrap().unwrap();
        assert_eq!(pinned.object.name, "1.dump");
    }

    /// The lack of a locale explains it, whatever earlier evidence would say.
    #[test]
    fn a_failure_is_excused_although_its_evidence_was_not_read() {
        let e = refused(D::DataRejected, "22P02", "COPY: a value was rejected");
        let mut report = ended_with(Some(&e), "now");
        assert_eq!(report.verdict, Verdict::Failed);
        settle_without_evidence(&mut report, "no answer", Some(R::DownloadFailed));
        let error = report.error.unwrap();
        assert_eq!(report.verdict, Verdict::Inconclusive);
        let (reason, blame) = (error.reason, error.blame);
        assert_eq!((reason, blame), (R::DataRejected, Blame::Target));
        assert!(error.message.contains(OTHER_LOCALE), "{}", error.message);
    }

    /// What cannot be compared is verified as it is, and says so.
    #[test]
    fn a_verified_backup_whose_evidence_was_not_read_has_a_note() {
        let mut report = of_bytes("now", 9);
        settle_without_evidence(&mut report, "no answer", Some(R::DownloadFailed));
        assert!(report.is_verified());
        assert_eq!(report.notes, [format!("{NOT_COMPARED}: no answer")]);
    }
}

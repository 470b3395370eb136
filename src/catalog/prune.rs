//! Which backups of a set may be deleted, and their deletion.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::archived_database::ArchivedDatabase;
use super::backup_catalog::BackupCatalog;
use super::database_names::LOOK_LIMIT;
use super::evidence::{is_proven, last_of_each};
use super::listed_rows::without_rows;
use super::whole_backups::part_by;
use crate::backup::{self, PinnedBackup, ReadHint, Source};
use crate::error::{
    FailureReason as R, JobKind, RestoreError, StorageError, StorageKind, ValidationError,
    ValidationKind, report as said,
};
use crate::policy::Depth;
use crate::proof::{BackupContents, BackupOrigin, Verdict, VerificationReport};
use crate::retention::{
    Decision, KnownRows, RetainedSeries, RetainedSet, RetentionCandidate, RetentionRules,
    decide_with_parts,
};
use crate::store::{StoredObject, read_range};
use crate::verification::{DocumentFolders, Evidence, GenerationEvidence};
use pgdump_archive::{is_archive, is_recognized, member_name};

/// Bytes from which the format of a dump is recognized.
const HEAD: u64 = 8 << 10;

/// Whether a backup is proven beyond doubt, so that older ones are not needed: its newest verification that was to restore
/// it, or that found it bad, is a proof. If a later one has no answer, the older ones are kept.
fn is_still_proven(reports: &[VerificationReport]) -> bool {
    let is_deep = |r: &&VerificationReport| {
        r.depth_requested >= Depth::Restore || r.verdict == Verdict::Failed
    };
    let newest = reports.iter().filter(is_deep).max_by_key(|r| r.finished_at);
    newest.is_some_and(VerificationReport::is_proof)
}

/// When a backup was made and first proven, if it is proven beyond doubt.
fn proven_since(object: &StoredObject, reports: &[VerificationReport]) -> Option<jiff::Timestamp> {
    if !is_proven(reports) || !is_still_proven(reports) {
        return None;
    }
    let proofs = reports.iter().filter(|r| r.is_proof());
    let first = proofs.map(|r| r.finished_at).min();
    first.map(|at| at.max(object.created))
}

/// Whether a backup was ever restored, whatever checks or later verifications say of it: its rows may still be had.
fn was_ever_restored(reports: &[VerificationReport]) -> bool {
    reports.iter().any(|r| r.depth >= Some(Depth::Restore))
}

/// Whether the last verification with an answer found a backup bad.
fn is_bad(reports: &[VerificationReport]) -> bool {
    let all: Vec<&VerificationReport> = reports.iter().collect();
    let last = last_of_each(&all);
    last.iter().any(|(_, r)| r.verdict == Verdict::Failed)
}

/// Whether the last verification with an answer could not read a backup.
fn is_unreadable(reports: &[VerificationReport]) -> bool {
    let all: Vec<&VerificationReport> = reports.iter().collect();
    let is_damage = |r: &VerificationReport| {
        let reason = r.error.as_ref().map(|e| e.reason);
        let damage = [R::ArchiveCorrupt, R::ChecksumMismatch];
        r.verdict == Verdict::Failed && reason.is_some_and(|reason| damage.contains(&reason))
    };
    last_of_each(&all).iter().any(|(_, r)| is_damage(r))
}

fn left_alone(name: &str, why: &str) -> RestoreError {
    ValidationError::new(
        ValidationKind::ArchiveUnsupported,
        format!("{name}: nothing was deleted: {why}"),
    )
    .into()
}

impl BackupCatalog {
    /// What is to become of each backup of a set, newest first. Nothing goes on the word of evidence that
    /// anybody could have written, unless `trust_unsigned`.
    ///
    /// # Errors
    /// The store's own.
    pub async fn retention(
        &self,
        set: &str,
        trust_unsigned: bool,
    ) -> Result<Vec<Decision>, RestoreError> {
        let rules = RetentionRules {
            days: self.config.retention_days,
            floor: self.config.verify.retention_min,
        };
        let (now, backups) = (jiff::Timestamp::now(), self.backups_of_set(set).await?);
        let evidence = self.evidence(None).await?;
        let is_unsigned = evidence.as_ref().is_some_and(|e| !e.is_signed()) && !trust_unsigned;
        let mut candidates = Vec::with_capacity(backups.len());
        let mut documents = match evidence.as_ref().filter(|_| !is_unsigned) {
            Some(evidence) => evidence.folders(self.config.verify.prefix_of(set)).await?,
            None => DocumentFolders::default(),
        };
        let (mut incomplete, mut of_set) = (None, RetainedSet::default());
        let drift = self.drift_policy_of(set);
        // Only looks count: to read the evidence takes long, too.
        let mut left = LOOK_LIMIT;
        for object in backups {
            let known = match &evidence {
                Some(evidence) => evidence.among(&mut documents, &object).await,
                None => GenerationEvidence::default(),
            };
            let part = part_by(&known.reports);
            let mut candidate = self.candidate(object, &known, !is_unsigned).await;
            let mut tables = known.tables;
            of_set.find_series(&mut candidate, tables.as_ref());
            let is_young = rules.keeps_young(&candidate.object, now).is_some();
            if matches!(candidate.rows, KnownRows::Unlisted(_)) {
                let is_schema = part == Some(BackupContents::SchemaOnly);
                if let Some(none) = without_rows(&known.reports).filter(|_| is_schema) {
                    (candidate.rows, tables) = (KnownRows::Listed, Some(none));
                } else if !is_young && of_set.replaces(&candidate) {
                    (candidate.rows, tables) =
                        self.rows_listed_in(&candidate.object, &mut left).await;
                }
            }
            of_set.compare(&mut candidate, part, tables.as_ref(), |name| {
                drift.ignores(name)
            });
            candidates.push((candidate, part));
            incomplete = incomplete.or(known.incomplete);
        }
        let series: Vec<Option<RetainedSeries>> =
            candidates.iter().map(|(c, _)| c.series().ok()).collect();
        let mut decisions = decide_with_parts(candidates, now, rules);
        if is_unsigned {
            let why = "evidence is not signed: set EVIDENCE_SIGNING_KEY_FILE, or EVIDENCE_TRUSTED_KEYS_FILE where the workers sign";
            decisions
                .iter_mut()
                .filter(|d| rules.keeps_young(&d.object, now).is_none())
                .for_each(|d| why.clone_into(&mut d.why));
        }
        if let Some(evidence) = &evidence {
            let deleting = decisions.iter().zip(&series).filter(|(d, _)| d.delete);
            let deleting: HashSet<&RetainedSeries> =
                deleting.filter_map(|(_, s)| s.as_ref()).collect();
            for object in of_set.relied_on_in(&deleting, &decisions) {
                if incomplete.is_none() {
                    incomplete = self.what_changed(evidence, object).await;
                }
            }
        }
        // What was not read may say that the backup that would be kept is bad.
        if let Some(why) = incomplete {
            for decision in decisions.iter_mut().filter(|d| d.delete) {
                decision.delete = false;
                decision.why = format!("nothing of this set is deleted: {why}");
            }
        }
        Ok(decisions)
    }

    /// Why a proven backup is not what was proven any more, if its bytes show it. They are read where the store does not know
    /// their checksum.
    async fn what_changed(&self, evidence: &Evidence, object: &StoredObject) -> Option<String> {
        if object.crc32c.is_some() {
            return None;
        }
        let name = &object.name;
        match self.is_proven_as_read(evidence, object).await {
            Ok(true) => None,
            Ok(false) => Some(format!(
                "{name} has other bytes than when it was proven: verify it"
            )),
            Err(e) => Some(format!("{name} cannot be read again: {}", said(&e))),
        }
    }

    /// Reads a backup for its checksums, and whether what was proven has the same.
    ///
    /// # Errors
    /// The store's own, also if the backup was changed or deleted meanwhile.
    async fn is_proven_as_read(
        &self,
        evidence: &Evidence,
        object: &StoredObject,
    ) -> Result<bool, RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        let generation = Some(object.generation);
        let pinned = backup::pin(store.clone(), &object.name, generation, None).await?;
        let read = backup::with_checksums(store.as_ref(), &pinned.object, &pinned.members).await?;
        Ok(is_proven(&evidence.beside(&read).await?.reports))
    }

    /// What is known of a backup: whether its last verification that went deep enough proved it, and its database; where no
    /// answer names one and it may matter, from its own first bytes.
    async fn candidate(
        &self,
        object: StoredObject,
        known: &GenerationEvidence,
        may_matter: bool,
    ) -> RetentionCandidate {
        let reports = known.reports.as_slice();
        let proven_since = proven_since(&object, reports);
        let database = reports.iter().find_map(|r| r.database.clone());
        let origin = match database {
            // A proof of one of its databases says nothing of the others.
            _ if reports.iter().any(VerificationReport::is_of_several) => {
                ArchivedDatabase::Cluster.one_origin(&object.name)
            }
            None if may_matter || proven_since.is_some() => self
                .origin_in(&object)
                .await
                .map_err(|e| format!("its database is unknown: {e}")),
            known => Ok(BackupOrigin::new(known, &object.name)),
        };
        let rows = if was_ever_restored(reports) {
            KnownRows::Restored
        } else if is_unreadable(reports) {
            KnownRows::Unreadable
        } else {
            KnownRows::Unlisted("nobody has looked".into())
        };
        RetentionCandidate {
            object,
            proven_since,
            origin,
            unnamed: None,
            rows,
            is_bad: is_bad(reports),
            sole_rows: None,
        }
    }

    /// Deletes a backup, exactly the generation that was decided on; its evidence stays. Of a
    /// directory, the table of contents goes last, and of pieces the first one: what is left of an
    /// interrupted deletion is still seen as a backup, and goes with the next one. What is no dump, and a
    /// folder that holds anything else, is left as it is.
    ///
    /// # Errors
    /// `backup_changed`, `archive_unsupported` for what is no dump and folders with other files,
    /// `access_denied`, `download_failed`.
    pub async fn delete_backup(&self, object: &StoredObject) -> Result<(), RestoreError> {
        let store = self.stores.at(&self.config.bucket).await?;
        let pinned =
            backup::pin(store.clone(), &object.name, Some(object.generation), None).await?;
        // The checksum is not of every listing. The time is the newest of all members.
        let now = StoredObject {
            crc32c: object.crc32c,
            ..pinned.object.clone()
        };
        if now != *object {
            let what = format!("{}: another backup has replaced it meanwhile", object.name);
            return Err(StorageError::new(StorageKind::Changed, what).into());
        }
        self.check_is_dump(&pinned).await?;
        if pinned.members.is_empty() {
            return Ok(store.delete(object).await?);
        }
        let files;
        let mut members: Vec<&StoredObject> = pinned.members.iter().rev().collect();
        if pinned.is_folder() {
            let file = |o: &StoredObject| o.name[object.name.len()..].to_owned();
            let manifest = self.config.verify.manifest.as_str();
            files = backup::files_of(store.as_ref(), &object.name).await?;
            let stranger = files
                .iter()
                .map(file)
                .find(|f| !member_name::is_pg_dump_file(f) && f != manifest);
            if let Some(stranger) = stranger {
                let what = format!(
                    "it also holds {stranger:?}, which belongs to no dump: move it elsewhere"
                );
                return Err(left_alone(&object.name, &what));
            }
            let is_manifest =
                |f: &&StoredObject| file(f) == manifest && !pinned.members.contains(f);
            members.extend(files.iter().filter(is_manifest));
            members.sort_by_key(|m| member_name::is_toc(&file(m)));
        }
        for member in members {
            store.delete(member).await?;
        }
        Ok(())
    }

    /// Refuses what does not look like a dump: it is somebody's file that lies among the backups. A damaged
    /// dump, and one that is encrypted with a key that is not here, still looks like one.
    async fn check_is_dump(&self, pinned: &PinnedBackup) -> Result<(), RestoreError> {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let source = Source::Object(pinned.clone());
        let opened = self
            .read(source, ReadHint::Beginning, Arc::default(), stop)
            .await;
        drop(guard);
        let e = match opened {
            // Written by hand or by another tool: that it is a backup is not known.
            Ok((archive, _)) if archive.is_generic_sql() => {
                return Err(left_alone(
                    &pinned.object.name,
                    "it is SQL text that pg_dump did not write",
                ));
            }
            Ok(_) => return Ok(()),
            // Of a whole cluster, where no database is named.
            Err(RestoreError::Validation(e)) if e.reason() == R::InvalidRequest => return Ok(()),
            Err(e) if !matches!(e.reason(), R::ArchiveUnsupported | R::ArchiveCorrupt) => {
                return Err(e);
            }
            Err(e) => e,
        };
        let is_other = matches!(&e, RestoreError::Validation(e) if e.kind() == ValidationKind::ArchiveUnsupported);
        // Text that this program does not take may not be a backup.
        let is_limit = matches!(&e, RestoreError::Job(e) if e.kind() == JobKind::LimitExceeded);
        let looks_like_one = if is_limit { is_archive } else { is_recognized };
        let first = pinned.members.first().unwrap_or(&pinned.object);
        if !is_other
            && (pinned.is_folder()
                || looks_like_one(&read_range(pinned.store.as_ref(), first, 0..HEAD).await?))
        {
            return Ok(());
        }
        Err(left_alone(
            &pinned.object.name,
            &format!("it is not known to be a dump ({e})"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{
        archive_of, archive_with, catalog_of, set_age, toc_with, verified,
    };
    use crate::config::NAME_BUDGET;
    use crate::error::{Blame, ErrorBody};
    use crate::job::{BackupRef, VerifyJob};
    use crate::policy::Trigger;
    use crate::proof::TableProof;
    use crate::store::faulty::{Call, StoreFault};

    /// The only backup of the other databases is not deleted on the word of a proof of one.
    #[tokio::test]
    async fn a_proof_of_one_database_of_a_cluster_is_none_of_the_others() {
        let dump = archive_of("app");
        let text: &[u8] = b"--\n-- PostgreSQL database cluster dump\n--\n\n\\connect app\n";
        let backups = [
            ("all-2026-09-01.sql", text, 40),
            ("older-2026-09-01.sql", text, 30),
            ("1.dump", dump.as_slice(), 20),
            ("2.dump", dump.as_slice(), 10),
        ];
        let files = backups.map(|(name, bytes, _)| (name, bytes));
        let flags = [
            ("backup-retention-days", "1"),
            ("backup-retention-min", "0"),
        ];
        let (folder, _store, catalog) = catalog_of(&files, &flags).await;
        for (name, _, days) in backups {
            set_age(&folder, name, days * 86_400);
        }
        for (name, _, _) in backups {
            let change = |r: &mut VerificationReport| {
                r.database = Some("app".into());
                r.one_of_several = name.starts_with("all");
                if name.starts_with("older") {
                    // As versions before the field said it.
                    r.notes.push("only database app was looked at".into());
                }
            };
            verified(&catalog, name, name, change).await;
        }
        let decisions = catalog.retention("default", true).await.unwrap();
        let deleted: Vec<&str> = decisions
            .iter()
            .filter(|d| d.delete)
            .map(|d| d.object.name.as_str())
            .collect();
        assert_eq!(deleted, ["1.dump"], "{decisions:?}");
        let of_cluster = decisions.iter().filter(|d| d.why.contains("whole cluster"));
        assert_eq!(of_cluster.count(), 2, "{decisions:?}");
    }

    /// A store that rejects the reading of an object, for its key or for all of them, says nothing of what it is: not even
    /// that it is the dump of a whole cluster, which names no database either.
    #[tokio::test]
    async fn what_the_store_does_not_let_read_is_not_deleted() {
        let dump = archive_of("app");
        use StorageKind::{AccessDenied, CallRejected, KeyMissing};
        for kind in [KeyMissing, AccessDenied, CallRejected] {
            let (_folder, store, catalog) = catalog_of(&[("x.dump", dump.as_slice())], &[]).await;
            let all = catalog.backups_of_set("default").await.unwrap();
            store.fail(Call::Read, "x.dump", StoreFault::Error(kind), 9);
            let e = catalog.delete_backup(&all[0]).await.unwrap_err();
            assert_eq!(e.reason(), kind.reason(), "{e}");
            let found = catalog.database_in(&all[0]).await.unwrap();
            let is_unreadable = matches!(found, ArchivedDatabase::Unreadable(_));
            assert!(is_unreadable, "{kind:?}");
        }
    }

    /// Text beyond a limit of this program may be anybody's; a damaged archive is one.
    #[tokio::test]
    async fn text_that_is_not_read_to_its_end_is_left_alone() {
        let dump = archive_of("app");
        let text: &[u8] =
            b"--\n-- PostgreSQL database dump\n--\n\n\\connect elsewhere\nCREATE TABLE t ();\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
        for (name, bytes, is_deleted) in [("x.sql", text, false), ("x.dump", &dump[..20], true)] {
            let (folder, _store, catalog) = catalog_of(&[(name, bytes)], &[]).await;
            let all = catalog.backups_of_set("default").await.unwrap();
            match catalog.delete_backup(&all[0]).await {
                Ok(()) => assert!(is_deleted, "{name}"),
                Err(e) => {
                    assert!(!is_deleted && e.reason() == R::ArchiveUnsupported, "{e}");
                    let said = crate::error::report(&e);
                    assert!(said.contains("not known to be a dump"), "{said}");
                    assert!(said.contains("only one database is restored"), "{said}");
                }
            }
            assert_eq!(folder.path().join(name).exists(), !is_deleted, "{name}");
        }
    }

    /// What is no dump, or may be somebody's, stays with all that lies beside it.
    #[tokio::test]
    async fn what_pg_dump_did_not_write_is_left_alone() {
        let toc: &[u8] = b"PGDMP\x01\x0e\0\x04\x08\x03";
        let (member, note): (&[u8], &[u8]) = (b"1\n", b"mine");
        let text: &[u8] = b"CREATE TABLE t ();\n";
        for (files, backup, said) in [
            (&[("d/toc.dat", toc), ("d/1.dat", member)][..], "d/", None),
            (
                &[
                    ("d/toc.dat", toc),
                    ("d/1.dat", member),
                    ("d/notes.txt", note),
                ],
                "d/",
                Some("it also holds \"notes.txt\", which belongs to no dump: move it elsewhere"),
            ),
            (
                &[("x.sql", text)],
                "x.sql",
                Some("it is SQL text that pg_dump did not write"),
            ),
        ] {
            let (folder, _store, catalog) = catalog_of(files, &[]).await;
            let all = catalog.backups_of_set("default").await.unwrap();
            let object = all.iter().find(|o| o.name == backup).unwrap();
            let result = catalog.delete_backup(object).await;
            assert_eq!(result.is_err(), said.is_some(), "{backup} {said:?}");
            if let (Err(e), Some(said)) = (result, said) {
                assert_eq!(e.reason(), R::ArchiveUnsupported);
                let message = crate::error::report(&e);
                assert!(message.contains(said), "{message}");
            }
            for (name, _) in files {
                let is_there = folder.path().join(name).exists();
                assert_eq!(is_there, said.is_some(), "{name}");
            }
        }
    }

    /// Evidence that may not be listed keeps nothing of its set from being shown, and nothing of it is deleted.
    #[tokio::test]
    async fn nothing_is_deleted_while_evidence_is_hidden() {
        let dump = archive_with("app", &[]);
        let files: &[(&str, &[u8])] = &[("1.dump", &dump), ("2.dump", &dump)];
        let flags = [
            ("backup-retention-days", "1"),
            ("backup-retention-min", "0"),
        ];
        let (folder, store, catalog) = catalog_of(files, &flags).await;
        for (days, (name, _)) in (2..).zip(files) {
            set_age(&folder, name, days * 86_400);
            verified(&catalog, name, name, |_| {}).await;
        }
        let deleted = async || {
            let decisions = catalog.retention("default", true).await.unwrap();
            let deleted = decisions.iter().filter(|d| d.delete);
            let deleted: Vec<String> = deleted.map(|d| d.object.name.clone()).collect();
            let why: Vec<String> = decisions.into_iter().map(|d| d.why).collect();
            (deleted, why.concat())
        };
        assert_eq!(deleted().await.0, ["2.dump"]);
        // Of nothing that is there.
        store.hide("x.dump.pgrestored/", jiff::Timestamp::now());
        assert_eq!(deleted().await.0, ["2.dump"]);
        store.hide("2.dump.pgrestored/", jiff::Timestamp::now());
        let (deleted, why) = deleted().await;
        assert!(deleted.is_empty(), "{deleted:?}");
        assert!(why.contains("2.dump.pgrestored/"), "{why}");
    }

    /// Which backups would be deleted if each of them, given oldest first with its tables, was proven.
    async fn deleted_of(backups: &[(&str, &[u8], &[&str])]) -> Vec<String> {
        let files: Vec<(&str, &[u8])> = backups.iter().map(|(n, b, _)| (*n, *b)).collect();
        let flags = [
            ("backup-retention-days", "1"),
            ("backup-retention-min", "1"),
        ];
        let (folder, _store, catalog) = catalog_of(&files, &flags).await;
        for (days, (name, _, tables)) in backups.iter().rev().enumerate() {
            set_age(&folder, name, (days as u64 + 2) * 86_400);
            let tables: Vec<TableProof> = tables.iter().map(|name| table(name)).collect();
            verified(&catalog, name, name, |r| r.tables = tables).await;
        }
        deleted(&catalog).await
    }

    /// Evidence about a backup of the database `app` with this verdict, at this depth.
    async fn judge(
        catalog: &BackupCatalog,
        id: &str,
        name: &str,
        (verdict, depth): (Verdict, Depth),
    ) {
        let backup = BackupRef::from_name(name, "").unwrap();
        let pinned = catalog.pin(&backup, None, None).await.unwrap().unwrap();
        let report = VerificationReport {
            verdict,
            depth: Some(depth),
            backup: crate::catalog::describe(&pinned),
            backup_created: Some(pinned.object.created),
            backup_set: "default".into(),
            database: Some("app".into()),
            members: pinned.object.members.as_deref().cloned(),
            ..VerificationReport::new(id, Trigger::Command, depth, jiff::Timestamp::now())
        };
        let job = VerifyJob::new(id, backup, Trigger::Command);
        let kept = catalog.write_evidence(&job, &report, Some(&pinned)).await;
        assert!(kept.unwrap().is_some(), "{id}");
    }

    /// The names of the backups that may be deleted.
    async fn deleted(catalog: &BackupCatalog) -> Vec<String> {
        let decisions = catalog.retention("default", true).await.unwrap();
        let deleted = decisions.into_iter().filter(|d| d.delete);
        deleted.map(|d| d.object.name).collect()
    }

    /// All objects are called alike.
    #[tokio::test]
    async fn the_newest_proven_backup_of_each_database_stays_whatever_others_are_called() {
        const TEXT: &[u8] = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t ();\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
        let (shop, blog) = (archive_of("shop"), archive_of("blog"));
        let none: [&str; 0] = [];
        let mixed: &[(&str, &[u8], &[&str])] = &[
            ("backup-2026-11-01", &shop, &["public.t"]),
            ("backup-2026-11-02", &blog, &["public.t"]),
            ("backup-2026-11-03", TEXT, &["public.t"]),
        ];
        assert_eq!(deleted_of(mixed).await, none);
        // The tables show that text without a name is of several databases; a date in a table's name does not.
        let plain: &[(&str, &[u8], &[&str])] = &[
            ("backup-2026-11-01", TEXT, &["public.orders"]),
            (
                "backup-2026-11-02",
                TEXT,
                &["public.post", "public.log_1", "public.log_2"],
            ),
            (
                "backup-2026-11-03",
                TEXT,
                &["public.log_2", "public.log_3", "public.post"],
            ),
            ("backup-2026-11-04", TEXT, &[]),
        ];
        assert_eq!(deleted_of(plain).await, ["backup-2026-11-02"]);
        // Names that differ in numbers alone are other tables.
        let alike: &[(&str, &[u8], &[&str])] = &[
            ("backup-2026-11-01", TEXT, &["public.orders_1"]),
            ("backup-2026-11-02", TEXT, &["public.orders_2"]),
        ];
        assert_eq!(deleted_of(alike).await, none);
    }

    const FLAGS: [(&str, &str); 2] = [
        ("backup-retention-days", "1"),
        ("backup-retention-min", "0"),
    ];
    const DAY: u64 = 86_400;

    /// A good backup is not deleted because of one that is no longer what was proven.
    #[tokio::test]
    async fn a_directory_with_other_members_than_when_it_was_proven_is_not_proven() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[
            ("old.dump", &dump),
            ("night/toc.dat", &dump),
            ("night/1.dat", b"1\n"),
            ("night/2.dat", b"2\n"),
        ];
        for change in ["", "removed", "renamed", "cut off"] {
            let (folder, _store, catalog) = catalog_of(files, &FLAGS).await;
            // The newest member of the directory stays as it is.
            let days = [20, 10, 11, 12];
            for (days, (name, _)) in days.into_iter().zip(files) {
                set_age(&folder, name, days * DAY);
            }
            judge(&catalog, "1", "old.dump", (Verdict::Verified, Depth::Data)).await;
            judge(&catalog, "2", "night/", (Verdict::Verified, Depth::Data)).await;
            let member = folder.path().join("night/1.dat");
            match change {
                "removed" => std::fs::remove_file(member).unwrap(),
                "renamed" => std::fs::rename(member, folder.path().join("night/3.dat")).unwrap(),
                "cut off" => {
                    std::fs::write(member, "1").unwrap();
                    set_age(&folder, "night/1.dat", 11 * DAY);
                }
                _ => {}
            }
            let wanted: &[&str] = if change.is_empty() {
                &["old.dump"]
            } else {
                &[]
            };
            assert_eq!(deleted(&catalog).await, wanted, "{change:?}");
        }
    }

    /// Other bytes, and the same size and time.
    fn rot(folder: &tempfile::TempDir, name: &str) {
        let path = folder.path().join(name);
        let made = std::fs::metadata(&path).unwrap().modified().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let rotten: Vec<u8> = bytes.into_iter().rev().collect();
        std::fs::write(&path, rotten).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(made).unwrap();
    }

    /// A file that rots in place keeps its size and time; only its bytes show it.
    #[tokio::test]
    async fn a_proof_of_other_bytes_deletes_nothing() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[("1.dump", &dump), ("2.dump", &dump)];
        let (folder, store, catalog) = catalog_of(files, &FLAGS).await;
        set_age(&folder, "1.dump", 20 * DAY);
        set_age(&folder, "2.dump", 10 * DAY);
        let crc32c = backup::encode_crc32c(pgdump_archive::Crc32c(crc32c::crc32c(&dump)));
        for (name, _) in files {
            verified(&catalog, name, name, |r| {
                r.database = Some("app".into());
                r.backup.crc32c = Some(crc32c.clone());
            })
            .await;
        }
        // What only is called alike is not read.
        std::fs::write(folder.path().join("2.dump.log"), "done").unwrap();
        store.take_summed();
        assert_eq!(deleted(&catalog).await, ["1.dump"]);
        assert_eq!(store.take_summed(), ["2.dump"]);
        rot(&folder, "2.dump");
        let decisions = catalog.retention("default", true).await.unwrap();
        assert!(decisions.iter().all(|d| !d.delete), "{decisions:?}");
        let said = "2.dump has other bytes than when it was proven";
        assert!(
            decisions.iter().any(|d| d.why.contains(said)),
            "{decisions:?}"
        );
    }

    fn table(name: &str) -> TableProof {
        TableProof {
            name: name.to_owned(),
            rows: 1,
            bytes: 1,
            digest: "0".into(),
            restored_rows: Some(1),
            columns: vec![],
        }
    }

    /// Says that a backup of the database `app` was proven, as soon as it was made, to have rows of these tables, and none of
    /// others that it defines.
    async fn prove(
        catalog: &BackupCatalog,
        name: &str,
        (filled, bare): (&[&str], &[&str]),
        change: impl FnOnce(&mut VerificationReport),
    ) {
        verified(catalog, name, name, |r| {
            r.database = Some("app".into());
            let made = r.backup_created.unwrap();
            finish(r, made);
            r.tables = filled.iter().map(|t| table(t)).collect();
            r.without_data = bare.iter().map(|t| (*t).to_owned()).collect();
            change(r);
        })
        .await;
    }

    fn finish(report: &mut VerificationReport, at: jiff::Timestamp) {
        (report.started_at, report.finished_at) = (at, at);
    }

    fn days_ago(days: i64) -> jiff::Timestamp {
        jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days)
    }

    fn failed(reason: R) -> impl FnOnce(&mut VerificationReport) {
        move |r| {
            r.verdict = Verdict::Failed;
            if reason == R::ArchiveCorrupt {
                r.depth = None;
            }
            r.error = Some(ErrorBody {
                reason,
                blame: Blame::Backup,
                stage: "check".into(),
                message: "drift of contents".into(),
                sqlstate: None,
                refusals: vec![],
                refusals_total: 0,
                misfits: vec![],
                retryable: false,
            });
        }
    }

    /// Rows that newer backups leave out stay, also while nobody knows whether their backup can still be restored or it was found
    /// bad, and whatever a look that restores nothing lists. Neither a part replaces them, nor a backup of which a check failed.
    #[tokio::test]
    async fn another_look_deletes_no_rows() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[
            ("4.dump", &dump),
            ("3.dump", &dump),
            ("2.dump", &dump),
            ("1.dump", &dump),
        ];
        let (both, users) = (
            &["public.orders", "public.users"][..],
            &["public.users"][..],
        );
        for look in ["", "the newer one", "the older one", "damage"] {
            let (folder, _store, catalog) = catalog_of(files, &FLAGS).await;
            for (age, (name, _)) in (60..).zip(files) {
                set_age(&folder, name, age * DAY);
            }
            prove(&catalog, "1.dump", (both, &[]), |_| {}).await;
            prove(&catalog, "2.dump", (both, &[]), |r| {
                failed(R::VerificationFailed)(r);
                // Somebody has deleted them.
                r.tables[0].rows = 0;
            })
            .await;
            prove(&catalog, "3.dump", (&both[..1], &[]), |r| {
                r.contents = Some(BackupContents::Partial);
            })
            .await;
            prove(&catalog, "4.dump", (users, &["public.orders"]), |r| {
                r.contents = Some(BackupContents::UsualPart);
            })
            .await;
            match look {
                "the newer one" => {
                    verified(&catalog, look, "4.dump", |r| {
                        (r.depth, r.depth_requested) = (Some(Depth::Archive), Depth::Archive);
                        r.tables = vec![table("public.users")];
                    })
                    .await;
                }
                "the older one" => {
                    let inconclusive = (Verdict::Inconclusive, Depth::Restore);
                    judge(&catalog, look, "1.dump", inconclusive).await;
                }
                "damage" => {
                    verified(&catalog, look, "1.dump", failed(R::ArchiveCorrupt)).await;
                }
                _ => {}
            }
            // What has no other rows than the newest one goes.
            assert_eq!(deleted(&catalog).await, ["2.dump"], "{look}");
            let decisions = catalog.retention("default", true).await.unwrap();
            let why = decisions.iter().find(|d| d.object.name == "1.dump");
            let why = why.unwrap().why.as_str();
            assert!(why.contains("rows of public.orders"), "{why}");
            let says_bad = why.contains("its last verification found it bad");
            assert_eq!(says_bad, look == "damage", "{why}");
        }
    }

    /// Not before somebody could have noticed: when a whole backup without the rows was made, and proven for the first time.
    #[tokio::test]
    async fn dropped_rows_are_kept_for_a_time_from_the_first_proof_without_them() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[("3.dump", &dump), ("2.dump", &dump), ("1.dump", &dump)];
        let both = &["public.orders", "public.users"][..];
        let none: &[&str] = &[];
        // The newest one was made 60 days ago; the one before it is a part, or as good.
        for (proven, has_part, newest, gone) in [
            (60, false, &both[1..], &["2.dump", "1.dump"][..]),
            (35, true, &both[1..], &["2.dump", "1.dump"]),
            (34, true, &both[1..], &["2.dump"]),
            // Nothing was verified for weeks; the older one of those without the rows was proven first.
            (34, false, &both[1..], &["2.dump", "1.dump"]),
            // All tables are gone.
            (34, true, none, &["2.dump"]),
            (35, true, none, &["2.dump", "1.dump"]),
        ] {
            let (folder, _store, catalog) = catalog_of(files, &FLAGS).await;
            for (age, (name, _)) in (60..).zip(files) {
                set_age(&folder, name, age * DAY);
            }
            prove(&catalog, "1.dump", (both, &[]), |_| {}).await;
            prove(&catalog, "2.dump", (&[], &[]), |r| {
                let part = BackupContents::SchemaOnly;
                r.contents = Some(if has_part {
                    part
                } else {
                    BackupContents::Whole
                });
            })
            .await;
            prove(&catalog, "3.dump", (newest, &[]), |r| {
                finish(r, days_ago(proven));
                r.contents = Some(BackupContents::Whole);
            })
            .await;
            // A later proof changes nothing.
            verified(&catalog, "again", "3.dump", |r| {
                r.database = Some("app".into());
                r.tables = newest.iter().map(|t| table(t)).collect();
                r.contents = Some(BackupContents::Whole);
            })
            .await;
            let case = format!("{proven} {has_part} {newest:?}");
            assert_eq!(deleted(&catalog).await, gone, "{case}");
        }
    }

    #[tokio::test]
    async fn tables_in_the_checks_file_are_not_missed() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[("2.dump", &dump), ("1.dump", &dump)];
        let elsewhere = tempfile::tempdir().unwrap();
        let checks = elsewhere.path().join("checks.yaml");
        let both = &["public.orders", "public.users"][..];
        let none: &[&str] = &[];
        for (ignored, gone) in [
            ("public.orders", &["1.dump"][..]),
            ("public.o*", &["1.dump"]),
            ("public.users", none),
        ] {
            std::fs::write(&checks, format!("drift: {{ ignore: [{ignored}] }}\n")).unwrap();
            let checks = [("verify-checks", checks.to_str().unwrap())];
            let flags = [&FLAGS[..], &checks].concat();
            let (folder, _store, catalog) = catalog_of(files, &flags).await;
            set_age(&folder, "2.dump", 10 * DAY);
            set_age(&folder, "1.dump", 20 * DAY);
            prove(&catalog, "1.dump", (both, &[]), |_| {}).await;
            prove(&catalog, "2.dump", (&both[1..], &both[..1]), |r| {
                r.contents = Some(BackupContents::UsualPart);
            })
            .await;
            assert_eq!(deleted(&catalog).await, gone, "{ignored}");
        }
    }

    /// The table was created after the last proof, and the next one that is proven leaves it out, be it without a trace.
    #[tokio::test]
    async fn backups_that_nobody_restored_are_looked_into_before_they_go() {
        let dump = archive_of("app");
        let with_orders = archive_with("app", &[("orders", true), ("users", true)]);
        let without_orders = archive_with("app", &[("orders", false), ("users", true)]);
        let text: &[u8] = b"--\n-- PostgreSQL database dump\n--\n\nCREATE DATABASE app;\n\\connect app\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
        let files: &[(&str, &[u8])] = &[
            ("8.dump", &dump),
            ("7.dump", &with_orders),
            ("6.sql", text),
            ("5.dump", &without_orders),
            ("4.dump", &dump),
            ("3.dump", &with_orders),
            ("2.dump", &dump),
            ("1.dump", &dump),
        ];
        let damaged = &["5.dump", "3.dump", "2.dump", "1.dump"][..];
        let all = files.iter().skip(1).map(|(name, _)| *name);
        let all: Vec<&str> = all.collect();
        // What has the rows, the text that may have them, and what no verification found damaged stay for 35 days after the proof.
        for (newest, bare, newer_has_orders, gone) in [
            (10, &[][..], false, damaged),
            (10, &["public.orders"][..], false, damaged),
            (10, &[], true, damaged),
            (34, &[], false, damaged),
            (35, &[], false, &all),
        ] {
            let (folder, _store, catalog) = catalog_of(files, &FLAGS).await;
            for (age, (name, _)) in (newest..).zip(files) {
                set_age(&folder, name, age * DAY);
            }
            let users = &["public.users"][..];
            prove(&catalog, "1.dump", (users, &[]), |_| {}).await;
            let both = ["public.orders", "public.users"];
            let filled = if newer_has_orders { &both[..] } else { users };
            prove(&catalog, "8.dump", (filled, bare), |r| {
                r.contents = (!bare.is_empty()).then_some(BackupContents::UsualPart);
            })
            .await;
            // Damaged, as a verification found.
            let unreadable = failed(R::ArchiveCorrupt);
            prove(&catalog, "3.dump", (&[], &[]), unreadable).await;
            // Restored with a check that failed.
            let unexpected = failed(R::VerificationFailed);
            prove(&catalog, "2.dump", (users, &[]), unexpected).await;
            let mut wanted = gone.to_vec();
            if newer_has_orders {
                wanted.insert(0, "7.dump");
            }
            let case = format!("{newest} {bare:?} {newer_has_orders}");
            assert_eq!(deleted(&catalog).await, wanted, "{case}");
        }
    }

    async fn backup(catalog: &BackupCatalog, name: &str) -> StoredObject {
        let all = catalog.backups_of_set("default").await.unwrap();
        all.into_iter().find(|o| o.name == name).unwrap()
    }

    /// The store does not let it be read, this worker has too little memory for it, or it looks damaged.
    #[tokio::test]
    async fn what_cannot_be_looked_into_stays() {
        let with_orders = archive_with("app", &[("orders", true), ("users", true)]);
        let tag = "t".repeat((NAME_BUDGET / 6 + (1 << 20)) as usize);
        let (long, cut) = (archive_with("app", &[(&tag, false)]), archive_of("app"));
        use StorageKind::{AccessDenied, KeyMissing};
        for (older, fault, said) in [
            (&with_orders, None, None),
            (&with_orders, Some(KeyMissing), Some("was not read: ")),
            (&with_orders, Some(AccessDenied), Some("was not read: ")),
            (&long, None, Some("this worker has")),
            (&cut, None, Some("cannot be read: ")),
        ] {
            let files: &[(&str, &[u8])] = &[("2.dump", &with_orders), ("1.dump", older)];
            let (folder, store, catalog) = catalog_of(files, &FLAGS).await;
            for (age, (name, _)) in (10..).zip(files) {
                set_age(&folder, name, age * DAY);
            }
            let both = &["public.orders", "public.users"][..];
            prove(&catalog, "2.dump", (both, &[]), |_| {}).await;
            // Its database is known.
            let object = backup(&catalog, "1.dump").await;
            catalog.database_in(&object).await.unwrap();
            if let Some(kind) = fault {
                store.fail(Call::Read, "1.dump", StoreFault::Error(kind), 9);
            }
            let decisions = catalog.retention("default", true).await.unwrap();
            let decision = decisions
                .iter()
                .find(|d| d.object.name == "1.dump")
                .unwrap();
            assert_eq!(decision.delete, said.is_none(), "{fault:?} {decision:?}");
            let says = |part: &str| decision.why.contains(part);
            assert!(said.is_none_or(says), "{fault:?} {decision:?}");
            let is_limited = says("verify it; kept for 35 days");
            assert_eq!(is_limited, said.is_some(), "{fault:?} {decision:?}");
        }
    }

    #[tokio::test]
    async fn a_directory_is_looked_into() {
        let toc = toc_with("app", &[("orders", true), ("users", true)]);
        let files: &[(&str, &[u8])] = &[
            ("night/toc.dat", &toc),
            ("night/3.dat", b"1\n"),
            ("night/4.dat", b"1\n"),
        ];
        let (_folder, _store, catalog) = catalog_of(files, &FLAGS).await;
        let object = backup(&catalog, "night/").await;
        let mut left = LOOK_LIMIT;
        let (rows, tables) = catalog.rows_listed_in(&object, &mut left).await;
        assert_eq!(rows, KnownRows::Listed);
        let tables = tables.unwrap();
        let names: Vec<&str> = tables.names().map(String::as_str).collect();
        assert_eq!(names, ["public.orders", "public.users"]);
    }

    /// What else takes long, such as reading the evidence, takes none of it.
    #[tokio::test(start_paused = true)]
    async fn looks_into_backups_have_a_time_of_their_own() {
        let dump = archive_with("app", &[("orders", true)]);
        let files: &[(&str, &[u8])] = &[("3.dump", &dump), ("2.dump", &dump), ("1.dump", &dump)];
        let (_folder, store, catalog) = catalog_of(files, &FLAGS).await;
        let mut left = std::time::Duration::from_secs(5);
        tokio::time::advance(2 * LOOK_LIMIT).await;
        let object = backup(&catalog, "3.dump").await;
        let (rows, _) = catalog.rows_listed_in(&object, &mut left).await;
        assert_eq!(rows, KnownRows::Listed);
        // One takes all that is left, and no further one is read.
        store.fail(Call::Read, "2.dump", StoreFault::Stall, 9);
        store.fail(Call::Read, "1.dump", StoreFault::Stall, 9);
        for name in ["2.dump", "1.dump"] {
            let object = backup(&catalog, name).await;
            let (rows, tables) = catalog.rows_listed_in(&object, &mut left).await;
            assert_eq!(tables, None);
            let KnownRows::Unlisted(why) = rows else {
                panic!("{rows:?}");
            };
            let said = "for at most 2 minutes: run it with --apply again";
            assert!(why.contains(said), "{why}");
            assert!(left.is_zero(), "{left:?}");
        }
        assert_eq!(store.left("1.dump"), 9);
    }

    /// Nor is it opened, which waits for others.
    #[tokio::test]
    async fn a_look_into_text_costs_one_request() {
        let text: &[u8] = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t ();\n";
        let (_folder, store, catalog) = catalog_of(&[("1.sql", text)], &FLAGS).await;
        let object = backup(&catalog, "1.sql").await;
        let opening = catalog.known_databases.opening.clone();
        let all = u32::try_from(opening.available_permits()).unwrap();
        let _others = opening.acquire_many(all).await.unwrap();
        // This fault changes no reading: it counts them.
        store.fail(Call::Read, "1.sql", StoreFault::LostAnswer, 9);
        let mut left = LOOK_LIMIT;
        let (rows, _) = catalog.rows_listed_in(&object, &mut left).await;
        let KnownRows::Unlisted(why) = rows else {
            panic!("{rows:?}");
        };
        assert!(why.contains("SQL text"), "{why}");
        assert_eq!(store.left("1.sql"), 8);
    }

    /// A verification that read text to its end knows that it has no rows.
    #[tokio::test]
    async fn a_schema_that_was_only_read_goes() {
        let dump = archive_of("app");
        let text: &[u8] = b"--\n-- PostgreSQL database dump\n--\n\nCREATE DATABASE app;\n\\connect app\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
        let files: &[(&str, &[u8])] = &[("2.dump", &dump), ("1.sql", text)];
        for (depth, large_objects, is_deleted) in [
            (Depth::Archive, 0, true),
            (Depth::Archive, 5, false),
            (Depth::Object, 0, false),
        ] {
            let (folder, _store, catalog) = catalog_of(files, &FLAGS).await;
            for (age, (name, _)) in (10..).zip(files) {
                set_age(&folder, name, age * DAY);
            }
            prove(&catalog, "2.dump", (&["public.users"], &[]), |_| {}).await;
            verified(&catalog, "look", "1.sql", |r| {
                r.database = Some("app".into());
                (r.depth, r.depth_requested) = (Some(depth), Depth::Archive);
                r.contents = Some(BackupContents::SchemaOnly);
                r.large_objects = large_objects;
            })
            .await;
            let deleted = deleted(&catalog).await;
            assert_eq!(
                deleted == ["1.sql"],
                is_deleted,
                "{depth:?} {large_objects}"
            );
        }
    }

    #[tokio::test]
    async fn a_restored_part_with_rows_that_whole_backups_leave_out_stays() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[
            ("5.dump", &dump),
            ("4.dump", &dump),
            ("3.dump", &dump),
            ("2.dump", &dump),
        ];
        let (orders, users) = (&["public.orders"][..], &["public.users"][..]);
        let none: &[&str] = &[];
        for (is_failed, newer, gone) in [
            (false, None, none),
            (true, None, none),
            // Another part has the rows.
            (false, Some(false), &["3.dump"]),
            (true, Some(false), &["3.dump"]),
            // One of which a check failed may have fewer of them.
            (false, Some(true), none),
        ] {
            let is_there = |name: &str| newer.is_some() || name != "4.dump";
            let files = files.iter().filter(|(name, _)| is_there(name));
            let files: Vec<(&str, &[u8])> = files.copied().collect();
            let (folder, _store, catalog) = catalog_of(&files, &FLAGS).await;
            for (age, (name, _)) in (10..).zip(&files) {
                set_age(&folder, name, age * DAY);
            }
            let part = |is_failed: bool| {
                move |r: &mut VerificationReport| {
                    r.contents = Some(BackupContents::Partial);
                    if is_failed {
                        failed(R::VerificationFailed)(r);
                    }
                }
            };
            prove(&catalog, "5.dump", (users, orders), |r| {
                r.contents = Some(BackupContents::UsualPart);
            })
            .await;
            if let Some(is_failed) = newer {
                prove(&catalog, "4.dump", (orders, &[]), part(is_failed)).await;
            }
            prove(&catalog, "3.dump", (orders, &[]), part(is_failed)).await;
            // A part's rows make no whole backup dispensable.
            prove(
                &catalog,
                "2.dump",
                (&["public.orders", "public.users"], &[]),
                |_| {},
            )
            .await;
            assert_eq!(deleted(&catalog).await, gone, "{is_failed} {newer:?}");
        }
    }

    /// The one that is kept for the rows that the newest one leaves out.
    #[tokio::test]
    async fn every_backup_that_a_deletion_relies_on_is_read_again() {
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[("3.dump", &dump), ("2.dump", &dump), ("1.dump", &dump)];
        let (folder, store, catalog) = catalog_of(files, &FLAGS).await;
        let crc32c = backup::encode_crc32c(pgdump_archive::Crc32c(crc32c::crc32c(&dump)));
        for (age, (name, _)) in (10..).zip(files) {
            set_age(&folder, name, age * DAY);
        }
        let full = &["public.orders", "public.users"][..];
        for (name, filled, bare) in [
            ("3.dump", &full[1..], &full[..1]),
            ("2.dump", full, &[]),
            ("1.dump", full, &[]),
        ] {
            prove(&catalog, name, (filled, bare), |r| {
                r.backup.crc32c = Some(crc32c.clone());
                r.contents = (!bare.is_empty()).then_some(BackupContents::UsualPart);
            })
            .await;
        }
        store.take_summed();
        assert_eq!(deleted(&catalog).await, ["1.dump"]);
        assert_eq!(store.take_summed(), ["3.dump", "2.dump"]);
        rot(&folder, "2.dump");
        let decisions = catalog.retention("default", true).await.unwrap();
        assert!(decisions.iter().all(|d| !d.delete), "{decisions:?}");
        let said = "2.dump has other bytes than when it was proven";
        assert!(
            decisions.iter().any(|d| d.why.contains(said)),
            "{decisions:?}"
        );
    }

    /// While it is not known whether the newest backup can still be restored, the older ones stay.
    #[tokio::test]
    async fn the_last_verification_of_a_proven_backup_counts() {
        use Depth::{Archive, Data, Restore};
        use Verdict::{Failed, Inconclusive, Verified};
        let dump = archive_of("app");
        let files: &[(&str, &[u8])] = &[("1.dump", &dump), ("2.dump", &dump)];
        let (folder, _store, catalog) = catalog_of(files, &FLAGS).await;
        set_age(&folder, "1.dump", 20 * DAY);
        set_age(&folder, "2.dump", 10 * DAY);
        judge(&catalog, "0", "1.dump", (Verified, Data)).await;
        for (id, verdict, is_deleted) in [
            ("1", (Verified, Data), true),
            ("2", (Inconclusive, Restore), false),
            // Whatever a look that does not restore it says, but for damage.
            ("3", (Verified, Archive), false),
            ("4", (Verified, Restore), true),
            ("5", (Inconclusive, Archive), true),
            ("6", (Failed, Archive), false),
            ("7", (Verified, Data), true),
        ] {
            judge(&catalog, id, "2.dump", verdict).await;
            let deleted = deleted(&catalog).await;
            assert_eq!(deleted == ["1.dump"], is_deleted, "{id} {deleted:?}");
            assert!(is_deleted || deleted.is_empty(), "{id} {deleted:?}");
        }
    }
}

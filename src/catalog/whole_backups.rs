//! Chooses whole backups: `latest` and the schedule pass over those that are known to hold only a part of a database.

use std::collections::HashMap;
use std::ops::Range;

use super::backup_catalog::BackupCatalog;
use super::evidence::{last_of_each, why_bad};
use crate::backup::{FoundBackup, PinnedBackup};
use crate::error::{FailureReason as R, RestoreError, StorageError, StorageKind, report as said};
use crate::job::LatestBackup;
use crate::policy::Depth;
use crate::proof::{BackupContents, VerificationReport};
use crate::store::{StoredObject, read_range};
use crate::verification::{
    ChecksFile, DriftPolicy, GenerationEvidence, IGNORE_TABLES, contents_of,
};
use pgdump_archive::is_archive;

/// Bytes that show whether a backup is an archive.
const HEAD: Range<u64> = 0..4 << 10;
/// Most newer backups that `latest` passes over because they are parts.
const MAX_PASSED: usize = 50;
/// Most of them that a message names.
const MAX_LISTED: usize = 10;

/// A backup that `latest` does not choose, because it is known to hold only a part of a database.
pub(super) struct PassedBackup {
    object: StoredObject,
    contents: BackupContents,
    /// Only evidence that anybody could have written says so.
    is_unsigned: bool,
}

impl BackupCatalog {
    /// Pins the newest backup that is wanted, and passes over newer ones that are known to hold only a part of a database:
    /// by their table of contents or by evidence about them. One that lacks the data of some tables is chosen with a note; as
    /// the newest proven one, only if there is no other.
    ///
    /// # Errors
    /// As [`BackupCatalog::pin_latest`]; `backup_not_found` also if all have no rows, or too many newer ones are parts.
    pub(super) async fn pin_latest_whole(
        &self,
        wanted: &LatestBackup,
    ) -> Result<PinnedBackup, RestoreError> {
        let mut passed: Vec<PassedBackup> = Vec::new();
        let mut partial = None;
        loop {
            let mut pinned = match self.pin_latest(wanted, &passed).await {
                Err(e) if e.reason() == R::BackupNotFound && !passed.is_empty() => {
                    return self.without_whole(wanted, &passed, partial);
                }
                pinned => pinned?,
            };
            let Some(part) = self.part_of(&mut pinned, wanted.is_proven).await else {
                pinned.notes.extend(note_of(&passed));
                return Ok(pinned);
            };
            let is_partial = part.contents == BackupContents::Partial;
            passed.push(part);
            if is_partial && partial.is_none() {
                partial = Some(pinned);
            }
            // A whole one may be behind them.
            if passed.len() > MAX_PASSED {
                let what = format!(
                    "no whole backup is among the newest {}: {}; choose one by its name",
                    passed.len(),
                    listed(&passed)
                );
                return Err(self.no_backup(wanted, &what));
            }
        }
    }

    /// What `latest` is where every backup is a part: the newest of those that lack only some data.
    fn without_whole(
        &self,
        wanted: &LatestBackup,
        passed: &[PassedBackup],
        partial: Option<PinnedBackup>,
    ) -> Result<PinnedBackup, RestoreError> {
        let Some(mut pinned) = partial else {
            let what = format!(
                "no whole backup was found among the newest: {}; choose one by its name",
                listed(passed)
            );
            return Err(self.no_backup(wanted, &what));
        };
        pinned.notes.push(format!(
            "no whole backup was found, and this one {}: if that is meant, {IGNORE_TABLES}",
            BackupContents::Partial.phrase()
        ));
        Ok(pinned)
    }

    /// A listing without what was passed over.
    ///
    /// # Errors
    /// `backup_not_found` if nothing is left.
    pub(super) fn without(
        &self,
        passed: &[PassedBackup],
        mut found: Vec<FoundBackup>,
        wanted: &LatestBackup,
    ) -> Result<Vec<FoundBackup>, RestoreError> {
        let is = |p: &PassedBackup, o: &StoredObject| {
            p.object.name == o.name && p.object.generation == o.generation
        };
        found.retain(|f| !passed.iter().any(|p| is(p, &f.object)));
        if found.is_empty() {
            return Err(self.no_backup(wanted, "no other backup"));
        }
        Ok(found)
    }

    fn no_backup(&self, wanted: &LatestBackup, what: &str) -> RestoreError {
        let at = self.config.bucket.uri(&wanted.prefix);
        StorageError::new(StorageKind::NotFound, format!("{at}: {what}")).into()
    }

    /// What a backup holds if it is known to be a part that is not to be chosen. What cannot be read is not known. One that
    /// lacks the data of some tables is no proof of a whole one; the newest backup it is nevertheless, with a note. So it is
    /// if it was found bad: an older one in its place would be old data that nobody asked for.
    async fn part_of(&self, pinned: &mut PinnedBackup, is_proven: bool) -> Option<PassedBackup> {
        let archived = self.archived_contents(pinned).await.unwrap_or_else(|e| {
            // Its restore says what is wrong. The evidence may know more.
            tracing::debug!(error = said(&e), "what a backup holds cannot be read");
            None
        });
        let is_open = archived.is_none_or(|c| !c.is_part() || c == BackupContents::Partial);
        let (known, is_signed) = if is_open {
            self.known_of(pinned).await
        } else {
            (GenerationEvidence::default(), false)
        };
        // Definitions and data that a table of contents lists are there, whatever the evidence says.
        let is_possible = |c: &BackupContents| {
            archived.is_none()
                || !matches!(c, BackupContents::SchemaOnly | BackupContents::DataOnly)
        };
        let by_evidence = known_by(&known.reports).filter(is_possible);
        let name = &pinned.object.name;
        if !is_proven {
            let note = note_of_failure(name, &known.reports, is_signed);
            pinned.notes.extend(note);
        }
        let contents = by_evidence.or(archived).filter(|c| c.is_part())?;
        if contents == BackupContents::Partial && !(is_proven && by_evidence.is_some()) {
            let said = match (by_evidence.is_some(), is_signed) {
                (true, true) => "which those before it had: its verification says so",
                (true, false) => "which those before it had: UNSIGNED evidence says so",
                (false, _) => {
                    "by its table of contents; its verification will say whether that is usual"
                }
            };
            let phrase = BackupContents::Partial.phrase();
            pinned.notes.push(format!("{name} {phrase}, {said}"));
            return None;
        }
        Some(PassedBackup {
            object: pinned.object.clone(),
            contents,
            is_unsigned: by_evidence.is_some() && !is_signed,
        })
    }

    /// What the table of contents says; `None` of what has none, or is compressed as a whole.
    async fn archived_contents(
        &self,
        pinned: &PinnedBackup,
    ) -> Result<Option<BackupContents>, RestoreError> {
        if !begins_with_contents(pinned).await? {
            return Ok(None);
        }
        let coverage = self.open_within_budget(pinned, |archive| archive.coverage());
        let coverage = coverage.await?;
        let set = self.config.verify.set_of(&pinned.object.name);
        let policy = self.drift_policy_of(set);
        Ok(coverage.get().map(|c| contents_of(c, &policy)))
    }

    /// What the checks file says of drift in a set.
    pub(super) fn drift_policy_of(&self, set: &str) -> DriftPolicy {
        let file = self.config.verify.checks.as_ref();
        let file = file.and_then(|document| ChecksFile::parse(document).ok());
        file.unwrap_or_default().of_set(set).drift
    }

    /// The evidence about a backup, and whether only signed one counts. What cannot be read says nothing.
    async fn known_of(&self, pinned: &PinnedBackup) -> (GenerationEvidence, bool) {
        let known = async {
            let Some(evidence) = self.evidence(Some(pinned)).await? else {
                return Ok((GenerationEvidence::default(), false));
            };
            let known = evidence.beside(&pinned.object).await?;
            Ok((known, evidence.is_signed()))
        };
        let known: Result<(GenerationEvidence, bool), RestoreError> = known.await;
        known.unwrap_or_else(|e| {
            tracing::debug!(
                error = said(&e),
                "the evidence about a backup cannot be read"
            );
            (GenerationEvidence::default(), false)
        })
    }
}

/// Whether a backup has a table of contents at its beginning: SQL text has none, and what is compressed as a whole would have
/// to be unpacked.
pub(super) async fn begins_with_contents(pinned: &PinnedBackup) -> Result<bool, StorageError> {
    if pinned.is_folder() {
        return Ok(true);
    }
    let first = pinned.members.first().unwrap_or(&pinned.object);
    let head = read_range(pinned.store.as_ref(), first, HEAD).await?;
    Ok(is_archive(&head))
}

/// What the newest report that knows it says of a backup; one that restored it knows more than one that only read it.
/// One of a cluster's databases says nothing of the others.
fn known_by<'a>(
    reports: impl IntoIterator<Item = &'a VerificationReport>,
) -> Option<BackupContents> {
    let known = reports.into_iter().filter(|r| !r.is_of_several());
    let known = known.filter(|r| r.known_contents().is_some());
    let last = known.max_by_key(|r| (r.depth >= Some(Depth::Restore), r.finished_at))?;
    last.part()
        .or(last.known_contents().filter(|c| !c.is_part()))
}

/// The same if it is a part.
pub(super) fn part_by(reports: &[VerificationReport]) -> Option<BackupContents> {
    known_by(reports).filter(|c| c.is_part())
}

/// Leaves out the backups that reports call parts, unless there are no others.
pub(super) fn leave_out_parts(backups: &mut Vec<StoredObject>, reports: &[VerificationReport]) {
    let mut about: HashMap<(&str, &str), Vec<&VerificationReport>> = HashMap::new();
    for report in reports {
        if let Some(subject) = report.subject() {
            about.entry(subject).or_default().push(report);
        }
    }
    let is_whole = |o: &StoredObject| {
        let generation = o.generation.to_string();
        let own = about.get(&(o.name.as_str(), generation.as_str()));
        let known = own.and_then(|own| known_by(own.iter().copied()));
        !known.is_some_and(BackupContents::is_part)
    };
    if backups.iter().any(is_whole) {
        backups.retain(is_whole);
    }
}

/// That the newest backup was found bad, if the last conclusive evidence says so.
fn note_of_failure(name: &str, reports: &[VerificationReport], is_signed: bool) -> Option<String> {
    let all: Vec<&VerificationReport> = reports.iter().collect();
    let why = last_of_each(&all)
        .into_iter()
        .find_map(|(_, r)| why_bad(r))?;
    let says = if is_signed {
        ""
    } else {
        "UNSIGNED evidence says that "
    };
    Some(format!(
        "{name}: {says}its verification failed: {why}; choose an older one by its name, or latest-proven"
    ))
}

/// That newer backups were passed over, if there are any.
fn note_of(passed: &[PassedBackup]) -> Option<String> {
    let (are, them) = match passed.len() {
        0 => return None,
        1 => ("a newer backup is only a part of a database and was", "it"),
        _ => (
            "newer backups are only parts of a database and were",
            "one of them",
        ),
    };
    Some(format!(
        "{are} not chosen: {}; if you want {them}, choose it by its name",
        listed(passed)
    ))
}

/// The first of them, each with what it is.
fn listed(passed: &[PassedBackup]) -> String {
    let more = if passed.len() > MAX_LISTED {
        ", …"
    } else {
        ""
    };
    let shown = passed.iter().take(MAX_LISTED);
    let label = |p: &PassedBackup| {
        let by = if p.is_unsigned {
            " by UNSIGNED evidence"
        } else {
            ""
        };
        format!("{} ({}){by}", p.object.name, p.contents.label())
    };
    let shown: Vec<String> = shown.map(label).collect();
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{self, archive_of, archive_with, catalog_of, set_age};
    use crate::config::NAME_BUDGET;
    use crate::job::{BackupRef, VerifyJob};
    use crate::policy::Trigger;
    use crate::proof::Verdict;
    use crate::verification::TEST_SIGNING_KEY as KEY;

    const DAY: u64 = 86_400;

    /// Says that a backup was verified, and what it holds.
    async fn verified(catalog: &BackupCatalog, backup: &str, contents: Option<BackupContents>) {
        let wanted = BackupRef::from_name(backup, "").unwrap();
        let pinned = catalog.pin(&wanted, None, None).await.unwrap();
        let object = &pinned.as_ref().unwrap().object;
        let job = VerifyJob::new(backup, wanted, Trigger::Command);
        let now = jiff::Timestamp::now();
        let report = VerificationReport {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            backup: crate::catalog::describe(pinned.as_ref().unwrap()),
            backup_created: Some(object.created),
            backup_set: "default".into(),
            database: Some("app".into()),
            contents,
            ..VerificationReport::new(backup, Trigger::Command, Depth::Data, now)
        };
        let kept = catalog.write_evidence(&job, &report, pinned.as_ref()).await;
        kept.unwrap().unwrap();
    }

    /// What is chosen: its name and its notes, or the error.
    async fn chosen(
        catalog: &BackupCatalog,
        (what, database): (&str, Option<&str>),
    ) -> Result<(String, Vec<String>), String> {
        let wanted = BackupRef::from_name(what, "").unwrap();
        let wanted = wanted.of_database(database);
        let pinned = catalog.pin(&wanted, None, None).await;
        let pinned = pinned.map_err(|e| said(&e))?.unwrap();
        Ok((pinned.object.name, pinned.notes))
    }

    #[tokio::test]
    async fn the_newest_whole_backup_is_chosen() {
        let (whole, part, schema) = (
            archive_with("app", &[("t", true), ("log", true)]),
            archive_with("app", &[("t", true), ("log", false)]),
            archive_with("app", &[("t", false), ("log", false)]),
        );
        let files: &[(&str, &[u8])] = &[
            ("6.dump", &schema),
            ("5.sql", b"CREATE TABLE t ();\n"),
            ("4.dump", &whole),
            ("3.dump", &part),
            ("2.dump", &whole),
            ("1.dump", &whole),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, (name, _)) in files.iter().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        // What no evidence and no table of contents calls a part is taken for a whole backup.
        let (name, notes) = chosen(&catalog, ("latest", None)).await.unwrap();
        assert_eq!(name, "5.sql");
        assert_eq!(
            notes.last().unwrap(),
            "a newer backup is only a part of a database and was not chosen: 6.dump (schema only); if you want it, choose it by its name"
        );
        // Beside an earlier proof, tables are missing.
        verified(&catalog, "5.sql", Some(BackupContents::SchemaOnly)).await;
        verified(&catalog, "4.dump", Some(BackupContents::Partial)).await;
        for database in [None, Some("app")] {
            // It is the newest one with rows.
            let (name, notes) = chosen(&catalog, ("latest", database)).await.unwrap();
            assert_eq!(name, "4.dump", "{database:?}");
            for said in [
                "6.dump (schema only)",
                "4.dump lacks tables, or their data, which those before it had",
            ] {
                assert!(notes.iter().any(|n| n.contains(said)), "{notes:?}");
            }
        }
        std::fs::remove_file(folder.path().join("4.dump")).unwrap();
        let (name, notes) = chosen(&catalog, ("latest", Some("app"))).await.unwrap();
        assert_eq!(name, "3.dump");
        let said = "by its table of contents; its verification will say";
        assert!(notes.iter().any(|n| n.contains(said)), "{notes:?}");
        std::fs::write(folder.path().join("4.dump"), &whole).unwrap();
        set_age(&folder, "4.dump", 180);
        verified(&catalog, "4.dump", Some(BackupContents::Partial)).await;
        let none = chosen(&catalog, ("latest-proven", Some("app"))).await;
        let (name, _) = none.unwrap();
        assert_eq!(name, "4.dump", "there is no proof of a whole one");
        verified(&catalog, "3.dump", Some(BackupContents::UsualPart)).await;
        let usual = chosen(&catalog, ("latest-proven", Some("app"))).await;
        assert_eq!(usual.unwrap().0, "3.dump", "as usual");
        verified(&catalog, "3.dump", Some(BackupContents::Partial)).await;
        verified(&catalog, "1.dump", None).await;
        let (name, notes) = chosen(&catalog, ("latest-proven", Some("app")))
            .await
            .unwrap();
        assert_eq!(name, "1.dump");
        assert!(
            notes.last().unwrap().contains("4.dump (partial)"),
            "{notes:?}"
        );
        // By its name, each can be had.
        for (name, _) in files {
            let (pinned, notes) = chosen(&catalog, (*name, None)).await.unwrap();
            assert_eq!((pinned.as_str(), notes.len()), (*name, 0));
        }
    }

    #[tokio::test]
    async fn what_is_meant_to_lack_data_is_whole_and_what_has_no_rows_never_is() {
        let (part, schema) = (
            archive_with("app", &[("t", true), ("log", false)]),
            archive_with("app", &[("t", false), ("log", false)]),
        );
        let files: &[(&str, &[u8])] = &[("2.dump", &schema), ("1.dump", &part)];
        let elsewhere = tempfile::tempdir().unwrap();
        let checks = elsewhere.path().join("checks.yaml");
        std::fs::write(&checks, "drift: { ignore: [public.log, public.t] }\n").unwrap();
        let ignored = [("verify-checks", checks.to_str().unwrap())];
        for (flags, contents, note) in [
            (
                &[][..],
                Some(BackupContents::Partial),
                Some("which those before it had"),
            ),
            (&[][..], None, Some("by its table of contents")),
            (&[][..], Some(BackupContents::UsualPart), None),
            (&ignored, None, None),
        ] {
            let (folder, _store, catalog) = catalog_of(files, flags).await;
            set_age(&folder, "1.dump", 60);
            if contents.is_some() {
                verified(&catalog, "1.dump", contents).await;
            }
            let (name, notes) = chosen(&catalog, ("latest", None)).await.unwrap();
            assert_eq!(name, "1.dump");
            assert!(notes.last().unwrap().contains("2.dump (schema only)"));
            let lacks = notes.iter().find(|n| n.starts_with("1.dump lacks"));
            assert_eq!(lacks.is_some(), note.is_some(), "{notes:?}");
            assert!(lacks.is_none_or(|n| n.contains(note.unwrap())), "{notes:?}");
            std::fs::remove_file(folder.path().join("1.dump")).unwrap();
            let why = chosen(&catalog, ("latest", None)).await.unwrap_err();
            assert!(
                why.contains("2.dump (schema only); choose one by its name"),
                "{why}"
            );
        }
    }

    /// A whole one may be behind so many parts.
    #[tokio::test]
    async fn a_part_is_chosen_only_if_there_is_no_other() {
        let archive = archive_of("app");
        let names: Vec<String> = (0..MAX_PASSED + 2)
            .map(|n| format!("{n:03}.dump"))
            .collect();
        let files = names.iter().map(|name| (name.as_str(), archive.as_slice()));
        let files: Vec<(&str, &[u8])> = files.collect();
        let (folder, _store, catalog) = catalog_of(&files, &[]).await;
        let (oldest, parts) = names.split_last().unwrap();
        for (age, name) in (1..).zip(&names) {
            set_age(&folder, name, 60 * age);
        }
        for name in parts {
            verified(&catalog, name, Some(BackupContents::Partial)).await;
        }
        verified(&catalog, oldest, Some(BackupContents::Whole)).await;
        let newest = ("latest-proven", Some("app"));
        let why = chosen(&catalog, newest).await.unwrap_err();
        let said = "no whole backup is among the newest 51: 000.dump (partial)";
        assert!(why.contains(said), "{why}");
        std::fs::remove_file(folder.path().join(&names[0])).unwrap();
        let (name, notes) = chosen(&catalog, newest).await.unwrap();
        assert_eq!(name, *oldest, "{notes:?}");
    }

    /// A report about `name` that ended so many seconds after the epoch.
    fn report(
        name: &str,
        depth: Depth,
        ended: i64,
        contents: BackupContents,
    ) -> VerificationReport {
        let at = jiff::Timestamp::from_second(ended).unwrap();
        let mut report = VerificationReport {
            verdict: Verdict::Verified,
            depth: Some(depth),
            contents: Some(contents),
            ..VerificationReport::new("r", Trigger::Command, depth, at)
        };
        report.backup.name = Some(name.to_owned());
        report.backup.generation = Some("1".into());
        report
    }

    #[test]
    fn what_restored_a_backup_knows_most_of_it() {
        use BackupContents::{Partial, SchemaOnly, UsualPart, Whole};
        let restored = report("x", Depth::Data, 1, Partial);
        let read = report("x", Depth::Archive, 2, Whole);
        // What was only read does not say whether a gap is usual.
        assert_eq!(known_by([&read]), Some(Whole));
        assert_eq!(known_by([&restored, &read]), Some(Partial));
        let again = report("x", Depth::Restore, 3, UsualPart);
        assert_eq!(known_by([&again, &restored, &read]), Some(UsualPart));
        // Of a cluster, the other databases may have rows.
        let one = VerificationReport {
            one_of_several: true,
            ..report("x", Depth::Data, 4, SchemaOnly)
        };
        assert_eq!(known_by([&one]), None);
        assert_eq!(known_by([&restored, &one]), Some(Partial));
        assert_eq!(part_by(&[again, one]), None);
    }

    #[test]
    fn parts_are_left_out_unless_there_is_nothing_else() {
        use BackupContents::{Partial, SchemaOnly, Whole};
        let objects = || vec![StoredObject::named("2.dump"), StoredObject::named("1.dump")];
        for (of_newer, of_older, left) in [
            (SchemaOnly, Whole, &["1.dump"][..]),
            (Whole, Partial, &["2.dump"]),
            (Whole, Whole, &["2.dump", "1.dump"]),
            (SchemaOnly, Partial, &["2.dump", "1.dump"]),
        ] {
            let mut backups = objects();
            let reports = [
                report("2.dump", Depth::Data, 2, of_newer),
                report("1.dump", Depth::Data, 1, of_older),
            ];
            leave_out_parts(&mut backups, &reports);
            let names: Vec<&str> = backups.iter().map(|o| o.name.as_str()).collect();
            assert_eq!(names, left, "{of_newer:?} {of_older:?}");
        }
    }

    /// However much memory restores have: a look takes no more than what is reserved for it.
    #[tokio::test]
    async fn a_table_of_contents_beyond_the_memory_of_a_look_is_not_known() {
        // It is kept three times, and twice each.
        let tag = "t".repeat((NAME_BUDGET / 6 + (1 << 20)) as usize);
        let (long, short) = (
            archive_with("app", &[(&tag, false)]),
            archive_with("app", &[("t", false)]),
        );
        let files: &[(&str, &[u8])] = &[("2.dump", &long), ("1.dump", &short)];
        let flags = [("restore-memory-mib", "4096")];
        let (folder, _store, catalog) = catalog_of(files, &flags).await;
        assert!(catalog.config.archive_memory > 2 * NAME_BUDGET);
        set_age(&folder, "1.dump", 60);
        let opening = catalog.known_databases.opening.clone();
        let permits = opening.available_permits();
        let contents = async |name: &str| {
            let wanted = BackupRef::from_name(name, "").unwrap();
            let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
            catalog.archived_contents(&pinned).await
        };
        let e = contents("2.dump").await.unwrap_err();
        assert!(said(&e).contains("this worker has 72 MiB for it"), "{e}");
        assert_eq!(opening.available_permits(), permits);
        let known = contents("1.dump").await.unwrap();
        assert_eq!(known, Some(BackupContents::SchemaOnly));
        // It may be whole.
        let (name, notes) = chosen(&catalog, ("latest", None)).await.unwrap();
        assert_eq!((name.as_str(), notes.len()), ("2.dump", 0), "{notes:?}");
    }

    /// What the table of contents does not say, because it cannot be read, the evidence does.
    #[tokio::test]
    async fn evidence_about_a_backup_that_cannot_be_opened_counts() {
        let whole = archive_with("app", &[("t", true)]);
        let files: &[(&str, &[u8])] = &[("2.dump", &whole[..whole.len() - 9]), ("1.dump", &whole)];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        set_age(&folder, "1.dump", 60);
        verified(&catalog, "1.dump", Some(BackupContents::Whole)).await;
        verified(&catalog, "2.dump", Some(BackupContents::Partial)).await;
        let (name, _) = chosen(&catalog, ("latest-proven", None)).await.unwrap();
        assert_eq!(name, "1.dump");
        let (name, notes) = chosen(&catalog, ("latest", None)).await.unwrap();
        assert_eq!(name, "2.dump");
        assert!(notes[0].starts_with("2.dump lacks"), "{notes:?}");
    }

    /// Nor does evidence that nobody signed hide that it is only evidence.
    #[tokio::test]
    async fn rows_in_a_table_of_contents_are_believed_before_evidence() {
        let whole = archive_with("app", &[("t", true)]);
        let text: &[u8] = b"CREATE TABLE t ();\n";
        let files: &[(&str, &[u8])] = &[("3.sql", text), ("2.dump", &whole), ("1.dump", &whole)];
        for (key, by) in [(None, " by UNSIGNED evidence"), (Some(KEY), "")] {
            for contents in [BackupContents::SchemaOnly, BackupContents::DataOnly] {
                let flags: Vec<(&str, &str)> =
                    key.iter().map(|k| ("evidence-signing-key", *k)).collect();
                let (folder, _store, catalog) = catalog_of(files, &flags).await;
                for (age, (name, _)) in (1..).zip(files) {
                    set_age(&folder, name, 60 * age);
                    if *name != "1.dump" {
                        verified(&catalog, name, Some(contents)).await;
                    }
                }
                let (name, notes) = chosen(&catalog, ("latest", None)).await.unwrap();
                assert_eq!(name, "2.dump");
                let said = format!("3.sql ({}){by};", contents.label());
                assert!(notes.iter().any(|n| n.contains(&said)), "{notes:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_newest_backup_is_chosen_with_a_note_if_it_was_found_bad() {
        let whole = archive_with("app", &[("t", true)]);
        let files: &[(&str, &[u8])] = &[("2.dump", &whole), ("1.dump", &whole)];
        for (flags, says) in [
            (&[][..], "UNSIGNED evidence says that "),
            (&[("evidence-signing-key", KEY)][..], ""),
        ] {
            let (folder, _store, catalog) = catalog_of(files, flags).await;
            set_age(&folder, "1.dump", 60);
            for (id, verdict, is_noted) in [
                ("a", Verdict::Failed, true),
                ("b", Verdict::Inconclusive, true),
                ("c", Verdict::Verified, false),
            ] {
                let change = |r: &mut VerificationReport| r.verdict = verdict;
                folder_catalog::verified(&catalog, id, "2.dump", change).await;
                let (name, notes) = chosen(&catalog, ("latest", None)).await.unwrap();
                assert_eq!(name, "2.dump", "{verdict:?}");
                let wanted = format!(
                    "2.dump: {says}its verification failed: the evidence does not say why; choose an older one by its name, or latest-proven"
                );
                let wanted = is_noted.then_some(wanted);
                assert_eq!(notes, wanted.into_iter().collect::<Vec<_>>());
            }
        }
    }

    /// However often a schema alone is proven, the whole backups stay.
    #[tokio::test]
    async fn parts_cause_no_deletion() {
        let archive = archive_of("app");
        let schema = Some(BackupContents::SchemaOnly);
        let backups = [
            ("7.dump", schema, 8),
            ("6.dump", Some(BackupContents::Partial), 9),
            ("5.dump", schema, 10),
            ("4.dump", None, 26),
            ("3.dump", Some(BackupContents::Whole), 27),
            ("2.dump", None, 28),
            ("1.dump", schema, 29),
        ];
        let files = backups.map(|(name, _, _)| (name, archive.as_slice()));
        for (floor, gone) in [
            ("0", &["3.dump", "2.dump", "1.dump"][..]),
            ("3", &["1.dump"]),
            ("9", &[]),
        ] {
            let flags = [
                ("backup-retention-days", "7"),
                ("backup-retention-min", floor),
            ];
            let (folder, _store, catalog) = catalog_of(&files, &flags).await;
            for (name, contents, days) in backups {
                set_age(&folder, name, days * DAY);
                verified(&catalog, name, contents).await;
            }
            let decisions = catalog.retention("default", true).await.unwrap();
            assert!(decisions.iter().all(|d| d.proven), "{decisions:?}");
            let deleted = decisions.iter().filter(|d| d.delete);
            let deleted: Vec<&str> = deleted.map(|d| d.object.name.as_str()).collect();
            assert_eq!(deleted, gone, "{floor}: {decisions:?}");
            let why = |i: usize| decisions[i].why.as_str();
            assert!(
                why(0).ends_with("it has definitions and no rows, and replaces no whole backup")
            );
            if floor == "0" {
                assert_eq!(why(3), "the newest proven backup of its database");
                assert!(
                    why(6).starts_with("older than 7 days; it has"),
                    "{}",
                    why(6)
                );
            }
        }
    }

    #[tokio::test]
    async fn the_schedule_verifies_the_newest_whole_backup() {
        let archive = archive_of("app");
        let files: &[(&str, &[u8])] = &[("2.dump", &archive), ("1.dump", &archive)];
        let flags = [("verify-schedule", "24h"), ("verify-sample", "0")];
        let (folder, _store, catalog) = catalog_of(files, &flags).await;
        set_age(&folder, "1.dump", 60);
        let due = async || {
            let jobs = catalog.due(jiff::Timestamp::now()).await;
            let name = |job: VerifyJob| match job.backup {
                BackupRef::Named { name, .. } => name,
                other => panic!("{other:?}"),
            };
            jobs.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(due().await, ["2.dump"]);
        verified(&catalog, "2.dump", Some(BackupContents::SchemaOnly)).await;
        assert_eq!(due().await, ["1.dump"]);
        // Without any other, a part is not verified again and again.
        std::fs::remove_file(folder.path().join("1.dump")).unwrap();
        assert_eq!(due().await, Vec::<String>::new());
    }
}

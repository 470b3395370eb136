//! A backup that was verified before: whether its bytes are still the same. Pure.

use crate::error::{Blame, ErrorBody, FailureReason as R, one_line};
use crate::proof::{Verdict, VerificationReport};
use pgdump_restore::Stage;

/// Whether both reports are about the same bytes. `None` if they do not tell.
pub(crate) fn have_same_bytes(a: &VerificationReport, b: &VerificationReport) -> Option<bool> {
    let same = |a: &Option<String>, b: &Option<String>| Some(a.as_ref()? == b.as_ref()?);
    if same(&a.backup.size, &b.backup.size) == Some(false) {
        return Some(false);
    }
    if let (Some(a), Some(b)) = (&a.members, &b.members)
        && let Some(known) = a.has_same_bytes(b)
    {
        return Some(known);
    }
    let by_sha256 = same(&a.sha256, &b.sha256);
    let is_folder =
        |r: &VerificationReport| r.backup.name.as_deref().is_some_and(|n| n.ends_with('/'));
    if is_folder(a) || is_folder(b) {
        // It is that of the table of contents alone.
        return by_sha256.filter(|same| !same);
    }
    by_sha256.or_else(|| same(&a.backup.crc32c, &b.backup.crc32c))
}

/// The proof since which a backup has other bytes, under the same name and generation: the newest one of other bytes. There
/// is none if the bytes of now were proven before any others, as after a repair. A verification that restored nothing is no
/// proof: it may have read a damaged copy.
pub(crate) fn changed_since<'a>(
    earlier: impl Iterator<Item = &'a VerificationReport>,
    now: &VerificationReport,
) -> Option<&'a VerificationReport> {
    let proven: Vec<(bool, &VerificationReport)> = earlier
        .filter(|r| r.is_proof())
        .filter_map(|r| Some((have_same_bytes(r, now)?, r)))
        .collect();
    let of_bytes = |same: bool| {
        let of_bytes = proven.iter().filter(move |(is, _)| *is == same);
        of_bytes.map(|(_, r)| *r)
    };
    let first = |same: bool| of_bytes(same).map(|r| r.finished_at).min();
    let changed = first(false)?;
    if first(true).is_some_and(|original| original < changed) {
        return None;
    }
    of_bytes(false).max_by_key(|r| r.finished_at)
}

/// Whether a backup has fewer members than at an earlier verification. Whoever adds files cannot cause that.
pub(crate) fn lacks_members(now: &VerificationReport, then: &VerificationReport) -> bool {
    match (&now.members, &then.members) {
        (Some(now), Some(then)) => now.count < then.count,
        _ => false,
    }
}

fn objects(n: u64) -> String {
    format!("{n} {}", if n == 1 { "object" } else { "objects" })
}

fn missing_members(missing: u64, of: u64) -> String {
    let are = if missing == 1 { "is" } else { "are" };
    format!("{missing} of {of} members {are} missing")
}

/// A checksum of which both reports know another value: its name, and both values.
fn checksums<'a>(
    then: &'a VerificationReport,
    now: &'a VerificationReport,
) -> Option<(&'static str, &'a str, &'a str)> {
    type Value = fn(&VerificationReport) -> Option<&str>;
    let kinds: [(&'static str, Value); 4] = [
        ("SHA-256 over the checksums of its members", |r| {
            r.members.as_ref()?.sha256.as_deref()
        }),
        ("SHA-256 over the CRC32Cs of its members", |r| {
            r.members.as_ref()?.crc32c.as_deref()
        }),
        ("CRC32C", |r| r.backup.crc32c.as_deref()),
        // Of a directory, it is that of the table of contents.
        ("SHA-256", |r| {
            r.sha256.as_deref().filter(|_| r.members.is_none())
        }),
    ];
    kinds.into_iter().find_map(|(name, value)| {
        let (then, now) = (value(then)?, value(now)?);
        (then != now).then_some((name, then, now))
    })
}

/// What shows that the bytes are others now.
fn difference(then: &VerificationReport, now: &VerificationReport) -> String {
    if let (Some(then), Some(now)) = (&then.members, &now.members)
        && then.count != now.count
    {
        return match then.count.checked_sub(now.count) {
            Some(missing) => missing_members(missing, then.count),
            None => format!(
                "it had {} then, and has {} now",
                objects(then.count),
                now.count
            ),
        };
    }
    match (&then.backup.size, &now.backup.size) {
        (Some(then), Some(now)) if then != now => {
            format!("it had {then} bytes then, and has {now} now")
        }
        _ => "its checksum differs".to_owned(),
    }
}

fn add(report: &mut VerificationReport, what: &str) {
    if let Some(error) = &mut report.error {
        error.message = one_line(&format!("{}; {what}", error.message));
    }
}

/// Makes a verdict `failed` because the backup was verified when it had other bytes, whatever else would explain it.
pub(crate) fn fail_as_damaged(report: &mut VerificationReport, proof: &VerificationReport) {
    let is_failed = report.verdict == Verdict::Failed;
    let error = report.error.get_or_insert_with(|| ErrorBody {
        reason: R::ChecksumMismatch,
        blame: Blame::Backup,
        stage: Stage::Check.to_string(),
        message: "its bytes have changed without a new generation".to_owned(),
        sqlstate: None,
        retryable: false,
        refusals: vec![],
        refusals_total: 0,
        misfits: vec![],
    });
    if !is_failed {
        (error.blame, error.retryable) = (Blame::Backup, false);
        // What the verifying server lacks, say, may be called so by a flipped bit. A missing member is missing.
        if error.reason != R::ArchiveCorrupt {
            error.reason = R::ChecksumMismatch;
        }
    }
    report.verdict = Verdict::Failed;
    note_damage(report, proof);
}

/// Says of a backup that fails that it was proven when it had other bytes.
fn note_damage(report: &mut VerificationReport, proof: &VerificationReport) {
    let difference = difference(proof, report);
    let at = proof.finished_at;
    add(
        report,
        &format!("damaged since its proof at {at}: {difference}"),
    );
    let advice = "restore another copy of this backup, or an older one; take a new backup now, and find out what changes or damages files where backups are stored. A file that was replaced on purpose needs a new name or a new time";
    report.fix = Some(match checksums(proof, report) {
        Some((kind, then, now)) => format!(
            "verified with {kind} {then} at {at}; this one has {now}: compare the copies, the one that was verified is right unless it was damaged before that. Then {advice}"
        ),
        None => advice.to_owned(),
    });
}

/// Says of a backup that fails that it was proven, perhaps with other bytes.
pub(crate) fn note_unknown_change(report: &mut VerificationReport, proof: &VerificationReport) {
    let at = proof.finished_at;
    let what = format!("whether its bytes have changed since its proof at {at} is not known");
    add(report, &what);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{RestoreError, ValidationError, ValidationKind};
    use crate::proof::{BackupMember, MembersProof};
    use crate::verification::evidence::tests::report;
    use crate::verification::verdict;
    use pgdump_restore::Stage;

    fn of_object(crc32c: Option<&str>, sha256: Option<&str>) -> VerificationReport {
        let mut r = report("r");
        r.backup.crc32c = crc32c.map(str::to_owned);
        r.sha256 = sha256.map(str::to_owned);
        r
    }

    fn of_folder(members: &[(&str, Option<&str>)], toc: &str) -> VerificationReport {
        let member = |(name, checksum): &(&str, Option<&str>)| BackupMember {
            name: (*name).to_owned(),
            size: 1,
            crc32c: None,
            sha256: checksum.map(str::to_owned),
        };
        let mut r = of_object(None, Some(toc));
        r.backup.name = Some("n/".into());
        r.backup.size = Some(members.len().to_string());
        r.members = Some(MembersProof::of(members.iter().map(member)));
        r
    }

    #[test]
    fn only_checksums_of_all_bytes_show_that_nothing_has_changed() {
        let single = of_object(Some("a"), Some("b"));
        let folder = of_folder(&[("1.dat", Some("x")), ("toc.dat", Some("t"))], "t");
        let older = VerificationReport {
            members: None,
            ..folder.clone()
        };
        for (a, b, same) in [
            (&single, single.clone(), Some(true)),
            (&single, of_object(Some("a"), Some("c")), Some(false)),
            (&single, of_object(Some("a"), None), Some(true)),
            (&single, of_object(Some("c"), None), Some(false)),
            (&single, of_object(None, None), None),
            (&folder, folder.clone(), Some(true)),
            (
                &folder,
                of_folder(&[("1.dat", Some("y")), ("toc.dat", Some("t"))], "t"),
                Some(false),
            ),
            (
                &folder,
                of_folder(&[("toc.dat", Some("t"))], "t"),
                Some(false),
            ),
            (
                &folder,
                of_folder(&[("1.dat", None), ("toc.dat", Some("t"))], "t"),
                None,
            ),
            // Evidence that tells its table of contents alone.
            (&older, folder.clone(), None),
            (&older, of_folder(&[("toc.dat", None)], "t"), Some(false)),
            (
                &older,
                of_folder(&[("1.dat", None), ("toc.dat", None)], "u"),
                Some(false),
            ),
        ] {
            assert_eq!(have_same_bytes(a, &b), same, "{:?} {:?}", a.members, b);
            assert_eq!(have_same_bytes(&b, a), same);
        }
    }

    #[test]
    fn a_failure_says_what_has_changed_since_the_proof() {
        let e: RestoreError =
            ValidationError::new(ValidationKind::ArchiveCorrupt, "cut off").into();
        let two = of_folder(&[("1.dat", Some("x")), ("toc.dat", Some("t"))], "t");
        let one = of_folder(&[("toc.dat", Some("t"))], "t");
        for (then, now, what) in [
            (&two, &one, "1 of 2 members is missing"),
            (&one, &two, "it had 1 object then, and has 2 now"),
            (
                &of_object(Some("a"), None),
                &of_object(Some("b"), None),
                "its checksum differs",
            ),
        ] {
            let mut now = now.clone();
            verdict::fail(&mut now, &e, Stage::Data);
            let usual = now.fix.clone();
            note_damage(&mut now, then);
            let wanted =
                format!("cut off; damaged since its proof at 1970-01-01T00:00:00Z: {what}");
            assert_eq!(now.error.unwrap().message, wanted);
            assert_ne!(now.fix, usual);
        }
    }

    /// Which of two copies is the right one, a person can tell by the checksum that was verified.
    #[test]
    fn the_advice_names_the_checksum_that_was_verified() {
        let folder = |sum| of_folder(&[("1.dat", Some(sum)), ("toc.dat", Some("t"))], "t");
        let (then, now) = (folder("x"), folder("y"));
        let unread = |toc| of_folder(&[("1.dat", None), ("toc.dat", None)], toc);
        let of_members = |r: &VerificationReport| r.members.clone().unwrap().sha256.unwrap();
        let (x, y) = (of_members(&then), of_members(&now));
        for (then, mut now, said) in [
            (
                of_object(Some("a"), Some("s")),
                of_object(Some("b"), Some("t")),
                "verified with CRC32C a at 1970-01-01T00:00:00Z; this one has b: ".to_owned(),
            ),
            (
                of_object(None, Some("s")),
                of_object(Some("b"), Some("t")),
                "verified with SHA-256 s at 1970-01-01T00:00:00Z; this one has t: ".to_owned(),
            ),
            (
                then,
                now,
                format!(
                    "verified with SHA-256 over the checksums of its members {x} at 1970-01-01T00:00:00Z; this one has {y}: "
                ),
            ),
            (
                of_object(None, None),
                of_object(None, Some("t")),
                "restore another copy".to_owned(),
            ),
            // That of its table of contents says nothing of the other members.
            (unread("t"), unread("u"), "restore another copy".to_owned()),
        ] {
            fail_as_damaged(&mut now, &then);
            let fix = now.fix.unwrap();
            assert!(fix.starts_with(&said), "{fix}");
        }
    }
}

//! Tests of which documents count as evidence.

use super::names::*;
use super::search::*;
use super::times::*;
use super::*;
use std::sync::Arc;

use crate::config::Location;
use crate::error::FailureReason as R;
use crate::event::{ResultBackup, Verdict};
use crate::job::Generation;
use crate::policy::{Depth, Trigger};
use crate::proof::{BackupMember, MembersProof, VerificationReport};
use crate::store::faulty::FaultyStore;
use crate::store::{BackupStore, StoredObject, Stores};
use crate::verification::envelope::tests::{OTHER_PRIVATE, PRIVATE};
use crate::verification::envelope::{Keyring, MAX_ENVELOPE};
use crate::verification::own_evidence::OwnEvidence;
use crate::verification::restore_index::RestoreIndex;
use pgdump_archive::Crc32c;

mod attacks;
mod bounds;

pub fn report(request_id: &str) -> VerificationReport {
    let t = jiff::Timestamp::UNIX_EPOCH;
    let text = |t: &str| Some(t.to_owned());
    VerificationReport {
        verdict: Verdict::Verified,
        depth: Some(Depth::Data),
        backup: ResultBackup {
            name: text("a/b.dump"),
            uri: text("gs://bucket/a/b.dump"),
            generation: text("17"),
            size: text("9"),
            crc32c: text("yZRlqg=="),
        },
        backup_created: Some(t),
        backup_set: "default".into(),
        ..VerificationReport::new(request_id, Trigger::Command, Depth::Data, t)
    }
}

#[test]
fn evidence_is_next_to_its_backup_under_a_name_of_its_own() {
    let name = evidence_name("a/b.dump", "17", "r1");
    assert!(
        name.starts_with("a/b.dump.pgrestored/17/") && crate::proof::is_ours(&name),
        "{name}"
    );
    assert!(evidence_name("night/", "3", "r1").starts_with("night.pgrestored/3/"));
    assert_ne!(name, evidence_name("a/b.dump", "17", "r2"));
    assert!(!crate::proof::is_ours("a/b.dump"));
    for (name, is) in [
        (format!("{name}.dsse.json"), true),
        (format!("{name}-0123456789abcdef.dsse.json"), true),
        (format!("{name}-0123456789abcde.dsse.json"), false),
        (format!("{name}-01234567/9abcdef.dsse.json"), false),
        (format!("{name}.html"), false),
        ("a.dump.pgrestored/17/x.dsse.json".into(), false),
        (
            "a.dump.pgrestored/x/0123456789abcdef.dsse.json".into(),
            false,
        ),
        ("a.dump/17/0123456789abcdef.dsse.json".into(), false),
    ] {
        assert_eq!(is_document(&name), is, "{name}");
    }
}

/// Fewer documents than the program reads, so that tests reach the limits in less time.
const FEW: EvidenceLimits = EvidenceLimits {
    per_generation: 100,
    testimony: 4 << 20,
    most_beside: [300, 100, 50],
};

/// A bucket in a folder, with readers of its evidence.
struct TestBucket {
    folder: tempfile::TempDir,
    store: Arc<dyn BackupStore>,
    object: StoredObject,
}

impl TestBucket {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.dump"), "123456789").unwrap();
        std::fs::write(folder.path().join("b.dump"), "123456789").unwrap();
        let place = Location::Folder(folder.path().to_owned());
        let store = Stores::new(None).at(&place).await.unwrap();
        let object = store.stat("a.dump", None).await.unwrap();
        TestBucket {
            folder,
            store,
            object,
        }
    }

    fn reader(&self, signing: Option<&str>, trusted: Option<&str>) -> Evidence {
        let keys = Arc::new(Keyring::new(signing, trusted).unwrap());
        Evidence::new(
            self.store.clone(),
            self.store.clone(),
            keys,
            Arc::default(),
            FEW,
        )
    }

    fn question<'a>(&'a self, request_id: &'a str) -> Question<'a> {
        let (trigger, depth) = (Trigger::Notification, Depth::Data);
        Question {
            backup: &self.object,
            request_id,
            trigger,
            depth,
        }
    }

    /// The report of an honest worker.
    fn report(&self, request_id: &str, depth: Depth) -> VerificationReport {
        let now = jiff::Timestamp::now();
        VerificationReport {
            verdict: Verdict::Verified,
            depth: Some(depth),
            depth_requested: depth,
            backup: ResultBackup {
                name: Some("a.dump".into()),
                uri: Some(self.store.uri("a.dump")),
                generation: Some(self.object.generation.to_string()),
                size: Some("9".into()),
                crc32c: Some("yZRlqg==".into()),
            },
            backup_created: Some(self.object.created),
            backup_set: "default".into(),
            ..VerificationReport::new(request_id, Trigger::Notification, depth, now)
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn put_sealed(&self, name: &str, report: &VerificationReport, signing: Option<&str>) {
        let sealed = Keyring::new(signing, None).unwrap().seal(report).unwrap();
        self.put(name, &serde_json::to_vec(&sealed).unwrap());
    }

    fn name_for(&self, request_id: &str) -> String {
        format!("{}{ENVELOPE}", self.question(request_id).base())
    }

    fn documents(&self) -> usize {
        let folder = self.folder.path().join(Evidence::folder(&self.object));
        let names = std::fs::read_dir(folder).into_iter().flatten();
        names
            .filter(|e| {
                e.as_ref()
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .ends_with(ENVELOPE)
            })
            .count()
    }
}

fn most(reports: usize) -> SearchLimit {
    SearchLimit {
        reports,
        bytes: 1 << 20,
    }
}

async fn all_of(evidence: &Evidence) -> (usize, usize) {
    let found = evidence.reports("", most(100), Some).await.unwrap();
    (found.reports.len(), found.rejected)
}

/// Each way to put a document into the bucket without the key, at another location, or with wrong times.
#[tokio::test]
async fn forged_or_misplaced_documents_do_not_count() {
    let signed = Some(PRIVATE);
    for (what, counts) in [
        ("honest", true),
        ("unsigned", false),
        ("another key", false),
        ("another backup", false),
        ("another generation", false),
        ("another request", false),
        ("another place", false),
        ("finished in 2099", false),
        ("started in 2099", false),
        ("made in 2099", false),
        ("ends before it begins", false),
        ("subject of another", false),
        ("too long", false),
        ("garbage", false),
    ] {
        let p = TestBucket::new().await;
        let later: jiff::Timestamp = "2099-01-01T00:00:00Z".parse().unwrap();
        let (mut r, mut name) = (p.report("r", Depth::Data), p.name_for("r"));
        match what {
            "another backup" => name = name.replacen("a.dump", "b.dump", 1),
            "another generation" => name = name.replacen(&p.object.generation.to_string(), "17", 1),
            "another request" => name = p.name_for("gcs:b/a.dump#1"),
            "another place" => r.backup.uri = Some("gs://other/a.dump".into()),
            "finished in 2099" => r.finished_at = later,
            "started in 2099" => (r.started_at, r.finished_at) = (later, later),
            "made in 2099" => r.backup_created = Some(later),
            "ends before it begins" => r.finished_at = jiff::Timestamp::UNIX_EPOCH,
            _ => {}
        }
        match what {
            "unsigned" => p.put_sealed(&name, &r, None),
            "another key" => p.put_sealed(&name, &r, Some(OTHER_PRIVATE)),
            "garbage" => p.put(&name, b"{"),
            "too long" => p.put(&name, &vec![b' '; MAX_ENVELOPE as usize + 1]),
            "subject of another" => {
                let mut other = r.clone();
                other.backup.generation = Some("17".into());
                p.put(
                    &name,
                    &crate::verification::envelope::tests::mixed(&r, &other),
                );
            }
            _ => p.put_sealed(&name, &r, signed),
        }
        let evidence = p.reader(signed, None);
        // Evidence of another place may be in the same folder; it is no forgery.
        let is_rejected = !counts && what != "another place";
        assert_eq!(
            all_of(&evidence).await,
            (usize::from(counts), usize::from(is_rejected)),
            "{what}"
        );
        let found = evidence.find(&p.question("r")).await.unwrap();
        assert_eq!(found.is_some(), counts, "{what}");
        if what == "another request" {
            assert_eq!(
                evidence.find(&p.question("gcs:b/a.dump#1")).await.unwrap(),
                None
            );
        }
        // Whatever is there, this worker's own answer can be written and is found again.
        let own = evidence
            .write(&p.question("r"), &p.report("r", Depth::Data))
            .await
            .unwrap();
        assert_eq!(
            evidence.find(&p.question("r")).await.unwrap(),
            Some(own),
            "{what}"
        );
    }
}

/// Without a key, forged documents cannot be recognised, so a worker trusts only those that it wrote itself.
#[tokio::test]
async fn without_a_key_a_worker_trusts_only_its_own_documents() {
    let p = TestBucket::new().await;
    let (report, question) = (p.report("r", Depth::Data), p.question("r"));
    p.put_sealed(&p.name_for("r"), &report, None);
    let evidence = p.reader(None, None);
    assert_eq!(evidence.find(&question).await.unwrap(), None);
    let own = evidence.write(&question, &report).await.unwrap();
    assert_ne!(
        own.document.uri,
        p.store.uri(&p.name_for("r")),
        "the forged document is not returned"
    );
    assert_eq!(evidence.find(&question).await.unwrap().as_ref(), Some(&own));
    assert_eq!(p.documents(), 2);
    // Another process does not know that document, so it verifies again.
    assert_eq!(p.reader(None, None).find(&question).await.unwrap(), None);
    // Its own document, overwritten.
    let path = own.document.uri.trim_start_matches("file://").to_owned();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\n", " ")).unwrap();
    assert_eq!(evidence.find(&question).await.unwrap(), None);
}

/// The answer to another question about the same backup does not count.
#[tokio::test]
async fn a_shallow_answer_does_not_stand_for_a_deep_one() {
    let p = TestBucket::new().await;
    let evidence = p.reader(Some(PRIVATE), None);
    let asked = Question {
        trigger: Trigger::Request,
        depth: Depth::Object,
        ..p.question("r")
    };
    let shallow = VerificationReport {
        trigger: Trigger::Request,
        ..p.report("r", Depth::Object)
    };
    evidence.write(&asked, &shallow).await.unwrap();
    assert_eq!(evidence.find(&p.question("r")).await.unwrap(), None);
    let deep = evidence
        .write(&p.question("r"), &p.report("r", Depth::Data))
        .await
        .unwrap();
    assert_eq!(deep.report.depth, Some(Depth::Data));
    // Every worker with the key finds both; and an answer of another worker stands.
    let other = p.reader(Some(PRIVATE), None);
    assert_eq!(
        other.find(&p.question("r")).await.unwrap().as_ref(),
        Some(&deep)
    );
    let again = other
        .write(&p.question("r"), &p.report("r", Depth::Data))
        .await
        .unwrap();
    assert_eq!((again, p.documents()), (deep, 2));
    assert_eq!(other.find(&asked).await.unwrap().unwrap().report, shallow);
    // A reader with only the public key finds the same.
    let public = crate::verification::envelope::tests::public_pem(PRIVATE);
    let two = format!(
        "{}{public}",
        crate::verification::envelope::tests::public_pem(OTHER_PRIVATE)
    );
    assert_eq!(all_of(&p.reader(None, Some(&two))).await, (2, 0));
    assert_eq!(all_of(&p.reader(Some(OTHER_PRIVATE), None)).await, (0, 2));
}

/// Any number of newer foreign documents cannot hide what a holder of the signing key wrote.
#[tokio::test]
async fn a_flood_of_documents_hides_nothing_from_holders_of_the_key() {
    let p = TestBucket::new().await;
    let evidence = p.reader(Some(PRIVATE), None);
    evidence
        .write(&p.question("r"), &p.report("r", Depth::Data))
        .await
        .unwrap();
    let folder = Evidence::folder(&p.object);
    for i in 0..MAX_REJECTED + 10 {
        p.put(&format!("{folder}{i:016x}{ENVELOPE}"), b"{}");
    }
    let found = evidence.reports("", most(1), Some).await.unwrap();
    assert_eq!((found.reports.len(), found.rejected), (1, 0));
    let all = evidence.reports("", most(100), Some).await.unwrap();
    assert_eq!((all.reports.len(), all.rejected), (1, MAX_REJECTED_BESIDE));
    assert_eq!((all.is_flooded, all.incomplete()), (false, None));
    // Without the names that need the signing key, the search beside this backup is abandoned, and the result says so.
    let public = crate::verification::envelope::tests::public_pem(PRIVATE);
    let found = p
        .reader(None, Some(&public))
        .reports("", most(1), Some)
        .await
        .unwrap();
    assert!(found.reports.is_empty());
    let why = found.incomplete().unwrap();
    assert!(
        why.contains("were not read") && why.ends_with("beside a.dump"),
        "{why}"
    );
}

/// Other bytes under the same name are another backup.
#[tokio::test]
async fn an_answer_is_about_exactly_these_bytes() {
    let p = TestBucket::new().await;
    let r = p.report("r", Depth::Data);
    let crc32c = Some(Crc32c::of(b"hello world"));
    assert!(
        is_of(&r, &p.object)
            && is_of(
                &r,
                &StoredObject {
                    crc32c,
                    ..p.object.clone()
                }
            )
    );
    for other in [
        StoredObject {
            size: 8,
            ..p.object.clone()
        },
        StoredObject {
            generation: Generation(1),
            ..p.object.clone()
        },
        StoredObject {
            crc32c: Some(Crc32c(1)),
            ..p.object.clone()
        },
        StoredObject {
            name: "b.dump".into(),
            ..p.object.clone()
        },
    ] {
        assert!(!is_of(&r, &other), "{other:?}");
    }
    // A directory, of which a member may be added, removed, renamed or changed. Older evidence does not tell its members.
    let proof = |members: &[(&str, u64, Option<&str>)]| {
        MembersProof::of(members.iter().map(|(name, size, checksum)| BackupMember {
            name: (*name).to_owned(),
            size: *size,
            crc32c: checksum.map(str::to_owned),
            sha256: None,
        }))
    };
    let toc = ("toc.dat", 5, Some("t"));
    let then = proof(&[("1.dat", 4, Some("a")), toc]);
    let folder = |size, members| StoredObject {
        name: "a/".into(),
        size,
        members: Some(Box::new(members)),
        ..p.object.clone()
    };
    let unchanged = folder(9, then.clone());
    let later = unchanged
        .created
        .saturating_add(jiff::SignedDuration::from_secs(1))
        .unwrap();
    for (now, of_new, of_older) in [
        (unchanged.clone(), true, true),
        // The store computes no checksums for this listing.
        (
            folder(9, proof(&[("1.dat", 4, None), ("toc.dat", 5, None)])),
            true,
            true,
        ),
        (folder(5, proof(&[toc])), false, false),
        (
            folder(9, proof(&[("2.dat", 4, Some("a")), toc])),
            false,
            true,
        ),
        (
            folder(9, proof(&[("1.dat", 4, Some("b")), toc])),
            false,
            true,
        ),
        (
            StoredObject {
                created: later,
                ..unchanged
            },
            false,
            false,
        ),
    ] {
        for (members, wanted) in [(Some(then.clone()), of_new), (None, of_older)] {
            let of_folder = VerificationReport {
                backup: ResultBackup {
                    name: Some("a/".into()),
                    ..r.backup.clone()
                },
                members,
                ..r.clone()
            };
            assert_eq!(is_of(&of_folder, &now), wanted, "{now:?}");
        }
    }
}

/// An index is read without keeping what does not belong to it, and its form does not change.
#[test]
fn a_restore_index_keeps_its_form() {
    let text = r#"{"generation":"17","size":"9","crc32c":"yZRlqg==","head":{"offset":0,"length":4,"crc32c":1},"blocks":[{"dump_id":7,"offset":4,"length":5,"crc32c":2,"rows":3,"bytes":4}]}"#;
    let index: RestoreIndex = serde_json::from_str(text).unwrap();
    assert_eq!(
        (index.size.as_str(), index.index.blocks[0].extent.offset),
        ("9", 4)
    );
    assert_eq!(serde_json::to_string(&index).unwrap(), text);
    let more = text.replacen('{', r#"{"x":[0,0,{"y":[]}],"#, 1);
    let more = more.replace(r#""dump_id""#, r#""z":[[0]],"dump_id""#);
    assert_eq!(serde_json::from_str::<RestoreIndex>(&more).unwrap(), index);
    assert!(serde_json::from_str::<RestoreIndex>(r#"{"x":[0]}"#).is_err());
}

/// A genuine document, copied under other names, counts once and hides nothing.
#[tokio::test]
async fn copies_count_once_and_hide_no_later_document() {
    let p = TestBucket::new().await;
    let public = |key| crate::verification::envelope::tests::public_pem(key);
    let (first, second) = (
        p.reader(Some(PRIVATE), None),
        p.reader(Some(OTHER_PRIVATE), None),
    );
    let good = p.report("r", Depth::Data);
    let bad = VerificationReport {
        verdict: Verdict::Failed,
        ..p.report("s", Depth::Data)
    };
    first.write(&p.question("r"), &good).await.unwrap();
    first.write(&p.question("s"), &bad).await.unwrap();
    // Of another worker, and the second name of a request.
    let other = VerificationReport {
        verdict: Verdict::Inconclusive,
        ..p.report("t", Depth::Data)
    };
    second.write(&p.question("t"), &other).await.unwrap();
    let shallow = Question {
        depth: Depth::Object,
        ..p.question("r")
    };
    first
        .write(&shallow, &p.report("r", Depth::Object))
        .await
        .unwrap();
    let originals = [&p.question("r"), &p.question("s"), &shallow].map(|q| first.names(q));
    let copy = |name: &str, n: usize, to: &str| {
        let bytes = std::fs::read(p.folder.path().join(name)).unwrap();
        for i in 0..n {
            p.put(&format!("{to}-{i:016x}{ENVELOPE}"), &bytes);
        }
    };
    copy(&originals[0][0], 50, &p.question("r").base());
    let (both, newer) = (
        format!("{}{}", public(PRIVATE), public(OTHER_PRIVATE)),
        Some(public(PRIVATE)),
    );
    let about = async |evidence: &Evidence| {
        let folder = Evidence::folder(&p.object);
        let documents = evidence
            .folders("")
            .await
            .unwrap()
            .documents
            .remove(&folder)
            .unwrap();
        let said = evidence.about(&p.object, documents).await;
        let failed = said.reports.iter().filter(|r| r.verdict == Verdict::Failed);
        (said.reports.len(), failed.count(), said.incomplete)
    };
    let readers = [
        (p.reader(None, newer.as_deref()), 3),
        (p.reader(None, Some(&both)), 4),
        // After a rotation, and beside workers with another key.
        (p.reader(Some(OTHER_PRIVATE), newer.as_deref()), 4),
        (p.reader(Some(PRIVATE), Some(&both)), 4),
        (p.reader(Some(PRIVATE), None), 3),
    ];
    for (evidence, count) in &readers {
        assert_eq!(about(evidence).await, (*count, 1, None));
        let found = evidence.reports("", most(100), Some).await.unwrap();
        assert_eq!((found.reports.len(), found.is_flooded), (*count, false));
    }
    // Among more than are read, those of the own key are found, and what may be missing is said.
    copy(
        &originals[0][0],
        FEW.per_generation,
        &p.question("u").base(),
    );
    for (i, (evidence, _)) in readers.iter().enumerate() {
        let (count, failed, incomplete) = about(evidence).await;
        let says = |why: &str| why.contains("were not read");
        if i == 4 {
            assert_eq!((count, failed, incomplete), (3, 1, None));
        } else {
            assert!(incomplete.as_deref().is_some_and(says), "{i}");
        }
        if i == 3 {
            assert!((3..=4).contains(&count) && failed == 1, "{count}");
        }
    }
}

/// Whoever has one key does not miss what a worker with another one wrote later.
#[tokio::test]
async fn the_newest_document_comes_first_whoever_signed_it() {
    let p = TestBucket::new().await;
    let (first, second) = (
        p.reader(Some(PRIVATE), None),
        p.reader(Some(OTHER_PRIVATE), None),
    );
    first
        .write(&p.question("r"), &p.report("r", Depth::Data))
        .await
        .unwrap();
    // Written a minute ago.
    let name = &first.names(&p.question("r"))[0];
    let file = std::fs::File::options()
        .write(true)
        .open(p.folder.path().join(name))
        .unwrap();
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    file.set_modified(then).unwrap();
    second
        .write(&p.question("s"), &p.report("s", Depth::Data))
        .await
        .unwrap();
    let public = crate::verification::envelope::tests::public_pem(OTHER_PRIVATE);
    let both = p.reader(Some(PRIVATE), Some(&public));
    let found = both.reports("", most(1), Some).await.unwrap();
    assert_eq!(found.reports[0].request_id, "s");
}

/// A document that this machine's clock refuses, because it is slow, counts once the clock is right; until then, nothing
/// relies on its absence.
#[tokio::test]
async fn a_document_that_is_ahead_of_this_clock_is_not_refused_for_ever() {
    for (ahead, remembered) in [(3600, false), (0, true)] {
        let p = TestBucket::new().await;
        let now = jiff::Timestamp::now();
        let later = now
            .saturating_add(jiff::SignedDuration::from_mins(30))
            .unwrap();
        let mut r = p.report("r", Depth::Data);
        r.finished_at = later;
        let evidence = p.reader(Some(PRIVATE), None);
        let [name, ..] = evidence.names(&p.question("r"));
        p.put_sealed(&name, &r, Some(PRIVATE));
        // When it was stored, by the store's clock.
        let file = std::fs::File::options()
            .write(true)
            .open(p.folder.path().join(&name))
            .unwrap();
        let stored = std::time::SystemTime::now() + std::time::Duration::from_secs(ahead);
        file.set_modified(stored).unwrap();
        let object = p.store.stat(&name, None).await.unwrap();
        let known = evidence.about(&p.object, vec![object.clone()]).await;
        assert!(known.reports.is_empty());
        assert_eq!(known.incomplete.is_none(), remembered, "{ahead}");
        assert_eq!(
            evidence.own.has_rejected(p.store.uri(&name), &object),
            remembered,
            "{ahead}"
        );
        assert!(check_clock(&r, later).is_ok());
    }
}

//! Tests of what others can do to evidence without the key: deny, hide, copy and flood.

use super::*;
use crate::error::StorageKind;
use crate::store::faulty::{Call, StoreFault};

/// Evidence in a bucket whose store fails as it is told to.
fn faulty(p: &TestBucket, signing: Option<&str>) -> (Arc<FaultyStore>, Evidence) {
    let store = Arc::new(FaultyStore::at(p.folder.path()));
    let keys = Arc::new(Keyring::new(signing, None).unwrap());
    let evidence = Evidence::new(store.clone(), store.clone(), keys, Arc::default(), FEW);
    (store, evidence)
}

/// A page whose upload lost its answer is this worker's own; one that was there before is not.
#[tokio::test]
async fn a_lost_answer_makes_no_page_suspicious() {
    let p = TestBucket::new().await;
    let (store, evidence) = faulty(&p, None);
    let path = p.folder.path().join("log");
    let file = std::fs::File::create(&path).unwrap();
    let log = tracing_subscriber::fmt().with_writer(file).finish();
    let _logging = tracing::subscriber::set_default(log);
    for (id, is_foreign) in [("r", false), ("s", true)] {
        let (question, report) = (p.question(id), p.report(id, Depth::Data));
        let page = format!("{}.html", question.base());
        if is_foreign {
            p.put(&page, b"another page");
        } else {
            store.fail(Call::Create, &page, StoreFault::LostAnswer, 1);
        }
        evidence.write(&question, &report).await.unwrap();
        assert_eq!(store.left(&page), 0);
        let said = std::fs::read_to_string(&path).unwrap();
        assert_eq!(said.contains("do not trust it"), is_foreign, "{said}");
    }
}

/// A person who asks about one backup is not warned of the others; what was not said is said once somebody asks.
#[tokio::test]
async fn only_evidence_of_the_backup_that_is_asked_about_is_a_warning() {
    let p = TestBucket::new().await;
    let (_store, evidence) = faulty(&p, Some(PRIVATE));
    let neighbour = "b.dump.pgrestored/17/0123456789abcdef.dsse.json";
    p.put(&p.name_for("foreign"), b"{}");
    p.put(neighbour, b"{}");
    let path = p.folder.path().join("log");
    let file = std::fs::File::create(&path).unwrap();
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_writer(file)
        .finish();
    let _logging = tracing::subscriber::set_default(log);
    let limit = SearchLimit {
        reports: 10,
        bytes: 1 << 20,
    };
    let warned = |of: &str| {
        let said = std::fs::read_to_string(&path).unwrap();
        let mut lines = said.lines().filter(|l| l.contains("evidence rejected"));
        lines.any(|l| l.contains(" WARN ") && l.contains(of))
    };
    let found = evidence.reports_like(("", "a.dump"), limit, Some);
    assert_eq!(found.await.unwrap().rejected, 2);
    assert!(warned("a.dump.pgrestored/") && !warned(neighbour));
    let found = evidence.reports("", limit, Some).await.unwrap();
    assert_eq!(found.rejected, 2);
    assert!(warned(neighbour));
}

/// Where only own names count, documents of others cost no time.
#[tokio::test]
async fn documents_that_cannot_count_are_not_read() {
    let p = TestBucket::new().await;
    let (store, evidence) = faulty(&p, Some(PRIVATE));
    let report = p.report("r", Depth::Data);
    evidence.write(&p.question("r"), &report).await.unwrap();
    let foreign = p.name_for("foreign");
    p.put(&foreign, b"{}");
    let denied = StoreFault::Error(StorageKind::AccessDenied);
    store.fail(Call::Read, &foreign, denied, 1);
    let folder = Evidence::folder(&p.object);
    let documents = evidence
        .folders("")
        .await
        .unwrap()
        .documents
        .remove(&folder)
        .unwrap();
    assert_eq!(documents.len(), 2);
    let known = evidence.about(&p.object, documents).await;
    assert_eq!((known.reports.len(), known.incomplete), (1, None));
    assert_eq!(store.left(&foreign), 1);
}

/// A folder may have several paths. What one worker signed against a backup counts for all; what speaks for it names the
/// path, because another place may hold other bytes under this name.
#[tokio::test]
async fn a_signed_failure_counts_whatever_the_path_of_the_folder() {
    let p = TestBucket::new().await;
    let said = async |signing: Option<&str>, verdict: Verdict, size: &str| {
        let evidence = p.reader(signing, None);
        let mut r = p.report("r", Depth::Data);
        r.verdict = verdict;
        r.backup.uri = Some("file:///mnt/a.dump".into());
        r.backup.size = Some(size.into());
        let [name, ..] = evidence.names(&p.question("r"));
        p.put_sealed(&name, &r, signing);
        let document = p.store.stat(&name, None).await.unwrap();
        let known = evidence.about(&p.object, vec![document]).await;
        assert_eq!(known.incomplete, None);
        // It is no history of this place.
        assert_eq!(all_of(&evidence).await, (0, 0));
        std::fs::remove_file(p.folder.path().join(&name)).unwrap();
        known.reports.len()
    };
    let key = Some(PRIVATE);
    assert_eq!(said(key, Verdict::Failed, "9").await, 1);
    assert_eq!(said(key, Verdict::Inconclusive, "9").await, 1);
    assert_eq!(said(key, Verdict::Verified, "9").await, 0);
    assert_eq!(said(None, Verdict::Failed, "9").await, 0);
    assert_eq!(said(key, Verdict::Failed, "8").await, 0);
}

/// Evidence that nobody else can have put there is not taken for foreign because backups can be read.
#[tokio::test]
async fn evidence_that_is_denied_is_foreign_only_if_other_evidence_can_be_read() {
    let p = TestBucket::new().await;
    let (question, report) = (p.question("r"), p.report("r", Depth::Data));
    p.reader(Some(PRIVATE), None)
        .write(&question, &report)
        .await
        .unwrap();
    let (store, evidence) = faulty(&p, Some(PRIVATE));
    let denied = StoreFault::Error(StorageKind::AccessDenied);
    store.fail(Call::Read, "a.dump.pgrestored/", denied, 999);
    let e = evidence.find(&question).await.unwrap_err();
    assert_eq!(e.reason(), R::AccessDenied);
    let e = evidence.write(&question, &report).await.unwrap_err();
    assert_eq!((e.reason(), p.documents()), (R::AccessDenied, 1));
    let other = format!("b.dump.pgrestored/17/0123456789abcdef{ENVELOPE}");
    p.put(&other, b"{}");
    assert_eq!(evidence.find(&question).await.unwrap(), None);
    for documents in 2..5 {
        evidence.write(&question, &report).await.unwrap();
        assert_eq!(p.documents(), documents);
    }
    // All names are taken, perhaps by workers.
    let e = evidence.write(&question, &report).await.unwrap_err();
    let said = crate::error::report(&e);
    assert!(
        e.reason() == R::Internal
            && said.contains("may not read them all")
            && !said.contains("foreign objects"),
        "{said}"
    );
}

/// A folder of evidence that may not be listed ends no search, and matters to no other backup.
#[tokio::test]
async fn what_may_not_be_listed_hides_only_what_is_there() {
    let p = TestBucket::new().await;
    let (question, report) = (p.question("r"), p.report("r", Depth::Data));
    let folder = Evidence::folder(&p.object);
    for (place, is_beside) in [
        ("x.dump.pgrestored/".to_owned(), false),
        (format!("{folder}below/"), false),
        (format!("{folder}0123456789abcdef{ENVELOPE}"), true),
        ("a.dump.pgrestored/".to_owned(), true),
    ] {
        let (store, evidence) = faulty(&p, Some(PRIVATE));
        evidence.write(&question, &report).await.unwrap();
        store.hide(&place, p.object.created);
        match evidence.beside(&p.object).await {
            Ok(known) => assert!(!is_beside && known.reports.len() == 1, "{place}"),
            Err(e) => assert!(is_beside && e.reason() == R::AccessDenied, "{place}"),
        }
        let found = evidence.reports("", most(9), Some).await.unwrap();
        assert!(found.hidden.is_some_and(|why| why.contains(&place)));
        let is_listed = place != "a.dump.pgrestored/";
        assert_eq!(found.reports.len(), usize::from(is_listed), "{place}");
        // Whoever asks about this backup is told, and nobody else.
        let mut folders = evidence.folders("").await.unwrap();
        assert_eq!(folders.hidden(), std::slice::from_ref(&place));
        let known = evidence.among(&mut folders, &p.object).await;
        assert_eq!(known.incomplete.is_some(), is_beside, "{place}");
        assert_eq!(known.cause.is_some(), is_beside, "{place}");
        let other = p.store.stat("b.dump", None).await.unwrap();
        let known = evidence.among(&mut folders, &other).await;
        assert_eq!(known.incomplete, None, "{place}");
    }
}

/// More documents of others than a listing holds hide nothing from whoever can tell its own by their names.
#[tokio::test]
async fn a_listing_that_is_too_long_keeps_own_documents() {
    let p = TestBucket::new().await;
    let too_long = StoreFault::Error(StorageKind::ListingTooLong);
    let (store, evidence) = faulty(&p, Some(PRIVATE));
    for depth in [Depth::Data, Depth::Object] {
        // The second one has the second choice of names.
        let question = Question {
            depth,
            ..p.question("r")
        };
        let report = p.report("r", depth);
        evidence.write(&question, &report).await.unwrap();
    }
    p.put(&p.name_for("foreign"), b"{}");
    store.fail(Call::List, "", too_long, 1);
    let found = evidence.reports("", most(9), Some).await.unwrap();
    assert_eq!(
        (found.reports.len(), found.rejected, found.is_flooded),
        (2, 0, true)
    );
    store.fail(Call::List, "", too_long, 1);
    let known = evidence.beside(&p.object).await.unwrap();
    assert_eq!((known.reports.len(), known.incomplete), (2, None));
    let found = evidence.reports("", most(9), Some).await.unwrap();
    assert_eq!((found.rejected, found.is_flooded), (1, false));
    // Without such names, any of them could count: some are listed, as long as they are fewer than a listing holds.
    let (store, evidence) = faulty(&p, None);
    store.fail(Call::List, "", too_long, 99);
    let e = evidence.reports("", most(9), Some).await.unwrap_err();
    assert_eq!(e.reason(), R::ArchiveUnsupported);
}

/// A flood beside one backup hides nothing that is beside others, whoever reads it, and what was not read is said.
#[tokio::test]
async fn a_flood_beside_one_backup_hides_nothing_beside_others() {
    let p = TestBucket::new().await;
    let flood = FEW.most_beside[0] + 10;
    let folder = folder_of("b.dump", "1");
    for i in 0..flood {
        p.put(&format!("{folder}{i:016x}{ENVELOPE}"), b"{}");
    }
    let public = crate::verification::envelope::tests::public_pem(PRIVATE);
    for (signing, trusted) in [(None, None), (Some(PRIVATE), None), (None, Some(&public))] {
        let id = format!("{}{}", signing.is_some(), trusted.is_some());
        let report = p.report(&id, Depth::Data);
        match trusted {
            // Of another worker.
            Some(_) => p.put_sealed(&p.name_for(&id), &report, Some(PRIVATE)),
            None => {
                let evidence = p.reader(signing, None);
                let written = evidence.write(&p.question(&id), &report).await;
                written.unwrap();
            }
        }
        let store = Arc::new(FaultyStore::at(p.folder.path()));
        store.hold(flood);
        let keys = Arc::new(Keyring::new(signing, trusted.map(String::as_str)).unwrap());
        let evidence = Evidence::new(store.clone(), store.clone(), keys, Arc::default(), FEW);
        let found = evidence.reports("", most(9), Some).await.unwrap();
        let is_its = |r: &VerificationReport| r.request_id == id;
        assert!(found.reports.iter().any(is_its), "{id}");
        assert_eq!(found.incomplete().is_some(), signing.is_none(), "{id}");
        // What is known of this backup is complete; of the other one, it is not, unless the names tell.
        let known = evidence.beside(&p.object).await.unwrap();
        assert_eq!(known.incomplete, None);
        assert!(known.reports.iter().any(is_its), "{id}");
        let mut folders = evidence.folders("").await.unwrap();
        let known = evidence.among(&mut folders, &p.object).await;
        assert_eq!(known.incomplete, None);
        let other = StoredObject {
            name: "b.dump".into(),
            generation: Generation(1),
            ..p.object.clone()
        };
        let known = evidence.among(&mut folders, &other).await;
        assert_eq!(known.incomplete.is_some(), signing.is_none(), "{id}");
        let known = evidence.beside(&other).await.unwrap();
        assert_eq!(known.incomplete.is_some(), signing.is_none(), "{id}");
    }
}

/// Nor does one beside very many backups that are not there.
#[tokio::test]
async fn a_flood_beside_nothing_hides_nothing() {
    let p = TestBucket::new().await;
    let evidence = p.reader(None, None);
    let report = p.report("r", Depth::Data);
    evidence.write(&p.question("r"), &report).await.unwrap();
    for i in 0..100 {
        let folder = folder_of(&format!("z{i}.dump"), "1");
        p.put(&format!("{folder}{i:016x}{ENVELOPE}"), b"{}");
    }
    let store = Arc::new(FaultyStore::at(p.folder.path()));
    store.hold(50);
    let keys = Arc::new(Keyring::new(None, None).unwrap());
    let evidence = Evidence::new(store.clone(), store, keys, Arc::default(), FEW);
    let found = evidence.reports("", most(9), Some).await.unwrap();
    assert_eq!((found.reports.len(), found.rejected), (1, 0));
    assert_eq!(
        found.incomplete().unwrap(),
        "100 documents of evidence were not read, because there are too many: 100 beside no backup that is listed"
    );
}

/// What speaks against a backup counts under a later name, too, also after the first answer was deleted, and in the names
/// of earlier versions.
#[tokio::test]
async fn a_later_answer_counts_without_the_first_one() {
    let p = TestBucket::new().await;
    let evidence = p.reader(Some(PRIVATE), None);
    let question = p.question("r");
    let failed = VerificationReport {
        verdict: Verdict::Failed,
        ..p.report("r", Depth::Data)
    };
    let names = evidence.names(&question);
    let older = evidence.keys.secret_name(&question.key()).unwrap();
    let older = format!("{}-{older}{ENVELOPE}", question.base());
    for name in names[1..].iter().chain([&older]) {
        p.put_sealed(name, &failed, Some(PRIVATE));
        let known = evidence.beside(&p.object).await.unwrap();
        assert_eq!(known.reports.len(), 1, "{name}");
        assert_eq!(known.reports[0].verdict, Verdict::Failed);
        assert_eq!(all_of(&evidence).await, (1, 0));
        assert_eq!(
            evidence.find(&question).await.unwrap().unwrap().report,
            failed
        );
        std::fs::remove_file(p.folder.path().join(name)).unwrap();
    }
    // Of several answers, the newest counts.
    p.put_sealed(&names[1], &failed, Some(PRIVATE));
    let good = VerificationReport {
        verdict: Verdict::Verified,
        finished_at: failed.finished_at - jiff::SignedDuration::from_secs(1),
        started_at: failed.started_at - jiff::SignedDuration::from_secs(1),
        ..failed.clone()
    };
    p.put_sealed(&names[0], &good, Some(PRIVATE));
    assert_eq!(
        evidence.find(&question).await.unwrap().unwrap().report,
        failed
    );
}

/// Whatever lies at a name that can be predicted, the answer is written, if need be under another one; its pages are no
/// condition.
#[tokio::test]
async fn what_takes_a_name_does_not_keep_an_answer_from_being_written() {
    for (ending, is_moved) in [("dsse.json", true), ("html", false)] {
        for what in ["folder", "loop", "outside", "denied"] {
            let p = TestBucket::new().await;
            let (store, evidence) = faulty(&p, None);
            let (question, report) = (p.question("r"), p.report("r", Depth::Data));
            let name = format!("{}.{ending}", question.base());
            p.put(&name, b"{}");
            let path = p.folder.path().join(&name);
            let link = |to: &str| {
                std::fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(to, &path).unwrap();
            };
            match what {
                "folder" => {
                    std::fs::remove_file(&path).unwrap();
                    std::fs::create_dir(&path).unwrap();
                }
                "loop" => link(path.file_name().unwrap().to_str().unwrap()),
                "outside" => link("/etc/passwd"),
                _ => {
                    let denied = StoreFault::Error(StorageKind::AccessDenied);
                    store.fail(Call::Create, &name, denied, 99);
                    store.fail(Call::Read, &name, denied, 99);
                }
            }
            let own = evidence.write(&question, &report).await.unwrap();
            let is_first = own.document.uri == p.store.uri(&p.name_for("r"));
            assert_eq!(is_first, !is_moved, "{what}");
            let found = evidence.find(&question).await.unwrap();
            assert_eq!(found, Some(own), "{what}");
        }
    }
    // Where nothing may be created, that is said.
    let p = TestBucket::new().await;
    let (store, evidence) = faulty(&p, None);
    let denied = StoreFault::Error(StorageKind::AccessDenied);
    store.fail(Call::Create, "", denied, 99);
    let (question, report) = (p.question("r"), p.report("r", Depth::Data));
    let e = evidence.write(&question, &report).await.unwrap_err();
    assert_eq!(e.reason(), R::AccessDenied);
}

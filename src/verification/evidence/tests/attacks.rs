//! Tests of what others can do to evidence without the key: deny, hide, copy and flood.

use super::*;
use crate::error::StorageKind;
use crate::store::faulty::{Call, StoreFault};

/// Evidence in a bucket whose store fails as it is told to.
fn faulty(p: &TestBucket, signing: Option<&str>) -> (Arc<FaultyStore>, Evidence) {
    let store = Arc::new(FaultyStore::at(p.folder.path()));
    let keys = Arc::new(Keyring::new(signing, None).unwrap());
    let evidence = Evidence::new(store.clone(), store.clone(), keys, Arc::default());
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
    assert_eq!(found.await.unwrap().refused, 2);
    assert!(warned("a.dump.pgrestored/") && !warned(neighbour));
    let found = evidence.reports("", limit, Some).await.unwrap();
    assert_eq!(found.refused, 2);
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
    let documents = evidence.folders("").await.unwrap().remove(&folder).unwrap();
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
        let [name, _] = evidence.names(&p.question("r"));
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
    store.fail(Call::Read, "a.dump.pgrestored/", denied, 99);
    let e = evidence.find(&question).await.unwrap_err();
    assert_eq!(e.reason(), R::AccessDenied);
    let e = evidence.write(&question, &report).await.unwrap_err();
    assert_eq!((e.reason(), p.documents()), (R::AccessDenied, 1));
    let other = format!("b.dump.pgrestored/17/0123456789abcdef{ENVELOPE}");
    p.put(&other, b"{}");
    assert_eq!(evidence.find(&question).await.unwrap(), None);
    evidence.write(&question, &report).await.unwrap();
    assert_eq!(p.documents(), 2);
    // Both names are taken, perhaps by workers.
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
        // What `prune` relies on is complete.
        let e = evidence.folders("").await.unwrap_err();
        assert_eq!(e.reason(), R::AccessDenied);
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
        (found.reports.len(), found.refused, found.is_flooded),
        (2, 0, true)
    );
    store.fail(Call::List, "", too_long, 1);
    let known = evidence.beside(&p.object).await.unwrap();
    assert_eq!((known.reports.len(), known.incomplete), (2, None));
    let found = evidence.reports("", most(9), Some).await.unwrap();
    assert_eq!((found.refused, found.is_flooded), (1, false));
    // Without such names, any of them could count.
    let (store, evidence) = faulty(&p, None);
    store.fail(Call::List, "", too_long, 1);
    let e = evidence.reports("", most(9), Some).await.unwrap_err();
    assert_eq!(e.reason(), R::ArchiveUnsupported);
}

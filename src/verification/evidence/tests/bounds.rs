//! Tests of how much a search reads and keeps, and of what it may not see.

use super::*;

/// Reports take no more memory than there is for a search.
#[tokio::test]
async fn reports_that_do_not_fit_end_the_search() {
    let p = TestBucket::new().await;
    let evidence = p.reader(None, None);
    for (i, length) in [(0, 3), (1, 600_000), (2, 600_000), (3, 600_000), (4, 3)] {
        let id = format!("r{i}");
        let mut r = p.report(&id, Depth::Data);
        r.fix = Some("x".repeat(length));
        p.put_sealed(&p.name_for(&id), &r, None);
    }
    // Newest first: the one that does not fit ends the search.
    let found = evidence.reports("", most(100), Some).await.unwrap();
    assert_eq!((found.rejected, found.is_cut), (0, true));
    let bytes = found.reports.iter().map(|r| r.fix.as_ref().unwrap().len());
    assert!(bytes.sum::<usize>() < 1 << 20);
    // One is kept, however long it is.
    let least = SearchLimit {
        reports: 100,
        bytes: 1,
    };
    let found = evidence.reports("", least, Some).await.unwrap();
    assert_eq!((found.reports.len(), found.is_cut), (1, true));
    let found = evidence.reports(
        "",
        SearchLimit {
            bytes: 4 << 20,
            ..least
        },
        Some,
    );
    let found = found.await.unwrap();
    assert_eq!((found.reports.len(), found.is_cut), (5, false));
    // Of the one pattern, the two newest are enough to know that it has several.
    for (reports, is_limited) in [(1, true), (2, false)] {
        let limit = SearchLimit {
            reports,
            bytes: 4 << 20,
        };
        let found = evidence.reports_of_each("", limit, Some).await.unwrap();
        assert_eq!(found.reports.len(), reports);
        assert_eq!(found.is_limited, is_limited);
    }
    // What was left out may say that the backup is bad.
    let documents = async || {
        let folder = Evidence::folder(&p.object);
        evidence
            .folders("")
            .await
            .unwrap()
            .documents
            .remove(&folder)
            .unwrap()
    };
    let known = evidence.about(&p.object, documents().await).await;
    assert_eq!((known.reports.len(), known.incomplete), (5, None));
    for i in 5..7 {
        let id = format!("r{i}");
        let mut r = p.report(&id, Depth::Data);
        r.fix = Some("x".repeat(2_900_000));
        p.put_sealed(&p.name_for(&id), &r, None);
    }
    let known = evidence.about(&p.object, documents().await).await;
    assert!(
        (1..7).contains(&known.reports.len()),
        "{}",
        known.reports.len()
    );
    assert!(
        known
            .incomplete
            .is_some_and(|why| why.contains("were kept"))
    );
}

/// Evidence of many backups of another place, in the same location, hides nothing and makes nothing suspicious.
#[tokio::test]
async fn evidence_of_several_places_may_be_in_one_location() {
    let (p, q) = (TestBucket::new().await, TestBucket::new().await);
    let of = |backups: &Arc<dyn BackupStore>, own: &Arc<OwnEvidence>| {
        let keys = Arc::new(Keyring::new(None, None).unwrap());
        Evidence::new(p.store.clone(), backups.clone(), keys, own.clone(), FEW)
    };
    for i in 0..MAX_REJECTED + 10 {
        let (id, report) = (format!("r{i}"), p.report("x", Depth::Data));
        let mut r = VerificationReport {
            request_id: id.clone(),
            ..report
        };
        r.backup.uri = Some(q.store.uri("a.dump"));
        p.put_sealed(&p.name_for(&id), &r, None);
    }
    let own = Arc::new(OwnEvidence::default());
    let found = of(&p.store, &own).reports("", most(5), Some).await.unwrap();
    assert_eq!(
        (found.reports.len(), found.rejected, found.is_flooded),
        (0, 0, false)
    );
    // What was of no use for one place is for the other.
    let found = of(&q.store, &own).reports("", most(5), Some).await.unwrap();
    assert_eq!((found.reports.len(), found.rejected), (5, 0));
}

/// A folder of evidence that cannot be listed is not one without evidence. One of backups hides its evidence with them.
#[tokio::test]
async fn evidence_that_may_not_be_listed_is_not_complete() {
    let p = TestBucket::new().await;
    let elsewhere = tempfile::tempdir().unwrap();
    p.put_sealed(&p.name_for("r"), &p.report("r", Depth::Data), Some(PRIVATE));
    for (hidden, is_beside_backups, is_hidden) in [
        ("a.dump.pgrestored/", true, true),
        ("private/", true, false),
        ("private/", false, true),
    ] {
        let store = FaultyStore::at(p.folder.path());
        store.hide(hidden, p.object.created);
        let backups = if is_beside_backups {
            FaultyStore::at(p.folder.path())
        } else {
            FaultyStore::at(elsewhere.path())
        };
        let keys = Arc::new(Keyring::new(Some(PRIVATE), None).unwrap());
        let evidence = Evidence::new(
            Arc::new(store),
            Arc::new(backups),
            keys,
            Arc::default(),
            FEW,
        );
        let folder = Evidence::folder(&p.object);
        let mut found = evidence.folders("").await.unwrap();
        assert_eq!(!found.hidden().is_empty(), is_hidden, "{hidden}");
        let is_listed = found.documents.contains_key(&folder);
        assert_eq!(is_listed, hidden == "private/", "{hidden}");
        // Another backup is not concerned.
        let private = StoredObject {
            name: "private/x.dump".into(),
            ..p.object.clone()
        };
        for (object, place) in [(&p.object, "a.dump.pgrestored/"), (&private, "private/")] {
            let known = evidence.among(&mut found, object).await;
            let is_its = is_hidden && hidden == place;
            assert_eq!(known.incomplete.is_some(), is_its, "{hidden} {place}");
        }
        // The store itself refuses what is inside.
        let is_refused = evidence.folders(&folder).await.is_err();
        assert_eq!(is_refused, hidden != "private/", "{hidden}");
    }
}

//! Backups that hold only a part of a database: they restore, and replace no whole one.

use std::path::{Path, PathBuf};

use pgrestored::database::{Promotion, Provenance};
use pgrestored::error::FailureReason as R;
use pgrestored::event::Verdict;
use pgrestored::job::{BackupRef, OnExisting, RestoreJob};
use pgrestored::manager::JobOutcome;
use pgrestored::policy::{Depth, Selection};
use pgrestored::proof::{BackupContents, CheckStatus};

use crate::support::{Cluster, is_full_campaign, job, sample};
use crate::verify::{VerificationSetup, verify, verify_as};

/// Three dumps without the rows of a table, and one without the table: none takes the place of one that has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_rows_is_no_replacement_for_one_with_them() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create(
        "big",
        "CREATE TABLE orders (id int); INSERT INTO orders SELECT generate_series(1, 2000);
         CREATE TABLE log AS SELECT generate_series(1, 200) AS id; CREATE TABLE empty (a int)",
    );
    let dump = |args: &[&str]| std::fs::read(c.dump_to_file("big", args)).unwrap();
    let flags = [
        ("backup-retention-days", "7"),
        ("backup-retention-min", "1"),
        ("verify-bisect", "0"),
    ];
    let app = b.app_on(&c, &flags);
    for (name, days) in [("1.dump", 30), ("2.dump", 29)] {
        b.put(name, &dump(&[]));
        b.age(name, 24 * days);
        let r = verify(&app, name).await;
        let found = (r.verdict, r.contents);
        assert_eq!(
            found,
            (Verdict::Verified, Some(BackupContents::Whole)),
            "{r:?}"
        );
    }
    let schema = BackupContents::SchemaOnly;
    let partial = BackupContents::Partial;
    let parts = [
        (
            "3.dump",
            &["-s"][..],
            schema,
            "no rows: it was not compared",
        ),
        (
            "4.sql",
            &["-s", "-Fp", "-C"],
            schema,
            "no rows: it was not compared",
        ),
        (
            "5.dump",
            &["--exclude-table-data=orders"],
            partial,
            "public.orders: 0 rows, 2000",
        ),
        (
            "6.dump",
            &["-t", "log"],
            partial,
            "1 of 2 tables of the last proven backup are missing, and 2,000 of its 2,200 rows: public.orders",
        ),
    ];
    for (days, (name, args, contents, drift)) in (9..=12).rev().zip(parts) {
        b.put(name, &dump(args));
        b.age(name, 24 * days);
        let r = verify(&app, name).await;
        // Definitions alone are no bad backup, and none that replaces another.
        let (verdict, status) = if contents == schema {
            (Verdict::Verified, CheckStatus::Warned)
        } else {
            (Verdict::Failed, CheckStatus::Failed)
        };
        assert_eq!((r.verdict, r.contents), (verdict, Some(contents)), "{name}");
        let mut failed = r.checks.iter().filter(|c| c.status == status);
        assert!(
            failed.any(|c| c.message.contains(drift)),
            "{name}: {:#?}",
            r.checks
        );
    }
    // Where drift only warns, they are proven, and still no replacement.
    let checks = c.scratch("checks.yaml");
    std::fs::write(&checks, "drift: { mode: warn }\n").unwrap();
    let warning = [&flags[..], &[("verify-checks", checks.to_str().unwrap())]].concat();
    let app = b.app_on(&c, &warning);
    for (name, _, contents, _) in parts {
        // `make test` verifies one of the two with definitions alone.
        if name == "3.dump" && !is_full_campaign() {
            continue;
        }
        let r = verify(&app, name).await;
        assert_eq!(
            (r.verdict, r.contents),
            (Verdict::Verified, Some(contents)),
            "{name}"
        );
        let said = r
            .notes
            .iter()
            .any(|n| n.contains("replaces no whole backup"));
        assert!(
            said && r.verdict_sentence().contains("replaces no backup"),
            "{:?}",
            r.notes
        );
    }
    // Without a comparison of rows, too.
    let r = verify_as(&app, "shallow", "6.dump", Depth::Restore).await;
    assert_eq!(r.contents, Some(partial));
    let catalog = app.manager.catalog();
    let decisions = catalog.retention("default", true).await.unwrap();
    let deleted = decisions.iter().filter(|d| d.delete);
    let deleted: Vec<&str> = deleted.map(|d| d.object.name.as_str()).collect();
    assert_eq!(deleted, ["1.dump"], "{decisions:#?}");
    let standing = catalog.standing().await.unwrap();
    assert_eq!(standing[0].proven_backup.as_deref(), Some("2.dump"));
    for latest in ["latest", "latest-proven"] {
        let wanted = BackupRef::parse(latest, "")
            .unwrap()
            .of_database(Some("big"));
        let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
        let (name, said) = match latest {
            "latest" => (
                "6.dump",
                "6.dump lacks tables, or their data, which those before it had",
            ),
            _ => ("2.dump", "6.dump (partial)"),
        };
        assert_eq!(pinned.object.name, name, "{latest}");
        let notes = &pinned.notes;
        assert!(notes.iter().any(|n| n.contains(said)), "{notes:?}");
    }
}

/// A restore of the definitions alone over an existing database.
fn definitions(dump: &Path) -> RestoreJob {
    RestoreJob {
        selection: Selection {
            schema_only: true,
            ..Selection::default()
        },
        ..job(dump, "app", OnExisting::Replace)
    }
}

fn said(done: &JobOutcome) -> String {
    let error = done.result.error.as_ref();
    error.map_or_else(String::new, |e| e.message.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_alone_replace_no_rows_unless_they_are_meant() {
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10);
         CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p DEFAULT",
    );
    c.create("app", "CREATE TABLE precious AS SELECT 1 AS a");
    let (archive, text) = (
        c.dump_to_file("src", &["-s"]),
        c.dump_to_file("src", &["-s", "-Fp"]),
    );
    // Without a comment, only the restored database shows that there are no rows.
    let lines = std::fs::read_to_string(&text).unwrap();
    let lines: Vec<&str> = lines.lines().filter(|l| !l.starts_with("--")).collect();
    let stripped = c.scratch("stripped.sql");
    std::fs::write(&stripped, lines.join("\n")).unwrap();
    let without_rows: [&PathBuf; 3] = [&archive, &text, &stripped];
    for dump in without_rows {
        let done = c.try_restore(dump, "app", OnExisting::Replace).await;
        let what = format!("{}: {}", dump.display(), said(&done));
        assert_eq!(done.failure, Some(R::TargetNotAllowed), "{what}");
        assert!(what.contains("add --schema-only"), "{what}");
        assert_eq!(
            c.psql("app", "SELECT count(*) FROM precious"),
            "1",
            "{what}"
        );
        assert_eq!(c.leftovers(), Vec::<String>::new());
    }
    // What has rows is not left out unnoticed.
    let (whole, inserts) = (
        c.dump_to_file("src", &[]),
        c.dump_to_file("src", &["-Fp", "--inserts"]),
    );
    for (dump, reason, why) in [
        (&whole, R::TargetNotAllowed, "a part of a backup"),
        (&inserts, R::InvalidRequest, "table of contents"),
    ] {
        let done = c.restore_with(&definitions(dump), &[]).await;
        assert_eq!(done.failure, Some(reason), "{}", said(&done));
        assert!(said(&done).contains(why), "{}", said(&done));
    }
    // `make test` restores the archive and text whose lack of rows only the database shows.
    for dump in sample(without_rows, 2) {
        let done = c.restore_with(&definitions(dump), &[]).await;
        assert_eq!(done.result.error, None, "{}", dump.display());
        assert_eq!(done.result.contents, Some(BackupContents::SchemaOnly));
        assert!(done.result.partial);
    }
    // Where there are no rows, none are lost.
    let done = c.try_restore(&archive, "app", OnExisting::Replace).await;
    assert_eq!(done.result.error, None);
    let done = c.try_restore(&whole, "app", OnExisting::Replace).await;
    assert_eq!(
        (done.failure, done.result.contents),
        (None, Some(BackupContents::Whole))
    );
    // Nor by way of a copy.
    assert_eq!(
        c.try_restore(&archive, "copy", OnExisting::Fail)
            .await
            .failure,
        None
    );
    let promotion = |request_id, provenance| Promotion {
        request_id,
        copy: "copy",
        target_db: "app",
        on_existing: OnExisting::Replace,
        provenance,
    };
    let app = c.app(&[]);
    let e = app
        .manager
        .promote(&promotion("unseen", Provenance::Required))
        .await;
    let e = e.unwrap_err();
    assert_eq!(e.reason(), R::TargetNotAllowed);
    assert!(e.to_string().contains("--unproven"), "{e}");
    assert_eq!(c.psql("app", "SELECT count(*) FROM t"), "10");
    let meant = app
        .manager
        .promote(&promotion("meant", Provenance::Waived))
        .await;
    assert_eq!(meant.unwrap().promoted_database, "copy");
    assert_eq!(c.psql("app", "SELECT count(*) FROM t"), "0");
}

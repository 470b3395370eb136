//! Backups of several databases in one folder: each database is verified, chosen, scheduled and pruned by itself.

use std::process::Command;

use pgrestored::error::FailureReason as R;
use pgrestored::event::Verdict;
use pgrestored::job::{BackupRef, OnExisting, RestoreJob, VerifyJob};
use pgrestored::policy::Trigger;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, job};
use crate::verify::{SIGNED, VerificationSetup, verify};

const OURS: &str = env!("CARGO_BIN_EXE_pgrestored");

fn named(backup: &str, database: Option<&str>) -> BackupRef {
    BackupRef::parse(backup, "").unwrap().of_database(database)
}

/// A dump of a whole cluster is not deleted because one of its databases has newer backups.
#[tokio::test(flavor = "multi_thread")]
async fn a_proof_of_one_database_of_a_cluster_speaks_for_that_one_alone() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("app", "CREATE TABLE t AS SELECT generate_series(1, 1000) i");
    c.create("shop", "CREATE TABLE t AS SELECT generate_series(1, 10) i");
    let all = c.sandbox.run(&mut c.sandbox.command("pg_dumpall")).unwrap();
    let dump = std::fs::read(c.dump_to_file("app", &[])).unwrap();
    let text = std::fs::read(c.dump_to_file("app", &["-Fp", "-C"])).unwrap();
    for (name, bytes, days) in [
        ("all-2026-09-01.sql", &all, 40),
        ("1.sql", &text, 30),
        ("2.dump", &dump, 20),
    ] {
        b.put(name, bytes);
        b.age(name, 24 * days);
    }
    let app = b.app(&[
        SIGNED[0],
        ("backup-retention-days", "1"),
        ("backup-retention-min", "0"),
    ]);
    for (name, is_of_cluster) in [
        ("all-2026-09-01.sql", true),
        ("1.sql", false),
        ("2.dump", false),
    ] {
        let job = VerifyJob {
            database: Some("app".into()),
            ..VerifyJob::new(name, named(name, None), Trigger::Command)
        };
        let done = app
            .manager
            .verify_backup(&job, Default::default(), CancellationToken::new())
            .await;
        let r = done.proof.unwrap();
        assert_eq!(r.verdict, Verdict::Verified, "{name}: {:?}", r.error);
        assert_eq!(
            (r.database.as_deref(), r.one_of_several),
            (Some("app"), is_of_cluster),
            "{name}"
        );
        let is_said = r.notes.iter().any(|n| n.starts_with("only database app"));
        assert_eq!(is_said, is_of_cluster, "{name}: {:?}", r.notes);
    }
    let catalog = app.manager.catalog();
    let decisions = catalog.retention("default", false).await.unwrap();
    let of = |name: &str| decisions.iter().find(|d| d.object.name == name).unwrap();
    assert!(of("1.sql").delete, "{decisions:?}");
    let all = of("all-2026-09-01.sql");
    assert!(!all.delete && all.why.contains("whole cluster"), "{all:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_database_of_a_folder_is_looked_after_by_itself() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("app", "CREATE TABLE t AS SELECT generate_series(1, 1000) i");
    c.create("shop", "CREATE TABLE t AS SELECT generate_series(1, 10) i");
    for (name, database, days) in [
        ("1.dump", "app", 40),
        ("2.dump", "shop", 30),
        ("3.dump", "app", 20),
        ("4.dump", "shop", 10),
    ] {
        let dump = c.dump_to_file(database, &[]);
        b.put(name, &std::fs::read(dump).unwrap());
        b.age(name, 24 * days);
    }
    let settings = [
        SIGNED[0],
        ("verify-schedule", "24h"),
        ("backup-retention-min", "0"),
    ];
    let app = b.app_on(&c, &settings);
    let catalog = app.manager.catalog();
    let due = async || {
        let jobs = catalog.due(jiff::Timestamp::now()).await;
        let mut names: Vec<BackupRef> = jobs.into_iter().map(|j| j.backup).collect();
        names.sort_by_key(|n| format!("{n:?}"));
        names
    };
    assert_eq!(due().await, [named("3.dump", None), named("4.dump", None)]);
    assert_eq!(verify(&app, "3.dump").await.verdict, Verdict::Verified);
    assert_eq!(due().await, [named("4.dump", None)]);
    // A newer proof of one database makes no backup of the other outdated.
    for (backup, is_outdated) in [("1.dump", true), ("2.dump", false)] {
        let job = VerifyJob::new("n", named(backup, None), Trigger::Notification);
        assert_eq!(
            catalog.is_outdated(&job).await.unwrap(),
            is_outdated,
            "{backup}"
        );
    }
    // A hundredth of the rows, of another database.
    let r = verify(&app, "2.dump").await;
    assert_eq!(
        (r.verdict, r.drift),
        (Verdict::Verified, None),
        "{:?}",
        r.error
    );
    assert_eq!(verify(&app, "1.dump").await.verdict, Verdict::Verified);
    assert!(due().await.is_empty());
    let standing = catalog.standing().await.unwrap().remove(0);
    let mut labels: Vec<String> = standing.databases.iter().map(|d| d.label()).collect();
    labels.sort_unstable();
    assert_eq!(labels, ["app", "shop"]);
    let decisions = catalog.retention("default", false).await.unwrap();
    let deleted: Vec<&str> = decisions
        .iter()
        .filter(|d| d.delete)
        .map(|d| d.object.name.as_str())
        .collect();
    assert_eq!(deleted, ["1.dump"], "{decisions:?}");

    let chosen = async |backup: &str, database| {
        let pinned = catalog.pin(&named(backup, database), None, None).await;
        pinned
            .map(|p| p.unwrap().object.name)
            .map_err(|e| e.reason())
    };
    for (backup, database, wanted) in [
        ("latest", Some("app"), Ok("3.dump")),
        ("latest", Some("shop"), Ok("4.dump")),
        ("latest-proven", Some("shop"), Ok("2.dump")),
        ("latest-proven", Some("app"), Ok("3.dump")),
        ("latest", Some("other"), Err(R::BackupNotFound)),
        ("latest", None, Err(R::InvalidRequest)),
        ("latest-proven", None, Err(R::InvalidRequest)),
    ] {
        let is = chosen(backup, database).await;
        assert_eq!(
            is.as_deref().map_err(|e| *e),
            wanted,
            "{backup} {database:?}"
        );
    }

    let bucket = format!("file://{}", b.folder.path().display());
    let target = c.app(&[("backup-bucket", &bucket)]);
    let restore = RestoreJob {
        backup: named("latest", Some("shop")),
        database: Some("shop".into()),
        ..job(&b.folder.path().join("4.dump"), "copy", OnExisting::Fail)
    };
    let done = target
        .manager
        .run(&restore, Default::default(), CancellationToken::new())
        .await;
    assert_eq!(done.failure, None, "{:?}", done.result.error);
    assert_eq!(c.psql("copy", "SELECT count(*) FROM t"), "10");

    let ours = |args: &[&str]| {
        Command::new(OURS)
            .args(args)
            .args(["--backup-bucket", &bucket])
            .output()
            .unwrap()
    };
    let refused = ours(&["inspect", "latest"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("(app, shop)") && said.contains("--database"),
        "{said}"
    );
    let listed = ours(&["list", "--database", "app", "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["1.dump", "3.dump"]);
    // Without a key, its evidence counts, and the command says that it is not signed.
    let proven = ours(&[
        "inspect",
        "latest-proven",
        "--database",
        "shop",
        "--output",
        "json",
    ]);
    let said = String::from_utf8(proven.stderr).unwrap();
    assert!(said.contains("is not signed"), "{said}");
    let proven: serde_json::Value = serde_json::from_slice(&proven.stdout).unwrap();
    assert_eq!(proven["backup"]["name"], "2.dump");
}

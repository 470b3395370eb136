//! In-place restores: what a dump computes from the name of its database sees the target's name, nobody can connect
//! to a partly restored database, and none is mistaken for a complete one.

use std::sync::Arc;

use pgrestored::error::FailureReason as R;
use pgrestored::job::{BackupRef, Finishing, FinishingFile, OnExisting, RestoreJob, VerifyJob};
use pgrestored::policy::{InPlace, Trigger};
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::resume::{again, interrupted, run};
use crate::support::kills::{
    FROM_THE_FIRST, Interrupt, SOURCE, assert_begun_again, assert_continued, assert_settled,
    end_all, why_not,
};
use crate::support::{Cluster, assert_same, is_full_campaign, job, of_package, published_us};

/// Values computed from the database's name, in a view and in a check that calls a function.
const NAMED: &str = "CREATE FUNCTION here() RETURNS text LANGUAGE sql STABLE AS 'SELECT current_database()::text';
    CREATE TABLE t (id int PRIMARY KEY, db text DEFAULT current_database()); INSERT INTO t SELECT generate_series(1, 100);
    CREATE MATERIALIZED VIEW m AS SELECT current_database()::text AS db, public.here() AS again";

const OPEN: &str = "SELECT array(SELECT unnest(coalesce(datacl, acldefault('d', datdba)))::text ORDER BY 1) = array(SELECT unnest(acldefault('d', datdba))::text ORDER BY 1),
    shobj_description(oid, 'pg_database') IS NULL, datconnlimit FROM pg_database WHERE datname = ";

fn rows_of_ours(c: &Cluster) -> String {
    c.psql(
        "postgres",
        "SELECT count(*) FROM pgrestored.owned_database WHERE kind <> 'previous'",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn references_to_the_database_name_see_the_targets_name() {
    let c = Cluster::start();
    // First: it lists databases, of which some would be ours.
    what_reads_its_databases_name_from_the_catalogs_sees_the_targets_name(&c).await;
    c.create("src", NAMED);
    let plain = ["--no-owner", "--no-privileges"];
    let source = c.content("src", &plain);
    for (i, (format, trust)) in [
        (DumpFormat::Custom, "full"),
        (DumpFormat::Plain, "full"),
        (DumpFormat::Directory, "restricted"),
        (DumpFormat::Plain, "restricted"),
    ]
    .into_iter()
    .enumerate()
    {
        let (dump, target) = (c.dump_as("src", format), format!("app{i}"));
        let done = c
            .restore_with(
                &job(&dump, &target, OnExisting::Fail),
                &[("backup-trust", trust)],
            )
            .await;
        assert_eq!(done.result.error, None, "{format:?} {trust}");
        assert_eq!(
            c.psql(&target, "TABLE m"),
            format!("{target}|{target}"),
            "{format:?} {trust}"
        );
        let said = done
            .result
            .notes
            .iter()
            .any(|n| n.contains("in place") && n.contains("MATERIALIZED VIEW"));
        assert!(said, "{:?}", done.result.notes);
        assert_eq!(
            c.psql("postgres", &format!("{OPEN}'{target}'")),
            "t|t|-1",
            "{format:?} {trust}"
        );
        assert_eq!((c.leftovers(), rows_of_ours(&c).as_str()), (vec![], "0"));
        assert_same(&c.content(&target, &plain), &source, "in place");
    }
    // If the database exists, or in-place is disabled, the note says which name was seen.
    let dump = c.dump_as("src", DumpFormat::Custom);
    let replaced = c.try_restore(&dump, "app0", OnExisting::Replace).await;
    assert_eq!(replaced.result.error, None);
    let seen = c.psql("app0", "SELECT db FROM m");
    assert!(seen.starts_with("pgrestored_s_"));
    let said = |notes: &[String]| {
        notes
            .iter()
            .any(|n| n.contains("saw pgrestored_s_") && n.contains("MATERIALIZED VIEW"))
    };
    assert!(said(&replaced.result.notes), "{:?}", replaced.result.notes);
    let never = RestoreJob {
        in_place: Some(InPlace::Never),
        ..job(&dump, "other", OnExisting::Fail)
    };
    let never = c.restore_with(&never, &[]).await;
    assert!(
        never.failure.is_none() && said(&never.result.notes),
        "{:?}",
        never.result.notes
    );
}

/// A table that accepts no rows in a database of another name, in a restore and in a verification.
#[tokio::test(flavor = "multi_thread")]
async fn rows_valid_only_under_their_database_name_are_restored_and_verified() {
    let c = Cluster::start();
    let own =
        "CREATE TABLE t (a int CHECK (current_database() = 'Only here')); INSERT INTO t VALUES (1)";
    c.create("Only here", own);
    let dump = c.dump_as("Only here", DumpFormat::Custom);
    let text = c.dump_as("Only here", DumpFormat::PlainCreate);
    let app = c.app(&[]);
    for backup in [&dump, &text] {
        let backup = BackupRef::parse(backup.to_str().unwrap(), "").unwrap();
        let proof = VerifyJob::new("proof", backup, Trigger::Command);
        let proven = app
            .manager
            .verify_backup(&proof, Arc::default(), CancellationToken::new())
            .await;
        let proof = proven.proof.unwrap();
        assert!(proof.is_verified(), "{:?} {:?}", proof.error, proof.checks);
    }
    let error = c
        .try_restore(&dump, "Only here", OnExisting::Replace)
        .await
        .result
        .error
        .unwrap();
    assert_eq!(error.reason, R::DataRejected, "{error:?}");
    c.psql("postgres", "DROP DATABASE \"Only here\"");
    c.restore(&text, "Only here").await;
    assert_eq!(c.psql("Only here", "TABLE t"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn partial_databases_are_closed_and_never_taken_for_complete() {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE visitor LOGIN");
    let (waiting, app) = (c.waiting_dump(), c.app(&[("restore-in-place", "always")]));
    let (stop, request) = (
        CancellationToken::new(),
        job(&waiting, "app", OnExisting::Fail),
    );
    let running = app.manager.run(&request, Arc::default(), stop.clone());
    let visit = format!("host={} user=visitor dbname=app", c.sandbox.host());
    let looked = async {
        let waits =
            "SELECT pid FROM pg_stat_activity WHERE datname = 'app' AND wait_event = 'PgSleep'";
        c.until(waits).await;
        let refused = tokio_postgres::connect(&visit, tokio_postgres::NoTls)
            .await
            .err()
            .unwrap();
        assert_eq!(refused.code().unwrap().code(), "42501", "{refused}");
        // In use, whatever another request or the reaper tries.
        let second = c.try_restore(&waiting, "app", OnExisting::Replace).await;
        assert_eq!(second.failure, Some(R::TargetBusy));
        let reaped = app
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap();
        assert!(
            reaped.kept.contains(&"app".to_owned()) && reaped.dropped.is_empty(),
            "{reaped:?}"
        );
        stop.cancel();
    };
    let (done, ()) = tokio::join!(running, looked);
    assert_eq!(done.failure, Some(R::Cancelled));
    assert!(!c.databases().contains(&"app".to_owned()));
    assert_eq!((c.leftovers(), rows_of_ours(&c).as_str()), (vec![], "0"));

    // What a killed attempt left is dropped by the next request for the target, whoever sends it.
    c.create("src", NAMED);
    let dump = c.dump_to_file("src", &[]);
    let leave = |label: &str| {
        c.psql("postgres", "CREATE DATABASE app");
        c.psql("postgres", &format!("COMMENT ON DATABASE app IS '{label}'"));
        c.psql(
            "postgres",
            "INSERT INTO pgrestored.owned_database (name, kind, request_id, target) VALUES ('app', 'staging', 'killed', 'app')",
        );
    };
    leave("pgrestored staging database for app, request killed");
    assert_eq!(c.restore(&dump, "app").await.error, None);
    assert_eq!(c.psql("app", "SELECT db FROM m"), "app");
    assert!(
        app.manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .dropped
            .is_empty()
    );
    c.psql("postgres", "DROP DATABASE app");
    // A database that somebody else created under the name is never taken over.
    leave("somebody else''s");
    let reaped = app
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    assert_eq!((reaped.dropped, reaped.failed), (vec![], vec![]));
    assert!(c.databases().contains(&"app".to_owned()));
    assert_eq!(
        c.try_restore(&dump, "app", OnExisting::Fail).await.failure,
        Some(R::TargetExists)
    );
    assert_eq!(rows_of_ours(&c), "0");
}

/// A role without CREATE on the maintenance database has no journal: a partial database is marked by its comment.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_partial_databases_are_known_by_their_comment() {
    let c = Cluster::start();
    c.create("src", NAMED);
    let dump = c.dump_to_file("src", &["--no-owner"]);
    c.psql(
        "postgres",
        "CREATE ROLE poor LOGIN CREATEDB; REVOKE CREATE ON DATABASE postgres FROM PUBLIC",
    );
    let (flags, label) = (
        [("db-user", "poor"), ("restore-owners", "none")],
        "pgrestored staging database for app, request killed",
    );
    let leave = |owner: &str| {
        c.psql("postgres", &format!("CREATE DATABASE app OWNER {owner}"));
        c.psql("postgres", &format!("COMMENT ON DATABASE app IS '{label}'"));
    };
    leave("poor");
    let reaped = c
        .app(&flags)
        .manager
        .reap(pgrestored::database::ReapScope::Worker)
        .await
        .unwrap();
    assert_eq!(reaped.dropped, ["database app"], "{reaped:?}");
    leave("poor");
    let done = c
        .restore_with(&job(&dump, "app", OnExisting::Fail), &flags)
        .await;
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("app", "SELECT db FROM m"), "app");
    assert_eq!(c.psql("postgres", &format!("{OPEN}'app'")), "t|t|-1");
    assert!(
        c.app(&flags)
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .dropped
            .is_empty()
    );
    c.psql("postgres", "DROP DATABASE app");
    leave("role_a");
    assert!(
        c.app(&flags)
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .dropped
            .is_empty()
    );
    let done = c
        .restore_with(&job(&dump, "app", OnExisting::Fail), &flags)
        .await;
    assert_eq!(done.failure, Some(R::TargetExists));
}

/// An extension whose worker runs in one database of the server, which its configuration names.
#[tokio::test(flavor = "multi_thread")]
async fn pg_cron_is_restored_into_its_configured_database() {
    let bindir = pgrestored::sandbox::find_bindir(&[]).unwrap();
    let major = bindir
        .parent()
        .and_then(|p| p.file_name()?.to_str())
        .unwrap();
    let control = format!("/usr/share/postgresql/{major}/extension/pg_cron.control");
    if of_package(&format!("postgresql-{major}-cron"), &control).is_none() {
        return;
    }
    let c =
        Cluster::start_with("-c shared_preload_libraries=pg_cron -c cron.database_name=cronsrc");
    c.create("cronsrc", "CREATE EXTENSION pg_cron; SELECT cron.schedule('j', '0 3 * * *', 'select 1'); CREATE TABLE t (a int)");
    let (dump, text) = (
        c.dump_as("cronsrc", DumpFormat::Custom),
        c.dump_as("cronsrc", DumpFormat::Plain),
    );
    let jobs = "SELECT jobid, schedule, command, database, jobname FROM cron.job";
    let source = c.psql("cronsrc", jobs);
    for (n, backup) in [&dump, &text].into_iter().enumerate() {
        // An existing database cannot be replaced in place.
        let done = c.try_restore(backup, "cronsrc", OnExisting::Replace).await;
        let error = done.result.error.unwrap();
        assert_eq!(
            (error.reason, error.stage.as_str()),
            (R::ExtensionMissing, "prepare"),
            "{error:?}"
        );
        assert!(
            error.message.contains("rename or drop cronsrc"),
            "{error:?}"
        );
        let error = c
            .try_restore(backup, "other", OnExisting::Fail)
            .await
            .result
            .error
            .unwrap();
        assert!(error.message.contains("cron.database_name"), "{error:?}");
        c.psql("postgres", "DROP DATABASE cronsrc WITH (FORCE)");
        // A rehearsal has another name, and does not foretell what that is refused.
        let mut rehearsed = job(backup, "cronsrc", OnExisting::Fail);
        rehearsed.is_rehearsal = true;
        let rehearsal = c.restore_with(&rehearsed, &[]).await.result.rehearsal;
        let rehearsal = rehearsal.unwrap();
        assert!(rehearsal.restorable, "{:?}", rehearsal.refusals);
        assert!(rehearsal.note.contains("pg_cron"), "{}", rehearsal.note);
        c.restore(backup, "cronsrc").await;
        assert_eq!(c.psql("cronsrc", jobs), source);
        // It is not the format that the name in a sandbox depends on.
        if n > 0 && !is_full_campaign() {
            continue;
        }
        // A sandbox also restores it under its own name.
        let backup = BackupRef::parse(backup.to_str().unwrap(), "").unwrap();
        let proof = VerifyJob::new("proof", backup, Trigger::Command);
        let proven = c
            .app(&[])
            .manager
            .verify_backup(&proof, Arc::default(), CancellationToken::new())
            .await;
        let proof = proven.proof.unwrap();
        assert!(proof.is_verified(), "{:?} {:?}", proof.error, proof.checks);
    }
    let backup = BackupRef::parse(dump.to_str().unwrap(), "").unwrap();
    let without = VerifyJob::new("without", backup, Trigger::Command);
    let not_allowed = c
        .app(&[("sandbox-preload-libraries", "none")])
        .manager
        .verify_backup(&without, Arc::default(), CancellationToken::new())
        .await;
    let error = not_allowed.proof.unwrap().error.unwrap();
    assert_eq!(error.reason, R::ExtensionMissing);
    let needed = "add pg_cron to shared_preload_libraries";
    assert!(error.message.contains(needed), "{error:?}");
    let leaves_out = [("restore-extensions", "skip-missing")];
    let done = c
        .restore_with(&job(&dump, "other", OnExisting::Fail), &leaves_out)
        .await;
    assert_eq!(done.result.error, None);
}

/// The catalogs contain the database's name, too.
async fn what_reads_its_databases_name_from_the_catalogs_sees_the_targets_name(c: &Cluster) {
    c.create(
        "catalogs",
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1);
        CREATE MATERIALIZED VIEW m1 AS SELECT table_catalog::text FROM information_schema.tables WHERE table_name = 't';
        CREATE MATERIALIZED VIEW m2 AS SELECT datname::text FROM pg_stat_activity WHERE pid = pg_backend_pid();
        CREATE MATERIALIZED VIEW m3 AS SELECT datname::text FROM pg_database JOIN pg_locks l ON l.database = pg_database.oid
            WHERE l.pid = pg_backend_pid() LIMIT 1;
        CREATE VIEW v AS SELECT datname::text FROM pg_stat_database WHERE datname LIKE '%1' OR datname LIKE 'pgrestored%';
        CREATE MATERIALIZED VIEW m4 AS SELECT datname FROM v",
    );
    for (i, format) in [DumpFormat::Custom, DumpFormat::Plain]
        .into_iter()
        .enumerate()
    {
        let (dump, target) = (c.dump_as("catalogs", format), format!("app{i}1"));
        let done = c.try_restore(&dump, &target, OnExisting::Fail).await;
        assert_eq!(done.result.error, None, "{format:?}");
        for view in ["m1", "m2", "m3"] {
            let seen = c.psql(&target, &format!("TABLE {view}"));
            assert_eq!(seen, target, "{format:?} {view}");
        }
        assert!(!c.psql(&target, "TABLE m4").contains("pgrestored"));
        let said = |n: &String| n.contains("in place") && n.contains("MATERIALIZED VIEW");
        assert!(
            done.result.notes.iter().any(said),
            "{:?}",
            done.result.notes
        );
    }
}

/// The newer request goes first, and work that it does not need the place of is kept.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_requests_decides_about_work_that_waits_in_place() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    let c = Arc::new(c);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let app = c.app(&[FROM_THE_FIRST]);
    let request = |later, in_place| RestoreJob {
        in_place: Some(in_place),
        published_us: published_us(later),
        ..job(&dump, "app", OnExisting::Fail)
    };
    let fails = |request| {
        let bad = FinishingFile::parse("bad.sql", b"SELECT 1 / 0").unwrap();
        RestoreJob {
            finish: Finishing {
                files: vec![Arc::new(bad)],
                ..Finishing::default()
            },
            ..request
        }
    };
    // An attempt that is stopped while it renames its database leaves nothing.
    let stop = CancellationToken::new();
    let stops = stop.clone();
    let renames = Interrupt::at(&c, ("in_place.renamed", 0), move |_| stops.cancel());
    let stopped = request(0, InPlace::Always);
    let done = app.manager.run(&stopped, Arc::default(), stop).await;
    assert!(renames.has_happened());
    drop(renames);
    assert_eq!(done.failure, Some(R::Cancelled), "{:?}", done.result.error);
    assert_eq!(c.leftovers(), Vec::<String>::new());
    let waiting = "SELECT name, database_oid > 0 FROM pgrestored.work";
    let second = request(2, InPlace::Always);
    interrupted(&app, &c, &second, 9, end_all).await;
    let first = request(1, InPlace::Always);
    assert_eq!(run(&app, &first).await.failure, Some(R::TargetBusy));
    // An attempt that waits has begun nothing: it says nothing of those before it, which may have killed their workers.
    let of_first = format!("WHERE request_id = '{}'", first.request_id);
    let crashed = format!("UPDATE pgrestored.request SET starts = 2 {of_first}");
    c.psql("postgres", &crashed);
    assert_eq!(run(&app, &first).await.failure, Some(R::TargetBusy));
    let crashes = format!("SELECT starts FROM pgrestored.request {of_first}");
    assert_eq!(c.psql("postgres", &crashes), "2");
    // One beside it that fails has not needed the name.
    let beside = run(&app, &fails(request(3, InPlace::Never))).await;
    assert_eq!(
        beside.failure,
        Some(R::RestoreError),
        "{:?}",
        beside.result.error
    );
    assert_eq!(c.psql("postgres", waiting), "app|t");
    let done = run(&app, &again(&second)).await.result;
    assert_continued(&done, "the newer one has failed beside it");
    c.psql("postgres", "DROP DATABASE app");

    let fourth = request(4, InPlace::Always);
    interrupted(&app, &c, &fourth, 9, end_all).await;
    let in_its_place = fails(request(5, InPlace::Always));
    let failed = run(&app, &in_its_place).await;
    assert_eq!(failed.failure, Some(R::RestoreError));
    let done = run(&app, &again(&fourth)).await.result;
    assert_begun_again(&done, "the newer one has failed in its place");
    let why = why_not(&done).unwrap();
    assert!(why.contains(&in_its_place.request_id), "{why}");
    assert_settled(&c, "app", "in its place");
    c.psql("postgres", "DROP DATABASE app");

    let sixth = request(6, InPlace::Always);
    interrupted(&app, &c, &sixth, 9, end_all).await;
    let newer = run(&app, &request(7, InPlace::Never)).await.result;
    assert_eq!(newer.error, None);
    let says_so = |n: &String| n.contains(&sixth.request_id) && n.contains("has lost");
    assert!(newer.notes.iter().any(says_so), "{:?}", newer.notes);
    let superseded = run(&app, &again(&sixth)).await;
    assert_eq!(superseded.failure, Some(R::TargetNotAllowed));
    let error = superseded.result.error.unwrap().message;
    assert!(error.contains("dropped for it"), "{error}");
    assert_settled(&c, "app", "superseded");
    assert_same(&c.content("app", &[]), &c.content("src", &[]), "superseded");
    c.psql("postgres", "DROP DATABASE app");

    // What cannot be continued any more when the name is needed is in nobody's way either.
    let eighth = request(8, InPlace::Always);
    interrupted(&app, &c, &eighth, 9, end_all).await;
    let ages = Interrupt::at(&c, ("checked", 0), |c| {
        let ago =
            "UPDATE pgrestored.work SET updated = now() - interval '25 hours' WHERE name = 'app'";
        c.psql("postgres", ago);
    });
    let newer = run(&app, &request(9, InPlace::Never)).await.result;
    assert!(ages.has_happened());
    drop(ages);
    assert_eq!(newer.error, None);
    assert_settled(&c, "app", "too old meanwhile");
    c.psql("postgres", "DROP DATABASE app");

    // A person may never come back.
    let by_hand = request(11, InPlace::Always);
    interrupted(&app, &c, &by_hand, 9, end_all).await;
    let kept = "UPDATE pgrestored.work SET by_command = true";
    c.psql("postgres", kept);
    let older = run(&app, &request(10, InPlace::Never)).await.result;
    assert_eq!(older.error, None);
    let says_so = |n: &String| n.contains(&by_hand.request_id) && n.contains("has lost");
    assert!(older.notes.iter().any(says_so), "{:?}", older.notes);
}

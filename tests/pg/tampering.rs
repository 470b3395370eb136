//! What another session changes between two attempts: a record or rows that were touched never reach the target.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrestored::app::App;
use pgrestored::error::FailureReason as R;
use pgrestored::job::{Finishing, FinishingFile, OnExisting, RestoreJob};

use crate::resume::{NOTED, again, run};
use crate::support::kills::{
    FROM_THE_FIRST, Interrupt, assert_begun_again, assert_continued, assert_settled, end_all,
    end_loaders, reopened, why_not,
};
use crate::support::{Cluster, assert_same, is_full_campaign, job, quick};

const SOURCE: &str = "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, md5(i::text) FROM generate_series(1, 50) i;
    CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT i, md5(i::text) FROM generate_series(1, 60) i;
    CREATE TABLE c (id int); INSERT INTO c SELECT generate_series(1, 70);
    CREATE INDEX ON a (v); CREATE INDEX ON b (v); CREATE INDEX ON c (id); GRANT SELECT ON a TO PUBLIC";

/// An attempt that loses the server once the rows of all tables are recorded, which is not before so many records. Returns
/// how many there were.
async fn stopped(
    app: &App,
    c: &Arc<Cluster>,
    request: &RestoreJob,
    (end, not_before): (fn(&Cluster), u32),
) -> u32 {
    let (reached, first) = (AtomicU32::new(0), Arc::new(AtomicU32::new(u32::MAX)));
    let at = first.clone();
    let has_rows = move |c: &Cluster| {
        let n = reached.fetch_add(1, Ordering::SeqCst);
        if n < not_before {
            return false;
        }
        let recorded = "SELECT count(*) FROM pgrestored_work.done WHERE body LIKE '%\"r\":%'";
        let staging = c.leftovers();
        let has_rows = staging.first().is_some_and(|s| c.psql(s, recorded) == "3");
        if has_rows {
            at.fetch_min(n, Ordering::SeqCst);
        }
        has_rows
    };
    let interrupt = Interrupt::when(c, NOTED, has_rows, end);
    let done = run(app, request).await;
    assert!(interrupt.has_happened());
    assert_eq!(done.failure, Some(R::TargetUnavailable));
    first.load(Ordering::SeqCst)
}

/// The rows and how many indexes there are; in a full campaign, everything.
fn content(c: &Cluster, database: &str) -> String {
    if is_full_campaign() {
        return c.content(database, &[]);
    }
    let rows = ["a", "b", "c"].map(|t| {
        format!("(SELECT string_agg(t::text, ' ' ORDER BY t::text COLLATE \"C\") FROM {t} t)")
    });
    let rows = rows.join(", ");
    let indexes = "SELECT count(*) FROM pg_index WHERE indexrelid >= 16384";
    c.psql(database, &format!("SELECT ({indexes}), {rows}"))
}

/// What changes the staging database, and by which a restore notices. The rows of all tables are there by then.
const CHANGES: &[(&str, &str)] = &[
    (
        "a record was edited",
        "UPDATE pgrestored_work.done SET body = replace(body, '\"n\":50', '\"n\":51') WHERE body LIKE '%\"n\":50%'",
    ),
    (
        "a record was moved",
        "UPDATE pgrestored_work.done SET n = n + 1000 WHERE (attempt, lane, n) = (SELECT attempt, lane, n FROM pgrestored_work.done LIMIT 1)",
    ),
    (
        "a record was removed",
        "DELETE FROM pgrestored_work.done d WHERE EXISTS (SELECT FROM pgrestored_work.done l WHERE (l.attempt, l.lane) = (d.attempt, d.lane) AND l.n > d.n) AND d.n = (SELECT min(n) FROM pgrestored_work.done WHERE lane = d.lane)",
    ),
    (
        "a lane's last record of rows was removed",
        "DELETE FROM pgrestored_work.done d WHERE body LIKE '%\"r\":%' OR EXISTS (SELECT FROM pgrestored_work.done r WHERE r.body LIKE '%\"r\":%' AND (r.attempt, r.lane) = (d.attempt, d.lane) AND d.n > r.n)",
    ),
    (
        "a record was added",
        "INSERT INTO pgrestored_work.done (attempt, lane, n, body, mac, ours) SELECT attempt, lane, max(n) + 1, '{\"e\":[[1,0]]}', '\\x00', true FROM pgrestored_work.done GROUP BY attempt, lane LIMIT 1",
    ),
    (
        "a transaction's id was edited",
        "UPDATE pgrestored_work.done SET xid = xid + 1 WHERE body LIKE '%\"r\":%'",
    ),
    (
        "rows were replaced, and their transaction's id edited",
        "BEGIN; UPDATE pgrestored_work.done SET xid = txid_current() WHERE xid = (SELECT min(xmin::text::bigint) FROM b);
         UPDATE b SET v = 'theirs'; COMMIT",
    ),
    (
        "the head was edited",
        "UPDATE pgrestored_work.head SET pins = pins || ' '",
    ),
    ("a row was deleted", "DELETE FROM a WHERE id = 7"),
    ("a row was added", "INSERT INTO c VALUES (1)"),
    (
        "a row was updated",
        "UPDATE b SET v = 'theirs' WHERE id = 7",
    ),
    ("a table was emptied", "TRUNCATE c"),
    ("a table was dropped", "DROP TABLE c"),
    (
        "the record was dropped",
        "DROP SCHEMA pgrestored_work CASCADE",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_others_changed_never_reaches_the_target() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    let c = Arc::new(c);
    let dump = c.dump_to_file("src", &[]);
    let wanted = content(&c, "src");
    // One session, so that the same work is done each time.
    let app = c.app(&[&[FROM_THE_FIRST, ("restore-jobs", "1")][..], quick()].concat());
    // Nothing is changed: the control. The orderly end of an attempt closes the database, until somebody opens it.
    let nothing = ("nothing was changed", "SELECT 1");
    let mut not_before = 0;
    for (what, change) in [nothing].iter().chain(CHANGES) {
        let request = job(&dump, "app", OnExisting::Fail);
        let is_control = *what == nothing.0;
        let end = if is_control { end_loaders } else { end_all };
        // To ask the server at each record takes longer than to make one.
        let there = stopped(&app, &c, &request, (end, not_before)).await;
        not_before = there.saturating_sub(2);
        let staging = reopened(&c);
        let before = c.psql(
            &staging,
            "SELECT sum(hashtext(d::text)::int8) FROM pgrestored_work.done d",
        );
        c.psql(&staging, change);
        if what.contains("record") && !what.contains("dropped") {
            let after = c.psql(
                &staging,
                "SELECT sum(hashtext(d::text)::int8) FROM pgrestored_work.done d",
            );
            assert_ne!(before, after, "{what}: nothing was changed");
        }
        let done = run(&app, &again(&request)).await.result;
        if is_control {
            assert_continued(&done, what);
        } else {
            assert_begun_again(&done, what);
        }
        assert_same(&content(&c, "app"), &wanted, what);
        assert_settled(&c, "app", what);
        c.psql("postgres", "DROP DATABASE app");
    }
    for (what, change, has_sql) in SEALED {
        sealed(&app, &c, &dump, (what, change, *has_sql)).await;
        assert_same(&content(&c, "app"), &wanted, what);
        c.psql("postgres", "DROP DATABASE app");
    }
    // A record that is still in memory when SQL follows that would find it. The swap may have to wait for long.
    let in_memory = [
        ("restore-resume-from", "1h"),
        ("restore-swap-when-idle", "10s"),
    ];
    let short = c.app(&[&in_memory[..], quick()].concat());
    sealed(&short, &c, &dump, (UNCHANGED, "SELECT 1", true)).await;
    assert_same(&content(&c, "app"), &wanted, UNCHANGED);
    c.psql("postgres", "DROP DATABASE app");
    cut_off(&app, &c, &dump).await;
    assert_same(&content(&c, "app"), &wanted, "the end was cut off");
    c.psql("postgres", "DROP DATABASE app");
    meanwhile_there_are_rows(&app, &c).await;
    let count = CHANGES.len() + SEALED.len();
    eprintln!("CAMPAIGN tampering: {count} changes, all noticed, 0 in a target");
}

/// What changes a database that lacks only its swap, and whether SQL has finished it that ran without a record and has itself
/// replaced a row.
const SEALED: &[(&str, &str, bool)] = &[
    (UNCHANGED, "SELECT 1", false),
    (UNCHANGED, "SELECT 1", true),
    ("a row was deleted", "DELETE FROM a WHERE id = 7", false),
    (
        "a row was updated",
        "UPDATE b SET v = 'theirs' WHERE id = 7",
        false,
    ),
    ("a row was added", "INSERT INTO c VALUES (1)", true),
];

const UNCHANGED: &str = "nothing was changed, and only the swap was missing";

async fn sealed(
    app: &App,
    c: &Arc<Cluster>,
    dump: &std::path::Path,
    (what, change, has_sql): (&str, &str, bool),
) {
    let mut request = job(dump, "app", OnExisting::Fail);
    if has_sql {
        // The record is dropped before it, because it names the catalog.
        let sql = "UPDATE c SET id = id WHERE id = 3 AND EXISTS (SELECT FROM pg_tables)";
        let file = FinishingFile::parse("same.sql", sql.as_bytes()).unwrap();
        request.finish = Finishing {
            files: vec![Arc::new(file)],
            ..Finishing::default()
        };
    }
    let interrupt = Interrupt::at(c, ("work.sealed", 0), end_all);
    let first = run(app, &request).await;
    assert!(interrupt.has_happened(), "{what}");
    drop(interrupt);
    assert_eq!(first.failure, Some(R::TargetUnavailable), "{what}");
    c.psql(&reopened(c), change);
    let done = run(app, &again(&request)).await.result;
    if what == UNCHANGED {
        assert_continued(&done, what);
    } else {
        assert_begun_again(&done, what);
        let why = why_not(&done).unwrap();
        assert!(why.contains("changed by somebody else"), "{what}: {why}");
    }
    assert_settled(c, "app", what);
}

/// A backup without rows waits for its swap, and meanwhile there is a database with rows in the target's place.
async fn meanwhile_there_are_rows(app: &App, c: &Arc<Cluster>) {
    let empty = c.dump_to_file("src", &["-Fp", "--schema-only"]);
    let request = job(&empty, "app", OnExisting::Replace);
    let interrupt = Interrupt::at(c, ("work.sealed", 0), end_all);
    let first = run(app, &request).await;
    assert!(interrupt.has_happened());
    drop(interrupt);
    assert_eq!(first.failure, Some(R::TargetUnavailable));
    c.psql("postgres", "CREATE DATABASE app TEMPLATE src");
    let refused = run(app, &again(&request)).await;
    let error = &refused.result.error;
    assert_eq!(refused.failure, Some(R::TargetNotAllowed), "{error:?}");
    assert_eq!(c.psql("app", "SELECT count(*) FROM b"), "60");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// The record ends with the rows, and the keys that were made of them exist: no code and no number says that more is missing.
async fn cut_off(app: &App, c: &Arc<Cluster>, dump: &std::path::Path) {
    let request = job(dump, "app", OnExisting::Fail);
    let has_key = |c: &Cluster| {
        let key = "SELECT count(*) FROM pg_class WHERE relname = 'a_pkey'";
        let staging = c.leftovers();
        staging.first().is_some_and(|s| c.psql(s, key) == "1")
    };
    let interrupt = Interrupt::when(c, NOTED, has_key, end_all);
    let first = run(app, &request).await;
    assert!(interrupt.has_happened());
    drop(interrupt);
    assert_eq!(first.failure, Some(R::TargetUnavailable));
    let cut =
        "DELETE FROM pgrestored_work.done d WHERE NOT EXISTS (SELECT FROM pgrestored_work.done r
        WHERE (r.attempt, r.lane) = (d.attempt, d.lane) AND r.n >= d.n AND r.body LIKE '%\"r\":%')";
    c.psql(&reopened(c), cut);
    let done = run(app, &again(&request)).await.result;
    assert_begun_again(&done, "the end was cut off");
    let why = why_not(&done).unwrap();
    assert!(
        why.contains("does not match what is in the database"),
        "{why}"
    );
    assert_settled(c, "app", "the end was cut off");
}

//! The connection to the server is cut at every byte of a COPY and of a swap: with `CAMPAIGN=full` at each, else at
//! some.

use std::sync::Arc;

use pgrestored::app::App;
use pgrestored::error::FailureReason as R;
use pgrestored::job::{OnExisting, RestoreJob};
use pgrestored::policy::InPlace;
use tokio_util::sync::CancellationToken;

use crate::resume::again;
use crate::support::kills::{
    FROM_THE_FIRST, assert_continued, assert_settled, records, reopened, why_not,
};
use crate::support::proxy::CutProxy;
use crate::support::{Cluster, is_full_campaign, job, published_us};

fn rows(name: &str, count: u32) -> String {
    format!(
        "CREATE TABLE {name} (v text); INSERT INTO {name} SELECT md5(i::text) FROM generate_series(1, {count}) i"
    )
}

async fn run(app: &App, job: &RestoreJob) -> pgrestored::manager::JobOutcome {
    app.manager
        .run(job, Arc::default(), CancellationToken::new())
        .await
}

/// Which bytes: `all` of them, evenly spread, in a full campaign, else `some`, depending on the seed.
fn places(total: u64, all: u64, some: u64) -> Vec<u64> {
    let step = (total / if is_full_campaign() { all } else { some }).max(1);
    let seed = u64::from(std::process::id());
    eprintln!("CAMPAIGN cuts: {total} bytes, every {step}, seed {seed}");
    (seed % step..total)
        .step_by(usize::try_from(step).unwrap())
        .collect()
}

/// The same for a swap, of which few bytes come after the commit: one of these is always there.
fn places_of_swap(total: u64) -> Vec<u64> {
    let mut places = places(total, 900, 4);
    let last = total - total / 16;
    if places.iter().all(|at| *at < last) {
        places.push(last);
    }
    places
}

fn through(c: &Cluster, proxy: &CutProxy, copy_format: &str) -> App {
    through_with(c, proxy, &[("restore-copy-format", copy_format)])
}

fn through_with(c: &Cluster, proxy: &CutProxy, more: &[(&str, &str)]) -> App {
    let port = proxy.port.to_string();
    let flags = [
        ("db-host", "127.0.0.1"),
        ("db-port", port.as_str()),
        ("restore-jobs", "1"),
        ("restore-keep-previous", "0"),
        ("restore-no-analyze", "true"),
    ];
    c.app(&[&flags[..], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_cut_at_any_byte_leaves_no_partial_table() {
    cut_a_copy("text").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_copy_cut_at_any_byte_leaves_no_partial_table() {
    cut_a_copy("binary").await;
}

async fn cut_a_copy(format: &str) {
    let c = Cluster::start_with("-c fsync=off");
    c.create("src", &rows("t", 65));
    let dump = c.dump_to_file("src", &[]);
    let proxy = CutProxy::start(c.sandbox.host(), b"COPY public.t").await;
    let app = through(&c, &proxy, format);
    assert_eq!(
        run(&app, &job(&dump, "whole", OnExisting::Fail))
            .await
            .failure,
        None
    );
    let total = proxy.counted();
    assert!(total > 2_000, "{total}");
    let (mut failed, mut done) = (0, 0);
    for at in places(total, total, 4) {
        proxy.arm(at);
        let finished = run(&app, &job(&dump, "app", OnExisting::Fail)).await;
        assert!(proxy.was_cut(), "{at}");
        match finished.failure {
            None => {
                // The cut came after the session's last byte.
                assert_eq!(c.psql("app", "SELECT count(*) FROM t"), "65", "{at}");
                c.psql("postgres", "DROP DATABASE app");
                done += 1;
            }
            Some(reason) => {
                assert_eq!(
                    reason,
                    R::TargetUnavailable,
                    "{at}: {:?}",
                    finished.result.error
                );
                assert!(
                    !c.databases().contains(&"app".to_owned()),
                    "{at}: the table is partly loaded"
                );
                failed += 1;
            }
        }
        assert_eq!(c.leftovers(), Vec::<String>::new(), "{at}");
    }
    proxy.disarm();
    assert_eq!(
        run(&app, &job(&dump, "app", OnExisting::Fail))
            .await
            .failure,
        None
    );
    eprintln!(
        "CAMPAIGN copy cuts, {format}: {failed} failed and clean, {done} complete, 0 partial"
    );
    assert!(failed > 0);
}

/// The next attempt goes on with what was committed, whether or not the first one has learned that: no row is lost or
/// loaded twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_copy_cut_at_any_byte_goes_on() {
    let c = Cluster::start_with("-c fsync=off");
    c.create("src", &rows("t", 65));
    let dump = c.dump_to_file("src", &[]);
    let proxy = CutProxy::start(c.sandbox.host(), b"COPY public.t").await;
    let (mut with_rows, mut without, mut done) = (0, 0, 0);
    for format in ["text", "binary"] {
        let copy_format = ("restore-copy-format", format);
        let app = through_with(&c, &proxy, &[FROM_THE_FIRST, copy_format]);
        proxy.disarm();
        let whole = job(&dump, &format!("whole_{format}"), OnExisting::Fail);
        assert_eq!(run(&app, &whole).await.failure, None);
        let total = proxy.counted();
        for at in places(total, total, 3) {
            let what = format!("{format} cut at {at} of {total}");
            let request = job(&dump, "app", OnExisting::Fail);
            proxy.arm(at);
            let first = run(&app, &request).await;
            assert!(proxy.was_cut(), "{what}");
            proxy.disarm();
            if let Some(reason) = first.failure {
                assert_eq!(reason, R::TargetUnavailable, "{what}");
                let staging = reopened(&c);
                assert!(records(&c, &staging) > 0, "{what}");
                let committed = c.psql(&staging, "SELECT count(*) FROM t");
                let last = run(&app, &again(&request)).await.result;
                assert_continued(&last, &what);
                let kept = last.resumed_from.map_or(0, |from| from.rows);
                assert_eq!(kept.to_string(), committed, "{what}");
                with_rows += u32::from(kept == 65);
                without += u32::from(kept == 0);
            } else {
                done += 1;
            }
            let all = "SELECT count(*), count(DISTINCT v) FROM t";
            assert_eq!(c.psql("app", all), "65|65", "{what}");
            assert_settled(&c, "app", &what);
            c.psql("postgres", "DROP DATABASE app");
        }
    }
    eprintln!(
        "CAMPAIGN recorded copy cuts: {with_rows} went on with the rows, {without} without, {done} complete; 0 lost, 0 twice"
    );
    assert!(without > 0);
    // The commit itself has happened, and nobody was told.
    let app = through_with(&c, &proxy, &[FROM_THE_FIRST]);
    let request = job(&dump, "app", OnExisting::Fail);
    proxy.arm_loss(b"COMMIT\0");
    let first = run(&app, &request).await;
    assert!(proxy.was_cut());
    assert_eq!(first.failure, Some(R::TargetUnavailable));
    let last = run(&app, &again(&request)).await.result;
    assert_eq!((last.error.as_ref(), why_not(&last)), (None, None));
    assert_eq!(last.resumed_from.map(|from| from.rows), Some(65));
    let all = "SELECT count(*), count(DISTINCT v) FROM t";
    assert_eq!(c.psql("app", all), "65|65");
    assert_settled(&c, "app", "a lost answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_cut_at_any_byte_is_atomic() {
    let c = Cluster::start_with("-c fsync=off");
    c.create("a", &rows("t1", 3));
    c.create("b", &rows("t2", 3));
    let dumps = [c.dump_to_file("a", &[]), c.dump_to_file("b", &[])];
    let proxy = CutProxy::start(c.sandbox.host(), b"SET LOCAL lock_timeout").await;
    let app = through(&c, &proxy, "text");
    let table = || {
        c.psql(
            "app",
            "SELECT string_agg(tablename, ',') FROM pg_tables WHERE schemaname = 'public'",
        )
    };
    let request = |i: usize, n: i64| RestoreJob {
        published_us: published_us(n),
        ..job(&dumps[i], "app", OnExisting::Replace)
    };
    let mut n = 0;
    let mut next = |i: usize| {
        n += 1;
        request(i, n)
    };
    assert_eq!(run(&app, &next(0)).await.failure, None);
    proxy.disarm();
    assert_eq!(run(&app, &next(1)).await.failure, None);
    let total = proxy.counted();
    assert!(total > 700, "{total}");
    let (mut there, mut done, mut undone, mut settled) = (1, 0, 0, 0);
    for at in places_of_swap(total) {
        let new = 1 - there;
        let job = next(new);
        proxy.arm(at);
        let finished = run(&app, &job).await;
        assert!(proxy.was_cut(), "{at}");
        let now = table();
        match finished.failure {
            None => {
                assert_eq!(now, format!("t{}", new + 1), "{at}: reported as done");
                (there, done) = (new, done + 1);
            }
            Some(reason) => {
                assert_eq!(
                    reason,
                    R::TargetUnavailable,
                    "{at}: {:?}",
                    finished.result.error
                );
                assert_eq!(now, format!("t{}", there + 1), "{at}: reported as not done");
                undone += 1;
                // The redelivery completes it.
                let again = run(&app, &job).await;
                assert_eq!(again.failure, None, "{at}: {:?}", again.result.error);
                settled += usize::from(again.repeated);
                there = new;
                assert_eq!(table(), format!("t{}", new + 1), "{at}");
            }
        }
        assert_eq!(c.leftovers(), Vec::<String>::new(), "{at}");
    }
    eprintln!(
        "CAMPAIGN swap cuts: {done} done, {undone} not done and repeated ({settled} found done), 0 inconsistent"
    );
    assert!(done > 0 && undone > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_in_place_restore_cut_at_any_byte_is_atomic() {
    let c = Cluster::start_with("-c fsync=off");
    c.create("a", &rows("t1", 3));
    let dump = c.dump_to_file("a", &[]);
    let proxy = CutProxy::start(c.sandbox.host(), b"SET LOCAL lock_timeout").await;
    let app = through(&c, &proxy, "text");
    let request = || RestoreJob {
        in_place: Some(InPlace::Always),
        ..job(&dump, "app", OnExisting::Fail)
    };
    let is_open = "SELECT has_database_privilege('role_a', 'app', 'CONNECT')
        AND shobj_description(oid, 'pg_database') IS NULL FROM pg_database WHERE datname = 'app'";
    assert_eq!(run(&app, &request()).await.failure, None);
    let total = proxy.counted();
    assert!(total > 700, "{total}");
    let (mut done, mut undone, mut settled) = (0, 0, 0);
    for at in places_of_swap(total) {
        c.psql("postgres", "DROP DATABASE app");
        let job = request();
        proxy.arm(at);
        let finished = run(&app, &job).await;
        assert!(proxy.was_cut(), "{at}");
        match finished.failure {
            None => done += 1,
            Some(reason) => {
                assert_eq!(
                    reason,
                    R::TargetUnavailable,
                    "{at}: {:?}",
                    finished.result.error
                );
                // What the next attempt goes on with is closed.
                assert_ne!(
                    c.psql("postgres", is_open),
                    "t",
                    "{at}: reported as not done"
                );
                undone += 1;
                let again = run(&app, &job).await;
                assert_eq!(again.failure, None, "{at}: {:?}", again.result.error);
                settled += usize::from(again.repeated);
            }
        }
        assert_eq!(c.psql("app", "SELECT count(*) FROM t1"), "3", "{at}");
        assert_eq!(c.psql("postgres", is_open), "t", "{at}");
        assert_eq!(c.leftovers(), Vec::<String>::new(), "{at}");
    }
    eprintln!(
        "CAMPAIGN in-place cuts: {done} done, {undone} not done and repeated ({settled} found done), 0 partial"
    );
    assert!(done > 0 && undone > 0 && settled == 0);
}

//! The server fails over to a streaming standby while a restore loads: what the standby does not have is loaded again.

use std::sync::Arc;

use parking_lot::Mutex;
use pgrestored::error::FailureReason as R;
use pgrestored::job::OnExisting;

use crate::resume::{NOTED, again, run};
use crate::support::kills::{FROM_THE_FIRST, SOURCE, why_not};
use crate::support::proxy::CutProxy;
use crate::support::standby::{PRIMARY, Standby};
use crate::support::{Cluster, assert_same, is_full_campaign, job, pause};

/// One failover.
#[derive(Debug, Clone, Copy)]
struct Failover {
    is_sync: bool,
    /// After this many recorded transactions the standby receives nothing more; `None` for never.
    paused_after: Option<u32>,
    /// After this many the primary dies.
    failed_after: u32,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_standby_has_lost_is_loaded_again() {
    let one = Failover {
        is_sync: false,
        paused_after: Some(4),
        failed_after: 8,
    };
    let mut all = vec![one];
    if is_full_campaign() {
        fastrand::seed(u64::from(std::process::id()));
        all = (0..40).map(any).collect();
    }
    let mut lost = 0;
    for failover in &all {
        lost += fail_over(*failover).await;
    }
    let count = all.len();
    let in_sync = all.iter().filter(|f| f.is_sync).count();
    eprintln!(
        "CAMPAIGN failovers: {count}, of which {in_sync} synchronous, {lost} recorded transactions lost and done again; all equal"
    );
    assert!(lost > 0);
}

/// Half of them synchronous; of the others, most lose their last transactions.
fn any(i: u32) -> Failover {
    let failed_after = fastrand::u32(3..10);
    let is_sync = i.is_multiple_of(2);
    let loses = !is_sync && fastrand::u8(..4) > 0;
    Failover {
        is_sync,
        paused_after: loses.then(|| fastrand::u32(2..failed_after)),
        failed_after,
    }
}

/// Returns how many recorded transactions were lost.
async fn fail_over(failover: Failover) -> u32 {
    let what = format!("{failover:?}");
    let c = Cluster::start_with(PRIMARY);
    c.create("src", SOURCE);
    let c = Arc::new(c);
    let dump = c.dump_to_file("src", &[]);
    let wanted = c.content("src", &[]);
    let standby = Arc::new(Standby::of(&c, failover.is_sync));
    let proxy = Arc::new(CutProxy::start(c.sandbox.host(), b"no message has this").await);
    let app = c.app(&[
        FROM_THE_FIRST,
        ("db-host", "127.0.0.1"),
        ("db-port", &proxy.port.to_string()),
    ]);
    // One session at a time: the server must not fail while another one still waits for the standby to catch up.
    let passed = Mutex::new(0);
    let (next, link) = (standby.clone(), proxy.clone());
    let at_a_record = move || {
        let mut passed = passed.lock();
        let noted = *passed;
        *passed += 1;
        if failover.paused_after == Some(noted) {
            next.catch_up();
            next.pause_receiving();
        }
        if failover.failed_after == noted {
            if failover.paused_after.is_none() {
                next.catch_up();
            }
            link.point_at(next.host());
            next.promote();
        }
    };
    fail::cfg_callback(NOTED, at_a_record).unwrap();
    let request = job(&dump, "app", OnExisting::Fail);
    let first = run(&app, &request).await;
    fail::remove(NOTED);
    let error = &first.result.error;
    assert_eq!(
        first.failure,
        Some(R::TargetUnavailable),
        "{what}: {error:?}"
    );
    // The restore may learn of the failure before the standby is promoted.
    while standby.psql("postgres", "SELECT pg_is_in_recovery()") == "t" {
        pause().await;
    }
    let record = "SELECT datname FROM pg_database WHERE datname ~ '^pgrestored_s_'";
    let staging = standby.psql("postgres", record);
    let reopen = format!("ALTER DATABASE {staging} ALLOW_CONNECTIONS true");
    standby.psql("postgres", &reopen);
    let count = "SELECT count(*) FROM pgrestored_work.done";
    let kept: u32 = standby.psql(&staging, count).parse().unwrap();
    let done = run(&app, &again(&request)).await.result;
    assert_eq!(done.error, None, "{what}");
    assert_eq!(why_not(&done), None, "{what}");
    assert!(done.resumed_from.is_some() || kept == 0, "{what}");
    assert_same(&standby.content("app"), &wanted, &what);
    let left = "SELECT (SELECT count(*) FROM pg_database WHERE datname ~ '^pgrestored_s_'), (SELECT count(*) FROM pgrestored.work)";
    assert_eq!(standby.psql("postgres", left), "0|0", "{what}");
    failover.failed_after.saturating_sub(kept)
}

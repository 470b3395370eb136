//! PostgreSQL stops as in a crash and starts again, in each stage of a restore. With `CAMPAIGN=full` in all of them.

use std::sync::Arc;

use pgrestored::error::FailureReason as R;
use pgrestored::job::OnExisting;

use crate::formats::DumpFormat;
use crate::resume::{NOTED, again, run};
use crate::support::kills::{FROM_THE_FIRST, Interrupt, SOURCE, assert_settled, why_not};
use crate::support::{Cluster, assert_same, is_full_campaign, job};

/// The steps, after how many times the server crashes there, and whether `make test` covers it.
const PLACES: [(&str, u32, bool); 15] = [
    ("created", 0, false),
    ("schema", 0, false),
    (NOTED, 0, false),
    (NOTED, 3, false),
    (NOTED, 6, true),
    (NOTED, 9, false),
    (NOTED, 12, false),
    ("copy", 3, false),
    ("task", 2, false),
    ("task", 9, false),
    ("loaded", 0, true),
    ("checked", 0, false),
    ("work.sealed", 0, true),
    ("swap.begun", 0, false),
    ("swap.journaled", 0, false),
];

/// A crash also empties unlogged tables and undoes the last commits that did not wait for the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashed_has_the_work_or_it_is_done_again() {
    let c = Cluster::start_with("-c fsync=off");
    let unlogged = "CREATE UNLOGGED TABLE s.fast (id int PRIMARY KEY, v text); INSERT INTO s.fast SELECT i, i FROM generate_series(1, 500) i;";
    c.create("src", &format!("{SOURCE}; {unlogged}"));
    let c = Arc::new(c);
    let dumps = [DumpFormat::Custom, DumpFormat::Plain].map(|format| c.dump_as("src", format));
    let wanted = c.content("src", &[]);
    let app = c.app(&[FROM_THE_FIRST, ("retry-budget", "20s")]);
    let places = PLACES.iter().enumerate();
    let wanted_places = places.filter(|(_, (_, _, is_always))| *is_always || is_full_campaign());
    let (mut went_on, mut begun_again) = (0, 0);
    for (i, &(step, passed, _)) in wanted_places {
        let (what, target) = (format!("{step} after {passed}"), format!("app{i}"));
        let request = job(&dumps[i % 2], &target, OnExisting::Fail);
        let crash = Interrupt::at(&c, (step, passed), Cluster::crash_and_restart);
        let first = run(&app, &request).await;
        let has_crashed = crash.has_happened();
        drop(crash);
        // A restore may have fewer transactions.
        assert!(has_crashed || first.failure.is_none(), "{what}");
        let done = match first.failure {
            None => first,
            Some(reason) => {
                let error = &first.result.error;
                assert_eq!(reason, R::TargetUnavailable, "{what}: {error:?}");
                run(&app, &again(&request)).await
            }
        };
        assert_eq!(done.result.error, None, "{what}");
        assert_same(&c.content(&target, &[]), &wanted, &what);
        assert_settled(&c, &target, &what);
        went_on += u32::from(done.result.resumed_from.is_some());
        begun_again += u32::from(why_not(&done.result).is_some());
        c.psql("postgres", &format!("DROP DATABASE {target}"));
    }
    eprintln!(
        "CAMPAIGN server crashes: {went_on} went on, {begun_again} begun again; all equal, 0 leftovers"
    );
    assert!(went_on > 0);
}

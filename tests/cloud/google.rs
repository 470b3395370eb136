//! What Google's Pub/Sub emulator checks. Its start takes seconds of processor time, so the scenarios share it, each with
//! a project and a bucket of its own. They mostly wait for it, so some of them run concurrently; those that run one after
//! another share a cluster. When it delivers a nacked message again is not the same each time: the next worker's takeover
//! is tested with our emulator only.

use futures::FutureExt;

use crate::cases::{self, Case};
use crate::support::is_full_campaign;
use crate::test_env::{GoogleEmulator, PubSubKind::Google, SourceCluster};
use crate::{examples, operator, service, verify, worker};

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_and_the_example_work_with_googles_emulator() {
    let Some(_running) = GoogleEmulator::shared().await else {
        return;
    };
    let [long, others]: [SourceCluster; 2] = std::array::from_fn(|_| SourceCluster::new());
    cases::at_once([
        (
            "a long restore is delivered once",
            worker::a_long_restore_is_delivered_once(&long, Google).boxed_local(),
        ),
        ("others", others_work(&others).boxed_local()),
    ])
    .await;
}

async fn others_work(s: &SourceCluster) {
    let mut all: Vec<Case<'_>> = vec![
        (
            "a new backup is proven",
            verify::a_new_backup_is_proven(s, Google).boxed_local(),
        ),
        (
            "a missing queue is reported",
            service::a_missing_queue_is_reported(Google).boxed_local(),
        ),
        (
            "doctor accepts a good setup",
            operator::doctor_accepts_a_good_setup(s, Google).boxed_local(),
        ),
        (
            "the Python example restores",
            examples::the_python_example_restores(s).boxed_local(),
        ),
        (
            "a request is served",
            worker::a_request_is_served(s, Google).boxed_local(),
        ),
    ];
    // What they ask of Pub/Sub, the others do, too.
    if is_full_campaign() {
        all.push((
            "duplicates restore once",
            worker::duplicates_restore_once(s, Google).boxed_local(),
        ));
        all.push((
            "bad messages are answered",
            worker::bad_messages_are_answered(s, Google).boxed_local(),
        ));
    }
    cases::each(all).await;
}

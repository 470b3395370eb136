//! What Google's Pub/Sub emulator checks. Its start takes seconds of processor time, so the scenarios share it, each with
//! a project, a bucket and a cluster of its own. They mostly wait for it, so some of them run concurrently.

use crate::test_env::{GoogleEmulator, Kind::Google};
use crate::{examples, operator, process, service, verify, worker};

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_and_the_example_work_with_googles_emulator() {
    let Some(_running) = GoogleEmulator::shared().await else {
        return;
    };
    let requests = async {
        worker::a_request_is_served(Google).await;
        worker::duplicates_restore_once(Google).await;
        worker::bad_messages_are_answered(Google).await;
    };
    let others = async {
        examples::the_python_example_restores().await;
        verify::a_new_backup_is_proven(Google).await;
        service::a_missing_queue_is_reported(Google).await;
        operator::doctor_accepts_a_good_setup(Google).await;
    };
    tokio::join!(
        worker::a_long_restore_is_delivered_once(Google),
        process::the_next_worker_takes_over(Google, "TERM"),
        requests,
        others,
    );
}

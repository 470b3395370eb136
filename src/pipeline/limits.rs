//! The time limits of a job: one for each stage, and one without any progress.

use pgdump_restore::Stage;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::Config;
use crate::error::{FailureReason as R, JobError, RestoreError};
use crate::progress::Progress;

/// How often progress is checked.
const LOOK: Duration = Duration::from_secs(1);

/// Returns when a stage has taken too long, or nothing has moved for too long.
pub(super) async fn exceeded(config: &Config, progress: &Progress) -> RestoreError {
    let now = tokio::time::Instant::now;
    let (mut stage, mut entered) = (progress.stage(), now());
    let (mut seen, mut moved) = (marks(progress), now());
    loop {
        tokio::time::sleep(LOOK).await;
        if progress.stage() != stage {
            (stage, entered) = (progress.stage(), now());
        }
        if marks(progress) != seen {
            (seen, moved) = (marks(progress), now());
        }
        let limit = config.stage_limits.get(stage.as_str());
        if let Some(limit) = limit.filter(|l| entered.elapsed() >= **l) {
            return JobError::new(
                R::Timeout,
                format!("the stage {stage} took longer than {limit:?}"),
            )
            .into();
        }
        // Building one index may take any time, and shows no progress.
        if stage != Stage::Indexes && moved.elapsed() >= config.stall_limit {
            let what = format!(
                "no progress for {:?}, in the stage {stage}",
                config.stall_limit
            );
            return JobError::new(R::Timeout, what).into();
        }
    }
}

/// The counters that move.
fn marks(p: &Progress) -> (Stage, [u64; 5]) {
    let all = [
        &p.object_bytes,
        &p.data_bytes,
        &p.rows,
        &p.tables_done,
        &p.tasks_done,
    ];
    (p.stage(), all.map(|n| n.load(Relaxed)))
}

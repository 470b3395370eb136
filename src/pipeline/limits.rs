//! The time limits of a job: one for each stage, and one without any progress.

use pgdump_restore::Stage;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::config::{Config, format_duration};
use crate::error::{JobError, JobKind, RestoreError};
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
                JobKind::Timeout,
                format!(
                    "the stage {stage} took longer than {}",
                    format_duration(*limit)
                ),
            )
            .into();
        }
        if progress.is_in_long_step() {
            moved = now();
        }
        if moved.elapsed() >= config.stall_limit {
            let what = format!(
                "no progress for {}, in the stage {stage}",
                format_duration(config.stall_limit)
            );
            return JobError::new(JobKind::Timeout, what).into();
        }
    }
}

/// The counters that move.
fn marks(p: &Progress) -> (Stage, [u64; 6]) {
    let all = [
        &p.object_bytes,
        &p.data_bytes,
        &p.rows,
        &p.tables_done,
        &p.tasks_done,
        &p.rows_checked,
    ];
    (p.stage(), all.map(|n| n.load(Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;
    use crate::error::FailureReason as R;

    /// Whether the job is ended within a minute in which nothing moves but what `step` moves each second.
    async fn ends(step: impl Fn(&Progress)) -> bool {
        let flags = [("restore-stall-timeout", "10s")];
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let progress = Progress::default();
        let moving = async {
            for _ in 0..60 {
                step(&progress);
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            e = exceeded(&config, &progress) => {
                assert_eq!(e.reason(), R::Timeout);
                true
            }
            () = moving => false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_does_not_move_is_ended() {
        use pgdump_restore::Stage;
        assert!(ends(|_| ()).await);
        let reads_back = |p: &Progress| {
            p.rows_checked.fetch_add(1, Relaxed);
        };
        assert!(!ends(reads_back).await);
        assert!(!ends(|p| p.enter(Stage::Indexes)).await);
        assert!(!ends(|p| std::mem::forget(p.long_step())).await);
        // The time without progress begins after the step.
        assert!(ends(|p| drop(p.long_step())).await);
    }
}

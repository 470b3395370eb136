//! What a load sees of the target server's settings.

use super::states::LoadedStaging;
use crate::event::Advice;
use crate::postgres::Session;
use crate::tuning::{AdviceSubject, IndexSizes, Load, Reading, advise, index_sizes, read};

/// Looks at a server before and after a load. What it cannot read costs nothing but the advice.
pub(super) struct TuningWatch {
    before: Option<Reading>,
    began: tokio::time::Instant,
}

impl TuningWatch {
    /// After the database was created, which requests checkpoints itself.
    pub(super) async fn begin(session: &Session) -> Self {
        TuningWatch {
            before: read(session).await,
            began: tokio::time::Instant::now(),
        }
    }

    /// What made the load slower; nothing if the server did not tell.
    pub(super) async fn end(self, session: &Session, loaded: &LoadedStaging) -> Vec<Advice> {
        let seconds = self.began.elapsed().as_secs_f64();
        let (Some(before), Some(after)) = (self.before, read(session).await) else {
            return vec![];
        };
        let mut load = Load::between(&before, &after, seconds);
        if load.is_worth() {
            load.indexes = sizes_in(loaded).await;
        }
        advise(&after.settings, &AdviceSubject::Seen(load))
    }
}

async fn sizes_in(loaded: &LoadedStaging) -> Option<IndexSizes> {
    let server = loaded.server.without_retry();
    let session = server.connect(&loaded.staging.name, "index sizes").await;
    index_sizes(&session.ok()?).await
}

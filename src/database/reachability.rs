//! Whether a worker's target server responds, for its readiness. Restores retry on their own; this says early
//! that they will fail.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{DatabaseError, DatabaseKind};
use crate::postgres::Server;

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);
/// Pauses between checks, while something is wrong and while nothing is.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const HEALTHY_PAUSE: Duration = Duration::from_secs(60);

/// The current problem of the target server, if it has one; copies share it.
#[derive(Debug, Clone, Default)]
pub struct TargetHealth(Arc<Mutex<Option<String>>>);

/// Whether restores will fail for the same reason: a server that is full or starting responds.
fn is_problem(e: &DatabaseError) -> bool {
    use DatabaseKind as D;
    match e.kind() {
        D::AccessDenied | D::NoPassword | D::IssuerUnavailable => true,
        D::Unavailable => e.sqlstate().is_none(),
        _ => false,
    }
}

impl TargetHealth {
    /// One sentence, with the server's address.
    pub fn problem(&self) -> Option<String> {
        self.0.lock().clone()
    }

    /// Checks the server again and again while it is polled. `resource` names it in messages.
    pub async fn watch(self, server: Server, resource: String) {
        let server = server.without_retry();
        loop {
            let connecting = server.maintenance("readiness");
            let why = match tokio::time::timeout(CHECK_TIMEOUT, connecting).await {
                Ok(Err(e)) if is_problem(&e) => Some(e.to_string()),
                Ok(_) => None,
                Err(_) => Some(format!("no answer within {CHECK_TIMEOUT:?}")),
            };
            let pause = if why.is_some() {
                RETRY_PAUSE
            } else {
                HEALTHY_PAUSE
            };
            self.found(&resource, why);
            tokio::time::sleep(pause).await;
        }
    }

    /// Stores a finding, and logs it if it is new.
    fn found(&self, resource: &str, why: Option<String>) {
        let problem = why.map(|why| format!("{resource} cannot be reached: {why}"));
        let mut known = self.0.lock();
        match (&*known, &problem) {
            (None, Some(problem)) => {
                tracing::error!(resource, problem, "target server unavailable: not ready");
            }
            (Some(_), None) => tracing::info!(resource, "target server available again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        *known = problem;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_responds_is_no_problem() {
        use DatabaseKind as D;
        for (kind, code, expected) in [
            (D::Unavailable, None, true),
            (D::AccessDenied, Some("28P01"), true),
            (D::AccessDenied, None, true),
            (D::NoPassword, None, true),
            (D::IssuerUnavailable, None, true),
            (D::Unavailable, Some("53300"), false),
            (D::Unavailable, Some("57P03"), false),
            (D::StatementRejected, Some("3D000"), false),
        ] {
            let e = DatabaseError::new(kind, "x");
            let e = match code {
                Some(code) => e.with_sqlstate(code),
                None => e,
            };
            assert_eq!(is_problem(&e), expected, "{kind:?} {code:?}");
        }
    }
}

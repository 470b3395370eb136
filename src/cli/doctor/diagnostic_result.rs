//! The result of one check.

use std::time::Duration;

use crate::cli::exit::Exit;
use crate::error::{RestoreError, report};
use crate::queue::QueueError;

/// How long to wait for a server or service that does not respond.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Health")]
pub(in crate::cli) enum CheckHealth {
    Ok,
    Warning,
    Failure,
    /// Not needed by this configuration.
    Skipped,
}

/// Result of one check.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
#[schemars(rename = "Checkup")]
pub(in crate::cli) struct DiagnosticResult {
    pub(super) check: &'static str,
    pub(super) health: CheckHealth,
    pub(super) message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
    #[serde(skip)]
    pub(super) exit: Exit,
}

impl DiagnosticResult {
    pub(super) fn new(
        check: &'static str,
        health: CheckHealth,
        message: impl Into<String>,
    ) -> Self {
        DiagnosticResult {
            check,
            health,
            message: message.into(),
            fix: None,
            exit: Exit::Failed,
        }
    }

    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, CheckHealth::Ok, message)
    }

    pub(super) fn skipped(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(check, CheckHealth::Skipped, message)
    }

    pub(super) fn failure(check: &'static str, exit: Exit, message: impl Into<String>) -> Self {
        DiagnosticResult {
            exit,
            ..Self::new(check, CheckHealth::Failure, message)
        }
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        DiagnosticResult {
            fix: Some(fix.into()),
            ..self
        }
    }
}

/// A failed check. `fix` is for errors that do not know one themselves.
pub(super) fn failed(check: &'static str, e: &RestoreError, fix: &str) -> DiagnosticResult {
    let mut message = report(e);
    // It has a line of its own.
    let own = e.fix().map(|own| format!("; {own}"));
    let kept = own.and_then(|own| message.strip_suffix(&own).map(str::len));
    message.truncate(kept.unwrap_or(message.len()));
    let exit = Exit::of_failure(e.reason(), e.sqlstate());
    DiagnosticResult::failure(check, exit, message).fix(e.fix().unwrap_or(fix))
}

pub(super) fn queue_failed(check: &'static str, e: &QueueError) -> DiagnosticResult {
    match e {
        QueueError::Permanent(what) => DiagnosticResult::failure(check, Exit::Permission, what)
            .fix("see the check `credentials`"),
        QueueError::Missing(what) => DiagnosticResult::failure(check, Exit::Config, what)
            .fix("deploy/terraform sets all of this up"),
        QueueError::Refused(what) | QueueError::Transient(what) => {
            DiagnosticResult::failure(check, Exit::Unavailable, what)
                .fix("check that Pub/Sub can be reached from this machine")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{StorageError, StorageKind};

    #[test]
    fn an_error_that_knows_its_fix_gives_it_a_line_of_its_own() {
        let denied = || StorageError::new(StorageKind::AccessDenied, "gs://b/: no (said)");
        for (e, fix) in [
            (denied(), "see above"),
            (denied().with_fix("set X"), "set X"),
        ] {
            let found = failed("bucket", &e.into(), "see above");
            assert_eq!(found.message, "gs://b/: no (said)");
            assert_eq!(found.fix.as_deref(), Some(fix));
            assert_eq!(found.exit, Exit::Permission);
        }
    }
}

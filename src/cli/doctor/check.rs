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

pub(super) fn failed(check: &'static str, e: &RestoreError, fix: &str) -> DiagnosticResult {
    DiagnosticResult::failure(check, Exit::of_failure(e.reason(), e.sqlstate()), report(e)).fix(fix)
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

//! The documented error family: [`RestoreError`] over [`ValidationError`], [`DatabaseError`] and
//! [`StorageError`]. Every error carries a closed [`FailureReason`]: the metric label, the event
//! field and the retry decision all follow from it. `Display` shows this layer only;
//! [`report`] walks the sources.

use crate::stage::Stage;
use std::error::Error as StdError;
use std::fmt;

use pgdump_archive::{ArchiveError, Problem};

pub use pgdump_archive::bounded::{MAX_TEXT, bound_list, is_unsafe, line_of, one_line};

/// Why a restore failed: closed, each reason with one blame and one retry class.
/// Also the label `failure_reason` of `restore_failure_total` and `error.reason` of a result event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The request or the command is invalid.
    InvalidRequest,
    /// The name of the database is protected (postgres, template1, …) and can never be a target.
    TargetNotAllowed,
    /// The target exists, and the request does not allow replacing it.
    TargetExists,
    /// Another restore holds the target; this one waits.
    TargetBusy,
    /// The target server does not answer, or the connection to it was lost.
    TargetUnavailable,
    /// This worker may not restore from the backup's location (BACKUP_BUCKET, TRUSTED_SOURCES).
    SourceNotAllowed,
    /// The object, or the requested generation of it, does not exist.
    BackupNotFound,
    /// The object was overwritten or deleted while it was read, or does not match the request.
    BackupChanged,
    /// The store rejected the credentials.
    AccessDenied,
    /// The download did not complete, even after retries.
    DownloadFailed,
    /// The bytes read do not match the checksum that the store has recorded.
    ChecksumMismatch,
    /// The archive is truncated, damaged or incomplete.
    ArchiveCorrupt,
    /// The object is not a dump that this program can read.
    ArchiveUnsupported,
    /// The target server's version cannot take this dump.
    VersionIncompatible,
    /// The target server does not have an extension that the dump needs.
    ExtensionMissing,
    /// The target server does not have a role that the dump names.
    RoleMissing,
    /// The restoring role lacks privileges that the dump needs.
    InsufficientPrivilege,
    /// The target server is out of disk space.
    InsufficientSpace,
    /// The target server rejected rows: a duplicate key, a violated constraint, an invalid value.
    DataRejected,
    /// The target server rejected a statement of the dump.
    RestoreError,
    /// The restored data does not match the archive, or a check failed.
    VerificationFailed,
    /// The job exceeded its time limit (RESTORE_TIMEOUT, deadline).
    Timeout,
    /// The job was stopped from outside.
    Cancelled,
    /// An internal error of this program.
    Internal,
}

/// Who has to act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// The backup is damaged, incomplete or invalid: another one is needed.
    Backup,
    /// The target server lacks or rejects something that the dump needs.
    Target,
    /// The network, the store, credentials, or the worker itself failed.
    Infrastructure,
    /// The request is invalid, not permitted, in conflict with another one, or was cancelled.
    Request,
}

/// Whether, and when, a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// The same request would fail again: report it and acknowledge the message.
    Permanent,
    /// The cause may pass: back off, then nack the message.
    Transient,
    /// This worker's own set-up is broken (credentials, permissions): nack the message, become not ready.
    Environment,
    /// Another restore holds the target: keep the message and wait.
    Busy,
    /// The job was stopped from outside: nack the message.
    Interrupted,
}

use FailureReason as R;

impl FailureReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [FailureReason; 24] = [
        R::InvalidRequest,
        R::TargetNotAllowed,
        R::TargetExists,
        R::TargetBusy,
        R::TargetUnavailable,
        R::SourceNotAllowed,
        R::BackupNotFound,
        R::BackupChanged,
        R::AccessDenied,
        R::DownloadFailed,
        R::ChecksumMismatch,
        R::ArchiveCorrupt,
        R::ArchiveUnsupported,
        R::VersionIncompatible,
        R::ExtensionMissing,
        R::RoleMissing,
        R::InsufficientPrivilege,
        R::InsufficientSpace,
        R::DataRejected,
        R::RestoreError,
        R::VerificationFailed,
        R::Timeout,
        R::Cancelled,
        R::Internal,
    ];

    /// The name in events, metrics and logs, the same as serde's.
    pub fn as_str(self) -> &'static str {
        match self {
            R::InvalidRequest => "invalid_request",
            R::TargetNotAllowed => "target_not_allowed",
            R::TargetExists => "target_exists",
            R::TargetBusy => "target_busy",
            R::TargetUnavailable => "target_unavailable",
            R::SourceNotAllowed => "source_not_allowed",
            R::BackupNotFound => "backup_not_found",
            R::BackupChanged => "backup_changed",
            R::AccessDenied => "access_denied",
            R::DownloadFailed => "download_failed",
            R::ChecksumMismatch => "checksum_mismatch",
            R::ArchiveCorrupt => "archive_corrupt",
            R::ArchiveUnsupported => "archive_unsupported",
            R::VersionIncompatible => "version_incompatible",
            R::ExtensionMissing => "extension_missing",
            R::RoleMissing => "role_missing",
            R::InsufficientPrivilege => "insufficient_privilege",
            R::InsufficientSpace => "insufficient_space",
            R::DataRejected => "data_rejected",
            R::RestoreError => "restore_error",
            R::VerificationFailed => "verification_failed",
            R::Timeout => "timeout",
            R::Cancelled => "cancelled",
            R::Internal => "internal",
        }
    }

    /// Who usually has to act on it; [`RestoreError::blame`] knows the exceptions.
    pub fn blame(self) -> Blame {
        match self {
            R::InvalidRequest
            | R::TargetNotAllowed
            | R::TargetExists
            | R::TargetBusy
            | R::SourceNotAllowed
            | R::BackupNotFound
            | R::Cancelled => Blame::Request,
            R::BackupChanged
            | R::ChecksumMismatch
            | R::ArchiveCorrupt
            | R::ArchiveUnsupported
            | R::DataRejected
            | R::VerificationFailed => Blame::Backup,
            R::VersionIncompatible
            | R::ExtensionMissing
            | R::RoleMissing
            | R::InsufficientPrivilege
            | R::InsufficientSpace
            | R::RestoreError => Blame::Target,
            R::TargetUnavailable
            | R::AccessDenied
            | R::DownloadFailed
            | R::Timeout
            | R::Internal => Blame::Infrastructure,
        }
    }

    /// Whether, and when, a retry can help.
    pub fn retry_class(self) -> RetryClass {
        match self {
            R::InvalidRequest
            | R::TargetNotAllowed
            | R::TargetExists
            | R::SourceNotAllowed
            | R::BackupNotFound
            | R::BackupChanged
            | R::ChecksumMismatch
            | R::ArchiveCorrupt
            | R::ArchiveUnsupported
            | R::VersionIncompatible
            | R::ExtensionMissing
            | R::RoleMissing
            | R::InsufficientPrivilege
            | R::InsufficientSpace
            | R::DataRejected
            | R::RestoreError
            | R::VerificationFailed
            | R::Timeout => RetryClass::Permanent,
            R::TargetUnavailable | R::DownloadFailed | R::Internal => RetryClass::Transient,
            R::AccessDenied => RetryClass::Environment,
            R::TargetBusy => RetryClass::Busy,
            R::Cancelled => RetryClass::Interrupted,
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type BoxedSource = Box<dyn StdError + Send + Sync>;

/// What every error of the family holds: the reason, a human-readable sentence, the SQLSTATE if
/// PostgreSQL gave one, and the source.
#[derive(Debug)]
struct Fault {
    reason: FailureReason,
    message: String,
    sqlstate: Option<String>,
    /// The stage that failed, if it is not the job's current stage.
    stage: Option<Stage>,
    source: Option<BoxedSource>,
}

impl Fault {
    /// Builds the error; its message becomes one line of bounded length.
    fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        let message = one_line(&message.into());
        Fault {
            reason,
            message,
            sqlstate: None,
            stage: None,
            source: None,
        }
    }
}

macro_rules! family_member {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Box<Fault>);

        impl $name {
            /// An error whose message is made one line of at most [`MAX_TEXT`] bytes.
            pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
                $name(Box::new(Fault::new(reason, message)))
            }

            /// The same error with its cause, which [`report`] appends to the message.
            pub fn with_source(mut self, source: impl Into<BoxedSource>) -> Self {
                self.0.source = Some(source.into());
                self
            }

            /// The same error with a five-character SQLSTATE.
            pub fn with_sqlstate(mut self, code: &str) -> Self {
                self.0.sqlstate = Some(code.to_owned());
                self
            }

            /// Why it failed; blame and retry class follow from it.
            pub fn reason(&self) -> FailureReason {
                self.0.reason
            }

            /// The five-character SQLSTATE, if PostgreSQL gave one.
            pub fn sqlstate(&self) -> Option<&str> {
                self.0.sqlstate.as_deref()
            }

            /// The same error with the stage it belongs to, which other sessions of the job may have left already.
            pub fn in_stage(mut self, stage: Stage) -> Self {
                self.0.stage = Some(stage);
                self
            }

            /// The same error with text appended to its message.
            pub fn followed_by(mut self, more: &str) -> Self {
                let more = one_line(more);
                let message = line_of(&self.0.message, MAX_TEXT.saturating_sub(more.len()));
                self.0.message = message + &more;
                self
            }

            /// The same error, prefixed with what it concerns.
            pub fn context(mut self, what: &str) -> Self {
                self.0.message = one_line(&format!("{what}: {}", self.0.message));
                self
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0.message)
            }
        }

        impl StdError for $name {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                self.0.source.as_deref().map(|s| s as _)
            }
        }
    };
}

family_member! {
    /// The request or the backup is invalid; nothing was changed.
    ValidationError
}
family_member! {
    /// PostgreSQL returned an error, or the connection was lost.
    DatabaseError
}
family_member! {
    /// Listing or reading the backup store failed.
    StorageError
}
family_member! {
    /// The job was stopped, or failed in the worker itself: timeout, shutdown, an internal error.
    JobError
}

/// Base of the documented family.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The request or the backup is invalid.
    #[error("{0}")]
    Validation(#[from] ValidationError),
    /// PostgreSQL returned an error, or the connection was lost.
    #[error("{0}")]
    Database(#[from] DatabaseError),
    /// Listing or reading the backup store failed.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// The job was stopped, or failed in the worker itself.
    #[error("{0}")]
    Job(#[from] JobError),
}

impl RestoreError {
    fn fault(&self) -> &Fault {
        match self {
            RestoreError::Validation(e) => &e.0,
            RestoreError::Database(e) => &e.0,
            RestoreError::Storage(e) => &e.0,
            RestoreError::Job(e) => &e.0,
        }
    }

    /// Why it failed; the retry class follows from it.
    pub fn reason(&self) -> FailureReason {
        self.fault().reason
    }

    /// Who has to act on it. A limit of the worker (memory, a missing key) is never blamed on the backup.
    pub fn blame(&self) -> Blame {
        match (self, self.reason().blame()) {
            (RestoreError::Job(_), Blame::Backup) => Blame::Infrastructure,
            // A server that sends more than this worker accepts.
            (RestoreError::Database(e), _) if e.reason() == R::ArchiveUnsupported => {
                Blame::Infrastructure
            }
            (_, blame) => blame,
        }
    }

    /// The five-character SQLSTATE, if PostgreSQL gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.fault().sqlstate.as_deref()
    }

    /// A [`JobError`] with the reason `cancelled`; `why` is its message.
    pub fn cancelled(why: &str) -> Self {
        JobError::new(R::Cancelled, why).into()
    }

    /// A [`JobError`] with the reason `internal`: something that this program's own code should have prevented.
    pub fn internal(what: impl Into<String>) -> Self {
        JobError::new(R::Internal, what).into()
    }
}

/// Lets an error of the family pass unchanged through the archive's readers and sinks, and through `std::io`.
impl From<RestoreError> for ArchiveError {
    fn from(e: RestoreError) -> Self {
        ArchiveError::source(e)
    }
}

impl From<RestoreError> for std::io::Error {
    fn from(e: RestoreError) -> Self {
        ArchiveError::from(e).into()
    }
}

/// The only mapping from errors of the archive reader to a [`FailureReason`].
impl From<ArchiveError> for RestoreError {
    fn from(e: ArchiveError) -> Self {
        match e {
            ArchiveError::Source(e) => match e.downcast::<RestoreError>() {
                Ok(ours) => *ours,
                Err(e) => RestoreError::internal(e.to_string()),
            },
            ArchiveError::Limit(problem) => blameless(R::ArchiveUnsupported, problem),
            // Nothing shows that the backup is at fault.
            ArchiveError::Foreign(problem) => blameless(R::ArchiveCorrupt, problem),
            ArchiveError::Corrupt(problem) => invalid(R::ArchiveCorrupt, problem),
            ArchiveError::Unsupported(problem) => invalid(R::ArchiveUnsupported, problem),
            ArchiveError::NotFound(problem) => invalid(R::InvalidRequest, problem),
            other => RestoreError::internal(other.to_string()),
        }
    }
}

fn blameless(reason: R, problem: Problem) -> RestoreError {
    JobError::new(reason, problem.into_parts().0).into()
}

fn invalid(reason: R, problem: Problem) -> RestoreError {
    let (message, source) = problem.into_parts();
    let error = ValidationError::new(reason, message);
    match source {
        Some(source) => error.with_source(source).into(),
        None => error.into(),
    }
}

impl RestoreError {
    /// Recovers an error that one of our readers returned; any other I/O error while reading `what` means
    /// damaged bytes.
    pub fn from_archive_io(e: std::io::Error, what: &str) -> Self {
        ArchiveError::from_io(e, what).into()
    }
}

/// One bounded line for people and logs: the error and its sources, without row data.
pub fn report(error: &(dyn StdError + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        let text = one_line(&e.to_string());
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = e.source();
    }
    one_line(&line)
}

/// Why a restore failed.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// Why it failed: one of a closed list.
    pub reason: FailureReason,
    /// Who has to act on this failure; not always the one that its reason suggests.
    pub blame: Blame,
    /// Stage that failed.
    pub stage: String,
    /// Human-readable message; never row data or secrets.
    pub message: String,
    /// Five-character SQLSTATE, if PostgreSQL gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl ErrorBody {
    /// The body of `error`; `stage` is the job's current stage, which an error's own stage overrides.
    pub fn new(error: &RestoreError, stage: Stage) -> Self {
        use RetryClass as C;
        let reason = error.reason();
        ErrorBody {
            reason,
            blame: error.blame(),
            stage: error.fault().stage.unwrap_or(stage).to_string(),
            message: report(error),
            sqlstate: error.sqlstate().map(str::to_owned),
            retryable: match reason.retry_class() {
                C::Permanent => false,
                C::Transient | C::Environment | C::Busy | C::Interrupted => true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_once_and_matches_serde() {
        for reason in FailureReason::ALL {
            let json = serde_json::to_value(reason).unwrap();
            assert_eq!(json, reason.as_str());
        }
        let distinct: std::collections::HashSet<_> =
            FailureReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(distinct.len(), FailureReason::ALL.len());
    }

    #[test]
    fn errors_of_the_family_survive_std_io() {
        let inner = RestoreError::from(StorageError::new(R::DownloadFailed, "cut"));
        let back = RestoreError::from_archive_io(inner.into(), "table of contents");
        assert_eq!(back.reason(), R::DownloadFailed);
        let eof = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        assert_eq!(
            RestoreError::from_archive_io(eof, "x").reason(),
            R::ArchiveCorrupt
        );
    }

    #[test]
    fn report_names_each_cause_once() {
        let cause = std::io::Error::other("disk failure");
        let e =
            RestoreError::from(StorageError::new(R::DownloadFailed, "reading").with_source(cause));
        assert_eq!(report(&e), "reading: disk failure");
        let again = StorageError::new(R::DownloadFailed, "reading: cut")
            .with_source(std::io::Error::other("cut"));
        assert_eq!(report(&again), "reading: cut");
    }

    #[test]
    fn errors_are_bounded_whatever_they_quote() {
        let huge = "\u{1b}[2J\n".repeat(4_000_000);
        let cause = std::io::Error::other(huge.clone());
        let e = RestoreError::from(
            DatabaseError::new(R::RestoreError, &huge)
                .context(&huge)
                .with_source(cause),
        );
        for text in [
            e.to_string(),
            report(&e),
            ErrorBody::new(&e, Stage::Data).message,
        ] {
            assert!(
                text.len() <= MAX_TEXT && !text.chars().any(char::is_control),
                "{text}"
            );
        }
    }

    #[test]
    fn conversions_keep_reason_and_sqlstate() {
        let refused = DatabaseError::new(R::RestoreError, "no")
            .with_sqlstate("42601")
            .context("here");
        let e = RestoreError::from(refused);
        assert_eq!(
            (e.sqlstate(), e.to_string()),
            (Some("42601"), "here: no".into())
        );
        assert_eq!(
            ErrorBody::new(&e, Stage::Schema).sqlstate.as_deref(),
            Some("42601")
        );
        assert_eq!(RestoreError::cancelled("x").reason(), R::Cancelled);
        let limit = RestoreError::from(JobError::new(R::ArchiveUnsupported, "needs more"));
        assert_eq!(
            ErrorBody::new(&limit, Stage::Data).blame,
            Blame::Infrastructure
        );
        assert_eq!(
            (
                RestoreError::internal("x").reason(),
                RestoreError::internal("x").sqlstate()
            ),
            (R::Internal, None)
        );
    }
}

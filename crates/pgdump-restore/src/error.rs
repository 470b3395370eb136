//! The documented error family: [`RestoreError`] over [`ValidationError`], [`DatabaseError`] and
//! [`StorageError`]. Every error carries a closed [`FailureReason`]: the metric label, the event
//! field and the retry decision all follow from it. `Display` says this layer only;
//! [`report`] walks the sources.

use std::error::Error as StdError;
use std::fmt;

use pgdump_archive::ArchiveError;

pub use pgdump_archive::bounded::{MAX_TEXT, bound_list, is_unsafe, line_of, one_line};

/// Why a restore failed: closed, each reason with one blame and one retry class.
/// Also the label `failure_reason` of `restore_failure_total` and `error.reason` of a result event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The request or the command cannot be understood.
    InvalidRequest,
    /// A database of this name is never a target, such as postgres or template1.
    TargetNotAllowed,
    /// The target is there, and the request does not say to replace it.
    TargetExists,
    /// Another restore holds the target; this one waits.
    TargetBusy,
    /// The target server does not answer, or went away.
    TargetUnavailable,
    /// The backup lies where this worker may not restore from (BACKUP_BUCKET, TRUSTED_SOURCES).
    SourceNotAllowed,
    /// There is no such object, or not in that generation.
    BackupNotFound,
    /// The object was overwritten or deleted while it was read, or is not what the request says.
    BackupChanged,
    /// The store refuses these credentials.
    AccessDenied,
    /// The bytes could not be read to the end, however often it was tried.
    DownloadFailed,
    /// The bytes are not those that the store has a checksum of.
    ChecksumMismatch,
    /// The archive is cut, damaged or incomplete.
    ArchiveCorrupt,
    /// The object is no dump that this program can read.
    ArchiveUnsupported,
    /// The target server is of a version that cannot take this dump.
    VersionIncompatible,
    /// The target server does not have an extension that the dump needs.
    ExtensionMissing,
    /// The target server does not have a role that the dump names.
    RoleMissing,
    /// The role that restores may not do what the dump needs.
    InsufficientPrivilege,
    /// The target server has no room left.
    InsufficientSpace,
    /// The target server refused rows: a duplicate key, a violated constraint, a wrong value.
    DataRejected,
    /// The target server refused a statement of the dump.
    RestoreError,
    /// What was restored is not what the archive says, or a check failed.
    VerificationFailed,
    /// It took longer than it may (RESTORE_TIMEOUT, deadline).
    Timeout,
    /// It was stopped from outside.
    Cancelled,
    /// A defect of this program.
    Internal,
}

/// Who has to act on a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    Backup,
    Target,
    Infrastructure,
    Request,
}

/// What a retry could change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// The same request fails again: tell the requester, consume the message.
    Permanent,
    /// May pass later: back off, then give the message back.
    Transient,
    /// This worker's own set-up is broken (credentials, permission): give the message back, go not ready.
    Environment,
    /// Another restore holds the target: keep the message and wait.
    Busy,
    /// Stopped from outside: give the message back.
    Interrupted,
}

use FailureReason as R;

impl FailureReason {
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

/// What every error of the family holds: the reason, a sentence for a person, the SQLSTATE where
/// PostgreSQL gave one, and the source.
#[derive(Debug)]
pub struct Fault {
    reason: FailureReason,
    message: String,
    sqlstate: Option<String>,
    /// Where it happened, if that is not where the job as a whole is.
    stage: Option<&'static str>,
    source: Option<BoxedSource>,
}

impl Fault {
    /// Whatever the message was made of, it is one bounded line from here on.
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
            pub fn new(reason: FailureReason, message: impl Into<String>) -> Self {
                $name(Box::new(Fault::new(reason, message)))
            }

            pub fn with_source(mut self, source: impl Into<BoxedSource>) -> Self {
                self.0.source = Some(source.into());
                self
            }

            pub fn with_sqlstate(mut self, code: &str) -> Self {
                self.0.sqlstate = Some(code.to_owned());
                self
            }

            pub fn reason(&self) -> FailureReason {
                self.0.reason
            }

            pub fn sqlstate(&self) -> Option<&str> {
                self.0.sqlstate.as_deref()
            }

            /// The same error, of a stage that others of the job may have left already.
            pub fn in_stage(mut self, stage: &'static str) -> Self {
                self.0.stage = Some(stage);
                self
            }

            /// The same error with something to add.
            pub fn followed_by(mut self, more: &str) -> Self {
                let more = one_line(more);
                let message = line_of(&self.0.message, MAX_TEXT.saturating_sub(more.len()));
                self.0.message = message + &more;
                self
            }

            /// The same error, said of `what`.
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
    /// The request or the backup is not what it must be: nothing was changed.
    ValidationError
}
family_member! {
    /// PostgreSQL refused or was lost.
    DatabaseError
}
family_member! {
    /// Listing or reading the backup store failed.
    StorageError
}
family_member! {
    /// The job was stopped or broke in the worker itself: timeout, shutdown, a defect.
    JobError
}

/// Base of the documented family.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0}")]
    Validation(#[from] ValidationError),
    #[error("{0}")]
    Database(#[from] DatabaseError),
    #[error("{0}")]
    Storage(#[from] StorageError),
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

    pub fn reason(&self) -> FailureReason {
        self.fault().reason
    }

    /// Who has to act on it. What the worker itself could not do (a limit, a key that it does not have)
    /// is never the backup's fault.
    pub fn blame(&self) -> Blame {
        match (self, self.reason().blame()) {
            (RestoreError::Job(_), Blame::Backup) => Blame::Infrastructure,
            // A server that sends more than this worker takes.
            (RestoreError::Database(e), _) if e.reason() == R::ArchiveUnsupported => {
                Blame::Infrastructure
            }
            (_, blame) => blame,
        }
    }

    /// Five-character SQLSTATE, where PostgreSQL gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.fault().sqlstate.as_deref()
    }

    pub fn cancelled(why: &str) -> Self {
        JobError::new(R::Cancelled, why).into()
    }

    pub fn internal(what: impl Into<String>) -> Self {
        JobError::new(R::Internal, what).into()
    }
}

/// An error of the family travels through the archive's readers and sinks unharmed, and through `std::io`.
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

/// The one map from what an archive's reader says to a [`FailureReason`].
impl From<ArchiveError> for RestoreError {
    fn from(e: ArchiveError) -> Self {
        let (reason, problem) = match e {
            ArchiveError::Source(e) => {
                return match e.downcast::<RestoreError>() {
                    Ok(ours) => *ours,
                    Err(e) => RestoreError::internal(e.to_string()),
                };
            }
            ArchiveError::Limit(problem) => {
                return JobError::new(R::ArchiveUnsupported, problem.into_parts().0).into();
            }
            // Nothing is known to be wrong with the backup.
            ArchiveError::Foreign(problem) => {
                return JobError::new(R::ArchiveCorrupt, problem.into_parts().0).into();
            }
            ArchiveError::Corrupt(problem) => (R::ArchiveCorrupt, problem),
            ArchiveError::Unsupported(problem) => (R::ArchiveUnsupported, problem),
            ArchiveError::NotFound(problem) => (R::InvalidRequest, problem),
            other => return RestoreError::internal(other.to_string()),
        };
        let (message, source) = problem.into_parts();
        let error = ValidationError::new(reason, message);
        match source {
            Some(source) => error.with_source(source).into(),
            None => error.into(),
        }
    }
}

impl RestoreError {
    /// Takes back the error that a reader of ours gave; any other I/O error while reading `what` means damaged bytes.
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
    pub reason: FailureReason,
    pub blame: Blame,
    /// Stage that failed.
    pub stage: String,
    /// A sentence for a person; never row data or secrets.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl ErrorBody {
    pub fn new(error: &RestoreError, stage: &str) -> Self {
        use RetryClass as C;
        let reason = error.reason();
        ErrorBody {
            reason,
            blame: error.blame(),
            stage: error.fault().stage.unwrap_or(stage).to_owned(),
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
    fn every_reason_is_listed_once_and_names_match_serde() {
        for reason in FailureReason::ALL {
            let json = serde_json::to_value(reason).unwrap();
            assert_eq!(json, reason.as_str());
        }
        let distinct: std::collections::HashSet<_> =
            FailureReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(distinct.len(), FailureReason::ALL.len());
    }

    #[test]
    fn our_errors_survive_std_io() {
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
    fn a_report_has_every_cause_once() {
        let cause = std::io::Error::other("the disk burns");
        let e =
            RestoreError::from(StorageError::new(R::DownloadFailed, "reading").with_source(cause));
        assert_eq!(report(&e), "reading: the disk burns");
        let again = StorageError::new(R::DownloadFailed, "reading: cut")
            .with_source(std::io::Error::other("cut"));
        assert_eq!(report(&again), "reading: cut");
    }

    #[test]
    fn no_error_grows_with_what_it_quotes() {
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
            ErrorBody::new(&e, "data").message,
        ] {
            assert!(
                text.len() <= MAX_TEXT && !text.chars().any(char::is_control),
                "{text}"
            );
        }
    }

    #[test]
    fn members_of_the_family_keep_what_they_know() {
        let refused = DatabaseError::new(R::RestoreError, "no")
            .with_sqlstate("42601")
            .context("here");
        let e = RestoreError::from(refused);
        assert_eq!(
            (e.sqlstate(), e.to_string()),
            (Some("42601"), "here: no".into())
        );
        assert_eq!(
            ErrorBody::new(&e, "schema").sqlstate.as_deref(),
            Some("42601")
        );
        assert_eq!(RestoreError::cancelled("x").reason(), R::Cancelled);
        let limit = RestoreError::from(JobError::new(R::ArchiveUnsupported, "needs more"));
        assert_eq!(ErrorBody::new(&limit, "data").blame, Blame::Infrastructure);
        assert_eq!(
            (
                RestoreError::internal("x").reason(),
                RestoreError::internal("x").sqlstate()
            ),
            (R::Internal, None)
        );
    }
}

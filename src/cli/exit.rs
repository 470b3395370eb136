//! Exit codes, and why a command failed.

use crate::app::AppError;
use crate::config::ConfigErrors;
use crate::error::{
    ErrorBody, FailureReason as R, RestoreError, ValidationError, ValidationKind, report,
};
use crate::event::RestoreResult;
use crate::postgres::NO_DATABASE;
use crate::queue::QueueError;

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Ok,
    Failed,
    Usage,
    /// The restore left out what the server refused.
    Incomplete,
    BadData,
    Unavailable,
    Permission,
    Config,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Exit {
    pub(super) const ALL: [Exit; 10] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::Incomplete,
        Exit::BadData,
        Exit::Unavailable,
        Exit::Permission,
        Exit::Config,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    pub(super) fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "success",
            Exit::Failed => "the restore or verification failed",
            Exit::Usage => "invalid command line, or it names a file that does not exist",
            Exit::Incomplete => "restored without what the server refused (--on-error skip)",
            Exit::BadData => {
                "a message or an archive cannot be read, masking rules do not fit the backup, or no restore can be continued"
            }
            Exit::Unavailable => "a server or service does not respond",
            Exit::Permission => "missing credentials or permissions",
            Exit::Config => "invalid configuration",
            Exit::Interrupted => "ended by SIGINT",
            Exit::Terminated => "ended by SIGTERM",
        }
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Incomplete => 3,
            Exit::BadData => 65,
            Exit::Unavailable => 69,
            Exit::Permission => 77,
            Exit::Config => 78,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// The exit code for a success.
    pub(super) fn of_success(result: &RestoreResult) -> Self {
        if result.complete == Some(false) {
            Exit::Incomplete
        } else if result.rehearsal.as_ref().is_some_and(|r| !r.restorable) {
            Exit::Failed
        } else {
            Exit::Ok
        }
    }

    /// The exit code for a failure that a result tells of.
    pub(super) fn of_error(reason: R, error: Option<&ErrorBody>) -> Self {
        match error {
            Some(e) if !e.misfits.is_empty() => Exit::BadData,
            other => Exit::of_failure(reason, other.and_then(|e| e.sqlstate.as_deref())),
        }
    }

    /// The exit code for a failure with this SQLSTATE, if the server gave one.
    pub(super) fn of_failure(reason: R, sqlstate: Option<&str>) -> Self {
        match (reason, sqlstate) {
            // DB_MAINTENANCE_NAME names a database that does not exist.
            (R::AccessDenied, Some(NO_DATABASE)) => Exit::Config,
            _ => Exit::of(reason),
        }
    }

    /// The exit code for a failure.
    pub(super) fn of(reason: R) -> Self {
        match reason {
            R::ArchiveCorrupt | R::ArchiveUnsupported | R::ChecksumMismatch | R::BackupChanged => {
                Exit::BadData
            }
            R::TargetUnavailable | R::DownloadFailed => Exit::Unavailable,
            R::AccessDenied | R::InsufficientPrivilege => Exit::Permission,
            R::InvalidRequest => Exit::Usage,
            R::Cancelled => Exit::Interrupted,
            R::TargetNotAllowed
            | R::TargetExists
            | R::TargetBusy
            | R::SourceNotAllowed
            | R::BackupNotFound
            | R::VersionIncompatible
            | R::ExtensionMissing
            | R::RoleMissing
            | R::InsufficientSpace
            | R::DataRejected
            | R::RestoreError
            | R::VerificationFailed
            | R::Timeout
            | R::Internal => Exit::Failed,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A server or service does not respond.
    #[error("{0}")]
    Unavailable(String),
    /// `restore --resume` finds no work that was kept.
    #[error("{0}")]
    NothingToContinue(String),
    #[error("{0}")]
    Other(String),
}

/// A mistake on the command line.
pub(super) fn usage(what: impl Into<String>) -> CommandError {
    RestoreError::from(ValidationError::new(ValidationKind::InvalidRequest, what)).into()
}

impl From<ConfigErrors> for CommandError {
    fn from(e: ConfigErrors) -> Self {
        CommandError::App(e.into())
    }
}

impl CommandError {
    /// Prints the error to standard error; each configuration error on a line of its own.
    pub(super) fn complain(&self) {
        match self {
            CommandError::App(AppError::Config(e)) => {
                err!("pgrestored: invalid configuration");
                e.0.iter().for_each(|mistake| err!("  {mistake}"));
            }
            other => err!("pgrestored: {}", report(other)),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            CommandError::App(AppError::Config(_)) => Exit::Config,
            CommandError::App(AppError::Database(e)) => Exit::of_failure(e.reason(), e.sqlstate()),
            CommandError::App(AppError::Admin(_))
            | CommandError::Io(_)
            | CommandError::Unavailable(_) => Exit::Unavailable,
            CommandError::App(AppError::Queue(e)) | CommandError::Queue(e) => match e {
                QueueError::Permanent(_) => Exit::Permission,
                QueueError::Missing(_) => Exit::Config,
                QueueError::Refused(_) => Exit::BadData,
                QueueError::Transient(_) => Exit::Unavailable,
            },
            CommandError::Restore(e) if !e.misfits().is_empty() => Exit::BadData,
            CommandError::Restore(e) => Exit::of_failure(e.reason(), e.sqlstate()),
            CommandError::NothingToContinue(_) => Exit::BadData,
            CommandError::Other(_) => Exit::Failed,
        }
    }
}

pub(super) type CommandResult = Result<Exit, CommandError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_left_something_out_has_an_exit_code_of_its_own() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let of = |complete| {
            let result = RestoreResult {
                complete,
                ..RestoreResult::new("r", (now, now))
            };
            Exit::of_success(&result).code()
        };
        assert_eq!([None, Some(true), Some(false)].map(of), [0, 0, 3]);
    }

    #[test]
    fn rules_that_do_not_fit_have_the_exit_code_of_bad_data() {
        let invalid = || ValidationError::new(ValidationKind::InvalidRequest, "no");
        let of = |e: ValidationError| {
            let body = ErrorBody::new(&e.into(), pgdump_restore::Stage::Prepare);
            Exit::of_error(body.reason, Some(&body)).code()
        };
        let unfit = || {
            let e = ValidationError::new(ValidationKind::MaskMisfit, "no");
            e.with_misfits(vec!["s.t, column a: no rule".to_owned()])
        };
        assert_eq!((of(invalid()), of(unfit())), (2, 65));
        assert_eq!(
            CommandError::from(RestoreError::from(unfit()))
                .exit()
                .code(),
            65
        );
    }
}

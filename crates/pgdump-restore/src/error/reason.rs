//! The closed list of reasons why a restore fails; blame and retry class follow from each.

use std::fmt;

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

impl Blame {
    /// The name in results, logs and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Target => "target",
            Self::Infrastructure => "infrastructure",
            Self::Request => "request",
        }
    }
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

    /// Who usually has to act on it; a kind of error may know better.
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
}

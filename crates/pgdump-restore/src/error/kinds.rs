//! What each error of the family can mean: a closed kind for each member, with its one reason.

use super::reason::{Blame, FailureReason};

macro_rules! kinds {
    (@blame $reason:ident) => { FailureReason::$reason.blame() };
    (@blame $reason:ident $blame:ident) => { Blame::$blame };
    ($(#[$doc:meta])* $name:ident {
        $($(#[$meaning:meta])* $kind:ident => $reason:ident $(blamed on $blame:ident)?,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$meaning])* $kind,)*
        }

        impl $name {
            /// Every kind, in the order of declaration.
            pub const ALL: &[$name] = &[$($name::$kind),*];

            /// The reason of an error of this kind; the retry class follows from it.
            pub const fn reason(self) -> FailureReason {
                match self {
                    $($name::$kind => FailureReason::$reason,)*
                }
            }

            /// Who has to act on it: not always the one that the reason suggests.
            pub fn blame(self) -> Blame {
                match self {
                    $($name::$kind => kinds!(@blame $reason $($blame)?),)*
                }
            }
        }
    };
}

kinds! {
    /// What a [`ValidationError`](super::ValidationError) means.
    ValidationKind {
        /// The request or the command is invalid.
        InvalidRequest => InvalidRequest,
        /// Masking rules do not fit the backup.
        MaskMisfit => InvalidRequest,
        /// This worker may not restore from the backup's location. Inside an allowed folder, it is
        /// [`StorageKind::OutsideFolder`].
        SourceNotAllowed => SourceNotAllowed,
        /// The target is protected, or may not be replaced by this request.
        TargetNotAllowed => TargetNotAllowed,
        /// The target exists, and the request does not allow replacing it.
        TargetExists => TargetExists,
        /// The backup's bytes do not match the checksum of the store or of the request.
        ChecksumMismatch => ChecksumMismatch,
        /// The archive is truncated, damaged or incomplete.
        ArchiveCorrupt => ArchiveCorrupt,
        /// The object is not a dump that this program can read.
        ArchiveUnsupported => ArchiveUnsupported,
        /// Evidence, or the restored data, does not match.
        VerificationFailed => VerificationFailed,
    }
}

kinds! {
    /// What a [`DatabaseError`](super::DatabaseError) means.
    DatabaseKind {
        /// The journal cannot hold the names of this request.
        NotRecordable => InvalidRequest,
        /// A database of the target's name appeared during the restore.
        NameTaken => TargetExists,
        /// Another session holds the target, or every role that could restore it.
        Busy => TargetBusy,
        /// The server does not answer, the connection was lost, or somebody else took over.
        Unavailable => TargetUnavailable,
        /// The issuer of passwords that expire issues none at the moment.
        IssuerUnavailable => TargetUnavailable,
        /// The server rejected the credentials, or no TLS connection is possible.
        AccessDenied => AccessDenied,
        /// The issuer of passwords that expire issues none to this program.
        NoPassword => AccessDenied,
        /// The database of sessions that concern the whole server (DB_MAINTENANCE_NAME) does not exist.
        MaintenanceMissing => AccessDenied,
        /// The server answers with more than this worker may keep: its own limit, so the backup is not to blame.
        AnswerTooLarge => ArchiveUnsupported blamed on Infrastructure,
        /// The server's version, or its build, cannot take this dump.
        VersionIncompatible => VersionIncompatible,
        /// The server does not have an extension that the dump needs.
        ExtensionMissing => ExtensionMissing,
        /// The server does not have a role that the dump names.
        RoleMissing => RoleMissing,
        /// The role of this session lacks privileges.
        InsufficientPrivilege => InsufficientPrivilege,
        /// The server is out of disk space.
        InsufficientSpace => InsufficientSpace,
        /// The server rejected rows.
        DataRejected => DataRejected,
        /// Rows that the target had before have the keys of rows of the backup.
        RowsExist => DataRejected blamed on Target,
        /// The server rejected a statement.
        StatementRejected => RestoreError,
        /// The server rejected a statement of the requester's own SQL, which finishes a restore.
        FinishingRejected => RestoreError blamed on Request,
        /// The server's table of locks is full, whose size is a setting of the server.
        LocksExhausted => RestoreError,
        /// A query of a check, or the requester's own SQL, did not end in its time.
        NoAnswer => Timeout,
    }
}

kinds! {
    /// What a [`StorageError`](super::StorageError) means.
    StorageKind {
        /// The store rejects the call as invalid, such as a name that no object can have.
        CallRejected => InvalidRequest,
        /// A name that leads out of the store's folder.
        OutsideFolder => SourceNotAllowed,
        /// The object, or the requested generation of it, does not exist.
        NotFound => BackupNotFound,
        /// The object was overwritten or deleted while it was read.
        Changed => BackupChanged,
        /// The store rejected the credentials.
        AccessDenied => AccessDenied,
        /// The store rejected the reading of a backup's object, or of a folder where it may be: the credentials, or of this
        /// object alone.
        ObjectDenied => AccessDenied,
        /// The object is encrypted with a key that requests would have to bring along, and this program has none.
        KeyMissing => ArchiveUnsupported blamed on Infrastructure,
        /// A retention policy or a hold keeps the object from being deleted.
        Retained => AccessDenied,
        /// The object could not be read to its end, even after retries.
        DownloadFailed => DownloadFailed,
        /// The store keeps sending another number of bytes than it says there are.
        WrongLength => ChecksumMismatch,
        /// The download was stopped, or nobody reads it any more.
        Stopped => Cancelled,
        /// A listing has more objects than this worker's memory can hold.
        ListingTooLong => ArchiveUnsupported blamed on Infrastructure,
        /// An internal error of this program's part of the store.
        Internal => Internal,
    }
}

kinds! {
    /// What a [`JobError`](super::JobError) means. None of them is the backup's fault.
    JobKind {
        /// The key for encrypted backups that this worker was given is not one.
        KeyInvalid => AccessDenied,
        /// A piece of a split backup is not there, or a file is named like a later piece of one: anybody who may add
        /// files can cause that.
        PieceMissing => ArchiveCorrupt blamed on Infrastructure,
        /// A directory has a file that is none of its members: anybody who may add files can cause that.
        ForeignFile => ArchiveCorrupt blamed on Infrastructure,
        /// Reading the archive takes more memory than this worker allows, a key that it was not given, or something that
        /// `pg_restore` or `psql` can do and this program cannot.
        LimitExceeded => ArchiveUnsupported blamed on Infrastructure,
        /// PostgreSQL cannot convert the dump's texts between its encoding and that of the database.
        NotConvertible => ArchiveUnsupported blamed on Infrastructure,
        /// Nothing shows that the backup is complete, which this worker demands.
        CompletenessUnproven => ArchiveUnsupported blamed on Infrastructure,
        /// The backup has more data than this worker restores.
        TooMuchData => DataRejected blamed on Infrastructure,
        /// The job exceeded its time limit.
        Timeout => Timeout,
        /// The job was stopped from outside.
        Cancelled => Cancelled,
        /// What an earlier attempt is recorded to have restored is not what the backup has: that attempt, or this one, read
        /// other bytes. The record must not be used again.
        RecordDiffers => Internal,
        /// An internal error of this program.
        Internal => Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::FailureReason as R;
    use super::*;

    /// Each kind as `member::kind`, with its reason and blame.
    fn kinds() -> Vec<(String, R, Blame)> {
        macro_rules! of {
            ($($member:literal $kind:ident),*) => {
                [$($kind::ALL.iter().map(|k| (format!("{}::{k:?}", $member), k.reason(), k.blame())).collect()),*]
            };
        }
        let all: [Vec<_>; 4] = of!(
            "Validation" ValidationKind, "Database" DatabaseKind, "Storage" StorageKind, "Job" JobKind
        );
        all.concat()
    }

    /// Where a reason comes from. Those with several sources are told apart by who found out, or by who is to blame.
    #[test]
    fn every_reason_has_its_sources() {
        let sources: [(R, &[&str]); 24] = [
            // The store and the journal reject what no check before them can know.
            (
                R::InvalidRequest,
                &[
                    "Validation::InvalidRequest",
                    "Validation::MaskMisfit",
                    "Database::NotRecordable",
                    "Storage::CallRejected",
                ],
            ),
            (R::TargetNotAllowed, &["Validation::TargetNotAllowed"]),
            // Before the restore, and when it is swapped into place.
            (
                R::TargetExists,
                &["Validation::TargetExists", "Database::NameTaken"],
            ),
            (R::TargetBusy, &["Database::Busy"]),
            // The server, and the issuer of its passwords.
            (
                R::TargetUnavailable,
                &["Database::Unavailable", "Database::IssuerUnavailable"],
            ),
            // Only the folder knows where its links lead.
            (
                R::SourceNotAllowed,
                &["Validation::SourceNotAllowed", "Storage::OutsideFolder"],
            ),
            (R::BackupNotFound, &["Storage::NotFound"]),
            (R::BackupChanged, &["Storage::Changed"]),
            // Credentials of the server, of its issuer of passwords, of the store, and for the archive; the database to connect
            // to; and what the store keeps.
            (
                R::AccessDenied,
                &[
                    "Database::AccessDenied",
                    "Database::NoPassword",
                    "Database::MaintenanceMissing",
                    "Storage::AccessDenied",
                    "Storage::ObjectDenied",
                    "Storage::Retained",
                    "Job::KeyInvalid",
                ],
            ),
            (R::DownloadFailed, &["Storage::DownloadFailed"]),
            // Of a whole backup, and of a few bytes.
            (
                R::ChecksumMismatch,
                &["Validation::ChecksumMismatch", "Storage::WrongLength"],
            ),
            // Damage, and what others can do to a backup that is not damaged.
            (
                R::ArchiveCorrupt,
                &[
                    "Validation::ArchiveCorrupt",
                    "Job::PieceMissing",
                    "Job::ForeignFile",
                ],
            ),
            // No dump, and limits of this worker.
            (
                R::ArchiveUnsupported,
                &[
                    "Validation::ArchiveUnsupported",
                    "Database::AnswerTooLarge",
                    "Storage::KeyMissing",
                    "Storage::ListingTooLong",
                    "Job::LimitExceeded",
                    "Job::NotConvertible",
                    "Job::CompletenessUnproven",
                ],
            ),
            (R::VersionIncompatible, &["Database::VersionIncompatible"]),
            (R::ExtensionMissing, &["Database::ExtensionMissing"]),
            (R::RoleMissing, &["Database::RoleMissing"]),
            (
                R::InsufficientPrivilege,
                &["Database::InsufficientPrivilege"],
            ),
            (R::InsufficientSpace, &["Database::InsufficientSpace"]),
            // The server's rejection, of the backup's rows or because of others, and this worker's limit.
            (
                R::DataRejected,
                &[
                    "Database::DataRejected",
                    "Database::RowsExist",
                    "Job::TooMuchData",
                ],
            ),
            // The statement, of the dump or of the requester, and a limit of the server.
            (
                R::RestoreError,
                &[
                    "Database::StatementRejected",
                    "Database::FinishingRejected",
                    "Database::LocksExhausted",
                ],
            ),
            (R::VerificationFailed, &["Validation::VerificationFailed"]),
            // Of a query, and of the job.
            (R::Timeout, &["Database::NoAnswer", "Job::Timeout"]),
            // A download ends alone, too.
            (R::Cancelled, &["Storage::Stopped", "Job::Cancelled"]),
            // The trait of the stores has errors of the store only. What was read twice is not known to be the backup's fault.
            (
                R::Internal,
                &["Storage::Internal", "Job::RecordDiffers", "Job::Internal"],
            ),
        ];
        assert_eq!(sources.map(|(reason, _)| reason), R::ALL);
        let found = kinds();
        for (reason, wanted) in sources {
            let of_reason = found.iter().filter(|(_, r, _)| *r == reason);
            let names: Vec<&str> = of_reason.map(|(name, ..)| name.as_str()).collect();
            assert_eq!(names, wanted, "{reason}");
        }
    }

    /// Limits of this worker, and what others can do to a backup, are never blamed on the backup.
    #[test]
    fn a_kind_has_the_blame_of_its_reason_but_for_these() {
        let found = kinds();
        let others = found
            .iter()
            .filter(|(_, reason, blame)| *blame != reason.blame());
        let others: Vec<(&str, Blame)> = others.map(|(name, _, b)| (name.as_str(), *b)).collect();
        let wanted = [
            "Database::AnswerTooLarge",
            "Database::RowsExist",
            "Database::FinishingRejected",
            "Storage::KeyMissing",
            "Storage::ListingTooLong",
            "Job::PieceMissing",
            "Job::ForeignFile",
            "Job::LimitExceeded",
            "Job::NotConvertible",
            "Job::CompletenessUnproven",
            "Job::TooMuchData",
        ];
        let blamed = |name| match name {
            "Database::RowsExist" => (name, Blame::Target),
            "Database::FinishingRejected" => (name, Blame::Request),
            _ => (name, Blame::Infrastructure),
        };
        assert_eq!(others, wanted.map(blamed));
        assert!(JobKind::ALL.iter().all(|k| k.blame() != Blame::Backup));
    }
}

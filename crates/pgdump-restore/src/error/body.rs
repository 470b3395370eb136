//! An error as results and reports write it.

use super::{
    Blame, DatabaseError, DatabaseKind as D, FailureReason, JobError, JobKind as J, RestoreError,
    RetryClass, StorageError, StorageKind as S, ValidationError, ValidationKind as V, line_of,
    report,
};
use crate::refusal::{LISTED_REFUSALS, Refusal};
use crate::stage::Stage;

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
    /// Definitions that the server refused in this stage, and those that depend on them: the first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// Number of all of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refusals_total: u64,
    /// Masking rules that do not fit the backup: the first 100, each with its table and column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misfits: Vec<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

/// Most misfits in a body.
const LISTED_MISFITS: usize = 100;
/// Most bytes of each.
const MISFIT_BYTES: usize = 500;

fn bounded(misfits: &[String]) -> Vec<String> {
    let listed = misfits.iter().take(LISTED_MISFITS);
    listed.map(|text| line_of(text, MISFIT_BYTES)).collect()
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ErrorBody {
    /// The body of `error`; `stage` is the job's current stage, which an error's own stage overrides.
    pub fn new(error: &RestoreError, stage: Stage) -> Self {
        use RetryClass as C;
        let (reason, refusals) = (error.reason(), error.refusals());
        ErrorBody {
            reason,
            blame: error.blame(),
            stage: error.stage().unwrap_or(stage).to_string(),
            message: report(error),
            sqlstate: error.sqlstate().map(str::to_owned),
            refusals: refusals.iter().take(LISTED_REFUSALS).cloned().collect(),
            refusals_total: refusals.len() as u64,
            misfits: bounded(error.misfits()),
            retryable: match reason.retry_class() {
                C::Permanent => false,
                C::Transient | C::Environment | C::Busy | C::Interrupted => true,
            },
        }
    }
}

/// The error that a body tells of, but for its sources. What several members can mean is the kind that ends a job
/// with it.
impl From<ErrorBody> for RestoreError {
    fn from(body: ErrorBody) -> Self {
        use FailureReason as R;
        let (message, misfits) = (body.message, body.misfits);
        let invalid = |kind, message| ValidationError::new(kind, message).into();
        let of_server = |kind, message| {
            let e = DatabaseError::new(kind, message);
            match &body.sqlstate {
                Some(code) => e.with_sqlstate(code).into(),
                None => e.into(),
            }
        };
        let of_store = |kind, message| StorageError::new(kind, message).into();
        let of_job = |kind, message| JobError::new(kind, message).into();
        match (body.reason, body.blame) {
            (R::InvalidRequest, _) if !misfits.is_empty() => {
                let e = ValidationError::new(V::MaskMisfit, message);
                e.with_misfits(misfits).into()
            }
            (R::InvalidRequest, _) => invalid(V::InvalidRequest, message),
            (R::TargetNotAllowed, _) => invalid(V::TargetNotAllowed, message),
            (R::TargetExists, _) => invalid(V::TargetExists, message),
            (R::TargetBusy, _) => of_server(D::Busy, message),
            (R::TargetUnavailable, _) => of_server(D::Unavailable, message),
            (R::SourceNotAllowed, _) => invalid(V::SourceNotAllowed, message),
            (R::BackupNotFound, _) => of_store(S::NotFound, message),
            (R::BackupChanged, _) => of_store(S::Changed, message),
            (R::AccessDenied, _) if body.sqlstate.is_some() => of_server(D::AccessDenied, message),
            (R::AccessDenied, _) => of_store(S::AccessDenied, message),
            (R::DownloadFailed, _) => of_store(S::DownloadFailed, message),
            (R::ChecksumMismatch, _) => invalid(V::ChecksumMismatch, message),
            (R::ArchiveCorrupt, Blame::Infrastructure) => of_job(J::PieceMissing, message),
            (R::ArchiveCorrupt, _) => invalid(V::ArchiveCorrupt, message),
            (R::ArchiveUnsupported, Blame::Infrastructure) => of_job(J::LimitExceeded, message),
            (R::ArchiveUnsupported, _) => invalid(V::ArchiveUnsupported, message),
            (R::VersionIncompatible, _) => of_server(D::VersionIncompatible, message),
            (R::ExtensionMissing, _) => of_server(D::ExtensionMissing, message),
            (R::RoleMissing, _) => of_server(D::RoleMissing, message),
            (R::InsufficientPrivilege, _) => of_server(D::InsufficientPrivilege, message),
            (R::InsufficientSpace, _) => of_server(D::InsufficientSpace, message),
            (R::DataRejected, Blame::Infrastructure) => of_job(J::TooMuchData, message),
            (R::DataRejected, Blame::Target) => of_server(D::RowsExist, message),
            (R::DataRejected, _) => of_server(D::DataRejected, message),
            (R::RestoreError, Blame::Request) => of_server(D::FinishingRejected, message),
            (R::RestoreError, _) => of_server(D::StatementRejected, message),
            (R::VerificationFailed, _) => invalid(V::VerificationFailed, message),
            (R::Timeout, _) => of_job(J::Timeout, message),
            (R::Cancelled, _) => of_job(J::Cancelled, message),
            (R::Internal, _) => of_job(J::Internal, message),
        }
    }
}

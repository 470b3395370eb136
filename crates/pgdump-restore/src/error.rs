//! The documented error family: [`RestoreError`] over [`ValidationError`], [`DatabaseError`], [`StorageError`] and
//! [`JobError`]. Each has a closed kind of its own, and each kind one [`FailureReason`]: the metric label, the event
//! field and the retry decision all follow from it. `Display` shows this layer only; [`report`] walks the sources.

mod body;
mod kinds;
mod reason;

use crate::refusal::Refusal;
use crate::stage::Stage;
use std::error::Error as StdError;
use std::fmt;

use pgdump_archive::{ArchiveError, Problem};

pub use body::ErrorBody;
pub use kinds::{DatabaseKind, JobKind, StorageKind, ValidationKind};
pub use pgdump_archive::bounded::{MAX_TEXT, bound_list, is_unsafe, line_of, one_line};
pub use reason::{Blame, FailureReason, RetryClass};

type BoxedSource = Box<dyn StdError + Send + Sync>;

/// What every error of the family holds: its kind, a human-readable sentence, and the source; and what only one
/// member knows.
#[derive(Debug)]
struct Fault<K, D = ()> {
    kind: K,
    message: String,
    details: D,
    source: Option<BoxedSource>,
}

/// What only an error of the server has.
#[derive(Debug, Default)]
struct ServerDetails {
    sqlstate: Option<String>,
    /// The stage that failed, if it is not the job's current stage.
    stage: Option<Stage>,
    /// Everything that the server refused in that stage.
    refusals: Vec<Refusal>,
    /// What the statement would make is there already, which its SQLSTATE does not say.
    is_done_already: bool,
}

/// What only an error of a request has.
#[derive(Debug, Default)]
struct RequestDetails {
    /// Masking rules that do not fit the backup, one by one.
    misfits: Vec<String>,
}

/// What only an error of the store has.
#[derive(Debug, Default)]
struct StoreDetails {
    /// What to do about it, which its message ends with.
    fix: Option<String>,
}

macro_rules! family_member {
    ($(#[$doc:meta])* $name:ident of $kind:ident $(with $details:ty)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Box<Fault<$kind $(, $details)?>>);

        impl $name {
            /// An error whose message is made one line of at most [`MAX_TEXT`] bytes.
            pub fn new(kind: $kind, message: impl Into<String>) -> Self {
                $name(Box::new(Fault {
                    kind,
                    message: one_line(&message.into()),
                    details: Default::default(),
                    source: None,
                }))
            }

            /// The same error with its cause, which [`report`] appends to the message.
            pub fn with_source(mut self, source: impl Into<BoxedSource>) -> Self {
                self.0.source = Some(source.into());
                self
            }

            /// What it means; reason and blame follow from it.
            pub fn kind(&self) -> $kind {
                self.0.kind
            }

            /// Why it failed; the retry class follows from it.
            pub fn reason(&self) -> FailureReason {
                self.0.kind.reason()
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
    ValidationError of ValidationKind with RequestDetails
}
family_member! {
    /// PostgreSQL returned an error, is not available, or the connection was lost.
    DatabaseError of DatabaseKind with ServerDetails
}
family_member! {
    /// Listing or reading the backup store failed.
    StorageError of StorageKind with StoreDetails
}
family_member! {
    /// The job was stopped, or failed in the worker itself: a limit of it, timeout, shutdown, an internal error.
    JobError of JobKind
}

impl ValidationError {
    /// The same error with all masking rules that do not fit.
    pub fn with_misfits(mut self, misfits: Vec<String>) -> Self {
        self.0.details.misfits = misfits;
        self
    }
}

impl DatabaseError {
    /// The same error with a five-character SQLSTATE.
    pub fn with_sqlstate(mut self, code: &str) -> Self {
        self.0.details.sqlstate = Some(code.to_owned());
        self
    }

    /// The five-character SQLSTATE, if PostgreSQL gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.details.sqlstate.as_deref()
    }

    /// The same error with everything that the server refused in its stage.
    pub(crate) fn with_refusals(mut self, refusals: Vec<Refusal>) -> Self {
        self.0.details.refusals = refusals;
        self
    }

    /// The same error; if `is_done`, one that says that what the statement would make is there already.
    pub(crate) fn of_done(mut self, is_done: bool) -> Self {
        self.0.details.is_done_already = is_done;
        self
    }

    /// Whether the server says that what the statement would make is there already, with a SQLSTATE that does not say it.
    pub(crate) fn is_done_already(&self) -> bool {
        self.0.details.is_done_already
    }

    /// The same error with the stage it belongs to, which other sessions of the job may have left already.
    pub fn in_stage(mut self, stage: Stage) -> Self {
        self.0.details.stage = Some(stage);
        self
    }
}

impl StorageError {
    /// The same error with what to do about it, which is appended to its message, too.
    pub fn with_fix(self, fix: &str) -> Self {
        let fix = one_line(fix);
        let mut error = self.followed_by(&format!("; {fix}"));
        error.0.details.fix = Some(fix);
        error
    }

    /// What to do about it, if it knows.
    pub fn fix(&self) -> Option<&str> {
        self.0.details.fix.as_deref()
    }
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
    /// Why it failed; the retry class follows from it.
    pub fn reason(&self) -> FailureReason {
        match self {
            RestoreError::Validation(e) => e.reason(),
            RestoreError::Database(e) => e.reason(),
            RestoreError::Storage(e) => e.reason(),
            RestoreError::Job(e) => e.reason(),
        }
    }

    /// Who has to act on it. A limit of the worker (memory, a missing key) is never blamed on the backup.
    pub fn blame(&self) -> Blame {
        match self {
            RestoreError::Validation(e) => e.kind().blame(),
            RestoreError::Database(e) => e.kind().blame(),
            RestoreError::Storage(e) => e.kind().blame(),
            RestoreError::Job(e) => e.kind().blame(),
        }
    }

    fn of_server(&self) -> Option<&DatabaseError> {
        match self {
            RestoreError::Database(e) => Some(e),
            RestoreError::Validation(_) | RestoreError::Storage(_) | RestoreError::Job(_) => None,
        }
    }

    /// The five-character SQLSTATE, if PostgreSQL gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.of_server()?.sqlstate()
    }

    /// Everything that the server refused in the stage that failed.
    pub fn refusals(&self) -> &[Refusal] {
        self.of_server()
            .map_or(&[], |e| e.0.details.refusals.as_slice())
    }

    /// All masking rules that do not fit the backup.
    pub fn misfits(&self) -> &[String] {
        match self {
            RestoreError::Validation(e) => &e.0.details.misfits,
            RestoreError::Database(_) | RestoreError::Storage(_) | RestoreError::Job(_) => &[],
        }
    }

    /// The same error of a server with everything that it refused; another error as it is.
    pub fn with_refusals(self, refusals: Vec<Refusal>) -> Self {
        match self {
            RestoreError::Database(e) => RestoreError::Database(e.with_refusals(refusals)),
            other => other,
        }
    }

    /// The stage it belongs to, if that is not the job's current stage.
    fn stage(&self) -> Option<Stage> {
        self.of_server()?.0.details.stage
    }

    /// What to do about it, if the error or one of its sources knows; [`report`] says it, too.
    pub fn fix(&self) -> Option<&str> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(self);
        while let Some(e) = next {
            if let Some(fix) = e.downcast_ref::<StorageError>().and_then(StorageError::fix) {
                return Some(fix);
            }
            next = e.source();
        }
        None
    }

    /// A [`JobError`] with the reason `cancelled`; `why` is its message.
    pub fn cancelled(why: &str) -> Self {
        JobError::new(JobKind::Cancelled, why).into()
    }

    /// A [`JobError`] with the reason `internal`: something that this program's own code should have prevented.
    pub fn internal(what: impl Into<String>) -> Self {
        JobError::new(JobKind::Internal, what).into()
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

/// The only mapping from errors of the archive reader to the family.
impl From<ArchiveError> for RestoreError {
    fn from(e: ArchiveError) -> Self {
        use ValidationKind as V;
        match e {
            ArchiveError::Source(e) => match e.downcast::<RestoreError>() {
                Ok(ours) => *ours,
                Err(e) => RestoreError::internal(e.to_string()),
            },
            ArchiveError::Limit(problem) => blameless(JobKind::LimitExceeded, problem),
            // Nothing shows that the backup is at fault.
            ArchiveError::Foreign(problem) => blameless(JobKind::ForeignFile, problem),
            ArchiveError::Corrupt(problem) => invalid(V::ArchiveCorrupt, problem),
            ArchiveError::Unsupported(problem) => invalid(V::ArchiveUnsupported, problem),
            ArchiveError::NotFound(problem) => invalid(V::InvalidRequest, problem),
            other => RestoreError::internal(other.to_string()),
        }
    }
}

fn blameless(kind: JobKind, problem: Problem) -> RestoreError {
    JobError::new(kind, problem.into_parts().0).into()
}

fn invalid(kind: ValidationKind, problem: Problem) -> RestoreError {
    let (message, source) = problem.into_parts();
    let error = ValidationError::new(kind, message);
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

#[cfg(test)]
mod tests {
    use super::FailureReason as R;
    use super::*;

    fn one_of_each<K: Copy, E: Into<RestoreError>>(
        kinds: &[K],
        new: fn(K, &'static str) -> E,
    ) -> impl Iterator<Item = RestoreError> {
        kinds.iter().map(move |kind| new(*kind, "x").into())
    }

    /// Reason, blame and message of an error are the same after its body.
    #[test]
    fn an_error_can_be_told_again() {
        let all = one_of_each(ValidationKind::ALL, ValidationError::new)
            .chain(one_of_each(DatabaseKind::ALL, DatabaseError::new))
            .chain(one_of_each(StorageKind::ALL, StorageError::new))
            .chain(one_of_each(JobKind::ALL, JobError::new));
        for error in all {
            let body = ErrorBody::new(&error, Stage::Data);
            let again = RestoreError::from(body.clone());
            assert_eq!(ErrorBody::new(&again, Stage::Data), body, "{error:?}");
        }
        let refused = DatabaseError::new(DatabaseKind::AccessDenied, "no").with_sqlstate("28P01");
        let again = RestoreError::from(ErrorBody::new(&refused.into(), Stage::Prepare));
        assert_eq!(again.sqlstate(), Some("28P01"));
        let unfit = ValidationError::new(ValidationKind::MaskMisfit, "no")
            .with_misfits(vec!["public.t, column a: no rule".to_owned()]);
        let again = RestoreError::from(ErrorBody::new(&unfit.into(), Stage::Prepare));
        assert_eq!(again.misfits(), ["public.t, column a: no rule"]);
        assert_eq!(again.reason(), FailureReason::InvalidRequest);
    }

    /// Other sessions of the job may have left it already.
    #[test]
    fn the_stage_of_an_error_comes_before_that_of_the_job() {
        let refused = || DatabaseError::new(DatabaseKind::StatementRejected, "no");
        let stage = |e: DatabaseError| ErrorBody::new(&e.into(), Stage::Indexes).stage;
        assert_eq!(stage(refused().in_stage(Stage::Data)), "data");
        assert_eq!(stage(refused()), "indexes");
    }

    #[test]
    fn errors_of_the_family_survive_std_io() {
        let inner = RestoreError::from(StorageError::new(StorageKind::DownloadFailed, "cut"));
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
        let e = RestoreError::from(
            StorageError::new(StorageKind::DownloadFailed, "reading").with_source(cause),
        );
        assert_eq!(report(&e), "reading: disk failure");
        let again = StorageError::new(StorageKind::DownloadFailed, "reading: cut")
            .with_source(std::io::Error::other("cut"));
        assert_eq!(report(&again), "reading: cut");
    }

    /// The end of a message is what a reader acts on, so a long beginning does not cut it off.
    #[test]
    fn a_fix_ends_the_message_and_is_found_behind_other_errors() {
        let denied =
            |what: &str| StorageError::new(StorageKind::AccessDenied, what).with_fix("set X\nto Y");
        let huge = denied(&"x".repeat(2 * MAX_TEXT));
        assert!(huge.to_string().ends_with("; set X to Y"), "{huge}");
        assert!(huge.to_string().len() <= MAX_TEXT);
        let outer = StorageError::new(StorageKind::ObjectDenied, "the backup cannot be read");
        let e = RestoreError::from(outer.with_source(denied("gs://b/x: no")));
        assert_eq!(e.fix(), Some("set X to Y"));
        let said = "the backup cannot be read: gs://b/x: no; set X to Y";
        assert_eq!(report(&e), said);
        assert_eq!(ErrorBody::new(&e, Stage::Data).message, said);
        assert_eq!(RestoreError::internal("x").fix(), None);
    }

    #[test]
    fn errors_are_bounded_whatever_they_quote() {
        let huge = "\u{1b}[2J\n".repeat(4_000_000);
        let cause = std::io::Error::other(huge.clone());
        let e = RestoreError::from(
            DatabaseError::new(DatabaseKind::StatementRejected, &huge)
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
        let refused = DatabaseError::new(DatabaseKind::StatementRejected, "no")
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
        let limit = RestoreError::from(JobError::new(JobKind::LimitExceeded, "needs more"));
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

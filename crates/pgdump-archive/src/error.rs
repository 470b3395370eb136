//! Why an archive could not be read.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::bounded::one_line;

type BoxedError = Box<dyn StdError + Send + Sync>;

/// Why an archive could not be read. Messages are one line of bounded length, whatever the archive holds.
#[derive(Debug)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive is truncated, damaged or inconsistent.
    Corrupt(Problem),
    /// The input is not a dump, or contains what `pg_restore` or `psql` refuse, too.
    Unsupported(Problem),
    /// Nothing shows that the archive is damaged: reading it takes more than [`Limits`](crate::Limits) allow, a key that
    /// was not given, or something that `pg_restore` or `psql` can do and this crate cannot.
    Limit(Problem),
    /// A directory contains a file that is not one of its members. Anybody who may add files can cause that, so
    /// nothing shows that the archive is damaged; but as its own files cannot be identified, it is not read.
    Foreign(Problem),
    /// The archive does not contain what was requested.
    NotFound(Problem),
    /// The reader that supplies the bytes, or the sink that takes the data, failed; the source is its error.
    Source(BoxedError),
}

/// What is wrong, in one line, and the underlying error if there is one.
#[derive(Debug)]
pub struct Problem {
    message: String,
    source: Option<BoxedError>,
}

impl Problem {
    fn new(message: impl Into<String>) -> Self {
        Problem {
            message: one_line(&message.into()),
            source: None,
        }
    }

    /// The message and the underlying error.
    pub fn into_parts(self) -> (String, Option<BoxedError>) {
        (self.message, self.source)
    }
}

impl ArchiveError {
    /// [`ArchiveError::Corrupt`] with this message.
    pub fn corrupt(message: impl Into<String>) -> Self {
        ArchiveError::Corrupt(Problem::new(message))
    }

    /// [`ArchiveError::Unsupported`] with this message.
    pub fn unsupported(message: impl Into<String>) -> Self {
        ArchiveError::Unsupported(Problem::new(message))
    }

    /// [`ArchiveError::Limit`] with this message.
    pub fn limit(message: impl Into<String>) -> Self {
        ArchiveError::Limit(Problem::new(message))
    }

    /// [`ArchiveError::Foreign`] with this message.
    pub fn foreign(message: impl Into<String>) -> Self {
        ArchiveError::Foreign(Problem::new(message))
    }

    /// [`ArchiveError::NotFound`] with this message.
    pub fn not_found(message: impl Into<String>) -> Self {
        ArchiveError::NotFound(Problem::new(message))
    }

    /// An error of the reader or the sink, which is returned as [`ArchiveError::Source`]. A reader returns it as
    /// `io::Error::from(ArchiveError::source(e))`; any other I/O error of a reader counts as damaged bytes.
    pub fn source(error: impl Into<BoxedError>) -> Self {
        ArchiveError::Source(error.into())
    }

    /// Recovers the error that [`io::Error::from`] carried through a decoder. Any other I/O error while reading
    /// `what` means that the bytes are damaged or end early.
    pub fn from_io(e: io::Error, what: &str) -> Self {
        match e.downcast::<ArchiveError>() {
            Ok(ours) => ours,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Self::corrupt(format!("the archive ends early: {what}"))
            }
            Err(e) => {
                let message = one_line(&format!("the archive is damaged: {what}"));
                ArchiveError::Corrupt(Problem {
                    message,
                    source: Some(e.into()),
                })
            }
        }
    }

    /// The same error with its message changed; an error of the reader or the sink stays as it is.
    pub(crate) fn map_message(mut self, change: impl FnOnce(&str) -> String) -> Self {
        if let Some(problem) = self.problem_mut() {
            problem.message = one_line(&change(&problem.message));
        }
        self
    }

    fn problem(&self) -> Option<&Problem> {
        use ArchiveError::{Corrupt, Foreign, Limit, NotFound, Source, Unsupported};
        match self {
            Corrupt(p) | Unsupported(p) | Limit(p) | Foreign(p) | NotFound(p) => Some(p),
            Source(_) => None,
        }
    }

    fn problem_mut(&mut self) -> Option<&mut Problem> {
        use ArchiveError::{Corrupt, Foreign, Limit, NotFound, Source, Unsupported};
        match self {
            Corrupt(p) | Unsupported(p) | Limit(p) | Foreign(p) | NotFound(p) => Some(p),
            Source(_) => None,
        }
    }
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.problem(), self) {
            (Some(problem), _) => f.write_str(&problem.message),
            (None, ArchiveError::Source(e)) => e.fmt(f),
            (None, _) => Ok(()),
        }
    }
}

impl StdError for ArchiveError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match (self.problem(), self) {
            (Some(problem), _) => problem.source.as_deref().map(|s| s as _),
            (None, ArchiveError::Source(e)) => e.source(),
            (None, _) => None,
        }
    }
}

impl From<ArchiveError> for io::Error {
    fn from(e: ArchiveError) -> Self {
        io::Error::other(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_truncation_are_distinguished() {
        let message = |kind: io::ErrorKind| ArchiveError::from_io(kind.into(), "x").to_string();
        assert_eq!(
            message(io::ErrorKind::UnexpectedEof),
            "the archive ends early: x"
        );
        assert_eq!(
            message(io::ErrorKind::InvalidData),
            "the archive is damaged: x"
        );
    }

    #[test]
    fn an_error_of_the_reader_survives_std_io() {
        let inner = ArchiveError::source("the network is down");
        let back = ArchiveError::from_io(inner.into(), "table of contents");
        assert!(matches!(&back, ArchiveError::Source(e) if e.to_string() == "the network is down"));
        assert_eq!(
            back.map_message(|_| String::new()).to_string(),
            "the network is down"
        );
    }

    #[test]
    fn messages_are_bounded_whatever_they_quote() {
        let long =
            ArchiveError::corrupt("x\n".repeat(1 << 20)).map_message(|m| format!("line 1: {m}"));
        assert!(long.to_string().len() <= crate::bounded::MAX_TEXT);
    }
}

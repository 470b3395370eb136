//! Finds which parts of a text `pg_dump` wrote, by the comments that it begins and ends with, and what that
//! says about the text's completeness.

use std::sync::{Arc, OnceLock};

use super::toc::corrupt;
use crate::error::ArchiveError;

pub(super) const HEAD: &str = "-- PostgreSQL database dump";
pub(super) const END: &str = "-- PostgreSQL database dump complete";
pub(super) const CLUSTER_HEAD: &str = "-- PostgreSQL database cluster dump";
pub(super) const CLUSTER_END: &str = "-- PostgreSQL database cluster dump complete";

/// The dumps in a text, from head to end mark.
#[derive(Debug, Default)]
pub(super) struct DumpMarks {
    /// Line of the head whose end mark has not been found yet.
    open: Option<u64>,
    complete: u64,
    /// Whether a statement outside of every dump creates or changes something.
    has_more: bool,
    /// Line of the head of `pg_dumpall`.
    cluster: Option<u64>,
    cluster_complete: bool,
    /// Line of a BEGIN without its COMMIT.
    transaction: Option<u64>,
    /// Line of the first statement that may change rows and that `pg_dump` did not write.
    pub foreign: Arc<OnceLock<u64>>,
}

impl DumpMarks {
    /// Records a comment line.
    ///
    /// # Errors
    /// `ArchiveError::Corrupt` if a dump begins before the preceding one has ended.
    pub(crate) fn comment(&mut self, comment: &str, line: u64) -> Result<(), ArchiveError> {
        match comment {
            HEAD => {
                if let Some(open) = self.open.replace(line) {
                    return Err(corrupt(format!(
                        "the dump that begins in line {open} ends early: another one begins in line {line}"
                    )));
                }
            }
            END if self.open.take().is_some() => self.complete += 1,
            CLUSTER_HEAD => self.cluster = Some(line),
            CLUSTER_END => self.cluster_complete = true,
            _ => {}
        }
        Ok(())
    }

    /// Records a statement; one with `is_setting` creates and changes nothing. Returns whether it is one that is outside of
    /// every dump and creates or changes something.
    pub(crate) fn statement(&mut self, is_setting: bool) -> bool {
        // The dumps of a cluster's databases are surrounded by its roles.
        let is_more = self.open.is_none() && self.cluster.is_none() && !is_setting;
        self.has_more |= is_more;
        is_more
    }

    pub(crate) fn transaction(&mut self, begun: Option<u64>) {
        self.transaction = begun;
    }

    /// Whether a dump is open or complete.
    pub(crate) fn any(&self) -> bool {
        self.open.is_some() || self.complete > 0
    }

    /// Whether a dump has ended and none is open.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete > 0
            && self.open.is_none()
            && (self.cluster.is_none() || self.cluster_complete)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Whether the end of the text, in `line`, shows that the text is complete.
    ///
    /// # Errors
    /// `ArchiveError::Corrupt` if an end mark or a COMMIT is missing.
    pub(crate) fn finish(&self, line: u64) -> Result<bool, ArchiveError> {
        if let Some(open) = self.open {
            return Err(corrupt(format!(
                "the dump ends early, in line {line}: the last line of the dump that begins in line {open}, \
                 {END:?}, is missing"
            )));
        }
        if self.cluster.is_some() && !self.cluster_complete {
            return Err(corrupt(format!(
                "the dump ends early, in line {line}: the last line of pg_dumpall, {CLUSTER_END:?}, is missing"
            )));
        }
        if let Some(begun) = self.transaction {
            return Err(corrupt(format!(
                "the text ends, in line {line}, inside the transaction that begins in line {begun}: COMMIT is \
                 missing, and psql would roll all of it back"
            )));
        }
        Ok(self.complete > 0 && !self.has_more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(comments: &[&str]) -> Result<bool, ArchiveError> {
        let mut marks = DumpMarks::default();
        for (line, comment) in (1..).zip(comments) {
            match *comment {
                "set" | "create" => {
                    marks.statement(*comment == "set");
                }
                other => marks.comment(other, line)?,
            }
        }
        marks.finish(9)
    }

    #[test]
    fn end_marks_show_completeness() {
        const PROVEN: bool = true;
        const UNKNOWN: bool = false;
        for (comments, wanted) in [
            (&["set", HEAD, "create", END, "set"][..], Some(PROVEN)),
            (&[HEAD, "create", END, HEAD, "create", END], Some(PROVEN)),
            (&[HEAD, "create", END, "create"], Some(UNKNOWN)),
            (&["create"], Some(UNKNOWN)),
            // The head may have been cut off with everything after it.
            (&["create", END], Some(UNKNOWN)),
            (&[HEAD, "create"], None),
            (&[HEAD, "create", END, HEAD, "create"], None),
            (&[HEAD, "create", HEAD, "create", END], None),
            (&[CLUSTER_HEAD, HEAD, END], None),
            (
                &[CLUSTER_HEAD, "create", HEAD, END, CLUSTER_END],
                Some(PROVEN),
            ),
        ] {
            assert_eq!(after(comments).ok(), wanted, "{comments:?}");
        }
        let mut open = DumpMarks::default();
        open.transaction(Some(3));
        assert!(
            open.finish(9)
                .unwrap_err()
                .to_string()
                .contains("begins in line 3")
        );
    }
}

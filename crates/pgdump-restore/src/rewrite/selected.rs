//! Statements of SQL text that the selection leaves out by their kind and name. Entries of a table of contents are selected
//! before any rule sees them.

use super::Rewriter;
use super::rules::NOT_SELECTED;
use crate::choice::StatementChoice;
use crate::error::RestoreError;
use crate::policy::Selection;
use pgdump_archive::TocEntry;

impl Rewriter {
    /// From now on, leaves out of SQL text what the selection says.
    pub(crate) fn select_statements(&self, selection: &Selection) {
        self.state().choice = StatementChoice::of(selection);
    }

    /// Whether a statement is left out.
    pub(crate) fn leaves_out(&self, sql: &str) -> bool {
        self.reports(|choice| choice.left_out(sql))
    }

    /// The same for rows, and for the data of large objects.
    pub(crate) fn leaves_out_rows(&self, entry: &TocEntry) -> bool {
        self.reports(|choice| choice.left_out_rows(entry))
    }

    fn reports(&self, left_out: impl FnOnce(&mut StatementChoice) -> Option<String>) -> bool {
        let name = self.state().choice.as_mut().and_then(left_out);
        if let Some(name) = &name {
            self.used(NOT_SELECTED, name.as_str());
        }
        name.is_some()
    }

    /// Refuses names of the selection that nothing in the text has, once all of it was read.
    ///
    /// # Errors
    /// `invalid_request`.
    pub(crate) fn check_selection(&self) -> Result<(), RestoreError> {
        match &self.state().choice {
            Some(choice) => choice.check(),
            None => Ok(()),
        }
    }
}

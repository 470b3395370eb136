//! Statements of SQL text that the selection, or the profile of a managed service, leaves out by their kind and name.
//! Entries of a table of contents are selected before any rule sees them.

use super::Rewriter;
use super::rules::{NOT_SELECTED, PLATFORM_OBJECT};
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

    fn reports(&self, left_out: impl Fn(&mut StatementChoice) -> Option<String>) -> bool {
        // Both follow the text, so both see each statement.
        let mut state = self.state();
        let not_selected = state.choice.as_mut().and_then(&left_out);
        let of_platform = state.platform.as_mut().and_then(&left_out);
        drop(state);
        let found = match (not_selected, of_platform) {
            (Some(name), _) => (NOT_SELECTED, name),
            (None, Some(name)) => (PLATFORM_OBJECT, name),
            (None, None) => return false,
        };
        self.used(found.0, found.1);
        true
    }

    /// Notes about patterns of the selection that nothing in SQL text has, once all of it was read.
    pub fn unused_patterns(&self) -> Vec<String> {
        let state = self.state();
        state
            .choice
            .as_ref()
            .map(StatementChoice::unused)
            .unwrap_or_default()
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

//! Requests that this program makes itself.

use super::RestoreRequest;
use crate::error::RestoreError;
use crate::job::Job;

impl RestoreRequest {
    /// As [`into_job`](Self::into_job), for a request that this program makes itself: its id may have a form that is reserved.
    /// `digest` says what was asked.
    ///
    /// # Errors
    /// `invalid_request`.
    pub(crate) fn into_own_job(self, digest: String) -> Result<Job, RestoreError> {
        self.check_texts()?;
        self.into_checked_job(digest, None)
    }
}

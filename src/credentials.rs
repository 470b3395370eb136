//! This machine's credentials for Google Cloud.

use std::time::Duration;

use google_cloud_auth::credentials::{Builder, CacheableResource};

use crate::error::report;

/// How to get credentials, for messages.
pub const ADVICE: &str = "run as a service account (of Workload Identity or of the instance), set \
                          GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login` on your own \
                          machine";

/// Checks that credentials for Google Cloud exist and yield a token within a time.
///
/// # Errors
/// Why not, for people.
pub async fn check(within: Duration) -> Result<(), String> {
    let issued = async {
        let credentials = Builder::default().build().map_err(|e| report(&e))?;
        let headers = credentials.headers(Default::default()).await;
        match headers.map_err(|e| report(&e))? {
            CacheableResource::New { .. } | CacheableResource::NotModified => Ok(()),
        }
    };
    let silent = || Err(format!("Google Cloud issued no token within {within:?}"));
    tokio::time::timeout(within, issued)
        .await
        .unwrap_or_else(|_| silent())
}

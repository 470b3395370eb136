//! This machine's credentials for Google Cloud.

use std::fmt;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use google_cloud_auth::credentials::{AccessTokenCredentials, Builder, CacheableResource};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::error::{DatabaseError, DatabaseKind, report};
use crate::postgres::PasswordSource;

/// How to get credentials, for messages.
pub const ADVICE: &str = "run as a service account (of Workload Identity or of the instance), set \
                          GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login` on your own \
                          machine";

/// How long Google Cloud may take to issue a token for a login: a little less than a person waits for the first answer of
/// a server, so that the person learns what is missing.
const PATIENCE: Duration = Duration::from_secs(4);

/// What a token for logins may be used for: Cloud SQL (<https://cloud.google.com/sql/docs/postgres/iam-logins>) and AlloyDB
/// (<https://cloud.google.com/alloydb/docs/connect-iam>). With the scope `cloud-platform`, whoever reads the token could do
/// everything that the account may do.
const LOGIN_SCOPES: [&str; 2] = [
    "https://www.googleapis.com/auth/sqlservice.login",
    "https://www.googleapis.com/auth/alloydb.login",
];

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
    tokio::time::timeout(within, issued)
        .await
        .unwrap_or_else(|_| Err(silent(within)))
}

fn silent(within: Duration) -> String {
    format!("Google Cloud issued no token within {within:?}")
}

/// Access tokens of this workload as the passwords of logins to Cloud SQL and AlloyDB. Nothing is asked for before the first
/// login.
#[derive(Default)]
pub struct LoginTokens(Mutex<Issued>);

#[derive(Default)]
struct Issued {
    /// They keep a token, and ask for the next one in the background before it expires.
    credentials: Option<AccessTokenCredentials>,
    has_issued: bool,
}

/// Why there is no token.
struct NoToken {
    what: String,
    is_transient: bool,
}

/// Asks for a token with new credentials, which keep it.
async fn ask(scopes: &[&str]) -> Result<(AccessTokenCredentials, SecretString), NoToken> {
    let builder = Builder::default().with_scopes(scopes.iter().copied());
    let built = builder.build_access_token_credentials();
    let credentials = built.map_err(|e| NoToken {
        what: report(&e),
        is_transient: false,
    })?;
    let issued = credentials.access_token().await;
    let token = issued.map_err(|e| NoToken {
        what: report(&e),
        is_transient: e.is_transient(),
    })?;
    Ok((credentials, SecretString::from(token.token)))
}

/// As [`ask`], for logins, within [`PATIENCE`].
async fn ask_for_logins() -> Result<(AccessTokenCredentials, SecretString), NoToken> {
    let issued = async {
        match ask(&LOGIN_SCOPES).await {
            // A person's credentials have the scopes of `gcloud auth application-default login`: Cloud SQL's is one of
            // them, AlloyDB's is not unless it was named.
            Err(e) if !e.is_transient => ask(&LOGIN_SCOPES[..1]).await.map_err(|_| e),
            other => other,
        }
    };
    let issued = tokio::time::timeout(PATIENCE, issued).await;
    issued.unwrap_or_else(|_| {
        Err(NoToken {
            what: silent(PATIENCE),
            is_transient: true,
        })
    })
}

impl Issued {
    /// The token that is kept, if it is valid. Otherwise the credentials may wait for some seconds before they ask again, and
    /// after some errors they never do.
    fn kept(&self) -> Option<SecretString> {
        let issued = self.credentials.as_ref()?.access_token().now_or_never()?;
        Some(SecretString::from(issued.ok()?.token))
    }

    async fn current(&mut self) -> Result<SecretString, DatabaseError> {
        match self.kept() {
            Some(token) => Ok(token),
            None => self.renewed().await,
        }
    }

    async fn renewed(&mut self) -> Result<SecretString, DatabaseError> {
        self.credentials = None;
        let (credentials, token) = ask_for_logins().await.map_err(|e| self.failed(&e))?;
        self.credentials = Some(credentials);
        self.has_issued = true;
        Ok(token)
    }

    /// An issuer that has issued tokens comes back; one that never did is more likely not there.
    fn failed(&self, e: &NoToken) -> DatabaseError {
        let what = format!("no access token to log in with (DB_AUTH): {}", e.what);
        if e.is_transient && self.has_issued {
            return DatabaseError::new(DatabaseKind::IssuerUnavailable, what);
        }
        DatabaseError::new(DatabaseKind::NoPassword, what).followed_by(&format!("; {ADVICE}"))
    }
}

impl PasswordSource for LoginTokens {
    fn password<'a>(
        &'a self,
        rejected: Option<&'a SecretString>,
    ) -> BoxFuture<'a, Result<SecretString, DatabaseError>> {
        async move {
            // One connection asks at a time: the others get what it is given.
            let mut issued = self.0.lock().await;
            let current = issued.current().await?;
            match rejected {
                Some(rejected) if rejected.expose_secret() == current.expose_secret() => {
                    issued.renewed().await
                }
                _ => Ok(current),
            }
        }
        .boxed()
    }
}

impl fmt::Debug for LoginTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginTokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without credentials there is something to set up; an issuer that has worked before is asked again.
    #[test]
    fn only_an_issuer_that_has_worked_is_asked_again() {
        for (is_transient, has_issued, kind) in [
            (true, false, DatabaseKind::NoPassword),
            (false, false, DatabaseKind::NoPassword),
            (false, true, DatabaseKind::NoPassword),
            (true, true, DatabaseKind::IssuerUnavailable),
        ] {
            let issued = Issued {
                credentials: None,
                has_issued,
            };
            let e = issued.failed(&NoToken {
                what: "no answer".into(),
                is_transient,
            });
            assert_eq!(e.kind(), kind, "{is_transient} {has_issued}");
            let said = e.to_string();
            assert!(said.contains("(DB_AUTH): no answer"), "{said}");
            assert_eq!(said.ends_with(ADVICE), kind == DatabaseKind::NoPassword);
        }
    }
}

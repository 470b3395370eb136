//! Location of a PostgreSQL server and login options.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use secrecy::SecretString;

use super::first_contact::FirstContact;
use crate::error::DatabaseError;

/// libpq's `sslmode`, without `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server supports it, with any certificate.
    Prefer,
    /// TLS with any certificate; with a configured root certificate, the same as `VerifyCa`.
    Require,
    /// TLS with a certificate that a trusted root signed, whatever its host name.
    VerifyCa,
    /// TLS with a certificate that a trusted root signed for this host name.
    VerifyFull,
}

impl SslMode {
    /// Whether every connection is encrypted.
    pub const fn requires_tls(self) -> bool {
        match self {
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => true,
            SslMode::Disable | SslMode::Prefer => false,
        }
    }

    /// The value of `sslmode` in libpq.
    pub const fn as_str(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

/// Contents of PEM files for TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Trusted root certificates; without them, the system's.
    pub root: Option<String>,
    /// The client's certificate chain and key.
    pub client: Option<(String, SecretString)>,
}

/// Issues passwords that expire, such as the access tokens of a cloud.
pub trait PasswordSource: fmt::Debug + Send + Sync {
    /// The password for a new connection. `rejected`: the one that the server has just rejected; a source that has no
    /// newer one returns the same again.
    ///
    /// # Errors
    /// `access_denied` if there is none for this program, `target_unavailable` if there is none at the moment.
    fn password<'a>(
        &'a self,
        rejected: Option<&'a SecretString>,
    ) -> BoxFuture<'a, Result<SecretString, DatabaseError>>;
}

/// Undoes what SQL of a backup has done to the role that loads it.
pub trait RoleRepair: Send + Sync {
    /// Lets the role log in again with its password, and without settings of its own. What could not be undone shows in
    /// the next login.
    fn repair(&self) -> BoxFuture<'_, ()>;
}

/// Where a server is, and how to log in to it.
#[derive(Debug, Clone)]
pub struct DbConfig {
    /// A host name, an IP address, or the directory of a Unix socket.
    pub host: String,
    /// TCP port, also part of the Unix socket's file name.
    pub port: u16,
    /// The role that sessions log in as.
    pub user: String,
    /// The role's password; `None` if the server asks for none.
    pub password: Option<SecretString>,
    /// Issues the role's passwords, in place of `password`, if they expire. They are sent as they are, so this requires
    /// TLS.
    pub passwords: Option<Arc<dyn PasswordSource>>,
    /// Whether connections use TLS, and what is verified.
    pub ssl_mode: SslMode,
    /// Certificates and key for TLS.
    pub tls: TlsFiles,
    /// Database for sessions that concern the whole server, usually `postgres`.
    pub maintenance: String,
    /// How long to retry connecting to a server that is starting, full or unreachable.
    pub connect_budget: Duration,
    /// What is different until a connection has succeeded.
    pub first_contact: FirstContact,
}

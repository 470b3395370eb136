//! Where a PostgreSQL server is and how to log in to it.

use std::time::Duration;

use secrecy::SecretString;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Texts of PEM files for TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Certificates that the server's must come from; without, those of the system.
    pub root: Option<String>,
    /// The client's certificates and key.
    pub client: Option<(String, SecretString)>,
}

#[derive(Debug, Clone)]
pub struct DbConfig {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<SecretString>,
    pub ssl_mode: SslMode,
    pub tls: TlsFiles,
    pub maintenance: String,
    pub connect_budget: Duration,
}

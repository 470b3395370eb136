//! Location of a PostgreSQL server and login options.

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

/// Contents of PEM files for TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Trusted root certificates; without them, the system's.
    pub root: Option<String>,
    /// The client's certificate chain and key.
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

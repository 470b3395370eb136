//! Connection settings of a PostgreSQL server.

use std::time::Duration;

use secrecy::SecretString;

use pgdump_restore::postgres::{DbConfig, SslMode, TlsFiles};

use super::raw::RawConfig;
use super::values::{ConfigErrors, non_empty, or_default, secret, secret_line, text_of};

/// The raw values of one server's variables; `prefix` is the prefix of their names.
pub(super) struct ServerVariables<'a> {
    pub prefix: &'a str,
    pub host: &'a Option<String>,
    pub port: &'a Option<String>,
    pub user: &'a Option<String>,
    pub password: &'a Option<String>,
    pub password_file: &'a Option<String>,
    pub ssl_mode: &'a Option<String>,
    pub maintenance: &'a Option<String>,
    pub tls: TlsFiles,
    pub allow_plaintext: bool,
}

fn tls_files(raw: &RawConfig, errors: &mut ConfigErrors) -> TlsFiles {
    let root = text_of("DB_SSLROOTCERT", &raw.db_sslrootcert, errors);
    let certificate = text_of("DB_SSLCERT", &raw.db_sslcert, errors);
    let key = text_of("DB_SSLKEY", &raw.db_sslkey, errors).map(SecretString::from);
    if certificate.is_some() != key.is_some() {
        errors.add("DB_SSLCERT", "must be set together with DB_SSLKEY");
    }
    TlsFiles {
        root,
        client: certificate.zip(key),
    }
}

pub(super) fn db_config(
    raw: &RawConfig,
    connect_budget: Duration,
    errors: &mut ConfigErrors,
) -> DbConfig {
    let variables = ServerVariables {
        prefix: "DB",
        host: &raw.db_host,
        port: &raw.db_port,
        user: &raw.db_user,
        password: &raw.db_password,
        password_file: &raw.db_password_file,
        ssl_mode: &raw.db_sslmode,
        maintenance: &raw.db_maintenance_name,
        tls: tls_files(raw, errors),
        allow_plaintext: errors.parse(
            "DB_ALLOW_PLAINTEXT",
            &raw.db_allow_plaintext,
            false,
            "must be true or false",
        ),
    };
    server_config(&variables, connect_budget, errors)
}

pub(super) fn server_config(
    v: &ServerVariables<'_>,
    connect_budget: Duration,
    errors: &mut ConfigErrors,
) -> DbConfig {
    let name = |part: &str| format!("{}_{part}", v.prefix);
    let host = or_default(v.host, "localhost");
    let local = host.starts_with('/')
        || host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    let ssl_mode = match non_empty(v.ssl_mode) {
        None if local => SslMode::Prefer,
        None | Some("verify-full") => SslMode::VerifyFull,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("disable") => SslMode::Disable,
        Some("prefer" | "allow") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some(_) => {
            errors.add(
                &name("SSLMODE"),
                "must be disable, prefer, require, verify-ca or verify-full",
            );
            SslMode::VerifyFull
        }
    };
    let password = secret(&name("PASSWORD"), v.password_file, v.password, errors);
    let may_be_plain = matches!(ssl_mode, SslMode::Disable | SslMode::Prefer);
    if may_be_plain
        && !local
        && !v.allow_plaintext
        && password.as_deref().is_some_and(|p| !p.trim().is_empty())
    {
        errors.add(
            &name("SSLMODE"),
            "disable and prefer may send the password unencrypted to another machine: use require, verify-ca or verify-full (or, in a trusted network, DB_ALLOW_PLAINTEXT=true)",
        );
    }
    DbConfig {
        tls: v.tls.clone(),
        port: errors.parse(&name("PORT"), v.port, 5432, "must be a port number"),
        user: or_default(v.user, "postgres"),
        password: password.map(secret_line),
        ssl_mode: if host.starts_with('/') {
            SslMode::Disable
        } else {
            ssl_mode
        },
        maintenance: or_default(v.maintenance, "postgres"),
        connect_budget,
        host,
    }
}

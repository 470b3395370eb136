//! Connection settings of a PostgreSQL server.

use std::time::Duration;

use secrecy::SecretString;

use pgdump_restore::postgres::{DbConfig, FirstContact, SslMode, TlsFiles};

use super::libpq::SettingOrigins;
use super::raw::RawConfig;
use super::values::{ConfigErrors, non_empty, or_default, secret, secret_line, text_of};

/// The raw values of one server's variables; `prefix` is the prefix of their names.
pub(super) struct ServerVariables<'a> {
    pub prefix: &'a str,
    /// Where values come from that these variables do not set.
    pub origins: &'a SettingOrigins,
    pub host: &'a Option<String>,
    pub port: &'a Option<String>,
    pub user: &'a Option<String>,
    pub password: &'a Option<String>,
    pub password_file: &'a Option<String>,
    pub ssl_mode: &'a Option<String>,
    pub maintenance: &'a Option<String>,
    pub root: &'a Option<String>,
    pub tls: TlsFiles,
    pub allow_plaintext: bool,
}

impl ServerVariables<'_> {
    /// What to call a setting in messages: where it comes from, and whether it is set at all.
    fn described(&self, part: &str, given: &Option<String>) -> String {
        let variable = format!("{}_{part}", self.prefix);
        match self.origins.of(&variable) {
            Some(origin) => origin.to_owned(),
            None if non_empty(given).is_some() => variable,
            None => format!("{variable} (not set)"),
        }
    }

    fn first_contact(&self, within: Option<Duration>) -> FirstContact {
        let all = |parts: &[(&str, &Option<String>)]| {
            let described = parts
                .iter()
                .map(|(part, given)| self.described(part, given));
            described.collect::<Vec<_>>().join(" and ")
        };
        let password = match non_empty(self.password_file) {
            Some(_) => ("PASSWORD_FILE", self.password_file),
            None => ("PASSWORD", self.password),
        };
        FirstContact {
            within,
            address: all(&[("HOST", self.host), ("PORT", self.port)]),
            login: all(&[("USER", self.user), password]),
            encryption: all(&[("SSLMODE", self.ssl_mode), ("SSLROOTCERT", self.root)]),
        }
    }
}

fn tls_files(raw: &RawConfig, errors: &mut ConfigErrors) -> TlsFiles {
    let name = |variable| raw.origins.name_of(variable);
    let root = text_of(name("DB_SSLROOTCERT"), &raw.db_sslrootcert, errors);
    let certificate = text_of(name("DB_SSLCERT"), &raw.db_sslcert, errors);
    let key = text_of(name("DB_SSLKEY"), &raw.db_sslkey, errors).map(SecretString::from);
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
        origins: &raw.origins,
        host: &raw.db_host,
        port: &raw.db_port,
        user: &raw.db_user,
        password: &raw.db_password,
        password_file: &raw.db_password_file,
        ssl_mode: &raw.db_sslmode,
        maintenance: &raw.db_maintenance_name,
        root: &raw.db_sslrootcert,
        tls: tls_files(raw, errors),
        allow_plaintext: errors.parse(
            "DB_ALLOW_PLAINTEXT",
            &raw.db_allow_plaintext,
            false,
            "must be true or false",
        ),
    };
    server_config(&variables, connect_budget, raw.first_contact(), errors)
}

pub(super) fn server_config(
    v: &ServerVariables<'_>,
    connect_budget: Duration,
    first_contact: Option<Duration>,
    errors: &mut ConfigErrors,
) -> DbConfig {
    let name = |part: &str| {
        let variable = format!("{}_{part}", v.prefix);
        v.origins.name_of(&variable).to_owned()
    };
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
        port: port(&name("PORT"), v.port, errors),
        user: or_default(v.user, "postgres"),
        password: password.map(secret_line),
        ssl_mode: if host.starts_with('/') {
            SslMode::Disable
        } else {
            ssl_mode
        },
        maintenance: or_default(v.maintenance, "postgres"),
        connect_budget,
        first_contact: v.first_contact(first_contact),
        host,
    }
}

fn port(variable: &str, given: &Option<String>, errors: &mut ConfigErrors) -> u16 {
    const WHAT: &str = "must be a port number, from 1 to 65535";
    let port = errors.parse(variable, given, 5432, WHAT);
    if port == 0 {
        errors.add(variable, WHAT);
    }
    port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_setting_that_was_taken() {
        let mut raw = RawConfig {
            db_host: Some("db.internal".into()),
            db_port: Some("no number".into()),
            db_sslmode: Some("prefer".into()),
            db_password: Some("secret".into()),
            ..RawConfig::default()
        };
        let taken = [
            ("DB_PORT", "PGPORT"),
            ("DB_PASSWORD", "/home/me/.pgpass"),
            ("DB_SSLMODE", "PGSSLMODE"),
        ];
        let taken = taken.map(|(variable, origin)| (variable, origin.to_owned()));
        raw.origins.by_variable.extend(taken);
        let mut errors = ConfigErrors::default();
        let first = db_config(&raw, Duration::ZERO, &mut errors).first_contact;
        assert_eq!(first.address, "DB_HOST and PGPORT");
        assert_eq!(first.login, "DB_USER (not set) and /home/me/.pgpass");
        assert_eq!(first.encryption, "PGSSLMODE and DB_SSLROOTCERT (not set)");
        let named: Vec<_> = errors
            .0
            .iter()
            .filter_map(|e| e.split(':').next())
            .collect();
        assert_eq!(named, ["PGSSLMODE", "PGPORT"]);
    }
}

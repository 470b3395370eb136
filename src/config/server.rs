//! Connection settings of a PostgreSQL server.

use std::time::Duration;

use secrecy::SecretString;

use pgdump_restore::postgres::{DbConfig, FirstContact, SslMode, TlsFiles};

use super::libpq::SettingOrigins;
use super::login::DbAuth;
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
    pub auth: DbAuth,
    pub password: &'a Option<String>,
    pub password_file: &'a Option<String>,
    pub ssl_mode: &'a Option<String>,
    pub maintenance: &'a Option<String>,
    pub root: &'a Option<String>,
    pub tls: TlsFiles,
    pub allow_plaintext: bool,
}

impl ServerVariables<'_> {
    /// What to call a variable in errors: where its value comes from, otherwise its name.
    fn name(&self, part: &str) -> String {
        let variable = format!("{}_{part}", self.prefix);
        self.origins.name_of(&variable).to_owned()
    }

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
        let login = match (self.auth, non_empty(self.password_file)) {
            (DbAuth::Password, Some(_)) => {
                all(&[("USER", self.user), ("PASSWORD_FILE", self.password_file)])
            }
            (DbAuth::Password, None) => all(&[("USER", self.user), ("PASSWORD", self.password)]),
            (DbAuth::GcpIam, _) => format!(
                "{} (a service account without .gserviceaccount.com), {IAM_LOGIN}",
                all(&[("USER", self.user)])
            ),
        };
        FirstContact {
            within,
            address: all(&[("HOST", self.host), ("PORT", self.port)]),
            login,
            encryption: all(&[("SSLMODE", self.ssl_mode), ("SSLROOTCERT", self.root)]),
        }
    }
}

/// What Cloud SQL and AlloyDB require of a login with an access token.
const IAM_LOGIN: &str = "that its account has roles/cloudsql.instanceUser (AlloyDB: roles/alloydb.databaseUser), that the instance has the flag cloudsql.iam_authentication=on (alloydb.iam_authentication=on)";

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
    auth: DbAuth,
    connect_budget: Duration,
    errors: &mut ConfigErrors,
) -> DbConfig {
    let variables = ServerVariables {
        prefix: "DB",
        origins: &raw.origins,
        host: &raw.db_host,
        port: &raw.db_port,
        user: &raw.db_user,
        auth,
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
    let host = or_default(v.host, "localhost");
    let is_local = host.starts_with('/')
        || host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    let ssl_mode = ssl_mode(v, is_local, errors);
    let password = secret(&v.name("PASSWORD"), v.password_file, v.password, errors);
    let has_password = password.as_deref().is_some_and(|p| !p.trim().is_empty());
    let is_safe = is_local || v.allow_plaintext || ssl_mode.requires_tls();
    match v.auth {
        DbAuth::GcpIam => check_token_login(v, &host, ssl_mode, errors),
        DbAuth::Password if has_password && !is_safe => errors.add(
            &v.name("SSLMODE"),
            "disable and prefer may send the password unencrypted to another machine: use require, verify-ca or verify-full (or, in a trusted network, DB_ALLOW_PLAINTEXT=true)",
        ),
        DbAuth::Password => {}
    }
    DbConfig {
        tls: v.tls.clone(),
        port: port(&v.name("PORT"), v.port, errors),
        user: or_default(v.user, "postgres"),
        password: password.map(secret_line),
        // The app makes what issues them.
        passwords: None,
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

fn ssl_mode(v: &ServerVariables<'_>, is_local: bool, errors: &mut ConfigErrors) -> SslMode {
    match non_empty(v.ssl_mode) {
        None if is_local && v.auth == DbAuth::Password => SslMode::Prefer,
        None | Some("verify-full") => SslMode::VerifyFull,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("disable") => SslMode::Disable,
        Some("prefer" | "allow") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some(_) => {
            errors.add(
                &v.name("SSLMODE"),
                "must be disable, prefer, require, verify-ca or verify-full",
            );
            SslMode::VerifyFull
        }
    }
}

/// Who logs in through a proxy.
const PROXY: &str = "an Auth Proxy on this machine encrypts and logs in itself (--auto-iam-authn, with DB_AUTH=password and no password)";

/// Logging in with an access token: whoever reads the token may log in with it until it expires, so it is sent with TLS only,
/// whichever machine the server is on.
fn check_token_login(
    v: &ServerVariables<'_>,
    host: &str,
    ssl_mode: SslMode,
    errors: &mut ConfigErrors,
) {
    if host.starts_with('/') {
        let what = format!("DB_AUTH=gcp-iam needs TLS, which a socket does not have; {PROXY}");
        errors.add(&v.name("HOST"), what);
    } else if !ssl_mode.requires_tls() {
        let what = format!(
            "disable, allow and prefer may send the access token of DB_AUTH=gcp-iam unencrypted: use verify-full, verify-ca or require; {PROXY}"
        );
        errors.add(&v.name("SSLMODE"), what);
    }
    for (part, given) in [("PASSWORD", v.password), ("PASSWORD_FILE", v.password_file)] {
        if non_empty(given).is_some() {
            errors.add(
                &v.name(part),
                "must not be set together with DB_AUTH=gcp-iam, which logs in with an access token",
            );
        }
    }
    if non_empty(v.user).is_some_and(|user| user.ends_with(".gserviceaccount.com")) {
        errors.add(
            &v.name("USER"),
            "must be the service account's e-mail address without .gserviceaccount.com, as Cloud SQL and AlloyDB name its database user",
        );
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
        let first = db_config(&raw, DbAuth::Password, Duration::ZERO, &mut errors).first_contact;
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

    /// The settings of a server with these variables, and the errors.
    fn read(given: &[(&str, &str)]) -> (DbConfig, Vec<String>) {
        let raw = RawConfig::from_flags(given).unwrap();
        let mut errors = ConfigErrors::default();
        let auth = DbAuth::read("DB_AUTH", &raw.db_auth, &mut errors);
        let db = db_config(&raw, auth, Duration::ZERO, &mut errors);
        (db, errors.0)
    }

    #[test]
    fn a_token_is_sent_with_tls_only() {
        const USER: &str = "pgrestored@my-project.iam";
        for (host, mode, wrong) in [
            ("10.0.0.3", "", None),
            ("10.0.0.3", "verify-ca", None),
            ("10.0.0.3", "require", None),
            ("10.0.0.3", "disable", Some("DB_SSLMODE")),
            ("10.0.0.3", "allow", Some("DB_SSLMODE")),
            ("10.0.0.3", "prefer", Some("DB_SSLMODE")),
            ("localhost", "", None),
            ("127.0.0.1", "prefer", Some("DB_SSLMODE")),
            ("/var/run/postgresql", "", Some("DB_HOST")),
            ("/var/run/postgresql", "require", Some("DB_HOST")),
        ] {
            let (db, errors) = read(&[
                ("db-auth", "gcp-iam"),
                ("db-host", host),
                ("db-user", USER),
                ("db-sslmode", mode),
                ("db-password", ""),
                ("db-password-file", ""),
                // It is about passwords.
                ("db-allow-plaintext", "true"),
            ]);
            let named: Vec<_> = errors.iter().filter_map(|e| e.split(':').next()).collect();
            assert_eq!(named, wrong.as_slice(), "{host} {mode}: {errors:?}");
            if mode.is_empty() && wrong.is_none() {
                assert_eq!(db.ssl_mode, SslMode::VerifyFull, "{host}");
            }
            let advised = errors.iter().all(|e| e.contains("--auto-iam-authn"));
            assert!(advised && !errors.iter().any(|e| e.contains(host)));
        }
    }

    #[test]
    fn a_token_takes_the_place_of_a_password() {
        let account = "pgrestored@my-project.iam.gserviceaccount.com";
        let flags = |user, password, file| {
            [
                ("db-auth", "gcp-iam"),
                ("db-host", "10.0.0.3"),
                ("db-sslmode", ""),
                ("db-user", user),
                ("db-password", password),
                ("db-password-file", file),
            ]
        };
        for (user, password, file, wrong) in [
            ("pgrestored@my-project.iam", "", "", None),
            (account, "", "", Some("DB_USER")),
            ("x", "hunter2", "", Some("DB_PASSWORD")),
            ("x", "", "/dev/null", Some("DB_PASSWORD_FILE")),
        ] {
            let (db, errors) = read(&flags(user, password, file));
            let named: Vec<_> = errors.iter().filter_map(|e| e.split(':').next()).collect();
            assert_eq!(named, wrong.as_slice(), "{errors:?}");
            assert!(!errors.iter().any(|e| e.contains("hunter2")), "{errors:?}");
            let login = db.first_contact.login;
            assert!(login.starts_with("DB_USER (a service account"), "{login}");
        }
        // Where a proxy logs in, it is just a name.
        let by_proxy = [
            ("db-auth", ""),
            ("db-host", "127.0.0.1"),
            ("db-user", account),
        ];
        assert_eq!(read(&by_proxy).1, Vec::<String>::new());
        let (_, errors) = read(&[("db-auth", "hunter2"), ("db-host", "")]);
        assert_eq!(errors, ["DB_AUTH: must be password or gcp-iam"]);
    }
}

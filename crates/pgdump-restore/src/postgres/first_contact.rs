//! What is different until a server was reached once: it is more likely that the settings are wrong than that the
//! server is about to come back. Therefore errors name the settings, and whoever waits for the answer is not
//! kept waiting for long.

use std::time::Duration;

use super::socket::NO_ADDRESS;
use crate::error::{DatabaseError, DatabaseKind as D};

/// How a server is first connected to.
#[derive(Debug, Clone, Default)]
pub struct FirstContact {
    /// Time limit of all attempts until one succeeds; `None`: as for later connections.
    pub within: Option<Duration>,
    /// The settings of the address, for messages: `DB_HOST and DB_PORT`.
    pub address: String,
    /// The settings of the login.
    pub login: String,
    /// The settings of TLS.
    pub encryption: String,
}

impl FirstContact {
    /// The error with what to check. `place` is the server's address.
    pub(super) fn explain(&self, e: DatabaseError, place: &str) -> DatabaseError {
        if self.address.is_empty() {
            return e;
        }
        let rejects_login = e.sqlstate().is_some_and(|code| code.starts_with("28"))
            || e.to_string().contains("password missing");
        let has_no_address = e.to_string().contains(NO_ADDRESS);
        let advice = match e.kind() {
            D::Unavailable if has_no_address => format!("; check {}", self.address),
            // With a SQLSTATE, the server responded.
            D::Unavailable if e.sqlstate().is_none() => format!(
                "; no server responds at {place}: check that it is running, and {}",
                self.address
            ),
            D::AccessDenied if rejects_login => format!(
                "; the server at {place} rejects the login: check {}, and its pg_hba.conf",
                self.login
            ),
            D::AccessDenied => format!(
                "; TLS with the server at {place} fails: check {}",
                self.encryption
            ),
            _ => return e,
        };
        e.followed_by(&advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_settings_to_check() {
        let first = FirstContact {
            within: None,
            address: "DB_HOST and PGPORT".into(),
            login: "DB_USER and DB_PASSWORD".into(),
            encryption: "DB_SSLMODE".into(),
        };
        let refused = DatabaseError::new(D::Unavailable, "x: refused");
        assert_eq!(
            first.explain(refused, "db:5432").to_string(),
            "x: refused; no server responds at db:5432: check that it is running, and DB_HOST and PGPORT"
        );
        let said = |e: DatabaseError| first.explain(e, "db:5432").to_string();
        let lost = DatabaseError::new(D::Unavailable, format!("x: {NO_ADDRESS}: unknown"));
        assert_eq!(
            said(lost),
            format!("x: {NO_ADDRESS}: unknown; check DB_HOST and PGPORT")
        );
        let login = DatabaseError::new(D::AccessDenied, "x").with_sqlstate("28P01");
        assert!(said(login).ends_with("check DB_USER and DB_PASSWORD, and its pg_hba.conf"));
        let tls = DatabaseError::new(D::AccessDenied, "x: invalid peer certificate");
        assert!(said(tls).ends_with("check DB_SSLMODE"));
        // These errors say what is wrong.
        for (kind, code) in [(D::Unavailable, "53300"), (D::StatementRejected, "3D000")] {
            let e = DatabaseError::new(kind, "full").with_sqlstate(code);
            assert_eq!(said(e), "full");
        }
    }
}

//! How the target server is logged in to.

use super::values::{ConfigErrors, non_empty};

/// How `DB_USER` proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DbAuth {
    /// With `DB_PASSWORD`, or as the server lets it in without one.
    Password,
    /// With an access token of this workload's Google account, as Cloud SQL and AlloyDB accept it.
    GcpIam,
}

impl DbAuth {
    /// The value of `DB_AUTH`.
    pub const fn as_str(self) -> &'static str {
        match self {
            DbAuth::Password => "password",
            DbAuth::GcpIam => "gcp-iam",
        }
    }

    /// What a variable says; `None` if that is neither.
    pub(super) fn of(given: &Option<String>) -> Option<Self> {
        match non_empty(given) {
            None | Some("password") => Some(DbAuth::Password),
            Some("gcp-iam") => Some(DbAuth::GcpIam),
            Some(_) => None,
        }
    }

    pub(super) fn read(variable: &str, given: &Option<String>, errors: &mut ConfigErrors) -> Self {
        Self::of(given).unwrap_or_else(|| {
            errors.add(variable, "must be password or gcp-iam");
            DbAuth::Password
        })
    }
}

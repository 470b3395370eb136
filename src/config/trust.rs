//! How much backups are trusted, and the roles that restore untrusted ones.

use secrecy::SecretString;

/// How much a backup is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// Its owners, privileges and code are restored, as far as the connecting role may.
    #[default]
    Full,
    /// It is loaded by a role that owns nothing, and afterwards belongs to a role without powers.
    Restricted,
}

/// Roles of restricted restores.
#[derive(Debug, Clone)]
pub struct RestrictedRoles {
    /// Roles that load, one per restore; if empty, a role is created for each restore.
    pub users: Vec<String>,
    pub password: Option<SecretString>,
    /// Owns the restored database if the owner of the replaced one is too powerful.
    pub owner: String,
}

//! Heroku Postgres, which runs on Amazon's servers and has their roles.

use super::service::Service;
use crate::policy::Profile;

pub(super) static SERVICE: Service = Service {
    profile: Profile::Heroku,
    title: "Heroku Postgres",
    roles: &["heroku_admin"],
    common_roles: &["postgres", "rds_superuser", "rdsadmin"],
    is_generated_role: is_credential,
    extensions: &[],
    common_extensions: &[],
    schemas: &["_heroku"],
    kept_schemas: &["heroku_ext"],
    event_triggers: &[
        "extension_before_drop",
        "extension_before_run",
        "log_create_ext",
        "log_drop_ext",
        "validate_extension",
    ],
    publications: &[],
    administrator: "rds_superuser",
    administrators_create: &[],
};

/// The role of a credential: `u` and 13 random letters and digits, such as `u2m96f8s5m4e6c`.
fn is_credential(role: &str) -> bool {
    let is_random = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    role.len() == 14
        && role.starts_with('u')
        && role.chars().all(is_random)
        && role.contains(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_of_credentials_are_told_from_others() {
        for role in ["u2m96f8s5m4e6c", "uc001spkeri80k"] {
            assert!(is_credential(role), "{role}");
        }
        for role in [
            "user_reporting",
            "usermaintainer",
            "u2m96f8s5m4e6",
            "U2m96f8s5m4e6c",
        ] {
            assert!(!is_credential(role), "{role}");
        }
    }
}

//! Neon.

use super::service::{Service, never};
use crate::policy::Profile;

pub(super) static SERVICE: Service = Service {
    profile: Profile::Neon,
    title: "Neon",
    roles: &["neon_superuser", "neon_service"],
    common_roles: &["cloud_admin"],
    is_generated_role: never,
    extensions: &["neon", "neon_utils"],
    common_extensions: &[],
    schemas: &["neon", "neon_migration"],
    kept_schemas: &["neon_auth"],
    event_triggers: &[],
    publications: &[],
    administrator: "neon_superuser",
    administrators_create: &["EVENT TRIGGER"],
};

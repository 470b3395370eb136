//! Azure Database for PostgreSQL.

use super::service::{Service, never};
use crate::policy::Profile;

pub(super) static SERVICE: Service = Service {
    profile: Profile::Azure,
    title: "Azure Database for PostgreSQL",
    roles: &["azure_pg_admin", "azure_superuser", "azuresu"],
    common_roles: &["replication"],
    is_generated_role: never,
    extensions: &[
        "azure",
        "azure_ai",
        "azure_local_ai",
        "azure_storage",
        "pg_diskann",
        "pgaadauth",
    ],
    common_extensions: &[],
    schemas: &["azure_ai", "azure_openai", "azure_storage", "query_store"],
    kept_schemas: &[],
    event_triggers: &[],
    publications: &[],
    administrator: "azure_pg_admin",
    administrators_create: &[],
};

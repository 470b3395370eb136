//! Cloud SQL for PostgreSQL.

use super::service::{Service, never};
use crate::policy::Profile;

pub(super) static SERVICE: Service = Service {
    profile: Profile::Cloudsql,
    title: "Cloud SQL",
    roles: &[
        "cloudsqladmin",
        "cloudsqlagent",
        "cloudsqlconnpooladmin",
        "cloudsqliam*",
        "cloudsqlimportexport",
        "cloudsqlinactiveuser",
        "cloudsqllogical",
        "cloudsqlobservability*",
        "cloudsqlreplica",
        "cloudsqlsuperuser",
    ],
    common_roles: &["postgres"],
    is_generated_role: never,
    extensions: &["google_vacuum_mgmt", "google_ml_integration"],
    common_extensions: &[],
    schemas: &["google_vacuum_mgmt"],
    kept_schemas: &[],
    event_triggers: &[],
    publications: &[],
    administrator: "cloudsqlsuperuser",
    administrators_create: &["EVENT TRIGGER", "SUBSCRIPTION"],
};

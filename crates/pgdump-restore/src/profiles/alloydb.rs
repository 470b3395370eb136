//! AlloyDB for PostgreSQL.

use super::service::{Service, never};
use crate::policy::Profile;

pub(super) static SERVICE: Service = Service {
    profile: Profile::Alloydb,
    title: "AlloyDB",
    roles: &[
        "alloydbadmin",
        "alloydbagent",
        "alloydbexport",
        "alloydbiam*",
        "alloydbimportexport",
        "alloydbmetadata",
        "alloydbobservability*",
        "alloydbreplica",
        "alloydbsuperuser",
    ],
    common_roles: &["postgres"],
    is_generated_role: never,
    extensions: &[
        "alloydb_ai_nl",
        "alloydb_scann",
        "google_columnar_engine",
        "google_db_advisor",
        "google_ml_integration",
    ],
    common_extensions: &[],
    schemas: &["google_ml"],
    kept_schemas: &[],
    event_triggers: &[],
    publications: &[],
    administrator: "alloydbsuperuser",
    administrators_create: &["EVENT TRIGGER", "SUBSCRIPTION"],
};

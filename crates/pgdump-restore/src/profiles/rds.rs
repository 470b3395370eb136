//! Amazon RDS for PostgreSQL.

use super::service::{Names, Service, never};
use crate::policy::Profile;

/// Those of Aurora, too.
pub(super) const ROLES: Names = &[
    "rds_ad",
    "rds_extension",
    "rds_iam",
    "rds_password",
    "rds_replication",
    "rds_reserved",
    "rds_superuser",
    "rdsadmin",
    "rdsproxyadmin",
    "rdsrepladmin",
    "rdstopmgr",
    "rdswriteforwarduser",
];

/// Event triggers of the Database Migration Service, which reads changes of definitions with them.
pub(super) const EVENT_TRIGGERS: Names = &["awsdms_intercept_ddl"];

pub(super) static SERVICE: Service = Service {
    profile: Profile::Rds,
    title: "Amazon RDS",
    roles: ROLES,
    common_roles: &["postgres"],
    is_generated_role: never,
    extensions: &[
        "aws_commons",
        "aws_lambda",
        "aws_s3",
        "rds_activity_stream",
        "rds_tools",
    ],
    common_extensions: &["log_fdw", "pg_transport"],
    schemas: &["aws_commons", "aws_lambda", "aws_s3", "rds_tools"],
    kept_schemas: &[],
    event_triggers: EVENT_TRIGGERS,
    publications: &[],
    administrator: "rds_superuser",
    administrators_create: &["EVENT TRIGGER", "SUBSCRIPTION"],
};

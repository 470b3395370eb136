//! Amazon Aurora PostgreSQL: the roles of RDS, and extensions of its own.

use super::rds::{EVENT_TRIGGERS, ROLES};
use super::service::{Service, never};
use crate::policy::Profile;

pub(super) static SERVICE: Service = Service {
    profile: Profile::Aurora,
    title: "Amazon Aurora",
    roles: ROLES,
    common_roles: &["postgres", "apg_plan_mgmt"],
    is_generated_role: never,
    extensions: &[
        "apg_plan_mgmt",
        "aurora_stat_utils",
        "aws_commons",
        "aws_lambda",
        "aws_ml",
        "aws_s3",
        "rds_activity_stream",
        "rds_tools",
    ],
    common_extensions: &["log_fdw"],
    schemas: &[
        "apg_plan_mgmt",
        "aws_bedrock",
        "aws_commons",
        "aws_comprehend",
        "aws_lambda",
        "aws_s3",
        "aws_sagemaker",
        "rds_tools",
    ],
    kept_schemas: &[],
    event_triggers: EVENT_TRIGGERS,
    publications: &[],
    administrator: "rds_superuser",
    administrators_create: &["EVENT TRIGGER", "SUBSCRIPTION"],
};

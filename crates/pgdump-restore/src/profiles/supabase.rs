//! Supabase.

use super::service::{Service, never};
use crate::policy::Profile;

pub(super) static SERVICE: Service = Service {
    profile: Profile::Supabase,
    title: "Supabase",
    roles: &["supabase_*"],
    // `anon`, `authenticated` and `authenticator` are PostgREST's usual names.
    common_roles: &[
        "anon",
        "authenticated",
        "authenticator",
        "dashboard_user",
        "pgbouncer",
        "pgsodium_key*",
        "postgres",
        "service_role",
    ],
    is_generated_role: never,
    extensions: &["supabase_vault"],
    common_extensions: &["pg_graphql", "pg_net", "pgjwt", "pgsodium"],
    schemas: &[
        "_analytics",
        "_realtime",
        "_supavisor",
        "graphql",
        "graphql_public",
        "net",
        "pgbouncer",
        "pgsodium",
        "pgsodium_masks",
        "supabase_functions",
        "vault",
    ],
    // `auth`, `storage`, `realtime` and `extensions` are restored, too.
    kept_schemas: &["supabase_migrations"],
    event_triggers: &[
        "graphql_watch_ddl",
        "graphql_watch_drop",
        "issue_graphql_placeholder",
        "issue_pg_cron_access",
        "issue_pg_graphql_access",
        "issue_pg_net_access",
        "pgrst_ddl_watch",
        "pgrst_drop_watch",
        "pgsodium_trg_mask_update",
    ],
    publications: &["supabase_realtime", "supabase_realtime_*"],
    administrator: "postgres",
    administrators_create: &["EVENT TRIGGER"],
};

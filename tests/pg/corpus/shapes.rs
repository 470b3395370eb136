//! What the corpus restores, and where: databases as services have them, and the roles that they give to their users.

use std::collections::BTreeSet;

use crate::formats::DumpFormat;
use crate::support::Cluster;

/// A service that backups come from.
pub struct SourceService {
    pub name: &'static str,
    /// Whom the user's own objects belong to.
    owner: &'static str,
    /// Roles of the service, and others that its users make.
    roles: &'static [&'static str],
    /// What the service adds to a database.
    sql: &'static str,
    /// Parts of the names of entries that are the service's alone, or of no use without it.
    platform: &'static [&'static str],
}

/// The roles of an application on every service.
const APP_ROLES: [&str; 2] = ["app_owner", "app_reader"];

macro_rules! sources {
    ($($name:literal: $owner:literal, $roles:expr, $platform:expr;)*) => {
        [$(SourceService {
            name: $name,
            owner: $owner,
            roles: &$roles,
            sql: include_str!(concat!($name, ".sql")),
            platform: &$platform,
        }),*]
    };
}

pub static SOURCES: [SourceService; 10] = sources! {
    "cloudsql": "app_owner", ["cloudsqladmin", "cloudsqlsuperuser", "cloudsqliamuser", "cloudsqlimportexport", "ana@example.com"], ["google_vacuum_mgmt"];
    "alloydb": "app_owner", ["alloydbadmin", "alloydbsuperuser", "alloydbiamuser"], ["google_", "alloydb_scann", "nearest"];
    "rds": "app_owner", ["rdsadmin", "rds_superuser", "rds_replication"], ["aws_", "awsdms_intercept_ddl", "log_fdw", "log_server", "postgres_log", "shop.export"];
    "aurora": "app_owner", ["rdsadmin", "rds_superuser", "apg_plan_mgmt"], ["apg_plan_mgmt", "aws_lambda", "aurora_stat_utils", "shop.slow"];
    "azure": "app_owner", ["azuresu", "azure_pg_admin"], ["EXTENSION azure", "EXTENSION pgaadauth", "azure_storage"];
    "heroku": "u2m96f8s5m4e6c", ["u2m96f8s5m4e6c", "uc001spkeri80k", "heroku_admin", "rdsadmin"], ["_heroku", "log_create_ext", "log_drop_ext", "validate_extension"];
    "supabase": "postgres", ["supabase_admin", "supabase_auth_admin", "supabase_storage_admin", "supabase_functions_admin",
        "anon", "authenticated", "service_role", "dashboard_user"], ["vault", "graphql", "pg_net", "SCHEMA net", "supabase_functions", "settings notify", "pgrst_ddl_watch",
        "issue_pg_net_access", "supabase_realtime"];
    "neon": "app_owner", ["cloud_admin", "neon_superuser", "neon_service"], ["EXTENSION neon", "pg_cluster_size"];
    "server": "app_owner", ["reporting"], [];
    "cnpg": "app", ["app", "cnpg_pooler_pgbouncer", "streaming_replica"], [];
};

/// A role that restores, with exactly the rights that its service gives.
pub struct TargetRole {
    pub name: &'static str,
    pub user: &'static str,
    /// It may create no database, and gets an empty one.
    pub fills: bool,
    /// All roles of this target. None of them exists when another target has its turn.
    roles: &'static [&'static str],
    sql: &'static str,
}

pub static TARGETS: [TargetRole; 8] = [
    TargetRole {
        name: "superuser",
        user: "postgres",
        fills: false,
        roles: &["app_owner"],
        sql: "CREATE ROLE app_owner",
    },
    TargetRole {
        name: "creator",
        user: "restorer",
        fills: false,
        roles: &["restorer"],
        sql: "CREATE ROLE restorer LOGIN CREATEDB",
    },
    TargetRole {
        name: "cloudsql",
        user: "operator",
        fills: false,
        roles: &["cloudsqladmin", "cloudsqlsuperuser", "operator", "app_owner", "app_reader"],
        sql: "CREATE ROLE cloudsqladmin SUPERUSER; CREATE ROLE cloudsqlsuperuser CREATEDB CREATEROLE;
            GRANT pg_monitor, pg_signal_backend TO cloudsqlsuperuser;
            CREATE ROLE operator LOGIN CREATEDB CREATEROLE IN ROLE cloudsqlsuperuser;
            SET ROLE operator; CREATE ROLE app_owner; CREATE ROLE app_reader",
    },
    TargetRole {
        name: "rds",
        user: "master",
        fills: false,
        roles: &["rdsadmin", "rds_superuser", "rds_replication", "master", "app_owner", "app_reader"],
        sql: "CREATE ROLE rdsadmin SUPERUSER; CREATE ROLE rds_superuser; CREATE ROLE rds_replication;
            GRANT pg_monitor, pg_signal_backend, rds_replication TO rds_superuser WITH ADMIN OPTION;
            CREATE ROLE master LOGIN CREATEDB CREATEROLE IN ROLE rds_superuser;
            SET ROLE master; CREATE ROLE app_owner; CREATE ROLE app_reader",
    },
    TargetRole {
        name: "azure",
        user: "administrator",
        fills: false,
        roles: &["azuresu", "azure_pg_admin", "administrator", "app_owner"],
        sql: "CREATE ROLE azuresu SUPERUSER; CREATE ROLE azure_pg_admin CREATEDB CREATEROLE;
            GRANT pg_monitor TO azure_pg_admin;
            CREATE ROLE administrator LOGIN CREATEDB CREATEROLE IN ROLE azure_pg_admin;
            SET ROLE administrator; CREATE ROLE app_owner",
    },
    TargetRole {
        name: "heroku",
        user: "u7tenant1234ab",
        fills: true,
        roles: &["heroku_admin", "u7tenant1234ab"],
        sql: "CREATE ROLE heroku_admin SUPERUSER; CREATE ROLE u7tenant1234ab LOGIN",
    },
    TargetRole {
        name: "supabase",
        user: "project",
        fills: false,
        roles: &["supabase_admin", "anon", "authenticated", "service_role", "project"],
        sql: "CREATE ROLE supabase_admin SUPERUSER; CREATE ROLE anon; CREATE ROLE authenticated;
            CREATE ROLE service_role BYPASSRLS; CREATE ROLE project LOGIN CREATEDB CREATEROLE BYPASSRLS REPLICATION;
            GRANT anon, authenticated, service_role TO project WITH ADMIN OPTION;
            GRANT pg_monitor, pg_signal_backend TO project",
    },
    TargetRole {
        name: "neon",
        user: "neondb_owner",
        fills: false,
        roles: &["cloud_admin", "neon_superuser", "neondb_owner", "app_owner", "app_reader"],
        sql: "CREATE ROLE cloud_admin SUPERUSER; CREATE ROLE neon_superuser CREATEDB CREATEROLE BYPASSRLS REPLICATION;
            CREATE ROLE neondb_owner LOGIN CREATEDB CREATEROLE BYPASSRLS REPLICATION IN ROLE neon_superuser;
            SET ROLE neondb_owner; CREATE ROLE app_owner; CREATE ROLE app_reader",
    },
];

pub static FORMATS: [DumpFormat; 5] = [
    DumpFormat::Custom,
    DumpFormat::Directory,
    DumpFormat::Tar,
    DumpFormat::Plain,
    DumpFormat::PlainInserts,
];

impl SourceService {
    /// Whether an entry is the service's alone. The schema public is there, and belongs to nobody of the user's.
    pub fn is_platform(&self, name: &str) -> bool {
        let is_of_service = self.platform.iter().any(|part| name.contains(part));
        // Only a superuser changes a comment that is the extension's.
        is_of_service || name.ends_with("SCHEMA public") || name.starts_with("COMMENT EXTENSION ")
    }

    /// Makes a database of the service.
    pub fn create(&self, c: &Cluster, database: &str, has_contrib: bool) {
        let owner = pgrestored::postgres::ident(self.owner);
        let app = include_str!("app.sql").replace("\"OWNER\"", &owner);
        let all = [include_str!("prelude.sql"), &app, self.sql].concat();
        let lines = all
            .lines()
            .filter(|l| has_contrib || !l.ends_with("-- contrib"));
        c.create(database, &lines.collect::<Vec<_>>().join("\n"));
    }
}

/// Names of roles as a list of SQL.
fn list<'a>(roles: impl IntoIterator<Item = &'a &'static str>) -> String {
    let quoted = roles
        .into_iter()
        .map(|role| pgrestored::postgres::ident(role));
    quoted.collect::<Vec<_>>().join(", ")
}

/// The roles of these services, and of their users.
pub struct Roles(BTreeSet<&'static str>);

impl Roles {
    pub fn of<'a>(sources: impl IntoIterator<Item = &'a SourceService>) -> Self {
        let theirs = sources.into_iter().flat_map(|s| s.roles);
        Roles(APP_ROLES.iter().chain(theirs).copied().collect())
    }

    pub fn create(&self, c: &Cluster) {
        let create = self
            .0
            .iter()
            .map(|role| format!("CREATE ROLE {};", list([role])));
        c.psql("postgres", &create.collect::<String>());
    }

    pub fn drop(&self, c: &Cluster) {
        c.psql("postgres", &format!("DROP ROLE {}", list(&self.0)));
    }
}

impl TargetRole {
    pub fn create(&self, c: &Cluster, version: usize) {
        c.psql("postgres", &format!("{};", self.sql));
        let administrator = match self.name {
            "supabase" if version >= 14 => self.user,
            "neon" if version >= 14 => "neon_superuser",
            _ => return,
        };
        let read_all = format!("GRANT pg_read_all_data, pg_write_all_data TO {administrator}");
        c.psql("postgres", &read_all);
    }

    pub fn drop(&self, c: &Cluster) {
        c.psql("postgres", &format!("DROP ROLE {}", list(self.roles)));
    }
}

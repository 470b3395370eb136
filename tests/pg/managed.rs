//! Backups of managed services into other servers, by roles that are no superusers; and what such roles may do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrestored::error::FailureReason as R;
use pgrestored::event::RestoreResult;
use pgrestored::job::OnExisting;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign, job};

/// What a managed service adds to a database. A superuser makes it, as the service's own does.
struct ManagedService {
    title: &'static str,
    roles: &'static [&'static str],
    platform: &'static str,
    /// An extension that only the service has, and its SQL text therefore.
    extension: Option<&'static str>,
    /// Rules that its archive needs.
    rules: &'static [&'static str],
}

const OWNER: &str = "platform-owner";
const PRIVILEGE: &str = "platform-privilege";
const DEFAULTS: &str = "platform-default-privileges";
const POLICY: &str = "platform-policy";
const OBJECT: &str = "platform-object";

const SHOP: &str = "CREATE SCHEMA shop AUTHORIZATION app_owner; CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
    ALTER TABLE shop.orders OWNER TO app_owner; INSERT INTO shop.orders SELECT i, 'order ' || i FROM generate_series(1, 100) i;";

const SERVICES: [ManagedService; 7] = [
    ManagedService {
        title: "Cloud SQL",
        roles: &["cloudsqladmin", "cloudsqlsuperuser"],
        platform: "ALTER SCHEMA public OWNER TO cloudsqlsuperuser; GRANT ALL ON SCHEMA public TO PUBLIC;
            CREATE TABLE public.audit AS SELECT 1 AS a; ALTER TABLE public.audit OWNER TO cloudsqlsuperuser;
            GRANT SELECT ON shop.orders TO cloudsqlsuperuser, app_owner;
            GRANT EXECUTE ON FUNCTION pg_catalog.pg_reload_conf() TO cloudsqlsuperuser, app_owner;",
        extension: Some("google_vacuum_mgmt"),
        rules: &[OWNER, PRIVILEGE],
    },
    ManagedService {
        title: "AlloyDB",
        roles: &["alloydbadmin", "alloydbsuperuser"],
        platform: "ALTER SCHEMA public OWNER TO alloydbsuperuser; GRANT SELECT ON shop.orders TO alloydbsuperuser;",
        extension: Some("google_columnar_engine"),
        rules: &[OWNER, PRIVILEGE],
    },
    ManagedService {
        title: "Amazon RDS",
        roles: &["rdsadmin", "rds_superuser"],
        platform: "ALTER SCHEMA public OWNER TO rdsadmin; GRANT SELECT ON shop.orders TO rds_superuser;
            ALTER DEFAULT PRIVILEGES FOR ROLE rdsadmin IN SCHEMA public GRANT SELECT ON TABLES TO app_owner;",
        extension: Some("aws_s3"),
        rules: &[OWNER, PRIVILEGE, DEFAULTS],
    },
    ManagedService {
        title: "Azure Database for PostgreSQL",
        roles: &["azuresu", "azure_pg_admin"],
        platform: "ALTER SCHEMA public OWNER TO azure_pg_admin;
            GRANT EXECUTE ON FUNCTION pg_catalog.pg_replication_origin_create(text) TO azure_pg_admin;",
        extension: Some("azure_storage"),
        rules: &[OWNER, PRIVILEGE],
    },
    ManagedService {
        title: "Heroku Postgres",
        roles: &["heroku_admin", "u2m96f8s5m4e6c"],
        platform: "CREATE SCHEMA heroku_ext AUTHORIZATION u2m96f8s5m4e6c; CREATE SCHEMA _heroku AUTHORIZATION heroku_admin;
            CREATE FUNCTION _heroku.create_ext() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
            ALTER FUNCTION _heroku.create_ext() OWNER TO heroku_admin;
            CREATE EVENT TRIGGER log_create_ext ON ddl_command_end EXECUTE FUNCTION _heroku.create_ext();
            ALTER TABLE shop.orders OWNER TO u2m96f8s5m4e6c; ALTER SCHEMA shop OWNER TO u2m96f8s5m4e6c;",
        extension: None,
        rules: &[OWNER, OBJECT],
    },
    ManagedService {
        title: "Supabase",
        roles: &["supabase_admin", "supabase_auth_admin", "anon", "authenticated"],
        platform: "CREATE SCHEMA auth AUTHORIZATION supabase_auth_admin; CREATE TABLE auth.users AS SELECT 7 AS id;
            ALTER TABLE auth.users OWNER TO supabase_auth_admin; CREATE SCHEMA extensions; CREATE SCHEMA graphql_public;
            CREATE FUNCTION graphql_public.graphql() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE FUNCTION extensions.pgrst_ddl_watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
            CREATE EVENT TRIGGER pgrst_ddl_watch ON ddl_command_end EXECUTE FUNCTION extensions.pgrst_ddl_watch();
            COMMENT ON EVENT TRIGGER pgrst_ddl_watch IS 'x'; CREATE PUBLICATION supabase_realtime FOR TABLE shop.orders;
            ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY; CREATE POLICY reads ON shop.orders TO authenticated USING (true);
            COMMENT ON POLICY reads ON shop.orders IS 'x'; GRANT SELECT ON shop.orders TO anon, authenticated;
            ALTER DEFAULT PRIVILEGES FOR ROLE supabase_admin IN SCHEMA public GRANT ALL ON TABLES TO anon;
            ALTER SCHEMA extensions OWNER TO supabase_admin; ALTER SCHEMA graphql_public OWNER TO supabase_admin;
            ALTER FUNCTION extensions.pgrst_ddl_watch() OWNER TO supabase_admin;
            ALTER FUNCTION graphql_public.graphql() OWNER TO supabase_admin;",
        extension: Some("supabase_vault"),
        rules: &[OWNER, PRIVILEGE, DEFAULTS, POLICY, OBJECT],
    },
    ManagedService {
        title: "Neon",
        roles: &["cloud_admin", "neon_superuser"],
        platform: "ALTER DEFAULT PRIVILEGES FOR ROLE cloud_admin IN SCHEMA public GRANT ALL ON TABLES TO neon_superuser WITH GRANT OPTION;
            GRANT SELECT ON shop.orders TO neon_superuser;",
        extension: Some("neon"),
        rules: &[PRIVILEGE, DEFAULTS],
    },
];

fn rules(r: &RestoreResult) -> Vec<&str> {
    r.rewrites.iter().map(|w| w.rule.as_str()).collect()
}

/// The rows of each table.
const ROWS: &str = "SELECT string_agg(format('%I.%I %s', nspname, relname, table_to_xml(c.oid, true, false, '')), ' ' \
    ORDER BY nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
    WHERE relkind = 'r' AND nspname NOT IN ('pg_catalog', 'information_schema')";

/// A database as the service has it, dumped as an archive and as SQL text, and its rows. Afterwards the server has nothing
/// of the service.
fn dumps(c: &Cluster, service: &ManagedService) -> (PathBuf, PathBuf, String) {
    let roles = service.roles.join(", ");
    for role in service.roles {
        c.psql("postgres", &format!("CREATE ROLE {role}"));
    }
    c.create("src", &format!("{SHOP}{}", service.platform));
    let archive = c.dump_to_file("src", &[]);
    let mut text = String::from_utf8(c.dump("src", &[])).unwrap();
    if let Some(extension) = service.extension {
        let create = format!(
            "SET row_security = off;\n\n--\n-- Name: {extension}; Type: EXTENSION; Schema: -; Owner: -\n--\n\n\
             CREATE EXTENSION IF NOT EXISTS {extension} WITH SCHEMA public;\n\n\n\
             --\n-- Name: EXTENSION {extension}; Type: COMMENT; Schema: -; Owner: \n--\n\n\
             COMMENT ON EXTENSION {extension} IS 'x';\n\n"
        );
        text = text.replacen("SET row_security = off;\n", &create, 1);
    }
    let file = c.scratch(&format!("{}.sql", service.roles[0]));
    std::fs::write(&file, text).unwrap();
    let rows = c.psql("src", ROWS);
    assert!(rows.contains("order 100"), "{rows}");
    c.psql("postgres", &format!("DROP DATABASE src; DROP ROLE {roles}"));
    (archive, file, rows)
}

/// Each backup goes in completely with a role that has CREATEDB alone, and the result says what was left out. Without the
/// profile, it does not.
#[tokio::test(flavor = "multi_thread")]
async fn backups_of_every_service_go_into_another_server() {
    let c = Cluster::start_with("-c azure.extensions=hstore");
    c.psql(
        "postgres",
        "CREATE ROLE app_owner; CREATE ROLE restorer LOGIN CREATEDB; GRANT app_owner TO restorer;
         GRANT CREATE ON DATABASE postgres TO restorer",
    );
    let restore = async |dump: &Path, more: &[(&str, &str)]| {
        let flags = [&[("db-user", "restorer")][..], more].concat();
        let job = job(dump, "ours", OnExisting::Fail);
        c.restore_with(&job, &flags).await
    };
    for (s, service) in SERVICES.iter().enumerate() {
        let (archive, text, rows) = dumps(&c, service);
        for (d, dump) in [&archive, &text].into_iter().enumerate() {
            let what = format!("{}, {}", service.title, dump.display());
            // `make test` tries it with one of the two in turn.
            if d == s % 2 || is_full_campaign() {
                let done = restore(dump.as_path(), &[("restore-profile", "none")]).await;
                assert!(done.failure.is_some(), "{what}");
            }
            let done = restore(dump.as_path(), &[]).await;
            assert_eq!(done.result.error, None, "{what}");
            assert_same(&c.psql("ours", ROWS), &rows, &what);
            let used = rules(&done.result);
            let needed = service.rules.iter().all(|rule| used.contains(rule));
            assert!(needed, "{what}: {:?}", done.result.rewrites);
            let origin = format!("the backup comes from {}", service.title);
            let notes = &done.result.notes;
            assert!(
                notes.iter().any(|n| n.starts_with(&origin)),
                "{what}: {notes:?}"
            );
            if dump == &text && service.extension.is_some() {
                assert!(used.contains(&OBJECT), "{what}: {:?}", done.result.rewrites);
            }
            let left = "SELECT string_agg(evtname, ',') FROM pg_event_trigger";
            assert_eq!(c.psql("ours", left), "", "{what}");
            c.psql("postgres", "DROP DATABASE ours");
        }
    }
    // An extension that the provider does not allow is named with the setting.
    let text = c.scratch("extension.sql");
    let dump = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n-- Dumped by pg_dump version 15.1\n\n\
        --\n-- Name: pgcrypto; Type: EXTENSION; Schema: -; Owner: -\n--\n\nCREATE EXTENSION IF NOT EXISTS pgcrypto WITH SCHEMA public;\n\n\
        --\n-- PostgreSQL database dump complete\n--\n\n";
    std::fs::write(&text, dump).unwrap();
    let done = restore(text.as_path(), &[]).await;
    assert_eq!(done.failure, Some(R::ExtensionMissing));
    let said = done.result.error.unwrap().message;
    assert!(
        said.contains("azure.extensions of the server does not list it"),
        "{said}"
    );
}

/// On the service itself, its roles keep what they own as far as an administrator may act for them.
#[tokio::test(flavor = "multi_thread")]
async fn on_the_same_service_its_roles_keep_what_they_own() {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE app_owner");
    let (archive, _, rows) = dumps(&c, &SERVICES[0]);
    c.psql(
        "postgres",
        "CREATE ROLE cloudsqladmin SUPERUSER; CREATE ROLE cloudsqlsuperuser CREATEDB CREATEROLE;
         CREATE ROLE operator LOGIN CREATEDB CREATEROLE; GRANT cloudsqlsuperuser, app_owner TO operator;
         GRANT CREATE ON DATABASE postgres TO operator",
    );
    let job = job(&archive, "ours", OnExisting::Fail);
    let done = c.restore_with(&job, &[("db-user", "operator")]).await;
    assert_eq!(done.result.error, None);
    // Only what belongs to cloudsqladmin, a superuser, changes: its objects, and privileges on the system.
    assert_eq!(rules(&done.result), ["platform-owner", PRIVILEGE]);
    let owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'audit'";
    assert_eq!(c.psql("ours", owner), "cloudsqlsuperuser");
    assert_same(&c.psql("ours", ROWS), &rows, "rows");
}

/// A role with CREATEROLE makes itself a member of owners, also of those that it creates.
async fn joins_owners(c: &Cluster, format: &str) {
    let n = format.trim_start_matches("-F");
    let (admin, known, new) = (
        format!("admin_{n}"),
        format!("known_{n}"),
        format!("new_{n}"),
    );
    c.psql(
        "postgres",
        &format!(
            "CREATE ROLE {admin} LOGIN CREATEDB CREATEROLE; GRANT CREATE ON DATABASE postgres TO {admin};
             SET ROLE {admin}; CREATE ROLE {known}; RESET ROLE; CREATE ROLE {new}"
        ),
    );
    c.create(
        "src",
        &format!(
            "CREATE SCHEMA a AUTHORIZATION {known}; CREATE TABLE a.t AS SELECT 1 AS i; ALTER TABLE a.t OWNER TO {known};
             CREATE SCHEMA b AUTHORIZATION {new}; CREATE TABLE b.t AS SELECT 2 AS i; ALTER TABLE b.t OWNER TO {new}"
        ),
    );
    let dump = c.scratch(n);
    std::fs::write(&dump, c.dump("src", &[format])).unwrap();
    let content = c.content("src", &[]);
    c.psql("postgres", &format!("DROP DATABASE src; DROP ROLE {new}"));
    let flags = [
        ("db-user", admin.as_str()),
        ("restore-create-roles", "true"),
    ];
    let job = job(&dump, "ours", OnExisting::Fail);
    let done = c.restore_with(&job, &flags).await;
    assert_eq!(done.result.error, None, "{format}");
    let used = rules(&done.result);
    let wanted = ["role-granted", "role-created"];
    assert!(
        wanted.iter().all(|r| used.contains(r)),
        "{format}: {used:?}"
    );
    assert_same(&c.content("ours", &[]), &content, format);
    c.psql("postgres", "DROP DATABASE ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_createrole_may_restore_every_owner() {
    // What such a role may do changed with 16.
    let is_full = is_full_campaign();
    let c = Cluster::start();
    joins_owners(&c, "-Fc").await;
    if is_full {
        joins_owners(&c, "-Fp").await;
    }
    let Some(bindir) = bindir_of(18) else { return };
    let c = Cluster::of(&bindir, "");
    joins_owners(&c, "-Fp").await;
    if is_full {
        joins_owners(&c, "-Fc").await;
    }
}

/// A superuser's session on the target, as a managed service may have one.
#[tokio::test(flavor = "multi_thread")]
async fn a_swap_waits_for_sessions_that_it_may_not_end() {
    let c = Cluster::start();
    c.psql(
        "postgres",
        "CREATE ROLE maker LOGIN CREATEDB; GRANT CREATE ON DATABASE postgres TO maker",
    );
    c.psql("postgres", "CREATE DATABASE app OWNER maker");
    c.create("src", "CREATE TABLE t AS SELECT 1 AS a");
    let archive = c.dump_to_file("src", &[]);
    let config = format!("host={} user=postgres dbname=app", c.sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let stop = CancellationToken::new();
    let run = |limit: &str| {
        let stop = stop.clone();
        let app = c.app(&[
            ("db-user", "maker"),
            ("restore-owners", "none"),
            ("restore-swap-when-idle", limit),
        ]);
        let job = job(&archive, "app", OnExisting::Replace);
        tokio::spawn(async move {
            let manager = &app.manager;
            manager.run(&job, Arc::default(), stop).await
        })
    };
    let done = run("1s").await.unwrap();
    assert_eq!(done.failure, Some(R::TargetUnavailable));
    let said = done.result.error.unwrap().message;
    let wanted = "is still in use by postgres (a superuser), whose sessions maker may not terminate, after 1s";
    assert!(said.contains(wanted), "{said}");
    assert!(!client.is_closed());
    let waits = "SELECT 1 FROM pg_stat_activity WHERE usename = 'maker' AND state = 'idle' AND query LIKE '%pg_signal_backend%'";
    let waiting = run("60s");
    c.until(waits).await;
    drop(client);
    assert_eq!(waiting.await.unwrap().result.error, None);
    assert_eq!(c.psql("app", "SELECT a FROM t"), "1");
    // Whoever waits for an hour may be stopped.
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let waiting = run("1h");
    c.until(waits).await;
    stop.cancel();
    let done = waiting.await.unwrap();
    assert_eq!(done.failure, Some(R::Cancelled), "{:?}", done.result.error);
    assert!(!client.is_closed());
}

//! What a backup may try against the server that restores it. In a restricted restore none of it works: it is
//! refused, or its effect is confined to the restored database.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrestored::error::FailureReason as R;
use pgrestored::job::OnExisting;
use pgrestored::manager::JobOutcome;
use pgrestored::postgres::Server;
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign, job};

const RESTRICTED: (&str, &str) = ("backup-trust", "restricted");
const SECRET: &str = "s3cr3t-c4n4ry";

/// What must not be touched.
struct Canaries {
    file: PathBuf,
    readable: PathBuf,
    port: u16,
    touches: Arc<AtomicU32>,
    before: String,
}

/// The state of the server outside of databases.
const OUTSIDE: &str = "SELECT string_agg(x, chr(10) ORDER BY x) FROM (
    SELECT format('role %s %s %s %s %s %s', rolname, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls) FROM pg_roles
    UNION ALL SELECT format('member %s of %s', member::regrole, roleid::regrole) FROM pg_auth_members
    UNION ALL SELECT format('database %s %s %s %s', datname, datdba::regrole, datallowconn, datistemplate) FROM pg_database WHERE datname <> 'app'
    UNION ALL SELECT format('setting %s %s %s', coalesce(datname, '-'), setrole::regrole, setconfig) FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase
    UNION ALL SELECT format('tablespace %s', spcname) FROM pg_tablespace
    UNION ALL SELECT format('slot %s', slot_name) FROM pg_replication_slots
    UNION ALL SELECT format('file %s', setting) FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf') t(x)";

impl Canaries {
    fn set(c: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let touches = Arc::new(AtomicU32::new(0));
        let seen = touches.clone();
        std::thread::spawn(move || {
            for _ in listener.incoming() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        let readable = c.scratch("readable");
        std::fs::write(&readable, SECRET).unwrap();
        c.create(
            "vault",
            &format!("CREATE TABLE vault AS SELECT '{SECRET}'::text AS secret; GRANT ALL ON vault TO PUBLIC"),
        );
        // Created by the first restricted restore, and never changed.
        c.psql(
            "postgres",
            "CREATE ROLE pgrestored_owner; CREATE ROLE victim",
        );
        let before = c.psql("postgres", OUTSIDE);
        Canaries {
            file: c.scratch("written-by-a-backup"),
            readable,
            port,
            touches,
            before,
        }
    }

    fn fill(&self, sql: &str) -> String {
        sql.replace("WRITE", self.file.to_str().unwrap())
            .replace("READ", self.readable.to_str().unwrap())
            .replace("PORT", &self.port.to_string())
    }

    /// Nothing happened outside of the server.
    fn check_beside(&self, what: &str) {
        assert!(!self.file.exists(), "{what}: a file was written");
        assert_eq!(
            self.touches.load(Ordering::SeqCst),
            0,
            "{what}: a connection was opened"
        );
    }

    /// Nothing happened outside of the database, and nothing from outside is in it.
    fn check(&self, c: &Cluster, what: &str) {
        self.check_beside(what);
        // One statement needs no psql.
        let app = "SELECT count(*) FROM pg_database WHERE datname = 'app'";
        let now = c.psql("postgres", &format!("SELECT ({OUTSIDE}), ({app})"));
        let (outside, app) = now.rsplit_once('|').unwrap();
        // With every staging database that is left.
        assert_eq!(outside, self.before, "{what}");
        if app == "1" {
            assert!(
                !c.content("app", &[]).contains(SECRET),
                "{what}: a secret was copied into the database"
            );
            c.psql("postgres", "DROP DATABASE app WITH (FORCE)");
        }
    }
}

/// A dump of a small database with `sql` inserted, as SQL text.
fn with(c: &Cluster, plain: &str, sql: &str) -> PathBuf {
    // Dumps have no transaction timeout, and nothing is to be refused because of it.
    let sql = if sql.is_empty() {
        String::new()
    } else {
        format!("SET search_path = public;\n{sql}")
    };
    let end = "--\n-- PostgreSQL database dump complete\n";
    assert!(plain.contains(end));
    let file = c.scratch("hostile.sql");
    std::fs::write(&file, plain.replacen(end, &format!("{sql}\n\n{end}"), 1)).unwrap();
    file
}

fn plain(c: &Cluster) -> String {
    c.create("src", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, i::text FROM generate_series(1, 20) i");
    std::fs::read_to_string(c.dump_as("src", DumpFormat::Plain)).unwrap()
}

/// Code that goes on after each of these statements that is refused, and fails at one that is not.
fn tried_by_code(statements: &[&str]) -> String {
    let quoted = statements.iter().map(|sql| format!("$q${sql}$q$"));
    let all = quoted.collect::<Vec<_>>().join(", ");
    format!(
        "DO $code$ DECLARE tried text; BEGIN FOREACH tried IN ARRAY ARRAY[{all}] LOOP
            BEGIN EXECUTE tried; EXCEPTION WHEN others THEN CONTINUE; END;
            RAISE EXCEPTION 'not refused: %', tried;
        END LOOP; END $code$;"
    )
}

async fn restore(c: &Cluster, file: &std::path::Path, flags: &[(&str, &str)]) -> JobOutcome {
    c.restore_with(&job(file, "app", OnExisting::Fail), flags)
        .await
}

/// Refused by the server or by us.
const REFUSED: &[&str] = &[
    "COPY t TO PROGRAM 'touch WRITE';",
    "COPY t FROM 'READ';",
    "CREATE TABLE stolen AS SELECT pg_read_file('READ') AS s;",
    "LOAD 'auto_explain';",
    "CREATE TABLESPACE evil LOCATION '/tmp';",
    "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=PORT user=x dbname=x' PUBLICATION p;",
    "CREATE ROLE evil SUPERUSER LOGIN;",
    "ALTER SYSTEM SET work_mem = '1GB';",
    "DROP DATABASE vault;",
    "UPDATE pg_catalog.pg_authid SET rolsuper = true;",
    "CREATE TABLE stolen AS SELECT * FROM pgrestored.request;",
    "CREATE TABLE stolen AS SELECT * FROM pgrestored_work.done;",
    "INSERT INTO pgrestored_work.done (attempt, lane, n, body, mac, ours) VALUES (1, 9, 0, '{}', 'x', true);",
    "SELECT pgrestored_work.note('x', 1, 9, 0, '{\"e\":[[1,0]]}', 'y');",
    "DO $$ BEGIN EXECUTE 'DROP SCHEMA pgrestored_work CASCADE'; END $$;",
    "ALTER SCHEMA pgrestored_work RENAME TO mine;",
    "\\! touch WRITE",
    "\\i READ",
    "\\connect vault",
    "SELECT 1 \\g |touch WRITE",
    "CREATE TABLE stolen (s text);\n\\copy stolen from 'READ'",
    "\\copy t from program 'touch WRITE'",
    "\\o WRITE",
];

/// Refused by the server, as others above are. `make test` has code try them all in one restore, `make soak` also restores each.
const REFUSED_TOO: &[&str] = &[
    "SELECT lo_import('READ');",
    "CREATE FUNCTION f() RETURNS int LANGUAGE c AS '/lib/x86_64-linux-gnu/libc.so.6', 'getpid';",
    "CREATE LANGUAGE plpython3u;",
    "CREATE TYPE base;\nCREATE FUNCTION base_in(cstring) RETURNS base LANGUAGE internal AS 'int4in';",
    "CREATE FUNCTION leak(int) RETURNS bool LANGUAGE sql LEAKPROOF AS 'SELECT true';",
    "CREATE FUNCTION et() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';\nCREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION et();",
    "CREATE EXTENSION dblink;",
    "CREATE PUBLICATION p FOR ALL TABLES;",
    "ALTER ROLE postgres PASSWORD 'x';",
    "DROP ROLE victim;",
    "ALTER ROLE CURRENT_USER SUPERUSER;",
    "CREATE TABLE stolen AS SELECT rolpassword FROM pg_authid;",
    "SELECT pg_reload_conf();",
    "CREATE TABLE pg_catalog.evil (a int);",
    "CREATE OR REPLACE FUNCTION pg_catalog.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';",
    "CREATE TABLE stolen AS SELECT * FROM pgrestored_work.head;",
    "UPDATE pgrestored_work.head SET attempt = 9;",
    "DELETE FROM pgrestored_work.done;",
    "CREATE OR REPLACE FUNCTION pgrestored_work.note(bytea, integer, integer, integer, text, bytea) RETURNS void LANGUAGE sql AS 'SELECT';",
    "CREATE TRIGGER evil BEFORE INSERT ON pgrestored_work.done FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();",
    "CREATE TABLE pgrestored_work.evil (a int);",
    "CREATE TABLE stolen AS SELECT * FROM pg_ls_dir('/');",
    "SELECT lo_export(lo_from_bytea(0, 'x'), 'WRITE');",
    "CREATE EXTENSION plpython3u;",
    "CREATE FOREIGN DATA WRAPPER w;",
    "SELECT pg_create_physical_replication_slot('evil');",
    "CREATE CAST (text AS int4) WITHOUT FUNCTION;",
    "CREATE ACCESS METHOD m TYPE TABLE HANDLER heap_tableam_handler;",
    "COPY t FROM PROGRAM 'touch WRITE';",
    "COPY t TO 'WRITE';",
    "CREATE TABLE stolen AS SELECT pg_read_binary_file('READ') AS s;",
    "CREATE TABLE stolen AS SELECT pg_stat_file('READ')::text AS s;",
    "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_backend_pid';",
    "CREATE EXTENSION postgres_fdw;",
    "CREATE EXTENSION file_fdw;",
    "CREATE EXTENSION adminpack;",
    "CREATE EXTENSION pg_stat_statements;",
    "CREATE EXTENSION pageinspect;",
    "CREATE SUBSCRIPTION s CONNECTION 'host=169.254.169.254 user=x' PUBLICATION p WITH (connect = false);",
    "CREATE ROLE evil;",
    "CREATE USER evil PASSWORD 'x';",
    "ALTER ROLE victim SUPERUSER;",
    "ALTER ROLE CURRENT_USER CREATEROLE;",
    "CREATE TABLE stolen AS SELECT passwd FROM pg_shadow;",
    "SELECT pg_rotate_logfile();",
    "SELECT pg_switch_wal();",
    "SELECT pg_create_logical_replication_slot('evil', 'test_decoding');",
    "INSERT INTO pg_catalog.pg_db_role_setting VALUES (0, 0, ARRAY['work_mem=1GB']);",
];

/// Skipped or allowed, and without any effect outside.
const CONFINED: &[&str] = &[
    "ALTER TABLE pg_catalog.pg_class OWNER TO CURRENT_USER;",
    "ALTER DATABASE vault RENAME TO mine;",
    "SET session_replication_role = replica;",
    "SET session_preload_libraries = 'evil';",
    "SET SESSION AUTHORIZATION postgres;",
    "SET ROLE postgres;",
    "ALTER DATABASE vault SET search_path = evil;",
    "ALTER DATABASE vault OWNER TO CURRENT_USER;",
    "COMMENT ON DATABASE vault IS 'mine';",
    "GRANT ALL ON DATABASE vault TO PUBLIC;",
    "GRANT pg_read_server_files TO CURRENT_USER;",
    "GRANT pg_execute_server_program TO CURRENT_USER;",
    "GRANT postgres TO CURRENT_USER;",
    "CREATE EXTENSION pgcrypto;",
    "ALTER ROLE CURRENT_USER SET work_mem = '1GB';",
    "ALTER ROLE CURRENT_USER PASSWORD 'mine';",
    "SET statement_timeout = 0;\nSELECT pg_sleep(0.1);",
    "SELECT pg_advisory_lock(1), pg_advisory_lock(hashtextextended('pgrestored:app', 7));",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'vault';",
    "CREATE FUNCTION d() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT current_user::text';",
    "CREATE VIEW stolen AS SELECT rolname, rolpassword FROM pg_authid;",
    "CREATE SCHEMA evil;\nCREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''x''';",
    "CREATE OPERATOR = (LEFTARG = int4, RIGHTARG = int4, FUNCTION = int4eq);",
    "SET search_path = evil, pg_catalog;",
    "SET client_min_messages = error;",
];

#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_refused_or_confined() {
    let c = Cluster::start_with("-c wal_level=logical -c max_wal_senders=4");
    let plain = plain(&c);
    // The journal exists, with something worth stealing.
    let good = with(&c, &plain, "");
    assert_eq!(restore(&c, &good, &[]).await.failure, None);
    c.psql("postgres", "DROP DATABASE app");
    let canaries = Canaries::set(&c);
    // Further connections have nothing to do: one statement follows the other.
    let jobs = if is_full_campaign() { "3" } else { "1" };
    let app = c.app(&[RESTRICTED, ("restore-jobs", jobs)]);
    let attack = async |sql: &str| {
        let file = with(&c, &plain, &canaries.fill(sql));
        let job = job(&file, "app", OnExisting::Fail);
        app.manager
            .run(&job, Arc::default(), CancellationToken::new())
            .await
    };
    let mut allowed = vec![];
    // What is refused ends its restore; several of the others are in one. The server is looked at after several.
    let together = if is_full_campaign() { 1 } else { 5 };
    let too = if is_full_campaign() { REFUSED_TOO } else { &[] };
    let refused = [REFUSED, too].concat();
    for group in refused.chunks(together) {
        for &sql in group {
            if attack(sql).await.failure.is_none() {
                allowed.push(sql);
            }
            canaries.check_beside(sql);
        }
        canaries.check(&c, &group.join("\n"));
    }
    let by_code = tried_by_code(REFUSED_TOO);
    assert_eq!(attack(&by_code).await.result.error, None);
    canaries.check(&c, &by_code);
    for group in CONFINED.chunks(together) {
        let sql = group.join("\nSET search_path = public;\n");
        assert_eq!(attack(&sql).await.result.error, None, "{sql}");
        let owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384";
        assert_eq!(c.psql("app", owners), "pgrestored_owner", "{sql}");
        canaries.check(&c, &sql);
    }
    let refused = REFUSED.len() + REFUSED_TOO.len();
    let confined = CONFINED.len();
    eprintln!("hostile statements: {refused} refused, {confined} confined, 0 escalations");
    assert_eq!(allowed, Vec::<&str>::new());
    // Control: in a trusted restore the same works, so the test detects it.
    let sings = with(
        &c,
        &plain,
        &canaries.fill("CREATE TABLE stolen AS SELECT pg_read_file('READ') AS s;"),
    );
    assert_eq!(restore(&c, &sings, &[]).await.failure, None);
    assert!(c.content("app", &[]).contains(SECRET));
    c.psql("postgres", "DROP DATABASE app");
    let shell = with(
        &c,
        &plain,
        &canaries.fill("DO $$ BEGIN EXECUTE 'COPY t TO PROGRAM ''touch WRITE'''; END $$;"),
    );
    assert_eq!(restore(&c, &shell, &[]).await.failure, None);
    assert!(canaries.file.exists());
}

/// Code that waits for a superuser to run it, in every place where a restore could.
const DORMANT_CODE: &str = "
CREATE FUNCTION snap() RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
    EXECUTE 'ALTER ROLE victim SUPERUSER';
  END IF;
EXCEPTION WHEN others THEN NULL;
END $$;
CREATE FUNCTION trap(x int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM public.snap(); RETURN x; END';
CREATE FUNCTION trap_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.trap(1); RETURN NEW; END';
CREATE DOMAIN trapped AS int CHECK (public.trap(VALUE) > 0);
CREATE TABLE checked (a int CHECK (public.trap(a) > 0));
CREATE TABLE with_domain (a trapped);
CREATE TABLE defaulted (a int, b int DEFAULT public.trap(1));
CREATE TABLE triggered (a int);
CREATE TRIGGER trg BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION trap_trigger();
CREATE TABLE generated (a int, b int GENERATED ALWAYS AS (public.trap(a)) STORED);
CREATE TABLE indexed (a int);
CREATE INDEX ON indexed (public.trap(a));
CREATE TABLE partial (a int);
CREATE INDEX ON partial (a) WHERE public.trap(a) > 0;
CREATE TABLE ruled (a int);
CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT public.trap(1);
CREATE VIEW viewed AS SELECT public.trap(1) AS x;
CREATE MATERIALIZED VIEW materialized AS SELECT public.trap(a) FROM checked;
CREATE STATISTICS st ON (public.trap(a)), a FROM indexed;
CREATE TABLE secured (a int);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY pol ON secured USING (public.trap(a) > 0);
CREATE TABLE serial_one (a serial PRIMARY KEY);
CREATE FUNCTION definer() RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT public.trap(1)';
CREATE AGGREGATE agg (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
INSERT INTO checked SELECT generate_series(1, 50);
INSERT INTO with_domain SELECT generate_series(1, 50);
INSERT INTO defaulted SELECT generate_series(1, 50);
INSERT INTO triggered SELECT generate_series(1, 50);
INSERT INTO generated SELECT generate_series(1, 50);
INSERT INTO indexed SELECT generate_series(1, 50);
INSERT INTO partial SELECT generate_series(1, 50);
INSERT INTO secured SELECT generate_series(1, 50);
INSERT INTO serial_one DEFAULT VALUES;
REFRESH MATERIALIZED VIEW materialized;
";

#[tokio::test(flavor = "multi_thread")]
async fn code_that_waits_for_a_superuser_is_not_run_by_one() {
    let c = Cluster::start();
    c.create("src", "");
    c.psql("postgres", "CREATE ROLE victim; CREATE ROLE innocent LOGIN");
    c.psql("postgres", "CREATE DATABASE app OWNER innocent");
    // Created by an unprivileged role, as an attacker would.
    c.psql(
        "src",
        "GRANT CREATE ON SCHEMA public TO innocent; GRANT CREATE ON DATABASE src TO innocent",
    );
    c.psql("src", &format!("SET ROLE innocent; {DORMANT_CODE}"));
    let victim = || {
        c.psql(
            "postgres",
            "SELECT rolsuper FROM pg_roles WHERE rolname = 'victim'",
        )
    };
    // The others are restored like these: `an_unprivileged_role_restores_replaces_and_rolls_back` has them.
    let formats = [
        DumpFormat::Custom,
        DumpFormat::PlainInserts,
        DumpFormat::Plain,
        DumpFormat::Directory,
        DumpFormat::Tar,
    ];
    let tested = if is_full_campaign() { 5 } else { 2 };
    for format in formats.into_iter().take(tested) {
        let dump = c.dump_as("src", format);
        let done = c
            .restore_with(&job(&dump, "app", OnExisting::Replace), &[RESTRICTED])
            .await;
        assert_eq!(done.result.error, None, "{format:?}");
        assert_eq!(victim(), "f", "{format:?}");
        assert_eq!(
            c.psql(
                "app",
                "SET row_security = off; SELECT count(*) FROM checked"
            ),
            "50"
        );
        // The owner of the replaced database is unprivileged, and owns everything.
        let owners = "SELECT string_agg(DISTINCT pg_get_userbyid(relowner)::text, ',') FROM pg_class WHERE oid >= 16384";
        assert_eq!(c.psql("app", owners), "innocent", "{format:?}");
        assert_eq!(
            c.psql(
                "postgres",
                "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgrestored_r_%'"
            ),
            "0"
        );
    }
    // Control: in a trusted restore, a superuser loads it and runs the code.
    let dump = c.dump_as("src", DumpFormat::Custom);
    let done = c
        .restore_with(&job(&dump, "app", OnExisting::Replace), &[])
        .await;
    assert_eq!((done.failure, victim().as_str()), (None, "t"));
}

const OWNED_OBJECTS: &str = include_str!("owned.sql");

/// The catalogs with objects of the current database that a role owns.
const OWNED: &str = "SELECT string_agg(DISTINCT classid::regclass::text COLLATE \"C\", ' ' ORDER BY classid::regclass::text COLLATE \"C\")
    FROM pg_shdepend WHERE deptype = 'o' AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND pg_get_userbyid(refobjid) = ";
/// Whether everybody may do in a database what the default allows.
const USUAL: &str = "SELECT array(SELECT unnest(datacl)::text ORDER BY 1) = array(SELECT unnest(acldefault('d', datdba))::text ORDER BY 1)
    FROM pg_database WHERE datname = ";

/// The flags to restore with the roles of deploy/postgres.
const DOCUMENTED: [(&str, &str); 3] = [
    ("db-user", "pgrestored"),
    ("backup-trust", "restricted"),
    ("db-restricted-user", "pgrestored_load_1,pgrestored_load_2"),
];

/// Creates these roles, and a database to replace.
fn documented_roles(c: &Cluster) {
    let setup = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/deploy/postgres/roles.sql"
    ))
    .unwrap();
    c.psql("postgres", &setup);
    c.psql(
        "postgres",
        "CREATE ROLE app_owner; GRANT app_owner TO pgrestored; CREATE DATABASE app OWNER app_owner",
    );
}

/// What a superuser's `pg_restore` makes of `src`.
fn restored_by_a_superuser(c: &Cluster) -> String {
    let dump = c.dump_as("src", DumpFormat::Custom);
    c.pg_restore(&dump, "theirs", &["--no-owner", "--no-privileges"]);
    c.content("theirs", &["--no-owner"])
}

/// The whole procedure without any superuser, with the roles of deploy/postgres.
#[tokio::test(flavor = "multi_thread")]
async fn an_unprivileged_role_restores_replaces_and_rolls_back() {
    let c = Cluster::start();
    documented_roles(&c);
    c.create(
        "src",
        &format!("CREATE EXTENSION pgcrypto; {OWNED_OBJECTS}"),
    );
    let theirs = restored_by_a_superuser(&c);
    let flags = DOCUMENTED;
    let replace = |dump: &std::path::Path| job(dump, "app", OnExisting::Replace);
    // The last one is also what `an_unprivileged_role_restores_on_newer_servers` restores.
    let formats = [
        DumpFormat::Plain,
        DumpFormat::Directory,
        DumpFormat::Tar,
        DumpFormat::Custom,
    ];
    let tested = if is_full_campaign() { 4 } else { 3 };
    for format in formats.into_iter().take(tested) {
        let dump = c.dump_as("src", format);
        let done = c.restore_with(&replace(&dump), &flags).await;
        assert_eq!(done.result.error, None, "{format:?}");
        assert!(
            done.result.notes.iter().any(|n| n.contains("app_owner")),
            "{:?}",
            done.result.notes
        );
        // With the same privileges.
        assert_same(&c.content("app", &["--no-owner"]), &theirs, "restricted");
        assert_eq!(
            c.psql("app", &format!("{OWNED}'app_owner'")),
            "pg_class pg_collation pg_conversion pg_extension pg_largeobject pg_namespace pg_operator pg_proc pg_publication \
             pg_statistic_ext pg_ts_config pg_ts_dict pg_type"
        );
        assert_eq!(
            c.psql("app", "SELECT count(*) FROM pg_shdepend JOIN pg_database d ON d.oid = dbid
                WHERE datname = current_database() AND pg_get_userbyid(refobjid) LIKE 'pgrestored%'"),
            "0"
        );
        assert_eq!(
            c.psql(
                "app",
                "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384"
            ),
            "app_owner"
        );
        assert_eq!(
            c.psql(
                "app",
                "SELECT pg_get_userbyid(lomowner) FROM pg_largeobject_metadata"
            ),
            "app_owner"
        );
        assert_eq!(c.psql("postgres", &format!("{USUAL}'app'")), "t");
    }
    let new = c
        .restore_with(
            &job(
                &c.dump_as("src", DumpFormat::Custom),
                "fresh",
                OnExisting::Fail,
            ),
            &flags,
        )
        .await;
    assert_eq!(new.result.error, None);
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'fresh'";
    assert_eq!(c.psql("postgres", owner), "pgrestored_owner");
    restores_in_place(&c).await;
    c.app(&flags)
        .manager
        .rollback("app", None, "back")
        .await
        .unwrap();
    assert!(
        c.app(&flags)
            .manager
            .reap(pgrestored::database::ReapScope::Worker)
            .await
            .unwrap()
            .failed
            .is_empty()
    );
    assert_eq!(c.leftovers(), Vec::<String>::new());
    let config = c.app(&flags).config.clone();
    let doctor = async || {
        pgrestored::database::check_restricted(
            &Server::new(&config.db).unwrap(),
            &config.restricted,
        )
        .await
    };
    assert!(doctor().await.unwrap().contains("pgrestored_load_2"));
    c.psql(
        "postgres",
        "ALTER ROLE pgrestored_load_1 SET work_mem = '1GB'",
    );
    assert!(
        doctor()
            .await
            .unwrap_err()
            .to_string()
            .contains("RESET ALL")
    );
    c.psql(
        "postgres",
        "ALTER ROLE pgrestored_load_1 RESET ALL; ALTER ROLE pgrestored_load_1 CREATEDB",
    );
    assert!(
        doctor()
            .await
            .unwrap_err()
            .to_string()
            .contains("too powerful")
    );
}

/// The database has its name, and is closed to all others, while its objects change owners.
async fn restores_in_place(c: &Cluster) {
    c.create(
        "named",
        "CREATE FUNCTION here() RETURNS text LANGUAGE sql STABLE AS 'SELECT current_database()::text';
         CREATE TABLE t (a int); CREATE PUBLICATION pub FOR TABLE t; CREATE MATERIALIZED VIEW m AS SELECT public.here() AS db",
    );
    let dump = c.dump_as("named", DumpFormat::Plain);
    let done = c
        .restore_with(&job(&dump, "placed", OnExisting::Fail), &DOCUMENTED)
        .await;
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("placed", "TABLE m"), "placed");
    assert_eq!(
        c.psql("placed", &format!("{OWNED}'pgrestored_owner'")),
        "pg_class pg_proc pg_publication"
    );
    assert_eq!(c.psql("postgres", &format!("{USUAL}'placed'")), "t");
}

/// From 16 on a membership has options, of which DB_USER needs both.
#[tokio::test(flavor = "multi_thread")]
async fn an_unprivileged_role_restores_on_newer_servers() {
    // 18 is a server of `privileges_are_found_through_any_chain_of_memberships`, too.
    let tested = if is_full_campaign() { 2 } else { 1 };
    for version in [16, 18].into_iter().take(tested) {
        let Some(bindir) = bindir_of(version) else {
            continue;
        };
        let c = Cluster::of(&bindir, "");
        documented_roles(&c);
        c.create("src", OWNED_OBJECTS);
        let theirs = restored_by_a_superuser(&c);
        let dump = c.dump_as("src", DumpFormat::Custom);
        let replace = || job(&dump, "app", OnExisting::Replace);
        c.psql(
            "postgres",
            "REVOKE SET OPTION FOR app_owner FROM pgrestored",
        );
        let refused = c.restore_with(&replace(), &DOCUMENTED).await;
        let error = refused.result.error.unwrap();
        assert_eq!(error.reason, R::InsufficientPrivilege, "{error:?}");
        assert!(
            error.message.ends_with("WITH INHERIT TRUE, SET TRUE"),
            "{error:?}"
        );
        c.psql(
            "postgres",
            "GRANT app_owner TO pgrestored WITH INHERIT TRUE, SET TRUE",
        );
        let done = c.restore_with(&replace(), &DOCUMENTED).await;
        assert_eq!(done.result.error, None, "{version}");
        assert_same(
            &c.content("app", &["--no-owner"]),
            &theirs,
            &format!("PostgreSQL {version}"),
        );
        assert_eq!(
            c.psql("app", &format!("{OWNED}'app_owner'")),
            "pg_class pg_collation pg_conversion pg_largeobject pg_namespace pg_operator pg_proc pg_publication \
             pg_statistic_ext pg_ts_config pg_ts_dict pg_type"
        );
    }
}

/// Privileges that statements of a backup would not be allowed to grant, granted by code.
const GRANTS: &str = "
CREATE SCHEMA locked; CREATE TABLE locked.t (a int, b int); CREATE TYPE locked.c AS (a int); CREATE SEQUENCE locked.q;
CREATE DOMAIN locked.d AS int; CREATE FUNCTION locked.f(a int, b locked.c) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE locked.p(IN a int, INOUT b int) LANGUAGE plpgsql AS 'BEGIN END';
CREATE AGGREGATE locked.of_all(*) (SFUNC = int8inc, STYPE = bigint, INITCOND = '0');
CREATE AGGREGATE locked.ordered(int ORDER BY int) (SFUNC = int4pl, STYPE = int, FINALFUNC = int4pl);
CREATE VIEW v AS SELECT 1 AS a; SELECT lo_create(4711);
DO $$ BEGIN
  GRANT ALL ON SCHEMA public, locked TO dba WITH GRANT OPTION; REVOKE CREATE ON SCHEMA public FROM CURRENT_USER;
  GRANT ALL ON ALL TABLES IN SCHEMA public, locked TO dba; GRANT SELECT (b), UPDATE (a) ON locked.t TO dba, PUBLIC;
  REVOKE ALL ON TABLE locked.t, v FROM CURRENT_USER; GRANT ALL ON ALL SEQUENCES IN SCHEMA locked TO dba;
  GRANT ALL ON ALL ROUTINES IN SCHEMA locked TO dba; REVOKE ALL ON ALL ROUTINES IN SCHEMA locked FROM PUBLIC, CURRENT_USER;
  GRANT ALL ON TYPE locked.c TO dba; REVOKE ALL ON DOMAIN locked.d FROM PUBLIC; GRANT ALL ON LARGE OBJECT 4711 TO dba;
  ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO dba; ALTER DEFAULT PRIVILEGES IN SCHEMA locked GRANT ALL ON TABLES TO dba;
  CREATE TABLE locked.later (a int);
  REVOKE ALL ON SCHEMA locked FROM CURRENT_USER;
END $$;";

#[tokio::test(flavor = "multi_thread")]
async fn privileges_that_code_grants_are_revoked() {
    let c = Cluster::start();
    documented_roles(&c);
    c.psql("postgres", "CREATE ROLE dba");
    let dump = with(&c, &plain(&c), GRANTS);
    let done = c
        .restore_with(&job(&dump, "app", OnExisting::Replace), &DOCUMENTED)
        .await;
    assert_eq!(done.result.error, None);
    let content = c.content("app", &["--no-owner"]);
    let is_about_privileges = |line: &&str| {
        ["GRANT ", "REVOKE ", "ALTER DEFAULT"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    assert_eq!(content.lines().find(is_about_privileges), None);
    let of_dba = "SELECT count(*) FROM pg_shdepend WHERE pg_get_userbyid(refobjid) = 'dba'";
    assert_eq!(c.psql("app", of_dba), "0");
    // Its owner may use what the code has revoked from itself.
    c.psql(
        "app",
        "SET ROLE app_owner; SELECT locked.f(a, ROW(1)) FROM locked.t; TABLE locked.later; CREATE TABLE locked.new ()",
    );
}

/// Sources that are merely allowed are restored restricted, whatever BACKUP_TRUST says; unknown ones are refused.
async fn trust_depends_on_the_source(c: &Cluster) {
    c.create(
        "trusted",
        "CREATE TABLE t (); ALTER TABLE t OWNER TO role_a",
    );
    let dump = c.dump_to_file("trusted", &[]);
    let place = format!("file://{}", dump.parent().unwrap().display());
    let owner = |db: &str| {
        c.psql(
            db,
            "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't'",
        )
    };
    for (i, (flag, wanted)) in [
        ("trusted-sources", "role_a"),
        ("allowed-sources", "pgrestored_owner"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("app{i}");
        let done = c
            .restore_with(&job(&dump, &target, OnExisting::Fail), &[(flag, &place)])
            .await;
        assert_eq!(done.result.error, None);
        assert_eq!(owner(&target), wanted, "{flag}");
    }
}

/// A function that runs as the owner of the restored objects when anybody calls it.
const ESCALATES: &str = "CREATE FUNCTION public.pwn() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $f$
BEGIN
  EXECUTE 'CREATE FUNCTION public.su() RETURNS text LANGUAGE sql SECURITY DEFINER AS $x$ SELECT current_user::text || pg_read_file(''/etc/hostname'') $x$';
  EXECUTE 'ALTER FUNCTION public.su() OWNER TO dba';
  RETURN public.su();
END $f$;";

#[tokio::test(flavor = "multi_thread")]
async fn roles_that_can_become_superuser_own_nothing_of_a_backup() {
    let c = Cluster::start();
    trust_depends_on_the_source(&c).await;
    let dump = with(&c, &plain(&c), ESCALATES);
    // Two memberships away from a superuser, without privileges of its own.
    c.psql(
        "postgres",
        "CREATE ROLE dba SUPERUSER; CREATE ROLE ops NOINHERIT; CREATE ROLE app_owner; CREATE ROLE visitor;
         GRANT dba TO ops; GRANT ops TO app_owner; CREATE DATABASE app OWNER app_owner",
    );
    let call = "SET ROLE visitor; DO $$ BEGIN RAISE 'got %', public.pwn();
        EXCEPTION WHEN insufficient_privilege THEN NULL; END $$";
    let owner = "SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'pwn'";
    let done = c
        .restore_with(&job(&dump, "app", OnExisting::Replace), &[RESTRICTED])
        .await;
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("app", owner), "pgrestored_owner");
    c.psql("app", call);
    let said = done.result.notes.iter().find(|n| n.contains("app_owner"));
    assert!(
        said.is_some_and(|n| n.contains("a member of dba, which has SUPERUSER")),
        "{said:?}"
    );
    // The same if that role is the configured one.
    let flags = [RESTRICTED, ("restricted-owner", "app_owner")];
    let done = c
        .restore_with(&job(&dump, "new", OnExisting::Fail), &flags)
        .await;
    assert_eq!(
        done.failure,
        Some(R::InsufficientPrivilege),
        "{:?}",
        done.result.error
    );
    // Granted while the restore runs.
    c.psql(
        "postgres",
        "CREATE ROLE late; CREATE DATABASE target OWNER late",
    );
    let grants = "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_auth_members WHERE member = 'late'::regrole) LOOP PERFORM pg_sleep(0.01); END LOOP; END $$;";
    let waiting = with(&c, &std::fs::read_to_string(&dump).unwrap(), grants);
    let (request, flags) = (job(&waiting, "target", OnExisting::Replace), [RESTRICTED]);
    let restored = c.restore_with(&request, &flags);
    let granted = async {
        let at_work = "SELECT pid FROM pg_stat_activity WHERE usename LIKE 'pgrestored_r_%' AND wait_event = 'PgSleep'";
        c.until(at_work).await;
        c.psql("postgres", "GRANT pg_monitor TO late");
    };
    let (done, ()) = tokio::join!(restored, granted);
    assert_eq!(
        done.failure,
        Some(R::InsufficientPrivilege),
        "{:?}",
        done.result.error
    );
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// For each role, what `doctor` reports about it as the owner of what restricted restores create.
#[tokio::test(flavor = "multi_thread")]
async fn privileges_are_found_through_any_chain_of_memberships() {
    const EVERYWHERE: &str = "
        CREATE ROLE plain; CREATE ROLE friend; CREATE ROLE member_of_plain; GRANT plain, friend TO member_of_plain;
        CREATE ROLE dba SUPERUSER; CREATE ROLE one; GRANT dba TO one; CREATE ROLE two NOINHERIT; GRANT one TO two;
        CREATE ROLE makes_roles CREATEROLE; CREATE ROLE with_makes_roles; GRANT makes_roles TO with_makes_roles;
        CREATE ROLE replicates REPLICATION; CREATE ROLE with_replicates; GRANT replicates TO with_replicates;
        CREATE ROLE sees_all BYPASSRLS; CREATE ROLE with_sees_all; GRANT sees_all TO with_sees_all;
        CREATE ROLE makes_databases CREATEDB; CREATE ROLE with_makes_databases; GRANT makes_databases TO with_makes_databases;
        CREATE ROLE monitors; GRANT pg_monitor TO monitors; CREATE ROLE signals; GRANT pg_signal_backend TO signals;
        CREATE ROLE rds_superuser; CREATE ROLE hosted; GRANT rds_superuser TO hosted;
        CREATE ROLE cloudsqlsuperuser; CREATE ROLE hosted_elsewhere; GRANT cloudsqlsuperuser TO hosted_elsewhere;
        CREATE ROLE runs_as_us; GRANT postgres TO runs_as_us;";
    let powerful = "dba one two makes_roles with_makes_roles with_replicates with_sees_all with_makes_databases monitors signals hosted hosted_elsewhere runs_as_us";
    // 16 is the server of `an_unprivileged_role_restores_on_newer_servers`.
    let tested = if is_full_campaign() { 3 } else { 2 };
    for version in [15, 18, 16].into_iter().take(tested) {
        let c = match version {
            15 => Cluster::start(),
            _ => match bindir_of(version) {
                Some(bindir) => Cluster::of(&bindir, ""),
                None => continue,
            },
        };
        c.psql("postgres", EVERYWHERE);
        let mut powerful: Vec<&str> = powerful.split(' ').collect();
        c.psql(
            "postgres",
            "CREATE ROLE sets_parameters; GRANT ALTER SYSTEM ON PARAMETER archive_command TO sets_parameters;
             CREATE ROLE with_sets_parameters; GRANT sets_parameters TO with_sets_parameters;",
        );
        powerful.extend(["sets_parameters", "with_sets_parameters"]);
        if version >= 16 {
            c.psql(
                "postgres",
                "CREATE ROLE administers; GRANT pg_read_all_data TO administers WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
                 CREATE ROLE idle_member; GRANT one TO idle_member WITH INHERIT FALSE, SET FALSE",
            );
            powerful.extend(["administers", "idle_member"]);
        }
        for role in ["plain", "friend", "member_of_plain"]
            .into_iter()
            .chain(powerful.iter().copied())
        {
            let config = c.app(&[("restricted-owner", role)]).config.clone();
            let server = Server::new(&config.db).unwrap();
            let said = pgrestored::database::check_restricted(&server, &config.restricted).await;
            assert_eq!(
                said.is_err(),
                powerful.contains(&role),
                "{version} {role}: {said:?}"
            );
        }
    }
}

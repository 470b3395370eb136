//! Extensions that need care: those that keep configuration in tables of their own, have libraries that the server loads when
//! it starts, or have to be told about a restore. pg_cron, which exists in one database per server, is in `in_place`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::job::{BackupRef, OnExisting, VerifyJob};
use pgrestored::policy::{OnError, Trigger};
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign, job, of_package};

/// Settings of databases that tell TimescaleDB of a restore.
const LEFT: &str =
    "SELECT count(*) FROM pg_db_role_setting WHERE setconfig::text LIKE '%restoring%'";

/// What the stand-in for TimescaleDB has written down.
const CALLS: &str = "SELECT string_agg(what, ' ' ORDER BY id) FROM calls";

/// A user's own spatial reference system, columns with indexes, a check, a view and a materialized view that use it, and a
/// topology.
const PLACES: &str = "CREATE EXTENSION postgis; CREATE EXTENSION postgis_topology;
INSERT INTO spatial_ref_sys (srid, auth_name, auth_srid, srtext, proj4text)
    SELECT 990001, 'mine', 1, srtext, proj4text FROM spatial_ref_sys WHERE srid = 4326;
CREATE TABLE places (id int PRIMARY KEY, at geometry(Point, 990001), area geography(Polygon, 4326), CHECK (ST_X(at) < 400));
INSERT INTO places SELECT i, ST_SetSRID(ST_MakePoint(i % 180, i % 90), 990001),
    ST_Buffer(ST_MakePoint(i % 180, i % 80)::geography, 100) FROM generate_series(1, 300) i;
CREATE INDEX places_at ON places USING gist (at);
CREATE INDEX places_area ON places USING gist (area);
CREATE VIEW near AS SELECT id FROM places WHERE ST_DWithin(at, ST_SetSRID(ST_MakePoint(1, 1), 990001), 2);
CREATE MATERIALIZED VIEW hull AS SELECT ST_AsText(ST_ConvexHull(ST_Collect(at))) FROM places;
SELECT topology.CreateTopology('city', 990001);
CREATE TABLE streets (id int PRIMARY KEY);
SELECT topology.AddTopoGeometryColumn('city', 'public', 'streets', 'topo', 'LINE');
SELECT topology.TopoGeo_AddLineString('city', ST_GeomFromText('LINESTRING(0 0, 1 1)', 990001));
INSERT INTO streets VALUES (1, topology.CreateTopoGeom('city', 2, 1, '{{1,2}}'));";

/// Types of extensions with indexes, and a function in Python that a generated column and an index call.
const TYPES: &str = "CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE EXTENSION plpython3u; CREATE EXTENSION hstore_plpython3u;
CREATE FUNCTION public.total(h public.hstore) RETURNS int LANGUAGE plpython3u TRANSFORM FOR TYPE public.hstore IMMUTABLE
    AS 'return sum(int(v) for v in h.values() if v is not None)';
CREATE TABLE people (id int PRIMARY KEY, email citext UNIQUE, extra hstore,
    total int GENERATED ALWAYS AS (public.total(extra)) STORED);
INSERT INTO people SELECT i, 'User' || i, hstore(ARRAY['a', i::text, 'b', NULL]) FROM generate_series(1, 300) i;
CREATE INDEX ON people USING gin (extra);
CREATE INDEX ON people (public.total(extra));";

/// The major version of the distribution's newest PostgreSQL.
fn major() -> String {
    let bindir = pgrestored::sandbox::find_bindir(&[]).unwrap();
    let version = bindir.parent().and_then(|p| p.file_name()?.to_str());
    version.unwrap().to_owned()
}

/// Whether a package of that PostgreSQL is installed; `before` and `after` stand around the version.
fn has_package((before, after): (&str, &str), extension: &str) -> bool {
    let major = major();
    let control = format!("/usr/share/postgresql/{major}/extension/{extension}.control");
    of_package(&format!("{before}{major}{after}"), &control).is_some()
}

async fn assert_verified(c: &Cluster, backup: &Path) {
    let backup = BackupRef::parse(backup.to_str().unwrap(), "").unwrap();
    let job = VerifyJob::new("proof", backup, Trigger::Command);
    // On a server that runs already, which takes less of the processor than one in a sandbox.
    let scratch = [
        ("db-host", "/nowhere"),
        ("scratch-db-host", c.sandbox.host()),
        ("scratch-db-trust", "full"),
    ];
    let app = c.app(if is_full_campaign() { &[] } else { &scratch });
    let proven = app
        .manager
        .verify_backup(&job, Arc::default(), CancellationToken::new());
    let proof = proven.await.proof.unwrap();
    assert!(proof.is_verified(), "{:?} {:?}", proof.error, proof.checks);
}

/// Restores `src` as both a custom archive and SQL text to what `pg_restore` makes of it, and verifies both; in `make test`
/// the one of this format.
async fn is_restored_and_verified(c: &Cluster, verified: DumpFormat) -> PathBuf {
    let (dump, text) = (
        c.dump_as("src", DumpFormat::Custom),
        c.dump_as("src", DumpFormat::Plain),
    );
    // pg_restore makes the source of it; `make soak` lets it.
    let theirs = if is_full_campaign() {
        c.pg_restore(&dump, "theirs", &["--exit-on-error"]);
        c.content("theirs", &[])
    } else {
        c.content("src", &[])
    };
    for (backup, format, target) in [
        (&dump, DumpFormat::Custom, "of_archive"),
        (&text, DumpFormat::Plain, "of_text"),
    ] {
        c.restore(backup, target).await;
        assert_same(&c.content(target, &[]), &theirs, target);
        if format == verified || is_full_campaign() {
            assert_verified(c, backup).await;
        }
    }
    text
}

/// The extension fills its table of spatial reference systems itself; a dump has only those that users have added.
#[tokio::test(flavor = "multi_thread")]
async fn postgis_is_restored_and_verified() {
    if !has_package(("postgresql-", "-postgis-3"), "postgis") {
        return;
    }
    let c = Cluster::start();
    c.create("src", PLACES);
    let text = is_restored_and_verified(&c, DumpFormat::Custom).await;
    let counts = "SELECT (SELECT count(*) FROM spatial_ref_sys), (SELECT count(*) FROM near), \
        (SELECT topology.AsTopoJSON(topo, NULL) FROM streets)";
    let source = c.psql("src", counts);
    assert_eq!(c.psql("of_archive", counts), source);
    assert_eq!(c.psql("of_text", counts), source);

    // A later version of the extension may bring a row that users had to add before.
    let taken = std::fs::read_to_string(&text).unwrap();
    let taken = taken.replacen("\n990001\tmine", "\n4326\tmine", 1);
    let backup = c.scratch("taken.sql");
    std::fs::write(&backup, taken).unwrap();
    let done = c.try_restore(&backup, "taken", OnExisting::Fail).await;
    let error = done.result.error.unwrap();
    assert_eq!(
        (error.reason, error.blame),
        (R::DataRejected, Blame::Target),
        "{error:?}"
    );
    assert!(
        error.message.contains("extension postgis") && error.message.contains("--skip 'TABLE DATA"),
        "{error:?}"
    );
}

/// Its configuration is in tables of the extension.
#[tokio::test(flavor = "multi_thread")]
async fn pg_partman_and_languages_are_restored_and_verified() {
    let has_python = has_package(("postgresql-plpython3-", ""), "plpython3u");
    if !has_package(("postgresql-", "-partman"), "pg_partman") || !has_python {
        return;
    }
    let c = Cluster::start();
    let version = "SELECT default_version FROM pg_available_extensions WHERE name = 'pg_partman'";
    let parent = if c.psql("postgres", version).starts_with('4') {
        "partman.create_parent('public.events', 'at', 'native', 'daily')"
    } else {
        "partman.create_parent('public.events', 'at', '1 day')"
    };
    let partitions = format!(
        "CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
        CREATE TABLE public.events (id int NOT NULL, at timestamptz NOT NULL) PARTITION BY RANGE (at);
        CREATE INDEX ON public.events (at);
        SELECT {parent};
        INSERT INTO public.events SELECT i, now() + (i % 3 || ' days')::interval FROM generate_series(1, 300) i;"
    );
    c.create("src", &(partitions + TYPES));
    is_restored_and_verified(&c, DumpFormat::Plain).await;
    let config = "SELECT parent_table, control FROM partman.part_config";
    assert_eq!(c.psql("of_archive", config), "public.events|at");
    let maintained = "SELECT partman.run_maintenance(); SELECT count(*) FROM public.events";
    assert_eq!(c.psql("of_archive", maintained).trim(), "300");
    assert_eq!(
        c.psql("of_text", "SELECT total FROM people WHERE email = 'uSER7'"),
        "7"
    );
}

/// An extension with the name of TimescaleDB and the functions that a restore calls, which write down their calls.
fn stand_in(folder: &Path, bindir: &Path) {
    let extension = folder.join("extension");
    std::fs::create_dir_all(&extension).unwrap();
    let control = "default_version = '2.0'\nrelocatable = false\ntrusted = true\n";
    std::fs::write(extension.join("timescaledb.control"), control).unwrap();
    let functions = [
        (
            "timescaledb_pre_restore",
            "pre",
            "SET timescaledb.restoring = 'on'",
        ),
        (
            "timescaledb_post_restore",
            "post",
            "RESET timescaledb.restoring",
        ),
    ];
    let functions = functions.map(|(name, call, change)| {
        format!(
            "CREATE FUNCTION @extschema@.{name}() RETURNS bool LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN
            IF current_database() = 'mismatch' AND '{call}' = 'post' THEN RAISE 'another catalog'; END IF;
            EXECUTE format('ALTER DATABASE %I {}', current_database()); {change};
            INSERT INTO @extschema@.calls (what) VALUES ('{call}'); RETURN true; END $$;",
            change.replace('\'', "''")
        )
    });
    let workers = ["stop", "start"].map(|call| {
        format!(
            "CREATE FUNCTION own.{call}_background_workers() RETURNS bool LANGUAGE sql
            AS 'INSERT INTO @extschema@.calls (what) VALUES (''{call}''); SELECT true';"
        )
    });
    let table = "CREATE TABLE @extschema@.calls (id int GENERATED ALWAYS AS IDENTITY, what text);
        GRANT INSERT ON @extschema@.calls TO PUBLIC;";
    let sql = [
        vec!["CREATE SCHEMA own;".to_owned(), table.to_owned()],
        functions.to_vec(),
        workers.to_vec(),
    ];
    std::fs::write(
        extension.join("timescaledb--2.0.sql"),
        sql.concat().join("\n"),
    )
    .unwrap();
    // Any library will do.
    let libraries = ["lib/postgresql", "lib"].map(|l| bindir.join("..").join(l));
    let any = libraries.iter().map(|l| l.join("dict_snowball.so"));
    let any = any.into_iter().find(|l| l.exists()).unwrap();
    std::fs::copy(any, folder.join("timescaledb.so")).unwrap();
    for path in [folder, extension.as_path()] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, open).unwrap();
    }
}

/// Rows of these tables are only accepted while the extension knows of a restore.
fn rows_of_a_restore() -> String {
    let tables = (0..8).map(|i| {
        format!(
            "CREATE TABLE t{i} (a int CHECK (current_setting('timescaledb.restoring') = 'on'));
            INSERT INTO t{i} SELECT generate_series(1, 1000); CREATE INDEX ON t{i} (a);"
        )
    });
    let tables: String = tables.collect();
    format!("CREATE EXTENSION timescaledb; SET timescaledb.restoring = 'on'; {tables}")
}

/// The package of TimescaleDB is not among those of the distribution.
#[tokio::test(flavor = "multi_thread")]
async fn timescaledb_is_told_about_a_restore() {
    let Some(bindir) = bindir_of(18) else { return };
    let folder = tempfile::tempdir().unwrap();
    stand_in(folder.path(), &bindir);
    let path = folder.path().display();
    let installed = format!("-c extension_control_path={path}:$system");
    let loaded = format!(
        "{installed} -c dynamic_library_path={path}:$libdir -c shared_preload_libraries=timescaledb"
    );
    let c = Cluster::of(&bindir, &loaded);
    c.create("src", &rows_of_a_restore());
    c.create(
        "small",
        "CREATE EXTENSION timescaledb; CREATE TABLE t (a int)",
    );
    let dumps = [DumpFormat::Custom, DumpFormat::Plain].map(|format| c.dump_as("src", format));
    for (dump, target) in dumps.iter().zip(["of_archive", "of_text"]) {
        let result = c.restore(dump, target).await;
        assert_eq!(c.psql(target, CALLS), "pre post stop start", "{target}");
        assert_eq!(c.psql(target, "SELECT count(*) FROM t7"), "1000");
        assert_eq!(c.psql(target, LEFT), "0");
        let rules: Vec<&str> = result.rewrites.iter().map(|r| r.rule.as_str()).collect();
        assert!(rules.contains(&"extension-calls"), "{rules:?}");
    }

    is_filled_and_emptied(&c, &dumps[0]).await;
    let backups = [DumpFormat::Custom, DumpFormat::Plain].map(|f| c.dump_as("small", f));
    no_function_of_a_restricted_backup_is_called(&c, &backups[1]).await;

    // A server that does not load the library would end the connection.
    let lacking = Cluster::of(&bindir, &installed);
    let needed = "add timescaledb to shared_preload_libraries";
    for (i, backup) in backups.iter().enumerate() {
        let done = lacking.try_restore(backup, "app", OnExisting::Fail).await;
        let error = done.result.error.unwrap();
        assert_eq!(error.reason, R::ExtensionMissing, "{error:?}");
        assert!(error.message.contains(needed), "{error:?}");
        let mut job = job(backup, &format!("without{i}"), OnExisting::Fail);
        job.on_error = Some(OnError::Skip);
        let result = lacking.restore_with(&job, &[]).await.result;
        assert_eq!((result.complete, result.error), (Some(false), None));
        let skipped = &result.skipped[0];
        assert_eq!(skipped.entry, "EXTENSION timescaledb");
        assert!(skipped.message.contains(needed), "{skipped:?}");
        let fixes = pgdump_restore::fixes_of(&result.skipped, false);
        assert!(fixes[&skipped.root].contains(needed), "{fixes:?}");
    }
}

/// A database that is filled has its jobs started, and one that is emptied after a failure has no setting of the extension.
async fn is_filled_and_emptied(c: &Cluster, dump: &Path) {
    c.psql("postgres", "CREATE DATABASE filled TEMPLATE template0");
    c.psql("postgres", "ALTER DATABASE filled SET work_mem = '5MB'");
    let refuses = "CREATE TABLE refused (a int CHECK (current_database() = 'src'));\nINSERT INTO refused VALUES (1)";
    c.psql("src", refuses);
    let refused = c.dump_as("src", DumpFormat::Custom);
    let fill = async |dump: &Path| c.try_restore(dump, "filled", OnExisting::Fill).await;
    let error = fill(&refused).await.result.error.unwrap();
    assert_eq!(error.reason, R::DataRejected, "{error:?}");
    assert_eq!(c.psql("filled", LEFT), "0");
    assert_eq!(c.psql("filled", "SHOW work_mem"), "5MB");
    assert_eq!(fill(dump).await.result.error, None);
    assert_eq!(c.psql("filled", CALLS), "pre post stop start");
    assert_eq!(c.psql("filled", LEFT), "0");

    // The extension's own words are in the error.
    c.psql("postgres", "CREATE DATABASE mismatch TEMPLATE template0");
    let failed = c.try_restore(dump, "mismatch", OnExisting::Fill).await;
    let error = failed.result.error.unwrap();
    let said = "EXTENSION timescaledb after the load: statement: another catalog [P0001]";
    assert!(error.message.contains(said), "{error:?}");
    assert_eq!(c.psql("postgres", LEFT), "0");

    // Of a restore by other means that was not finished: it is not copied from the database that is replaced.
    let unfinished = "ALTER DATABASE filled SET timescaledb.restoring = 'on'";
    c.psql("postgres", unfinished);
    let done = c.try_restore(dump, "filled", OnExisting::Replace).await;
    assert_eq!(done.result.error, None);
    assert_eq!(c.psql("filled", "SHOW work_mem"), "5MB");
    let shown = "SELECT current_setting('timescaledb.restoring', true) IS DISTINCT FROM 'on'";
    assert_eq!(c.psql("filled", shown), "t");
}

/// Whoever creates a trusted extension may add functions to it, and the swap is done by a superuser here. The extension itself
/// has to be told about a restore by the owner of the database, which a restricted restore is not.
async fn no_function_of_a_restricted_backup_is_called(c: &Cluster, backup: &Path) {
    let flags = [("backup-trust", "restricted")];
    let refused = job(backup, "refused", OnExisting::Fail);
    let error = c.restore_with(&refused, &flags).await.result.error.unwrap();
    assert_eq!(error.reason, R::InsufficientPrivilege, "{error:?}");
    assert!(error.message.contains("extension timescaledb"), "{error:?}");
    let small = std::fs::read_to_string(backup).unwrap();
    let end = "--\n-- PostgreSQL database dump complete\n";
    let plants = "DO $$ BEGIN EXECUTE 'CREATE EXTENSION timescaledb SCHEMA public'; END $$;
        CREATE SCHEMA \"A\";
        CREATE FUNCTION \"A\".start_background_workers() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
            EXECUTE 'CREATE ROLE planted SUPERUSER'; RETURN true; END $$;
        ALTER EXTENSION timescaledb ADD FUNCTION \"A\".start_background_workers();";
    let is_kept = |line: &&str| !line.contains("EXTENSION");
    let kept: Vec<&str> = small.split_inclusive('\n').filter(is_kept).collect();
    let text = kept
        .concat()
        .replacen(end, &format!("{plants}\n\n{end}"), 1);
    let backup = c.scratch("plants.sql");
    std::fs::write(&backup, text).unwrap();
    let planted = job(&backup, "planted", OnExisting::Fail);
    let done = c.restore_with(&planted, &flags).await;
    assert_eq!(done.result.error, None);
    let functions = "SELECT string_agg(nspname, ' ' ORDER BY nspname) FROM pg_extension e JOIN pg_depend d ON d.refobjid = e.oid \
        JOIN pg_proc p ON p.oid = d.objid JOIN pg_namespace n ON n.oid = pronamespace \
        WHERE extname = 'timescaledb' AND proname = 'start_background_workers'";
    assert_eq!(c.psql("planted", functions), "A own");
    assert_eq!(c.psql("planted", CALLS), "start");
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname = 'planted'";
    assert_eq!(c.psql("postgres", roles), "0");
}

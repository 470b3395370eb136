//! Dumps of one version restored into servers of another, and into servers that lack something.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::event::RestoreResult;
use pgrestored::job::{OnExisting, RestoreJob};
use pgrestored::policy::Selection;
use pgrestored::postgres::Server;
use pgrestored::sandbox::find_bindir;
use pgrestored::tuning;

use crate::formats::DumpFormat;
use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign, job};

fn server(version: u32) -> Option<Cluster> {
    match version {
        15 => Some(Cluster::of(&find_bindir(&[]).unwrap(), "")),
        other => bindir_of(other).map(|b| Cluster::of(&b, "")),
    }
}

fn rules(r: &RestoreResult) -> Vec<&str> {
    r.rewrites.iter().map(|w| w.rule.as_str()).collect()
}

/// `pg_dump` of the newest version, which dumps servers of every version; `None` if it is not installed.
fn newest_pg_dump() -> Option<PathBuf> {
    bindir_of(18).map(|bindir| bindir.join("pg_dump"))
}

/// A dump of a database of any version, without lines that only one version writes.
fn content(pg_dump: &Path, of: &Cluster, database: &str) -> String {
    let mut dump = Command::new(pg_dump);
    dump.args(["-h", of.sandbox.host(), "-U", "postgres", "-d", database]);
    let text = String::from_utf8(of.sandbox.run(&mut dump).unwrap()).unwrap();
    let kept = text
        .lines()
        .filter(|l| !l.starts_with("-- Dumped from database version"));
    let kept = kept.filter_map(without_version);
    crate::support::normalised(&kept.collect::<Vec<_>>().join("\n"))
}

/// A line without the column option `pg_attver`: servers since 15.20 keep a counter there, and an older `pg_dump`
/// prints it.
fn without_version(line: &str) -> Option<String> {
    let Some((before, options)) = line
        .split_once(" SET (")
        .filter(|_| line.contains("pg_attver="))
    else {
        return Some(line.to_owned());
    };
    let others: Vec<&str> = options
        .trim_end_matches(");")
        .split(", ")
        .filter(|o| !o.starts_with("pg_attver="))
        .collect();
    (!others.is_empty()).then(|| format!("{before} SET ({});", others.join(", ")))
}

const DATABASES: [(&str, &str); 2] = [
    ("samples", include_str!("samples.sql")),
    ("names", include_str!("names.sql")),
];

const FORMATS: [DumpFormat; 2] = [DumpFormat::Custom, DumpFormat::Plain];

/// A version, the servers into which `make test` restores its dumps, and those into which `make soak` does, too.
static ACROSS: [(u32, &[u32], &[u32]); 6] = [
    (13, &[18], &[]),
    (14, &[17], &[]),
    (15, &[16], &[13, 14, 17, 18]),
    (16, &[15], &[13, 18]),
    (17, &[14], &[]),
    (18, &[13], &[14, 15, 16, 17]),
];

/// The databases that dumps of `source` restore into `target`, as indexes, and the forms of each. `make soak` restores both
/// databases in both formats on every two servers; `make test` restores each in one of them, that of names where the versions
/// are farthest apart.
fn cells_of(source: u32, target: u32) -> Vec<(usize, usize)> {
    let turn = (2 * source + target) as usize;
    let has_names = source.abs_diff(target) == 5;
    let all = (0..DATABASES.len()).flat_map(|d| (0..FORMATS.len()).map(move |f| (d, f)));
    let is_tested =
        |(d, f): &(usize, usize)| (turn + d + f).is_multiple_of(2) && (*d == 0 || has_names);
    all.filter(|cell| is_tested(cell) || is_full_campaign())
        .collect()
}

/// Every version is a source and a target, and every two of database, format and direction meet.
#[test]
fn every_version_is_a_source_and_a_target() {
    let pairs = ACROSS
        .iter()
        .flat_map(|(source, targets, _)| targets.iter().map(move |target| (*source, *target)));
    let (mut sources, mut targets) = (HashSet::new(), HashSet::new());
    let mut met: [HashSet<(usize, usize)>; 3] = Default::default();
    for (source, target) in pairs {
        sources.insert(source);
        targets.insert(target);
        let direction = usize::from(source < target);
        for (database, format) in cells_of(source, target) {
            met[0].insert((database, format));
            met[1].insert((database, direction));
            met[2].insert((format, direction));
        }
    }
    assert_eq!((sources.len(), targets.len()), (6, 6));
    let directions = 2;
    let wanted = [
        DATABASES.len() * FORMATS.len(),
        DATABASES.len() * directions,
        FORMATS.len() * directions,
    ];
    assert_eq!(met.map(|m| m.len()), wanted);
}

/// Committed dumps are restored into a server of this version, and its own dumps into others.
async fn from_and_into(version: u32) {
    let (Some(pg_dump), Some(server)) = (newest_pg_dump(), server(version)) else {
        return;
    };
    settings_are_read(&server).await;
    fixtures(version, &pg_dump, &server).await;
    across(version, &pg_dump, &server).await;
}

/// The views with settings and counters differ between versions. Every role may read them.
async fn settings_are_read(server: &Cluster) {
    server.psql("postgres", "CREATE ROLE reader LOGIN");
    for user in ["postgres", "reader"] {
        let app = server.app(&[("db-user", user)]);
        let target = Server::new(&app.config.db).unwrap();
        let session = target.maintenance("settings").await.unwrap();
        let read = tuning::read(&session).await.expect("settings");
        let settings = &read.settings;
        let sizes = [
            settings.max_wal_size,
            settings.maintenance_work_mem,
            settings.shared_buffers,
            settings.checkpoint_timeout,
            settings.max_parallel_maintenance_workers,
            read.timed_checkpoints,
            read.requested_checkpoints,
            read.wal_position,
        ];
        assert!(sizes.iter().all(Option::is_some), "{user}: {read:?}");
        assert_eq!(settings.wal_level.as_deref(), Some("minimal"), "{read:?}");
        assert_eq!(settings.full_page_writes, Some(false), "{read:?}");
        assert!(!settings.is_wal_needed, "{read:?}");
        let sizes = tuning::index_sizes(&session).await.expect("index sizes");
        assert!(sizes.largest_btree > 0, "{sizes:?}");
    }
    server.psql("postgres", "DROP ROLE reader");
}

/// A dump of `source` restored into newer and older versions gives the result of `pg_restore` there; where `pg_restore`
/// fails, a rule applies.
async fn across(source: u32, pg_dump: &Path, from: &Cluster) {
    let (_, tested, others) = ACROSS.iter().find(|(s, _, _)| *s == source).unwrap();
    let others = if is_full_campaign() {
        &others[..]
    } else {
        &others[..0]
    };
    let targets = [*tested, others].concat();
    // pg_restore reads the archive, whatever else is restored.
    let is_needed = |d: usize, f: usize| {
        let mut cells = targets.iter().flat_map(|target| cells_of(source, *target));
        cells.any(|(of, form)| of == d && (form == f || f == 0))
    };
    let mut dumps: Vec<Vec<Option<PathBuf>>> = vec![];
    for (d, (database, sql)) in DATABASES.into_iter().enumerate() {
        if is_needed(d, 0) {
            from.create(database, sql);
        }
        let formats = FORMATS.into_iter().enumerate();
        let dump = |(f, format)| is_needed(d, f).then(|| from.dump_as(database, format));
        dumps.push(formats.map(dump).collect());
    }
    for target in targets {
        let Some(to) = server(target) else { continue };
        let cells = cells_of(source, target);
        for (d, ((database, _), forms)) in DATABASES.iter().zip(&dumps).enumerate() {
            if cells.iter().all(|(of, _)| *of != d) {
                continue;
            }
            to.psql("postgres", "CREATE DATABASE theirs TEMPLATE template0");
            let mut theirs = from.sandbox.command("pg_restore");
            theirs
                .args(["-h", to.sandbox.host(), "-d", "theirs"])
                .arg(forms[0].as_ref().unwrap());
            // pg_restore ends with an error if the server does not know a setting.
            let _ = from.sandbox.run(&mut theirs);
            let wanted = content(pg_dump, &to, "theirs");
            to.psql("postgres", "DROP DATABASE theirs");
            for (f, dump) in forms.iter().enumerate() {
                let Some(dump) = dump.as_ref().filter(|_| cells.contains(&(d, f))) else {
                    continue;
                };
                let result = to.restore(dump, "ours").await;
                let what = format!("{database} of {source} into {target}, {}", dump.display());
                if target == 13 && source > 13 && d == 0 {
                    // pg_restore drops a type and its table here; we do not.
                    to.psql("ours", "DROP TABLE air.shift; DROP TYPE air.span");
                }
                assert_same(&content(pg_dump, &to, "ours"), &wanted, &what);
                let known = ["unknown-setting", "maintain-privilege", "multirange-name"];
                assert!(
                    rules(&result).iter().all(|r| known.contains(r)),
                    "{what}: {:?}",
                    result.rewrites
                );
                to.psql("postgres", "DROP DATABASE ours");
            }
        }
    }
}

macro_rules! from_and_into {
    ($($name:ident: $version:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                from_and_into($version).await;
            }
        )*
    };
}

from_and_into! {
    from_and_into_13: 13;
    from_and_into_14: 14;
    from_and_into_15: 15;
    from_and_into_16: 16;
    from_and_into_17: 17;
    from_and_into_18: 18;
}

/// Between two servers, of which the other one is built with less.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_lacks_is_found_or_removed() {
    let (Some(c), Some(other)) = (server(15), server(16)) else {
        return;
    };
    missing_requirements_are_found_before_data_moves(&c, &other).await;
    missing_build_options_and_late_roles_are_found_before_the_load(&c, &other).await;
    internal_column_options_of_a_server_are_removed(&c, &other).await;
}

/// A `pg_dump` older than the server it dumps prints a counter of that server in the options of columns,
/// which other servers do not know.
async fn internal_column_options_of_a_server_are_removed(from: &Cluster, to: &Cluster) {
    let Some(pg_dump) = newest_pg_dump() else {
        return;
    };
    let sql = "CREATE TABLE t (a int, b text); ALTER TABLE t ALTER b SET (n_distinct = 5);
        CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
        CREATE FOREIGN TABLE f (a int) SERVER s; INSERT INTO t VALUES (1, 'x')";
    from.create("counted", sql);
    let versions = from.psql(
        "counted",
        "SELECT count(*) FROM pg_attribute WHERE attoptions::text LIKE '%pg_attver%'",
    );
    let source = content(&pg_dump, from, "counted");
    for format in ["-Fc", "-Fp"] {
        let file = from.scratch(format);
        let mut dump = Command::new(&pg_dump);
        dump.args(["-h", from.sandbox.host(), "-U", "postgres"])
            .args(["-d", "counted"])
            .args([format, "-f"])
            .arg(&file);
        from.sandbox.run(&mut dump).unwrap();
        for target in [to, from] {
            let result = target.restore(&file, "ours").await;
            assert_same(&content(&pg_dump, target, "ours"), &source, format);
            assert!(
                versions == "0" || rules(&result).contains(&"column-version"),
                "{:?}",
                result.rewrites
            );
            target.psql("postgres", "DROP DATABASE ours");
        }
    }
}

const DUMPED_BY: [u32; 3] = [15, 16, 18];

const DUMPED_AS: [&str; 5] = [
    "custom.dump",
    "plain.sql",
    "inserts.sql",
    "tar.gz",
    "directory.tar.gz",
];

/// Which committed dumps are restored into a server, as indexes of version and form: by `make soak` all, by `make test` each
/// on one server.
fn fixtures_of(target: u32) -> Vec<(usize, usize)> {
    let all = (0..DUMPED_BY.len()).flat_map(|v| (0..DUMPED_AS.len()).map(move |f| (v, f)));
    let is_its_turn = |(v, f): &(usize, usize)| {
        let turn = (v * DUMPED_AS.len() + f) % 6;
        turn == target as usize - 13
    };
    all.filter(|fixture| is_its_turn(fixture) || is_full_campaign())
        .collect()
}

/// Each server also restores dumps of several versions.
#[test]
fn every_two_of_version_and_form_meet() {
    let mut met = HashSet::new();
    for target in 13..=18 {
        let here = fixtures_of(target);
        let versions: HashSet<usize> = here.iter().map(|(v, _)| *v).collect();
        assert!(versions.len() >= 2, "{target}: {here:?}");
        met.extend(here);
    }
    assert_eq!(met.len(), DUMPED_BY.len() * DUMPED_AS.len());
}

/// The committed dumps of every installed `pg_dump`, into every server: all are of one database.
async fn fixtures(target: u32, pg_dump: &Path, to: &Cluster) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut wanted: Option<String> = None;
    for (v, f) in fixtures_of(target) {
        let name = format!("v{}.{}", DUMPED_BY[v], DUMPED_AS[f]);
        to.restore(&folder.join(&name), "ours").await;
        let got = content(pg_dump, to, "ours");
        let wanted = wanted.get_or_insert_with(|| got.clone());
        assert_same(&got, wanted, &format!("{name} into {target}"));
        to.psql("postgres", "DROP DATABASE ours");
    }
    assert!(wanted.is_some_and(|w| w.contains("COMMENT ON LARGE OBJECT 9001 IS 'coffee'")));
    // How an archive is compressed matters to no server.
    if target != 13 && !is_full_campaign() {
        return;
    }
    let shop = folder.join("shop18.zstd.dir.tar");
    to.restore(&shop, "of_directory").await;
    to.restore(&folder.join("shop18.zstd.dump"), "of_custom")
        .await;
    assert_same(
        &content(pg_dump, to, "of_directory"),
        &content(pg_dump, to, "of_custom"),
        "directory and custom",
    );
}

/// Small databases on one server.
#[tokio::test(flavor = "multi_thread")]
async fn small_databases_on_one_server() {
    let Some(c) = server(15) else { return };
    let clear = || {
        c.psql(
            "postgres",
            "DROP DATABASE IF EXISTS ours; DROP DATABASE IF EXISTS src",
        )
    };
    old_and_new_syntax_is_rewritten_and_reported(&c).await;
    clear();
    an_ordinary_role_is_told_what_it_lacks(&c).await;
    clear();
    after_the_load_tables_are_analyzed_and_problems_reported(&c).await;
    clear();
    data_only_adds_rows_in_a_copy(&c).await;
    clear();
    statements_of_text_keep_their_order(&c).await;
}

/// Syntax of old text that newer servers reject, and the reverse.
async fn old_and_new_syntax_is_rewritten_and_reported(c: &Cluster) {
    let dump = "--\n-- PostgreSQL database dump\n--\n
-- Dumped from database version 9.0.1
-- Dumped by pg_dump version 9.0.1
SET client_encoding = 'UTF8';
SET transaction_timeout = 0;
SET standard_conforming_strings = off;
CREATE OR REPLACE PROCEDURAL LANGUAGE plpgsql;
SET search_path = public, pg_catalog;
SET default_tablespace = nowhere;
SET default_with_oids = true;
SET default_table_access_method = columnar;
CREATE TABLE t (a int, b text);
ALTER TABLE public.t OWNER TO postgres;
CREATE AGGREGATE collect(anyelement) (
    SFUNC = array_append,
    STYPE = anyarray,
    INITCOND = '{}'
);
ALTER AGGREGATE public.collect(anyelement) OWNER TO postgres;
COPY t (a, b) WITH OIDS FROM stdin;
16385\t1\tone\\\\two
16386\t2\t\\N
\\.
INSERT INTO t VALUES (3, 'it\\'s; \\\\');
GRANT SELECT,MAINTAIN ON TABLE t TO role_a;
SELECT * FROM pg_catalog.pg_restore_relation_stats('relation', 't');
--
-- PostgreSQL database dump complete
--
";
    let file = c.scratch("old.sql");
    std::fs::write(&file, dump).unwrap();
    let result = c.restore(&file, "ours").await;
    let mut seen = rules(&result);
    seen.sort_unstable();
    let wanted = [
        "access-method",
        "array-aggregate",
        "maintain-privilege",
        "plpgsql",
        "statistics-data",
        "tablespace",
        "unknown-setting",
        "with-oids",
    ];
    assert_eq!(seen, wanted);
    assert_eq!(
        c.psql(
            "ours",
            "SELECT collect(a || coalesce(b, '-') ORDER BY a) FROM t"
        ),
        "{\"1one\\\\two\",2-,\"3it's; \\\\\"}"
    );
    assert_eq!(
        c.psql(
            "ours",
            "SELECT has_table_privilege('role_a', 't', 'SELECT')"
        ),
        "t"
    );
}

fn with(mut job: RestoreJob, change: impl Fn(&mut RestoreJob)) -> RestoreJob {
    change(&mut job);
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_follow_the_policy() {
    let Some(c) = server(15) else { return };
    c.psql(
        "postgres",
        "CREATE ROLE gone; CREATE ROLE \"Gone too\"; CREATE ROLE heir LOGIN",
    );
    c.create(
        "src",
        "CREATE SCHEMA s AUTHORIZATION gone; CREATE TABLE s.t (a int); ALTER TABLE s.t OWNER TO gone;
         GRANT SELECT ON s.t TO \"Gone too\"; CREATE FUNCTION s.f(a int, b text) RETURNS int LANGUAGE sql AS 'SELECT 1';
         ALTER FUNCTION s.f OWNER TO \"Gone too\"; ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON s.t TO \"Gone too\", role_a USING (true);
         ALTER DEFAULT PRIVILEGES FOR ROLE gone IN SCHEMA s GRANT SELECT ON TABLES TO \"Gone too\"",
    );
    let globals = c
        .sandbox
        .command("pg_dumpall")
        .arg("--globals-only")
        .output()
        .unwrap()
        .stdout;
    let dumps = [
        c.dump_as("src", DumpFormat::Custom),
        c.dump_as("src", DumpFormat::Plain),
    ];
    std::fs::write(c.scratch("globals.sql"), globals).unwrap();
    c.psql("postgres", "DROP DATABASE src");
    c.psql("postgres", "DROP ROLE gone; DROP ROLE \"Gone too\"");
    let roles = || {
        c.psql(
            "postgres",
            "SELECT string_agg(rolname, ',' ORDER BY rolname) FROM pg_roles WHERE rolname ILIKE 'gone%'",
        )
    };
    let owner = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't'";
    for dump in &dumps {
        let run = async |flags: &[(&str, &str)]| {
            let job = job(dump, "ours", OnExisting::Fail);
            c.restore_with(&job, flags).await
        };
        let done = run(&[]).await;
        assert_eq!(
            done.failure,
            Some(R::RoleMissing),
            "{:?}",
            done.result.error
        );

        // Privileges name them, too; without these, in `make test` only of text, a row security policy still names one.
        let without_privileges = [
            ("restore-owners", "none"),
            ("restore-no-privileges", "true"),
        ];
        for flags in [&without_privileges[..1], &without_privileges] {
            if (flags.len() == 2) != (dump == &dumps[1]) && !is_full_campaign() {
                continue;
            }
            let done = run(flags).await;
            assert_eq!(
                done.failure,
                Some(R::RoleMissing),
                "{flags:?}: {:?}",
                done.result.error
            );
        }

        let done = run(&[
            ("restore-owners", "map"),
            ("restore-role-map", "gone=heir,Gone too=heir"),
        ])
        .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        assert!(rules(&done.result).contains(&"role-mapped"));
        assert_eq!(c.psql("ours", owner), "heir");
        assert_eq!(
            c.psql("ours", "SELECT polroles::regrole[]::text FROM pg_policy"),
            "{role_a,heir}"
        );
        c.psql("postgres", "DROP DATABASE ours");
        assert_eq!(roles(), "");
    }
    for dump in &dumps {
        // A failed restore drops the roles that it created.
        let app = c.app(&[("restore-create-roles", "true")]);
        let bad = with(job(dump, "ours", OnExisting::Fail), |j| {
            j.crc32c = Some("AAAAAA==".into())
        });
        let done = app
            .manager
            .run(&bad, Default::default(), Default::default())
            .await;
        assert_eq!(
            done.failure,
            Some(R::ChecksumMismatch),
            "{:?}",
            done.result.error
        );
        assert_eq!(roles(), "");
        let good = job(dump, "ours", OnExisting::Fail);
        let done = app
            .manager
            .run(&good, Default::default(), Default::default())
            .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        assert_eq!(roles(), "Gone too,gone");
        assert_eq!(
            c.psql(
                "postgres",
                "SELECT bool_or(rolcanlogin) FROM pg_roles WHERE rolname ILIKE 'gone%'"
            ),
            "f"
        );
        assert_eq!(c.psql("ours", owner), "gone");
        c.psql("postgres", "DROP DATABASE ours");
        c.psql("postgres", "DROP ROLE gone; DROP ROLE \"Gone too\"");
    }
    let done = c
        .restore_with(
            &job(&dumps[0], "ours", OnExisting::Fail),
            &[("restore-globals", "globals.sql")],
        )
        .await;
    assert_eq!(done.failure, None, "{:?}", done.result.error);
    assert_eq!(roles(), "Gone too,gone");
}

async fn missing_requirements_are_found_before_data_moves(c: &Cluster, other: &Cluster) {
    c.tablespace("fast");
    c.create(
        "src",
        "CREATE EXTENSION hstore; CREATE TABLE plain (a int); CREATE TABLE with_hstore (h hstore);
         CREATE VIEW on_it AS SELECT h FROM with_hstore; CREATE TABLE spaced (a int) TABLESPACE fast; INSERT INTO spaced VALUES (1)",
    );
    let dump = c.dump_as("src", DumpFormat::Custom);
    // That server has neither hstore nor the tablespace.
    let done = other.try_restore(&dump, "ours", OnExisting::Fail).await;
    let e = done.result.error.unwrap();
    assert_eq!(
        (e.reason, e.stage.as_str()),
        (R::ExtensionMissing, "prepare"),
        "{e:?}"
    );
    assert!(
        e.message.contains("hstore") && e.message.contains("skip-missing"),
        "{e:?}"
    );
    let flags = [("restore-extensions", "skip-missing")];
    let done = other
        .restore_with(&job(&dump, "ours", OnExisting::Fail), &flags)
        .await;
    assert_eq!(done.failure, None, "{:?}", done.result.error);
    let skipped = done
        .result
        .rewrites
        .iter()
        .find(|r| r.rule == "extension-skipped")
        .unwrap();
    let named = [
        "EXTENSION hstore",
        "TABLE public.with_hstore",
        "VIEW public.on_it",
    ];
    assert!(
        named
            .iter()
            .all(|n| skipped.examples.iter().any(|e| e == n)),
        "{skipped:?}"
    );
    assert!(rules(&done.result).contains(&"tablespace"));
    assert_eq!(
        other.psql(
            "ours",
            "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_stat_user_tables"
        ),
        "plain,spaced"
    );
    assert_eq!(other.psql("ours", "SELECT a FROM spaced"), "1");
    other.psql("postgres", "DROP DATABASE ours");
}

async fn an_ordinary_role_is_told_what_it_lacks(c: &Cluster) {
    c.psql(
        "postgres",
        "CREATE ROLE restorer LOGIN CREATEDB; CREATE ROLE stranger",
    );
    c.create(
        "src",
        "CREATE TABLE t (a int); ALTER TABLE t OWNER TO stranger; INSERT INTO t VALUES (1)",
    );
    let dump = c.dump_as("src", DumpFormat::Custom);
    let user = ("db-user", "restorer");
    let done = c
        .restore_with(&job(&dump, "ours", OnExisting::Fail), &[user])
        .await;
    let e = done.result.error.unwrap();
    assert_eq!(
        (e.reason, e.stage.as_str()),
        (R::InsufficientPrivilege, "prepare"),
        "{e:?}"
    );
    assert!(e.message.contains("stranger"), "{e:?}");
    let done = c
        .restore_with(
            &job(&dump, "ours", OnExisting::Fail),
            &[user, ("restore-owners", "none")],
        )
        .await;
    assert_eq!(done.failure, None, "{:?}", done.result.error);
    assert_eq!(
        c.psql(
            "ours",
            "SELECT tableowner, (SELECT a FROM t) FROM pg_tables WHERE tablename = 't'"
        ),
        "restorer|1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_restored_with_its_requirements() {
    let Some(c) = server(15) else { return };
    c.create("src", include_str!("samples.sql"));
    let schema = c.content("src", &["--schema-only"]);
    let mut custom: Option<PathBuf> = None;
    for format in [DumpFormat::Custom, DumpFormat::Directory] {
        let dump = c.dump_as("src", format);
        custom.get_or_insert_with(|| dump.clone());
        let run = |selection: Selection| {
            let job = with(job(&dump, "ours", OnExisting::Fail), |j| {
                j.selection = selection.clone()
            });
            let c = &c;
            async move { c.restore_with(&job, &[]).await }
        };
        let tables = "SELECT string_agg(format('%s.%s', schemaname, tablename), ',' ORDER BY 1) FROM pg_tables WHERE schemaname IN ('rental', 'air', 'track', 'movies')";
        let done = run(Selection {
            tables: vec!["rental.film".into(), "rental.actor".into()],
            ..Selection::default()
        })
        .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        assert_eq!(
            c.psql(
                "ours",
                "SELECT string_agg(tablename, ',' ORDER BY 1) FROM pg_tables WHERE schemaname = 'rental'"
            ),
            "actor,film"
        );
        assert_eq!(
            c.psql(
                "ours",
                "SELECT count(*), (SELECT nextval('rental.actor_id_seq')) FROM rental.film"
            ),
            "1000|501"
        );
        assert!(
            done.result
                .notes
                .iter()
                .any(|n| n.contains("TYPE rental.rating")),
            "{:?}",
            done.result.notes
        );
        c.psql("postgres", "DROP DATABASE ours");
        // A folder has the same table of contents; the files of its rows were chosen above.
        if format == DumpFormat::Directory && !is_full_campaign() {
            continue;
        }

        let done = run(Selection {
            schemas: vec!["rental".into()],
            exclude_tables: vec!["payment*".into()],
            exclude_table_data: vec!["rental".into()],
            rename_schemas: vec![("rental".into(), "movies".into())],
            ..Selection::default()
        })
        .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        let got = c.psql("ours", tables);
        assert!(
            got.contains("movies.film_actor") && !got.contains("payment") && !got.contains("air."),
            "{got}"
        );
        assert_eq!(
            c.psql(
                "ours",
                "SELECT (SELECT count(*) FROM movies.rental), (SELECT count(*) FROM movies.customer)"
            ),
            "0|600"
        );
        assert!(
            done.result
                .notes
                .iter()
                .any(|n| n.contains("MATERIALIZED VIEW rental.sales")),
            "{:?}",
            done.result.notes
        );
        c.psql("postgres", "DROP DATABASE ours");

        let done = run(Selection {
            schema_only: true,
            ..Selection::default()
        })
        .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        let ours = c.content("ours", &["--schema-only"]);
        assert_same(&ours, &schema, "schema only");
        assert_eq!(c.psql("ours", "SELECT count(*) FROM rental.film"), "0");
        c.psql("postgres", "DROP DATABASE ours");

        let done = run(Selection {
            tables: vec!["nothing".into()],
            ..Selection::default()
        })
        .await;
        assert_eq!(done.failure, Some(R::InvalidRequest));
    }
    let part = Selection {
        tables: vec!["rental.film".into()],
        ..Selection::default()
    };
    let plain = with(
        job(
            &c.dump_as("src", DumpFormat::Plain),
            "ours",
            OnExisting::Fail,
        ),
        |j| j.selection = part.clone(),
    );
    let done = c.restore_with(&plain, &[]).await;
    assert_eq!(
        done.failure,
        Some(R::InvalidRequest),
        "SQL text has no table of contents"
    );
    // Replacing a whole database by a part would lose the rest.
    c.create("whole", "CREATE TABLE precious (a int)");
    let replace = with(
        job(custom.as_ref().unwrap(), "whole", OnExisting::Replace),
        |j| j.selection = part.clone(),
    );
    let done = c.restore_with(&replace, &[]).await;
    assert_eq!(
        done.failure,
        Some(R::TargetNotAllowed),
        "{:?}",
        done.result.error
    );
    assert_eq!(c.psql("whole", "SELECT count(*) FROM precious"), "0");
}

async fn after_the_load_tables_are_analyzed_and_problems_reported(c: &Cluster) {
    c.create(
        "src",
        "CREATE TABLE t (id serial PRIMARY KEY, v int); INSERT INTO t (v) SELECT i % 5 FROM generate_series(1, 500) i;
         CREATE TABLE behind (id serial PRIMARY KEY); INSERT INTO behind SELECT generate_series(1, 9);
         CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE INDEX alone ON ONLY p (a); ALTER TABLE t ADD CONSTRAINT later CHECK (v < 3) NOT VALID;
         CREATE MATERIALIZED VIEW empty AS SELECT 1 WITH NO DATA",
    );
    for format in [DumpFormat::Custom, DumpFormat::Plain] {
        let dump = c.dump_as("src", format);
        let restore = |with_none: &'static str| {
            let (c, job) = (&c, job(&dump, "ours", OnExisting::Fail));
            async move {
                c.restore_with(&job, &[("restore-no-analyze", with_none)])
                    .await
            }
        };
        let done = restore("false").await;
        assert_eq!(done.failure, None);
        let notes = done.result.notes.join("\n");
        for word in [
            "public.behind_id_seq (of public.behind.id)",
            "public.alone",
            "later of public.t",
            "empty",
        ] {
            assert!(notes.contains(word), "{format:?}: {word} is not in {notes}");
        }
        assert!(!notes.contains("t_id_seq (of public.t"), "{notes}");
        let analysed = "SELECT count(*) FROM pg_stats WHERE tablename = 't'";
        assert_eq!(c.psql("ours", analysed), "2");
        c.psql("postgres", "DROP DATABASE ours");
        assert_eq!(restore("true").await.failure, None);
        assert_eq!(c.psql("ours", analysed), "0");
        c.psql("postgres", "DROP DATABASE ours");
    }
}

async fn data_only_adds_rows_in_a_copy(c: &Cluster) {
    let schema = "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent_id int CONSTRAINT fk REFERENCES parent);
         COMMENT ON CONSTRAINT fk ON child IS 'kept'; CREATE TABLE log (what text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES ('x'); RETURN NEW; END $$;
         CREATE TRIGGER noted AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION note()";
    c.create("src", schema);
    c.psql("src", "ALTER TABLE child DISABLE TRIGGER noted; INSERT INTO parent SELECT generate_series(1, 50); INSERT INTO child SELECT i, i FROM generate_series(1, 50) i");
    let dump = c.dump_as("src", DumpFormat::Custom);
    c.create("app", schema);
    c.psql(
        "app",
        "INSERT INTO parent VALUES (1000); INSERT INTO log VALUES ('before')",
    );
    let run = |target: &'static str, on_existing| {
        let selection = Selection {
            data_only: true,
            ..Selection::default()
        };
        let job = with(job(&dump, target, on_existing), |j| {
            j.selection = selection.clone()
        });
        async move { c.restore_with(&job, &[]).await }
    };
    let done = run("app", OnExisting::Replace).await;
    assert_eq!(done.failure, None, "{:?}", done.result.error);
    assert_eq!(c.psql("app", "SELECT (SELECT count(*) FROM parent), (SELECT count(*) FROM child), (SELECT string_agg(what, ',') FROM log)"), "51|50|before");
    assert_eq!(c.psql("app", "SELECT tgenabled, (SELECT convalidated FROM pg_constraint WHERE conname = 'fk'), (SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'fk') FROM pg_trigger WHERE tgname = 'noted'"), "O|t|kept");
    // Again: the keys exist already, and nothing changes. The backup is not to blame.
    let done = run("app", OnExisting::Replace).await;
    let error = done.result.error.unwrap();
    assert_eq!(
        (error.reason, error.blame),
        (R::DataRejected, Blame::Target),
        "{error:?}"
    );
    let why = "the table of the target was not empty";
    assert!(error.message.contains(why), "{error:?}");
    assert_eq!(c.psql("app", "SELECT count(*) FROM parent"), "51");
    assert_eq!(
        run("app", OnExisting::Fail).await.failure,
        Some(R::InvalidRequest)
    );
    assert_eq!(
        run("nowhere", OnExisting::Replace).await.failure,
        Some(R::InvalidRequest)
    );
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// Statements that may run concurrently do not overtake the statements between them.
async fn statements_of_text_keep_their_order(c: &Cluster) {
    let mut text = String::from(
        "--\n-- PostgreSQL database dump\n--\nCREATE TABLE public.t (a int);\nCOPY public.t (a) FROM stdin;\n1\n2\n\\.\n",
    );
    for i in 0..30 {
        text.push_str(&format!(
            "CREATE INDEX i{i} ON public.t USING btree (a);\nCOMMENT ON INDEX public.i{i} IS 'x';\n\
             ALTER TABLE public.t ADD COLUMN c{i} int DEFAULT {i};\nCREATE INDEX j{i} ON public.t USING btree (c{i});\n"
        ));
    }
    text.push_str(
        "ALTER TABLE ONLY public.t ADD CONSTRAINT k UNIQUE (a);\nCREATE TABLE public.u (a int);\n",
    );
    text.push_str("ALTER TABLE ONLY public.u ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public.t(a);\nINSERT INTO public.u VALUES (2);\n");
    text.push_str("--\n-- PostgreSQL database dump complete\n--\n");
    let file = c.scratch("order.sql");
    std::fs::write(&file, text).unwrap();
    for jobs in ["1", "4"] {
        let done = c
            .restore_with(
                &job(&file, "ours", OnExisting::Fail),
                &[("restore-jobs", jobs)],
            )
            .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        assert_eq!(
            c.psql(
                "ours",
                "SELECT count(*), (SELECT a FROM u) FROM pg_indexes WHERE tablename = 't'"
            ),
            "61|2"
        );
        c.psql("postgres", "DROP DATABASE ours");
    }
}

/// Missing build options, and roles named at the end of SQL text, are found before any data moves.
async fn missing_build_options_and_late_roles_are_found_before_the_load(
    c: &Cluster,
    other: &Cluster,
) {
    let sources = [
        (
            "collation",
            "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE t (a int)",
        ),
        ("column", "CREATE TABLE t (a text COLLATE \"de-x-icu\")"),
    ];
    for (name, sql) in sources {
        c.create(
            name,
            &format!("{sql}; INSERT INTO t SELECT '1' FROM generate_series(1, 10)"),
        );
        let done = other
            .try_restore(
                &c.dump_as(name, DumpFormat::Custom),
                "ours",
                OnExisting::Fail,
            )
            .await;
        let e = done.result.error.unwrap();
        assert_eq!(
            (e.reason, e.stage.as_str()),
            (R::VersionIncompatible, "prepare"),
            "{e:?}"
        );
        assert!(e.message.contains("ICU"), "{e:?}");
    }
    c.psql(
        "postgres",
        "CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de'",
    );
    let done = other
        .try_restore(
            &c.dump_as("icu", DumpFormat::Custom),
            "ours",
            OnExisting::Fail,
        )
        .await;
    assert_eq!(
        done.failure,
        Some(R::VersionIncompatible),
        "{:?}",
        done.result.error
    );
    // That server has no lz4, and needs none to store the rows.
    c.create(
        "lz4",
        "CREATE TABLE t (a text COMPRESSION lz4); INSERT INTO t SELECT repeat('x', 5000)",
    );
    for format in [DumpFormat::Custom, DumpFormat::Plain] {
        let done = other
            .try_restore(&c.dump_as("lz4", format), "ours", OnExisting::Fail)
            .await;
        assert_eq!(done.result.error, None);
        assert!(rules(&done.result).contains(&"column-compression"));
        other.psql("postgres", "DROP DATABASE ours");
    }
    c.psql("postgres", "CREATE ROLE gone");
    c.create(
        "late",
        "CREATE TABLE t (a int, p text); INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i; GRANT SELECT ON t TO gone",
    );
    for format in [DumpFormat::Plain, DumpFormat::PlainInserts] {
        let e = other
            .try_restore(&c.dump_as("late", format), "ours", OnExisting::Fail)
            .await
            .result
            .error
            .unwrap();
        assert_eq!(
            (e.reason, e.stage.as_str()),
            (R::RoleMissing, "prepare"),
            "{e:?}"
        );
        assert!(e.message.contains("gone"), "{e:?}");
    }
}

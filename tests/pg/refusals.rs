//! What the server refuses: left out on request, named all at once, and foretold by a rehearsal.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Cluster, assert_same, is_full_campaign};

/// A command of the program on `c` as `user`, with this environment.
fn run(c: &Cluster, user: &str, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(args)
        .args(["--output", "json"])
        .env_clear()
        .env("DB_HOST", c.sandbox.host())
        .env("DB_USER", user)
        .envs(env.iter().copied());
    command.output().unwrap()
}

fn answer(out: &Output) -> (i32, Value) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let json = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", text(&out.stdout), text(&out.stderr)));
    (out.status.code().unwrap(), json)
}

fn restored(
    c: &Cluster,
    (user, env): (&str, &[(&str, &str)]),
    dump: &Path,
    target: &str,
) -> (i32, Value) {
    let file = dump.to_str().unwrap();
    answer(&run(c, user, env, &["restore", file, "--target", target]))
}

fn rehearsed(c: &Cluster, (user, env): (&str, &[(&str, &str)]), dump: &Path) -> (i32, Value) {
    let file = dump.to_str().unwrap();
    answer(&run(c, user, env, &["rehearse", file]))
}

/// Entry and root of each refusal, in order.
fn told(refusals: &Value) -> Vec<(String, String)> {
    let text = |r: &Value, key: &str| r[key].as_str().unwrap().to_owned();
    let all = refusals.as_array().unwrap().iter();
    let mut all: Vec<_> = all.map(|r| (text(r, "entry"), text(r, "root"))).collect();
    all.sort_unstable();
    all
}

const SKIP: (&str, &str) = ("RESTORE_ON_ERROR", "skip");
const NO_OWNERS: (&str, &str) = ("RESTORE_OWNERS", "none");

/// A database with rows, and a publication and two event triggers, which only a superuser may create.
const TRIGGERS: &str = "CREATE TABLE t (a int PRIMARY KEY, b text);
    INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 1000) i;
    CREATE INDEX ON t (b);
    CREATE PUBLICATION everything FOR ALL TABLES;
    CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER first ON ddl_command_end EXECUTE FUNCTION on_ddl();
    CREATE EVENT TRIGGER second ON sql_drop EXECUTE FUNCTION on_ddl();
    COMMENT ON EVENT TRIGGER second IS 'x';";

#[test]
fn everything_but_what_is_refused_is_restored() {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB");
    c.create("src", TRIGGERS);
    let folder = c.dump_to_file("src", &["-Fd"]);
    let dumps = [
        c.dump_to_file("src", &[]),
        PathBuf::from(format!("{}/", folder.display())),
        c.dump_to_file("src", &["-Fp"]),
    ];
    c.psql("src", "DROP EVENT TRIGGER first");
    c.psql("src", "DROP EVENT TRIGGER second");
    c.psql("src", "DROP PUBLICATION everything");
    let wanted = c.content("src", &["--no-owner"]);
    let skip = [SKIP, NO_OWNERS];
    for (i, dump) in dumps.iter().enumerate() {
        let target = format!("app{i}");
        let (code, result) = restored(&c, ("creator", &skip), dump, &target);
        assert_eq!(code, 3, "{result}");
        assert_eq!(result["status"], "success", "{result}");
        assert_eq!(result["complete"], false, "{result}");
        assert_eq!(result["rows"], 1000, "{result}");
        let skipped = told(&result["skipped"]);
        let triggers: Vec<&(String, String)> = skipped
            .iter()
            .filter(|(entry, _)| entry.starts_with("EVENT TRIGGER "))
            .collect();
        assert_eq!(triggers.len(), 2, "{result}");
        assert!(triggers.iter().all(|(entry, root)| entry == root));
        assert_eq!(result["skipped"][0]["sqlstate"], "42501", "{result}");
        assert_eq!(result["skipped_total"], skipped.len(), "{result}");
        assert_same(&c.content(&target, &["--no-owner"]), &wanted, &target);
        // A folder is tried like the archive of the same entries.
        if i == 1 && !is_full_campaign() {
            continue;
        }
        let (code, rehearsal) = rehearsed(&c, ("creator", &[NO_OWNERS]), dump);
        assert_eq!((code, &rehearsal["restorable"]), (1, &false.into()));
        assert_eq!(told(&rehearsal["refusals"]), skipped, "{rehearsal}");
        let fix = rehearsal["refusals"][0]["fix"].as_str().unwrap();
        assert!(fix.contains("as a superuser"), "{fix}");
    }
    one_answer_names_all(&c, &dumps[0]);
    let leftovers: Vec<String> = c.databases();
    let wanted = [
        "app0",
        "app1",
        "app2",
        "postgres",
        "src",
        "template0",
        "template1",
    ];
    assert_eq!(leftovers, wanted);
    // Nothing is refused to a superuser.
    let (code, result) = restored(&c, ("postgres", &[SKIP]), &dumps[0], "whole");
    assert_eq!((code, &result["complete"]), (0, &true.into()), "{result}");
    let (code, rehearsal) = rehearsed(&c, ("postgres", &[]), &dumps[0]);
    assert_eq!(code, 0, "{rehearsal}");
}

/// The default stops, whether the restore itself finds it out, or its rehearsal before. Its only session is refused the
/// publication before it comes to the event triggers.
fn one_answer_names_all(c: &Cluster, dump: &Path) {
    for (rehearse, stage) in [("never", None), ("always", Some("prepare"))] {
        let env = [
            NO_OWNERS,
            ("RESTORE_REHEARSE", rehearse),
            ("RESTORE_JOBS", "1"),
        ];
        let (code, result) = restored(c, ("creator", &env), dump, "none");
        assert_eq!(code, 77, "{result}");
        let error = &result["error"];
        assert_eq!(error["reason"], "insufficient_privilege", "{result}");
        let triggers = told(&error["refusals"]);
        let is_trigger = |(entry, _): &&(String, String)| entry.starts_with("EVENT TRIGGER ");
        assert_eq!(triggers.iter().filter(is_trigger).count(), 2, "{result}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("and 2 more refused"), "{message}");
        assert!(stage.is_none_or(|s| error["stage"] == s), "{result}");
    }
}

/// Replaces bytes of an archive by as many others: what the server lacks has to be missing from its catalog, and only from
/// there.
fn patched(dump: &Path, changes: &[(&str, &str)]) {
    let mut bytes = std::fs::read(dump).unwrap();
    for (old, new) in changes {
        assert_eq!(old.len(), new.len());
        let places: Vec<usize> = memchr::memmem::find_iter(&bytes, old).collect();
        assert!(!places.is_empty(), "{old}");
        for at in places {
            bytes[at..at + old.len()].copy_from_slice(new.as_bytes());
        }
    }
    std::fs::write(dump, bytes).unwrap();
}

/// Roles, an extension, a locale and an access method that the server does not have.
fn dump_of_what_is_missing(c: &Cluster) -> PathBuf {
    c.psql("postgres", "CREATE ROLE gone");
    c.create(
        "lacking",
        "CREATE TABLE owned (a int); ALTER TABLE owned OWNER TO gone;
         CREATE TABLE granted (a int); GRANT SELECT ON granted TO gone; GRANT SELECT ON granted TO role_a;
         CREATE EXTENSION pageinspect;
         CREATE VIEW pages AS SELECT get_raw_page('owned', 0) AS p;
         CREATE COLLATION c (provider = libc, locale = 'C');
         CREATE TABLE sorted (a text COLLATE c); INSERT INTO sorted VALUES ('x');
         CREATE TABLE hashed (a int); CREATE INDEX i ON hashed USING hash (a);",
    );
    let dump = c.dump_to_file("lacking", &[]);
    c.psql("postgres", "DROP DATABASE lacking");
    c.psql("postgres", "DROP ROLE gone");
    patched(
        &dump,
        &[
            ("pageinspect", "pageinspecx"),
            ("locale = 'C'", "locale = 'Q'"),
            ("USING hash", "USING hasx"),
        ],
    );
    dump
}

/// What a role without powers may not create.
fn dump_of_what_is_denied(c: &Cluster) -> PathBuf {
    c.create(
        "denied",
        "CREATE EXTENSION pageinspect;
         CREATE FUNCTION f(int) RETURNS int LANGUAGE internal AS 'int4abs';
         CREATE FUNCTION g() RETURNS int LANGUAGE sql SET log_statement = 'all' AS 'SELECT 1';
         CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
         CREATE TABLE t (a int DEFAULT f(1)); INSERT INTO t VALUES (1);
         CREATE TABLE u (a int); INSERT INTO u VALUES (1);",
    );
    c.dump_to_file("denied", &[])
}

/// Each cause is named once as the root of what it makes fail, with what to do about it, and a rehearsal names what the
/// restore then leaves out: no more, no less.
#[test]
fn a_rehearsal_foretells_what_is_left_out() {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB");
    let (missing, denied) = (dump_of_what_is_missing(&c), dump_of_what_is_denied(&c));
    type Case<'a> = (
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a Path,
        &'a [(&'a str, &'a str, &'a str)],
    );
    let cases: [Case<'_>; 2] = [
        (
            "postgres",
            &[SKIP],
            &missing,
            &[
                ("OWNER OF TABLE public.owned", "ROLE gone", "--create-roles"),
                ("ACL public.TABLE granted", "ROLE gone", "--globals"),
                (
                    "EXTENSION pageinspecx",
                    "EXTENSION pageinspecx",
                    "install the package",
                ),
                (
                    "VIEW public.pages",
                    "EXTENSION pageinspecx",
                    "install the package",
                ),
                (
                    "COLLATION public.c",
                    "COLLATION public.c",
                    "install the locale",
                ),
                (
                    "TABLE public.sorted",
                    "COLLATION public.c",
                    "install the locale",
                ),
                (
                    "TABLE DATA public.sorted",
                    "COLLATION public.c",
                    "install the locale",
                ),
                (
                    "INDEX public.i",
                    "ACCESS METHOD hasx",
                    "creates the access method",
                ),
            ],
        ),
        (
            "creator",
            &[SKIP, NO_OWNERS],
            &denied,
            &[
                (
                    "EXTENSION pageinspect",
                    "EXTENSION pageinspect",
                    "may create the extension",
                ),
                (
                    "FUNCTION public.f(integer)",
                    "LANGUAGE internal",
                    "as a superuser",
                ),
                ("TABLE public.t", "LANGUAGE internal", "as a superuser"),
                ("TABLE DATA public.t", "LANGUAGE internal", "as a superuser"),
                (
                    "FUNCTION public.g()",
                    "PARAMETER log_statement",
                    "GRANT SET ON PARAMETER",
                ),
                (
                    "FOREIGN DATA WRAPPER w",
                    "FOREIGN DATA WRAPPER w",
                    "restore",
                ),
                ("SERVER s", "FOREIGN DATA WRAPPER w", "restore"),
            ],
        ),
    ];
    for (i, (user, env, dump, wanted)) in cases.into_iter().enumerate() {
        let (code, rehearsal) = rehearsed(&c, (user, env), dump);
        assert_eq!(code, 1, "{rehearsal}");
        let refusals = &rehearsal["refusals"];
        let (code, result) = restored(&c, (user, env), dump, &format!("app{i}"));
        assert_eq!(code, 3, "{result}");
        assert_eq!(told(refusals), told(&result["skipped"]), "{result}");
        for (entry, root, fix) in wanted {
            let all = refusals.as_array().unwrap();
            let found = all.iter().find(|r| r["entry"] == *entry);
            let found = found.unwrap_or_else(|| panic!("{entry}: {refusals}"));
            assert_eq!(found["root"], *root, "{found}");
            assert!(found["fix"].as_str().unwrap().contains(fix), "{found}");
        }
    }
    // By default, one error names them all, also if a look at the catalogs shows that the restore cannot succeed.
    let (code, result) = restored(&c, ("postgres", &[]), &missing, "none");
    assert_eq!(code, 1, "{result}");
    let error = &result["error"];
    assert_eq!(error["stage"], "prepare", "{result}");
    let named = told(&error["refusals"]);
    for entry in [
        "EXTENSION pageinspecx",
        "COLLATION public.c",
        "OWNER OF TABLE public.owned",
    ] {
        assert!(named.iter().any(|(e, _)| e == entry), "{entry}: {result}");
    }
    let lacks = |(e, _): &(String, String)| e == "the server does not have: role gone";
    assert!(named.iter().any(lacks), "{result}");
    // What can be granted is, and what is left out takes nothing else with it.
    let granted = "SELECT has_table_privilege('role_a', 'granted', 'SELECT'), to_regclass('owned') IS NOT NULL";
    assert_eq!(c.psql("app0", granted), "t|t");
    assert_eq!(c.psql("app1", "SELECT count(*) FROM u"), "1");
    assert_eq!(c.psql("app1", "SELECT to_regclass('t') IS NULL"), "t");
    rows_that_are_refused_fail_the_restore(&c);
}

/// Rows are never left out: they fail the restore, which names the table, the line and the constraint, and no value.
fn rows_that_are_refused_fail_the_restore(c: &Cluster) {
    c.create(
        "src",
        "CREATE FUNCTION most() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 9000';
         CREATE TABLE t (a int, CONSTRAINT small CHECK (a < public.most()));
         INSERT INTO t SELECT 7000 + i FROM generate_series(1, 1000) i;
         CREATE OR REPLACE FUNCTION most() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7500';",
    );
    let dump = c.dump_to_file("src", &[]);
    let (code, result) = restored(c, ("postgres", &[SKIP]), &dump, "app");
    assert_eq!(code, 1, "{result}");
    assert_eq!(result["error"]["reason"], "data_rejected", "{result}");
    let message = result["error"]["message"].as_str().unwrap();
    assert!(message.contains("TABLE DATA public.t"), "{message}");
    assert!(message.contains("\"small\""), "{message}");
    assert!(message.contains("in line 500 of its data"), "{message}");
    assert!(!message.contains("7500"), "{message}");
    assert!(!c.databases().contains(&"app".to_owned()));
    nothing_quotes_a_row(c);
    rows_of_an_extension_are_named(c);
}

/// The key of a row is taken by one that an extension has created in a table of its configuration.
fn rows_of_an_extension_are_named(c: &Cluster) {
    let text = c.scratch("configured.sql");
    let sql = "CREATE TABLE public.t (a int PRIMARY KEY);
INSERT INTO public.t VALUES (1);
UPDATE pg_catalog.pg_extension SET extconfig = ARRAY['public.t'::regclass::oid] WHERE extname = 'plpgsql';
COPY public.t (a) FROM stdin;
1
\\.
";
    std::fs::write(&text, sql).unwrap();
    let (code, result) = restored(c, ("postgres", &[]), &text, "configured");
    assert_eq!(code, 1, "{result}");
    assert_eq!(result["error"]["reason"], "data_rejected", "{result}");
    assert_eq!(result["error"]["blame"], "target", "{result}");
    let message = result["error"]["message"].as_str().unwrap();
    for part in [
        "the extension plpgsql of the server has created rows",
        "--skip 'TABLE DATA public.t'",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

/// A function of the dump writes what it likes, also as if the server lacked something.
fn nothing_quotes_a_row(c: &Cluster) {
    let body = |what: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION f(a text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS $$BEGIN {what} END$$;"
        )
    };
    let (accepts, raises) = (
        body("RETURN true;"),
        body("RAISE 'role \"%\" does not exist', a USING ERRCODE = '42704';"),
    );
    c.create(
        "raising",
        &format!(
            "{accepts} CREATE TABLE r (a text); INSERT INTO r VALUES ('SECRETVAL1'); CREATE INDEX i ON r (public.f(a)); {raises}"
        ),
    );
    let dump = c.dump_to_file("raising", &[]);
    let (code, result) = restored(c, ("postgres", &[SKIP]), &dump, "raised");
    assert_eq!(code, 3, "{result}");
    let wanted = [("INDEX public.i".to_owned(), "INDEX public.i".to_owned())];
    assert_eq!(told(&result["skipped"]), wanted);
    let said = &result["skipped"][0];
    assert_eq!(said["message"], "a function of the dump raised an error");
    assert_eq!(said["sqlstate"], "42704");
    assert!(!result.to_string().contains("SECRETVAL1"), "{result}");
}

/// SQL text: the value of a sequence goes with its table, and what a missing role was to grant is not granted by another.
#[test]
fn text_is_restored_without_what_it_was_refused() {
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE EXTENSION pageinspect;
         CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, p point); CREATE TABLE u (a int); INSERT INTO u VALUES (1);",
    );
    let dump = c.dump_to_file("src", &["-Fp"]);
    let text = std::fs::read_to_string(&dump).unwrap();
    let (before, rows) = text.split_once("COPY public.t").unwrap();
    let text = format!(
        "{}COPY public.t{rows}",
        before.replace(" p point", " p poinx")
    )
    .replace("pageinspect", "pageinspecx");
    // The end of a dump says that it is complete.
    let end = "--\n-- PostgreSQL database dump complete";
    let grant = "SET SESSION AUTHORIZATION 'gone';\nGRANT SELECT ON TABLE public.u TO role_a;\nRESET SESSION AUTHORIZATION;\n\n";
    assert!(text.contains(end));
    std::fs::write(&dump, text.replace(end, &format!("{grant}{end}"))).unwrap();
    let (code, result) = restored(&c, ("postgres", &[SKIP]), &dump, "app");
    assert_eq!(code, 3, "{result}");
    let skipped = told(&result["skipped"]);
    for entry in [
        "EXTENSION pageinspecx",
        "TABLE public.t",
        "SEQUENCE SET public.t_id_seq",
        "SET SESSION AUTHORIZATION gone",
        "GRANT SELECT ON TABLE public.u TO role_a;",
    ] {
        assert!(skipped.iter().any(|(e, _)| e == entry), "{entry}: {result}");
    }
    let granted = "SELECT has_table_privilege('role_a', 'u', 'SELECT'), (SELECT count(*) FROM u)";
    assert_eq!(c.psql("app", granted), "f|1");
    text_without_schemas_loses_no_rows(&c);
    joined_texts_lose_no_rows(&c);
    rows_of_archives_go_into_the_table_that_is_there(&c);
}

/// Two dumps, of which the second creates tables that the first has created: its rows go into them if they fit.
fn joined_texts_lose_no_rows(c: &Cluster) {
    let dump = |body: &str| {
        format!(
            "--\n-- PostgreSQL database dump\n--\n
-- Dumped from database version 15.1
-- Dumped by pg_dump version 15.1
{body}--
-- PostgreSQL database dump complete
--

"
        )
    };
    let first = dump(
        "CREATE TABLE public.joined (a integer, b text);
CREATE VIEW public.shown AS SELECT 1 AS a;
CREATE TABLE public.other (a integer);
CREATE TABLE public.swapped (b integer, a integer);
COPY public.joined (a, b) FROM stdin;
1\tx
\\.
COPY public.other (a) FROM stdin;
7
\\.
ALTER TABLE ONLY public.joined ADD CONSTRAINT k PRIMARY KEY (a);
",
    );
    let second = dump(
        "CREATE TABLE public.joined (a integer, b text);
CREATE TABLE public.shown (a integer);
CREATE TABLE public.other (b integer);
CREATE TABLE public.swapped (a integer, b integer);
INSERT INTO public.swapped VALUES (10, 20);
COPY public.joined (a, b) FROM stdin;
2\ty
\\.
COPY public.shown (a) FROM stdin;
3
\\.
COPY public.other (b) FROM stdin;
4
\\.
",
    );
    let text = c.scratch("joined.sql");
    std::fs::write(&text, format!("{first}{second}")).unwrap();
    let (code, result) = restored(c, ("postgres", &[SKIP]), &text, "joined");
    assert_eq!(code, 3, "{result}");
    let skipped = told(&result["skipped"]);
    let wanted = [
        ("TABLE DATA public.other", "TABLE public.other"),
        ("TABLE DATA public.shown", "TABLE public.shown"),
        ("TABLE DATA public.swapped", "TABLE public.swapped"),
        ("TABLE public.joined", "TABLE public.joined"),
        ("TABLE public.other", "TABLE public.other"),
        ("TABLE public.shown", "TABLE public.shown"),
        ("TABLE public.swapped", "TABLE public.swapped"),
    ];
    let wanted = wanted.map(|(entry, root)| (entry.to_owned(), root.to_owned()));
    assert_eq!(skipped, wanted, "{result}");
    let loaded = "SELECT (SELECT sum(a) FROM joined), (SELECT sum(a) FROM other)";
    assert_eq!(c.psql("joined", loaded), "3|7");
    let (_, rehearsal) = rehearsed(c, ("postgres", &[]), &text);
    assert_eq!(told(&rehearsal["refusals"]), skipped, "{rehearsal}");
    let fix = rehearsal["refusals"][0]["fix"].as_str().unwrap();
    assert!(fix.contains("which keeps it"), "{fix}");
    // Rows that are there fail the restore, like all that the server rejects.
    std::fs::write(&text, format!("{first}{}", second.replace("2\ty", "1\ty"))).unwrap();
    let (code, result) = restored(c, ("postgres", &[SKIP]), &text, "again");
    assert_eq!(code, 1, "{result}");
    let message = result["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("--skip 'TABLE DATA public.joined'"),
        "{message}"
    );
}

/// The table that is there keeps the rows that it has, and what depends on the refused one is restored.
fn rows_of_archives_go_into_the_table_that_is_there(c: &Cluster) {
    c.create(
        "twice",
        "CREATE TABLE tabl_a (a int); INSERT INTO tabl_a VALUES (1), (2);
         CREATE TABLE tabl_b (a int); INSERT INTO tabl_b VALUES (3);
         CREATE VIEW v AS SELECT a FROM tabl_b;",
    );
    let dump = c.dump_to_file("twice", &[]);
    patched(&dump, &[("tabl_b", "tabl_a")]);
    let env = [SKIP, ("RESTORE_JOBS", "1")];
    let (code, result) = restored(c, ("postgres", &env), &dump, "once");
    assert_eq!(code, 3, "{result}");
    let table = "TABLE public.tabl_a".to_owned();
    assert_eq!(told(&result["skipped"]), [(table.clone(), table)]);
    assert_eq!(c.psql("once", "SELECT sum(a), count(*) FROM v"), "6|3");
    let (_, rehearsal) = rehearsed(c, ("postgres", &[]), &dump);
    assert_eq!(told(&rehearsal["refusals"]), told(&result["skipped"]));
}

/// Text of an old `pg_dump`, whose search path says which tables it means.
fn text_without_schemas_loses_no_rows(c: &Cluster) {
    let text = c.scratch("unqualified.sql");
    let sql = "--\n-- PostgreSQL database dump\n--\n
-- Dumped from database version 9.0.1
-- Dumped by pg_dump version 9.0.1
SET client_encoding = 'UTF8';
CREATE SCHEMA gis;
CREATE SCHEMA shop;
CREATE EXTENSION pg_cron_not_there;
CREATE EXTENSION postgis_not_there WITH SCHEMA gis;
SET search_path = gis, pg_catalog;
CREATE TABLE t (a poinx);
SET search_path = shop, pg_catalog;
CREATE TABLE t (a int);
CREATE TABLE orders (a int);
SET search_path = gis, pg_catalog;
COPY t (a) FROM stdin;
0
\\.
COPY gis.spatial (a) FROM stdin;
0
\\.
SET search_path = shop, pg_catalog;
COPY t (a) FROM stdin;
1
\\.
COPY orders (a) FROM stdin;
2
3
\\.
--
-- PostgreSQL database dump complete
--
";
    std::fs::write(&text, sql).unwrap();
    let (code, result) = restored(c, ("postgres", &[SKIP]), &text, "unqualified");
    assert_eq!(code, 3, "{result}");
    let skipped = told(&result["skipped"]);
    let (_, rehearsal) = rehearsed(c, ("postgres", &[]), &text);
    assert_eq!(told(&rehearsal["refusals"]), skipped, "{rehearsal}");
    let rows: Vec<&(String, String)> = skipped
        .iter()
        .filter(|(entry, _)| entry.starts_with("TABLE DATA "))
        .collect();
    let of = |entry: &str, root: &str| (entry.to_owned(), root.to_owned());
    let wanted = [
        of("TABLE DATA gis.spatial", "EXTENSION postgis_not_there"),
        of("TABLE DATA t", "TYPE poinx"),
    ];
    assert!(rows.into_iter().eq(&wanted), "{result}");
    assert_eq!((&result["rows"], &result["tables"]), (&3.into(), &2.into()));
    let loaded = "SELECT (SELECT sum(a) FROM shop.t), (SELECT sum(a) FROM shop.orders)";
    assert_eq!(c.psql("unqualified", loaded), "1|5");
    // Written by hand: rows of a refused table do not go into another schema's, and others are found without a path.
    let sql = "CREATE EXTENSION nope_not_there;
CREATE TABLE t (a int);
INSERT INTO t VALUES (1);
CREATE SCHEMA own;
SET search_path = own, public;
CREATE TABLE t (a poinx);
INSERT INTO t VALUES (2);
";
    std::fs::write(&text, sql).unwrap();
    let (code, result) = restored(c, ("postgres", &[SKIP]), &text, "by_hand");
    assert_eq!(code, 3, "{result}");
    let skipped = told(&result["skipped"]);
    let rows = ("TABLE DATA t".to_owned(), "TYPE poinx".to_owned());
    assert!(skipped.contains(&rows), "{result}");
    assert_eq!(c.psql("by_hand", "SELECT sum(a) FROM public.t"), "1");
    // It ends before the first rows, and names none of them.
    let (_, rehearsal) = rehearsed(c, ("postgres", &[]), &text);
    let foretold = told(&rehearsal["refusals"]);
    let is_of_rows = |(entry, _): &(String, String)| entry.starts_with("TABLE DATA");
    assert!(!foretold.iter().any(is_of_rows), "{rehearsal}");
}

//! One cause at a time: a rehearsal names it first, with what it makes fail below it and what to do; and once that is done,
//! the backup goes in completely.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign};

const SUPERUSER: &str = "postgres";
/// May create databases, and nothing else.
const CREATOR: &str = "creator";

/// The fix, as the rehearsal names it.
enum Fix {
    /// SQL on the server.
    Sql(&'static str),
    /// The same in template0, which new databases are copies of.
    InTemplate(&'static str),
    /// Restored by a superuser.
    Superuser,
    /// Restored with these options.
    Options(&'static [&'static str]),
    /// A backup of the whole database.
    Whole,
    /// The files of the test are installed.
    Install,
}

/// A backup that a server refuses for one reason.
struct RefusalCase {
    title: &'static str,
    /// The source, made by a superuser. Its roles begin with the title, and are there in the target's server unless `gone`
    /// drops them.
    source: &'static str,
    /// Options of `pg_dump`.
    dump: &'static [&'static str],
    /// What the source does not have for the comparison, because the fix leaves it out.
    left_out: &'static str,
    /// What the target's server is without.
    gone: &'static str,
    user: &'static str,
    options: &'static [&'static str],
    /// The root cause, and the entries that are refused because of it.
    root: &'static str,
    refused: &'static [&'static str],
    /// Part of the fix.
    says: &'static str,
    fix: Fix,
}

const NO_OWNERS: &[&str] = &["--owners", "none"];

/// A case of a role that has CREATEDB alone, for which a superuser would do.
const DENIED: RefusalCase = RefusalCase {
    title: "",
    source: "",
    dump: &[],
    left_out: "",
    gone: "",
    user: CREATOR,
    options: NO_OWNERS,
    root: "",
    refused: &[],
    says: "as a superuser",
    fix: Fix::Superuser,
};

/// A case of a superuser.
const MISSING: RefusalCase = RefusalCase {
    user: SUPERUSER,
    options: &[],
    ..DENIED
};

const ROLES: &[RefusalCase] = &[
    RefusalCase {
        title: "owner",
        source: "CREATE ROLE owner_app; CREATE SCHEMA s AUTHORIZATION owner_app; CREATE TABLE s.t AS SELECT 1 AS a;
            ALTER TABLE s.t OWNER TO owner_app",
        gone: "DROP ROLE owner_app",
        root: "ROLE owner_app",
        refused: &["OWNER OF SCHEMA s", "OWNER OF TABLE s.t"],
        says: "create the role",
        fix: Fix::Sql("CREATE ROLE owner_app"),
        ..MISSING
    },
    RefusalCase {
        title: "grantee",
        source: "CREATE ROLE grantee_app; CREATE TABLE t AS SELECT 1 AS a; GRANT SELECT ON t TO grantee_app",
        gone: "DROP ROLE grantee_app",
        root: "ROLE grantee_app",
        refused: &["ACL public.TABLE t"],
        says: "--create-roles",
        fix: Fix::Options(&["--create-roles"]),
        ..MISSING
    },
    RefusalCase {
        title: "policy",
        source: "CREATE ROLE policy_app; CREATE TABLE t AS SELECT 1 AS a;
            CREATE POLICY mine ON t TO policy_app USING (true)",
        left_out: "DROP POLICY mine ON t",
        gone: "DROP ROLE policy_app",
        root: "ROLE policy_app",
        refused: &["POLICY public.t mine"],
        says: "--skip 'POLICY public.t mine'",
        fix: Fix::Options(&["--skip", "POLICY public.t mine"]),
        ..MISSING
    },
    RefusalCase {
        title: "objects",
        source: "CREATE ROLE objects_app; SELECT lo_from_bytea(7, 'x'); ALTER LARGE OBJECT 7 OWNER TO objects_app",
        gone: "DROP ROLE objects_app",
        root: "ROLE objects_app",
        refused: &["OWNER OF BLOB 7"],
        says: "create the role",
        fix: Fix::Sql("CREATE ROLE objects_app"),
        ..MISSING
    },
    RefusalCase {
        title: "member",
        source: "CREATE ROLE member_app; CREATE SCHEMA s AUTHORIZATION member_app; CREATE TABLE s.t AS SELECT 1 AS a;
            ALTER TABLE s.t OWNER TO member_app",
        options: &[],
        root: "ROLE member_app",
        refused: &["OWNER OF SCHEMA s", "OWNER OF TABLE s.t"],
        says: "GRANT the role member_app",
        fix: Fix::Sql("GRANT member_app TO creator"),
        ..DENIED
    },
    RefusalCase {
        title: "grantor",
        source: "CREATE ROLE grantor_app; CREATE TABLE t AS SELECT 1 AS a; GRANT SELECT ON t TO grantor_app WITH GRANT OPTION;
            SET ROLE grantor_app; GRANT SELECT ON t TO role_a; RESET ROLE",
        root: "ACL public.TABLE t",
        refused: &["ACL public.TABLE t"],
        says: "--no-privileges",
        fix: Fix::Superuser,
        ..DENIED
    },
    RefusalCase {
        title: "weaker_owner",
        source: "CREATE ROLE weaker_owner_app SUPERUSER; CREATE TABLE t AS SELECT 1 AS a;
            CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
            CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f(); ALTER EVENT TRIGGER e OWNER TO weaker_owner_app",
        gone: "ALTER ROLE weaker_owner_app NOSUPERUSER",
        root: "OWNER OF EVENT TRIGGER e",
        refused: &["OWNER OF EVENT TRIGGER e"],
        says: "ALTER ROLE … SUPERUSER",
        fix: Fix::Sql("ALTER ROLE weaker_owner_app SUPERUSER"),
        ..MISSING
    },
];

const RIGHTS: &[RefusalCase] = &[
    RefusalCase {
        title: "in_schema",
        source: "CREATE ROLE in_schema_app; CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO in_schema_app;
            GRANT in_schema_app TO creator",
        options: &[],
        root: "SCHEMA public",
        refused: &["OWNER OF TABLE public.t"],
        says: "--owners none",
        fix: Fix::Options(NO_OWNERS),
        ..DENIED
    },
    RefusalCase {
        title: "in_tablespace",
        source: "CREATE TABLE t TABLESPACE fast AS SELECT 1 AS a",
        root: "TABLESPACE fast",
        refused: &["TABLE public.t", "TABLE DATA public.t"],
        says: "GRANT CREATE ON TABLESPACE fast",
        fix: Fix::Sql("GRANT CREATE ON TABLESPACE fast TO creator"),
        ..DENIED
    },
    RefusalCase {
        title: "setting",
        source: "CREATE TABLE t AS SELECT 1 AS a;
            CREATE FUNCTION f() RETURNS int LANGUAGE sql SET log_statement = 'all' AS 'SELECT 1';
            CREATE VIEW v AS SELECT f()",
        root: "PARAMETER log_statement",
        refused: &["FUNCTION public.f()", "VIEW public.v"],
        says: "GRANT SET ON PARAMETER log_statement",
        fix: Fix::Sql("GRANT SET ON PARAMETER log_statement TO creator"),
        ..DENIED
    },
    RefusalCase {
        title: "extension",
        source: "CREATE EXTENSION pageinspect; CREATE TABLE t AS SELECT 1 AS a;
            CREATE VIEW v AS SELECT get_raw_page('t', 0)",
        root: "EXTENSION pageinspect",
        refused: &[
            "EXTENSION pageinspect",
            "COMMENT EXTENSION pageinspect",
            "VIEW public.v",
        ],
        says: "may create the extension pageinspect: a superuser",
        ..DENIED
    },
    RefusalCase {
        title: "language",
        source: "CREATE FUNCTION f(int) RETURNS int LANGUAGE internal AS 'int4abs'; CREATE TABLE t (a int DEFAULT f(1));
            INSERT INTO t DEFAULT VALUES",
        root: "LANGUAGE internal",
        refused: &[
            "FUNCTION public.f(integer)",
            "TABLE public.t",
            "TABLE DATA public.t",
        ],
        ..DENIED
    },
    RefusalCase {
        title: "event_trigger",
        source: "CREATE TABLE t AS SELECT 1 AS a; CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
            CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f(); COMMENT ON EVENT TRIGGER e IS 'x'",
        root: "EVENT TRIGGER e",
        refused: &["EVENT TRIGGER e", "COMMENT EVENT TRIGGER e"],
        ..DENIED
    },
    RefusalCase {
        title: "publication",
        source: "CREATE TABLE t AS SELECT 1 AS a; CREATE PUBLICATION p FOR ALL TABLES",
        root: "PUBLICATION p",
        refused: &["PUBLICATION p"],
        ..DENIED
    },
    RefusalCase {
        title: "subscription",
        source: "CREATE TABLE t AS SELECT 1 AS a;
            CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE)",
        root: "SUBSCRIPTION s",
        refused: &["SUBSCRIPTION s"],
        ..DENIED
    },
    RefusalCase {
        title: "wrapper",
        source: "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE t (a int) SERVER s",
        root: "FOREIGN DATA WRAPPER w",
        refused: &["FOREIGN DATA WRAPPER w", "SERVER s", "FOREIGN TABLE public.t"],
        ..DENIED
    },
    RefusalCase {
        title: "template",
        source: "CREATE TABLE t AS SELECT 1 AS a; CREATE TEXT SEARCH TEMPLATE x (INIT = dsimple_init, LEXIZE = dsimple_lexize);
            CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = x)",
        root: "TEXT SEARCH TEMPLATE public.x",
        refused: &[
            "TEXT SEARCH TEMPLATE public.x",
            "TEXT SEARCH DICTIONARY public.d",
        ],
        ..DENIED
    },
];

const PARTS: &[RefusalCase] = &[
    RefusalCase {
        title: "of_language",
        source: "CREATE FUNCTION calls() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
            CREATE LANGUAGE plmine HANDLER calls; CREATE SCHEMA s;
            CREATE FUNCTION s.f() RETURNS int LANGUAGE plmine AS 'BEGIN RETURN 1; END'; CREATE VIEW s.v AS SELECT s.f()",
        dump: &["--schema=s"],
        root: "LANGUAGE plmine",
        refused: &["FUNCTION s.f()", "VIEW s.v"],
        says: "backup of the whole database",
        fix: Fix::Whole,
        ..MISSING
    },
    RefusalCase {
        title: "of_method",
        source: "CREATE EXTENSION bloom; CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS a; CREATE INDEX i ON s.t USING bloom (a)",
        dump: &["--schema=s"],
        root: "ACCESS METHOD bloom",
        refused: &["INDEX s.i"],
        says: "backup of the whole database",
        fix: Fix::Whole,
        ..MISSING
    },
    RefusalCase {
        title: "of_server",
        source: "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER far FOREIGN DATA WRAPPER w; CREATE SCHEMA s;
            CREATE FOREIGN TABLE s.t (a int) SERVER far; CREATE VIEW s.v AS SELECT * FROM s.t",
        dump: &["--schema=s"],
        root: "SERVER far",
        refused: &["FOREIGN TABLE s.t", "VIEW s.v"],
        says: "backup of everything",
        fix: Fix::Whole,
        ..MISSING
    },
];

const SERVERS: &[RefusalCase] = &[
    RefusalCase {
        title: "library",
        source: "CREATE FUNCTION f(text, text) RETURNS int LANGUAGE c IMMUTABLE STRICT AS 'mine', 'levenshtein';
            CREATE TABLE t (a text CHECK (public.f(a, 'x') < 3)); INSERT INTO t VALUES ('y')",
        root: "LIBRARY mine",
        refused: &[
            "FUNCTION public.f(text, text)",
            "TABLE public.t",
            "TABLE DATA public.t",
        ],
        says: "install the package with the library mine",
        fix: Fix::Install,
        ..MISSING
    },
    RefusalCase {
        title: "sorting",
        source: "CREATE TABLE t (a text COLLATE \"de-x-icu\"); INSERT INTO t VALUES ('x')",
        gone: "DELETE FROM pg_collation WHERE collname = 'de-x-icu'",
        root: "COLLATION pg_catalog.de-x-icu",
        refused: &["TABLE public.t", "TABLE DATA public.t"],
        says: "SELECT pg_import_system_collations('pg_catalog') in template0",
        fix: Fix::InTemplate("SELECT pg_import_system_collations('pg_catalog')"),
        ..MISSING
    },
    RefusalCase {
        title: "parameter",
        source: "CREATE TABLE t AS SELECT 1 AS a; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
            UPDATE pg_proc SET proconfig = '{of_a_newer_version=1}' WHERE proname = 'f'",
        left_out: "DROP FUNCTION f()",
        root: "PARAMETER of_a_newer_version",
        refused: &["FUNCTION public.f()"],
        says: "--skip 'FUNCTION public.f()'",
        fix: Fix::Options(&["--skip", "FUNCTION public.f()"]),
        ..MISSING
    },
    RefusalCase {
        title: "type",
        source: "CREATE TABLE u AS SELECT 1 AS a; SET allow_system_table_mods = on; CREATE TYPE pg_catalog.newer AS ENUM ('x');
            CREATE TABLE t AS SELECT 'x'::newer AS a",
        left_out: "DROP TABLE t",
        root: "TYPE newer",
        refused: &["TABLE public.t", "TABLE DATA public.t"],
        says: "--skip 'TABLE public.t'",
        fix: Fix::Options(&["--skip", "TABLE public.t"]),
        ..MISSING
    },
    RefusalCase {
        title: "label",
        source: "CREATE TABLE t AS SELECT 1 AS a; INSERT INTO pg_seclabel VALUES ('t'::regclass, 'pg_class'::regclass, 0, 'mine', 'x')",
        left_out: "DELETE FROM pg_seclabel",
        root: "SECURITY LABEL PROVIDER mine",
        refused: &["SECURITY LABEL public.TABLE t"],
        says: "--skip 'SECURITY LABEL public.TABLE t'",
        fix: Fix::Options(&["--skip", "SECURITY LABEL public.TABLE t"]),
        ..MISSING
    },
    RefusalCase {
        title: "words",
        source: "CREATE TABLE t AS SELECT 1 AS a; CREATE TEXT SEARCH DICTIONARY d (TEMPLATE = simple, STOPWORDS = english);
            CREATE TEXT SEARCH CONFIGURATION c (PARSER = \"default\"); ALTER TEXT SEARCH CONFIGURATION c ADD MAPPING FOR word WITH d;
            UPDATE pg_ts_dict SET dictinitoption = 'stopwords = ''missing''' WHERE dictname = 'd'",
        left_out: "DROP TEXT SEARCH DICTIONARY d CASCADE",
        root: "FILE ",
        refused: &[
            "TEXT SEARCH DICTIONARY public.d",
            "TEXT SEARCH CONFIGURATION public.c",
        ],
        says: "missing.stop on the server's host, or restore with --skip 'TEXT SEARCH DICTIONARY public.d'",
        fix: Fix::Options(&["--skip", "TEXT SEARCH DICTIONARY public.d"]),
        ..MISSING
    },
];

/// An extension that is installed in a folder of the test.
const PACKAGE: RefusalCase = RefusalCase {
    title: "package",
    source: "CREATE EXTENSION shop; CREATE TABLE t AS SELECT ROW(1)::price AS a; CREATE VIEW v AS SELECT * FROM t",
    root: "EXTENSION shop",
    refused: &[
        "EXTENSION shop",
        "COMMENT EXTENSION shop",
        "TABLE public.t",
        "TABLE DATA public.t",
        "VIEW public.v",
    ],
    says: "install the package of the extension shop",
    fix: Fix::Install,
    ..MISSING
};

/// One per kind of fix; where only files are installed, there is nothing to compare.
const COMPARED: [&str; 5] = ["owner", "wrapper", "of_method", "sorting", "label"];

/// Files of the test that a server needs.
struct ServerFiles {
    folder: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
}

impl ServerFiles {
    fn install(&self) {
        for (name, content) in &self.files {
            std::fs::write(self.folder.join(name), content).unwrap();
        }
    }

    fn remove(&self) {
        for (name, _) in &self.files {
            std::fs::remove_file(self.folder.join(name)).unwrap();
        }
    }
}

/// A command of the program on `c`.
fn run(c: &Cluster, user: &str, args: &[&str]) -> (i32, Value) {
    let out = output(c, user, &[args, &["--output", "json"][..]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let json = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", text(&out.stdout), text(&out.stderr)));
    (out.status.code().unwrap(), json)
}

fn output(c: &Cluster, user: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(args)
        .env_clear()
        .env("DB_HOST", c.sandbox.host())
        .env("DB_USER", user);
    command.output().unwrap()
}

fn path(dump: &Path) -> &str {
    dump.to_str().unwrap()
}

/// The entries that were refused, sorted.
fn entries(rehearsal: &Value) -> Vec<String> {
    let all = rehearsal["refusals"].as_array().unwrap().iter();
    let entries = all.map(|r| r["entry"].as_str().unwrap().to_owned());
    let mut entries: Vec<String> = entries.collect();
    entries.sort_unstable();
    entries
}

impl RefusalCase {
    /// With `compares`, what was restored is compared with its source. A restore that leaves anything out ends otherwise.
    /// A superuser's restore has nothing of the case: without `compares`, it is not repeated for each.
    fn check(&self, c: &Cluster, files: &ServerFiles, compares: bool) {
        let needs_files = matches!(self.fix, Fix::Install);
        if needs_files {
            files.install();
        }
        let (dump, whole, wanted) = self.dumped(c, compares);
        if needs_files {
            files.remove();
        }
        self.remove_what_is_gone(c);
        let rehearse = [&["rehearse", path(&dump)][..], self.options].concat();
        let (code, rehearsal) = run(c, self.user, &rehearse);
        self.check_rehearsal(code, &rehearsal);
        if matches!(self.fix, Fix::Superuser) && !compares {
            return;
        }
        let (user, options) = self.fixed(c, files);
        let backup = if matches!(self.fix, Fix::Whole) {
            &whole
        } else {
            &dump
        };
        let target = format!("{}_new", self.title);
        let restore = ["restore", path(backup), "--target", &target];
        let (code, result) = run(c, user, &[&restore[..], &options[..]].concat());
        assert_eq!(code, 0, "{}: {result}", self.title);
        if let Some(wanted) = wanted {
            let restored = c.content(&target, owners_of(&options));
            assert_same(&restored, &wanted, self.title);
        }
    }

    /// The backup, that of the whole database, and what is to be restored in the end.
    fn dumped(&self, c: &Cluster, compares: bool) -> (PathBuf, PathBuf, Option<String>) {
        c.create(self.title, self.source);
        let whole = c.dump_to_file(self.title, &[]);
        let dump = if self.dump.is_empty() {
            whole.clone()
        } else {
            c.dump_to_file(self.title, self.dump)
        };
        if !self.left_out.is_empty() {
            c.psql(self.title, self.left_out);
        }
        let owners = owners_of(&self.final_options());
        let wanted = compares.then(|| c.content(self.title, owners));
        (dump, whole, wanted)
    }

    fn remove_what_is_gone(&self, c: &Cluster) {
        if self.gone.starts_with("DROP ROLE") {
            c.psql("postgres", &format!("DROP DATABASE {}", self.title));
        }
        if matches!(self.fix, Fix::InTemplate(_)) {
            c.psql("template0", self.gone);
        } else if !self.gone.is_empty() {
            c.psql("postgres", self.gone);
        }
    }

    fn check_rehearsal(&self, code: i32, rehearsal: &Value) {
        let what = format!("{}: {rehearsal}", self.title);
        assert_eq!(code, 1, "{what}");
        let mut wanted: Vec<&str> = self.refused.to_vec();
        wanted.sort_unstable();
        assert_eq!(entries(rehearsal), wanted, "{what}");
        assert_eq!(rehearsal["refusals_total"], wanted.len(), "{what}");
        let refusals = rehearsal["refusals"].as_array().unwrap();
        assert_eq!(refusals[0]["caused_by"], Value::Null, "{what}");
        for refusal in refusals {
            let text = |key: &str| refusal[key].as_str().unwrap();
            assert!(text("root").starts_with(self.root), "{what}");
            assert!(text("fix").contains(self.says), "{what}");
        }
    }

    fn final_options(&self) -> Vec<&'static str> {
        match self.fix {
            Fix::Superuser => vec![],
            Fix::Options(options) => [self.options, options].concat(),
            _ => self.options.to_vec(),
        }
    }

    /// Does what the rehearsal says. Returns who restores then, and with which options.
    fn fixed(&self, c: &Cluster, files: &ServerFiles) -> (&'static str, Vec<&'static str>) {
        match self.fix {
            Fix::Sql(sql) => drop(c.psql("postgres", sql)),
            Fix::InTemplate(sql) => drop(c.psql("template0", sql)),
            Fix::Install => files.install(),
            Fix::Superuser | Fix::Options(_) | Fix::Whole => {}
        }
        let user = match self.fix {
            Fix::Superuser => SUPERUSER,
            _ => self.user,
        };
        (user, self.final_options())
    }
}

/// Options of `pg_dump` for a comparison after a restore with these options.
fn owners_of(options: &[&str]) -> &'static [&'static str] {
    if options.contains(&"none") {
        &["--no-owner"]
    } else {
        &[]
    }
}

/// A server, and a folder in which it looks for libraries.
fn server() -> (Cluster, ServerFiles) {
    let c = Cluster::start();
    c.tablespace("fast");
    let folder = c.open_folder("libraries");
    let setting = format!(
        "ALTER ROLE postgres SET dynamic_library_path = '$libdir:{}'",
        folder.display()
    );
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB");
    c.psql("postgres", &setting);
    c.psql(
        "postgres",
        "ALTER DATABASE template0 ALLOW_CONNECTIONS true",
    );
    let libraries = c.sandbox.bindir().with_file_name("lib");
    let library = std::fs::read(libraries.join("fuzzystrmatch.so")).unwrap();
    let files = vec![("mine.so", library)];
    (c, ServerFiles { folder, files })
}

#[test]
fn each_cause_is_named_first_and_its_fix_helps() {
    let (c, files) = server();
    let cases = [ROLES, RIGHTS, PARTS, SERVERS].into_iter().flatten();
    for case in cases {
        // `make test` compares what some of them give with their sources, `make soak` each.
        let compares = COMPARED.contains(&case.title) || is_full_campaign();
        case.check(&c, &files, compares);
    }
    let left = c.databases();
    assert!(
        !left.iter().any(|d| d.starts_with("pgrestored_")),
        "{left:?}"
    );
    a_tablespace_is_replaced(&c);
    a_rehearsal_needs_createdb(&c);
}

/// Where rows are is no reason to refuse them.
fn a_tablespace_is_replaced(c: &Cluster) {
    c.tablespace("lost");
    c.create("placed", "CREATE TABLE t TABLESPACE lost AS SELECT 1 AS a");
    let dump = c.dump_to_file("placed", &[]);
    c.psql("postgres", "DROP DATABASE placed");
    c.psql("postgres", "DROP TABLESPACE lost");
    let (code, rehearsal) = run(c, SUPERUSER, &["rehearse", path(&dump)]);
    assert_eq!(
        (code, &rehearsal["restorable"]),
        (0, &true.into()),
        "{rehearsal}"
    );
    let (code, result) = run(
        c,
        SUPERUSER,
        &["restore", path(&dump), "--target", "placed"],
    );
    assert_eq!(code, 0, "{result}");
    assert_eq!(c.psql("placed", "SELECT a FROM t"), "1");
}

fn a_rehearsal_needs_createdb(c: &Cluster) {
    c.psql("postgres", "CREATE ROLE nobody_yet LOGIN");
    let dump = c.dump_to_file("placed", &[]);
    let rehearse = [&["rehearse", path(&dump)][..], NO_OWNERS].concat();
    let (code, failure) = run(c, "nobody_yet", &rehearse);
    assert_eq!(code, 77, "{failure}");
    let message = failure["error"]["message"].as_str().unwrap();
    assert!(message.contains("CREATEDB"), "{message}");
    c.psql("postgres", "ALTER ROLE nobody_yet CREATEDB");
    let (code, rehearsal) = run(c, "nobody_yet", &rehearse);
    assert_eq!(code, 0, "{rehearsal}");
}

/// A later version: its extensions may be installed in a folder of their own, and it knows what earlier ones do not.
#[test]
fn what_a_later_version_has_goes_into_it() {
    let Some(bindir) = bindir_of(18) else { return };
    let new = Cluster::of(&bindir, "");
    let folder = new.open_folder("extension");
    let path_of_extensions = format!(
        "ALTER ROLE postgres SET extension_control_path = '$system:{}'",
        folder.parent().unwrap().display()
    );
    new.psql("postgres", &path_of_extensions);
    let control = "comment = 'prices'\ndefault_version = '1'\nrelocatable = true\n";
    let files = vec![
        ("shop.control", control.into()),
        ("shop--1.sql", "CREATE TYPE price AS (cents int);".into()),
    ];
    PACKAGE.check(&new, &ServerFiles { folder, files }, true);
    new.create(
        "src",
        "CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL); INSERT INTO t VALUES (1)",
    );
    let dump = new.dump_to_file("src", &[]);
    let old = Cluster::start();
    let (code, rehearsal) = run(&old, SUPERUSER, &["rehearse", path(&dump)]);
    assert_eq!(code, 1, "{rehearsal}");
    assert_eq!(
        entries(&rehearsal),
        ["TABLE DATA public.t", "TABLE public.t"]
    );
    let first = &rehearsal["refusals"][0];
    assert_eq!(first["root"], "TABLE public.t", "{first}");
    let fix = first["fix"].as_str().unwrap();
    let version = "restore into the version of PostgreSQL that the backup is from";
    assert!(fix.contains(version), "{fix}");
    let (code, result) = run(
        &new,
        SUPERUSER,
        &["restore", path(&dump), "--target", "app"],
    );
    assert_eq!(code, 0, "{result}");
    assert_eq!(new.psql("app", "SELECT b FROM t"), "2");
}

/// A database of 1,000 rows with one event trigger, restored by a role that may create databases: `pg_restore` gives the
/// rows and one ignored error.
#[test]
fn nobody_needs_another_program_for_one_event_trigger() {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB");
    c.create(
        "src",
        "CREATE TABLE t AS SELECT i AS a, md5(i::text) AS b FROM generate_series(1, 1000) i;
         CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
         CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION f()",
    );
    let dump = c.dump_to_file("src", &[]);
    c.psql("postgres", "CREATE DATABASE theirs OWNER creator");
    let mut pg_restore = c.sandbox.command("pg_restore");
    pg_restore
        .args(["--no-owner", "-U", CREATOR, "-d", "theirs"])
        .arg(&dump);
    let said = c.sandbox.run(&mut pg_restore).unwrap_err().to_string();
    assert!(said.contains("errors ignored on restore: 1"), "{said}");
    let restore = [&["restore", path(&dump), "--target", "ours"][..], NO_OWNERS].concat();
    let (code, result) = run(&c, CREATOR, &restore);
    assert_eq!(code, 77, "{result}");
    assert_eq!(result["error"]["refusals_total"], 1, "{result}");
    assert_eq!(result["error"]["refusals"][0]["entry"], "EVENT TRIGGER e");
    assert!(!c.databases().contains(&"ours".to_owned()));
    let skipping = [&restore[..], &["--on-error", "skip"]].concat();
    let (code, result) = run(&c, CREATOR, &skipping);
    assert_eq!(code, 3, "{result}");
    assert_eq!(result["complete"], false, "{result}");
    assert_eq!(result["rows"], 1000, "{result}");
    assert_eq!(result["skipped_total"], 1, "{result}");
    let skipped = &result["skipped"][0];
    assert_eq!(skipped["entry"], "EVENT TRIGGER e", "{result}");
    assert_eq!(skipped["sqlstate"], "42501", "{result}");
    assert_same(&c.content("ours", &[]), &c.content("theirs", &[]), "ours");
    // People see the cause, the fix, and no more than that.
    let out = output(
        &c,
        CREATOR,
        &[&["rehearse", path(&dump)][..], NO_OWNERS].concat(),
    );
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("1 would not be restored"), "{text}");
    assert!(text.contains("\nEVENT TRIGGER e\n"), "{text}");
    assert!(text.contains("\n  fix: restore as a superuser"), "{text}");
}

//! The central test: each dump is restored by pgrestored and by `pg_restore` into two databases of one server, and
//! `pg_dump` of both must be identical.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use pgrestored::job::OnExisting;

use crate::formats::values as values_sql;
use crate::support::{Cluster, assert_same, bindir_of, is_full_campaign, job, sample};

/// How rows are sent: as text, and as tuples.
const WAYS: [&str; 2] = ["text", "binary"];

/// The content of a database that is restored from `archive` with rows sent in this way.
async fn restored(c: &Cluster, archive: &Path, way: &str, what: &str) -> String {
    let job = job(archive, "ours", OnExisting::Fail);
    // What is compared has no statistics.
    let flags = [("restore-copy-format", way), ("restore-no-analyze", "true")];
    let given = if is_full_campaign() { 1 } else { 2 };
    let done = c.restore_with(&job, &flags[..given]).await;
    assert!(
        done.failure.is_none(),
        "{what}, {way}: {:?}",
        done.result.error
    );
    let content = c.content("ours", &[]);
    drop_database(c, "ours");
    content
}

/// The content of the database that `pg_restore` makes of `archive`.
fn theirs(c: &Cluster, archive: &Path) -> String {
    c.pg_restore(archive, "theirs", &[]);
    let content = c.content("theirs", &[]);
    drop_database(c, "theirs");
    content
}

/// What `pg_restore` makes of `archive`, a dump of `source`: the same as the source, with which `make test` compares alone.
fn expected(c: &Cluster, archive: &Path, source: &str) -> String {
    if is_full_campaign() {
        theirs(c, archive)
    } else {
        c.content(source, &[])
    }
}

/// One way of each two restores in turn, in a full campaign both.
fn ways(turn: usize) -> impl Iterator<Item = &'static str> {
    let all = WAYS.into_iter().enumerate();
    let wanted = all.filter(move |(way, _)| *way == turn % WAYS.len() || is_full_campaign());
    wanted.map(|(_, name)| name)
}

/// Restores `archive` in the ways of this turn and with `pg_restore`, and compares.
async fn equal(c: &Cluster, archive: &Path, turn: usize, what: &str) {
    let theirs = theirs(c, archive);
    equal_to(c, archive, &theirs, ways(turn), what).await;
}

/// Restores `archive` in these ways, and compares with what is expected.
async fn equal_to(
    c: &Cluster,
    archive: &Path,
    expected: &str,
    ways: impl IntoIterator<Item = &'static str>,
    what: &str,
) {
    for way in ways {
        let ours = restored(c, archive, way, what).await;
        assert_same(&ours, expected, &format!("{what}, {way}"));
    }
}

fn drop_database(c: &Cluster, database: &str) {
    let subscriptions = c.psql("postgres", &format!("SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid WHERE datname = '{database}'"));
    for s in subscriptions.lines() {
        c.psql(
            database,
            &format!(
                "ALTER SUBSCRIPTION {s} DISABLE; ALTER SUBSCRIPTION {s} SET (slot_name = NONE)"
            ),
        );
        c.psql(database, &format!("DROP SUBSCRIPTION {s}"));
    }
    c.psql("postgres", &format!("DROP DATABASE \"{database}\""));
}

const NAMES: &str = "Odd \"Näme\" $1; --";

/// The databases that are dumped in every form.
const DATABASES: [&str; 3] = ["objects", NAMES, "vals"];

/// How a dump is written, as arguments of `pg_dump`.
const FORMS: [(&str, &[&str]); 6] = [
    ("default", &[]),
    ("level 9", &["-Z9"]),
    ("none", &["-Z0"]),
    ("inserts", &["--inserts", "-Z0"]),
    (
        "column inserts, many rows each",
        &["--column-inserts", "--rows-per-insert=50", "-Z9"],
    ),
    ("schema only", &["--schema-only"]),
];

/// The cells of `make test`: a database, a form, a file (0) or what came through a pipe (1), and a way of the rows, as indexes
/// of the lists above. Objects have few rows, and names few values. How well rows are compressed is not the subject of a form
/// there: rows of INSERTs are at level 9 and uncompressed, too.
const TESTED: [[usize; 4]; 7] = [
    [0, 0, 0, 0],
    [0, 5, 1, 1],
    [1, 0, 1, 1],
    [1, 4, 0, 0],
    [2, 0, 0, 1],
    [2, 2, 1, 0],
    [2, 3, 0, 0],
];

/// How the dump of a database in a form is restored: from a file (0) or from what came through a pipe (1), and a way of the
/// rows. `make soak` restores all of them, `make test` those of [`TESTED`].
fn cells_of(database: usize, form: usize) -> Vec<(usize, &'static str)> {
    if is_full_campaign() {
        let all = (0..2).flat_map(|archive| WAYS.map(|way| (archive, way)));
        return all.collect();
    }
    let tested = TESTED.into_iter();
    let own = tested.filter(|[d, f, ..]| (*d, *f) == (database, form));
    own.map(|[.., archive, way]| (archive, WAYS[way])).collect()
}

#[test]
fn every_form_occurs_and_every_two_of_database_archive_and_way_meet() {
    let met = |one: usize, other: usize| {
        let pairs = TESTED.iter().map(|cell| (cell[one], cell[other]));
        pairs.collect::<HashSet<_>>().len()
    };
    // All but level 9.
    assert_eq!(met(1, 1), FORMS.len() - 1);
    assert_eq!((met(0, 2), met(0, 3), met(2, 3)), (6, 6, 4));
}

/// Every way in which a dump of one of the databases can be written, in the cells of that database.
async fn every_form(c: &Cluster, database: &str) {
    let d = DATABASES.iter().position(|known| *known == database);
    let d = d.unwrap();
    let source = c.content(database, &[]);
    for (f, (form, args)) in FORMS.into_iter().enumerate() {
        let cells = cells_of(d, f);
        let dumped = |archive: usize| -> PathBuf {
            match archive {
                0 => c.dump_to_file(database, args),
                _ => c.dump_through_pipe(database, args),
            }
        };
        let mut archives: Vec<Option<PathBuf>> = vec![None, None];
        for (archive, _) in &cells {
            archives[*archive].get_or_insert_with(|| dumped(*archive));
        }
        let Some(any) = archives.iter().flatten().next() else {
            continue;
        };
        let what = format!("{database}, {form}");
        // Where pg_restore's result is the source, `make test` compares with the source alone.
        let wanted = if form == "schema only" || is_full_campaign() {
            theirs(c, any)
        } else {
            source.clone()
        };
        if form != "schema only" {
            assert_same(
                &wanted,
                &source,
                &format!("{what}: pg_restore's and source"),
            );
        }
        for (archive, way) in cells {
            let path = archives[archive].as_ref().unwrap();
            let ours = restored(c, path, way, &what).await;
            assert_same(&ours, &wanted, &format!("{what}, archive {archive}, {way}"));
        }
    }
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// The demo's database, with an eighth of the rows of its large tables.
fn small_demo() -> String {
    let mut sql = include_str!("../../src/cli/demo.sql").to_owned();
    // Customers, addresses, orders and their lines, reviews, invoices, payments, refunds, bookings, events.
    for (rows, fewer) in [
        ("20000", "2500"),
        ("25000", "3125"),
        ("(1, 40000)", "(1, 5000)"),
        ("(0, 119999)", "(0, 14999)"),
        ("(1, 15000)", "(1, 1875)"),
        ("(1, 30000)", "(1, 3750)"),
        ("(1, 28000)", "(1, 3500)"),
        ("(1, 900)", "(1, 110)"),
        ("(0, 79999)", "(0, 9999)"),
    ] {
        assert!(sql.contains(rows), "the demo has no {rows} any more");
        sql = sql.replace(rows, fewer);
    }
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_database() {
    let c = Cluster::start();
    c.create("company", &small_demo());
    let piped = c.dump_through_pipe("company", &["-Z0"]);
    let wanted = expected(&c, &piped, "company");
    equal_to(&c, &piped, &wanted, ways(1), "demo, piped").await;
    if is_full_campaign() {
        let file = c.dump_to_file("company", &[]);
        equal_to(&c, &file, &wanted, ways(0), "demo, file").await;
    }
}

/// Rows that do not fit into memory are sorted in the smallest memory that merges in one pass, if no core is idle.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_sort_takes_little_memory() {
    let c = Cluster::start_with("-c maintenance_work_mem=2MB -c trace_sort=on");
    let cores = std::thread::available_parallelism().unwrap().get();
    let rows = "CREATE TABLE t (a int, b text); INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 100000) g;";
    let indexes = "CREATE INDEX ON t (b);".repeat(cores + 1);
    c.create(
        "large",
        &format!("{rows} {indexes} ALTER TABLE t ADD PRIMARY KEY (a);"),
    );
    let (mut before, jobs) = (0, cores.to_string());
    for form in ["-Fc", "-Fp"] {
        let archive = c.dump_to_file("large", &[form]);
        let job = job(&archive, &format!("restored{form}"), OnExisting::Fail);
        let done = c.restore_with(&job, &[("restore-jobs", &jobs)]).await;
        assert!(done.failure.is_none(), "{form}: {:?}", done.result.error);
        let sorts = c.sandbox.log().matches("workMem = 1596,").count();
        assert!(
            sorts - before > cores.min(2),
            "{form}: {sorts} after {before}"
        );
        before = sorts;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pgbench() {
    let c = Cluster::start();
    c.create("bench", "SELECT 1");
    c.sandbox
        .run(
            c.sandbox
                .command("pgbench")
                .args(["-i", "-q", "-s", "1", "--foreign-keys", "bench"]),
        )
        .unwrap();
    if !is_full_campaign() {
        let fewer = "DELETE FROM pgbench_accounts WHERE aid > 20000";
        c.psql("bench", fewer);
    }
    let file = c.dump_to_file("bench", &[]);
    let source = c.content("bench", &[]);
    equal_to(&c, &file, &source, ways(0), "pgbench, file").await;
    if is_full_campaign() {
        let piped = c.dump_through_pipe("bench", &["-Z0"]);
        equal_to(&c, &piped, &source, ways(1), "pgbench, piped").await;
        assert_same(&theirs(&c, &file), &source, "pgbench, pg_restore's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_object() {
    let c = Cluster::start();
    c.tablespace("space_a");
    c.create("objects", include_str!("objects.sql"));
    the_corpus_has_every_kind(&c);
    every_form(&c, "objects").await;
}

/// The corpus must contain every kind that the table of contents can name.
fn the_corpus_has_every_kind(c: &Cluster) {
    let archive = c.dump_to_file("objects", &[]);
    let file = std::fs::File::open(&archive).unwrap();
    let origin = pgdump_archive::ArchiveSource::once(file);
    let archive =
        pgdump_archive::Archive::open(origin, Default::default(), &Default::default()).unwrap();
    let kinds: std::collections::BTreeSet<&str> =
        archive.entries().iter().map(|e| e.kind.as_str()).collect();
    let wanted = "ACCESS METHOD,ACL,AGGREGATE,BLOB,BLOBS,CAST,CHECK CONSTRAINT,COLLATION,COMMENT,CONSTRAINT,CONVERSION,\
        DATABASE,DEFAULT,DEFAULT ACL,DOMAIN,ENCODING,EVENT TRIGGER,EXTENSION,FK CONSTRAINT,FOREIGN DATA WRAPPER,\
        FOREIGN TABLE,FUNCTION,INDEX,INDEX ATTACH,MATERIALIZED VIEW,MATERIALIZED VIEW DATA,OPERATOR,OPERATOR CLASS,\
        OPERATOR FAMILY,POLICY,PROCEDURAL LANGUAGE,PROCEDURE,PUBLICATION,PUBLICATION TABLE,\
        PUBLICATION TABLES IN SCHEMA,ROW SECURITY,RULE,SCHEMA,SEARCHPATH,SEQUENCE,SEQUENCE OWNED BY,SEQUENCE SET,\
        SERVER,SHELL TYPE,STATISTICS,STDSTRINGS,SUBSCRIPTION,TABLE,TABLE ATTACH,TABLE DATA,\
        TEXT SEARCH CONFIGURATION,TEXT SEARCH DICTIONARY,TEXT SEARCH PARSER,TEXT SEARCH TEMPLATE,TRANSFORM,TRIGGER,\
        TYPE,USER MAPPING,VIEW";
    for kind in wanted.split(',') {
        assert!(kinds.contains(kind), "the corpus has no {kind}: {kinds:?}");
    }
}

/// The special handling of large tables happens, and leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn large_tables() {
    let c = Cluster::start();
    c.create("large", include_str!("large.sql"));
    let file = c.dump_to_file("large", &[]);
    let wanted = expected(&c, &file, "large");
    // As the server and its rows suggest, then in either way.
    c.restore(&file, "kept").await;
    assert_same(&c.content("kept", &[]), &wanted, "large, file");
    if is_full_campaign() {
        equal_to(&c, &file, &wanted, WAYS, "large, file").await;
    }
    let root = "--load-via-partition-root";
    if is_full_campaign() {
        let piped = c.dump_through_pipe("large", &["-Z0"]);
        equal_to(&c, &piped, &wanted, WAYS, "large, piped, none").await;
        let by_root = c.dump_to_file("large", &[root]);
        equal_to(&c, &by_root, &wanted, WAYS, "large, by root").await;
    }
    let both = c.dump_through_pipe("large", &["-Z0", root]);
    let what = "large, piped, none, through the root of the partitions";
    equal_to(&c, &both, &wanted, ways(1), what).await;

    let frozen = "CREATE EXTENSION pageinspect; \
        SELECT bool_and(t_infomask & 768 = 768) FROM heap_page_items(get_raw_page('wide', 0)) WHERE lp_len > 0";
    assert_eq!(
        c.psql("kept", frozen).lines().last(),
        Some("t"),
        "its rows are frozen"
    );
    let keys = "SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint JOIN pg_index ON indexrelid = conindid \
        WHERE conrelid = 'keyed'::regclass AND contype IN ('p', 'u') AND indisvalid AND indimmediate";
    assert_eq!(
        c.psql("kept", keys),
        r#"K one,keyed_c_b_key,keyed_pkey,two of"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn names() {
    let c = Cluster::start();
    c.create(NAMES, include_str!("names.sql"));
    every_form(&c, NAMES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values() {
    let c = Cluster::start();
    c.create("vals", &values_sql());
    every_form(&c, "vals").await;
}

async fn another_encoding(c: &Cluster) {
    c.psql(
        "postgres",
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
    );
    c.psql(
        "latin",
        "SET client_encoding = 'UTF8'; CREATE TABLE \"täble\" (t text); INSERT INTO \"täble\" VALUES ('é'), ('ß\\');
         CREATE VIEW v AS SELECT 'ü'::text AS u; COMMENT ON VIEW v IS 'ñ';",
    );
    let source = c.content("latin", &["-E", "UTF8"]);
    let forms: [&[&str]; 3] = [&["-E", "UTF8"], &["--inserts"], &[]];
    for args in &forms[..if is_full_campaign() { 3 } else { 2 }] {
        let archive = c.dump_to_file("latin", args);
        c.restore(&archive, "ours").await;
        assert_same(
            &c.content("ours", &["-E", "UTF8"]),
            &source,
            &format!("{args:?}"),
        );
        assert_eq!(
            c.psql(
                "postgres",
                "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname = 'ours'"
            ),
            "LATIN1|C"
        );
        drop_database(c, "ours");
    }
}

/// Tables that several sessions create concurrently, each with an array type named like another table's.
async fn tables_with_colliding_array_types(c: &Cluster) {
    let sql = "DO $$ BEGIN FOR i IN 1..60 LOOP \
        EXECUTE format('CREATE TABLE %I (a int, b %I[])', 't' || i, 'int4'); EXECUTE format('CREATE TABLE %I (a int)', '_t' || i); \
        EXECUTE format('CREATE TABLE %I (a int DEFAULT 7 PRIMARY KEY)', '__t' || i); END LOOP; END $$";
    c.create("collide", sql);
    let file = c.dump_to_file("collide", &[]);
    let wanted = expected(c, &file, "collide");
    let turns = if is_full_campaign() { 3 } else { 2 };
    for turn in 0..turns {
        for way in ways(turn) {
            let ours = restored(c, &file, way, "colliding types").await;
            assert_same(&ours, &wanted, way);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_tables() {
    let c = Cluster::start();
    let tables = if is_full_campaign() { 2000 } else { 160 };
    c.create(
        "many",
        &format!(
            "DO $$ BEGIN FOR i IN 1..{tables} LOOP
               EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, v int, t text)', i);
               EXECUTE format('INSERT INTO t%s (v, t) SELECT g, md5(g::text) FROM generate_series(1, %s) g', i, i % 40);
               EXECUTE format('CREATE INDEX ON t%s (v)', i);
               IF i % 100 = 0 THEN COMMIT; END IF;
             END LOOP; END $$"
        ),
    );
    let piped = c.dump_through_pipe("many", &[]);
    if is_full_campaign() {
        equal(&c, &piped, 1, "small tables").await;
    } else {
        let source = c.content("many", &[]);
        equal_to(&c, &piped, &source, ways(1), "small tables").await;
    }
}

/// Small databases on one server.
#[tokio::test(flavor = "multi_thread")]
async fn small_databases() {
    let c = Cluster::start();
    another_encoding(&c).await;
    tables_with_colliding_array_types(&c).await;
    checks_that_read_other_tables(&c).await;
    every_archive_version(&c).await;
    the_command_line(&c).await;
}

/// Rows of an existing table do not wait for all other tables.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_rows_are_loaded_while_tables_are_created() {
    let c = Cluster::start_with("-c log_statement=all");
    let tables = "DO $$ BEGIN FOR i IN 1000..1599 LOOP \
        EXECUTE format('CREATE TABLE t%s AS SELECT 1 AS a', i); END LOOP; END $$";
    c.create("many", tables);
    let archive = c.dump_to_file("many", &[]);
    let before = c.sandbox.log().len();
    c.restore(&archive, "restored").await;
    let log = &c.sandbox.log()[before..];
    let (first, last) = (
        log.find("COPY public.t").unwrap(),
        log.rfind("CREATE TABLE public.t").unwrap(),
    );
    assert!(
        first < last,
        "the first COPY comes {} bytes after the last table",
        first - last
    );
}

/// Checks on a table's rows may read any other table, which must exist.
async fn checks_that_read_other_tables(c: &Cluster) {
    let last = if is_full_campaign() { 119 } else { 109 };
    let sql = "CREATE FUNCTION below(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS \
        $$ BEGIN RETURN (SELECT count(*) FROM public.z WHERE a < 0); END $$; \
        CREATE DOMAIN checked AS int CHECK (below(VALUE) = 0); \
        DO $$ BEGIN FOR i IN 100..119 LOOP \
        EXECUTE format('CREATE TABLE a%s (a int CHECK (below(a) = 0))', i); \
        EXECUTE format('CREATE TABLE b%s (a checked)', i); \
        EXECUTE format('CREATE TABLE c%s (a int, b int GENERATED ALWAYS AS (below(a)) STORED)', i); \
        EXECUTE format('CREATE TABLE d%s (a int) PARTITION BY LIST (below(a))', i); \
        EXECUTE format('CREATE TABLE d%s_0 PARTITION OF d%1$s FOR VALUES IN (0)', i); \
        EXECUTE format('CREATE TABLE e%s (c checked[]) INHERITS (a%1$s)', i); \
        EXECUTE format('CREATE TABLE y%s (a int)', i); END LOOP; END $$; CREATE TABLE z (a int);";
    let rows = "DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['a', 'b', 'c', 'd', 'e'] LOOP \
        FOR i IN 100..119 LOOP EXECUTE format('INSERT INTO %s%s (a) VALUES (1)', t, i); END LOOP; END LOOP; END $$";
    let both = format!("{sql} {rows}").replace("100..119", &format!("100..{last}"));
    c.create("checks", &both);
    let forms = [&[][..], &["--load-via-partition-root"], &["--inserts"]];
    let mut wanted: Option<String> = None;
    for (turn, args) in forms.into_iter().enumerate() {
        let archive = c.dump_to_file("checks", args);
        // pg_restore makes the same database of each.
        if wanted.is_none() || is_full_campaign() {
            wanted = Some(expected(c, &archive, "checks"));
        }
        let wanted = wanted.as_deref().unwrap();
        let what = format!("checks {args:?}");
        equal_to(c, &archive, wanted, ways(turn), &what).await;
    }
}

/// Dumps of other versions, restored into their own server.
mod by_version {
    use std::collections::HashSet;
    use std::path::PathBuf;

    use super::{Cluster, WAYS, assert_same, bindir_of, equal, is_full_campaign, restored};

    const FORMS: usize = 4;

    /// The form of each database that `make test` restores on 16 and on 18, and the way of its rows, as indexes.
    const TESTED: [[(usize, usize); 3]; 2] = [[(1, 1), (2, 0), (0, 0)], [(3, 0), (0, 1), (1, 1)]];

    fn tested_on(version: u32) -> [(usize, usize); 3] {
        TESTED[usize::from(version >= 18)]
    }

    /// [`super::cells_of`] has the forms of the databases on 15.
    #[test]
    fn every_form_occurs_and_servers_and_databases_meet_both_ways() {
        let mut met: [HashSet<(usize, usize)>; 2] = Default::default();
        let mut forms = HashSet::new();
        for version in [16, 18] {
            for (database, (form, way)) in tested_on(version).into_iter().enumerate() {
                met[0].insert((version as usize, way));
                met[1].insert((database, way));
                forms.insert(form);
            }
        }
        assert_eq!(met.map(|m| m.len()), [4, 6]);
        assert_eq!(forms.len(), FORMS);
    }

    /// Version × database × form × way of the rows: `make soak` restores all of them and compares with `pg_restore`; `make
    /// test` an eighth, and compares with the source.
    async fn every_dump(version: u32) {
        let Some(bindir) = bindir_of(version) else {
            return;
        };
        let c = Cluster::of(&bindir, "");
        let objects = "SELECT lo_from_bytea(7000 + i, decode(md5(i::text), 'hex')) FROM generate_series(1, 50) i;
            GRANT SELECT ON LARGE OBJECT 7001 TO role_a; COMMENT ON LARGE OBJECT 7002 IS 'x'; ALTER LARGE OBJECT 7003 OWNER TO role_b;
            DO $$ BEGIN FOR i IN 7010..7020 LOOP EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO \"Röle \"\"C\"\"\"', i); END LOOP; END $$; ANALYZE";
        let samples = format!("{};\n{objects}", include_str!("samples.sql"));
        let databases = [
            ("samples", samples),
            ("vals", super::values_sql()),
            ("names", include_str!("names.sql").to_owned()),
        ];
        let statistics: &[&str] = if version >= 18 {
            &["--statistics"]
        } else {
            &[]
        };
        let forms: [&[&str]; FORMS] = [&[], &["-Z0"], &["--inserts"], statistics];
        for (d, (database, sql)) in databases.into_iter().enumerate() {
            c.create(database, &sql);
            if is_full_campaign() {
                for (form, args) in forms.into_iter().enumerate() {
                    let what = format!("{version}, {database}, {args:?}");
                    equal(&c, &dump(&c, database, form, args), form, &what).await;
                }
                continue;
            }
            let (form, way) = tested_on(version)[d];
            let (args, way) = (forms[form], WAYS[way]);
            let what = format!("{version}, {database}, {args:?}, {way}");
            let ours = restored(&c, &dump(&c, database, form, args), way, &what).await;
            assert_same(&ours, &c.content(database, &[]), &what);
        }
    }

    /// The last form is through a pipe.
    fn dump(c: &Cluster, database: &str, form: usize, args: &[&str]) -> PathBuf {
        if form == 3 {
            c.dump_through_pipe(database, args)
        } else {
            c.dump_to_file(database, args)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_16() {
        every_dump(16).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn on_18() {
        every_dump(18).await;
    }
}

/// lz4 and zstd, with offsets and through a pipe: all give the same database.
#[tokio::test(flavor = "multi_thread")]
async fn every_codec() {
    let Some(bindir) = bindir_of(18) else { return };
    let c = Cluster::of(&bindir, "");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let none = c.scratch("shop18.none.dump");
    let mut packed = flate2::read::GzDecoder::new(
        std::fs::File::open(fixtures.join("shop18.none.dump.gz")).unwrap(),
    );
    std::io::copy(&mut packed, &mut std::fs::File::create(&none).unwrap()).unwrap();
    c.restore(&none, "none").await;
    // This pg_restore can read these; `make test` asks it for one.
    let args = ["--no-owner", "--no-privileges"];
    let ours = c.content("none", &args);
    let readable = [
        (fixtures.join("shop18.gzip.dump"), "theirs_gzip"),
        (none.clone(), "theirs_none"),
    ];
    for (archive, theirs) in sample(readable, 2) {
        let copy = c.scratch(theirs);
        std::fs::copy(archive, &copy).unwrap();
        c.pg_restore(&copy, theirs, &args);
        assert_same(&ours, &c.content(theirs, &args), theirs);
    }
    let uncompressed = c.content("none", &[]);
    // `make test` verifies each of them, on one of the servers.
    let codecs = ["lz4.piped", "zstd", "gzip", "lz4", "zstd.piped"];
    let count = if is_full_campaign() { codecs.len() } else { 2 };
    for codec in &codecs[..count] {
        c.restore(&fixtures.join(format!("shop18.{codec}.dump")), "ours")
            .await;
        assert_same(&c.content("ours", &[]), &uncompressed, codec);
        drop_database(&c, "ours");
    }
}

/// Old archives name tables without their schema: each session must use the right search path.
async fn every_archive_version(c: &Cluster) {
    for minor in 12..=16 {
        let (archive, target) = (c.scratch(&format!("v{minor}.dump")), format!("v{minor}"));
        std::fs::write(&archive, crate::synthetic::synthetic(minor, 4)).unwrap();
        c.restore(&archive, &target).await;
        assert_eq!(
            c.psql(
                &target,
                "SELECT string_agg(a::text, ',' ORDER BY a) FROM public.t"
            ),
            "1,2"
        );
    }
}

/// The program itself: from a path and from standard input.
async fn the_command_line(c: &Cluster) {
    c.create("src", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 2000) i");
    let archive = c.dump_through_pipe("src", &[]);
    let source = c.content("src", &[]);
    for (backup, target) in [
        (archive.to_str().unwrap(), "from_path"),
        ("-", "from_stdin"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        command.args([
            "restore",
            backup,
            "--target",
            target,
            "--output",
            "json",
            "--db-host",
            c.sandbox.host(),
        ]);
        command
            .env_clear()
            .stdin(std::fs::File::open(&archive).unwrap());
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let body: pgrestored::event::RestoreResult =
            serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (body.rows, body.tables, body.target_db.as_deref()),
            (2000, 1, Some(target))
        );
        let crc = pgrestored::backup::encode_crc32c(pgdump_archive::Crc32c::of(
            &std::fs::read(&archive).unwrap(),
        ));
        assert_eq!(body.backup.crc32c, Some(crc));
        assert_same(&c.content(target, &[]), &source, backup);
    }
}

/// Rows of one table arrive in several transactions, so more than one connection had a share.
#[tokio::test(flavor = "multi_thread")]
async fn one_table_is_loaded_by_several_connections() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 150000) i");
    c.restore(&c.dump_through_pipe("src", &["-Z1"]), "ours")
        .await;
    let rows = "SELECT count(*), sum(hashtextextended(t::text, 0)) FROM t";
    assert_eq!(c.psql("ours", rows), c.psql("src", rows));
    let shares: u32 = c
        .psql("ours", "SELECT count(DISTINCT xmin::text) FROM t")
        .parse()
        .unwrap();
    // 38 MB fit into one COPY, so every further transaction is another copier's.
    assert!(shares > 1, "{shares} transactions");
}

//! SQL text in practice: dumps with statements around them, text of other tools and text written by hand. The
//! expected result is that of `psql` for the same file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::event::Completeness::{Proven, Unknown};
use pgrestored::job::{BackupRef, OnExisting, RestoreJob, VerifyJob};
use pgrestored::policy::{Depth, Selection, Trigger};
use pgrestored::proof::{CheckStatus, Verdict};
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, assert_same, is_full_campaign, job};

/// Rows in an order that matters to keys and triggers: a child's name before its parent's, a trigger that counts.
const SHOP: &str = "CREATE TABLE z_parent (id int PRIMARY KEY, up int REFERENCES z_parent);
    CREATE TABLE a_child (id serial PRIMARY KEY, parent int NOT NULL REFERENCES z_parent, note text);
    CREATE TABLE log (n bigint);
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log SELECT count(*) FROM public.log; RETURN NEW; END';
    INSERT INTO z_parent SELECT i, nullif(i / 2, 0) FROM generate_series(1, 500) i;
    INSERT INTO a_child (parent, note) SELECT i, 'a;b--' FROM generate_series(1, 500) i;
    CREATE TRIGGER noted AFTER INSERT ON a_child FOR EACH ROW EXECUTE FUNCTION noted();
    COMMENT ON TABLE log IS '-- PostgreSQL database dump complete';";

const BY_HAND: &str = "/* by hand */ CREATE TABLE p(id int PRIMARY KEY);
CREATE TABLE c(p int REFERENCES p DEFERRABLE INITIALLY DEFERRED, who text);
BEGIN;
SET LOCAL my.who = 'me';
INSERT INTO c VALUES (1, current_setting('my.who'));
COPY c (p, who) FROM stdin;
2\tyou
\\.
INSERT INTO p VALUES (1);
INSERT INTO p SELECT 2;
COMMIT;
CREATE TEMP TABLE x AS SELECT 7 AS v;
INSERT INTO p SELECT v FROM x;
CREATE TYPE m AS ENUM ('a');
ALTER TYPE m ADD VALUE 'b';
CREATE TABLE e (m m DEFAULT 'b', n serial);
INSERT INTO e DEFAULT VALUES; INSERT INTO e (m) VALUES ('a');
INSERT INTO e (n) VALUES (currval('e_n_seq') + 10);
CREATE INDEX CONCURRENTLY i ON c (p);
VACUUM;
CREATE SCHEMA s;
SET search_path = s;
CREATE TABLE of_path (a text);
RESET ALL;
CREATE TABLE of_default_path (a text);
SET ROLE role_a;
SELECT count(*) FROM pg_class;
DISCARD ALL;
CREATE TEMP TABLE x AS SELECT 8 AS v;
INSERT INTO p SELECT v FROM x;
CREATE TABLE of_first_role (a text);
SET search_path = s;
CREATE TABLE t (a text);
\\echo done
INSERT INTO t VALUES ('no semicolon')";

fn pg_dump(c: &Cluster, args: &[&str]) -> String {
    String::from_utf8(
        c.sandbox
            .run(c.sandbox.command("pg_dump").args(args))
            .unwrap(),
    )
    .unwrap()
}

fn file(c: &Cluster, name: &str, text: &str) -> PathBuf {
    let path = c.scratch(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn texts_give_the_same_result_as_psql() {
    let c = Cluster::start();
    c.create("shop", SHOP);
    let (whole, schema, rows) = (
        pg_dump(&c, &["-d", "shop"]),
        pg_dump(&c, &["-s", "-d", "shop"]),
        pg_dump(&c, &["-a", "-d", "shop"]),
    );
    let stripped: Vec<&str> = whole.lines().filter(|l| !l.starts_with("--")).collect();
    let shop = c.content("shop", &[]);
    for (name, text, completeness) in [
        (
            "replica.sql",
            format!("SET session_replication_role = replica;\n{schema}{rows}RESET ALL;\n"),
            Proven,
        ),
        ("stripped.sql", stripped.join("\n"), Unknown),
        ("schema_and_data.sql", format!("{schema}{rows}"), Proven),
        (
            "transaction.sql",
            format!("BEGIN;\n{whole}COMMIT;\n"),
            Proven,
        ),
        (
            "set.sql",
            format!("\\set ON_ERROR_STOP on\n{whole}"),
            Proven,
        ),
        ("analyze.sql", format!("{whole}ANALYZE;\nVACUUM;\n"), Proven),
        (
            "more.sql",
            format!("{whole}DELETE FROM public.log;\n"),
            Unknown,
        ),
        ("hand.sql", BY_HAND.to_owned(), Unknown),
    ] {
        let (theirs, ours) = (format!("theirs_{name}"), format!("ours_{name}"));
        // Of the others, psql makes the database that the dump is from.
        let is_another = ["schema_and_data.sql", "more.sql", "hand.sql"].contains(&name);
        let wanted = if is_another || is_full_campaign() {
            c.create(&theirs, "");
            c.psql(&theirs, &text);
            c.content(&theirs, &[])
        } else {
            shop.clone()
        };
        let result = c.restore(&file(&c, name, &text), &ours).await;
        assert_eq!(result.completeness, Some(completeness), "{name}");
        assert_same(&c.content(&ours, &[]), &wanted, name);
    }
    settings_of_the_dumps_database_do_not_touch_that_database(&c).await;
    data_only_text_is_named_and_needs_existing_tables(&c).await;
}

async fn settings_of_the_dumps_database_do_not_touch_that_database(c: &Cluster) {
    c.create("f01", SHOP);
    c.psql(
        "postgres",
        "ALTER DATABASE f01 SET work_mem = '3MB'; ALTER ROLE role_a IN DATABASE f01 SET work_mem = '5MB'",
    );
    let text = pg_dump(c, &["-C", "-d", "f01"]);
    assert_eq!(
        text.matches("\n\\connect f01").count(),
        2,
        "pg_dump connects twice"
    );
    let settings = "SELECT count(*) FROM pg_db_role_setting";
    let before = c.psql("postgres", settings);
    c.restore(&file(c, "f01.sql", &text), "copy").await;
    assert_same(&c.content("copy", &[]), &c.content("f01", &[]), "f01");
    assert_eq!(c.psql("postgres", settings), before);
}

async fn data_only(c: &Cluster, path: &Path, target: &str) -> pgrestored::manager::JobOutcome {
    let selection = Selection {
        data_only: true,
        ..Selection::default()
    };
    let job = RestoreJob {
        selection,
        ..job(path, target, OnExisting::Replace)
    };
    c.restore_with(&job, &[]).await
}

async fn data_only_text_is_named_and_needs_existing_tables(c: &Cluster) {
    let (schema, rows) = (
        pg_dump(c, &["-s", "-d", "shop"]),
        pg_dump(c, &["-a", "-d", "shop"]),
    );
    let (schema, rows) = (file(c, "s.sql", &schema), file(c, "a.sql", &rows));
    let refused = c
        .try_restore(&rows, "app", OnExisting::Fail)
        .await
        .result
        .error
        .unwrap();
    assert_eq!(
        (refused.reason, refused.blame),
        (R::InvalidRequest, Blame::Request)
    );
    assert!(
        refused.message.contains("no tables") && refused.message.contains("--data-only"),
        "{}",
        refused.message
    );
    c.restore(&schema, "app").await;
    let done = data_only(c, &rows, "app").await;
    assert!(done.failure.is_none(), "{:?}", done.result.error);
    assert_same(
        &c.content("app", &[]),
        &c.content("shop", &[]),
        "schema, then rows",
    );
    let both = data_only(c, &file(c, "all.sql", &pg_dump(c, &["-d", "shop"])), "app").await;
    assert_eq!(both.failure, Some(R::InvalidRequest));
    assert_same(&c.content("app", &[]), &c.content("shop", &[]), "as it was");
}

/// Interdependent tables, sequences, generated and identity columns, partitions, large objects.
const STOCK: &str = "CREATE TABLE \"a;item\" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, price numeric DEFAULT 1, twice numeric GENERATED ALWAYS AS (price * 2) STORED, note text);
    CREATE TABLE b_part (id serial, day date, item int REFERENCES \"a;item\") PARTITION BY RANGE (day);
    CREATE TABLE b_part_1 PARTITION OF b_part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE b_part_2 PARTITION OF b_part DEFAULT;
    CREATE TABLE c_up (id int PRIMARY KEY, up int REFERENCES c_up, raw bytea);
    CREATE SEQUENCE alone;";

const STOCK_ROWS: &str = "INSERT INTO \"a;item\" (price, note) SELECT i, E'x;\\n\\'' || i || E'\\\\.' FROM generate_series(1, 300) i;
    INSERT INTO b_part (day, item) SELECT '2020-06-01'::date + i, i FROM generate_series(1, 300) i;
    INSERT INTO c_up SELECT i, nullif(i / 2, 0), decode(md5(i::text), 'hex') FROM generate_series(1, 300) i;
    SELECT setval('alone', 77); SELECT lo_from_bytea(4711, 'large');";

/// The previous content of the target: other rows of the same tables.
const STOCK_BEFORE: &str = "INSERT INTO \"a;item\" (id, price, note) OVERRIDING SYSTEM VALUE VALUES (1000, 5, 'before');
    INSERT INTO b_part (id, day, item) VALUES (1000, '2020-01-02', 1000); INSERT INTO c_up VALUES (1000, 1000, NULL);";

/// `pg_dump -a` as text, into existing tables: the result of `psql`, all of it or nothing. `make soak` breaks every form of
/// both databases in every way; `make test` each but the last one, which is the first one's text, in one of the ways.
#[tokio::test]
async fn data_only_text_gives_the_same_result_as_psql_or_nothing() {
    let c = Cluster::start();
    for (d, (name, tables, rows, before)) in [
        ("stock", STOCK, STOCK_ROWS, STOCK_BEFORE),
        (
            "shop",
            SHOP,
            "",
            "INSERT INTO z_parent VALUES (1000); DELETE FROM log; INSERT INTO log VALUES (-1)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        c.create(name, &format!("{tables}{rows}"));
        let schema = pg_dump(&c, &["-s", "-d", name]);
        c.psql("postgres", "DROP DATABASE IF EXISTS prepared");
        c.create(
            "prepared",
            &format!("{schema}\nSET search_path = public; {before}"),
        );
        let untouched = c.content("prepared", &[]);
        let mut wanted: Option<String> = None;
        // psql fires triggers; the restored rows had theirs fired before.
        let more: &[&str] = if name == "shop" {
            &["--disable-triggers"]
        } else {
            &[]
        };
        let forms: [&[&str]; 4] = [
            &[],
            &["--inserts"],
            &["--column-inserts", "--rows-per-insert=7"],
            &["-b"],
        ];
        let tested = if is_full_campaign() { 4 } else { 3 };
        for (f, form) in forms.into_iter().enumerate().take(tested) {
            let what = format!("{name} {form:?}");
            let text = pg_dump(&c, &[&["-a", "-d", name], more, form].concat());
            c.copy("prepared", "ours");
            // psql makes the same database of each form.
            if wanted.is_none() || is_full_campaign() {
                c.copy("prepared", "theirs");
                c.psql("theirs", &text);
                wanted = Some(c.content("theirs", &[]));
            }
            let wanted = wanted.as_deref().unwrap();
            for (b, (how, broken, reason)) in broken(&text).into_iter().enumerate() {
                if !is_full_campaign() && b != WAYS[d][f] {
                    continue;
                }
                let before = database_of(&c, "ours");
                let done = data_only(&c, &file(&c, "broken.sql", &broken), "ours").await;
                let error = done
                    .result
                    .error
                    .unwrap_or_else(|| panic!("{what} {how}: it was restored"));
                assert_eq!(error.reason, reason, "{what} {how}: {error:?}");
                assert_eq!(database_of(&c, "ours"), before, "{what} {how}");
                if is_full_campaign() {
                    let what = format!("{what} {how}");
                    assert_same(&c.content("ours", &[]), &untouched, &what);
                }
                assert!(
                    c.leftovers().is_empty() && done.result.previous_database.is_none(),
                    "{what} {how}"
                );
            }
            let done = data_only(&c, &file(&c, "rows.sql", &text), "ours").await;
            assert_eq!(done.result.error, None, "{what}");
            assert_same(&c.content("ours", &[]), wanted, &what);
            // It is the database of before; nothing that failed wrote to it.
            assert_same(
                &c.content(&done.result.previous_database.unwrap(), &[]),
                &untouched,
                &what,
            );
        }
    }
}

/// The way in which `make test` breaks each form of each database. An invalid value is another error in COPY than in INSERT.
const WAYS: [[usize; 3]; 2] = [[0, 3, 2], [3, 0, 1]];

/// The identity of a database, which a swap changes.
fn database_of(c: &Cluster, name: &str) -> String {
    let oid = format!("SELECT oid FROM pg_database WHERE datname = '{name}'");
    c.psql("postgres", &oid)
}

/// The same text, with an error near its middle and at its end.
fn broken(text: &str) -> Vec<(&'static str, String, R)> {
    let end = "\n--\n-- PostgreSQL database dump complete\n";
    let behind = |sql: &str| text.replacen(end, &format!("\n{sql}\n{end}"), 1);
    let is_copy = text.contains("\nCOPY ");
    let at = text
        .lines()
        .position(|l| l.starts_with("150\t75") || l.contains("(150, 75"))
        .unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let twice = [&lines[..=at], &lines[at..]].concat().join("\n") + "\n";
    let wrong = lines[at].replacen("150", "wrong", 1);
    let wrong = [&lines[..at], &[wrong.as_str()], &lines[at + 1..]]
        .concat()
        .join("\n")
        + "\n";
    vec![
        (
            "refused at the end",
            behind("SELECT 1 / 0;"),
            R::DataRejected,
        ),
        (
            "cut",
            text[..text.len() / 2]
                .rsplit_once('\n')
                .unwrap()
                .0
                .to_owned(),
            R::ArchiveCorrupt,
        ),
        ("a row twice", twice, R::DataRejected),
        // As a statement it names a column that does not exist.
        (
            "an invalid value",
            wrong,
            if is_copy {
                R::DataRejected
            } else {
                R::RestoreError
            },
        ),
    ]
}

#[tokio::test]
async fn one_database_of_a_cluster_gets_its_roles_from_the_same_file() {
    let c = Cluster::start();
    c.create("shop", SHOP);
    c.create("other", "CREATE TABLE other (a int)");
    c.psql("postgres", "CREATE ROLE owner_of_shop LOGIN");
    c.psql("shop", "ALTER TABLE log OWNER TO owner_of_shop");
    let text =
        String::from_utf8(c.sandbox.run(&mut c.sandbox.command("pg_dumpall")).unwrap()).unwrap();
    let path = file(&c, "all.sql", &text);
    let source = c.content("shop", &[]);
    let refused = c
        .try_restore(&path, "copy", OnExisting::Fail)
        .await
        .result
        .error
        .unwrap();
    assert_eq!(refused.reason, R::InvalidRequest);
    assert!(
        refused.message.contains("other") && refused.message.contains("--database"),
        "{}",
        refused.message
    );
    c.psql("postgres", "DROP DATABASE shop; DROP ROLE owner_of_shop");
    let wanted = RestoreJob {
        database: Some("shop".into()),
        ..job(&path, "copy", OnExisting::Fail)
    };
    let done = c.restore_with(&wanted, &[("globals", "all.sql")]).await;
    assert!(done.failure.is_none(), "{:?}", done.result.error);
    assert_eq!(done.result.completeness, Some(Proven));
    assert_same(&c.content("copy", &[]), &source, "shop");
    assert_eq!(
        c.psql(
            "postgres",
            "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'owner_of_shop'"
        ),
        "t"
    );
}

#[tokio::test]
async fn a_prepared_transaction_is_refused_and_leaves_nothing_behind() {
    let c = Cluster::start_with("-c max_prepared_transactions=4");
    c.create("shop", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
    let whole = pg_dump(&c, &["-d", "shop"]);
    let with = |sql: &str| {
        whole.replace(
            "\n--\n-- PostgreSQL database dump complete",
            &format!("\n{sql}\n\n--\n-- PostgreSQL database dump complete"),
        )
    };
    // A view whose definition in the archive has more than one statement.
    c.psql(
        "shop",
        "CREATE VIEW v AS SELECT 'select_and_some_more_text_12'::text AS a",
    );
    let custom = std::fs::read(c.dump_to_file("shop", &["-Z0"])).unwrap();
    let (from, to): (&[u8], &[u8]) = (
        b"SELECT 'select_and_some_more_text_12'::text AS a;",
        b"SELECT 1 AS a;PREPARE TRANSACTION 'x'           ;",
    );
    assert_eq!(from.len(), to.len());
    let at = memchr::memmem::find(&custom, from).unwrap();
    let mut changed = custom;
    changed[at..at + to.len()].copy_from_slice(to);
    let archive = c.scratch("v.dump");
    std::fs::write(&archive, changed).unwrap();
    for path in [
        file(
            &c,
            "a.sql",
            &with(
                "BEGIN;\nLOCK TABLE public.t IN ACCESS EXCLUSIVE MODE;\nPREPARE TRANSACTION 'evil';",
            ),
        ),
        file(&c, "b.sql", &with("SELECT 1;PREPARE TRANSACTION 'evil2';")),
        archive,
    ] {
        let e = c
            .try_restore(&path, "app", OnExisting::Fail)
            .await
            .result
            .error
            .unwrap();
        assert_eq!(
            (e.reason, e.blame),
            (R::ArchiveUnsupported, Blame::Backup),
            "{}",
            e.message
        );
        assert!(e.message.contains("prepared"), "{}", e.message);
        assert_eq!(
            c.psql("postgres", "SELECT count(*) FROM pg_prepared_xacts"),
            "0"
        );
        assert!(c.leftovers().is_empty());
    }
}

/// Rows that somebody's statements behind the dump make cannot be compared: nothing is blamed, and the proof says so.
#[tokio::test]
async fn rows_of_foreign_statements_are_not_held_against_the_backup() {
    let c = Cluster::start();
    // Each into a table of its own. Some are constants, which the server writes in another way.
    let added = [
        "INSERT INTO public.t0 VALUES (7, now(), NULL);",
        "INSERT INTO public.t1 (id) VALUES (nextval('public.t1_id_seq'));",
        "INSERT INTO public.t2 VALUES (8, '2026-1-1 0:0', '2026-1-1');",
        "INSERT INTO public.t3 VALUES (DEFAULT, NULL, NULL);",
        "INSERT INTO public.t4 VALUES (1+1, NULL, NULL);",
        "UPDATE public.t5 SET day = NULL;",
    ];
    let tables = (0..added.len()).map(|n| {
        format!(
            "CREATE TABLE t{n} (id serial, at timestamptz DEFAULT now(), day date);
             INSERT INTO t{n} (day) VALUES ('2026-11-29'); SELECT setval('t{n}_id_seq', 100);"
        )
    });
    let tables = tables.collect::<String>();
    c.create("app", &format!("{tables} CREATE TABLE u AS SELECT 1 AS a"));
    for format in ["--format=plain", "--inserts"] {
        let dump = pg_dump(&c, &[format, "-d", "app"]);
        let line = dump.lines().count() + 1;
        let path = file(&c, "added.sql", &format!("{dump}{}\n", added.join("\n")));
        let backup = BackupRef::parse(path.to_str().unwrap(), "").unwrap();
        let asked = VerifyJob::new("v", backup, Trigger::Command);
        let flags = [
            ("evidence-location", "none"),
            ("restore-require-complete", "false"),
        ];
        let manager = c.app(&flags).manager;
        let done = manager.verify_backup(&asked, Arc::default(), CancellationToken::new());
        let proof = done.await.proof.unwrap();
        assert_eq!(proof.verdict, Verdict::Verified, "{:?}", proof.error);
        assert_eq!(proof.depth, Some(Depth::Restore), "{:?}", proof.checks);
        let rows: Vec<_> = proof.checks.iter().filter(|c| c.name == "rows").collect();
        assert_eq!(rows.len(), 1 + added.len(), "{format} {rows:?}");
        for check in &rows {
            assert_eq!(check.status, CheckStatus::NotChecked, "{format} {check:?}");
        }
        let says = |what: &str| rows.iter().any(|c| c.message.contains(what));
        assert!(says("1 table with 1 row matches"), "{format} {rows:?}");
        assert!(
            says(&format!("line {line} of the text")),
            "{format} {rows:?}"
        );
    }
    text_without_an_end_mark_is_verified_only_if_accepted(&c).await;
}

async fn text_without_an_end_mark_is_verified_only_if_accepted(c: &Cluster) {
    let path = file(
        c,
        "hand.sql",
        "CREATE TABLE p (id int PRIMARY KEY);\nINSERT INTO p SELECT 1;\n",
    );
    for (accepts, verdict) in [
        (None, Verdict::Inconclusive),
        (Some("false"), Verdict::Verified),
    ] {
        let mut flags = vec![("evidence-location", "none")];
        flags.extend(accepts.map(|a| ("restore-require-complete", a)));
        let backup = BackupRef::parse(path.to_str().unwrap(), "").unwrap();
        let asked = VerifyJob::new(format!("v-{accepts:?}"), backup, Trigger::Command);
        let done = c
            .app(&flags)
            .manager
            .verify_backup(&asked, Arc::default(), CancellationToken::new())
            .await;
        let proof = done.proof.unwrap();
        assert_eq!(
            (proof.verdict, proof.completeness),
            (verdict, Some(Unknown)),
            "{:?}",
            proof.error
        );
        assert!(
            proof.error.iter().all(|e| e.blame != Blame::Backup),
            "{:?}",
            proof.error
        );
        // Its rows were restored, but not compared.
        assert_eq!(proof.depth, Some(Depth::Restore));
        let rows: Vec<_> = proof.checks.iter().filter(|c| c.name == "rows").collect();
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(rows[0].status, CheckStatus::NotChecked, "{rows:?}");
    }
    let done = c
        .restore_with(
            &job(&path, "by_hand", OnExisting::Fail),
            &[("restore-require-complete", "true")],
        )
        .await;
    assert_eq!(done.failure, Some(R::ArchiveUnsupported));
    assert!(!c.databases().contains(&"by_hand".to_owned()));
}

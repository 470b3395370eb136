//! Rows that depend on other rows: functions in checks, domains, generated columns, partition keys, … see the
//! same rows of other tables, and the same earlier rows of their own, as in a serial `pg_restore` or `psql`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgrestored::job::{BackupRef, OnExisting, VerifyJob};
use pgrestored::policy::{Depth, Selection, Trigger};
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, OFFSETS_FROM, assert_same, is_full_campaign, job};

/// A large dictionary, tables whose rows look something up in it or in neighbouring tables, and a large table after
/// these, of which they must see nothing.
const SOURCE: &str = r#"
CREATE TABLE a_dict(v int PRIMARY KEY, lbl text, pad text);
CREATE TABLE z_later(v int, pad text);
CREATE FUNCTION lb(p int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN RETURN (SELECT lbl FROM public.a_dict WHERE v = p); END$$;
CREATE FUNCTION ok(p int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT 1 FROM public.a_dict WHERE v = p)';
CREATE FUNCTION later(p int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN RETURN (SELECT count(*) FROM public.z_later); END$$;
CREATE FUNCTION kind(p int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN RETURN (SELECT left(lbl, 1) FROM public.a_dict WHERE v = p); END$$;
CREATE FUNCTION same(a int, b int) RETURNS boolean LANGUAGE sql AS 'SELECT public.ok(a) AND a > b';
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = same);
CREATE FUNCTION prev(p int) RETURNS boolean LANGUAGE plpgsql AS
    $$BEGIN RETURN p = 1 OR EXISTS (SELECT 1 FROM public.g_blocks WHERE h = p - 1); END$$;
CREATE FUNCTION before(p int) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN RETURN (SELECT count(*) FROM public.h_own); END$$;
CREATE DOMAIN known AS int CHECK (public.ok(VALUE));
CREATE TYPE pair AS (a known, b int);
CREATE TABLE b_gen(v int, l text GENERATED ALWAYS AS (public.lb(v)) STORED, n bigint GENERATED ALWAYS AS (public.later(v)) STORED);
CREATE TABLE c_check(v int CHECK (public.ok(v)));
CREATE TABLE d_domain(v known);
CREATE TABLE d_type(v pair);
CREATE TABLE e_operator(v int CHECK (v OPERATOR(public.===) 0));
CREATE TABLE f_root(v int) PARTITION BY LIST (public.kind(v));
CREATE TABLE f_a PARTITION OF f_root FOR VALUES IN ('l');
CREATE TABLE f_b PARTITION OF f_root DEFAULT;
CREATE TABLE g_blocks(h int);
CREATE TABLE h_own(v int, n bigint GENERATED ALWAYS AS (public.before(v)) STORED);
CREATE TABLE i_free(v int DEFAULT length(public.lb(1)), t text CHECK (lower(t) = t));
INSERT INTO a_dict SELECT g, CASE WHEN g % 7 = 0 THEN 'm' ELSE 'l' END || g, repeat('x', 700) FROM generate_series(1, 2500) g;
INSERT INTO b_gen(v) SELECT 2490 + g FROM generate_series(1, 10) g;
INSERT INTO c_check SELECT 2490 + g FROM generate_series(1, 10) g;
INSERT INTO d_domain SELECT 2490 + g FROM generate_series(1, 10) g;
INSERT INTO d_type SELECT ROW(2490 + g, g)::pair FROM generate_series(1, 10) g;
INSERT INTO e_operator SELECT 2490 + g FROM generate_series(1, 10) g;
INSERT INTO f_root SELECT 2480 + g FROM generate_series(1, 20) g;
INSERT INTO g_blocks SELECT generate_series(1, 1101);
INSERT INTO h_own(v) SELECT generate_series(1, 1100);
INSERT INTO i_free SELECT g, 'x' FROM generate_series(1, 100) g;
INSERT INTO z_later SELECT g, repeat('y', 700) FROM generate_series(1, 2500) g;
ALTER TABLE g_blocks ADD CHECK (public.prev(h));
"#;

/// All rows, with generated columns and each row's partition.
const CONTENT: &str = "SELECT format('SELECT %L, tableoid::regclass, * FROM ONLY %s ORDER BY 1, 2, %s::text;', c.oid::regclass, c.oid::regclass, c.relname)
    FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname NOT IN ('a_dict', 'z_later') ORDER BY relname";

fn content(c: &Cluster, database: &str) -> String {
    // In one psql, which takes longer to start than to do this.
    c.psql(
        database,
        &format!(
            "SET search_path = public;\n{CONTENT} \\gexec\nSELECT count(*) FROM a_dict; SELECT count(*) FROM z_later;"
        ),
    )
}

/// The result of `pg_restore` or `psql` for a dump.
fn theirs(c: &Cluster, dump: &Path) -> String {
    let is_text = dump.extension().is_some_and(|e| e == "sql");
    if is_text {
        c.create("theirs", &std::fs::read_to_string(dump).unwrap())
    } else {
        c.pg_restore(dump, "theirs", &[])
    }
    let found = content(c, "theirs");
    c.psql("postgres", "DROP DATABASE theirs");
    found
}

/// Restores once with each number of connections, and compares.
async fn compare(c: &Cluster, dump: &Path, expected: &str, jobs: &[&str], flags: &[(&str, &str)]) {
    for jobs in jobs {
        // What is compared has no statistics.
        let more = [("restore-jobs", *jobs), ("restore-no-analyze", "true")];
        let given = if is_full_campaign() { 1 } else { 2 };
        let flags = [flags, &more[..given]].concat();
        let done = c
            .restore_with(&job(dump, "ours", OnExisting::Fail), &flags)
            .await;
        assert_eq!(
            done.failure,
            None,
            "{}: {:?}",
            dump.display(),
            done.result.error
        );
        assert_same(
            &content(c, "ours"),
            expected,
            &format!("{} with {jobs} jobs", dump.display()),
        );
        c.psql("postgres", "DROP DATABASE ours");
    }
}

fn dump(c: &Cluster, name: &str, args: &[&str]) -> PathBuf {
    let path = c.scratch(name);
    c.sandbox
        .run(
            c.sandbox
                .command("pg_dump")
                .args(["-d", "src", "-f"])
                .arg(&path)
                .args(args),
        )
        .unwrap();
    if path.is_dir() {
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        return path.join("");
    }
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_see_the_same_rows_as_in_a_serial_restore() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    // A COPY of these rows fails in `pg_restore`, too: it inserts rows in batches of a thousand.
    const NO_BLOCKS: &str = "--exclude-table=g_blocks";
    let custom = dump(&c, "in.dump", &["-Fc", NO_BLOCKS]);
    let copied = theirs(&c, &custom);
    assert!(copied.contains("b_gen|b_gen|2493|l2493|0"), "{copied}");
    let (text, directory) = (
        dump(&c, "in.sql", &[NO_BLOCKS]),
        dump(&c, "in.d", &["-Fd", NO_BLOCKS]),
    );
    if is_full_campaign() {
        assert_same(&theirs(&c, &text), &copied, "psql's is pg_restore's");
    }
    // Packed by name: the dictionary does not precede the tables that read it.
    let packed = c.tar(&directory, &["--sort=name", "-C"], ".");
    let mut forms = vec![custom.clone(), text, packed];
    // With their own order of the tables: like an archive in the custom format, and like one through a pipe.
    if is_full_campaign() {
        forms.extend([directory, dump(&c, "own.tar", &["-Ft", NO_BLOCKS])]);
    }
    forms.push(c.dump_through_pipe("src", &[NO_BLOCKS]));
    forms.push(dump(
        &c,
        "root.dump",
        &["-Fc", NO_BLOCKS, "--load-via-partition-root"],
    ));
    if is_full_campaign() {
        compare(&c, &custom, &copied, &["1"], &[("restore-queue-mib", "1")]).await;
    }
    // Several readers read the archives with offsets.
    let flags = [("restore-queue-mib", "1"), (OFFSETS_FROM, "0")];
    for form in &forms {
        compare(&c, form, &copied, &["4"], &flags).await;
    }
    read_by_blocks(&c, &custom, &copied).await;
    data_only_rows(
        &c,
        &custom,
        &dump(&c, "rows.dump", &["-Fc", NO_BLOCKS, "-a"]),
    )
    .await;
    c.psql(
        "src",
        "DELETE FROM a_dict WHERE v <= 1400; DELETE FROM z_later WHERE v > 1100",
    );
    let inserted = dump(&c, "inserts.sql", &["--inserts"]);
    let one_by_one = theirs(&c, &inserted);
    let with_columns = dump(&c, "inserts.dump", &["-Fc", "--column-inserts"]);
    let jobs = if is_full_campaign() {
        &["1", "4"][..]
    } else {
        &["4"]
    };
    compare(&c, &inserted, &one_by_one, jobs, &[]).await;
    compare(&c, &with_columns, &one_by_one, jobs, &[]).await;
    let several = dump(&c, "several.sql", &["--rows-per-insert=1000"]);
    compare(&c, &several, &theirs(&c, &several), &["4"], &[]).await;
}

/// After a verification, several readers read blocks of the archive, the largest first.
async fn read_by_blocks(c: &Cluster, dump: &Path, expected: &str) {
    let bucket = tempfile::tempdir().unwrap();
    let path = bucket.path().join("in.dump");
    std::fs::copy(dump, &path).unwrap();
    let location = format!("file://{}", bucket.path().display());
    let flags = [("backup-bucket", location.as_str())];
    let backup = BackupRef::parse("in.dump", "").unwrap();
    let verification = VerifyJob {
        depth: Some(Depth::Data),
        ..VerifyJob::new("v", backup, Trigger::Command)
    };
    let app = c.app(&flags);
    let done = app
        .manager
        .verify_backup(&verification, Arc::default(), CancellationToken::new())
        .await;
    let proof = done.proof.unwrap();
    assert!(
        proof.verdict == pgrestored::event::Verdict::Verified,
        "{:?} {:?}",
        proof.error,
        proof.checks
    );
    let walk = std::process::Command::new("find")
        .arg(bucket.path())
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&walk.stdout).contains("index.json"),
        "there is no restore index"
    );
    // Each time, others of these readers come first.
    let times = if is_full_campaign() { 2 } else { 1 };
    compare(
        c,
        Path::new("in.dump"),
        expected,
        &["4"; 2][..times],
        &flags,
    )
    .await;
}

/// Data only, into existing tables: which rows depend on others is in their catalog.
async fn data_only_rows(c: &Cluster, whole: &Path, rows: &Path) {
    c.pg_restore(whole, "schema", &["-s"]);
    c.copy("schema", "empty");
    let restored = c
        .sandbox
        .command("pg_restore")
        .args(["-a", "-d", "empty"])
        .arg(rows)
        .output()
        .unwrap();
    assert!(
        restored.status.success(),
        "{}",
        String::from_utf8_lossy(&restored.stderr)
    );
    let expected = content(c, "empty");
    // The rows alone have no definitions to go by.
    let tested = if is_full_campaign() { 2 } else { 1 };
    for from in [rows, whole].into_iter().take(tested) {
        c.copy("schema", "ours");
        let mut job = job(from, "ours", OnExisting::Replace);
        job.selection = Selection {
            data_only: true,
            ..Selection::default()
        };
        let done = c.restore_with(&job, &[]).await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        assert_same(&content(c, "ours"), &expected, "data only");
        c.psql("postgres", "DROP DATABASE ours");
    }
}

/// Text that creates foreign keys, triggers and rules before the rows, such as `pg_dump -s` followed by `-a`,
/// or text written by hand.
#[tokio::test(flavor = "multi_thread")]
async fn triggers_and_keys_created_before_the_rows_see_them_in_order() {
    let c = Cluster::start();
    let rows = |n: usize, row: fn(usize) -> String| (1..=n).map(row).collect::<String>();
    let text = format!(
        "--\n-- PostgreSQL database dump\n--\nSET search_path = public;
CREATE TABLE a_dict(v int, lbl text, pad text); CREATE TABLE z_later(v int);
CREATE TABLE b_child(v int PRIMARY KEY, up int REFERENCES b_child);
CREATE TABLE c_trigger(v int, n bigint);
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.n := (SELECT count(*) FROM a_dict) + (SELECT count(*) FROM z_later); RETURN NEW; END$$;
CREATE TRIGGER look BEFORE INSERT ON c_trigger FOR EACH ROW EXECUTE FUNCTION look();
CREATE TABLE d_key(v int, up int); ALTER TABLE a_dict ADD PRIMARY KEY (v);
ALTER TABLE ONLY d_key ADD CONSTRAINT k FOREIGN KEY (up) REFERENCES a_dict(v);
CREATE TABLE e_serial(id serial, v int);
CREATE TABLE f_select(n bigint); CREATE TABLE g_first(v int PRIMARY KEY, t text);
COPY a_dict (v, lbl, pad) FROM stdin;\n{}\\.
COPY b_child (v, up) FROM stdin;\n{}\\.
COPY c_trigger (v) FROM stdin;\n1\n2\n\\.
COPY public.d_key (v, up) FROM stdin;\n1\t11999\n\\.
INSERT INTO f_select SELECT count(*) FROM a_dict;
COPY e_serial (v) FROM stdin;\n{}\\.
INSERT INTO g_first VALUES (1, 'first');\nINSERT INTO g_first VALUES (1, 'second') ON CONFLICT DO NOTHING;
INSERT INTO g_first VALUES (2, (SELECT max(lbl) FROM a_dict));
COPY z_later (v) FROM stdin;\n{}\\.
INSERT INTO f_select VALUES ((SELECT count(*) FROM z_later));
--\n-- PostgreSQL database dump complete\n--\n",
        rows(12_000, |i| format!("{i}\tl{i}\t{}\n", "x".repeat(300))),
        // Each refers to a much later one.
        rows(6_000, |i| format!("{i}\t{}\n", 6_001 - i)),
        rows(30_000, |i| format!("{i}\n")),
        rows(12_000, |i| format!("{i}\n")),
    );
    let path = c.scratch("before.sql");
    std::fs::write(&path, text).unwrap();
    let expected = theirs(&c, &path);
    let jobs = if is_full_campaign() { 3 } else { 1 };
    compare(
        &c,
        &path,
        &expected,
        &["4", "1", "3"][..jobs],
        &[("restore-queue-mib", "1")],
    )
    .await;
}

/// A materialized view whose function reads the preceding one, and an index whose function reads a table after its
/// own.
#[tokio::test(flavor = "multi_thread")]
async fn objects_built_at_the_end_see_everything_before_them() {
    let c = Cluster::start();
    c.create(
        "src",
        "CREATE TABLE a_small(v int); INSERT INTO a_small SELECT generate_series(1, 9);
         CREATE TABLE z_dict(v int, k int, pad text); INSERT INTO z_dict SELECT g, -g, repeat('x', 700) FROM generate_series(1, 6000) g;
         CREATE FUNCTION key(p int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT k FROM public.z_dict WHERE v = p';
         CREATE INDEX by_key ON a_small (public.key(v));
         CREATE MATERIALIZED VIEW y_all AS SELECT g FROM generate_series(1, 100000) g;
         CREATE FUNCTION of_y() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.y_all';
         CREATE MATERIALIZED VIEW z_count AS SELECT public.of_y() AS n;",
    );
    let file = dump(&c, "in.dump", &["-Fc"]);
    let times = if is_full_campaign() { 3 } else { 2 };
    for jobs in ["1", "4", "4"].into_iter().take(times) {
        let done = c
            .restore_with(
                &job(&file, "ours", OnExisting::Fail),
                &[("restore-jobs", jobs)],
            )
            .await;
        assert_eq!(done.failure, None, "{:?}", done.result.error);
        let by_index = "SET enable_seqscan = off; SELECT count(*) FROM a_small WHERE public.key(v) < 0; SELECT n FROM z_count";
        assert_eq!(c.psql("ours", by_index), "9\n100000", "with {jobs} jobs");
        c.psql("postgres", "DROP DATABASE ours");
    }
}

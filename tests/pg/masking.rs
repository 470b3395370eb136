//! Masked restores: no original value reaches the server, joins and keys hold, and rules that do not fit change nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrestored::event::RestoreResult;
use pgrestored::job::OnExisting;
use serde_json::Value;

use crate::support::{Cluster, assert_same, is_full_campaign, job};

/// What every value that must not be copied has in it, in any case.
const MARKS: [&[u8]; 4] = [b"qz7", b"Qz7", b"qZ7", b"QZ7"];

const SOURCE: &str = "CREATE SCHEMA shop;
    CREATE TABLE shop.customer (id int PRIMARY KEY, email text NOT NULL UNIQUE, low text GENERATED ALWAYS AS (lower(email)) STORED,
        name varchar(40), ssn text, token text UNIQUE, born date, note text, meta jsonb);
    CREATE TABLE shop.orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES shop.customer,
        token text REFERENCES shop.customer (token), total numeric(10,2));
    CREATE TABLE shop.line (order_id int REFERENCES shop.orders, customer_id int NOT NULL, sku text, gift text);
    CREATE TABLE shop.log (at timestamptz, what text);
    INSERT INTO shop.customer (id, email, name, ssn, token, born, note, meta)
        SELECT i, 'Qz7mail' || i || '@example.org', 'Qz7name ' || i, '908-71-' || lpad(i::text, 4, '0'), 'qz7tok' || i,
            date '1980-01-01' + i, 'qz7 it''s a \\ note' || i,
            jsonb_build_object('address', jsonb_build_object('street', 'qz7street' || i, 'city', 'x'))
        FROM generate_series(1, 400) i;
    INSERT INTO shop.orders SELECT i, 1 + i % 400, 'qz7tok' || (1 + i % 400), i FROM generate_series(1, 1200) i;
    INSERT INTO shop.line SELECT 1 + i % 1200, 1 + (1 + i % 1200) % 400, 'sku' || i, 'qz7gift' || i FROM generate_series(1, 2400) i;
    INSERT INTO shop.log SELECT now(), 'qz7log' || i FROM generate_series(1, 50) i;
    SELECT lo_from_bytea(4000, 'qz7object');
    CREATE MATERIALIZED VIEW shop.mails AS SELECT email FROM shop.customer;
    ANALYZE;";

const RULES: &str = r#"version: 1
unlisted: refuse
large_objects: none
tables:
  shop.customer:
    columns:
      id: keep
      email: { fake: email }
      name: { fake: name }
      ssn: { digits: true }
      token: { hash: true }
      born: { shift: 30d, by: id }
      note: { set: "x" }
      meta: { json: { "$.address.street": { null: true } } }
  shop.orders:
    columns: { id: keep, customer_id: keep, token: { hash: true }, total: keep }
  shop.line:
    columns: { order_id: keep, customer_id: keep, sku: keep, gift: { null: true } }
  shop.log: { rows: none }
"#;

const KEY: &str = "a key of at least sixteen bytes";

pub(super) fn rules(c: &Cluster, name: &str, text: &str) -> PathBuf {
    let file = c.scratch(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// The source in every format that rows come in. With planner statistics, where `pg_dump` has them.
fn dumps(source: &Cluster) -> Vec<PathBuf> {
    let version = source.psql("postgres", "SHOW server_version_num");
    let has_statistics = version.trim().parse::<u32>().unwrap() >= 180_000;
    let statistics: &[&str] = if has_statistics {
        &["--statistics"]
    } else {
        &[]
    };
    let folder = source.dump_to_file("src", &[&["-Fd"], statistics].concat());
    let formats: [&[&str]; 6] = [
        &["-Fc"],
        &["-Ft"],
        &["-Fp"],
        &["-Fp", "--inserts"],
        &["-Fp", "--column-inserts", "--rows-per-insert=20"],
        &["-Fc", "--inserts", "--rows-per-insert=3"],
    ];
    let files = formats.map(|format| source.dump_to_file("src", &[format, statistics].concat()));
    let folder = PathBuf::from(format!("{}/", folder.display()));
    [folder].into_iter().chain(files).collect()
}

pub(super) async fn restored(
    c: &Cluster,
    dump: &Path,
    target: &str,
    (rules, key): (&Path, &str),
) -> RestoreResult {
    let flags = [("restore-mask", rules.to_str().unwrap()), ("mask-key", key)];
    let done = c
        .restore_with(&job(dump, target, OnExisting::Fail), &flags)
        .await;
    let error = &done.result.error;
    assert!(done.failure.is_none(), "{}: {error:?}", dump.display());
    done.result
}

/// The files under a folder that have the mark in them.
fn marked(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (vec![], vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap().flatten() {
            let kind = file.file_type().unwrap();
            if kind.is_dir() {
                folders.push(file.path());
            } else if kind.is_file() {
                // The server may have removed it meanwhile.
                let bytes = std::fs::read(file.path()).unwrap_or_default();
                if has_mark(&bytes) {
                    found.push(file.path());
                }
            }
        }
    }
    found
}

fn has_mark(bytes: &[u8]) -> bool {
    // A data directory has hundreds of megabytes, which a loop of this unoptimised program would need a minute for.
    MARKS
        .iter()
        .any(|mark| memchr::memmem::find(bytes, mark).is_some())
}

/// The rows of a copy; in a full campaign, all of it.
fn content(c: &Cluster, copy: &str) -> String {
    if is_full_campaign() {
        return c.content(copy, &["--no-owner"]);
    }
    let tables = ["customer", "orders", "line", "log", "mails"];
    let rows = tables.map(|table| {
        format!(
            "SELECT string_agg(t::text, chr(10) ORDER BY t::text COLLATE \"C\") FROM shop.{table} t"
        )
    });
    let objects = "SELECT string_agg(oid || ' ' || length(lo_get(oid)), ' ' ORDER BY oid) FROM pg_largeobject_metadata";
    c.psql(
        copy,
        &format!("{} UNION ALL {objects}", rows.join(" UNION ALL ")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_value_reaches_the_server_and_every_format_gives_the_same_copy() {
    let source = Cluster::start();
    source.create("src", SOURCE);
    let dumps = dumps(&source);
    let c = Cluster::start_with("-c log_statement=all");
    let rules_file = rules(&c, "rules.yaml", RULES);
    let mut first = None;
    for (i, dump) in dumps.iter().enumerate() {
        let target = format!("copy{i}");
        let result = restored(&c, dump, &target, (&rules_file, KEY)).await;
        check_report(&result);
        let content = content(&c, &target);
        let first = first.get_or_insert_with(|| content.clone());
        assert_same(&content, first, &dump.display().to_string());
    }
    check_joins(&c, "copy0");
    let other = restored(
        &c,
        &dumps[1],
        "other",
        (&rules_file, "another key of sixteen bytes"),
    )
    .await;
    let report = other.masking.unwrap();
    assert_ne!(report.key_id, None);
    assert_ne!(content(&c, "other"), first.unwrap());
    check_share(&c, &dumps).await;
    c.psql("postgres", "CHECKPOINT");
    let host = Path::new(c.sandbox.host());
    assert_eq!(marked(host), Vec::<PathBuf>::new());
    check_refusals(&c, &dumps);
    check_by_hand(&c);
    assert_eq!(marked(host), Vec::<PathBuf>::new());
    // The search finds what is there.
    c.restore(&dumps[1], "open").await;
    c.psql("postgres", "CHECKPOINT");
    assert!(!marked(host).is_empty());
}

fn check_report(result: &RestoreResult) {
    let report = result.masking.as_ref().unwrap();
    let customer = &report.tables[0];
    assert_eq!(
        (customer.table.as_str(), customer.rows, customer.rows_kept),
        ("shop.customer", 400, 400)
    );
    let changed = customer.columns.iter().filter(|c| c.changed == 400);
    assert_eq!(changed.count(), 7, "{customer:?}");
    let log = report.tables.iter().find(|t| t.table == "shop.log");
    assert_eq!(log.unwrap().rows_kept, 0);
    assert_eq!((report.digest.len(), result.rows), (64, 4000));
    let said = serde_json::to_vec(result).unwrap();
    assert!(!has_mark(&said), "{result:?}");
}

fn check_joins(c: &Cluster, copy: &str) {
    for (query, wanted) in [
        (
            "SELECT count(*) FROM shop.orders JOIN shop.customer USING (token)",
            "1200",
        ),
        (
            "SELECT count(*) FROM shop.orders o JOIN shop.customer c ON c.id = o.customer_id AND c.token = o.token",
            "1200",
        ),
        (
            "SELECT count(DISTINCT email) || ' ' || count(DISTINCT token) FROM shop.customer",
            "400 400",
        ),
        (
            "SELECT count(*) FROM shop.customer WHERE low = lower(email) AND note = 'x'",
            "400",
        ),
        (
            "SELECT count(*) FROM shop.customer WHERE meta->'address'->>'street' IS NULL AND meta->'address'->>'city' = 'x'",
            "400",
        ),
        (
            "SELECT count(*) FROM shop.customer WHERE ssn ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$'",
            "400",
        ),
        (
            "SELECT count(*) FROM shop.mails JOIN shop.customer USING (email)",
            "400",
        ),
        ("SELECT count(*) FROM shop.log", "0"),
        ("SELECT count(*) FROM shop.line WHERE gift IS NULL", "2400"),
        (
            "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated",
            "3",
        ),
        (
            "SELECT count(*) || ' ' || sum(length(lo_get(oid))) FROM pg_largeobject_metadata",
            "1 0",
        ),
        // The planner has statistics of the masked rows.
        (
            "SELECT count(*) > 0 FROM pg_stats WHERE schemaname = 'shop' AND tablename = 'customer'",
            "t",
        ),
    ] {
        assert_eq!(c.psql(copy, query).trim(), wanted, "{query}");
    }
}

/// Parents and children are cut down alike: every foreign key holds.
async fn check_share(c: &Cluster, dumps: &[PathBuf]) {
    let mut text = RULES.to_owned();
    for (table, by) in [
        ("customer", "id"),
        ("orders", "customer_id"),
        ("line", "customer_id"),
    ] {
        let head = format!("  shop.{table}:\n");
        let with_rows = format!("{head}    rows: {{ share: 20, by: {by} }}\n");
        text = text.replace(&head, &with_rows);
    }
    let file = rules(c, "share.yaml", &text);
    // Of an archive, `masked_joins` restores a part.
    let shared = if is_full_campaign() {
        &[4, 1][..]
    } else {
        &[4]
    };
    for i in shared {
        let (dump, target) = (&dumps[*i], format!("share{i}"));
        let result = restored(c, dump, &target, (&file, KEY)).await;
        let customers = &result.masking.as_ref().unwrap().tables[0];
        assert_eq!(customers.rows, 400);
        assert!((20..200).contains(&customers.rows_kept), "{customers:?}");
        let kept = "SELECT count(*) FROM shop.customer";
        let found = c.psql(&target, kept);
        assert_eq!(found.trim(), customers.rows_kept.to_string());
        let whole = "SELECT (SELECT count(*) FROM shop.orders) = 3 * (SELECT count(*) FROM shop.customer) \
             AND (SELECT count(*) FROM shop.line) = 6 * (SELECT count(*) FROM shop.customer)";
        assert_eq!(c.psql(&target, whole).trim(), "t");
    }
    if is_full_campaign() {
        assert_same(&content(c, "share4"), &content(c, "share1"), "share");
    }
}

/// Rules that do not fit are refused by name, and nothing is changed.
fn check_refusals(c: &Cluster, dumps: &[PathBuf]) {
    let before = c.databases();
    let without_note = RULES.replace("      note: { set: \"x\" }\n", "");
    let silent = RULES.replace("large_objects: none\n", "");
    let misspelt = RULES.replace("shop.line:", "shop.lines:");
    let wrong_type = RULES.replace("born: { shift: 30d, by: id }", "born: { fake: email }");
    for (n, (name, text, wanted)) in [
        ("new.yaml", &without_note, &["shop.customer", "note"][..]),
        ("objects.yaml", &silent, &["large objects"]),
        ("misspelt.yaml", &misspelt, &["shop.line"]),
        ("type.yaml", &wrong_type, &["shop.customer", "born"]),
    ]
    .into_iter()
    .enumerate()
    {
        let file = rules(c, name, text);
        // An archive and SQL text of both kinds; in `make test`, the archive and one of the others.
        for (d, dump) in [&dumps[1], &dumps[3], &dumps[4]].into_iter().enumerate() {
            if d > 0 && d != 1 + n % 2 && !is_full_campaign() {
                continue;
            }
            let (code, result) = run(c, dump, &file);
            assert_eq!(code, 65, "{name} {}: {result}", dump.display());
            let error = &result["error"];
            assert_eq!(
                (&error["reason"], &error["blame"]),
                (&"invalid_request".into(), &"request".into()),
                "{result}"
            );
            let misfits = error["misfits"].to_string();
            for part in wanted {
                assert!(misfits.contains(part), "{name}: {misfits}");
            }
            assert!(!has_mark(result.to_string().as_bytes()), "{result}");
            assert_eq!(c.databases(), before, "{name}");
        }
    }
    let by_hand = c.scratch("by_hand.sql");
    let text =
        "CREATE SCHEMA shop; CREATE TABLE shop.t (a text);\nINSERT INTO shop.t SELECT 'qz7hand';\n";
    std::fs::write(&by_hand, text).unwrap();
    let file = rules(
        c,
        "hand.yaml",
        "version: 1\ntables:\n  shop.t: { columns: { a: { set: x } } }\n",
    );
    let (code, result) = run(c, &by_hand, &file);
    assert_eq!(code, 65, "{result}");
    let message = result["error"]["message"].as_str().unwrap();
    assert!(message.contains("INSERT, which may add rows"), "{message}");
    assert_eq!(c.databases(), before);
}

/// SQL text that `pg_dump` did not write, or of which a selection leaves out what says how rows are masked.
fn check_by_hand(c: &Cluster) {
    let file = rules(
        c,
        "by_hand.yaml",
        "version: 1\ntables:\n  crm.t: { columns: { b: { set: x } } }\n",
    );
    let labelled = "CREATE SCHEMA crm; SET SCHEMA 'crm';\nCREATE TABLE t (a text, b text);\n\
         SECURITY LABEL FOR anon ON COLUMN crm.t.a IS 'MASKED WITH VALUE NULL';\n\
         COPY t (a, b) FROM stdin;\nqz7hand\tqz7hand\n\\.\n";
    let equal = "CREATE SCHEMA crm; CREATE TABLE crm.t (a text, b text, UNIQUE (a, b));\n\
         INSERT INTO crm.t VALUES ('k', 'qz7hand1') ON CONFLICT DO NOTHING;\n\
         INSERT INTO crm.t VALUES ('k', 'qz7hand2') ON CONFLICT DO NOTHING;\n";
    for (name, text, extra, wanted) in [
        (
            "labelled.sql",
            labelled,
            &["--skip", "SECURITY LABEL *"][..],
            Ok("x null"),
        ),
        ("equal.sql", equal, &[], Err("ON CONFLICT DO NOTHING")),
    ] {
        let dump = c.scratch(name);
        std::fs::write(&dump, text).unwrap();
        let target = name.trim_end_matches(".sql");
        let (code, result) = run_into(c, (&dump, target), &file, extra);
        match wanted {
            Ok(row) => {
                assert_eq!(code, 0, "{name}: {result}");
                let found = c.psql(target, "SELECT b || coalesce(a, ' null') FROM crm.t");
                assert_eq!(found.trim(), row, "{name}");
            }
            Err(why) => {
                assert_eq!(code, 65, "{name}: {result}");
                let message = result["error"]["message"].as_str().unwrap();
                assert!(message.contains(why), "{name}: {message}");
            }
        }
    }
}

/// The command line's exit code and result.
fn run(c: &Cluster, dump: &Path, rules: &Path) -> (i32, Value) {
    run_into(c, (dump, "never"), rules, &[])
}

fn run_into(
    c: &Cluster,
    (dump, target): (&Path, &str),
    rules: &Path,
    extra: &[&str],
) -> (i32, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(["restore", dump.to_str().unwrap(), "--target", target])
        .args(extra)
        .args(["--mask", rules.to_str().unwrap(), "--output", "json"])
        .env_clear()
        .env("DB_HOST", c.sandbox.host())
        .env("DB_USER", "postgres")
        .env("MASK_KEY", KEY);
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!said.contains(KEY), "{said}");
    let result = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
    (out.status.code().unwrap(), result)
}

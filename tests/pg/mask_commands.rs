//! Masked archives: what `mask` writes is what `pg_restore` restores, without an original value in it; what fails leaves
//! nothing behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Cluster, is_full_campaign};

/// What every value that must not be copied has in it, in any case.
const MARKS: [&[u8]; 4] = [b"qz7", b"Qz7", b"qZ7", b"QZ7"];

const KEY: &str = "a key of at least sixteen bytes";

const SOURCE: &str = "CREATE SCHEMA shop;
    CREATE TABLE shop.customer (id int PRIMARY KEY, email text NOT NULL UNIQUE, low text GENERATED ALWAYS AS (lower(email)) STORED,
        full_name varchar(40), token text UNIQUE, born date, note text);
    CREATE TABLE shop.orders (id int, customer_id int NOT NULL REFERENCES shop.customer,
        token text REFERENCES shop.customer (token), total numeric(10,2), at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE shop.orders_old PARTITION OF shop.orders FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
    CREATE TABLE shop.orders_new PARTITION OF shop.orders FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
    CREATE TABLE shop.log (at timestamptz, what text);
    CREATE TABLE shop.plain (a int, b text);
    INSERT INTO shop.customer (id, email, full_name, token, born, note)
        SELECT i, 'Qz7mail' || i || '@example.org', 'Qz7name ' || i, 'qz7tok' || i, date '1980-01-01' + i, 'qz7 it''s a \\ note' || i
        FROM generate_series(1, 1000) i;
    INSERT INTO shop.customer (id, email, note) VALUES (0, 'qz7', repeat('qz7 long ', 100000));
    INSERT INTO shop.orders SELECT i, 1 + i % 1000, 'qz7tok' || (1 + i % 1000), i, date '2025-01-01' + i % 700 FROM generate_series(1, 3000) i;
    INSERT INTO shop.log SELECT now(), 'qz7log' || i FROM generate_series(1, 50) i;
    INSERT INTO shop.plain SELECT i, repeat('x', i % 100) FROM generate_series(1, 2000) i;
    CREATE MATERIALIZED VIEW shop.mails AS SELECT email FROM shop.customer;
    CREATE INDEX ON shop.customer (lower(full_name));
    SELECT lo_from_bytea(77, decode(repeat('c0ffee', 200000), 'hex')), lo_from_bytea(78, ''), lo_from_bytea(4000000000, 'x');
    ANALYZE;";

const RULES: &str = r#"version: 1
unlisted: refuse
large_objects: keep
tables:
  shop.customer:
    columns:
      id: keep
      email: { fake: email }
      full_name: { fake: name }
      token: { hash: true }
      born: { shift: 30d, by: id }
      note: { set: "x" }
  shop.orders:
    columns: { id: keep, customer_id: keep, token: { hash: true }, total: keep, at: keep }
  shop.log: { rows: none }
  shop.plain: { columns: { "*": keep } }
"#;

/// What is as it was, and what still belongs together.
const KEPT: &str = "SELECT concat_ws(' ',
        (SELECT count(*) || md5(string_agg(concat_ws(' ', id, customer_id, total, at), ',' ORDER BY id)) FROM shop.orders),
        (SELECT md5(string_agg(a || b, ',' ORDER BY a)) FROM shop.plain),
        (SELECT count(*) || ' ' || sum(id) FROM shop.customer),
        (SELECT count(*) FROM shop.orders o JOIN shop.customer c ON c.token = o.token AND c.id = o.customer_id),
        md5(lo_get(77)), lo_get(78), lo_get(4000000000))";

/// What is masked, which is the same in every copy.
const MASKED: &str = "SELECT concat_ws(' ',
        (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM shop.customer t),
        (SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM shop.orders t),
        (SELECT md5(string_agg(t::text, ',' ORDER BY email)) FROM shop.mails t))";

fn mask(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command.env_clear().env("MASK_KEY", KEY).arg("mask");
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write(c: &Cluster, name: &str, content: &str) -> String {
    let file = c.scratch(name);
    std::fs::write(&file, content).unwrap();
    file.to_str().unwrap().to_owned()
}

fn has_mark(bytes: &[u8]) -> bool {
    MARKS
        .iter()
        .any(|mark| memchr::memmem::find(bytes, mark).is_some())
}

/// The source in every format that has a table of contents. With planner statistics, where `pg_dump` has them.
fn dumps(c: &Cluster) -> Vec<PathBuf> {
    let version = c.psql("postgres", "SHOW server_version_num");
    let has_statistics = version.trim().parse::<u32>().unwrap() >= 180_000;
    let statistics: &[&str] = if has_statistics {
        &["--statistics"]
    } else {
        &[]
    };
    let folder = c.dump_to_file("src", &[&["-Fd"], statistics].concat());
    let mut all = vec![
        PathBuf::from(format!("{}/", folder.display())),
        c.dump_through_pipe("src", statistics),
    ];
    for format in [
        &["-Fc"][..],
        &["-Ft"],
        &["-Fc", "--inserts", "--rows-per-insert=3"],
    ] {
        all.push(c.dump_to_file("src", &[format, statistics].concat()));
    }
    all
}

#[test]
fn pg_restore_restores_a_masked_archive() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    let kept = c.psql("src", KEPT);
    let rules = write(&c, "rules.yaml", RULES);
    let all = dumps(&c);
    let mut first: Option<String> = None;
    let codecs = ["none", "gzip", "none", "lz4", "zstd"];
    let version = c.psql("postgres", "SHOW server_version_num");
    let knows_codecs = version.parse::<u32>().unwrap() >= 160000;
    for (i, (dump, codec)) in all.iter().zip(codecs).enumerate() {
        let name = format!("copy{i}");
        let to = c.scratch(&format!("{name}.dump"));
        let uri = format!("file://{}", to.display());
        let dump = dump.to_str().unwrap();
        // Archives of 15 and earlier know gzip only.
        let codec = match codec {
            "lz4" | "zstd" if !knows_codecs => "gzip",
            other => other,
        };
        let done = mask(&[
            dump,
            "--mask",
            &rules,
            "--to",
            &uri,
            "--compress",
            codec,
            "--output",
            "json",
        ]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{dump}: {said}");
        check_answer(&done, &uri, &to);
        assert!(!has_mark(&std::fs::read(&to).unwrap()), "{dump}");
        let sandbox = &c.sandbox;
        let listed = sandbox.run(sandbox.command("pg_restore").arg("-l").arg(&to));
        let listed = text(&listed.unwrap());
        assert!(listed.contains("TABLE DATA shop customer"), "{listed}");
        // Statistics of what was masked hold its most common values.
        let statistics = listed.lines().filter(|l| l.contains("STATISTICS DATA"));
        let of_others = statistics.filter(|l| !l.contains("shop plain"));
        assert_eq!(of_others.count(), 0, "{listed}");
        let script = sandbox.run(sandbox.command("pg_restore").args(["-f", "-"]).arg(&to));
        assert!(!has_mark(&script.unwrap()), "{dump}");
        c.pg_restore(&to, &name, &["--exit-on-error"]);
        assert_eq!(c.psql(&name, KEPT), kept, "{dump}");
        assert_eq!(c.psql(&name, "SELECT count(*) FROM shop.log").trim(), "0");
        // Of the others, the script has everything, too.
        if i == 0 || is_full_campaign() {
            assert!(!has_mark(c.content(&name, &[]).as_bytes()), "{dump}");
        }
        let masked = c.psql(&name, MASKED);
        let first = first.get_or_insert_with(|| masked.clone());
        assert_eq!(masked, *first, "{dump}");
    }
    restored_from_a_pipe(&c, &all, (&rules, &kept));
    suggested_rules_fit_and_show_no_value(&c, &all);
}

fn check_answer(done: &Output, uri: &str, file: &Path) {
    let answer: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(answer["to"], uri);
    let size = std::fs::metadata(file).unwrap().len();
    assert_eq!(answer["size"], size.to_string());
    let tables = answer["masking"]["tables"].as_array().unwrap();
    let of = |name: &str| tables.iter().find(|t| t["table"] == name).unwrap();
    let customer = of("shop.customer");
    assert_eq!(customer["rows"], 1001);
    assert_eq!(customer["rows_kept"], 1001);
    let columns = customer["columns"].as_array().unwrap();
    let email = columns.iter().find(|c| c["name"] == "email").unwrap();
    assert_eq!(email["rule"], "fake email");
    assert_eq!(email["changed"], 1001);
    let log = of("shop.log");
    assert_eq!(log["rows"], 50);
    assert_eq!(log["rows_kept"], 0);
}

/// `pg_restore` reads standard input forward only, so the data has to be in the order of the table of contents.
fn restored_from_a_pipe(c: &Cluster, all: &[PathBuf], (rules, kept): (&str, &str)) {
    for (i, dump) in [&all[0], &all[3]].into_iter().enumerate() {
        let dump = dump.to_str().unwrap();
        let done = mask(&[dump, "--mask", rules, "--to", "-"]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{dump}: {said}");
        assert!(said.contains("shop.customer: 1,001 rows"), "{said}");
        let (copy, archive) = (format!("piped{i}"), c.scratch("piped"));
        std::fs::write(&archive, &done.stdout).unwrap();
        c.create(&copy, "");
        let mut pg_restore = c.sandbox.command("pg_restore");
        pg_restore.args(["--exit-on-error", "-d", &copy]);
        // A pipe, which cannot be rewound.
        let mut cat = Command::new("cat")
            .arg(&archive)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        pg_restore.stdin(cat.stdout.take().unwrap());
        let restored = pg_restore.output().unwrap();
        assert!(cat.wait().unwrap().success());
        let said = text(&restored.stderr);
        assert!(restored.status.success(), "{dump}: {said}");
        assert_eq!(c.psql(&copy, KEPT), kept, "{dump}");
    }
}

#[test]
fn what_fails_leaves_nothing() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    let dump = c.dump_to_file("src", &["--compress=0"]);
    let rules = write(&c, "rules.yaml", RULES);
    let folder = c.open_folder("to");
    let to = format!("file://{}/copy.dump", folder.display());
    let files = || std::fs::read_dir(&folder).unwrap().count();
    let failed = |dump: &Path, rules: &str, code: i32, words: &[&str]| {
        let done = mask(&[dump.to_str().unwrap(), "--mask", rules, "--to", &to]);
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{said}");
        words
            .iter()
            .for_each(|w| assert!(said.contains(w), "{w}: {said}"));
        assert!(!has_mark(said.as_bytes()), "{said}");
        assert_eq!(files(), 0, "{said}");
    };
    let open = write(
        &c,
        "open.yaml",
        &RULES.replace("      note: { set: \"x\" }\n", ""),
    );
    failed(&dump, &open, 65, &["shop.customer, column note", "no rule"]);
    let gone = write(&c, "gone.yaml", &RULES.replace("shop.plain", "shop.plane"));
    failed(&dump, &gone, 65, &["shop.plane", "no such table"]);
    // Cut off in the middle of the rows.
    let bytes = std::fs::read(&dump).unwrap();
    let cut = c.scratch("cut.dump");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    failed(&cut, &rules, 65, &["ends early"]);
    // A value that its rule cannot be applied to, in a row that is not the first one.
    let wrong = RULES.replace("{ set: \"x\" }", "{ json: { \"$.a\": { null: true } } }");
    let wrong = write(&c, "wrong.yaml", &wrong);
    let done = mask(&[dump.to_str().unwrap(), "--mask", &wrong, "--to", &to]);
    assert_eq!((done.status.code(), files()), (Some(65), 0));
    // Standard output has lost its end.
    let done = mask(&[cut.to_str().unwrap(), "--mask", &rules, "--to", "-"]);
    assert_eq!(done.status.code(), Some(65));
    let beginning = c.scratch("beginning.dump");
    std::fs::write(&beginning, &done.stdout).unwrap();
    let sandbox = &c.sandbox;
    let script = sandbox.run(
        sandbox
            .command("pg_restore")
            .args(["-f", "-"])
            .arg(&beginning),
    );
    assert!(script.is_err(), "{} bytes", done.stdout.len());
    // What exists stays as it is.
    std::fs::write(folder.join("copy.dump"), "mine").unwrap();
    let done = mask(&[dump.to_str().unwrap(), "--mask", &rules, "--to", &to]);
    let said = text(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("copy.dump exists"), "{said}");
    assert_eq!(std::fs::read(folder.join("copy.dump")).unwrap(), b"mine");
    assert_eq!(files(), 1);
}

/// In `make test`, those of every second format are checked, too.
fn suggested_rules_fit_and_show_no_value(c: &Cluster, all: &[PathBuf]) {
    for (i, dump) in all.iter().enumerate() {
        let dump = dump.to_str().unwrap();
        let done = mask(&["suggest", dump]);
        let (rules, said) = (text(&done.stdout), text(&done.stderr));
        assert_eq!(done.status.code(), Some(0), "{dump}: {said}");
        assert!(
            !has_mark(&done.stdout) && !has_mark(said.as_bytes()),
            "{rules}{said}"
        );
        for line in [
            "  shop.customer:",
            "  shop.orders:",
            "      email: {",
            "      full_name: {",
        ] {
            assert!(rules.contains(line), "{dump}: {line}: {rules}");
        }
        // Partitions have the rules of their parent, and generated columns none.
        assert!(
            !rules.contains("orders_old") && !rules.contains(" low:"),
            "{rules}"
        );
        if i % 2 > 0 && !is_full_campaign() {
            continue;
        }
        let file = write(c, "suggested.yaml", &rules);
        let done = mask(&["check", dump, "--mask", &file]);
        let said = text(&done.stdout) + &text(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "{dump}: {said}");
    }
}

//! What the rules make of values of every type, read by a server; and rules that keep everything.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

use pgdump_archive::{Archive, ArchiveSource};
use pgdump_mask::{MaskCounts, MaskFile, MaskKey, Masking, TableMask, TableShape};
use pgdump_restore::table_shapes;
use serde_json::Value;

use crate::masking::{restored, rules};
use crate::support::{Cluster, assert_same};

const KEY: &str = "a key of at least sixteen bytes";

const RULES: [(&str, &str); 31] = [
    ("null", "{ null: true }"),
    ("hash", "{ hash: true }"),
    ("digits", "{ digits: true }"),
    ("first_name", "{ fake: first_name }"),
    ("last_name", "{ fake: last_name }"),
    ("name", "{ fake: name }"),
    ("city", "{ fake: city }"),
    ("company", "{ fake: company }"),
    ("address", "{ fake: address }"),
    ("phone", "{ fake: phone }"),
    ("words", "{ fake: text }"),
    ("email", "{ fake: email }"),
    ("iban", "{ fake: iban }"),
    ("template", "{ template: \"{id}-{{ü}}\" }"),
    ("truncate", "{ truncate: 3 }"),
    (
        "replace",
        "{ replace: { regex: \"[a-z]\", with: \"$0ö$0\" } }",
    ),
    ("days", "{ shift: 30d }"),
    ("weeks", "{ shift: 52w, by: id }"),
    ("hours", "{ shift: 36h }"),
    ("percent", "{ noise: 33% }"),
    ("noise", "{ noise: 2.5 }"),
    ("json", "{ json: { $: { hash: true } } }"),
    (
        "json_paths",
        "{ json: { $.a: { digits: true }, \"$.b[*]\": { noise: 5% }, $.*.c: { fake: name }, $.d: { shift: 3d, by: id } } }",
    ),
    ("each_null", "{ each: { null: true } }"),
    ("each_hash", "{ each: { hash: true } }"),
    ("each_digits", "{ each: { digits: true } }"),
    ("each_email", "{ each: { fake: email } }"),
    ("each_truncate", "{ each: { truncate: 2 } }"),
    ("each_days", "{ each: { shift: 9d, by: id } }"),
    ("each_noise", "{ each: { noise: 20% } }"),
    ("each_json", "{ each: { json: { $.a: { fake: text } } } }"),
];

/// A type, a constant of it in YAML, values of it in SQL (with `i` from 1 to 40, and others), and the rules that are for it.
type Kind = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static str,
);

const LONG: &str = "null hash digits first_name last_name name city company address phone words email iban template truncate replace";
const NUMBER: &str = "null hash digits percent noise";
const TIME: &str = "null days weeks hours";

const TEXTS: &str =
    "left(md5(i::text), i % 7) || chr(161 + 53 * i) || (i * 7919) || chr(1632 + i % 10)";

/// With the types of [`DEFINITIONS`].
const KINDS: [Kind; 61] = [
    (
        "text",
        "\"a\\tb\\\\\"",
        TEXTS,
        &[
            "''",
            r"E'a\tb\nc\rd\\e\\N'",
            r"E'\\N'",
            r"'\.'",
            "repeat('long ', 3000)",
            r"E'\x01\x7f'",
        ],
        LONG,
    ),
    (
        "character varying(31)",
        "x",
        TEXTS,
        &["''", "repeat('ü', 31)"],
        LONG,
    ),
    (
        "character varying(18)",
        "x",
        TEXTS,
        &["repeat('9', 18)"],
        "null hash digits first_name last_name name city company address phone words email template truncate replace",
    ),
    (
        "character varying(7)",
        "x",
        "left(md5(i::text), 7)",
        &["repeat('ä', 7)"],
        "null digits first_name last_name name city company address phone words template truncate replace",
    ),
    (
        "character(12)",
        "x",
        "left(md5(i::text), i % 12)",
        &["''", "repeat('é', 12)"],
        "null hash digits first_name last_name name city company address phone words template truncate replace",
    ),
    (
        "\"char\"",
        "x",
        "chr(48 + i)",
        &["'z'"],
        "null digits words truncate replace",
    ),
    (
        "name",
        "x",
        "left(md5(i::text), 9)",
        &["repeat('a', 63)"],
        LONG,
    ),
    ("citext", "x", TEXTS, &["'Ä@Example.ORG'"], LONG),
    (
        "v.mail",
        "x",
        TEXTS,
        &["repeat('ß', 20)"],
        "null hash digits first_name last_name name city company address phone words email template truncate replace",
    ),
    (
        "v.mood",
        "HAPPY",
        "(ARRAY['SAD', 'HAPPY'])[1 + i % 2]",
        &[],
        "null replace",
    ),
    (
        "v.temper",
        "SAD",
        "(ARRAY['SAD', 'HAPPY'])[1 + i % 2]",
        &[],
        "null replace",
    ),
    (
        "v.amount",
        "-7",
        "i * 811",
        &["-32768", "32767", "0"],
        NUMBER,
    ),
    ("v.pair", "\"(1,x)\"", "row(i, 'x' || i)", &[], "null"),
    (
        "v.times",
        "empty",
        "v.times(time '01:00', time '02:00' + i * interval '1 minute')",
        &["'(,)'"],
        "null",
    ),
    (
        "smallint",
        "-32768",
        "i * 811",
        &["-32768", "32767", "0", "-1"],
        NUMBER,
    ),
    (
        "integer",
        "2147483647",
        "i * i * i * 31013",
        &["-2147483648", "2147483647", "0"],
        NUMBER,
    ),
    (
        "bigint",
        "9223372036854775807",
        "i * i * 5764607523034234",
        &["-9223372036854775808", "9223372036854775807", "0"],
        NUMBER,
    ),
    (
        "numeric",
        "NaN",
        "i * i / 7.0",
        &[
            "'NaN'",
            "0",
            "-0.001",
            "123456789012345678901234567890",
            "1e-29",
        ],
        NUMBER,
    ),
    (
        "numeric(12,3)",
        "999999999.9994",
        "i * i * 1234.567",
        &["-999999999.999", "999999999.999", "'NaN'", "0"],
        NUMBER,
    ),
    (
        "numeric(38,19)",
        "1.5",
        "i / 7.0",
        &["9999999999.9999999999999999999"],
        NUMBER,
    ),
    (
        "numeric(4,4)",
        "-0.9999",
        "i / 41.0",
        &["0.9999", "-0.9999", "0", "0.0001"],
        "null digits percent noise",
    ),
    (
        "numeric(3,5)",
        "0.00999",
        "i / 4100.0",
        &["0.00999", "-0.00999", "0"],
        "null digits percent noise",
    ),
    (
        "numeric(5,-2)",
        "12300",
        "i * 12345",
        &["9999900", "0"],
        "null hash",
    ),
    (
        "real",
        "-3.4e38",
        "sqrt(i) * 10 ^ (i - 20)",
        &[
            "3.4028235e38",
            "-3.4028235e38",
            "1e-45",
            "0",
            "'-0'",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
        ],
        "null percent noise",
    ),
    (
        "double precision",
        "1e300",
        "sqrt(i) * 10 ^ (15 * i - 300)",
        &[
            "1.7976931348623157e308",
            "-1.7976931348623157e308",
            "'4.9e-324'",
            "'NaN'",
            "'Infinity'",
        ],
        "null percent noise",
    ),
    ("boolean", "\"true\"", "i % 2 = 0", &[], "null"),
    (
        "uuid",
        "00000000-0000-0000-0000-000000000000",
        "md5(i::text)",
        &["'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
        "null hash",
    ),
    (
        "date",
        "2024-02-29",
        "date '1950-01-31' + 999 * i",
        &[
            "'infinity'",
            "'-infinity'",
            "'5874897-12-31'",
            "'4714-11-24 BC'",
            "'0001-01-01 BC'",
        ],
        "null days weeks",
    ),
    (
        "timestamp without time zone",
        "2024-02-29 23:59:59.5",
        "timestamp '1950-01-31' + 999.4321 * i * interval '1 hour'",
        &[
            "'infinity'",
            "'-infinity'",
            "'294276-12-31 23:59:59.999999'",
            "'4714-11-24 00:00:00 BC'",
        ],
        TIME,
    ),
    (
        "timestamp with time zone",
        "2024-02-29 23:59:59+05:30",
        "timestamptz '1850-01-31 UTC' + 99999.4321 * i * interval '1 hour'",
        &[
            "'infinity'",
            "'294276-12-31 23:59:59.999999+00'",
            "'4714-11-24 00:00:00+00 BC'",
        ],
        TIME,
    ),
    (
        "timestamp(0) with time zone",
        "infinity",
        "timestamptz '1850-01-31 UTC' + 99999.4321 * i * interval '1 hour'",
        &[],
        TIME,
    ),
    (
        "time without time zone",
        "\"24:00:00\"",
        "time '00:00' + i * interval '1.5 hours'",
        &["'24:00:00'"],
        "null",
    ),
    (
        "time(3) with time zone",
        "\"12:00:00+05\"",
        "timetz '00:00+05' + i * interval '1.5 hours'",
        &[],
        "null",
    ),
    (
        "interval",
        "1 day",
        "i * interval '1 month 3 days 04:05:06.7'",
        &["'-178000000 years'"],
        "null",
    ),
    (
        "interval day to second",
        "1 day",
        "i * interval '3 days 04:05:06.7'",
        &[],
        "null",
    ),
    (
        "inet",
        "0.0.0.0",
        "inet '10.0.0.0/8' + i",
        &["'::1'"],
        "null",
    ),
    (
        "cidr",
        "10.0.0.0/8",
        "(i || '.0.0.0/8')::cidr",
        &["'2001:db8::/32'"],
        "null",
    ),
    (
        "macaddr",
        "\"00:00:00:00:00:00\"",
        "('08:00:2b:01:02:' || lpad(to_hex(i), 2, '0'))::macaddr",
        &[],
        "null",
    ),
    (
        "macaddr8",
        "\"00:00:00:00:00:00:00:00\"",
        "('08:00:2b:01:02:03:04:' || lpad(to_hex(i), 2, '0'))::macaddr8",
        &[],
        "null",
    ),
    (
        "money",
        "\"$1.50\"",
        "i * 1.25",
        &["'-92233720368547758.08'"],
        "null",
    ),
    ("bit(9)", "\"000000001\"", "i", &[], "null"),
    ("bit varying(9)", "\"01\"", "i::bit(9)", &["''"], "null"),
    (
        "bytea",
        "\"\\\\x00ff\"",
        "decode(md5(i::text), 'hex')",
        &["''"],
        "null",
    ),
    (
        "xml",
        "<a/>",
        "xmlelement(name a, i)",
        &["'<b>&lt;</b>'"],
        "null",
    ),
    (
        "tsvector",
        "a b",
        "to_tsvector('simple', 'one ' || i)",
        &["''"],
        "null",
    ),
    (
        "tsquery",
        "a & b",
        "to_tsquery('simple', 'one & x' || i)",
        &[],
        "null",
    ),
    ("point", "\"(1,2)\"", "point(i, 1)", &[], "null"),
    (
        "int4range",
        "\"[1,2)\"",
        "int4range(i, 2 * i)",
        &["'empty'", "'(,)'"],
        "null",
    ),
    (
        "tstzrange",
        "empty",
        "tstzrange(timestamptz 'epoch', timestamptz 'epoch' + i * interval '1 day')",
        &[],
        "null",
    ),
    ("tsmultirange", "\"{}\"", "'{}'", &[], "null"),
    ("pg_lsn", "0/0", "'0/' || i", &[], "null"),
    ("jsonpath", "$.a", "'$.a[' || i || ']'", &[], "null"),
    (
        "json",
        "\"{}\"",
        r#"'{"a": "' || i || '-1", "b": [' || i || ', 1.50, "x", true, null], "e": {"c": "é"}, "d": "2024-01-' || (10 + i % 20) || 'T10:00:00Z", "a": 2e3}'"#,
        &[
            "'null'",
            "'7'",
            "'\"x\"'",
            r#"'{"k\n": "\u00e9\ud83d\ude00 \"q\""}'"#,
            "'[]'",
            "(repeat('[', 300) || repeat(']', 300))::json",
            "'-0.0'",
        ],
        "null json json_paths",
    ),
    (
        "jsonb",
        "'[1, \"x\"]'",
        r#"('{"a": "' || i || '-1", "b": [' || i || ', 1.50, "x", true, null], "e": {"c": "é"}, "d": "2024-01-' || (10 + i % 20) || '"}')::jsonb"#,
        &[
            "'null'",
            "'123456789012345678901234567890.5'",
            "'[[[1]], {\"c\": {\"c\": 1e20}}]'",
            "'1e-20'",
        ],
        "null json json_paths",
    ),
    (
        "text[]",
        "\"{}\"",
        "ARRAY[md5(i::text), NULL, 'a,b', '', 'NULL', chr(161 + i)]",
        &[
            "'{}'",
            "'{{a,b},{c,d}}'",
            "'[0:1]={x,y}'",
            r#"E'{"q\\"\\\\\\\\", "\\t "}'"#,
        ],
        "null each_null each_hash each_digits each_email each_truncate",
    ),
    (
        "character varying(9)[]",
        "\"{x}\"",
        "ARRAY[left(md5(i::text), 9), 'ö']",
        &["'{}'"],
        "null each_null each_hash each_digits each_truncate",
    ),
    (
        "integer[]",
        "\"{1}\"",
        "ARRAY[[i, -i], [0, 2147483647]]",
        &["'{NULL}'"],
        "null each_null each_hash each_digits each_noise",
    ),
    (
        "numeric(6,2)[]",
        "\"{1.5}\"",
        "ARRAY[i, 9999.99, NULL]",
        &[],
        "null each_null each_hash each_digits each_noise",
    ),
    (
        "date[]",
        "\"{2024-01-01}\"",
        "ARRAY[date '2024-01-01' + i, 'infinity', NULL]",
        &[],
        "null each_null each_days",
    ),
    (
        "uuid[]",
        "\"{}\"",
        "ARRAY[md5(i::text)::uuid, NULL]",
        &[],
        "null each_null each_hash",
    ),
    (
        "jsonb[]",
        "\"{}\"",
        r#"ARRAY[jsonb_build_object('a', 'x y"' || i), NULL]"#,
        &[],
        "null each_null each_json",
    ),
];

const DEFINITIONS: &str = "CREATE EXTENSION citext; CREATE SCHEMA v; CREATE TYPE v.mood AS ENUM ('SAD', 'HAPPY');
    CREATE DOMAIN v.temper AS v.mood; CREATE DOMAIN v.mail AS varchar(20); CREATE DOMAIN v.amount AS smallint;
    CREATE TYPE v.pair AS (a int, b text); CREATE TYPE v.times AS RANGE (subtype = time);\n";

/// A table per type, named by its place in [`KINDS`].
fn source() -> String {
    let mut sql = DEFINITIONS.to_owned();
    for (at, (ty, _, value, more, _)) in KINDS.iter().enumerate() {
        let max = ty.strip_prefix("character varying(");
        let max = max.and_then(|rest| rest.strip_suffix(')'));
        let fitting = match max {
            Some(max) => format!("left({value}, {max})"),
            None if *ty == "v.mail" => format!("left({value}, 20)"),
            None => (*value).to_owned(),
        };
        sql += &format!(
            "CREATE TABLE v.t{at} (id int, v {ty});\n\
             INSERT INTO v.t{at} SELECT i, ({fitting})::{ty} FROM generate_series(1, 40) i;\n\
             INSERT INTO v.t{at} VALUES (0, NULL);\n"
        );
        for (more_at, literal) in more.iter().enumerate() {
            sql += &format!(
                "INSERT INTO v.t{at} VALUES ({}, {literal});\n",
                100 + more_at
            );
        }
    }
    sql
}

/// The definition of each table, as a masked restore reads it.
fn shapes(archive: &Path) -> HashMap<(String, String), TableShape> {
    let file = std::fs::File::open(archive).unwrap();
    let origin = ArchiveSource::once(file);
    let archive = Archive::open(origin, Default::default(), &Default::default()).unwrap();
    table_shapes(archive.entries())
}

/// The rows of each table in COPY's text format, with their line ends, by the table's name.
fn copied(dump: &str) -> HashMap<&str, String> {
    let mut all: HashMap<_, String> = HashMap::new();
    let mut table = None;
    for line in dump.split_inclusive('\n') {
        let named = line.strip_prefix("COPY v.");
        match (table, named.and_then(|rest| rest.split_once(' '))) {
            (None, Some((name, _))) => table = Some(name),
            (Some(_), _) if line == "\\.\n" => table = None,
            (Some(name), _) => all.entry(name).or_default().push_str(line),
            (None, None) => {}
        }
    }
    all
}

/// The rule for a table, or the reason why it does not fit.
fn compiled(key: &MaskKey, at: usize, rule: &str, shape: &TableShape) -> Result<TableMask, String> {
    let yaml = format!("version: 1\ntables: {{ v.t{at}: {{ columns: {{ v: {rule} }} }} }}\n");
    let file = MaskFile::parse(&yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
    let mask = Masking::new(file, Some(key.clone())).unwrap().table(shape);
    let why = |misfits: Vec<pgdump_mask::Misfit>| misfits[0].to_string();
    mask.map(Option::unwrap).map_err(why)
}

#[test]
fn a_server_takes_every_masked_value() {
    let c = Cluster::start();
    c.create("src", &source());
    let archive = c.dump_to_file("src", &[]);
    let shapes = shapes(&archive);
    let dump = String::from_utf8(c.dump("src", &["--data-only"])).unwrap();
    let rows = copied(&dump);
    // One for all: its tables of short strings of digits are made once.
    let key = MaskKey::new(KEY.to_owned().into()).unwrap();
    let mut script = "CREATE SCHEMA m;\n".to_owned();
    let (mut values, mut unfit) = (0, String::from("version: 1\ntables:\n"));
    for (at, (ty, constant, _, _, fits)) in KINDS.iter().enumerate() {
        let shape = &shapes[&("v".to_owned(), format!("t{at}"))];
        let rows = &rows[format!("t{at}").as_str()];
        let set = format!("{{ set: {constant} }}");
        let mut fitting = Vec::new();
        for (name, rule) in RULES.into_iter().chain([("set", set.as_str())]) {
            let mask = match compiled(&key, at, rule, shape) {
                Ok(mask) => mask,
                Err(why) => {
                    assert!(why.starts_with(&format!("v.t{at}, column v: ")), "{why}");
                    if !unfit.contains(&format!(" v.t{at}:")) {
                        unfit += &format!("  v.t{at}: {{ columns: {{ v: {rule} }} }}\n");
                    }
                    continue;
                }
            };
            fitting.push(name);
            let (mut masked, mut counts) = (Vec::new(), MaskCounts::default());
            let done = mask.mask_rows(rows.as_bytes(), &mut masked, &mut counts);
            done.unwrap_or_else(|e| panic!("{ty} {name}: {e}"));
            values += counts.rows;
            let masked = String::from_utf8(masked).unwrap();
            script += &format!(
                "CREATE TABLE m.t{at}_{name} (LIKE v.t{at});\nCOPY m.t{at}_{name} FROM stdin;\n{masked}\\.\n"
            );
        }
        let is_wanted = |name: &&str| fits.split(' ').any(|wanted| wanted == *name);
        let wanted = RULES.iter().map(|(name, _)| *name).filter(is_wanted);
        assert_eq!(fitting, wanted.chain(["set"]).collect::<Vec<_>>(), "{ty}");
    }
    assert!(values > 10_000, "{values}");
    let file = c.scratch("masked.sql");
    std::fs::write(&file, script).unwrap();
    let mut psql = c.sandbox.command("psql");
    psql.args(["-X", "-q", "-d", "src", "-f"]).arg(&file);
    let out = psql.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && said.is_empty(), "{said}");
    check_unfit(&c, &archive, &unfit);
}

/// Every type has rules that are not for it: they are refused by name before any row is read.
fn check_unfit(c: &Cluster, archive: &Path, unfit: &str) {
    let file = rules(c, "unfit.yaml", unfit);
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(["mask", "check", archive.to_str().unwrap(), "--mask"])
        .arg(file)
        .args(["--output", "json"])
        .env_clear()
        .env("MASK_KEY", KEY)
        .stdin(Stdio::null());
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(65));
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    let misfits = answer["misfits"].as_array().unwrap();
    for at in 0..KINDS.len() {
        let place = format!("v.t{at}, column v: ");
        let is_named = |misfit: &Value| misfit.as_str().unwrap().starts_with(&place);
        assert!(misfits.iter().any(is_named), "{place} {answer}");
    }
    assert_eq!(misfits.len(), KINDS.len(), "{answer}");
}

/// With rules that keep every column, a copy is the original, restored or written as an archive.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_stays_byte_for_byte() {
    let c = Cluster::start();
    c.create("values", include_str!("values.sql"));
    let content = c.content("values", &[]);
    let text = "version: 1\nunlisted: refuse\nlarge_objects: keep\ntables: { \"*.*\": { columns: { \"*\": keep } } }\n";
    let keep = rules(&c, "keep.yaml", text);
    let archive = c.dump_to_file("values", &[]);
    let inserts = c.dump_to_file("values", &["-Fp", "--inserts", "--rows-per-insert=50"]);
    for (name, dump) in [("archive", &archive), ("inserts", &inserts)] {
        restored(&c, dump, name, (&keep, KEY)).await;
        assert_same(&c.content(name, &[]), &content, name);
    }
    let to = c.scratch("kept.dump");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(["mask", archive.to_str().unwrap(), "--mask"])
        .arg(&keep)
        .args(["--to", &format!("file://{}", to.display())])
        .env_clear()
        .env("MASK_KEY", KEY)
        .stdin(Stdio::null());
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(0), "{said}");
    c.pg_restore(&to, "kept", &["--exit-on-error"]);
    assert_same(&c.content("kept", &[]), &content, "kept");
}

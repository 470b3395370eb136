//! Rows as tuples of COPY's binary format have the same bytes as the server's own.

use futures::TryStreamExt;
use pgdump_restore::Columns;
use tokio_postgres::{Client, NoTls};

use crate::support::{Cluster, assert_same, is_full_campaign, job};

/// Length of the header before the first tuple, and of the trailer after the last one.
const ENVELOPE: (usize, usize) = (19, 2);

/// A type and queries for its values. All are converted, except those of the last list.
type Values = (&'static str, &'static [&'static str]);

const CONVERTED: &[Values] = &[
    ("bool", &["VALUES (true), (false), (NULL)"]),
    (
        "int2",
        &[
            "SELECT generate_series(-32768, 32767, 97)",
            "VALUES (-32768), (32767), (0), (NULL)",
        ],
    ),
    (
        "int4",
        &[
            "SELECT hashint4(i) FROM generate_series(1, 2000) i",
            "VALUES (-2147483648), (2147483647), (NULL)",
        ],
    ),
    (
        "int8",
        &[
            "SELECT hashint8extended(i, 7) FROM generate_series(1, 2000) i",
            "VALUES (-9223372036854775808), (9223372036854775807), (999999999999999999), (1000000000000000000), (0)",
        ],
    ),
    ("oid", &["VALUES (0), (4294967295), (16384)"]),
    (
        "float4",
        &[
            "SELECT hashint4(i) / 977.0 * 10.0 ^ (i % 30 - 15) FROM generate_series(1, 3000) i",
            "VALUES ('NaN'::float4), ('Infinity'), ('-Infinity'), (0), ('-0'), (1e-45), (3.4028235e38), (1.17549435e-38), (16777217), (0.1)",
        ],
    ),
    (
        "float8",
        &[
            "SELECT hashint8extended(i, 1)::float8 / 977 * 10.0::float8 ^ (i % 500 - 250) FROM generate_series(1, 5000) i",
            "SELECT hashint8extended(i, 2)::float8 FROM generate_series(1, 3000) i",
            "VALUES ('NaN'::float8), ('Infinity'), ('-Infinity'), (0), ('-0'), (5e-324), (1.7976931348623157e308), (2.2250738585072014e-308), (9007199254740993), (0.1 + 0.2)",
        ],
    ),
    (
        "numeric",
        &[
            "SELECT hashint8extended(i, 3)::numeric / 10.0 ^ (i % 30) FROM generate_series(1, 5000) i",
            "SELECT sign(hashint4(i)) * 10.0 ^ (i - 60) FROM generate_series(1, 120) i",
            "SELECT (9 * 10.0 ^ (i % 40) + hashint4(i) % 1000)::numeric(60, 7) FROM generate_series(1, 500) i",
            "VALUES ('NaN'::numeric), (0), (0.0), (0.0000), (-0.00), (1), (10), (9999), (10000), (10001), (100000000), (0.0001), (0.00001), (1.0000), (1.10000000), (-1234567890.0123456789), (1e100), (1e-100), (NULL)",
        ],
    ),
    (
        "numeric(14, 2)",
        &["SELECT (hashint4(i) & 16777215)::numeric / 100 FROM generate_series(1, 2000) i"],
    ),
    (
        "text",
        &[
            "SELECT md5(i::text) FROM generate_series(1, 200) i",
            "SELECT chr(i) || chr(i) || 'x' || chr(i) FROM generate_series(1, 3000) i",
            r"VALUES (NULL), (''), ('\N'), (E'\\.'), ('\\'), (E'a\\'), (E'\t\n\r\b\f\v\\'), ('é☃🐘'), (' lead'), ('trail ')",
        ],
    ),
    ("varchar(7)", &["VALUES ('abc'), (''), ('sieben7'), (NULL)"]),
    ("char(5)", &["VALUES ('a'), (''), ('fünf5'), (NULL)"]),
    (
        "json",
        &["VALUES ('{\"a\": [1,  2]}'::json), ('null'), (E'\"\\\\u00e9\\\\n\"'), (NULL)"],
    ),
    (
        "jsonb",
        &[
            "SELECT jsonb_build_object('n', i, 'k', md5(i::text), 'nested', ARRAY[i, 1.5]) FROM generate_series(1, 300) i",
            "VALUES ('null'::jsonb), ('1e3'), (E'\"a\\\\tb\"'), ('[]')",
        ],
    ),
    (
        "bytea",
        &[
            "SELECT decode(md5(i::text), 'hex') FROM generate_series(1, 300) i",
            "VALUES (''::bytea), ('\\x00ff'), (NULL)",
        ],
    ),
    (
        "uuid",
        &["SELECT md5(i::text)::uuid FROM generate_series(1, 500) i"],
    ),
    (
        "date",
        &[
            "SELECT date '0001-01-01' + i * 37 FROM generate_series(0, 98000) i",
            "VALUES (date '9999-12-31'), ('2000-02-29'), ('1900-02-28'), ('1999-12-31')",
        ],
    ),
    (
        "time",
        &[
            "SELECT time '00:00' + i * interval '7.654321 s' FROM generate_series(0, 11000) i",
            "VALUES (time '23:59:59.999999'), ('00:00')",
        ],
    ),
    (
        "timestamp",
        &[
            "SELECT timestamp '0001-01-01' + i * interval '41 days 3.000001 s' FROM generate_series(0, 80000) i",
            "VALUES (timestamp '9999-12-31 23:59:59.999999'), ('1999-12-31 23:59:59.5')",
        ],
    ),
    (
        "timestamptz",
        &[
            "SELECT timestamptz '1800-01-01' + i * interval '1 day 3.1 s' FROM generate_series(0, 90000) i",
            "SELECT timestamptz '2024-01-01' + i * interval '7.3 s' FROM generate_series(0, 5000) i",
        ],
    ),
    (
        "inet",
        &[
            "SELECT ('10.' || i % 256 || '.' || i % 7 || '.9')::inet FROM generate_series(1, 300) i",
            "VALUES ('1.2.3.4/24'::inet), ('0.0.0.0/0'), ('255.255.255.255/32'), ('::1'), ('fe80::1/64'), ('::ffff:1.2.3.4'), ('::/0')",
        ],
    ),
    (
        "cidr",
        &["VALUES ('10.0.0.0/8'::cidr), ('1.2.3.4/32'), ('fe80::/10')"],
    ),
    ("mood", &["VALUES ('so so'::mood), ('fine'), (NULL)"]),
    ("positive", &["VALUES (1), (7), (NULL)"]),
    (
        "int4[]",
        &[
            "SELECT ARRAY[i, NULL, -i] FROM generate_series(1, 100) i",
            "VALUES ('{}'::int4[]), ('{7}'), (NULL)",
        ],
    ),
    (
        "text[]",
        &[
            "SELECT ARRAY['t' || i, 'with space', '', 'NULL', 'null', NULL, E'\\\\ \" , { }', E'\n\t', 'é☃'] FROM generate_series(1, 50) i",
            "VALUES ('{}'::text[])",
        ],
    ),
    (
        "numeric[]",
        &["SELECT ARRAY[i / 7.0, 0, NULL] FROM generate_series(1, 100) i"],
    ),
    (
        "timestamptz[]",
        &[
            "SELECT ARRAY[timestamptz '2024-01-01' + i * interval '1 h'] FROM generate_series(1, 100) i",
        ],
    ),
    ("bytea[]", &["VALUES (ARRAY['\\x0102'::bytea, '', NULL])"]),
    ("mood[]", &["VALUES ('{fine,\"so so\"}'::mood[])"]),
];

/// Values that stay text.
const LEFT: &[(&str, &str)] = &[
    ("numeric", "'Infinity'"),
    ("date", "'infinity'"),
    ("date", "'0044-03-15 BC'"),
    ("date", "'10000-01-01'"),
    ("time", "'24:00'"),
    ("timestamp", "'-infinity'"),
    ("timestamp", "'4713-01-01 BC'"),
    ("timestamptz", "'294276-12-31'"),
    ("int4[]", "'[0:1]={1,2}'"),
    ("int4[]", "'{{1,2},{3,4}}'"),
];

/// The values of a query: in `make test`, a seventh of those of which there are very many.
fn values_of(query: &str) -> String {
    let is_long = ["98000) i", "80000) i", "90000) i"]
        .iter()
        .any(|end| query.ends_with(end));
    if is_long && !is_full_campaign() {
        format!("{query} WHERE i % 7 = 0")
    } else {
        query.to_owned()
    }
}

const TYPES: &str = "CREATE TYPE mood AS ENUM ('bad', 'so so', 'fine'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);";

/// A session whose offsets have seconds in the nineteenth century.
async fn connect(c: &Cluster, database: &str) -> Client {
    let (client, connection) = tokio_postgres::Config::new()
        .host(c.sandbox.host())
        .user("postgres")
        .dbname(database)
        .options("-c TimeZone=Europe/Amsterdam")
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

async fn columns(client: &Client, table: &str) -> Option<Columns> {
    let asked = client
        .prepare(&format!("SELECT * FROM {table}"))
        .await
        .unwrap();
    Columns::of(asked.columns().iter().map(|c| c.type_()))
}

/// A table's rows as the server writes them in a format.
async fn copied(client: &Client, table: &str, format: &str) -> Vec<u8> {
    let copy = format!("COPY {table} TO STDOUT (FORMAT {format})");
    let mut rows = std::pin::pin!(client.copy_out(copy.as_str()).await.unwrap());
    let mut all = Vec::new();
    while let Some(piece) = rows.try_next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn tuples_match_the_servers() {
    let c = Cluster::start();
    c.create("tuples", TYPES);
    // In one psql, which takes longer to start than to do this.
    let mut made = String::new();
    for (i, (of, queries)) in CONVERTED.iter().enumerate() {
        made.push_str(&format!("CREATE TABLE t{i} (v {of});\n"));
        for query in *queries {
            made.push_str(&format!("INSERT INTO t{i} {};\n", values_of(query)));
        }
    }
    c.psql("tuples", &made);
    let client = connect(&c, "tuples").await;
    for (i, (of, _)) in CONVERTED.iter().enumerate() {
        let table = format!("t{i}");
        let columns = columns(&client, &table)
            .await
            .unwrap_or_else(|| panic!("{of} is not supported"));
        let text = copied(&client, &table, "text").await;
        let binary = copied(&client, &table, "binary").await;
        let ours = columns.tuples(&text);
        if ours.is_none() {
            let lines = text.split_inclusive(|b| *b == b'\n');
            let left: Vec<_> = lines
                .filter(|l| columns.tuples(l).is_none())
                .map(|l| l.escape_ascii().to_string())
                .collect();
            panic!("{of}: not converted: {left:?}");
        }
        let theirs = &binary[ENVELOPE.0..binary.len() - ENVELOPE.1];
        assert!(
            !theirs.is_empty() && ours.as_deref() == Some(theirs),
            "{of}: the bytes differ from the server's"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_cannot_be_converted_stay_text() {
    let c = Cluster::start();
    c.create("left", TYPES);
    let mut all = String::from("CREATE TABLE all_types (i int");
    let mut rows = String::new();
    let made = LEFT.iter().enumerate().map(|(i, (of, value))| {
        format!("CREATE TABLE t{i} (v {of});\nINSERT INTO t{i} VALUES ({value});\n")
    });
    c.psql("left", &made.collect::<String>());
    let client = connect(&c, "left").await;
    for (i, (of, value)) in LEFT.iter().enumerate() {
        let columns = columns(&client, &format!("t{i}")).await.unwrap();
        let text = copied(&client, &format!("t{i}"), "text").await;
        assert_eq!(columns.tuples(&text), None, "{of} {value}");
        all.push_str(&format!(", c{i} {of}"));
        rows.push_str(&format!(
            "INSERT INTO all_types (i, c{i}) VALUES ({i}, {value});"
        ));
    }
    // Chunks that can be converted, then one that cannot, in the middle of a table.
    let count = if is_full_campaign() { 60_000 } else { 20_000 };
    let fill = format!("INSERT INTO all_types (i) SELECT i FROM generate_series(1, {count}) i;");
    c.psql("left", &format!("{all}); {fill} {rows} {fill}"));
    let dump = c.dump_to_file("left", &[]);
    let source = c.content("left", &[]);
    for format in ["binary", "auto", "text"] {
        let job = job(&dump, format, pgrestored::job::OnExisting::Fail);
        let done = c
            .restore_with(&job, &[("restore-copy-format", format)])
            .await;
        assert!(done.failure.is_none(), "{format}: {:?}", done.result.error);
        assert_same(&c.content(format, &[]), &source, format);
    }
}

//! Dumps in every encoding that PostgreSQL supports. The expected result is that of `psql` or `pg_restore`: the source, with
//! which `make test` compares alone.

use std::path::{Path, PathBuf};

use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::job::OnExisting;

use crate::support::{Cluster, assert_same, is_full_campaign, normalised};

/// Client-only and database encodings, each with text. It includes second bytes that look like a backslash, and
/// characters of one and of four bytes.
const CLIENTS: &[(&str, &str)] = &[
    ("SJIS", "表ソ能ｱ"),
    ("SHIFT_JIS_2004", "表ソｱ"),
    ("GBK", "乗誠表"),
    ("BIG5", "功許蓋"),
    ("GB18030", "乗ßā𠀀"),
    ("UHC", "갂똠방"),
    ("EUC_JP", "表ソｱ丂"),
    ("KOI8R", "привет"),
    // Only characters that the server accepts from a client: it rejects most others of JOHAB, also from `psql`.
    ("JOHAB", "똠갸험헡"),
];

/// Encodings of databases.
const DATABASES: &[(&str, &str)] = &[
    ("EUC_TW", "中文"),
    ("EUC_JIS_2004", "表ソｱ"),
    ("EUC_KR", "가각"),
    ("EUC_CN", "中文"),
    ("LATIN5", "ş\u{85}ı"),
    ("SQL_ASCII", "é表"),
];

const FORMATS: [&[&str]; 5] = [
    &["-Fp"],
    &["-Fc"],
    &["-Fp", "--inserts"],
    &["-Fd"],
    &["-Fc", "--inserts", "--rows-per-insert=2"],
];

/// Without the roles whose names some encodings cannot express.
fn start() -> Cluster {
    let c = Cluster::start();
    c.psql("postgres", "DROP ROLE \"Röle \"\"C\"\"\"");
    c
}

fn database(c: &Cluster, name: &str, options: &str, sql: &[u8]) {
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    c.psql("postgres", &drop);
    let create = "TEMPLATE template0 STRATEGY file_copy";
    c.psql(
        "postgres",
        &format!("CREATE DATABASE {name} {create} {options}"),
    );
    if sql.is_empty() {
        return;
    }
    let file = c.scratch("make.sql");
    std::fs::write(&file, sql).unwrap();
    let mut psql = c.sandbox.command("psql");
    psql.args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-o",
        "/dev/null",
        "-d",
        name,
        "-f",
    ])
    .arg(&file);
    c.sandbox.run(&mut psql).unwrap();
}

/// Everything in a database that has text, as a dump writes it.
fn sample(s: &str) -> String {
    format!(
        r#"SET client_encoding = 'UTF8';
CREATE TABLE "t{s}" ("c{s}" text DEFAULT '{s}', b int CONSTRAINT "k{s}" CHECK (b <> 7));
COMMENT ON TABLE "t{s}" IS 'x{s}''\';
INSERT INTO "t{s}" VALUES ('{s}', 1), ('\{s}\', 2), (E'a\t{s}\n''{s}', 3), (NULL, 4);
CREATE VIEW v AS SELECT "c{s}" AS "z{s}", '{s}'::text AS y FROM "t{s}" WHERE "c{s}" <> '{s};';
CREATE FUNCTION f(a text) RETURNS text LANGUAGE sql AS $$ SELECT a || '{s}' /* {s} */ -- {s}
$$;
CREATE FUNCTION g(a text DEFAULT '{s}') RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT a; SELECT '{s}' AS text; END;
CREATE TYPE e AS ENUM ('{s}', 'b'); CREATE TABLE u (a e); INSERT INTO u VALUES ('{s}');
CREATE INDEX "i{s}" ON "t{s}" ("c{s}") WHERE "c{s}" <> '{s}';
SELECT lo_create(4242); COMMENT ON LARGE OBJECT 4242 IS '{s}';"#
    )
}

/// The database as SQL in its own encoding, each byte as a character.
fn content(c: &Cluster, database: &str) -> String {
    content_in(c, database, &[])
}

fn content_in(c: &Cluster, database: &str, args: &[&str]) -> String {
    let dump = c.dump(database, args);
    normalised(&dump.into_iter().map(char::from).collect::<String>())
}

fn dump(c: &Cluster, database: &str, args: &[&str]) -> PathBuf {
    let file = c.scratch(&uuid::Uuid::new_v4().to_string());
    c.sandbox
        .run(
            c.sandbox
                .command("pg_dump")
                .args(["-d", database, "-f"])
                .arg(&file)
                .args(args),
        )
        .unwrap();
    if file.is_dir() {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, open).unwrap();
        file.join("")
    } else {
        file
    }
}

/// The result of PostgreSQL's own tools for a file, in a database with these options.
fn theirs(c: &Cluster, file: &Path, format: &str, options: &str) -> String {
    database(c, "theirs", options, b"");
    let tool = if format == "-Fp" {
        "psql"
    } else {
        "pg_restore"
    };
    let mut command = c.sandbox.command(tool);
    match tool {
        "psql" => command.args([
            "-X",
            "-q",
            "-o",
            "/dev/null",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "theirs",
            "-f",
        ]),
        _ => command.args(["-d", "theirs"]),
    };
    c.sandbox.run(command.arg(file)).unwrap();
    content(c, "theirs")
}

async fn same_as_theirs(c: &Cluster, of: &str, args: &[&str], options: &str, what: &str) {
    let file = dump(c, of, args);
    let wanted = if is_full_campaign() {
        theirs(c, &file, args[0], options)
    } else {
        let has_own_encoding = !options.is_empty();
        content_in(
            c,
            of,
            if has_own_encoding {
                &[]
            } else {
                &["--encoding=UTF8"]
            },
        )
    };
    restored_as(c, &file, &wanted, &format!("{what} {args:?}")).await;
}

async fn restored_as(c: &Cluster, file: &Path, wanted: &str, what: &str) {
    c.psql("postgres", "DROP DATABASE IF EXISTS ours WITH (FORCE)");
    c.restore(file, "ours").await;
    assert_same(&content(c, "ours"), wanted, what);
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_in_client_encodings_match_postgresqls_tools() {
    let c = start();
    for (i, (encoding, text)) in CLIENTS.iter().enumerate() {
        database(&c, "src", "", sample(text).as_bytes());
        let option = format!("--encoding={encoding}");
        let args_of = |format: &'static [&'static str]| [format, &[option.as_str()]].concat();
        // SQL text always. `make test` restores archives of two encodings: their statements and rows are converted like those of
        // text.
        let text_format = FORMATS[i % 2 * 2];
        let text_file = dump(&c, "src", &args_of(text_format));
        let wanted = if is_full_campaign() {
            theirs(&c, &text_file, text_format[0], "")
        } else {
            content(&c, "src")
        };
        let what = format!("{encoding} {text_format:?}");
        restored_as(&c, &text_file, &wanted, &what).await;
        if i % 6 != 0 && !is_full_campaign() {
            continue;
        }
        let archive_format = FORMATS[[1, 3, 4][i / 3 % 3]];
        let archive = dump(&c, "src", &args_of(archive_format));
        let what = format!("{encoding} {archive_format:?}");
        restored_as(&c, &archive, &wanted, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_in_other_encodings_match_postgresqls_tools() {
    let c = start();
    for (i, (encoding, text)) in DATABASES.iter().enumerate() {
        let options = format!("ENCODING '{encoding}' LOCALE 'C'");
        database(&c, "src", &options, sample(text).as_bytes());
        same_as_theirs(&c, "src", FORMATS[[1, 3, 4][i % 3]], &options, encoding).await;
        // Text that does not create its database goes into one with the server's encoding, as with psql. `make test` restores
        // that of two encodings.
        let is_its_turn = i % 2 == 0 && i < 4 || is_full_campaign();
        if *encoding != "SQL_ASCII" && is_its_turn {
            same_as_theirs(&c, "src", FORMATS[i / 2 % 2 * 2], "", encoding).await;
        }
    }
}

/// Bytes that are invalid in the encoding, and codes without a Unicode character.
#[tokio::test(flavor = "multi_thread")]
async fn text_that_utf8_cannot_express_is_kept_as_bytes() {
    let c = start();
    // Formats in `make test`: archives with and without INSERTs, and text with both.
    for (encoding, s, tested) in [
        ("SQL_ASCII", &b"caf\xe9\xe0"[..], &[1, 2][..]),
        ("EUC_JP", b"\xfe\xfe\xa4\xa2", &[2, 4][..]),
    ] {
        let make = format!("SET client_encoding = '{encoding}';");
        let sql = [
            make.as_bytes(),
            b"CREATE TABLE t (x text DEFAULT '",
            s,
            b"'); INSERT INTO t VALUES ('",
            s,
            b"\\'), ('",
            s,
            b"');",
            b"COMMENT ON TABLE t IS '",
            s,
            b"'; CREATE VIEW v AS SELECT x, '",
            s,
            b"'::text AS y FROM t;",
            b"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '",
            s,
            b"' $$;",
        ];
        let options = format!("ENCODING '{encoding}' LOCALE 'C'");
        database(&c, "src", &options, &sql.concat());
        let source = content(&c, "src");
        for (f, format) in FORMATS.iter().enumerate().skip(1) {
            if !tested.contains(&f) && !is_full_campaign() {
                continue;
            }
            let text = format[0] == "-Fp" && encoding != "SQL_ASCII";
            let more: &[&str] = if text { &["-C"] } else { &[] };
            let file = dump(&c, "src", &[*format, more].concat());
            c.psql("postgres", "DROP DATABASE IF EXISTS ours WITH (FORCE)");
            let result = c.restore(&file, "ours").await;
            let what = format!("{encoding} {format:?}");
            assert_same(&content(&c, "ours"), &source, &what);
            assert_eq!(result.rows, 2, "{encoding} {format:?}");
        }
    }
    // A name must be convertible to UTF-8, and no session can use a database in MULE_INTERNAL.
    let named = "ENCODING 'SQL_ASCII' LOCALE 'C'";
    let formats = [&["-Fc"][..], &["-Fp", "-C"]];
    for (tested, (options, sql)) in [
        (named, &b"CREATE TABLE \"caf\xe9\" (a int);"[..]),
        (
            "ENCODING 'MULE_INTERNAL' LOCALE 'C'",
            b"CREATE TABLE t (a int);",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        database(&c, "src", options, sql);
        for (f, format) in formats.into_iter().enumerate() {
            if f != tested && !is_full_campaign() {
                continue;
            }
            let done = c
                .try_restore(&dump(&c, "src", format), "refused", OnExisting::Fail)
                .await;
            let failure = done
                .failure
                .unwrap_or_else(|| panic!("{options} {format:?}"));
            assert_eq!(failure, R::ArchiveUnsupported, "{options} {format:?}");
            assert_ne!(
                done.result.error.unwrap().blame,
                Blame::Backup,
                "{options} {format:?}"
            );
        }
    }
    assert!(c.leftovers().is_empty());
}

/// `pg_dump -C` writes the encoding and locale of the database; text without it has neither.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_created_with_the_options_of_the_text() {
    let c = start();
    let of = |name: &str| {
        let sql = "SELECT pg_encoding_to_char(encoding), datlocprovider, datcollate, coalesce(daticulocale, '-') FROM pg_database";
        c.psql("postgres", &format!("{sql} WHERE datname = '{name}'"))
    };
    c.psql("postgres", "CREATE DATABASE plain TEMPLATE template0");
    for (n, (options, other)) in [
        (
            "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'",
            "--encoding=LATIN9",
        ),
        ("ENCODING 'LATIN1' LOCALE 'C'", "--encoding=UTF8"),
    ]
    .into_iter()
    .enumerate()
    {
        database(
            &c,
            "src",
            options,
            "SET client_encoding = 'UTF8'; CREATE TABLE t AS SELECT 'é'::text".as_bytes(),
        );
        for (a, (args, wanted)) in [
            (&["-Fp", "-C"][..], of("src")),
            (&["-Fp", "-C", other], of("src")),
            (&["-Fp", "--encoding=LATIN1"], of("plain")),
            (&["-Fp"], of("plain")),
            (&["-Fc", "--encoding=LATIN1"], of("src")),
        ]
        .into_iter()
        .enumerate()
        {
            // `make test` writes a database in every other way.
            if a % 2 != n && !is_full_campaign() {
                continue;
            }
            c.psql("postgres", "DROP DATABASE IF EXISTS ours WITH (FORCE)");
            c.restore(&dump(&c, "src", args), "ours").await;
            assert_eq!(of("ours"), wanted, "{options} {args:?}");
            assert_eq!(
                c.psql("ours", "SET client_encoding = 'UTF8'; TABLE t"),
                "é",
                "{options} {args:?}"
            );
        }
    }
}

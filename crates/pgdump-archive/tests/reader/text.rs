//! SQL text without a server: what is read of it, what is rejected with name and line, and how much memory it
//! takes.

use std::io::Read;

use pgdump_archive::ArchiveError;
use pgdump_archive::{
    Archive, ArchiveSource, Chunk, DataSink, DecryptionKeys, Limits, Statement, TocEntry,
};

use crate::{ArchiveErrorKind, kind};

const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\n";
const END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n";

fn dump(body: &str) -> String {
    format!("{HEAD}{body}{END}")
}

/// Records everything in its order, as text.
#[derive(Default)]
struct TextRecorder(Vec<String>);

impl DataSink for TextRecorder {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.0.push(format!("rows of {}", entry.tag));
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        if let Chunk::Rows { text, .. } | Chunk::Statements { text, .. } = chunk {
            self.0
                .push(String::from_utf8_lossy(&text).trim().to_owned());
        }
        Ok(())
    }

    fn end(&mut self, _entry: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }

    fn statement(&mut self, statement: Statement) -> Result<(), ArchiveError> {
        self.0.push(statement.text);
        Ok(())
    }
}

fn read_of(text: &[u8], database: Option<&str>) -> Result<(Vec<String>, bool), ArchiveError> {
    let origin = ArchiveSource::once(std::io::Cursor::new(text.to_vec()));
    let archive = Archive::open_database(
        origin,
        Limits::default(),
        &DecryptionKeys::default(),
        database,
    )?;
    let (completeness, mut all) = (archive.completeness(), TextRecorder::default());
    archive.read_data(&mut all)?;
    Ok((all.0, completeness.get() == Some(&true)))
}

fn read(text: &str) -> Result<(Vec<String>, bool), ArchiveError> {
    read_of(text.as_bytes(), None)
}

const TABLE: &str = "CREATE TABLE public.t (a int);\nCOPY public.t (a) FROM stdin;\n1\n\\.\n";

#[test]
fn common_texts_are_read_and_their_completeness_is_known() {
    let d = dump(TABLE);
    let stripped: String = d
        .lines()
        .filter(|l| !l.starts_with("--"))
        .map(|l| format!("{l}\n"))
        .collect();
    for (what, text, wanted) in [
        ("unchanged", d.clone(), true),
        (
            "settings around it",
            format!("SET session_replication_role = replica;\n{d}RESET ALL;\n"),
            true,
        ),
        ("in a transaction", format!("BEGIN;\n{d}COMMIT;\n"), true),
        (
            "with a transaction that is rolled back",
            format!("{d}BEGIN;\nSET work_mem = '1MB';\nROLLBACK;\n"),
            true,
        ),
        (
            "with transactions under other names",
            format!(
                "START TRANSACTION;\nABORT;\nBEGIN WORK;\nROLLBACK WORK;\nBEGIN;\nCOMMIT WORK AND CHAIN;\n\
                 ROLLBACK TRANSACTION AND NO CHAIN;\nBEGIN;\nABORT AND CHAIN;\nEND TRANSACTION;\n{d}"
            ),
            true,
        ),
        (
            "with psql commands",
            format!("\\set ON_ERROR_STOP on\n\\echo x\n{d}\\timing\nANALYZE;\n"),
            true,
        ),
        (
            "two of them",
            format!(
                "{}{}",
                dump("CREATE TABLE public.t (a int);\n"),
                dump("COPY public.t (a) FROM stdin;\n1\n\\.\n")
            ),
            true,
        ),
        ("without comments", stripped, false),
        (
            "by hand",
            "CREATE TABLE u(id int);\nINSERT INTO u VALUES (1)".into(),
            false,
        ),
        (
            "with more after it",
            format!("{d}CREATE TABLE more();\n"),
            false,
        ),
        ("with \\q", format!("{d}\\q\nno SQL at all\n"), true),
    ] {
        let (all, is_complete) = read(&text).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(is_complete, wanted, "{what}");
        assert!(
            all.iter().any(|s| s.starts_with("rows of")),
            "{what}: {all:?}"
        );
    }
}

/// What may change rows and was not written by `pg_dump` is known by its line, wherever it is.
#[test]
fn statements_that_pg_dump_does_not_write_are_found() {
    let inside = |statement: &str| dump(&format!("{TABLE}{statement}\n"));
    let behind = |statement: &str| format!("{}{statement}\n", dump(TABLE));
    let line_of = |text: &str| {
        let origin = ArchiveSource::once(std::io::Cursor::new(text.as_bytes().to_vec()));
        let archive = Archive::open(origin, Limits::default(), &DecryptionKeys::default());
        let archive = archive.unwrap();
        let found = archive.foreign_statement();
        archive.read_data(&mut TextRecorder::default()).unwrap();
        found.get().copied()
    };
    for (statement, is_foreign) in [
        ("INSERT INTO public.t VALUES (now());", true),
        ("INSERT INTO public.t SELECT 1;", true),
        ("UPDATE public.t SET a = 2;", true),
        (
            "WITH x AS (SELECT 1) INSERT INTO public.t SELECT * FROM x;",
            true,
        ),
        ("SELECT public.f();", true),
        ("DO $$ BEGIN END $$;", true),
        ("SELECT pg_catalog.setval('public.s', 1, true);", false),
        ("SET work_mem = '1MB';", false),
    ] {
        for text in [inside(statement), behind(statement)] {
            let line = text.lines().position(|l| l == statement).unwrap() as u64 + 1;
            assert_eq!(line_of(&text), is_foreign.then_some(line), "{statement}");
        }
    }
    // These are also written by pg_dump, where it writes.
    for statement in [
        "INSERT INTO public.t VALUES (1);",
        "CREATE TABLE public.u ();",
    ] {
        assert_eq!(line_of(&inside(statement)), None, "{statement}");
        assert!(line_of(&behind(statement)).is_some(), "{statement}");
    }
}

#[test]
fn truncated_or_harmful_text_is_refused_with_name_and_line() {
    let d = dump(TABLE);
    for (what, text, wanted, said) in [
        (
            "a cut dump",
            d[..d.len() - 45].to_owned(),
            ArchiveErrorKind::Corrupt,
            "is missing",
        ),
        (
            "a second one that is cut",
            format!("{d}{}", &d[..d.len() - 45]),
            ArchiveErrorKind::Corrupt,
            "is missing",
        ),
        (
            "a dump in a cut one",
            format!("{HEAD}{d}"),
            ArchiveErrorKind::Corrupt,
            "another one begins in line",
        ),
        (
            "a transaction that is cut",
            format!("BEGIN;\n{d}"),
            ArchiveErrorKind::Corrupt,
            "begins in line 1",
        ),
        (
            "a transaction that is rolled back to a savepoint",
            format!("{d}BEGIN;\nSAVEPOINT a;\nROLLBACK TO SAVEPOINT a;\n"),
            ArchiveErrorKind::Corrupt,
            "COMMIT is missing",
        ),
        (
            "a transaction that is rolled back to a savepoint, in other words",
            format!("{d}BEGIN;\nSAVEPOINT a;\nROLLBACK WORK TO a;\n"),
            ArchiveErrorKind::Corrupt,
            "COMMIT is missing",
        ),
        (
            "a transaction that begins at the end of another one",
            format!("{d}BEGIN;\nROLLBACK AND CHAIN;\n"),
            ArchiveErrorKind::Corrupt,
            "COMMIT is missing",
        ),
        (
            "a transaction that begins at the end of another one, in other words",
            format!("{d}BEGIN;\nCOMMIT WORK AND CHAIN;\n"),
            ArchiveErrorKind::Corrupt,
            "COMMIT is missing",
        ),
        (
            "stderr first",
            format!("pg_dump: warning: x\n{d}"),
            ArchiveErrorKind::Corrupt,
            "line 1: a message of pg_dump",
        ),
        (
            "stderr last",
            format!("{d}pg_dump: warning: x\n"),
            ArchiveErrorKind::Corrupt,
            "a message of pg_dump",
        ),
        (
            "a program",
            format!("{d}\\! touch x\n"),
            ArchiveErrorKind::Limit,
            "the psql command \\!",
        ),
        (
            "a file",
            format!("\\i x.sql\n{d}"),
            ArchiveErrorKind::Limit,
            "line 1: the psql command \\i",
        ),
        (
            "a variable",
            format!("\\set a 1\nSELECT :a;\n{d}"),
            ArchiveErrorKind::Limit,
            "line 2: psql would replace",
        ),
        (
            "another database",
            format!("\\connect other\n{d}"),
            ArchiveErrorKind::Limit,
            "line 1: \\connect",
        ),
        (
            "a prepared transaction",
            dump("SELECT 1;PREPARE TRANSACTION 'x';"),
            ArchiveErrorKind::Unsupported,
            "line 8: a prepared transaction",
        ),
        (
            "text after COPY",
            dump("COPY public.t (a) FROM stdin; SELECT 1;\n\\.\n"),
            ArchiveErrorKind::Limit,
            "COPY is followed by other text",
        ),
        (
            "a command of psql behind a statement",
            format!("{d}SELECT 1 \\gset\n"),
            ArchiveErrorKind::Limit,
            "a psql command in a statement",
        ),
        (
            "rows without their COPY",
            format!("{d}SELECT\t\\N\n"),
            ArchiveErrorKind::Unsupported,
            "a psql command in a statement",
        ),
        (
            "COPY with options",
            dump("COPY public.t (a) FROM stdin WITH (FORMAT csv);\n1\n\\.\n"),
            ArchiveErrorKind::Limit,
            "COPY has options",
        ),
        (
            "COPY with what is no option",
            dump("COPY public.t (a) FROM stdin stdin;\n1\n\\.\n"),
            ArchiveErrorKind::Unsupported,
            "COPY has options",
        ),
        (
            "COPY of a program's rows",
            dump("COPY public.t (a) FROM PROGRAM 'id';\n"),
            ArchiveErrorKind::Limit,
            "COPY is not FROM stdin",
        ),
        (
            "COPY from nowhere",
            dump("COPY public.t (a) FROM stdim;\n"),
            ArchiveErrorKind::Unsupported,
            "COPY is not FROM stdin",
        ),
        (
            "another encoding",
            format!("{d}{}", d.replace("UTF8", "LATIN1")),
            ArchiveErrorKind::Limit,
            "client_encoding changes from UTF8 to LATIN1",
        ),
    ] {
        let e = read(&text).err().unwrap_or_else(|| panic!("{what}"));
        assert_eq!(kind(&e), wanted, "{what}: {e}");
        assert!(e.to_string().contains(said), "{what}: {e}");
    }
}

#[test]
fn a_second_connect_to_the_same_database_changes_nothing() {
    let text = dump(&format!(
        "CREATE DATABASE \"f 01\" WITH TEMPLATE = template0 ENCODING = 'UTF8';\n\\connect \"f 01\"\n\
         ALTER DATABASE \"f 01\" SET work_mem TO '3MB';\n\\connect \"f 01\"\n{TABLE}"
    ));
    assert!(read(&text).unwrap().1);
    let other = text.replacen(
        "\\connect \"f 01\"\n",
        "\\connect \"f 01\"\n\\connect postgres\n",
        1,
    );
    assert_eq!(kind(&read(&other).unwrap_err()), ArchiveErrorKind::Limit);
}

/// Names and statements whose number the text decides take no more memory than allowed.
#[test]
fn a_text_with_too_many_names_is_refused_without_blaming_the_backup() {
    let limits = Limits::default().with_memory(1 << 20);
    let many = |line: &dyn Fn(u32) -> String| (0..20_000).map(line).collect::<String>();
    let cluster_of = |body: String| {
        format!(
            "--\n-- PostgreSQL database cluster dump\n--\n\n{body}--\n-- PostgreSQL database cluster dump complete\n--\n\n"
        )
    };
    // Behind a statement that ends the preview.
    let late = |body: String| dump(&format!("{TABLE}{body}"));
    for (what, text, database, said) in [
        (
            "variables",
            late(many(&|i| format!("\\set v{i} 1\n"))),
            None,
            "variables",
        ),
        (
            "databases that are created",
            late(many(&|i| format!("CREATE DATABASE d{i};\n"))),
            None,
            "databases",
        ),
        (
            "databases of a cluster",
            cluster_of(many(&|i| format!("\\connect d{i}\n"))),
            Some("x"),
            "databases",
        ),
        (
            "savepoints",
            late(format!(
                "BEGIN;\n{}COMMIT;\n",
                many(&|i| format!("SAVEPOINT s{i};\n"))
            )),
            None,
            "savepoints",
        ),
        (
            "statements before the data",
            dump(&many(&|i| format!("SELECT {i};\n"))),
            None,
            "statements before the data",
        ),
        (
            "entries before the data",
            dump(&many(&|i| {
                format!("--\n-- Name: t{i}; Type: TABLE; Schema: s; Owner: o\n--\n")
            })),
            None,
            "statements before the data",
        ),
    ] {
        let origin = ArchiveSource::once(std::io::Cursor::new(text.into_bytes()));
        let keys = DecryptionKeys::default();
        let read = Archive::open_database(origin, limits, &keys, database)
            .and_then(|archive| archive.read_data(&mut TextRecorder::default()));
        let e = read.err().unwrap_or_else(|| panic!("{what}"));
        assert_eq!(kind(&e), ArchiveErrorKind::Limit, "{what}: {e}");
        assert!(e.to_string().contains(said), "{what}: {e}");
    }
}

/// Savepoints outside of a transaction, which the server rejects, are not kept; nor those that are released.
#[test]
fn any_number_of_savepoints_is_read_one_after_another() {
    let limits = Limits::default().with_memory(1 << 20);
    let outside = "SAVEPOINT a;\n".repeat(20_000);
    let within = "SAVEPOINT a;\nRELEASE a;\n".repeat(20_000);
    let unknown = "ROLLBACK TO b;\n".repeat(20_000);
    let text = dump(&format!(
        "{TABLE}{outside}BEGIN;\n{within}{unknown}COMMIT;\n"
    ));
    let origin = ArchiveSource::once(std::io::Cursor::new(text.into_bytes()));
    let archive = Archive::open(origin, limits, &DecryptionKeys::default()).unwrap();
    archive.read_data(&mut TextRecorder::default()).unwrap();
}

/// Counts the bytes that are read.
struct CountedReader<R>(R, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl<R: Read> Read for CountedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(out)?;
        self.1.fetch_add(read, std::sync::atomic::Ordering::Relaxed);
        Ok(read)
    }
}

/// Of one database of a cluster, no more is read ahead than of a dump of its own.
#[test]
fn the_preview_of_a_clusters_database_is_bounded() {
    let body = "COMMENT ON SCHEMA public IS 'standard';\n".repeat(60_000);
    let text = cluster().replacen(
        "CREATE TABLE public.one_t",
        &format!("{body}CREATE TABLE public.one_t"),
        1,
    );
    let count = std::sync::Arc::default();
    let input = CountedReader(
        std::io::Cursor::new(text.into_bytes()),
        std::sync::Arc::clone(&count),
    );
    let origin = ArchiveSource::once(input);
    let keys = DecryptionKeys::default();
    let archive = Archive::open_database(origin, Limits::default(), &keys, Some("one")).unwrap();
    let read = count.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1 << 20..2 << 20).contains(&read), "{read} bytes");
    let mut all = TextRecorder::default();
    archive.read_data(&mut all).unwrap();
    assert!(all.0.iter().filter(|s| s.starts_with("COMMENT")).count() == 60_000);
    assert!(all.0.contains(&"rows of public.one_t".to_owned()));
}

/// A database with definitions alone, or with nothing, is read to the end of the text.
#[test]
fn a_clusters_database_without_rows_has_its_name() {
    let rows = "COPY public.one_t (a) FROM stdin;\nx\n-- PostgreSQL database dump complete\n\\\\connect two\n\\.\n";
    let text = cluster().replacen(rows, "", 1);
    assert_ne!(text, cluster());
    let origin = ArchiveSource::once(std::io::Cursor::new(text.into_bytes()));
    let keys = DecryptionKeys::default();
    let archive = Archive::open_database(origin, Limits::default(), &keys, Some("one")).unwrap();
    assert_eq!(archive.header().database.as_deref(), Some("one"));
    let mut all = TextRecorder::default();
    archive.read_data(&mut all).unwrap();
    assert!(!all.0.iter().any(|s| s.contains("two")), "{:?}", all.0);
}

fn cluster() -> String {
    let of = |name: &str, rows: &str| {
        format!(
            "--\n-- Database \"{name}\" dump\n--\n\n{HEAD}CREATE DATABASE {name} WITH TEMPLATE = template0;\n\\connect {name}\n\n\
             CREATE TABLE public.{name}_t (a text);\nCOPY public.{name}_t (a) FROM stdin;\n{rows}\n\\.\n{END}"
        )
    };
    format!(
        "--\n-- PostgreSQL database cluster dump\n--\n\nSET default_transaction_read_only = off;\n\nCREATE ROLE app;\n\
         \\connect template1\n\n{}{}{}--\n-- PostgreSQL database cluster dump complete\n--\n\n",
        dump(""),
        // A row that looks like the end of the dump.
        of(
            "one",
            "x\n-- PostgreSQL database dump complete\n\\\\connect two"
        ),
        of("two", "y"),
    )
}

#[test]
fn one_database_of_a_cluster_is_read_by_name() {
    let text = cluster();
    let (all, is_complete) = read_of(text.as_bytes(), Some("two")).unwrap();
    assert!(is_complete);
    assert_eq!(
        all.iter().filter(|s| s.contains("_t")).count(),
        2,
        "{all:?}"
    );
    assert!(
        all.contains(&"rows of public.two_t".to_owned()) && all.contains(&"y".to_owned()),
        "{all:?}"
    );
    let e = read(&text).unwrap_err();
    assert_eq!(kind(&e), ArchiveErrorKind::NotFound);
    assert!(
        e.to_string().contains("--database (one, template1, two)"),
        "{e}"
    );
    let e = read_of(text.as_bytes(), Some("three")).unwrap_err();
    assert!(
        e.to_string()
            .contains("does not have database three; it has one, template1, two"),
        "{e}"
    );
    let cut = &text.as_bytes()[..text.len() - 30];
    assert_eq!(
        kind(&read_of(cut, Some("two")).unwrap_err()),
        ArchiveErrorKind::Corrupt
    );
    let roles = text.split("\\connect").next().unwrap().to_owned()
        + "--\n-- PostgreSQL database cluster dump complete\n--\n";
    assert!(read(&roles).unwrap_err().to_string().contains("--globals"));
    let one = dump("CREATE DATABASE one;\n\\connect one\n");
    assert!(read_of(one.as_bytes(), Some("one")).is_ok());
    assert_eq!(
        kind(&read_of(one.as_bytes(), Some("two")).unwrap_err()),
        ArchiveErrorKind::NotFound
    );
}

/// A text whose middle is `unit`, repeated.
struct Long {
    parts: Vec<(Vec<u8>, u64)>,
}

impl Read for Long {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.parts.first().is_some_and(|(_, times)| *times == 0) {
            self.parts.remove(0);
        }
        let Some((unit, times)) = self.parts.first_mut() else {
            return Ok(0);
        };
        let n = unit.len().min(out.len());
        out[..n].copy_from_slice(&unit[..n]);
        if n == unit.len() {
            *times -= 1
        } else {
            let rest = unit[n..].to_vec();
            *times -= 1;
            let again = (unit.clone(), *times);
            self.parts.splice(0..1, [(rest, 1), again]);
        }
        Ok(n)
    }
}

/// However long an item of the text is, its bytes are lexed a fixed number of times: twice the length takes about
/// twice as many bytes of lexemes, never four times as many.
#[test]
fn an_oversized_statement_is_refused_without_blaming_the_backup() {
    for middle in ["x", "\"\"", "''", "a ", "(", "$a$ $a$ "] {
        let unit = middle.repeat((64 << 10) / middle.len());
        let long = Long {
            parts: vec![
                (HEAD.as_bytes().to_vec(), 1),
                (
                    if middle == "''" || middle == "x" {
                        b"SELECT '".to_vec()
                    } else {
                        b"SELECT ".to_vec()
                    },
                    1,
                ),
                (unit.into_bytes(), 300),
            ],
        };
        let limits = Limits::default().with_memory(16 << 20);
        let e = Archive::open(
            ArchiveSource::once(long),
            limits,
            &DecryptionKeys::default(),
        )
        .err()
        .unwrap();
        assert_eq!(kind(&e), ArchiveErrorKind::Limit, "{middle}: {e}");
        assert!(
            matches!(e, ArchiveError::Limit(_)) && e.to_string().contains("line 8: a statement of"),
            "{e}"
        );
    }
}

//! Archives made to exhaust memory: each is refused with a specific message, within the worker's limit.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::memory::{FinishedProcess, peak_rss_of};

/// Whether this is a run of `make soak`.
fn is_full_campaign() -> bool {
    std::env::var("CAMPAIGN").is_ok_and(|c| c == "full")
}

/// Runs `inspect` with a limit of 128 MiB, of which 32 MiB are for what is kept of an archive.
fn inspect(file: &Path) -> FinishedProcess {
    let mut program = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    program
        .args(["inspect", file.to_str().unwrap()])
        .env("RESTORE_MEMORY_MIB", "128");
    peak_rss_of(&program)
}

/// A folder may have very many files, and most of their names could be those of pieces.
#[test]
fn a_long_listing_takes_little_memory() {
    const FILES: usize = 15_000;
    let folder = tempfile::tempdir().unwrap();
    let bucket = format!("file://{}", folder.path().display());
    let list = || {
        let mut list = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        list.args(["list", "--backup-bucket", &bucket]);
        let run = peak_rss_of(&list);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run
    };
    let without_files = list().peak_mib;
    for i in 0..FILES {
        std::fs::File::create(folder.path().join(format!("b{i:07}-nnn.dump"))).unwrap();
    }
    // Now and then, both threads of the program keep some freed memory.
    let runs = (0..3).map(|_| list());
    let run = runs.min_by_key(|run| run.peak_mib).unwrap();
    assert_eq!(run.stdout.lines().count(), 1 + FILES, "with a header");
    // Some 500 bytes for each: the object, and what is known of it.
    let more = run.peak_mib.saturating_sub(without_files);
    assert!(more < 14, "{more} MiB more than the program itself");
}

fn int(out: &mut Vec<u8>, v: i32) {
    out.push(u8::from(v < 0));
    out.extend(v.unsigned_abs().to_le_bytes());
}

fn text(out: &mut Vec<u8>, s: &[u8]) {
    int(out, s.len() as i32);
    out.extend(s);
}

fn head(entries: i32) -> Vec<u8> {
    let mut out = b"PGDMP\x01\x0e\x00\x04\x08\x01".to_vec();
    [0, 0, 0, 0, 1, 0, 120, 0]
        .iter()
        .for_each(|v| int(&mut out, *v));
    ["x", "15.4", "15.4"]
        .iter()
        .for_each(|s| text(&mut out, s.as_bytes()));
    int(&mut out, entries);
    out
}

fn entry(id: i32, definition: &[u8], dependencies: usize) -> Vec<u8> {
    let mut out = vec![];
    int(&mut out, id);
    int(&mut out, 0);
    ["0", "0", "c", "COMMENT"]
        .iter()
        .for_each(|s| text(&mut out, s.as_bytes()));
    int(&mut out, 2);
    text(&mut out, definition);
    ["", "", "public", "", "", "me", "false"]
        .iter()
        .for_each(|s| text(&mut out, s.as_bytes()));
    (0..dependencies).for_each(|_| text(&mut out, b"1"));
    int(&mut out, -1);
    out.extend([3, 0, 0, 0, 0, 0, 0, 0, 0]);
    out
}

/// Writes the entries after the header.
type WriteEntries<'a> = dyn Fn(&mut dyn Write) -> std::io::Result<()> + 'a;

#[test]
fn tables_of_contents_beyond_the_memory_limit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let long = vec![b' '; 20 << 20];
    let strings = |f: &mut dyn Write| (1..=4).try_for_each(|i| f.write_all(&entry(i, &long, 0)));
    let entries = |f: &mut dyn Write| (1..=40_000).try_for_each(|i| f.write_all(&entry(i, b"", 0)));
    let edges = |f: &mut dyn Write| f.write_all(&entry(1, b"", 1_600_000));
    // A string whose claimed length exceeds the file.
    let claim = |f: &mut dyn Write, length: i32| {
        let whole = entry(1, b"COMMENT", 0);
        let at = whole.windows(7).rposition(|w| w == b"COMMENT").unwrap() - 4;
        f.write_all(&whole[..at])?;
        f.write_all(&length.to_le_bytes())?;
        f.write_all(b"COMMENT")
    };
    let cases: [(&str, i32, &WriteEntries<'_>, &str); 6] = [
        (
            "strings",
            4,
            &strings,
            "the table of contents needs 161 MiB of memory, this worker has 32 MiB",
        ),
        (
            "entries",
            40_000,
            &entries,
            "MiB of memory, this worker has 32 MiB",
        ),
        (
            "dependencies",
            1,
            &edges,
            "MiB of memory, this worker has 32 MiB",
        ),
        ("length", 1, &|f| claim(f, 900 << 20), "ends early"),
        (
            "no length",
            1,
            &|f| claim(f, i32::MAX),
            "a string has the invalid length 2147483647",
        ),
        (
            "count",
            i32::MAX,
            &|f| f.write_all(&entry(1, b"", 0)),
            "ends early",
        ),
    ];
    for (name, count, write, message) in cases {
        let file = folder.path().join(format!("{name}.dump.gz"));
        let out = std::fs::File::create(&file).unwrap();
        let mut gz = flate2::write::GzEncoder::new(
            std::io::BufWriter::new(out),
            flate2::Compression::fast(),
        );
        gz.write_all(&head(count)).unwrap();
        write(&mut gz).unwrap();
        gz.finish().unwrap().flush().unwrap();
        let run = inspect(&file);
        assert!(
            run.code == 65 && run.stderr.contains(message),
            "{name}: {run:?}"
        );
        assert!(run.peak_mib < 128, "{name} used {} MiB", run.peak_mib);
    }
}

const HEAD: &str = "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\n";
const END: &str = "\n--\n-- PostgreSQL database dump complete\n--\n\n";

/// Comments, blanks, psql commands and rows are skipped with little memory; a statement needs little more
/// than its own length.
#[test]
fn long_texts_are_read_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mib = |byte: u8| vec![byte; 1 << 20];
    // More than each may take beside the program, which takes some 40 MiB.
    let length: u64 = if is_full_campaign() { 100 } else { 64 };
    for (name, before, middle, after, most, code) in [
        ("line comment", "--", mib(b'x'), "\n", 60, 0),
        ("block comment", "/*", mib(b'x'), "*/\n", 60, 0),
        ("blanks", "", mib(b' '), "\n", 60, 0),
        (
            "a row",
            "CREATE TABLE public.t (a text);\nCOPY public.t (a) FROM stdin;\n",
            mib(b'x'),
            "\n\\.\n",
            100,
            0,
        ),
        ("a command", "\\restrict ", mib(b'x'), "\n", 60, 65),
        (
            "a statement",
            "COMMENT ON TABLE public.t IS '",
            mib(b'x'),
            "';\n",
            60 + length + 10,
            0,
        ),
    ] {
        let path = folder.path().join("long.sql.gz");
        let mut out = flate2::write::GzEncoder::new(
            std::fs::File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        out.write_all(HEAD.as_bytes()).unwrap();
        out.write_all(before.as_bytes()).unwrap();
        (0..length).for_each(|_| out.write_all(&middle).unwrap());
        out.write_all(after.as_bytes()).unwrap();
        out.write_all(END.as_bytes()).unwrap();
        out.finish().unwrap();
        let mut verify = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        verify
            .args(["verify", "--depth", "archive", "./long.sql.gz"])
            .current_dir(folder.path());
        verify
            .env("EVIDENCE_LOCATION", "none")
            .env("RESTORE_MEMORY_MIB", "2000");
        let run = peak_rss_of(&verify);
        assert_eq!(run.code, code, "{name}: {}{}", run.stdout, run.stderr);
        assert!(run.peak_mib < most, "{name}: {} MiB", run.peak_mib);
        println!("{name}: {} MiB", run.peak_mib);
    }
}

const CLUSTER_HEAD: &str = "--\n-- PostgreSQL database cluster dump\n--\n\n";

/// What a text has very many of: a name, its head, what precedes them, each line, their number, and the answer.
type Many<'a> = (
    &'static str,
    &'static str,
    String,
    &'a dyn Fn(u32) -> String,
    u32,
    &'static str,
);

/// Texts with very many names, statements or tables: what is kept of each is small, and all of them are bounded.
#[test]
fn texts_with_very_many_names_are_refused_within_the_memory_limit() {
    let folder = tempfile::tempdir().unwrap();
    let data = "CREATE TABLE public.t (a text);\nCOPY public.t (a) FROM stdin;\nx\n\\.\n";
    let names = "keeping the databases, variables and savepoints of the SQL text needs";
    // Fewer long names are read in less time than many short ones. Those of SQL have at most 63 bytes.
    let long = "x".repeat(4_000);
    const LONG: u32 = 9_000;
    const SHORT: u32 = 300_000;
    let variable = |i: u32| format!("\\set {long}{i} 1\n");
    let created = |i: u32| format!("CREATE DATABASE x{i:062};\n");
    let savepoint = |i: u32| format!("SAVEPOINT x{i:062};\n");
    let connected = |i: u32| format!("\\connect x{i:062}\n");
    let statement = |_: u32| "a;".to_owned();
    let table = |i: u32| format!("COPY public.t/*{long}{i}*/ (a) FROM stdin;\n\\.\n");
    // They share one limit: if one kind of them were not counted, the others would not reach it.
    let together = |i: u32| {
        let (begin, end) = (LONG / 3, LONG / 3 + SHORT / 3);
        if i < begin {
            variable(i)
        } else if i < end {
            created(i)
        } else if i == end {
            format!("BEGIN;\n{}", savepoint(i))
        } else {
            savepoint(i)
        }
    };
    let before = data.to_owned();
    let cases: [Many<'_>; 4] = [
        (
            "names",
            HEAD,
            before.clone(),
            &together,
            LONG / 3 + SHORT / 3 * 2,
            names,
        ),
        (
            "databases of a cluster",
            CLUSTER_HEAD,
            String::new(),
            &connected,
            SHORT,
            names,
        ),
        (
            "statements",
            HEAD,
            String::new(),
            &statement,
            600_000,
            "keeping the statements before the data of the SQL text needs",
        ),
        (
            "tables",
            HEAD,
            before.clone(),
            &table,
            LONG,
            "the list of the backup's tables and large objects needs",
        ),
    ];
    // In `make soak`, each kind of names alone, too.
    let begun = format!("{data}BEGIN;\n");
    let alone: [Many<'_>; 3] = [
        ("variables", HEAD, before.clone(), &variable, LONG, names),
        ("created databases", HEAD, before, &created, SHORT, names),
        ("savepoints", HEAD, begun, &savepoint, SHORT, names),
    ];
    let alone = alone.into_iter().filter(|_| is_full_campaign());
    for (name, head, before, line, count, message) in cases.into_iter().chain(alone) {
        let path = folder.path().join("many.sql.gz");
        let mut out = flate2::write::GzEncoder::new(
            std::io::BufWriter::new(std::fs::File::create(&path).unwrap()),
            flate2::Compression::fast(),
        );
        out.write_all(head.as_bytes()).unwrap();
        out.write_all(before.as_bytes()).unwrap();
        (0..count).for_each(|i| out.write_all(line(i).as_bytes()).unwrap());
        out.write_all(END.as_bytes()).unwrap();
        out.finish().unwrap().flush().unwrap();
        let mut verify = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        verify
            .args(["verify", "--depth", "archive", "./many.sql.gz"])
            .current_dir(folder.path());
        if head == CLUSTER_HEAD {
            verify.args(["--database", "x"]);
        }
        verify
            .env("EVIDENCE_LOCATION", "none")
            .env("RESTORE_MEMORY_MIB", "128");
        let run = peak_rss_of(&verify);
        let said = format!("{}{}", run.stdout, run.stderr);
        assert!(said.contains(message), "{name}: {} {said}", run.code);
        assert!(said.contains("inconclusive"), "{name}: {said}");
        assert!(run.peak_mib < 128, "{name} used {} MiB", run.peak_mib);
        println!("{name}: {} MiB", run.peak_mib);
    }
}

//! Leak hunt: more than a thousand values of every kind are planted in a backup, and after masked restores of every format, also
//! after those that fail, none of them is in a file of the server, a result, a log, a trace, a metric or a page.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use memchr::memmem;
use pgrestored::job::OnExisting;
use pgrestored::progress::Progress;
use tokio_util::sync::CancellationToken;

use crate::support::otlp::OtlpReceiver;
use crate::support::{Cluster, bindir_of, is_full_campaign, job};

/// What planted texts begin with, and what values begin with that are to be kept: the search has to find those.
const MARK: &str = "PLANT7Q";
const KEPT: &str = "KEPT4Z";
/// The first of the planted numbers, times (microseconds since 2000), decimals, addresses and ids. Few other values begin so.
const BIG: i64 = 0x64C0_5A17_93B2_0000;
const TIME: i64 = 0x0061_2B7E_4D93_0000;
const DECIMAL: [u16; 3] = [7391, 4827, 6153];
const ADDRESS: &str = "fd7a:51c3:9be2:e417";
const ID: &str = "c0dedbad-7e57-4bad-9a11-";
const YEAR: &str = "3127-05-";

const KEY: &str = "a key of at least sixteen bytes";

/// Everything that a server writes to its log and its WAL, and WAL that is not removed.
const SPEAKING: &str = "-c log_statement=all -c log_min_duration_statement=0 -c log_error_verbosity=verbose \
     -c log_parameter_max_length=-1 -c log_parameter_max_length_on_error=-1 -c log_min_error_statement=debug5 \
     -c log_min_messages=debug1 -c log_temp_files=0 -c log_checkpoints=on -c full_page_writes=on -c wal_level=replica \
     -c wal_keep_size=8GB";

/// 50 rows of 25 planted columns, and smaller tables: rows that are left out, partitions, children.
fn source(xml: &str) -> String {
    let decimal: String = DECIMAL.iter().map(u16::to_string).collect();
    format!(
        "CREATE SCHEMA plant;
    CREATE TYPE plant.pair AS (a text, b bigint);
    CREATE DOMAIN plant.word AS text;
    CREATE DOMAIN plant.code AS bigint;
    CREATE TABLE plant.people (id int PRIMARY KEY, t text, v varchar(60) CONSTRAINT long CHECK (length(v) > 2), c char(40), n name,
        w plant.word, k plant.code, j json, jb jsonb, jk jsonb, x {xml}, ta text[], tm text[], p plant.pair, pa plant.pair[],
        ba bytea, bits varbit, num numeric, big bigint, at timestamp, day date, ip inet, u uuid, ts tsvector, r int8range,
        secret text UNIQUE, kept text, low text GENERATED ALWAYS AS (lower(t)) STORED);
    ALTER TABLE plant.people ALTER t SET STORAGE EXTERNAL;
    INSERT INTO plant.people
        SELECT i, m || repeat(' and ' || m, CASE WHEN i = 1 THEN 5000 ELSE 1 END), m || '-v', m || '-c', m || '-n', m || '-w', b,
            json_build_object('who', m, 'list', json_build_array(m, m)), jsonb_build_object('a', jsonb_build_array(m, m)),
            jsonb_build_object(m, m), ('<a b=\"' || m || '\">' || m || '</a>')::{xml}, ARRAY[m, m || ' \"x\"'], ARRAY[[m, 'a'], ['b', m]],
            (m, b)::plant.pair, ARRAY[(m, b)::plant.pair], convert_to(m, 'UTF8'),
            ('x' || encode(convert_to(m, 'UTF8'), 'hex'))::varbit, ('{decimal}' || lpad(i::text, 4, '0') || '.25')::numeric, b,
            timestamp '2000-01-01' + ({TIME} + 1000 + 10 * i) * interval '1 microsecond', ('{YEAR}' || 1 + i % 28)::date,
            ('{ADDRESS}::' || i)::inet, ('{ID}' || lpad(i::text, 12, '0'))::uuid, to_tsvector('simple', m), int8range(b, b + 9),
            m || '@example.org', '{KEPT}' || i
        FROM (SELECT i, '{MARK}' || i AS m, {BIG} + i AS b FROM generate_series(1, 50) i) planted;
    CREATE INDEX ON plant.people (lower(v));
    CREATE INDEX ON plant.people USING gin (jb);
    CREATE INDEX ON plant.people ((t || w)) WHERE id > 1;
    CREATE STATISTICS plant.pairs (mcv) ON v, c FROM plant.people;
    CREATE MATERIALIZED VIEW plant.seen AS SELECT t, v, num, at, u FROM plant.people;
    CREATE INDEX ON plant.seen (v);
    CREATE TABLE plant.gone (a text, b bytea);
    INSERT INTO plant.gone SELECT '{MARK}' || i, convert_to('{MARK}' || i, 'UTF8') FROM generate_series(1, 20) i;
    CREATE TABLE plant.mixed (v text, region text);
    INSERT INTO plant.mixed SELECT '{MARK}' || i, 'us' FROM generate_series(1, 20) i;
    INSERT INTO plant.mixed SELECT '{KEPT}' || i, 'eu' FROM generate_series(1, 20) i;
    CREATE TABLE plant.twice (a text, b text, UNIQUE (a, b));
    INSERT INTO plant.twice SELECT '{MARK}a' || i, '{MARK}b' || i FROM generate_series(1, 20) i;
    CREATE TABLE plant.log (id int, msg text) PARTITION BY RANGE (id);
    CREATE TABLE plant.log_old PARTITION OF plant.log FOR VALUES FROM (0) TO (10);
    CREATE TABLE plant.log_new PARTITION OF plant.log FOR VALUES FROM (10) TO (100);
    INSERT INTO plant.log SELECT i, 'login of {MARK}' || i FROM generate_series(1, 30) i;
    CREATE TABLE plant.parent (a text);
    CREATE TABLE plant.child (extra text) INHERITS (plant.parent);
    INSERT INTO plant.child SELECT '{MARK}' || i, '{MARK}' || i FROM generate_series(1, 20) i;
    CREATE TABLE plant.plain (a text);
    INSERT INTO plant.plain SELECT '{KEPT}' || i % 5 FROM generate_series(1, 200) i;
    SELECT lo_from_bytea(4711, convert_to('{MARK} in an object', 'UTF8'));
    ANALYZE;"
    )
}

const RULES: &str = r#"version: 1
unlisted: refuse
large_objects: none
tables:
  plant.people:
    columns:
      id: keep
      t: { fake: text }
      v: { fake: email }
      c: { hash: true }
      n: { hash: true }
      w: { hash: true }
      k: { set: "5" }
      j: { json: { "$.who": { fake: name }, "$.list[*]": { null: true } } }
      jb: { json: { "$.a": { fake: text } } }
      jk: { set: "{}" }
      x: { null: true }
      ta: { each: { hash: true } }
      tm: { each: { fake: text } }
      p: { set: "(x,1)" }
      pa: { set: "{}" }
      ba: { set: '\x00' }
      bits: { null: true }
      num: { digits: true }
      big: { hash: true }
      at: { shift: 400d, by: id }
      day: { set: "2000-01-01" }
      ip: { null: true }
      u: { hash: true }
      ts: { null: true }
      r: { null: true }
      secret: { fake: email }
      kept: keep
  plant.gone: { rows: none }
  plant.mixed:
    columns: { "*": keep }
    rows: { where: { region: [eu] } }
  plant.twice:
    columns: { a: { set: "x" }, b: { hash: true } }
  plant.log:
    columns: { id: keep, msg: { replace: { regex: "P[A-Z]+7Q[0-9]+", with: "somebody" } } }
  plant.parent:
    columns: { a: { truncate: 3 } }
  plant.child:
    columns: { a: { truncate: 3 }, extra: { template: "{a}" } }
  plant.plain:
    columns: { "*": keep }
"#;

/// A way in which planted values are written, as text or as the server stores them.
struct LeakPattern {
    name: &'static str,
    bytes: Vec<u8>,
}

fn patterns(c: &Cluster) -> Vec<LeakPattern> {
    let mut all = vec![];
    let mut add = |name: &'static str, bytes: &[u8]| {
        all.push(LeakPattern {
            name,
            bytes: bytes.to_vec(),
        });
    };
    add("text", MARK.as_bytes());
    add("text in lower case", MARK.to_lowercase().as_bytes());
    let hex: String = MARK.bytes().map(|b| format!("{b:02x}")).collect();
    add("hexadecimal", hex.as_bytes());
    let bits: String = MARK.bytes().map(|b| format!("{b:08b}")).collect();
    add("bits", bits.as_bytes());
    // The last two bytes, or four digits, differ from row to row.
    let digits = BIG.to_string();
    add("bigint", &digits.as_bytes()[..digits.len() - 5]);
    add("stored bigint", &BIG.to_le_bytes()[2..]);
    let decimal: String = DECIMAL.iter().map(u16::to_string).collect();
    add("numeric", decimal.as_bytes());
    let groups: Vec<u8> = DECIMAL.iter().flat_map(|d| d.to_le_bytes()).collect();
    add("stored numeric", &groups);
    let minute = c.psql(
        "src",
        "SELECT DISTINCT left(at::text, 16) FROM plant.people",
    );
    assert_eq!(minute.len(), 16, "{minute}");
    add("timestamp", minute.as_bytes());
    add("stored timestamp", &TIME.to_le_bytes()[2..]);
    add("date", YEAR.as_bytes());
    add("inet", ADDRESS.as_bytes());
    add("stored inet", &from_hex(ADDRESS));
    add("uuid", ID.as_bytes());
    add("stored uuid", &from_hex(ID));
    all
}

/// The bytes of hexadecimal digits with anything between them.
fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks_exact(2).map(|pair| {
        let pair = std::str::from_utf8(pair).unwrap();
        u8::from_str_radix(pair, 16).unwrap()
    });
    pairs.collect()
}

/// The patterns that these bytes have.
fn hits(patterns: &[LeakPattern], bytes: &[u8]) -> Vec<&'static str> {
    let found = patterns
        .iter()
        .filter(|p| memmem::find(bytes, &p.bytes).is_some());
    found.map(|p| p.name).collect()
}

/// Calls a function with each file under a folder.
fn each_file(folder: &Path, call: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            each_file(&entry.path(), call);
        } else if kind.is_file() {
            // The server may have removed it meanwhile.
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            call(&entry.path(), &bytes);
        }
    }
}

/// What is found in the files under a folder: pattern and file.
fn found(folder: &Path, patterns: &[LeakPattern]) -> Vec<(&'static str, PathBuf)> {
    let mut all = vec![];
    each_file(folder, &mut |file, bytes| {
        let names = hits(patterns, bytes).into_iter();
        all.extend(names.map(|name| (name, file.to_owned())));
    });
    all
}

/// The server that masked copies are restored to, and where the commands leave something.
struct Hunt {
    c: Cluster,
    temp: PathBuf,
    patterns: Vec<LeakPattern>,
    traces: OtlpReceiver,
    otlp: String,
    /// Everything that was said, and by whom.
    said: Vec<(String, Vec<u8>)>,
}

impl Hunt {
    async fn new(c: Cluster, source: &Cluster) -> Self {
        let traces = OtlpReceiver::default();
        Hunt {
            temp: c.open_folder("temp"),
            patterns: patterns(source),
            otlp: traces.start().await,
            traces,
            c,
            said: vec![],
        }
    }

    fn rules(&self, name: &str, text: &str) -> PathBuf {
        let file = self.c.scratch(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Restores in this process; keeps the result, the metrics and what the status page shows.
    async fn restore(&mut self, dump: &Path, target: &str, rules: &Path) {
        let what = dump.display().to_string();
        let flags = [("restore-mask", rules.to_str().unwrap()), ("mask-key", KEY)];
        let (app, progress) = (self.c.app(&flags), Arc::<Progress>::default());
        let job = job(dump, target, OnExisting::Fail);
        let run = app
            .manager
            .run(&job, progress.clone(), CancellationToken::new());
        let done = run.await;
        assert!(
            done.failure.is_none(),
            "{what}: {:?}",
            done.result.error.as_ref()
        );
        let result = serde_json::to_vec(&done.result).unwrap();
        let status = serde_json::to_vec(&progress.snapshot()).unwrap();
        let metrics = app.metrics.exposition().into_bytes();
        for said in [result, status, metrics] {
            self.said.push((what.clone(), said));
        }
        self.check_copy(target);
    }

    /// Values whose stored form is too short to be searched for, and that masked rows are there at all. Planted values must not be
    /// in these statements, which the server logs.
    fn check_copy(&self, target: &str) {
        let answers = [
            (
                "SELECT count(*) FROM plant.people WHERE length(t) > 2 AND low = lower(t)",
                "50",
            ),
            (
                "SELECT count(*) FROM plant.people WHERE day = '2000-01-01' AND ip IS NULL AND k = 5",
                "50",
            ),
            ("SELECT count(DISTINCT secret) FROM plant.people", "50"),
            (
                "SELECT count(*) FROM plant.seen JOIN plant.people USING (v, u)",
                "50",
            ),
            ("SELECT count(*) FROM plant.gone", "0"),
            (
                "SELECT count(*) || min(region) || max(region) FROM plant.mixed",
                "20eueu",
            ),
            (
                "SELECT count(*) FROM plant.log WHERE msg = 'login of somebody'",
                "30",
            ),
            (
                "SELECT count(*) FROM plant.child WHERE extra = a AND length(a) = 3",
                "20",
            ),
            (
                "SELECT coalesce(sum(length(lo_get(oid))), 0) FROM pg_largeobject_metadata",
                "0",
            ),
        ];
        // In one session.
        let all = answers.map(|(query, _)| query).join(";\n");
        let said = self.c.psql(target, &all);
        let wanted = answers.map(|(_, wanted)| wanted).join("\n");
        assert_eq!(said, wanted, "{target}: {all}");
    }

    /// Runs a command that logs as much as it can, and returns its exit code. What it says is kept.
    fn run(&mut self, args: &[&str], rules: &Path) -> i32 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("DB_HOST", self.c.sandbox.host())
            .env("DB_USER", "postgres")
            .env("RESTORE_MASK", rules)
            .env("MASK_KEY", KEY)
            .env("TMPDIR", &self.temp)
            .env("LOG_LEVEL", "trace")
            .env("LOG_FORMAT", "json")
            .env("RUST_LOG", "trace")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.otlp);
        let out = command.output().unwrap();
        assert!(!out.stderr.is_empty(), "{args:?} logged nothing");
        let what = args.join(" ");
        self.said.push((what.clone(), out.stdout));
        self.said.push((what, out.stderr));
        out.status.code().unwrap()
    }

    fn run_restore(&mut self, dump: &Path, target: &str, rules: &Path) -> i32 {
        let dump = dump.to_str().unwrap();
        let args = ["restore", dump, "--target", target, "--output", "json"];
        self.run(&args, rules)
    }

    /// A restore that fails for this reason, and leaves nothing.
    fn fail(&mut self, dump: &Path, rules: &Path, wanted: &str) {
        let code = self.run_restore(dump, "never", rules);
        let (what, said) = (dump.display(), self.last());
        assert_ne!(code, 0, "{what}: {said}");
        assert!(said.contains(wanted), "{what}: {wanted}: {said}");
        assert!(!self.c.databases().contains(&"never".to_owned()), "{what}");
        assert_eq!(self.c.leftovers(), Vec::<String>::new(), "{what}");
    }

    /// What was said last.
    fn last(&self) -> String {
        let last = &self.said[self.said.len() - 2..];
        let said = last.iter().map(|(_, said)| String::from_utf8_lossy(said));
        said.collect::<Vec<_>>().join("\n")
    }

    /// No planted value is anywhere; values that are kept are in the server's tables, WAL and log.
    fn check(&self) {
        self.c.psql("postgres", "CHECKPOINT");
        let host = Path::new(self.c.sandbox.host());
        for folder in [host, &self.temp] {
            let leaks = found(folder, &self.patterns);
            assert!(leaks.is_empty(), "{leaks:?}");
        }
        for (what, said) in &self.said {
            let leaks = hits(&self.patterns, said);
            let text = String::from_utf8_lossy(said);
            assert!(leaks.is_empty(), "{what}: {leaks:?}: {text}");
        }
        let requests = self.traces.requests();
        assert!(!requests.is_empty());
        let spans = format!("{requests:?}");
        assert_eq!(hits(&self.patterns, spans.as_bytes()), Vec::<&str>::new());
        let kept = [LeakPattern {
            name: "kept",
            bytes: KEPT.into(),
        }];
        let kept = found(host, &kept);
        for part in ["/base/", "/pg_wal/", "/log"] {
            let mut files = kept.iter().map(|(_, file)| file.to_str().unwrap());
            assert!(files.any(|file| file.contains(part)), "{part}: {kept:?}");
        }
    }
}

/// The search finds each kind of planted value where it is: in the source's tables, WAL and dumps.
fn check_search(source: &Cluster, patterns: &[LeakPattern], text: &[&Path]) {
    source.psql("postgres", "CHECKPOINT");
    let mut all = found(Path::new(source.sandbox.host()), patterns);
    for file in text {
        let names = hits(patterns, &std::fs::read(file).unwrap()).into_iter();
        all.extend(names.map(|name| (name, (*file).to_owned())));
    }
    for pattern in patterns {
        let is_found = all.iter().any(|(name, _)| *name == pattern.name);
        assert!(is_found, "{}", pattern.name);
    }
    let planted = source.psql(
        "src",
        "SELECT sum(num_nonnulls(t, v, c, n, w, k, j, jb, jk, x, ta, tm, p, pa, ba, bits, num, big, at, day, ip, u, ts, r, secret)) \
         FROM plant.people",
    );
    assert!(planted.trim().parse::<u32>().unwrap() > 1000, "{planted}");
}

/// The dump with one piece of its text replaced by another.
fn damaged(c: &Cluster, dump: &Path, name: &str, (from, to): (&[u8], &[u8])) -> PathBuf {
    let bytes = std::fs::read(dump).unwrap();
    let at = memmem::find(&bytes, from).unwrap_or_else(|| panic!("{name}"));
    let file = c.scratch(name);
    let all = [&bytes[..at], to, &bytes[at + from.len()..]].concat();
    std::fs::write(&file, all).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_value_is_in_any_file() {
    let source = Cluster::start();
    source.create("src", &self::source("xml"));
    let folder = source.dump_to_file("src", &["-Fd", "--compress=1"]);
    let custom = source.dump_to_file("src", &["--compress=0"]);
    let plain = source.dump_to_file("src", &["-Fp"]);
    let inserts = source.dump_to_file("src", &["-Fp", "--inserts"]);
    let columns = source.dump_to_file("src", &["-Fp", "--column-inserts", "--rows-per-insert=7"]);
    let dumps = [
        PathBuf::from(format!("{}/", folder.display())),
        source.dump_through_pipe("src", &["--compress=9"]),
        source.dump_to_file("src", &["-Ft"]),
        source.dump_to_file("src", &["--inserts", "--rows-per-insert=3"]),
        plain.clone(),
        columns,
    ];
    let mut hunt = Hunt::new(Cluster::start_with(SPEAKING), &source).await;
    check_search(&source, &hunt.patterns, &[&plain, &inserts]);
    let rules = hunt.rules("rules.yaml", RULES);
    for (i, dump) in dumps.iter().enumerate() {
        hunt.restore(dump, &format!("copy{i}"), &rules).await;
    }
    for (dump, target) in [(&custom, "said_custom"), (&inserts, "said_inserts")] {
        let code = hunt.run_restore(dump, target, &rules);
        assert_eq!(code, 0, "{}", hunt.last());
        hunt.check_copy(target);
    }
    check_failures(&mut hunt, &source, [&custom, &plain, &inserts]);
    check_proof(&mut hunt, &custom, &rules);
    hunt.check();
}

/// Restores that fail: what the server refuses after masking, and what of a row cannot be read. `make test` gives the server
/// the rows of an archive and of text by turns.
fn check_failures(hunt: &mut Hunt, source: &Cluster, [custom, plain, inserts]: [&Path; 3]) {
    for (n, (name, from, to, wanted)) in [
        ("check", "v: { fake: email }", "v: { set: x }", "23514"),
        (
            "unique",
            "b: { hash: true } }\n",
            "b: { set: y } }\n",
            "23505",
        ),
        (
            "type",
            "p: { set: \"(x,1)\" }",
            "p: { set: \"(x,1,2)\" }",
            "22P02",
        ),
        ("new_column", "      ip: { null: true }\n", "", "column ip"),
        ("objects", "large_objects: none\n", "", "large objects"),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(RULES.contains(from), "{name}");
        let rules = hunt.rules(&format!("{name}.yaml"), &RULES.replace(from, to));
        for (d, dump) in [custom, inserts].into_iter().enumerate() {
            if d == n % 2 || is_full_campaign() {
                hunt.fail(dump, &rules, wanted);
            }
        }
    }
    let rules = hunt.rules("rules.yaml", RULES);
    let mark = |before: &str| format!("{before}{MARK}").into_bytes();
    let decimal = |between: &str| format!("{}{between}{}", DECIMAL[0], DECIMAL[1]).into_bytes();
    let header = b"COPY plant.mixed (v, region) FROM stdin;\n".to_vec();
    for (name, dump, from, to, wanted) in [
        (
            "fields.dump",
            custom,
            mark("1\t"),
            mark("1 "),
            "as many fields",
        ),
        (
            "fields.sql",
            plain,
            mark("1\t"),
            mark("1 "),
            "as many fields",
        ),
        (
            "json.sql",
            plain,
            mark("{\"who\" : \""),
            mark("{\"who : \""),
            "not JSON",
        ),
        (
            "json_inserts.sql",
            inserts,
            mark("{\"who\" : \""),
            mark("{\"who : \""),
            "not JSON",
        ),
        (
            "values.sql",
            inserts,
            mark("VALUES ('"),
            mark("VALUES '"),
            "INSERT",
        ),
        (
            "decimal.sql",
            plain,
            decimal(""),
            decimal("x"),
            "not a number",
        ),
        ("header.sql", plain, header, Vec::new(), "line"),
    ] {
        let dump = damaged(source, dump, name, (from.as_slice(), to.as_slice()));
        hunt.fail(&dump, &rules, wanted);
    }
}

/// A verification reads the rows as they are, in a sandbox. What it leaves has none of them.
fn check_proof(hunt: &mut Hunt, custom: &Path, rules: &Path) {
    let bucket = hunt.c.open_folder("bucket");
    std::fs::copy(custom, bucket.join("a.dump")).unwrap();
    let at = format!("file://{}", bucket.display());
    let sandboxes = hunt.c.sandboxes().display().to_string();
    let page = bucket.join("proof.html").display().to_string();
    let reports = bucket.join("reports.html").display().to_string();
    let bucket_flags = ["--backup-bucket", &at];
    let verify = [
        "verify",
        "a.dump",
        "--html",
        &page,
        "--sandbox-dir",
        &sandboxes,
    ];
    let code = hunt.run(&[&verify[..], &bucket_flags].concat(), rules);
    assert_eq!(code, 0, "{}", hunt.last());
    let report = ["report", "--html", &reports];
    let code = hunt.run(&[&report[..], &bucket_flags].concat(), rules);
    assert_eq!(code, 0, "{}", hunt.last());
    std::fs::remove_file(bucket.join("a.dump")).unwrap();
    let mut files = 0;
    each_file(&bucket, &mut |file, bytes| {
        let leaks = hits(&hunt.patterns, bytes);
        assert!(leaks.is_empty(), "{}: {leaks:?}", file.display());
        files += 1;
    });
    // The pages and the evidence.
    assert!(files > 2, "{files}");
}

/// Dumps of PostgreSQL 18 can have planner statistics, whose most common values and histograms are values of rows.
#[tokio::test(flavor = "multi_thread")]
async fn no_planted_value_is_in_planner_statistics() {
    let Some(bindir) = bindir_of(18) else {
        return;
    };
    let source = Cluster::of(&bindir, "");
    // This server may be built without XML.
    source.create("src", &self::source("text"));
    let dumps = [&["-Fc"][..], &["-Fp"], &["-Fp", "--inserts"]];
    let dumps =
        dumps.map(|format| source.dump_to_file("src", &[format, &["--statistics"]].concat()));
    let text = std::fs::read_to_string(&dumps[1]).unwrap();
    let statistics = text.split("pg_restore_attribute_stats").skip(1);
    let (planted, kept): (Vec<&str>, Vec<&str>) = statistics
        .map(|call| call.split(';').next().unwrap_or_default())
        .filter(|call| call.contains(MARK) || call.contains(KEPT))
        .partition(|call| call.contains(MARK));
    assert!(planted.len() > 5 && !kept.is_empty(), "{}", planted.len());
    let mut hunt = Hunt::new(Cluster::of(&bindir, SPEAKING), &source).await;
    let rules = hunt.rules("rules.yaml", RULES);
    for (i, dump) in dumps.iter().enumerate() {
        let target = format!("copy{i}");
        if i == 0 {
            let code = hunt.run_restore(dump, &target, &rules);
            assert_eq!(code, 0, "{}", hunt.last());
            hunt.check_copy(&target);
        } else {
            hunt.restore(dump, &target, &rules).await;
        }
        // Those of a table that is kept are restored or made anew.
        let query = "SELECT count(*) FROM pg_stats WHERE schemaname = 'plant' AND tablename IN ('plain', 'people') \
             AND attname IN ('a', 't')";
        assert_eq!(hunt.c.psql(&target, query).trim(), "2");
    }
    hunt.check();
}

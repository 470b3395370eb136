//! Verification: it finds what is wrong, raises no false alarms, and its evidence is valid.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pgdump_archive::{Archive, ArchiveSource, ContentDigest, DecryptionKeys, DigestSink, Limits};
use pgrestored::app::App;
use pgrestored::config::Config;
use pgrestored::error::{Blame, FailureReason as R};
use pgrestored::event::Verdict;
use pgrestored::job::{BackupRef, VerifyJob};
use pgrestored::policy::{Depth, Trigger};
use pgrestored::proof::{BackupContents, Check, CheckStatus, VerificationReport};
use pgrestored::sandbox::find_bindir;
use pgrestored::verification::{
    CheckResults, Checks, Envelope, History, RestoredDatabase, evidence_name, examine, tables_of,
};
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::{Cluster, bindir_of, is_full_campaign, raw_config};

const OURS: &str = env!("CARGO_BIN_EXE_pgrestored");
const SMALL: &str = include_str!("../fixtures/small.sql");

/// Evidence of a worker with this key is signed.
pub const SIGNED: [(&str, &str); 1] = [(
    "evidence-signing-key",
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDbVgGGVPP41q8bSdZVvrHEcxLMJgHhQfjK1NcvNr7gF\n-----END PRIVATE KEY-----\n",
)];

/// A folder as the bucket, sandboxes of one version.
pub struct VerificationSetup {
    pub folder: tempfile::TempDir,
    bindir: PathBuf,
}

impl VerificationSetup {
    fn of(bindir: &Path) -> Self {
        VerificationSetup {
            folder: tempfile::tempdir().unwrap(),
            bindir: bindir.to_owned(),
        }
    }

    pub fn start() -> Self {
        Self::of(&find_bindir(&[]).unwrap())
    }

    pub fn app(&self, more: &[(&str, &str)]) -> App {
        let bucket = format!("file://{}", self.folder.path().display());
        // Sandboxes belong to one user.
        let me = std::fs::metadata("/proc/self").unwrap();
        let uid = std::os::unix::fs::MetadataExt::uid(&me);
        let sandboxes = std::env::temp_dir()
            .join(format!("pgrestored-test-sandboxes-{uid}"))
            .display()
            .to_string();
        let bindir = self.bindir.display().to_string();
        let mut flags = vec![
            ("backup-bucket", bucket.as_str()),
            ("pg-bindir", &bindir),
            ("sandbox-dir", &sandboxes),
            ("sandbox-isolation", "require"),
            ("restore-jobs", "2"),
            ("db-host", "/nowhere"),
        ];
        flags.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        flags.extend(more);
        App::new(Config::new(&raw_config(&flags)).unwrap()).unwrap()
    }

    /// As `app`, with verifications on a server that runs already, which take a third less of the processor than those
    /// in sandboxes. It lets the code of a dump do what a sandbox lets it do.
    pub fn app_on(&self, scratch: &Cluster, more: &[(&str, &str)]) -> App {
        let host = ("scratch-db-host", scratch.sandbox.host());
        self.app(&[&[host, ("scratch-db-trust", "full")][..], more].concat())
    }

    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Says that a file was made so many hours ago.
    pub fn age(&self, name: &str, hours: u64) {
        let file = std::fs::File::options()
            .write(true)
            .open(self.folder.path().join(name))
            .unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
        file.set_modified(then).unwrap();
    }

    fn files(&self, part: &str) -> Vec<PathBuf> {
        let (mut found, mut todo) = (vec![], vec![self.folder.path().to_owned()]);
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else if path.to_str().unwrap().contains(part) {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

pub async fn verify_as(app: &App, id: &str, backup: &str, depth: Depth) -> VerificationReport {
    let job = VerifyJob {
        depth: Some(depth),
        ..VerifyJob::new(id, BackupRef::parse(backup, "").unwrap(), Trigger::Command)
    };
    let done = app
        .manager
        .verify_backup(&job, Arc::default(), CancellationToken::new())
        .await;
    let proof = *done.proof.unwrap();
    assert_eq!(done.result.verdict, Some(proof.verdict));
    proof
}

pub async fn verify(app: &App, backup: &str) -> VerificationReport {
    verify_as(app, &uuid::Uuid::new_v4().to_string(), backup, Depth::Data).await
}

fn why(r: &VerificationReport) -> String {
    let checks: Vec<_> = r
        .checks
        .iter()
        .filter(|c| c.status != CheckStatus::Passed)
        .collect();
    format!("{:?} {:?} {checks:#?}", r.verdict, r.error)
}

/// Every broken backup of the self-test gets its expected verdict: in `make soak` as often as users run it, else once.
#[test]
fn the_self_test_passes() {
    let (rounds, given) = if is_full_campaign() {
        (3, vec![])
    } else {
        (1, vec!["--rounds", "1"])
    };
    let out = Command::new(OURS)
        .args(["selftest", "--output", "json"])
        .args(given)
        .output()
        .unwrap();
    let answers: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
    let wrong: Vec<_> = answers.iter().filter(|a| a["right"] != true).collect();
    assert!(
        out.status.success() && wrong.is_empty() && answers.len() >= 24,
        "{wrong:#?}"
    );
    assert!(answers.iter().all(|a| a["runs"] == rounds), "{answers:#?}");
}

/// The kinds of databases that are verified on every server, and one that is verified on two; each with its letter below.
const SETS: [(&str, &str); 5] = [
    ("s", "small"),
    ("a", "samples"),
    ("v", "vals"),
    ("n", NAMES),
    ("o", "objects"),
];
const OBJECTS_ON: [u32; 2] = [15, 17];
const NAMES: &str = "Odd \"Näme\" $1; --";

/// What `make test` verifies in each format: for each of the servers 13 to 18, the letter of a kind, in capitals where that
/// is in a sandbox. The small database is verified as committed dumps.
const TURNS: [(DumpFormat, &str); 12] = [
    (DumpFormat::Custom, "- N - - - -"),
    (DumpFormat::CustomPiped, "- - - - - a"),
    (DumpFormat::CustomUncompressed, "- - V - - -"),
    (DumpFormat::Plain, "v - - - - -"),
    (DumpFormat::PlainInserts, "- v - - - -"),
    (DumpFormat::PlainCreate, "- - - - O -"),
    (DumpFormat::PlainClean, "- - - n - -"),
    (DumpFormat::Tar, "- - - - v -"),
    (DumpFormat::Directory, "- - - V - -"),
    (DumpFormat::DirectoryUncompressed, "- - o - - -"),
    (DumpFormat::DirectoryTar, "A - - - - -"),
    (DumpFormat::DirectoryTarTocFirst, "- - - - - V"),
];

/// How many committed dumps of a small database there are of each version of `pg_dump`.
const FORMS: usize = 5;

/// A database that is dumped in a format and verified.
#[derive(Clone, Copy)]
struct CleanCell {
    database: &'static str,
    format: DumpFormat,
    is_in_sandbox: bool,
}

/// The cells of one server in the product server × kind × format, one kind after another. `make soak` verifies all of
/// them, `make test` 12 and some committed dumps: each format once, and values of every type on every server, of which each
/// reads them back. What distinguishes the formats of a container is gone before rows reach a server.
fn cells_of(version: u32) -> Vec<CleanCell> {
    let server = version as usize - 13;
    let is_possible = |database: &str, format: DumpFormat| match database {
        "objects" => OBJECTS_ON.contains(&version),
        // Servers before 14 accept no DEFAULT in an INSERT of several rows.
        "samples" => version > 13 || format != DumpFormat::PlainInserts,
        _ => true,
    };
    let mut cells = vec![];
    for (letter, database) in SETS {
        for (format, turns) in TURNS {
            let turn = turns.split(' ').nth(server).unwrap();
            let is_its_turn = turn.eq_ignore_ascii_case(letter);
            if is_possible(database, format) && (is_its_turn || is_full_campaign()) {
                let is_first = is_full_campaign() && format == DumpFormat::Custom;
                cells.push(CleanCell {
                    database,
                    format,
                    is_in_sandbox: is_first || (is_its_turn && turn != letter),
                });
            }
        }
    }
    cells
}

#[test]
fn every_format_occurs_and_every_server_kind_and_container_meets_both_places() {
    const PLACES: [&str; 2] = ["a scratch server", "a sandbox"];
    let servers = 13..=18;
    let (mut met, mut formats) = (HashSet::new(), HashSet::new());
    let containers: HashSet<String> = DumpFormat::ALL
        .into_iter()
        .map(|format| format!("{:?}", format.container()))
        .collect();
    for server in servers.clone() {
        for cell in cells_of(server) {
            let place = PLACES[usize::from(cell.is_in_sandbox)];
            let container = format!("{:?}", cell.format.container());
            formats.insert(cell.format);
            let number = server.to_string();
            for one in [number.as_str(), cell.database, container.as_str()] {
                met.insert((one.to_owned(), place.to_owned()));
            }
            if cell.database == "vals" {
                met.insert(("vals".to_owned(), number));
                met.insert(("vals".to_owned(), container));
            }
        }
    }
    assert_eq!(formats.len(), DumpFormat::ALL.len());
    let is_met = |one: &str, other: &str| {
        let pair = (one.to_owned(), other.to_owned());
        assert!(met.contains(&pair), "{pair:?}");
    };
    for place in PLACES {
        for server in servers.clone() {
            is_met(&server.to_string(), place);
        }
        // The small one is among the committed dumps, and in the sandboxes of other tests.
        for (_, database) in &SETS[1..] {
            is_met(database, place);
        }
        for container in &containers {
            is_met(container, place);
        }
    }
    for server in servers {
        is_met("vals", &server.to_string());
    }
    for container in &containers {
        is_met("vals", container);
    }
}

/// No false alarms, at full depth: databases of several kinds and formats, and committed dumps, in a sandbox or on a scratch
/// server, which need not be started.
async fn verifies_clean(version: u32) {
    let Some(bindir) = bindir_for(version) else {
        return;
    };
    let (c, b) = (Cluster::of(&bindir, ""), VerificationSetup::of(&bindir));
    c.tablespace("space_a");
    let (sandboxes, scratch) = (b.app(&NO_EVIDENCE), b.app_on(&c, &NO_EVIDENCE));
    let values = include_str!("values.sql");
    let fewer = values.replacen("generate_series(1, 15000)", "generate_series(1, 3000)", 1);
    assert_ne!(fewer, values);
    let texts = [
        SMALL,
        include_str!("samples.sql"),
        if is_full_campaign() {
            values
        } else {
            fewer.as_str()
        },
        include_str!("names.sql"),
        include_str!("objects.sql"),
    ];
    for ((_, database), sql) in SETS.into_iter().zip(texts) {
        let mut cells = cells_of(version);
        cells.retain(|cell| cell.database == database);
        if !cells.is_empty() {
            c.create(database, sql);
        }
        for cell in cells {
            let app = if cell.is_in_sandbox {
                &sandboxes
            } else {
                &scratch
            };
            verifies_dump(&c, app, version, database, cell.format).await;
        }
    }
    fixtures_verify_clean(version, &scratch).await;
    assert_eq!(leftovers(&c), "", "of verifications on {version}");
}

/// The server programs of a version; `None` if it is not installed.
fn bindir_for(version: u32) -> Option<PathBuf> {
    match version {
        15 => Some(find_bindir(&[]).unwrap()),
        other => bindir_of(other),
    }
}

const NO_EVIDENCE: [(&str, &str); 1] = [("evidence-location", "none")];

/// What verifications have left on a scratch server.
fn leftovers(c: &Cluster) -> String {
    let ours = "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE 'pgrestored%'";
    c.psql("postgres", ours)
}

async fn verifies_dump(c: &Cluster, app: &App, version: u32, database: &str, format: DumpFormat) {
    let dump = c.dump_as(database, format);
    let r = verify(app, dump.to_str().unwrap()).await;
    let what = format!("{version}, {database}, {format:?}: {}", why(&r));
    assert_eq!(
        (r.verdict, r.depth),
        (Verdict::Verified, Some(Depth::Data)),
        "{what}"
    );
    let whole = Some(BackupContents::Whole);
    assert_eq!(r.contents, whole, "{what} {:?}", r.notes);
    // Checks that a server lacks are reported, and do not count as passed.
    let open: Vec<&str> = r
        .checks
        .iter()
        .filter(|c| c.status == CheckStatus::NotChecked)
        .map(|c| c.name.as_str())
        .collect();
    assert!(open.iter().all(|n| *n == "amcheck"), "{what}");
    assert!(
        !r.tables.is_empty() && r.tables.iter().all(|t| t.restored_rows == Some(t.rows)),
        "{what}"
    );
}

macro_rules! clean {
    ($($name:ident: $version:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                verifies_clean($version).await;
            }
        )*
    };
}

clean! {
    clean_on_13: 13;
    clean_on_14: 14;
    clean_on_15: 15;
    clean_on_16: 16;
    clean_on_17: 17;
    clean_on_18: 18;
}

/// The committed dumps that are verified on a server: by `make soak` all of them; by `make test` one of those of the small
/// database, and each of the others, which differ in what the client alone decompresses, on one server.
fn fixtures_of(version: u32) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let all = std::fs::read_dir(folder).unwrap();
    let mut dumps: Vec<PathBuf> = all.map(|entry| entry.unwrap().path()).collect();
    // Wrapped files have a list of their own.
    dumps.retain(|p| !p.is_dir() && !p.ends_with("small.sql") && !p.ends_with("README.md"));
    dumps.sort();
    let server = version as usize - 13;
    let of_small = |dump: &PathBuf| {
        let name = dump.file_name().unwrap();
        name.as_encoded_bytes().starts_with(b"v")
    };
    let (small, others): (Vec<_>, Vec<_>) = dumps.into_iter().partition(of_small);
    let small = small.into_iter().enumerate().filter(|(n, _)| {
        let is_its_turn = (n / FORMS, n % FORMS) == (server % 3, server % FORMS);
        is_its_turn || is_full_campaign()
    });
    let others = others.into_iter().enumerate();
    let others = others.filter(|(n, _)| n % 6 == server || is_full_campaign());
    others.chain(small).map(|(_, dump)| dump).collect()
}

/// Each server has a dump of the small database, and every version and form of these, and every other dump, is verified on
/// some server. `servers` restores every form of every version.
#[test]
fn every_server_version_form_and_codec_has_a_committed_dump() {
    let (mut all, mut versions, mut forms) = (HashSet::new(), HashSet::new(), HashSet::new());
    for server in 13..=18 {
        let dumps = fixtures_of(server).into_iter();
        let names: Vec<String> = dumps
            .map(|d| d.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        let small = names.iter().filter(|n| n.starts_with('v'));
        let parts: Vec<(&str, &str)> = small.map(|n| n.split_once('.').unwrap()).collect();
        assert!(!parts.is_empty(), "{server}: {names:?}");
        for (version, form) in parts {
            versions.insert(version.to_owned());
            forms.insert(form.to_owned());
        }
        all.extend(names);
    }
    assert_eq!((versions.len(), forms.len()), (3, FORMS));
    let others = all.iter().filter(|name| !name.starts_with('v')).count();
    assert!(others >= 7, "{all:?}");
}

/// The committed dumps, on a server of this version.
async fn fixtures_verify_clean(version: u32, app: &App) {
    for path in fixtures_of(version) {
        let r = verify(app, path.to_str().unwrap()).await;
        assert_eq!(
            (r.verdict, r.contents),
            (Verdict::Verified, Some(BackupContents::Whole)),
            "{version}, {}: {}",
            path.display(),
            why(&r)
        );
    }
}

/// The archive, and the database restored from it.
struct RestoredArchive {
    cluster: Cluster,
    archive: PathBuf,
    ledger: ContentDigest,
    entries: Vec<pgdump_archive::TocEntry>,
}

impl RestoredArchive {
    async fn new(sql: &str) -> Self {
        let cluster = Cluster::start();
        cluster.create("src", sql);
        let archive = cluster.dump_to_file("src", &[]);
        let open = || {
            let origin = ArchiveSource::once(std::fs::File::open(&archive).unwrap());
            Archive::open(origin, Limits::default(), &DecryptionKeys::default()).unwrap()
        };
        let read = open();
        let (ledger, entries) = (ContentDigest::of(&read), read.entries().to_vec());
        read.read_data(&mut DigestSink::new(&ledger, &|_| {}))
            .unwrap();
        cluster.restore(&archive, "ours").await;
        RestoredArchive {
            cluster,
            archive,
            ledger,
            entries,
        }
    }

    /// Changes a copy of the restored database and returns the findings; `nothing` changes nothing.
    async fn after(&self, change: &str) -> Vec<Check> {
        self.results_after(change, &History::default()).await.checks
    }

    async fn results_after(&self, change: &str, history: &History) -> CheckResults {
        self.cluster.copy("ours", "changed");
        self.cluster.psql("changed", change);
        let app = self.cluster.app(&[]);
        let server = pgrestored::postgres::Server::new(&app.config.db).unwrap();
        let subject = RestoredDatabase {
            server: &server,
            database: "changed",
            entries: &self.entries,
            content_digest: &self.ledger,
            coverage: None,
            encoding: "UTF8",
            dumped_major: Some(15),
            backup_created: jiff::Timestamp::now(),
            masking: None,
            sessions: 2,
            progress: &Default::default(),
        };
        examine(&subject, &Checks::default(), history)
            .await
            .unwrap()
    }
}

/// Each change of the restored database is found by the check for it.
#[tokio::test(flavor = "multi_thread")]
async fn differences_from_the_archive_are_found() {
    let more = "CREATE TABLE s.words (w varchar(40) PRIMARY KEY, c text COLLATE \"C\"); INSERT INTO s.words \
        SELECT 'wört ' || i, md5(i::text) FROM generate_series(1, 300) i; \
        CREATE FUNCTION s.later(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN a < b THEN -1 WHEN a > b THEN 1 ELSE 0 END'; \
        CREATE OPERATOR CLASS s.ops FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 s.later(int, int); \
        CREATE INDEX by_later ON s.child (id s.ops); \
        CREATE TABLE s.raw (b bytea, r regclass); INSERT INTO s.raw VALUES ('\\x00ff', 's.raw')";
    let r = RestoredArchive::new(&format!("{SMALL}; {more}")).await;
    let clean = r.after("SELECT 1").await;
    assert!(
        clean.iter().all(|c| c.status == CheckStatus::Passed),
        "{clean:#?}"
    );
    // Changes that are made together are of different tables, or are found by different checks.
    let together: [&[(&str, &str, &str)]; 5] = [
        &[
            (
                "DELETE FROM s.child WHERE id = (SELECT max(id) FROM s.child)",
                "rows",
                "s.child",
            ),
            (
                "UPDATE s.parent SET note = overlay(note placing 'L' from 1) WHERE id = 3",
                "rows",
                "s.parent",
            ),
            // One row replaced by another: the number of rows stays.
            (
                "DELETE FROM s.part_1 WHERE a = 50; INSERT INTO s.part_1 SELECT a, b FROM s.part_1 WHERE a = 51",
                "rows",
                "s.part_1",
            ),
            (
                "UPDATE s.words SET c = left(c, 6) WHERE w = 'wört 123'",
                "rows",
                "s.words",
            ),
            ("UPDATE s.raw SET b = '\\x00fe'", "rows", "s.raw"),
            ("SELECT lo_put(9001, 100, '\\x00')", "large objects", ""),
            (
                "SELECT setval('s.child_id_seq', 5000)",
                "sequence values",
                "",
            ),
        ],
        &[
            (
                "INSERT INTO s.child (parent_id) VALUES (1)",
                "rows",
                "s.child",
            ),
            (
                "UPDATE s.parent SET at = at + interval '1 microsecond' WHERE id = 3",
                "rows",
                "s.parent",
            ),
            (
                "UPDATE s.words SET w = convert_from(convert_to(w, 'UTF8'), 'LATIN1') WHERE w = 'wört 5'",
                "rows",
                "s.words",
            ),
            ("SELECT lo_unlink(9001)", "large objects", ""),
        ],
        &[
            (
                "UPDATE s.child SET v = v + 0.01 WHERE id = 7",
                "rows",
                "s.child",
            ),
            (
                "SELECT lo_truncate(lo_open(9001, 131072), 4000)",
                "large objects",
                "",
            ),
            ("SELECT setval('s.parent_id_seq', 5)", "sequence values", ""),
        ],
        // Each missing entry is named.
        &[
            ("DROP INDEX s.part_b", "entries", "INDEX s.part_b"),
            (
                "ALTER TABLE s.child DROP CONSTRAINT child_parent_id_fkey",
                "entries",
                "FK CONSTRAINT s.child child_parent_id_fkey",
            ),
            (
                "DROP TRIGGER nothing ON s.child",
                "entries",
                "TRIGGER s.child nothing",
            ),
            (
                "DROP FUNCTION s.add",
                "entries",
                "FUNCTION s.add(integer, integer)",
            ),
            ("DROP VIEW s.happy", "entries", "VIEW s.happy"),
            (
                "ALTER TABLE s.parent ALTER id DROP DEFAULT",
                "entries",
                "DEFAULT s.parent id",
            ),
            (
                "REFRESH MATERIALIZED VIEW s.counts WITH NO DATA",
                "entries",
                "MATERIALIZED VIEW DATA s.counts",
            ),
        ],
        &[
            (
                "UPDATE s.child SET tags = NULL WHERE id = 1",
                "rows",
                "s.child",
            ),
            (
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 's.child_parent'::regclass",
                "indexes",
                "",
            ),
            (
                "CREATE OR REPLACE FUNCTION s.later(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT CASE WHEN a < b THEN 1 WHEN a > b THEN -1 ELSE 0 END'",
                "amcheck",
                "",
            ),
        ],
    ];
    for changes in together {
        let all: Vec<&str> = changes.iter().map(|(change, ..)| *change).collect();
        let found = r.after(&all.join(";\n")).await;
        for (change, check, subject) in changes {
            let hit = found.iter().find(|c| {
                c.status == CheckStatus::Failed
                    && c.name == *check
                    && (subject.is_empty()
                        || c.subject.as_deref() == Some(*subject)
                        || (*check == "entries" && c.message.contains(*subject)))
            });
            assert!(hit.is_some(), "{change}: {found:#?}");
        }
    }
    let gone = [
        (
            "ALTER TABLE s.child DROP COLUMN tags",
            "s.child",
            "the restored table lacks the column \"tags\"",
        ),
        (
            "DROP TABLE s.part_2",
            "s.part_2",
            "the table is not in the restored database",
        ),
    ];
    let found = r.after(&gone.map(|(change, ..)| change).join(";\n")).await;
    for (change, table, wanted) in gone {
        let said = |c: &Check| {
            (c.name.as_str(), c.subject.as_deref()) == ("rows", Some(table))
                && c.status == CheckStatus::Failed
                && c.message == wanted
        };
        assert!(found.iter().any(said), "{change}: {found:#?}");
    }
    // An error of a function says nothing about the index.
    let change = "CREATE OR REPLACE FUNCTION s.later(a int, b int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1 / (a - a)'";
    let found = r.after(change).await;
    let amcheck: Vec<&Check> = found.iter().filter(|c| c.name == "amcheck").collect();
    assert_eq!(amcheck.len(), 1, "{found:#?}");
    assert_eq!(amcheck[0].status, CheckStatus::NotChecked, "{found:#?}");
    assert!(amcheck[0].message.contains("s.by_later: "), "{found:#?}");
    rows_that_cannot_be_read_back_are_not_gone(&r).await;
    drop(r.archive);
}

/// If rows cannot be read back, the archive's tables are in the report, and nothing is said of how they changed.
async fn rows_that_cannot_be_read_back_are_not_gone(r: &RestoredArchive) {
    let mut last =
        VerificationReport::new("x", Trigger::Command, Depth::Data, jiff::Timestamp::now());
    last.tables = tables_of(&r.ledger);
    let history = History {
        reports: vec![last.clone()],
        is_hidden: false,
        notes: vec![],
    };
    let change =
        "ALTER TABLE s.child RENAME TO other; CREATE VIEW s.child AS SELECT * FROM s.other";
    let found = r.results_after(change, &history).await;
    let rows = found.checks.iter().find(|c| c.name == "rows").unwrap();
    assert_eq!(
        (rows.status, rows.required),
        (CheckStatus::NotChecked, true)
    );
    assert_eq!(found.tables, last.tables);
    let drift = found.checks.iter().find(|c| c.name == "drift");
    assert!(found.drift.is_none() && drift.is_none(), "{drift:?}");
}

/// Databases whose own code or settings change rows, or the way in which they are written.
#[tokio::test(flavor = "multi_thread")]
async fn what_dumps_do_to_their_rows_is_told_from_differences() {
    let c = Cluster::start();
    what_is_as_in_the_source_fails_no_backup(&c).await;
    c.psql("postgres", "DROP DATABASE src");
    rows_dropped_or_rewritten_during_the_load_are_found(&c).await;
    c.psql("postgres", "DROP DATABASE src");
    generated_columns_that_depend_on_other_rows_are_reported(&c).await;
    c.psql("postgres", "DROP DATABASE src");
    a_log_of_schema_changes_makes_no_difference(&c).await;
}

/// What `pg_dump` writes in another way than it is read back, and what the source itself has like this.
async fn what_is_as_in_the_source_fails_no_backup(c: &Cluster) {
    let b = VerificationSetup::start();
    c.create(
        "src",
        "CREATE TABLE floats (a float8, b float4); \
         INSERT INTO floats VALUES ('-0', '-0'), ('1.5e-7', '-1e20'), ('NaN', '-Infinity'); \
         CREATE DOMAIN raw AS bytea; CREATE TABLE both_kinds (b raw[], r regclass); \
         INSERT INTO both_kinds VALUES (ARRAY['\\x00ff5c27'::bytea]::raw[], 'floats'); \
         CREATE TABLE wide (f float8, r float4, p point[]); \
         INSERT INTO wide VALUES (12345678910.125, 1234567, ARRAY[point(98765432198, 0.25)]), (1.5, 2, NULL); \
         CREATE TABLE by_hand (id serial PRIMARY KEY); INSERT INTO by_hand VALUES (7); \
         CREATE TABLE p (a int) PARTITION BY RANGE (a); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9); CREATE INDEX half ON ONLY p (a)",
    );
    c.psql("postgres", "ALTER DATABASE src SET bytea_output = escape");
    let app = b.app_on(c, &NO_EVIDENCE);
    for args in [
        &["-Fp", "--inserts"][..],
        &["-Fc", "--quote-all-identifiers"],
        &["-Fc", "--extra-float-digits=-5"],
    ] {
        b.put("x.dump", &c.dump("src", args));
        let r = verify(&app, "x.dump").await;
        assert_eq!(
            (r.verdict, r.depth),
            (Verdict::Verified, Some(Depth::Data)),
            "{args:?}: {}",
            why(&r)
        );
        for noted in ["sequences", "partitioned indexes"] {
            let check = r.checks.iter().find(|c| c.name == noted).unwrap();
            assert_eq!(check.status, CheckStatus::Warned, "{check:?}");
        }
        let mut notes = r.checks.iter().filter(|c| c.status == CheckStatus::Warned);
        let rounded = notes.find(|c| c.name == "rows").map(|c| c.message.as_str());
        let is_rounded = args.contains(&"--extra-float-digits=-5");
        assert_eq!(
            rounded.is_some_and(|m| m.ends_with("in 1 table (public.wide)")),
            is_rounded,
            "{args:?}: {rounded:?}"
        );
    }
}

/// A server of another major version may refuse a good dump, and write some values in another way. What every version
/// refuses is the backup's fault.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_version_may_accept_is_inconclusive() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    let (sandboxes, scratch) = (b.app(&NO_EVIDENCE), b.app_on(&c, &NO_EVIDENCE));
    let newer = include_str!("../fixtures/v18.plain.sql");
    let same = include_str!("../fixtures/v15.plain.sql");
    let older = same.replacen("database version 15", "database version 14", 1);
    let older = older.as_str();
    let failed = |reason| (Verdict::Failed, Some((reason, Blame::Backup)));
    let inconclusive = (
        Verdict::Inconclusive,
        Some((R::VersionIncompatible, Blame::Target)),
    );
    let refused = "CREATE TABLE s.v (a int, b int GENERATED ALWAYS AS (a * 2));";
    let twice = "CREATE TABLE s.child (a int);";
    // PostgreSQL writes `$."a"`.
    let rewritten = "CREATE TABLE s.paths (p jsonpath);\nCOPY s.paths (p) FROM stdin;\n$.a\n\\.\n";
    // Versions since 16 read this integer.
    let in_function = "CREATE FUNCTION s.f() RETURNS int LANGUAGE plpgsql AS $f$BEGIN RETURN '1_000'::int; END$f$;\n\
         CREATE MATERIALIZED VIEW s.m AS SELECT s.f() AS f;";
    let damaged = "CREXTE TABLE s.v (a int);";
    let missing = "COPY s.missing (a) FROM stdin;\n1\n\\.\n";
    let value = "CREATE TABLE s.i (i inet);\nCOPY s.i (i) FROM stdin;\n10.1.2.x\n\\.\n";
    for (dump, statements, wanted) in [
        (newer, refused, inconclusive),
        (newer, rewritten, inconclusive),
        (newer, in_function, inconclusive),
        (older, refused, inconclusive),
        (older, damaged, failed(R::RestoreError)),
        (older, missing, failed(R::RestoreError)),
        (older, value, failed(R::DataRejected)),
        (newer, twice, failed(R::RestoreError)),
        (same, refused, failed(R::RestoreError)),
        (same, rewritten, failed(R::VerificationFailed)),
    ] {
        let text = dump.replacen("COPY s.child ", &format!("{statements}\nCOPY s.child "), 1);
        b.put("x.sql", text.as_bytes());
        let is_in_sandbox = (dump, statements) == (newer, refused) || is_full_campaign();
        let app = if is_in_sandbox { &sandboxes } else { &scratch };
        let r = verify(app, "x.sql").await;
        let error = r.error.as_ref().map(|e| (e.reason, e.blame));
        assert_eq!((r.verdict, error), wanted, "{statements}: {}", why(&r));
        let said = r.error.unwrap().message;
        let dumped = if dump == older { 14 } else { 18 };
        let (here, fix) = if is_in_sandbox {
            ("sandbox", "PG_BINDIR to an installation")
        } else {
            ("scratch server", "SCRATCH_DB_HOST to a server")
        };
        let names_both = format!(
            "the dump is of PostgreSQL {dumped}, this {here} is PostgreSQL 15: set {fix} of PostgreSQL {dumped}"
        );
        let is_refused = wanted == inconclusive && statements != rewritten;
        assert_eq!(said.ends_with(&names_both), is_refused, "{said}");
    }
}

/// A dump's own trigger or rule that changes the rows while they are loaded.
async fn rows_dropped_or_rewritten_during_the_load_are_found(c: &Cluster) {
    let b = VerificationSetup::start();
    c.create(
        "src",
        "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 50) i",
    );
    let app = b.app_on(c, &[]);
    let (copied, inserted) = (c.dump("src", &[]), c.dump("src", &["--inserts"]));
    let trigger = |body: &str| {
        format!(
            "CREATE FUNCTION public.m() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN {body} END $f$;\n\
             CREATE TRIGGER m BEFORE INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.m();\n"
        )
    };
    // The same dumps without these are verified in other tests.
    for (name, dump, before) in [
        (
            "rewritten",
            &copied,
            trigger("NEW.v := NEW.v || ' '; RETURN NEW;"),
        ),
        (
            "swallowed",
            &copied,
            trigger("IF NEW.id = 50 THEN RETURN NULL; END IF; RETURN NEW;"),
        ),
        (
            "rewritten inserts",
            &inserted,
            trigger("NEW.id := NEW.id + 1; RETURN NEW;"),
        ),
        (
            "rule",
            &inserted,
            "CREATE RULE r AS ON INSERT TO public.t WHERE NEW.id = 25 DO INSTEAD NOTHING;\n".into(),
        ),
    ] {
        let text = std::str::from_utf8(dump).unwrap();
        let mark = if *dump == copied {
            "COPY public.t "
        } else {
            "INSERT INTO public.t "
        };
        let meddled = text.replacen(mark, &format!("{before}\n{mark}"), 1);
        assert_ne!(meddled, text, "{name}");
        b.put("meddled.sql", meddled.as_bytes());
        let r = verify(&app, "meddled.sql").await;
        let error = r.error.as_ref().unwrap();
        assert_eq!(
            (r.verdict, error.reason, error.blame),
            (Verdict::Failed, R::VerificationFailed, Blame::Backup)
        );
        assert!(
            r.checks
                .iter()
                .any(|k| k.name == "rows" && k.subject.as_deref() == Some("public.t")),
            "{name}"
        );
    }
}

/// A generated column may depend on when its function runs: this is reported, and is not blamed on the
/// backup. Here the labels are loaded after the rows that look them up.
async fn generated_columns_that_depend_on_other_rows_are_reported(c: &Cluster) {
    let b = VerificationSetup::start();
    c.create(
        "src",
        r#"
        CREATE SCHEMA "S"; CREATE DOMAIN "S".word AS varchar(9);
        CREATE TABLE "S".z_labels (v int, label text);
        CREATE FUNCTION "S".label(p int) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
            $$BEGIN RETURN (SELECT label FROM "S".z_labels WHERE v = p); END$$;
        CREATE FUNCTION "S".empty(p int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
            $$BEGIN IF EXISTS (SELECT FROM "S".z_labels) THEN RAISE 'too late'; END IF; RETURN true; END$$;
        CREATE TABLE "S".a_fails (v int, e boolean GENERATED ALWAYS AS ("S".empty(v)) STORED);
        CREATE TABLE "S".a_plain (a int, b numeric, r int GENERATED ALWAYS AS (a + b) STORED,
            j json GENERATED ALWAYS AS (CASE WHEN a > 3 THEN '{"x": [1, null]}'::json END) STORED,
            p point GENERATED ALWAYS AS (point(a, b::float8)) STORED, s int[] GENERATED ALWAYS AS (ARRAY[a]) STORED);
        CREATE TABLE "S".b_root (v int, "The ""label""" "S".word GENERATED ALWAYS AS ("S".label(v)) STORED)
            PARTITION BY RANGE (v);
        CREATE TABLE "S".b_1 PARTITION OF "S".b_root FOR VALUES FROM (0) TO (10);
        CREATE TABLE "S".b_2 PARTITION OF "S".b_root FOR VALUES FROM (10) TO (20);
        INSERT INTO "S".a_fails SELECT 1;
        INSERT INTO "S".a_plain SELECT i, i / 3.0 FROM generate_series(1, 100) i UNION ALL SELECT NULL, 1;
        INSERT INTO "S".z_labels SELECT i, 'l' || i FROM generate_series(1, 7) i;
        INSERT INTO "S".b_root SELECT generate_series(0, 19)"#,
    );
    b.put(
        "a.dump",
        &std::fs::read(c.dump_to_file("src", &[])).unwrap(),
    );
    let r = verify(&b.app_on(c, &[]), "a.dump").await;
    assert_eq!(
        (r.verdict, r.blame(), r.depth),
        (Verdict::Verified, None, Some(Depth::Data)),
        "{}",
        why(&r)
    );
    let of: Vec<_> = r
        .checks
        .iter()
        .filter(|c| c.name == "generated columns")
        .collect();
    let [warned, open] = of.as_slice() else {
        panic!("{of:#?}")
    };
    assert_eq!(warned.status, CheckStatus::Warned);
    let named = r#": "S".b_1."The ""label""" (7 rows)"#;
    assert!(
        warned.message.ends_with(named) && warned.fix.is_some(),
        "{warned:?}"
    );
    assert_eq!(
        (open.status, open.required),
        (CheckStatus::NotChecked, false)
    );
    assert!(
        open.message
            .contains(r#""S".a_fails.e (running the query: too late"#),
        "{open:?}"
    );
}

/// A table read back in ranges of blocks, with one row per page: no row is missed or counted twice.
async fn a_table_read_in_ranges_is_read_completely(c: &Cluster) {
    let b = VerificationSetup::start();
    c.create(
        "src",
        // Pages filled to a tenth hold one of these rows; the dump says so, too.
        "CREATE TABLE big (id int, at timestamptz, pad text) WITH (fillfactor = 10); ALTER TABLE big ALTER pad SET STORAGE PLAIN; \
         INSERT INTO big SELECT g, now(), repeat('x', 600) FROM generate_series(1, 9000) g",
    );
    assert!(
        c.psql("src", "SELECT pg_relation_size('big') > 64 * 1024 * 1024")
            .starts_with('t')
    );
    b.put(
        "a.dump",
        &std::fs::read(c.dump_to_file("src", &[])).unwrap(),
    );
    let r = verify(&b.app_on(c, &[]), "a.dump").await;
    assert!(r.is_verified(), "{}", why(&r));
    assert_eq!(r.rows, 9000);
}

/// A dump that logs every schema change: what the checks create does not appear in its rows.
async fn a_log_of_schema_changes_makes_no_difference(c: &Cluster) {
    let b = VerificationSetup::start();
    c.create(
        "src",
        "CREATE TABLE ddl_log (tag text); INSERT INTO ddl_log VALUES ('the first'); \
         CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO public.ddl_log VALUES (tg_tag); END'; \
         CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION log_ddl()",
    );
    b.put(
        "a.dump",
        &std::fs::read(c.dump_to_file("src", &[])).unwrap(),
    );
    let r = verify(&b.app_on(c, &[]), "a.dump").await;
    assert!(r.is_verified(), "{}", why(&r));
    assert!(
        r.checks
            .iter()
            .any(|c| c.name == "amcheck" && c.status == CheckStatus::Passed),
        "{}",
        why(&r)
    );
}

/// Depth by depth: each reports how far it went.
#[tokio::test(flavor = "multi_thread")]
async fn depths_include_each_other() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", SMALL);
    let dump = std::fs::read(c.dump_through_pipe("src", &[])).unwrap();
    b.put("a.dump", &dump);
    let app = b.app_on(&c, &[]);
    for depth in [Depth::Object, Depth::Archive, Depth::Restore, Depth::Data] {
        let r = verify_as(&app, depth.as_str(), "a.dump", depth).await;
        assert_eq!(
            (r.verdict, r.depth),
            (Verdict::Verified, Some(depth)),
            "{}",
            why(&r)
        );
        let sha = sha2::Sha256::digest(&dump)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>();
        assert_eq!(
            (r.sha256, r.backup.size),
            (Some(sha), Some(dump.len().to_string()))
        );
        assert_eq!(
            r.backup.crc32c,
            Some(pgrestored::backup::encode_crc32c(
                pgdump_archive::Crc32c::of(&dump)
            ))
        );
        assert_eq!(r.tables.is_empty(), depth == Depth::Object);
        assert_eq!(r.server.is_some(), depth >= Depth::Restore);
        assert_eq!(r.checks.is_empty(), depth < Depth::Data);
        assert_eq!(r.rto.is_some(), depth >= Depth::Restore);
    }
    // A flipped byte: the archive does not decompress, but the object matches the store's checksum.
    let mut bad = dump.clone();
    let at = bad.len() - 600;
    bad[at] ^= 4;
    b.put("bad.dump", &bad);
    for depth in [Depth::Object, Depth::Archive, Depth::Restore] {
        let r = verify_as(&app, &format!("bad {}", depth.as_str()), "bad.dump", depth).await;
        let wanted = if depth == Depth::Object {
            Verdict::Verified
        } else {
            Verdict::Failed
        };
        assert_eq!(
            (r.verdict, r.depth),
            (wanted, Some(Depth::Object)),
            "{}",
            why(&r)
        );
    }
}

/// Bytes that are others than when they were proven are the backup's fault, also where name, size and time are the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_after_its_proof_is_damaged() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    let app = b.app_on(&c, &[SIGNED[0], ("verify-bisect", "0")]);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    b.put(
        "a.dump",
        &std::fs::read(fixtures.join("v15.custom.dump")).unwrap(),
    );
    std::fs::create_dir(b.folder.path().join("n")).unwrap();
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(fixtures.join("v15.directory.tar.gz"))
        .arg("-C")
        .arg(b.folder.path().join("n"))
        .status();
    assert!(unpacked.unwrap().success());
    let text = include_str!("../fixtures/v15.plain.sql");
    b.put("x.sql", text.as_bytes());
    for name in ["a.dump", "n/", "x.sql"] {
        let r = verify(&app, name).await;
        assert_eq!(r.verdict, Verdict::Verified, "{}", why(&r));
    }
    let rewrite = |name: &str, bytes: &[u8]| {
        let path = b.folder.path().join(name);
        let modified = path.metadata().unwrap().modified().unwrap();
        std::fs::write(&path, bytes).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
    };
    let rot = |name: &str| {
        let mut bytes = std::fs::read(b.folder.path().join(name)).unwrap();
        let at = bytes.len() - 600_usize.min(bytes.len() / 2);
        bytes[at] ^= 4;
        rewrite(name, &bytes);
    };
    let fails = async |name: &str, what: &str| {
        let r = verify(&app, name).await;
        let error = r.error.as_ref().unwrap();
        assert_eq!(r.verdict, Verdict::Failed, "{}", why(&r));
        assert!(
            error.message.contains("damaged since its proof at "),
            "{error:?}"
        );
        assert!(error.message.ends_with(what), "{error:?}");
    };
    rot("a.dump");
    fails("a.dump", "its checksum differs").await;
    rot("n/3387.dat.gz");
    fails("n/", "its checksum differs").await;
    std::fs::remove_file(b.folder.path().join("n/3387.dat.gz")).unwrap();
    fails("n/", "1 of 8 members is missing").await;
    // What restores all the same, and what the server seems to lack.
    for (then, now) in [("\t0.14\t", "\t0.15\t"), ("row_security", "row_securitz")] {
        rewrite("x.sql", text.replacen(then, now, 1).as_bytes());
        fails("x.sql", "its checksum differs").await;
    }
    rewrite("x.sql", text.as_bytes());
    let repaired = verify(&app, "x.sql").await;
    assert_eq!(repaired.verdict, Verdict::Verified, "{}", why(&repaired));
}

use sha2::Digest;

/// Evidence is written once, can be checked with public tools, and is returned for a second request of the same id.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_written_once_and_can_be_checked_by_anybody() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", SMALL);
    b.put(
        "db/a.dump",
        &std::fs::read(c.dump_to_file("src", &[])).unwrap(),
    );
    let keys = tempfile::tempdir().unwrap();
    let (private, public) = (keys.path().join("key.pem"), keys.path().join("pub.pem"));
    let openssl = |args: &[&str]| {
        let out = Command::new("openssl").args(args).output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
    };
    openssl(&[
        "genpkey",
        "-algorithm",
        "ed25519",
        "-out",
        private.to_str().unwrap(),
    ]);
    openssl(&[
        "pkey",
        "-in",
        private.to_str().unwrap(),
        "-pubout",
        "-out",
        public.to_str().unwrap(),
    ]);
    let app = b.app_on(
        &c,
        &[("evidence-signing-key-file", private.to_str().unwrap())],
    );
    let first = verify_as(&app, "one", "db/a.dump", Depth::Data).await;
    let again = verify_as(&app, "one", "db/a.dump", Depth::Data).await;
    assert_eq!(first, again, "the second request gets the recorded result");
    let files = b.files(".dsse.json");
    assert_eq!(
        (
            files.len(),
            b.files(".html").len(),
            b.files(".junit.xml").len()
        ),
        (1, 1, 1)
    );
    assert_eq!(b.files("index.json").len(), 1);
    // DSSE's own encoding, checked by openssl.
    let envelope: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&files[0]).unwrap()).unwrap();
    use base64::Engine;
    let decode = |t: &serde_json::Value| {
        base64::engine::general_purpose::STANDARD
            .decode(t.as_str().unwrap())
            .unwrap()
    };
    let payload = decode(&envelope["payload"]);
    let kind = envelope["payloadType"].as_str().unwrap();
    let mut message = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    let (m, s) = (keys.path().join("m"), keys.path().join("s"));
    std::fs::write(&m, &message).unwrap();
    std::fs::write(&s, decode(&envelope["signatures"][0]["sig"])).unwrap();
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    openssl(&[
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        &path(&public),
        "-rawin",
        "-in",
        &path(&m),
        "-sigfile",
        &path(&s),
    ]);
    let statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(
        statement["subject"][0]["digest"]["sha256"],
        serde_json::json!(first.sha256)
    );
    // And by pgrestored, offline.
    let backup = path(&b.folder.path().join("db/a.dump"));
    let ours = |file: &Path, backup: &str| {
        let args = [
            "evidence",
            "verify",
            file.to_str().unwrap(),
            "--key",
            public.to_str().unwrap(),
            "--backup",
            backup,
        ];
        Command::new(OURS).args(args).output().unwrap()
    };
    assert!(ours(&files[0], &backup).status.success());
    let other = b.put("other.dump", b"another backup");
    assert_eq!(
        ours(&files[0], other.to_str().unwrap()).status.code(),
        Some(1)
    );
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let mut forged = envelope.clone();
    let changed = String::from_utf8(payload)
        .unwrap()
        .replace("\"verified\"", "\"failed\"");
    forged["payload"] = base64::engine::general_purpose::STANDARD
        .encode(changed)
        .into();
    let forged_file = b.put("forged.json", forged.to_string().as_bytes());
    assert_eq!(ours(&forged_file, &backup).status.code(), Some(1));
    // Existing objects are never overwritten.
    assert_eq!(
        verify_as(&app, "two", "db/a.dump", Depth::Archive)
            .await
            .verdict,
        Verdict::Verified
    );
    assert_eq!(std::fs::read_to_string(&files[0]).unwrap(), text);
    assert_eq!(b.files(".dsse.json").len(), 2);
    // Evidence is not a backup.
    assert_eq!(app.manager.list_available_backups().await.unwrap().len(), 3);
}

/// Proven backups are what the next one is compared with: bands, forecast, status, ledger.
#[tokio::test(flavor = "multi_thread")]
async fn new_backups_are_compared_with_proven_ones() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    let rows = |n: u32| {
        format!("TRUNCATE t; INSERT INTO t SELECT i, now() FROM generate_series(1, {n}) i")
    };
    c.create(
        "src",
        "CREATE TABLE t (id int, at timestamptz); CREATE TABLE other (a int)",
    );
    let app = b.app_on(&c, &[("backup-sets", "orders=orders/,billing=billing/")]);
    for (day, n) in [(0, 1000), (1, 1100), (2, 1210)] {
        c.psql("src", &rows(n));
        let name = format!("orders/{day}.dump");
        b.put(&name, &std::fs::read(c.dump_to_file("src", &[])).unwrap());
        b.age(&name, 72 - 24 * day);
        let r = verify(&app, &name).await;
        assert_eq!(r.verdict, Verdict::Verified, "{}", why(&r));
        assert_eq!(
            (r.backup_set.as_str(), r.rto.unwrap().samples as u64),
            ("orders", day + 1)
        );
    }
    c.psql("src", &format!("{}; DROP TABLE other", rows(300)));
    b.put(
        "orders/3.dump",
        &std::fs::read(c.dump_to_file("src", &[])).unwrap(),
    );
    let r = verify(&app, "orders/3.dump").await;
    assert_eq!(r.verdict, Verdict::Failed);
    assert_eq!(r.drift.as_ref().unwrap().samples, 3);
    let drift: Vec<_> = r.checks.iter().filter(|k| k.name == "drift").collect();
    assert!(
        drift[0].message.contains("300 rows") && drift[0].status == CheckStatus::Failed,
        "{drift:#?}"
    );
    assert!(
        drift[1]
            .message
            .contains("table public.other no longer exists"),
        "{drift:#?}"
    );
    // Since when: the preceding backup has been proven.
    let since = r.bisection.unwrap();
    assert_eq!(
        since.last_good.unwrap().name.as_deref(),
        Some("orders/2.dump")
    );
    assert_eq!((since.probes.len(), since.exact), (0, true));
    // Another set has its own history.
    b.put(
        "billing/1.dump",
        &std::fs::read(c.dump_to_file("src", &[])).unwrap(),
    );
    assert_eq!(verify(&app, "billing/1.dump").await.drift, None);
    let standing = app.manager.catalog().standing().await.unwrap();
    assert_eq!(standing[0].proven_backup.as_deref(), Some("orders/2.dump"));
    assert_eq!(standing[0].last_verdict, Some(Verdict::Failed));
    let text = app.metrics.exposition();
    for part in [
        "restore_rto_seconds{backup_set=\"orders\"}",
        "restore_rto_forecast_seconds{backup_set=\"orders\"}",
    ] {
        assert!(text.contains(part), "{part}");
    }
    let html = b.folder.path().join("report.html");
    let args = [
        "report",
        "--html",
        html.to_str().unwrap(),
        "--since",
        "1d",
        "--output",
        "json",
        "--backup-sets",
        "orders=orders/,billing=billing/",
    ];
    let bucket = format!("file://{}", b.folder.path().display());
    let out = Command::new(OURS)
        .args(args)
        .args(["--backup-bucket", &bucket])
        .output()
        .unwrap();
    let ledger: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&ledger["verified"], &ledger["failed"]),
        (&4.into(), &1.into())
    );
    let page = std::fs::read_to_string(html).unwrap();
    assert!(
        page.contains("Restore time of orders") && page.contains("Longest time without a proof")
    );
}

/// First bad and last good backup, by bisection and no deeper than needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_bisection_finds_the_first_bad_backup() {
    let b = VerificationSetup::start();
    let good = include_bytes!("../fixtures/v15.custom.dump");
    for i in 0..9 {
        let name = format!("{i}.dump");
        // Truncated before the upload, from the sixth on.
        b.put(
            &name,
            if i < 5 {
                &good[..]
            } else {
                &good[..good.len() - 300]
            },
        );
        b.age(&name, 100 - i);
    }
    let r = verify(&b.app(&[]), "8.dump").await;
    assert_eq!(r.error.as_ref().unwrap().reason, R::ArchiveCorrupt);
    let found = r.bisection.unwrap();
    let name = |b: Option<pgrestored::event::ResultBackup>| b.and_then(|b| b.name);
    assert_eq!(
        (name(found.last_good), name(found.first_bad)),
        (Some("4.dump".into()), Some("5.dump".into()))
    );
    assert!(found.exact && found.probes.len() <= 4, "{:?}", found.probes);
    assert!(found.probes.iter().all(|p| p.depth == Depth::Archive));
    // No more probes than allowed; then it says that unprobed backups lie between.
    let r = verify(&b.app(&[("verify-bisect", "1")]), "7.dump").await;
    let found = r.bisection.unwrap();
    assert_eq!((found.probes.len(), found.exact), (1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_keeps_what_is_needed_and_deletes_exactly_its_plan() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", SMALL);
    let dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    for (name, days) in [
        ("1.dump", 30),
        ("2.dump", 20),
        ("3.dump", 10),
        ("4.dump", 1),
    ] {
        b.put(name, &dump);
        b.age(name, 24 * days);
    }
    let folder = c.dump_as("src", DumpFormat::Directory);
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("old/{}", entry.file_name().into_string().unwrap());
        b.put(&name, &std::fs::read(entry.path()).unwrap());
        b.age(&name, 24 * 40);
    }
    // In two pieces; and a directory with another file in it.
    for (name, part) in [
        ("split.dump.aa", &dump[..200]),
        ("split.dump.ab", &dump[200..]),
    ] {
        b.put(name, part);
        b.age(name, 24 * 50);
    }
    for (name, bytes) in [
        ("mixed/toc.dat", &b"x"[..]),
        ("mixed/1.dat", b"x"),
        ("mixed/notes.txt", b"mine"),
    ] {
        b.put(name, bytes);
        b.age(name, 24 * 60);
    }
    let bucket = format!("file://{}", b.folder.path().display());
    let prune = |more: &[&str]| {
        let args = [
            "prune",
            "--output",
            "json",
            "--backup-retention-min",
            "1",
            "--backup-bucket",
            &bucket,
        ];
        let key = ("EVIDENCE_SIGNING_KEY", SIGNED[0].1);
        let out = Command::new(OURS)
            .args(args)
            .args(more)
            .envs([key])
            .output()
            .unwrap();
        let all: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
        let of = |p: &serde_json::Value| {
            (
                p["name"].as_str().unwrap().to_owned(),
                p["action"].as_str().unwrap().to_owned(),
            )
        };
        all.iter().map(of).collect::<Vec<_>>()
    };
    let keeps = |all: &[(String, String)]| {
        all.iter()
            .filter(|(_, a)| a == "keep")
            .map(|(n, _)| n.clone())
            .collect::<Vec<_>>()
    };
    // Without any proof, nothing is deleted.
    assert_eq!(keeps(&prune(&["--apply"])).len(), 8);
    assert_eq!(
        verify(&b.app_on(&c, &SIGNED), "2.dump").await.verdict,
        Verdict::Verified
    );
    let dry = prune(&[]);
    // A file that is not part of a dump belongs to somebody, and so does its directory, whose database is unknown.
    let mut kept = keeps(&dry);
    kept.sort_unstable();
    assert_eq!(
        kept,
        ["2.dump", "3.dump", "4.dump", "mixed/", "mixed/notes.txt"]
    );
    assert_eq!(
        dry.iter().filter(|(_, action)| action == "delete").count(),
        3,
        "{dry:?}"
    );
    assert!(b.folder.path().join("1.dump").exists());
    let done = prune(&["--apply"]);
    assert_eq!(
        done.iter()
            .filter(|(_, action)| action == "deleted")
            .count(),
        3,
        "{done:?}"
    );
    assert!(
        ["toc.dat", "1.dat", "notes.txt"].iter().all(|f| b
            .folder
            .path()
            .join("mixed")
            .join(f)
            .exists())
    );
    assert!(
        !b.folder.path().join("split.dump.aa").exists()
            && !b.folder.path().join("split.dump.ab").exists()
    );
    assert!(
        !b.folder.path().join("1.dump").exists() && !b.folder.path().join("old/toc.dat").exists()
    );
    assert_eq!(b.files(".dsse.json").len(), 1, "evidence is kept");
    assert_eq!(keeps(&prune(&["--apply"])).len(), 5);
}

/// A scratch server for verifications: nothing is left on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_scratch_server_is_left_unchanged() {
    let (source, scratch, b) = (
        Cluster::start(),
        Cluster::start(),
        VerificationSetup::start(),
    );
    source.create(
        "src",
        &format!("{SMALL}; ALTER TABLE s.child OWNER TO role_a"),
    );
    scratch.psql("postgres", "DROP ROLE role_a");
    b.put(
        "a.dump",
        &std::fs::read(source.dump_to_file("src", &[])).unwrap(),
    );
    let look = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles; SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database";
    let before = scratch.psql("postgres", look);
    let app = b.app(&[("scratch-db-host", scratch.sandbox.host())]);
    let r = verify(&app, "a.dump").await;
    assert_eq!(r.verdict, Verdict::Verified, "{}", why(&r));
    assert_eq!(r.server.unwrap().kind, "scratch server");
    assert_eq!(scratch.psql("postgres", look), before);
    let text = source.dump("src", &[]);
    b.put("bad.sql", &text[..text.len() / 2]);
    assert_eq!(verify(&app, "bad.sql").await.verdict, Verdict::Failed);
    assert_eq!(
        scratch.psql("postgres", look),
        before,
        "also after a failure"
    );
}

fn fits(schema: &str, value: &serde_json::Value) {
    let (_, schema) = pgrestored::cli::schemas()
        .into_iter()
        .find(|(n, _)| *n == schema)
        .unwrap();
    let validator = jsonschema::draft202012::new(schema.as_value()).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|e| e.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// The command's documents and exit codes, and a checks file from end to end.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_reports_its_findings_in_every_form() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", SMALL);
    b.put(
        "a.dump",
        &std::fs::read(c.dump_to_file("src", &[])).unwrap(),
    );
    b.put("secret.dump", b"<html>");
    let out = |name: &str| {
        b.folder
            .path()
            .join(format!("out-{name}"))
            .display()
            .to_string()
    };
    let checks = b.put(
        "checks.yaml",
        b"freshness: [{table: s.parent, column: at, max_age: 100000h}]\n\
          assertions:\n  - {name: parents, sql: 'SELECT count(*) FROM s.parent;', min: 100, max: 200}\n  \
          - {name: no orphans, sql: SELECT FROM s.child WHERE parent_id IS NULL, rows: 0}\n  \
          - {name: nothing can be written, sql: 'DELETE FROM s.child RETURNING 1', rows: 0}\n",
    );
    let bucket = format!("file://{}", b.folder.path().display());
    let run = |backup: &str, more: &[&str]| {
        let mut command = Command::new(OURS);
        command
            .args([
                "verify",
                backup,
                "--output",
                "json",
                "--backup-bucket",
                &bucket,
            ])
            .args(more);
        let out = command.output().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        fits("restore-result", &value);
        (out.status.code(), value)
    };
    let (html, junit, report) = (out("page.html"), out("junit.xml"), out("report.json"));
    let forms = ["--html", &html, "--junit", &junit, "--report", &report];
    let (code, result) = run("a.dump", &forms);
    assert_eq!((code, &result["verdict"]), (Some(0), &"verified".into()));
    fits(
        "proof-report",
        &serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap(),
    );
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("s.parent") && !page.contains("<script") && !page.contains("http://"));
    // The page names its evidence, and how long the restore took.
    let evidence = result["verification"]["evidence"].as_str().unwrap();
    assert!(page.contains(&format!("<a href=\"{evidence}\">")) && page.contains("not signed"));
    assert!(page.contains("going by 1 restore."), "{page}");
    assert!(
        std::fs::read_to_string(junit)
            .unwrap()
            .contains("failures=\"0\"")
    );
    fits(
        "evidence",
        &serde_json::from_slice(&std::fs::read(&b.files(".dsse.json")[0]).unwrap()).unwrap(),
    );
    // A check that cannot run read-only has no result, and without a result it has not passed.
    let (code, result) = run("a.dump", &["--checks", checks.to_str().unwrap()]);
    assert_eq!(
        (code, &result["verdict"]),
        (Some(1), &"inconclusive".into()),
        "{result:#}"
    );
    let findings = result["verification"]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(
        (&findings[0]["status"], &findings[0]["subject"]),
        (&"not_checked".into(), &"nothing can be written".into())
    );
    let (code, result) = run("secret.dump", &[]);
    assert_eq!(
        (code, &result["verdict"], &result["error"]["reason"]),
        (Some(1), &"failed".into(), &"archive_unsupported".into())
    );
    let (code, result) = run("none.dump", &[]);
    assert_eq!(
        (code, &result["verdict"], &result["error"]["reason"]),
        (Some(1), &"inconclusive".into(), &"backup_not_found".into())
    );
}

/// Which rows are compared with which, and which ones are only counted.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_compared_as_they_are_stored() {
    let c = Cluster::start();
    rows_are_counted_in_the_table_that_stores_them(&c).await;
    c.psql("postgres", "DROP DATABASE src");
    rows_that_were_only_counted_are_not_claimed(&c).await;
    c.psql("postgres", "DROP DATABASE src");
    a_table_read_in_ranges_is_read_completely(&c).await;
    c.psql("postgres", "DROP DATABASE src");
    rows_written_for_other_string_settings_are_compared(&c).await;
}

/// Partitions that are loaded through their root, inheriting tables, and a table without columns.
async fn rows_are_counted_in_the_table_that_stores_them(c: &Cluster) {
    let b = VerificationSetup::start();
    c.create(
        "src",
        "CREATE TABLE p (a int, b text) PARTITION BY HASH (a); \
         CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 0); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 3, REMAINDER 1); \
         CREATE TABLE p2 (b text, gone int, a int); ALTER TABLE p2 DROP gone; \
         ALTER TABLE p ATTACH PARTITION p2 FOR VALUES WITH (MODULUS 3, REMAINDER 2); \
         INSERT INTO p SELECT i, 'x' || i FROM generate_series(1, 500) i; \
         CREATE TABLE base (a int); CREATE TABLE heir (b int) INHERITS (base); \
         INSERT INTO base VALUES (1), (2); INSERT INTO heir VALUES (3, 4); \
         CREATE TABLE moments (t timestamptz, r tstzrange, m timestamptz[]); \
         INSERT INTO moments SELECT t, tstzrange(t, t + interval '1 day'), ARRAY[t, NULL] FROM generate_series('1900-01-01'::timestamptz, '2026-01-01', '97 days') t",
    );
    // Written in a time zone with half hours and, in early years, seconds.
    c.psql(
        "postgres",
        "ALTER DATABASE src SET TimeZone = 'Asia/Kolkata'",
    );
    let app = b.app_on(c, &[]);
    for (args, tables) in [
        (
            &["-Fc", "--load-via-partition-root"][..],
            vec!["public.base", "public.heir", "public.moments", "public.p"],
        ),
        (
            &["-Fc"],
            vec![
                "public.base",
                "public.heir",
                "public.moments",
                "public.p0",
                "public.p1",
                "public.p2",
            ],
        ),
        (
            &["-Fp", "--inserts", "--rows-per-insert=7"],
            vec![
                "public.base",
                "public.heir",
                "public.moments",
                "public.p0",
                "public.p1",
                "public.p2",
            ],
        ),
        (
            &["-Fp", "--column-inserts", "--load-via-partition-root"],
            vec!["public.base", "public.heir", "public.moments", "public.p"],
        ),
    ] {
        // In `make test`, databases with partitions are loaded into each of them in other tests.
        if !args.contains(&"--load-via-partition-root") && !is_full_campaign() {
            continue;
        }
        b.put("x.dump", &c.dump("src", args));
        let r = verify(&app, "x.dump").await;
        assert_eq!(r.verdict, Verdict::Verified, "{args:?}: {}", why(&r));
        assert_eq!(
            r.tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(),
            tables
        );
        assert_eq!(r.rows, 503 + 475, "{args:?}");
    }
}

/// Rows of partitions whose columns have different orders, and which are too long to be brought into one of them.
async fn rows_that_were_only_counted_are_not_claimed(c: &Cluster) {
    let b = VerificationSetup::start();
    c.create(
        "src",
        "CREATE TABLE other (a int); INSERT INTO other VALUES (1), (2); \
         CREATE TABLE p (a int, b text) PARTITION BY LIST (a); \
         CREATE TABLE p0 PARTITION OF p FOR VALUES IN (0); \
         CREATE TABLE p1 (b text, a int); ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1); \
         INSERT INTO p VALUES (0, repeat('x', 6000000)), (1, repeat('y', 6000000))",
    );
    b.put(
        "x.dump",
        &c.dump("src", &["-Fc", "--load-via-partition-root"]),
    );
    let app = b.app_on(c, &[]);
    let r = verify(&app, "x.dump").await;
    assert_eq!(
        (r.verdict, r.depth),
        (Verdict::Verified, Some(Depth::Restore)),
        "{}",
        why(&r)
    );
    let summary = r.checks.iter().find(|c| c.name == "rows").unwrap();
    assert_eq!(
        summary.message,
        "1 table with 2 rows matches the archive row for row; of 1 table with 2 rows, only the number of rows was compared"
    );
    assert!(
        !r.verdict_sentence().contains("matches it"),
        "{}",
        r.verdict_sentence()
    );
}

/// Two databases in one directory, distinguished by their dumps' own names: each is compared with its own
/// backups, has its own forecast, and keeps its newest proven backup.
#[tokio::test(flavor = "multi_thread")]
async fn databases_that_share_a_directory_are_distinguished() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    let users = |n: u32| {
        format!(
            "CREATE TABLE users (i int, p text); INSERT INTO users SELECT g, repeat('x', 300) FROM generate_series(1, {n}) g"
        )
    };
    for (database, n) in [("tiny", 50), ("big", 20_000)] {
        c.create(database, &users(n));
    }
    let app = b.app_on(&c, &[SIGNED[0], ("backup-retention-min", "1")]);
    for (name, days, bytes) in [
        (
            "5.dump",
            15,
            std::fs::read(c.dump_to_file("big", &[])).unwrap(),
        ),
        (
            "4.dump",
            14,
            std::fs::read(c.dump_to_file("tiny", &[])).unwrap(),
        ),
        // Text with CREATE DATABASE has its name, too.
        ("3.sql", 13, c.dump("big", &["-C"])),
        // Text without it has only its object's name.
        ("big-2026-11-02.sql", 12, c.dump("big", &[])),
        ("tiny-2026-11-01.sql", 11, c.dump("tiny", &[])),
        ("big-2026-11-03.sql", 10, c.dump("big", &[])),
    ] {
        b.put(name, &bytes);
        b.age(name, 24 * days);
        let r = verify(&app, name).await;
        assert_eq!(r.verdict, Verdict::Verified, "{name}: {}", why(&r));
        let rto = r.rto.unwrap();
        assert!(
            rto.forecast_seconds <= 2.0 * rto.measured_seconds,
            "{name}: {rto:?}"
        );
        assert!(
            rto.forecast_seconds >= rto.measured_seconds / 2.0,
            "{name}: {rto:?}"
        );
        let samples = r.drift.map_or(0, |d| d.samples);
        assert_eq!(
            samples,
            u32::from(matches!(name, "3.sql" | "big-2026-11-03.sql")),
            "{name}"
        );
    }
    let decided = app
        .manager
        .catalog()
        .retention("default", false)
        .await
        .unwrap();
    let gone: Vec<&str> = decided
        .iter()
        .filter(|d| d.delete)
        .map(|d| d.object.name.as_str())
        .collect();
    // The older one of each database, as far as that is known.
    assert_eq!(gone, ["big-2026-11-02.sql", "5.dump"], "{decided:#?}");
    // A loss is still found, within its own database.
    c.psql("big", "DELETE FROM users WHERE i > 50");
    b.put(
        "6.dump",
        &std::fs::read(c.dump_to_file("big", &[])).unwrap(),
    );
    let r = verify(&app, "6.dump").await;
    assert_eq!(
        r.error.as_ref().map(|e| e.reason),
        Some(R::VerificationFailed),
        "{}",
        why(&r)
    );
    // Since when: the other database's backups do not count.
    let since = r.bisection.unwrap();
    assert_eq!(
        since.last_good.unwrap().name.as_deref(),
        Some("3.sql"),
        "{:?}",
        since.probes
    );
}

/// What somebody without the key writes cannot make a damaged backup good, cause the deletion of good ones,
/// make others look outdated, or block anything.
#[tokio::test(flavor = "multi_thread")]
async fn replayed_evidence_deletes_nothing() {
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAYq51KHcShUNK5wP+OIEcNoJ/GC4otU36yH5tXQwHp8M=\n-----END PUBLIC KEY-----\n";
    const OTHER: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n";
    let b = VerificationSetup::start();
    let key = pgrestored::verification::SigningKey::from_pem(SIGNED[0].1).unwrap();
    let app = b.app(&SIGNED);
    let now = jiff::Timestamp::now();
    // What a worker said of a backup so many hours ago; returns the name without its ending.
    let say = async |backup: &str, id: &str, hours: u64, verdict: Verdict| {
        let reference = BackupRef::parse(backup, "").unwrap();
        let pinned = app.manager.catalog().pin(&reference, None, None);
        let pinned = pinned.await.unwrap().unwrap();
        let generation = pinned.object.generation.to_string();
        let then = now
            .saturating_sub(jiff::SignedDuration::from_hours(
                i64::try_from(hours).unwrap(),
            ))
            .unwrap();
        let mut r = VerificationReport {
            verdict,
            depth: Some(Depth::Data),
            backup_created: Some(pinned.object.created),
            backup_set: "default".into(),
            database: Some("shop".into()),
            ..VerificationReport::new(id, Trigger::Command, Depth::Data, then)
        };
        r.backup.name = Some(backup.into());
        r.backup.uri = Some(pinned.uri());
        r.backup.generation = Some(generation.clone());
        r.backup.size = Some(pinned.object.size.to_string());
        let envelope = Envelope::seal(&r, Some(&key)).unwrap();
        let base = evidence_name(backup, &generation, id);
        let name = format!("{base}-0123456789abcdef.dsse.json");
        b.put(&name, &serde_json::to_vec(&envelope).unwrap());
        b.age(&name, hours - 1);
        base
    };
    for (name, days) in [("older.dump", 70), ("good.dump", 60), ("bad.dump", 50)] {
        b.put(name, b"PGDMP");
        b.age(name, 24 * days);
    }
    say("older.dump", "o", 90, Verdict::Inconclusive).await;
    say("good.dump", "g", 90, Verdict::Verified).await;
    let base = say("bad.dump", "b", 90, Verdict::Verified).await;
    say("bad.dump", "c", 10, Verdict::Failed).await;
    let copy = std::fs::read(
        b.folder
            .path()
            .join(format!("{base}-0123456789abcdef.dsse.json")),
    )
    .unwrap();
    let settings = [
        ("backup-retention-days", "30"),
        ("backup-retention-min", "0"),
        ("evidence-trusted-keys", PUBLIC),
    ];
    let gone = async |more: &[(&str, &str)]| {
        let app = b.app(&[&settings[..], more].concat());
        let all = app
            .manager
            .catalog()
            .retention("default", false)
            .await
            .unwrap();
        let name = |d: &pgrestored::retention::Decision| (d.object.name.clone(), d.why.clone());
        let gone = all
            .iter()
            .filter(|d| d.delete)
            .map(|d| name(d).0)
            .collect::<Vec<_>>();
        (gone, all.iter().map(name).collect::<Vec<_>>())
    };
    let readers = [vec![], vec![("evidence-signing-key", OTHER)]];
    for copies in [0, 64, 5_000] {
        for i in 0..copies {
            b.put(&format!("{base}-{i:016x}.dsse.json"), &copy);
        }
        // To read thousands takes seconds: in `make soak` both do.
        let first = usize::from(copies == 5_000 && !is_full_campaign());
        for reader in &readers[first..] {
            let (gone, all) = gone(reader).await;
            if copies < 5_000 {
                assert_eq!(gone, ["older.dump"], "{copies} {all:?}");
            } else {
                let said = |why: &str| {
                    why.contains("nothing of this set is deleted") && why.contains("bad.dump")
                };
                assert!(gone.is_empty(), "{gone:?}");
                assert!(all.iter().any(|(_, why)| said(why)), "{all:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_evidence_changes_nothing() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", SMALL);
    let dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    for (name, days, len) in [
        ("good.dump", 30, dump.len()),
        ("cut.dump", 20, dump.len() - 300),
    ] {
        b.put(name, &dump[..len]);
        b.age(name, 24 * days);
    }
    // The forger's own worker writes the desired result about the damaged backup, for each future request.
    let forger = b.app(&[]);
    let forge = async |backup: &str, id: &str, change: &dyn Fn(&mut VerificationReport)| {
        let pinned = forger
            .manager
            .catalog()
            .pin(&BackupRef::parse(backup, "").unwrap(), None, None)
            .await
            .unwrap()
            .unwrap();
        let generation = pinned.object.generation.to_string();
        let now = jiff::Timestamp::now();
        let mut r = VerificationReport {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            backup_created: Some(pinned.object.created),
            backup_set: "default".into(),
            database: Some("src".into()),
            ..VerificationReport::new(id, Trigger::Command, Depth::Data, now)
        };
        r.backup.name = Some(backup.into());
        r.backup.uri = Some(pinned.uri());
        r.backup.generation = Some(generation.clone());
        r.backup.size = Some(pinned.object.size.to_string());
        change(&mut r);
        let envelope = Envelope::seal(&r, None).unwrap();
        let name = format!("{}.dsse.json", evidence_name(backup, &generation, id));
        b.put(&name, &serde_json::to_vec(&envelope).unwrap());
    };
    forge("cut.dump", "r1", &|_| {}).await;
    let eons: jiff::Timestamp = "2099-01-01T00:00:00Z".parse().unwrap();
    forge("cut.dump", "r2", &|r| {
        (r.finished_at, r.backup_created) = (eons, Some(eons))
    })
    .await;
    forge("good.dump", "r3", &|r| {
        r.rto = Some(pgrestored::proof::Rto {
            measured_seconds: 1e9,
            forecast_seconds: 1e9,
            samples: 9,
        })
    })
    .await;
    let notified = |app: &App, backup: &'static str| {
        let (manager, trigger) = (app.manager.clone(), Trigger::Notification);
        let job = VerifyJob::new(
            format!("n-{backup}"),
            BackupRef::parse(backup, "").unwrap(),
            trigger,
        );
        async move { manager.catalog().is_outdated(&job).await.unwrap() }
    };
    let gone = async |app: &App| {
        let all = app
            .manager
            .catalog()
            .retention("default", false)
            .await
            .unwrap();
        all.iter().filter(|d| d.delete).count()
    };
    assert!(
        !notified(&b.app(&SIGNED), "good.dump").await,
        "nothing is proven yet"
    );
    for (app, is_signed) in [(b.app_on(&c, &SIGNED), true), (b.app_on(&c, &[]), false)] {
        let app = &app;
        assert_eq!(gone(app).await, 0);
        let standing = app.manager.catalog().standing().await.unwrap();
        assert!(
            standing[0]
                .last_proof
                .is_none_or(|at| !is_signed && at < eons),
            "{standing:?}"
        );
        // The damaged bytes are read, whatever evidence exists; and the worker's own result counts.
        let r = verify_as(app, "r1", "cut.dump", Depth::Data).await;
        assert_eq!(
            r.error.as_ref().map(|e| e.reason),
            Some(R::ArchiveCorrupt),
            "{}",
            why(&r)
        );
        assert_eq!(verify_as(app, "r1", "cut.dump", Depth::Data).await, r);
    }
    // Unsigned evidence permits deletion only if that is configured.
    let app = b.app(&[("backup-retention-min", "0")]);
    assert_eq!(gone(&app).await, 0);
    let why_kept = app
        .manager
        .catalog()
        .retention("default", false)
        .await
        .unwrap()
        .remove(0)
        .why;
    assert!(
        why_kept.contains("not signed") && why_kept.contains("EVIDENCE_SIGNING_KEY"),
        "{why_kept}"
    );
    // With the key, only the genuine evidence counts: the good backup is the newest proven one.
    let app = b.app_on(&c, &[SIGNED[0], ("backup-retention-min", "0")]);
    assert_eq!(verify(&app, "good.dump").await.verdict, Verdict::Verified);
    assert_eq!(
        gone(&app).await,
        0,
        "the damaged one is newer than the newest proven one"
    );
    assert!(!notified(&app, "cut.dump").await, "nor is it outdated");
    let standing = app.manager.catalog().standing().await.unwrap();
    assert_eq!(standing[0].proven_backup.as_deref(), Some("good.dump"));
}

/// A verification of the bytes alone does not make a backup proven, fresh or outdated, or postpone the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_shallow_verification_proves_no_backup() {
    let (c, b) = (Cluster::start(), VerificationSetup::start());
    c.create("src", SMALL);
    let dump = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    for (name, days) in [("new.dump", 10), ("old.dump", 20)] {
        b.put(name, &dump);
        b.age(name, 24 * days);
    }
    let schedule = [
        SIGNED[0],
        ("verify-schedule", "24h"),
        ("backup-retention-min", "0"),
    ];
    let app = b.app_on(&c, &schedule);
    let now = jiff::Timestamp::now();
    let old = VerifyJob::new(
        "n",
        BackupRef::parse("old.dump", "").unwrap(),
        Trigger::Notification,
    );
    let metric = || {
        let text = app.metrics.exposition();
        let line = text
            .lines()
            .find(|l| l.starts_with("restore_verification_last_success_timestamp_seconds{"));
        line.is_some_and(|l| !l.ends_with(" 0"))
    };
    for depth in [Depth::Object, Depth::Archive, Depth::Restore] {
        let job = VerifyJob {
            depth: Some(depth),
            ..VerifyJob::new(
                depth.as_str(),
                BackupRef::parse("new.dump", "").unwrap(),
                Trigger::Request,
            )
        };
        let done = app
            .manager
            .verify_backup(&job, Arc::default(), CancellationToken::new())
            .await;
        assert_eq!(done.result.verdict, Some(Verdict::Verified));
        app.manager.record_completion(&done);
        let is_proof = depth >= Depth::Restore;
        let standing = app.manager.catalog().standing().await.unwrap().remove(0);
        assert_eq!(standing.last_proof.is_some(), is_proof, "{depth:?}");
        assert_eq!(standing.proven_depth, is_proof.then_some(depth));
        assert_eq!(standing.last_verdict.is_some(), is_proof);
        assert_eq!(
            app.manager.catalog().due(now).await.is_empty(),
            is_proof,
            "{depth:?}"
        );
        assert_eq!(
            app.manager.catalog().is_outdated(&old).await.unwrap(),
            is_proof,
            "{depth:?}"
        );
        assert_eq!(metric(), is_proof, "{depth:?}");
        let deleted = app
            .manager
            .catalog()
            .retention("default", false)
            .await
            .unwrap();
        assert_eq!(
            deleted.iter().filter(|d| d.delete).count(),
            usize::from(is_proof),
            "{depth:?}"
        );
    }
}

/// What a string means depends on the settings before it, in the comparison as on the server.
async fn rows_written_for_other_string_settings_are_compared(c: &Cluster) {
    let b = VerificationSetup::start();
    let app = b.app_on(c, &[]);
    let text = |settings: &[&str]| {
        let rows = settings.iter().map(|setting| {
            format!(
                "{setting}\nINSERT INTO public.t VALUES ('it\\'s; x');\nRESET standard_conforming_strings;\n\
                 INSERT INTO public.t VALUES ('D:\\');\n"
            )
        });
        format!(
            "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\
             CREATE TABLE public.t (a text);\nINSERT INTO public.t VALUES ('C:\\');\n{}\n\n--\n\
             -- PostgreSQL database dump complete\n--\n\n",
            rows.collect::<String>()
        )
    };
    let settings = [
        "SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false);",
        "SET standard_conforming_strings = 'f';",
        "SET SESSION standard_conforming_strings TO no;",
    ];
    b.put("s.sql", text(&settings).as_bytes());
    let report = verify_as(&app, "s", "s.sql", Depth::Data).await;
    assert_eq!(report.verdict, Verdict::Verified, "{:?}", report.error);
    assert_eq!(report.rows, 1 + 2 * 3);
    // A limit of ours, which is not held against the backup.
    let local = "BEGIN;\nSET LOCAL standard_conforming_strings = off;";
    b.put("local.sql", text(&[local]).as_bytes());
    let report = verify_as(&app, "local", "local.sql", Depth::Data).await;
    assert_eq!(report.verdict, Verdict::Inconclusive, "{:?}", report.error);
    let message = report.error.unwrap().message;
    assert!(message.contains("SET LOCAL"), "{message}");
}

//! A corpus of backups as managed services give them, restored by roles as managed services give them: beside `pg_restore`,
//! and foretold by a rehearsal.

mod entries;
mod shapes;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use pgdump_restore::Refusal;
use pgrestored::event::RestoreResult;
use pgrestored::job::{OnExisting, Rehearsal, RestoreJob};

use crate::formats::DumpFormat;
use crate::support::{Cluster, bindir_of, is_full_campaign, job};
use entries::{DumpedObjects, RestoreComparison, entries_of};
use shapes::{FORMATS, Roles, SOURCES, SourceService, TARGETS, TargetRole};

/// A backup of a service in one format, and who restores it.
#[derive(Clone, Copy)]
struct CorpusCell {
    source: usize,
    format: usize,
    target: usize,
}

impl CorpusCell {
    fn source(self) -> &'static SourceService {
        &SOURCES[self.source]
    }

    fn format(self) -> DumpFormat {
        FORMATS[self.format]
    }

    fn target(self) -> &'static TargetRole {
        &TARGETS[self.target]
    }
}

const VERSIONS: std::ops::RangeInclusive<usize> = 13..=18;

/// The formats of each service that `make test` restores. `managed` restores an archive and text of most of them. An archive
/// has the same entries in each format.
const TESTED: [&[DumpFormat]; 10] = [
    &[DumpFormat::Plain, DumpFormat::Tar],
    &[DumpFormat::Plain, DumpFormat::Custom],
    &[DumpFormat::Directory],
    &[DumpFormat::Plain, DumpFormat::Directory],
    &[DumpFormat::Plain, DumpFormat::Custom],
    &[DumpFormat::PlainInserts],
    &[DumpFormat::Plain, DumpFormat::Custom],
    &[DumpFormat::PlainInserts],
    &[DumpFormat::Directory],
    &[DumpFormat::Plain],
];

/// Who restores a backup in `make test`, and the server's place in [`VERSIONS`].
fn turn(source: usize, format: usize) -> (usize, usize) {
    let target = (5 * source + format) % TARGETS.len();
    let server = (5 * source + format + source / 5) % VERSIONS.count();
    (target, server)
}

/// The cells of one server in the product service × format × role × server. `make soak` runs all 2,400; `make test` runs
/// those 15 of [`TESTED`]: each service, also by the role that it gives to its users, and each format, role and server.
fn cells_of(version: usize) -> Vec<CorpusCell> {
    let mut cells = Vec::new();
    for target in 0..TARGETS.len() {
        for (source, tested) in TESTED.iter().enumerate() {
            for (format, of) in FORMATS.iter().enumerate() {
                let here = (target, version - VERSIONS.start());
                let is_its_turn = turn(source, format) == here && tested.contains(of);
                if is_its_turn || is_full_campaign() {
                    cells.push(CorpusCell {
                        source,
                        format,
                        target,
                    });
                }
            }
        }
    }
    cells
}

#[test]
fn every_service_format_role_and_server_occurs_and_every_service_at_home() {
    let mut met: [HashSet<usize>; 4] = Default::default();
    let (mut at_home, mut of_text, mut count) = (HashSet::new(), HashSet::new(), 0);
    for version in VERSIONS {
        for cell in cells_of(version) {
            count += 1;
            if cell.source().name == cell.target().name {
                at_home.insert(cell.source);
            }
            if cell.format() == DumpFormat::Plain {
                of_text.insert(version);
            }
            let values = [cell.source, cell.format, cell.target, version];
            for (met, value) in met.iter_mut().zip(values) {
                met.insert(value);
            }
        }
    }
    let servers = VERSIONS.count();
    let wanted = [SOURCES.len(), FORMATS.len(), TARGETS.len(), servers];
    assert_eq!(met.map(|m| m.len()), wanted);
    assert_eq!(of_text.len(), servers);
    assert!(count >= 15, "{count}");
    let has_roles = |s: &&SourceService| TARGETS.iter().any(|t| t.name == s.name);
    assert_eq!(at_home.len(), SOURCES.iter().filter(has_roles).count());
}

/// One server with the backups that its cells restore. Neither the databases nor the roles of the services are there any
/// more.
struct Corpus {
    version: usize,
    cluster: Cluster,
    dumps: HashMap<(usize, usize), PathBuf>,
    sources: HashMap<usize, DumpedObjects>,
}

impl Corpus {
    /// `None` where this PostgreSQL is not installed.
    fn new(version: usize, cells: &[CorpusCell]) -> Option<Self> {
        let cluster = match version {
            15 => Cluster::start(),
            other => Cluster::of(&bindir_of(other as u32)?, ""),
        };
        let mut corpus = Corpus {
            version,
            cluster,
            dumps: HashMap::new(),
            sources: HashMap::new(),
        };
        corpus.dump(cells);
        Some(corpus)
    }

    fn dump(&mut self, cells: &[CorpusCell]) {
        let c = &self.cluster;
        let used: BTreeSet<(usize, usize)> = cells.iter().map(|c| (c.source, c.format)).collect();
        let sources: BTreeSet<usize> = used.iter().map(|(source, _)| *source).collect();
        let roles = Roles::of(sources.iter().map(|source| &SOURCES[*source]));
        roles.create(c);
        c.tablespace("space_c");
        // PyPI's servers come without contrib.
        let contrib = "SELECT count(*) FROM pg_available_extensions WHERE name = 'hstore'";
        let has_contrib = c.psql("postgres", contrib) == "1";
        for source in sources {
            SOURCES[source].create(c, "src", has_contrib);
            self.sources
                .insert(source, entries_of(&c.content("src", &[])));
            for (_, format) in used.iter().filter(|(of, _)| *of == source) {
                let dump = c.dump_as("src", FORMATS[*format]);
                self.dumps.insert((source, *format), dump);
            }
            drop_database(c, "src");
        }
        c.psql("postgres", "DROP TABLESPACE space_c");
        roles.drop(c);
    }

    /// Restores each cell, and fails naming every cell that is wrong.
    async fn check(&self, cells: &[CorpusCell]) {
        let mut faults = Vec::new();
        for (t, target) in TARGETS.iter().enumerate() {
            let here: Vec<CorpusCell> = cells.iter().copied().filter(|c| c.target == t).collect();
            if here.is_empty() {
                continue;
            }
            target.create(&self.cluster, self.version);
            for cell in here {
                let found = self.faults_of(cell).await;
                let name = self.name_of(cell);
                faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}\n")));
            }
            target.drop(&self.cluster);
        }
        assert!(faults.is_empty(), "{}", faults.concat());
        assert_eq!(self.cluster.leftovers(), Vec::<String>::new());
        let (version, count) = (self.version, cells.len());
        eprintln!(
            "CAMPAIGN corpus on {version}: {count} cells, none worse than pg_restore, all foretold"
        );
    }

    fn name_of(&self, cell: CorpusCell) -> String {
        let (source, format, target) = (cell.source().name, cell.format(), cell.target().name);
        format!("{} {source} {format:?} by {target}", self.version)
    }

    async fn faults_of(&self, cell: CorpusCell) -> Vec<String> {
        let (c, target) = (&self.cluster, cell.target());
        let dump = &self.dumps[&(cell.source, cell.format)];
        let create = |database: &str| {
            c.create(database, "");
            let owner = format!("ALTER DATABASE {database} OWNER TO {}", target.user);
            c.psql("postgres", &owner);
        };
        create("theirs");
        let errors = self.by_hand(cell, dump);
        let on_existing = if target.fills {
            create("ours");
            OnExisting::Fill
        } else {
            OnExisting::Fail
        };
        // What is compared has no statistics.
        let flags = [
            ("db-user", target.user),
            ("restore-on-error", "skip"),
            ("restore-no-analyze", "true"),
        ];
        let flags = &flags[..if is_full_campaign() { 2 } else { 3 }];
        let done = c.restore_with(&job(dump, "ours", on_existing), flags).await;
        let result = done.result;
        let rehearsal = self.rehearse(dump, flags).await;
        let foretold = rehearsal
            .as_ref()
            .map_or("-".to_owned(), |r| r.refusals.len().to_string());
        let roots: BTreeSet<&str> = result.skipped.iter().map(|r| r.root.as_str()).collect();
        eprintln!(
            "CORPUS | {} | {errors} | {} | {} | {foretold} |",
            self.name_of(cell).replace(' ', " | "),
            result.skipped.len(),
            roots.len(),
        );
        let mut faults = match &result.error {
            Some(error) => vec![format!("{error:?}")],
            None => self.compared(cell, &result, rehearsal.as_deref()),
        };
        if result.error.is_none() && result.complete != Some(result.skipped.is_empty()) {
            faults.push(format!("complete: {:?}", result.complete));
        }
        for database in ["theirs", "ours"] {
            drop_database(c, database);
        }
        faults
    }

    /// What is wrong with a restored database and its result.
    fn compared(
        &self,
        cell: CorpusCell,
        result: &RestoreResult,
        rehearsal: Option<&Rehearsal>,
    ) -> Vec<String> {
        let mut faults = match rehearsal {
            Some(rehearsal) => unforetold(rehearsal, result),
            // Who may create no database cannot try anything in one.
            None if cell.target().fills => vec![],
            None => vec!["not rehearsed".to_owned()],
        };
        let content = |database: &str| entries_of(&self.cluster.content(database, &[]));
        let comparison = RestoreComparison {
            theirs: &content("theirs"),
            ours: &content("ours"),
            source: &self.sources[&cell.source],
        };
        let is_platform = |name: &str| cell.source().is_platform(name);
        faults.extend(comparison.faults(is_platform, |name| names(result, name)));
        faults
    }

    /// What the tools of PostgreSQL make of it; returns the number of their errors.
    fn by_hand(&self, cell: CorpusCell, dump: &Path) -> usize {
        let is_text = matches!(cell.format(), DumpFormat::Plain | DumpFormat::PlainInserts);
        let program = if is_text { "psql" } else { "pg_restore" };
        let mut command = self.cluster.sandbox.command(program);
        command.args(["-U", cell.target().user, "-d", "theirs"]);
        if is_text {
            command.args(["-X", "-q", "-f"]);
        }
        let out = command.arg(dump).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        if is_text {
            return said.matches(" ERROR:  ").count();
        }
        let ignored = said.split_once("errors ignored on restore: ");
        ignored.map_or(0, |(_, n)| n.trim().parse().unwrap())
    }

    async fn rehearse(&self, dump: &Path, flags: &[(&str, &str)]) -> Option<Box<Rehearsal>> {
        let job = RestoreJob {
            is_rehearsal: true,
            ..job(dump, "ours", OnExisting::Fail)
        };
        self.cluster
            .restore_with(&job, flags)
            .await
            .result
            .rehearsal
    }
}

/// A database that has a subscription cannot be dropped.
fn drop_database(c: &Cluster, database: &str) {
    const SUBSCRIPTIONS: &str = "DO $$ DECLARE s name; BEGIN
        FOR s IN SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE datname = current_database() LOOP
            EXECUTE format('ALTER SUBSCRIPTION %I DISABLE', s);
            EXECUTE format('ALTER SUBSCRIPTION %I SET (slot_name = NONE)', s);
            EXECUTE format('DROP SUBSCRIPTION %I', s);
        END LOOP; END $$;";
    let has_one = format!(
        "SELECT count(*) FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE datname = '{database}'"
    );
    if c.psql("postgres", &has_one) != "0" {
        c.psql(database, SUBSCRIPTIONS);
    }
    c.psql("postgres", &format!("DROP DATABASE IF EXISTS {database}"));
}

/// Entry, SQLSTATE and root of a refusal.
type Told<'a> = (&'a str, Option<&'a str>, &'a str);

fn told<'a>(refusals: impl IntoIterator<Item = &'a Refusal>) -> BTreeMap<Told<'a>, usize> {
    let mut all = BTreeMap::new();
    for r in refusals {
        let told = (r.entry.as_str(), r.sqlstate.as_deref(), r.root.as_str());
        *all.entry(told).or_default() += 1;
    }
    all
}

/// What follows the first rows in SQL text, by the first words of its name. A rehearsal may not read so far.
const AFTER_ROWS: [&str; 25] = [
    "ALTER DEFAULT PRIVILEGES",
    "ALTER INDEX",
    "ALTER LARGE OBJECT",
    "ALTER PUBLICATION",
    "ALTER TABLE",
    "COMMENT ON EVENT TRIGGER",
    "COMMENT ON INDEX",
    "COMMENT ON LARGE OBJECT",
    "COMMENT ON POLICY",
    "CONSTRAINT",
    "EVENT TRIGGER",
    "FK CONSTRAINT",
    "GRANT",
    "INDEX",
    "OWNER OF EVENT TRIGGER",
    "OWNER OF LARGE OBJECT",
    "OWNER OF PUBLICATION",
    "OWNER OF SUBSCRIPTION",
    "POLICY",
    "PUBLICATION",
    "REVOKE",
    "SEQUENCE SET",
    "SUBSCRIPTION",
    "TABLE DATA",
    "TRIGGER",
];

/// What the restore refused and the rehearsal did not foretell, and the reverse.
fn unforetold(rehearsal: &Rehearsal, result: &RestoreResult) -> Vec<String> {
    let foretold = told(rehearsal.refusals.iter().map(|r| &r.refusal));
    let refused = told(&result.skipped);
    let reads_all = !rehearsal.note.contains("before its first rows");
    let mut faults = Vec::new();
    for (told, times) in &refused {
        let is_late = AFTER_ROWS.iter().any(|words| told.0.starts_with(words));
        if foretold.get(told) != Some(times) && (reads_all || !is_late) {
            faults.push(format!("not foretold: {told:?}"));
        }
    }
    for told in foretold.keys().filter(|told| !refused.contains_key(*told)) {
        faults.push(format!("foretold, and not refused: {told:?}"));
    }
    faults
}

/// Whether a result says that an entry was left out. SQL text has no names of entries, only the words of statements.
fn names(result: &RestoreResult, name: &str) -> bool {
    let by_rule = |rule: &str| result.rewrites.iter().any(|r| r.rule == rule);
    // A rule lists some examples of what it left out.
    let is_of_rule = match name.split([' ', '.']).next() {
        Some("ACL") => by_rule("platform-privilege"),
        Some("DEFAULT") => by_rule("platform-default-privileges"),
        Some("POLICY" | "COMMENT") => by_rule("platform-policy"),
        _ => false,
    };
    let short = name.split('(').next().unwrap_or(name);
    // A result does not say whose default privileges they are.
    let short = match short.split_once(".DEFAULT PRIVILEGES FOR ") {
        Some((_, kind)) => kind.split(' ').next().unwrap_or(kind),
        None => short.rsplit([' ', '.']).next().unwrap_or(short),
    };
    let skipped = result.skipped.iter().map(|r| &r.entry);
    let rewritten = result.rewrites.iter().flat_map(|r| &r.examples);
    let mut said = skipped.chain(rewritten).chain(&result.notes);
    is_of_rule || said.any(|text| text.contains(short))
}

macro_rules! corpus {
    ($($name:ident $version:literal;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let cells = cells_of($version);
                if let Some(corpus) = Corpus::new($version, &cells) {
                    corpus.check(&cells).await;
                }
            }
        )*
    };
}

corpus! {
    restored_on_13 13;
    restored_on_14 14;
    restored_on_15 15;
    restored_on_16 16;
    restored_on_17 17;
    restored_on_18 18;
}

//! Shared by the tests: throwaway clusters, restores as a user runs them, comparison by `pg_dump`.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod blocks;
pub mod kills;
pub mod memory;
pub mod otlp;
pub mod proxy;
pub mod sql;
pub mod standby;
pub mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pgrestored::app::App;
use pgrestored::config::{Config, RawConfig};
use pgrestored::event::RestoreResult;
use pgrestored::job::{BackupRef, KeepProgress, OnExisting, RestoreJob};
use pgrestored::manager::JobOutcome;
use pgrestored::sandbox::{Sandbox, find_bindir};
use sql::{TestSession, is_lost, leaves_nothing, outside, statements};
use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

/// Beside flags: from how many bytes on several readers read an archive by its data offsets. No variable has it.
pub const OFFSETS_FROM: &str = "offsets-from";

/// Between two looks at something that will change: often enough to lose no time, and seldom enough to leave the
/// processor to what is waited for. A look at a page of a worker takes milliseconds of it.
pub async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(25)).await;
}

/// The folder with the binaries of the distribution's newest PostgreSQL. The folders of Debian have the version in their
/// names: to ask each server for it takes a tenth as long as to start a cluster.
fn newest_bindir() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter();
    let named = versions.flatten().flatten().filter_map(|version| {
        let bindir = version.path().join("bin");
        let number = version.file_name().to_str()?.parse::<u32>().ok()?;
        let is_whole = ["initdb", "postgres"]
            .iter()
            .all(|p| bindir.join(p).is_file());
        is_whole.then_some((number, bindir))
    });
    let newest = named.max().map(|(_, bindir)| bindir);
    newest.unwrap_or_else(|| find_bindir(&[]).expect("a PostgreSQL server: run make setup"))
}

/// The folder with the binaries of another PostgreSQL version; `None` if it is not installed, and the test is skipped.
pub fn bindir_of(version: u32) -> Option<PathBuf> {
    tools::installed(&format!("pg{version}/bin/initdb")).map(|p| p.with_file_name(""))
}

/// A file of a Debian package that `make setup` installs; `None` if it does not exist, and the test is skipped.
pub fn of_package(package: &str, path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    if !path.exists() {
        tools::skip(package);
        return None;
    }
    Some(path)
}

/// Links the template clusters of the usual folders into one that has none, because `initdb` takes a second.
pub fn share_templates(folder: &Path) {
    let me = std::fs::metadata("/proc/self").unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid(&me);
    let temporary = std::env::temp_dir();
    for usual in [
        temporary.clone(),
        temporary.join(format!("pgrestored-sandboxes-{uid}")),
        temporary.join(format!("pgrestored-test-sandboxes-{uid}")),
    ] {
        for template in std::fs::read_dir(usual).into_iter().flatten().flatten() {
            let name = template.file_name();
            let link = folder.join(&name);
            let is_template = name.to_string_lossy().starts_with("pgrestored-template-");
            if is_template && !link.exists() {
                std::os::unix::fs::symlink(template.path(), link).unwrap();
            }
        }
    }
}

/// A throwaway cluster with the roles and the tablespace that the corpus uses.
pub struct Cluster {
    pub sandbox: Sandbox,
    scratch: tempfile::TempDir,
    /// The server is not the one that the sandbox started and will stop.
    is_restarted: AtomicBool,
    /// Of the superuser, in the maintenance database.
    kept: parking_lot::Mutex<Option<TestSession>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_restarted.load(Ordering::SeqCst) {
            let _ = self.pg_ctl("stop").args(["-m", "immediate"]).output();
        }
    }
}

impl Cluster {
    /// A cluster of the distribution's newest PostgreSQL.
    pub fn start() -> Self {
        Self::start_with("")
    }

    pub fn start_with(options: &str) -> Self {
        Self::of(&newest_bindir(), options)
    }

    pub fn of(bindir: &Path, options: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        // The server's user must be able to read and write here.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(scratch.path(), open).unwrap();
        let sandbox = Sandbox::start(bindir, &std::env::temp_dir(), false, options).unwrap();
        let cluster = Cluster {
            sandbox,
            scratch,
            is_restarted: AtomicBool::new(false),
            kept: parking_lot::Mutex::default(),
        };
        cluster.psql(
            "postgres",
            "CREATE ROLE role_a; CREATE ROLE role_b; CREATE ROLE \"Röle \"\"C\"\"\"",
        );
        cluster
    }

    fn pg_ctl(&self, what: &str) -> Command {
        let mut command = self.sandbox.command("pg_ctl");
        command.arg(what).arg("-D");
        command.arg(Path::new(self.sandbox.host()).join("data"));
        command
    }

    /// Stops the server as a crash would, and starts it again with the same settings.
    pub fn crash_and_restart(&self) {
        self.is_restarted.store(true, Ordering::SeqCst);
        let mut restart = self.pg_ctl("restart");
        restart.args(["-m", "immediate", "-w", "-l"]);
        restart.arg(self.scratch("restarted.log"));
        let restarted = self.sandbox.run(&mut restart);
        restarted.unwrap_or_else(|e| panic!("{e}"));
    }

    /// Stops the server as a crash would, for good.
    pub fn crash(&self) {
        let mut stop = self.pg_ctl("stop");
        let stopped = self.sandbox.run(stop.args(["-m", "immediate", "-w"]));
        stopped.unwrap_or_else(|e| panic!("{e}"));
    }

    pub fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A folder that the server's user may write to.
    pub fn open_folder(&self, name: &str) -> PathBuf {
        let folder = self.scratch(name);
        std::fs::create_dir(&folder).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&folder, open).unwrap();
        folder
    }

    /// A folder for the sandboxes of this cluster's workers alone. It shares the template clusters of the usual folder,
    /// because `initdb` takes a second.
    pub fn sandboxes(&self) -> PathBuf {
        let folder = self.open_folder("sandboxes");
        share_templates(&folder);
        folder
    }

    pub fn tablespace(&self, name: &str) {
        let folder = self.sandbox.make_folder(name).unwrap();
        self.psql(
            "postgres",
            &format!("CREATE TABLESPACE {name} LOCATION '{}'", folder.display()),
        );
    }

    /// Runs SQL and returns what psql prints, unaligned.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let Some(statements) = statements(sql) else {
            self.hang_up();
            return self.psql_file(database, sql);
        };
        let can_keep = database == "postgres" && statements.iter().all(|s| leaves_nothing(s));
        let config = self.connection_to(database);
        let ran = outside(|| {
            // Another thread may use it, and may be waiting for this one.
            match self.kept.try_lock().filter(|_| can_keep) {
                Some(mut kept) => run_in_kept(&mut kept, &config, &statements),
                None => {
                    let session = TestSession::open(&config);
                    let ran = session.run(&statements);
                    session.close();
                    ran
                }
            }
        });
        if !can_keep && database == "postgres" {
            self.hang_up();
        }
        ran.unwrap_or_else(|(statement, e)| panic!("{statement}: {e:?}"))
    }

    /// Runs the next statement in a new session, with new settings.
    pub fn hang_up(&self) {
        let kept = self.kept.try_lock().and_then(|mut kept| kept.take());
        if let Some(session) = kept {
            outside(|| session.close());
        }
    }

    /// What psql itself prints for a text.
    fn psql_file(&self, database: &str, sql: &str) -> String {
        let file = self.scratch(&format!("{}.sql", uuid::Uuid::new_v4()));
        std::fs::write(&file, sql).unwrap();
        let mut psql = self.sandbox.command("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database,
            "-f",
        ])
        .arg(&file);
        psql.env("PGOPTIONS", "-c client_min_messages=warning");
        let out = self
            .sandbox
            .run(&mut psql)
            .unwrap_or_else(|e| panic!("{e}"));
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    fn connection_to(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.sandbox.host())
            .user("postgres")
            .dbname(database);
        config
    }

    /// How to create a database: small ones in the least time where the server knows more than one way.
    fn strategy(&self) -> &'static str {
        let file = Path::new(self.sandbox.host()).join("data/PG_VERSION");
        let version = std::fs::read_to_string(file).unwrap_or_default();
        let has_strategies = version.trim().parse::<u32>().is_ok_and(|v| v >= 15);
        if has_strategies {
            " STRATEGY file_copy"
        } else {
            ""
        }
    }

    pub fn create(&self, database: &str, sql: &str) {
        let name = pgrestored::postgres::ident(database);
        let create = format!(
            "CREATE DATABASE {name} TEMPLATE template0{}",
            self.strategy()
        );
        self.psql("postgres", &create);
        if !sql.is_empty() {
            self.psql(database, sql);
        }
    }

    /// Replaces database `to` by a copy of `from`. Their names need no quotes.
    pub fn copy(&self, from: &str, to: &str) {
        let strategy = self.strategy();
        let copy = format!("CREATE DATABASE {to} TEMPLATE {from}{strategy}");
        let drop = format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)");
        self.psql("postgres", &format!("{drop}; {copy}"));
    }

    pub fn databases(&self) -> Vec<String> {
        let list = self.psql("postgres", "SELECT datname FROM pg_database ORDER BY 1");
        list.lines().map(str::to_owned).collect()
    }

    /// Waits until a query has a row, and returns its first column.
    pub async fn until(&self, query: &str) -> String {
        let config = self.connection_to("postgres");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        loop {
            for answer in client.simple_query(query).await.unwrap() {
                if let SimpleQueryMessage::Row(row) = answer {
                    return row.get(0).unwrap_or_default().to_owned();
                }
            }
            pause().await;
        }
    }

    /// Staging databases that still exist.
    pub fn leftovers(&self) -> Vec<String> {
        self.databases()
            .into_iter()
            .filter(|d| d.starts_with("pgrestored_s_"))
            .collect()
    }

    /// What `pg_dump` writes to its standard output.
    pub fn dump(&self, database: &str, args: &[&str]) -> Vec<u8> {
        let mut pg_dump = self.sandbox.command("pg_dump");
        pg_dump.args(["-d", database]).args(args);
        self.sandbox.run(&mut pg_dump).unwrap()
    }

    /// `pg_dump -Fc` into a file: with data offsets.
    pub fn dump_to_file(&self, database: &str, args: &[&str]) -> PathBuf {
        let file = self.scratch(&format!("{}.dump", uuid::Uuid::new_v4()));
        self.sandbox
            .run(
                self.sandbox
                    .command("pg_dump")
                    .args(["-Fc", "-d", database, "-f"])
                    .arg(&file)
                    .args(args),
            )
            .unwrap();
        file
    }

    /// `pg_dump -Fc` through a pipe: without data offsets.
    pub fn dump_through_pipe(&self, database: &str, args: &[&str]) -> PathBuf {
        let file = self.scratch(&format!("{}.piped.dump", uuid::Uuid::new_v4()));
        let bytes = self.dump(database, &[&["-Fc"][..], args].concat());
        std::fs::write(&file, bytes).unwrap();
        file
    }

    /// SQL text whose restore waits for a role `go_on`.
    pub fn waiting_dump(&self) -> PathBuf {
        let wait = "WHILE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'go_on') LOOP PERFORM pg_sleep(0.01); END LOOP;";
        let text = format!(
            "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n-- Dumped by pg_dump version 15.1\n
CREATE TABLE public.t (a int);\nDO $$ BEGIN {wait} END $$;\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
        );
        let path = self.scratch("waiting.sql");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Restores an archive with `pg_restore` into a new database.
    pub fn pg_restore(&self, archive: &Path, database: &str, args: &[&str]) {
        self.create(database, "");
        self.sandbox
            .run(
                self.sandbox
                    .command("pg_restore")
                    .args(["-d", database])
                    .args(args)
                    .arg(archive),
            )
            .unwrap_or_else(|e| panic!("pg_restore {}: {e}", archive.display()));
    }

    /// Runs a job with further configuration flags.
    pub async fn restore_with(&self, job: &RestoreJob, flags: &[(&str, &str)]) -> JobOutcome {
        self.app(flags)
            .manager
            .run(job, Arc::default(), CancellationToken::new())
            .await
    }

    /// `more`: flags, and [`OFFSETS_FROM`].
    pub fn app(&self, more: &[(&str, &str)]) -> App {
        App::new(self.config(more)).unwrap()
    }

    /// Of this server as the target, with further flags.
    pub fn config(&self, more: &[(&str, &str)]) -> Config {
        let mut flags = vec![
            ("db-host", self.sandbox.host()),
            ("db-port", "5432"),
            ("db-user", "postgres"),
            ("db-password", ""),
            ("backup-bucket", "file:///nowhere"),
            ("restore-jobs", "2"),
            ("retry-budget", "5s"),
            ("admin-addr", "127.0.0.1:0"),
        ];
        flags.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        flags.extend(more);
        let offsets_from = flags.iter().position(|(name, _)| *name == OFFSETS_FROM);
        let offsets_from = offsets_from.map(|at| flags.remove(at).1.parse().unwrap());
        let mut config = Config::new(&raw_config(&flags)).unwrap();
        config.offsets_from = offsets_from.unwrap_or(config.offsets_from);
        config
    }

    /// Restores a file with pgrestored, [quickly](quick), and returns the outcome, successful or not.
    pub async fn try_restore(
        &self,
        archive: &Path,
        target: &str,
        on_existing: OnExisting,
    ) -> JobOutcome {
        let job = job(archive, target, on_existing);
        self.app(quick())
            .manager
            .run(&job, Arc::default(), CancellationToken::new())
            .await
    }

    /// Restores a file with pgrestored into a new database; panics on failure.
    pub async fn restore(&self, archive: &Path, target: &str) -> RestoreResult {
        let done = self.try_restore(archive, target, OnExisting::Fail).await;
        assert!(
            done.failure.is_none(),
            "{}: {:?}",
            archive.display(),
            done.result.error
        );
        done.result
    }

    /// The whole database as SQL, with the rows of each table sorted.
    pub fn content(&self, database: &str, args: &[&str]) -> String {
        let args = [NO_LABELS, args].concat();
        normalised(&String::from_utf8(self.dump(database, &args)).unwrap())
    }
}

/// In a session that is kept, or a new one if there is none or it is gone.
fn run_in_kept<'a>(
    kept: &mut Option<TestSession>,
    config: &tokio_postgres::Config,
    statements: &[&'a str],
) -> Result<String, (&'a str, tokio_postgres::Error)> {
    if let Some(session) = kept {
        match session.run(statements) {
            Err((_, e)) if is_lost(&e) => *kept = None,
            ran => return ran,
        }
    }
    kept.insert(TestSession::open(config)).run(statements)
}

/// No server of the tests has a provider of security labels, so that no database has one. To look for them takes a fifth of
/// a dump's time.
pub const NO_LABELS: &[&str] = &["--no-security-labels"];

/// For restores of which nothing depends on statistics. `make soak` makes them all the same.
pub fn quick() -> &'static [(&'static str, &'static str)] {
    if is_full_campaign() {
        &[]
    } else {
        &[("restore-no-analyze", "true")]
    }
}

/// The values of flags. To build the command line for the same ones again takes milliseconds.
pub fn raw_config(flags: &[(&str, &str)]) -> RawConfig {
    type Parsed = Vec<(Vec<(String, String)>, RawConfig)>;
    static PARSED: parking_lot::Mutex<Parsed> = parking_lot::Mutex::new(vec![]);
    let is_same = |(known, _): &&(Vec<(String, String)>, RawConfig)| {
        let known = known.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        known.eq(flags.iter().copied())
    };
    let mut parsed = PARSED.lock();
    if let Some((_, raw)) = parsed.iter().find(is_same) {
        return raw.clone();
    }
    let raw = RawConfig::from_flags(flags).unwrap();
    let owned = flags
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    parsed.push((owned.collect(), raw.clone()));
    raw
}

/// A time of publication: an hour ago, plus `later` microseconds.
pub fn published_us(later: i64) -> Option<i64> {
    static START: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    Some(START.get_or_init(|| jiff::Timestamp::now().as_microsecond() - 3_600_000_000) + later)
}

static NEXT: AtomicU32 = AtomicU32::new(1);

pub fn job(archive: &Path, target: &str, on_existing: OnExisting) -> RestoreJob {
    RestoreJob {
        request_id: format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        backup: BackupRef::parse(archive.to_str().unwrap(), "").unwrap(),
        generation: None,
        crc32c: None,
        target_db: target.into(),
        on_existing,
        jobs: None,
        deadline: None,
        labels: Default::default(),
        published_us: published_us(0),
        attempt: 1,
        policy: None,
        keep_previous: None,
        masking: None,
        database: None,
        selection: Default::default(),
        in_place: None,
        on_error: None,
        finish: Default::default(),
        is_rehearsal: false,
        keep: KeepProgress::ForRedelivery,
        digest: format!("{archive:?} {target}"),
    }
}

/// Sorts the rows of each COPY block, since several connections fill a table, and drops the random key of
/// `\restrict`.
pub fn normalised(dump: &str) -> String {
    let (mut out, mut rows): (Vec<&str>, Option<Vec<&str>>) = (vec![], None);
    for line in dump.split('\n') {
        match &mut rows {
            Some(_) if line == "\\." => {
                let mut sorted = rows.take().unwrap();
                sorted.sort_unstable();
                out.append(&mut sorted);
                out.push(line);
            }
            Some(block) => block.push(line),
            None if line.starts_with("\\restrict") || line.starts_with("\\unrestrict") => {}
            None => {
                if line.starts_with("COPY ") && line.ends_with("FROM stdin;") {
                    rows = Some(vec![]);
                }
                out.push(line);
            }
        }
    }
    out.join("\n")
}

/// Fails with the first lines that differ.
pub fn assert_same(ours: &str, theirs: &str, what: &str) {
    if let Some(difference) = difference(ours, theirs) {
        panic!("{what}: {difference}");
    }
}

/// The first lines that differ.
pub fn difference(ours: &str, theirs: &str) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let (a, b): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
    let at = (0..a.len().max(b.len()))
        .find(|i| a.get(*i) != b.get(*i))
        .unwrap_or(0);
    let show = |l: &[&str]| -> String {
        let part = l
            .get(at.saturating_sub(3)..(at + 6).min(l.len()))
            .unwrap_or_default();
        part.iter()
            .map(|x| format!("    {}\n", x.chars().take(300).collect::<String>()))
            .collect()
    };
    let (line, ours, theirs) = (at + 1, show(&a), show(&b));
    Some(format!(
        "line {line}\n  ours:\n{ours}  pg_restore's:\n{theirs}"
    ))
}

/// All of these in a full campaign, else the first one and every `step`th after it.
pub fn sample<T>(all: impl IntoIterator<Item = T>, step: usize) -> impl Iterator<Item = T> {
    let step = if is_full_campaign() { 1 } else { step };
    all.into_iter().step_by(step)
}

/// Whether to run test campaigns completely: `CAMPAIGN=full`, which `make soak` sets.
pub fn is_full_campaign() -> bool {
    std::env::var("CAMPAIGN").is_ok_and(|c| c == "full")
}

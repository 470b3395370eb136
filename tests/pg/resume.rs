//! Restores that go on where an earlier attempt stopped: the result is that of one attempt, nothing is loaded twice, and
//! what must not go on begins from the start.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pgrestored::app::App;
use pgrestored::error::FailureReason as R;
use pgrestored::job::{Finishing, FinishingFile, OnExisting, RestoreJob};
use pgrestored::manager::JobOutcome;
use pgrestored::policy::InPlace;
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::kills::{
    FROM_THE_FIRST, Interrupt, SOURCE, assert_begun_again, assert_continued, assert_settled,
    end_all, end_loaders, records, reopened, until_sessions_ended,
};
use crate::support::{Cluster, OFFSETS_FROM, assert_same, is_full_campaign, job, pause, quick};

/// The step between the record of a transaction and its commit.
pub(crate) const NOTED: &str = "work.noted";

pub(crate) async fn run(app: &App, job: &RestoreJob) -> JobOutcome {
    let stop = CancellationToken::new();
    app.manager.run(job, Arc::default(), stop).await
}

/// The same request, delivered once more.
pub(crate) fn again(job: &RestoreJob) -> RestoreJob {
    RestoreJob {
        attempt: job.attempt + 1,
        ..job.clone()
    }
}

/// An attempt that loses the server after `passed` recorded transactions.
pub(crate) async fn interrupted(
    app: &App,
    c: &Arc<Cluster>,
    job: &RestoreJob,
    passed: u32,
    end: fn(&Cluster),
) {
    let interrupt = Interrupt::at(c, (NOTED, passed), end);
    let done = run(app, job).await;
    assert!(interrupt.has_happened(), "it has only {passed} records");
    let error = &done.result.error;
    assert_eq!(done.failure, Some(R::TargetUnavailable), "{error:?}");
}

fn started(source: &str) -> Arc<Cluster> {
    let c = Cluster::start();
    c.create("src", source);
    Arc::new(c)
}

/// With the network and the process as what fails, by turns: the former hands the work over.
#[tokio::test(flavor = "multi_thread")]
async fn every_format_goes_on_where_it_stopped() {
    let c = started(SOURCE);
    // The custom archive with offsets is read by several readers, and the piped one in order.
    let app = c.app(&[&[FROM_THE_FIRST, (OFFSETS_FROM, "0")][..], quick()].concat());
    let wanted = c.content("src", &[]);
    let places: Vec<(DumpFormat, Vec<u32>)> = if is_full_campaign() {
        let seed = u64::from(std::process::id());
        fastrand::seed(seed);
        eprintln!("CAMPAIGN interrupted restores: seed {seed}");
        let place = |_: u8| fastrand::u32(..16);
        let times = |_| (0..fastrand::u8(1..=5)).map(place).collect();
        let all = DumpFormat::ALL.into_iter();
        all.flat_map(|f| (0..20).map(move |i| (f, i)))
            .map(|(format, i)| (format, times(i)))
            .collect()
    } else {
        [
            (DumpFormat::Custom, vec![2, 3]),
            (DumpFormat::CustomPiped, vec![8]),
            (DumpFormat::Directory, vec![6]),
            (DumpFormat::Plain, vec![7]),
            (DumpFormat::PlainInserts, vec![5]),
            (DumpFormat::Tar, vec![9]),
        ]
        .into()
    };
    let (mut went_on, mut number) = (0, 0);
    for (format, places) in &places {
        let what = format!("{format:?} interrupted after {places:?}");
        let dump = c.dump_as("src", *format);
        let target = format!("app{number}");
        number += 1;
        let mut request = job(&dump, &target, OnExisting::Fail);
        let (mut done, mut recorded) = (None, 0);
        for (i, &passed) in places.iter().enumerate() {
            let end = [end_all, end_loaders][i % 2];
            let interrupt = Interrupt::at(&c, (NOTED, passed), end);
            let attempt = run(&app, &request).await;
            if !interrupt.has_happened() {
                done = Some(attempt);
                break;
            }
            let error = &attempt.result.error;
            assert_eq!(
                attempt.failure,
                Some(R::TargetUnavailable),
                "{what}: {error:?}"
            );
            if !c.leftovers().is_empty() {
                recorded = records(&c, &reopened(&c));
            }
            request = again(&request);
        }
        let done = match done {
            Some(done) => done,
            None => run(&app, &request).await,
        };
        if recorded > 0 {
            assert_continued(&done.result, &what);
            went_on += 1;
        }
        assert_eq!(done.result.error, None, "{what}");
        assert_same(&c.content(&target, &[]), &wanted, &what);
        assert_settled(&c, &target, &what);
        c.psql("postgres", &format!("DROP DATABASE {target}"));
    }
    eprintln!(
        "CAMPAIGN interrupted restores: {number}, of which {went_on} went on; all equal, 0 leftovers"
    );
    assert!(went_on > 0);
}

/// Two of its three COPYs would have to be repeated if a table began again.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_goes_on_in_its_middle() {
    let c = started(
        "CREATE TABLE t (id int, v text); INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 80000) i;
         ALTER TABLE t ADD PRIMARY KEY (id)",
    );
    let dump = c.dump_to_file("src", &["-Z1"]);
    let app = c.app(&[FROM_THE_FIRST, ("restore-jobs", "1")]);
    let request = job(&dump, "app", OnExisting::Fail);
    let has_rows = |c: &Cluster| {
        let committed = "SELECT count(*) FROM pgrestored_work.done WHERE body LIKE '%\"r\":%'";
        c.leftovers()
            .first()
            .is_some_and(|s| c.psql(s, committed) == "1")
    };
    let interrupt = Interrupt::when(&c, NOTED, has_rows, end_all);
    let first = run(&app, &request).await;
    assert!(interrupt.has_happened());
    assert_eq!(first.failure, Some(R::TargetUnavailable));
    drop(interrupt);
    let done = run(&app, &again(&request)).await.result;
    assert_continued(&done, "the middle");
    let from = done.resumed_from.as_ref().unwrap();
    assert!(from.rows > 60_000 && from.rows < 80_000, "{from:?}");
    assert!(from.bytes >= 64 << 20, "{from:?}");
    let rows = "SELECT count(*), count(DISTINCT id), sum(length(v)) FROM t";
    assert_eq!(c.psql("app", rows), "80000|80000|80000000");
    assert_eq!((done.tables, done.rows), (1, 80_000));
    let says_so = done.notes.iter().any(|n| n.contains("without FREEZE"));
    assert!(says_so, "{:?}", done.notes);
    assert_settled(&c, "app", "the middle");
}

/// Each of these begins from the start, and says why.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_record_belongs_to_is_compared() {
    let c = started(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, i FROM generate_series(1, 99) i; GRANT SELECT ON t TO role_a",
    );
    let dump = c.dump_as("src", DumpFormat::Custom);
    let bytes = std::fs::read(&dump).unwrap();
    let app = c.app(&[FROM_THE_FIRST]);
    let rules = c.scratch("rules.yaml");
    let text = "version: 1\nlarge_objects: keep\ntables:\n  public.t: { columns: { v: { set: \"x\" } } }\n";
    std::fs::write(&rules, text).unwrap();
    let rules = rules.to_str().unwrap();
    let nothing = || {};
    let too_old = || {
        let ago = "UPDATE pgrestored.work SET updated = now() - interval '25 hours'";
        c.psql("postgres", ago);
    };
    // The store gives the file another generation.
    let written_again = || {
        std::fs::remove_file(&dump).unwrap();
        std::fs::write(&dump, &bytes).unwrap();
    };
    type Case<'a> = (&'a str, &'a dyn Fn(), &'a [(&'a str, &'a str)]);
    let cases: [Case<'_>; 5] = [
        ("nothing", &nothing, &[]),
        ("never", &nothing, &[("restore-resume", "never")]),
        ("too old", &too_old, &[]),
        ("another generation", &written_again, &[]),
        (
            "another policy",
            &nothing,
            &[("restore-no-privileges", "true")],
        ),
    ];
    for (what, change, flags) in cases {
        let request = job(&dump, "app", OnExisting::Fail);
        interrupted(&app, &c, &request, 2, end_all).await;
        change();
        let flags = [&[FROM_THE_FIRST][..], flags].concat();
        let done = run(&c.app(&flags), &again(&request)).await.result;
        if what == "nothing" {
            assert_continued(&done, what);
        } else {
            assert_begun_again(&done, what);
        }
        assert_eq!(c.psql("app", "SELECT count(*) FROM t"), "99", "{what}");
        let is_granted = "SELECT has_table_privilege('role_a', 't', 'SELECT')";
        let wanted = if what == "another policy" { "f" } else { "t" };
        assert_eq!(c.psql("app", is_granted), wanted, "{what}");
        assert_settled(&c, "app", what);
        c.psql("postgres", "DROP DATABASE app");
    }
    // Rows that are not masked must not stay when rules were added.
    let request = job(&dump, "app", OnExisting::Fail);
    interrupted(&app, &c, &request, 2, end_all).await;
    let masked = c.app(&[FROM_THE_FIRST, ("restore-mask", rules)]);
    let done = run(&masked, &again(&request)).await.result;
    assert_begun_again(&done, "masking rules");
    assert_eq!(c.psql("app", "SELECT DISTINCT v FROM t"), "x");
}

/// What earlier attempts have masked counts, once; and what is not restored stays away.
#[tokio::test(flavor = "multi_thread")]
async fn masked_rows_are_counted_once() {
    let c = started(SOURCE);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let rules = c.scratch("rules.yaml");
    let text = "version: 1\nlarge_objects: keep\ntables:\n  s.big: { columns: { v: { hash: true } } }\n  s.t1: { rows: none }\n  s.t2: { columns: { v: { set: \"x\" } } }\n";
    std::fs::write(&rules, text).unwrap();
    let flags = [
        FROM_THE_FIRST,
        ("restore-mask", rules.to_str().unwrap()),
        ("mask-key", "a key of at least sixteen bytes"),
    ];
    let app = c.app(&flags);
    let whole = run(&app, &job(&dump, "whole", OnExisting::Fail))
        .await
        .result;
    assert_eq!(whole.error, None);
    let request = job(&dump, "app", OnExisting::Fail);
    interrupted(&app, &c, &request, 6, end_all).await;
    let done = run(&app, &again(&request)).await.result;
    assert_continued(&done, "masked");
    assert_eq!(done.masking, whole.masking);
    assert_eq!((done.tables, done.rows), (whole.tables, whole.rows));
    let [app, whole] = ["app", "whole"].map(|name| c.content(name, &[]));
    assert_same(&app, &whole, "masked");
}

/// Under its final name, and with SQL that must run only once.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_in_place_and_its_finishing_sql_go_on() {
    let c = started(SOURCE);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let app = c.app(&[FROM_THE_FIRST]);
    let once = "INSERT INTO s.log VALUES ('once')";
    let once = Arc::new(FinishingFile::parse("once.sql", once.as_bytes()).unwrap());
    let request = |target: &str, in_place| RestoreJob {
        in_place: Some(in_place),
        finish: Finishing {
            files: vec![once.clone()],
            ..Finishing::default()
        },
        ..job(&dump, target, OnExisting::Fail)
    };
    let (finished, source) = ("SELECT count(*) FROM s.log", c.content("src", &[]));
    // In the load; once the SQL has run; and before the exchange of databases.
    for (i, (step, passed, in_place)) in [
        (NOTED, 6, InPlace::Always),
        ("work.sealed", 0, InPlace::Never),
        ("checked", 0, InPlace::Never),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("app{i}");
        let request = request(&target, in_place);
        let interrupt = Interrupt::at(&c, (step, passed), end_all);
        let first = run(&app, &request).await;
        assert!(interrupt.has_happened(), "{step}");
        drop(interrupt);
        assert_eq!(first.failure, Some(R::TargetUnavailable), "{step}");
        let done = run(&app, &again(&request)).await.result;
        assert_continued(&done, step);
        assert_eq!(c.psql(&target, finished), "1", "{step}");
        assert_settled(&c, &target, step);
        c.psql(&target, "DELETE FROM s.log");
        assert_same(&c.content(&target, &[]), &source, step);
    }
}

/// The secret that writes records is in no statement.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_has_the_secret_of_a_record() {
    let c = started("CREATE TABLE t AS SELECT 1 AS a");
    let dump = c.dump_as("src", DumpFormat::Custom);
    let seen = Arc::<AtomicU32>::default();
    let count = seen.clone();
    let notes = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pgrestored_work.note%' AND pid <> pg_backend_pid()";
    let with_values = format!("{notes} AND (query NOT LIKE '%$1%' OR query LIKE '%\\\\x%')");
    let look = move |c: &Cluster| {
        assert_eq!(c.psql("postgres", &with_values), "0");
        let noted: u32 = c.psql("postgres", notes).parse().unwrap();
        count.fetch_add(noted, Ordering::SeqCst);
    };
    let _looks = Interrupt::at(&c, (NOTED, 1), look);
    let app = c.app(&[FROM_THE_FIRST]);
    let done = run(&app, &job(&dump, "app", OnExisting::Fail)).await;
    assert_eq!(done.result.error, None);
    assert!(seen.load(Ordering::SeqCst) > 0);
}

/// Keeps the first session that has a task from going on until something has happened elsewhere.
struct FirstTask {
    go_on: mpsc::Sender<()>,
}

impl FirstTask {
    fn waits() -> Self {
        let (go_on, told) = mpsc::channel();
        let told = Mutex::new(Some(told));
        let wait = move || {
            let first = told.lock().unwrap().take();
            if let Some(told) = first {
                // Nobody is told if the test has failed meanwhile.
                let limit = Duration::from_secs(30);
                let _ = tokio::task::block_in_place(|| told.recv_timeout(limit));
            }
        };
        fail::cfg_callback("task", wait).unwrap();
        FirstTask { go_on }
    }
}

impl Drop for FirstTask {
    fn drop(&mut self) {
        fail::remove("task");
    }
}

/// The record begins after its second row, for which the load has to be far, or after an hour.
const AFTER_TWO_ROWS: (&str, &str) = ("work.filled", "1*off->return");
const AFTER_AN_HOUR: (&str, &str) = ("restore-resume-from", "1h");

/// Until the journal has the key of a record, nothing is kept, and the next attempt begins from the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_kept_before_the_record_has_begun() {
    let c = started(SOURCE);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let wanted = c.content("src", &[]);
    let app = c.app(&[AFTER_AN_HOUR]);
    // In memory; in the transaction that writes the record; and behind that.
    let places = [("work.held", 3), ("work.storing", 0), ("work.stored", 0)];
    for (i, (step, passed)) in places.into_iter().enumerate() {
        let (target, is_held) = (format!("app{i}"), step == "work.held");
        let request = job(&dump, &target, OnExisting::Fail);
        let first_task = FirstTask::waits();
        let go_on = first_task.go_on.clone();
        let end = move |c: &Cluster| {
            end_all(c);
            let _ = go_on.send(());
        };
        if !is_held {
            fail::cfg(AFTER_TWO_ROWS.0, AFTER_TWO_ROWS.1).unwrap();
        }
        let interrupt = Interrupt::at(&c, (step, passed), end);
        let first = run(&app, &request).await;
        assert!(interrupt.has_happened(), "{step}");
        fail::remove(AFTER_TWO_ROWS.0);
        drop((interrupt, first_task));
        assert_eq!(first.failure, Some(R::TargetUnavailable), "{step}");
        // The answer to a COMMIT was lost, unless it came before the server ended the session.
        let notes = &first.result.notes;
        let says_why = notes.iter().any(|n| n.contains("COMMIT was lost"));
        assert!(says_why || notes.is_empty() || !is_held, "{notes:?}");
        let kept = c.psql("postgres", "SELECT count(*) FROM pgrestored.work");
        assert_eq!(kept, "0", "{step}");
        let begins = Interrupt::at(&c, ("work.due", 0), |_| {});
        let done = run(&app, &again(&request)).await.result;
        // A restore that is short has no record.
        assert!(!begins.has_happened(), "{step}");
        assert_eq!((done.error, done.resumed_from), (None, None), "{step}");
        assert_same(&c.content(&target, &[]), &wanted, step);
        assert_settled(&c, &target, step);
    }
}

/// Whatever the journal says against the record of a restore, the restore goes on; it only cannot be continued.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_journal_that_refuses_ends_no_restore() {
    let c = started(SOURCE);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let wanted = c.content("src", &[]);
    let app = c.app(&[FROM_THE_FIRST]);
    let refuse = |c: &Cluster| {
        let sql = "ALTER TABLE pgrestored.work ADD CONSTRAINT refused CHECK (false) NOT VALID";
        c.psql("postgres", sql);
    };
    // The journal knows of the record, and not of its end.
    let refuses = Interrupt::at(&c, ("loaded", 0), refuse);
    let done = run(&app, &job(&dump, "late", OnExisting::Fail))
        .await
        .result;
    assert!(refuses.has_happened());
    drop(refuses);
    assert_eq!(done.error, None);
    assert_same(&c.content("late", &[]), &wanted, "late");
    assert_settled(&c, "late", "late");
    // It never gets to know it.
    let done = run(&app, &job(&dump, "early", OnExisting::Fail))
        .await
        .result;
    assert_eq!(done.error, None);
    assert_same(&c.content("early", &[]), &wanted, "early");
    assert_settled(&c, "early", "early");
    let request = job(&dump, "never", OnExisting::Fail);
    let interrupt = Interrupt::at(&c, (NOTED, 3), end_loaders);
    let failed = run(&app, &request).await;
    assert!(interrupt.has_happened());
    drop(interrupt);
    assert_eq!(failed.failure, Some(R::TargetUnavailable));
    let says_why = |n: &String| {
        n.contains("begins from the start: its record could not be entered in the journal")
    };
    let notes = &failed.result.notes;
    assert!(notes.iter().any(says_why), "{notes:?}");
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

/// What the backup has under the name of the record is the backup's, also if it comes when the record has begun, or before it
/// is to begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_text_may_have_a_schema_of_the_records_name() {
    let c = started("CREATE TABLE t AS SELECT 1 AS a");
    let dump = c.dump_as("src", DumpFormat::Plain);
    let text = std::fs::read_to_string(&dump).unwrap();
    let end = "--\n-- PostgreSQL database dump complete";
    let own = "CREATE SCHEMA pgrestored_work; CREATE TABLE pgrestored_work.own AS SELECT 2 AS b;";
    assert_eq!(text.matches(end).count(), 1);
    std::fs::write(&dump, text.replace(end, &format!("{own}\n\n{end}"))).unwrap();
    let in_memory = [AFTER_AN_HOUR, ("restore-swap-when-idle", "10s")];
    for (target, flags) in [("begun", &[FROM_THE_FIRST][..]), ("held", &in_memory)] {
        let done = run(&c.app(flags), &job(&dump, target, OnExisting::Fail)).await;
        assert_eq!(done.result.error, None, "{target}");
        let own = c.psql(target, "SELECT a, b FROM t, pgrestored_work.own");
        assert_eq!(own, "1|2", "{target}");
    }
}

/// What was done while the record was in memory is not done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_record_begins_with_what_was_done_before() {
    let c = started(SOURCE);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let wanted = c.content("src", &[]);
    // Killed when it has begun. One session waits at its first task, so that the load is not over by then.
    let run_by_hand = |points: &str, more: &[&str]| {
        let more = [&["--restore-jobs", "4"], more].concat();
        by_hand_from(&c, &dump, ("1h", points), &more)
    };
    let (step, when) = AFTER_TWO_ROWS;
    let points = format!("{step}={when};task=1*return(600000)");
    let mut killed = run_by_hand(&points, &["--keep-progress"]);
    let mut killed = killed.stdout(Stdio::null()).spawn().unwrap();
    c.until("SELECT 1 FROM pg_tables WHERE (schemaname, tablename) = ('pgrestored', 'work')")
        .await;
    c.until("SELECT 1 FROM pgrestored.work").await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    until_sessions_ended(&c).await;
    let of_memory = "SELECT count(*) >= 2 FROM pgrestored_work.done d, pgrestored_work.head h WHERE d.xmin = h.xmin";
    assert_eq!(c.psql(&reopened(&c), of_memory), "t");
    let done = run_by_hand("", &["--resume"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let result = result_of(&done);
    assert_eq!(result["resumed_from"]["attempt"], 1, "{result:#}");
    assert_same(&c.content("by_hand", &[]), &wanted, "killed");
    assert_settled(&c, "by_hand", "killed");
    // Interrupted after rows that transactions wrote themselves, however many there were before.
    let app = c.app(&[("restore-resume-from", "1ms")]);
    let request = job(&dump, "app", OnExisting::Fail);
    let first_task = FirstTask::waits();
    let go_on = first_task.go_on.clone();
    let begins = Interrupt::at(&c, ("work.begun", 0), move |_| {
        let _ = go_on.send(());
    });
    let interrupt = Interrupt::at(&c, (NOTED, 1), end_all);
    let first = run(&app, &request).await;
    assert!(begins.has_happened() && interrupt.has_happened());
    drop((begins, interrupt, first_task));
    assert_eq!(first.failure, Some(R::TargetUnavailable));
    let done = run(&app, &again(&request)).await.result;
    assert_continued(&done, "interrupted");
    assert_same(&c.content("app", &[]), &wanted, "interrupted");
    assert_settled(&c, "app", "interrupted");
}

/// The command, at whose failpoints something happens.
fn by_hand(c: &Cluster, dump: &Path, point: &str, more: &[&str]) -> Command {
    by_hand_from(c, dump, ("0s", point), more)
}

/// The same; `from`: how long it must have loaded for its work to be kept.
fn by_hand_from(c: &Cluster, dump: &Path, (from, point): (&str, &str), more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command.env_clear().env("FAILPOINTS", point);
    command.args(["restore", dump.to_str().unwrap(), "--target", "by_hand"]);
    command.args(["--output", "json", "--restore-resume-from", from]);
    command.args(["--db-user", "postgres", "--db-host", c.sandbox.host()]);
    command.args(more).stdin(Stdio::null());
    command
}

fn result_of(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_interrupts_and_continues() {
    let c = started(SOURCE);
    let dump: PathBuf = c.dump_as("src", DumpFormat::Custom);
    let run = |point: &str, more: &[&str]| by_hand(&c, &dump, point, more).output().unwrap();
    // Without the flag, nothing is kept and nothing can be continued.
    let none = run("", &["--resume"]);
    let said = format!("{none:?}");
    assert!(
        !none.status.success() && said.contains("nothing to continue"),
        "{said}"
    );
    // The machine fails.
    let killed = run("work.noted=4*off->return", &["--keep-progress"]);
    assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
    until_sessions_ended(&c).await;
    // Ctrl-C, while one session pauses in a transaction that comes later.
    let staging = reopened(&c);
    let before = records(&c, &staging);
    let attempt = c.psql("postgres", "SELECT attempt FROM pgrestored.work");
    let point = "work.noted=2*off->1*return(2500)";
    let mut second = by_hand(&c, &dump, point, &["--resume"]);
    let second = second.stdout(Stdio::piped()).spawn().unwrap();
    // It ends all other sessions in the database before it goes on.
    let taken = format!("SELECT 1 FROM pgrestored.work WHERE attempt > {attempt}");
    c.until(&taken).await;
    while records(&c, &staging) < before + 1 {
        pause().await;
    }
    let early = run("", &["--resume"]);
    let said = result_of(&early)["error"]["message"].to_string();
    assert!(said.contains("is running"), "{said}");
    let pid = second.id().to_string();
    let interrupt = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(interrupt.unwrap().success());
    let ended = second.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{ended:?}");
    let error = result_of(&ended)["error"]["message"].to_string();
    assert!(error.contains("--resume"), "{error}");
    let last = run("", &["--resume"]);
    assert!(last.status.success(), "{last:?}");
    let result = result_of(&last);
    assert!(
        result["resumed_from"]["rows"].as_u64() > Some(0),
        "{result:#}"
    );
    assert_same(
        &c.content("by_hand", &[]),
        &c.content("src", &[]),
        "by hand",
    );
    assert_settled(&c, "by_hand", "by hand");
    // What nobody will continue is dropped on request.
    c.psql("postgres", "DROP DATABASE by_hand");
    let killed = run("work.noted=4*off->return", &["--keep-progress"]);
    assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
    until_sessions_ended(&c).await;
    let mut reap = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    reap.env_clear().args([
        "reap",
        "--db-user",
        "postgres",
        "--db-host",
        c.sandbox.host(),
    ]);
    let reaped = reap.output().unwrap();
    assert!(reaped.status.success(), "{reaped:?}");
    assert_eq!(c.leftovers(), Vec::<String>::new());
    let waiting = c.psql("postgres", "SELECT count(*) FROM pgrestored.work");
    assert_eq!(waiting, "0");
    let running = "SELECT count(*) FROM pgrestored.request WHERE state = 'running'";
    assert_eq!(c.psql("postgres", running), "0");
}

/// Attempts that lose the server in the middle of their work are nobody's failure; those that keep their lock, and fail, count.
#[tokio::test(flavor = "multi_thread")]
async fn only_failures_count_as_attempts() {
    let c = started(SOURCE);
    let dump = c.dump_as("src", DumpFormat::Custom);
    let two = [
        FROM_THE_FIRST,
        ("restore-max-attempts", "2"),
        ("restore-quarantine-after", "3"),
    ];
    let app = c.app(&two);
    let counted = "SELECT failures FROM pgrestored.request WHERE target = ";
    let mut request = job(&dump, "app", OnExisting::Fail);
    // More often than attempts are allowed, and so early that work is left for all of them: other sessions commit too.
    for _ in 0..3 {
        interrupted(&app, &c, &request, 1, end_all).await;
        request = again(&request);
    }
    assert_eq!(c.psql("postgres", &format!("{counted} 'app'")), "0");
    // This one counts, and is not the last.
    interrupted(&app, &c, &request, 0, end_loaders).await;
    request = again(&request);
    assert_eq!(c.psql("postgres", &format!("{counted} 'app'")), "1");
    let done = run(&app, &request).await.result;
    assert_continued(&done, "after four attempts");
    assert_settled(&c, "app", "after four attempts");

    let mut request = job(&dump, "other", OnExisting::Fail);
    for _ in 0..2 {
        interrupted(&app, &c, &request, 2, end_loaders).await;
        request = again(&request);
    }
    assert_eq!(
        c.leftovers(),
        Vec::<String>::new(),
        "the second was the last"
    );
    let answered = run(&app, &request).await;
    assert!(answered.repeated, "{:?}", answered.result.error);
}

/// The result lists what any attempt was refused, once, and nothing of it is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_remembered() {
    // Of a table, only the owner; of a function, everything that depends on it.
    const REFUSED: &str = "CREATE ROLE gone; CREATE TABLE public.owned (a int); ALTER TABLE public.owned OWNER TO gone;
        CREATE POLICY p ON public.owned TO gone USING (true);
        CREATE FUNCTION public.native() RETURNS int LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
        CREATE TABLE public.lacking (a int, b int DEFAULT public.native()); INSERT INTO public.lacking VALUES (1, 1);
        CREATE VIEW public.depending AS SELECT b FROM public.lacking;
        UPDATE pg_proc SET probin = '$libdir/nowhere' WHERE proname = 'native'";
    let c = started(&format!("{SOURCE}; {REFUSED}"));
    let dumps = [DumpFormat::Custom, DumpFormat::Plain].map(|format| c.dump_as("src", format));
    c.psql("src", "DROP POLICY p ON public.owned");
    c.psql("src", "ALTER TABLE public.owned OWNER TO postgres");
    c.psql("postgres", "DROP ROLE gone");
    let app = c.app(&[FROM_THE_FIRST, ("restore-on-error", "skip")]);
    for (i, dump) in dumps.iter().enumerate() {
        let whole = run(&app, &job(dump, &format!("whole{i}"), OnExisting::Fail))
            .await
            .result;
        assert_eq!((&whole.error, whole.complete), (&None, Some(false)));
        let target = format!("app{i}");
        let request = job(dump, &target, OnExisting::Fail);
        // Twice, so that what is remembered is remembered again.
        interrupted(&app, &c, &request, 6, end_all).await;
        interrupted(&app, &c, &again(&request), 3, end_all).await;
        let done = run(&app, &again(&again(&request))).await.result;
        assert_continued(&done, &target);
        let names = |r: &pgrestored::event::RestoreResult| {
            let mut all: Vec<_> = r
                .skipped
                .iter()
                .map(|s| (s.entry.clone(), s.root.clone(), s.message.clone()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(names(&done), names(&whole), "{target}");
        assert!(whole.skipped_total > 5, "{:?}", whole.skipped);
        assert_eq!(
            (done.skipped_total, done.complete),
            (whole.skipped_total, Some(false))
        );
        assert_eq!((done.tables, done.rows), (whole.tables, whole.rows));
        assert_same(
            &c.content(&target, &[]),
            &c.content(&format!("whole{i}"), &[]),
            &target,
        );
        assert_settled(&c, &target, &target);
    }
}

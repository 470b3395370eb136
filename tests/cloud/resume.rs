//! A worker is killed at random places of a restore, some times in a row, and the next one goes on: all formats, ways to
//! restore and places. `CAMPAIGN=full` kills 500 restores, one to five times each, and prints how much of the work was done
//! again, by the place of the kill: a line for each kill, and the table of `docs/reliability.md`. `target/campaign/resume.csv`
//! and `.svg` have the same.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pgrestored::event::{RestoreResult, Status};
use pgrestored::job::{BackupRef, OnExisting, RestoreJob};
use pgrestored::manager::JobOutcome;
use pgrestored::policy::Selection;
use tokio_util::sync::CancellationToken;

use crate::process::worker_with;
use crate::support::kills::{
    ExpectedContents, FROM_THE_FIRST, Place, SOURCE, assert_continued, assert_settled, kill_at,
    records, reopened, until_sessions_ended, why_not,
};
use crate::support::{Cluster, assert_same, is_full_campaign, job};
use crate::test_env::{BUCKET, PubSubKind, TestEnv};

const REQUESTS: &str = "projects/test/topics/restore-requests";
const RESULTS: &str = "projects/test/topics/restore-completions";
const SUBSCRIPTION: &str = "projects/test/subscriptions/restore-requests";
/// How many restores a campaign kills, one to five times each.
const RESTORES: usize = 500;
const KEY: &str = "a key of at least sixteen bytes";
const RULES: &str = "version: 1\nlarge_objects: keep\ntables:\n  s.big: { columns: { v: { hash: true } } }\n  s.t1: { columns: { v: { set: \"x\" } } }\n";

/// How a backup is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum BackupForm {
    /// A custom archive with data offsets.
    Offsets,
    /// One without.
    Stream,
    Directory,
    Text,
    Tar,
}

/// How a killed restore, and the one that goes on, are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ResumeMode {
    Fail,
    Replace,
    Fill,
    Restricted,
    Masked,
    Selected,
}

const FORMS: [BackupForm; 5] = [
    BackupForm::Offsets,
    BackupForm::Stream,
    BackupForm::Directory,
    BackupForm::Text,
    BackupForm::Tar,
];
const MODES: [ResumeMode; 6] = [
    ResumeMode::Fail,
    ResumeMode::Replace,
    ResumeMode::Fill,
    ResumeMode::Restricted,
    ResumeMode::Masked,
    ResumeMode::Selected,
];

/// Steps at which processes are killed, too.
const STEPS: [&str; 8] = [
    "created",
    "schema",
    "copy",
    "task",
    "work.taken",
    "loaded",
    "work.sealed",
    "swap.new_renamed",
];

impl BackupForm {
    fn backup(self) -> &'static str {
        match self {
            BackupForm::Offsets => "offsets.dump",
            BackupForm::Stream => "stream.dump",
            BackupForm::Directory => "directory/",
            BackupForm::Text => "text.sql",
            BackupForm::Tar => "tar.tar",
        }
    }
}

impl ResumeMode {
    fn on_existing(self) -> OnExisting {
        match self {
            ResumeMode::Replace => OnExisting::Replace,
            ResumeMode::Fill => OnExisting::Fill,
            _ => OnExisting::Fail,
        }
    }

    /// Whether attempts at it go on.
    fn goes_on(self) -> bool {
        self != ResumeMode::Fill
    }

    /// The part of a database that must be what `pg_restore` makes of the same backup, as arguments of `pg_dump`; nothing if
    /// that is all of it.
    fn same_as_pg_restore(self) -> &'static [&'static str] {
        match self {
            ResumeMode::Fail | ResumeMode::Replace | ResumeMode::Fill => &[],
            ResumeMode::Restricted => &["--no-owner", "--no-privileges"],
            ResumeMode::Masked => &[
                "--data-only",
                "-t",
                "s.t2",
                "-t",
                "s.t6",
                "-t",
                "other.alone",
            ],
            ResumeMode::Selected => &[
                "--data-only",
                "-t",
                "s.big",
                "-t",
                "s.t3",
                "-t",
                "other.alone",
            ],
        }
    }

    fn selection(self) -> Selection {
        if self != ResumeMode::Selected {
            return Selection::default();
        }
        Selection {
            tables: ["s.big".into(), "s.t3".into(), "other.alone".into()].into(),
            ..Selection::default()
        }
    }
}

/// What a restore that nobody kills does.
#[derive(Debug, Clone, Copy)]
struct Whole {
    /// Recorded transactions.
    records: u32,
    tables: u64,
    rows: u64,
}

/// A process that was killed.
struct Killed {
    form: BackupForm,
    mode: ResumeMode,
    /// The share of all recorded transactions that it had come to.
    at: f64,
    /// The share of all that had to be done again.
    again: f64,
}

/// What all killed restores share, and what is counted of them.
struct KillCampaign {
    env: TestEnv,
    c: Arc<Cluster>,
    rules: String,
    /// Bytes of each backup.
    sizes: HashMap<BackupForm, u64>,
    wanted: ExpectedContents,
    totals: HashMap<(BackupForm, ResumeMode), Whole>,
    number: u32,
    /// Processes that were killed.
    kills: u32,
    /// Restores that went on, and those that could not although something was recorded.
    went_on: u32,
    false_alarms: Vec<String>,
}

impl KillCampaign {
    async fn new() -> Self {
        let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
        let c = Arc::new(Cluster::start_with("-c fsync=off"));
        c.create("src", SOURCE);
        let storage = &env.emulator.storage;
        let custom = c.dump_to_file("src", &[]);
        let mut sizes = HashMap::new();
        for (form, bytes) in [
            (BackupForm::Offsets, std::fs::read(&custom).unwrap()),
            (BackupForm::Stream, c.dump("src", &["-Fc"])),
            (BackupForm::Text, c.dump("src", &[])),
            (BackupForm::Tar, c.dump("src", &["-Ft"])),
        ] {
            sizes.insert(form, bytes.len() as u64);
            storage.put(BUCKET, form.backup(), bytes);
        }
        for member in std::fs::read_dir(c.dump_to_file("src", &["-Fd"])).unwrap() {
            let member = member.unwrap();
            let name = member.file_name().into_string().unwrap();
            let bytes = std::fs::read(member.path()).unwrap();
            *sizes.entry(BackupForm::Directory).or_default() += bytes.len() as u64;
            let name = format!("{}{name}", BackupForm::Directory.backup());
            storage.put(BUCKET, &name, bytes);
        }
        let rules = c.scratch("rules.yaml");
        std::fs::write(&rules, RULES).unwrap();
        let mut wanted = ExpectedContents::default();
        // What `pg_restore` gives of this source is what the source has.
        let theirs = if is_full_campaign() {
            c.pg_restore(&custom, "theirs", &[]);
            c.content("theirs", &[])
        } else {
            c.content("src", &[])
        };
        for mode in [ResumeMode::Fail, ResumeMode::Replace, ResumeMode::Fill] {
            wanted.insert(&format!("{mode:?}"), theirs.clone());
        }
        KillCampaign {
            env,
            rules: rules.display().to_string(),
            c,
            sizes,
            wanted,
            totals: HashMap::new(),
            number: 0,
            kills: 0,
            went_on: 0,
            false_alarms: vec![],
        }
    }

    fn flags(&self, mode: ResumeMode) -> Vec<(&str, &str)> {
        let mut flags = vec![
            ("db-user", "postgres"),
            ("reap-every", "0"),
            ("restore-jobs", "2"),
            ("restore-keep-previous", "0"),
            FROM_THE_FIRST,
        ];
        // Crashes between which work was done do not count; a campaign also kills where none was.
        if !is_full_campaign() {
            flags.extend([
                ("restore-max-attempts", "2"),
                ("restore-quarantine-after", "3"),
            ]);
        }
        match mode {
            ResumeMode::Restricted => flags.push(("backup-trust", "restricted")),
            ResumeMode::Masked => {
                flags.push(("restore-mask", self.rules.as_str()));
                flags.push(("mask-key", KEY));
            }
            _ => {}
        }
        flags
    }

    /// A restore in this process, which nobody kills.
    async fn whole(&self, form: BackupForm, mode: ResumeMode, target: &str) -> JobOutcome {
        if mode == ResumeMode::Fill {
            self.c.create(target, "");
        }
        let request = RestoreJob {
            backup: BackupRef::parse(form.backup(), "").unwrap(),
            selection: mode.selection(),
            ..job("/x".as_ref(), target, mode.on_existing())
        };
        let app = self.env.app(&self.c, &self.flags(mode));
        let stop = CancellationToken::new();
        let done = app.manager.run(&request, Arc::default(), stop).await;
        assert_eq!(done.result.error, None, "{form:?} {mode:?}");
        done
    }

    /// How many transactions are recorded of a whole restore, and what it must give if `pg_restore` cannot say.
    async fn measure(&mut self, form: BackupForm, mode: ResumeMode) {
        let how = format!("{mode:?}");
        // Only a campaign needs the number of those that `pg_restore` can restore.
        let is_known = self.wanted.has(&how) && !is_full_campaign();
        if is_known || self.totals.contains_key(&(form, mode)) {
            return;
        }
        let noted = Arc::<AtomicU32>::default();
        let count = noted.clone();
        let add = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        fail::cfg_callback("work.noted", add).unwrap();
        let done = self.whole(form, mode, "whole").await.result;
        fail::remove("work.noted");
        if is_full_campaign() {
            let args = mode.same_as_pg_restore();
            let [ours, theirs] = ["whole", "theirs"].map(|name| self.c.content(name, args));
            assert_same(&ours, &theirs, &format!("{form:?} {mode:?}"));
        }
        if !self.wanted.has(&how) {
            let content = self.c.content("whole", &[]);
            self.wanted.insert(&how, content);
        }
        self.c.psql("postgres", "DROP DATABASE whole WITH (FORCE)");
        let records = noted.load(Ordering::SeqCst);
        assert!(
            records > 2 || !mode.goes_on(),
            "{form:?} {mode:?}: {records}"
        );
        let whole = Whole {
            records,
            tables: done.tables,
            rows: done.rows,
        };
        self.totals.insert((form, mode), whole);
    }

    fn outcome(&self, id: &str) -> Option<RestoreResult> {
        let all = self.env.emulator.pubsub.published(RESULTS);
        let ours = all.iter().find(|m| m.attributes["request_id"] == id)?;
        Some(serde_json::from_slice(&ours.data).unwrap())
    }

    async fn until_outcome(&self, id: &str) {
        let is_there = |_: &_| self.outcome(id).is_some();
        self.env.emulator.pubsub.until(is_there).await;
    }

    async fn until_settled(&self) {
        let pubsub = &self.env.emulator.pubsub;
        let settled = pubsub.until(|p| p.unacked(SUBSCRIPTION) == (0, 0));
        let waited = tokio::time::timeout(Duration::from_secs(60), settled).await;
        waited.expect("the request is not acknowledged");
    }

    fn publish(&self, (form, mode): (BackupForm, ResumeMode), id: &str) {
        let body = serde_json::json!({
            "request_id": id, "target_db": id, "backup": { "name": form.backup() },
            "on_existing": mode.on_existing(), "select": mode.selection(),
        });
        let pubsub = &self.env.emulator.pubsub;
        let body = body.to_string();
        pubsub
            .publish(REQUESTS, body.as_bytes(), HashMap::new())
            .unwrap();
    }

    /// Whether a worker was killed there; otherwise, it has answered the request before.
    async fn is_killed(
        &self,
        (form, mode): (BackupForm, ResumeMode),
        id: &str,
        place: Place,
    ) -> bool {
        let storage = &self.env.emulator.storage;
        let (before, size) = (storage.sent(), self.sizes[&form]);
        if let Place::Share(_) = place {
            storage.limit_rate(size);
        }
        let failpoints = place.failpoints();
        let variables = [("FAILPOINTS", failpoints.as_str())];
        let flags = self.flags(mode);
        let mut process = worker_with(&self.env, &self.c, &flags, &variables).await;
        let killed = async {
            if let Place::Share(share) = place {
                let at = before + (share * size as f64) as u64;
                return kill_at(&mut process.child, at, || storage.sent()).await;
            }
            let status = process.child.wait().await.unwrap();
            assert_eq!(status.signal(), Some(9), "{id} at {place:?}");
            true
        };
        let ended = async {
            tokio::select! {
                is_killed = killed => is_killed,
                () = self.until_outcome(id) => false,
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(90), ended).await;
        let is_killed =
            ended.unwrap_or_else(|_| panic!("{id} at {place:?}: neither killed nor done"));
        storage.limit_rate(0);
        if !is_killed && process.child.id().is_some() {
            self.until_settled().await;
            process.child.kill().await.unwrap();
        }
        self.env.emulator.pubsub.expire_leases(SUBSCRIPTION);
        is_killed
    }

    /// How many recorded transactions the killed process has left.
    async fn committed(&self) -> u32 {
        until_sessions_ended(&self.c).await;
        if self.c.leftovers().is_empty() {
            return 0;
        }
        let count = records(&self.c, &reopened(&self.c));
        u32::try_from(count).unwrap()
    }

    async fn cell(
        &mut self,
        (form, mode): (BackupForm, ResumeMode),
        places: &[Place],
    ) -> Vec<Killed> {
        self.measure(form, mode).await;
        let total = self.totals.get(&(form, mode)).copied();
        self.number += 1;
        let id = format!("{mode:?}_{}", self.number).to_lowercase();
        let what = format!("{form:?} {mode:?} killed at {places:?}");
        if matches!(mode, ResumeMode::Replace | ResumeMode::Fill) {
            let old = ["", "CREATE TABLE old_one ()"][usize::from(mode == ResumeMode::Replace)];
            self.c.create(&id, old);
        }
        self.publish((form, mode), &id);
        let (mut killed, mut committed) = (vec![], 0);
        for place in places {
            if !self.is_killed((form, mode), &id, *place).await {
                break;
            }
            self.kills += 1;
            let before = committed;
            committed = self.committed().await;
            let (at, again) = match (*place, total) {
                (Place::Records(n), Some(total)) if mode.goes_on() => {
                    let (at, whole) = (before + n, f64::from(total.records.max(1)));
                    let again = at.saturating_sub(committed);
                    (f64::from(at) / whole, f64::from(again) / whole)
                }
                // What is not continued is done again.
                (Place::Share(share), _) if !mode.goes_on() => (share, share),
                _ => continue,
            };
            killed.push(Killed {
                form,
                mode,
                at,
                again,
            });
        }
        if self.outcome(&id).is_none() {
            let flags = self.flags(mode);
            let mut last = worker_with(&self.env, &self.c, &flags, &[]).await;
            let answered = tokio::time::timeout(Duration::from_secs(90), self.until_outcome(&id));
            answered
                .await
                .unwrap_or_else(|_| panic!("{what}: no answer"));
            self.until_settled().await;
            last.child.kill().await.unwrap();
            until_sessions_ended(&self.c).await;
        }
        let result = self.outcome(&id).unwrap();
        assert_eq!(
            (result.status, &result.error),
            (Status::Success, &None),
            "{what}"
        );
        if let Some(total) = total {
            let counted = (result.tables, result.rows);
            assert_eq!(counted, (total.tables, total.rows), "{what}");
        }
        match why_not(&result) {
            Some(why) if committed > 0 && mode.goes_on() => {
                self.false_alarms.push(format!("{what}: {why}"));
            }
            _ if committed > 0 && mode.goes_on() => {
                assert_continued(&result, &what);
                self.went_on += 1;
            }
            _ => {}
        }
        let how = format!("{mode:?}");
        self.wanted.assert(&self.c, &id, (&how, &what));
        assert_settled(&self.c, &id, &what);
        let drop = format!("DROP DATABASE {id} WITH (FORCE)");
        self.c.psql("postgres", &drop);
        killed
    }
}

/// What `make test` kills: each format and way to restore once.
fn some() -> Vec<((BackupForm, ResumeMode), Vec<Place>)> {
    vec![
        (
            (BackupForm::Offsets, ResumeMode::Replace),
            vec![
                Place::Records(4),
                Place::Step("work.taken"),
                Place::Records(3),
            ],
        ),
        (
            (BackupForm::Stream, ResumeMode::Fail),
            vec![Place::Share(0.5)],
        ),
        (
            (BackupForm::Directory, ResumeMode::Restricted),
            vec![Place::Records(6)],
        ),
        (
            (BackupForm::Text, ResumeMode::Masked),
            vec![Place::Records(5)],
        ),
        (
            (BackupForm::Tar, ResumeMode::Selected),
            vec![Place::Records(2), Place::Step("work.sealed")],
        ),
    ]
}

/// Where a process is killed; nothing is recorded of what is filled.
fn any_place(mode: ResumeMode, total: u32) -> Place {
    match fastrand::u8(..10) {
        0 => Place::Share(fastrand::f64()),
        1 => Place::Step(STEPS[fastrand::usize(..STEPS.len())]),
        _ if !mode.goes_on() => Place::Share(fastrand::f64()),
        _ => Place::Records(fastrand::u32(..total.max(1))),
    }
}

/// Each format in each way, but for a part of SQL text, which is not selected by tables.
fn all_cells() -> Vec<(BackupForm, ResumeMode)> {
    let all = FORMS
        .into_iter()
        .flat_map(|form| MODES.map(move |mode| (form, mode)));
    all.filter(|cell| *cell != (BackupForm::Text, ResumeMode::Selected))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_restores_go_on() {
    let mut campaign = KillCampaign::new().await;
    let mut killed = vec![];
    let mut restores = 0;
    if is_full_campaign() {
        let seed = std::env::var("CAMPAIGN_SEED").ok();
        let seed = seed.and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("CAMPAIGN killed restores: seed {seed}");
        fastrand::seed(seed);
        for (form, mode) in all_cells().into_iter().cycle().take(RESTORES) {
            campaign.measure(form, mode).await;
            let total = campaign.totals[&(form, mode)].records;
            let count = 1 + restores % 5;
            let places: Vec<Place> = (0..count).map(|_| any_place(mode, total)).collect();
            killed.extend(campaign.cell((form, mode), &places).await);
            restores += 1;
        }
        assert!(campaign.kills >= 500, "{} kills", campaign.kills);
        plot(&killed);
        eprintln!("{}", deciles(&killed));
    } else {
        for (cell, places) in some() {
            killed.extend(campaign.cell(cell, &places).await);
            restores += 1;
        }
    }
    let late = killed.iter().filter(|k| k.mode.goes_on() && k.at >= 0.9);
    let late: Vec<&Killed> = late.collect();
    let worst = late.iter().map(|k| k.again).fold(0.0, f64::max);
    eprintln!(
        "CAMPAIGN killed restores: {restores}, {} kills, {} of them measured, {} at 90 % or later of which at most {:.0} % was done again; {} went on; all equal, 0 leftovers; false alarms: {:?}",
        campaign.kills,
        killed.len(),
        late.len(),
        worst * 100.0,
        campaign.went_on,
        campaign.false_alarms
    );
    assert!(campaign.went_on > 0);
    assert!(worst <= 0.15, "{worst}");
    assert_eq!(campaign.false_alarms, Vec::<String>::new());
}

/// What was done again, by the place of the kill: a table for `docs/reliability.md`.
fn deciles(killed: &[Killed]) -> String {
    let mut table =
        "| killed at | kills | done again: median | at most |\n|---|---|---|---|\n".to_owned();
    for decile in 0..10_u8 {
        let from = f64::from(decile) / 10.0;
        let is_in = |k: &&Killed| k.mode.goes_on() && (k.at - from) * 10.0 < 1.0 && k.at >= from;
        let mut again: Vec<f64> = killed
            .iter()
            .filter(is_in)
            .map(|k| k.again * 100.0)
            .collect();
        again.sort_by(f64::total_cmp);
        let (Some(middle), Some(last)) = (again.get(again.len() / 2), again.last()) else {
            continue;
        };
        let (low, high, count) = (decile * 10, decile * 10 + 10, again.len());
        writeln!(
            table,
            "| {low} to {high} % | {count} | {middle:.1} % | {last:.1} % |"
        )
        .unwrap();
    }
    table
}

/// Writes what each kill has cost as a table and as a picture.
fn plot(killed: &[Killed]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/campaign");
    std::fs::create_dir_all(&folder).unwrap();
    let mut table = "format,mode,killed_at,done_again\n".to_owned();
    let mut points = String::new();
    for k in killed {
        let Killed {
            form,
            mode,
            at,
            again,
        } = k;
        eprintln!("CAMPAIGN kill,{form:?},{mode:?},{at:.4},{again:.4}");
        writeln!(table, "{form:?},{mode:?},{at:.4},{again:.4}").unwrap();
        let (x, y) = (40.0 + 540.0 * at, 280.0 - 260.0 * again);
        writeln!(points, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\"/>").unwrap();
    }
    let picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 600 320\" font-family=\"sans-serif\" font-size=\"12\">
<path d=\"M40 20V280H580\" fill=\"none\" stroke=\"black\"/>
<text x=\"310\" y=\"310\" text-anchor=\"middle\">share of the restore when it was killed</text>
<text x=\"12\" y=\"150\" text-anchor=\"middle\" transform=\"rotate(-90 12 150)\">share that was done again</text>
<text x=\"36\" y=\"284\" text-anchor=\"end\">0</text><text x=\"36\" y=\"24\" text-anchor=\"end\">1</text>
<g fill=\"#1f77b4\" fill-opacity=\"0.5\">\n{points}</g>\n</svg>\n"
    );
    std::fs::write(folder.join("resume.csv"), table).unwrap();
    std::fs::write(folder.join("resume.svg"), picture).unwrap();
}

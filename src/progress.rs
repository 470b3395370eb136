//! Progress of a running job: written by its stages, read by progress bars, progress lines and
//! `/status.json`.

use pgdump_restore::Stage;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use pgdump_restore::LoadObserver;

/// Estimated share of the data in a restore that also builds indexes and keys.
const DATA_SHARE: f64 = 0.7;

/// The remaining time is estimated between these shares: before, the pace is not known; afterwards, what remains is not
/// measured by the share.
const ESTIMATED: std::ops::Range<f64> = 0.02..0.99;

/// The remaining time is estimated once the measured stages have taken this long, in seconds.
const MIN_MEASURED: f64 = 3.0;

/// Counters of one job. They only grow, except when the job starts over.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the object read.
    pub object_bytes: AtomicU64,
    /// Size of the object, 0 while unknown.
    pub object_size: AtomicU64,
    /// Bytes of the object that earlier attempts have proven, and that this one leaves out.
    pub skipped_bytes: AtomicU64,
    /// Bytes of table data and large objects handed to the server, uncompressed.
    pub data_bytes: AtomicU64,
    /// Expected total of `data_bytes` if the archive's restore index gives it, otherwise 0.
    pub data_expected: AtomicU64,
    /// Rows that the server confirmed.
    pub rows: AtomicU64,
    pub tables_done: AtomicU64,
    pub tables: AtomicU64,
    /// Indexes, keys and other entries after the data.
    pub tasks_done: AtomicU64,
    pub tasks: AtomicU64,
    /// How often the download was resumed.
    pub download_retries: AtomicU64,
    /// Rows of the restored database that a verification has read back.
    pub rows_checked: AtomicU64,
    /// Steps under way that consist of one statement of any length.
    long_steps: AtomicU64,
    stage: Mutex<Stages>,
    load: Mutex<LoadActivity>,
    /// The largest share of the work that was shown, which never falls.
    furthest: Mutex<f64>,
    /// What earlier attempts had done, if this one goes on where they stopped.
    continued: Mutex<Option<Continued>>,
    /// SQL text is loaded: its indexes and keys are found while it is read.
    is_growing: AtomicBool,
    /// The tables whose data was begun last, oldest first.
    latest_tables: Mutex<VecDeque<TableProgress>>,
}

/// Most tables whose progress is kept.
const LATEST_TABLES: usize = 20;

/// Progress of one table's rows.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct TableProgress {
    pub name: String,
    /// Rows that the server confirmed.
    pub rows: u64,
    /// Whether all of its data was read from the backup.
    pub is_read: bool,
}

/// A step that shows no progress, while it lasts: the server works on one statement, such as a copy of a database.
pub struct LongStep<'a>(&'a Progress);

impl Drop for LongStep<'_> {
    fn drop(&mut self) {
        self.0.long_steps.fetch_sub(1, Relaxed);
    }
}

/// What a load does at the same time: rows, and the indexes of tables whose rows are there.
#[derive(Debug, Default)]
struct LoadActivity {
    /// When rows were first read or sent.
    rows_from: Option<tokio::time::Instant>,
    /// When the server last confirmed rows.
    rows_to: Option<tokio::time::Instant>,
    /// When an entry was first begun after rows were there. Before, those of SQL text are definitions.
    tasks_from: Option<tokio::time::Instant>,
    tasks_to: Option<tokio::time::Instant>,
}

/// The work of earlier attempts. What they had done is passed over quickly, and says nothing of the pace.
#[derive(Debug)]
struct Continued {
    /// The share that they had done.
    share: f64,
    /// The share that was first seen beyond it, and the seconds in the measured stages until then.
    passed: Option<(f64, f64)>,
}

#[derive(Debug, Default)]
struct Stages {
    current: Option<(Stage, tokio::time::Instant)>,
    finished: Vec<(Stage, f64)>,
    /// The job's span: the span in which its first stage began.
    job: Option<tracing::Span>,
    span: Option<tracing::Span>,
}

/// Progress at one moment.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Snapshot {
    pub stage: String,
    /// How much is done, from 0 to 1; `None` while the size is unknown (standard input).
    pub fraction: Option<f64>,
    /// Estimated remaining time in seconds.
    pub eta_seconds: Option<f64>,
    pub object_bytes: u64,
    pub object_size: u64,
    pub data_bytes: u64,
    pub rows: u64,
    pub tables_done: u64,
    pub tables: u64,
    pub tasks_done: u64,
    pub tasks: u64,
    /// The tables whose rows are being loaded or were loaded last, latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latest_tables: Vec<TableProgress>,
}

impl Progress {
    /// Ends the current stage and begins `stage`.
    pub fn enter(&self, stage: Stage) {
        Self::begin(&mut self.stage.lock(), stage);
    }

    /// Like [`Progress::enter`], but only if the current stage is `from`.
    pub fn advance(&self, from: Stage, stage: Stage) {
        let mut s = self.stage.lock();
        if s.current.is_some_and(|(current, _)| current == from) {
            Self::begin(&mut s, stage);
        }
    }

    fn begin(s: &mut Stages, stage: Stage) {
        let now = tokio::time::Instant::now();
        if let Some((last, since)) = s.current.replace((stage, now)) {
            s.finished.push((last, (now - since).as_secs_f64()));
        }
        let job = s.job.get_or_insert_with(tracing::Span::current).clone();
        // Replacing the previous span ends it.
        s.span = Some(
            tracing::info_span!(parent: &job, "stage", otel.name = stage.as_str(), stage = stage.as_str()),
        );
        tracing::debug!(stage = stage.as_str(), "stage started");
    }

    /// Marks that the server works on one statement that may take any time; the time without progress does not count
    /// until the value is dropped.
    pub fn long_step(&self) -> LongStep<'_> {
        self.long_steps.fetch_add(1, Relaxed);
        LongStep(self)
    }

    /// Whether the server works on a statement that may take any time. Building one index may, too.
    pub fn is_in_long_step(&self) -> bool {
        self.stage() == Stage::Indexes || self.long_steps.load(Relaxed) > 0
    }

    /// The span of the current stage.
    pub fn span(&self) -> tracing::Span {
        let s = self.stage.lock();
        s.span.clone().unwrap_or_else(tracing::Span::none)
    }

    /// Resets the counters because the data is read again from its beginning.
    pub fn begin_again(&self) {
        let all = [
            &self.data_bytes,
            &self.data_expected,
            &self.rows,
            &self.tables_done,
            &self.tasks_done,
        ];
        all.iter()
            .chain(&[&self.object_bytes, &self.skipped_bytes])
            .for_each(|n| n.store(0, Relaxed));
        *self.continued.lock() = None;
        self.latest_tables.lock().clear();
        *self.load.lock() = LoadActivity::default();
        self.enter(Stage::Prepare);
    }

    /// Earlier attempts had done this share of the work, from 0 to 1: what is shown begins there.
    pub fn continue_from(&self, share: f64) {
        let share = share.clamp(0.0, 1.0);
        let mut furthest = self.furthest.lock();
        *furthest = furthest.max(share);
        *self.continued.lock() = Some(Continued {
            share,
            passed: None,
        });
    }

    /// The share, and the seconds, from which the pace is measured; `None` while what earlier attempts had done is passed
    /// over.
    fn pace_from(&self, fraction: f64, spent: f64) -> Option<(f64, f64)> {
        match &mut *self.continued.lock() {
            None => Some((0.0, 0.0)),
            Some(continued) if fraction > continued.share => {
                Some(*continued.passed.get_or_insert((fraction, spent)))
            }
            Some(_) => None,
        }
    }

    /// Ends the span of the last stage; the counters keep their values.
    pub fn end(&self) {
        let mut s = self.stage.lock();
        (s.span, s.job) = (None, None);
    }

    pub fn stage(&self) -> Stage {
        let s = self.stage.lock();
        s.current.map_or(Stage::Queued, |(name, _)| name)
    }

    /// Each stage so far with its duration in seconds, including the current one.
    pub fn stages(&self) -> Vec<(Stage, f64)> {
        let s = self.stage.lock();
        let current = s
            .current
            .map(|(name, since)| (name, since.elapsed().as_secs_f64()));
        s.finished.iter().copied().chain(current).collect()
    }

    /// Seconds from the first to the last activity of the stages that overlap; none if no rows were loaded. In
    /// [`Progress::stages`], each ends when the next one begins, and rows that were read by then are loaded later.
    pub fn active_stages(&self) -> Vec<(Stage, f64)> {
        let load = self.load.lock();
        let rows = load.rows_from.zip(load.rows_to);
        let tasks = load
            .tasks_from
            .zip(load.tasks_to)
            .filter(|_| rows.is_some());
        let spans = [(Stage::Data, rows), (Stage::Indexes, tasks)].into_iter();
        let seconds = |(from, to): (tokio::time::Instant, tokio::time::Instant)| {
            to.saturating_duration_since(from).as_secs_f64()
        };
        spans
            .filter_map(|(stage, span)| Some((stage, seconds(span?))))
            .collect()
    }

    /// The share that is done. What is read of SQL text says nothing of the indexes and keys that follow.
    fn fraction(&self) -> Option<f64> {
        let share = |done: u64, all: &AtomicU64| {
            let all = all.load(Relaxed);
            (all > 0).then(|| (done as f64 / all as f64).min(1.0))
        };
        let part = |done: &AtomicU64, all: &AtomicU64| share(done.load(Relaxed), all);
        let passed = self.object_bytes.load(Relaxed) + self.skipped_bytes.load(Relaxed);
        // Data sent to the server is a better measure than bytes read ahead.
        let read = part(&self.data_bytes, &self.data_expected)
            .or_else(|| share(passed, &self.object_size))?;
        if is_before_work(self.stage()) {
            // All of a small object may be read ahead.
            return Some(0.0);
        }
        let built = part(&self.tasks_done, &self.tasks);
        let weighted = |built: f64| DATA_SHARE * read + (1.0 - DATA_SHARE) * built;
        Some(if !self.is_growing.load(Relaxed) {
            built.map_or(read, weighted)
        } else if read < 1.0 {
            weighted(0.0)
        } else {
            weighted(built.unwrap_or(1.0))
        })
    }

    pub fn snapshot(&self) -> Snapshot {
        let fraction = self.fraction();
        // Waiting for the target, and for a server, says nothing about the pace.
        let measured = self
            .stages()
            .into_iter()
            .filter(|(stage, _)| is_measured(*stage));
        let spent: f64 = measured.map(|(_, seconds)| seconds).sum();
        let is_known = is_measured(self.stage());
        let eta = fraction
            .filter(|f| is_known && ESTIMATED.contains(f))
            .and_then(|f| {
                let (from, since) = self.pace_from(f, spent)?;
                let (done, took) = (f - from, spent - since);
                (done > 0.0 && took >= MIN_MEASURED).then(|| took * (1.0 - f) / done)
            });
        let shown = fraction.map(|fraction| {
            let mut furthest = self.furthest.lock();
            *furthest = furthest.max(fraction);
            *furthest
        });
        Snapshot {
            stage: self.stage().to_string(),
            fraction: shown,
            eta_seconds: eta,
            object_bytes: self.object_bytes.load(Relaxed),
            object_size: self.object_size.load(Relaxed),
            data_bytes: self.data_bytes.load(Relaxed),
            rows: self.rows.load(Relaxed),
            tables_done: self.tables_done.load(Relaxed),
            tables: self.tables.load(Relaxed),
            tasks_done: self.tasks_done.load(Relaxed),
            tasks: self.tasks.load(Relaxed),
            latest_tables: self.latest_tables.lock().iter().rev().cloned().collect(),
        }
    }

    fn change_table(&self, name: &str, change: impl FnOnce(&mut TableProgress)) {
        let mut tables = self.latest_tables.lock();
        if let Some(table) = tables.iter_mut().find(|t| t.name == name) {
            change(table);
        }
    }
}

/// Whether a stage precedes those in which the share that is done grows.
fn is_before_work(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Request | Stage::Queued | Stage::Prepare | Stage::Sandbox
    )
}

/// Whether the share that is done grows in a stage.
fn is_measured(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::Download | Stage::Schema | Stage::Data | Stage::Indexes
    )
}

impl LoadObserver for Progress {
    fn enter(&self, stage: Stage) {
        Progress::enter(self, stage);
    }

    fn advance(&self, from: Stage, stage: Stage) {
        if stage == Stage::Data {
            let mut load = self.load.lock();
            load.rows_from.get_or_insert_with(tokio::time::Instant::now);
        }
        Progress::advance(self, from, stage);
    }

    fn span(&self) -> tracing::Span {
        Progress::span(self)
    }

    fn planned(&self, tables: u64, tasks: u64) {
        // Of SQL text nothing is known.
        self.is_growing.store(tables == 0 && tasks == 0, Relaxed);
        self.tables.store(tables, Relaxed);
        self.tasks.store(tasks, Relaxed);
    }

    fn found_table(&self) {
        self.tables.fetch_add(1, Relaxed);
    }

    fn found_task(&self) {
        self.tasks.fetch_add(1, Relaxed);
    }

    fn bytes_read(&self, bytes: u64) {
        self.data_bytes.fetch_add(bytes, Relaxed);
    }

    fn table_begun(&self, table: &str) {
        let mut tables = self.latest_tables.lock();
        if tables.len() >= LATEST_TABLES {
            // One that is complete makes room first.
            let done = tables.iter().position(|t| t.is_read);
            tables.remove(done.unwrap_or(0));
        }
        tables.push_back(TableProgress {
            name: table.to_owned(),
            rows: 0,
            is_read: false,
        });
    }

    fn table_read(&self, table: &str) {
        self.tables_done.fetch_add(1, Relaxed);
        self.change_table(table, |t| t.is_read = true);
    }

    fn rows_loaded(&self, table: &str, rows: u64) {
        self.load.lock().rows_to = Some(tokio::time::Instant::now());
        self.rows.fetch_add(rows, Relaxed);
        self.change_table(table, |t| t.rows += rows);
    }

    fn task_begun(&self) {
        let mut load = self.load.lock();
        if load.rows_to.is_some() {
            load.tasks_from
                .get_or_insert_with(tokio::time::Instant::now);
        }
    }

    fn tasks_done(&self, tasks: u64) {
        self.load.lock().tasks_to = Some(tokio::time::Instant::now());
        self.tasks_done.fetch_add(tasks, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_remaining_time_is_estimated_only_while_it_is_known() {
        let progress = Progress::default();
        progress.object_size.store(1000, Relaxed);
        let read = |bytes: u64| {
            progress.object_bytes.store(bytes, Relaxed);
            progress.snapshot().eta_seconds
        };
        progress.enter(Stage::Prepare);
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(read(500), None, "it waited for the target");
        progress.enter(Stage::Data);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(read(500), None, "a second says little");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(read(0), None);
        assert_eq!(read(500).map(f64::round), Some(10.0));
        assert_eq!(read(1000), None, "what remains is unknown");
        progress.enter(Stage::Analyze);
        assert_eq!(read(500), None);
    }

    /// What was read is loaded later, and indexes are built meanwhile.
    #[tokio::test(start_paused = true)]
    async fn times_of_a_load_are_those_of_what_is_done() {
        let progress = Progress::default();
        let observer: &dyn LoadObserver = &progress;
        let pass = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        observer.planned(2, 2);
        observer.enter(Stage::Schema);
        // A definition of SQL text.
        observer.task_begun();
        observer.tasks_done(1);
        pass(1).await;
        observer.advance(Stage::Schema, Stage::Data);
        observer.advance(Stage::Data, Stage::Indexes);
        assert!(progress.active_stages().is_empty());
        pass(4).await;
        observer.rows_loaded("a", 1);
        observer.task_begun();
        pass(3).await;
        observer.rows_loaded("b", 1);
        pass(2).await;
        observer.tasks_done(1);
        let active = [(Stage::Data, 7.0), (Stage::Indexes, 5.0)];
        assert_eq!(progress.active_stages(), active);
        let stages: Vec<_> = progress.stages();
        assert_eq!(stages[1], (Stage::Data, 0.0), "until the next one began");
        progress.begin_again();
        assert!(progress.active_stages().is_empty());
    }

    /// Whatever is found while SQL text is read, and if all is read again.
    #[test]
    fn the_share_that_is_shown_never_falls() {
        let progress = Progress::default();
        let observer: &dyn LoadObserver = &progress;
        progress.object_size.store(1000, Relaxed);
        observer.planned(0, 0);
        let mut last = 0.0;
        let mut shown = |read: u64| {
            progress.object_bytes.store(read, Relaxed);
            let fraction = progress.snapshot().fraction.unwrap();
            assert!(fraction >= last, "{fraction} after {last}");
            last = fraction;
            fraction
        };
        assert_eq!(shown(1000), 0.0, "read ahead");
        observer.enter(Stage::Schema);
        // Definitions, which are created at once.
        observer.found_task();
        observer.tasks_done(1);
        assert!(shown(10) < 0.1);
        assert_eq!((shown(500) * 100.0).round(), 35.0);
        (0..9).for_each(|_| observer.found_task());
        assert!(shown(999) < 0.7);
        // All is read, and nine of ten entries are left.
        assert!(shown(1000) < 0.75);
        observer.tasks_done(4);
        assert_eq!((shown(1000) * 100.0).round(), 85.0);
        progress.begin_again();
        assert_eq!((shown(100) * 100.0).round(), 85.0);
    }

    /// What earlier attempts had done is passed over quickly, read again or not.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_continues_shows_its_own_pace() {
        let progress = Progress::default();
        progress.object_size.store(1000, Relaxed);
        progress.skipped_bytes.store(200, Relaxed);
        progress.continue_from(0.5);
        let read = |bytes: u64| {
            progress.object_bytes.store(bytes, Relaxed);
            let shown = progress.snapshot();
            let percent = shown.fraction.map(|f| (f * 100.0).round());
            (percent, shown.eta_seconds.map(f64::round))
        };
        let pass = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        progress.enter(Stage::Prepare);
        assert_eq!(read(0), (Some(50.0), None));
        progress.enter(Stage::Data);
        pass(10).await;
        assert_eq!(read(300), (Some(50.0), None), "only the start is reached");
        assert_eq!(read(400), (Some(60.0), None), "its own pace begins");
        pass(20).await;
        assert_eq!(read(600), (Some(80.0), Some(20.0)));
        assert_eq!(progress.snapshot().object_bytes, 600, "only what was read");
        assert_eq!(read(800).0, Some(100.0));
        // From the start after all.
        progress.begin_again();
        progress.enter(Stage::Data);
        assert_eq!(read(500), (Some(100.0), Some(30.0)));
    }

    #[test]
    fn the_latest_tables_are_shown_and_running_ones_stay() {
        let p = Progress::default();
        p.table_begun("s.big");
        p.rows_loaded("s.big", 5);
        for i in 0..LATEST_TABLES + 5 {
            let name = format!("s.t{i}");
            p.table_begun(&name);
            p.rows_loaded(&name, 1);
            p.table_read(&name);
        }
        p.rows_loaded("s.big", 2);
        let shown = p.snapshot();
        assert_eq!(shown.latest_tables.len(), LATEST_TABLES);
        let last = format!("s.t{}", LATEST_TABLES + 4);
        assert_eq!(shown.latest_tables[0].name, last);
        let big = shown.latest_tables.last().unwrap();
        assert_eq!(
            (big.name.as_str(), big.rows, big.is_read),
            ("s.big", 7, false)
        );
        assert_eq!(shown.rows, 7 + LATEST_TABLES as u64 + 5);
        // A restore that starts over shows no table twice.
        p.begin_again();
        assert!(p.snapshot().latest_tables.is_empty());
    }
}

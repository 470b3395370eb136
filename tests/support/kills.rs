//! Where tests interrupt a restore, and what it has recorded by then.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pgrestored::event::RestoreResult;
use tokio::process::Child;

use super::{Cluster, assert_same, pause};

/// A source of which a restore has many transactions: rows of several tables, one of which has several chunks, large
/// objects, indexes, keys, triggers, privileges, and a view with rows.
pub const SOURCE: &str = "CREATE SCHEMA s; CREATE SCHEMA other;
    CREATE TABLE s.big (id int PRIMARY KEY, v text);
    INSERT INTO s.big SELECT i, md5(i::text) || repeat(' more', 20) FROM generate_series(1, 4000) i;
    DO $$ BEGIN FOR i IN 1..6 LOOP
        EXECUTE format('CREATE TABLE s.t%s (id serial PRIMARY KEY, big int NOT NULL REFERENCES s.big, v text)', i);
        EXECUTE format('INSERT INTO s.t%s (big, v) SELECT g, md5((g * %s)::text) FROM generate_series(1, 200) g', i, i);
        EXECUTE format('CREATE INDEX ON s.t%s (v)', i);
    END LOOP; END $$;
    CREATE TABLE s.log (what text);
    CREATE TABLE other.alone (id int); INSERT INTO other.alone VALUES (1), (2);
    CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER tr BEFORE INSERT ON s.t1 FOR EACH ROW EXECUTE FUNCTION s.f();
    CREATE MATERIALIZED VIEW s.m AS SELECT count(*) AS n FROM s.big;
    GRANT SELECT ON s.big TO role_a;
    COMMENT ON TABLE s.t2 IS 'second';
    SELECT lo_from_bytea(5000 + i, decode(repeat(md5(i::text), 100), 'hex')) FROM generate_series(1, 4) i";

/// Keeps the work of each attempt, however short it was.
pub const FROM_THE_FIRST: (&str, &str) = ("restore-resume-from", "0s");

/// Where a process is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Place {
    /// When it first reaches this step.
    Step(&'static str),
    /// Between the record of a transaction and its commit, after this many others.
    Records(u32),
    /// Once this share of the backup has been sent to it.
    Share(f64),
}

impl Place {
    /// The value of `FAILPOINTS`; nothing if somebody else has to kill the process.
    pub fn failpoints(self) -> String {
        match self {
            Place::Step(step) => format!("{step}=return"),
            Place::Records(0) => "work.noted=return".to_owned(),
            Place::Records(n) => format!("work.noted={n}*off->return"),
            Place::Share(_) => String::new(),
        }
    }
}

/// Kills a process once `sent` has reached `at`; returns whether it was still running.
pub async fn kill_at(child: &mut Child, at: u64, sent: impl Fn() -> u64) -> bool {
    while child.try_wait().unwrap().is_none() {
        if sent() >= at {
            child.kill().await.unwrap();
            return true;
        }
        pause().await;
    }
    false
}

/// Transactions that a restore into this staging database has recorded.
pub fn records(c: &Cluster, staging: &str) -> u64 {
    let has_record = "SELECT to_regclass('pgrestored_work.done') IS NOT NULL";
    if c.psql(staging, has_record) != "t" {
        return 0;
    }
    let count = c.psql(staging, "SELECT count(*) FROM pgrestored_work.done");
    count.parse().unwrap()
}

/// Opens what a restore left for its next attempt, which accepts no connections, and returns its name.
pub fn reopened(c: &Cluster) -> String {
    let [staging]: [String; 1] = c.leftovers().try_into().unwrap();
    let open = format!("ALTER DATABASE {staging} ALLOW_CONNECTIONS true");
    c.psql("postgres", &open);
    staging
}

/// As if the network had failed between the server and the sessions that load.
pub fn end_loaders(c: &Cluster) {
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname ~ '^pgrestored_s_'";
    c.psql("postgres", end);
}

/// As if the process had been killed.
pub fn end_all(c: &Cluster) {
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'pgrestored %'";
    c.psql("postgres", end);
}

/// Does something once at a step of the restores of this process. Nothing more happens when it is dropped.
pub struct Interrupt {
    step: &'static str,
    has_happened: Arc<AtomicBool>,
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        fail::remove(self.step);
    }
}

impl Interrupt {
    /// When the step is reached for the first time after `passed` times.
    pub fn at(
        c: &Arc<Cluster>,
        (step, passed): (&'static str, u32),
        act: impl Fn(&Cluster) + Send + Sync + 'static,
    ) -> Self {
        let reached = AtomicU32::new(0);
        let is_it = move |_: &Cluster| reached.fetch_add(1, Ordering::SeqCst) == passed;
        Self::when(c, step, is_it, act)
    }

    /// When the step is reached for the first time with `is_it`.
    pub fn when(
        c: &Arc<Cluster>,
        step: &'static str,
        is_it: impl Fn(&Cluster) -> bool + Send + Sync + 'static,
        act: impl Fn(&Cluster) + Send + Sync + 'static,
    ) -> Self {
        let has_happened = Arc::<AtomicBool>::default();
        let (c, happened) = (c.clone(), has_happened.clone());
        let look = move || {
            if is_it(&c) && !happened.swap(true, Ordering::SeqCst) {
                act(&c);
            }
        };
        fail::cfg_callback(step, look).unwrap();
        Interrupt { step, has_happened }
    }

    pub fn has_happened(&self) -> bool {
        self.has_happened.load(Ordering::SeqCst)
    }
}

/// How the note begins of a restore that could not go on.
pub const FROM_THE_START: &str = "begun from the start: ";

/// Why a restore did not go on, if its result says so.
pub fn why_not(result: &RestoreResult) -> Option<&str> {
    let notes = result.notes.iter();
    notes.filter_map(|n| n.strip_prefix(FROM_THE_START)).next()
}

/// The restore went on where an earlier attempt had stopped.
pub fn assert_continued(result: &RestoreResult, what: &str) {
    assert_eq!(result.error, None, "{what}");
    assert_eq!(why_not(result), None, "{what}");
    let from = result.resumed_from.as_ref();
    assert!(from.is_some_and(|f| f.attempt > 0), "{what}: {from:?}");
}

/// The restore began from the start, and says why.
pub fn assert_begun_again(result: &RestoreResult, what: &str) {
    assert_eq!(result.error, None, "{what}");
    assert!(why_not(result).is_some(), "{what}: {:?}", result.notes);
    assert!(result.resumed_from.is_none(), "{what}");
}

/// Nothing is left of the attempts at a restore but its database, which has no record.
pub fn assert_settled(c: &Cluster, target: &str, what: &str) {
    assert_eq!(c.leftovers(), Vec::<String>::new(), "{what}");
    let has_record = "SELECT to_regnamespace('pgrestored_work') IS NOT NULL";
    assert_eq!(c.psql(target, has_record), "f", "{what}");
    let waiting = c.psql("postgres", "SELECT count(*) FROM pgrestored.work");
    assert_eq!(waiting, "0", "{what}");
}

/// What databases must have, by the name of how they were restored.
#[derive(Default)]
pub struct ExpectedContents(HashMap<String, String>);

impl ExpectedContents {
    pub fn insert(&mut self, how: &str, content: String) {
        self.0.insert(how.to_owned(), content);
    }

    pub fn has(&self, how: &str) -> bool {
        self.0.contains_key(how)
    }

    pub fn assert(&self, c: &Cluster, target: &str, (how, what): (&str, &str)) {
        assert_same(&c.content(target, &[]), &self.0[how], what);
    }
}

/// Waits until the server has noticed that the sessions of a killed process are gone.
pub async fn until_sessions_ended(c: &Cluster) {
    let ended = "SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgrestored %')";
    let waited = tokio::time::timeout(Duration::from_secs(30), c.until(ended)).await;
    waited.expect("the sessions of the killed process are still there");
}

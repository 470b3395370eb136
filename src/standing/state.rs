//! What is known of the runs of each order, so that every worker and the command line see the same: objects beside
//! outcomes or evidence, which are created once and never changed. Their names say what happened:
//!
//! ```text
//! standing.pgrestored/ORDER/success-GENERATION.json     a run by a worker; also failure-, superseded-
//! standing.pgrestored/ORDER/success-GENERATION-ID.json  a run by `standing run`; also failure-
//! standing.pgrestored/ORDER/paused-MICROSECONDS.json    also resumed-; the newest of both counts
//! ```
//!
//! With masking rules, the generation is followed by `-m` and the beginning of their digest. If the name of a run is taken by
//! what does not count, it gets a further one, with `~` and more behind it.

use std::sync::Arc;

use super::orders::{Candidate, StandingOrder};
use super::run_key::{RunKey, tag_of};
use crate::catalog::BackupCatalog;
use crate::error::{FailureReason as R, RestoreError, RetryClass, report};
use crate::event::{RestoreResult, Status};
use crate::job::FinishedSql;
use crate::proof::EVIDENCE_SUFFIX;
use crate::store::{BackupStore, StoredObject, create_unless_taken, read_small};
use crate::verification::{Keyring, Signature};

/// What a signature of a run is over, beside the run itself.
const SIGNED: &str = "application/vnd.pgrestored.standing+json";
/// Objects of an order of which a listing keeps the metadata: the newest.
const LISTED: usize = 5_000;
/// Bytes of an object.
const MAX_BYTES: u64 = 64 << 10;
/// Objects of one kind that are read until one counts.
const READ: usize = 5;

/// How a run of an order ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    Success,
    Failure,
    /// It did not begin before a newer backup was there.
    Superseded,
}

impl RunOutcome {
    fn as_str(self) -> &'static str {
        match self {
            RunOutcome::Success => "success",
            RunOutcome::Failure => "failure",
            RunOutcome::Superseded => "superseded",
        }
    }
}

/// A run of an order that has ended.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct StandingRun {
    pub order: String,
    pub outcome: RunOutcome,
    pub request_id: String,
    /// The database that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_db: Option<String>,
    /// Host of that database's server, as the worker's configuration has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// An int64 as a string.
    pub generation: String,
    /// Digest of the rules by which the copy is masked (SHA-256 in hexadecimal).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// Id of the key by which the copy is masked. Missing if no rule needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_key: Option<String>,
    /// The files of SQL that ran in the copy before it took the target's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finish: Vec<FinishedSql>,
    /// When the backup was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_created: Option<jiff::Timestamp>,
    pub finished_at: jiff::Timestamp,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<R>,
    /// The run that superseded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
}

impl StandingRun {
    /// Whether it is this run. Two files of a folder may have the same generation.
    fn is(&self, key: &RunKey) -> bool {
        self.generation == key.generation
            && self.rules == key.rules
            && self.backup.as_ref().is_none_or(|name| *name == key.backup)
    }

    /// The run of an order that gave this result.
    pub fn of(order: &StandingOrder, backup: &Candidate, result: &RestoreResult) -> Self {
        StandingRun {
            order: order.name.clone(),
            outcome: match result.status {
                Status::Success => RunOutcome::Success,
                Status::Failure => RunOutcome::Failure,
            },
            request_id: result.request_id.clone(),
            target_db: Some(order.target_db.clone()),
            server: Some(order.server().to_owned()),
            backup: Some(backup.name.clone()),
            generation: backup.generation.to_string(),
            rules: order.rules().map(str::to_owned),
            mask_key: result.masking.as_ref().and_then(|m| m.key_id.clone()),
            finish: result.finish.clone(),
            backup_created: Some(backup.created),
            finished_at: result.finished_at,
            reason: result.error.as_ref().map(|e| e.reason),
            superseded_by: None,
        }
    }
}

/// A run as it is stored.
#[derive(serde::Serialize, serde::Deserialize)]
struct StoredRun {
    run: StandingRun,
    /// Where there is a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

/// An order, and how it stands.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct StandingStatus {
    pub order: String,
    pub target_db: String,
    /// `proven`, `finalized`, or the schedule and its time zone.
    pub when: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<StandingRun>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<StandingRun>,
    /// The last run that did not begin, because a newer backup was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_superseded: Option<StandingRun>,
    /// By its schedule; an order without one runs when there is a new backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_due: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<jiff::Timestamp>,
    /// The backup whose run waits, as far as this worker knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Its generation, an int64 as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_generation: Option<String>,
    /// What keeps it from making a copy, as far as this worker knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl StandingStatus {
    /// How an order stands, as far as the bucket says.
    pub fn of(order: &StandingOrder, history: &OrderHistory, now: jiff::Timestamp) -> Self {
        StandingStatus {
            order: order.name.clone(),
            target_db: order.target_db.clone(),
            when: order.when.clone(),
            last_success: history.last_success.clone(),
            last_failure: history.last_failure.clone(),
            last_superseded: history.last_superseded.clone(),
            next_due: order.next_due(now),
            paused_since: history.paused_since,
            waiting: None,
            problem: history.copy_problem(order),
            waiting_generation: None,
        }
    }
}

/// Whether a host is this machine, such as a proxy on it: what is behind that is not known.
fn is_local(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || host.starts_with('/') || address.is_ok_and(|a| a.is_loopback())
}

/// What the name of an object says.
#[derive(Debug, PartialEq, Eq)]
enum ParsedName<'a> {
    Run(RunOutcome, &'a str),
    Paused(bool, &'a str),
}

fn folder(order: &str) -> String {
    format!("standing{EVIDENCE_SUFFIX}{order}/")
}

/// What the name of an object in the folder of an order says; `None` if it is none of ours.
fn parse_name<'a>(folder: &str, name: &'a str) -> Option<ParsedName<'a>> {
    let own = name.strip_prefix(folder)?.strip_suffix(".json")?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'~');
    let (word, tag) = own.split_once('-')?;
    if !tag.bytes().all(is_plain) {
        return None;
    }
    // What follows makes it a further name of the same.
    let tag = tag.split_once('~').map_or(tag, |(tag, _)| tag);
    match word {
        "success" => Some(ParsedName::Run(RunOutcome::Success, tag)),
        "failure" => Some(ParsedName::Run(RunOutcome::Failure, tag)),
        "superseded" => Some(ParsedName::Run(RunOutcome::Superseded, tag)),
        "paused" => Some(ParsedName::Paused(true, tag)),
        "resumed" => Some(ParsedName::Paused(false, tag)),
        _ => None,
    }
}

/// What is known of one order.
#[derive(Debug, Default)]
pub struct OrderHistory {
    folder: String,
    /// Newest first.
    objects: Vec<StoredObject>,
    pub last_success: Option<StandingRun>,
    pub last_failure: Option<StandingRun>,
    pub last_superseded: Option<StandingRun>,
    pub paused_since: Option<jiff::Timestamp>,
}

impl OrderHistory {
    /// The last run that succeeded, if it masked by these rules.
    pub fn last_by(&self, rules: Option<&str>) -> Option<&StandingRun> {
        let last = self.last_success.as_ref();
        last.filter(|run| run.rules.as_deref() == rules)
    }

    /// Whether the target has a masked copy, and these rules are none.
    pub fn would_unmask(&self, rules: Option<&str>) -> bool {
        let last = self.last_success.as_ref();
        rules.is_none() && last.is_some_and(|run| run.rules.is_some())
    }

    /// What is wrong with the copy in the target, if it was made by other rules.
    pub fn mask_problem(&self, rules: Option<&str>) -> Option<String> {
        let last = self.last_success.as_ref();
        let last = last.filter(|run| run.rules.as_deref() != rules)?;
        let made = format!(
            "the copy of {} was made",
            last.backup.as_deref().unwrap_or("the last run")
        );
        Some(match (&last.rules, rules) {
            (Some(_), None) => format!(
                "{made} with masking rules, and the order has none here: give this machine the current file of orders, or make an unmasked copy on purpose with `pgrestored standing run {}`",
                last.order
            ),
            (None, _) => format!(
                "{made} without masking rules: the next run replaces it; the copy that is then kept for a rollback is not masked"
            ),
            (Some(_), Some(_)) => {
                format!("{made} with other masking rules: the next run replaces it")
            }
        })
    }

    /// What is wrong with the copy that was made last: by other rules, or in another place.
    pub fn copy_problem(&self, order: &StandingOrder) -> Option<String> {
        let of_rules = self.mask_problem(order.rules());
        of_rules.or_else(|| self.place_problem((order.server(), &order.target_db)))
    }

    /// That the last copy was made in another place: each backup is restored once, so it is not made here, too.
    fn place_problem(&self, (server, target): (&str, &str)) -> Option<String> {
        let last = self.last_success.as_ref()?;
        let run = format!("`pgrestored standing run {}` makes a copy now", last.order);
        let other_target = last.target_db.as_deref().filter(|was| *was != target);
        if let Some(was) = other_target {
            return Some(format!(
                "the last copy is in database {was}, and the target is {target} now: it gets the next backup; {run}"
            ));
        }
        let other_server = last.server.as_deref().filter(|was| *was != server);
        let was = other_server.filter(|was| !is_local(was) && !is_local(server))?;
        Some(format!(
            "the last copy was made on {was}, and this is {server}: what was restored there is not restored here, too. Orders for several servers need different names where their state is in one place. If the server was replaced, {run}"
        ))
    }

    /// Why the newest backup is not restored, although it had no run: the target has a newer one.
    pub fn older_problem(&self, order: &StandingOrder, newest: &Candidate) -> Option<String> {
        let last = self.last_by(order.rules())?;
        last.backup_created.filter(|t| newest.created <= *t)?;
        Some(format!(
            "{} is not newer than {}, of which the target has the copy: it waits for a newer backup; `pgrestored standing run {}` restores the newest one all the same",
            newest.name,
            last.backup.as_deref().unwrap_or("the backup"),
            last.order
        ))
    }

    /// The objects that tell of runs with this outcome, newest first.
    fn runs(&self, outcome: RunOutcome) -> impl Iterator<Item = (&StoredObject, &str)> {
        self.objects.iter().filter_map(move |o| {
            let ParsedName::Run(found, tag) = parse_name(&self.folder, &o.name)? else {
                return None;
            };
            (found == outcome).then_some((o, tag))
        })
    }

    /// Since when the order is paused: what was said last counts.
    fn pause(&self) -> Option<jiff::Timestamp> {
        let said = self.objects.iter().filter_map(|o| {
            let ParsedName::Paused(is_paused, tag) = parse_name(&self.folder, &o.name)? else {
                return None;
            };
            // Some stores know the time of an object only to a few milliseconds.
            let micros: i64 = tag.parse().unwrap_or_default();
            Some((o.created, micros, is_paused))
        });
        let (at, _, is_paused) = said.max()?;
        is_paused.then_some(at)
    }
}

/// The objects with the state of all orders.
pub struct StandingStates {
    store: Arc<dyn BackupStore>,
    keys: Keyring,
}

impl StandingStates {
    /// # Errors
    /// `access_denied` where there is no client for the store, `invalid_request` for a key.
    pub async fn open(catalog: &BackupCatalog) -> Result<Self, RestoreError> {
        Ok(StandingStates {
            store: catalog.standing_store().await?,
            keys: catalog.keyring()?,
        })
    }

    /// What is known of an order.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn history(&self, order: &str) -> Result<OrderHistory, RestoreError> {
        let folder = folder(order);
        let own = folder.clone();
        let wanted = Arc::new(move |name: &str| parse_name(&own, name).is_some());
        let listed = self.store.newest_members(&folder, wanted, LISTED).await;
        let mut objects = match listed {
            Err(e) if e.reason() == R::BackupNotFound => vec![],
            listed => listed?.objects,
        };
        objects.retain(|o| !o.is_unlisted && o.obstacle.is_none());
        let mut history = OrderHistory {
            folder,
            objects,
            ..OrderHistory::default()
        };
        history.paused_since = history.pause();
        history.last_success = self.newest(&history, RunOutcome::Success, order).await?;
        history.last_failure = self.newest(&history, RunOutcome::Failure, order).await?;
        history.last_superseded = self.newest(&history, RunOutcome::Superseded, order).await?;
        Ok(history)
    }

    /// Whether a run has ended, or a person has restored its backup. What a person tried in vain does not count, nor does
    /// a run that was superseded: it did not begin, and its backup may be the newest one again.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn had_run(
        &self,
        history: &OrderHistory,
        run: &RunKey,
    ) -> Result<bool, RestoreError> {
        let ends = [RunOutcome::Success, RunOutcome::Failure];
        self.ended(history, run, &ends).await
    }

    /// The same, also of a run that was superseded.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn is_answered(
        &self,
        history: &OrderHistory,
        run: &RunKey,
    ) -> Result<bool, RestoreError> {
        let ends = [
            RunOutcome::Success,
            RunOutcome::Failure,
            RunOutcome::Superseded,
        ];
        self.ended(history, run, &ends).await
    }

    async fn ended(
        &self,
        history: &OrderHistory,
        key: &RunKey,
        ends: &[RunOutcome],
    ) -> Result<bool, RestoreError> {
        let own = key.tag();
        for outcome in ends.iter().copied() {
            let is_its = |tag: &str| match tag.strip_prefix(own.as_str()) {
                Some("") => true,
                // Behind `-m` is a digest: that run has other rules.
                Some(by) => {
                    outcome == RunOutcome::Success && by.starts_with('-') && !by.starts_with("-m")
                }
                None => false,
            };
            let found = history.runs(outcome).filter(|(_, tag)| is_its(tag));
            let found: Vec<&StoredObject> = found.map(|(object, _)| object).take(READ).collect();
            for object in found {
                let run = self.read(object, &key.order, outcome).await?;
                if run.is_some_and(|run| run.is(key)) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn newest(
        &self,
        history: &OrderHistory,
        outcome: RunOutcome,
        order: &str,
    ) -> Result<Option<StandingRun>, RestoreError> {
        let found = history.runs(outcome).map(|(object, _)| object);
        let found: Vec<&StoredObject> = found.take(READ).collect();
        for object in found {
            if let Some(run) = self.read(object, order, outcome).await? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// The run that an object tells of; `None` if it does not count: whoever may create objects there can write one.
    async fn read(
        &self,
        object: &StoredObject,
        order: &str,
        outcome: RunOutcome,
    ) -> Result<Option<StandingRun>, RestoreError> {
        let text = match read_small(self.store.as_ref(), object, MAX_BYTES).await {
            Ok(text) => text,
            Err(e) if e.reason().retry_class() == RetryClass::Permanent => {
                self.warn(object, &report(&e));
                return Ok(None);
            }
            Err(e) => return Err(e.into()),
        };
        let stored: StoredRun = match serde_json::from_slice(&text) {
            Ok(stored) => stored,
            Err(e) => {
                self.warn(object, &e.to_string());
                return Ok(None);
            }
        };
        let is_its = stored.run.order == order && stored.run.outcome == outcome;
        if !is_its || !self.is_believed(&stored)? {
            self.warn(object, "it is another order's, or not signed");
            return Ok(None);
        }
        Ok(Some(stored.run))
    }

    fn warn(&self, object: &StoredObject, why: &str) {
        let name = self.store.uri(&object.name);
        tracing::warn!(name, why, "recorded state of a standing restore is ignored");
    }

    /// With a signing key, every run must be signed.
    fn is_believed(&self, stored: &StoredRun) -> Result<bool, RestoreError> {
        if !self.keys.signs() {
            return Ok(true);
        }
        let text = json(&stored.run)?;
        let signature = stored.signature.as_ref();
        Ok(signature.is_some_and(|s| self.keys.has_signed(SIGNED, &text, s)))
    }

    /// Remembers how a run ended. `person` is the id of a run that a person made, and that is no run of the order itself.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn record(&self, run: StandingRun, person: Option<&str>) -> Result<(), RestoreError> {
        let (folder, word) = (folder(&run.order), run.outcome.as_str());
        let by = person.map(|id| format!("-{id}")).unwrap_or_default();
        let tag = tag_of(&run.generation, run.rules.as_deref());
        let stem = format!("{folder}{word}-{tag}{by}");
        let stored = StoredRun {
            signature: self.keys.sign(SIGNED, &json(&run)?),
            run,
        };
        for name in self.names_of(&stem) {
            if self.create(&name, &stored).await? || self.has(&name, &stored.run).await? {
                return Ok(());
            }
        }
        let name = self.store.uri(&format!("{stem}.json"));
        tracing::error!(
            name,
            "the outcome of a run of a standing restore is not recorded: objects that do not count occupy its names"
        );
        Ok(())
    }

    /// The names of a run, in the order in which they are tried: of the second and third, nobody without the signing key can
    /// predict any.
    fn names_of(&self, stem: &str) -> [String; 3] {
        let further = |n: usize| {
            let own = self.keys.secret_name(&format!("standing {n}\n{stem}"));
            format!("{stem}~{}.json", own.unwrap_or_else(|| n.to_string()))
        };
        [format!("{stem}.json"), further(2), further(3)]
    }

    /// Whether this object tells of the same run, and counts.
    async fn has(&self, name: &str, run: &StandingRun) -> Result<bool, RestoreError> {
        let found = match self.store.stat(name, None).await {
            Ok(object) => self.read(&object, &run.order, run.outcome).await,
            Err(e) => Err(e.into()),
        };
        match found {
            Ok(found) => Ok(found.is_some_and(|found| {
                (found.generation, found.rules, found.backup)
                    == (
                        run.generation.clone(),
                        run.rules.clone(),
                        run.backup.clone(),
                    )
            })),
            Err(e) => match e.reason().retry_class() {
                // Nor does one that may not be read.
                RetryClass::Permanent | RetryClass::Environment => Ok(false),
                RetryClass::Transient | RetryClass::Busy | RetryClass::Interrupted => Err(e),
            },
        }
    }

    /// Pauses an order, or lets it go on.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn pause(
        &self,
        order: &str,
        is_paused: bool,
        now: jiff::Timestamp,
    ) -> Result<(), RestoreError> {
        let word = if is_paused { "paused" } else { "resumed" };
        let name = format!("{}{word}-{}.json", folder(order), now.as_microsecond());
        // One of this microsecond says the same.
        self.create(&name, &serde_json::json!({ "order": order, "at": now }))
            .await?;
        Ok(())
    }

    /// Returns whether it was created; otherwise there is an object of this name.
    async fn create(&self, name: &str, what: &impl serde::Serialize) -> Result<bool, RestoreError> {
        let text = json(what)?.into();
        let made = create_unless_taken(self.store.as_ref(), name, text, "application/json").await;
        let made = made.map_err(|e| e.context("the state of the standing restore"))?;
        Ok(made.is_some())
    }
}

fn json(what: &impl serde::Serialize) -> Result<Vec<u8>, RestoreError> {
    serde_json::to_vec(what).map_err(|e| RestoreError::internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, RawConfig};
    use crate::metrics::RestoreMetricsManager;
    use crate::store::Stores;
    use crate::verification::TEST_SIGNING_KEY as KEY;

    /// The states in a folder, with a signing key or without one.
    async fn states(folder: &std::path::Path, flags: &[(&str, &str)]) -> StandingStates {
        let bucket = format!("file://{}", folder.display());
        let flags = [&[("backup-bucket", bucket.as_str())], flags].concat();
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let metrics = RestoreMetricsManager::new(0.0);
        let catalog = BackupCatalog::new(config.into(), Stores::new(None).into(), metrics);
        StandingStates::open(&catalog).await.unwrap()
    }

    fn run(generation: i64, outcome: RunOutcome) -> StandingRun {
        StandingRun {
            order: "a".into(),
            outcome,
            request_id: format!("standing/a/{generation}"),
            target_db: Some("a".into()),
            server: Some("db".into()),
            backup: Some("x.dump".into()),
            generation: generation.to_string(),
            rules: None,
            mask_key: None,
            finish: vec![],
            backup_created: Some(jiff::Timestamp::from_second(generation).unwrap()),
            finished_at: jiff::Timestamp::from_second(generation).unwrap(),
            reason: None,
            superseded_by: None,
        }
    }

    fn key(generation: i64) -> RunKey {
        RunKey {
            order: "a".into(),
            backup: "x.dump".into(),
            generation: generation.to_string(),
            rules: None,
        }
    }

    #[tokio::test]
    async fn every_worker_knows_how_the_runs_ended() {
        let folder = tempfile::tempdir().unwrap();
        let states = states(folder.path(), &[]).await;
        let history = states.history("a").await.unwrap();
        assert!(history.last_success.is_none() && history.paused_since.is_none());
        for (generation, outcome) in [
            (1, RunOutcome::Success),
            (2, RunOutcome::Failure),
            (3, RunOutcome::Superseded),
        ] {
            states.record(run(generation, outcome), None).await.unwrap();
        }
        // A person's runs: a success counts for the order, a failure does not.
        for (generation, outcome) in [(4, RunOutcome::Success), (5, RunOutcome::Failure)] {
            let run = run(generation, outcome);
            states.record(run, Some("0a1b")).await.unwrap();
        }
        // Another worker may record the same run.
        let again = run(1, RunOutcome::Success);
        states.record(again, None).await.unwrap();
        let history = states.history("a").await.unwrap();
        assert_eq!(history.last_success.as_ref().unwrap().generation, "4");
        assert_eq!(history.last_failure.as_ref().unwrap().generation, "5");
        let superseded = history.last_superseded.as_ref().unwrap();
        assert_eq!(superseded.generation, "3");
        for (generation, ended) in [(1, true), (2, true), (3, false), (4, true), (5, false)] {
            let asked = key(generation);
            let had_run = states.had_run(&history, &asked).await.unwrap();
            assert_eq!(had_run, ended, "{generation}");
            let is_answered = states.is_answered(&history, &asked).await.unwrap();
            assert_eq!(is_answered, ended || generation == 3, "{generation}");
        }
        // Another order knows nothing of it.
        let other = states.history("b").await.unwrap();
        assert!(other.last_success.is_none());
    }

    /// Rules that were added, changed or removed make another copy necessary.
    #[tokio::test]
    async fn a_copy_by_other_rules_is_no_copy_of_the_order() {
        let folder = tempfile::tempdir().unwrap();
        let states = states(folder.path(), &[]).await;
        let by = |rules: Option<&str>| StandingRun {
            rules: rules.map(str::to_owned),
            ..run(1, RunOutcome::Success)
        };
        let of = |rules: Option<&str>| RunKey {
            rules: rules.map(str::to_owned),
            ..key(1)
        };
        let (one, two) = (Some("1".repeat(64)), Some("2".repeat(64)));
        let (one, two) = (one.as_deref(), two.as_deref());
        states.record(by(None), None).await.unwrap();
        let history = states.history("a").await.unwrap();
        assert!(states.had_run(&history, &of(None)).await.unwrap());
        assert!(!states.had_run(&history, &of(one)).await.unwrap());
        assert!(history.last_by(None).is_some() && history.last_by(one).is_none());
        assert!(history.mask_problem(one).unwrap().contains("without"));
        assert_eq!(history.mask_problem(None), None);
        states.record(by(one), None).await.unwrap();
        let history = states.history("a").await.unwrap();
        assert!(states.had_run(&history, &of(one)).await.unwrap());
        assert!(!states.had_run(&history, &of(two)).await.unwrap());
        assert!(history.would_unmask(None) && !history.would_unmask(two));
        assert!(history.mask_problem(two).unwrap().contains("other"));
        // Another file with the same generation is another backup.
        let other = RunKey {
            backup: "y.dump".into(),
            ..of(one)
        };
        assert!(!states.had_run(&history, &other).await.unwrap());
    }

    /// Each backup is restored once under the name of an order, so a changed target and a second server stay without a copy
    /// until the next one. That must not look as if all were well.
    #[test]
    fn a_copy_in_another_place_is_shown() {
        let made = |server: &str| OrderHistory {
            last_success: Some(StandingRun {
                server: Some(server.into()),
                ..run(1, RunOutcome::Success)
            }),
            ..OrderHistory::default()
        };
        for (server, place, said) in [
            ("db", ("db", "a"), None),
            ("db", ("db", "b"), Some("in database a")),
            ("db", ("other", "a"), Some("made on db")),
            // A proxy leads to any server.
            ("127.0.0.1", ("db", "a"), None),
            ("db", ("localhost", "a"), None),
            ("/run/postgresql", ("db", "a"), None),
        ] {
            let problem = made(server).place_problem(place);
            let is_right = match said {
                Some(said) => problem.as_ref().is_some_and(|p| p.contains(said)),
                None => problem.is_none(),
            };
            assert!(is_right, "{server} {place:?}: {problem:?}");
        }
        assert_eq!(OrderHistory::default().place_problem(("db", "a")), None);
    }

    #[tokio::test]
    async fn what_was_said_last_about_a_pause_counts() {
        let folder = tempfile::tempdir().unwrap();
        let states = states(folder.path(), &[]).await;
        for (second, is_paused) in [(1, true), (2, false), (3, true)] {
            let now = jiff::Timestamp::from_second(second).unwrap();
            states.pause("a", is_paused, now).await.unwrap();
            let history = states.history("a").await.unwrap();
            assert_eq!(history.paused_since.is_some(), is_paused, "{second}");
        }
    }

    /// Whoever may create objects there could otherwise keep an order from running.
    #[tokio::test]
    async fn with_a_key_only_signed_runs_count() {
        let folder = tempfile::tempdir().unwrap();
        let unsigned = states(folder.path(), &[]).await;
        unsigned
            .record(run(1, RunOutcome::Success), None)
            .await
            .unwrap();
        let signed = states(folder.path(), &[("evidence-signing-key", KEY)]).await;
        let history = signed.history("a").await.unwrap();
        assert_eq!(history.last_success, None);
        assert!(!signed.had_run(&history, &key(1)).await.unwrap());
        signed
            .record(run(2, RunOutcome::Success), None)
            .await
            .unwrap();
        let history = signed.history("a").await.unwrap();
        assert_eq!(history.last_success.as_ref().unwrap().generation, "2");
        assert!(signed.had_run(&history, &key(2)).await.unwrap());
    }

    /// Otherwise it would be restored again and again, and nobody would be told.
    #[tokio::test]
    async fn what_does_not_count_keeps_no_run_from_being_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("standing.pgrestored/a");
        std::fs::create_dir_all(&own).unwrap();
        for key_given in [None, Some(("evidence-signing-key", KEY))] {
            let states = states(folder.path(), key_given.as_slice()).await;
            let generation = if key_given.is_some() { 2 } else { 1 };
            let taken = own.join(format!("success-{generation}.json"));
            std::fs::write(&taken, "{}").unwrap();
            for _ in 0..2 {
                let run = run(generation, RunOutcome::Success);
                states.record(run, None).await.unwrap();
            }
            let history = states.history("a").await.unwrap();
            assert!(states.had_run(&history, &key(generation)).await.unwrap());
            assert_eq!(std::fs::read(&taken).unwrap(), b"{}");
            let begin = format!("success-{generation}");
            let all = std::fs::read_dir(&own).unwrap();
            let names = all.map(|f| f.unwrap().file_name().into_string().unwrap());
            let written = names.filter(|name| name.starts_with(&begin)).count();
            assert_eq!(written, 2, "one more for both");
        }
    }

    #[test]
    fn only_our_own_names_are_read() {
        let folder = folder("a");
        let of = |own: &str| parse_name(&folder, &format!("{folder}{own}")).is_some();
        for own in ["success-1.json", "failure-1-0a1b.json", "paused-17.json"] {
            assert!(of(own), "{own}");
        }
        for own in [
            "success.json",
            "other-1.json",
            "success-a/b.json",
            "success-1",
        ] {
            assert!(!of(own), "{own}");
        }
        assert!(crate::proof::is_ours(&folder));
    }
}

//! The orders: the file of STANDING_RESTORES. All of its mistakes are found at the start, each with the order's name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::empty_fields::empty_fields;
use super::run_key::RunKey;
use super::schedule::{CronSchedule, Window};
use crate::admission::Admission;
use crate::config::{Config, Document, MaskingRules, rules_of};
use crate::error::{RestoreError, ValidationError, ValidationKind, report};
use crate::event::{BackupSpec, Mode, RestoreRequest};
use crate::job::{Generation, Job, LatestBackup, OWN_STANDING, OnExisting, RestoreJob, digest_of};
use crate::pipeline::targets;
use crate::policy::{Extensions, OnError, Owners, Policy, Selection};

/// Most orders: each is the value of a metric's label.
const MAX_ORDERS: usize = 200;
/// Longest name of an order: it is part of ids.
const MAX_NAME: usize = 63;
/// The label of the results of an order's runs.
const LABEL: &str = "standing_order";

/// The file of STANDING_RESTORES.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandingFile {
    /// Version of this form: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    #[schemars(length(max = 200))]
    pub orders: Vec<OrderSpec>,
}

/// A standing restore: which backups are restored, when, and into which database.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderSpec {
    /// Its name, in the ids of its runs, on the status page and in metrics.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9_-]{0,62}$"))]
    pub name: String,
    /// The backups: a set of BACKUP_SETS.
    #[serde(default)]
    pub set: Option<String>,
    /// The backups: those whose names begin with this. Without `set` and `prefix`, all of BACKUP_BUCKET.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Only backups of this database; also the one to take from a dump of a whole cluster.
    #[serde(default)]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    pub when: When,
    /// The database that is replaced.
    #[schemars(length(min = 1, max = 63))]
    pub target: String,
    /// `replace`, which is also the default: the copy of the previous run stays until the next one is complete.
    #[serde(default)]
    pub on_existing: Option<OnExisting>,
    /// What is different from the configured policy.
    #[serde(default)]
    pub policy: OrderPolicy,
    /// What of the backup is restored.
    #[serde(default)]
    pub select: Selection,
    /// The file with the masking rules, relative to the folder of the file of orders. Without it, RESTORE_MASK.
    #[serde(default)]
    pub mask: Option<String>,
    /// Names of SQL files in RESTORE_FINISH_FROM that run in the copy before it takes the target's place, in this order.
    #[serde(default)]
    pub finish: Vec<String>,
    /// The name of a checks file in RESTORE_FINISH_FROM, all of whose checks must pass in the copy after that.
    #[serde(default)]
    pub finish_checks: Option<String>,
    /// How long the replaced database is kept, such as `24h`; `0`: not at all. Without it, RESTORE_KEEP_PREVIOUS.
    #[serde(default)]
    pub keep_previous: Option<String>,
    /// When a run may begin. One that is due at another time waits.
    #[serde(default)]
    pub window: Option<WindowSpec>,
}

/// What makes a run due: `proven`, `finalized`, or a schedule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(
    untagged,
    expecting = "when: must be proven, finalized, or a schedule such as { schedule: \"0 3 * * *\", time_zone: Europe/Berlin }"
)]
pub enum When {
    NewBackup(BackupState),
    Schedule(ScheduleSpec),
}

/// Which backups count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupState {
    /// Those whose evidence says that they are proven.
    #[default]
    Proven,
    /// All that are complete, proven or not.
    Finalized,
}

/// Runs by the clock. Each takes the newest backup that was made by then.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// A cron pattern of five fields, such as `0 3 * * *`.
    pub schedule: String,
    /// Its time zone, by its name in the IANA database.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Which backups count.
    #[serde(default)]
    pub backup: BackupState,
}

/// A time of the day. `to` may be before `from`: then it is that of the next day.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    #[schemars(regex(pattern = r"^[0-9]{2}:[0-9]{2}$"))]
    pub from: String,
    #[schemars(regex(pattern = r"^[0-9]{2}:[0-9]{2}$"))]
    pub to: String,
    /// Its time zone, by its name in the IANA database.
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What an order does differently from the configured policy (RESTORE_OWNERS and so on).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OrderPolicy {
    /// Who owns restored objects.
    pub owners: Option<Owners>,
    /// From the dump's role to the server's, with `owners: map`.
    pub role_map: Option<BTreeMap<String, String>>,
    /// Whether GRANT and REVOKE are restored.
    pub privileges: Option<bool>,
    /// Whether roles that the server lacks are created, without login.
    pub create_roles: Option<bool>,
    /// What to do about extensions that the server lacks.
    pub extensions: Option<Extensions>,
    /// What to do about definitions that the server refuses.
    pub on_error: Option<OnError>,
    /// Whether tables are analyzed after the load.
    pub analyze: Option<bool>,
}

impl OrderPolicy {
    /// The policy of the order's runs; `None`: the configured one.
    fn over(&self, configured: &Policy) -> Option<Policy> {
        if *self == OrderPolicy::default() {
            return None;
        }
        let policy = configured.clone();
        Some(Policy {
            owners: self.owners.unwrap_or(policy.owners),
            role_map: self.role_map.clone().unwrap_or(policy.role_map),
            privileges: self.privileges.unwrap_or(policy.privileges),
            create_roles: self.create_roles.unwrap_or(policy.create_roles),
            extensions: self.extensions.unwrap_or(policy.extensions),
            on_error: self.on_error.unwrap_or(policy.on_error),
            analyze: self.analyze.unwrap_or(policy.analyze),
            ..policy
        })
    }
}

/// A backup that an order may restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub generation: Generation,
    pub created: jiff::Timestamp,
}

/// What makes a run of an order due.
#[derive(Debug, Clone)]
pub enum OrderTrigger {
    /// A backup that is newer than the one that was restored last.
    NewBackup,
    Schedule(Box<CronSchedule>),
}

/// A standing restore whose order was checked.
#[derive(Debug, Clone)]
pub struct StandingOrder {
    pub name: String,
    pub target_db: String,
    /// Host of the target's server.
    server: String,
    /// When, in the order's words.
    pub when: String,
    pub trigger: OrderTrigger,
    pub window: Option<Window>,
    /// The backups that it restores the newest of.
    pub wanted: LatestBackup,
    select: Selection,
    finish: Vec<String>,
    finish_checks: Option<String>,
    masking: Option<MaskingRules>,
    /// Digest of the rules by which its copies are masked: its own, or those of RESTORE_MASK.
    rules: Option<String>,
    policy: Option<Policy>,
    keep_previous: Option<Duration>,
}

impl StandingOrder {
    /// The run that restores a backup.
    pub fn run_of(&self, backup: &Candidate) -> RunKey {
        RunKey {
            order: self.name.clone(),
            backup: backup.name.clone(),
            generation: backup.generation.to_string(),
            rules: self.rules.clone(),
        }
    }

    /// The id of the run that restores a backup: a duplicate of it is the same request.
    pub fn request_id(&self, backup: &Candidate) -> String {
        format!("{OWN_STANDING}{}/{}", self.name, self.run_of(backup).tag())
    }

    /// Digest of what a run restores, and of the rules by which it masks. The order's other settings are not part of it:
    /// whoever changes them does not make another request of a run that has happened.
    pub fn digest(&self, backup: &Candidate) -> String {
        digest_of(&(&self.name, &backup.name, backup.generation.0, &self.rules))
    }

    /// Host of the target's server, as the configuration has it.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Digest of the rules by which its copies are masked.
    pub fn rules(&self) -> Option<&str> {
        self.rules.as_deref()
    }

    /// The names of the files of SQL that finish its copies, and of the checks file.
    pub fn finishing(&self) -> (&[String], Option<&str>) {
        (&self.finish, self.finish_checks.as_deref())
    }

    /// Why none of the backups that there are can be taken.
    pub fn why_none(&self, why: &str) -> String {
        match &self.trigger {
            OrderTrigger::NewBackup => why.to_owned(),
            OrderTrigger::Schedule(_) => format!(
                "{why}; a scheduled run takes what was there when it was due, so the bucket needs Object Versioning, or each backup a name of its own"
            ),
        }
    }

    /// The labels of the results of runs.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(LABEL.to_owned(), self.name.clone())])
    }

    /// The restore of a backup that the request policy allows: at the start, an order is checked with a name that a backup of
    /// it could have.
    ///
    /// # Errors
    /// As [`Admission::check`].
    pub fn admitted_job(
        &self,
        backup: &Candidate,
        request_id: String,
        admission: &Admission,
    ) -> Result<Box<RestoreJob>, RestoreError> {
        let job = self.job(backup, request_id)?;
        admission.check_own(&Job::Restore(job.clone()))?;
        Ok(job)
    }

    /// The restore of a backup.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn job(
        &self,
        backup: &Candidate,
        request_id: String,
    ) -> Result<Box<RestoreJob>, RestoreError> {
        let request = RestoreRequest {
            request_id,
            backup: BackupSpec {
                name: Some(backup.name.clone()),
                generation: Some(backup.generation.to_string()),
                database: self.wanted.database.clone(),
                ..BackupSpec::default()
            },
            target_db: Some(self.target_db.clone()),
            on_existing: OnExisting::Replace,
            mode: Mode::Restore,
            depth: None,
            jobs: None,
            deadline: None,
            labels: self.labels(),
            select: self.select.clone(),
            in_place: None,
            on_error: None,
            finish: self.finish.clone(),
            finish_checks: self.finish_checks.clone(),
        };
        match request.into_own_job(self.digest(backup))? {
            Job::Restore(mut job) => {
                job.policy.clone_from(&self.policy);
                job.keep_previous = self.keep_previous;
                job.masking.clone_from(&self.masking);
                Ok(job)
            }
            Job::Verify(_) => Err(RestoreError::internal(
                "a standing restore is not a verification",
            )),
        }
    }
}

/// Refuses a request into the target of an order that would not be masked by the order's rules: requests name none.
///
/// # Errors
/// `target_not_allowed`.
pub fn check_masked(
    orders: &[StandingOrder],
    job: &Job,
    configured: Option<&MaskingRules>,
) -> Result<(), RestoreError> {
    let Job::Restore(restore) = job else {
        return Ok(());
    };
    let rules = restore.masking.as_ref().or(configured);
    let rules = rules.map(|rules| rules.0.digest());
    let is_other = |o: &&StandingOrder| o.rules.is_some() && o.rules != rules;
    let mut of_target = orders
        .iter()
        .filter(|o| job.target_db() == Some(o.target_db.as_str()));
    match of_target.find(is_other) {
        None => Ok(()),
        Some(order) => {
            let what = format!(
                "database {} has the copies of the standing restore {}, which are masked by rules that requests do not have: restore into another database, or run `pgrestored standing run {}`",
                order.target_db, order.name, order.name
            );
            Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into())
        }
    }
}

/// The orders of the configuration.
///
/// # Errors
/// Everything that is wrong with them.
pub fn orders(config: &Config, admission: &Admission) -> Result<Vec<StandingOrder>, Vec<String>> {
    let Some(document) = &config.standing_restores else {
        return Ok(vec![]);
    };
    let parsed = document.parse::<StandingFile>();
    let file = parsed.map_err(|what| vec![format!("STANDING_RESTORES: {what}")])?;
    let mut wrong = Vec::new();
    if file.version != 1 {
        wrong.push("version: must be 1".to_owned());
    }
    if file.orders.len() > MAX_ORDERS {
        wrong.push(format!("orders: must not be more than {MAX_ORDERS}"));
    }
    let mut orders: Vec<StandingOrder> = Vec::new();
    let mut names = BTreeSet::new();
    for (place, spec) in (1..).zip(&file.orders) {
        if let Some(what) = wrong_name(&spec.name) {
            wrong.push(format!("order {place}: name: {what}"));
            continue;
        }
        if !names.insert(&spec.name) {
            wrong.push(format!("order {}: two orders have this name", spec.name));
            continue;
        }
        match OrderCheck::of(spec, config, admission) {
            Ok(order) => orders.push(order),
            Err(all) => {
                let of_order = |what: String| format!("order {}: {what}", spec.name);
                wrong.extend(all.into_iter().map(of_order));
            }
        }
    }
    wrong.extend(without_value(document));
    wrong.extend(shared_targets(&orders));
    if wrong.is_empty() {
        return Ok(orders);
    }
    Err(of_file(document, wrong))
}

/// Fields of orders that are there and have no value, which would be as if they were not there.
fn without_value(document: &Document) -> Vec<String> {
    let Ok(file) = document.parse::<serde_json::Value>() else {
        return vec![];
    };
    let orders = file["orders"].as_array().into_iter().flatten();
    let mut wrong = Vec::new();
    for (place, order) in (1..).zip(orders) {
        let name = order["name"].as_str();
        let name = name.map_or_else(|| place.to_string(), str::to_owned);
        let of_order = |field: String| {
            format!("order {name}: {field}: has no value: give it one, or leave the field out")
        };
        wrong.extend(empty_fields(order).into_iter().map(of_order));
    }
    wrong
}

fn of_file(document: &Document, wrong: Vec<String>) -> Vec<String> {
    let of_file = |what: String| format!("STANDING_RESTORES: {}: {what}", document.path);
    wrong.into_iter().map(of_file).collect()
}

/// What is wrong with the name of an order.
fn wrong_name(name: &str) -> Option<&'static str> {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_right = name.len() <= MAX_NAME
        && name.bytes().next().is_some_and(is_word)
        && name.bytes().all(|b| is_word(b) || matches!(b, b'-' | b'_'));
    (!is_right).then_some(
        "must have 1 to 63 lower-case letters, digits, - and _, and begin with a letter or a digit",
    )
}

/// Two orders would take turns to replace each other's copy.
fn shared_targets(orders: &[StandingOrder]) -> Vec<String> {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for order in orders {
        match first.get(order.target_db.as_str()) {
            Some(other) => wrong.push(format!(
                "order {}: target: it is that of order {other}, too",
                order.name
            )),
            None => drop(first.insert(&order.target_db, &order.name)),
        }
    }
    wrong
}

/// A duration as the variables of the configuration have it.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let span = text.parse::<jiff::Span>().ok()?;
    let exact = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    Duration::try_from(exact.ok()?).ok()
}

/// Collects what is wrong with one order.
struct OrderCheck<'a> {
    spec: &'a OrderSpec,
    config: &'a Config,
    wrong: Vec<String>,
}

impl OrderCheck<'_> {
    fn of(
        spec: &OrderSpec,
        config: &Config,
        admission: &Admission,
    ) -> Result<StandingOrder, Vec<String>> {
        let mut check = OrderCheck {
            spec,
            config,
            wrong: vec![],
        };
        check.target();
        check.finish();
        let (trigger, when) = check.trigger();
        let masking = check.masking();
        let rules = masking.as_ref().or(config.masking.as_ref());
        let rules = rules.map(|rules| rules.0.digest());
        let order = StandingOrder {
            name: spec.name.clone(),
            target_db: spec.target.clone(),
            server: config.db.host.clone(),
            when,
            trigger: trigger.unwrap_or(OrderTrigger::NewBackup),
            window: check.window(),
            wanted: check.wanted(),
            select: spec.select.clone(),
            finish: spec.finish.clone(),
            finish_checks: spec.finish_checks.clone(),
            masking,
            rules,
            policy: check.policy(),
            keep_previous: check.keep_previous(),
        };
        check.job(&order, admission);
        if check.wrong.is_empty() {
            Ok(order)
        } else {
            Err(check.wrong)
        }
    }

    /// Takes what is right, and remembers what is wrong.
    fn ok<T>(&mut self, checked: Result<T, String>) -> Option<T> {
        match checked {
            Ok(right) => Some(right),
            Err(what) => {
                self.wrong.push(what);
                None
            }
        }
    }

    fn target(&mut self) {
        let (config, target) = (self.config, self.spec.target.as_str());
        let checked = targets::check_served(config);
        let checked = checked.and_then(|()| targets::check_target(config, target));
        // What the target's checks call the field of a request is `target` here.
        let checked = checked.map_err(|e| report(&e).replacen("target_db", "target", 1));
        self.ok(checked);
        if self
            .spec
            .on_existing
            .is_some_and(|o| o != OnExisting::Replace)
        {
            self.wrong.push(
                "on_existing: must be replace: each run replaces the copy of the one before".into(),
            );
        }
    }

    /// The rules of the masking file. Without them, an order with such a file would make an unmasked copy.
    fn masking(&mut self) -> Option<MaskingRules> {
        let name = self.spec.mask.as_deref()?;
        let orders = self.config.standing_restores.as_ref();
        let folder = orders.and_then(|document| Path::new(&document.path).parent());
        let path = folder.unwrap_or(Path::new("")).join(name);
        let shown = path.display().to_string();
        let rules = match std::fs::read_to_string(&path) {
            Ok(text) => rules_of(
                &Document { path: shown, text },
                self.config.mask_key.as_ref(),
            ),
            Err(e) => Err(format!("{shown}: cannot be read: {}", e.kind())),
        };
        self.ok(rules.map_err(|what| format!("mask: {what}")))
    }

    fn finish(&mut self) {
        if self.config.finish_from.is_some() {
            return;
        }
        let named = [
            ("finish", !self.spec.finish.is_empty()),
            ("finish_checks", self.spec.finish_checks.is_some()),
        ];
        for (field, _) in named.into_iter().filter(|(_, is_named)| *is_named) {
            self.wrong.push(format!(
                "{field}: the location of such files is not configured: set RESTORE_FINISH_FROM"
            ));
        }
    }

    fn trigger(&mut self) -> (Option<OrderTrigger>, String) {
        match &self.spec.when {
            When::NewBackup(BackupState::Proven) => {
                (Some(OrderTrigger::NewBackup), "proven".to_owned())
            }
            When::NewBackup(BackupState::Finalized) => {
                (Some(OrderTrigger::NewBackup), "finalized".to_owned())
            }
            When::Schedule(s) => {
                let parsed = CronSchedule::parse(&s.schedule, &s.time_zone);
                let parsed = parsed.map_err(|what| format!("when: {what}"));
                let words = format!("{} {}", s.schedule.trim(), s.time_zone);
                (
                    self.ok(parsed).map(|s| OrderTrigger::Schedule(Box::new(s))),
                    words,
                )
            }
        }
    }

    fn window(&mut self) -> Option<Window> {
        let spec = self.spec.window.as_ref()?;
        self.ok(Window::parse(&spec.from, &spec.to, &spec.time_zone))
    }

    fn wanted(&mut self) -> LatestBackup {
        let state = match &self.spec.when {
            When::NewBackup(state) => *state,
            When::Schedule(schedule) => schedule.backup,
        };
        let prefix = self.prefix();
        LatestBackup {
            other_sets: self.other_sets(&prefix),
            prefix,
            at: None,
            database: self.spec.database.clone(),
            is_proven: state == BackupState::Proven,
            of_all_generations: false,
        }
    }

    fn prefix(&mut self) -> String {
        match (&self.spec.set, &self.spec.prefix) {
            (Some(_), Some(_)) => {
                self.wrong
                    .push("set and prefix: give only one of them".into());
                String::new()
            }
            (Some(set), None) => {
                let verify = &self.config.verify;
                if !verify.sets.iter().any(|s| s.name == *set) {
                    self.wrong.push(format!("set: {set} is not in BACKUP_SETS"));
                }
                verify.prefix_of(set).to_owned()
            }
            (None, prefix) => prefix.clone().unwrap_or_default(),
        }
    }

    /// The prefixes of other sets below that of the order's set: a backup belongs to the set with the longest one.
    fn other_sets(&self, prefix: &str) -> Vec<String> {
        if self.spec.set.is_none() {
            return vec![];
        }
        let sets = self.config.verify.sets.iter().map(|s| &s.prefix);
        let below = sets.filter(|p| p.len() > prefix.len() && p.starts_with(prefix));
        below.cloned().collect()
    }

    fn policy(&mut self) -> Option<Policy> {
        let policy = self.spec.policy.over(&self.config.policy);
        let mapped = policy.as_ref().filter(|p| p.owners == Owners::Map);
        if mapped.is_some_and(|p| p.role_map.is_empty()) {
            self.wrong
                .push("policy: owners: map needs the roles: set role_map".into());
        }
        let given = policy
            .as_ref()
            .filter(|_| self.spec.policy.role_map.is_some());
        if given.is_some_and(|p| p.owners != Owners::Map) {
            self.wrong
                .push("policy: role_map has no effect unless owners is map".into());
        }
        policy
    }

    fn keep_previous(&mut self) -> Option<Duration> {
        let text = self.spec.keep_previous.as_deref()?;
        let what = "keep_previous: must be a duration such as 24h or 7d, or 0";
        self.ok(duration(text).ok_or_else(|| what.to_owned()))
    }

    /// What only the whole job shows: the request policy, and what a restore that replaces a database may leave out.
    fn job(&mut self, order: &StandingOrder, admission: &Admission) {
        let backup = Candidate {
            name: format!("{}backup", order.wanted.prefix),
            generation: Generation(1),
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let checked = order.job(&backup, order.request_id(&backup));
        let checked = checked.and_then(|job| {
            targets::check_part(&job)?;
            admission.check_own(&Job::Restore(job))
        });
        if let Err(e) = checked {
            self.wrong.push(report(&e));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    fn config(flags: &[(&str, &str)], file: &str) -> Config {
        let raw = RawConfig::from_flags(&[&[("db-host", "db")], flags].concat()).unwrap();
        let mut config = Config::new(&raw).unwrap();
        config.standing_restores = Some(Document {
            path: "standing.yaml".to_owned(),
            text: file.to_owned(),
        });
        config
    }

    fn read(flags: &[(&str, &str)], file: &str) -> Result<Vec<StandingOrder>, Vec<String>> {
        let config = config(flags, file);
        let admission = Admission::new(&config, "restore-requests").unwrap();
        orders(&config, &admission)
    }

    const WHOLE: &str = r#"
version: 1
orders:
  - name: staging
    set: shop
    database: app
    when: proven
    target: staging
    on_existing: replace
    policy: { owners: none, privileges: false }
    keep_previous: 7d
    window: { from: "22:00", to: "06:00", time_zone: Europe/Berlin }
  - name: reports
    prefix: bi/
    when: { schedule: "0 3 * * *", time_zone: Europe/Berlin, backup: finalized }
    target: reports
  - name: any
    when: finalized
    target: other
"#;

    #[test]
    fn an_order_becomes_a_restore() {
        let flags = [
            ("backup-sets", "shop=shop/,eu=shop/eu/,blog=blog/"),
            ("restore-extensions", "skip-missing"),
        ];
        let orders = read(&flags, WHOLE).unwrap();
        // Backups of a set whose prefix is longer are none of this one.
        assert_eq!(orders[0].wanted.other_sets, ["shop/eu/"]);
        assert!(orders[1].wanted.other_sets.is_empty());
        let words: Vec<&str> = orders.iter().map(|o| o.when.as_str()).collect();
        assert_eq!(words, ["proven", "0 3 * * * Europe/Berlin", "finalized"]);
        let wanted: Vec<_> = orders
            .iter()
            .map(|o| (o.wanted.prefix.as_str(), o.wanted.is_proven))
            .collect();
        assert_eq!(wanted, [("shop/", true), ("bi/", false), ("", false)]);
        let backup = Candidate {
            name: "shop/a.dump".into(),
            generation: Generation(17),
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let order = &orders[0];
        let job = order.job(&backup, order.request_id(&backup)).unwrap();
        assert_eq!(job.request_id, "standing/staging/17");
        assert_eq!(job.generation, Some(Generation(17)));
        assert_eq!(
            (job.target_db.as_str(), job.on_existing),
            ("staging", OnExisting::Replace)
        );
        assert_eq!(job.database.as_deref(), Some("app"));
        assert_eq!(job.keep_previous, Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(job.labels["standing_order"], "staging");
        let policy = job.policy.unwrap();
        assert_eq!(
            (policy.owners, policy.privileges, policy.extensions),
            (Owners::None, false, Extensions::SkipMissing)
        );
        let other = &orders[1];
        let job_of_other = other.job(&backup, "x".into()).unwrap();
        assert!(job_of_other.policy.is_none() && job_of_other.keep_previous.is_none());
        assert_ne!(job.digest, job_of_other.digest);
    }

    #[test]
    fn every_mistake_is_found_with_the_orders_name() {
        let flags = [
            ("allowed-targets", "staging,copy_*"),
            ("backup-sets", "shop=shop/"),
        ];
        let wrong = |file: &str| read(&flags, file).unwrap_err();
        let all = wrong(
            r#"
version: 2
orders:
  - { name: Bad, when: proven, target: staging }
  - { name: a, when: proven, target: prod, on_existing: fail, keep_previous: soon }
  - { name: b, set: blog, when: { schedule: "0 3 * *", time_zone: UTC }, target: copy_1 }
  - { name: c, set: shop, prefix: x, when: finalized, target: copy_2, window: { from: "9", to: "10:00" } }
  - { name: c, when: finalized, target: copy_3 }
  - { name: d, when: finalized, target: copy_4, select: { tables: [t] } }
  - { name: e, when: finalized, target: copy_5, policy: { owners: map } }
  - { name: f, when: finalized, target: copy_6, policy: { role_map: { a: b } } }
  - { name: g, when: finalized, target: postgres }
  - { name: h, when: finalized, target: copy_7 }
  - { name: i, when: finalized, target: copy_7 }
"#,
        );
        for (said, part) in [
            ("version: ", "must be 1"),
            ("order 1: name: ", "lower-case"),
            ("order a: target: ", "not in ALLOWED_TARGETS"),
            ("order a: on_existing: ", "must be replace"),
            ("order a: keep_previous: ", "24h"),
            ("order b: set: ", "not in BACKUP_SETS"),
            ("order b: when: schedule: ", "five fields"),
            ("order c: set and prefix: ", "only one"),
            ("order c: window.from: ", "22:00"),
            ("order c: two orders", "this name"),
            ("order d: ", "a part of a backup does not replace"),
            ("order e: policy: ", "role_map"),
            ("order f: policy: ", "has no effect"),
            ("order g: target: ", "protected"),
            ("order i: target: ", "that of order h"),
        ] {
            let begin = format!("STANDING_RESTORES: standing.yaml: {said}");
            let found = all.iter().find(|e| e.starts_with(&begin));
            assert!(found.is_some_and(|e| e.contains(part)), "{said}: {all:#?}");
        }
        assert_eq!(all.len(), 15, "{all:#?}");
    }

    /// A copy without rules, or outside the window, is not what `mask:` or `window:` with nothing behind it means.
    #[test]
    fn a_field_without_a_value_is_refused() {
        for (field, name) in [
            ("set:", "set"),
            ("prefix:", "prefix"),
            ("database: ~", "database"),
            ("mask:", "mask"),
            ("mask: null", "mask"),
            ("window:", "window"),
            ("keep_previous:", "keep_previous"),
            ("policy: { privileges: }", "policy.privileges"),
            ("policy:\n      role_map:", "policy.role_map"),
            ("on_existing:", "on_existing"),
        ] {
            let file = format!(
                "version: 1\norders:\n  - name: a\n    when: proven\n    target: t\n    {field}\n"
            );
            let all = read(&[], &file).unwrap_err();
            let wanted = format!("order a: {name}: has no value");
            let is_said = all.iter().any(|said| said.contains(&wanted));
            assert!(is_said, "{field}: {all:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_names_the_file() {
        for (file, part) in [
            (
                "version: 1\norders:\n  - { name: a, when: sometimes, target: t }",
                "must be proven, finalized",
            ),
            (
                "version: 1\norders:\n  - { name: a, when: proven, target: t, colour: red }",
                "colour",
            ),
            ("version: 1", "orders"),
        ] {
            let all = read(&[], file).unwrap_err();
            assert_eq!(all.len(), 1, "{all:?}");
            assert!(
                all[0].starts_with("STANDING_RESTORES: standing.yaml: "),
                "{all:?}"
            );
            assert!(all[0].contains(part), "{all:?}");
        }
    }

    #[test]
    fn an_order_names_the_files_that_finish_its_copies() {
        let file = |names: &str| {
            format!(
                "version: 1\norders:\n  - {{ name: a, when: proven, target: t, finish: [{names}] }}"
            )
        };
        let flags = [("restore-finish-from", "gs://sql/finish")];
        let orders = read(&flags, &file("grants.sql, users.sql")).unwrap();
        let backup = Candidate {
            name: "x.dump".into(),
            generation: Generation(1),
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let job = orders[0].job(&backup, "standing/a/1".into()).unwrap();
        assert_eq!(job.finish.names, ["grants.sql", "users.sql"]);
        let all = read(&flags, &file("../grants.sql")).unwrap_err();
        assert!(all[0].contains("order a: finish: "), "{all:?}");
        let checked = |name: &str| {
            format!(
                "version: 1\norders:\n  - {{ name: a, when: proven, target: t, finish_checks: {name} }}"
            )
        };
        let orders = read(&flags, &checked("team.yaml")).unwrap();
        let job = orders[0].job(&backup, "standing/a/1".into()).unwrap();
        assert_eq!(job.finish.checks_name.as_deref(), Some("team.yaml"));
        let all = read(&flags, &checked("team.sql")).unwrap_err();
        assert!(all[0].contains("order a: finish_checks: "), "{all:?}");
        let all = read(&[], &checked("team.yaml")).unwrap_err();
        assert!(
            all[0].contains("order a: finish_checks: the location"),
            "{all:?}"
        );
    }

    /// A copy that should be masked is never made unmasked.
    #[test]
    fn an_order_has_rules_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let rules =
            "version: 1\ntables:\n  shop.customer:\n    columns:\n      email: { fake: email }\n";
        std::fs::write(folder.path().join("rules.yaml"), rules).unwrap();
        let orders_with = |mask: &str, flags: &[(&str, &str)]| {
            let order = format!("name: a, when: proven, target: t, mask: {mask}");
            let mut config = config(flags, &format!("version: 1\norders:\n  - {{ {order} }}"));
            let path = folder.path().join("standing.yaml").display().to_string();
            config.standing_restores.as_mut().unwrap().path = path;
            let admission = Admission::new(&config, "restore-requests").unwrap();
            orders(&config, &admission)
        };
        let backup = Candidate {
            name: "x.dump".into(),
            generation: Generation(1),
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        let key = ("mask-key", "a key of at least sixteen bytes");
        let orders = orders_with("rules.yaml", &[key]).unwrap();
        let order = &orders[0];
        let job = order.job(&backup, order.request_id(&backup)).unwrap();
        assert!(job.masking.is_some());
        // A copy by other rules is no copy of this order.
        let rules = job.masking.as_ref().unwrap().0.digest();
        assert_eq!(order.rules(), Some(rules.as_str()));
        assert_eq!(
            job.request_id,
            format!("standing/a/1-m{}", rules.get(..16).unwrap())
        );
        let plain = StandingOrder {
            rules: None,
            ..order.clone()
        };
        assert_eq!(plain.request_id(&backup), "standing/a/1");
        assert_ne!(plain.digest(&backup), order.digest(&backup));
        // A request into its target would make an unmasked copy, unless the same rules are configured.
        let request = |target: &str| {
            Job::Restore(Box::new(RestoreJob::replacing("r", target, String::new())))
        };
        let e = check_masked(&orders, &request("t"), None).unwrap_err();
        assert_eq!(e.reason(), crate::error::FailureReason::TargetNotAllowed);
        assert!(report(&e).contains("standing restore a"), "{}", report(&e));
        assert!(check_masked(&orders, &request("t"), job.masking.as_ref()).is_ok());
        assert!(check_masked(&orders, &request("other"), None).is_ok());
        assert!(check_masked(&[plain], &request("t"), None).is_ok());
        // Without the key, or the file, there is no order.
        for (mask, flags, part) in [
            ("rules.yaml", &[][..], "MASK_KEY"),
            ("none.yaml", &[key][..], "cannot be read"),
        ] {
            let all = orders_with(mask, flags).unwrap_err();
            assert!(all[0].contains("order a: mask: "), "{all:?}");
            assert!(all[0].contains(part), "{all:?}");
        }
    }

    #[test]
    fn files_that_finish_need_a_place() {
        let file =
            "version: 1\norders:\n  - { name: a, when: proven, target: t, finish: [grants.sql] }";
        let all = read(&[], file).unwrap_err();
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].contains("order a: finish: the location"), "{all:?}");
    }

    #[test]
    fn the_request_policy_limits_orders_too() {
        let file =
            "version: 1\norders:\n  - { name: a, prefix: shop/, when: proven, target: staging }";
        let with = |policy: &str| {
            let mut config = config(&[("backup-bucket", "gs://bkt")], file);
            config.request_policy = Some(Document {
                path: "policy.yaml".to_owned(),
                text: format!("subscriptions:\n  {policy}"),
            });
            let admission = Admission::new(&config, "restore-requests").unwrap();
            orders(&config, &admission).map(|o| o.len())
        };
        let mut in_folder = config(
            &[("backup-bucket", "file:///backups")],
            &file.replace("shop/", "shop"),
        );
        in_folder.request_policy = Some(Document {
            path: "policy.yaml".to_owned(),
            text: "subscriptions:\n  restore-requests: { sources: ['file:///backups/shopbackup'] }"
                .to_owned(),
        });
        let admission = Admission::new(&in_folder, "restore-requests").unwrap();
        let all = orders(&in_folder, &admission).unwrap();
        let backup = |name: &str| Candidate {
            name: name.into(),
            generation: Generation(1),
            created: jiff::Timestamp::UNIX_EPOCH,
        };
        // The names of its backups are known only when there are some.
        for (name, is_allowed) in [("shopbackup/a.dump", true), ("shop/a.dump", false)] {
            let job = all[0].admitted_job(&backup(name), "x".into(), &admission);
            assert_eq!(job.is_ok(), is_allowed, "{name}");
        }
        let allowed = "restore-requests: { sources: [gs://bkt/shop], targets: [staging], on_existing: [replace] }";
        assert_eq!(with(allowed), Ok(1));
        for (policy, part) in [
            ("restore-requests: { targets: [app] }", "is not allowed"),
            (
                "restore-requests: { sources: [gs://bkt/blog] }",
                "outside the sources",
            ),
            ("restore-requests: { modes: [verify] }", "mode"),
            ("restore-requests: { on_existing: [fail] }", "on_existing"),
            ("another: {}", "not in REQUEST_POLICY"),
        ] {
            let all = with(policy).unwrap_err();
            assert!(
                all[0].contains("order a: ") && all[0].contains(part),
                "{all:?}"
            );
        }
    }
}

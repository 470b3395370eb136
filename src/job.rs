//! Jobs, restores and verifications, as the worker and the command line describe them.

mod finishing;
mod rehearsal;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::{Location, MAX_JOBS, MaskingRules};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::policy::{Depth, InPlace, OnError, Policy, Selection, Trigger};

pub use finishing::{
    FinishedSql, Finishing, FinishingFile, MAX_FINISHING_FILES, check_finish_checks,
    check_finish_names,
};
pub use rehearsal::{Rehearsal, RehearsedRefusal};

/// What to do when the target database exists.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum OnExisting {
    /// Fail without changing anything.
    #[default]
    Fail,
    /// Replace it with the restored database; the old one is kept under another name.
    Replace,
    /// Load into it, if it is empty. It must exist.
    // On the command line, this is --into-empty.
    #[value(skip)]
    Fill,
}

/// For whom the work of a restore that stops is kept, so that the next attempt goes on there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeepProgress {
    /// It is dropped.
    #[default]
    Never,
    /// For the next delivery of the message, or the next try of the run.
    ForRedelivery,
    /// For a person, who continues it with `restore --resume`.
    ForPerson,
}

/// The word for the newest backup, and that for the newest proven one.
pub const LATEST: &str = "latest";
pub const LATEST_PROVEN: &str = "latest-proven";

/// Which backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupRef {
    /// By name; `place` is `None` for the configured location.
    Named {
        place: Option<Location>,
        name: String,
    },
    /// The newest backup at the configured location that this describes.
    Latest(LatestBackup),
    /// Standard input.
    Stdin,
}

/// Which backups `latest` and `latest-proven` choose the newest of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LatestBackup {
    /// Their names begin with this.
    pub prefix: String,
    /// Their names begin with none of these, which belong to other backup sets.
    pub other_sets: Vec<String>,
    /// They were not made after this.
    pub at: Option<jiff::Timestamp>,
    /// They are of this database.
    pub database: Option<String>,
    /// Their newest conclusive evidence says that they are proven.
    pub is_proven: bool,
    /// They may be former generations of their names, whether or not these were live at the time.
    pub of_all_generations: bool,
}

impl LatestBackup {
    /// Whether an object below the prefix is not one of another backup set.
    pub fn includes(&self, name: &str) -> bool {
        !self.other_sets.iter().any(|p| name.starts_with(p))
    }
}

/// SHA-256 of the JSON form of what was asked, in hexadecimal. It tells a repeated request from another one with the
/// same id.
pub fn digest_of(asked: &impl serde::Serialize) -> String {
    use sha2::Digest;
    let canonical = serde_json::to_vec(asked).unwrap_or_default();
    sha2::Sha256::digest(&canonical)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// The generation of an object: which of its versions. Cloud Storage numbers them by time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub i64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Generation {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Generation)
    }
}

/// A restore.
#[derive(Debug, Clone)]
pub struct RestoreJob {
    pub request_id: String,
    pub backup: BackupRef,
    /// Only this generation of the object.
    pub generation: Option<Generation>,
    /// Base64 of the big-endian CRC32C that the object must have.
    pub crc32c: Option<String>,
    pub target_db: String,
    pub on_existing: OnExisting,
    pub jobs: Option<usize>,
    pub deadline: Option<jiff::Timestamp>,
    pub labels: BTreeMap<String, String>,
    /// Order among requests for one target: when the message was published, in microseconds since 1970.
    /// `None` for jobs without a message; the target server's clock at their start orders them.
    pub published_us: Option<i64>,
    /// Delivery attempt, from 1.
    pub attempt: u32,
    /// Overrides the configured policy.
    pub policy: Option<Policy>,
    /// Overrides how long the replaced database is kept.
    pub keep_previous: Option<Duration>,
    /// Overrides the configured rules by which rows are masked.
    pub masking: Option<MaskingRules>,
    /// Database to take from a dump of a whole cluster.
    pub database: Option<String>,
    pub selection: Selection,
    /// Overrides the configured value.
    pub in_place: Option<InPlace>,
    /// Overrides the policy's value.
    pub on_error: Option<OnError>,
    /// What runs in the restored database before it takes the target's place.
    pub finish: Finishing,
    /// Only the definitions are tried, in a database of its own; there is no target.
    pub is_rehearsal: bool,
    /// For whom its work is kept if it stops.
    pub keep: KeepProgress,
    /// Digest of the request, to tell a duplicate from another request with the same id.
    pub digest: String,
}

impl RestoreJob {
    /// A job that replaces `target_db`, ordered by the server's clock.
    pub fn replacing(request_id: &str, target_db: &str, digest: String) -> Self {
        RestoreJob {
            request_id: request_id.to_owned(),
            backup: BackupRef::Stdin,
            generation: None,
            crc32c: None,
            target_db: target_db.to_owned(),
            on_existing: OnExisting::Replace,
            jobs: None,
            deadline: None,
            labels: BTreeMap::new(),
            published_us: None,
            attempt: 1,
            policy: None,
            keep_previous: None,
            masking: None,
            database: None,
            selection: Selection::default(),
            in_place: None,
            on_error: None,
            finish: Finishing::default(),
            is_rehearsal: false,
            keep: KeepProgress::Never,
            digest,
        }
    }

    /// Attempts of which the earlier ones may have crashed. Only a message comes again without anybody knowing why; the
    /// earlier attempts of anything else have ended in this process.
    pub fn deliveries(&self) -> u32 {
        self.published_us.map_or(1, |_| self.attempt)
    }
}

/// The backup that was used, pinned.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct ResultBackup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// An int64 as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// Bytes; an int64 as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Base64 of the big-endian CRC32C of the bytes that were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
}

/// Whether a backup was shown to be complete.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// Its end mark or table of contents shows it.
    Proven,
    /// SQL text without pg_dump's end mark: truncation between two statements cannot be detected.
    Unknown,
}

impl Completeness {
    /// From `is_complete`, what the archive showed at its end; `None` if it was not read to the end.
    pub fn of(is_complete: Option<&bool>) -> Self {
        if is_complete == Some(&true) {
            Completeness::Proven
        } else {
            Completeness::Unknown
        }
    }
}

/// A verification.
#[derive(Debug, Clone)]
pub struct VerifyJob {
    pub request_id: String,
    pub backup: BackupRef,
    /// Only this generation of the object.
    pub generation: Option<Generation>,
    /// Base64 of the big-endian CRC32C that the object must have.
    pub crc32c: Option<String>,
    /// Database to take from a dump of a whole cluster.
    pub database: Option<String>,
    /// Overrides the configured depth.
    pub depth: Option<Depth>,
    pub jobs: Option<usize>,
    pub deadline: Option<jiff::Timestamp>,
    pub labels: BTreeMap<String, String>,
    pub trigger: Trigger,
    /// Delivery attempt, from 1.
    pub attempt: u32,
}

impl VerifyJob {
    /// A verification with the configured settings.
    pub fn new(request_id: impl Into<String>, backup: BackupRef, trigger: Trigger) -> Self {
        VerifyJob {
            request_id: request_id.into(),
            backup,
            generation: None,
            crc32c: None,
            database: None,
            depth: None,
            jobs: None,
            deadline: None,
            labels: BTreeMap::new(),
            trigger,
            attempt: 1,
        }
    }
}

/// Work of a worker.
#[derive(Debug, Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is only one per message in progress"
)]
pub enum Job {
    Restore(Box<RestoreJob>),
    Verify(VerifyJob),
}

impl Job {
    pub fn request_id(&self) -> &str {
        match self {
            Job::Restore(j) => &j.request_id,
            Job::Verify(j) => &j.request_id,
        }
    }

    pub fn backup(&self) -> &BackupRef {
        match self {
            Job::Restore(j) => &j.backup,
            Job::Verify(j) => &j.backup,
        }
    }

    pub fn attempt(&self) -> u32 {
        match self {
            Job::Restore(j) => j.attempt,
            Job::Verify(j) => j.attempt,
        }
    }

    /// Sets when the message was published, in microseconds since 1970, and the delivery attempt.
    pub fn delivered(&mut self, published: i64, attempt: u32) {
        match self {
            Job::Restore(j) => (j.published_us, j.attempt) = (Some(published), attempt),
            Job::Verify(j) => j.attempt = attempt,
        }
    }

    /// The target database; `None` for a verification or a rehearsal, which restores into a database of its own.
    pub fn target_db(&self) -> Option<&str> {
        match self {
            Job::Restore(j) if j.is_rehearsal => None,
            Job::Restore(j) => Some(&j.target_db),
            Job::Verify(_) => None,
        }
    }

    /// Whether an existing database is filled.
    pub fn is_fill(&self) -> bool {
        match self {
            Job::Restore(j) => j.on_existing == OnExisting::Fill,
            Job::Verify(_) => false,
        }
    }

    /// Whether only the definitions are tried.
    pub fn is_rehearsal(&self) -> bool {
        match self {
            Job::Restore(j) => j.is_rehearsal,
            Job::Verify(_) => false,
        }
    }
}

fn invalid(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

/// Prefix of the ids of requests whose messages name none.
pub const OWN_MESSAGE: &str = "message:";
/// Prefix of the ids of runs of standing restores.
pub const OWN_STANDING: &str = "standing/";
/// Prefixes of generated ids: of jobs from notifications, the schedule, standing restores and the self-test, and of
/// messages that name no id or cannot be read.
pub const OWN_IDS: [&str; 5] = ["gcs:", "schedule:", "selftest:", OWN_MESSAGE, OWN_STANDING];
/// Part of the generated id of a job that verifies an older backup for a bisection.
pub const OWN_PROBE: &str = ":bisect:";

/// Whether an id has a form that this program generates. A request with such an id could be answered in
/// place of the job that the id belongs to.
pub fn is_own_id(id: &str) -> bool {
    OWN_IDS.iter().any(|own| id.starts_with(own)) || id.contains(OWN_PROBE)
}

/// Checks a number of connections for one job; `name` is what the caller calls it.
///
/// # Errors
/// `invalid_request` unless it is from 1 to [`MAX_JOBS`].
pub fn check_jobs(name: &str, jobs: Option<usize>) -> Result<(), RestoreError> {
    if jobs.is_none_or(|n| (1..=MAX_JOBS).contains(&n)) {
        return Ok(());
    }
    let what = format!("{name}: must be from 1 to {MAX_JOBS}");
    Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
}

/// Parses a number of connections for one job on the command line.
///
/// # Errors
/// What is wrong with it.
pub fn parse_jobs(text: &str) -> Result<usize, String> {
    let jobs = text.parse::<usize>().ok();
    jobs.filter(|n| (1..=MAX_JOBS).contains(n))
        .ok_or_else(|| format!("must be from 1 to {MAX_JOBS}"))
}

/// Checks a request id chosen by a requester.
///
/// # Errors
/// `invalid_request`.
pub fn check_request_id(id: &str) -> Result<(), RestoreError> {
    if id.is_empty() || id.len() > 200 || id.chars().any(char::is_control) {
        return Err(invalid(
            "request_id: must have 1 to 200 bytes and no control characters",
        ));
    }
    if is_own_id(id) {
        let own = OWN_IDS.join(", ");
        return Err(invalid(format!(
            "request_id: ids that begin with {own} or contain {OWN_PROBE} are reserved; choose another id"
        )));
    }
    Ok(())
}

impl BackupRef {
    /// Parses the argument BACKUP of the command line: an object name, a `gs://` or `file://` URI, a path
    /// that starts with `/` or `./`, `-`, `latest` or `latest-proven`, also with `@TIME` (under `prefix`).
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn parse(text: &str, prefix: &str) -> Result<Self, RestoreError> {
        if text == "-" {
            return Ok(BackupRef::Stdin);
        }
        if text.starts_with('/') || text.starts_with("./") || text.starts_with("../") {
            let path = std::path::absolute(text)
                .map_err(|e| invalid(format!("invalid path of a backup: {e}")))?;
            // A link given on the command line is followed; links in a folder must not lead out of it.
            let path = if path.is_symlink() {
                path.canonicalize().unwrap_or(path)
            } else {
                path
            };
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(invalid("the backup's path does not name a file"));
            };
            let name = name
                .to_str()
                .ok_or_else(|| invalid("the backup's path is not UTF-8"))?;
            // The name of a directory dump ends with a slash.
            let slash = if text.ends_with('/') { "/" } else { "" };
            let place = Some(Location::Folder(folder.to_owned()));
            return Ok(BackupRef::Named {
                place,
                name: format!("{name}{slash}"),
            });
        }
        if text.contains("://") {
            return Self::from_uri(text);
        }
        Self::from_name(text, prefix)
    }

    /// Parses a `gs://` or `file://` URI.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn from_uri(uri: &str) -> Result<Self, RestoreError> {
        let (place, name) =
            Location::of_backup(uri).map_err(|e| invalid(format!("backup uri: {e}")))?;
        Ok(BackupRef::Named {
            place: Some(place),
            name,
        })
    }

    /// The same; `latest` and `latest-proven` are then of this database.
    pub fn of_database(self, database: Option<&str>) -> Self {
        match self {
            BackupRef::Latest(wanted) => BackupRef::Latest(LatestBackup {
                database: database.map(str::to_owned),
                ..wanted
            }),
            other => other,
        }
    }

    /// Parses a name at the configured location, or `latest` or `latest-proven`, also with `@TIME`.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn from_name(name: &str, prefix: &str) -> Result<Self, RestoreError> {
        let (word, time) = match name.split_once('@') {
            Some((word, time)) => (word, Some(time)),
            None => (name, None),
        };
        if word == LATEST || word == LATEST_PROVEN {
            let not_a_time = || {
                invalid(format!(
                    "{word}@ must be followed by a time such as 2026-11-20T00:00Z, or an age such as 2d or 12h"
                ))
            };
            return Ok(BackupRef::Latest(LatestBackup {
                prefix: prefix.to_owned(),
                other_sets: vec![],
                at: time
                    .map(|t| parse_time_or_age(t, jiff::Timestamp::now()).ok_or_else(not_a_time))
                    .transpose()?,
                database: None,
                is_proven: word == LATEST_PROVEN,
                of_all_generations: false,
            }));
        }
        if name.is_empty() || name.len() > 1024 || name.chars().any(char::is_control) {
            return Err(invalid(
                "backup name: must have 1 to 1024 bytes and no control characters",
            ));
        }
        if name.split('/').any(|part| part == "..") {
            return Err(invalid("backup name: must not contain `..`"));
        }
        Ok(BackupRef::Named {
            place: None,
            name: name.to_owned(),
        })
    }
}

/// Parses a time, or an age: how long before `now` it was.
fn parse_time_or_age(text: &str, now: jiff::Timestamp) -> Option<jiff::Timestamp> {
    let ago = || {
        let age = text
            .parse::<jiff::Span>()
            .ok()
            .filter(|s| s.is_positive())?;
        let age = age.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
        now.checked_sub(age.ok()?).ok()
    };
    parse_time(text).or_else(ago)
}

/// Parses RFC 3339; the seconds, or the whole time of day, may be left out.
fn parse_time(text: &str) -> Option<jiff::Timestamp> {
    let with_seconds = || {
        let (date, zone) = text.split_at_checked(16)?;
        format!("{date}:00{zone}").parse().ok()
    };
    let whole_day = || format!("{text}T00:00:00Z").parse().ok();
    text.parse().ok().or_else(with_seconds).or_else(whole_day)
}

/// Databases that no restore may touch.
const PROTECTED: [&str; 7] = [
    "postgres",
    "template0",
    "template1",
    "cloudsqladmin",
    "rdsadmin",
    "azure_maintenance",
    "azure_sys",
];

/// Checks the name of a target database.
///
/// # Errors
/// `invalid_request` for an invalid name, `target_not_allowed` for a protected database.
pub fn check_target(name: &str, maintenance: &str) -> Result<(), RestoreError> {
    check_database("target_db", name, maintenance)
}

/// As [`check_target`]; `field` is what the caller calls the database.
///
/// # Errors
/// As [`check_target`].
pub fn check_database(field: &str, name: &str, maintenance: &str) -> Result<(), RestoreError> {
    if name.is_empty() || name.len() > 63 || name.chars().any(char::is_control) {
        return Err(invalid(format!(
            "{field}: must have 1 to 63 bytes and no control characters"
        )));
    }
    if PROTECTED.contains(&name) || name == maintenance || name.starts_with(OWN_PREFIX) {
        let what = format!("{field}: database {name} is protected");
        return Err(ValidationError::new(ValidationKind::TargetNotAllowed, what).into());
    }
    Ok(())
}

/// Checks the name of a database that is to be filled. Some services have no other one than `postgres`, and nothing that
/// is in a database is touched.
///
/// # Errors
/// As [`check_target`].
pub fn check_fill_target(name: &str) -> Result<(), RestoreError> {
    const USUAL: &str = "postgres";
    if name == USUAL {
        return Ok(());
    }
    check_database("target_db", name, USUAL)
}

/// Prefix of the names of databases that pgrestored creates.
pub const OWN_PREFIX: &str = "pgrestored_";

/// The comment on a role created for one of our databases; the reaper drops the role with the database.
pub fn made_for(database: &str) -> String {
    format!("made by pgrestored for {database}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason;

    #[test]
    fn every_documented_form_of_a_backup_is_parsed() {
        let newest = |at: Option<&str>, is_proven| {
            BackupRef::Latest(LatestBackup {
                prefix: "p/".into(),
                other_sets: vec![],
                at: at.map(|t| t.parse().unwrap()),
                database: None,
                is_proven,
                of_all_generations: false,
            })
        };
        let latest = |at| newest(at, false);
        let named = |place: Option<&str>, name: &str| BackupRef::Named {
            place: place.map(|p| Location::parse(p).unwrap()),
            name: name.into(),
        };
        for (text, wanted) in [
            ("-", BackupRef::Stdin),
            ("latest", latest(None)),
            (
                "latest@2026-11-20T00:00Z",
                latest(Some("2026-11-20T00:00:00Z")),
            ),
            ("latest@2026-11-20", latest(Some("2026-11-20T00:00:00Z"))),
            (
                "latest@2026-11-20T01:02:03+01:00",
                latest(Some("2026-11-20T00:02:03Z")),
            ),
            ("latest-proven", newest(None, true)),
            (
                "latest-proven@2026-11-20",
                newest(Some("2026-11-20T00:00:00Z"), true),
            ),
            ("latest-2026.dump", named(None, "latest-2026.dump")),
            ("a/b.dump", named(None, "a/b.dump")),
            ("gs://bucket/a/b.dump", named(Some("bucket"), "a/b.dump")),
            ("/srv/b.dump", named(Some("file:///srv"), "b.dump")),
            ("/srv/b/", named(Some("file:///srv"), "b/")),
            ("file:///srv/b.dump", named(Some("file:///srv"), "b.dump")),
        ] {
            assert_eq!(BackupRef::parse(text, "p/").unwrap(), wanted, "{text}");
        }
        for relative in ["./b.dump", "../b.dump"] {
            let wanted = std::path::absolute(relative).unwrap();
            let BackupRef::Named {
                place: Some(Location::Folder(folder)),
                name,
            } = BackupRef::parse(relative, "").unwrap()
            else {
                panic!("{relative}: not parsed as a file")
            };
            assert_eq!(folder.join(name), wanted);
        }
        let long = |n: usize| "x".repeat(n);
        assert!(BackupRef::parse(&long(1024), "").is_ok());
        for text in [
            "",
            "latest@soon",
            "latest-proven@soon",
            "gs://bucket",
            "ftp://x/y",
            "a/../b",
            "a\nb",
            &long(1025),
        ] {
            let e = BackupRef::parse(text, "").unwrap_err();
            assert_eq!(e.reason(), FailureReason::InvalidRequest, "{text}");
        }
    }

    #[test]
    fn an_age_is_a_time_before_now() {
        let now: jiff::Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, wanted) in [
            ("2d", Some("2026-11-20T12:00:00Z")),
            ("36h", Some("2026-11-21T00:00:00Z")),
            ("1d12h", Some("2026-11-21T00:00:00Z")),
            ("2026-11-20", Some("2026-11-20T00:00:00Z")),
            ("-2d", None),
            ("2", None),
            ("", None),
        ] {
            let found = parse_time_or_age(text, now);
            assert_eq!(found, wanted.map(|t| t.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn generated_ids_are_reserved() {
        for id in [
            "ops-1",
            "a:b",
            "xgcs:a",
            "gcs",
            "bisect:1",
            &"x".repeat(200),
        ] {
            assert!(check_request_id(id).is_ok(), "{id}");
        }
        let long = "x".repeat(201);
        for id in [
            "",
            "a\n",
            &long,
            "gcs:b/x#1",
            "schedule:default:1:2",
            "selftest:1",
            "message:7",
            "standing/staging/7",
            "r:bisect:9",
        ] {
            assert_eq!(
                check_request_id(id).unwrap_err().reason(),
                FailureReason::InvalidRequest,
                "{id}"
            );
        }
    }

    #[test]
    fn protected_databases_cannot_be_targets() {
        assert!(check_target("app", "postgres").is_ok());
        for name in ["postgres", "template1", "ops", "pgrestored_s_1"] {
            let e = check_target(name, "ops").unwrap_err();
            assert_eq!(e.reason(), FailureReason::TargetNotAllowed);
        }
        for (name, may_be_filled) in [
            ("postgres", true),
            ("ops", true),
            ("template1", false),
            ("rdsadmin", false),
            ("pgrestored_s_1", false),
            ("", false),
        ] {
            assert_eq!(check_fill_target(name).is_ok(), may_be_filled, "{name}");
        }
        assert!(check_target(&"x".repeat(63), "p").is_ok());
        for name in ["", "a\nb", &"x".repeat(64)] {
            assert_eq!(
                check_target(name, "p").unwrap_err().reason(),
                FailureReason::InvalidRequest,
                "{name}"
            );
        }
    }
}

//! The wire format: restore requests, result events and Cloud Storage notifications. Messages are
//! CloudEvents 1.0 in Pub/Sub's binary mode around plain JSON; bare JSON and the structured mode are
//! accepted too. `schemas/` is generated from these types.

mod advice;
mod gcs_notification;
mod message_ids;
mod own_request;
mod resumed_from;
mod shortened;
mod text_checks;

use pgdump_restore::{LISTED_REFUSALS, MaskingReport, Refusal, Stage};
use std::collections::{BTreeMap, HashMap};

use crate::error::{RestoreError, ValidationError, ValidationKind, bound_list, line_of, one_line};
use crate::job::{
    BackupRef, FinishedSql, Finishing, Job, KeepProgress, OnExisting, Rehearsal, RestoreJob,
    VerifyJob, check_finish_checks, check_finish_names, check_jobs, check_request_id, digest_of,
};
use crate::policy::{Depth, InPlace, OnError, Rewrite, Selection};
use crate::proof::{BackupContents, Trigger, VerificationSummary};
use text_checks::check_attributes;

pub use crate::error::ErrorBody;
pub use crate::job::{Completeness, ResultBackup};
pub use crate::proof::Verdict;
pub use advice::{Advice, MOST_ADVICE, MeasuredGain};
pub use gcs_notification::GcsNotification;
pub use message_ids::id_of_message;
pub use resumed_from::ResumedFrom;
pub use text_checks::check_texts;

pub const REQUEST_TYPE: &str = "io.pgrestored.restore.requested.v1";
pub const RESULT_TYPE: &str = "io.pgrestored.restore.completed.v1";
const RESULT_SCHEMA: &str = "https://pgrestored.io/schemas/restore-result.v1.json";
/// Most notes, and most rewrites, in a result.
const LISTED: usize = 100;
/// How the note begins that a database which was to be filled still has a part of the backup.
pub const NOT_EMPTIED: &str = "the database could not be emptied again: ";
/// Most examples of one rewrite.
const EXAMPLES: usize = 10;
/// Longest text in a reduced result, in bytes.
const REDUCED_TEXT: usize = 500;
/// Largest request that is read, in bytes.
pub const MAX_REQUEST_BYTES: usize = 64 << 10;

/// `restore` puts a database in place, `verify` proves that a backup can be restored, `rehearse` shows what the target's
/// server refuses of it.
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
)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Restore,
    Verify,
    /// Tries all definitions on the target's server, without rows.
    Rehearse,
}

/// Which backup: exactly one of `name` and `uri`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["name"] }, { "required": ["uri"] }]))]
pub struct BackupSpec {
    /// Object name in the configured bucket, or `latest` (the newest) or `latest-proven` (the newest that is proven),
    /// also with `@TIME` (the newest of that time, or of an age such as `2d`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `gs://bucket/object`, inside the bucket or a trusted source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Only this generation of the object (an int64 as a string).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9]{1,19}$"))]
    pub generation: Option<String>,
    /// Base64 of the object's big-endian CRC32C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9+/]{6}==$"))]
    pub crc32c: Option<String>,
    /// Database to take from a dump of a whole cluster (`pg_dumpall`); for any other backup, the database that
    /// it must be from. `latest` and `latest-proven` are the newest of this database; without it, all backups in the
    /// bucket must be of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
}

/// A request to restore a backup. Strict: an unknown field is an error.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Chosen by the requester; a second message with the same id is the same request. Without it, each message is a
    /// request of its own, whose id is `message:` and the id of the Pub/Sub message.
    #[serde(
        default,
        deserialize_with = "message_ids::named_id",
        skip_serializing_if = "String::is_empty"
    )]
    #[schemars(length(min = 1, max = 200))]
    pub request_id: String,
    pub backup: BackupSpec,
    /// Database to restore into; without it, the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub target_db: Option<String>,
    #[serde(default)]
    pub on_existing: OnExisting,
    #[serde(default)]
    pub mode: Mode,
    /// How far a verification goes; without it, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// Connections that load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub jobs: Option<u32>,
    /// Give up after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<jiff::Timestamp>,
    /// Copied into the result.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Which part of the backup; without it, all of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub select: Selection,
    /// Whether to create a new database under its final name, closed to others until it is proven; without it,
    /// as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlace>,
    /// What to do about definitions that the server refuses; without it, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// Files of SQL in the worker's RESTORE_FINISH_FROM, which run in this order in the restored database before it takes the
    /// target's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub finish: Vec<String>,
    /// A checks file in the worker's RESTORE_FINISH_FROM, all of whose checks must pass in the restored database after `finish`, and
    /// before it takes the target's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_checks: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_default(selection: &Selection) -> bool {
    *selection == Selection::default()
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Restore,
    Verification,
    Rehearsal,
}

impl Kind {
    /// The kind of a job's result.
    pub fn of(job: &Job) -> Self {
        match job {
            Job::Restore(_) if job.is_rehearsal() => Kind::Rehearsal,
            Job::Restore(_) => Kind::Restore,
            Job::Verify(_) => Kind::Verification,
        }
    }
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Success,
    Failure,
}

/// Result of a request. Open: readers ignore fields that they do not know.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct RestoreResult {
    pub request_id: String,
    pub kind: Kind,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    pub backup: ResultBackup,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_db: Option<String>,
    pub started_at: jiff::Timestamp,
    pub finished_at: jiff::Timestamp,
    pub duration_seconds: f64,
    /// Delivery attempt that gave this result, from 1.
    pub attempt: u32,
    /// What earlier attempts had done, if this one went on where they stopped; also after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_from: Option<ResumedFrom>,
    /// Seconds of each stage, until the next one began. Rows that were read by then are loaded after it.
    pub stages: BTreeMap<String, f64>,
    /// Seconds from the first to the last activity of the stages `data` and `indexes`, which overlap. Missing if no rows
    /// were loaded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stages_active: BTreeMap<String, f64>,
    pub tables: u64,
    pub rows: u64,
    /// Uncompressed bytes of table data and large objects.
    pub bytes: u64,
    /// Name under which the replaced database is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_database: Option<String>,
    /// After a success: whether the backup showed that it is complete. SQL text does by `pg_dump`'s end mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
    /// After a success: what of a database the backup holds; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<BackupContents>,
    /// After a success: only a part of the backup was restored, such as its rows alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// After a success with `on_error: skip`: whether the server refused nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// Definitions that the server refused, and what was left out with them: the first 100. All rows of the tables that
    /// are not among them were restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Refusal>,
    /// Number of all that was left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped_total: u64,
    /// After a success: the files of SQL that ran in the restored database before it took the target's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub finish: Vec<FinishedSql>,
    /// What was masked, and by which rules. After a failure, as far as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masking: Option<Box<MaskingReport>>,
    /// What to know about the restored database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What was restored differently from the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewrites: Vec<Rewrite>,
    /// After a success: settings of the target's server that made the restore slower, at most five.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<Advice>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For a verification: its depth, its findings and the location of its evidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Box<VerificationSummary>>,
    /// For a rehearsal: what the server refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Box<Rehearsal>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

fn invalid(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

impl RestoreRequest {
    /// Parses a message in any of the three forms.
    ///
    /// # Errors
    /// `invalid_request`, with the position in the document.
    pub fn from_message(
        data: &[u8],
        attributes: &HashMap<String, String>,
    ) -> Result<Self, RestoreError> {
        if data.len() > MAX_REQUEST_BYTES {
            return Err(invalid(format!(
                "the request is larger than {MAX_REQUEST_BYTES} bytes"
            )));
        }
        check_attributes(attributes)?;
        let not_json = |e: serde_json::Error| invalid(format!("the request cannot be parsed: {e}"));
        let content_type = attributes
            .get("content-type")
            .map(String::as_str)
            .unwrap_or_default();
        if content_type.starts_with("application/cloudevents") {
            let event: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(data).map_err(not_json)?;
            let text = |key: &str| event.get(key).and_then(|v| v.as_str());
            check_event(text("specversion"), text("type"))?;
            let body = event
                .get("data")
                .ok_or_else(|| invalid("the event has no data"))?;
            return serde_json::from_value(body.clone()).map_err(not_json);
        }
        if let Some(version) = attributes.get("ce-specversion") {
            check_event(Some(version), attributes.get("ce-type").map(String::as_str))?;
        }
        serde_json::from_slice(data).map_err(not_json)
    }

    /// SHA-256 of the request in canonical form, in hexadecimal.
    pub fn digest(&self) -> String {
        digest_of(self)
    }

    /// Checks the request and converts it to a job; `default_db` is the target of requests that name none.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn into_job(self, default_db: Option<&str>) -> Result<Job, RestoreError> {
        self.check_texts()?;
        check_request_id(&self.request_id)?;
        let digest = self.digest();
        self.into_checked_job(digest, default_db)
    }

    /// As [`into_job`](Self::into_job), for a request without an id of its own: it gets that of its message.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn into_job_of_message(
        mut self,
        message_id: &str,
        default_db: Option<&str>,
    ) -> Result<Job, RestoreError> {
        self.check_texts()?;
        let digest = self.digest();
        self.request_id = id_of_message(message_id);
        self.into_checked_job(digest, default_db)
    }

    fn check_texts(&self) -> Result<(), RestoreError> {
        check_texts(&serde_json::to_value(self).map_err(|e| invalid(e.to_string()))?)
    }

    fn into_checked_job(
        self,
        digest: String,
        default_db: Option<&str>,
    ) -> Result<Job, RestoreError> {
        let backup = match (&self.backup.name, &self.backup.uri) {
            (Some(name), None) => {
                BackupRef::from_name(name, "")?.of_database(self.backup.database.as_deref())
            }
            (None, Some(uri)) => BackupRef::from_uri(uri)?,
            _ => return Err(invalid("backup: needs exactly one of name and uri")),
        };
        let generation = self
            .backup
            .generation
            .as_deref()
            .map(str::parse)
            .transpose();
        let generation =
            generation.map_err(|_| invalid("backup.generation: must be an integer"))?;
        let named = self.backup.database.as_deref();
        if named.is_some_and(|d| d.is_empty() || d.len() > 63 || d.chars().any(char::is_control)) {
            return Err(invalid(
                "backup.database: must have 1 to 63 bytes and no control characters",
            ));
        }
        let jobs = self.jobs.map(|n| n as usize);
        check_jobs("jobs", jobs)?;
        self.check_finish()?;
        if self.mode == Mode::Verify {
            if self.target_db.is_some()
                || !is_default(&self.select)
                || self.on_existing != OnExisting::Fail
            {
                return Err(invalid(
                    "mode verify: target_db, on_existing and select are only for mode restore",
                ));
            }
            if self.in_place.is_some() {
                return Err(invalid("mode verify: in_place is only for mode restore"));
            }
            if self.on_error.is_some() {
                return Err(invalid("mode verify: on_error is only for mode restore"));
            }
            return Ok(Job::Verify(VerifyJob {
                request_id: self.request_id,
                backup,
                generation,
                crc32c: self.backup.crc32c,
                database: self.backup.database,
                depth: self.depth,
                jobs,
                deadline: self.deadline,
                labels: self.labels,
                trigger: Trigger::Request,
                attempt: 1,
            }));
        }
        if self.depth.is_some() {
            return Err(invalid("depth: is only for mode verify"));
        }
        self.select.check().map_err(invalid)?;
        let is_rehearsal = self.mode == Mode::Rehearse;
        if is_rehearsal {
            self.check_rehearsal()?;
        }
        let no_target = is_rehearsal.then(String::new);
        let target_db = self.target_db.or(no_target);
        let target_db = target_db.or(default_db.map(str::to_owned));
        Ok(Job::Restore(Box::new(RestoreJob {
            request_id: self.request_id,
            backup,
            generation,
            crc32c: self.backup.crc32c,
            target_db: target_db
                .ok_or_else(|| invalid("target_db: required, because no default is configured"))?,
            on_existing: self.on_existing,
            jobs,
            deadline: self.deadline,
            labels: self.labels,
            published_us: None,
            attempt: 1,
            policy: None,
            keep_previous: None,
            masking: None,
            database: self.backup.database,
            selection: self.select,
            in_place: self.in_place,
            on_error: self.on_error,
            finish: Finishing {
                names: self.finish,
                checks_name: self.finish_checks,
                ..Finishing::default()
            },
            is_rehearsal,
            keep: KeepProgress::ForRedelivery,
            digest,
        })))
    }
}

impl RestoreRequest {
    /// Only a restored database is finished.
    fn check_finish(&self) -> Result<(), RestoreError> {
        if self.mode != Mode::Restore && !self.finish.is_empty() {
            return Err(invalid("finish: is only for mode restore"));
        }
        if self.mode != Mode::Restore && self.finish_checks.is_some() {
            return Err(invalid("finish_checks: is only for mode restore"));
        }
        check_finish_names(&self.finish)?;
        check_finish_checks(self.finish_checks.as_deref())
    }

    /// A rehearsal has a database of its own, whatever the target has, and names all that is refused.
    fn check_rehearsal(&self) -> Result<(), RestoreError> {
        let is_restore = self.target_db.is_some()
            || self.on_existing != OnExisting::Fail
            || self.in_place.is_some()
            || self.on_error.is_some();
        if is_restore || self.select.data_only {
            return Err(invalid(
                "mode rehearse: target_db, on_existing, in_place, on_error and data_only are only for mode restore",
            ));
        }
        Ok(())
    }
}

/// Limits the number of rewrites, and the length of their texts.
pub fn bound_rewrites(all: &mut Vec<Rewrite>) {
    all.truncate(LISTED);
    for rewrite in all {
        rewrite.what = one_line(&rewrite.what);
        rewrite.examples.truncate(EXAMPLES);
        rewrite
            .examples
            .iter_mut()
            .for_each(|e| *e = line_of(e, REDUCED_TEXT));
    }
}

/// Limits the number of refusals, and the length of their texts.
fn bound_refusals(all: &mut Vec<Refusal>) {
    all.truncate(LISTED_REFUSALS);
    all.iter_mut().for_each(bound_refusal);
}

fn bound_refusal(refusal: &mut Refusal) {
    let texts = [&mut refusal.entry, &mut refusal.message, &mut refusal.root];
    let texts = texts.into_iter().chain(&mut refusal.caused_by);
    texts.for_each(|text| *text = line_of(text, REDUCED_TEXT));
}

fn check_event(specversion: Option<&str>, kind: Option<&str>) -> Result<(), RestoreError> {
    if specversion != Some("1.0") {
        return Err(invalid("the event's specversion is not 1.0"));
    }
    match kind {
        Some(t) if t.ends_with("restore.requested.v1") => Ok(()),
        _ => Err(invalid("the event's type is not restore.requested.v1")),
    }
}

/// A message ready to publish.
#[derive(Debug, Clone)]
pub struct Message {
    pub data: Vec<u8>,
    pub attributes: BTreeMap<String, String>,
}

impl RestoreResult {
    /// A success with only its times; the caller fills in the rest.
    pub fn new(
        request_id: &str,
        (started_at, finished_at): (jiff::Timestamp, jiff::Timestamp),
    ) -> Self {
        RestoreResult {
            request_id: request_id.to_owned(),
            kind: Kind::Restore,
            status: Status::Success,
            verdict: None,
            backup: ResultBackup::default(),
            target_db: None,
            started_at,
            finished_at,
            duration_seconds: finished_at.duration_since(started_at).as_secs_f64(),
            attempt: 1,
            resumed_from: None,
            stages: BTreeMap::new(),
            stages_active: BTreeMap::new(),
            tables: 0,
            rows: 0,
            bytes: 0,
            previous_database: None,
            completeness: None,
            contents: None,
            partial: false,
            complete: None,
            skipped: vec![],
            skipped_total: 0,
            finish: vec![],
            masking: None,
            notes: vec![],
            rewrites: vec![],
            advice: vec![],
            labels: BTreeMap::new(),
            verification: None,
            rehearsal: None,
            error: None,
        }
    }

    /// A failure in `stage`.
    pub fn failure(
        request_id: &str,
        error: &RestoreError,
        stage: Stage,
        times: (jiff::Timestamp, jiff::Timestamp),
    ) -> Self {
        let mut result = Self::new(request_id, times);
        result.fail(error, stage);
        result
    }

    /// Limits what grows with the backup or the server, so that every result can be recorded and published.
    pub fn bound(&mut self) {
        bound_list(&mut self.notes, LISTED);
        bound_rewrites(&mut self.rewrites);
        bound_refusals(&mut self.skipped);
        self.advice.truncate(MOST_ADVICE);
        if let Some(error) = &mut self.error {
            error.message = one_line(&error.message);
            bound_refusals(&mut error.refusals);
        }
        if let Some(verification) = &mut self.verification {
            verification.bound();
        }
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.refusals.truncate(LISTED_REFUSALS);
            let refusals = rehearsal.refusals.iter_mut();
            refusals.for_each(|r| bound_refusal(&mut r.refusal));
        }
    }

    /// A smaller result without what could keep it from being published; a note says `why`.
    pub fn reduced(&self, why: &str) -> Self {
        let short = |text: &String| line_of(text, REDUCED_TEXT);
        let backup = ResultBackup {
            name: self.backup.name.as_ref().map(short),
            uri: self.backup.uri.as_ref().map(short),
            ..self.backup.clone()
        };
        let error = self.error.as_ref().map(|e| ErrorBody {
            message: short(&e.message),
            refusals: vec![],
            misfits: vec![],
            ..e.clone()
        });
        RestoreResult {
            request_id: short(&self.request_id),
            target_db: self.target_db.as_ref().map(short),
            stages: BTreeMap::new(),
            stages_active: BTreeMap::new(),
            notes: vec![line_of(
                &format!("reduced: the complete result could not be published: {why}"),
                REDUCED_TEXT,
            )],
            rewrites: vec![],
            advice: vec![],
            skipped: vec![],
            masking: self.masking.as_ref().map(|m| Box::new(m.reduced())),
            labels: BTreeMap::new(),
            verification: None,
            rehearsal: self.rehearsal.as_ref().map(|r| {
                Box::new(Rehearsal {
                    refusals: vec![],
                    ..(**r).clone()
                })
            }),
            backup,
            error,
            ..self.clone()
        }
    }

    /// Turns the result into a failure.
    pub fn fail(&mut self, error: &RestoreError, stage: Stage) {
        self.status = Status::Failure;
        self.error = Some(ErrorBody::new(error, stage));
    }

    /// The result as a CloudEvent. Its id is derived from the request id, so publishing it again is harmless.
    ///
    /// # Errors
    /// `internal`, if the result cannot be serialized as JSON.
    pub fn to_message(&self) -> Result<Message, RestoreError> {
        let data = serde_json::to_vec(self).map_err(|e| RestoreError::internal(e.to_string()))?;
        let id = uuid::Uuid::new_v5(
            &uuid::Uuid::NAMESPACE_URL,
            format!("pgrestored:{}", self.request_id).as_bytes(),
        );
        let mut attributes =
            event_attributes(RESULT_TYPE, &id.to_string(), &self.finished_at.to_string());
        attributes.insert("ce-dataschema".into(), RESULT_SCHEMA.into());
        attributes.insert("kind".into(), wire_name(&self.kind));
        attributes.insert("status".into(), wire_name(&self.status));
        for key in ["ce-subject", "request_id"] {
            attributes.insert(key.into(), attribute_text(&self.request_id));
        }
        if let Some(e) = &self.error {
            attributes.insert("failure_reason".into(), e.reason.to_string());
        }
        Ok(Message { data, attributes })
    }
}

impl RestoreRequest {
    /// The request as a CloudEvent.
    ///
    /// # Errors
    /// `internal`, if the request cannot be serialized as JSON.
    pub fn to_message(&self, now: jiff::Timestamp) -> Result<Message, RestoreError> {
        let data = serde_json::to_vec(self).map_err(|e| RestoreError::internal(e.to_string()))?;
        let mut attributes = event_attributes(
            REQUEST_TYPE,
            &uuid::Uuid::new_v4().to_string(),
            &now.to_string(),
        );
        attributes.insert("request_id".into(), attribute_text(&self.request_id));
        Ok(Message { data, attributes })
    }
}

/// Pub/Sub's limit of an attribute's value, in bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 1024;

fn attribute_text(text: &str) -> String {
    line_of(text, MAX_ATTRIBUTE_BYTES)
}

fn event_attributes(kind: &str, id: &str, time: &str) -> BTreeMap<String, String> {
    [
        ("ce-specversion", "1.0"),
        ("ce-type", kind),
        ("ce-source", "//pgrestored"),
        ("ce-id", id),
        ("ce-time", time),
        ("ce-datacontenttype", "application/json"),
        ("content-type", "application/json"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}

/// The wire name of an enum value, without quotes.
fn wire_name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::text_checks::{MAX_STRING, MAX_STRINGS};
    use super::*;
    use crate::error::FailureReason;

    fn attrs(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect()
    }

    const BODY: &str = r#"{"request_id":"r1","backup":{"name":"a.dump"},"target_db":"app"}"#;

    #[test]
    fn all_three_forms_of_a_request_are_accepted() {
        let bare = RestoreRequest::from_message(BODY.as_bytes(), &attrs(&[])).unwrap();
        let ce = attrs(&[
            ("ce-specversion", "1.0"),
            ("ce-type", "com.example.restore.requested.v1"),
        ]);
        assert_eq!(
            RestoreRequest::from_message(BODY.as_bytes(), &ce).unwrap(),
            bare
        );
        let structured =
            format!(r#"{{"specversion":"1.0","type":"{REQUEST_TYPE}","id":"1","data":{BODY}}}"#);
        let form = attrs(&[(
            "content-type",
            "application/cloudevents+json; charset=utf-8",
        )]);
        assert_eq!(
            RestoreRequest::from_message(structured.as_bytes(), &form).unwrap(),
            bare
        );
        assert_eq!(bare.on_existing, OnExisting::Fail);
    }

    #[test]
    fn a_request_without_an_id_has_that_of_its_message() {
        let body = br#"{"backup":{"name":"a.dump"},"target_db":"app"}"#;
        let request = || RestoreRequest::from_message(body, &attrs(&[])).unwrap();
        let job = |message: &str| request().into_job_of_message(message, None).unwrap();
        assert_eq!(job("17").request_id(), "message:17");
        assert_ne!(job("17").request_id(), job("18").request_id());
        // It is written as it was read, and no requester may choose such an id.
        assert!(
            !String::from_utf8(serde_json::to_vec(&request()).unwrap())
                .unwrap()
                .contains("request_id")
        );
        let chosen = br#"{"request_id":"message:17","backup":{"name":"a.dump"},"target_db":"app"}"#;
        let chosen = RestoreRequest::from_message(chosen, &attrs(&[])).unwrap();
        assert!(chosen.into_job(None).is_err());
    }

    #[test]
    fn unknown_fields_and_invalid_values_are_rejected() {
        let none = attrs(&[]);
        for bad in [
            "",
            "{",
            "[]",
            r#"{"request_id":"r","backup":{"name":"a"},"if_exists":"x"}"#,
            r#"{"request_id":"","backup":{"name":"a"},"target_db":"d"}"#,
            r#"{"request_id":null,"backup":{"name":"a"},"target_db":"d"}"#,
            r#"{"request_id":"r","backup":{"name":"a","dsn":"x"}}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"on_existing":"drop"}"#,
        ] {
            let e = RestoreRequest::from_message(bad.as_bytes(), &none).unwrap_err();
            assert_eq!(e.reason(), FailureReason::InvalidRequest, "{bad}");
        }
        for bad in [
            r#"{"backup":{"name":"a"},"target_db":"d"}"#,
            r#"{"request_id":"r","backup":{},"target_db":"d"}"#,
            r#"{"request_id":"r","backup":{"name":"a","uri":"gs://bkt/a"},"target_db":"d"}"#,
            r#"{"request_id":"r","backup":{"name":"a"}}"#,
            r#"{"request_id":"r","backup":{"name":"a","generation":"x"},"target_db":"d"}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"target_db":"d","jobs":0}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"target_db":"d","jobs":257}"#,
            r#"{"request_id":"r\nx","backup":{"name":"a"},"target_db":"d"}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"target_db":"d","finish":["../a.sql"]}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"mode":"verify","finish":["a.sql"]}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"mode":"rehearse","finish":["a.sql"]}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"target_db":"d","finish_checks":"../a.yaml"}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"mode":"verify","finish_checks":"a.yaml"}"#,
            r#"{"request_id":"r","backup":{"name":"a"},"target_db":"d","depth":"object"}"#,
            r#"{"request_id":"r","mode":"verify","backup":{"name":"a"},"target_db":"d"}"#,
            r#"{"request_id":"r","mode":"verify","backup":{"name":"a"},"on_existing":"replace"}"#,
            r#"{"request_id":"r","mode":"verify","backup":{"name":"a"},"select":{"schema_only":true}}"#,
        ] {
            let request = RestoreRequest::from_message(bad.as_bytes(), &none).unwrap();
            assert_eq!(
                request.into_job(None).unwrap_err().reason(),
                FailureReason::InvalidRequest,
                "{bad}"
            );
        }
        let old = attrs(&[("ce-specversion", "0.3"), ("ce-type", REQUEST_TYPE)]);
        assert!(RestoreRequest::from_message(BODY.as_bytes(), &old).is_err());
        let other = attrs(&[
            ("ce-specversion", "1.0"),
            ("ce-type", "restore.requested.v2"),
        ]);
        assert!(RestoreRequest::from_message(BODY.as_bytes(), &other).is_err());
    }

    #[test]
    fn strings_that_cannot_be_recorded_are_rejected_everywhere() {
        let ask = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut body: serde_json::Value = serde_json::from_str(BODY).unwrap();
            change(&mut body);
            let request = RestoreRequest::from_message(body.to_string().as_bytes(), &attrs(&[]))?;
            request.into_job(None).map(drop)
        };
        assert!(ask(&|b| b["labels"] = serde_json::json!({ "team": "Zürich 🐘" })).is_ok());
        for bad in [
            "\0",
            "a\0b",
            "\u{1b}[2J",
            "\n",
            "\u{7f}",
            "\u{9b}0m",
            &"x".repeat(MAX_STRING + 1),
        ] {
            let places: [(&str, serde_json::Value); 9] = [
                ("request_id", bad.into()),
                ("target_db", bad.into()),
                ("backup", serde_json::json!({ "name": bad })),
                ("backup", serde_json::json!({ "name": "a", "crc32c": bad })),
                ("labels", serde_json::json!({ "a": bad })),
                ("labels", serde_json::json!({ bad: "a" })),
                ("select", serde_json::json!({ "tables": ["ok", bad] })),
                (
                    "select",
                    serde_json::json!({ "rename_schemas": { "a": bad } }),
                ),
                (
                    "select",
                    serde_json::json!({ "rename_schemas": { bad: "a" } }),
                ),
            ];
            for (field, value) in places {
                let e = ask(&|b| b[field] = value.clone()).unwrap_err();
                assert_eq!(
                    e.reason(),
                    FailureReason::InvalidRequest,
                    "{field}: {value}"
                );
                assert!(!e.to_string().chars().any(char::is_control), "{e}");
            }
        }
        let many: BTreeMap<String, String> = (0..MAX_STRINGS)
            .map(|i| (i.to_string(), String::new()))
            .collect();
        assert!(ask(&|b| b["labels"] = serde_json::json!(many)).is_err());
        // Lone surrogates and deep nesting are rejected.
        for bad in [
            r#""\ud800""#.to_owned(),
            r#""\udc00\ud800""#.to_owned(),
            "[".repeat(5000) + &"]".repeat(5000),
        ] {
            let body = BODY.replace(r#""a.dump""#, &bad);
            assert!(
                RestoreRequest::from_message(body.as_bytes(), &attrs(&[])).is_err(),
                "{bad:.20}"
            );
        }
        let odd = attrs(&[
            ("ce-id", "a\0"),
            ("ce-specversion", "1.0"),
            ("ce-type", REQUEST_TYPE),
        ]);
        assert!(RestoreRequest::from_message(BODY.as_bytes(), &odd).is_err());
    }

    #[test]
    fn a_result_can_always_be_published() {
        let t: jiff::Timestamp = "2026-11-22T05:00:00Z".parse().unwrap();
        let huge = "\u{1b}é".repeat(5_000);
        let mut result =
            RestoreResult::failure(&"é".repeat(100), &invalid(&huge), Stage::Data, (t, t));
        result.notes = vec![huge.clone(); 300];
        let rewrite = Rewrite {
            rule: "r".into(),
            what: huge.clone(),
            count: 1,
            examples: vec![huge; 50],
        };
        result.rewrites = vec![rewrite; 300];
        result.bound();
        let message = result.to_message().unwrap();
        assert!(message.data.len() < 5_000_000, "{}", message.data.len());
        assert!(
            message
                .attributes
                .values()
                .all(|v| v.len() <= MAX_ATTRIBUTE_BYTES)
        );
        let mut again = result.clone();
        again.bound();
        assert!(again == result, "bounding a bounded result changed it");
        let reduced = result.reduced("INVALID_ARGUMENT");
        assert!(reduced.to_message().unwrap().data.len() < 10_000);
        assert_eq!(
            (reduced.status, &reduced.request_id),
            (result.status, &result.request_id)
        );
    }

    #[test]
    fn sizes_are_limited() {
        let id = |n: usize| {
            let body = format!(
                r#"{{"request_id":"{}","backup":{{"name":"a"}}}}"#,
                "x".repeat(n)
            );
            let request = RestoreRequest::from_message(body.as_bytes(), &attrs(&[])).unwrap();
            request.into_job(Some("d"))
        };
        assert!(id(200).is_ok() && id(201).is_err());
        let padded = |n: usize| format!("{BODY}{}", " ".repeat(n - BODY.len()));
        let read = |n: usize| RestoreRequest::from_message(padded(n).as_bytes(), &attrs(&[]));
        assert!(read(MAX_REQUEST_BYTES).is_ok() && read(MAX_REQUEST_BYTES + 1).is_err());
    }

    #[test]
    fn the_digest_ignores_formatting() {
        let digest = |body: &str| {
            RestoreRequest::from_message(body.as_bytes(), &attrs(&[]))
                .unwrap()
                .digest()
        };
        let spaced = r#"{ "target_db": "app", "backup": {"name":"a.dump"}, "request_id":"r1" }"#;
        assert_eq!(digest(BODY), digest(spaced));
        assert_ne!(digest(BODY), digest(&BODY.replace("a.dump", "b.dump")));
        assert_eq!(digest(BODY).len(), 64);
    }

    #[test]
    fn a_job_matches_its_request() {
        let job = |body: &str| {
            let request = RestoreRequest::from_message(body.as_bytes(), &attrs(&[])).unwrap();
            request.into_job(None).unwrap()
        };
        let mut restore = job(BODY);
        restore.delivered(5, 3);
        assert_eq!(
            (restore.request_id(), restore.target_db(), restore.attempt()),
            ("r1", Some("app"), 3)
        );
        let mut proof = job(r#"{"request_id":"v1","mode":"verify","backup":{"uri":"gs://bkt/a"}}"#);
        proof.delivered(5, 2);
        assert_eq!(
            (proof.request_id(), proof.target_db(), proof.attempt()),
            ("v1", None, 2)
        );
        assert_eq!(proof.backup(), &BackupRef::from_uri("gs://bkt/a").unwrap());
    }

    #[test]
    fn a_rehearsal_has_no_target_and_names_all() {
        let job = |more: &str| {
            let body = format!(r#"{{"request_id":"r","backup":{{"name":"a"}}{more}}}"#);
            let request: RestoreRequest = serde_json::from_str(&body).unwrap();
            request.into_job(None)
        };
        let rehearsal = job(r#","mode":"rehearse""#).unwrap();
        assert!(rehearsal.is_rehearsal());
        assert_eq!(rehearsal.target_db(), None);
        assert_eq!(Kind::of(&rehearsal), Kind::Rehearsal);
        for more in [
            r#""target_db":"app""#,
            r#""on_error":"skip""#,
            r#""on_existing":"replace""#,
            r#""select":{"data_only":true}"#,
        ] {
            let refused = job(&format!(r#","mode":"rehearse",{more}"#));
            assert_eq!(
                refused.unwrap_err().reason(),
                FailureReason::InvalidRequest,
                "{more}"
            );
        }
        let Job::Restore(restore) = job(r#","target_db":"app","on_error":"skip""#).unwrap() else {
            panic!("a restore is wanted");
        };
        assert_eq!(restore.on_error, Some(OnError::Skip));
        assert!(job(r#","mode":"verify","on_error":"skip""#).is_err());
    }

    #[test]
    fn a_result_lists_only_the_first_refusals() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let refusal = Refusal {
            entry: "TABLE t".to_owned(),
            sqlstate: None,
            message: "no".repeat(1000),
            root: "TABLE t".to_owned(),
            caused_by: None,
        };
        let mut result = RestoreResult::new("r", (now, now));
        result.skipped = vec![refusal; LISTED_REFUSALS + 1];
        result.skipped_total = result.skipped.len() as u64;
        result.bound();
        assert_eq!(result.skipped.len(), LISTED_REFUSALS);
        assert_eq!(result.skipped_total, LISTED_REFUSALS as u64 + 1);
        assert!(result.skipped[0].message.len() <= REDUCED_TEXT);
        assert!(result.reduced("x").skipped.is_empty());
    }

    #[test]
    fn a_notification_is_recognized_by_its_attributes() {
        let a = attrs(&[
            (
                "notificationConfig",
                "projects/_/buckets/b/notificationConfigs/1",
            ),
            ("eventType", "OBJECT_FINALIZE"),
            ("bucketId", "b"),
            ("objectId", "x/y.dump"),
            ("objectGeneration", "17"),
        ]);
        assert_eq!(
            GcsNotification::from_attributes(&a).unwrap().request_id(),
            "gcs:b/x/y.dump#17"
        );
        assert!(GcsNotification::from_attributes(&attrs(&[("eventType", "x")])).is_none());
    }

    #[test]
    fn a_result_tells_what_it_continued() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut result = RestoreResult::new("r", (now, now));
        let field = |r: &RestoreResult| serde_json::to_value(r).unwrap()["resumed_from"].take();
        assert!(field(&result).is_null());
        result.resumed_from = Some(ResumedFrom {
            attempt: 2,
            bytes: 41_200_000_000,
            rows: 7,
            seconds_saved: 2160.5,
        });
        let wanted = serde_json::json!({
            "attempt": 2, "bytes": 41_200_000_000_u64, "rows": 7, "seconds_saved": 2160.5
        });
        assert_eq!(field(&result), wanted);
        let again: RestoreResult =
            serde_json::from_slice(&result.reduced("x").to_message().unwrap().data).unwrap();
        assert_eq!(again.resumed_from, result.resumed_from);
    }

    /// A message is delivered again; what nobody delivers again is kept only if a person asks for it.
    #[test]
    fn the_work_of_a_request_is_kept_for_its_redelivery() {
        let request = RestoreRequest::from_message(BODY.as_bytes(), &attrs(&[])).unwrap();
        let Job::Restore(job) = request.into_job(None).unwrap() else {
            panic!("a restore is wanted");
        };
        assert_eq!(job.keep, KeepProgress::ForRedelivery);
        let command = RestoreJob::replacing("r", "app", String::new());
        assert_eq!(command.keep, KeepProgress::Never);
    }

    #[test]
    fn a_result_always_has_the_same_event_id() {
        let t: jiff::Timestamp = "2026-11-22T05:00:00Z".parse().unwrap();
        let e = invalid("x");
        let message = RestoreResult::failure("r1", &e, Stage::Request, (t, t))
            .to_message()
            .unwrap();
        let again = RestoreResult::failure("r1", &e, Stage::Request, (t, t))
            .to_message()
            .unwrap();
        assert_eq!(message.attributes, again.attributes);
        assert_eq!(message.attributes["failure_reason"], "invalid_request");
        assert_eq!(message.attributes["status"], "failure");
        assert_eq!(message.attributes["kind"], "restore");
    }

    #[test]
    fn latest_is_of_the_requested_database() {
        let request = r#"{"request_id":"1","target_db":"copy","backup":{"name":"latest-proven","database":"shop"}}"#;
        let request: RestoreRequest = serde_json::from_str(request).unwrap();
        let job = request.into_job(None).unwrap();
        let wanted = BackupRef::from_name("latest-proven", "").unwrap();
        assert_eq!(job.backup(), &wanted.of_database(Some("shop")));
    }
}

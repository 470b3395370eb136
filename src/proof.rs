//! The report of a verification, as evidence contains it. Readers ignore unknown fields. Reports contain
//! no row data, only counts, digests and times.

mod bisection;
mod contents;
mod listed_tables;
mod members;
mod origin;
mod verdict_sentence;

use std::collections::BTreeMap;

use crate::error::{Blame, ErrorBody, FailureReason, bound_list, one_line};
use crate::job::{Completeness, ResultBackup};
use crate::policy::{Depth, Rewrite};

pub use crate::policy::Trigger;
pub use bisection::{Bisection, Probe};
pub use contents::BackupContents;
pub use listed_tables::{ListedTables, name_parts, plain_name, without_digits};
pub use members::{BackupMember, MembersProof};
pub use origin::{BackupOrigin, pattern_of};

/// Suffix of our own folders beside a backup.
pub const EVIDENCE_SUFFIX: &str = ".pgrestored/";

/// Whether an object was written by this program and is not a backup.
pub fn is_ours(name: &str) -> bool {
    name.contains(EVIDENCE_SUFFIX)
}

/// Verdict of a verification; what could not be checked is `inconclusive`, never `verified`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Verified,
    Failed,
    Inconclusive,
}

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    Passed,
    Failed,
    /// Worth knowing, but not a failure.
    Warned,
    /// Could not be checked; never a pass.
    NotChecked,
}

/// One check and its result.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Check {
    /// Such as `rows`, `entries`, `amcheck`, `freshness`.
    pub name: String,
    /// What was checked, if there are several checks of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub status: CheckStatus,
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// If a required check could not be made, the verdict is `inconclusive`.
    pub required: bool,
    pub seconds: f64,
    /// Why it could not be checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
}

impl Check {
    pub fn new(name: &str, status: CheckStatus, message: impl Into<String>) -> Self {
        Check {
            name: name.to_owned(),
            subject: None,
            status,
            message: one_line(&message.into()),
            fix: None,
            required: true,
            seconds: 0.0,
            reason: None,
        }
    }

    pub fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(one_line(&subject.into()));
        self
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(one_line(&fix.into()));
        self
    }

    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    pub fn because(mut self, reason: FailureReason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// A human-readable title, such as `rows of shop.orders`.
    pub fn title(&self) -> String {
        self.subject
            .as_ref()
            .map_or_else(|| self.name.clone(), |s| format!("{} of {s}", self.name))
    }
}

/// Smallest and largest value of a column of dates or times, as ISO 8601 in UTC.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Span {
    pub oldest: String,
    pub newest: String,
}

/// A column of a restored table.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct ColumnProof {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    /// Share of rows that are null, from 0 to 1.
    pub nulls: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

/// A table, in the archive and in the restored database.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct TableProof {
    pub name: String,
    /// Rows in the archive.
    pub rows: u64,
    /// Bytes of its rows as COPY text.
    pub bytes: u64,
    /// Sum of the XXH3-128 digests of its rows, in hexadecimal: the same whatever their order.
    pub digest: String,
    /// Rows in the restored table, at depth `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<ColumnProof>,
}

/// How a server is isolated from the machine it runs on.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Isolation {
    /// No network, not even this machine's loopback.
    pub network: bool,
    /// Other processes can be neither seen nor signalled, and none is left when the sandbox ends.
    pub pids: bool,
    /// Files and sockets of this machine are hidden, except those in `visible` and a few lines of `/etc`.
    pub files: bool,
    /// Whether a seccomp filter refuses system calls that a database server never needs.
    #[serde(default)]
    pub seccomp: bool,
    /// Whether an attempt to create another user namespace was refused.
    #[serde(default)]
    pub user_namespaces_closed: bool,
    /// Folders of this machine's programs and libraries that can be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub visible: Vec<String>,
    /// Why something is not isolated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

impl Isolation {
    /// One line that says what is isolated and what is not.
    pub fn summary(&self) -> String {
        if let Some(why) = &self.why_not {
            return format!("NOT isolated from this machine: {why}");
        }
        let isolated = [
            (self.network, "network"),
            (self.pids, "processes"),
            (self.files, "files"),
        ];
        let hidden: Vec<_> = isolated
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, what)| format!("no {what}"))
            .collect();
        let visible = match self.visible.as_slice() {
            [] => String::new(),
            folders => format!(
                " except programs and libraries ({}) and a minimal /etc",
                folders.join(", ")
            ),
        };
        let namespaces = if self.user_namespaces_closed {
            "refused"
        } else {
            "possible"
        };
        let filter = if self.seccomp { "active" } else { "none" };
        format!(
            "{} of this machine{visible}; new user namespaces: {namespaces}; seccomp filter: {filter}",
            hidden.join(", ")
        )
    }

    /// The same in a few words, for a line on a terminal.
    pub fn brief(&self) -> String {
        if self.why_not.is_some() {
            return self.summary();
        }
        let parts = [
            (self.network, "network"),
            (self.pids, "processes"),
            (self.files, "files"),
            (self.user_namespaces_closed, "user namespaces"),
            (self.seccomp, "system calls"),
        ];
        let open: Vec<&str> = parts
            .iter()
            .filter(|(is, _)| !is)
            .map(|(_, what)| *what)
            .collect();
        match open.as_slice() {
            [] => "isolated from this machine".to_owned(),
            open => format!("isolated from this machine, except for {}", open.join(", ")),
        }
    }
}

/// The server that a backup was restored into.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct ServerProof {
    /// `sandbox` or `scratch server`
    pub kind: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// What the archive's header and table of contents say.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct ArchiveProof {
    pub format: String,
    pub wrapped_in: Vec<String>,
    pub server_version: String,
    pub pg_dump_version: String,
    pub encoding: String,
    /// Number of entries of each kind.
    pub entries: BTreeMap<String, u64>,
}

/// How long a restore takes.
#[derive(
    Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Rto {
    /// From the first byte to a loaded database, this time.
    pub measured_seconds: f64,
    /// How long the next restore of the set is likely to take.
    pub forecast_seconds: f64,
    /// Number of restores that the forecast is based on.
    pub samples: u32,
}

/// How long the restore of a proven backup took: a point of a set's trend.
#[derive(
    Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct RestoreSample {
    pub finished_at: jiff::Timestamp,
    pub measured_seconds: f64,
    /// Uncompressed bytes of table data and large objects.
    pub bytes: u64,
}

/// Where the evidence of a verification is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvidenceRef {
    /// `gs://…` or `file://…`
    pub uri: String,
    /// Id of the key that signed it: SHA-256 of the public key in DER, in hexadecimal. `None` if no trusted key did.
    pub signed_by: Option<String>,
}

/// Differences from the last proven backups of the set.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Drift {
    /// Generation of the last proven backup.
    pub compared_with: String,
    /// Number of proven backups that the expected ranges are based on.
    pub samples: u32,
    pub findings: Vec<String>,
}

/// The complete report of a verification.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ProofReport")]
pub struct VerificationReport {
    pub request_id: String,
    pub trigger: Trigger,
    pub verdict: Verdict,
    pub depth_requested: Depth,
    /// The depth that was reached without a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    pub backup: ResultBackup,
    /// What was asked for, where no backup was found; of standard input, nothing.
    #[serde(skip)]
    pub asked: Option<String>,
    /// When the object was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_created: Option<jiff::Timestamp>,
    pub backup_set: String,
    /// Name of the dumped database, if the dump contains it. In a set with several databases, each is
    /// compared with its own backups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The backup is of a whole cluster, and `database` is the only one of its databases that was looked at: nothing is
    /// proven of the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_of_several: bool,
    /// What of a database the backup holds; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<BackupContents>,
    /// Tables and sequences that the backup defines without their data, if it lacks that of some: `schema.name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_data: Vec<String>,
    /// Number of further ones that are not in `without_data`, because there are too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub without_data_left_out: u64,
    /// SHA-256 of the object's bytes, in hexadecimal; for a directory dump, of its `toc.dat` (`members` has all objects).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The objects of a directory dump, or the pieces of a split file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<MembersProof>,
    pub started_at: jiff::Timestamp,
    pub finished_at: jiff::Timestamp,
    pub duration_seconds: f64,
    pub stages: BTreeMap<String, f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Rto>,
    /// The restores of earlier proven backups of the set and database, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trend: Vec<RestoreSample>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveProof>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerProof>,
    pub tables: Vec<TableProof>,
    /// Number of the smallest tables that are not in `tables`, because the document would be too long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tables_left_out: u64,
    pub large_objects: u64,
    pub rows: u64,
    /// Uncompressed bytes of table data and large objects.
    pub bytes: u64,
    pub checks: Vec<Check>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewrites: Vec<Rewrite>,
    /// Whether the backup showed that it is complete, once it was read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
    /// The root cause of a verdict that is not `verified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bisection: Option<Bisection>,
    pub worker_version: String,
}

/// Summary of a verification in its result event; the evidence has the rest.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct VerificationSummary {
    pub trigger: Trigger,
    pub backup_set: String,
    pub depth_requested: Depth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What of a database the backup holds; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<BackupContents>,
    /// URI of the evidence, if it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Id of the key that signed the evidence: SHA-256 of the public key in DER, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_by: Option<String>,
    /// Checks that did not pass.
    pub findings: Vec<Check>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Rto>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bisection: Option<Bisection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
}

/// How the note begins that the evidence of a verification could not be written.
pub const EVIDENCE_NOT_WRITTEN: &str = "the evidence was not written";

/// How the note begins that one database of several was looked at.
pub const ONE_OF_SEVERAL: &str = "only database ";

/// How the note begins that not all tables are in the document.
pub const TABLES_LEFT_OUT: &str = "the report is too long for its document: only the ";

/// Most findings in an event; the evidence has more.
const FINDINGS: usize = 50;
/// Most checks, and most findings of drift, in the evidence.
const CHECKS: usize = 2000;
/// Most notes, and most probes and left-out backups of a bisection.
const LISTED: usize = 100;

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl VerificationSummary {
    /// Limits the lists and texts that grow with the backup.
    pub fn bound(&mut self) {
        self.findings.truncate(FINDINGS);
        for check in &mut self.findings {
            check.message = one_line(&check.message);
            check.subject = check.subject.as_deref().map(one_line);
            check.fix = check.fix.as_deref().map(one_line);
        }
        self.fix = self.fix.as_deref().map(one_line);
        if let Some(bisection) = &mut self.bisection {
            bisection.probes.truncate(LISTED);
            bisection.left_out.truncate(LISTED);
        }
    }
}

impl VerificationReport {
    /// A report that is still inconclusive, with nothing checked.
    pub fn new(request_id: &str, trigger: Trigger, depth: Depth, started: jiff::Timestamp) -> Self {
        VerificationReport {
            request_id: request_id.to_owned(),
            trigger,
            verdict: Verdict::Inconclusive,
            depth_requested: depth,
            depth: None,
            backup: ResultBackup::default(),
            asked: None,
            backup_created: None,
            backup_set: String::new(),
            database: None,
            one_of_several: false,
            contents: None,
            without_data: vec![],
            without_data_left_out: 0,
            sha256: None,
            members: None,
            started_at: started,
            finished_at: started,
            duration_seconds: 0.0,
            stages: BTreeMap::new(),
            rto: None,
            trend: vec![],
            archive: None,
            server: None,
            tables: vec![],
            tables_left_out: 0,
            large_objects: 0,
            rows: 0,
            bytes: 0,
            checks: vec![],
            drift: None,
            notes: vec![],
            rewrites: vec![],
            completeness: None,
            error: None,
            fix: None,
            bisection: None,
            worker_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Limits the lists and texts that grow with the backup or the server, except the list of tables.
    pub fn bound(&mut self) {
        // Passed checks are dropped first.
        if self.checks.len() > CHECKS {
            self.checks.sort_by_key(|c| c.status == CheckStatus::Passed);
            self.checks.truncate(CHECKS);
            self.notes
                .push(format!("only the first {CHECKS} checks are listed"));
        }
        bound_list(&mut self.notes, LISTED);
        if let Some(drift) = &mut self.drift {
            bound_list(&mut drift.findings, CHECKS);
        }
        self.fix = self.fix.as_deref().map(one_line);
    }

    /// The summary for the result event.
    pub fn summary(&self, evidence: Option<EvidenceRef>) -> VerificationSummary {
        let (evidence, signed_by) = evidence.map_or((None, None), |e| (Some(e.uri), e.signed_by));
        let findings = self
            .checks
            .iter()
            .filter(|c| c.status != CheckStatus::Passed);
        VerificationSummary {
            trigger: self.trigger,
            backup_set: self.backup_set.clone(),
            depth_requested: self.depth_requested,
            depth: self.depth,
            database: self.database.clone(),
            contents: self.contents,
            evidence,
            signed_by,
            findings: findings.take(FINDINGS).cloned().collect(),
            rto: self.rto,
            fix: self.fix.clone(),
            bisection: self.bisection.clone(),
            isolation: self.server.as_ref().and_then(|s| s.isolation.clone()),
        }
    }

    pub fn is_verified(&self) -> bool {
        self.verdict == Verdict::Verified
    }

    /// Whether the backup was restored and verified. A shallower verification is not a proof: it does not
    /// count for freshness, retention or the schedule.
    pub fn is_proof(&self) -> bool {
        self.is_verified() && self.depth >= Some(Depth::Restore)
    }

    /// How long the restore took, if it was one of a proven backup.
    pub fn sample(&self) -> Option<RestoreSample> {
        let rto = self.rto.filter(|_| self.is_proof())?;
        Some(RestoreSample {
            finished_at: self.finished_at,
            measured_seconds: rto.measured_seconds,
            bytes: self.bytes,
        })
    }

    /// What the report is about, for people.
    pub fn about(&self) -> &str {
        let known = self.backup.uri.as_ref().or(self.asked.as_ref());
        known.map_or("standard input", String::as_str)
    }

    /// Name and generation of the backup that the report is about.
    pub fn subject(&self) -> Option<(&str, &str)> {
        Some((
            self.backup.name.as_deref()?,
            self.backup.generation.as_deref()?,
        ))
    }

    /// Which database the backup is from, as far as that is known.
    pub fn origin(&self) -> BackupOrigin {
        if self.is_of_several() {
            return BackupOrigin::Cluster(pattern_of(self.backup_name()));
        }
        self.looked_at()
    }

    /// The database whose rows were looked at, also where it is one of several.
    pub fn looked_at(&self) -> BackupOrigin {
        BackupOrigin::new(self.database.clone(), self.backup_name())
    }

    /// The database that the backup is from, if it names one and has no others.
    pub fn own_database(&self) -> Option<&str> {
        self.database.as_deref().filter(|_| !self.is_of_several())
    }

    /// Whether the backup holds databases that were not looked at. Older evidence says so in a note alone.
    pub fn is_of_several(&self) -> bool {
        self.one_of_several || self.notes.iter().any(|n| n.starts_with(ONE_OF_SEVERAL))
    }

    fn backup_name(&self) -> &str {
        self.backup.name.as_deref().unwrap_or_default()
    }

    /// The report without its long lists, for evaluating many reports.
    pub fn brief(self) -> Self {
        VerificationReport {
            one_of_several: self.is_of_several(),
            tables: vec![],
            without_data: vec![],
            checks: vec![],
            notes: vec![],
            rewrites: vec![],
            stages: BTreeMap::new(),
            trend: vec![],
            drift: None,
            bisection: None,
            ..self
        }
    }

    /// Number of checks with this status.
    pub fn count(&self, status: CheckStatus) -> usize {
        self.checks.iter().filter(|c| c.status == status).count()
    }

    pub fn blame(&self) -> Option<Blame> {
        self.error.as_ref().map(|e| e.blame)
    }
}

/// Advice for a verification that failed for this reason.
pub fn advice(reason: FailureReason) -> Option<&'static str> {
    use FailureReason as R;
    Some(match reason {
        R::ChecksumMismatch => {
            "the object is damaged in the store: restore an earlier generation or another copy, and take a new backup now"
        }
        R::ArchiveCorrupt => {
            "the dump was damaged or truncated before it was uploaded: take a new backup, and check the backup job (a pipe without `set -o pipefail`, a full disk)"
        }
        R::ArchiveUnsupported => {
            "this is not a supported dump: if the bucket contains other files, exclude them with VERIFY_PREFIX and VERIFY_SUFFIX"
        }
        R::DataRejected => {
            "rows of the dump violate a constraint of the dump: correct the rows in the source, and take a new backup"
        }
        R::RestoreError => {
            "an empty server rejects a statement of the dump: fix the named object in the source, and take a new backup"
        }
        R::VerificationFailed => "see the checks that failed",
        R::ExtensionMissing => {
            "install the extension for the server that verifies (PG_BINDIR or the scratch server), and let sandboxes load its \
             library if it has one (SANDBOX_PRELOAD_LIBRARIES); the backup may be good"
        }
        R::RoleMissing => {
            "create the role on the server that verifies, or set RESTORE_CREATE_ROLES; the backup may be good"
        }
        R::VersionIncompatible => {
            "install PostgreSQL of the dump's version for the sandbox (PG_BINDIR), and the locale that the message names; the backup may be good"
        }
        R::InsufficientPrivilege => {
            "grant SCRATCH_DB_USER the missing privileges; the backup may be good"
        }
        R::InsufficientSpace => {
            "give the sandbox more disk space (SANDBOX_DIR); the backup may be good"
        }
        R::TargetUnavailable => {
            "the server that verifies could not be started or reached: see the worker's log"
        }
        R::AccessDenied => {
            "grant the worker's account permission to read the object and to write evidence; for an encrypted backup, configure its age identity"
        }
        R::DownloadFailed => "the object could not be read to the end: try again",
        R::Timeout => {
            "allow more time (RESTORE_TIMEOUT), or verify to a lesser depth (VERIFY_DEPTH)"
        }
        R::BackupNotFound => {
            "the object does not exist, or no longer exists: check the name and BACKUP_BUCKET, or find out what deletes or overwrites it"
        }
        R::BackupChanged => {
            "the object was overwritten while it was read: the new generation is verified separately"
        }
        _ => return None,
    })
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Verified => "verified",
            Verdict::Failed => "failed",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolation_in_a_few_words_names_what_is_open() {
        let all = Isolation {
            network: true,
            pids: true,
            files: true,
            seccomp: true,
            user_namespaces_closed: true,
            visible: vec!["/usr".into()],
            why_not: None,
        };
        assert_eq!(all.brief(), "isolated from this machine");
        let some = Isolation {
            seccomp: false,
            network: false,
            ..all.clone()
        };
        assert_eq!(
            some.brief(),
            "isolated from this machine, except for network, system calls"
        );
        let none = Isolation {
            why_not: Some("unshare: refused".into()),
            ..all
        };
        assert_eq!(none.brief(), none.summary());
    }
}

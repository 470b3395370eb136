//! Restores that can be continued: what the journal knows of one, when it is continued, and why it is not. What an
//! attempt has loaded is recorded in its own database (`WorkRecord`); the journal has the key of that record.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use pgdump_restore::{RecordFault, RecordKey, Tallies, Touched, WorkRecord};
use tokio::time::Instant;

use crate::config::{Config, Resume, format_duration};
use crate::error::{DatabaseError, DatabaseKind, RestoreError, report};
use crate::postgres::AttemptMark;

/// `pg_database.datconnlimit` of a database whose `DROP DATABASE` was interrupted.
const INVALID: i32 = -2;

/// Under which conditions restores are continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeTerms {
    pub mode: Resume,
    /// How long the work of a stopped restore is kept.
    pub within: Duration,
    /// How long a restore must have loaded for its work to be kept.
    pub from: Duration,
}

impl ResumeTerms {
    pub fn of(config: &Config) -> Self {
        ResumeTerms {
            mode: config.resume.mode,
            within: config.resume.within,
            from: config.resume.from,
        }
    }
}

/// How far a restore had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkState {
    /// It loads, or its worker was killed.
    Loading,
    /// Its last attempt has ended in an orderly way.
    Waiting,
    /// Everything is loaded and proven: only the swap is missing.
    Sealed,
}

impl WorkState {
    pub(super) fn parse(text: &str) -> Self {
        match text {
            "sealed" => WorkState::Sealed,
            "waiting" => WorkState::Waiting,
            _ => WorkState::Loading,
        }
    }
}

/// The database that has the name of recorded work now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedDatabase {
    pub oid: u32,
    pub connection_limit: i32,
    /// Whether this role owns it.
    pub is_ours: bool,
    /// Whether its comment says that a restore into the target has made it, and has not ended.
    pub is_marked: bool,
}

/// Work of an earlier attempt that the journal knows of. It is not proven to be there.
pub struct FoundWork {
    /// Name of its database.
    pub name: String,
    pub oid: u32,
    pub state: WorkState,
    /// What it belongs to, in canonical form.
    pub pins: String,
    /// The last attempt that worked on it, from 1.
    pub attempt: u32,
    /// Time since its last sign of life.
    pub age: Duration,
    /// What the last attempt had loaded when it began.
    pub bytes: u64,
    pub rows: u64,
    /// The share of the whole that was done, from 0 to 1.
    pub share: f64,
    /// Sealed: what the result says of the load.
    pub draft: Option<serde_json::Value>,
    /// The request for which its database was dropped.
    pub displaced_by: Option<String>,
    /// The key of its record; `None` if what is stored is none.
    pub(super) key: Option<RecordKey>,
    pub(super) database: Option<NamedDatabase>,
}

impl FoundWork {
    /// The role of `DB_RESTRICTED_USER` that has loaded.
    pub(super) fn loader(&self) -> Option<String> {
        let pins: serde_json::Value = serde_json::from_str(&self.pins).ok()?;
        Some(pins.get("loader")?.as_str()?.to_owned())
    }

    /// Whether its database is there, as it was made, and not already another one of its name.
    pub(super) fn is_there(&self, target: &str) -> bool {
        // Under the target's own name, a database without that comment may be in use. Beside it, somebody has only commented.
        let is_unfinished = |d: &NamedDatabase| d.is_marked || self.name != target;
        let is_it = |d: &NamedDatabase| {
            d.oid == self.oid && d.is_ours && d.connection_limit != INVALID && is_unfinished(d)
        };
        self.database.as_ref().is_some_and(is_it)
    }

    /// Why it is not continued, as far as the journal and the catalog say.
    pub fn obstacle(&self, target: &str, terms: ResumeTerms) -> Option<NotContinued> {
        if terms.mode == Resume::Never {
            return Some(NotContinued::Never);
        }
        if let Some(by) = &self.displaced_by {
            return Some(NotContinued::Displaced(by.clone(), self.rows));
        }
        if !self.is_there(target) {
            return Some(NotContinued::Gone);
        }
        (self.age > terms.within).then_some(NotContinued::TooOld(self.age, terms.within))
    }
}

/// What an attempt has loaded, with those that it continued.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct WorkDone {
    pub bytes: u64,
    pub rows: u64,
    /// The share of the whole, from 0 to 1.
    pub share: f64,
}

/// Why a restore begins from the start, although an earlier attempt has left work.
#[derive(Debug, Clone, PartialEq)]
pub enum NotContinued {
    /// RESTORE_RESUME=never.
    Never,
    /// Its age, and how old it may be.
    TooOld(Duration, Duration),
    OtherBackup,
    OtherRequest,
    /// The version of the program that began it.
    OtherProgram(String),
    OtherPlan,
    OtherPolicy,
    OtherMask,
    OtherServer,
    /// The record of the work is not as it was written.
    Edited(String),
    /// A table, how many rows of the load it should have and has, and how many others it has.
    Touched {
        table: String,
        expected: u64,
        found: u64,
        others: u64,
    },
    /// Something was done of which nothing says whether it was done completely.
    Incomplete(String),
    /// What was done is not what the record says: the error of the attempt that went on.
    Contradicted(String),
    /// Why this attempt records nothing that could be added to.
    NotRecorded(String),
    /// The request that its database was dropped for, and how many rows it had.
    Displaced(String, u64),
    /// The database or its record is gone.
    Gone,
    Unreadable(String),
}

impl fmt::Display for NotContinued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use NotContinued as N;
        let seconds = |d: &Duration| Duration::from_secs(d.as_secs());
        match self {
            N::Never => f.write_str("RESTORE_RESUME is never"),
            N::TooOld(age, limit) => write!(
                f,
                "the last attempt ended {} ago, and its work is kept for {} (RESTORE_RESUME_FOR)",
                format_duration(seconds(age)),
                format_duration(*limit)
            ),
            N::OtherBackup => {
                f.write_str("the earlier attempt restored another backup or another version of it")
            }
            N::OtherRequest => f.write_str("the earlier attempt was of another request"),
            N::OtherProgram(version) => write!(
                f,
                "the earlier attempt was made by version {version} of pgrestored"
            ),
            N::OtherPlan => f.write_str("what is restored of the backup has changed"),
            N::OtherPolicy => f.write_str(
                "the policy, the selection, the trust or the SQL that finishes the restore has changed",
            ),
            N::OtherMask => f.write_str("the masking rules or their key have changed"),
            N::OtherServer => f.write_str(
                "the server's version, the database's name or encoding, or the role that loads has changed",
            ),
            N::Edited(what) => write!(f, "the record of the earlier attempts was changed: {what}"),
            N::Touched {
                table,
                expected,
                found,
                others,
            } => write!(
                f,
                "table {table} was changed by somebody else: it has {found} of the {expected} rows that were loaded, and {others} that were not"
            ),
            N::Incomplete(what) => {
                write!(f, "the earlier attempt stopped where it cannot be continued: {what}")
            }
            N::Contradicted(error) => write!(
                f,
                "the record of the earlier attempts does not match what is in the database: {error}"
            ),
            N::NotRecorded(why) => write!(f, "its work is not recorded: {why}"),
            N::Displaced(by, rows) => write!(
                f,
                "request {by} took the name of the database, and the {rows} rows that were loaded were dropped"
            ),
            N::Gone => {
                f.write_str("the database of the earlier attempt, or its record in it, is gone")
            }
            N::Unreadable(why) => {
                write!(f, "the record of the earlier attempts cannot be read: {why}")
            }
        }
    }
}

impl From<Touched> for NotContinued {
    fn from(touched: Touched) -> Self {
        NotContinued::Touched {
            table: touched.table,
            expected: touched.expected,
            found: touched.found,
            others: touched.others,
        }
    }
}

impl From<RecordFault> for NotContinued {
    fn from(fault: RecordFault) -> Self {
        match fault {
            RecordFault::Edited(what) => NotContinued::Edited(what),
            RecordFault::Incomplete(what) => NotContinued::Incomplete(what),
            RecordFault::Gone => NotContinued::Gone,
        }
    }
}

/// What an error says about the record that was being read.
///
/// # Errors
/// `e` itself, if it says nothing: the connection was lost, or there was none.
pub(super) fn reason_of(e: DatabaseError) -> Result<NotContinued, RestoreError> {
    use DatabaseKind as D;
    match e.kind() {
        D::Busy
        | D::Unavailable
        | D::IssuerUnavailable
        | D::AccessDenied
        | D::NoPassword
        | D::MaintenanceMissing
        | D::LocksExhausted
        | D::InsufficientSpace
        | D::NoAnswer => Err(e.into()),
        // No such schema, table or function.
        _ if matches!(e.sqlstate(), Some("3F000" | "42P01" | "42883")) => Ok(NotContinued::Gone),
        _ => Ok(NotContinued::Unreadable(report(&e))),
    }
}

/// The work of this attempt.
pub(super) struct BegunWork {
    /// Its database.
    pub name: String,
    pub oid: u32,
    /// The database's comment, which names this attempt.
    pub mark: Option<AttemptMark>,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    pub record: Arc<WorkRecord>,
    pub began: Instant,
    /// A role that was made for this restore alone.
    pub temporary_role: Option<String>,
    /// What the attempts before it had loaded.
    before: WorkDone,
    is_sealed: AtomicBool,
    /// What the journal is told when the record begins; `None` for a record that had begun before.
    pub new: Option<NewRecord>,
    /// Whether the journal has the key of its record.
    is_stored: AtomicBool,
    /// Why the journal could not be told of a record that is in the database.
    untold: Mutex<Option<String>>,
    /// Held by whoever begins or ends the record.
    pub storing: tokio::sync::Mutex<()>,
    ended_record: Mutex<Option<EndedRecord>>,
}

/// What begins a record.
pub(super) struct NewRecord {
    /// What it belongs to, in canonical form.
    pub pins: String,
    pub key: RecordKey,
    /// It is kept for a person, not for a redelivery.
    pub by_command: bool,
    /// How long the restore must have loaded.
    pub from: Duration,
}

/// What a record said of the rows when it was dropped, if it said all of it; and a transaction of then, if SQL follows that
/// may change them.
pub(super) type EndedRecord = (Option<Tallies>, Option<u64>);

impl BegunWork {
    pub(super) fn new(
        (name, oid, mark): (&str, u32, Option<AttemptMark>),
        attempt: i32,
        (record, before): (Arc<WorkRecord>, WorkDone),
        temporary_role: Option<String>,
    ) -> Self {
        BegunWork {
            name: name.to_owned(),
            oid,
            mark,
            attempt,
            record,
            began: Instant::now(),
            temporary_role,
            before,
            is_sealed: AtomicBool::new(false),
            new: None,
            is_stored: AtomicBool::new(true),
            untold: Mutex::default(),
            storing: tokio::sync::Mutex::default(),
            ended_record: Mutex::default(),
        }
    }

    /// The same, with a record that has not begun.
    pub(super) fn beginning(self, new: NewRecord) -> Self {
        BegunWork {
            new: Some(new),
            is_stored: AtomicBool::new(false),
            ..self
        }
    }

    /// Whether its record is in memory, and can be stored.
    pub(super) fn is_held(&self) -> bool {
        !self.may_be_stored() && self.record.is_held()
    }

    /// Whether its record is in the database, and the journal lacks its key.
    pub(super) fn is_untold(&self) -> bool {
        !self.is_stored() && self.record.is_on() && !self.record.is_held()
    }

    /// Whether there is something to do for its record to be kept.
    pub(super) fn is_to_be_stored(&self) -> bool {
        self.is_held() || self.is_untold()
    }

    /// The journal has its key, or why it could not be told. Returns whether that is new.
    pub(super) fn set_told(&self, told: Result<(), String>) -> bool {
        self.is_stored.store(told.is_ok(), Relaxed);
        let why = told.err();
        let before = std::mem::replace(&mut *self.untold.lock(), why.clone());
        before != why
    }

    /// Whether the journal has its key.
    pub(super) fn is_stored(&self) -> bool {
        self.is_stored.load(Relaxed)
    }

    /// Whether its database may have a record that nobody will continue.
    pub(super) fn is_half_stored(&self) -> bool {
        !self.is_stored() && self.may_be_stored()
    }

    /// Whether its database may have a record.
    pub(super) fn may_be_stored(&self) -> bool {
        self.record.may_be_in_database()
    }

    /// Why it cannot be kept, if it was to be recorded.
    pub(super) fn why_not_kept(&self) -> Option<String> {
        let untold = || self.untold.lock().clone();
        self.record.why_not_begun().or_else(untold)
    }

    /// Whether another attempt can continue it, at once or once the record is stored.
    pub(super) fn can_be_kept(&self) -> bool {
        let is_whole = !self.is_half_stored() && self.record.why_not_begun().is_none();
        self.is_sealed() || self.record.is_on() && (is_whole || self.is_untold())
    }

    /// What is loaded and committed, with what the attempts before it had loaded.
    pub(super) fn done(&self, share: f64) -> WorkDone {
        let (bytes, rows) = self.record.committed_amounts();
        WorkDone {
            bytes: self.before.bytes + bytes,
            rows: self.before.rows + rows,
            share,
        }
    }

    /// The record is dropped before everything that follows the load is done.
    pub(super) fn keep_tallies(&self, ended: EndedRecord) {
        *self.ended_record.lock() = Some(ended);
    }

    /// What was kept of a record that was dropped so.
    pub(super) fn kept_tallies(&self) -> Option<EndedRecord> {
        self.ended_record.lock().clone()
    }

    pub(super) fn set_sealed(&self) {
        self.is_sealed.store(true, Relaxed);
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.is_sealed.load(Relaxed)
    }
}

/// What is known of work that can be continued under a claim.
#[derive(Default)]
pub(super) enum ClaimedWork {
    /// There is none.
    #[default]
    Nothing,
    /// The journal was not asked yet.
    Unknown,
    /// An earlier attempt has left some, which this one has not taken over yet.
    Found(Arc<FoundWork>),
    /// This attempt records its own.
    Begun(Arc<BegunWork>),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> FoundWork {
        FoundWork {
            name: "pgrestored_s_1".into(),
            oid: 7,
            state: WorkState::Waiting,
            pins: r#"{"loader":"loads"}"#.into(),
            attempt: 2,
            age: Duration::from_secs(60),
            bytes: 0,
            rows: 0,
            share: 0.0,
            draft: None,
            displaced_by: None,
            key: None,
            database: Some(NamedDatabase {
                oid: 7,
                connection_limit: -1,
                is_ours: true,
                is_marked: true,
            }),
        }
    }

    const TERMS: ResumeTerms = ResumeTerms {
        mode: Resume::Auto,
        within: Duration::from_secs(3600),
        from: Duration::ZERO,
    };

    /// Nothing was written into its database, so nothing is to be removed from there.
    #[tokio::test]
    async fn a_record_that_never_began_is_not_half_stored() {
        let attempt = uuid::Uuid::nil();
        let key = RecordKey::random();
        let record = WorkRecord::held(key.clone(), attempt);
        let work = (record.clone(), WorkDone::default());
        let begun = BegunWork::new(("s", 1, None), 1, work, None).beginning(NewRecord {
            pins: String::new(),
            key,
            by_command: false,
            from: Duration::ZERO,
        });
        assert!(begun.is_held() && begun.is_to_be_stored() && begun.can_be_kept());
        assert!(!begun.may_be_stored() && !begun.is_untold());
        record.end_held("no").await;
        assert!(!begun.is_to_be_stored() && !begun.can_be_kept());
        assert!(!begun.is_half_stored() && !begun.may_be_stored());
        assert_eq!(begun.why_not_kept().as_deref(), Some("no"));
    }

    #[test]
    fn the_journal_is_told_again() {
        let work = (WorkRecord::off(), WorkDone::default());
        let begun = BegunWork::new(("s", 1, None), 1, work, None);
        let refused = || Err("refused".to_owned());
        assert!(begun.set_told(refused()) && !begun.set_told(refused()));
        assert_eq!(begun.why_not_kept().as_deref(), Some("refused"));
        assert!(!begun.is_stored());
        assert!(begun.set_told(Ok(())));
        assert!(begun.is_stored() && begun.why_not_kept().is_none());
    }

    #[test]
    fn only_the_database_that_an_attempt_made_is_continued() {
        let with = |change: fn(&mut NamedDatabase)| {
            let mut found = found();
            if let Some(database) = &mut found.database {
                change(database);
            }
            found.obstacle("app", TERMS)
        };
        assert_eq!(with(|_| {}), None);
        let changes: [fn(&mut NamedDatabase); 3] = [
            |d| d.oid = 8,
            |d| d.is_ours = false,
            |d| d.connection_limit = -2,
        ];
        for change in changes {
            assert_eq!(with(change), Some(NotContinued::Gone));
        }
        let dropped = FoundWork {
            database: None,
            ..found()
        };
        assert_eq!(dropped.obstacle("app", TERMS), Some(NotContinued::Gone));
    }

    #[test]
    fn a_comment_of_somebody_else_matters_only_under_the_targets_name() {
        let commented = |name: &str| {
            let mut found = FoundWork {
                name: name.into(),
                ..found()
            };
            if let Some(database) = &mut found.database {
                database.is_marked = false;
            }
            found.obstacle("app", TERMS)
        };
        assert_eq!(commented("pgrestored_s_1"), None);
        assert_eq!(commented("app"), Some(NotContinued::Gone));
    }

    #[test]
    fn old_work_is_not_continued() {
        let aged = |seconds| FoundWork {
            age: Duration::from_secs(seconds),
            ..found()
        };
        assert_eq!(aged(3600).obstacle("app", TERMS), None);
        let why = aged(3601).obstacle("app", TERMS).unwrap().to_string();
        assert_eq!(
            why,
            "the last attempt ended 3601s ago, and its work is kept for 1h (RESTORE_RESUME_FOR)"
        );
        let never = ResumeTerms {
            mode: Resume::Never,
            ..TERMS
        };
        assert_eq!(found().obstacle("app", never), Some(NotContinued::Never));
    }

    #[test]
    fn the_role_that_has_loaded_is_known() {
        assert_eq!(found().loader().as_deref(), Some("loads"));
        let by_us = FoundWork {
            pins: r#"{"loader":null}"#.into(),
            ..found()
        };
        assert_eq!(by_us.loader(), None);
    }

    #[test]
    fn an_error_of_the_connection_is_no_reason_to_begin_again() {
        let of = |kind, code: Option<&str>| {
            let e = DatabaseError::new(kind, "no");
            reason_of(match code {
                Some(code) => e.with_sqlstate(code),
                None => e,
            })
        };
        for kind in [
            DatabaseKind::Unavailable,
            DatabaseKind::AccessDenied,
            DatabaseKind::Busy,
        ] {
            assert!(of(kind, None).is_err(), "{kind:?}");
        }
        let gone = of(DatabaseKind::StatementRejected, Some("42P01"));
        assert_eq!(gone.unwrap(), NotContinued::Gone);
        let other = of(DatabaseKind::StatementRejected, Some("42703"));
        assert!(matches!(other.unwrap(), NotContinued::Unreadable(_)));
    }

    #[test]
    fn states_are_read_as_the_journal_has_them() {
        let states = ["loading", "waiting", "sealed"].map(WorkState::parse);
        let all = [WorkState::Loading, WorkState::Waiting, WorkState::Sealed];
        assert_eq!(states, all);
    }
}

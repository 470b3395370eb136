//! The journal, in schema `pgrestored` of the maintenance database: which requests have an outcome, and which
//! databases pgrestored created. The row of a success is written in the swap's own transaction.
//!
//! If the role may neither use nor create the schema, restores work without a journal. Databases are then recognised by
//! name, owner and comment, a redelivery after the swap is not recognised, and older requests cannot be
//! distinguished from newer ones.

use super::journal_tables::{INSTALL, INSTALL_WORK, INSTALLED, grants_to};
use super::recorded_restore::RecordedRestore;
use crate::error::{DatabaseError, DatabaseKind, RestoreError};
use crate::postgres::{Server, Session, map_pg_error};

/// The record of an attempt, if it has no outcome and no other attempt has taken over: `$1` is the request, `$2` the attempt.
pub(super) const OF_RUNNING_ATTEMPT: &str =
    "WHERE request_id = $1 AND attempt = $2::text::uuid AND state = 'running'";

/// How many days outcomes are kept. The newest applied one of each target is kept forever, to order requests.
const REMEMBERED_DAYS: i32 = 90;

/// The journal, which may be off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journal {
    on: bool,
    /// The maintenance database's encoding is UTF-8, so it can hold every character.
    pub(super) is_utf8: bool,
    /// Whether it has the table of restores that can be continued.
    works: bool,
}

/// What [`Journal::look`] finds.
struct FoundJournal {
    is_installed: bool,
    has_work: bool,
    journal: Journal,
}

/// The field that holds an outcome as text, where `jsonb` could not hold all of its characters.
const AS_TEXT: &str = "json_text";

/// Encodes the outcome so that `jsonb` accepts it: without NUL characters and, unless the database is UTF-8,
/// in ASCII.
pub(super) fn storable(outcome: &serde_json::Value, is_utf8: bool) -> String {
    let text = outcome.to_string();
    if !text.contains("\\u0000") && (is_utf8 || text.is_ascii()) {
        return text;
    }
    let mut ascii = String::new();
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(b) if b.is_ascii() => ascii.push(char::from(b)),
            _ => ascii.push_str(&format!("\\u{unit:04x}")),
        }
    }
    serde_json::json!({ AS_TEXT: ascii }).to_string()
}

/// Reverses [`storable`].
pub(super) fn stored(outcome: serde_json::Value) -> Option<serde_json::Value> {
    match outcome.get(AS_TEXT) {
        Some(text) => serde_json::from_str(text.as_str()?).ok(),
        None => Some(outcome),
    }
}

/// Maps an error of the journal, which is never the backup's fault.
pub(super) fn journal_error(e: &tokio_postgres::Error) -> DatabaseError {
    let e = map_pg_error(e, "journal");
    match e.kind() {
        DatabaseKind::DataRejected => {
            let what = format!(
                "the journal cannot record the request (check that the encoding of the database DB_MAINTENANCE_NAME can hold its names): {e}"
            );
            DatabaseError::new(DatabaseKind::NotRecordable, what)
        }
        _ => e,
    }
}

/// What the journal has recorded of a request.
pub(super) enum RequestStatus {
    New,
    /// The last attempt ended without an outcome, or never finished.
    Unfinished {
        digest: String,
        /// Attempts that began and were never heard of again.
        starts: i32,
        /// Attempts that have failed.
        failures: i32,
    },
    Done {
        digest: String,
        outcome: serde_json::Value,
    },
}

/// A recorded database: one that pgrestored created, or a replaced one that it keeps.
pub(super) struct Owned {
    pub name: String,
    pub kind: RecordKind,
    pub target: String,
    pub keep_until: Option<jiff::Timestamp>,
    /// `keep_until` has passed.
    pub expired: bool,
}

impl Owned {
    /// An unfinished database under the target's own name.
    pub fn is_in_place(&self) -> bool {
        self.kind == RecordKind::Staging && self.name == self.target
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    Staging,
    Verification,
    Previous,
}

impl RecordKind {
    fn as_str(self) -> &'static str {
        match self {
            RecordKind::Staging => "staging",
            RecordKind::Verification => "verification",
            RecordKind::Previous => "previous",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "staging" => RecordKind::Staging,
            "verification" => RecordKind::Verification,
            _ => RecordKind::Previous,
        }
    }
}

/// A request that started and has no outcome.
pub(super) struct RunningRequest {
    pub request_id: String,
    pub target: String,
    pub attempt: uuid::Uuid,
    pub created: jiff::Timestamp,
    /// When its last attempt started or was released.
    pub updated: jiff::Timestamp,
    pub now: jiff::Timestamp,
}

/// A database to be recorded: one before it is created, or a replaced one that is kept.
pub(super) struct DatabaseRecord<'a> {
    pub kind: RecordKind,
    pub name: &'a str,
    pub request_id: &'a str,
    pub target: &'a str,
    /// For how many hours a replaced one is kept.
    pub keep_hours: Option<f64>,
}

/// What the journal records of a request when an attempt begins.
pub(super) struct JournalRow<'a> {
    pub request_id: &'a str,
    pub digest: &'a str,
    pub target: &'a str,
    /// In the column `sequence`, which orders the requests for a target.
    pub published_us: i64,
    pub attempt: uuid::Uuid,
}

/// Whether requests can be recorded on `server`; found out by recording one and taking it back. Returns why not, and
/// what to grant.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub async fn check_journal(server: &Server) -> Result<Option<String>, RestoreError> {
    let session = server.without_retry().maintenance("doctor").await?;
    Ok(Journal::rehearse(&session).await?)
}

/// The newest outcomes that the journal of `server` has, newest first, at most `most`; none without a journal.
///
/// # Errors
/// `target_unavailable`, `access_denied`.
pub async fn journaled(server: &Server, most: i64) -> Result<Vec<serde_json::Value>, RestoreError> {
    let session = server.without_retry().maintenance("history").await?;
    let journal = Journal::find(&session).await?;
    Ok(journal.outcomes(&session, most).await?)
}

impl Journal {
    /// Finds the journal, or creates it; one that records nothing if this role may do neither.
    pub async fn open(session: &Session) -> Result<Self, DatabaseError> {
        let found = Self::look(session).await?;
        if found.is_installed {
            return Self::with_work(session, found).await;
        }
        let install = format!("BEGIN; {INSTALL} {INSTALL_WORK} COMMIT;");
        match session.run(&install).await {
            Ok(()) => Ok(Journal {
                on: true,
                works: true,
                ..found.journal
            }),
            Err(e) if e.kind() == DatabaseKind::InsufficientPrivilege => {
                session.run("ROLLBACK").await?;
                tracing::warn!(error = %e, "cannot create the schema pgrestored: working without a journal");
                Ok(found.journal)
            }
            Err(e) => Err(e.context("creating the journal")),
        }
    }

    /// Adds what a journal of an earlier version lacks, if this role may: restores work without it.
    async fn with_work(session: &Session, found: FoundJournal) -> Result<Self, DatabaseError> {
        if !found.journal.on || found.has_work {
            return Ok(found.journal);
        }
        match session.run(&format!("BEGIN; {INSTALL_WORK} COMMIT;")).await {
            Ok(()) => Ok(Journal {
                works: true,
                ..found.journal
            }),
            Err(e) if e.kind() == DatabaseKind::InsufficientPrivilege => {
                session.run("ROLLBACK").await?;
                tracing::debug!(error = %e, "restores that stop cannot be continued: the journal lacks a table");
                Ok(found.journal)
            }
            Err(e) => Err(e.context("creating the table pgrestored.work")),
        }
    }

    /// Finds the journal without creating it.
    pub async fn find(session: &Session) -> Result<Self, DatabaseError> {
        Ok(Self::look(session).await?.journal)
    }

    async fn look(session: &Session) -> Result<FoundJournal, DatabaseError> {
        let row = session.client().query_one(INSTALLED, &[]).await;
        let row = row.map_err(|e| map_pg_error(&e, "looking for the journal"))?;
        let (is_installed, may_use): (bool, bool) = (row.get(0), row.get(1));
        if is_installed && !may_use {
            let grants = grants_to(row.get(3));
            tracing::warn!(
                "this role may not use the schema pgrestored: working without a journal; to use it: {grants}"
            );
        }
        let on = is_installed && may_use;
        let journal = Journal {
            on,
            is_utf8: row.get(2),
            works: on && row.get::<_, bool>(4) && row.get::<_, bool>(5),
        };
        Ok(FoundJournal {
            is_installed,
            has_work: row.get(4),
            journal,
        })
    }

    /// Records a request as a restore by this role would, and takes it back. Returns why it cannot be recorded and
    /// what to grant, or `None`.
    async fn rehearse(session: &Session) -> Result<Option<String>, DatabaseError> {
        let row = session.client().query_one("SELECT current_user::text", &[]);
        let row = row
            .await
            .map_err(|e| map_pg_error(&e, "looking for the journal"))?;
        let record = "INSERT INTO pgrestored.request (request_id, digest, target, sequence, attempt, state)
            VALUES ('doctor:' || txid_current(), '', '', 0, '00000000-0000-0000-0000-000000000000', 'running');
            DELETE FROM pgrestored.request WHERE request_id = 'doctor:' || txid_current();
            UPDATE pgrestored.owned_database SET name = name WHERE false";
        let install = format!("BEGIN; {INSTALL} {INSTALL_WORK}");
        let recorded = match session.run(&install).await {
            // Only the owner may alter an existing journal, which is not needed.
            Err(e) if e.kind() == DatabaseKind::InsufficientPrivilege => {
                session.run(&format!("ROLLBACK; BEGIN; {record}")).await
            }
            Err(e) => Err(e),
            Ok(()) => session.run(record).await,
        };
        session.run("ROLLBACK").await?;
        match recorded {
            Ok(()) => Ok(None),
            Err(e) if session.client().is_closed() => Err(e),
            Err(e) => Ok(Some(format!("{e}; {}", grants_to(row.get(0))))),
        }
    }

    /// A journal that records nothing.
    pub fn off() -> Self {
        Journal {
            on: false,
            is_utf8: true,
            works: false,
        }
    }

    pub fn is_on(self) -> bool {
        self.on
    }

    /// Whether it can record what a restore needs to be continued.
    pub fn works(self) -> bool {
        self.works
    }

    pub(super) async fn execute(
        self,
        session: &Session,
        sql: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, DatabaseError> {
        if !self.on {
            return Ok(1);
        }
        session
            .client()
            .execute(sql, values)
            .await
            .map_err(|e| journal_error(&e))
    }

    pub async fn look_up(
        self,
        session: &Session,
        request_id: &str,
    ) -> Result<RequestStatus, DatabaseError> {
        if !self.on {
            return Ok(RequestStatus::New);
        }
        let failures = if self.works { "failures" } else { "0" };
        let sql = format!(
            "SELECT state, digest, outcome::text, starts, {failures} FROM pgrestored.request WHERE request_id = $1"
        );
        let row = session.client().query_opt(&sql, &[&request_id]).await;
        let row = row.map_err(|e| journal_error(&e))?;
        let Some(row) = row else {
            return Ok(RequestStatus::New);
        };
        let outcome: Option<String> = row.get(2);
        let outcome = outcome.and_then(|t| stored(serde_json::from_str(&t).ok()?));
        match (row.get::<_, &str>(0), outcome) {
            ("done", Some(outcome)) => Ok(RequestStatus::Done {
                digest: row.get(1),
                outcome,
            }),
            _ => Ok(RequestStatus::Unfinished {
                digest: row.get(1),
                starts: row.get(3),
                failures: row.get(4),
            }),
        }
    }

    /// The newest outcomes, newest first, at most `most`.
    async fn outcomes(
        self,
        session: &Session,
        most: i64,
    ) -> Result<Vec<serde_json::Value>, DatabaseError> {
        if !self.on {
            return Ok(vec![]);
        }
        let rows = session
            .client()
            .query(
                "SELECT outcome::text FROM pgrestored.request WHERE state = 'done' AND outcome IS NOT NULL
                 ORDER BY updated DESC LIMIT $1",
                &[&most],
            )
            .await
            .map_err(|e| journal_error(&e))?;
        let outcomes = rows.iter().map(|r| r.get::<_, String>(0));
        Ok(outcomes
            .filter_map(|t| stored(serde_json::from_str(&t).ok()?))
            .collect())
    }

    /// The newest applied request for `target` that was published after `published_us`.
    pub async fn newer(
        self,
        session: &Session,
        target: &str,
        published_us: i64,
    ) -> Result<Option<String>, DatabaseError> {
        if !self.on {
            return Ok(None);
        }
        let row = session
            .client()
            .query_opt(
                "SELECT request_id FROM pgrestored.request WHERE target = $1 AND applied AND sequence > $2
                 ORDER BY sequence DESC LIMIT 1",
                &[&target, &published_us],
            )
            .await
            .map_err(|e| journal_error(&e))?;
        Ok(row.map(|r| r.get(0)))
    }

    /// Records that this attempt works on the request, taking it over from a crashed attempt.
    pub async fn begin(self, session: &Session, row: &JournalRow<'_>) -> Result<(), DatabaseError> {
        let attempt = row.attempt.to_string();
        self.execute(
            session,
            "INSERT INTO pgrestored.request AS r (request_id, digest, target, sequence, attempt, state, starts)
             VALUES ($1, $2, $3, $4, $5::text::uuid, 'running', 1)
             ON CONFLICT (request_id) DO UPDATE SET attempt = excluded.attempt, starts = r.starts + 1,
               updated = now()",
            &[&row.request_id, &row.digest, &row.target, &row.published_us, &attempt],
        )
        .await?;
        Ok(())
    }

    /// Records that this attempt ended in an orderly way without an outcome, so it does not count as a crash. `has_failed`:
    /// it is one of a bounded number.
    pub async fn release(
        self,
        session: &Session,
        (request_id, attempt): (&str, uuid::Uuid),
        has_failed: bool,
    ) -> Result<(), DatabaseError> {
        let change = if has_failed && self.works {
            "UPDATE pgrestored.request SET starts = 0, failures = failures + 1, updated = now()"
        } else {
            "UPDATE pgrestored.request SET starts = 0, updated = now()"
        };
        self.end_attempt(session, change, (request_id, attempt))
            .await
    }

    /// Records that this attempt ended before it began anything. It says nothing about those before it.
    pub async fn withdraw(
        self,
        session: &Session,
        this: (&str, uuid::Uuid),
    ) -> Result<(), DatabaseError> {
        let change =
            "UPDATE pgrestored.request SET starts = greatest(starts - 1, 0), updated = now()";
        self.end_attempt(session, change, this).await
    }

    /// Removes the record of an attempt that ended in an orderly way, changed nothing and is not repeated by itself.
    pub async fn forget(
        self,
        session: &Session,
        request_id: &str,
        attempt: uuid::Uuid,
    ) -> Result<(), DatabaseError> {
        self.end_attempt(
            session,
            "DELETE FROM pgrestored.request",
            (request_id, attempt),
        )
        .await
    }

    /// Makes this change to the record of an attempt that has no outcome; to none if another attempt has taken over.
    async fn end_attempt(
        self,
        session: &Session,
        change: &str,
        (request_id, attempt): (&str, uuid::Uuid),
    ) -> Result<(), DatabaseError> {
        let sql = format!("{change} {OF_RUNNING_ATTEMPT}");
        self.execute(session, &sql, &[&request_id, &attempt.to_string()])
            .await?;
        Ok(())
    }

    /// Records a database. What an earlier attempt recorded under its name is replaced.
    pub async fn own(
        self,
        session: &Session,
        record: &DatabaseRecord<'_>,
    ) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "INSERT INTO pgrestored.owned_database (name, kind, request_id, target, keep_until)
             VALUES ($1, $2, $3, $4, now() + $5::float8 * interval '1 hour')
             ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, request_id = excluded.request_id,
               target = excluded.target, keep_until = excluded.keep_until, created = now()",
            &[
                &record.name,
                &record.kind.as_str(),
                &record.request_id,
                &record.target,
                &record.keep_hours,
            ],
        )
        .await?;
        Ok(())
    }

    /// Removes the record of a database, and that of the work in it.
    pub async fn forget_database(self, session: &Session, name: &str) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "DELETE FROM pgrestored.owned_database WHERE name = $1",
            &[&name],
        )
        .await?;
        // What was kept for a next attempt goes with the database, or has become the target. That there is none any more is
        // still to be said to the next attempt.
        if self.works {
            self.execute(
                session,
                "DELETE FROM pgrestored.work WHERE name = $1 AND database_oid <> 0",
                &[&name],
            )
            .await?;
        }
        Ok(())
    }

    /// All recorded databases, or only those of `target`.
    pub async fn owned(
        self,
        session: &Session,
        target: Option<&str>,
    ) -> Result<Vec<Owned>, DatabaseError> {
        if !self.on {
            return Ok(vec![]);
        }
        let rows = session
            .client()
            .query(
                "SELECT name, kind, target, coalesce(keep_until <= now(), false),
                   (extract(epoch FROM keep_until) * 1000000)::bigint
                 FROM pgrestored.owned_database WHERE $1::text IS NULL OR target = $1 ORDER BY created DESC, name",
                &[&target],
            )
            .await
            .map_err(|e| journal_error(&e))?;
        let owned = |r: &tokio_postgres::Row| Owned {
            name: r.get(0),
            kind: RecordKind::parse(r.get(1)),
            target: r.get(2),
            expired: r.get(3),
            keep_until: r
                .get::<_, Option<i64>>(4)
                .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok()),
        };
        Ok(rows.iter().map(owned).collect())
    }

    /// Requests without an outcome that were published, and last updated, longer than `age` ago.
    pub async fn running(
        self,
        session: &Session,
        age: std::time::Duration,
        limit: i64,
    ) -> Result<Vec<RunningRequest>, DatabaseError> {
        if !self.on {
            return Ok(vec![]);
        }
        let rows = session
            .client()
            .query(
                "SELECT request_id, target, attempt::text, (extract(epoch FROM created) * 1000000)::bigint,
                   (extract(epoch FROM updated) * 1000000)::bigint,
                   (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
                 FROM pgrestored.request
                 WHERE state = 'running' AND updated < clock_timestamp() - $1 * interval '1 second'
                   AND sequence < (extract(epoch FROM clock_timestamp()) - $1) * 1000000
                 ORDER BY updated LIMIT $2",
                &[&age.as_secs_f64(), &limit],
            )
            .await
            .map_err(|e| journal_error(&e))?;
        let time = |r: &tokio_postgres::Row, i| jiff::Timestamp::from_microsecond(r.get(i)).ok();
        let running = |r: &tokio_postgres::Row| {
            Some(RunningRequest {
                request_id: r.get(0),
                target: r.get(1),
                attempt: r.get::<_, &str>(2).parse().ok()?,
                created: time(r, 3)?,
                updated: time(r, 4)?,
                now: time(r, 5)?,
            })
        };
        Ok(rows.iter().filter_map(running).collect())
    }

    /// Deletes old outcomes, except the newest applied one of each target, which orders requests.
    pub async fn forget_old(self, session: &Session) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "DELETE FROM pgrestored.request r WHERE state = 'done' AND updated < now() - $1 * interval '1 day'
             AND NOT (applied AND sequence = (SELECT max(sequence) FROM pgrestored.request n
                                              WHERE n.target = r.target AND n.applied))",
            &[&f64::from(REMEMBERED_DAYS)],
        )
        .await?;
        Ok(())
    }

    /// The restore that made the database `name`, if `name` still means the database that it made.
    pub async fn restore_of(
        self,
        session: &Session,
        name: &str,
        oid: u32,
    ) -> Result<Option<RecordedRestore>, DatabaseError> {
        if !self.on {
            return Ok(None);
        }
        let rows = session
            .client()
            .query(
                "SELECT outcome::text FROM pgrestored.request
                 WHERE target = $1 AND applied AND outcome ->> 'database_oid' = $2 ORDER BY sequence",
                &[&name, &oid.to_string()],
            )
            .await
            .map_err(|e| journal_error(&e))?;
        let restore = |r: &tokio_postgres::Row| {
            let outcome = stored(serde_json::from_str(r.get(0)).ok()?)?;
            RecordedRestore::of(outcome)
        };
        Ok(rows.iter().find_map(restore))
    }

    /// Records the outcome, within the open transaction if there is one. `made`: OID of the database that is the
    /// target because of this request; `None` if the request changed nothing.
    pub async fn finish(
        self,
        session: &Session,
        request_id: &str,
        attempt: uuid::Uuid,
        outcome: &serde_json::Value,
        made: Option<u32>,
    ) -> Result<(), DatabaseError> {
        let made_json = made.map_or_else(
            || serde_json::json!({}),
            |oid| serde_json::json!({ "database_oid": oid }),
        );
        let changed = self
            .execute(
                session,
                &format!(
                    "UPDATE pgrestored.request SET state = 'done', outcome = $3::text::jsonb || $5::text::jsonb,
                       applied = $4, starts = 0, updated = now() {OF_RUNNING_ATTEMPT}"
                ),
                &[
                    &request_id,
                    &attempt.to_string(),
                    &storable(outcome, self.is_utf8),
                    &made.is_some(),
                    &made_json.to_string(),
                ],
            )
            .await?;
        match changed {
            1 => Ok(()),
            _ => Err(DatabaseError::new(
                DatabaseKind::Unavailable,
                "another attempt has taken over this request",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_every_database_encoding() {
        for outcome in [
            serde_json::json!({ "a": "plain" }),
            serde_json::json!({ "ü🐘": ["x\0y", "\\u0000", "\"ä\\"] }),
        ] {
            for is_utf8 in [true, false] {
                let text = storable(&outcome, is_utf8);
                assert!(is_utf8 || text.is_ascii());
                let kept: serde_json::Value = serde_json::from_str(&text).unwrap();
                let has_nul =
                    |v: &serde_json::Value| v.to_string().replace("\\\\", "").contains("\\u0000");
                assert!(!has_nul(&kept), "{text}");
                assert_eq!(stored(kept), Some(outcome.clone()));
            }
        }
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for (kind, written) in [
            (RecordKind::Staging, "staging"),
            (RecordKind::Verification, "verification"),
            (RecordKind::Previous, "previous"),
        ] {
            assert_eq!((RecordKind::parse(written), kind.as_str()), (kind, written));
        }
    }
}

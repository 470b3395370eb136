//! The work record: what a restore has done, written into the restored database in the same transactions, so that a later
//! attempt continues from there.
//!
//! It is a schema of the restoring role. Code of a backup, which may run as another role in the same sessions, cannot read it,
//! and adds nothing to it: the only function of it that others may call wants the secret of the attempt, which is in no
//! statement's text. What somebody changes all the same is noticed: each row has a code under a key that is elsewhere.

mod body;
mod catalog_readers;
mod contradiction;
mod mac;
pub(crate) mod note;
mod ranges;
mod resumed;
mod row_check;
mod tallies;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

pub use body::{
    AllProven, Body, DataEnd, EntryPart, Mark, ObjectsDone, ProvenPart, RefusedDone, RowsDone,
    Span, Spans, UnitId,
};
pub use catalog_readers::{WORK_SCHEMA, not_recordable, that_read_the_catalog};
pub(crate) use catalog_readers::{reads_the_catalog, refreshes};
pub use contradiction::contradicts_record;
pub(crate) use contradiction::says_done;
pub use mac::{RecordKey, Secret};
pub use note::Note;
pub use ranges::Ranges;
pub use resumed::{RecordFault, Resumed, ResumedTotals};
pub use row_check::{RowCheck, Touched, check_recorded};
pub use tallies::Tallies;

use crate::error::DatabaseError;
use crate::ids::SessionId;
use crate::postgres::{Session, map_pg_error};
use note::NoteParams;
use resumed::{RecordReader, StoredRow};

/// The version of what is written; another one cannot be continued.
pub const WORK_FORMAT: i32 = 1;

/// The session number of rows that no session of a load has written.
const OWN_LANE: i32 = -1;

/// Whoever calls the function is not who it runs as, so nothing but the secret lets a row in. `pg_temp` is searched last:
/// it belongs to the caller.
const CREATE: &str = "BEGIN;
CREATE SCHEMA pgrestored_work;
CREATE TABLE pgrestored_work.head (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id uuid NOT NULL,
    format integer NOT NULL,
    pins text NOT NULL,
    pins_mac bytea NOT NULL,
    writer bytea NOT NULL,
    attempt integer NOT NULL,
    began bigint NOT NULL DEFAULT pg_catalog.txid_current());
CREATE TABLE pgrestored_work.done (
    attempt integer NOT NULL,
    lane integer NOT NULL,
    n integer NOT NULL,
    xid bigint NOT NULL DEFAULT pg_catalog.txid_current(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    body text NOT NULL,
    mac bytea NOT NULL,
    ours boolean NOT NULL CHECK (ours),
    PRIMARY KEY (attempt, lane, n)) WITH (autovacuum_enabled = false);
REVOKE ALL ON ALL TABLES IN SCHEMA pgrestored_work FROM PUBLIC;
CREATE FUNCTION pgrestored_work.note(bytea, integer, integer, integer, text, bytea) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    'INSERT INTO pgrestored_work.done (attempt, lane, n, body, mac, ours)
     VALUES ($2, $3, $4, $5, $6,
         (SELECT pg_catalog.sha256($1) OPERATOR(pg_catalog.=) h.writer AND h.attempt OPERATOR(pg_catalog.=) $2
          FROM pgrestored_work.head h))';
CREATE FUNCTION pgrestored_work.leave(bytea, integer) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    'SELECT pgrestored_work.note($1, $2, -2, 1, ''{}'', '''');
     DROP SCHEMA pgrestored_work CASCADE';
GRANT USAGE ON SCHEMA pgrestored_work TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgrestored_work.note(bytea, integer, integer, integer, text, bytea) TO PUBLIC;
GRANT EXECUTE ON FUNCTION pgrestored_work.leave(bytea, integer) TO PUBLIC";

/// What it belongs to; `attempt` 1 may write.
const BEGIN_HEAD: &str =
    "INSERT INTO pgrestored_work.head (id, format, pins, pins_mac, writer, attempt)
    VALUES ($1::text::uuid, $2, $3, $4, $5, 1)";
const READ_HEAD: &str =
    "SELECT id::text, format, pins, pins_mac, attempt FROM pgrestored_work.head";
/// From now on, transactions of the attempt before can no longer be committed.
const TAKE: &str = "UPDATE pgrestored_work.head SET writer = $1, attempt = attempt + 1
    WHERE id = $2::text::uuid RETURNING attempt";
const READ_DONE: &str =
    "SELECT attempt, lane, n, xid, body, mac, ours, (extract(epoch FROM at) * 1000000)::bigint,
        xmin::text::bigint
    FROM pgrestored_work.done ORDER BY attempt, lane, n";

/// Drops the record for a role that does not own it; only who may write to it may do that.
const LEAVE: &str = "SELECT pgrestored_work.leave($1, $2)";

/// Drops the record.
pub const DROP_WORK: &str = "DROP SCHEMA pgrestored_work CASCADE";

/// What messages about it begin with.
pub(crate) const RECORDING: &str = "recording what was done";

/// The record of one restore, for the sessions that write to it.
pub struct WorkRecord {
    /// `None` if nothing is recorded.
    writer: Option<Writer>,
    is_on: AtomicBool,
    /// Something of the text may read the catalog when a materialized view is filled.
    may_be_read: AtomicBool,
    /// The last number that each session has committed.
    lanes: Mutex<HashMap<i32, i32>>,
    /// What was found out and is in no row yet.
    later: Mutex<Body>,
    /// Held while a row is written that belongs to no session of a load.
    own: tokio::sync::Mutex<()>,
    /// The tables of rows of SQL text.
    tables: Mutex<HashMap<UnitId, (String, String)>>,
    resumed: OnceLock<Resumed>,
    /// The bytes and rows of data that this attempt has committed.
    bytes: AtomicU64,
    rows: AtomicU64,
}

/// Who writes.
struct Writer {
    id: Uuid,
    key: RecordKey,
    secret: Secret,
    attempt: i32,
}

impl fmt::Debug for WorkRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkRecord")
            .field("is_on", &self.is_on())
            .finish_non_exhaustive()
    }
}

impl WorkRecord {
    /// Nothing is recorded, and nothing was done before.
    pub fn off() -> Arc<Self> {
        Arc::new(Self::of(None))
    }

    fn of(writer: Option<Writer>) -> Self {
        WorkRecord {
            is_on: AtomicBool::new(writer.is_some()),
            may_be_read: AtomicBool::new(false),
            writer,
            lanes: Mutex::default(),
            later: Mutex::default(),
            own: tokio::sync::Mutex::default(),
            tables: Mutex::default(),
            resumed: OnceLock::new(),
            bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        }
    }

    /// Begins a record in the database of `session`, which must be empty and of the session's role. `pins`: what it belongs
    /// to; `attempt`: the first one; `_from`: it begins at once, whatever this says.
    ///
    /// # Errors
    /// The server's error; there is no record then.
    pub async fn create(
        session: &Session,
        pins: &str,
        key: RecordKey,
        attempt: Uuid,
        _from: Duration,
    ) -> Result<Arc<Self>, DatabaseError> {
        let secret = key.writer(attempt);
        let writer = Writer {
            id: Uuid::new_v4(),
            key,
            secret,
            attempt: 1,
        };
        let made = writer.create(session, &body::ascii(pins)).await;
        if made.is_err() {
            // If that fails, too, the session has ended, and its transaction with it.
            let _ = session.run("ROLLBACK").await;
        }
        made?;
        Ok(Arc::new(Self::of(Some(writer))))
    }

    /// Takes the record in the database of `session` over for a new attempt: what the one before has not committed yet, it
    /// can no longer commit. End its sessions, then [`read`](Self::read_done) the record.
    ///
    /// # Errors
    /// The server's error.
    pub async fn take(
        session: &Session,
        pins: &str,
        key: RecordKey,
        attempt: Uuid,
    ) -> Result<Result<Arc<Self>, RecordFault>, DatabaseError> {
        let head = session.client().query_opt(READ_HEAD, &[]).await;
        let Some(head) = if_there(head)?.flatten() else {
            return Ok(Err(RecordFault::Gone));
        };
        let id = match checked_head(&head, &body::ascii(pins), &key) {
            Ok(id) => id,
            Err(fault) => return Ok(Err(fault)),
        };
        let secret = key.writer(attempt);
        let taken = session
            .client()
            .query_opt(TAKE, &[&secret.digest(), &id.to_string()])
            .await;
        let Some(taken) = if_there(taken)?.flatten() else {
            return Ok(Err(RecordFault::Gone));
        };
        let writer = Writer {
            id,
            key,
            secret,
            attempt: taken.get(0),
        };
        Ok(Ok(Arc::new(Self::of(Some(writer)))))
    }

    /// Reads what the attempts before this one have done. `rows`: a session of
    /// [`streaming_rows`](crate::postgres::Server::streaming_rows).
    ///
    /// # Errors
    /// The server's error.
    pub async fn read_done(
        &self,
        rows: &Session,
    ) -> Result<Result<Resumed, RecordFault>, DatabaseError> {
        let read = self.read_before(rows, 0).await?;
        if let Ok(resumed) = &read {
            // It is read once.
            let _ = self.resumed.set(resumed.clone());
        }
        Ok(read)
    }

    /// Reads the rows that this attempt and those before it have loaded, before the record is dropped. `rows`: as for
    /// [`read_done`](Self::read_done).
    ///
    /// # Errors
    /// The server's error.
    pub async fn read_tallies(
        &self,
        rows: &Session,
    ) -> Result<Result<Tallies, RecordFault>, DatabaseError> {
        let read = self.read_before(rows, 1).await?;
        Ok(read.map(|done| done.tallies()))
    }

    /// Reads what the attempts before this one, and before `more` that follow it, have done.
    async fn read_before(
        &self,
        rows: &Session,
        more: i32,
    ) -> Result<Result<Resumed, RecordFault>, DatabaseError> {
        let Some(writer) = &self.writer else {
            return Ok(Err(RecordFault::Gone));
        };
        let Some(mut stored) = if_there(rows.rows(READ_DONE, &[]).await)? else {
            return Ok(Err(RecordFault::Gone));
        };
        let end = writer.attempt.saturating_add(more);
        let mut reader = RecordReader::new(&writer.key, writer.id, end);
        while let Some(row) = stored.try_next().await.map_err(|e| reading(&e))? {
            if let Err(fault) = reader.add(stored_row(&row)) {
                return Ok(Err(fault));
            }
        }
        Ok(reader.end())
    }

    /// What earlier attempts have done: nothing, unless the record was read.
    pub fn resumed(&self) -> &Resumed {
        self.resumed.get_or_init(Resumed::default)
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// The row for what a session is about to commit, with what was found out since the last one; `None` if nothing is
    /// recorded.
    pub(crate) fn note(&self, lane: SessionId, body: Body) -> Option<Note> {
        self.note_in(i32::try_from(lane.0).unwrap_or(i32::MAX), body)
    }

    /// The same for a session that does not load.
    pub(crate) fn own_note(&self, body: Body) -> Option<Note> {
        self.note_in(OWN_LANE, body)
    }

    fn note_in(&self, lane: i32, mut body: Body) -> Option<Note> {
        let writer = self.writer.as_ref().filter(|_| self.is_on())?;
        self.name_tables(&mut body);
        body.reads_catalog |= self.may_be_read.load(Relaxed);
        let mut carried = std::mem::take(&mut *self.later.lock());
        carried.void.extend(self.resumed().take_unsaid());
        body.add(carried.clone());
        let amounts = body.amounts();
        let n = self.lanes.lock().get(&lane).copied().unwrap_or_default() + 1;
        let (place, body) = ((writer.attempt, lane, n), body.text());
        let params = NoteParams {
            secret: writer.secret.clone(),
            attempt: writer.attempt,
            lane,
            n,
            mac: mac::mac(&writer.key, writer.id, place, &body).to_vec(),
            body,
        };
        Some(Note {
            params,
            carried,
            amounts,
        })
    }

    /// Rows of SQL text are recorded with their table, which no table of contents names.
    fn name_tables(&self, body: &mut Body) {
        let known = self.tables.lock();
        let units = body.rows.iter().map(|rows| rows.unit);
        let named = units.filter_map(|unit| {
            let (table, path) = known.get(&unit)?;
            Some((unit, table.clone(), path.clone()))
        });
        let named: Vec<_> = named.collect();
        body.tables.extend(named);
    }

    /// The row is in the record.
    pub(crate) fn committed(&self, note: Note) {
        self.lanes.lock().insert(note.params.lane, note.params.n);
        let (bytes, rows) = note.amounts;
        self.bytes.fetch_add(bytes, Relaxed);
        self.rows.fetch_add(rows, Relaxed);
    }

    /// The uncompressed bytes of rows and large objects that this attempt has committed, and the rows.
    pub fn committed_amounts(&self) -> (u64, u64) {
        (self.bytes.load(Relaxed), self.rows.load(Relaxed))
    }

    /// The row is not in the record.
    pub(crate) fn rolled_back(&self, note: Note) {
        self.later.lock().add(note.carried);
    }

    /// What has become of a row, if there was one.
    pub(crate) fn ended(&self, note: Option<Note>, is_committed: bool) {
        let Some(note) = note else { return };
        if is_committed {
            self.committed(note);
        } else {
            self.rolled_back(note);
        }
    }

    /// Adds what was found out to the next row.
    pub fn later(&self, fact: impl FnOnce(&mut Body)) {
        if self.is_on() {
            fact(&mut self.later.lock());
        }
    }

    /// The table of rows of SQL text, and the statement that sets the search path of its name, or nothing.
    pub(crate) fn name_table(&self, unit: UnitId, table: &str, path: &str) {
        if self.is_on() {
            let named = (table.to_owned(), path.to_owned());
            self.tables.lock().insert(unit, named);
        }
    }

    /// Adds a row in a transaction of its own.
    ///
    /// # Errors
    /// The server's error.
    pub async fn mark(&self, session: &Session, body: Body) -> Result<(), DatabaseError> {
        let _one_at_a_time = self.own.lock().await;
        let Some(note) = self.own_note(body) else {
            return Ok(());
        };
        let noted = session.noted(&note).await;
        self.ended(Some(note), noted.is_ok());
        noted
    }

    /// Writes down what was found out since the last row.
    ///
    /// # Errors
    /// The server's error.
    pub async fn flush(&self, session: &Session) -> Result<(), DatabaseError> {
        if self.later.lock().is_empty() {
            return Ok(());
        }
        self.mark(session, Body::default()).await
    }

    /// SQL text is about to create something that may read the catalog when a materialized view is filled.
    pub(crate) fn reads_catalog(&self) {
        self.may_be_read.store(true, Relaxed);
    }

    /// Whether filling a materialized view of SQL text may find the record in the catalog.
    pub(crate) fn may_be_read(&self) -> bool {
        self.may_be_read.load(Relaxed) || self.resumed().reads_catalog()
    }

    /// Drops the record, so that what reads the catalog does not find it; from here on, nothing is recorded. No other session
    /// may be writing to it.
    pub(crate) async fn leave(&self, session: &Session) -> Result<(), DatabaseError> {
        let _one_at_a_time = self.own.lock().await;
        let Some(writer) = self.writer.as_ref().filter(|_| self.is_on()) else {
            return Ok(());
        };
        self.is_on.store(false, Relaxed);
        let failed = |e: tokio_postgres::Error| map_pg_error(&e, "dropping the work record");
        let types = [Type::BYTEA, Type::INT4];
        let leave = session.client().prepare_typed(LEAVE, &types).await;
        let leave = leave.map_err(failed)?;
        let values: [&(dyn ToSql + Sync); 2] = [&writer.secret, &writer.attempt];
        let left = session.client().execute(&leave, &values).await;
        left.map_err(failed)?;
        tracing::debug!("the work record was dropped before a materialized view reads the catalog");
        Ok(())
    }

    /// From here on, nothing is recorded. Whoever calls this drops the record before anything else is done.
    pub fn stop(&self) {
        self.is_on.store(false, Relaxed);
    }

    /// From here on, nothing is recorded, and nobody can continue what was: `why`.
    pub(crate) async fn give_up(&self, session: &Session, why: &str) -> Result<(), DatabaseError> {
        let body = Body {
            incomplete: Some(why.to_owned()),
            ..Body::default()
        };
        self.mark(session, body).await?;
        self.is_on.store(false, Relaxed);
        Ok(())
    }
}

impl Writer {
    async fn create(&self, session: &Session, pins: &str) -> Result<(), DatabaseError> {
        session.run(CREATE).await?;
        let mac = mac::pins_mac(&self.key, self.id, pins).to_vec();
        let (id, digest) = (self.id.to_string(), self.secret.digest());
        let begun = session
            .client()
            .execute(BEGIN_HEAD, &[&id, &WORK_FORMAT, &pins, &mac, &digest])
            .await;
        begun.map_err(|e| map_pg_error(&e, RECORDING))?;
        session.run("COMMIT").await
    }
}

fn reading(e: &tokio_postgres::Error) -> DatabaseError {
    map_pg_error(e, "reading the work record")
}

/// The answer, or `None` if the record, or a part of it, does not exist.
fn if_there<T>(answer: Result<T, tokio_postgres::Error>) -> Result<Option<T>, DatabaseError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(e) => {
            let e = reading(&e);
            match e.sqlstate() {
                // No such schema, table, column or function.
                Some("3F000" | "42P01" | "42703" | "42883") => Ok(None),
                _ => Err(e),
            }
        }
    }
}

/// The id of a record, if it belongs to what `pins` says.
fn checked_head(head: &Row, pins: &str, key: &RecordKey) -> Result<Uuid, RecordFault> {
    let (format, recorded): (i32, &str) = (head.get(1), head.get(2));
    if format != WORK_FORMAT {
        let what = format!("it has the format {format}, and this program writes {WORK_FORMAT}");
        return Err(RecordFault::Incomplete(what));
    }
    let edited = || RecordFault::Edited("what it belongs to".to_owned());
    let id = Uuid::parse_str(head.get(0)).map_err(|_| edited())?;
    let expected = mac::pins_mac(key, id, recorded);
    if !mac::is_same(&expected, head.get(3)) || recorded != pins {
        return Err(edited());
    }
    Ok(id)
}

fn stored_row(row: &Row) -> StoredRow {
    StoredRow {
        attempt: row.get(0),
        lane: row.get(1),
        n: row.get(2),
        xid: row.get(3),
        body: row.get(4),
        mac: row.get(5),
        ours: row.get(6),
        at: row.get(7),
        writer_xid: row.get(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> WorkRecord {
        let key = RecordKey::random();
        WorkRecord::of(Some(Writer {
            id: Uuid::nil(),
            secret: key.writer(Uuid::nil()),
            key,
            attempt: 2,
        }))
    }

    fn says(note: &Note) -> (i32, i32, Body) {
        let body = Body::parse(&note.params.body).unwrap();
        (note.params.lane, note.params.n, body)
    }

    #[test]
    fn numbers_advance_only_with_what_is_committed() {
        let record = record();
        let note = |lane| record.note(SessionId(lane), Body::default()).unwrap();
        let first = note(0);
        assert_eq!(says(&first).1, 1);
        record.rolled_back(first);
        let again = note(0);
        assert_eq!(says(&again).1, 1);
        record.committed(again);
        assert_eq!(says(&note(0)).1, 2);
        assert_eq!((says(&note(1)).0, says(&note(1)).1), (1, 1));
        let own = record.own_note(Body::default()).unwrap();
        assert_eq!((says(&own).0, says(&own).1), (-1, 1));
        assert_eq!(own.params.attempt, 2);
    }

    #[test]
    fn only_what_is_committed_counts_as_loaded() {
        let record = record();
        let body = || {
            let mut spans = Spans::default();
            spans.push(Span::of_statement(10, b"a"));
            spans.push(Span::of_statement(20, b"b"));
            Body {
                rows: vec![RowsDone {
                    unit: UnitId(1),
                    spans: spans.clone(),
                    rows: 7,
                    is_frozen: false,
                    mask: None,
                }],
                objects: vec![ObjectsDone {
                    unit: UnitId(2),
                    spans,
                }],
                ..Body::default()
            }
        };
        let note = |lane| record.note(SessionId(lane), body()).unwrap();
        record.rolled_back(note(0));
        assert_eq!(record.committed_amounts(), (0, 0));
        record.committed(note(0));
        record.ended(Some(note(1)), true);
        assert_eq!(record.committed_amounts(), (8, 14));
    }

    #[test]
    fn what_was_found_out_is_in_the_next_row_that_is_committed() {
        let record = record();
        let end = DataEnd {
            unit: UnitId(7),
            bytes: 5,
            lines: 1,
        };
        record.later(|body| body.ends.push(end));
        let note = record
            .note(SessionId(0), Body::of_mark(Mark::Loaded))
            .unwrap();
        assert_eq!(says(&note).2.ends, [end]);
        assert_eq!(says(&note).2.marks, [Mark::Loaded]);
        let other = record.note(SessionId(1), Body::default()).unwrap();
        assert!(says(&other).2.is_empty());
        record.rolled_back(note);
        let note = record.note(SessionId(1), Body::default()).unwrap();
        let (.., body) = says(&note);
        assert_eq!((body.ends, body.marks.len()), (vec![end], 0));
        record.committed(note);
        let note = record.note(SessionId(1), Body::default()).unwrap();
        assert!(says(&note).2.is_empty());
    }

    #[test]
    fn rows_of_text_are_recorded_with_their_table() {
        let record = record();
        record.name_table(UnitId(3), "public.t", "SET search_path = ''");
        let rows = |unit| {
            let rows = RowsDone {
                unit: UnitId(unit),
                spans: Spans::default(),
                rows: 1,
                is_frozen: false,
                mask: None,
            };
            let body = Body {
                rows: vec![rows],
                ..Body::default()
            };
            says(&record.note(SessionId(0), body).unwrap()).2.tables
        };
        let named = (
            UnitId(3),
            "public.t".to_owned(),
            "SET search_path = ''".to_owned(),
        );
        assert_eq!((rows(3), rows(4)), (vec![named], vec![]));
    }

    #[test]
    fn nothing_is_recorded_while_it_is_off() {
        let off = WorkRecord::off();
        assert!(!off.is_on());
        off.later(|_| panic!("nobody reads this"));
        assert!(
            off.note(SessionId(0), Body::of_mark(Mark::Loaded))
                .is_none()
        );
        assert!(off.resumed().blocks().is_empty());
        assert_eq!(off.resumed().totals(), ResumedTotals::default());
    }

    /// The secret is a parameter of one statement, and no statement has it in its text.
    #[test]
    fn the_secret_is_in_no_text() {
        let record = record();
        let note = record.note(SessionId(0), Body::default()).unwrap();
        let shown = format!("{:?} {record:?}", note.params.values());
        assert!(
            shown.contains("Secret") && !shown.contains("RecordKey"),
            "{shown}"
        );
        assert!(note::NOTE.contains("note($1,"));
        assert_eq!(note::NOTE_TYPES.len(), note.params.values().len());
    }
}

//! The work record: what a restore has done, written into the restored database in the same transactions, so that a later
//! attempt continues from there.
//!
//! It is a schema of the restoring role. Code of a backup, which may run as another role in the same sessions, cannot read it,
//! and adds nothing to it: the only function of it that others may call wants the secret of the attempt, which is in no
//! statement's text. What somebody changes all the same is noticed: each row has a code under a key that is elsewhere.
//!
//! It begins once the attempt has run for as long as makes its work worth keeping. Until then, its rows are in memory
//! ([`held`]), where a transaction costs nothing but the question for its number, and a short restore leaves no trace.
//! [`WorkRecord::store`] then writes them together, and from there on each transaction writes its own.

mod body;
mod catalog_readers;
mod first_rows;
pub(crate) mod held;
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

use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

pub use body::{
    AllProven, Body, DataEnd, DataSpan, EntryPart, Mark, ObjectsDone, ProvenPart, RefusedDone,
    RowsDone, Spans, UnitId,
};
pub use catalog_readers::{WORK_SCHEMA, not_recordable, that_read_the_catalog};
pub(crate) use catalog_readers::{names_record, reads_the_catalog, refreshes};
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
use held::{HeldCommit, HeldRows};
use note::{CarriedFacts, NoteParams};
use resumed::{RecordReader, StoredRow};

/// The version of what is written; another one cannot be continued.
pub const WORK_FORMAT: i32 = 1;

/// The session number of rows that no session of a load has written.
const OWN_LANE: i32 = -1;

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
    /// It has begun in the database, or its COMMIT is under way, or was.
    may_be_in_database: AtomicBool,
    /// Where rows are until the record begins.
    held: Arc<HeldRows>,
    /// Why it has ended before it began.
    not_begun: Mutex<Option<String>>,
    /// Something of the text may read the catalog when a materialized view is filled.
    may_be_read: AtomicBool,
    /// The last number that each session has committed.
    lanes: Mutex<HashMap<i32, i32>>,
    /// What was found out and is in no row yet.
    later: Arc<Mutex<Body>>,
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
        Arc::new(Self::of(None, Arc::default()))
    }

    fn of(writer: Option<Writer>, held: Arc<HeldRows>) -> Self {
        WorkRecord {
            is_on: AtomicBool::new(writer.is_some()),
            may_be_in_database: AtomicBool::new(writer.is_some() && !held.is_active()),
            held,
            not_begun: Mutex::default(),
            may_be_read: AtomicBool::new(false),
            writer,
            lanes: Mutex::default(),
            later: Arc::default(),
            own: tokio::sync::Mutex::default(),
            tables: Mutex::default(),
            resumed: OnceLock::new(),
            bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
        }
    }

    /// A record that is in memory until it is [stored](Self::store), under this key and by this attempt, the first one.
    pub fn held(key: RecordKey, attempt: Uuid) -> Arc<Self> {
        let secret = key.writer(attempt);
        let writer = Writer {
            id: Uuid::new_v4(),
            key,
            secret,
            attempt: 1,
        };
        Arc::new(Self::of(Some(writer), HeldRows::active()))
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
        Ok(Ok(Arc::new(Self::of(Some(writer), Arc::default()))))
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

    /// Whether the record is in memory. This may change at any time, but only to false.
    pub fn is_held(&self) -> bool {
        self.is_on() && self.held.is_active()
    }

    /// The row for what a session is about to commit, with what was found out since the last one; `None` if nothing is
    /// recorded. Nothing that may take long may precede COMMIT: the record does not begin while somebody has a row.
    pub(crate) async fn note(&self, lane: SessionId, body: Body) -> Option<Note> {
        self.note_in(lane_of(lane), body).await
    }

    /// The same for a session that has not begun its transaction: while the record is about to begin, it waits.
    pub(crate) async fn note_to_begin(&self, lane: SessionId, body: Body) -> Option<Note> {
        let turn = self.held.turn_to_begin().await;
        self.note_within(turn, lane_of(lane), body)
    }

    /// The same for a session that does not load.
    pub(crate) async fn own_note(&self, body: Body) -> Option<Note> {
        self.note_in(OWN_LANE, body).await
    }

    async fn note_in(&self, lane: i32, body: Body) -> Option<Note> {
        let turn = self.held.turn().await;
        self.note_within(turn, lane, body)
    }

    /// A turn to commit in, for a transaction of which the row is known only once it is committed; `None` unless the record
    /// is in memory.
    pub(crate) async fn turn(&self) -> Option<HeldCommit> {
        self.held.turn().await
    }

    /// What a session has committed in its turn.
    pub(crate) fn committed_in(&self, turn: HeldCommit, lane: SessionId, body: Body) {
        let note = self.note_within(Some(turn), lane_of(lane), body);
        self.ended(note, true);
    }

    fn note_within(&self, turn: Option<HeldCommit>, lane: i32, mut body: Body) -> Option<Note> {
        let writer = self.writer.as_ref().filter(|_| self.is_on())?;
        self.name_tables(&mut body);
        body.reads_catalog |= self.may_be_read.load(Relaxed);
        let mut carried = CarriedFacts::take(&self.later);
        let facts = carried.facts();
        facts.void.extend(self.resumed().take_unsaid());
        body.add(facts.clone());
        let amounts = body.amounts();
        let n = self.lanes.lock().get(&lane).copied().unwrap_or_default() + 1;
        let (place, body) = ((writer.attempt, lane, n), body.text());
        // What is in memory gets its code when it is written.
        let mac = match &turn {
            Some(_) => vec![],
            None => mac::mac(&writer.key, writer.id, place, &body).to_vec(),
        };
        let params = NoteParams {
            secret: writer.secret.clone(),
            attempt: writer.attempt,
            lane,
            n,
            mac,
            body,
        };
        Some(Note {
            params,
            carried,
            amounts,
            turn,
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
    pub(crate) fn committed(&self, mut note: Note) {
        note.carried.committed();
        if let Some(turn) = &note.turn {
            let NoteParams { lane, n, body, .. } = &note.params;
            self.held.add(turn, (*lane, *n), body);
        }
        self.lanes.lock().insert(note.params.lane, note.params.n);
        let (bytes, rows) = note.amounts;
        self.bytes.fetch_add(bytes, Relaxed);
        self.rows.fetch_add(rows, Relaxed);
    }

    /// The uncompressed bytes of rows and large objects that this attempt has committed, and the rows.
    pub fn committed_amounts(&self) -> (u64, u64) {
        (self.bytes.load(Relaxed), self.rows.load(Relaxed))
    }

    /// What has become of a row, if there was one. One that is merely dropped is not in the record.
    pub(crate) fn ended(&self, note: Option<Note>, is_committed: bool) {
        if let Some(note) = note.filter(|_| is_committed) {
            self.committed(note);
        }
    }

    /// The next row says this, too.
    pub fn mark_later(&self, body: Body) {
        self.later(|all| all.add(body));
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

    /// Adds a row in a transaction of its own. While the record is in memory, the next row says it.
    ///
    /// # Errors
    /// The server's error.
    pub async fn mark(&self, session: &Session, body: Body) -> Result<(), DatabaseError> {
        let _one_at_a_time = self.own.lock().await;
        let turn = self.held.turn().await;
        if turn.is_some() {
            self.mark_later(body);
            return Ok(());
        }
        let Some(note) = self.note_within(turn, OWN_LANE, body) else {
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

    /// Drops the record, so that what reads the catalog does not find it, or because of what else `why` says; from here on,
    /// nothing is recorded. No other session may be writing to it.
    pub(crate) async fn leave(&self, session: &Session, why: &str) -> Result<(), DatabaseError> {
        let _one_at_a_time = self.own.lock().await;
        if self.end_held(why).await {
            return Ok(());
        }
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
        // What has the name from here on is the backup's.
        self.may_be_in_database.store(false, Relaxed);
        tracing::debug!(why, "the work record was dropped");
        Ok(())
    }

    /// From here on, nothing is recorded. Whoever calls this drops the record, if it has begun, before anything else is done.
    pub async fn stop(&self) {
        let all = self.held.all_turns().await;
        self.is_on.store(false, Relaxed);
        self.held.end(&all);
    }

    /// If the record is in memory, it ends there, because of `why`; returns whether it was. What is being stored is stored
    /// first.
    pub async fn end_held(&self, why: &str) -> bool {
        if !self.is_held() {
            return false;
        }
        let all = self.held.all_turns().await;
        let was_held = self.is_held();
        if was_held {
            self.is_on.store(false, Relaxed);
            self.held.end(&all);
            *self.not_begun.lock() = Some(why.to_owned());
        }
        was_held
    }

    /// From here on, nothing is recorded, and nobody can continue what was: `why`.
    pub(crate) async fn give_up(&self, session: &Session, why: &str) -> Result<(), DatabaseError> {
        if self.end_held(why).await {
            return Ok(());
        }
        let body = Body {
            incomplete: Some(why.to_owned()),
            ..Body::default()
        };
        self.mark(session, body).await?;
        self.is_on.store(false, Relaxed);
        Ok(())
    }
}

/// The number of a session in its rows.
fn lane_of(session: SessionId) -> i32 {
    i32::try_from(session.0).unwrap_or(i32::MAX)
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
    use futures::FutureExt;

    use super::*;

    fn record() -> WorkRecord {
        let key = RecordKey::random();
        let writer = Writer {
            id: Uuid::nil(),
            secret: key.writer(Uuid::nil()),
            key,
            attempt: 2,
        };
        WorkRecord::of(Some(writer), Arc::default())
    }

    fn note_of(record: &WorkRecord, lane: usize, body: Body) -> Option<Note> {
        // Nobody has all turns.
        let note = record.note(SessionId(lane), body);
        note.now_or_never().unwrap()
    }

    fn says(note: &Note) -> (i32, i32, Body) {
        let body = Body::parse(&note.params.body).unwrap();
        (note.params.lane, note.params.n, body)
    }

    #[test]
    fn numbers_advance_only_with_what_is_committed() {
        let record = record();
        let note = |lane| note_of(&record, lane, Body::default()).unwrap();
        let first = note(0);
        assert_eq!(says(&first).1, 1);
        drop(first);
        let again = note(0);
        assert_eq!(says(&again).1, 1);
        record.committed(again);
        assert_eq!(says(&note(0)).1, 2);
        assert_eq!((says(&note(1)).0, says(&note(1)).1), (1, 1));
        let own = record
            .own_note(Body::default())
            .now_or_never()
            .unwrap()
            .unwrap();
        assert_eq!((says(&own).0, says(&own).1), (-1, 1));
        assert_eq!(own.params.attempt, 2);
    }

    #[test]
    fn only_what_is_committed_counts_as_loaded() {
        let record = record();
        let body = || {
            let mut spans = Spans::default();
            spans.push(DataSpan::of_statement(10, b"a"));
            spans.push(DataSpan::of_statement(20, b"b"));
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
        let note = |lane| note_of(&record, lane, body()).unwrap();
        record.ended(Some(note(0)), false);
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
        let note = note_of(&record, 0, Body::of_mark(Mark::Loaded)).unwrap();
        assert_eq!(says(&note).2.ends, [end]);
        assert_eq!(says(&note).2.marks, [Mark::Loaded]);
        let other = note_of(&record, 1, Body::default()).unwrap();
        assert!(says(&other).2.is_empty());
        // Whoever waited for the answer was stopped, and says nothing.
        drop(note);
        let note = note_of(&record, 1, Body::default()).unwrap();
        let (.., body) = says(&note);
        assert_eq!((body.ends, body.marks.len()), (vec![end], 0));
        record.committed(note);
        let note = note_of(&record, 1, Body::default()).unwrap();
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
            says(&note_of(&record, 0, body).unwrap()).2.tables
        };
        let named = (
            UnitId(3),
            "public.t".to_owned(),
            "SET search_path = ''".to_owned(),
        );
        assert_eq!((rows(3), rows(4)), (vec![named], vec![]));
    }

    fn in_memory() -> Arc<WorkRecord> {
        WorkRecord::held(RecordKey::random(), Uuid::nil())
    }

    fn committed_as(record: &WorkRecord, lane: usize, xid: i64) {
        let note = note_of(record, lane, Body::of_mark(Mark::Loaded)).unwrap();
        let turn = note.turn.as_ref().unwrap();
        turn.asked();
        turn.committed(Some(xid));
        record.ended(Some(note), true);
    }

    /// The rows that are written later go on where those in memory end.
    #[test]
    fn numbers_go_on_when_the_record_begins() {
        let record = in_memory();
        committed_as(&record, 0, 5);
        committed_as(&record, 0, 6);
        committed_as(&record, 1, 7);
        let all = record.held.all_turns().now_or_never().unwrap();
        let rows = record.held.rows(&all);
        let places: Vec<_> = rows.iter().map(|row| (row.lane, row.n, row.xid)).collect();
        assert_eq!(places, [(0, 1, 5), (0, 2, 6), (1, 1, 7)]);
        record.held.end(&all);
        drop(all);
        let next = note_of(&record, 0, Body::default()).unwrap();
        assert!(next.turn.is_none() && next.params.mac.len() == 32);
        assert_eq!((says(&next).0, says(&next).1), (0, 3));
        assert!(record.is_on() && !record.is_held());
    }

    /// What was found out is said by the next row, also if a transaction of one in memory was refused.
    #[test]
    fn a_refused_commit_takes_no_number_in_memory() {
        let record = in_memory();
        record.mark_later(Body::of_mark(Mark::Analyzed));
        let note = note_of(&record, 0, Body::default()).unwrap();
        let turn = note.turn.as_ref().unwrap();
        turn.asked();
        turn.undone();
        record.ended(Some(note), false);
        let again = note_of(&record, 0, Body::default()).unwrap();
        let (_, n, body) = says(&again);
        assert_eq!((n, body.marks), (1, vec![Mark::Analyzed]));
        assert_eq!(record.why_not_begun(), None);
    }

    #[test]
    fn a_lost_commit_is_said() {
        let record = in_memory();
        let note = note_of(&record, 0, Body::default()).unwrap();
        note.turn.as_ref().unwrap().asked();
        record.ended(Some(note), false);
        let why = record.why_not_begun().unwrap();
        assert!(why.contains("COMMIT was lost"), "{why}");
    }

    #[test]
    fn a_record_that_ends_in_memory_has_no_rows() {
        for why in [Some("no"), None] {
            let record = in_memory();
            committed_as(&record, 0, 5);
            match why {
                Some(why) => assert!(record.end_held(why).now_or_never().unwrap()),
                None => record.stop().now_or_never().unwrap(),
            }
            assert!(!record.is_on() && !record.is_held());
            assert!(note_of(&record, 0, Body::default()).is_none());
            assert_eq!(record.why_not_begun().as_deref(), why);
            assert!(!record.end_held("again").now_or_never().unwrap());
        }
    }

    #[test]
    fn nothing_is_recorded_while_it_is_off() {
        let off = WorkRecord::off();
        assert!(!off.is_on());
        off.later(|_| panic!("nobody reads this"));
        assert!(note_of(&off, 0, Body::of_mark(Mark::Loaded)).is_none());
        assert!(off.resumed().blocks().is_empty());
        assert_eq!(off.resumed().totals(), ResumedTotals::default());
    }

    /// The secret is a parameter of one statement, and no statement has it in its text.
    #[test]
    fn the_secret_is_in_no_text() {
        let record = record();
        let note = note_of(&record, 0, Body::default()).unwrap();
        let shown = format!("{:?} {record:?}", note.params.values());
        assert!(
            shown.contains("Secret") && !shown.contains("RecordKey"),
            "{shown}"
        );
        assert!(note::NOTE.contains("note($1,"));
        assert_eq!(note::NOTE_TYPES.len(), note.params.values().len());
    }
}

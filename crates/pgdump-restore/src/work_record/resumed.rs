//! What earlier attempts have done, as their record says it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use uuid::Uuid;

use pgdump_archive::Extent;
use pgdump_mask::MaskCounts;

use super::body::{
    AllProven, Body, DataEnd, DataSpan, EntryPart, Mark, ProvenPart, RefusedDone, UnitId,
};
use super::mac::{RecordKey, is_same, mac};
use super::ranges::Ranges;
use super::tallies::{Tallies, UnitTally};

/// Why a record cannot be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordFault {
    /// Somebody else has written to it: what was found.
    Edited(String),
    /// It does not say everything that was done: what is missing.
    Incomplete(String),
    /// There is none.
    Gone,
}

impl fmt::Display for RecordFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordFault::Edited(what) => write!(f, "the work record was changed: {what}"),
            RecordFault::Incomplete(what) => {
                write!(f, "the work record is incomplete: {what}")
            }
            RecordFault::Gone => f.write_str("the database has no work record"),
        }
    }
}

/// A row of the record, as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredRow {
    pub(crate) attempt: i32,
    pub(crate) lane: i32,
    pub(crate) n: i32,
    pub(crate) xid: i64,
    /// The transaction, or that of its last savepoint, as the row names it.
    pub(crate) writer_xid: i64,
    pub(crate) body: String,
    pub(crate) mac: Vec<u8>,
    pub(crate) ours: bool,
    /// When it was written, in microseconds.
    pub(crate) at: i64,
}

impl StoredRow {
    /// Its transaction, and those of savepoints in it.
    fn xids(&self) -> Range<u64> {
        let first = self.xid.unsigned_abs();
        let writer = in_tables(self.writer_xid.unsigned_abs());
        first..first + u64::from(writer.wrapping_sub(in_tables(first))) + 1
    }

    fn place(&self) -> String {
        let StoredRow {
            attempt, lane, n, ..
        } = self;
        format!("row {n} of session {lane} in attempt {attempt}")
    }
}

/// Reads the rows of a record, which come by attempt, lane and number.
pub(crate) struct RecordReader<'a> {
    key: &'a RecordKey,
    id: Uuid,
    /// The attempt that reads; it has written nothing yet.
    attempt: i32,
    last: Option<(i32, i32, i32)>,
    /// The transaction of that row, and the last one of all attempts before that row's.
    last_xid: i64,
    earlier_xid: i64,
    /// The last transaction of that row's attempt.
    attempt_xid: i64,
    bodies: Vec<(i32, Range<u64>, Body)>,
    /// When each attempt wrote its first and its last row.
    times: BTreeMap<i32, (i64, i64)>,
}

impl<'a> RecordReader<'a> {
    pub(crate) fn new(key: &'a RecordKey, id: Uuid, attempt: i32) -> Self {
        RecordReader {
            key,
            id,
            attempt,
            last: None,
            last_xid: 0,
            earlier_xid: 0,
            attempt_xid: 0,
            bodies: vec![],
            times: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, row: StoredRow) -> Result<(), RecordFault> {
        let place = (row.attempt, row.lane, row.n);
        let expected = mac(self.key, self.id, place, &row.body);
        if !row.ours || !is_same(&expected, &row.mac) || row.attempt >= self.attempt {
            let what = format!("{} was not written by the restore", row.place());
            return Err(RecordFault::Edited(what));
        }
        let before = self.last.filter(|l| (l.0, l.1) == (row.attempt, row.lane));
        if row.n != before.map_or(1, |(_, _, n)| n.saturating_add(1)) {
            let what = format!("the row before {} is missing", row.place());
            return Err(RecordFault::Edited(what));
        }
        self.check_order(&row, before.is_some())?;
        self.last = Some(place);
        let body = Body::parse(&row.body).map_err(|e| {
            let what = format!("{} is not understood: {e}", row.place());
            RecordFault::Incomplete(what)
        })?;
        let times = self.times.entry(row.attempt).or_insert((row.at, row.at));
        *times = (times.0.min(row.at), times.1.max(row.at));
        self.bodies.push((row.attempt, row.xids(), body));
        Ok(())
    }

    /// The code of a row does not cover its transaction, which is not known when it is made. But a session has one
    /// transaction after the other, and an attempt begins when the sessions of the one before have ended: rows that were
    /// replaced later, with the number of that transaction in the record, are out of order.
    fn check_order(&mut self, row: &StoredRow, is_same_session: bool) -> Result<(), RecordFault> {
        if self
            .last
            .is_some_and(|(attempt, _, _)| attempt != row.attempt)
        {
            self.earlier_xid = self.attempt_xid;
        }
        let before = if is_same_session {
            self.last_xid
        } else {
            self.earlier_xid
        };
        if row.xid <= before {
            let what = format!(
                "the transaction of {} precedes that of the row before",
                row.place()
            );
            return Err(RecordFault::Edited(what));
        }
        self.last_xid = row.xid;
        self.attempt_xid = self.attempt_xid.max(row.xid);
        Ok(())
    }

    pub(crate) fn end(self) -> Result<Resumed, RecordFault> {
        let mut done = Done {
            attempt: self.attempt.unsigned_abs().saturating_sub(1),
            has_added: self.times.contains_key(&self.attempt.saturating_sub(1)),
            seconds: seconds(self.times.values()),
            ..Done::default()
        };
        let mut void: HashMap<UnitId, i32> = HashMap::new();
        for (attempt, _, body) in &self.bodies {
            for unit in &body.void {
                let last = void.entry(*unit).or_insert(*attempt);
                *last = (*last).max(*attempt);
            }
        }
        for (attempt, xids, body) in self.bodies {
            if let Some(why) = incomplete(&body) {
                return Err(RecordFault::Incomplete(why));
            }
            let is_void = |unit: UnitId| void.get(&unit).is_some_and(|since| attempt < *since);
            done.add((attempt, xids), body, is_void);
        }
        for (unit, work) in &mut done.units {
            work.sort(*unit)?;
        }
        // The transaction of what it was a part of may say it, too.
        let is_new = |all: &[RefusedDone], r: &RefusedDone| {
            let is_same =
                |o: &RefusedDone| (o.unit, &o.part, &o.message) == (r.unit, &r.part, &r.message);
            !all.iter().any(is_same)
        };
        let mut refused = std::mem::take(&mut done.refused);
        refused.sort_by_key(|r| r.after);
        for one in refused {
            if is_new(&done.refused, &one) {
                done.refused.push(one);
            }
        }
        Ok(Resumed(Arc::new(done)))
    }
}

/// Why nobody can continue from this row.
fn incomplete(body: &Body) -> Option<String> {
    body.incomplete.clone()
}

fn seconds<'a>(times: impl Iterator<Item = &'a (i64, i64)>) -> f64 {
    let micros: i64 = times.map(|(first, last)| last - first).sum();
    std::time::Duration::from_micros(micros.unsigned_abs()).as_secs_f64()
}

/// What was done of a unit.
#[derive(Debug, Default)]
struct UnitDone {
    parts: BTreeSet<EntryPart>,
    /// Its rows or large objects, in the order of its data.
    spans: Vec<DataSpan>,
    ranges: Ranges,
    has_rows: bool,
    is_frozen: bool,
    rows: u64,
    /// The transactions that brought its rows, and how many each.
    xids: Vec<(u64, u64)>,
    mask: Option<MaskCounts>,
    end: Option<DataEnd>,
    /// The last attempts that brought rows or large objects, and that proved the stored bytes of all of them.
    loaded_in: Option<i32>,
    proven_in: Option<i32>,
    /// The last one that read all of them, so that they are proven if those of the whole archive are.
    read_in: Option<i32>,
    /// The table of its rows and the statement that sets the search path, of SQL text.
    table: Option<(String, String)>,
    /// Its rows are lost.
    is_void: AtomicBool,
}

impl UnitDone {
    fn sort(&mut self, unit: UnitId) -> Result<(), RecordFault> {
        self.spans.sort_unstable_by_key(|s| s.from);
        let twice = self.spans.windows(2).find(|pair| pair[0].to > pair[1].from);
        if let Some([_, second]) = twice {
            let (at, UnitId(unit)) = (second.from, unit);
            let what = format!("byte {at} of the data of unit {unit} is recorded twice");
            return Err(RecordFault::Incomplete(what));
        }
        Ok(())
    }

    fn has(&mut self, attempt: i32, spans: &[DataSpan]) {
        self.has_rows = true;
        self.loaded_in = Some(attempt);
        self.spans.extend(spans);
        spans.iter().for_each(|s| self.ranges.add(s.from..s.to));
    }
}

#[derive(Debug, Default)]
struct Done {
    attempt: u32,
    has_added: bool,
    seconds: f64,
    units: HashMap<UnitId, UnitDone>,
    statements: Ranges,
    statement_spans: Vec<DataSpan>,
    marks: BTreeSet<Mark>,
    proven: Option<AllProven>,
    blocks: Vec<(UnitId, Extent)>,
    renames: Vec<(String, String)>,
    reads_catalog: bool,
    /// What the server refused, the cause before what it caused.
    refused: Vec<RefusedDone>,
    /// All transactions that have written rows of the record, as rows of tables name them.
    xids: HashSet<u32>,
    /// Transactions from that of a file of finishing SQL to the first one after it: its savepoints have some of their own.
    finishing: Vec<Range<u64>>,
    /// All of it is from tallies: everything was loaded, and the record is gone.
    is_of_tallies: bool,
    /// Units that were found to be lost, and of which no row says so yet.
    unsaid: Mutex<Vec<UnitId>>,
}

impl Done {
    fn add(
        &mut self,
        (attempt, xids): (i32, Range<u64>),
        body: Body,
        is_void: impl Fn(UnitId) -> bool,
    ) {
        let xid = xids.start;
        if body
            .marks
            .iter()
            .any(|mark| matches!(mark, Mark::Finished(_)))
        {
            self.finishing.push(xids);
        }
        self.xids.insert(in_tables(xid));
        for (unit, part) in body.entries {
            self.unit(unit).parts.insert(part);
        }
        for s in body.statements.as_slice() {
            self.statements.add(s.from..s.to);
            self.statement_spans.push(*s);
        }
        for rows in body.rows.into_iter().filter(|r| !is_void(r.unit)) {
            let work = self.unit(rows.unit);
            work.has(attempt, rows.spans.as_slice());
            work.is_frozen |= rows.is_frozen;
            work.rows += rows.rows;
            work.xids.push((xid, rows.rows));
            if let Some(counts) = rows.mask {
                work.mask.get_or_insert_default().add(&counts);
            }
        }
        for objects in body.objects.into_iter().filter(|o| !is_void(o.unit)) {
            self.unit(objects.unit)
                .has(attempt, objects.spans.as_slice());
        }
        for end in body.ends {
            self.unit(end.unit).end = Some(end);
        }
        for part in body.parts {
            let work = self.unit(part.unit());
            match part {
                ProvenPart::BlockRead { unit, extent } => {
                    work.read_in = Some(attempt);
                    self.blocks.push((unit, extent));
                }
                ProvenPart::Block { unit, extent } => {
                    work.proven_in = Some(attempt);
                    self.blocks.push((unit, extent));
                }
                ProvenPart::Member { .. } => work.proven_in = Some(attempt),
            }
        }
        for (unit, table, path) in body.tables {
            self.unit(unit).table = Some((table, path));
        }
        self.marks.extend(body.marks);
        self.proven = body.proven.or(self.proven);
        self.renames.extend(body.renames);
        self.reads_catalog |= body.reads_catalog;
        self.refused.extend(body.refused);
    }

    fn unit(&mut self, unit: UnitId) -> &mut UnitDone {
        self.units.entry(unit).or_default()
    }
}

/// A transaction's number as the rows of tables have it.
#[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
pub(crate) fn in_tables(xid: u64) -> u32 {
    xid as u32
}

/// What earlier attempts have done. Copies share what is found out about it.
#[derive(Debug, Clone, Default)]
pub struct Resumed(Arc<Done>);

/// How much earlier attempts have done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ResumedTotals {
    /// The last of them, from 1; 0 if there was none.
    pub attempt: u32,
    /// Whether that one has got further than those before it.
    pub has_added: bool,
    /// Uncompressed bytes of rows and large objects.
    pub bytes: u64,
    /// Rows that the server has counted.
    pub rows: u64,
    /// Seconds between the first and the last row that each attempt has recorded, together.
    pub seconds: f64,
}

impl Resumed {
    fn unit(&self, unit: UnitId) -> Option<&UnitDone> {
        self.0.units.get(&unit)
    }

    /// What was done of a unit, if its rows are not lost.
    fn rows_in(&self, unit: UnitId) -> Option<&UnitDone> {
        self.unit(unit).filter(|work| !work.is_void.load(Relaxed))
    }

    /// Whether this part of an entry exists.
    pub fn is_done(&self, unit: UnitId, part: EntryPart) -> bool {
        self.unit(unit).is_some_and(|w| w.parts.contains(&part))
    }

    /// Whether the statement of SQL text with this number has run.
    pub fn statement_done(&self, n: u64) -> bool {
        self.0.statements.contains(n)
    }

    /// Whether a statement of SQL text behind these rows of it has run.
    pub(crate) fn has_statement_behind(&self, rows: UnitId) -> bool {
        let last = self.0.statements.iter().last();
        let rows = u64::try_from(rows.0).unwrap_or_default();
        last.is_some_and(|last| last.end > rows)
    }

    /// The statements of SQL text that have run, with the checksums of their texts, transaction by transaction.
    pub fn statement_spans(&self) -> &[DataSpan] {
        &self.0.statement_spans
    }

    /// What of a range of a unit's data is not in the database.
    pub fn missing(&self, unit: UnitId, r: Range<u64>) -> Vec<Range<u64>> {
        match self.rows_in(unit) {
            Some(work) => work.ranges.missing(r),
            None if r.is_empty() => vec![],
            None => vec![r],
        }
    }

    /// What of a unit's data is in the database, in its order.
    pub fn spans_of(&self, unit: UnitId) -> &[DataSpan] {
        self.rows_in(unit).map_or(&[], |work| &work.spans)
    }

    /// Whether rows or large objects of a unit are in the database.
    pub fn has_rows(&self, unit: UnitId) -> bool {
        self.rows_in(unit).is_some_and(|work| work.has_rows)
    }

    /// Whether rows of a unit were frozen, so that autovacuum was turned off for its table.
    pub fn is_frozen(&self, unit: UnitId) -> bool {
        self.unit(unit).is_some_and(|work| work.is_frozen)
    }

    /// Whether all of a unit's data is in the database.
    pub fn is_complete(&self, unit: UnitId) -> bool {
        let end = self.unit(unit).and_then(|work| work.end);
        end.is_some_and(|end| self.missing(unit, 0..end.bytes).is_empty())
    }

    /// The end of a unit's data, if it was read to it.
    pub(crate) fn end_of(&self, unit: UnitId) -> Option<DataEnd> {
        self.unit(unit).and_then(|work| work.end)
    }

    /// Whether the stored bytes of a unit's data are proven. What an attempt has loaded after the last proof is not.
    pub fn is_proven(&self, unit: UnitId) -> bool {
        self.unit(unit)
            .is_some_and(|work| work.proven_in.is_some() && work.proven_in >= work.loaded_in)
    }

    /// Whether the stored bytes of a unit's data are proven, or would be by the checksum of the whole archive with that
    /// of the block in [`Resumed::blocks`].
    pub fn is_read(&self, unit: UnitId) -> bool {
        self.is_proven(unit)
            || self
                .unit(unit)
                .is_some_and(|work| work.read_in.is_some() && work.read_in >= work.loaded_in)
    }

    /// The blocks of the archive that were read to their end.
    pub fn blocks(&self) -> &[(UnitId, Extent)] {
        &self.0.blocks
    }

    /// The rows of a unit that are in the database.
    pub fn rows_of(&self, unit: UnitId) -> u64 {
        self.rows_in(unit).map_or(0, |work| work.rows)
    }

    /// The uncompressed bytes of a unit's data that are in the database.
    pub fn bytes_of(&self, unit: UnitId) -> u64 {
        self.rows_in(unit).map_or(0, |work| work.ranges.len())
    }

    /// What masking has changed in the rows of a unit that are in the database.
    pub fn mask_of(&self, unit: UnitId) -> Option<&MaskCounts> {
        self.rows_in(unit).and_then(|work| work.mask.as_ref())
    }

    /// Whether a step is over.
    pub fn has(&self, mark: Mark) -> bool {
        self.0.marks.contains(&mark)
    }

    /// Whether finishing SQL has run, which may have changed any row.
    pub fn has_finishing(&self) -> bool {
        let marks = &self.0.marks;
        marks.iter().any(|mark| matches!(mark, Mark::Finished(_)))
    }

    /// What is proven of the object as a whole.
    pub fn proven(&self) -> Option<AllProven> {
        self.0.proven
    }

    /// How much was done.
    pub fn totals(&self) -> ResumedTotals {
        let mut totals = ResumedTotals {
            attempt: self.0.attempt,
            has_added: self.0.has_added,
            seconds: self.0.seconds,
            ..ResumedTotals::default()
        };
        for unit in self.0.units.keys() {
            totals.bytes += self.bytes_of(*unit);
            totals.rows += self.rows_of(*unit);
        }
        totals
    }

    /// The transactions that have brought rows of a unit, and how many each.
    pub fn xids(&self, unit: UnitId) -> &[(u64, u64)] {
        self.rows_in(unit).map_or(&[], |work| &work.xids)
    }

    /// Whether a transaction, as rows of tables name it, has written to the record, or is perhaps one of finishing SQL.
    pub(crate) fn is_recorded(&self, xid: u32) -> bool {
        let is_in = |xids: &Range<u64>| {
            let after_first = u64::from(xid.wrapping_sub(in_tables(xids.start)));
            after_first < xids.end.saturating_sub(xids.start)
        };
        self.0.xids.contains(&xid) || self.0.finishing.iter().any(is_in)
    }

    /// The units with rows of SQL text, with their tables and the statements that set the search path.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (UnitId, &str, &str)> {
        let named = self.0.units.iter();
        named.filter_map(|(unit, work)| {
            let (table, path) = work.table.as_ref()?;
            Some((*unit, table.as_str(), path.as_str()))
        })
    }

    /// The table of rows of SQL text, and the statement that sets the search path.
    pub(crate) fn table_of(&self, unit: UnitId) -> Option<(&str, &str)> {
        let (table, path) = self.unit(unit)?.table.as_ref()?;
        Some((table.as_str(), path.as_str()))
    }

    /// Whether SQL text has created something that may read the catalog when a materialized view is filled.
    pub(crate) fn reads_catalog(&self) -> bool {
        self.0.reads_catalog
    }

    /// The present name of a schema of the archive.
    pub(crate) fn schema_now<'a>(&'a self, schema: &'a str) -> &'a str {
        let renames = self.0.renames.iter();
        renames.fold(
            schema,
            |name, (old, new)| {
                if old == name { new.as_str() } else { name }
            },
        )
    }

    /// What the server refused of earlier attempts, each once, the cause before what it caused.
    pub fn refused(&self) -> &[RefusedDone] {
        &self.0.refused
    }

    /// Whether an earlier attempt is continued.
    pub(crate) fn is_continued(&self) -> bool {
        self.0.attempt > 0
    }

    /// What the rows of the database can be compared with once the record is gone.
    pub fn tallies(&self) -> Tallies {
        let done = &self.0;
        let of_unit = |(unit, work): (&UnitId, &UnitDone)| UnitTally {
            unit: *unit,
            xids: self.xids(*unit).to_vec(),
            table: work.table.clone(),
        };
        let mut units: Vec<UnitTally> = done.units.iter().map(of_unit).collect();
        units.retain(|tally| !tally.xids.is_empty() || tally.table.is_some());
        units.sort_unstable_by_key(|tally| tally.unit);
        let mut xids: Vec<u32> = done.xids.iter().copied().collect();
        xids.sort_unstable();
        let finishing = done.finishing.iter().map(|xids| (xids.start, xids.end));
        Tallies {
            units,
            xids,
            finishing: finishing.collect(),
            renames: done.renames.clone(),
        }
    }

    /// What is known of a load that has ended, and whose record is gone.
    pub fn of_tallies(tallies: Tallies) -> Self {
        let mut done = Done {
            xids: tallies.xids.into_iter().collect(),
            renames: tallies.renames,
            is_of_tallies: true,
            ..Done::default()
        };
        done.marks.insert(Mark::Loaded);
        for (from, to) in tallies.finishing {
            done.marks.insert(Mark::Finished(0));
            done.finishing.push(from..to);
        }
        for tally in tallies.units {
            let work = done.unit(tally.unit);
            work.rows = tally.xids.iter().map(|(_, rows)| rows).sum();
            work.has_rows = !tally.xids.is_empty();
            (work.xids, work.table) = (tally.xids, tally.table);
        }
        Resumed(Arc::new(done))
    }

    /// Whether everything was loaded, and what remains of the record are tallies.
    pub(crate) fn is_of_tallies(&self) -> bool {
        self.0.is_of_tallies
    }

    /// The rows of a unit are lost: they are loaded again.
    pub(crate) fn lose(&self, unit: UnitId) {
        let Some(work) = self.unit(unit) else { return };
        if !work.is_void.swap(true, Relaxed) {
            self.0.unsaid.lock().push(unit);
        }
    }

    /// Units that are lost and of which no row of the record says so yet.
    pub(crate) fn take_unsaid(&self) -> Vec<UnitId> {
        std::mem::take(&mut self.0.unsaid.lock())
    }
}

#[cfg(test)]
impl Resumed {
    /// What one row says.
    pub(crate) fn of(body: Body) -> Self {
        let mut done = Done::default();
        done.add((1, 1..2), body, |_| false);
        Resumed(Arc::new(done))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

    use pgdump_archive::Crc32c;

    use super::super::body::{ObjectsDone, RowsDone, Spans};
    use super::*;

    const KEY: [u8; 32] = [3; 32];

    fn key() -> RecordKey {
        RecordKey::from_bytes(&KEY).unwrap()
    }

    fn row(place: (i32, i32, i32), body: &Body) -> StoredRow {
        let text = body.text();
        StoredRow {
            attempt: place.0,
            lane: place.1,
            n: place.2,
            xid: i64::from(place.0 * 100 + place.1 * 10 + place.2) | 5 << 32,
            writer_xid: i64::from(place.0 * 100 + place.1 * 10 + place.2 + 2),
            mac: mac(&key(), Uuid::nil(), place, &text).to_vec(),
            body: text,
            ours: true,
            at: i64::from(place.0) * 10_000_000 + i64::from(place.2) * 500_000,
        }
    }

    fn read(rows: impl IntoIterator<Item = StoredRow>) -> Result<Resumed, RecordFault> {
        let key = key();
        let mut reader = RecordReader::new(&key, Uuid::nil(), 4);
        rows.into_iter().try_for_each(|row| reader.add(row))?;
        reader.end()
    }

    fn span(from: u64, to: u64) -> DataSpan {
        DataSpan {
            from,
            to,
            crc32c: Crc32c(1),
        }
    }

    fn rows_of(unit: i64, spans: &[(u64, u64)], rows: u64) -> Body {
        let mut all = Spans::default();
        spans
            .iter()
            .for_each(|(from, to)| all.push(span(*from, *to)));
        let done = RowsDone {
            unit: UnitId(unit),
            spans: all,
            rows,
            is_frozen: false,
            mask: Some(MaskCounts {
                rows,
                rows_kept: rows,
                changed: vec![1],
            }),
        };
        Body {
            rows: vec![done],
            ..Body::default()
        }
    }

    fn end_of(unit: i64, bytes: u64) -> Body {
        let end = DataEnd {
            unit: UnitId(unit),
            bytes,
            lines: 0,
        };
        Body {
            ends: vec![end],
            ..Body::default()
        }
    }

    #[test]
    fn rows_of_several_attempts_add_up() {
        let done = read([
            row((1, 0, 1), &rows_of(7, &[(0, 10)], 2)),
            row((1, 0, 2), &rows_of(7, &[(20, 30)], 3)),
            row((1, 1, 1), &end_of(7, 40)),
            row((3, -1, 1), &Body::of_mark(Mark::Loaded)),
            row((3, 0, 1), &rows_of(7, &[(10, 20)], 5)),
        ])
        .unwrap();
        let unit = UnitId(7);
        assert_eq!(
            done.spans_of(unit),
            [span(0, 10), span(10, 20), span(20, 30)]
        );
        assert_eq!(done.missing(unit, 5..40), [30..40]);
        assert_eq!((done.rows_of(unit), done.bytes_of(unit)), (10, 30));
        assert!(done.has_rows(unit) && !done.is_complete(unit));
        let epoch: u64 = 5 << 32;
        assert_eq!(
            done.xids(unit),
            [(epoch + 101, 2), (epoch + 102, 3), (epoch + 301, 5)]
        );
        assert!(done.is_recorded(111) && done.is_recorded(301) && !done.is_recorded(300));
        assert_eq!(done.mask_of(unit).unwrap().changed, [3]);
        assert!(done.has(Mark::Loaded) && !done.has(Mark::Renamed) && !done.has_finishing());
        let totals = done.totals();
        assert_eq!((totals.attempt, totals.bytes, totals.rows), (3, 30, 10));
        assert!((totals.seconds - 0.5).abs() < 1e-9, "{totals:?}");
        assert_eq!(done.missing(UnitId(8), 0..4), [0..4]);
        assert!(done.spans_of(UnitId(8)).is_empty());
    }

    #[test]
    fn a_unit_is_complete_if_its_end_is_known_and_nothing_is_missing() {
        let all = || row((1, 0, 1), &rows_of(7, &[(0, 10)], 2));
        assert!(!read([all()]).unwrap().is_complete(UnitId(7)));
        let with_end = |bytes| read([all(), row((1, 1, 1), &end_of(7, bytes))]).unwrap();
        assert!(with_end(10).is_complete(UnitId(7)));
        assert!(!with_end(11).is_complete(UnitId(7)));
        let empty = read([row((1, 0, 1), &end_of(7, 0))]).unwrap();
        assert!(empty.is_complete(UnitId(7)) && !empty.has_rows(UnitId(7)));
        assert!(!Resumed::default().is_complete(UnitId(7)));
    }

    #[test]
    fn what_is_loaded_after_a_proof_is_not_proven() {
        let extent = Extent {
            offset: 5,
            length: 6,
            crc32c: Crc32c(9),
        };
        let proof = Body {
            parts: vec![ProvenPart::Block {
                unit: UnitId(7),
                extent,
            }],
            ..Body::default()
        };
        let first = || row((1, 0, 1), &rows_of(7, &[(0, 10)], 2));
        let proven = || row((1, 1, 1), &proof);
        let second = || row((2, 0, 1), &rows_of(7, &[(10, 20)], 2));
        assert!(read([first(), proven()]).unwrap().is_proven(UnitId(7)));
        let after = read([first(), proven(), second()]).unwrap();
        assert!(!after.is_proven(UnitId(7)));
        let again = row((2, 1, 1), &proof);
        let again = read([first(), proven(), second(), again]).unwrap();
        assert!(again.is_proven(UnitId(7)));
    }

    /// Only with the checksums of all other blocks is such a block proven.
    #[test]
    fn a_block_that_was_read_is_not_proven() {
        let unit = UnitId(7);
        let extent = Extent {
            offset: 5,
            length: 6,
            crc32c: Crc32c(9),
        };
        let proof = Body {
            parts: vec![ProvenPart::BlockRead { unit, extent }],
            ..Body::default()
        };
        let first = || row((1, 0, 1), &rows_of(7, &[(0, 10)], 2));
        let was_read = || row((1, 1, 1), &proof);
        let done = read([first(), was_read()]).unwrap();
        assert!(done.is_read(unit) && !done.is_proven(unit));
        assert_eq!(done.blocks(), [(unit, extent)]);
        let second = row((2, 0, 1), &rows_of(7, &[(10, 20)], 2));
        assert!(!read([first(), was_read(), second]).unwrap().is_read(unit));
    }

    #[test]
    fn entries_statements_and_bytes_are_known() {
        let extent = Extent {
            offset: 5,
            length: 6,
            crc32c: Crc32c(9),
        };
        let mut statements = Spans::default();
        for n in [1, 2, 9] {
            statements.push(DataSpan::of_statement(n, b"x"));
        }
        let body = Body {
            entries: vec![(UnitId(1), EntryPart::Whole), (UnitId(2), EntryPart::Index)],
            statements,
            objects: vec![ObjectsDone {
                unit: UnitId(4),
                spans: rows_of(4, &[(0, 5)], 0).rows[0].spans.clone(),
            }],
            parts: vec![ProvenPart::Block {
                unit: UnitId(4),
                extent,
            }],
            tables: vec![(UnitId(5), "t".into(), "SET search_path = s".into())],
            renames: vec![("a".into(), "b".into()), ("b".into(), "c".into())],
            marks: vec![Mark::Finished(1)],
            ..Body::default()
        };
        let done = read([row((1, 0, 1), &body)]).unwrap();
        assert!(done.is_done(UnitId(1), EntryPart::Whole));
        assert!(!done.is_done(UnitId(1), EntryPart::Index));
        assert!(done.is_done(UnitId(2), EntryPart::Index));
        assert!(!done.is_done(UnitId(2), EntryPart::Whole));
        let ran: Vec<u64> = (0..12).filter(|n| done.statement_done(*n)).collect();
        assert_eq!(ran, [1, 2, 9]);
        assert_eq!(done.statement_spans().len(), 2);
        assert!(done.has_rows(UnitId(4)) && done.is_proven(UnitId(4)));
        assert_eq!(done.blocks(), [(UnitId(4), extent)]);
        let tables: Vec<_> = done.tables().collect();
        assert_eq!(tables, [(UnitId(5), "t", "SET search_path = s")]);
        assert_eq!((done.schema_now("a"), done.schema_now("x")), ("c", "x"));
        assert!(done.has_finishing());
        let known: Vec<u32> = (99..110).filter(|xid| done.is_recorded(*xid)).collect();
        assert_eq!(known, [101, 102, 103]);
    }

    /// A row is explained by the same transactions before and after the record is gone.
    #[test]
    fn what_is_kept_of_a_record_says_the_same_of_rows() {
        let body = Body {
            tables: vec![(UnitId(7), "t".into(), "SET search_path = s".into())],
            renames: vec![("a".into(), "b".into())],
            ..rows_of(7, &[(0, 10)], 2)
        };
        let entry = Body::of_entries(vec![(UnitId(8), EntryPart::Whole)]);
        let rows = [row((1, 0, 1), &body), row((1, 0, 2), &entry)];
        let read = read(rows).unwrap();
        let text = serde_json::to_string(&read.tallies()).unwrap();
        let tallies: Tallies = serde_json::from_str(&text).unwrap();
        let kept = Resumed::of_tallies(tallies.clone());
        for all in [&read, &kept] {
            assert_eq!(all.xids(UnitId(7)), read.xids(UnitId(7)));
            assert_eq!((all.rows_of(UnitId(7)), all.xids(UnitId(8)).len()), (2, 0));
            assert_eq!(all.table_of(UnitId(7)), Some(("t", "SET search_path = s")));
            assert_eq!(all.schema_now("a"), "b");
            assert!(all.is_recorded(102) && !all.is_recorded(103));
            assert!(!all.has_finishing());
        }
        assert!(kept.has(Mark::Loaded) && !kept.is_done(UnitId(8), EntryPart::Whole));
        // SQL that nothing recorded.
        let none = tallies.clone().with_unrecorded(9, 9);
        assert!(!Resumed::of_tallies(none).has_finishing());
        let kept = Resumed::of_tallies(tallies.with_unrecorded(103, 105));
        assert!(kept.has_finishing() && kept.is_recorded(104) && !kept.is_recorded(105));
    }

    /// Otherwise the request is what kills workers.
    #[test]
    fn an_attempt_that_was_killed_has_got_further_if_it_has_added_rows() {
        let rows = |last: &[(i32, i32, i32)]| {
            let all = [(1, 0, 1), (2, 0, 1)].iter().chain(last);
            let all: Vec<_> = all.map(|place| row(*place, &Body::default())).collect();
            read(all).unwrap().totals().has_added
        };
        assert!(!rows(&[]));
        assert!(rows(&[(3, 0, 1)]));
    }

    #[test]
    fn a_record_that_somebody_else_has_written_to_is_not_read() {
        let good = || {
            let body = rows_of(7, &[(0, 10)], 2);
            [(1, 0, 1), (1, 0, 2), (1, 1, 1), (2, 0, 1)].map(|place| {
                let mut body = body.clone();
                body.rows[0].unit = UnitId(i64::from(place.0 * 100 + place.1 * 10 + place.2));
                row(place, &body)
            })
        };
        assert!(read(good()).is_ok());
        let edited = |what: &dyn Fn(&mut Vec<StoredRow>)| {
            let mut rows = Vec::from(good());
            what(&mut rows);
            matches!(read(rows), Err(RecordFault::Edited(_)))
        };
        assert!(edited(
            &|rows| rows[1].body = rows[1].body.replace("\"n\":2", "\"n\":3")
        ));
        assert!(edited(&|rows| rows[1].mac[0] ^= 1));
        assert!(edited(&|rows| assert!(rows[1].mac.pop().is_some())));
        assert!(edited(&|rows| rows[1].ours = false));
        assert!(
            edited(&|rows| rows[0].xid = rows[1].xid + 1),
            "a later transaction of its session"
        );
        assert!(
            edited(&|rows| rows[1].xid = rows[3].xid + 1),
            "a transaction of the next attempt"
        );
        assert!(
            edited(&|rows| rows[2].xid = rows[3].xid),
            "a transaction of another row"
        );
        assert!(
            edited(&|rows| rows[3].attempt = 3),
            "moved to another attempt"
        );
        assert!(edited(&|rows| rows[2].lane = 2), "moved to another session");
        assert!(
            edited(&|rows| drop(rows.remove(0))),
            "the first of a session"
        );
        assert!(edited(&|rows| rows.insert(1, rows[0].clone())), "twice");
        let ours = row((4, 0, 1), &Body::default());
        assert!(
            edited(&|rows| rows.push(ours.clone())),
            "of the attempt that reads"
        );
        // The rows of tables show that the last one of a session is missing.
        assert!(!edited(&|rows| drop(rows.remove(1))));
    }

    #[test]
    fn a_record_that_does_not_say_everything_is_not_continued() {
        let given_up = Body {
            incomplete: Some("why".into()),
            ..Body::default()
        };
        let twice = {
            let mut body = rows_of(7, &[(0, 10)], 1);
            body.add(rows_of(7, &[(9, 20)], 1));
            body
        };
        for body in [given_up, twice] {
            let read = read([row((1, 0, 1), &body)]);
            assert!(matches!(read, Err(RecordFault::Incomplete(_))), "{read:?}");
        }
        let mut unknown = row((1, 0, 1), &Body::default());
        unknown.body = r#"{"new":1}"#.into();
        unknown.mac = mac(&key(), Uuid::nil(), (1, 0, 1), &unknown.body).to_vec();
        let read = read([unknown]);
        assert!(matches!(read, Err(RecordFault::Incomplete(_))), "{read:?}");
    }

    #[test]
    fn what_was_refused_is_known_in_its_order() {
        let refused = |unit, after, part: &str| RefusedDone {
            unit: UnitId(unit),
            after,
            part: part.into(),
            sqlstate: "42704".into(),
            message: "no".into(),
        };
        let body = |all: &[RefusedDone]| Body {
            refused: all.to_vec(),
            ..Body::default()
        };
        let (table, owner, view) = (
            refused(1, 0, "whole"),
            refused(2, 1, "owner"),
            refused(3, 4, "whole"),
        );
        // The session that comes first has not found the first one.
        let read = read([
            row((1, 0, 1), &body(&[view.clone(), owner.clone()])),
            row((1, 1, 1), &body(&[table.clone(), owner.clone()])),
        ]);
        assert_eq!(read.unwrap().refused(), [table, owner, view]);
    }

    /// An unlogged table is empty after a crash of the server, and its rows are loaded again.
    #[test]
    fn rows_that_are_lost_are_not_there() {
        let unit = UnitId(7);
        let first = || {
            [
                row((1, 0, 1), &rows_of(7, &[(0, 10)], 2)),
                row((1, 1, 1), &end_of(7, 10)),
            ]
        };
        let done = read(first()).unwrap();
        let copy = done.clone();
        copy.lose(unit);
        copy.lose(unit);
        copy.lose(UnitId(99));
        assert!(!done.has_rows(unit) && !done.is_complete(unit));
        assert_eq!(done.missing(unit, 0..10), [0..10]);
        assert_eq!((done.rows_of(unit), done.totals().bytes), (0, 0));
        assert_eq!((done.xids(unit), done.spans_of(unit)), (&[][..], &[][..]));
        assert_eq!(
            (done.take_unsaid(), done.take_unsaid()),
            (vec![unit], vec![])
        );

        // The next attempt says so; what it loads again counts.
        let void = Body {
            void: vec![unit],
            ..Body::default()
        };
        let again = |second: Vec<StoredRow>| read(first().into_iter().chain(second)).unwrap();
        let done = again(vec![row((2, -1, 1), &void)]);
        assert!(!done.has_rows(unit) && !done.is_complete(unit));
        let done = again(vec![
            row((2, -1, 1), &void),
            row((2, 0, 1), &rows_of(7, &[(0, 10)], 2)),
        ]);
        assert!(done.is_complete(unit));
        assert_eq!(done.xids(unit), [((5u64 << 32) + 201, 2)]);
    }
}

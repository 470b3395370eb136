//! Work that can be continued, under the lock of its target: looked for, taken over from an earlier attempt, begun, handed
//! over to the next one, and sealed when only the swap is missing.
//!
//! A takeover is a fence. The comment of the database names the attempt that may work in it, so sessions of an earlier one
//! cannot be opened any more; those that are open are ended; and the secret with which rows are added to the record is
//! changed, so a transaction that shows the old one fails. Only then is the record read.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgdump_archive::{EntryKind, TocEntry};
use pgdump_restore::{Body, RecordKey, Resumed, ResumedTotals, UnitId, WorkRecord, check_recorded};
use tokio::time::Instant;

use super::advisory_locks::LOCK_PAUSE;
use super::confinement::Loader;
use super::staging::{ProvenStaging, Staging, force_drop, mark_attempt};
use super::target_lock::TargetLock;
use super::work::{
    BegunWork, ClaimedWork, FoundWork, NotContinued, ResumeTerms, WorkDone, WorkState, reason_of,
};
use crate::error::{DatabaseError, DatabaseKind, RestoreError};
use crate::postgres::{AttemptMark, Server, Session, ident, map_pg_error};
use crate::steps::reached;

/// How long a takeover waits for the sessions of the attempt before it to end.
const ENDING_LIMIT: Duration = Duration::from_secs(30);

/// Ends the sessions of this role, and of the roles `$3`, on the database `$1`, but for the session `$2`.
const END_SESSIONS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datid = $1 AND pid <> $2 AND (usename = current_user OR usename::text = ANY($3))";

/// Why the work of an attempt that ends is not kept.
const NOT_STORED: &str = "its record could not be stored when the attempt ended";

/// A process that no session has.
pub(super) const NOBODY: i32 = 0;

/// What the work of an earlier attempt is compared with.
pub struct Continuing<'a> {
    /// The entries that are restored; none of SQL text.
    pub entries: &'a [TocEntry],
    /// How many connections may read.
    pub sessions: usize,
    pub loader: Option<&'a Loader>,
    /// Whether what the server refuses is left out.
    pub skips: bool,
}

/// What became of the work of an earlier attempt.
pub enum TakenOver {
    Continued {
        staging: Staging,
        record: Arc<WorkRecord>,
        totals: ResumedTotals,
        /// How long it took to check it, in seconds.
        check_seconds: f64,
        /// For the result.
        notes: Vec<String>,
    },
    /// Everything was loaded and proven; the result of the load.
    Sealed {
        staging: ProvenStaging,
        draft: serde_json::Value,
    },
    Not(NotContinued),
}

/// A record that this attempt has taken over.
struct TakenRecord {
    record: Arc<WorkRecord>,
    totals: ResumedTotals,
    notes: Vec<String>,
}

/// What may be kept when an attempt fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptWork {
    /// Nothing that could be continued.
    Nothing,
    /// That of an earlier attempt, which this one has not touched.
    OfEarlierAttempt,
    /// That of this attempt.
    OfThisAttempt,
}

impl TargetLock {
    /// Whether the journal can record what a restore needs to be continued.
    pub fn can_keep_work(&self) -> bool {
        self.journal.works()
    }

    /// The work that an earlier attempt of this request has left, unless this attempt has taken it over or refused it.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn find_work(&self) -> Result<Option<Arc<FoundWork>>, RestoreError> {
        let is_known = match &*self.work.lock() {
            ClaimedWork::Found(found) => return Ok(Some(found.clone())),
            ClaimedWork::Unknown => false,
            ClaimedWork::Nothing | ClaimedWork::Begun(_) => true,
        };
        if is_known {
            return Ok(None);
        }
        let staging = self.staging_name();
        let names = (staging.as_str(), self.target.as_str());
        let found = self.journal.find_work(&self.lock, &self.request_id, names);
        let found = found.await?.map(Arc::new);
        *self.work.lock() = found
            .clone()
            .map_or(ClaimedWork::Nothing, ClaimedWork::Found);
        Ok(found)
    }

    /// What may be kept if this attempt fails now.
    pub fn kept_work(&self) -> KeptWork {
        match &*self.work.lock() {
            ClaimedWork::Nothing => KeptWork::Nothing,
            ClaimedWork::Unknown | ClaimedWork::Found(_) => KeptWork::OfEarlierAttempt,
            // The record was given up, did not begin, or was dropped before something would have read it.
            ClaimedWork::Begun(begun) if !begun.can_be_kept() => KeptWork::Nothing,
            ClaimedWork::Begun(_) => KeptWork::OfThisAttempt,
        }
    }

    /// Whether the work of this attempt has everything but the swap.
    pub fn is_sealed(&self) -> bool {
        self.begun_work().is_some_and(|w| w.is_sealed())
    }

    /// For how long this attempt has recorded work, in seconds.
    pub fn seconds_of_work(&self) -> f64 {
        self.begun_work()
            .map_or(0.0, |w| w.began.elapsed().as_secs_f64())
    }

    pub(super) fn begun_work(&self) -> Option<Arc<BegunWork>> {
        match &*self.work.lock() {
            ClaimedWork::Begun(begun) => Some(begun.clone()),
            ClaimedWork::Nothing | ClaimedWork::Unknown | ClaimedWork::Found(_) => None,
        }
    }

    pub(super) fn set_begun(&self, begun: BegunWork) {
        *self.work.lock() = ClaimedWork::Begun(Arc::new(begun));
        self.work_begun.notify_one();
    }

    /// Goes on with the work of an earlier attempt, if it is complete and untouched. The caller has compared what it
    /// belongs to.
    ///
    /// # Errors
    /// `target_unavailable`, also if sessions of that attempt do not end. The work is then as it was.
    pub async fn take_over(
        &self,
        found: &FoundWork,
        terms: ResumeTerms,
        with: Continuing<'_>,
    ) -> Result<TakenOver, RestoreError> {
        if let Some(why) = found.obstacle(&self.target, terms) {
            return Ok(TakenOver::Not(why));
        }
        let Some(key) = found.key.clone() else {
            return Ok(TakenOver::Not(NotContinued::Edited("its key".into())));
        };
        let attempt = i32::try_from(found.attempt).unwrap_or(i32::MAX - 1) + 1;
        let began = Instant::now();
        let staging = self.fence(found).await?;
        if found.state == WorkState::Sealed {
            return self.take_sealed(found, staging, (attempt, with)).await;
        }
        let taken = self.take_record(&staging, (found, key), &with).await?;
        let TakenRecord {
            record,
            totals,
            mut notes,
        } = match taken {
            Ok(taken) => taken,
            Err(why) => return Ok(TakenOver::Not(why)),
        };
        let done = WorkDone {
            bytes: totals.bytes,
            rows: totals.rows,
            share: found.share,
        };
        self.record_takeover(found, attempt, &done).await?;
        if totals.has_added {
            self.forget_crashes().await?;
        }
        let role = with.loader.and_then(Loader::temporary_role);
        self.set_begun(BegunWork::new(
            place_of(&staging),
            attempt,
            (record.clone(), done),
            role,
        ));
        reached("work.taken");
        notes.insert(
            0,
            format!(
                "continued attempt {}: it had loaded {} rows and {} bytes of data",
                totals.attempt, totals.rows, totals.bytes
            ),
        );
        Ok(TakenOver::Continued {
            staging,
            record,
            totals,
            check_seconds: began.elapsed().as_secs_f64(),
            notes,
        })
    }

    /// Marks the database as that of this attempt, and opens it to its owner.
    async fn fence(&self, found: &FoundWork) -> Result<Staging, RestoreError> {
        let made_for = (self.target.as_str(), self.request_id.as_str());
        let mut staging = Staging {
            oid: found.oid,
            is_in_place: found.name == self.target,
            ..Staging::named(&found.name)
        };
        staging.mark = Some(mark_attempt(&self.lock, &staging, made_for, self.attempt).await?);
        let name = ident(&found.name);
        self.lock
            .run(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
            .await?;
        reached("work.fenced");
        Ok(staging)
    }

    /// Becomes the only one that may write into the record, reads it, and compares it with the tables.
    async fn take_record(
        &self,
        staging: &Staging,
        (found, key): (&FoundWork, RecordKey),
        with: &Continuing<'_>,
    ) -> Result<Result<TakenRecord, NotContinued>, RestoreError> {
        let session = self.record_session(staging).await?;
        let ours = process_of(&session).await?;
        let roles = roles_of(with.loader);
        // One of them may hold locks that the takeover waits for.
        self.end_sessions(staging.oid, &roles, ours).await?;
        let record = match WorkRecord::take(&session, &found.pins, key, self.attempt).await {
            Ok(Ok(record)) => record,
            Ok(Err(fault)) => return Ok(Err(fault.into())),
            Err(e) => return Ok(Err(reason_of(e)?)),
        };
        // What such a session has shown the old secret to is committed or rolled back once it has ended.
        self.end_sessions(staging.oid, &roles, ours).await?;
        if self.has_prepared_transaction(&staging.name).await? {
            let what = "a prepared transaction is open in its database";
            return Ok(Err(NotContinued::Incomplete(what.into())));
        }
        let reading = staging.on(&self.server.streaming_rows());
        let reading = reading.connect(&staging.name, "record").await?;
        let resumed = match record.read_done(&reading).await {
            Ok(Ok(resumed)) => resumed,
            Ok(Err(fault)) => return Ok(Err(fault.into())),
            Err(e) => return Ok(Err(reason_of(e)?)),
        };
        if let Some(refused) = resumed.refused().first().filter(|_| !with.skips) {
            let why = format!("the server refused a definition: {}", refused.message);
            return Ok(Err(NotContinued::Incomplete(why)));
        }
        let server = with.loader.map_or(&self.server, |loader| &loader.server);
        let mut notes = match compare_rows((server, staging), with, &resumed).await? {
            Ok(notes) => notes,
            Err(why) => return Ok(Err(why)),
        };
        notes.extend(note_of_begun(begun_tables(with.entries, &resumed)));
        Ok(Ok(TakenRecord {
            totals: resumed.totals(),
            record,
            notes,
        }))
    }

    pub(super) async fn record_takeover(
        &self,
        found: &FoundWork,
        attempt: i32,
        done: &WorkDone,
    ) -> Result<(), RestoreError> {
        let place = (found.name.as_str(), attempt);
        if !self.journal.take_work(&self.lock, place, done).await? {
            return Err(taken_by_another());
        }
        Ok(())
    }

    /// The attempt before crashed, but got further: this request is not what kills workers.
    pub(super) async fn forget_crashes(&self) -> Result<(), RestoreError> {
        let (id, attempt) = (&self.request_id, self.attempt);
        self.crashed_attempts.store(0, Relaxed);
        Ok(self.journal.forget_crashes(&self.lock, id, attempt).await?)
    }

    /// Drops the database of work that is not continued. The roles that were made for it stay: the plan of this attempt
    /// has found them.
    ///
    /// # Errors
    /// `target_unavailable`, or why it could not be dropped.
    pub async fn refuse_work(&self, found: &FoundWork) -> Result<(), RestoreError> {
        self.drop_unfinished().await?;
        let staging = self.staging_name();
        force_drop(&self.server, &self.lock, &staging).await?;
        self.journal.forget_work(&self.lock, &found.name).await?;
        self.journal
            .own(&self.lock, &self.staging_record(&staging))
            .await?;
        *self.work.lock() = ClaimedWork::Nothing;
        Ok(())
    }

    /// Records something that no session of the load has done; nothing if no work is recorded.
    ///
    /// # Errors
    /// `target_unavailable`, also if another attempt has taken over.
    pub async fn mark_work(&self, staging: &Staging, body: Body) -> Result<(), RestoreError> {
        let Some(begun) = self.begun_work().filter(|w| w.record.is_on()) else {
            return Ok(());
        };
        if begun.record.is_held() {
            // That needs no session.
            begun.record.mark_later(body);
            return Ok(());
        }
        let session = self.record_session(staging).await?;
        Ok(begun.record.mark(&session, body).await?)
    }

    /// What is loaded and committed, if this attempt works; `share`: of the whole, from 0 to 1.
    pub(super) fn work_done(&self, share: f64) -> Option<WorkDone> {
        self.begun_work().map(|begun| begun.done(share))
    }

    /// Leaves the work of this attempt to the next one: nobody can connect to its database until then. Returns how much it
    /// is; without the lock, nothing is touched, as after a crash. `share`: of the whole, from 0 to 1.
    ///
    /// # Errors
    /// `target_unavailable`. The next attempt finds the work all the same.
    pub async fn hand_over(&self, share: f64) -> Result<Option<WorkDone>, RestoreError> {
        let Some(begun) = self.begun_work() else {
            return Ok(None);
        };
        if self.lock.client().is_closed() {
            return Ok(None);
        }
        // What was stopped has sent no COMMIT, or leaves open whether it is done, and then nothing is written.
        if begun.is_to_be_stored() && !self.store_work(&begun).await? {
            // If no session was to be had, or the journal has refused, nothing says yet that nothing is kept.
            begun.record.end_held(NOT_STORED).await;
            begun.record.stop().await;
            return Ok(None);
        }
        self.set_loader_right().await;
        let name = ident(&begun.name);
        if let Err(e) = self.flush(&begun).await {
            tracing::debug!(error = %e, "what was read, but not loaded, is not recorded");
        }
        self.lock
            .run(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
            .await?;
        if let Some(role) = &begun.temporary_role {
            // Code of the backup may have given it another password.
            let sql = format!("ALTER ROLE {} NOLOGIN", ident(role));
            // It is dropped once nothing belongs to it any more.
            self.lock.run(&sql).await.or_else(unless_no_role)?;
        }
        let roles: Vec<String> = begun.temporary_role.iter().cloned().collect();
        self.end_sessions(begun.oid, &roles, NOBODY).await?;
        // Only now, because what these sessions were doing may have been committed.
        let done = begun.done(share);
        let (place, seconds) = (
            (begun.name.as_str(), begun.attempt),
            begun.began.elapsed().as_secs_f64(),
        );
        self.journal
            .hand_over_work(&self.lock, place, &done, seconds)
            .await?;
        reached("handed_back");
        Ok(Some(done))
    }

    /// Writes down what readers have found out since the last transaction of the load.
    async fn flush(&self, begun: &BegunWork) -> Result<(), DatabaseError> {
        if begun.is_sealed() || !begun.record.is_on() {
            return Ok(());
        }
        let server = self.server.without_retry();
        let server = server.pinned_to(&begun.name, begun.oid, begun.mark);
        let session = server.connect(&begun.name, "record").await?;
        begun.record.flush(&session).await
    }

    /// Whether another attempt has begun since this one lost its lock. What it has made, or has gone on with, may wait for the
    /// next one, so nothing may be dropped.
    pub(super) async fn is_taken_by_another(&self) -> Result<bool, RestoreError> {
        let (id, attempt) = (&self.request_id, self.attempt);
        let taken = self.journal.is_taken_by_another(&self.lock, id, attempt);
        Ok(taken.await?)
    }

    /// A session for the record, as our own role.
    pub(super) async fn record_session(&self, staging: &Staging) -> Result<Session, DatabaseError> {
        let server = staging.on(&self.server);
        server.connect(&staging.name, "record").await
    }

    /// Ends the sessions of our own role and of `roles` on a database, but for one, and waits until they have ended.
    pub(super) async fn end_sessions(
        &self,
        oid: u32,
        roles: &[String],
        but_for: i32,
    ) -> Result<(), RestoreError> {
        let deadline = Instant::now() + ENDING_LIMIT;
        loop {
            let client = self.lock.client();
            let told = client
                .execute(END_SESSIONS, &[&oid, &but_for, &roles])
                .await;
            if told.map_err(|e| map_pg_error(&e, "ending sessions of an earlier attempt"))? == 0 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let what = format!(
                    "sessions of an earlier attempt have not ended within {ENDING_LIMIT:?}"
                );
                return Err(DatabaseError::new(DatabaseKind::Unavailable, what).into());
            }
            tokio::time::sleep(LOCK_PAUSE).await;
        }
    }

    async fn has_prepared_transaction(&self, database: &str) -> Result<bool, RestoreError> {
        let sql = "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = $1)";
        let row = self.lock.client().query_one(sql, &[&database]).await;
        let row = row.map_err(|e| map_pg_error(&e, "looking for prepared transactions"))?;
        Ok(row.get(0))
    }
}

/// Compares the rows of a database with the record of them. `server`: of the role that reads. Returns notes for the result, or
/// why the work is not continued.
pub(super) async fn compare_rows(
    (server, staging): (&Server, &Staging),
    with: &Continuing<'_>,
    resumed: &Resumed,
) -> Result<Result<Vec<String>, NotContinued>, RestoreError> {
    let (server, name) = (staging.on(server), &staging.name);
    let checked = check_recorded(&server, name, with.entries, resumed, with.sessions);
    let checked = match checked.await {
        Ok(checked) => checked,
        Err(RestoreError::Database(e)) => return Ok(Err(reason_of(e)?)),
        Err(e) => return Err(e),
    };
    if let Some(touched) = checked.touched {
        return Ok(Err(touched.into()));
    }
    if let Some(table) = checked.emptied {
        let why = format!(
            "{table} is unlogged and empty: the server has crashed since it was loaded, and what follows its rows is done"
        );
        return Ok(Err(NotContinued::Incomplete(why)));
    }
    Ok(Ok(note_of_uncounted(&checked.uncounted)))
}

/// `e`, unless it says that there is no such role.
fn unless_no_role(e: DatabaseError) -> Result<(), DatabaseError> {
    if e.sqlstate() == Some("42704") {
        Ok(())
    } else {
        Err(e)
    }
}

pub(super) fn taken_by_another() -> RestoreError {
    let what = "another attempt has taken over this request";
    DatabaseError::new(DatabaseKind::Unavailable, what).into()
}

pub(super) fn place_of(staging: &Staging) -> (&str, u32, Option<AttemptMark>) {
    (&staging.name, staging.oid, staging.mark)
}

/// The process of the server that runs a session.
async fn process_of(session: &Session) -> Result<i32, DatabaseError> {
    let row = session
        .client()
        .query_one("SELECT pg_backend_pid()", &[])
        .await;
    Ok(row
        .map_err(|e| map_pg_error(&e, "looking up the session"))?
        .get(0))
}

pub(super) fn roles_of(loader: Option<&Loader>) -> Vec<String> {
    loader.map(|l| l.role().to_owned()).into_iter().collect()
}

/// Tables of which only a part of the rows is there.
fn begun_tables(entries: &[TocEntry], resumed: &Resumed) -> usize {
    let is_begun = |entry: &&TocEntry| {
        let unit = UnitId(i64::from(entry.dump_id.0));
        entry.kind == EntryKind::TableData && resumed.has_rows(unit) && !resumed.is_complete(unit)
    };
    entries.iter().filter(is_begun).count()
}

/// What these tables lose: COPY freezes only rows of a table that its own transaction has created or emptied.
fn note_of_begun(tables: usize) -> Option<String> {
    (tables > 0).then(|| {
        format!(
            "tables that an earlier attempt had begun to load, continued without FREEZE: {tables}"
        )
    })
}

/// The tables whose rows this role may not count.
fn note_of_uncounted(tables: &[String]) -> Vec<String> {
    /// Names that the note lists.
    const LISTED: usize = 10;
    if tables.is_empty() {
        return vec![];
    }
    let listed: Vec<&str> = tables.iter().take(LISTED).map(String::as_str).collect();
    let more = if tables.len() > LISTED { ", …" } else { "" };
    vec![format!(
        "the rows of {} tables that were loaded before were not counted: {}{more}",
        tables.len(),
        listed.join(", ")
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_were_not_counted_are_named() {
        assert!(note_of_uncounted(&[]).is_empty());
        let tables: Vec<String> = (0..11).map(|n| format!("t{n}")).collect();
        assert_eq!(
            note_of_uncounted(&tables[..2]),
            ["the rows of 2 tables that were loaded before were not counted: t0, t1"]
        );
        assert_eq!(note_of_begun(0), None);
        assert!(note_of_begun(2).is_some_and(|note| note.ends_with("without FREEZE: 2")));
        let many = note_of_uncounted(&tables).remove(0);
        assert!(
            many.ends_with("t9, …") && many.contains("11 tables"),
            "{many}"
        );
    }
}

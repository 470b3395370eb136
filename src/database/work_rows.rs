//! The table `pgrestored.work` of the journal: restores whose database is kept for their next attempt.

use std::time::Duration;

use pgdump_restore::RecordKey;

use super::journal::{Journal, OF_RUNNING_ATTEMPT, journal_error, storable, stored};
use super::names::labels_of;
use super::work::{FoundWork, NamedDatabase, WorkDone, WorkState};
use crate::error::DatabaseError;
use crate::postgres::Session;

/// The work that an attempt begins.
pub(super) struct NewWork<'a> {
    /// Name of its database.
    pub name: &'a str,
    pub oid: u32,
    pub request_id: &'a str,
    pub target: &'a str,
    /// The key of its record.
    pub key: &'a [u8],
    pub by_command: bool,
    pub pins: &'a str,
}

/// Work that is recorded, as the reaper and `status` see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KeptWorkRow {
    pub name: String,
    pub target: String,
    pub request_id: String,
    pub by_command: bool,
    pub bytes: u64,
    pub rows: u64,
    pub share: f64,
    pub attempt: u32,
    /// When its request was published, in microseconds since 1970; 0 if there is none any more.
    pub published_us: i64,
    /// Its last sign of life, and until when it is kept.
    pub since: jiff::Timestamp,
    pub until: jiff::Timestamp,
    /// That time has not passed.
    pub is_young: bool,
    /// Its request has no outcome yet.
    pub is_running: bool,
    /// A newer request has been applied to its target.
    pub is_superseded: bool,
    /// The database of its name is the one that was made.
    pub is_there: bool,
}

/// The field of a draft that says for which request the work was dropped.
const DISPLACED_BY: &str = "displaced_by";

/// Statements that list recorded work. `$1`: for how many seconds it is kept.
const KEPT: &str = "SELECT w.name, w.target, w.request_id, w.by_command, w.bytes, w.rows, w.share, w.attempt,
    (extract(epoch FROM w.updated) * 1000000)::bigint,
    w.updated + $1::float8 * interval '1 second' > clock_timestamp(),
    coalesce(r.state = 'running', false),
    EXISTS (SELECT FROM pgrestored.request n WHERE n.target = w.target AND n.applied AND n.sequence > r.sequence),
    EXISTS (SELECT FROM pg_database d WHERE d.datname = w.name AND d.oid = w.database_oid), coalesce(r.sequence, 0)
  FROM pgrestored.work w LEFT JOIN pgrestored.request r ON r.request_id = w.request_id ORDER BY w.target, w.name";

/// A count as the table has it.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A count of the table.
fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

impl Journal {
    /// Records the work that an attempt begins, in the place of any that an earlier one has left under the name.
    pub async fn own_work(
        self,
        session: &Session,
        work: &NewWork<'_>,
    ) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "INSERT INTO pgrestored.work (name, request_id, target, database_oid, key, by_command, pins, state, attempt)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'loading', 1)
             ON CONFLICT (name) DO UPDATE SET request_id = excluded.request_id, target = excluded.target,
               database_oid = excluded.database_oid, key = excluded.key,
               by_command = excluded.by_command, pins = excluded.pins, state = excluded.state, attempt = excluded.attempt,
               seconds = 0, bytes = 0, rows = 0, share = 0, draft = NULL, began = now(), updated = now()",
            &[
                &work.name,
                &work.request_id,
                &work.target,
                &work.oid,
                &work.key,
                &work.by_command,
                &work.pins,
            ],
        )
        .await?;
        Ok(())
    }

    /// The work that an earlier attempt of this request has left: in its staging database, or under the target's name.
    pub async fn find_work(
        self,
        session: &Session,
        request_id: &str,
        (staging, target): (&str, &str),
    ) -> Result<Option<FoundWork>, DatabaseError> {
        if !self.works() {
            return Ok(None);
        }
        let sql = "SELECT w.name, w.database_oid, w.state, w.pins, w.attempt,
              extract(epoch FROM clock_timestamp() - w.updated)::float8, w.bytes, w.rows, w.share, w.draft::text, w.key,
              d.oid, d.datconnlimit, pg_get_userbyid(d.datdba) = current_user,
              coalesce(shobj_description(d.oid, 'pg_database') COLLATE \"C\" >= $4
                AND shobj_description(d.oid, 'pg_database') COLLATE \"C\" < $5, false)
            FROM pgrestored.work w LEFT JOIN pg_database d ON d.datname = w.name
            WHERE w.request_id = $1 AND w.name IN ($2, $3) ORDER BY w.updated DESC LIMIT 1";
        let [first, end] = labels_of(target);
        let row = session
            .client()
            .query_opt(sql, &[&request_id, &staging, &target, &first, &end])
            .await;
        let Some(row) = row.map_err(|e| journal_error(&e))? else {
            return Ok(None);
        };
        let oid: Option<u32> = row.get(11);
        let database = oid.map(|oid| NamedDatabase {
            oid,
            connection_limit: row.get(12),
            is_ours: row.get(13),
            is_marked: row.get(14),
        });
        let draft: Option<String> = row.get(9);
        let draft = draft.and_then(|text| stored(serde_json::from_str(&text).ok()?));
        let displaced_by = draft.as_ref().and_then(|draft| draft.get(DISPLACED_BY));
        let displaced_by = displaced_by.and_then(serde_json::Value::as_str);
        let key: Vec<u8> = row.get(10);
        Ok(Some(FoundWork {
            name: row.get(0),
            oid: row.get(1),
            state: WorkState::parse(row.get(2)),
            pins: row.get(3),
            attempt: row.get::<_, i32>(4).unsigned_abs(),
            age: Duration::try_from_secs_f64(row.get(5)).unwrap_or_default(),
            bytes: unsigned(row.get(6)),
            rows: unsigned(row.get(7)),
            share: row.get(8),
            displaced_by: displaced_by.map(str::to_owned),
            draft,
            key: RecordKey::from_bytes(&key),
            database,
        }))
    }

    /// Records that this attempt goes on with the work of the one before it. Returns whether it did: the record was
    /// still that of the other one.
    pub async fn take_work(
        self,
        session: &Session,
        (name, attempt): (&str, i32),
        done: &WorkDone,
    ) -> Result<bool, DatabaseError> {
        let taken = self
            .execute(
                session,
                "UPDATE pgrestored.work SET attempt = $2, bytes = $3, rows = $4, updated = clock_timestamp(),
                   state = CASE state WHEN 'sealed' THEN state ELSE 'loading' END
                 WHERE name = $1 AND attempt = $2 - 1",
                &[&name, &attempt, &signed(done.bytes), &signed(done.rows)],
            )
            .await?;
        Ok(taken == 1)
    }

    /// Records that the worker of this request is alive, and what it has loaded: if it is killed, it cannot say so.
    pub async fn touch_work(
        self,
        session: &Session,
        request_id: &str,
        done: &WorkDone,
    ) -> Result<(), DatabaseError> {
        if self.works() {
            self.execute(
                session,
                "UPDATE pgrestored.work SET bytes = greatest(bytes, $2), rows = greatest(rows, $3),
                   share = greatest(share, $4), updated = clock_timestamp()
                 WHERE request_id = $1",
                &[
                    &request_id,
                    &signed(done.bytes),
                    &signed(done.rows),
                    &done.share,
                ],
            )
            .await?;
        }
        Ok(())
    }

    /// Records that the work of an attempt waits for the next one, and how much it is.
    pub async fn hand_over_work(
        self,
        session: &Session,
        (name, attempt): (&str, i32),
        done: &WorkDone,
        seconds: f64,
    ) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "UPDATE pgrestored.work SET state = CASE state WHEN 'sealed' THEN state ELSE 'waiting' END,
               bytes = greatest(bytes, $3), rows = greatest(rows, $4), share = greatest(share, $5), seconds = seconds + $6,
               updated = clock_timestamp()
             WHERE name = $1 AND attempt = $2",
            &[
                &name,
                &attempt,
                &signed(done.bytes),
                &signed(done.rows),
                &done.share,
                &seconds,
            ],
        )
        .await?;
        Ok(())
    }

    /// Records that everything is loaded and proven, and what the result says of that. Returns whether the record was
    /// still that of this attempt.
    pub async fn seal_work(
        self,
        session: &Session,
        (name, attempt): (&str, i32),
        draft: &serde_json::Value,
        done: &WorkDone,
    ) -> Result<bool, DatabaseError> {
        let draft = storable(draft, self.is_utf8);
        let sealed = self
            .execute(
                session,
                "UPDATE pgrestored.work SET state = 'sealed', draft = $3::text::jsonb, share = 1,
                   bytes = greatest(bytes, $4), rows = greatest(rows, $5), updated = clock_timestamp()
                 WHERE name = $1 AND attempt = $2",
                &[
                    &name,
                    &attempt,
                    &draft,
                    &signed(done.bytes),
                    &signed(done.rows),
                ],
            )
            .await?;
        Ok(sealed == 1)
    }

    /// Records that the database `name` is dropped for the request `by`, under the name `lost` of no database, where the next
    /// attempt of the one that loaded it finds that.
    pub async fn displace_work(
        self,
        session: &Session,
        (name, lost): (&str, &str),
        by: &str,
    ) -> Result<(), DatabaseError> {
        let draft = storable(&serde_json::json!({ DISPLACED_BY: by }), self.is_utf8);
        self.execute(
            session,
            "WITH older AS (DELETE FROM pgrestored.work WHERE name = $1 RETURNING *)
             INSERT INTO pgrestored.work AS w (name, request_id, target, database_oid, key, by_command, pins, state, attempt,
                 bytes, rows, share, draft, began)
             SELECT $2, request_id, target, 0, key, by_command, pins, 'waiting', attempt, bytes, rows, share, $3::text::jsonb, began
             FROM older
             ON CONFLICT (name) DO UPDATE SET database_oid = 0, draft = excluded.draft, bytes = excluded.bytes,
               rows = excluded.rows, updated = now()",
            &[&name, &lost, &draft],
        )
        .await?;
        Ok(())
    }

    /// Whether another attempt at this request has begun since this one.
    pub async fn is_taken_by_another(
        self,
        session: &Session,
        request_id: &str,
        attempt: uuid::Uuid,
    ) -> Result<bool, DatabaseError> {
        if !self.works() {
            return Ok(false);
        }
        let sql = "SELECT attempt <> $2::text::uuid FROM pgrestored.request WHERE request_id = $1";
        let row = session
            .client()
            .query_opt(sql, &[&request_id, &attempt.to_string()])
            .await;
        let row = row.map_err(|e| journal_error(&e))?;
        Ok(row.is_some_and(|row| row.get(0)))
    }

    /// Removes the record of the work in a database.
    pub async fn forget_work(self, session: &Session, name: &str) -> Result<(), DatabaseError> {
        if self.works() {
            self.execute(
                session,
                "DELETE FROM pgrestored.work WHERE name = $1",
                &[&name],
            )
            .await?;
        }
        Ok(())
    }

    /// Removes the records of work that is older than `within` and whose databases are gone. Somebody may begin work under one
    /// of their names meanwhile.
    pub async fn forget_lost_work(
        self,
        session: &Session,
        within: Duration,
    ) -> Result<(), DatabaseError> {
        if self.works() {
            self.execute(
                session,
                "DELETE FROM pgrestored.work w WHERE updated + $1::float8 * interval '1 second' <= clock_timestamp()
                   AND NOT EXISTS (SELECT FROM pg_database d WHERE d.datname = w.name AND d.oid = w.database_oid)",
                &[&within.as_secs_f64()],
            )
            .await?;
        }
        Ok(())
    }

    /// Removes the record of a person's restore that has no outcome: its work is dropped, and nobody repeats it by itself.
    pub async fn forget_command(
        self,
        session: &Session,
        request_id: &str,
    ) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "DELETE FROM pgrestored.request WHERE request_id = $1 AND state = 'running'",
            &[&request_id],
        )
        .await?;
        Ok(())
    }

    /// Records that earlier attempts got further: they crashed, but this request is not what kills workers.
    pub async fn forget_crashes(
        self,
        session: &Session,
        request_id: &str,
        attempt: uuid::Uuid,
    ) -> Result<(), DatabaseError> {
        let sql = format!("UPDATE pgrestored.request SET starts = 1 {OF_RUNNING_ATTEMPT}");
        self.execute(session, &sql, &[&request_id, &attempt.to_string()])
            .await?;
        Ok(())
    }

    /// All recorded work, which is kept for `within`.
    pub async fn kept_work(
        self,
        session: &Session,
        within: Duration,
    ) -> Result<Vec<KeptWorkRow>, DatabaseError> {
        if !self.works() {
            return Ok(vec![]);
        }
        let rows = session.client().query(KEPT, &[&within.as_secs_f64()]).await;
        let rows = rows.map_err(|e| journal_error(&e))?;
        let kept = |r: &tokio_postgres::Row| {
            let since = jiff::Timestamp::from_microsecond(r.get(8)).ok()?;
            Some(KeptWorkRow {
                name: r.get(0),
                target: r.get(1),
                request_id: r.get(2),
                by_command: r.get(3),
                bytes: unsigned(r.get(4)),
                rows: unsigned(r.get(5)),
                share: r.get(6),
                attempt: r.get::<_, i32>(7).unsigned_abs(),
                since,
                until: since.checked_add(within).unwrap_or(jiff::Timestamp::MAX),
                is_young: r.get(9),
                is_running: r.get(10),
                is_superseded: r.get::<_, Option<bool>>(11).unwrap_or_default(),
                is_there: r.get(12),
                published_us: r.get(13),
            })
        };
        Ok(rows.iter().filter_map(kept).collect())
    }
}

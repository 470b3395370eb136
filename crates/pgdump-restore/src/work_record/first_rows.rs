//! How a record begins: its tables, what it belongs to, and the rows that were in memory, in one transaction.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::held::HeldRow;
use super::{RECORDING, WORK_FORMAT, WorkRecord, Writer, body, mac};
use crate::error::{DatabaseError, DatabaseKind};
use crate::postgres::{Session, map_pg_error};
use crate::steps::reached;

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

/// The load goes on meanwhile. Whatever it has locked, it does not wait for the record with that for long.
const LIMIT: &str = "SET lock_timeout = '5s'";

/// Event triggers of the backup, which would fire, and could refuse this or write down that it happened.
const HAS_EVENT_TRIGGERS: &str =
    "SELECT EXISTS (SELECT FROM pg_event_trigger t WHERE t.evtenabled <> 'D' AND t.evtevent <> 'login'
        AND NOT EXISTS (SELECT FROM pg_depend d
            WHERE d.classid = 'pg_event_trigger'::regclass AND d.objid = t.oid AND d.deptype = 'e'))";

/// Whether anybody has got more than what [`CREATE`] grants. Default privileges of the backup may say so.
const IS_SHARED: &str = "SELECT EXISTS (SELECT FROM pg_class c, LATERAL aclexplode(c.relacl) a
            WHERE c.relnamespace = n.oid AND a.grantee <> c.relowner)
        OR EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee <> n.nspowner
            AND (a.grantee <> 0 OR a.privilege_type <> 'USAGE'))
    FROM pg_namespace n WHERE n.nspname = 'pgrestored_work'";

/// The rows that were in memory. Their times are those of the server.
const ADD_HELD: &str =
    "INSERT INTO pgrestored_work.done (attempt, lane, n, xid, at, body, mac, ours)
    SELECT $1, h.lane, h.n, h.xid, clock_timestamp() - h.age * interval '1 second', h.body, h.mac, true
    FROM unnest($2::int4[], $3::int4[], $4::int8[], $5::float8[], $6::text[], $7::bytea[])
        AS h(lane, n, xid, age, body, mac)";

impl WorkRecord {
    /// Writes a record that is in memory into the database of `session`, which is one of the role that owns the database; from
    /// there on, transactions write their own rows. `pins`: what it belongs to. Returns whether it has begun: if not,
    /// nothing is recorded any more, [`why_not_begun`](Self::why_not_begun) says why, and nothing was written.
    ///
    /// # Errors
    /// The server's error. If the record is [still in memory](Self::is_held), nothing was written, and another try may succeed.
    /// Otherwise nothing is recorded any more, and [`may_be_in_database`](Self::may_be_in_database) says whether the record
    /// may be there all the same. If this is stopped, both say the same.
    pub async fn store(&self, session: &Session, pins: &str) -> Result<bool, DatabaseError> {
        // Only the rest has to be quick, because the load waits for it.
        session.run(LIMIT).await?;
        let all = self.held.all_turns().await;
        let Some(writer) = self.writer.as_ref().filter(|_| self.is_held()) else {
            return Ok(false);
        };
        let written = if self.held.is_lost() {
            let why = "the answer to a COMMIT was lost before the record began";
            Ok(Err(why.to_owned()))
        } else {
            let rows = self.held.rows(&all);
            let sent = &self.may_be_in_database;
            writer
                .store(session, (&body::ascii(pins), &rows), sent)
                .await
        };
        if let Err(e) = &written
            && e.kind() == DatabaseKind::Unavailable
            && !self.may_be_in_database()
        {
            return written.map(|_| false);
        }
        let why = match &written {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why.clone()),
            Err(e) => Some(format!("what was loaded could not be recorded: {e}")),
        };
        if why.is_some() {
            self.is_on.store(false, Relaxed);
            *self.not_begun.lock() = why;
        }
        self.held.end(&all);
        Ok(written?.is_ok())
    }

    /// Whether the database may have the record: it has begun there, or the answer to its COMMIT is not known. What may be
    /// there has to be dropped.
    pub fn may_be_in_database(&self) -> bool {
        self.may_be_in_database.load(Relaxed)
    }

    /// Why the record has ended before it began.
    pub fn why_not_begun(&self) -> Option<String> {
        let lost = "the answer to a COMMIT was lost before the record began";
        let is_lost = self.is_held() && self.held.is_lost();
        let why = self.not_begun.lock().clone();
        why.or_else(|| is_lost.then(|| lost.to_owned()))
    }

    /// Returns when so much is in memory that the record has to begin.
    pub async fn filled(&self) {
        self.held.filled().await;
    }
}

impl Writer {
    /// Or why not. `sent`: set before COMMIT is.
    async fn store(
        &self,
        session: &Session,
        record: (&str, &[HeldRow]),
        sent: &AtomicBool,
    ) -> Result<Result<(), String>, DatabaseError> {
        let stored = self.try_to_store(session, record, sent).await;
        if !matches!(stored, Ok(Ok(()))) {
            // If that fails, too, the session has ended, and its transaction with it.
            let _ = session.run("ROLLBACK").await;
        }
        stored
    }

    async fn try_to_store(
        &self,
        session: &Session,
        (pins, rows): (&str, &[HeldRow]),
        sent: &AtomicBool,
    ) -> Result<Result<(), String>, DatabaseError> {
        if says(session, HAS_EVENT_TRIGGERS).await? {
            let why = "the backup's event triggers would see the record";
            return Ok(Err(why.to_owned()));
        }
        session.run(CREATE).await?;
        if says(session, IS_SHARED).await? {
            let why = "default privileges of the backup would let others write to the record";
            return Ok(Err(why.to_owned()));
        }
        let mac = mac::pins_mac(&self.key, self.id, pins).to_vec();
        let (id, digest) = (self.id.to_string(), self.secret.digest());
        let begun = session
            .client()
            .execute(BEGIN_HEAD, &[&id, &WORK_FORMAT, &pins, &mac, &digest])
            .await;
        begun.map_err(|e| map_pg_error(&e, RECORDING))?;
        if !rows.is_empty() {
            self.add_held(session, rows).await?;
        }
        reached("work.storing");
        sent.store(true, Relaxed);
        session.run("COMMIT").await?;
        Ok(Ok(()))
    }

    async fn add_held(&self, session: &Session, rows: &[HeldRow]) -> Result<(), DatabaseError> {
        let code = |row: &HeldRow| {
            let place = (self.attempt, row.lane, row.n);
            mac::mac(&self.key, self.id, place, &row.body).to_vec()
        };
        let lanes: Vec<i32> = rows.iter().map(|row| row.lane).collect();
        let numbers: Vec<i32> = rows.iter().map(|row| row.n).collect();
        let xids: Vec<i64> = rows.iter().map(|row| row.xid).collect();
        let ages: Vec<f64> = rows.iter().map(|row| row.age().as_secs_f64()).collect();
        let bodies: Vec<&str> = rows.iter().map(|row| row.body.as_str()).collect();
        let codes: Vec<Vec<u8>> = rows.iter().map(code).collect();
        let added = session
            .client()
            .execute(
                ADD_HELD,
                &[
                    &self.attempt,
                    &lanes,
                    &numbers,
                    &xids,
                    &ages,
                    &bodies,
                    &codes,
                ],
            )
            .await;
        added.map(drop).map_err(|e| map_pg_error(&e, RECORDING))
    }
}

/// The answer to a question.
async fn says(session: &Session, question: &str) -> Result<bool, DatabaseError> {
    let row = session.client().query_one(question, &[]).await;
    Ok(row.map_err(|e| map_pg_error(&e, RECORDING))?.get(0))
}

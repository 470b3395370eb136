//! Bookkeeping in the maintenance database, schema `pgrestored`: which requests have an outcome and
//! which databases are ours. The row of a success is written in the swap's own transaction.
//!
//! Where the role may not create the schema, restores work without it; only a redelivery after the
//! swap is then not recognised.

use crate::error::{DatabaseError, FailureReason};
use crate::postgres::{Session, fault};

const INSTALL: &str = "
SELECT pg_advisory_xact_lock(hashtextextended('pgrestored:install', 7));
CREATE SCHEMA IF NOT EXISTS pgrestored;
CREATE TABLE IF NOT EXISTS pgrestored.request (
  request_id text PRIMARY KEY,
  digest text NOT NULL,
  target text NOT NULL,
  sequence bigint NOT NULL,
  attempt uuid NOT NULL,
  state text NOT NULL CHECK (state IN ('running', 'done')),
  outcome jsonb,
  created timestamptz NOT NULL DEFAULT now(),
  updated timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS pgrestored.owned_database (
  name text PRIMARY KEY,
  kind text NOT NULL CHECK (kind IN ('staging', 'previous')),
  request_id text NOT NULL,
  target text NOT NULL,
  created timestamptz NOT NULL DEFAULT now(),
  keep_until timestamptz
);";

/// The journal, or the lack of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journal {
    on: bool,
}

pub(super) enum Known {
    New,
    Unfinished,
    Done { digest: String, outcome: serde_json::Value },
}

pub(super) struct Row<'a> {
    pub request_id: &'a str,
    pub digest: &'a str,
    pub target: &'a str,
    pub sequence: i64,
    pub attempt: uuid::Uuid,
}

impl Journal {
    pub async fn open(session: &Session) -> Result<Self, DatabaseError> {
        let installed = session
            .client()
            .query_one(
                "SELECT to_regclass('pgrestored.request') IS NOT NULL AND to_regclass('pgrestored.owned_database') IS NOT NULL",
                &[],
            )
            .await
            .map_err(|e| fault(&e, "looking for the journal"))?;
        if installed.get(0) {
            return Ok(Journal { on: true });
        }
        match session.run(&format!("BEGIN; {INSTALL} COMMIT;")).await {
            Ok(()) => Ok(Journal { on: true }),
            Err(e) if e.reason() == FailureReason::InsufficientPrivilege => {
                session.run("ROLLBACK").await?;
                tracing::warn!(error = %e, "the schema pgrestored cannot be created: working without a journal");
                Ok(Journal { on: false })
            }
            Err(e) => Err(e.context("creating the journal")),
        }
    }

    pub fn is_on(self) -> bool {
        self.on
    }

    async fn execute(
        self,
        session: &Session,
        sql: &str,
        values: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, DatabaseError> {
        if !self.on {
            return Ok(1);
        }
        session.client().execute(sql, values).await.map_err(|e| fault(&e, "journal"))
    }

    pub async fn look_up(self, session: &Session, request_id: &str) -> Result<Known, DatabaseError> {
        if !self.on {
            return Ok(Known::New);
        }
        let row = session
            .client()
            .query_opt(
                "SELECT state, digest, outcome::text FROM pgrestored.request WHERE request_id = $1",
                &[&request_id],
            )
            .await
            .map_err(|e| fault(&e, "journal"))?;
        let Some(row) = row else { return Ok(Known::New) };
        let outcome: Option<String> = row.get(2);
        match (row.get::<_, &str>(0), outcome.and_then(|t| serde_json::from_str(&t).ok())) {
            ("done", Some(outcome)) => Ok(Known::Done { digest: row.get(1), outcome }),
            _ => Ok(Known::Unfinished),
        }
    }

    /// Records that this attempt works on the request; an attempt that died before is taken over.
    pub async fn begin(self, session: &Session, row: &Row<'_>) -> Result<(), DatabaseError> {
        let attempt = row.attempt.to_string();
        self.execute(
            session,
            "INSERT INTO pgrestored.request (request_id, digest, target, sequence, attempt, state)
             VALUES ($1, $2, $3, $4, $5::text::uuid, 'running')
             ON CONFLICT (request_id) DO UPDATE SET digest = excluded.digest, target = excluded.target,
               sequence = excluded.sequence, attempt = excluded.attempt, state = 'running', updated = now()",
            &[&row.request_id, &row.digest, &row.target, &row.sequence, &attempt],
        )
        .await?;
        Ok(())
    }

    pub async fn own_staging(
        self,
        session: &Session,
        name: &str,
        request_id: &str,
        target: &str,
    ) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "INSERT INTO pgrestored.owned_database (name, kind, request_id, target) VALUES ($1, 'staging', $2, $3)
             ON CONFLICT (name) DO UPDATE SET created = now()",
            &[&name, &request_id, &target],
        )
        .await?;
        Ok(())
    }

    /// A replaced database, kept for `keep_hours`.
    pub async fn own_previous(
        self,
        session: &Session,
        name: &str,
        request_id: &str,
        target: &str,
        keep_hours: f64,
    ) -> Result<(), DatabaseError> {
        self.execute(
            session,
            "INSERT INTO pgrestored.owned_database (name, kind, request_id, target, keep_until)
             VALUES ($1, 'previous', $2, $3, now() + $4 * interval '1 hour')",
            &[&name, &request_id, &target, &keep_hours],
        )
        .await?;
        Ok(())
    }

    pub async fn forget_database(self, session: &Session, name: &str) -> Result<(), DatabaseError> {
        self.execute(session, "DELETE FROM pgrestored.owned_database WHERE name = $1", &[&name]).await?;
        Ok(())
    }

    /// Replaced databases of `target` whose time is over.
    pub async fn expired(self, session: &Session, target: &str) -> Result<Vec<String>, DatabaseError> {
        if !self.on {
            return Ok(vec![]);
        }
        let rows = session
            .client()
            .query(
                "SELECT name FROM pgrestored.owned_database
                 WHERE kind = 'previous' AND target = $1 AND keep_until < now()",
                &[&target],
            )
            .await
            .map_err(|e| fault(&e, "journal"))?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }

    /// Records the outcome, in whatever transaction is open.
    pub async fn finish(
        self,
        session: &Session,
        request_id: &str,
        attempt: uuid::Uuid,
        outcome: &serde_json::Value,
    ) -> Result<(), DatabaseError> {
        let changed = self
            .execute(
                session,
                "UPDATE pgrestored.request SET state = 'done', outcome = $3::text::jsonb, updated = now()
                 WHERE request_id = $1 AND attempt = $2::text::uuid",
                &[&request_id, &attempt.to_string(), &outcome.to_string()],
            )
            .await?;
        match changed {
            1 => Ok(()),
            _ => Err(DatabaseError::new(
                FailureReason::TargetUnavailable,
                "another attempt has taken this request over",
            )),
        }
    }
}

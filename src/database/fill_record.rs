//! The record of a fill, inside the database that is filled: a role that may create no database may have no journal
//! either. A schema of its own says whose attempt fills the database and what was there before; it is created in front
//! of everything else and dropped last. Whoever has the lock of the contents, which is taken in the database itself,
//! finds it and empties the database, or finishes the fill if its commit point has passed.

use std::time::Duration;

use super::advisory_locks::{LOCK_PAUSE, lock_name};
use super::held_objects::{first_objects, own_event_triggers, recording, remove_unrecorded};
use super::journal::{Journal, storable, stored};
use crate::error::{
    DatabaseError, DatabaseKind as D, RestoreError, ValidationError, ValidationKind, report,
};
use crate::postgres::{NO_DATABASE, Server, Session, ident, map_pg_error};
use crate::steps::reached;

/// How long sessions of an attempt that has ended may take to end.
const ENDING_LIMIT: Duration = Duration::from_secs(30);

/// Ends the sessions that load for this role, and counts them. What a killed worker sent is still being executed.
const END_LOADERS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()
      AND application_name IN ('pgrestored restore', 'pgrestored rename', 'pgrestored analyze', 'pgrestored check',
        'pgrestored contents', 'pgrestored extensions', 'pgrestored listing')";

/// What makes a record that of this database. A dump or a copy of a database that was being filled has its record, too,
/// which must not have the copy emptied: the copy is another database, or another transaction wrote the record there.
const HOME: &str = "(SELECT format('%s %s', oid, (SELECT xmin FROM pgrestored_fill.space LIMIT 1)) FROM pg_database WHERE datname = current_database())";

/// The same with the identifier of the cluster: `pg_upgrade` keeps the rest, but not the OIDs that the record lists.
const HOME_IN_CLUSTER: &str = "(SELECT format('%s %s %s', oid, (SELECT xmin FROM pgrestored_fill.space LIMIT 1),
      (SELECT system_identifier FROM pg_control_system())) FROM pg_database WHERE datname = current_database())";

/// Whether this role may read the identifier of the cluster. A managed service may deny that.
const KNOWS_CLUSTER: &str = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')";

/// The database that is filled, and the session that holds the lock of its contents.
pub(super) struct FillTarget {
    /// The database's name means this database.
    server: Server,
    target: String,
    pub(super) session: Session,
    pub(super) oid: u32,
}

/// What a database says of its own fill.
pub(super) struct Marker {
    /// Name of the request's staging database, which stands for the request.
    pub(super) staging: String,
    pub(super) attempt: String,
    /// PUBLIC may connect again once the fill has ended.
    is_closed: bool,
    /// The outcome of the restore, once its commit point has passed.
    pub(super) outcome: Option<serde_json::Value>,
}

/// What [`recover`] found in a database.
pub(super) enum Recovered {
    Nothing,
    Emptied,
    Finished,
    /// Somebody works on it.
    InUse,
}

fn failed(e: tokio_postgres::Error) -> DatabaseError {
    map_pg_error(&e, "reading the record of a fill")
}

/// The name that is locked in a database whose contents change.
fn lock_of(target: &str) -> String {
    format!("the contents of {target}")
}

/// The error for a database that holds something already.
pub(super) fn not_empty(target: &str, found: &[String]) -> RestoreError {
    let what = format!(
        "database {target} is not empty: it has {}; to fill it (--into-empty, in a request on_existing: fill), drop them; \
         to replace the whole database, use --on-existing replace",
        found.join(", ")
    );
    ValidationError::new(ValidationKind::TargetExists, what).into()
}

impl FillTarget {
    /// Connects to the database and locks its contents; `None` if it does not exist.
    ///
    /// # Errors
    /// `target_busy` if another restore fills it, `insufficient_privilege`, `access_denied`, `target_unavailable`.
    pub(super) async fn open(server: &Server, target: &str) -> Result<Option<Self>, DatabaseError> {
        let session = match server.connect(target, "fill").await {
            Err(e) if e.sqlstate() == Some(NO_DATABASE) => return Ok(None),
            other => other?,
        };
        lock_name(&session, &lock_of(target)).await?;
        session.run("SET synchronous_commit = on").await?;
        let sql = "SELECT oid FROM pg_database WHERE datname = current_database()";
        let row = session.client().query_one(sql, &[]).await.map_err(failed)?;
        let oid = row.get(0);
        Ok(Some(FillTarget {
            server: server.pinned_to(target, oid, None),
            target: target.to_owned(),
            session,
            oid,
        }))
    }

    /// The record in the database; `None` if nothing fills it, or if the record came with a copy of another database.
    ///
    /// # Errors
    /// `insufficient_privilege` if another role's restore left it.
    pub(super) async fn marker(&self) -> Result<Option<Marker>, DatabaseError> {
        let client = self.session.client();
        let sql = "SELECT pg_get_userbyid(nspowner)::text, pg_get_userbyid(nspowner) = current_user FROM pg_namespace
            WHERE nspname = 'pgrestored_fill'";
        let Some(row) = client.query_opt(sql, &[]).await.map_err(failed)? else {
            return Ok(None);
        };
        // Others could make it say that what is here was restored, and may be dropped.
        if !row.get::<_, bool>(1) {
            let what = format!(
                "a restore by role {} has not finished filling database {} (schema pgrestored_fill): restore into it as that role",
                row.get::<_, &str>(0),
                self.target
            );
            return Err(DatabaseError::new(D::InsufficientPrivilege, what));
        }
        let home = self.home().await?;
        let sql = format!(
            "SELECT staging, attempt, is_closed, outcome FROM pgrestored_fill.fill WHERE home IN ({HOME}, {home})"
        );
        let row = match client.query_opt(&sql, &[]).await.map_err(failed) {
            // A part of a copy.
            Err(e) if matches!(e.sqlstate(), Some("42P01" | "42703")) => None,
            found => found?,
        };
        Ok(row.map(|r| {
            let outcome: Option<String> = r.get(3);
            Marker {
                staging: r.get(0),
                attempt: r.get(1),
                is_closed: r.get(2),
                outcome: outcome.and_then(|text| stored(serde_json::from_str(&text).ok()?)),
            }
        }))
    }

    /// Records that the attempt fills the database, and what is there already. Where this role owns the database, others
    /// cannot connect from now on.
    ///
    /// # Errors
    /// `target_exists` if the database is not empty, `insufficient_privilege`, `target_unavailable`.
    pub(super) async fn begin(&self, staging: &str, attempt: &str) -> Result<(), RestoreError> {
        self.session
            .run("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '5s'")
            .await?;
        let begun = match self.write_marker(staging, attempt).await {
            Ok(()) => self.session.run("COMMIT").await.map_err(RestoreError::from),
            Err(e) => Err(e),
        };
        if begun.is_err() {
            // If the session is gone, the server has rolled back by itself.
            let _ = self.session.run("ROLLBACK").await;
        }
        begun
    }

    async fn write_marker(&self, staging: &str, attempt: &str) -> Result<(), RestoreError> {
        let found = first_objects(&self.session).await?;
        if !found.is_empty() {
            return Err(not_empty(&self.target, &found));
        }
        self.session
            .run(&format!(
                "CREATE SCHEMA pgrestored_fill;
                 CREATE TABLE pgrestored_fill.fill (staging text NOT NULL, attempt text NOT NULL, is_closed bool NOT NULL,
                   home text NOT NULL, outcome text, started timestamptz NOT NULL DEFAULT now());
                 {}",
                recording()
            ))
            .await?;
        let (is_closed, home) = (self.close().await?, self.home().await?);
        let sql = format!(
            "INSERT INTO pgrestored_fill.fill (staging, attempt, is_closed, home) VALUES ($1, $2, $3, {home})"
        );
        let written = self
            .session
            .client()
            .execute(&sql, &[&staging, &attempt, &is_closed])
            .await;
        written.map_err(failed)?;
        Ok(())
    }

    /// What makes a record that of this database, as far as this role may know it.
    async fn home(&self) -> Result<&'static str, DatabaseError> {
        let row = self.session.client().query_one(KNOWS_CLUSTER, &[]).await;
        let knows_cluster: bool = row.map_err(failed)?.get(0);
        Ok(if knows_cluster { HOME_IN_CLUSTER } else { HOME })
    }

    /// Closes the database to PUBLIC. Returns whether it was open to PUBLIC and is closed now.
    async fn close(&self) -> Result<bool, DatabaseError> {
        if !self.is_open_by_us().await? {
            return Ok(false);
        }
        let name = ident(&self.target);
        self.session
            .run(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC"))
            .await?;
        let sql = "SELECT has_database_privilege(current_database(), 'CONNECT')";
        let row = self.session.client().query_one(sql, &[]).await;
        let may_connect: bool = row.map_err(failed)?.get(0);
        if !may_connect {
            self.session
                .run(&format!("GRANT CONNECT ON DATABASE {name} TO PUBLIC"))
                .await?;
        }
        Ok(may_connect)
    }

    /// Whether PUBLIC may connect, and this role may change that.
    pub(super) async fn is_open_by_us(&self) -> Result<bool, DatabaseError> {
        let sql = "SELECT pg_has_role(datdba, 'USAGE') AND EXISTS (SELECT
              FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0 AND privilege_type = 'CONNECT')
            FROM pg_database WHERE datname = current_database()";
        let row = self.session.client().query_one(sql, &[]).await;
        Ok(row.map_err(failed)?.get(0))
    }

    /// Passes the commit point: from here on the fill is finished, and not undone, whatever happens.
    ///
    /// # Errors
    /// `target_unavailable` if another attempt has taken over.
    pub(super) async fn commit(
        &self,
        (staging, attempt): (&str, &str),
        outcome: &serde_json::Value,
    ) -> Result<(), DatabaseError> {
        // The database may have any encoding.
        let outcome = storable(outcome, false);
        let sql = "UPDATE pgrestored_fill.fill SET outcome = $3 WHERE staging = $1 AND attempt = $2 AND outcome IS NULL";
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&staging, &attempt, &outcome];
        let changed = self.session.client().execute(sql, &values).await;
        match changed.map_err(failed)? {
            1 => Ok(()),
            _ => {
                let what = "another attempt has taken over this database";
                Err(DatabaseError::new(D::Unavailable, what))
            }
        }
    }

    /// Removes the record, and opens the database again if it was closed for the fill.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub(super) async fn end(&self, marker: &Marker) -> Result<(), DatabaseError> {
        let open = if marker.is_closed {
            format!(
                "GRANT CONNECT ON DATABASE {} TO PUBLIC; ",
                ident(&self.target)
            )
        } else {
            String::new()
        };
        // The event triggers of the backup would refuse this, or record it in its tables.
        let (disable, enable) = own_event_triggers(&self.session).await?;
        // All statements run in one implicit transaction.
        let ended = self
            .session
            .run(&format!(
                "{open}{disable}DROP SCHEMA pgrestored_fill CASCADE; {enable}"
            ))
            .await;
        if ended.is_err() && marker.outcome.is_some() {
            // Somebody else's event trigger may refuse it. A complete database is opened all the same.
            self.session.run(&open).await?;
        }
        ended
    }

    /// As [`FillTarget::end`], of a fill that is complete: what its extensions run by themselves starts.
    ///
    /// # Errors
    /// As [`FillTarget::end`].
    pub(super) async fn open_again(&self, marker: &Marker) -> Result<(), DatabaseError> {
        self.end(marker).await?;
        // A session of its own: the calls set its search path.
        let resumed = async {
            let server = self.server.without_retry();
            let session = server.connect(&self.target, "confirmation").await?;
            pgdump_restore::resume_extensions(&session).await
        };
        if let Err(e) = resumed.await {
            tracing::warn!(
                error = report(&e),
                "the database is filled, but background jobs of an extension could not be started"
            );
        }
        Ok(())
    }

    /// Removes everything that was not there before the fill, and then its record.
    ///
    /// # Errors
    /// `insufficient_privilege`, `restore_error` if something cannot be removed, `target_unavailable`.
    pub(super) async fn empty(&self, marker: &Marker) -> Result<(), DatabaseError> {
        self.end_loaders().await?;
        reached("fill.emptying");
        remove_unrecorded(&self.server, &self.target, &self.session)
            .await
            .map_err(|e| e.context(&format!("emptying database {}", self.target)))?;
        reached("fill.emptied");
        self.end(marker).await
    }

    async fn end_loaders(&self) -> Result<(), DatabaseError> {
        if is_none_left(|| self.loaders_told_to_end()).await? {
            return Ok(());
        }
        let what = format!(
            "sessions of an earlier attempt on database {} have not ended yet",
            self.target
        );
        Err(DatabaseError::new(D::Unavailable, what))
    }

    async fn loaders_told_to_end(&self) -> Result<i64, DatabaseError> {
        let row = self.session.client().query_one(END_LOADERS, &[]).await;
        Ok(row.map_err(failed)?.get(0))
    }

    /// Records the outcome of a fill whose commit point has passed, and ends it. `session` has the journal.
    ///
    /// # Errors
    /// As [`FillTarget::end`].
    pub(super) async fn finish(
        &self,
        marker: &Marker,
        (session, journal): (&Session, Journal),
    ) -> Result<(), DatabaseError> {
        let request = marker
            .outcome
            .as_ref()
            .and_then(|o| o["request_id"].as_str());
        if let (Some(request), Some(outcome), Ok(attempt)) = (
            request,
            &marker.outcome,
            marker.attempt.parse::<uuid::Uuid>(),
        ) {
            let done = journal.finish(session, request, attempt, outcome, Some(self.oid));
            // It may be recorded already.
            if let Err(e) = done.await {
                tracing::debug!(
                    error = report(&e),
                    "the outcome of a fill was not recorded again"
                );
            }
        }
        self.open_again(marker).await?;
        journal.forget_database(session, &marker.staging).await
    }
}

/// Calls `end`, which tells sessions to end and counts them, until none is left; false if that takes too long.
async fn is_none_left<F>(mut end: impl FnMut() -> F) -> Result<bool, DatabaseError>
where
    F: Future<Output = Result<i64, DatabaseError>>,
{
    let deadline = tokio::time::Instant::now() + ENDING_LIMIT;
    while end().await? > 0 {
        if tokio::time::Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    Ok(true)
}

/// Empties a database that the request of `staging` was filling, or finishes the fill. `session` has the journal.
///
/// # Errors
/// `restore_error`, `target_unavailable`.
pub(super) async fn recover(
    server: &Server,
    journal: (&Session, Journal),
    (target, staging): (&str, &str),
) -> Result<Recovered, DatabaseError> {
    let filling = match FillTarget::open(server, target).await {
        Ok(Some(filling)) => filling,
        Ok(None) => return Ok(Recovered::Nothing),
        Err(e) => {
            return match (e.kind(), e.sqlstate()) {
                (D::Busy, _) => Ok(Recovered::InUse),
                // Where this role may not connect, or nobody may, it has filled nothing.
                (D::InsufficientPrivilege | D::AccessDenied, _) | (_, Some("55000")) => {
                    Ok(Recovered::Nothing)
                }
                _ => Err(e),
            };
        }
    };
    let marker = match filling.marker().await {
        Ok(Some(marker)) if marker.staging == staging => marker,
        Ok(_) => return Ok(Recovered::Nothing),
        Err(e) if e.kind() == D::InsufficientPrivilege => return Ok(Recovered::Nothing),
        Err(e) => return Err(e),
    };
    if marker.outcome.is_some() {
        filling.finish(&marker, journal).await?;
        return Ok(Recovered::Finished);
    }
    filling.empty(&marker).await?;
    Ok(Recovered::Emptied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason;

    #[test]
    fn what_is_in_the_way_is_named_with_what_to_do() {
        let found = ["table public.t".to_owned(), "more".to_owned()];
        let e = not_empty("app", &found);
        assert_eq!(e.reason(), FailureReason::TargetExists);
        let said = e.to_string();
        for part in [
            "database app is not empty: it has table public.t, more;",
            "drop them",
            "--on-existing replace",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_have_a_while_to_end() {
        let mut left = 5_i64;
        let ends = || {
            left -= 1;
            std::future::ready(Ok(left))
        };
        assert!(is_none_left(ends).await.unwrap());
        assert_eq!(left, 0);

        let begun = tokio::time::Instant::now();
        let stays = || std::future::ready(Ok(1));
        assert!(!is_none_left(stays).await.unwrap());
        let waited = begun.elapsed();
        let is_limit = (ENDING_LIMIT..ENDING_LIMIT + 2 * LOCK_PAUSE).contains(&waited);
        assert!(is_limit, "{waited:?}");
    }
}

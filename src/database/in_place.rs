//! Loading under the target's own name, for dumps whose computed values depend on the database's name. This
//! is only done where no database has that name. The database starts as a staging database, is renamed
//! while it is empty and closed to others, and is opened by the transaction that records the outcome. Until
//! then, its comment names its request, and its row in the journal marks it as droppable.

use super::journal::Journal;
use super::names::{LABEL, labels_of};
use super::staging::{Staging, force_drop};
use super::target_lock::TargetLock;
use crate::error::{DatabaseError, RestoreError, ValidationError, ValidationKind};
use crate::postgres::{Server, Session, ident, map_pg_error};
use crate::steps::reached;

impl TargetLock {
    /// Renames the empty staging database to the target's name. Only its owner and superusers can connect.
    ///
    /// # Errors
    /// `target_exists` if a database of that name appeared meanwhile, `target_unavailable`.
    pub async fn put_in_place(&self, made: &mut Staging) -> Result<(), RestoreError> {
        let (lock, from, to) = (&self.lock, ident(&made.name), ident(&self.target));
        lock.run(
            "BEGIN; SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '10s'; \
             SET LOCAL synchronous_commit = on",
        )
        .await?;
        let moved = async {
            lock.run(&format!("ALTER DATABASE {from} RENAME TO {to}"))
                .await?;
            reached("in_place.renamed");
            self.journal
                .own(lock, &self.staging_record(&self.target))
                .await?;
            lock.run("COMMIT").await
        };
        if let Err(e) = moved.await {
            // If the session is gone, the server has rolled back by itself.
            let _ = lock.run("ROLLBACK").await;
            return Err(match e.sqlstate() {
                Some("42P04" | "23505") => {
                    let what = format!("database {} appeared during the restore", self.target);
                    ValidationError::new(ValidationKind::TargetExists, what).into()
                }
                _ => e.context("renaming the new database").into(),
            });
        }
        made.name.clone_from(&self.target);
        made.is_in_place = true;
        reached("in_place");
        Ok(())
    }

    /// Drops an unfinished database that an earlier attempt left under the target's name, unless another request may go on
    /// with it.
    pub(super) async fn drop_unfinished(&self) -> Result<(), DatabaseError> {
        if self.waiting_in_place().await?.is_some() {
            return Ok(());
        }
        remove(&self.server, &self.lock, self.journal, &self.target).await?;
        Ok(())
    }
}

/// Drops the database `target` if, and only if, it is unfinished. `session` must hold the lock of its name.
/// Returns whether there was one.
pub(super) async fn remove(
    server: &Server,
    session: &Session,
    journal: Journal,
    target: &str,
) -> Result<bool, DatabaseError> {
    let recorded = journal.owned(session, Some(target)).await?;
    let is_recorded = recorded.iter().any(|o| o.is_in_place());
    if journal.is_on() && !is_recorded {
        return Ok(false);
    }
    let dropped = match marked(session, target).await? {
        Some(is_ours) if is_recorded || is_ours => {
            force_drop(server, session, target).await?;
            true
        }
        _ => false,
    };
    if is_recorded {
        journal.forget_database(session, target).await?;
    }
    Ok(dropped)
}

/// Databases of this role whose comment marks them as unfinished.
pub(super) async fn labelled(session: &Session) -> Result<Vec<String>, DatabaseError> {
    let sql = "SELECT datname::text FROM pg_database WHERE pg_get_userbyid(datdba) = current_user
        AND shobj_description(oid, 'pg_database') COLLATE \"C\" >= $1 || ' for ' || datname || ', request '
        AND shobj_description(oid, 'pg_database') COLLATE \"C\" < $1 || ' for ' || datname || ', request!' ORDER BY 1";
    let rows = session.client().query(sql, &[&LABEL]).await;
    Ok(rows
        .map_err(|e| map_pg_error(&e, "listing databases"))?
        .iter()
        .map(|r| r.get(0))
        .collect())
}

/// If a comment marks this database as an unfinished one, whether this role owns it.
async fn marked(session: &Session, name: &str) -> Result<Option<bool>, DatabaseError> {
    let sql = "SELECT pg_get_userbyid(datdba) = current_user FROM pg_database
        WHERE datname = $1 AND shobj_description(oid, 'pg_database') COLLATE \"C\" >= $2
          AND shobj_description(oid, 'pg_database') COLLATE \"C\" < $3";
    let [first, end] = labels_of(name);
    let row = session
        .client()
        .query_opt(sql, &[&name, &first, &end])
        .await;
    let row = row.map_err(|e| map_pg_error(&e, "looking up the target"))?;
    Ok(row.map(|r| r.get(0)))
}

/// Whether the transaction that opened the database was committed.
pub(super) async fn is_open(
    session: &Session,
    target: &str,
    oid: u32,
) -> Result<bool, DatabaseError> {
    let sql = "SELECT NOT coalesce(shobj_description(oid, 'pg_database') COLLATE \"C\" >= $3
          AND shobj_description(oid, 'pg_database') COLLATE \"C\" < $4, false)
        FROM pg_database WHERE datname = $1 AND oid = $2";
    let [first, end] = labels_of(target);
    let row = session
        .client()
        .query_opt(sql, &[&target, &oid, &first, &end])
        .await;
    let row = row.map_err(|e| map_pg_error(&e, "looking up the target"))?;
    Ok(row.is_some_and(|r| r.get(0)))
}

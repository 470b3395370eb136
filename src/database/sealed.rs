//! The end of the record: it is dropped once everything is loaded and proven, or before SQL that would find it, and what the
//! rows can be compared with afterwards is kept. A swap that has to be tried again costs nothing but the swap, and one look
//! at what somebody may have changed meanwhile.

use pgdump_restore::{RecordFault, Resumed, Tallies, WorkRecord};

use super::confinement::Loader;
use super::held_objects::own_event_triggers;
use super::staging::Staging;
use super::target_lock::TargetLock;
use super::work::{BegunWork, FoundWork, NotContinued, WorkDone, reason_of};
use super::work_session::{
    Continuing, NOBODY, TakenOver, compare_rows, place_of, roles_of, taken_by_another,
};
use crate::error::{DatabaseError, RestoreError, report};
use crate::postgres::{Session, map_pg_error};
use crate::steps::reached;

/// Why a database without a record that could be read is not compared with anything.
const NO_TALLIES: &str = "its record was dropped, or could not be read, before everything was loaded, so which rows it had is unknown";

impl TargetLock {
    /// The journal has the result of a load that lacks only the swap.
    pub(super) async fn take_sealed(
        &self,
        found: &FoundWork,
        mut staging: Staging,
        (attempt, with): (i32, Continuing<'_>),
    ) -> Result<TakenOver, RestoreError> {
        let unreadable = |why: &str| Ok(TakenOver::Not(NotContinued::Unreadable(why.into())));
        let loader = with.loader;
        let Some(mut draft) = found.draft.clone() else {
            return unreadable("the journal has no result of its load");
        };
        let owner = draft["owner"].as_str().map(str::to_owned);
        if owner.is_some() != loader.is_some() {
            return unreadable("the journal has another owner of what was loaded");
        }
        self.end_sessions(staging.oid, &roles_of(loader), NOBODY)
            .await?;
        let empty = empty_unlogged(&self.record_session(&staging).await?).await?;
        if let Some(table) = emptied_since(empty, &draft["empty"]) {
            let why = format!(
                "{table} is unlogged and empty: the server has crashed since it was loaded"
            );
            return Ok(TakenOver::Not(NotContinued::Incomplete(why)));
        }
        // Before anything in it is changed.
        match self.compare_sealed(&staging, &draft["rows"], &with).await? {
            Ok(notes) => staging.notes.extend(notes),
            Err(why) => return Ok(TakenOver::Not(why)),
        }
        drop_record(&self.record_session(&staging).await?).await?;
        if let (Some(owner), Some(loader)) = (&owner, loader) {
            let notes = self.give_to(owner, loader, &mut staging).await?;
            staging.notes.extend(notes);
        }
        let done = WorkDone {
            bytes: found.bytes,
            rows: found.rows,
            share: 1.0,
        };
        self.record_takeover(found, attempt, &done).await?;
        if draft["attempt"].as_u64() == Some(found.attempt.into()) {
            // It got further than those before it: whatever killed it then, this request is not what kills workers.
            self.forget_crashes().await?;
        }
        let role = loader.and_then(Loader::temporary_role);
        let work = (WorkRecord::off(), done);
        let begun = BegunWork::new(place_of(&staging), attempt, work, role);
        begun.set_sealed();
        self.set_begun(begun);
        reached("work.taken");
        let result = draft.get_mut("result").map(serde_json::Value::take);
        Ok(TakenOver::Sealed {
            staging: staging.proven_before(),
            draft: result.unwrap_or_default(),
        })
    }

    /// Compares the rows with those that were there when everything was loaded. Returns notes for the result. As our own
    /// role: tables may have their final owner already, and nothing of the backup runs.
    async fn compare_sealed(
        &self,
        staging: &Staging,
        tallies: &serde_json::Value,
        with: &Continuing<'_>,
    ) -> Result<Result<Vec<String>, NotContinued>, RestoreError> {
        let Ok(Some(tallies)) = serde_json::from_value::<Option<Tallies>>(tallies.clone()) else {
            return Ok(Err(NotContinued::Incomplete(NO_TALLIES.into())));
        };
        let resumed = Resumed::of_tallies(tallies);
        compare_rows((&self.server, staging), with, &resumed).await
    }

    /// Removes the record from the database, where the requester's own SQL would find it among the backup's objects. Until the
    /// work is sealed, an attempt that stops leaves nothing to continue. `has_sql`: that may change rows.
    ///
    /// # Errors
    /// `target_unavailable`; `restore_error`.
    pub async fn end_record(&self, staging: &Staging, has_sql: bool) -> Result<(), RestoreError> {
        let Some(begun) = self.begun_work() else {
            return Ok(());
        };
        // What it says of the rows is needed if the work is sealed later.
        self.store_before_seal(&begun).await?;
        let _one_at_a_time = begun.storing.lock().await;
        if !begun.record.is_on() && !begun.is_half_stored() {
            return Ok(());
        }
        let tallies = if begun.is_stored() {
            self.read_tallies(staging, &begun).await?
        } else {
            None
        };
        begun.record.stop().await;
        if !begun.may_be_stored() {
            return Ok(());
        }
        let session = self.record_session(staging).await?;
        let since = if has_sql {
            Some(transaction_of(&session).await?)
        } else {
            None
        };
        begun.keep_tallies((tallies, since));
        Ok(drop_record(&session).await?)
    }

    /// Records that everything is loaded and proven, with the result of that, and removes the record from the database,
    /// which is then the backup's. Nothing is recorded if nothing says which rows there are, or if the journal refuses: a swap
    /// that fails then begins from the start. `loader`: the role to which all of it belongs until its final owner gets it,
    /// which the next attempt repeats.
    ///
    /// # Errors
    /// `target_unavailable`, also if another attempt has taken over; `restore_error`.
    pub async fn seal(
        &self,
        staging: &Staging,
        loader: Option<&Loader>,
        draft: &serde_json::Value,
    ) -> Result<(), RestoreError> {
        let Some(begun) = self.begun_work().filter(|w| !w.is_sealed()) else {
            return Ok(());
        };
        self.store_before_seal(&begun).await?;
        let _one_at_a_time = begun.storing.lock().await;
        if !begun.may_be_stored() {
            // It was in memory, and the load was short.
            begun.record.stop().await;
            return Ok(());
        }
        let session = self.record_session(staging).await?;
        let tallies = self.tallies_at_end(&session, staging, &begun).await?;
        if let Some(tallies) = tallies.filter(|_| begun.is_stored()) {
            let owner = loader.map(Loader::owner);
            let empty = empty_unlogged(&session).await?;
            let draft = serde_json::json!({ "result": draft, "owner": owner, "empty": empty, "rows": tallies, "attempt": begun.attempt });
            self.tell_sealed(&begun, &draft).await?;
        }
        reached("work.sealing");
        drop_record(&session).await?;
        if !begun.is_sealed() {
            begun.record.stop().await;
        }
        reached("work.sealed");
        Ok(())
    }

    /// What the rows can be compared with once the record is gone; `None` if nothing says that.
    async fn tallies_at_end(
        &self,
        session: &Session,
        staging: &Staging,
        begun: &BegunWork,
    ) -> Result<Option<Tallies>, RestoreError> {
        match begun.kept_tallies() {
            Some((tallies, None)) => Ok(tallies),
            Some((tallies, Some(since))) => {
                // What has run since then, nothing has recorded.
                let now = transaction_of(session).await?;
                Ok(tallies.map(|tallies| tallies.with_unrecorded(since, now)))
            }
            None if begun.is_stored() => self.read_tallies(staging, begun).await,
            None => Ok(None),
        }
    }

    /// Tells the journal that this work is sealed. Whatever it says against that, the restore goes on.
    async fn tell_sealed(
        &self,
        begun: &BegunWork,
        draft: &serde_json::Value,
    ) -> Result<(), RestoreError> {
        let place = (begun.name.as_str(), begun.attempt);
        let done = begun.done(1.0);
        let sealing = self.journal.seal_work(&self.lock, place, draft, &done);
        match sealing.await {
            Ok(true) => begun.set_sealed(),
            Ok(false) => return Err(taken_by_another()),
            Err(e) if self.lock.run("SELECT 1").await.is_err() => return Err(e.into()),
            Err(e) => tracing::warn!(
                error = report(&e),
                "the journal does not know that only the swap is missing: if it has to be repeated, it begins from the start"
            ),
        }
        Ok(())
    }

    /// What the record says of the rows; `None` if there is none any more, if it says not all, or if it cannot be read.
    ///
    /// # Errors
    /// The connection was lost: the record is still there.
    async fn read_tallies(
        &self,
        staging: &Staging,
        begun: &BegunWork,
    ) -> Result<Option<Tallies>, RestoreError> {
        let server = staging.on(&self.server.streaming_rows());
        let reading = async {
            let session = server.connect(&staging.name, "record").await?;
            begun.record.read_tallies(&session).await
        };
        let why = match reading.await {
            Ok(Ok(tallies)) => return Ok(Some(tallies)),
            Ok(Err(RecordFault::Gone)) => return Ok(None),
            Ok(Err(fault)) => fault.to_string(),
            Err(e) => reason_of(e)?.to_string(),
        };
        tracing::warn!(
            error = why.as_str(),
            "the rows of this restore cannot be checked later: if the swap has to be repeated, it begins from the start"
        );
        Ok(None)
    }
}

/// The number of a transaction of a session, with its epoch: that of every later one is greater.
async fn transaction_of(session: &Session) -> Result<u64, DatabaseError> {
    let row = session
        .client()
        .query_one("SELECT pg_catalog.txid_current()", &[])
        .await;
    let row = row.map_err(|e| map_pg_error(&e, "asking for the transaction"))?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// The unlogged tables that are empty: after a crash, the server empties all of them. Their size is asked for, since a policy
/// of the backup may decide which rows are seen.
async fn empty_unlogged(session: &Session) -> Result<Vec<String>, DatabaseError> {
    const EMPTY: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relpersistence = 'u' AND c.relkind = 'r' AND pg_relation_size(c.oid) = 0 ORDER BY 1";
    let found = session.client().query(EMPTY, &[]).await;
    let found = found.map_err(|e| map_pg_error(&e, "looking for tables that are empty"))?;
    Ok(found.iter().map(|row| row.get(0)).collect())
}

/// A table that is empty now, and was not when everything was loaded.
fn emptied_since(now: Vec<String>, then: &serde_json::Value) -> Option<String> {
    let was_empty = |table: &String| {
        let mut names = then.as_array().into_iter().flatten();
        names.any(|name| name.as_str() == Some(table.as_str()))
    };
    now.into_iter().find(|table| !was_empty(table))
}

/// Removes the record from a database. The event triggers of the backup would refuse this, or record it in its tables.
async fn drop_record(session: &Session) -> Result<(), DatabaseError> {
    let (disable, enable) = own_event_triggers(session).await?;
    // All statements run in one implicit transaction.
    let sql = format!("{disable}DROP SCHEMA IF EXISTS pgrestored_work CASCADE; {enable}");
    let dropped = session.run(&sql).await;
    dropped.map_err(|e| e.context("removing the record of what was loaded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_always_empty_has_lost_nothing() {
        let of = |now: &[&str], then: serde_json::Value| {
            emptied_since(now.iter().map(|t| (*t).to_owned()).collect(), &then)
        };
        assert_eq!(of(&["s.a", "s.b"], serde_json::json!(["s.b", "s.a"])), None);
        let lost = of(&["s.a", "s.b"], serde_json::json!(["s.a"]));
        assert_eq!(lost.as_deref(), Some("s.b"));
        assert_eq!(of(&[], serde_json::Value::Null), None);
        assert!(of(&["s.a"], serde_json::Value::Null).is_some());
    }
}

//! The reaper drops what killed workers left behind: databases that are recorded in the journal, have a name
//! of pgrestored's form, and whose lock is free (a running worker holds it).

use std::time::Duration;

use super::advisory_locks::{server_clock, try_lock, unlock};
use super::fill_record::{Recovered, recover};
use super::journal::{Journal, Owned, RecordKind};
use super::names::{LABEL, PATTERN, named_like_ours, staging_name};
use super::retained::find_kept;
use super::staging::force_drop;
use super::target_lock::TargetLock;
use super::waiting::{WaitingRestore, is_continuable};
use super::work::ResumeTerms;
use super::work_rows::KeptWorkRow;
use super::{abandoned, in_place};
use crate::config::Resume;
use crate::error::{DatabaseError, RestoreError, report};
use crate::job::made_for;
use crate::postgres::{Server, Session, ident, map_pg_error};

/// Who runs a pass, and may therefore drop work that can be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapScope {
    /// A worker drops none.
    Worker,
    /// A person drops what was kept for a person.
    Person,
    /// A person drops what was kept for redeliveries, too.
    All,
}

/// The conditions of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReapTerms {
    pub resume: ResumeTerms,
    pub scope: ReapScope,
}

impl ReapTerms {
    /// Whether work of a stopped restore is kept for its next attempt.
    fn keeps(self, work: &KeptWorkRow) -> bool {
        let is_wanted = match self.scope {
            ReapScope::Worker => true,
            ReapScope::Person => !work.by_command,
            ReapScope::All => false,
        };
        is_wanted && self.resume.mode == Resume::Auto && is_continuable(work)
    }
}

/// What one pass did.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Reaped {
    /// Databases, roles and contents of databases that were dropped.
    pub dropped: Vec<String>,
    /// In use by a worker, or kept for a rollback.
    pub kept: Vec<String>,
    /// Databases with a name of pgrestored's form that are not recorded. They are left in place: check them by hand.
    pub unknown: Vec<String>,
    /// Could not be dropped, and why.
    pub failed: Vec<String>,
    /// Requests that started long ago and never finished. They are recorded as failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abandoned: Vec<String>,
    /// Restores that stopped, and whose databases are kept for their next attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingRestore>,
}

impl Reaped {
    pub fn add(&mut self, more: Reaped) {
        self.dropped.extend(more.dropped);
        self.kept.extend(more.kept);
        self.unknown.extend(more.unknown);
        self.failed.extend(more.failed);
        self.abandoned.extend(more.abandoned);
        self.waiting.extend(more.waiting);
    }
}

/// What became of one recorded database.
enum Reaping {
    /// What was dropped with it.
    Dropped(Vec<String>),
    /// A worker uses it, or it is kept for a rollback.
    Kept,
    /// It is kept for the next attempt of its restore.
    Waits(WaitingRestore),
}

/// Makes one pass over a server. Unfinished requests older than `max_age`, which no worker would accept any
/// more, are recorded as failed.
///
/// # Errors
/// `target_unavailable`, `access_denied`. What could not be dropped is listed in the result.
pub async fn reap(
    server: &Server,
    max_age: Duration,
    terms: ReapTerms,
) -> Result<Reaped, RestoreError> {
    // No retries: if the server is unavailable, the next pass will do.
    let session = server.without_retry().maintenance("reaper").await?;
    let journal = Journal::find(&session).await?;
    let mut reaped = Reaped::default();
    // First, because nothing waits for a request that has an outcome.
    (reaped.abandoned, reaped.failed) = abandoned::settle(&session, journal, max_age).await?;
    let ours = named_like_ours(&session).await?;
    let owned = if journal.is_on() {
        journal.owned(&session, None).await?
    } else {
        labelled(&session).await?
    };
    for name in ours.iter().filter(|n| owned.iter().all(|o| o.name != **n)) {
        // Without a journal, a replaced database is recognised by its name alone. `rollback` may need it.
        let list = if journal.is_on() {
            &mut reaped.unknown
        } else {
            &mut reaped.kept
        };
        list.push(name.clone());
    }
    for database in owned {
        let name = database.name.clone();
        match reap_one(server, (&session, journal), &database, terms).await {
            Ok(Reaping::Dropped(mut dropped)) => reaped.dropped.append(&mut dropped),
            Ok(Reaping::Kept) => reaped.kept.push(name),
            Ok(Reaping::Waits(restore)) => reaped.waiting.push(restore),
            Err(e) if session.client().is_closed() => return Err(e.into()),
            Err(e) => reaped.failed.push(format!("{name}: {}", report(&e))),
        }
    }
    // Whoever dropped their databases did not know of them.
    let lost = journal.forget_lost_work(&session, terms.resume.within);
    lost.await?;
    journal.forget_old(&session).await?;
    Ok(reaped)
}

/// Without a journal: staging databases of this role, recognised by their comment.
async fn labelled(session: &Session) -> Result<Vec<Owned>, DatabaseError> {
    let sql =
        "SELECT datname::text FROM pg_database WHERE datname ~ $1 AND pg_get_userbyid(datdba) = current_user
        AND shobj_description(oid, 'pg_database') LIKE $2 || '%' ORDER BY 1";
    let rows = session.client().query(sql, &[&PATTERN, &LABEL]).await;
    let owned = |name: String, target: String| Owned {
        name,
        target,
        kind: RecordKind::Staging,
        keep_until: None,
        expired: false,
    };
    let rows = rows.map_err(|e| map_pg_error(&e, "listing databases"))?;
    let mut all: Vec<Owned> = rows
        .iter()
        .map(|r| owned(r.get(0), String::new()))
        .collect();
    all.extend(
        in_place::labelled(session)
            .await?
            .into_iter()
            .map(|name| owned(name.clone(), name)),
    );
    Ok(all)
}

/// Drops one database if it may be dropped.
async fn reap_one(
    server: &Server,
    (session, journal): (&Session, Journal),
    database: &Owned,
    terms: ReapTerms,
) -> Result<Reaping, DatabaseError> {
    // A replaced database is protected by its target's lock, because a rollback may be using it.
    let lock = match database.kind {
        RecordKind::Staging | RecordKind::Verification => &database.name,
        RecordKind::Previous => &database.target,
    };
    let may_go = match database.kind {
        RecordKind::Staging | RecordKind::Verification => true,
        // Never drop the last copy.
        RecordKind::Previous => database.expired && exists(session, &database.target).await?,
    };
    if !may_go || !try_lock(session, lock).await? {
        return Ok(Reaping::Kept);
    }
    let done = match still_recorded(session, journal, database).await {
        Ok(true) => reap_locked(server, (session, journal), database, terms).await,
        Ok(false) => Ok(Reaping::Dropped(vec![])),
        Err(e) => Err(e),
    };
    if !session.client().is_closed() {
        unlock(session, lock).await?;
    }
    done
}

/// The same, with the lock of its name.
async fn reap_locked(
    server: &Server,
    (session, journal): (&Session, Journal),
    database: &Owned,
    terms: ReapTerms,
) -> Result<Reaping, DatabaseError> {
    let mut ended = None;
    if database.kind == RecordKind::Staging {
        // Only now, because a restore may have begun and stopped since this pass did.
        let works = journal.kept_work(session, terms.resume.within).await?;
        if let Some(work) = kept_in(&database.name, &works, terms) {
            return Ok(if work.name == database.name {
                Reaping::Waits(WaitingRestore::from(work))
            } else {
                Reaping::Kept
            });
        }
        ended = works.into_iter().find(|w| is_ended(w, &database.name));
    }
    if !database.is_in_place() {
        let dropped = reap_staging(server, session, journal, database).await?;
        if let (Some(work), Some(_)) = (&ended, &dropped) {
            journal.forget_command(session, &work.request_id).await?;
        }
        return Ok(dropped.map_or(Reaping::Kept, Reaping::Dropped));
    }
    let was_there = in_place::remove(server, session, journal, &database.name).await?;
    let dropped = was_there.then(|| format!("database {}", database.name));
    Ok(Reaping::Dropped(dropped.into_iter().collect()))
}

/// Whether this is the work of a person's restore, which nobody goes on with once its staging database of this name, whose lock
/// is held, is dropped.
fn is_ended(work: &KeptWorkRow, staging: &str) -> bool {
    work.by_command && work.is_running && staging_name(&work.request_id) == staging
}

/// The work for which this database, or what was made for it, is kept.
fn kept_in<'a>(
    database: &str,
    works: &'a [KeptWorkRow],
    terms: ReapTerms,
) -> Option<&'a KeptWorkRow> {
    // Under a target's own name, it still needs the roles that were made for its staging database.
    let is_its = |w: &KeptWorkRow| w.name == database || staging_name(&w.request_id) == database;
    works.iter().find(|w| is_its(w) && terms.keeps(w))
}

/// Drops a database, or empties the one that its request was filling. Returns what was dropped; `None` if somebody works
/// on it.
async fn reap_staging(
    server: &Server,
    session: &Session,
    journal: Journal,
    database: &Owned,
) -> Result<Option<Vec<String>>, DatabaseError> {
    let mut dropped = vec![];
    if database.kind == RecordKind::Staging && exists(session, &database.target).await? {
        let (server, names) = (server.without_retry(), (&*database.target, &*database.name));
        match recover(&server, (session, journal), names).await? {
            Recovered::Nothing | Recovered::Finished => {}
            Recovered::Emptied => dropped.push(format!("contents of database {}", database.target)),
            Recovered::InUse => return Ok(None),
        }
    }
    dropped.extend(remove(server, session, journal, &database.name).await?);
    Ok(Some(dropped))
}

/// Whether the record is unchanged since before the lock was taken.
async fn still_recorded(
    session: &Session,
    journal: Journal,
    database: &Owned,
) -> Result<bool, DatabaseError> {
    if !journal.is_on() {
        return Ok(true);
    }
    let now = journal.owned(session, Some(&database.target)).await?;
    Ok(now.iter().any(|o| {
        o.name == database.name && o.kind == database.kind && o.expired == database.expired
    }))
}

/// Drops a database, the roles that were created for it, and its record. Returns what was dropped.
pub(super) async fn remove(
    server: &Server,
    session: &Session,
    journal: Journal,
    name: &str,
) -> Result<Vec<String>, DatabaseError> {
    let mut dropped = Vec::new();
    if exists(session, name).await? {
        force_drop(server, session, name).await?;
        dropped.push(format!("database {name}"));
    }
    let made = "SELECT rolname::text FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = $1 ORDER BY 1";
    let roles = session.client().query(made, &[&made_for(name)]).await;
    for role in roles
        .map_err(|e| map_pg_error(&e, "listing roles"))?
        .iter()
        .map(|r| r.get::<_, String>(0))
    {
        match session
            .run(&format!("DROP ROLE IF EXISTS {}", ident(&role)))
            .await
        {
            Ok(()) => dropped.push(format!("role {role}")),
            Err(e) if session.client().is_closed() => return Err(e),
            Err(e) => {
                tracing::warn!(role, error = %e, "failed to drop a role that was created for a restore")
            }
        }
    }
    journal.forget_database(session, name).await?;
    Ok(dropped)
}

async fn exists(session: &Session, database: &str) -> Result<bool, DatabaseError> {
    let row = session
        .client()
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&database])
        .await;
    Ok(row
        .map_err(|e| map_pg_error(&e, "looking for a database"))?
        .is_some())
}

/// Drops expired replaced databases of a claimed target. Best effort: the reaper's next pass drops the rest.
pub(super) async fn drop_expired(claimed: &TargetLock) {
    let (session, journal) = (&claimed.lock, claimed.journal);
    let kept = match find_kept(session, journal, &claimed.target, claimed.policy.keep).await {
        Ok(kept) => kept,
        Err(e) => return tracing::warn!(error = report(&e), "failed to list retained databases"),
    };
    let now = server_clock(session)
        .await
        .map(jiff::Timestamp::from_microsecond);
    let Ok(Ok(now)) = now else { return };
    let expired = kept
        .into_iter()
        .filter(|k| k.keep_until.is_some_and(|until| until <= now));
    for name in expired.map(|k| k.name) {
        if let Err(e) = remove(&claimed.server, session, journal, &name).await {
            tracing::warn!(
                database = name,
                error = report(&e),
                "failed to drop an expired database"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::waiting::kept_row;
    use super::*;

    #[test]
    fn work_is_dropped_only_by_whom_it_is_kept_for() {
        let terms = |scope, mode| ReapTerms {
            scope,
            resume: ResumeTerms {
                mode,
                within: Duration::from_secs(1),
                from: Duration::ZERO,
            },
        };
        let (queued, by_hand) = (kept_row(false), kept_row(true));
        for (scope, wanted) in [
            (ReapScope::Worker, (true, true)),
            (ReapScope::Person, (true, false)),
            (ReapScope::All, (false, false)),
        ] {
            let auto = terms(scope, Resume::Auto);
            assert_eq!((auto.keeps(&queued), auto.keeps(&by_hand)), wanted);
            assert!(!terms(scope, Resume::Never).keeps(&queued), "{scope:?}");
        }
        let answered = KeptWorkRow {
            is_running: false,
            ..queued
        };
        assert!(!terms(ReapScope::Worker, Resume::Auto).keeps(&answered));
    }

    #[test]
    fn roles_of_work_under_the_targets_name_are_kept_with_it() {
        let terms = ReapTerms {
            scope: ReapScope::Worker,
            resume: ResumeTerms {
                mode: Resume::Auto,
                within: Duration::from_secs(1),
                from: Duration::ZERO,
            },
        };
        let in_place = KeptWorkRow {
            name: "app".into(),
            ..kept_row(false)
        };
        let works = [in_place];
        for (database, wanted) in [
            ("app", true),
            (staging_name("r").as_str(), true),
            (staging_name("other").as_str(), false),
        ] {
            assert_eq!(kept_in(database, &works, terms).is_some(), wanted);
        }
    }

    #[test]
    fn only_a_persons_restore_ends_with_its_staging_database() {
        let staging = staging_name("r");
        assert!(is_ended(&kept_row(true), &staging));
        assert!(!is_ended(&kept_row(false), &staging));
        assert!(!is_ended(&kept_row(true), &staging_name("other")));
        let answered = KeptWorkRow {
            is_running: false,
            ..kept_row(true)
        };
        assert!(!is_ended(&answered, &staging));
    }

    #[test]
    fn results_of_two_servers_are_added_up() {
        let of = |n: &str| Reaped {
            dropped: vec![format!("dropped {n}")],
            kept: vec![format!("kept {n}")],
            unknown: vec![format!("unknown {n}")],
            failed: vec![format!("failed {n}")],
            abandoned: vec![format!("abandoned {n}")],
            waiting: vec![WaitingRestore::from(&kept_row(false))],
        };
        let (mut sum, b) = (of("a"), of("b"));
        sum.add(b.clone());
        assert_eq!(
            (&sum.dropped[1..], &sum.kept[1..]),
            (&b.dropped[..], &b.kept[..])
        );
        assert_eq!(&sum.abandoned[1..], &b.abandoned[..]);
        assert_eq!(sum.waiting.len(), 2);
        assert_eq!(
            (&sum.unknown[1..], &sum.failed[1..]),
            (&b.unknown[..], &b.failed[..])
        );
    }
}

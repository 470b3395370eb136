//! Checks B-tree indexes and heaps with PostgreSQL's own extension `amcheck`.

use std::collections::VecDeque;
use std::sync::Arc;

use indicatif::HumanCount;
use parking_lot::Mutex;

use tokio::task::JoinSet;

use super::restored_database::{RestoredDatabase, counted};
use crate::error::{DatabaseError, FailureReason, RestoreError, report};
use crate::postgres::{Session, ident, map_pg_error};
use crate::proof::{Check, CheckStatus};
use pgdump_restore::NameList;

/// Schema of the extension, if the database does not already have it.
const SCHEMA: &str = "pgrestored_amcheck";

const INDEXES: &str = "SELECT c.oid, format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid) \
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam \
    JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND i.indisready AND c.relpersistence = 'p' \
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')";
const HEAPS: &str = "SELECT c.oid, format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid) \
    FROM pg_class c JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE a.amname = 'heap' AND c.relkind IN ('r', 'm') AND c.relpersistence = 'p' \
    AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')";

/// SQLSTATEs of damage: data_corrupted and index_corrupted.
const DAMAGE: [&str; 2] = ["XX001", "XX002"];

struct CheckTask {
    oid: u32,
    name: String,
    is_index: bool,
    bytes: i64,
}

/// What `amcheck` says about one relation.
#[derive(Debug)]
enum AmcheckAnswer {
    Sound,
    /// The damage.
    Damaged(String),
    /// The check itself did not work, for a reason that says nothing about the relation.
    NotChecked(DatabaseError),
}

impl AmcheckAnswer {
    /// The answer behind an error of the server.
    fn of(e: DatabaseError) -> Self {
        if e.sqlstate().is_some_and(|code| DAMAGE.contains(&code)) {
            AmcheckAnswer::Damaged(report(&e))
        } else {
            AmcheckAnswer::NotChecked(e)
        }
    }
}

/// What was found in all relations.
#[derive(Debug, Default)]
struct AmcheckFindings {
    damaged: NameList,
    not_checked: NameList,
    /// Why the first one was not checked.
    reason: Option<FailureReason>,
    sound_indexes: usize,
    sound_heaps: usize,
}

impl AmcheckFindings {
    fn add(&mut self, task: &CheckTask, answer: AmcheckAnswer) {
        let name = &task.name;
        match answer {
            AmcheckAnswer::Sound if task.is_index => self.sound_indexes += 1,
            AmcheckAnswer::Sound => self.sound_heaps += 1,
            AmcheckAnswer::Damaged(what) => self.damaged.push(format_args!("{name}: {what}")),
            AmcheckAnswer::NotChecked(e) => {
                self.reason.get_or_insert(e.reason());
                let why = report(&e);
                self.not_checked.push(format_args!("{name}: {why}"));
            }
        }
    }

    fn checks(&self) -> Vec<Check> {
        let indexes = match self.sound_indexes {
            1 => "1 B-tree index".to_owned(),
            n => format!("{} B-tree indexes", HumanCount(n as u64)),
        };
        let sound = format!(
            "no damage in {indexes} and {}",
            counted(self.sound_heaps, "heap")
        );
        let not_checked = self.not_checked.listed("not checked").map(|open| {
            let check = Check::new(
                "amcheck",
                CheckStatus::NotChecked,
                format!("{sound}; {open}"),
            );
            Check {
                reason: self.reason,
                ..check.optional()
            }
        });
        let damaged = self.damaged.listed("damaged");
        let damaged = damaged.map(|what| Check::new("amcheck", CheckStatus::Failed, what));
        let found: Vec<Check> = damaged.into_iter().chain(not_checked).collect();
        if found.is_empty() {
            return vec![Check::new("amcheck", CheckStatus::Passed, sound).optional()];
        }
        found
    }
}

fn not_available(e: &DatabaseError) -> Check {
    let fix = "install PostgreSQL's contrib modules for the sandbox's server";
    Check::new(
        "amcheck",
        CheckStatus::NotChecked,
        format!("the extension amcheck is not available: {e}"),
    )
    .fix(fix)
    .because(e.reason())
    .optional()
}

/// Checks every B-tree index, and since PostgreSQL 14 every heap.
pub(super) async fn check(subject: &RestoredDatabase<'_>) -> Result<Vec<Check>, RestoreError> {
    let _step = subject.progress.long_step();
    let session = subject.server.connect(subject.database, "amcheck").await?;
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "amcheck");
    let installed = "SELECT n.nspname::text FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace \
        WHERE x.extname = 'amcheck'";
    let schema = match session
        .client()
        .query_opt(installed, &[])
        .await
        .map_err(e)?
    {
        Some(row) => row.get(0),
        None => {
            let install =
                format!("CREATE SCHEMA {SCHEMA}; CREATE EXTENSION amcheck SCHEMA {SCHEMA}");
            if let Err(e) = session.run(&install).await {
                return Ok(vec![not_available(&e)]);
            }
            SCHEMA.to_owned()
        }
    };
    let mut work = Vec::new();
    for (sql, is_index) in [(INDEXES, true), (HEAPS, false)] {
        if !is_index && session.version() < 140000 {
            continue;
        }
        let rows = session.client().query(sql, &[]).await.map_err(e)?;
        work.extend(rows.iter().map(|r| CheckTask {
            oid: r.get(0),
            name: r.get(1),
            is_index,
            bytes: r.get(2),
        }));
    }
    work.sort_by_key(|w| std::cmp::Reverse(w.bytes));
    let sessions = subject.sessions.clamp(1, work.len().max(1));
    let queue = Arc::new(Mutex::new(VecDeque::from(work)));
    let found = Arc::new(Mutex::new(AmcheckFindings::default()));
    let (mut running, mut ready) = (JoinSet::new(), Some(session));
    for _ in 0..sessions {
        let (server, database, session) = (
            subject.server.clone(),
            subject.database.to_owned(),
            ready.take(),
        );
        let (queue, found, schema) = (queue.clone(), found.clone(), schema.clone());
        running.spawn(async move {
            let session = match session {
                Some(s) => s,
                None => server.connect(&database, "amcheck").await?,
            };
            loop {
                let next = queue.lock().pop_front();
                let Some(work) = next else {
                    return Ok::<_, DatabaseError>(());
                };
                let answer = check_one(&session, &schema, &work).await?;
                found.lock().add(&work, answer);
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| RestoreError::internal(format!("a task of amcheck failed: {e}")))??;
    }
    let checks = found.lock().checks();
    Ok(checks)
}

/// Asks `amcheck` about one relation.
async fn check_one(
    session: &Session,
    schema: &str,
    work: &CheckTask,
) -> Result<AmcheckAnswer, DatabaseError> {
    let schema = ident(schema);
    let sql = if work.is_index {
        format!("SELECT 0::int8, {schema}.bt_index_check($1::oid::regclass)::text")
    } else {
        format!("SELECT count(*), min(msg) FROM {schema}.verify_heapam($1::oid::regclass)")
    };
    match session.client().query_one(&sql, &[&work.oid]).await {
        Ok(row) => match row.get::<_, i64>(0) {
            0 => Ok(AmcheckAnswer::Sound),
            n => Ok(AmcheckAnswer::Damaged(format!(
                "{}, such as: {}",
                counted(n, "fault"),
                row.get::<_, Option<&str>>(1).unwrap_or("?")
            ))),
        },
        Err(e) if session.client().is_closed() => Err(map_pg_error(&e, "amcheck")),
        Err(e) => Ok(AmcheckAnswer::of(map_pg_error(&e, "amcheck"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DatabaseKind;

    fn found(codes: &[&str]) -> Vec<(CheckStatus, bool, String)> {
        let mut found = AmcheckFindings::default();
        let task = |name: &str, is_index| CheckTask {
            oid: 1,
            name: name.to_owned(),
            is_index,
            bytes: 0,
        };
        found.add(&task("s.sound", true), AmcheckAnswer::Sound);
        for code in codes {
            let e = DatabaseError::new(DatabaseKind::StatementRejected, "x").with_sqlstate(code);
            found.add(&task(code, false), AmcheckAnswer::of(e));
        }
        let checks = found.checks().into_iter();
        checks.map(|c| (c.status, c.required, c.message)).collect()
    }

    #[test]
    fn only_corruption_is_damage() {
        use CheckStatus::{Failed, NotChecked, Passed};
        let sound = "no damage in 1 B-tree index and 0 heaps";
        assert_eq!(found(&[]), [(Passed, false, sound.to_owned())]);
        for code in ["XX001", "XX002"] {
            let damaged = (Failed, true, format!("damaged: {code}: x"));
            assert_eq!(found(&[code]), [damaged]);
        }
        for code in [
            "53200", "57014", "58030", "42501", "54001", "22012", "XX000",
        ] {
            let open = (
                NotChecked,
                false,
                format!("{sound}; not checked: {code}: x"),
            );
            assert_eq!(found(&[code]), [open]);
        }
        // Neither hides the other.
        let both = found(&["57014", "XX002"]).into_iter();
        assert_eq!(both.map(|c| c.0).collect::<Vec<_>>(), [Failed, NotChecked]);
    }
}

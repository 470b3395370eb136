//! Checks B-tree indexes and heaps with PostgreSQL's own extension `amcheck`.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use tokio::task::JoinSet;

use super::restored_database::{RestoredDatabase, counted};
use crate::error::{DatabaseError, RestoreError, report};
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

struct CheckTask {
    oid: u32,
    name: String,
    is_index: bool,
    bytes: i64,
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
    let (all, heaps) = (work.len(), work.iter().filter(|w| !w.is_index).count());
    let sessions = subject.sessions.clamp(1, all.max(1));
    let queue = Arc::new(Mutex::new(VecDeque::from(work)));
    let wrong = Arc::new(Mutex::new(NameList::default()));
    let (mut running, mut ready) = (JoinSet::new(), Some(session));
    for _ in 0..sessions {
        let (server, database, session) = (
            subject.server.clone(),
            subject.database.to_owned(),
            ready.take(),
        );
        let (queue, wrong, schema) = (queue.clone(), wrong.clone(), schema.clone());
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
                if let Some(what) = check_one(&session, &schema, &work).await? {
                    wrong.lock().push(format_args!("{}: {what}", work.name));
                }
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| RestoreError::internal(format!("a task of amcheck failed: {e}")))??;
    }
    let damaged = wrong.lock().listed("damaged");
    Ok(vec![match damaged {
        None => {
            let indexes = match all - heaps {
                1 => "1 B-tree index".to_owned(),
                n => format!("{n} B-tree indexes"),
            };
            let what = format!("no damage in {indexes} and {}", counted(heaps, "heap"));
            Check::new("amcheck", CheckStatus::Passed, what).optional()
        }
        Some(what) => Check::new("amcheck", CheckStatus::Failed, what),
    }])
}

/// The damage that `amcheck` reports about one relation, if any.
async fn check_one(
    session: &Session,
    schema: &str,
    work: &CheckTask,
) -> Result<Option<String>, DatabaseError> {
    let schema = ident(schema);
    let sql = if work.is_index {
        format!("SELECT 0::int8, {schema}.bt_index_check($1::oid::regclass)::text")
    } else {
        format!("SELECT count(*), min(msg) FROM {schema}.verify_heapam($1::oid::regclass)")
    };
    match session.client().query_one(&sql, &[&work.oid]).await {
        Ok(row) => match row.get::<_, i64>(0) {
            0 => Ok(None),
            n => Ok(Some(format!(
                "{}, such as: {}",
                counted(n, "fault"),
                row.get::<_, Option<&str>>(1).unwrap_or("?")
            ))),
        },
        Err(e) if session.client().is_closed() => Err(map_pg_error(&e, "amcheck")),
        Err(e) => Ok(Some(report(&map_pg_error(&e, "amcheck")))),
    }
}

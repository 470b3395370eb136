//! Steps after the load: schema renames, ANALYZE, and a report of what needs attention: sequences
//! behind their columns, invalid indexes, constraints that were not validated.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use futures::future::try_join_all;
use tokio::task::JoinSet;
use tokio_postgres::Row;

use super::notes::listed;
use crate::error::{DatabaseError, RestoreError, ValidationError, ValidationKind, report};
use crate::postgres::{Server, Session, ident, map_pg_error};
use crate::work_record::{Body, Mark, WorkRecord};

/// Most tables per ANALYZE statement; it also ends at a total size.
const BATCH_TABLES: usize = 50;
const BATCH_BYTES: i64 = 8 << 20;
/// Most tables listed by one query.
const PAGE_TABLES: i64 = 10_000;
/// Most notes about tables that were not analyzed; the others are only counted.
const NOTES: usize = 50;
/// Sequences that one statement checks.
const BATCH_SEQUENCES: usize = 100;
/// Size in bytes up to which a column without an index is read in full.
const SMALL_TABLE: i64 = 64 << 20;

/// Renames restored schemas. If it is recorded, they have their new names together, and those that an earlier attempt has
/// renamed are not renamed again.
///
/// # Errors
/// The server's error.
pub async fn rename_schemas(
    server: &Server,
    database: &str,
    renames: &[(String, String)],
    record: Option<&WorkRecord>,
) -> Result<(), RestoreError> {
    let record = record.filter(|record| record.is_on() && !renames.is_empty());
    if record.is_some_and(|record| record.resumed().has(Mark::Renamed)) {
        return Ok(());
    }
    let session = server.connect(database, "rename").await?;
    if record.is_some() {
        session.run("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    }
    for (old, new) in renames {
        let sql = format!("ALTER SCHEMA {} RENAME TO {}", ident(old), ident(new));
        session
            .run(&sql)
            .await
            .map_err(|e| e.context(&format!("renaming schema {old}")))?;
    }
    let Some(record) = record else {
        return Ok(());
    };
    let note = record.own_note(Body {
        renames: renames.to_vec(),
        ..Body::of_mark(Mark::Renamed)
    });
    let note = note.await;
    let committed = session.commit_noted_of("statement", note.as_ref()).await;
    record.ended(note, committed.is_ok());
    Ok(committed.map_err(|e| e.context("renaming schemas"))?)
}

/// Analyzes every table and materialized view with `sessions` connections.
///
/// # Errors
/// `target_unavailable`. A table that cannot be analyzed becomes a note.
pub async fn analyze(
    server: &Server,
    database: &str,
    sessions: usize,
) -> Result<Vec<String>, RestoreError> {
    let (notes, mut after) = (Arc::new(Mutex::new(Vec::new())), 0u32);
    let mut left_out = 0;
    loop {
        let session = server.connect(database, "analyze").await?;
        let rows = session
            .client()
            .query(TABLES, &[&after, &PAGE_TABLES])
            .await
            .map_err(|e| map_pg_error(&e, "listing tables"))?;
        let is_last = rows.len() < usize::try_from(PAGE_TABLES).unwrap_or_default();
        after = rows.iter().map(|r| r.get(3)).max().unwrap_or_default();
        analyze_page(session, server, database, sessions, batches(&rows), &notes).await?;
        let mut notes = notes.lock();
        left_out += notes.len().saturating_sub(NOTES);
        notes.truncate(NOTES);
        if is_last {
            let rest = format!("{left_out} more groups of tables were not analyzed");
            notes.extend((left_out > 0).then_some(rest));
            return Ok(std::mem::take(&mut *notes));
        }
    }
}

/// One page of tables, largest first. Partitions are analyzed with their root table.
const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname), size, is_partitioned, c.oid FROM ( \
        SELECT oid, relname, relnamespace, pg_total_relation_size(oid) AS size, relkind = 'p' AS is_partitioned \
        FROM pg_class WHERE relkind IN ('r', 'm', 'p') AND NOT relispartition AND relpersistence <> 't' \
        AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace) \
        AND relnamespace IS DISTINCT FROM to_regnamespace('pgrestored_work')::oid \
        AND oid > $1 ORDER BY oid LIMIT $2 \
    ) c JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY is_partitioned DESC, size DESC";

fn batches(rows: &[Row]) -> VecDeque<Vec<String>> {
    let (mut batches, mut batch, mut size) = (VecDeque::new(), Vec::new(), 0);
    for row in rows {
        let (name, bytes): (String, i64) = (row.get(0), row.get(1));
        size += bytes;
        batch.push(name);
        if batch.len() >= BATCH_TABLES || size >= BATCH_BYTES || row.get(2) {
            batches.push_back(std::mem::take(&mut batch));
            size = 0;
        }
    }
    batches.extend((!batch.is_empty()).then_some(batch));
    batches
}

async fn analyze_page(
    session: Session,
    server: &Server,
    database: &str,
    sessions: usize,
    batches: VecDeque<Vec<String>>,
    notes: &Arc<Mutex<Vec<String>>>,
) -> Result<(), RestoreError> {
    let batches = Arc::new(Mutex::new(batches));
    let mut running = JoinSet::new();
    let mut first = Some(session);
    for _ in 0..sessions.max(1) {
        let (server, database, ready) = (server.clone(), database.to_owned(), first.take());
        let (batches, notes) = (batches.clone(), notes.clone());
        running.spawn(async move {
            let mut session = ready;
            loop {
                let next = batches.lock().pop_front();
                let Some(tables) = next else {
                    return Ok::<_, DatabaseError>(());
                };
                let session = match &session {
                    Some(s) => s,
                    None => session.insert(server.connect(&database, "analyze").await?),
                };
                if let Err(e) = session.run(&format!("ANALYZE {}", tables.join(", "))).await {
                    if session.client().is_closed() {
                        return Err(e.context("ANALYZE"));
                    }
                    let note = format!("not analyzed: {}: {}", tables.join(", "), report(&e));
                    notes.lock().push(note);
                }
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| RestoreError::internal(format!("an ANALYZE task panicked: {e}")))??;
    }
    Ok(())
}

/// What is wrong with, or unusual about, a restored database; each by name.
#[derive(Debug, Default)]
pub struct HealthReport {
    /// Indexes that are not `indisvalid` or not `indisready`, other than those of partitioned tables.
    pub invalid_indexes: Vec<String>,
    /// Indexes of partitioned tables that are not `indisvalid`, because a partition has none attached to it. `pg_dump`
    /// leaves out every other invalid index.
    pub incomplete_indexes: Vec<String>,
    /// Constraints that are not `convalidated`, as `NAME of TABLE`.
    pub not_validated: Vec<String>,
    /// Materialized views that are not `relispopulated`, which the server cannot read.
    pub not_populated: Vec<String>,
    /// Sequences whose next value their column already has or has passed, as `SEQUENCE (of TABLE.COLUMN)`.
    pub sequences_behind: Vec<String>,
    /// Checks that could not be run, and why.
    pub not_checked: Vec<String>,
}

/// Inspects the restored database with up to `sessions` connections.
///
/// # Errors
/// `target_unavailable`.
pub async fn survey(
    server: &Server,
    database: &str,
    sessions: usize,
) -> Result<HealthReport, RestoreError> {
    survey_from(
        &observer(server, database).await?,
        server,
        database,
        sessions,
    )
    .await
}

/// As [`survey`], with `session` as the first of the connections.
async fn survey_from(
    session: &Session,
    server: &Server,
    database: &str,
    sessions: usize,
) -> Result<HealthReport, RestoreError> {
    let mut not_checked = Vec::new();
    let mut found = Vec::new();
    for names in [
        names(session, INVALID_INDEXES).await,
        names(session, INCOMPLETE_INDEXES).await,
        names(session, NOT_VALIDATED).await,
        names(session, NOT_POPULATED).await,
        sequences_behind(session, server, database, sessions).await,
    ] {
        found.push(match names {
            Ok(names) => names,
            Err(e) if session.client().is_closed() => return Err(e.into()),
            Err(e) => {
                not_checked.push(report(&e));
                vec![]
            }
        });
    }
    let mut found = found.into_iter();
    let mut take = || found.next().unwrap_or_default();
    Ok(HealthReport {
        invalid_indexes: take(),
        incomplete_indexes: take(),
        not_validated: take(),
        not_populated: take(),
        sequences_behind: take(),
        not_checked,
    })
}

/// The same as human-readable notes.
///
/// # Errors
/// `target_unavailable`.
pub async fn check(
    server: &Server,
    database: &str,
    sessions: usize,
) -> Result<Vec<String>, RestoreError> {
    let session = observer(server, database).await?;
    refuse_prepared(&session).await?;
    let s = survey_from(&session, server, database, sessions).await?;
    let notes = [
        listed("invalid index", &s.invalid_indexes),
        listed(
            "index of a partitioned table that some partition lacks, as in the source",
            &s.incomplete_indexes,
        ),
        listed("constraint that is not validated", &s.not_validated),
        listed(
            "materialized view without rows, as in the source",
            &s.not_populated,
        ),
        listed("sequence behind its column", &s.sequences_behind),
    ];
    let not_checked = s.not_checked.iter().map(|e| format!("not checked: {e}"));
    Ok(notes.into_iter().flatten().chain(not_checked).collect())
}

/// A transaction that the backup prepared keeps its locks until somebody ends it, so the restore fails.
async fn refuse_prepared(session: &Session) -> Result<(), RestoreError> {
    let left = names(
        session,
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
    )
    .await?;
    match left.first() {
        None => Ok(()),
        Some(_) => {
            let what = "the backup left a prepared transaction open (PREPARE TRANSACTION), which pg_dump never writes";
            Err(ValidationError::new(ValidationKind::ArchiveUnsupported, what).into())
        }
    }
}

const INVALID_INDEXES: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i \
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT (i.indisvalid AND i.indisready) AND c.relkind <> 'I' ORDER BY 1";
const INCOMPLETE_INDEXES: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_index i \
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT i.indisvalid AND c.relkind = 'I' ORDER BY 1";
const NOT_VALIDATED: &str = "SELECT format('%s of %s', conname, conrelid::regclass) FROM pg_constraint \
    WHERE NOT convalidated AND conrelid <> 0 ORDER BY 1";
const NOT_POPULATED: &str = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'm' AND NOT relispopulated ORDER BY 1";

async fn observer(server: &Server, database: &str) -> Result<Session, DatabaseError> {
    let session = server.connect(database, "check").await?;
    session.run("SET row_security = off").await?;
    Ok(session)
}

async fn names(session: &Session, sql: &str) -> Result<Vec<String>, DatabaseError> {
    let rows = session
        .client()
        .query(sql, &[])
        .await
        .map_err(|e| map_pg_error(&e, "checking the restored database"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Sequences owned by columns whose largest value is cheap to find, and whether the table is partitioned.
const SEQUENCES: &str = "SELECT format('%I.%I', sn.nspname, s.relname), format('%I.%I', tn.nspname, t.relname), \
    quote_ident(a.attname), t.relkind = 'p' FROM pg_depend d \
    JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace sn ON sn.oid = s.relnamespace \
    JOIN pg_sequence q ON q.seqrelid = s.oid AND q.seqincrement > 0 \
    JOIN pg_class t ON t.oid = d.refobjid AND t.relkind IN ('r', 'p') JOIN pg_namespace tn ON tn.oid = t.relnamespace \
    JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid \
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype) \
    AND (EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indkey[0] = a.attnum \
         AND i.indisvalid AND i.indpred IS NULL) OR pg_table_size(t.oid) < $1) ORDER BY 1";

async fn sequences_behind(
    first: &Session,
    server: &Server,
    database: &str,
    sessions: usize,
) -> Result<Vec<String>, DatabaseError> {
    let all = first
        .client()
        .query(SEQUENCES, &[&SMALL_TABLE])
        .await
        .map_err(|e| map_pg_error(&e, "sequences"))?;
    let batches = sequence_batches(&all, |row| row.get(3));
    let more = sessions.min(batches.len()).saturating_sub(1);
    let others = try_join_all((0..more).map(|_| observer(server, database))).await?;
    let batches = Mutex::new(batches);
    let asked = std::iter::once(first)
        .chain(&others)
        .map(|session| behind_among(session, &batches));
    let mut behind = try_join_all(asked).await?.concat();
    behind.sort_unstable();
    Ok(behind)
}

/// What one statement checks. It locks every table that it reads, so one that is partitioned is by itself.
fn sequence_batches<T>(all: &[T], is_partitioned: impl Fn(&T) -> bool) -> VecDeque<&[T]> {
    let runs = all.chunk_by(|a, b| !is_partitioned(a) && !is_partitioned(b));
    runs.flat_map(|run| run.chunks(BATCH_SEQUENCES)).collect()
}

async fn behind_among(
    session: &Session,
    batches: &Mutex<VecDeque<&[Row]>>,
) -> Result<Vec<String>, DatabaseError> {
    let mut behind: Vec<String> = vec![];
    loop {
        let next = batches.lock().pop_front();
        let Some(batch) = next else { return Ok(behind) };
        let rows = session.client().query(&behind_query(batch), &[]).await;
        behind.extend(
            rows.map_err(|e| map_pg_error(&e, "sequences"))?
                .iter()
                .map(|r| r.get::<_, String>(0)),
        );
    }
}

/// The query for those of these sequences that are behind.
fn behind_query(sequences: &[Row]) -> String {
    let queries = sequences.iter().map(|row| {
        let (sequence, table, column): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        let name = crate::postgres::literal(&format!("{sequence} (of {table}.{column})"));
        format!(
            "SELECT {name} FROM {sequence} s WHERE (SELECT max({column}) FROM {table}) >= \
             s.last_value + CASE WHEN s.is_called THEN 1 ELSE 0 END"
        )
    });
    queries.collect::<Vec<_>>().join(" UNION ALL ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partitioned_table_is_checked_by_itself() {
        let all: Vec<usize> = (0..BATCH_SEQUENCES + 12).collect();
        let batches = sequence_batches(&all, |n| *n == 3 || *n == 4);
        let sizes: Vec<usize> = batches.iter().map(|b| b.len()).collect();
        assert_eq!(sizes, [3, 1, 1, BATCH_SEQUENCES, 7]);
        assert!(sequence_batches(&[], |_: &usize| true).is_empty());
    }
}

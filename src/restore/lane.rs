//! One session's share of an entry's data: COPY for rows, simple queries for `--inserts` dumps,
//! `lo_put` for large objects.

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::SimpleQueryMessage;

use super::board::{Board, Queued};
use super::{Job, ddl};
use crate::archive::{Piece, TocEntry};
use crate::error::RestoreError;
use crate::postgres::{Session, fault};

/// One COPY ends after this many bytes: the server's refusal of a row is seen only at its end.
const COPY_BYTES: usize = 64 << 20;
/// Large objects sent in one statement.
const BATCH_BYTES: usize = 1 << 20;
const PUT: &str = "SELECT pg_catalog.lo_put(o, p, b) \
     FROM unnest($1::pg_catalog.oid[], $2::pg_catalog.int8[], $3::pg_catalog.bytea[]) AS x(o, p, b)";

/// Loads pieces of `node` until its lane ends; returns the rows that the server counted. A `fresh`
/// table is empty, and nobody else loads it.
pub(super) async fn run(
    job: &Job,
    board: &Board,
    session: &Session,
    entry: &TocEntry,
    (node, id): Lane,
    fresh: bool,
) -> Result<u64, RestoreError> {
    let Some(first) = board.take(node, id).await? else { return Ok(0) };
    match first.piece {
        Piece::Rows { .. } => {
            let sql = ddl::copy_sql(entry, &job.encoding, fresh);
            if !fresh {
                return copy(board, session, &sql, (node, id), first).await;
            }
            // The server's own vacuum would hold the table when its indexes are to be built.
            let table = ddl::qualified(entry);
            let quiet = format!("ALTER TABLE ONLY {table} SET (autovacuum_enabled = false)");
            session.run(&format!("BEGIN; TRUNCATE ONLY {table}; {quiet}")).await?;
            let rows = copy(board, session, &sql, (node, id), first).await?;
            session.run("COMMIT").await?;
            job.quiet().push(table);
            Ok(rows)
        }
        Piece::Statements(_) => insert(job, board, session, (node, id), first).await,
        Piece::LargeObject { .. } => put_large_objects(board, session, (node, id), first).await,
    }
}

/// Node and session.
type Lane = (usize, usize);

async fn copy(
    board: &Board,
    session: &Session,
    sql: &str,
    (node, id): Lane,
    first: Queued,
) -> Result<u64, RestoreError> {
    let sink = session.client().copy_in::<_, Bytes>(sql).await.map_err(|e| fault(&e, "COPY"))?;
    tokio::pin!(sink);
    let (mut next, mut sent) = (Some(first), 0);
    while let Some(queued) = next {
        let Piece::Rows { text, ends_row } = queued.piece else {
            return Err(RestoreError::internal("rows mixed with other data"));
        };
        sent += text.len();
        if sink.feed(Bytes::from(text)).await.is_err() {
            break; // The server's own words come with `finish`.
        }
        next = match ends_row && sent >= COPY_BYTES {
            true => None,
            false => board.take(node, id).await?,
        };
    }
    Ok(sink.as_mut().finish().await.map_err(|e| fault(&e, "COPY"))?)
}

async fn insert(
    job: &Job,
    board: &Board,
    session: &Session,
    (node, id): Lane,
    first: Queued,
) -> Result<u64, RestoreError> {
    let (mut next, mut rows) = (Some(first), 0);
    while let Some(queued) = next {
        let Piece::Statements(bytes) = queued.piece else {
            return Err(RestoreError::internal("statements mixed with other data"));
        };
        let sql = job.encoding.decode(bytes)?;
        let answers = session.client().simple_query(&sql).await.map_err(|e| fault(&e, "INSERT"))?;
        rows += answers
            .iter()
            .map(|m| if let SimpleQueryMessage::CommandComplete(n) = m { *n } else { 0 })
            .sum::<u64>();
        next = board.take(node, id).await?;
    }
    Ok(rows)
}

/// Objects exist already (their entries come before the data); pages of one object do not overlap
/// between pieces, so several sessions may fill it.
async fn put_large_objects(
    board: &Board,
    session: &Session,
    (node, id): Lane,
    first: Queued,
) -> Result<u64, RestoreError> {
    let put = session.client().prepare(PUT).await.map_err(|e| fault(&e, "large objects"))?;
    let mut next = Some(first);
    while let Some(queued) = next {
        let (mut batch, mut size) = (Vec::new(), 0);
        let mut more = Some(queued);
        while let Some(q) = more {
            size += q.piece.len();
            batch.push(q);
            more = if size < BATCH_BYTES { board.take_queued(node, id) } else { None };
        }
        let (mut oids, mut offsets, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for q in &batch {
            let Piece::LargeObject { oid, offset, bytes: b } = &q.piece else {
                return Err(RestoreError::internal("large objects mixed with other data"));
            };
            oids.push(*oid);
            offsets.push(i64::try_from(*offset).unwrap_or(i64::MAX));
            bytes.push(b.as_slice());
        }
        session
            .client()
            .execute(&put, &[&oids, &offsets, &bytes])
            .await
            .map_err(|e| fault(&e, "large objects"))?;
        drop(batch);
        next = board.take(node, id).await?;
    }
    Ok(0)
}

//! Loads one session's share of an entry's data: COPY for rows, simple queries for `--inserts` dumps,
//! `lo_put` for large objects.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use tokio_postgres::{CopyInSink, SimpleQueryMessage};

use super::binary::{self, Columns};
use super::context::LoadContext;
use super::ddl::CopyAs;
use super::work_queue::{QueuedChunk, WorkQueue};
use super::{conversion, ddl};
use crate::error::RestoreError;
use crate::postgres::{Session, map_pg_error};
use pgdump_archive::{Chunk, TocEntry};

/// One COPY ends after this many bytes, because the server reports a rejected row only at its end.
const COPY_BYTES: usize = 64 << 20;
/// Most large objects per statement.
const BATCH_BYTES: usize = 512 << 10;
const PUT: &str = "SELECT pg_catalog.lo_put(o, p, b) \
     FROM unnest($1::pg_catalog.oid[], $2::pg_catalog.int8[], $3::pg_catalog.bytea[]) AS x(o, p, b)";

/// The node that is loaded, and the session that loads it.
type NodeAndSession = (usize, usize);

/// Loads chunks of `node` until its copier ends; returns the number of rows that the server counted. A `fresh`
/// table is empty, and nobody else loads it.
pub(super) async fn run(
    job: &LoadContext,
    work_queue: &WorkQueue,
    session: &Session,
    entry: &TocEntry,
    (node, id): NodeAndSession,
    fresh: bool,
) -> Result<u64, RestoreError> {
    let in_order = work_queue.is_in_order(node);
    let Some(first) = work_queue.take(node, id).await? else {
        return Ok(0);
    };
    match first.chunk {
        Chunk::Rows { .. } => {
            let rows = CopyTask {
                job,
                work_queue,
                session,
                entry,
                node,
                id,
                fresh,
                in_order,
            };
            if !fresh {
                return rows.copy(first).await;
            }
            // Autovacuum would hold the table when its indexes are due.
            let table = ddl::qualified(entry);
            let disable_autovacuum =
                format!("ALTER TABLE ONLY {table} SET (autovacuum_enabled = false)");
            session
                .run(&format!(
                    "BEGIN; TRUNCATE ONLY {table}; {disable_autovacuum}"
                ))
                .await?;
            let rows = rows.copy(first).await?;
            session.run("COMMIT").await?;
            job.autovacuum_off().push(table);
            Ok(rows)
        }
        Chunk::Statements(_) => insert(job, work_queue, session, (node, id), first).await,
        Chunk::LargeObject { .. } => {
            put_large_objects(work_queue, session, (node, id), first).await
        }
    }
}

/// A copier of a table's rows.
struct CopyTask<'a> {
    job: &'a LoadContext,
    work_queue: &'a WorkQueue,
    session: &'a Session,
    entry: &'a TocEntry,
    node: usize,
    id: usize,
    fresh: bool,
    /// All rows go in one COPY, as text, so that functions see the same earlier rows as in `pg_restore`'s
    /// restore.
    in_order: bool,
}

/// A running COPY.
struct Copying {
    sink: Pin<Box<CopyInSink<Bytes>>>,
    binary: bool,
    /// Bytes of the backup.
    sent: usize,
}

impl CopyTask<'_> {
    async fn copy(&self, first: QueuedChunk) -> Result<u64, RestoreError> {
        let mut columns = if self.in_order {
            None
        } else {
            self.columns(&first).await?
        };
        let (mut next, mut copying, mut rows) = (Some(first), None::<Copying>, 0);
        // A chunk may end within a row that is longer than a chunk; such chunks are not converted.
        let mut begins_row = true;
        while let Some(queued) = next {
            let QueuedChunk { chunk, permit } = queued;
            let Chunk::Rows { text, ends_row } = chunk else {
                return Err(RestoreError::internal("rows mixed with other data"));
            };
            let size = text.len();
            let bytes = match columns.as_deref().filter(|_| begins_row && ends_row) {
                Some(of) => of.tuples(&text).ok_or(text),
                None => Err(text),
            };
            if bytes.is_err() && begins_row && ends_row && columns.take().is_some() {
                // The table has other spellings: trying to convert every chunk would cost more than it saves.
                self.job.columns().insert(self.node, None);
            }
            begins_row = ends_row;
            let binary = bytes.is_ok();
            if let Some(done) = copying.take_if(|c| c.binary != binary) {
                rows += done.finish().await?;
            }
            let copy = match &mut copying {
                Some(copy) => copy,
                none => none.insert(self.begin(binary).await?),
            };
            copy.sent += size;
            if copy
                .sink
                .feed(Bytes::from(bytes.unwrap_or_else(|text| text)))
                .await
                .is_err()
            {
                break; // `finish` returns the server's error.
            }
            drop(permit);
            next = if ends_row && copy.sent >= COPY_BYTES && !self.in_order {
                None
            } else {
                self.work_queue.take(self.node, self.id).await?
            };
        }
        match copying {
            Some(last) => Ok(rows + last.finish().await?),
            None => Ok(rows),
        }
    }

    async fn begin(&self, binary: bool) -> Result<Copying, RestoreError> {
        let sql = ddl::copy_sql(
            self.entry,
            &self.job.encoding,
            CopyAs {
                freeze: self.fresh,
                binary,
            },
        );
        let sink = self
            .session
            .client()
            .copy_in(sql.as_str())
            .await
            .map_err(|e| map_pg_error(&e, "COPY"))?;
        let mut sink = Box::pin(sink);
        if binary && sink.feed(Bytes::from_static(binary::HEADER)).await.is_err() {
            sink.as_mut()
                .finish()
                .await
                .map_err(|e| map_pg_error(&e, "COPY"))?;
        }
        Ok(Copying {
            sink,
            binary,
            sent: 0,
        })
    }

    /// The column types for converting the table's rows to tuples; `None` if they stay text.
    async fn columns(&self, first: &QueuedChunk) -> Result<Option<Arc<Columns>>, RestoreError> {
        let Some(from) = self.job.binary_from.filter(|_| self.job.encoding.is_utf8()) else {
            return Ok(None);
        };
        if let Some(known) = self.job.columns().get(&self.node) {
            return Ok(known.clone());
        }
        // Querying the columns costs a round trip.
        if first.chunk.len() < from {
            return Ok(None);
        }
        let Some(sql) = ddl::columns_sql(self.entry) else {
            return Ok(None);
        };
        let asked = self
            .session
            .client()
            .prepare(&sql)
            .await
            .map_err(|e| map_pg_error(&e, "columns"))?;
        let columns = Columns::of(asked.columns().iter().map(|c| c.type_())).map(Arc::new);
        self.job.columns().insert(self.node, columns.clone());
        Ok(columns)
    }
}

impl Copying {
    /// Ends the COPY; returns the number of rows that the server counted.
    async fn finish(mut self) -> Result<u64, RestoreError> {
        if self.binary {
            // If this fails, `finish` reports the cause.
            let _ = self.sink.feed(Bytes::from_static(binary::TRAILER)).await;
        }
        Ok(self
            .sink
            .as_mut()
            .finish()
            .await
            .map_err(|e| map_pg_error(&e, "COPY"))?)
    }
}

async fn insert(
    job: &LoadContext,
    work_queue: &WorkQueue,
    session: &Session,
    (node, id): NodeAndSession,
    first: QueuedChunk,
) -> Result<u64, RestoreError> {
    let (mut next, mut rows) = (Some(first), 0);
    while let Some(queued) = next {
        let QueuedChunk { chunk, permit } = queued;
        let Chunk::Statements(bytes) = chunk else {
            return Err(RestoreError::internal("statements mixed with other data"));
        };
        rows += if job.encoding.is_utf8() || bytes.is_ascii() {
            simple_insert(session, job.encoding.decode(bytes)?).await?
        } else {
            conversion::insert(session, &job.encoding, &bytes).await?
        };
        drop(permit);
        next = work_queue.take(node, id).await?;
    }
    Ok(rows)
}

async fn simple_insert(session: &Session, sql: String) -> Result<u64, RestoreError> {
    let failed = |e| map_pg_error(&e, "INSERT");
    let (answers, mut rows) = (session.client().simple_query_raw(&sql).await, 0);
    // The text, which may be large, is dropped as soon as it is sent.
    drop(sql);
    let mut answers = std::pin::pin!(answers.map_err(failed)?);
    while let Some(answer) = answers.try_next().await.map_err(failed)? {
        rows += if let SimpleQueryMessage::CommandComplete(n) = answer {
            n
        } else {
            0
        };
    }
    Ok(rows)
}

/// Objects exist already (their entries precede the data), and pages of one object do not overlap between
/// chunks, so several sessions may fill it.
async fn put_large_objects(
    work_queue: &WorkQueue,
    session: &Session,
    (node, id): NodeAndSession,
    first: QueuedChunk,
) -> Result<u64, RestoreError> {
    let put = session
        .client()
        .prepare(PUT)
        .await
        .map_err(|e| map_pg_error(&e, "large objects"))?;
    let mut next = Some(first);
    while let Some(queued) = next {
        let (mut batch, mut size) = (Vec::new(), 0);
        let mut more = Some(queued);
        while let Some(q) = more {
            size += q.chunk.len();
            batch.push(q);
            more = if size < BATCH_BYTES {
                work_queue.take_queued(node, id)
            } else {
                None
            };
        }
        let (mut oids, mut offsets, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for q in &batch {
            let Chunk::LargeObject {
                oid,
                offset,
                bytes: b,
            } = &q.chunk
            else {
                return Err(RestoreError::internal(
                    "large objects mixed with other data",
                ));
            };
            oids.push(*oid);
            offsets.push(i64::try_from(*offset).unwrap_or(i64::MAX));
            bytes.push(b.as_ref());
        }
        session
            .client()
            .execute(&put, &[&oids, &offsets, &bytes])
            .await
            .map_err(|e| map_pg_error(&e, "large objects"))?;
        drop(batch);
        next = work_queue.take(node, id).await?;
    }
    Ok(0)
}

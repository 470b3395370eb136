//! Loads one session's share of an entry's data: COPY for rows, simple queries for `--inserts` dumps,
//! `lo_put` for large objects.

mod row_sender;
mod running;
mod task;

use std::sync::Arc;

use futures::TryStreamExt;
use tokio_postgres::types::ToSql;
use tokio_postgres::{SimpleQueryMessage, Statement};

use self::row_sender::RowSender;
pub(super) use self::task::CopyTask;
use self::task::Sent;
use super::binary::Columns;
use super::masking::{RowMask, do_not_fit};
use super::schedule::CopyStart;
use super::work_queue::QueuedChunk;
use super::work_record::Body;
use super::{conversion, ddl};
use crate::error::RestoreError;
use crate::postgres::{Session, map_error_of_rows, map_pg_error};
use pgdump_archive::Chunk;
use pgdump_mask::MaskCounts;

/// One transaction of INSERT statements or large objects ends after this many bytes, if it is recorded.
const RECORDED_BYTES: usize = 8 << 20;
/// Most large objects per statement.
const BATCH_BYTES: usize = 512 << 10;
const PUT: &str = "SELECT pg_catalog.lo_put(o, p, b) \
     FROM unnest($1::pg_catalog.oid[], $2::pg_catalog.int8[], $3::pg_catalog.bytea[]) AS x(o, p, b)";

const BEGIN: &str = "BEGIN";
const COMMIT: &str = "COMMIT";

/// What loads data, in errors.
const COPY: &str = "COPY";
const INSERT: &str = "INSERT";
const OBJECTS: &str = "large objects";

/// How data is stored that is not sent with COPY.
enum StoredBy {
    /// INSERT statements.
    Inserts,
    /// [`PUT`].
    Put(Statement),
}

impl StoredBy {
    /// In errors.
    fn name(&self) -> &'static str {
        match self {
            StoredBy::Inserts => INSERT,
            StoredBy::Put(_) => OBJECTS,
        }
    }

    /// What the record says of a portion.
    fn done(&self, sent: Sent) -> Body {
        match self {
            StoredBy::Inserts => sent.into_rows(false),
            StoredBy::Put(_) => sent.into_objects(),
        }
    }
}

impl CopyTask<'_> {
    /// Loads chunks until the copier ends; returns the number of rows that the server counted.
    pub(super) async fn run(&self) -> Result<u64, RestoreError> {
        let Some(first) = self.take().await? else {
            return Ok(0);
        };
        match first.chunk {
            Chunk::Rows { .. } if self.start != CopyStart::Shared => self.copy_alone(first).await,
            Chunk::Rows { .. } => self.copy_shared(first).await,
            Chunk::Statements { .. } => self.store(first, StoredBy::Inserts).await,
            Chunk::LargeObject { .. } => self.put_large_objects(first).await,
        }
    }

    async fn take(&self) -> Result<Option<QueuedChunk>, RestoreError> {
        self.work_queue.take(self.node, self.id).await
    }

    /// Copies into the empty table, which nobody else uses; if COPY is to freeze its rows, in a transaction that truncates it.
    async fn copy_alone(&self, first: QueuedChunk) -> Result<u64, RestoreError> {
        let table = ddl::qualified(self.entry);
        let truncate = match self.start {
            CopyStart::Freezing => format!("TRUNCATE ONLY {table}; "),
            CopyStart::Alone | CopyStart::Shared => String::new(),
        };
        // Autovacuum would hold the table when its indexes are due.
        let begin =
            format!("BEGIN; {truncate}ALTER TABLE ONLY {table} SET (autovacuum_enabled = false)");
        let sender = self.begun(&begin, self.copy(first)).await?;
        let rows = self.end_copy(sender, true).await?;
        self.job.autovacuum_off().push(table);
        Ok(rows)
    }

    /// Copies into a table that others may copy into, too; in a transaction if there is to be a record of it.
    async fn copy_shared(&self, first: QueuedChunk) -> Result<u64, RestoreError> {
        if !self.job.record.is_on() {
            return Ok(self.copy(first).await?.finish().await?.rows);
        }
        let sender = self.begun(BEGIN, self.copy(first)).await?;
        self.end_copy(sender, false).await
    }

    /// Ends the last COPY and its transaction, with the record of it; returns the number of rows. Both are sent together, unless
    /// the transaction itself writes the record, which has the number of rows that the server counts, or the end may take long:
    /// rows that are loaded in order may have triggers and keys, which are due then, and nobody else commits during a long turn.
    async fn end_copy(&self, sender: RowSender<'_>, is_frozen: bool) -> Result<u64, RestoreError> {
        let record = &self.job.record;
        let turn = if self.in_order {
            None
        } else {
            record.turn().await
        };
        if let Some(turn) = turn {
            let committing = self.session.commit_in_turn(COPY, &turn);
            // Polled in this order, so sent in it. If COPY fails, the transaction cannot be committed.
            let (sent, committed) = futures::join!(sender.finish(), committing);
            let sent = sent?;
            committed?;
            let rows = sent.rows;
            record.committed_in(turn, self.id, sent.into_rows(is_frozen));
            return Ok(rows);
        }
        if !record.is_on() {
            let (sent, committed) = futures::join!(sender.finish(), self.session.run(COMMIT));
            let sent = sent?;
            committed?;
            return Ok(sent.rows);
        }
        let sent = sender.finish().await?;
        let rows = sent.rows;
        self.commit(COPY, sent.into_rows(is_frozen)).await?;
        Ok(rows)
    }

    /// Begins a transaction and works in it, without waiting for the server in between. `begin`: statements.
    async fn begun<T>(
        &self,
        begin: &str,
        work: impl Future<Output = Result<T, RestoreError>>,
    ) -> Result<T, RestoreError> {
        // They are polled in this order, so sent in it, and both until they end: an answer that nobody takes would keep those
        // to later requests from coming.
        let (begun, worked) = futures::join!(self.session.run(begin), work);
        // What follows a refusal fails only because of it.
        begun?;
        worked
    }

    /// Ends the session's transaction with the record of it.
    async fn commit(&self, what: &str, done: Body) -> Result<(), RestoreError> {
        let record = &self.job.record;
        let note = record.note(self.id, done).await;
        let ended = self.session.commit_noted_of(what, note.as_ref()).await;
        record.ended(note, ended.is_ok());
        Ok(ended?)
    }

    /// Sends chunks until the copier ends; the last COPY is left to be ended.
    async fn copy(&self, first: QueuedChunk) -> Result<RowSender<'_>, RestoreError> {
        // Sent together, and with what begins the transaction: for small tables, waiting for answers is a large part of the time.
        let asked = futures::join!(
            self.columns(&first),
            self.prepare(self.asks_columns(&first))
        );
        let (columns, prepared) = (asked.0?, asked.1?);
        let mut sender = RowSender::new(self, first.unit, (columns, prepared));
        let mut next = Some(first);
        while let Some(queued) = next {
            let goes_on = sender.send(queued).await?;
            next = if goes_on { self.take().await? } else { None };
        }
        Ok(sender)
    }

    /// The column types for converting the table's rows to tuples; `None` if they stay text.
    async fn columns(&self, first: &QueuedChunk) -> Result<Option<Arc<Columns>>, RestoreError> {
        let Some(from) = self.binary_from() else {
            return Ok(None);
        };
        if let Some(known) = self.job.columns().get(&self.node) {
            return Ok(known.clone());
        }
        // Querying the columns is work for the server.
        if first.chunk.len() < from {
            return Ok(None);
        }
        match ddl::columns_sql(self.entry) {
            Some(sql) => self.query_columns(&sql).await,
            None => Ok(None),
        }
    }

    fn binary_from(&self) -> Option<usize> {
        let may_convert = !self.in_order && self.job.encoding.is_utf8();
        self.job.binary_from.filter(|_| may_convert)
    }

    async fn query_columns(&self, sql: &str) -> Result<Option<Arc<Columns>>, RestoreError> {
        let asked = self.session.client().prepare(sql).await;
        let asked = asked.map_err(|e| map_pg_error(&e, "columns"))?;
        let columns = Columns::of(asked.columns().iter().map(|c| c.type_())).map(Arc::new);
        self.job.columns().insert(self.node, columns.clone());
        Ok(columns)
    }

    /// Whether the rows will probably be sent as tuples.
    fn asks_columns(&self, first: &QueuedChunk) -> bool {
        let known = self.job.columns().get(&self.node).map(Option::is_some);
        let is_large = || {
            self.binary_from()
                .is_some_and(|from| first.chunk.len() >= from)
        };
        known.unwrap_or_else(is_large)
    }

    /// Stores what is not sent with COPY, in portions, each in a transaction with the record of it if there is to be one.
    async fn store(&self, first: QueuedChunk, by: StoredBy) -> Result<u64, RestoreError> {
        let (mut next, mut rows) = (Some(first), 0);
        while let Some(queued) = next {
            let mut goes_on = false;
            let portion = self.store_portion(queued, &by, &mut goes_on);
            rows += if self.job.record.is_on() {
                let sent = self.begun(BEGIN, portion).await?;
                let rows = sent.rows;
                self.commit(by.name(), by.done(sent)).await?;
                rows
            } else {
                portion.await?.rows
            };
            next = if goes_on { self.take().await? } else { None };
        }
        Ok(rows)
    }

    /// Stores chunks until the copier ends, or until they are enough for one transaction: then `goes_on` is set.
    async fn store_portion(
        &self,
        first: QueuedChunk,
        by: &StoredBy,
        goes_on: &mut bool,
    ) -> Result<Sent, RestoreError> {
        let (mut sent, mut bytes) = (Sent::of(first.unit), 0);
        let mut next = Some(first);
        while let Some(queued) = next {
            bytes += match by {
                StoredBy::Inserts => self.insert_chunk(queued, &mut sent).await?,
                StoredBy::Put(put) => self.put_batch(put, queued, &mut sent).await?,
            };
            *goes_on = bytes >= RECORDED_BYTES;
            next = if *goes_on { None } else { self.take().await? };
        }
        Ok(sent)
    }

    /// Runs INSERT statements; returns the bytes of them.
    async fn insert_chunk(
        &self,
        queued: QueuedChunk,
        sent: &mut Sent,
    ) -> Result<usize, RestoreError> {
        let size = queued.chunk.len();
        // If this chunk fails, nothing of the transaction is recorded.
        sent.took(self.job, &queued);
        let QueuedChunk { chunk, permit, .. } = queued;
        let Chunk::Statements {
            text: bytes,
            standard_strings,
            ..
        } = chunk
        else {
            return Err(RestoreError::internal("statements mixed with other data"));
        };
        let encoding = &self.job.encoding;
        let is_decoded = encoding.is_utf8() || bytes.is_ascii();
        let (sql, counts) = self.masked_inserts(encoding.decode(bytes)?, standard_strings)?;
        let sql = self.job.rewriter.respelled_rows(sql, standard_strings);
        let inserted = if sql.is_empty() {
            0
        } else if is_decoded {
            simple_insert(self.session, sql).await?
        } else {
            conversion::insert(self.session, encoding, &sql).await?
        };
        let kept = counts.as_ref().map(|counts| counts.rows_kept);
        check_inserted(self.mask.as_ref(), kept, inserted)?;
        sent.rows += inserted;
        if let Some(counts) = counts {
            sent.mask.get_or_insert_default().add(&counts);
        }
        drop(permit);
        Ok(size)
    }

    /// INSERT statements as they are sent, and what masking has changed if they are masked; empty if no row of them is left.
    fn masked_inserts(
        &self,
        sql: String,
        standard_strings: Option<bool>,
    ) -> Result<(String, Option<MaskCounts>), RestoreError> {
        let (Some(mask), Some(masking)) = (&self.mask, &self.job.masking) else {
            return Ok((sql, None));
        };
        let of_archive = || self.job.settings.has_standard_strings();
        let standard_strings = standard_strings.unwrap_or_else(of_archive);
        let mut counts = MaskCounts::default();
        let masked = mask.inserts(&sql, standard_strings, &mut counts)?;
        masking.count(mask, &counts);
        Ok((masked, Some(counts)))
    }

    /// Objects exist already (their entries precede the data), and pages of one object do not overlap between
    /// chunks, so several sessions may fill it.
    async fn put_large_objects(&self, first: QueuedChunk) -> Result<u64, RestoreError> {
        let put = self.session.client().prepare(PUT).await;
        let put = put.map_err(|e| map_pg_error(&e, OBJECTS))?;
        self.store(first, StoredBy::Put(put)).await
    }

    /// Stores a chunk of large objects and those queued behind it; returns the bytes of them.
    async fn put_batch(
        &self,
        put: &Statement,
        first: QueuedChunk,
        sent: &mut Sent,
    ) -> Result<usize, RestoreError> {
        let batch = self.batch_from(first);
        batch.iter().for_each(|queued| sent.took(self.job, queued));
        let pages = Pages::of(&batch)?;
        let values: [&(dyn ToSql + Sync); 3] = [&pages.oids, &pages.offsets, &pages.bytes];
        let stored = self.session.client().execute(put, &values).await;
        stored.map_err(|e| map_pg_error(&e, OBJECTS))?;
        Ok(batch.iter().map(|queued| queued.chunk.len()).sum())
    }

    /// A chunk and those queued behind it, for one statement.
    fn batch_from(&self, first: QueuedChunk) -> Vec<QueuedChunk> {
        let (mut batch, mut size) = (vec![], 0);
        let mut more = Some(first);
        while let Some(queued) = more {
            size += queued.chunk.len();
            batch.push(queued);
            let is_full = size >= BATCH_BYTES;
            more = (!is_full)
                .then(|| self.work_queue.take_queued(self.node, self.id))
                .flatten();
        }
        batch
    }
}

/// With ON CONFLICT DO NOTHING, the server leaves out masked rows whose keys have become equal, and only its count says so.
fn check_inserted(
    mask: Option<&RowMask>,
    kept: Option<u64>,
    inserted: u64,
) -> Result<(), RestoreError> {
    let (Some(mask), Some(kept)) = (mask, kept) else {
        return Ok(());
    };
    match kept.checked_sub(inserted) {
        None | Some(0) => Ok(()),
        Some(lost) => Err(do_not_fit(vec![format!(
            "{}: the server left out {lost} of {kept} masked rows of INSERT statements (ON CONFLICT DO NOTHING, a rule or a \
             trigger): their keys may have become equal; use a rule that keeps them apart",
            mask.name()
        )])),
    }
}

/// Parts of large objects, as the parameters of [`PUT`].
#[derive(Default)]
struct Pages<'a> {
    oids: Vec<u32>,
    offsets: Vec<i64>,
    bytes: Vec<&'a [u8]>,
}

impl<'a> Pages<'a> {
    fn of(batch: &'a [QueuedChunk]) -> Result<Self, RestoreError> {
        let mut pages = Pages::default();
        for queued in batch {
            let Chunk::LargeObject { oid, offset, bytes } = &queued.chunk else {
                let what = "large objects mixed with other data";
                return Err(RestoreError::internal(what));
            };
            pages.oids.push(*oid);
            pages
                .offsets
                .push(i64::try_from(*offset).unwrap_or(i64::MAX));
            pages.bytes.push(bytes);
        }
        Ok(pages)
    }
}

async fn simple_insert(session: &Session, sql: String) -> Result<u64, RestoreError> {
    let failed = |e| map_error_of_rows(&e, "INSERT");
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

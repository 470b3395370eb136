//! Reads tables back: as tuples where the types allow it, which the server writes with less work, and else as text.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::float_digits::FloatDigits;
use super::restored_database::RestoredDatabase;
use super::table_findings::{Column, TableFindings};
use super::text_forms::connect;
use super::tuple_form::TupleForm;
use crate::error::{DatabaseError, RestoreError};
use crate::postgres::{Session, literal, map_pg_error};
use crate::progress::Progress;
use pgdump_restore::{Columns, TupleReader};

/// Rows that are read between two updates of the progress.
const COUNTED_AT_ONCE: u64 = 1024;
/// Memory in bytes for a column and its findings, in addition to its names.
const COLUMN: usize = 320;

/// A table to read back.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    pub list: String,
    pub encoding: String,
    pub is_partitioned: bool,
    /// Which of its rows a dump contains, as SQL: an extension creates the others. Empty for all.
    pub condition: String,
    pub tuples: TupleForm,
}

/// How the server writes rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowFormat {
    /// Tuples, where that is possible.
    Tuples,
    Text,
}

impl Table {
    /// Memory in bytes until all tables are compared.
    pub(super) fn memory(&self) -> usize {
        let column = |c: &Column| COLUMN + 2 * (c.name.len() + c.kind.len());
        let columns: usize = self.columns.iter().map(column).sum();
        columns + self.list.len() + self.name.len() + self.condition.len()
    }
}

/// A table, or a range of its blocks.
#[derive(Clone, Copy)]
pub(super) struct TablePart {
    pub table: usize,
    pub blocks: Option<(i64, i64)>,
}

fn copy_sql(table: &Table, blocks: Option<(i64, i64)>, format: RowFormat) -> String {
    let with = match format {
        RowFormat::Tuples => "TO STDOUT WITH (FORMAT binary)".to_owned(),
        RowFormat::Text => format!("TO STDOUT WITH (ENCODING {})", literal(&table.encoding)),
    };
    let Table {
        name,
        list,
        condition,
        ..
    } = table;
    match blocks {
        Some((from, to)) => format!(
            "COPY (SELECT {list} FROM ONLY {name} WHERE ctid >= '({from},0)'::pg_catalog.tid \
             AND ctid < '({to},0)'::pg_catalog.tid) {with}"
        ),
        // COPY cannot read a partitioned table by its name.
        None if table.is_partitioned => format!("COPY (SELECT {list} FROM {name}) {with}"),
        None if !condition.is_empty() => {
            format!("COPY (SELECT {list} FROM ONLY {name} {condition}) {with}")
        }
        None if list.is_empty() => format!("COPY {name} {with}"),
        None => format!("COPY {name} ({list}) {with}"),
    }
}

/// Reads all parts. Each session has a thread of its own: rows arrive in small pieces, and passing each from the
/// connection's thread to another one costs more than digesting it.
pub(super) async fn read_all(
    subject: &RestoredDatabase<'_>,
    (settings, format): (&str, RowFormat),
    tables: &Arc<Vec<Table>>,
    queue: VecDeque<TablePart>,
) -> Result<Vec<TableFindings>, RestoreError> {
    let sessions = subject.sessions.clamp(1, queue.len().max(1));
    let queue = Arc::new(Mutex::new(queue));
    let found = Arc::new(Mutex::new(
        tables
            .iter()
            .map(|t| TableFindings::of(t.columns.len()))
            .collect::<Vec<_>>(),
    ));
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let mut running = JoinSet::new();
    for _ in 0..sessions {
        let (server, database, stop) = (
            subject.server.clone(),
            subject.database.to_owned(),
            stop.clone(),
        );
        let (queue, tables, found) = (queue.clone(), tables.clone(), found.clone());
        let (progress, settings) = (subject.progress.clone(), settings.to_owned());
        let reading = async move {
            let session = connect(&server, &database).await?;
            session.run(&settings).await?;
            loop {
                let next = queue.lock().pop_front();
                let Some(part) = next else {
                    return Ok::<_, RestoreError>(());
                };
                let table = &tables[part.table];
                let read = match format {
                    RowFormat::Tuples => read(&session, table, part.blocks, &progress).await,
                    RowFormat::Text => read_text(&session, table, part.blocks, &progress).await,
                };
                let read = read.map_err(|e| e.context(&table.name))?;
                found.lock()[part.table].merge(read);
            }
        };
        running.spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|e| {
                RestoreError::internal(format!("starting a thread that reads rows back: {e}"))
            })?;
            // Stop if the caller is gone.
            runtime
                .block_on(stop.run_until_cancelled_owned(reading))
                .unwrap_or(Ok(()))
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|e| {
            RestoreError::internal(format!("a task that reads rows back failed: {e}"))
        })??;
    }
    let found = found.lock();
    Ok(found.clone())
}

/// Reads rows as tuples, or as text where that is not possible.
async fn read(
    session: &Session,
    table: &Table,
    blocks: Option<(i64, i64)>,
    progress: &Progress,
) -> Result<TableFindings, DatabaseError> {
    let select = format!("SELECT {} FROM {}", table.list, table.name);
    if let Some(columns) = table.tuples.columns(session, &select).await {
        if let Some(found) = read_tuples(session, (table, &columns), blocks, progress).await? {
            return Ok(found);
        }
        table.tuples.give_up();
    }
    read_text(session, table, blocks, progress).await
}

/// `None` if the text of some value is not certain.
async fn read_tuples(
    session: &Session,
    (table, columns): (&Table, &Columns),
    blocks: Option<(i64, i64)>,
    progress: &Progress,
) -> Result<Option<TableFindings>, DatabaseError> {
    let (mut found, mut scratch) = (TableFindings::of(table.columns.len()), Vec::new());
    let mut tuples = TupleReader::new(columns);
    let take = |message: &[u8]| {
        let field = |i: usize, field: Option<&[u8]>| found.field(i, field, &table.columns);
        match tuples.read(message, field) {
            Ok(Some(line)) => found.rows.add_row(line, &mut scratch),
            Ok(None) => {}
            Err(_) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    };
    let copy = copy_sql(table, blocks, RowFormat::Tuples);
    read_messages(session, &copy, progress, take).await?;
    found.has_tuples = true;
    Ok(tuples.is_complete().then_some(found))
}

async fn read_text(
    session: &Session,
    table: &Table,
    blocks: Option<(i64, i64)>,
    progress: &Progress,
) -> Result<TableFindings, DatabaseError> {
    let (mut found, mut scratch) = (TableFindings::of(table.columns.len()), Vec::new());
    let line = |line: &[u8]| found.line(line, &table.columns, &mut scratch);
    let copy = copy_sql(table, blocks, RowFormat::Text);
    read_lines(session, &copy, progress, line).await?;
    Ok(found)
}

/// Reads columns that hold floating-point numbers, of which so many digits each are written by default.
pub(super) async fn read_digits(
    session: &Session,
    columns: &Table,
    digits: &[i32],
    progress: &Progress,
) -> Result<FloatDigits, DatabaseError> {
    let mut found = FloatDigits::default();
    let row = |line: &[u8]| {
        let values = line.split(|b| *b == b'\t').zip(digits);
        values.for_each(|(value, digits)| found.add(value, *digits));
    };
    if !digits.is_empty() {
        let copy = copy_sql(columns, None, RowFormat::Text);
        read_lines(session, &copy, progress, row).await?;
    }
    Ok(found)
}

/// Reads rows of text, without their line ends.
async fn read_lines(
    session: &Session,
    copy: &str,
    progress: &Progress,
    mut row: impl FnMut(&[u8]),
) -> Result<(), DatabaseError> {
    let line = |message: &[u8]| {
        row(message.strip_suffix(b"\n").unwrap_or(message));
        ControlFlow::Continue(())
    };
    read_messages(session, copy, progress, line).await
}

/// Reads what the server sends, which is one row per message, until `take` breaks.
async fn read_messages(
    session: &Session,
    copy: &str,
    progress: &Progress,
    mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), DatabaseError> {
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "reading rows back");
    let messages = session.client().copy_out(copy).await.map_err(e)?;
    tokio::pin!(messages);
    let mut counted = 0;
    while let Some(message) = messages.next().await {
        let message = message.map_err(e)?;
        counted += 1;
        if counted == COUNTED_AT_ONCE {
            progress.rows_checked.fetch_add(counted, Relaxed);
            counted = 0;
        }
        if take(&message).is_break() {
            break;
        }
    }
    progress.rows_checked.fetch_add(counted, Relaxed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_an_extension_creates_are_not_read_back() {
        let table = |condition: &str| Table {
            name: "public.spatial_ref_sys".into(),
            columns: vec![],
            list: "\"srid\"".into(),
            encoding: "UTF8".into(),
            is_partitioned: false,
            condition: condition.into(),
            tuples: TupleForm::default(),
        };
        let copy_sql = |table: &Table| copy_sql(table, None, RowFormat::Text);
        let all = "COPY public.spatial_ref_sys (\"srid\") TO STDOUT WITH (ENCODING 'UTF8')";
        assert_eq!(copy_sql(&table("")), all);
        let own = "COPY (SELECT \"srid\" FROM ONLY public.spatial_ref_sys WHERE srid > 9000) TO STDOUT WITH (ENCODING 'UTF8')";
        assert_eq!(copy_sql(&table("WHERE srid > 9000")), own);
    }
}

//! One COPY from its first statement to its end.

use std::pin::Pin;

use bytes::Bytes;
use futures::SinkExt;
use pgdump_archive::TocEntry;
use tokio_postgres::{CopyInSink, Statement};

use crate::binary;
use crate::copy_lines::CopyLines;
use crate::error::{DatabaseError, RestoreError};
use crate::postgres::{Session, map_error_of_rows, map_pg_error};

/// A COPY that the server has parsed.
pub(super) struct PreparedCopy {
    pub statement: Statement,
    /// Of tuples, not of text.
    pub binary: bool,
}

impl PreparedCopy {
    /// Begins it; `entry`: the rows.
    pub(super) async fn begin<'a>(
        self,
        session: &Session,
        entry: &'a TocEntry,
    ) -> Result<RunningCopy<'a>, RestoreError> {
        let sink = session.client().copy_in(&self.statement).await;
        let mut copying = RunningCopy {
            sink: Box::pin(sink.map_err(|e| map_pg_error(&e, "COPY"))?),
            binary: self.binary,
            sent: 0,
            entry,
            lines: CopyLines::default(),
        };
        let header = Bytes::from_static(binary::HEADER);
        if self.binary && copying.feed(header).await.is_err() {
            copying.end().await?;
        }
        Ok(copying)
    }
}

/// A running COPY.
pub(super) struct RunningCopy<'a> {
    entry: &'a TocEntry,
    sink: Pin<Box<CopyInSink<Bytes>>>,
    pub binary: bool,
    /// Bytes of the backup.
    pub sent: usize,
    pub lines: CopyLines,
}

impl RunningCopy<'_> {
    pub(super) async fn feed(&mut self, bytes: Bytes) -> Result<(), tokio_postgres::Error> {
        self.sink.feed(bytes).await
    }

    async fn end(&mut self) -> Result<u64, RestoreError> {
        let ended = self.sink.as_mut().finish().await;
        Ok(ended.map_err(|e| self.rejected(&e))?)
    }

    /// The server's error, with the line of the table's data.
    fn rejected(&self, e: &tokio_postgres::Error) -> DatabaseError {
        let error = map_error_of_rows(e, "COPY");
        let context = e.as_db_error().and_then(|db| db.where_());
        match context.and_then(|c| self.lines.place(c, self.entry)) {
            Some(place) => error.followed_by(&place),
            None => error,
        }
    }

    /// Ends the COPY; returns the number of rows that the server counted.
    pub(super) async fn finish(mut self) -> Result<u64, RestoreError> {
        if self.binary {
            // If this fails, `end` reports the cause.
            let _ = self.feed(Bytes::from_static(binary::TRAILER)).await;
        }
        self.end().await
    }
}

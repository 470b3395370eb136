//! Sends rows with COPY, converted to tuples or masked on their way.

use std::sync::Arc;

use bytes::Bytes;
use pgdump_archive::Chunk;
use pgdump_mask::MaskCounts;

use super::running::{PreparedCopy, RunningCopy};
use super::task::{CopyTask, Sent};
use crate::binary::Columns;
use crate::copy_lines::ChunkLines;
use crate::error::RestoreError;
use crate::load_context::LoadContext;
use crate::masking::{RowMask, do_not_fit};
use crate::work_queue::QueuedChunk;
use crate::work_record::UnitId;

/// One COPY ends after this many bytes, because the server reports a rejected row only at its end.
const COPY_BYTES: usize = 64 << 20;

/// Rows of COPY text, and where they are in the data of their table.
type RowsToSend = (Vec<u8>, Vec<ChunkLines>);

/// Sends one copier's rows, as tuples where they can be converted.
pub(super) struct RowSender<'a> {
    task: &'a CopyTask<'a>,
    /// Column types for converting rows; `None` if they stay text.
    columns: Option<Arc<Columns>>,
    /// The first COPY, until it begins.
    prepared: Option<PreparedCopy>,
    copying: Option<RunningCopy<'a>>,
    /// What was taken so far, with the rows of the COPYs that are complete.
    sent: Sent,
    /// The next chunk begins with the beginning of a row. A chunk may end within a row that is longer than a
    /// chunk; such chunks are not converted.
    begins_row: bool,
    masked: Option<MaskedRows<'a>>,
}

impl<'a> RowSender<'a> {
    /// For rows of `unit`, which are tuples if their columns are known.
    pub(super) fn new(
        task: &'a CopyTask<'a>,
        unit: UnitId,
        (columns, prepared): (Option<Arc<Columns>>, PreparedCopy),
    ) -> Self {
        RowSender {
            task,
            columns,
            prepared: Some(prepared),
            copying: None,
            sent: Sent::of(unit),
            begins_row: true,
            masked: task.mask.as_ref().map(MaskedRows::new),
        }
    }

    /// Sends one chunk; false if the copier should end.
    pub(super) async fn send(&mut self, queued: QueuedChunk) -> Result<bool, RestoreError> {
        self.sent.took(self.task.job, &queued);
        // Its memory is released once it is sent.
        let QueuedChunk {
            chunk,
            permit: _permit,
            lines,
            ..
        } = queued;
        let Chunk::Rows { text, ends_row } = chunk else {
            return Err(RestoreError::internal("rows mixed with other data"));
        };
        let size = text.len();
        let Some((text, lines)) = self.mask(text, ends_row, lines)? else {
            return Ok(true);
        };
        let has_whole_rows = self.begins_row && ends_row;
        self.begins_row = ends_row;
        let (bytes, binary) = self.convert(text, has_whole_rows);
        let copying = self.copying_as(binary).await?;
        copying.sent += size;
        lines.into_iter().for_each(|l| copying.lines.add(l));
        // If sending fails, `finish` returns the server's error.
        let is_sent = copying.feed(bytes).await.is_ok();
        let is_full = ends_row && copying.sent >= COPY_BYTES && !self.task.in_order;
        Ok(is_sent && !is_full)
    }

    /// The rows to send, and where they are in the table's data. A masked row is sent once it is complete, so there may be
    /// nothing to send yet, or nothing at all if no row of the chunk is kept.
    fn mask(
        &mut self,
        text: Vec<u8>,
        ends_row: bool,
        lines: ChunkLines,
    ) -> Result<Option<RowsToSend>, RestoreError> {
        let Some(masked) = &mut self.masked else {
            return Ok(Some((text, vec![lines])));
        };
        if !masked.take(text, lines)? || !ends_row {
            return Ok(None);
        }
        let (rows, lines) = masked.masked()?;
        Ok((!rows.is_empty()).then_some((rows, lines)))
    }

    /// The bytes to send, and whether they are tuples.
    fn convert(&mut self, text: Vec<u8>, has_whole_rows: bool) -> (Bytes, bool) {
        let Some(columns) = self.columns.as_deref().filter(|_| has_whole_rows) else {
            return (text.into(), false);
        };
        if let Some(tuples) = columns.tuples(&text) {
            return (tuples.into(), true);
        }
        // The table has other spellings: trying to convert every chunk would cost more than it saves.
        self.columns = None;
        self.task.job.columns().insert(self.task.node, None);
        (text.into(), false)
    }

    /// The running COPY if it has this format, or else a new one.
    async fn copying_as(&mut self, binary: bool) -> Result<&mut RunningCopy<'a>, RestoreError> {
        if let Some(other) = self.copying.take_if(|c| c.binary != binary) {
            self.sent.rows += other.finish().await?;
        }
        match &mut self.copying {
            Some(copying) => Ok(copying),
            none => {
                let copy = match self.prepared.take_if(|copy| copy.binary == binary) {
                    Some(prepared) => prepared,
                    None => self.task.prepare(binary).await?,
                };
                Ok(none.insert(copy.begin(self.task.session, self.task.entry).await?))
            }
        }
    }

    /// Ends the running COPY; returns what all of them have loaded.
    pub(super) async fn finish(self) -> Result<Sent, RestoreError> {
        // Before COPY ends, because COMMIT may follow it at once: without its end, the transaction fails.
        self.masked.as_ref().map_or(Ok(()), MaskedRows::are_sent)?;
        let mut sent = self.sent;
        if let Some(last) = self.copying {
            sent.rows += last.finish().await?;
        }
        if let Some(masked) = self.masked {
            sent.mask = Some(masked.end(self.task.job, sent.rows)?);
        }
        Ok(sent)
    }
}

/// Most bytes of a row that is masked: it has to be in memory as a whole.
const MASKED_ROW_BYTES: usize = 64 << 20;

/// Rows of one copier on their way through the mask.
struct MaskedRows<'a> {
    mask: &'a RowMask,
    counts: MaskCounts,
    /// Rows that have not been masked yet; the last one may be incomplete.
    waiting: Vec<u8>,
    /// Where they are in the table's data.
    lines: Vec<ChunkLines>,
}

impl<'a> MaskedRows<'a> {
    fn new(mask: &'a RowMask) -> Self {
        MaskedRows {
            mask,
            counts: MaskCounts::default(),
            waiting: vec![],
            lines: vec![],
        }
    }

    /// Adds a chunk; false if there is nothing to mask.
    fn take(&mut self, text: Vec<u8>, lines: ChunkLines) -> Result<bool, RestoreError> {
        if self.mask.table.leaves_out_all_rows() {
            // Rows of any length are only counted.
            self.mask.rows(&text, lines.before, &mut self.counts)?;
            return Ok(false);
        }
        if self.waiting.len() + text.len() > MASKED_ROW_BYTES {
            return Err(do_not_fit(vec![format!(
                "{}: the row after line {} has more than {} MiB, which is too large to be masked: leave the table out \
                 (--exclude-table-data), or restore it without its rows (rows: none)",
                self.mask.name(),
                self.lines.first().map_or(lines.before, |l| l.before),
                MASKED_ROW_BYTES >> 20
            )]));
        }
        if self.waiting.is_empty() {
            self.waiting = text;
        } else {
            self.waiting.extend_from_slice(&text);
        }
        self.lines.push(lines);
        Ok(!self.waiting.is_empty())
    }

    /// The rows that were waiting, and where they are. If rows are left out, the server's lines are none of the table's data.
    fn masked(&mut self) -> Result<RowsToSend, RestoreError> {
        let rows = std::mem::take(&mut self.waiting);
        let mut lines = std::mem::take(&mut self.lines);
        let before = lines.first().map_or(0, |l| l.before);
        let rows = self.mask.rows(&rows, before, &mut self.counts)?;
        if self.mask.table.leaves_out_rows() {
            lines.clear();
        }
        Ok((rows, lines))
    }

    /// Whether no row is waiting.
    fn are_sent(&self) -> Result<(), RestoreError> {
        if self.waiting.is_empty() {
            Ok(())
        } else {
            Err(RestoreError::internal("rows that were not masked"))
        }
    }

    /// All rows were sent, and the server has counted `rows` of them. They may be committed by then, so that a load that fails
    /// with this leaves nothing that could be continued.
    fn end(self, job: &LoadContext, rows: u64) -> Result<MaskCounts, RestoreError> {
        // Triggers, which only tables have that were there before, may leave out rows.
        let is_counted = job.copy_of.is_none() && !job.is_generic_sql;
        if is_counted && rows != self.counts.rows_kept {
            return Err(RestoreError::internal(format!(
                "{}: {} masked rows were sent, and the server counted {rows}",
                self.mask.name(),
                self.counts.rows_kept
            )));
        }
        if let Some(masking) = &job.masking {
            masking.count(self.mask, &self.counts);
        }
        Ok(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use pgdump_mask::{ColumnShape, MaskFile, Masking, TableShape};

    use super::*;

    fn mask(rules: &str) -> RowMask {
        let yaml = format!("version: 1\ntables: {{ s.t: {rules} }}\n");
        let masking = Masking::new(MaskFile::parse(&yaml).unwrap(), None).unwrap();
        let column = ColumnShape {
            name: "a".into(),
            sql_type: "text".into(),
            ..ColumnShape::default()
        };
        let shape = TableShape {
            schema: "s".into(),
            table: "t".into(),
            columns: vec![column],
            parents: vec![],
        };
        let table = masking.table(&shape).map_err(|all| all[0].to_string());
        let (table, name) = (table.unwrap().unwrap(), ("s".to_owned(), "t".to_owned()));
        RowMask::new(table, vec![name], vec!["a".to_owned()], vec![])
    }

    #[test]
    fn rows_that_nobody_keeps_may_be_of_any_length() {
        let half_of_row = || vec![b'x'; MASKED_ROW_BYTES / 2 + 1];
        let lines = || ChunkLines {
            before: 0,
            count: 0,
        };
        let none = mask("{ rows: none }");
        let mut empty = MaskedRows::new(&none);
        for text in [half_of_row(), half_of_row(), b"x\ny\n".to_vec()] {
            assert!(!empty.take(text, lines()).unwrap());
        }
        assert_eq!((empty.counts.rows, empty.counts.rows_kept), (2, 0));
        let set = mask("{ columns: { a: { set: x } } }");
        let mut masked = MaskedRows::new(&set);
        assert!(masked.are_sent().is_ok());
        assert!(masked.take(half_of_row(), lines()).unwrap());
        assert!(masked.are_sent().is_err());
        let refused = masked.take(half_of_row(), lines()).unwrap_err();
        assert!(refused.to_string().contains("more than 64 MiB"));
    }
}

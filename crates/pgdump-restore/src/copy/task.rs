//! What one session loads of an entry, and what a transaction has loaded of it.

use pgdump_archive::TocEntry;
use pgdump_mask::MaskCounts;

use super::running::PreparedCopy;
use crate::ddl::{self, CopyAs};
use crate::error::RestoreError;
use crate::ids::{NodeId, SessionId};
use crate::load_context::LoadContext;
use crate::masking::RowMask;
use crate::postgres::{Session, map_pg_error};
use crate::schedule::CopyStart;
use crate::work_queue::{QueuedChunk, WorkQueue};
use crate::work_record::{Body, ObjectsDone, RowsDone, Spans, UnitId};

/// A copier of a node's data.
pub(crate) struct CopyTask<'a> {
    pub job: &'a LoadContext,
    pub work_queue: &'a WorkQueue,
    pub session: &'a Session,
    pub entry: &'a TocEntry,
    pub node: NodeId,
    pub id: SessionId,
    pub start: CopyStart,
    /// All rows go in one COPY, as text, so that functions see the same earlier rows as in `pg_restore`'s
    /// restore.
    pub in_order: bool,
    /// How the rows are masked, if they are.
    pub mask: Option<RowMask>,
}

impl CopyTask<'_> {
    /// Has the server parse its COPY, of tuples or of text.
    pub(super) async fn prepare(&self, binary: bool) -> Result<PreparedCopy, RestoreError> {
        let form = CopyAs {
            freeze: self.start == CopyStart::Freezing,
            binary,
        };
        let sql = ddl::copy_sql(self.entry, &self.job.encoding, form);
        let prepared = self.session.client().prepare(&sql).await;
        let statement = prepared.map_err(|e| map_pg_error(&e, "COPY"))?;
        Ok(PreparedCopy { statement, binary })
    }
}

/// What one transaction has loaded, as its record says it.
pub(super) struct Sent {
    pub(super) unit: UnitId,
    pub(super) spans: Spans,
    /// Rows that the server counted.
    pub(super) rows: u64,
    /// What masking has changed in them.
    pub(super) mask: Option<MaskCounts>,
}

impl Sent {
    /// Nothing of this data yet.
    pub(super) fn of(unit: UnitId) -> Self {
        Sent {
            unit,
            spans: Spans::default(),
            rows: 0,
            mask: None,
        }
    }

    /// Adds a chunk that was taken, if there is a record that says so. The sessions do this and not the reader, which all of
    /// them wait for.
    pub(super) fn took(&mut self, job: &LoadContext, queued: &QueuedChunk) {
        if job.record.is_on() {
            self.spans.push_bytes(queued.from, queued.chunk.bytes());
        }
    }

    pub(super) fn into_rows(self, is_frozen: bool) -> Body {
        let Sent {
            unit,
            spans,
            rows,
            mask,
        } = self;
        let done = RowsDone {
            unit,
            spans,
            rows,
            is_frozen,
            mask,
        };
        Body {
            rows: vec![done],
            ..Body::default()
        }
    }

    pub(super) fn into_objects(self) -> Body {
        let Sent { unit, spans, .. } = self;
        Body {
            objects: vec![ObjectsDone { unit, spans }],
            ..Body::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_what_was_sent() {
        let sent = || {
            let mut sent = Sent::of(UnitId(9));
            sent.spans.push_bytes(0, b"abc\n");
            sent.spans.push_bytes(10, b"d\n");
            sent.rows = 3;
            sent
        };
        let body = sent().into_rows(true);
        let [rows] = &body.rows[..] else {
            panic!("{body:?}")
        };
        assert_eq!((rows.unit, rows.rows, rows.is_frozen), (UnitId(9), 3, true));
        assert!(rows.spans.ranges().covers(0..4) && !rows.spans.ranges().covers(0..12));
        let body = sent().into_objects();
        assert_eq!((body.rows.len(), body.objects[0].unit), (0, UnitId(9)));
    }
}

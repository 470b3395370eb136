//! Counts the data of one entry as it passes. A row is a line of COPY text. Timestamps with an offset are written in the
//! session's time zone, so each is counted as PostgreSQL writes it in UTC. An INSERT is counted as the line that COPY would
//! write.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::field_order::{FieldOrder, permuted_line};
use super::insert_rows::{InsertSink, InsertTarget, read_inserts};
use super::kept_memory::KeptMemory;
use super::row_digest::{LongRow, RowDigest};
use super::table_digests::TableDigests;
use super::{Chunk, Crc32c, Dialect, DumpId, TextEncoding};
use crate::error::ArchiveError;

/// Bytes of memory for a large object.
const OBJECT: usize = 32;
/// Most bytes of a row whose fields are brought into another order.
pub(super) const MAX_PERMUTED_ROW: usize = 4 << 20;

/// One large object's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectDigest {
    /// Size in bytes.
    pub bytes: u64,
    /// CRC32C of the whole object.
    pub crc32c: Crc32c,
}

/// The counts of one entry's data.
pub struct DigestBuilder {
    pub(super) dump_id: DumpId,
    pub(super) relation: Option<String>,
    pub(super) rows: RowDigest,
    /// How the fields of these rows are brought into the table's order.
    pub(super) order: FieldOrder,
    pub(super) is_only_counted: bool,
    /// The list of columns of the last INSERT.
    inserted: Option<Option<String>>,
    tables: Arc<TableDigests>,
    kept: Arc<KeptMemory>,
    /// A row that is not complete yet, if its fields change their order.
    begun: Vec<u8>,
    dialect: Dialect,
    long: Option<LongRow>,
    scratch: Vec<u8>,
    pub(super) objects: BTreeMap<u32, ObjectDigest>,
    pub(super) fallback: String,
    pub(super) is_rows: bool,
}

impl DigestBuilder {
    /// Has counted nothing of an entry. `fallback` is the name of its table if neither the entry nor its data has one. The
    /// builders of an archive share the list of its tables and the memory that lists may take.
    pub(super) fn new(
        (dump_id, fallback): (DumpId, String),
        dialect: Dialect,
        (tables, kept): (Arc<TableDigests>, Arc<KeptMemory>),
    ) -> Self {
        DigestBuilder {
            dump_id,
            relation: None,
            rows: RowDigest::default(),
            order: FieldOrder::Same,
            is_only_counted: false,
            inserted: None,
            tables,
            kept,
            begun: Vec::new(),
            dialect,
            long: None,
            scratch: Vec::new(),
            objects: BTreeMap::new(),
            fallback,
            is_rows: false,
        }
    }

    /// Whether the last row is not complete yet.
    pub(super) fn is_within_row(&self) -> bool {
        self.long.is_some() || !self.begun.is_empty()
    }

    /// Counts a chunk; chunks must come in the archive's order.
    ///
    /// # Errors
    /// `ArchiveError::Corrupt` for an INSERT that cannot be parsed; `ArchiveError::Limit` if the archive has so many
    /// tables or large objects that their list takes too much memory.
    pub fn chunk(&mut self, chunk: &Chunk, encoding: &TextEncoding) -> Result<(), ArchiveError> {
        match chunk {
            Chunk::Rows { .. } | Chunk::Statements { .. } if !self.is_rows => {}
            Chunk::Rows { text, .. } => self.add_rows(text),
            Chunk::Statements {
                text,
                standard_strings,
            } => {
                if let Some(standard_strings) = standard_strings {
                    self.dialect.standard_strings = *standard_strings;
                }
                let sql = encoding.decode(text.clone())?;
                self.add_inserts(&sql, encoding)?;
            }
            Chunk::LargeObject { oid, bytes, .. } => {
                if !self.objects.contains_key(oid) {
                    self.kept.charge(OBJECT)?;
                }
                let o = self.objects.entry(*oid).or_default();
                o.bytes += bytes.len() as u64;
                o.crc32c = o.crc32c.append(bytes);
            }
        }
        Ok(())
    }

    pub(super) fn add_rows(&mut self, text: &[u8]) {
        match self.order {
            FieldOrder::Permuted(_) => self.add_permuted_rows(text),
            FieldOrder::Same | FieldOrder::Incomparable => self.add_plain_rows(text),
        }
    }

    fn add_permuted_rows(&mut self, mut text: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', text) {
            let mut row = std::mem::take(&mut self.begun);
            row.extend_from_slice(&text[..end]);
            text = &text[end + 1..];
            self.add_row(row.strip_suffix(b"\r").unwrap_or(&row));
        }
        self.begun.extend_from_slice(text);
        if self.begun.len() > MAX_PERMUTED_ROW {
            // Too long to be kept until its end.
            self.order = FieldOrder::Incomparable;
        }
        if self.order == FieldOrder::Incomparable {
            let begun = std::mem::take(&mut self.begun);
            self.add_plain_rows(&begun);
        }
    }

    /// Adds a row without its line end, in the table's order of fields.
    fn add_row(&mut self, line: &[u8]) {
        let permuted = match &self.order {
            FieldOrder::Same | FieldOrder::Incomparable => None,
            FieldOrder::Permuted(order) => {
                let permuted = permuted_line(line, order);
                if permuted.is_none() {
                    self.order = FieldOrder::Incomparable;
                }
                permuted
            }
        };
        let line = permuted.as_deref().unwrap_or(line);
        self.rows.add_row(line, &mut self.scratch);
    }

    fn add_plain_rows(&mut self, mut text: &[u8]) {
        if let Some(mut long) = self.long.take() {
            let Some(end) = memchr::memchr(b'\n', text) else {
                long.feed(text);
                self.long = Some(long);
                return;
            };
            long.end(&text[..end], &mut self.rows);
            text = &text[end + 1..];
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text) {
            self.rows.add_row(&text[start..end], &mut self.scratch);
            start = end + 1;
        }
        if start < text.len() {
            let mut long = LongRow::new();
            long.feed(&text[start..]);
            self.long = Some(long);
        }
    }

    pub(super) fn add_inserts(
        &mut self,
        sql: &str,
        encoding: &TextEncoding,
    ) -> Result<(), ArchiveError> {
        let dialect = self.dialect;
        let mut rows = InsertedRows {
            builder: self,
            encoding,
        };
        read_inserts(sql, dialect, &mut rows)
    }
}

/// Counts the rows of INSERT statements.
struct InsertedRows<'a> {
    builder: &'a mut DigestBuilder,
    encoding: &'a TextEncoding,
}

impl InsertSink for InsertedRows<'_> {
    /// Every statement has its own list of columns: SQL text has the statements of several partitions in a row.
    fn target(&mut self, target: InsertTarget<'_>) -> Result<(), ArchiveError> {
        let (builder, columns) = (&mut *self.builder, target.columns());
        if builder
            .inserted
            .as_ref()
            .is_some_and(|last| last.as_deref() == columns)
        {
            return Ok(());
        }
        let relation = match (&builder.relation, target.relation()) {
            (Some(relation), _) => relation.clone(),
            (None, Some(relation)) => self.encoding.for_display(relation),
            (None, None) => return Ok(()),
        };
        let display = columns.map(|c| self.encoding.for_display(c));
        builder.order = builder
            .tables
            .begin(&relation, display.as_deref(), &builder.kept)?;
        builder.is_only_counted |= builder.order == FieldOrder::Incomparable;
        builder.relation = Some(relation);
        builder.inserted = Some(columns.map(str::to_owned));
        Ok(())
    }

    fn row(&mut self, fields: Option<&[String]>) {
        self.builder.is_only_counted |= fields.is_none();
        // In the archive's encoding, as COPY would write it.
        let line = fields.unwrap_or_default().join("\t");
        let line = self.encoding.bytes_of(&line);
        self.builder.add_row(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::super::content_digest::ContentDigest;
    use super::super::copy_target::copy_target;
    use super::super::{Limits, TocEntry};
    use super::*;
    use crate::row_digest::tests::rows;

    fn tally() -> DigestBuilder {
        let entry = TocEntry {
            copy_stmt: "COPY s.t (a) FROM stdin;".into(),
            ..TocEntry::bare(1, "TABLE DATA", "t")
        };
        let utf8 = TextEncoding::new("UTF8");
        let digest = ContentDigest::empty(Dialect::default(), utf8, Limits::default());
        digest.begin(&entry).unwrap()
    }

    #[test]
    fn a_row_in_several_chunks_is_one_row() {
        let pad = "y".repeat(100);
        for line in [
            format!("1\t{pad}2026-11-24 12:00:00.123456+05:30\t{pad}\t2026-11-24 12:00:00+00"),
            "2026-11-24 12:00:00+05:30:15".to_owned(),
            "0044-03-15 01:00:00+05:30 BC\t7".to_owned(),
        ] {
            let text = format!("{line}\nshort\n");
            let whole = rows(&[&line, "short"]);
            for cut in 1..text.len() {
                let mut t = tally();
                t.add_rows(&text.as_bytes()[..cut]);
                t.add_rows(&text.as_bytes()[cut..]);
                assert_eq!(t.rows, whole, "{line} cut at {cut}");
            }
            let mut t = tally();
            text.as_bytes()
                .iter()
                .for_each(|b| t.add_rows(std::slice::from_ref(b)));
            assert_eq!(t.rows, whole);
        }
    }

    /// A carriage return before the line end is no part of a row, wherever a chunk ends.
    #[test]
    fn long_rows_with_crlf_are_counted_like_short_ones() {
        for line in ["1\tabc\r", "2026-11-24 12:00:00+05:30\r", "a\rb\r\r", "\r"] {
            let text = format!("{line}\nshort\r\n");
            let whole = rows(&[line, "short"]);
            for cut in 1..text.len() {
                let mut t = tally();
                t.add_rows(&text.as_bytes()[..cut]);
                t.add_rows(&text.as_bytes()[cut..]);
                assert_eq!(t.rows, whole, "{line:?} cut at {cut}");
            }
            let mut t = tally();
            text.as_bytes()
                .iter()
                .for_each(|b| t.add_rows(std::slice::from_ref(b)));
            assert_eq!(t.rows, whole, "{line:?}");
        }
    }

    #[test]
    fn an_insert_is_counted_as_the_line_that_copy_writes() {
        let mut t = tally();
        t.relation = None;
        t.add_inserts(
            "INSERT INTO s.\"T (x)\" VALUES (1, -2.5, NULL, true, 'it''s\ta \\', B'101', DEFAULT),\n\t(2, 'NaN', false, '', '');\n\
             INSERT INTO s.\"T (x)\" (a, \"b c\") OVERRIDING SYSTEM VALUE VALUES (3, 'x') ON CONFLICT DO NOTHING;\n",
            &TextEncoding::new("UTF8"),
        )
        .unwrap();
        assert_eq!(
            t.rows,
            rows(&[
                "1\t-2.5\t\\N\tt\tit's\\ta \\\\\t101",
                "2\tNaN\tf\t\t",
                "3\tx"
            ])
        );
        assert_eq!(t.relation.as_deref(), Some("s.\"T (x)\""));
        let mut t = tally();
        t.relation = None;
        t.add_inserts(
            "INSERT INTO s.none DEFAULT VALUES;\nINSERT INTO s.none DEFAULT VALUES;\n",
            &TextEncoding::new("UTF8"),
        )
        .unwrap();
        assert_eq!(
            (t.relation.as_deref(), t.rows),
            (Some("s.none"), rows(&["", ""]))
        );
    }

    /// As it is read back: COPY … TO with the same encoding.
    #[test]
    fn an_insert_is_counted_in_the_dumps_own_encoding() {
        let sjis = TextEncoding::new("SJIS");
        let sql = sjis
            .decode(b"INSERT INTO s.t VALUES ('\x95\x5c\\', '\xb1\t');\n".to_vec())
            .unwrap();
        let mut t = tally();
        t.add_inserts(&sql, &sjis).unwrap();
        let mut wanted = RowDigest::default();
        wanted.add_row(b"\x95\x5c\\\\\t\xb1\\t", &mut Vec::new());
        assert_eq!(t.rows, wanted);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(4096))]
        /// Counting any input ends with a result that does not depend on the chunks.
        #[test]
        fn any_input_can_be_counted(
            words in proptest::collection::vec(proptest::sample::select(vec![
                "INSERT ", "INTO ", "s.t ", "VALUES ", "DEFAULT ", "(", ")", ",", ";", "'x' ", "NULL ", "COPY ",
                "FROM ", "stdin", "1", "\n", "\t", ":", "2026-11-24 12:00:00", "+01", "+05:30:15", " BC", ".5", "é",
            ]), 0..40),
            cuts in proptest::collection::vec(0usize..200, 0..6),
        ) {
            let text: String = words.concat();
            let mut t = tally();
            t.relation = None;
            let _ = t.add_inserts(&text, &TextEncoding::new("UTF8"));
            let _ = copy_target(&text);
            let lines = text.clone() + "\n";
            let mut whole = tally();
            whole.add_rows(lines.as_bytes());
            let mut parts = tally();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < lines.len()).collect();
            cuts.extend([0, lines.len()]);
            cuts.sort_unstable();
            cuts.windows(2).for_each(|w| parts.add_rows(&lines.as_bytes()[w[0]..w[1]]));
            proptest::prop_assert_eq!(whole.rows, parts.rows);
        }
    }
}

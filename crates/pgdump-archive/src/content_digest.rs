//! Digests an archive's data as it passes: number of rows, bytes and a digest of each table that does not
//! depend on the order of its rows; size and checksum of each large object. The rows of a restored database,
//! read as COPY text, are counted the same way and must give the same result.
//!
//! A row is a line of COPY text. Timestamps with an offset are written in the session's time zone, so each is
//! counted as PostgreSQL writes it in UTC. An INSERT is counted as the line that COPY would write.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::field_order::{FieldOrder, permuted_line};
use super::insert_rows::{InsertSink, InsertTarget, read_inserts};
use super::kept_memory::KeptMemory;
use super::lexer::tokens;
use super::row_digest::{LongRow, RowDigest};
use super::table_digests::{TableDigest, TableDigests};
use super::toc::corrupt;
use super::{
    BlockIndex, Chunk, Crc32c, DataSink, Dialect, DumpId, EntryKind, Extent, IndexedBlock, Limits,
    Statement, TextEncoding, TocEntry,
};
use crate::error::ArchiveError;

/// Bytes of memory for a large object.
const OBJECT: usize = 32;
/// Most bytes of a row whose fields are brought into another order.
const MAX_PERMUTED_ROW: usize = 4 << 20;

/// One large object's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectDigest {
    /// Size in bytes.
    pub bytes: u64,
    /// CRC32C of the whole object.
    pub crc32c: Crc32c,
}

/// Digests of all data of an archive, by table and large object. Several readers may write to it.
#[derive(Debug)]
pub struct ContentDigest {
    /// False for text that `pg_dump` did not write, whose rows COPY may not give back.
    counts_rows: bool,
    foreign_statement: Arc<OnceLock<u64>>,
    dialect: Dialect,
    encoding: TextEncoding,
    tables: Arc<TableDigests>,
    objects: Mutex<BTreeMap<u32, ObjectDigest>>,
    /// Location of the blocks of a custom archive.
    index: Mutex<BlockIndex>,
    /// Rows and bytes of each entry; none for SQL text, which has no blocks.
    entries: Mutex<BTreeMap<DumpId, (u64, u64)>>,
    has_entries: bool,
    kept: Arc<KeptMemory>,
}

impl ContentDigest {
    /// An empty digest for the data of `archive`, in its encoding and dialect.
    pub fn of(archive: &super::Archive) -> Self {
        let (entries, encoding) = (archive.entries(), archive.encoding());
        let copies = entries.iter().filter(|e| e.kind == EntryKind::TableData);
        let tables = TableDigests::expecting(copies.map(|e| e.copy_stmt.as_str()), |statement| {
            copy_target(&encoding.for_display(statement))
        });
        ContentDigest {
            counts_rows: !archive.is_generic_sql(),
            foreign_statement: archive.foreign_statement(),
            has_entries: !archive.is_script(),
            tables: Arc::new(tables),
            ..Self::empty(
                super::dialect_of(entries, encoding),
                encoding.clone(),
                archive.limits,
            )
        }
    }

    fn empty(dialect: Dialect, encoding: TextEncoding, limits: Limits) -> Self {
        let what = "the list of the backup's tables and large objects";
        ContentDigest {
            counts_rows: true,
            foreign_statement: Arc::default(),
            dialect,
            encoding,
            tables: Arc::default(),
            objects: Mutex::default(),
            index: Mutex::default(),
            entries: Mutex::default(),
            has_entries: true,
            kept: Arc::new(KeptMemory::new(what, limits)),
        }
    }

    /// Whether the rows of tables are digested. False for text that `pg_dump` did not write, whose rows COPY may not
    /// give back.
    pub fn counts_rows(&self) -> bool {
        self.counts_rows
    }

    /// Once all data was read, the line of the first statement that `pg_dump` did not write into the SQL text, if there is
    /// one that may have changed rows or large objects: those that differ say nothing of the text.
    pub fn foreign_statement(&self) -> Option<u64> {
        self.foreign_statement.get().copied()
    }

    /// Records a location: the head, or an entry's block.
    pub fn extent(&self, entry: Option<&TocEntry>, extent: Extent) {
        let mut index = self.index.lock();
        match entry {
            None => index.head = extent,
            Some(e) => {
                let entries = self.entries.lock();
                let (rows, bytes) = entries.get(&e.dump_id).copied().unwrap_or_default();
                index.blocks.push(IndexedBlock {
                    dump_id: e.dump_id,
                    extent,
                    rows,
                    bytes,
                });
            }
        }
    }

    /// Records the location of a table of contents that follows the data.
    pub fn tail(&self, extent: Extent) {
        self.index.lock().tail = Some(extent);
    }

    /// The locations of a custom archive's blocks once all of it was read; empty for every other archive.
    pub fn index(&self) -> BlockIndex {
        self.index.lock().clone()
    }

    /// The data of `entry` begins.
    ///
    /// # Errors
    /// `ArchiveError::Limit` if the archive has so many tables that their list takes too much memory.
    pub fn begin(&self, entry: &TocEntry) -> Result<DigestBuilder, ArchiveError> {
        let is_rows = entry.kind == EntryKind::TableData && self.counts_rows;
        let statement = is_rows.then(|| self.encoding.for_display(&entry.copy_stmt));
        let target = statement.and_then(|sql| copy_target(&sql));
        let (relation, order) = match target {
            Some((relation, columns)) => {
                let order = self
                    .tables
                    .begin(&relation, columns.as_deref(), &self.kept)?;
                (Some(relation), order)
            }
            None => (None, FieldOrder::Same),
        };
        Ok(DigestBuilder {
            dump_id: entry.dump_id,
            relation,
            rows: RowDigest::default(),
            order,
            is_only_counted: false,
            inserted: None,
            tables: self.tables.clone(),
            kept: self.kept.clone(),
            begun: Vec::new(),
            dialect: self.dialect,
            long: None,
            scratch: Vec::new(),
            objects: BTreeMap::new(),
            fallback: match &entry.namespace {
                Some(schema) => format!("{}.{}", quoted(schema), quoted(&entry.tag)),
                None => self.encoding.for_display(&quoted(&entry.tag)),
            },
            is_rows,
        })
    }

    /// The same, after the data that `before` has counted: large objects of a tar begin one by one and end
    /// together.
    ///
    /// # Errors
    /// As [`ContentDigest::finish`] and [`ContentDigest::begin`].
    pub fn next(
        &self,
        before: Option<DigestBuilder>,
        entry: &TocEntry,
    ) -> Result<DigestBuilder, ArchiveError> {
        before.map_or(Ok(()), |b| self.finish(b))?;
        self.begin(entry)
    }

    /// The data of an entry is complete.
    ///
    /// # Errors
    /// `ArchiveError::Corrupt` if the last row is incomplete; `ArchiveError::Limit` as [`ContentDigest::begin`].
    pub fn finish(&self, tally: DigestBuilder) -> Result<(), ArchiveError> {
        if tally.long.is_some() || !tally.begun.is_empty() {
            return Err(corrupt(format!(
                "{}: the last row is incomplete",
                tally.fallback
            )));
        }
        if self.has_entries {
            let bytes = tally.rows.bytes + tally.objects.values().map(|o| o.bytes).sum::<u64>();
            let mut entries = self.entries.lock();
            entries.insert(tally.dump_id, (tally.rows.count, bytes));
        }
        if tally.is_rows {
            let is_incomparable = tally.order == FieldOrder::Incomparable && tally.rows.count > 0;
            let is_only_counted = tally.is_only_counted || is_incomparable;
            let relation = match tally.relation {
                Some(relation) => relation,
                None => {
                    self.tables.begin(&tally.fallback, None, &self.kept)?;
                    tally.fallback
                }
            };
            self.tables.add(relation, &tally.rows, is_only_counted);
        }
        let mut objects = self.objects.lock();
        objects.extend(tally.objects);
        Ok(())
    }

    /// Tables by their names as written in SQL.
    pub fn tables(&self) -> BTreeMap<String, TableDigest> {
        self.tables.read()
    }

    /// Large objects by OID.
    pub fn objects(&self) -> BTreeMap<u32, ObjectDigest> {
        self.objects.lock().clone()
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `COPY s.t (a, b) FROM stdin;` → `s.t` and `(a, b)`
pub fn copy_target(copy: &str) -> Option<(String, Option<String>)> {
    let t = tokens(copy, Dialect::default());
    let from = t.iter().rposition(|w| w.is("from"))?;
    let open = t[..from].iter().position(|w| w.is_symbol(b'('));
    let start = t.get(1)?.at;
    let name_end = open.map_or(t[from].at, |i| t[i].at);
    let relation = copy.get(start..name_end)?.trim().to_owned();
    let columns = open
        .and_then(|i| copy.get(t[i].at..t[from].at))
        .map(|c| c.trim().to_owned());
    Some((relation, columns))
}

/// The counts of one entry's data.
pub struct DigestBuilder {
    dump_id: DumpId,
    relation: Option<String>,
    rows: RowDigest,
    /// How the fields of these rows are brought into the table's order.
    order: FieldOrder,
    is_only_counted: bool,
    /// The list of columns of the last INSERT.
    inserted: Option<Option<String>>,
    tables: Arc<TableDigests>,
    kept: Arc<KeptMemory>,
    /// A row that is not complete yet, if its fields change their order.
    begun: Vec<u8>,
    dialect: Dialect,
    long: Option<LongRow>,
    scratch: Vec<u8>,
    objects: BTreeMap<u32, ObjectDigest>,
    fallback: String,
    is_rows: bool,
}

impl DigestBuilder {
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

    fn add_rows(&mut self, text: &[u8]) {
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

    fn add_inserts(&mut self, sql: &str, encoding: &TextEncoding) -> Result<(), ArchiveError> {
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

/// Reads an archive's data only to digest it.
pub struct DigestSink<'a> {
    content_digest: &'a ContentDigest,
    current: Option<DigestBuilder>,
    /// Called with the bytes of each chunk.
    seen: &'a (dyn Fn(u64) + Sync),
}

impl<'a> DigestSink<'a> {
    /// A sink that adds all data to `content_digest`, and calls `seen` with the bytes of each chunk.
    pub fn new(content_digest: &'a ContentDigest, seen: &'a (dyn Fn(u64) + Sync)) -> Self {
        DigestSink {
            content_digest,
            current: None,
            seen,
        }
    }
}

impl DataSink for DigestSink<'_> {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.current = Some(self.content_digest.next(self.current.take(), entry)?);
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        (self.seen)(chunk.len() as u64);
        self.current
            .as_mut()
            .map_or(Ok(()), |c| c.chunk(&chunk, &self.content_digest.encoding))
    }

    fn end(&mut self, _entry: &TocEntry) -> Result<(), ArchiveError> {
        self.current
            .take()
            .map_or(Ok(()), |c| self.content_digest.finish(c))
    }

    fn tail(&mut self, extent: Extent) {
        self.content_digest.tail(extent);
    }

    fn extent(&mut self, entry: Option<&TocEntry>, extent: Extent) {
        self.content_digest.extent(entry, extent);
    }

    fn statement(&mut self, _statement: Statement) -> Result<(), ArchiveError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_digest::tests::rows;

    fn digest() -> ContentDigest {
        let utf8 = TextEncoding::new("UTF8");
        ContentDigest::empty(Dialect::default(), utf8, Limits::default())
    }

    fn tally() -> DigestBuilder {
        let entry = TocEntry {
            copy_stmt: "COPY s.t (a) FROM stdin;".into(),
            ..TocEntry::bare(1, "TABLE DATA", "t")
        };
        digest().begin(&entry).unwrap()
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

    fn copies(columns: &str) -> TocEntry {
        TocEntry {
            copy_stmt: format!("COPY s.root {columns} FROM stdin;"),
            ..TocEntry::bare(1, "TABLE DATA", "part")
        }
    }

    /// The digest of the table that these partitions are loaded into through their root.
    fn of_partitions(digest: &ContentDigest, parts: &[(&str, &str)], cut: usize) -> TableDigest {
        for (columns, text) in parts {
            let mut t = digest.begin(&copies(columns)).unwrap();
            let cut = cut.min(text.len());
            t.add_rows(&text.as_bytes()[..cut]);
            t.add_rows(&text.as_bytes()[cut..]);
            digest.finish(t).unwrap();
        }
        digest.tables()["s.root"].clone()
    }

    #[test]
    fn rows_of_partitions_are_counted_in_the_order_of_the_first_ones_columns() {
        let wanted = TableDigest {
            columns: Some("(a, b)".into()),
            rows: rows(&["1\tx", "2\ty", "3\t2026-11-24 12:00:00+00"]),
            is_only_counted: false,
        };
        for end in ["\n", "\r\n"] {
            let second = format!("y\t2{end}2026-11-24 13:00:00+01\t3{end}");
            for cut in 0..=second.len() {
                let parts = [("(a, b)", "1\tx\n"), ("(b, \"a\")", second.as_str())];
                assert_eq!(
                    of_partitions(&digest(), &parts, cut),
                    wanted,
                    "cut at {cut}"
                );
            }
        }
        // The table of contents decides which one is first, not the reader that is first.
        let toc = [
            "COPY s.root (a, b) FROM stdin;",
            "COPY s.root (b, a) FROM stdin;",
        ];
        let known = ContentDigest {
            tables: Arc::new(TableDigests::expecting(toc.into_iter(), copy_target)),
            ..digest()
        };
        assert!(known.tables().is_empty());
        let parts = [
            ("(b, a)", "y\t2\n2026-11-24 13:00:00+01\t3\n"),
            ("(a, b)", "1\tx\n"),
        ];
        assert_eq!(of_partitions(&known, &parts, 0), wanted);
    }

    #[test]
    fn of_rows_with_other_columns_only_the_number_is_compared() {
        let long = format!("{}\t1\n", "x".repeat(MAX_PERMUTED_ROW + 1));
        for (columns, text, is_other) in [
            ("(a, c)", "1\t2\n", true),
            ("(a, c)", "", false),
            ("(a)", "1\n", true),
            ("(b, a)", "1\n", true),
            ("(b, a)", &long, true),
        ] {
            let parts = [("(a, b)", "1\tx\n"), (columns, text)];
            let found = of_partitions(&digest(), &parts, MAX_PERMUTED_ROW + 1);
            assert_eq!(found.is_only_counted, is_other, "{columns}");
            let count = 1 + text.matches('\n').count() as u64;
            assert_eq!(found.rows.count, count, "{columns}");
        }
    }

    /// SQL text has the statements of several partitions one after another.
    #[test]
    fn inserts_into_one_table_may_list_its_columns_in_several_orders() {
        let digest = digest();
        let entry = TocEntry::bare(1, "TABLE DATA", "s.t");
        let utf8 = TextEncoding::new("UTF8");
        let mut t = digest.begin(&entry).unwrap();
        for sql in [
            "INSERT INTO s.t (a, b) VALUES (1, 'x');",
            "INSERT INTO s.t (b, a) VALUES ('y', 2), ('z', 3);\nINSERT INTO s.t (a, b) VALUES (4, NULL);",
        ] {
            t.add_inserts(sql, &utf8).unwrap();
        }
        digest.finish(t).unwrap();
        let found = &digest.tables()["s.t"];
        assert_eq!(found.rows, rows(&["1\tx", "2\ty", "3\tz", "4\t\\N"]));
        assert!(!found.is_only_counted);
        let mut t = digest.begin(&entry).unwrap();
        t.add_inserts("INSERT INTO s.t VALUES (1, 'x');", &utf8)
            .unwrap();
        digest.finish(t).unwrap();
        assert!(digest.tables()["s.t"].is_only_counted);
    }

    /// What somebody has added by hand is counted, and not taken for damage.
    #[test]
    fn of_rows_with_expressions_only_the_number_is_known() {
        let utf8 = TextEncoding::new("UTF8");
        for (values, is_only_counted) in [
            ("(-5), (1e+20), (-1.5e-07)", false),
            ("(1), (1+1), (3)", true),
            ("(1), ((2)), (3)", true),
            ("(1), (+2), (3)", true),
            ("(1), ('a' || 'b'), (3)", true),
            ("(1), (E'\\xff'), (3)", true),
        ] {
            let digest = digest();
            let entry = TocEntry::bare(1, "TABLE DATA", "s.t");
            let mut t = digest.begin(&entry).unwrap();
            let sql = format!("INSERT INTO s.t VALUES {values};");
            t.add_inserts(&sql, &utf8).unwrap();
            digest.finish(t).unwrap();
            let found = &digest.tables()["s.t"];
            assert_eq!(found.is_only_counted, is_only_counted, "{values}");
            // Behind parentheses in parentheses, the rest of the statement is passed over.
            let count = if values.contains("((") { 2 } else { 3 };
            assert_eq!(found.rows.count, count, "{values}");
        }
    }

    /// What the archive decides the number of takes no more memory than allowed.
    #[test]
    fn a_digest_of_too_many_tables_or_large_objects_is_refused() {
        let limits = Limits::default().with_memory(1 << 20);
        let utf8 = TextEncoding::new("UTF8");
        let limited = || ContentDigest::empty(Dialect::default(), utf8.clone(), limits);
        let is_limit = |e: ArchiveError| matches!(e, ArchiveError::Limit(_));
        let refused = |step: &mut dyn FnMut(u32) -> Result<(), ArchiveError>| {
            is_limit((0..1 << 17).try_for_each(step).unwrap_err())
        };
        let digest = limited();
        assert!(refused(&mut |i| {
            let mut entry = copies("(a)");
            entry.copy_stmt = format!("COPY s.root/*{i}*/ (a) FROM stdin;");
            digest.finish(digest.begin(&entry)?)
        }));
        let (digest, entry) = (limited(), TocEntry::bare(1, "TABLE DATA", "t"));
        assert!(refused(&mut |i| {
            let mut t = digest.begin(&entry)?;
            t.add_inserts(&format!("INSERT INTO t/*{i}*/ (a) VALUES (1);"), &utf8)?;
            digest.finish(t)
        }));
        let (digest, entry) = (limited(), TocEntry::bare(1, "BLOBS", "BLOBS"));
        let mut t = digest.begin(&entry).unwrap();
        assert!(refused(&mut |oid| {
            let chunk = Chunk::LargeObject {
                oid,
                offset: 0,
                bytes: vec![0].into(),
            };
            t.chunk(&chunk, &utf8)
        }));
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

    #[test]
    fn the_target_of_a_copy_is_parsed_with_its_columns() {
        let of = |sql| copy_target(sql).unwrap();
        assert_eq!(
            of("COPY s.t (a, \"b (c\") FROM stdin;"),
            ("s.t".into(), Some("(a, \"b (c\")".into()))
        );
        assert_eq!(
            of("COPY \"S\".\"from\"  FROM stdin;"),
            ("\"S\".\"from\"".into(), None)
        );
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

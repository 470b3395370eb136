//! Digests of all data of an archive: number of rows, bytes and a digest of each table that does not depend on the order
//! of its rows; size and checksum of each large object. `digest_builder` counts the data of one entry as it passes. The
//! rows of a restored database, read as COPY text, are counted the same way and must give the same result.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::copy_target::copy_target;
use super::digest_builder::{DigestBuilder, ObjectDigest};
use super::field_order::FieldOrder;
use super::kept_memory::KeptMemory;
use super::table_digests::{TableDigest, TableDigests};
use super::toc::corrupt;
use super::{
    BlockIndex, Chunk, DataSink, Dialect, DumpId, EntryKind, Extent, IndexedBlock, Limits,
    Statement, TextEncoding, TocEntry,
};
use crate::error::ArchiveError;

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

    pub(super) fn empty(dialect: Dialect, encoding: TextEncoding, limits: Limits) -> Self {
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
        let fallback = match &entry.namespace {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&entry.tag)),
            None => self.encoding.for_display(&quoted(&entry.tag)),
        };
        let shared = (self.tables.clone(), self.kept.clone());
        let mut builder = DigestBuilder::new((entry.dump_id, fallback), self.dialect, shared);
        (builder.relation, builder.order, builder.is_rows) = (relation, order, is_rows);
        Ok(builder)
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
    pub fn finish(&self, builder: DigestBuilder) -> Result<(), ArchiveError> {
        if builder.is_within_row() {
            return Err(corrupt(format!(
                "{}: the last row is incomplete",
                builder.fallback
            )));
        }
        if self.has_entries {
            let bytes = builder.rows.bytes + builder.objects.values().map(|o| o.bytes).sum::<u64>();
            let mut entries = self.entries.lock();
            entries.insert(builder.dump_id, (builder.rows.count, bytes));
        }
        if builder.is_rows {
            let is_incomparable =
                builder.order == FieldOrder::Incomparable && builder.rows.count > 0;
            let is_only_counted = builder.is_only_counted || is_incomparable;
            let relation = match builder.relation {
                Some(relation) => relation,
                None => {
                    self.tables.begin(&builder.fallback, None, &self.kept)?;
                    builder.fallback
                }
            };
            self.tables.add(relation, &builder.rows, is_only_counted);
        }
        let mut objects = self.objects.lock();
        objects.extend(builder.objects);
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
    use super::super::digest_builder::MAX_PERMUTED_ROW;
    use super::*;
    use crate::row_digest::tests::rows;

    fn digest() -> ContentDigest {
        let utf8 = TextEncoding::new("UTF8");
        ContentDigest::empty(Dialect::default(), utf8, Limits::default())
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
}

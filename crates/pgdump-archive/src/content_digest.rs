//! Digests an archive's data as it passes: number of rows, bytes and a digest of each table that does not
//! depend on the order of its rows; size and checksum of each large object. The rows of a restored database,
//! read as COPY text, are counted the same way and must give the same result.
//!
//! A row is a line of COPY text. Timestamps with an offset are written in the session's time zone, so each is
//! counted as PostgreSQL writes it in UTC. An INSERT is counted as the line that COPY would write.

use crate::Crc32c;
use std::collections::BTreeMap;

use parking_lot::Mutex;

use twox_hash::xxhash3_128;

use super::insert_rows::{InsertSink, InsertTarget, read_inserts};
use super::lexer::tokens;
use super::timestamps::{has_non_utc, normalize_to_utc};
use super::toc::corrupt;
use super::{
    BlockIndex, Chunk, DataSink, Dialect, DumpId, EntryKind, Extent, IndexedBlock, Statement,
    TextEncoding, TocEntry,
};
use crate::error::ArchiveError;

/// Counts of the rows so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowDigest {
    /// Number of rows.
    pub count: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
    /// Sum of the rows' XXH3-128 digests.
    pub digest: u128,
}

impl RowDigest {
    /// Counts one row, without its newline.
    pub fn add_row(&mut self, line: &[u8], scratch: &mut Vec<u8>) {
        // Text with CRLF line ends, which COPY takes as well. A carriage return of a value is always escaped.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Rows without timestamps to normalize, that is most of them, are not copied.
        let hash = if has_non_utc(line) {
            scratch.clear();
            normalize_to_utc(line, true, scratch);
            xxhash3_128::Hasher::oneshot(scratch)
        } else {
            xxhash3_128::Hasher::oneshot(line)
        };
        self.add(hash, line.len() as u64 + 1);
    }

    fn add(&mut self, hash: u128, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.digest = self.digest.wrapping_add(hash);
    }

    /// The sum of both.
    pub fn merge(&mut self, other: &RowDigest) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// A row that arrives in several chunks.
struct LongRow {
    hasher: Box<xxhash3_128::Hasher>,
    /// Bytes that may be the beginning of a timestamp.
    rest: Vec<u8>,
    bytes: u64,
}

impl LongRow {
    fn new() -> Self {
        LongRow {
            hasher: Box::new(xxhash3_128::Hasher::new()),
            rest: Vec::new(),
            bytes: 0,
        }
    }

    fn feed(&mut self, part: &[u8], at_end: bool) {
        self.bytes += part.len() as u64;
        self.rest.extend_from_slice(part);
        let mut out = Vec::with_capacity(self.rest.len());
        let done = normalize_to_utc(&self.rest, at_end, &mut out);
        self.hasher.write(&out);
        self.rest.drain(..done);
    }
}

/// One table's data in the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDigest {
    /// The list of columns in parentheses, as in the archive; `None`: all columns that accept values.
    pub columns: Option<String>,
    /// Count, size and digest of its rows.
    pub rows: RowDigest,
}

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
    dialect: Dialect,
    encoding: TextEncoding,
    /// By the name in the archive's statements, including schema and quotes.
    tables: Mutex<BTreeMap<String, TableDigest>>,
    objects: Mutex<BTreeMap<u32, ObjectDigest>>,
    /// Location of the blocks of a custom archive.
    index: Mutex<BlockIndex>,
    /// Rows and bytes of each entry.
    entries: Mutex<BTreeMap<DumpId, (u64, u64)>>,
}

impl ContentDigest {
    /// An empty digest for the data of `archive`, in its encoding and dialect.
    pub fn of(archive: &super::Archive) -> Self {
        ContentDigest {
            counts_rows: !archive.is_generic_sql(),
            dialect: super::dialect_of(archive.entries(), archive.encoding()),
            encoding: archive.encoding().clone(),
            tables: Mutex::default(),
            objects: Mutex::default(),
            index: Mutex::default(),
            entries: Mutex::default(),
        }
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
    pub fn begin(&self, entry: &TocEntry) -> DigestBuilder {
        let (relation, columns) = copy_target(&self.encoding.for_display(&entry.copy_stmt)).unzip();
        DigestBuilder {
            dump_id: entry.dump_id,
            relation,
            data: TableDigest {
                columns: columns.flatten(),
                ..TableDigest::default()
            },
            dialect: self.dialect,
            long: None,
            scratch: Vec::new(),
            objects: BTreeMap::new(),
            fallback: match &entry.namespace {
                Some(schema) => format!("{}.{}", quoted(schema), quoted(&entry.tag)),
                None => self.encoding.for_display(&quoted(&entry.tag)),
            },
            is_rows: entry.kind == EntryKind::TableData && self.counts_rows,
        }
    }

    /// The same, after the data that `before` has counted: large objects of a tar begin one by one and end
    /// together.
    ///
    /// # Errors
    /// As [`ContentDigest::finish`].
    pub fn next(
        &self,
        before: Option<DigestBuilder>,
        entry: &TocEntry,
    ) -> Result<DigestBuilder, ArchiveError> {
        before.map_or(Ok(()), |b| self.finish(b))?;
        Ok(self.begin(entry))
    }

    /// The data of an entry is complete.
    ///
    /// # Errors
    /// `ArchiveError::Corrupt` if the last row is incomplete.
    pub fn finish(&self, tally: DigestBuilder) -> Result<(), ArchiveError> {
        if tally.long.is_some() {
            return Err(corrupt(format!(
                "{}: the last row is incomplete",
                tally.fallback
            )));
        }
        let bytes = tally.data.rows.bytes + tally.objects.values().map(|o| o.bytes).sum::<u64>();
        let mut entries = self.entries.lock();
        entries.insert(tally.dump_id, (tally.data.rows.count, bytes));
        drop(entries);
        if tally.is_rows {
            let mut tables = self.tables.lock();
            // Partitions that are loaded through their root count as one table.
            let all = tables
                .entry(tally.relation.unwrap_or(tally.fallback))
                .or_default();
            all.rows.merge(&tally.data.rows);
            all.columns = tally.data.columns;
        }
        let mut objects = self.objects.lock();
        objects.extend(tally.objects);
        Ok(())
    }

    /// Tables by their names as written in SQL.
    pub fn tables(&self) -> BTreeMap<String, TableDigest> {
        self.tables.lock().clone()
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
    data: TableDigest,
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
    /// `ArchiveError::Corrupt` for an INSERT that cannot be parsed.
    pub fn chunk(&mut self, chunk: &Chunk, encoding: &TextEncoding) -> Result<(), ArchiveError> {
        match chunk {
            Chunk::Rows { .. } | Chunk::Statements { .. } if !self.is_rows => {}
            Chunk::Rows { text, .. } => self.rows(text),
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
                let o = self.objects.entry(*oid).or_default();
                o.bytes += bytes.len() as u64;
                o.crc32c = o.crc32c.append(bytes);
            }
        }
        Ok(())
    }

    fn rows(&mut self, mut text: &[u8]) {
        if let Some(long) = &mut self.long {
            let Some(end) = memchr::memchr(b'\n', text) else {
                return long.feed(text, false);
            };
            long.feed(&text[..end], true);
            self.data.rows.add(long.hasher.finish_128(), long.bytes + 1);
            self.long = None;
            text = &text[end + 1..];
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text) {
            self.data.rows.add_row(&text[start..end], &mut self.scratch);
            start = end + 1;
        }
        if start < text.len() {
            let mut long = LongRow::new();
            long.feed(&text[start..], false);
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
    fn target(&mut self, target: InsertTarget<'_>) {
        let Some(relation) = target.relation() else {
            return;
        };
        if self.builder.relation.is_none() {
            self.builder.relation = Some(self.encoding.for_display(relation));
            let columns = target.columns().map(|c| self.encoding.for_display(c));
            self.builder.data.columns = columns.or(self.builder.data.columns.take());
        }
    }

    fn row(&mut self, fields: &[String]) {
        // In the archive's encoding, as COPY would write it.
        let line = self.encoding.bytes_of(&fields.join("\t"));
        let DigestBuilder { data, scratch, .. } = &mut *self.builder;
        data.rows.add_row(&line, scratch);
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

    fn rows(lines: &[&str]) -> RowDigest {
        let mut r = RowDigest::default();
        lines
            .iter()
            .for_each(|l| r.add_row(l.as_bytes(), &mut Vec::new()));
        r
    }

    fn tally() -> DigestBuilder {
        let entry = TocEntry {
            copy_stmt: "COPY s.t (a) FROM stdin;".into(),
            ..TocEntry::bare(1, "TABLE DATA", "t")
        };
        let content_digest = ContentDigest {
            counts_rows: true,
            dialect: Dialect::default(),
            encoding: TextEncoding::new("UTF8"),
            tables: Mutex::default(),
            objects: Mutex::default(),
            index: Mutex::default(),
            entries: Mutex::default(),
        };
        content_digest.begin(&entry)
    }

    #[test]
    fn only_the_order_of_rows_does_not_matter() {
        assert_eq!(rows(&["1\ta", "2\tb"]), rows(&["2\tb", "1\ta"]));
        for other in [["1\ta", "2\tc"], ["1\ta", "1\ta"], ["2\ta", "1\tb"]] {
            assert_ne!(
                rows(&["1\ta", "2\tb"]).digest,
                rows(&other).digest,
                "{other:?}"
            );
        }
        assert_ne!(rows(&["1\ta"]), rows(&["1\ta", "1\ta"]));
    }

    #[test]
    fn timestamps_are_equal_in_every_time_zone() {
        for (a, b) in [
            ("2026-11-24 12:00:00+00", "2026-11-24 13:00:00+01"),
            ("2026-11-24 23:30:00.25-05:30", "2026-11-25 05:00:00.25+00"),
            ("1850-01-01 00:53:28+00:53:28", "1850-01-01 00:00:00+00"),
            ("0044-03-15 01:00:00+01 BC", "0044-03-15 00:00:00+00 BC"),
            (
                "x\t{\"2026-01-01 00:00:00+02\",NULL}\ty",
                "x\t{\"2025-12-31 22:00:00+00\",NULL}\ty",
            ),
            (
                "[\"2024-02-29 23:00:00-01\",)",
                "[\"2024-03-01 00:00:00+00\",)",
            ),
            (
                "294276-12-31 22:59:59.999999+00",
                "294276-12-31 23:59:59.999999+01",
            ),
        ] {
            assert_eq!(rows(&[a]).digest, rows(&[b]).digest, "{a} and {b}");
        }
        for (a, b) in [
            ("2026-11-24 12:00:00+00", "2026-11-24 12:00:00+01"),
            ("2026-11-24 12:00:00+00", "2026-11-24 12:00:00.1+00"),
            ("2026-11-24 12:00:00", "2026-11-24 13:00:00"),
            ("a 2026-11-24 12:00:00+00", "b 2026-11-24 12:00:00+00"),
            ("2026-11-24 12:00:00+00 a", "2026-11-24 12:00:00+00 b"),
        ] {
            assert_ne!(rows(&[a]).digest, rows(&[b]).digest, "{a} and {b}");
        }
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
                t.rows(&text.as_bytes()[..cut]);
                t.rows(&text.as_bytes()[cut..]);
                assert_eq!(t.data.rows, whole, "{line} cut at {cut}");
            }
            let mut t = tally();
            text.as_bytes()
                .iter()
                .for_each(|b| t.rows(std::slice::from_ref(b)));
            assert_eq!(t.data.rows, whole);
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
            t.data.rows,
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
            (t.relation.as_deref(), t.data.rows),
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
        assert_eq!(t.data.rows, wanted);
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
            whole.rows(lines.as_bytes());
            let mut parts = tally();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < lines.len()).collect();
            cuts.extend([0, lines.len()]);
            cuts.sort_unstable();
            cuts.windows(2).for_each(|w| parts.rows(&lines.as_bytes()[w[0]..w[1]]));
            proptest::prop_assert_eq!(whole.data.rows, parts.data.rows);
        }
    }
}

//! SQL text as `pg_dump -Fp` writes it, split into statements and COPY blocks without `psql`. No `psql` command
//! is run: those that `pg_dump` writes are interpreted, others are skipped or rejected.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use super::chunks::{Chunk, DataSink, Statement};
use super::cluster;
use super::coverage::{DataCoverage, TextCoverage};
use super::input_files::InputFiles;
use super::kept_memory::KeptMemory;
use super::lexer::{Dialect, Token, first_tokens};
use super::peek_reader::PeekReader;
use super::text::SqlReader;
use super::text_item::TextItem;
use super::toc::{corrupt, without_oids};
use super::{
    Archive, ArchiveBody, Codec, DumpId, EntryKind, Format, Header, Limits, TocEntry, TocSection,
};
use crate::error::ArchiveError;

/// Bytes of statements that are read ahead of the data to find out what the dump needs.
const MAX_PREVIEW: u64 = 1 << 20;

/// Bytes kept of each statement in the preview.
const MAX_KEPT_STATEMENT: usize = 64 << 10;

/// The text from the end of the preview on.
pub(super) struct Script {
    text: SqlReader,
    /// Items that were read ahead.
    ahead: VecDeque<TextItem>,
    /// The table or large objects whose data is being read.
    open: Option<TocEntry>,
    object: Option<(u32, u64)>,
    next_id: i32,
    /// Rows come before any statement that could create their tables.
    pub has_rows_only: bool,
    /// There are rows, or they are announced, in what was read ahead.
    pub shows_rows: bool,
    /// Nothing shows that `pg_dump` wrote it.
    pub is_generic_sql: bool,
    /// `pg_dumpall` wrote it: it may hold other databases, too.
    pub is_of_cluster: bool,
    /// Set when everything has been read.
    pub completeness: Arc<OnceLock<bool>>,
    covered: TextCoverage,
    /// Set when everything has been read, if the comments say it.
    pub coverage: Arc<OnceLock<DataCoverage>>,
}

/// What the beginning of the text creates.
struct Preview {
    ahead: VecDeque<TextItem>,
    entries: Vec<TocEntry>,
    has_definitions: bool,
    has_rows: bool,
    kept: KeptMemory,
}

impl Preview {
    fn new(limits: Limits) -> Self {
        let what = "keeping the statements before the data of the SQL text";
        Preview {
            ahead: VecDeque::new(),
            entries: Vec::new(),
            has_definitions: false,
            has_rows: false,
            kept: KeptMemory::new(what, limits),
        }
    }

    /// Adds an item; returns whether it is data.
    fn add(&mut self, item: TextItem) -> Result<bool, ArchiveError> {
        self.kept.charge(memory_of(&item))?;
        let is_data = match &item {
            TextItem::Entry(e)
                if matches!(
                    e.kind,
                    EntryKind::TableData | EntryKind::Blobs | EntryKind::LargeObjects
                ) =>
            {
                self.has_rows = e.kind == EntryKind::TableData;
                true
            }
            TextItem::Entry(e) => {
                self.entries.push((**e).clone());
                false
            }
            TextItem::Statement(s) => {
                self.statement(s);
                false
            }
            TextItem::Copy(_) | TextItem::Insert { .. } => {
                self.has_rows = true;
                true
            }
            TextItem::End(_) => true,
        };
        self.ahead.push_back(item);
        Ok(is_data)
    }

    /// Adds a statement to the entry whose comment precedes it.
    fn statement(&mut self, s: &Statement) {
        let words = first_tokens(&s.text, Dialect::default(), 40);
        self.has_definitions |= is_definition(&words);
        if s.text.len() > MAX_KEPT_STATEMENT {
            return;
        }
        if starts_with_words(&words, &["create", "database"]) {
            self.database_entry().defn.clone_from(&s.text);
        } else if !starts_with_words(&words, &["set"])
            && let Some(e) = self.entries.last_mut()
        {
            e.defn.push_str(&s.text);
            e.defn.push('\n');
        }
    }

    /// The comment of this entry precedes its statement, or there is none.
    fn database_entry(&mut self) -> &mut TocEntry {
        let is_it = |e: &TocEntry| e.kind == EntryKind::Database && e.defn.is_empty();
        if !self.entries.last().is_some_and(is_it) {
            let entry = TocEntry::bare(DumpId::NONE, EntryKind::Database, "");
            self.entries.push(entry);
        }
        let last = self.entries.len() - 1;
        &mut self.entries[last]
    }
}

/// Bytes of memory for an item that is read ahead: the item, and the entry that it is or belongs to.
fn memory_of(item: &TextItem) -> usize {
    /// What an allocator adds.
    const ALLOCATION: usize = 32;
    let of_entry = |e: &TocEntry| {
        let names = [Some(&e.tag), e.namespace.as_ref(), Some(&e.owner)];
        let text: usize = names
            .into_iter()
            .flatten()
            .map(|t| t.len() + ALLOCATION)
            .sum();
        size_of::<TocEntry>() + text
    };
    size_of::<TextItem>()
        + ALLOCATION
        + match item {
            TextItem::Entry(e) => 2 * of_entry(e),
            TextItem::Statement(s) | TextItem::Copy(s) => 2 * s.text.len(),
            TextItem::Insert { bytes, .. } => bytes.len(),
            TextItem::End(_) => 0,
        }
}

pub(super) fn open(
    input: PeekReader<'static>,
    limits: Limits,
    database: Option<&str>,
    files: InputFiles,
) -> Result<Archive, ArchiveError> {
    let mut text = SqlReader::new(input, limits, files);
    text.session.selected_database = database.map(str::to_owned);
    let preview = preview(&mut text, limits)?;
    let mut entries = preview.entries;
    for (e, number) in entries.iter_mut().zip(1..) {
        e.dump_id = DumpId(number);
    }
    let header = header_of(&mut text);
    text.session.is_encoding_fixed = true;
    Ok(Archive {
        header,
        encoding: text.session.encoding.clone(),
        body: ArchiveBody::Script(Box::new(Script {
            is_generic_sql: !text.session.marks.any(),
            is_of_cluster: text.session.marks.is_cluster(),
            has_rows_only: preview.has_rows && !preview.has_definitions,
            shows_rows: preview.has_rows,
            completeness: Arc::default(),
            covered: TextCoverage::default(),
            coverage: Arc::default(),
            text,
            ahead: preview.ahead,
            open: None,
            object: None,
            next_id: i32::try_from(entries.len()).unwrap_or(i32::MAX - 1) + 1,
        })),
        entries,
        files: InputFiles::default(),
        limits,
    })
}

/// Reads ahead to the first data, or a limited amount of text.
fn preview(text: &mut SqlReader, limits: Limits) -> Result<Preview, ArchiveError> {
    let mut preview = Preview::new(limits);
    // Of a cluster, what precedes the chosen database is skipped.
    let mut skipped = None;
    loop {
        let item = cluster::next(text)?;
        let begin = if text.session.marks.is_cluster() {
            *skipped.get_or_insert(text.consumed)
        } else {
            0
        };
        if preview.add(item)? || text.consumed - begin > MAX_PREVIEW {
            return Ok(preview);
        }
    }
}

fn header_of(text: &mut SqlReader) -> Header {
    // One of a cluster's databases that has no rows was read to the end of the text, and others follow it.
    let database = if text.session.was_selected {
        text.session.selected_database.clone()
    } else {
        text.session.database.clone()
    };
    Header {
        format: Format::Plain,
        filters: vec![],
        version: None,
        int_size: 0,
        off_size: 0,
        codec: Codec::None,
        created: None,
        database,
        server_version: std::mem::take(&mut text.server_version),
        pg_dump_version: std::mem::take(&mut text.pg_dump_version),
    }
}

/// Whether a statement before the data may create what rows are loaded into.
fn is_definition(words: &[Token<'_>]) -> bool {
    let Some(first) = words.first().and_then(Token::name) else {
        return false;
    };
    // `pg_dump` counts everything about a large object as data: its owner, comment and privileges.
    if words
        .windows(2)
        .any(|w| w[0].is("large") && w[1].is("object"))
    {
        return false;
    }
    match first.as_str() {
        "select" => {
            let call: String = words
                .iter()
                .skip(1)
                .take(3)
                .filter_map(Token::short)
                .collect();
            !matches!(
                call.as_str(),
                "pg_catalog.set_config" | "pg_catalog.setval" | "pg_catalog.lo_create"
            )
        }
        "alter" => !words
            .windows(2)
            .any(|w| w[0].is("disable") && w[1].is("trigger")),
        other => ![
            "set",
            "reset",
            "begin",
            "start",
            "commit",
            "end",
            "rollback",
            "abort",
            "savepoint",
            "release",
            "truncate",
            "delete",
            "lock",
            "analyze",
            "vacuum",
        ]
        .contains(&other),
    }
}

fn starts_with_words(tokens: &[Token<'_>], words: &[&str]) -> bool {
    words.len() <= tokens.len() && words.iter().zip(tokens).all(|(w, t)| t.is(w))
}

impl Script {
    /// As [`Archive::foreign_statement`].
    pub(crate) fn foreign_statement(&self) -> Arc<OnceLock<u64>> {
        self.text.session.marks.foreign.clone()
    }

    /// Hands everything to `sink`, in the order of the text.
    pub(crate) fn read(mut self, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        loop {
            let item = match self.ahead.pop_front() {
                Some(item) => item,
                None => cluster::next(&mut self.text)?,
            };
            match item {
                TextItem::Entry(entry) => self.covered.entry(&entry),
                TextItem::Copy(statement) => {
                    self.covered.rows();
                    self.close(sink)?;
                    let (copy, oids) = without_oids(statement.text);
                    let table = table_of(&copy, 1).unwrap_or_default();
                    let mut entry = self.data_entry(EntryKind::TableData, &table);
                    (entry.copy_stmt, entry.oids_in_data) = (copy, oids);
                    sink.begin(&entry)?;
                    self.text.split_copy_block(&entry, sink)?;
                    sink.end(&entry)?;
                }
                TextItem::Insert { bytes, line } => {
                    self.covered.rows();
                    self.insert(bytes, line, sink)?;
                }
                TextItem::Statement(statement) => {
                    self.covered.statement(&statement.text);
                    if !self.large_object(&statement, sink)? {
                        self.close(sink)?;
                        sink.statement(statement)?;
                    }
                }
                TextItem::End(completeness) => {
                    self.close(sink)?;
                    let _ = self.completeness.set(completeness);
                    if let Some(coverage) = self.covered.finish(&self.text.session.encoding) {
                        let _ = self.coverage.set(coverage);
                    }
                    return Ok(());
                }
            }
        }
    }

    fn data_entry(&mut self, kind: EntryKind, tag: &str) -> TocEntry {
        let mut entry = TocEntry::bare(self.next_id, kind, tag);
        self.next_id += 1;
        (entry.section, entry.has_data) = (TocSection::Data, true);
        entry
    }

    fn close(&mut self, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        if self.object.take().is_some() {
            return Err(corrupt(format!(
                "line {}: a large object is not closed",
                self.text.line
            )));
        }
        self.open.take().map_or(Ok(()), |e| sink.end(&e))
    }

    /// Consecutive INSERT statements of one table are its data.
    fn insert(
        &mut self,
        bytes: Vec<u8>,
        line: u64,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        // Only the beginning is parsed: the name precedes every value.
        let head = self
            .text
            .session
            .encoding
            .view(&bytes[..bytes.len().min(300)]);
        let table = table_of(&head, 2)
            .ok_or_else(|| corrupt(format!("line {line}: INSERT without a table")))?;
        if self.open.as_ref().is_none_or(|e| e.tag != table) {
            self.close(sink)?;
            let entry = self.data_entry(EntryKind::TableData, &table);
            sink.begin(&entry)?;
            self.open = Some(entry);
        }
        sink.chunk(Chunk::Statements {
            text: bytes,
            standard_strings: Some(self.text.session.standard_strings()),
        })
    }

    /// `lo_open`, `lowrite` and `lo_close` are data of large objects. Returns whether it was one of them.
    fn large_object(
        &mut self,
        s: &Statement,
        sink: &mut dyn DataSink,
    ) -> Result<bool, ArchiveError> {
        let Some(call) = s.text.strip_prefix("SELECT pg_catalog.lo") else {
            return Ok(false);
        };
        let line = s.line;
        let bad = || {
            corrupt(format!(
                "line {line}: a large object is not written as pg_dump writes it"
            ))
        };
        if let Some(args) = call.strip_prefix("_open(") {
            self.open_objects(sink)?;
            let oid = leading_number(args.trim_start_matches('\''));
            self.object = Some((oid.ok_or_else(bad)?, 0));
        } else if let Some(args) = call.strip_prefix("write(0, ") {
            let bytes = hex_constant(args).filter(|_| self.object.is_some());
            self.write_object(bytes.ok_or_else(bad)?, sink)?;
        } else if call.starts_with("_close(") {
            self.object.take().ok_or_else(bad)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// All consecutive large objects are the data of one entry.
    fn open_objects(&mut self, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        let is_open = self
            .open
            .as_ref()
            .is_some_and(|e| e.kind == EntryKind::Blobs);
        if !is_open {
            self.close(sink)?;
            let entry = self.data_entry(EntryKind::Blobs, "BLOBS");
            sink.begin(&entry)?;
            self.open = Some(entry);
        }
        Ok(())
    }

    fn write_object(
        &mut self,
        bytes: Vec<u8>,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let Some((oid, position)) = &mut self.object else {
            return Ok(());
        };
        let (oid, offset) = (*oid, *position);
        *position += bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        sink.chunk(Chunk::LargeObject {
            oid,
            offset,
            bytes: bytes.into(),
        })
    }
}

fn leading_number(text: &str) -> Option<u32> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    parts.next()?.parse().ok()
}

/// `'\x…'` as bytes, whatever quotes and backslashes the dialect requires around it.
fn hex_constant(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .trim_start_matches(['E', '\'', '\\'])
        .strip_prefix('x')?
        .split('\'')
        .next()?
        .as_bytes();
    let nibble = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[a, b]| Some(nibble(*a)? << 4 | nibble(*b)?))
        .collect()
}

/// The name after `skip` words, as written: `public.t`.
fn table_of(sql: &str, skip: usize) -> Option<String> {
    let words = first_tokens(sql, Dialect::default(), skip + 3);
    let first = words.get(skip)?;
    first.name()?;
    let mut last = first;
    if words.get(skip + 1).is_some_and(|t| t.is_symbol(b'.')) {
        last = words.get(skip + 2)?;
    }
    Some(sql[first.at..last.at + last.text.len()].to_owned())
}

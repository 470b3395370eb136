//! What a mask file could say about a backup: which columns look personal, by their names, their types and the first rows of
//! each table. The rows stay in this module: nothing of them is shown, logged or kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::job_context::Services;
use crate::backup::{ReadHint, Source};
use crate::catalog::WantedBackup;
use crate::error::RestoreError;
use crate::job::BackupRef;
use pgdump_archive::{
    Archive, ArchiveError, Chunk, DataOffset, DataSink, Dialect, EntryKind, Format, InsertValue,
    ReopenableSource, RowEditor, Statement, TextEncoding, TocEntry, Token, edit_inserts, tokens,
};
use pgdump_mask::{TableShape, suggest};
use pgdump_restore::{copied_columns, shape_for_copy, table_shapes};

/// Rows of a table that are looked at.
const MAX_ROWS: usize = 200;
/// Bytes of a table's data that are looked at, uncompressed.
const MAX_TABLE_BYTES: usize = 8 << 20;
/// Bytes of all data that are read, uncompressed. It counts where one table is read through to come to the next.
const MAX_BYTES: u64 = 4 << 30;
/// How long rows are looked at.
const MAX_TIME: Duration = Duration::from_secs(60);
/// Most bytes of rows that are kept until the keys of SQL text are known, which come after all rows.
const MAX_WAITING: usize = 64 << 20;
/// Most bytes of a value that are looked at.
const MAX_VALUE: usize = 1 << 10;

/// Schema and name of a table.
type Name = (String, String);

/// One row, its values as the server shows them; `None` for NULL.
type Row = Vec<Option<Vec<u8>>>;

/// A mask file to start from.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct MaskSuggestion {
    /// The database that was dumped.
    pub database: Option<String>,
    /// The tables with rows, by name. Partitions are their parent's.
    pub tables: Vec<SuggestedTable>,
    /// Whether the backup has contents of large objects, which no rule masks.
    pub large_objects: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Rules for a table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct SuggestedTable {
    pub schema: String,
    pub table: String,
    /// In the order of its rows.
    pub columns: Vec<SuggestedColumn>,
}

/// A rule for a column.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct SuggestedColumn {
    pub column: String,
    /// The rule as a mask file writes it; keep if nothing looks personal.
    pub rule: String,
    /// Why it looks personal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Looks at a backup.
///
/// # Errors
/// The backup cannot be opened, or what is read of it is damaged.
pub(crate) async fn run(
    services: &Services,
    backup: &BackupRef,
    database: Option<String>,
    stop: CancellationToken,
) -> Result<MaskSuggestion, RestoreError> {
    let cancel = stop.child_token();
    // Ends the download of what is not read.
    let _guard = cancel.clone().drop_guard();
    let catalog = &services.catalog;
    let pinned = catalog.pin(backup, None, None).await?;
    let wanted = WantedBackup {
        source: pinned.clone().map_or(Source::Stdin, Source::Object),
        database,
    };
    let opened = catalog.read_reopenable(wanted, ReadHint::Beginning, cancel.clone());
    let (mut archive, reopen) = opened.await?;
    // The offsets of the data may be at the end.
    catalog.look_at_end(&mut archive, pinned.as_ref()).await;
    let mut notes: Vec<String> = pinned.iter().flat_map(|p| p.notes.clone()).collect();
    let looking = tokio::task::spawn_blocking(move || look_at(archive, reopen));
    let done = cancel.run_until_cancelled(looking).await;
    let done = done.ok_or_else(|| RestoreError::cancelled("looking at the rows was stopped"))?;
    let died = |e| RestoreError::internal(format!("the reader of the rows panicked: {e}"));
    let mut found = done.map_err(died)??;
    notes.append(&mut found.notes);
    Ok(MaskSuggestion { notes, ..found })
}

fn look_at(
    archive: Archive,
    reopen: Option<Arc<dyn ReopenableSource>>,
) -> Result<MaskSuggestion, RestoreError> {
    let database = archive.header().database.clone();
    let entries: Vec<TocEntry> = archive.entries().to_vec();
    let mut sampler = Sampler::new(&archive);
    match reopen.filter(|_| has_offsets(&archive)) {
        Some(source) => by_offset(&archive, source.as_ref(), &mut sampler)?,
        None => {
            // A stream of its own for each member of a directory, because each ends with the first rows of it.
            let most = entries.iter().filter(|e| has_rows(e)).count() + 1;
            in_order(archive, most, &mut sampler)?;
        }
    }
    Ok(sampler.finish(database, &entries))
}

fn has_rows(entry: &TocEntry) -> bool {
    entry.has_data && entry.kind == EntryKind::TableData
}

/// Whether each table's data can be read by itself.
fn has_offsets(archive: &Archive) -> bool {
    let is_at = |e: &TocEntry| matches!(e.offset, DataOffset::At(_));
    let mut with_rows = archive.entries().iter().filter(|e| has_rows(e));
    // The tables of SQL text come with its rows.
    !archive.is_script() && archive.header().filters.is_empty() && with_rows.all(is_at)
}

fn by_offset(
    archive: &Archive,
    source: &dyn ReopenableSource,
    sampler: &mut Sampler,
) -> Result<(), RestoreError> {
    sampler.stops_when_full = true;
    for entry in archive.entries().iter().filter(|e| has_rows(e)) {
        let DataOffset::At(offset) = entry.offset else {
            continue;
        };
        if sampler.is_cut() {
            return Ok(());
        }
        let read = archive.read_entry(entry, source.open(offset)?, sampler);
        sampler.until_full(read)?;
    }
    Ok(())
}

fn in_order(archive: Archive, most: usize, sampler: &mut Sampler) -> Result<(), RestoreError> {
    sampler.stops_when_full = archive.header().format == Format::Directory;
    for stream in archive.into_streams(most) {
        if sampler.is_cut() {
            return Ok(());
        }
        let read = stream.read(sampler);
        sampler.until_full(read)?;
    }
    Ok(())
}

/// SampleComplete rows were seen.
#[derive(Debug, thiserror::Error)]
#[error("enough rows were seen")]
struct SampleComplete;

/// What may still be read.
struct Budget {
    until: tokio::time::Instant,
    bytes: u64,
}

impl Budget {
    fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }

    fn is_spent(&self) -> bool {
        self.bytes == 0 || tokio::time::Instant::now() >= self.until
    }
}

/// Takes the first rows of each table.
struct Sampler {
    shapes: HashMap<Name, TableShape>,
    encoding: TextEncoding,
    dialect: Dialect,
    /// Statements of SQL text that define tables, and how many of them `shapes` knows.
    statements: Vec<TocEntry>,
    known: usize,
    open: Option<OpenTable>,
    /// Tables of SQL text, and the bytes of their rows.
    waiting: Vec<OpenTable>,
    waiting_bytes: usize,
    is_script: bool,
    seen: HashSet<Name>,
    found: BTreeMap<Name, Vec<SuggestedColumn>>,
    budget: Budget,
    large_objects: bool,
    /// Whether reading ended because it took too long.
    was_cut: bool,
    /// Whether reading ends with the first rows of a table.
    stops_when_full: bool,
}

/// The table that is being read.
#[derive(Default)]
struct OpenTable {
    name: Name,
    /// The columns of the rows, if they are listed.
    columns: Option<Vec<String>>,
    rows: Vec<Row>,
    /// Values that are always the default: those of generated columns.
    generated: HashSet<usize>,
    /// The beginning of a row.
    partial: Vec<u8>,
    bytes: usize,
}

impl OpenTable {
    fn kept_bytes(&self) -> usize {
        let values = self.rows.iter().flatten();
        values
            .map(|v| v.as_ref().map_or(0, Vec::len) + size_of::<Option<Vec<u8>>>())
            .sum()
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= MAX_ROWS || self.bytes >= MAX_TABLE_BYTES
    }

    /// Takes rows of COPY text.
    fn copy(&mut self, text: &[u8]) {
        self.partial.extend_from_slice(text);
        let mut rest = self.partial.as_slice();
        while let Some(end) = memchr::memchr(b'\n', rest)
            && self.rows.len() < MAX_ROWS
        {
            self.rows.push(copied_values(&rest[..end]));
            rest = &rest[end + 1..];
        }
        self.partial = rest.to_vec();
    }
}

impl RowEditor for OpenTable {
    fn target(&mut self, _: &str, columns: Option<Vec<String>>) -> Result<(), ArchiveError> {
        self.columns = columns;
        Ok(())
    }

    fn row(&mut self, values: &mut [InsertValue]) -> Result<bool, ArchiveError> {
        if self.rows.len() < MAX_ROWS {
            let value = |v: &InsertValue| match v {
                InsertValue::Text(text) => Some(shortened(text.as_bytes())),
                InsertValue::Null | InsertValue::Default => None,
            };
            let all = values.iter().enumerate();
            let generated = all.filter(|(_, v)| **v == InsertValue::Default);
            self.generated.extend(generated.map(|(at, _)| at));
            self.rows.push(values.iter().map(value).collect());
        }
        Ok(true)
    }
}

fn shortened(value: &[u8]) -> Vec<u8> {
    value[..value.len().min(MAX_VALUE)].to_vec()
}

/// The values of a row of COPY text.
fn copied_values(row: &[u8]) -> Row {
    let fields = row.split(|b| *b == b'\t');
    let value = |field: &[u8]| (field != b"\\N").then(|| unescaped(field));
    fields.map(value).collect()
}

/// A field without COPY's escapes (`CopyReadAttributesText` of `copyfromparse.c`), of which `pg_dump` writes those of single
/// letters only.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let field = &field[..field.len().min(2 * MAX_VALUE)];
    let (mut out, mut bytes) = (Vec::with_capacity(field.len()), field.iter());
    while let Some(b) = bytes.next() {
        out.push(match (b, bytes.as_slice().first()) {
            (b'\\', Some(escaped)) => {
                bytes.next();
                match escaped {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    other => *other,
                }
            }
            _ => *b,
        });
    }
    out.truncate(MAX_VALUE);
    out
}

/// Schema and name of a table: SQL text has them in one, as written.
fn name_of(entry: &TocEntry) -> Name {
    if let Some(schema) = &entry.namespace {
        return (schema.clone(), entry.tag.clone());
    }
    let t = tokens(&entry.tag, Dialect::default());
    let mut names: Vec<String> = t.iter().filter_map(Token::name).collect();
    let table = names.pop().unwrap_or_else(|| entry.tag.clone());
    (names.pop().unwrap_or_else(|| "public".to_owned()), table)
}

impl Sampler {
    fn new(archive: &Archive) -> Self {
        let strings = archive.entries().iter();
        let mut strings = strings.filter(|e| e.kind == EntryKind::StdStrings);
        Sampler {
            shapes: table_shapes(archive.entries()),
            encoding: archive.encoding().clone(),
            dialect: Dialect {
                standard_strings: strings.next().is_none_or(|e| e.defn.contains("'on'")),
                multibyte: archive.encoding().multibyte(),
            },
            statements: vec![],
            known: 0,
            large_objects: archive
                .entries()
                .iter()
                .any(|e| e.kind == EntryKind::Blobs && e.has_data),
            was_cut: false,
            open: None,
            waiting: vec![],
            waiting_bytes: 0,
            is_script: archive.is_script(),
            seen: HashSet::new(),
            found: BTreeMap::new(),
            budget: Budget {
                until: tokio::time::Instant::now() + MAX_TIME,
                bytes: MAX_BYTES,
            },
            stops_when_full: false,
        }
    }

    /// Whether what may be read has been read; then there may be more.
    fn is_cut(&mut self) -> bool {
        self.was_cut |= self.budget.is_spent();
        self.was_cut
    }

    /// An end of the reading that was wanted is none that failed.
    fn until_full(&mut self, read: Result<(), ArchiveError>) -> Result<(), ArchiveError> {
        self.close();
        match read {
            Err(ArchiveError::Source(e)) if e.is::<SampleComplete>() => Ok(()),
            other => other,
        }
    }

    fn close(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        self.seen.insert(open.name.clone());
        let kept = open.kept_bytes();
        if self.is_script && self.waiting_bytes + kept <= MAX_WAITING {
            self.waiting_bytes += kept;
            self.waiting.push(open);
        } else {
            self.judge(open);
        }
    }

    fn judge(&mut self, open: OpenTable) {
        let (schema, table) = &open.name;
        let mut shape = shape_for_copy(&self.shapes, schema, table, open.columns.as_deref());
        let mut rows = open.rows;
        let is_generated = |at: usize| open.columns.is_none() && open.generated.contains(&at);
        shape.columns = without(shape.columns, is_generated);
        rows = rows
            .into_iter()
            .map(|row| without(row, is_generated))
            .collect();
        self.suggest(&shape, &rows);
    }

    /// Adds what is suggested for a table. A partition's columns are those of its parent, whose rules it has.
    fn suggest(&mut self, shape: &TableShape, rows: &[Row]) {
        let own = (shape.schema.clone(), shape.table.clone());
        let root = shape.parents.last().filter(|root| {
            let root = self.shapes.get(*root);
            let has = |name: &str| root.is_some_and(|r| r.columns.iter().any(|c| c.name == name));
            shape.columns.iter().all(|c| has(&c.name))
        });
        let columns = self.found.entry(root.cloned().unwrap_or(own)).or_default();
        let suggestions = suggest(shape, rows);
        for column in &shape.columns {
            let suggested = suggestions.iter().find(|s| s.column == column.name);
            let of_column = SuggestedColumn {
                column: column.name.clone(),
                rule: suggested.map_or_else(|| "keep".to_owned(), |s| s.rule.clone()),
                why: suggested.map(|s| s.why.clone()),
            };
            match columns.iter_mut().find(|c| c.column == column.name) {
                Some(known) if known.why.is_none() => *known = of_column,
                Some(_) => {}
                None => columns.push(of_column),
            }
        }
    }

    fn finish(mut self, database: Option<String>, entries: &[TocEntry]) -> MaskSuggestion {
        self.learn();
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().for_each(|open| self.judge(open));
        let mut unseen = 0_usize;
        for entry in entries.iter().filter(|e| has_rows(e)) {
            let name = name_of(entry);
            if !self.seen.contains(&name) {
                unseen += 1;
                let columns = copied_columns(&entry.copy_stmt);
                let shape = shape_for_copy(&self.shapes, &name.0, &name.1, columns.as_deref());
                self.suggest(&shape, &[]);
            }
        }
        let seconds = MAX_TIME.as_secs();
        let note = if unseen > 0 {
            Some(format!(
                "the rows of {unseen} tables could not be read within {seconds} s: their columns are judged by name and type \
                 alone"
            ))
        } else {
            // The tables of SQL text come with its rows.
            (self.was_cut && entries.iter().all(|e| !has_rows(e))).then(|| {
                format!("the text could not be read to its end within {seconds} s: tables may be missing")
            })
        };
        let tables = self.found.into_iter();
        let table = |((schema, table), columns)| SuggestedTable {
            schema,
            table,
            columns,
        };
        MaskSuggestion {
            database,
            tables: tables.map(table).collect(),
            large_objects: self.large_objects,
            notes: note.into_iter().collect(),
        }
    }

    /// The tables that SQL text has defined so far.
    fn learn(&mut self) {
        if self.known < self.statements.len() {
            self.shapes = table_shapes(&self.statements);
            self.known = self.statements.len();
        }
    }
}

fn without<T>(all: Vec<T>, is_left_out: impl Fn(usize) -> bool) -> Vec<T> {
    let all = all.into_iter().enumerate();
    let kept = all.filter(|(at, _)| !is_left_out(*at));
    kept.map(|(_, one)| one).collect()
}

impl DataSink for Sampler {
    fn should_read(&self, entry: &TocEntry) -> bool {
        has_rows(entry) && !self.budget.is_spent()
    }

    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.close();
        self.large_objects |= entry.kind == EntryKind::Blobs;
        if entry.kind == EntryKind::TableData {
            self.learn();
            self.open = Some(OpenTable {
                name: name_of(entry),
                columns: copied_columns(&entry.copy_stmt),
                ..OpenTable::default()
            });
        }
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        self.budget.spend(chunk.len());
        if self.is_cut() {
            return Err(ArchiveError::source(SampleComplete));
        }
        let Some(open) = self.open.as_mut().filter(|open| !open.is_full()) else {
            return Ok(());
        };
        open.bytes += chunk.len();
        match chunk {
            Chunk::Rows { text, .. } => open.copy(&text),
            Chunk::Statements {
                text,
                standard_strings,
            } => {
                let dialect = Dialect {
                    standard_strings: standard_strings.unwrap_or(self.dialect.standard_strings),
                    ..self.dialect
                };
                // What cannot be parsed gives no rows to look at.
                let _ = edit_inserts(&self.encoding.view(&text), dialect, open);
            }
            Chunk::LargeObject { .. } => {}
        }
        if self.stops_when_full && open.is_full() {
            return Err(ArchiveError::source(SampleComplete));
        }
        Ok(())
    }

    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        self.close();
        Ok(())
    }

    fn statement(&mut self, statement: Statement) -> Result<(), ArchiveError> {
        let defines = ["create ", "alter ", "security "];
        let text = statement.text.trim_start();
        let begins = |word: &&str| {
            let start = text.get(..word.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        if defines.iter().any(begins) {
            let definition = TocEntry {
                defn: statement.text,
                namespace: Some("public".to_owned()),
                ..TocEntry::bare(0, EntryKind::Table, "")
            };
            self.statements.push(definition);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_archive::{ArchiveSource, DecryptionKeys, Limits};

    fn fixture(name: &str) -> Archive {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let bytes = std::fs::read(folder.join(name)).unwrap();
        let source = ArchiveSource::once(std::io::Cursor::new(bytes));
        Archive::open(source, Limits::default(), &DecryptionKeys::default()).unwrap()
    }

    #[test]
    fn values_are_read_without_their_escapes() {
        let text = |t: &str| Some(t.as_bytes().to_vec());
        let row = copied_values(b"1\t\\N\ta\\tb\\\\N\t");
        assert_eq!(row, [text("1"), None, text("a\tb\\N"), text("")]);
        assert_eq!(unescaped(b"x\\"), b"x\\");
        assert_eq!(shortened(&[b'x'; 5000]).len(), MAX_VALUE);
    }

    #[test]
    fn names_of_sql_text_are_taken_apart() {
        let of = |tag: &str| name_of(&TocEntry::bare(1, EntryKind::TableData, tag));
        let pair = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        assert_eq!(of("shop.\"My.Table\""), pair("shop", "My.Table"));
        assert_eq!(of("t"), pair("public", "t"));
    }

    /// Every format gives the same columns of the same tables. `tests/offline/mask.rs` compares all formats.
    #[test]
    fn the_columns_do_not_depend_on_the_format() {
        let of = |name: &str| look_at(fixture(name), None).unwrap();
        let names = |found: &MaskSuggestion| {
            let tables = found.tables.iter();
            let columns = |t: &SuggestedTable| {
                let columns = t.columns.iter().map(|c| c.column.clone());
                (
                    t.schema.clone(),
                    t.table.clone(),
                    columns.collect::<Vec<_>>(),
                )
            };
            tables.map(columns).collect::<Vec<_>>()
        };
        let custom = of("v16.custom.dump");
        assert!(custom.tables.len() > 1 && custom.large_objects);
        assert!(custom.notes.is_empty(), "{:?}", custom.notes);
        let other = "v16.inserts.sql";
        assert_eq!(names(&of(other)), names(&custom), "{other}");
    }
}

//! Row comparison: reads every table back as COPY text and digests it with the same code as the archive's data.
//! The number of rows and the digest must be equal.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use futures::StreamExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::float_digits::FloatDigits;
use super::restored_database::{RestoredDatabase, counted};
use super::row_checks::{
    Tally, differs, excused, not_compared, rounded, summary_of, summary_of_differences,
};
use super::text_forms::{self, Majors, TextForms, connect};
use crate::error::{DatabaseError, RestoreError};
use crate::postgres::{Session, ident, literal, map_pg_error, too_large};
use crate::progress::Progress;
use crate::proof::{Check, CheckStatus, ColumnProof, Span, TableProof};
use pgdump_archive::{Dialect, RowDigest, TableDigest, tokens};
use std::sync::atomic::Ordering::Relaxed;

/// Rows that are read between two updates of the progress.
const COUNTED_AT_ONCE: u64 = 1024;

/// Tables larger than this are read in parts.
const PART_BYTES: i64 = 64 << 20;
const PAGE: i64 = 8192;
/// Memory in bytes for a column and its findings, in addition to its names.
const COLUMN: usize = 320;
/// How many failures are listed one by one.
const MAX_NAMED: usize = 20;

/// A table to read back.
#[derive(Debug, Clone)]
struct Table {
    name: String,
    columns: Vec<ComparedColumn>,
    list: String,
    encoding: String,
    is_partitioned: bool,
    /// Which of its rows a dump contains, as SQL: an extension creates the others. Empty for all.
    condition: String,
}

impl Table {
    /// Memory in bytes until all tables are compared.
    fn memory(&self) -> usize {
        let column = |c: &ComparedColumn| COLUMN + 2 * (c.name.len() + c.kind.len());
        let columns: usize = self.columns.iter().map(column).sum();
        columns + self.list.len() + self.name.len() + self.condition.len()
    }
}

#[derive(Debug, Clone)]
struct ComparedColumn {
    name: String,
    kind: String,
    has_span: bool,
}

/// A table, or a range of its blocks.
#[derive(Clone, Copy)]
struct TablePart {
    table: usize,
    blocks: Option<(i64, i64)>,
}

/// What was read back of one table.
#[derive(Debug, Clone, Default)]
struct TableFindings {
    rows: RowDigest,
    nulls: Vec<u64>,
    spans: Vec<Option<(Vec<u8>, Vec<u8>)>>,
}

impl TableFindings {
    fn of(columns: usize) -> Self {
        TableFindings {
            rows: RowDigest::default(),
            nulls: vec![0; columns],
            spans: vec![None; columns],
        }
    }

    fn row(&mut self, line: &[u8], columns: &[ComparedColumn], scratch: &mut Vec<u8>) {
        self.rows.add_row(line, scratch);
        if columns.is_empty() {
            return;
        }
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\t', line).chain(std::iter::once(line.len()));
        for ((end, column), (nulls, span)) in ends
            .zip(columns)
            .zip(self.nulls.iter_mut().zip(&mut self.spans))
        {
            let field = &line[start..end];
            start = end + 1;
            match field {
                b"\\N" => *nulls += 1,
                // Years with more than four digits, and BC, do not sort as text.
                _ if column.has_span && field.get(4) == Some(&b'-') && !field.ends_with(b"BC") => {
                    widen(span, field);
                }
                _ => {}
            }
        }
    }

    fn merge(&mut self, other: TableFindings) {
        self.rows.merge(&other.rows);
        self.nulls
            .iter_mut()
            .zip(&other.nulls)
            .for_each(|(a, b)| *a += b);
        for (span, other) in self.spans.iter_mut().zip(other.spans) {
            if let Some((a, b)) = other {
                widen(span, &a);
                widen(span, &b);
            }
        }
    }
}

fn widen(span: &mut Option<(Vec<u8>, Vec<u8>)>, value: &[u8]) {
    match span {
        None => *span = Some((value.to_vec(), value.to_vec())),
        Some((min, _)) if value < min.as_slice() => *min = value.to_vec(),
        Some((_, max)) if value > max.as_slice() => *max = value.to_vec(),
        Some(_) => {}
    }
}

/// The archive's part of a table's proof.
pub(super) fn proof_of(name: &str, data: &TableDigest) -> TableProof {
    TableProof {
        name: name.to_owned(),
        rows: data.rows.count,
        bytes: data.rows.bytes,
        digest: format!("{:032x}", data.rows.digest),
        restored_rows: None,
        columns: vec![],
    }
}

/// Compares every table with the archive's digest.
pub(super) async fn compare(
    subject: &RestoredDatabase<'_>,
) -> Result<(Vec<TableProof>, Vec<Check>), RestoreError> {
    if !subject.content_digest.counts_rows() {
        return Ok((vec![], vec![not_compared()]));
    }
    let wanted = subject.content_digest.tables();
    let foreign = subject.content_digest.foreign_statement();
    let session = connect(subject.server, subject.database).await?;
    let (mut tables, mut parts) = (Vec::new(), Vec::new());
    let mut changed = Tally::default();
    let (mut proofs, mut wrong): (Vec<TableProof>, Vec<Check>) = Default::default();
    let (mut kept, most) = (0, subject.server.max_rows());
    for (name, data) in &wanted {
        match describe(&session, name, data, subject.encoding).await? {
            Described::Table(table, bytes) => {
                kept += table.memory();
                if kept > most {
                    return Err(too_large("the columns of its tables", most).into());
                }
                parts.extend(cut(&session, tables.len(), &table, bytes));
                tables.push(table);
            }
            Described::Unreadable(what) => {
                let check = differs(name, &what);
                wrong.push(foreign.map_or(check.clone(), |line| excused(check, line)));
                changed.tables += usize::from(foreign.is_some());
                proofs.push(proof_of(name, data));
            }
        }
    }
    let majors = Majors {
        dumped: subject.dumped_major,
        here: session.version() / 10_000,
    };
    drop(session);
    // Largest first, so that no session ends up with a large part at the end.
    parts.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let tables = Arc::new(tables);
    let parts: VecDeque<TablePart> = parts.into_iter().map(|(_, p)| p).collect();
    let mut read = ReadBack {
        found: read_all(subject, text_forms::USUAL, &tables, parts.clone()).await?,
        subject,
        tables,
        parts,
        wanted: &wanted,
        forms: HashMap::new(),
        rounded: BTreeSet::new(),
    };
    read.again_if_other_text(majors).await?;
    let (mut compared, mut only_counted) = (Tally::default(), Tally::default());
    for (i, (table, found)) in read.tables.iter().zip(&read.found).enumerate() {
        let data = &wanted[&table.name];
        let check = check_of(table, data, found, read.forms.get(&i), majors);
        let check = match (check, foreign) {
            (None, _) => {
                compared.add(found.rows.count);
                None
            }
            (Some(check), _) if check.status == CheckStatus::NotChecked => {
                only_counted.add(found.rows.count);
                Some(check)
            }
            (Some(check), Some(line)) => {
                changed.add(found.rows.count);
                Some(excused(check, line))
            }
            (check, None) => check,
        };
        wrong.extend(check);
        proofs.push(proof_with(table, data, found));
    }
    proofs.sort_by(|a, b| a.name.cmp(&b.name));
    let failed = wrong
        .iter()
        .filter(|c| c.status == CheckStatus::Failed)
        .count();
    wrong.extend(read.check_of_rounded());
    let summary = match failed {
        0 => summary_of(compared, only_counted, changed),
        n => summary_of_differences(n, proofs.len()),
    };
    // Those that decide the verdict come first, however many are left out.
    wrong.sort_by_key(|c| (c.status != CheckStatus::Failed, !c.required));
    wrong.truncate(MAX_NAMED);
    Ok((proofs, std::iter::once(summary).chain(wrong).collect()))
}

/// Whether the text of equally many rows differs.
fn has_other_text(data: &TableDigest, found: &TableFindings) -> bool {
    let (theirs, ours) = (&data.rows, &found.rows);
    !data.is_only_counted && theirs.count == ours.count && theirs.digest != ours.digest
}

/// What was read back. Tables whose text differs are read again, as the source may have written them with other settings.
struct ReadBack<'a> {
    subject: &'a RestoredDatabase<'a>,
    tables: Arc<Vec<Table>>,
    parts: VecDeque<TablePart>,
    wanted: &'a BTreeMap<String, TableDigest>,
    found: Vec<TableFindings>,
    /// What the text of each table that differed at first depends on, by its index.
    forms: HashMap<usize, TextForms>,
    /// Those whose floating-point numbers `pg_dump` rounded.
    rounded: BTreeSet<usize>,
}

impl ReadBack<'_> {
    fn wanted(&self, table: usize) -> &TableDigest {
        &self.wanted[&self.tables[table].name]
    }

    fn has_other_text(&self, table: usize) -> bool {
        has_other_text(self.wanted(table), &self.found[table])
    }

    async fn again_if_other_text(&mut self, majors: Majors) -> Result<(), RestoreError> {
        let differing = (0..self.tables.len()).filter(|i| self.has_other_text(*i));
        let differing: Vec<usize> = differing.collect();
        if differing.is_empty() {
            return Ok(());
        }
        let session = connect(self.subject.server, self.subject.database).await?;
        for i in &differing {
            let forms = TextForms::of(&session, &self.tables[*i].name).await?;
            self.forms.insert(*i, forms);
        }
        drop(session);
        for settings in &text_forms::OTHERS {
            let is_due = |forms: &TextForms| forms.depend_on(settings);
            let due = differing.iter().filter(|i| is_due(&self.forms[*i]));
            let due = due.copied().collect();
            self.again(settings.sql, due).await?;
        }
        for i in differing {
            if self.forms[&i].may_be_rounded(majors) {
                self.again_with_fewer_digits(i).await?;
            }
        }
        Ok(())
    }

    /// Reads those of the tables again whose text still differs. What is the archive's with these settings counts.
    async fn again(
        &mut self,
        settings: &str,
        mut due: BTreeSet<usize>,
    ) -> Result<(), RestoreError> {
        due.retain(|i| self.has_other_text(*i));
        if due.is_empty() {
            return Ok(());
        }
        let queue = self.parts.iter().filter(|part| due.contains(&part.table));
        let queue = queue.copied().collect();
        let again = read_all(self.subject, settings, &self.tables, queue).await?;
        for i in due {
            if again[i].rows.digest == self.wanted(i).rows.digest {
                self.found[i] = again[i].clone();
            }
        }
        Ok(())
    }

    /// Reads a table again as `pg_dump --extra-float-digits` writes it, with each negative number that takes no digit away
    /// from what was restored: no difference is rounded away.
    async fn again_with_fewer_digits(&mut self, table: usize) -> Result<(), RestoreError> {
        if !self.has_other_text(table) {
            return Ok(());
        }
        let digits = self.digits_of(table).await?;
        let forms = self.forms[&table];
        let others = text_forms::OTHERS.iter().filter(|o| forms.depend_on(o));
        let usual = std::iter::once(text_forms::USUAL).chain(others.map(|o| o.sql));
        let usual: Vec<&str> = usual.collect();
        for digits in digits.settings() {
            for settings in &usual {
                let settings = format!("{settings}; SET extra_float_digits = {digits}");
                self.again(&settings, BTreeSet::from([table])).await?;
                if !self.has_other_text(table) {
                    self.rounded.insert(table);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn digits_of(&self, table: usize) -> Result<FloatDigits, RestoreError> {
        let (subject, table) = (self.subject, &self.tables[table]);
        let session = connect(subject.server, subject.database).await?;
        let mut digits = TextForms::float_columns(&session, &table.name).await?;
        let columns = table.columns.iter();
        let columns = columns.filter_map(|c| Some((ident(&c.name), digits.remove(&c.name)?)));
        let (names, digits): (Vec<String>, Vec<i32>) = columns.unzip();
        let floats = Table {
            list: names.join(", "),
            ..table.clone()
        };
        let found = read_digits(&session, &floats, &digits, subject.progress);
        Ok(found.await.map_err(|e| e.context(&table.name))?)
    }

    /// A note about the tables whose numbers the backup has rounded.
    fn check_of_rounded(&self) -> Option<Check> {
        let names = self.rounded.iter().map(|i| self.tables[*i].name.as_str());
        rounded(&names.collect::<Vec<_>>())
    }
}

fn check_of(
    table: &Table,
    data: &TableDigest,
    found: &TableFindings,
    forms: Option<&TextForms>,
    majors: Majors,
) -> Option<Check> {
    let (theirs, ours) = (&data.rows, &found.rows);
    if theirs.count != ours.count {
        let what = format!(
            "{} in the archive, {} in the restored table",
            counted(theirs.count, "row"),
            ours.count
        );
        return Some(differs(&table.name, &what));
    }
    if data.is_only_counted {
        let what = "the number of rows is equal; their content cannot be compared, because parts of the table have \
            different lists of columns in the archive, rows that are too long, or values that are no constants";
        return Some(
            Check::new("rows", CheckStatus::NotChecked, what)
                .of(&table.name)
                .optional(),
        );
    }
    if theirs.digest == ours.digest {
        return None;
    }
    if let Some(unclear) = forms.and_then(|f| f.why_other_text(majors)) {
        return Some(unclear.of(&table.name));
    }
    let what = format!(
        "the number of rows is equal ({}), but their content differs from the archive",
        ours.count
    );
    Some(differs(&table.name, &what))
}

fn proof_with(table: &Table, data: &TableDigest, found: &TableFindings) -> TableProof {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let all = found.rows.count.max(1) as f64;
    let columns = table
        .columns
        .iter()
        .zip(found.nulls.iter().zip(&found.spans));
    let columns = columns.map(|(c, (nulls, span))| ColumnProof {
        name: c.name.clone(),
        kind: c.kind.clone(),
        nulls: *nulls as f64 / all,
        span: span.as_ref().map(|(a, b)| Span {
            oldest: text(a),
            newest: text(b),
        }),
    });
    TableProof {
        restored_rows: Some(found.rows.count),
        columns: columns.collect(),
        ..proof_of(&table.name, data)
    }
}

/// What is to be read back of a table of the archive.
enum Described {
    /// The restored table and its size in bytes.
    Table(Table, i64),
    /// It does not exist, or lacks a column: a sentence.
    Unreadable(String),
}

async fn describe(
    session: &Session,
    name: &str,
    data: &TableDigest,
    encoding: &str,
) -> Result<Described, DatabaseError> {
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "looking up a table");
    // Configuration tables of extensions have conditions. Only without its schema does unnest take two arrays.
    let sql = "SELECT c.oid, c.relkind::text, pg_catalog.pg_relation_size(c.oid), coalesce((SELECT x.condition \
        FROM pg_catalog.pg_extension e, unnest(e.extconfig, e.extcondition) AS x (config, condition) \
        WHERE x.config = c.oid LIMIT 1), '') \
        FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1::text)";
    let Some(row) = session.client().query_opt(sql, &[&name]).await.map_err(e)? else {
        let what = "the table is not in the restored database";
        return Ok(Described::Unreadable(what.to_owned()));
    };
    let (oid, kind, bytes): (u32, String, i64) = (row.get(0), row.get(1), row.get(2));
    let sql = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
        a.atttypid IN (1082, 1114, 1184) \
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped \
        AND a.attgenerated = '' ORDER BY a.attnum";
    let rows = session.client().query(sql, &[&oid]).await.map_err(e)?;
    let mut columns: Vec<ComparedColumn> = rows
        .iter()
        .map(|r| ComparedColumn {
            name: r.get(0),
            kind: r.get(1),
            has_span: r.get(2),
        })
        .collect();
    if let Some(list) = &data.columns {
        // In the archive's order, which need not be the table's.
        let mut by_name: HashMap<String, ComparedColumn> =
            columns.drain(..).map(|c| (c.name.clone(), c)).collect();
        let names = tokens(list, Dialect::default())
            .into_iter()
            .filter_map(|t| t.name());
        for name in names {
            match by_name.remove(&name) {
                Some(column) => columns.push(column),
                None => {
                    let what = format!("the restored table lacks the column {}", ident(&name));
                    return Ok(Described::Unreadable(what));
                }
            }
        }
    }
    let list = columns
        .iter()
        .map(|c| ident(&c.name))
        .collect::<Vec<_>>()
        .join(", ");
    let table = Table {
        name: name.to_owned(),
        columns,
        list,
        encoding: encoding.to_owned(),
        is_partitioned: kind == "p",
        condition: row.get(3),
    };
    Ok(Described::Table(table, bytes))
}

/// Divides a large table into ranges of blocks, if the server can read such ranges efficiently (since 14).
fn cut(session: &Session, index: usize, table: &Table, bytes: i64) -> Vec<(i64, TablePart)> {
    if table.is_partitioned
        || bytes <= PART_BYTES
        || session.version() < 140000
        || table.list.is_empty()
        || !table.condition.is_empty()
    {
        return vec![(
            bytes,
            TablePart {
                table: index,
                blocks: None,
            },
        )];
    }
    let (pages, each) = (bytes / PAGE + 1, PART_BYTES / PAGE);
    let starts = (0..pages).step_by(usize::try_from(each).unwrap_or(usize::MAX));
    starts
        .map(|from| {
            (
                PART_BYTES,
                TablePart {
                    table: index,
                    blocks: Some((from, from + each)),
                },
            )
        })
        .collect()
}

fn copy_sql(table: &Table, blocks: Option<(i64, i64)>) -> String {
    let with = format!("TO STDOUT WITH (ENCODING {})", literal(&table.encoding));
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
async fn read_all(
    subject: &RestoredDatabase<'_>,
    settings: &str,
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
                let read = read(&session, table, part.blocks, &progress)
                    .await
                    .map_err(|e| e.context(&table.name))?;
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

async fn read(
    session: &Session,
    table: &Table,
    blocks: Option<(i64, i64)>,
    progress: &Progress,
) -> Result<TableFindings, DatabaseError> {
    let (mut found, mut scratch) = (TableFindings::of(table.columns.len()), Vec::new());
    let row = |line: &[u8]| found.row(line, &table.columns, &mut scratch);
    read_lines(session, &copy_sql(table, blocks), progress, row).await?;
    Ok(found)
}

/// Reads columns that hold floating-point numbers, of which so many digits each are written by default.
async fn read_digits(
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
        read_lines(session, &copy_sql(columns, None), progress, row).await?;
    }
    Ok(found)
}

async fn read_lines(
    session: &Session,
    copy: &str,
    progress: &Progress,
    mut row: impl FnMut(&[u8]),
) -> Result<(), DatabaseError> {
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "reading rows back");
    let rows = session.client().copy_out(copy).await.map_err(e)?;
    tokio::pin!(rows);
    let mut counted = 0;
    while let Some(line) = rows.next().await {
        let line = line.map_err(e)?;
        counted += 1;
        if counted == COUNTED_AT_ONCE {
            progress.rows_checked.fetch_add(counted, Relaxed);
            counted = 0;
        }
        row(line.strip_suffix(b"\n").unwrap_or(&line));
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
        };
        let all = "COPY public.spatial_ref_sys (\"srid\") TO STDOUT WITH (ENCODING 'UTF8')";
        assert_eq!(copy_sql(&table(""), None), all);
        let own = "COPY (SELECT \"srid\" FROM ONLY public.spatial_ref_sys WHERE srid > 9000) TO STDOUT WITH (ENCODING 'UTF8')";
        assert_eq!(copy_sql(&table("WHERE srid > 9000"), None), own);
    }
}

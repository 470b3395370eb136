//! Row comparison: reads every table back and digests its COPY text with the same code as the archive's data. The number of
//! rows and the digest must be equal. Where the types allow it, the server writes tuples, and their text is written here;
//! what differs then is read again as text, which decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::float_digits::FloatDigits;
use super::read_rows::{RowFormat, Table, TablePart, read_all, read_digits};
use super::restored_database::{RestoredDatabase, counted};
use super::row_checks::{
    Tally, differs, excused, not_compared, rounded, summary_of, summary_of_differences,
};
use super::table_findings::{Column, TableFindings};
use super::text_forms::{self, Majors, TextForms, connect};
use super::tuple_form::TupleForm;
use crate::error::{DatabaseError, RestoreError};
use crate::postgres::{Session, ident, map_pg_error, too_large};
use crate::proof::{Check, CheckStatus, ColumnProof, Span, TableProof};
use pgdump_archive::{Dialect, TableDigest, tokens};

/// Tables larger than this are read in parts.
const PART_BYTES: i64 = 64 << 20;
const PAGE: i64 = 8192;
/// How many failures are listed one by one.
const MAX_NAMED: usize = 20;

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
    let usual = (text_forms::USUAL, RowFormat::Tuples);
    let mut read = ReadBack {
        found: read_all(subject, usual, &tables, parts.clone()).await?,
        subject,
        tables,
        parts,
        wanted: &wanted,
        forms: HashMap::new(),
        rounded: BTreeSet::new(),
    };
    read.again_as_text().await?;
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

/// Whether the rows are not the archive's, as far as that is known of them.
fn has_other_rows(data: &TableDigest, found: &TableFindings) -> bool {
    data.rows.count != found.rows.count || has_other_text(data, found)
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

    /// Reads tables that differ again as text if they were read as tuples. Only what the server itself writes as text is held
    /// against a backup.
    async fn again_as_text(&mut self) -> Result<(), RestoreError> {
        let is_due = |i: &usize| {
            let found = &self.found[*i];
            found.has_tuples && has_other_rows(self.wanted(*i), found)
        };
        let due: BTreeSet<usize> = (0..self.tables.len()).filter(is_due).collect();
        if due.is_empty() {
            return Ok(());
        }
        let mut again = self.read_as_text(text_forms::USUAL, &due).await?;
        for i in due {
            self.found[i] = std::mem::take(&mut again[i]);
        }
        Ok(())
    }

    /// Reads these tables, as text with these settings.
    async fn read_as_text(
        &self,
        settings: &str,
        due: &BTreeSet<usize>,
    ) -> Result<Vec<TableFindings>, RestoreError> {
        let queue = self.parts.iter().filter(|part| due.contains(&part.table));
        let queue = queue.copied().collect();
        let how = (settings, RowFormat::Text);
        read_all(self.subject, how, &self.tables, queue).await
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
        let again = self.read_as_text(settings, &due).await?;
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
    let mut columns: Vec<Column> = rows
        .iter()
        .map(|r| Column {
            name: r.get(0),
            kind: r.get(1),
            has_span: r.get(2),
        })
        .collect();
    if let Some(list) = &data.columns {
        // In the archive's order, which need not be the table's.
        let mut by_name: HashMap<String, Column> =
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
    let is_partitioned = kind == "p";
    let table = Table {
        name: name.to_owned(),
        tuples: if columns.is_empty() {
            TupleForm::default()
        } else {
            TupleForm::of((!is_partitioned).then_some(bytes), encoding)
        },
        columns,
        list,
        encoding: encoding.to_owned(),
        is_partitioned,
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

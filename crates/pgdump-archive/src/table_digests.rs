//! The digests of all tables of an archive. Partitions that are loaded through their root count as one table, whose
//! rows are digested in the order of columns that its first part has.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use super::field_order::FieldOrder;
use super::kept_memory::KeptMemory;
use super::row_digest::RowDigest;
use crate::error::ArchiveError;

/// Bytes of memory for a table in addition to its names.
const TABLE: usize = 256;

/// One table's data in the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDigest {
    /// The list of columns in parentheses, as in the archive; `None`: all columns that accept values.
    pub columns: Option<String>,
    /// Count, size and digest of its rows.
    pub rows: RowDigest,
    /// Only the number of its rows is known: some have other columns than `columns`, are too long, or have values that are
    /// no constants.
    pub is_only_counted: bool,
}

#[derive(Debug, Default)]
struct CountedTable {
    digest: TableDigest,
    /// Whether data of it has been read to its end.
    is_read: bool,
}

/// Tables by their names in the archive's statements, including schema and quotes.
#[derive(Debug, Default)]
pub(super) struct TableDigests(Mutex<BTreeMap<String, CountedTable>>);

impl TableDigests {
    /// With the lists of columns of those tables that occur with several. `targets` are the COPY statements of the
    /// table of contents, so that the order in which data arrives does not decide.
    pub(super) fn expecting<'a>(
        statements: impl Iterator<Item = &'a str>,
        target: impl Fn(&str) -> Option<(String, Option<String>)>,
    ) -> Self {
        let mut first: HashMap<String, &str> = HashMap::new();
        let mut tables = BTreeMap::new();
        for statement in statements {
            let Some((relation, _)) = target(statement) else {
                continue;
            };
            let Some(before) = first.get(&relation) else {
                first.insert(relation, statement);
                continue;
            };
            if *before != statement && !tables.contains_key(&relation) {
                let columns = target(before).and_then(|(_, columns)| columns);
                tables.insert(relation, CountedTable::of(columns));
            }
        }
        TableDigests(Mutex::new(tables))
    }

    /// Rows with this list of columns follow: the order that they are to be digested in.
    ///
    /// # Errors
    /// `ArchiveError::Limit` if the tables take too much memory.
    pub(super) fn begin(
        &self,
        relation: &str,
        columns: Option<&str>,
        kept: &KeptMemory,
    ) -> Result<FieldOrder, ArchiveError> {
        let mut tables = self.0.lock();
        if let Some(table) = tables.get(relation) {
            let first = table.digest.columns.as_deref();
            return Ok(FieldOrder::between(columns, first));
        }
        kept.charge(TABLE + relation.len() + columns.map_or(0, str::len))?;
        let table = CountedTable::of(columns.map(str::to_owned));
        tables.insert(relation.to_owned(), table);
        Ok(FieldOrder::Same)
    }

    /// Adds rows that have been read to their end.
    pub(super) fn add(&self, relation: String, rows: &RowDigest, is_only_counted: bool) {
        let mut tables = self.0.lock();
        let table = tables.entry(relation).or_default();
        table.is_read = true;
        table.digest.rows.merge(rows);
        table.digest.is_only_counted |= is_only_counted;
    }

    /// The tables whose data has been read.
    pub(super) fn read(&self) -> BTreeMap<String, TableDigest> {
        let tables = self.0.lock();
        let read = tables.iter().filter(|(_, table)| table.is_read);
        read.map(|(name, table)| (name.clone(), table.digest.clone()))
            .collect()
    }
}

impl CountedTable {
    fn of(columns: Option<String>) -> Self {
        let digest = TableDigest {
            columns,
            ..TableDigest::default()
        };
        CountedTable {
            digest,
            is_read: false,
        }
    }
}

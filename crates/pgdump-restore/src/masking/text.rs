//! Follows SQL text as far as masking has to: which table rows are for, and which statements bring rows in a way that is
//! not understood. Those are refused: what they bring could not be masked.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgdump_archive::{Dialect, EntryKind, Statement, TextEncoding, TocEntry, tokens};
use pgdump_mask::{Masking, TableShape};

use super::load_masking::LoadMasking;
use super::masked_table::{MaskedTarget, copied_columns, keeps_statistics};
use super::misfits::{do_not_fit, misfit_of_large_objects, unmatched};
use super::row_mask::{Name, RowMask};
use super::text_statements::{
    USER, brings_statistics, changes_default_path, not_understood, path_of, relation_of_statistics,
    sets_path_elsewhere,
};
use crate::error::RestoreError;
use crate::table_shapes::{TableDefinitions, attached_table, labelled_table};

/// The masking of SQL text, whose tables are known as far as it has been read.
pub(crate) struct TextMasking {
    masking: Arc<LoadMasking>,
    definitions: TableDefinitions,
    /// The tables that have rows.
    tables: BTreeSet<Name>,
    /// Whether the rules were compared with the tables that the text creates before its first rows.
    is_compared: bool,
    /// The server's default of the search path is not that of a new database.
    has_other_path: bool,
}

impl TextMasking {
    pub(crate) fn new(masking: Arc<LoadMasking>) -> Self {
        TextMasking {
            masking,
            definitions: TableDefinitions::default(),
            tables: BTreeSet::new(),
            is_compared: false,
            has_other_path: false,
        }
    }

    fn rules(&self) -> &Masking {
        self.masking.rules()
    }

    /// Learns from a statement, also from one that the copy is not to have: it says how rows are masked. `path`: the statement
    /// that sets the search path.
    ///
    /// # Errors
    /// `invalid_request` for a statement that is not understood.
    pub(crate) fn learn(&mut self, statement: &Statement, path: &str) -> Result<(), RestoreError> {
        let (sql, line) = (statement.text.as_str(), statement.line);
        self.has_other_path |= changes_default_path(sql);
        let schema = self.schema_of_names(path);
        let schema = schema.as_deref().unwrap_or_default();
        let attached = self.tables_attached(sql, schema);
        self.definitions.learn(sql, schema);
        let refused = |what: &str| Err(do_not_fit(vec![format!("line {line}: {what}")]));
        if let Some(table) = attached.iter().find(|before| !self.has_same_rules(before)) {
            return refused(&format!(
                "{}.{} becomes a partition or a child, for which other rules apply, after rows of it: move that statement before them",
                table.schema, table.table
            ));
        }
        if let Some(sets) = sets_path_elsewhere(sql) {
            return refused(&format!(
                "{sets}: after it, names without a schema cannot be resolved; write them with their schema"
            ));
        }
        let labelled = labelled_table(sql, schema);
        if let Some(table) = labelled.filter(|table| self.tables.contains(table)) {
            return refused(&format!(
                "a label on a column of {}.{} comes after rows of it: move it before them",
                table.0, table.1
            ));
        }
        if self.definitions.take_unplaced() {
            return refused(
                "a name without a schema that the search path does not resolve for certain: write names with their schema, or \
                 set search_path to one schema",
            );
        }
        Ok(())
    }

    /// The tables with rows that a statement gives a parent, or whose parent it gives one, as they were before it.
    fn tables_attached(&self, sql: &str, schema: &str) -> Vec<TableShape> {
        let Some(table) = attached_table(sql, schema) else {
            return vec![];
        };
        let mut below = self.definitions.descendants(&table);
        below.sort_unstable();
        let all = std::iter::once(table).chain(below);
        let with_rows = all.filter(|name| self.tables.contains(name));
        with_rows.map(|name| self.shape(name)).collect()
    }

    fn shape(&self, name: Name) -> TableShape {
        let known = self.definitions.shape(&name);
        known.unwrap_or_else(|| TableShape {
            schema: name.0,
            table: name.1,
            ..TableShape::default()
        })
    }

    /// Whether the rules of a table are still those that it had with this shape.
    fn has_same_rules(&self, before: &TableShape) -> bool {
        let now = self.shape((before.schema.clone(), before.table.clone()));
        self.rules().agree(before, &now)
    }

    /// The schema that a name without one is in. The server looks for it in one schema after the other, so that it is certain
    /// only if there is one; that of the role comes into question if the text creates schemas.
    fn schema_of_names(&self, path: &str) -> Option<String> {
        let mut schemas = path_of(path)?;
        if !self.definitions.has_own_schemas() && !self.has_other_path {
            schemas.retain(|schema| schema != USER);
        }
        let only = schemas.pop().filter(|schema| schema != USER)?;
        schemas.is_empty().then_some(only)
    }

    /// Whether a statement is run; false if it is to be left out.
    ///
    /// # Errors
    /// `invalid_request` for a statement that may bring rows.
    pub(crate) fn keeps(&self, statement: &Statement) -> Result<bool, RestoreError> {
        let (sql, line) = (statement.text.as_str(), statement.line);
        if brings_statistics(sql) {
            let of = relation_of_statistics(sql);
            let is_kept =
                of.is_some_and(|name| keeps_statistics(&self.definitions, &name, self.rules()));
            self.masking.leave_out_statistics(!is_kept);
            return Ok(is_kept);
        }
        if let Some(what) = not_understood(sql) {
            return Err(do_not_fit(vec![format!(
                "line {line}: {what}, which may add rows that are not masked: remove it from the text, or restore a backup made by \
                 pg_dump"
            )]));
        }
        Ok(true)
    }

    /// How the rows that follow are masked.
    ///
    /// # Errors
    /// `invalid_request` with everything that does not fit.
    pub(crate) fn rows(
        &mut self,
        entry: &TocEntry,
        path: &str,
        encoding: &TextEncoding,
    ) -> Result<Option<RowMask>, RestoreError> {
        if entry.kind == EntryKind::Blobs {
            return match misfit_of_large_objects(self.rules()) {
                Some(misfit) => Err(do_not_fit(vec![misfit])),
                None => Ok(None),
            };
        }
        let name = self.table_named(&entry.tag, path).ok_or_else(|| {
            let what = "the text does not say for certain which schema this table is in, so rules cannot be applied: write \
                        the name with its schema, or set search_path to one schema";
            do_not_fit(vec![format!("{}: {what}", entry.tag)])
        })?;
        self.compare_names()?;
        self.check_is_table(&name, &entry.tag)?;
        self.check_partitions(&name)?;
        let target = MaskedTarget {
            definitions: &self.definitions,
            name: &name,
            copied: copied_columns(&entry.copy_stmt),
            encoding,
        };
        let mask = target.mask(self.rules()).map_err(do_not_fit)?;
        if let Some(mask) = &mask {
            self.masking.add(mask);
        }
        self.tables.insert(name);
        Ok(mask)
    }

    /// Refuses rows for something that is no table of the text: through a view, they would reach its table as they are. An
    /// extension may have created a table that the text only has rows of.
    fn check_is_table(&self, name: &Name, written: &str) -> Result<(), RestoreError> {
        let all = &self.definitions;
        let may_be_table = all.has_no_tables() || all.has_extensions();
        if all.knows(name) || (may_be_table && !all.is_view(name)) {
            return Ok(());
        }
        let what = "is not a table that the text creates, so the rules for its rows are unknown: restore a backup made by \
                    pg_dump";
        Err(do_not_fit(vec![format!("{written}: {what}")]))
    }

    /// Refuses rows that a partitioned table has instead of its partitions (`--load-via-partition-root`) unless all of them have
    /// the same rules: which one a row is for is not known.
    fn check_partitions(&self, name: &Name) -> Result<(), RestoreError> {
        let all = &self.definitions;
        let Some(root) = all.shape(name).filter(|_| all.is_partitioned(name)) else {
            return Ok(());
        };
        let below = all.descendants(name);
        let shapes = below.iter().filter_map(|partition| all.shape(partition));
        let mut others = shapes.filter(|shape| !self.rules().agree(&root, shape));
        let Some(other) = others.next() else {
            return Ok(());
        };
        let what = "rows of its partitions come under its name (--load-via-partition-root), and the rules of its partition";
        Err(do_not_fit(vec![format!(
            "{}.{}: {what} {}.{} differ: give both the same rules, or dump without that option",
            name.0, name.1, other.schema, other.table
        )]))
    }

    /// Refuses names in the file that are no table, before the first row is sent: a misspelt name would leave its table unmasked.
    /// Text without definitions is checked at its end.
    fn compare_names(&mut self) -> Result<(), RestoreError> {
        if self.is_compared || self.definitions.has_no_tables() {
            return Ok(());
        }
        self.is_compared = true;
        let names: Vec<Name> = self.definitions.names().cloned().collect();
        let (mut misfits, note) = unmatched(self.rules(), &names);
        if self.definitions.has_extensions() {
            let hint = "; if an extension creates it, write the name with a wildcard";
            misfits.iter_mut().for_each(|misfit| misfit.push_str(hint));
        }
        if misfits.is_empty() {
            self.masking.note(note);
            Ok(())
        } else {
            Err(do_not_fit(misfits))
        }
    }

    /// All of the text has been read.
    ///
    /// # Errors
    /// `invalid_request` if the file names tables that the text does not have.
    pub(crate) fn end(&self) -> Result<(), RestoreError> {
        if self.is_compared {
            return Ok(());
        }
        let names = self.definitions.names().chain(&self.tables);
        let names: Vec<Name> = names.cloned().collect();
        let (misfits, note) = unmatched(self.rules(), &names);
        if misfits.is_empty() {
            self.masking.note(note);
            Ok(())
        } else {
            Err(do_not_fit(misfits))
        }
    }

    /// Schema and name of a table as the text writes it; `None` if its schema is not known.
    fn table_named(&self, written: &str, path: &str) -> Option<Name> {
        match tokens(written, Dialect::default()).as_slice() {
            [schema, dot, table] if dot.is_symbol(b'.') => Some((schema.name()?, table.name()?)),
            [table] => Some((self.schema_of_names(path)?, table.name()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masking(rules: &str) -> TextMasking {
        let yaml = format!("version: 1\ntables:\n{rules}");
        let file = pgdump_mask::MaskFile::parse(&yaml).unwrap();
        let masking = Masking::new(file, None).unwrap();
        TextMasking::new(Arc::new(LoadMasking::new(masking)))
    }

    impl TextMasking {
        /// Reads statements under a search path.
        fn read(&mut self, path: &str, sql: &[&str]) -> Result<(), String> {
            for (i, text) in sql.iter().enumerate() {
                let statement = Statement {
                    text: (*text).to_owned(),
                    line: i as u64 + 1,
                    standard_strings: true,
                };
                let read = self.learn(&statement, path);
                read.map_err(|e| e.to_string())?;
                let kept = self.keeps(&statement);
                kept.map_err(|e| e.to_string())?;
            }
            Ok(())
        }

        /// Whether rows of a COPY, or of an INSERT without a list of columns, are masked.
        fn masks(
            &mut self,
            path: &str,
            (table, columns): (&str, Option<&str>),
        ) -> Result<bool, String> {
            let mut entry = TocEntry::bare(1, "TABLE DATA", table);
            let copy = columns.map(|columns| format!("COPY {table} ({columns}) FROM stdin;"));
            entry.copy_stmt = copy.unwrap_or_default();
            let mask = self.rows(&entry, path, &TextEncoding::new("UTF8"));
            mask.map(|m| m.is_some()).map_err(|e| e.to_string())
        }
    }

    #[test]
    fn names_that_are_no_table_are_refused_before_the_first_row() {
        let tables = ["CREATE TABLE s.t (a text);", "CREATE TABLE s.u (a text);"];
        let mut misspelt = masking("  s.v: { columns: { a: { set: x } } }\n");
        misspelt.read("", &tables).unwrap();
        let refused = misspelt.masks("", ("s.t", Some("a"))).unwrap_err();
        assert!(refused.contains("s.v"), "{refused}");
        let mut idle = masking("  s.u: { columns: { a: { set: x } } }\n  w.*: { rows: none }\n");
        idle.read("", &tables).unwrap();
        assert_eq!(idle.masks("", ("s.t", Some("a"))), Ok(false));
        assert_eq!(idle.masks("", ("s.u", Some("a"))), Ok(true));
        idle.end().unwrap();
        let notes = idle.masking.notes();
        assert!(
            matches!(&notes[..], [note] if note.contains("w.*")),
            "{notes:?}"
        );
        // Text of rows only has its tables as they come.
        let mut rows_only = masking("  s.u: { columns: { a: { set: x } } }\n");
        assert_eq!(rows_only.masks("", ("s.t", Some("a"))), Ok(false));
        assert!(rows_only.end().is_err());
    }

    #[test]
    fn rows_of_what_is_no_table_are_refused() {
        let defined = [
            "CREATE TABLE s.t (a text);",
            "CREATE OR REPLACE VIEW s.v AS SELECT a FROM s.t;",
        ];
        let rules = "  s.t: { columns: { a: { set: x } } }\n";
        let mut text = masking(rules);
        text.read("", &defined).unwrap();
        let columns = Some("a");
        for table in ["s.v", "s.unknown", "app.s.t", "s t", "s.t.a.b"] {
            assert!(text.masks("", (table, columns)).is_err(), "{table}");
        }
        assert_eq!(text.masks("", ("s.t", columns)), Ok(true));
        let long = format!("s.{}", "t".repeat(70));
        let created = format!("CREATE TABLE s.{} (a text);", "t".repeat(63));
        let mut cut = masking(&format!(
            "  {}: {{ columns: {{ a: {{ set: x }} }} }}\n",
            &long[..65]
        ));
        cut.read("", &[&created]).unwrap();
        assert_eq!(cut.masks("", (&long, columns)), Ok(true));
        let mut extended = masking(rules);
        extended.read("", &defined).unwrap();
        extended
            .read("", &["CREATE EXTENSION IF NOT EXISTS x;"])
            .unwrap();
        assert_eq!(extended.masks("", ("s.config", columns)), Ok(false));
        assert!(extended.masks("", ("s.v", columns)).is_err());
    }

    #[test]
    fn names_without_a_schema_are_read_where_it_is_certain() {
        let rules =
            "  crm.t: { columns: { a: { set: x } } }\n  \"*.*\": { columns: { b: keep } }\n";
        let table = ["CREATE TABLE t (a text);"];
        for (path, is_masked) in [
            ("SET SCHEMA 'crm';", Some(true)),
            ("SET search_path = crm, pg_catalog;", Some(true)),
            ("SET search_path = crm, public;", None),
            ("SET search_path = gone, crm;", None),
            ("SET search_path = \"$user\", crm;", None),
            ("SET search_path TO U&\"gone\", crm;", None),
            ("", None),
            (
                "SELECT pg_catalog.set_config('search_path', '', false);",
                None,
            ),
        ] {
            let mut text = masking(rules);
            text.read("", &["CREATE SCHEMA crm;"]).unwrap();
            let read = text.read(path, &table);
            let masked = read.and_then(|()| text.masks(path, ("t", Some("a"))));
            assert_eq!(masked.clone().ok(), is_masked, "{path}: {masked:?}");
        }
        let mut default = masking("  public.t: { columns: { a: { set: x } } }\n");
        default.read("", &table).unwrap();
        assert_eq!(default.masks("", ("t", Some("a"))), Ok(true));
        let altered = ["ALTER DATABASE app SET search_path TO 'crm';"];
        default.read("", &altered).unwrap();
        assert!(default.masks("", ("t", Some("a"))).is_err());
        for sql in [
            "SET LOCAL search_path = crm;",
            "SET LOCAL SCHEMA 'crm';",
            "SELECT pg_catalog.set_config('search_path', 'crm', true);",
            "SELECT pg_catalog.set_config('search_path', 'c' || 'rm', false);",
        ] {
            let e = masking(rules).read("", &[sql]).unwrap_err();
            assert!(e.contains("search_path"), "{sql}: {e}");
        }
    }

    #[test]
    fn rows_of_partitions_under_the_name_of_their_root_need_one_set_of_rules() {
        let defined = [
            "CREATE TABLE s.root (a text, b text) PARTITION BY LIST (a);",
            "CREATE TABLE s.p1 (b text, a text);",
            "ALTER TABLE ONLY s.root ATTACH PARTITION s.p1 FOR VALUES IN ('x');",
        ];
        let of_root = "  s.root: { columns: { b: { set: x } } }\n";
        let of_part = "  s.p1: { columns: { b: { null: true } } }\n";
        let same = "  s.p1: { columns: { b: { set: x } } }\n";
        let labelled = "SECURITY LABEL FOR anon ON COLUMN s.p1.a IS 'MASKED WITH VALUE NULL';";
        for (rules, label, is_masked) in [
            (of_root.to_owned(), None, true),
            (format!("{of_root}{same}"), None, true),
            (of_root.to_owned(), Some(labelled), false),
            (format!("{of_root}{of_part}"), None, false),
            (format!("{of_root}  s.p?: {{ rows: none }}\n"), None, false),
        ] {
            let mut text = masking(&rules);
            text.read("", &defined).unwrap();
            text.read("", label.as_slice()).unwrap();
            let masked = text.masks("", ("s.root", Some("a, b")));
            assert_eq!(masked.is_ok(), is_masked, "{rules}: {masked:?}");
            assert!(text.masks("", ("s.p1", Some("a, b"))).is_ok(), "{rules}");
        }
    }

    #[test]
    fn a_table_with_rows_gets_no_parent_with_other_rules() {
        let defined = [
            "CREATE TABLE s.root (a text) PARTITION BY LIST (a);",
            "CREATE TABLE s.p (a text) PARTITION BY LIST (a);",
            "CREATE TABLE s.leaf PARTITION OF s.p DEFAULT;",
            "CREATE TABLE s.other (a text);",
        ];
        let attach = ["ALTER TABLE ONLY s.root ATTACH PARTITION s.p FOR VALUES IN ('x');"];
        let mut text = masking("  s.root: { columns: { a: { set: x } } }\n");
        text.read("", &defined).unwrap();
        assert_eq!(text.masks("", ("s.other", Some("a"))), Ok(false));
        text.read("", &["ALTER TABLE s.other INHERIT s.leaf;"])
            .unwrap();
        assert_eq!(text.masks("", ("s.leaf", Some("a"))), Ok(false));
        let refused = text.read("", &attach).unwrap_err();
        assert!(refused.contains("s.leaf becomes a partition"), "{refused}");
        let mut first = masking("  s.root: { columns: { a: { set: x } } }\n");
        first.read("", &[&defined[..], &attach].concat()).unwrap();
        assert_eq!(first.masks("", ("s.leaf", Some("a"))), Ok(true));
    }

    #[test]
    fn a_label_after_the_rows_is_refused() {
        let mut text = masking("  s.u*: { rows: none }\n");
        text.read("", &["CREATE TABLE s.t (a text);"]).unwrap();
        assert_eq!(text.masks("", ("s.t", Some("a"))), Ok(false));
        let label = "SECURITY LABEL FOR anon ON COLUMN s.t.a IS 'MASKED WITH VALUE NULL';";
        let refused = text.read("", &[label]).unwrap_err();
        assert!(refused.contains("s.t comes after rows"), "{refused}");
    }
}

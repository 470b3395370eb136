//! Follows SQL text as far as masking has to: which table rows are for, and which statements bring rows in a way that is
//! not understood. Those are refused: what they bring could not be masked.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgdump_archive::{
    Dialect, EntryKind, Statement, TextEncoding, TocEntry, Token, first_tokens, tokens,
};
use pgdump_mask::Masking;

use super::load_masking::LoadMasking;
use super::masked_table::{MaskedTarget, copied_columns, keeps_statistics};
use super::misfits::{do_not_fit, misfit_of_large_objects, unmatched};
use super::row_mask::{Name, RowMask};
use crate::error::RestoreError;
use crate::table_shapes::{TableDefinitions, labelled_table};

/// Tokens examined to find out what a statement does.
const LOOKED_AT: usize = 64;

/// Statements that bring no rows.
const UNDERSTOOD: [&str; 25] = [
    "alter",
    "analyze",
    "begin",
    "cluster",
    "comment",
    "commit",
    "create",
    "discard",
    "drop",
    "end",
    "grant",
    "import",
    "lock",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "set",
    "start",
    "truncate",
    "vacuum",
];

/// Functions of `pg_catalog` that `pg_dump` calls, and that bring no rows.
const UNDERSTOOD_CALLS: [&str; 7] = [
    "lo_close",
    "lo_create",
    "lo_open",
    "lo_unlink",
    "set_config",
    "setval",
    "pg_extension_config_dump",
];

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
        let schema = self.schema_of_names(path);
        self.definitions
            .learn(sql, schema.as_deref().unwrap_or_default());
        let refused = |what: &str| Err(do_not_fit(vec![format!("line {line}: {what}")]));
        if let Some(sets) = sets_path_elsewhere(sql) {
            return refused(&format!(
                "{sets}: it is not followed which tables names without a schema mean after it; write them with their schema"
            ));
        }
        let labelled = labelled_table(sql, schema.as_deref().unwrap_or_default());
        if let Some(table) = labelled.filter(|table| self.tables.contains(table)) {
            return refused(&format!(
                "a label on a column of {}.{} comes after rows of it: write it before them",
                table.0, table.1
            ));
        }
        if self.definitions.take_unplaced() {
            return refused(
                "a name without a schema, which the search path does not give for certain: write names with their schema, or \
                 set search_path to one schema",
            );
        }
        Ok(())
    }

    /// The schema that a name without one is in. The server looks for it in one schema after the other, so that it is certain
    /// only if there is one; that of the role comes into question if the text creates schemas.
    fn schema_of_names(&self, path: &str) -> Option<String> {
        let mut schemas = path_of(path);
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
                "line {line}: {what}, which may bring rows that are not masked: take it out of the text, or restore a backup of \
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
            let what = "the text does not say for certain which schema this table is in, so that rules cannot be applied: write \
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
        let what = "is no table that the text creates, so that it is not known which rules its rows need: restore a backup of \
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
            "{}.{}: {what} {}.{} are others: give both the same rules, or dump without that option",
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

/// The schemas that a statement puts into the search path; those of the server's default, if there is none. `pg_catalog` has
/// no tables of the text.
fn path_of(setting: &str) -> Vec<String> {
    let t = tokens(setting, Dialect::default());
    let is_reset = t.first().is_none_or(|w| w.is("reset"));
    if is_reset || t.iter().rev().take(2).any(|w| w.is("default")) {
        return vec![USER.to_owned(), "public".to_owned()];
    }
    let named: Vec<String> = if t.first().is_some_and(|w| w.is("select")) {
        // SELECT pg_catalog.set_config('search_path', 'shop, public', false);
        let list = t.iter().filter_map(Token::string).nth(1);
        let list = list.unwrap_or_default();
        let names = tokens(&list, Dialect::default());
        names.iter().filter_map(Token::name).collect()
    } else {
        // SET SESSION search_path TO shop, public; SET SCHEMA 'shop';
        let words = ["set", "session", "search_path", "schema", "to"];
        let is_before = |w: &&Token<'_>| w.is_symbol(b'=') || words.iter().any(|word| w.is(word));
        let values = t.iter().skip_while(is_before);
        values
            .filter_map(|w| w.name().or_else(|| w.string()))
            .collect()
    };
    let schemas = named.into_iter();
    schemas
        .filter(|s| !s.is_empty() && s != "pg_catalog")
        .collect()
}

/// The schema of the session's role, in a search path.
const USER: &str = "$user";

/// A statement that changes the search path for less, or for more, than the rest of the text.
fn sets_path_elsewhere(sql: &str) -> Option<&'static str> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let has = |word: &str| t.iter().any(|w| w.is(word));
    let first = t.first()?;
    let is_path = |w: &Token<'_>| w.is("search_path") || w.is("schema");
    if first.is("set") && t.get(1)?.is("local") {
        return t
            .get(2)
            .is_some_and(is_path)
            .then_some("SET LOCAL search_path");
    }
    let sets_path = t.iter().find_map(Token::string).as_deref() == Some("search_path");
    let is_plain = || {
        let value = t.get(7).and_then(Token::string);
        value.is_some() && t.get(9).is_some_and(|w| w.is("false"))
    };
    let is_call = first.is("select") && has("set_config") && sets_path;
    (is_call && !is_plain()).then_some("set_config('search_path', …)")
}

/// `ALTER DATABASE d SET search_path TO s`, `ALTER ROLE r SET search_path TO s`: sessions may begin with another one.
fn changes_default_path(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let kinds = ["database", "role", "user"];
    let is_of = |w: &Token<'_>| kinds.iter().any(|kind| w.is(kind));
    let is_alter = t.first().is_some_and(|w| w.is("alter")) && t.get(1).is_some_and(is_of);
    is_alter && t.iter().any(|w| w.is("search_path"))
}

/// The key word of a statement that may bring rows.
fn not_understood(sql: &str) -> Option<String> {
    let t = tokens(sql, Dialect::default());
    let first = t.first()?;
    let word = || first.short().unwrap_or_default().to_uppercase();
    let is_understood = if first.is("select") {
        let is_of_catalog = t.get(1).is_some_and(|w| w.is("pg_catalog"))
            && t.get(2).is_some_and(|w| w.is_symbol(b'.'));
        let is_call = |f: &Token<'_>| UNDERSTOOD_CALLS.iter().any(|call| f.is(call));
        let is_other = |w: &Token<'_>| w.is("into") || w.is("select");
        let arguments = t.get(4..).unwrap_or_default();
        is_of_catalog
            && t.get(3).is_some_and(is_call)
            && !arguments.iter().any(is_other)
            && !calls_function(arguments)
    } else if first.is("create") {
        return creates_otherwise(&t).map(str::to_owned);
    } else if first.is("alter") {
        return moves(&t).then(|| "ALTER, which gives something another name".to_owned());
    } else if first.is("update") {
        // Old pg_dump disables triggers so.
        t.get(1).is_some_and(|w| w.is("pg_catalog"))
    } else {
        first.is_symbol(b';') || UNDERSTOOD.iter().any(|word| first.is(word))
    };
    (!is_understood).then(word)
}

/// `CREATE TABLE t AS SELECT …`
fn creates_from_query(t: &[Token<'_>]) -> bool {
    let adjectives = ["create", "global", "local", "temporary", "temp", "unlogged"];
    let mut rest = t
        .iter()
        .skip_while(|w| adjectives.iter().any(|word| w.is(word)));
    if !rest.next().is_some_and(|w| w.is("table")) {
        return false;
    }
    let mut depth = 0_usize;
    rest.any(|w| {
        depth += usize::from(w.is_symbol(b'('));
        depth = depth.saturating_sub(usize::from(w.is_symbol(b')')));
        depth == 0 && w.is("as")
    })
}

/// Whether a name is followed by a parenthesis.
fn calls_function(t: &[Token<'_>]) -> bool {
    t.windows(2)
        .any(|w| w[0].name().is_some() && w[1].is_symbol(b'('))
}

/// What creates tables in a way that is not followed.
fn creates_otherwise(t: &[Token<'_>]) -> Option<&'static str> {
    let has_elements = || {
        let is_schema = t.get(1).is_some_and(|w| w.is("schema"));
        is_schema && t.iter().skip(2).any(|w| w.is("create"))
    };
    if creates_from_query(t) {
        Some("CREATE TABLE AS")
    } else if has_elements() {
        Some("CREATE SCHEMA with what is in it")
    } else {
        None
    }
}

/// `ALTER TABLE t RENAME TO u`, `ALTER TABLE t SET SCHEMA s`: rules would be about another table than the rows. The server
/// takes the name of a table after `ALTER INDEX` and others, too.
fn moves(t: &[Token<'_>]) -> bool {
    let has = |a: &str, b: &str| t.windows(2).any(|w| w[0].is(a) && w[1].is(b));
    has("rename", "to") || has("set", "schema")
}

/// `SELECT * FROM pg_catalog.pg_restore_attribute_stats(…)`
fn brings_statistics(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let head: Option<String> = t.iter().take(5).map(Token::short).collect();
    let is_call = |w: &Token<'_>| {
        w.short()
            .is_some_and(|name| name.starts_with("pg_restore_") && name.ends_with("_stats"))
    };
    head.as_deref() == Some("select*frompg_catalog.") && t.get(5).is_some_and(is_call)
}

fn relation_of_statistics(sql: &str) -> Option<Name> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let strings: Vec<String> = t.iter().filter_map(Token::string).collect();
    let after = |key: &str| {
        let at = strings.iter().position(|text| text == key)?;
        strings.get(at + 1).cloned()
    };
    Some((after("schemaname")?, after("relname")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_may_bring_rows_are_not_understood() {
        for sql in [
            "INSERT INTO t SELECT 1;",
            "UPDATE t SET a = 1;",
            "DELETE FROM t WHERE a = 'x';",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x;",
            "SELECT f('x');",
            "SELECT 1 INTO t;",
            "SELECT pg_catalog.query_to_xml('x');",
            "SELECT pg_catalog.setval('s.q', f('x'));",
            "SELECT pg_catalog.setval('s.q', 1), public.f();",
            "SELECT pg_catalog.lo_create(1) FROM s.\"F\" ('x');",
            "SELECT pg_catalog.setval('s.q', (SELECT a FROM v));",
            "DO $$ BEGIN END $$;",
            "CALL p('x');",
            "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE;",
            "COPY t FROM PROGRAM 'x';",
            "EXECUTE x;",
            "PREPARE x AS SELECT 1;",
            "VALUES (1);",
            "TABLE t;",
            "SELECT pg_catalog.setval('q', 1) AS a, 'x' AS b INTO t;",
            "SELECT 'x', pg_catalog.pg_restore_relation_stats('relname', 't');",
            "CREATE TABLE t AS SELECT 1;",
            "CREATE UNLOGGED TABLE s.t (a, b) AS VALUES (1, 2);",
            "ALTER TABLE a RENAME TO b;",
            "ALTER TABLE IF EXISTS a SET SCHEMA b;",
            "ALTER SCHEMA a RENAME TO b;",
            "ALTER INDEX t RENAME TO u;",
            "ALTER SEQUENCE IF EXISTS t RENAME TO u;",
            "ALTER VIEW t SET SCHEMA b;",
            "CREATE SCHEMA a CREATE VIEW v AS SELECT * FROM t;",
        ] {
            assert!(not_understood(sql).is_some(), "{sql}");
        }
        for sql in [
            "SET client_encoding = 'UTF8';",
            "SELECT pg_catalog.set_config('search_path', '', false);",
            "SELECT pg_catalog.setval('s.q', 3, true);",
            "SELECT pg_catalog.lo_create('1');",
            "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid = '1';",
            "CREATE TABLE s.t (a text DEFAULT (1)::text, b text GENERATED ALWAYS AS (lower(a)) STORED);",
            "CREATE VIEW v AS SELECT 1;",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT p PRIMARY KEY (a);",
            "ALTER TABLE s.t RENAME COLUMN a TO b;",
            "COMMENT ON TABLE t IS 'x';",
            "REFRESH MATERIALIZED VIEW v;",
            "UPDATE pg_catalog.pg_class SET reltriggers = 0;",
        ] {
            assert_eq!(not_understood(sql), None, "{sql}");
        }
        let columns: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
        let late = format!("CREATE TABLE t ({}) AS VALUES ('x');", columns.join(", "));
        assert!(not_understood(&late).is_some());
    }

    #[test]
    fn the_search_path_is_read_as_it_was_set() {
        for (setting, wanted) in [
            ("", &["$user", "public"][..]),
            ("RESET search_path;", &["$user", "public"]),
            ("SET search_path TO DEFAULT;", &["$user", "public"]),
            ("SET SCHEMA 'crm';", &["crm"]),
            ("SET SESSION SCHEMA 'crm';", &["crm"]),
            ("SET SESSION search_path TO crm;", &["crm"]),
            ("SET search_path = shop, pg_catalog;", &["shop"]),
            (
                "SET search_path TO '$user', \"My s\", public;",
                &["$user", "My s", "public"],
            ),
            (
                "SELECT pg_catalog.set_config('search_path', 'a, \"B\"', false);",
                &["a", "B"],
            ),
            (
                "SELECT pg_catalog.set_config('search_path', '', false);",
                &[],
            ),
        ] {
            assert_eq!(path_of(setting), wanted, "{setting}");
        }
    }

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
    fn a_label_after_the_rows_is_refused() {
        let mut text = masking("  s.u*: { rows: none }\n");
        text.read("", &["CREATE TABLE s.t (a text);"]).unwrap();
        assert_eq!(text.masks("", ("s.t", Some("a"))), Ok(false));
        let label = "SECURITY LABEL FOR anon ON COLUMN s.t.a IS 'MASKED WITH VALUE NULL';";
        let refused = text.read("", &[label]).unwrap_err();
        assert!(refused.contains("s.t comes after rows"), "{refused}");
    }

    #[test]
    fn statistics_are_recognized_with_their_table() {
        let sql = "SELECT * FROM pg_catalog.pg_restore_attribute_stats(\n\t'version', '180000'::integer,\n\t\
             'schemaname', 'shop',\n\t'relname', 'customer',\n\t'attname', 'email',\n\t\
             'most_common_vals', '{a@b.c}'::text\n);";
        assert!(brings_statistics(sql));
        let wanted = ("shop".to_owned(), "customer".to_owned());
        assert_eq!(relation_of_statistics(sql), Some(wanted));
        assert!(!brings_statistics(
            "SELECT pg_catalog.setval('pg_restore_x_stats', 1);"
        ));
    }
}

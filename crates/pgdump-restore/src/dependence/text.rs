//! Finds the rows of SQL text that depend on others, from the statements before them. There is no table of
//! contents: statements are recognized by their key words, and unknown ones are assumed to do anything.

use std::collections::{HashMap, HashSet};

use super::definition::{
    Default as ColumnDefault, Definition, default_of, expressions_of, relation,
};
use super::expressions::Functions;
use pgdump_archive::{Dialect, EntryKind, TocEntry, Token, copy_target, tokens};

/// A table that the text has created so far.
#[derive(Debug, Default)]
struct TextTable {
    /// Its rows run through code that may read other rows.
    reads: bool,
    /// Columns with a default that may depend on other rows, if a row has no value for them.
    defaults: HashSet<String>,
    /// It has a key before its rows are loaded: of two conflicting rows, the first stays.
    has_key: bool,
    /// Tables whose checks or partitions its rows run through, too.
    linked: HashSet<String>,
}

impl TextTable {
    /// Adds what a statement adds to the table.
    fn add(&mut self, more: TextTable) {
        self.reads |= more.reads;
        self.has_key |= more.has_key;
        self.defaults.extend(more.defaults);
        self.linked.extend(more.linked);
    }
}

/// What the statements so far have created.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    functions: Functions,
    /// Types and domains that call functions, without their schemas.
    types: HashSet<String>,
    tables: HashMap<String, TextTable>,
    /// The text creates operators or casts, which any expression may call.
    has_operators: bool,
    /// A statement may have created anything.
    is_unknown: bool,
}

/// A name as written, with its schema if it has one, in the form of [`Definitions`] and the catalog.
pub(super) fn stored_name(written: &str) -> Option<String> {
    relation(&tokens(written, Dialect::default())).map(|(name, _)| name)
}

/// Words that may precede the object kind after `CREATE`.
const ADJECTIVES: [&str; 12] = [
    "or",
    "replace",
    "unlogged",
    "temp",
    "temporary",
    "global",
    "local",
    "unique",
    "constraint",
    "trusted",
    "procedural",
    "recursive",
];

/// Kinds of objects that rows never run through.
const HARMLESS: [&str; 22] = [
    "access",
    "collation",
    "conversion",
    "database",
    "default",
    "event",
    "extension",
    "foreign",
    "group",
    "language",
    "materialized",
    "policy",
    "publication",
    "role",
    "schema",
    "sequence",
    "server",
    "statistics",
    "subscription",
    "text",
    "user",
    "view",
];

impl Definitions {
    /// Learns from a statement that precedes the rows asked for later.
    pub(crate) fn learn(&mut self, sql: &str) {
        let first = sql
            .trim_start()
            .split(|c: char| !c.is_ascii_alphabetic())
            .next()
            .unwrap_or_default();
        match first.to_ascii_lowercase().as_str() {
            "create" => self.create(&tokens(sql, Dialect::default())),
            "alter" => self.alter(&tokens(sql, Dialect::default())),
            "set" | "reset" | "select" => self.set_or_call(&tokens(sql, Dialect::default())),
            "do" | "call" | "execute" | "import" | "load" | "with" => self.is_unknown = true,
            _ => {}
        }
    }

    /// Whether the rows of `entry` depend on others. `by_pg_dump`: its INSERTs have all columns.
    pub(crate) fn rows_depend(&self, entry: &TocEntry, by_pg_dump: bool) -> bool {
        if entry.kind != EntryKind::TableData {
            return false;
        }
        let known = stored_name(&entry.tag).filter(|name| self.tables.contains_key(name));
        let Some(name) = known.filter(|_| !self.is_unknown) else {
            return true;
        };
        let is_insert = entry.copy_stmt.is_empty();
        self.reached_from(&name).into_iter().any(|table| {
            let Some(t) = self.tables.get(table) else {
                return true;
            };
            let fills = |column: &String| {
                if is_insert {
                    by_pg_dump
                } else {
                    has_column(&entry.copy_stmt, column)
                }
            };
            t.reads || (is_insert && t.has_key) || !t.defaults.iter().all(fills)
        })
    }

    /// A table and all tables linked with it.
    fn reached_from<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        let (mut found, mut at) = (vec![name], 0);
        let mut known = HashSet::from([name]);
        while let Some(table) = found.get(at).copied() {
            let linked = self.tables.get(table).into_iter().flat_map(|t| &t.linked);
            found.extend(linked.map(String::as_str).filter(|l| known.insert(l)));
            at += 1;
        }
        found
    }

    fn set_or_call(&mut self, t: &[Token<'_>]) {
        let words: Vec<String> = t
            .iter()
            .skip(1)
            .take(6)
            .map(|w| w.text.to_lowercase())
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["pg_catalog", ".", "set_config", "(", "'search_path'", ","] => {
                self.functions.is_path_empty = t.get(7).is_some_and(|w| w.text == "''");
            }
            ["pg_catalog", ".", call, ..]
                if *call == "setval" || *call == "set_config" || call.starts_with("lo") => {}
            ["search_path", ..] | ["session", "search_path", ..] | ["all", ..] => {
                self.functions.is_path_empty =
                    words.get(2) == Some(&"''") && words.get(3) == Some(&";");
            }
            // Statistics, from PostgreSQL 18 on.
            ["*", "from", "pg_catalog", ".", call, ..] if call.starts_with("pg_restore_") => {}
            _ if t[0].is("select") => self.is_unknown = true,
            _ => {}
        }
    }

    fn create(&mut self, t: &[Token<'_>]) {
        let kind = 1 + t
            .iter()
            .skip(1)
            .take_while(|w| ADJECTIVES.iter().any(|a| w.is(a)))
            .count();
        let Some(word) = t.get(kind).and_then(Token::name) else {
            return;
        };
        let rest = &t[kind + 1..];
        match word.as_str() {
            "table" => self.create_table(rest),
            "function" | "procedure" | "aggregate" => {
                self.functions.defined.extend(last_name(rest))
            }
            "domain" | "type" => self.create_type(rest),
            "operator" | "cast" | "transform" => self.has_operators = true,
            "trigger" | "rule" => self.reads_on(rest, "on", "to"),
            "index" => self.create_index(t, rest),
            word if HARMLESS.contains(&word) => {}
            _ => self.is_unknown = true,
        }
    }

    /// `… ON s.t …`, or `… TO s.t …` of a rule.
    fn reads_on(&mut self, t: &[Token<'_>], word: &str, other: &str) {
        let places = (0..t.len()).filter(|at| t[*at].is(word) || t[*at].is(other));
        for at in places {
            let name = relation(&t[at + 1..]).map(|(name, _)| name);
            if let Some(table) = name.and_then(|name| self.tables.get_mut(&name)) {
                table.reads = true;
                return;
            }
        }
        self.is_unknown = true;
    }

    fn create_table(&mut self, t: &[Token<'_>]) {
        let Some(definition) = Definition::of(t) else {
            return self.is_unknown = true;
        };
        let mut made = TextTable::default();
        for item in definition.items() {
            self.column(item, &mut made);
            if item.first().is_some_and(|w| w.is("like")) {
                let original = relation(&item[1..]);
                made.linked.extend(original.map(|(name, _)| name));
            }
        }
        made.reads |= self.any_reads(&definition.expressions()) || self.names_type(t);
        for parent in parents(definition.tail) {
            self.link(&definition.name, &parent, &mut made);
        }
        let table = self.tables.entry(definition.name).or_default();
        table.add(made);
    }

    /// Rows of a partition run through the key of its root, and rows of the root into its partitions.
    fn link(&mut self, child: &str, parent: &str, made: &mut TextTable) {
        made.linked.insert(parent.to_owned());
        if let Some(parent) = self.tables.get_mut(parent) {
            parent.linked.insert(child.to_owned());
        }
    }

    /// A column or constraint in the definition of a table or added to one.
    fn column(&self, item: &[Token<'_>], table: &mut TextTable) {
        let is_word = |words: &[&str]| item.iter().any(|w| words.iter().any(|x| w.is(x)));
        table.reads |= is_word(&["references", "exclude"]) || self.any_reads(&expressions_of(item));
        table.has_key |= is_word(&["primary", "unique"]);
        table.defaults.extend(
            default_of(item)
                .filter(|d| self.may_differ(d))
                .map(|d| d.column),
        );
    }

    fn may_differ(&self, default: &ColumnDefault<'_, '_>) -> bool {
        let is_counted =
            |w: &Token<'_>| w.is("identity") || w.text.to_lowercase().contains("serial");
        default.expression.iter().any(is_counted) || self.any_reads(&[default.expression])
    }

    fn any_reads(&self, expressions: &[&[Token<'_>]]) -> bool {
        let is_bare = |t: &&[Token<'_>]| t.len() > 2;
        (self.has_operators && expressions.iter().any(is_bare))
            || expressions
                .iter()
                .any(|t| self.functions.may_read(t) || self.names_type(t))
    }

    fn names_type(&self, t: &[Token<'_>]) -> bool {
        !self.types.is_empty()
            && t.iter()
                .filter_map(Token::name)
                .any(|name| self.types.contains(&name))
    }

    fn create_type(&mut self, t: &[Token<'_>]) {
        let check = t.iter().position(|w| w.is("check")).unwrap_or(t.len());
        // A base type or range type calls functions.
        let of_functions = ["input", "canonical"].iter().any(|word| {
            t.windows(2)
                .any(|pair| pair[0].is(word) && pair[1].is_symbol(b'='))
        });
        if of_functions || self.any_reads(&[&t[check..]]) || self.names_type(t) {
            self.types.extend(last_name(t));
        }
    }

    fn create_index(&mut self, t: &[Token<'_>], rest: &[Token<'_>]) {
        let Some(on) = rest.iter().position(|w| w.is("on")) else {
            return self.is_unknown = true;
        };
        let Some((name, what)) = relation(&rest[on + 1..]) else {
            return self.is_unknown = true;
        };
        let columns = what
            .iter()
            .position(|w| w.is_symbol(b'('))
            .map_or(&[][..], |at| &what[at..]);
        let reads = self.any_reads(&[columns]) && self.functions.may_read(columns);
        if let Some(table) = self.tables.get_mut(&name) {
            table.has_key |= t.iter().any(|w| w.is("unique"));
            table.reads |= reads;
        }
    }

    fn alter(&mut self, t: &[Token<'_>]) {
        match t.get(1).and_then(Token::name).as_deref() {
            Some("table") => self.alter_table(&t[2..]),
            Some("domain" | "type") => {
                let check = t
                    .iter()
                    .position(|w| w.is("check") || w.is("attribute"))
                    .unwrap_or(t.len());
                if self.any_reads(&[&t[check..]]) {
                    self.types.extend(last_name(&t[2..]));
                }
            }
            // The same type or function under another name.
            _ if t.iter().any(|w| w.is("rename")) => self.is_unknown = true,
            _ => {}
        }
    }

    fn alter_table(&mut self, t: &[Token<'_>]) {
        let Some((name, actions)) = relation(t) else {
            return self.is_unknown = true;
        };
        if has(actions, &["rename"]) || has(actions, &["set", "schema"]) {
            self.is_unknown = true;
        }
        let mut made = TextTable::default();
        self.column(actions, &mut made);
        made.reads |= has(actions, &["foreign", "key"]) || self.names_type(actions);
        made.defaults = self.altered_defaults(actions);
        self.attach(&name, actions, &mut made);
        // ALTER TABLE also applies to sequences and views.
        if let Some(table) = self.tables.get_mut(&name) {
            table.add(made);
        }
    }

    /// `ATTACH PARTITION child` or `INHERIT parent`
    fn attach(&mut self, name: &str, actions: &[Token<'_>], made: &mut TextTable) {
        if has(actions, &["attach", "partition"])
            && let Some((child, _)) = relation(&actions[2..])
        {
            let partition = self.tables.entry(child.clone()).or_default();
            partition.linked.insert(name.to_owned());
            made.linked.insert(child);
        }
        if has(actions, &["inherit"])
            && let Some((parent, _)) = relation(&actions[1..])
        {
            self.link(name, &parent, made);
        }
    }

    /// Columns that get a default: `ALTER [COLUMN] c SET DEFAULT …`, `ALTER c ADD GENERATED … AS IDENTITY`,
    /// `ADD [COLUMN] c type DEFAULT …`
    fn altered_defaults(&self, actions: &[Token<'_>]) -> HashSet<String> {
        let starts = actions
            .iter()
            .enumerate()
            .filter(|(_, w)| w.is("alter") || w.is("add"));
        let column = |(i, _): (usize, &Token<'_>)| {
            let rest = actions.get(i + 1..)?;
            let rest = if rest.first()?.is("column") {
                &rest[1..]
            } else {
                rest
            };
            let (name, _) = relation(rest)?;
            let default = default_of(rest).filter(|d| self.may_differ(d))?;
            (!name.contains('.')).then_some(default.column)
        };
        starts.filter_map(column).collect()
    }
}

/// Whether these words follow each other somewhere.
fn has(t: &[Token<'_>], words: &[&str]) -> bool {
    let is_there = |w: &[Token<'_>]| words.iter().zip(w).all(|(word, w)| w.is(word));
    t.windows(words.len()).any(is_there)
}

/// The tables that a new one inherits from or is a partition of: `INHERITS (a, b)`, `PARTITION OF a`.
fn parents(tail: &[Token<'_>]) -> Vec<String> {
    let places = (0..tail.len()).filter(|i| tail[*i].is("of") || tail[*i].is("inherits"));
    places.flat_map(|i| names(&tail[i + 1..])).collect()
}

/// The last part of a qualified name, as the catalog stores it.
fn last_name(t: &[Token<'_>]) -> Option<String> {
    let at = if t.get(1).is_some_and(|d| d.is_symbol(b'.')) {
        2
    } else {
        0
    };
    t.get(at).and_then(Token::name)
}

/// Names of relations at the start, with or without parentheses, separated by commas.
fn names(t: &[Token<'_>]) -> Vec<String> {
    let mut rest = if t.first().is_some_and(|w| w.is_symbol(b'(')) {
        &t[1..]
    } else {
        t
    };
    let mut found = vec![];
    while let Some((name, after)) = relation(rest) {
        found.push(name);
        match after.first() {
            Some(w) if w.is_symbol(b',') => rest = &after[1..],
            _ => break,
        }
    }
    found
}

/// Whether a COPY has values for this column.
fn has_column(copy: &str, column: &str) -> bool {
    let Some((_, Some(columns))) = copy_target(copy) else {
        return true;
    };
    tokens(&columns, Dialect::default())
        .iter()
        .any(|w| w.name().as_deref() == Some(column))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables of the text whose rows depend on others if they are copied with all columns.
    fn dependent(sql: &str, tables: &[&str]) -> Vec<String> {
        let mut definitions = Definitions::default();
        let path = "SELECT pg_catalog.set_config('search_path', '', false);";
        pgdump_archive::statements(&format!("{path}{sql}"), Dialect::default())
            .into_iter()
            .for_each(|statement| definitions.learn(statement));
        let depends = |table: &&&str| {
            let copy_stmt = format!("COPY {table} FROM stdin;");
            definitions.rows_depend(
                &TocEntry {
                    copy_stmt,
                    ..TocEntry::bare(1, "TABLE DATA", table)
                },
                true,
            )
        };
        tables
            .iter()
            .filter(depends)
            .map(|t| (*t).to_owned())
            .collect()
    }

    #[test]
    fn rows_that_run_code_of_the_text_are_dependent() {
        let function =
            "CREATE FUNCTION s.f(p integer) RETURNS boolean LANGUAGE sql AS 'select true';";
        for sql in [
            "CREATE TABLE s.t (v integer, CONSTRAINT c CHECK (s.f(v)));",
            "CREATE TABLE s.t (v integer, l text GENERATED ALWAYS AS (s.f(v)) STORED);",
            "CREATE TABLE s.t (v integer); ALTER TABLE s.t ADD CONSTRAINT c CHECK (s.f(v));",
            "CREATE TABLE s.t (v integer); ALTER TABLE ONLY s.t ADD COLUMN w boolean GENERATED ALWAYS AS (s.f(v)) STORED;",
            "CREATE DOMAIN s.d AS integer CONSTRAINT c CHECK (s.f(VALUE)); CREATE TABLE s.t (v s.d);",
            "CREATE DOMAIN s.d AS integer; ALTER DOMAIN s.d ADD CHECK (s.f(VALUE)); CREATE TABLE s.t (v s.d[]);",
            "CREATE DOMAIN s.d AS integer CHECK (s.f(VALUE)); CREATE TYPE s.c AS (a s.d); CREATE TABLE s.t (v s.c);",
            "CREATE OPERATOR s.=== (FUNCTION = s.f); CREATE TABLE s.t (v integer CHECK (v OPERATOR(s.===) 3));",
            "CREATE CAST (integer AS s.c) WITH FUNCTION s.f(integer); CREATE TABLE s.t (v integer CHECK (v::s.c > 3));",
            "CREATE TABLE s.t (v integer) PARTITION BY RANGE (s.f(v));",
            "CREATE TABLE s.r (v integer) PARTITION BY RANGE (s.f(v)); CREATE TABLE s.t (v integer); \
             ALTER TABLE ONLY s.r ATTACH PARTITION s.t FOR VALUES FROM (0) TO (9);",
            "CREATE TABLE s.t (v integer) PARTITION BY RANGE (v); CREATE TABLE s.p (v integer CHECK (s.f(v))); \
             ALTER TABLE ONLY s.t ATTACH PARTITION s.p DEFAULT;",
            "CREATE TABLE s.r (v integer CHECK (s.f(v))); CREATE TABLE s.t (w integer) INHERITS (s.r);",
            "CREATE TABLE s.t (v integer); CREATE TRIGGER g BEFORE INSERT ON s.t FOR EACH ROW EXECUTE FUNCTION s.g();",
            "CREATE TABLE s.t (v integer); CREATE RULE g AS ON INSERT TO s.t DO ALSO NOTHING;",
            "CREATE TABLE s.t (v integer); ALTER TABLE ONLY s.t ADD CONSTRAINT k FOREIGN KEY (v) REFERENCES s.r(v);",
            "CREATE TABLE s.t (v integer REFERENCES s.r);",
            "CREATE TABLE s.t (v integer); CREATE INDEX i ON s.t USING btree (s.f(v));",
            "CREATE TABLE s.t (v integer); DO $$ BEGIN END $$;",
            "CREATE TABLE s.t (v integer); SELECT create_hypertable('s.t', 'v');",
            "CREATE TABLE s.t (v integer CHECK (public.of_an_extension(v)));",
            "CREATE TABLE s.old (v integer); ALTER TABLE s.old RENAME TO t;",
        ] {
            assert_eq!(
                dependent(&format!("{function}{sql}"), &["s.t"]),
                ["s.t"],
                "{sql}"
            );
        }
    }

    #[test]
    fn rows_of_ordinary_tables_are_independent() {
        let sql = "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public; COMMENT ON EXTENSION citext IS 'x';
            CREATE TYPE s.mood AS ENUM ('a', 'b'); ALTER TYPE s.mood OWNER TO x;
            CREATE DOMAIN s.positive AS integer CONSTRAINT c CHECK ((VALUE > 0));
            CREATE FUNCTION s.next_id() RETURNS text LANGUAGE sql AS $_$ SELECT 'x'; $_$;
            CREATE TABLE s.t (id text DEFAULT s.next_id() NOT NULL, n bigint DEFAULT nextval('s.q'::regclass),
                g public.geometry(Point,4326), m s.mood, p s.positive, f numeric(10,2) DEFAULT 0.5,
                l tsvector GENERATED ALWAYS AS (to_tsvector('english'::regconfig, id)) STORED,
                CONSTRAINT c CHECK (((p)::integer > 0) AND (lower(id) <> 'x'::text)));
            ALTER TABLE s.t OWNER TO x;
            ALTER TABLE s.t ALTER COLUMN n ADD GENERATED BY DEFAULT AS IDENTITY (SEQUENCE NAME s.q START WITH 1);
            CREATE SEQUENCE s.q START WITH 1; ALTER TABLE s.q OWNER TO x;
            CREATE TABLE s.r (v integer) PARTITION BY RANGE (v);
            CREATE TABLE s.p (v integer);
            ALTER TABLE ONLY s.r ATTACH PARTITION s.p FOR VALUES FROM (0) TO (9);
            CREATE VIEW s.v AS SELECT s.next_id() AS id; GRANT ALL ON TABLE s.t TO x;
            SELECT pg_catalog.lo_create('12'); SET default_tablespace = '';";
        assert_eq!(dependent(sql, &["s.t", "s.r", "s.p"]), [""; 0]);
        assert_eq!(
            dependent(sql, &["s.other"]),
            ["s.other"],
            "an unknown table"
        );
    }

    #[test]
    fn defaults_count_if_a_row_has_no_value() {
        let mut definitions = Definitions::default();
        definitions.learn("CREATE TABLE t (id serial, \"V\" int DEFAULT 3, k int PRIMARY KEY);");
        let depends = |copy: &str, by_pg_dump| {
            let entry = TocEntry {
                copy_stmt: copy.to_owned(),
                ..TocEntry::bare(1, "TABLE DATA", "t")
            };
            definitions.rows_depend(&entry, by_pg_dump)
        };
        assert!(!depends("COPY t (id, \"V\") FROM stdin;", false));
        assert!(!depends("COPY t (id) FROM stdin;", false), "a constant");
        assert!(depends("COPY t (\"V\", k) FROM stdin;", false));
        assert!(
            depends("", true),
            "of two rows with one key, the first stays"
        );
        definitions.learn("CREATE TABLE u (id serial);");
        let of_u = TocEntry::bare(1, "TABLE DATA", "u");
        assert_eq!(
            [true, false].map(|by| definitions.rows_depend(&of_u, by)),
            [false, true]
        );
    }
}

//! What masking rules have to know of tables: columns, types, keys, labels and parents, from the statements that define
//! them. Pure.

mod statements;

pub(crate) use self::statements::{attached_table, labelled_table};

use std::collections::{HashMap, HashSet};

use pgdump_archive::{Dialect, EntryKind, TocEntry};
use pgdump_mask::{ColumnShape, TableShape};

/// Schema and name, as the catalog has them.
type Name = (String, String);

/// Most domains that are based on each other, and most generations of parents.
const MAX_DEPTH: usize = 32;
/// Most columns that PostgreSQL lets a table have.
const MAX_COLUMNS: usize = 1600;

/// The shapes of the tables that these entries define, by schema and name. Generated columns are in them, too: see
/// [`shape_for_copy`].
pub fn table_shapes(entries: &[TocEntry]) -> HashMap<(String, String), TableShape> {
    TableDefinitions::of(entries).shapes()
}

/// The shape of a table with the columns of a COPY in their order; `None`: all of the table's. What the backup does not
/// define is unknown: a table of a backup without definitions has columns without types.
pub fn shape_for_copy(
    shapes: &HashMap<(String, String), TableShape>,
    schema: &str,
    table: &str,
    copy_columns: Option<&[String]>,
) -> TableShape {
    let name = (schema.to_owned(), table.to_owned());
    let known = shapes.get(&name);
    let mut shape = known.cloned().unwrap_or_else(|| unknown_shape(&name));
    if let Some(columns) = copy_columns {
        shape.columns = in_order_of(&shape.columns, columns);
    }
    shape
}

fn unknown_shape((schema, table): &Name) -> TableShape {
    TableShape {
        schema: schema.clone(),
        table: table.clone(),
        columns: vec![],
        parents: vec![],
    }
}

/// The columns of these names; an unknown one has no type.
pub(crate) fn in_order_of(known: &[ColumnShape], names: &[String]) -> Vec<ColumnShape> {
    let find = |name: &String| known.iter().find(|c| c.name == *name).cloned();
    let unknown = |name: &String| ColumnShape {
        name: name.clone(),
        sql_type: String::new(),
        not_null: false,
        unique: false,
        is_key: false,
        one_null: false,
        label: None,
    };
    let shapes = names.iter();
    shapes
        .map(|name| find(name).unwrap_or_else(|| unknown(name)))
        .collect()
}

/// A column as its table or type declares it.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    sql_type: String,
    /// The type if it is named with or without a schema, to find a domain.
    type_name: Option<Name>,
    not_null: bool,
    is_generated: bool,
}

/// What one table, or one composite type, declares.
#[derive(Debug, Clone, Default)]
struct Declared {
    /// Its own columns.
    columns: Vec<Column>,
    /// Tables and types whose columns come before its own: parents in its own definition, LIKE, OF.
    columns_of: Vec<Name>,
    /// Parents of a partition or an inheriting table.
    parents: Vec<Name>,
    /// Some columns, or their order, are unknown: the table was made from a query, or altered in a way that is not followed.
    is_incomplete: bool,
    is_partitioned: bool,
    is_type: bool,
}

/// A column that a row of an INSERT has a value for, or `DEFAULT` if the column is generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowColumn {
    pub(crate) name: String,
    pub(crate) is_generated: bool,
}

/// What later statements add to the columns of a table.
#[derive(Debug, Clone, Default)]
struct Added {
    not_null: HashSet<String>,
    /// Columns of which an index or key has values, or expressions of them, once.
    unique: HashSet<String>,
    /// Those that an index or key has by themselves, of all rows.
    keys: HashSet<String>,
    /// Those of which only one row may be NULL.
    one_null: HashSet<String>,
    labels: HashMap<String, String>,
}

impl Added {
    fn merge(&mut self, other: Added) {
        self.not_null.extend(other.not_null);
        self.unique.extend(other.unique);
        self.keys.extend(other.keys);
        self.one_null.extend(other.one_null);
        self.labels.extend(other.labels);
    }
}

#[derive(Debug)]
struct DomainType {
    base: String,
    base_name: Option<Name>,
    not_null: bool,
}

/// The definitions of a backup so far, as far as they concern the columns of tables.
#[derive(Debug, Default)]
pub(crate) struct TableDefinitions {
    tables: HashMap<Name, Declared>,
    added: HashMap<Name, Added>,
    /// Domains, and types of their own.
    domains: HashMap<Name, DomainType>,
    /// Tables that others are partitions or children of.
    with_children: HashSet<Name>,
    /// Relations that are no tables with rows of their own.
    views: HashSet<Name>,
    schemas: HashSet<String>,
    has_extensions: bool,
    /// A statement has named a table without its schema, and none was given for such names.
    is_unplaced: bool,
}

impl TableDefinitions {
    pub(crate) fn of(entries: &[TocEntry]) -> Self {
        let mut all = TableDefinitions::default();
        for entry in entries.iter().filter(|e| concerns_columns(&e.kind)) {
            let schema = entry.namespace.as_deref().unwrap_or_default();
            for sql in pgdump_archive::statements(&entry.defn, Dialect::default()) {
                all.learn(sql, schema);
            }
        }
        all
    }

    /// All shapes, by schema and name.
    pub(crate) fn shapes(&self) -> HashMap<Name, TableShape> {
        let tables = self.tables.iter().filter(|(_, declared)| !declared.is_type);
        tables
            .filter_map(|(name, _)| Some((name.clone(), self.shape(name)?)))
            .collect()
    }

    /// The shape of a table; `None` if nothing defines it.
    pub(crate) fn shape(&self, name: &Name) -> Option<TableShape> {
        self.tables.get(name)?;
        let parents = self.ancestors(name);
        let columns = self.columns(name);
        let shapes = columns.iter().map(|c| self.column(name, &parents, c));
        Some(TableShape {
            schema: name.0.clone(),
            table: name.1.clone(),
            columns: shapes.collect(),
            parents,
        })
    }

    /// Whether all columns of a table are known, in their order.
    pub(crate) fn is_complete(&self, name: &Name) -> bool {
        self.lineage(name).is_some_and(|tables| {
            let mut tables = tables.iter();
            tables.all(|t| !t.is_incomplete)
        })
    }

    /// A table after all those that it has columns of; `None` if one of them is not known, or there are too many.
    fn lineage<'a>(&'a self, name: &'a Name) -> Option<Vec<&'a Declared>> {
        let (mut found, mut seen) = (vec![], HashSet::new());
        self.add_lineage(name, MAX_DEPTH, &mut seen, &mut found)?;
        Some(found)
    }

    fn add_lineage<'a>(
        &'a self,
        name: &'a Name,
        depth: usize,
        seen: &mut HashSet<&'a Name>,
        found: &mut Vec<&'a Declared>,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        if !seen.insert(name) {
            return Some(());
        }
        let declared = self.tables.get(name)?;
        for other in &declared.columns_of {
            self.add_lineage(other, depth, seen, found)?;
        }
        found.push(declared);
        Some(())
    }

    /// Whether a statement has created this table.
    pub(crate) fn knows(&self, name: &Name) -> bool {
        self.tables.get(name).is_some_and(|t| !t.is_type)
    }

    /// Whether a statement has created a view of this name.
    pub(crate) fn is_view(&self, name: &Name) -> bool {
        self.views.contains(name)
    }

    /// Whether no statement has created a table.
    pub(crate) fn has_no_tables(&self) -> bool {
        self.names().next().is_none()
    }

    /// Whether extensions may have created tables.
    pub(crate) fn has_extensions(&self) -> bool {
        self.has_extensions
    }

    /// Whether a statement has created a schema.
    pub(crate) fn has_own_schemas(&self) -> bool {
        self.schemas.iter().any(|schema| schema != "public")
    }

    /// Whether a statement since the last call has named a table without its schema although `schema` was empty.
    pub(crate) fn take_unplaced(&mut self) -> bool {
        std::mem::take(&mut self.is_unplaced)
    }

    /// The label of a column, also of one that no statement has declared.
    pub(crate) fn label(&self, table: &Name, column: &str) -> Option<String> {
        let parents = self.ancestors(table);
        let mut added = std::iter::once(table).chain(&parents);
        added.find_map(|name| self.added.get(name)?.labels.get(column).cloned())
    }

    /// Whether a column of a table has a label.
    pub(crate) fn has_labels(&self, table: &Name) -> bool {
        let parents = self.ancestors(table);
        let mut added = std::iter::once(table).chain(&parents);
        added.any(|name| self.added.get(name).is_some_and(|a| !a.labels.is_empty()))
    }

    /// Whether rows that are written to a table go to its partitions.
    pub(crate) fn is_partitioned(&self, name: &Name) -> bool {
        self.tables.get(name).is_some_and(|t| t.is_partitioned)
    }

    /// Partitions and children, theirs, and so on.
    pub(crate) fn descendants(&self, name: &Name) -> Vec<Name> {
        if !self.has_children(name) {
            return vec![];
        }
        let below = self.names().filter(|n| self.ancestors(n).contains(name));
        below.cloned().collect()
    }

    /// Whether other tables are partitions or children of this one.
    pub(crate) fn has_children(&self, name: &Name) -> bool {
        self.with_children.contains(name)
    }

    /// All tables, by schema and name.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        let tables = self.tables.iter().filter(|(_, t)| !t.is_type);
        tables.map(|(name, _)| name)
    }

    /// The columns that the values of an INSERT without a list of columns are for.
    pub(crate) fn row_columns(&self, name: &Name) -> Vec<RowColumn> {
        let columns = self.columns(name).into_iter();
        let row_column = |c: Column| RowColumn {
            name: c.name,
            is_generated: c.is_generated,
        };
        columns.map(row_column).collect()
    }

    fn column(&self, table: &Name, parents: &[Name], column: &Column) -> ColumnShape {
        let (sql_type, not_null_domain) = self.base_type(column);
        let own = self.added.get(table);
        let of_parents = || parents.iter().filter_map(|p| self.added.get(p));
        let label = |a: &Added| a.labels.get(&column.name).cloned();
        // An index of a partitioned table has a part on each partition, which the partition's own statements define unless the
        // text was written by hand.
        let is_in = |set: fn(&Added) -> &HashSet<String>| {
            let mut all = own.into_iter().chain(of_parents());
            all.any(|a| set(a).contains(&column.name))
        };
        ColumnShape {
            name: column.name.clone(),
            sql_type,
            not_null: column.not_null || not_null_domain || is_in(|a| &a.not_null),
            unique: is_in(|a| &a.unique),
            // Children have no keys of their parents.
            is_key: own.is_some_and(|a| a.keys.contains(&column.name)),
            one_null: is_in(|a| &a.one_null),
            label: own.and_then(label).or_else(|| of_parents().find_map(label)),
        }
    }

    /// The type of a column, with domains replaced by what they are based on, and whether a domain rejects NULL.
    fn base_type(&self, column: &Column) -> (String, bool) {
        let (mut written, mut not_null) = (column.sql_type.clone(), false);
        let mut name = column.type_name.as_ref();
        for _ in 0..MAX_DEPTH {
            let Some(domain) = name.and_then(|n| self.domains.get(n)) else {
                break;
            };
            written.clone_from(&domain.base);
            not_null |= domain.not_null;
            name = domain.base_name.as_ref();
        }
        (written, not_null)
    }

    /// Parents, their parents, and so on.
    fn ancestors(&self, name: &Name) -> Vec<Name> {
        let mut seen = HashSet::from([name]);
        let (mut found, mut next) = (vec![], vec![name]);
        for _ in 0..MAX_DEPTH {
            let declared = next.iter().filter_map(|n| self.tables.get(*n));
            let parents = declared.flat_map(|t| &t.parents);
            next = parents.filter(|p| seen.insert(*p)).collect();
            found.extend(next.iter().map(|n| (*n).clone()));
        }
        found
    }

    /// All columns in the order of the table: those that it has from others come first.
    fn columns(&self, name: &Name) -> Vec<Column> {
        let lineage = self.lineage(name);
        let lineage = lineage.unwrap_or_else(|| self.tables.get(name).into_iter().collect());
        let mut all: Vec<Column> = vec![];
        for column in lineage.iter().flat_map(|t| &t.columns) {
            match all.iter_mut().find(|known| known.name == column.name) {
                Some(known) => known.merge(column.clone()),
                None => all.push(column.clone()),
            }
        }
        all
    }
}

impl Column {
    /// The column of a parent, which its child declares again. A partition may do so without the type.
    fn merge(&mut self, own: Column) {
        self.not_null |= own.not_null;
        self.is_generated |= own.is_generated;
        if !own.sql_type.is_empty() {
            (self.sql_type, self.type_name) = (own.sql_type, own.type_name);
        }
    }
}

fn concerns_columns(kind: &EntryKind) -> bool {
    matches!(
        kind,
        EntryKind::Table
            | EntryKind::ForeignTable
            | EntryKind::TableAttach
            | EntryKind::Type
            | EntryKind::Domain
            | EntryKind::Constraint
            | EntryKind::Index
            | EntryKind::SecurityLabel
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(table: &str) -> Name {
        ("shop".to_owned(), table.to_owned())
    }

    fn learned(sql: &[&str]) -> TableDefinitions {
        let mut all = TableDefinitions::default();
        for sql in sql {
            all.learn(sql, "shop");
        }
        all
    }

    /// Columns as `name type`, with `!` if they are not null and `*` if they are unique.
    fn shown(all: &TableDefinitions, table: &str) -> Vec<String> {
        let shape = all.shape(&name(table)).unwrap();
        let columns = shape.columns.iter();
        columns
            .map(|c| {
                let not_null = if c.not_null { "!" } else { "" };
                let unique = if c.unique { "*" } else { "" };
                format!("{} {}{not_null}{unique}", c.name, c.sql_type)
            })
            .collect()
    }

    #[test]
    fn columns_and_keys_of_a_table_are_read() {
        let all = learned(&[
            "CREATE DOMAIN shop.mail AS character varying(40) NOT NULL;",
            "CREATE TYPE shop.mood AS ENUM ('a', 'b');",
            "CREATE TYPE shop.times AS RANGE (subtype = time);",
            "CREATE TYPE shop.pair AS (a integer, b text);",
            "CREATE DOMAIN shop.temper AS shop.mood;",
            "CREATE TABLE shop.felt (a shop.mood, b shop.temper NOT NULL, c mood, d shop.times, e shop.pair, f other.mood);",
            "CREATE UNLOGGED TABLE shop.customer (\n    id bigint DEFAULT nextval('shop.q'::regclass) NOT NULL,\n    \
             \"E, mail\" shop.mail,\n    price numeric(8,2) DEFAULT (1 + 2),\n    tags text[] COLLATE \"C\",\n    \
             at timestamp with time zone DEFAULT now(),\n    \
             low text GENERATED ALWAYS AS (lower((code)::text)) STORED,\n    code text,\n    \
             CONSTRAINT c CHECK ((price > 0))\n)\nWITH (fillfactor='70');",
            "ALTER TABLE ONLY shop.customer\n    ADD CONSTRAINT customer_pkey PRIMARY KEY (id);",
            "ALTER TABLE ONLY shop.customer\n    ADD CONSTRAINT two UNIQUE (price, tags);",
            "CREATE UNIQUE INDEX low ON shop.customer USING btree (lower((code)::text)) WHERE (price > 1);",
        ]);
        let wanted = [
            "id bigint!*",
            "E, mail character varying(40)!",
            "price numeric(8,2)",
            "tags text[]",
            "at timestamp with time zone",
            "low text",
            "code text*",
        ];
        let wanted_types = [
            "a enum",
            "b enum!",
            "c enum",
            "d range",
            "e composite type",
            "f other.mood",
        ];
        assert_eq!(shown(&all, "felt"), wanted_types);
        // `lower` is a function here, and the name of no column.
        assert_eq!(shown(&all, "customer"), wanted);
        assert!(all.is_complete(&name("customer")));
        let generated = all.row_columns(&name("customer")).into_iter();
        let generated: Vec<bool> = generated.map(|c| c.is_generated).collect();
        assert_eq!(generated, [false, false, false, false, false, true, false]);
        let copied = ["code".to_owned(), "gone".to_owned(), "id".to_owned()];
        let shape = shape_for_copy(&all.shapes(), "shop", "customer", Some(&copied));
        let types: Vec<&str> = shape.columns.iter().map(|c| c.sql_type.as_str()).collect();
        assert_eq!(types, ["text", "", "bigint"]);
        let unknown = shape_for_copy(&all.shapes(), "other", "t", Some(&copied));
        assert_eq!(
            (unknown.schema.as_str(), unknown.columns.len()),
            ("other", 3)
        );
    }

    #[test]
    fn partitions_and_children_have_the_columns_of_their_parents() {
        let all = learned(&[
            "CREATE TABLE shop.root (id integer NOT NULL, at date) PARTITION BY RANGE (at);",
            "CREATE TABLE shop.p1 (at date, id integer NOT NULL);",
            "ALTER TABLE ONLY shop.root ATTACH PARTITION shop.p1 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');",
            "CREATE TABLE shop.p2 PARTITION OF shop.root DEFAULT;",
            "CREATE TABLE shop.child (extra text, CONSTRAINT n NOT NULL at) INHERITS (shop.root);",
            "CREATE TYPE shop.pair AS (a integer, b character varying(3));",
            "CREATE TABLE shop.typed OF shop.pair (a WITH OPTIONS NOT NULL, PRIMARY KEY (b));",
            "CREATE TABLE shop.twin (LIKE shop.pair INCLUDING ALL, c uuid UNIQUE);",
            "CREATE TABLE shop.made AS SELECT 1;",
        ]);
        assert_eq!(shown(&all, "p1"), ["at date", "id integer!"]);
        assert_eq!(shown(&all, "p2"), ["id integer!", "at date"]);
        assert_eq!(
            shown(&all, "child"),
            ["id integer!", "at date!", "extra text"]
        );
        assert_eq!(
            shown(&all, "typed"),
            ["a integer!", "b character varying(3)!*"]
        );
        assert_eq!(
            shown(&all, "twin"),
            ["a integer", "b character varying(3)", "c uuid*"]
        );
        assert!(all.has_children(&name("root")) && !all.has_children(&name("p1")));
        for child in ["p1", "p2", "child"] {
            let shape = all.shape(&name(child)).unwrap();
            assert_eq!(shape.parents, [name("root")], "{child}");
        }
        assert!(all.is_complete(&name("twin")) && !all.is_complete(&name("made")));
        assert!(!all.shapes().contains_key(&name("pair")));
    }

    #[test]
    fn tables_that_inherit_from_each_other_in_many_ways_take_no_time() {
        let mut all = learned(&["CREATE TABLE a0 (x int);", "CREATE TABLE b0 (y int);"]);
        for i in 1..30 {
            let before = i - 1;
            for t in ["a", "b"] {
                let sql =
                    format!("CREATE TABLE {t}{i} () INHERITS (a{before}, b{before}, a{before});");
                all.learn(&sql, "shop");
            }
        }
        assert_eq!(shown(&all, "a29"), ["x int", "y int"]);
        assert_eq!(all.shape(&name("a29")).unwrap().parents.len(), 58);
        // A circle is nothing that a server would take.
        all.learn("ALTER TABLE a0 INHERIT a29;", "shop");
        assert_eq!(all.shape(&name("a0")).unwrap().parents.len(), 58);
    }

    #[test]
    fn labels_and_alterations_are_read() {
        let all = learned(&[
            "CREATE TABLE t (a text, b text);",
            "ALTER TABLE t ADD COLUMN c character(3) NOT NULL, ALTER COLUMN a SET NOT NULL;",
            "SECURITY LABEL FOR anon ON COLUMN shop.t.a IS 'MASKED WITH FUNCTION anon.fake_email()';",
            "SECURITY LABEL FOR other ON COLUMN shop.t.b IS 'x';",
            "SECURITY LABEL FOR anon ON TABLE shop.t IS 'x';",
        ]);
        assert_eq!(shown(&all, "t"), ["a text!", "b text", "c character(3)!"]);
        let shape = all.shape(&name("t")).unwrap();
        let labels: Vec<Option<&str>> = shape.columns.iter().map(|c| c.label.as_deref()).collect();
        let label = Some("MASKED WITH FUNCTION anon.fake_email()");
        assert_eq!(labels, [label, None, None]);
        assert!(all.knows(&name("t")) && !all.knows(&name("u")));
        let mut changed = all;
        changed.learn("ALTER TABLE t RENAME COLUMN a TO z;", "shop");
        assert!(!changed.is_complete(&name("t")));
    }

    #[test]
    fn columns_whose_order_is_not_that_of_the_server_are_not_known() {
        let all = learned(&[
            "CREATE TABLE pair (x int, y int);",
            "CREATE TABLE first (LIKE pair, a text);",
            "CREATE TABLE last (a text, LIKE pair);",
            "CREATE TABLE heir (LIKE pair, a text) INHERITS (last);",
            "CREATE TABLE root (a text);",
            "CREATE TABLE child (b text) INHERITS (root);",
            "CREATE TABLE grandchild (c text) INHERITS (child);",
            "ALTER TABLE root ADD COLUMN z text;",
            "CREATE TABLE twice (a text, b text);",
            "CREATE TABLE IF NOT EXISTS twice (b text, a text);",
            "CREATE TABLE added (a text, b text);",
            "ALTER TABLE added ADD COLUMN IF NOT EXISTS a text;",
            "CREATE TABLE source (a text);",
            "CREATE TABLE copied (LIKE source, b text);",
            "ALTER TABLE source ADD c text;",
        ]);
        for (table, is_complete) in [
            ("first", true),
            ("last", false),
            ("heir", false),
            ("root", true),
            ("child", false),
            ("grandchild", false),
            ("twice", false),
            ("added", false),
            ("source", true),
            ("copied", false),
        ] {
            assert_eq!(all.is_complete(&name(table)), is_complete, "{table}");
        }
        assert_eq!(shown(&all, "twice"), ["a text", "b text"]);
    }

    #[test]
    fn columns_that_go_away_leave_their_order_in_doubt() {
        let defined = [
            "CREATE TYPE shop.kind AS (a text, b text);",
            "CREATE TABLE shop.typed OF shop.kind;",
            "CREATE TABLE shop.t (a text, b text, CONSTRAINT c CHECK (true));",
        ];
        for (sql, table, is_complete) in [
            ("ALTER TABLE shop.t DROP COLUMN a;", "t", false),
            ("ALTER TABLE shop.t DROP a;", "t", false),
            ("ALTER TABLE shop.t DROP IF EXISTS a CASCADE;", "t", false),
            ("ALTER TABLE shop.t * DROP COLUMN a;", "t", false),
            ("ALTER TABLE ONLY (shop.t) DROP COLUMN a;", "t", false),
            ("ALTER VIEW shop.t RENAME COLUMN a TO c;", "t", false),
            ("ALTER TABLE shop.t DROP CONSTRAINT c;", "t", true),
            (
                "ALTER TYPE shop.kind DROP ATTRIBUTE a CASCADE;",
                "typed",
                false,
            ),
            ("ALTER TYPE shop.kind OWNER TO app;", "typed", true),
        ] {
            let all = learned(&[&defined[..], &[sql]].concat());
            assert_eq!(all.is_complete(&name(table)), is_complete, "{sql}");
        }
    }

    #[test]
    fn a_column_may_be_called_exclude() {
        let all = learned(&[
            "CREATE TABLE shop.t (exclude text, b int4range, EXCLUDE USING gist (b WITH &&));",
            "CREATE TABLE shop.u (a text);",
            "ALTER TABLE shop.u ADD exclude boolean;",
        ]);
        assert_eq!(shown(&all, "t"), ["exclude text", "b int4range"]);
        assert_eq!(shown(&all, "u"), ["a text", "exclude boolean"]);
    }

    #[test]
    fn an_index_of_some_rows_or_of_an_expression_is_no_key() {
        let all = learned(&[
            "CREATE TABLE t (a int PRIMARY KEY, b text UNIQUE NULLS NOT DISTINCT, c text, d text, e text, f text, g text, h text, \
             i text, EXCLUDE USING gist (i WITH =, h WITH &&));",
            "ALTER TABLE ONLY t ADD CONSTRAINT k UNIQUE (c);",
            "ALTER TABLE ONLY t ADD CONSTRAINT k EXCLUDE USING gist (h gist_text_ops WITH =) WHERE (d IS NULL);",
            "CREATE UNIQUE INDEX i ON t USING btree (lower(d));",
            "CREATE UNIQUE INDEX i ON t USING btree (e) WHERE (d IS NULL);",
            "CREATE UNIQUE INDEX i ON t USING btree (f text_pattern_ops) INCLUDE (d) NULLS NOT DISTINCT;",
            "ALTER TABLE ONLY t ADD CONSTRAINT k UNIQUE NULLS NOT DISTINCT (g);",
        ]);
        let shape = all.shape(&name("t")).unwrap();
        let columns = |is: fn(&ColumnShape) -> bool| -> String {
            let columns = shape.columns.iter().filter(|c| is(c));
            columns.map(|c| c.name.as_str()).collect()
        };
        assert_eq!(columns(|c| c.unique), "abcdefgh");
        assert_eq!(columns(|c| c.is_key), "abcfg");
        assert_eq!(columns(|c| c.one_null), "bfg");
    }

    #[test]
    fn labels_stay_with_their_columns() {
        let all = learned(&[
            "CREATE TABLE t (a text, b text);",
            "SECURITY LABEL ON COLUMN t.a IS 'MASKED WITH VALUE NULL';",
            "SECURITY LABEL FOR devtests ON COLUMN t.b IS 'masked  with value ''x''';",
            "ALTER TABLE t RENAME a TO c;",
            "SECURITY LABEL FOR anon ON COLUMN u.d IS 'MASKED WITH VALUE NULL';",
            "CREATE TABLE part (d text);",
            "ALTER TABLE u ATTACH PARTITION part DEFAULT;",
        ]);
        let label = |table: &str, column: &str| all.label(&name(table), column);
        assert_eq!(label("t", "c").as_deref(), Some("MASKED WITH VALUE NULL"));
        assert_eq!(label("t", "a"), None);
        // The rules know no such label, so that the column needs one of its own.
        assert!(label("t", "b").is_some_and(|l| l.starts_with("provider devtests: ")));
        assert!(label("part", "d").is_some() && all.has_labels(&name("part")));
        assert!(!all.has_labels(&name("pair")));
        for (sql, attached) in [
            ("ALTER TABLE ONLY u ATTACH PARTITION t DEFAULT;", Some("t")),
            ("ALTER TABLE t NO INHERIT u, INHERIT part;", Some("t")),
            ("ALTER TABLE t ADD inherit text;", None),
            ("ALTER INDEX u ATTACH PARTITION t;", None),
        ] {
            assert_eq!(attached_table(sql, "shop"), attached.map(name), "{sql}");
        }
        let sql = "SECURITY LABEL FOR anon ON COLUMN t.a IS 'x'";
        let labelled = |schema: &str| labelled_table(sql, schema);
        assert_eq!(labelled("shop"), Some(name("t")));
        let mut unplaced = TableDefinitions::default();
        unplaced.learn(sql, "");
        assert!(unplaced.take_unplaced() && !unplaced.take_unplaced());
    }

    #[test]
    fn entries_of_a_table_of_contents_are_read() {
        let mut table = TocEntry::bare(1, "TABLE", "t");
        table.namespace = Some("old".into());
        table.defn = "CREATE TABLE t (\n    a integer\n);\nALTER TABLE ONLY t ALTER COLUMN a SET NOT NULL;\n".into();
        let shapes = table_shapes(&[table]);
        let shape = &shapes[&("old".to_owned(), "t".to_owned())];
        assert!(shape.columns[0].not_null);
    }

    #[test]
    fn statements_that_end_early_do_not_panic() {
        let sql = "CREATE TABLE s.t (a int NOT NULL, LIKE x, CONSTRAINT c UNIQUE (a)) INHERITS (p)";
        for end in 0..=sql.len() {
            learned(&[&sql[..end]]);
        }
        for sql in [
            "ALTER TABLE t ADD",
            "ALTER TABLE t ATTACH PARTITION",
            "ALTER TABLE t INHERIT",
            "ALTER TABLE t ALTER a",
            "CREATE TYPE",
            "CREATE TYPE t",
            "CREATE DOMAIN d",
            "CREATE UNIQUE INDEX i ON",
            "SECURITY LABEL FOR",
            "SECURITY LABEL FOR anon ON COLUMN a IS",
            "ALTER FOREIGN",
            "ALTER TYPE",
            "ALTER TABLE (",
            "ALTER TABLE t *",
            "ALTER TABLE t DROP",
            "CREATE TABLE t (exclude",
            "CREATE TABLE t (a int, EXCLUDE (WITH =), EXCLUDE (), EXCLUDE USING",
            "CREATE",
            "CREATE TABLE t OF",
            "CREATE TABLE t PARTITION OF",
        ] {
            learned(&[sql]);
        }
    }
}

//! Finds the rows that depend on others in a table of contents: from the functions that a table depends on
//! there, also through types, operators and parents, and from the expressions of its definition, which may
//! call a function of an extension, or a built-in function that reads rows.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use super::definition::Definition;
use super::expressions::Functions;
use crate::ddl;
use crate::dependents::Dependents;
use pgdump_archive::{Dialect, DumpId, EntryKind, TocEntry, TocSection, Token, tokens};

/// Entries that may read rows of any table while they are restored, by dump id.
#[derive(Debug, Default)]
pub(crate) struct Dependence {
    /// Table data.
    pub rows: HashSet<DumpId>,
    /// Indexes, constraints and materialized views.
    pub objects: HashSet<DumpId>,
}

impl Dependence {
    /// Examines all entries of an archive, regardless of the selection.
    pub(crate) fn of(entries: &[TocEntry]) -> Self {
        let mut graph = DependencyGraph::new(entries);
        let rows = entries.iter().filter(|e| e.kind == EntryKind::TableData);
        let rows = rows
            .filter(|e| graph.rows_depend(e))
            .map(|e| e.dump_id)
            .collect();
        let objects = entries
            .iter()
            .filter(|e| graph.object_reads(e))
            .map(|e| e.dump_id)
            .collect();
        Dependence { rows, objects }
    }

    pub(crate) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// The same for existing tables: `tables` are those whose rows depend on others.
    pub(crate) fn of_rows_into(entries: &[TocEntry], tables: &HashSet<String>) -> Self {
        let is_dependent = |e: &&TocEntry| {
            let written = pgdump_archive::copy_target(&e.copy_stmt).map(|(relation, _)| relation);
            // For INSERT statements in SQL text, the tag is the name as written there.
            let written = written.or_else(|| e.namespace.is_none().then(|| e.tag.clone()));
            let stored = written.as_deref().and_then(super::text::stored_name);
            e.kind == EntryKind::TableData
                && [Some(ddl::qualified(e)), stored]
                    .iter()
                    .flatten()
                    .any(|name| tables.contains(name))
        };
        let rows = entries
            .iter()
            .filter(is_dependent)
            .map(|e| e.dump_id)
            .collect();
        Dependence {
            rows,
            objects: HashSet::new(),
        }
    }
}

/// Entries besides the table's own definition that run code for its rows, if they precede the data.
fn alters_rows(e: &TocEntry) -> bool {
    matches!(
        e.kind,
        EntryKind::Trigger | EntryKind::Rule | EntryKind::FkConstraint | EntryKind::CheckConstraint
    )
}

struct DependencyGraph<'a> {
    by_id: HashMap<DumpId, &'a TocEntry>,
    functions: Functions,
    /// The partitioned tables that a partition is attached to, and the parents of an inheriting table.
    parents: HashMap<DumpId, Vec<DumpId>>,
    children: HashMap<DumpId, Vec<DumpId>>,
    /// Tables with triggers, rules or foreign keys that precede the data.
    altered: HashSet<DumpId>,
    /// Cached answers for tables whose rows are routed to several partitions.
    routed: HashMap<DumpId, bool>,
    /// The entries that depend on a function that may read rows.
    reading: OnceCell<HashSet<DumpId>>,
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl<'a> DependencyGraph<'a> {
    fn new(entries: &'a [TocEntry]) -> Self {
        let is_function = |e: &&TocEntry| {
            matches!(
                e.kind,
                EntryKind::Function | EntryKind::Procedure | EntryKind::Aggregate
            )
        };
        let defined = entries
            .iter()
            .filter(is_function)
            .filter_map(|e| name_of_function(&e.tag).map(str::to_owned))
            .collect();
        let path = entries.iter().find(|e| e.kind == EntryKind::SearchPath);
        let functions = Functions {
            defined,
            is_path_empty: path.is_some_and(|e| e.defn.contains("''")),
        };
        let mut graph = DependencyGraph {
            by_id: entries.iter().map(|e| (e.dump_id, e)).collect(),
            functions,
            parents: HashMap::new(),
            children: HashMap::new(),
            altered: HashSet::new(),
            routed: HashMap::new(),
            reading: OnceCell::new(),
            #[cfg(test)]
            steps: std::cell::Cell::default(),
        };
        entries.iter().for_each(|e| graph.link(e));
        graph
    }

    fn is_table(&self, id: &DumpId) -> bool {
        let entry = self.by_id.get(id);
        entry.is_some_and(|e| e.kind == EntryKind::Table)
    }

    fn tables_of(&self, e: &TocEntry) -> Vec<DumpId> {
        let ids = e.dependencies.iter().copied();
        ids.filter(|id| self.is_table(id)).collect()
    }

    fn link(&mut self, e: &'a TocEntry) {
        let tables = self.tables_of(e);
        match &e.kind {
            EntryKind::Table => self.link_tables(e.dump_id, tables),
            EntryKind::TableAttach => {
                let has_name = |id: &DumpId| {
                    let table = self.by_id.get(id);
                    table.is_some_and(|t| t.tag == e.tag && t.namespace == e.namespace)
                };
                // One table of this name; whatever else is listed counts as a parent.
                if let Some(child) = tables.iter().copied().find(has_name) {
                    self.link_tables(child, tables);
                }
            }
            _ if e.section == TocSection::PreData && alters_rows(e) => self.altered.extend(tables),
            _ => {}
        }
    }

    fn link_tables(&mut self, child: DumpId, parents: Vec<DumpId>) {
        for parent in parents.into_iter().filter(|parent| *parent != child) {
            self.count_step();
            self.parents.entry(child).or_default().push(parent);
            self.children.entry(parent).or_default().push(child);
        }
    }

    fn rows_depend(&mut self, data: &TocEntry) -> bool {
        let Some(table) = self.tables_of(data).first().copied() else {
            // Tables of an extension may have triggers and foreign keys already.
            return true;
        };
        // INSERT statements may name the root of the partitions, too.
        let is_partition = self.parents.contains_key(&table);
        if ddl::copies_into_own_table(data) || (data.copy_stmt.is_empty() && !is_partition) {
            self.reads([table])
        } else {
            self.routed_rows_depend(table)
        }
    }

    /// Rows that are sent to the root of the partitions may be routed to any of these.
    fn routed_rows_depend(&mut self, table: DumpId) -> bool {
        if let Some(known) = self.routed.get(&table) {
            return *known;
        }
        let all = self.connected(table);
        let answer = self.reads(all.iter().copied());
        self.routed.extend(all.into_iter().map(|id| (id, answer)));
        answer
    }

    /// The tables that partitioning and inheritance connect with this one, which is one of them.
    fn connected(&self, table: DumpId) -> Vec<DumpId> {
        let (mut found, mut known, mut at) = (vec![table], HashSet::from([table]), 0);
        while let Some(id) = found.get(at).copied() {
            let linked = [&self.parents, &self.children].map(|of| of.get(&id));
            for other in linked.into_iter().flatten().flatten() {
                self.count_step();
                if known.insert(*other) {
                    found.push(*other);
                }
            }
            at += 1;
        }
        found
    }

    /// Work that the archive decides the amount of.
    fn count_step(&self) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
    }

    fn object_reads(&self, e: &TocEntry) -> bool {
        let defn = || tokens(&e.defn, Dialect::default());
        match &e.kind {
            EntryKind::Index | EntryKind::CheckConstraint => {
                self.reads(self.non_table_dependencies(e)) || self.index_calls(&defn())
            }
            EntryKind::Constraint if e.defn.contains("EXCLUDE") => {
                self.reads(self.non_table_dependencies(e)) || self.index_calls(&defn())
            }
            EntryKind::MaterializedViewData => {
                let view = e.dependencies.iter().filter_map(|id| self.by_id.get(id));
                let mut view = view.filter(|v| v.kind == EntryKind::MaterializedView);
                view.any(|v| self.reads(self.non_table_dependencies(v)))
            }
            _ => false,
        }
    }

    /// An entry's dependencies except tables: its rows do not run through those tables again.
    fn non_table_dependencies(&self, e: &TocEntry) -> Vec<DumpId> {
        let is_other = |id: &DumpId| {
            let other = self.by_id.get(id).map(|o| &o.kind);
            !matches!(
                other,
                None | Some(
                    EntryKind::Table
                        | EntryKind::ForeignTable
                        | EntryKind::MaterializedView
                        | EntryKind::Sequence
                )
            )
        };
        e.dependencies.iter().copied().filter(is_other).collect()
    }

    fn index_calls(&self, t: &[Token<'_>]) -> bool {
        // `USING btree (…)` is not a call.
        let expressions = t.iter().position(|w| w.is("using")).map_or(0, |at| at + 2);
        let expressions = t.iter().position(|w| w.is("check")).unwrap_or(expressions);
        t.get(expressions..)
            .is_some_and(|t| self.functions.may_read(t))
    }

    /// Whether a function that may read rows is among the transitive dependencies of these entries.
    fn reads(&self, ids: impl IntoIterator<Item = DumpId>) -> bool {
        let reading = self.reading();
        ids.into_iter().any(|id| {
            self.count_step();
            !self.by_id.contains_key(&id) || reading.contains(&id)
        })
    }

    fn reading(&self) -> &HashSet<DumpId> {
        self.reading.get_or_init(|| {
            let (mut found, mut dependents) = (HashSet::new(), Dependents::default());
            for e in self.by_id.values() {
                self.count_step();
                let is_known = |id: &DumpId| self.by_id.contains_key(id);
                match self.read_dependencies(e) {
                    Some(needed) if needed.iter().all(is_known) => {
                        dependents.add(e.dump_id, &needed);
                    }
                    // What is not in the archive may be anything.
                    Some(_) | None => drop(found.insert(e.dump_id)),
                }
            }
            let steps = dependents.add_to(&mut found);
            (0..steps).for_each(|_| self.count_step());
            found
        })
    }

    /// Dependencies through which an entry may read rows; `None` if it may read rows itself.
    fn read_dependencies(&self, e: &'a TocEntry) -> Option<Cow<'a, [DumpId]>> {
        match &e.kind {
            EntryKind::Function | EntryKind::Procedure | EntryKind::Aggregate => None,
            EntryKind::Table => self.row_dependencies(e).map(Cow::Owned),
            EntryKind::Domain if self.calls(&e.defn, "CHECK") => None,
            _ if e.has_data => None,
            _ => Some(Cow::Borrowed(&e.dependencies)),
        }
    }

    fn calls(&self, defn: &str, from: &str) -> bool {
        let expressions = defn.find(from).map(|at| &defn[at..]);
        expressions.is_some_and(|sql| self.functions.may_read(&tokens(sql, Dialect::default())))
    }

    /// Dependencies that this table's rows run through, besides its own expressions; `None` if one of those
    /// expressions may read rows.
    fn row_dependencies(&self, table: &TocEntry) -> Option<Vec<DumpId>> {
        if self.altered.contains(&table.dump_id) {
            return None;
        }
        let mut more: Vec<DumpId> = table.dependencies.clone();
        more.extend(self.parents.get(&table.dump_id).into_iter().flatten());
        if !has_expressions(table) && !more.iter().any(|id| self.is_function(*id)) {
            return Some(more);
        }
        let t = tokens(&table.defn, Dialect::default());
        let start = t.iter().position(|w| w.is("table")).map_or(0, |at| at + 1);
        let definition = Definition::of(&t[start..])?;
        let mut expressions = definition.expressions().into_iter();
        if expressions.any(|t| self.functions.may_read(t)) {
            return None;
        }
        let (in_default, elsewhere) = (
            names_in(definition.defaults().iter().map(|d| d.expression)),
            names_in(definition.expressions().into_iter()),
        );
        // Rows of a dump have a value for every column, so that no default is computed.
        let is_of_a_default = |name: &str| in_default.contains(name) && !elsewhere.contains(name);
        more.retain(|id| {
            self.count_step();
            let name = self.function_name(*id);
            !name.is_some_and(&is_of_a_default)
        });
        Some(more)
    }

    fn function_name(&self, id: DumpId) -> Option<&'a str> {
        let function = self.by_id.get(&id).filter(|_| self.is_function(id))?;
        name_of_function(&function.tag)
    }

    fn is_function(&self, id: DumpId) -> bool {
        self.by_id
            .get(&id)
            .is_some_and(|e| e.kind == EntryKind::Function)
    }
}

/// `name(arguments)`, as the catalog stores it.
fn name_of_function(tag: &str) -> Option<&str> {
    tag.rsplit_once('(').map(|(name, _)| name)
}

/// The names that expressions mention.
fn names_in<'a>(expressions: impl Iterator<Item = &'a [Token<'a>]>) -> HashSet<String> {
    expressions.flatten().filter_map(Token::name).collect()
}

/// Whether a table's definition may have checks, generated columns or a partition key.
fn has_expressions(table: &TocEntry) -> bool {
    let words = ["CHECK", "GENERATED", "PARTITION BY"];
    words.iter().any(|word| table.defn.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_archive::{Archive, ArchiveSource, DecryptionKeys, Limits};

    fn entry(id: i32, desc: &str, tag: &str, dependencies: &[i32], defn: &str) -> TocEntry {
        let section = if desc == "TABLE DATA" {
            TocSection::Data
        } else {
            TocSection::PreData
        };
        let dependencies = dependencies.iter().copied().map(DumpId).collect();
        TocEntry {
            section,
            dependencies,
            namespace: Some("s".to_owned()),
            defn: defn.into(),
            ..TocEntry::bare(id, desc, tag)
        }
    }

    fn rows(id: i32, table: i32, tag: &str) -> TocEntry {
        let copy_stmt = format!("COPY s.{tag} (v) FROM stdin;");
        TocEntry {
            has_data: true,
            copy_stmt,
            ..entry(id, "TABLE DATA", tag, &[table], "")
        }
    }

    /// The tables whose rows depend on others.
    fn dependent(entries: &[TocEntry]) -> Vec<&str> {
        let found = Dependence::of(entries).rows;
        entries
            .iter()
            .filter(|e| found.contains(&e.dump_id))
            .map(|e| e.tag.as_str())
            .collect()
    }

    /// Tables of contents that are made to be slow: the steps grow with their length, and no faster.
    #[test]
    fn the_steps_grow_with_the_table_of_contents_only() {
        let plain = "CREATE TABLE s.t (v integer);";
        let chain = |n: i32, last: &[i32]| -> Vec<TocEntry> {
            let needed = |i: i32| if i < n { vec![i + 1] } else { last.to_vec() };
            (1..=n)
                .map(|i| entry(i, "TABLE", "t", &needed(i), plain))
                .collect()
        };
        let all_rows = |n: i32, relation: &'static str| {
            (1..=n).map(move |i| TocEntry {
                copy_stmt: format!("COPY s.{relation} (v) FROM stdin;"),
                ..rows(n + i, i, "t")
            })
        };
        let function = entry(0, "FUNCTION", "f(integer)", &[], "");
        let attach = |n: i32| {
            let listed: Vec<i32> = (0..n).map(|i| 1 + i % 2).collect();
            entry(3 * n, "TABLE ATTACH", "t", &listed, "")
        };
        type Make<'a> = &'a dyn Fn(i32) -> Vec<TocEntry>;
        let (heirs, readers, partitions, attached): (Make<'_>, Make<'_>, Make<'_>, Make<'_>) = (
            &|n| chain(n, &[]).into_iter().chain(all_rows(n, "t")).collect(),
            &|n| {
                let tables = chain(n, &[0]).into_iter().chain([function.clone()]);
                tables.chain(all_rows(n, "t")).collect()
            },
            &|n| {
                chain(n, &[])
                    .into_iter()
                    .chain(all_rows(n, "root"))
                    .collect()
            },
            &|n| {
                chain(n, &[])
                    .into_iter()
                    .chain([attach(n)])
                    .chain(all_rows(n, "root"))
                    .collect()
            },
        );
        for (what, make, depend) in [
            ("a chain of heirs", heirs, false),
            ("a chain of heirs that ends in a function", readers, true),
            ("a chain of partitions", partitions, false),
            (
                "a partition that is attached again and again",
                attached,
                false,
            ),
        ] {
            for n in [50, 100, 200, 400] {
                let entries = make(n);
                let mut graph = DependencyGraph::new(&entries);
                for data in entries.iter().filter(|e| e.kind == EntryKind::TableData) {
                    assert_eq!(graph.rows_depend(data), depend, "{what}");
                }
                let (steps, most) = (graph.steps.get(), 12 * entries.len());
                assert!(
                    steps < most,
                    "{what}: {steps} steps for {} entries",
                    entries.len()
                );
            }
        }
    }

    /// Entries with dependencies as `pg_dump` 15 and 18 write them.
    #[test]
    fn functions_that_rows_run_through_are_found() {
        let check = "CREATE TABLE s.x (\n    v integer,\n    CONSTRAINT c CHECK (s.f(v))\n);\n";
        let plain = "CREATE TABLE s.x (\n    v integer\n);\n";
        let mut entries = vec![
            entry(
                1,
                "SEARCHPATH",
                "SEARCHPATH",
                &[],
                "SELECT pg_catalog.set_config('search_path', '', false);",
            ),
            entry(2, "FUNCTION", "f(integer)", &[], ""),
            entry(
                3,
                "DOMAIN",
                "d",
                &[2],
                "CREATE DOMAIN s.d AS integer CONSTRAINT c CHECK (s.f(VALUE));",
            ),
            entry(4, "TYPE", "c", &[3], ""),
            entry(5, "OPERATOR", "===", &[2], ""),
            entry(6, "EXTENSION", "e", &[], ""),
            entry(10, "TABLE", "checked", &[2], check),
            entry(11, "TABLE", "heir", &[10], plain),
            entry(12, "TABLE", "of_domain", &[3], plain),
            entry(13, "TABLE", "of_type", &[4], plain),
            entry(
                14,
                "TABLE",
                "by_operator",
                &[5],
                "CREATE TABLE s.x (v integer CHECK (v OPERATOR(s.===) 3));",
            ),
            entry(
                15,
                "TABLE",
                "by_cast",
                &[2],
                "CREATE TABLE s.x (v s.y, CHECK (((v)::integer = 1)));",
            ),
            entry(
                16,
                "TABLE",
                "root",
                &[2],
                "CREATE TABLE s.root (v integer)\nPARTITION BY RANGE (s.f(v));",
            ),
            entry(
                17,
                "TABLE",
                "middle",
                &[],
                "CREATE TABLE s.middle (v integer)\nPARTITION BY LIST (v);",
            ),
            entry(18, "TABLE", "leaf", &[], plain),
            entry(
                19,
                "TABLE",
                "of_extension",
                &[6],
                "CREATE TABLE s.x (v integer CHECK (s.of_extension(v)));",
            ),
            entry(20, "TABLE", "triggered", &[], plain),
            entry(
                21,
                "TABLE",
                "reads",
                &[],
                "CREATE TABLE s.x (v oid CHECK ((lo_get(v) IS NOT NULL)));",
            ),
            entry(30, "TABLE ATTACH", "leaf", &[18, 17], ""),
            entry(31, "TABLE ATTACH", "middle", &[17, 16], ""),
            entry(32, "TRIGGER", "triggered t", &[20], ""),
        ];
        let tables: Vec<(i32, String)> = entries
            .iter()
            .filter(|e| e.kind == EntryKind::Table && !e.defn.contains("PARTITION BY"))
            .map(|e| (e.dump_id.0, e.tag.clone()))
            .collect();
        entries.extend(tables.iter().map(|(id, tag)| rows(100 + id, *id, tag)));
        entries.push(rows(200, 6, "table_of_extension"));
        entries.push(rows(201, 99, "unknown"));
        let names: Vec<&str> = tables
            .iter()
            .map(|(_, tag)| tag.as_str())
            .chain(["table_of_extension", "unknown"])
            .collect();
        assert_eq!(dependent(&entries), names);
    }

    #[test]
    fn ordinary_tables_are_independent() {
        let defaults = "CREATE TABLE s.x (\n    id text DEFAULT s.f(1) NOT NULL,\n    v integer DEFAULT s.g(),\n    \
            CONSTRAINT c CHECK ((length(id) > 3))\n);\n";
        let entries = [
            entry(
                1,
                "SEARCHPATH",
                "SEARCHPATH",
                &[],
                "SELECT pg_catalog.set_config('search_path', '', false);",
            ),
            entry(2, "FUNCTION", "f(integer)", &[], ""),
            entry(3, "EXTENSION", "e", &[], ""),
            entry(4, "TYPE", "mood", &[], "CREATE TYPE s.mood AS ENUM ('a');"),
            entry(
                5,
                "DOMAIN",
                "d",
                &[],
                "CREATE DOMAIN s.d AS integer CONSTRAINT c CHECK ((VALUE > 0));",
            ),
            entry(10, "TABLE", "defaults", &[2, 3, 4, 5], defaults),
            entry(
                11,
                "TABLE",
                "root",
                &[],
                "CREATE TABLE s.root (v integer)\nPARTITION BY RANGE (v);",
            ),
            entry(12, "TABLE", "leaf", &[], "CREATE TABLE s.leaf (v integer);"),
            entry(
                13,
                "TABLE",
                "other",
                &[2],
                "CREATE TABLE s.other (v integer CHECK (s.f(v)));",
            ),
            entry(30, "TABLE ATTACH", "leaf", &[12, 11], ""),
            entry(31, "TABLE ATTACH", "other", &[13, 11], ""),
            entry(32, "VIEW", "v", &[10, 2], ""),
            entry(33, "DEFAULT", "defaults id", &[10, 2], ""),
            rows(100, 10, "defaults"),
            rows(101, 12, "leaf"),
        ];
        assert_eq!(dependent(&entries), [""; 0]);
        let to_root = TocEntry {
            copy_stmt: "COPY s.root (v) FROM stdin;".into(),
            ..rows(101, 12, "leaf")
        };
        let entries = [&entries[..entries.len() - 1], &[to_root]].concat();
        assert_eq!(
            dependent(&entries),
            ["leaf"],
            "rows of the root may be routed to any partition"
        );
    }

    #[test]
    fn indexes_and_views_may_read_other_rows() {
        let index =
            |of: &str| format!("CREATE INDEX i ON s.t USING btree ({of}) WITH (fillfactor='70');");
        let entries = [
            entry(
                1,
                "SEARCHPATH",
                "SEARCHPATH",
                &[],
                "SELECT pg_catalog.set_config('search_path', '', false);",
            ),
            entry(2, "FUNCTION", "f(integer)", &[], ""),
            entry(
                3,
                "TABLE",
                "t",
                &[2],
                "CREATE TABLE s.t (v integer CHECK (s.f(v)));",
            ),
            entry(4, "INDEX", "plain", &[3], &index("v, lower(w)")),
            entry(5, "INDEX", "reads", &[3, 2], &index("s.f(v)")),
            entry(
                6,
                "INDEX",
                "of_extension",
                &[3],
                &index("s.st_transform(v, 3857)"),
            ),
            entry(
                7,
                "CONSTRAINT",
                "key",
                &[3],
                "ALTER TABLE ONLY s.t ADD CONSTRAINT key PRIMARY KEY (v);",
            ),
            entry(
                8,
                "CHECK CONSTRAINT",
                "c",
                &[3, 2],
                "ALTER TABLE s.t ADD CONSTRAINT c CHECK (s.f(v)) NOT VALID;",
            ),
            entry(9, "MATERIALIZED VIEW", "m", &[3, 2], ""),
            entry(10, "MATERIALIZED VIEW", "n", &[3], ""),
            entry(11, "MATERIALIZED VIEW DATA", "m", &[9, 3584], ""),
            entry(12, "MATERIALIZED VIEW DATA", "n", &[10], ""),
        ];
        let found = Dependence::of(&entries).objects.into_iter();
        let mut found: Vec<i32> = found.map(|id| id.0).collect();
        found.sort_unstable();
        assert_eq!(found, [5, 6, 8, 11]);
    }

    /// In every dump of the fixtures, no rows depend on others, so its restore has a single load turn.
    #[test]
    fn no_rows_of_the_fixtures_depend_on_others() {
        let fixtures =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let mut seen = 0;
        for file in std::fs::read_dir(fixtures).unwrap() {
            let path = file.unwrap().path();
            let origin = ArchiveSource::once(std::fs::File::open(&path).unwrap());
            let Ok(archive) = Archive::open(origin, Limits::default(), &DecryptionKeys::default())
            else {
                continue;
            };
            if archive.is_script() {
                continue;
            }
            assert_eq!(dependent(archive.entries()), [""; 0], "{}", path.display());
            let entries = archive.entries();
            let plan = crate::plan::Plan::new(entries, &Dependence::of(entries), 170000);
            assert!(
                plan.nodes.values().all(|n| n.turn == 0 && !n.in_order),
                "{}",
                path.display()
            );
            seen += plan.nodes.len();
        }
        assert!(seen > 100, "{seen}");
    }
}

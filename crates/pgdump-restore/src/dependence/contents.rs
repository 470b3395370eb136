//! Finds the rows that depend on others in a table of contents: from the functions that a table depends on
//! there, also through types, operators and parents, and from the expressions of its definition, which may
//! call a function of an extension, or a built-in function that reads rows.

use std::collections::{HashMap, HashSet};

use super::definition::Definition;
use super::expressions::Functions;
use crate::ddl;
use pgdump_archive::{Dialect, TocEntry, TocSection, Token, tokens};

/// Entries that may read rows of any table while they are restored, by dump id.
#[derive(Debug, Default)]
pub(crate) struct Dependence {
    /// Table data.
    pub rows: HashSet<i32>,
    /// Indexes, constraints and materialized views.
    pub objects: HashSet<i32>,
}

impl Dependence {
    /// Examines all entries of an archive, regardless of the selection.
    pub(crate) fn of(entries: &[TocEntry]) -> Self {
        let mut graph = Graph::new(entries);
        let rows = entries.iter().filter(|e| e.desc == "TABLE DATA");
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
            e.desc == "TABLE DATA"
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
        e.desc.as_str(),
        "TRIGGER" | "RULE" | "FK CONSTRAINT" | "CHECK CONSTRAINT"
    )
}

struct Graph<'a> {
    by_id: HashMap<i32, &'a TocEntry>,
    functions: Functions,
    /// The partitioned tables that a partition is attached to, and the parents of an inheriting table.
    parents: HashMap<i32, Vec<i32>>,
    children: HashMap<i32, Vec<i32>>,
    /// Tables with triggers, rules or foreign keys that precede the data.
    altered: HashSet<i32>,
    /// Cached answers for tables whose rows are routed to several partitions.
    routed: HashMap<i32, bool>,
}

impl<'a> Graph<'a> {
    fn new(entries: &'a [TocEntry]) -> Self {
        let is_function =
            |e: &&TocEntry| matches!(e.desc.as_str(), "FUNCTION" | "PROCEDURE" | "AGGREGATE");
        let defined = entries
            .iter()
            .filter(is_function)
            .filter_map(|e| name_of_function(&e.tag))
            .collect();
        let path = entries.iter().find(|e| e.desc == "SEARCHPATH");
        let functions = Functions {
            defined,
            is_path_empty: path.is_some_and(|e| e.defn.contains("''")),
        };
        let mut graph = Graph {
            by_id: entries.iter().map(|e| (e.dump_id, e)).collect(),
            functions,
            parents: HashMap::new(),
            children: HashMap::new(),
            altered: HashSet::new(),
            routed: HashMap::new(),
        };
        entries.iter().for_each(|e| graph.link(e));
        graph
    }

    fn link(&mut self, e: &'a TocEntry) {
        let is_table = |id: &i32| self.by_id.get(id).is_some_and(|t| t.desc == "TABLE");
        let tables: Vec<i32> = e.dependencies.iter().copied().filter(is_table).collect();
        let (children, parents): (Vec<i32>, Vec<i32>) = match e.desc.as_str() {
            "TABLE" => (vec![e.dump_id], tables),
            "TABLE ATTACH" => tables.into_iter().partition(|id| {
                self.by_id
                    .get(id)
                    .is_some_and(|t| t.tag == e.tag && t.namespace == e.namespace)
            }),
            _ if e.section == TocSection::PreData && alters_rows(e) => {
                return self.altered.extend(tables);
            }
            _ => return,
        };
        for child in children {
            for parent in parents.iter().copied().filter(|p| *p != child) {
                self.parents.entry(child).or_default().push(parent);
                self.children.entry(parent).or_default().push(child);
            }
        }
    }

    fn rows_depend(&mut self, data: &TocEntry) -> bool {
        let is_table = |id: &&i32| self.by_id.get(id).is_some_and(|t| t.desc == "TABLE");
        let Some(table) = data.dependencies.iter().find(is_table).copied() else {
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
    fn routed_rows_depend(&mut self, table: i32) -> bool {
        let roots = closure([table], |id| {
            self.parents.get(&id).cloned().unwrap_or_default()
        });
        let root = roots
            .iter()
            .copied()
            .find(|id| !self.parents.contains_key(id))
            .unwrap_or(table);
        if let Some(known) = self.routed.get(&root) {
            return *known;
        }
        let all = closure(roots, |id| {
            self.children.get(&id).cloned().unwrap_or_default()
        });
        let answer = self.reads(all);
        self.routed.insert(root, answer);
        answer
    }

    fn object_reads(&self, e: &TocEntry) -> bool {
        let defn = || tokens(&e.defn, Dialect::default());
        match e.desc.as_str() {
            "INDEX" | "CHECK CONSTRAINT" => {
                self.reads(self.non_table_dependencies(e)) || self.index_calls(&defn())
            }
            "CONSTRAINT" if e.defn.contains("EXCLUDE") => {
                self.reads(self.non_table_dependencies(e)) || self.index_calls(&defn())
            }
            "MATERIALIZED VIEW DATA" => {
                let view = e.dependencies.iter().filter_map(|id| self.by_id.get(id));
                let mut view = view.filter(|v| v.desc == "MATERIALIZED VIEW");
                view.any(|v| self.reads(self.non_table_dependencies(v)))
            }
            _ => false,
        }
    }

    /// An entry's dependencies except tables: its rows do not run through those tables again.
    fn non_table_dependencies(&self, e: &TocEntry) -> Vec<i32> {
        let is_other = |id: &i32| {
            let other = self.by_id.get(id).map(|o| o.desc.as_str());
            !matches!(
                other,
                None | Some("TABLE" | "FOREIGN TABLE" | "MATERIALIZED VIEW" | "SEQUENCE")
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
    fn reads(&self, ids: impl IntoIterator<Item = i32>) -> bool {
        let mut next: Vec<i32> = ids.into_iter().collect();
        let mut seen: HashSet<i32> = next.iter().copied().collect();
        while let Some(id) = next.pop() {
            let Some(e) = self.by_id.get(&id) else {
                return true;
            };
            let more = match e.desc.as_str() {
                "FUNCTION" | "PROCEDURE" | "AGGREGATE" => None,
                "TABLE" => self.row_dependencies(e),
                "DOMAIN" if self.calls(&e.defn, "CHECK") => None,
                _ if e.has_data => None,
                _ => Some(e.dependencies.clone()),
            };
            let Some(more) = more else { return true };
            next.extend(more.into_iter().filter(|id| seen.insert(*id)));
        }
        false
    }

    fn calls(&self, defn: &str, from: &str) -> bool {
        let expressions = defn.find(from).map(|at| &defn[at..]);
        expressions.is_some_and(|sql| self.functions.may_read(&tokens(sql, Dialect::default())))
    }

    /// Dependencies that this table's rows run through, besides its own expressions; `None` if one of those
    /// expressions may read rows.
    fn row_dependencies(&self, table: &TocEntry) -> Option<Vec<i32>> {
        if self.altered.contains(&table.dump_id) {
            return None;
        }
        let mut more: Vec<i32> = table.dependencies.clone();
        more.extend(self.parents.get(&table.dump_id).into_iter().flatten());
        let calls_functions = more.iter().any(|id| self.is_function(*id));
        let has_expressions = ["CHECK", "GENERATED", "PARTITION BY"]
            .iter()
            .any(|w| table.defn.contains(w));
        if calls_functions || has_expressions {
            let t = tokens(&table.defn, Dialect::default());
            let start = t.iter().position(|w| w.is("table")).map_or(0, |at| at + 1);
            let definition = Definition::of(&t[start..])?;
            if definition
                .expressions()
                .into_iter()
                .any(|t| self.functions.may_read(t))
            {
                return None;
            }
            more.retain(|id| !self.is_function(*id) || !self.is_of_a_default(*id, &definition));
        }
        Some(more)
    }

    fn is_function(&self, id: i32) -> bool {
        self.by_id.get(&id).is_some_and(|e| e.desc == "FUNCTION")
    }

    /// Whether a table calls a function only for defaults: rows of a dump have a value for every column.
    fn is_of_a_default(&self, id: i32, definition: &Definition<'_, '_>) -> bool {
        let Some(name) = self.by_id.get(&id).and_then(|e| name_of_function(&e.tag)) else {
            return false;
        };
        let is_it = |t: &Token<'_>| t.name().as_deref() == Some(name.as_str());
        let in_default = definition
            .defaults()
            .iter()
            .any(|d| d.expression.iter().any(is_it));
        in_default && !definition.expressions().iter().any(|e| e.iter().any(is_it))
    }
}

/// `name(arguments)`, as the catalog stores it.
fn name_of_function(tag: &str) -> Option<String> {
    tag.rsplit_once('(').map(|(name, _)| name.to_owned())
}

/// These entries and everything reachable through `more`.
fn closure(from: impl IntoIterator<Item = i32>, more: impl Fn(i32) -> Vec<i32>) -> Vec<i32> {
    let mut found: Vec<i32> = from.into_iter().collect();
    let mut known: HashSet<i32> = found.iter().copied().collect();
    let mut at = 0;
    while let Some(id) = found.get(at).copied() {
        found.extend(more(id).into_iter().filter(|id| known.insert(*id)));
        at += 1;
    }
    found
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
        let (dependencies, namespace) = (dependencies.to_vec(), Some("s".to_owned()));
        TocEntry {
            section,
            dependencies,
            namespace,
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
            .filter(|e| e.desc == "TABLE" && !e.defn.contains("PARTITION BY"))
            .map(|e| (e.dump_id, e.tag.clone()))
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
        let mut found: Vec<i32> = Dependence::of(&entries).objects.into_iter().collect();
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
            let plan =
                crate::plan::Plan::new(archive.entries(), &Dependence::of(archive.entries()));
            assert!(
                plan.nodes.iter().all(|n| n.turn == 0 && !n.in_order),
                "{}",
                path.display()
            );
            seen += plan.nodes.len();
        }
        assert!(seen > 100, "{seen}");
    }
}

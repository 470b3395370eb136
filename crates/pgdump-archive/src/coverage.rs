//! Whether an archive has the data of what it defines. A dump without rows, or without those of some tables, is intact and
//! restores without an error.

use std::collections::HashSet;

use super::lexer::{Dialect, first_tokens, tokens};
use super::{DumpId, EntryKind, TextEncoding, TocEntry};

/// Most names that are kept of what has no data.
const MAX_NAMED: usize = 10_000;
/// Most bytes of names that are kept of SQL text until all of it was read.
const MAX_KEPT: usize = 16 << 20;
/// Memory of a name that is kept of SQL text, besides its bytes.
const NAME: usize = 96;

/// What an archive defines, and what it has data of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataCoverage {
    /// Definitions of any kind.
    pub definitions: u64,
    /// Defined tables whose rows belong into a dump: ordinary ones.
    pub tables: u64,
    /// Those of them whose rows the archive has, even if there are none.
    pub filled: u64,
    /// Data of any kind: rows of a table, the value of a sequence, large objects.
    pub data: u64,
    /// Data of tables and sequences that the archive does not define, unless an extension may define them.
    pub undefined: u64,
    /// Number of tables and sequences that are defined without their data.
    pub lacking: u64,
    /// The first 10,000 of them, and unlogged ones, whose data `pg_dump` may leave out.
    pub bare: Vec<BareRelation>,
}

/// A table or a sequence that an archive defines without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BareRelation {
    /// Its schema, unquoted; empty if the archive does not name one.
    pub namespace: String,
    /// Its name, unquoted.
    pub name: String,
    /// It is unlogged, so `pg_dump --no-unlogged-table-data` leaves its data out.
    pub is_unlogged: bool,
}

/// What an entry contributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryRole {
    Table,
    UnloggedTable,
    /// A relation that has no rows of its own, or whose rows need not be in a dump.
    Other,
    Rows,
    Sequence,
    UnloggedSequence,
    Value,
}

/// What a table of contents or a text lists besides tables and sequences.
#[derive(Debug, Clone, Copy, Default)]
struct Listed {
    definitions: u64,
    data: u64,
    has_extensions: bool,
}

impl Listed {
    fn add(&mut self, kind: &EntryKind) {
        self.has_extensions |= *kind == EntryKind::Extension;
        if is_data(kind) {
            self.data += 1;
        } else if is_definition(kind) {
            self.definitions += 1;
        }
    }
}

impl DataCoverage {
    pub(super) fn of_entries(entries: &[TocEntry], encoding: &TextEncoding) -> Self {
        // Old versions of pg_dump define views that depend on each other as tables, which a rule makes views.
        let is_view = |e: &&TocEntry| e.kind == EntryKind::Rule && e.tag.ends_with("_RETURN");
        let views = entries.iter().filter(is_view);
        let views: HashSet<DumpId> = views.flat_map(|e| e.dependencies.iter().copied()).collect();
        let mut listed = Listed::default();
        let mut roles = Vec::new();
        for e in entries {
            listed.add(&e.kind);
            let role = match (role_of(e), e.relkind) {
                (Some(EntryRole::Table | EntryRole::UnloggedTable), _)
                    if views.contains(&e.dump_id) =>
                {
                    Some(EntryRole::Other)
                }
                (Some(EntryRole::Table), Some(kind)) if kind != 'r' => Some(EntryRole::Other),
                (role, _) => role,
            };
            let namespace = e.namespace.as_deref().unwrap_or_default();
            roles.extend(role.map(|role| (role, namespace, e.tag.as_str())));
        }
        Self::of(&roles, listed, encoding)
    }

    fn of(roles: &[(EntryRole, &str, &str)], listed: Listed, encoding: &TextEncoding) -> Self {
        let (rows, values) = (
            named(roles, &[EntryRole::Rows]),
            named(roles, &[EntryRole::Value]),
        );
        let mut found = DataCoverage {
            definitions: listed.definitions,
            data: listed.data,
            ..DataCoverage::default()
        };
        let mut bare = Vec::new();
        for (role, namespace, name) in roles {
            let key = (*namespace, *name);
            match role {
                EntryRole::Table | EntryRole::UnloggedTable if rows.contains(&key) => {
                    found.tables += 1;
                    found.filled += 1;
                }
                EntryRole::Table => {
                    found.tables += 1;
                    bare.push((key, false));
                }
                EntryRole::UnloggedTable => bare.push((key, true)),
                EntryRole::Sequence | EntryRole::UnloggedSequence if !values.contains(&key) => {
                    bare.push((key, *role == EntryRole::UnloggedSequence));
                }
                _ => {}
            }
        }
        // With an unlogged table, the sequences that it owns are left out, too.
        let leaves_out_unlogged = bare.iter().any(|(_, is_unlogged)| *is_unlogged);
        let sequences = named(roles, &[EntryRole::Sequence]);
        for (key, is_unlogged) in &mut bare {
            *is_unlogged |= leaves_out_unlogged && sequences.contains(&*key);
        }
        found.lacking = bare.iter().filter(|(_, is_unlogged)| !is_unlogged).count() as u64;
        if !listed.has_extensions {
            let tables = named(
                roles,
                &[EntryRole::Table, EntryRole::UnloggedTable, EntryRole::Other],
            );
            let sequences = named(roles, &[EntryRole::Sequence, EntryRole::UnloggedSequence]);
            let undefined =
                rows.difference(&tables).count() + values.difference(&sequences).count();
            found.undefined = undefined as u64;
        }
        let relation = |((namespace, name), is_unlogged): ((&str, &str), bool)| BareRelation {
            namespace: encoding.for_display(namespace),
            name: encoding.for_display(name),
            is_unlogged,
        };
        found.bare = bare.into_iter().take(MAX_NAMED).map(relation).collect();
        found
    }
}

/// The schemas and names of what contributes one of these.
fn named<'a>(
    roles: &[(EntryRole, &'a str, &'a str)],
    wanted: &[EntryRole],
) -> HashSet<(&'a str, &'a str)> {
    let those = roles.iter().filter(|(role, ..)| wanted.contains(role));
    those
        .map(|(_, namespace, name)| (*namespace, *name))
        .collect()
}

impl BareRelation {
    /// The name as SQL writes it, quoted where it has to be, such as `shop.orders`.
    pub fn written(&self) -> String {
        let name = quoted_if_needed(&self.name);
        match self.namespace.as_str() {
            "" => name,
            namespace => format!("{}.{name}", quoted_if_needed(namespace)),
        }
    }
}

/// Key words are not known here, so a name that is one stays as it is.
fn quoted_if_needed(name: &str) -> String {
    let is_letter = |b: u8| b.is_ascii_lowercase() || b == b'_';
    let is_plain = name.bytes().next().is_some_and(is_letter)
        && name
            .bytes()
            .all(|b| is_letter(b) || b.is_ascii_digit() || b == b'$');
    if is_plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// What an entry contributes, as far as it and its definition say.
fn role_of(e: &TocEntry) -> Option<EntryRole> {
    Some(match &e.kind {
        EntryKind::Table if is_partitioned(&e.defn) => EntryRole::Other,
        EntryKind::Table if is_unlogged(&e.defn) => EntryRole::UnloggedTable,
        EntryKind::Table => EntryRole::Table,
        EntryKind::ForeignTable | EntryKind::View | EntryKind::MaterializedView => EntryRole::Other,
        EntryKind::TableData if e.has_data => EntryRole::Rows,
        EntryKind::Sequence if is_unlogged(&e.defn) => EntryRole::UnloggedSequence,
        EntryKind::Sequence => EntryRole::Sequence,
        EntryKind::SequenceSet => EntryRole::Value,
        _ => return None,
    })
}

fn is_data(kind: &EntryKind) -> bool {
    matches!(
        kind,
        EntryKind::TableData | EntryKind::SequenceSet | EntryKind::Blobs | EntryKind::LargeObjects
    )
}

/// Whether it defines something, other than the database itself or what belongs to data.
fn is_definition(kind: &EntryKind) -> bool {
    !matches!(
        kind,
        EntryKind::Encoding
            | EntryKind::StdStrings
            | EntryKind::SearchPath
            | EntryKind::Database
            | EntryKind::DatabaseProperties
            | EntryKind::Blob
            | EntryKind::BlobComments
            | EntryKind::BlobMetadata
            | EntryKind::StatisticsData
            | EntryKind::MaterializedViewData
            | EntryKind::Acl
            | EntryKind::Comment
            | EntryKind::SecurityLabel
    )
}

fn is_unlogged(definition: &str) -> bool {
    let words = first_tokens(definition, Dialect::default(), 2);
    matches!(words.as_slice(), [first, second] if first.is("create") && second.is("unlogged"))
}

/// Whether the table is partitioned: its rows are those of its partitions.
fn is_partitioned(definition: &str) -> bool {
    if memchr::memmem::find(definition.as_bytes(), b"PARTITION BY").is_none() {
        return false;
    }
    // A default may have a window function in parentheses, or these words in a string.
    let mut depth = 0_usize;
    tokens(definition, Dialect::default())
        .windows(2)
        .any(|pair| {
            if pair[0].is_symbol(b'(') {
                depth += 1;
            } else if pair[0].is_symbol(b')') {
                depth = depth.saturating_sub(1);
            }
            depth == 0 && pair[0].is("partition") && pair[1].is("by")
        })
}

/// The same of SQL text, from the comments that `pg_dump` writes before each definition and before data.
#[derive(Debug, Default)]
pub(super) struct TextCoverage {
    roles: Vec<(EntryRole, String, String)>,
    listed: Listed,
    /// Bytes of the names that are kept.
    kept: usize,
    /// Not all names were kept.
    is_cut: bool,
    /// The text announces rows of tables.
    announces_rows: bool,
    /// The text has rows, announced or not.
    has_rows: bool,
    /// The definition of the last entry comes next.
    is_defined_next: bool,
}

impl TextCoverage {
    /// A comment names an entry.
    pub(super) fn entry(&mut self, entry: &TocEntry) {
        self.is_defined_next = false;
        self.listed.add(&entry.kind);
        let Some(role) = role_of(entry) else { return };
        self.announces_rows |= role == EntryRole::Rows;
        let namespace = entry.namespace.clone().unwrap_or_default();
        self.kept += NAME + namespace.len() + entry.tag.len();
        if self.kept > MAX_KEPT {
            self.is_cut = true;
            return;
        }
        self.is_defined_next = matches!(role, EntryRole::Table | EntryRole::Sequence);
        self.roles.push((role, namespace, entry.tag.clone()));
    }

    /// A statement, which may be the definition of the entry before it.
    pub(super) fn statement(&mut self, sql: &str) {
        if !std::mem::take(&mut self.is_defined_next) {
            return;
        }
        let Some((role, ..)) = self.roles.last_mut() else {
            return;
        };
        *role = match *role {
            EntryRole::Table if is_partitioned(sql) => EntryRole::Other,
            EntryRole::Table if is_unlogged(sql) => EntryRole::UnloggedTable,
            EntryRole::Sequence if is_unlogged(sql) => EntryRole::UnloggedSequence,
            other => other,
        };
    }

    /// COPY or INSERT.
    pub(super) fn rows(&mut self) {
        self.has_rows = true;
    }

    /// What all of the text has; `None` if its comments do not say it.
    pub(super) fn finish(&self, encoding: &TextEncoding) -> Option<DataCoverage> {
        let is_announced = self.listed.definitions + self.listed.data > 0;
        let is_unknown = !is_announced
            || (self.has_rows && !self.announces_rows)
            || (self.is_cut && self.announces_rows);
        if is_unknown {
            return None;
        }
        let roles = self.roles.iter();
        let roles: Vec<(EntryRole, &str, &str)> = roles
            .map(|(role, namespace, name)| (*role, namespace.as_str(), name.as_str()))
            .collect();
        Some(DataCoverage::of(&roles, self.listed, encoding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ArchiveError;
    use crate::{Archive, ArchiveSource, Chunk, DataSink, DecryptionKeys, Limits, Statement};

    /// An entry of this kind and name in the schema `s`, with this definition.
    fn entry(id: i32, kind: &str, name: &str, defn: &str) -> TocEntry {
        let mut e = TocEntry::bare(id, kind, name);
        e.namespace = Some("s".into());
        e.has_data = kind == "TABLE DATA";
        defn.clone_into(&mut e.defn);
        e
    }

    fn coverage(entries: &[TocEntry]) -> DataCoverage {
        DataCoverage::of_entries(entries, &TextEncoding::new("UTF8"))
    }

    fn bare(coverage: &DataCoverage) -> Vec<(String, bool)> {
        let bare = coverage.bare.iter();
        bare.map(|b| (b.written(), b.is_unlogged)).collect()
    }

    #[test]
    fn a_table_without_its_rows_is_found_and_what_has_none_is_not() {
        let mut view = entry(7, "RULE", "v _RETURN", "CREATE RULE");
        view.dependencies = vec![DumpId(6)];
        let mut by_kind = entry(8, "TABLE", "root", "CREATE TABLE s.root (a integer)");
        by_kind.relkind = Some('p');
        let whole = [
            entry(1, "TABLE", "t", "CREATE TABLE s.t (a integer);"),
            entry(2, "TABLE DATA", "t", ""),
            entry(
                3,
                "TABLE",
                "p",
                "CREATE TABLE s.p (a integer DEFAULT length('(')) PARTITION BY RANGE (a);",
            ),
            entry(4, "TABLE", "u", "CREATE UNLOGGED TABLE s.u (a integer);"),
            entry(5, "FOREIGN TABLE", "f", "CREATE FOREIGN TABLE s.f ();"),
            entry(6, "TABLE", "v", "CREATE TABLE s.v (a integer);"),
            view,
            by_kind,
            entry(9, "MATERIALIZED VIEW", "m", "CREATE MATERIALIZED VIEW"),
            entry(10, "SEQUENCE", "u_id_seq", "CREATE SEQUENCE s.u_id_seq"),
            entry(11, "SEQUENCE", "q", "CREATE SEQUENCE s.q"),
            entry(12, "SEQUENCE SET", "q", "SELECT setval"),
        ];
        let found = coverage(&whole);
        assert_eq!((found.tables, found.filled), (1, 1), "{found:?}");
        assert_eq!((found.lacking, found.undefined), (0, 0), "{found:?}");
        let unlogged = [("s.u".to_owned(), true), ("s.u_id_seq".to_owned(), true)];
        assert_eq!(bare(&found), unlogged);
        // In a string, or in parentheses, the words mean nothing.
        let looks_partitioned = [
            entry(
                1,
                "TABLE",
                "a",
                "CREATE TABLE s.a (b text DEFAULT ') PARTITION BY RANGE (b)');",
            ),
            entry(
                2,
                "TABLE",
                "Other \"b\"",
                "CREATE TABLE s.b (c integer DEFAULT f(rank() OVER (PARTITION BY 1)));",
            ),
            entry(3, "SEQUENCE", "q", "CREATE SEQUENCE s.q"),
        ];
        let found = coverage(&looks_partitioned);
        let all = ["s.a", "s.\"Other \"\"b\"\"\"", "s.q"];
        assert_eq!(bare(&found), all.map(|name| (name.to_owned(), false)));
        assert_eq!((found.tables, found.filled, found.lacking), (2, 0, 3));
        assert_eq!((found.definitions, found.data), (3, 0));
    }

    #[test]
    fn data_without_its_definition_is_counted_unless_an_extension_may_have_it() {
        let rows = entry(1, "TABLE DATA", "t", "");
        let value = entry(2, "SEQUENCE SET", "q", "");
        let alone = coverage(&[rows.clone(), value.clone()]);
        assert_eq!(
            (alone.definitions, alone.data, alone.undefined),
            (0, 2, 2),
            "{alone:?}"
        );
        let extension = entry(3, "EXTENSION", "e", "CREATE EXTENSION e");
        assert_eq!(coverage(&[extension, rows, value]).undefined, 0);
    }

    /// Takes everything, keeps nothing.
    struct Nothing;

    impl DataSink for Nothing {
        fn begin(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
            Ok(())
        }

        fn chunk(&mut self, _: Chunk) -> Result<(), ArchiveError> {
            Ok(())
        }

        fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
            Ok(())
        }

        fn statement(&mut self, _: Statement) -> Result<(), ArchiveError> {
            Ok(())
        }
    }

    /// What is known of a text once all of it was read.
    fn of_text(body: &str) -> Option<DataCoverage> {
        let text = format!(
            "--\n-- PostgreSQL database dump\n--\n\n{body}\n--\n-- PostgreSQL database dump complete\n--\n\n"
        );
        let source = ArchiveSource::once(std::io::Cursor::new(text.into_bytes()));
        let archive = Archive::open(source, Limits::default(), &DecryptionKeys::default()).unwrap();
        let coverage = archive.coverage();
        assert_eq!(coverage.get(), None);
        archive.read_data(&mut Nothing).unwrap();
        coverage.get().cloned()
    }

    const T: &str =
        "--\n-- Name: t; Type: TABLE; Schema: s; Owner: -\n--\n\nCREATE TABLE s.t (a integer);\n";
    const P: &str = "--\n-- Name: p; Type: TABLE; Schema: s; Owner: -\n--\n\nCREATE TABLE s.p (a integer)\nPARTITION BY RANGE (a);\n";
    const ROWS: &str = "--\n-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: -\n--\n\n";
    const COPY: &str = "COPY s.t (a) FROM stdin;\n1\n\\.\n\n";

    #[test]
    fn the_comments_of_a_text_say_what_it_has_data_of() {
        // With --inserts, a table without rows is announced all the same.
        for rows in [format!("{ROWS}{COPY}"), ROWS.to_owned()] {
            let whole = of_text(&format!("{T}{P}{rows}")).unwrap();
            assert_eq!((whole.tables, whole.filled, whole.lacking), (1, 1, 0));
        }
        let definitions = of_text(&format!("{T}{P}")).unwrap();
        assert_eq!((definitions.tables, definitions.filled), (1, 0));
        assert_eq!(bare(&definitions), [("s.t".to_owned(), false)]);
        // Written one behind the other, they are whole.
        let both = of_text(&format!("{T}{P}SET search_path = s;\n{ROWS}{COPY}")).unwrap();
        assert_eq!((both.filled, both.lacking, both.undefined), (1, 0, 0));
        let rows = of_text(&format!("{ROWS}{COPY}")).unwrap();
        assert_eq!((rows.definitions, rows.undefined), (0, 1));
        // Where comments are missing, nothing is known.
        for unknown in [
            format!("CREATE TABLE s.t (a integer);\n{COPY}"),
            format!("{T}{COPY}"),
            "CREATE TABLE s.t (a integer);\n".to_owned(),
        ] {
            assert_eq!(of_text(&unknown), None, "{unknown}");
        }
    }
}

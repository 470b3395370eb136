//! Statements for an entry: what `pg_restore` would send for it, settings, definition and owner
//! together. The rules are those of `pg_backup_archiver.c` (`_printTocEntry`).

use std::collections::HashMap;
use std::sync::Arc;

use super::table_locks::ConstraintStep;
use crate::postgres::{ident, literal};
use pgdump_archive::{DumpId, EntryKind, TextEncoding, TocEntry, copy_target};

/// Settings of the dump that every session needs, from the entries that have them.
#[derive(Debug, Clone, Default)]
pub(crate) struct DumpSettings {
    /// Whether the server has no `escape_string_warning`: version 19 removed it.
    never_warns_of_escapes: bool,
    standard_strings: Option<String>,
    search_path: Option<String>,
    object_groups: Arc<ObjectGroups>,
}

/// OIDs of the large objects of each group, by the dump id of its entry.
type ObjectGroups = HashMap<DumpId, Vec<String>>;

impl DumpSettings {
    /// `version`: of the server, as in `server_version_num`.
    pub(crate) fn of(entries: &[TocEntry], version: u32) -> Self {
        let defn = |kind: EntryKind| {
            entries
                .iter()
                .find(|e| e.kind == kind)
                .map(|e| e.defn.clone())
        };
        let groups = entries.iter().filter(|e| e.kind == EntryKind::BlobMetadata);
        let groups = groups.map(|e| (e.dump_id, object_numbers(e).map(str::to_owned).collect()));
        DumpSettings {
            never_warns_of_escapes: version >= 190000,
            standard_strings: defn(EntryKind::StdStrings),
            search_path: defn(EntryKind::SearchPath),
            object_groups: Arc::new(groups.collect()),
        }
    }

    /// Whether a backslash in the archive's string constants is an ordinary character.
    pub(crate) fn has_standard_strings(&self) -> bool {
        let setting = self.standard_strings.as_deref();
        setting.is_none_or(|sql| sql.contains("'on'"))
    }

    /// Statements for a new session on the staging database.
    pub(crate) fn session_sql(&self) -> String {
        let mut sql = String::from(
            "SET check_function_bodies = false; SET xmloption = content; SET row_security = off; \
             SET synchronous_commit = off;",
        );
        if !self.never_warns_of_escapes {
            sql.push_str(" SET escape_string_warning = off;");
        }
        sql.push_str(self.standard_strings.as_deref().unwrap_or_default());
        sql.push_str(self.search_path.as_deref().unwrap_or_default());
        sql
    }
}

/// Current output settings of a session; entries change them only if they differ.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutputState {
    schema: Option<String>,
    tablespace: Option<String>,
    table_am: Option<String>,
    /// The dump sets the search path once, so entries must not change it.
    fixed_search_path: bool,
    object_groups: Arc<ObjectGroups>,
}

impl OutputState {
    pub(crate) fn new(settings: &DumpSettings) -> Self {
        OutputState {
            fixed_search_path: settings.search_path.is_some(),
            object_groups: settings.object_groups.clone(),
            ..OutputState::default()
        }
    }

    /// The same for one step of `entry`.
    pub(crate) fn sql_for_part(&mut self, entry: &TocEntry, part: ConstraintStep) -> String {
        let sql = match (part, key_as_index(entry)) {
            (ConstraintStep::Index, Some((index, _))) => index,
            (ConstraintStep::Key, Some((_, key))) => key,
            _ => return self.sql_for(entry),
        };
        self.settings_for(entry) + &sql
    }

    fn settings_for(&mut self, entry: &TocEntry) -> String {
        let mut sql = String::new();
        self.select_schema(entry, &mut sql);
        self.select_storage(entry, &mut sql);
        sql
    }

    /// One string of statements that creates `entry`; empty if there is nothing to run.
    pub(crate) fn sql_for(&mut self, entry: &TocEntry) -> String {
        let mut sql = self.settings_for(entry);
        match &entry.kind {
            EntryKind::BlobMetadata => create_large_objects(entry, &mut sql),
            EntryKind::Acl if grants_on_group(entry) => {
                grant_large_objects(entry, &self.object_groups, &mut sql)
            }
            EntryKind::Schema
                if entry.tag == "public" && entry.defn.starts_with("CREATE SCHEMA") => {}
            _ => sql.push_str(&entry.defn),
        }
        if let (Some(am), Some('p')) = (&entry.table_am, entry.relkind) {
            let table = qualified(entry);
            sql.push_str(&format!(
                "\nALTER TABLE {table} SET ACCESS METHOD {};",
                ident(am)
            ));
        }
        set_owner(entry, &mut sql);
        sql
    }

    /// Settings required before data of `entry` is sent; empty if they are already in force. Old archives
    /// name a table without its schema.
    pub(crate) fn sql_before_data(&mut self, entry: &TocEntry) -> String {
        let mut sql = String::new();
        self.select_schema(entry, &mut sql);
        sql
    }

    fn select_schema(&mut self, entry: &TocEntry, sql: &mut String) {
        let Some(schema) = entry
            .namespace
            .as_deref()
            .filter(|_| !self.fixed_search_path)
        else {
            return;
        };
        if self.schema.as_deref() == Some(schema) {
            return;
        }
        self.schema = Some(schema.to_owned());
        let tail = if schema == "pg_catalog" {
            ""
        } else {
            ", pg_catalog"
        };
        sql.push_str(&format!("SET search_path = {}{tail};\n", ident(schema)));
    }

    fn select_storage(&mut self, entry: &TocEntry, sql: &mut String) {
        if let Some(space) = &entry.tablespace
            && self.tablespace.as_ref() != Some(space)
        {
            let value = if space.is_empty() {
                "''".to_owned()
            } else {
                ident(space)
            };
            sql.push_str(&format!("SET default_tablespace = {value};\n"));
            self.tablespace = Some(space.clone());
        }
        if let Some(am) = &entry.table_am
            && entry.relkind != Some('p')
            && self.table_am.as_ref() != Some(am)
        {
            sql.push_str(&format!(
                "SET default_table_access_method = {};\n",
                ident(am)
            ));
            self.table_am = Some(am.clone());
        }
    }
}

/// The table of an entry, with its schema if the archive has it.
pub(crate) fn qualified(entry: &TocEntry) -> String {
    match &entry.namespace {
        Some(schema) => format!("{}.{}", ident(schema), ident(&entry.tag)),
        None => ident(&entry.tag),
    }
}

/// The OIDs in a `BLOB METADATA` entry, one per line.
fn object_numbers(entry: &TocEntry) -> impl Iterator<Item = &str> {
    entry
        .defn
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()))
}

/// Creates the large objects of a group as their owner. `ALTER LARGE OBJECT … OWNER TO` would lock each of them until
/// the end of the transaction, and a group has up to 1,000.
fn create_large_objects(entry: &TocEntry, sql: &mut String) {
    let oids: Vec<_> = object_numbers(entry).collect();
    let create = format!(
        "SELECT pg_catalog.lo_create(o) FROM pg_catalog.unnest('{{{}}}'::pg_catalog.oid[]) o;",
        oids.join(",")
    );
    if has_owner(entry) {
        let owner = ident(&entry.owner);
        sql.push_str(&format!("SET LOCAL ROLE {owner};\n{create}\nRESET ROLE;"));
    } else {
        sql.push_str(&create);
    }
}

/// Whether an entry grants privileges on each large object of a group. From PostgreSQL 18 on, each grant locks its
/// object until the end of the transaction.
pub(crate) fn grants_on_group(entry: &TocEntry) -> bool {
    entry.kind == EntryKind::Acl && entry.tag.starts_with("LARGE OBJECTS")
}

/// The privilege entry of a group of large objects names one of them, but applies to each of the group.
fn grant_large_objects(entry: &TocEntry, groups: &ObjectGroups, sql: &mut String) {
    let Some(group) = entry.dependencies.iter().find_map(|id| groups.get(id)) else {
        return sql.push_str(&entry.defn);
    };
    for command in split_commands(&entry.defn) {
        let Some((head, rest)) = command.split_once("LARGE OBJECT ") else {
            continue;
        };
        let tail = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        for oid in group {
            sql.push_str(&format!("{head}LARGE OBJECT {oid}{tail};\n"));
        }
    }
}

/// Commands without their semicolons; quoted role names may contain one.
fn split_commands(text: &str) -> Vec<&str> {
    let (mut commands, mut start, mut quoted) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ';' if !quoted => {
                commands.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    commands
}

/// Whether the archive says who owns the object of an entry.
fn has_owner(entry: &TocEntry) -> bool {
    !entry.owner.is_empty() && !entry.drop_stmt.is_empty()
}

/// Whether an entry's statements name its owner.
pub(crate) fn names_owner(entry: &TocEntry) -> bool {
    let of_group = entry.kind == EntryKind::BlobMetadata;
    has_owner(entry) && (of_group || owned_object(entry).is_some())
}

fn set_owner(entry: &TocEntry, sql: &mut String) {
    if let Some(object) = owned_object(entry).filter(|_| has_owner(entry)) {
        let owner = ident(&entry.owner);
        sql.push_str(&format!("\nALTER {object} OWNER TO {owner};"));
    }
}

/// The object as `ALTER … OWNER TO` names it; `None` for kinds without an owner of their own.
fn owned_object(entry: &TocEntry) -> Option<String> {
    match &entry.kind {
        EntryKind::Collation
        | EntryKind::Conversion
        | EntryKind::Domain
        | EntryKind::ForeignTable
        | EntryKind::MaterializedView
        | EntryKind::Sequence
        | EntryKind::Statistics
        | EntryKind::Table
        | EntryKind::TextSearchDictionary
        | EntryKind::TextSearchConfiguration
        | EntryKind::Type
        | EntryKind::View => Some(format!("{} {}", entry.kind, qualified(entry))),
        EntryKind::EventTrigger
        | EntryKind::ForeignDataWrapper
        | EntryKind::ProceduralLanguage
        | EntryKind::Publication
        | EntryKind::Schema
        | EntryKind::Server
        | EntryKind::Subscription => Some(format!("{} {}", entry.kind, ident(&entry.tag))),
        EntryKind::Blob => Some(format!("LARGE OBJECT {}", entry.tag)),
        EntryKind::Aggregate
        | EntryKind::Function
        | EntryKind::Operator
        | EntryKind::OperatorClass
        | EntryKind::OperatorFamily
        | EntryKind::Procedure => {
            let object = entry.drop_stmt.strip_prefix("DROP ")?;
            Some(object.trim_end_matches(['\n', ';']).to_owned())
        }
        _ => None,
    }
}

/// How a table's data is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyAs {
    /// FREEZE; requires that the same transaction created or truncated the table.
    pub freeze: bool,
    /// In COPY's binary format instead of text.
    pub binary: bool,
}

/// `COPY … FROM stdin` for a table's data; names the encoding if it differs from the session's.
pub(crate) fn copy_sql(entry: &TocEntry, encoding: &TextEncoding, sent: CopyAs) -> String {
    let copy = entry.copy_stmt.trim().trim_end_matches(';');
    let encoding = (!encoding.is_utf8()).then(|| format!("ENCODING {}", literal(encoding.name())));
    let format = sent.binary.then(|| "FORMAT binary".to_owned());
    let freeze = sent.freeze.then(|| "FREEZE".to_owned());
    let options: Vec<String> = encoding.into_iter().chain(format).chain(freeze).collect();
    if options.is_empty() {
        copy.to_owned()
    } else {
        format!("{copy} WITH ({})", options.join(", "))
    }
}

/// A query with the columns of a COPY.
pub(crate) fn columns_sql(entry: &TocEntry) -> Option<String> {
    let (relation, columns) = copy_target(&entry.copy_stmt)?;
    let columns = columns?;
    let names = columns.strip_prefix('(')?.strip_suffix(')')?;
    Some(format!("SELECT {names} FROM ONLY {relation}"))
}

/// The names of the columns of a COPY, as the catalog has them.
pub(crate) fn copied_columns(entry: &TocEntry) -> Vec<String> {
    let columns = copy_target(&entry.copy_stmt).and_then(|(_, columns)| columns);
    let names = columns.as_deref();
    let names = names.and_then(|c| c.strip_prefix('(')?.strip_suffix(')'));
    let names = names.map(|names| names.split(", ").map(plain).collect());
    names.unwrap_or_default()
}

/// Whether an entry's COPY fills its own table: rows of a partition may be copied into its root.
pub(crate) fn copies_into_own_table(entry: &TocEntry) -> bool {
    let Some(rest) = entry.copy_stmt.trim_start().strip_prefix("COPY ") else {
        return false;
    };
    let (mut quoted, mut parts, mut start) = (false, vec![], 0);
    for (i, c) in rest.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '.' | ' ' | '(' if !quoted => {
                parts.push(plain(&rest[start..i]));
                start = i + 1;
                if c != '.' {
                    break;
                }
            }
            _ => {}
        }
    }
    match parts.as_slice() {
        [schema, table] => entry.namespace.as_ref() == Some(schema) && *table == entry.tag,
        [table] => *table == entry.tag,
        _ => false,
    }
}

/// A name as the catalog stores it.
fn plain(name: &str) -> String {
    match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// For a primary key or unique constraint without special options: the statement that builds its index, which
/// can run concurrently with other index builds, and the one that creates the constraint from the index.
pub(crate) fn key_as_index(entry: &TocEntry) -> Option<(String, String)> {
    let definition = entry.defn.trim().strip_prefix("ALTER TABLE ONLY ")?;
    let (table, rest) = definition.split_once("\n    ADD CONSTRAINT ")?;
    let name = constraint_name(rest)?;
    let rest = rest[name.len()..].strip_prefix(' ')?;
    let kinds = ["PRIMARY KEY", "UNIQUE"].into_iter();
    let (kind, rest) = kinds
        .filter_map(|kind| Some((kind, rest.strip_prefix(kind)?)))
        .next()?;
    let columns = rest.strip_prefix(" (")?.strip_suffix(");")?;
    let is_plain = !table.contains(['\n', ';']) && columns.split(", ").all(is_plain_name);
    is_plain.then(|| {
        (
            format!("CREATE UNIQUE INDEX {name} ON {table} USING btree ({columns});"),
            format!("ALTER TABLE ONLY {table} ADD CONSTRAINT {name} {kind} USING INDEX {name};"),
        )
    })
}

/// The name at the start of a constraint's definition, as written.
fn constraint_name(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('"') {
        // Names that contain a doubled quote are rare, so they are not handled.
        Some(quoted) => quoted.find('"')? + 2,
        None => text.find(' ')?,
    };
    Some(&text[..end])
}

fn is_plain_name(name: &str) -> bool {
    match name.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(inner) => !inner.contains('"'),
        None => name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(desc: &str, tag: &str, defn: &str) -> TocEntry {
        let mut e = TocEntry::bare(1, desc, tag);
        (e.defn, e.drop_stmt) = (defn.into(), format!("DROP {desc} {tag};\n"));
        (e.namespace, e.owner) = (Some("s".into()), "o\"x".into());
        e
    }

    #[test]
    fn owner_statement_depends_on_the_kind_of_object() {
        let mut state = OutputState {
            fixed_search_path: true,
            ..OutputState::default()
        };
        let sql = state.sql_for(&entry("TABLE", "t", "CREATE TABLE s.t ();\n"));
        assert_eq!(
            sql,
            "CREATE TABLE s.t ();\n\nALTER TABLE \"s\".\"t\" OWNER TO \"o\"\"x\";"
        );
        let sql = state.sql_for(&entry("FUNCTION", "f(integer)", "CREATE FUNCTION …;"));
        assert!(
            sql.ends_with("ALTER FUNCTION f(integer) OWNER TO \"o\"\"x\";"),
            "{sql}"
        );
        let sql = state.sql_for(&entry("INDEX", "i", "CREATE INDEX i;"));
        assert_eq!(sql, "CREATE INDEX i;");
    }

    #[test]
    fn copies_into_own_table_are_recognized() {
        let mut e = entry("TABLE DATA", "t \"x\".(y", "");
        let mut of = |schema: Option<&str>, copy: &str| {
            (e.namespace, e.copy_stmt) = (schema.map(str::to_owned), copy.to_owned());
            copies_into_own_table(&e)
        };
        let name = r#""S.1"."t ""x"".(y""#;
        assert!(of(
            Some("S.1"),
            &format!("COPY {name} (a, b) FROM stdin;\n")
        ));
        assert!(of(Some("S.1"), &format!("COPY {name} FROM stdin;\n")));
        assert!(of(Some("s"), r#"COPY "t ""x"".(y" FROM stdin;"#));
        assert!(
            !of(Some("s"), &format!("COPY {name} (a) FROM stdin;")),
            "of another schema"
        );
        assert!(!of(Some("s"), "COPY s.root (a) FROM stdin;"));
        assert!(!of(Some("s"), ""));
    }

    #[test]
    fn only_plain_keys_are_created_from_an_index() {
        let of = |tail: &str| {
            let defn = format!("ALTER TABLE ONLY s.\"T t\"\n    ADD CONSTRAINT {tail};\n");
            key_as_index(&entry("CONSTRAINT", "T t k", &defn))
        };
        let (index, key) = of("\"k K\" PRIMARY KEY (a, \"B b\")").unwrap();
        assert_eq!(
            index,
            "CREATE UNIQUE INDEX \"k K\" ON s.\"T t\" USING btree (a, \"B b\");"
        );
        assert_eq!(
            key,
            "ALTER TABLE ONLY s.\"T t\" ADD CONSTRAINT \"k K\" PRIMARY KEY USING INDEX \"k K\";"
        );
        assert!(
            of("k UNIQUE (a)")
                .unwrap()
                .1
                .contains("ADD CONSTRAINT k UNIQUE USING INDEX k;")
        );
        for other in [
            "k UNIQUE NULLS NOT DISTINCT (a)",
            "k UNIQUE (a) INCLUDE (b)",
            "k UNIQUE (a) WITH (fillfactor='70')",
            "k PRIMARY KEY (a) DEFERRABLE INITIALLY DEFERRED",
            "k PRIMARY KEY (a, b WITHOUT OVERLAPS)",
            "k EXCLUDE USING gist (a WITH &&)",
            "k UNIQUE (a);\nALTER TABLE s.t CLUSTER ON k",
            "k UNIQUE (\"a\"\"b\")",
            "\"k\"\"k\" UNIQUE (a)",
            "k CHECK ((a > 0))",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(
            key_as_index(&entry(
                "CONSTRAINT",
                "t k",
                "ALTER TABLE s.t\n    ADD CONSTRAINT k UNIQUE (a);"
            )),
            None
        );
    }

    #[test]
    fn settings_are_sent_only_if_they_change() {
        let mut state = OutputState::default();
        let mut e = entry("TABLE", "t", "X;");
        e.owner.clear();
        e.tablespace = Some(String::new());
        e.table_am = Some("heap".into());
        let first = state.sql_for(&e);
        assert!(first.contains("search_path = \"s\", pg_catalog"));
        assert!(first.contains("default_tablespace = ''"));
        assert!(first.contains("default_table_access_method = \"heap\""));
        assert_eq!(state.sql_for(&e), "X;");
    }

    #[test]
    fn a_server_is_asked_only_for_settings_that_it_has() {
        let warns = |version| {
            let sql = DumpSettings::of(&[], version).session_sql();
            sql.contains("escape_string_warning")
        };
        assert!(warns(130000) && warns(180000) && !warns(190000));
    }

    #[test]
    fn privileges_of_a_group_apply_to_each_large_object() {
        let mut group = entry("BLOB METADATA", "7..9", "7\n9\n");
        group.dump_id = DumpId(5);
        let mut acl = entry(
            "ACL",
            "LARGE OBJECTS 7..9",
            "GRANT SELECT ON LARGE OBJECT 7 TO \"a;b\";\n",
        );
        acl.dependencies = vec![DumpId(5)];
        acl.owner.clear();
        let groups = DumpSettings::of(std::slice::from_ref(&group), 150000);
        let mut state = OutputState {
            fixed_search_path: true,
            ..OutputState::new(&groups)
        };
        let sql = state.sql_for(&acl);
        assert_eq!(
            sql,
            "GRANT SELECT ON LARGE OBJECT 7 TO \"a;b\";\nGRANT SELECT ON LARGE OBJECT 9 TO \"a;b\";\n"
        );
        // Without a statement for each object, which would lock it.
        let create =
            "SELECT pg_catalog.lo_create(o) FROM pg_catalog.unnest('{7,9}'::pg_catalog.oid[]) o;";
        assert_eq!(
            state.sql_for(&group),
            format!("SET LOCAL ROLE \"o\"\"x\";\n{create}\nRESET ROLE;")
        );
        group.owner.clear();
        assert_eq!(state.sql_for(&group), create);
        assert!(grants_on_group(&acl) && !grants_on_group(&entry("ACL", "LARGE OBJECT 7", "")));
    }
}

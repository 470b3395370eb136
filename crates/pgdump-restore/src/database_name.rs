//! Entries of a dump that depend on the name of the database they are restored into. Pure.

use crate::extension_hooks::{ExtensionHooks, hooks_of};
use pgdump_archive::{EntryKind, TocEntry};

/// Words that evaluate to the name of the current database.
const WORDS: [&str; 3] = [
    "current_database",
    "current_catalog",
    "information_schema_catalog_name",
];

/// Catalogs, views, their columns and functions that contain the name or OID of a database.
const CATALOG_WORDS: [&str; 19] = [
    "datname",
    "datid",
    "dattablespace",
    "dblink_current_database",
    "pg_database",
    "pg_database_size",
    "pg_db_role_setting",
    "pg_locks",
    "pg_prepared_xacts",
    "pg_replication_slots",
    "pg_shdepend",
    "pg_shdescription",
    "pg_shseclabel",
    "pg_stat_activity",
    "pg_stat_get_activity",
    "pg_stat_statements",
    "pg_subscription",
    "pg_tablespace_databases",
    "regdatabase",
];

/// Such as `pg_stat_database_conflicts`, `pg_stat_progress_vacuum` and `pg_stat_get_db_xact_commit`.
const CATALOG_PREFIXES: [&str; 3] = ["pg_stat_database", "pg_stat_progress_", "pg_stat_get_db_"];

/// Entries that depend on the database's name, as far as their definitions show it. Rather too many than too few:
/// one entry only decides where the database is created.
pub fn that_name_their_database(entries: &[TocEntry]) -> Vec<String> {
    // A view is only evaluated during a restore if something else reads it then.
    let reads_views = entries.iter().any(|e| {
        matches!(
            e.kind,
            EntryKind::MaterializedView | EntryKind::Function | EntryKind::Procedure
        )
    });
    entries
        .iter()
        .filter(|e| !e.describes_database() && names_it(e, reads_views))
        .map(TocEntry::name)
        .collect()
}

fn names_it(e: &TocEntry, reads_views: bool) -> bool {
    match &e.kind {
        EntryKind::Extension => hooks_of(&e.tag).is_some_and(ExtensionHooks::is_bound_to_database),
        EntryKind::Comment | EntryKind::Acl => false,
        EntryKind::View if !reads_views => has(&e.defn, is_name),
        _ => has(&e.defn, |w| is_name(w) || is_of_catalog(w)) || reads_catalog_columns(&e.defn),
    }
}

fn words(definition: &str) -> impl Iterator<Item = &str> {
    definition.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn has(definition: &str, is: impl Fn(&str) -> bool) -> bool {
    words(definition).any(is)
}

fn is_name(word: &str) -> bool {
    WORDS.iter().any(|name| word.eq_ignore_ascii_case(name))
}

fn is_of_catalog(word: &str) -> bool {
    let begins = |prefix: &&str| {
        let start = word.get(..prefix.len());
        start.is_some_and(|w| w.eq_ignore_ascii_case(prefix))
    };
    CATALOG_WORDS.iter().any(|w| word.eq_ignore_ascii_case(w))
        || CATALOG_PREFIXES.iter().any(begins)
}

/// The views of the information schema have the database's name in their columns `catalog_name` and `*_catalog`.
fn reads_catalog_columns(definition: &str) -> bool {
    let is_column = |w: &str| {
        let ends = |suffix: &str| {
            let end = w.len().checked_sub(suffix.len()).and_then(|at| w.get(at..));
            end.is_some_and(|e| e.eq_ignore_ascii_case(suffix))
        };
        ends("catalog_name") || (ends("_catalog") && !w.eq_ignore_ascii_case("pg_catalog"))
    };
    has(definition, |w| w.eq_ignore_ascii_case("information_schema"))
        && (definition.contains('*') || has(definition, is_column))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_depend_on_the_database_name_are_found() {
        let entry = |desc: &str, tag: &str, defn: &str| {
            let mut e = TocEntry::bare(1, desc, tag);
            e.defn = defn.into();
            e
        };
        let all = [
            entry(
                "MATERIALIZED VIEW",
                "m",
                "CREATE MATERIALIZED VIEW m AS SELECT Current_Database() AS db",
            ),
            entry(
                "TABLE",
                "t",
                "CREATE TABLE t (a text DEFAULT CURRENT_CATALOG)",
            ),
            entry("EXTENSION", "pg_cron", "CREATE EXTENSION pg_cron"),
            entry("TABLE", "u", "CREATE TABLE u (current_database_name text)"),
            entry("EXTENSION", "hstore", "CREATE EXTENSION hstore"),
            entry("DATABASE", "d", "CREATE DATABASE current_database"),
            entry(
                "COMMENT",
                "TABLE u",
                "COMMENT ON TABLE u IS 'of current_database()'",
            ),
        ];
        let found = that_name_their_database(&all);
        assert_eq!(
            found,
            ["MATERIALIZED VIEW m", "TABLE t", "EXTENSION pg_cron"]
        );
    }

    #[test]
    fn what_reads_the_name_from_the_catalogs_depends_on_it() {
        let entry = |desc: &str, tag: &str, defn: &str| {
            let mut e = TocEntry::bare(1, desc, tag);
            e.defn = defn.into();
            e
        };
        let view = |tag: &str, query: &str| {
            let defn = format!("CREATE MATERIALIZED VIEW {tag} AS SELECT {query}");
            entry("MATERIALIZED VIEW", tag, &defn)
        };
        let depend = [
            view(
                "a",
                "(tables.table_catalog)::text AS c FROM information_schema.tables",
            ),
            view(
                "b",
                "schemata.catalog_name FROM information_schema.schemata",
            ),
            view("c", "to_jsonb(t.*) AS j FROM INFORMATION_SCHEMA.columns t"),
            view("d", "columns.UDT_CATALOG FROM information_schema.columns"),
            view("e", "pg_stat_activity.pid FROM pg_stat_activity"),
            view("f", "count(*) FROM pg_catalog.pg_database"),
            view("g", "s.datname FROM s"),
            view("h", "1 FROM pg_stat_database_conflicts"),
            view("i", "1 FROM pg_stat_progress_vacuum"),
            view("j", "pg_locks.database FROM pg_locks"),
            entry(
                "TABLE",
                "k",
                "CREATE TABLE k (a int DEFAULT pg_database_size(1))",
            ),
            entry(
                "INDEX",
                "l",
                "CREATE INDEX l ON t (pg_stat_get_db_xact_commit(a))",
            ),
            entry(
                "VIEW",
                "m",
                "CREATE VIEW m AS SELECT pg_stat_activity.datid FROM pg_stat_activity",
            ),
            entry(
                "FUNCTION",
                "n",
                "CREATE FUNCTION n() AS $$SELECT datname FROM pg_database$$",
            ),
        ];
        let names: Vec<String> = depend.iter().map(TocEntry::name).collect();
        assert_eq!(that_name_their_database(&depend), names);
        let independent = [
            view("a", "tables.table_name FROM information_schema.tables"),
            view("b", "t.my_catalog FROM t"),
            view("c", "pg_catalog.now() FROM information_schema.sql_features"),
            view("d", "pg_stat_user_tables.relname FROM pg_stat_user_tables"),
            entry(
                "TABLE",
                "e",
                "CREATE TABLE e (datnames text, pg_databases int)",
            ),
        ];
        assert_eq!(that_name_their_database(&independent), Vec::<String>::new());
        // Nothing evaluates a view that only users of the database read.
        let monitoring = "CREATE VIEW v AS SELECT pg_stat_activity.datname FROM pg_stat_activity";
        let alone = [entry("VIEW", "v", monitoring), independent[4].clone()];
        assert_eq!(that_name_their_database(&alone), Vec::<String>::new());
    }
}

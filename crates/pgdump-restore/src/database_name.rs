//! Entries of a dump that depend on the name of the database they are restored into. Pure.

use pgdump_archive::TocEntry;

/// Extensions that a server allows in one database only, named in its configuration.
const BOUND_EXTENSIONS: [&str; 1] = ["pg_cron"];

/// Key words that evaluate to the name of the current database.
const WORDS: [&str; 3] = [
    "current_database",
    "current_catalog",
    "information_schema_catalog_name",
];

/// Entries that depend on the database's name, as far as their definitions show it.
pub fn that_name_their_database(entries: &[TocEntry]) -> Vec<String> {
    let of_database =
        |e: &&TocEntry| e.desc.starts_with("DATABASE") || e.tag.starts_with("DATABASE ");
    entries
        .iter()
        .filter(|e| !of_database(e) && names_it(e))
        .map(TocEntry::name)
        .collect()
}

fn names_it(e: &TocEntry) -> bool {
    match e.desc.as_str() {
        "EXTENSION" => BOUND_EXTENSIONS.contains(&e.tag.as_str()),
        "COMMENT" | "ACL" => false,
        _ => has_word(&e.defn),
    }
}

fn has_word(definition: &str) -> bool {
    let words = definition.split(|c: char| !c.is_alphanumeric() && c != '_');
    words
        .into_iter()
        .any(|w| WORDS.iter().any(|name| w.eq_ignore_ascii_case(name)))
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
}

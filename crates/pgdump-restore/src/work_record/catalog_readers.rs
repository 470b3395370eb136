//! Definitions that read the catalog while a restore runs, and would find the record there. Pure.

use pgdump_archive::{Dialect, EntryKind, TocEntry, first_tokens};

/// The schema of the record.
pub const WORK_SCHEMA: &str = "pgrestored_work";

/// Catalogs and views that list objects of the database, whatever schema they are in.
const CATALOGS: [&str; 24] = [
    "information_schema",
    "pg_attrdef",
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_default_acl",
    "pg_depend",
    "pg_description",
    "pg_index",
    "pg_indexes",
    "pg_init_privs",
    "pg_namespace",
    "pg_policies",
    "pg_proc",
    "pg_publication_tables",
    "pg_roles",
    "pg_sequences",
    "pg_shdepend",
    "pg_stats",
    "pg_tables",
    "pg_trigger",
    "pg_type",
    "pg_views",
    "pg_database_size",
];
/// Such as `pg_stat_user_tables` and `pg_total_relation_size`.
const CATALOG_PREFIXES: [&str; 4] = [
    "pg_stat",
    "pg_total_relation",
    "pg_relation_",
    "pg_indexes_",
];

/// Why a restore of these entries is not recorded, if it is not: the record would be in its way, or in its rows.
pub fn not_recordable(entries: &[TocEntry]) -> Option<String> {
    let is_own = |e: &TocEntry| e.kind == EntryKind::Schema && e.tag == WORK_SCHEMA;
    if entries.iter().any(is_own) {
        return Some(format!("the backup has a schema {WORK_SCHEMA} of its own"));
    }
    let view = that_read_the_catalog(entries).into_iter().next()?;
    Some(format!("{view} may read the catalog when it is filled"))
}

/// Materialized views whose rows may tell of the record, as far as the definitions of `entries` show it: something that a
/// restore evaluates reads the catalog. Rather too many than too few: a restore of them is not recorded.
pub fn that_read_the_catalog(entries: &[TocEntry]) -> Vec<String> {
    let is_evaluated = |e: &&TocEntry| e.kind == EntryKind::MaterializedView;
    // What a materialized view reads may be behind other views and functions.
    let may_be_read = |e: &TocEntry| {
        matches!(
            e.kind,
            EntryKind::Function
                | EntryKind::MaterializedView
                | EntryKind::Procedure
                | EntryKind::Rule
                | EntryKind::View
        )
    };
    let reads = entries
        .iter()
        .any(|e| may_be_read(e) && reads_the_catalog(&e.defn));
    if !reads {
        return vec![];
    }
    let views = entries.iter().filter(is_evaluated);
    views.map(TocEntry::name).collect()
}

/// Whether SQL text names the schema of the record, and therefore perhaps has one of its own.
pub(crate) fn names_record(sql: &str) -> bool {
    let mut places = sql.as_bytes().windows(WORK_SCHEMA.len());
    places.any(|place| place.eq_ignore_ascii_case(WORK_SCHEMA.as_bytes()))
}

/// Whether a definition names the catalog.
pub(crate) fn reads_the_catalog(definition: &str) -> bool {
    let mut words = definition.split(|c: char| !c.is_alphanumeric() && c != '_');
    let is_catalog = |word: &str| {
        let begins = |prefix: &&str| {
            let start = word.get(..prefix.len());
            start.is_some_and(|w| w.eq_ignore_ascii_case(prefix))
        };
        CATALOGS.iter().any(|c| word.eq_ignore_ascii_case(c)) || CATALOG_PREFIXES.iter().any(begins)
    };
    words.any(is_catalog)
}

/// Whether a statement of SQL text fills a materialized view.
pub(crate) fn refreshes(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), 2);
    t.first().is_some_and(|w| w.is("refresh"))
        || t.first().is_some_and(|w| w.is("create"))
            && t.get(1).is_some_and(|w| w.is("materialized"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn materialized_views_behind_which_the_catalog_is_read_are_found() {
        let entry = |desc: &str, tag: &str, defn: &str| {
            let mut e = TocEntry::bare(1, desc, tag);
            e.defn = defn.into();
            e
        };
        let plain = entry("MATERIALIZED VIEW", "m", "… AS SELECT pg_classes.a FROM t");
        let direct = entry(
            "MATERIALIZED VIEW",
            "d",
            "… SELECT * FROM PG_Catalog.pg_class",
        );
        let view = entry("VIEW", "v", "… SELECT * FROM information_schema.tables");
        let table = entry("TABLE", "t", "… DEFAULT 'pg_class'");
        let found = |all: &[&TocEntry]| {
            let all: Vec<TocEntry> = all.iter().map(|e| (*e).clone()).collect();
            that_read_the_catalog(&all)
        };
        assert!(found(&[&plain, &table]).is_empty());
        assert!(found(&[&view, &table]).is_empty(), "nobody evaluates it");
        let own = [entry(
            "SCHEMA",
            "pgrestored_work",
            "CREATE SCHEMA pgrestored_work;",
        )];
        assert!(not_recordable(&own).unwrap().contains("pgrestored_work"));
        assert!(
            not_recordable(&[plain.clone(), view.clone()])
                .unwrap()
                .contains("MATERIALIZED")
        );
        assert_eq!(not_recordable(&[plain.clone(), table.clone()]), None);
        assert_eq!(found(&[&plain, &view]), [plain.name()]);
        assert_eq!(found(&[&plain, &direct]), [plain.name(), direct.name()]);
        assert!(reads_the_catalog("count(*) FROM pg_stat_user_tables"));
        assert!(!reads_the_catalog(
            "pg_catalog.set_config('search_path', '', false)"
        ));
    }

    #[test]
    fn statements_that_fill_a_materialized_view_are_known() {
        assert!(names_record("CREATE SCHEMA PGRestored_Work;"));
        assert!(!names_record("CREATE SCHEMA pgrestored;") && !names_record(""));
        assert!(refreshes("REFRESH MATERIALIZED VIEW s.m;"));
        assert!(refreshes("-- x\nCREATE MATERIALIZED VIEW m AS SELECT 1;"));
        assert!(!refreshes("CREATE VIEW m AS SELECT 1;"));
        assert!(!refreshes("SELECT 'REFRESH';"));
    }
}

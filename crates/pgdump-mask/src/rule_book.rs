//! The rules that apply to a table, the most specific first.

use std::cmp::Reverse;

use crate::file::MaskFile;
use crate::pattern::{NamePattern, TablePattern, most_specific_first};
use crate::rows_spec::RowsSpec;
use crate::rule_spec::RuleSpec;
use crate::shape::TableShape;

/// The file's rules with their patterns read.
pub(crate) struct RuleBook(Vec<Entry>);

/// The rules under a pattern of tables.
pub(crate) struct Entry {
    written: String,
    pattern: TablePattern,
    columns: Vec<(NamePattern, RuleSpec)>,
    rows: Option<RowsSpec>,
}

impl RuleBook {
    pub(crate) fn new(file: &MaskFile) -> Self {
        let entries = file.tables.0.iter().filter_map(|(written, rules)| {
            let columns = rules.columns.0.iter();
            Some(Entry {
                written: written.clone(),
                // The file is checked before: every pattern can be read.
                pattern: TablePattern::parse(written)?,
                columns: columns
                    .map(|(name, rule)| (NamePattern::parse(name), rule.clone()))
                    .collect(),
                rows: rules.rows.clone(),
            })
        });
        Self(entries.collect())
    }

    /// The entries for a table. Its own name is more specific than that of a parent, this than that of the parent's parent, and
    /// every name than a pattern with wildcards: rules of a partitioned table hold for its partitions, whatever else matches them. Of patterns, that with more
    /// literal characters is, whether it matches the table or a parent.
    pub(crate) fn of_table(&self, shape: &TableShape) -> TableRuleset<'_> {
        let mut found = Vec::new();
        for (position, entry) in self.0.iter().enumerate() {
            let is_own = entry.pattern.matches(&shape.schema, &shape.table);
            let of_parent = || {
                let mut parents = shape.parents.iter();
                let at =
                    parents.position(|(schema, table)| entry.pattern.matches(schema, table))?;
                Some(at + 1)
            };
            let distance = if is_own { Some(0) } else { of_parent() };
            if let Some(distance) = distance {
                let (is_exact, literals, position) = entry.pattern.specificity(position);
                // The names of parents are names: how long they are says nothing, and the nearest one counts.
                let (literals, distance) = if is_exact {
                    (0, distance)
                } else {
                    (literals, distance.min(1))
                };
                found.push(((is_exact, literals, Reverse(distance), position), entry));
            }
        }
        found.sort_by_key(|(rank, _)| Reverse(*rank));
        TableRuleset(found.into_iter().map(|(_, entry)| entry).collect())
    }

    /// The patterns, as they are written, that match none of these tables.
    pub(crate) fn unmatched(&self, tables: &[(String, String)]) -> Vec<String> {
        let matches_none = |entry: &&Entry| {
            let mut tables = tables.iter();
            !tables.any(|(schema, table)| entry.pattern.matches(schema, table))
        };
        let unmatched = self.0.iter().filter(matches_none);
        unmatched.map(|entry| entry.written.clone()).collect()
    }
}

/// The entries that apply to a table, the most specific first. The first one that says something about a column, or about rows,
/// decides.
pub(crate) struct TableRuleset<'b>(Vec<&'b Entry>);

impl<'b> TableRuleset<'b> {
    pub(crate) fn rule(&self, column: &str) -> Option<&'b RuleSpec> {
        self.0.iter().find_map(|entry| entry.rule(column))
    }

    pub(crate) fn rows(&self) -> Option<&'b RowsSpec> {
        self.0.iter().find_map(|entry| entry.rows.as_ref())
    }

    /// Columns that entries for exactly this table or a parent name, and that it does not have.
    pub(crate) fn missing_columns(&self, shape: &TableShape) -> Vec<&'b str> {
        let has = |name: &str| shape.columns.iter().any(|c| c.name == name);
        let exact = self.0.iter().filter(|entry| entry.pattern.is_exact());
        let names = exact.flat_map(|entry| entry.columns.iter().filter_map(|(p, _)| p.exact()));
        names.filter(|name| !has(name)).collect()
    }
}

impl Entry {
    fn rule(&self, column: &str) -> Option<&RuleSpec> {
        let mut found: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .filter(|(_, (pattern, _))| pattern.matches(column))
            .map(|(position, (pattern, rule))| (pattern.specificity(position), rule))
            .collect();
        most_specific_first(&mut found);
        found.first().map(|(_, rule)| *rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(table: &str, parent: Option<&str>) -> TableShape {
        TableShape {
            schema: "s".to_owned(),
            table: table.to_owned(),
            columns: Vec::new(),
            parents: parent
                .map(|p| ("s".to_owned(), p.to_owned()))
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn the_most_specific_rule_decides_column_by_column() {
        let file = MaskFile::parse(
            "version: 1\ntables:\n\
             \x20 \"*.*\": { columns: { \"*\": keep, \"*mail*\": { hash: true } } }\n\
             \x20 s.t: { columns: { email: { fake: email }, \"e*\": { null: true } } }\n\
             \x20 s.part: { columns: { note: { set: x } } }\n",
        )
        .unwrap();
        let book = RuleBook::new(&file);
        let rule = |table: &str, parent, column: &str| {
            book.of_table(&shape(table, parent))
                .rule(column)
                .unwrap()
                .in_words()
        };
        assert_eq!(rule("t", None, "email"), "fake email");
        assert_eq!(rule("t", None, "extra"), "null");
        assert_eq!(rule("t", None, "mailbox"), "keyed hash");
        assert_eq!(rule("t", None, "plain"), "keep");
        assert_eq!(rule("u", None, "email"), "keyed hash");
        // A parent's own rules come before wildcards that match the partition.
        assert_eq!(rule("t_1", Some("t"), "email"), "fake email");
        assert_eq!(rule("part", Some("t"), "note"), "constant");
    }

    #[test]
    fn a_better_pattern_of_a_parent_comes_before_one_that_matches_everything() {
        let file = MaskFile::parse(
            "version: 1\ntables:\n\
             \x20 \"*.*\": { columns: { \"*\": keep } }\n\
             \x20 \"s.cust*\": { columns: { email: { null: true } } }\n\
             \x20 s.customers: { columns: { name: { null: true } } }\n\
             \x20 s.p1: { columns: { name: { set: x } } }\n",
        )
        .unwrap();
        let book = RuleBook::new(&file);
        let rule = |table: &str, column: &str| {
            let shape = shape(table, Some("customers"));
            book.of_table(&shape).rule(column).unwrap().in_words()
        };
        assert_eq!(rule("p2024", "email"), "null");
        assert_eq!(rule("p2024", "name"), "null");
        // Its own name comes before that of its parent, which is longer.
        assert_eq!(rule("p1", "name"), "constant");
    }

    #[test]
    fn the_nearest_parent_decides_wherever_it_is_in_the_file() {
        let file = MaskFile::parse(
            "version: 1\ntables:\n\
             \x20 s.near: { columns: { email: { null: true } } }\n\
             \x20 s.far: { columns: { \"*\": keep } }\n",
        )
        .unwrap();
        let book = RuleBook::new(&file);
        let mut leaf = shape("leaf", Some("near"));
        leaf.parents.push(("s".to_owned(), "far".to_owned()));
        let rules = book.of_table(&leaf);
        assert_eq!(rules.rule("email").unwrap().in_words(), "null");
        assert_eq!(rules.rule("id").unwrap().in_words(), "keep");
    }

    #[test]
    fn patterns_without_a_table_and_columns_that_do_not_exist_are_named() {
        let file = MaskFile::parse(
            "version: 1\ntables: { s.t: { columns: { emial: { hash: true } } }, gone.*: { rows: none } }\n",
        )
        .unwrap();
        let book = RuleBook::new(&file);
        let tables = [("s".to_owned(), "t".to_owned())];
        assert_eq!(book.unmatched(&tables), ["gone.*"]);
        assert_eq!(
            book.of_table(&shape("t", None))
                .missing_columns(&shape("t", None)),
            ["emial"]
        );
    }
}

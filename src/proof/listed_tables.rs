//! The tables that a report lists, by their names without quotes.

use std::collections::{BTreeMap, BTreeSet};

use pgdump_archive::{Dialect, Token, tokens};

use super::{TABLES_LEFT_OUT, VerificationReport};

/// What a backup has of the tables that its report lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedTables {
    /// Those with data, and whether that has rows.
    pub filled: BTreeMap<String, bool>,
    /// Those that the backup defines without data.
    pub bare: BTreeSet<String>,
    pub large_objects: u64,
    /// There were too many for the document: only the largest of those with data are listed.
    pub is_cut: bool,
    /// There were too many without data: only the first of those are listed.
    pub is_bare_cut: bool,
}

impl ListedTables {
    /// Whether the backup has data of a table, or defines it.
    pub fn defines(&self, name: &str) -> bool {
        self.filled.contains_key(name) || self.bare.contains(name)
    }

    /// All names, sorted within each kind.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.filled.keys().chain(&self.bare)
    }
}

impl VerificationReport {
    /// The tables that it lists; `None` if it lists none, and no large objects.
    pub fn listed_tables(&self) -> Option<ListedTables> {
        // Older evidence says in a note alone that some were left out.
        let is_note = |note: &String| note.starts_with(TABLES_LEFT_OUT);
        let is_cut = self.tables_left_out > 0 || self.notes.iter().any(is_note);
        let is_bare_cut = self.without_data_left_out > 0;
        let lists_none = self.tables.is_empty() && self.without_data.is_empty();
        if lists_none && self.large_objects == 0 && !is_cut && !is_bare_cut {
            return None;
        }
        let mut listed = ListedTables {
            filled: BTreeMap::new(),
            bare: self.without_data.iter().cloned().collect(),
            large_objects: self.large_objects,
            is_cut,
            is_bare_cut,
        };
        for table in &self.tables {
            *listed.filled.entry(plain_name(&table.name)).or_default() |= table.rows > 0;
        }
        Some(listed)
    }
}

/// A name without quotes: `"Shop".orders` → `Shop.orders`.
pub fn plain_name(name: &str) -> String {
    name_parts(name).join(".")
}

/// The parts of a name: `"Shop".orders` → `Shop` and `orders`. They are the same however the dump quotes them.
pub fn name_parts(name: &str) -> Vec<String> {
    let names = tokens(name, Dialect::default());
    names.iter().filter_map(Token::name).collect()
}

/// A name without the numbers in it, which partitions have.
pub fn without_digits(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Depth, Trigger};

    #[test]
    fn a_report_says_whether_it_lists_all_tables() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let mut report = VerificationReport::new("r", Trigger::Command, Depth::Data, at);
        assert_eq!(report.listed_tables(), None);
        // Large objects alone are compared, too.
        report.large_objects = 1;
        assert_eq!(report.listed_tables().unwrap().large_objects, 1);
        // All that have names are ignored.
        report.without_data_left_out = 1;
        let listed = report.listed_tables().unwrap();
        assert!(listed.is_bare_cut && !listed.is_cut, "{listed:?}");
        report.without_data = vec!["public.log".into()];
        let listed = report.listed_tables().unwrap();
        assert!(listed.is_bare_cut && listed.bare.contains("public.log"));
        (report.without_data_left_out, report.tables_left_out) = (0, 1);
        let listed = report.listed_tables().unwrap();
        assert!(listed.is_cut && !listed.is_bare_cut, "{listed:?}");
    }
}

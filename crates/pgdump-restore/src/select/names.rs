//! Which entries the patterns of a selection mean.

use std::collections::HashSet;

use crate::policy::matches;
use pgdump_archive::{DumpId, EntryKind, TocEntry};

/// Entries with settings or the database itself; they are part of every selection.
pub(super) const FRAME: [EntryKind; 5] = [
    EntryKind::Encoding,
    EntryKind::StdStrings,
    EntryKind::SearchPath,
    EntryKind::Database,
    EntryKind::DatabaseProperties,
];
/// Kinds that users regard as tables.
const RELATIONS: [EntryKind; 5] = [
    EntryKind::Table,
    EntryKind::ForeignTable,
    EntryKind::View,
    EntryKind::MaterializedView,
    EntryKind::Sequence,
];

pub(super) fn any(patterns: &[String], e: &TocEntry) -> bool {
    patterns
        .iter()
        .any(|p| match (p.split_once('.'), &e.namespace) {
            (Some((schema, table)), Some(ns)) => matches(schema, ns) && matches(table, &e.tag),
            (Some(_), None) => false,
            (None, _) => matches(p, &e.tag),
        })
}

pub(super) fn any_schema(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|p| matches(p, name))
}

pub(super) fn is_relation(e: &TocEntry) -> bool {
    RELATIONS.contains(&e.kind)
}

/// Whether nobody wonders why this comes along.
pub(super) fn is_expected(e: &TocEntry) -> bool {
    matches!(
        e.kind,
        EntryKind::Index | EntryKind::Constraint | EntryKind::Schema
    )
}

/// The dump ids of the entries that are wanted.
pub(super) fn ids(entries: &[TocEntry], is_wanted: impl Fn(&TocEntry) -> bool) -> HashSet<DumpId> {
    let wanted = entries.iter().filter(|e| is_wanted(e));
    wanted.map(|e| e.dump_id).collect()
}

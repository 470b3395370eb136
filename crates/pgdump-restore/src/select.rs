//! Selects a part of a backup: which entries are kept, which others they need, and which are dropped
//! because something they need is missing. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::notes::listed;
use crate::error::{FailureReason, RestoreError, ValidationError};
use crate::policy::{Section, Selection, matches};
use pgdump_archive::{TocEntry, TocSection};

/// Entries with settings or the database itself; they are part of every selection.
const FRAME: [&str; 5] = [
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
    "DATABASE",
    "DATABASE PROPERTIES",
];
/// Kinds that users regard as tables.
const RELATIONS: [&str; 5] = [
    "TABLE",
    "FOREIGN TABLE",
    "VIEW",
    "MATERIALIZED VIEW",
    "SEQUENCE",
];

fn any(patterns: &[String], e: &TocEntry) -> bool {
    patterns
        .iter()
        .any(|p| match (p.split_once('.'), &e.namespace) {
            (Some((schema, table)), Some(ns)) => matches(schema, ns) && matches(table, &e.tag),
            (Some(_), None) => false,
            (None, _) => matches(p, &e.tag),
        })
}

fn any_schema(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|p| matches(p, name))
}

fn refused(what: impl Into<String>) -> RestoreError {
    ValidationError::new(FailureReason::InvalidRequest, what).into()
}

/// Applies the selection; returns notes about entries that it had to include or skip.
///
/// # Errors
/// `invalid_request` if a pattern matches nothing or the part cannot be restored by itself.
pub(super) fn select(
    entries: &mut Vec<TocEntry>,
    selection: &Selection,
) -> Result<Vec<String>, RestoreError> {
    check(entries, selection)?;
    let mut notes = Vec::new();
    if !selection.schemas.is_empty()
        || !selection.exclude_schemas.is_empty()
        || !selection.tables.is_empty()
        || !selection.exclude_tables.is_empty()
    {
        let kept = by_name(entries, selection, &mut notes);
        entries.retain(|e| kept.contains(&e.dump_id));
    }
    if !selection.exclude_table_data.is_empty() {
        let gone = without_rows(entries, &selection.exclude_table_data);
        let is_gone = |e: &TocEntry| gone.contains(&e.dump_id);
        let left_out: Vec<String> = entries
            .iter()
            .filter(|e| is_gone(e))
            .map(TocEntry::name)
            .collect();
        entries.retain(|e| !is_gone(e));
        notes.extend(listed("skipped", &left_out));
    }
    if selection.schema_only || !selection.sections.is_empty() || selection.data_only {
        entries.retain(|e| FRAME.contains(&e.desc.as_str()) || in_sections(e, selection));
    }
    Ok(notes)
}

/// The data of these tables and materialized views, and of materialized views built on such views, which the
/// server cannot read while they are unpopulated.
fn without_rows(entries: &[TocEntry], patterns: &[String]) -> HashSet<i32> {
    let is_view = |e: &TocEntry| e.desc == "MATERIALIZED VIEW DATA";
    let named = |e: &&TocEntry| (e.desc == "TABLE DATA" || is_view(e)) && any(patterns, e);
    let mut gone: HashSet<i32> = entries.iter().filter(named).map(|e| e.dump_id).collect();
    let mut empty: HashSet<i32> = entries
        .iter()
        .filter(|e| is_view(e) && gone.contains(&e.dump_id))
        .map(|e| e.dump_id)
        .collect();
    while !empty.is_empty() {
        let reads = |e: &&TocEntry| {
            is_view(e)
                && !gone.contains(&e.dump_id)
                && e.dependencies.iter().any(|d| empty.contains(d))
        };
        empty = entries.iter().filter(reads).map(|e| e.dump_id).collect();
        gone.extend(&empty);
    }
    gone
}

fn check(entries: &[TocEntry], selection: &Selection) -> Result<(), RestoreError> {
    let relations = || {
        entries
            .iter()
            .filter(|e| RELATIONS.contains(&e.desc.as_str()))
    };
    for p in selection
        .tables
        .iter()
        .chain(&selection.exclude_tables)
        .chain(&selection.exclude_table_data)
    {
        if !relations().any(|e| any(std::slice::from_ref(p), e)) {
            return Err(refused(format!("no table of the backup matches {p}")));
        }
    }
    let schemas: BTreeSet<&str> = entries
        .iter()
        .filter_map(|e| e.namespace.as_deref())
        .collect();
    let old = selection.rename_schemas.iter().map(|(old, _)| old);
    for p in selection
        .schemas
        .iter()
        .chain(&selection.exclude_schemas)
        .chain(old)
    {
        if !schemas.iter().any(|s| matches(p, s)) {
            return Err(refused(format!("no schema of the backup matches {p}")));
        }
    }
    for (_, new) in &selection.rename_schemas {
        if schemas.contains(new.as_str()) {
            return Err(refused(format!("the backup already has a schema {new}")));
        }
    }
    let wants = |s| selection.sections.is_empty() || selection.sections.contains(&s);
    if selection.schema_only && selection.data_only {
        return Err(refused(
            "--schema-only and --data-only are mutually exclusive",
        ));
    }
    if !wants(Section::PreData) && !selection.data_only {
        return Err(refused(
            "a restore without the section pre-data has no tables, because it starts with an empty database",
        ));
    }
    Ok(())
}

fn in_sections(e: &TocEntry, selection: &Selection) -> bool {
    let section = match e.section {
        TocSection::PreData | TocSection::None => Section::PreData,
        TocSection::Data => Section::Data,
        TocSection::PostData => Section::PostData,
    };
    if section == Section::Data && selection.schema_only {
        return false;
    }
    if selection.data_only {
        return section == Section::Data
            && matches!(e.desc.as_str(), "TABLE DATA" | "SEQUENCE SET");
    }
    selection.sections.is_empty() || selection.sections.contains(&section)
}

/// The dump ids of the entries to keep.
fn by_name(entries: &[TocEntry], selection: &Selection, notes: &mut Vec<String>) -> HashSet<i32> {
    let by_id: HashMap<i32, &TocEntry> = entries.iter().map(|e| (e.dump_id, e)).collect();
    let is_relation = |e: &TocEntry| RELATIONS.contains(&e.desc.as_str());
    let is_excluded = |e: &TocEntry| {
        let in_schema = match e.desc.as_str() {
            "SCHEMA" => any_schema(&selection.exclude_schemas, &e.tag),
            _ => e
                .namespace
                .as_deref()
                .is_some_and(|n| any_schema(&selection.exclude_schemas, n)),
        };
        in_schema || (is_relation(e) && any(&selection.exclude_tables, e))
    };
    let is_wanted = |e: &TocEntry| {
        if FRAME.contains(&e.desc.as_str()) {
            return true;
        }
        if !selection.tables.is_empty() {
            return is_relation(e) && any(&selection.tables, e);
        }
        match (selection.schemas.is_empty(), &e.namespace) {
            (true, _) => true,
            (false, Some(ns)) => any_schema(&selection.schemas, ns),
            (false, None) => e.desc == "SCHEMA" && any_schema(&selection.schemas, &e.tag),
        }
    };
    let mut kept: HashSet<i32> = entries
        .iter()
        .filter(|e| is_wanted(e) && !is_excluded(e))
        .map(|e| e.dump_id)
        .collect();
    if !selection.tables.is_empty() {
        add_dependents(entries, &by_id, &mut kept);
    }
    let with_them = add_requirements(&by_id, &mut kept, is_excluded);
    let gone = drop_unsatisfied(entries, &mut kept);
    notes.extend(listed(
        "restored because something selected needs it",
        &with_them,
    ));
    notes.extend(listed(
        "skipped because something it needs is not selected",
        &gone,
    ));
    kept
}

/// Kinds that belong to a table: indexes, keys, rows, privileges, …
fn add_dependents(entries: &[TocEntry], by_id: &HashMap<i32, &TocEntry>, kept: &mut HashSet<i32>) {
    const OWN: [&str; 18] = [
        "TABLE DATA",
        "INDEX",
        "CONSTRAINT",
        "CHECK CONSTRAINT",
        "FK CONSTRAINT",
        "TRIGGER",
        "RULE",
        "POLICY",
        "ROW SECURITY",
        "DEFAULT",
        "COMMENT",
        "ACL",
        "SEQUENCE SET",
        "SEQUENCE OWNED BY",
        "STATISTICS",
        "STATISTICS DATA",
        "MATERIALIZED VIEW DATA",
        "SECURITY LABEL",
    ];
    const ATTACHED: [&str; 2] = ["INDEX ATTACH", "TABLE ATTACH"];
    let is_relation = |id: &i32| {
        by_id
            .get(id)
            .is_some_and(|e| RELATIONS.contains(&e.desc.as_str()))
    };
    loop {
        let before = kept.len();
        for e in entries {
            let own = OWN.contains(&e.desc.as_str());
            let attached = ATTACHED.contains(&e.desc.as_str());
            if !own && !attached || kept.contains(&e.dump_id) {
                continue;
            }
            let mut tables = e
                .dependencies
                .iter()
                .filter(|id| is_relation(id))
                .peekable();
            let belongs = match tables.peek() {
                Some(_) => {
                    tables.clone().any(|id| kept.contains(id))
                        && tables.all(|id| {
                            kept.contains(id)
                                || e.desc == "FK CONSTRAINT"
                                || e.desc == "DEFAULT"
                                || e.desc == "SEQUENCE OWNED BY"
                        })
                }
                // An index or a key of such a table.
                None => {
                    !e.dependencies.is_empty() && e.dependencies.iter().all(|id| kept.contains(id))
                }
            };
            if belongs {
                kept.insert(e.dump_id);
                if e.desc == "DEFAULT" || e.desc == "SEQUENCE OWNED BY" {
                    kept.extend(
                        e.dependencies
                            .iter()
                            .filter(|id| by_id.get(id).is_some_and(|d| d.desc == "SEQUENCE")),
                    );
                }
            }
        }
        if kept.len() == before {
            return;
        }
    }
}

/// Adds the types, functions, schemas, extensions, … that kept entries need, but never another table.
fn add_requirements(
    by_id: &HashMap<i32, &TocEntry>,
    kept: &mut HashSet<i32>,
    is_excluded: impl Fn(&TocEntry) -> bool,
) -> Vec<String> {
    let mut todo: Vec<i32> = kept.iter().copied().collect();
    let mut added = BTreeSet::new();
    while let Some(id) = todo.pop() {
        for needed in by_id
            .get(&id)
            .into_iter()
            .flat_map(|e| &e.dependencies)
            .filter_map(|d| by_id.get(d))
        {
            let table = RELATIONS.contains(&needed.desc.as_str()) || needed.has_data;
            if !table && !is_excluded(needed) && kept.insert(needed.dump_id) {
                todo.push(needed.dump_id);
                if !matches!(needed.desc.as_str(), "INDEX" | "CONSTRAINT" | "SCHEMA") {
                    added.insert(needed.name());
                }
            }
        }
    }
    added.into_iter().collect()
}

/// Drops entries whose requirements were dropped, and then those that need them.
fn drop_unsatisfied(entries: &[TocEntry], kept: &mut HashSet<i32>) -> Vec<String> {
    let all: HashSet<i32> = entries.iter().map(|e| e.dump_id).collect();
    let mut gone = BTreeSet::new();
    loop {
        let lacking: Vec<&TocEntry> = entries
            .iter()
            .filter(|e| kept.contains(&e.dump_id))
            .filter(|e| {
                e.dependencies
                    .iter()
                    .any(|d| all.contains(d) && !kept.contains(d))
            })
            .collect();
        if lacking.is_empty() {
            return gone.into_iter().collect();
        }
        for e in lacking {
            kept.remove(&e.dump_id);
            gone.insert(e.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_support_stars_and_question_marks() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("ab", "abc", false),
            ("*b*b*", "abcb", true),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }

    fn entry(id: i32, desc: &str, schema: &str, tag: &str, needs: &[i32]) -> TocEntry {
        let mut e = TocEntry::bare(id, desc, tag);
        e.namespace = (!schema.is_empty()).then(|| schema.to_owned());
        e.dependencies = needs.to_vec();
        e.has_data = desc == "TABLE DATA";
        e.section = match desc {
            "TABLE DATA" | "SEQUENCE SET" => TocSection::Data,
            "INDEX" | "FK CONSTRAINT" | "CONSTRAINT" => TocSection::PostData,
            _ => TocSection::PreData,
        };
        e
    }

    fn shop() -> Vec<TocEntry> {
        vec![
            entry(1, "ENCODING", "", "ENCODING", &[]),
            entry(2, "SCHEMA", "", "shop", &[]),
            entry(3, "TYPE", "shop", "mood", &[2]),
            entry(4, "TABLE", "shop", "orders", &[2, 3]),
            entry(5, "TABLE", "shop", "customers", &[2]),
            entry(6, "SEQUENCE", "shop", "orders_id_seq", &[2]),
            entry(7, "DEFAULT", "shop", "orders id", &[4, 6]),
            entry(8, "TABLE DATA", "shop", "orders", &[4]),
            entry(9, "TABLE DATA", "shop", "customers", &[5]),
            entry(10, "SEQUENCE SET", "shop", "orders_id_seq", &[6]),
            entry(11, "CONSTRAINT", "shop", "customers customers_pkey", &[5]),
            entry(12, "FK CONSTRAINT", "shop", "orders orders_fk", &[4, 5, 11]),
            entry(13, "TABLE", "other", "log", &[]),
            entry(14, "VIEW", "other", "v", &[4]),
        ]
    }

    fn ids(s: Selection) -> Result<(Vec<i32>, Vec<String>), RestoreError> {
        let mut all = shop();
        let notes = select(&mut all, &s)?;
        Ok((all.iter().map(|e| e.dump_id).collect(), notes))
    }

    #[test]
    fn a_selected_table_includes_only_its_requirements() {
        let (kept, notes) = ids(Selection {
            tables: vec!["shop.orders".into()],
            ..Selection::default()
        })
        .unwrap();
        assert_eq!(kept, [1, 2, 3, 4, 6, 7, 8, 10]);
        assert!(
            notes.iter().any(|n| n.contains("TYPE shop.mood")),
            "{notes:?}"
        );
        assert!(
            notes
                .iter()
                .any(|n| n.contains("FK CONSTRAINT shop.orders orders_fk")),
            "{notes:?}"
        );
    }

    #[test]
    fn schemas_can_be_included_and_excluded() {
        let (kept, _) = ids(Selection {
            schemas: vec!["sh*".into()],
            ..Selection::default()
        })
        .unwrap();
        assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let (kept, notes) = ids(Selection {
            exclude_schemas: vec!["shop".into()],
            ..Selection::default()
        })
        .unwrap();
        assert_eq!(kept, [1, 13]);
        assert!(
            notes.iter().any(|n| n.contains("VIEW other.v")),
            "{notes:?}"
        );
        let (kept, _) = ids(Selection {
            schema_only: true,
            ..Selection::default()
        })
        .unwrap();
        assert!(!kept.contains(&8) && kept.contains(&12));
    }

    #[test]
    fn patterns_without_a_match_are_refused() {
        for s in [
            Selection {
                tables: vec!["nothing".into()],
                ..Selection::default()
            },
            Selection {
                schemas: vec!["nothing".into()],
                ..Selection::default()
            },
            Selection {
                rename_schemas: vec![("shop".into(), "other".into())],
                ..Selection::default()
            },
            Selection {
                sections: vec![Section::Data],
                ..Selection::default()
            },
        ] {
            assert_eq!(ids(s).unwrap_err().reason(), FailureReason::InvalidRequest);
        }
    }
}

//! Selects a part of a backup: which entries are kept, which others they need, and which are dropped
//! because something they need is missing. Pure.

mod by_kind;
mod by_name;
mod names;

use std::collections::{BTreeSet, HashSet};

use self::by_name::by_name;
use self::names::{FRAME, any, ids, is_relation};
use super::dependents::Dependents;
use super::notes::listed;
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::policy::{Section, Selection, matches};
use pgdump_archive::{DumpId, EntryKind, TocEntry, TocSection};

fn invalid_selection(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

/// Drops entries of SQL text, which are used for its requirements only, as its statements will be left out.
pub(super) fn drop_skipped(entries: &mut Vec<TocEntry>, selection: &Selection) {
    entries.retain(|e| !by_kind::is_skipped(e, selection));
}

/// Applies the selection; returns notes about entries that it had to include or skip.
///
/// # Errors
/// `invalid_request` if a pattern matches nothing or the part cannot be restored by itself.
pub(super) fn select(
    entries: &mut Vec<TocEntry>,
    selection: &Selection,
) -> Result<Vec<String>, RestoreError> {
    let mut notes = check(entries, selection)?;
    if let Some(list) = &selection.use_list {
        notes.extend(list.keep_listed(entries, |e| FRAME.contains(&e.kind))?);
    }
    if selects_by_name(selection) {
        let kept = by_name(entries, selection, &mut notes);
        entries.retain(|e| kept.contains(&e.dump_id));
    }
    if !selection.only_kinds.is_empty() {
        notes.extend(by_kind::keep_kinds(entries, &selection.only_kinds));
    }
    if !selection.skip.is_empty() {
        notes.extend(by_kind::skip(entries, selection));
    }
    if !selection.exclude_table_data.is_empty() {
        let gone = without_rows(entries, &selection.exclude_table_data);
        let gone = entries.extract_if(.., |e| gone.contains(&e.dump_id));
        let skipped: Vec<String> = gone.map(|e| e.name()).collect();
        notes.extend(listed("skipped", &skipped));
    }
    if selection.schema_only || !selection.sections.is_empty() || selection.data_only {
        entries.retain(|e| FRAME.contains(&e.kind) || in_sections(e, selection));
    }
    Ok(notes)
}

fn selects_by_name(selection: &Selection) -> bool {
    let patterns = [
        &selection.schemas,
        &selection.exclude_schemas,
        &selection.tables,
        &selection.exclude_tables,
    ];
    patterns.iter().any(|patterns| !patterns.is_empty())
}

/// The data of these tables and materialized views, and of materialized views built on such views, which the
/// server cannot read while they are unpopulated.
fn without_rows(entries: &[TocEntry], patterns: &[String]) -> HashSet<DumpId> {
    let is_view = |e: &TocEntry| e.kind == EntryKind::MaterializedViewData;
    let is_named = |e: &TocEntry| any(patterns, e);
    let mut gone = ids(entries, |e| {
        (e.kind == EntryKind::TableData || is_view(e)) && is_named(e)
    });
    let mut empty = ids(entries, |e| is_view(e) && gone.contains(&e.dump_id));
    Dependents::of(entries.iter().filter(|e| is_view(e))).add_to(&mut empty);
    gone.extend(empty);
    gone
}

/// Returns notes about patterns that match nothing.
fn check(entries: &[TocEntry], selection: &Selection) -> Result<Vec<String>, RestoreError> {
    selection.check().map_err(invalid_selection)?;
    let notes = by_kind::check(entries, selection)?;
    check_tables(entries, selection)?;
    check_schemas(entries, selection)?;
    let wants = |s| selection.sections.is_empty() || selection.sections.contains(&s);
    if !wants(Section::PreData) && !selection.data_only {
        return Err(invalid_selection(
            "a restore without the section pre-data has no tables, because it starts with an empty database",
        ));
    }
    Ok(notes)
}

fn check_tables(entries: &[TocEntry], selection: &Selection) -> Result<(), RestoreError> {
    let relations: Vec<&TocEntry> = entries.iter().filter(|e| is_relation(e)).collect();
    let matches = |p: &String| relations.iter().any(|e| any(std::slice::from_ref(p), e));
    let mut patterns = selection
        .tables
        .iter()
        .chain(&selection.exclude_tables)
        .chain(&selection.exclude_table_data);
    match patterns.find(|p| !matches(p)) {
        Some(p) => Err(invalid_selection(format!(
            "no table of the backup matches {p}"
        ))),
        None => Ok(()),
    }
}

fn check_schemas(entries: &[TocEntry], selection: &Selection) -> Result<(), RestoreError> {
    let schemas = entries.iter().filter_map(|e| e.namespace.as_deref());
    let schemas: BTreeSet<&str> = schemas.collect();
    let renamed = selection.rename_schemas.iter().map(|(old, _)| old);
    let named = selection.schemas.iter().chain(&selection.exclude_schemas);
    let is_unknown = |p: &&String| !schemas.iter().any(|s| matches(p, s));
    if let Some(p) = named.chain(renamed).find(is_unknown) {
        return Err(invalid_selection(format!(
            "no schema of the backup matches {p}"
        )));
    }
    let mut new = selection.rename_schemas.iter().map(|(_, new)| new);
    match new.find(|new| schemas.contains(new.as_str())) {
        Some(new) => Err(invalid_selection(format!(
            "the backup already has a schema {new}"
        ))),
        None => Ok(()),
    }
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
            && matches!(e.kind, EntryKind::TableData | EntryKind::SequenceSet);
    }
    selection.sections.is_empty() || selection.sections.contains(&section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason;

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
        e.dependencies = needs.iter().copied().map(DumpId).collect();
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

    fn selected(s: Selection) -> Result<(Vec<i32>, Vec<String>), RestoreError> {
        let mut all = shop();
        let notes = select(&mut all, &s)?;
        Ok((all.iter().map(|e| e.dump_id.0).collect(), notes))
    }

    #[test]
    fn a_selected_table_includes_only_its_requirements() {
        let (kept, notes) = selected(Selection {
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
        let (kept, _) = selected(Selection {
            schemas: vec!["sh*".into()],
            ..Selection::default()
        })
        .unwrap();
        assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let (kept, notes) = selected(Selection {
            exclude_schemas: vec!["shop".into()],
            ..Selection::default()
        })
        .unwrap();
        assert_eq!(kept, [1, 13]);
        assert!(
            notes.iter().any(|n| n.contains("VIEW other.v")),
            "{notes:?}"
        );
        let (kept, _) = selected(Selection {
            schema_only: true,
            ..Selection::default()
        })
        .unwrap();
        assert!(!kept.contains(&8) && kept.contains(&12));
    }

    fn skipping(patterns: &[&str]) -> Selection {
        Selection {
            skip: patterns.iter().map(|p| (*p).to_owned()).collect(),
            ..Selection::default()
        }
    }

    #[test]
    fn what_is_skipped_takes_along_what_depends_on_it() {
        let (kept, notes) = selected(skipping(&["FK CONSTRAINT *", "table data shop.c*"])).unwrap();
        assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14]);
        assert_eq!(
            notes,
            ["skipped: TABLE DATA shop.customers, FK CONSTRAINT shop.orders orders_fk"]
        );
        let (kept, notes) = selected(skipping(&["TABLE shop.orders", "EVENT TRIGGER *"])).unwrap();
        assert_eq!(kept, [1, 2, 3, 5, 6, 9, 10, 11, 13]);
        assert_eq!(
            notes,
            [
                "--skip 'EVENT TRIGGER *': no entry of the backup has this kind and name",
                "skipped: TABLE shop.orders",
                "skipped because something it needs is skipped: DEFAULT shop.orders id, TABLE DATA shop.orders, \
                 FK CONSTRAINT shop.orders orders_fk, VIEW other.v"
            ]
        );
        // The frame of the archive stays.
        let (kept, _) = selected(skipping(&["* *"])).unwrap();
        assert_eq!(kept, [1]);
    }

    #[test]
    fn only_kinds_come_with_the_definitions_that_they_need() {
        let only = |kinds: &[&str]| Selection {
            only_kinds: kinds.iter().map(|k| (*k).to_owned()).collect(),
            ..Selection::default()
        };
        let (kept, notes) = selected(only(&["view", "SEQUENCE*"])).unwrap();
        assert_eq!(kept, [1, 2, 3, 4, 6, 10, 14]);
        assert_eq!(
            notes,
            ["restored because something selected needs it: TABLE shop.orders, TYPE shop.mood"]
        );
        let (kept, _) = selected(only(&["TABLE DATA"])).unwrap();
        assert_eq!(kept, [1, 2, 3, 4, 5, 8, 9]);
        let e = selected(only(&["DOMAIN"])).unwrap_err();
        assert!(
            e.to_string().contains("--only-kinds DOMAIN: no entry"),
            "{e}"
        );
        let (_, notes) = selected(only(&["TABLE", "DOM*"])).unwrap();
        assert!(notes[0].contains("--only-kinds DOM*"), "{notes:?}");
    }

    #[test]
    fn a_list_is_taken_as_it_is() {
        let list =
            crate::UseList::parse("my.list", "14;\n; 4; 0 0 TABLE shop orders \n8;\n").unwrap();
        let with_list = || Selection {
            use_list: Some(std::sync::Arc::new(list.clone())),
            ..Selection::default()
        };
        let (kept, notes) = selected(with_list()).unwrap();
        assert_eq!(kept, [1, 8, 14], "without what they need, as by pg_restore");
        assert_eq!(notes.len(), 1);
        let narrowed = Selection {
            skip: vec!["VIEW *".into()],
            ..with_list()
        };
        assert_eq!(selected(narrowed).unwrap().0, [1, 8]);
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
            skipping(&["TABLE shop.nothing"]),
            skipping(&["TABLE"]),
        ] {
            assert_eq!(
                selected(s).unwrap_err().reason(),
                FailureReason::InvalidRequest
            );
        }
    }
}

//! Selection by kind and name: `--skip 'KIND NAME'` with what depends on it, `--only-kinds KIND` with what it needs.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::names::{FRAME, ids, is_expected};
use crate::choice::{is_exact, is_kind, means_entry};
use crate::dependents::Dependents;
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::notes::listed;
use crate::policy::Selection;
use crate::rewrite::data_of_missing_tables;
use pgdump_archive::{DumpId, EntryKind, TocEntry, TocSection};

/// Whether `--skip` names the entry.
pub(super) fn is_skipped(e: &TocEntry, selection: &Selection) -> bool {
    !FRAME.contains(&e.kind) && selection.skip.iter().any(|p| means_entry(p, e))
}

fn is_of_kinds(e: &TocEntry, kinds: &[String]) -> bool {
    FRAME.contains(&e.kind) || kinds.iter().any(|kind| is_kind(kind, e.kind.as_str()))
}

/// Notes about patterns that nothing in the backup has.
///
/// # Errors
/// `invalid_request` if such a pattern is a name, which is then misspelled.
pub(super) fn check(
    entries: &[TocEntry],
    selection: &Selection,
) -> Result<Vec<String>, RestoreError> {
    let objects = || entries.iter().filter(|e| !FRAME.contains(&e.kind));
    let mut unused = Vec::new();
    for pattern in &selection.skip {
        if !objects().any(|e| means_entry(pattern, e)) {
            unused.push((
                pattern,
                format!("--skip '{pattern}': no entry of the backup has this kind and name"),
            ));
        }
    }
    for kind in &selection.only_kinds {
        if !objects().any(|e| is_kind(kind, e.kind.as_str())) {
            unused.push((
                kind,
                format!("--only-kinds {kind}: no entry of the backup has this kind"),
            ));
        }
    }
    match unused.iter().find(|(pattern, _)| is_exact(pattern)) {
        Some((_, what)) => {
            let what = format!("{what}; pgrestored inspect --list shows them");
            Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
        }
        None => Ok(unused.into_iter().map(|(_, what)| what).collect()),
    }
}

/// Removes what `--skip` names and what depends on it; returns notes.
pub(super) fn skip(entries: &mut Vec<TocEntry>, selection: &Selection) -> Vec<String> {
    let named = ids(entries, |e| is_skipped(e, selection));
    let mut gone = named.clone();
    gone.extend(without_dependency(entries, &named));
    Dependents::of(entries.iter()).add_to(&mut gone);
    let is_extension = |e: &TocEntry| e.kind == EntryKind::Extension && named.contains(&e.dump_id);
    if entries.iter().any(is_extension) {
        gone.extend(data_of_missing_tables(entries, &gone));
    }
    let removed = entries.extract_if(.., |e| gone.contains(&e.dump_id));
    let (asked, dependent): (Vec<TocEntry>, Vec<TocEntry>) =
        removed.partition(|e| named.contains(&e.dump_id));
    let names = |entries: Vec<TocEntry>| entries.iter().map(TocEntry::name).collect::<Vec<_>>();
    let asked = listed("skipped", &names(asked));
    let dependent = listed(
        "skipped because something it needs is skipped",
        &names(dependent),
    );
    asked.into_iter().chain(dependent).collect()
}

/// What needs one of these schemas or servers, although a table of contents has no dependency for it: shell types and user
/// mappings.
fn without_dependency(entries: &[TocEntry], gone: &HashSet<DumpId>) -> Vec<DumpId> {
    let of = |kind: EntryKind| -> HashSet<&str> {
        let all = entries.iter().filter(|e| e.kind == kind);
        let all = all.filter(|e| gone.contains(&e.dump_id));
        all.map(|e| e.tag.as_str()).collect()
    };
    let (schemas, servers) = (of(EntryKind::Schema), of(EntryKind::Server));
    let needs_one = |e: &&TocEntry| {
        let schema = e.namespace.as_deref();
        let server = e.tag.rsplit_once(" SERVER ").map(|(_, server)| server);
        let server = server.filter(|_| e.kind == EntryKind::UserMapping);
        schema.is_some_and(|s| schemas.contains(s)) || server.is_some_and(|s| servers.contains(s))
    };
    let all = entries.iter().filter(needs_one);
    all.map(|e| e.dump_id).collect()
}

/// Keeps what has one of the kinds, and the definitions that it needs; returns notes.
pub(super) fn keep_kinds(entries: &mut Vec<TocEntry>, kinds: &[String]) -> Vec<String> {
    let wanted = ids(entries, |e| is_of_kinds(e, kinds));
    let kept = with_requirements(entries, &wanted);
    let is_added = |e: &&TocEntry| {
        kept.contains(&e.dump_id) && !wanted.contains(&e.dump_id) && !is_expected(e)
    };
    let added: BTreeSet<String> = entries
        .iter()
        .filter(is_added)
        .map(TocEntry::name)
        .collect();
    let added: Vec<String> = added.into_iter().collect();
    entries.retain(|e| kept.contains(&e.dump_id));
    listed("restored because something selected needs it", &added)
        .into_iter()
        .collect()
}

/// These entries, and the definitions that they need.
fn with_requirements(entries: &[TocEntry], wanted: &HashSet<DumpId>) -> HashSet<DumpId> {
    let definitions = entries.iter().filter(|e| e.section != TocSection::Data);
    let definitions: HashSet<DumpId> = definitions.map(|e| e.dump_id).collect();
    let by_id: HashMap<DumpId, &TocEntry> = entries.iter().map(|e| (e.dump_id, e)).collect();
    let (mut kept, mut todo) = (wanted.clone(), wanted.iter().copied().collect::<Vec<_>>());
    while let Some(id) = todo.pop() {
        let needed = by_id.get(&id).into_iter().flat_map(|e| &e.dependencies);
        for id in needed.filter(|id| definitions.contains(*id)) {
            if kept.insert(*id) {
                todo.push(*id);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_types_go_with_their_schema_and_mappings_with_their_server() {
        let entry = |id: i32, kind: &str, schema: Option<&str>, tag: &str| {
            let mut e = TocEntry::bare(id, kind, tag);
            e.namespace = schema.map(str::to_owned);
            e
        };
        let left = |pattern: &str| {
            let mut entries = vec![
                entry(1, "SCHEMA", None, "s"),
                entry(2, "SHELL TYPE", Some("s"), "t"),
                entry(3, "SHELL TYPE", Some("other"), "t"),
                entry(4, "SERVER", None, "srv"),
                entry(5, "USER MAPPING", None, "USER MAPPING me SERVER srv"),
                entry(6, "USER MAPPING", None, "USER MAPPING me SERVER other"),
            ];
            let selection = Selection {
                skip: vec![pattern.to_owned()],
                ..Selection::default()
            };
            skip(&mut entries, &selection);
            let ids = entries.iter().map(|e| e.dump_id.0);
            ids.collect::<Vec<_>>()
        };
        assert_eq!(left("SCHEMA s"), [3, 4, 5, 6]);
        assert_eq!(left("SERVER srv"), [1, 2, 3, 6]);
    }
}

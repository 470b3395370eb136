//! Kinds of objects that only a superuser can create, and definitions that newer versions reject. Pure.

use super::finding::{Finding, names};
use crate::error::DatabaseKind as D;
use crate::rewrite::Rewriter;
use pgdump_archive::{EntryKind, TocEntry};

/// Kinds that only a superuser can create, in the order in which they are listed.
static SUPERUSERS: [EntryKind; 6] = [
    EntryKind::EventTrigger,
    EntryKind::ForeignDataWrapper,
    EntryKind::AccessMethod,
    EntryKind::Subscription,
    EntryKind::Transform,
    EntryKind::OperatorClass,
];

pub(super) fn refused(entries: &[TocEntry], rewriter: &Rewriter, found: &mut Vec<Finding>) {
    found.extend(superusers_only(entries, rewriter));
    found.extend(rejected(
        entries.iter().filter(|e| has_removed_type(e)),
        "types that PostgreSQL 12 removed (abstime, reltime, tinterval)",
        "change the columns to timestamptz or interval in the source",
    ));
    let rejects_postfix = rewriter.facts.version >= 140000;
    found.extend(rejected(
        entries
            .iter()
            .filter(|e| rejects_postfix && is_postfix_operator(e)),
        "postfix operators, which PostgreSQL 14 removed",
        "replace them with functions in the source",
    ));
}

/// The names of entries, for a finding; `None` if there are none.
pub(super) fn listed<'a>(entries: impl Iterator<Item = &'a TocEntry>) -> Option<String> {
    let all: Vec<String> = entries.map(TocEntry::name).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    (!all.is_empty()).then(|| names(&all))
}

fn superusers_only(entries: &[TocEntry], rewriter: &Rewriter) -> Option<Finding> {
    if rewriter.facts.is_superuser {
        return None;
    }
    let of = |kind: &'static EntryKind| entries.iter().filter(move |e| e.kind == *kind);
    let special = listed(SUPERUSERS.iter().flat_map(of))?;
    Some(Finding::warns(
        format!("only a superuser may create: {special}"),
        "the restore fails unless the server allows it to this role",
        "restore as a superuser, or with --on-error skip, which leaves out what the server refuses",
    ))
}

fn rejected<'a>(
    entries: impl Iterator<Item = &'a TocEntry>,
    what: &str,
    fix: &str,
) -> Option<Finding> {
    let what = format!("{what}: {}", listed(entries)?);
    let consequence = "the server rejects the definition";
    Some(Finding::blocks(
        D::VersionIncompatible,
        what,
        consequence,
        fix,
    ))
}

fn has_removed_type(e: &TocEntry) -> bool {
    let mut words = e.defn.split(|c: char| !c.is_alphanumeric() && c != '_');
    let may_have = matches!(
        e.kind,
        EntryKind::Table | EntryKind::Type | EntryKind::Domain
    );
    may_have && words.any(|w| matches!(w, "abstime" | "reltime" | "tinterval"))
}

fn is_postfix_operator(e: &TocEntry) -> bool {
    let has = |argument| e.defn.to_ascii_uppercase().contains(argument);
    e.kind == EntryKind::Operator && has("LEFTARG") && !has("RIGHTARG")
}

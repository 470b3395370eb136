//! Kinds of objects that only a superuser can create, and definitions that newer versions reject. Pure.

use super::finding::{Finding, names};
use crate::error::DatabaseKind as D;
use crate::profiles::service_of_server;
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

pub(super) fn unsupported(entries: &[TocEntry], rewriter: &Rewriter, found: &mut Vec<Finding>) {
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
    let allowed = allowed_kinds(rewriter);
    let denied = SUPERUSERS.iter().filter(|k| !allowed.contains(&k.as_str()));
    let special = listed(denied.flat_map(of))?;
    let consequence = if rewriter.leaves_refusals_to_server() {
        "it is left out unless the server allows it to this role"
    } else {
        "the restore fails unless the server allows it to this role"
    };
    Some(Finding::warns(
        format!("only a superuser may create: {special}"),
        consequence,
        "restore as a superuser, or with --on-error skip, which leaves out what the server refuses",
    ))
}

/// Kinds that a managed service lets its administrators create.
fn allowed_kinds(rewriter: &Rewriter) -> &'static [&'static str] {
    let facts = &rewriter.facts;
    match service_of_server(&facts.roles) {
        Some(s) if facts.may_become.contains(s.administrator) => s.administrators_create,
        _ => &[],
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::ServerFacts;

    #[test]
    fn administrators_of_a_service_may_create_what_it_lets_them() {
        let entries = [
            TocEntry::bare(1, "EVENT TRIGGER", "watch"),
            TocEntry::bare(2, "TRANSFORM", "FOR t LANGUAGE l"),
        ];
        let warned = |roles: &[&str], may_become: &[&str]| {
            let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
            let facts = ServerFacts {
                roles: set(roles),
                may_become: set(may_become),
                ..ServerFacts::default()
            };
            let rewriter = Rewriter::new(facts, Default::default(), Default::default());
            superusers_only(&entries, &rewriter).unwrap().what
        };
        let google = ["cloudsqladmin", "cloudsqlsuperuser"];
        assert!(!warned(&google, &["cloudsqlsuperuser"]).contains("EVENT TRIGGER"));
        assert!(warned(&google, &["cloudsqlsuperuser"]).contains("TRANSFORM"));
        assert!(warned(&google, &[]).contains("EVENT TRIGGER"));
        assert!(warned(&["postgres"], &["postgres"]).contains("EVENT TRIGGER"));
    }
}

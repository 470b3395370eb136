//! Patterns of kinds and names.

use crate::policy::matches;
use pgdump_archive::{EntryKind, TocEntry};

const ROUTINES: [EntryKind; 3] = [
    EntryKind::Function,
    EntryKind::Procedure,
    EntryKind::Aggregate,
];

/// Whether a pattern means no more than one name, so that it is a mistake if nothing has it.
pub(crate) fn is_exact(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

/// Whether a pattern of kinds means this one.
pub(crate) fn is_kind(pattern: &str, kind: &str) -> bool {
    matches(&pattern.trim().to_uppercase(), &kind.to_uppercase())
}

/// Whether a pattern of kind and name means this entry.
pub(crate) fn means_entry(pattern: &str, e: &TocEntry) -> bool {
    means(pattern, e.kind.as_str(), (e.namespace.as_deref(), &e.tag))
}

/// Whether a pattern of kind and name means what has this kind, schema and name. A name without a dot is that of objects
/// of every schema; a function's may be without its arguments.
pub(super) fn means(pattern: &str, kind: &str, (schema, tag): (Option<&str>, &str)) -> bool {
    let pattern = pattern.trim();
    // A kind may have several words, and so may a name.
    pattern.match_indices(char::is_whitespace).any(|(at, _)| {
        let (kinds, name) = pattern.split_at(at);
        let name = name.trim_start();
        is_kind(kinds, kind)
            && (is_named(name, schema, tag)
                || without_arguments(kind, tag).is_some_and(|tag| is_named(name, schema, tag)))
    })
}

/// Whether a pattern has arguments of a function, of which SQL text is not chosen.
pub(crate) fn has_arguments(pattern: &str) -> bool {
    let text = pattern.trim().to_uppercase();
    let is_of = |kind: &EntryKind| {
        let name = text.strip_prefix(kind.as_str());
        name.is_some_and(|name| name.starts_with(char::is_whitespace) && name.contains('('))
    };
    ROUTINES.iter().any(is_of)
}

fn is_named(pattern: &str, schema: Option<&str>, tag: &str) -> bool {
    let is_qualified = || schema.is_some_and(|s| matches(pattern, &format!("{s}.{tag}")));
    matches(pattern, tag) || (pattern.contains('.') && is_qualified())
}

/// `f` of the function `f(integer)`.
fn without_arguments<'a>(kind: &str, tag: &'a str) -> Option<&'a str> {
    let is_routine = ROUTINES.iter().any(|routine| routine.as_str() == kind);
    let (name, _) = tag.split_once('(').filter(|_| is_routine)?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_functions() {
        for (pattern, wanted) in [
            ("FUNCTION public.f(integer)", true),
            (" function f(*)", true),
            ("AGGREGATE a()", true),
            ("FUNCTION public.f", false),
            ("TABLE a(b)", false),
            ("* f(integer)", false),
        ] {
            assert_eq!(has_arguments(pattern), wanted, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_has_a_kind_of_one_or_more_words_and_a_name() {
        let public = |kind, tag| (kind, Some("public"), tag);
        for (pattern, (kind, schema, tag), wanted) in [
            ("EVENT TRIGGER *", ("EVENT TRIGGER", None, "watch"), true),
            (
                "event trigger watch",
                ("EVENT TRIGGER", None, "watch"),
                true,
            ),
            (
                "EVENT TRIGGER other",
                ("EVENT TRIGGER", None, "watch"),
                false,
            ),
            ("TRIGGER *", ("EVENT TRIGGER", None, "watch"), false),
            ("* watch", ("EVENT TRIGGER", None, "watch"), true),
            ("POLICY public.*", public("POLICY", "t mine"), true),
            ("POLICY shop.*", public("POLICY", "t mine"), false),
            ("POLICY t mine", public("POLICY", "t mine"), true),
            ("POLICY public.t mine", public("POLICY", "t mine"), true),
            ("TABLE t", public("TABLE", "t"), true),
            ("TABLE ?", public("TABLE", "t"), true),
            ("TABLE p*", public("TABLE", "t"), false),
            ("TABLE *", public("TABLE DATA", "t"), false),
            ("TABLE DATA public.t", public("TABLE DATA", "t"), true),
            ("DEFAULT *", public("DEFAULT ACL", "x"), false),
            ("TABLE public.a.b", public("TABLE", "a.b"), true),
            ("TABLE a.b", public("TABLE", "a.b"), true),
            ("FUNCTION public.f", public("FUNCTION", "f(integer)"), true),
            (
                "FUNCTION f(integer)",
                public("FUNCTION", "f(integer)"),
                true,
            ),
            (
                "FUNCTION f(*)",
                public("FUNCTION", "f(integer, text)"),
                true,
            ),
            ("FUNCTION f(text)", public("FUNCTION", "f(integer)"), false),
            ("TABLE f", public("TABLE", "f(x)"), false),
            ("TABLE", public("TABLE", ""), false),
        ] {
            assert_eq!(
                means(pattern, kind, (schema, tag)),
                wanted,
                "{pattern}: {kind} {tag}"
            );
        }
    }
}

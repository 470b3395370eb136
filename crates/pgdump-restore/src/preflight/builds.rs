//! Build options, languages, locales and access methods that a backup needs and the server lacks. Pure.

use std::collections::BTreeSet;

use super::definitions::listed;
use super::finding::{Finding, names};
use super::requirements::Requirements;
use crate::error::DatabaseKind as D;
use crate::postgres::plain_locale;
use crate::rewrite::Rewriter;
use pgdump_archive::{EntryKind, TocEntry};

const REFUSED: &str = "the server rejects the definition";

pub(super) fn missing(
    entries: &[TocEntry],
    needs: &Requirements,
    rewriter: &Rewriter,
    found: &mut Vec<Finding>,
) {
    if !rewriter.facts.has_icu {
        found.extend(icu(entries));
        found.extend(icu_of_database(needs));
    }
    found.extend(collations(entries, rewriter));
    found.extend(languages(entries, rewriter));
    if !may_bring_methods(entries, needs, rewriter) {
        found.extend(index_methods(entries, rewriter));
    }
    found.extend(compression(entries, rewriter));
}

const LACKS_ICU: &str = "the server is built without ICU, which the backup needs";
const BUILD_WITH_ICU: &str =
    "restore into a server built with ICU, such as PostgreSQL's own packages";

fn icu(entries: &[TocEntry]) -> Option<Finding> {
    let uses = |e: &&TocEntry| match &e.kind {
        EntryKind::Collation => option(&e.defn, "provider").is_some_and(|p| p == "icu"),
        EntryKind::Comment | EntryKind::Acl => false,
        _ => e.defn.contains("-x-icu\""),
    };
    let users = listed(entries.iter().filter(uses))?;
    let what = format!("{LACKS_ICU}: {users}");
    Some(Finding::blocks(
        D::VersionIncompatible,
        what,
        REFUSED,
        BUILD_WITH_ICU,
    ))
}

fn icu_of_database(needs: &Requirements) -> Option<Finding> {
    let options = needs.locale.as_ref()?;
    let what = format!("{LACKS_ICU}: for the locale of the database");
    let consequence = "CREATE DATABASE would fail";
    options
        .contains("LOCALE_PROVIDER = icu")
        .then(|| Finding::blocks(D::VersionIncompatible, what, consequence, BUILD_WITH_ICU))
}

fn collations(entries: &[TocEntry], rewriter: &Rewriter) -> Option<Finding> {
    let is_unknown = |e: &&TocEntry| {
        let is_known = |l: &str| {
            matches!(l, "c" | "posix" | "c.utf8" | "") || rewriter.facts.locales.contains(l)
        };
        e.kind == EntryKind::Collation && libc_locale(e).is_some_and(|l| !is_known(&l))
    };
    let unknown = listed(entries.iter().filter(is_unknown))?;
    Some(Finding::warns(
        format!("the server does not list the locale of: {unknown}"),
        "CREATE COLLATION fails unless its host has the locale",
        "install the locale on the server's host",
    ))
}

/// The locale of a collation of the C library.
fn libc_locale(collation: &TocEntry) -> Option<String> {
    let of = |name| option(&collation.defn, name);
    let is_libc = of("provider").is_none_or(|p| p == "libc");
    let locale = of("locale").or_else(|| of("lc_collate"));
    locale.filter(|_| is_libc).map(|l| plain_locale(&l))
}

/// `provider = icu` or `locale = 'de_DE'` in a definition.
fn option(definition: &str, name: &str) -> Option<String> {
    let (_, options) = definition.split_once('(')?;
    options.split(',').find_map(|option| {
        let (key, value) = option.split_once('=')?;
        let value = value.trim().trim_end_matches([';', ')', ' ', '\n']);
        key.trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim_matches('\'').to_owned())
    })
}

fn languages(entries: &[TocEntry], rewriter: &Rewriter) -> Option<Finding> {
    let is_missing = |e: &&TocEntry| {
        let brings_handler = e.defn.to_ascii_uppercase().contains(" HANDLER ");
        e.kind == EntryKind::ProceduralLanguage
            && !brings_handler
            && e.tag != "plpgsql"
            && !rewriter.facts.extensions.contains(&e.tag)
            && !rewriter.facts.untrusted_extensions.contains(&e.tag)
    };
    let missing = listed(entries.iter().filter(is_missing))?;
    Some(Finding::blocks(
        D::ExtensionMissing,
        format!("the server does not have: {missing}"),
        "CREATE LANGUAGE would fail",
        "install the language's package on the server",
    ))
}

/// Whether the access methods of indexes cannot be judged: the dump may bring them, or the server did not say.
fn may_bring_methods(entries: &[TocEntry], needs: &Requirements, rewriter: &Rewriter) -> bool {
    let brings = needs.extensions.iter().any(|e| e != "plpgsql")
        || entries.iter().any(|e| e.kind == EntryKind::AccessMethod);
    brings || rewriter.facts.index_methods.is_empty()
}

fn index_methods(entries: &[TocEntry], rewriter: &Rewriter) -> Option<Finding> {
    let known = &rewriter.facts.index_methods;
    let missing = |e: &TocEntry| index_method(e).filter(|m| !known.contains(m));
    let users = listed(entries.iter().filter(|e| missing(e).is_some()))?;
    let methods: BTreeSet<String> = entries.iter().filter_map(missing).collect();
    let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
    let methods = names(&methods);
    Some(Finding::blocks(
        D::VersionIncompatible,
        format!("the server does not have: access method {methods} of {users}"),
        REFUSED,
        "install the extension that provides it, or restore with --on-error skip",
    ))
}

fn index_method(e: &TocEntry) -> Option<String> {
    let (_, rest) = e.defn.split_once(" USING ")?;
    let method = rest.split([' ', '(']).next()?.trim_matches('"');
    (e.kind == EntryKind::Index).then(|| method.to_owned())
}

fn compression(entries: &[TocEntry], rewriter: &Rewriter) -> Option<Finding> {
    if rewriter.facts.has_lz4 || rewriter.facts.version < 140_000 {
        return None;
    }
    let uses = |e: &&TocEntry| e.kind == EntryKind::Table && e.defn.contains("SET COMPRESSION lz4");
    let users = listed(entries.iter().filter(uses))?;
    Some(Finding::notes(
        format!("the server is built without lz4, which compresses columns of: {users}"),
        "they are compressed with the server's default method",
        "none needed",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::error::FailureReason as R;
    use crate::postgres::ServerFacts;

    fn found_in(entry: TocEntry) -> Vec<(Level, Option<R>)> {
        let facts = ServerFacts {
            version: 160_000,
            index_methods: ["btree".to_owned()].into(),
            locales: ["de_de.utf8".to_owned()].into(),
            ..ServerFacts::default()
        };
        let rewriter = Rewriter::new(facts, Default::default(), Default::default());
        let mut found = vec![];
        missing(&[entry], &Requirements::default(), &rewriter, &mut found);
        found.into_iter().map(|f| (f.level, f.reason)).collect()
    }

    #[test]
    fn missing_build_options_are_found_in_definitions() {
        let (blocks, warns) = (Level::Blocks, Level::Warns);
        let (version, extension) = (Some(R::VersionIncompatible), Some(R::ExtensionMissing));
        for (desc, definition, wanted) in [
            (
                "COLLATION",
                "CREATE COLLATION s.c (provider = icu, locale = 'de');",
                Some((blocks, version)),
            ),
            (
                "TABLE",
                "CREATE TABLE t (a text COLLATE pg_catalog.\"de-x-icu\");",
                Some((blocks, version)),
            ),
            (
                "COLLATION",
                "CREATE COLLATION s.c (provider = libc, locale = 'xx_XX.utf8');",
                Some((warns, None)),
            ),
            (
                "COLLATION",
                "CREATE COLLATION s.c (provider = libc, locale = 'de_DE.UTF-8');",
                None,
            ),
            (
                "COLLATION",
                "CREATE COLLATION s.c (lc_collate = 'C', lc_ctype = 'C');",
                None,
            ),
            (
                "PROCEDURAL LANGUAGE",
                "CREATE OR REPLACE PROCEDURAL LANGUAGE x;",
                Some((blocks, extension)),
            ),
            (
                "PROCEDURAL LANGUAGE",
                "CREATE LANGUAGE x HANDLER s.h;",
                None,
            ),
            (
                "INDEX",
                "CREATE INDEX x ON s.t USING rum (a);",
                Some((blocks, version)),
            ),
            ("INDEX", "CREATE INDEX x ON s.t USING btree (a);", None),
            (
                "TABLE",
                "CREATE TABLE t (a text);\nALTER TABLE ONLY t ALTER COLUMN a SET COMPRESSION lz4;",
                Some((Level::Notes, None)),
            ),
        ] {
            let mut e = TocEntry::bare(1, desc, "x");
            e.defn = definition.into();
            assert_eq!(
                found_in(e),
                wanted.into_iter().collect::<Vec<_>>(),
                "{definition}"
            );
        }
    }
}

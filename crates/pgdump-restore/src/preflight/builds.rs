//! Build options, languages, locales and access methods that a backup needs and the server lacks. Pure.

use super::{Finding, Level, R, Requirements, Rewriter, finding, names};
use crate::policy::Extensions;
use crate::postgres::plain_locale;
use pgdump_archive::TocEntry;

const REFUSED: &str = "the server rejects the definition";

pub(super) fn missing(
    entries: &[TocEntry],
    needs: &Requirements,
    rewriter: &Rewriter,
    found: &mut Vec<Finding>,
) {
    icu(entries, needs, rewriter, found);
    collations(entries, rewriter, found);
    languages(entries, rewriter, found);
    index_methods(entries, needs, rewriter, found);
    compression(entries, rewriter, found);
}

fn listed(entries: Vec<&TocEntry>) -> String {
    let all: Vec<String> = entries.into_iter().map(TocEntry::name).collect();
    names(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn icu(entries: &[TocEntry], needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    if rewriter.facts.has_icu {
        return;
    }
    let what = "the server is built without ICU, which the backup needs";
    let fix = "restore into a server built with ICU, such as PostgreSQL's own packages";
    let uses = |e: &&TocEntry| match e.desc.as_str() {
        "COLLATION" => option(&e.defn, "provider").is_some_and(|p| p == "icu"),
        "COMMENT" | "ACL" => false,
        _ => e.defn.contains("-x-icu\""),
    };
    let users: Vec<&TocEntry> = entries.iter().filter(uses).collect();
    if !users.is_empty() {
        let what = format!("{what}: {}", listed(users));
        found.push(finding(
            Level::Blocks,
            Some(R::VersionIncompatible),
            what,
            REFUSED,
            fix,
        ));
    }
    if needs
        .locale
        .as_ref()
        .is_some_and(|l| l.contains("LOCALE_PROVIDER = icu"))
    {
        let (what, level) = (
            format!("{what}: for the locale of the database"),
            Level::Blocks,
        );
        let refused = "CREATE DATABASE would fail";
        found.push(finding(
            level,
            Some(R::VersionIncompatible),
            what,
            refused,
            fix,
        ));
    }
}

fn collations(entries: &[TocEntry], rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let unknown = |e: &&TocEntry| {
        let of_libc = option(&e.defn, "provider").is_none_or(|p| p == "libc");
        let locale = option(&e.defn, "locale").or_else(|| option(&e.defn, "lc_collate"));
        let locale = locale.map(|l| plain_locale(&l));
        let everywhere = |l: &str| matches!(l, "c" | "posix" | "c.utf8" | "");
        e.desc == "COLLATION"
            && of_libc
            && locale.is_some_and(|l| !everywhere(&l) && !rewriter.facts.locales.contains(&l))
    };
    let unknown: Vec<&TocEntry> = entries.iter().filter(unknown).collect();
    if !unknown.is_empty() {
        found.push(finding(
            Level::Warns,
            None,
            format!(
                "the server does not list the locale of: {}",
                listed(unknown)
            ),
            "CREATE COLLATION fails unless its host has the locale",
            "install the locale on the server's host",
        ));
    }
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

fn languages(entries: &[TocEntry], rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let is_missing = |e: &&TocEntry| {
        let brings_handler = e.defn.to_ascii_uppercase().contains(" HANDLER ");
        e.desc == "PROCEDURAL LANGUAGE"
            && !brings_handler
            && e.tag != "plpgsql"
            && !rewriter.facts.extensions.contains(&e.tag)
            && !rewriter.facts.untrusted_extensions.contains(&e.tag)
    };
    let missing: Vec<&TocEntry> = entries.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        found.push(finding(
            Level::Blocks,
            Some(R::ExtensionMissing),
            format!("the server does not have: {}", listed(missing)),
            "CREATE LANGUAGE would fail",
            "install the language's package on the server",
        ));
    }
}

fn index_methods(
    entries: &[TocEntry],
    needs: &Requirements,
    rewriter: &Rewriter,
    found: &mut Vec<Finding>,
) {
    // An extension may provide it.
    let brings = needs.extensions.iter().any(|e| e != "plpgsql");
    let brings = brings || entries.iter().any(|e| e.desc == "ACCESS METHOD");
    if brings && rewriter.policy.extensions == Extensions::Require
        || rewriter.facts.index_methods.is_empty()
    {
        return;
    }
    let method = |e: &TocEntry| {
        let (_, rest) = e.defn.split_once(" USING ")?;
        Some(rest.split([' ', '(']).next()?.trim_matches('"').to_owned())
    };
    let is_missing = |e: &&TocEntry| {
        e.desc == "INDEX"
            && !brings
            && method(e).is_some_and(|m| !rewriter.facts.index_methods.contains(&m))
    };
    let missing: Vec<&TocEntry> = entries.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        let methods: std::collections::BTreeSet<String> =
            missing.iter().filter_map(|e| method(e)).collect();
        let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
        let what = format!(
            "the server does not have: access method {} of {}",
            names(&methods),
            listed(missing)
        );
        let fix = "install the extension that provides it, or exclude the index from the dump";
        found.push(finding(
            Level::Blocks,
            Some(R::VersionIncompatible),
            what,
            REFUSED,
            fix,
        ));
    }
}

fn compression(entries: &[TocEntry], rewriter: &Rewriter, found: &mut Vec<Finding>) {
    if rewriter.facts.has_lz4 || rewriter.facts.version < 140_000 {
        return;
    }
    let uses = |e: &&TocEntry| e.desc == "TABLE" && e.defn.contains("SET COMPRESSION lz4");
    let users: Vec<&TocEntry> = entries.iter().filter(uses).collect();
    if !users.is_empty() {
        found.push(finding(
            Level::Notes,
            None,
            format!(
                "the server is built without lz4, which compresses columns of: {}",
                listed(users)
            ),
            "they are compressed with the server's default method",
            "none needed",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

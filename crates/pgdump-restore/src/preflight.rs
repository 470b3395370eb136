//! Checks before a byte of data moves what a backup needs and whether the server has it. Pure.

mod builds;
mod definitions;
mod extensions;
mod finding;
mod owners;
mod requirements;

use self::finding::names;
pub use self::finding::{Finding, Level};
pub use self::requirements::{Requirements, large_objects_in};
use crate::error::DatabaseKind as D;
use crate::postgres::plain_locale;
use crate::rewrite::Rewriter;
use pgdump_archive::{Archive, TocEntry};

/// The oldest server that is restored into.
pub(crate) const OLDEST_SERVER: u32 = 130_000;

/// Compares a backup with a server under a policy; blocking findings come first.
pub fn preflight(
    archive: &Archive,
    entries: &[TocEntry],
    needs: &Requirements,
    rewriter: &Rewriter,
) -> Vec<Finding> {
    let mut found = Vec::new();
    versions(archive, rewriter, &mut found);
    extensions::missing(needs, rewriter, &mut found);
    owners::missing(needs, rewriter, &mut found);
    tablespaces(needs, rewriter, &mut found);
    locale(needs, rewriter, &mut found);
    definitions::unsupported(entries, rewriter, &mut found);
    builds::missing(entries, needs, rewriter, &mut found);
    found.sort_by_key(|f| f.level);
    found
}

/// The newest major version that the tests restore into.
const NEWEST_TESTED: u32 = 18;

fn versions(archive: &Archive, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let target = rewriter.facts.version / 10000;
    found.extend(untested(target));
    if rewriter.facts.version < OLDEST_SERVER {
        found.push(Finding::blocks(
            D::VersionIncompatible,
            format!("the server is PostgreSQL {target}"),
            "the oldest supported target is PostgreSQL 13",
            "restore into PostgreSQL 13 or later",
        ));
    }
    if let Some(source) = archive.header().server_major().filter(|s| *s > target) {
        found.push(Finding::warns(
            format!(
                "the backup was taken from PostgreSQL {source}, the server is PostgreSQL {target}"
            ),
            "the server rejects definitions that need the newer version, before any data moves",
            "restore into the same or a newer version",
        ));
    }
}

/// A newer server is no reason to refuse: it says itself what it does not take.
fn untested(target: u32) -> Option<Finding> {
    (target > NEWEST_TESTED).then(|| {
        Finding::warns(
            format!(
                "the server is PostgreSQL {target}, newer than the versions that this release is tested with (13 to {NEWEST_TESTED})"
            ),
            "the restore continues; the server rejects what it no longer accepts, and the target then stays as it was",
            "look for a newer release of pgrestored",
        )
    })
}

fn tablespaces(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let known = &rewriter.facts.tablespaces;
    let missing = needs.tablespaces.iter().map(String::as_str);
    let missing: Vec<&str> = missing.filter(|t| !known.contains(*t)).collect();
    if !missing.is_empty() {
        found.push(Finding::notes(
            format!("the server does not have: tablespace {}", names(&missing)),
            "its objects are created in the default tablespace",
            "create the tablespace if the location matters",
        ));
    }
}

fn locale(needs: &Requirements, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let Some(name) = needs.locale.as_deref().and_then(libc_locale) else {
        return;
    };
    let plain = plain_locale(name);
    let is_everywhere = matches!(plain.as_str(), "c" | "posix" | "c.utf8");
    if !is_everywhere && !rewriter.facts.locales.contains(&plain) {
        found.push(Finding::warns(
            format!("the server does not list the locale {name}"),
            "if the server cannot use it, it uses its default, and text may sort differently",
            "install the locale on the server's host",
        ));
    }
}

/// The locale of the C library in the options of `CREATE DATABASE`.
fn libc_locale(options: &str) -> Option<&str> {
    let value = |key: &str| {
        let (_, rest) = options.split_once(&format!("{key} = '"))?;
        rest.split('\'').next()
    };
    let is_libc =
        !options.contains("LOCALE_PROVIDER") || options.contains("LOCALE_PROVIDER = libc");
    value("LC_COLLATE")
        .or_else(|| value("LOCALE"))
        .filter(|_| is_libc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Selection;
    use crate::postgres::ServerFacts;
    use crate::prepare::prepare;
    use pgdump_archive::{ArchiveSource, DecryptionKeys, Limits};

    /// An archive of PostgreSQL 15 in SQL text.
    fn archive() -> Archive {
        let text = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.1\n\
            -- Dumped by pg_dump version 15.1\n\nCREATE TABLE public.t (a integer);\n\n\
            --\n-- PostgreSQL database dump complete\n--\n";
        let source = ArchiveSource::once(text.as_bytes());
        Archive::open(source, Limits::default(), &DecryptionKeys::default()).unwrap()
    }

    #[test]
    fn a_server_newer_than_those_tested_is_used_with_a_note() {
        for (version, note) in [
            (180003, None),
            (190000, Some("PostgreSQL 19, newer than")),
            (210004, Some("PostgreSQL 21, newer than")),
        ] {
            let facts = ServerFacts {
                version,
                ..ServerFacts::default()
            };
            let rewriter = Rewriter::new(facts, Default::default(), Default::default());
            let prepared = prepare(&archive(), &Selection::default(), None, &rewriter).unwrap();
            let notes = prepared.notes.iter();
            let about_version: Vec<&String> = notes
                .filter(|n| n.contains("newer than the versions"))
                .collect();
            assert_eq!(
                about_version.len(),
                usize::from(note.is_some()),
                "{version}"
            );
            assert!(about_version.iter().all(|n| n.contains(note.unwrap())));
        }
    }

    #[test]
    fn unknown_locale_is_a_warning() {
        let facts = ServerFacts {
            locales: ["en_us.utf8".to_owned()].into(),
            ..ServerFacts::default()
        };
        let rewriter = Rewriter::new(facts, Default::default(), Default::default());
        for (options, warns) in [
            ("LOCALE_PROVIDER = libc LOCALE = 'en_US.UTF-8'", false),
            ("LC_COLLATE = 'de_DE.UTF-8' LC_CTYPE = 'de_DE.UTF-8'", true),
            (
                "LOCALE_PROVIDER = icu LOCALE = 'xx' ICU_LOCALE = 'de'",
                false,
            ),
            ("LOCALE = 'C.UTF-8'", false),
        ] {
            let needs = Requirements {
                locale: Some(options.into()),
                ..Requirements::default()
            };
            let mut found = vec![];
            locale(&needs, &rewriter, &mut found);
            assert_eq!(!found.is_empty(), warns, "{options}");
        }
    }
}

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
    definitions::refused(entries, rewriter, &mut found);
    builds::missing(entries, needs, rewriter, &mut found);
    found.sort_by_key(|f| f.level);
    found
}

fn versions(archive: &Archive, rewriter: &Rewriter, found: &mut Vec<Finding>) {
    let target = rewriter.facts.version / 10000;
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
    use crate::postgres::ServerFacts;

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

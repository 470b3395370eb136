//! Encoding and locale of the dumped database, from the dump's own `CREATE DATABASE`. Pure.

use pgdump_archive::{Dialect, EntryKind, TocEntry, Token, tokens};

/// Options that choose the locale, by the names of all versions.
const LOCALE_OPTIONS: [&str; 7] = [
    "LOCALE_PROVIDER",
    "LOCALE",
    "LC_COLLATE",
    "LC_CTYPE",
    "ICU_LOCALE",
    "ICU_RULES",
    "BUILTIN_LOCALE",
];

/// What `CREATE DATABASE` says about the text of the database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseOptions {
    /// The encoding, unless it is the server's default.
    pub encoding: Option<String>,
    /// Key word and value, such as `LOCALE` and `C.UTF-8`.
    pub locale: Vec<(&'static str, String)>,
}

impl DatabaseOptions {
    /// The options of the dump's `CREATE DATABASE`; `None` if it has no such statement.
    pub fn of(entries: &[TocEntry]) -> Option<Self> {
        let database = entries.iter().find(|e| e.kind == EntryKind::Database)?;
        Some(Self::parse(&database.defn))
    }

    /// Parses a statement such as `CREATE DATABASE x WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE = 'C';`. Other
    /// statements may follow it.
    pub fn parse(create: &str) -> Self {
        let words = tokens(create, Dialect::default());
        let end = words.iter().position(|w| w.is_symbol(b';'));
        let words = &words[..end.unwrap_or(words.len())];
        let is_symbol = |at: usize, symbol| words.get(at).is_some_and(|w| w.is_symbol(symbol));
        // CREATE, DATABASE and the name.
        let mut at = 3;
        at += usize::from(words.get(at).is_some_and(|w| w.is("with")));
        let mut options = DatabaseOptions::default();
        while let Some(key) = words.get(at) {
            // CONNECTION LIMIT has two words, and may be negative.
            at += 1 + usize::from(key.is("connection"));
            at += usize::from(is_symbol(at, b'='));
            at += usize::from(is_symbol(at, b'-'));
            if let Some(value) = words.get(at) {
                options.add(key, value);
            }
            at += 1;
        }
        options
    }

    fn add(&mut self, key: &Token<'_>, value: &Token<'_>) {
        let Some(text) = value.string().or_else(|| value.name()) else {
            return;
        };
        if let Some(name) = LOCALE_OPTIONS.iter().find(|name| key.is(name)) {
            self.locale.push((*name, text));
        } else if key.is("ENCODING") && !text.eq_ignore_ascii_case("default") {
            self.encoding = Some(text);
        }
    }

    /// The options of the locale as `pg_dump` writes them; `None` if there are none.
    pub fn locale_text(&self) -> Option<String> {
        let option = |(key, value): &(&str, String)| match *key {
            "LOCALE_PROVIDER" => format!("{key} = {value}"),
            _ => format!("{key} = '{}'", value.replace('\'', "''")),
        };
        let all: Vec<String> = self.locale.iter().map(option).collect();
        (!all.is_empty()).then(|| all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_create_database_gives_its_options() {
        for (create, encoding, locale) in [
            (
                "CREATE DATABASE \"a ENCODING = 'X'\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8';\n",
                Some("UTF8"),
                Some("LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8'"),
            ),
            // Statements that follow in SQL text.
            (
                "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE = 'C.UTF-8';ALTER DATABASE shop OWNER TO postgres;\nSELECT pg_catalog.set_config('search_path', '', false);",
                Some("UTF8"),
                Some("LOCALE = 'C.UTF-8'"),
            ),
            (
                "CREATE DATABASE a WITH TEMPLATE = template0 ENCODING = 'LATIN1' LC_COLLATE = 'de_DE' LC_CTYPE = 'C';",
                Some("LATIN1"),
                Some("LC_COLLATE = 'de_DE' LC_CTYPE = 'C'"),
            ),
            (
                "CREATE DATABASE a WITH ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'de-DE' ICU_RULES = '&V << w' COLLATION_VERSION = '1.2' TABLESPACE = fast CONNECTION LIMIT = -1;",
                Some("UTF8"),
                Some(
                    "LOCALE_PROVIDER = icu LOCALE = 'C' ICU_LOCALE = 'de-DE' ICU_RULES = '&V << w'",
                ),
            ),
            (
                "CREATE DATABASE a ENCODING = 'UTF8' LOCALE_PROVIDER = builtin BUILTIN_LOCALE = 'C.UTF-8'",
                Some("UTF8"),
                Some("LOCALE_PROVIDER = builtin BUILTIN_LOCALE = 'C.UTF-8'"),
            ),
            // By hand: no `=`, several lines, names that are key words, a quote.
            (
                "create database \"ENCODING\"\n  owner locale\n  encoding 'EUC_JP'\n  lc_collate='it''s' ;\n\nALTER DATABASE x SET locale = 'y';",
                Some("EUC_JP"),
                Some("LC_COLLATE = 'it''s'"),
            ),
            (
                "CREATE DATABASE a OWNER = \"LC_CTYPE\" TEMPLATE DEFAULT ENCODING DEFAULT CONNECTION LIMIT 5 IS_TEMPLATE = false",
                None,
                None,
            ),
            ("CREATE DATABASE a", None, None),
            ("CREATE DATABASE a WITH ENCODING", None, None),
            ("", None, None),
        ] {
            let found = DatabaseOptions::parse(create);
            assert_eq!(found.encoding.as_deref(), encoding, "{create}");
            assert_eq!(found.locale_text().as_deref(), locale, "{create}");
        }
    }
}

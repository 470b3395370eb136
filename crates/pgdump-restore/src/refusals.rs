//! What a server refuses during a load: which errors are refusals of a definition, and what their root cause is.

use parking_lot::Mutex;

use crate::error::{DatabaseError, DatabaseKind as D};
use crate::policy::OnError;
use crate::postgres::kind_of_sqlstate;
use crate::refusal::Refusal;
use pgdump_archive::TocEntry;

/// Collects what a server refuses during a load.
#[derive(Debug, Default)]
pub struct Refusals {
    on_error: OnError,
    found: Mutex<Vec<Refusal>>,
}

impl Refusals {
    /// Nothing is refused yet.
    pub fn new(on_error: OnError) -> Self {
        Refusals {
            on_error,
            found: Mutex::default(),
        }
    }

    /// What the load does about a refusal.
    pub fn on_error(&self) -> OnError {
        self.on_error
    }

    /// Everything that was refused or left out so far, in the order in which it happened.
    pub fn found(&self) -> Vec<Refusal> {
        self.found.lock().clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.found.lock().len() as u64
    }

    /// Adds a refusal; false if it is the same as the last one, because several statements of one entry may be refused
    /// for one cause.
    pub(crate) fn add(&self, refusal: Refusal) -> bool {
        let mut found = self.found.lock();
        let is_new = found.last() != Some(&refusal);
        found.extend(is_new.then_some(refusal));
        is_new
    }
}

/// The error of a restore that ends because of these refusals.
pub fn refusal_error(refusals: Vec<Refusal>) -> DatabaseError {
    let causes = refusals.iter().filter(|r| r.caused_by.is_none());
    let more = causes.count().saturating_sub(1);
    let Some(first) = refusals.iter().find(|r| r.caused_by.is_none()) else {
        return DatabaseError::new(D::StatementRejected, "the server refused definitions");
    };
    let code = first.sqlstate.as_deref().unwrap_or_default();
    let what = format!("{}: {} [{code}]", first.entry, first.message);
    let error =
        DatabaseError::new(kind_of_sqlstate(code, &first.message), what).with_sqlstate(code);
    let error = match more {
        0 => error,
        more => error.followed_by(&format!("; and {more} more refused")),
    };
    error.with_refusals(refusals)
}

/// Whether the server refused a definition. It did not if it is unavailable, short of something, or damaged.
pub(crate) fn is_refusal(e: &DatabaseError) -> bool {
    let is_of_definition = matches!(
        e.kind(),
        D::InsufficientPrivilege
            | D::RoleMissing
            | D::ExtensionMissing
            | D::VersionIncompatible
            | D::StatementRejected
            | D::DataRejected
    );
    // 53: insufficient resources, 58030: I/O error, XX001 and XX002: corruption.
    let is_of_server =
        |code: &str| code.starts_with("53") || matches!(code, "58030" | "XX001" | "XX002");
    is_of_definition && e.sqlstate().is_some_and(|code| !is_of_server(code))
}

/// The server's message without the SQLSTATE, which results have beside it.
pub(crate) fn message_of(e: &DatabaseError) -> String {
    let text = e.to_string();
    let text = text.strip_prefix("statement: ").unwrap_or(&text);
    let code = e.sqlstate().map(|code| format!(" [{code}]"));
    let message = code.and_then(|code| Some(text.split_once(code.as_str())?.0.to_owned()));
    message.unwrap_or_else(|| text.to_owned())
}

/// Whether a SQLSTATE says that an object cannot be created because there is one: schema, relation, function, or another
/// kind.
pub(crate) fn is_duplicate(sqlstate: &str) -> bool {
    matches!(sqlstate, "42P06" | "42P07" | "42723" | "42710")
}

/// SQLSTATEs that say that something does not exist.
const ABSENT: [&str; 5] = ["42P01", "42704", "42883", "3F000", "42703"];

/// An object of a dump, as messages of the server tell it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// In the words of a table of contents, such as `MATERIALIZED VIEW`.
    pub kind: String,
    pub schema: Option<String>,
    /// Without schema and arguments.
    pub name: String,
}

impl Named {
    pub(crate) fn of(entry: &TocEntry) -> Self {
        Named {
            kind: entry.kind.to_string(),
            schema: entry.namespace.clone(),
            name: short_name(&entry.tag).to_owned(),
        }
    }

    /// Whether a message calls it by a word that ends `before`.
    fn is_called(&self, before: &str) -> bool {
        let words: &[&str] = match self.kind.as_str() {
            // Each has a type of its own.
            "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW" => {
                &["relation", "table", "view", "type"]
            }
            "SEQUENCE" => &["relation", "sequence"],
            "INDEX" => &["relation", "index"],
            "TYPE" | "DOMAIN" | "SHELL TYPE" => &["type", "relation"],
            "FUNCTION" | "PROCEDURE" | "AGGREGATE" => &["function", "procedure", "aggregate"],
            "PROCEDURAL LANGUAGE" => &["language"],
            // What an extension brings often has its name.
            "EXTENSION" => &[
                "extension",
                "access method",
                "language",
                "foreign-data wrapper",
                "type",
            ],
            "FOREIGN DATA WRAPPER" => &["foreign-data wrapper"],
            other => return before.ends_with(&other.to_lowercase()),
        };
        words.iter().any(|word| before.ends_with(word))
    }
}

/// A name in a message that says that something does not exist.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Absent<'a> {
    /// What precedes it, such as `relation`.
    before: &'a str,
    schema: Option<&'a str>,
    pub name: &'a str,
}

impl<'a> Absent<'a> {
    fn new(before: &'a str, name: &'a str) -> Self {
        let (schema, name) = match name.rsplit_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, name),
        };
        Absent {
            before: before.trim_end(),
            schema,
            name,
        }
    }

    /// Whether it may be this object. Not every message and statement has the schema.
    pub(crate) fn is(&self, named: &Named) -> bool {
        let schemas = self.schema.zip(named.schema.as_deref());
        self.name == named.name
            && schemas.is_none_or(|(a, b)| a == b)
            && named.is_called(self.before)
    }
}

/// The names in a message that says that something does not exist. Roles and tablespaces are never part of a dump.
pub(crate) fn absent_names<'a>(sqlstate: &str, message: &'a str) -> Vec<Absent<'a>> {
    let is_of_cluster = message.starts_with("role ") || message.starts_with("tablespace ");
    if is_of_cluster || !ABSENT.contains(&sqlstate) {
        return vec![];
    }
    let function = || {
        let word = ["function ", "procedure ", "aggregate "];
        let word = word.into_iter().find(|word| message.contains(word))?;
        let (_, rest) = message.split_once(word)?;
        Some(Absent::new(word, rest.split_once('(')?.0))
    };
    let parts: Vec<&str> = message.split('"').collect();
    let quoted = parts
        .chunks_exact(2)
        .map(|pair| Absent::new(pair[0], pair[1]));
    quoted.chain(function()).collect()
}

/// The name by which messages call an entry with this tag.
pub(crate) fn short_name(tag: &str) -> &str {
    tag.split_once('(').map_or(tag, |(name, _)| name)
}

/// Kinds of objects that a dump needs and may not contain.
const OUTSIDE: [&str; 10] = [
    "role",
    "tablespace",
    "access method",
    "language",
    "collation",
    "foreign-data wrapper",
    "extension",
    "schema",
    "server",
    "type",
];

/// Words before the name of what the server lacks or denies, and its kind.
const CAUSES: [(&str, &str); 13] = [
    ("could not access file", "LIBRARY"),
    ("must be able to SET ROLE", "ROLE"),
    ("must be member of role", "ROLE"),
    ("unrecognized configuration parameter", "PARAMETER"),
    ("invalid configuration parameter name", "PARAMETER"),
    // Of a table or an index.
    ("unrecognized parameter", "PARAMETER"),
    ("permission denied to set parameter", "PARAMETER"),
    ("security label provider", "SECURITY LABEL PROVIDER"),
    ("could not open dictionary file", "FILE"),
    ("could not open affix file", "FILE"),
    ("could not open stop-word file", "FILE"),
    ("could not open synonym file", "FILE"),
    ("could not open thesaurus file", "FILE"),
];

/// What the server lacks or denies by its message, such as `ROLE app`: one cause, whatever it makes fail.
pub(crate) fn cause_in(message: &str) -> Option<String> {
    let named = || {
        let mut causes = CAUSES.iter();
        causes.find_map(|(words, kind)| behind(message, words, kind))
    };
    absent(message).or_else(|| denied(message)).or_else(named)
}

/// `role "app" does not exist`
fn absent(message: &str) -> Option<String> {
    let (kind, rest) = message.split_once(" \"")?;
    // The server does not escape quotes in names.
    let end = rest.find("\" for encoding ").or_else(|| rest.rfind('"'))?;
    let name = rest.get(..end)?;
    let is_absent = OUTSIDE.contains(&kind) && rest.ends_with("does not exist");
    is_absent.then(|| format!("{} {name}", kind.to_uppercase()))
}

/// `permission denied for language c`
fn denied(message: &str) -> Option<String> {
    let object = message.strip_prefix("permission denied for ")?;
    let (kind, name) = object.rsplit_once(' ')?;
    Some(format!("{} {name}", kind.to_uppercase()))
}

fn behind(message: &str, words: &str, kind: &str) -> Option<String> {
    let (_, rest) = message.split_once(words)?;
    let (name, _) = rest.strip_prefix(" \"")?.rsplit_once('"')?;
    Some(format!("{kind} {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_a_server_in_trouble_are_no_refusals() {
        for (kind, code, wanted) in [
            (D::InsufficientPrivilege, "42501", true),
            (D::RoleMissing, "42704", true),
            (D::StatementRejected, "42601", true),
            (D::DataRejected, "23505", true),
            (D::StatementRejected, "XX000", true),
            (D::StatementRejected, "XX001", false),
            (D::StatementRejected, "58030", false),
            (D::Unavailable, "57P01", false),
            (D::Unavailable, "55P03", false),
            (D::InsufficientSpace, "53100", false),
            (D::LocksExhausted, "53200", false),
        ] {
            let e = DatabaseError::new(kind, "statement: no").with_sqlstate(code);
            assert_eq!(is_refusal(&e), wanted, "{code}");
        }
        // Without the server's answer, nothing is known of the definition.
        assert!(!is_refusal(&DatabaseError::new(D::StatementRejected, "x")));
    }

    #[test]
    fn the_first_cause_is_the_error() {
        let refusal = |entry: &str, caused_by: Option<&str>| Refusal {
            entry: entry.to_owned(),
            sqlstate: Some("42501".to_owned()),
            message: "must be superuser".to_owned(),
            root: "x".to_owned(),
            caused_by: caused_by.map(str::to_owned),
        };
        let all = vec![
            refusal("CAST a", None),
            refusal("COMMENT a", Some("CAST a")),
            refusal("CAST b", None),
        ];
        let e = refusal_error(all.clone());
        assert_eq!(
            e.to_string(),
            "CAST a: must be superuser [42501]; and 1 more refused"
        );
        assert_eq!(e.kind(), D::InsufficientPrivilege);
        assert_eq!(crate::error::RestoreError::from(e).refusals(), all);
    }

    #[test]
    fn the_message_is_the_servers() {
        let said = "statement: permission denied to create event trigger \"e\" [42501]";
        let e = DatabaseError::new(D::InsufficientPrivilege, said).with_sqlstate("42501");
        assert_eq!(
            message_of(&e),
            "permission denied to create event trigger \"e\""
        );
    }

    #[test]
    fn what_the_server_lacks_is_one_cause() {
        for (message, cause) in [
            ("role \"app\" does not exist", Some("ROLE app")),
            (
                "access method \"rum\" does not exist",
                Some("ACCESS METHOD rum"),
            ),
            (
                "collation \"pg_catalog.de_DE\" for encoding \"UTF8\" does not exist",
                Some("COLLATION pg_catalog.de_DE"),
            ),
            ("role \"a\"b\" does not exist", Some("ROLE a\"b")),
            ("must be able to SET ROLE \"a\"b\"", Some("ROLE a\"b")),
            ("permission denied for language c", Some("LANGUAGE c")),
            (
                "permission denied for foreign-data wrapper f",
                Some("FOREIGN-DATA WRAPPER f"),
            ),
            (
                "could not access file \"$libdir/postgis-3\": No such file or directory",
                Some("LIBRARY $libdir/postgis-3"),
            ),
            (
                "permission denied for database other",
                Some("DATABASE other"),
            ),
            ("must be able to SET ROLE \"app\"", Some("ROLE app")),
            ("must be member of role \"app\"", Some("ROLE app")),
            (
                "unrecognized configuration parameter \"transaction_timeout\"",
                Some("PARAMETER transaction_timeout"),
            ),
            (
                "invalid configuration parameter name \"plpgsql.new\"",
                Some("PARAMETER plpgsql.new"),
            ),
            (
                "permission denied for tablespace fast",
                Some("TABLESPACE fast"),
            ),
            (
                "security label provider \"selinux\" is not loaded",
                Some("SECURITY LABEL PROVIDER selinux"),
            ),
            (
                "could not open dictionary file \"/usr/share/x.dict\": No such file or directory",
                Some("FILE /usr/share/x.dict"),
            ),
            ("relation \"public.t\" does not exist", None),
            ("syntax error at or near \"x\"", None),
        ] {
            assert_eq!(cause_in(message).as_deref(), cause, "{message}");
        }
    }

    #[test]
    fn names_are_found_in_messages_about_what_does_not_exist() {
        let named = |kind: &str, schema: Option<&str>, name: &str| Named {
            kind: kind.to_owned(),
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
        };
        let table = named("TABLE", Some("public"), "t");
        for (code, message, object, wanted) in [
            (
                "42P01",
                "relation \"public.t\" does not exist",
                &table,
                true,
            ),
            ("42704", "type \"public.t\" does not exist", &table, true),
            (
                "42P01",
                "relation \"other.t\" does not exist",
                &table,
                false,
            ),
            (
                "42883",
                "function public.t(integer) does not exist",
                &table,
                false,
            ),
            (
                "42703",
                "column \"a\" of relation \"t\" does not exist",
                &table,
                true,
            ),
            ("42501", "must be owner of table \"t\"", &table, false),
            (
                "42883",
                "function s.f(integer, text) does not exist",
                &named("FUNCTION", Some("s"), "f"),
                true,
            ),
            (
                "42704",
                "text search dictionary \"public.d\" does not exist",
                &named("TEXT SEARCH DICTIONARY", Some("public"), "d"),
                true,
            ),
            (
                "42P01",
                "relation \"public.i\" does not exist",
                &named("INDEX", None, "i"),
                true,
            ),
            (
                "42704",
                "access method \"bloom\" does not exist",
                &named("EXTENSION", None, "bloom"),
                true,
            ),
            (
                "42P01",
                "relation \"public.bloom\" does not exist",
                &named("EXTENSION", None, "bloom"),
                false,
            ),
            (
                "42703",
                "column \"a\" of relation \"t\" does not exist",
                &named("TABLE", None, "a"),
                false,
            ),
        ] {
            let names = absent_names(code, message);
            assert_eq!(
                names.iter().any(|n| n.is(object)),
                wanted,
                "{message}: {object:?}"
            );
        }
        assert_eq!(short_name("f(integer)"), "f");
    }
}

//! Which statements may run concurrently with others, by their key words.

use crate::postgres::ident;
use pgdump_archive::{Dialect, Token, first_tokens, tokens};

/// Consecutive steps of the same kind run concurrently, except serial ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OrderGroup {
    #[default]
    Serial,
    Data,
    Build,
    /// Foreign keys, which need the keys they refer to.
    Keys,
}

/// What a statement may run concurrently with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StatementClass {
    Serial,
    Build {
        exclusive: Vec<String>,
        shared: Vec<String>,
        group: OrderGroup,
    },
    /// Only sets a sequence.
    Sequence,
    /// Refers to an index or key, and may run after others of them.
    Late,
    Setting {
        name: String,
        sql: String,
    },
    /// RESET ALL: earlier settings are no longer in force.
    ResetAll,
    /// DISCARD ALL: the same, and a role, temporary tables and the last values of sequences are gone, too.
    DiscardAll,
    /// BEGIN or COMMIT: the whole restore becomes visible in one step anyway.
    Transaction,
    Rollback,
    /// Not in a transaction with others: the server rejects it there, or it locks every partition of its table.
    Alone,
}

impl StatementClass {
    fn setting(name: impl Into<String>, sql: impl Into<String>) -> Self {
        let (mut name, sql): (String, String) = (name.into(), sql.into());
        // Names of settings are the same in any case, also in quotes.
        name.make_ascii_lowercase();
        StatementClass::Setting { name, sql }
    }

    /// A key, which locks these tables.
    fn key(group: OrderGroup, exclusive: Vec<String>) -> Self {
        let shared = vec![];
        StatementClass::Build {
            exclusive,
            shared,
            group,
        }
    }

    /// An index, which shares its table with others.
    fn index(table: String) -> Self {
        StatementClass::Build {
            exclusive: vec![],
            shared: vec![table],
            group: OrderGroup::Build,
        }
    }
}

/// Most tokens examined to classify a statement.
const CLASSIFIED: usize = 2000;

fn is_words(t: &[Token<'_>], words: &[&str]) -> bool {
    words.len() <= t.len() && words.iter().zip(t).all(|(w, t)| t.is(w))
}

/// A name at the start, with its schema, and the rest.
fn table<'a, 'b>(t: &'b [Token<'a>]) -> Option<(String, &'b [Token<'a>])> {
    let t = if t.first()?.is("only") { &t[1..] } else { t };
    let first = ident(&t.first()?.name()?);
    if !t.get(1).is_some_and(|d| d.is_symbol(b'.')) {
        return Some((first, &t[1..]));
    }
    let second = ident(&t.get(2)?.name()?);
    Some((format!("{first}.{second}"), &t[3..]))
}

/// The table that this name in the text refers to, in the form of [`StatementClass::Build`].
pub(crate) fn table_named(text: &str) -> Option<String> {
    table(&tokens(text, Dialect::default())).map(|(name, _)| name)
}

pub(crate) fn classify(sql: &str) -> StatementClass {
    let t = first_tokens(sql, Dialect::default(), CLASSIFIED);
    let Some(first) = t.first().and_then(Token::name) else {
        return StatementClass::Serial;
    };
    match first.as_str() {
        "reset" if is_words(&t[1..], &["all"]) => StatementClass::ResetAll,
        "discard" if is_words(&t[1..], &["all"]) => StatementClass::DiscardAll,
        "set" | "reset" => setting(&t, sql),
        "select" => call(&t, sql),
        "savepoint" | "release" | "begin" | "commit" | "end" => StatementClass::Transaction,
        "start" if is_words(&t[1..], &["transaction"]) => StatementClass::Transaction,
        "rollback" | "abort" => StatementClass::Rollback,
        "comment" => StatementClass::Late,
        "create" | "drop" | "reindex" | "refresh" if is_concurrent(&t) => StatementClass::Alone,
        "create" => create_index(&t[1..]).unwrap_or(StatementClass::Serial),
        "alter" => alter(&t),
        _ => StatementClass::Serial,
    }
}

/// Whether a definition may have a relation that is not logged, and that a crash of the server therefore resets.
pub(crate) fn may_be_unlogged(sql: &str) -> bool {
    sql.contains("UNLOGGED")
}

/// Whether a statement is by itself, but in a transaction.
pub(crate) fn has_own_transaction(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), CLASSIFIED);
    classify(sql) == StatementClass::Alone && !is_concurrent(&t)
}

fn is_concurrent(t: &[Token<'_>]) -> bool {
    t.iter().take(5).any(|w| w.is("concurrently"))
}

fn call(t: &[Token<'_>], sql: &str) -> StatementClass {
    let call: String = t.iter().skip(1).take(4).filter_map(Token::short).collect();
    match (call.as_str(), t.get(5).and_then(Token::string)) {
        ("pg_catalog.setval(", _) => StatementClass::Sequence,
        ("pg_catalog.set_config(", Some(name)) => StatementClass::setting(name, sql),
        _ => StatementClass::Serial,
    }
}

fn setting(t: &[Token<'_>], sql: &str) -> StatementClass {
    let has_scope = t.get(1).is_some_and(|w| w.is("session"));
    let name = t.get(if has_scope { 2 } else { 1 }).and_then(Token::name);
    match name.as_deref() {
        // Applies to one transaction, so its position matters.
        Some("local") | None => StatementClass::Serial,
        Some("authorization") if t[0].is("reset") => {
            StatementClass::setting("session_authorization", "RESET SESSION AUTHORIZATION;")
        }
        Some("authorization") => StatementClass::setting("session_authorization", sql),
        // Another spelling of the search path.
        Some("schema") if t[0].is("set") => StatementClass::setting("search_path", sql),
        Some(name) => StatementClass::setting(name, sql),
    }
}

fn create_index(t: &[Token<'_>]) -> Option<StatementClass> {
    let t = if t.first()?.is("unique") { &t[1..] } else { t };
    if !t.first()?.is("index") || t.get(1)?.is("concurrently") {
        return None;
    }
    let on = t.iter().position(|w| w.is("on"))?;
    let (table, _) = table(&t[on + 1..])?;
    Some(StatementClass::index(table))
}

fn alter(t: &[Token<'_>]) -> StatementClass {
    let adds_value = |w: &[Token<'_>]| w[0].is("add") && w[1].is("value");
    match t.get(1).and_then(Token::name).as_deref() {
        Some("type") if t.windows(2).any(adds_value) => StatementClass::Alone,
        Some("index") => StatementClass::Late,
        Some("table") => alter_table(&t[2..]),
        _ => StatementClass::Serial,
    }
}

fn alter_table(t: &[Token<'_>]) -> StatementClass {
    let only = t.first().is_some_and(|w| w.is("only"));
    let Some((name, rest)) = table(t) else {
        return StatementClass::Serial;
    };
    if is_words(rest, &["cluster"]) || is_words(rest, &["replica", "identity"]) {
        return StatementClass::Late;
    }
    if !is_words(rest, &["add", "constraint"]) {
        return StatementClass::Serial;
    }
    // Without ONLY, it applies to partitions, too.
    if !only {
        return StatementClass::Alone;
    }
    add_constraint(name, rest.get(3..).unwrap_or_default()).unwrap_or(StatementClass::Serial)
}

/// `PRIMARY KEY (a)` or another definition of a constraint.
fn add_constraint(table_name: String, definition: &[Token<'_>]) -> Option<StatementClass> {
    let is_key = [&["primary", "key"][..], &["unique"], &["exclude"]];
    if is_key.iter().any(|words| is_words(definition, words)) {
        return Some(StatementClass::key(OrderGroup::Build, vec![table_name]));
    }
    if !is_words(definition, &["foreign", "key"]) {
        return None;
    }
    let references = definition.iter().position(|w| w.is("references"))?;
    let (other, _) = table(&definition[references + 1..])?;
    Some(StatementClass::key(
        OrderGroup::Keys,
        vec![table_name, other],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_match_between_copy_and_ddl() {
        for (copy, index) in [
            ("s.t", "ON s.t (a)"),
            ("\"S\".t", "ON ONLY \"S\".t (a)"),
            ("t", "ON \"t\" (a)"),
        ] {
            let StatementClass::Build { shared, .. } =
                classify(&format!("CREATE INDEX i {index};"))
            else {
                panic!("{index}")
            };
            assert_eq!(table_named(copy), Some(shared[0].clone()));
        }
    }

    #[test]
    fn statements_are_classified_by_their_key_words() {
        let build = |exclusive: &[&str], shared: &[&str], group| StatementClass::Build {
            exclusive: exclusive.iter().map(|s| s.to_string()).collect(),
            shared: shared.iter().map(|s| s.to_string()).collect(),
            group,
        };
        for (sql, class) in [
            (
                "CREATE UNIQUE INDEX i ON ONLY s.t USING btree (a);",
                build(&[], &["\"s\".\"t\""], OrderGroup::Build),
            ),
            (
                "CREATE INDEX \"on\" ON t USING btree (a);",
                build(&[], &["\"t\""], OrderGroup::Build),
            ),
            (
                "ALTER TABLE ONLY s.\"T\"\n    ADD CONSTRAINT p PRIMARY KEY (a);",
                build(&["\"s\".\"T\""], &[], OrderGroup::Build),
            ),
            (
                "ALTER TABLE ONLY s.t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(b);",
                build(&["\"s\".\"t\"", "\"s\".\"u\""], &[], OrderGroup::Keys),
            ),
            (
                "ALTER TABLE s.t ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES s.u(b);",
                StatementClass::Alone,
            ),
            ("CREATE TABLE t (a int);", StatementClass::Serial),
            ("COMMENT ON INDEX i IS 'x';", StatementClass::Late),
            ("ALTER INDEX i ATTACH PARTITION j;", StatementClass::Late),
            (
                "SELECT pg_catalog.setval('public.s', 3, true);",
                StatementClass::Sequence,
            ),
            ("RESET ALL;", StatementClass::ResetAll),
            ("DISCARD ALL;", StatementClass::DiscardAll),
            ("DISCARD TEMP;", StatementClass::Serial),
            ("BEGIN;", StatementClass::Transaction),
            ("ROLLBACK;", StatementClass::Rollback),
            ("SET LOCAL x = 1;", StatementClass::Serial),
        ] {
            assert_eq!(classify(sql), class, "{sql}");
        }
        let name = |sql| match classify(sql) {
            StatementClass::Setting { name, .. } => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name("SET default_tablespace = '';"), "default_tablespace");
        assert_eq!(name("SET SCHEMA 'crm';"), "search_path");
        assert_eq!(name("SET \"Search_Path\" TO crm;"), "search_path");
        assert_eq!(name("SET SESSION SCHEMA 'crm';"), "search_path");
        assert_eq!(
            name("SET SESSION AUTHORIZATION 'x';"),
            "session_authorization"
        );
        assert_eq!(
            name("RESET SESSION AUTHORIZATION;"),
            "session_authorization"
        );
        assert_eq!(
            name("SELECT pg_catalog.set_config('search_path', '', false);"),
            "search_path"
        );
    }
}

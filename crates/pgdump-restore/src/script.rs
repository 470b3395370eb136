//! The order of SQL text: which statements are barriers between what precedes and what follows them, and
//! which may run concurrently. Pure. `pg_dump` writes all statements that create tables first, then the
//! data, then indexes, keys and the rest.

use std::collections::HashMap;

use super::work_queue::MemoryPermit;
use crate::postgres::ident;
use pgdump_archive::{Dialect, Statement, TocEntry, Token, first_tokens, tokens};

/// The work of one node.
pub(super) enum ScriptStep {
    /// The rows of one table, or large objects.
    Data {
        entry: Box<TocEntry>,
        settings: std::sync::Arc<Settings>,
    },
    Statements(Statements),
    /// No work; other nodes wait for it.
    Nothing,
}

/// Statements that one session runs.
pub(super) struct Statements {
    pub list: Vec<Statement>,
    pub settings: std::sync::Arc<Settings>,
    /// Do not wrap them in a transaction: they begin or end one, are within one that the text has begun, or must
    /// run outside of any.
    pub bare: bool,
    pub permit: Option<MemoryPermit>,
}

/// Settings of the dump in force at some point of the text: name and statement, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Settings(Vec<(String, String)>);

impl Settings {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, sql)| sql.as_str())
    }

    pub(crate) fn with(&self, name: String, sql: String) -> Self {
        let mut all = self.clone();
        all.0.retain(|(n, _)| *n != name);
        all.0.push((name, sql));
        all
    }

    /// The settings that remain after RESET ALL.
    pub(crate) fn reset(&self) -> Self {
        let kept = ["session_authorization", "role"];
        Settings(
            self.0
                .iter()
                .filter(|(n, _)| kept.contains(&n.as_str()))
                .cloned()
                .collect(),
        )
    }

    pub(crate) fn without(&self, name: &str) -> Self {
        Settings(self.0.iter().filter(|(n, _)| n != name).cloned().collect())
    }

    /// Statements that change a session's settings from `from` to these.
    pub(crate) fn after(&self, from: &Settings) -> String {
        let mut sql = String::new();
        for (name, _) in from.0.iter().filter(|(n, _)| self.get(n).is_none()) {
            let reset = match name.as_str() {
                "session_authorization" => "RESET SESSION AUTHORIZATION;".to_owned(),
                "search_path" => "SET search_path = pg_catalog;".to_owned(),
                other => format!("RESET {};", ident(other)),
            };
            sql.push_str(&reset);
        }
        for (name, statement) in &self.0 {
            if from.get(name) != Some(statement) {
                sql.push_str(statement);
            }
        }
        sql
    }
}

/// Consecutive steps of the same kind run concurrently, except serial ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum OrderGroup {
    #[default]
    Serial,
    Data,
    Build,
    /// Foreign keys, which need the keys they refer to.
    Keys,
}

/// What a statement may run concurrently with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StatementClass {
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
    /// BEGIN or COMMIT: the whole restore becomes visible in one step anyway.
    Transaction,
    Rollback,
    /// The server rejects it within a transaction.
    Alone,
}

/// Most tokens examined to classify a statement.
const CLASSIFIED: usize = 2000;

fn is_words(t: &[Token<'_>], words: &[&str]) -> bool {
    words.len() <= t.len() && words.iter().zip(t).all(|(w, t)| t.is(w))
}

/// A name at the start, with its schema, and the rest.
fn table<'a, 'b>(mut t: &'b [Token<'a>]) -> Option<(String, &'b [Token<'a>])> {
    if t.first()?.is("only") {
        t = &t[1..];
    }
    let first = t.first()?.name()?;
    if t.get(1).is_some_and(|d| d.is_symbol(b'.')) {
        Some((
            format!("{}.{}", ident(&first), ident(&t.get(2)?.name()?)),
            &t[3..],
        ))
    } else {
        Some((ident(&first), &t[1..]))
    }
}

/// The table that this name in the text refers to, in the form of [`StatementClass::Build`].
pub(super) fn table_named(text: &str) -> Option<String> {
    table(&tokens(text, Dialect::default())).map(|(name, _)| name)
}

pub(super) fn classify(sql: &str) -> StatementClass {
    let t = first_tokens(sql, Dialect::default(), CLASSIFIED);
    let Some(first) = t.first().and_then(Token::name) else {
        return StatementClass::Serial;
    };
    match first.as_str() {
        "reset" | "discard" if is_words(&t[1..], &["all"]) => StatementClass::ResetAll,
        "set" | "reset" => setting(&t, sql),
        "select" => {
            let call: String = t.iter().skip(1).take(4).filter_map(Token::short).collect();
            match call.as_str() {
                "pg_catalog.setval(" => StatementClass::Sequence,
                "pg_catalog.set_config(" => match t.get(5).and_then(Token::string) {
                    Some(name) => StatementClass::Setting {
                        name,
                        sql: sql.to_owned(),
                    },
                    None => StatementClass::Serial,
                },
                _ => StatementClass::Serial,
            }
        }
        "savepoint" | "release" | "begin" | "commit" | "end" => StatementClass::Transaction,
        "start" if is_words(&t[1..], &["transaction"]) => StatementClass::Transaction,
        "rollback" | "abort" => StatementClass::Rollback,
        "comment" => StatementClass::Late,
        "create" | "drop" | "reindex" | "refresh"
            if t.iter().take(5).any(|w| w.is("concurrently")) =>
        {
            StatementClass::Alone
        }
        "alter"
            if is_words(&t[1..], &["type"])
                && t.windows(2).any(|w| w[0].is("add") && w[1].is("value")) =>
        {
            StatementClass::Alone
        }
        "create" => create_index(&t[1..]).unwrap_or(StatementClass::Serial),
        "alter" if is_words(&t[1..], &["index"]) => StatementClass::Late,
        "alter" if is_words(&t[1..], &["table"]) => alter_table(&t[2..]),
        _ => StatementClass::Serial,
    }
}

fn setting(t: &[Token<'_>], sql: &str) -> StatementClass {
    let reset = t[0].is("reset");
    let rest = if t.get(1).is_some_and(|w| w.is("session")) {
        &t[2..]
    } else {
        &t[1..]
    };
    let sql = sql.to_owned();
    match rest.first().and_then(Token::name) {
        // Applies to one transaction, so its position matters.
        Some(name) if name == "local" => StatementClass::Serial,
        Some(name) if name == "authorization" => StatementClass::Setting {
            name: "session_authorization".into(),
            sql: if reset {
                "RESET SESSION AUTHORIZATION;".into()
            } else {
                sql
            },
        },
        Some(name) => StatementClass::Setting { name, sql },
        None => StatementClass::Serial,
    }
}

fn create_index(t: &[Token<'_>]) -> Option<StatementClass> {
    let t = if t.first()?.is("unique") { &t[1..] } else { t };
    if !t.first()?.is("index") || t.get(1)?.is("concurrently") {
        return None;
    }
    let on = t.iter().position(|w| w.is("on"))?;
    let (table, _) = table(&t[on + 1..])?;
    Some(StatementClass::Build {
        exclusive: vec![],
        shared: vec![table],
        group: OrderGroup::Build,
    })
}

fn alter_table(t: &[Token<'_>]) -> StatementClass {
    let only = t.first().is_some_and(|w| w.is("only"));
    let Some((name, rest)) = table(t) else {
        return StatementClass::Serial;
    };
    if is_words(rest, &["cluster"]) || is_words(rest, &["replica", "identity"]) {
        return StatementClass::Late;
    }
    // Without ONLY, partitions are locked, too.
    if !only || !is_words(rest, &["add", "constraint"]) {
        return StatementClass::Serial;
    }
    let kind = &rest[3.min(rest.len())..];
    if is_words(kind, &["primary", "key"])
        || is_words(kind, &["unique"])
        || is_words(kind, &["exclude"])
    {
        return StatementClass::Build {
            exclusive: vec![name],
            shared: vec![],
            group: OrderGroup::Build,
        };
    }
    if is_words(kind, &["foreign", "key"])
        && let Some(at) = kind.iter().position(|w| w.is("references"))
        && let Some((other, _)) = table(&kind[at + 1..])
    {
        return StatementClass::Build {
            exclusive: vec![name, other],
            shared: vec![],
            group: OrderGroup::Keys,
        };
    }
    StatementClass::Serial
}

/// Keeps the order: determines what the next node waits for.
#[derive(Debug, Default)]
pub(super) struct StatementOrder {
    group: OrderGroup,
    /// Nodes of the current group.
    members: Vec<usize>,
    /// The node that everything in the group waits for.
    barrier: Option<usize>,
    tables: HashMap<String, i32>,
}

impl StatementOrder {
    pub(crate) fn group(&self) -> OrderGroup {
        self.group
    }

    /// The nodes that a barrier must wait for before a node of `group` is added; `None` if no barrier is needed.
    pub(crate) fn barrier_before(&mut self, group: OrderGroup) -> Option<Vec<usize>> {
        if group == self.group && group != OrderGroup::Serial {
            return None;
        }
        match self.members.as_slice() {
            [] => None,
            [one] => {
                self.barrier = Some(*one);
                self.members.clear();
                None
            }
            _ => Some(std::mem::take(&mut self.members)),
        }
    }

    /// Sets the barrier that [`barrier_before`](Self::barrier_before) asked for.
    pub(crate) fn passed(&mut self, node: usize) {
        self.barrier = Some(node);
    }

    pub(crate) fn after(&self) -> Vec<usize> {
        self.barrier.into_iter().collect()
    }

    pub(crate) fn added(&mut self, node: usize, group: OrderGroup) {
        self.group = group;
        self.members.push(node);
    }

    /// A number for a table's name.
    pub(crate) fn table(&mut self, name: &str) -> i32 {
        let next = i32::try_from(self.tables.len()).unwrap_or(i32::MAX);
        *self.tables.entry(name.to_owned()).or_insert(next)
    }
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
                StatementClass::Serial,
            ),
            ("CREATE TABLE t (a int);", StatementClass::Serial),
            ("COMMENT ON INDEX i IS 'x';", StatementClass::Late),
            ("ALTER INDEX i ATTACH PARTITION j;", StatementClass::Late),
            (
                "SELECT pg_catalog.setval('public.s', 3, true);",
                StatementClass::Sequence,
            ),
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

    #[test]
    fn only_settings_that_differ_are_changed() {
        let a = Settings::default().with("x".into(), "SET x = 1;".into());
        let b = a.with("y".into(), "SET y = 1;".into());
        assert_eq!(b.after(&a), "SET y = 1;");
        assert_eq!(a.after(&b), "RESET \"y\";");
        assert_eq!(b.after(&b), "");
        assert_eq!(
            b.with("x".into(), "SET x = 2;".into()).after(&b),
            "SET x = 2;"
        );
    }

    #[test]
    fn a_group_waits_for_the_group_before_it() {
        let mut o = StatementOrder::default();
        let mut next = 0;
        let mut add = |o: &mut StatementOrder, group| {
            if let Some(after) = o.barrier_before(group) {
                assert!(after.len() > 1);
                o.passed(next);
                next += 1;
            }
            let after = o.after();
            o.added(next, group);
            next += 1;
            (next - 1, after)
        };
        assert_eq!(add(&mut o, OrderGroup::Serial), (0, vec![]));
        assert_eq!(add(&mut o, OrderGroup::Serial), (1, vec![0]));
        assert_eq!(add(&mut o, OrderGroup::Data), (2, vec![1]));
        assert_eq!(add(&mut o, OrderGroup::Data), (3, vec![1]));
        assert_eq!(
            add(&mut o, OrderGroup::Build),
            (5, vec![4]),
            "after a barrier for both"
        );
        assert_eq!(add(&mut o, OrderGroup::Keys), (6, vec![5]));
    }
}

//! Follows `standard_conforming_strings` through SQL text, as the server does that the text is sent to: whether a
//! backslash in an ordinary string is an escape decides where the string, and thus the statement, ends.

use std::collections::HashMap;
use std::sync::Arc;

use super::lexer::{Dialect, Token, TokenKind, first_tokens, tokens};

const NAME: &str = "standard_conforming_strings";
/// Most tokens of a statement of transactions or settings.
const SHORT: usize = 8;

/// A statement changes the setting, and to what depends on more than its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CannotFollow;

/// Values of the setting at one point of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Values {
    now: bool,
    /// After COMMIT, which ends what SET LOCAL has set.
    committed: bool,
}

const DEFAULT: Values = Values {
    now: true,
    committed: true,
};

/// Bytes of memory for a savepoint in addition to its name.
const SAVEPOINT: usize = 160;

/// The savepoints of the open transaction, with the values at each of them.
#[derive(Debug, Default)]
struct Savepoints {
    all: Vec<(Arc<str>, Values)>,
    /// The positions of those with this name, in order.
    by_name: HashMap<Arc<str>, Vec<usize>>,
    /// Bytes of memory that they take.
    memory: usize,
}

impl Savepoints {
    fn push(&mut self, name: &str, values: Values) {
        let name: Arc<str> = name.into();
        self.memory += SAVEPOINT + name.len();
        let positions = self.by_name.entry(name.clone()).or_default();
        positions.push(self.all.len());
        self.all.push((name, values));
    }

    /// The position of the last one with this name.
    fn find(&self, name: Option<String>) -> Option<usize> {
        self.by_name.get(name?.as_str())?.last().copied()
    }

    fn truncate(&mut self, length: usize) {
        while self.all.len() > length
            && let Some((name, _)) = self.all.pop()
        {
            self.memory -= SAVEPOINT + name.len();
            let positions = self.by_name.get_mut(&name);
            let is_last = positions.is_none_or(|at| {
                at.pop();
                at.is_empty()
            });
            if is_last {
                self.by_name.remove(&name);
            }
        }
    }
}

/// The setting in a session.
#[derive(Debug)]
pub(super) struct StandardStrings {
    values: Values,
    /// The values before the transaction that is open.
    begun: Option<Values>,
    savepoints: Savepoints,
}

impl Default for StandardStrings {
    fn default() -> Self {
        StandardStrings {
            values: DEFAULT,
            begun: None,
            savepoints: Savepoints::default(),
        }
    }
}

impl StandardStrings {
    /// The value after the statements so far.
    pub(super) fn is_on(&self) -> bool {
        self.values.now
    }

    /// Whether the value lasts only as long as the open transaction (SET LOCAL).
    pub(super) fn is_local(&self) -> bool {
        self.values.now != self.values.committed
    }

    /// Bytes of memory that its savepoints take.
    pub(super) fn memory(&self) -> usize {
        self.savepoints.memory
    }

    /// Follows one statement.
    pub(super) fn statement(&mut self, sql: &str, dialect: Dialect) -> Result<(), CannotFollow> {
        let t = first_tokens(sql, dialect, SHORT);
        let Some(first) = t.first().filter(|t| t.kind == TokenKind::Word) else {
            return Ok(());
        };
        let is = |i: usize, word: &str| t.get(i).is_some_and(|t: &Token<'_>| t.is(word));
        let name = |i: usize| t.get(i).and_then(Token::name);
        let chains = || t.windows(2).any(|w| w[0].is("and") && w[1].is("chain"));
        match first.text.to_ascii_lowercase().as_str() {
            "set" => {
                let at = 1 + usize::from(is(1, "session") || is(1, "local"));
                if is_ours(name(at)) {
                    self.assign(&t[(at + 2).min(t.len())..], is(1, "local"))?;
                }
            }
            "reset" if is(1, "all") || is_ours(name(1)) => self.set(true, false),
            "discard" if is(1, "all") => self.set(true, false),
            "begin" => self.begin(),
            "start" if is(1, "transaction") => self.begin(),
            "commit" | "end" => self.end(true, chains()),
            "abort" => self.end(false, chains()),
            "rollback" => match t.iter().rposition(|w| w.is("to")) {
                Some(to) => {
                    let at =
                        to + 1 + usize::from(is(to + 1, "savepoint") && name(to + 2).is_some());
                    self.roll_back_to(name(at));
                }
                None => self.end(false, chains()),
            },
            // The server rejects it outside of a transaction.
            "savepoint" if self.begun.is_some() => {
                if let Some(name) = name(1) {
                    self.savepoints.push(&name, self.values);
                }
            }
            "release" => {
                let at = 1 + usize::from(is(1, "savepoint") && name(2).is_some());
                if let Some(i) = self.savepoints.find(name(at)) {
                    self.savepoints.truncate(i);
                }
            }
            "select" if mentions(sql) => self.select(&tokens(sql, dialect))?,
            // Whatever else runs when it is sent.
            "do" | "call" | "execute" | "explain" | "insert" | "update" | "delete" | "merge"
            | "with" | "values" | "prepare"
                if mentions(sql) && changes(sql) =>
            {
                return Err(CannotFollow);
            }
            _ => {}
        }
        Ok(())
    }

    fn set(&mut self, value: bool, is_local: bool) {
        // SET LOCAL outside a transaction has no effect.
        if !is_local || self.begun.is_some() {
            self.values.now = value;
        }
        if !is_local {
            self.values.committed = value;
        }
    }

    /// `value` begins behind TO or `=`.
    fn assign(&mut self, value: &[Token<'_>], is_local: bool) -> Result<(), CannotFollow> {
        if value.first().is_some_and(|v| v.is("default")) {
            self.set(true, is_local);
            return Ok(());
        }
        let sign = usize::from(
            value
                .first()
                .is_some_and(|v| v.is_symbol(b'+') || v.is_symbol(b'-')),
        );
        let value = value.get(sign).ok_or(CannotFollow)?;
        // The server rejects what is no boolean, and keeps the value.
        if let Some(value) = boolean(&value_of(value)?) {
            self.set(value, is_local);
        }
        Ok(())
    }

    fn begin(&mut self) {
        // A BEGIN within a transaction has no effect.
        self.begun.get_or_insert(self.values);
    }

    fn end(&mut self, commits: bool, chains: bool) {
        self.savepoints.truncate(0);
        if let Some(before) = self.begun.take() {
            let value = if commits {
                self.values.committed
            } else {
                before.committed
            };
            self.values = Values {
                now: value,
                committed: value,
            };
            if chains {
                self.begin();
            }
        }
    }

    fn roll_back_to(&mut self, name: Option<String>) {
        if let Some(i) = self.savepoints.find(name) {
            self.values = self.savepoints.all[i].1;
            self.savepoints.truncate(i + 1);
        }
    }

    /// `SELECT set_config('…', '…', false), …;`, and nothing else that could change the setting.
    fn select(&mut self, t: &[Token<'_>]) -> Result<(), CannotFollow> {
        if !t.iter().any(|w| is_set_config(w)) {
            return Ok(());
        }
        let mut rest = &t[1..];
        loop {
            if let [schema, dot, after @ ..] = rest
                && schema.name().as_deref() == Some("pg_catalog")
                && dot.is_symbol(b'.')
            {
                rest = after;
            }
            let [
                function,
                open,
                name,
                comma,
                value,
                second,
                local,
                close,
                after @ ..,
            ] = rest
            else {
                return Err(CannotFollow);
            };
            let symbols = [(open, b'('), (comma, b','), (second, b','), (close, b')')];
            if !is_set_config(function) || symbols.iter().any(|(t, s)| !t.is_symbol(*s)) {
                return Err(CannotFollow);
            }
            if is_ours(Some(value_of(name)?)) {
                let is_local = boolean(&value_of(local)?).ok_or(CannotFollow)?;
                if value.is("null") {
                    self.set(true, is_local);
                } else if let Some(value) = boolean(&value_of(value)?) {
                    self.set(value, is_local);
                }
            }
            rest = match after {
                [end] if end.is_symbol(b';') => return Ok(()),
                [] => return Ok(()),
                [comma, after @ ..] if comma.is_symbol(b',') => after,
                _ => return Err(CannotFollow),
            };
        }
    }
}

fn is_ours(name: Option<String>) -> bool {
    name.is_some_and(|n| n.eq_ignore_ascii_case(NAME))
}

fn is_set_config(t: &Token<'_>) -> bool {
    t.name().as_deref() == Some("set_config")
}

/// The text of a value; what has escapes, or is quoted by dollars, is not decoded here.
fn value_of(t: &Token<'_>) -> Result<String, CannotFollow> {
    if let TokenKind::StringConstant = t.kind {
        return t.string().filter(|s| !s.contains('\\')).ok_or(CannotFollow);
    }
    if let Some(name) = t.name() {
        return Ok(name);
    }
    // An integer, in whatever form: `00` is 0.
    let number = t.text.bytes().all(|b| b.is_ascii_digit());
    let number = number.then(|| t.text.parse::<u64>().unwrap_or(u64::MAX));
    number.map(|n| n.to_string()).ok_or(CannotFollow)
}

/// PostgreSQL's `parse_bool`: any unambiguous beginning of the words, in any case.
fn boolean(text: &str) -> Option<bool> {
    let text = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || text == "1" {
        Some(true)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

/// Whether the setting's name occurs anywhere, in a string or a body, too.
fn mentions(sql: &str) -> bool {
    let (sql, before) = (sql.as_bytes(), "standard".len());
    memchr::memchr_iter(b'_', sql).any(|at| {
        let from = at.checked_sub(before);
        let word = from.and_then(|from| sql.get(from..from + NAME.len()));
        word.is_some_and(|w| w.eq_ignore_ascii_case(NAME.as_bytes()))
    })
}

/// Whether a statement that mentions a setting could change it.
fn changes(sql: &str) -> bool {
    let words = sql.split(|c: char| !c.is_alphanumeric() && c != '_');
    let changing = ["set", "reset", "set_config", "update"];
    words
        .into_iter()
        .any(|w| changing.iter().any(|c| w.eq_ignore_ascii_case(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values after each of these statements.
    fn after(statements: &[&str]) -> Vec<bool> {
        let mut strings = StandardStrings::default();
        let value = |sql: &&str| {
            let standard_strings = strings.is_on();
            let dialect = Dialect {
                standard_strings,
                ..Dialect::default()
            };
            strings.statement(sql, dialect).unwrap();
            strings.is_on()
        };
        statements.iter().map(value).collect()
    }

    #[test]
    fn every_spelling_of_a_boolean_is_understood() {
        for (values, is) in [
            (
                "on On true TRUE tru tr t yes ye y 1 'on' 't' 'YE' '1' \"true\" E'on' 01 +1",
                true,
            ),
            (
                "off oFF of false fals f F no n 0 'off' 'of' 'F' '0' \"off\" E'no' 00 -0",
                false,
            ),
        ] {
            for value in values.split(' ') {
                for set in [
                    "SET {} = ",
                    "set session {} to ",
                    "SET \"{}\"=",
                    "Set/**/ {} TO ",
                ] {
                    let set = set.replace("{}", "Standard_Conforming_Strings");
                    let before = format!("SET {NAME} = {}", if is { "off" } else { "on" });
                    let sql = format!("{set}{value};");
                    assert_eq!(after(&[&before, &sql]), [!is, is], "{sql}");
                }
            }
        }
        // What the server rejects changes nothing.
        for value in ["o", "'o'", "tt", "2", "''", "offf", "' off'"] {
            let sql = format!("SET {NAME} = {value};");
            assert_eq!(
                after(&["SET standard_conforming_strings = f;", &sql]),
                [false, false],
                "{sql}"
            );
        }
        let off = "SET standard_conforming_strings = f;";
        for sql in [
            "RESET standard_conforming_strings;",
            "RESET ALL;",
            "DISCARD ALL;",
            "SET standard_conforming_strings TO DEFAULT;",
        ] {
            assert_eq!(after(&[off, sql]), [false, true], "{sql}");
        }
    }

    #[test]
    fn a_transaction_ends_what_is_local_to_it() {
        let (off, local) = (
            "SET standard_conforming_strings = off;",
            "SET LOCAL standard_conforming_strings = off;",
        );
        let on = "SET LOCAL standard_conforming_strings = on;";
        for (statements, values) in [
            (vec![local], vec![true]),
            (vec!["BEGIN;", local, "COMMIT;"], vec![true, false, true]),
            (
                vec!["START TRANSACTION;", local, "END;"],
                vec![true, false, true],
            ),
            (vec!["BEGIN;", off, "COMMIT;"], vec![true, false, false]),
            (vec!["BEGIN;", off, "ROLLBACK;"], vec![true, false, true]),
            (vec!["BEGIN;", off, "ABORT;"], vec![true, false, true]),
            (
                vec!["BEGIN;", off, on, "COMMIT;"],
                vec![true, false, true, false],
            ),
            (
                vec![
                    "BEGIN;",
                    local,
                    "COMMIT AND CHAIN;",
                    off,
                    "ROLLBACK AND NO CHAIN;",
                    local,
                ],
                vec![true, false, true, false, true, true],
            ),
            (
                vec![
                    "BEGIN;",
                    "SAVEPOINT a;",
                    off,
                    "ROLLBACK TO a;",
                    local,
                    "RELEASE SAVEPOINT a;",
                    "COMMIT;",
                ],
                vec![true, true, false, true, false, false, true],
            ),
            (
                vec![
                    "BEGIN;",
                    off,
                    "SAVEPOINT a;",
                    on,
                    "ROLLBACK WORK TO SAVEPOINT a;",
                    "COMMIT;",
                ],
                vec![true, false, false, true, false, false],
            ),
        ] {
            assert_eq!(after(&statements), values, "{statements:?}");
        }
    }

    /// The last one of a name counts; its memory is free when it is gone.
    #[test]
    fn savepoints_are_found_by_name_and_forgotten() {
        let (off, on) = (
            "SET standard_conforming_strings = off;",
            "SET standard_conforming_strings = on;",
        );
        let statements = [
            "BEGIN;",
            "SAVEPOINT a;",
            off,
            "SAVEPOINT b;",
            "SAVEPOINT a;",
            on,
            "ROLLBACK TO a;",
            "RELEASE b;",
            "ROLLBACK TO b;",
            "ROLLBACK TO a;",
        ];
        let values = [
            true, true, false, false, false, true, false, false, false, true,
        ];
        assert_eq!(after(&statements), values);
        let mut strings = StandardStrings::default();
        let mut run = |sql: &str| {
            strings.statement(sql, Dialect::default()).unwrap();
            (strings.savepoints.all.len(), strings.memory())
        };
        assert_eq!(run("SAVEPOINT outside;"), (0, 0));
        run("BEGIN;");
        let (_, one) = run("SAVEPOINT a;");
        assert_eq!(run("SAVEPOINT b;"), (2, 2 * one));
        assert_eq!(run("RELEASE SAVEPOINT b;"), (1, one));
        assert_eq!(run("SAVEPOINT a;"), (2, 2 * one));
        assert_eq!(run("ROLLBACK TO a;"), (2, 2 * one));
        assert_eq!(run("COMMIT;"), (0, 0));
        assert!(strings.savepoints.by_name.is_empty());
    }

    #[test]
    fn functions_that_set_it_are_followed_or_refused() {
        let set = |value: &str, local: &str| {
            format!(
                "SELECT pg_catalog.set_config('standard_conforming_strings', {value}, {local});"
            )
        };
        let off = set("'off'", "false");
        assert_eq!(after(&[&off, &set("NULL", "false")]), [false, true]);
        assert_eq!(after(&[&set("'of'", "true")]), [true]);
        assert_eq!(
            after(&["BEGIN;", &set("'f'", "'t'"), "COMMIT;"]),
            [true, false, true]
        );
        assert_eq!(
            after(&[
                "SELECT set_config('search_path', '', false), SET_CONFIG('STANDARD_CONFORMING_STRINGS', '0', false)"
            ]),
            [false]
        );
        // These read it, or have it as text, or set it elsewhere.
        for sql in [
            "SELECT current_setting('standard_conforming_strings');",
            "SELECT 'standard_conforming_strings';",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET standard_conforming_strings = off AS 'SELECT 1';",
            "ALTER ROLE r SET standard_conforming_strings = off;",
            "SELECT pg_catalog.set_config('search_path', '', false);",
            "DO $$ BEGIN PERFORM current_setting('standard_conforming_strings'); END $$;",
        ] {
            assert_eq!(after(&[sql]), [true], "{sql}");
        }
        for sql in [
            "SELECT set_config('standard_conforming_strings', 'off', false) WHERE false;",
            "SELECT set_config('standard_conforming_strings', x, false) FROM t;",
            "SELECT set_config('standard_conforming_strings', E'o\\x66f', false);",
            "SELECT set_config(n, 'off', false) FROM (VALUES ('standard_conforming_strings')) v (n);",
            "SET standard_conforming_strings = $$off$$;",
            "DO $$ BEGIN SET standard_conforming_strings = off; END $$;",
            "UPDATE pg_settings SET setting = 'off' WHERE name = 'standard_conforming_strings';",
            "WITH x AS (SELECT set_config('standard_conforming_strings', 'off', false)) TABLE x;",
        ] {
            let refused = StandardStrings::default().statement(sql, Dialect::default());
            assert_eq!(refused, Err(CannotFollow), "{sql}");
        }
    }
}

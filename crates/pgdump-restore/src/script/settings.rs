//! Settings that a text has made.

use crate::postgres::{ident, own_setting};
use pgdump_archive::{Dialect, first_tokens};

/// Tokens of `SET SESSION name = DEFAULT;`.
const SHORT: usize = 6;

/// Settings of the dump in force at some point of the text: name and statement, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Settings(Vec<(String, String)>);

impl Settings {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, sql)| sql.as_str())
    }

    /// The same with one more setting. RESET gives it the default of the session, as RESET ALL does.
    pub(crate) fn with(&self, name: String, sql: String) -> Self {
        let sql = if own_setting(&name).is_some() && is_reset(&sql) {
            reset(&name)
        } else {
            sql
        };
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

    /// Names and statements.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, sql)| (name.as_str(), sql.as_str()))
    }

    /// Those whose statements `is_kept` has.
    pub(crate) fn only(&self, is_kept: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(_, sql)| is_kept(sql));
        Settings(kept.cloned().collect())
    }

    /// Statements that change a session's settings from `from` to these.
    pub(crate) fn after(&self, from: &Settings) -> String {
        let mut sql = String::new();
        for (name, _) in from.0.iter().filter(|(n, _)| self.get(n).is_none()) {
            sql.push_str(&reset(name));
        }
        for (name, statement) in &self.0 {
            if from.get(name) != Some(statement) {
                sql.push_str(statement);
            }
        }
        sql
    }
}

/// The statement that gives a setting its value before the text had set it, but for the search path: text that resets it
/// relies on the server's default, which `psql` has from the beginning.
fn reset(name: &str) -> String {
    let own = own_setting(name).filter(|_| name != "search_path");
    match own {
        Some(value) => format!("SET {name} = {value};"),
        None if name == "session_authorization" => "RESET SESSION AUTHORIZATION;".to_owned(),
        None => format!("RESET {};", ident(name)),
    }
}

/// `RESET name` or `SET name = DEFAULT`
fn is_reset(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), SHORT);
    t.first().is_some_and(|first| first.is("reset")) || t.iter().any(|word| word.is("default"))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// The session keeps what a restore needs, and otherwise has what it would have in `psql`.
    #[test]
    fn reset_settings_have_the_values_of_the_session() {
        let set = |name: &str, sql: &str| Settings::default().with(name.into(), sql.into());
        for (name, sql, reset) in [
            (
                "statement_timeout",
                "SET statement_timeout = '5s';",
                "SET statement_timeout = 0;",
            ),
            (
                "client_connection_check_interval",
                "SET client_connection_check_interval = 0;",
                "SET client_connection_check_interval = '1s';",
            ),
            (
                "search_path",
                "SET search_path = s;",
                "RESET \"search_path\";",
            ),
            ("work_mem", "SET work_mem = '1MB';", "RESET \"work_mem\";"),
        ] {
            let before = set(name, sql);
            assert_eq!(before.reset().after(&before), reset);
        }
        for sql in [
            "RESET lock_timeout;",
            "SET lock_timeout TO DEFAULT;",
            "SET SESSION lock_timeout = DEFAULT;",
        ] {
            let after = set("lock_timeout", sql);
            assert_eq!(after.get("lock_timeout"), Some("SET lock_timeout = 0;"));
        }
        let path = "RESET search_path;";
        assert_eq!(
            set("search_path", path).get("search_path"),
            Some("RESET \"search_path\";")
        );
        let role = set("role", "SET ROLE a;");
        assert_eq!(role.reset(), role);
    }
}

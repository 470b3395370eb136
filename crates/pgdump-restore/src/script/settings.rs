//! Settings that a text has made.

use crate::postgres::ident;

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
}

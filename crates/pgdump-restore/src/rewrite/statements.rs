//! Rewrites one statement: skips it, changes it, or keeps it.

use std::borrow::Cow;

use super::edits::{
    compatible, is, is_contrib, is_statistics, summary, without_column_option, without_multirange,
    without_privilege,
};
use super::rules::*;
use super::{Rewriter, RewrittenStatement};
use crate::error::RestoreError;
use crate::policy::Owners;
use crate::roles::{mentions, renamed};
use pgdump_archive::{Dialect, Token, first_tokens};

/// Parameters that `pg_dump` sets, with the version that introduced them.
const SETTINGS_SINCE: [(&str, u32); 4] = [
    ("transaction_timeout", 170000),
    ("default_toast_compression", 140000),
    ("restrict_nonsystem_relation_kind", 170000),
    ("event_triggers", 170000),
];

/// A column option that the server maintains itself.
const VERSION_OF_COLUMN: &str = "pg_attver";

/// Tokens examined of a statement: everything that a rule looks for is among them.
const LOOKED_AT: usize = 1 << 17;

const ARRAY_FUNCTIONS: [&str; 3] = ["array_append", "array_prepend", "array_cat"];

impl Rewriter {
    /// A statement as it is sent, or `None` if a rule skips it. `clean`: nothing has been created yet.
    ///
    /// # Errors
    /// `role_missing`, `extension_missing`.
    pub fn statement<'a>(
        &self,
        sql: &'a str,
        clean: bool,
    ) -> Result<Option<RewrittenStatement<'a>>, RestoreError> {
        let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
        if let Some(rule) = self.should_skip(&t, sql, clean)? {
            if let Some(rule) = rule {
                self.used(rule, summary(&t));
            }
            return Ok(None);
        }
        let mut out = self.changed(&t, sql).map_or(Cow::Borrowed(sql), Cow::Owned);
        if is(&t, &["set"]) && !is(&t, &["set", "session", "authorization"]) {
            return Ok(Some(RewrittenStatement {
                roles: vec![],
                text: out,
            }));
        }
        if self.policy.owners == Owners::Map
            && let Some(mapped) = renamed(&out, |r| {
                Some(self.role(r)).filter(|m| *m != r).map(str::to_owned)
            })
        {
            self.used(ROLE_MAPPED, summary(&t));
            out = Cow::Owned(mapped);
        }
        let mut roles: Vec<String> = mentions(&out).into_iter().map(|m| m.role).collect();
        roles.retain(|r| !self.has_role(r));
        let roles = roles
            .iter()
            .map(|r| self.make_role(r))
            .collect::<Result<_, _>>()?;
        Ok(Some(RewrittenStatement { roles, text: out }))
    }

    /// The rule that skips a statement; the inner `None` if its use is already reported.
    #[allow(
        clippy::option_option,
        reason = "skipped or not, and reported here or not"
    )]
    fn should_skip(
        &self,
        t: &[Token<'_>],
        sql: &str,
        clean: bool,
    ) -> Result<Option<Option<&'static str>>, RestoreError> {
        let version = self.facts.version;
        let name = |i: usize| t.get(i).and_then(Token::name).unwrap_or_default();
        let rule = |when: bool, rule: &'static str| Ok(when.then_some(Some(rule)));
        match name(0).as_str() {
            "set" => {
                let since = SETTINGS_SINCE.iter().find(|(n, _)| *n == name(1));
                rule(
                    since.is_some_and(|(_, since)| version < *since),
                    UNKNOWN_SETTING,
                )
            }
            "drop" => rule(clean, CLEAN),
            "alter" if clean && t.iter().any(|w| w.is("drop") || w.is("detach")) => {
                rule(true, CLEAN)
            }
            "select" if t.len() > 4 && t[3].text == "lo_unlink" => rule(clean, CLEAN),
            "create" => match name(1).as_str() {
                "database" => rule(true, DATABASE),
                "schema" => rule(
                    name(2) == "public" || (name(2) == "if" && name(5) == "public"),
                    SCHEMA_PUBLIC,
                ),
                "extension" => {
                    let extension = if name(2) == "if" { name(5) } else { name(2) };
                    self.state().brings_methods |= !is_contrib(&extension);
                    Ok((!self.keeps_extension(&extension)?).then_some(None))
                }
                "access" => {
                    self.state().brings_methods = true;
                    Ok(None)
                }
                // Breaks a dependency cycle by replacing a view, so that it can be dropped.
                "or" if clean && name(3) == "view" => rule(true, CLEAN),
                _ => {
                    let language = t.iter().take(5).position(|w| w.is("language"));
                    rule(
                        language.is_some_and(|i| name(i + 1) == "plpgsql" && t.len() <= i + 3),
                        PLPGSQL,
                    )
                }
            },
            "alter" if name(1) == "database" => rule(true, DATABASE),
            "alter"
                if matches!(name(1).as_str(), "role" | "user")
                    && is(t.get(3..).unwrap_or_default(), &["in", "database"]) =>
            {
                rule(true, DATABASE)
            }
            "vacuum" | "checkpoint" => rule(true, MAINTENANCE),
            "alter" if name(1) == "default" => rule(!self.policy.privileges, PRIVILEGES_LEFT_OUT),
            "alter" => {
                let owner = t.windows(2).any(|w| w[0].is("owner") && w[1].is("to"));
                if owner && self.policy.owners == Owners::None {
                    return rule(true, OWNER_LEFT_OUT);
                }
                if without_column_option(t, sql, VERSION_OF_COLUMN) == Some(None) {
                    return rule(true, COLUMN_VERSION);
                }
                let compression = t
                    .windows(2)
                    .any(|w| w[0].is("set") && w[1].is("compression"));
                let unknown = t.iter().any(|w| w.is("lz4")) && !self.facts.has_lz4;
                rule(compression && (version < 140000 || unknown), COMPRESSION)
            }
            "comment" | "security"
                if t.iter().take(5).any(|w| w.is("database")) && name(2) != "column" =>
            {
                rule(name(2) == "database", DATABASE)
            }
            "comment" if name(2) == "extension" => {
                if !self.facts.extensions.contains(&name(3)) {
                    return rule(true, EXTENSION_SKIPPED);
                }
                rule(!self.facts.is_superuser, COMMENT_ON_EXTENSION)
            }
            "grant" | "revoke" => {
                let database = t.windows(2).any(|w| w[0].is("on") && w[1].is("database"));
                if database {
                    return rule(true, DATABASE);
                }
                if !self.policy.privileges {
                    return rule(true, PRIVILEGES_LEFT_OUT);
                }
                let maintain = version < 170000 && is(&t[1..], &["maintain", "on"]);
                rule(maintain, MAINTAIN)
            }
            _ if is_statistics(t) => {
                self.state().has_statistics |= version >= 180000;
                rule(version < 180000, STATISTICS)
            }
            _ => Ok(None),
        }
    }

    /// The statement as a rule changes it.
    fn changed(&self, t: &[Token<'_>], sql: &str) -> Option<String> {
        let name = |i: usize| t.get(i).and_then(Token::name).unwrap_or_default();
        match name(0).as_str() {
            "set" => {
                let value = t.get(3).and_then(|v| v.name().or_else(|| v.string()))?;
                match name(1).as_str() {
                    "default_tablespace"
                        if !value.is_empty() && !self.facts.tablespaces.contains(&value) =>
                    {
                        self.used(TABLESPACE, value);
                        Some("SET default_tablespace = '';".into())
                    }
                    "default_table_access_method" if self.lacks_method(&value) => {
                        self.used(ACCESS_METHOD, value);
                        Some("SET default_table_access_method = heap;".into())
                    }
                    "default_with_oids" if matches!(value.as_str(), "true" | "on") => {
                        self.used(WITH_OIDS, "SET default_with_oids");
                        Some("SET default_with_oids = false;".into())
                    }
                    _ => None,
                }
            }
            "alter" if matches!(name(1).as_str(), "table" | "foreign") => {
                let left = without_column_option(t, sql, VERSION_OF_COLUMN).flatten();
                left.inspect(|_| self.used(COLUMN_VERSION, summary(t)))
            }
            "grant" | "revoke" | "alter" if self.facts.version < 170000 => {
                without_privilege(t, sql, "maintain")
                    .inspect(|_| self.used(MAINTAIN, summary(t)))
                    .or_else(|| self.with_new_arguments(sql))
            }
            "create" if name(1) == "type" && self.facts.version < 140000 => {
                without_multirange(t, sql).inspect(|_| self.used(MULTIRANGE, summary(t)))
            }
            "create" if name(1) == "aggregate" && self.facts.version >= 140000 => {
                let over_arrays = t
                    .windows(3)
                    .any(|w| w[0].is("sfunc") && ARRAY_FUNCTIONS.iter().any(|f| w[2].is(f)))
                    || t.windows(5)
                        .any(|w| w[0].is("sfunc") && ARRAY_FUNCTIONS.iter().any(|f| w[4].is(f)));
                let out = over_arrays.then(|| compatible(t, sql)).flatten()?;
                self.used(ARRAY_AGGREGATE, summary(t));
                let aggregate = if t.get(3).is_some_and(|d| d.is_symbol(b'.')) {
                    name(4)
                } else {
                    name(2)
                };
                self.state().aggregates.insert(aggregate);
                Some(out)
            }
            "alter" | "comment" | "grant" | "revoke" => self.with_new_arguments(sql),
            _ => None,
        }
    }

    /// `AGGREGATE x(anyelement)` if that aggregate was created with changed argument types.
    pub(super) fn with_new_arguments(&self, sql: &str) -> Option<String> {
        let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
        let state = self.state();
        let known = |n: String| state.aggregates.contains(&n);
        let speaks = t.iter().any(|w| w.is("aggregate") || w.is("function"))
            && t.windows(2)
                .any(|w| w[1].is_symbol(b'(') && w[0].name().is_some_and(known));
        speaks.then(|| compatible(&t, sql)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::rewriter;
    use super::*;
    use crate::error::FailureReason as R;

    #[test]
    fn statements_are_rewritten_for_the_version() {
        let f = rewriter(150000, |_| ());
        for (sql, wanted, rule) in [
            ("SET transaction_timeout = 0;", None, UNKNOWN_SETTING),
            (
                "SET default_tablespace = slow;",
                Some("SET default_tablespace = '';"),
                TABLESPACE,
            ),
            (
                "SET default_table_access_method = odd;",
                Some("SET default_table_access_method = heap;"),
                ACCESS_METHOD,
            ),
            (
                "SET default_with_oids = true;",
                Some("SET default_with_oids = false;"),
                WITH_OIDS,
            ),
            (
                "CREATE DATABASE x WITH TEMPLATE = template0;",
                None,
                DATABASE,
            ),
            ("GRANT CONNECT ON DATABASE x TO there;", None, DATABASE),
            ("COMMENT ON DATABASE x IS 'y';", None, DATABASE),
            ("CREATE SCHEMA public;", None, SCHEMA_PUBLIC),
            (
                "CREATE OR REPLACE PROCEDURAL LANGUAGE plpgsql;",
                None,
                PLPGSQL,
            ),
            (
                "GRANT SELECT,MAINTAIN,UPDATE ON TABLE t TO there;",
                Some("GRANT SELECT,UPDATE ON TABLE t TO there;"),
                MAINTAIN,
            ),
            (
                "GRANT SELECT,MAINTAIN ON TABLE t TO there;",
                Some("GRANT SELECT ON TABLE t TO there;"),
                MAINTAIN,
            ),
            (
                "GRANT MAINTAIN,SELECT ON TABLE t TO there;",
                Some("GRANT SELECT ON TABLE t TO there;"),
                MAINTAIN,
            ),
            ("GRANT MAINTAIN ON TABLE t TO there;", None, MAINTAIN),
            (
                "ALTER TABLE ONLY s.t ALTER COLUMN \"set\" SET (pg_attver=7);",
                None,
                COLUMN_VERSION,
            ),
            (
                "ALTER FOREIGN TABLE ONLY s.t ALTER COLUMN a SET (n_distinct=5, pg_attver=7);",
                Some("ALTER FOREIGN TABLE ONLY s.t ALTER COLUMN a SET (n_distinct=5);"),
                COLUMN_VERSION,
            ),
            (
                "ALTER TABLE ONLY s.t ALTER COLUMN a SET (pg_attver=7, n_distinct=-0.5, n_distinct_inherited=2);",
                Some(
                    "ALTER TABLE ONLY s.t ALTER COLUMN a SET (n_distinct=-0.5, n_distinct_inherited=2);",
                ),
                COLUMN_VERSION,
            ),
            (
                "SELECT * FROM pg_catalog.pg_restore_relation_stats('version', '180000'::integer);",
                None,
                STATISTICS,
            ),
            (
                "CREATE AGGREGATE public.agg(anyelement) (\n SFUNC = array_append,\n STYPE = anyarray\n);",
                Some(
                    "CREATE AGGREGATE public.agg(anycompatible) (\n SFUNC = array_append,\n STYPE = anycompatiblearray\n);",
                ),
                ARRAY_AGGREGATE,
            ),
            (
                "ALTER AGGREGATE public.agg(anyelement) OWNER TO there;",
                Some("ALTER AGGREGATE public.agg(anycompatible) OWNER TO there;"),
                ARRAY_AGGREGATE,
            ),
        ] {
            assert_eq!(
                f.statement(sql, false)
                    .unwrap()
                    .map(RewrittenStatement::joined)
                    .as_deref(),
                wanted,
                "{sql}"
            );
            assert!(f.report().iter().any(|r| r.rule == rule), "{sql}: {rule}");
        }
        for same in [
            "SET statement_timeout = 0;",
            "SET default_tablespace = fast;",
            "SET default_table_access_method = heap;",
            "CREATE TABLE public.t (a int);",
            "DROP TABLE x;",
            "ALTER TABLE ONLY t ALTER COLUMN pg_attver SET (n_distinct=5);",
            "ALTER TABLE ONLY t ALTER COLUMN a SET DEFAULT 'SET (pg_attver=7)';",
            "COMMENT ON COLUMN t.database IS 'x';",
            "CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;",
            "CREATE LANGUAGE plpgsqlx HANDLER h;",
            "GRANT ALL ON TABLE t TO there;",
        ] {
            assert_eq!(
                f.statement(same, false)
                    .unwrap()
                    .map(RewrittenStatement::joined)
                    .as_deref(),
                Some(same)
            );
        }
        let old = rewriter(130000, |_| ());
        for (sql, wanted, rule) in [
            (
                "ALTER TABLE ONLY t ALTER COLUMN a SET COMPRESSION lz4;",
                None,
                COMPRESSION,
            ),
            (
                "SET default_toast_compression = 'pglz';",
                None,
                UNKNOWN_SETTING,
            ),
            (
                "CREATE TYPE s.r AS RANGE (\n    subtype = time,\n    multirange_type_name = s.m\n);",
                Some("CREATE TYPE s.r AS RANGE (\n    subtype = time);"),
                MULTIRANGE,
            ),
        ] {
            assert_eq!(
                old.statement(sql, false)
                    .unwrap()
                    .map(RewrittenStatement::joined)
                    .as_deref(),
                wanted,
                "{sql}"
            );
            assert!(old.report().iter().any(|r| r.rule == rule), "{sql}: {rule}");
        }
        let mut ordinary = rewriter(170000, |_| ());
        ordinary.facts.is_superuser = false;
        let comment = "COMMENT ON EXTENSION plpgsql IS 'x';";
        assert_eq!(ordinary.statement(comment, false).unwrap(), None);
        assert_eq!(
            f.statement(comment, false)
                .unwrap()
                .map(RewrittenStatement::joined)
                .as_deref(),
            Some(comment)
        );
        assert_eq!(
            ordinary
                .statement("CREATE EXTENSION adminpack;", false)
                .unwrap(),
            None
        );
        let e = f
            .statement("CREATE EXTENSION adminpack;", false)
            .unwrap_err();
        assert_eq!(e.reason(), R::ExtensionMissing);
        let rules: Vec<String> = ordinary.report().into_iter().map(|r| r.rule).collect();
        assert_eq!(rules, [COMMENT_ON_EXTENSION, EXTENSION_GONE]);

        let new = rewriter(170000, |_| ());
        let sql = "GRANT SELECT,MAINTAIN ON TABLE t TO there;";
        assert_eq!(
            new.statement(sql, false)
                .unwrap()
                .map(RewrittenStatement::joined)
                .as_deref(),
            Some(sql)
        );
        assert!(new.report().is_empty());
    }

    #[test]
    fn statements_of_clean_are_skipped_only_at_the_beginning() {
        let f = rewriter(150000, |_| ());
        for sql in [
            "DROP TABLE t;",
            "ALTER TABLE ONLY t DROP CONSTRAINT c;",
            "ALTER TABLE t ALTER COLUMN a DROP DEFAULT;",
        ] {
            assert_eq!(f.statement(sql, true).unwrap(), None);
            assert_eq!(
                f.statement(sql, false)
                    .unwrap()
                    .map(RewrittenStatement::joined)
                    .as_deref(),
                Some(sql)
            );
        }
    }
}

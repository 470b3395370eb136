//! Rewrites one statement: skips it, changes it, or keeps it.

use std::borrow::Cow;

use super::edits::{
    VERSION_OF_COLUMN, compatible, has_pair, is, name, summary, without_column_option,
    without_multirange, without_privilege,
};
use super::platform::Platform;
use super::rules::*;
use super::skipped_by_rule::{Skip, name_unless_exists};
use super::{Rewriter, RewrittenStatement};
use crate::error::RestoreError;
use crate::extension_calls;
use crate::extension_hooks::hooks_of;
use crate::policy::Owners;
use crate::roles::{mentions, renamed};
use pgdump_archive::{Dialect, Token, first_tokens};

/// Tokens examined of a statement: everything that a rule looks for is among them.
const LOOKED_AT: usize = 1 << 17;

const ARRAY_FUNCTIONS: [&str; 3] = ["array_append", "array_prepend", "array_cat"];

impl Rewriter {
    /// A statement as it is sent, or `None` if a rule skips it. `clean`: nothing has been created yet.
    ///
    /// # Errors
    /// `role_missing`, `extension_missing`.
    pub(crate) fn statement<'a>(
        &self,
        sql: &'a str,
        clean: bool,
    ) -> Result<Option<RewrittenStatement<'a>>, RestoreError> {
        let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
        match self.should_skip(&t, sql, clean)? {
            Skip::No => {}
            Skip::Reported => return Ok(None),
            Skip::By(rule) => {
                self.used(rule, summary(&t));
                return Ok(None);
            }
        }
        let text = self.changed(&t, sql).map_or(Cow::Borrowed(sql), Cow::Owned);
        let text = match self.without_platform(&text) {
            Platform::Unchanged => text,
            Platform::Changed(rule, sql) => {
                self.used(rule, summary(&t));
                Cow::Owned(sql)
            }
            Platform::LeftOut(rule) => {
                self.used(rule, summary(&t));
                self.leave_out_created(sql);
                return Ok(None);
            }
        };
        if is(&t, &["set"]) && !is(&t, &["set", "session", "authorization"]) {
            let roles = vec![];
            return Ok(Some(RewrittenStatement { roles, text }));
        }
        let text = match self.with_mapped_roles(&text) {
            Some(mapped) => {
                self.used(ROLE_MAPPED, summary(&t));
                Cow::Owned(mapped)
            }
            None => text,
        };
        let roles = self.make_roles_of(&text)?;
        Ok(Some(RewrittenStatement { roles, text }))
    }

    fn with_mapped_roles(&self, sql: &str) -> Option<String> {
        if self.policy.owners != Owners::Map {
            return None;
        }
        renamed(sql, |role| {
            let mapped = self.role(role);
            (mapped != role).then(|| mapped.to_owned())
        })
    }

    /// Statements that create the roles that a statement needs and the server lacks, and that allow to make them owners.
    fn make_roles_of(&self, sql: &str) -> Result<Vec<String>, RestoreError> {
        let roles: Vec<String> = mentions(sql).into_iter().map(|m| m.role).collect();
        let gets_owner = !roles.is_empty() && names_owner(sql);
        let mut sent = Vec::new();
        for role in &roles {
            let has_role = self.has_role(role);
            if has_role && gets_owner {
                sent.extend(self.join_role(role));
            } else if !has_role && !self.does_without_role(role) {
                sent.push(self.make_role(role)?);
            }
        }
        Ok(sent)
    }

    /// The statement as a rule changes it.
    fn changed(&self, t: &[Token<'_>], sql: &str) -> Option<String> {
        let version = self.facts.version;
        match name(t, 0).as_str() {
            "set" => self.changed_setting(t),
            "alter" if matches!(name(t, 1).as_str(), "table" | "foreign") => {
                let left = without_column_option(t, sql, VERSION_OF_COLUMN).flatten();
                left.inspect(|_| self.used(COLUMN_VERSION, summary(t)))
            }
            "grant" | "revoke" | "alter" if version < 170000 => {
                without_privilege(t, sql, "maintain")
                    .inspect(|_| self.used(MAINTAIN, summary(t)))
                    .or_else(|| self.with_new_arguments(sql))
            }
            "create" if name(t, 1) == "extension" => self.with_calls(&name_unless_exists(t), sql),
            "create" if name(t, 1) == "type" && version < 140000 => {
                without_multirange(t, sql).inspect(|_| self.used(MULTIRANGE, summary(t)))
            }
            "create" if name(t, 1) == "aggregate" && version >= 140000 => {
                self.changed_aggregate(t, sql)
            }
            "alter" | "comment" | "grant" | "revoke" => self.with_new_arguments(sql),
            _ => None,
        }
    }

    fn changed_setting(&self, t: &[Token<'_>]) -> Option<String> {
        let value = t.get(3).and_then(|v| v.name().or_else(|| v.string()))?;
        let lacks_tablespace = || !value.is_empty() && !self.facts.tablespaces.contains(&value);
        let (rule, example, sql) = match name(t, 1).as_str() {
            "default_tablespace" if lacks_tablespace() => {
                (TABLESPACE, value.as_str(), "SET default_tablespace = '';")
            }
            "default_table_access_method" if self.lacks_method(&value) => {
                let sql = "SET default_table_access_method = heap;";
                (ACCESS_METHOD, value.as_str(), sql)
            }
            "default_with_oids" if matches!(value.as_str(), "true" | "on") => {
                let sql = "SET default_with_oids = false;";
                (WITH_OIDS, "SET default_with_oids", sql)
            }
            _ => return None,
        };
        self.used(rule, example);
        Some(sql.to_owned())
    }

    /// `CREATE EXTENSION`, with what the extension needs before anything else is restored.
    fn with_calls(&self, extension: &str, sql: &str) -> Option<String> {
        if let Some(why) = self.facts.unusable_extensions.get(extension) {
            return extension_calls::instead_of_disconnecting(extension, why);
        }
        let sent = extension_calls::with_calls(extension, sql)?;
        self.used(EXTENSION_CALLS, format!("EXTENSION {extension}"));
        let called = hooks_of(extension).map(|h| h.extension);
        self.state().called.extend(called);
        Some(sent)
    }

    fn changed_aggregate(&self, t: &[Token<'_>], sql: &str) -> Option<String> {
        let changed = takes_array_function(t)
            .then(|| compatible(t, sql))
            .flatten()?;
        self.used(ARRAY_AGGREGATE, summary(t));
        let has_schema = t.get(3).is_some_and(|d| d.is_symbol(b'.'));
        let aggregate = name(t, if has_schema { 4 } else { 2 });
        self.state().aggregates.insert(aggregate);
        Some(changed)
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

/// `ALTER … OWNER TO role`
fn names_owner(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    is(&t, &["alter"]) && has_pair(&t, "owner", "to")
}

/// `SFUNC = array_append` or `SFUNC = pg_catalog.array_append`
fn takes_array_function(t: &[Token<'_>]) -> bool {
    let is_array = |t: &Token<'_>| ARRAY_FUNCTIONS.iter().any(|f| t.is(f));
    let is_at = |w: &[Token<'_>], at: usize| w.get(at).is_some_and(is_array);
    (0..t.len()).any(|i| t[i].is("sfunc") && (is_at(&t[i..], 2) || is_at(&t[i..], 4)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::rewriter;
    use super::*;
    use crate::error::FailureReason as R;
    use crate::policy::OnError;

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
    fn an_extension_is_told_about_the_restore() {
        let mut f = rewriter(150000, |_| ());
        let create = "CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;";
        f.facts.extensions.insert("timescaledb".into());
        let sent = f
            .statement(create, false)
            .unwrap()
            .unwrap()
            .text
            .into_owned();
        assert!(
            sent.starts_with(create) && sent.contains("timescaledb_pre_restore"),
            "{sent}"
        );
        assert_eq!(f.report()[0].rule, EXTENSION_CALLS);
        assert!(f.called_extensions().contains("timescaledb"));
        let other = "CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;";
        assert_eq!(f.statement(other, false).unwrap().unwrap().text, other);
    }

    /// With `--on-error skip`, the server is asked; it would end the connection.
    #[test]
    fn an_extension_that_ends_the_connection_is_refused_here() {
        let mut f = rewriter(150000, |p| p.on_error = OnError::Skip);
        for name in ["timescaledb", "pg_cron"] {
            f.facts
                .unusable_extensions
                .insert(name.into(), "not loaded".into());
        }
        let sent = |create: &str| {
            f.statement(create, false)
                .unwrap()
                .unwrap()
                .text
                .into_owned()
        };
        let refused = sent("CREATE EXTENSION timescaledb;");
        assert!(
            refused.contains("RAISE EXCEPTION") && refused.contains("not loaded"),
            "{refused}"
        );
        // This one is refused with an error.
        assert_eq!(
            sent("CREATE EXTENSION pg_cron;"),
            "CREATE EXTENSION pg_cron;"
        );
        assert!(f.called_extensions().is_empty());
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

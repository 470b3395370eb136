//! Fits a dump to a server that is not the one it came from: by policy (owners, roles, extensions)
//! and by version. Every departure is a rule of [`RULES`], and every use of a rule is reported;
//! whatever no rule covers goes to the server as it is, and fails there if it must.

mod edits;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::roles::{mentions, renamed};
use edits::{compatible, is, is_contrib, is_statistics, summary, without_multirange, without_privilege};
use rules::*;

use crate::archive::{Dialect, TocEntry, Token, statements, tokens};
use crate::error::{DatabaseError, FailureReason as R, RestoreError};
use crate::policy::{Extensions, Owners, Policy, Rewrite};
use crate::postgres::{ServerFacts, ident, literal};
pub use rules::{RULES, Rule};

/// Parameters that `pg_dump` sets, with the version that they came with.
const SETTINGS_SINCE: [(&str, u32); 4] = [
    ("transaction_timeout", 170000),
    ("default_toast_compression", 140000),
    ("restrict_nonsystem_relation_kind", 170000),
    ("event_triggers", 170000),
];

const ARRAY_FUNCTIONS: [&str; 3] = ["array_append", "array_prepend", "array_cat"];

/// Examples that a report gives of one rule.
const EXAMPLES: usize = 50;

/// What the target has, what the policy is, and what was done.
pub struct Fit {
    pub facts: ServerFacts,
    pub policy: Policy,
    /// Statements that make the roles of a globals file.
    globals: BTreeMap<String, String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: BTreeMap<&'static str, (u64, Vec<String>)>,
    /// Roles that this restore has made.
    created: BTreeSet<String>,
    /// Aggregates that take other arguments now.
    aggregates: BTreeSet<String>,
    /// The dump itself may bring table access methods.
    brings_methods: bool,
    /// Statistics of the dump were restored.
    has_statistics: bool,
}

/// A statement of SQL text as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Statements that make roles which it needs, for the role that restores to run before it.
    pub roles: Vec<String>,
    pub text: String,
}

impl Fitted {
    /// Both, where the statement runs as the role that restores anyway.
    fn joined(self) -> String {
        self.roles.concat() + &self.text
    }
}

impl Fit {
    /// `globals`: statements that make roles, by name.
    pub fn new(facts: ServerFacts, policy: Policy, globals: BTreeMap<String, String>) -> Self {
        Fit { facts, policy, globals, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, rule: &'static str, example: impl Into<String>) {
        let mut state = self.state();
        let (count, examples) = state.used.entry(rule).or_default();
        *count += 1;
        let example = example.into();
        if examples.len() < EXAMPLES && !examples.contains(&example) {
            examples.push(example);
        }
    }

    /// What was done otherwise than the dump says.
    pub fn report(&self) -> Vec<Rewrite> {
        let state = self.state();
        let rewrite = |(name, (count, examples)): (&&'static str, &(u64, Vec<String>))| Rewrite {
            rule: (*name).to_owned(),
            what: RULES.iter().find(|r| r.name == *name).map_or("", |r| r.what).to_owned(),
            count: *count,
            examples: examples.clone(),
        };
        state.used.iter().map(rewrite).collect()
    }

    /// Roles that were made, to be dropped again where the restore fails.
    pub fn created_roles(&self) -> Vec<String> {
        self.state().created.iter().cloned().collect()
    }

    /// Whether the dump's own statistics were restored.
    pub fn has_statistics(&self) -> bool {
        self.state().has_statistics
    }

    /// The role's name on the target.
    pub fn role<'a>(&'a self, role: &'a str) -> &'a str {
        let mapped = (self.policy.owners == Owners::Map).then(|| self.policy.role_map.get(role)).flatten();
        mapped.map_or(role, String::as_str)
    }

    /// Whether the target has the role, or this restore made it.
    pub fn has_role(&self, role: &str) -> bool {
        self.facts.roles.contains(role) || self.state().created.contains(role)
    }

    /// Whether a role that the server does not have may be made.
    pub fn makes_role(&self, role: &str) -> bool {
        self.policy.create_roles || self.globals.contains_key(role)
    }

    /// The statement that makes a missing role; another restore may make it at the same time.
    ///
    /// # Errors
    /// `role_missing`, unless the policy is to create roles or the globals have it.
    pub fn make_role(&self, role: &str) -> Result<String, RestoreError> {
        let definition = self.globals.get(role);
        if !self.policy.create_roles && definition.is_none() {
            let what =
                format!("role {role} does not exist on the server (--create-roles, --owners map or none)");
            return Err(DatabaseError::new(R::RoleMissing, what).into());
        }
        self.state().created.insert(role.to_owned());
        self.used(ROLE_CREATED, role);
        let create = definition.cloned().unwrap_or_else(|| format!("CREATE ROLE {} NOLOGIN;", ident(role)));
        let body = format!("BEGIN {create} EXCEPTION WHEN duplicate_object THEN NULL; END");
        Ok(format!("DO LANGUAGE plpgsql {};\n", literal(&body)))
    }

    /// Changes a table of contents in place; entries that are left out go.
    ///
    /// # Errors
    /// `role_missing`, `extension_missing`.
    pub fn entries(&self, entries: &mut Vec<TocEntry>) -> Result<(), RestoreError> {
        let methods: HashSet<&str> =
            entries.iter().filter(|e| e.desc == "ACCESS METHOD").map(|e| e.tag.as_str()).collect();
        let extensions = entries.iter().filter(|e| e.desc == "EXTENSION");
        let own = !methods.is_empty() || extensions.clone().any(|e| !is_contrib(&e.tag));
        self.state().brings_methods |= own;
        let mut gone = HashSet::new();
        for e in entries.iter().filter(|e| e.desc == "EXTENSION" && !e.tag.is_empty()) {
            if !self.keeps_extension(&e.tag)? {
                gone.insert(e.dump_id);
            }
        }
        self.leave_out_dependants(entries, gone);
        for e in entries.iter_mut() {
            self.entry(e)?;
        }
        // Privileges that were left out whole.
        entries.retain(|e| {
            !(e.defn.is_empty() && !e.has_data && matches!(e.desc.as_str(), "ACL" | "DEFAULT ACL"))
        });
        Ok(())
    }

    fn leave_out_dependants(&self, entries: &mut Vec<TocEntry>, mut gone: HashSet<i32>) {
        if gone.is_empty() {
            return;
        }
        loop {
            let more: Vec<i32> = entries
                .iter()
                .filter(|e| !gone.contains(&e.dump_id) && e.dependencies.iter().any(|d| gone.contains(d)))
                .map(|e| e.dump_id)
                .collect();
            if more.is_empty() {
                break;
            }
            gone.extend(more);
        }
        for e in entries.iter().filter(|e| gone.contains(&e.dump_id) && e.desc != "EXTENSION") {
            self.used(EXTENSION_SKIPPED, e.name());
        }
        entries.retain(|e| !gone.contains(&e.dump_id));
    }

    /// Whether the extension is to be made.
    fn keeps_extension(&self, name: &str) -> Result<bool, RestoreError> {
        if self.facts.extensions.contains(name) {
            return Ok(true);
        }
        if self.facts.version >= 170000 && matches!(name, "adminpack" | "old_snapshot") {
            self.used(EXTENSION_GONE, name);
            return Ok(false);
        }
        match self.policy.extensions {
            Extensions::SkipMissing => {
                self.used(EXTENSION_SKIPPED, format!("EXTENSION {name}"));
                Ok(false)
            }
            Extensions::Require => {
                let what = format!(
                    "extension {name} is not available on the server (install it, or --extensions skip-missing)"
                );
                Err(DatabaseError::new(R::ExtensionMissing, what).into())
            }
        }
    }

    fn entry(&self, e: &mut TocEntry) -> Result<(), RestoreError> {
        if !e.owner.is_empty() && !e.drop_stmt.is_empty() {
            match self.policy.owners {
                Owners::None => {
                    self.used(OWNER_LEFT_OUT, e.owner.as_str());
                    e.owner.clear();
                }
                Owners::Map if self.role(&e.owner) != e.owner => {
                    self.used(ROLE_MAPPED, format!("{} → {}", e.owner, self.role(&e.owner)));
                    e.owner = self.role(&e.owner).to_owned();
                }
                Owners::Map | Owners::Keep => {}
            }
        }
        if let Some(space) =
            e.tablespace.as_mut().filter(|t| !t.is_empty() && !self.facts.tablespaces.contains(*t))
        {
            self.used(TABLESPACE, space.as_str());
            space.clear();
        }
        if let Some(method) = e.table_am.as_mut().filter(|m| self.lacks_method(m)) {
            self.used(ACCESS_METHOD, method.as_str());
            "heap".clone_into(method);
        }
        if e.with_oids || e.oids_in_data {
            self.used(WITH_OIDS, e.name());
            e.with_oids = false;
        }
        let looked_at = match e.desc.as_str() {
            "ACL"
            | "ACL LANGUAGE"
            | "DEFAULT ACL"
            | "POLICY"
            | "USER MAPPING"
            | "PROCEDURAL LANGUAGE"
            | "STATISTICS DATA"
            | "AGGREGATE"
            | "SCHEMA"
            | "TYPE" => true,
            "COMMENT" => e.tag.starts_with("EXTENSION ") || e.tag.starts_with("AGGREGATE "),
            "TABLE" => e.defn.contains("SET COMPRESSION"),
            _ => false,
        };
        if looked_at {
            let mut out = Vec::new();
            for sql in statements(&e.defn, Dialect::default()) {
                // `pg_restore` itself leaves this one out by its entry.
                let is_public = e.desc == "SCHEMA" && e.tag == "public";
                match if is_public {
                    Some(sql.to_owned())
                } else {
                    self.statement(sql, false)?.map(Fitted::joined)
                } {
                    Some(sql) => out.push(sql),
                    None => continue,
                }
            }
            e.defn = out.join("\n");
            e.defn.push_str(if e.defn.is_empty() { "" } else { "\n" });
            if e.desc == "AGGREGATE" {
                e.drop_stmt =
                    self.with_new_arguments(&e.drop_stmt).unwrap_or(std::mem::take(&mut e.drop_stmt));
            }
        }
        Ok(())
    }

    fn lacks_method(&self, method: &str) -> bool {
        !self.facts.access_methods.contains(method) && !self.state().brings_methods
    }

    /// A statement as it is sent, or `None` where a rule leaves it out. With `clean`, nothing has been
    /// made yet.
    ///
    /// # Errors
    /// `role_missing`, `extension_missing`.
    pub fn statement(&self, sql: &str, clean: bool) -> Result<Option<Fitted>, RestoreError> {
        let t = tokens(sql, Dialect::default());
        if let Some(rule) = self.leaves_out(&t, clean)? {
            if let Some(rule) = rule {
                self.used(rule, summary(&t));
            }
            return Ok(None);
        }
        let mut out = self.changed(&t, sql).unwrap_or_else(|| sql.to_owned());
        if is(&t, &["set"]) && !is(&t, &["set", "session", "authorization"]) {
            return Ok(Some(Fitted { roles: vec![], text: out }));
        }
        if self.policy.owners == Owners::Map
            && let Some(mapped) = renamed(&out, |r| Some(self.role(r)).filter(|m| *m != r).map(str::to_owned))
        {
            self.used(ROLE_MAPPED, summary(&t));
            out = mapped;
        }
        let mut roles: Vec<String> = mentions(&out).into_iter().map(|m| m.role).collect();
        roles.retain(|r| !self.has_role(r));
        let roles = roles.iter().map(|r| self.make_role(r)).collect::<Result<_, _>>()?;
        Ok(Some(Fitted { roles, text: out }))
    }

    /// The rule that leaves a statement out; the inner `None` where the use is reported already.
    #[allow(clippy::option_option, reason = "left out or not, and reported here or not")]
    fn leaves_out(&self, t: &[Token<'_>], clean: bool) -> Result<Option<Option<&'static str>>, RestoreError> {
        let version = self.facts.version;
        let name = |i: usize| t.get(i).and_then(Token::name).unwrap_or_default();
        let rule = |when: bool, rule: &'static str| Ok(when.then_some(Some(rule)));
        match name(0).as_str() {
            "set" => {
                let since = SETTINGS_SINCE.iter().find(|(n, _)| *n == name(1));
                rule(since.is_some_and(|(_, since)| version < *since), UNKNOWN_SETTING)
            }
            "drop" => rule(clean, CLEAN),
            "alter" if clean && t.iter().any(|w| w.is("drop") || w.is("detach")) => rule(true, CLEAN),
            "select" if t.len() > 4 && t[3].text == "lo_unlink" => rule(clean, CLEAN),
            "create" => match name(1).as_str() {
                "database" => rule(true, DATABASE),
                "schema" => {
                    rule(name(2) == "public" || (name(2) == "if" && name(5) == "public"), SCHEMA_PUBLIC)
                }
                "extension" => {
                    let extension = if name(2) == "if" { name(5) } else { name(2) };
                    self.state().brings_methods |= !is_contrib(&extension);
                    Ok((!self.keeps_extension(&extension)?).then_some(None))
                }
                "access" => {
                    self.state().brings_methods = true;
                    Ok(None)
                }
                // Takes a view out of a circle, so that it can be dropped.
                "or" if clean && name(3) == "view" => rule(true, CLEAN),
                _ => {
                    let language = t.iter().take(5).position(|w| w.is("language"));
                    rule(language.is_some_and(|i| name(i + 1) == "plpgsql" && t.len() <= i + 3), PLPGSQL)
                }
            },
            "alter" if name(1) == "database" => rule(true, DATABASE),
            "alter" if name(1) == "default" => rule(!self.policy.privileges, PRIVILEGES_LEFT_OUT),
            "alter" => {
                let owner = t.windows(2).any(|w| w[0].is("owner") && w[1].is("to"));
                if owner && self.policy.owners == Owners::None {
                    return rule(true, OWNER_LEFT_OUT);
                }
                let compression = t.windows(2).any(|w| w[0].is("set") && w[1].is("compression"));
                rule(compression && version < 140000, COMPRESSION)
            }
            "comment" | "security" if t.iter().take(5).any(|w| w.is("database")) && name(2) != "column" => {
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
                    "default_tablespace" if !value.is_empty() && !self.facts.tablespaces.contains(&value) => {
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
            "grant" | "revoke" | "alter" if self.facts.version < 170000 && name(1) != "table" => {
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
                    || t.windows(5).any(|w| w[0].is("sfunc") && ARRAY_FUNCTIONS.iter().any(|f| w[4].is(f)));
                let out = over_arrays.then(|| compatible(t, sql)).flatten()?;
                self.used(ARRAY_AGGREGATE, summary(t));
                let aggregate = if t.get(3).is_some_and(|d| d.is_symbol(b'.')) { name(4) } else { name(2) };
                self.state().aggregates.insert(aggregate);
                Some(out)
            }
            "alter" | "comment" | "grant" | "revoke" => self.with_new_arguments(sql),
            _ => None,
        }
    }

    /// `AGGREGATE x(anyelement)` where that aggregate was made with other arguments.
    fn with_new_arguments(&self, sql: &str) -> Option<String> {
        let t = tokens(sql, Dialect::default());
        let state = self.state();
        let known = |n: String| state.aggregates.contains(&n);
        let speaks = t.iter().any(|w| w.is("aggregate") || w.is("function"))
            && t.windows(2).any(|w| w[1].is_symbol(b'(') && w[0].name().is_some_and(known));
        speaks.then(|| compatible(&t, sql)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(version: u32, change: impl Fn(&mut Policy)) -> Fit {
        let mut policy = Policy::default();
        change(&mut policy);
        let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        let facts = ServerFacts {
            version,
            user: "me".into(),
            is_superuser: true,
            may_create_roles: true,
            roles: set(&["me", "there"]),
            may_become: set(&["me", "there"]),
            tablespaces: set(&["pg_default", "fast"]),
            extensions: set(&["plpgsql", "hstore"]),
            access_methods: set(&["heap"]),
            locales: set(&["c", "posix"]),
        };
        Fit::new(facts, policy, BTreeMap::new())
    }

    #[test]
    fn statements_are_fitted_to_the_version() {
        let f = fit(150000, |_| ());
        for (sql, wanted, rule) in [
            ("SET transaction_timeout = 0;", None, UNKNOWN_SETTING),
            ("SET default_tablespace = slow;", Some("SET default_tablespace = '';"), TABLESPACE),
            (
                "SET default_table_access_method = odd;",
                Some("SET default_table_access_method = heap;"),
                ACCESS_METHOD,
            ),
            ("SET default_with_oids = true;", Some("SET default_with_oids = false;"), WITH_OIDS),
            ("CREATE DATABASE x WITH TEMPLATE = template0;", None, DATABASE),
            ("GRANT CONNECT ON DATABASE x TO there;", None, DATABASE),
            ("COMMENT ON DATABASE x IS 'y';", None, DATABASE),
            ("CREATE SCHEMA public;", None, SCHEMA_PUBLIC),
            ("CREATE OR REPLACE PROCEDURAL LANGUAGE plpgsql;", None, PLPGSQL),
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
            assert_eq!(f.statement(sql, false).unwrap().map(Fitted::joined).as_deref(), wanted, "{sql}");
            assert!(f.report().iter().any(|r| r.rule == rule), "{sql}: {rule}");
        }
        for same in [
            "SET statement_timeout = 0;",
            "SET default_tablespace = fast;",
            "SET default_table_access_method = heap;",
            "CREATE TABLE public.t (a int);",
            "DROP TABLE x;",
            "COMMENT ON COLUMN t.database IS 'x';",
            "CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;",
            "CREATE LANGUAGE plpgsqlx HANDLER h;",
            "GRANT ALL ON TABLE t TO there;",
        ] {
            assert_eq!(f.statement(same, false).unwrap().map(Fitted::joined).as_deref(), Some(same));
        }
        let old = fit(130000, |_| ());
        for (sql, wanted, rule) in [
            ("ALTER TABLE ONLY t ALTER COLUMN a SET COMPRESSION lz4;", None, COMPRESSION),
            ("SET default_toast_compression = 'pglz';", None, UNKNOWN_SETTING),
            (
                "CREATE TYPE s.r AS RANGE (\n    subtype = time,\n    multirange_type_name = s.m\n);",
                Some("CREATE TYPE s.r AS RANGE (\n    subtype = time);"),
                MULTIRANGE,
            ),
        ] {
            assert_eq!(old.statement(sql, false).unwrap().map(Fitted::joined).as_deref(), wanted, "{sql}");
            assert!(old.report().iter().any(|r| r.rule == rule), "{sql}: {rule}");
        }
        let mut ordinary = fit(170000, |_| ());
        ordinary.facts.is_superuser = false;
        let comment = "COMMENT ON EXTENSION plpgsql IS 'x';";
        assert_eq!(ordinary.statement(comment, false).unwrap(), None);
        assert_eq!(f.statement(comment, false).unwrap().map(Fitted::joined).as_deref(), Some(comment));
        assert_eq!(ordinary.statement("CREATE EXTENSION adminpack;", false).unwrap(), None);
        let e = f.statement("CREATE EXTENSION adminpack;", false).unwrap_err();
        assert_eq!(e.reason(), R::ExtensionMissing);
        let rules: Vec<String> = ordinary.report().into_iter().map(|r| r.rule).collect();
        assert_eq!(rules, [COMMENT_ON_EXTENSION, EXTENSION_GONE]);

        let new = fit(170000, |_| ());
        let sql = "GRANT SELECT,MAINTAIN ON TABLE t TO there;";
        assert_eq!(new.statement(sql, false).unwrap().map(Fitted::joined).as_deref(), Some(sql));
        assert!(new.report().is_empty());
    }

    #[test]
    fn what_clean_drops_is_left_out_only_at_the_beginning() {
        let f = fit(150000, |_| ());
        for sql in [
            "DROP TABLE t;",
            "ALTER TABLE ONLY t DROP CONSTRAINT c;",
            "ALTER TABLE t ALTER COLUMN a DROP DEFAULT;",
        ] {
            assert_eq!(f.statement(sql, true).unwrap(), None);
            assert_eq!(f.statement(sql, false).unwrap().map(Fitted::joined).as_deref(), Some(sql));
        }
    }

    #[test]
    fn roles_follow_the_policy() {
        let sql = "ALTER TABLE t OWNER TO gone;";
        assert_eq!(fit(150000, |_| ()).statement(sql, false).unwrap_err().reason(), R::RoleMissing);
        assert_eq!(fit(150000, |p| p.owners = Owners::None).statement(sql, false).unwrap(), None);
        let mapped = fit(150000, |p| {
            p.owners = Owners::Map;
            p.role_map.insert("gone".into(), "there".into());
        });
        assert_eq!(
            mapped.statement(sql, false).unwrap().unwrap().joined(),
            "ALTER TABLE t OWNER TO \"there\";"
        );
        let makes = fit(150000, |p| p.create_roles = true);
        let made = makes.statement(sql, false).unwrap().unwrap().joined();
        assert!(made.starts_with("DO LANGUAGE plpgsql") && made.ends_with(sql), "{made}");
        assert_eq!(makes.statement(sql, false).unwrap().unwrap().joined(), sql, "made once");
        assert_eq!(makes.created_roles(), ["gone"]);
        let grant = "GRANT SELECT ON TABLE t TO there;";
        assert_eq!(fit(150000, |p| p.privileges = false).statement(grant, false).unwrap(), None);
    }

    #[test]
    fn a_missing_extension_takes_its_dependants_along() {
        let mut extension = TocEntry::bare(1, "EXTENSION", "postgis");
        extension.defn = "CREATE EXTENSION postgis;".into();
        let mut table = TocEntry::bare(2, "TABLE", "places");
        table.dependencies = vec![1];
        let mut data = TocEntry::bare(3, "TABLE DATA", "places");
        data.dependencies = vec![2];
        let other = TocEntry::bare(4, "TABLE", "other");
        let all = vec![extension, table, data, other];
        let e = fit(150000, |_| ()).entries(&mut all.clone()).unwrap_err();
        assert_eq!(e.reason(), R::ExtensionMissing);
        let f = fit(150000, |p| p.extensions = Extensions::SkipMissing);
        let mut left = all;
        f.entries(&mut left).unwrap();
        assert_eq!(left.iter().map(|e| e.tag.as_str()).collect::<Vec<_>>(), ["other"]);
        assert!(f.report()[0].examples.contains(&"TABLE places".to_owned()));
    }
}

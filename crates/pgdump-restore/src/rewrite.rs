//! Adapts a dump to a server other than the one it came from, by policy (owners, roles, extensions)
//! and by version. Every change is a rule of [`RULES`], and every use of a rule is reported;
//! statements that no rule covers are sent unchanged, and fail if the server rejects them.

mod edits;
mod platform;
mod rules;
mod selected;
mod skipped_by_rule;
mod statements;
mod string_constants;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use parking_lot::{Mutex, MutexGuard};

use edits::is_contrib;
use rules::*;

use crate::choice::StatementChoice;
use crate::dependents::Dependents;
use crate::error::{DatabaseError, DatabaseKind as D, RestoreError};
use crate::hints::MISSING_ROLE;
use crate::policy::{Extensions, OnError, Owners, Policy, Rewrite};
use crate::postgres::{ServerFacts, ident, literal, membership_options};
use crate::profiles::Service;
use pgdump_archive::{Dialect, DumpId, EntryKind, TocEntry, statements};
pub use rules::{RULES, Rule};

/// Most examples per rule in a report.
const EXAMPLES: usize = 50;

/// Facts about the target, the policy, and the rules used so far.
pub struct Rewriter {
    /// What the target server has.
    pub facts: ServerFacts,
    /// What may be changed: owners, privileges, roles, extensions.
    pub policy: Policy,
    /// CREATE ROLE statements of a globals file.
    globals: BTreeMap<String, String>,
    /// Comment on roles that are created.
    role_comment: String,
    state: Mutex<RewriteState>,
}

#[derive(Default)]
struct RewriteState {
    used: BTreeMap<&'static str, (u64, Vec<String>)>,
    /// Roles created by this restore.
    created: BTreeSet<String>,
    /// Aggregates whose argument types were changed.
    aggregates: BTreeSet<String>,
    /// Whether the dump may create table access methods.
    brings_methods: bool,
    /// Whether statistics of the dump were restored.
    has_statistics: bool,
    /// Whether backslashes in the string constants of the archive are escapes that this server has to be told of.
    marks_escapes: bool,
    /// Which statements of SQL text are left out, if the selection says it.
    choice: Option<StatementChoice>,
    /// The managed service whose profile is in use.
    service: Option<&'static Service>,
    /// Which statements of SQL text are left out because they are about objects of its platform.
    platform: Option<StatementChoice>,
    /// Roles that the restoring role has made itself a member of.
    granted: BTreeSet<String>,
    /// Extensions whose functions are called during the restore.
    called: BTreeSet<&'static str>,
}

/// A statement of SQL text as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RewrittenStatement<'a> {
    /// Statements that create roles it needs; the restoring role runs them before it.
    pub roles: Vec<String>,
    /// Borrowed if no rule changes it.
    pub text: Cow<'a, str>,
}

impl RewrittenStatement<'_> {
    /// Both together, if the statement runs as the restoring role anyway.
    fn joined(self) -> String {
        self.roles.concat() + &self.text
    }
}

impl Rewriter {
    /// `globals`: CREATE ROLE statements by role name.
    pub fn new(facts: ServerFacts, policy: Policy, globals: BTreeMap<String, String>) -> Self {
        Rewriter {
            facts,
            policy,
            globals,
            role_comment: String::new(),
            state: Mutex::default(),
        }
    }

    /// The same, with a comment on the roles that are created.
    pub fn with_role_comment(self, comment: String) -> Self {
        Rewriter {
            role_comment: comment,
            ..self
        }
    }

    fn state(&self) -> MutexGuard<'_, RewriteState> {
        self.state.lock()
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

    /// The rules used so far.
    pub fn report(&self) -> Vec<Rewrite> {
        let state = self.state();
        let rewrite = |(name, (count, examples)): (&&'static str, &(u64, Vec<String>))| Rewrite {
            rule: (*name).to_owned(),
            what: RULES
                .iter()
                .find(|r| r.name == *name)
                .map_or("", |r| r.what)
                .to_owned(),
            count: *count,
            examples: examples.clone(),
        };
        state.used.iter().map(rewrite).collect()
    }

    /// Whether the dump's own statistics were restored.
    pub fn has_statistics(&self) -> bool {
        self.state().has_statistics
    }

    /// Extensions whose functions are called during the restore.
    pub(crate) fn called_extensions(&self) -> BTreeSet<&'static str> {
        self.state().called.clone()
    }

    /// The role's name on the target.
    pub(crate) fn role<'a>(&'a self, role: &'a str) -> &'a str {
        let mapped = (self.policy.owners == Owners::Map)
            .then(|| self.policy.role_map.get(role))
            .flatten();
        mapped.map_or(role, String::as_str)
    }

    /// Whether the target has the role or this restore created it.
    pub(crate) fn has_role(&self, role: &str) -> bool {
        self.facts.roles.contains(role) || self.state().created.contains(role)
    }

    /// Whether a role that the server lacks may be created.
    pub(crate) fn makes_role(&self, role: &str) -> bool {
        self.policy.create_roles || self.globals.contains_key(role)
    }

    /// Whether what the server lacks is left to the server to refuse, statement by statement.
    pub(crate) fn leaves_refusals_to_server(&self) -> bool {
        self.policy.on_error == OnError::Skip
    }

    /// Whether a statement that needs a missing role is sent without it, and refused.
    pub(crate) fn does_without_role(&self, role: &str) -> bool {
        let is_made = self.makes_role(role) && self.facts.may_create_roles;
        self.leaves_refusals_to_server() && !is_made
    }

    /// The statement that creates a missing role; tolerates another restore that creates it concurrently.
    ///
    /// # Errors
    /// `role_missing`, unless the policy creates roles or the globals file has it.
    pub(crate) fn make_role(&self, role: &str) -> Result<String, RestoreError> {
        let definition = self.globals.get(role);
        if !self.policy.create_roles && definition.is_none() {
            let what = format!("the server does not have role {role}: {MISSING_ROLE}");
            return Err(DatabaseError::new(D::RoleMissing, what).into());
        }
        self.state().created.insert(role.to_owned());
        self.used(ROLE_CREATED, role);
        let create = definition
            .cloned()
            .unwrap_or_else(|| format!("CREATE ROLE {} NOLOGIN;", ident(role)));
        let label = format!(
            "COMMENT ON ROLE {} IS {};",
            ident(role),
            literal(&self.role_comment)
        );
        // Who creates a role may not act for it yet.
        let grant = if self.facts.is_superuser {
            String::new()
        } else {
            self.membership_of(role)
        };
        let body = format!(
            "BEGIN {create} {label} {grant} EXCEPTION WHEN duplicate_object THEN NULL; END"
        );
        Ok(format!("DO LANGUAGE plpgsql {};\n", literal(&body)))
    }

    fn membership_of(&self, role: &str) -> String {
        let options = membership_options(self.facts.version);
        format!("GRANT {} TO CURRENT_USER{options};", ident(role))
    }

    /// The statement that lets the restoring role give objects to this owner, once, if it needs one and may run it.
    pub(crate) fn join_role(&self, role: &str) -> Option<String> {
        let is_new = self.facts.may_grant_itself.contains(role)
            && self.policy.owners != Owners::None
            && self.state().granted.insert(role.to_owned());
        is_new.then(|| {
            self.used(ROLE_GRANTED, role);
            self.membership_of(role) + "\n"
        })
    }

    /// Rewrites a table of contents in place; removes entries that are skipped.
    ///
    /// # Errors
    /// `role_missing`, `extension_missing`.
    pub(crate) fn entries(&self, entries: &mut Vec<TocEntry>) -> Result<(), RestoreError> {
        self.state().brings_methods |= may_bring_methods(entries);
        // The other rules read statements as the server does.
        self.respell_entries(entries);
        self.skip_extensions(entries)?;
        for e in entries.iter_mut() {
            self.entry(e)?;
        }
        entries.retain(|e| !is_empty_acl(e));
        Ok(())
    }

    fn skip_extensions(&self, entries: &mut Vec<TocEntry>) -> Result<(), RestoreError> {
        let extensions = entries.iter().filter(|e| e.kind == EntryKind::Extension);
        let mut gone = HashSet::new();
        for e in extensions.filter(|e| !e.tag.is_empty()) {
            if !self.keeps_extension(&e.tag)? {
                gone.insert(e.dump_id);
            }
        }
        if !gone.is_empty() {
            add_dependents(entries, &mut gone);
            gone.extend(data_of_missing_tables(entries, &gone));
            self.skip(entries, &gone, EXTENSION_SKIPPED);
        }
        Ok(())
    }

    /// Removes the entries `gone` by this rule. Extensions among them have been reported already.
    fn skip(&self, entries: &mut Vec<TocEntry>, gone: &HashSet<DumpId>, rule: &'static str) {
        let skipped = entries.iter().filter(|e| gone.contains(&e.dump_id));
        for e in skipped.filter(|e| e.kind != EntryKind::Extension) {
            self.used(rule, e.name());
        }
        entries.retain(|e| !gone.contains(&e.dump_id));
    }

    /// Whether the extension is to be created.
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
            Extensions::Require if self.leaves_refusals_to_server() => Ok(true),
            Extensions::Require => {
                let what = match self.facts.unusable_extensions.get(name) {
                    Some(why) => {
                        format!(
                            "extension {name}: {why}, or restore with --extensions skip-missing"
                        )
                    }
                    None => format!(
                        "extension {name} is not available on the server: install it, or restore with --extensions skip-missing"
                    ),
                };
                Err(DatabaseError::new(D::ExtensionMissing, what).into())
            }
        }
    }

    fn entry(&self, e: &mut TocEntry) -> Result<(), RestoreError> {
        if has_rewritable_statements(e) {
            let sent = self.definition(e)?;
            // An object that is not created gets no owner, either. The schema public is there, and may get one.
            if sent.is_empty() && !e.defn.is_empty() && !is_public_schema(e) {
                e.owner.clear();
            }
            e.defn = sent;
        }
        if !e.owner.is_empty() && !e.drop_stmt.is_empty() {
            self.rewrite_owner(e);
        }
        self.rewrite_storage(e);
        if e.kind == EntryKind::Aggregate
            && let Some(drop_stmt) = self.with_new_arguments(&e.drop_stmt)
        {
            e.drop_stmt = drop_stmt;
        }
        Ok(())
    }

    fn rewrite_owner(&self, e: &mut TocEntry) {
        match self.policy.owners {
            Owners::None => {
                self.used(OWNER_LEFT_OUT, e.owner.as_str());
                e.owner.clear();
            }
            Owners::Map if self.role(&e.owner) != e.owner => {
                let mapped = self.role(&e.owner).to_owned();
                self.used(ROLE_MAPPED, format!("{} → {mapped}", e.owner));
                e.owner = mapped;
            }
            Owners::Map | Owners::Keep => {}
        }
    }

    fn rewrite_storage(&self, e: &mut TocEntry) {
        let is_missing =
            |space: &&mut String| !space.is_empty() && !self.facts.tablespaces.contains(*space);
        if let Some(space) = e.tablespace.as_mut().filter(is_missing) {
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
    }

    /// The statements of an entry that are sent.
    fn definition(&self, e: &TocEntry) -> Result<String, RestoreError> {
        if is_public_schema(e) {
            // `pg_restore` itself recognizes this one by its entry.
            let kept = statements(&e.defn, Dialect::default()).into_iter();
            return Ok(lines(kept.map(str::to_owned)));
        }
        let mut sent = vec![];
        for sql in statements(&e.defn, Dialect::default()) {
            sent.extend(self.statement(sql, false)?.map(RewrittenStatement::joined));
        }
        Ok(lines(sent))
    }

    fn lacks_method(&self, method: &str) -> bool {
        !self.facts.access_methods.contains(method) && !self.state().brings_methods
    }
}

fn is_public_schema(e: &TocEntry) -> bool {
    e.kind == EntryKind::Schema && e.tag == "public"
}

/// Whether a rule may change a statement of this entry. Rules see no statement of any other kind: extend this with a
/// new rule.
fn has_rewritable_statements(e: &TocEntry) -> bool {
    match &e.kind {
        EntryKind::Acl
        | EntryKind::AclLanguage
        | EntryKind::DefaultAcl
        | EntryKind::Policy
        | EntryKind::UserMapping
        | EntryKind::ProceduralLanguage
        | EntryKind::StatisticsData
        | EntryKind::Aggregate
        | EntryKind::Extension
        | EntryKind::Schema
        | EntryKind::Type => true,
        EntryKind::Comment => e.tag.starts_with("EXTENSION ") || e.tag.starts_with("AGGREGATE "),
        EntryKind::Table | EntryKind::ForeignTable | EntryKind::MaterializedView => {
            e.defn.contains("SET COMPRESSION") || e.defn.contains("pg_attver")
        }
        _ => false,
    }
}

/// Each statement in a line of its own.
fn lines(statements: impl IntoIterator<Item = String>) -> String {
    let mut text = statements.into_iter().collect::<Vec<_>>().join("\n");
    text.push_str(if text.is_empty() { "" } else { "\n" });
    text
}

fn may_bring_methods(entries: &[TocEntry]) -> bool {
    entries.iter().any(|e| match &e.kind {
        EntryKind::AccessMethod => true,
        EntryKind::Extension => !is_contrib(&e.tag),
        _ => false,
    })
}

/// Whether all statements of a privilege were skipped.
fn is_empty_acl(e: &TocEntry) -> bool {
    let is_acl = matches!(e.kind, EntryKind::Acl | EntryKind::DefaultAcl);
    is_acl && e.defn.is_empty() && !e.has_data
}

/// Adds the entries that depend on these.
fn add_dependents(entries: &[TocEntry], gone: &mut HashSet<DumpId>) {
    Dependents::of(entries).add_to(gone);
}

/// Rows and sequence values of tables that an extension created. They name no extension, only a table that
/// the archive does not have: they are skipped with the extension that their schema is named after, or that alone was
/// created in it, or if no remaining extension can own the table.
pub(crate) fn data_of_missing_tables(entries: &[TocEntry], gone: &HashSet<DumpId>) -> Vec<DumpId> {
    let of = |kind: EntryKind| entries.iter().filter(move |e| e.kind == kind);
    let schemas: HashSet<&str> = of(EntryKind::Schema).map(|e| e.tag.as_str()).collect();
    let ids: HashSet<DumpId> = entries.iter().map(|e| e.dump_id).collect();
    let extensions = of(EntryKind::Extension).filter(|e| e.tag != "plpgsql");
    let (missing, left): (Vec<&TocEntry>, Vec<&TocEntry>) =
        extensions.partition(|e| gone.contains(&e.dump_id));
    let is_of_missing = |schema: &str| {
        left.is_empty()
            || missing
                .iter()
                .any(|extension| is_called_after(schema, extension))
    };
    let is_own_schema = |schema: &str| {
        let has_it = |e: &&TocEntry| schema_of_extension(e) == Some(schema);
        schema != "public" && missing.iter().any(has_it) && !left.iter().any(has_it)
    };
    let is_unknown = |schema: &str| schema != "public" && !schemas.contains(schema);
    let is_gone = |e: &&TocEntry| {
        matches!(e.kind, EntryKind::TableData | EntryKind::SequenceSet)
            && e.dependencies.iter().all(|d| !ids.contains(d))
            && e.namespace
                .as_deref()
                .is_some_and(|s| is_own_schema(s) || is_unknown(s) && is_of_missing(s))
    };
    entries.iter().filter(is_gone).map(|e| e.dump_id).collect()
}

/// The schema that an extension is created in.
pub(crate) fn schema_of_extension(extension: &TocEntry) -> Option<&str> {
    let create = extension.defn.trim_end().trim_end_matches(';');
    let (_, schema) = create.rsplit_once(" SCHEMA ")?;
    Some(schema.trim_matches('"'))
}

fn is_called_after(schema: &str, extension: &TocEntry) -> bool {
    extension.tag == schema || extension.tag.strip_prefix("pg_") == Some(schema)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::FailureReason as R;

    pub(super) fn rewriter(version: u32, change: impl Fn(&mut Policy)) -> Rewriter {
        let mut policy = Policy::default();
        change(&mut policy);
        let set = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
        let facts = ServerFacts {
            cores: None,
            version,
            user: "me".into(),
            is_superuser: true,
            may_create_roles: true,
            may_create_databases: true,
            roles: set(&["me", "there"]),
            may_become: set(&["me", "there"]),
            may_grant_itself: BTreeSet::new(),
            tablespaces: set(&["pg_default", "fast"]),
            extensions: set(&["plpgsql", "hstore"]),
            untrusted_extensions: BTreeSet::new(),
            unusable_extensions: BTreeMap::new(),
            cron_database: None,
            access_methods: set(&["heap"]),
            index_methods: set(&["btree", "gin"]),
            has_icu: true,
            has_lz4: true,
            locales: set(&["c", "posix"]),
        };
        Rewriter::new(facts, policy, BTreeMap::new())
    }

    #[test]
    fn roles_follow_the_policy() {
        let sql = "ALTER TABLE t OWNER TO gone;";
        assert_eq!(
            rewriter(150000, |_| ())
                .statement(sql, false)
                .unwrap_err()
                .reason(),
            R::RoleMissing
        );
        assert_eq!(
            rewriter(150000, |p| p.owners = Owners::None)
                .statement(sql, false)
                .unwrap(),
            None
        );
        let mapped = rewriter(150000, |p| {
            p.owners = Owners::Map;
            p.role_map.insert("gone".into(), "there".into());
        });
        assert_eq!(
            mapped.statement(sql, false).unwrap().unwrap().joined(),
            "ALTER TABLE t OWNER TO \"there\";"
        );
        let makes = rewriter(150000, |p| p.create_roles = true);
        let made = makes.statement(sql, false).unwrap().unwrap().joined();
        assert!(
            made.starts_with("DO LANGUAGE plpgsql") && made.ends_with(sql),
            "{made}"
        );
        assert_eq!(
            makes.statement(sql, false).unwrap().unwrap().joined(),
            sql,
            "created once"
        );
        let grant = "GRANT SELECT ON TABLE t TO there;";
        assert_eq!(
            rewriter(150000, |p| p.privileges = false)
                .statement(grant, false)
                .unwrap(),
            None
        );
    }

    #[test]
    fn a_missing_extension_is_skipped_with_its_dependents() {
        let mut extension = TocEntry::bare(1, "EXTENSION", "postgis");
        extension.defn = "CREATE EXTENSION postgis;".into();
        let mut table = TocEntry::bare(2, "TABLE", "places");
        table.dependencies = vec![DumpId(1)];
        let mut data = TocEntry::bare(3, "TABLE DATA", "places");
        data.dependencies = vec![DumpId(2)];
        let other = TocEntry::bare(4, "TABLE", "other");
        let all = vec![extension, table, data, other];
        let e = rewriter(150000, |_| ())
            .entries(&mut all.clone())
            .unwrap_err();
        assert_eq!(e.reason(), R::ExtensionMissing);
        let f = rewriter(150000, |p| p.extensions = Extensions::SkipMissing);
        let mut left = all;
        f.entries(&mut left).unwrap();
        assert_eq!(
            left.iter().map(|e| e.tag.as_str()).collect::<Vec<_>>(),
            ["other"]
        );
        assert!(f.report()[0].examples.contains(&"TABLE places".to_owned()));
    }

    #[test]
    fn what_is_skipped_gets_no_owner() {
        use crate::ddl::OutputState;
        let sent = |kind: &str, tag: &str, defn: &str| {
            let mut e = TocEntry::bare(1, kind, tag);
            (e.defn, e.owner) = (defn.to_owned(), "there".to_owned());
            e.drop_stmt = format!("DROP {kind} {tag};\n");
            let mut entries = vec![e];
            let f = rewriter(150000, |_| ());
            f.entries(&mut entries).unwrap();
            OutputState::default().sql_for(&entries[0])
        };
        let language = |name: &str| {
            let defn = format!("CREATE OR REPLACE PROCEDURAL LANGUAGE {name};\n");
            sent("PROCEDURAL LANGUAGE", name, &defn)
        };
        assert_eq!(language("plpgsql"), "");
        let owner = "ALTER PROCEDURAL LANGUAGE \"plperl\" OWNER TO \"there\";";
        assert!(language("plperl").ends_with(owner));
        // A new database has it already, with another owner.
        let public = sent("SCHEMA", "public", "-- *not* creating schema\n");
        assert!(public.ends_with("ALTER SCHEMA \"public\" OWNER TO \"there\";"));
        // The same in SQL text.
        let f = rewriter(150000, |_| ());
        let sql = "ALTER PROCEDURAL LANGUAGE plpgsql OWNER TO gone;";
        assert_eq!(f.statement(sql, false).unwrap(), None);
    }

    #[test]
    fn only_rows_of_the_missing_extensions_tables_are_skipped() {
        let entry = |id: i32, desc: &str, schema: Option<&str>, tag: &str, needs: &[i32]| {
            let mut e = TocEntry::bare(id, desc, tag);
            e.namespace = schema.map(str::to_owned);
            e.dependencies = needs.iter().copied().map(DumpId).collect();
            e
        };
        let all = vec![
            entry(1, "EXTENSION", None, "pg_cron", &[]),
            entry(2, "EXTENSION", None, "hstore", &[]),
            entry(3, "SCHEMA", None, "s", &[]),
            entry(4, "TABLE", Some("s"), "t", &[3]),
            entry(5, "TABLE DATA", Some("s"), "t", &[4]),
            entry(6, "TABLE DATA", Some("cron"), "job", &[90]),
            entry(7, "SEQUENCE SET", Some("cron"), "jobid_seq", &[91]),
            entry(8, "TABLE DATA", Some("tiger"), "x", &[92]),
        ];
        let f = rewriter(150000, |p| p.extensions = Extensions::SkipMissing);
        let mut left = all;
        f.entries(&mut left).unwrap();
        assert_eq!(
            left.iter().map(|e| e.dump_id.0).collect::<Vec<_>>(),
            [2, 3, 4, 5, 8]
        );
        // The archive creates the schema of the extension.
        let mut extension = entry(1, "EXTENSION", None, "supabase_vault", &[]);
        extension.defn = "CREATE EXTENSION supabase_vault WITH SCHEMA vault;\n".into();
        let all = vec![
            extension,
            entry(2, "SCHEMA", None, "vault", &[]),
            entry(3, "EXTENSION", None, "hstore", &[]),
            entry(4, "TABLE", Some("vault"), "mine", &[2]),
            entry(5, "TABLE DATA", Some("vault"), "mine", &[4]),
            entry(6, "TABLE DATA", Some("vault"), "secrets", &[90]),
        ];
        let gone = data_of_missing_tables(&all, &HashSet::from([DumpId(1)]));
        assert_eq!(gone, [DumpId(6)]);
    }
}
